/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_gateway.c - what the gateway itself costs.
 *
 * First requests that never reach a node: one client, one connection a request, against a gateway
 * without nodes. /health is the price of a connection and of HTTP; a refused chat adds parsing and
 * checking; the yardstick of both is a bare exchange of as many bytes with a listener that answers
 * a fixed text.
 *
 * Then streams of 16 tokens, each over a connection of its own, from nodes whose engine takes no
 * time. They and the client share the machine with the gateway, so what counts is the CPU that the
 * gateway's process used: requests for each second of one core. Last, a thousand streams that are
 * open at once, and what each adds to the gateway's resident set. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/env_real.h"
#include "cli/bench.h"
#include "cli/bench_cluster.h"
#include "cli/report.h"

enum {
    REQUESTS = 400,
    TEXT_SIZE = 64,
    WARM_STREAMS = 200,
    FAST_STREAMS = 1000,
    FAST_AT_ONCE = 64,
    OPEN_STREAMS = 1000,
    OPEN_DECODES = 16, /* of 64 sequences each */
};

/* ---- the yardstick ---- */

static const char fixed[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

static void on_bare_ready(void *ctx, unsigned events)
{
    struct env_stream *stream = ctx;
    const struct iovec part = { (void *)(uintptr_t)fixed, sizeof(fixed) - 1 };
    char request[4096];
    size_t n = 0;

    (void)events;
    if (env_stream_read(stream, request, sizeof(request), &n) == STATUS_AGAIN) return;
    if (env_stream_writev(stream, &part, 1, &n) != STATUS_OK) n = 0;
    env_stream_close(stream);
}

static void on_bare(void *ctx, struct env_stream *stream)
{
    (void)ctx;
    env_stream_watch(stream, ENV_READ, on_bare_ready, stream);
}

/* ---- measuring ---- */

/* Median microseconds from the request to the end of the answer; NaN if the code is another. */
static double latency_us(struct cli *cli, const char *address, const char *path, const char *body,
                         int code)
{
    static double samples[REQUESTS];
    static struct bench_answer answer;

    for (unsigned i = 0; i < REQUESTS; i++) {
        bench_request(cli, address, path, body, &answer);
        if (answer.status != STATUS_OK || answer.code != code) return NAN;
        samples[i] = (double)answer.total_ns / 1e3;
    }
    return report_median(samples, REQUESTS);
}

static void add_row(struct report *report, const char *name, double value, double baseline)
{
    report_add(report, name, value, "us")->baseline = baseline;
}

/* ---- streams ---- */

static struct bench_stream streams[BENCH_STREAMS_MAX];

static enum status run_streams(struct bench_cluster *cluster, uint32_t count, struct errmsg *err)
{
    struct bench_streams asked = { .cluster = cluster,
                                   .prompt_tokens = 100,
                                   .output_tokens = 16,
                                   .count = count,
                                   .at_once = FAST_AT_ONCE,
                                   .streams = streams };

    memset(streams, 0, sizeof(streams));
    return bench_streams_run(&asked, NULL, err);
}

static enum status measure_rate(struct cli *cli, struct report *report, struct errmsg *err)
{
    double per_core[BENCH_RUNS], per_s[BENCH_RUNS];
    struct bench_cluster cluster;

    enum status status = bench_cluster_start(&cluster, cli, 2, 0, err);
    if (status != STATUS_OK) return status;
    const pid_t pid = env_process_pid(cluster.gateway.process);
    status = run_streams(&cluster, WARM_STREAMS, err);
    for (int i = 0; i < BENCH_RUNS && status == STATUS_OK; i++) {
        const double cpu_s = bench_cpu_s(cli, pid);
        const uint64_t started_ns = env_now_ns(cli->env);
        status = run_streams(&cluster, FAST_STREAMS, err);
        per_core[i] = FAST_STREAMS / (bench_cpu_s(cli, pid) - cpu_s);
        per_s[i] = FAST_STREAMS / ((double)(env_now_ns(cli->env) - started_ns) / 1e9);
    }
    bench_cluster_end(&cluster);
    if (status != STATUS_OK) return status;
    struct report_row *row = report_add(report, "streams_of_16_tokens_per_core",
                                        report_median(per_core, BENCH_RUNS), "requests/s");
    row->kind = REPORT_AT_LEAST;
    row->target = 3000;
    report_add(report, "streams_of_16_tokens_all_on_this_machine", report_median(per_s, BENCH_RUNS),
               "requests/s");
    return STATUS_OK;
}

static bool all_begun(const struct bench_streams *asked)
{
    return asked->begun == asked->count;
}

/* Once is enough: what the first streams leave in the allocator is part of the answer. */
static enum status measure_open(struct cli *cli, struct report *report, struct errmsg *err)
{
    struct bench_cluster cluster;
    struct bench_streams asked = { .cluster = &cluster,
                                   .prompt_tokens = 100,
                                   .output_tokens = 1000,
                                   .count = OPEN_STREAMS,
                                   .at_once = OPEN_STREAMS,
                                   .streams = streams };

    enum status status = bench_cluster_start(&cluster, cli, OPEN_DECODES, 0.25, err);
    if (status != STATUS_OK) return status;
    const pid_t pid = env_process_pid(cluster.gateway.process);
    const uint64_t before = bench_memory(cli, pid, "VmRSS");
    memset(streams, 0, sizeof(streams));
    status = bench_streams_run(&asked, all_begun, err);
    const uint64_t after = bench_memory(cli, pid, "VmRSS");
    bench_cluster_end(&cluster);
    while (asked.done < asked.asked) /* they end with their gateway */
        env_poll(cli->env, 10 * ENV_NS_PER_MS);
    if (status != STATUS_OK) return status;
    struct report_row *row = report_add(report, "resident_per_open_stream",
                                        (double)(after - before) / OPEN_STREAMS / 1024, "KiB");
    row->kind = REPORT_AT_MOST;
    row->target = 24;
    return STATUS_OK;
}

static enum status measure_alone(struct cli *cli, struct report *report, struct errmsg *err)
{
    static const char refused[] =
        "{\"model\":\"bench\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
        "\"max_tokens\":-1}";
    struct env_listener *bare = NULL;
    struct bench_child child;
    uint16_t port = 0;
    char address[TEXT_SIZE], bare_address[TEXT_SIZE], port_text[TEXT_SIZE];

    enum status status = env_listen(cli->env, "127.0.0.1:0", on_bare, NULL, &bare, err);
    if (status == STATUS_OK) status = bench_free_port(cli, &port);
    if (status != STATUS_OK) return status;
    snprintf(port_text, sizeof(port_text), "%u", port);
    snprintf(address, sizeof(address), "127.0.0.1:%u", port);
    snprintf(bare_address, sizeof(bare_address), "127.0.0.1:%u", env_listener_port(bare));
    const char *args[] = { "gateway",
                           config_text(cli->config, "model"),
                           "--port",
                           port_text,
                           "--served-model-name",
                           "bench",
                           "--log",
                           "error",
                           NULL };
    status = bench_spawn(cli, &child, args, err);
    if (status == STATUS_OK) status = bench_wait_ok(cli, address, "/health", 20 * ENV_NS_PER_S);
    if (status == STATUS_OK) {
        const double yardstick = latency_us(cli, bare_address, "/", NULL, 200);
        add_row(report, "health", latency_us(cli, address, "/health", NULL, 200), yardstick);
        add_row(report, "refused_chat",
                latency_us(cli, address, "/v1/chat/completions", refused, 400), yardstick);
        report_add(report, "resident",
                   (double)bench_memory(cli, env_process_pid(child.process), "VmRSS") / 1e6, "MB");
        bench_end(&child);
    }
    env_listener_close(bare);
    return status;
}

enum status bench_gateway(struct cli *cli, struct report *report, struct errmsg *err)
{
    enum status status = STATUS_OK;

    if (bench_asked(cli, "health") || bench_asked(cli, "refused_chat"))
        status = measure_alone(cli, report, err);
    if (status == STATUS_OK && bench_asked(cli, "streams_of_16_tokens_per_core"))
        status = measure_rate(cli, report, err);
    if (status == STATUS_OK && bench_asked(cli, "resident_per_open_stream"))
        status = measure_open(cli, report, err);
    return status;
}
