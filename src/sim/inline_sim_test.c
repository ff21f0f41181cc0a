/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/inline_sim_test.c
 *
 * Goal:   a short prefill beside a decode step takes what the cost model says, its blocks come to
 *         the pool, and no law is broken.
 * Method: three requests by hand; then long runs (the laws are asserted inside). */
#include "sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "sim/sim_fixture.h"

static size_t put(char *text, size_t size, int at_ms, int input, int output, int first)
{
    size_t len = (size_t)snprintf(text, size,
                                  "{\"timestamp\": %d, \"input_length\": %d, \"output_length\": "
                                  "%d, \"hash_ids\": [%d",
                                  at_ms, input, output, first);
    for (int block = 1; block <= (input - 1) / 512; block++)
        len += (size_t)snprintf(text + len, size - len, ", %d", first + block);
    return len + (size_t)snprintf(text + len, size - len, "]}\n");
}

/* One decodes; a long prompt keeps the only prefill node busy; a short one comes. Then its prompt
 * again, when all is quiet. */
static struct trace *busy(void)
{
    static char text[4096];
    size_t len = put(text, sizeof(text), 0, 600, 400, 1);
    len += put(text + len, sizeof(text) - len, 1000, 60001, 1, 100);
    len += put(text + len, sizeof(text) - len, 2000, 513, 3, 10);
    len += put(text + len, sizeof(text) - len, 60000, 513, 1, 10);
    return parse(text);
}

static void it_stretches_one_step(void **state)
{
    (void)state;
    struct trace *trace = busy();
    const struct sim_profile *p = sim_profile_at(0);
    const double beside =
        p->chunk_factor * (p->prefill_new_s * 513 + p->prefill_square_s * 513 * 513);
    const double step = p->decode_base_s + p->decode_sequence_s;
    struct sim_result *off = run(trace, "prefill=1,decode=1");
    struct sim_result *on = run(trace, "prefill=1,decode=1,inline_tbt_ms=200");

    assert_int_equal(off->inlined, 0);
    assert_int_equal(on->inlined, 2); /* the short prompt, both times */
    near(on->records[2].prefill_s, beside, 1e-9);
    /* It waits for the running step, and has its token with the next one. */
    const double ttft = on->records[2].ttft_ms / 1e3 - p->schedule_s;
    assert_true(ttft >= step + beside - 1e-9 && ttft <= 2 * step + beside + 1e-9);
    assert_true(off->records[2].ttft_ms > 5000);
    /* Who decodes has 399 intervals, and two steps with two in the batch. */
    near(on->records[0].tbt_mean_ms * 399, 1e3 * (399 * step + 2 * p->decode_sequence_s + beside),
         1e-2);
    assert_true(on->records[2].tbt_mean_ms < 1e3 * (step + p->decode_sequence_s) + 1e-3);
    assert_int_equal(on->records[3].reused_tokens, 512); /* its block came to the pool */
    sim_result_destroy(on);
    sim_result_destroy(off);
    trace_destroy(trace);
}

static void laws_hold(void **state)
{
    (void)state;
    struct trace *trace = generate(600);
    const char *const settings[] = {
        "inline_tbt_ms=200,prefill=2,decode=5",
        "inline_tbt_ms=500,prefill=2,decode=2,speed=2,layerwise=true,learn=true,jitter_ms=3000",
        "inline_tbt_ms=300,prefill=2,decode=3,dram_tokens=60000,cost.vram_tokens=200000",
        "inline_tbt_ms=300,prefill=3,decode=3,elastic=true,group_max=3",
        "inline_tbt_ms=300,overload=adaptive,prefill=2,decode=5,speed=2",
        "inline_tbt_ms=300,prefill=3,decode=3,mtbf_s=30,mttr_s=5,group_max=3",
        "inline_tbt_ms=800,prefill=2,decode=2,mtbf_s=10,mttr_s=2,batch_max=5,fail_forget_s=1",
    };
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        struct sim_result *first = run(trace, settings[i]), *again = run(trace, settings[i]);
        const struct sim_summary summary = summarize(first);
        if (first->inlined < 20) fail_msg("%s: %d", settings[i], (int)first->inlined);
        assert_true(summary.digest == summarize(again).digest);
        assert_int_equal(summary.done + summary.never_fit + summary.refused_early +
                             summary.refused_late + summary.failed,
                         600);
        sim_result_destroy(first);
        sim_result_destroy(again);
    }
    trace_destroy(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_stretches_one_step),
        cmocka_unit_test(laws_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
