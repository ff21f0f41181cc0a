/* SPDX-License-Identifier: Apache-2.0
 *
 * store/contract_test.c
 *
 * Goal:   what callers of Mooncake's store take for granted beside plain puts and gets: they are
 *         told where values are, and in which tier; they say where values go, with more than one
 *         wish, or that those of a call stay together; each item of a call has its own answer.
 * Method: a simulated cluster and one client, one behaviour at a time. */
#include "store/cluster_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/log.h"
#include "seed.h"
#include "yolk/store.h"
#include "yolk/store_session.h"

enum {
    VALUE_SIZE = 40000,
    VALUES = 96, /* of which the memory of a node does not hold a third */
    BATCH = 12,
    PATIENCE_MS = 20000,
    DISK_SIZE = 16 << 20,
};

static const char *const names[SIM_NODES] = { "node-10.0.1.1", "node-10.0.1.2", "node-10.0.1.3" };

/* What was said of an item. */
struct answer {
    enum status status;
    uint64_t size;
    unsigned node; /* of its first replica */
    uint32_t replicas;
    bool disk;
    bool described;
};

struct user {
    struct env *env;
    struct yolk_transfer *transfer;
    struct yolk_store *store;
    uint8_t *memory; /* of one value, all zeros */
    uint32_t left;
    struct answer answers[VALUES];
};

static struct sim_cluster cluster;
static struct user user;

static int setup(void **state)
{
    const struct env_sim_options world = { .seed = test_seed() };
    const struct yolk_transfer_options transfer = { .listen = "10.0.2.1:7200",
                                                    .secret = SIM_SECRET };
    void *memory;
    (void)state;

    sim_cluster_start(&cluster, &world);
    cluster.values_disk_size = DISK_SIZE;
    sim_nodes_restart(&cluster);
    user.env = env_sim_add(cluster.sim, "10.0.2.1");
    assert_int_equal(yolk_transfer_create(user.env, &transfer, &user.transfer, NULL), STATUS_OK);
    assert_int_equal(
        yolk_transfer_alloc(user.transfer, VALUE_SIZE, YOLK_TRANSFER_REMOTE_ALL, &memory, NULL),
        STATUS_OK);
    user.memory = memory;
    const struct yolk_store_options options = {
        .env = user.env, .transfer = user.transfer, .master = SIM_MASTER, .secret = SIM_SECRET
    };
    assert_int_equal(yolk_store_create(&options, &user.store, NULL), STATUS_OK);
    sim_run_ms(&cluster, 4000); /* settled */
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    yolk_store_destroy(user.store);
    yolk_transfer_destroy(user.transfer);
    sim_cluster_end(&cluster);
    user = (struct user){ 0 };
    return 0;
}

/* ---- what the user does ---- */

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    (void)ctx;
    user.answers[index].status = status;
    user.answers[index].size = size;
    assert_int_equal(user.answers[index].described, status == STATUS_OK);
    user.left--;
}

static void on_plain_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    (void)ctx;
    user.answers[index] = (struct answer){ .status = status, .size = size };
    user.left--;
}

static void on_described(void *ctx, uint32_t index, const struct yolk_store_where *where)
{
    struct answer *answer = &user.answers[index];
    (void)ctx;

    assert_true(where->count > 0);
    answer->described = true;
    answer->replicas = where->count;
    answer->disk = where->replicas[0].disk;
    for (unsigned i = 0; i < SIM_NODES; i++) {
        if (strcmp(where->replicas[0].rpc_address, cluster.nodes[i].rpc_address) == 0)
            answer->node = i;
    }
    const struct store_node *node = cluster.nodes[answer->node].node;
    assert_string_equal(where->replicas[0].segment, store_node_segment(node));
}

static bool is_over(void *ctx)
{
    (void)ctx;
    return user.left == 0;
}

static void wait_for(enum status started)
{
    assert_int_equal(started, STATUS_OK);
    assert_true(env_sim_run_until(cluster.sim, is_over, NULL, PATIENCE_MS * ENV_NS_PER_MS));
}

static struct yolk_store_key key_of(unsigned n)
{
    static char texts[VALUES][16];
    snprintf(texts[n], sizeof(texts[n]), "value/%u", n);
    return (struct yolk_store_key){ texts[n], strlen(texts[n]) };
}

/* One call that puts the values from `first` on. */
static void put(unsigned first, unsigned count, struct yolk_store_call call)
{
    struct yolk_store_value values[VALUES];

    for (unsigned i = 0; i < count; i++) {
        values[i] = (struct yolk_store_value){ .key = key_of(first + i),
                                               .data = user.memory,
                                               .size = VALUE_SIZE };
    }
    call.on_item = on_plain_item;
    user.left = count;
    wait_for(yolk_store_put(user.store, values, count, &call));
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(user.answers[i].status, STATUS_OK);
}

static void describe(unsigned first, unsigned count)
{
    const struct yolk_store_call call = { .on_item = on_item };
    struct yolk_store_key keys[VALUES];

    memset(user.answers, 0, sizeof(user.answers));
    for (unsigned i = 0; i < count; i++)
        keys[i] = key_of(first + i);
    user.left = count;
    wait_for(yolk_store_describe(user.store, keys, count, &call, on_described, NULL));
}

/* ---- where values are ---- */

/* How many of all values are leased, and pinned. */
struct listed {
    uint32_t leased;
    uint32_t pinned;
};

static void on_page(void *ctx, enum status status, const struct yolk_store_page *page,
                    const char *message)
{
    struct listed *listed = ctx;
    (void)message;
    assert_int_equal(status, STATUS_OK);
    for (uint32_t i = 0; i < page->count; i++) {
        listed->leased += page->entries[i].lease_ms > 0;
        listed->pinned += page->entries[i].hard_pin;
    }
    user.left--;
}

static struct listed list_all(void)
{
    const struct yolk_store_query query = { 0 };
    struct listed listed = { 0 };
    user.left = 1;
    wait_for(yolk_store_list(user.store, &query, 0, on_page, &listed));
    return listed;
}

static void users_are_told_where_values_are(void **state)
{
    (void)state;
    put(0, 3, (struct yolk_store_call){ .preferred = names[1], .replicas = 2 });
    sim_run_ms(&cluster, 2000); /* copied, and no lease is left of the put */
    assert_int_equal(list_all().leased, 0);
    describe(1, 3);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(user.answers[i].status, STATUS_OK);
        assert_int_equal(user.answers[i].size, VALUE_SIZE);
        assert_int_equal(user.answers[i].replicas, 2);
        assert_false(user.answers[i].disk);
    }
    assert_int_equal(user.answers[2].status, STATUS_NOT_FOUND);
    assert_int_equal(list_all().leased, 2);
}

static void users_are_told_in_which_tier(void **state)
{
    uint32_t below = 0;
    (void)state;

    for (unsigned first = 0; first < VALUES; first += BATCH) {
        put(first, BATCH, (struct yolk_store_call){ .preferred = names[0], .together = true });
        sim_run_ms(&cluster, 1000);
    }
    describe(0, VALUES);
    for (unsigned i = 0; i < VALUES; i++) {
        assert_int_equal(user.answers[i].status, STATUS_OK);
        below += user.answers[i].disk;
    }
    assert_true(below > 0 && below < VALUES);
    assert_true(user.answers[0].disk); /* what was not read for longest */
}

/* ---- where values go ---- */

static void wishes_are_tried_in_order(void **state)
{
    const char *const next[] = { "nobody", names[2], names[0] };
    (void)state;

    put(0, 1,
        (struct yolk_store_call){
            .preferred = names[1], .preferred_next = next, .preferred_next_count = 3 });
    describe(0, 1);
    assert_int_equal(user.answers[0].node, 1);

    sim_node_kill(&cluster.nodes[1]);
    sim_run_ms(&cluster, 6000); /* dead */
    put(1, BATCH,
        (struct yolk_store_call){
            .preferred = names[1], .preferred_next = next, .preferred_next_count = 3 });
    describe(1, BATCH);
    for (unsigned i = 0; i < BATCH; i++)
        assert_int_equal(user.answers[i].node, 2);
}

static void values_of_a_call_stay_together(void **state)
{
    bool apart = false;
    (void)state;

    put(0, BATCH, (struct yolk_store_call){ .timeout_ms = 0 });
    describe(0, BATCH);
    for (unsigned i = 1; i < BATCH; i++)
        apart |= user.answers[i].node != user.answers[0].node;
    assert_true(apart); /* as ever: by room, and chance */
    put(BATCH, BATCH, (struct yolk_store_call){ .together = true });
    describe(BATCH, BATCH);
    for (unsigned i = 1; i < BATCH; i++)
        assert_int_equal(user.answers[i].node, user.answers[0].node);
}

static void wishes_out_of_range_are_refused(void **state)
{
    static const char long_name[YOLK_STORE_NAME_SIZE + 1] =
        "0123456789012345678901234567890123456789012345678901234567890123";
    const char *const too_long[] = { long_name };
    const char *const empty[] = { "" };
    const char *const many[YOLK_STORE_REPLICAS_MAX + 1] = { "a", "b", "c", "d", "e",
                                                            "f", "g", "h", "i" };
    const struct yolk_store_value value = { .key = key_of(0), .data = user.memory, .size = 1 };
    struct yolk_store_call call = { .on_item = on_plain_item, .preferred = "n" };
    (void)state;

    call.preferred_next = too_long;
    call.preferred_next_count = 1;
    assert_int_equal(yolk_store_put(user.store, &value, 1, &call), STATUS_INVALID);
    call.preferred_next = empty;
    assert_int_equal(yolk_store_put(user.store, &value, 1, &call), STATUS_INVALID);
    call.preferred_next = many;
    call.preferred_next_count = YOLK_STORE_REPLICAS_MAX + 1;
    assert_int_equal(yolk_store_put(user.store, &value, 1, &call), STATUS_INVALID);
    call.preferred_next_count = 1;
    call.preferred = NULL; /* after what? */
    assert_int_equal(yolk_store_put(user.store, &value, 1, &call), STATUS_INVALID);
}

/* ---- what is put again ---- */

static void on_soft_pins(void *ctx, enum status status, const struct yolk_store_page *page,
                         const char *message)
{
    uint32_t *which = ctx; /* one bit a value */
    (void)message;
    assert_int_equal(status, STATUS_OK);
    for (uint32_t i = 0; i < page->count; i++) {
        const struct yolk_store_entry *entry = &page->entries[i];
        const char digit = ((const char *)entry->key.bytes)[entry->key.len - 1];
        if (entry->soft_pin) *which |= 1u << (digit - '0');
    }
    user.left--;
}

static uint32_t soft_pinned(void)
{
    const struct yolk_store_query query = { 0 };
    uint32_t which = 0;
    user.left = 1;
    wait_for(yolk_store_list(user.store, &query, 0, on_soft_pins, &which));
    return which;
}

/* A hard pin cannot be lost but by a removal: not by a put that replaces without one, and not with
 * the master that knew of the old one. */
static void a_hard_pin_outlives_what_it_was_put_with(void **state)
{
    (void)state;
    put(0, 2, (struct yolk_store_call){ .hard_pin = true });
    put(2, 1, (struct yolk_store_call){ .timeout_ms = 0 });
    for (unsigned round = 0; round < 3; round++) {
        put(0, 3, (struct yolk_store_call){ .replace = true, .preferred = names[round] });
        assert_int_equal(list_all().pinned, 2);
        sim_master_kill(&cluster);
        sim_master_start(&cluster);
        sim_run_ms(&cluster, 4000);
        assert_int_equal(list_all().pinned, 2);
    }
}

/* A put that says nothing lets the soft pin be, one that wishes for another begins it anew, and one
 * that says so takes it off. */
static void a_soft_pin_is_taken_off(void **state)
{
    const struct yolk_store_value value = { .key = key_of(0), .data = user.memory, .size = 1 };
    const struct yolk_store_call both = {
        .replace = true, .soft_pin_ms = 1, .soft_pin_off = true, .on_item = on_plain_item
    };
    (void)state;

    put(0, 3, (struct yolk_store_call){ .soft_pin_ms = 60000 });
    assert_int_equal(soft_pinned(), 7);
    put(0, 1, (struct yolk_store_call){ .replace = true });
    put(1, 1, (struct yolk_store_call){ .replace = true, .soft_pin_off = true });
    put(2, 2, (struct yolk_store_call){ .replace = true, .soft_pin_ms = 200000 });
    assert_int_equal(soft_pinned(), 1 | 4 | 8);
    sim_run_ms(&cluster, 61000);
    assert_int_equal(soft_pinned(), 4 | 8);
    put(2, 1, (struct yolk_store_call){ .replace = true, .soft_pin_off = true });
    put(4, 1, (struct yolk_store_call){ .soft_pin_off = true }); /* of none */
    assert_int_equal(soft_pinned(), 8);
    sim_master_kill(&cluster);
    sim_master_start(&cluster);
    sim_run_ms(&cluster, 4000);
    assert_int_equal(soft_pinned(), 8);
    assert_int_equal(yolk_store_put(user.store, &value, 1, &both), STATUS_INVALID);
    assert_int_equal(yolk_store_put_session_start(user.store, &value, 1, &both), STATUS_INVALID);
}

/* Where a larger value has no room, because all there is is leased, the old one stays. */
static void a_replace_that_finds_no_room_leaves_the_old_value(void **state)
{
    const struct yolk_store_call replace = { .replace = true,
                                             .timeout_ms = 300,
                                             .on_item = on_plain_item };
    const struct yolk_store_value larger = { .key = key_of(0),
                                             .data = user.memory,
                                             .size = 2 * (uint64_t)VALUE_SIZE };
    uint32_t count = 1;
    (void)state;

    put(0, 1, (struct yolk_store_call){ .hard_pin = true });
    for (bool full = false; !full && count < VALUES; count++) {
        const struct yolk_store_value value = { .key = key_of(count),
                                                .data = user.memory,
                                                .size = VALUE_SIZE };
        const struct yolk_store_call pinned = { .hard_pin = true,
                                                .timeout_ms = 300,
                                                .on_item = on_plain_item };
        user.left = 1;
        wait_for(yolk_store_put(user.store, &value, 1, &pinned));
        full = user.answers[0].status != STATUS_OK;
        if (full) assert_int_equal(user.answers[0].status, STATUS_FULL);
    }
    assert_true(count > 3 && count < VALUES);
    user.left = 1;
    wait_for(yolk_store_put(user.store, &larger, 1, &replace));
    assert_int_equal(user.answers[0].status, STATUS_FULL);
    describe(0, 1);
    assert_int_equal(user.answers[0].status, STATUS_OK);
    assert_int_equal(user.answers[0].size, VALUE_SIZE);
}

/* One of each of `count` keys, and each of them twice more. */
static void put_thrice(unsigned first, unsigned count, struct yolk_store_call call)
{
    struct yolk_store_value values[3 * BATCH];

    for (unsigned i = 0; i < 3 * count; i++) {
        values[i] = (struct yolk_store_value){ .key = key_of(first + i % count),
                                               .data = user.memory,
                                               .size = VALUE_SIZE - i };
    }
    call.on_item = on_plain_item;
    user.left = 3 * count;
    wait_for(yolk_store_put(user.store, values, 3 * count, &call));
}

static void a_key_is_put_once_with_a_call(void **state)
{
    (void)state;
    put_thrice(0, 4, (struct yolk_store_call){ .timeout_ms = 0 });
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(user.answers[i].status, i < 4 ? STATUS_OK : STATUS_EXISTS);
    describe(0, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(user.answers[i].size, VALUE_SIZE - i); /* the first one's */
    put_thrice(2, 4, (struct yolk_store_call){ .replace = true });
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(user.answers[i].status, i < 4 ? STATUS_OK : STATUS_BUSY);
    put_thrice(3, 4, (struct yolk_store_call){ .timeout_ms = 0 }); /* three are there */
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(user.answers[i].status, i == 3 ? STATUS_OK : STATUS_EXISTS);
}

static void a_double_fails_as_the_first_does(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SIM_NODES; i++)
        sim_node_kill(&cluster.nodes[i]);
    sim_run_ms(&cluster, 6000); /* dead */
    put_thrice(0, 2, (struct yolk_store_call){ .timeout_ms = 500 });
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(user.answers[i].status, STATUS_UNAVAILABLE);
}

/* ---- removals ---- */

static enum status remove_one(unsigned n, bool force)
{
    const struct yolk_store_call call = { .force = force, .on_item = on_plain_item };
    const struct yolk_store_key key = key_of(n);
    user.left = 1;
    wait_for(yolk_store_remove(user.store, &key, 1, &call));
    return user.answers[0].status;
}

static void start_writing(unsigned n, bool replace)
{
    const struct yolk_store_call call = { .replace = replace, .on_item = on_plain_item };
    const struct yolk_store_value value = { .key = key_of(n), .size = VALUE_SIZE };
    user.left = 1;
    wait_for(yolk_store_put_session_start(user.store, &value, 1, &call));
    assert_int_equal(user.answers[0].status, STATUS_OK);
}

/* What a reader leases can be removed by force; what is being written, or replaced, cannot. */
static void readers_and_writers_are_told_apart(void **state)
{
    (void)state;
    put(0, 2, (struct yolk_store_call){ .timeout_ms = 0 });
    describe(0, 1); /* which leases it */
    start_writing(1, true);
    start_writing(2, false);

    assert_int_equal(remove_one(0, false), STATUS_BUSY);
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(remove_one(i, false), STATUS_EXISTS);
        assert_int_equal(remove_one(i, true), STATUS_EXISTS);
    }
    assert_int_equal(remove_one(0, true), STATUS_OK);
    assert_int_equal(remove_one(0, false), STATUS_NOT_FOUND);
    put(3, 1, (struct yolk_store_call){ .timeout_ms = 0 });
    assert_int_equal(remove_one(3, false), STATUS_OK); /* a put leases nothing */
}

static void clear(unsigned first, unsigned count, const char *node)
{
    const struct yolk_store_call call = { .on_item = on_plain_item };
    struct yolk_store_key keys[VALUES];

    for (unsigned i = 0; i < count; i++)
        keys[i] = key_of(first + i);
    user.left = count;
    wait_for(yolk_store_clear(user.store, keys, count, node, &call));
}

/* The node that is named lets go of what it has, nobody makes that again, and the others have what
 * they had. */
static void replicas_of_one_node_are_cleared(void **state)
{
    const struct yolk_store_call call = { .on_item = on_plain_item };
    const struct yolk_store_key key = key_of(0);
    (void)state;

    put(0, 2, (struct yolk_store_call){ .preferred = names[1], .replicas = 3 });
    put(2, 1, (struct yolk_store_call){ .preferred = names[1] });
    put(3, 1, (struct yolk_store_call){ .preferred = names[2] });
    sim_run_ms(&cluster, 4000); /* copied */
    start_writing(4, false);
    clear(0, 6, names[1]);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(user.answers[i].status, STATUS_OK);
    assert_int_equal(user.answers[3].status, STATUS_NOT_FOUND); /* is elsewhere */
    assert_int_equal(user.answers[4].status, STATUS_EXISTS);
    assert_int_equal(user.answers[5].status, STATUS_NOT_FOUND); /* is nowhere */
    sim_run_ms(&cluster, 20000);
    describe(0, 4);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(user.answers[i].status, STATUS_OK);
        assert_int_equal(user.answers[i].replicas, 2);
        assert_int_not_equal(user.answers[i].node, 1);
    }
    assert_int_equal(user.answers[2].status, STATUS_NOT_FOUND); /* it was the last one */
    assert_int_equal(user.answers[3].replicas, 1);

    clear(0, 1, names[0]);
    assert_int_equal(user.answers[0].status, STATUS_BUSY); /* since it was described */
    clear(0, 1, "nobody");
    assert_int_equal(user.answers[0].status, STATUS_BUSY);
    assert_int_equal(yolk_store_clear(user.store, &key, 1, "", &call), STATUS_INVALID);
    assert_int_equal(yolk_store_clear(user.store, &key, 1, NULL, &call), STATUS_INVALID);
}

/* ---- what is asked wrongly ---- */

enum { WRONG_KEYS = 3 };

/* Keys that nothing can have. */
static struct yolk_store_key wrong_key(unsigned n)
{
    static const char text[YOLK_STORE_KEY_SIZE_MAX + 1] = { 'k' };
    const struct yolk_store_key keys[WRONG_KEYS] = { { "", 0 },
                                                     { text, sizeof(text) },
                                                     { NULL, 5 } };
    return keys[n];
}

typedef enum status (*keys_fn)(struct yolk_store *store, const struct yolk_store_key *keys,
                               uint32_t count, const struct yolk_store_call *call);

/* Wrong keys around one that is good, which ends as `want` says. */
static void ask_among_wrong(keys_fn fn, unsigned good, enum status want)
{
    const struct yolk_store_call call = { .replicas = 1, .on_item = on_plain_item };
    const struct yolk_store_key keys[] = { wrong_key(0), wrong_key(1), key_of(good), wrong_key(2) };

    user.left = 4;
    const enum status begun = fn(user.store, keys, 4, &call);
    assert_int_equal(user.left, 4); /* nobody is told before the call has returned */
    wait_for(begun);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(user.answers[i].status, i == 2 ? want : STATUS_INVALID);
}

static enum status describe_keys(struct yolk_store *store, const struct yolk_store_key *keys,
                                 uint32_t count, const struct yolk_store_call *call)
{
    struct yolk_store_call described = *call;
    described.on_item = on_item;
    memset(user.answers, 0, sizeof(user.answers));
    return yolk_store_describe(store, keys, count, &described, on_described, NULL);
}

/* A double of a key that was refused for its size is put: it is the first one. */
static void put_among_wrong(void)
{
    const struct yolk_store_call call = { .on_item = on_plain_item };
    const struct yolk_store_value values[] = {
        { .key = wrong_key(0), .data = user.memory, .size = 1 },
        { .key = key_of(0), .data = user.memory, .size = 0 },
        { .key = key_of(0), .data = user.memory, .size = VALUE_SIZE },
        { .key = wrong_key(1), .data = user.memory, .size = 1 },
        { .key = key_of(1), .data = user.memory, .size = UINT64_C(1) << 40 },
        { .key = wrong_key(2), .data = user.memory, .size = 1 },
        { .key = key_of(0), .data = user.memory, .size = VALUE_SIZE },
    };
    static const enum status want[] = { STATUS_INVALID, STATUS_INVALID, STATUS_OK,
                                        STATUS_INVALID, STATUS_INVALID, STATUS_INVALID,
                                        STATUS_EXISTS };

    user.left = 7;
    wait_for(yolk_store_put(user.store, values, 7, &call));
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(user.answers[i].status, want[i]);
}

static void get_among_wrong(void)
{
    const struct yolk_store_call call = { .on_item = on_plain_item };
    const struct yolk_store_buffer buffers[] = {
        { .key = wrong_key(1), .data = user.memory, .size = VALUE_SIZE },
        { .key = key_of(0), .data = user.memory, .size = 0, .range = true },
        { .key = key_of(0), .data = user.memory, .size = VALUE_SIZE },
        { .key = key_of(0), .data = user.memory, .size = 1, .range = true, .offset = VALUE_SIZE },
        { .key = key_of(0), .data = user.memory, .size = VALUE_SIZE - 1 },
    };
    static const enum status want[] = { STATUS_INVALID, STATUS_INVALID, STATUS_OK, STATUS_INVALID,
                                        STATUS_FULL };

    user.left = 5;
    wait_for(yolk_store_get(user.store, buffers, 5, &call));
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(user.answers[i].status, want[i]);
}

static void what_is_asked_wrongly_spoils_nothing_else(void **state)
{
    (void)state;
    ask_among_wrong(yolk_store_exist, 0, STATUS_NOT_FOUND);
    put_among_wrong();
    get_among_wrong(); /* from its owner */
    get_among_wrong(); /* again, as it is remembered */
    ask_among_wrong(yolk_store_exist, 0, STATUS_OK);
    ask_among_wrong(yolk_store_replicas, 0, STATUS_OK);
    ask_among_wrong(describe_keys, 0, STATUS_OK);
    sim_run_ms(&cluster, 20000); /* no lease is left */
    ask_among_wrong(yolk_store_remove, 0, STATUS_OK);
    ask_among_wrong(yolk_store_exist, 0, STATUS_NOT_FOUND);
}

/* Whoever asks wrongly is told at once, also while nobody answers, and if nothing else is asked. */
static void what_is_asked_wrongly_ends_at_once(void **state)
{
    const struct yolk_store_call call = { .timeout_ms = 5000, .on_item = on_plain_item };
    const struct yolk_store_key keys[] = { wrong_key(0), wrong_key(1), key_of(0) };
    (void)state;

    sim_master_kill(&cluster);
    user.left = 3;
    assert_int_equal(yolk_store_exist(user.store, keys, 3, &call), STATUS_OK);
    sim_run_ms(&cluster, 10);
    assert_int_equal(user.left, 1);
    sim_run_ms(&cluster, 6000);
    assert_int_equal(user.left, 0);
    user.left = 2;
    assert_int_equal(yolk_store_exist(user.store, keys, 2, &call), STATUS_OK);
    sim_run_ms(&cluster, 10);
    assert_int_equal(user.left, 0);
}

/* ---- beginnings and ends ---- */

static void on_stats(void *ctx, enum status status, const struct yolk_store_stats *stats,
                     const struct yolk_store_node *nodes, uint32_t nodes_count)
{
    enum status *out = ctx;
    (void)stats;
    (void)nodes;
    (void)nodes_count;
    *out = status;
    user.left--;
}

/* Every question of a client that ends is answered, once, from inside. */
static void a_client_ends_with_calls_under_way(void **state)
{
    const struct yolk_store_call call = { .on_item = on_plain_item };
    const struct yolk_store_key keys[] = { key_of(0), key_of(1), { "", 0 } };
    const struct yolk_store_buffer buffer = { .key = keys[0],
                                              .data = user.memory,
                                              .size = VALUE_SIZE };
    const struct yolk_store_value twice[] = {
        { .key = keys[1], .data = user.memory, .size = VALUE_SIZE },
        { .key = keys[1], .data = user.memory, .size = VALUE_SIZE },
    };
    enum status told = STATUS_OK;
    (void)state;

    put(0, 1, (struct yolk_store_call){ .timeout_ms = 0 });
    user.left = 8;
    assert_int_equal(yolk_store_exist(user.store, keys, 3, &call), STATUS_OK);
    assert_int_equal(yolk_store_get(user.store, &buffer, 1, &call), STATUS_OK);
    assert_int_equal(yolk_store_put(user.store, twice, 2, &call), STATUS_OK);
    assert_int_equal(yolk_store_remove(user.store, keys, 1, &call), STATUS_OK);
    assert_int_equal(yolk_store_stat(user.store, 0, on_stats, &told), STATUS_OK);
    assert_int_equal(user.left, 8);
    yolk_store_destroy(user.store);
    user.store = NULL;
    assert_int_equal(user.left, 0);
    assert_int_equal(told, STATUS_CANCELLED);
    assert_int_equal(user.answers[0].status, STATUS_CANCELLED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(users_are_told_where_values_are, setup, teardown),
        cmocka_unit_test_setup_teardown(users_are_told_in_which_tier, setup, teardown),
        cmocka_unit_test_setup_teardown(wishes_are_tried_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(values_of_a_call_stay_together, setup, teardown),
        cmocka_unit_test_setup_teardown(wishes_out_of_range_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hard_pin_outlives_what_it_was_put_with, setup, teardown),
        cmocka_unit_test_setup_teardown(a_soft_pin_is_taken_off, setup, teardown),
        cmocka_unit_test_setup_teardown(a_replace_that_finds_no_room_leaves_the_old_value, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(readers_and_writers_are_told_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(replicas_of_one_node_are_cleared, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_asked_wrongly_spoils_nothing_else, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_asked_wrongly_ends_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_ends_with_calls_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(a_key_is_put_once_with_a_call, setup, teardown),
        cmocka_unit_test_setup_teardown(a_double_fails_as_the_first_does, setup, teardown),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
