/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_sampling.c - fields that say which tokens are taken, and when it is enough. */
#include "serve/api_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum status api_field_ignore_eos(struct parse *parse, const char *name,
                                 const struct json_value *value)
{
    return api_want_bool(parse, name, value, &parse->request->ignore_eos);
}

enum status api_field_max_tokens(struct parse *parse, const char *name,
                                 const struct json_value *value)
{
    int64_t count = 0;
    const bool chat = parse->request->kind == API_CHAT;
    const enum status status =
        api_want_int(parse, name, value, chat ? 1 : 0, API_MAX_TOKENS_MAX, &count);

    if (status != STATUS_OK) return status;
    parse->request->prompt_only = count == 0;
    if (strcmp(name, "max_completion_tokens") == 0) {
        parse->max_completion_tokens = (uint32_t)count;
    } else {
        parse->max_tokens = (uint32_t)count;
    }
    return STATUS_OK;
}

enum status api_field_min_tokens(struct parse *parse, const char *name,
                                 const struct json_value *value)
{
    int64_t count = 0;
    const enum status status = api_want_int(parse, name, value, 0, API_MAX_TOKENS_MAX, &count);
    parse->request->min_tokens = (uint32_t)count;
    return status;
}

enum status api_field_min_p(struct parse *parse, const char *name, const struct json_value *value)
{
    return api_want_number(parse, name, value, 0, 1, &parse->request->min_p);
}

/* 0 and -1 both mean all. */
enum status api_field_top_k(struct parse *parse, const char *name, const struct json_value *value)
{
    int64_t count = 0;
    const enum status status = api_want_int(parse, name, value, -1, INT32_MAX, &count);
    parse->request->top_k = count > 0 ? (uint32_t)count : 0;
    return status;
}

enum status api_field_penalty(struct parse *parse, const char *name, const struct json_value *value)
{
    struct api_request *request = parse->request;
    const bool frequency = strcmp(name, "frequency_penalty") == 0;
    return api_want_number(parse, name, value, -2, 2,
                           frequency ? &request->frequency_penalty : &request->presence_penalty);
}

enum status api_field_repetition_penalty(struct parse *parse, const char *name,
                                         const struct json_value *value)
{
    return api_want_number(parse, name, value, 0.01, 10, &parse->request->repetition_penalty);
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
    parse->status = api_want_number(parse, path, value, -100, 100, &bias);
    request->bias_tokens[request->biases_count] = (uint32_t)token;
    request->biases[request->biases_count] = (float)bias;
    request->biases_count++;
    return parse->status == STATUS_OK;
}

enum status api_field_logit_bias(struct parse *parse, const char *name,
                                 const struct json_value *value)
{
    struct api_request *request = parse->request;

    if (api_json_type_of(value) != JSON_TYPE_OBJECT)
        return api_wrong_type(parse, name, "an object", value);
    if (request->bias_tokens == NULL) {
        request->bias_tokens = calloc(API_BIASES_MAX, sizeof(*request->bias_tokens));
        request->biases = calloc(API_BIASES_MAX, sizeof(*request->biases));
    }
    if (request->bias_tokens == NULL || request->biases == NULL) {
        return api_no_memory(parse);
    }
    request->biases_count = 0; /* a field that is there twice counts once, the last time */
    api_json_each(value, add_bias, parse);
    return parse->status;
}

enum status api_field_stop_token_ids(struct parse *parse, const char *name,
                                     const struct json_value *value)
{
    struct api_request *request = parse->request;
    char path[API_PARAM_SIZE];
    int64_t token = 0;

    if (api_json_type_of(value) != JSON_TYPE_ARRAY)
        return api_wrong_type(parse, name, "an array of token ids", value);
    if (api_json_len(value) > API_STOP_TOKENS_MAX) {
        return api_refuse(parse->error, 400, "invalid_value", name, "'%s' has more than %d tokens",
                          name, API_STOP_TOKENS_MAX);
    }
    request->stop_tokens_count = 0;
    for (size_t i = 0; i < api_json_len(value); i++) {
        snprintf(path, sizeof(path), "stop_token_ids[%zu]", i);
        const enum status status =
            api_want_int(parse, path, api_json_at(value, i), 0, UINT32_MAX - 1, &token);
        if (status != STATUS_OK) return status;
        request->stop_tokens[request->stop_tokens_count++] = (uint32_t)token;
    }
    return STATUS_OK;
}

enum status api_field_temperature(struct parse *parse, const char *name,
                                  const struct json_value *value)
{
    return api_want_number(parse, name, value, 0, 2, &parse->request->temperature);
}

enum status api_field_top_p(struct parse *parse, const char *name, const struct json_value *value)
{
    double top_p = 1;
    const enum status status = api_want_number(parse, name, value, 0, 1, &top_p);

    if (status != STATUS_OK) return status;
    if (top_p == 0) {
        return api_refuse(parse->error, 400, "invalid_value", name,
                          "'top_p' must be greater than 0");
    }
    parse->request->top_p = top_p;
    return STATUS_OK;
}

enum status api_field_seed(struct parse *parse, const char *name, const struct json_value *value)
{
    int64_t seed = 0;
    const enum status status = api_want_int(parse, name, value, INT64_MIN, INT64_MAX, &seed);

    if (status != STATUS_OK) return status;
    parse->request->seed = (uint64_t)seed;
    parse->request->has_seed = true;
    return STATUS_OK;
}

static enum status add_stop(struct parse *parse, const char *name, const struct json_value *value)
{
    struct api_request *request = parse->request;
    struct api_text stop;
    const enum status status = api_want_text(parse, name, value, &stop);

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

enum status api_field_stop(struct parse *parse, const char *name, const struct json_value *value)
{
    char path[API_PARAM_SIZE];
    enum status status = STATUS_OK;

    if (api_json_type_of(value) == JSON_TYPE_STRING) return add_stop(parse, name, value);
    if (api_json_type_of(value) != JSON_TYPE_ARRAY) {
        return api_wrong_type(parse, name, "a string or an array of strings", value);
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
