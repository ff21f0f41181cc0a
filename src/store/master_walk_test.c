/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_walk_test.c
 *
 * Goal:   no range of a node's memory is promised twice while anyone may still write or read it;
 * what a node holds and has told is found; nothing else is; the books balance after every step.
 * Method: a random walk with a model of the nodes that is an array of what they hold: it commits,
 * drops, refuses, dies, restarts and announces again, and carries out the master's actions or
 * not. */
#include "store/master.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "seed.h"
#include "store/master_fixture.h"
#include "store/master_task.h"

enum { STEPS = 15000 };

static unsigned cleared; /* replicas, in all walks, of values that stayed */

static void step_put(struct model *model)
{
    struct promise *promise = &model->promises[rng_below(&model->rng, TICKETS)];
    const unsigned key = (unsigned)rng_below(&model->rng, KEYS);
    const uint64_t size = 1 + rng_below(&model->rng, 9 * 4096);
    const uint64_t writer = rng_below(&model->rng, 1000);
    struct store_wish wish = { .replace = rng_below(&model->rng, 3) == 0,
                               .soft_pin_off = writer % 5 == 0,
                               .write_ms = writer % 3 == 0 ? (uint32_t)writer : 0 };
    struct store_ticket ticket;
    char text[KEY_TEXT];

    if (promise->live && promise->until > model->now) return;
    if (rng_below(&model->rng, 4) == 0) {
        wish.soft_pin_ms = (uint32_t)rng_below(&model->rng, 200);
        wish.attributes.group = rng_below(&model->rng, 4);
        wish.attributes.cost = (uint32_t)rng_below(&model->rng, 100);
        wish.attributes.hard_pin = rng_below(&model->rng, 10) == 0;
    }
    const enum status status = store_master_put_start(model->master, model->now, writer,
                                                      key_of(key, text), size, &wish, &ticket);
    if (status != STATUS_OK) {
        assert_true(status == STATUS_EXISTS || status == STATUS_FULL || status == STATUS_AGAIN ||
                    status == STATUS_QUOTA);
        model->over_quota += status == STATUS_QUOTA;
        return;
    }
    const struct store_tenant_counts tenant = tenant_of(model, key / OF_TENANT);
    const unsigned node = node_of(model, ticket.where.node);
    for (unsigned i = 0; i < TICKETS; i++) { /* the same writer again: the same ticket */
        if (model->promises[i].live && model->promises[i].put_id == ticket.put_id) return;
    }
    assert_true(tenant.quota.bytes == 0 || tenant.used.bytes <= tenant.quota.bytes);
    assert_true(tenant.quota.replicas == 0 || tenant.used.replicas <= tenant.quota.replicas);
    promise_check(model, node, ticket.where.address, size);
    for (unsigned i = 0; i < NODES && !wish.replace; i++)
        assert_false(model->nodes[i].held[key].present);
    wish.attributes.version = ticket.version;
    wish.attributes.term = term_kept(node, ticket.term);
    model->pinned[key] |= wish.attributes.hard_pin;
    *promise = (struct promise){ .live = true,
                                 .node = node,
                                 .epoch = ticket.where.epoch,
                                 .key = key,
                                 .address = ticket.where.address,
                                 .size = size,
                                 .put_id = ticket.put_id,
                                 .writer = writer,
                                 .attributes = wish.attributes,
                                 .until = ticket.expires_ns + 40 * MS };
    model->puts++;
}

/* The value of this version is acknowledged: nobody can bring back an older one. */
static void acknowledge(struct model *model, unsigned key, uint32_t version)
{
    struct store_member_counts counts;

    for (unsigned i = 0; i < NODES; i++) {
        const struct held *held = &model->nodes[i].held[key];
        if (!held->present || held->attributes.version >= version) continue;
        const bool member =
            store_master_member_counts(model->master, model->now, model->nodes[i].id, &counts);
        assert_true(!member || counts.silent_ns >= STORE_DOUBT_MS * MS);
    }
    if (version > model->acked[key]) model->acked[key] = version;
}

/* Puts that waited for an older value to go. */
static void acknowledge_waiting(struct model *model)
{
    char text[KEY_TEXT];
    for (unsigned key = 0; key < KEYS; key++) {
        const struct block_key id = store_key_id(key_of(key, text));
        if (model->ended[key] == 0) continue;
        if (store_master_replaced(model->master, model->now, &id) != STATUS_OK) continue;
        acknowledge(model, key, model->ended[key]);
        model->ended[key] = 0;
        model->waited++;
    }
}

/* The owner commits: late ones too, as long as their bytes are still there. A value of a higher
 * version takes the place of one that nobody reads. */
static void step_commit(struct model *model)
{
    struct promise *promise = &model->promises[rng_below(&model->rng, TICKETS)];
    struct model_node *node = &model->nodes[promise->node];
    struct held *held = &node->held[promise->key];
    const bool replaces = held->present;
    char text[KEY_TEXT], name[8];

    if (!promise->live) return;
    if (replaces && held->attributes.version >= promise->attributes.version) return;
    if (replaces && rng_below(&model->rng, 4) == 0) return;        /* pinned */
    if (range_held(node, promise->address, promise->size)) return; /* the owner refuses */
    promise->live = false;
    if (replaces && rng_below(&model->rng, 2) == 0)
        tell_removed(model, promise->node, promise->key);
    *held = (struct held){ true, promise->address, promise->size, ++node->generation,
                           promise->attributes };
    const struct store_event event = event_of(node, promise->key, text, STORE_EVENT_STORED);
    snprintf(name, sizeof(name), "n%u", promise->node);
    const enum status status =
        store_master_put_end(model->master, model->now, name, node->epoch, promise->put_id, &event);
    if (status == STATUS_OK || status == STATUS_AGAIN) {
        model->ends++;
        model->replaced += replaces;
        if (status == STATUS_OK) acknowledge(model, promise->key, held->attributes.version);
        if (status == STATUS_AGAIN) model->ended[promise->key] = held->attributes.version;
        store_master_event(model->master, model->now, node->id, &event); /* by the stream, too */
        return;
    }
    assert_true(status == STATUS_STALE || status == STATUS_EXISTS);
    tell_removed(model, promise->node, promise->key); /* it was in the owner's events, too */
    held->present = false;
    model->refused++;
}

/* What nobody has any more may begin again. */
static void forget_absent(struct model *model)
{
    for (unsigned n = 0; n < KEYS; n++) {
        bool held = false;
        for (unsigned i = 0; i < NODES; i++)
            held = held || model->nodes[i].held[n].present;
        if (!held) model->acked[n] = 0;
        if (!held) model->ended[n] = 0;
    }
}

static void step_revoke(struct model *model)
{
    struct promise *promise = &model->promises[rng_below(&model->rng, TICKETS)];
    char text[KEY_TEXT];

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
    char text[KEY_TEXT];

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
        assert_true(held->attributes.version >= model->acked[key]); /* never what was replaced */
        assert_int_equal((key + 1) * 1000 + held->attributes.version, object.digest);
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
    const struct scope scope = scope_split(listed->key);
    char text[KEY_TEXT] = "";
    unsigned n = KEYS;

    assert_true(listed->class == STORE_CLASS_OBJECT && listed->key.len < sizeof(text));
    memcpy(text, scope.key.bytes, scope.key.len);
    assert_int_equal(sscanf(text, "key-%u", &n), 1);
    assert_true(scope.name_len == (n < OF_TENANT ? 0 : 1));
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
    char text[KEY_TEXT];

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
    char text[KEY_TEXT];

    const enum status status =
        store_master_remove(model->master, model->now, key_of(key, text), force);
    assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND || status == STATUS_EXISTS ||
                (status == STATUS_BUSY && !force));
    if (status == STATUS_OK) {
        const enum status after = store_master_exist(model->master, model->now, key_of(key, text));
        assert_int_equal(after, STATUS_NOT_FOUND);
    }
}

/* Where others have it, it stays; where nobody else has, it is gone. */
static void step_clear(struct model *model)
{
    const unsigned key = (unsigned)rng_below(&model->rng, KEYS);
    struct store_object object;
    char text[KEY_TEXT], name[8];

    const enum status before =
        store_master_peek(model->master, model->now, key_of(key, text), &object);
    unsigned node = (unsigned)rng_below(&model->rng, NODES);
    if (before == STATUS_OK && rng_below(&model->rng, 4) > 0)
        node = node_of(model, object.replicas[object.replicas_count - 1].node); /* which has it */
    snprintf(name, sizeof(name), "n%u", node);
    const enum status status =
        store_master_clear(model->master, model->now, key_of(key, text), name);
    if (status != STATUS_OK) {
        assert_true(status == STATUS_NOT_FOUND || status == STATUS_BUSY || status == STATUS_EXISTS);
        return;
    }
    assert_int_equal(before, STATUS_OK);
    const uint32_t others = object.replicas_count - 1;
    const enum status after =
        store_master_peek(model->master, model->now, key_of(key, text), &object);
    assert_int_equal(after, others > 0 ? STATUS_OK : STATUS_NOT_FOUND);
    if (others > 0) assert_int_equal(object.replicas_count, others);
    model->cleared += others > 0;
}

static void step_replicas(struct model *model)
{
    const unsigned key = (unsigned)rng_below(&model->rng, KEYS);
    char text[KEY_TEXT];
    const enum status status = store_master_replicas(model->master, model->now, key_of(key, text),
                                                     1 + (uint32_t)rng_below(&model->rng, NODES));
    assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND || status == STATUS_BUSY);
}

/* One node drains, or none does. */
static void step_drain(struct model *model)
{
    const unsigned which = (unsigned)rng_below(&model->rng, 3 * NODES);
    uint64_t left;
    char name[8];
    for (unsigned i = 0; i < NODES; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        assert_int_equal(store_master_drain(model->master, model->now, name, i != which, &left),
                         STATUS_OK);
    }
    if (rng_below(&model->rng, 8) == 0) { /* seconds only: what is under way goes on */
        struct store_unmounting unmounting;
        snprintf(name, sizeof(name), "n%u", which % NODES);
        assert_int_equal(store_master_unmount(model->master, model->now, name,
                                              rng_below(&model->rng, 3) * 4096, &unmounting),
                         STATUS_OK);
    }
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

static void step_quota(struct model *model)
{
    const unsigned which = (unsigned)rng_below(&model->rng, TENANTS);
    struct store_quota quota = { 0 };
    if (rng_below(&model->rng, 3) > 0) quota.bytes = 4096 * rng_below(&model->rng, 60);
    if (rng_below(&model->rng, 3) == 0) quota.replicas = rng_below(&model->rng, 10);
    assert_int_equal(store_master_quota(model->master, tenant_names[which], &quota), STATUS_OK);
}

/* Somebody copies, or moves, to nodes that he names. */
static void step_task(struct model *model)
{
    static const char *const names[] = { "n0", "n1", "n2" };
    const unsigned to = (unsigned)rng_below(&model->rng, NODES);
    const bool move = rng_below(&model->rng, 2) == 0;
    const unsigned from = (unsigned)rng_below(&model->rng, NODES);
    const struct store_task_wish wish = { .move = move,
                                          .from = from == to ? "" : names[from],
                                          .to_count = !move && to == 0 ? 2 : 1,
                                          .to = &names[to] };
    struct yolk_store_task task;
    const char *why;
    char text[KEY_TEXT];
    const struct store_key key = key_of((unsigned)rng_below(&model->rng, KEYS), text);

    if (store_master_task_create(model->master, model->now, key, &wish, &task, &why) == STATUS_OK)
        model->tasks++;
}

static void everything_held_is_found(struct model *model)
{
    char text[KEY_TEXT];
    model->calm = true;
    for (int i = 0; i < 50; i++) { /* drops that were tried again end */
        step_time(model);
        step_actions(model);
    }
    model->calm = false;
    accounts_are_what_is_held(model);
    for (unsigned n = 0; n < KEYS; n++) {
        bool held = false;
        for (unsigned i = 0; i < NODES; i++)
            held = held || model->nodes[i].held[n].present;
        const enum status status = store_master_exist(model->master, model->now, key_of(n, text));
        assert_int_equal(status, held ? STATUS_OK : STATUS_NOT_FOUND);
    }
}

static void walk_with(enum order_policy policy)
{
    static struct model model;

    model_init_with(&model, policy);
    for (int step = 0; step < STEPS; step++) {
        switch (rng_below(&model.rng, 18)) {
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
        case 17:
            step_replicas(&model);
            if (step % 8 == 0) step_drain(&model);
            if (step % 8 > 1) step_task(&model);
            if (step % 8 == 1) step_quota(&model);
            step_clear(&model);
            break;
        }
        forget_absent(&model);
        acknowledge_waiting(&model);
        if (step % 8 == 0) store_master_check(model.master);
        if (step % 2500 == 2499) everything_held_is_found(&model);
    }
    /* The walk went everywhere. */
    assert_true(model.puts > 500 && model.ends > 300 && model.drops > 200);
    assert_true(model.restarts > 10 && model.refused > 0 && model.replaced > 5);
    assert_true(model.tasks > 10);
    cleared += model.cleared;
    assert_true(model.copied > 20 && model.over_quota > 20 && model.waited > 5);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

static void directory_matches_model(void **state)
{
    (void)state;
    for (int policy = ORDER_LRU; policy < ORDER_DEADLINE; policy++) {
        hot_replicas = policy == ORDER_LFU ? 1 : 0; /* heat has a say, too */
        walk_with((enum order_policy)policy);
    }
    assert_true(cleared > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directory_matches_model),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
