/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/sampler.c - what a request wants of its logits, and then greedy or a draw.
 *
 * Nucleus: probabilities exp((logit - max) / temperature) are summed in double over the candidates
 * in order of falling logit (rising id among equals), until their share of the whole reaches top_p;
 * the random number picks within that sum. Only candidates that could matter are sorted: a heap
 * gives them up one by one, which for usual top_p is a few hundred of a vocabulary.
 *
 * A request without biases, held tokens and penalties pays for none: its logits are not copied. */
#include "infer/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/rng.h"
#include "infer/cpu/scalar.h"
#include "infer/grammar.h"

struct sampler {
    uint32_t vocab_size;
    uint32_t count; /* of the heap */
    uint32_t *heap; /* token ids, likeliest on top */
    float *weights; /* by token id, not normalised */
    float *logits;  /* a copy that may be changed */
    uint32_t *seen; /* by token id: SEEN and how often in the answer; all 0 between calls */
};

static const uint32_t SEEN = UINT32_C(1) << 31;

enum status sampler_create(uint32_t vocab_size, struct sampler **out)
{
    ASSERT(vocab_size > 0);
    struct sampler *sampler = calloc(1, sizeof(*sampler));
    if (sampler == NULL) return STATUS_NO_MEMORY;
    sampler->vocab_size = vocab_size;
    sampler->heap = calloc(vocab_size, sizeof(*sampler->heap));
    sampler->weights = calloc(vocab_size, sizeof(*sampler->weights));
    sampler->logits = calloc(vocab_size, sizeof(*sampler->logits));
    sampler->seen = calloc(vocab_size, sizeof(*sampler->seen));
    if (sampler->heap == NULL || sampler->weights == NULL || sampler->logits == NULL ||
        sampler->seen == NULL) {
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
    free(sampler->logits);
    free(sampler->seen);
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

/* ---- what is done to logits ---- */

static bool penalizes(const struct sampling *sampling)
{
    const bool repetition = sampling->repetition != 0.0f && sampling->repetition != 1.0f;
    return repetition || sampling->frequency != 0.0f || sampling->presence != 0.0f;
}

static void penalize_token(const struct sampling *sampling, float *logit, uint32_t times)
{
    const float repetition = sampling->repetition != 0.0f ? sampling->repetition : 1.0f;

    *logit = *logit > 0.0f ? *logit / repetition : *logit * repetition;
    *logit -= sampling->frequency * (float)times;
    if (times > 0) *logit -= sampling->presence;
}

/* Twice over the past: to count, and to take back what was counted. */
static void penalize(struct sampler *sampler, const struct sampling *sampling,
                     struct sampler_past past, uint64_t index)
{
    for (uint32_t i = 0; i < past.count; i++) {
        const uint32_t token = past.tokens[i];
        if (token >= sampler->vocab_size) continue;
        sampler->seen[token] |= SEEN;
        if (past.count - i <= index) sampler->seen[token]++;
    }
    for (uint32_t i = 0; i < past.count; i++) {
        const uint32_t token = past.tokens[i];
        if (token >= sampler->vocab_size || sampler->seen[token] == 0) continue;
        penalize_token(sampling, &sampler->logits[token], sampler->seen[token] & ~SEEN);
        sampler->seen[token] = 0;
    }
}

/* The logits as the request wants them: those given, or a copy. */
static const float *adjust(struct sampler *sampler, const struct sampling *sampling,
                           struct sampler_past past, const float *logits, uint64_t index)
{
    const uint32_t held = index < sampling->held_until ? sampling->held_count : 0;

    if (sampling->biases_count == 0 && held == 0 && !penalizes(sampling)) return logits;
    memcpy(sampler->logits, logits, sampler->vocab_size * sizeof(*logits));
    for (uint32_t i = 0; i < sampling->biases_count; i++) {
        const uint32_t token = sampling->bias_tokens[i];
        if (token < sampler->vocab_size) sampler->logits[token] += sampling->biases[i];
    }
    for (uint32_t i = 0; i < held; i++) {
        if (sampling->held[i] < sampler->vocab_size) sampler->logits[sampling->held[i]] = -INFINITY;
    }
    if (penalizes(sampling)) penalize(sampler, sampling, past, index);
    return sampler->logits;
}

/* ---- the form of the answer ---- */

static bool has_bit(const uint64_t *mask, uint32_t token)
{
    return (mask[token / 64] >> (token % 64) & 1) != 0;
}

/* Logits of what is not allowed become minus infinity. */
static void restrict_to(struct sampler *sampler, const uint64_t *mask)
{
    for (uint32_t i = 0; i < sampler->vocab_size; i++) {
        if (!has_bit(mask, i)) sampler->logits[i] = -INFINITY;
    }
}

/* For a model that gives nothing finite to what is allowed. */
static uint32_t first_allowed(const struct sampler *sampler, const uint64_t *mask)
{
    uint32_t token = 0;

    while (token + 1 < sampler->vocab_size && !has_bit(mask, token))
        token++;
    return token;
}

/* ---- the draw ---- */

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

/* Fills weights and the heap with every token of weight above zero, and at least `least`, where the
 * likeliest has 1; returns their sum. */
static double weigh(struct sampler *sampler, const float *logits, float most, float temperature,
                    float least)
{
    double total = 0;

    sampler->count = 0;
    for (uint32_t i = 0; i < sampler->vocab_size; i++) {
        const float weight = scalar_exp((logits[i] - most) / temperature);
        if (!(weight > 0.0f) || weight < least) continue;
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

/* The next likeliest token moves to the tail of the heap's array: last popped first. Returns its
 * weight. */
static double take_likeliest(struct sampler *sampler)
{
    const uint32_t id = pop(sampler);
    sampler->heap[sampler->count] = id;
    return (double)sampler->weights[id];
}

/* Among the `top_k` likeliest (0: all, whose weights are `total`), from the shortest run of
 * likeliest ones that has top_p of their weight. */
static uint32_t pick_likely(struct sampler *sampler, uint32_t top_k, double top_p, double total,
                            double unit)
{
    const uint32_t all = sampler->count;
    const uint32_t limit = top_k != 0 && top_k < all ? top_k : all;
    double sum = 0;

    for (uint32_t i = all / 2; i-- > 0;)
        sift_down(sampler, i);
    if (limit < all) {
        total = 0;
        while (all - sampler->count < limit)
            total += take_likeliest(sampler);
    }
    uint32_t count = 0; /* of the run */
    do {
        const uint32_t at = all - 1 - count;
        sum += at < sampler->count ? take_likeliest(sampler)
                                   : (double)sampler->weights[sampler->heap[at]];
        count++;
    } while (count < limit && sum < top_p * total);
    double target = unit * sum;
    uint32_t at = all - 1;
    for (; at > all - count; at--) {
        target -= (double)sampler->weights[sampler->heap[at]];
        if (target < 0) break;
    }
    return sampler->heap[at];
}

static uint32_t draw(struct sampler *sampler, const struct sampling *sampling, const float *logits,
                     uint32_t best, uint64_t index)
{
    if (!(sampling->temperature > 0.0f)) return best;
    if (!isfinite(logits[best])) return best;
    const double total =
        weigh(sampler, logits, logits[best], sampling->temperature, sampling->min_p);
    const double unit = rng_unit_of(rng_counter(sampling->seed, index));
    if (sampler->count == 0) return best;
    if (!(sampling->top_p < 1.0f) && sampling->top_k == 0) return pick_any(sampler, unit * total);
    const double top_p = sampling->top_p < 1.0f ? (double)sampling->top_p : 1;
    return pick_likely(sampler, sampling->top_k, top_p, total, unit);
}

uint32_t sampler_next(struct sampler *sampler, const struct sampling *sampling,
                      struct sampler_past past, const float *given, uint64_t index)
{
    const float *logits = adjust(sampler, sampling, past, given, index);
    uint32_t best = sampler_greedy(logits, sampler->vocab_size);

    if (sampling->matcher != NULL) {
        ASSERT(index <= past.count);
        grammar_matcher_follow(sampling->matcher, past.tokens + (past.count - index), index);
        /* Mostly the model wants what is allowed: then nothing else needs to be known. */
        const bool greedy = !(sampling->temperature > 0.0f);
        if (greedy && grammar_matcher_allows(sampling->matcher, best)) return best;
        const uint64_t *mask = grammar_matcher_mask(sampling->matcher);
        if (logits != sampler->logits)
            memcpy(sampler->logits, logits, sampler->vocab_size * sizeof(*logits));
        restrict_to(sampler, mask);
        logits = sampler->logits;
        best = sampler_greedy(logits, sampler->vocab_size);
        if (!isfinite(logits[best])) return first_allowed(sampler, mask);
    }
    return draw(sampler, sampling, logits, best, index);
}
