/* SPDX-License-Identifier: Apache-2.0
 *
 * base/rng_test.c
 *
 * Goal:   the same seed gives the same numbers for ever; results are in range and spread.
 * Method: frozen first outputs (a change would break the continuation of answers between versions),
 *         then counts over many draws against generous bounds. */
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "seed.h"

static uint64_t seed;

static void the_sequence_is_frozen(void **state)
{
    (void)state;
    struct rng rng;

    rng_init(&rng, 0);
    assert_true(rng_u64(&rng) == UINT64_C(0x99ec5f36cb75f2b4));
    assert_true(rng_u64(&rng) == UINT64_C(0xbf6e1f784956452a));
    assert_true(rng_counter(0, 0) == UINT64_C(0xa706dd2f4d197e6f));
    assert_true(rng_counter(42, 7) == UINT64_C(0xbc16a3d4cc48678e));
}

static void below_stays_below_and_reaches_all(void **state)
{
    (void)state;
    struct rng rng;
    unsigned seen[10] = { 0 };

    rng_init(&rng, seed);
    for (int i = 0; i < 10000; i++) {
        const uint64_t value = rng_below(&rng, 10);
        assert_true(value < 10);
        seen[value]++;
    }
    for (int i = 0; i < 10; i++)
        assert_in_range(seen[i], 800, 1200);
    assert_true(rng_below(&rng, 1) == 0);
    for (int i = 0; i < 100; i++) {
        assert_in_range(rng_between(&rng, 5, 7), 5, 7);
        assert_true(rng_below(&rng, UINT64_MAX) < UINT64_MAX);
    }
    (void)rng_between(&rng, 0, UINT64_MAX);
}

static void unit_is_in_range_and_centred(void **state)
{
    (void)state;
    struct rng rng;
    double sum = 0;

    rng_init(&rng, seed);
    for (int i = 0; i < 10000; i++) {
        const double unit = rng_unit(&rng);
        assert_true(unit >= 0 && unit < 1);
        sum += unit;
    }
    assert_true(sum > 4800 && sum < 5200);
    assert_true(rng_unit_of(UINT64_MAX) < 1);
    assert_true(rng_unit_of(0) == 0);
}

static void counter_needs_no_history(void **state)
{
    (void)state;
    unsigned bits = 0;

    for (uint64_t i = 0; i < 1000; i++) {
        assert_true(rng_counter(seed, i) == rng_counter(seed, i));
        assert_true(rng_counter(seed, i) != rng_counter(seed, i + 1));
        assert_true(rng_counter(seed, i) != rng_counter(seed + 1, i));
        assert_true(rng_counter(seed + 1, i) != rng_counter(seed, i + 1)); /* no shifted copy */
        bits += (unsigned)__builtin_popcountll(rng_counter(seed, i) ^ rng_counter(seed, i + 1));
    }
    assert_in_range(bits, 31000, 33000);
}

static void fill_writes_exactly_len(void **state)
{
    (void)state;
    struct rng rng;
    uint8_t out[40];

    for (size_t len = 0; len <= 32; len++) {
        memset(out, 0xee, sizeof(out));
        rng_init(&rng, seed);
        rng_fill(&rng, out, len);
        for (size_t i = len; i < sizeof(out); i++)
            assert_int_equal(out[i], 0xee);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sequence_is_frozen),
        cmocka_unit_test(below_stays_below_and_reaches_all),
        cmocka_unit_test(unit_is_in_range_and_centred),
        cmocka_unit_test(counter_needs_no_history),
        cmocka_unit_test(fill_writes_exactly_len),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
