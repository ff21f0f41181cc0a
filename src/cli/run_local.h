/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/run_local.h - answers of `yolk run` that this process computes. */
#ifndef CLI_RUN_LOCAL_H
#define CLI_RUN_LOCAL_H

#include <stdint.h>

#include "cli/run_chat.h"
#include "infer/sampler.h"

struct chat;
struct solo;
struct tokenizer;

/* Borrowed. */
struct run_local {
    const struct tokenizer *tokenizer;
    const struct chat *chat; /* for conversations */
    struct solo *solo;
    struct sampling sampling;
    uint32_t max_tokens; /* of an answer */
    bool ignore_eos;
};

/* What templates are told of the time. */
int64_t run_local_now_s(void);

/* A run_answer_fn; `ctx` is a struct run_local. */
MUST_USE enum status run_local_answer(void *ctx, const struct chat_message *messages, size_t count,
                                      run_show_fn show, void *show_ctx, struct errmsg *err);

/* The same for tokens that are given; `keep` as struct solo_request has it. */
MUST_USE enum status run_local_continue(const struct run_local *run, const uint32_t *tokens,
                                        uint32_t count, bool keep, run_show_fn show, void *show_ctx,
                                        struct errmsg *err);

#endif
