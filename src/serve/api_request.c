/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_request.c - request bodies, checked field by field against one table.
 *
 * A row of the table says for which endpoints a field is known and what happens to it: parsed by a
 * function, ignored because the answer cannot depend on it, allowed at a neutral value because
 * clients send their defaults, or refused. null is the same as absent for every known field:
 * clients send it. The first fault found in the order of the text is reported, and only that one.
 *
 * The functions are here, as far as they are about the shape of the answer, and in the files that
 * api_int.h names. */
#include "serve/api_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "serve/api_format.h"
#include "serve/api_tools.h"

/* ---- fields about the answer as a whole ---- */

static enum status field_model(struct parse *parse, const char *name,
                               const struct json_value *value)
{
    return api_want_text(parse, name, value, &parse->request->model);
}

static enum status field_stream(struct parse *parse, const char *name,
                                const struct json_value *value)
{
    return api_want_bool(parse, name, value, &parse->request->stream);
}

static bool stream_option(void *ctx, const char *name, const struct json_value *value)
{
    struct parse *parse = ctx;
    char path[API_PARAM_SIZE];
    bool wanted = false;

    snprintf(path, sizeof(path), "stream_options.%s", name);
    if (api_json_type_of(value) == JSON_TYPE_NULL) return true;
    if (strcmp(name, "include_usage") == 0) {
        parse->status = api_want_bool(parse, path, value, &parse->request->include_usage);
    } else if (strcmp(name, "include_obfuscation") == 0) {
        parse->status = api_want_bool(parse, path, value, &wanted);
    } else if (strcmp(name, "continuous_usage_stats") == 0) {
        parse->status = api_want_bool(parse, path, value, &parse->request->continuous_usage);
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
        return api_wrong_type(parse, name, "an object", value);
    parse->has_stream_options = true;
    api_json_each(value, stream_option, parse);
    return parse->status;
}

static enum status field_response_format(struct parse *parse, const char *name,
                                         const struct json_value *value)
{
    (void)name;
    return api_format_take(parse->request, value, parse->error);
}

static enum status field_structured_outputs(struct parse *parse, const char *name,
                                            const struct json_value *value)
{
    (void)name;
    return api_format_take_structured(parse->request, value, parse->error);
}

static enum status field_guided_json(struct parse *parse, const char *name,
                                     const struct json_value *value)
{
    return api_format_take_guided(parse->request, name, value, parse->error);
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
    const enum status status = api_want_bool(parse, name, value, &parallel);
    parse->request->one_call = !parallel;
    return status;
}

static enum status field_chat_template_kwargs(struct parse *parse, const char *name,
                                              const struct json_value *value)
{
    (void)name;
    return api_tools_take_variables(parse->request, value, parse->error);
}

static enum status field_n(struct parse *parse, const char *name, const struct json_value *value)
{
    int64_t count = 1;
    const enum status status = api_want_int(parse, name, value, 1, API_CHOICES_MAX, &count);
    *(strcmp(name, "n") == 0 ? &parse->request->n : &parse->best_of) = (uint32_t)count;
    return status;
}

/* Of a completion, and `top_logprobs` of a chat: how many of the likeliest tokens. */
static enum status field_logprobs(struct parse *parse, const char *name,
                                  const struct json_value *value)
{
    int64_t count = 0;
    const enum status status = api_want_int(parse, name, value, 0, API_LOGPROBS_MAX, &count);

    parse->top_logprobs = 1 + (uint32_t)count;
    return status;
}

static enum status field_prompt_logprobs(struct parse *parse, const char *name,
                                         const struct json_value *value)
{
    int64_t count = 0;
    const enum status status = api_want_int(parse, name, value, 0, API_LOGPROBS_MAX, &count);

    parse->request->prompt_logprobs = 1 + (uint32_t)count;
    return status;
}

static enum status field_logprobs_wanted(struct parse *parse, const char *name,
                                         const struct json_value *value)
{
    return api_want_bool(parse, name, value, &parse->logprobs);
}

static enum status field_cache_salt(struct parse *parse, const char *name,
                                    const struct json_value *value)
{
    struct api_text *salt = &parse->request->cache_salt;
    const enum status status = api_want_text(parse, name, value, salt);

    if (status != STATUS_OK || (salt->len > 0 && salt->len <= API_SALT_SIZE_MAX)) return status;
    return api_refuse(parse->error, 400, "invalid_value", name, "'%s' must have 1 to %d bytes",
                      name, API_SALT_SIZE_MAX);
}

static enum status field_echo(struct parse *parse, const char *name, const struct json_value *value)
{
    return api_want_bool(parse, name, value, &parse->request->echo);
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
    api_field_fn *fn;
} FIELDS[] = {
    { "messages", FOR_CHAT | FOR_TOKENIZE, api_field_messages },
    { "prompt", FOR_COMPLETION, api_field_prompt },
    { "prompt", FOR_TOKENIZE, api_field_one_prompt },
    { "tokens", FOR_DETOKENIZE, api_field_tokens },
    { "model", FOR_ALL, field_model },
    { "add_special_tokens", FOR_TOKENIZE, api_field_add_special_tokens },
    { "add_generation_prompt", FOR_TOKENIZE, api_field_add_generation_prompt },
    { "return_token_strs", FOR_TOKENIZE, api_only_false },
    { "stream", FOR_BOTH, field_stream },
    { "stream_options", FOR_BOTH, field_stream_options },
    { "max_tokens", FOR_BOTH, api_field_max_tokens },
    { "max_completion_tokens", FOR_CHAT, api_field_max_tokens },
    { "min_tokens", FOR_BOTH, api_field_min_tokens },
    { "temperature", FOR_BOTH, api_field_temperature },
    { "top_p", FOR_BOTH, api_field_top_p },
    { "seed", FOR_BOTH, api_field_seed },
    { "stop", FOR_BOTH, api_field_stop },
    { "ignore_eos", FOR_BOTH, api_field_ignore_eos },
    { "frequency_penalty", FOR_BOTH, api_field_penalty },
    { "presence_penalty", FOR_BOTH, api_field_penalty },
    { "repetition_penalty", FOR_BOTH, api_field_repetition_penalty },
    { "top_k", FOR_BOTH, api_field_top_k },
    { "min_p", FOR_BOTH, api_field_min_p },
    { "logit_bias", FOR_BOTH, api_field_logit_bias },
    { "logprobs", FOR_CHAT, field_logprobs_wanted },
    { "logprobs", FOR_COMPLETION, field_logprobs },
    { "top_logprobs", FOR_CHAT, field_logprobs },
    { "prompt_logprobs", FOR_BOTH, field_prompt_logprobs },
    { "n", FOR_BOTH, field_n },
    { "best_of", FOR_COMPLETION, field_n },
    { "echo", FOR_COMPLETION, field_echo },
    { "cache_salt", FOR_BOTH, field_cache_salt },
    { "stop_token_ids", FOR_BOTH, api_field_stop_token_ids },
    { "response_format", FOR_BOTH, field_response_format },
    { "structured_outputs", FOR_BOTH, field_structured_outputs },
    { "guided_json", FOR_BOTH, field_guided_json },
    { "tools", FOR_CHAT | FOR_TOKENIZE, field_tools },
    { "tool_choice", FOR_CHAT, field_tool_choice },
    { "parallel_tool_calls", FOR_CHAT, field_parallel_tool_calls },
    { "chat_template_kwargs", FOR_CHAT | FOR_TOKENIZE, field_chat_template_kwargs },

    { "user", FOR_BOTH, api_ignored },
    { "metadata", FOR_BOTH, api_ignored },
    { "service_tier", FOR_BOTH, api_ignored },
    { "store", FOR_BOTH, api_only_false },
    { "safety_identifier", FOR_BOTH, api_ignored },
    { "prompt_cache_key", FOR_BOTH, api_ignored },
    { "prompt_cache_retention", FOR_BOTH, api_ignored },
    { "request_id", FOR_BOTH, api_ignored },
    { "priority", FOR_BOTH, api_only_zero },

    { "length_penalty", FOR_BOTH, api_only_one },
    { "use_beam_search", FOR_BOTH, api_only_false },
    { "skip_special_tokens", FOR_BOTH, api_only_true },
    { "spaces_between_special_tokens", FOR_BOTH, api_only_true },
    { "include_stop_str_in_output", FOR_BOTH, api_only_false },
    { "add_generation_prompt", FOR_CHAT, api_only_true },
    { "continue_final_message", FOR_CHAT, api_only_false },
    { "return_token_ids", FOR_BOTH, api_only_false },
    { "echo", FOR_CHAT, api_only_false },
    { "suffix", FOR_COMPLETION, api_only_empty },
    { "functions", FOR_CHAT, api_only_empty },
    { "function_call", FOR_CHAT, api_only_none },
    { "bad_words", FOR_BOTH, api_only_empty },
    { "guided_choice", FOR_BOTH, api_only_absent },
    { "guided_regex", FOR_BOTH, api_only_absent },
    { "guided_grammar", FOR_BOTH, api_only_absent },
    { "kv_transfer_params", FOR_BOTH, api_only_absent },
    { "truncate_prompt_tokens", FOR_BOTH, api_only_absent },
    { "allowed_token_ids", FOR_BOTH, api_only_absent },
    { "logits_processors", FOR_BOTH, api_only_absent },
    { "chat_template", FOR_CHAT, api_only_absent },
    { "documents", FOR_CHAT, api_only_absent },
    { "mm_processor_kwargs", FOR_CHAT, api_only_absent },
    { "reasoning_effort", FOR_CHAT, api_only_absent },
    { "verbosity", FOR_CHAT, api_only_absent },
    { "modalities", FOR_CHAT, api_only_absent },
    { "audio", FOR_CHAT, api_only_absent },
    { "prediction", FOR_CHAT, api_only_absent },
    { "web_search_options", FOR_CHAT, api_only_absent },
    { "nvext", FOR_BOTH, api_only_absent },
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
    if (request->prompt_logprobs > 0 && request->stream) {
        return api_refuse(parse->error, 400, "unsupported_parameter", "prompt_logprobs",
                          "'prompt_logprobs' is not supported together with 'stream'");
    }
    if (chat && !parse->logprobs) return STATUS_OK;
    request->logprobs = chat && parse->top_logprobs == 0 ? 1 : parse->top_logprobs;
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
    if (request->prompt_only && !request->echo && request->prompt_logprobs == 0) {
        return api_refuse(parse->error, 400, "invalid_value", "max_tokens",
                          "'max_tokens' 0 without 'echo' or 'prompt_logprobs' asks for nothing");
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
    api_free_prompts(request);
    free(request->bias_tokens);
    free(request->biases);
    api_json_destroy(request->doc);
    *request = (struct api_request){ .kind = request->kind };
}
