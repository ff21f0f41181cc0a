/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/lengths_test.c
 *
 * Goal:   survival, quantile and mean are those of the answers heard, with older ones fading and
 *         classes that said little leaning on everybody; shares are those of the tokens given.
 * Method: a model that keeps every sample with its weight and spreads it over its bucket, and a
 *         seeded walk beside it; then small cases by hand. SEED repeats the walk. */
#include "conductor/lengths.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { SAMPLES = 3000, CLASSES = 3 };

struct sample {
    uint32_t class_index, tokens;
    double weight;
};

static struct sample samples[SAMPLES];
static int samples_count;

/* The range of lengths that are told apart from others: all below 8, then four to an octave. */
static void range_of(uint32_t tokens, double *first, double *last)
{
    double width = 1;

    while (tokens / width >= 8)
        width *= 2;
    *first = floor(tokens / width) * width;
    *last = *first + width - 1;
}

/* Weight above `tokens`, and in all, of the samples of a class; class 0 is everybody. */
static void model_weigh(uint32_t class_index, uint32_t tokens, double *above, double *total)
{
    double first, last;

    *above = *total = 0;
    for (int i = 0; i < samples_count; i++) {
        if (class_index != 0 && samples[i].class_index != class_index) continue;
        range_of(samples[i].tokens, &first, &last);
        double share = (last - tokens) / (last - first + 1);
        share = share < 0 ? 0 : share > 1 ? 1 : share;
        *above += samples[i].weight * share;
        *total += samples[i].weight;
    }
}

/* What is left of the guess fades with every sample of anybody. */
static double model_survival(const double guess, uint32_t class_index, uint32_t tokens)
{
    double above, total, own_above, own_total;

    model_weigh(0, tokens, &above, &total);
    const double left = 5 * pow(0.999, samples_count);
    const double everybody = (above + left * guess) / (total + left);
    if (class_index == 0) return everybody;
    /* Weights of a class fade by its own samples only. */
    double weight = 1;
    own_above = own_total = 0;
    for (int i = samples_count - 1; i >= 0; i--) {
        double first, last;
        if (samples[i].class_index != class_index) continue;
        range_of(samples[i].tokens, &first, &last);
        double share = (last - tokens) / (last - first + 1);
        share = share < 0 ? 0 : share > 1 ? 1 : share;
        weight *= 0.999;
        own_above += weight * share;
        own_total += weight;
    }
    return (own_above + 20 * everybody) / (own_total + 20);
}

static void model_learn(uint32_t class_index, uint32_t tokens)
{
    samples[samples_count++] = (struct sample){ class_index, tokens, 1 };
    for (int i = 0; i < samples_count; i++)
        samples[i].weight *= 0.999;
}

static void test_matches_model(void **state)
{
    (void)state;
    struct lengths *lengths, *fresh;
    uint32_t classes[CLASSES];
    struct rng rng;

    rng_init(&rng, test_seed());
    samples_count = 0;
    assert_int_equal(lengths_create(&lengths), STATUS_OK);
    assert_int_equal(lengths_create(&fresh), STATUS_OK);
    for (uint32_t i = 0; i < CLASSES; i++) {
        const char name[2] = { (char)('a' + (int)i), 0 };
        classes[i] = lengths_class(lengths, name, "chat", 0);
    }
    for (int step = 0; step < SAMPLES; step++) {
        const uint32_t class_index = classes[rng_below(&rng, CLASSES)];
        const uint32_t tokens = (uint32_t)rng_below(&rng, 1u << rng_below(&rng, 15));
        lengths_learn(lengths, class_index, tokens);
        model_learn(class_index, tokens);
        if (step % 50 != 0) continue;
        const uint32_t asked = (uint32_t)rng_below(&rng, 1u << rng_below(&rng, 15));
        const uint32_t of = rng_below(&rng, 4) == 0 ? 0 : class_index;
        const double guess = lengths_survival(fresh, 0, asked);
        const double want = model_survival(guess, of, asked);
        assert_true(fabs(lengths_survival(lengths, of, asked) - want) < 1e-9);
    }
    lengths_destroy(lengths);
    lengths_destroy(fresh);
}

/* Quantile and mean follow from survival; here they are added up token by token. */
static void test_quantile_and_mean(void **state)
{
    (void)state;
    struct lengths *lengths;
    struct rng rng;

    rng_init(&rng, test_seed());
    assert_int_equal(lengths_create(&lengths), STATUS_OK);
    const uint32_t class_index = lengths_class(lengths, "t", NULL, 0);
    for (int i = 0; i < 500; i++)
        lengths_learn(lengths, class_index, 100 + (uint32_t)rng_below(&rng, 900));
    for (uint32_t max = 1; max < 3000; max += 37) {
        double sum = 0, before = 1;
        for (uint32_t at = 0; at < max; at++) {
            const double survival = lengths_survival(lengths, class_index, at);
            assert_true(survival <= before + 1e-12);
            before = survival;
            sum += survival;
        }
        assert_true(fabs(lengths_mean(lengths, class_index, max) - sum) < 1e-6 * sum);
    }
    for (double q = 0.05; q < 1; q += 0.05) {
        const uint32_t at = lengths_quantile(lengths, class_index, q);
        assert_true(lengths_survival(lengths, class_index, at) <= 1 - q);
        assert_true(at == 0 || lengths_survival(lengths, class_index, at - 1) > 1 - q);
    }
    const uint32_t median = lengths_quantile(lengths, class_index, 0.5);
    assert_true(median > 450 && median < 650);
    lengths_destroy(lengths);
}

static void test_classes(void **state)
{
    (void)state;
    struct lengths *lengths;
    char name[16];

    assert_int_equal(lengths_create(&lengths), STATUS_OK);
    const uint32_t a = lengths_class(lengths, "a", "chat", 0);
    assert_int_equal(lengths_class(lengths, "a", "chat", 0), a);
    assert_int_not_equal(lengths_class(lengths, "a", "batch", 0), a);
    assert_int_not_equal(lengths_class(lengths, "achat", NULL, 0), a);
    for (int i = 0; i < 2 * LENGTHS_CLASSES_MAX; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        assert_true(lengths_class(lengths, name, NULL, 0) < LENGTHS_CLASSES_MAX);
    }
    assert_int_equal(lengths_class(lengths, "one too many", NULL, 0), 0);
    /* Absurd lengths are cut, and do not break what is learned. */
    lengths_learn(lengths, a, UINT32_MAX);
    assert_true(lengths_survival(lengths, a, UINT32_MAX) >= 0);
    lengths_destroy(lengths);
}

static void test_shares(void **state)
{
    (void)state;
    struct lengths *lengths;

    assert_int_equal(lengths_create(&lengths), STATUS_OK);
    const uint32_t a = lengths_class(lengths, "a", "x", 0), b = lengths_class(lengths, "b", "x", 0);
    const uint32_t other = lengths_class(lengths, "a", "y", 0); /* the same tenant */
    assert_true(lengths_share(lengths, a) == 1);
    lengths_charge(lengths, a, 300);
    assert_true(lengths_share(lengths, a) == 1); /* alone */
    lengths_charge(lengths, b, 100);
    assert_true(fabs(lengths_share(lengths, a) - 1.5) < 0.01);
    assert_true(fabs(lengths_share(lengths, other) - 1.5) < 0.01);
    assert_true(fabs(lengths_share(lengths, b) - 0.5) < 0.01);
    for (int i = 0; i < 5000; i++)
        lengths_charge(lengths, b, 1);
    assert_true(lengths_share(lengths, b) > 1.9 || lengths_share(lengths, b) == 1);
    lengths_destroy(lengths);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_model),
        cmocka_unit_test(test_quantile_and_mean),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_shares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
