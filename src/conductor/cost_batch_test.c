/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/cost_batch_test.c
 *
 * Goal:   what a fit has learned sample by sample is the least-squares answer over all samples, and
 *         the spread it reports is that of its own predictions; no sample that is no number, in no
 *         argument of any kind, changes anything.
 * Method: all samples are kept. The answer is not computed a second time but judged: a convex
 *         problem with c >= 0 is solved exactly by the c at which the gradient, summed from the
 *         samples, is zero where c > 0 and not negative where c = 0. Noise is strong, so that some
 *         coefficients are pushed against zero. SEED repeats a run. */
#include "conductor/cost.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/rng.h"

enum { SAMPLES = 400, ROUNDS = 12 };

/* As cost.c documents them. */
static const double FORGET = 0.995, RIDGE = 0.05, VARIANCE_DECAY = 0.95;

struct sample {
    double x[CONDUCTOR_FEATURES_MAX];
    double a, b, ms; /* as it was given */
};

static uint64_t seed_of_run(void)
{
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 3;
    printf("SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static struct sample draw(enum conductor_fit_kind kind, struct rng *rng)
{
    const double noise = 4 * rng_unit(rng) * rng_unit(rng);
    struct sample s = { .x = { 1 } };

    switch (kind) {
    case CONDUCTOR_FIT_PREFILL: {
        s.a = 1 + floor(rng_unit(rng) * 30000);
        s.b = rng_below(rng, 2) ? 0 : floor(rng_unit(rng) * s.a);
        const double n = s.a / 1024, p = s.b / 1024;
        s.x[1] = n - p;
        s.x[2] = n * n - p * p;
        s.x[3] = n;
        s.ms = (5 + 100 * (n - p) + 2 * (n * n - p * p)) * noise;
        break;
    }
    case CONDUCTOR_FIT_DECODE:
        s.a = 1 + (double)rng_below(rng, 60);
        s.b = s.a * (double)rng_below(rng, 4000);
        s.x[1] = s.a / 8;
        s.x[2] = s.b / 1024;
        s.ms = (20 + 0.5 * s.a) * noise;
        break;
    case CONDUCTOR_FIT_TRANSFER:
        s.a = (double)rng_below(rng, 1u << 30);
        s.x[1] = s.a / 1024 / 1024;
        s.ms = s.a / 1e6 * noise;
        break;
    }
    return s;
}

static enum status give(struct conductor_fit *fit, double a, double b, double ms)
{
    switch (fit->kind) {
    case CONDUCTOR_FIT_PREFILL: return conductor_fit_prefill(fit, a, b, ms);
    case CONDUCTOR_FIT_DECODE: return conductor_fit_decode(fit, a, b, ms);
    case CONDUCTOR_FIT_TRANSFER: return conductor_fit_transfer(fit, a, ms);
    }
    return STATUS_INVALID;
}

static double predict(const struct conductor_fit *fit, const struct sample *s)
{
    switch (fit->kind) {
    case CONDUCTOR_FIT_PREFILL: return conductor_cost_prefill(fit, s->a, s->b);
    case CONDUCTOR_FIT_DECODE: return conductor_cost_decode(fit, s->a, s->b);
    case CONDUCTOR_FIT_TRANSFER: return conductor_cost_transfer(fit, s->a);
    }
    return NAN;
}

/* The gradient in direction j over the samples, by definition, and the size of its terms. */
static double gradient(const struct conductor_fit *fit, const struct sample *samples, int count,
                       int j, double *size)
{
    double sum = RIDGE * (fit->coef[j] - fit->prior[j]), weight = 1;

    *size = fabs(sum);
    for (int i = count - 1; i >= 0; i--) {
        double error = -samples[i].ms;
        for (int k = 0; k < CONDUCTOR_FEATURES_MAX; k++)
            error += fit->coef[k] * samples[i].x[k];
        sum += weight * samples[i].x[j] * error;
        *size += weight * samples[i].x[j] * (fabs(error) + samples[i].ms);
        weight *= FORGET;
    }
    return sum;
}

static void check(const struct conductor_fit *fit, const struct sample *samples, int count,
                  int *pushed)
{
    for (int j = 0; j < conductor_fit_features(fit->kind); j++) {
        double size = 0;
        const double slope = gradient(fit, samples, count, j, &size);
        assert_true(fit->coef[j] >= 0 && isfinite(fit->coef[j]));
        assert_true(slope >= -1e-7 * size);
        if (fit->coef[j] > 0) assert_true(slope <= 1e-7 * size);
        *pushed += fit->coef[j] == 0;
    }
}

static void test_equals_batch(void **state)
{
    (void)state;
    static struct sample samples[SAMPLES];
    struct rng rng;
    int pushed = 0;

    rng_init(&rng, seed_of_run());
    for (int round = 0; round < ROUNDS; round++) {
        const enum conductor_fit_kind kind = (enum conductor_fit_kind)(round % CONDUCTOR_FIT_KINDS);
        struct conductor_fit fit;
        double variance = 0;
        conductor_fit_init(&fit, kind);
        for (int i = 0; i < SAMPLES; i++) {
            samples[i] = draw(kind, &rng);
            const double error = predict(&fit, &samples[i]) - samples[i].ms;
            const double decay = i <= 1 ? 0 : VARIANCE_DECAY;
            variance = decay * variance + (1 - decay) * error * error;
            assert_int_equal(give(&fit, samples[i].a, samples[i].b, samples[i].ms), STATUS_OK);
            if (i < 20 || i % 50 == 0) check(&fit, samples, i + 1, &pushed);
            assert_int_equal(fit.samples, i + 1);
            assert_true(fabs(conductor_cost_spread(&fit, 1) - sqrt(variance)) <=
                        1e-9 * sqrt(variance));
        }
        check(&fit, samples, SAMPLES, &pushed);
    }
    assert_true(pushed > 20); /* or the constraint was never met */
}

/* Every argument of every kind, with everything that is no measurement. */
static void test_nonsense_changes_nothing(void **state)
{
    (void)state;
    static const double NONSENSE[] = { NAN, INFINITY, -INFINITY, -1, -1e-300, 1e300 };
    struct rng rng;

    rng_init(&rng, 1);
    for (int kind = 0; kind < CONDUCTOR_FIT_KINDS; kind++) {
        struct conductor_fit fit, before;
        conductor_fit_init(&fit, (enum conductor_fit_kind)kind);
        for (int i = 0; i < 5; i++) {
            const struct sample s = draw(fit.kind, &rng);
            assert_int_equal(give(&fit, s.a, s.b, s.ms), STATUS_OK);
        }
        before = fit;
        for (size_t i = 0; i < sizeof(NONSENSE) / sizeof(NONSENSE[0]); i++) {
            const double bad = NONSENSE[i];
            assert_int_equal(give(&fit, bad, 1, 1), STATUS_INVALID);
            assert_int_equal(give(&fit, 10, 1, bad), STATUS_INVALID);
            if (kind != CONDUCTOR_FIT_TRANSFER) {
                assert_int_equal(give(&fit, 10, bad, 1), STATUS_INVALID);
            }
            assert_memory_equal(&fit, &before, sizeof(fit));
        }
    }
}

/* How wrong the guess before the first sample was says nothing about the fit: a machine fifty times
 * faster than the guess is known as well as any other after three samples. */
static void test_a_wrong_guess_is_forgotten(void **state)
{
    (void)state;
    struct conductor_fit fit;

    conductor_fit_init(&fit, CONDUCTOR_FIT_PREFILL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(conductor_fit_prefill(&fit, 1000 + 10 * i, 0, 20 + 0.2 * i), STATUS_OK);
    assert_true(fabs(conductor_cost_prefill(&fit, 1000, 0) - 20) < 30);
    assert_true(conductor_cost_spread(&fit, 20) < 50);
}

/* Nothing is as good as no measurement at all: a fit that was not used says that it knows nothing.
 */
static void test_says_what_it_rests_on(void **state)
{
    (void)state;
    struct conductor_fit fit, next;

    conductor_fit_init(&fit, CONDUCTOR_FIT_PREFILL);
    assert_int_equal(fit.samples, 0);
    assert_true(conductor_cost_spread(&fit, 123) == 123);
    for (int i = 0; i < 7; i++)
        assert_int_equal(conductor_fit_prefill(&fit, 1000 + i, 0, 50), STATUS_OK);
    conductor_fit_init_from(&next, &fit);
    assert_true(conductor_cost_prefill(&next, 1000, 0) == conductor_cost_prefill(&fit, 1000, 0));
    assert_int_equal(next.samples, 0); /* of this instance there are none */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_batch),
        cmocka_unit_test(test_nonsense_changes_nothing),
        cmocka_unit_test(test_a_wrong_guess_is_forgotten),
        cmocka_unit_test(test_says_what_it_rests_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
