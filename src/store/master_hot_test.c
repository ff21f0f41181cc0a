/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_hot_test.c
 *
 * Goal:   a value that is read more than its owners should carry gets further replicas, up to the
 *         limit, on other hosts, out of idle memory and within its tenant's quota; it loses them
 *         when it cools, or first of all when room is needed; what somebody wished for stays; a new
 *         master lets go what it finds, and knows that there may be more.
 * Method: by hand, and a seeded walk of reads and wishes beside a count of reads that halves. */
#include "store/master.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "seed.h"
#include "store/master_fixture.h"

enum { HALF_MS = 10000, HOLD_MS = 10000, WALK_KEYS = 6, WALK_STEPS = 400, TICK_MS = 250 };

/* Time passes, and what the master asks for is done. */
static void later(struct model *model, uint64_t ms)
{
    char name[8];
    for (uint64_t end = model->now + ms * MS; model->now < end;) {
        model->now += TICK_MS * MS;
        for (unsigned i = 0; i < NODES; i++) {
            snprintf(name, sizeof(name), "n%u", i);
            const enum status status =
                store_master_beat(model->master, model->now, name, model->nodes[i].epoch);
            assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND);
        }
        assert_true(store_master_tick(model->master, model->now) > model->now);
        step_actions(model);
    }
    store_master_check(model->master);
}

static void get_times(struct model *model, unsigned key, unsigned times)
{
    struct store_object object;
    char text[KEY_TEXT];
    for (unsigned i = 0; i < times; i++) {
        assert_int_equal(store_master_get(model->master, model->now, key_of(key, text), &object),
                         STATUS_OK);
    }
}

static struct store_master_counts counts_of(const struct model *model)
{
    struct store_master_counts counts;
    store_master_counts(model->master, &counts);
    return counts;
}

static unsigned holders(const struct model *model, unsigned key)
{
    unsigned bits = 0;
    for (unsigned i = 0; i < NODES; i++)
        bits |= (model->nodes[i].held[key].present ? 1u : 0u) << i;
    return bits;
}

static void begin(struct model *model, uint32_t replicas, unsigned on_hosts)
{
    hot_replicas = replicas;
    hosts = on_hosts;
    model_init(model);
    model->calm = true;
}

static void what_is_hot_gets_replicas_and_loses_them(void **state)
{
    static struct model model;
    char text[KEY_TEXT];
    (void)state;

    begin(&model, 1, NODES);
    put_keys(&model, 0, 3, 4096);
    get_times(&model, 0, 14); /* 0.97 a second: not more than 1 */
    later(&model, 1000);
    assert_int_equal(replicas_of(&model, 0), 1);
    get_times(&model, 0, 100);
    later(&model, 1000);
    assert_int_equal(replicas_of(&model, 0), 2); /* two, though three would not be too many */
    assert_int_equal(replicas_of(&model, 1), 1);
    assert_int_equal(counts_of(&model).hot_values, 1);
    assert_int_equal(counts_of(&model).hot_replicas, 1);
    later(&model, 20000); /* half of 1 a second takes four half-lives */
    assert_int_equal(replicas_of(&model, 0), 2);
    later(&model, 30000);
    assert_int_equal(replicas_of(&model, 0), 1);
    assert_int_equal(counts_of(&model).hot_values, 0);
    get_times(&model, 1, 100);
    later(&model, 1000);
    assert_int_equal(store_master_remove(model.master, model.now, key_of(1, text), true),
                     STATUS_OK);
    later(&model, 1000);
    assert_int_equal(holders(&model, 1), 0);
    assert_int_equal(counts_of(&model).hot_values, 0);
    store_master_destroy(model.master);
}

static void off_is_off(void **state)
{
    static struct model model;
    (void)state;

    begin(&model, 0, NODES);
    put_whole(&model, 0, 4096);
    get_times(&model, 0, 1000);
    later(&model, 1000);
    assert_int_equal(replicas_of(&model, 0), 1);
    store_master_destroy(model.master);
}

/* What counts is bytes, too. */
static void a_large_value_is_hot_sooner(void **state)
{
    static struct model model;
    const struct store_event extent = { .kind = STORE_EVENT_EXTENT,
                                        .class = STORE_CLASS_OBJECT,
                                        .generation = 5,
                                        .address = 16 * REGION,
                                        .size = 64 << 20 };
    (void)state;

    begin(&model, 1, NODES);
    for (unsigned i = 0; i < NODES; i++)
        store_master_event(model.master, model.now, model.nodes[i].id, &extent);
    put_whole(&model, 0, 9 << 20);
    get_times(&model, 0, 1); /* as much as ten */
    assert_int_equal(counts_of(&model).hot_values, 0);
    get_times(&model, 0, 1);
    assert_int_equal(counts_of(&model).hot_values, 1);
    store_master_destroy(model.master);
}

static void the_wish_is_not_undercut(void **state)
{
    static struct model model;
    char text[KEY_TEXT];
    (void)state;

    begin(&model, 2, NODES);
    put_wish(&model, 0, 4096, (struct store_wish){ .attributes = { .replicas = 2 } });
    put_whole(&model, 1, 4096);
    later(&model, 1000);
    get_times(&model, 0, 200);
    get_times(&model, 1, 200);
    later(&model, 1000);
    assert_int_equal(replicas_of(&model, 0), 3);
    assert_int_equal(replicas_of(&model, 1), 3);
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(1, text), 2), STATUS_OK);
    for (unsigned i = 0; i < NODES; i++) /* heat is nobody's wish */
        assert_true(model.nodes[i].held[0].attributes.replicas == 2);
    later(&model, 80000);
    assert_int_equal(replicas_of(&model, 0), 2);
    assert_int_equal(replicas_of(&model, 1), 2);
    store_master_destroy(model.master);
}

/* Two of the nodes are on one host. */
static void one_host_is_enough_only_if_there_is_no_other(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    const struct store_wish at_n1 = { .preferred = "n1" };
    char text[KEY_TEXT];
    (void)state;

    begin(&model, 1, 2);
    put_whole(&model, 0, 4096);
    get_times(&model, 0, 200);
    later(&model, 1000);
    assert_int_equal(holders(&model, 0), 1 << 0 | 1 << 1);

    put_whole(&model, 1, 4096);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(9, text), 37 * 4096,
                                            &at_n1, &ticket),
                     STATUS_OK);
    get_times(&model, 1, 200);
    later(&model, 100);
    assert_int_equal(holders(&model, 1), 1 << 0); /* the other host has no idle memory: wait */
    assert_int_equal(
        store_master_put_revoke(model.master, model.now, 1, key_of(9, text), ticket.put_id),
        STATUS_OK);
    later(&model, 1000);
    assert_int_equal(holders(&model, 1), 1 << 0 | 1 << 1);

    /* With all three it is one of the same host that goes. */
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(1, text), 2), STATUS_OK);
    get_times(&model, 1, 200);
    later(&model, 1000);
    assert_int_equal(holders(&model, 1), 7);
    later(&model, 80000);
    assert_true((holders(&model, 1) & 1 << 1) != 0 && replicas_of(&model, 1) == 2);
    store_master_destroy(model.master);
}

static void where_room_is_needed_it_is_the_first_to_go(void **state)
{
    static struct model model;
    (void)state;

    begin(&model, 1, NODES);
    only_one_node(&model);
    node_start(&model, 1);
    put_keys(&model, 0, 20, 2 * 4096); /* n0 is full */
    get_times(&model, 0, 100);
    later(&model, 1000);
    assert_int_equal(holders(&model, 0), 3);
    put_whole(&model, 20, 37 * 4096); /* n1 nearly */
    get_times(&model, 0, 1);
    assert_int_equal(try_put(&model, 21, 2 * 4096), STATUS_AGAIN);
    later(&model, 500);
    assert_int_equal(replicas_of(&model, 0), 1); /* read last of all, and yet it went */
    for (unsigned key = 1; key < 21; key++)
        assert_int_equal(replicas_of(&model, key), 1);
    assert_int_equal(counts_of(&model).evictions_total, 0);
    assert_int_equal(counts_of(&model).hot_taken_total, 1);
    get_times(&model, 0, 100);
    later(&model, 5000);
    assert_int_equal(replicas_of(&model, 0), 1); /* not to and fro */
    assert_int_equal(try_put(&model, 21, 2 * 4096), STATUS_OK);
    store_master_destroy(model.master);
}

static void the_tenant_pays(void **state)
{
    static struct model model;
    const struct store_quota quota = { .replicas = 3 };
    (void)state;

    begin(&model, 2, NODES);
    assert_int_equal(store_master_quota(model.master, "a", &quota), STATUS_OK);
    put_keys(&model, 10, 12, 4096);
    get_times(&model, 10, 100);
    later(&model, 1000);
    assert_int_equal(replicas_of(&model, 10), 2); /* a third is not within the quota */
    assert_int_equal(tenant_of(&model, 1).used.replicas, 3);
    assert_int_equal(try_put(&model, 12, 4096), STATUS_AGAIN);
    later(&model, 500);
    assert_int_equal(replicas_of(&model, 10), 1);
    put_whole(&model, 12, 4096);
    assert_int_equal(replicas_of(&model, 11), 1);
    assert_int_equal(tenant_of(&model, 1).refused_total, 0);
    store_master_destroy(model.master);
}

/* The master is killed: what it had added is known by nobody. */
static void master_replace(struct model *model, unsigned nodes)
{
    store_master_destroy(model->master);
    model->master = master_new(model->now);
    for (unsigned i = 0; i < nodes; i++) {
        node_register(model, i);
        announce(model, i);
    }
    model->now += SETTLE_MS * MS;
}

static void a_new_master_lets_go_what_it_finds(void **state)
{
    static struct model model;
    (void)state;

    begin(&model, 1, NODES);
    put_keys(&model, 0, 2, 4096);
    get_times(&model, 0, 100);
    get_times(&model, 1, 100);
    later(&model, 1000);
    master_replace(&model, NODES);
    later(&model, 2000);
    assert_int_equal(replicas_of(&model, 0), 2);
    assert_int_equal(counts_of(&model).hot_values, 2);
    get_times(&model, 1, 100); /* this one still is */
    later(&model, 18000);
    assert_int_equal(replicas_of(&model, 0), 1);
    assert_int_equal(replicas_of(&model, 1), 2);
    store_master_destroy(model.master);
}

/* It has heard one of them only: a value that replaces it is not acknowledged before the other
 * cannot bring the old one back. */
static void a_new_master_knows_that_there_may_be_more(void **state)
{
    static struct model model;
    const struct store_wish replace = { .preferred = "n0", .replace = true };
    struct store_ticket ticket;
    char text[KEY_TEXT];
    (void)state;

    for (int hot = 0; hot < 2; hot++) {
        begin(&model, 1, NODES);
        put_whole(&model, 0, 4096);
        if (hot) get_times(&model, 0, 100);
        later(&model, 1000);
        assert_int_equal(replicas_of(&model, 0), 1 + hot);
        master_replace(&model, 1);
        model.now += 100 * MS;
        assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(0, text), 4096,
                                                &replace, &ticket),
                         STATUS_OK);
        model.nodes[0].held[0] = (struct held){ true,
                                                ticket.where.address,
                                                4096,
                                                ++model.nodes[0].generation,
                                                { .version = ticket.version } };
        const struct store_event stored = event_of(&model.nodes[0], 0, text, STORE_EVENT_STORED);
        assert_int_equal(store_master_put_end(model.master, model.now, "n0", model.nodes[0].epoch,
                                              ticket.put_id, &stored),
                         hot ? STATUS_AGAIN : STATUS_OK);
        store_master_destroy(model.master);
    }
}

/* ---- the walk ---- */

struct walked {
    double reads; /* that halve */
    uint32_t wished;
    double calm_ms; /* since when one replica would do, and half of it */
};

/* Nothing is hot enough for more than it has, for long; and nothing has more than it is worth. */
static void walked_check(struct model *model, const struct walked *walked, unsigned key)
{
    const double rate = walked->reads * log(2) / (HALF_MS / 1e3);
    const uint32_t have = replicas_of(model, key);
    const uint32_t most = walked->wished + 2 < NODES ? walked->wished + 2 : NODES;

    assert_in_range(have, walked->wished, most);
    for (uint32_t n = walked->wished; n < most; n++) {
        if (rate > n + 0.001) assert_true(have > n);
    }
    const bool calm = walked->calm_ms > 2 * (HOLD_MS + 2000) && rate < walked->wished;
    if (calm) assert_int_equal(have, walked->wished);
}

static void walk_is_as_hot_as_it_is_read(void **state)
{
    static struct model model;
    struct walked walked[WALK_KEYS];
    unsigned more = 0, calm = 0;
    char text[KEY_TEXT];
    (void)state;

    begin(&model, 2, NODES);
    put_keys(&model, 0, WALK_KEYS, 4096);
    for (unsigned key = 0; key < WALK_KEYS; key++)
        walked[key] = (struct walked){ .wished = 1 };
    for (int step = 0; step < WALK_STEPS; step++) {
        const unsigned key = (unsigned)rng_below(&model.rng, WALK_KEYS);
        const unsigned times = (unsigned)rng_below(&model.rng, 60);
        if (rng_below(&model.rng, 8) == 0) {
            walked[key].wished = 1 + (uint32_t)rng_below(&model.rng, NODES);
            assert_int_equal(store_master_replicas(model.master, model.now, key_of(key, text),
                                                   walked[key].wished),
                             STATUS_OK);
        }
        get_times(&model, key, times);
        walked[key].reads += times;
        /* Heat is looked at when there is a read. */
        for (unsigned k = 0; k < WALK_KEYS; k++) {
            get_times(&model, k, 1);
            walked[k].reads += 1;
        }
        later(&model, 1000); /* what goes and what comes, one after the other */
        for (unsigned k = 0; k < WALK_KEYS; k++)
            walked_check(&model, &walked[k], k);
        const uint64_t ms = rng_below(&model.rng, 4) == 0 ? rng_below(&model.rng, 40) * 1000 : 1000;
        later(&model, ms);
        const uint64_t passed = 1000 + (ms + TICK_MS - 1) / TICK_MS * TICK_MS;
        for (unsigned k = 0; k < WALK_KEYS; k++) {
            const double rate = walked[k].reads * log(2) / (HALF_MS / 1e3);
            walked[k].calm_ms =
                2 * rate < walked[k].wished - 0.2 ? walked[k].calm_ms + (double)ms : 0;
            walked[k].reads *= exp2(-(double)passed / HALF_MS);
            more += replicas_of(&model, k) > walked[k].wished;
            calm += walked[k].calm_ms > 2 * (HOLD_MS + 2000);
        }
    }
    assert_true(more > 100 && calm > 50); /* it went everywhere */
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_hot_gets_replicas_and_loses_them),
        cmocka_unit_test(off_is_off),
        cmocka_unit_test(a_large_value_is_hot_sooner),
        cmocka_unit_test(the_wish_is_not_undercut),
        cmocka_unit_test(one_host_is_enough_only_if_there_is_no_other),
        cmocka_unit_test(where_room_is_needed_it_is_the_first_to_go),
        cmocka_unit_test(the_tenant_pays),
        cmocka_unit_test(a_new_master_lets_go_what_it_finds),
        cmocka_unit_test(a_new_master_knows_that_there_may_be_more),
        cmocka_unit_test(walk_is_as_hot_as_it_is_read),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
