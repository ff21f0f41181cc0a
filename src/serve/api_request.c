/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_request.c - request bodies, checked field by field against one table.
 *
 * A row of the table says for which endpoints a field is known and what happens to it: parsed by a
 * function, ignored because the answer cannot depend on it, allowed at a neutral value because
 * clients send their defaults, or refused. null is the same as absent for every known field:
 * clients send it. The first fault found in the order of the text is reported, and only that one.
 */
#include "serve/api.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/json.h"
#include "model/chat.h"
#include "serve/api_format.h"
#include "serve/api_json.h"
#include "serve/api_tools.h"

static_assert((int)API_MESSAGES_MAX <= (int)CHAT_MESSAGES_MAX, "the template takes them all");

struct parse {
    struct api_request *request;
    struct api_error *error;
    uint32_t max_tokens, max_completion_tokens; /* the second wins */
    uint32_t best_of;                           /* 0: not given */
    bool logprobs;                              /* of a chat */
    uint32_t top_logprobs;                      /* 0: not given; else 1 + their number */
    bool has_stream_options;
    enum status status;
};

typedef enum status (*field_fn)(struct parse *parse, const char *name,
                                const struct json_value *value);

enum status api_refuse(struct api_error *error, int http_status, const char *code,
                       const char *param, const char *fmt, ...)
{
    va_list args;

    ASSERT(http_status >= 400 && http_status < 600);
    *error = (struct api_error){ .http_status = http_status, .code = code };
    error->type = http_status >= 500   ? "server_error"
                  : http_status == 401 ? "authentication_error"
                  : http_status == 404 ? "not_found_error"
                  : http_status == 429 ? "rate_limit_error"
                                       : "invalid_request_error";
    if (param != NULL) snprintf(error->param, sizeof(error->param), "%s", param);
    va_start(args, fmt);
    vsnprintf(error->message, sizeof(error->message), fmt, args);
    va_end(args);
    /* Cutting may have split a code point of a quoted name; names are short, so drop what is high.
     */
    for (char *c = error->message; *c; c++) {
        if ((unsigned char)*c >= 0x80) *c = '?';
    }
    for (char *c = error->param; *c; c++) {
        if ((unsigned char)*c >= 0x80) *c = '?';
    }
    return STATUS_INVALID;
}

static enum status wrong_type(struct parse *parse, const char *name, const char *want,
                              const struct json_value *value)
{
    return api_refuse(parse->error, 400, "invalid_type", name, "'%s' must be %s, not %s", name,
                      want, api_json_type_text(api_json_type_of(value)));
}

static enum status want_bool(struct parse *parse, const char *name, const struct json_value *value,
                             bool *out)
{
    if (api_json_type_of(value) != JSON_TYPE_BOOL)
        return wrong_type(parse, name, "a boolean", value);
    *out = api_json_bool(value);
    return STATUS_OK;
}

static enum status want_int(struct parse *parse, const char *name, const struct json_value *value,
                            int64_t min, int64_t max, int64_t *out)
{
    if (api_json_type_of(value) != JSON_TYPE_INTEGER) {
        return wrong_type(parse, name, "an integer", value);
    }
    if (api_json_int(value) < min || api_json_int(value) > max) {
        return api_refuse(parse->error, 400, "invalid_value", name,
                          "'%s' must be between %lld and %lld, not %lld", name, (long long)min,
                          (long long)max, (long long)api_json_int(value));
    }
    *out = api_json_int(value);
    return STATUS_OK;
}

static enum status want_number(struct parse *parse, const char *name,
                               const struct json_value *value, double min, double max, double *out)
{
    const enum json_type type = api_json_type_of(value);

    if (type != JSON_TYPE_INTEGER && type != JSON_TYPE_REAL) {
        return wrong_type(parse, name, "a number", value);
    }
    const double number = api_json_num(value);
    if (!(number >= min && number <= max)) {
        return api_refuse(parse->error, 400, "invalid_value", name,
                          "'%s' must be between %g and %g, not %g", name, min, max, number);
    }
    *out = number;
    return STATUS_OK;
}

static enum status want_text(struct parse *parse, const char *name, const struct json_value *value,
                             struct api_text *out)
{
    if (api_json_type_of(value) != JSON_TYPE_STRING)
        return wrong_type(parse, name, "a string", value);
    out->data = api_json_str(value, &out->len);
    return STATUS_OK;
}

/* ---- fields we understand ---- */

static enum status field_model(struct parse *parse, const char *name,
                               const struct json_value *value)
{
    return want_text(parse, name, value, &parse->request->model);
}

static enum status field_stream(struct parse *parse, const char *name,
                                const struct json_value *value)
{
    return want_bool(parse, name, value, &parse->request->stream);
}

static enum status field_ignore_eos(struct parse *parse, const char *name,
                                    const struct json_value *value)
{
    return want_bool(parse, name, value, &parse->request->ignore_eos);
}

static bool stream_option(void *ctx, const char *name, const struct json_value *value)
{
    struct parse *parse = ctx;
    char path[API_PARAM_SIZE];
    bool wanted = false;

    snprintf(path, sizeof(path), "stream_options.%s", name);
    if (api_json_type_of(value) == JSON_TYPE_NULL) return true;
    if (strcmp(name, "include_usage") == 0) {
        parse->status = want_bool(parse, path, value, &parse->request->include_usage);
    } else if (strcmp(name, "include_obfuscation") == 0) {
        parse->status = want_bool(parse, path, value, &wanted);
    } else if (strcmp(name, "continuous_usage_stats") == 0) {
        parse->status = want_bool(parse, path, value, &parse->request->continuous_usage);
    } else {
        parse->status =
            api_refuse(parse->error, 400, "unknown_parameter", path, "Unknown field '%s'", path);
    }
    return parse->status == STATUS_OK;
}

static enum status field_stream_options(struct parse *parse, const char *name,
                                        const struct json_value *value)
{
    if (api_json_type_of(value) != JSON_TYPE_OBJECT)
        return wrong_type(parse, name, "an object", value);
    parse->has_stream_options = true;
    api_json_each(value, stream_option, parse);
    return parse->status;
}

static enum status field_max_tokens(struct parse *parse, const char *name,
                                    const struct json_value *value)
{
    int64_t count = 0;
    const bool chat = parse->request->kind == API_CHAT;
    const enum status status =
        want_int(parse, name, value, chat ? 1 : 0, API_MAX_TOKENS_MAX, &count);

    if (status != STATUS_OK) return status;
    parse->request->prompt_only = count == 0;
    if (strcmp(name, "max_completion_tokens") == 0) {
        parse->max_completion_tokens = (uint32_t)count;
    } else {
        parse->max_tokens = (uint32_t)count;
    }
    return STATUS_OK;
}

static enum status field_min_tokens(struct parse *parse, const char *name,
                                    const struct json_value *value)
{
    int64_t count = 0;
    const enum status status = want_int(parse, name, value, 0, API_MAX_TOKENS_MAX, &count);
    parse->request->min_tokens = (uint32_t)count;
    return status;
}

static enum status field_min_p(struct parse *parse, const char *name,
                               const struct json_value *value)
{
    return want_number(parse, name, value, 0, 1, &parse->request->min_p);
}

/* 0 and -1 both mean all. */
static enum status field_top_k(struct parse *parse, const char *name,
                               const struct json_value *value)
{
    int64_t count = 0;
    const enum status status = want_int(parse, name, value, -1, INT32_MAX, &count);
    parse->request->top_k = count > 0 ? (uint32_t)count : 0;
    return status;
}

static enum status field_penalty(struct parse *parse, const char *name,
                                 const struct json_value *value)
{
    struct api_request *request = parse->request;
    const bool frequency = strcmp(name, "frequency_penalty") == 0;
    return want_number(parse, name, value, -2, 2,
                       frequency ? &request->frequency_penalty : &request->presence_penalty);
}

static enum status field_repetition_penalty(struct parse *parse, const char *name,
                                            const struct json_value *value)
{
    return want_number(parse, name, value, 0.01, 10, &parse->request->repetition_penalty);
}

/* One member of logit_bias: "TOKEN": BIAS. */
static bool add_bias(void *ctx, const char *name, const struct json_value *value)
{
    struct parse *parse = ctx;
    struct api_request *request = parse->request;
    char path[API_PARAM_SIZE], *end = NULL;
    double bias = 0;

    snprintf(path, sizeof(path), "logit_bias.%s", name);
    const unsigned long token = strtoul(name, &end, 10);
    if (name[0] < '0' || name[0] > '9' || *end != '\0' || token >= UINT32_MAX) {
        parse->status = api_refuse(parse->error, 400, "invalid_value", path,
                                   "'%.64s' is not the id of a token", name);
        return false;
    }
    if (request->biases_count == API_BIASES_MAX) {
        parse->status = api_refuse(parse->error, 400, "invalid_value", "logit_bias",
                                   "'logit_bias' has more than %d tokens", API_BIASES_MAX);
        return false;
    }
    parse->status = want_number(parse, path, value, -100, 100, &bias);
    request->bias_tokens[request->biases_count] = (uint32_t)token;
    request->biases[request->biases_count] = (float)bias;
    request->biases_count++;
    return parse->status == STATUS_OK;
}

static enum status field_logit_bias(struct parse *parse, const char *name,
                                    const struct json_value *value)
{
    struct api_request *request = parse->request;

    if (api_json_type_of(value) != JSON_TYPE_OBJECT)
        return wrong_type(parse, name, "an object", value);
    if (request->bias_tokens == NULL) {
        request->bias_tokens = calloc(API_BIASES_MAX, sizeof(*request->bias_tokens));
        request->biases = calloc(API_BIASES_MAX, sizeof(*request->biases));
    }
    if (request->bias_tokens == NULL || request->biases == NULL) {
        return api_refuse(parse->error, 503, "overloaded", NULL, "Not enough memory");
    }
    request->biases_count = 0; /* a field that is there twice counts once, the last time */
    api_json_each(value, add_bias, parse);
    return parse->status;
}

static enum status field_stop_token_ids(struct parse *parse, const char *name,
                                        const struct json_value *value)
{
    struct api_request *request = parse->request;
    char path[API_PARAM_SIZE];
    int64_t token = 0;

    if (api_json_type_of(value) != JSON_TYPE_ARRAY)
        return wrong_type(parse, name, "an array of token ids", value);
    if (api_json_len(value) > API_STOP_TOKENS_MAX) {
        return api_refuse(parse->error, 400, "invalid_value", name, "'%s' has more than %d tokens",
                          name, API_STOP_TOKENS_MAX);
    }
    request->stop_tokens_count = 0;
    for (size_t i = 0; i < api_json_len(value); i++) {
        snprintf(path, sizeof(path), "stop_token_ids[%zu]", i);
        const enum status status =
            want_int(parse, path, api_json_at(value, i), 0, UINT32_MAX - 1, &token);
        if (status != STATUS_OK) return status;
        request->stop_tokens[request->stop_tokens_count++] = (uint32_t)token;
    }
    return STATUS_OK;
}

static enum status field_temperature(struct parse *parse, const char *name,
                                     const struct json_value *value)
{
    return want_number(parse, name, value, 0, 2, &parse->request->temperature);
}

static enum status field_top_p(struct parse *parse, const char *name,
                               const struct json_value *value)
{
    double top_p = 1;
    const enum status status = want_number(parse, name, value, 0, 1, &top_p);

    if (status != STATUS_OK) return status;
    if (top_p == 0) {
        return api_refuse(parse->error, 400, "invalid_value", name,
                          "'top_p' must be greater than 0");
    }
    parse->request->top_p = top_p;
    return STATUS_OK;
}

static enum status field_seed(struct parse *parse, const char *name, const struct json_value *value)
{
    int64_t seed = 0;
    const enum status status = want_int(parse, name, value, INT64_MIN, INT64_MAX, &seed);

    if (status != STATUS_OK) return status;
    parse->request->seed = (uint64_t)seed;
    parse->request->has_seed = true;
    return STATUS_OK;
}

static enum status add_stop(struct parse *parse, const char *name, const struct json_value *value)
{
    struct api_request *request = parse->request;
    struct api_text stop;
    const enum status status = want_text(parse, name, value, &stop);

    if (status != STATUS_OK) return status;
    if (stop.len == 0) {
        return api_refuse(parse->error, 400, "invalid_value", name, "'%s' must not be empty", name);
    }
    if (stop.len > API_STOP_SIZE_MAX) {
        return api_refuse(parse->error, 400, "invalid_value", name, "'%s' is longer than %d bytes",
                          name, API_STOP_SIZE_MAX);
    }
    ASSERT(request->stops_count < API_STOPS_MAX);
    request->stops[request->stops_count++] = stop;
    return STATUS_OK;
}

static enum status field_stop(struct parse *parse, const char *name, const struct json_value *value)
{
    char path[API_PARAM_SIZE];
    enum status status = STATUS_OK;

    if (api_json_type_of(value) == JSON_TYPE_STRING) return add_stop(parse, name, value);
    if (api_json_type_of(value) != JSON_TYPE_ARRAY) {
        return wrong_type(parse, name, "a string or an array of strings", value);
    }
    if (api_json_len(value) > API_STOPS_MAX) {
        return api_refuse(parse->error, 400, "invalid_value", name,
                          "'stop' has more than %d strings", API_STOPS_MAX);
    }
    for (size_t i = 0; i < api_json_len(value) && status == STATUS_OK; i++) {
        snprintf(path, sizeof(path), "stop[%zu]", i);
        status = add_stop(parse, path, api_json_at(value, i));
    }
    return status;
}

static enum status field_response_format(struct parse *parse, const char *name,
                                         const struct json_value *value)
{
    (void)name;
    return api_format_take(parse->request, value, parse->error);
}

static enum status field_tools(struct parse *parse, const char *name,
                               const struct json_value *value)
{
    (void)name;
    return api_tools_take(parse->request, value, parse->error);
}

static enum status field_tool_choice(struct parse *parse, const char *name,
                                     const struct json_value *value)
{
    (void)name;
    return api_tools_take_choice(parse->request, value, parse->error);
}

static enum status field_parallel_tool_calls(struct parse *parse, const char *name,
                                             const struct json_value *value)
{
    bool parallel = true;
    const enum status status = want_bool(parse, name, value, &parallel);
    parse->request->one_call = !parallel;
    return status;
}

static enum status field_chat_template_kwargs(struct parse *parse, const char *name,
                                              const struct json_value *value)
{
    (void)name;
    return api_tools_take_variables(parse->request, value, parse->error);
}

/* ---- messages ---- */

static enum status part_text(struct parse *parse, const char *path, const struct json_value *part,
                             struct api_text *out)
{
    const struct json_value *type = NULL, *text = NULL;
    struct api_text kind = { 0 };

    if (api_json_type_of(part) != JSON_TYPE_OBJECT)
        return wrong_type(parse, path, "an object", part);
    type = api_json_member(part, "type");
    text = api_json_member(part, "text");
    if (type == NULL || api_json_type_of(type) != JSON_TYPE_STRING) {
        return api_refuse(parse->error, 400, "invalid_value", path, "'%s' has no 'type'", path);
    }
    kind.data = api_json_str(type, &kind.len);
    if (strcmp(kind.data, "text") != 0) {
        return api_refuse(parse->error, 400, "unsupported_parameter", path,
                          "'%s': only parts of type 'text' are supported", path);
    }
    if (text == NULL || api_json_type_of(text) != JSON_TYPE_STRING) {
        return api_refuse(parse->error, 400, "invalid_value", path, "'%s' has no 'text'", path);
    }
    out->data = api_json_str(text, &out->len);
    return STATUS_OK;
}

/* Parts are put together without anything between them. Bounded by the body: their sum is no
 * longer. */
static enum status join_parts(struct parse *parse, const char *path, const struct json_value *parts,
                              size_t index, struct chat_message *message)
{
    char part_path[API_PARAM_SIZE + 32];
    struct api_text text = { 0 };
    size_t total = 0;

    if (api_json_len(parts) == 0) {
        return api_refuse(parse->error, 400, "invalid_value", path, "'%s' is empty", path);
    }
    for (size_t i = 0; i < api_json_len(parts); i++) {
        snprintf(part_path, sizeof(part_path), "%s[%zu]", path, i);
        const enum status status = part_text(parse, part_path, api_json_at(parts, i), &text);
        if (status != STATUS_OK) return status;
        total += text.len;
    }
    char *joined = malloc(total + 1);
    if (joined == NULL) {
        return api_refuse(parse->error, 503, "overloaded", NULL, "Not enough memory");
    }
    parse->request->joined[index] = joined;
    message->content = joined;
    message->content_len = total;
    for (size_t i = 0; i < api_json_len(parts); i++) {
        const enum status status = part_text(parse, path, api_json_at(parts, i), &text);
        ASSERT(status == STATUS_OK);
        memcpy(joined, text.data, text.len);
        joined += text.len;
    }
    *joined = '\0';
    return STATUS_OK;
}

struct message_parse {
    struct parse *parse;
    struct chat_message *message;
    size_t index;
};

static enum status message_role(struct message_parse *m, const char *path,
                                const struct json_value *value)
{
    static const char *const ROLES[] = { "system", "user", "assistant", "tool" };
    struct api_text role = { 0 };
    const enum status status = want_text(m->parse, path, value, &role);

    if (status != STATUS_OK) return status;
    if (strcmp(role.data, "developer") == 0) role = (struct api_text){ "system", 6 };
    for (size_t i = 0; i < sizeof(ROLES) / sizeof(ROLES[0]); i++) {
        if (role.len != strlen(ROLES[i]) || memcmp(role.data, ROLES[i], role.len) != 0) continue;
        m->message->role = role.data;
        m->message->role_len = role.len;
        return STATUS_OK;
    }
    return api_refuse(m->parse->error, 400, "invalid_value", path,
                      "'%s' must be 'system', 'developer', 'user', 'assistant' or 'tool', not "
                      "'%.32s'",
                      path, role.data);
}

static enum status message_content(struct message_parse *m, const char *path,
                                   const struct json_value *value)
{
    struct api_text text = { 0 };

    if (api_json_type_of(value) == JSON_TYPE_ARRAY) {
        return join_parts(m->parse, path, value, m->index, m->message);
    }
    if (api_json_type_of(value) != JSON_TYPE_STRING) {
        return wrong_type(m->parse, path, "a string or an array of parts", value);
    }
    text.data = api_json_str(value, &text.len);
    m->message->content = text.data;
    m->message->content_len = text.len;
    return STATUS_OK;
}

static bool message_field(void *ctx, const char *name, const struct json_value *value)
{
    struct message_parse *m = ctx;
    struct parse *parse = m->parse;
    char path[API_PARAM_SIZE];

    snprintf(path, sizeof(path), "messages[%zu].%s", m->index, name);
    if (strcmp(name, "role") == 0) {
        parse->status = message_role(m, path, value);
    } else if (strcmp(name, "content") == 0 && api_json_type_of(value) != JSON_TYPE_NULL) {
        parse->status = message_content(m, path, value);
    } else if (strcmp(name, "tool_calls") == 0 && api_json_type_of(value) != JSON_TYPE_NULL) {
        parse->status = api_tools_take_calls(parse->request, m->index, path, value, parse->error);
    } else if (strcmp(name, "tool_call_id") == 0 && api_json_type_of(value) == JSON_TYPE_STRING) {
        m->message->tool_call_id = api_json_str(value, &m->message->tool_call_id_len);
    } else if (strcmp(name, "name") == 0 || api_json_type_of(value) == JSON_TYPE_NULL) {
        /* Clients send back what they got: absent tool calls, refusals and the like as null. */
    } else {
        parse->status = api_refuse(parse->error, 400, "unsupported_parameter", path,
                                   "'%s' is not supported", path);
    }
    return parse->status == STATUS_OK;
}

static enum status parse_message(struct parse *parse, const struct json_value *value, size_t index)
{
    struct chat_message *message = &parse->request->messages[index];
    struct message_parse m = { parse, message, index };
    char path[API_PARAM_SIZE];

    snprintf(path, sizeof(path), "messages[%zu]", index);
    if (api_json_type_of(value) != JSON_TYPE_OBJECT)
        return wrong_type(parse, path, "an object", value);
    api_json_each(value, message_field, &m);
    if (parse->status != STATUS_OK) return parse->status;
    /* Who calls need not say anything. */
    if (message->role != NULL && message->content == NULL && message->tool_calls != NULL)
        return STATUS_OK;
    if (message->role == NULL || message->content == NULL) {
        return api_refuse(parse->error, 400, "missing_required_parameter", path, "'%s' has no '%s'",
                          path, message->role == NULL ? "role" : "content");
    }
    return STATUS_OK;
}

static enum status field_messages(struct parse *parse, const char *name,
                                  const struct json_value *value)
{
    struct api_request *request = parse->request;
    enum status status = STATUS_OK;

    if (api_json_type_of(value) != JSON_TYPE_ARRAY)
        return wrong_type(parse, name, "an array", value);
    const size_t count = api_json_len(value);
    if (count == 0) {
        return api_refuse(parse->error, 400, "invalid_value", name, "'messages' is empty");
    }
    if (count > API_MESSAGES_MAX) {
        return api_refuse(parse->error, 400, "invalid_value", name,
                          "'messages' has %zu messages, more than %d", count, API_MESSAGES_MAX);
    }
    request->messages = calloc(count, sizeof(*request->messages));
    request->joined = calloc(count, sizeof(*request->joined));
    if (request->messages == NULL || request->joined == NULL) {
        return api_refuse(parse->error, 503, "overloaded", NULL, "Not enough memory");
    }
    request->messages_count = count;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        status = parse_message(parse, api_json_at(value, i), i);
    }
    return status;
}

/* ---- prompt ---- */

static enum status no_memory(struct parse *parse)
{
    return api_refuse(parse->error, 503, "overloaded", NULL, "Not enough memory");
}

static void free_prompts(struct api_request *request)
{
    for (size_t i = 0; i < request->prompts_count; i++)
        free(request->prompts[i].tokens);
    free(request->prompts);
    request->prompts = NULL;
    request->prompts_count = 0;
}

/* Room for the prompts of a field; none is refused, and so are too many. */
static enum status make_prompts(struct parse *parse, const char *name, size_t count)
{
    struct api_request *request = parse->request;

    free_prompts(request); /* of the same field, there twice */
    if (count == 0) {
        return api_refuse(parse->error, 400, "invalid_value", name, "'%s' is empty", name);
    }
    if (count > API_CHOICES_MAX) {
        return api_refuse(parse->error, 400, "invalid_value", name,
                          "'%s' holds %zu prompts, more than %d", name, count, API_CHOICES_MAX);
    }
    request->prompts = calloc(count, sizeof(*request->prompts));
    if (request->prompts == NULL) return no_memory(parse);
    request->prompts_count = count;
    return STATUS_OK;
}

static enum status parse_token_ids(struct parse *parse, const char *name,
                                   const struct json_value *value, struct api_prompt *out)
{
    const size_t count = api_json_len(value);
    char path[API_PARAM_SIZE];

    out->tokens = calloc(count + 1, sizeof(*out->tokens));
    if (out->tokens == NULL) return no_memory(parse);
    for (size_t i = 0; i < count; i++) {
        int64_t token = 0;
        snprintf(path, sizeof(path), "%s[%zu]", name, i);
        const enum status status =
            want_int(parse, path, api_json_at(value, i), 0, UINT32_MAX - 1, &token);
        if (status != STATUS_OK) return status;
        out->tokens[i] = (uint32_t)token;
    }
    out->tokens_count = count;
    return STATUS_OK;
}

/* One of several prompts: a string, or an array of token ids. */
static enum status parse_prompt(struct parse *parse, const char *name,
                                const struct json_value *value, struct api_prompt *out)
{
    switch (api_json_type_of(value)) {
    case JSON_TYPE_STRING: return want_text(parse, name, value, &out->text);
    case JSON_TYPE_ARRAY:
        if (api_json_len(value) > 0) return parse_token_ids(parse, name, value, out);
        return api_refuse(parse->error, 400, "invalid_value", name, "'%s' is empty", name);
    case JSON_TYPE_OBJECT:
    case JSON_TYPE_NULL:
    case JSON_TYPE_BOOL:
    case JSON_TYPE_INTEGER:
    case JSON_TYPE_REAL: break;
    }
    return wrong_type(parse, name, "a string or an array of token ids", value);
}

/* A string, an array of token ids, or an array of these. */
static enum status field_prompt(struct parse *parse, const char *name,
                                const struct json_value *value)
{
    struct api_request *request = parse->request;
    const bool array = api_json_type_of(value) == JSON_TYPE_ARRAY;
    const size_t len = array ? api_json_len(value) : 1;
    const bool several =
        array && len > 0 && api_json_type_of(api_json_at(value, 0)) != JSON_TYPE_INTEGER;
    char path[API_PARAM_SIZE];

    enum status status = make_prompts(parse, name, several || len == 0 ? len : 1);
    if (status != STATUS_OK) return status;
    if (!several) return parse_prompt(parse, name, value, &request->prompts[0]);
    for (size_t i = 0; i < len && status == STATUS_OK; i++) {
        snprintf(path, sizeof(path), "%s[%zu]", name, i);
        status = parse_prompt(parse, path, api_json_at(value, i), &request->prompts[i]);
    }
    return status;
}

/* /tokenize takes one. */
static enum status field_one_prompt(struct parse *parse, const char *name,
                                    const struct json_value *value)
{
    const enum status status = field_prompt(parse, name, value);

    if (status != STATUS_OK || parse->request->prompts_count == 1) return status;
    return api_refuse(parse->error, 400, "unsupported_parameter", name,
                      "'%s' holds %zu prompts; one per request is supported here", name,
                      parse->request->prompts_count);
}

static enum status field_tokens(struct parse *parse, const char *name,
                                const struct json_value *value)
{
    if (api_json_type_of(value) != JSON_TYPE_ARRAY)
        return wrong_type(parse, name, "an array of token ids", value);
    const enum status status = make_prompts(parse, name, 1);
    if (status != STATUS_OK) return status;
    return parse_token_ids(parse, name, value, &parse->request->prompts[0]);
}

static enum status field_n(struct parse *parse, const char *name, const struct json_value *value)
{
    int64_t count = 1;
    const enum status status = want_int(parse, name, value, 1, API_CHOICES_MAX, &count);
    *(strcmp(name, "n") == 0 ? &parse->request->n : &parse->best_of) = (uint32_t)count;
    return status;
}

/* Of a completion, and `top_logprobs` of a chat: how many of the likeliest tokens. */
static enum status field_logprobs(struct parse *parse, const char *name,
                                  const struct json_value *value)
{
    int64_t count = 0;
    const enum status status = want_int(parse, name, value, 0, API_LOGPROBS_MAX, &count);

    parse->top_logprobs = 1 + (uint32_t)count;
    return status;
}

static enum status field_logprobs_wanted(struct parse *parse, const char *name,
                                         const struct json_value *value)
{
    return want_bool(parse, name, value, &parse->logprobs);
}

static enum status field_cache_salt(struct parse *parse, const char *name,
                                    const struct json_value *value)
{
    struct api_text *salt = &parse->request->cache_salt;
    const enum status status = want_text(parse, name, value, salt);

    if (status != STATUS_OK || (salt->len > 0 && salt->len <= API_SALT_SIZE_MAX)) return status;
    return api_refuse(parse->error, 400, "invalid_value", name, "'%s' must have 1 to %d bytes",
                      name, API_SALT_SIZE_MAX);
}

static enum status field_echo(struct parse *parse, const char *name, const struct json_value *value)
{
    return want_bool(parse, name, value, &parse->request->echo);
}

static enum status field_add_special_tokens(struct parse *parse, const char *name,
                                            const struct json_value *value)
{
    bool add = true;
    const enum status status = want_bool(parse, name, value, &add);
    parse->request->bare = !add;
    return status;
}

static enum status field_add_generation_prompt(struct parse *parse, const char *name,
                                               const struct json_value *value)
{
    bool add = true;
    const enum status status = want_bool(parse, name, value, &add);
    parse->request->unasking = !add;
    return status;
}

/* ---- fields allowed at their neutral value ---- */

static enum status not_supported(struct parse *parse, const char *name, const char *neutral)
{
    return api_refuse(parse->error, 400, "unsupported_parameter", name, "'%s' is not supported%s%s",
                      name, neutral ? "; allowed is only " : "", neutral ? neutral : "");
}

static bool is_number(const struct json_value *value, double number)
{
    const enum json_type type = api_json_type_of(value);
    return (type == JSON_TYPE_INTEGER || type == JSON_TYPE_REAL) && api_json_num(value) == number;
}

static enum status only_zero(struct parse *parse, const char *name, const struct json_value *value)
{
    return is_number(value, 0) ? STATUS_OK : not_supported(parse, name, "0");
}

static enum status only_one(struct parse *parse, const char *name, const struct json_value *value)
{
    return is_number(value, 1) ? STATUS_OK : not_supported(parse, name, "1");
}

static enum status only_false(struct parse *parse, const char *name, const struct json_value *value)
{
    const bool ok = api_json_type_of(value) == JSON_TYPE_BOOL && !api_json_bool(value);
    return ok ? STATUS_OK : not_supported(parse, name, "false");
}

static enum status only_true(struct parse *parse, const char *name, const struct json_value *value)
{
    const bool ok = api_json_type_of(value) == JSON_TYPE_BOOL && api_json_bool(value);
    return ok ? STATUS_OK : not_supported(parse, name, "true");
}

/* Completions count alternatives here: 0 asks for one token's, so only null is neutral. */
static enum status only_absent(struct parse *parse, const char *name,
                               const struct json_value *value)
{
    (void)value;
    return not_supported(parse, name, NULL);
}

static enum status only_empty(struct parse *parse, const char *name, const struct json_value *value)
{
    size_t len = 0;

    switch (api_json_type_of(value)) {
    case JSON_TYPE_ARRAY:
        if (api_json_len(value) == 0) return STATUS_OK;
        break;
    case JSON_TYPE_STRING:
        (void)api_json_str(value, &len);
        if (len == 0) return STATUS_OK;
        break;
    case JSON_TYPE_OBJECT:
    case JSON_TYPE_NULL:
    case JSON_TYPE_BOOL:
    case JSON_TYPE_INTEGER:
    case JSON_TYPE_REAL: break;
    }
    return not_supported(parse, name, NULL);
}

static enum status only_none(struct parse *parse, const char *name, const struct json_value *value)
{
    size_t len = 0;
    if (api_json_type_of(value) == JSON_TYPE_STRING &&
        strcmp(api_json_str(value, &len), "none") == 0) {
        return STATUS_OK;
    }
    return not_supported(parse, name, "\"none\"");
}

/* Says nothing about the answer; any value will do. */
static enum status ignored(struct parse *parse, const char *name, const struct json_value *value)
{
    (void)parse;
    (void)name;
    (void)value;
    return STATUS_OK;
}

/* ---- the table ---- */

enum {
    FOR_CHAT = 1 << API_CHAT,
    FOR_COMPLETION = 1 << API_COMPLETION,
    FOR_BOTH = FOR_CHAT | FOR_COMPLETION,
    FOR_TOKENIZE = 1 << API_TOKENIZE,
    FOR_DETOKENIZE = 1 << API_DETOKENIZE,
    FOR_ALL = FOR_BOTH | FOR_TOKENIZE | FOR_DETOKENIZE,
};

static const struct {
    const char *name;
    unsigned kinds;
    field_fn fn;
} FIELDS[] = {
    { "messages", FOR_CHAT | FOR_TOKENIZE, field_messages },
    { "prompt", FOR_COMPLETION, field_prompt },
    { "prompt", FOR_TOKENIZE, field_one_prompt },
    { "tokens", FOR_DETOKENIZE, field_tokens },
    { "model", FOR_ALL, field_model },
    { "add_special_tokens", FOR_TOKENIZE, field_add_special_tokens },
    { "add_generation_prompt", FOR_TOKENIZE, field_add_generation_prompt },
    { "return_token_strs", FOR_TOKENIZE, only_false },
    { "stream", FOR_BOTH, field_stream },
    { "stream_options", FOR_BOTH, field_stream_options },
    { "max_tokens", FOR_BOTH, field_max_tokens },
    { "max_completion_tokens", FOR_CHAT, field_max_tokens },
    { "min_tokens", FOR_BOTH, field_min_tokens },
    { "temperature", FOR_BOTH, field_temperature },
    { "top_p", FOR_BOTH, field_top_p },
    { "seed", FOR_BOTH, field_seed },
    { "stop", FOR_BOTH, field_stop },
    { "ignore_eos", FOR_BOTH, field_ignore_eos },
    { "frequency_penalty", FOR_BOTH, field_penalty },
    { "presence_penalty", FOR_BOTH, field_penalty },
    { "repetition_penalty", FOR_BOTH, field_repetition_penalty },
    { "top_k", FOR_BOTH, field_top_k },
    { "min_p", FOR_BOTH, field_min_p },
    { "logit_bias", FOR_BOTH, field_logit_bias },
    { "logprobs", FOR_CHAT, field_logprobs_wanted },
    { "logprobs", FOR_COMPLETION, field_logprobs },
    { "top_logprobs", FOR_CHAT, field_logprobs },
    { "n", FOR_BOTH, field_n },
    { "best_of", FOR_COMPLETION, field_n },
    { "echo", FOR_COMPLETION, field_echo },
    { "cache_salt", FOR_BOTH, field_cache_salt },
    { "stop_token_ids", FOR_BOTH, field_stop_token_ids },
    { "response_format", FOR_BOTH, field_response_format },
    { "tools", FOR_CHAT | FOR_TOKENIZE, field_tools },
    { "tool_choice", FOR_CHAT, field_tool_choice },
    { "parallel_tool_calls", FOR_CHAT, field_parallel_tool_calls },
    { "chat_template_kwargs", FOR_CHAT | FOR_TOKENIZE, field_chat_template_kwargs },

    { "user", FOR_BOTH, ignored },
    { "metadata", FOR_BOTH, ignored },
    { "service_tier", FOR_BOTH, ignored },
    { "store", FOR_BOTH, only_false },
    { "safety_identifier", FOR_BOTH, ignored },
    { "prompt_cache_key", FOR_BOTH, ignored },
    { "prompt_cache_retention", FOR_BOTH, ignored },
    { "request_id", FOR_BOTH, ignored },
    { "priority", FOR_BOTH, only_zero },

    { "length_penalty", FOR_BOTH, only_one },
    { "use_beam_search", FOR_BOTH, only_false },
    { "skip_special_tokens", FOR_BOTH, only_true },
    { "spaces_between_special_tokens", FOR_BOTH, only_true },
    { "include_stop_str_in_output", FOR_BOTH, only_false },
    { "add_generation_prompt", FOR_CHAT, only_true },
    { "continue_final_message", FOR_CHAT, only_false },
    { "return_token_ids", FOR_BOTH, only_false },
    { "echo", FOR_CHAT, only_false },
    { "suffix", FOR_COMPLETION, only_empty },
    { "prompt_logprobs", FOR_BOTH, only_absent },
    { "functions", FOR_CHAT, only_empty },
    { "function_call", FOR_CHAT, only_none },
    { "bad_words", FOR_BOTH, only_empty },
};

static bool field(void *ctx, const char *name, const struct json_value *value)
{
    struct parse *parse = ctx;

    for (size_t i = 0; i < sizeof(FIELDS) / sizeof(FIELDS[0]); i++) {
        if (!(FIELDS[i].kinds & (1u << parse->request->kind))) continue;
        if (strcmp(FIELDS[i].name, name) != 0) continue;
        if (api_json_type_of(value) != JSON_TYPE_NULL) {
            parse->status = FIELDS[i].fn(parse, name, value);
        }
        return parse->status == STATUS_OK;
    }
    parse->status = api_refuse(parse->error, 400, "unknown_parameter", name,
                               "Unknown field '%.64s'; nothing is ignored silently", name);
    return false;
}

/* ---- the whole body ---- */

/* The name of what is required and not there, or NULL. */
static const char *missing_field(const struct api_request *request)
{
    const bool messages = request->messages_count > 0;
    const bool prompt = request->prompts_count > 0;

    switch (request->kind) {
    case API_CHAT: return messages ? NULL : "messages";
    case API_COMPLETION: return prompt ? NULL : "prompt";
    case API_TOKENIZE: return prompt || messages ? NULL : "prompt";
    case API_DETOKENIZE: return prompt ? NULL : "tokens";
    }
    return NULL;
}

/* A chat says in two fields what a completion says in one. */
static enum status check_logprobs(const struct parse *parse)
{
    struct api_request *request = parse->request;
    const bool chat = request->kind == API_CHAT;

    if (chat && parse->top_logprobs > 1 && !parse->logprobs) {
        return api_refuse(parse->error, 400, "invalid_value", "top_logprobs",
                          "'top_logprobs' is only allowed when 'logprobs' is true");
    }
    if (chat && !parse->logprobs) return STATUS_OK;
    request->logprobs = chat && parse->top_logprobs == 0 ? 1 : parse->top_logprobs;
    if (request->echo && request->logprobs > 0 && request->stream) {
        return api_refuse(parse->error, 400, "unsupported_parameter", "stream",
                          "'stream' is not supported for 'logprobs' together with 'echo'");
    }
    return STATUS_OK;
}

/* What no single field can say. */
static enum status check_whole(struct parse *parse)
{
    struct api_request *request = parse->request;
    const char *missing = missing_field(request);

    if (missing != NULL) {
        return api_refuse(parse->error, 400, "missing_required_parameter", missing,
                          "'%s' is required", missing);
    }
    if (parse->has_stream_options && !request->stream) {
        return api_refuse(parse->error, 400, "invalid_value", "stream_options",
                          "'stream_options' is only allowed when 'stream' is true");
    }
    if (request->prompts_count * request->n > API_CHOICES_MAX) {
        return api_refuse(parse->error, 400, "invalid_value", "n",
                          "%zu prompts with 'n' %u are more than %d answers",
                          request->prompts_count, request->n, API_CHOICES_MAX);
    }
    if (parse->best_of != 0 && parse->best_of != request->n) {
        return api_refuse(parse->error, 400, "unsupported_parameter", "best_of",
                          "'best_of' is not supported; allowed is only the value of 'n'");
    }
    if (check_logprobs(parse) != STATUS_OK) return STATUS_INVALID;
    request->max_tokens =
        parse->max_completion_tokens ? parse->max_completion_tokens : parse->max_tokens;
    if (request->prompt_only && !request->echo) {
        return api_refuse(parse->error, 400, "invalid_value", "max_tokens",
                          "'max_tokens' 0 without 'echo' asks for nothing");
    }
    if (request->prompt_only) request->max_tokens = 1; /* it is not shown */
    if (request->kind == API_COMPLETION && request->max_tokens == 0) request->max_tokens = 16;
    if (request->max_tokens > 0 && request->min_tokens > request->max_tokens) {
        return api_refuse(parse->error, 400, "invalid_value", "min_tokens",
                          "'min_tokens' is greater than 'max_tokens'");
    }
    const enum status formed = api_format_check(request, parse->error);
    return formed == STATUS_OK ? api_tools_check(request, parse->error) : formed;
}

enum status api_parse(enum api_kind kind, const char *body, size_t len, struct api_request *out,
                      struct api_error *error)
{
    struct api_request request = {
        .kind = kind, .n = 1, .temperature = 1, .top_p = 1, .repetition_penalty = 1
    };
    struct parse parse = { .request = &request, .error = error, .status = STATUS_OK };
    struct errmsg err = { "" };

    const enum status parsed = api_json_parse(body, len, &request.doc, &err);
    if (parsed != STATUS_OK) {
        return api_refuse(error, 400, "invalid_json", NULL, "The body is not valid JSON: %s",
                          err.text);
    }
    if (api_json_type_of(api_json_root(request.doc)) != JSON_TYPE_OBJECT) {
        parse.status = api_refuse(error, 400, "invalid_json", NULL, "The body must be an object");
    } else {
        api_json_each(api_json_root(request.doc), field, &parse);
    }
    if (parse.status == STATUS_OK) parse.status = check_whole(&parse);
    if (parse.status != STATUS_OK) {
        api_request_fini(&request);
        return STATUS_INVALID;
    }
    *out = request;
    return STATUS_OK;
}

void api_request_fini(struct api_request *request)
{
    for (size_t i = 0; request->joined != NULL && i < request->messages_count; i++) {
        free(request->joined[i]);
    }
    free(request->joined);
    free(request->grammar);
    for (size_t i = 0; request->calls != NULL && i < request->messages_count; i++)
        json_document_destroy(request->calls[i]);
    free(request->calls);
    free(request->messages);
    free_prompts(request);
    free(request->bias_tokens);
    free(request->biases);
    api_json_destroy(request->doc);
    *request = (struct api_request){ .kind = request->kind };
}
