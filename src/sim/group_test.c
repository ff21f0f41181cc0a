/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/group_test.c
 *
 * Goal:   a long prompt on several nodes takes what the recurrence says, leaves its blocks where
 *         they are found again, and breaks no law.
 * Method: lone prompts against the recurrence over a whole matrix, written again here; a long run
 *         in groups, with little memory too (the laws are asserted inside). */
#include "sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "sim/sim_fixture.h"

enum { TOKENS = 65537, CHUNKS_MAX = 64, NODES_MAX = 8 };

/* The same prompt twice, a minute between; all of it but the last block may be reused. */
static struct trace *long_prompt(int times, int output)
{
    static char text[8192];
    size_t len = 0;

    for (int i = 0; i < times; i++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len,
                                "{\"timestamp\": %d, \"input_length\": %d, "
                                "\"output_length\": %d, \"hash_ids\": [",
                                i * 60000, TOKENS, output);
        for (int j = 0; j <= TOKENS / 512; j++)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%d", j ? ", " : "", j);
        len += (size_t)snprintf(text + len, sizeof(text) - len, "]}\n");
    }
    return parse(text);
}

/* Seconds until the last stage is done, the leader starting at 0. */
static double expected_s(const struct sim_profile *p, int stages)
{
    static double end[CHUNKS_MAX + 1][NODES_MAX + 1];
    const int chunk = (int)p->chunk_tokens, count = (TOKENS + chunk - 1) / chunk;

    for (int c = 1; c <= count; c++) {
        const int from = (c - 1) * chunk, to = c * chunk < TOKENS ? c * chunk : TOKENS;
        const double work = p->prefill_new_s * (to - from) +
                            p->prefill_square_s * ((double)to * to - (double)from * from) +
                            (c == 1 ? p->prefill_fixed_s : 0);
        const double hop = p->transfer_setup_s + (to - from) * p->activation_token_bytes / 87e9;
        for (int j = 1; j <= stages; j++) {
            const double there = j == 1 ? 0 : end[c][j - 1] + hop;
            end[c][j] = fmax(there, end[c - 1][j]) + work / stages;
        }
    }
    return end[count][stages];
}

static void a_group_takes_what_the_recurrence_says(void **state)
{
    (void)state;
    struct trace *trace = long_prompt(1, 1);
    for (int stages = 1; stages <= NODES_MAX; stages++) {
        struct sim_cluster cluster = cluster_of("group_max=8,decode=1");
        cluster.prefill = stages;
        struct sim_result *result = run_cluster(trace, &cluster);
        near(result->records[0].prefill_s, expected_s(sim_profile_at(0), stages), 2e-9 * stages);
        assert_int_equal(result->groups, stages > 1);
        assert_int_equal(result->group_stages, stages > 1 ? stages : 0);
        sim_result_destroy(result);
    }
    trace_destroy(trace);
}

/* One node alone is plain chunked prefill, which takes what the prefill of the whole takes. */
static void a_group_of_one_is_a_plain_prefill(void **state)
{
    (void)state;
    struct trace *trace = long_prompt(2, 20);
    struct sim_result *plain = run(trace, "prefill=1,decode=1");
    struct sim_result *group = run(trace, "prefill=1,decode=1,group_max=8");
    near(plain->records[0].prefill_s, expected_s(sim_profile_at(0), 1), 1e-9);
    assert_true(summarize(plain).digest == summarize(group).digest);
    sim_result_destroy(plain);
    sim_result_destroy(group);
    trace_destroy(trace);
}

static void blocks_of_a_group_are_found_again(void **state)
{
    (void)state;
    struct trace *trace = long_prompt(2, 20);
    const char *const settings[] = { "group_max=4", "group_max=4,layerwise=true" };
    for (int i = 0; i < 2; i++) {
        struct sim_result *result = run(trace, settings[i]);
        assert_int_equal(result->groups, 1);
        assert_int_equal(result->records[1].reused_tokens, TOKENS - 1);
        /* All KV went to the decode node, three quarters of the new blocks to the leader. */
        const double setups = (4 + 3 + 1) * 0.003 * 87e9;
        near(result->sent_bytes, (TOKENS + TOKENS + .75 * (TOKENS - 1)) * 327680.0 + setups, 1e3);
        sim_result_destroy(result);
    }
    trace_destroy(trace);
}

static void nobody_is_grouped_without_need(void **state)
{
    (void)state;
    struct trace *trace = parse("{\"timestamp\": 0, \"input_length\": 2000, "
                                "\"output_length\": 5}\n");
    struct sim_result *result = run(trace, "group_max=8");
    assert_int_equal(result->groups, 0); /* one chunk */
    sim_result_destroy(result);
    trace_destroy(trace);
}

static void laws_hold_in_groups(void **state)
{
    (void)state;
    struct trace *trace = generate(600);
    const char *const settings[] = {
        "group_max=4,prefill=4,decode=4,elastic=true",
        "group_max=8,layerwise=true,learn=true,jitter_ms=3000,speed=2",
        ("group_max=3,prefill=4,decode=1,dram_tokens=60000,ssd_tokens=90000,"
         "cost.vram_tokens=200000"),
        "group_max=4,prefill=4,decode=2,dram_tokens=0,speed=3",
        "group_max=4,overload=adaptive,prefill=3,decode=2,speed=3",
        "group_max=4,overload=baseline,prefill=8,decode=2,speed=2",
    };
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        struct sim_result *first = run(trace, settings[i]), *again = run(trace, settings[i]);
        const struct sim_summary summary = summarize(first);
        if (first->groups < 5) fail_msg("%s: %d groups", settings[i], (int)first->groups);
        assert_true(summary.digest == summarize(again).digest);
        assert_int_equal(
            summary.done + summary.never_fit + summary.refused_early + summary.refused_late, 600);
        sim_result_destroy(first);
        sim_result_destroy(again);
    }
    trace_destroy(trace);
}

static void long_prompts_come_sooner(void **state)
{
    (void)state;
    struct trace *trace = generate(600);
    struct sim_result *alone = run(trace, "prefill=4"),
                      *shared = run(trace, "prefill=4,group_max=4");
    assert_true(summarize(shared).ttft_ms.mean < summarize(alone).ttft_ms.mean);
    assert_true(summarize(shared).ttft_ms.p99 < summarize(alone).ttft_ms.p99);
    sim_result_destroy(alone);
    sim_result_destroy(shared);
    trace_destroy(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_takes_what_the_recurrence_says),
        cmocka_unit_test(a_group_of_one_is_a_plain_prefill),
        cmocka_unit_test(blocks_of_a_group_are_found_again),
        cmocka_unit_test(nobody_is_grouped_without_need),
        cmocka_unit_test(laws_hold_in_groups),
        cmocka_unit_test(long_prompts_come_sooner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
