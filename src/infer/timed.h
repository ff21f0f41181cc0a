/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/timed.h - an engine that takes the time of a modelled machine instead of computing, so that
 * a cluster of many nodes, with its real processes, protocols and transfers, runs on a small one.
 *
 * Time. A step takes
 *
 *     the sum over its prompt parts     new k + square ((n+k)^2 - n^2), k tokens behind n;
 *                                       with the first part of a prompt: fixed + reused n
 *     and, if b > 0 sequences decode    base + sequence b + context (sum of their tokens)
 *
 * so that the parts of a prompt of n tokens, p of them reused, add up to
 * fixed + new (n-p) + square (n^2-p^2) + reused p. Each of the layers gets an equal share, between
 * its two hooks; waiting in a hook comes on top, as it does for a machine that waits for KV.
 *
 * Content. It is a toy model, not a fake: layer l of token t is eight bytes of state, a function of
 * the layer, of the token and of the state at t-1, which is read from the page. The next token is a
 * function of the states of all layers. So pages really carry the sequence: a block that was lost,
 * mixed up or damaged on its way changes the answer, and equal answers mean that none was.
 *
 *     page = layer 0 | ... | layer TIMED_LAYERS-1 | zero padding;  layer = [token] 8 bytes, LE
 *
 * Temperature above 0 makes the next token depend on the seed and its index too, as sampling does.
 *
 * Memory:  allocated by timed_create().
 * Threads: belongs to one thread at a time, which sleeps.
 * Limits:  those of infer/engine.h; a step is at most TIMED_STEP_S_MAX. */
#ifndef INFER_TIMED_H
#define INFER_TIMED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "infer/backend.h"
#include "infer/engine.h"

struct model_params;
struct timed; /* opaque */

enum {
    TIMED_LAYERS = 4,
    TIMED_STATE_SIZE = 8,
    TIMED_HIDDEN_SIZE = 2, /* floats: one number made of the states of the layers before */
    TIMED_STEP_S_MAX = 60,
};

/* Seconds, each finite and not negative. */
struct timed_profile {
    double prefill_fixed_s, prefill_new_s, prefill_square_s, prefill_reused_s;
    double decode_base_s, decode_sequence_s, decode_context_s;
    double speed;         /* everything is so many times faster; above 0 */
    double answer_tokens; /* mean length of an answer that may end; 0: none ends by itself */
};

/* A machine on which a small cluster is busy with a few requests a second: 4,000 new tokens take
 * 0.5 s, a decode step of 8 sequences 26 ms. */
extern const struct timed_profile timed_profile_default;

/* Functions may be NULL: all tokens but the end token are used; the real clock and sleep. */
struct timed_options {
    struct timed_profile profile;
    uint32_t end_token; /* ends an answer, where the profile has a length */
    bool (*usable)(const void *ctx, uint32_t token); /* tokens to answer with */
    const void *usable_ctx;
    uint64_t (*now_ns)(void *ctx);
    void (*sleep_ns)(void *ctx, uint64_t duration_ns);
    void *clock_ctx;
};

/* STATUS_INVALID: err says which number is out of range. */
MUST_USE enum status timed_profile_check(const struct timed_profile *profile, struct errmsg *err);

/* How long the step takes, in seconds, waiting in hooks apart. */
double timed_step_s(const struct timed_profile *profile, const struct backend_item *items,
                    uint32_t items_count);

/* The layout of its pages; what it has of the machine (isa) is kept. */
void timed_layout_of(uint32_t block_tokens, struct engine_layout *layout);

/* `engine` as for engine_create(); threads and exact have no meaning here. `options` is copied.
 * STATUS_INVALID for a profile or a context out of range, or no usable token; STATUS_NO_MEMORY. */
MUST_USE enum status timed_create(const struct model_params *params,
                                  const struct engine_options *engine,
                                  const struct timed_options *options, struct timed **out,
                                  struct errmsg *err);
void timed_destroy(struct timed *timed); /* NULL is allowed */

const struct engine_layout *timed_layout(const struct timed *timed);

/* As backend_step(), and backend_step_part(): a part takes its layers' share of the time. */
MUST_USE enum status timed_step(struct timed *timed, struct backend_item *items,
                                uint32_t items_count, const struct engine_hooks *hooks);
MUST_USE enum status timed_step_part(struct timed *timed, struct backend_item *items,
                                     uint32_t items_count, const struct engine_part *part,
                                     const struct engine_hooks *hooks);

#endif
