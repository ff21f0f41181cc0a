/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_evict_test.c
 *
 * Goal:   who goes when memory is short is what policy, pins, groups and leases say, and no other.
 * Method: puts into nodes that are full, by hand, and which values are asked to go. */
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

/* A put of one byte more than there is: which keys are asked to go, as bits. */
static unsigned evicted(struct model *model, enum status expected)
{
    return evicted_for(model, 9, 1, expected);
}

static void the_least_recently_read_goes_first(void **state)
{
    static struct model model;
    (void)state;

    init_one_node(&model);
    put_keys(&model, 0, 4, REGION_SIZE / 4);
    read_times(&model, 0, 1);
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 1);
    store_master_destroy(model.master);
}

/* A node that lends enough keeps a little free: once it is full, every put finds room, as long as
 * its owner drops what it is asked to while a few more come. */
static void room_is_made_ahead(void **state)
{
    enum { LENT = 128 << 20, VALUE = 1 << 20, AHEAD = LENT / 64, PUTS = 500 };
    const struct model_node model_node = { .epoch = 9 };
    struct store_master *master = master_new(MS);
    const struct store_event extent = { .kind = STORE_EVENT_EXTENT,
                                        .generation = store_master_term(master),
                                        .address = REGION,
                                        .size = LENT };
    struct store_member_info info;
    struct store_master_counts counts;
    struct store_action action;
    struct store_ticket ticket;
    struct store_node_id node;
    uint64_t now = 1000 * MS;
    (void)state;

    info_of(&model_node, 0, &info);
    assert_int_equal(store_master_register(master, now, &info, 0, &node), STATUS_OK);
    store_master_reset(master, now, node);
    store_master_event(master, now, node, &extent);
    store_master_synced(master, now, node);
    for (unsigned i = 0; i < PUTS; i++, now += MS) {
        char text[KEY_TEXT];
        snprintf(text, sizeof(text), "ahead %u", i);
        const struct store_key key = { (const uint8_t *)text, (uint32_t)strlen(text) };
        assert_int_equal(store_master_put_start(master, now, 1, key, VALUE, NULL, &ticket),
                         STATUS_OK);
        const struct store_event stored = { .kind = STORE_EVENT_STORED,
                                            .class = STORE_CLASS_OBJECT,
                                            .id = store_key_id(key),
                                            .key = key.bytes,
                                            .key_len = key.len,
                                            .generation = i + 1,
                                            .address = ticket.where.address,
                                            .size = VALUE,
                                            .digest = i };
        assert_int_equal(
            store_master_put_end(master, now, info.name, info.epoch, ticket.put_id, &stored),
            STATUS_OK);
        while (store_master_next_action(master, &action)) {
            if (action.kind != STORE_ACTION_DROP) continue;
            const struct store_event removed = { .kind = STORE_EVENT_REMOVED,
                                                 .class = STORE_CLASS_OBJECT,
                                                 .id = action.id,
                                                 .generation = action.generation };
            store_master_event(master, now, node, &removed);
        }
        store_master_counts(master, &counts);
        const uint64_t all = (i + UINT64_C(1)) * VALUE;
        assert_int_equal(counts.space_used, all < LENT - AHEAD ? all : LENT - AHEAD);
    }
    assert_int_equal(counts.evictions_total, PUTS - (LENT - AHEAD) / VALUE);
    store_master_check(master);
    store_master_destroy(master);
}

/* Four values fill the node; which one goes is the policy's. */
static unsigned victim_of(enum order_policy policy)
{
    static struct model model;

    model_init_with(&model, policy);
    only_one_node(&model);
    put_wish(&model, 0, REGION_SIZE / 4, (struct store_wish){ .attributes = { .cost = 5 } });
    put_wish(&model, 1, REGION_SIZE / 4, (struct store_wish){ .attributes = { .cost = 900 } });
    put_wish(&model, 2, REGION_SIZE / 4,
             (struct store_wish){ .attributes = { .cost = 800, .depth = 7 } });
    put_wish(&model, 3, REGION_SIZE / 4, (struct store_wish){ .attributes = { .cost = 700 } });
    read_times(&model, 0, 3);
    read_times(&model, 1, 1);
    read_times(&model, 2, 1);
    read_times(&model, 3, 1);
    model.now += 60 * MS; /* the lease is over: the next read counts for LRU, too */
    read_times(&model, 0, 1);
    const unsigned keys = evicted(&model, STATUS_AGAIN);
    store_master_destroy(model.master);
    return keys;
}

static void the_policy_says_who_goes(void **state)
{
    (void)state;
    assert_int_equal(victim_of(ORDER_LRU), 1u << 1);    /* read longest ago */
    assert_int_equal(victim_of(ORDER_LFU), 1u << 1);    /* and as seldom as 2 and 3 */
    assert_int_equal(victim_of(ORDER_LENGTH), 1u << 2); /* of those the deepest */
    assert_int_equal(victim_of(ORDER_COST), 1u << 0);   /* read often, but soon computed */
}

static void pins_keep(void **state)
{
    static struct model model;
    struct store_object object;
    char text[KEY_TEXT];
    (void)state;

    init_one_node(&model);
    put_wish(&model, 0, REGION_SIZE / 4, (struct store_wish){ .attributes = { .hard_pin = true } });
    put_wish(&model, 1, REGION_SIZE / 4, (struct store_wish){ .soft_pin_ms = 1000 });
    put_wish(&model, 2, REGION_SIZE / 4, (struct store_wish){ .soft_pin_ms = 150 });
    put_whole(&model, 3, REGION_SIZE / 4);
    read_times(&model, 3, 1);
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 3); /* though it was read last */
    assert_int_equal(evicted(&model, STATUS_AGAIN), 0);       /* that is under way */
    read_times(&model, 2, 1);                                 /* prolongs no pin */
    assert_int_equal(store_master_remove(model.master, model.now, key_of(3, text), true),
                     STATUS_NOT_FOUND);
    tell_removed(&model, 0, 3);
    put_wish(&model, 3, REGION_SIZE / 4, (struct store_wish){ .attributes = { .hard_pin = true } });
    assert_true(store_master_tick(model.master, model.now) > 0);
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 2); /* the earliest deadline */
    tell_removed(&model, 0, 2);
    put_wish(&model, 2, REGION_SIZE / 4, (struct store_wish){ .attributes = { .hard_pin = true } });
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 1);
    tell_removed(&model, 0, 1);
    put_wish(&model, 1, REGION_SIZE / 4, (struct store_wish){ .attributes = { .hard_pin = true } });
    assert_int_equal(evicted(&model, STATUS_FULL), 0); /* nothing but hard pins */
    assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), false),
                     STATUS_OK); /* by name it goes */
    assert_int_equal(store_master_peek(model.master, model.now, key_of(0, text), &object),
                     STATUS_NOT_FOUND);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

static void a_group_stays_and_goes_together(void **state)
{
    static struct model model;
    struct store_wish wish = { .attributes = { .group = 77 } };
    char text[KEY_TEXT];
    (void)state;

    init_one_node(&model);
    put_wish(&model, 0, REGION_SIZE / 4, wish);
    put_whole(&model, 1, REGION_SIZE / 4);
    put_wish(&model, 2, REGION_SIZE / 4, wish);
    wish.attributes.hard_pin = true;
    put_wish(&model, 3, REGION_SIZE / 4, wish);
    read_times(&model, 2, 1); /* the others of the group are leased, too */
    assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), false),
                     STATUS_BUSY);
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 1);
    tell_removed(&model, 0, 1);
    put_wish(&model, 1, REGION_SIZE / 4, (struct store_wish){ .attributes = { .hard_pin = true } });
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 0 | 1u << 2); /* but for the pinned */
    store_master_destroy(model.master);
}

static void leases_keep_and_full_is_an_answer(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    char text[KEY_TEXT];
    (void)state;

    init_one_node(&model);
    put_whole(&model, 0, REGION_SIZE);
    assert_int_equal(store_master_exist(model.master, model.now, key_of(0, text)), STATUS_OK);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(1, text), 1, NULL, &ticket),
        STATUS_FULL);
    assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), false),
                     STATUS_BUSY);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(1, text),
                                            REGION_SIZE + 1, NULL, &ticket),
                     STATUS_INVALID);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(1, text), 0, NULL, &ticket),
        STATUS_INVALID);
    assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), true),
                     STATUS_OK);
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_recently_read_goes_first),
        cmocka_unit_test(room_is_made_ahead),
        cmocka_unit_test(the_policy_says_who_goes),
        cmocka_unit_test(pins_keep),
        cmocka_unit_test(a_group_stays_and_goes_together),
        cmocka_unit_test(leases_keep_and_full_is_an_answer),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
