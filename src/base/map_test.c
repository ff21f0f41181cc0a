/* SPDX-License-Identifier: Apache-2.0
 *
 * base/map_test.c
 *
 * Goal:   the map is a map: what was set is found, what was removed is not, nothing else changes.
 * Method: a seeded random walk over few keys against an array, with keys that collide on purpose
 *         (all bits equal but a few), then growth and limits by hand. */
#include "base/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { KEYS = 300, STEPS = 40000 };

static uint64_t seed;

struct model {
    bool present;
    uint64_t value;
};

static struct block_key key_of(uint32_t index)
{
    struct block_key key = { { 0 } };
    key.bytes[0] =
        (uint8_t)(index % 7); /* seven hashes of the first half: collisions without mixing */
    key.bytes[14] = (uint8_t)(index >> 8);
    key.bytes[15] = (uint8_t)index;
    return key;
}

static struct map *map_new(uint32_t initial, uint32_t max)
{
    struct map *map = NULL;
    const struct map_options options = { .entries_initial = initial,
                                         .entries_max = max,
                                         .seed = seed };
    assert_int_equal(map_create(&options, &map), STATUS_OK);
    return map;
}

static void check_all(const struct map *map, const struct model *model)
{
    uint32_t count = 0, visited = 0;

    for (uint32_t i = 0; i < KEYS; i++) {
        const struct block_key key = key_of(i);
        uint64_t value = 77;
        assert_int_equal(map_find(map, &key, &value), model[i].present);
        assert_true(value == (model[i].present ? model[i].value : 77));
        count += model[i].present;
    }
    assert_int_equal(map_count(map), count);
    struct map_iter iter = { 0 };
    while (map_next(map, &iter)) {
        const uint32_t index = iter.key.bytes[14] * 256u + iter.key.bytes[15];
        assert_true(index < KEYS && model[index].present);
        assert_true(model[index].value == iter.value);
        visited++;
    }
    assert_int_equal(visited, count);
}

static void walk_step(struct map *map, struct model *entry, const struct block_key *key,
                      struct rng *rng)
{
    const uint64_t value = rng_u64(rng);
    uint64_t old = 77;

    switch (rng_below(rng, 4)) {
    case 0:
        assert_int_equal(map_set(map, key, value), STATUS_OK);
        *entry = (struct model){ true, value };
        break;
    case 1:
        assert_int_equal(map_insert(map, key, value), entry->present ? STATUS_EXISTS : STATUS_OK);
        if (!entry->present) *entry = (struct model){ true, value };
        break;
    default:
        assert_int_equal(map_remove(map, key, &old), entry->present);
        assert_true(old == (entry->present ? entry->value : 77));
        entry->present = false;
        break;
    }
}

static void random_walk_matches_array(void **state)
{
    (void)state;
    struct model model[KEYS] = { 0 };
    struct map *map = map_new(0, KEYS);
    struct rng rng;

    rng_init(&rng, seed);
    for (int step = 0; step < STEPS; step++) {
        const uint32_t index = (uint32_t)rng_below(&rng, KEYS);
        const struct block_key key = key_of(index);
        walk_step(map, &model[index], &key, &rng);
        if (step % 100 == 0) check_all(map, model);
    }
    check_all(map, model);
    map_clear(map);
    memset(model, 0, sizeof(model));
    check_all(map, model);
    map_destroy(map);
}

static void full_is_an_answer(void **state)
{
    (void)state;
    struct map *map = map_new(3, 3);

    for (uint32_t i = 0; i < 4; i++) {
        const struct block_key key = key_of(i);
        assert_int_equal(map_set(map, &key, i), i < 3 ? STATUS_OK : STATUS_FULL);
    }
    const struct block_key first = key_of(0), fourth = key_of(3);
    assert_int_equal(map_set(map, &first, 9), STATUS_OK); /* replacing needs no room */
    assert_int_equal(map_insert(map, &first, 9), STATUS_EXISTS);
    assert_false(map_find(map, &fourth, NULL));
    assert_true(map_remove(map, &first, NULL));
    assert_int_equal(map_insert(map, &fourth, 4), STATUS_OK);
    map_destroy(map);
}

static void it_grows_to_its_maximum(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    struct map *map = map_new(0, COUNT);
    struct block_key key;

    for (uint64_t i = 0; i < COUNT; i++) {
        memset(&key, 0, sizeof(key));
        memcpy(key.bytes, &i, sizeof(i));
        assert_int_equal(map_insert(map, &key, i), STATUS_OK);
    }
    for (uint64_t i = 0; i < COUNT; i++) {
        uint64_t value = 0;
        memset(&key, 0, sizeof(key));
        memcpy(key.bytes, &i, sizeof(i));
        assert_true(map_find(map, &key, &value));
        assert_true(value == i);
    }
    map_destroy(map);
}

static void options_are_checked(void **state)
{
    (void)state;
    struct map *map = NULL;
    const struct map_options bad[] = {
        { 0, 0, 0 },
        { 2, 1, 0 },
        { 0, MAP_ENTRIES_MAX + 1u, 0 },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(map_create(&bad[i], &map), STATUS_INVALID);
        assert_null(map);
    }
    map_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_walk_matches_array),
        cmocka_unit_test(full_is_an_answer),
        cmocka_unit_test(it_grows_to_its_maximum),
        cmocka_unit_test(options_are_checked),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
