/* SPDX-License-Identifier: Apache-2.0
 *
 * store/store_real_test.c
 *
 * Goal:    the store works on the real env as in the simulated one: sockets, shared memory, real
 *          time.
 * Method:  master, two nodes and a client on one loop; a fetch and a put and get, over shared
 *          memory and over tcp. Faults are the simulated test's business. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "base/rng.h"
#include "net/rpc.h"
#include "store/master_shell.h"
#include "store/member.h"
#include "store/node.h"
#include "store/node_int.h"
#include "store/proto.h"
#include "yolk/store.h"
#include "yolk/store_lend.h"
#include "yolk/store_session.h"
#include "yolk/store_threads.h"
#include "yolk/transfer.h"

enum {
    NODES = 2,
    PAGES = 16,
    LAYERS = 4,
    LAYER_SIZE = 24576,
    PAGE_SIZE = 98304,
    BLOCKS = 8,
    VALUE_SIZE = 3000000,
    BATCH_MAX = 130,
};

struct node {
    struct rpc_server *server;
    struct yolk_transfer *transfer;
    struct store_node *node;
    struct store_member *member;
    char address[64];
    bool joined;
};

struct world {
    struct env *env;
    struct rpc_server *server;
    struct store_master_shell *master;
    char master_address[64];
    struct node nodes[NODES];
    struct yolk_transfer *client_transfer;
    struct yolk_store *store;
    uint8_t *memory;
    bool ended;
    enum status status;
    uint64_t size;
    struct store_fetch_result fetched;
    char place[YOLK_STORE_ADDRESS_SIZE]; /* of a value */
};

static void on_joined(void *ctx, uint64_t term)
{
    assert_int_not_equal(term, 0);
    ((struct node *)ctx)->joined = true;
}

static struct rpc_server *server_new(struct env *env, char address[64])
{
    struct rpc_server *server = NULL;
    const struct rpc_server_options options = { .address = "127.0.0.1:0", .name = "test" };
    assert_int_equal(rpc_server_create(env, &options, &server, NULL), STATUS_OK);
    snprintf(address, 64, "127.0.0.1:%u", (unsigned)rpc_server_port(server));
    return server;
}

static void node_start(struct world *world, unsigned index, bool forbid_shm)
{
    struct node *node = &world->nodes[index];
    const struct yolk_transfer_options transfer = { .forbid_shm = forbid_shm };

    node->server = server_new(world->env, node->address);
    assert_int_equal(yolk_transfer_create(world->env, &transfer, &node->transfer, NULL), STATUS_OK);
    const struct store_node_options options = {
        .env = world->env,
        .transfer = node->transfer,
        .server = node->server,
        .secret = "",
        .name = "node",
        .layout = { .pages = PAGES,
                    .page_size = PAGE_SIZE,
                    .layers = LAYERS,
                    .layer_size = LAYER_SIZE,
                    .block_tokens = 32 },
        .object_size = 8 << 20,
    };
    assert_int_equal(store_node_create(&options, &node->node, NULL), STATUS_OK);
    struct store_join_options join = {
        .env = world->env,
        .master = world->master_address,
        .secret = "",
        .info = { .role = STORE_ROLE_STORE,
                  .layout = options.layout,
                  .epoch = store_node_epoch(node->node) },
        .node = node->node,
        .on_joined = on_joined,
        .ctx = node,
    };
    snprintf(join.info.name, sizeof(join.info.name), "n%u", index);
    snprintf(join.info.rpc_address, sizeof(join.info.rpc_address), "%s", node->address);
    snprintf(join.info.segment, sizeof(join.info.segment), "%s", store_node_segment(node->node));
    assert_int_equal(store_join(&join, &node->member, NULL), STATUS_OK);
}

static void run_until(struct world *world, const bool *flag)
{
    const uint64_t limit = env_now_ns(world->env) + 60 * ENV_NS_PER_S;
    while (!*flag) {
        assert_true(env_now_ns(world->env) < limit);
        env_poll(world->env, 10 * ENV_NS_PER_MS);
    }
}

static void world_start(struct world *world, bool forbid_shm)
{
    const struct yolk_transfer_options transfer = { .forbid_shm = forbid_shm };
    void *memory = NULL;

    memset(world, 0, sizeof(*world));
    assert_int_equal(env_real_create(NULL, &world->env, NULL), STATUS_OK);
    world->server = server_new(world->env, world->master_address);
    const struct store_master_shell_options options = {
        .env = world->env, .server = world->server, .secret = "", .master = { .settle_ms = 100 }
    };
    assert_int_equal(store_master_shell_create(&options, &world->master, NULL), STATUS_OK);
    for (unsigned i = 0; i < NODES; i++)
        node_start(world, i, forbid_shm);
    for (unsigned i = 0; i < NODES; i++)
        run_until(world, &world->nodes[i].joined);
    assert_int_equal(yolk_transfer_create(world->env, &transfer, &world->client_transfer, NULL),
                     STATUS_OK);
    assert_int_equal(yolk_transfer_alloc(world->client_transfer, 2 * VALUE_SIZE + 4096,
                                         YOLK_TRANSFER_REMOTE_ALL, &memory, NULL),
                     STATUS_OK);
    world->memory = memory;
    const struct yolk_store_options store = { .env = world->env,
                                              .transfer = world->client_transfer,
                                              .master = world->master_address };
    assert_int_equal(yolk_store_create(&store, &world->store, NULL), STATUS_OK);
}

static void world_end(struct world *world)
{
    yolk_store_destroy(world->store);
    yolk_transfer_destroy(world->client_transfer);
    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &world->nodes[i];
        store_leave(node->member);
        rpc_server_destroy(node->server);
        yolk_transfer_destroy(node->transfer);
        store_node_destroy(node->node);
    }
    rpc_server_destroy(world->server);
    store_master_shell_destroy(world->master);
    env_real_destroy(world->env);
}

static void on_fetched(void *ctx, const struct store_fetch_result *result)
{
    struct world *world = ctx;
    world->fetched = *result;
    world->ended = true;
}

static void blocks_move(struct world *world)
{
    struct store_node *from = world->nodes[0].node, *to = world->nodes[1].node;
    struct block_key keys[BLOCKS];
    struct store_page pages[BLOCKS], filled[BLOCKS];
    struct store_fetch *fetch;
    struct rng rng;

    rng_init(&rng, 1);
    assert_int_equal(store_node_alloc(from, BLOCKS, filled), STATUS_OK);
    for (unsigned i = 0; i < BLOCKS; i++) {
        rng_fill(&rng, keys[i].bytes, sizeof(keys[i].bytes));
        rng_fill(&rng, store_node_data(from, filled[i]), PAGE_SIZE);
        assert_int_equal(store_node_commit(from, &keys[i], filled[i], NULL), STATUS_OK);
    }
    assert_int_equal(store_node_alloc(to, BLOCKS, pages), STATUS_OK);
    const struct store_fetch_options options = { .holder = world->nodes[0].address,
                                                 .keys = keys,
                                                 .pages = pages,
                                                 .count = BLOCKS,
                                                 .transfer_class = YOLK_TRANSFER_LOAD,
                                                 .deadline_ns =
                                                     env_now_ns(world->env) + 60 * ENV_NS_PER_S,
                                                 .on_done = on_fetched,
                                                 .ctx = world };
    world->ended = false;
    assert_int_equal(store_node_fetch(to, &options, &fetch), STATUS_OK);
    run_until(world, &world->ended);
    assert_int_equal(world->fetched.blocks, BLOCKS);
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_memory_equal(store_node_data(from, filled[i]), store_node_data(to, pages[i]),
                            LAYERS * LAYER_SIZE);
        store_node_unref(from, filled[i]);
        store_node_unref(to, pages[i]);
    }
    assert_int_equal(store_node_match(to, keys, BLOCKS), BLOCKS);
}

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct world *world = ctx;
    assert_int_equal(index, 0);
    world->status = status;
    world->size = size;
    world->ended = true;
}

static enum status ended(struct world *world, enum status started)
{
    assert_int_equal(started, STATUS_OK);
    run_until(world, &world->ended);
    world->ended = false;
    return world->status;
}

/* What a broken memory would do: one bit of the value, in its last piece. */
static void owner_flips_a_bit(struct world *world, struct yolk_store_key key)
{
    const struct block_key id = store_key_id((struct store_key){ key.bytes, (uint32_t)key.len });
    for (unsigned i = 0; i < NODES; i++) {
        const struct object *object = objects_find(world->nodes[i].node->objects, &id);
        if (object == NULL) continue;
        ((uint8_t *)(uintptr_t)object->address)[object->size - 1] ^= 1;
        return;
    }
    fail_msg("nobody has the value");
}

/* A reader was given wrong bytes, and its owner has found them, too. */
static void owner_drops_it(struct world *world, struct yolk_store_key key)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = world };
    const uint64_t limit = env_now_ns(world->env) + 10 * ENV_NS_PER_S;
    while (ended(world, yolk_store_exist(world->store, &key, 1, &call)) != STATUS_NOT_FOUND) {
        assert_true(env_now_ns(world->env) < limit);
    }
}

/* Parts of the value, with ends at, before and behind those of pieces and of the value. */
static void ranges_move(struct world *world, struct yolk_store_key key, uint8_t *copy)
{
    const uint64_t piece = YOLK_STORE_PIECE_SIZE;
    const uint64_t ranges[][2] = { { 0, 1 },
                                   { 0, piece },
                                   { piece, piece },
                                   { piece - 1, 2 },
                                   { 3 * piece + 5, 2 * piece },
                                   { piece, VALUE_SIZE },
                                   { VALUE_SIZE - 1, 1 },
                                   { VALUE_SIZE - 1, 1000 },
                                   { VALUE_SIZE, 1 } };
    const struct yolk_store_call call = { .on_item = on_item, .ctx = world };
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        const uint64_t offset = ranges[i][0], asked = ranges[i][1];
        const uint64_t left = VALUE_SIZE - offset, size = asked < left ? asked : left;
        const struct yolk_store_buffer buffer = {
            .key = key, .data = copy, .size = asked, .range = true, .offset = offset
        };
        memset(copy, 0xee, VALUE_SIZE);
        const enum status status = ended(world, yolk_store_get(world->store, &buffer, 1, &call));
        assert_int_equal(status, left == 0 ? STATUS_INVALID : STATUS_OK);
        assert_int_equal(world->size, VALUE_SIZE);
        assert_memory_equal(copy, world->memory + offset, size);
        assert_int_equal(copy[size], 0xee); /* and no byte more */
    }
}

/* Again and again, so that the owner uses ranges of memory again that have been read. */
static void replaced_is_seen(struct world *world, struct yolk_store_key key, uint8_t *copy)
{
    const struct yolk_store_value value = { .key = key, .data = world->memory, .size = VALUE_SIZE };
    const struct yolk_store_buffer buffer = { .key = key, .data = copy, .size = VALUE_SIZE };
    const struct yolk_store_call call = { .on_item = on_item, .ctx = world, .replace = true };
    for (unsigned i = 0; i < 5; i++) {
        world->memory[i * YOLK_STORE_PIECE_SIZE] ^= 1;
        assert_int_equal(ended(world, yolk_store_put(world->store, &value, 1, &call)), STATUS_OK);
        for (unsigned n = 0; n < 2; n++) {
            memset(copy, 0, VALUE_SIZE);
            assert_int_equal(ended(world, yolk_store_get(world->store, &buffer, 1, &call)),
                             STATUS_OK);
            assert_memory_equal(copy, world->memory, VALUE_SIZE);
        }
    }
}

static void values_move(struct world *world)
{
    const struct yolk_store_key key = { "a value", 7 };
    const struct yolk_store_key other = { "another", 7 };
    uint8_t *copy = world->memory + VALUE_SIZE;
    const struct yolk_store_value value = { .key = key, .data = world->memory, .size = VALUE_SIZE };
    const struct yolk_store_buffer buffer = { .key = key, .data = copy, .size = VALUE_SIZE };
    const struct yolk_store_buffer small = { .key = key, .data = copy, .size = VALUE_SIZE - 1 };
    const struct yolk_store_buffer none = { .key = other, .data = copy, .size = VALUE_SIZE };
    const struct yolk_store_call call = { .on_item = on_item, .ctx = world, .force = true };
    struct rng rng;

    rng_init(&rng, 2);
    rng_fill(&rng, world->memory, VALUE_SIZE);
    world->ended = false;
    assert_int_equal(ended(world, yolk_store_put(world->store, &value, 1, &call)), STATUS_OK);
    assert_int_equal(ended(world, yolk_store_put(world->store, &value, 1, &call)), STATUS_EXISTS);
    assert_int_equal(ended(world, yolk_store_exist(world->store, &key, 1, &call)), STATUS_OK);
    owner_flips_a_bit(world, key); /* before it is read for the first time */
    const struct yolk_store_buffer head = { .key = key, .data = copy, .size = 100, .range = true };
    const struct yolk_store_buffer tail = {
        .key = key, .data = copy, .size = 10, .range = true, .offset = VALUE_SIZE - 100
    };
    assert_int_equal(ended(world, yolk_store_get(world->store, &head, 1, &call)), STATUS_OK);
    assert_int_equal(ended(world, yolk_store_get(world->store, &tail, 1, &call)), STATUS_CORRUPT);
    owner_drops_it(world, key);
    assert_int_equal(ended(world, yolk_store_put(world->store, &value, 1, &call)), STATUS_OK);
    assert_int_equal(ended(world, yolk_store_get(world->store, &buffer, 1, &call)), STATUS_OK);
    assert_int_equal(world->size, VALUE_SIZE);
    assert_memory_equal(copy, world->memory, VALUE_SIZE);
    ranges_move(world, key, copy);
    owner_flips_a_bit(world, key); /* after it has been read */
    assert_int_equal(ended(world, yolk_store_get(world->store, &buffer, 1, &call)), STATUS_CORRUPT);
    owner_drops_it(world, key);
    assert_int_equal(ended(world, yolk_store_put(world->store, &value, 1, &call)), STATUS_OK);
    replaced_is_seen(world, key, copy);
    assert_int_equal(ended(world, yolk_store_get(world->store, &small, 1, &call)), STATUS_FULL);
    assert_int_equal(world->size, VALUE_SIZE);
    assert_int_equal(ended(world, yolk_store_get(world->store, &none, 1, &call)), STATUS_NOT_FOUND);
    assert_int_equal(ended(world, yolk_store_remove(world->store, &key, 1, &call)), STATUS_OK);
    assert_int_equal(ended(world, yolk_store_get(world->store, &buffer, 1, &call)),
                     STATUS_NOT_FOUND);
}

/* Layer by layer: the layers are written one after the other, and read the other way round; bytes
 * that went wrong at the owner are never among what is read. */
static void sessions_move(struct world *world)
{
    const struct yolk_store_key key = { "layers", 6 };
    const uint64_t layer = VALUE_SIZE / 8;
    uint8_t *copy = world->memory + VALUE_SIZE;
    const struct yolk_store_value value = { .key = key, .size = VALUE_SIZE };
    const struct yolk_store_call call = { .on_item = on_item, .ctx = world, .force = true };

    world->ended = false;
    memset(copy, 0, VALUE_SIZE);
    assert_int_equal(ended(world, yolk_store_put_session_start(world->store, &value, 1, &call)),
                     STATUS_OK);
    for (uint64_t at = 0; at < VALUE_SIZE; at += layer) { /* keys, then values, of a layer */
        const struct yolk_store_part parts[] = { { world->memory + at, layer / 2, at },
                                                 { world->memory + at + layer / 2,
                                                   layer - layer / 2, at + layer / 2 } };
        const struct yolk_store_parts item = { key, parts, 2 };
        assert_int_equal(ended(world, yolk_store_exist(world->store, &key, 1, &call)), STATUS_BUSY);
        assert_int_equal(ended(world, yolk_store_put_session_write(world->store, &item, 1, &call)),
                         STATUS_OK);
        assert_int_equal(world->size, layer);
    }
    assert_int_equal(ended(world, yolk_store_put_session_end(world->store, &key, 1, &call)),
                     STATUS_OK);
    assert_int_equal(ended(world, yolk_store_get_session_start(world->store, &key, 1, &call)),
                     STATUS_OK);
    for (uint64_t at = VALUE_SIZE; at > 0; at -= layer) {
        const struct yolk_store_part part = { copy + at - layer, layer, at - layer };
        const struct yolk_store_parts item = { key, &part, 1 };
        assert_int_equal(ended(world, yolk_store_get_session_read(world->store, &item, 1, &call)),
                         STATUS_OK);
    }
    assert_memory_equal(copy, world->memory, VALUE_SIZE);
    owner_flips_a_bit(world, key);
    const struct yolk_store_part last = { copy, 1, VALUE_SIZE - 2 };
    const struct yolk_store_parts item = { key, &last, 1 };
    assert_int_equal(ended(world, yolk_store_get_session_read(world->store, &item, 1, &call)),
                     STATUS_CORRUPT);
    assert_int_equal(ended(world, yolk_store_get_session_end(world->store, &key, 1, &call)),
                     STATUS_OK);
    owner_drops_it(world, key);
}

/* A block that a node committed is a value to whoever asks by its key. */
static void blocks_are_values_too(struct world *world)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = world };
    struct store_node *node = world->nodes[0].node;
    struct block_key id;
    struct store_page page;
    struct rng rng;

    rng_init(&rng, 3);
    rng_fill(&rng, id.bytes, sizeof(id.bytes));
    assert_int_equal(store_node_alloc(node, 1, &page), STATUS_OK);
    rng_fill(&rng, store_node_data(node, page), PAGE_SIZE);
    assert_int_equal(store_node_commit(node, &id, page, NULL), STATUS_OK);
    const struct yolk_store_key key = { id.bytes, sizeof(id.bytes) };
    const struct yolk_store_buffer buffer = { .key = key,
                                              .data = world->memory,
                                              .size = VALUE_SIZE };
    const struct yolk_store_value value = { .key = key, .data = world->memory, .size = 10 };
    const uint64_t limit = env_now_ns(world->env) + 60 * ENV_NS_PER_S;
    while (ended(world, yolk_store_exist(world->store, &key, 1, &call)) != STATUS_OK) {
        assert_true(env_now_ns(world->env) < limit); /* the master is told soon */
    }
    assert_int_equal(ended(world, yolk_store_get(world->store, &buffer, 1, &call)), STATUS_OK);
    assert_int_equal(world->size, LAYERS * LAYER_SIZE);
    assert_memory_equal(world->memory, store_node_data(node, page), LAYERS * LAYER_SIZE);
    assert_int_equal(ended(world, yolk_store_put(world->store, &value, 1, &call)), STATUS_EXISTS);
    assert_int_equal(ended(world, yolk_store_remove(world->store, &key, 1, &call)), STATUS_DENIED);
    store_node_unref(node, page);
}

struct answers {
    bool *ended; /* the world's */
    uint32_t left;
    enum status status[BATCH_MAX];
};

static void on_answer(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct answers *answers = ctx;
    (void)size;
    answers->status[index] = status;
    if (--answers->left == 0) *answers->ended = true;
}

/* The master takes batches by the handful: around the edges of handfuls, each key has its own
 * answer, at its own place. Every second one is there. */
static void batches_of_every_size(struct world *world)
{
    static const uint32_t counts[] = { 1, 2, 16, 17, 31, 32, 33, 63, 64, 65, 97, BATCH_MAX };
    static struct answers answers;
    const struct yolk_store_call call = { .on_item = on_answer, .ctx = &answers };
    struct yolk_store_value values[BATCH_MAX / 2];
    struct yolk_store_key keys[BATCH_MAX];
    char names[BATCH_MAX][16];

    answers.ended = &world->ended;
    for (uint32_t i = 0; i < BATCH_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "of many %u", i);
        keys[i] = (struct yolk_store_key){ names[i], strlen(names[i]) };
        if (i % 2 == 0)
            values[i / 2] = (struct yolk_store_value){ keys[i], world->memory, .size = 100 };
    }
    answers.left = BATCH_MAX / 2;
    (void)ended(world, yolk_store_put(world->store, values, BATCH_MAX / 2, &call));
    for (uint32_t i = 0; i < BATCH_MAX / 2; i++)
        assert_int_equal(answers.status[i], STATUS_OK);
    for (size_t n = 0; n < sizeof(counts) / sizeof(counts[0]); n++) {
        const uint32_t first = BATCH_MAX - counts[n];
        answers.left = counts[n];
        (void)ended(world, yolk_store_exist(world->store, keys + first, counts[n], &call));
        for (uint32_t i = 0; i < counts[n]; i++) {
            const bool there = (first + i) % 2 == 0;
            assert_int_equal(answers.status[i], there ? STATUS_OK : STATUS_NOT_FOUND);
        }
    }
}

static void bad_keys_and_sizes_are_refused(struct world *world)
{
    const struct yolk_store_key empty = { "", 0 }, huge = { world->memory, 1025 };
    const struct yolk_store_call call = { .on_item = on_item, .ctx = world };
    const struct yolk_store_value nothing = { .key = { "k", 1 }, .data = world->memory, .size = 0 };
    const struct yolk_store_value terabyte = { .key = { "k", 1 },
                                               .data = world->memory,
                                               .size = UINT64_C(1) << 40 };

    assert_int_equal(ended(world, yolk_store_exist(world->store, &empty, 1, &call)),
                     STATUS_INVALID);
    assert_int_equal(ended(world, yolk_store_exist(world->store, &huge, 1, &call)), STATUS_INVALID);
    assert_int_equal(yolk_store_exist(world->store, &empty, 0, &call), STATUS_INVALID);
    assert_int_equal(ended(world, yolk_store_put(world->store, &nothing, 1, &call)),
                     STATUS_INVALID);
    assert_int_equal(ended(world, yolk_store_put(world->store, &terabyte, 1, &call)),
                     STATUS_INVALID);
}

static void everything_moves(bool forbid_shm, enum yolk_transfer_path path)
{
    struct world world;
    struct yolk_transfer_stats stats;

    world_start(&world, forbid_shm);
    blocks_move(&world);
    values_move(&world);
    sessions_move(&world);
    blocks_are_values_too(&world);
    batches_of_every_size(&world);
    bad_keys_and_sizes_are_refused(&world);
    yolk_transfer_stats(world.nodes[1].transfer, &stats);
    assert_int_equal(stats.bytes_read[path], (uint64_t)BLOCKS * LAYERS * LAYER_SIZE);
    world_end(&world);
}

/* ---- threads ---- */

enum { ASKERS = 8, ROUNDS = 20, SMALL = 5000 };

struct asker {
    struct yolk_store_threads *threads;
    uint8_t *memory; /* two values, for this one alone */
    unsigned number;
    _Atomic unsigned *left; /* askers that have not ended; counted down by each, read by the loop */
    _Atomic unsigned *wrong;
    _Atomic unsigned *firsts; /* of the puts that all of them try: which were taken */
};

/* cmocka's own checks are for its thread only. */
static void check(const struct asker *asker, bool right)
{
    if (!right) atomic_fetch_add(asker->wrong, 1);
}

struct batch {
    const struct yolk_store_key *keys;
    const struct yolk_store_value *values;
    uint32_t count;
};

static enum status begin_exist(void *ctx, struct yolk_store *store,
                               const struct yolk_store_call *call)
{
    const struct batch *batch = ctx;
    return yolk_store_exist(store, batch->keys, batch->count, call);
}

static enum status begin_put(void *ctx, struct yolk_store *store,
                             const struct yolk_store_call *call)
{
    const struct batch *batch = ctx;
    return yolk_store_put(store, batch->values, batch->count, call);
}

static void on_numbers(void *ctx, enum status status, const struct yolk_store_stats *stats,
                       const struct yolk_store_node *nodes, uint32_t nodes_count)
{
    const struct yolk_store_call *call = ctx;
    (void)nodes;
    (void)nodes_count;
    call->on_item(call->ctx, 0, status, status == STATUS_OK ? stats->space_total : 0);
}

/* What has no items: it is one. */
static enum status begin_stat(void *ctx, struct yolk_store *store,
                              const struct yolk_store_call *call)
{
    struct yolk_store_call *kept = ctx;
    *kept = *call;
    return yolk_store_stat(store, 0, on_numbers, kept);
}

/* Calls of several items, of this thread alone. */
static void call_whole(const struct asker *asker)
{
    struct yolk_store_threads *threads = asker->threads;
    const struct yolk_store_call replace = { .replace = true };
    struct yolk_store_answer answers[3] = { { STATUS_PENDING, 0 } };
    struct yolk_store_call kept;
    char text[32];

    snprintf(text, sizeof(text), "whole %u", asker->number);
    const struct yolk_store_key keys[] = { { "nowhere", 7 }, { text, strlen(text) }, { NULL, 0 } };
    const struct yolk_store_value value = { .key = keys[1], .data = asker->memory, .size = SMALL };
    struct batch batch = { keys, &value, 1 };
    for (unsigned round = 0; round < 2; round++) {
        const enum status status =
            yolk_store_threads_call(threads, 1, &replace, begin_put, &batch, answers);
        check(asker, status == STATUS_OK && answers[0].status == STATUS_OK);
    }
    batch.count = 3;
    check(asker,
          yolk_store_threads_call(threads, 3, NULL, begin_exist, &batch, answers) == STATUS_OK);
    check(asker, answers[0].status == STATUS_NOT_FOUND && answers[1].status == STATUS_OK);
    check(asker, answers[2].status == STATUS_INVALID);
    check(asker,
          yolk_store_threads_call(threads, 1, NULL, begin_stat, &kept, answers) == STATUS_OK);
    check(asker, answers[0].status == STATUS_OK && answers[0].size > 0);
    batch.count = 0;
    answers[0].status = STATUS_PENDING;
    check(asker, yolk_store_threads_call(threads, 1, NULL, begin_exist, &batch, answers) ==
                     STATUS_INVALID);
    check(asker, yolk_store_threads_call(threads, 0, NULL, begin_exist, &batch, answers) ==
                     STATUS_INVALID);
    check(asker, answers[0].status == STATUS_PENDING);
}

/* Own values come and go; a value that all put at once is one's. */
static void *ask_in_turns(void *ctx)
{
    const struct asker *asker = ctx;
    struct yolk_store_threads *threads = asker->threads;
    uint64_t size;

    for (unsigned round = 0; round < ROUNDS; round++) {
        char own[32], shared[32];
        snprintf(own, sizeof(own), "own %u %u", asker->number, round);
        snprintf(shared, sizeof(shared), "shared by all %u", round);
        const struct yolk_store_key key = { own, strlen(own) };
        const struct yolk_store_key one = { shared, strlen(shared) };
        memset(asker->memory, (int)(asker->number * ROUNDS + round), SMALL);
        memset(asker->memory + SMALL, 0, SMALL);
        const struct yolk_store_value value = { .key = key, .data = asker->memory, .size = SMALL };
        const struct yolk_store_value same = { .key = one, .data = asker->memory, .size = SMALL };
        const struct yolk_store_buffer buffer = { .key = key,
                                                  .data = asker->memory + SMALL,
                                                  .size = SMALL };
        check(asker, yolk_store_threads_exist(threads, &key) == STATUS_NOT_FOUND);
        check(asker, yolk_store_threads_put(threads, &value) == STATUS_OK);
        check(asker, yolk_store_threads_get(threads, &buffer, &size) == STATUS_OK);
        check(asker, size == SMALL);
        check(asker, memcmp(asker->memory, asker->memory + SMALL, SMALL) == 0);
        check(asker, yolk_store_threads_remove(threads, &key) == STATUS_BUSY); /* leased */
        const enum status status = yolk_store_threads_put(threads, &same);
        check(asker, status == STATUS_OK || status == STATUS_EXISTS);
        if (status == STATUS_OK) atomic_fetch_add(&asker->firsts[round], 1);
    }
    const struct yolk_store_key none = { NULL, 0 };
    const struct yolk_store_value nothing = { .key = { "k", 1 }, .data = asker->memory };
    const struct yolk_store_buffer no_range = { .key = { "k", 1 }, .range = true };
    check(asker, yolk_store_threads_exist(threads, &none) == STATUS_INVALID);
    check(asker, yolk_store_threads_remove(threads, &none) == STATUS_INVALID);
    check(asker, yolk_store_threads_put(threads, &nothing) == STATUS_INVALID);
    check(asker, yolk_store_threads_get(threads, &no_range, &size) == STATUS_INVALID);
    call_whole(asker);
    atomic_fetch_sub(asker->left, 1);
    return NULL;
}

static void threads_ask(void **state)
{
    static struct world world;
    struct asker askers[ASKERS];
    pthread_t threads[ASKERS];
    _Atomic unsigned left = ASKERS;
    _Atomic unsigned wrong = 0;
    _Atomic unsigned firsts[ROUNDS] = { 0 };
    struct yolk_store_threads *door;
    (void)state;

    world_start(&world, false);
    assert_int_equal(yolk_store_threads_create(world.env, world.store, &door), STATUS_OK);
    for (unsigned i = 0; i < ASKERS; i++) {
        askers[i] =
            (struct asker){ door, world.memory + (size_t)i * 2 * SMALL, i, &left, &wrong, firsts };
        assert_int_equal(pthread_create(&threads[i], NULL, ask_in_turns, &askers[i]), 0);
    }
    while (atomic_load(&left) > 0)
        env_poll(world.env, 10 * ENV_NS_PER_MS);
    for (unsigned i = 0; i < ASKERS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned round = 0; round < ROUNDS; round++)
        assert_int_equal(firsts[round], 1);
    assert_int_equal(wrong, 0);
    yolk_store_threads_destroy(door);
    world_end(&world);
}

/* A key that is too long only together with the name of its tenant. */
static void *ask_for_long(void *ctx)
{
    static const char text[YOLK_STORE_KEY_SIZE_MAX] = { 'k' };
    const struct asker *asker = ctx;
    const bool whole = asker->number > 0;
    const struct yolk_store_key key = { text, whole ? sizeof(text) : 1 };
    const enum status status = yolk_store_threads_exist(asker->threads, &key);
    check(asker, status == (whole ? STATUS_INVALID : STATUS_NOT_FOUND));
    atomic_fetch_sub(asker->left, 1);
    return NULL;
}

/* Who asks for what cannot be spoils the answer of nobody whose question goes with it. */
static void threads_ask_for_what_cannot_be(void **state)
{
    static struct world world;
    struct asker askers[ASKERS];
    pthread_t threads[ASKERS];
    _Atomic unsigned left = ASKERS;
    _Atomic unsigned wrong = 0;
    struct yolk_store_threads *door;
    struct yolk_store *store;
    (void)state;

    world_start(&world, false);
    const struct yolk_store_options options = { .env = world.env,
                                                .transfer = world.client_transfer,
                                                .master = world.master_address,
                                                .tenant = "red" };
    assert_int_equal(yolk_store_create(&options, &store, NULL), STATUS_OK);
    assert_int_equal(yolk_store_threads_create(world.env, store, &door), STATUS_OK);
    for (unsigned i = 0; i < ASKERS; i++) {
        askers[i] = (struct asker){ .threads = door, .number = i, .left = &left, .wrong = &wrong };
        assert_int_equal(pthread_create(&threads[i], NULL, ask_for_long, &askers[i]), 0);
    }
    usleep(20000); /* the questions that were handed in wait together for the loop */
    while (atomic_load(&left) > 0)
        env_poll(world.env, 10 * ENV_NS_PER_MS);
    for (unsigned i = 0; i < ASKERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(wrong, 0);
    yolk_store_threads_destroy(door);
    yolk_store_destroy(store);
    world_end(&world);
}

/* ---- memory that a client lends ---- */

static void on_lent(void *ctx, enum status status)
{
    assert_int_equal(status, STATUS_OK);
    *(bool *)ctx = true;
}

static void on_first_place(void *ctx, enum status status, const struct yolk_store_where *where)
{
    struct world *world = ctx;
    assert_int_equal(status, STATUS_OK);
    snprintf(world->place, sizeof(world->place), "%s", where->replicas[0].rpc_address);
    world->ended = true;
}

static void clients_lend(void **state)
{
    struct world world;
    struct yolk_store_lend *lend;
    bool joined = false;
    (void)state;

    world_start(&world, false);
    const struct yolk_store_lend_options options = { .env = world.env,
                                                     .master = world.master_address,
                                                     .size = 8 << 20,
                                                     .on_joined = on_lent,
                                                     .ctx = &joined };
    assert_int_equal(yolk_store_lend_create(&options, &lend, NULL), STATUS_OK);
    run_until(&world, &joined);
    const struct yolk_store_call call = { .preferred = yolk_store_lend_name(lend),
                                          .on_item = on_item,
                                          .ctx = &world };
    const struct yolk_store_value value = { .key = { "lent", 4 },
                                            .data = world.memory,
                                            .size = VALUE_SIZE };
    const struct yolk_store_buffer buffer = { .key = value.key,
                                              .data = world.memory + VALUE_SIZE,
                                              .size = VALUE_SIZE };
    memset(world.memory, 7, VALUE_SIZE);
    assert_int_equal(ended(&world, yolk_store_put(world.store, &value, 1, &call)), STATUS_OK);
    assert_int_equal(ended(&world, yolk_store_get(world.store, &buffer, 1, &call)), STATUS_OK);
    assert_memory_equal(world.memory, world.memory + VALUE_SIZE, VALUE_SIZE);
    world.ended = false;
    assert_int_equal(yolk_store_locate(world.store, &value.key, 0, on_first_place, &world),
                     STATUS_OK);
    run_until(&world, &world.ended);
    assert_string_equal(world.place, yolk_store_lend_name(lend));
    yolk_store_lend_destroy(lend);
    world_end(&world);
}

static void over_shared_memory(void **state)
{
    (void)state;
    everything_moves(false, YOLK_TRANSFER_PATH_SHM);
}

static void over_tcp(void **state)
{
    (void)state;
    everything_moves(true, YOLK_TRANSFER_PATH_TCP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(over_shared_memory), cmocka_unit_test(over_tcp),
        cmocka_unit_test(threads_ask),        cmocka_unit_test(threads_ask_for_what_cannot_be),
        cmocka_unit_test(clients_lend),
    };
    if (log_configure("warn", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
