/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/elastic_test.c
 *
 * Goal:   the Conductor flips an instance when its books say that it pays; who drains gets no work,
 *         lends its blocks, and changes when its last ticket has ended; a flip that nobody can
 *         afford any more is called off.
 * Method: a small cluster kept busy by hand, then a random walk of everything that may happen, with
 *         who may get work kept apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "conductor/conductor_fixture.h"
#include "conductor/keys.h"
#include "seed.h"
#include "yolk/conductor.h"

enum { BLOCK = 32, BLOCKS = 32, PROMPT = BLOCKS * BLOCK + 1, NODES = 6, PAGES = 4096 };

static const struct yolk_outside nobody = { 0, 0 };

static struct block_key keys[BLOCKS];

static struct yolk_conductor *make(void)
{
    struct yolk_conductor_options options = yolk_conductor_defaults();
    struct yolk_elastic_options elastic = yolk_elastic_defaults();
    struct yolk_conductor *conductor = NULL;
    struct errmsg err;

    options.instances_max = NODES;
    options.holdings_max = 4096;
    options.tickets_max = 512;
    options.block_tokens = BLOCK;
    options.block_size = 4096;
    assert_int_equal(yolk_conductor_create(&options, &conductor, &err), STATUS_OK);
    elastic.on = true;
    elastic.ttft_ms = 600000; /* so that queues weigh little beside decodes */
    elastic.window_ms = 10000;
    elastic.dwell_ms = 5000;
    elastic.drain_ms = 2000;
    assert_int_equal(yolk_conductor_set_elastic(conductor, &elastic, &err), STATUS_OK);
    return conductor;
}

static struct yolk_instance_id add(struct yolk_conductor *conductor, unsigned number,
                                   unsigned roles)
{
    char name[YOLK_NAME_SIZE];
    snprintf(name, sizeof(name), "n%u", number);
    return fixture_add(conductor, (struct yolk_instance){ name, name, roles, PAGES, 16 });
}

static struct yolk_place_request prompt(void)
{
    return fixture_request(PROMPT, 31, keys, BLOCKS);
}

static struct yolk_decision place(struct yolk_conductor *conductor, double now_ms)
{
    const struct yolk_place_request request = prompt();
    struct yolk_decision decision;
    assert_int_equal(yolk_conductor_place(conductor, &request, now_ms, &decision), STATUS_OK);
    return decision;
}

/* Three prefill nodes idle while the one decode node is full: within a minute one of them drains.
 * *now_ms is when. */
static struct yolk_flip busy_decode(struct yolk_conductor *conductor, struct yolk_ticket *tickets,
                                    uint32_t count, double *now_ms)
{
    struct yolk_flip flip = { 0 };

    for (uint32_t i = 0; i < count; i++) {
        tickets[i] = place(conductor, *now_ms).ticket;
        yolk_conductor_prefill_done(conductor, tickets[i], 0, *now_ms);
    }
    for (int i = 0; i < 60; i++) {
        *now_ms += 1000;
        if (yolk_conductor_elastic(conductor, &nobody, *now_ms, &flip)) return flip;
    }
    fail_msg("nothing flips");
    return flip;
}

static void who_drains_gets_no_work_and_then_changes(void **state)
{
    (void)state;
    struct yolk_conductor *conductor = make();
    struct yolk_ticket tickets[15];
    struct yolk_elastic_stats stats;
    double now_ms = 0;

    for (unsigned i = 0; i < 3; i++)
        add(conductor, i, YOLK_ROLE_PREFILL);
    const struct yolk_instance_id decode = add(conductor, 3, YOLK_ROLE_DECODE);
    const struct yolk_flip flip = busy_decode(conductor, tickets, 15, &now_ms);
    assert_int_equal(flip.from, YOLK_ROLE_PREFILL);
    assert_int_equal(flip.to, YOLK_ROLE_DECODE);
    assert_true(flip.decode_load > flip.prefill_load);
    assert_true(yolk_conductor_draining(conductor, flip.id));
    assert_true(yolk_conductor_drained(conductor, flip.id)); /* it had nothing to do */
    assert_int_equal(yolk_conductor_roles(conductor, flip.id), YOLK_ROLE_PREFILL);

    /* Only it has the blocks: they are fetched from it, and it computes nothing. */
    assert_int_equal(yolk_conductor_stored(conductor, flip.id, keys, BLOCKS, YOLK_TIER_DRAM),
                     STATUS_OK);
    const struct yolk_decision decision = place(conductor, now_ms);
    assert_int_not_equal(decision.prefill.index, flip.id.index);
    assert_int_equal(decision.decode.index, decode.index);
    assert_int_equal(decision.best_blocks, BLOCKS);
    yolk_conductor_finish(conductor, decision.ticket, STATUS_OK, now_ms);

    yolk_conductor_flip_end(conductor, flip.id, true, now_ms);
    assert_int_equal(yolk_conductor_roles(conductor, flip.id), YOLK_ROLE_DECODE);
    const struct yolk_decision next = place(conductor, now_ms);
    assert_int_equal(next.decode.index, flip.id.index);
    assert_int_not_equal(next.prefill.index, flip.id.index);
    yolk_conductor_elastic_stats(conductor, &stats);
    assert_int_equal(stats.begun, 1);
    assert_int_equal(stats.done, 1);
    assert_int_equal(stats.draining, 0);
    yolk_conductor_destroy(conductor);
}

static void its_work_is_finished_first(void **state)
{
    (void)state;
    struct yolk_conductor *conductor = make();
    struct yolk_ticket busy[15];
    double now_ms = 0;

    add(conductor, 0, YOLK_ROLE_PREFILL);
    add(conductor, 1, YOLK_ROLE_PREFILL);
    add(conductor, 2, YOLK_ROLE_DECODE);
    const struct yolk_decision first = place(conductor, now_ms);  /* one on each, so that the */
    const struct yolk_decision second = place(conductor, now_ms); /* one that flips has work */
    const struct yolk_flip flip = busy_decode(conductor, busy, 14, &now_ms);
    assert_false(yolk_conductor_drained(conductor, flip.id));
    yolk_conductor_prefill_done(conductor, first.ticket, 0, now_ms);
    yolk_conductor_prefill_done(conductor, second.ticket, 0, now_ms);
    assert_true(yolk_conductor_drained(conductor, flip.id));
    yolk_conductor_destroy(conductor);
}

static void a_flip_is_called_off_when_others_go(void **state)
{
    (void)state;
    struct yolk_conductor *conductor = make();
    struct yolk_ticket busy[15];
    struct yolk_elastic_stats stats;
    struct yolk_flip flip;
    double now_ms = 0;
    struct yolk_instance_id prefill[2];

    prefill[0] = add(conductor, 0, YOLK_ROLE_PREFILL);
    prefill[1] = add(conductor, 1, YOLK_ROLE_PREFILL);
    add(conductor, 2, YOLK_ROLE_DECODE);
    const struct yolk_flip first = busy_decode(conductor, busy, 15, &now_ms);
    const uint32_t stays = first.id.index == prefill[0].index ? 1 : 0;
    yolk_conductor_remove(conductor, prefill[stays]);
    assert_false(yolk_conductor_elastic(conductor, &nobody, now_ms, &flip));
    assert_false(yolk_conductor_draining(conductor, first.id));
    assert_int_equal(yolk_conductor_roles(conductor, first.id), YOLK_ROLE_PREFILL);
    yolk_conductor_elastic_stats(conductor, &stats);
    assert_int_equal(stats.cancelled, 1);
    yolk_conductor_destroy(conductor);
}

static void who_waits_for_prefill_decodes_elsewhere(void **state)
{
    (void)state;
    struct yolk_conductor *conductor = make();
    struct yolk_flip flip = { 0 };
    struct yolk_instance_id home;
    struct yolk_ticket tickets[40];
    bool flipped = false;

    add(conductor, 0, YOLK_ROLE_PREFILL);
    add(conductor, 1, YOLK_ROLE_DECODE);
    add(conductor, 2, YOLK_ROLE_DECODE);
    for (int i = 0; i < 30; i++) /* more than one decode instance takes */
        tickets[i] = place(conductor, 0).ticket;
    struct yolk_elastic_options options = yolk_elastic_defaults();
    options.on = true;
    options.ttft_ms = 100;
    assert_int_equal(yolk_conductor_set_elastic(conductor, &options, NULL), STATUS_OK);
    for (int i = 0; i < 60 && !flipped; i++)
        flipped = yolk_conductor_elastic(conductor, &nobody, i * 1000.0, &flip);
    assert_true(flipped && flip.to == YOLK_ROLE_PREFILL);
    assert_false(yolk_conductor_drained(conductor, flip.id));
    int moved = 0, full = 0;
    for (int i = 0; i < 30; i++) { /* those that were there already are moved for nothing */
        const enum status status = yolk_conductor_rehome(conductor, tickets[i], &home);
        if (status == STATUS_OK) assert_int_not_equal(home.index, flip.id.index);
        moved += status == STATUS_OK;
        full += status == STATUS_FULL;
    }
    assert_true(moved > 0 && full > 0); /* 15 were there, 16 is the most */
    assert_false(yolk_conductor_drained(conductor, flip.id));
    for (int i = 0; i < 30; i++)
        yolk_conductor_finish(conductor, tickets[i], STATUS_OK, 60000);
    assert_true(yolk_conductor_drained(conductor, flip.id));
    yolk_conductor_destroy(conductor);
}

static void whom_there_is_no_room_for_counts(void **state)
{
    (void)state;
    struct yolk_conductor *conductor = make();
    const struct yolk_outside outside = { 40, 40 * 1000 };
    struct yolk_flip flip;
    bool flipped = false;

    add(conductor, 0, YOLK_ROLE_PREFILL);
    add(conductor, 1, YOLK_ROLE_PREFILL);
    add(conductor, 2, YOLK_ROLE_DECODE);
    for (int i = 0; i < 60 && !flipped; i++)
        flipped = yolk_conductor_elastic(conductor, &outside, i * 1000.0, &flip);
    assert_true(flipped);
    assert_int_equal(flip.to, YOLK_ROLE_DECODE);
    yolk_conductor_destroy(conductor);
}

static void off_means_off(void **state)
{
    (void)state;
    struct yolk_conductor *conductor = make();
    struct yolk_elastic_options options = yolk_elastic_defaults();
    const struct yolk_outside outside = { 400, 400 * 1000 };
    struct yolk_flip flip;
    struct errmsg err;

    assert_false(options.on);
    assert_int_equal(yolk_conductor_set_elastic(conductor, &options, &err), STATUS_OK);
    add(conductor, 0, YOLK_ROLE_PREFILL);
    add(conductor, 1, YOLK_ROLE_PREFILL);
    add(conductor, 2, YOLK_ROLE_DECODE);
    for (int i = 0; i < 600; i++)
        assert_false(yolk_conductor_elastic(conductor, &outside, i * 1000.0, &flip));
    options.window_ms = 0;
    assert_int_equal(yolk_conductor_set_elastic(conductor, &options, &err), STATUS_INVALID);
    options = yolk_elastic_defaults();
    options.flips_max = YOLK_INSTANCES_MAX + 1;
    assert_int_equal(yolk_conductor_set_elastic(conductor, &options, &err), STATUS_INVALID);
    options = yolk_elastic_defaults();
    options.dwell_ms = -1;
    assert_int_equal(yolk_conductor_set_elastic(conductor, &options, &err), STATUS_INVALID);
    yolk_conductor_destroy(conductor);
}

/* ---- the walk ---- */

struct walk {
    struct yolk_conductor *conductor;
    struct rng rng;
    double now_ms;
    bool there[NODES], suspected[NODES];
    struct yolk_instance_id id[NODES];
    struct yolk_ticket tickets[256];
    bool decoding[256];
    uint32_t count, flips, placed;
};

static bool may_work(const struct walk *walk, uint32_t index)
{
    for (uint32_t i = 0; i < NODES; i++) {
        if (!walk->there[i] || walk->id[i].index != index) continue;
        return !walk->suspected[i] && !yolk_conductor_draining(walk->conductor, walk->id[i]);
    }
    return false;
}

static bool role_is_up(const struct walk *walk, unsigned role)
{
    for (uint32_t i = 0; i < NODES; i++) {
        if (!walk->there[i] || !may_work(walk, walk->id[i].index)) continue;
        if (yolk_conductor_roles(walk->conductor, walk->id[i]) & role) return true;
    }
    return false;
}

static void walk_place(struct walk *walk)
{
    const struct yolk_place_request request = prompt();
    struct yolk_decision decision;

    if (walk->count == 256) return;
    if (yolk_conductor_place(walk->conductor, &request, walk->now_ms, &decision) != STATUS_OK)
        return;
    assert_true(may_work(walk, decision.prefill.index) && may_work(walk, decision.decode.index));
    const unsigned prefill = yolk_conductor_roles(walk->conductor, decision.prefill);
    const unsigned decode = yolk_conductor_roles(walk->conductor, decision.decode);
    assert_true((prefill & YOLK_ROLE_PREFILL) || !role_is_up(walk, YOLK_ROLE_PREFILL));
    assert_true((decode & YOLK_ROLE_DECODE) || !role_is_up(walk, YOLK_ROLE_DECODE));
    walk->decoding[walk->count] = false;
    walk->tickets[walk->count++] = decision.ticket;
    walk->placed++;
}

/* `slow`: decodes take four times as long as they might. */
static void walk_progress(struct walk *walk, bool slow)
{
    if (walk->count == 0) return;
    const uint32_t i = (uint32_t)rng_below(&walk->rng, walk->count);
    if (!walk->decoding[i]) {
        yolk_conductor_prefill_done(walk->conductor, walk->tickets[i], 0, walk->now_ms);
        walk->decoding[i] = true;
        return;
    }
    if (slow && rng_below(&walk->rng, 4) != 0) return;
    yolk_conductor_finish(walk->conductor, walk->tickets[i], STATUS_OK, walk->now_ms);
    walk->tickets[i] = walk->tickets[--walk->count];
    walk->decoding[i] = walk->decoding[walk->count];
}

static void walk_node(struct walk *walk)
{
    const uint32_t i = (uint32_t)rng_below(&walk->rng, NODES);
    const unsigned roles = rng_below(&walk->rng, 2) ? YOLK_ROLE_PREFILL : YOLK_ROLE_DECODE;

    if (!walk->there[i]) {
        walk->id[i] = add(walk->conductor, i, roles);
        walk->there[i] = true;
        walk->suspected[i] = false;
    } else if (rng_below(&walk->rng, 4) == 0) {
        yolk_conductor_remove(walk->conductor, walk->id[i]);
        walk->there[i] = false;
    } else if (rng_below(&walk->rng, 8) == 0) {
        yolk_conductor_set_roles(walk->conductor, walk->id[i], roles, walk->now_ms);
    } else {
        walk->suspected[i] = !walk->suspected[i];
        yolk_conductor_suspect(walk->conductor, walk->id[i], walk->suspected[i]);
    }
}

static void walk_look(struct walk *walk)
{
    struct yolk_flip flip;

    walk->now_ms += 200;
    if (yolk_conductor_elastic(walk->conductor, &nobody, walk->now_ms, &flip)) {
        walk->flips++;
        assert_true(yolk_conductor_draining(walk->conductor, flip.id));
        assert_true(role_is_up(walk, flip.from)); /* never below one */
    }
    for (uint32_t i = 0; i < NODES; i++) {
        if (!walk->there[i] || !yolk_conductor_drained(walk->conductor, walk->id[i])) continue;
        yolk_conductor_flip_end(walk->conductor, walk->id[i], true, walk->now_ms);
    }
}

static void nobody_works_who_should_not(void **state)
{
    (void)state;
    struct walk *walk = calloc(1, sizeof(*walk));
    struct yolk_elastic_options options = yolk_elastic_defaults();
    struct yolk_elastic_stats stats;

    assert_non_null(walk);
    walk->conductor = make();
    options.on = true;
    options.window_ms = 2000;
    options.dwell_ms = 1000;
    assert_int_equal(yolk_conductor_set_elastic(walk->conductor, &options, NULL), STATUS_OK);
    rng_init(&walk->rng, test_seed());
    for (int step = 0; step < 120000; step++) {
        const uint64_t what = rng_below(&walk->rng, 1000);
        const bool rush = step / 5000 % 2;
        if (what < 2) {
            walk_node(walk);
        } else if (what < (rush ? 400 : 150)) {
            walk_place(walk);
        } else if (what < 450) {
            walk_progress(walk, rush);
        } else {
            walk_look(walk);
        }
    }
    yolk_conductor_elastic_stats(walk->conductor, &stats);
    assert_int_equal(stats.begun, walk->flips);
    assert_true(stats.done + stats.cancelled <= stats.begun);
    assert_true(walk->flips > 15 && walk->placed > 5000);
    yolk_conductor_destroy(walk->conductor);
    free(walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_drains_gets_no_work_and_then_changes),
        cmocka_unit_test(its_work_is_finished_first),
        cmocka_unit_test(a_flip_is_called_off_when_others_go),
        cmocka_unit_test(who_waits_for_prefill_decodes_elsewhere),
        cmocka_unit_test(whom_there_is_no_room_for_counts),
        cmocka_unit_test(off_means_off),
        cmocka_unit_test(nobody_works_who_should_not),
    };
    struct block_key root = { { 1 } };
    uint32_t tokens[BLOCK] = { 7 };
    for (uint32_t i = 0; i < BLOCKS; i++)
        keys[i] = conductor_key_next(i > 0 ? &keys[i - 1] : &root, NULL, tokens, BLOCK);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
