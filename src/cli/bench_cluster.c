/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_cluster.c - see the header. The processes are those of `yolk serve`, started one by one
 * so that each can be measured and killed; the engine's costs are a file of --engine-profile. */
#include "cli/bench_cluster.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/env_real.h"
#include "net/http_client.h"

enum {
    BODY_SIZE = 16 << 10,
    WORD_SIZE = 8,
    ARGS_MAX = 32,
    PROC_SIZE = 4096,
    STAT_UTIME = 14,
    CHILD_SLEEP_MS = 20
};
#define FNV_PRIME UINT64_C(0x100000001b3)

/* ---- processes ---- */

static enum status write_costs(struct cli *cli, double step_s, char path[CLI_PATH_SIZE],
                               struct errmsg *err)
{
    char name[64], text[512];
    const int len = snprintf(text, sizeof(text),
                             "{\"cost\": {\"prefill_fixed_s\": 0, \"prefill_new_s\": 0, "
                             "\"prefill_square_s\": 0, \"prefill_reused_s\": 0, "
                             "\"decode_base_s\": %g, \"decode_sequence_s\": 0, "
                             "\"decode_context_s\": 0}}\n",
                             step_s > 0 ? step_s : 1e-9); /* 0 is none of the costs' values */

    snprintf(name, sizeof(name), "bench-costs-%g.json", step_s);
    enum status status = cli_cache_path(name, path, err);
    if (status == STATUS_OK) status = env_file_replace(cli->env, path, text, (size_t)len, err);
    return status;
}

static enum status start_node(struct bench_cluster *cluster, const char *role, const char *master,
                              const char *costs, struct errmsg *err)
{
    struct bench_child *child = &cluster->nodes[cluster->nodes_count];
    char name[32];
    const char *args[] = { "node",
                           config_text(cluster->cli->config, "model"),
                           "--role",
                           role,
                           "--name",
                           name,
                           "--master",
                           master,
                           "--engine",
                           "timed",
                           "--engine-profile",
                           costs,
                           "--pool-size",
                           "64M",
                           "--log",
                           "error",
                           NULL };

    snprintf(name, sizeof(name), "%s-%u", role, cluster->nodes_count);
    const enum status status = bench_spawn(cluster->cli, child, args, err);
    if (status == STATUS_OK) cluster->nodes_count++;
    return status;
}

static enum status start_gateway(struct bench_cluster *cluster, const char *master, uint16_t port,
                                 struct errmsg *err)
{
    char port_text[16], profile[CLI_PATH_SIZE]; /* of its own: what is learned here is not so */
    const char *args[] = { "gateway",
                           config_text(cluster->cli->config, "model"),
                           "--master",
                           master,
                           "--port",
                           port_text,
                           "--served-model-name",
                           "bench",
                           "--profile",
                           profile,
                           "--drain-grace",
                           "0s",
                           "--log",
                           "error",
                           NULL };

    enum status status = cli_cache_path("profiles/bench-timed.json", profile, err);
    if (status != STATUS_OK) return status;
    snprintf(port_text, sizeof(port_text), "%u", port);
    snprintf(cluster->address, sizeof(cluster->address), "127.0.0.1:%u", port);
    return bench_spawn(cluster->cli, &cluster->gateway, args, err);
}

/* Until the gateway counts all nodes. */
static enum status wait_nodes(struct bench_cluster *cluster, uint32_t decodes, struct errmsg *err)
{
    struct cli *cli = cluster->cli;
    const uint64_t end_ns = env_now_ns(cli->env) + 60 * ENV_NS_PER_S;
    struct bench_answer answer;
    char words[64];

    snprintf(words, sizeof(words), "\"prefill\":1,\"decode\":%u}", decodes);
    while (env_now_ns(cli->env) < end_ns) {
        bench_request(cli, cluster->address, "/ready", NULL, &answer);
        if (answer.status == STATUS_OK && strstr(answer.body, words) != NULL) return STATUS_OK;
        env_real_sleep_ns(CHILD_SLEEP_MS * ENV_NS_PER_MS);
    }
    return errmsg_set(err, STATUS_TIMEOUT, "the cluster did not become ready");
}

enum status bench_cluster_start(struct bench_cluster *cluster, struct cli *cli, uint32_t decodes,
                                double step_s, struct errmsg *err)
{
    char master[BENCH_ADDRESS_SIZE], costs[CLI_PATH_SIZE];
    uint16_t ports[2] = { 0, 0 };
    const char *args[] = { "master", "--listen", master, "--log", "error", NULL };

    *cluster = (struct bench_cluster){ .cli = cli };
    enum status status = write_costs(cli, step_s, costs, err);
    for (int i = 0; i < 2 && status == STATUS_OK; i++)
        status = bench_free_port(cli, &ports[i]);
    if (status != STATUS_OK) return status;
    snprintf(master, sizeof(master), "127.0.0.1:%u", ports[0]);
    status = bench_spawn(cli, &cluster->master, args, err);
    if (status == STATUS_OK) status = start_node(cluster, "prefill", master, costs, err);
    for (uint32_t i = 0; i < decodes && status == STATUS_OK; i++)
        status = start_node(cluster, "decode", master, costs, err);
    if (status == STATUS_OK) status = start_gateway(cluster, master, ports[1], err);
    if (status == STATUS_OK) status = wait_nodes(cluster, decodes, err);
    if (status != STATUS_OK) bench_cluster_end(cluster);
    return status;
}

/* Until the gateway has taken the signal: a second one before that would be the same one. */
static void wait_leaving(const struct bench_cluster *cluster)
{
    struct bench_answer answer = { .code = 200 };

    for (int i = 0; i < 100 && answer.status == STATUS_OK && answer.code == 200; i++) {
        env_real_sleep_ns(CHILD_SLEEP_MS * ENV_NS_PER_MS);
        bench_request(cluster->cli, cluster->address, "/ready", NULL, &answer);
    }
}

void bench_cluster_end(struct bench_cluster *cluster)
{
    if (cluster->gateway.process != NULL) {
        env_process_kill(cluster->gateway.process, SIGTERM);
        wait_leaving(cluster);
    }
    bench_end(&cluster->gateway); /* a second signal: it does not wait for streams */
    for (uint32_t i = 0; i < cluster->nodes_count; i++)
        bench_end(&cluster->nodes[i]);
    bench_end(&cluster->master);
}

double bench_cpu_s(struct cli *cli, pid_t pid)
{
    char path[64], *text = NULL;
    size_t len = 0;
    unsigned long long ticks = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (env_file_read_all(cli->env, path, PROC_SIZE, &text, &len, NULL) != STATUS_OK) return 0;
    char *at = strrchr(text, ')'); /* behind the name, the third field */
    for (int field = 3; at != NULL && field <= STAT_UTIME + 1; field++) {
        at = strchr(at + 1, ' ');
        if (at != NULL && field >= STAT_UTIME) ticks += strtoull(at, NULL, 10);
    }
    free(text);
    return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* ---- a cluster of `yolk serve` ---- */

enum status bench_served_start(struct bench_served *bench, const char *const *more, double *ready_s,
                               struct errmsg *err)
{
    uint16_t port = 0;
    uint32_t count = 0;
    char port_text[WORD_SIZE];

    if (bench_free_port(bench->cli, &port) != STATUS_OK)
        return errmsg_set(err, STATUS_IO, "no free port");
    snprintf(port_text, sizeof(port_text), "%u", port);
    snprintf(bench->address, sizeof(bench->address), "127.0.0.1:%u", port);
    const char *args[ARGS_MAX] = { "serve",
                                   config_text(bench->cli->config, "model"),
                                   "--port",
                                   port_text,
                                   "--served-model-name",
                                   "bench",
                                   "--quiet",
                                   "--ssd-size", /* what an earlier run left would be found */
                                   "0",
                                   "--log",
                                   "error",
                                   NULL };
    while (args[count] != NULL)
        count++;
    while (*more != NULL && count + 1 < ARGS_MAX)
        args[count++] = *more++;
    const uint64_t started = env_now_ns(bench->cli->env);
    enum status status = bench_spawn(bench->cli, &bench->child, args, err);
    if (status != STATUS_OK) return status;
    status = bench_wait_ok(bench->cli, bench->address, "/ready", 120 * ENV_NS_PER_S);
    *ready_s = (double)(env_now_ns(bench->cli->env) - started) / 1e9;
    if (status != STATUS_OK) {
        bench_end(&bench->child);
        return errmsg_set(err, status, "the cluster did not become ready");
    }
    return STATUS_OK;
}

/* ---- streams ---- */

struct asking {
    struct bench_streams *streams;
    struct bench_stream *stream;
};

static uint64_t now_ns(const struct bench_streams *streams)
{
    return env_now_ns(streams->cluster->cli->env);
}

static void on_line(void *ctx, const char *line, size_t len)
{
    struct asking *asking = ctx;
    struct bench_stream *stream = asking->stream;
    const uint64_t now = now_ns(asking->streams);
    const char *text;

    if (len < 6 || memcmp(line, "data: ", 6) != 0) return;
    if (len >= 12 && memcmp(line, "data: [DONE]", 12) == 0) {
        stream->good = true;
        return;
    }
    text = memmem(line, len, "\"text\":\"", 8);
    if (text == NULL) return;
    text += 8;
    const size_t rest = len - (size_t)(text - line);
    const char *end = memchr(text, '"', rest);
    if (end == NULL || end == text) return;
    if (stream->pieces++ == 0) {
        stream->first_ns = now;
        asking->streams->begun++;
    } else if (now - stream->last_ns > stream->gap_ns) {
        stream->gap_ns = now - stream->last_ns;
    }
    stream->last_ns = now;
    for (; text < end; text++) /* whatever pieces the text comes in */
        stream->hash = (stream->hash ^ (uint8_t)*text) * FNV_PRIME;
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct asking *asking = ctx;

    asking->stream->done = true;
    asking->stream->good &= reply->status == STATUS_OK && reply->code == 200;
    asking->streams->done++;
    free(asking);
}

/* Every prompt begins with its number, so that nothing is shared but the template. */
static void write_body(const struct bench_streams *streams, uint32_t nth, char body[BODY_SIZE])
{
    int n = snprintf(body, BODY_SIZE,
                     "{\"model\":\"bench\",\"stream\":true,\"temperature\":0,\"ignore_eos\":true,"
                     "\"max_tokens\":%u,\"prompt\":\"%u",
                     streams->output_tokens, nth);

    for (uint32_t i = 1; i < streams->prompt_tokens && n + WORD_SIZE < BODY_SIZE; i++)
        n += snprintf(body + n, (size_t)(BODY_SIZE - n), " word");
    snprintf(body + n, (size_t)(BODY_SIZE - n), "\"}");
}

static enum status ask(struct bench_streams *streams, struct errmsg *err)
{
    struct bench_cluster *cluster = streams->cluster;
    struct asking *asking = malloc(sizeof(*asking));
    struct http_client *client = NULL;
    char body[BODY_SIZE];

    if (asking == NULL) return STATUS_NO_MEMORY;
    *asking = (struct asking){ streams, &streams->streams[streams->asked] };
    write_body(streams, streams->asked, body);
    asking->stream->asked_ns = now_ns(streams);
    const struct http_client_options options = {
        .address = cluster->address,
        .method = "POST",
        .path = "/v1/completions",
        .headers = "Content-Type: application/json\r\n",
        .body = body,
        .len = strlen(body),
        .deadline_ns = asking->stream->asked_ns + 600 * ENV_NS_PER_S,
        .on_line = on_line,
        .on_done = on_done,
        .ctx = asking,
    };
    const enum status status = http_client_start(cluster->cli->env, &options, &client, err);
    if (status != STATUS_OK) {
        free(asking);
        return status;
    }
    streams->asked++;
    return STATUS_OK;
}

enum status bench_streams_run(struct bench_streams *streams,
                              bool (*until)(const struct bench_streams *streams),
                              struct errmsg *err)
{
    struct env *env = streams->cluster->cli->env;
    enum status status = STATUS_OK;

    while (status == STATUS_OK && streams->done < streams->count) {
        if (until != NULL && until(streams)) return STATUS_OK;
        while (status == STATUS_OK && streams->asked < streams->count &&
               streams->asked - streams->done < streams->at_once)
            status = ask(streams, err);
        env_poll(env, 10 * ENV_NS_PER_MS);
    }
    for (uint32_t i = 0; i < streams->asked && status == STATUS_OK; i++) {
        if (!streams->streams[i].good)
            status = errmsg_set(err, STATUS_IO, "stream %u did not end whole", i);
    }
    return status;
}
