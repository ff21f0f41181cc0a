/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_task_test.c
 *
 * Goal:   a value is copied and moved where it was asked to be, or the task says why not; and of a
 *         move the source lets go when the target's word is there, not before.
 * Method: by hand, with nodes that copy and drop what they are asked to; and with nodes that do
 *         nothing, to look at what was asked. */
#include "store/master_task.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "seed.h"
#include "store/master_fixture.h"

static const char *why;

static enum status make(struct model *model, unsigned key, const struct store_task_wish *wish,
                        struct yolk_store_task *out)
{
    char text[KEY_TEXT];
    return store_master_task_create(model->master, model->now, key_of(key, text), wish, out, &why);
}

static enum status copy_to(struct model *model, unsigned key, const char *to,
                           struct yolk_store_task *out)
{
    const struct store_task_wish wish = { .from = "", .to_count = 1, .to = &to };
    return make(model, key, &wish, out);
}

static enum status move_to(struct model *model, unsigned key, const char *from, const char *to,
                           struct yolk_store_task *out)
{
    const struct store_task_wish wish = { .move = true, .from = from, .to_count = 1, .to = &to };
    return make(model, key, &wish, out);
}

static struct yolk_store_task look(const struct model *model, const struct yolk_store_task *task)
{
    struct yolk_store_task now;
    assert_int_equal(store_master_task(model->master, model->now, task->id, &now), STATUS_OK);
    assert_true(now.id.number == task->id.number && now.move == task->move);
    return now;
}

static bool is_at(struct model *model, unsigned key, unsigned node)
{
    struct store_object object;
    char text[KEY_TEXT];

    if (store_master_peek(model->master, model->now, key_of(key, text), &object) != STATUS_OK)
        return false;
    for (uint32_t i = 0; i < object.replicas_count; i++)
        if (object.replicas[i].node.index == model->nodes[node].id.index) return true;
    return false;
}

/* A value at the first node, and nothing fails that is asked for. */
static void start(struct model *model)
{
    model_init(model);
    model->calm = true;
    put_whole(model, 0, 9000);
    step_actions(model);
}

/* The oldest action of this kind, which is queued; earlier ones are carried out. */
static struct store_action action_of(struct model *model, enum store_action_kind kind)
{
    struct store_action action = { 0 };
    for (int i = 0; i < 20 && action.kind != kind; i++) {
        if (store_master_next_action(model->master, &action)) continue;
        step_time(model);
    }
    assert_int_equal(action.kind, kind);
    return action;
}

static bool is_asked(struct model *model, enum store_action_kind kind)
{
    struct store_action action;
    bool found = false;
    while (store_master_next_action(model->master, &action))
        found = found || action.kind == kind;
    return found;
}

static void a_copy_is_made_and_stays(void **state)
{
    static struct model model;
    struct yolk_store_task task;
    (void)state;

    start(&model);
    assert_int_equal(copy_to(&model, 0, "n2", &task), STATUS_OK);
    assert_true(!task.move && task.targets == 1 && task.done == 0 && task.size == 9000);
    turns(&model, 5);
    assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_SUCCESS);
    assert_int_equal(look(&model, &task).done, 1);
    assert_true(is_at(&model, 0, 0) && is_at(&model, 0, 2));
    turns(&model, 40);
    assert_int_equal(replicas_of(&model, 0), 2); /* so many are wished from now on */
    node_start(&model, 2);                       /* and made again when one is lost */
    turns(&model, 40);
    assert_int_equal(replicas_of(&model, 0), 2);
    store_master_destroy(model.master);
}

/* Made, and lost with its value, between two looks at the clock: no more than a moment old. */
static void a_task_is_as_old_as_it_is(void **state)
{
    static struct model model;
    struct yolk_store_task task;
    (void)state;

    start(&model);
    put_wish(&model, 1, REGION_SIZE, (struct store_wish){ .preferred = "n2" });
    model.now += 7 * MS;
    assert_int_equal(copy_to(&model, 0, "n2", &task), STATUS_OK); /* no room there now */
    node_start(&model, 0);                                        /* another life, with nothing */
    assert_int_equal(look(&model, &task).status, STATUS_NOT_FOUND);
    assert_int_equal(look(&model, &task).age_ms, 0);
    store_master_destroy(model.master);
}

static void several_targets_are_served_and_those_that_have_it_are_done(void **state)
{
    static struct model model;
    static const char *const to[] = { "n0", "n2", "n1" };
    const struct store_task_wish wish = { .from = "", .to_count = 3, .to = to };
    struct yolk_store_task task;
    (void)state;

    start(&model);
    assert_int_equal(make(&model, 0, &wish, &task), STATUS_OK);
    assert_int_equal(task.done, 1);
    assert_int_equal(task.state, YOLK_STORE_TASK_PROCESSING);
    turns(&model, 20);
    assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_SUCCESS);
    assert_int_equal(replicas_of(&model, 0), 3);
    assert_int_equal(copy_to(&model, 0, "n1", &task), STATUS_OK); /* nothing is left to do */
    assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_SUCCESS);
    turns(&model, 20);
    assert_int_equal(replicas_of(&model, 0), 3);
    store_master_destroy(model.master);
}

static void a_move_leaves_it_at_the_target_only(void **state)
{
    static struct model model;
    struct yolk_store_task task;
    (void)state;

    start(&model);
    assert_int_equal(move_to(&model, 0, "", "n1", &task), STATUS_OK);
    for (int i = 0; i < 20; i++) {
        turns(&model, 1);
        assert_true(replicas_of(&model, 0) > 0); /* there is no moment without */
    }
    assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_SUCCESS);
    assert_true(!is_at(&model, 0, 0) && is_at(&model, 0, 1));
    assert_int_equal(replicas_of(&model, 0), 1);
    assert_false(model.nodes[0].held[0].present);
    store_master_destroy(model.master);
}

/* Of two replicas the one that is named is moved. */
static void a_move_of_one_of_several_keeps_their_number(void **state)
{
    static struct model model;
    struct yolk_store_task task;
    (void)state;

    start(&model);
    assert_int_equal(copy_to(&model, 0, "n1", &task), STATUS_OK);
    turns(&model, 10);
    assert_int_equal(move_to(&model, 0, "", "n2", &task), STATUS_INVALID);
    assert_int_equal(move_to(&model, 0, "n0", "n2", &task), STATUS_OK);
    turns(&model, 20);
    assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_SUCCESS);
    assert_true(!is_at(&model, 0, 0) && is_at(&model, 0, 1) && is_at(&model, 0, 2));
    store_master_destroy(model.master);
}

static void the_source_keeps_it_until_the_target_has_said_so(void **state)
{
    static struct model model;
    struct yolk_store_task task;
    (void)state;

    start(&model);
    assert_int_equal(move_to(&model, 0, "n0", "n1", &task), STATUS_OK);
    const struct store_action asked = action_of(&model, STORE_ACTION_COPY);
    assert_true(asked.move && asked.node.index == model.nodes[0].id.index);
    assert_true(asked.ticket.where.node.index == model.nodes[1].id.index);
    for (int i = 0; i < 5; i++) {
        step_time(&model);
        assert_false(is_asked(&model, STORE_ACTION_DROP));
    }
    copy(&model, &asked); /* put_end of the target, and only then the source's own word */
    step_time(&model);
    const struct store_action dropped = action_of(&model, STORE_ACTION_DROP);
    assert_true(dropped.node.index == model.nodes[0].id.index && !dropped.evict);
    assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_PROCESSING);
    drop(&model, &dropped);
    turns(&model, 3);
    assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_SUCCESS);
    store_master_destroy(model.master);
}

/* The source says that it has copied, but of the target nothing was heard: it keeps the value. */
static void the_word_of_the_source_is_not_enough(void **state)
{
    static struct model model;
    struct yolk_store_task task;
    (void)state;

    start(&model);
    assert_int_equal(move_to(&model, 0, "n0", "n1", &task), STATUS_OK);
    const struct store_action asked = action_of(&model, STORE_ACTION_COPY);
    store_master_copied(model.master, model.now, &asked.id, asked.ticket.put_id, STATUS_OK);
    for (int i = 0; i < 5; i++) {
        step_time(&model);
        assert_false(is_asked(&model, STORE_ACTION_DROP));
    }
    assert_true(is_at(&model, 0, 0));
    store_master_destroy(model.master);
}

static void a_source_that_is_being_read_is_asked_again(void **state)
{
    static struct model model;
    struct yolk_store_task task;
    (void)state;

    start(&model);
    assert_int_equal(move_to(&model, 0, "n0", "n1", &task), STATUS_OK);
    const struct store_action asked = action_of(&model, STORE_ACTION_COPY);
    copy(&model, &asked);
    for (int i = 0; i < 3; i++) {
        const struct store_action dropped = action_of(&model, STORE_ACTION_DROP);
        store_master_dropped(model.master, model.now, dropped.node, &dropped.id, dropped.generation,
                             STATUS_BUSY);
        assert_true(is_at(&model, 0, 0)); /* and read on */
    }
    turns(&model, 10);
    assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_SUCCESS);
    assert_false(is_at(&model, 0, 0));
    store_master_destroy(model.master);
}

/* Dies with the value between its word and the drop: the value is copied again, from the source. */
static void a_target_that_is_lost_loses_nothing(void **state)
{
    static struct model model;
    struct yolk_store_task task;
    (void)state;

    start(&model);
    assert_int_equal(move_to(&model, 0, "n0", "n1", &task), STATUS_OK);
    const struct store_action asked = action_of(&model, STORE_ACTION_COPY);
    node_start(&model, 1); /* another life, with nothing */
    store_master_copied(model.master, model.now, &asked.id, asked.ticket.put_id,
                        STATUS_UNAVAILABLE);
    turns(&model, 40);
    assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_FAILED);
    assert_int_equal(look(&model, &task).status, STATUS_UNAVAILABLE);
    assert_true(is_at(&model, 0, 0));
    assert_int_equal(replicas_of(&model, 0), 1);
    store_master_destroy(model.master);
}

static void what_cannot_be_is_refused(void **state)
{
    static struct model model;
    static const char *const twice[] = { "n1", "n1" };
    const struct store_task_wish double_wish = { .from = "", .to_count = 2, .to = twice };
    struct yolk_store_task task;
    (void)state;

    start(&model);
    assert_int_equal(copy_to(&model, 5, "n1", &task), STATUS_NOT_FOUND);
    assert_int_equal(copy_to(&model, 0, "n9", &task), STATUS_INVALID);
    assert_int_equal(move_to(&model, 0, "n9", "n1", &task), STATUS_INVALID);
    assert_int_equal(move_to(&model, 0, "n1", "n2", &task), STATUS_INVALID); /* has it not */
    assert_int_equal(move_to(&model, 0, "n0", "n0", &task), STATUS_INVALID);
    assert_int_equal(make(&model, 0, &double_wish, &task), STATUS_INVALID);
    assert_true(why[0] != '\0');
    assert_int_equal(move_to(&model, 0, "n0", "n1", &task), STATUS_OK);
    assert_int_equal(move_to(&model, 0, "n0", "n2", &task), STATUS_BUSY);
    turns(&model, 20);
    assert_int_equal(copy_to(&model, 0, "n2", &task), STATUS_OK);
    turns(&model, 20);
    assert_int_equal(move_to(&model, 0, "n1", "n2", &task), STATUS_EXISTS);
    struct yolk_store_task_id id = task.id;
    id.term++;
    assert_int_equal(store_master_task(model.master, model.now, id, &task), STATUS_NOT_FOUND);
    id = (struct yolk_store_task_id){ id.term - 1, UINT64_MAX };
    assert_int_equal(store_master_task(model.master, model.now, id, &task), STATUS_NOT_FOUND);
    store_master_destroy(model.master);
}

/* The value at the first node by another one at the last. */
static void replace(struct model *model)
{
    const struct store_wish wish = { .preferred = "n2", .replace = true };
    struct model_node *node = &model->nodes[2];
    struct store_ticket ticket;
    char text[KEY_TEXT];

    assert_int_equal(
        store_master_put_start(model->master, model->now, 1, key_of(0, text), 5000, &wish, &ticket),
        STATUS_OK);
    node->held[0] = (struct held){
        true, ticket.where.address, 5000, ++node->generation, { .version = ticket.version }
    };
    const struct store_event stored = event_of(node, 0, text, STORE_EVENT_STORED);
    assert_int_equal(
        store_master_put_end(model->master, model->now, "n2", node->epoch, ticket.put_id, &stored),
        STATUS_AGAIN); /* until the old one has gone */
}

static void a_value_that_goes_ends_its_task(void **state)
{
    static struct model model;
    struct yolk_store_task task;
    char text[KEY_TEXT];
    (void)state;

    for (int replaced = 0; replaced < 2; replaced++) {
        start(&model);
        assert_int_equal(move_to(&model, 0, "n0", "n1", &task), STATUS_OK);
        if (replaced) {
            replace(&model);
        } else {
            assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), true),
                             STATUS_OK);
        }
        turns(&model, 20);
        assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_FAILED);
        assert_int_equal(look(&model, &task).status, replaced ? STATUS_STALE : STATUS_NOT_FOUND);
        store_master_destroy(model.master);
    }
}

static void a_target_without_room_fails_it(void **state)
{
    static struct model model;
    struct yolk_store_task task;
    (void)state;

    start(&model);
    put_wish(&model, 1, REGION_SIZE - 4096, (struct store_wish){ .preferred = "n1" });
    assert_int_equal(move_to(&model, 0, "n0", "n1", &task), STATUS_OK);
    turns(&model, 400);
    assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_FAILED);
    assert_int_equal(look(&model, &task).status, STATUS_FULL);
    assert_true(is_at(&model, 0, 0) && is_at(&model, 1, 1)); /* nothing was evicted for it */
    store_master_destroy(model.master);
}

/* Nobody copies, and nobody says why: it ends all the same. */
static void a_task_is_not_for_ever(void **state)
{
    static struct model model;
    struct yolk_store_task task;
    (void)state;

    start(&model);
    assert_int_equal(move_to(&model, 0, "n0", "n1", &task), STATUS_OK);
    for (int i = 0; i < 20000 && look(&model, &task).state < YOLK_STORE_TASK_FAILED; i++) {
        (void)is_asked(&model, STORE_ACTION_COPY);
        step_time(&model);
    }
    assert_int_equal(look(&model, &task).state, YOLK_STORE_TASK_FAILED);
    assert_true(is_at(&model, 0, 0));
    store_master_check(model.master);
    for (int i = 0; i < 30000; i++)
        step_time(&model);
    assert_int_equal(store_master_task(model.master, model.now, task.id, &task),
                     STATUS_NOT_FOUND); /* it is forgotten in time */
    store_master_check(model.master);
    store_master_destroy(model.master);
}

static void what_has_ended_is_kept_up_to_a_number(void **state)
{
    static struct model model;
    struct yolk_store_task first, task;
    (void)state;

    start(&model);
    assert_int_equal(copy_to(&model, 0, "n0", &first), STATUS_OK);
    for (int i = 0; i < STORE_TASKS_KEPT; i++) {
        assert_int_equal(store_master_task(model.master, model.now, first.id, &task), STATUS_OK);
        assert_int_equal(copy_to(&model, 0, "n0", &task), STATUS_OK);
        assert_int_equal(task.state, YOLK_STORE_TASK_SUCCESS);
    }
    assert_int_equal(store_master_task(model.master, model.now, first.id, &task), STATUS_NOT_FOUND);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_is_made_and_stays),
        cmocka_unit_test(a_task_is_as_old_as_it_is),
        cmocka_unit_test(several_targets_are_served_and_those_that_have_it_are_done),
        cmocka_unit_test(a_move_leaves_it_at_the_target_only),
        cmocka_unit_test(a_move_of_one_of_several_keeps_their_number),
        cmocka_unit_test(the_source_keeps_it_until_the_target_has_said_so),
        cmocka_unit_test(the_word_of_the_source_is_not_enough),
        cmocka_unit_test(a_source_that_is_being_read_is_asked_again),
        cmocka_unit_test(a_target_that_is_lost_loses_nothing),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(a_value_that_goes_ends_its_task),
        cmocka_unit_test(a_target_without_room_fails_it),
        cmocka_unit_test(a_task_is_not_for_ever),
        cmocka_unit_test(what_has_ended_is_kept_up_to_a_number),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
