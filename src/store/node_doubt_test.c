/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_doubt_test.c
 *
 * Goal:   bytes that went wrong in an owner's memory are found by the first reader, judged by the
 *         owner alone, counted as its fault and dropped; other replicas, and the disk below, serve
 *         on. A reader that only says so changes nothing.
 * Method: a simulated cluster and one client on a host of its own. Bits are flipped where values
 *         lie; what is said without reason is said by a client that knows the secret. */
#include "store/cluster_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/log.h"
#include "store/client_int.h"
#include "store/client_pin.h"
#include "store/node_int.h"
#include "store/node_values.h"
#include "store/peers.h"
#include "store/proto.h"
#include "seed.h"
#include "yolk/store.h"

enum { SIZE = 3 * 65536 + 500, MEMORY = 2 * SIZE, PATIENCE_MS = 20000 };

static struct sim_cluster cluster;
static struct env *env;
static struct yolk_transfer *transfer;
static struct yolk_store *store;
static uint8_t *memory; /* to put from, and behind it to get to */
static bool over;
static enum status ended;

static int setup(void **state)
{
    const struct env_sim_options options = { .seed = test_seed() };
    const struct yolk_transfer_options listen = { .listen = "10.0.2.1:7200", .secret = SIM_SECRET };
    void *given;
    (void)state;

    sim_cluster_start(&cluster, &options);
    env = env_sim_add(cluster.sim, "10.0.2.1");
    assert_int_equal(yolk_transfer_create(env, &listen, &transfer, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_alloc(transfer, MEMORY, YOLK_TRANSFER_REMOTE_ALL, &given, NULL),
                     STATUS_OK);
    memory = given;
    const struct yolk_store_options client = { .env = env,
                                               .transfer = transfer,
                                               .master = SIM_MASTER,
                                               .secret = SIM_SECRET,
                                               .timeout_ms = 3000 };
    assert_int_equal(yolk_store_create(&client, &store, NULL), STATUS_OK);
    sim_run_ms(&cluster, 4000); /* settled */
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    yolk_store_destroy(store);
    yolk_transfer_destroy(transfer);
    sim_cluster_end(&cluster);
    return 0;
}

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    (void)ctx;
    (void)index;
    (void)size;
    ended = status;
    over = true;
}

static bool is_over(void *ctx)
{
    (void)ctx;
    return over;
}

static enum status wait_for(enum status started)
{
    assert_int_equal(started, STATUS_OK);
    assert_true(env_sim_run_until(cluster.sim, is_over, NULL, PATIENCE_MS * ENV_NS_PER_MS));
    return ended;
}

static const struct yolk_store_key key = { "k", 1 };

static struct block_key id_of_key(void)
{
    return store_key_id((struct store_key){ (const uint8_t *)"k", 1 });
}

static void put(uint64_t size, uint32_t replicas)
{
    const struct yolk_store_call call = { .on_item = on_item, .replicas = replicas };
    const struct yolk_store_value value = { .key = key, .data = memory, .size = size };
    sim_bytes(1, memory, size);
    over = false;
    assert_int_equal(wait_for(yolk_store_put(store, &value, 1, &call)), STATUS_OK);
    sim_run_ms(&cluster, 2000); /* replicas are made */
}

/* What is got is right, or nothing. */
static enum status get(uint64_t size)
{
    const struct yolk_store_call call = { .on_item = on_item };
    const struct yolk_store_buffer buffer = { .key = key, .data = memory + SIZE, .size = SIZE };
    memset(memory + SIZE, 0, SIZE);
    over = false;
    const enum status status = wait_for(yolk_store_get(store, &buffer, 1, &call));
    if (status == STATUS_OK) assert_memory_equal(memory, memory + SIZE, size);
    return status;
}

static const struct object *object_at(unsigned node)
{
    const struct block_key id = id_of_key();
    return objects_find(cluster.nodes[node].node->objects, &id);
}

static unsigned owners(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SIM_NODES; i++)
        count += object_at(i) != NULL;
    return count;
}

static unsigned owner(void)
{
    for (unsigned i = 0; i < SIM_NODES; i++) {
        if (object_at(i) != NULL) return i;
    }
    fail_msg("nobody has it");
    return 0;
}

static void flip(unsigned node, uint64_t at)
{
    ((uint8_t *)(uintptr_t)object_at(node)->address)[at] ^= 16;
}

static uint64_t faults(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < SIM_NODES; i++)
        sum += store_node_load(cluster.nodes[i].node).faults;
    return sum;
}

static void check_master(void)
{
    store_master_check(store_master_shell_directory(cluster.master));
}

/* ---- tests ---- */

/* Values that come inline, and that are read, wrong in the first piece or in the last. */
static void an_owner_drops_what_it_finds_wrong(void **state)
{
    const struct {
        uint64_t size, at;
    } cases[] = { { 100, 99 }, { 70000, 5 }, { SIZE, SIZE - 1 } };
    (void)state;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put(cases[i].size, 0);
        assert_int_equal(get(cases[i].size), STATUS_OK);
        sim_run_ms(&cluster, 2000); /* nothing of it is remembered */
        flip(owner(), cases[i].at);
        assert_int_equal(get(cases[i].size), STATUS_CORRUPT);
        sim_run_ms(&cluster, 1000);
        assert_int_equal(faults(), i + 1);
        assert_int_equal(owners(), 0);
        assert_int_equal(get(cases[i].size), STATUS_NOT_FOUND); /* a miss, and it can be put anew */
        check_master();
    }
}

/* The reader is served by the other one, and what is dropped is made again. */
static void another_replica_serves_and_is_copied(void **state)
{
    (void)state;
    put(SIZE, 2);
    assert_int_equal(owners(), 2);
    flip(owner(), 1);
    for (unsigned n = 0; n < 20; n++) {
        assert_int_equal(get(SIZE), STATUS_OK);
        sim_run_ms(&cluster, 1100); /* asked for anew */
    }
    assert_int_equal(faults(), 1);
    assert_int_equal(owners(), 2);
    check_master();
}

/* However often somebody says so. */
static void nothing_follows_from_a_word(void **state)
{
    const struct block_key id = id_of_key(), absent = sim_key(1);
    struct rpc_client *client;
    (void)state;

    put(SIZE, 0);
    const unsigned at = owner();
    const char *address = cluster.nodes[at].rpc_address;
    assert_int_equal(store_peers_get(store->peers, address, &client), STATUS_OK);
    for (unsigned n = 0; n < 3 * DOUBTS_MAX; n++) {
        client_pin_doubt(env, client, &id);
        client_pin_doubt(env, client, &absent);
    }
    sim_run_ms(&cluster, 1000);
    assert_int_equal(cluster.nodes[at].node->doubts.count, 0);
    assert_int_equal(faults(), 0);
    assert_int_equal(get(SIZE), STATUS_OK);
}

/* While somebody holds it, it is not dropped, but nobody else gets it. */
static void what_is_pinned_goes_later(void **state)
{
    const struct block_key id = id_of_key();
    uint64_t pin;
    (void)state;

    put(SIZE, 0);
    struct store_node *node = cluster.nodes[owner()].node;
    const struct object *object = objects_find(node->objects, &id);
    assert_int_equal(objects_pin(node->objects, &object, 1, ENV_NEVER, &pin), STATUS_OK);
    flip(owner(), 70000);
    assert_int_equal(get(SIZE), STATUS_CORRUPT);
    sim_run_ms(&cluster, 1000);
    assert_int_equal(faults(), 1);
    assert_int_equal(owners(), 1);
    assert_int_equal(get(SIZE), STATUS_NOT_FOUND);
    assert_int_equal(objects_unpin(node->objects, pin), STATUS_OK);
    sim_run_ms(&cluster, 1000);
    assert_int_equal(owners(), 0);
    assert_int_equal(faults(), 1);
    check_master();
}

/* What lies on the owner's disk was written before its memory went wrong. */
static void the_disk_below_serves(void **state)
{
    (void)state;
    cluster.values_disk_size = 64 << 20;
    cluster.object_size = 8 * SIM_OBJECT_SIZE;
    sim_nodes_restart(&cluster);
    sim_run_ms(&cluster, 8000);
    put(70000, 0);
    flip(owner(), 5);
    assert_int_equal(get(70000), STATUS_CORRUPT);
    sim_run_ms(&cluster, 1000);
    assert_int_equal(owners(), 0);
    assert_int_equal(get(70000), STATUS_OK);
    assert_int_equal(faults(), 1);
    check_master();
}

/* A copy of what is wrong is refused by its target; then its source looks at it. */
static void a_copy_of_wrong_bytes_finds_them(void **state)
{
    const struct yolk_store_call call = { .on_item = on_item, .replicas = 2 };
    (void)state;

    put(SIZE, 0);
    flip(owner(), 5);
    over = false;
    (void)wait_for(yolk_store_replicas(store, &key, 1, &call));
    sim_run_ms(&cluster, 2000);
    assert_int_equal(faults(), 1);
    assert_int_equal(owners(), 0);
    check_master();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_owner_drops_what_it_finds_wrong, setup, teardown),
        cmocka_unit_test_setup_teardown(another_replica_serves_and_is_copied, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_follows_from_a_word, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_pinned_goes_later, setup, teardown),
        cmocka_unit_test_setup_teardown(the_disk_below_serves, setup, teardown),
        cmocka_unit_test_setup_teardown(a_copy_of_wrong_bytes_finds_them, setup, teardown),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1; /* the faults are made on purpose */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
