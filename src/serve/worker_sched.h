/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_sched.h - what a node computes next: a pure state machine over its sequences.
 *
 * A node prefills some sequences and decodes others. Whenever the engine is free the worker asks
 * for the next step: one row for every sequence that decodes, then as many rows of prompts as fit,
 * in their order (continuous batching with chunked prefill). The order is: higher priorities first;
 * within one, tenants get equal tokens (conductor/fair.h); within a tenant, the least order first,
 * which is first come, first served where that is the time of arrival. A prompt of higher priority
 * goes before the next chunk of one that has begun; a lesser order does not. The scheduler knows no
 * tokens, no pages and no bytes, only how many: so it can be walked at random, and the simulator
 * may use it as it is.
 *
 *   prefill                                          decode
 *
 *    NONE                                             NONE
 *      | sched_add                                      | sched_add
 *      v               sched_loading                    v
 *   QUEUED ------------------------> LOADING         QUEUED          waits for pages
 *      | sched_ready                  |   ^             | sched_ready
 *      v              sched_ready     |   |             v
 *   PREFILL <-------------------------+   |         WAITING_KV       its KV is on the way
 *      |  |             sched_loading     |             | sched_decode
 *      |  +-------------------------------+             v
 *      | sched_step_done, last row                   DECODE
 *      v                                                |
 *   PUSHING    its KV is on the way to d                |
 *      |                                                |
 *      +-----------> FINISHED (sched_end) <-------------+------ also from WAITING_KV
 *
 *   A decode sequence whose prompt is computed here: WAITING_KV --sched_compute--> PREFILL, which
 *   ends in WAITING_KV again.
 *
 *   Any of these but NONE --sched_end--> CANCELLED, FAILED, FINISHED --sched_remove--> NONE
 *
 * Invariants
 *   I1  A step holds at most rows_max rows and at most one item of a sequence.
 *   I2  At most one step is under way: sched_pick() and sched_step_done() alternate.
 *   I3  A sequence in the step under way is not removed; its end is noted at once, and what the
 *       step computed for it is dropped.
 *   I4  computed <= tokens; in DECODE computed == tokens - 1 between steps: the newest token has no
 *       KV yet.
 *   I5  A chunk that does not end its prompt ends on a block boundary; none goes beyond what is
 *       offered (sched_offer()).
 *   I6  Every decoding sequence has a row in every step but those of a sequence that has to be
 *       alone, and two of these never follow each other while something decodes.
 *
 * Memory:  allocated by sched_create().
 * Threads: belongs to one thread.
 * Limits:  those of the options; sched_add() answers STATUS_FULL. */
#ifndef SERVE_WORKER_SCHED_H
#define SERVE_WORKER_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum {
    SCHED_SEQUENCES_MAX = 4096,
    SCHED_ROWS_MAX = 512,
    /* A step that ends a prompt and has so many rows is full: more would keep its first token
     * waiting, and the engine works no faster for them. */
    SCHED_FILL_ROWS = 64,
};

enum sched_state {
    SCHED_NONE = 0,
    SCHED_QUEUED,
    SCHED_LOADING,
    SCHED_PREFILL,
    SCHED_PUSHING,
    SCHED_WAITING_KV,
    SCHED_DECODE,
    SCHED_FINISHED,
    SCHED_CANCELLED,
    SCHED_FAILED,
};
enum { SCHED_STATES = SCHED_FAILED + 1 };
const char *sched_state_name(enum sched_state state);

enum sched_kind { SCHED_KIND_PREFILL = 1, SCHED_KIND_DECODE = 2 };

/* A slot; never an index of anything else. */
struct sched_id {
    uint32_t index;
};

struct sched; /* opaque */

struct sched_options {
    uint32_t sequences_max; /* 1..SCHED_SEQUENCES_MAX, of both kinds */
    uint32_t decode_max;    /* decoding at once; decode_max + block_tokens <= rows_max */
    uint32_t rows_max;      /* 1..SCHED_ROWS_MAX */
    uint32_t block_tokens;
};

/* STATUS_INVALID for options out of range, STATUS_NO_MEMORY. */
MUST_USE enum status sched_create(const struct sched_options *options, struct sched **out);
void sched_destroy(struct sched *sched); /* NULL is allowed */

/* ---- events ---- */

struct sched_arrival {
    enum sched_kind kind;
    uint32_t tokens; /* at least 1 */
    int priority;
    uint64_t tenant; /* any number that tells tenants apart */
    uint64_t order;  /* of prompts; of equal ones, the first to come */
};

/* A sequence arrives and is QUEUED. STATUS_FULL at sequences_max. */
MUST_USE enum status sched_add(struct sched *sched, const struct sched_arrival *arrival,
                               struct sched_id *out);

/* QUEUED, or PREFILL outside a step -> LOADING: reused blocks are on the way. */
void sched_loading(struct sched *sched, struct sched_id id);

/* It has its pages. Prefill: QUEUED or LOADING -> PREFILL with the first `computed` tokens (a
 * multiple of block_tokens, fewer than all) reused; with `alone` its next chunk shares no step with
 * others, because the step may have to wait for layers that are still on the way. Decode: QUEUED ->
 * WAITING_KV; `computed` and `alone` are 0. */
void sched_ready(struct sched *sched, struct sched_id id, uint32_t computed, bool alone);

/* Nothing is on the way any more: it need not be alone. */
void sched_loaded(struct sched *sched, struct sched_id id);

/* Of a prompt's tokens, only the first `until` may be computed for now: a block boundary, or all.
 * At first all may. */
void sched_offer(struct sched *sched, struct sched_id id, uint32_t until);

/* A decode sequence, WAITING_KV -> PREFILL: its prompt is computed here, from the first `computed`
 * tokens on (a multiple of block_tokens, fewer than all), beside the steps of the others. */
void sched_compute(struct sched *sched, struct sched_id id, uint32_t computed);

/* Its KV is complete and a first token follows: WAITING_KV -> DECODE. STATUS_FULL: decode_max
 * decode already; try again when one has ended. */
MUST_USE enum status sched_decode(struct sched *sched, struct sched_id id);

/* Any live state -> FINISHED, CANCELLED or FAILED. FINISHED only from PUSHING, WAITING_KV, DECODE.
 */
void sched_end(struct sched *sched, struct sched_id id, enum sched_state end);

/* Ended and not in the step under way: the slot is free again. */
void sched_remove(struct sched *sched, struct sched_id id);

/* ---- steps ---- */

struct sched_item {
    struct sched_id id;
    enum sched_kind kind;
    uint32_t position; /* of the first row */
    uint32_t rows;
    bool prompt;     /* rows of a prompt, not a decode row */
    bool last;       /* the row's logits are wanted: a decode row, or the end of a prompt */
    bool needs_page; /* the first row begins a block that has no page yet (decode only) */
};

struct sched_step {
    uint32_t items_count;
    uint32_t rows;
    struct sched_item items[SCHED_ROWS_MAX];
};

enum sched_pick {
    SCHED_PICK_IDLE, /* nothing to compute */
    SCHED_PICK_STEP, /* *step is under way until sched_step_done() */
    /* Pages do not suffice for the rows of this step: end step->items[0].id, the last in order that
     * decodes, and ask again. No step is under way. */
    SCHED_PICK_PREEMPT,
};

/* `pages_free`: how many pages decode rows may still take. */
enum sched_pick sched_pick(struct sched *sched, uint32_t pages_free, struct sched_step *step);

/* The step under way is over. Prompts advance (after the last row to PUSHING, of decode sequences
 * to WAITING_KV), sequences that decode gain one token. With `computed` false (the step was given
 * up) nothing advances. */
void sched_step_done(struct sched *sched, const struct sched_step *step, bool computed);

/* ---- views ---- */

enum sched_state sched_state(const struct sched *sched, struct sched_id id);
bool sched_in_step(const struct sched *sched, struct sched_id id);
uint32_t sched_tokens(const struct sched *sched, struct sched_id id);
uint32_t sched_computed(const struct sched *sched, struct sched_id id);

/* The nth in order that is QUEUED, of either kind; false if there are no more. */
bool sched_queued(const struct sched *sched, uint32_t nth, struct sched_id *out);

struct sched_counts {
    uint32_t states[SCHED_STATES]; /* sequences by state; [SCHED_NONE]: free slots */
    uint64_t tokens_to_compute;    /* of QUEUED, LOADING and PREFILL sequences that prefill */
};
void sched_counts(const struct sched *sched, struct sched_counts *out);

#endif
