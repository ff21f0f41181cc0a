/* SPDX-License-Identifier: Apache-2.0
 *
 * store/space_test.c
 *
 * Goal:   a range is handed out once, first fit, and freed neighbours become one again.
 * Method: a random walk against an array with one flag a granule, over two extents that touch. */
#include "store/space.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { GRANULES = 96, SPLIT = 60, STEPS = 40000, RANGES = 64 };
#define BASE UINT64_C(0x7000000)

static uint64_t seed;

struct range {
    uint64_t first; /* granules */
    uint64_t count;
};

static bool is_free(const bool *used, uint64_t first, uint64_t count)
{
    if (first + count > GRANULES) return false;
    if (first < SPLIT && first + count > SPLIT) return false; /* extents do not join */
    for (uint64_t i = first; i < first + count; i++) {
        if (used[i]) return false;
    }
    return true;
}

static uint64_t first_fit(const bool *used, uint64_t count)
{
    for (uint64_t i = 0; i < GRANULES; i++) {
        if (is_free(used, i, count)) return i;
    }
    return GRANULES;
}

static void mark(bool *used, const struct range *range, bool value)
{
    for (uint64_t i = range->first; i < range->first + range->count; i++)
        used[i] = value;
}

static void space_matches_model(void **state)
{
    struct space *space = space_create();
    bool used[GRANULES] = { false };
    struct range ranges[RANGES] = { { 0, 0 } };
    struct rng rng;
    unsigned full = 0, busy = 0;
    (void)state;

    rng_init(&rng, seed);
    assert_int_equal(space_add(space, BASE, SPLIT * SPACE_GRANULE), STATUS_OK);
    assert_int_equal(
        space_add(space, BASE + SPLIT * SPACE_GRANULE, (GRANULES - SPLIT) * SPACE_GRANULE),
        STATUS_OK);
    for (int step = 0; step < STEPS; step++) {
        struct range *range = &ranges[rng_below(&rng, RANGES)];
        const uint64_t count = 1 + rng_below(&rng, 8);
        const uint64_t size = count * SPACE_GRANULE - rng_below(&rng, SPACE_GRANULE);
        uint64_t address = 77;

        if (range->count > 0) {
            space_free(space, BASE + range->first * SPACE_GRANULE,
                       range->count * SPACE_GRANULE - rng_below(&rng, SPACE_GRANULE));
            mark(used, range, false);
            range->count = 0;
        } else if (rng_below(&rng, 2) == 0) {
            const uint64_t want = first_fit(used, count);
            const enum status status = space_alloc(space, size, &address);
            assert_int_equal(status, want < GRANULES ? STATUS_OK : STATUS_FULL);
            full += status == STATUS_FULL;
            if (status != STATUS_OK) assert_int_equal(address, 77);
            if (status != STATUS_OK) continue;
            assert_int_equal(address, BASE + want * SPACE_GRANULE);
            *range = (struct range){ want, count };
            mark(used, range, true);
        } else {
            const uint64_t first = rng_below(&rng, GRANULES);
            const bool inside =
                first + count <= GRANULES && !(first < SPLIT && first + count > SPLIT);
            const enum status status = space_reserve(space, BASE + first * SPACE_GRANULE, size);
            const bool fits = is_free(used, first, count);
            assert_int_equal(status, !inside ? STATUS_NOT_FOUND : fits ? STATUS_OK : STATUS_BUSY);
            busy += status == STATUS_BUSY;
            if (status != STATUS_OK) continue;
            *range = (struct range){ first, count };
            mark(used, range, true);
        }
        space_check(space);
    }
    assert_true(full > 100 && busy > 100);
    uint64_t sum = 0;
    for (int i = 0; i < GRANULES; i++)
        sum += used[i];
    assert_int_equal(space_used(space), sum * SPACE_GRANULE);
    space_destroy(space);
}

static void odd_extents_are_refused(void **state)
{
    struct space *space = space_create();
    (void)state;

    assert_int_equal(space_add(space, BASE + 1, SPACE_GRANULE), STATUS_INVALID);
    assert_int_equal(space_add(space, BASE, 0), STATUS_INVALID);
    assert_int_equal(space_add(space, BASE, SPACE_GRANULE + 1), STATUS_INVALID);
    assert_int_equal(space_add(space, UINT64_MAX - 4095, SPACE_GRANULE * 2), STATUS_INVALID);
    assert_int_equal(space_add(space, BASE, 4 * SPACE_GRANULE), STATUS_OK);
    assert_int_equal(space_add(space, BASE, 4 * SPACE_GRANULE), STATUS_EXISTS);
    assert_int_equal(space_add(space, BASE + SPACE_GRANULE, SPACE_GRANULE), STATUS_INVALID);
    assert_int_equal(space_total(space), 4 * SPACE_GRANULE);
    assert_int_equal(space_extent_max(space), 4 * SPACE_GRANULE);
    space_destroy(space);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(space_matches_model),
        cmocka_unit_test(odd_extents_are_refused),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
