/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/index_test.c
 *
 * Goal:   the index says exactly what the events said: no block lost, none invented, through clear,
 *         resync, a full table and long collision runs.
 * Method: a seeded random walk against a plain matrix [holder][key] of tiers; keys are few, so that
 *         every pair is hit often, and half of them collide on purpose in the bytes a weak hash
 * would use. SEED repeats a walk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "conductor/index.h"

enum { HOLDERS = 20, KEYS = 40, HOLDINGS = 480, STEPS = 40000 };

static uint64_t seed_of_run(void)
{
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 20260101;
    printf("SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static struct block_key key_of(uint32_t i)
{
    struct block_key key = { { 0 } };
    memcpy(i % 2 ? key.bytes : key.bytes + 12, &i, sizeof(i));
    return key;
}

struct model {
    int tier[HOLDERS][KEYS]; /* -1: not there */
    bool old[HOLDERS][KEYS]; /* not stored since resync_begin */
    uint32_t count;
};

static void model_forget(struct model *model, uint32_t h, uint32_t k)
{
    if (model->tier[h][k] >= 0) model->count--;
    model->tier[h][k] = -1;
}

static void check_match(const struct conductor_index *index, const struct model *model,
                        struct rng *rng)
{
    struct block_key keys[8];
    uint32_t ids[8], matched[HOLDERS];

    for (int i = 0; i < 8; i++) {
        ids[i] = (uint32_t)rng_below(rng, KEYS);
        keys[i] = key_of(ids[i]);
    }
    conductor_index_match(index, keys, 8, matched);
    for (uint32_t h = 0; h < HOLDERS; h++) {
        uint32_t want = 0;
        while (want < 8 && model->tier[h][ids[want]] >= 0)
            want++;
        assert_int_equal(matched[h], want);
    }
}

static void step_store(struct conductor_index *index, struct model *model, uint32_t h, uint32_t k,
                       uint8_t tier)
{
    const struct block_key key = key_of(k);
    const enum status status = conductor_index_store(index, h, &key, tier);

    if (model->tier[h][k] < 0 && model->count == HOLDINGS) {
        assert_int_equal(status, STATUS_FULL);
        return;
    }
    assert_int_equal(status, STATUS_OK);
    if (model->tier[h][k] < 0) model->count++;
    model->tier[h][k] = tier;
    model->old[h][k] = false;
}

static void test_matches_model(void **state)
{
    (void)state;
    struct conductor_index *index = NULL;
    struct model model = { .count = 0 };
    struct rng rng;

    rng_init(&rng, seed_of_run());
    memset(model.tier, -1, sizeof(model.tier));
    assert_int_equal(conductor_index_create(HOLDERS, HOLDINGS, &index), STATUS_OK);
    for (int step = 0; step < STEPS; step++) {
        const uint32_t h = (uint32_t)rng_below(&rng, HOLDERS);
        const uint32_t k = (uint32_t)rng_below(&rng, KEYS);
        const struct block_key key = key_of(k);
        const uint64_t dice = rng_below(&rng, 1000);
        if (dice < 640) {
            step_store(index, &model, h, k, (uint8_t)rng_below(&rng, CONDUCTOR_TIERS));
        } else if (dice < 970) {
            assert_int_equal(conductor_index_remove(index, h, &key), model.tier[h][k] >= 0);
            model_forget(&model, h, k);
        } else if (dice < 975) {
            conductor_index_clear(index, h);
            for (uint32_t i = 0; i < KEYS; i++)
                model_forget(&model, h, i);
        } else if (dice < 988) {
            /* A second begin drops what the first one's snapshot had not repeated. */
            for (uint32_t i = 0; i < KEYS; i++) {
                if (model.old[h][i]) model_forget(&model, h, i);
                model.old[h][i] = true;
            }
            conductor_index_resync_begin(index, h);
        } else {
            for (uint32_t i = 0; i < KEYS; i++) {
                if (model.old[h][i]) model_forget(&model, h, i);
                model.old[h][i] = false;
            }
            conductor_index_resync_end(index, h);
        }
        assert_int_equal(conductor_index_tier(index, h, &key), model.tier[h][k]);
        assert_int_equal(conductor_index_count(index), model.count);
        check_match(index, &model, &rng);
    }
    conductor_index_destroy(index);
}

/* What is said of each holder's last matched block is where it lies. */
static void check_ends(const struct conductor_index *index, const struct block_key *keys,
                       const uint32_t *matched, uint32_t holders)
{
    bool ends_slow[64] = { false };

    assert_true(holders <= 64);
    conductor_index_ends(index, keys, matched, ends_slow);
    for (uint32_t h = 0; h < holders; h++) {
        if (matched[h] == 0) continue;
        const int tier = conductor_index_tier(index, h, &keys[matched[h] - 1]);
        assert_true(ends_slow[h] == (tier == 2));
    }
}

/* Long prompts: each holder has a prefix of its own length, some the same one; then with gaps. */
static void test_long_prompts(void **state)
{
    (void)state;
    enum { LONG = 3000, MANY = 60 };
    static struct block_key keys[LONG];
    struct conductor_index *index = NULL;
    uint32_t matched[MANY], have[MANY];
    struct rng rng;

    rng_init(&rng, seed_of_run());
    for (uint32_t i = 0; i < LONG; i++)
        rng_fill(&rng, keys[i].bytes, sizeof(keys[i].bytes));
    for (int round = 0; round < 20; round++) {
        assert_int_equal(conductor_index_create(MANY, MANY * LONG, &index), STATUS_OK);
        for (uint32_t h = 0; h < MANY; h++) {
            have[h] = h % 3 == 0 && h > 0 ? have[h - 1] : (uint32_t)rng_below(&rng, LONG + 1);
            const uint32_t fast = h % 2 == 0 ? have[h] : (uint32_t)rng_below(&rng, have[h] + 1);
            for (uint32_t i = 0; i < have[h]; i++)
                assert_int_equal(conductor_index_store(index, h, &keys[i], i < fast ? 1 : 2),
                                 STATUS_OK);
        }
        conductor_index_match(index, keys, LONG, matched);
        assert_memory_equal(matched, have, sizeof(matched));
        check_ends(index, keys, matched, MANY);
        for (uint32_t h = 0; h < MANY; h++) {
            if (have[h] == 0) continue;
            (void)conductor_index_remove(index, h, &keys[rng_below(&rng, have[h])]);
        }
        conductor_index_match(index, keys, LONG, matched);
        check_ends(index, keys, matched, MANY);
        for (uint32_t h = 0; h < MANY; h++) {
            const uint32_t m = matched[h];
            assert_true(m <= LONG);
            assert_true(m == 0 || conductor_index_tier(index, h, &keys[m - 1]) >= 0);
            assert_true(m == LONG || conductor_index_tier(index, h, &keys[m]) < 0);
        }
        conductor_index_destroy(index);
    }
}

static void test_full_is_an_answer(void **state)
{
    (void)state;
    struct conductor_index *index = NULL;
    const struct block_key extra = key_of(1000), first = key_of(0);

    assert_int_equal(conductor_index_create(1, 16, &index), STATUS_OK);
    for (uint32_t i = 0; i < 16; i++) {
        const struct block_key key = key_of(i);
        assert_int_equal(conductor_index_store(index, 0, &key, 0), STATUS_OK);
    }
    assert_int_equal(conductor_index_store(index, 0, &extra, 0), STATUS_FULL);
    assert_int_equal(conductor_index_store(index, 0, &first, 1), STATUS_OK); /* there already */
    assert_true(conductor_index_remove(index, 0, &first));
    assert_int_equal(conductor_index_store(index, 0, &extra, 0), STATUS_OK);
    conductor_index_destroy(index);
}

static void test_bytes_per_holding(void **state)
{
    (void)state;
    struct conductor_index *index = NULL;
    const uint32_t holdings = 1000003;

    assert_int_equal(conductor_index_create(16, holdings, &index), STATUS_OK);
    assert_true(conductor_index_bytes(index) <= (uint64_t)holdings * 32);
    conductor_index_destroy(index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_model),
        cmocka_unit_test(test_long_prompts),
        cmocka_unit_test(test_full_is_an_answer),
        cmocka_unit_test(test_bytes_per_holding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
