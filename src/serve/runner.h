/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/runner.h - the thread that owns an engine, and the ring between it and the loop thread.
 *
 * The loop thread decides everything (serve/worker_sched.h): it fills a struct runner_step and
 * hands it over. The engine thread computes it, layer by layer, samples, and answers through the
 * loop:
 *
 *     loop                       engine thread
 *     runner_submit(step) ---->  before layer l: wait until every gate has opened for l
 *        on_layer(l)      <----  after layer l: checksums of the pieces that are complete
 *        on_done(result)  <----  after the last layer: sampled tokens are in step->items[]
 *
 * so that KV of layer l travels while layer l + 1 is computed, and a reused prefix is needed only
 * one layer at a time. The engine thread touches nothing of the loop thread's but the step it was
 * given and the memory that the step points to, which both leave alone between submit and on_done.
 *
 * Gates: a gate stands before the layers of a prefix that is still on its way. The loop opens it
 * layer by layer, or breaks it; a broken gate ends the step with STATUS_CANCELLED.
 *
 * Threads: create, submit, gates and destroy belong to the env's thread, and callbacks run there.
 *          One lock, held for a few instructions, guards the gates.
 * Memory:  allocated at creation.
 * Limits:  one step under way. */
#ifndef SERVE_RUNNER_H
#define SERVE_RUNNER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "infer/backend.h"
#include "infer/engine.h"
#include "infer/sampler.h"

struct env;
struct model;
struct runner; /* opaque */
struct timed_options;

/* Lives in the caller's memory; all zero is a shut gate. Fields are the runner's. */
struct runner_gate {
    uint32_t layers_open;
    bool broken;
};

struct runner_item {
    /* As in struct backend_item. */
    const uint32_t *pages;
    uint32_t pages_count;
    uint32_t position;
    const uint32_t *tokens;
    uint32_t tokens_count;
    bool prefill, prefill_first;
    /* Optional: what must arrive first. */
    struct runner_gate *gate;
    /* Optional: sums[block * n_layers + layer] gets the XXH3-64 of that piece for the blocks
     * [sums_from, sums_to), before on_layer(layer). */
    uint64_t *sums;
    uint32_t sums_from;
    uint32_t sums_to;
    /* The token after the last one. */
    bool sample;
    struct sampling sampling;
    struct sampler_past past;
    uint64_t sample_index;
    uint32_t sampled; /* out */
    uint32_t *row;    /* as in struct backend_item */
    uint32_t row_top, row_count;
    struct backend_score score;
};

struct runner_step {
    struct engine_part part; /* last == 0: all layers; otherwise as in backend_step_part() */
    uint32_t items_count;
    struct runner_item items[ENGINE_ITEMS_MAX];
};

struct runner_result {
    enum status status; /* OK; CANCELLED: a gate broke; INVALID: the engine refused an item */
    uint64_t duration_ns;
    uint64_t waited_ns; /* of it, at gates */
};

struct runner_options {
    struct env *env;
    const struct model *model; /* outlives the runner */
    uint32_t threads;          /* as in struct engine_options */
    uint32_t block_tokens;
    uint32_t context_max;
    enum engine_isa isa;
    enum engine_kv kv;
    const struct timed_options *timed; /* as in struct backend_options; outlives the runner */
    uint8_t *pages;                    /* outlives the runner */
    uint32_t pages_count;
    /* The engine exists and steps may be submitted; or why not, in words. Exactly once. */
    void (*on_ready)(void *ctx, enum status status, const char *error);
    void (*on_layer)(void *ctx, uint32_t layer);
    void (*on_done)(void *ctx, const struct runner_result *result);
    void *ctx;
};

/* Starts the thread, which creates the engine (that may take a while). STATUS_NO_MEMORY. */
MUST_USE enum status runner_create(const struct runner_options *options, struct runner **out,
                                   struct errmsg *err);

/* Waits for the step under way (its gates break) and ends the thread. No callback runs afterwards,
 * but the env must turn once more before it is destroyed to leave nothing behind. NULL allowed. */
void runner_destroy(struct runner *runner);

/* No step may be under way, and on_ready must have said STATUS_OK. The step is borrowed until
 * on_done.
 */
void runner_submit(struct runner *runner, struct runner_step *step);

/* Layers [0, layers_open) have arrived. Never shuts again. */
void runner_gate_open(struct runner *runner, struct runner_gate *gate, uint32_t layers_open);
void runner_gate_break(struct runner *runner, struct runner_gate *gate);

/* Shuts it again, for another use; not while it is part of the step under way. */
void runner_gate_reset(struct runner *runner, struct runner_gate *gate);

#endif
