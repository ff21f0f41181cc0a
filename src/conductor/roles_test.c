/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/roles_test.c
 *
 * Goal:   a lasting imbalance moves instances until the pools fit the demand, and no further; a
 *         demand that swings does not make them swing; the guarantees of the header always hold.
 * Method: a cluster that is only counts and needs, looked at once a second, with demands by hand;
 *         then a random walk of demands, losses and drains, in which every proposal is checked
 *         against what a plain reading of the guarantees allows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/rng.h"
#include "conductor/roles.h"
#include "seed.h"

enum { MEMBERS = 8, LOOK_MS = 1000, WINDOW_MS = 60000, DWELL_MS = 120000, DRAIN_MS = 10000 };

struct plant {
    struct roles roles;
    struct roles_member members[MEMBERS];
    uint32_t count;
    double drained_ms[MEMBERS]; /* when a drain will be over */
    double now_ms;
    uint32_t flips[ROLES_POOLS]; /* to */
};

static void plant_init(struct plant *plant, uint32_t prefill, uint32_t decode, uint32_t flips_max)
{
    const struct roles_options options = { WINDOW_MS, DWELL_MS, flips_max };
    memset(plant, 0, sizeof(*plant));
    roles_init(&plant->roles, &options);
    for (uint32_t i = 0; i < prefill + decode; i++) {
        plant->members[plant->count++] = (struct roles_member){
            .instance = 100 + i,
            .pool = i < prefill ? ROLES_PREFILL : ROLES_DECODE,
            .since_ms = -INFINITY,
            .drain_ms = DRAIN_MS,
        };
    }
}

static uint32_t ready_in(const struct plant *plant, enum roles_pool pool)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < plant->count; i++)
        count += plant->members[i].pool == pool && !plant->members[i].draining;
    return count;
}

static uint32_t in_pool(const struct plant *plant, enum roles_pool pool)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < plant->count; i++)
        count += plant->members[i].pool == pool;
    return count;
}

static uint32_t draining(const struct plant *plant)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < plant->count; i++)
        count += plant->members[i].draining;
    return count;
}

static void end_drains(struct plant *plant)
{
    for (uint32_t i = 0; i < plant->count; i++) {
        struct roles_member *member = &plant->members[i];
        if (!member->draining || plant->drained_ms[i] > plant->now_ms) continue;
        member->draining = false;
        member->since_ms = plant->now_ms;
    }
}

/* Does what is proposed, after having checked that it may be. */
static void obey(struct plant *plant, const struct roles_proposal *proposal)
{
    for (uint32_t i = 0; i < plant->count; i++) {
        struct roles_member *member = &plant->members[i];
        if (member->instance != proposal->instance) continue;
        assert_false(member->draining);
        assert_int_not_equal(member->pool, proposal->to);
        assert_true(ready_in(plant, member->pool) >= 2); /* G1 */
        if (in_pool(plant, proposal->to) > 0) {
            assert_true(plant->now_ms - member->since_ms >= plant->roles.options.dwell_ms); /* G2 */
        }
        assert_true(draining(plant) < plant->roles.options.flips_max); /* G3 */
        member->pool = proposal->to;
        member->draining = true;
        plant->drained_ms[i] = plant->now_ms + member->drain_ms;
        plant->flips[proposal->to]++;
        return;
    }
    fail_msg("nobody is called %u", proposal->instance);
}

/* One second, in which so much prefill work arrives and so much decode work is there. */
static void second(struct plant *plant, double prefill_rate, double decode_need)
{
    struct roles_proposal proposal;

    roles_arrive(&plant->roles, prefill_rate * LOOK_MS, plant->now_ms);
    plant->now_ms += LOOK_MS;
    end_drains(plant);
    const struct roles_view view = { plant->members, plant->count, plant->now_ms, 0, decode_need };
    if (roles_look(&plant->roles, &view, &proposal)) obey(plant, &proposal);
}

static void seconds(struct plant *plant, int count, double prefill_rate, double decode_need)
{
    for (int i = 0; i < count; i++)
        second(plant, prefill_rate, decode_need);
}

static void a_lasting_imbalance_moves_instances(void **state)
{
    (void)state;
    struct plant plant;
    plant_init(&plant, 4, 4, 1);
    seconds(&plant, 1800, 2, 6);
    assert_int_equal(ready_in(&plant, ROLES_DECODE), 6);
    assert_int_equal(plant.flips[ROLES_DECODE], 2);
    assert_int_equal(plant.flips[ROLES_PREFILL], 0);
    seconds(&plant, 1800, 6, 2);
    assert_int_equal(ready_in(&plant, ROLES_PREFILL), 6);
    assert_int_equal(plant.flips[ROLES_PREFILL], 4);
    assert_int_equal(plant.flips[ROLES_DECODE], 2);
}

static void what_fits_stays(void **state)
{
    (void)state;
    struct plant plant;
    plant_init(&plant, 4, 4, 1);
    seconds(&plant, 1800, 4, 4);     /* full, and balanced */
    seconds(&plant, 1800, 4.3, 3.7); /* no flip would make it better */
    seconds(&plant, 1800, 0.2, 2.4); /* uneven, but nobody waits */
    assert_int_equal(plant.flips[ROLES_PREFILL] + plant.flips[ROLES_DECODE], 0);
}

static void the_last_of_a_pool_stays(void **state)
{
    (void)state;
    struct plant plant;
    plant_init(&plant, 4, 1, 4);
    seconds(&plant, 3600, 50, 0);
    assert_int_equal(ready_in(&plant, ROLES_DECODE), 1);
    seconds(&plant, 3600, 0, 50);
    assert_int_equal(ready_in(&plant, ROLES_PREFILL), 1);
    assert_int_equal(ready_in(&plant, ROLES_DECODE), 4);
}

/* Evidence for a second prefill instance, too little for a drain of an hour; then one decode
 * instance goes, and the other one would be free at once. */
static void evidence_of_before_does_not_take_the_last(void **state)
{
    (void)state;
    struct plant plant;
    plant_init(&plant, 1, 2, 1);
    for (uint32_t i = 0; i < plant.count; i++)
        plant.members[i].drain_ms = 3.6e6;
    for (int i = 0; i < 60; i++)
        second(&plant, 3, 0.1);
    assert_int_equal(plant.flips[ROLES_PREFILL], 0);
    plant.count = 2;
    plant.members[1].drain_ms = 0;
    second(&plant, 3, 0.1);
    assert_int_equal(plant.flips[ROLES_PREFILL], 0); /* G1, in obey() as well */
}

static void a_large_imbalance_is_answered_sooner(void **state)
{
    (void)state;
    double took[2];
    const double need[2] = { 5.5, 12 };
    for (int i = 0; i < 2; i++) {
        struct plant plant;
        plant_init(&plant, 4, 4, 1);
        while (plant.flips[ROLES_DECODE] == 0)
            second(&plant, 1, need[i]);
        took[i] = plant.now_ms;
    }
    assert_true(took[1] < took[0]);
    assert_true(took[1] >= DRAIN_MS); /* never sooner than it costs */
}

/* Periods from shorter than a drain to as long as the window: nothing flips in six hours. */
static void a_swing_does_not_thrash(void **state)
{
    (void)state;
    const int periods[] = { 4, 20, 60 };
    for (size_t i = 0; i < sizeof(periods) / sizeof(periods[0]); i++) {
        struct plant plant;
        plant_init(&plant, 4, 4, 1);
        for (int s = 0; s < 6 * 3600; s++) {
            const double swing = 2 * sin(2 * M_PI * s / periods[i]);
            second(&plant, 4 + swing, 4 - swing);
        }
        if (plant.flips[ROLES_PREFILL] + plant.flips[ROLES_DECODE] != 0)
            fail_msg("period %d s: %u and %u flips", periods[i], plant.flips[ROLES_PREFILL],
                     plant.flips[ROLES_DECODE]);
    }
}

/* A swing slow enough to follow is followed, once each way and period and instance. */
static void a_slow_swing_is_followed(void **state)
{
    (void)state;
    struct plant plant;
    plant_init(&plant, 4, 4, 1);
    for (int hour = 0; hour < 6; hour++)
        seconds(&plant, 3600, hour % 2 ? 6 : 2, hour % 2 ? 2 : 6);
    assert_int_equal(plant.flips[ROLES_DECODE], 2 + 4 * 2);
    assert_int_equal(plant.flips[ROLES_PREFILL], 4 * 3);
}

static void an_empty_pool_is_filled_at_once(void **state)
{
    (void)state;
    for (uint32_t prefill = 0; prefill <= 4; prefill += 4) {
        struct plant plant;
        plant_init(&plant, prefill, 4 - prefill, 1);
        for (uint32_t i = 0; i < plant.count; i++)
            plant.members[i].since_ms = 0;
        const enum roles_pool empty = prefill ? ROLES_DECODE : ROLES_PREFILL;
        plant.members[plant.count++] = (struct roles_member){ .instance = 99, .pool = empty };
        second(&plant, 0, 0);
        plant.count--;
        second(&plant, 1, 1);
        assert_int_equal(draining(&plant), 1);
        seconds(&plant, 60, 1, 1);
        assert_int_equal(ready_in(&plant, empty), 1);
        assert_int_equal(plant.flips[ROLES_PREFILL] + plant.flips[ROLES_DECODE], 1);
    }
    struct plant alone;
    plant_init(&alone, 1, 0, 1);
    seconds(&alone, 60, 1, 1);
    assert_int_equal(draining(&alone), 0);
}

static void a_pool_that_nobody_has_joined_yet_is_waited_for(void **state)
{
    (void)state;
    struct plant plant;
    plant_init(&plant, 3, 0, 1);
    seconds(&plant, DWELL_MS / LOOK_MS, 1, 1);
    assert_int_equal(draining(&plant), 0);
    second(&plant, 1, 1);
    assert_int_equal(draining(&plant), 1);
}

static void nobody_looking_is_no_evidence(void **state)
{
    (void)state;
    struct plant plant;
    struct roles_proposal proposal;
    plant_init(&plant, 4, 4, 1);
    second(&plant, 0, 12);
    plant.now_ms += 86400000;
    const struct roles_view view = { plant.members, plant.count, plant.now_ms, 0, 12 };
    assert_false(roles_look(&plant.roles, &view, &proposal));
}

static void guarantees_hold_on_random_walks(void **state)
{
    (void)state;
    struct rng rng;
    uint32_t flips = 0;
    rng_init(&rng, test_seed());
    for (int walk = 0; walk < 40; walk++) {
        struct plant plant;
        const uint32_t prefill = 1 + (uint32_t)rng_below(&rng, 4);
        plant_init(&plant, prefill, 1 + (uint32_t)rng_below(&rng, 4), 1 + walk % 3);
        plant.roles.options.dwell_ms = (double)rng_below(&rng, 60000);
        double rate = 0, need = 0;
        for (int s = 0; s < 3000; s++) {
            if (rng_below(&rng, 60) == 0) rate = 8 * rng_unit(&rng);
            if (rng_below(&rng, 60) == 0) need = 8 * rng_unit(&rng);
            for (uint32_t i = 0; i < plant.count; i++)
                plant.members[i].drain_ms = 20000 * rng_unit(&rng);
            if (plant.count > 2 && rng_below(&rng, 1000) == 0) plant.count--; /* it is lost */
            second(&plant, rate, need);
        }
        flips += plant.flips[ROLES_PREFILL] + plant.flips[ROLES_DECODE];
    }
    assert_true(flips > 100); /* otherwise nothing was tested */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lasting_imbalance_moves_instances),
        cmocka_unit_test(what_fits_stays),
        cmocka_unit_test(the_last_of_a_pool_stays),
        cmocka_unit_test(evidence_of_before_does_not_take_the_last),
        cmocka_unit_test(a_large_imbalance_is_answered_sooner),
        cmocka_unit_test(a_swing_does_not_thrash),
        cmocka_unit_test(a_slow_swing_is_followed),
        cmocka_unit_test(an_empty_pool_is_filled_at_once),
        cmocka_unit_test(a_pool_that_nobody_has_joined_yet_is_waited_for),
        cmocka_unit_test(nobody_looking_is_no_evidence),
        cmocka_unit_test(guarantees_hold_on_random_walks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
