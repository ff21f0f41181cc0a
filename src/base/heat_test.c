/* SPDX-License-Identifier: Apache-2.0
 *
 * base/heat_test.c
 *
 * Goal:   heat is a count that halves, and what is hot is never forgotten for what is cold.
 * Method: a seeded walk of touches, of once and of other amounts, against plain counts; and a flood
 *         of keys that are asked for once. */
#include "base/heat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/rng.h"
#include "seed.h"

enum { HALF_MS = 1000, KNOWN = 64 };

static struct block_key key_number(uint64_t number)
{
    struct block_key key;
    for (unsigned i = 0; i < sizeof(key.bytes); i++)
        key.bytes[i] = (uint8_t)rng_counter(number, i);
    return key;
}

static void heat_is_a_count_that_halves(void **state)
{
    (void)state;
    struct heat *heat = NULL;
    struct rng rng;
    double counts[KNOWN] = { 0 }, now_ms = 0;

    assert_int_equal(heat_create(1 << 14, HALF_MS, &heat), STATUS_OK); /* room for all */
    rng_init(&rng, test_seed());
    for (int step = 0; step < 20000; step++) {
        const double later_ms = 50 * rng_unit(&rng);
        const uint64_t number = rng_below(&rng, 1 + rng_below(&rng, KNOWN));
        const struct block_key key = key_number(number);
        now_ms += later_ms;
        for (int i = 0; i < KNOWN; i++)
            counts[i] *= exp2(-later_ms / HALF_MS);
        const double amount = step % 3 == 0 ? 1 : 10 * rng_unit(&rng) + 0.1;
        counts[number] += amount;
        const double now =
            step % 3 == 0 ? heat_touch(heat, &key, now_ms) : heat_add(heat, &key, amount, now_ms);
        assert_true(fabs(now - counts[number]) < 1e-9 * counts[number]);
    }
    for (int i = 0; i < KNOWN; i++) {
        const struct block_key key = key_number((uint64_t)i);
        assert_true(fabs(heat_of(heat, &key, now_ms) - counts[i]) < 1e-9 * (1 + counts[i]));
    }
    heat_destroy(heat);
}

static void hot_survives_a_flood_of_cold(void **state)
{
    (void)state;
    struct heat *heat = NULL;

    assert_int_equal(heat_create(256, HALF_MS, &heat), STATUS_OK);
    for (uint64_t i = 0; i < 100000; i++) {
        const struct block_key hot = key_number(i % 4), cold = key_number(1000 + i);
        (void)heat_touch(heat, &hot, (double)i);
        (void)heat_touch(heat, &cold, (double)i);
    }
    for (uint64_t i = 0; i < 4; i++) {
        const struct block_key hot = key_number(i);
        assert_true(heat_of(heat, &hot, 100000) > 100);
    }
    const struct block_key once = key_number(1001);
    assert_true(heat_of(heat, &once, 100000) < 1e-9);
    assert_true(heat_bytes(heat) < 256 * 40);
    heat_destroy(heat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heat_is_a_count_that_halves),
        cmocka_unit_test(hot_survives_a_flood_of_cold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
