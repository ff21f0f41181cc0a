/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/classes_test.c
 *
 * Goal:   every request is of one class, by its share, whatever else is set; classes that say
 *         nothing change nothing; priority is served first and refused last; a limit of one's own
 *         is what one is judged by; what is wrong is refused.
 * Method: whole runs of a generated trace, whose laws are asserted inside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim/classes.h"
#include "sim/sim_fixture.h"

static void set_classes(struct sim_cluster *cluster, const char *classes, const char *shares)
{
    snprintf(cluster->classes, sizeof(cluster->classes), "%s", classes);
    snprintf(cluster->class_shares, sizeof(cluster->class_shares), "%s", shares);
}

static struct sim_summary run_summary(const struct trace *trace, const char *settings)
{
    struct sim_result *result = run(trace, settings);
    const struct sim_summary summary = summarize(result);
    sim_result_destroy(result);
    return summary;
}

static void shares_are_kept_and_add_up(void **state)
{
    (void)state;
    struct trace *trace = generate(2000);
    struct sim_result *result = run(trace, "classes=a=priority:1;b=ttft:2s;c=tbt:none,"
                                           "class_shares=5 3 2,overload=early,speed=3");
    const struct sim_summary summary = summarize(result);
    const double shares[] = { 0.5, 0.3, 0.2 };
    uint32_t requests = 0, done = 0, refused = 0;
    double good = 0;

    assert_int_equal(result->classes.count, 3);
    for (int i = 0; i < 3; i++) {
        near(summary.classes[i].requests / 2000.0, shares[i], 0.04);
        requests += summary.classes[i].requests;
        done += summary.classes[i].done;
        refused += summary.classes[i].refused;
        good += summary.classes[i].good * summary.classes[i].requests / 2000;
    }
    assert_int_equal(requests, 2000);
    assert_int_equal(done, summary.done);
    assert_int_equal(refused, summary.refused_early + summary.refused_late);
    assert_true(refused > 0);
    near(good, summary.good, 1e-9);
    sim_result_destroy(result);
    trace_destroy(trace);
}

/* Another speed, another policy: the same request is of the same class; another seed moves it. */
static void only_the_seed_draws(void **state)
{
    (void)state;
    struct trace *trace = generate(300);
    const char *const settings[] = { "classes=a=priority:1;b=priority:0",
                                     "classes=a=priority:1;b=priority:0,speed=4,jitter_ms=900",
                                     "classes=a=priority:1;b=priority:0,seed=2" };
    uint32_t moved[3] = { 0 };
    struct sim_result *first = run(trace, settings[0]);

    for (int i = 0; i < 3; i++) {
        struct sim_result *result = run(trace, settings[i]);
        for (uint32_t r = 0; r < result->count; r++)
            moved[i] += result->records[r].class != first->records[r].class;
        sim_result_destroy(result);
    }
    assert_int_equal(moved[0], 0);
    assert_int_equal(moved[1], 0);
    assert_true(moved[2] > 50);
    sim_result_destroy(first);
    trace_destroy(trace);
}

static void classes_that_say_nothing_change_nothing(void **state)
{
    (void)state;
    static const char *const settings[] = {
        "prefill=3,decode=2,speed=2",
        "prefill=2,decode=2,speed=3,overload=adaptive,door=true,stretch=5,group_max=3",
        "prefill=3,decode=3,mtbf_s=20,mttr_s=5,elastic=true",
    };
    struct trace *trace = generate(600);

    for (int i = 0; i < 3; i++) {
        struct sim_cluster cluster = cluster_of(settings[i]);
        struct sim_result *without = run_cluster(trace, &cluster);
        set_classes(&cluster, "a=priority:0;b=", "");
        struct sim_result *with = run_cluster(trace, &cluster);
        struct sim_result *again = run_cluster(trace, &cluster);
        assert_true(summarize(with).digest == summarize(without).digest);
        assert_true(summarize(with).digest == summarize(again).digest);
        sim_result_destroy(without);
        sim_result_destroy(with);
        sim_result_destroy(again);
    }
    trace_destroy(trace);
}

/* Too few prefill nodes, where queues are long; and little memory, where requests wait outside. */
static void priority_goes_first(void **state)
{
    (void)state;
    static const char *const settings[] = { "prefill=2,decode=2", "decode=1,cost.vram_tokens=3e5" };
    struct trace *trace = generate(600);

    for (int i = 0; i < 2; i++) {
        struct sim_cluster cluster = cluster_of(settings[i]);
        set_classes(&cluster, "high=priority:2;low=priority:-2", "1 4");
        struct sim_result *result = run_cluster(trace, &cluster);
        const struct sim_summary summary = summarize(result);
        if (!(summary.classes[0].ttft_ms.p90 < 0.6 * summary.classes[1].ttft_ms.p90))
            fail_msg("%s: high %g ms, low %g ms", settings[i], summary.classes[0].ttft_ms.p90,
                     summary.classes[1].ttft_ms.p90);
        sim_result_destroy(result);
    }
    trace_destroy(trace);
}

static void priority_is_refused_last(void **state)
{
    (void)state;
    struct trace *trace = generate(600);
    const struct sim_summary summary =
        run_summary(trace, "prefill=2,decode=4,speed=2,overload=adaptive,"
                           "classes=high=priority:2;low=priority:-2,class_shares=1 4");
    const struct sim_class *high = &summary.classes[0], *low = &summary.classes[1];
    assert_true(low->refused > 0);
    assert_true((double)high->refused / high->requests < 0.5 * low->refused / low->requests);
    trace_destroy(trace);
}

static void a_limit_of_ones_own_is_what_counts(void **state)
{
    (void)state;
    struct trace *trace = generate(600);
    const struct sim_summary summary =
        run_summary(trace, "prefill=2,decode=4,classes=patient=ttft:none tbt:none;"
                           "brisk=ttft:1ms;general=");
    assert_true(summary.classes[0].good == 1);
    assert_true(summary.classes[1].good == 0);
    assert_true(summary.classes[2].good > 0 && summary.classes[2].good < 1);
    /* Without limits nobody is refused for his own sake. */
    const struct sim_summary judged = run_summary(
        trace, "prefill=2,decode=8,overload=early,admit_tbt_ms=0,classes=patient=ttft:none;brisk=");
    assert_int_equal(judged.classes[0].refused, 0);
    assert_true(judged.classes[1].refused > 0);
    trace_destroy(trace);
}

static void what_is_wrong_is_refused(void **state)
{
    (void)state;
    refuses("classes=a=priority:99", "priority");
    refuses("classes=nonsense", "NAME=SETTING");
    refuses("class_shares=1", "no classes");
    refuses("classes=a=;b=,class_shares=1", "each of 2");
    refuses("classes=a=;b=,class_shares=1 2 3", "each of 2");
    refuses("classes=a=;b=,class_shares=1 -2", "`-2`");
    refuses("classes=a=;b=,class_shares=1 nan", "`nan`");
    refuses("classes=a=,policy=random", "only the conductor");
    refuses("classes=a=,system=vllm,policy=load", "no conductor");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_kept_and_add_up),
        cmocka_unit_test(only_the_seed_draws),
        cmocka_unit_test(classes_that_say_nothing_change_nothing),
        cmocka_unit_test(priority_goes_first),
        cmocka_unit_test(priority_is_refused_last),
        cmocka_unit_test(a_limit_of_ones_own_is_what_counts),
        cmocka_unit_test(what_is_wrong_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
