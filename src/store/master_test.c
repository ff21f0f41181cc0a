/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_test.c
 *
 * Goal:   what the directory answers about members, terms and keys depends on the time and on who
 * has announced, as its contract says.
 * Method: by hand. The random walk is in master_walk_test.c; replacing, eviction, copies and
 * tenants have files of their own. */
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
#include "store/rank.h"

static void unknown_is_not_absent(void **state)
{
    struct store_master *master = master_new(1000 * MS);
    struct model_node node = { .epoch = 9 };
    struct store_member_info info;
    char text[KEY_TEXT];
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
    assert_int_equal(store_master_register(master, 0, &info, STORE_TERM_END, &node.id),
                     STATUS_INVALID);
    assert_int_equal(store_master_term(master), 71);
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
    char text[KEY_TEXT];
    (void)state;

    info_of(&node, 0, &info);
    assert_int_equal(store_master_register(master, 0, &info, 0, &node.id), STATUS_OK);
    node.held[3] = (struct held){ true, REGION, 10, 1, { 0 } };
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
    char text[KEY_TEXT];
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
    char text[KEY_TEXT], name[8];
    (void)state;

    model_init(&model);
    const struct store_key key = key_of(1, text);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key, 100, NULL, &ticket),
                     STATUS_OK);
    const unsigned i = node_of(&model, ticket.where.node);
    struct model_node *node = &model.nodes[i];
    snprintf(name, sizeof(name), "n%u", i);
    node->held[1] = (struct held){ true, ticket.where.address, 100, 1, { 0 } };
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

/* What is lent to another master is not ours to hand out. */
static void only_what_is_lent_to_this_term_is_promised(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    for (unsigned i = 0; i < NODES; i++) {
        const struct store_event extent = { .kind = STORE_EVENT_EXTENT,
                                            .class = STORE_CLASS_OBJECT,
                                            .generation = store_master_term(model.master) - 1,
                                            .address = REGION + 64 * REGION_SIZE,
                                            .size = 2 * REGION_SIZE };
        store_master_event(model.master, model.now, model.nodes[i].id, &extent);
    }
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(1, text),
                                            REGION_SIZE + 4096, NULL, &ticket),
                     STATUS_INVALID); /* larger than all that is lent */
    store_master_destroy(model.master);
}

static bool see_soft(void *ctx, const struct store_listed *listed)
{
    *(bool *)ctx = listed->soft_pin;
    return true;
}

/* What an earlier master was told comes with the nodes. */
static void nodes_remember_for_a_new_master(void **state)
{
    static struct model model;
    struct store_member_info info;
    struct store_ticket ticket;
    struct store_action action;
    struct store_node_id id;
    char text[KEY_TEXT];
    bool soft = false;
    (void)state;

    model_init(&model);
    put_whole(&model, 0, 4096);
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(0, text), 3), STATUS_OK);
    do {
        assert_true(store_master_next_action(model.master, &action));
    } while (action.kind != STORE_ACTION_MARK);
    assert_int_equal(action.replicas, 3);
    assert_int_equal(action.generation, model.nodes[0].held[0].generation);
    store_master_destroy(model.master);

    model.master = master_new_with(model.now, ORDER_LRU);
    info_of(&model.nodes[0], 0, &info);
    info.draining = true;
    assert_int_equal(store_master_register(model.master, model.now, &info, 0, &id), STATUS_OK);
    model.nodes[0].id = id;
    model.nodes[0].held[0].attributes.soft_pin_ms = 1000;
    announce(&model, 0);
    model.now += 10000 * MS;
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(1, text), 4096, NULL, &ticket),
        STATUS_UNAVAILABLE); /* the only node is to leave */
    assert_true(store_master_drains(model.master, "n0") && !store_master_drains(model.master, "x"));
    model.now -= 9500 * MS;
    assert_int_equal(store_master_walk(model.master, model.now, 0, 10, see_soft, &soft), 0);
    assert_true(soft);
    store_master_check(model.master);
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
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_keys(&model, 0, 10, 4096);
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
        cmocka_unit_test(only_what_is_lent_to_this_term_is_promised),
        cmocka_unit_test(nodes_remember_for_a_new_master),
        cmocka_unit_test(a_walk_in_pages_shows_each_key_once_and_leases_none),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
