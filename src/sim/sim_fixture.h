/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/sim_fixture.h - what tests of whole runs begin with. Include cmocka first. */
#ifndef SIM_SIM_FIXTURE_H
#define SIM_SIM_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/sim.h"
#include "sim/trace_gen.h"

static const struct sim_progress quiet = { NULL, NULL };

static inline struct trace *parse(const char *text)
{
    struct trace *trace = NULL;
    struct errmsg err = { "" };
    if (trace_parse("t", text, strlen(text), &trace, &err) != STATUS_OK) fail_msg("%s", err.text);
    return trace;
}

/* The same prompt of 20 blocks and one token so many times, a minute apart. */
static inline struct trace *repeated(int count)
{
    char text[2048] = "";
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len,
                                "{\"timestamp\": %d, \"input_length\": 10241, "
                                "\"output_length\": 1, \"hash_ids\": [",
                                i * 60000);
        for (int j = 0; j <= 20; j++)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%d", j ? ", " : "", j);
        len += (size_t)snprintf(text + len, sizeof(text) - len, "]}\n");
    }
    assert_true(len < sizeof(text));
    return parse(text);
}

static inline struct trace *generate(uint32_t requests)
{
    struct trace_gen_options options = trace_gen_defaults();
    struct trace *trace = NULL;
    struct errmsg err = { "" };
    options.requests = requests;
    if (trace_gen(&options, &trace, &err) != STATUS_OK) fail_msg("%s", err.text);
    return trace;
}

static inline struct sim_cluster cluster_of(const char *settings)
{
    struct sim_cluster cluster;
    struct errmsg err = { "" };
    cluster_init(&cluster);
    if (cluster_set(&cluster, settings, &err) != STATUS_OK) fail_msg("%s", err.text);
    return cluster;
}

/* The settings can be read, but not simulated, and the reason has these words. */
static inline void refuses(const char *settings, const char *words)
{
    const struct sim_cluster cluster = cluster_of(settings);
    struct errmsg err = { "" };
    assert_int_equal(cluster_check(&cluster, &err), STATUS_INVALID);
    if (strstr(err.text, words) == NULL) fail_msg("`%s` lacks `%s`", err.text, words);
}

static inline struct sim_result *run_cluster(const struct trace *trace,
                                             const struct sim_cluster *cluster)
{
    struct sim_result *result = NULL;
    struct errmsg err = { "" };
    if (sim_run(cluster, trace, quiet, &result, &err) != STATUS_OK) fail_msg("%s", err.text);
    return result;
}

static inline struct sim_result *run(const struct trace *trace, const char *settings)
{
    const struct sim_cluster cluster = cluster_of(settings);
    return run_cluster(trace, &cluster);
}

static inline struct sim_summary summarize(const struct sim_result *result)
{
    struct sim_summary summary;
    assert_int_equal(sim_summarize(result, &summary), STATUS_OK);
    return summary;
}

static inline void near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance)) fail_msg("%.9g is not %.9g", value, expected);
}

#endif
