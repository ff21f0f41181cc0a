/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/inline_test.c
 *
 * Goal:   a prefill beside a decode step breaks no limit, is short, and comes sooner.
 * Method: two conductors that are told the same, one of which may do it, on a random walk; and
 *         what holds an instance back, by hand. SEED repeats the walk. */
#include <math.h>
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
#include "yolk/conductor.h"

enum { BLOCK = 32, KEYS = 64, CHUNK = 256, NODES = 4, ROUNDS = 200, STEPS = 100, LIVE = 24 };

static const double LIMIT_MS = 500;
static struct block_key keys[KEYS];

static struct yolk_conductor *make(double inline_tbt_ms)
{
    struct yolk_conductor_options options = yolk_conductor_defaults();
    struct yolk_conductor *conductor = NULL;
    struct errmsg err = { "" };
    static const char *const names[NODES] = { "p0", "p1", "d0", "d1" };

    options.instances_max = NODES;
    options.tickets_max = LIVE;
    options.holdings_max = NODES * KEYS;
    options.block_tokens = BLOCK;
    options.block_size = 4096;
    options.chunk_tokens = CHUNK;
    options.inline_tbt_ms = inline_tbt_ms;
    if (yolk_conductor_create(&options, &conductor, &err) != STATUS_OK) fail_msg("%s", err.text);
    for (uint32_t i = 0; i < NODES; i++) {
        const unsigned role = i < 2 ? YOLK_ROLE_PREFILL : YOLK_ROLE_DECODE;
        const struct yolk_instance node = { names[i], names[i], role, 100000, 1000 };
        assert_int_equal(fixture_add(conductor, node).index, i);
    }
    return conductor;
}

static struct yolk_place_request prompt(uint32_t tokens)
{
    return fixture_request(tokens, 10, keys, tokens / BLOCK < KEYS ? tokens / BLOCK : KEYS);
}

static struct yolk_decision place(struct yolk_conductor *c, uint32_t tokens, double now_ms)
{
    const struct yolk_place_request request = prompt(tokens);
    struct yolk_decision decision;
    assert_int_equal(yolk_conductor_place(c, &request, now_ms, &decision), STATUS_OK);
    return decision;
}

static void check(const struct yolk_decision *with, const struct yolk_decision *without)
{
    if (!with->inlined) {
        assert_true(with->ttft_ms == without->ttft_ms);
        return;
    }
    assert_true(with->compute_ms <= LIMIT_MS); /* the step, stretched by it */
    assert_true(with->compute_ms > with->tbt_ms);
    assert_true(with->tokens - with->reuse_blocks * BLOCK <= CHUNK);
    assert_true(with->ttft_ms < without->ttft_ms);
    assert_int_equal(with->group_count, 1);
    assert_true(with->decode.index >= 2 && with->prefill.index < 2);
    assert_true(with->reuse_blocks == 0 || with->holder.index != YOLK_INSTANCE_NONE.index);
}

struct twins {
    struct yolk_conductor *with, *without;
    struct yolk_decision live[LIVE], other[LIVE];
    bool prefilled[LIVE];
    uint32_t count;
    double now;
};

static void store(struct twins *t, struct rng *rng)
{
    const struct yolk_instance_id id = { (uint32_t)rng_below(rng, 2) };
    const size_t count = 1 + rng_below(rng, KEYS);
    assert_int_equal(yolk_conductor_stored(t->with, id, keys, count, YOLK_TIER_DRAM), STATUS_OK);
    assert_int_equal(yolk_conductor_stored(t->without, id, keys, count, YOLK_TIER_DRAM), STATUS_OK);
}

static void prefilled(struct twins *t, uint32_t i)
{
    if (t->prefilled[i]) return;
    yolk_conductor_prefill_done(t->with, t->live[i].ticket, 0, t->now);
    yolk_conductor_prefill_done(t->without, t->other[i].ticket, 0, t->now);
    t->prefilled[i] = true;
}

static void finish(struct twins *t, uint32_t i)
{
    yolk_conductor_finish(t->with, t->live[i].ticket, STATUS_OK, t->now);
    yolk_conductor_finish(t->without, t->other[i].ticket, STATUS_OK, t->now);
    t->count--;
    t->live[i] = t->live[t->count];
    t->other[i] = t->other[t->count];
    t->prefilled[i] = t->prefilled[t->count];
}

/* Goes on until the two differ, which is when one of them has done it; false if they never do. */
static bool walk(struct twins *t, struct rng *rng)
{
    for (int step = 0; step < STEPS; step++) {
        const uint64_t dice = rng_below(rng, 100);
        const uint32_t i = t->count > 0 ? (uint32_t)rng_below(rng, t->count) : 0;
        t->now += 300 * rng_unit(rng);
        if (t->count == 0 || (dice < 40 && t->count < LIVE)) {
            const uint32_t tokens = 1 + (uint32_t)rng_below(rng, 2000);
            t->live[t->count] = place(t->with, tokens, t->now);
            t->other[t->count] = place(t->without, tokens, t->now);
            check(&t->live[t->count], &t->other[t->count]);
            if (t->live[t->count].inlined) return true;
            t->prefilled[t->count++] = false;
        } else if (dice < 70) {
            prefilled(t, i);
        } else if (dice < 90) {
            finish(t, i);
        } else {
            store(t, rng);
        }
    }
    return false;
}

static void it_is_short_within_the_limit_and_sooner(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 5;
    uint32_t inlined = 0;
    struct rng rng;

    printf("SEED=%llu\n", (unsigned long long)seed);
    rng_init(&rng, seed);
    for (int round = 0; round < ROUNDS; round++) {
        struct twins twins = { .with = make(LIMIT_MS), .without = make(0) };
        inlined += walk(&twins, &rng);
        yolk_conductor_destroy(twins.with);
        yolk_conductor_destroy(twins.without);
    }
    assert_true(inlined > ROUNDS / 2);
}

static void one_at_a_time_and_only_what_fits(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(LIMIT_MS), *tight = make(20), *off = make(0);
    struct yolk_decision without = place(off, 100, 0), none = place(tight, 100, 0);

    place(c, 3000, 0); /* both prefill nodes are busy */
    place(c, 3000, 0);
    place(off, 3000, 0);
    place(off, 3000, 0);
    place(tight, 3000, 0);
    without = place(off, 100, 0);
    none = place(tight, 100, 0);
    assert_false(without.inlined || none.inlined);
    const struct yolk_decision first = place(c, 100, 0), second = place(c, 100, 0);
    check(&first, &without);
    assert_true(first.inlined && second.inlined);
    assert_int_not_equal(first.decode.index, second.decode.index);
    const struct yolk_decision third = place(c, 100, 0); /* both have one */
    assert_false(third.inlined);
    yolk_conductor_finish(c, third.ticket, STATUS_OK, 1);
    yolk_conductor_finish(c, first.ticket, STATUS_OK, 1);
    assert_true(place(c, 100, 1).inlined);
    assert_false(place(c, CHUNK + 1, 1).inlined); /* more than a chunk */
    struct yolk_conductor_stats stats;
    yolk_conductor_stats(c, &stats);
    assert_int_equal(stats.inlined, 3);
    yolk_conductor_destroy(c);
    yolk_conductor_destroy(tight);
    yolk_conductor_destroy(off);
}

/* Instances of both roles compute all prompts where they decode them, and share the work: a prompt
 * goes to the one with less of it, also when it is only decoding. */
static void both_roles_compute_where_they_decode(void **state)
{
    (void)state;
    const unsigned both = YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE;
    struct yolk_conductor_options options = yolk_conductor_defaults();
    struct yolk_conductor *c = NULL;
    struct errmsg err = { "" };

    options.block_tokens = BLOCK;
    options.block_size = 4096;
    options.chunk_tokens = CHUNK;
    assert_int_equal(yolk_conductor_create(&options, &c, &err), STATUS_OK);
    fixture_add(c, (struct yolk_instance){ "b0", "b0", both, 100, 1000 });
    fixture_add(c, (struct yolk_instance){ "b1", "b1", both, 100000, 1000 });
    const struct yolk_decision first = place(c, 3000, 0), second = place(c, 3000, 0);
    assert_true(first.inlined && second.inlined);
    assert_int_equal(first.prefill.index, first.decode.index);
    assert_int_equal(second.prefill.index, second.decode.index);
    assert_int_not_equal(first.decode.index, second.decode.index);
    yolk_conductor_prefill_done(c, first.ticket, 0, 5000);
    yolk_conductor_prefill_done(c, second.ticket, 0, 5000);
    yolk_conductor_finish(c, second.ticket, STATUS_OK, 6000);
    const struct yolk_decision third = place(c, 64, 6000);
    assert_int_equal(third.decode.index, second.decode.index);
    yolk_conductor_destroy(c);
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    struct yolk_conductor_options options = yolk_conductor_defaults();
    struct yolk_conductor *c = NULL;
    struct errmsg err = { "" };

    options.block_tokens = BLOCK;
    options.block_size = 1;
    options.inline_tbt_ms = -1;
    assert_int_equal(yolk_conductor_create(&options, &c, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "inline_tbt_ms"));
    options.inline_tbt_ms = 1;
    options.inline_factor = NAN;
    assert_int_equal(yolk_conductor_create(&options, &c, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "inline_factor"));
}

int main(void)
{
    for (uint32_t i = 0; i < KEYS; i++)
        memcpy(keys[i].bytes, &i, sizeof(i));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_short_within_the_limit_and_sooner),
        cmocka_unit_test(one_at_a_time_and_only_what_fits),
        cmocka_unit_test(both_roles_compute_where_they_decode),
        cmocka_unit_test(bad_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
