/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/run_local.c - see the header. */
#include "cli/run_local.h"

#include <stdlib.h>

#include "model/chat.h"
#include "model/tokenizer.h"
#include "base/env_real.h"
#include "base/utf8.h"
#include "serve/solo.h"

enum { PIECE_SIZE = 1024 };

struct telling {
    const struct run_local *run;
    struct utf8_stream utf8;
    run_show_fn show;
    void *ctx; /* of show */
};

static bool on_token(void *ctx, uint32_t token)
{
    struct telling *telling = ctx;
    const struct tokenizer *tokenizer = telling->run->tokenizer;
    char text[UTF8_STREAM_OUT_MAX(PIECE_SIZE)];
    size_t len = 0;
    const char *bytes = tokenizer_bytes(tokenizer, token, &len);
    bool goes_on = telling->show(telling->ctx, "", 0);

    if (tokenizer_is_special(tokenizer, token)) return goes_on;
    for (size_t at = 0; at < len && goes_on; at += PIECE_SIZE) {
        const size_t part = len - at < PIECE_SIZE ? len - at : PIECE_SIZE;
        const size_t n = utf8_stream_push(&telling->utf8, bytes + at, part, text);
        goes_on = telling->show(telling->ctx, text, n);
    }
    return goes_on;
}

static bool is_end(const void *ctx, uint32_t token)
{
    return tokenizer_is_end(ctx, token);
}

enum status run_local_continue(const struct run_local *run, const uint32_t *tokens, uint32_t count,
                               bool keep, run_show_fn show, void *show_ctx, struct errmsg *err)
{
    struct telling telling = { .run = run, .show = show, .ctx = show_ctx };
    const struct solo_request request = {
        .tokens = tokens,
        .tokens_count = count,
        .max_tokens = run->max_tokens,
        .sampling = run->sampling,
        .keep = keep,
        .on_token = on_token,
        .is_end = run->ignore_eos ? NULL : is_end,
        .is_end_ctx = run->tokenizer,
        .ctx = &telling,
    };
    enum solo_end end;
    char rest[3];

    utf8_stream_init(&telling.utf8);
    const enum status status = solo_generate(run->solo, &request, &end);
    if (status != STATUS_OK)
        return errmsg_set(err, status, "the engine said %s", status_name(status));
    (void)show(show_ctx, rest, utf8_stream_finish(&telling.utf8, rest));
    return STATUS_OK;
}

int64_t run_local_now_s(void)
{
    return (int64_t)(env_real_wall_ns() / ENV_NS_PER_S);
}

enum status run_local_answer(void *ctx, const struct chat_message *messages, size_t count,
                             run_show_fn show, void *show_ctx, struct errmsg *err)
{
    const struct run_local *run = ctx;
    const struct chat_talk talk = {
        .messages = messages, .messages_count = count, .generate = true, .now_s = run_local_now_s()
    };
    const uint32_t context = solo_context_max(run->solo);
    uint32_t *tokens = calloc(context, sizeof(*tokens));
    size_t n = 0;

    if (tokens == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    enum status status = chat_encode(run->chat, &talk, tokens, context, &n, err);
    if (status == STATUS_FULL || (status == STATUS_OK && n >= context)) {
        status = errmsg_set(err, STATUS_FULL,
                            "the conversation is longer than the context of %u tokens; /reset "
                            "starts a new one",
                            context);
    }
    if (status == STATUS_OK)
        status = run_local_continue(run, tokens, (uint32_t)n, true, show, show_ctx, err);
    free(tokens);
    return status;
}
