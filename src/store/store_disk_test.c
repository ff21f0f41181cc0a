/* SPDX-License-Identifier: Apache-2.0
 *
 * store/store_disk_test.c
 *
 * Goal:   what leaves a node's pages is still there: for itself, for others, after a restart and
 *         after the power went; everybody who listens knows in which tier a block is.
 * Method: a simulated cluster whose nodes have a disk that holds more than their pages, one
 *         behaviour at a time; faults at random are store_sim_test's and ssd_sim_test's. */
#include "store/cluster_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "store/events.h"
#include "store/node_int.h"
#include "store/node_tier.h"
#include "seed.h"

enum { BLOCKS = 60, LONG = 6 };

static void cluster_start(struct sim_cluster *cluster, struct env_sim_options options)
{
    options.seed = test_seed();
    sim_cluster_start(cluster, &options);
    cluster->disk_size = 4 << 20;
    sim_nodes_restart(cluster);
    sim_run_ms(cluster, 1000);
}

static void store_block(struct sim_node *node, uint64_t n)
{
    struct store_page page = { 0 };
    const struct block_key key = sim_key(n);
    assert_int_equal(store_node_alloc(node->node, 1, &page), STATUS_OK);
    sim_bytes(n, store_node_data(node->node, page), SIM_PAGE_SIZE);
    assert_int_equal(store_node_commit(node->node, &key, page, NULL), STATUS_OK);
    store_node_unref(node->node, page);
}

/* More blocks than pages, slowly enough for the disk. */
static void store_blocks(struct sim_cluster *cluster, struct sim_node *node)
{
    for (uint64_t n = 0; n < BLOCKS; n++) {
        store_block(node, n);
        sim_run_ms(cluster, 10);
    }
    sim_run_ms(cluster, 3000); /* and until it is synced */
}

struct loaded {
    bool done;
    uint32_t layers;
    uint32_t cancel_at;
    struct store_fetch *fetch;
    struct store_fetch_result result;
};

static void on_layer(void *ctx, uint32_t layer, uint32_t blocks)
{
    struct loaded *loaded = ctx;
    assert_int_equal(layer, loaded->layers++);
    assert_true(blocks > 0);
    if (layer == loaded->cancel_at) store_fetch_cancel(loaded->fetch);
}

static void on_done(void *ctx, const struct store_fetch_result *result)
{
    struct loaded *loaded = ctx;
    assert_false(loaded->done);
    loaded->done = true;
    loaded->result = *result;
}

static enum status load_start(struct sim_node *node, const char *holder, uint64_t first,
                              uint32_t count, struct store_page *pages, struct loaded *loaded)
{
    struct block_key keys[BLOCKS];
    for (uint32_t i = 0; i < count; i++)
        keys[i] = sim_key(first + i);
    assert_int_equal(store_node_alloc(node->node, count, pages), STATUS_OK);
    const struct store_fetch_options options = { .holder = holder,
                                                 .keys = keys,
                                                 .pages = pages,
                                                 .count = count,
                                                 .deadline_ns =
                                                     env_now_ns(node->env) + ENV_NS_PER_S,
                                                 .on_layer = on_layer,
                                                 .on_done = on_done,
                                                 .ctx = loaded };
    return store_node_fetch(node->node, &options, &loaded->fetch);
}

static void unref_all(struct sim_node *node, const struct store_page *pages, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        store_node_unref(node->node, pages[i]);
    pool_check(node->node->pool);
}

static void expect_loaded(struct sim_cluster *cluster, struct sim_node *node, const char *holder,
                          uint64_t first)
{
    struct loaded loaded = { .cancel_at = UINT32_MAX };
    struct store_page pages[LONG];
    uint8_t want[SIM_PAGE_SIZE];

    assert_int_equal(load_start(node, holder, first, LONG, pages, &loaded), STATUS_OK);
    assert_false(loaded.done);
    sim_run_ms(cluster, 500);
    assert_true(loaded.done);
    assert_int_equal(loaded.result.blocks, LONG);
    assert_int_equal(loaded.result.reason, STORE_MISS_NONE);
    assert_int_equal(loaded.layers, SIM_LAYERS);
    for (uint32_t i = 0; i < LONG; i++) {
        sim_bytes(first + i, want, sizeof(want));
        assert_memory_equal(store_node_data(node->node, pages[i]), want,
                            SIM_LAYERS * SIM_LAYER_SIZE);
    }
    unref_all(node, pages, LONG);
}

static bool in_pages(const struct sim_node *node, uint64_t n)
{
    const struct block_key key = sim_key(n);
    return pool_match(node->node->pool, &key, 1) == 1;
}

static void what_was_evicted_is_loaded_again(void **state)
{
    struct sim_cluster cluster;
    struct store_node_counts counts;
    (void)state;

    cluster_start(&cluster, (struct env_sim_options){ 0 });
    struct sim_node *node = &cluster.nodes[0];
    store_blocks(&cluster, node);
    assert_false(in_pages(node, 0));
    for (uint64_t n = 0; n < BLOCKS; n++) {
        const struct block_key key = sim_key(n);
        assert_int_equal(store_node_match(node->node, &key, 1), 1);
    }
    store_node_counts(node->node, &counts);
    assert_int_equal(counts.ssd.blocks, BLOCKS);
    assert_int_equal(counts.disk_dropped_total, 0);
    expect_loaded(&cluster, node, NULL, 0);
    assert_true(in_pages(node, 0));
    expect_loaded(&cluster, node, NULL, LONG / 2); /* half of them from other pages */
    sim_cluster_end(&cluster);
}

static void others_are_served_from_the_disk(void **state)
{
    struct sim_cluster cluster;
    struct store_node_counts counts;
    (void)state;

    cluster_start(&cluster, (struct env_sim_options){ 0 });
    struct sim_node *from = &cluster.nodes[0];
    store_blocks(&cluster, from);
    expect_loaded(&cluster, &cluster.nodes[1], from->rpc_address, 0);
    store_node_counts(from->node, &counts);
    assert_int_equal(counts.disk_promoted_total, LONG);
    assert_int_equal(counts.pins, 0);
    assert_true(in_pages(from, 0));
    sim_cluster_end(&cluster);
}

static void a_restart_keeps_them(void **state)
{
    struct sim_cluster cluster;
    (void)state;

    for (int power = 0; power < 2; power++) {
        cluster_start(&cluster, (struct env_sim_options){ 0 });
        struct sim_node *node = &cluster.nodes[0];
        store_blocks(&cluster, node);
        if (power != 0) env_sim_power_off(cluster.sim, node->host);
        sim_node_kill(node);
        sim_node_start(&cluster, 0);
        for (uint64_t n = 0; n < BLOCKS; n++) {
            const struct block_key key = sim_key(n);
            assert_int_equal(store_node_match(node->node, &key, 1), 1);
        }
        expect_loaded(&cluster, node, NULL, 0);
        sim_cluster_end(&cluster);
    }
}

static void loads_end_early_and_fall_short(void **state)
{
    struct sim_cluster cluster;
    struct store_page pages[LONG];
    (void)state;

    cluster_start(&cluster, (struct env_sim_options){ 0 });
    struct sim_node *node = &cluster.nodes[0];
    store_blocks(&cluster, node);

    struct loaded loaded = { .cancel_at = 0 }; /* by the first layer's callback */
    assert_int_equal(load_start(node, NULL, 0, LONG, pages, &loaded), STATUS_OK);
    sim_run_ms(&cluster, 500);
    assert_true(loaded.done && loaded.layers >= 1);
    assert_int_equal(loaded.result.blocks, 0);
    assert_int_equal(loaded.result.reason, STORE_MISS_CANCELLED);
    unref_all(node, pages, LONG);

    loaded = (struct loaded){ .cancel_at = UINT32_MAX };
    assert_int_equal(load_start(node, NULL, 0, LONG, pages, &loaded), STATUS_OK);
    store_fetch_cancel(loaded.fetch); /* before anything was read */
    sim_run_ms(&cluster, 500);
    assert_true(loaded.done && loaded.layers == 0);
    unref_all(node, pages, LONG);

    const struct block_key gone = sim_key(2);
    assert_int_equal(store_node_drop(node->node, &gone), STATUS_OK);
    assert_int_equal(store_node_match(node->node, &gone, 1), 0);
    loaded = (struct loaded){ .cancel_at = UINT32_MAX };
    assert_int_equal(load_start(node, NULL, 0, LONG, pages, &loaded), STATUS_OK);
    sim_run_ms(&cluster, 500);
    assert_int_equal(loaded.result.blocks, 2);
    assert_int_equal(loaded.result.reason, STORE_MISS_ABSENT);
    unref_all(node, pages, LONG);

    loaded = (struct loaded){ .cancel_at = UINT32_MAX };
    assert_int_equal(load_start(node, NULL, 2, 1, pages, &loaded), STATUS_NOT_FOUND);
    unref_all(node, pages, 1);
    sim_cluster_end(&cluster);
}

static void damage_is_a_miss(void **state)
{
    struct sim_cluster cluster;
    struct store_page pages[LONG];
    struct store_node_counts counts;
    (void)state;

    cluster_start(&cluster, (struct env_sim_options){ 0 });
    struct sim_node *node = &cluster.nodes[0];
    store_blocks(&cluster, node);
    for (int i = 0; i < 3000; i++)
        assert_true(env_sim_disk_damage(cluster.sim, node->host));
    for (uint64_t first = 0; first < 30; first += LONG) {
        struct loaded loaded = { .cancel_at = UINT32_MAX };
        if (load_start(node, NULL, first, LONG, pages, &loaded) == STATUS_OK) {
            sim_run_ms(&cluster, 500);
            assert_true(loaded.done && loaded.result.blocks < LONG);
            assert_int_equal(loaded.result.reason, STORE_MISS_CHECKSUM);
        }
        unref_all(node, pages, LONG);
    }
    store_node_counts(node->node, &counts);
    assert_true(counts.ssd.corrupt_total > 0);
    assert_int_equal(counts.disk_misses_total, counts.ssd.corrupt_total);
    ssd_check(node_tier_ssd(node->node));
    sim_cluster_end(&cluster);
}

/* ---- listeners ---- */

struct heard {
    int tier[BLOCKS]; /* -1: not there */
    unsigned synced;
};

static void on_reset(void *ctx, uint64_t epoch)
{
    struct heard *heard = ctx;
    assert_true(epoch != 0);
    memset(heard->tier, -1, sizeof(heard->tier));
}

static void on_events(void *ctx, const struct store_event *events, uint32_t count)
{
    struct heard *heard = ctx;
    for (uint32_t i = 0; i < count; i++) {
        for (uint64_t n = 0; n < BLOCKS; n++) {
            const struct block_key key = sim_key(n);
            if (!block_key_equal(&key, &events[i].id)) continue;
            heard->tier[n] = events[i].kind == STORE_EVENT_STORED ? (int)events[i].tier : -1;
        }
    }
}

static void on_synced(void *ctx)
{
    ((struct heard *)ctx)->synced++;
}

static void expect_heard(const struct heard *heard, const struct sim_node *node)
{
    for (uint64_t n = 0; n < BLOCKS; n++) {
        const struct block_key key = sim_key(n);
        const int tier = in_pages(node, n)                 ? STORE_TIER_MEMORY
                         : node_tier_has(node->node, &key) ? STORE_TIER_DISK
                                                           : -1;
        assert_int_equal(heard->tier[n], tier);
    }
}

static void listeners_know_the_tier(void **state)
{
    struct sim_cluster cluster;
    struct store_subscription *subscription = NULL;
    struct heard heard = { .synced = 0 };
    struct rng rng;
    (void)state;

    rng_init(&rng, test_seed());
    cluster_start(&cluster, (struct env_sim_options){ 0 });
    struct sim_node *node = &cluster.nodes[0];
    struct env *env = env_sim_add(cluster.sim, "10.0.2.1");
    store_blocks(&cluster, node);
    const struct store_subscribe_options options = { .env = env,
                                                     .address = node->rpc_address,
                                                     .secret = SIM_SECRET,
                                                     .blocks_only = true,
                                                     .on_reset = on_reset,
                                                     .on_events = on_events,
                                                     .on_synced = on_synced,
                                                     .ctx = &heard };
    assert_int_equal(store_subscribe(&options, &subscription, NULL), STATUS_OK);
    sim_run_ms(&cluster, 1000);
    assert_int_equal(heard.synced, 1);
    expect_heard(&heard, node);
    for (int round = 0; round < 30; round++) {
        const uint64_t n = rng_below(&rng, BLOCKS);
        const struct block_key key = sim_key(n);
        if (store_node_match(node->node, &key, 1) == 0) {
            store_block(node, n);
        } else if (rng_below(&rng, 2) == 0) {
            assert_int_equal(store_node_drop(node->node, &key), STATUS_OK);
        } else if (!in_pages(node, n)) {
            struct loaded loaded = { .cancel_at = UINT32_MAX };
            struct store_page page;
            assert_int_equal(load_start(node, NULL, n, 1, &page, &loaded), STATUS_OK);
            sim_run_ms(&cluster, 100);
            assert_int_equal(loaded.result.blocks, 1);
            store_node_unref(node->node, page);
        }
        if (round % 3 == 0) sim_run_ms(&cluster, 200);
        if (round % 3 == 0) expect_heard(&heard, node);
    }
    sim_run_ms(&cluster, 3000);
    sim_node_kill(node);
    sim_node_start(&cluster, 0);
    sim_run_ms(&cluster, 3000);
    assert_int_equal(heard.synced, 2);
    expect_heard(&heard, node);
    store_unsubscribe(subscription);
    sim_cluster_end(&cluster);
}

/* A disk slower than the node: what cannot be written in time is dropped, and counted. */
static void nobody_waits_for_the_disk(void **state)
{
    struct sim_cluster cluster;
    struct store_node_counts counts;
    (void)state;

    cluster_start(&cluster, (struct env_sim_options){ 0 });
    struct sim_node *node = &cluster.nodes[0];
    for (uint64_t n = 0; n < 10 * BLOCKS; n++)
        store_block(node, n); /* in no time at all */
    sim_run_ms(&cluster, 3000);
    store_node_counts(node->node, &counts);
    assert_true(counts.disk_dropped_total > 0);
    assert_int_equal(counts.disk_queue, 0);
    assert_int_equal(counts.disk_dropped_total + counts.ssd.blocks_written_total, 10 * BLOCKS);
    sim_cluster_end(&cluster);
}

/* Stopped in order: also what had not been written yet. */
static void closing_writes_what_waits(void **state)
{
    struct sim_cluster cluster;
    (void)state;

    cluster_start(&cluster, (struct env_sim_options){ 0 });
    struct sim_node *node = &cluster.nodes[0];
    store_block(node, 0);
    sim_run_ms(&cluster, 100); /* a segment is open */
    for (uint64_t n = 1; n < 20; n++)
        store_block(node, n);
    store_node_close_disk(node->node);
    sim_node_kill(node);
    sim_node_start(&cluster, 0);
    for (uint64_t n = 0; n < 20; n++) {
        const struct block_key key = sim_key(n);
        assert_int_equal(store_node_match(node->node, &key, 1), 1);
    }
    expect_loaded(&cluster, node, NULL, 10);
    sim_cluster_end(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_evicted_is_loaded_again),
        cmocka_unit_test(others_are_served_from_the_disk),
        cmocka_unit_test(a_restart_keeps_them),
        cmocka_unit_test(loads_end_early_and_fall_short),
        cmocka_unit_test(damage_is_a_miss),
        cmocka_unit_test(listeners_know_the_tier),
        cmocka_unit_test(nobody_waits_for_the_disk),
        cmocka_unit_test(closing_writes_what_waits),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1; /* the faults are made on purpose */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
