/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/sampler_test.c
 *
 * Goal:   the right token, the same one for the same (seed, index), and no way to break it.
 * Method: hand-made logits for the rules; for the distribution, counts of many draws against the
 *         probabilities computed here. SEED=n replays. */
#include "infer/sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdbool.h>

#include "base/rng.h"
#include "seed.h"

enum { VOCAB = 50, DRAWS = 40000 };

#define NOTHING ((struct sampler_past){ NULL, 0 })

static uint64_t seed;

static struct sampler *sampler_new(void)
{
    struct sampler *sampler = NULL;
    assert_int_equal(sampler_create(VOCAB, &sampler), STATUS_OK);
    return sampler;
}

static void fill(float *logits, float value)
{
    for (int i = 0; i < VOCAB; i++)
        logits[i] = value;
}

static void greedy_takes_the_lowest_of_equals(void **state)
{
    float logits[VOCAB];

    (void)state;
    fill(logits, -3.0f);
    assert_int_equal(sampler_greedy(logits, VOCAB), 0);
    logits[7] = logits[9] = 1.5f;
    assert_int_equal(sampler_greedy(logits, VOCAB), 7);
    logits[3] = NAN;
    assert_int_equal(sampler_greedy(logits, VOCAB), 7);
    logits[49] = INFINITY;
    assert_int_equal(sampler_greedy(logits, VOCAB), 49);
}

static void broken_logits_give_a_token(void **state)
{
    static const float values[] = { NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 3e38f };
    static const float knobs[] = { NAN, -1.0f, 0.0f, 1e-30f, 0.5f, 1.0f, 1e30f };
    struct sampler *sampler = sampler_new();
    float logits[VOCAB];
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (int round = 0; round < 2000; round++) {
        for (int i = 0; i < VOCAB; i++)
            logits[i] = values[rng_below(&rng, 6)];
        if (round % 6 == 0) fill(logits, values[round / 6 % 6]);
        const struct sampling sampling = { .temperature = knobs[rng_below(&rng, 7)],
                                           .top_p = knobs[rng_below(&rng, 7)],
                                           .min_p = knobs[rng_below(&rng, 7)],
                                           .top_k = (uint32_t)rng_below(&rng, 3),
                                           .repetition = knobs[rng_below(&rng, 7)],
                                           .frequency = knobs[rng_below(&rng, 7)],
                                           .presence = knobs[rng_below(&rng, 7)],
                                           .seed = rng_u64(&rng) };
        const uint32_t tokens[] = { 3, UINT32_MAX, 3, VOCAB };
        assert_true(sampler_next(sampler, &sampling, (struct sampler_past){ tokens, 4 }, logits,
                                 rng_below(&rng, 6)) < VOCAB);
    }
    fill(logits, NAN);
    assert_int_equal(sampler_greedy(logits, VOCAB), 0);
    sampler_destroy(sampler);
}

static void zero_temperature_and_tiny_nucleus_are_greedy(void **state)
{
    struct sampler *sampler = sampler_new();
    float logits[VOCAB];
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (uint64_t index = 0; index < 200; index++) {
        for (int i = 0; i < VOCAB; i++)
            logits[i] = (float)rng_below(&rng, 20); /* with ties */
        const uint32_t best = sampler_greedy(logits, VOCAB);
        const struct sampling cold = { .temperature = 0.0f, .top_p = 1.0f, .seed = seed };
        const struct sampling narrow = { .temperature = 2.0f, .top_p = 0.0f, .seed = seed };
        assert_int_equal(sampler_next(sampler, &cold, NOTHING, logits, index), best);
        assert_int_equal(sampler_next(sampler, &narrow, NOTHING, logits, index), best);
    }
    sampler_destroy(sampler);
}

static void same_seed_and_index_same_token(void **state)
{
    struct sampler *a = sampler_new(), *b = sampler_new();
    float logits[VOCAB];
    uint32_t differ = 0;

    (void)state;
    for (int i = 0; i < VOCAB; i++)
        logits[i] = (float)(i % 5);
    for (uint64_t index = 0; index < 200; index++) {
        const struct sampling one = { .temperature = 1.0f, .top_p = 0.9f, .seed = seed };
        const struct sampling other = { .temperature = 1.0f, .top_p = 0.9f, .seed = seed + 1 };
        const uint32_t token = sampler_next(a, &one, NOTHING, logits, index);
        /* Another sampler, which has drawn other things before. */
        const uint32_t third = sampler_next(b, &other, NOTHING, logits, index);
        assert_int_equal(sampler_next(b, &one, NOTHING, logits, index), token);
        differ += third != token;
    }
    assert_true(differ > 100);
    sampler_destroy(a);
    sampler_destroy(b);
}

/* ---- against the definition ---- */

enum { PAST = 12, BIASES = 3, HELD = 2 };

struct wish {
    struct sampling sampling;
    uint32_t bias_tokens[BIASES], held[HELD], past[PAST];
    float biases[BIASES];
    uint64_t index;
};

static void adjusted(const float *logits, const struct wish *wish, double *out)
{
    const struct sampling *s = &wish->sampling;

    for (uint32_t i = 0; i < VOCAB; i++) {
        uint32_t times = 0, anywhere = 0;
        out[i] = (double)logits[i];
        for (uint32_t k = 0; k < s->biases_count; k++)
            out[i] += wish->bias_tokens[k] == i ? (double)wish->biases[k] : 0;
        for (uint32_t k = 0; k < PAST; k++) {
            anywhere += wish->past[k] == i;
            times += wish->past[k] == i && k >= PAST - wish->index;
        }
        if (anywhere > 0 && s->repetition != 0)
            out[i] = out[i] > 0 ? out[i] / (double)s->repetition : out[i] * (double)s->repetition;
        out[i] -= (double)s->frequency * times + (times > 0 ? (double)s->presence : 0);
        for (uint32_t k = 0; k < s->held_count && wish->index < s->held_until; k++)
            if (wish->held[k] == i) out[i] = -INFINITY;
    }
}

/* By repeated search for the next best. */
static void expected_probabilities(const float *logits, const struct wish *wish, double *p)
{
    const struct sampling *s = &wish->sampling;
    double all[VOCAB], total = 0, kept = 0, most = 0;
    int order[VOCAB], count = 0;

    adjusted(logits, wish, all);
    for (int i = 0; i < VOCAB; i++) {
        p[i] = 0;
        all[i] = exp(all[i] / (double)s->temperature);
        most = fmax(most, all[i]);
    }
    while (count < VOCAB && (s->top_k == 0 || count < (int)s->top_k)) {
        int best = -1;
        for (int i = 0; i < VOCAB; i++) {
            bool taken = all[i] == 0 || all[i] < (double)s->min_p * most;
            for (int k = 0; k < count; k++)
                taken |= order[k] == i;
            if (!taken && (best < 0 || all[i] > all[best])) best = i;
        }
        if (best < 0) break;
        order[count++] = best;
        total += all[best];
    }
    for (int k = 0; k < count && (k == 0 || kept < (double)s->top_p * total); k++) {
        p[order[k]] = all[order[k]];
        kept += all[order[k]];
    }
    for (int i = 0; i < VOCAB; i++)
        p[i] /= kept;
}

static void check_distribution(const float *logits, struct wish *wish)
{
    struct sampler *sampler = sampler_new();
    const struct sampler_past past = { wish->past, PAST };
    const uint64_t first = wish->sampling.seed;
    uint32_t counts[VOCAB] = { 0 };
    double p[VOCAB];

    expected_probabilities(logits, wish, p);
    for (uint64_t i = 0; i < DRAWS; i++) {
        wish->sampling.seed = first + i;
        counts[sampler_next(sampler, &wish->sampling, past, logits, wish->index)]++;
    }
    for (int i = 0; i < VOCAB; i++) {
        const double sigma = sqrt(p[i] * (1 - p[i]) / DRAWS);
        assert_true(fabs((double)counts[i] / DRAWS - p[i]) <= 5 * sigma);
    }
    sampler_destroy(sampler);
}

static void draws_follow_the_distribution(void **state)
{
    static const float top_p[] = { 1.0f, 0.95f, 0.6f, 0.2f };
    float logits[VOCAB];
    struct rng rng;

    (void)state;
    rng_init(&rng, seed);
    for (int round = 0; round < 24; round++) {
        struct wish wish = { .sampling = { .temperature = round % 8 < 4 ? 1.0f : 0.6f,
                                           .top_p = top_p[round % 4],
                                           .seed = rng_u64(&rng) } };
        struct sampling *s = &wish.sampling;
        for (int i = 0; i < VOCAB; i++)
            logits[i] = (float)(rng_unit(&rng) * 4.0 - 1.0);
        for (int i = 0; i < PAST; i++)
            wish.past[i] = (uint32_t)rng_below(&rng, VOCAB);
        wish.index = rng_below(&rng, PAST + 1);
        if (round >= 8) { /* at first the plain ones */
            s->min_p = rng_below(&rng, 2) ? (float)rng_unit(&rng) / 4 : 0;
            s->top_k = rng_below(&rng, 2) ? 1 + (uint32_t)rng_below(&rng, VOCAB) : 0;
            s->repetition = rng_below(&rng, 2) ? 0.5f + (float)rng_unit(&rng) : 0;
            s->frequency = rng_below(&rng, 2) ? (float)rng_unit(&rng) - 0.5f : 0;
            s->presence = rng_below(&rng, 2) ? (float)rng_unit(&rng) - 0.5f : 0;
            s->biases_count = (uint32_t)rng_below(&rng, BIASES + 1);
            s->held_count = (uint32_t)rng_below(&rng, HELD + 1);
            s->held_until = rng_below(&rng, PAST + 1);
        }
        for (int i = 0; i < BIASES; i++) {
            wish.bias_tokens[i] = (uint32_t)rng_below(&rng, VOCAB);
            wish.biases[i] = (float)rng_unit(&rng) * 4 - 2;
        }
        for (int i = 0; i < HELD; i++)
            wish.held[i] = (uint32_t)rng_below(&rng, VOCAB);
        s->bias_tokens = wish.bias_tokens;
        s->biases = wish.biases;
        s->held = wish.held;
        check_distribution(logits, &wish);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(broken_logits_give_a_token),
        cmocka_unit_test(zero_temperature_and_tiny_nucleus_are_greedy),
        cmocka_unit_test(same_seed_and_index_same_token),
        cmocka_unit_test(draws_follow_the_distribution),
    };

    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
