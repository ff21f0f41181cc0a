/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/logprobs_test.c
 *
 * Goal:   rows say what the definition says, in the order promised, whatever the logits are.
 * Method: random logits, many of them equal, against a sum in long double and a search for each
 *         pair; then logits that are no numbers. SEED=n replays. */
#include "infer/logprobs.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { VOCAB = 60 };

static long double naive(const float *logits, uint32_t token)
{
    long double sum = 0;
    for (int i = 0; i < VOCAB; i++)
        sum += expl((long double)logits[i]);
    return (long double)logits[token] - logl(sum);
}

/* The likeliest token that is not taken; the lowest among equals. */
static uint32_t best_left(const float *logits, const bool *taken)
{
    uint32_t best = VOCAB;
    for (uint32_t i = 0; i < VOCAB; i++) {
        if (!taken[i] && (best == VOCAB || logits[i] > logits[best])) best = i;
    }
    return best;
}

/* How many are taken before it, and it. */
static uint32_t naive_rank(const float *logits, uint32_t token)
{
    bool taken[VOCAB] = { false };
    uint32_t rank = 1;

    for (uint32_t best; (best = best_left(logits, taken)) != token; rank++)
        taken[best] = true;
    return rank;
}

static void rows_match_the_definition(void **state)
{
    uint32_t row[LOGPROBS_WORDS_MAX];
    float logits[VOCAB];
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    for (int round = 0; round < 500; round++) {
        const uint32_t top = (uint32_t)rng_below(&rng, LOGPROBS_TOP_MAX + 1);
        const uint32_t token = (uint32_t)rng_below(&rng, VOCAB);
        bool taken[VOCAB] = { false };
        for (int i = 0; i < VOCAB; i++)
            logits[i] = (float)rng_below(&rng, 30) - 15.0f;
        assert_int_equal(logprobs_row(logits, VOCAB, token, top, row), 2 + 2 * top);
        assert_int_equal(row[1], naive_rank(logits, token));
        assert_true(fabsl((long double)logprobs_value(row[0]) - naive(logits, token)) < 1e-4L);
        for (uint32_t i = 0; i < top; i++) {
            const uint32_t want = best_left(logits, taken);
            const float value = logprobs_value(row[3 + 2 * i]);
            taken[want] = true;
            assert_int_equal(row[2 + 2 * i], want);
            assert_true(value <= 0.0f && fabsl((long double)value - naive(logits, want)) < 1e-4L);
        }
    }
}

static void broken_logits_make_rows(void **state)
{
    static const float VALUES[] = { NAN, INFINITY, -INFINITY, 0.0f, 3e38f, -3e38f };
    uint32_t row[LOGPROBS_WORDS_MAX];
    float logits[VOCAB];
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    for (int round = 0; round < 500; round++) {
        for (int i = 0; i < VOCAB; i++)
            logits[i] = VALUES[round % 2 ? rng_below(&rng, 6) : (uint64_t)round / 2 % 6];
        const uint32_t count = logprobs_row(logits, VOCAB, 3, LOGPROBS_TOP_MAX, row);
        assert_int_equal(count, LOGPROBS_WORDS_MAX);
        assert_in_range(row[1], 1, VOCAB);
        for (uint32_t i = 0; i < count; i += i == 0 ? 3 : 2) { /* the head, then pairs */
            assert_true(logprobs_value(row[i]) <= 0.0f);
            assert_true(logprobs_value(row[i]) >= LOGPROBS_LEAST);
        }
    }
    /* One token of three, and two that cannot be. */
    const float few[] = { -INFINITY, 7.0f, NAN };
    assert_int_equal(logprobs_row(few, 3, 2, 20, row), 8);
    assert_int_equal(row[1], 3);
    assert_true(logprobs_value(row[0]) == LOGPROBS_LEAST);
    assert_true(row[2] == 1 && logprobs_value(row[3]) == 0.0f);
    assert_true(row[4] == 0 && logprobs_value(row[5]) == LOGPROBS_LEAST);
}

static void certain_tokens(void **state)
{
    uint32_t row[LOGPROBS_WORDS_MAX];

    (void)state;
    assert_int_equal(logprobs_row_certain(9, 0, row), 2);
    assert_int_equal(logprobs_row_certain(9, 5, row), 4);
    assert_true(row[1] == 1 && logprobs_value(row[0]) == 0.0f);
    assert_true(row[2] == 9 && logprobs_value(row[3]) == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_match_the_definition),
        cmocka_unit_test(broken_logits_make_rows),
        cmocka_unit_test(certain_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
