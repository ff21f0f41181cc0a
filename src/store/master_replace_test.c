/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_replace_test.c
 *
 * Goal:   readers see the old value whole or the new one whole, and what was replaced or removed
 * does not come back, whoever was away meanwhile.
 * Method: by hand: puts that replace, owners that are cut off, and masters that die between. */
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

/* Readers have the old value until the new one is there, and then the new one everywhere. */
static void a_value_is_replaced_whole(void **state)
{
    static struct model model;
    const struct store_wish replace = { .replace = true, .preferred = "n1" };
    struct store_ticket first, second, ignored;
    struct store_object object;
    struct store_action action;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_whole(&model, 0, 4096);
    const struct store_key key = key_of(0, text);
    assert_int_equal(store_master_put_start(model.master, model.now, 2, key, 9000, NULL, &ignored),
                     STATUS_EXISTS);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 2, key, 9000, &replace, &first), STATUS_OK);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 3, key, 5000, &replace, &second),
        STATUS_OK); /* pre-empts */
    assert_true(second.version > first.version && first.version > 0);
    assert_int_equal(store_master_put_revoke(model.master, model.now, 2, key, first.put_id),
                     STATUS_NOT_FOUND);
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_OK);
    assert_int_equal(object.size, 4096);
    while (store_master_next_action(model.master, &action))
        continue;

    struct model_node *node = &model.nodes[1];
    node->held[0] = (struct held){
        true, second.where.address, 5000, ++node->generation, { .version = second.version }
    };
    const struct store_event stored = event_of(node, 0, text, STORE_EVENT_STORED);
    assert_int_equal(
        store_master_put_end(model.master, model.now, "n1", node->epoch, second.put_id, &stored),
        STATUS_AGAIN); /* the old one is there */
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_OK);
    assert_int_equal(object.size, 5000);
    assert_int_equal(object.replicas_count, 1);
    assert_int_equal(node_of(&model, object.replicas[0].node), 1);
    assert_true(store_master_next_action(model.master, &action)); /* the old one, though leased */
    assert_int_equal(action.kind, STORE_ACTION_DROP);
    assert_int_equal(node_of(&model, action.node), 0);
    store_master_dropped(model.master, model.now, action.node, &action.id, action.generation,
                         STATUS_BUSY); /* somebody still reads it: later, until it is gone */
    model.now += 300 * MS;
    assert_true(store_master_tick(model.master, model.now) > 0);
    assert_true(store_master_next_action(model.master, &action));
    announce(&model, 0); /* it does not come back by being told again */
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_OK);
    assert_int_equal(object.size, 5000);
    assert_int_equal(store_master_replaced(model.master, model.now, &stored.id), STATUS_AGAIN);
    tell_removed(&model, 0, 0);
    assert_int_equal(store_master_replaced(model.master, model.now, &stored.id), STATUS_OK);
    assert_int_equal(
        store_master_put_end(model.master, model.now, "n1", node->epoch, second.put_id, &stored),
        STATUS_OK); /* its owner repeats itself */
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* The node gets the whole of what the ticket is for, and tells. */
static enum status commit_at(struct model *model, const struct store_ticket *ticket, unsigned index,
                             uint64_t size)
{
    struct model_node *node = &model->nodes[index];
    char name[8];
    char text[KEY_TEXT];

    node->held[0] = (struct held){
        true, ticket->where.address, size, ++node->generation, { .version = ticket->version }
    };
    const struct store_event stored = event_of(node, 0, text, STORE_EVENT_STORED);
    snprintf(name, sizeof(name), "n%u", index);
    return store_master_put_end(model->master, model->now, name, node->epoch, ticket->put_id,
                                &stored);
}

/* The old owner is cut off: the put waits until that one is in doubt about what it has, which the
 * next master is told and believes only when it has heard everybody. */
static void an_owner_out_of_touch_is_waited_for_and_then_doubted(void **state)
{
    static struct model model;
    const struct store_wish replace = { .replace = true, .preferred = "n1" };
    struct store_ticket ticket, ignored;
    struct store_object object;
    struct store_event event;
    char text[KEY_TEXT], name[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_whole(&model, 0, 4096);
    const struct store_key key = key_of(0, text);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 2, key, 9000, &replace, &ticket),
        STATUS_OK);
    const uint64_t heard = model.now;
    model.now += 4000 * MS;
    assert_int_equal(store_master_beat(model.master, model.now, "n1", model.nodes[1].epoch),
                     STATUS_OK);
    event = event_of(&model.nodes[0], 0, name, STORE_EVENT_STORED);
    assert_int_equal(commit_at(&model, &ticket, 1, 9000), STATUS_AGAIN);
    model.now = heard + STORE_DOUBT_MS * MS - 1;
    assert_int_equal(store_master_replaced(model.master, model.now, &event.id), STATUS_AGAIN);
    model.now++;
    assert_int_equal(store_master_replaced(model.master, model.now, &event.id), STATUS_OK);
    store_master_destroy(model.master);

    model.master = master_new(model.now); /* which hears the old owner first */
    model.nodes[0].held[0].present = false;
    node_register(&model, 0);
    announce(&model, 0);
    event.doubt = true;
    store_master_event(model.master, model.now, model.nodes[0].id, &event);
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_AGAIN);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 3, key, 4096, &replace, &ignored),
        STATUS_AGAIN); /* its version could be that of the one that is not known */
    assert_int_equal(store_master_remove(model.master, model.now, key, true), STATUS_AGAIN);
    model.now += SETTLE_MS * MS;
    assert_true(store_master_tick(model.master, model.now) > 0);
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_OK);
    assert_int_equal(object.size, 4096); /* nobody else has it, for all anybody knows */
    node_register(&model, 1);
    announce(&model, 1);
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_OK);
    assert_int_equal(object.size, 9000);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* Of two values the one of whoever is not in doubt stays, whatever the versions, whoever is heard
 * first. */
static void doubt_gives_way(void **state)
{
    static struct model model;
    struct store_object object;
    char text[KEY_TEXT], name[KEY_TEXT];
    (void)state;

    for (int first = 0; first < 2; first++) {
        model_init(&model);
        struct model_node *node = &model.nodes[1];
        node->held[0] = (struct held){ true, REGION, 9000, ++node->generation, { .version = 3 } };
        struct store_event event = event_of(node, 0, name, STORE_EVENT_STORED);
        event.doubt = true;
        if (first) store_master_event(model.master, model.now, node->id, &event);
        model.nodes[0].held[0] =
            (struct held){ true, REGION, 4096, ++model.nodes[0].generation, { .version = 1 } };
        announce(&model, 0);
        if (!first) store_master_event(model.master, model.now, node->id, &event);
        assert_int_equal(store_master_get(model.master, model.now, key_of(0, text), &object),
                         STATUS_OK);
        assert_int_equal(object.size, 4096);
        assert_int_equal(object.replicas_count, 1);
        assert_int_equal(store_master_replaced(model.master, model.now, &event.id), STATUS_AGAIN);
        store_master_check(model.master);
        store_master_destroy(model.master);
    }
}

static void expect_absent(struct model *model)
{
    char text[KEY_TEXT];
    const struct store_key key = key_of(0, text);
    assert_int_equal(store_master_exist(model->master, model->now, key), STATUS_NOT_FOUND);
    store_master_check(model->master);
}

/* Its node is forgotten with the old value while the new one lies elsewhere, and goes. */
static void a_node_that_was_away_brings_nothing_old(void **state)
{
    static struct model model;
    const struct store_wish replace = { .replace = true, .preferred = "n1" };
    struct store_ticket ticket;
    struct store_action action;
    char text[KEY_TEXT];
    (void)state;

    for (int removed = 0; removed < 2; removed++) {
        model_init(&model);
        put_whole(&model, 0, 4096); /* at node 0 */
        const struct store_key key = key_of(0, text);
        assert_int_equal(
            store_master_put_start(model.master, model.now, 2, key, 9000, &replace, &ticket),
            STATUS_OK);
        const struct held old = model.nodes[0].held[0];
        store_master_leave(model.master, model.now, "n0", model.nodes[0].epoch);
        assert_int_equal(commit_at(&model, &ticket, 1, 9000), STATUS_OK);
        if (removed) {
            assert_int_equal(store_master_remove(model.master, model.now, key, true), STATUS_OK);
        }
        tell_removed(&model, 1, 0); /* evicted, or removed */
        model.nodes[1].held[0].present = false;
        expect_absent(&model);
        node_start(&model, 0);
        while (store_master_next_action(model.master, &action))
            continue;
        model.nodes[0].held[0] = old; /* on its disk, say */
        announce(&model, 0);
        expect_absent(&model);
        assert_true(store_master_next_action(model.master, &action));
        assert_int_equal(action.kind, STORE_ACTION_DROP);
        tell_removed(&model, 0, 0);
        assert_int_equal(
            store_master_put_start(model.master, model.now, 3, key, 4096, NULL, &ticket),
            STATUS_OK);
        assert_true(ticket.version > old.attributes.version); /* nor does it stand in the way */
        store_master_destroy(model.master);
    }
}

/* A put that replaces times out, what it was to replace is removed, and then it is committed. */
static void a_late_commit_does_not_undo_a_removal(void **state)
{
    static struct model model;
    const struct store_wish replace = { .replace = true, .preferred = "n1" };
    struct store_ticket ticket;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_whole(&model, 0, 4096);
    const struct store_key key = key_of(0, text);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 2, key, 9000, &replace, &ticket),
        STATUS_OK);
    assert_int_equal(store_master_put_revoke(model.master, model.now, 2, key, ticket.put_id),
                     STATUS_OK);
    assert_int_equal(store_master_remove(model.master, model.now, key, true), STATUS_OK);
    tell_removed(&model, 0, 0);
    model.nodes[0].held[0].present = false;
    assert_int_equal(commit_at(&model, &ticket, 1, 9000), STATUS_STALE);
    expect_absent(&model);
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_is_replaced_whole),
        cmocka_unit_test(an_owner_out_of_touch_is_waited_for_and_then_doubted),
        cmocka_unit_test(doubt_gives_way),
        cmocka_unit_test(a_node_that_was_away_brings_nothing_old),
        cmocka_unit_test(a_late_commit_does_not_undo_a_removal),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
