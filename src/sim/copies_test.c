/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/copies_test.c
 *
 * Goal:   copies of hot prefixes, counting what a sender serves already, and knowing what is on SSD
 *         break no law of a run;
 *         copies are made and removed; runs repeat; off means that nothing is copied; and who sees
 *         that a sender is busy fetches from another one.
 * Method: traces by hand: a prefix that is in fashion for a minute, and one that two nodes have and
 *         eight want at once. The laws are asserted inside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "sim/sim_fixture.h"

enum { PREFIX = 40, TEXT_SIZE = 1 << 20, BLOCK = 512 };

struct lines {
    char *text;
    size_t len;
    uint32_t unique; /* ids that nobody else has */
};

/* A prompt of the common prefix, if it is to have one, and two blocks of its own. */
static void add_line(struct lines *lines, int at_ms, bool common)
{
    const int own = 1000 + (int)lines->unique;
    const int tokens = (common ? PREFIX + 2 : 2) * BLOCK;

    lines->unique += 2;
    lines->len += (size_t)snprintf(lines->text + lines->len, TEXT_SIZE - lines->len,
                                   "{\"timestamp\": %d, \"input_length\": %d, "
                                   "\"output_length\": 2, \"hash_ids\": [",
                                   at_ms, tokens);
    for (int i = 0; common && i < PREFIX; i++)
        lines->len += (size_t)snprintf(lines->text + lines->len, TEXT_SIZE - lines->len, "%d, ", i);
    lines->len += (size_t)snprintf(lines->text + lines->len, TEXT_SIZE - lines->len, "%d, %d]}\n",
                                   own, own + 1);
    assert_true(lines->len < TEXT_SIZE);
}

/* A minute in which everybody wants the prefix, then twenty in which nobody does. */
static struct trace *fashion(void)
{
    struct lines lines = { .text = malloc(TEXT_SIZE) };

    assert_non_null(lines.text);
    add_line(&lines, 0, true);
    for (int i = 0; i < 200; i++)
        add_line(&lines, 10000 + i * 200, true);
    for (int i = 0; i < 120; i++)
        add_line(&lines, 60000 + i * 10000, false);
    struct trace *trace = parse(lines.text);
    free(lines.text);
    return trace;
}

static void copies_are_made_and_removed(void **state)
{
    (void)state;
    static const char *const settings[] = {
        "replicate=true,prefill=4,policy=local",
        "replicate=true,prefill=4,policy=local,congestion=true,nic_gbps=20,layerwise=true",
        "replicate=true,prefill=3,policy=local,dram_tokens=40000,ssd_tokens=40000",
        "replicate=true,prefill=4,policy=local,elastic=true,learn=true",
    };
    struct trace *trace = fashion();

    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        struct sim_result *once = run(trace, settings[i]), *again = run(trace, settings[i]);
        const struct sim_summary summary = summarize(once);
        printf("%llu copies, %llu removals: %s\n", (unsigned long long)once->copies,
               (unsigned long long)once->removals, settings[i]);
        assert_int_equal(summary.done, once->count);
        assert_true(summary.digest == summarize(again).digest);
        assert_true(once->copies > 0 && once->copies == again->copies);
        assert_true(once->removals > 0 && once->removals <= once->copies);
        assert_true(once->copied_bytes > 0 && once->copied_bytes <= once->sent_bytes);
        sim_result_destroy(once);
        sim_result_destroy(again);
    }
    struct sim_result *off = run(trace, "prefill=4,policy=local");
    assert_true(off->copies == 0 && off->copied_bytes == 0);
    sim_result_destroy(off);
    trace_destroy(trace);
}

/* Two nodes have the prefix, and all want it at once: blind, all fetch from the first. */
static void busy_senders_are_avoided(void **state)
{
    (void)state;
    struct lines lines = { .text = malloc(TEXT_SIZE) };

    assert_non_null(lines.text);
    add_line(&lines, 0, true);
    add_line(&lines, 100, true);
    for (int i = 0; i < 8; i++)
        add_line(&lines, 60000 + i, true);
    struct trace *trace = parse(lines.text);
    free(lines.text);
    struct sim_result *blind = run(trace, "prefill=8,nic_gbps=100");
    struct sim_result *sees = run(trace, "prefill=8,nic_gbps=100,congestion=true");
    const double before = summarize(blind).ttft_ms.mean, after = summarize(sees).ttft_ms.mean;
    printf("mean first token %.0f ms, %.0f ms\n", before, after);
    assert_true(after < 0.95 * before);
    sim_result_destroy(blind);
    sim_result_destroy(sees);
    trace_destroy(trace);
}

/* A prompt that lies on a slow SSD is computed as far as that is sooner; on a fast one, loaded. */
static void a_slow_ssd_is_not_waited_for(void **state)
{
    (void)state;
    struct lines lines = { .text = malloc(TEXT_SIZE) };
    const char *const ssd[] = { "500000000", "50000000000" };

    assert_non_null(lines.text);
    for (int i = 0; i < 10; i++)
        add_line(&lines, i * 60000, true);
    struct trace *trace = parse(lines.text);
    free(lines.text);
    for (int fast = 0; fast < 2; fast++) {
        char blind[256], sees[300];
        snprintf(blind, sizeof(blind),
                 "prefill=1,policy=local,dram_tokens=4096,ssd_tokens=1000000,cost.ssd_bytes_s=%s",
                 ssd[fast]);
        snprintf(sees, sizeof(sees), "%s,tiers=true", blind);
        struct sim_result *before = run(trace, blind), *after = run(trace, sees);
        const double old_ms = summarize(before).ttft_ms.mean;
        const double new_ms = summarize(after).ttft_ms.mean;
        printf("SSD at %s bytes/s: mean first token %.0f ms, %.0f ms\n", ssd[fast], old_ms, new_ms);
        if (fast) near(new_ms, old_ms, 1e-6);
        if (!fast) assert_true(new_ms < 0.8 * old_ms);
        assert_true(after->records[9].reused_tokens > 0); /* as far as it is sooner */
        assert_true(after->records[9].reused_tokens <= before->records[9].reused_tokens);
        sim_result_destroy(before);
        sim_result_destroy(after);
    }
    struct sim_result *all =
        run(trace, "prefill=3,tiers=true,dram_tokens=20000,ssd_tokens=30000,congestion=true");
    assert_int_equal(summarize(all).done, 10);
    sim_result_destroy(all);
    trace_destroy(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_are_made_and_removed),
        cmocka_unit_test(busy_senders_are_avoided),
        cmocka_unit_test(a_slow_ssd_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
