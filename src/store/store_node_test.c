/* SPDX-License-Identifier: Apache-2.0
 *
 * store/store_node_test.c
 *
 * Goal:    what serving needs of the pool: members are seen, events follow the manifest, a fetch
 *          brings exactly the blocks that are there, verified, layer by layer, and says why the
 *          rest is missing.
 * Method:  a simulated cluster without faults, and one fault at a time where it matters. */
#include "store/cluster_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/events.h"
#include "store/node_int.h"
#include "store/node_values.h"
#include "store/proto.h"
#include "store/rank.h"
#include "seed.h"

/* Allocates a page at the node, fills it with block n, and commits it. */
static struct store_page store_block(struct sim_node *node, uint64_t n)
{
    struct store_page page = { 0 };
    const struct block_key key = sim_key(n);
    assert_int_equal(store_node_alloc(node->node, 1, &page), STATUS_OK);
    sim_bytes(n, store_node_data(node->node, page), SIM_PAGE_SIZE);
    assert_int_equal(store_node_commit(node->node, &key, page, NULL), STATUS_OK);
    store_node_unref(node->node, page);
    return page;
}

static void expect_block(struct sim_node *node, struct store_page page, uint64_t n)
{
    uint8_t want[SIM_PAGE_SIZE];
    sim_bytes(n, want, sizeof(want));
    assert_memory_equal(store_node_data(node->node, page), want, SIM_LAYERS * SIM_LAYER_SIZE);
}

/* ---- fetch ---- */

struct fetched {
    bool done;
    uint32_t layers;
    uint32_t blocks;
    uint32_t cancel_at; /* layer; SIM_LAYERS: never */
    struct store_fetch *fetch;
    struct store_fetch_result result;
};

static void on_layer(void *ctx, uint32_t layer, uint32_t blocks)
{
    struct fetched *fetched = ctx;
    assert_false(fetched->done);
    assert_int_equal(layer, fetched->layers);
    assert_true(blocks > 0 && blocks <= fetched->blocks);
    fetched->layers++;
    fetched->blocks = blocks;
    if (layer == fetched->cancel_at) store_fetch_cancel(fetched->fetch);
}

static void on_done(void *ctx, const struct store_fetch_result *result)
{
    struct fetched *fetched = ctx;
    assert_false(fetched->done);
    fetched->done = true;
    fetched->result = *result;
}

static void fetch_start(struct sim_node *to, const char *holder, uint64_t first, uint32_t count,
                        struct store_page *pages, struct fetched *fetched)
{
    struct block_key keys[SIM_PAGES];
    for (uint32_t i = 0; i < count; i++)
        keys[i] = sim_key(first + i);
    memset(fetched, 0, sizeof(*fetched));
    fetched->blocks = count;
    fetched->cancel_at = SIM_LAYERS;
    assert_int_equal(store_node_alloc(to->node, count, pages), STATUS_OK);
    const struct store_fetch_options options = {
        .holder = holder,
        .keys = keys,
        .pages = pages,
        .count = count,
        .transfer_class = YOLK_TRANSFER_LOAD,
        .deadline_ns = env_now_ns(to->env) + 5 * ENV_NS_PER_S,
        .on_layer = on_layer,
        .on_done = on_done,
        .ctx = fetched,
    };
    assert_int_equal(store_node_fetch(to->node, &options, &fetched->fetch), STATUS_OK);
}

static void unref_all(struct sim_node *node, const struct store_page *pages, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        store_node_unref(node->node, pages[i]);
}

static void a_fetch_brings_the_blocks(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options calm = { .seed = test_seed() };
    struct store_page pages[4];
    struct fetched fetched;
    struct store_node_counts counts;
    (void)state;

    sim_cluster_start(&cluster, &calm);
    struct sim_node *from = &cluster.nodes[0], *to = &cluster.nodes[1];
    for (uint64_t n = 0; n < 4; n++)
        store_block(from, n);
    fetch_start(to, from->rpc_address, 0, 4, pages, &fetched);
    sim_run_ms(&cluster, 1000);
    assert_true(fetched.done);
    assert_int_equal(fetched.result.blocks, 4);
    assert_int_equal(fetched.result.reason, STORE_MISS_NONE);
    assert_int_equal(fetched.layers, SIM_LAYERS);
    assert_int_equal(fetched.result.bytes, 4 * SIM_LAYERS * SIM_LAYER_SIZE);
    for (uint32_t i = 0; i < 4; i++) {
        const struct block_key key = sim_key(i);
        expect_block(to, pages[i], i);
        assert_int_equal(store_node_match(to->node, &key, 1), 1);
    }
    unref_all(to, pages, 4);
    store_node_counts(to->node, &counts);
    assert_int_equal(counts.evictable, 4);
    assert_int_equal(counts.fetched_blocks_total, 4);
    store_node_counts(from->node, &counts);
    assert_int_equal(counts.pins, 0); /* released */
    sim_cluster_end(&cluster);
}

static void a_fetch_says_what_is_missing(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options calm = { .seed = test_seed() };
    struct store_page pages[4];
    struct fetched fetched;
    (void)state;

    sim_cluster_start(&cluster, &calm);
    struct sim_node *from = &cluster.nodes[0], *to = &cluster.nodes[1];
    store_block(from, 0);
    store_block(from, 1);
    store_block(from, 3); /* a hole at 2: the prefix ends there */
    fetch_start(to, from->rpc_address, 0, 4, pages, &fetched);
    sim_run_ms(&cluster, 1000);
    assert_int_equal(fetched.result.blocks, 2);
    assert_int_equal(fetched.result.reason, STORE_MISS_ABSENT);
    unref_all(to, pages, 4);

    fetch_start(to, from->rpc_address, 10, 2, pages, &fetched); /* nothing at all */
    sim_run_ms(&cluster, 1000);
    assert_true(fetched.done);
    assert_int_equal(fetched.result.blocks, 0);
    assert_int_equal(fetched.result.reason, STORE_MISS_ABSENT);
    assert_int_equal(fetched.layers, 0);
    unref_all(to, pages, 2);

    fetch_start(to, "10.0.1.3:9", 0, 2, pages, &fetched); /* nobody there */
    sim_run_ms(&cluster, 7000);
    assert_true(fetched.done);
    assert_int_equal(fetched.result.blocks, 0);
    assert_true(fetched.result.reason == STORE_MISS_HOLDER ||
                fetched.result.reason == STORE_MISS_DEADLINE);
    unref_all(to, pages, 2);
    sim_cluster_end(&cluster);
}

static void wrong_bytes_are_a_miss(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options calm = { .seed = test_seed() };
    struct store_page pages[4];
    struct fetched fetched;
    struct store_node_counts counts;
    (void)state;

    sim_cluster_start(&cluster, &calm);
    struct sim_node *from = &cluster.nodes[0], *to = &cluster.nodes[1];
    for (uint64_t n = 0; n < 4; n++) {
        const struct store_page page = store_block(from, n);
        if (n == 2) store_node_data(from->node, page)[SIM_LAYER_SIZE + 5] ^= 1; /* of layer 1 */
    }
    fetch_start(to, from->rpc_address, 0, 4, pages, &fetched);
    sim_run_ms(&cluster, 1000);
    assert_int_equal(fetched.result.blocks, 2);
    assert_int_equal(fetched.result.reason, STORE_MISS_CHECKSUM);
    const struct block_key bad = sim_key(2);
    assert_int_equal(store_node_match(to->node, &bad, 1), 0);
    store_node_counts(to->node, &counts);
    assert_int_equal(counts.corrupt_total, 1);
    assert_int_equal(counts.fetch_missed_blocks_total, 2);
    unref_all(to, pages, 4);
    sim_cluster_end(&cluster);
}

static void a_fetch_can_be_given_up(void **state)
{
    (void)state;
    for (uint32_t when = 0; when <= SIM_LAYERS; when++) {
        struct sim_cluster cluster;
        const struct env_sim_options calm = { .seed = test_seed() };
        struct store_page pages[2];
        struct fetched fetched;

        sim_cluster_start(&cluster, &calm);
        struct sim_node *from = &cluster.nodes[0], *to = &cluster.nodes[1];
        store_block(from, 0);
        store_block(from, 1);
        fetch_start(to, from->rpc_address, 0, 2, pages, &fetched);
        fetched.cancel_at = when;
        if (when == SIM_LAYERS) store_fetch_cancel(fetched.fetch); /* before anything came */
        sim_run_ms(&cluster, 3000);
        assert_true(fetched.done);
        if (when + 1 < SIM_LAYERS) {
            assert_int_equal(fetched.result.blocks, 0);
            assert_int_equal(fetched.result.reason, STORE_MISS_CANCELLED);
        }
        unref_all(to, pages, 2);
        struct store_node_counts counts;
        store_node_counts(from->node, &counts);
        assert_int_equal(counts.pins, 0); /* released, or ended with its lease */
        sim_cluster_end(&cluster);
    }
}

static void a_holder_that_dies_is_a_miss(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options slow = { .seed = test_seed(),
                                          .bytes_per_s = 100000,
                                          .stream_buffer_size = 8192 };
    struct store_page pages[4];
    struct fetched fetched;
    (void)state;

    sim_cluster_start(&cluster, &slow);
    struct sim_node *from = &cluster.nodes[0], *to = &cluster.nodes[1];
    for (uint64_t n = 0; n < 4; n++)
        store_block(from, n);
    fetch_start(to, from->rpc_address, 0, 4, pages, &fetched);
    sim_run_ms(&cluster, 150);
    assert_false(fetched.done);
    sim_node_kill(from);
    sim_run_ms(&cluster, 10000);
    assert_true(fetched.done);
    assert_true(fetched.result.blocks < 4);
    assert_int_not_equal(fetched.result.reason, STORE_MISS_NONE);
    unref_all(to, pages, 4);
    sim_cluster_end(&cluster);
}

/* ---- events ---- */

enum { HEARD_KEYS = 64 };

struct heard {
    bool has[HEARD_KEYS];
    uint32_t resets;
    uint32_t synced;
    uint32_t lost;
};

static void on_reset(void *ctx, uint64_t epoch)
{
    struct heard *heard = ctx;
    assert_int_not_equal(epoch, 0);
    memset(heard->has, 0, sizeof(heard->has));
    heard->resets++;
}

static void on_events(void *ctx, const struct store_event *events, uint32_t count)
{
    struct heard *heard = ctx;
    for (uint32_t i = 0; i < count; i++) {
        for (uint64_t n = 0; n < HEARD_KEYS; n++) {
            const struct block_key key = sim_key(n);
            if (!block_key_equal(&key, &events[i].id)) continue;
            heard->has[n] = events[i].kind == STORE_EVENT_STORED;
        }
    }
}

static void on_synced(void *ctx)
{
    ((struct heard *)ctx)->synced++;
}

static void on_lost(void *ctx)
{
    ((struct heard *)ctx)->lost++;
}

static void expect_heard(const struct heard *heard, struct sim_node *node)
{
    for (uint64_t n = 0; n < HEARD_KEYS; n++) {
        const struct block_key key = sim_key(n);
        assert_int_equal(heard->has[n], store_node_match(node->node, &key, 1));
    }
}

static void listeners_follow_the_manifest(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options calm = { .seed = test_seed() };
    struct store_subscription *subscription = NULL;
    struct heard heard = { .resets = 0 };
    struct rng rng;
    (void)state;

    rng_init(&rng, calm.seed);
    sim_cluster_start(&cluster, &calm);
    struct sim_node *node = &cluster.nodes[0];
    struct env *env = env_sim_add(cluster.sim, "10.0.2.1");
    for (uint64_t n = 0; n < 5; n++)
        store_block(node, n); /* before: the snapshot has them */
    const struct store_subscribe_options options = {
        .env = env,
        .address = node->rpc_address,
        .secret = SIM_SECRET,
        .blocks_only = true,
        .on_reset = on_reset,
        .on_events = on_events,
        .on_synced = on_synced,
        .on_lost = on_lost,
        .ctx = &heard,
    };
    assert_int_equal(store_subscribe(&options, &subscription, NULL), STATUS_OK);
    sim_run_ms(&cluster, 500);
    assert_int_equal(heard.resets, 1);
    assert_int_equal(heard.synced, 1);
    expect_heard(&heard, node);
    for (int round = 0; round < 40; round++) { /* more blocks than pages: eviction is heard too */
        for (int i = 0; i < 5; i++) {
            const uint64_t n = rng_below(&rng, HEARD_KEYS);
            const struct block_key key = sim_key(n);
            if (store_node_match(node->node, &key, 1) == 0) {
                store_block(node, n);
            } else if (rng_below(&rng, 2) == 0) {
                assert_int_equal(store_node_drop(node->node, &key), STATUS_OK);
            }
        }
        if (round % 4 == 0) sim_run_ms(&cluster, 100);
        if (round % 4 == 0) expect_heard(&heard, node);
    }
    sim_node_kill(node);
    sim_run_ms(&cluster, 1000);
    assert_int_equal(heard.lost, 1);
    sim_node_start(&cluster, 0);
    store_block(node, 50);
    sim_run_ms(&cluster, 3000);
    assert_int_equal(heard.resets, 2);
    expect_heard(&heard, node);
    store_unsubscribe(subscription);
    sim_cluster_end(&cluster);
}

static void a_slow_listener_starts_over(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options calm = { .seed = test_seed() };
    struct store_subscription *subscription = NULL;
    struct heard heard = { .resets = 0 };
    (void)state;

    sim_cluster_start(&cluster, &calm);
    struct sim_node *node = &cluster.nodes[0];
    struct env *env = env_sim_add(cluster.sim, "10.0.2.1");
    const struct store_subscribe_options options = { .env = env,
                                                     .address = node->rpc_address,
                                                     .secret = SIM_SECRET,
                                                     .blocks_only = true,
                                                     .on_reset = on_reset,
                                                     .on_events = on_events,
                                                     .ctx = &heard };
    assert_int_equal(store_subscribe(&options, &subscription, NULL), STATUS_OK);
    sim_run_ms(&cluster, 500);
    /* In one turn of the node's loop, more changes than its log remembers. */
    for (int i = 0; i < 10000; i++) {
        const struct block_key key = sim_key(7);
        store_block(node, 7);
        assert_int_equal(store_node_drop(node->node, &key), STATUS_OK);
    }
    store_block(node, 8);
    sim_run_ms(&cluster, 2000);
    assert_int_equal(heard.resets, 2);
    expect_heard(&heard, node);
    store_unsubscribe(subscription);
    sim_cluster_end(&cluster);
}

/* ---- members ---- */

struct watched {
    uint32_t known;
    uint32_t gone;
    enum store_member_state states[SIM_NODES];
    uint64_t epochs[SIM_NODES];
};

static int node_index(const char *name)
{
    return name[strlen(name) - 1] - '1';
}

static void on_member(void *ctx, const struct store_member_info *info,
                      enum store_member_state state)
{
    struct watched *watched = ctx;
    const int i = node_index(info->name);
    watched->known |= 1u << i;
    watched->states[i] = state;
    watched->epochs[i] = info->epoch;
}

static void on_gone(void *ctx, const char *name)
{
    struct watched *watched = ctx;
    watched->known &= ~(1u << node_index(name));
    watched->gone++;
}

static void members_come_and_go(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options calm = { .seed = test_seed() };
    struct store_watch *watch = NULL;
    struct watched watched = { .known = 0 };
    (void)state;

    sim_cluster_start(&cluster, &calm);
    struct env *env = env_sim_add(cluster.sim, "10.0.2.1");
    const struct store_watch_options options = { .env = env,
                                                 .master = SIM_MASTER,
                                                 .secret = SIM_SECRET,
                                                 .on_member = on_member,
                                                 .on_gone = on_gone,
                                                 .ctx = &watched };
    assert_int_equal(store_watch(&options, &watch, NULL), STATUS_OK);
    sim_run_ms(&cluster, 2000);
    assert_int_equal(watched.known, 7);
    for (int i = 0; i < SIM_NODES; i++)
        assert_int_equal(watched.states[i], STORE_MEMBER_ALIVE);

    sim_node_kill(&cluster.nodes[2]); /* silent: suspect, dead, gone */
    sim_run_ms(&cluster, 2500);
    assert_int_equal(watched.states[2], STORE_MEMBER_SUSPECT);
    sim_run_ms(&cluster, 5000);
    assert_int_equal(watched.states[2], STORE_MEMBER_DEAD);
    sim_run_ms(&cluster, 25000);
    assert_int_equal(watched.known, 3);

    sim_node_start(&cluster, 2); /* another life */
    sim_run_ms(&cluster, 2000);
    assert_int_equal(watched.known, 7);
    assert_int_equal(watched.epochs[2], store_node_epoch(cluster.nodes[2].node));

    const uint32_t gone = watched.gone;
    sim_master_kill(&cluster); /* the last view stays */
    sim_run_ms(&cluster, 5000);
    assert_int_equal(watched.known, 7);
    sim_node_kill(&cluster.nodes[0]); /* the new master will not hear of this one */
    sim_master_start(&cluster);
    sim_run_ms(&cluster, 5000);
    assert_int_equal(watched.known, 7);
    assert_int_equal(store_master_members(store_master_shell_directory(cluster.master)), 2);
    sim_run_ms(&cluster, STORE_WATCH_GRACE_MS);
    assert_int_equal(watched.known, 6);
    assert_int_equal(watched.gone, gone + 1);
    store_unwatch(watch);
    sim_cluster_end(&cluster);
}

static void a_paused_node_returns_with_what_it_had(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options calm = { .seed = test_seed() };
    struct store_object object;
    (void)state;

    sim_cluster_start(&cluster, &calm);
    struct sim_node *node = &cluster.nodes[0];
    store_block(node, 1);
    sim_run_ms(&cluster, 4000);
    struct store_master *master = store_master_shell_directory(cluster.master);
    const struct block_key key = sim_key(1);
    const struct store_key name = { key.bytes, sizeof(key.bytes) };
    const uint64_t now = env_now_ns(cluster.master_env);
    assert_int_equal(store_master_get(master, now, name, &object), STATUS_OK);
    assert_int_equal(object.replicas_count, 1);
    env_sim_pause(node->env);
    sim_run_ms(&cluster, 8000);
    assert_int_equal(store_master_exist(master, env_now_ns(cluster.master_env), name),
                     STATUS_UNAVAILABLE);
    env_sim_resume(node->env);
    sim_run_ms(&cluster, 8000);
    assert_int_equal(store_master_exist(master, env_now_ns(cluster.master_env), name), STATUS_OK);
    store_master_check(master);
    sim_cluster_end(&cluster);
}

/* ---- commits ---- */

struct committed {
    bool done;
    enum status status;
};

static void on_committed(void *ctx, const struct rpc_result *result)
{
    struct committed *committed = ctx;
    committed->done = true;
    committed->status = result->status;
}

/* Asks a node, and says how that ended. The message is freed. */
static enum status ask_node(struct sim_cluster *cluster, struct env *env, const char *address,
                            uint16_t method, struct buf *message)
{
    const struct rpc_client_options options = { .address = address, .secret = SIM_SECRET };
    struct rpc_client *client = NULL;
    struct committed committed = { .done = false };
    struct rpc_call_id id;

    assert_int_equal(rpc_client_create(env, &options, &client, NULL), STATUS_OK);
    const struct rpc_request request = { .method = method,
                                         .body = buf_data(message),
                                         .len = message->len,
                                         .deadline_ns = env_now_ns(env) + 3 * ENV_NS_PER_S,
                                         .on_end = on_committed,
                                         .ctx = &committed };
    assert_int_equal(rpc_call(client, &request, &id), STATUS_OK);
    buf_fini(message);
    sim_run_ms(cluster, 4000);
    assert_true(committed.done);
    rpc_client_destroy(client);
    return committed.status;
}

/* Sends the commit as a client would. */
static enum status commit(struct sim_cluster *cluster, struct env *env, const char *address,
                          const struct store_commit *message)
{
    struct buf buf;
    buf_init(&buf, 1 << 20);
    assert_int_equal(store_encode_commit(&buf, message), STATUS_OK);
    return ask_node(cluster, env, address, STORE_METHOD_COMMIT, &buf);
}

/* A put is of its ticket's term; a copy says of which its value is, and never of one to come. */
static void expect_term(struct sim_cluster *cluster, struct env *env,
                        const struct store_commit *right, uint64_t said, uint64_t kept)
{
    const struct sim_node *node = &cluster->nodes[0];
    struct store_commit message = *right;
    const struct object *object;

    message.attributes.term = said;
    message.put_id = said + 100; /* another one */
    assert_int_equal(commit(cluster, env, node->rpc_address, &message), STATUS_OK);
    const struct block_key id = store_key_id(message.key);
    object = objects_find(node->node->objects, &id);
    assert_non_null(object);
    assert_int_equal(object->attributes.term, kept);
    assert_int_equal(objects_drop(node->node->objects, &id, object->generation), STATUS_OK);
    sim_run_ms(cluster, 100);
}

static void commits_are_checked(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options calm = { .seed = test_seed() };
    uint64_t sums[2];
    (void)state;

    sim_cluster_start(&cluster, &calm);
    struct env *env = env_sim_add(cluster.sim, "10.0.2.1");
    sim_run_ms(&cluster, 5000);
    struct store_node *a = cluster.nodes[0].node, *b = cluster.nodes[1].node;
    const uint64_t size = STORE_PIECE_SIZE + 10;
    uint8_t *data = (uint8_t *)(uintptr_t)node_region_address(a);
    uint8_t *other = (uint8_t *)(uintptr_t)node_region_address(b);
    sim_bytes(1, data, size);
    sums[0] = hash_xxh3(data, STORE_PIECE_SIZE);
    sums[1] = hash_xxh3(data + STORE_PIECE_SIZE, 10);
    const struct store_commit right = { .key = { (const uint8_t *)"key", 3 },
                                        .put_id = 1,
                                        .term = SIM_TERM,
                                        .epoch = store_node_epoch(a),
                                        .address = node_region_address(a),
                                        .size = size,
                                        .sums_data = sums };
    const char *address = cluster.nodes[0].rpc_address;

    struct store_commit wrong = right;
    wrong.term--;
    assert_int_equal(commit(&cluster, env, address, &wrong), STATUS_STALE);
    wrong = right;
    wrong.epoch++;
    assert_int_equal(commit(&cluster, env, address, &wrong), STATUS_STALE);
    wrong = right;
    wrong.address -= 4096; /* a page of the pool */
    assert_int_equal(commit(&cluster, env, address, &wrong), STATUS_INVALID);
    wrong = right;
    wrong.address += SIM_OBJECT_SIZE - 4096; /* over the end */
    assert_int_equal(commit(&cluster, env, address, &wrong), STATUS_INVALID);
    data[STORE_PIECE_SIZE + 3] ^= 1; /* one bit on the way */
    assert_int_equal(commit(&cluster, env, address, &right), STATUS_CORRUPT);
    data[STORE_PIECE_SIZE + 3] ^= 1;
    expect_term(&cluster, env, &right, SIM_TERM - 1, SIM_TERM - 1);
    expect_term(&cluster, env, &right, 0, SIM_TERM);
    expect_term(&cluster, env, &right, SIM_TERM + 1, SIM_TERM);
    assert_int_equal(objects_count(a->objects), 0);
    assert_int_equal(commit(&cluster, env, address, &right), STATUS_OK);
    assert_int_equal(commit(&cluster, env, address, &right), STATUS_OK); /* the same again */
    assert_int_equal(objects_count(a->objects), 1);

    /* In parts: each is compared with its sum; those of the pieces are as they would have been. */
    const uint32_t parts[] = { 7, STORE_PIECE_SIZE, 3 };
    uint64_t part_sums[3];
    const uint64_t piece_sums[] = { sums[0], sums[1] };
    for (uint32_t i = 0, at = 0; i < 3; at += parts[i++])
        part_sums[i] = hash_xxh3(data + 8192 * 16 + at, parts[i]);
    struct store_commit split = right;
    split.key = (struct store_key){ (const uint8_t *)"parts", 5 };
    split.put_id = 2;
    split.address += (uint64_t)8192 * 16;
    split.sums_data = part_sums;
    split.parts_data = parts;
    split.parts_count = 3;
    memcpy(data + 8192 * 16, data, size);
    assert_int_equal(commit(&cluster, env, address, &split), STATUS_CORRUPT);
    for (uint32_t i = 0, at = 0; i < 3; at += parts[i++])
        part_sums[i] = hash_xxh3(data + 8192 * 16 + at, parts[i]);
    assert_int_equal(commit(&cluster, env, address, &split), STATUS_OK);
    const struct block_key split_id = store_key_id(split.key);
    const struct object *object = objects_find(a->objects, &split_id);
    assert_int_equal(object->sums_count, 2);
    assert_memory_equal(object->sums, piece_sums, sizeof(piece_sums));

    /* The key has other bytes already, the master says: the second owner lets go of its value. */
    sim_bytes(2, other, 10);
    sums[0] = hash_xxh3(other, 10);
    wrong = right;
    wrong.epoch = store_node_epoch(b);
    wrong.address = node_region_address(b);
    wrong.size = 10;
    assert_int_equal(commit(&cluster, env, cluster.nodes[1].rpc_address, &wrong), STATUS_EXISTS);
    assert_int_equal(objects_count(b->objects), 0);
    sim_cluster_end(&cluster);
}

/* Two commits that no master answers; what lies under one of them is another's bytes when the next
 * master comes, as if the dead one had lent its range to a writer. It is not announced. */
static void what_was_written_over_goes_with_its_term(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options calm = { .seed = test_seed() };
    const char *const keys[] = { "over", "kept", "told" };
    struct block_key ids[3];
    uint64_t sums[3];
    (void)state;

    sim_cluster_start(&cluster, &calm);
    struct env *env = env_sim_add(cluster.sim, "10.0.2.1");
    sim_run_ms(&cluster, 5000);
    struct store_node *node = cluster.nodes[0].node;
    uint8_t *data = (uint8_t *)(uintptr_t)node_region_address(node);
    sim_bytes(1, data, 3 * 4096);
    for (uint32_t i = 3; i-- > 0;) { /* the master hears of the last one only */
        sums[i] = hash_xxh3(data + (size_t)4096 * i, 4096);
        const struct store_commit put = { .key = { (const uint8_t *)keys[i], 4 },
                                          .put_id = 1 + i,
                                          .term = SIM_TERM,
                                          .epoch = store_node_epoch(node),
                                          .address = node_region_address(node) + 4096 * i,
                                          .size = 4096,
                                          .sums_data = &sums[i] };
        ids[i] = store_key_id(put.key);
        const enum status status = commit(&cluster, env, cluster.nodes[0].rpc_address, &put);
        assert_true((status == STATUS_OK) == (i == 2));
        if (i == 2) sim_master_kill(&cluster);
    }
    assert_int_equal(objects_count(node->objects), 3);
    assert_int_equal(objects_unsettled(node->objects), 2);
    data[4095] ^= 1;
    sim_master_start(&cluster); /* the next term */
    sim_run_ms(&cluster, 10000);
    assert_null(objects_find(node->objects, &ids[0]));
    assert_non_null(objects_find(node->objects, &ids[1]));
    assert_non_null(objects_find(node->objects, &ids[2]));
    struct store_master *master = store_master_shell_directory(cluster.master);
    const uint64_t now_ns = env_now_ns(cluster.master_env);
    for (uint32_t i = 0; i < 3; i++) {
        const struct store_key key = { (const uint8_t *)keys[i], 4 };
        assert_int_equal(store_master_exist(master, now_ns, key),
                         i == 0 ? STATUS_NOT_FOUND : STATUS_OK);
    }
    assert_int_equal(
        objects_drop(node->objects, &ids[1], objects_find(node->objects, &ids[1])->generation),
        STATUS_OK);
    assert_int_equal(objects_unsettled(node->objects), 0);
    sim_cluster_end(&cluster);
}

/* Asks node 0 for a copy of the value at the beginning of its region, to that of node 1, and says
 * whether bytes came there. */
static bool copied(struct sim_cluster *cluster, struct env *env, const struct store_copy *message)
{
    const uint8_t *from = (uint8_t *)(uintptr_t)node_region_address(cluster->nodes[0].node);
    const uint8_t *to = (uint8_t *)(uintptr_t)node_region_address(cluster->nodes[1].node);
    struct buf buf;

    buf_init(&buf, 1 << 20);
    assert_int_equal(store_encode_copy(&buf, message), STATUS_OK);
    const enum status status =
        ask_node(cluster, env, cluster->nodes[0].rpc_address, STORE_METHOD_COPY, &buf);
    sim_run_ms(cluster, 4000);
    const bool there = memcmp(from, to, 100) == 0;
    assert_int_equal(status == STATUS_OK, there);
    return there;
}

static void on_resume(void *ctx)
{
    env_sim_resume(ctx);
}

/* Its range is another's when the master's time is over, however long the message was on its way,
 * or its reader stood still. */
static void a_copy_asked_for_too_long_ago_writes_nothing(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options calm = { .seed = test_seed() };
    (void)state;

    sim_cluster_start(&cluster, &calm);
    struct env *env = env_sim_add(cluster.sim, "10.0.2.1");
    sim_run_ms(&cluster, 5000);
    struct store_node *a = cluster.nodes[0].node, *b = cluster.nodes[1].node;
    uint8_t *data = (uint8_t *)(uintptr_t)node_region_address(a);
    sim_bytes(1, data, 100);
    const uint64_t sum = hash_xxh3(data, 100);
    const struct store_commit value = { .key = { (const uint8_t *)"key", 3 },
                                        .put_id = 1,
                                        .term = SIM_TERM,
                                        .epoch = store_node_epoch(a),
                                        .address = node_region_address(a),
                                        .size = 100,
                                        .sums_data = &sum };
    assert_int_equal(commit(&cluster, env, cluster.nodes[0].rpc_address, &value), STATUS_OK);
    const struct block_key id = store_key_id(value.key);
    struct store_copy copy = { .term = SIM_TERM,
                               .id = id,
                               .generation = objects_find(a->objects, &id)->generation,
                               .put_id = 2,
                               .address = node_region_address(b),
                               .epoch = store_node_epoch(b),
                               .put_ms = 3000 };
    snprintf(copy.rpc_address, sizeof(copy.rpc_address), "%s", cluster.nodes[1].rpc_address);
    snprintf(copy.segment, sizeof(copy.segment), "%s", store_node_segment(b));

    copy.until_ns = env_now_ns(cluster.master_env) - 1;
    assert_false(copied(&cluster, env, &copy));
    copy.until_ns = env_now_ns(cluster.master_env) + 2000 * ENV_NS_PER_MS;
    env_sim_pause(cluster.nodes[0].env);
    struct env_timer resume;
    env_timer_init(&resume, on_resume, cluster.nodes[0].env);
    env_timer_set(env, &resume, env_now_ns(env) + 2500 * ENV_NS_PER_MS);
    assert_false(copied(&cluster, env, &copy));
    copy.until_ns = env_now_ns(cluster.master_env) + 2000 * ENV_NS_PER_MS;
    assert_true(copied(&cluster, env, &copy));
    sim_cluster_end(&cluster);
}

/* A cluster whose nodes have disks below values, and a commit for node 0; from whom. */
static struct env *disks_start(struct sim_cluster *cluster, struct store_commit *out)
{
    const struct env_sim_options calm = { .seed = test_seed() };
    static uint64_t sum;

    sim_cluster_start(cluster, &calm);
    cluster->values_disk_size = 4 << 20;
    sim_nodes_restart(cluster);
    struct env *env = env_sim_add(cluster->sim, "10.0.2.1");
    sim_run_ms(cluster, 5000);
    const struct store_node *node = cluster->nodes[0].node;
    uint8_t *data = (uint8_t *)(uintptr_t)node_region_address(node);
    sim_bytes(1, data, 10);
    sum = hash_xxh3(data, 10);
    *out = (struct store_commit){ .key = { (const uint8_t *)"key", 3 },
                                  .put_id = 1,
                                  .term = SIM_TERM,
                                  .epoch = store_node_epoch(node),
                                  .address = node_region_address(node),
                                  .size = 10,
                                  .sums_data = &sum };
    return env;
}

/* Its owner was killed before it answered, and its value is on the disk: whether the master knows
 * it, and what it replaces has been dropped, the next life cannot say. */
static void a_put_of_an_earlier_life_is_not_acknowledged(void **state)
{
    struct sim_cluster cluster;
    struct store_commit put;
    (void)state;

    struct env *env = disks_start(&cluster, &put);
    const struct block_key id = store_key_id(put.key);
    assert_int_equal(commit(&cluster, env, cluster.nodes[0].rpc_address, &put), STATUS_OK);
    sim_run_ms(&cluster, 2000); /* it is on the disk */
    sim_node_kill(&cluster.nodes[0]);
    sim_node_start(&cluster, 0);
    sim_run_ms(&cluster, 1000);
    assert_non_null(node_values_find(cluster.nodes[0].node, &id));
    assert_int_equal(commit(&cluster, env, cluster.nodes[0].rpc_address, &put), STATUS_STALE);
    sim_cluster_end(&cluster);
}

/* What the master moved down to disk is known by its put, whatever is in its range by then; and
 * once it is read up again it is announced even if the disk has given it up since. */
static void values_below_memory_are_known(void **state)
{
    struct sim_cluster cluster;
    struct store_commit put;
    struct store_object found;
    (void)state;

    struct env *env = disks_start(&cluster, &put);
    struct store_node *node = cluster.nodes[0].node;
    uint8_t *data = (uint8_t *)(uintptr_t)put.address;
    const char *address = cluster.nodes[0].rpc_address;
    const struct block_key id = store_key_id(put.key);
    assert_int_equal(commit(&cluster, env, address, &put), STATUS_OK);
    const struct object *object = objects_find(node->objects, &id);
    assert_int_equal(objects_drop(node->objects, &id, object->generation), STATUS_OK);
    assert_non_null(node_values_find(node, &id));
    data[3] ^= 1; /* it is another's range now */
    assert_int_equal(commit(&cluster, env, address, &put), STATUS_OK);
    struct store_commit other = put;
    other.put_id++;
    assert_int_equal(commit(&cluster, env, address, &other), STATUS_CORRUPT);

    node_values_prefetch(node, &id);
    sim_run_ms(&cluster, 1000);
    object = objects_find(node->objects, &id);
    assert_true(object != NULL && node_values_staged(node, object));
    node_values_drop(node, &id);
    sim_master_kill(&cluster);
    sim_master_start(&cluster);
    sim_run_ms(&cluster, 12000);
    struct store_master *master = store_master_shell_directory(cluster.master);
    assert_int_equal(store_master_get(master, env_now_ns(cluster.master_env), put.key, &found),
                     STATUS_OK);
    assert_int_equal(found.replicas_count, 1);
    assert_int_equal(found.replicas[0].address, 0); /* as on disk */
    store_master_check(master);
    sim_cluster_end(&cluster);
}

/* ---- terms ---- */

static enum yolk_transfer_state write_under(struct sim_cluster *cluster,
                                            struct yolk_transfer *transfer, void *local,
                                            const struct sim_node *to, uint64_t term)
{
    struct yolk_transfer_segment segment;
    struct yolk_transfer_batch batch;
    struct yolk_transfer_result result;

    assert_int_equal(yolk_transfer_open(transfer, store_node_segment(to->node), &segment),
                     STATUS_OK);
    assert_int_equal(yolk_transfer_batch_create(transfer, 1, NULL, NULL, &batch), STATUS_OK);
    const struct yolk_transfer_request request = { .opcode = YOLK_TRANSFER_WRITE,
                                                   .local = local,
                                                   .segment = segment,
                                                   .remote = node_region_address(to->node),
                                                   .length = 4096,
                                                   .generation = store_node_epoch(to->node),
                                                   .term = term };
    assert_int_equal(yolk_transfer_submit(transfer, batch, &request, 1), STATUS_OK);
    sim_run_ms(cluster, 3000);
    assert_int_equal(yolk_transfer_poll(transfer, batch, 0, &result), STATUS_OK);
    return result.state;
}

static void writers_of_an_older_term_are_fenced(void **state)
{
    struct sim_cluster cluster;
    const struct env_sim_options calm = { .seed = test_seed() };
    const struct yolk_transfer_options options = { .listen = "10.0.2.1:7200",
                                                   .secret = SIM_SECRET };
    struct yolk_transfer *transfer = NULL;
    void *local = NULL;
    (void)state;

    sim_cluster_start(&cluster, &calm);
    struct sim_node *node = &cluster.nodes[0];
    struct env *env = env_sim_add(cluster.sim, "10.0.2.1");
    assert_int_equal(yolk_transfer_create(env, &options, &transfer, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_alloc(transfer, 4096, YOLK_TRANSFER_REMOTE_READ, &local, NULL),
                     STATUS_OK);
    memset(local, 1, 4096);
    sim_run_ms(&cluster, 1000);
    assert_int_equal(write_under(&cluster, transfer, local, node, SIM_TERM),
                     YOLK_TRANSFER_COMPLETED);
    assert_int_equal(store_node_see_term(node->node, UINT64_MAX), STATUS_INVALID); /* damaged */
    assert_int_equal(store_node_see_term(node->node, STORE_TERM_END), STATUS_INVALID);
    sim_master_kill(&cluster);
    sim_master_start(&cluster); /* the next term */
    sim_run_ms(&cluster, 3000);
    memset(local, 2, 4096);
    assert_int_not_equal(write_under(&cluster, transfer, local, node, SIM_TERM),
                         YOLK_TRANSFER_COMPLETED);
    assert_int_equal(*(uint8_t *)(uintptr_t)node_region_address(node->node), 1);
    assert_int_equal(write_under(&cluster, transfer, local, node, SIM_TERM + 1),
                     YOLK_TRANSFER_COMPLETED);
    yolk_transfer_destroy(transfer);
    sim_cluster_end(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fetch_brings_the_blocks),
        cmocka_unit_test(a_fetch_says_what_is_missing),
        cmocka_unit_test(wrong_bytes_are_a_miss),
        cmocka_unit_test(a_fetch_can_be_given_up),
        cmocka_unit_test(a_holder_that_dies_is_a_miss),
        cmocka_unit_test(listeners_follow_the_manifest),
        cmocka_unit_test(a_slow_listener_starts_over),
        cmocka_unit_test(members_come_and_go),
        cmocka_unit_test(a_paused_node_returns_with_what_it_had),
        cmocka_unit_test(commits_are_checked),
        cmocka_unit_test(what_was_written_over_goes_with_its_term),
        cmocka_unit_test(a_copy_asked_for_too_long_ago_writes_nothing),
        cmocka_unit_test(values_below_memory_are_known),
        cmocka_unit_test(a_put_of_an_earlier_life_is_not_acknowledged),
        cmocka_unit_test(writers_of_an_older_term_are_fenced),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1; /* the faults are made on purpose */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
