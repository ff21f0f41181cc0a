/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_place_test.c
 *
 * Goal:   where there is most room most is put, but one that has just come, was silent, or at which
 *         puts come to nothing, is not stampeded, and has its share again half a minute later;
 *         who is busy gets less while it is; and who fails on and on gets nothing for a while,
 *         unless there is nobody else.
 * Method: three nodes of which two are half full and the third is empty; what has happened to it is
 *         played before each of many masters with chances of their own, which then place one value.
 *         Of two drawn at random the empty one wins: 5 of 9 times. Where it loses it is had only
 *         when it was drawn twice: 1 of 9.
 *         Load: nodes alike in room that say what they move; and a model of nodes that move at
 *         most so much, with readers of one of them and puts that go where the master says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "seed.h"
#include "store/master_fixture.h"

enum { MASTERS = 150, EMPTY = 2, SLOW_MS = 30000, YOUNG_MS = 30000 };

/* Time goes by, and who is heard beats. */
static void pass(struct model *model, uint32_t ms, bool empty_too)
{
    for (uint32_t done = 0; done < ms; done += 500) {
        const uint32_t step = ms - done < 500 ? ms - done : 500;
        model->now += step * MS;
        for (unsigned i = 0; i < NODES; i++) {
            char name[8];
            snprintf(name, sizeof(name), "n%u", i);
            if (i == EMPTY && !empty_too) continue;
            assert_int_equal(
                store_master_beat(model->master, model->now, name, model->nodes[i].epoch),
                STATUS_OK);
        }
        (void)store_master_tick(model->master, model->now);
    }
}

static void put_half(struct model *model, unsigned node)
{
    const char *const names[] = { "n0", "n1", "n2" };
    put_wish(model, node, REGION_SIZE / 2, (struct store_wish){ .preferred = names[node] });
}

/* A put at the empty one, which its writer takes back. */
static void put_fails(struct model *model, unsigned key)
{
    const struct store_wish wish = { .preferred = "n2" };
    struct store_ticket ticket;
    char text[KEY_TEXT];

    const struct store_key at = key_of(key, text);
    assert_int_equal(store_master_put_start(model->master, model->now, 1, at, 4096, &wish, &ticket),
                     STATUS_OK);
    assert_int_equal(ticket.where.node.index, model->nodes[EMPTY].id.index);
    assert_int_equal(store_master_put_revoke(model->master, model->now, 1, at, ticket.put_id),
                     STATUS_OK);
}

enum past {
    NOTHING,
    COMES_BACK,
    WAS_SILENT,
    ONE_PUT_FAILED,
    PUTS_FAILED,
    PUTS_FAILED_NOT_IN_A_ROW,
};

static void play(struct model *model, enum past past)
{
    switch (past) {
    case NOTHING: break;
    case COMES_BACK: node_start(model, EMPTY); break;
    case WAS_SILENT:
        pass(model, 1500, false);
        pass(model, 500, true);
        break;
    case ONE_PUT_FAILED: put_fails(model, 5); break;
    case PUTS_FAILED:
        for (unsigned i = 0; i < 3; i++)
            put_fails(model, 5 + i);
        break;
    case PUTS_FAILED_NOT_IN_A_ROW:
        for (unsigned i = 0; i < 3; i++) {
            put_fails(model, 5 + i);
            if (i == 1) {
                put_wish(model, 9, 4096, (struct store_wish){ .preferred = "n2" });
            }
        }
        break;
    }
}

/* In percent, how often the empty one gets a value `after_ms` later. */
static unsigned share(uint32_t age_ms, enum past past, uint32_t after_ms)
{
    static struct model model;
    const uint64_t seed_before = seed;
    struct rng chances;
    unsigned times = 0;
    rng_init(&chances, seed);

    for (unsigned i = 0; i < MASTERS; i++) {
        struct store_ticket ticket;
        char text[KEY_TEXT];
        seed = rng_u64(&chances);
        model_init(&model);
        pass(&model, age_ms, true);
        put_half(&model, 0);
        put_half(&model, 1);
        play(&model, past);
        pass(&model, after_ms, true);
        assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(20, text), 4096,
                                                NULL, &ticket),
                         STATUS_OK);
        times += ticket.where.node.index == model.nodes[EMPTY].id.index;
        store_master_destroy(model.master);
    }
    seed = seed_before;
    return times * 100 / MASTERS;
}

static void assert_preferred(unsigned percent)
{
    assert_in_range(percent, 40, 70);
}

static void assert_spared(unsigned percent)
{
    assert_in_range(percent, 2, 25);
}

static void the_empty_one_gets_most(void **state)
{
    (void)state;
    assert_preferred(share(YOUNG_MS, NOTHING, 0));
    assert_preferred(share(0, NOTHING, 0));    /* to a young master all are new */
    assert_preferred(share(0, COMES_BACK, 0)); /* likewise */
}

static void who_comes_back_starts_slowly(void **state)
{
    (void)state;
    assert_spared(share(YOUNG_MS, COMES_BACK, 1));
    assert_spared(share(YOUNG_MS, COMES_BACK, SLOW_MS / 3)); /* a third of all, and half of all */
    assert_preferred(share(YOUNG_MS, COMES_BACK, SLOW_MS));
    assert_spared(share(YOUNG_MS, WAS_SILENT, 1));
    assert_preferred(share(YOUNG_MS, WAS_SILENT, SLOW_MS));
}

static void who_has_failed_again_and_again_is_spared(void **state)
{
    (void)state;
    assert_preferred(share(YOUNG_MS, ONE_PUT_FAILED, 1));
    assert_spared(share(YOUNG_MS, PUTS_FAILED, 1));
    assert_preferred(share(YOUNG_MS, PUTS_FAILED, SLOW_MS));
    assert_preferred(share(YOUNG_MS, PUTS_FAILED_NOT_IN_A_ROW, 1));
}

/* Spared is not refused: who alone has room is asked. */
static void the_only_one_with_room_gets_it(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    pass(&model, YOUNG_MS, true);
    put_half(&model, 0);
    put_half(&model, 1);
    node_start(&model, EMPTY);
    for (unsigned key = 20; key < 24; key++)
        put_whole(&model, key, REGION_SIZE / 4);
    for (unsigned key = 24; key < 28; key++)
        put_whole(&model, key, REGION_SIZE / 4);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* ---- load ---- */

enum { PLACED = 8, DRAWS = 600, MIB = 1 << 20, GIB = 1 << 30 };

static void load_set(struct model *model, unsigned node, uint64_t bytes)
{
    const struct store_node_load load = { .bytes = bytes };
    char name[8];
    snprintf(name, sizeof(name), "n%u", node);
    store_master_load(model->master, name, &load);
}

/* Where one put is sent, which is taken back without harm: its owner has it, and drops it. */
static unsigned placed(struct model *model)
{
    struct store_ticket ticket;
    char text[KEY_TEXT], name[8];
    struct store_action action;

    model->calm = true;
    const enum status status = store_master_put_start(model->master, model->now, 1,
                                                      key_of(PLACED, text), 4096, NULL, &ticket);
    assert_int_equal(status, STATUS_OK);
    const unsigned i = node_of(model, ticket.where.node);
    struct model_node *node = &model->nodes[i];
    snprintf(name, sizeof(name), "n%u", i);
    node->held[PLACED] = (struct held){
        true, ticket.where.address, 4096, ++node->generation, { .version = ticket.version }
    };
    const struct store_event stored = event_of(node, PLACED, text, STORE_EVENT_STORED);
    assert_int_equal(
        store_master_put_end(model->master, model->now, name, node->epoch, ticket.put_id, &stored),
        STATUS_OK);
    tell_removed(model, i, PLACED);
    node->held[PLACED].present = false;
    while (store_master_next_action(model->master, &action))
        continue;
    return i;
}

/* In percent, what each gets of many puts. */
static void shares(struct model *model, unsigned out[NODES])
{
    unsigned times[NODES] = { 0 };
    for (unsigned i = 0; i < DRAWS; i++)
        times[placed(model)]++;
    for (unsigned i = 0; i < NODES; i++)
        out[i] = times[i] * 100 / DRAWS;
}

static void who_is_busy_gets_less_and_then_its_share_again(void **state)
{
    static struct model model;
    unsigned share[NODES];
    (void)state;

    model_init(&model);
    pass(&model, YOUNG_MS, true);
    for (unsigned i = 0; i < NODES; i++)
        load_set(&model, i, GIB); /* alike: room alone decides */
    pass(&model, 500, true);
    shares(&model, share);
    for (unsigned i = 0; i < NODES; i++)
        assert_in_range(share[i], 25, 42);
    load_set(&model, 0, 4096ULL * MIB); /* four times the others */
    pass(&model, 500, true);
    shares(&model, share);
    assert_in_range(share[0], 3, 20);
    load_set(&model, 1, 64 * MIB); /* readers of one alone */
    load_set(&model, 2, 64 * MIB);
    pass(&model, 500, true);
    shares(&model, share);
    assert_in_range(share[0], 0, 6);
    assert_in_range(share[1], 40, 60);
    load_set(&model, 0, 64 * MIB);
    pass(&model, 500, true);
    shares(&model, share);
    assert_in_range(share[0], 25, 42);
    store_master_destroy(model.master);
}

/* A little more than the others is nobody's business. */
static void small_loads_change_nothing(void **state)
{
    static struct model model, same;
    (void)state;

    model_init(&model);
    model_init(&same);
    pass(&model, YOUNG_MS, true);
    pass(&same, YOUNG_MS, true);
    load_set(&model, 0, 60 * MIB);
    load_set(&model, 1, 5 * MIB);
    pass(&model, 500, true);
    pass(&same, 500, true);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(placed(&model), placed(&same)); /* the very same draws */
    store_master_destroy(model.master);
    store_master_destroy(same.master);
}

/* Nodes that move at most 1 GiB a second; readers want `readers` of the first, writers 1.5 GiB of
 * all, put by put. What is served in a minute, in MiB; the first one's share of the puts at its
 * least and most from the tenth second on. */
static uint64_t minute(bool told, uint64_t readers, unsigned *least, unsigned *most)
{
    static struct model model;
    enum { PUTS = 48, BEATS = 120 }; /* of 16 MiB, in half a second */
    double moved[NODES] = { 0 };
    uint64_t served = 0;

    model_init(&model);
    pass(&model, YOUNG_MS, true);
    *least = 100;
    *most = 0;
    for (unsigned beat = 0, window = 0, first = 0; beat < BEATS; beat++) {
        uint64_t wanted[NODES] = { readers / 2 };
        for (unsigned i = 0; i < PUTS; i++) {
            const unsigned at = placed(&model);
            wanted[at] += 16;
            first += at == 0;
        }
        if (++window == 8) { /* 4 s, 384 puts */
            const unsigned percent = first * 100 / (8 * PUTS);
            if (beat >= 20 && percent < *least) *least = percent;
            if (beat >= 20 && percent > *most) *most = percent;
            window = first = 0;
        }
        for (unsigned i = 0; i < NODES; i++) {
            const uint64_t done = wanted[i] < 512 ? wanted[i] : 512;
            served += done;
            moved[i] = 0.9 * moved[i] + 0.1 * 2 * (double)done; /* a second, smoothed */
            if (told) load_set(&model, i, (uint64_t)moved[i] * MIB);
        }
        pass(&model, 500, true);
    }
    store_master_destroy(model.master);
    return served;
}

static void more_is_served_and_nothing_swings(void **state)
{
    unsigned least, most;
    (void)state;

    const uint64_t before = minute(false, 1024, &least, &most);
    assert_in_range(least, 22, 40);
    const uint64_t after = minute(true, 1024, &least, &most);
    assert_true(after > before + before / 20);
    assert_true(most < 30 && most - least <= 14);
    (void)minute(true, 0, &least, &most); /* puts alone: all alike */
    assert_true(least >= 22 && most <= 45);
}

static void copies_go_to_who_is_not_busy(void **state)
{
    static struct model model;
    (void)state;

    for (unsigned busy = 1; busy < NODES; busy++) {
        model_init(&model);
        model.calm = true;
        pass(&model, YOUNG_MS, true);
        load_set(&model, busy, GIB);
        pass(&model, 500, true);
        put_wish(&model, 0, 4096, (struct store_wish){ .attributes = { .replicas = 2 } });
        turns(&model, 20);
        assert_true(model.nodes[NODES - busy].held[0].present); /* of 1 and 2 the other one */
        assert_false(model.nodes[busy].held[0].present);
        store_master_destroy(model.master);
    }
}

/* ---- quarantine ---- */

static void fail_at(struct model *model, unsigned times)
{
    for (unsigned i = 0; i < times; i++)
        put_fails(model, 5);
}

static bool is_barred(struct model *model)
{
    struct store_member_counts counts;
    assert_true(
        store_master_member_counts(model->master, model->now, model->nodes[EMPTY].id, &counts));
    return counts.barred;
}

static unsigned share_of_empty(struct model *model)
{
    unsigned share[NODES];
    shares(model, share);
    return share[EMPTY];
}

static void who_fails_on_is_barred_for_longer_each_time(void **state)
{
    static struct model model;
    uint32_t for_ms = 10000;
    (void)state;

    model_init(&model);
    pass(&model, YOUNG_MS, true);
    fail_at(&model, 5);
    assert_false(is_barred(&model));
    fail_at(&model, 1);
    for (int times = 0; times < 7; times++) {
        assert_true(is_barred(&model));
        assert_int_equal(share_of_empty(&model), 0);
        pass(&model, for_ms - 500, true);
        assert_true(is_barred(&model));
        pass(&model, 1000, true);
        assert_false(is_barred(&model));
        pass(&model, SLOW_MS, true);
        fail_at(&model, 1); /* the probe */
        for_ms = 2 * for_ms < 300000 ? 2 * for_ms : 300000;
    }
    pass(&model, for_ms + SLOW_MS, true);
    put_wish(&model, 9, 4096, (struct store_wish){ .preferred = "n2" });
    put_wish(&model, 6, 4096, (struct store_wish){ .preferred = "n0" });
    put_wish(&model, 7, 4096, (struct store_wish){ .preferred = "n1" });
    fail_at(&model, 5); /* all is forgiven */
    assert_false(is_barred(&model));
    pass(&model, SLOW_MS, true);
    assert_in_range(share_of_empty(&model), 20, 45);
    store_master_destroy(model.master);
}

/* A barred one serves whom it must: its own writer, and whom nobody else has room for. */
static void nobody_is_refused_for_a_quarantine(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    pass(&model, YOUNG_MS, true);
    fail_at(&model, 6);
    assert_true(is_barred(&model));
    put_wish(&model, 9, 4096, (struct store_wish){ .preferred = "n2" });
    assert_true(model.nodes[EMPTY].held[9].present);
    put_wish(&model, 0, REGION_SIZE - 4096,
             (struct store_wish){ .preferred = "n0", .attributes = { .hard_pin = true } });
    put_wish(&model, 1, REGION_SIZE - 4096,
             (struct store_wish){ .preferred = "n1", .attributes = { .hard_pin = true } });
    put_whole(&model, 2, 16 * 4096); /* neither room nor anything to evict at the others */
    assert_true(model.nodes[EMPTY].held[2].present);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* A writer that dies with tickets in its hands, or gives them back because nobody wants the layers
 * any more, says nothing of the node that they are of. */
static void tickets_that_are_given_up_bar_nobody(void **state)
{
    (void)state;
    for (int layers = 0; layers < 2; layers++) {
        static struct model model;
        const struct store_wish wish = { .preferred = "n2", .write_ms = layers ? UINT32_MAX : 0 };
        model_init(&model);
        pass(&model, YOUNG_MS, true);
        for (unsigned key = 0; key < 9; key++) {
            struct store_ticket ticket;
            char text[KEY_TEXT];
            const struct store_key at = key_of(key, text);
            assert_int_equal(
                store_master_put_start(model.master, model.now, 1, at, 4096, &wish, &ticket),
                STATUS_OK);
            if (layers)
                assert_int_equal(
                    store_master_put_revoke(model.master, model.now, 1, at, ticket.put_id),
                    STATUS_OK);
        }
        pass(&model, 1000, true);
        assert_false(is_barred(&model));
        fail_at(&model, 2);
        assert_false(is_barred(&model));
        fail_at(&model, 1); /* three of these and three of those */
        assert_true(is_barred(&model));
        store_master_destroy(model.master);
    }
}

/* Values of 4096 bytes at the first two nodes, in turn or all at the first, of which the master has
 * copies made at the third one; none of them comes to its end. */
static void copies_fail(struct model *model, bool in_turn)
{
    static const char *const names[] = { "n0", "n1" };
    struct store_action action;
    unsigned failed = 0;

    for (unsigned key = 0; key < 6; key++)
        put_wish(model, key, 4096,
                 (struct store_wish){ .preferred = names[in_turn ? key % 2 : 0],
                                      .attributes = { .replicas = 2 } });
    pass(model, 500, true);
    while (store_master_next_action(model->master, &action)) {
        if (action.kind != STORE_ACTION_COPY) continue;
        assert_int_equal(action.ticket.where.node.index, model->nodes[EMPTY].id.index);
        store_master_copied(model->master, model->now, &action.id, action.ticket.put_id,
                            STATUS_CONN_CLOSED);
        failed++;
    }
    assert_int_equal(failed, 6);
}

/* Whose copies all come to nothing may be the cause itself, wherever they go. */
static void copies_of_one_source_bar_nobody(void **state)
{
    (void)state;
    for (int in_turn = 0; in_turn < 2; in_turn++) {
        static struct model model;
        model_init(&model);
        pass(&model, YOUNG_MS, true);
        put_wish(&model, 10, REGION_SIZE / 2, (struct store_wish){ .preferred = "n0" });
        put_wish(&model, 11, REGION_SIZE / 2, (struct store_wish){ .preferred = "n1" });
        copies_fail(&model, in_turn);
        assert_int_equal(is_barred(&model), in_turn);
        store_master_destroy(model.master);
    }
}

static void faults_that_a_node_tells_of_bar_it(void **state)
{
    static struct model model;
    struct store_node_load load = { .faults = 1000 }; /* of before our time */
    (void)state;

    model_init(&model);
    pass(&model, 500, true); /* it has registered, and beats for the first time: */
    store_master_load(model.master, "n2", &load);
    pass(&model, 11000, true);
    assert_false(is_barred(&model));
    load.faults += 2;
    store_master_load(model.master, "n2", &load);
    pass(&model, 11000, true);
    assert_false(is_barred(&model));
    load.faults += 3;
    store_master_load(model.master, "n2", &load);
    pass(&model, 11000, true);
    assert_true(is_barred(&model));
    assert_int_equal(share_of_empty(&model), 0);
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_empty_one_gets_most),
        cmocka_unit_test(who_comes_back_starts_slowly),
        cmocka_unit_test(who_has_failed_again_and_again_is_spared),
        cmocka_unit_test(the_only_one_with_room_gets_it),
        cmocka_unit_test(who_is_busy_gets_less_and_then_its_share_again),
        cmocka_unit_test(small_loads_change_nothing),
        cmocka_unit_test(more_is_served_and_nothing_swings),
        cmocka_unit_test(copies_go_to_who_is_not_busy),
        cmocka_unit_test(who_fails_on_is_barred_for_longer_each_time),
        cmocka_unit_test(nobody_is_refused_for_a_quarantine),
        cmocka_unit_test(tickets_that_are_given_up_bar_nobody),
        cmocka_unit_test(copies_of_one_source_bar_nobody),
        cmocka_unit_test(faults_that_a_node_tells_of_bar_it),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
