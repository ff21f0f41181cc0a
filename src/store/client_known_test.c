/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_known_test.c
 *
 * Goal:   a value that was read is read again without the master, as long as that may be; never
 *         what has been replaced or removed; and not from an owner that the master does not hear.
 *         Of several owners the one on the reader's host is asked, unless that is in quarantine.
 *         On the host of its owner the owner is not asked either, under the same rules.
 *         Of a value that is not remembered the owner is guessed, which is never believed about
 *         more than the master confirms.
 * Method: a simulated cluster, a client that writes and one that reads. What the master was asked
 *         is told by its counters, what was read without it, or by a guess, by the reader's. */
#include "store/cluster_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/log.h"
#include "store/board.h"
#include "store/client_int.h"
#include "store/known.h"
#include "store/node_int.h"
#include "store/node_trust.h"
#include "seed.h"
#include "yolk/store.h"

enum { VALUES = 4, SIZE_MAX_TESTED = 200000, PATIENCE_MS = 20000 };

struct user {
    struct env *env;
    struct yolk_transfer *transfer;
    struct yolk_store *store;
    uint8_t *memory; /* VALUES times SIZE_MAX_TESTED */
    uint32_t left;
    enum status status; /* of what ended last */
};

static struct sim_cluster cluster;
static struct user writer, reader;

/* One that comes inline, two that are read, of which one has several pieces. */
static uint64_t size_of(unsigned value)
{
    const uint64_t sizes[VALUES] = { 100, 65536, SIZE_MAX_TESTED, 5000 };
    return sizes[value];
}

static struct yolk_store_key key_of(unsigned value)
{
    static const char *const names[VALUES] = { "zero", "one", "two", "three" };
    return (struct yolk_store_key){ names[value], strlen(names[value]) };
}

static void user_start(struct user *user, const char *host, const char *listen)
{
    const struct yolk_transfer_options transfer = { .listen = listen, .secret = SIM_SECRET };
    void *memory;
    user->env = env_sim_add(cluster.sim, host);
    assert_int_equal(yolk_transfer_create(user->env, &transfer, &user->transfer, NULL), STATUS_OK);
    assert_int_equal(yolk_transfer_alloc(user->transfer, (size_t)VALUES * SIZE_MAX_TESTED,
                                         YOLK_TRANSFER_REMOTE_ALL, &memory, NULL),
                     STATUS_OK);
    user->memory = memory;
    const struct yolk_store_options options = { .env = user->env,
                                                .transfer = user->transfer,
                                                .master = SIM_MASTER,
                                                .secret = SIM_SECRET,
                                                .timeout_ms = 6000 };
    assert_int_equal(yolk_store_create(&options, &user->store, NULL), STATUS_OK);
}

static void user_end(struct user *user)
{
    yolk_store_destroy(user->store);
    yolk_transfer_destroy(user->transfer);
    *user = (struct user){ 0 };
}

static void world_start(const char *host, const char *listen)
{
    const struct env_sim_options options = { .seed = test_seed() };
    sim_cluster_start(&cluster, &options);
    user_start(&writer, "10.0.2.1", "10.0.2.1:7200");
    user_start(&reader, host, listen);
    sim_run_ms(&cluster, 4000); /* settled */
}

static int setup(void **state)
{
    (void)state;
    world_start("10.0.2.2", "10.0.2.2:7200");
    return 0;
}

/* The reader is on the host of node 0. */
static int setup_neighbour(void **state)
{
    (void)state;
    world_start("10.0.1.1", "10.0.1.1:7300");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    user_end(&writer);
    user_end(&reader);
    sim_cluster_end(&cluster);
    return 0;
}

/* ---- what users do ---- */

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct user *user = ctx;
    (void)index;
    (void)size;
    user->left--;
    user->status = status;
}

static bool is_over(void *ctx)
{
    return ((struct user *)ctx)->left == 0;
}

static enum status wait_for(struct user *user, enum status started)
{
    assert_int_equal(started, STATUS_OK);
    assert_true(env_sim_run_until(cluster.sim, is_over, user, PATIENCE_MS * ENV_NS_PER_MS));
    return user->status;
}

static void put_replicas(unsigned value, unsigned revision, uint32_t replicas)
{
    const struct yolk_store_call call = {
        .on_item = on_item, .ctx = &writer, .replace = true, .replicas = replicas
    };
    const struct yolk_store_value what = { .key = key_of(value),
                                           .data = writer.memory,
                                           .size = size_of(value) };
    sim_bytes(value + VALUES * revision, writer.memory, size_of(value));
    writer.left = 1;
    assert_int_equal(wait_for(&writer, yolk_store_put(writer.store, &what, 1, &call)), STATUS_OK);
}

static void put(unsigned value, unsigned revision)
{
    put_replicas(value, revision, 0);
}

static enum status get(unsigned first, unsigned count)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = &reader };
    struct yolk_store_buffer buffers[VALUES];

    for (unsigned i = 0; i < count; i++) {
        buffers[i] = (struct yolk_store_buffer){ .key = key_of(first + i),
                                                 .data = reader.memory +
                                                         (size_t)(first + i) * SIZE_MAX_TESTED,
                                                 .size = SIZE_MAX_TESTED };
    }
    memset(reader.memory, 0, (size_t)VALUES * SIZE_MAX_TESTED);
    reader.left = count;
    return wait_for(&reader, yolk_store_get(reader.store, buffers, count, &call));
}

static void check_got(unsigned value, unsigned revision)
{
    static uint8_t want[SIZE_MAX_TESTED];
    sim_bytes(value + VALUES * revision, want, size_of(value));
    assert_memory_equal(reader.memory + (size_t)value * SIZE_MAX_TESTED, want, size_of(value));
}

/* Bits flip in one segment of twenty while it is read: what was damaged on its way is read once
 * more before it is said to be wrong. A value that is put anew is not remembered. */
static void damage_in_flight_is_read_once_more(void **state)
{
    (void)state;
    enum { ROUNDS = 150, VALUE = 2 };
    unsigned right = 0, wrong = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        env_sim_flip(cluster.sim, 0);
        put(VALUE, round);
        env_sim_flip(cluster.sim, 50000);
        const enum status status = get(VALUE, 1);
        if (status == STATUS_OK) check_got(VALUE, round);
        right += status == STATUS_OK;
        wrong += status == STATUS_CORRUPT;
    }
    assert_int_equal(right + wrong, ROUNDS);
    assert_in_range(wrong, 0, ROUNDS / 50); /* one in 16 without */
}

static uint64_t asked_of_master(void)
{
    struct store_master_counts counts;
    store_master_counts(store_master_shell_directory(cluster.master), &counts);
    return counts.reads_total;
}

/* The only node that has it. */
static unsigned owner_of(unsigned value)
{
    const struct yolk_store_key key = key_of(value);
    const struct block_key id = store_key_id((struct store_key){ key.bytes, (uint32_t)key.len });
    for (unsigned i = 0; i < SIM_NODES; i++) {
        if (objects_find(cluster.nodes[i].node->objects, &id) != NULL) return i;
    }
    fail_msg("nobody has value %u", value);
    return 0;
}

/* ---- the nearest replica ---- */

/* Reads a value that all nodes have; whether it was read at node 0, whose host is the reader's. */
static bool read_near(unsigned value)
{
    const struct yolk_store_key key = key_of(value);
    const struct block_key id = store_key_id((struct store_key){ key.bytes, (uint32_t)key.len });
    const uint64_t *sums;

    sim_run_ms(&cluster, STORE_KNOWN_MS + 500); /* it is not remembered */
    assert_int_equal(get(value, 1), STATUS_OK);
    const struct known_value *known =
        known_find(reader.store->known, &id, env_now_ns(reader.env), &sums);
    assert_non_null(known);
    return known->node.epoch == store_node_epoch(cluster.nodes[0].node);
}

static void a_reader_takes_the_replica_of_its_host(void **state)
{
    enum { ROUNDS = 6 };
    unsigned near = 0;
    (void)state;

    for (unsigned i = 0; i < VALUES; i++)
        put_replicas(i, 1, SIM_NODES);
    sim_run_ms(&cluster, 5000); /* all have them */
    for (unsigned n = 0; n < ROUNDS * VALUES; n++)
        assert_true(read_near(n % VALUES)); /* one in three would be */

    cluster.nodes[0].node->doubts.wrong_total += 100; /* into quarantine with it: 10 s */
    for (unsigned n = 0; n < 2 * ROUNDS; n++)
        near += read_near(2);
    assert_in_range(near, 0, 2 * ROUNDS - 2);
    sim_run_ms(&cluster, 15000);
    assert_true(read_near(2));
}

/* ---- tests ---- */

static void what_was_read_is_read_again_without_the_master(void **state)
{
    (void)state;
    for (unsigned i = 0; i < VALUES; i++)
        put(i, 1);
    assert_int_equal(get(0, VALUES), STATUS_OK);
    assert_int_equal(reader.store->known_gets, 0);
    const uint64_t asked = asked_of_master();
    for (unsigned round = 1; round <= 3; round++) {
        assert_int_equal(get(0, VALUES), STATUS_OK);
        for (unsigned i = 0; i < VALUES; i++)
            check_got(i, 1);
        assert_int_equal(reader.store->known_gets, round * VALUES);
    }
    assert_int_equal(asked_of_master(), asked);
    sim_run_ms(&cluster, STORE_KNOWN_MS); /* its time is over */
    assert_int_equal(get(0, VALUES), STATUS_OK);
    assert_int_equal(asked_of_master(), asked + VALUES);
    assert_int_equal(reader.store->known_gets, 3 * VALUES);
}

/* Replicas follow heat, and most of what is read much is read without the master. */
static void the_master_hears_how_often_it_was_read(void **state)
{
    struct store_master_counts counts;
    (void)state;
    sim_master_kill(&cluster);
    cluster.hot_replicas = 1;
    sim_master_start(&cluster);
    sim_run_ms(&cluster, NODE_TRUST_MS + 5000); /* its nodes vouch again */
    put(0, 1);
    for (unsigned n = 0; n < 500; n++)
        assert_int_equal(get(0, 1), STATUS_OK);
    assert_true(reader.store->known_gets > 450);
    sim_run_ms(&cluster, STORE_KNOWN_MS);
    assert_int_equal(get(0, 1), STATUS_OK);
    sim_run_ms(&cluster, 1000);
    store_master_counts(store_master_shell_directory(cluster.master), &counts);
    assert_int_equal(counts.hot_replicas, 1);
}

/* All of them with one call, of which one after the other is not known any more. */
static void what_was_replaced_is_not_read(void **state)
{
    (void)state;
    for (unsigned i = 0; i < VALUES; i++)
        put(i, 1);
    assert_int_equal(get(0, VALUES), STATUS_OK);
    for (unsigned i = 0; i < VALUES; i++) {
        put(i, 2);
        assert_int_equal(get(0, VALUES), STATUS_OK);
        for (unsigned k = 0; k < VALUES; k++)
            check_got(k, k <= i ? 2 : 1);
    }
    assert_int_equal(reader.store->known_gets, (uint64_t)VALUES * (VALUES - 1));
}

static void what_was_removed_is_not_read(void **state)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = &writer, .force = true };
    const struct yolk_store_key key = key_of(2);
    (void)state;

    put(2, 1);
    assert_int_equal(get(2, 1), STATUS_OK);
    assert_int_equal(get(2, 1), STATUS_OK);
    writer.left = 1;
    assert_int_equal(wait_for(&writer, yolk_store_remove(writer.store, &key, 1, &call)), STATUS_OK);
    assert_int_equal(get(2, 1), STATUS_NOT_FOUND);
    assert_int_equal(reader.store->known_gets, 1);
}

/* The owner never hears of it, but is not believed any more when the removal is acknowledged. */
static void a_removal_that_its_owner_does_not_hear_is_waited_for(void **state)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = &writer, .force = true };
    const struct yolk_store_key key = key_of(2);
    (void)state;

    put(2, 1);
    env_sim_partition(cluster.sim, cluster.nodes[owner_of(2)].host, "10.0.0.1");
    assert_int_equal(get(2, 1), STATUS_OK);
    const uint64_t began_ns = env_now_ns(writer.env);
    writer.left = 1;
    assert_int_equal(yolk_store_remove(writer.store, &key, 1, &call), STATUS_OK);
    sim_run_ms(&cluster, STORE_KNOWN_MS / 2);
    assert_int_equal(writer.left, 1);
    assert_int_equal(get(2, 1), STATUS_OK); /* it may, as long as the removal is under way */
    assert_int_equal(reader.store->known_gets, 1);
    assert_int_equal(wait_for(&writer, STATUS_OK), STATUS_OK);
    assert_true(env_now_ns(writer.env) - began_ns < 2 * STORE_KNOWN_MS * ENV_NS_PER_MS);
    assert_int_equal(get(2, 1), STATUS_NOT_FOUND);
    assert_int_equal(reader.store->known_gets, 1);
}

/* Who reads with a pin keeps the value, not the removal. */
static void a_removal_does_not_wait_for_pins(void **state)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = &writer, .force = true };
    const struct yolk_store_key key = key_of(2);
    (void)state;

    put(2, 1);
    struct store_node *node = cluster.nodes[owner_of(2)].node;
    const struct block_key id = store_key_id((struct store_key){ key.bytes, (uint32_t)key.len });
    const struct object *object = objects_find(node->objects, &id);
    uint64_t pin;
    assert_int_equal(get(2, 1), STATUS_OK);
    assert_int_equal(objects_pin(node->objects, &object, 1, UINT64_MAX, &pin), STATUS_OK);
    const uint64_t began_ns = env_now_ns(writer.env);
    writer.left = 1;
    assert_int_equal(wait_for(&writer, yolk_store_remove(writer.store, &key, 1, &call)), STATUS_OK);
    assert_true(env_now_ns(writer.env) - began_ns < 200 * ENV_NS_PER_MS);
    assert_int_equal(get(2, 1), STATUS_NOT_FOUND);
    assert_int_equal(reader.store->known_gets, 0);
    assert_int_equal(objects_unpin(node->objects, pin), STATUS_OK);
}

/* The reader reaches both, and the owner still answers. */
static void an_owner_that_the_master_does_not_hear_is_not_believed(void **state)
{
    (void)state;
    put(1, 1);
    const char *host = cluster.nodes[owner_of(1)].host;
    env_sim_partition(cluster.sim, host, "10.0.0.1");
    sim_run_ms(&cluster, NODE_VOUCH_MS - STORE_KNOWN_MS / 2);
    assert_int_equal(get(1, 1), STATUS_OK);
    assert_int_equal(get(1, 1), STATUS_OK);
    assert_int_equal(reader.store->known_gets, 1);
    sim_run_ms(&cluster, STORE_KNOWN_MS * 3 / 4);
    const uint64_t asked = asked_of_master();
    assert_int_equal(get(1, 1), STATUS_OK); /* the master still says that it is there */
    check_got(1, 1);
    assert_int_equal(asked_of_master(), asked + 1);
    assert_int_equal(reader.store->known_gets, 1);
    env_sim_heal(cluster.sim, host, "10.0.0.1");
}

static void a_dead_owner_costs_one_more_question(void **state)
{
    (void)state;
    put(2, 1);
    assert_int_equal(get(2, 1), STATUS_OK);
    sim_node_kill(&cluster.nodes[owner_of(2)]);
    assert_int_not_equal(get(2, 1), STATUS_OK);
    assert_int_equal(reader.store->known_gets, 0);
}

/* ---- guesses ---- */

/* The reader expects what it reads next at this value's owner, which it does not remember. */
static void expect_at_owner_of(unsigned value)
{
    for (unsigned n = 0; n < GUESS_STREAK; n++) {
        assert_int_equal(get(value, 1), STATUS_OK);
        sim_run_ms(&cluster, STORE_KNOWN_MS);
    }
    assert_int_equal(reader.store->guesses.streak, GUESS_STREAK);
    assert_int_equal(reader.store->guesses.node.epoch,
                     store_node_epoch(cluster.nodes[owner_of(value)].node));
}

static void put_at(unsigned value, unsigned revision, unsigned node)
{
    char name[64];
    snprintf(name, sizeof(name), "node-%s", cluster.nodes[node].host);
    const struct yolk_store_call call = {
        .on_item = on_item, .ctx = &writer, .replace = true, .preferred = name
    };
    const struct yolk_store_value what = { .key = key_of(value),
                                           .data = writer.memory,
                                           .size = size_of(value) };
    sim_bytes(value + VALUES * revision, writer.memory, size_of(value));
    writer.left = 1;
    assert_int_equal(wait_for(&writer, yolk_store_put(writer.store, &what, 1, &call)), STATUS_OK);
}

/* What comes inline, and what is read; nothing is pinned for either. */
static void values_of_one_owner_are_asked_for_at_once(void **state)
{
    (void)state;
    for (unsigned i = 0; i < VALUES; i++)
        put_at(i, 1, 0);
    expect_at_owner_of(0);
    const uint64_t asked = asked_of_master();
    const uint64_t right = reader.store->guesses.right;
    assert_int_equal(get(0, VALUES), STATUS_OK);
    for (unsigned i = 0; i < VALUES; i++)
        check_got(i, 1);
    assert_int_equal(reader.store->guesses.right, right + VALUES);
    assert_int_equal(asked_of_master(), asked + VALUES); /* which leases them as ever */
    assert_int_equal(get(0, VALUES), STATUS_OK);         /* and they are remembered */
    assert_int_equal(reader.store->known_gets, VALUES);
}

static void a_wrong_guess_costs_nothing_but_the_streak(void **state)
{
    const struct yolk_store_key key = { "nobody's", 8 };
    const struct yolk_store_call call = { .on_item = on_item, .ctx = &reader };
    const struct yolk_store_buffer buffer = { .key = key, .data = reader.memory, .size = 100 };
    (void)state;

    put_at(0, 1, 0);
    put_at(1, 1, 1);
    expect_at_owner_of(0);
    const uint64_t right = reader.store->guesses.right;
    reader.left = 1;
    assert_int_equal(wait_for(&reader, yolk_store_get(reader.store, &buffer, 1, &call)),
                     STATUS_NOT_FOUND);
    assert_int_equal(reader.store->guesses.streak, GUESS_STREAK);
    assert_int_equal(get(0, 2), STATUS_OK);
    check_got(0, 1);
    check_got(1, 1);
    assert_int_equal(reader.store->guesses.right, right + 1);
    assert_true(reader.store->guesses.streak < GUESS_STREAK);
}

/* The owner speaks while the master does not; what it says is no longer so when the master does. */
static void a_guess_that_was_replaced_is_not_used(void **state)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = &reader };
    const struct yolk_store_buffer buffer = { .key = key_of(0),
                                              .data = reader.memory,
                                              .size = SIZE_MAX_TESTED };
    (void)state;

    put_at(0, 1, 0);
    expect_at_owner_of(0);
    const uint64_t right = reader.store->guesses.right;
    env_sim_partition(cluster.sim, "10.0.2.2", "10.0.0.1");
    reader.left = 1;
    assert_int_equal(yolk_store_get(reader.store, &buffer, 1, &call), STATUS_OK);
    sim_run_ms(&cluster, 100);
    assert_int_equal(reader.left, 1);
    put_at(0, 2, 0);
    env_sim_heal(cluster.sim, "10.0.2.2", "10.0.0.1");
    assert_int_equal(wait_for(&reader, STATUS_OK), STATUS_OK);
    check_got(0, 2);
    assert_int_equal(reader.store->guesses.right, right);
}

static void a_guessed_owner_that_does_not_vouch_is_asked_again(void **state)
{
    (void)state;
    put_at(0, 1, 0);
    put_at(1, 1, 0);
    expect_at_owner_of(0);
    const uint64_t right = reader.store->guesses.right;
    env_sim_partition(cluster.sim, cluster.nodes[0].host, "10.0.0.1");
    sim_run_ms(&cluster, NODE_VOUCH_MS);
    assert_int_equal(get(0, 2), STATUS_OK); /* the master still says that they are there */
    check_got(0, 1);
    check_got(1, 1);
    assert_int_equal(reader.store->guesses.right, right);
    env_sim_heal(cluster.sim, cluster.nodes[0].host, "10.0.0.1");
}

/* The guess is under way when its item ends, and when the client does. */
static void a_guess_may_outlive_what_it_was_for(void **state)
{
    const struct yolk_store_key key = { "nobody's", 8 };
    const struct yolk_store_call call = { .on_item = on_item, .ctx = &reader };
    const struct yolk_store_buffer buffer = { .key = key, .data = reader.memory, .size = 100 };
    (void)state;

    put_at(0, 1, 0);
    expect_at_owner_of(0);
    env_sim_partition(cluster.sim, "10.0.2.2", cluster.nodes[0].host);
    for (unsigned n = 0; n < 2; n++) {
        reader.left = 1;
        assert_int_equal(wait_for(&reader, yolk_store_get(reader.store, &buffer, 1, &call)),
                         STATUS_NOT_FOUND);
        assert_non_null(reader.store->calls);
        if (n == 0) sim_run_ms(&cluster, 5000);
    }
}

/* ---- boards ---- */

/* Values [first, first+count) of node 0 are remembered, with what its board said; it is seen from
 * the first answer on. */
static void remember(unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++)
        put_at(i, 1, 0);
    assert_int_equal(get(first, count), STATUS_OK);
    sim_run_ms(&cluster, STORE_KNOWN_MS);
    assert_int_equal(get(first, count), STATUS_OK);
    assert_int_equal(reader.store->board_gets, 0);
}

static void a_neighbour_asks_nobody(void **state)
{
    (void)state;
    remember(0, VALUES);
    const uint64_t asked = asked_of_master();
    for (unsigned round = 1; round <= 3; round++) {
        assert_int_equal(get(0, VALUES), STATUS_OK);
        for (unsigned i = 0; i < VALUES; i++)
            check_got(i, 1);
        assert_int_equal(reader.store->board_gets, round * VALUES);
        assert_int_equal(reader.store->known_gets, round * VALUES);
    }
    assert_int_equal(asked_of_master(), asked);
    sim_run_ms(&cluster, STORE_KNOWN_MS);
    assert_int_equal(get(0, VALUES), STATUS_OK);
    assert_int_equal(asked_of_master(), asked + VALUES); /* which hears that they were read */
    assert_int_equal(reader.store->board_gets, 3 * VALUES);
}

static void a_neighbour_sees_what_was_replaced(void **state)
{
    (void)state;
    remember(0, VALUES);
    for (unsigned i = 0; i < VALUES; i++) {
        put_at(i, 2, i % 2); /* at its node, or at another one */
        assert_int_equal(get(0, VALUES), STATUS_OK);
        for (unsigned k = 0; k < VALUES; k++)
            check_got(k, k <= i ? 2 : 1);
    }
    assert_true(reader.store->board_gets > 0);
}

static void a_neighbour_sees_what_was_removed(void **state)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = &writer, .force = true };
    const struct yolk_store_key key = key_of(2);
    (void)state;

    remember(2, 1);
    writer.left = 1;
    assert_int_equal(wait_for(&writer, yolk_store_remove(writer.store, &key, 1, &call)), STATUS_OK);
    assert_int_equal(get(2, 1), STATUS_NOT_FOUND);
    assert_int_equal(reader.store->board_gets, 0);
}

/* The removal is acknowledged while the owner has the value, and has said that it cannot drop it.
 */
static void a_neighbour_sees_what_is_about_to_go(void **state)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = &writer, .force = true };
    const struct yolk_store_key key = key_of(2);
    (void)state;

    remember(2, 1);
    struct store_node *node = cluster.nodes[0].node;
    const struct block_key id = store_key_id((struct store_key){ key.bytes, (uint32_t)key.len });
    const struct object *object = objects_find(node->objects, &id);
    uint64_t pin;
    assert_int_equal(objects_pin(node->objects, &object, 1, UINT64_MAX, &pin), STATUS_OK);
    writer.left = 1;
    assert_int_equal(wait_for(&writer, yolk_store_remove(writer.store, &key, 1, &call)), STATUS_OK);
    assert_int_equal(get(2, 1), STATUS_NOT_FOUND);
    assert_int_equal(reader.store->board_gets, 0);
    assert_int_equal(objects_unpin(node->objects, pin), STATUS_OK);
}

/* The owner's word may be older than that. */
static void a_change_while_the_owner_is_asked_is_seen(void **state)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = &reader };
    const struct yolk_store_buffer buffer = { .key = key_of(1),
                                              .data = reader.memory,
                                              .size = SIZE_MAX_TESTED };
    const struct block_key id =
        store_key_id((struct store_key){ buffer.key.bytes, (uint32_t)buffer.key.len });
    (void)state;

    remember(1, 1);
    sim_run_ms(&cluster, STORE_KNOWN_MS);
    reader.left = 1;
    assert_int_equal(yolk_store_get(reader.store, &buffer, 1, &call), STATUS_OK);
    while (reader.left > 0) {
        board_changed(cluster.nodes[0].node->board, &id);
        env_sim_run_for(cluster.sim, ENV_NS_PER_MS / 10);
    }
    assert_int_equal(reader.status, STATUS_OK);
    assert_int_equal(get(1, 1), STATUS_OK);
    assert_int_equal(reader.store->known_gets, 1);
    assert_int_equal(reader.store->board_gets, 0);
}

static void the_board_of_a_dead_owner_is_not_believed(void **state)
{
    (void)state;
    remember(2, 1);
    sim_node_kill(&cluster.nodes[0]);
    assert_int_not_equal(get(2, 1), STATUS_OK);
    assert_int_equal(reader.store->board_gets, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_neighbour_asks_nobody, setup_neighbour, teardown),
        cmocka_unit_test_setup_teardown(a_neighbour_sees_what_was_replaced, setup_neighbour,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_neighbour_sees_what_was_removed, setup_neighbour,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_neighbour_sees_what_is_about_to_go, setup_neighbour,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_change_while_the_owner_is_asked_is_seen, setup_neighbour,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_reader_takes_the_replica_of_its_host, setup_neighbour,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_board_of_a_dead_owner_is_not_believed, setup_neighbour,
                                        teardown),
        cmocka_unit_test_setup_teardown(damage_in_flight_is_read_once_more, setup, teardown),
        cmocka_unit_test_setup_teardown(values_of_one_owner_are_asked_for_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wrong_guess_costs_nothing_but_the_streak, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_guess_that_was_replaced_is_not_used, setup, teardown),
        cmocka_unit_test_setup_teardown(a_guessed_owner_that_does_not_vouch_is_asked_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_guess_may_outlive_what_it_was_for, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_read_is_read_again_without_the_master, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_master_hears_how_often_it_was_read, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_replaced_is_not_read, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_removed_is_not_read, setup, teardown),
        cmocka_unit_test_setup_teardown(a_removal_that_its_owner_does_not_hear_is_waited_for, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_removal_does_not_wait_for_pins, setup, teardown),
        cmocka_unit_test_setup_teardown(an_owner_that_the_master_does_not_hear_is_not_believed,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_dead_owner_costs_one_more_question, setup, teardown),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
