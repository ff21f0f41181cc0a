/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/elastic_sim_test.c
 *
 * Goal:   where demand moves between prefill and decode, nodes that follow it beat every fixed
 *         split; a split that was wrong from the start heals; a demand that swings faster than a
 *         flip pays for itself moves nobody; a demand that fits moves nobody either.
 * Method: traces of two kinds of requests, long prompts with short answers and short prompts with
 *         long answers, drawn by hand; whole runs, whose laws are asserted inside. */
#include "sim/elastic.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/rng.h"
#include "sim/sim.h"

static const struct sim_progress quiet = { NULL, NULL };

/* Phases of `phase_s` seconds, prompts first; long prompts at 1.5, long answers at 1 a second:
 * either is about what six nodes of eight can do. */
static struct trace *shifting(double phase_s, double total_s)
{
    struct trace *trace = NULL;
    struct errmsg err = { "" };
    struct rng rng;
    struct buf text;

    rng_init(&rng, 7);
    buf_init(&text, 16 << 20);
    for (double now_s = 0; now_s < total_s;) {
        const bool prompts = (long)(now_s / phase_s) % 2 == 0;
        const double input = (prompts ? 20000 : 1000) * (0.5 + rng_unit(&rng));
        const double output = prompts ? 30 : 800 * (0.5 + rng_unit(&rng));
        now_s -= log(1 - rng_unit(&rng)) / (prompts ? 1.5 : 1);
        assert_int_equal(
            buf_printf(&text,
                       "{\"timestamp\": %.0f, \"input_length\": %.0f, \"output_length\": %.0f}\n",
                       now_s * 1e3, input, output),
            STATUS_OK);
    }
    if (trace_parse("t", (const char *)buf_data(&text), text.len, &trace, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    buf_fini(&text);
    return trace;
}

struct outcome {
    struct sim_summary summary;
    uint64_t flips;
    uint32_t prefill_nodes, decode_nodes; /* in the last sample */
    uint32_t moved;                       /* samples in which somebody drained */
};

static struct outcome run(const struct trace *trace, double prefill, const char *settings)
{
    struct sim_cluster cluster;
    struct sim_result *result = NULL;
    struct outcome outcome = { 0 };
    struct errmsg err = { "" };

    cluster_init(&cluster);
    if (cluster_set(&cluster, settings, &err) != STATUS_OK) fail_msg("%s", err.text);
    cluster.prefill = prefill;
    cluster.decode = 8 - prefill;
    cluster.sample_s = 1;
    if (sim_run(&cluster, trace, quiet, &result, &err) != STATUS_OK) fail_msg("%s", err.text);
    assert_int_equal(sim_summarize(result, &outcome.summary), STATUS_OK);
    outcome.flips = result->flips;
    for (uint32_t i = 0; i < result->samples_count; i++) {
        const struct sim_sample *sample = &result->samples[i];
        assert_int_equal(sample->prefill_nodes + sample->decode_nodes + sample->draining_nodes, 8);
        assert_true(sample->prefill_nodes >= 1 && sample->decode_nodes >= 1);
        assert_true(sample->draining_nodes <= 2); /* a quarter */
        outcome.moved += sample->draining_nodes > 0;
        outcome.prefill_nodes = sample->prefill_nodes;
        outcome.decode_nodes = sample->decode_nodes;
    }
    sim_result_destroy(result);
    return outcome;
}

static void following_beats_every_fixed_split(void **state)
{
    (void)state;
    struct trace *trace = shifting(900, 3600);
    const struct outcome elastic = run(trace, 4, "elastic=true");
    double best = 0;

    for (int prefill = 1; prefill < 8; prefill++) {
        const struct outcome fixed = run(trace, prefill, "elastic=false");
        assert_int_equal(fixed.flips, 0);
        if (fixed.summary.good > best) best = fixed.summary.good;
    }
    printf("good: %.1f%% with %llu flips, %.1f%% with the best fixed split\n",
           100 * elastic.summary.good, (unsigned long long)elastic.flips, 100 * best);
    assert_true(elastic.summary.good > best + 0.15);
    assert_true(elastic.flips >= 6 && elastic.flips <= 24);
    trace_destroy(trace);
}

static void runs_repeat(void **state)
{
    (void)state;
    struct trace *trace = shifting(300, 1200);
    const struct outcome once = run(trace, 4, "elastic=true,layerwise=true,learn=true");
    const struct outcome again = run(trace, 4, "elastic=true,layerwise=true,learn=true");
    assert_true(once.summary.digest == again.summary.digest && once.flips == again.flips);
    assert_true(once.flips > 0);
    trace_destroy(trace);
}

/* Overload policies, evictions, one role nearly empty: what is asserted inside still holds. */
static void laws_hold_under_all_settings(void **state)
{
    (void)state;
    static const char *const settings[] = {
        "elastic=true,overload=early,speed=3",
        "elastic=true,overload=adaptive,speed=2,elastic_dwell_s=0,elastic_window_s=5",
        "elastic=true,policy=local,dram_tokens=60000,cost.vram_tokens=60000,elastic_dwell_s=10",
        "elastic=true,batch_max=4,elastic_dwell_s=0,elastic_window_s=2",
    };
    struct trace *trace = shifting(120, 600);
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        for (int prefill = 1; prefill < 8; prefill += 3) {
            const struct outcome outcome = run(trace, prefill, settings[i]);
            assert_true(outcome.flips > 0);
        }
    }
    trace_destroy(trace);
}

static void a_wrong_split_heals(void **state)
{
    (void)state;
    struct trace *trace = shifting(1e9, 1800); /* prompts only */
    const struct outcome fixed = run(trace, 2, "elastic=false");
    const struct outcome healed = run(trace, 2, "elastic=true");
    assert_true(healed.flips >= 3 && healed.flips <= 6);
    assert_true(healed.prefill_nodes >= 5);
    assert_true(healed.summary.good > 2 * fixed.summary.good);
    trace_destroy(trace);
}

static void what_fits_moves_nobody(void **state)
{
    (void)state;
    struct trace *trace = shifting(1e9, 1800);
    assert_int_equal(run(trace, 6, "elastic=true").flips, 0);
    trace_destroy(trace);
}

/* Every 10 to 20 seconds the other kind: six nodes would be wanted here, then there. */
static void a_fast_swing_moves_nobody_to_and_fro(void **state)
{
    (void)state;
    for (double phase_s = 10; phase_s <= 20; phase_s += 5) {
        struct trace *trace = shifting(phase_s, 3600);
        const struct outcome elastic = run(trace, 4, "elastic=true");
        const struct outcome fixed = run(trace, 4, "elastic=false");
        printf("phases of %.0f s: %llu flips\n", phase_s, (unsigned long long)elastic.flips);
        assert_true(elastic.flips <= 2);
        assert_true(elastic.summary.good > fixed.summary.good - 0.05);
        trace_destroy(trace);
    }
}

static void what_cannot_change_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = { "elastic=true,policy=random",
                                         "elastic=true,system=vllm,policy=load" };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct sim_cluster cluster;
        struct errmsg err = { "" };
        cluster_init(&cluster);
        assert_int_equal(cluster_set(&cluster, wrong[i], &err), STATUS_OK);
        assert_int_equal(cluster_check(&cluster, &err), STATUS_INVALID);
        assert_true(err.text[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(following_beats_every_fixed_split),
        cmocka_unit_test(runs_repeat),
        cmocka_unit_test(laws_hold_under_all_settings),
        cmocka_unit_test(a_wrong_split_heals),
        cmocka_unit_test(what_fits_moves_nobody),
        cmocka_unit_test(a_fast_swing_moves_nobody_to_and_fro),
        cmocka_unit_test(what_cannot_change_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
