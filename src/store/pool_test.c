/* SPDX-License-Identifier: Apache-2.0
 *
 * store/pool_test.c
 *
 * Goal:   a page is handed out to one owner at a time, is never evicted or reused while referenced,
 *         pinned or held, and goes in least-recently-used order.
 * Method: the order of eviction by hand, then a random walk against a model that is an array of
 * pages with time stamps, with pool_check() after every step. */
#include "store/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/rng.h"
#include "seed.h"

enum { PAGES = 12, KEYS = 20, LAYERS = 2, PINS = 4, STEPS = 30000 };

static uint64_t seed;

static struct block_key key_of(uint32_t index)
{
    struct block_key key = { { 0 } };
    key.bytes[0] = (uint8_t)(index + 1);
    return key;
}

struct seen {
    uint32_t stored;
    uint32_t removed;
    struct block_key last_removed;
};

static void on_stored(void *ctx, struct store_page page)
{
    (void)page;
    ((struct seen *)ctx)->stored++;
}

static void on_removed(void *ctx, struct store_page page, const struct block_key *key,
                       uint64_t generation)
{
    struct seen *seen = ctx;
    (void)page;
    (void)generation;
    seen->removed++;
    seen->last_removed = *key;
}

static struct pool *pool_new(struct seen *seen)
{
    struct pool *pool = NULL;
    const struct pool_options options = { .pages = PAGES,
                                          .layers = LAYERS,
                                          .pins_max = PINS,
                                          .seed = seed,
                                          .on_stored = on_stored,
                                          .on_removed = on_removed,
                                          .ctx = seen };
    memset(seen, 0, sizeof(*seen));
    assert_int_equal(pool_create(&options, &pool), STATUS_OK);
    return pool;
}

static const uint64_t sums[LAYERS] = { 11, 22 };

static void commit(struct pool *pool, uint32_t key_index, struct store_page page)
{
    const struct block_key key = key_of(key_index);
    assert_int_equal(pool_commit(pool, &key, page, 1, sums), STATUS_OK);
}

static void eviction_takes_the_least_recently_used(void **state)
{
    struct seen seen;
    struct pool *pool = pool_new(&seen);
    struct store_page pages[PAGES];
    struct store_page page = { 77 };
    (void)state;

    assert_int_equal(pool_alloc(pool, 0, PAGES, pages), STATUS_OK);
    assert_int_equal(pool_alloc(pool, 0, 1, &page), STATUS_FULL);
    assert_int_equal(page.index, 77);
    for (uint32_t i = 0; i < PAGES; i++)
        commit(pool, i, pages[i]);
    for (uint32_t i = 0; i < PAGES; i++)
        pool_unref(pool, pages[i]);
    pool_touch(pool, pages[0]); /* so key 1 is now the oldest */
    struct block_key hottest[PAGES + 1];
    const struct block_key first = key_of(0), second = key_of(PAGES - 1);
    assert_int_equal(pool_hottest(pool, PAGES + 1, hottest), PAGES);
    assert_int_equal(pool_hottest(pool, 2, hottest), 2);
    assert_true(block_key_equal(&hottest[1], &first));
    assert_true(block_key_equal(&hottest[0], &second));
    assert_int_equal(pool_alloc(pool, 0, 1, &page), STATUS_OK);
    const struct block_key oldest = key_of(1);
    assert_true(block_key_equal(&seen.last_removed, &oldest));
    assert_int_equal(page.index, pages[1].index);
    /* All or nothing: with one page in use, PAGES more are refused and nothing goes. */
    const uint32_t before = seen.removed;
    assert_int_equal(pool_alloc(pool, 0, PAGES, pages), STATUS_FULL);
    assert_int_equal(seen.removed, before);
    pool_unref(pool, page);
    pool_check(pool);
    pool_destroy(pool);
}

static void commit_keeps_the_first_and_names_the_rest(void **state)
{
    struct seen seen;
    struct pool *pool = pool_new(&seen);
    struct store_page pages[2], found = { 77 };
    const struct block_key key = key_of(3), other = key_of(4);
    (void)state;

    assert_int_equal(pool_alloc(pool, 0, 2, pages), STATUS_OK);
    commit(pool, 3, pages[0]);
    assert_int_equal(pool_commit(pool, &key, pages[1], 2, sums), STATUS_EXISTS);
    assert_null(pool_key(pool, pages[1]));
    assert_int_equal(pool_commit(pool, &key, pages[0], 2, sums), STATUS_EXISTS);
    assert_int_equal(pool_commit(pool, &other, pages[0], 2, sums), STATUS_INVALID);
    assert_true(pool_find(pool, &key, &found));
    assert_int_equal(found.index, pages[0].index);
    assert_int_equal(pool_generation(pool, found), 1);
    assert_memory_equal(pool_sums(pool, found), sums, sizeof(sums));
    /* Dropped while referenced: no identity any more, still the owner's. */
    assert_int_equal(pool_drop(pool, &key), STATUS_OK);
    assert_int_equal(pool_drop(pool, &key), STATUS_NOT_FOUND);
    assert_int_equal(pool_refs(pool, pages[0]), 1);
    pool_unref(pool, pages[0]);
    pool_unref(pool, pages[1]);
    pool_check(pool);
    pool_destroy(pool);
}

static void held_pages_wait(void **state)
{
    struct seen seen;
    struct pool *pool = pool_new(&seen);
    struct store_page pages[PAGES], page;
    (void)state;

    assert_int_equal(pool_alloc(pool, 0, PAGES, pages), STATUS_OK);
    pool_unref_after(pool, pages[0], 1000);
    assert_int_equal(pool_alloc(pool, 999, 1, &page), STATUS_FULL);
    assert_int_equal(pool_expire(pool, 999), 1000);
    assert_int_equal(pool_alloc(pool, 1000, 1, &page), STATUS_OK);
    assert_int_equal(page.index, pages[0].index);
    for (uint32_t i = 0; i < PAGES; i++)
        pool_unref(pool, pages[i]);
    pool_check(pool);
    pool_destroy(pool);
}

static void foreign_pin_ids_are_harmless(void **state)
{
    struct seen seen;
    struct pool *pool = pool_new(&seen);
    struct store_page page;
    struct pool_pin pin;
    (void)state;

    for (uint64_t id = 0; id < 10; id++) {
        assert_int_equal(pool_unpin(pool, (struct pool_pin){ id }), STATUS_NOT_FOUND);
        assert_int_equal(pool_unpin(pool, (struct pool_pin){ UINT64_MAX - id }), STATUS_NOT_FOUND);
    }
    assert_int_equal(pool_alloc(pool, 0, 1, &page), STATUS_OK);
    commit(pool, 0, page);
    assert_int_equal(pool_pin(pool, &page, 1, 10, &pin), STATUS_OK);
    assert_int_equal(pool_repin(pool, pin, 20), STATUS_OK);
    assert_int_equal(pool_expire(pool, 19), 20);
    assert_int_equal(pool_expire(pool, 20), ENV_NEVER);
    assert_int_equal(pool_unpin(pool, pin), STATUS_NOT_FOUND); /* its lease is over */
    pool_unref(pool, page);
    pool_check(pool);
    pool_destroy(pool);
}

/* ---- the walk ---- */

struct model_page {
    uint32_t refs;
    uint32_t pins;
    int key; /* -1: not committed */
    uint64_t used;
    uint64_t hold;
};

struct model_pin {
    struct pool_pin pin;
    struct store_page pages[3];
    uint32_t count;
};

struct model {
    struct model_page pages[PAGES];
    struct model_pin pins[PINS];
    uint64_t now;
    uint64_t stamp;
};

static bool idle(const struct model_page *page)
{
    return page->refs + page->pins == 0;
}

/* A hold that is over is over when the pool looks, which is when it is short or told; the pages
 * then join the others in the order in which they were let go. */
static void model_holds_end(struct model *model)
{
    for (;;) {
        struct model_page *first = NULL;
        for (uint32_t i = 0; i < PAGES; i++) {
            struct model_page *page = &model->pages[i];
            if (page->hold == 0 || page->hold > model->now || !idle(page)) continue;
            if (first == NULL || page->used < first->used) first = page;
        }
        if (first == NULL) return;
        first->hold = 0;
        first->used = ++model->stamp;
    }
}

static uint32_t model_takeable(const struct model *model)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < PAGES; i++) {
        count += idle(&model->pages[i]) && model->pages[i].hold == 0;
    }
    return count;
}

static int model_key_page(const struct model *model, int key)
{
    for (int i = 0; i < PAGES; i++) {
        if (model->pages[i].key == key) return i;
    }
    return -1;
}

static void walk_alloc(struct pool *pool, struct model *model, uint32_t count)
{
    struct store_page out[PAGES];
    if (model_takeable(model) < count) model_holds_end(model);
    const bool fits = model_takeable(model) >= count;
    assert_int_equal(pool_alloc(pool, model->now, count, out), fits ? STATUS_OK : STATUS_FULL);
    if (!fits) return;
    for (uint32_t i = 0; i < count; i++) {
        struct model_page *page = &model->pages[out[i].index];
        assert_true(idle(page) && page->hold == 0);
        for (uint32_t j = 0; j < PAGES && page->key >= 0; j++) { /* the oldest, and none is free */
            const struct model_page *other = &model->pages[j];
            if (other == page || !idle(other) || other->hold > 0) continue;
            assert_true(other->key >= 0 && other->used > page->used);
        }
        page->refs = 1;
        page->key = -1;
    }
}

static void walk_pin(struct pool *pool, struct model *model, struct model_pin *slot)
{
    if (slot->pin.id != 0) {
        assert_int_equal(pool_unpin(pool, slot->pin), STATUS_OK);
        for (uint32_t i = 0; i < slot->count; i++) {
            struct model_page *page = &model->pages[slot->pages[i].index];
            if (--page->pins == 0) page->used = ++model->stamp;
        }
        slot->pin.id = 0;
        return;
    }
    slot->count = 0;
    for (uint32_t i = 0; i < PAGES && slot->count < 3; i++) {
        if (model->pages[i].key >= 0) slot->pages[slot->count++].index = i;
    }
    if (slot->count == 0) return;
    assert_int_equal(pool_pin(pool, slot->pages, slot->count, ENV_NEVER, &slot->pin), STATUS_OK);
    for (uint32_t i = 0; i < slot->count; i++)
        model->pages[slot->pages[i].index].pins++;
}

static void pool_matches_model(void **state)
{
    struct seen seen;
    struct pool *pool = pool_new(&seen);
    struct model model = { .now = 1 };
    struct rng rng;
    (void)state;

    rng_init(&rng, seed);
    for (uint32_t i = 0; i < PAGES; i++)
        model.pages[i].key = -1;
    for (int step = 0; step < STEPS; step++) {
        const struct store_page ref = { (uint32_t)rng_below(&rng, PAGES) };
        struct model_page *page = &model.pages[ref.index];
        const int key_index = (int)rng_below(&rng, KEYS);
        const struct block_key key = key_of((uint32_t)key_index);
        const int holder = model_key_page(&model, key_index);

        switch (rng_below(&rng, 9)) {
        case 0: walk_alloc(pool, &model, (uint32_t)rng_below(&rng, 4)); break;
        case 1:
            if (page->refs == 0 && page->key < 0) break; /* free or only held: nobody's */
            pool_ref(pool, ref);
            page->refs++;
            break;
        case 2:
        case 3:
            if (page->refs == 0) break;
            if (rng_below(&rng, 4) == 0) {
                const uint64_t until = model.now + rng_below(&rng, 40) + 1;
                pool_unref_after(pool, ref, until);
                if (until > page->hold) page->hold = until;
            } else {
                pool_unref(pool, ref);
            }
            page->refs--;
            if (idle(page)) page->used = ++model.stamp;
            break;
        case 4: {
            if (page->refs == 0) break;
            const enum status status = pool_commit(pool, &key, ref, (uint64_t)step, sums);
            if (page->key >= 0) {
                assert_int_equal(status, page->key == key_index ? STATUS_EXISTS : STATUS_INVALID);
            } else if (holder >= 0) {
                assert_int_equal(status, STATUS_EXISTS);
                struct model_page *present = &model.pages[holder];
                if (idle(present) && present->hold == 0) present->used = ++model.stamp;
            } else {
                assert_int_equal(status, STATUS_OK);
                page->key = key_index;
            }
            break;
        }
        case 5:
            if (rng_below(&rng, 4) != 0) break;
            assert_int_equal(pool_drop(pool, &key), holder >= 0 ? STATUS_OK : STATUS_NOT_FOUND);
            if (holder >= 0) model.pages[holder].key = -1;
            break;
        case 6: walk_pin(pool, &model, &model.pins[rng_below(&rng, PINS)]); break;
        case 7: model.now += rng_below(&rng, 3); break;
        case 8: {
            struct store_page found;
            assert_int_equal(pool_find(pool, &key, &found), holder >= 0);
            if (holder >= 0) assert_int_equal(found.index, holder);
            break;
        }
        }
        pool_check(pool);
    }
    assert_true(seen.stored > 100 && seen.removed > 100); /* the walk went somewhere */
    pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eviction_takes_the_least_recently_used),
        cmocka_unit_test(commit_keeps_the_first_and_names_the_rest),
        cmocka_unit_test(held_pages_wait),
        cmocka_unit_test(foreign_pin_ids_are_harmless),
        cmocka_unit_test(pool_matches_model),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
