/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/conductor_test.c
 *
 * Goal:   the books balance whatever happens: no decision beyond a limit, no ticket lost, queue
 *         estimates that follow the work, and the reuse decisions the papers ask for.
 * Method: small situations written by hand, then a random walk of placing, finishing, adding and
 *         removing, checked against counters kept apart. SEED repeats the walk. */
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
#include "yolk/conductor.h"

enum { BLOCK = 32, PROMPT_BLOCKS = 64, PROMPT = PROMPT_BLOCKS * BLOCK + 1 };

static struct block_key keys[PROMPT_BLOCKS];

static struct yolk_conductor *make(uint32_t tickets_max)
{
    struct yolk_conductor_options options = yolk_conductor_defaults();
    struct yolk_conductor *conductor = NULL;
    struct errmsg err;

    options.instances_max = 8;
    options.holdings_max = 4096;
    options.tickets_max = tickets_max;
    options.decisions_max = 4;
    options.block_tokens = BLOCK;
    options.block_size = 737280;
    assert_int_equal(yolk_conductor_create(&options, &conductor, &err), STATUS_OK);
    return conductor;
}

static struct yolk_instance_id add(struct yolk_conductor *conductor, const char *name,
                                   unsigned roles, uint32_t pages)
{
    return fixture_add(conductor, (struct yolk_instance){ name, "host", roles, pages, 8 });
}

static struct yolk_place_request prompt(void)
{
    return fixture_request(PROMPT, 31, keys, PROMPT_BLOCKS);
}

static void test_options_are_checked(void **state)
{
    (void)state;
    struct yolk_conductor_options options = yolk_conductor_defaults();
    struct yolk_conductor *conductor = NULL;
    struct errmsg err = { "" };

    assert_int_equal(yolk_conductor_create(&options, &conductor, &err), STATUS_INVALID);
    options.block_size = 1;
    options.block_tokens = 33;
    assert_int_equal(yolk_conductor_create(&options, &conductor, &err), STATUS_INVALID);
    options.block_tokens = 32;
    options.theta = NAN;
    assert_int_equal(yolk_conductor_create(&options, &conductor, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "theta"));
    assert_null(conductor);
}

static void test_availability(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(4);
    struct yolk_place_request request = prompt();
    struct yolk_decision decision;

    assert_int_equal(yolk_conductor_place(c, &request, 0, &decision), STATUS_UNAVAILABLE);
    const struct yolk_instance_id p = add(c, "p", YOLK_ROLE_PREFILL, 1000);
    /* The only node takes both roles. */
    assert_int_equal(yolk_conductor_place(c, &request, 0, &decision), STATUS_OK);
    assert_int_equal(decision.decode.index, p.index);
    yolk_conductor_finish(c, decision.ticket, STATUS_OK, 1);

    const struct yolk_instance_id d = add(c, "d", YOLK_ROLE_DECODE, 66);
    assert_int_equal(yolk_conductor_place(c, &request, 2, &decision), STATUS_OK);
    assert_int_equal(decision.prefill.index, p.index);
    assert_int_equal(decision.decode.index, d.index);
    assert_int_equal(decision.reason, YOLK_REUSE_COLD);
    /* 2049 + 31 tokens are 65 pages: a second one does not fit beside it. */
    struct yolk_decision second;
    assert_int_equal(yolk_conductor_place(c, &request, 3, &second), STATUS_FULL);
    yolk_conductor_finish(c, decision.ticket, STATUS_OK, 4);
    assert_int_equal(yolk_conductor_place(c, &request, 5, &second), STATUS_OK);
    yolk_conductor_finish(c, second.ticket, STATUS_OK, 6);
    request.output_tokens = 1000; /* never fits */
    assert_int_equal(yolk_conductor_place(c, &request, 7, &second), STATUS_INVALID);

    request.output_tokens = 31;
    yolk_conductor_suspect(c, p, true);
    assert_int_equal(yolk_conductor_place(c, &request, 8, &second), STATUS_OK);
    assert_int_equal(second.prefill.index, d.index);
    yolk_conductor_suspect(c, d, true);
    assert_int_equal(yolk_conductor_place(c, &request, 9, &decision), STATUS_UNAVAILABLE);
    yolk_conductor_finish(c, second.ticket, STATUS_CONN_CLOSED, 10);
    const struct yolk_instance again = { "p", "host", YOLK_ROLE_PREFILL, 1, 1 };
    struct yolk_instance_id id;
    assert_int_equal(yolk_conductor_add(c, &again, &id), STATUS_EXISTS);
    yolk_conductor_destroy(c);
}

/* What is kept for an answer at first may be less than its limit; it grows with the answer. */
static void test_room_grows(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(4);
    struct yolk_place_request request = prompt();
    struct yolk_decision first, second;

    add(c, "d", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE, 140);
    request.output_tokens = 1000; /* 65 pages at first, 96 at most */
    request.reserve_tokens = 31;
    assert_int_equal(yolk_conductor_place(c, &request, 0, &first), STATUS_OK);
    assert_int_equal(yolk_conductor_place(c, &request, 1, &second), STATUS_OK);
    yolk_conductor_finish(c, second.ticket, STATUS_OK, 2);
    for (int i = 0; i < 31 + 10 * BLOCK; i++)
        yolk_conductor_decoded(c, first.ticket, 1);
    assert_int_equal(yolk_conductor_place(c, &request, 3, &second), STATUS_OK);
    yolk_conductor_decoded(c, second.ticket, 31 + 1);
    yolk_conductor_finish(c, second.ticket, STATUS_OK, 4);
    yolk_conductor_decoded(c, first.ticket, 1);
    assert_int_equal(yolk_conductor_place(c, &request, 5, &second), STATUS_FULL);
    yolk_conductor_finish(c, first.ticket, STATUS_OK, 6);
    assert_int_equal(yolk_conductor_place(c, &request, 7, &second), STATUS_OK);
    yolk_conductor_finish(c, second.ticket, STATUS_OK, 8);
    request.output_tokens = 3000;
    assert_int_equal(yolk_conductor_place(c, &request, 9, &second), STATUS_INVALID);
    yolk_conductor_destroy(c);
}

static void test_reuse_decisions(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(4);
    struct yolk_place_request request = prompt();
    struct yolk_decision decision;
    const struct yolk_instance_id a = add(c, "a", YOLK_ROLE_PREFILL, 1000);
    const struct yolk_instance_id d = add(c, "d", YOLK_ROLE_DECODE, 1000);

    assert_int_equal(yolk_conductor_stored(c, a, keys, 10, YOLK_TIER_DRAM), STATUS_OK);
    assert_int_equal(yolk_conductor_place(c, &request, 0, &decision), STATUS_OK);
    assert_int_equal(decision.reason, YOLK_REUSE_LOCAL);
    assert_int_equal(decision.reuse_blocks, 10);
    assert_string_equal(decision.holder_name, "a");
    yolk_conductor_finish(c, decision.ticket, STATUS_OK, 1);

    /* The decode node holds everything: worth fetching, and never the last token. */
    assert_int_equal(yolk_conductor_stored(c, d, keys, PROMPT_BLOCKS, YOLK_TIER_DRAM), STATUS_OK);
    assert_int_equal(yolk_conductor_place(c, &request, 2, &decision), STATUS_OK);
    assert_int_equal(decision.reason, YOLK_REUSE_FETCH);
    assert_int_equal(decision.reuse_blocks, PROMPT_BLOCKS);
    assert_int_equal(decision.holder.index, d.index);
    assert_true(decision.transfer_ms > 0);
    yolk_conductor_finish(c, decision.ticket, STATUS_OK, 3);
    request.tokens = PROMPT - 1;
    assert_int_equal(yolk_conductor_place(c, &request, 4, &decision), STATUS_OK);
    assert_int_equal(decision.reuse_blocks, PROMPT_BLOCKS - 1);
    yolk_conductor_finish(c, decision.ticket, STATUS_OK, 5);

    /* A holder that just failed is not asked again; a suspected one neither. */
    request.avoid_holder = d;
    assert_int_equal(yolk_conductor_place(c, &request, 6, &decision), STATUS_OK);
    assert_int_equal(decision.reuse_blocks, 10);
    yolk_conductor_finish(c, decision.ticket, STATUS_OK, 7);
    request.avoid_holder = YOLK_INSTANCE_NONE;

    /* One that leaves is asked for its blocks as ever, and gets no work. */
    yolk_conductor_leave(c, d);
    yolk_conductor_leave(c, d);
    assert_int_equal(yolk_conductor_place(c, &request, 7.5, &decision), STATUS_OK);
    assert_int_equal(decision.decode.index, a.index);
    assert_int_equal(decision.prefill.index, a.index);
    assert_int_equal(decision.holder.index, d.index);
    yolk_conductor_finish(c, decision.ticket, STATUS_OK, 7.6);

    /* Transfers turn out to be dreadful: recompute. */
    for (int i = 0; i < 200; i++) {
        assert_int_equal(yolk_conductor_learn_transfer(c, YOLK_PATH_HOST, 1 << 20, 60000),
                         STATUS_OK);
    }
    assert_int_equal(yolk_conductor_place(c, &request, 8, &decision), STATUS_OK);
    assert_int_equal(decision.reason, YOLK_REUSE_RECOMPUTE);
    assert_int_equal(decision.best_blocks, PROMPT_BLOCKS - 1);
    yolk_conductor_finish(c, decision.ticket, STATUS_OK, 9);

    yolk_conductor_removed(c, a, keys + 3, 1); /* a hole ends the prefix */
    yolk_conductor_cleared(c, d);
    assert_int_equal(yolk_conductor_place(c, &request, 10, &decision), STATUS_OK);
    assert_int_equal(decision.reuse_blocks, 3);
    yolk_conductor_finish(c, decision.ticket, STATUS_OK, 11);
    yolk_conductor_destroy(c);
}

static void test_reuse_off(void **state)
{
    (void)state;
    struct yolk_conductor_options options = yolk_conductor_defaults();
    struct yolk_conductor *c = NULL;
    struct yolk_decision decision;

    options.block_tokens = BLOCK;
    options.block_size = 1;
    options.reuse = false;
    assert_int_equal(yolk_conductor_create(&options, &c, NULL), STATUS_OK);
    const struct yolk_instance_id a = add(c, "a", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE, 1000);
    const struct yolk_place_request request = prompt();
    assert_int_equal(yolk_conductor_stored(c, a, keys, 10, YOLK_TIER_DRAM), STATUS_OK);
    assert_int_equal(yolk_conductor_place(c, &request, 0, &decision), STATUS_OK);
    assert_int_equal(decision.reuse_blocks, 0);
    yolk_conductor_finish(c, decision.ticket, STATUS_OK, 1);
    yolk_conductor_destroy(c);
}

/* Requests go to the instance whose queue is shorter, and the queue drains with time. */
static void test_queue_estimate(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(8);
    const struct yolk_place_request request = prompt();
    struct yolk_decision first, second, third;

    add(c, "a", YOLK_ROLE_PREFILL, 1000);
    add(c, "b", YOLK_ROLE_PREFILL, 1000);
    add(c, "d", YOLK_ROLE_DECODE, 1000);
    assert_int_equal(yolk_conductor_place(c, &request, 0, &first), STATUS_OK);
    assert_int_equal(yolk_conductor_place(c, &request, 0, &second), STATUS_OK);
    assert_int_not_equal(first.prefill.index, second.prefill.index);
    assert_true(second.queue_ms == 0);
    const double work = first.compute_ms;
    /* A quarter later either queue has three quarters left. */
    assert_int_equal(yolk_conductor_place(c, &request, work / 4, &third), STATUS_OK);
    assert_true(fabs(third.queue_ms - 0.75 * work) < 1e-6);
    /* Far over the prediction, the head counts a tenth of what it ran, and the third all of it. */
    struct yolk_decision fourth;
    yolk_conductor_finish(c, second.ticket, STATUS_OK, work);
    yolk_conductor_finish(c, third.ticket, STATUS_CANCELLED, work);
    yolk_conductor_suspect(c, second.prefill, true);
    assert_int_equal(yolk_conductor_place(c, &request, 10 * work, &fourth), STATUS_OK);
    assert_true(fabs(fourth.queue_ms - work) < 1e-6);
    yolk_conductor_prefill_done(c, first.ticket, 0, 10 * work);
    yolk_conductor_finish(c, first.ticket, STATUS_OK, 11 * work);
    yolk_conductor_finish(c, fourth.ticket, STATUS_OK, 11 * work);

    struct yolk_decision logged;
    assert_true(yolk_conductor_decision(c, 3, &logged));
    assert_true(logged.finished && logged.outcome == STATUS_OK);
    assert_true(fabs(logged.actual_ttft_ms - 10 * work) < 1e-6);
    assert_false(yolk_conductor_decision(c, 4, &logged)); /* decisions_max is 4 */
    yolk_conductor_destroy(c);
}

/* ---- random walk ---- */

enum { WALK_TICKETS = 12, WALK_INSTANCES = 6, WALK_STEPS = 20000 };

struct walk {
    struct yolk_conductor *c;
    struct yolk_decision live[WALK_TICKETS];
    bool prefilled[WALK_TICKETS];
    bool detached[WALK_TICKETS]; /* its decode instance was removed */
    uint32_t live_count;
    struct yolk_instance_id ids[WALK_INSTANCES];
    bool up[WALK_INSTANCES];
    uint32_t pages[WALK_INSTANCES]; /* promised, by instance */
    double now;
};

static uint32_t walk_slot(const struct walk *w, struct yolk_instance_id id)
{
    for (uint32_t i = 0; i < WALK_INSTANCES; i++) {
        if (w->up[i] && w->ids[i].index == id.index) return i;
    }
    fail();
    return 0;
}

static void walk_place(struct walk *w, struct rng *rng)
{
    struct yolk_place_request request = prompt();
    struct yolk_decision decision;

    request.tokens = 1 + (uint32_t)rng_below(rng, PROMPT);
    request.keys_count = request.tokens / BLOCK;
    const enum status status = yolk_conductor_place(w->c, &request, w->now, &decision);
    if (status != STATUS_OK) {
        assert_true(status == STATUS_FULL || status == STATUS_UNAVAILABLE);
        return;
    }
    assert_true(w->live_count < WALK_TICKETS);
    const uint32_t slot = walk_slot(w, decision.decode);
    w->pages[slot] += (request.tokens + 31 + BLOCK - 1) / BLOCK;
    assert_true(w->pages[slot] <= 200);
    assert_true((uint64_t)decision.reuse_blocks * BLOCK < request.tokens);
    assert_true(decision.ttft_ms >= 0 && isfinite(decision.ttft_ms));
    walk_slot(w, decision.prefill);
    w->prefilled[w->live_count] = false;
    w->detached[w->live_count] = false;
    w->live[w->live_count++] = decision;
}

static void walk_finish(struct walk *w, uint32_t i)
{
    const struct yolk_decision *decision = &w->live[i];
    if (!w->detached[i]) {
        w->pages[walk_slot(w, decision->decode)] -= (decision->tokens + 31 + BLOCK - 1) / BLOCK;
    }
    yolk_conductor_finish(w->c, decision->ticket, STATUS_OK, w->now);
    w->live_count--;
    w->live[i] = w->live[w->live_count];
    w->prefilled[i] = w->prefilled[w->live_count];
    w->detached[i] = w->detached[w->live_count];
}

static void walk_toggle(struct walk *w, uint32_t i)
{
    static const char *const NAMES[WALK_INSTANCES] = { "a", "b", "c", "d", "e", "f" };

    if (!w->up[i]) {
        w->ids[i] = add(w->c, NAMES[i], i % 2 ? YOLK_ROLE_DECODE : YOLK_ROLE_PREFILL, 200);
        w->up[i] = true;
        return;
    }
    for (uint32_t t = 0; t < w->live_count; t++) {
        if (!w->detached[t] && w->live[t].decode.index == w->ids[i].index) w->detached[t] = true;
    }
    yolk_conductor_remove(w->c, w->ids[i]);
    w->up[i] = false;
    w->pages[i] = 0;
}

static void walk_step(struct walk *w, struct rng *rng)
{
    const uint32_t i = (uint32_t)rng_below(rng, WALK_INSTANCES);
    const uint32_t t = w->live_count ? (uint32_t)rng_below(rng, w->live_count) : 0;
    const uint64_t dice = rng_below(rng, 100);

    w->now += 100 * rng_unit(rng);
    if (dice < 40) {
        walk_place(w, rng);
    } else if (dice < 60 && w->live_count > 0) {
        walk_finish(w, t);
    } else if (dice < 75 && w->live_count > 0 && !w->prefilled[t]) {
        yolk_conductor_prefill_done(w->c, w->live[t].ticket, 0, w->now);
        w->prefilled[t] = true;
    } else if (dice < 80 && w->live_count > 0) {
        yolk_conductor_decoded(w->c, w->live[t].ticket, 1);
    } else if (dice < 95 && w->up[i]) {
        const enum status status = yolk_conductor_stored(
            w->c, w->ids[i], keys, 1 + rng_below(rng, PROMPT_BLOCKS), YOLK_TIER_DRAM);
        assert_int_equal(status, STATUS_OK);
    } else if (dice >= 98) {
        walk_toggle(w, i);
    }
}

static void test_random_walk(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 99;
    static struct walk walk;
    struct yolk_conductor_stats stats;
    struct rng rng;

    printf("SEED=%llu\n", (unsigned long long)seed);
    rng_init(&rng, seed);
    walk.c = make(WALK_TICKETS);
    for (int step = 0; step < WALK_STEPS; step++) {
        walk_step(&walk, &rng);
        yolk_conductor_stats(walk.c, &stats);
        assert_int_equal(stats.tickets, walk.live_count);
    }
    assert_true(stats.decisions > WALK_STEPS / 20);
    while (walk.live_count > 0)
        walk_finish(&walk, 0);
    for (uint32_t i = 0; i < WALK_INSTANCES; i++) {
        if (walk.up[i]) walk_toggle(&walk, i);
    }
    yolk_conductor_stats(walk.c, &stats);
    assert_int_equal(stats.holdings, 0);
    assert_int_equal(stats.instances, 0);
    yolk_conductor_destroy(walk.c);
}

/* With a stretch a short prompt goes before long ones that came a little earlier, and its queue is
 * what is before it; without, everybody waits for all who came. */
static void test_short_prompts_first(void **state)
{
    (void)state;
    for (int stretch = 0; stretch <= 10; stretch += 10) {
        struct yolk_conductor_options options = yolk_conductor_defaults();
        struct yolk_conductor *c = NULL;
        struct yolk_decision running, later, longer, shorter;
        options.instances_max = 4;
        options.block_tokens = BLOCK;
        options.block_size = 737280;
        options.stretch = stretch;
        assert_int_equal(yolk_conductor_create(&options, &c, NULL), STATUS_OK);
        add(c, "p", YOLK_ROLE_PREFILL, 10000);
        add(c, "d", YOLK_ROLE_DECODE, 10000);
        struct yolk_place_request request = prompt();
        request.keys_count = 0;
        assert_int_equal(yolk_conductor_place(c, &request, 0, &running), STATUS_OK);
        assert_int_equal(yolk_conductor_place(c, &request, 0, &longer), STATUS_OK);
        assert_true(fabs(longer.queue_ms - running.compute_ms) < 1e-6);
        request.tokens = 64;
        assert_int_equal(yolk_conductor_place(c, &request, 1, &shorter), STATUS_OK);
        const double behind_one = running.compute_ms - 1;
        const double want = stretch > 0 ? behind_one : behind_one + longer.compute_ms;
        assert_true(fabs(shorter.queue_ms - want) < 1e-6);
        assert_int_equal(shorter.order_ms<longer.order_ms, stretch> 0);
        /* Long after, the long one has waited its turn. */
        const double late_ms = 2 + 10 * longer.compute_ms;
        assert_int_equal(yolk_conductor_place(c, &request, late_ms, &later), STATUS_OK);
        assert_true(later.order_ms > longer.order_ms);
        assert_true(later.queue_ms > longer.compute_ms);
        yolk_conductor_destroy(c);
    }
}

static void test_bad_samples(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(1);
    const struct yolk_instance_id a = add(c, "a", YOLK_ROLE_PREFILL, 10);
    struct yolk_conductor_stats stats;

    assert_int_equal(yolk_conductor_learn_prefill(c, a, 10, 11, 5), STATUS_INVALID);
    assert_int_equal(yolk_conductor_learn_prefill(c, a, 10, 0, NAN), STATUS_INVALID);
    assert_int_equal(yolk_conductor_learn_decode(c, a, NAN, 1, 1), STATUS_INVALID);
    assert_int_equal(yolk_conductor_learn_transfer(c, YOLK_PATH_NETWORK, 1, -1), STATUS_INVALID);
    yolk_conductor_stats(c, &stats);
    assert_int_equal(stats.samples_refused, 4);
    assert_int_equal(stats.samples_prefill + stats.samples_decode + stats.samples_transfer, 0);
    yolk_conductor_destroy(c);
}

/* Keys depend on everything before them and on the identity; they are the same for ever. */
static void test_keys(void **state)
{
    (void)state;
    struct conductor_key_identity identity = { { 1 }, 16, CONDUCTOR_ELEMENT_F16, 0 };
    const struct block_key root = conductor_key_root(&identity);
    uint32_t tokens[40];
    struct block_key a[2], b[2];
    char hex[BLOCK_KEY_HEX_SIZE];

    for (uint32_t i = 0; i < 40; i++)
        tokens[i] = i * 1000003u;
    assert_int_equal(conductor_keys(&root, tokens, 40, 16, a), 2);
    assert_int_equal(conductor_keys(&root, tokens, 31, 16, b), 1);
    assert_memory_equal(&a[0], &b[0], sizeof(a[0]));
    tokens[0] ^= 1;
    conductor_keys(&root, tokens, 40, 16, b);
    assert_memory_not_equal(&a[0], &b[0], sizeof(a[0]));
    assert_memory_not_equal(&a[1], &b[1], sizeof(a[1]));
    const struct block_key salted = conductor_key_next(&root, &a[1], tokens, 16);
    assert_memory_not_equal(&salted, &b[0], sizeof(salted));
    identity.block_tokens = 32;
    const struct block_key other = conductor_key_root(&identity);
    assert_memory_not_equal(&root, &other, sizeof(root));
    /* Frozen: computed independently with another SHA-256. */
    block_key_to_hex(&root, hex);
    assert_string_equal(hex, "1bdbfca9573794ba0d282e7bb38c9318");
    block_key_to_hex(&a[1], hex);
    assert_string_equal(hex, "b24931a8593c44f62aa637432d6211fc");
}

/* What answers take is learned of each asker, also when no policy is set. */
static void test_answer_tokens(void **state)
{
    (void)state;
    struct yolk_conductor *c = make(4);
    const struct yolk_asker brief = { .tenant = "a", .route = "chat" };
    const struct yolk_asker wordy = { .tenant = "b", .route = "chat" };
    const struct yolk_place_request request = prompt();
    uint32_t all[2] = { 0 };

    add(c, "d", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE, 1000);
    const uint32_t guess = yolk_conductor_answer_tokens(c, NULL, 0.75);
    assert_true(guess > 100 && guess < 1000);
    assert_int_equal(yolk_conductor_answer_tokens(c, &brief, 0.75), guess);
    for (uint32_t i = 0; i < 200; i++) {
        struct yolk_decision d;
        struct yolk_verdict verdict;
        const bool first = i % 2 == 0;
        assert_int_equal(
            yolk_conductor_admit(c, &request, first ? &brief : &wordy, i, &d, &verdict), STATUS_OK);
        yolk_conductor_prefill_done(c, d.ticket, 0, i);
        yolk_conductor_decoded(c, d.ticket, first ? 5 : 2000);
        yolk_conductor_finish(c, d.ticket, STATUS_OK, i);
    }
    all[0] = yolk_conductor_answer_tokens(c, &brief, 0.75);
    all[1] = yolk_conductor_answer_tokens(c, &wordy, 0.75);
    assert_true(all[0] >= 5 && all[0] < 10);
    assert_true(all[1] >= 1900 && all[1] < 2600);
    yolk_conductor_destroy(c);
}

/* Half of what the only instance holds is on SSD: it is loaded if the SSD is fast, and computed if
 * it is slow, as far as that is learned. */
static void test_ssd_is_loaded_where_that_is_sooner(void **state)
{
    (void)state;
    for (int slow = 0; slow < 2; slow++) {
        struct yolk_conductor *conductor = make(16);
        const struct yolk_instance_id id =
            add(conductor, "n", YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE, 1000);
        const struct yolk_place_request request = prompt();
        const uint32_t half = PROMPT_BLOCKS / 2;
        struct yolk_decision decision;

        for (int i = 0; i < 200; i++) {
            const uint64_t bytes = 737280 * (uint64_t)(1 + i % PROMPT_BLOCKS);
            const double ms = (double)bytes / (slow ? 1e3 : 1e7); /* 1 MB/s or 10 GB/s */
            assert_int_equal(yolk_conductor_learn_load(conductor, bytes, ms), STATUS_OK);
        }
        assert_int_equal(yolk_conductor_stored(conductor, id, keys, half, YOLK_TIER_DRAM),
                         STATUS_OK);
        assert_int_equal(yolk_conductor_stored(conductor, id, keys + half, half, YOLK_TIER_SSD),
                         STATUS_OK);
        assert_int_equal(yolk_conductor_place(conductor, &request, 0, &decision), STATUS_OK);
        assert_int_equal(decision.local_blocks, PROMPT_BLOCKS);
        assert_int_equal(decision.own_blocks, decision.reuse_blocks);
        if (slow) assert_true(decision.reuse_blocks >= half && decision.reuse_blocks < half + 4);
        if (!slow) assert_int_equal(decision.reuse_blocks, PROMPT_BLOCKS);
        yolk_conductor_finish(conductor, decision.ticket, STATUS_OK, 1);
        assert_int_equal(yolk_conductor_learn_load(conductor, 1, NAN), STATUS_INVALID);
        yolk_conductor_destroy(conductor);
    }
}

int main(void)
{
    for (uint32_t i = 0; i < PROMPT_BLOCKS; i++)
        memcpy(keys[i].bytes, &i, sizeof(i));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ssd_is_loaded_where_that_is_sooner),
        cmocka_unit_test(test_options_are_checked),
        cmocka_unit_test(test_availability),
        cmocka_unit_test(test_room_grows),
        cmocka_unit_test(test_answer_tokens),
        cmocka_unit_test(test_reuse_decisions),
        cmocka_unit_test(test_reuse_off),
        cmocka_unit_test(test_queue_estimate),
        cmocka_unit_test(test_random_walk),
        cmocka_unit_test(test_short_prompts_first),
        cmocka_unit_test(test_bad_samples),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
