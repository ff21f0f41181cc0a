/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/replicate_test.c
 *
 * Goal:   a hot prefix whose holders are congested is offered for copying, once, to somebody who
 *         has time for it; a copy is offered for removal when it is cold, once.
 * Method: a small cluster by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/rng.h"
#include "conductor/conductor_fixture.h"
#include "conductor/keys.h"
#include "seed.h"
#include "yolk/conductor.h"

enum { BLOCK = 32, BLOCKS = 20, PROMPT = BLOCKS * BLOCK + 1 };

static struct block_key key_number(uint64_t number)
{
    struct block_key key;
    const uint64_t halves[2] = { rng_counter(3, number), rng_counter(4, number) };
    memcpy(key.bytes, halves, sizeof(halves));
    return key;
}

struct bench {
    struct yolk_conductor *conductor;
    struct yolk_instance_id prefill[3];
    struct block_key keys[BLOCKS];
    double now_ms;
};

static struct yolk_instance_id add(struct yolk_conductor *conductor, const char *name,
                                   unsigned roles)
{
    return fixture_add(conductor, (struct yolk_instance){ name, name, roles, 1 << 20, 4096 });
}

/* The first of three prefill instances holds the whole prompt. Fetching is out of the question. */
static void bench_make(struct bench *bench)
{
    struct yolk_conductor_options options = yolk_conductor_defaults();
    const struct yolk_replication_options replication = yolk_replication_defaults();

    *bench = (struct bench){ .now_ms = 0 };
    options.instances_max = 8;
    options.holdings_max = 4096;
    options.block_tokens = BLOCK;
    options.block_size = 1 << 20;
    options.placement = YOLK_PLACEMENT_LOCAL;
    assert_int_equal(yolk_conductor_create(&options, &bench->conductor, NULL), STATUS_OK);
    assert_int_equal(yolk_conductor_set_replication(bench->conductor, &replication, NULL),
                     STATUS_OK);
    for (unsigned i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof(name), "p%u", i);
        bench->prefill[i] = add(bench->conductor, name, YOLK_ROLE_PREFILL);
    }
    add(bench->conductor, "d", YOLK_ROLE_DECODE);
    for (uint32_t i = 0; i < BLOCKS; i++)
        bench->keys[i] = key_number(i);
    assert_int_equal(yolk_conductor_stored(bench->conductor, bench->prefill[0], bench->keys, BLOCKS,
                                           YOLK_TIER_DRAM),
                     STATUS_OK);
}

/* True if the placement left a proposal. */
static bool ask(struct bench *bench, bool same_prompt, struct yolk_copy *copy)
{
    const struct yolk_place_request request =
        fixture_request(PROMPT, 8, bench->keys, same_prompt ? BLOCKS : 0);
    struct yolk_decision decision;
    assert_int_equal(yolk_conductor_place(bench->conductor, &request, bench->now_ms, &decision),
                     STATUS_OK);
    return yolk_conductor_copy(bench->conductor, bench->now_ms, copy);
}

/* Until there is a proposal; at most so many requests. */
static bool ask_often(struct bench *bench, int most, struct yolk_copy *copy)
{
    for (int i = 0; i < most; i++) {
        if (ask(bench, true, copy)) return true;
    }
    return false;
}

static void congestion_makes_copies_and_cold_removes_them(void **state)
{
    (void)state;
    struct yolk_replication_stats stats;
    struct yolk_copy copy, again, cold;
    struct bench bench;

    bench_make(&bench);
    assert_true(ask_often(&bench, 500, &copy));
    assert_int_equal(copy.from.index, bench.prefill[0].index);
    assert_int_not_equal(copy.to.index, bench.prefill[0].index);
    assert_int_equal(copy.blocks, 16); /* the longest power of two that is there */
    assert_false(yolk_conductor_copy(bench.conductor, bench.now_ms, &again)); /* once */

    /* It arrives: the other one is next, and nobody gets it twice. */
    assert_int_equal(
        yolk_conductor_stored(bench.conductor, copy.to, bench.keys, copy.blocks, YOLK_TIER_DRAM),
        STATUS_OK);
    while (ask_often(&bench, 500, &again)) {
        assert_int_not_equal(again.to.index, copy.to.index);
        assert_int_not_equal(again.to.index, bench.prefill[0].index);
        assert_int_not_equal(again.slot, copy.slot);
    }
    yolk_conductor_replication_stats(bench.conductor, &stats);
    const uint64_t copies = stats.copies;
    assert_true(copies >= 1 && copies <= 2);
    assert_int_equal(stats.held, copies);

    assert_false(yolk_conductor_cold(bench.conductor, bench.now_ms, &cold));
    bench.now_ms += 30 * 60000;
    for (uint64_t i = 0; i < copies; i++) {
        assert_true(yolk_conductor_cold(bench.conductor, bench.now_ms, &cold));
        assert_true(cold.slot != copy.slot || cold.to.index == copy.to.index);
    }
    assert_false(yolk_conductor_cold(bench.conductor, bench.now_ms, &cold));
    yolk_conductor_replication_stats(bench.conductor, &stats);
    assert_int_equal(stats.removals, copies);
    assert_int_equal(stats.held, 0);
    yolk_conductor_destroy(bench.conductor);
}

/* Seldom asked for, or asked for without anybody waiting: nothing is copied. */
static void what_is_not_hot_or_not_congested_stays(void **state)
{
    (void)state;
    struct yolk_copy copy;
    struct bench bench;

    bench_make(&bench);
    for (int i = 0; i < 200; i++)
        assert_false(ask(&bench, false, &copy)); /* queues, and no heat */
    assert_false(ask(&bench, true, &copy));
    yolk_conductor_destroy(bench.conductor);

    bench_make(&bench);
    assert_int_equal(yolk_conductor_stored(bench.conductor, bench.prefill[1], bench.keys, BLOCKS,
                                           YOLK_TIER_DRAM),
                     STATUS_OK);
    assert_int_equal(yolk_conductor_stored(bench.conductor, bench.prefill[2], bench.keys, BLOCKS,
                                           YOLK_TIER_DRAM),
                     STATUS_OK);
    assert_false(ask_often(&bench, 200, &copy)); /* everybody has it */
    yolk_conductor_destroy(bench.conductor);
}

/* What a copy may lose is what somebody else has, who can be asked for it. */
static void held_elsewhere_is_what_others_have(void **state)
{
    (void)state;
    struct bench bench;

    bench_make(&bench);
    assert_int_equal(
        yolk_conductor_stored(bench.conductor, bench.prefill[1], bench.keys, 7, YOLK_TIER_SSD),
        STATUS_OK);
    const struct {
        int who;
        uint32_t asked, held;
    } cases[] = { { 0, BLOCKS, 7 }, { 1, BLOCKS, BLOCKS }, { 2, 5, 5 }, { 0, 5, 5 }, { 0, 0, 0 } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(yolk_conductor_held_elsewhere(bench.conductor, bench.prefill[cases[i].who],
                                                       bench.keys, cases[i].asked),
                         cases[i].held);
    }
    yolk_conductor_suspect(bench.conductor, bench.prefill[0], true);
    assert_int_equal(
        yolk_conductor_held_elsewhere(bench.conductor, bench.prefill[1], bench.keys, BLOCKS), 0);
    yolk_conductor_destroy(bench.conductor);
}

static void copies_go_with_their_instance(void **state)
{
    (void)state;
    struct yolk_replication_stats stats;
    struct yolk_replication_options bad = yolk_replication_defaults();
    struct yolk_copy copy, cold;
    struct errmsg err;
    struct bench bench;

    bench_make(&bench);
    assert_true(ask_often(&bench, 500, &copy));
    yolk_conductor_remove(bench.conductor, copy.to);
    yolk_conductor_replication_stats(bench.conductor, &stats);
    assert_int_equal(stats.held, 0);
    bench.now_ms += 30 * 60000;
    assert_false(yolk_conductor_cold(bench.conductor, bench.now_ms, &cold));
    bad.cold = bad.hot;
    assert_int_equal(yolk_conductor_set_replication(bench.conductor, &bad, &err), STATUS_INVALID);
    yolk_conductor_destroy(bench.conductor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(congestion_makes_copies_and_cold_removes_them),
        cmocka_unit_test(what_is_not_hot_or_not_congested_stays),
        cmocka_unit_test(held_elsewhere_is_what_others_have),
        cmocka_unit_test(copies_go_with_their_instance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
