/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_copy_test.c
 *
 * Goal:   there are as many replicas as wished, and what a node has is elsewhere before it leaves.
 * Method: by hand, with nodes that copy what they are asked to. */
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

static void there_are_as_many_replicas_as_wished(void **state)
{
    static struct model model;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_wish(&model, 0, 9000, (struct store_wish){ .attributes = { .replicas = 2 } });
    put_whole(&model, 1, 9000);
    turns(&model, 40);
    assert_int_equal(replicas_of(&model, 0), 2);
    assert_int_equal(replicas_of(&model, 1), 1);
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(1, text), 3), STATUS_OK);
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(0, text), 9),
                     STATUS_INVALID);
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(5, text), 2),
                     STATUS_NOT_FOUND);
    turns(&model, 40);
    assert_int_equal(replicas_of(&model, 1), 3);
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(1, text), 1), STATUS_OK);
    turns(&model, 40);
    assert_int_equal(replicas_of(&model, 1), 1);
    node_start(&model, 0); /* dies and comes back empty: copied again from the other */
    turns(&model, 40);
    assert_int_equal(replicas_of(&model, 0), 2);
    store_master_destroy(model.master);
}

/* The range of a copy whose source had only to say no is free at once, that of any other later. */
static void a_copy_that_was_not_begun_costs_its_tenant_nothing(void **state)
{
    static struct model model;
    struct store_action action;
    (void)state;

    for (int begun = 0; begun < 2; begun++) {
        model_init(&model);
        put_wish(&model, 0, 4096, (struct store_wish){ .attributes = { .replicas = 2 } });
        do {
            assert_true(store_master_tick(model.master, model.now) > 0);
            assert_true(store_master_next_action(model.master, &action));
        } while (action.kind != STORE_ACTION_COPY);
        assert_int_equal(tenant_of(&model, 0).used.bytes, 2 * 4096);
        store_master_copied(model.master, model.now, &action.id, action.ticket.put_id,
                            begun ? STATUS_TIMEOUT : STATUS_NOT_FOUND);
        assert_int_equal(tenant_of(&model, 0).used.bytes, (begun ? 2 : 1) * 4096);
        store_master_check(model.master);
        store_master_destroy(model.master);
    }
}

/* Whoever removes a value need not wait for a copy that nobody asked for by name; and what the copy
 * lands after all goes, too. */
static void a_removal_ends_the_copy(void **state)
{
    static struct model model;
    struct store_action copy;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    model.calm = true;
    put_wish(&model, 0, 4096, (struct store_wish){ .attributes = { .replicas = 2 } });
    do {
        assert_true(store_master_tick(model.master, model.now) > 0);
        assert_true(store_master_next_action(model.master, &copy));
    } while (copy.kind != STORE_ACTION_COPY);
    assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), false),
                     STATUS_OK);
    struct model_node *node = &model.nodes[node_of(&model, copy.ticket.where.node)];
    node->held[0] = model.nodes[0].held[0];
    node->held[0].address = copy.ticket.where.address;
    node->held[0].generation = ++node->generation;
    const struct store_event landed = event_of(node, 0, text, STORE_EVENT_STORED);
    store_master_event(model.master, model.now, node->id, &landed);
    turns(&model, 40);
    assert_false(node->held[0].present || model.nodes[0].held[0].present);
    assert_int_equal(store_master_exist(model.master, model.now, key_of(0, text)),
                     STATUS_NOT_FOUND);
    assert_int_equal(tenant_of(&model, 0).used.bytes, 0);
    store_master_destroy(model.master);
}

static void what_a_node_has_goes_elsewhere_before_it_leaves(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    const struct store_wish there = { .preferred = "n0" };
    uint64_t left = 0;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_keys(&model, 0, 8, 4096);
    assert_int_equal(store_master_drain(model.master, model.now, "n9", false, &left),
                     STATUS_NOT_FOUND);
    assert_int_equal(store_master_drain(model.master, model.now, "n0", false, &left), STATUS_OK);
    assert_int_equal(left, 8);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(9, text), 100, &there, &ticket),
        STATUS_OK);
    assert_int_not_equal(node_of(&model, ticket.where.node), 0); /* nothing new */
    turns(&model, 60);
    assert_int_equal(store_master_drain(model.master, model.now, "n0", false, &left), STATUS_OK);
    assert_int_equal(left, 0);
    store_master_leave(model.master, model.now, "n0", model.nodes[0].epoch);
    for (unsigned key = 0; key < 8; key++)
        assert_int_equal(replicas_of(&model, key), 1);
    store_master_destroy(model.master);
}

/* Which keys the node is asked to copy, in this order, as digits. */
static uint64_t copies_asked(struct model *model)
{
    struct store_action action;
    uint64_t digits = 0;
    char text[KEY_TEXT];
    while (store_master_next_action(model->master, &action)) {
        for (unsigned key = 0; key < 10 && action.kind == STORE_ACTION_COPY; key++) {
            const struct block_key id = store_key_id(key_of(key, text));
            if (block_key_equal(&id, &action.id)) digits = digits * 10 + key;
        }
    }
    return digits;
}

/* Only what nobody else has and the node's disk will not keep; what matters most first; nothing is
 * evicted for it, unless it is pinned. */
static void who_leaves_soon_hands_over_what_matters_first(void **state)
{
    static struct model model;
    struct store_unmounting unmounting;
    struct store_ticket ticket;
    const struct store_wish pinned = { .attributes.hard_pin = true };
    const struct store_wish at_n1 = { .preferred = "n1" };
    const struct store_wish at_n2 = { .preferred = "n2" };
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_keys(&model, 1, 5, 8192);
    put_wish(&model, 5, 8192, pinned);
    put_whole(&model, 6, 4096); /* is on its disk */
    put_whole(&model, 7, 8192);
    put_whole(&model, 8, 8192); /* another node has it, too */
    struct model_node *other = &model.nodes[1];
    other->held[8] = model.nodes[0].held[8];
    other->held[8].generation = ++other->generation;
    const struct store_event stored = event_of(other, 8, text, STORE_EVENT_STORED);
    store_master_event(model.master, model.now, other->id, &stored);
    read_times(&model, 3, 1);
    model.now += 20 * MS;
    read_times(&model, 1, 1);
    model.now += 20 * MS;
    read_times(&model, 4, 1);
    assert_int_equal(copies_asked(&model), 0);

    /* Room for four of them, around the one that is there. */
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(10, text), 25 * 4096,
                                            &at_n1, &ticket),
                     STATUS_OK);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(11, text), 5 * 4096,
                                            &at_n1, &ticket),
                     STATUS_OK);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(12, text),
                                            REGION_SIZE, &at_n2, &ticket),
                     STATUS_OK);
    assert_int_equal(store_master_unmount(model.master, model.now, "n9", 4096, &unmounting),
                     STATUS_NOT_FOUND);
    assert_int_equal(store_master_unmount(model.master, model.now, "n0", 4096, &unmounting),
                     STATUS_OK);
    assert_true(unmounting.left > 0);
    const uint64_t asked = copies_asked(&model);
    assert_int_equal(asked / 10, 541); /* then 3, and nobody has room for 2 and 7 */
    assert_int_equal(asked % 10, 3);
    assert_int_equal(unmounting.stranded, 2);
    assert_int_not_equal(
        store_master_put_start(model.master, model.now, 1, key_of(9, text), 4096, NULL, &ticket),
        STATUS_OK); /* it gets nothing new, and has room */
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* The copies are made, and the node is told when it may go. */
static void who_leaves_soon_is_told_when_it_may_go(void **state)
{
    static struct model model;
    struct store_unmounting unmounting = { .left = 1 };
    (void)state;

    model_init(&model);
    model.calm = true;
    put_keys(&model, 0, 8, 4096);
    for (int i = 0; i < 20 && unmounting.left > 0; i++) {
        assert_int_equal(store_master_unmount(model.master, model.now, "n0", 0, &unmounting),
                         STATUS_OK);
        turns(&model, 3);
    }
    assert_int_equal(unmounting.left, 0);
    assert_int_equal(unmounting.stranded, 0);
    store_master_leave(model.master, model.now, "n0", model.nodes[0].epoch);
    for (unsigned key = 0; key < 8; key++)
        assert_int_equal(replicas_of(&model, key), 1);
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_are_as_many_replicas_as_wished),
        cmocka_unit_test(a_copy_that_was_not_begun_costs_its_tenant_nothing),
        cmocka_unit_test(a_removal_ends_the_copy),
        cmocka_unit_test(what_a_node_has_goes_elsewhere_before_it_leaves),
        cmocka_unit_test(who_leaves_soon_hands_over_what_matters_first),
        cmocka_unit_test(who_leaves_soon_is_told_when_it_may_go),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
