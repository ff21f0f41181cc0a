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

#include "base/rng.h"
#include "seed.h"

enum { VOCAB = 50, DRAWS = 40000 };

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
                                           .seed = rng_u64(&rng) };
        assert_true(sampler_next(sampler, &sampling, logits, rng_u64(&rng)) < VOCAB);
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
        assert_int_equal(sampler_next(sampler, &cold, logits, index), best);
        assert_int_equal(sampler_next(sampler, &narrow, logits, index), best);
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
        const uint32_t token = sampler_next(a, &one, logits, index);
        /* Another sampler, which has drawn other things before. */
        const uint32_t third = sampler_next(b, &other, logits, index);
        assert_int_equal(sampler_next(b, &one, logits, index), token);
        differ += third != token;
    }
    assert_true(differ > 100);
    sampler_destroy(a);
    sampler_destroy(b);
}

/* Probabilities after temperature and nucleus, computed by repeated search for the next best. */
static void expected_probabilities(const float *logits, const struct sampling *s, double *p)
{
    double all[VOCAB], total = 0, kept = 0;

    for (int i = 0; i < VOCAB; i++) {
        p[i] = 0;
        all[i] = exp((double)logits[i] / (double)s->temperature);
        total += all[i];
    }
    while (kept < (double)s->top_p * total) {
        int best = -1;
        for (int i = 0; i < VOCAB; i++) {
            if (p[i] == 0 && (best < 0 || all[i] > all[best])) best = i;
        }
        if (best < 0) break;
        p[best] = all[best];
        kept += all[best];
    }
    for (int i = 0; i < VOCAB; i++)
        p[i] /= kept;
}

static void check_distribution(const float *logits, const struct sampling *sampling)
{
    struct sampler *sampler = sampler_new();
    uint32_t counts[VOCAB] = { 0 };
    double p[VOCAB];

    for (uint64_t i = 0; i < DRAWS; i++)
        counts[sampler_next(sampler, sampling, logits, i)]++;
    expected_probabilities(logits, sampling, p);
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
    for (int round = 0; round < 8; round++) {
        for (int i = 0; i < VOCAB; i++)
            logits[i] = (float)(rng_unit(&rng) * 4.0);
        const struct sampling sampling = { .temperature = round < 4 ? 1.0f : 0.6f,
                                           .top_p = top_p[round % 4],
                                           .seed = rng_u64(&rng) };
        check_distribution(logits, &sampling);
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
