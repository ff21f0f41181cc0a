/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_tenant_test.c
 *
 * Goal:   each tenant is charged for what it has, held to its quota, and pays for its own greed.
 * Method: by hand: quotas, and which tenant's values are asked to go. */
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

static void quota(struct model *model, const char *name, uint64_t bytes, uint64_t replicas)
{
    const struct store_quota quota = { bytes, replicas };
    assert_int_equal(store_master_quota(model->master, name, &quota), STATUS_OK);
}

/* Its own values go, not those of others, though theirs were used longer ago. */
static void a_put_over_quota_evicts_its_tenants_own(void **state)
{
    static struct model model;
    (void)state;

    init_one_node(&model);
    put_whole(&model, 0, 4096);
    put_whole(&model, 20, 4096);
    quota(&model, "a", 3 * 4096, 0);
    put_keys(&model, 10, 13, 4096);
    assert_int_equal(evicted_for(&model, 13, 4096, STATUS_AGAIN), 1u << 10);
    assert_int_equal(evicted_for(&model, 13, 2 * 4096, STATUS_AGAIN), 1u << 11);
    assert_int_equal(evicted_for(&model, 13, 4 * 4096, STATUS_QUOTA), 0); /* never */
    assert_int_equal(try_put(&model, 21, 20 * 4096), STATUS_OK); /* there is room for others */
    assert_int_equal(tenant_of(&model, 1).refused_total, 1);
    assert_int_equal(tenant_of(&model, 1).evicted.bytes, 2 * 4096);
    store_master_destroy(model.master);
}

static void what_cannot_go_leaves_a_definite_answer(void **state)
{
    static struct model model;
    (void)state;

    init_one_node(&model);
    quota(&model, "a", 0, 2);
    put_wish(&model, 10, 4096, (struct store_wish){ .attributes.hard_pin = true });
    put_whole(&model, 11, 4096);
    read_times(&model, 11, 1);
    assert_int_equal(try_put(&model, 12, 1), STATUS_QUOTA); /* pinned, leased */
    assert_int_equal(evicted_for(&model, 12, 1, STATUS_AGAIN), 1u << 11);
    quota(&model, "a", 0, 0);
    assert_int_equal(try_put(&model, 12, 1), STATUS_OK);
    store_master_destroy(model.master);
}

/* When memory is short, who is above its share gives first; one without is not touched. */
static void under_pressure_the_greedy_give_first(void **state)
{
    static struct model model;
    (void)state;

    init_one_node(&model);
    put_whole(&model, 0, REGION_SIZE / 8); /* used longest ago */
    put_keys(&model, 10, 15, REGION_SIZE / 8);
    put_keys(&model, 20, 22, REGION_SIZE / 8);
    assert_int_equal(evicted_for(&model, 22, 4096, STATUS_AGAIN), 1u << 10);
    quota(&model, "a", REGION_SIZE, 0); /* now it has a right to all of it */
    assert_int_equal(evicted_for(&model, 22, REGION_SIZE / 4, STATUS_AGAIN), 1u << 20);
    store_master_destroy(model.master);
}

static void a_lowered_quota_is_reached(void **state)
{
    static struct model model;
    (void)state;

    init_one_node(&model);
    put_keys(&model, 10, 14, 4096);
    quota(&model, "a", 2 * 4096, 0);
    model.calm = true;
    (void)store_master_tick(model.master, model.now);
    step_actions(&model);
    assert_false(model.nodes[0].held[10].present || model.nodes[0].held[11].present);
    assert_int_equal(tenant_of(&model, 1).used.bytes, 2 * 4096);
    store_master_destroy(model.master);
}

/* A new master learns from the owners whose everything is. */
static void accounts_outlive_the_master(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    for (unsigned key = 5; key < 25; key++)
        put_whole(&model, key, 1 + 700 * key);
    store_master_destroy(model.master);
    model.master = master_new(model.now);
    for (unsigned i = 0; i < NODES; i++) {
        node_register(&model, i);
        announce(&model, i);
    }
    accounts_are_what_is_held(&model);
    assert_int_equal(tenant_of(&model, 1).values, 10);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

static void only_listed_tenants_put_where_that_is_asked(void **state)
{
    static struct model model;
    const struct store_master_options options = { .term = 5, .tenants_listed = true };
    const struct store_quota one = { .bytes = 4096 };
    char text[KEY_TEXT];
    struct store_ticket ticket;
    (void)state;

    assert_int_equal(store_master_create(&options, 0, &model.master), STATUS_OK);
    model.now = 5000 * MS; /* settled */
    assert_int_equal(store_master_quota(model.master, "a", &one), STATUS_OK);
    assert_int_equal(store_master_quota(model.master, "a b", &one), STATUS_INVALID);
    assert_int_equal(store_master_quota(model.master, "_a", &one), STATUS_INVALID);
    assert_int_equal(try_put(&model, 20, 1), STATUS_DENIED);
    assert_int_equal(try_put(&model, 0, 1), STATUS_DENIED);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(10, text), 1, NULL, &ticket),
        STATUS_UNAVAILABLE); /* it may, but nobody lends */
    store_master_destroy(model.master);
}

/* As many as fit; one more is an answer, and one that has nothing left makes room. */
static void tenants_are_limited(void **state)
{
    struct store_master *master = master_new(1000 * MS);
    const struct store_quota some = { .bytes = 1 }, none = { 0 };
    char name[16];
    (void)state;

    for (unsigned i = 1; i < STORE_TENANTS_MAX; i++) {
        snprintf(name, sizeof(name), "t%u", i);
        assert_int_equal(store_master_quota(master, name, &some), STATUS_OK);
    }
    assert_int_equal(store_master_quota(master, "more", &some), STATUS_FULL);
    assert_int_equal(store_master_quota(master, "t7", &none), STATUS_OK);
    assert_int_equal(store_master_quota(master, "more", &some), STATUS_OK);
    store_master_check(master);
    store_master_destroy(master);
}

/* A group is one tenant's: the same number is another group of another's. */
static void groups_are_a_tenants_own(void **state)
{
    static struct model model;
    (void)state;

    init_one_node(&model);
    const struct store_wish grouped = { .attributes.group = 7 };
    for (unsigned key = 10; key < 12; key++)
        put_wish(&model, key, 4096, grouped);
    put_wish(&model, 20, 4096, grouped);
    quota(&model, "a", 2 * 4096, 0);
    assert_int_equal(evicted_for(&model, 12, 4096, STATUS_AGAIN), 1u << 10 | 1u << 11);
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_over_quota_evicts_its_tenants_own),
        cmocka_unit_test(what_cannot_go_leaves_a_definite_answer),
        cmocka_unit_test(under_pressure_the_greedy_give_first),
        cmocka_unit_test(a_lowered_quota_is_reached),
        cmocka_unit_test(accounts_outlive_the_master),
        cmocka_unit_test(only_listed_tenants_put_where_that_is_asked),
        cmocka_unit_test(tenants_are_limited),
        cmocka_unit_test(groups_are_a_tenants_own),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
