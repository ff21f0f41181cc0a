/* SPDX-License-Identifier: Apache-2.0
 *
 * base/metrics_test.c
 *
 * Goal:   the page is what Prometheus text format 0.0.4 says, and label values chosen by strangers
 *         can neither break it nor grow it.
 * Method: pages compared whole; a thread that writes while another renders, for the sanitizer. */
#include "base/metrics.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"

static const char *const code_label[] = { "code", NULL };
static const char *const two_labels[] = { "a", "b", NULL };

#define VALUES(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void expect_page(const struct metrics *metrics, const char *expected)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    assert_int_equal(metrics_render(metrics, &out), STATUS_OK);
    assert_int_equal(buf_append(&out, "", 1), STATUS_OK);
    assert_string_equal((const char *)buf_data(&out), expected);
    buf_fini(&out);
}

static void counters_and_gauges(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_create();
    struct metric *requests =
        metrics_counter(metrics, "yolk_requests_total", "Requests\nall", code_label);
    struct metric *pages = metrics_gauge(metrics, "yolk_pages", "Pages", NULL);

    series_add(metrics_series(requests, VALUES("200")), 2);
    series_add(metrics_series(requests, VALUES("500")), 1);
    series_add(metrics_series(requests, VALUES("200")), 1);
    series_set(metrics_only(pages), 7.5);
    series_add(metrics_only(pages), -10);
    assert_true(series_value(metrics_only(pages)) == -2.5);
    expect_page(metrics, "# HELP yolk_requests_total Requests\\nall\n"
                         "# TYPE yolk_requests_total counter\n"
                         "yolk_requests_total{code=\"200\"} 3\n"
                         "yolk_requests_total{code=\"500\"} 1\n"
                         "# HELP yolk_pages Pages\n"
                         "# TYPE yolk_pages gauge\n"
                         "yolk_pages -2.5\n");
    metrics_destroy(metrics);
    metrics_destroy(NULL);
}

static void histograms_are_cumulative_on_the_page(void **state)
{
    (void)state;
    static const double bounds[] = { 0.1, 1 };
    static const double seen[] = { 0.05, 0.1, 0.5, 3, 100 };
    struct metrics *metrics = metrics_create();
    struct metric *ttft = metrics_histogram(metrics, "t", "T", code_label, bounds, 2);
    struct series *series = metrics_series(ttft, VALUES("x"));

    for (size_t i = 0; i < 5; i++)
        series_observe(series, seen[i]);
    assert_true(series_value(series) == 5);
    expect_page(metrics, "# HELP t T\n# TYPE t histogram\n"
                         "t_bucket{code=\"x\",le=\"0.1\"} 2\n"
                         "t_bucket{code=\"x\",le=\"1\"} 3\n"
                         "t_bucket{code=\"x\",le=\"+Inf\"} 5\n"
                         "t_sum{code=\"x\"} 103.65\n"
                         "t_count{code=\"x\"} 5\n");
    metrics_destroy(metrics);
}

static void odd_numbers_have_their_names(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_create();
    struct series *series = metrics_only(metrics_gauge(metrics, "g", "G", NULL));

    series_set(series, HUGE_VAL);
    expect_page(metrics, "# HELP g G\n# TYPE g gauge\ng +Inf\n");
    series_set(series, -HUGE_VAL);
    expect_page(metrics, "# HELP g G\n# TYPE g gauge\ng -Inf\n");
    series_set(series, nan(""));
    expect_page(metrics, "# HELP g G\n# TYPE g gauge\ng NaN\n");
    series_set(series, 9007199254740992.0);
    expect_page(metrics, "# HELP g G\n# TYPE g gauge\ng 9.00719925474099e+15\n");
    metrics_destroy(metrics);
}

static void foreign_label_values_cannot_break_the_page(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_create();
    struct metric *metric = metrics_counter(metrics, "c", "C", two_labels);
    char longest[2 * METRICS_VALUE_LEN_MAX];

    memset(longest, 'x', sizeof(longest));
    memcpy(longest + METRICS_VALUE_LEN_MAX - 1, "\xc3\xa4", 2); /* cut in the middle */
    longest[sizeof(longest) - 1] = '\0';
    metrics_series(metric, VALUES("q\"\\\n", ""));
    assert_ptr_equal(metrics_series(metric, VALUES("", longest)),
                     metrics_series(metric, VALUES("", longest)));
    char expected[400];
    snprintf(expected, sizeof(expected),
             "# HELP c C\n# TYPE c counter\nc{a=\"q\\\"\\\\_\",b=\"\"} 0\nc{a=\"\",b=\"%.*s\"} 0\n",
             METRICS_VALUE_LEN_MAX - 1, longest);
    expect_page(metrics, expected);
    metrics_destroy(metrics);
}

static void values_that_are_no_utf8_cannot_either(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_create();
    struct metric *metric = metrics_counter(metrics, "c", "C", code_label);

    metrics_series(metric, VALUES("\xc3\xa4\xffz"));
    metrics_series(metric, VALUES("\xe6\xa8\xa1\xe6\xa8")); /* cut by who gave it */
    expect_page(metrics, "# HELP c C\n# TYPE c counter\nc{code=\"\xc3\xa4_z\"} 0\n"
                         "c{code=\"\xe6\xa8\xa1__\"} 0\n");
    metrics_destroy(metrics);
}

static void cardinality_is_bounded(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_create();
    struct metric *metric = metrics_counter(metrics, "c", "C", code_label);
    struct series *other = NULL;
    char value[16];

    for (int i = 0; i < 1000; i++) {
        snprintf(value, sizeof(value), "v%d", i);
        other = metrics_series(metric, VALUES(value));
        series_add(other, 1);
    }
    assert_ptr_equal(other, metrics_series(metric, VALUES("other")));
    assert_true(series_value(other) == 1000 - METRICS_SERIES_MAX);
    assert_true(series_value(metrics_series(metric, VALUES("v0"))) == 1);
    metrics_destroy(metrics);
}

static void a_full_buffer_is_said(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_create();
    struct buf out;

    metrics_only(metrics_counter(metrics, "c", "C", NULL));
    for (size_t size_max = 1; size_max < 20; size_max++) {
        buf_init(&out, size_max);
        assert_int_equal(metrics_render(metrics, &out), STATUS_FULL);
        buf_fini(&out);
    }
    metrics_destroy(metrics);
}

static void *count_up(void *series)
{
    for (int i = 0; i < 100000; i++)
        series_add(series, 1);
    return NULL;
}

static void another_thread_may_count(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_create();
    struct series *series = metrics_only(metrics_counter(metrics, "c", "C", NULL));
    pthread_t thread;
    double last = 0;

    assert_int_equal(pthread_create(&thread, NULL, count_up, series), 0);
    for (int i = 0; i < 100; i++) {
        const double value = series_value(series);
        assert_true(value >= last);
        last = value;
    }
    pthread_join(thread, NULL);
    assert_true(series_value(series) == 100000);
    metrics_destroy(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_and_gauges),
        cmocka_unit_test(histograms_are_cumulative_on_the_page),
        cmocka_unit_test(odd_numbers_have_their_names),
        cmocka_unit_test(foreign_label_values_cannot_break_the_page),
        cmocka_unit_test(values_that_are_no_utf8_cannot_either),
        cmocka_unit_test(cardinality_is_bounded),
        cmocka_unit_test(a_full_buffer_is_said),
        cmocka_unit_test(another_thread_may_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
