/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/api_tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "infer/grammar.h"
#include "serve/api_format.h"

enum { CALLS_SIZE_MAX = 16 << 20 };

static enum status no_memory(struct api_error *error)
{
    return api_refuse(error, 503, "overloaded", NULL, "Not enough memory");
}

static bool is_name(const char *text)
{
    size_t len = 0;

    if (text == NULL) return false;
    for (; text[len] != '\0'; len++) {
        const char c = text[len];
        const bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
        if (!ok || len == API_TOOL_NAME_MAX) return false;
    }
    return len > 0;
}

/* ---- tools ---- */

static enum status check_tool(const struct json_value *tool, size_t index, struct api_error *error)
{
    static const char *const NAMES[] = { "name", "description", "parameters", "strict", NULL };
    const struct json_value *function = json_value_member(tool, "function");
    const struct json_value *parameters = json_value_member(function, "parameters");
    const char *type = json_value_text(json_value_member(tool, "type"));
    char path[API_PARAM_SIZE];

    snprintf(path, sizeof(path), "tools[%zu]", index);
    if (type == NULL || strcmp(type, "function") != 0 || !json_value_is_object(function)) {
        return api_refuse(error, 400, "invalid_value", path,
                          "'%s' must have the type 'function' and a 'function'", path);
    }
    snprintf(path, sizeof(path), "tools[%zu].function", index);
    const char *stranger = json_value_stranger(function, NAMES);
    if (stranger != NULL) {
        return api_refuse(error, 400, "unknown_parameter", path, "Unknown field '%.40s' in '%s'",
                          stranger, path);
    }
    if (!is_name(json_value_text(json_value_member(function, "name")))) {
        return api_refuse(error, 400, "invalid_value", path,
                          "'%s' needs a 'name' of 1 to %d letters, digits, '_', '-' or '.'", path,
                          API_TOOL_NAME_MAX);
    }
    if (parameters != NULL && !json_value_is_object(parameters)) {
        return api_refuse(error, 400, "invalid_type", path, "'%s.parameters' must be an object",
                          path);
    }
    return STATUS_OK;
}

enum status api_tools_take(struct api_request *request, const struct json_value *value,
                           struct api_error *error)
{
    const size_t count = json_value_count(value);

    if (!json_value_is_array(value))
        return api_refuse(error, 400, "invalid_type", "tools", "'tools' must be an array");
    if (count > API_TOOLS_MAX) {
        return api_refuse(error, 400, "invalid_value", "tools", "'tools' has more than %d tools",
                          API_TOOLS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        const enum status status = check_tool(json_value_at(value, i), i, error);
        if (status != STATUS_OK) return status;
    }
    char *text = json_value_dump(value);
    if (text == NULL) return no_memory(error);
    request->tools_size = strlen(text);
    free(text);
    request->tools = count > 0 ? value : NULL;
    return STATUS_OK;
}

/* ---- tool_choice ---- */

enum status api_tools_take_choice(struct api_request *request, const struct json_value *value,
                                  struct api_error *error)
{
    static const char *const WORDS[] = { "auto", "none", "required" };
    static const enum api_tool_choice CHOICES[] = { API_TOOL_AUTO, API_TOOL_NONE,
                                                    API_TOOL_REQUIRED };
    const char *word = json_value_text(value);
    const struct json_value *function = json_value_member(value, "function");

    for (size_t i = 0; word != NULL && i < sizeof(WORDS) / sizeof(WORDS[0]); i++) {
        if (strcmp(word, WORDS[i]) != 0) continue;
        request->tool_choice = CHOICES[i];
        return STATUS_OK;
    }
    request->tool_name = json_value_text(json_value_member(function, "name"));
    if (request->tool_name == NULL) {
        return api_refuse(error, 400, "invalid_value", "tool_choice",
                          "'tool_choice' must be 'none', 'auto', 'required', or name a function");
    }
    request->tool_choice = API_TOOL_REQUIRED;
    return STATUS_OK;
}

enum status api_tools_take_variables(struct api_request *request, const struct json_value *value,
                                     struct api_error *error)
{
    if (!json_value_is_object(value)) {
        return api_refuse(error, 400, "invalid_type", "chat_template_kwargs",
                          "'chat_template_kwargs' must be an object");
    }
    request->variables = value;
    return STATUS_OK;
}

/* ---- calls in messages ---- */

/* One call as templates want it: "arguments" an object, not its text. */
static enum status put_call(struct buf *out, const struct json_value *call, const char *path,
                            struct api_error *error)
{
    const struct json_value *function = json_value_member(call, "function");
    const char *arguments = json_value_text(json_value_member(function, "arguments"));
    const char *name = json_value_text(json_value_member(function, "name"));
    struct json_value *parsed = NULL;
    struct errmsg err = { "" };

    if (!is_name(name) || arguments == NULL) {
        return api_refuse(error, 400, "invalid_value", path,
                          "'%s' must have a 'function' with a 'name' and 'arguments'", path);
    }
    if (json_document_parse(arguments, strlen(arguments), &parsed, &err) != STATUS_OK ||
        !json_value_is_object(parsed)) {
        json_document_destroy(parsed);
        return api_refuse(error, 400, "invalid_value", path,
                          "'%s.function.arguments' is not the text of an object: %.60s", path,
                          err.text);
    }
    char *dumped = json_value_dump(parsed);
    char *id = json_value_dump(json_value_member(call, "id"));
    json_document_destroy(parsed);
    const enum status status = dumped == NULL
                                   ? STATUS_NO_MEMORY
                                   : buf_printf(out,
                                                "{\"id\":%s,\"type\":\"function\",\"function\":"
                                                "{\"name\":\"%s\",\"arguments\":%s}}",
                                                id != NULL ? id : "null", name, dumped);
    free(dumped);
    free(id);
    return status == STATUS_OK ? STATUS_OK : no_memory(error);
}

static enum status put_calls(struct buf *out, const char *path, const struct json_value *value,
                             struct api_error *error)
{
    char place[API_PARAM_SIZE + 16];
    enum status status = buf_append_text(out, "[");

    for (size_t i = 0; i < json_value_count(value) && status == STATUS_OK; i++) {
        snprintf(place, sizeof(place), "%.80s[%zu]", path, i);
        if (i > 0) status = buf_append_text(out, ",");
        if (status != STATUS_OK) break;
        status = put_call(out, json_value_at(value, i), place, error);
        if (status != STATUS_OK) return status;
    }
    if (status == STATUS_OK) status = buf_append_text(out, "]");
    return status == STATUS_OK ? STATUS_OK : no_memory(error);
}

enum status api_tools_take_calls(struct api_request *request, size_t index, const char *path,
                                 const struct json_value *value, struct api_error *error)
{
    struct json_value *calls = NULL;
    struct errmsg err;
    struct buf text;

    if (!json_value_is_array(value))
        return api_refuse(error, 400, "invalid_type", path, "'%s' must be an array", path);
    if (json_value_count(value) == 0) return STATUS_OK;
    if (request->calls == NULL) request->calls = calloc(request->messages_count, sizeof(calls));
    if (request->calls == NULL) return no_memory(error);
    buf_init(&text, CALLS_SIZE_MAX);
    enum status status = put_calls(&text, path, value, error);
    if (status == STATUS_OK &&
        json_document_parse((const char *)buf_data(&text), text.len, &calls, &err) != STATUS_OK)
        status = no_memory(error);
    buf_fini(&text);
    if (status != STATUS_OK) return status;
    request->calls[index] = calls;
    request->messages[index].tool_calls = calls;
    return STATUS_OK;
}

/* ---- the whole ---- */

static bool has_tool(const struct json_value *tools, const char *name)
{
    for (size_t i = 0; i < json_value_count(tools); i++) {
        const struct json_value *function = json_value_member(json_value_at(tools, i), "function");
        if (strcmp(json_value_text(json_value_member(function, "name")), name) == 0) return true;
    }
    return false;
}

enum status api_tools_check(struct api_request *request, struct api_error *error)
{
    if (request->tools == NULL && request->tool_choice == API_TOOL_REQUIRED) {
        return api_refuse(error, 400, "invalid_value", "tool_choice",
                          "'tool_choice' asks for a call and there are no 'tools'");
    }
    if (request->tool_name != NULL && !has_tool(request->tools, request->tool_name)) {
        return api_refuse(error, 400, "invalid_value", "tool_choice",
                          "'tool_choice' names '%.64s', which is not in 'tools'",
                          request->tool_name);
    }
    if (request->tool_choice == API_TOOL_REQUIRED && request->grammar != NULL) {
        return api_refuse(error, 400, "invalid_value", "response_format",
                          "'response_format' with a call that must be made");
    }
    if (request->tools == NULL || request->tool_choice == API_TOOL_NONE) {
        request->tools = NULL;
        request->tools_size = 0;
        request->tool_choice = API_TOOL_NONE;
    }
    return STATUS_OK;
}

/* Can its arguments be constrained by its parameters? */
static bool is_understood(const char *parameters)
{
    struct grammar *grammar = NULL;
    char *document = NULL;

    if (asprintf(&document, "{\"schema\":%s}", parameters) < 0) return false;
    const enum status status = grammar_compile(document, strlen(document), &grammar, NULL);
    free(document);
    if (status != STATUS_OK) return false;
    grammar_destroy(grammar);
    return true;
}

/* Who may call need not: parameters that are not understood mean any object then. */
static enum status put_tools(struct buf *out, const struct api_request *request)
{
    const bool lazy = request->tool_choice != API_TOOL_REQUIRED;
    enum status status = STATUS_OK;
    bool first = true;

    for (size_t i = 0; i < json_value_count(request->tools) && status == STATUS_OK; i++) {
        const struct json_value *function =
            json_value_member(json_value_at(request->tools, i), "function");
        const char *name = json_value_text(json_value_member(function, "name"));
        if (request->tool_name != NULL && strcmp(request->tool_name, name) != 0) continue;
        char *parameters = json_value_dump(json_value_member(function, "parameters"));
        const bool given = parameters != NULL && (!lazy || is_understood(parameters));
        status = buf_printf(out, "%s{\"name\":\"%s\"%s%s}", first ? "" : ",", name,
                            given ? ",\"parameters\":" : "", given ? parameters : "");
        free(parameters);
        first = false;
    }
    return status;
}

/* {"calls":...} for infer/grammar.h */
static enum status call_document(const struct api_request *request, const char *style, char **out)
{
    struct buf text;
    uint8_t *document = NULL;
    size_t len = 0;

    buf_init(&text, CALLS_SIZE_MAX);
    enum status status =
        buf_printf(&text, "{\"calls\":{\"style\":\"%s\",\"many\":%s,\"lazy\":%s,\"tools\":[", style,
                   request->one_call || request->tool_name != NULL ? "false" : "true",
                   request->tool_choice == API_TOOL_REQUIRED ? "false" : "true");
    if (status == STATUS_OK) status = put_tools(&text, request);
    if (status == STATUS_OK) status = buf_append_text(&text, "]}}");
    if (status == STATUS_OK) status = buf_take(&text, &document, &len);
    buf_fini(&text);
    *out = (char *)document;
    return status;
}

/* A call that must be made. */
static enum status force_call(struct api_request *request, const char *style,
                              struct api_error *error)
{
    char *document = NULL;

    if (call_document(request, style, &document) != STATUS_OK) return no_memory(error);
    request->calls_grammar = true;
    const enum status status = api_format_keep(request, document, "tools", error);
    return status == STATUS_OK ? api_format_check(request, error) : status;
}

/* Calls that may be made: constrained from their mark on, where that is possible. */
static enum status guide_calls(struct api_request *request, const char *style,
                               struct api_error *error)
{
    struct grammar *grammar = NULL;
    char *document = NULL;

    if (request->grammar != NULL || request->ignore_eos || request->min_tokens > 0)
        return STATUS_OK;
    if (call_document(request, style, &document) != STATUS_OK) return no_memory(error);
    const enum status status = grammar_compile(document, strlen(document), &grammar, NULL);
    if (status != STATUS_OK) { /* too large, all together */
        free(document);
        return status == STATUS_NO_MEMORY ? no_memory(error) : STATUS_OK;
    }
    grammar_destroy(grammar);
    request->grammar = document;
    request->calls_grammar = true;
    return STATUS_OK;
}

/* Messages that a template without tools would pass over. */
static enum status check_history(const struct api_request *request, struct api_error *error)
{
    for (size_t i = 0; i < request->messages_count; i++) {
        const struct chat_message *message = &request->messages[i];
        char path[API_PARAM_SIZE];
        if (message->tool_calls == NULL && strcmp(message->role, "tool") != 0) continue;
        snprintf(path, sizeof(path), "messages[%zu]", i);
        return api_refuse(error, 400, "unsupported_parameter", path,
                          "'%s' is about a tool: the chat template of this model has none", path);
    }
    return STATUS_OK;
}

enum status api_tools_prepare(struct api_request *request, enum chat_tools style,
                              struct api_error *error)
{
    static const char *const STYLES[] = { "", "hermes", "llama3", "mistral" };

    if (style == CHAT_TOOLS_NONE) {
        const enum status status = check_history(request, error);
        if (status != STATUS_OK) return status;
    }
    if (request->tools == NULL) return STATUS_OK;
    if (style == CHAT_TOOLS_NONE) {
        return api_refuse(error, 400, "unsupported_parameter", "tools",
                          "'tools' is not supported: the chat template of this model has none");
    }
    if (request->tool_choice != API_TOOL_REQUIRED)
        return guide_calls(request, STYLES[style], error);
    return force_call(request, STYLES[style], error);
}
