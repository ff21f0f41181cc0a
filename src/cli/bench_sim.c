/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_sim.c - how fast the simulator is: an hour of chat on 16 nodes, and a million requests
 * on a thousand.
 *
 * The traces are generated, with the aggregates of the public conversation trace (12,031 requests,
 * 12 thousand tokens of prompt, a third of them shared), so that the numbers need no file. The
 * million is run once: it takes minutes. */
#include <unistd.h>

#include "base/env.h"
#include "cli/bench.h"
#include "cli/report.h"
#include "sim/sim.h"
#include "sim/trace_gen.h"

static struct trace_gen_options like_conversation(uint32_t requests, double rate)
{
    struct trace_gen_options options = trace_gen_defaults();

    options.requests = requests;
    options.rate = rate;
    options.follow = 0.35;
    options.sessions = requests / 20;
    if (options.sessions > TRACE_GEN_SESSIONS_MAX) options.sessions = TRACE_GEN_SESSIONS_MAX;
    options.roots = 1;
    options.root_tokens = 512;
    options.input_tokens = 8000;
    options.output_tokens = 343;
    return options;
}

/* Seconds that one replay takes. */
static enum status replay(struct cli *cli, const struct trace *trace,
                          const struct sim_cluster *cluster, double *seconds, struct errmsg *err)
{
    struct sim_result *result = NULL;
    const uint64_t start = env_now_ns(cli->env);
    const enum status status =
        sim_run(cluster, trace, (struct sim_progress){ NULL, NULL }, &result, err);

    *seconds = (double)(env_now_ns(cli->env) - start) / 1e9;
    sim_result_destroy(result);
    return status;
}

static void add_row(struct report *report, const char *name, double value, const char *unit,
                    double most)
{
    struct report_row *row = report_add(report, name, value, unit);
    row->kind = REPORT_AT_MOST;
    row->target = most;
}

static enum status bench_hour(struct cli *cli, struct report *report, struct errmsg *err)
{
    const struct trace_gen_options options = like_conversation(12031, 3.4);
    struct sim_cluster cluster;
    struct trace *trace = NULL;
    double seconds[BENCH_RUNS] = { 0 };

    cluster_init(&cluster);
    enum status status = trace_gen(&options, &trace, err);
    for (int i = 0; status == STATUS_OK && i < BENCH_RUNS; i++)
        status = replay(cli, trace, &cluster, &seconds[i], err);
    trace_destroy(trace);
    if (status == STATUS_OK)
        add_row(report, "hour_16_nodes", report_median(seconds, BENCH_RUNS), "s", 1);
    return status;
}

static enum status bench_million(struct cli *cli, struct report *report, struct errmsg *err)
{
    const struct trace_gen_options options = like_conversation(1000000, 210);
    struct sim_cluster cluster;
    struct trace *trace = NULL;
    double seconds = 0;

    cluster_init(&cluster);
    cluster.prefill = 500;
    cluster.decode = 500;
    enum status status = trace_gen(&options, &trace, err);
    if (status == STATUS_OK) status = replay(cli, trace, &cluster, &seconds, err);
    trace_destroy(trace);
    if (status != STATUS_OK) return status;
    add_row(report, "million_1000_nodes", seconds, "s", 120);
    add_row(report, "million_memory", (double)bench_memory(cli, getpid(), "VmHWM") / 1e9, "GB", 2);
    return STATUS_OK;
}

enum status bench_sim(struct cli *cli, struct report *report, struct errmsg *err)
{
    const enum status status = bench_hour(cli, report, err);
    return status == STATUS_OK ? bench_million(cli, report, err) : status;
}
