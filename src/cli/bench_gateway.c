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
 * gateway's process used: requests for each second of one core. Then a thousand streams that are
 * open at once, and what each adds to the gateway's resident set.
 *
 * Last, how long eight streams with a token every 5 ms stand still while the gateway tokenises a
 * long text for somebody else: the longest gap of any of them, the 5 ms included. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
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
    GAP_STREAMS = 8,
    GAP_TOKENS = 7000, /* of each: they go on for 35 s */
    GAP_ALONE_MS = 500,
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

static void end_open(struct bench_streams *asked)
{
    bench_cluster_end(asked->cluster);
    while (asked->done < asked->asked) /* they end with their gateway */
        env_poll(asked->cluster->cli->env, 10 * ENV_NS_PER_MS);
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
    end_open(&asked);
    if (status != STATUS_OK) return status;
    struct report_row *row = report_add(report, "resident_per_open_stream",
                                        (double)(after - before) / OPEN_STREAMS / 1024, "KiB");
    row->kind = REPORT_AT_MOST;
    row->target = 24;
    return STATUS_OK;
}

/* ---- long bodies beside streams ---- */

/* {"prompt": about `size` bytes of words}; NULL: no memory. */
static char *long_body(size_t size)
{
    static const char *const WORDS[] = { "the",  "cluster", "answers", "from", "memory", "of",
                                         "many", "nodes",   "and",     "what", "follows" };
    enum { WORDS_COUNT = sizeof(WORDS) / sizeof(WORDS[0]), REST = 64 };
    char *body = malloc(size + REST);
    uint32_t draw = 1;
    size_t len = 0;

    if (body == NULL) return NULL;
    len += (size_t)snprintf(body, REST, "{\"model\":\"bench\",\"prompt\":\"");
    while (len < size) {
        draw = draw * 1664525 + 1013904223; /* so that nothing repeats soon */
        len += (size_t)snprintf(body + len, REST / 2, "%s ", WORDS[(draw >> 16) % WORDS_COUNT]);
    }
    snprintf(body + len, REST / 2, "\"}");
    return body;
}

static double take_longest_gap_ms(struct bench_streams *asked)
{
    uint64_t longest_ns = 0;

    for (uint32_t i = 0; i < asked->count; i++) {
        if (asked->streams[i].gap_ns > longest_ns) longest_ns = asked->streams[i].gap_ns;
        asked->streams[i].gap_ns = 0;
    }
    return (double)longest_ns / 1e6;
}

/* The gap while `body` is answered; without one, for GAP_ALONE_MS. */
static enum status gap_beside(struct bench_streams *asked, const char *body, double *out,
                              struct errmsg *err)
{
    struct cli *cli = asked->cluster->cli;
    const uint64_t end_ns = env_now_ns(cli->env) + GAP_ALONE_MS * ENV_NS_PER_MS;
    static struct bench_answer answer = { .code = 200 };

    (void)take_longest_gap_ms(asked);
    if (body != NULL) bench_request(cli, asked->cluster->address, "/tokenize", body, &answer);
    while (body == NULL && env_now_ns(cli->env) < end_ns)
        env_poll(cli->env, ENV_NS_PER_MS);
    if (asked->done > 0 || answer.status != STATUS_OK || answer.code != 200)
        return errmsg_set(err, STATUS_IO, "a stream has ended early, or a text was not tokenised");
    for (const uint64_t rest_ns = env_now_ns(cli->env) + 20 * ENV_NS_PER_MS;
         env_now_ns(cli->env) < rest_ns;)
        env_poll(cli->env, ENV_NS_PER_MS); /* until every stream has gone on */
    *out = take_longest_gap_ms(asked);
    return STATUS_OK;
}

static enum status measure_gap(struct bench_streams *asked, struct report *report, const char *name,
                               size_t size, struct errmsg *err)
{
    char *body = size > 0 ? long_body(size) : NULL;
    enum status status = body != NULL || size == 0 ? STATUS_OK : STATUS_NO_MEMORY;
    double gaps[BENCH_RUNS];

    for (int i = 0; i < BENCH_RUNS && status == STATUS_OK; i++)
        status = gap_beside(asked, body, &gaps[i], err);
    free(body);
    if (status != STATUS_OK) return status;
    struct report_row *row = report_add(report, name, report_median(gaps, BENCH_RUNS), "ms");
    if (size == 0) return STATUS_OK;
    row->kind = REPORT_AT_MOST;
    row->target = 10;
    return STATUS_OK;
}

static enum status measure_gaps(struct cli *cli, struct report *report, struct errmsg *err)
{
    struct bench_cluster cluster;
    struct bench_streams asked = { .cluster = &cluster,
                                   .prompt_tokens = 100,
                                   .output_tokens = GAP_TOKENS,
                                   .count = GAP_STREAMS,
                                   .at_once = GAP_STREAMS,
                                   .streams = streams };

    enum status status = bench_cluster_start(&cluster, cli, 1, 0.005, err);
    if (status != STATUS_OK) return status;
    memset(streams, 0, sizeof(streams));
    status = bench_streams_run(&asked, all_begun, err);
    if (status == STATUS_OK) status = measure_gap(&asked, report, "gap_of_streams_alone", 0, err);
    if (status == STATUS_OK)
        status = measure_gap(&asked, report, "gap_of_streams_beside_500_kB", 500000, err);
    if (status == STATUS_OK)
        status = measure_gap(&asked, report, "gap_of_streams_beside_4_MB", 4000000, err);
    end_open(&asked);
    return status;
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
    if (status == STATUS_OK && (bench_asked(cli, "gap_of_streams_alone") ||
                                bench_asked(cli, "gap_of_streams_beside_500_kB") ||
                                bench_asked(cli, "gap_of_streams_beside_4_MB")))
        status = measure_gaps(cli, report, err);
    return status;
}
