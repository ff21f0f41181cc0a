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

/* Its tenant pays for what the copy will be, before it can be evicted: not for long. */
static void a_put_over_quota_waits_for_a_copy(void **state)
{
    static struct model model;
    struct store_action action;
    (void)state;

    model_init(&model);
    quota(&model, "a", 3 * 4096, 0);
    put_wish(&model, 10, 4096, (struct store_wish){ .attributes.replicas = 2 });
    do {
        assert_true(store_master_tick(model.master, model.now) > 0);
        assert_true(store_master_next_action(model.master, &action));
    } while (action.kind != STORE_ACTION_COPY);
    read_times(&model, 10, 1); /* nothing can be evicted */
    assert_int_equal(try_put(&model, 12, 2 * 4096), STATUS_AGAIN);
    assert_int_equal(tenant_of(&model, 1).refused_total, 0);
    assert_int_equal(try_put(&model, 12, 4 * 4096), STATUS_QUOTA); /* never */
    store_master_copied(model.master, model.now, &action.id, action.ticket.put_id,
                        STATUS_NOT_FOUND);
    assert_int_equal(try_put(&model, 12, 2 * 4096), STATUS_OK);
    store_master_check(model.master);
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

static struct store_master *master_of_term(const struct model *model, uint64_t term)
{
    struct store_master *master = NULL;
    const struct store_master_options options = { .term = term, .seed = seed };
    assert_int_equal(store_master_create(&options, model->now, &master), STATUS_OK);
    return master;
}

static void tell(const struct store_master *from, struct store_master *to)
{
    struct store_quota_note note;
    for (uint32_t cursor = 0; store_master_note(from, &cursor, &note);)
        store_master_note_take(to, &note);
}

static uint64_t quota_of(const struct store_master *master, const char *name)
{
    struct store_tenant_counts counts;
    for (uint32_t cursor = 0; store_master_tenant(master, &cursor, &counts);) {
        if (strcmp(counts.name, name) == 0) return counts.quota.bytes;
    }
    return 0;
}

static void set(struct store_master *master, const char *name, uint64_t bytes)
{
    const struct store_quota quota = { .bytes = bytes };
    const uint64_t before = store_master_notes_version(master);
    assert_int_equal(store_master_quota_set(master, name, &quota), STATUS_OK);
    assert_true(store_master_notes_version(master) > before);
}

/* What was set last holds, under whichever master, whoever is heard first. */
static void what_is_set_outlives_the_master(void **state)
{
    static struct model model;
    const struct store_quota option = { .bytes = 1 << 20 };
    (void)state;

    struct store_master *first = master_of_term(&model, 7);
    struct store_master *second = master_of_term(&model, 8);
    struct store_master *third = master_of_term(&model, 9);
    assert_int_equal(store_master_notes_version(first), 0);
    assert_int_equal(store_master_quota(first, "red", &option), STATUS_OK);
    assert_int_equal(store_master_notes_version(first), 0); /* the next one has options, too */
    set(first, "red", 4096);
    set(first, "default", 3 << 20);
    set(first, "blue", 8192);
    assert_int_equal(store_master_quota(first, "red", &option), STATUS_OK);
    assert_int_equal(quota_of(first, "red"), 4096);

    set(second, "blue", 0); /* before anybody has told it anything */
    tell(first, second);
    assert_int_equal(quota_of(second, "red"), 4096);
    assert_int_equal(quota_of(second, "default"), 3 << 20);
    assert_int_equal(quota_of(second, "blue"), 0);
    const uint64_t version = store_master_notes_version(second);
    tell(first, second);
    assert_int_equal(store_master_notes_version(second), version); /* no news */
    set(second, "red", 0);

    assert_int_equal(store_master_quota(third, "red", &option), STATUS_OK);
    tell(first, third); /* a node that was cut off meanwhile is the first */
    assert_int_equal(quota_of(third, "red"), 4096);
    tell(second, third);
    tell(first, third);
    assert_int_equal(quota_of(third, "red"), 0);
    assert_int_equal(quota_of(third, "blue"), 0);
    assert_int_equal(quota_of(third, "default"), 3 << 20);
    store_master_destroy(first);
    store_master_destroy(second);
    store_master_destroy(third);
}

/* A master that is told what those before it have said, in any order, by nodes that were cut off or
 * not, knows what was said last of each tenant. */
static void notes_come_together(void **state)
{
    enum { MASTERS = 4, NAMES = 6 };
    static struct model model;
    struct store_master *masters[MASTERS];
    uint64_t last[NAMES] = { 0 };
    struct rng rng;
    (void)state;

    rng_init(&rng, seed);
    for (int round = 0; round < 50; round++) {
        memset(last, 0, sizeof(last));
        for (unsigned i = 0; i < MASTERS; i++) {
            masters[i] = master_of_term(&model, 10 + i);
            for (unsigned n = 0; n < rng_below(&rng, 6); n++) { /* they reign one after another */
                const unsigned which = (unsigned)rng_below(&rng, NAMES);
                const char name[2] = { (char)('a' + which), 0 };
                last[which] = rng_below(&rng, 3) * 4096;
                set(masters[i], name, last[which]);
            }
            if (i > 0 && rng_below(&rng, 2) == 0) tell(masters[rng_below(&rng, i)], masters[i]);
        }
        for (unsigned i = 0; i < 10; i++) { /* what they said comes by way of each other, or not */
            const uint64_t to = rng_below(&rng, MASTERS);
            tell(masters[rng_below(&rng, to + 1)], masters[to]);
        }
        const uint64_t first = rng_below(&rng, MASTERS);
        for (unsigned i = 0; i < MASTERS; i++)
            tell(masters[(first + i) % MASTERS], masters[MASTERS - 1]);
        for (unsigned i = 0; i < NAMES; i++) {
            const char name[2] = { (char)('a' + i), 0 };
            assert_int_equal(quota_of(masters[MASTERS - 1], name), last[i]);
        }
        for (unsigned i = 0; i < MASTERS; i++)
            store_master_destroy(masters[i]);
    }
}

/* A node that says what nobody can have told it does no harm. */
static void notes_from_the_future_are_not_taken(void **state)
{
    static struct model model;
    const uint64_t stamps[] = { 0, UINT64_C(8) << 20, UINT64_MAX };
    (void)state;

    struct store_master *master = master_of_term(&model, 7);
    for (unsigned i = 0; i < 3; i++) {
        const struct store_quota_note note = { "red", { .bytes = 4096 }, stamps[i] };
        store_master_note_take(master, &note);
    }
    const struct store_quota_note unnamed = { "_red", { .bytes = 4096 }, 1 };
    store_master_note_take(master, &unnamed);
    assert_int_equal(store_master_notes_version(master), 0);
    set(master, "red", 8192);
    assert_int_equal(quota_of(master, "red"), 8192);
    store_master_destroy(master);
}

/* That a tenant has no quota is forgotten rather than that others have one. */
static void notes_of_no_quota_give_way(void **state)
{
    static struct model model;
    char name[16];
    (void)state;

    struct store_master *master = master_of_term(&model, 7);
    for (unsigned i = 0; i < 2 * STORE_TENANTS_MAX; i++) {
        snprintf(name, sizeof(name), "t%u", i);
        set(master, name, i % 2 == 0 ? 4096 : 0);
        if (i % 2 == 0 && i > 64) set(master, name, 0);
    }
    struct store_tenant_counts counts;
    unsigned shown = 0;
    for (uint32_t cursor = 0; store_master_tenant(master, &cursor, &counts);)
        shown++;
    assert_int_equal(shown, 1 + 33);
    set(master, "one-more", 4096);
    store_master_check(master);
    store_master_destroy(master);
}

static void who_has_values_keeps_a_quota_where_that_is_asked(void **state)
{
    static struct model model;
    const struct store_quota some = { .bytes = 1 << 20 }, none = { .bytes = 0 };
    (void)state;

    init_one_node(&model);
    assert_int_equal(store_master_quota_set(model.master, "a", &some), STATUS_OK);
    put_whole(&model, 10, 4096);
    assert_int_equal(store_master_quota_set(model.master, "a", &none), STATUS_OK);
    store_master_destroy(model.master);

    tenants_listed = true;
    init_one_node(&model);
    assert_int_equal(store_master_quota_set(model.master, "a", &some), STATUS_OK);
    assert_int_equal(store_master_quota_set(model.master, "b", &some), STATUS_OK);
    put_whole(&model, 10, 4096);
    assert_int_equal(store_master_quota_set(model.master, "a", &none), STATUS_BUSY);
    assert_int_equal(store_master_quota_set(model.master, "b", &none), STATUS_OK);
    tenants_listed = false;
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_over_quota_evicts_its_tenants_own),
        cmocka_unit_test(a_put_over_quota_waits_for_a_copy),
        cmocka_unit_test(what_cannot_go_leaves_a_definite_answer),
        cmocka_unit_test(under_pressure_the_greedy_give_first),
        cmocka_unit_test(a_lowered_quota_is_reached),
        cmocka_unit_test(accounts_outlive_the_master),
        cmocka_unit_test(only_listed_tenants_put_where_that_is_asked),
        cmocka_unit_test(tenants_are_limited),
        cmocka_unit_test(groups_are_a_tenants_own),
        cmocka_unit_test(what_is_set_outlives_the_master),
        cmocka_unit_test(notes_come_together),
        cmocka_unit_test(notes_from_the_future_are_not_taken),
        cmocka_unit_test(notes_of_no_quota_give_way),
        cmocka_unit_test(who_has_values_keeps_a_quota_where_that_is_asked),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
