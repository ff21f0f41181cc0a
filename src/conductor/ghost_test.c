/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/ghost_test.c
 *
 * Goal:   what was added lately is there, what never was is not, and the oldest go first.
 * Method: a random walk against lists that are too simple to be wrong: per bucket, the order in
 *         which its names were last added. SEED repeats it. */
#include "conductor/ghost.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"

enum { BUCKETS = 4, WAYS = 16, NAMES = 300, STEPS = 20000 };

static uint64_t name_of(uint32_t i)
{
    return rng_counter(99, i);
}

/* Is name i among the last WAYS that were added to its bucket? `added[i]` is when; 0: never. */
static bool model_has(const uint64_t added[NAMES], uint32_t i)
{
    uint32_t younger = 0;

    if (added[i] == 0) return false;
    for (uint32_t j = 0; j < NAMES; j++) {
        const bool together = (name_of(j) >> 32) % BUCKETS == (name_of(i) >> 32) % BUCKETS;
        younger += together && added[j] > added[i];
    }
    return younger < WAYS;
}

static void test_matches_model(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 17;
    uint64_t added[NAMES] = { 0 };
    struct ghost *ghost = NULL;
    struct rng rng;
    uint32_t forgotten = 0;

    printf("SEED=%llu\n", (unsigned long long)seed);
    rng_init(&rng, seed);
    assert_int_equal(ghost_create(BUCKETS * WAYS, &ghost), STATUS_OK);
    for (uint64_t step = 1; step <= STEPS; step++) {
        const uint32_t i = (uint32_t)rng_below(&rng, NAMES), j = (uint32_t)rng_below(&rng, NAMES);
        ghost_add(ghost, name_of(i));
        added[i] = step;
        assert_int_equal(ghost_has(ghost, name_of(j)), model_has(added, j));
        forgotten += added[j] != 0 && !ghost_has(ghost, name_of(j));
    }
    assert_true(forgotten > STEPS / 10); /* the walk went beyond what fits */
    ghost_destroy(ghost);
}

static void test_sizes(void **state)
{
    (void)state;
    struct ghost *ghost = NULL;

    for (uint32_t names = 1; names < 100000; names = names * 3 + 1) {
        assert_int_equal(ghost_create(names, &ghost), STATUS_OK);
        assert_true(ghost_bytes(ghost) >= 4 * (uint64_t)names);
        assert_true(ghost_bytes(ghost) <= 8 * (uint64_t)names + 128);
        assert_false(ghost_has(ghost, 0));
        ghost_add(ghost, 0); /* a name like any other */
        assert_true(ghost_has(ghost, 0));
        ghost_destroy(ghost);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_model),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
