/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/sampler.c - greedy and nucleus sampling.
 *
 * Nucleus: probabilities exp((logit - max) / temperature) are summed in double over the candidates
 * in order of falling logit (rising id among equals), until their share of the whole reaches top_p;
 * the random number picks within that sum. Only candidates that could matter are sorted: a heap
 * gives them up one by one, which for usual top_p is a few hundred of a vocabulary. */
#include "infer/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/rng.h"
#include "infer/cpu/scalar.h"

struct sampler {
    uint32_t vocab_size;
    uint32_t count; /* of the heap */
    uint32_t *heap; /* token ids, likeliest on top */
    float *weights; /* by token id, not normalised */
};

enum status sampler_create(uint32_t vocab_size, struct sampler **out)
{
    ASSERT(vocab_size > 0);
    struct sampler *sampler = calloc(1, sizeof(*sampler));
    if (sampler == NULL) return STATUS_NO_MEMORY;
    sampler->vocab_size = vocab_size;
    sampler->heap = calloc(vocab_size, sizeof(*sampler->heap));
    sampler->weights = calloc(vocab_size, sizeof(*sampler->weights));
    if (sampler->heap == NULL || sampler->weights == NULL) {
        sampler_destroy(sampler);
        return STATUS_NO_MEMORY;
    }
    *out = sampler;
    return STATUS_OK;
}

void sampler_destroy(struct sampler *sampler)
{
    if (sampler == NULL) return;
    free(sampler->heap);
    free(sampler->weights);
    free(sampler);
}

uint32_t sampler_greedy(const float *logits, uint32_t vocab_size)
{
    uint32_t best = 0;
    float most = -INFINITY;

    for (uint32_t i = 0; i < vocab_size; i++) {
        if (!(logits[i] > most)) continue; /* false for NaN too */
        most = logits[i];
        best = i;
    }
    return best;
}

static bool comes_before(const struct sampler *sampler, uint32_t a, uint32_t b)
{
    if (sampler->weights[a] != sampler->weights[b])
        return sampler->weights[a] > sampler->weights[b];
    return a < b;
}

static void sift_down(struct sampler *sampler, uint32_t at)
{
    const uint32_t id = sampler->heap[at];

    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= sampler->count) break;
        if (child + 1 < sampler->count &&
            comes_before(sampler, sampler->heap[child + 1], sampler->heap[child])) {
            child++;
        }
        if (!comes_before(sampler, sampler->heap[child], id)) break;
        sampler->heap[at] = sampler->heap[child];
        at = child;
    }
    sampler->heap[at] = id;
}

static uint32_t pop(struct sampler *sampler)
{
    ASSERT(sampler->count > 0);
    const uint32_t id = sampler->heap[0];
    sampler->heap[0] = sampler->heap[--sampler->count];
    if (sampler->count > 0) sift_down(sampler, 0);
    return id;
}

/* Fills weights and the heap with every token of weight above zero; returns their sum. */
static double weigh(struct sampler *sampler, const float *logits, float most, float temperature)
{
    double total = 0;

    sampler->count = 0;
    for (uint32_t i = 0; i < sampler->vocab_size; i++) {
        const float weight = scalar_exp((logits[i] - most) / temperature);
        if (!(weight > 0.0f)) continue;
        sampler->weights[i] = weight;
        sampler->heap[sampler->count++] = i;
        total += (double)weight;
    }
    return total;
}

/* Without a nucleus no order is needed: token ids as they come. */
static uint32_t pick_any(const struct sampler *sampler, double target)
{
    uint32_t id = sampler->heap[0];

    for (uint32_t i = 0; i < sampler->count; i++) {
        id = sampler->heap[i];
        target -= (double)sampler->weights[id];
        if (target < 0) break;
    }
    return id;
}

/* The nucleus is the shortest run of likeliest tokens whose weights reach `enough`. They are moved
 * to the tail of the heap's array as they are popped: last popped first. */
static uint32_t pick_nucleus(struct sampler *sampler, double enough, double unit)
{
    const uint32_t all = sampler->count;
    double sum = 0;

    for (uint32_t i = all / 2; i-- > 0;)
        sift_down(sampler, i);
    while (sampler->count > 0 && (sum < enough || sampler->count == all)) {
        const uint32_t id = pop(sampler);
        sampler->heap[sampler->count] = id;
        sum += (double)sampler->weights[id];
    }
    double target = unit * sum;
    uint32_t at = all - 1;
    for (; at > sampler->count; at--) {
        target -= (double)sampler->weights[sampler->heap[at]];
        if (target < 0) break;
    }
    return sampler->heap[at];
}

uint32_t sampler_next(struct sampler *sampler, const struct sampling *sampling, const float *logits,
                      uint64_t index)
{
    const uint32_t best = sampler_greedy(logits, sampler->vocab_size);

    if (!(sampling->temperature > 0.0f)) return best;
    if (!isfinite(logits[best])) return best;
    const double total = weigh(sampler, logits, logits[best], sampling->temperature);
    const double unit = rng_unit_of(rng_counter(sampling->seed, index));
    if (sampler->count == 0) return best;
    if (!(sampling->top_p < 1.0f)) return pick_any(sampler, unit * total);
    return pick_nucleus(sampler, (double)sampling->top_p * total, unit);
}
