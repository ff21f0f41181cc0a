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
#include "store/rank.h"

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
    node->held[0] = (struct held){ true,
                                   second.where.address,
                                   5000,
                                   ++node->generation,
                                   { .term = second.term, .version = second.version } };
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

    node->held[0] = (struct held){ true,
                                   ticket->where.address,
                                   size,
                                   ++node->generation,
                                   { .term = ticket->term, .version = ticket->version } };
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

/* What the node has, as an earlier master made it, at the start of its memory; told. */
static void hold_of(struct model *model, unsigned index, uint64_t size, struct rank rank,
                    bool doubt)
{
    struct model_node *node = &model->nodes[index];
    char text[KEY_TEXT];

    node->held[0] = (struct held){
        true, REGION, size, ++node->generation, { .term = rank.term, .version = rank.version }
    };
    struct store_event event = event_of(node, 0, text, STORE_EVENT_STORED);
    event.doubt = doubt;
    store_master_event(model->master, model->now, node->id, &event);
}

/* The later term wins, however often the other was replaced, whoever is in doubt, whoever is heard
 * first; and the other is dropped. Where a term is not known versions decide, as they did. */
/* What was replaced is still somewhere when what has replaced it is removed: the next value of the
 * key is one like any other. */
static void what_comes_after_a_removal_is_not_removed(void **state)
{
    static struct model model;
    const struct store_wish replace = { .replace = true, .preferred = "n1" };
    struct store_ticket ticket;
    struct store_action action;
    char text[KEY_TEXT];
    uint64_t left = 0;
    (void)state;

    model_init(&model);
    model.calm = true;
    put_whole(&model, 0, 4096); /* at the first node, which does not answer for a while */
    const struct store_key key = key_of(0, text);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            store_master_put_start(model.master, model.now, 2, key, 9000, &replace, &ticket),
            STATUS_OK);
        assert_int_equal(commit_at(&model, &ticket, 1, 9000), STATUS_AGAIN);
        if (i > 0) break;
        assert_int_equal(store_master_remove(model.master, model.now, key, true), STATUS_OK);
        tell_removed(&model, 1, 0);
    }
    while (store_master_next_action(model.master, &action)) {
        store_master_dropped(model.master, model.now, action.node, &action.id, action.generation,
                             STATUS_TIMEOUT);
    }
    turns(&model, 100);
    assert_false(model.nodes[0].held[0].present);
    assert_int_equal(store_master_drain(model.master, model.now, "n1", false, &left), STATUS_OK);
    turns(&model, 100);
    assert_int_equal(store_master_drain(model.master, model.now, "n1", false, &left), STATUS_OK);
    assert_int_equal(left, 0);
    assert_int_equal(replicas_of(&model, 0), 1);
    store_master_destroy(model.master);
}

static void the_later_term_is_the_newer_value(void **state)
{
    const struct {
        struct rank newer, older;
    } cases[] = { { { 4, 0 }, { 3, 9 } },
                  { { 4, 2 }, { 4, 1 } },
                  { { 0, 2 }, { 4, 1 } },
                  { { 4, 2 }, { 0, 1 } } };
    static struct model model;
    struct store_object object;
    struct store_action action;
    char text[KEY_TEXT];
    (void)state;

    for (unsigned i = 0; i < 4 * sizeof(cases) / sizeof(cases[0]); i++) {
        const struct rank newer = cases[i / 4].newer, older = cases[i / 4].older;
        const bool newer_first = i % 2 == 0;
        const bool doubt = i / 2 % 2 == 0 && newer.term != 0 && older.term != 0;
        model_init(&model);
        while (store_master_next_action(model.master, &action))
            continue;
        if (newer_first) hold_of(&model, 1, 9000, newer, doubt);
        hold_of(&model, 0, 4096, older, false);
        if (!newer_first) hold_of(&model, 1, 9000, newer, doubt);
        assert_int_equal(store_master_get(model.master, model.now, key_of(0, text), &object),
                         doubt ? STATUS_AGAIN : STATUS_OK);
        model.now += SETTLE_MS * MS;
        assert_true(store_master_tick(model.master, model.now) > 0);
        assert_int_equal(store_master_get(model.master, model.now, key_of(0, text), &object),
                         STATUS_OK);
        assert_int_equal(object.size, 9000);
        assert_int_equal(object.replicas_count, 1);
        assert_true(store_master_next_action(model.master, &action));
        assert_int_equal(action.kind, STORE_ACTION_DROP);
        assert_int_equal(node_of(&model, action.node), 0);
        store_master_check(model.master);
        store_master_destroy(model.master);
    }
}

/* Removed, or evicted, under this master, which never heard of what the node has: of an earlier
 * term, and of a version as high as can be. What is put since then stands beside it. */
static void nothing_of_an_earlier_term_outlives_what_came_after(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    struct store_object object;
    char text[KEY_TEXT];
    (void)state;

    for (int removed = 0; removed < 2; removed++) {
        model_init(&model);
        const struct store_key key = key_of(0, text);
        put_whole(&model, 0, 4096); /* at node 0 */
        if (removed) {
            assert_int_equal(store_master_remove(model.master, model.now, key, true), STATUS_OK);
        }
        tell_removed(&model, 0, 0);
        model.nodes[0].held[0].present = false;
        hold_of(&model, 1, 9000, (struct rank){ 4, 9 }, false);
        expect_absent(&model);
        const struct store_wish here = { .preferred = "n0" };
        assert_int_equal(
            store_master_put_start(model.master, model.now, 3, key, 4096, &here, &ticket),
            STATUS_AGAIN); /* until the other is dropped */
        tell_removed(&model, 1, 0);
        assert_int_equal(
            store_master_put_start(model.master, model.now, 3, key, 4096, &here, &ticket),
            STATUS_OK);
        assert_int_equal(commit_at(&model, &ticket, 0, 4096), STATUS_OK);
        hold_of(&model, 1, 9000, (struct rank){ 4, 9 }, false);
        assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_OK);
        assert_int_equal(object.size, 4096);
        store_master_check(model.master);
        store_master_destroy(model.master);
    }
}

/* A value that was evicted hides older ones, and not one of a term between, which this master hears
 * only now. */
static void what_is_newer_than_what_was_evicted_is_welcome(void **state)
{
    static struct model model;
    struct store_object object;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    hold_of(&model, 0, 4096, (struct rank){ 2, 5 }, false);
    tell_removed(&model, 0, 0);
    hold_of(&model, 1, 9000, (struct rank){ 2, 4 }, false);
    expect_absent(&model);
    hold_of(&model, 0, 5000, (struct rank){ 3, 0 }, false);
    assert_int_equal(store_master_get(model.master, model.now, key_of(0, text), &object),
                     STATUS_OK);
    assert_int_equal(object.size, 5000);
    assert_int_equal(object.replicas_count, 1);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* The clock was set back: a master puts under term 5 what replaces a value of term 7, of which the
 * node that has it tells only now. */
static void a_term_that_was_raised_counts_as_the_later_one(void **state)
{
    static struct model model;
    struct store_member_info info;
    struct store_object object;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_whole(&model, 0, 4096); /* at node 0 */
    info_of(&model.nodes[1], 1, &info);
    assert_int_equal(store_master_register(model.master, model.now, &info, 7, &model.nodes[1].id),
                     STATUS_OK);
    assert_int_equal(store_master_term(model.master), 8);
    hold_of(&model, 1, 9000, (struct rank){ 7, 3 }, false);
    assert_int_equal(store_master_get(model.master, model.now, key_of(0, text), &object),
                     STATUS_OK);
    assert_int_equal(object.size, 4096);
    announce(&model, 0);
    assert_int_equal(store_master_get(model.master, model.now, key_of(0, text), &object),
                     STATUS_OK);
    assert_int_equal(object.size, 4096);
    store_master_check(model.master);
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
        cmocka_unit_test(what_comes_after_a_removal_is_not_removed),
        cmocka_unit_test(the_later_term_is_the_newer_value),
        cmocka_unit_test(nothing_of_an_earlier_term_outlives_what_came_after),
        cmocka_unit_test(what_is_newer_than_what_was_evicted_is_welcome),
        cmocka_unit_test(a_term_that_was_raised_counts_as_the_later_one),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
