/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_gateway.c - what the gateway itself costs: requests that never reach a node.
 *
 * One client, one connection a request, against a gateway without nodes. /health is the price of a
 * connection and of HTTP; a refused chat adds parsing and checking; the yardstick of both is a bare
 * exchange of as many bytes with a listener that answers a fixed text. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/env_real.h"
#include "cli/bench.h"
#include "cli/report.h"

enum { REQUESTS = 400, TEXT_SIZE = 64 };

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

enum status bench_gateway(struct cli *cli, struct report *report, struct errmsg *err)
{
    static const char refused[] =
        "{\"model\":\"bench\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"n\":2}";
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
