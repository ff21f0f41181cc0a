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
#include "serve/gateway_beside.h"
#include "serve/gateway_int.h"
#include "serve/gateway_prompt.h"

enum { TOKENS_MAX = 1 << 20, ANSWER_SIZE_MAX = 64 << 20 };

/* A request, and its answer. */
struct tokens_work {
    struct gateway *gateway;
    struct http_request *http;
    struct beside beside;
    enum api_kind kind;
    const char *body;
    size_t len;
    uint32_t context_max;
    int64_t now_s;

    enum status status; /* STATUS_INVALID: answer `error`, otherwise `out` */
    struct api_error error;
    struct buf out;
};

static enum status no_memory(struct tokens_work *work)
{
    return api_refuse(&work->error, 503, "overloaded", NULL, "Not enough memory");
}

static enum status write_tokens(struct tokens_work *work, const struct api_request *api)
{
    const struct gateway_wording wording = { api, 0, work->now_s };
    uint32_t *tokens = malloc(TOKENS_MAX * sizeof(*tokens));
    size_t count = 0;

    if (tokens == NULL) return no_memory(work);
    enum status status =
        gateway_tokenize(work->gateway, &wording, tokens, TOKENS_MAX, &count, &work->error);
    if (status == STATUS_OK &&
        api_write_tokens(&work->out, tokens, count, work->context_max) != STATUS_OK)
        status = no_memory(work);
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

static enum status write_text(struct tokens_work *work, const struct api_request *api)
{
    const struct api_prompt *prompt = &api->prompts[0];
    enum status status = STATUS_OK;
    struct buf text;

    for (size_t i = 0; i < prompt->tokens_count && status == STATUS_OK; i++)
        status = gateway_check_token(work->gateway, prompt->tokens[i], "tokens", &work->error);
    if (status != STATUS_OK) return status;
    buf_init(&text, ANSWER_SIZE_MAX);
    status = gateway_detokenize(work->gateway, prompt->tokens, prompt->tokens_count, &text);
    if (status == STATUS_OK)
        status = api_write_prompt(&work->out, (const char *)buf_data(&text), text.len);
    if (status != STATUS_OK)
        status = api_refuse(&work->error, 400, "invalid_value", "tokens", "The text is too long");
    buf_fini(&text);
    return status;
}

/* On any thread. */
static void make_answer(void *ctx)
{
    struct tokens_work *work = ctx;
    const struct gateway *gateway = work->gateway;
    struct api_error *error = &work->error;
    struct api_request api;

    work->status = api_parse(work->kind, work->body, work->len, &api, error);
    if (work->status != STATUS_OK) return;
    enum status status = gateway_check_model(gateway, &api, error);
    if (status == STATUS_OK) status = api_tools_prepare(&api, chat_tools(gateway->chat), error);
    if (status == STATUS_OK) {
        status = work->kind == API_TOKENIZE ? write_tokens(work, &api) : write_text(work, &api);
    }
    work->status = status;
    api_request_fini(&api);
}

static void on_made(void *ctx, enum beside_end how)
{
    struct tokens_work *work = ctx;

    if (how == BESIDE_SHUTDOWN) {
        work->status =
            api_refuse(&work->error, 503, "shutting_down", NULL, "The server is shutting down");
    }
    if (how == BESIDE_LEFT) {
        http_abort(work->http);
    } else if (work->status == STATUS_OK) {
        gateway_respond(work->gateway, work->http, 200, "application/json",
                        (const char *)buf_data(&work->out), work->out.len);
    } else {
        gateway_respond_error(work->gateway, work->http, &work->error);
    }
    buf_fini(&work->out);
    free(work);
}

void gateway_tokens_route(struct gateway *gateway, struct http_request *http, enum api_kind kind)
{
    struct tokens_work *work = malloc(sizeof(*work));
    enum status status = STATUS_NO_MEMORY;
    struct api_error error;

    if (work != NULL) {
        *work = (struct tokens_work){
            .gateway = gateway,
            .http = http,
            .beside = { .work = make_answer, .done = on_made, .ctx = work },
            .kind = kind,
            .context_max = gateway_context_max(gateway),
            .now_s = (int64_t)(env_wall_ns(gateway->env) / ENV_NS_PER_S),
        };
        work->body = http_body(http, &work->len);
        buf_init(&work->out, ANSWER_SIZE_MAX);
        status = beside_start(gateway, http, &work->beside);
    }
    if (status == STATUS_OK) return;
    (void)beside_refuse(status, &error);
    gateway_respond_error(gateway, http, &error);
    free(work);
}
