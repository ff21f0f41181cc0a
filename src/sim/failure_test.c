/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/failure_test.c
 *
 * Goal:   machines may stop at any time: every request still ends exactly once, what is sent is
 *         received, and times are what they should be.
 * Method: lone requests and one failure by hand, against the cost model's formulas; then random
 *         failures, many of them, over every kind of run (the laws are asserted inside: nothing
 *         pinned or promised at the end, bytes sent are bytes received, nobody over capacity). */
#include "sim/failure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "sim/sim_fixture.h"

#define LONE "{\"timestamp\": 0, \"input_length\": 10000, \"output_length\": 101}\n"

static double prefill_s(double tokens)
{
    return sim_profile_prefill_s(sim_profile_at(0), tokens, 0);
}

/* From the end of the prefill until the first token. */
static double passed_on_s(double tokens)
{
    const struct sim_profile *p = sim_profile_at(0);
    const double bytes = tokens * p->kv_token_bytes;
    return p->transfer_setup_s + bytes / p->nic_bytes_s + bytes / p->load_bytes_s;
}

/* ---- by hand ---- */

static void a_prefill_starts_again_elsewhere(void **state)
{
    (void)state;
    struct trace *trace = parse(LONE);
    /* One node has it; which one is the same without failures. */
    for (int stopped = 0; stopped < 2; stopped++) {
        struct sim_result *result =
            run(trace, stopped ? "prefill=2,failures=p1@0.5+10" : "prefill=2,failures=p0@0.5+10");
        const bool hit = result->failures.placed_again > 0;
        assert_int_equal(hit, stopped == 0);
        assert_int_equal(result->failures.stopped[0], 1);
        const double start = hit ? 0.5 : 0.05;
        near(result->records[0].ttft_ms, 1e3 * (start + prefill_s(10000) + passed_on_s(10000)),
             1e-3);
        near(result->records[0].prefill_s, prefill_s(10000), 1e-9);
        sim_result_destroy(result);
    }
    trace_destroy(trace);
}

/* The other decode node goes on with the tokens there were: one gap, and no token twice. */
static void an_answer_goes_on_elsewhere(void **state)
{
    (void)state;
    struct trace *trace = parse(LONE);
    const struct sim_profile *p = sim_profile_at(0);
    const double step = p->decode_base_s + p->decode_sequence_s, stop = 3;
    struct sim_result *result = run(trace, "decode=2,failures=d0@3+100,dram_tokens=0");
    const struct sim_record *record = &result->records[0];
    const double ttft = 0.05 + prefill_s(10000) + passed_on_s(10000);
    const double had = 1 + floor((stop - ttft) / step); /* tokens */
    const double latest = ttft + (had - 1) * step;
    const double again = stop + prefill_s(10000 + had) + passed_on_s(10000 + had);

    assert_int_equal(result->failures.stopped[1], 1);
    assert_int_equal(result->failures.placed_again, 1);
    near(record->ttft_ms, 1e3 * ttft, 1e-3);
    near(record->total_s, again + (101 - had - 1) * step, 1e-5);
    near(record->tbt_mean_ms, 1e3 * (record->total_s - ttft) / 100, 1e-3);
    near(record->tbt_ms, 1e3 * (again - latest + 9 * step) / 10, 1e-3);
    sim_result_destroy(result);
    trace_destroy(trace);
}

/* Behind the end of the transfer the prefill node is not needed. */
static void a_prefill_node_that_is_done_may_stop(void **state)
{
    (void)state;
    struct trace *trace = parse(LONE);
    struct sim_result *calm = run(trace, "prefill=1,decode=1");
    struct sim_result *hit = run(trace, "prefill=1,decode=1,failures=p0@2.5+10");
    assert_int_equal(hit->failures.stopped[0], 1);
    assert_int_equal(hit->failures.placed_again, 0);
    assert_true(summarize(calm).digest == summarize(hit).digest);
    sim_result_destroy(calm);
    sim_result_destroy(hit);
    trace_destroy(trace);
}

/* With one node of a kind, everybody waits until it is back. */
static void the_only_node_is_waited_for(void **state)
{
    (void)state;
    struct trace *trace = parse(LONE);
    struct sim_result *result = run(trace, "prefill=1,decode=1,failures=p0@0.5+7 p0@8+2");
    near(result->records[0].ttft_ms, 1e3 * (10 + prefill_s(10000) + passed_on_s(10000)), 1e-3);
    assert_int_equal(result->failures.placed_again, 2);
    sim_result_destroy(result);
    trace_destroy(trace);
}

/* Whether the conductor still knew the node when it came back, or not. */
static void dram_is_lost_and_ssd_is_kept(void **state)
{
    (void)state;
    struct trace *trace = repeated(2);
    for (int forget = 5; forget <= 500; forget *= 100) {
        for (int ssd = 0; ssd < 2; ssd++) {
            struct sim_cluster cluster =
                cluster_of("prefill=1,decode=1,dram_tokens=0,failures=p0@10+20");
            cluster.fail_forget_s = forget;
            *(ssd ? &cluster.ssd_tokens : &cluster.dram_tokens) = 1e6;
            struct sim_result *result = run_cluster(trace, &cluster);
            assert_int_equal(result->records[1].reused_tokens, ssd ? 10240 : 0);
            assert_int_equal(result->failures.lost_blocks, ssd ? 0 : 20);
            assert_int_equal(result->failures.kept_blocks, ssd ? 20 : 0);
            sim_result_destroy(result);
        }
    }
    trace_destroy(trace);
}

/* 50 ms, doubling, to a second; the sixteenth failure in a row is the last. */
static void nobody_tries_for_ever(void **state)
{
    (void)state;
    struct trace *trace = parse(LONE);
    struct sim_cluster cluster = cluster_of("prefill=1,decode=1");
    size_t len = 0;
    for (int i = 0; i < 16; i++)
        len += (size_t)snprintf(cluster.failures + len, sizeof(cluster.failures) - len,
                                "%sp0@%.1f+0.1", i ? " " : "", 0.5 + 1.2 * i);
    struct sim_result *result = run_cluster(trace, &cluster);
    assert_int_equal(result->records[0].outcome, SIM_FAILED);
    assert_int_equal(summarize(result).failed, 1);
    near(result->records[0].total_s, 0.5 + 1.2 * 15, 1e-9);
    sim_result_destroy(result);
    trace_destroy(trace);
}

/* ---- by chance ---- */

static const char *const runs[] = {
    "mtbf_s=60,mttr_s=5",
    "mtbf_s=20,mttr_s=5,prefill=3,decode=3,fail_forget_s=1",
    "mtbf_s=60,mttr_s=20,layerwise=true,learn=true,jitter_ms=3000",
    "mtbf_s=60,mttr_s=10,group_max=4,prefill=6",
    "mtbf_s=30,mttr_s=10,group_max=8,layerwise=true,fail_forget_s=2",
    "mtbf_s=40,mttr_s=10,policy=local,overload=adaptive,prefill=3,decode=3,speed=2",
    "mtbf_s=40,mttr_s=10,overload=baseline,prefill=3,decode=3,speed=2,group_max=3",
    "mtbf_s=30,mttr_s=5,prefill=3,decode=2,dram_tokens=60000,ssd_tokens=9e4,cost.vram_tokens=2e5",
    "mtbf_s=5,mttr_s=1,prefill=1,decode=1,fail_forget_s=0,speed=0.2",
    "mtbf_s=3,mttr_s=0.5,prefill=4,decode=4,group_max=4",
    "elastic=true,mtbf_s=40,mttr_s=10,prefill=3,decode=3,elastic_dwell_s=0,elastic_window_s=5",
    ("elastic=true,mtbf_s=20,mttr_s=5,prefill=2,decode=2,fail_forget_s=1,elastic_window_s=2,"
     "group_max=3"),
};
enum { RUNS = sizeof(runs) / sizeof(runs[0]), SEEDS = 4 };

static void check_records(const struct sim_result *result, const struct sim_summary *summary)
{
    uint32_t good = 0;

    assert_int_equal(summary->done + summary->refused_early + summary->refused_late +
                         summary->never_fit + summary->failed,
                     result->count);
    for (uint32_t i = 0; i < result->count; i++) {
        const struct sim_record *record = &result->records[i];
        assert_true(record->outcome != SIM_UNFINISHED);
        if (record->outcome != SIM_DONE) continue;
        assert_true(record->ttft_ms > 0 && record->total_s * 1e3 >= record->ttft_ms - 1e-6);
        /* All intervals, over all placements, are from the first token to the end. */
        if (record->output_tokens > 1)
            near(record->tbt_mean_ms * (record->output_tokens - 1),
                 record->total_s * 1e3 - record->ttft_ms, 1e-3);
        assert_true(record->tbt_ms >= record->tbt_mean_ms - 1e-9);
        assert_true(record->fetched_tokens <= record->reused_tokens);
        assert_true(record->reused_tokens < record->input_tokens);
        good += record->ttft_ms <= result->cluster.ttft_limit_s * 1e3 &&
                record->tbt_mean_ms <= result->cluster.tbt_limit_ms;
    }
    near(summary->good_mean * result->count, good, 1e-6);
    assert_true(summary->good <= summary->good_mean + 1e-9);
}

static void every_request_ends_once_whatever_stops(void **state)
{
    (void)state;
    struct trace *trace = generate(300);
    for (int i = 0; i < RUNS; i++) {
        uint64_t again = 0, stopped = 0;
        for (int seed = 1; seed <= SEEDS; seed++) {
            struct sim_cluster cluster = cluster_of(runs[i]);
            cluster.seed = seed;
            struct sim_result *result = run_cluster(trace, &cluster);
            struct sim_result *repeat = run_cluster(trace, &cluster);
            const struct sim_summary summary = summarize(result);
            check_records(result, &summary);
            assert_true(summary.digest == summarize(repeat).digest);
            again += result->failures.placed_again;
            stopped += result->failures.stopped[0] + result->failures.stopped[1];
            sim_result_destroy(result);
            sim_result_destroy(repeat);
        }
        if (again == 0 || stopped < 5) fail_msg("%s: nothing happened", runs[i]);
    }
    trace_destroy(trace);
}

/* The only prefill node stops for most of an hour: a decode node takes its place. */
static void another_role_is_taken_where_one_is_lost(void **state)
{
    (void)state;
    struct trace *trace = generate(300);
    const char *const stop = "prefill=1,decode=4,failures=p0@20+3000,speed=0.5";
    struct sim_cluster cluster = cluster_of(stop);
    struct sim_result *fixed = run_cluster(trace, &cluster);
    cluster.elastic = true;
    struct sim_result *elastic = run_cluster(trace, &cluster);
    assert_true(elastic->flips >= 1 && elastic->failures.stopped[0] == 1);
    assert_true(summarize(fixed).ttft_ms.p90 > 1e6);
    assert_true(summarize(elastic).ttft_ms.p90 < 3e5);
    sim_result_destroy(fixed);
    sim_result_destroy(elastic);
    trace_destroy(trace);
}

/* ---- input ---- */

static void schedules_are_checked(void **state)
{
    (void)state;
    refuses("failures=p8@1+1", "no node p8");
    refuses("failures=d8@1+1", "no node d8");
    refuses("failures=p1@1", "like p0@100+30");
    refuses("failures=p1@1+0", "like p0@100+30");
    refuses("failures=p@1+1", "p@1+1");
    refuses("failures=p1.5@1+1", "p1.5@1+1");
    refuses("failures=p1@1+1p2@1+1", "p1@1+1p2@1+1");
    refuses("mtbf_s=9,policy=load", "only the conductor");
    refuses("mtbf_s=9,system=vllm,policy=random", "no conductor");
    struct failure out[FAILURES_MAX];
    uint32_t count = 0;
    struct errmsg err = { "" };
    assert_int_equal(failure_parse("p0@100+30  d12@15.5+0.25", out, &count, &err), STATUS_OK);
    assert_int_equal(count, 2);
    assert_true(!out[0].decode && out[0].node == 0 && out[0].at_s == 100 && out[0].down_s == 30);
    assert_true(out[1].decode && out[1].node == 12 && out[1].at_s == 15.5);
    assert_true(out[1].down_s == 0.25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prefill_starts_again_elsewhere),
        cmocka_unit_test(an_answer_goes_on_elsewhere),
        cmocka_unit_test(a_prefill_node_that_is_done_may_stop),
        cmocka_unit_test(the_only_node_is_waited_for),
        cmocka_unit_test(dram_is_lost_and_ssd_is_kept),
        cmocka_unit_test(nobody_tries_for_ever),
        cmocka_unit_test(every_request_ends_once_whatever_stops),
        cmocka_unit_test(another_role_is_taken_where_one_is_lost),
        cmocka_unit_test(schedules_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
