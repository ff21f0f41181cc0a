/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/logprobs.c - see logprobs.h. Two passes over the logits: the greatest one and the few
 * greatest ones, kept in order as they are met; then the sum of exponentials below the greatest. */
#include "infer/logprobs.h"

#include <math.h>
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
        const float logit = isnan(logits[i]) ? -INFINITY : logits[i];
        if (logit > most) most = logit;
        consider(&top, i, logit);
    }
    const float all = log_sum(logits, vocab_size, most); /* NaN where no logit is finite */
    row[0] = word_of(or_least(logits[token] - all));
    for (uint32_t i = 0; i < top.count; i++) {
        row[1 + 2 * i] = top.tokens[i];
        row[2 + 2 * i] = word_of(or_least(top.logits[i] - all));
    }
    return 1 + 2 * top.count;
}

uint32_t logprobs_row_certain(uint32_t token, uint32_t top, uint32_t row[LOGPROBS_WORDS_MAX])
{
    row[0] = word_of(0);
    if (top == 0) return 1;
    row[1] = token;
    row[2] = word_of(0);
    return 3;
}
