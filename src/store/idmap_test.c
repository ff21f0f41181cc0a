/* SPDX-License-Identifier: Apache-2.0
 *
 * store/idmap_test.c
 *
 * Goal:   a record is found by its identity from idmap_add() to idmap_remove(), nobody else is, and
 *         the memory follows the number of records both ways.
 * Method: a random walk over a slab whose identities are drawn from a small set, so that runs of
 *         full slots are long and cut in every way, beside an array of which identity has which
 *         record; growing and shrinking by turns. */
#include "store/idmap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"
#include "store/slab.h"

enum { IDENTITIES = 20000, STEPS = 120000 };

static uint64_t seed;

static struct block_key identity(uint32_t i)
{
    const uint64_t words[2] = { rng_counter(7, i), i };
    struct block_key id;
    memcpy(id.bytes, words, sizeof(words));
    return id;
}

static void add(struct idmap *map, struct slab *slab, uint32_t *numbers, uint32_t i)
{
    uint32_t number;
    struct block_key *record = slab_alloc(slab, &number);
    assert_non_null(record);
    *record = identity(i);
    assert_int_equal(idmap_add(map, number), STATUS_OK);
    numbers[i] = number;
}

static void drop(struct idmap *map, struct slab *slab, uint32_t *numbers, uint32_t i)
{
    idmap_remove(map, numbers[i]);
    slab_free(slab, numbers[i]);
    numbers[i] = SLAB_NONE;
}

static void idmap_matches_array(void **state)
{
    static uint32_t numbers[IDENTITIES];
    struct slab *slab = slab_create(sizeof(struct block_key), IDENTITIES);
    struct idmap *map = idmap_create(slab, seed);
    const uint64_t empty = idmap_memory(map);
    struct rng rng;
    uint32_t count = 0;
    (void)state;

    rng_init(&rng, seed);
    memset(numbers, 0xff, sizeof(numbers)); /* SLAB_NONE */
    for (uint32_t step = 1; step <= STEPS; step++) {
        const uint32_t i = (uint32_t)rng_below(&rng, IDENTITIES);
        const struct block_key id = identity(i);
        const bool growing = step / (STEPS / 4) % 2 == 0;
        assert_int_equal(idmap_find(map, &id), numbers[i]);
        if (numbers[i] == SLAB_NONE && growing) {
            add(map, slab, numbers, i);
            count++;
        } else if (numbers[i] != SLAB_NONE && !growing) {
            assert_int_not_equal(idmap_guess(map, &id), SLAB_NONE);
            drop(map, slab, numbers, i);
            count--;
        }
        assert_int_equal(idmap_count(map), count);
        if (step % 10000 == 0) idmap_check(map);
    }
    assert_true(idmap_memory(map) < UINT64_C(41) * count + 2 * empty);
    for (uint32_t i = 0; i < IDENTITIES; i++) {
        if (numbers[i] != SLAB_NONE) drop(map, slab, numbers, i);
    }
    assert_int_equal(idmap_memory(map), empty);
    idmap_destroy(map);
    slab_destroy(slab);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(idmap_matches_array) };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
