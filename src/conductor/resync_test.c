/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/resync_test.c
 *
 * Goal:   whatever becomes of events on their way, after a snapshot the index says of its holder
 *         exactly what the holder has, and of the other holders what it said before; memory never
 *         grows.
 * Method: holders that store and evict, each with a wire that loses, repeats and reorders what they
 *         tell. A snapshot comes in pieces, in any order, some twice, with pieces of other holders'
 *         traffic in between; some are broken off and begun again. Against an array of who has
 *         what. SEED repeats a run. */
#include "yolk/conductor.h"

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

enum { HOLDERS = 6, KEYS = 400, WIRE = 30, STEPS = 30000, HOLDINGS = HOLDERS * KEYS };

struct event {
    bool stored;
    uint32_t key;
};

struct holder {
    bool has[KEYS];
    struct event wire[WIRE]; /* told and not arrived */
    uint32_t on_wire;
};

struct walk {
    struct conductor_index *index;
    struct rng rng;
    struct holder holders[HOLDERS];
    uint32_t lost, reordered, wrong, snapshots;
};

static struct block_key key_of(uint32_t i)
{
    const uint64_t low = rng_counter(7, i), high = rng_counter(8, i);
    struct block_key key;

    memcpy(key.bytes, &low, sizeof(low));
    memcpy(key.bytes + sizeof(low), &high, sizeof(high));
    return key;
}

static void store(struct walk *w, uint32_t h, uint32_t k)
{
    const struct block_key key = key_of(k);
    assert_int_equal(conductor_index_store(w->index, h, &key, (uint8_t)(k % CONDUCTOR_TIERS)),
                     STATUS_OK);
}

static void arrive(struct walk *w, uint32_t h, const struct event *event)
{
    const struct block_key key = key_of(event->key);

    if (event->stored) {
        store(w, h, event->key);
    } else {
        (void)conductor_index_remove(w->index, h, &key);
    }
}

/* The holder changes, and tells. */
static void step_change(struct walk *w, uint32_t h)
{
    struct holder *holder = &w->holders[h];
    const uint32_t k = (uint32_t)rng_below(&w->rng, KEYS);

    holder->has[k] = !holder->has[k];
    if (holder->on_wire == WIRE) {
        w->lost++;
        return;
    }
    holder->wire[holder->on_wire++] = (struct event){ holder->has[k], k };
}

/* Something arrives, not always the oldest; it may stay, and come again; or be lost. */
static void step_wire(struct walk *w, uint32_t h)
{
    struct holder *holder = &w->holders[h];

    if (holder->on_wire == 0) return;
    const uint32_t at = (uint32_t)rng_below(&w->rng, holder->on_wire);
    const uint64_t fate = rng_below(&w->rng, 10);
    w->reordered += at > 0;
    if (fate > 0) arrive(w, h, &holder->wire[at]);
    w->lost += fate == 0;
    if (fate > 1) holder->wire[at] = holder->wire[--holder->on_wire];
}

static bool says(const struct walk *w, uint32_t h, uint32_t k)
{
    const struct block_key key = key_of(k);
    return conductor_index_tier(w->index, h, &key) >= 0;
}

static void check_holder(const struct walk *w, uint32_t h)
{
    for (uint32_t k = 0; k < KEYS; k++) {
        const struct block_key key = key_of(k);
        const int tier = w->holders[h].has[k] ? (int)(k % CONDUCTOR_TIERS) : -1;
        assert_int_equal(conductor_index_tier(w->index, h, &key), tier);
    }
}

/* What the holder has now, in any order, some of it twice. The connection is new: what was on the
 * wire is gone. */
static void snapshot(struct walk *w, uint32_t h, uint32_t pieces)
{
    uint32_t order[KEYS];

    w->holders[h].on_wire = 0;
    conductor_index_resync_begin(w->index, h);
    for (uint32_t i = 0; i < KEYS; i++) {
        const uint32_t j = (uint32_t)rng_below(&w->rng, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (uint32_t i = 0; i < pieces; i++) {
        if (w->holders[h].has[order[i]]) store(w, h, order[i]);
        if (i > 0 && w->holders[h].has[order[i - 1]] && i % 5 == 0) store(w, h, order[i - 1]);
        const uint32_t other = (uint32_t)rng_below(&w->rng, HOLDERS);
        if (other != h) step_wire(w, other);
    }
}

static void step_resync(struct walk *w, uint32_t h)
{
    bool before[HOLDERS][KEYS];

    for (uint32_t k = 0; k < KEYS; k++)
        w->wrong += says(w, h, k) != w->holders[h].has[k];
    if (rng_below(&w->rng, 3) == 0) snapshot(w, h, (uint32_t)rng_below(&w->rng, KEYS)); /* broken */
    snapshot(w, h, KEYS);
    for (uint32_t other = 0; other < HOLDERS; other++) {
        for (uint32_t k = 0; k < KEYS; k++)
            before[other][k] = says(w, other, k);
    }
    conductor_index_resync_end(w->index, h);
    check_holder(w, h);
    for (uint32_t other = 0; other < HOLDERS; other++) {
        for (uint32_t k = 0; k < KEYS && other != h; k++)
            assert_int_equal(says(w, other, k), before[other][k]);
    }
    w->snapshots++;
}

static void test_a_snapshot_makes_good(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 12;
    static struct walk w;

    printf("SEED=%llu\n", (unsigned long long)seed);
    rng_init(&w.rng, seed);
    assert_int_equal(conductor_index_create(HOLDERS, HOLDINGS, &w.index), STATUS_OK);
    const uint64_t bytes = conductor_index_bytes(w.index);
    for (uint32_t step = 0; step < STEPS; step++) {
        const uint32_t h = (uint32_t)rng_below(&w.rng, HOLDERS);
        const uint64_t dice = rng_below(&w.rng, 1000);
        if (dice < 500) {
            step_change(&w, h);
        } else if (dice < 995) {
            step_wire(&w, h);
        } else {
            step_resync(&w, h);
        }
    }
    for (uint32_t h = 0; h < HOLDERS; h++)
        step_resync(&w, h);
    uint64_t all = 0;
    for (uint32_t h = 0; h < HOLDERS; h++) {
        check_holder(&w, h);
        for (uint32_t k = 0; k < KEYS; k++)
            all += w.holders[h].has[k];
    }
    assert_int_equal(conductor_index_count(w.index), all);
    assert_int_equal(conductor_index_bytes(w.index), bytes);
    /* The wire was bad enough to matter. */
    assert_true(w.lost > 100 && w.reordered > 100 && w.wrong > 100 && w.snapshots > 50);
    conductor_index_destroy(w.index);
}

/* A holder that does not fit is forgotten in part, and its snapshot says so; room that comes back
 * is used by the next one. */
static void test_a_snapshot_that_does_not_fit(void **state)
{
    (void)state;
    struct conductor_index *index = NULL;
    uint32_t full = 0;

    assert_int_equal(conductor_index_create(2, KEYS, &index), STATUS_OK);
    for (int round = 0; round < 2; round++) {
        for (uint32_t h = 0; h < 2; h++) {
            conductor_index_resync_begin(index, h);
            for (uint32_t k = 0; k < KEYS * 3 / 4; k++) {
                const struct block_key key = key_of(h * KEYS + k);
                full += conductor_index_store(index, h, &key, 0) == STATUS_FULL;
            }
            conductor_index_resync_end(index, h);
            assert_true(conductor_index_count(index) <= KEYS);
        }
    }
    assert_int_equal(full, 2 * (2 * (KEYS * 3 / 4) - KEYS));
    assert_int_equal(conductor_index_count(index), KEYS);
    conductor_index_clear(index, 0);
    assert_int_equal(conductor_index_count(index), KEYS - KEYS * 3 / 4);
    conductor_index_destroy(index);
}

/* ---- events of nobody ---- */

static void test_unknown_instance(void **state)
{
    (void)state;
    struct yolk_conductor_options options = yolk_conductor_defaults();
    struct yolk_conductor *c = NULL;
    struct yolk_conductor_stats stats;
    const struct yolk_instance node = { "p", "h", YOLK_ROLE_PREFILL, 10, 10 };
    const struct block_key keys[2] = { key_of(1), key_of(2) };
    struct yolk_instance_id id;

    options.block_tokens = 32;
    options.block_size = 1;
    assert_int_equal(yolk_conductor_create(&options, &c, NULL), STATUS_OK);
    assert_int_equal(yolk_conductor_add(c, &node, &id), STATUS_OK);
    const struct yolk_instance_id unknown[] = { { id.index + 1 },
                                                { options.instances_max },
                                                YOLK_INSTANCE_NONE };
    assert_int_equal(yolk_conductor_stored(c, id, keys, 2, YOLK_TIER_DRAM), STATUS_OK);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(yolk_conductor_stored(c, unknown[i], keys, 2, YOLK_TIER_DRAM),
                         STATUS_NOT_FOUND);
        yolk_conductor_removed(c, unknown[i], keys, 2);
        yolk_conductor_cleared(c, unknown[i]);
        yolk_conductor_resync_begin(c, unknown[i]);
        yolk_conductor_resync_end(c, unknown[i]);
        yolk_conductor_stats(c, &stats);
        assert_int_equal(stats.events_unknown, (i + 1) * 5);
        assert_int_equal(stats.holdings, 2);
        assert_int_equal(stats.events_stored, 2);
        assert_int_equal(stats.events_removed, 0);
    }
    yolk_conductor_remove(c, id);
    assert_int_equal(yolk_conductor_stored(c, id, keys, 2, YOLK_TIER_DRAM), STATUS_NOT_FOUND);
    yolk_conductor_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_snapshot_makes_good),
        cmocka_unit_test(test_a_snapshot_that_does_not_fit),
        cmocka_unit_test(test_unknown_instance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
