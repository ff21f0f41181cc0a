/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_split.c - see the header.
 *
 * The requests are the first of the Mooncake conversation trace, scaled to a model and a machine
 * that are a hundred times smaller: prompts to a 32nd, answers to an eighth, and time so that
 * about one request a second comes, in bursts as there. Both clusters get the same list, one
 * after the other, and both compute on the same two CPUs: one for prefill and one for decode, or
 * two for an engine with two threads that does both. The gateway and this client take their share
 * of both. What is compared is the p99 of all gaps between tokens; the throughput has to be the
 * same for that to mean anything, and the time to the first token is shown, whoever wins. */
#include "cli/bench_split.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/env.h"
#include "cli/bench.h"
#include "cli/bench_cluster.h"
#include "cli/replay.h"
#include "cli/report.h"
#include "sim/trace.h"

enum { REQUESTS = 40, PATH_SIZE = 4096, CPUS_SIZE = 32 };
static const char TRACE[] = "conversation_trace.jsonl";
static const double PROMPTS = 1.0 / 32, ANSWERS = 1.0 / 8, SPEED = 0.3;
static const char *const ROWS[] = { "split_tbt_p99", "split_tokens_s", "split_ttft_p50",
                                    "split_ttft_p99" };

static void skip(struct cli *cli, struct report *report, const char *why)
{
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++) {
        if (!bench_asked(cli, ROWS[i])) continue;
        struct report_row *row = report_add(report, ROWS[i], 0, "");
        snprintf(row->skipped, sizeof(row->skipped), "%s", why);
    }
    fprintf(stderr, "yolk: split rows skipped: %s\n", why);
}

/* The first two CPUs that we may use. */
static bool two_cpus(int out[2])
{
    cpu_set_t set;
    int count = 0;

    if (sched_getaffinity(0, sizeof(set), &set) != 0) return false;
    for (int cpu = 0; cpu < CPU_SETSIZE && count < 2; cpu++)
        if (CPU_ISSET(cpu, &set)) out[count++] = cpu;
    return count == 2;
}

static void on_end(void *ctx)
{
    *(bool *)ctx = true;
}

/* The requests to a cluster with these options. */
static enum status measure(struct cli *cli, const struct trace *trace, const char *const *options,
                           struct replay_result *out, struct errmsg *err)
{
    struct bench_served served = { .cli = cli };
    struct replay *replay = NULL;
    bool ended = false;
    double ignored;

    enum status status = bench_served_start(&served, options, &ignored, err);
    if (status != STATUS_OK) return status;
    const struct replay_options list = {
        .address = served.address,
        .model = "bench",
        .trace = trace,
        .speed = SPEED,
        .scale = PROMPTS,
        .output_scale = ANSWERS,
        .requests_max = REQUESTS,
        .on_end = on_end,
        .ctx = &ended,
    };
    status = replay_start(cli->env, &list, &replay, err);
    while (status == STATUS_OK && !ended)
        env_poll(cli->env, 10 * ENV_NS_PER_MS);
    if (status == STATUS_OK) replay_result(replay, out);
    replay_destroy(replay);
    bench_end(&served.child);
    if (status == STATUS_OK && out->counts.finished < REQUESTS)
        status = errmsg_set(err, STATUS_IO, "%u of %d requests were not answered whole",
                            REQUESTS - out->counts.finished, REQUESTS);
    return status;
}

static void add(struct cli *cli, struct report *report, const char *name, const char *unit,
                double split, double coupled, enum report_target kind, double target)
{
    if (!bench_asked(cli, name)) return;
    struct report_row *row = report_add(report, name, split, unit);
    row->baseline = coupled;
    row->kind = kind;
    if (kind != REPORT_NO_TARGET) row->target = target;
}

static enum status compare(struct cli *cli, const struct trace *trace, const int cpus[2],
                           struct report *report, struct errmsg *err)
{
    char apart[CPUS_SIZE], together[CPUS_SIZE];
    const char *const two[] = { "--cpus", apart, "--threads", "1", NULL };
    const char *const one[] = { "--coupled", "1", "--cpus", together, "--threads", "2", NULL };
    struct replay_result split, coupled;

    snprintf(apart, sizeof(apart), "%d/%d", cpus[0], cpus[1]);
    snprintf(together, sizeof(together), "%d,%d", cpus[0], cpus[1]);
    enum status status = measure(cli, trace, one, &coupled, err);
    if (status == STATUS_OK) status = measure(cli, trace, two, &split, err);
    if (status != STATUS_OK) return status;
    add(cli, report, ROWS[0], "ms", split.tbt.p99, coupled.tbt.p99, REPORT_AT_MOST, 0.5);
    add(cli, report, ROWS[1], "tokens/s", (double)split.counts.tokens / split.seconds,
        (double)coupled.counts.tokens / coupled.seconds, REPORT_AT_LEAST, 0.95);
    add(cli, report, ROWS[2], "ms", split.ttft.p50, coupled.ttft.p50, REPORT_NO_TARGET, 0);
    add(cli, report, ROWS[3], "ms", split.ttft.p99, coupled.ttft.p99, REPORT_NO_TARGET, 0);
    return STATUS_OK;
}

static enum status read_trace(struct cli *cli, struct trace **out, struct errmsg *err)
{
    const char *directory = getenv("YOLK_TRACES");
    char path[PATH_SIZE];

    snprintf(path, sizeof(path), "%s/%s", directory != NULL ? directory : "../shared/traces",
             TRACE);
    return cli_trace_read(cli, path, out, err);
}

enum status bench_split(struct cli *cli, struct report *report, struct errmsg *err)
{
    struct trace *trace = NULL;
    struct errmsg why = { "" };
    bool asked = false;
    int cpus[2];

    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++)
        asked = asked || bench_asked(cli, ROWS[i]);
    if (!asked) return STATUS_OK;
    if (!two_cpus(cpus)) {
        skip(cli, report, "there are no two CPUs");
        return STATUS_OK;
    }
    if (read_trace(cli, &trace, &why) != STATUS_OK) {
        skip(cli, report, "no conversation trace in $YOLK_TRACES or ../shared/traces");
        return STATUS_OK;
    }
    const enum status status = compare(cli, trace, cpus, report, err);
    trace_destroy(trace);
    return status;
}
