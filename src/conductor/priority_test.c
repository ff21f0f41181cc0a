/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/priority_test.c
 *
 * Goal:   of two equal requests at one instant, the one of higher priority is never refused while
 *         the other is accepted; it goes first in the queue; and each request is judged by its own
 *         limits, and by those of whom it would slow down.
 * Method: one walk of a cluster under overload is made twice, with one seed, up to a random step;
 *         then one copy is asked with the lower priority and the other with the higher. The rest by
 *         hand. SEED repeats the walks. */
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
#include "seed.h"
#include "yolk/conductor.h"

enum { TICKETS = 64, PROBES = 400, STEPS_MAX = 120 };

static struct yolk_conductor *make(enum yolk_policy policy, double ttft_ms, double tbt_ms)
{
    struct yolk_conductor_options options = yolk_conductor_defaults();
    const struct yolk_admission_options limits = { policy, ttft_ms, tbt_ms, 0, false };
    struct yolk_conductor *c = NULL;

    options.instances_max = 4;
    options.holdings_max = 1024;
    options.tickets_max = TICKETS;
    options.decisions_max = 128;
    options.block_tokens = 32;
    options.block_size = 737280;
    assert_int_equal(yolk_conductor_create(&options, &c, NULL), STATUS_OK);
    assert_int_equal(yolk_conductor_set_admission(c, &limits, NULL), STATUS_OK);
    return c;
}

static struct yolk_place_request prompt(uint32_t tokens, int priority)
{
    struct yolk_place_request request = fixture_request(tokens, 100, NULL, 0);
    request.priority = priority;
    return request;
}

/* ---- never refused before its lesser ---- */

struct walk {
    struct yolk_conductor *c;
    struct yolk_decision live[TICKETS];
    bool joined[TICKETS];
    uint32_t count;
    double now;
};

static void walk_arrive(struct walk *w, struct rng *rng)
{
    const uint32_t tokens = 1 + (uint32_t)rng_below(rng, 4000);
    const struct yolk_place_request request = prompt(tokens, (int)rng_below(rng, 5) - 2);
    const struct yolk_asker asker = { .tenant = rng_below(rng, 2) ? "a" : "b" };
    struct yolk_verdict verdict;

    if (w->count == TICKETS - 1) return; /* a ticket is left for the question at the end */
    if (yolk_conductor_admit(w->c, &request, &asker, w->now, &w->live[w->count], &verdict) !=
        STATUS_OK) {
        return;
    }
    w->joined[w->count++] = false;
}

static void walk_step(struct walk *w, struct rng *rng)
{
    const uint64_t dice = rng_below(rng, 100);
    const uint32_t i = w->count > 0 ? (uint32_t)rng_below(rng, w->count) : 0;
    struct yolk_verdict verdict;

    w->now += 300 * rng_unit(rng);
    if (dice < 60 || w->count == 0) {
        walk_arrive(w, rng);
    } else if (dice < 75 && !w->joined[i]) {
        if (yolk_conductor_admit_join(w->c, w->live[i].ticket, w->now, &verdict) != STATUS_OK)
            return;
        yolk_conductor_prefill_done(w->c, w->live[i].ticket, 0, w->now);
        w->joined[i] = true;
    } else if (dice < 92) {
        yolk_conductor_decoded(w->c, w->live[i].ticket, 1 + (uint32_t)rng_below(rng, 20));
    } else {
        yolk_conductor_finish(w->c, w->live[i].ticket, STATUS_OK, w->now);
        w->count--;
        w->live[i] = w->live[w->count];
        w->joined[i] = w->joined[w->count];
    }
}

/* Walks, then asks. */
static bool accepted(enum yolk_policy policy, uint64_t seed, uint32_t steps, uint32_t tokens,
                     int priority, int *place)
{
    struct walk w = { .c = make(policy, 9000, 30) };
    const struct yolk_place_request request = prompt(tokens, priority);
    struct yolk_decision decision;
    struct yolk_verdict verdict;
    struct rng rng;

    fixture_add_large(w.c, "p", YOLK_ROLE_PREFILL);
    fixture_add_large(w.c, "q", YOLK_ROLE_PREFILL);
    fixture_add_large(w.c, "d", YOLK_ROLE_DECODE);
    rng_init(&rng, seed);
    for (uint32_t i = 0; i < steps; i++)
        walk_step(&w, &rng);
    const enum status status =
        yolk_conductor_admit(w.c, &request, NULL, w.now, &decision, &verdict);
    assert_true(status == STATUS_OK || status == STATUS_BUSY);
    if (status == STATUS_OK) *place = decision.priority;
    yolk_conductor_destroy(w.c);
    return status == STATUS_OK;
}

static void test_never_refused_before_its_lesser(void **state)
{
    (void)state;
    struct rng rng;
    uint32_t both = 0, neither = 0, only_high = 0, behind = 0;

    rng_init(&rng, test_seed());
    for (uint32_t i = 0; i < PROBES; i++) {
        const enum yolk_policy policy = (enum yolk_policy)(1 + i % (YOLK_POLICIES - 1));
        const uint64_t seed = rng_u64(&rng);
        const uint32_t steps = (uint32_t)rng_below(&rng, STEPS_MAX);
        const uint32_t tokens = 1 + (uint32_t)rng_below(&rng, 6000);
        const int low = (int)rng_below(&rng, 4) - 2;
        const int high = low + 1 + (int)rng_below(&rng, 3);
        int place = high;
        const bool low_in = accepted(policy, seed, steps, tokens, low, &place);
        const bool high_in = accepted(policy, seed, steps, tokens, high, &place);
        assert_true(high_in || !low_in);
        both += low_in && high_in;
        neither += !low_in && !high_in;
        only_high += high_in && !low_in;
        behind += high_in && place < high;
    }
    printf("both %u, neither %u, only the higher %u; behind lesser ones %u\n", both, neither,
           only_high, behind);
    assert_true(both > 20 && neither > 20 && only_high > 5);
}

/* Its own place would bring it to a full decode pool; behind the others it finds it empty. */
static void test_goes_behind_where_that_helps(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(YOLK_POLICY_PREDICT, 0, 24);
    const struct yolk_admission_options limits = { YOLK_POLICY_PREDICT, 0, 24, 500, false };
    const struct yolk_place_request big = prompt(1500, 0), small = prompt(64, 0);
    const struct yolk_place_request mine = prompt(64, 1);
    struct yolk_decision decision;
    struct yolk_verdict verdict;

    fixture_add_large(c, "p", YOLK_ROLE_PREFILL);
    fixture_add_large(c, "d", YOLK_ROLE_DECODE);
    assert_int_equal(yolk_conductor_set_admission(c, &limits, NULL), STATUS_OK);
    /* The pool fills with sequences that are taken to last half a second. */
    for (int i = 0; i < 40; i++) {
        if (yolk_conductor_admit(c, &small, NULL, 0, &decision, &verdict) != STATUS_OK) break;
        yolk_conductor_prefill_done(c, decision.ticket, 0, 0);
    }
    assert_int_not_equal(verdict.refusal, YOLK_REFUSAL_NONE);
    /* A short prompt is computed; a long one waits, and when it ends the pool will have emptied. */
    assert_int_equal(yolk_conductor_place(c, &small, 0, &decision), STATUS_OK);
    assert_true(decision.compute_ms < 400);
    assert_int_equal(yolk_conductor_place(c, &big, 0, &decision), STATUS_OK);
    assert_true(decision.compute_ms > 600);
    assert_int_equal(yolk_conductor_admit(c, &mine, NULL, 0, &decision, &verdict), STATUS_OK);
    assert_int_equal(decision.priority, 0);
    yolk_conductor_destroy(c);
}

/* ---- the queue ---- */

static void test_higher_goes_first(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(YOLK_POLICY_NONE, 0, 0);
    const struct yolk_place_request low = prompt(1000, -1), normal = prompt(1000, 0),
                                    high = prompt(1000, 3);
    struct yolk_decision first, second, third, fourth, fifth;

    fixture_add_large(c, "p", YOLK_ROLE_PREFILL);
    fixture_add_large(c, "d", YOLK_ROLE_DECODE);
    assert_int_equal(yolk_conductor_place(c, &normal, 0, &first), STATUS_OK);
    assert_int_equal(yolk_conductor_place(c, &normal, 0, &second), STATUS_OK);
    assert_int_equal(yolk_conductor_place(c, &high, 0, &third), STATUS_OK);
    assert_int_equal(yolk_conductor_place(c, &low, 0, &fourth), STATUS_OK);
    assert_int_equal(yolk_conductor_place(c, &normal, 0, &fifth), STATUS_OK);
    const double each = first.compute_ms;
    assert_true(first.queue_ms == 0);
    assert_true(fabs(second.queue_ms - each) < 1e-9);
    assert_true(fabs(third.queue_ms - each) < 1e-9); /* the first is being computed: it stays */
    assert_true(fabs(fourth.queue_ms - 3 * each) < 1e-9);
    assert_true(fabs(fifth.queue_ms - 3 * each) < 1e-9); /* before the low one */
    /* They leave in their order, and the queue follows. */
    yolk_conductor_prefill_done(c, first.ticket, 0, 10);
    yolk_conductor_prefill_done(c, third.ticket, 0, 20);
    yolk_conductor_prefill_done(c, second.ticket, 0, 30);
    struct yolk_decision sixth;
    assert_int_equal(yolk_conductor_place(c, &low, 30, &sixth), STATUS_OK);
    assert_true(fabs(sixth.queue_ms - 2 * each) < 1e-9);
    yolk_conductor_finish(c, fourth.ticket, STATUS_CANCELLED, 30); /* from the middle */
    yolk_conductor_finish(c, sixth.ticket, STATUS_CANCELLED, 30);  /* the tail */
    yolk_conductor_prefill_done(c, fifth.ticket, 0, 40);
    assert_int_equal(yolk_conductor_place(c, &low, 40, &sixth), STATUS_OK);
    assert_true(sixth.queue_ms == 0);
    yolk_conductor_destroy(c);
}

/* ---- limits of their own ---- */

static enum yolk_refusal ask(struct yolk_conductor *c, uint32_t tokens, double ttft_ms,
                             double tbt_ms, struct yolk_decision *out)
{
    const struct yolk_place_request request = prompt(tokens, 0);
    const struct yolk_asker asker = { .ttft_ms = ttft_ms, .tbt_ms = tbt_ms };
    struct yolk_verdict verdict;
    const enum status status = yolk_conductor_admit(c, &request, &asker, 0, out, &verdict);
    assert_true((status == STATUS_BUSY) == (verdict.refusal != YOLK_REFUSAL_NONE));
    return verdict.refusal;
}

static void test_own_limit_of_the_first_token(void **state)
{
    (void)state;
    struct yolk_decision decision;

    for (int policy = YOLK_POLICY_BASELINE; policy < YOLK_POLICIES; policy++) {
        struct yolk_conductor *c = make((enum yolk_policy)policy, 0, 0);
        fixture_add_large(c, "n", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE);
        assert_int_equal(ask(c, 4000, 0, 0, &decision), YOLK_REFUSAL_NONE);
        yolk_conductor_prefill_done(c, decision.ticket, 0, 0);
        const double own = decision.compute_ms;
        assert_int_equal(ask(c, 4000, own / 2, 0, &decision), YOLK_REFUSAL_TTFT);
        assert_int_equal(ask(c, 4000, own * 2, 0, &decision), YOLK_REFUSAL_NONE);
        yolk_conductor_destroy(c);
        /* And the other way: a general limit that one class does not have. */
        c = make((enum yolk_policy)policy, own / 2, 0);
        fixture_add_large(c, "n", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE);
        assert_int_equal(ask(c, 4000, 0, 0, &decision), YOLK_REFUSAL_TTFT);
        assert_int_equal(ask(c, 4000, INFINITY, 0, &decision), YOLK_REFUSAL_NONE);
        yolk_conductor_destroy(c);
    }
}

/* Who has no limit of its own is held to that of those it would slow down, and only while they are
 * there. */
static void test_the_tightest_limit_of_the_batch_counts(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(YOLK_POLICY_EARLY, 0, 0);
    struct yolk_decision strict, decision[TICKETS];
    uint32_t count = 0;

    fixture_add_large(c, "n", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE);
    assert_int_equal(ask(c, 100, 0, 24, &strict), YOLK_REFUSAL_NONE);
    yolk_conductor_prefill_done(c, strict.ticket, 0, 0);
    while (count < 32 && ask(c, 100, 60000, INFINITY, &decision[count]) == YOLK_REFUSAL_NONE)
        yolk_conductor_prefill_done(c, decision[count++].ticket, 0, 0);
    assert_in_range(count, 1, 31);
    yolk_conductor_finish(c, strict.ticket, STATUS_OK, 0);
    assert_int_equal(ask(c, 100, 60000, INFINITY, &decision[count]), YOLK_REFUSAL_NONE);
    yolk_conductor_destroy(c);
}

/* ---- at the join ---- */

static void test_refusals_at_the_join_are_audited(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(YOLK_POLICY_BASELINE, 0, 24);
    struct yolk_decision decision[TICKETS];
    struct yolk_admission_stats stats;
    struct yolk_verdict verdict;
    struct yolk_refused refused;
    uint32_t count = 0;

    fixture_add_large(c, "n", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE);
    for (; count < TICKETS; count++)
        assert_int_equal(ask(c, 100, 0, 0, &decision[count]), YOLK_REFUSAL_NONE);
    uint32_t joined = 0;
    while (joined < TICKETS &&
           yolk_conductor_admit_join(c, decision[joined].ticket, 1000, &verdict) == STATUS_OK)
        yolk_conductor_prefill_done(c, decision[joined++].ticket, 0, 1000);
    assert_in_range(joined, 1, TICKETS - 3);
    assert_true(yolk_conductor_refused(c, 0, &refused));
    assert_int_equal(refused.verdict.refusal, YOLK_REFUSAL_TBT_AT_JOIN);
    assert_string_equal(refused.request_id, "r");
    assert_true(refused.ttft_ms == 1000);
    yolk_conductor_finish(c, decision[joined].ticket, STATUS_BUSY, 1000);
    /* The next one is refused by its node, when everybody else has left: that was a mistake. */
    for (uint32_t i = 0; i < joined; i++)
        yolk_conductor_finish(c, decision[i].ticket, STATUS_OK, 2000);
    for (uint32_t i = joined + 2; i < TICKETS; i++)
        yolk_conductor_finish(c, decision[i].ticket, STATUS_CANCELLED, 2000);
    yolk_conductor_refused_at_node(c, decision[joined + 1].ticket, 1.5, 2200, &verdict);
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_TBT_AT_NODE);
    assert_true(verdict.predicted_load == 1.5 && verdict.retry_after_ms > 0);
    yolk_conductor_finish(c, decision[joined + 1].ticket, STATUS_BUSY, 2200);
    for (double now = 2400; now < 100000; now += 200) {
        assert_int_equal(ask(c, 100, 0, 0, &decision[0]), YOLK_REFUSAL_NONE);
        yolk_conductor_finish(c, decision[0].ticket, STATUS_CANCELLED, now);
    }
    yolk_conductor_admission_stats(c, 100000, &stats);
    assert_int_equal(stats.refused[YOLK_REFUSAL_TBT_AT_JOIN], 1);
    assert_int_equal(stats.refused[YOLK_REFUSAL_TBT_AT_NODE], 1);
    assert_int_equal(stats.audited, 2);
    assert_true(yolk_conductor_refused(c, 0, &refused));
    assert_int_equal(refused.hindsight, YOLK_HINDSIGHT_SERVABLE);
    assert_true(yolk_conductor_refused(c, 1, &refused));
    assert_int_equal(refused.hindsight, YOLK_HINDSIGHT_RIGHT);
    yolk_conductor_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never_refused_before_its_lesser),
        cmocka_unit_test(test_goes_behind_where_that_helps),
        cmocka_unit_test(test_higher_goes_first),
        cmocka_unit_test(test_own_limit_of_the_first_token),
        cmocka_unit_test(test_the_tightest_limit_of_the_batch_counts),
        cmocka_unit_test(test_refusals_at_the_join_are_audited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
