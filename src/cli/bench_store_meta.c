/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_store_meta.c - the directory under load: a master of its own process, loads of theirs
 * (bench_store_load.c), a node that lends memory that is not there, and here somebody who asks the
 * master twice how much it has answered.
 *
 * What depends on how many clients there are is taken at the best of several numbers of them. The
 * lookups of eight processes are beside an echo of eight processes, in pairs. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/env_bare_echo.h"
#include "base/env_real.h"
#include "cli/bench.h"
#include "cli/bench_store.h"
#include "cli/report.h"
#include "yolk/store.h"

enum {
    KEYS = 500000,
    KEYS_BRIEF = 5000,
    KEYS_MEMORY = 200000,
    CLIENTS_MAX = 8,
    ONE_BATCH = 50000,
    ADDRESS_SIZE = 32,
    WINDOW_MS = 500,
    WINDOW_BRIEF_MS = 50,
    PATIENCE_S = 20,
    REMOVAL_S = 60, /* the master asks its nodes for each, some 20,000 a second */
    GIVE_BACK_S = 10,
};

struct meta {
    struct cli *cli;
    struct env *env;
    const struct bench_store_choice *choice;
    struct report *report;
    struct errmsg *err;
    uint64_t keys;
    char address[ADDRESS_SIZE];
    struct bench_child master;
    struct bench_child loads[CLIENTS_MAX];
    uint32_t loads_count;
    struct bench_store_node *node;
    struct yolk_store *store;
    bool answered;
    uint32_t left;
    enum status status;
    struct yolk_store_stats stats;
};

/* ---- asking ---- */

static void turn_for(struct meta *meta, uint64_t ns)
{
    const uint64_t end = env_now_ns(meta->env) + ns;
    for (uint64_t now = end - ns; now < end; now = env_now_ns(meta->env))
        (void)env_poll(meta->env, end - now);
}

static void on_stats(void *ctx, enum status status, const struct yolk_store_stats *stats,
                     const struct yolk_store_node *nodes, uint32_t nodes_count)
{
    struct meta *meta = ctx;
    (void)nodes;
    (void)nodes_count;
    meta->status = status;
    if (status == STATUS_OK) meta->stats = *stats;
    meta->answered = true;
}

static enum status wait(struct meta *meta)
{
    while (!meta->answered)
        (void)env_poll(meta->env, ENV_NS_PER_S);
    return meta->status;
}

static enum status ask_stats(struct meta *meta)
{
    meta->answered = false;
    const enum status status = yolk_store_stat(meta->store, PATIENCE_S * 1000, on_stats, meta);
    return status == STATUS_OK ? wait(meta) : status;
}

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct meta *meta = ctx;
    (void)index;
    (void)size;
    if (status != STATUS_OK) meta->status = status;
    if (--meta->left == 0) meta->answered = true;
}

/* ---- the processes ---- */

static enum status master_start(struct meta *meta)
{
    uint16_t port = 0;
    enum status status = bench_free_port(meta->cli, &port);
    if (status != STATUS_OK) return errmsg_set(meta->err, status, "no port is free");
    snprintf(meta->address, sizeof(meta->address), "127.0.0.1:%u", (unsigned)port);
    const char *const args[] = { "master", "--listen", meta->address, "--log", "warn", NULL };
    return bench_spawn(meta->cli, &meta->master, args, meta->err);
}

static enum status cluster_open(struct meta *meta)
{
    const struct yolk_store_options options = { .env = meta->env,
                                                .master = meta->address,
                                                .calls_max = YOLK_STORE_BATCH_MAX };
    enum status status = master_start(meta);
    if (status == STATUS_OK) status = yolk_store_create(&options, &meta->store, meta->err);
    if (status == STATUS_OK) status = ask_stats(meta);
    if (status == STATUS_OK) {
        status = bench_store_node_open(meta->env, meta->address, BENCH_STORE_LENT, &meta->node,
                                       meta->err);
    }
    const uint64_t limit = env_now_ns(meta->env) + PATIENCE_S * ENV_NS_PER_S;
    while (status == STATUS_OK && !bench_store_node_ready(meta->node)) {
        (void)env_poll(meta->env, ENV_NS_PER_S);
        if (env_now_ns(meta->env) > limit) status = STATUS_TIMEOUT;
    }
    if (status == STATUS_OK) turn_for(meta, 2 * ENV_NS_PER_S); /* it settles */
    return status;
}

static void loads_end(struct meta *meta)
{
    for (uint32_t i = 0; i < meta->loads_count; i++) {
        if (meta->loads[i].process != NULL) env_process_kill(meta->loads[i].process, SIGKILL);
    }
    for (uint32_t i = 0; i < meta->loads_count; i++)
        bench_end(&meta->loads[i]);
    meta->loads_count = 0;
}

static void cluster_close(struct meta *meta)
{
    loads_end(meta);
    yolk_store_destroy(meta->store);
    bench_store_node_close(meta->node);
    bench_end(&meta->master);
    meta->store = NULL;
    meta->node = NULL;
}

static enum status load_start(struct meta *meta, const char *name)
{
    char keys[24];
    snprintf(keys, sizeof(keys), "%llu", (unsigned long long)meta->keys);
    const char *const args[] = { "bench",       "store",  "load", name, "--master",
                                 meta->address, "--keys", keys,   NULL };
    return bench_spawn(meta->cli, &meta->loads[meta->loads_count++], args, meta->err);
}

static enum status fill(struct meta *meta)
{
    enum status status = load_start(meta, "fill");
    while (status == STATUS_OK && meta->loads[0].process != NULL)
        (void)env_poll(meta->env, ENV_NS_PER_S);
    loads_end(meta);
    if (status == STATUS_OK) status = ask_stats(meta);
    if (status == STATUS_OK && meta->stats.objects < meta->keys) status = STATUS_FULL;
    return status;
}

/* ---- rates ---- */

typedef enum status (*counter_fn)(struct meta *meta, uint64_t *out);

static enum status count_reads(struct meta *meta, uint64_t *out)
{
    const enum status status = ask_stats(meta);
    *out = meta->stats.reads_total;
    return status;
}

/* Puts that have come to their end. */
static enum status count_puts(struct meta *meta, uint64_t *out)
{
    const enum status status = ask_stats(meta);
    *out = meta->stats.objects - meta->stats.processing;
    return status;
}

static enum status count_echoes(struct meta *meta, uint64_t *out)
{
    const char *port = strrchr(meta->address, ':') + 1;
    return env_bare_echo_count((uint16_t)strtoul(port, NULL, 10), BENCH_STORE_ECHO_SIZE, out);
}

/* Of what is counted, a second, while `clients` of the load are at it. */
static enum status rate_under(struct meta *meta, const char *load, uint32_t clients,
                              counter_fn counter, double *per_s)
{
    const uint64_t window = (meta->choice->brief ? WINDOW_BRIEF_MS : WINDOW_MS) * ENV_NS_PER_MS;
    const uint64_t limit = env_now_ns(meta->env) + PATIENCE_S * ENV_NS_PER_S;
    uint64_t idle = 0;
    uint64_t first = 0;
    uint64_t last = 0;

    enum status status = counter(meta, &idle);
    for (uint32_t i = 0; i < clients && status == STATUS_OK; i++)
        status = load_start(meta, load);
    for (first = idle; status == STATUS_OK && first == idle;) { /* until they are at it */
        turn_for(meta, 5 * ENV_NS_PER_MS);
        status = counter(meta, &first);
        if (env_now_ns(meta->env) > limit) status = STATUS_TIMEOUT;
    }
    if (status == STATUS_OK) turn_for(meta, window / 2);
    if (status == STATUS_OK) status = counter(meta, &first);
    const uint64_t from = env_now_ns(meta->env);
    if (status == STATUS_OK) turn_for(meta, window);
    if (status == STATUS_OK) status = counter(meta, &last);
    *per_s = (double)(last - first) / ((double)(env_now_ns(meta->env) - from) / 1e9);
    loads_end(meta);
    return status;
}

/* ---- rows ---- */

static uint32_t runs(const struct meta *meta)
{
    return meta->choice->brief ? 1 : BENCH_RUNS;
}

static void row_add(struct meta *meta, const char *name, const char *unit, double *values,
                    enum report_target kind, double target)
{
    struct report_row *row =
        report_add(meta->report, name, report_median(values, runs(meta)), unit);
    row->kind = kind;
    row->target = target;
    row->low = values[0]; /* sorted by the median; of five, about the 95% interval of it */
    row->high = values[runs(meta) - 1];
}

/* Of one load with a fixed number of clients. */
static enum status row_load(struct meta *meta, const char *name, const char *load,
                            counter_fn counter, double target)
{
    double values[BENCH_RUNS];
    enum status status = STATUS_OK;

    if (!bench_store_wanted(meta->choice, name)) return STATUS_OK;
    for (uint32_t i = 0; i < runs(meta) && status == STATUS_OK; i++)
        status = rate_under(meta, load, 1, counter, &values[i]);
    if (status == STATUS_OK) row_add(meta, name, "1/s", values, REPORT_AT_LEAST, target);
    return status;
}

/* At the best number of clients. What is left behind is too much to be carried on if it is put. */
static enum status row_best(struct meta *meta, const char *name, const char *load,
                            counter_fn counter, double target)
{
    const bool puts = counter == count_puts;
    double best[BENCH_RUNS] = { 0 };
    double values[BENCH_RUNS];
    enum status status = STATUS_OK;

    if (!bench_store_wanted(meta->choice, name)) return STATUS_OK;
    for (uint32_t clients = 1; clients <= CLIENTS_MAX && status == STATUS_OK; clients *= 2) {
        if (puts) cluster_close(meta);
        if (puts) status = cluster_open(meta);
        for (uint32_t i = 0; i < runs(meta) && status == STATUS_OK; i++) {
            status = rate_under(meta, load, clients, counter, &values[i]);
        }
        if (status == STATUS_OK &&
            report_median(values, runs(meta)) > report_median(best, runs(meta))) {
            memcpy(best, values, sizeof(best));
        }
        if (meta->choice->brief) break;
    }
    if (status == STATUS_OK) row_add(meta, name, "1/s", best, REPORT_AT_LEAST, target);
    return status;
}

/* The echo has a server of its own, at a port of its own. */
static enum status echo_rate(struct meta *meta, double *per_s)
{
    struct meta echo = { .cli = meta->cli,
                         .env = meta->env,
                         .choice = meta->choice,
                         .keys = meta->keys,
                         .err = meta->err };
    uint16_t port = 0;
    uint64_t count;

    enum status status = bench_free_port(meta->cli, &port);
    snprintf(echo.address, sizeof(echo.address), "127.0.0.1:%u", (unsigned)port);
    const char *const args[] = { "bench",    "store",      "load", "echo-serve",
                                 "--master", echo.address, NULL };
    if (status == STATUS_OK) status = bench_spawn(meta->cli, &echo.master, args, meta->err);
    const uint64_t limit = env_now_ns(meta->env) + PATIENCE_S * ENV_NS_PER_S;
    while (status == STATUS_OK && count_echoes(&echo, &count) != STATUS_OK) {
        turn_for(meta, ENV_NS_PER_MS);
        if (env_now_ns(meta->env) > limit) status = STATUS_TIMEOUT;
    }
    if (status == STATUS_OK) {
        status = rate_under(&echo, "echo", CLIENTS_MAX, count_echoes, per_s);
    }
    bench_end(&echo.master);
    return status;
}

static enum status row_processes(struct meta *meta)
{
    static const char name[] = "lookup_one_key_8_processes";
    double values[BENCH_RUNS];
    double bare[BENCH_RUNS];
    double ratios[BENCH_RUNS];
    enum status status = STATUS_OK;

    if (!bench_store_wanted(meta->choice, name)) return STATUS_OK;
    for (uint32_t i = 0; i < runs(meta) && status == STATUS_OK; i++) {
        status = rate_under(meta, "exist", CLIENTS_MAX, count_reads, &values[i]);
        if (status == STATUS_OK) status = echo_rate(meta, &bare[i]);
        ratios[i] = values[i] / bare[i];
    }
    if (status != STATUS_OK) return status;
    row_add(meta, name, "1/s", values, REPORT_AT_LEAST, 0.8);
    struct report_row *row = &meta->report->rows[meta->report->count - 1];
    row->baseline = row->value / report_median(ratios, runs(meta)); /* the ratio is of the pairs */
    row->low = ratios[0];
    row->high = ratios[runs(meta) - 1];
    return STATUS_OK;
}

static enum status one_batch(struct meta *meta, double *ms)
{
    static uint8_t bytes[ONE_BATCH][BENCH_STORE_KEY_SIZE];
    static struct yolk_store_key keys[ONE_BATCH];
    const struct yolk_store_call call = { .on_item = on_item, .ctx = meta };

    for (uint32_t i = 0; i < ONE_BATCH; i++) {
        bench_store_key(bytes[i], 0, i % meta->keys);
        keys[i] = (struct yolk_store_key){ bytes[i], BENCH_STORE_KEY_SIZE };
    }
    meta->left = ONE_BATCH;
    meta->answered = false;
    meta->status = STATUS_OK;
    const uint64_t from = env_now_ns(meta->env);
    enum status status = yolk_store_exist(meta->store, keys, ONE_BATCH, &call);
    if (status == STATUS_OK) status = wait(meta);
    *ms = (double)(env_now_ns(meta->env) - from) / 1e6;
    return status;
}

static enum status row_one_batch(struct meta *meta)
{
    static const char name[] = "exist_one_batch_50000";
    double values[BENCH_RUNS];
    enum status status = STATUS_OK;

    if (!bench_store_wanted(meta->choice, name)) return STATUS_OK;
    for (uint32_t i = 0; i < runs(meta) && status == STATUS_OK; i++)
        status = one_batch(meta, &values[i]);
    if (status == STATUS_OK) row_add(meta, name, "ms", values, REPORT_AT_MOST, 20);
    return status;
}

/* ---- memory ---- */

static uint64_t resident(const struct meta *meta)
{
    return bench_memory(meta->cli, env_process_pid(meta->master.process), "VmRSS");
}

static void on_page(void *ctx, enum status status, const struct yolk_store_page *page,
                    const char *message)
{
    struct meta *meta = ctx;
    (void)message;
    meta->status = status;
    meta->left = status == STATUS_OK && page->next != 0; /* there is more */
    meta->stats.uptime_ms = status == STATUS_OK ? page->next : 0;
    meta->answered = true;
}

static enum status remove_all(struct meta *meta)
{
    struct yolk_store_query query = { .force = true };
    enum status status;

    do {
        meta->answered = false;
        status = yolk_store_remove_matching(meta->store, &query, PATIENCE_S * 1000, on_page, meta);
        if (status == STATUS_OK) status = wait(meta);
        query.cursor = meta->stats.uptime_ms;
    } while (status == STATUS_OK && query.cursor != 0);
    const uint64_t limit = env_now_ns(meta->env) + REMOVAL_S * ENV_NS_PER_S;
    do {
        turn_for(meta, 10 * ENV_NS_PER_MS);
        if (status == STATUS_OK) status = ask_stats(meta);
        if (env_now_ns(meta->env) > limit) status = STATUS_TIMEOUT;
    } while (status == STATUS_OK && meta->stats.objects > 0);
    return status;
}

/* Until four fifths are back, or the time is up. */
static double given_back(struct meta *meta, uint64_t empty, uint64_t full)
{
    const uint64_t limit = env_now_ns(meta->env) + GIVE_BACK_S * ENV_NS_PER_S;
    double back = 0;
    do {
        turn_for(meta, 100 * ENV_NS_PER_MS);
        back = ((double)full - (double)resident(meta)) / ((double)full - (double)empty);
    } while (back < 0.8 && env_now_ns(meta->env) < limit);
    return back;
}

static enum status rows_memory(struct meta *meta)
{
    static const char object[] = "master_memory_object";
    static const char back[] = "master_memory_given_back";
    double values[2][BENCH_RUNS];
    enum status status = STATUS_OK;

    if (!bench_store_wanted(meta->choice, object) && !bench_store_wanted(meta->choice, back)) {
        return STATUS_OK;
    }
    if (!meta->choice->brief) meta->keys = KEYS_MEMORY;
    for (uint32_t i = 0; i < runs(meta) && status == STATUS_OK; i++) {
        status = cluster_open(meta);
        const uint64_t empty = status == STATUS_OK ? resident(meta) : 0;
        if (status == STATUS_OK) status = fill(meta);
        const uint64_t full = status == STATUS_OK ? resident(meta) : 0;
        if (status == STATUS_OK) status = remove_all(meta);
        if (status == STATUS_OK) {
            values[0][i] = ((double)full - (double)empty) / (double)meta->keys;
            values[1][i] = given_back(meta, empty, full);
        }
        cluster_close(meta);
    }
    if (status != STATUS_OK) return status;
    row_add(meta, object, "B", values[0], REPORT_AT_MOST, 200);
    row_add(meta, back, "of it", values[1], REPORT_AT_LEAST, 0.8);
    return STATUS_OK;
}

/* ---- the empty master ---- */

/* From the exec until a connection is accepted. */
static enum status start_time(struct meta *meta, double *ms, double *mb)
{
    const uint64_t from = env_now_ns(meta->env);
    enum status status = master_start(meta);
    const uint16_t port = (uint16_t)strtoul(strrchr(meta->address, ':') + 1, NULL, 10);

    while (status == STATUS_OK && !env_bare_listens(port)) {
        if (env_now_ns(meta->env) - from > PATIENCE_S * ENV_NS_PER_S) status = STATUS_TIMEOUT;
        env_real_sleep_ns(ENV_NS_PER_MS / 10);
    }
    *ms = (double)(env_now_ns(meta->env) - from) / 1e6;
    if (status == STATUS_OK) turn_for(meta, 100 * ENV_NS_PER_MS);
    *mb = (double)resident(meta) / 1e6;
    bench_end(&meta->master);
    return status;
}

static enum status rows_empty(struct meta *meta)
{
    static const char memory[] = "master_empty_resident";
    static const char start[] = "master_start_to_accepting";
    double values[2][BENCH_RUNS];
    enum status status = STATUS_OK;

    if (!bench_store_wanted(meta->choice, memory) && !bench_store_wanted(meta->choice, start)) {
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < runs(meta) && status == STATUS_OK; i++)
        status = start_time(meta, &values[1][i], &values[0][i]);
    if (status != STATUS_OK) return status;
    row_add(meta, memory, "MB", values[0], REPORT_AT_MOST, 6);
    row_add(meta, start, "ms", values[1], REPORT_AT_MOST, 20);
    return STATUS_OK;
}

/* ---- all of them ---- */

static enum status rows_lookups(struct meta *meta)
{
    enum status status = cluster_open(meta);
    if (status == STATUS_OK) status = fill(meta);
    if (status == STATUS_OK) {
        status = row_load(meta, "lookup_one_key_8_threads", "exist-threads", count_reads, 120000);
    }
    if (status == STATUS_OK) status = row_processes(meta);
    if (status == STATUS_OK) {
        status = row_best(meta, "exist_batch_128", "exist-128", count_reads, 3e6);
    }
    if (status == STATUS_OK) {
        status = row_best(meta, "get_batch_128", "get-128", count_reads, 2e6);
    }
    if (status == STATUS_OK) status = row_one_batch(meta);
    cluster_close(meta);
    return status;
}

static enum status rows_puts(struct meta *meta)
{
    enum status status = cluster_open(meta);
    if (status == STATUS_OK) {
        status = row_load(meta, "put_start_end_8_threads", "put-threads", count_puts, 50000);
    }
    if (status == STATUS_OK) {
        status = row_best(meta, "put_start_end_batch_128", "put-128", count_puts, 1e6);
    }
    cluster_close(meta);
    return status;
}

static bool any_wanted(const struct meta *meta, const char *const names[], uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (bench_store_wanted(meta->choice, names[i])) return true;
    }
    return false;
}

enum status bench_store_meta(struct cli *cli, const struct bench_store_choice *choice,
                             struct report *report, struct errmsg *err)
{
    static const char *const lookups[] = { "lookup_one_key_8_threads", "lookup_one_key_8_processes",
                                           "exist_batch_128", "get_batch_128",
                                           "exist_one_batch_50000" };
    static const char *const puts[] = { "put_start_end_8_threads", "put_start_end_batch_128" };
    struct meta meta = { .cli = cli,
                         .env = cli->env,
                         .choice = choice,
                         .report = report,
                         .err = err,
                         .keys = choice->brief ? KEYS_BRIEF : KEYS };

    err->text[0] = '\0';
    enum status status = rows_empty(&meta);

    if (status == STATUS_OK && any_wanted(&meta, lookups, 5)) status = rows_lookups(&meta);
    if (status == STATUS_OK && any_wanted(&meta, puts, 2)) status = rows_puts(&meta);
    if (status == STATUS_OK) status = rows_memory(&meta);
    if (status != STATUS_OK && err->text[0] == '\0') {
        errmsg_set(err, status, "the directory could not be measured: %s", status_name(status));
    }
    return status;
}
