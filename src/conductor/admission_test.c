/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/admission_test.c
 *
 * Goal:   every policy computes the load that the header defines, and no verdict that accepts is
 *         beyond a limit it knows of.
 * Method: a model that keeps the flights in a list and adds the definitions up, beside seeded walks
 *         of arrivals, joins, tokens and ends, for every policy; then behaviour by hand: margins,
 *         reservation, shares, times to retry. SEED repeats the walks. */
#include "conductor/admission.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { TICKETS = 40, DECODERS = 3, STEPS = 6000 };

struct live {
    bool used;
    struct admission_flight flight;
};

struct walk {
    struct admission *admission;
    struct yolk_admission_options options;
    struct live live[TICKETS];
    struct conductor_fit fits[DECODERS];
    struct admission_decoder decoders[DECODERS];
    double ended_ms; /* sum of decoding times of complete answers */
    uint32_t ended;
    double now;
    uint32_t accepted, refused;
};

/* ---- the model ---- */

static struct admission_pools model_pools(struct walk *w, double queue_ms)
{
    for (uint32_t i = 0; i < DECODERS; i++) {
        w->decoders[i] = (struct admission_decoder){ i, 0, 0, &w->fits[i] };
    }
    for (uint32_t t = 0; t < TICKETS; t++) {
        const struct admission_flight *f = &w->live[t].flight;
        if (!w->live[t].used || !f->joined) continue;
        w->decoders[f->decode].sequences++;
        w->decoders[f->decode].context_tokens += f->tokens;
    }
    return (struct admission_pools){ w->decoders, DECODERS, queue_ms };
}

static double model_load(struct walk *w, double sequences[DECODERS], double context[DECODERS])
{
    double sum = 0;
    for (uint32_t i = 0; i < DECODERS; i++)
        sum += conductor_cost_decode(&w->fits[i], sequences[i], context[i]) / w->options.tbt_ms;
    return sum / DECODERS;
}

static double model_now(struct walk *w, uint32_t tokens)
{
    double sequences[DECODERS], context[DECODERS];

    for (uint32_t i = 0; i < DECODERS; i++) {
        sequences[i] = w->decoders[i].sequences + 1.0 / DECODERS;
        context[i] = (double)w->decoders[i].context_tokens + (double)tokens / DECODERS;
    }
    return model_load(w, sequences, context);
}

/* The paper's three steps, each on its own. */
static double model_predicted(struct walk *w, double at, uint32_t tokens)
{
    const double t_d = w->ended > 0 ? w->ended_ms / w->ended : 10000;
    double sequences[DECODERS] = { 0 }, context[DECODERS] = { 0 };

    for (uint32_t t = 0; t < TICKETS; t++) { /* those decoding that have not lasted t_d by then */
        const struct admission_flight *f = &w->live[t].flight;
        if (!w->live[t].used || !f->joined || f->join_ms + t_d <= at) continue;
        sequences[f->decode] += 1;
        context[f->decode] += f->tokens;
    }
    for (uint32_t t = 0; t < TICKETS; t++) { /* those whose prefill is done by then, evenly */
        const struct admission_flight *f = &w->live[t].flight;
        if (!w->live[t].used || f->joined || f->join_ms > at || f->join_ms + t_d <= at) continue;
        for (uint32_t i = 0; i < DECODERS; i++) {
            sequences[i] += 1.0 / DECODERS;
            context[i] += (double)f->tokens / DECODERS;
        }
    }
    for (uint32_t i = 0; i < DECODERS; i++) {
        sequences[i] += 1.0 / DECODERS;
        context[i] += (double)tokens / DECODERS;
    }
    return model_load(w, sequences, context);
}

/* ---- the walk ---- */

static struct admission_question walk_question(struct walk *w, struct rng *rng)
{
    const double queue_ms = 800 * rng_unit(rng);

    return (struct admission_question){
        .now_ms = w->now,
        .waited_ms = rng_below(rng, 4) == 0 ? 100 * rng_unit(rng) : 0,
        .queue_ms = queue_ms,
        .own_ms = 500 * rng_unit(rng),
        .spread_ms = 50 * rng_unit(rng),
        .decode = (uint32_t)rng_below(rng, DECODERS),
        .class_index = admission_class(w->admission, "t", rng_below(rng, 2) ? "a" : "b", 0),
        .tokens = 1 + (uint32_t)rng_below(rng, 2000),
        .output_max = 1 + (uint32_t)rng_below(rng, 400),
        .priority = (int)rng_below(rng, 3) - 1,
    };
}

/* What the definitions say, for the policies of the papers. */
static enum yolk_refusal model_judge(struct walk *w, const struct admission_pools *pools,
                                     const struct admission_question *q)
{
    const double own = q->waited_ms + q->queue_ms + q->own_ms;
    const double pool = q->waited_ms + pools->queue_ms_mean + q->own_ms;
    const enum yolk_policy policy = w->options.policy;

    if (own > w->options.ttft_ms || pool > w->options.ttft_ms) return YOLK_REFUSAL_TTFT;
    if (policy == YOLK_POLICY_EARLY && model_now(w, q->tokens) > 1) return YOLK_REFUSAL_TBT;
    if (policy == YOLK_POLICY_PREDICT &&
        model_predicted(w, w->now + q->queue_ms + q->own_ms, q->tokens) > 1) {
        return YOLK_REFUSAL_TBT_PREDICTED;
    }
    return YOLK_REFUSAL_NONE;
}

static void check_verdict(struct walk *w, const struct admission_pools *pools,
                          const struct admission_question *q, const struct yolk_verdict *verdict)
{
    const bool accepted = verdict->refusal == YOLK_REFUSAL_NONE;

    assert_true(verdict->gate <= 1 && verdict->gate >= 0.75);
    assert_true(verdict->prefill_gate <= 1 && verdict->prefill_gate >= 0.25);
    assert_true(fabs(verdict->decode_load - model_now(w, q->tokens)) < 1e-9);
    if (accepted) { /* the invariant: nothing accepted is beyond a limit that was known */
        assert_true(verdict->ttft_ms <= w->options.ttft_ms);
        assert_true(q->waited_ms + q->queue_ms <= w->options.ttft_ms * verdict->prefill_gate);
        if (w->options.policy != YOLK_POLICY_BASELINE) assert_true(verdict->predicted_load <= 1);
        assert_true(verdict->retry_after_ms == 0);
    } else {
        assert_true(verdict->retry_after_ms > 0 && verdict->retry_after_ms <= 60000);
    }
    if (w->options.policy == YOLK_POLICY_ADAPTIVE) {
        assert_true(verdict->ttft_ms >= q->waited_ms + q->queue_ms + q->own_ms);
        assert_true(verdict->output_tokens <= q->output_max);
        if (q->priority > 0) assert_true(verdict->gate == 1 && verdict->prefill_gate == 1);
        return;
    }
    if (w->options.policy == YOLK_POLICY_PREDICT) {
        const double want = model_predicted(w, w->now + q->queue_ms + q->own_ms, q->tokens);
        assert_true(fabs(verdict->predicted_load - want) < 1e-9);
    }
    assert_int_equal(verdict->refusal, model_judge(w, pools, q));
}

static void walk_arrive(struct walk *w, struct rng *rng, uint32_t ticket)
{
    const struct admission_question q = walk_question(w, rng);
    const struct admission_pools pools = model_pools(w, 800 * rng_unit(rng));
    struct yolk_verdict verdict;

    admission_judge(w->admission, &pools, &q, &verdict);
    check_verdict(w, &pools, &q, &verdict);
    if (verdict.refusal != YOLK_REFUSAL_NONE) {
        w->refused++;
        return;
    }
    w->accepted++;
    const struct admission_flight flight = { .class_index = q.class_index,
                                             .decode = q.decode,
                                             .tokens = q.tokens,
                                             .output_max = q.output_max,
                                             .join_ms = w->now + q.queue_ms + q.own_ms,
                                             .arrived_ms = w->now - q.waited_ms };
    w->live[ticket] = (struct live){ true, flight };
    admission_take_off(w->admission, ticket, &flight);
}

static void walk_join(struct walk *w, uint32_t ticket)
{
    struct admission_flight *f = &w->live[ticket].flight;
    const struct admission_pools pools = model_pools(w, 0);
    struct yolk_verdict verdict;
    const double load = model_now(w, f->tokens);
    const bool may = admission_judge_join(w->admission, &pools, ticket, w->now, &verdict);

    if (w->options.policy != YOLK_POLICY_ADAPTIVE) assert_int_equal(may, load <= 1);
    if (w->options.door) assert_true(may);
    if (!may) {
        assert_int_equal(verdict.refusal, YOLK_REFUSAL_TBT_AT_JOIN);
        admission_land(w->admission, ticket, false, w->now);
        w->live[ticket].used = false;
        return;
    }
    f->joined = true;
    f->join_ms = w->now;
    admission_join(w->admission, ticket, w->now);
}

static void walk_end(struct walk *w, uint32_t ticket, bool complete)
{
    const struct admission_flight *f = &w->live[ticket].flight;

    if (complete && f->joined) {
        w->ended++;
        w->ended_ms += w->now - f->join_ms;
    }
    admission_land(w->admission, ticket, complete, w->now);
    w->live[ticket].used = false;
}

static void walk_step(struct walk *w, struct rng *rng)
{
    const uint32_t t = (uint32_t)rng_below(rng, TICKETS);
    struct admission_flight *f = &w->live[t].flight;
    const uint64_t dice = rng_below(rng, 10);

    w->now += 30 * rng_unit(rng);
    if (!w->live[t].used) {
        walk_arrive(w, rng, t);
    } else if (!f->joined) {
        walk_join(w, t);
    } else if (!f->started && w->options.door) {
        f->started = true;
        f->join_ms = w->now;
        admission_start(w->admission, t, w->now);
    } else if (dice < 7) {
        const uint32_t tokens = (uint32_t)rng_below(rng, 30);
        f->tokens += tokens;
        f->output_tokens += tokens;
        admission_grow(w->admission, t, tokens);
    } else if (w->ended < 900) { /* the mean is exact while its window is not full */
        walk_end(w, t, dice < 9);
    } else {
        walk_end(w, t, false);
    }
}

static void walk_policy(enum yolk_policy policy, bool door, uint64_t seed)
{
    struct walk w = { .options = { .policy = policy, .ttft_ms = 900, .tbt_ms = 24, .door = door } };
    struct rng rng;

    rng_init(&rng, seed + (uint64_t)policy);
    for (uint32_t i = 0; i < DECODERS; i++)
        conductor_fit_init(&w.fits[i], CONDUCTOR_FIT_DECODE);
    assert_int_equal(admission_create(TICKETS, DECODERS, &w.admission), STATUS_OK);
    admission_set(w.admission, &w.options);
    for (int step = 0; step < STEPS; step++)
        walk_step(&w, &rng);
    printf("%s: accepted %u, refused %u\n", yolk_policy_name(policy), w.accepted, w.refused);
    /* The walk is worth something only if it saw both. */
    assert_true(w.accepted > 100 && w.refused > 100);
    struct yolk_admission_stats stats;
    admission_stats(w.admission, &stats);
    assert_int_equal(stats.accepted, w.accepted);
    assert_true(w.ended == 0 || fabs(stats.decode_ms - w.ended_ms / w.ended) < 1e-6);
    admission_destroy(w.admission);
}

static void test_random_walks(void **state)
{
    (void)state;
    const uint64_t seed = test_seed();

    walk_policy(YOLK_POLICY_BASELINE, false, seed);
    walk_policy(YOLK_POLICY_EARLY, false, seed);
    walk_policy(YOLK_POLICY_PREDICT, false, seed);
    walk_policy(YOLK_POLICY_ADAPTIVE, false, seed);
    walk_policy(YOLK_POLICY_ADAPTIVE, true, seed);
}

/* ---- by hand ---- */

static struct admission *make(enum yolk_policy policy, double ttft_ms, double tbt_ms)
{
    const struct yolk_admission_options options = { .policy = policy,
                                                    .ttft_ms = ttft_ms,
                                                    .tbt_ms = tbt_ms };
    struct admission *admission = NULL;
    assert_int_equal(admission_create(TICKETS, DECODERS, &admission), STATUS_OK);
    admission_set(admission, &options);
    return admission;
}

static struct conductor_fit fit_of_tests;

/* One decoder with this many sequences of 1000 tokens. */
static struct admission_pools one_decoder(uint32_t sequences)
{
    static struct admission_decoder decoder;

    conductor_fit_init(&fit_of_tests, CONDUCTOR_FIT_DECODE);
    decoder = (struct admission_decoder){ 0, sequences, sequences * 1000, &fit_of_tests };
    return (struct admission_pools){ &decoder, 1, 0 };
}

static const struct admission_question SMALL = { .own_ms = 10, .tokens = 1000, .output_max = 100 };

static void fly(struct admission *a, uint32_t ticket, uint32_t output_max, double join_ms,
                bool joined)
{
    const struct admission_flight flight = {
        .decode = 0, .tokens = 1000, .output_max = output_max, .join_ms = join_ms
    };
    admission_take_off(a, ticket, &flight);
    if (joined) admission_join(a, ticket, join_ms);
}

/* With a door, nobody decodes beyond the limit: so many come in, and no more are accepted than will
 * find a place when they join. */
static void test_door(void **state)
{
    (void)state;
    const struct yolk_admission_options door = {
        .policy = YOLK_POLICY_ADAPTIVE, .ttft_ms = 1e6, .tbt_ms = 30, .door = true
    };
    struct admission *a = make(YOLK_POLICY_ADAPTIVE, 1e6, 30);
    struct admission_pools pools = one_decoder(4);
    struct yolk_verdict verdict;

    assert_int_equal(admission_batch_max(a, &pools.decoders[0]), UINT32_MAX); /* no door */
    admission_set(a, &door);
    const uint32_t most = admission_batch_max(a, &pools.decoders[0]);
    assert_true(most >= 1 && most < 40);
    assert_true(conductor_cost_decode(&fit_of_tests, most, most * 1000.0) <= 30);
    assert_true(conductor_cost_decode(&fit_of_tests, most + 1, (most + 1) * 1000.0) > 30);
    for (uint32_t t = 0; t + 1 < most; t++)
        fly(a, t, 1000, 0, true);
    pools = one_decoder(most - 1);
    admission_judge(a, &pools, &SMALL, &verdict);
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_NONE);
    fly(a, most - 1, 1000, 0, true);
    pools = one_decoder(most);
    admission_judge(a, &pools, &SMALL, &verdict);
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_TBT_PREDICTED);
    assert_true(verdict.predicted_load > 1 && verdict.retry_after_ms > 0);
    /* One that came and cannot come in waits; it is not refused. */
    fly(a, most, 1000, 10, false);
    assert_true(admission_judge_join(a, &pools, most, 10, &verdict));
    /* Waiting is learned from, up to the share that may. */
    struct yolk_admission_stats before, after;
    admission_stats(a, &before);
    admission_join(a, most, 10);
    admission_stats(a, &after);
    assert_true(after.margin_tbt == before.margin_tbt);
    admission_start(a, most, 500);
    admission_stats(a, &after);
    assert_true(after.margin_tbt > before.margin_tbt);
    admission_destroy(a);
}

static void test_inactive(void **state)
{
    (void)state;
    struct admission *a = make(YOLK_POLICY_ADAPTIVE, 0, 0);

    assert_false(admission_active(a));
    const struct yolk_admission_options only_tbt = { .policy = YOLK_POLICY_EARLY,
                                                     .ttft_ms = 0,
                                                     .tbt_ms = 1 };
    admission_set(a, &only_tbt);
    assert_true(admission_active(a));
    const struct yolk_admission_options none = { .policy = YOLK_POLICY_NONE,
                                                 .ttft_ms = 1,
                                                 .tbt_ms = 1 };
    admission_set(a, &none);
    assert_false(admission_active(a));
    admission_destroy(a);
}

/* The anti-phase trap: the pool is empty now, and ten are on their way to it. */
static void test_prediction_sees_those_on_their_way(void **state)
{
    (void)state;
    struct yolk_verdict verdict;
    const struct admission_pools empty = one_decoder(0);
    const enum yolk_policy policies[] = { YOLK_POLICY_EARLY, YOLK_POLICY_PREDICT,
                                          YOLK_POLICY_ADAPTIVE };

    for (int p = 0; p < 3; p++) {
        struct admission *a = make(policies[p], 0, 20);
        for (uint32_t i = 0; i < 10; i++)
            fly(a, i, 1000, 5, false);
        admission_judge(a, &empty, &SMALL, &verdict);
        assert_int_equal(verdict.refusal == YOLK_REFUSAL_NONE, policies[p] == YOLK_POLICY_EARLY);
        admission_destroy(a);
    }
}

/* The pool is full now, but everybody in it ends before this prefill does. */
static void test_adaptive_knows_when_they_end(void **state)
{
    (void)state;
    struct yolk_verdict verdict;
    struct admission_question late = SMALL;
    const struct admission_pools full = one_decoder(10);

    late.own_ms = 1000;
    for (int p = YOLK_POLICY_EARLY; p <= YOLK_POLICY_ADAPTIVE; p++) {
        struct admission *a = make((enum yolk_policy)p, 0, 20);
        for (uint32_t i = 0; i < 10; i++)
            fly(a, i, 5, 0, true); /* five tokens each at most, of some 30 ms */
        admission_judge(a, &full, &late, &verdict);
        assert_int_equal(verdict.refusal == YOLK_REFUSAL_NONE, p == YOLK_POLICY_ADAPTIVE);
        if (p == YOLK_POLICY_EARLY) {
            assert_int_equal(verdict.refusal, YOLK_REFUSAL_TBT);
            assert_true(verdict.retry_after_ms >= 100);
        }
        admission_destroy(a);
    }
}

static void test_margins_follow_what_happened(void **state)
{
    (void)state;
    struct admission *a = make(YOLK_POLICY_ADAPTIVE, 100, 10);
    struct yolk_admission_stats before, after;

    admission_stats(a, &before);
    fly(a, 0, 100, 0, false);
    admission_join(a, 0, 101); /* late */
    admission_grow(a, 0, 11);
    admission_land(a, 0, true, 101 + 99); /* 9.9 ms a token */
    admission_stats(a, &after);
    assert_true(after.margin_ttft > before.margin_ttft);
    assert_true(after.margin_tbt < before.margin_tbt);
    assert_int_equal(after.late_ttft, 1);
    assert_int_equal(after.late_tbt, 0);
    for (int i = 0; i < 5000; i++) {
        fly(a, 0, 100, 0, false);
        admission_join(a, 0, 1);
        admission_land(a, 0, true, 2);
    }
    admission_stats(a, &after);
    assert_true(after.margin_ttft == 0); /* never below the mean */
    for (int i = 0; i < 5000; i++) {
        fly(a, 0, 100, 0, false);
        admission_join(a, 0, 1000);
        admission_land(a, 0, false, 2000);
    }
    admission_stats(a, &after);
    assert_true(after.margin_ttft == 4);
    admission_destroy(a);
}

/* Under pressure the last of the room is for small requests; without pressure for anybody. */
static void test_reservation(void **state)
{
    (void)state;
    struct admission *a = make(YOLK_POLICY_ADAPTIVE, 1000, 0);
    const struct admission_pools pools = one_decoder(0);
    struct admission_question big = {
        .queue_ms = 500, .own_ms = 450, .tokens = 1, .output_max = 1
    };
    const struct admission_question hopeless = { .queue_ms = 5000, .own_ms = 10, .tokens = 1 };
    struct yolk_verdict verdict;

    for (int i = 0; i < 10; i++)
        admission_judge(a, &pools, &SMALL, &verdict);
    admission_judge(a, &pools, &big, &verdict);
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_NONE);
    for (int i = 0; i < 200; i++) {
        admission_judge(a, &pools, &hopeless, &verdict);
        assert_int_equal(verdict.refusal, YOLK_REFUSAL_TTFT);
        assert_true(verdict.retry_after_ms >= 4010);
    }
    admission_judge(a, &pools, &big, &verdict);
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_RESERVED);
    struct admission_question alone = big; /* nobody waits there: nothing is kept for others */
    alone.queue_ms = 0;
    alone.own_ms = 950;
    admission_judge(a, &pools, &alone, &verdict);
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_NONE);
    struct admission_question small = SMALL;
    small.queue_ms = 940; /* the same first token, cheaper */
    admission_judge(a, &pools, &small, &verdict);
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_NONE);
    big.priority = 1;
    admission_judge(a, &pools, &big, &verdict);
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_NONE);
    small.priority = -1;
    admission_judge(a, &pools, &small, &verdict);
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_RESERVED);
    admission_destroy(a);
}

/* A tenant that takes more than its share is the first to feel the pressure. */
static void test_fairness(void **state)
{
    (void)state;
    struct admission *a = make(YOLK_POLICY_ADAPTIVE, 1000, 0);
    const struct admission_pools pools = one_decoder(0);
    const struct admission_question hopeless = { .queue_ms = 5000, .own_ms = 10, .tokens = 1 };
    struct yolk_verdict verdict;
    struct admission_question q = { .queue_ms = 940, .own_ms = 10, .tokens = 1, .output_max = 1 };

    for (uint32_t i = 0; i < 8; i++) {
        const char name[2] = { (char)('a' + (int)i), 0 };
        const struct admission_flight flight = { .class_index = admission_class(a, name, NULL, 0),
                                                 .tokens = i == 0 ? 100000 : 100 };
        admission_take_off(a, i, &flight);
    }
    for (int i = 0; i < 200; i++)
        admission_judge(a, &pools, &hopeless, &verdict);
    q.class_index = admission_class(a, "b", NULL, 0);
    admission_judge(a, &pools, &q, &verdict);
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_NONE);
    q.class_index = admission_class(a, "a", NULL, 0);
    admission_judge(a, &pools, &q, &verdict);
    assert_int_equal(verdict.refusal, YOLK_REFUSAL_RESERVED);
    admission_destroy(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_walks),
        cmocka_unit_test(test_inactive),
        cmocka_unit_test(test_door),
        cmocka_unit_test(test_prediction_sees_those_on_their_way),
        cmocka_unit_test(test_adaptive_knows_when_they_end),
        cmocka_unit_test(test_margins_follow_what_happened),
        cmocka_unit_test(test_reservation),
        cmocka_unit_test(test_fairness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
