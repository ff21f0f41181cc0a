/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/parts_test.c
 *
 * Goal:   the parts of the simulator do what their headers say.
 * Method: each against a model too simple to be wrong, on a seeded random walk: the event heap
 *         against a search for the least, the cache against an array of last uses, the batch
 *         against lists of every token's time; and flows by hand, where shares can be computed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "sim/batch.h"
#include "sim/events.h"
#include "sim/kvcache.h"
#include "sim/layers.h"
#include "sim/line.h"
#include "sim/links.h"

/* ---- events ---- */

static void events_come_in_order(void **state)
{
    (void)state;
    struct rng rng;
    struct events events;
    struct event event;
    uint64_t waiting[512];
    uint32_t count = 0, next = 0;

    rng_init(&rng, 7);
    events_init(&events);
    for (int step = 0; step < 20000; step++) {
        if (count < 512 && (count == 0 || rng_below(&rng, 2) == 0)) {
            const uint64_t time = events.now_ns + rng_below(&rng, 50);
            assert_int_equal(events_push(&events, (struct event){ .time_ns = time, .who = next }),
                             STATUS_OK);
            waiting[count++] = time << 32 | next++;
        } else {
            uint32_t least = 0;
            for (uint32_t i = 1; i < count; i++)
                if (waiting[i] < waiting[least]) least = i;
            assert_true(events_pop(&events, &event));
            assert_true((event.time_ns << 32 | event.who) == waiting[least]);
            waiting[least] = waiting[--count];
        }
    }
    events_fini(&events);
}

/* ---- cache ---- */

enum { IDS = 40 };

static void the_cache_is_an_lru_that_spares_what_is_pinned(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rng rng;
        struct kvcache *cache = NULL;
        uint64_t used[IDS] = { 0 }; /* when; 0: not there */
        uint32_t pins[IDS] = { 0 }, count = 0;

        rng_init(&rng, seed);
        assert_int_equal(kvcache_create(16, 5, &cache), STATUS_OK);
        for (uint64_t now = 1; now < 4000; now++) {
            const uint32_t id = (uint32_t)rng_below(&rng, IDS);
            uint32_t gone = IDS, oldest = IDS, fresher = 0;
            switch (rng_below(&rng, 4)) {
            case 0:
            case 1:
                assert_int_equal(kvcache_touch(cache, id), used[id] != 0);
                if (used[id] == 0) {
                    const enum status status = kvcache_insert(cache, id);
                    assert_int_equal(status, count == 16 ? STATUS_FULL : STATUS_OK);
                    if (status != STATUS_OK) break;
                    count++;
                }
                used[id] = now;
                break;
            case 2:
                for (uint32_t i = 0; i < IDS; i++)
                    if (used[i] && !pins[i] && (oldest == IDS || used[i] < used[oldest]))
                        oldest = i;
                assert_int_equal(kvcache_evict(cache, &gone), oldest != IDS);
                assert_int_equal(gone, oldest);
                if (oldest == IDS) break;
                used[oldest] = 0;
                count--;
                break;
            case 3:
                if (used[id] == 0) break;
                if (pins[id] > 0 && rng_below(&rng, 2) == 0) {
                    kvcache_unpin(cache, id);
                    pins[id]--;
                } else {
                    kvcache_pin(cache, id);
                    pins[id]++;
                }
                break;
            }
            assert_int_equal(kvcache_count(cache), count);
            if (used[id] == 0) continue;
            /* A block that was demoted comes back only when it is used; so fast means that fewer
             * than 5 are fresher, but not the other way round after evictions. */
            for (uint32_t i = 0; i < IDS; i++)
                if (used[i] > used[id]) fresher++;
            if (kvcache_is_fast(cache, id)) assert_true(fresher < 5);
            if (used[id] == now) assert_true(kvcache_is_fast(cache, id));
        }
        kvcache_destroy(cache);
    }
}

/* ---- batch ---- */

enum { SEQUENCES = 12, TOKENS_MAX = 70 };

struct sequence {
    bool in;
    uint32_t count, steps, context;
    double times[TOKENS_MAX + 1];
};

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void expect_intervals(struct batch_intervals found, const struct sequence *sequence)
{
    double gaps[TOKENS_MAX], sum = 0, longest = 0;
    const uint32_t n = sequence->steps, most = (n + 9) / 10;
    for (uint32_t i = 0; i < n; i++)
        sum += gaps[i] = sequence->times[i + 1] - sequence->times[i];
    qsort(gaps, n, sizeof(*gaps), descending);
    for (uint32_t i = 0; i < most; i++)
        longest += gaps[i];
    assert_true(fabs(found.mean_ms - sum / n / 1e6) < 1e-9 * (1 + found.mean_ms));
    assert_true(fabs(found.longest_ms - longest / most / 1e6) < 1e-9 * (1 + found.longest_ms));
}

static void the_batch_matches_a_list_of_all_tokens(void **state)
{
    (void)state;
    struct rng rng;
    struct batch *batch = NULL;
    struct sequence sequences[SEQUENCES] = { { .in = false } };
    uint64_t now = 0;
    uint32_t left = 0;

    rng_init(&rng, 3);
    assert_int_equal(batch_create(SEQUENCES, TOKENS_MAX, &batch), STATUS_OK);
    for (int step = 0; step < 5000; step++) {
        const uint32_t who = (uint32_t)rng_below(&rng, SEQUENCES);
        struct sequence *joins = &sequences[who];
        struct batch_member member;
        uint32_t count = 0;
        double context = 0;

        if (!joins->in) {
            *joins = (struct sequence){ .in = true,
                                        .steps = 1 + (uint32_t)rng_below(&rng, TOKENS_MAX),
                                        .context = (uint32_t)rng_below(&rng, 1000) };
            joins->times[0] = (double)now;
            batch_join(batch, who, joins->context, joins->steps, now);
        }
        now += 1 + rng_below(&rng, rng_below(&rng, 9) == 0 ? 90000000 : 3000);
        batch_step(batch, now);
        for (uint32_t i = 0; i < SEQUENCES; i++)
            if (sequences[i].in) sequences[i].times[++sequences[i].count] = (double)now;
        while (batch_leave(batch, &member)) {
            struct sequence *leaves = &sequences[member.who];
            assert_true(leaves->in && leaves->count == leaves->steps);
            expect_intervals(batch_measure(batch, &member), leaves);
            leaves->in = false;
            left++;
        }
        for (uint32_t i = 0; i < SEQUENCES; i++) {
            if (!sequences[i].in) continue;
            assert_true(sequences[i].count < sequences[i].steps);
            count++;
            context += sequences[i].context + sequences[i].count;
        }
        assert_int_equal(batch_count(batch), count);
        assert_true(batch_context(batch) == context);
    }
    assert_true(left > 1000);
    batch_destroy(batch);
}

/* ---- links ---- */

enum { FLOW = 9 };

/* Runs until a flow ends; its tag. */
static uint64_t until_end(struct links *links, struct events *events)
{
    struct event event;
    uint64_t tag = 0;
    bool ended = false;
    while (!ended) {
        assert_true(events_pop(events, &event));
        assert_int_equal(links_event(links, &event, &ended, &tag), STATUS_OK);
    }
    return tag;
}

static void flows_share_what_they_have_in_common(void **state)
{
    (void)state;
    struct events events;
    struct links *links = NULL;
    const struct links_options options = { 4, 100, FLOW }; /* 100 bytes a second */

    events_init(&events);
    assert_int_equal(links_create(&options, &events, &links), STATUS_OK);
    assert_int_equal(links_start(links, 0, 1, 100, 1), STATUS_OK);
    assert_int_equal(links_start(links, 0, 2, 300, 2), STATUS_OK);
    assert_int_equal(links_start(links, 1, 0, 250, 3), STATUS_OK); /* the other way: alone */
    assert_true(links_rate_out(links, 0) == 100 && links_rate_in(links, 1) == 50);
    assert_int_equal(until_end(links, &events), 1); /* at 2 s, at half rate */
    assert_true(events.now_ns == 2000000000);
    assert_int_equal(links_sending(links, 0), 1);
    assert_int_equal(until_end(links, &events), 3); /* at 2.5 s */
    assert_true(events.now_ns == 2500000000);
    assert_int_equal(until_end(links, &events), 2); /* 100 by 2 s, then 200 at 100 */
    assert_true(events.now_ns == 4000000000);
    assert_int_equal(links_flows(links), 0);
    assert_true(links_bytes_sent(links, 0) == 400 && links_bytes_received(links, 0) == 250);
    links_destroy(links);
    events_fini(&events);
}

static void no_link_carries_more_than_it_can(void **state)
{
    (void)state;
    struct rng rng;
    struct events events;
    struct links *links = NULL;
    const struct links_options options = { 6, 1000, FLOW };
    double sent = 0, out = 0, in = 0;
    uint32_t started = 0, ended = 0;

    rng_init(&rng, 11);
    events_init(&events);
    assert_int_equal(links_create(&options, &events, &links), STATUS_OK);
    while (ended < 3000) {
        if (started < 3000 && (links_flows(links) == 0 || rng_below(&rng, 3) > 0)) {
            const uint32_t from = (uint32_t)rng_below(&rng, 6);
            const uint32_t to = (from + 1 + (uint32_t)rng_below(&rng, 5)) % 6;
            const double bytes = (double)rng_below(&rng, 5000);
            assert_int_equal(links_start(links, from, to, bytes, started++), STATUS_OK);
            sent += bytes;
        } else {
            (void)until_end(links, &events);
            ended++;
        }
        for (uint32_t i = 0; i < 6; i++) {
            assert_true(links_rate_out(links, i) <= 1000 * (1 + 1e-12));
            assert_true(links_rate_in(links, i) <= 1000 * (1 + 1e-12));
        }
    }
    for (uint32_t i = 0; i < 6; i++) {
        out += links_bytes_sent(links, i);
        in += links_bytes_received(links, i);
    }
    assert_true(out == sent && in == sent);
    assert_true((double)events.now_ns / 1e9 >= sent / 6000);
    links_destroy(links);
    events_fini(&events);
}

/* ---- lines ---- */

static void a_line_keeps_its_order(void **state)
{
    (void)state;
    struct rng rng;
    struct line line;
    uint32_t model[256], count = 0;

    rng_init(&rng, 11);
    line_init(&line);
    for (int step = 0; step < 20000; step++) {
        const uint64_t dice = rng_below(&rng, 100);
        const uint32_t who = (uint32_t)rng_below(&rng, 300);
        uint32_t at = 0;
        if (dice < 50 && count < 256) {
            at = (uint32_t)rng_below(&rng, count + 1);
            memmove(model + at + 1, model + at, (count++ - at) * sizeof(*model));
            model[at] = who;
            assert_int_equal(line_insert(&line, who, at), STATUS_OK);
        } else if (dice < 80 && count > 0) {
            assert_int_equal(line_pop(&line), model[0]);
            memmove(model, model + 1, --count * sizeof(*model));
        } else {
            while (at < count && model[at] != who)
                at++;
            assert_int_equal(line_leave(&line, who), at < count);
            if (at < count) memmove(model + at, model + at + 1, (--count - at) * sizeof(*model));
        }
        assert_int_equal(line.count, count);
        for (uint32_t i = 0; i < count; i++)
            assert_int_equal(line_at(&line, i), model[i]);
    }
    line_fini(&line);
}

/* ---- storing ---- */

static void storing_hides_behind_computing(void **state)
{
    (void)state;
    struct sim_profile cost = *sim_profile_at(0);
    cost.layers = 4;
    cost.store_bytes_s = 1000 * cost.kv_token_bytes; /* a thousand tokens a second */
    cost.store_launch_s = 0.25;

    assert_true(layers_store_s(&cost, LAYERS_MEASURED, 8000, 5) == 0);
    /* Copies of 2 s behind layers of 10 s: only launches and the last copy are seen. */
    assert_true(fabs(layers_store_s(&cost, LAYERS_LAYERWISE, 8000, 40) - 3) < 1e-9);
    assert_true(fabs(layers_store_s(&cost, LAYERS_SERIALIZED, 8000, 40) - 8) < 1e-9);
    /* Behind layers of half a second the copies queue: the first layer, then four copies. */
    assert_true(fabs(layers_store_s(&cost, LAYERS_LAYERWISE, 8000, 2) - 6.75) < 1e-9);
    /* A copy shorter than its launch takes the launch. */
    assert_true(fabs(layers_store_s(&cost, LAYERS_SERIALIZED, 400, 2) - 1) < 1e-9);
    /* Layer by layer is never longer than afterwards by more than the launches. */
    struct rng rng;
    rng_init(&rng, 3);
    for (int i = 0; i < 1000; i++) {
        const double tokens = 20000 * rng_unit(&rng), compute = 20 * rng_unit(&rng);
        assert_true(layers_store_s(&cost, LAYERS_LAYERWISE, tokens, compute) <=
                    layers_store_s(&cost, LAYERS_SERIALIZED, tokens, compute) + 1 + 1e-9);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_in_order),
        cmocka_unit_test(the_cache_is_an_lru_that_spares_what_is_pinned),
        cmocka_unit_test(the_batch_matches_a_list_of_all_tokens),
        cmocka_unit_test(flows_share_what_they_have_in_common),
        cmocka_unit_test(no_link_carries_more_than_it_can),
        cmocka_unit_test(a_line_keeps_its_order),
        cmocka_unit_test(storing_hides_behind_computing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
