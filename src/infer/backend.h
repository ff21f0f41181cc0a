/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/backend.h - what turns new tokens into KV and next tokens: the seam between those who
 * schedule (serve/runner.h, serve/solo.h) and those who compute.
 *
 * Two backends stand behind it. The builtin one is infer/engine.h with infer/sampler.h: it runs the
 * model. The timed one is infer/timed.h: it takes the time that a modelled machine would take, so
 * that a large cluster fits on a small machine. A backend is chosen once, when it is created; the
 * cost of the seam is one indirect call a step.
 *
 * Every backend keeps what infer/engine.h promises: pages of equal size with one contiguous range a
 * layer, hooks around every layer, and row invariance: KV and tokens depend on the tokens before
 * and on nothing else. Layouts of different backends have different ids and ISA names, so that
 * their blocks never meet.
 *
 * Memory, threads and limits: as infer/engine.h. */
#ifndef INFER_BACKEND_H
#define INFER_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "infer/engine.h"
#include "infer/logprobs.h"
#include "infer/sampler.h"

struct backend; /* opaque */
struct model;
struct timed_options;

struct backend_options {
    struct engine_options engine;
    const struct timed_options *timed; /* the modelled machine; NULL: compute. Borrowed */
};

/* As engine_layout_query(); STATUS_INVALID also for a type of KV on the modelled machine. */
MUST_USE enum status backend_layout_query(const struct model *model,
                                          const struct backend_options *options,
                                          struct engine_layout *out, struct errmsg *err);

/* As engine_create(). */
MUST_USE enum status backend_create(const struct model *model,
                                    const struct backend_options *options, struct backend **out,
                                    struct errmsg *err);
void backend_destroy(struct backend *backend); /* NULL is allowed */

const struct engine_layout *backend_layout(const struct backend *backend);

/* How likely tokens of a prompt were: rows of infer/logprobs.h, one behind the other, all of one
 * length. Row k is that of targets[k], which comes behind token k of the item. */
struct backend_score {
    const uint32_t *targets;
    uint32_t count; /* at most the item's tokens; 0: none are wanted */
    uint32_t top;   /* pairs of each */
    uint32_t *rows; /* out: room for count * (1 + 2 * top) words, */
    uint32_t words; /* out: of which so many are used */
};

/* New tokens of one sequence, as in struct engine_item, and whether another one is wanted. */
struct backend_item {
    const uint32_t *pages;
    uint32_t pages_count;
    uint32_t position;
    const uint32_t *tokens;
    uint32_t tokens_count;
    /* Part of a prompt, and the first part that is computed; otherwise a row of a decode batch.
     * It makes no difference to what is computed. */
    bool prefill, prefill_first;
    bool sample; /* the token after the last one */
    struct sampling sampling;
    struct sampler_past past; /* all tokens up to the last one of `tokens` */
    uint64_t sample_index;    /* of that token in the whole answer */
    uint32_t sampled;         /* out */
    uint32_t *row;            /* out, or NULL: its row of infer/logprobs.h, with */
    uint32_t row_top;         /* so many pairs; */
    uint32_t row_count;       /* out, its length */
    struct backend_score score;
};

/* As engine_step(); what is sampled is written with STATUS_OK only. */
MUST_USE enum status backend_step(struct backend *backend, struct backend_item *items,
                                  uint32_t items_count, const struct engine_hooks *hooks);

/* As engine_step_part(): rows of backend_hidden_size() floats; an item may ask for a sample only of
 * the part that has the last layer. */
MUST_USE enum status backend_step_part(struct backend *backend, struct backend_item *items,
                                       uint32_t items_count, const struct engine_part *part,
                                       const struct engine_hooks *hooks);

/* Floats of a row between two parts. `timed` as in the options. */
uint32_t backend_hidden_size(const struct model *model, const struct timed_options *timed);

#endif
