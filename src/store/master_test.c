/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_test.c
 *
 * Goal:   no range of a node's memory is promised twice while anyone may still write or read it;
 * what a node holds and has told is found; nothing else is; the books balance after every step.
 * Method: a random walk with a model of the nodes that is an array of what they hold: it commits,
 * drops, refuses, dies, restarts and announces again, and carries out the master's actions or not.
 *         Before it: answers that depend on time and on who asks, by hand. */
#include "store/master.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/rng.h"
#include "seed.h"
#include "store/proto.h"

enum {
    NODES = 3,
    KEYS = 30,
    TICKETS = 64,
    STEPS = 30000,
    REGION_SIZE = 40 * 4096,
};
#define REGION UINT64_C(0x100000)
#define MS ENV_NS_PER_MS

static uint64_t seed;

struct held {
    bool present;
    uint64_t address;
    uint64_t size;
    uint64_t generation;
};

struct model_node {
    struct store_node_id id;
    uint64_t epoch;
    uint64_t generation;
    struct held held[KEYS];
};

/* A promise of memory: while it lives, the writer may write. */
struct promise {
    bool live;
    unsigned node;
    uint64_t epoch;
    unsigned key;
    uint64_t address;
    uint64_t size;
    uint64_t put_id;
    uint64_t writer;
    uint64_t until; /* no byte can land after it */
};

struct model {
    struct store_master *master;
    struct rng rng;
    uint64_t now;
    struct model_node nodes[NODES];
    struct promise promises[TICKETS];
    unsigned puts, ends, refused, drops, restarts;
};

static struct store_key key_of(unsigned n, char text[16])
{
    snprintf(text, 16, "key-%u", n);
    return (struct store_key){ (const uint8_t *)text, (uint32_t)strlen(text) };
}

static struct store_event event_of(const struct model_node *node, unsigned n, char text[16],
                                   enum store_event_kind kind)
{
    const struct store_key key = key_of(n, text);
    const struct held *held = &node->held[n];
    const bool stored = kind == STORE_EVENT_STORED;
    return (struct store_event){ .kind = kind,
                                 .class = STORE_CLASS_OBJECT,
                                 .id = store_key_id(key),
                                 .key = stored ? key.bytes : NULL,
                                 .key_len = stored ? key.len : 0,
                                 .generation = held->generation,
                                 .address = held->address,
                                 .size = held->size,
                                 .digest = n + 1 };
}

static void info_of(const struct model_node *node, unsigned index, struct store_member_info *out)
{
    memset(out, 0, sizeof(*out));
    snprintf(out->name, sizeof(out->name), "n%u", index);
    snprintf(out->rpc_address, sizeof(out->rpc_address), "10.0.0.%u:1", index);
    snprintf(out->segment, sizeof(out->segment), "10.0.0.%u:2", index);
    out->role = STORE_ROLE_STORE;
    out->epoch = node->epoch;
    out->layout = (struct store_layout){
        .pages = 1, .page_size = 4096, .layers = 1, .layer_size = 4096, .block_tokens = 16
    };
}

static void announce(struct model *model, unsigned index)
{
    struct model_node *node = &model->nodes[index];
    const struct store_event extent = { .kind = STORE_EVENT_EXTENT,
                                        .class = STORE_CLASS_OBJECT,
                                        .generation = store_master_term(model->master),
                                        .address = REGION,
                                        .size = REGION_SIZE };
    char text[16];

    store_master_reset(model->master, model->now, node->id);
    for (unsigned n = 0; n < KEYS; n++) {
        if (!node->held[n].present) continue;
        const struct store_event event = event_of(node, n, text, STORE_EVENT_STORED);
        store_master_event(model->master, model->now, node->id, &event);
    }
    store_master_event(model->master, model->now, node->id, &extent);
    store_master_synced(model->master, model->now, node->id);
}

static void node_start(struct model *model, unsigned index)
{
    struct model_node *node = &model->nodes[index];
    struct store_member_info info;

    memset(node->held, 0, sizeof(node->held));
    node->epoch = rng_u64(&model->rng) | 1;
    node->generation = 0;
    info_of(node, index, &info);
    assert_int_equal(store_master_register(model->master, model->now, &info, 0, &node->id),
                     STATUS_OK);
    announce(model, index);
    for (unsigned i = 0; i < TICKETS; i++) {
        if (model->promises[i].node == index) model->promises[i].live = false;
    }
}

static struct store_master *master_new(uint64_t now)
{
    struct store_master *master = NULL;
    const struct store_master_options options = { .term = 5,
                                                  .seed = seed,
                                                  .lease_ms = 50,
                                                  .put_ms = 100,
                                                  .discard_ms = 300,
                                                  .settle_ms = 10,
                                                  .fence_ms = 40,
                                                  .suspect_ms = 1000,
                                                  .dead_ms = 2000,
                                                  .forget_ms = 3000 };
    assert_int_equal(store_master_create(&options, now, &master), STATUS_OK);
    return master;
}

static void model_init(struct model *model)
{
    memset(model, 0, sizeof(*model));
    rng_init(&model->rng, seed);
    model->now = 1000 * MS;
    model->master = master_new(model->now);
    for (unsigned i = 0; i < NODES; i++)
        node_start(model, i);
    model->now += 10 * MS; /* settled */
}

static uint64_t pages(uint64_t size)
{
    return (size + 4095) / 4096 * 4096;
}

static bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + pages(b_size) && b < a + pages(a_size);
}

static bool range_held(const struct model_node *node, uint64_t address, uint64_t size)
{
    for (unsigned n = 0; n < KEYS; n++) {
        const struct held *held = &node->held[n];
        if (held->present && overlaps(address, size, held->address, held->size)) return true;
    }
    return false;
}

static unsigned node_of(const struct model *model, struct store_node_id id)
{
    for (unsigned i = 0; i < NODES; i++) {
        if (model->nodes[i].id.index == id.index) return i;
    }
    fail_msg("a replica on a node that is not there");
    return 0;
}

/* ---- steps ---- */

static void promise_check(const struct model *model, unsigned node, uint64_t address, uint64_t size)
{
    assert_true(address >= REGION && address + size <= REGION + REGION_SIZE);
    assert_false(range_held(&model->nodes[node], address, size));
    for (unsigned i = 0; i < TICKETS; i++) {
        const struct promise *other = &model->promises[i];
        if (!other->live || other->node != node || other->until <= model->now) continue;
        assert_false(overlaps(address, size, other->address, other->size));
    }
}

static void step_put(struct model *model)
{
    struct promise *promise = &model->promises[rng_below(&model->rng, TICKETS)];
    const unsigned key = (unsigned)rng_below(&model->rng, KEYS);
    const uint64_t size = 1 + rng_below(&model->rng, 9 * 4096);
    const uint64_t writer = rng_below(&model->rng, 1000);
    struct store_ticket ticket;
    char text[16];

    if (promise->live && promise->until > model->now) return;
    const enum status status = store_master_put_start(model->master, model->now, writer,
                                                      key_of(key, text), size, NULL, &ticket);
    if (status != STATUS_OK) {
        assert_true(status == STATUS_EXISTS || status == STATUS_FULL || status == STATUS_AGAIN);
        return;
    }
    const unsigned node = node_of(model, ticket.where.node);
    for (unsigned i = 0; i < TICKETS; i++) { /* the same writer again: the same ticket */
        if (model->promises[i].live && model->promises[i].put_id == ticket.put_id) return;
    }
    promise_check(model, node, ticket.where.address, size);
    for (unsigned i = 0; i < NODES; i++)
        assert_false(model->nodes[i].held[key].present);
    *promise = (struct promise){ .live = true,
                                 .node = node,
                                 .epoch = ticket.where.epoch,
                                 .key = key,
                                 .address = ticket.where.address,
                                 .size = size,
                                 .put_id = ticket.put_id,
                                 .writer = writer,
                                 .until = ticket.expires_ns + 40 * MS };
    model->puts++;
}

/* The owner commits: late ones too, as long as their bytes are still there. */
static void step_commit(struct model *model)
{
    struct promise *promise = &model->promises[rng_below(&model->rng, TICKETS)];
    struct model_node *node = &model->nodes[promise->node];
    char text[16], name[8];

    if (!promise->live || node->held[promise->key].present) return;
    if (range_held(node, promise->address, promise->size)) return; /* the owner refuses */
    promise->live = false;
    node->held[promise->key] =
        (struct held){ true, promise->address, promise->size, ++node->generation };
    const struct store_event event = event_of(node, promise->key, text, STORE_EVENT_STORED);
    snprintf(name, sizeof(name), "n%u", promise->node);
    const enum status status =
        store_master_put_end(model->master, model->now, name, node->epoch, promise->put_id, &event);
    if (status == STATUS_OK) {
        model->ends++;
        store_master_event(model->master, model->now, node->id, &event); /* by the stream, too */
        return;
    }
    assert_true(status == STATUS_STALE || status == STATUS_EXISTS);
    node->held[promise->key].present = false;
    model->refused++;
}

static void step_revoke(struct model *model)
{
    struct promise *promise = &model->promises[rng_below(&model->rng, TICKETS)];
    char text[16];

    if (!promise->live) return;
    const struct store_key key = key_of(promise->key, text);
    assert_int_not_equal(store_master_put_revoke(model->master, model->now, promise->writer + 1,
                                                 key, promise->put_id),
                         STATUS_OK);
    const enum status status =
        store_master_put_revoke(model->master, model->now, promise->writer, key, promise->put_id);
    assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND);
}

static void step_read(struct model *model)
{
    const unsigned key = (unsigned)rng_below(&model->rng, KEYS);
    struct store_object object;
    char text[16];

    const enum status status =
        store_master_get(model->master, model->now, key_of(key, text), &object);
    if (status != STATUS_OK) {
        assert_true(status == STATUS_NOT_FOUND || status == STATUS_BUSY);
        return;
    }
    assert_true(object.replicas_count > 0);
    for (uint32_t i = 0; i < object.replicas_count; i++) {
        const struct store_replica *replica = &object.replicas[i];
        const struct held *held = &model->nodes[node_of(model, replica->node)].held[key];
        assert_true(held->present);
        assert_int_equal(held->address, replica->address);
        assert_int_equal(held->size, object.size);
        assert_int_equal(held->generation, replica->generation);
    }
}

struct looking {
    struct model *model;
    unsigned seen[KEYS];
    enum status status[KEYS];
};

static bool on_listed(void *ctx, const struct store_listed *listed)
{
    struct looking *looking = ctx;
    char text[16] = "";
    unsigned n = KEYS;

    assert_true(listed->class == STORE_CLASS_OBJECT && listed->key.len < sizeof(text));
    memcpy(text, listed->key.bytes, listed->key.len);
    assert_int_equal(sscanf(text, "key-%u", &n), 1);
    assert_true(n < KEYS && listed->size > 0);
    looking->seen[n]++;
    looking->status[n] = listed->status;
    return rng_below(&looking->model->rng, 10) > 0; /* shown again when it answers false */
}

/* Page by page every key is shown, and says what peek says, which leases nothing. */
static void step_look(struct model *model)
{
    struct looking looking = { .model = model };
    struct store_object object;
    uint64_t cursor = 0;
    char text[16];

    do {
        cursor = store_master_walk(model->master, model->now, cursor,
                                   1 + (uint32_t)rng_below(&model->rng, KEYS), on_listed, &looking);
    } while (cursor != 0);
    for (unsigned n = 0; n < KEYS; n++) {
        const enum status status =
            store_master_peek(model->master, model->now, key_of(n, text), &object);
        if (looking.seen[n] == 0) assert_int_equal(status, STATUS_NOT_FOUND);
        if (looking.seen[n] > 0) assert_int_equal(status, looking.status[n]);
    }
}

static void step_remove(struct model *model)
{
    const unsigned key = (unsigned)rng_below(&model->rng, KEYS);
    const bool force = rng_below(&model->rng, 2) == 0;
    char text[16];

    const enum status status =
        store_master_remove(model->master, model->now, key_of(key, text), force);
    assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND || status == STATUS_BUSY);
    if (status == STATUS_OK) {
        const enum status after = store_master_exist(model->master, model->now, key_of(key, text));
        assert_int_equal(after, STATUS_NOT_FOUND);
    }
}

static void drop(struct model *model, const struct store_action *action)
{
    char text[16];
    enum status status = STATUS_NOT_FOUND;

    for (unsigned i = 0; i < NODES; i++) {
        struct model_node *node = &model->nodes[i];
        if (node->id.index != action->node.index) continue;
        for (unsigned n = 0; n < KEYS; n++) {
            const struct block_key id = store_key_id(key_of(n, text));
            struct held *held = &node->held[n];
            if (!block_key_equal(&id, &action->id) || !held->present ||
                held->generation != action->generation) {
                continue;
            }
            const uint64_t dice = rng_below(&model->rng, 10);
            status = dice == 0 ? STATUS_BUSY : dice == 1 ? STATUS_TIMEOUT : STATUS_OK;
            if (status != STATUS_OK) break;
            const struct store_event event = event_of(node, n, text, STORE_EVENT_REMOVED);
            held->present = false;
            store_master_event(model->master, model->now, node->id, &event);
            model->drops++;
            break;
        }
    }
    store_master_dropped(model->master, model->now, action->node, &action->id, action->generation,
                         status);
}

static void step_actions(struct model *model)
{
    struct store_action action;
    while (store_master_next_action(model->master, &action)) {
        if (action.kind == STORE_ACTION_DROP) drop(model, &action);
    }
}

static void step_time(struct model *model)
{
    char name[8];
    model->now += rng_below(&model->rng, 60) * MS;
    for (unsigned i = 0; i < NODES; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        assert_int_equal(store_master_beat(model->master, model->now, name, model->nodes[i].epoch),
                         STATUS_OK);
    }
    assert_true(store_master_tick(model->master, model->now) > model->now);
}

static void step_node(struct model *model)
{
    const unsigned i = (unsigned)rng_below(&model->rng, NODES);
    if (rng_below(&model->rng, 8) > 0) {
        /* Something went while the stream was down: the snapshot says so by silence. */
        model->nodes[i].held[rng_below(&model->rng, KEYS)].present = false;
        announce(model, i);
    } else if (rng_below(&model->rng, 4) == 0) {
        node_start(model, i);
        model->restarts++;
    }
}

static void everything_held_is_found(struct model *model)
{
    char text[16];
    for (int i = 0; i < 50; i++) { /* drops that were tried again end */
        step_time(model);
        step_actions(model);
    }
    for (unsigned n = 0; n < KEYS; n++) {
        bool held = false;
        for (unsigned i = 0; i < NODES; i++)
            held = held || model->nodes[i].held[n].present;
        const enum status status = store_master_exist(model->master, model->now, key_of(n, text));
        assert_int_equal(status, held ? STATUS_OK : STATUS_NOT_FOUND);
    }
}

static void directory_matches_model(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    for (int step = 0; step < STEPS; step++) {
        switch (rng_below(&model.rng, 17)) {
        case 0:
        case 1:
        case 2:
        case 3: step_put(&model); break;
        case 4:
        case 5:
        case 6:
        case 7: step_commit(&model); break;
        case 8: step_revoke(&model); break;
        case 9:
        case 10: step_read(&model); break;
        case 11: step_remove(&model); break;
        case 12: step_time(&model); break;
        case 13:
        case 14: step_actions(&model); break;
        case 15: step_node(&model); break;
        case 16: step_look(&model); break;
        }
        if (step % 8 == 0) store_master_check(model.master);
        if (step % 5000 == 4999) everything_held_is_found(&model);
    }
    /* The walk went everywhere. */
    assert_true(model.puts > 1000 && model.ends > 1000 && model.drops > 500);
    assert_true(model.restarts > 10 && model.refused > 0);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* ---- by hand ---- */

static void unknown_is_not_absent(void **state)
{
    struct store_master *master = master_new(1000 * MS);
    struct model_node node = { .epoch = 9 };
    struct store_member_info info;
    char text[16];
    (void)state;

    assert_int_equal(store_master_exist(master, 1000 * MS, key_of(1, text)), STATUS_AGAIN);
    assert_int_equal(store_master_exist(master, 1010 * MS, key_of(1, text)), STATUS_NOT_FOUND);
    info_of(&node, 0, &info);
    assert_int_equal(store_master_register(master, 1020 * MS, &info, 0, &node.id), STATUS_OK);
    assert_int_equal(store_master_exist(master, 1020 * MS, key_of(1, text)), STATUS_AGAIN);
    store_master_reset(master, 1020 * MS, node.id);
    store_master_synced(master, 1020 * MS, node.id);
    assert_int_equal(store_master_exist(master, 1020 * MS, key_of(1, text)), STATUS_NOT_FOUND);
    store_master_destroy(master);
}

static void a_later_term_is_answered_with_a_later_one(void **state)
{
    struct store_master *master = master_new(0);
    struct model_node node = { .epoch = 9 };
    struct store_member_info info;
    (void)state;

    info_of(&node, 0, &info);
    assert_int_equal(store_master_register(master, 0, &info, 5, &node.id), STATUS_OK);
    assert_int_equal(store_master_term(master), 5);
    assert_int_equal(store_master_register(master, 0, &info, 70, &node.id), STATUS_OK);
    assert_int_equal(store_master_term(master), 71);
    assert_int_equal(store_master_register(master, 0, &info, UINT64_MAX, &node.id), STATUS_INVALID);
    store_master_destroy(master);
}

static void the_silent_are_suspected_then_dead_then_forgotten(void **state)
{
    struct store_master *master = master_new(0);
    struct model_node node = { .epoch = 9 };
    struct store_member_info info;
    enum store_member_state member;
    struct store_action action;
    struct store_node_id id;
    char text[16];
    (void)state;

    info_of(&node, 0, &info);
    assert_int_equal(store_master_register(master, 0, &info, 0, &node.id), STATUS_OK);
    node.held[3] = (struct held){ true, REGION, 10, 1 };
    const struct store_event event = event_of(&node, 3, text, STORE_EVENT_STORED);
    store_master_reset(master, 0, node.id);
    store_master_event(master, 0, node.id, &event);
    store_master_synced(master, 0, node.id);
    store_master_tick(master, 999 * MS);
    assert_true(store_master_member(master, 0, &info, &member, &id));
    assert_int_equal(member, STORE_MEMBER_ALIVE);
    store_master_tick(master, 1000 * MS);
    assert_true(store_master_member(master, 0, &info, &member, &id));
    assert_int_equal(member, STORE_MEMBER_SUSPECT);
    assert_int_equal(store_master_exist(master, 1000 * MS, key_of(3, text)), STATUS_OK);
    store_master_tick(master, 2000 * MS);
    assert_int_equal(store_master_exist(master, 2000 * MS, key_of(3, text)), STATUS_UNAVAILABLE);
    assert_int_equal(store_master_beat(master, 2100 * MS, "n0", 9), STATUS_OK); /* it returns */
    assert_int_equal(store_master_exist(master, 2100 * MS, key_of(3, text)), STATUS_OK);
    assert_int_equal(store_master_beat(master, 2100 * MS, "n0", 8), STATUS_NOT_FOUND);
    store_master_tick(master, 7100 * MS);
    assert_int_equal(store_master_members(master), 0);
    assert_int_equal(store_master_beat(master, 7100 * MS, "n0", 9), STATUS_NOT_FOUND);
    assert_int_equal(store_master_exist(master, 7100 * MS, key_of(3, text)), STATUS_NOT_FOUND);
    bool gone = false;
    while (store_master_next_action(master, &action)) {
        gone = gone || action.kind == STORE_ACTION_GONE;
    }
    assert_true(gone);
    store_master_check(master);
    store_master_destroy(master);
}

static void a_made_up_collision_is_an_absent_key(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    char text[16];
    (void)state;

    model_init(&model);
    const struct store_key key = key_of(1, text);
    const struct block_key id = store_key_id(key);
    const struct store_key forged = { id.bytes, sizeof(id.bytes) }; /* its identity is itself */
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key, 100, NULL, &ticket),
                     STATUS_OK);
    assert_int_not_equal(store_master_exist(model.master, model.now, forged), STATUS_OK);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, forged, 100, NULL, &ticket),
                     STATUS_INVALID);
    store_master_destroy(model.master);
}

static void a_put_end_overtaken_by_events_is_refused(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    char text[16], name[8];
    (void)state;

    model_init(&model);
    const struct store_key key = key_of(1, text);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key, 100, NULL, &ticket),
                     STATUS_OK);
    const unsigned i = node_of(&model, ticket.where.node);
    struct model_node *node = &model.nodes[i];
    snprintf(name, sizeof(name), "n%u", i);
    node->held[1] = (struct held){ true, ticket.where.address, 100, 1 };
    const struct store_event stored = event_of(node, 1, text, STORE_EVENT_STORED);
    const struct store_event removed = {
        .kind = STORE_EVENT_REMOVED, .class = STORE_CLASS_OBJECT, .id = stored.id, .generation = 1
    };
    store_master_event(model.master, model.now, node->id, &stored);
    assert_int_equal(store_master_exist(model.master, model.now, key), STATUS_OK);
    assert_int_equal(
        store_master_put_end(model.master, model.now, name, node->epoch, ticket.put_id, &stored),
        STATUS_OK);
    store_master_event(model.master, model.now, node->id, &removed);
    assert_int_equal(
        store_master_put_end(model.master, model.now, name, node->epoch, ticket.put_id, &stored),
        STATUS_STALE);
    assert_int_equal(store_master_exist(model.master, model.now, key), STATUS_NOT_FOUND);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* Puts a value as its owner would, whole. */
static void put_whole(struct model *model, unsigned key, uint64_t size)
{
    struct store_ticket ticket;
    char text[16], name[8];
    assert_int_equal(store_master_put_start(model->master, model->now, 1, key_of(key, text), size,
                                            "n0", &ticket),
                     STATUS_OK);
    const unsigned i = node_of(model, ticket.where.node);
    struct model_node *node = &model->nodes[i];
    snprintf(name, sizeof(name), "n%u", i);
    assert_string_equal(name, "n0"); /* the preferred one, while it has room */
    node->held[key] = (struct held){ true, ticket.where.address, size, ++node->generation };
    const struct store_event stored = event_of(node, key, text, STORE_EVENT_STORED);
    assert_int_equal(
        store_master_put_end(model->master, model->now, name, node->epoch, ticket.put_id, &stored),
        STATUS_OK);
}

static void the_least_recently_read_goes_first(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    struct store_action action;
    char text[16];
    unsigned dropped = KEYS;
    (void)state;

    model_init(&model);
    for (unsigned i = 1; i < NODES; i++) { /* one node is enough */
        char name[8];
        snprintf(name, sizeof(name), "n%u", i);
        store_master_leave(model.master, model.now, name, model.nodes[i].epoch);
    }
    for (unsigned key = 0; key < 4; key++)
        put_whole(&model, key, REGION_SIZE / 4);
    assert_int_equal(store_master_exist(model.master, model.now, key_of(0, text)), STATUS_OK);
    while (store_master_next_action(model.master, &action))
        continue;
    model.now += 60 * MS; /* the lease of that is over, its place in the order is not */
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(9, text), 1, NULL, &ticket),
        STATUS_AGAIN);
    while (store_master_next_action(model.master, &action)) {
        assert_int_equal(action.kind, STORE_ACTION_DROP);
        for (unsigned key = 0; key < 4; key++) {
            const struct block_key id = store_key_id(key_of(key, text));
            if (block_key_equal(&id, &action.id)) dropped = key;
        }
    }
    assert_int_equal(dropped, 1);
    store_master_destroy(model.master);
}

static void leases_keep_and_full_is_an_answer(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    char text[16];
    (void)state;

    model_init(&model);
    for (unsigned i = 1; i < NODES; i++) {
        char name[8];
        snprintf(name, sizeof(name), "n%u", i);
        store_master_leave(model.master, model.now, name, model.nodes[i].epoch);
    }
    put_whole(&model, 0, REGION_SIZE);
    assert_int_equal(store_master_exist(model.master, model.now, key_of(0, text)), STATUS_OK);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(1, text), 1, NULL, &ticket),
        STATUS_FULL);
    assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), false),
                     STATUS_BUSY);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(1, text),
                                            REGION_SIZE + 1, NULL, &ticket),
                     STATUS_INVALID);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(1, text), 0, NULL, &ticket),
        STATUS_INVALID);
    assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), true),
                     STATUS_OK);
    store_master_destroy(model.master);
}

struct pages {
    unsigned shown;
    unsigned limit;
};

static bool on_shown(void *ctx, const struct store_listed *listed)
{
    struct pages *pages = ctx;
    assert_int_equal(listed->status, STATUS_OK);
    assert_int_equal(listed->lease_ns, 0);
    if (pages->shown == pages->limit) return false;
    pages->shown++;
    return true;
}

static void a_walk_in_pages_shows_each_key_once_and_leases_none(void **state)
{
    static struct model model;
    struct pages pages = { 0 };
    struct store_object object;
    uint64_t cursor = 0;
    char text[16];
    (void)state;

    model_init(&model);
    for (unsigned key = 0; key < 10; key++)
        put_whole(&model, key, 4096);
    for (pages.limit = 3; cursor != 0 || pages.shown == 0; pages.limit += 3) {
        cursor = store_master_walk(model.master, model.now, cursor, 1000, on_shown, &pages);
    }
    assert_int_equal(pages.shown, 10);
    assert_int_equal(store_master_peek(model.master, model.now, key_of(3, text), &object),
                     STATUS_OK);
    assert_int_equal(object.size, 4096);
    pages = (struct pages){ .limit = 20 };
    assert_int_not_equal(store_master_walk(model.master, model.now, 0, 4, on_shown, &pages), 0);
    assert_int_equal(pages.shown, 4); /* looks are bounded, too */
    assert_int_equal(store_master_walk(model.master, model.now, UINT64_MAX, 4, on_shown, &pages),
                     0);
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_is_not_absent),
        cmocka_unit_test(a_later_term_is_answered_with_a_later_one),
        cmocka_unit_test(the_silent_are_suspected_then_dead_then_forgotten),
        cmocka_unit_test(a_made_up_collision_is_an_absent_key),
        cmocka_unit_test(a_put_end_overtaken_by_events_is_refused),
        cmocka_unit_test(the_least_recently_read_goes_first),
        cmocka_unit_test(leases_keep_and_full_is_an_answer),
        cmocka_unit_test(a_walk_in_pages_shows_each_key_once_and_leases_none),
        cmocka_unit_test(directory_matches_model),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
