/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/trace_gen_test.c
 *
 * Goal:   generated traces are what was asked for: rate, burstiness, lengths, shared prefixes.
 * Method: measure them; read them back through the parser, which checks that ids are consistent. */
#include "sim/trace_gen.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "sim/trace.h"

static struct trace *make(const struct trace_gen_options *options)
{
    struct trace *trace = NULL;
    struct errmsg err = { "" };
    if (trace_gen(options, &trace, &err) != STATUS_OK) fail_msg("%s", err.text);
    return trace;
}

static double gaps_cv(const struct trace *trace)
{
    double sum = 0, squares = 0;
    const double n = trace->count - 1;
    for (uint32_t i = 1; i < trace->count; i++) {
        const double gap = trace->requests[i].arrival_ms - trace->requests[i - 1].arrival_ms;
        sum += gap;
        squares += gap * gap;
    }
    return sqrt(squares / n - (sum / n) * (sum / n)) / (sum / n);
}

static void arrivals_have_the_rate_and_the_burstiness(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct trace_gen_options options = trace_gen_defaults();
        options.requests = 20000;
        options.cv = i == 0 ? 0.25 : i == 1 ? 1 : 3;
        struct trace *trace = make(&options);
        struct trace_stat stat;
        assert_int_equal(trace_measure(trace, &stat), STATUS_OK);
        assert_true(fabs(stat.rate - 4) < 0.3);
        assert_true(fabs(gaps_cv(trace) / options.cv - 1) < 0.12);
        trace_destroy(trace);
    }
}

static void the_rate_swings(void **state)
{
    (void)state;
    struct trace_gen_options options = trace_gen_defaults();
    options.requests = 20000;
    options.drift = 0.8;
    options.drift_s = 400;
    struct trace *trace = make(&options);
    uint32_t high = 0, low = 0; /* in the first and the second half of each period */
    for (uint32_t i = 0; i < trace->count; i++) {
        if (fmod(trace->requests[i].arrival_ms, 400e3) < 200e3)
            high++;
        else
            low++;
    }
    assert_true(high > 2 * low);
    trace_destroy(trace);
}

static void lengths_have_their_means(void **state)
{
    (void)state;
    struct trace_gen_options options = trace_gen_defaults();
    options.requests = 20000;
    options.follow = 0;
    options.roots = 0;
    options.spread = 0.5;
    struct trace *trace = make(&options);
    struct trace_stat stat;
    assert_int_equal(trace_measure(trace, &stat), STATUS_OK);
    assert_true(fabs(stat.input.mean / 4000 - 1) < 0.03);
    assert_true(fabs(stat.output.mean / 300 - 1) < 0.03);
    assert_true(stat.token_hit == 0);
    trace_destroy(trace);
}

static void prompts_share_prefixes_and_read_back(void **state)
{
    (void)state;
    struct trace_gen_options options = trace_gen_defaults();
    options.requests = 3000;
    struct trace *trace = make(&options), *again = NULL;
    struct trace_stat stat;
    struct buf text;
    struct errmsg err = { "" };

    assert_int_equal(trace_measure(trace, &stat), STATUS_OK);
    assert_true(stat.token_hit > 0.3 && stat.token_hit < 0.9);
    buf_init(&text, 64 << 20);
    assert_int_equal(trace_write(trace, &text), STATUS_OK);
    if (trace_parse("t", (const char *)buf_data(&text), text.len, &again, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(again->count, trace->count);
    assert_int_equal(again->unique, trace->unique);
    assert_int_equal(again->ids_count, trace->ids_count);
    assert_memory_equal(again->ids, trace->ids, trace->ids_count * sizeof(*trace->ids));
    buf_fini(&text);
    trace_destroy(again);
    trace_destroy(trace);
}

static void the_seed_is_all(void **state)
{
    (void)state;
    struct trace_gen_options options = trace_gen_defaults();
    struct trace *one = make(&options), *two = make(&options);
    options.seed = 2;
    struct trace *other = make(&options);

    const size_t size = one->count * sizeof(*one->requests);
    assert_memory_equal(one->requests, two->requests, size);
    assert_memory_not_equal(one->requests, other->requests, size);
    trace_destroy(one);
    trace_destroy(two);
    trace_destroy(other);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct trace *trace = NULL;
    struct errmsg err = { "" };
    struct trace_gen_options options = trace_gen_defaults();

    options.rate = NAN;
    assert_int_equal(trace_gen(&options, &trace, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "rate"));
    options = trace_gen_defaults();
    options.follow = 1;
    assert_int_equal(trace_gen(&options, &trace, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "follow"));
    assert_null(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrivals_have_the_rate_and_the_burstiness),
        cmocka_unit_test(the_rate_swings),
        cmocka_unit_test(lengths_have_their_means),
        cmocka_unit_test(prompts_share_prefixes_and_read_back),
        cmocka_unit_test(the_seed_is_all),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
