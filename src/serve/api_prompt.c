/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_prompt.c - prompts: texts or token ids, one or many; and what makes them, for
 * /tokenize. */
#include "serve/api_int.h"

#include <stdio.h>
#include <stdlib.h>

void api_free_prompts(struct api_request *request)
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

    api_free_prompts(request); /* of the same field, there twice */
    if (count == 0) {
        return api_refuse(parse->error, 400, "invalid_value", name, "'%s' is empty", name);
    }
    if (count > API_CHOICES_MAX) {
        return api_refuse(parse->error, 400, "invalid_value", name,
                          "'%s' holds %zu prompts, more than %d", name, count, API_CHOICES_MAX);
    }
    request->prompts = calloc(count, sizeof(*request->prompts));
    if (request->prompts == NULL) return api_no_memory(parse);
    request->prompts_count = count;
    return STATUS_OK;
}

static enum status parse_token_ids(struct parse *parse, const char *name,
                                   const struct json_value *value, struct api_prompt *out)
{
    const size_t count = api_json_len(value);
    char path[API_PARAM_SIZE];

    out->tokens = calloc(count + 1, sizeof(*out->tokens));
    if (out->tokens == NULL) return api_no_memory(parse);
    for (size_t i = 0; i < count; i++) {
        int64_t token = 0;
        snprintf(path, sizeof(path), "%s[%zu]", name, i);
        const enum status status =
            api_want_int(parse, path, api_json_at(value, i), 0, UINT32_MAX - 1, &token);
        if (status != STATUS_OK) return status;
        out->tokens[i] = (uint32_t)token;
    }
    out->tokens_count = count;
    api_json_forget_elements(value);
    return STATUS_OK;
}

/* One of several prompts: a string, or an array of token ids. */
static enum status parse_prompt(struct parse *parse, const char *name,
                                const struct json_value *value, struct api_prompt *out)
{
    switch (api_json_type_of(value)) {
    case JSON_TYPE_STRING: return api_want_text(parse, name, value, &out->text);
    case JSON_TYPE_ARRAY:
        if (api_json_len(value) > 0) return parse_token_ids(parse, name, value, out);
        return api_refuse(parse->error, 400, "invalid_value", name, "'%s' is empty", name);
    case JSON_TYPE_OBJECT:
    case JSON_TYPE_NULL:
    case JSON_TYPE_BOOL:
    case JSON_TYPE_INTEGER:
    case JSON_TYPE_REAL: break;
    }
    return api_wrong_type(parse, name, "a string or an array of token ids", value);
}

/* A string, an array of token ids, or an array of these. */
enum status api_field_prompt(struct parse *parse, const char *name, const struct json_value *value)
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
enum status api_field_one_prompt(struct parse *parse, const char *name,
                                 const struct json_value *value)
{
    const enum status status = api_field_prompt(parse, name, value);

    if (status != STATUS_OK || parse->request->prompts_count == 1) return status;
    return api_refuse(parse->error, 400, "unsupported_parameter", name,
                      "'%s' holds %zu prompts; one per request is supported here", name,
                      parse->request->prompts_count);
}

enum status api_field_tokens(struct parse *parse, const char *name, const struct json_value *value)
{
    if (api_json_type_of(value) != JSON_TYPE_ARRAY)
        return api_wrong_type(parse, name, "an array of token ids", value);
    const enum status status = make_prompts(parse, name, 1);
    if (status != STATUS_OK) return status;
    return parse_token_ids(parse, name, value, &parse->request->prompts[0]);
}

enum status api_field_add_special_tokens(struct parse *parse, const char *name,
                                         const struct json_value *value)
{
    bool add = true;
    const enum status status = api_want_bool(parse, name, value, &add);
    parse->request->bare = !add;
    return status;
}

enum status api_field_add_generation_prompt(struct parse *parse, const char *name,
                                            const struct json_value *value)
{
    bool add = true;
    const enum status status = api_want_bool(parse, name, value, &add);
    parse->request->unasking = !add;
    return status;
}
