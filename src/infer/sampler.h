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

struct grammar_matcher;
struct sampler; /* opaque scratch for one vocabulary; owned by one thread */

/* All zero with top_p 1 is greedy. In this order:
 *   biases         added to their logits
 *   held           tokens that may not come before index held_until: minus infinity
 *   repetition     logits of tokens seen in prompt or answer: divided by it, or multiplied if
 *                  negative
 *   frequency      times how often the token is in the answer, subtracted
 *   presence       subtracted if it is there at all
 *   matcher        tokens that the form of the answer does not allow are out
 *   temperature
 *   min_p          tokens below this share of the likeliest one's probability are out
 *   top_k          all but the likeliest so many are out
 *   top_p          the smallest set of the rest with at least this share of its probability
 * What is borrowed lives as long as the call. */
struct sampling {
    float temperature; /* 0 or less: greedy */
    float top_p;       /* 1 or more: off */
    float min_p;       /* 0: off */
    uint32_t top_k;    /* 0: off */
    float repetition;  /* 0 or 1: off */
    float frequency, presence;
    uint64_t seed;
    const uint32_t *bias_tokens; /* borrowed; those outside the vocabulary do nothing */
    const float *biases;
    uint32_t biases_count;
    const uint32_t *held; /* borrowed */
    uint32_t held_count;
    uint64_t held_until;
    struct grammar_matcher *matcher; /* NULL: any token; it follows the answer (infer/grammar.h) */
};

/* The tokens of prompt and answer so far: the last `index` of them are the answer. Looked at only
 * for penalties. */
struct sampler_past {
    const uint32_t *tokens;
    uint32_t count;
};

MUST_USE enum status sampler_create(uint32_t vocab_size, struct sampler **out);
void sampler_destroy(struct sampler *sampler); /* NULL is allowed */

/* The greatest logit; the lowest id among equals. */
uint32_t sampler_greedy(const float *logits, uint32_t vocab_size);

/* `index` counts generated tokens in the whole answer from 0. `logits` has vocab_size entries. */
uint32_t sampler_next(struct sampler *sampler, const struct sampling *sampling,
                      struct sampler_past past, const float *logits, uint64_t index);

#endif
