/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/logprobs.h - how likely the model found a token, and which ones it found likeliest; pure.
 *
 * Of the logits as the model gave them: before biases, penalties, temperature and the rest of what
 * the sampler does to them, so that a token that was forced shows how unlikely it was. The sum over
 * the vocabulary has one order, so that rows of equal logits are bitwise equal.
 *
 * A row is made of words, to be sent as it is:
 *
 *     log probability of the token | its rank | token | log probability | token | ...
 *
 * pairs likeliest first, of equals the lowest token first; the rank of a token is its place in that
 * order, from 1. Probabilities are floats by their bits.
 *
 * Limits: LOGPROBS_TOP_MAX pairs. What is impossible, or NaN, has LOGPROBS_LEAST. */
#ifndef INFER_LOGPROBS_H
#define INFER_LOGPROBS_H

#include <stdint.h>

enum {
    LOGPROBS_TOP_MAX = 20,
    LOGPROBS_HEAD_WORDS = 2, /* in front of the pairs */
    LOGPROBS_WORDS_MAX = LOGPROBS_HEAD_WORDS + 2 * LOGPROBS_TOP_MAX,
};
#define LOGPROBS_LEAST (-9999.0f) /* JSON has no infinity */

/* Writes the row of `token`, below vocab_size, with `top` pairs, or as many as there are tokens;
 * returns its length in words. */
uint32_t logprobs_row(const float *logits, uint32_t vocab_size, uint32_t token, uint32_t top,
                      uint32_t row[LOGPROBS_WORDS_MAX]);

/* The row of a token that was certain. */
uint32_t logprobs_row_certain(uint32_t token, uint32_t top, uint32_t row[LOGPROBS_WORDS_MAX]);

float logprobs_value(uint32_t word);

#endif
