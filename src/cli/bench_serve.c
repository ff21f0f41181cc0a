/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_serve.c - the whole cluster as a user meets it: how soon it is ready, how large it is,
 * how much sooner the second question about a document is answered than the first, how much sooner
 * two nodes compute a long prompt than one, how much of the moving of KV is hidden, what a client
 * notices of a decode node that is killed, and (bench_split.c) what it has of separate nodes. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/env_real.h"
#include "cli/bench.h"
#include "cli/bench_cluster.h"
#include "cli/bench_split.h"
#include "cli/report.h"

enum {
    DOCUMENT_LINES = 250, /* about 3,000 tokens */
    BODY_SIZE = 64 << 10,
    TEXT_SIZE = 64,
    CHILDREN_MAX = 16,
    KILL_STREAMS = 32, /* at two decode nodes */
    KILL_TOKENS = 150,
    KILL_STEP_MS = 20,
    KILL_AFTER = 40, /* pieces of the first stream */
    LONG_TOKENS = 8000,
    LONG_RUNS = 3,
    LONG_TAIL = 300,  /* in which a second question differs */
    STATUS_MS = 2500, /* after which a gateway has heard from its nodes */
};

#define MB 1e6

static enum status start(struct bench_served *bench, double *ready_s, struct errmsg *err)
{
    const char *const nothing[] = { NULL };
    return bench_served_start(bench, nothing, ready_s, err);
}

/* A request about a document of its own; `question` makes two requests differ at the end only. */
static void write_body(char *body, unsigned document, unsigned question)
{
    int n = snprintf(body, BODY_SIZE,
                     "{\"model\":\"bench\",\"stream\":true,\"temperature\":0,\"max_tokens\":4,"
                     "\"ignore_eos\":true,\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (unsigned i = 0; i < DOCUMENT_LINES; i++) {
        n += snprintf(body + n, (size_t)(BODY_SIZE - n), "Entry %u of %u is %u. ", i, document,
                      (i * 7919u + document * 104729u) % 1000u);
    }
    snprintf(body + n, (size_t)(BODY_SIZE - n), "Question %u: what is entry %u?\"}]}", question,
             question);
}

static enum status send(struct bench_served *bench, const char *path, const char *body,
                        double *ttft_ms, struct errmsg *err)
{
    struct bench_answer *answer = malloc(sizeof(*answer));

    if (answer == NULL) return STATUS_NO_MEMORY;
    bench_request(bench->cli, bench->address, path, body, answer);
    enum status status = answer->status;
    if (status == STATUS_OK && answer->code != 200)
        status = errmsg_set(err, STATUS_IO, "HTTP %d: %.200s", answer->code, answer->body);
    *ttft_ms = (double)answer->first_ns / 1e6;
    free(answer);
    return status;
}

static enum status ask(struct bench_served *bench, unsigned document, unsigned question,
                       double *ttft_ms, struct errmsg *err)
{
    char *body = malloc(BODY_SIZE);

    if (body == NULL) return STATUS_NO_MEMORY;
    write_body(body, document, question);
    const enum status status = send(bench, "/v1/chat/completions", body, ttft_ms, err);
    free(body);
    return status;
}

/* ---- moving KV ---- */

/* The value of a series of /metrics; 0 if it is not there. */
static double metric(struct bench_served *bench, const char *series)
{
    struct bench_answer *answer = malloc(sizeof(*answer));
    double value = 0;

    if (answer == NULL) return 0;
    bench_request(bench->cli, bench->address, "/metrics", NULL, answer);
    const char *at = answer->status == STATUS_OK ? strstr(answer->body, series) : NULL;
    if (at != NULL) value = strtod(at + strlen(series), NULL);
    free(answer);
    return value;
}

/* Which part of the time that KV moved in a direction, prefills computed meanwhile. */
static void measure_hidden(struct bench_served *bench, const char *direction, struct report *report)
{
    char series[128], name[64];

    snprintf(series, sizeof(series), "\nyolk_kv_moved_seconds_total{direction=\"%s\"} ", direction);
    const double moved = metric(bench, series);
    snprintf(series, sizeof(series), "\nyolk_kv_hidden_seconds_total{direction=\"%s\"} ",
             direction);
    const double hidden = metric(bench, series);
    snprintf(name, sizeof(name), "kv_%s_hidden", direction);
    struct report_row *row = report_add(report, name, hidden * 1e3, "ms");
    row->baseline = moved * 1e3;
    row->kind = REPORT_AT_LEAST;
    row->target = 0.9;
}

/* ---- long prompts ---- */

/* A prompt of token ids: a document of its own, but for a tail that is the question's. */
static void write_long(char *body, unsigned document, unsigned question)
{
    int n = snprintf(body, BODY_SIZE,
                     "{\"model\":\"bench\",\"stream\":true,\"temperature\":0,\"max_tokens\":1,"
                     "\"ignore_eos\":true,\"prompt\":[");
    for (unsigned i = 0; i < LONG_TOKENS; i++) {
        const unsigned salt = document * 131071u + (i < LONG_TOKENS - LONG_TAIL ? 0 : question);
        n += snprintf(body + n, (size_t)(BODY_SIZE - n), "%s%u", i > 0 ? "," : "",
                      1000u + (i * 7919u + salt * 104729u) % 8999u);
    }
    snprintf(body + n, (size_t)(BODY_SIZE - n), "]}");
}

static enum status ask_long(struct bench_served *bench, unsigned document, unsigned question,
                            double *ttft_ms, struct errmsg *err)
{
    char *body = malloc(BODY_SIZE);

    if (body == NULL) return STATUS_NO_MEMORY;
    write_long(body, document, question);
    const enum status status = send(bench, "/v1/completions", body, ttft_ms, err);
    free(body);
    return status;
}

/* The same prompts to both in turn, so that what else the machine does hits both alike. */
static enum status compare_group(struct bench_served *one, struct bench_served *two,
                                 struct report *report, struct errmsg *err)
{
    double alone[LONG_RUNS], together[LONG_RUNS], ignored;

    enum status status = ask_long(one, 99, 0, &ignored, err); /* warm, and the model has learned */
    if (status == STATUS_OK) status = ask_long(two, 99, 0, &ignored, err);
    for (unsigned i = 0; status == STATUS_OK && i < LONG_RUNS; i++) {
        status = ask_long(one, i, 0, &alone[i], err);
        if (status == STATUS_OK) status = ask_long(two, i, 0, &together[i], err);
    }
    if (status != STATUS_OK) return status;
    struct report_row *row = report_add(report, "ttft_8000_tokens_two_nodes_of_a_group",
                                        report_median(together, LONG_RUNS), "ms");
    row->baseline = report_median(alone, LONG_RUNS);
    row->kind = REPORT_AT_MOST;
    row->target = 0.62;
    report_add(report, "groups_formed", metric(two, "\nyolk_conductor_groups_total "), "of 4");
    /* The blocks are at the decode node: a second question loads them from there. */
    for (unsigned i = 0; status == STATUS_OK && i < LONG_RUNS; i++)
        status = ask_long(two, i, 1, &ignored, err);
    return status;
}

/* Engines of one thread each: one against two on as many cores. */
static enum status measure_group(struct cli *cli, struct report *report, struct errmsg *err)
{
    const char *const alone[] = { "--threads", "1", NULL };
    const char *const group[] = { "--threads", "1", "--prefill", "2", "--group-max", "2", NULL };
    struct bench_served one = { .cli = cli }, two = { .cli = cli };
    double ignored;

    enum status status = bench_served_start(&one, alone, &ignored, err);
    if (status != STATUS_OK) return status;
    status = bench_served_start(&two, group, &ignored, err);
    if (status == STATUS_OK) {
        status = compare_group(&one, &two, report, err);
        env_real_sleep_ns(STATUS_MS * ENV_NS_PER_MS);
        if (status == STATUS_OK) measure_hidden(&one, "store", report);
        if (status == STATUS_OK) measure_hidden(&two, "load", report);
        bench_end(&two.child);
    }
    bench_end(&one.child);
    return status;
}

/* ---- a shared prefix ---- */

static enum status measure_prefix(struct bench_served *bench, struct report *report,
                                  struct errmsg *err)
{
    double first[BENCH_RUNS], second[BENCH_RUNS], ignored;

    enum status status = ask(bench, 999, 1, &ignored, err); /* warm */
    for (unsigned i = 0; status == STATUS_OK && i < BENCH_RUNS; i++) {
        status = ask(bench, i, 1, &first[i], err);
        if (status == STATUS_OK) status = ask(bench, i, 2, &second[i], err);
    }
    if (status != STATUS_OK) return status;
    struct report_row *row = report_add(report, "ttft_shared_3000_token_prefix",
                                        report_median(second, BENCH_RUNS), "ms");
    row->baseline = report_median(first, BENCH_RUNS);
    row->kind = REPORT_AT_MOST;
    row->target = 0.15;
    return STATUS_OK;
}

static void measure_memory(struct bench_served *bench, struct report *report)
{
    pid_t pids[CHILDREN_MAX];
    uint64_t pool = 0, rss = 0;

    const uint32_t count =
        bench_children(bench->cli, env_process_pid(bench->child.process), pids, CHILDREN_MAX);
    for (uint32_t i = 0; i < count; i++) {
        pool += bench_memory(bench->cli, pids[i], "RssShmem");
        rss += bench_memory(bench->cli, pids[i], "RssAnon");
    }
    report_add(report, "pool_resident_at_ready", (double)pool / MB, "MB");
    report_add(report, "anonymous_memory_at_ready", (double)rss / MB, "MB");
}

/* A master by itself, with nothing registered. */
static enum status measure_master(struct cli *cli, struct report *report, struct errmsg *err)
{
    struct bench_child child;
    uint16_t port = 0;
    char listen[TEXT_SIZE];

    if (bench_free_port(cli, &port) != STATUS_OK) return errmsg_set(err, STATUS_IO, "no free port");
    snprintf(listen, sizeof(listen), "127.0.0.1:%u", port);
    const char *args[] = { "master", "--listen", listen, "--log", "error", NULL };
    const enum status status = bench_spawn(cli, &child, args, err);
    if (status != STATUS_OK) return status;
    env_real_sleep_ns(300 * ENV_NS_PER_MS);
    const uint64_t rss = bench_memory(cli, env_process_pid(child.process), "VmRSS");
    bench_end(&child);
    struct report_row *row = report_add(report, "empty_master_resident", (double)rss / MB, "MB");
    row->kind = REPORT_AT_MOST;
    row->target = 6;
    return STATUS_OK;
}

static void on_strip_exit(void *ctx, struct env_exit how)
{
    (void)how;
    env_stop(ctx);
}

static enum status measure_binary(struct cli *cli, struct report *report, struct errmsg *err)
{
    char self[CLI_PATH_SIZE], stripped[CLI_PATH_SIZE];
    struct env_process *process = NULL;
    struct env_file *file = NULL;
    uint64_t size = 0;

    enum status status = env_real_self_path(self, sizeof(self));
    if (status == STATUS_OK) status = cli_cache_path("bench-stripped", stripped, err);
    const char *argv[] = { "strip", "-o", stripped, self, NULL };
    if (status == STATUS_OK)
        status = env_process_spawn(cli->env, argv, on_strip_exit, cli->env, &process, err);
    if (status != STATUS_OK) return status;
    env_run(cli->env);
    status = env_file_open(cli->env, stripped, ENV_FILE_READ, &file, err);
    if (status == STATUS_OK) status = env_file_size(file, &size);
    env_file_close(file);
    if (status != STATUS_OK) return status;
    status = env_file_remove(cli->env, stripped);
    struct report_row *row = report_add(report, "stripped_binary", (double)size / MB, "MB");
    row->kind = REPORT_AT_MOST;
    row->target = 5;
    return status;
}

/* ---- a decode node is killed ---- */

static struct bench_stream undisturbed[KILL_STREAMS], disturbed[KILL_STREAMS];

static bool is_time_to_kill(const struct bench_streams *asked)
{
    return asked->begun == asked->count && asked->streams[0].pieces >= KILL_AFTER;
}

static int by_gap(const void *a, const void *b)
{
    const struct bench_stream *x = a, *y = b;
    return (x->gap_ns > y->gap_ns) - (x->gap_ns < y->gap_ns);
}

/* The engine computes prompts in no time and a step in 20 ms, so what a client waits for longer
 * than a step is what the cluster adds to the recomputation: to notice, to place again, to move
 * blocks. Each text is that of the undisturbed run, or did not continue. */
static enum status measure_kill(struct cli *cli, struct report *report, struct errmsg *err)
{
    struct bench_cluster cluster;
    struct bench_streams asked = { .cluster = &cluster,
                                   .prompt_tokens = 100,
                                   .output_tokens = KILL_TOKENS,
                                   .count = KILL_STREAMS,
                                   .at_once = KILL_STREAMS,
                                   .streams = undisturbed };
    uint32_t same = 0;

    enum status status = bench_cluster_start(&cluster, cli, 2, KILL_STEP_MS / 1e3, err);
    if (status != STATUS_OK) return status;
    status = bench_streams_run(&asked, NULL, err);
    asked = (struct bench_streams){ .cluster = &cluster,
                                    .prompt_tokens = 100,
                                    .output_tokens = KILL_TOKENS,
                                    .count = KILL_STREAMS,
                                    .at_once = KILL_STREAMS,
                                    .streams = disturbed };
    if (status == STATUS_OK) status = bench_streams_run(&asked, is_time_to_kill, err);
    if (status == STATUS_OK) {
        env_process_kill(cluster.nodes[1].process, SIGKILL);
        status = bench_streams_run(&asked, NULL, err);
    }
    bench_cluster_end(&cluster);
    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < KILL_STREAMS; i++)
        same += disturbed[i].hash == undisturbed[i].hash;
    struct report_row *row =
        report_add(report, "streams_through_a_killed_decode_node", same, "of 32");
    row->kind = REPORT_AT_LEAST;
    row->target = KILL_STREAMS;
    qsort(disturbed, KILL_STREAMS, sizeof(disturbed[0]), by_gap);
    const uint64_t p99_ns = disturbed[KILL_STREAMS * 99 / 100].gap_ns;
    row = report_add(report, "pause_added_by_the_kill_p99", (double)p99_ns / 1e6 - KILL_STEP_MS,
                     "ms");
    row->kind = REPORT_AT_MOST;
    row->target = 1000;
    return STATUS_OK;
}

static enum status measure_cluster(struct cli *cli, struct report *report, struct errmsg *err)
{
    struct bench_served bench = { .cli = cli };
    double ready[BENCH_RUNS], warm;

    enum status status = start(&bench, &warm, err); /* page cache and profile */
    if (status != STATUS_OK) return status;
    status = measure_prefix(&bench, report, err);
    bench_end(&bench.child);
    for (unsigned i = 0; status == STATUS_OK && i < BENCH_RUNS; i++) {
        status = start(&bench, &ready[i], err);
        if (status != STATUS_OK) return status;
        if (i + 1 == BENCH_RUNS) measure_memory(&bench, report);
        bench_end(&bench.child);
    }
    if (status != STATUS_OK) return status;
    struct report_row *row =
        report_add(report, "exec_to_ready", report_median(ready, BENCH_RUNS), "s");
    row->kind = REPORT_AT_MOST;
    row->target = 1;
    status = measure_binary(cli, report, err);
    if (status == STATUS_OK) status = measure_master(cli, report, err);
    return status;
}

enum status bench_serve(struct cli *cli, struct report *report, struct errmsg *err)
{
    const bool kills = bench_asked(cli, "streams_through_a_killed_decode_node") ||
                       bench_asked(cli, "pause_added_by_the_kill_p99");
    const bool others =
        bench_asked(cli, "ttft_shared_3000_token_prefix") || bench_asked(cli, "exec_to_ready");
    const bool long_ones = bench_asked(cli, "ttft_8000_tokens_two_nodes_of_a_group") ||
                           bench_asked(cli, "kv_store_hidden") ||
                           bench_asked(cli, "kv_load_hidden");
    enum status status = others ? measure_cluster(cli, report, err) : STATUS_OK;

    if (status == STATUS_OK && long_ones) status = measure_group(cli, report, err);
    if (status == STATUS_OK && kills) status = measure_kill(cli, report, err);
    return status == STATUS_OK ? bench_split(cli, report, err) : status;
}
