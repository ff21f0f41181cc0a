/* SPDX-License-Identifier: Apache-2.0
 *
 * store/objects_test.c
 *
 * Goal:   values never overlap, a pinned one stays, and what is dropped is gone.
 * Method: each rule by hand. */
#include "store/objects.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/env.h"
#include "store/proto.h"

enum { REGION_GRANULES = 16 };
#define REGION UINT64_C(0x10000)

static const uint64_t sums[] = { 1, 2 };
static int stored, removed;

static void on_stored(void *ctx, const struct object *object)
{
    (void)ctx;
    assert_true(object->key.len > 0);
    stored++;
}

static void on_removed(void *ctx, const struct object *object)
{
    (void)ctx;
    assert_true(object->key.len > 0);
    removed++;
}

static struct objects *objects_new(void)
{
    struct objects *objects = NULL;
    const struct objects_options options = { .address = REGION,
                                             .size = REGION_GRANULES * OBJECT_GRANULE,
                                             .pins_max = 2,
                                             .on_stored = on_stored,
                                             .on_removed = on_removed };
    stored = 0;
    removed = 0;
    assert_int_equal(objects_create(&options, &objects), STATUS_OK);
    return objects;
}

static enum status put(struct objects *objects, const char *key, uint64_t granule, uint64_t size,
                       const struct object **out)
{
    const struct object wanted = {
        .key = { (const uint8_t *)key, (uint32_t)strlen(key) },
        .address = REGION + granule * OBJECT_GRANULE,
        .size = size,
        .generation = granule + 1,
    };
    return objects_put(objects, &wanted, sums, 2, out);
}

static void values_do_not_overlap(void **state)
{
    struct objects *objects = objects_new();
    const struct object *a = NULL, *b = NULL;
    (void)state;

    assert_int_equal(put(objects, "a", 2, OBJECT_GRANULE + 1, &a), STATUS_OK);
    assert_int_equal(put(objects, "b", 3, 1, &b), STATUS_BUSY); /* a's last byte is there */
    assert_int_equal(put(objects, "b", 1, OBJECT_GRANULE + 1, &b), STATUS_BUSY);
    assert_int_equal(put(objects, "a", 8, 1, &b), STATUS_EXISTS);
    assert_ptr_equal(a, b);
    assert_int_equal(put(objects, "b", 4, 1, &b), STATUS_OK);
    assert_int_equal(put(objects, "c", 15, OBJECT_GRANULE + 1, &b), STATUS_INVALID);
    assert_int_equal(put(objects, "c", 16, 1, &b), STATUS_INVALID);
    assert_int_equal(put(objects, "c", 0, UINT64_MAX, &b), STATUS_INVALID);
    assert_int_equal(objects_count(objects), 2);
    assert_int_equal(stored, 2);
    assert_int_equal(objects_drop(objects, &a->id, 99), STATUS_NOT_FOUND); /* another generation */
    const struct block_key id = a->id;
    assert_int_equal(objects_drop(objects, &id, 3), STATUS_OK);
    assert_null(objects_find(objects, &id));
    assert_int_equal(put(objects, "c", 3, 1, &b), STATUS_OK);
    assert_int_equal(removed, 1);
    objects_destroy(objects);
}

static void a_pinned_value_stays(void **state)
{
    struct objects *objects = objects_new();
    const struct object *a = NULL;
    uint64_t pin, second, third;
    (void)state;

    assert_int_equal(put(objects, "a", 0, 1, &a), STATUS_OK);
    const struct object *const list[] = { a };
    assert_int_equal(objects_pin(objects, list, 1, 100, &pin), STATUS_OK);
    assert_int_equal(objects_pin(objects, list, 1, 200, &second), STATUS_OK);
    assert_int_equal(objects_pin(objects, list, 1, 100, &third), STATUS_FULL);
    const struct block_key id = a->id;
    assert_int_equal(objects_drop(objects, &id, 1), STATUS_BUSY);
    assert_int_equal(objects_unpin(objects, pin), STATUS_OK);
    assert_int_equal(objects_unpin(objects, pin), STATUS_NOT_FOUND);
    assert_int_equal(objects_drop(objects, &id, 1), STATUS_BUSY);
    assert_int_equal(objects_repin(objects, second, 300), STATUS_OK);
    assert_int_equal(objects_expire(objects, 299), 300);
    assert_int_equal(objects_drop(objects, &id, 1), STATUS_BUSY);
    assert_int_equal(objects_expire(objects, 300), ENV_NEVER);
    assert_int_equal(objects_drop(objects, &id, 1), STATUS_OK);
    for (uint64_t foreign = 0; foreign < 5; foreign++) {
        assert_int_equal(objects_unpin(objects, foreign), STATUS_NOT_FOUND);
        assert_int_equal(objects_unpin(objects, UINT64_MAX - foreign), STATUS_NOT_FOUND);
    }
    objects_destroy(objects);
}

static void walking_sees_every_value(void **state)
{
    struct objects *objects = objects_new();
    const struct object *object;
    uint32_t next = 0, seen = 0;
    char key[2] = "a";
    (void)state;

    for (uint64_t i = 0; i < REGION_GRANULES; i++, key[0]++) {
        assert_int_equal(put(objects, key, i, 1, &object), STATUS_OK);
        if (i % 3 == 0) {
            const struct block_key id = object->id;
            assert_int_equal(objects_drop(objects, &id, i + 1), STATUS_OK);
        }
    }
    while ((object = objects_next(objects, &next)) != NULL)
        seen++;
    assert_int_equal(seen, objects_count(objects));
    objects_destroy(objects);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_do_not_overlap),
        cmocka_unit_test(a_pinned_value_stays),
        cmocka_unit_test(walking_sees_every_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
