/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/explain_test.c
 *
 * Goal:   candidates are those the decision was made from; regret is what the definition in
 *         yolk/explain.h says; every block that was not reused has one reason, and the right one;
 *         the alarm comes and goes.
 * Method: a random walk of a small cluster against a model that keeps everything: every departure
 *         from every queue, copies of all cost fits, who holds and who once held every block. Then
 *         situations written by hand, one for each reason. SEED repeats the walk. */
#include "yolk/explain.h"

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
#include "conductor/cost.h"

enum {
    BLOCK = 32,
    PREFILLERS = 5,
    DECODERS = 2,
    CHAINS = 6,
    CHAIN_BLOCKS = 40,
    FLYING = 24,
    DECISIONS = 64,
    STEPS = 8000,
    BLOCK_SIZE = 737280,
};

static struct block_key key_of(uint32_t chain, uint32_t i)
{
    const uint64_t low = rng_counter(chain, i), high = rng_counter(chain + 1000, i);
    struct block_key key;

    memcpy(key.bytes, &low, sizeof(low));
    memcpy(key.bytes + sizeof(low), &high, sizeof(high));
    return key;
}

static struct yolk_conductor *make(void)
{
    struct yolk_conductor_options options = yolk_conductor_defaults();
    struct yolk_conductor *conductor = NULL;

    options.instances_max = 8;
    options.holdings_max = 8192;
    options.tickets_max = FLYING;
    options.decisions_max = DECISIONS;
    options.block_tokens = BLOCK;
    options.block_size = BLOCK_SIZE;
    options.theta = 1;
    assert_int_equal(yolk_conductor_create(&options, &conductor, NULL), STATUS_OK);
    return conductor;
}

static struct yolk_instance_id add(struct yolk_conductor *c, const char *name, const char *host,
                                   unsigned roles)
{
    return fixture_add(c, (struct yolk_instance){ name, host, roles, 100000, 1000 });
}

static struct yolk_place_request request_of(const struct block_key *keys, uint32_t blocks)
{
    return fixture_request(blocks * BLOCK + 1, 8, keys, blocks);
}

static uint32_t sum(const uint32_t missed[YOLK_MISSES])
{
    uint32_t all = 0;
    for (int i = 0; i < YOLK_MISSES; i++)
        all += missed[i];
    return all;
}

/* ---- the walk ---- */

struct flight {
    bool used, prefilled;
    struct yolk_ticket ticket;
    uint32_t prefill; /* position in ids[] */
    uint64_t number;  /* of its decision */
    uint32_t tokens, predicted, reusable;
    double placed_ms, actual_ms;
    uint32_t candidates;
    uint32_t instance[YOLK_CANDIDATES]; /* position in ids[] */
    uint32_t ahead[YOLK_CANDIDATES];    /* departures there when all before it have left */
    bool empty[YOLK_CANDIDATES];
    uint32_t reuse[YOLK_CANDIDATES], moved[YOLK_CANDIDATES];
    int path[YOLK_CANDIDATES];
};

struct walk {
    struct yolk_conductor *c;
    struct rng rng;
    double now_ms;
    struct yolk_instance_id ids[PREFILLERS];
    struct conductor_fit fit[PREFILLERS], transfer[YOLK_PATHS];
    double left[PREFILLERS][STEPS];
    uint32_t left_count[PREFILLERS], queued[PREFILLERS];
    uint32_t held[PREFILLERS][CHAINS]; /* leading blocks of each chain */
    uint32_t once[CHAINS];             /* ever held by anybody */
    struct block_key keys[CHAINS][CHAIN_BLOCKS];
    struct flight flights[FLYING];
    uint32_t chains_made;
    uint64_t decisions;
    uint64_t judged, wrong;
    double regret_ms;
    uint32_t regretted, evicted, never, declined, short_of; /* what the walk met */
};

static uint32_t index_of(const char *name)
{
    assert_true(name[0] == 'p' && name[1] >= '0' && name[1] < '0' + PREFILLERS);
    return (uint32_t)(name[1] - '0');
}

static const char *host_of(uint32_t i)
{
    return i % 2 ? "odd" : "even";
}

static void explanation_of(struct walk *w, const struct flight *f, struct yolk_explanation *out)
{
    assert_true(yolk_conductor_explanation(w->c, (uint32_t)(w->decisions - 1 - f->number), out));
}

/* Every block has a reason, and the model's. */
static void check_misses(struct walk *w, uint32_t chain, const struct yolk_explanation *x)
{
    uint32_t best = 0;

    for (uint32_t i = 0; i < PREFILLERS; i++)
        best = w->held[i][chain] > best ? w->held[i][chain] : best;
    best = best < x->reusable_blocks ? best : x->reusable_blocks;
    const uint32_t once = w->once[chain] < x->reusable_blocks ? w->once[chain] : x->reusable_blocks;
    assert_int_equal(x->missed[YOLK_MISS_DECLINED], best - x->predicted_blocks);
    assert_int_equal(x->missed[YOLK_MISS_EVICTED], once - best);
    assert_int_equal(x->missed[YOLK_MISS_NEVER_SEEN], x->reusable_blocks - once);
    assert_int_equal(sum(x->missed), x->reusable_blocks - x->predicted_blocks);
    w->declined += x->missed[YOLK_MISS_DECLINED] > 0;
    w->evicted += x->missed[YOLK_MISS_EVICTED] > 0;
    w->never += x->missed[YOLK_MISS_NEVER_SEEN] > 0;
}

static void note_candidate(struct walk *w, struct flight *f, const struct yolk_explanation *x,
                           uint32_t i, uint32_t chain)
{
    const struct yolk_prefill_candidate *candidate = &x->prefill[i];
    const uint32_t at = index_of(candidate->name);
    const uint32_t own = w->held[at][chain] < f->reusable ? w->held[at][chain] : f->reusable;

    f->instance[i] = at;
    f->ahead[i] = w->left_count[at] + w->queued[at];
    f->empty[i] = w->queued[at] == 0;
    f->reuse[i] = candidate->reuse_blocks;
    if (candidate->holder_name[0] != '\0') {
        const uint32_t holder = index_of(candidate->holder_name);
        f->moved[i] = candidate->reuse_blocks - own;
        f->path[i] = host_of(holder) == host_of(at) ? YOLK_PATH_HOST : YOLK_PATH_NETWORK;
        assert_true(f->moved[i] > 0 && w->held[holder][chain] >= candidate->reuse_blocks);
    } else {
        assert_int_equal(candidate->reuse_blocks, own);
    }
    assert_true(candidate->hindsight_ms < 0);
    assert_int_equal(candidate->samples, w->fit[at].samples);
    assert_true(candidate->ttft_ms ==
                candidate->queue_ms + candidate->transfer_ms + candidate->compute_ms);
    assert_true(i == 0 || x->prefill[i - 1].ttft_ms <= candidate->ttft_ms);
    assert_true(i == 0 || x->decode_count < 2 || x->decode[0].tbt_ms <= x->decode[1].tbt_ms);
}

static void step_place(struct walk *w, struct flight *f)
{
    const uint32_t chain = (uint32_t)rng_below(&w->rng, CHAINS);
    const uint32_t blocks = 1 + (uint32_t)rng_below(&w->rng, CHAIN_BLOCKS);
    const struct yolk_place_request request = request_of(w->keys[chain], blocks);
    struct yolk_explanation x;
    struct yolk_decision d;

    assert_int_equal(yolk_conductor_place(w->c, &request, w->now_ms, &d), STATUS_OK);
    *f = (struct flight){ .used = true,
                          .ticket = d.ticket,
                          .prefill = index_of(d.prefill_name),
                          .number = w->decisions++,
                          .tokens = request.tokens,
                          .predicted = d.reuse_blocks,
                          .reusable = blocks,
                          .placed_ms = w->now_ms };
    explanation_of(w, f, &x);
    assert_string_equal(x.prefill[0].name, d.prefill_name);
    assert_string_equal(x.decode[0].name, d.decode_name);
    assert_true(x.prefill[0].ttft_ms == d.ttft_ms && x.decode[0].tbt_ms == d.tbt_ms);
    assert_int_equal(x.prefill_count, YOLK_CANDIDATES);
    assert_int_equal(x.decode_count, DECODERS);
    assert_int_equal(x.predicted_blocks, d.reuse_blocks);
    assert_int_equal(x.reusable_blocks, blocks);
    assert_true(x.realised_blocks < 0 && x.regret_ms < 0);
    assert_true(yolk_conductor_regret(w->c, d.ticket) < 0);
    f->candidates = x.prefill_count;
    for (uint32_t i = 0; i < x.prefill_count; i++)
        note_candidate(w, f, &x, i, chain);
    check_misses(w, chain, &x);
    w->queued[f->prefill]++;
}

static void leave_queue(struct walk *w, const struct flight *f)
{
    w->left[f->prefill][w->left_count[f->prefill]++] = w->now_ms;
    w->queued[f->prefill]--;
}

static void learn(struct walk *w, uint32_t i, double tokens, double reused, double ms)
{
    assert_int_equal(
        yolk_conductor_learn_prefill(w->c, w->ids[i], (uint32_t)tokens, (uint32_t)reused, ms),
        STATUS_OK);
    assert_int_equal(conductor_fit_prefill(&w->fit[i], tokens, reused, ms), STATUS_OK);
}

static void step_prefilled(struct walk *w, struct flight *f)
{
    const bool short_of = f->predicted > 0 && rng_below(&w->rng, 4) == 0;
    const uint32_t realised = short_of ? (uint32_t)rng_below(&w->rng, f->predicted) : f->predicted;
    const enum yolk_miss why = rng_below(&w->rng, 2) ? YOLK_MISS_TIMEOUT : YOLK_MISS_EVICTED;
    struct yolk_explanation before, x;

    explanation_of(w, f, &before);
    if (short_of) yolk_conductor_missed(w->c, f->ticket, why);
    yolk_conductor_prefill_done(w->c, f->ticket, realised * BLOCK, w->now_ms);
    explanation_of(w, f, &x);
    assert_int_equal(x.realised_blocks, realised);
    assert_int_equal(sum(x.missed), f->reusable - realised);
    assert_int_equal(x.missed[why], before.missed[why] + (f->predicted - realised));
    f->prefilled = true;
    f->actual_ms = w->now_ms - f->placed_ms;
    w->short_of += short_of;
    leave_queue(w, f);
    learn(w, f->prefill, f->tokens, realised * BLOCK, 20 + 400 * rng_unit(&w->rng));
}

/* What candidate i would have cost, from everything that was written down. */
static double naive_hindsight(const struct walk *w, const struct flight *f, uint32_t i)
{
    const uint32_t at = f->instance[i];
    double wait = 0;

    if (!f->empty[i]) {
        if (w->left_count[at] < f->ahead[i]) return INFINITY;
        wait = w->left[at][f->ahead[i] - 1] - f->placed_ms;
        assert_true(wait >= 0);
    }
    const double compute =
        conductor_cost_prefill(&w->fit[at], f->tokens, (double)f->reuse[i] * BLOCK);
    if (f->moved[i] == 0) return wait + compute;
    return wait + compute +
           conductor_cost_transfer(&w->transfer[f->path[i]], (double)f->moved[i] * BLOCK_SIZE);
}

static void check_regret(struct walk *w, const struct flight *f, double asked_ms)
{
    struct yolk_explanation x;
    double best = INFINITY, spread = 0;

    explanation_of(w, f, &x);
    assert_true(x.prefill[0].hindsight_ms == f->actual_ms);
    for (uint32_t i = 1; i < f->candidates; i++) {
        const double ms = naive_hindsight(w, f, i), got = x.prefill[i].hindsight_ms;
        assert_true(isinf(ms) ? isinf(got) : fabs(ms - got) <= 1e-6 * (1 + ms));
        if (ms >= best) continue;
        best = ms;
        spread = conductor_cost_spread(&w->fit[f->instance[i]],
                                       conductor_cost_prefill(&w->fit[f->instance[i]], f->tokens,
                                                              (double)f->reuse[i] * BLOCK));
    }
    const double regret = best < f->actual_ms ? f->actual_ms - best : 0;
    assert_true(fabs(x.regret_ms - regret) <= 1e-6 * (1 + regret));
    assert_true(x.regret_ms == asked_ms);
    assert_true(fabs(x.regret_spread_ms - spread) <= 1e-6 * (1 + spread));
    w->judged++;
    w->wrong += regret > spread;
    w->regret_ms += regret;
    w->regretted += regret > 0;
}

static void step_finish(struct walk *w, struct flight *f)
{
    const double asked_ms = yolk_conductor_regret(w->c, f->ticket);

    yolk_conductor_finish(w->c, f->ticket, STATUS_OK, w->now_ms);
    if (f->prefilled) {
        check_regret(w, f, asked_ms);
    } else {
        leave_queue(w, f);
        assert_true(asked_ms < 0);
    }
    f->used = false;
}

/* Chains grow and shrink at their ends, as nodes store and evict. */
static void step_event(struct walk *w)
{
    const uint32_t i = (uint32_t)rng_below(&w->rng, PREFILLERS);
    const uint32_t chain = (uint32_t)rng_below(&w->rng, CHAINS);
    const uint32_t n = (uint32_t)rng_below(&w->rng, CHAIN_BLOCKS + 1);
    const uint32_t have = w->held[i][chain];

    if (rng_below(&w->rng, 300) == 0) {
        yolk_conductor_cleared(w->c, w->ids[i]);
        memset(w->held[i], 0, sizeof(w->held[i]));
        return;
    }
    if (n > have) {
        assert_int_equal(
            yolk_conductor_stored(w->c, w->ids[i], w->keys[chain] + have, n - have, YOLK_TIER_DRAM),
            STATUS_OK);
    } else {
        yolk_conductor_removed(w->c, w->ids[i], w->keys[chain] + n, have - n);
    }
    w->held[i][chain] = n;
    if (n > w->once[chain]) w->once[chain] = n;
}

/* A chain that nobody has ever heard of takes the place of one that everybody forgets. */
static void step_new_chain(struct walk *w)
{
    const uint32_t chain = (uint32_t)rng_below(&w->rng, CHAINS);

    for (uint32_t i = 0; i < PREFILLERS; i++) {
        yolk_conductor_removed(w->c, w->ids[i], w->keys[chain], w->held[i][chain]);
        w->held[i][chain] = 0;
    }
    for (uint32_t i = 0; i < CHAIN_BLOCKS; i++)
        w->keys[chain][i] = key_of(w->chains_made, i);
    w->chains_made++;
    w->once[chain] = 0;
}

static void step_learn(struct walk *w)
{
    const int path = (int)rng_below(&w->rng, YOLK_PATHS);
    const uint64_t bytes = rng_below(&w->rng, 1u << 26);
    const double ms = (double)bytes / 1e6 * (0.5 + rng_unit(&w->rng));

    assert_int_equal(yolk_conductor_learn_transfer(w->c, (enum yolk_path)path, bytes, ms),
                     STATUS_OK);
    assert_int_equal(conductor_fit_transfer(&w->transfer[path], (double)bytes, ms), STATUS_OK);
    learn(w, (uint32_t)rng_below(&w->rng, PREFILLERS), 100 + (double)rng_below(&w->rng, 2000), 0,
          50 + 300 * rng_unit(&w->rng));
}

static void start_walk(struct walk *w, uint64_t seed)
{
    char name[] = "p0";

    rng_init(&w->rng, seed);
    w->c = make();
    for (uint32_t i = 0; i < PREFILLERS; i++) {
        name[1] = (char)('0' + i);
        w->ids[i] = add(w->c, name, host_of(i), YOLK_ROLE_PREFILL);
        conductor_fit_init(&w->fit[i], CONDUCTOR_FIT_PREFILL);
    }
    add(w->c, "d0", "even", YOLK_ROLE_DECODE);
    add(w->c, "d1", "odd", YOLK_ROLE_DECODE);
    for (int i = 0; i < YOLK_PATHS; i++)
        conductor_fit_init(&w->transfer[i], CONDUCTOR_FIT_TRANSFER);
    w->chains_made = CHAINS;
    for (uint32_t chain = 0; chain < CHAINS; chain++) {
        for (uint32_t i = 0; i < CHAIN_BLOCKS; i++)
            w->keys[chain][i] = key_of(chain, i);
    }
}

static void test_matches_model(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 8;
    static struct walk w;
    struct yolk_explain_stats stats;

    printf("SEED=%llu\n", (unsigned long long)seed);
    start_walk(&w, seed);
    for (uint32_t step = 0; step < STEPS; step++) {
        struct flight *f = &w.flights[rng_below(&w.rng, FLYING)];
        const uint64_t dice = rng_below(&w.rng, 100);
        w.now_ms += 10 * rng_unit(&w.rng);
        if (f->used && f->number + DECISIONS <= w.decisions + 1) {
            step_finish(&w, f); /* before the ring forgets it */
        } else if (dice < 2) {
            step_new_chain(&w);
        } else if (dice < 20) {
            step_event(&w);
        } else if (dice < 25) {
            step_learn(&w);
        } else if (!f->used) {
            step_place(&w, f);
        } else if (!f->prefilled && dice < 95) {
            step_prefilled(&w, f);
        } else {
            step_finish(&w, f);
        }
        for (uint32_t i = 0; i < FLYING; i++) { /* nobody stays until his record is gone */
            struct flight *old = &w.flights[i];
            if (old->used && old->number + DECISIONS <= w.decisions) step_finish(&w, old);
        }
    }
    yolk_conductor_explain_stats(w.c, &stats);
    assert_int_equal(stats.judged, w.judged);
    assert_int_equal(stats.wrong, w.wrong);
    assert_true(fabs(stats.regret_ms - w.regret_ms) < 1e-6 * (1 + w.regret_ms));
    assert_true(stats.bytes > 0);
    /* The walk met everything, or it proved little. */
    assert_true(w.judged > 500 && w.regretted > 100 && w.regretted < w.judged - 100);
    assert_true(w.evicted > 100 && w.never > 100 && w.declined > 10 && w.short_of > 50);
    for (uint32_t i = 0; i < FLYING; i++) {
        if (w.flights[i].used) yolk_conductor_finish(w.c, w.flights[i].ticket, STATUS_OK, w.now_ms);
    }
    yolk_conductor_destroy(w.c);
}

/* ---- one situation for each reason ---- */

struct world {
    struct yolk_conductor *c;
    struct yolk_instance_id p;
    struct block_key keys[CHAIN_BLOCKS];
    uint64_t prefixes[CHAIN_BLOCKS], texts[1];
    struct yolk_prompt prompt;
};

static void start_world(struct world *w)
{
    w->c = make();
    w->p = add(w->c, "p0", "h", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE);
    for (uint32_t i = 0; i < CHAIN_BLOCKS; i++) {
        w->keys[i] = key_of(1, i);
        w->prefixes[i] = yolk_prefix_next(i > 0 ? w->prefixes[i - 1] : YOLK_PREFIX_ROOT, &i, 1);
    }
    w->texts[0] = yolk_text_next(0, "hello", 5);
    w->prompt = (struct yolk_prompt){ .prefixes = w->prefixes,
                                      .layout = 1,
                                      .texts = w->texts,
                                      .texts_count = 1,
                                      .text_blocks = CHAIN_BLOCKS };
}

/* Places the prompt under keys of its own when `chain` is another; served to the end. */
static struct yolk_explanation ask(struct world *w, uint32_t chain, uint32_t cached_blocks)
{
    struct yolk_place_request request = request_of(w->keys, CHAIN_BLOCKS);
    struct yolk_explanation x;
    struct yolk_decision d;

    for (uint32_t i = 0; i < CHAIN_BLOCKS; i++)
        w->keys[i] = key_of(chain, i);
    request.prompt = &w->prompt;
    assert_int_equal(yolk_conductor_place(w->c, &request, 0, &d), STATUS_OK);
    yolk_conductor_prefill_done(w->c, d.ticket, cached_blocks * BLOCK, 10);
    yolk_conductor_finish(w->c, d.ticket, STATUS_OK, 20);
    assert_true(yolk_conductor_explanation(w->c, 0, &x));
    return x;
}

static void test_reasons(void **state)
{
    (void)state;
    struct world w;

    start_world(&w);
    assert_int_equal(ask(&w, 1, 0).missed[YOLK_MISS_NEVER_SEEN], CHAIN_BLOCKS);
    /* Again, and nobody has been heard to hold it. */
    assert_int_equal(ask(&w, 1, 0).missed[YOLK_MISS_PENDING], CHAIN_BLOCKS);
    /* Found although nobody had said so: then nothing was missed. */
    assert_int_equal(sum(ask(&w, 1, CHAIN_BLOCKS).missed), 0);
    assert_int_equal(yolk_conductor_stored(w.c, w.p, w.keys, CHAIN_BLOCKS, YOLK_TIER_DRAM),
                     STATUS_OK);
    assert_int_equal(sum(ask(&w, 1, CHAIN_BLOCKS).missed), 0);
    yolk_conductor_removed(w.c, w.p, w.keys + 30, CHAIN_BLOCKS - 30);
    assert_int_equal(ask(&w, 1, 30).missed[YOLK_MISS_EVICTED], CHAIN_BLOCKS - 30);
    /* Gone when it was asked for. */
    assert_int_equal(ask(&w, 1, 25).missed[YOLK_MISS_EVICTED], CHAIN_BLOCKS - 25);
    /* The same tokens, other keys. */
    w.prompt.salt = 5;
    assert_int_equal(ask(&w, 2, 0).missed[YOLK_MISS_SALT], CHAIN_BLOCKS);
    w.prompt.layout = 2;
    assert_int_equal(ask(&w, 3, 0).missed[YOLK_MISS_LAYOUT], CHAIN_BLOCKS);
    /* The same text, other tokens. */
    for (uint32_t i = 0; i < CHAIN_BLOCKS; i++)
        w.prefixes[i] ^= 0x5555555555u;
    assert_int_equal(ask(&w, 4, 0).missed[YOLK_MISS_TEMPLATE], CHAIN_BLOCKS);
    /* Another text as well. */
    for (uint32_t i = 0; i < CHAIN_BLOCKS; i++)
        w.prefixes[i] ^= 0x3333333333u;
    w.texts[0]++;
    assert_int_equal(ask(&w, 5, 0).missed[YOLK_MISS_NEVER_SEEN], CHAIN_BLOCKS);
    yolk_conductor_destroy(w.c);
}

/* The whole cluster loses its blocks without a word. */
static void test_alarm(void **state)
{
    (void)state;
    struct world w;
    struct yolk_explain_stats stats;
    uint32_t quiet = 0;

    start_world(&w);
    assert_int_equal(yolk_conductor_stored(w.c, w.p, w.keys, CHAIN_BLOCKS, YOLK_TIER_DRAM),
                     STATUS_OK);
    for (int i = 0; i < YOLK_HITS_WINDOW; i++)
        (void)ask(&w, 1, CHAIN_BLOCKS);
    yolk_conductor_explain_stats(w.c, &stats);
    assert_false(stats.alarm);
    for (; !stats.alarm && quiet < YOLK_HITS_WINDOW; quiet++) {
        (void)ask(&w, 1, 0);
        yolk_conductor_explain_stats(w.c, &stats);
    }
    assert_int_equal(quiet, YOLK_HITS_WINDOW / 2 + 1);
    assert_int_equal(stats.alarms, 1);
    assert_int_equal(stats.window_why, YOLK_MISS_EVICTED);
    for (int i = 0; i < YOLK_HITS_WINDOW; i++)
        (void)ask(&w, 1, CHAIN_BLOCKS);
    yolk_conductor_explain_stats(w.c, &stats);
    assert_false(stats.alarm);
    assert_int_equal(stats.alarms, 1);
    assert_int_equal(stats.kept_blocks + stats.missed[YOLK_MISS_EVICTED], stats.predicted_blocks);
    yolk_conductor_destroy(w.c);
}

/* Where nobody stands in a queue and nothing is learned meanwhile, hindsight is the prediction,
 * wherever the blocks lie. */
static void test_hindsight_of_what_was_foreseen(void **state)
{
    (void)state;
    struct block_key keys[CHAIN_BLOCKS];
    struct rng rng;
    uint32_t loads = 0;

    rng_init(&rng, 6);
    for (uint32_t i = 0; i < CHAIN_BLOCKS; i++)
        keys[i] = key_of(9, i);
    for (int round = 0; round < 300; round++) {
        struct yolk_conductor *c = make();
        const struct yolk_place_request request = request_of(keys, CHAIN_BLOCKS);
        struct yolk_decision d;
        struct yolk_explanation x;
        char name[] = "p0";
        for (uint32_t i = 0; i < PREFILLERS; i++) {
            name[1] = (char)('0' + i);
            const struct yolk_instance_id id = add(c, name, host_of(i), YOLK_ROLE_PREFILL);
            const uint32_t fast = (uint32_t)rng_below(&rng, CHAIN_BLOCKS);
            const uint32_t slow = (uint32_t)rng_below(&rng, CHAIN_BLOCKS - fast);
            assert_int_equal(yolk_conductor_stored(c, id, keys, fast, YOLK_TIER_DRAM), STATUS_OK);
            assert_int_equal(yolk_conductor_stored(c, id, keys + fast, slow, YOLK_TIER_SSD),
                             STATUS_OK);
        }
        add(c, "d0", "even", YOLK_ROLE_DECODE);
        assert_int_equal(yolk_conductor_place(c, &request, 0, &d), STATUS_OK);
        yolk_conductor_prefill_done(c, d.ticket, d.reuse_blocks * BLOCK, d.ttft_ms);
        yolk_conductor_finish(c, d.ticket, STATUS_OK, d.ttft_ms);
        assert_true(yolk_conductor_explanation(c, 0, &x));
        for (uint32_t i = 1; i < x.prefill_count; i++) {
            const struct yolk_prefill_candidate *p = &x.prefill[i];
            assert_true(fabs(p->hindsight_ms - p->ttft_ms) <= 1e-9 * (1 + p->ttft_ms));
            loads += p->transfer_ms > 0;
        }
        assert_true(x.regret_ms == 0);
        yolk_conductor_destroy(c);
    }
    assert_true(loads > 50);
}

/* Two decode instances: the one that was chosen is slow, the other one has few sequences, and more
 * for half of the time. What a step there would have taken follows from the cost model by hand. */
static void test_regret_between_tokens(void **state)
{
    (void)state;
    enum { TOKENS = 11 };
    struct yolk_conductor *c = make();
    struct conductor_fit fit;
    struct yolk_decision d, other, late;
    struct yolk_explanation x;
    struct yolk_explain_stats stats;
    struct yolk_place_request request = request_of(NULL, 0);

    conductor_fit_init(&fit, CONDUCTOR_FIT_DECODE);
    request.tokens = 1000;
    add(c, "p", "h", YOLK_ROLE_PREFILL);
    const struct yolk_instance_id busy = add(c, "busy", "h", YOLK_ROLE_DECODE);
    const struct yolk_instance_id calm = add(c, "calm", "h", YOLK_ROLE_DECODE);
    request.avoid_decode = busy;
    assert_int_equal(yolk_conductor_place(c, &request, 0, &other), STATUS_OK);
    yolk_conductor_prefill_done(c, other.ticket, 0, 10); /* on calm, all the time */
    request.avoid_decode = YOLK_INSTANCE_NONE;
    assert_int_equal(yolk_conductor_place(c, &request, 20, &d), STATUS_OK);
    assert_int_equal(d.decode.index, busy.index);
    assert_true(yolk_conductor_tbt_regret(c, d.ticket, 50) < 0);
    yolk_conductor_prefill_done(c, d.ticket, 0, 100);
    yolk_conductor_decoded(c, d.ticket, 1);
    assert_true(yolk_conductor_tbt_regret(c, d.ticket, 150) <
                0); /* one token has no time between */
    request.avoid_decode = busy;
    assert_int_equal(yolk_conductor_place(c, &request, 110, &late), STATUS_OK);
    yolk_conductor_prefill_done(c, late.ticket, 0, 350); /* on calm, half of the time */
    yolk_conductor_decoded(c, d.ticket, TOKENS - 1);
    const double want =
        500.0 / (TOKENS - 1) - conductor_cost_decode(&fit, 1.5 + 1, 1500 + 1000 + TOKENS / 2.0);
    assert_true(want > 0);
    assert_true(fabs(yolk_conductor_tbt_regret(c, d.ticket, 600) - want) < 1e-9);
    yolk_conductor_finish(c, d.ticket, STATUS_OK, 600);
    assert_true(yolk_conductor_explanation(c, 1, &x));
    assert_true(fabs(x.tbt_regret_ms - want) < 1e-9);
    assert_int_equal(x.decode_count, 2);
    assert_true(fabs(x.decode[0].hindsight_ms - 50) < 1e-9);
    assert_true(fabs(x.decode[0].hindsight_ms - x.decode[1].hindsight_ms - want) < 1e-9);
    yolk_conductor_explain_stats(c, &stats);
    assert_int_equal(stats.tbt_judged, 1);
    assert_true(fabs(stats.tbt_regret_ms - want) < 1e-9);

    /* An instance that has left would not have been better; a failure is not judged. */
    request.avoid_decode = YOLK_INSTANCE_NONE;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(yolk_conductor_place(c, &request, 700, &d), STATUS_OK);
        assert_int_equal(d.decode.index, busy.index);
        yolk_conductor_prefill_done(c, d.ticket, 0, 800);
        yolk_conductor_decoded(c, d.ticket, TOKENS);
        if (i == 1) yolk_conductor_remove(c, calm);
        yolk_conductor_finish(c, d.ticket, i == 0 ? STATUS_UNAVAILABLE : STATUS_OK, 900);
        assert_true(yolk_conductor_explanation(c, 0, &x));
        assert_true(i == 0 ? x.tbt_regret_ms < 0 : x.tbt_regret_ms == 0);
    }
    assert_true(isinf(x.decode[1].hindsight_ms));
    yolk_conductor_finish(c, other.ticket, STATUS_OK, 1000);
    yolk_conductor_finish(c, late.ticket, STATUS_OK, 1000);
    yolk_conductor_destroy(c);
}

/* The prefill failed for want of the blocks: that counts, a failure for another reason does not. */
static void test_never_prefilled(void **state)
{
    (void)state;
    struct world w;
    struct yolk_explain_stats stats;
    struct yolk_explanation x;

    start_world(&w);
    assert_int_equal(yolk_conductor_stored(w.c, w.p, w.keys, CHAIN_BLOCKS, YOLK_TIER_DRAM),
                     STATUS_OK);
    for (uint32_t i = 0; i < 2; i++) {
        const struct yolk_place_request request = request_of(w.keys, CHAIN_BLOCKS);
        struct yolk_decision d;
        assert_int_equal(yolk_conductor_place(w.c, &request, 0, &d), STATUS_OK);
        if (i == 1) yolk_conductor_missed(w.c, d.ticket, YOLK_MISS_FAILED);
        yolk_conductor_finish(w.c, d.ticket, STATUS_UNAVAILABLE, 20);
        assert_true(yolk_conductor_explanation(w.c, 0, &x));
        assert_true(x.regret_ms < 0);
        yolk_conductor_explain_stats(w.c, &stats);
        assert_int_equal(stats.window_requests, i);
        assert_int_equal(x.missed[YOLK_MISS_FAILED], i * CHAIN_BLOCKS);
    }
    assert_int_equal(stats.window_why, YOLK_MISS_FAILED);
    yolk_conductor_destroy(w.c);
}

/* A conductor for another layout knows what was asked for under the old one. */
static void test_inherit(void **state)
{
    (void)state;
    struct world w;

    start_world(&w);
    assert_int_equal(ask(&w, 1, 0).missed[YOLK_MISS_NEVER_SEEN], CHAIN_BLOCKS);
    struct yolk_conductor *next = make();
    yolk_conductor_inherit(next, w.c);
    yolk_conductor_destroy(w.c);
    w.c = next;
    w.p = add(w.c, "p0", "h", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE);
    w.prompt.layout++;
    assert_int_equal(ask(&w, 2, 0).missed[YOLK_MISS_LAYOUT], CHAIN_BLOCKS);
    yolk_conductor_destroy(w.c);
}

/* An instance that has left the cluster would not have been the better choice. */
static void test_gone_candidate(void **state)
{
    (void)state;
    struct yolk_conductor *c = make();
    const struct yolk_instance_id p0 = add(c, "p0", "h", YOLK_ROLE_PREFILL);
    const struct yolk_instance_id p1 = add(c, "p1", "h", YOLK_ROLE_PREFILL);
    const struct yolk_place_request request = request_of(NULL, 0);
    struct yolk_explanation x;
    struct yolk_decision d;

    add(c, "d0", "h", YOLK_ROLE_DECODE);
    assert_int_equal(yolk_conductor_place(c, &request, 0, &d), STATUS_OK);
    assert_int_equal(d.prefill.index, p0.index);
    yolk_conductor_prefill_done(c, d.ticket, 0, 5000);
    assert_true(yolk_conductor_regret(c, d.ticket) > 4000); /* p1 was idle */
    yolk_conductor_remove(c, p1);
    add(c, "p2", "h", YOLK_ROLE_PREFILL); /* takes its slot */
    assert_true(yolk_conductor_regret(c, d.ticket) == 0);
    yolk_conductor_finish(c, d.ticket, STATUS_OK, 5001);
    assert_true(yolk_conductor_explanation(c, 0, &x));
    assert_true(isinf(x.prefill[1].hindsight_ms) && x.regret_ms == 0);
    assert_false(yolk_conductor_explanation(c, 1, &x));
    yolk_conductor_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_model),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_alarm),
        cmocka_unit_test(test_hindsight_of_what_was_foreseen),
        cmocka_unit_test(test_regret_between_tokens),
        cmocka_unit_test(test_never_prefilled),
        cmocka_unit_test(test_inherit),
        cmocka_unit_test(test_gone_candidate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
