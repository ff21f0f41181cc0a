/* SPDX-License-Identifier: Apache-2.0
 *
 * store/session_test.c
 *
 * Goal:   a value written in parts is what its parts were, and is there only when all of them are;
 *         a value read in parts is one value, whatever becomes of its key and its owners; and what
 *         is asked wrongly is answered with the status that the header promises.
 * Method: master, three nodes and a client in a simulated world without faults of its own. Single
 *         cases by hand; then a random walk over keys, parts and statuses, compared with a model
 *         that has a byte for each byte. Faults of networks and processes are the business of
 *         store_sim_test, where sessions take part. */
#include "store/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "store/client_int.h"
#include "store/cluster_sim.h"
#include "store/node_int.h"
#include "store/reading.h"
#include "seed.h"
#include "yolk/store_session.h"

enum {
    VALUE_SIZE = 2 * YOLK_STORE_PIECE_SIZE + 1000,
    MEMORY_SIZE = 8 * VALUE_SIZE,
    ITEMS_MAX = 8,
    WRITE_MS = 4000, /* as the simulated master takes writers for dead */
    WALK_KEYS = 5,
    WALK_STEPS = 400,
    WALK_SIZE = YOLK_STORE_PIECE_SIZE + 300,
};

struct world {
    struct sim_cluster cluster;
    struct env *env;
    struct yolk_transfer *transfer;
    struct yolk_store *store;
    uint8_t *memory; /* registered */
    uint32_t left;   /* items of the call under way */
    enum status statuses[ITEMS_MAX];
    uint64_t sizes[ITEMS_MAX];
};

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct world *world = ctx;
    assert_true(index < ITEMS_MAX && world->left > 0);
    world->statuses[index] = status;
    world->sizes[index] = size;
    world->left--;
}

static bool is_over(void *ctx)
{
    return ((struct world *)ctx)->left == 0;
}

static struct yolk_store_call call_of(struct world *world, uint32_t count)
{
    world->left = count;
    return (struct yolk_store_call){ .on_item = on_item, .ctx = world };
}

/* How the only item, or the first one, ended. */
static enum status finish(struct world *world, enum status begun)
{
    if (begun != STATUS_OK) {
        world->left = 0;
        return begun;
    }
    assert_true(env_sim_run_until(world->cluster.sim, is_over, world, 60 * ENV_NS_PER_S));
    return world->statuses[0];
}

/* The client is on the host of a node if `near`, so that it sees the memory of that one. */
static void world_start(struct world *world, bool near)
{
    const struct env_sim_options calm = { .seed = test_seed() };
    const struct yolk_transfer_options transfer = {
        .listen = near ? "10.0.1.1:7300" : "10.0.2.1:7200", .secret = SIM_SECRET, .fence_ms = 2000
    };
    void *memory = NULL;

    memset(world, 0, sizeof(*world));
    sim_cluster_start(&world->cluster, &calm);
    world->env = env_sim_add(world->cluster.sim, near ? "10.0.1.1" : "10.0.2.1");
    assert_int_equal(yolk_transfer_create(world->env, &transfer, &world->transfer, NULL),
                     STATUS_OK);
    assert_int_equal(
        yolk_transfer_alloc(world->transfer, MEMORY_SIZE, YOLK_TRANSFER_REMOTE_ALL, &memory, NULL),
        STATUS_OK);
    world->memory = memory;
    const struct yolk_store_options options = { .env = world->env,
                                                .transfer = world->transfer,
                                                .master = SIM_MASTER,
                                                .secret = SIM_SECRET,
                                                .timeout_ms = 6000 };
    assert_int_equal(yolk_store_create(&options, &world->store, NULL), STATUS_OK);
    sim_run_ms(&world->cluster, 4000); /* settled */
}

static void world_end(struct world *world)
{
    assert_int_equal(world->store->items, 0);
    env_sim_kill(world->env);
    yolk_store_destroy(world->store);
    yolk_transfer_destroy(world->transfer);
    sim_cluster_end(&world->cluster);
}

static struct yolk_store_key key_of(const char *text)
{
    return (struct yolk_store_key){ text, strlen(text) };
}

/* ---- one call, one item ---- */

static enum status put_start(struct world *world, const char *key, uint64_t size)
{
    const struct yolk_store_value value = { .key = key_of(key), .size = size };
    const struct yolk_store_call call = call_of(world, 1);
    return finish(world, yolk_store_put_session_start(world->store, &value, 1, &call));
}

static enum status put_write(struct world *world, const char *key,
                             const struct yolk_store_part *parts, uint32_t count)
{
    const struct yolk_store_parts item = { key_of(key), parts, count };
    const struct yolk_store_call call = call_of(world, 1);
    return finish(world, yolk_store_put_session_write(world->store, &item, 1, &call));
}

static enum status get_read(struct world *world, const char *key,
                            const struct yolk_store_part *parts, uint32_t count)
{
    const struct yolk_store_parts item = { key_of(key), parts, count };
    const struct yolk_store_call call = call_of(world, 1);
    return finish(world, yolk_store_get_session_read(world->store, &item, 1, &call));
}

typedef enum status (*keys_fn)(struct yolk_store *, const struct yolk_store_key *, uint32_t,
                               const struct yolk_store_call *);

static enum status keyed(struct world *world, keys_fn fn, const char *text)
{
    const struct yolk_store_key key = key_of(text);
    const struct yolk_store_call call = call_of(world, 1);
    return finish(world, fn(world->store, &key, 1, &call));
}

static enum status put_end(struct world *world, const char *key)
{
    return keyed(world, yolk_store_put_session_end, key);
}

static enum status get_start(struct world *world, const char *key)
{
    return keyed(world, yolk_store_get_session_start, key);
}

static enum status get_end(struct world *world, const char *key)
{
    return keyed(world, yolk_store_get_session_end, key);
}

static enum status put_whole(struct world *world, const char *key, uint64_t n, bool replace,
                             uint32_t replicas)
{
    const struct yolk_store_value value = { .key = key_of(key),
                                            .data = world->memory,
                                            .size = VALUE_SIZE };
    struct yolk_store_call call = call_of(world, 1);
    call.replace = replace;
    call.replicas = replicas;
    sim_bytes(n, world->memory, VALUE_SIZE);
    return finish(world, yolk_store_put(world->store, &value, 1, &call));
}

/* Reads [offset, offset + size) of a value of VALUE_SIZE in the session; right if it is of `n`. */
static enum status read_checked(struct world *world, const char *key, uint64_t n, uint64_t offset,
                                uint64_t size)
{
    static uint8_t want[VALUE_SIZE];
    uint8_t *to = world->memory + 4 * VALUE_SIZE;
    const struct yolk_store_part part = { to, size, offset };

    memset(to, 0xee, size + 1);
    const enum status status = get_read(world, key, &part, 1);
    if (status != STATUS_OK) return status;
    sim_bytes(n, want, VALUE_SIZE);
    assert_int_equal(world->sizes[0], size);
    assert_memory_equal(to, want + offset, size);
    assert_int_equal(to[size], 0xee);
    return STATUS_OK;
}

static int holder_of(const struct world *world, const char *text)
{
    const struct store_key key = { (const uint8_t *)text, (uint32_t)strlen(text) };
    const struct block_key id = store_key_id(key);
    for (int i = 0; i < SIM_NODES; i++) {
        const struct sim_node *node = &world->cluster.nodes[i];
        if (node->env != NULL && objects_find(node->node->objects, &id) != NULL) return i;
    }
    return -1;
}

/* ---- the way it is meant ---- */

/* Parts of odd sizes, out of order, from both ends. */
static void written_and_read(struct world *world)
{
    uint8_t *data = world->memory;
    uint8_t *to = world->memory + 4 * VALUE_SIZE;
    const uint64_t cuts[] = {
        0, 1, 5000, YOLK_STORE_PIECE_SIZE, 2 * YOLK_STORE_PIECE_SIZE + 7, VALUE_SIZE
    };
    const unsigned order[] = { 3, 0, 4, 2, 1 };

    sim_bytes(1, data, VALUE_SIZE);
    assert_int_equal(put_start(world, "layers", VALUE_SIZE), STATUS_OK);
    assert_int_equal(world->sizes[0], VALUE_SIZE);
    for (unsigned i = 0; i < 5; i++) {
        const uint64_t from = cuts[order[i]], end = cuts[order[i] + 1];
        const struct yolk_store_part part = { data + from, end - from, from };
        assert_int_not_equal(keyed(world, yolk_store_exist, "layers"), STATUS_OK);
        assert_int_equal(put_write(world, "layers", &part, 1), STATUS_OK);
        assert_int_equal(world->sizes[0], end - from);
    }
    assert_int_equal(put_end(world, "layers"), STATUS_OK);
    assert_int_equal(world->sizes[0], VALUE_SIZE);
    assert_int_equal(keyed(world, yolk_store_exist, "layers"), STATUS_OK);

    assert_int_equal(get_start(world, "layers"), STATUS_OK);
    assert_int_equal(world->sizes[0], VALUE_SIZE);
    const struct yolk_store_part parts[] = { { to + 1, 4999, 1 },
                                             { to + 5000, YOLK_STORE_PIECE_SIZE, 5000 },
                                             { to, 1, 0 },
                                             { to + YOLK_STORE_PIECE_SIZE + 5000,
                                               VALUE_SIZE - YOLK_STORE_PIECE_SIZE - 5000,
                                               YOLK_STORE_PIECE_SIZE + 5000 } };
    assert_int_equal(get_read(world, "layers", parts, 4), STATUS_OK);
    assert_int_equal(world->sizes[0], VALUE_SIZE);
    assert_memory_equal(to, data, VALUE_SIZE);
    assert_int_equal(get_end(world, "layers"), STATUS_OK);
    assert_int_equal(get_end(world, "layers"), STATUS_NOT_FOUND);
    sim_run_ms(&world->cluster, 100);
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct store_node_counts counts;
        store_node_counts(world->cluster.nodes[i].node, &counts);
        assert_int_equal(counts.pins, 0);
    }
}

static void parts_become_a_value(void **state)
{
    struct world world;
    (void)state;
    for (int near = 0; near < 2; near++) {
        world_start(&world, near == 1);
        written_and_read(&world);
        world_end(&world);
    }
}

/* Several values a call, each with an end of its own. */
static void batches_end_item_by_item(void **state)
{
    struct world world;
    const struct yolk_store_key keys[] = { key_of("a"), key_of("b"), key_of("c") };
    (void)state;

    world_start(&world, false);
    struct yolk_store_call call = call_of(&world, 3);
    const struct yolk_store_value values[] = { { .key = keys[0], .size = 10 },
                                               { .key = keys[1], .size = 20 },
                                               { .key = keys[0], .size = 30 } };
    finish(&world, yolk_store_put_session_start(world.store, values, 3, &call));
    assert_int_equal(world.statuses[0], STATUS_OK);
    assert_int_equal(world.statuses[1], STATUS_OK);
    assert_int_equal(world.statuses[2], STATUS_EXISTS);
    const struct yolk_store_part parts[] = { { world.memory, 10, 0 }, { world.memory, 20, 0 } };
    const struct yolk_store_parts items[] = { { keys[0], &parts[0], 1 },
                                              { keys[2], &parts[0], 1 },
                                              { keys[1], &parts[1], 1 } };
    call = call_of(&world, 3);
    finish(&world, yolk_store_put_session_write(world.store, items, 3, &call));
    assert_int_equal(world.statuses[0], STATUS_OK);
    assert_int_equal(world.statuses[1], STATUS_NOT_FOUND);
    assert_int_equal(world.statuses[2], STATUS_OK);
    call = call_of(&world, 3);
    finish(&world, yolk_store_put_session_end(world.store, keys, 3, &call));
    assert_int_equal(world.statuses[0], STATUS_OK);
    assert_int_equal(world.statuses[1], STATUS_OK);
    assert_int_equal(world.statuses[2], STATUS_NOT_FOUND);
    call = call_of(&world, 3);
    finish(&world, yolk_store_get_session_start(world.store, keys, 3, &call));
    assert_int_equal(world.statuses[1], STATUS_OK);
    assert_int_equal(world.sizes[1], 20);
    assert_int_equal(world.statuses[2], STATUS_NOT_FOUND);
    call = call_of(&world, 3);
    finish(&world, yolk_store_get_session_end(world.store, keys, 3, &call));
    assert_int_equal(world.statuses[0], STATUS_OK);
    assert_int_equal(world.statuses[2], STATUS_NOT_FOUND);
    world_end(&world);
}

/* Without a session: several ranges of one value, each into a buffer of its own, with one get. */
static void a_key_may_be_got_more_than_once(void **state)
{
    struct world world;
    static uint8_t want[VALUE_SIZE];
    (void)state;

    for (int near = 0; near < 2; near++) {
        world_start(&world, near == 1);
        uint8_t *to = world.memory + 4 * VALUE_SIZE;
        assert_int_equal(put_whole(&world, "k", 1, false, 0), STATUS_OK);
        sim_bytes(1, want, VALUE_SIZE);
        const struct yolk_store_buffer buffers[] = {
            { key_of("k"), to, 100, true, VALUE_SIZE - 50 },
            { key_of("absent"), to + 1000, 100, true, 0 },
            { key_of("k"), to + 2000, 70000, true, 5 },
            { key_of("k"), to + 1000, 100, true, VALUE_SIZE },
        };
        const struct yolk_store_call call = call_of(&world, 4);
        finish(&world, yolk_store_get(world.store, buffers, 4, &call));
        assert_int_equal(world.statuses[0], STATUS_OK);
        assert_int_equal(world.sizes[0], VALUE_SIZE); /* which says that only 50 were there */
        assert_memory_equal(to, want + VALUE_SIZE - 50, 50);
        assert_int_equal(world.statuses[1], STATUS_NOT_FOUND);
        assert_int_equal(world.statuses[2], STATUS_OK);
        assert_memory_equal(to + 2000, want + 5, 70000);
        assert_int_equal(world.statuses[3], STATUS_INVALID);
        world_end(&world);
    }
}

/* ---- what is asked wrongly ---- */

static void wrong_puts_are_refused(void **state)
{
    struct world world;
    struct yolk_store_part part;
    (void)state;

    world_start(&world, false);
    part = (struct yolk_store_part){ world.memory, 100, 0 };
    assert_int_equal(put_write(&world, "k", &part, 1), STATUS_NOT_FOUND);
    assert_int_equal(put_end(&world, "k"), STATUS_NOT_FOUND);
    assert_int_equal(keyed(&world, yolk_store_put_session_revoke, "k"), STATUS_NOT_FOUND);
    assert_int_equal(put_start(&world, "k", 0), STATUS_INVALID);
    assert_int_equal(put_start(&world, "", 5), STATUS_INVALID);
    assert_int_equal(put_start(&world, "k", (uint64_t)STORE_OBJECT_SIZE_MAX + 1), STATUS_INVALID);
    assert_int_equal(put_start(&world, "k", 1000), STATUS_OK);
    assert_int_equal(put_start(&world, "k", 1000), STATUS_EXISTS);
    assert_int_equal(put_write(&world, "k", NULL, 0), STATUS_INVALID);
    part = (struct yolk_store_part){ world.memory, 1001, 0 };
    assert_int_equal(put_write(&world, "k", &part, 1), STATUS_INVALID);
    part = (struct yolk_store_part){ world.memory, 2, UINT64_MAX };
    assert_int_equal(put_write(&world, "k", &part, 1), STATUS_INVALID);
    part = (struct yolk_store_part){ world.memory, 0, 5 };
    assert_int_equal(put_write(&world, "k", &part, 1), STATUS_INVALID);
    part = (struct yolk_store_part){ NULL, 1, 5 };
    assert_int_equal(put_write(&world, "k", &part, 1), STATUS_INVALID);
    const struct yolk_store_part twice[] = { { world.memory, 100, 0 }, { world.memory, 100, 99 } };
    assert_int_equal(put_write(&world, "k", twice, 2),
                     STATUS_INVALID); /* and nothing of it counts */
    assert_int_equal(put_write(&world, "k", twice, 1), STATUS_OK);
    assert_int_equal(put_write(&world, "k", twice, 1), STATUS_INVALID);
    part = (struct yolk_store_part){ world.memory, 899, 101 };
    assert_int_equal(put_write(&world, "k", &part, 1), STATUS_OK);
    assert_int_equal(put_end(&world, "k"), STATUS_INVALID); /* byte 100 */
    assert_int_equal(put_end(&world, "k"), STATUS_NOT_FOUND);
    sim_run_ms(&world.cluster, 500);
    assert_int_equal(keyed(&world, yolk_store_exist, "k"), STATUS_NOT_FOUND);
    assert_int_equal(put_start(&world, "k", 10), STATUS_OK); /* at once: it was given back */
    assert_int_equal(keyed(&world, yolk_store_put_session_revoke, "k"), STATUS_OK);
    assert_int_equal(put_whole(&world, "k", 1, false, 0), STATUS_OK);
    assert_int_equal(put_start(&world, "k", 10), STATUS_EXISTS);
    world_end(&world);
}

static void wrong_gets_are_refused(void **state)
{
    struct world world;
    (void)state;

    world_start(&world, false);
    assert_int_equal(get_start(&world, "k"), STATUS_NOT_FOUND);
    assert_int_equal(read_checked(&world, "k", 1, 0, 10), STATUS_NOT_FOUND);
    assert_int_equal(get_end(&world, "k"), STATUS_NOT_FOUND);
    assert_int_equal(put_whole(&world, "k", 1, false, 0), STATUS_OK);
    assert_int_equal(read_checked(&world, "k", 1, 0, 10), STATUS_NOT_FOUND);
    assert_int_equal(get_start(&world, "k"), STATUS_OK);
    assert_int_equal(get_start(&world, "k"), STATUS_OK); /* counted */
    assert_int_equal(read_checked(&world, "k", 1, VALUE_SIZE - 1, 1), STATUS_OK);
    assert_int_equal(read_checked(&world, "k", 1, VALUE_SIZE - 1, 2), STATUS_INVALID);
    assert_int_equal(read_checked(&world, "k", 1, VALUE_SIZE, 1), STATUS_INVALID);
    assert_int_equal(read_checked(&world, "k", 1, 0, 0), STATUS_INVALID);
    assert_int_equal(get_read(&world, "k", NULL, 0), STATUS_INVALID);
    assert_int_equal(get_end(&world, "k"), STATUS_OK);
    assert_int_equal(read_checked(&world, "k", 1, 3, 10), STATUS_OK);
    assert_int_equal(get_end(&world, "k"), STATUS_OK);
    assert_int_equal(read_checked(&world, "k", 1, 3, 10), STATUS_NOT_FOUND);
    assert_int_equal(get_end(&world, "k"), STATUS_NOT_FOUND);
    world_end(&world);
}

static void calls_are_checked_as_a_whole(void **state)
{
    struct world world;
    static struct yolk_store_part parts[2];
    (void)state;

    world_start(&world, false);
    const struct yolk_store_parts items[] = { { key_of("a"), parts, YOLK_STORE_CALL_PARTS_MAX },
                                              { key_of("b"), parts, 1 } };
    const struct yolk_store_call call = call_of(&world, 0);
    assert_int_equal(yolk_store_put_session_write(world.store, items, 2, &call), STATUS_INVALID);
    assert_int_equal(yolk_store_get_session_read(world.store, items, 0, &call), STATUS_INVALID);
    world.store->items_max = 1;
    const struct yolk_store_key keys[] = { key_of("a"), key_of("b") };
    assert_int_equal(yolk_store_get_session_end(world.store, keys, 2, &call), STATUS_FULL);
    assert_int_equal(yolk_store_get_session_start(world.store, keys, 2, &call), STATUS_FULL);
    world_end(&world);
}

typedef enum status (*keys_fn)(struct yolk_store *store, const struct yolk_store_key *keys,
                               uint32_t count, const struct yolk_store_call *call);

/* A key that is good between two that are not. */
static void ask_among_wrong(struct world *world, keys_fn fn)
{
    static const char text[YOLK_STORE_KEY_SIZE_MAX + 1] = { 'k' };
    const struct yolk_store_key keys[] = { { "", 0 }, key_of("k"), { text, sizeof(text) } };
    const struct yolk_store_call call = call_of(world, 3);

    finish(world, fn(world->store, keys, 3, &call));
    assert_int_equal(world->statuses[0], STATUS_INVALID);
    assert_int_equal(world->statuses[1], STATUS_OK);
    assert_int_equal(world->statuses[2], STATUS_INVALID);
}

static void parts_among_wrong(struct world *world, bool write)
{
    const struct yolk_store_part part = { world->memory, 1000, 0 };
    const struct yolk_store_parts items[] = { { key_of(""), &part, 1 }, { key_of("k"), &part, 1 } };
    const struct yolk_store_call call = call_of(world, 2);

    finish(world, write ? yolk_store_put_session_write(world->store, items, 2, &call)
                        : yolk_store_get_session_read(world->store, items, 2, &call));
    assert_int_equal(world->statuses[0], STATUS_INVALID);
    assert_int_equal(world->statuses[1], STATUS_OK);
}

static void a_wrong_key_or_size_spoils_nothing_else(void **state)
{
    struct world world;
    (void)state;

    world_start(&world, false);
    const struct yolk_store_value values[] = { { .key = key_of("k"), .size = 0 },
                                               { .key = key_of("k"), .size = 1000 },
                                               { .key = key_of(""), .size = 1000 },
                                               { .key = key_of("l"), .size = UINT64_C(1) << 40 } };
    const struct yolk_store_call call = call_of(&world, 4);
    finish(&world, yolk_store_put_session_start(world.store, values, 4, &call));
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(world.statuses[i], i == 1 ? STATUS_OK : STATUS_INVALID);
    parts_among_wrong(&world, true);
    ask_among_wrong(&world, yolk_store_put_session_end);
    ask_among_wrong(&world, yolk_store_get_session_start);
    parts_among_wrong(&world, false);
    ask_among_wrong(&world, yolk_store_get_session_end);
    assert_int_equal(put_start(&world, "m", 1000), STATUS_OK);
    const struct yolk_store_key keys[] = { key_of(""), key_of("m") };
    const struct yolk_store_call two = call_of(&world, 2);
    finish(&world, yolk_store_put_session_revoke(world.store, keys, 2, &two));
    assert_int_equal(world.statuses[0], STATUS_INVALID);
    assert_int_equal(world.statuses[1], STATUS_OK);
    world_end(&world);
}

/* An end does not overtake a write. */
static void an_end_waits_for_nobody(void **state)
{
    struct world world;
    const struct yolk_store_key key = key_of("k");
    (void)state;

    world_start(&world, false);
    assert_int_equal(put_start(&world, "k", VALUE_SIZE), STATUS_OK);
    const struct yolk_store_part part = { world.memory, VALUE_SIZE, 0 };
    const struct yolk_store_parts item = { key, &part, 1 };
    const struct yolk_store_call call = call_of(&world, 2);
    assert_int_equal(yolk_store_put_session_write(world.store, &item, 1, &call), STATUS_OK);
    const struct yolk_store_key both[] = { key_of("other"), key };
    world.left = 3;
    assert_int_equal(yolk_store_put_session_end(world.store, both, 2, &call), STATUS_OK);
    assert_true(env_sim_run_until(world.cluster.sim, is_over, &world, 60 * ENV_NS_PER_S));
    assert_int_equal(world.statuses[0], STATUS_OK); /* the write, which came last */
    assert_int_equal(world.statuses[1], STATUS_BUSY);
    assert_int_equal(put_end(&world, "k"), STATUS_OK);
    world_end(&world);
}

/* ---- time ---- */

static void nobody_is_waited_for(void **state)
{
    struct world world;
    struct store_master_counts counts;
    (void)state;

    world_start(&world, false);
    const struct yolk_store_part part = { world.memory, 1000, 0 };
    assert_int_equal(put_start(&world, "k", 1000), STATUS_OK);
    assert_int_equal(put_write(&world, "k", &part, 1), STATUS_OK);
    sim_run_ms(&world.cluster, WRITE_MS + 100);
    assert_int_equal(put_write(&world, "k", &part, 1), STATUS_NOT_FOUND);
    assert_int_equal(put_end(&world, "k"), STATUS_NOT_FOUND);
    assert_int_equal(keyed(&world, yolk_store_exist, "k"), STATUS_NOT_FOUND);
    assert_int_equal(put_start(&world, "k", 1000), STATUS_OK);
    env_sim_kill(world.env); /* neither ended nor revoked: the master finds out */
    sim_run_ms(&world.cluster, 20000);
    struct store_master *master = store_master_shell_directory(world.cluster.master);
    store_master_counts(master, &counts);
    store_master_check(master);
    assert_int_equal(counts.objects, 0);
    assert_int_equal(counts.processing, 0);
    yolk_store_destroy(world.store);
    yolk_transfer_destroy(world.transfer);
    sim_cluster_end(&world.cluster);
}

static void what_is_not_read_is_let_go(void **state)
{
    struct world world;
    struct store_node_counts counts;
    (void)state;

    world_start(&world, false);
    assert_int_equal(put_whole(&world, "k", 1, false, 0), STATUS_OK);
    const int owner = holder_of(&world, "k");
    assert_int_equal(get_start(&world, "k"), STATUS_OK);
    for (int i = 0; i < 4; i++) {
        sim_run_ms(&world.cluster, 299000); /* many leases, but not idle */
        assert_int_equal(read_checked(&world, "k", 1, 0, 10), STATUS_OK);
    }
    sim_run_ms(&world.cluster, 301000);
    store_node_counts(world.cluster.nodes[owner].node, &counts);
    assert_int_equal(counts.pins, 0);
    assert_int_equal(read_checked(&world, "k", 1, 0, 10), STATUS_STALE);
    assert_int_equal(get_start(&world, "k"), STATUS_OK); /* the same bytes are there still */
    assert_int_equal(read_checked(&world, "k", 1, 0, 10), STATUS_OK);
    assert_int_equal(get_end(&world, "k"), STATUS_OK);
    assert_int_equal(get_end(&world, "k"), STATUS_OK);
    world_end(&world);
}

/* ---- what becomes of the key and its owners ---- */

static enum status remove_forced(struct world *world, const char *text)
{
    const struct yolk_store_key key = key_of(text);
    struct yolk_store_call call = call_of(world, 1);
    call.force = true;
    return finish(world, yolk_store_remove(world->store, &key, 1, &call));
}

static void a_session_is_of_one_value(void **state)
{
    struct world world;
    (void)state;

    world_start(&world, false);
    assert_int_equal(put_whole(&world, "k", 1, false, 0), STATUS_OK);
    assert_int_equal(get_start(&world, "k"), STATUS_OK);
    assert_int_equal(remove_forced(&world, "k"), STATUS_OK);
    sim_run_ms(&world.cluster, 5000);
    assert_int_equal(read_checked(&world, "k", 1, 7, 100000), STATUS_OK); /* it is pinned */
    const int owner = holder_of(&world, "k");
    env_sim_partition(world.cluster.sim, "10.0.2.1", world.cluster.nodes[owner].host);
    sim_run_ms(&world.cluster, 5000); /* the lease is over, and the value gone */
    env_sim_heal(world.cluster.sim, "10.0.2.1", world.cluster.nodes[owner].host);
    assert_int_equal(holder_of(&world, "k"), -1);
    assert_int_equal(put_whole(&world, "k", 2, false, 0), STATUS_OK);
    assert_int_equal(read_checked(&world, "k", 1, 0, 10), STATUS_STALE);
    assert_int_equal(read_checked(&world, "k", 1, 0, 10), STATUS_STALE);
    assert_int_equal(get_start(&world, "k"), STATUS_STALE); /* it is another value's key now */
    assert_int_equal(get_end(&world, "k"), STATUS_OK);
    assert_int_equal(get_start(&world, "k"), STATUS_OK);
    assert_int_equal(read_checked(&world, "k", 2, 0, 10), STATUS_OK);
    sim_run_ms(&world.cluster, 301000); /* idle: it is let go */
    assert_int_equal(remove_forced(&world, "k"), STATUS_OK);
    sim_run_ms(&world.cluster, 5000);
    assert_int_equal(get_start(&world, "k"), STATUS_NOT_FOUND); /* absent, to who comes now */
    assert_int_equal(read_checked(&world, "k", 2, 0, 10), STATUS_STALE);
    assert_int_equal(get_end(&world, "k"), STATUS_OK);
    world_end(&world);
}

static void the_next_replica_serves(void **state)
{
    struct world world;
    (void)state;

    world_start(&world, false);
    assert_int_equal(put_whole(&world, "k", 1, false, 2), STATUS_OK);
    sim_run_ms(&world.cluster, 2000); /* the second one is made */
    assert_int_equal(get_start(&world, "k"), STATUS_OK);
    assert_int_equal(read_checked(&world, "k", 1, 100, 1000), STATUS_OK);
    sim_master_kill(&world.cluster); /* which is not asked */
    sim_node_kill(&world.cluster.nodes[holder_of(&world, "k")]);
    assert_int_equal(read_checked(&world, "k", 1, 50, 100000), STATUS_OK);
    sim_node_kill(&world.cluster.nodes[holder_of(&world, "k")]);
    const enum status status = read_checked(&world, "k", 1, 50, 100000);
    assert_int_equal(status, STATUS_UNAVAILABLE);
    assert_int_equal(read_checked(&world, "k", 1, 50, 100000), status);
    assert_int_equal(get_end(&world, "k"), STATUS_OK);
    world_end(&world);
}

/* Bits that flip where a value lies are never delivered. */
static void wrong_bytes_are_not_served(void **state)
{
    struct world world;
    (void)state;

    for (int near = 0; near < 2; near++) {
        world_start(&world, near == 1);
        assert_int_equal(put_whole(&world, "k", 1, false, 2), STATUS_OK);
        sim_run_ms(&world.cluster, 2000);
        assert_int_equal(get_start(&world, "k"), STATUS_OK);
        const struct store_key key = { (const uint8_t *)"k", 1 };
        const struct block_key id = store_key_id(key);
        for (unsigned wrong = 0, i = 0; i < SIM_NODES; i++) {
            const struct object *object = objects_find(world.cluster.nodes[i].node->objects, &id);
            if (object == NULL) continue;
            ((uint8_t *)(uintptr_t)object->address)[5] ^= 4;
            wrong++;
            assert_int_equal(read_checked(&world, "k", 1, YOLK_STORE_PIECE_SIZE, 70), STATUS_OK);
            assert_int_equal(read_checked(&world, "k", 1, 90, 10),
                             wrong == 2 ? STATUS_CORRUPT : STATUS_OK);
        }
        assert_int_equal(get_end(&world, "k"), STATUS_OK);
        world_end(&world);
    }
}

/* Bits flip in one segment of ten while a part is read: what was damaged on its way is read once
 * more, as a get does, before it is said to be wrong. */
static void damage_in_flight_is_read_once_more(void **state)
{
    enum { ROUNDS = 400 };
    struct world world;
    unsigned right = 0, wrong = 0;
    (void)state;

    world_start(&world, false);
    assert_int_equal(put_whole(&world, "k", 1, false, 0), STATUS_OK);
    for (unsigned round = 0; round < ROUNDS; round++) {
        assert_int_equal(get_start(&world, "k"), STATUS_OK);
        env_sim_flip(world.cluster.sim, 100000);
        const enum status status = read_checked(&world, "k", 1, round, 120000);
        env_sim_flip(world.cluster.sim, 0);
        right += status == STATUS_OK;
        wrong += status == STATUS_CORRUPT;
        assert_int_equal(get_end(&world, "k"), STATUS_OK);
    }
    assert_true(right > ROUNDS * 3 / 4);    /* the rest lost its connection */
    assert_in_range(wrong, 0, ROUNDS / 40); /* one in 20 without */
    world_end(&world);
}

/* What arrived is not what was written: nothing is readable. */
static void a_wrong_draft_is_refused(void **state)
{
    struct world world;
    (void)state;

    world_start(&world, false);
    const struct yolk_store_part part = { world.memory, 3000, 0 };
    sim_bytes(9, world.memory, 3000);
    assert_int_equal(put_start(&world, "k", 3000), STATUS_OK);
    assert_int_equal(put_write(&world, "k", &part, 1), STATUS_OK);
    unsigned found = 0;
    for (unsigned i = 0; i < SIM_NODES; i++) {
        struct store_node *node = world.cluster.nodes[i].node;
        uint8_t *region = (uint8_t *)(uintptr_t)node_region_address(node);
        for (uint64_t at = 0; at < node->object_size; at += 4096) {
            if (memcmp(region + at, world.memory, 3000) != 0) continue;
            region[at + 2999] ^= 1;
            found++;
        }
    }
    assert_int_equal(found, 1);
    assert_int_equal(put_end(&world, "k"), STATUS_CORRUPT);
    assert_int_equal(put_end(&world, "k"), STATUS_NOT_FOUND);
    sim_run_ms(&world.cluster, 500);
    assert_int_equal(keyed(&world, yolk_store_exist, "k"), STATUS_NOT_FOUND);
    world_end(&world);
}

static void a_client_may_end_any_time(void **state)
{
    struct world world;
    (void)state;

    for (uint64_t ms = 0; ms < 12; ms++) {
        world_start(&world, ms % 2 == 1);
        assert_int_equal(put_whole(&world, "k", 1, false, 0), STATUS_OK);
        if (ms >= 6) assert_int_equal(get_start(&world, "k"), STATUS_OK);
        assert_int_equal(put_start(&world, "new", VALUE_SIZE), STATUS_OK);
        const struct yolk_store_part parts[] = { { world.memory + VALUE_SIZE, VALUE_SIZE - 1, 1 },
                                                 { world.memory + 2 * VALUE_SIZE, VALUE_SIZE, 0 } };
        const struct yolk_store_parts items[] = { { key_of("k"), &parts[0], 1 },
                                                  { key_of("new"), &parts[1], 1 } };
        const struct yolk_store_call call = call_of(&world, 3);
        assert_int_equal(yolk_store_get_session_start(world.store, &items[0].key, 1, &call),
                         STATUS_OK);
        assert_int_equal(yolk_store_get_session_read(world.store, &items[0], 1, &call), STATUS_OK);
        assert_int_equal(yolk_store_put_session_write(world.store, &items[1], 1, &call), STATUS_OK);
        env_sim_run_for(world.cluster.sim, ms % 6 * ENV_NS_PER_MS / 2);
        env_sim_kill(world.env);
        yolk_store_destroy(world.store);
        yolk_transfer_destroy(world.transfer);
        assert_int_equal(world.left, 0);
        sim_cluster_end(&world.cluster);
    }
}

/* ---- the walk ---- */

/* What a naive store would know of a key. */
struct model {
    bool value; /* has one, of */
    uint64_t size;
    uint8_t bytes[WALK_SIZE];
    bool draft; /* is being written, until */
    uint64_t draft_until_ns;
    uint64_t draft_size;
    uint8_t draft_bytes[WALK_SIZE];
    bool written[WALK_SIZE];
    uint32_t starts; /* of get sessions, of */
    uint64_t held_size;
    uint8_t held[WALK_SIZE];
};

struct walk {
    struct world world;
    struct rng rng;
    struct model models[WALK_KEYS];
};

static void walk_put_start(struct walk *walk, struct model *model, const char *key)
{
    const uint64_t size = rng_between(&walk->rng, 1, WALK_SIZE);
    const uint64_t now = env_now_ns(walk->world.env);
    const enum status status = put_start(&walk->world, key, size);
    assert_int_equal(status, model->value || model->draft ? STATUS_EXISTS : STATUS_OK);
    if (status != STATUS_OK) return;
    model->draft = true;
    model->draft_until_ns = now + WRITE_MS * ENV_NS_PER_MS;
    model->draft_size = size;
    memset(model->written, 0, sizeof(model->written));
}

static void walk_write(struct walk *walk, struct model *model, const char *key)
{
    struct yolk_store_part parts[3];
    bool written[WALK_SIZE];
    uint8_t bytes[WALK_SIZE];
    const uint32_t count = (uint32_t)rng_between(&walk->rng, 1, 3);
    enum status want = model->draft ? STATUS_OK : STATUS_NOT_FOUND;
    uint64_t sum = 0;

    memcpy(written, model->written, sizeof(written));
    memcpy(bytes, model->draft_bytes, sizeof(bytes));
    rng_fill(&walk->rng, walk->world.memory, (size_t)3 * WALK_SIZE);
    for (uint32_t i = 0; i < count; i++) {
        /* Mostly the first hole, so that values become whole. */
        uint64_t offset = 0;
        while (offset < model->draft_size && written[offset])
            offset++;
        if (rng_below(&walk->rng, 8) == 0) offset = rng_below(&walk->rng, WALK_SIZE);
        uint64_t size = rng_between(&walk->rng, 1, WALK_SIZE / 2);
        if (rng_below(&walk->rng, 16) != 0 && offset < model->draft_size &&
            size > model->draft_size - offset) {
            size = model->draft_size - offset;
        }
        parts[i] = (struct yolk_store_part){ walk->world.memory + i * WALK_SIZE, size, offset };
        sum += size;
        if (want == STATUS_OK && offset + size > model->draft_size) want = STATUS_INVALID;
        for (uint64_t at = 0; at < size && want == STATUS_OK; at++) {
            if (written[offset + at]) want = STATUS_INVALID;
            written[offset + at] = true;
            bytes[offset + at] = ((uint8_t *)parts[i].data)[at];
        }
    }
    assert_int_equal(put_write(&walk->world, key, parts, count), want);
    if (want != STATUS_OK) return;
    assert_int_equal(walk->world.sizes[0], sum);
    memcpy(model->written, written, sizeof(written));
    memcpy(model->draft_bytes, bytes, sizeof(bytes));
}

static void walk_end(struct walk *walk, struct model *model, const char *key)
{
    bool whole = model->draft;
    for (uint64_t i = 0; i < model->draft_size && whole; i++)
        whole = model->written[i];
    const enum status want = !model->draft ? STATUS_NOT_FOUND : whole ? STATUS_OK : STATUS_INVALID;
    assert_int_equal(put_end(&walk->world, key), want);
    model->draft = false;
    if (want != STATUS_OK) return;
    model->value = true;
    model->size = model->draft_size;
    memcpy(model->bytes, model->draft_bytes, sizeof(model->bytes));
}

static void walk_get_start(struct walk *walk, struct model *model, const char *key)
{
    const enum status status = get_start(&walk->world, key);
    if (model->starts > 0) { /* it joins, whatever has become of the key */
        assert_int_equal(status, STATUS_OK);
    } else {
        assert_int_equal(status == STATUS_OK, model->value);
        if (status == STATUS_OK) {
            model->held_size = model->size;
            memcpy(model->held, model->bytes, sizeof(model->held));
        }
    }
    model->starts += status == STATUS_OK;
}

static void walk_read(struct walk *walk, struct model *model, const char *key)
{
    uint8_t *to = walk->world.memory + (size_t)3 * WALK_SIZE;
    struct yolk_store_part parts[3];
    const uint32_t count = (uint32_t)rng_between(&walk->rng, 1, 3);
    enum status want = model->starts > 0 ? STATUS_OK : STATUS_NOT_FOUND;

    memset(to, 0, (size_t)3 * WALK_SIZE);
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t offset = rng_below(&walk->rng, model->held_size + 1);
        const uint64_t left = model->held_size - offset;
        const uint64_t over = rng_below(&walk->rng, 16) == 0;
        const uint64_t size = (left > 0 ? rng_between(&walk->rng, 1, left) : 0) + over;
        parts[i] = (struct yolk_store_part){ to + i * WALK_SIZE, size, offset };
        if (want == STATUS_OK && (size == 0 || size > left)) want = STATUS_INVALID;
    }
    assert_int_equal(get_read(&walk->world, key, parts, count), want);
    for (uint32_t i = 0; i < count && want == STATUS_OK; i++)
        assert_memory_equal(parts[i].data, model->held + parts[i].offset, parts[i].size);
}

static void walk_step(struct walk *walk)
{
    const unsigned n = (unsigned)rng_below(&walk->rng, WALK_KEYS);
    struct model *model = &walk->models[n];
    char key[8];

    /* A time that is nearly over is over. */
    const uint64_t soon = env_now_ns(walk->world.env) + 200 * ENV_NS_PER_MS;
    if (model->draft && soon >= model->draft_until_ns) {
        sim_run_ms(&walk->world.cluster, 300);
        model->draft = false;
    }
    snprintf(key, sizeof(key), "key-%u", n);
    switch (rng_below(&walk->rng, 16)) {
    case 0:
    case 1: walk_put_start(walk, model, key); break;
    case 2:
    case 3:
    case 4:
    case 5: walk_write(walk, model, key); break;
    case 6: walk_end(walk, model, key); break;
    case 7:
        assert_int_equal(keyed(&walk->world, yolk_store_put_session_revoke, key),
                         model->draft ? STATUS_OK : STATUS_NOT_FOUND);
        model->draft = false;
        break;
    case 8:
        if (model->starts > 0) break; /* its owner would keep it, and the key be busy for long */
        assert_int_equal(remove_forced(&walk->world, key) == STATUS_OK,
                         model->value && !model->draft);
        if (!model->draft) model->value = false;
        break;
    case 9:
    case 10: walk_get_start(walk, model, key); break;
    case 11:
        assert_int_equal(get_end(&walk->world, key),
                         model->starts > 0 ? STATUS_OK : STATUS_NOT_FOUND);
        if (model->starts > 0) model->starts--;
        break;
    default: walk_read(walk, model, key); break;
    }
    sim_run_ms(&walk->world.cluster, 30); /* a removal arrives at its owner */
}

static void a_walk_ends_as_the_model_says(void **state)
{
    static struct walk walk;
    (void)state;

    for (unsigned i = 0; i < test_seeds(4); i++) {
        memset(&walk, 0, sizeof(walk));
        rng_init(&walk.rng, test_seed() + i);
        world_start(&walk.world, i % 2 == 1);
        for (int step = 0; step < WALK_STEPS; step++)
            walk_step(&walk);
        store_master_check(store_master_shell_directory(walk.world.cluster.master));
        world_end(&walk.world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_become_a_value),
        cmocka_unit_test(batches_end_item_by_item),
        cmocka_unit_test(a_key_may_be_got_more_than_once),
        cmocka_unit_test(wrong_puts_are_refused),
        cmocka_unit_test(wrong_gets_are_refused),
        cmocka_unit_test(calls_are_checked_as_a_whole),
        cmocka_unit_test(a_wrong_key_or_size_spoils_nothing_else),
        cmocka_unit_test(an_end_waits_for_nobody),
        cmocka_unit_test(nobody_is_waited_for),
        cmocka_unit_test(what_is_not_read_is_let_go),
        cmocka_unit_test(a_session_is_of_one_value),
        cmocka_unit_test(the_next_replica_serves),
        cmocka_unit_test(wrong_bytes_are_not_served),
        cmocka_unit_test(damage_in_flight_is_read_once_more),
        cmocka_unit_test(a_wrong_draft_is_refused),
        cmocka_unit_test(a_client_may_end_any_time),
        cmocka_unit_test(a_walk_ends_as_the_model_says),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1; /* the faults are made on purpose */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
