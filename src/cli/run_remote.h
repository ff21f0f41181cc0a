/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/run_remote.h - answers of `yolk run --url`: those of a gateway, by chat completions, or by
 * text completions for a prompt as it is. Threads: the env's. */
#ifndef CLI_RUN_REMOTE_H
#define CLI_RUN_REMOTE_H

#include <stdint.h>

#include "cli/remote.h"
#include "cli/run_chat.h"

struct run_remote {
    struct remote remote;
    const char *model; /* as the gateway calls it; UTF-8 */
    float temperature, top_p;
    uint64_t seed;
    uint32_t max_tokens;
    bool ignore_eos;
};

/* A run_answer_fn; `ctx` is a struct run_remote. An answer that is stopped is hung up on. */
MUST_USE enum status run_remote_answer(void *ctx, const struct chat_message *messages, size_t count,
                                       run_show_fn show, void *show_ctx, struct errmsg *err);

/* The same for a text that is continued; UTF-8. */
MUST_USE enum status run_remote_continue(const struct run_remote *run, const char *text, size_t len,
                                         run_show_fn show, void *show_ctx, struct errmsg *err);

#endif
