/* SPDX-License-Identifier: Apache-2.0
 *
 * store/known_test.c
 *
 * Goal:   what is remembered is what was put last under an identity, whole, until its time is over
 *         or it is forgotten; nothing that was displaced is mixed with what displaced it.
 * Method: a random walk over few identities, half of which share sets, beside an array of what was
 *         put: what is found must be that, and nothing may be found that should not be. What has a
 *         set for itself must be found. */
#include "store/known.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { IDS = 24, SHARED = 3, STEPS = 20000, SUMS_MAX = 5 };

struct model {
    bool there;
    uint64_t mark; /* of which all the value is made */
    uint32_t sums;
    uint64_t until_ns;
};

/* The first ones have a set for themselves, the others share SHARED sets. */
static struct block_key id_of(unsigned i)
{
    const uint64_t set = i < IDS / 2 ? 1000 + i : i % SHARED;
    const uint64_t words[2] = { set | (uint64_t)(i % 5) << 32, i }; /* tags are few, too */
    struct block_key id;
    memcpy(id.bytes, words, sizeof(words));
    return id;
}

static void put(struct known *known, unsigned i, struct model *model)
{
    uint64_t sums[KNOWN_SUMS_MAX + 1];
    struct known_value value = { .id = id_of(i),
                                 .node.epoch = model->mark,
                                 .address = model->mark + 1,
                                 .size = model->mark + 2,
                                 .piece_size = 7,
                                 .sums_count = model->sums,
                                 .until_ns = model->until_ns };
    snprintf(value.node.segment, sizeof(value.node.segment), "%llu",
             (unsigned long long)model->mark);
    for (uint32_t s = 0; s < model->sums; s++)
        sums[s] = model->mark + s;
    model->there = true;
    known_put(known, &value, sums);
}

/* Whether it is found; then it is as it was put. */
static bool found(const struct known *known, unsigned i, const struct model *model, uint64_t now_ns)
{
    const struct block_key id = id_of(i);
    const uint64_t *sums;
    char segment[32];
    known_expect(known, &id); /* which changes nothing */
    known_expect_value(known, &id);
    const struct known_value *value = known_find(known, &id, now_ns, &sums);
    if (value == NULL) return false;

    assert_true(model->there && now_ns < model->until_ns);
    assert_true(block_key_equal(&value->id, &id));
    assert_int_equal(value->node.epoch, model->mark);
    assert_int_equal(value->address, model->mark + 1);
    assert_int_equal(value->size, model->mark + 2);
    assert_int_equal(value->sums_count, model->sums);
    snprintf(segment, sizeof(segment), "%llu", (unsigned long long)model->mark);
    assert_string_equal(value->node.segment, segment);
    for (uint32_t s = 0; s < model->sums; s++)
        assert_int_equal(sums[s], model->mark + s);
    return true;
}

static void what_is_found_was_put_last(void **state)
{
    struct model models[IDS] = { { 0 } };
    struct known *known;
    struct rng rng;
    uint64_t now_ns = 1;
    unsigned hits = 0;
    (void)state;

    rng_init(&rng, test_seed());
    assert_int_equal(known_create(&known), STATUS_OK);
    for (unsigned step = 0; step < STEPS; step++) {
        const unsigned i = (unsigned)rng_below(&rng, IDS);
        struct model *model = &models[i];
        const uint64_t dice = rng_below(&rng, 8);
        if (dice < 2) {
            *model = (struct model){ .mark = step + 1,
                                     .sums = 1 + (uint32_t)rng_below(&rng, SUMS_MAX),
                                     .until_ns = now_ns + rng_below(&rng, 40) };
            put(known, i, model);
        } else if (dice == 2) {
            const struct block_key id = id_of(i);
            known_forget(known, &id);
            model->there = false;
        } else if (dice == 3) {
            now_ns += rng_below(&rng, 3);
        } else {
            const bool is = found(known, i, model, now_ns);
            hits += is;
            if (i < IDS / 2) assert_int_equal(is, model->there && now_ns < model->until_ns);
        }
    }
    assert_true(hits > STEPS / 20);
    known_destroy(known);
}

static void what_is_too_large_is_not_remembered(void **state)
{
    struct model model = { .mark = 5, .sums = KNOWN_SUMS_MAX, .until_ns = 10 };
    struct known *known;
    (void)state;

    assert_int_equal(known_create(&known), STATUS_OK);
    put(known, 0, &model);
    assert_true(found(known, 0, &model, 9));
    model.sums = KNOWN_SUMS_MAX + 1;
    put(known, 0, &model);
    assert_false(found(known, 0, &model, 9)); /* nor what it was before */
    known_destroy(known);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_found_was_put_last),
        cmocka_unit_test(what_is_too_large_is_not_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
