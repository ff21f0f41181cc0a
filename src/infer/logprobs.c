/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/logprobs.c - see logprobs.h. Passes over the logits: the greatest one and the few
 * greatest ones, kept in order as they are met; those before the token; then the sum of
 * exponentials below the greatest. */
#include "infer/logprobs.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "infer/cpu/scalar.h"

struct top {
    uint32_t count, count_max;
    uint32_t tokens[LOGPROBS_TOP_MAX];
    float logits[LOGPROBS_TOP_MAX];
};

static uint32_t word_of(float value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof(word));
    return word;
}

float logprobs_value(uint32_t word)
{
    float value;
    memcpy(&value, &word, sizeof(value));
    return value;
}

static float or_least(float value)
{
    return value >= LOGPROBS_LEAST ? value : LOGPROBS_LEAST; /* for NaN too */
}

/* Tokens come in rising order, so equals stay behind. */
static void consider(struct top *top, uint32_t token, float logit)
{
    uint32_t at = top->count;

    if (at == top->count_max) {
        if (at == 0 || !(logit > top->logits[at - 1])) return;
        at--;
    } else {
        top->count++;
    }
    for (; at > 0 && logit > top->logits[at - 1]; at--) {
        top->tokens[at] = top->tokens[at - 1];
        top->logits[at] = top->logits[at - 1];
    }
    top->tokens[at] = token;
    top->logits[at] = logit;
}

static float or_impossible(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

/* Is it likelier than `token`? */
static bool goes_before(const float *logits, uint32_t other, uint32_t token)
{
    const float a = or_impossible(logits[other]), b = or_impossible(logits[token]);
    return a > b || (a == b && other < token);
}

/* The log of the sum of exponentials. */
static float log_sum(const float *logits, uint32_t vocab_size, float most)
{
    double sum = 0;

    for (uint32_t i = 0; i < vocab_size; i++) {
        const float weight = scalar_exp(logits[i] - most);
        if (weight > 0.0f) sum += (double)weight;
    }
    return most + (float)log(sum);
}

uint32_t logprobs_row(const float *logits, uint32_t vocab_size, uint32_t token, uint32_t top_max,
                      uint32_t row[LOGPROBS_WORDS_MAX])
{
    struct top top = { .count_max = top_max < vocab_size ? top_max : vocab_size };
    float most = -INFINITY;

    ASSERT(token < vocab_size && top_max <= LOGPROBS_TOP_MAX);
    for (uint32_t i = 0; i < vocab_size; i++) {
        const float logit = or_impossible(logits[i]);
        if (logit > most) most = logit;
        consider(&top, i, logit);
    }
    row[1] = 1;
    for (uint32_t i = 0; i < vocab_size; i++)
        row[1] += goes_before(logits, i, token);
    const float all = log_sum(logits, vocab_size, most); /* NaN where no logit is finite */
    row[0] = word_of(or_least(logits[token] - all));
    for (uint32_t i = 0; i < top.count; i++) {
        row[LOGPROBS_HEAD_WORDS + 2 * i] = top.tokens[i];
        row[LOGPROBS_HEAD_WORDS + 2 * i + 1] = word_of(or_least(top.logits[i] - all));
    }
    return LOGPROBS_HEAD_WORDS + 2 * top.count;
}

uint32_t logprobs_row_certain(uint32_t token, uint32_t top, uint32_t row[LOGPROBS_WORDS_MAX])
{
    row[0] = word_of(0);
    row[1] = 1;
    if (top == 0) return LOGPROBS_HEAD_WORDS;
    row[LOGPROBS_HEAD_WORDS] = token;
    row[LOGPROBS_HEAD_WORDS + 1] = word_of(0);
    return LOGPROBS_HEAD_WORDS + 2;
}
