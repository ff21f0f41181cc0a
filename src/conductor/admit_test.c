/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/admit_test.c
 *
 * Goal:   behind the public interface, policies keep their limits on real books: what is accepted
 *         is placed, what is refused leaves no trace but a log entry, and hindsight comes true.
 * Method: small clusters by hand; then a seeded walk of a cluster under overload for each policy,
 *         in which every accepted decision is held against the limits. SEED repeats the walk. */
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

enum { BLOCK = 32, TICKETS = 64 };

static struct yolk_conductor *make(void)
{
    struct yolk_conductor_options options = yolk_conductor_defaults();
    struct yolk_conductor *conductor = NULL;
    struct errmsg err;

    options.instances_max = 8;
    options.holdings_max = 1024;
    options.tickets_max = TICKETS;
    options.decisions_max = 128;
    options.block_tokens = BLOCK;
    options.block_size = 737280;
    assert_int_equal(yolk_conductor_create(&options, &conductor, &err), STATUS_OK);
    return conductor;
}

static void set(struct yolk_conductor *c, enum yolk_policy policy, double ttft_ms, double tbt_ms)
{
    const struct yolk_admission_options options = { .policy = policy,
                                                    .ttft_ms = ttft_ms,
                                                    .tbt_ms = tbt_ms };
    assert_int_equal(yolk_conductor_set_admission(c, &options, NULL), STATUS_OK);
}

static struct yolk_place_request prompt(uint32_t tokens)
{
    return fixture_request(tokens, 100, NULL, 0);
}

static void test_options(void **state)
{
    (void)state;
    struct yolk_conductor *c = make();
    struct yolk_admission_stats stats;
    struct errmsg err = { "" };
    const struct yolk_admission_options bad[] = {
        { YOLK_POLICY_EARLY, -1, 0, 0, false },
        { YOLK_POLICY_EARLY, 0, NAN, 0, false },
        { YOLK_POLICY_EARLY, INFINITY, 0, 0, false },
        { YOLK_POLICY_PREDICT, 1, 1, -1, false },
        { (enum yolk_policy)YOLK_POLICIES, 1, 1, 0, false },
    };

    set(c, YOLK_POLICY_EARLY, 5, 7);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(yolk_conductor_set_admission(c, &bad[i], &err), STATUS_INVALID);
        assert_true(err.text[0] != '\0');
    }
    yolk_conductor_admission_stats(c, 0, &stats);
    assert_true(stats.options.ttft_ms == 5 && stats.options.tbt_ms == 7);
    for (int i = 0; i < YOLK_POLICIES; i++) {
        enum yolk_policy policy = YOLK_POLICY_NONE;
        assert_int_equal(yolk_policy_of(yolk_policy_name((enum yolk_policy)i), &policy), STATUS_OK);
        assert_int_equal(policy, i);
        assert_int_equal(yolk_policy_of("nun", &policy), STATUS_NOT_FOUND);
    }
    for (int i = 0; i < YOLK_REFUSALS; i++)
        assert_true(strlen(yolk_refusal_name((enum yolk_refusal)i)) > 0);
    assert_string_equal(yolk_hindsight_name(YOLK_HINDSIGHT_SERVABLE), "servable");
    yolk_conductor_destroy(c);
}

/* Without limits nobody is refused, whatever the policy and the load. */
static void test_no_limit_no_refusal(void **state)
{
    (void)state;
    const struct yolk_place_request request = prompt(20000);

    for (int policy = 0; policy < YOLK_POLICIES; policy++) {
        struct yolk_conductor *c = make();
        struct yolk_decision decision;
        struct yolk_verdict verdict;
        fixture_add_large(c, "n", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE);
        set(c, (enum yolk_policy)policy, 0, 0);
        for (int i = 0; i < TICKETS; i++) {
            assert_int_equal(yolk_conductor_admit(c, &request, NULL, 0, &decision, &verdict),
                             STATUS_OK);
            assert_int_equal(verdict.refusal, YOLK_REFUSAL_NONE);
        }
        assert_int_equal(yolk_conductor_admit(c, &request, NULL, 0, &decision, &verdict),
                         STATUS_FULL); /* tickets, as without a policy */
        yolk_conductor_destroy(c);
    }
}

/* A refusal leaves nothing behind: the next small one is placed as if nothing had been asked. */
static void test_refusal_leaves_no_trace(void **state)
{
    (void)state;
    struct yolk_conductor *c = make();
    const struct yolk_place_request request = prompt(2048);
    struct yolk_decision first, second = { .tokens = 77 };
    struct yolk_verdict verdict;
    struct yolk_conductor_stats stats;
    struct yolk_refused refused;

    fixture_add_large(c, "p", YOLK_ROLE_PREFILL);
    fixture_add_large(c, "d", YOLK_ROLE_DECODE);
    assert_int_equal(yolk_conductor_place(c, &request, 0, &first), STATUS_OK);
    set(c, YOLK_POLICY_EARLY, 1.5 * first.ttft_ms, 0);
    assert_int_equal(yolk_conductor_admit(c, &request, NULL, 0, &second, &verdict), STATUS_BUSY);
    assert_int_equal(second.tokens, 77); /* untouched */
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_TTFT);
    /* Half of its own time must go by; then it is accepted, and not before. */
    assert_true(fabs(verdict.retry_after_ms - 0.5 * first.ttft_ms) < 1e-6);
    yolk_conductor_stats(c, &stats);
    assert_int_equal(stats.tickets, 1);
    assert_int_equal(stats.decisions, 1);
    assert_true(yolk_conductor_refused(c, 0, &refused));
    assert_string_equal(refused.request_id, "r");
    const double then = verdict.retry_after_ms;
    assert_int_equal(yolk_conductor_admit(c, &request, NULL, then - 1, &second, &verdict),
                     STATUS_BUSY);
    assert_int_equal(yolk_conductor_admit(c, &request, NULL, then + 1, &second, &verdict),
                     STATUS_OK);
    assert_int_equal(second.verdict.policy, YOLK_POLICY_EARLY);
    /* What it has waited counts. */
    const struct yolk_asker waited = { .waited_ms = 10 };
    yolk_conductor_finish(c, first.ticket, STATUS_OK, then + 2);
    yolk_conductor_finish(c, second.ticket, STATUS_OK, then + 2);
    set(c, YOLK_POLICY_EARLY, first.ttft_ms + 5, 0);
    assert_int_equal(yolk_conductor_admit(c, &request, &waited, 1e6, &second, &verdict),
                     STATUS_BUSY);
    assert_int_equal(yolk_conductor_admit(c, &request, NULL, 1e6, &second, &verdict), STATUS_OK);
    yolk_conductor_destroy(c);
}

/* Baseline finds out when the prefill is wasted; what is only reserved does not count before. */
static void test_join_is_checked(void **state)
{
    (void)state;
    struct yolk_conductor *c = make();
    const struct yolk_place_request request = prompt(1024);
    struct yolk_decision decisions[8];
    struct yolk_verdict verdict;
    struct yolk_admission_stats stats;
    int joined = 0;

    fixture_add_large(c, "p", YOLK_ROLE_PREFILL);
    fixture_add_large(c, "d", YOLK_ROLE_DECODE);
    set(c, YOLK_POLICY_BASELINE, 0, 18.5); /* 10 + 1 a sequence + 1 per 1024 tokens: four fit */
    for (int i = 0; i < 8; i++) {
        assert_int_equal(yolk_conductor_admit(c, &request, NULL, 0, &decisions[i], &verdict),
                         STATUS_OK);
    }
    for (int i = 0; i < 8; i++) {
        const struct yolk_ticket ticket = decisions[i].ticket;
        if (yolk_conductor_admit_join(c, ticket, 100, &verdict) == STATUS_OK) {
            yolk_conductor_prefill_done(c, ticket, 0, 100);
            joined++;
        } else {
            assert_int_equal(verdict.refusal, YOLK_REFUSAL_TBT_AT_JOIN);
            assert_true(verdict.decode_load > 1 && verdict.retry_after_ms > 0);
            yolk_conductor_finish(c, ticket, STATUS_BUSY, 100);
        }
    }
    assert_int_equal(joined, 4);
    yolk_conductor_admission_stats(c, 100, &stats);
    assert_int_equal(stats.refused[YOLK_REFUSAL_TBT_AT_JOIN], 4);
    assert_true(fabs(stats.decode_load - 18 / 18.5) < 1e-9);
    yolk_conductor_destroy(c);
}

/* Behind a door they count as waiting until they are let in; who leaves before leaves nothing. */
static void test_door(void **state)
{
    (void)state;
    const struct yolk_admission_options options = { .policy = YOLK_POLICY_ADAPTIVE,
                                                    .tbt_ms = 20,
                                                    .door = true };
    struct yolk_conductor *c = make();
    const struct yolk_place_request request = prompt(1024);
    struct yolk_conductor_stats stats;
    struct yolk_decision d[3], logged;
    struct yolk_verdict verdict;
    uint32_t sequences;
    uint64_t context;

    fixture_add_large(c, "p", YOLK_ROLE_PREFILL);
    const struct yolk_instance_id decode = fixture_add_large(c, "d", YOLK_ROLE_DECODE);
    assert_int_equal(yolk_conductor_batch_max(c, decode), 1000); /* no door: all */
    assert_int_equal(yolk_conductor_set_admission(c, &options, NULL), STATUS_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(yolk_conductor_admit(c, &request, NULL, 0, &d[i], &verdict), STATUS_OK);
        yolk_conductor_prefill_done(c, d[i].ticket, 0, 100);
    }
    assert_in_range(yolk_conductor_batch_max(c, decode), 1, 10); /* 10 + 1 a sequence ... */
    yolk_conductor_joined(c, d[0].ticket, 107);
    yolk_conductor_stats(c, &stats);
    assert_int_equal(stats.at_door, 2);
    yolk_conductor_batch(c, d[0].ticket, &sequences, &context);
    assert_int_equal(sequences, 1);
    assert_int_equal(context, 1024);
    yolk_conductor_batch(c, d[1].ticket, &sequences, &context); /* as if it were in */
    assert_int_equal(sequences, 2);
    assert_int_equal(context, 2048);
    yolk_conductor_finish(c, d[1].ticket, STATUS_CANCELLED, 200);
    yolk_conductor_remove(c, decode);
    yolk_conductor_stats(c, &stats);
    assert_int_equal(stats.at_door, 0);
    yolk_conductor_finish(c, d[2].ticket, STATUS_UNAVAILABLE, 300);
    yolk_conductor_finish(c, d[0].ticket, STATUS_UNAVAILABLE, 300);
    assert_true(yolk_conductor_decision(c, 2, &logged));
    assert_true(logged.actual_door_ms == 7);
    assert_true(yolk_conductor_decision(c, 1, &logged));
    assert_true(logged.actual_door_ms < 0); /* never let in */
    yolk_conductor_destroy(c);
}

/* Refused for a queue that then drained at once: a mistake, and it is found out. */
static void test_hindsight(void **state)
{
    (void)state;
    struct yolk_conductor *c = make();
    const struct yolk_place_request request = prompt(2048);
    struct yolk_decision first, second;
    struct yolk_verdict verdict;
    struct yolk_refused refused;
    struct yolk_admission_stats stats;

    fixture_add_large(c, "p", YOLK_ROLE_PREFILL);
    fixture_add_large(c, "d", YOLK_ROLE_DECODE);
    assert_int_equal(yolk_conductor_place(c, &request, 0, &first), STATUS_OK);
    set(c, YOLK_POLICY_PREDICT, 1.5 * first.ttft_ms, 1000);
    assert_int_equal(yolk_conductor_admit(c, &request, NULL, 0, &second, &verdict), STATUS_BUSY);
    yolk_conductor_prefill_done(c, first.ticket, 0, 1); /* long before it was predicted */
    assert_true(yolk_conductor_refused(c, 0, &refused));
    assert_int_equal(refused.hindsight, YOLK_HINDSIGHT_OPEN);
    yolk_conductor_finish(c, first.ticket, STATUS_OK, 5000);
    assert_int_equal(yolk_conductor_admit(c, &request, NULL, 60000, &second, &verdict), STATUS_OK);
    assert_true(yolk_conductor_refused(c, 0, &refused));
    assert_int_equal(refused.hindsight, YOLK_HINDSIGHT_SERVABLE);
    assert_true(fabs(refused.ttft_ms - (1 + first.ttft_ms)) < 1e-6);
    yolk_conductor_admission_stats(c, 60000, &stats);
    assert_int_equal(stats.audited, 1);
    assert_int_equal(stats.servable, 1);
    yolk_conductor_destroy(c);
}

/* ---- a walk under overload ---- */

struct walk {
    struct yolk_conductor *c;
    struct yolk_decision live[TICKETS];
    bool joined[TICKETS];
    uint32_t count;
    double now;
    uint32_t accepted, refused;
    struct yolk_instance_id extra; /* comes and goes */
    bool extra_up;
};

enum { TTFT_MS = 20000, TBT_MS = 30 };

static void walk_arrive(struct walk *w, struct rng *rng)
{
    const struct yolk_place_request request = prompt(1 + (uint32_t)rng_below(rng, 4000));
    const struct yolk_asker asker = { rng_below(rng, 2) ? "a" : "b", "chat", 0, 0, 0 };
    struct yolk_decision decision;
    struct yolk_verdict verdict;

    if (w->count == TICKETS) return;
    const enum status status =
        yolk_conductor_admit(w->c, &request, &asker, w->now, &decision, &verdict);
    if (status == STATUS_BUSY) {
        assert_int_not_equal(verdict.refusal, YOLK_REFUSAL_NONE);
        assert_true(verdict.retry_after_ms > 0);
        w->refused++;
        return;
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(decision.ttft_ms <= TTFT_MS);
    assert_true(verdict.prefill_load <= 1 || verdict.policy == YOLK_POLICY_ADAPTIVE);
    if (verdict.policy != YOLK_POLICY_BASELINE) assert_true(verdict.predicted_load <= 1);
    w->joined[w->count] = false;
    w->live[w->count++] = decision;
    w->accepted++;
}

static void walk_finish(struct walk *w, uint32_t i, enum status outcome)
{
    yolk_conductor_finish(w->c, w->live[i].ticket, outcome, w->now);
    w->count--;
    w->live[i] = w->live[w->count];
    w->joined[i] = w->joined[w->count];
}

static void walk_join(struct walk *w, uint32_t i)
{
    struct yolk_verdict verdict;
    const enum status status = yolk_conductor_admit_join(w->c, w->live[i].ticket, w->now, &verdict);

    if (status == STATUS_BUSY) {
        assert_true(verdict.predicted_load > 1);
        walk_finish(w, i, STATUS_BUSY);
        return;
    }
    assert_int_equal(status, STATUS_OK);
    yolk_conductor_prefill_done(w->c, w->live[i].ticket, 0, w->now);
    w->joined[i] = true;
}

static void walk_step(struct walk *w, struct rng *rng)
{
    const uint64_t dice = rng_below(rng, 100);
    const uint32_t i = w->count > 0 ? (uint32_t)rng_below(rng, w->count) : 0;

    w->now += 600 * rng_unit(rng);
    if (dice < 55) {
        walk_arrive(w, rng);
    } else if (dice < 70 && w->count > 0 && !w->joined[i]) {
        walk_join(w, i);
    } else if (dice < 80 && w->count > 0) {
        yolk_conductor_decoded(w->c, w->live[i].ticket, 1 + (uint32_t)rng_below(rng, 20));
    } else if (dice < 98 && w->count > 0) {
        walk_finish(w, i, rng_below(rng, 10) == 0 ? STATUS_CANCELLED : STATUS_OK);
    } else if (w->extra_up) {
        yolk_conductor_remove(w->c, w->extra);
        w->extra_up = false;
    } else {
        w->extra = fixture_add_large(w->c, "x", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE);
        w->extra_up = true;
    }
}

static void test_walks(void **state)
{
    (void)state;
    const uint64_t seed = test_seed();

    for (int policy = YOLK_POLICY_BASELINE; policy < YOLK_POLICIES; policy++) {
        struct walk w = { .c = make() };
        struct yolk_admission_stats stats;
        struct rng rng;
        rng_init(&rng, seed);
        fixture_add_large(w.c, "p", YOLK_ROLE_PREFILL);
        fixture_add_large(w.c, "d", YOLK_ROLE_DECODE);
        set(w.c, (enum yolk_policy)policy, TTFT_MS, TBT_MS);
        for (int step = 0; step < 20000; step++)
            walk_step(&w, &rng);
        yolk_conductor_admission_stats(w.c, w.now, &stats);
        printf("%s: accepted %u, refused %u, at join %llu, audited %llu, servable %llu\n",
               yolk_policy_name((enum yolk_policy)policy), w.accepted, w.refused,
               (unsigned long long)stats.refused[YOLK_REFUSAL_TBT_AT_JOIN],
               (unsigned long long)stats.audited, (unsigned long long)stats.servable);
        assert_true(w.accepted > 300 && w.refused > 300);
        assert_int_equal(stats.accepted, w.accepted);
        assert_true(stats.audited > 0 && stats.servable <= stats.audited);
        while (w.count > 0)
            walk_finish(&w, 0, STATUS_OK);
        yolk_conductor_destroy(w.c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_no_limit_no_refusal),
        cmocka_unit_test(test_refusal_leaves_no_trace),
        cmocka_unit_test(test_join_is_checked),
        cmocka_unit_test(test_door),
        cmocka_unit_test(test_hindsight),
        cmocka_unit_test(test_walks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
