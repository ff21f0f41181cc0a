/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/sim_bounds_test.c
 *
 * Goal:   a run whose costs, lengths and speed are each possible, and together are not, ends with
 *         one clear error; a trace may begin at any time of the clock.
 * Method: each such combination that was found to end in a failed assertion. */
#include "sim/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LINE(time) "{\"timestamp\": " time ", \"input_length\": 100000, \"output_length\": 100}\n"

static enum status run(const char *text, const char *settings, struct errmsg *err)
{
    struct trace *trace = NULL;
    struct sim_cluster cluster;
    struct sim_result *result = NULL;

    if (trace_parse("t", text, strlen(text), &trace, err) != STATUS_OK) fail_msg("%s", err->text);
    cluster_init(&cluster);
    if (cluster_set(&cluster, settings, err) != STATUS_OK) fail_msg("%s", err->text);
    const enum status status =
        sim_run(&cluster, trace, (struct sim_progress){ NULL, NULL }, &result, err);
    assert_true((status == STATUS_OK) == (result != NULL));
    sim_result_destroy(result);
    trace_destroy(trace);
    return status;
}

static void what_would_take_for_ever_is_refused(void **state)
{
    (void)state;
    static const char *const SETTINGS[] = {
        "prefill=1,decode=1,cost.prefill_square_s=1",
        "system=vllm,policy=random,nodes=1,cost.prefill_square_s=1",
        "prefill=1,decode=1,speed=0.000001",
        "prefill=1,decode=1,cost.nic_bytes_s=1",
    };

    for (size_t i = 0; i < sizeof(SETTINGS) / sizeof(SETTINGS[0]); i++) {
        struct errmsg err = { "" };
        if (run(LINE("0") LINE("100000000"), SETTINGS[i], &err) != STATUS_INVALID) {
            fail_msg("%s: `%s`", SETTINGS[i], err.text);
        }
        assert_non_null(strstr(err.text, "simulated seconds"));
    }
}

static void a_trace_may_begin_at_any_time(void **state)
{
    (void)state;
    struct errmsg err = { "" };

    /* Milliseconds since 1970. */
    assert_int_equal(run(LINE("1700000000000") LINE("1700000001000"), "prefill=1,decode=1", &err),
                     STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_would_take_for_ever_is_refused),
        cmocka_unit_test(a_trace_may_begin_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
