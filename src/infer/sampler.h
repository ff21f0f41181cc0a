/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/sampler.h - the next token from a row of logits; pure.
 *
 * The draw for generated token i of an answer uses rng_counter(seed, i) and nothing else, so that
 * an answer continued on another node, or replayed, draws exactly the same tokens: there is no
 * sampler state to hand over beyond (seed, i).
 *
 * Limits: logits that are NaN count as minus infinity. If no logit is finite, the answer is token
 * 0: a broken model must not end the process. */
#ifndef INFER_SAMPLER_H
#define INFER_SAMPLER_H

#include <stdint.h>

#include "base/status.h"

struct sampler; /* opaque scratch for one vocabulary; owned by one thread */

struct sampling {
    float temperature; /* 0 or less: greedy */
    float top_p; /* 1 or more: off; otherwise the smallest set with at least this probability */
    uint64_t seed;
};

MUST_USE enum status sampler_create(uint32_t vocab_size, struct sampler **out);
void sampler_destroy(struct sampler *sampler); /* NULL is allowed */

/* The greatest logit; the lowest id among equals. */
uint32_t sampler_greedy(const float *logits, uint32_t vocab_size);

/* `index` counts generated tokens in the whole answer from 0. `logits` has vocab_size entries. */
uint32_t sampler_next(struct sampler *sampler, const struct sampling *sampling, const float *logits,
                      uint64_t index);

#endif
