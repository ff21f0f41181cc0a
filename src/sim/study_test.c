/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/study_test.c
 *
 * Goal:    runs on many threads are the runs one thread makes, told about on the caller's thread,
 *          and a failure leaves nothing; a study has what its header says; a page is whole,
 *          self-contained and says every name as it is.
 * Method:  the same jobs on 1 and on 5 threads against sim_run() itself; a job that must fail among
 *          others; a study of a small trace of each kind of system, as JSON and as a page; the name
 *          of a trace that would be markup. */
#include "sim/study.h"

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
#include "base/json.h"
#include "sim/page.h"
#include "sim/plot.h"
#include "sim/sim_fixture.h"
#include "sim/writer.h"

enum { JOBS = 7, TEXT_MAX = 1 << 24 };

/* ---- the farm ---- */

struct heard {
    pthread_t caller;
    double last;
    uint32_t calls;
};

static void hear(void *ctx, double done, uint32_t count)
{
    struct heard *heard = ctx;
    assert_true(pthread_equal(pthread_self(), heard->caller));
    assert_true(done >= 0 && done <= count && count == JOBS);
    heard->last = done;
    heard->calls++;
}

static void fill(struct farm_job *jobs)
{
    for (uint32_t i = 0; i < JOBS; i++) {
        jobs[i] = (struct farm_job){ .cluster = cluster_of("policy=global"), .keep = i % 2 == 0 };
        jobs[i].cluster.prefill = 1 + i;
    }
}

static void threads_change_nothing(void **state)
{
    (void)state;
    struct trace *trace = generate(600);
    struct farm_job one[JOBS], many[JOBS];
    struct heard heard = { pthread_self(), 0, 0 };

    fill(one);
    fill(many);
    assert_int_equal(farm_run(trace, one, JOBS, 1, (struct farm_progress){ NULL, NULL }, NULL),
                     STATUS_OK);
    assert_int_equal(farm_run(trace, many, JOBS, 5, (struct farm_progress){ hear, &heard }, NULL),
                     STATUS_OK);
    assert_true(heard.calls > 0 && heard.last == JOBS);
    for (uint32_t i = 0; i < JOBS; i++) {
        struct sim_result *result = run_cluster(trace, &one[i].cluster);
        const struct sim_summary summary = summarize(result);
        assert_true(one[i].summary.digest == summary.digest);
        assert_true(many[i].summary.digest == summary.digest);
        assert_int_equal(one[i].result != NULL, i % 2 == 0);
        sim_result_destroy(result);
        sim_result_destroy(one[i].result);
        sim_result_destroy(many[i].result);
    }
    trace_destroy(trace);
}

static void one_failure_fails_all(void **state)
{
    (void)state;
    struct trace *trace = generate(100);
    struct farm_job jobs[JOBS];
    struct errmsg err = { "" };

    fill(jobs);
    jobs[4].cluster = cluster_of("system=vllm"); /* with the conductor's policy */
    assert_int_equal(farm_run(trace, jobs, JOBS, 3, (struct farm_progress){ NULL, NULL }, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.text, "vllm"));
    for (uint32_t i = 0; i < JOBS; i++)
        assert_null(jobs[i].result);
    trace_destroy(trace);
}

/* ---- the study ---- */

static struct study *study_of(const struct trace *trace, const char *settings, uint32_t threads)
{
    const struct sim_cluster cluster = cluster_of(settings);
    struct study *study = NULL;
    struct errmsg err = { "" };
    if (study_run(&cluster, trace, threads, (struct farm_progress){ NULL, NULL }, &study, &err) !=
        STATUS_OK)
        fail_msg("%s", err.text);
    return study;
}

static char *text_of(const struct study *study, const char *name, bool html)
{
    const struct page page = { study, name, "1" };
    struct buf out;
    uint8_t *text = NULL;
    size_t len;

    buf_init(&out, TEXT_MAX);
    assert_int_equal(html ? page_write(&page, &out) : study_write_json(study, &out), STATUS_OK);
    assert_int_equal(buf_take(&out, &text, &len), STATUS_OK);
    buf_fini(&out);
    return (char *)text;
}

static uint32_t count_of(const char *text, const char *word)
{
    uint32_t count = 0;
    for (; (text = strstr(text, word)) != NULL; text += strlen(word))
        count++;
    return count;
}

static void a_study_repeats_and_is_json(void **state)
{
    (void)state;
    struct trace *trace = generate(200);
    struct study *one = study_of(trace, "prefill=3,decode=2", 1);
    struct study *many = study_of(trace, "prefill=3,decode=2", 4);
    char *first = text_of(one, "", false), *second = text_of(many, "", false);
    struct json_value *json = NULL;
    struct errmsg err = { "" };

    assert_string_equal(first, second);
    if (json_document_parse(first, strlen(first), &json, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(json_value_count(json_value_member(json, "systems")), STUDY_SYSTEMS);
    assert_int_equal(json_value_count(json_value_member(json, "splits")), STUDY_LOADS * 4);
    assert_int_equal(json_value_count(json_value_member(json, "pools")), one->pools_count);
    json_document_destroy(json);

    /* The split that was asked for is among those tried; a pool that holds all hits what can be. */
    const struct study_run *same = &one->splits[STUDY_LOAD_AS_IS][2];
    assert_true(same->at == 3 && same->summary.digest == one->summaries[0].digest);
    assert_true(one->lru[one->lru_count - 1].token_hit == one->stat.token_hit);
    for (uint32_t i = 1; i < one->lru_count; i++)
        assert_true(one->lru[i].token_hit >= one->lru[i - 1].token_hit);
    free(first);
    free(second);
    study_destroy(one);
    study_destroy(many);
    trace_destroy(trace);
}

static void a_page_is_whole_and_alone(void **state)
{
    (void)state;
    static const char *const settings[] = {
        "prefill=2,decode=2,ssd_tokens=1e6",
        "prefill=1,decode=1,dram_tokens=0",
        "system=vllm-prefix,policy=count,nodes=1",
        "prefill=2,decode=2,elastic=true,store=layerwise,group_max=4",
        "prefill=3,decode=2,mtbf_s=100,mttr_s=5,failures=p2@3+5",
        "prefill=2,decode=1,overload=early,speed=50,admit_ttft_s=0.3",
        "prefill=2,decode=1,cost.vram_tokens=1", /* nothing fits: no curve has a point */
    };
    struct trace *trace = generate(60);

    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        struct study *study = study_of(trace, settings[i], 2);
        char *page = text_of(study, "<b>\"x\" & 'y'</b>", true);
        assert_int_equal(count_of(page, "<svg"), count_of(page, "</svg>"));
        assert_int_equal(count_of(page, "<figure>"), count_of(page, "</figure>"));
        assert_int_equal(count_of(page, "<b>\"x"), 0);
        assert_true(count_of(page, "&lt;b&gt;&quot;x&quot; &amp; &#39;y&#39;&lt;/b&gt;") >= 2);
        assert_null(strstr(page, "http"));
        assert_null(strstr(page, "src="));
        assert_null(strstr(page, "nan"));
        assert_null(strstr(page, "inf"));
        assert_non_null(strstr(page, "</html>"));
        free(page);
        study_destroy(study);
    }
    trace_destroy(trace);
}

/* ---- plots ---- */

static char *drawing_of(const struct plot *plot)
{
    struct buf out;
    struct writer writer = { &out, STATUS_OK };
    uint8_t *text = NULL;
    size_t len;

    buf_init(&out, TEXT_MAX);
    plot_write(plot, &writer);
    assert_int_equal(writer.status, STATUS_OK);
    assert_int_equal(buf_take(&out, &text, &len), STATUS_OK);
    buf_fini(&out);
    return (char *)text;
}

static void axes_have_round_ticks(void **state)
{
    (void)state;
    const struct plot_point points[] = { { 0, 0 }, { 97, 4321 }, { 103, 9876 } };
    const struct plot_series series = { "a & b", points, 3, PLOT_DOTS, 0, false };
    struct plot plot = {
        .title = "t", .x_label = "x", .y_label = "y", .series = &series, .series_count = 1
    };
    char *text = drawing_of(&plot);

    for (int i = 0; i <= 100; i += 20) {
        char tick[32];
        snprintf(tick, sizeof(tick), ">%d</text>", i);
        assert_non_null(strstr(text, tick));
    }
    assert_non_null(strstr(text, ">2k</text>"));
    assert_non_null(strstr(text, ">10k</text>"));
    assert_null(strstr(text, ">12k</text>"));
    assert_non_null(strstr(text, "<title>a &amp; b: 97, 4.321k</title>"));
    assert_int_equal(count_of(text, "<circle"), 3);
    free(text);

    const struct plot_point wide[] = { { 0.3, 0.1 }, { 80, 0.9 } };
    const struct plot_series curve = { "c", wide, 2, PLOT_STEPS, 1, true };
    plot.series = &curve;
    plot.x_log = plot.y_percent = true;
    plot.y_max = 1;
    text = drawing_of(&plot);
    assert_non_null(strstr(text, ">0.5</text>"));
    assert_non_null(strstr(text, ">50</text>"));
    assert_non_null(strstr(text, ">100%</text>"));
    assert_null(strstr(text, ">0.2</text>"));
    free(text);

    plot.series_count = 0;
    text = drawing_of(&plot);
    assert_non_null(strstr(text, "Nothing to draw"));
    free(text);
}

static void short_numbers(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = { { 0, "0" },           { 0.25, "0.25" }, { 999, "999" },        { 999.99, "1k" },
                  { 1234.5, "1.234k" }, { 2.4e7, "24M" }, { 7.773e12, "7.773T" } };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf out;
        struct writer writer = { &out, STATUS_OK };
        buf_init(&out, 64);
        writer_put_short(&writer, cases[i].value);
        assert_int_equal(writer.status, STATUS_OK);
        assert_int_equal(out.len, strlen(cases[i].text));
        assert_memory_equal(buf_data(&out), cases[i].text, out.len);
        buf_fini(&out);
    }
}

static void a_full_buffer_is_said_once_at_the_end(void **state)
{
    (void)state;
    struct buf out;
    struct writer writer = { &out, STATUS_OK };

    buf_init(&out, 8);
    writer_put(&writer, "12345678");
    writer_put(&writer, "9");
    writer_put_escaped(&writer, "<");
    assert_int_equal(writer.status, STATUS_FULL);
    assert_int_equal(out.len, 8);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(one_failure_fails_all),
        cmocka_unit_test(a_study_repeats_and_is_json),
        cmocka_unit_test(a_page_is_whole_and_alone),
        cmocka_unit_test(axes_have_round_ticks),
        cmocka_unit_test(short_numbers),
        cmocka_unit_test(a_full_buffer_is_said_once_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
