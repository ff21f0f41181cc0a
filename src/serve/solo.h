/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/solo.h - one model, one process, one sequence at a time: `yolk run`, and the yardstick.
 *
 * The simplest correct way from a prompt to an answer: an engine, pages of its own, prefill in
 * chunks, then one token a step. What the cluster answers must be equal to what this answers, token
 * for token. A conversation need not be computed again from its beginning: see `keep`.
 *
 * Memory:  allocated by solo_create(): the engine and pages for one sequence of context_max tokens,
 *          touched as used.
 * Threads: belongs to one thread; the engine's compute threads are inside. */
#ifndef SERVE_SOLO_H
#define SERVE_SOLO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "infer/engine.h"
#include "infer/sampler.h"

struct model;
struct solo; /* opaque */
struct timed_options;

struct solo_options {
    uint32_t threads;      /* as in struct engine_options */
    uint32_t block_tokens; /* 0: ENGINE_BLOCK_TOKENS_DEFAULT */
    uint32_t context_max;  /* 0: the model's */
    enum engine_isa isa;
    enum engine_kv kv;
    const struct timed_options *timed; /* as in struct backend_options; outlives it */
};

/* `model` outlives it. Statuses as of engine_create(). */
MUST_USE enum status solo_create(const struct model *model, const struct solo_options *options,
                                 struct solo **out, struct errmsg *err);
void solo_destroy(struct solo *solo); /* NULL is allowed */

struct solo_request {
    const uint32_t *tokens; /* the prompt */
    uint32_t tokens_count;
    uint32_t max_tokens;
    struct sampling sampling;
    bool keep; /* what begins as the last sequence did is not computed again */
    /* Each token as it comes, not those that end the answer. False: enough. */
    bool (*on_token)(void *ctx, uint32_t token);
    /* Which tokens end the answer; NULL: none does. */
    bool (*is_end)(const void *ctx, uint32_t token);
    const void *is_end_ctx;
    void *ctx;
};

enum solo_end { SOLO_STOP = 1, SOLO_LENGTH, SOLO_ENOUGH };

/* Returns when the answer is over. STATUS_INVALID: an empty prompt, one longer than the context, or
 * a token outside the vocabulary. */
MUST_USE enum status solo_generate(struct solo *solo, const struct solo_request *request,
                                   enum solo_end *end);

uint32_t solo_context_max(const struct solo *solo);

#endif
