/* SPDX-License-Identifier: Apache-2.0
 *
 * base/arena_test.c
 *
 * Goal:   allocations are aligned, disjoint and bounded; a reset frees all.
 * Method: a seeded random walk that fills every allocation with its number and checks all of them
 *         at the end of each round. */
#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { ROUNDS = 50, ALLOCATIONS = 200, SIZE_LIMIT = 64 << 10 };

static uint64_t seed;

struct piece {
    uint8_t *data;
    size_t len;
};

static size_t fill_round(struct arena *arena, struct piece pieces[ALLOCATIONS], struct rng *rng)
{
    size_t count = 0;

    while (count < ALLOCATIONS) {
        const size_t align = (size_t)1 << rng_below(rng, 8);
        const size_t len = rng_below(rng, rng_below(rng, 10) == 0 ? 3000 : 200);
        uint8_t *data = arena_alloc_aligned(arena, len, align);
        if (data == NULL) break;
        assert_int_equal((uintptr_t)data % align, 0);
        memset(data, (int)(count & 0xff), len);
        pieces[count++] = (struct piece){ data, len };
    }
    return count;
}

static void allocations_do_not_overlap(void **state)
{
    (void)state;
    struct piece pieces[ALLOCATIONS];
    struct arena *arena = NULL;
    struct rng rng;

    rng_init(&rng, seed);
    assert_int_equal(arena_create(1024, SIZE_LIMIT, &arena), STATUS_OK);
    for (int round = 0; round < ROUNDS; round++) {
        const size_t count = fill_round(arena, pieces, &rng);
        assert_true(count > 20);
        assert_true(arena_used(arena) <= SIZE_LIMIT);
        for (size_t i = 0; i < count; i++) {
            for (size_t j = 0; j < pieces[i].len; j++)
                assert_int_equal(pieces[i].data[j], i & 0xff);
        }
        arena_reset(arena);
        assert_int_equal(arena_used(arena), 0);
    }
    arena_destroy(arena);
}

static void the_limit_holds(void **state)
{
    (void)state;
    struct arena *arena = NULL;

    assert_int_equal(arena_create(ARENA_CHUNK_MIN - 1, 4096, &arena), STATUS_INVALID);
    assert_int_equal(arena_create(4096, 4095, &arena), STATUS_INVALID);
    assert_null(arena);
    assert_int_equal(arena_create(256, 1024, &arena), STATUS_OK);
    assert_null(arena_alloc(arena, 1025));
    assert_null(arena_alloc(arena, SIZE_MAX));
    assert_null(arena_calloc(arena, SIZE_MAX / 2, 3));
    assert_null(arena_text(arena, "x", SIZE_MAX));
    size_t count = 0;
    while (arena_alloc_aligned(arena, 16, 1) != NULL)
        count++;
    assert_in_range(count, 48, 64);
    arena_reset(arena);
    assert_non_null(arena_alloc(arena, 16));
    arena_destroy(arena);
    arena_destroy(NULL);
}

static void helpers_zero_and_terminate(void **state)
{
    (void)state;
    struct arena *arena = NULL;

    assert_int_equal(arena_create(256, 1024, &arena), STATUS_OK);
    memset(arena_alloc(arena, 200), 0xff, 200);
    arena_reset(arena);
    const uint8_t *zero = arena_calloc(arena, 10, 10);
    for (int i = 0; i < 100; i++)
        assert_int_equal(zero[i], 0);
    assert_string_equal(arena_text(arena, "hello world", 5), "hello");
    assert_string_equal(arena_text(arena, NULL, 0), "");
    arena_destroy(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_do_not_overlap),
        cmocka_unit_test(the_limit_holds),
        cmocka_unit_test(helpers_zero_and_terminate),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
