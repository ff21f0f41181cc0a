/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_prompt.c - see the header.
 *
 * A conversation becomes tokens by the chat template, a text by the tokenizer, with the model's
 * token for beginnings in front where it wants one; token ids are only checked. Tokenising takes
 * time, so what cannot fit by its bytes is refused before. */
#include "serve/gateway_prompt.h"

#include <string.h>

#include "model/chat.h"
#include "model/tokenizer.h"
#include "serve/gateway_cluster.h"
#include "serve/gateway_int.h"

enum status gateway_check_model(const struct gateway *gateway, const struct api_request *api,
                                struct api_error *error)
{
    const char *served = gateway->served_name;

    if (api->model.data == NULL) return STATUS_OK;
    if (api->model.len == strlen(served) && memcmp(api->model.data, served, api->model.len) == 0) {
        return STATUS_OK;
    }
    return api_refuse(error, 404, "model_not_found", "model",
                      "The model '%.100s' does not exist; this server has '%.100s'",
                      api->model.data, served);
}

static enum status too_long(struct api_error *error, const struct api_request *api, uint32_t max)
{
    return api_refuse(
        error, 400, "context_length_exceeded", api->messages_count > 0 ? "messages" : "prompt",
        "The prompt is longer than the context of %u tokens, less one for the answer", max);
}

/* Tokenising takes time: what cannot fit is not tried. */
static bool cannot_fit(const struct gateway *gateway, const struct api_request *api,
                       const struct api_prompt *prompt, uint32_t max)
{
    size_t bytes = prompt->text.len + api->tools_size;
    for (size_t i = 0; i < api->messages_count; i++)
        bytes += api->messages[i].content_len;
    return bytes / gateway->token_bytes_max > max || prompt->tokens_count > max;
}

enum status gateway_check_token(const struct gateway *gateway, uint32_t token, const char *param,
                                struct api_error *error)
{
    const uint32_t vocab = tokenizer_vocab(gateway->tokenizer);

    if (token < vocab) return STATUS_OK;
    return api_refuse(error, 400, "invalid_value", param,
                      "Token id %u is not in the vocabulary of %u", token, vocab);
}

static enum status take_token_ids(const struct gateway *gateway, const struct api_prompt *prompt,
                                  uint32_t *tokens, size_t *count, struct api_error *error)
{
    for (size_t i = 0; i < prompt->tokens_count; i++) {
        const enum status status = gateway_check_token(gateway, prompt->tokens[i], "prompt", error);
        if (status != STATUS_OK) return status;
        tokens[i] = prompt->tokens[i];
    }
    *count = prompt->tokens_count;
    return STATUS_OK;
}

static enum status tokenize_text(const struct gateway *gateway, struct api_text text, bool bare,
                                 uint32_t *tokens, size_t max, size_t *count)
{
    const uint32_t bos = tokenizer_bos(gateway->tokenizer);
    const bool wanted = !bare && (tokenizer_adds_bos(gateway->tokenizer) || text.len == 0);

    *count = 0;
    if (wanted && bos != TOKENIZER_NONE) tokens[(*count)++] = bos;
    return tokenizer_encode(gateway->tokenizer, text.data, text.len, tokens, max, count);
}

enum status gateway_tokenize(const struct gateway *gateway, const struct gateway_wording *wording,
                             uint32_t *tokens, uint32_t max, size_t *count, struct api_error *error)
{
    static const struct api_prompt NONE = { .tokens_count = 0 };
    const struct api_request *api = wording->api;
    const struct api_prompt *prompt =
        api->messages_count > 0 ? &NONE : &api->prompts[wording->prompt];
    struct errmsg err = { "" };
    enum status status;

    if (cannot_fit(gateway, api, prompt, max)) return too_long(error, api, max);
    if (api->messages_count > 0) {
        struct chat_talk talk = { .messages = api->messages,
                                  .messages_count = api->messages_count,
                                  .generate = !api->unasking,
                                  .tools = api->tools,
                                  .variables = api->variables,
                                  .now_s = wording->now_s };
        if (api->tools != NULL && api->tool_choice == API_TOOL_REQUIRED)
            talk.opening = chat_tools_opening(chat_tools(gateway->chat));
        status = chat_encode(gateway->chat, &talk, tokens, max, count, &err);
    } else if (prompt->text.data == NULL) {
        status = take_token_ids(gateway, prompt, tokens, count, error);
        if (status != STATUS_OK) return status;
    } else {
        status = tokenize_text(gateway, prompt->text, api->bare, tokens, max, count);
    }
    if (status == STATUS_FULL || (status == STATUS_OK && *count >= max)) {
        return too_long(error, api, max);
    }
    if (status == STATUS_NO_MEMORY) {
        return api_refuse(error, 503, "overloaded", NULL, "Not enough memory");
    }
    if (status != STATUS_OK) {
        return api_refuse(error, 400, "invalid_value",
                          api->messages_count > 0 ? "messages" : "prompt", "%s", err.text);
    }
    if (*count == 0 && api->kind != API_TOKENIZE) {
        return api_refuse(error, 400, "invalid_value", "prompt", "'prompt' is empty");
    }
    return STATUS_OK;
}

uint32_t gateway_context_max(const struct gateway *gateway)
{
    if (cluster_conductor(gateway->cluster) == NULL) return gateway->context_max;
    const uint32_t nodes = cluster_context_max(gateway->cluster);
    return nodes < gateway->context_max ? nodes : gateway->context_max;
}

enum status gateway_check_wishes(const struct gateway *gateway, const struct api_request *api,
                                 struct api_error *error)
{
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < api->biases_count && status == STATUS_OK; i++)
        status = gateway_check_token(gateway, api->bias_tokens[i], "logit_bias", error);
    for (uint32_t i = 0; i < api->stop_tokens_count && status == STATUS_OK; i++)
        status = gateway_check_token(gateway, api->stop_tokens[i], "stop_token_ids", error);
    return status;
}
