/* SPDX-License-Identifier: Apache-2.0
 *
 * store/slab_test.c
 *
 * Goal:   a record keeps its bytes and its number while it lives; a walk in pages sees who lives
 * throughout exactly once; memory goes back when records do.
 * Method: a random walk beside an array of who lives, growing and shrinking by turns. */
#include "store/slab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { RECORDS = 5 * SLAB_CHUNK, STEPS = 100000, WALK_PAGE = 100 };

struct record {
    uint64_t stamp;
    uint64_t rest[3];
};

struct model {
    uint64_t stamps[RECORDS + SLAB_CHUNK]; /* by number; 0: nobody */
    uint32_t numbers[RECORDS];
    uint32_t count;
};

static uint64_t seed;

static void grow(struct slab *slab, struct model *model, uint64_t stamp)
{
    uint32_t index = SLAB_NONE;
    struct record *record = slab_alloc(slab, &index);
    if (model->count == RECORDS) {
        assert_null(record);
        return;
    }
    assert_non_null(record);
    assert_true(index < RECORDS + SLAB_CHUNK && model->stamps[index] == 0);
    assert_true(record->stamp == 0 && record->rest[2] == 0);
    record->stamp = stamp;
    record->rest[2] = ~stamp;
    model->stamps[index] = stamp;
    model->numbers[model->count++] = index;
}

static void shrink(struct slab *slab, struct model *model, struct rng *rng)
{
    if (model->count == 0) return;
    const uint32_t victim = (uint32_t)rng_below(rng, model->count);
    const uint32_t index = model->numbers[victim];
    const struct record *record = slab_at(slab, index);
    assert_true(record->stamp == model->stamps[index] && record->rest[2] == ~record->stamp);
    slab_free(slab, index);
    model->stamps[index] = 0;
    model->numbers[victim] = model->numbers[--model->count];
}

/* A walk in pages, between which others come and go: those who stay are all seen, in order. */
static void walk(struct slab *slab, struct model *model, struct rng *rng)
{
    static uint64_t before[RECORDS + SLAB_CHUNK];
    uint32_t next = 0;

    memcpy(before, model->stamps, sizeof(before));
    for (uint32_t n = 0; (next = slab_next(slab, next)) != SLAB_NONE; next++) {
        assert_true(model->stamps[next] != 0);
        if (before[next] == model->stamps[next]) before[next] = 0;
        if (++n % WALK_PAGE == 0) shrink(slab, model, rng);
    }
    for (uint32_t i = 0; i < RECORDS + SLAB_CHUNK; i++)
        assert_true(before[i] == 0 || before[i] != model->stamps[i]);
}

static void slab_matches_array(void **state)
{
    static struct model model;
    struct slab *slab = slab_create(sizeof(struct record), RECORDS);
    struct rng rng;
    uint64_t peak = 0;
    (void)state;

    rng_init(&rng, seed);
    for (uint64_t step = 1; step <= STEPS; step++) {
        const bool growing = step / (STEPS / 4) % 2 == 0;
        if ((rng_below(&rng, 8) != 0) == growing) {
            grow(slab, &model, step);
        } else {
            shrink(slab, &model, &rng);
        }
        assert_int_equal(slab_count(slab), model.count);
        if (step % 10000 == 0) walk(slab, &model, &rng);
        if (slab_memory(slab) > peak) peak = slab_memory(slab);
    }
    while (model.count > 0)
        shrink(slab, &model, &rng);
    assert_int_equal(slab_next(slab, 0), SLAB_NONE);
    assert_true(slab_memory(slab) < peak / 4);
    grow(slab, &model, 1); /* and all of it can be used again */
    while (model.count < RECORDS)
        grow(slab, &model, 1);
    grow(slab, &model, 1);
    slab_destroy(slab);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(slab_matches_array) };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
