/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_tokens.c - /tokenize and /detokenize, as vLLM has them.
 *
 * Clients count tokens with the first to cut their prompts, so it takes texts that would not fit
 * the context too, up to TOKENS_MAX tokens. The second gives the text that the tokens stand for;
 * special ones are shown by their names, as a reader of a prompt wants them. */
#include <stdlib.h>

#include "base/buf.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "base/utf8.h"
#include "net/http.h"
#include "serve/api_tools.h"
#include "serve/gateway_int.h"
#include "serve/gateway_prompt.h"

enum { TOKENS_MAX = 1 << 20, ANSWER_SIZE_MAX = 64 << 20 };

static enum status write_tokens(const struct gateway *gateway, const struct api_request *api,
                                struct buf *out, struct api_error *error)
{
    uint32_t *tokens = malloc(TOKENS_MAX * sizeof(*tokens));
    size_t count = 0;

    if (tokens == NULL) return api_refuse(error, 503, "overloaded", NULL, "Not enough memory");
    enum status status = gateway_tokenize(gateway, api, 0, tokens, TOKENS_MAX, &count, error);
    if (status == STATUS_OK &&
        api_write_tokens(out, tokens, count, gateway_context_max(gateway)) != STATUS_OK) {
        status = api_refuse(error, 503, "overloaded", NULL, "Not enough memory");
    }
    free(tokens);
    return status;
}

/* Tokens may end within a character: what is no text by then becomes U+FFFD. */
static enum status append_valid(const struct buf *bytes, struct buf *out)
{
    struct utf8_stream stream;
    uint8_t *room;
    const enum status status = buf_reserve(out, UTF8_STREAM_OUT_MAX(bytes->len) + 3, &room);

    if (status != STATUS_OK) return status;
    utf8_stream_init(&stream);
    size_t len = utf8_stream_push(&stream, buf_data(bytes), bytes->len, (char *)room);
    len += utf8_stream_finish(&stream, (char *)room + len);
    buf_commit(out, len);
    return STATUS_OK;
}

enum status gateway_detokenize(const struct gateway *gateway, const uint32_t *tokens, size_t count,
                               struct buf *out)
{
    enum status status = STATUS_OK;
    struct buf bytes;

    buf_init(&bytes, ANSWER_SIZE_MAX);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        size_t len;
        const char *text = tokenizer_bytes(gateway->tokenizer, tokens[i], &len);
        status = buf_append(&bytes, text, len);
    }
    if (status == STATUS_OK) status = append_valid(&bytes, out);
    buf_fini(&bytes);
    return status;
}

static enum status write_text(const struct gateway *gateway, const struct api_request *api,
                              struct buf *out, struct api_error *error)
{
    const struct api_prompt *prompt = &api->prompts[0];
    enum status status = STATUS_OK;
    struct buf text;

    for (size_t i = 0; i < prompt->tokens_count && status == STATUS_OK; i++)
        status = gateway_check_token(gateway, prompt->tokens[i], "tokens", error);
    if (status != STATUS_OK) return status;
    buf_init(&text, ANSWER_SIZE_MAX);
    status = gateway_detokenize(gateway, prompt->tokens, prompt->tokens_count, &text);
    if (status == STATUS_OK)
        status = api_write_prompt(out, (const char *)buf_data(&text), text.len);
    if (status != STATUS_OK)
        status = api_refuse(error, 400, "invalid_value", "tokens", "The text is too long");
    buf_fini(&text);
    return status;
}

void gateway_tokens_route(struct gateway *gateway, struct http_request *http, enum api_kind kind)
{
    struct api_request api;
    struct api_error error;
    struct buf out;
    size_t len = 0;
    const char *body = http_body(http, &len);

    enum status status = api_parse(kind, body, len, &api, &error);
    if (status != STATUS_OK) {
        gateway_respond_error(gateway, http, &error);
        return;
    }
    buf_init(&out, ANSWER_SIZE_MAX);
    status = gateway_check_model(gateway, &api, &error);
    if (status == STATUS_OK) status = api_tools_prepare(&api, chat_tools(gateway->chat), &error);
    if (status == STATUS_OK) {
        status = kind == API_TOKENIZE ? write_tokens(gateway, &api, &out, &error)
                                      : write_text(gateway, &api, &out, &error);
    }
    if (status == STATUS_OK) {
        gateway_respond(gateway, http, 200, "application/json", (const char *)buf_data(&out),
                        out.len);
    } else {
        gateway_respond_error(gateway, http, &error);
    }
    buf_fini(&out);
    api_request_fini(&api);
}
