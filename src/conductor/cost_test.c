/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/cost_test.c
 *
 * Goal:   the fits find the truth under noise, follow a change, never predict a negative cost, and
 *         refuse nonsense without being harmed by it; profiles survive a round trip.
 * Method: samples drawn from known coefficients (those of a 70B model, and of a small one),
 * compared with the truth on points that were not drawn. SEED repeats a run. */
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
#include "conductor/cost.h"
#include "conductor/profile.h"

struct truth {
    double fixed, per_new, per_square, per_reused;
};

/* Milliseconds per token: the published fit for LLaMA-70B, and a small model on two cores. */
static const struct truth LARGE = { 68, 1.096e-1, 7.433e-7, 2.575e-3 };
static const struct truth SMALL = { 4, 1.5, 6e-5, 0.01 };

static uint64_t seed_of_run(void)
{
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 7;
    printf("SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static double truth_ms(const struct truth *t, double n, double p)
{
    return t->fixed + t->per_new * (n - p) + t->per_square * (n * n - p * p) + t->per_reused * p;
}

static void feed(struct conductor_fit *fit, const struct truth *truth, struct rng *rng, int count,
                 double n_max, double noise)
{
    for (int i = 0; i < count; i++) {
        const double n = 1 + floor(rng_unit(rng) * n_max);
        const double p = rng_below(rng, 2) ? 0 : floor(rng_unit(rng) * n);
        const double factor = 1 + noise * (2 * rng_unit(rng) - 1);
        assert_int_equal(conductor_fit_prefill(fit, n, p, truth_ms(truth, n, p) * factor),
                         STATUS_OK);
    }
}

static void check(const struct conductor_fit *fit, const struct truth *truth, struct rng *rng,
                  double n_max, double tolerance)
{
    for (int i = 0; i < 50; i++) {
        const double n = n_max * (0.1 + 0.9 * rng_unit(rng));
        const double p = n * 0.9 * rng_unit(rng);
        const double want = truth_ms(truth, n, p), got = conductor_cost_prefill(fit, n, p);
        assert_true(fabs(got - want) <=
                    tolerance * truth_ms(truth, n_max, 0) * 0.1 + tolerance * want);
    }
}

static void test_prefill_converges(void **state)
{
    (void)state;
    struct rng rng;
    struct conductor_fit fit;

    rng_init(&rng, seed_of_run());
    conductor_fit_init(&fit, CONDUCTOR_FIT_PREFILL);
    feed(&fit, &LARGE, &rng, 300, 131072, 0.05);
    check(&fit, &LARGE, &rng, 131072, 0.05);
    assert_int_equal(fit.samples, 300);
    /* The spread it reports is of the size of the noise it was given. */
    const double typical = truth_ms(&LARGE, 65536, 0);
    assert_true(conductor_cost_spread(&fit, typical) < 0.1 * typical);
    assert_true(conductor_cost_spread(&fit, typical) > 0.001 * typical);
}

static void test_prefill_follows_a_change(void **state)
{
    (void)state;
    struct rng rng;
    struct conductor_fit fit;

    rng_init(&rng, 11);
    conductor_fit_init(&fit, CONDUCTOR_FIT_PREFILL);
    feed(&fit, &SMALL, &rng, 400, 4096, 0.02);
    check(&fit, &SMALL, &rng, 4096, 0.05);
    const struct truth slower = { SMALL.fixed * 2, SMALL.per_new * 2, SMALL.per_square * 2, 0.02 };
    feed(&fit, &slower, &rng, 1500, 4096, 0.02);
    check(&fit, &slower, &rng, 4096, 0.05);
}

/* Few samples, all alike: the prediction there is right at once, and nowhere negative. */
static void test_few_samples(void **state)
{
    (void)state;
    struct conductor_fit fit;

    conductor_fit_init(&fit, CONDUCTOR_FIT_PREFILL);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(conductor_fit_prefill(&fit, 3000, 0, 4500), STATUS_OK);
    }
    assert_true(fabs(conductor_cost_prefill(&fit, 3000, 0) - 4500) < 450);
    for (double n = 1; n < 1e6; n *= 3)
        assert_true(conductor_cost_prefill(&fit, n, n / 2) >= 0);
}

/* Samples that would pull coefficients below zero must not make costs negative, and more reuse must
 * not cost more. */
static void test_never_negative_and_monotone(void **state)
{
    (void)state;
    struct rng rng;
    struct conductor_fit fit;

    rng_init(&rng, 5);
    conductor_fit_init(&fit, CONDUCTOR_FIT_PREFILL);
    for (int i = 0; i < 500; i++) {
        const double n = 1 + (double)rng_below(&rng, 5000);
        const double p = floor(n * rng_unit(&rng));
        const double ms = 6000 - n + 3 * p; /* absurd: longer is faster, reuse is slower */
        assert_int_equal(conductor_fit_prefill(&fit, n, p, ms > 0 ? ms : 0), STATUS_OK);
        double last = INFINITY;
        for (double reused = 0; reused <= 4000; reused += 500) {
            const double predicted = conductor_cost_prefill(&fit, 4001, reused);
            assert_true(predicted >= 0 && predicted <= last + 1e-9);
            last = predicted;
        }
    }
}

static void test_decode_and_transfer_converge(void **state)
{
    (void)state;
    struct rng rng;
    struct conductor_fit decode, transfer;

    rng_init(&rng, 3);
    conductor_fit_init(&decode, CONDUCTOR_FIT_DECODE);
    conductor_fit_init(&transfer, CONDUCTOR_FIT_TRANSFER);
    for (int i = 0; i < 400; i++) {
        const double batch = 1 + (double)rng_below(&rng, 16);
        const double context = batch * (double)rng_below(&rng, 4000);
        const double bytes = (double)rng_below(&rng, 1u << 30);
        const double noise = 0.98 + 0.04 * rng_unit(&rng);
        assert_int_equal(conductor_fit_decode(&decode, batch, context,
                                              (20 + 0.5 * batch + 1e-3 * context) * noise),
                         STATUS_OK);
        assert_int_equal(conductor_fit_transfer(&transfer, bytes, (2 + bytes / 1e6) * noise),
                         STATUS_OK);
    }
    assert_true(fabs(conductor_cost_decode(&decode, 8, 16000) - 40) < 2);
    assert_true(fabs(conductor_cost_transfer(&transfer, 5e8) - 502) < 15);
}

static void test_nonsense_is_refused(void **state)
{
    (void)state;
    struct conductor_fit fit, before;

    conductor_fit_init(&fit, CONDUCTOR_FIT_PREFILL);
    assert_int_equal(conductor_fit_prefill(&fit, 100, 32, 50), STATUS_OK);
    before = fit;
    assert_int_equal(conductor_fit_prefill(&fit, 100, 32, NAN), STATUS_INVALID);
    assert_int_equal(conductor_fit_prefill(&fit, 100, 32, INFINITY), STATUS_INVALID);
    assert_int_equal(conductor_fit_prefill(&fit, 100, 32, -1), STATUS_INVALID);
    assert_int_equal(conductor_fit_prefill(&fit, 100, 101, 5), STATUS_INVALID);
    assert_int_equal(conductor_fit_prefill(&fit, NAN, 0, 5), STATUS_INVALID);
    assert_int_equal(conductor_fit_prefill(&fit, 100, NAN, 5), STATUS_INVALID);
    assert_int_equal(conductor_fit_prefill(&fit, 1e30, 0, 5), STATUS_INVALID);
    assert_memory_equal(&fit, &before, sizeof(fit));
}

static void test_profile_round_trip(void **state)
{
    (void)state;
    struct rng rng;
    struct conductor_profile profile, loaded;
    struct errmsg err;
    char *text = NULL;
    size_t len = 0;

    rng_init(&rng, 9);
    conductor_profile_init(&profile);
    feed(&profile.prefill, &SMALL, &rng, 50, 4096, 0.1);
    assert_int_equal(conductor_profile_format(&profile, &text, &len), STATUS_OK);
    assert_int_equal(strlen(text), len);
    assert_int_equal(conductor_profile_parse(text, len, &loaded, &err), STATUS_OK);
    assert_true(fabs(conductor_cost_prefill(&loaded.prefill, 1000, 96) -
                     conductor_cost_prefill(&profile.prefill, 1000, 96)) < 1e-6);

    /* Every prefix of it is refused, and leaves the target alone. */
    const struct conductor_profile untouched = loaded;
    for (size_t cut = 0; cut < len; cut++) {
        if (cut == len - 1 && text[cut] == '\n') continue;
        assert_int_equal(conductor_profile_parse(text, cut, &loaded, &err), STATUS_INVALID);
    }
    assert_memory_equal(&loaded, &untouched, sizeof(loaded));
    free(text);
}

static void test_profile_refuses(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "",
        "[]",
        "{}",
        "{\"version\": 2}",
        "{\"version\": 1, \"prefill\": 3}",
        "{\"version\": 1, \"prefill\": {\"kind\": \"prefill\", \"variance\": 0,"
        " \"coef\": [1, 2, 3, -4]}}",
        "{\"version\": 1, \"prefill\": {\"kind\": \"prefill\", \"variance\": -1,"
        " \"coef\": [1, 2, 3, 4]}}",
        "{\"version\": 1, \"prefill\": {\"kind\": \"prefill\", \"variance\": 0,"
        " \"coef\": [1, 2, 3, \"x\"]}}",
        "{\"version\": 1, \"prefill\": {\"kind\": \"decode\", \"variance\": 0,"
        " \"coef\": [1, 2, 3]}}",
    };
    struct conductor_profile profile;

    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        struct errmsg err = { "" };
        assert_int_equal(conductor_profile_parse(BAD[i], strlen(BAD[i]), &profile, &err),
                         STATUS_INVALID);
        assert_true(err.text[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefill_converges),
        cmocka_unit_test(test_prefill_follows_a_change),
        cmocka_unit_test(test_few_samples),
        cmocka_unit_test(test_never_negative_and_monotone),
        cmocka_unit_test(test_decode_and_transfer_converge),
        cmocka_unit_test(test_nonsense_is_refused),
        cmocka_unit_test(test_profile_round_trip),
        cmocka_unit_test(test_profile_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
