/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_messages.c - the messages of a chat. Contents that come in parts are put together;
 * calls of tools are api_tools.c's. */
#include "serve/api_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "model/chat.h"
#include "serve/api_tools.h"

static_assert((int)API_MESSAGES_MAX <= (int)CHAT_MESSAGES_MAX, "the template takes them all");

static enum status part_text(struct parse *parse, const char *path, const struct json_value *part,
                             struct api_text *out)
{
    const struct json_value *type = NULL, *text = NULL;
    struct api_text kind = { 0 };

    if (api_json_type_of(part) != JSON_TYPE_OBJECT)
        return api_wrong_type(parse, path, "an object", part);
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
        return api_no_memory(parse);
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
    const enum status status = api_want_text(m->parse, path, value, &role);

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
        return api_wrong_type(m->parse, path, "a string or an array of parts", value);
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
        return api_wrong_type(parse, path, "an object", value);
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

enum status api_field_messages(struct parse *parse, const char *name,
                               const struct json_value *value)
{
    struct api_request *request = parse->request;
    enum status status = STATUS_OK;

    if (api_json_type_of(value) != JSON_TYPE_ARRAY)
        return api_wrong_type(parse, name, "an array", value);
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
        return api_no_memory(parse);
    }
    request->messages_count = count;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        status = parse_message(parse, api_json_at(value, i), i);
    }
    return status;
}
