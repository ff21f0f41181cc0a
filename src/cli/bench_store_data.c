/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_store_data.c - values that move: batches of puts to a node of another process, and gets
 * of it and of the own one, beside raw sockets or memcpy, in pairs; how long puts take when the
 * memory is full; and whether what does not fit the memory is on the disk.
 *
 * A get here is all that a client's get is: asking the master, pinning at the owner, moving,
 * verifying every piece. "First" reads are of values that this client has never read, or over TCP
 * has forgotten; of the others it remembers where they are, and asks the owner alone, or on its
 * host looks at its board. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/env_bare.h"
#include "base/env_real.h"
#include "cli/bench.h"
#include "cli/bench_store.h"
#include "cli/report.h"
#include "store/proto.h"
#include "yolk/store.h"
#include "yolk/store_lend.h"
#include "yolk/transfer.h"

enum {
    BATCH = 16,
    PUT_BATCH = 128,
    STREAMS = 2, /* of the raw sockets; as many as the engine's lanes to a peer */
    SET_SIZE = 64 << 20,
    SMALL = 4096,
    SMALL_GETS = 200,
    PUT_SIZE = 64 << 10,
    PUTS = 1000,
    PUTS_BRIEF = 20,
    FULL_MIB = 128,
    ROOMY_MIB = 320,
    PATIENCE_S = 20,
    MEMORY_SIZE = 2 * SET_SIZE,
    BEYOND_MIB = 768, /* of memory */
    BEYOND_VALUES = 1024,
    BEYOND_SIZE = 1 << 20,
};
#define NO_POLL "0"
#define POLL "100" /* us */
#define BEYOND_DISK (UINT64_C(2) << 30)

/* ---- a node ---- */

static enum status own_open(struct env *env, const char *master, uint32_t mib, bool tcp,
                            const char *directory, struct yolk_store_lend **out, struct errmsg *err)
{
    const struct yolk_transfer_options transfer = { .forbid_shm = tcp };
    const struct yolk_store_lend_options options = { .env = env,
                                                     .master = master,
                                                     .transfer = &transfer,
                                                     .size = (uint64_t)mib << 20,
                                                     .directory = directory,
                                                     .disk_size = BEYOND_DISK };
    return yolk_store_lend_create(&options, out, err);
}

enum status bench_store_own(struct cli *cli, const char *master, uint32_t mib, bool tcp,
                            const char *directory, struct errmsg *err)
{
    struct yolk_store_lend *lend;
    const enum status status = own_open(cli->env, master, mib, tcp, directory, &lend, err);
    if (status != STATUS_OK) return status;
    cli_set_poll(cli);
    env_run(cli->env); /* until it is killed */
    yolk_store_lend_destroy(lend);
    return STATUS_OK;
}

/* ---- the cluster and its client ---- */

struct data {
    struct cli *cli;
    struct env *env;
    const struct bench_store_choice *choice;
    struct report *report;
    struct errmsg *err;
    char address[32];
    struct bench_child master;
    struct bench_child node;
    struct yolk_store_lend *own; /* instead of `node` */
    struct yolk_transfer *transfer;
    struct yolk_store *store;
    uint8_t *memory;               /* MEMORY_SIZE bytes, registered */
    uint32_t space;                /* of the keys of the present row */
    const char *poll_us;           /* of master and node */
    char directory[CLI_PATH_SIZE]; /* of the disk below the node of another process; "": none */
    uint32_t left;
    enum status status;
};

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct data *data = ctx;
    (void)index;
    (void)size;
    if (status != STATUS_OK) data->status = status;
    data->left--;
}

static enum status wait(struct data *data, enum status started, bool polling)
{
    if (started != STATUS_OK) return started;
    while (data->left > 0)
        (void)env_poll(data->env, polling ? 0 : ENV_NS_PER_S);
    return data->status;
}

static void key_at(const struct data *data, uint32_t i, uint8_t bytes[BENCH_STORE_KEY_SIZE],
                   struct yolk_store_key *out)
{
    bench_store_key(bytes, data->space, i);
    *out = (struct yolk_store_key){ bytes, BENCH_STORE_KEY_SIZE };
}

static enum status put_bytes(struct data *data, uint32_t i, const uint8_t *bytes_of, uint64_t size)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = data };
    uint8_t bytes[BENCH_STORE_KEY_SIZE];
    struct yolk_store_value value = { .data = bytes_of, .size = size };

    key_at(data, i, bytes, &value.key);
    data->left = 1;
    data->status = STATUS_OK;
    return wait(data, yolk_store_put(data->store, &value, 1, &call), false);
}

static enum status put_one(struct data *data, uint32_t i, uint64_t size)
{
    return put_bytes(data, i, data->memory, size);
}

/* `count` values from `first` on, at most BATCH, into the memory one behind the other. */
static enum status get_some(struct data *data, uint32_t first, uint32_t count, uint64_t size,
                            bool polling)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = data };
    uint8_t bytes[BATCH][BENCH_STORE_KEY_SIZE];
    struct yolk_store_buffer buffers[BATCH];

    ASSERT(count <= BATCH && count * size <= MEMORY_SIZE);
    for (uint32_t i = 0; i < count; i++) {
        buffers[i] = (struct yolk_store_buffer){ .data = data->memory + i * size, .size = size };
        key_at(data, first + i, bytes[i], &buffers[i].key);
    }
    data->left = count;
    data->status = STATUS_OK;
    return wait(data, yolk_store_get(data->store, buffers, count, &call), polling);
}

static enum status client_open(struct data *data, bool tcp, struct yolk_transfer *shared)
{
    const struct yolk_transfer_options transfer = { .forbid_shm = tcp };
    struct yolk_store_options options = { .env = data->env,
                                          .master = data->address,
                                          .timeout_ms = PATIENCE_S * 1000 };
    enum status status = STATUS_OK;
    void *memory = NULL;

    if (shared == NULL) {
        status = yolk_transfer_create(data->env, &transfer, &data->transfer, data->err);
    }
    options.transfer = shared == NULL ? data->transfer : shared;
    if (status == STATUS_OK) {
        status = yolk_transfer_alloc(options.transfer, MEMORY_SIZE, YOLK_TRANSFER_REMOTE_ALL,
                                     &memory, data->err);
    }
    if (status != STATUS_OK) return status;
    data->memory = memory;
    env_random(data->env, data->memory, 1 << 20);
    for (size_t at = 1 << 20; at < MEMORY_SIZE; at += 1 << 20) /* its pages are there */
        memcpy(data->memory + at, data->memory, 1 << 20);
    return yolk_store_create(&options, &data->store, data->err);
}

/* A master, a node of another process or of this one, and a client. */
static enum status cluster_open(struct data *data, uint32_t mib, bool tcp, bool own)
{
    uint16_t port = 0;
    char lends[16];

    enum status status = bench_free_port(data->cli, &port);
    snprintf(data->address, sizeof(data->address), "127.0.0.1:%u", (unsigned)port);
    snprintf(lends, sizeof(lends), "%u", mib);
    const char *const master[] = { "master", "--listen",  data->address, "--log",
                                   "error",  "--poll-us", data->poll_us, NULL };
    const char *const node[] = { "bench",     "store",       "load",   tcp ? "own-tcp" : "own",
                                 "--master",  data->address, "--keys", lends,
                                 "--poll-us", data->poll_us, NULL };
    const char *const disk[] = { "bench",      "store",         "load",   "own-disk",
                                 "--master",   data->address,   "--keys", lends,
                                 "--data-dir", data->directory, NULL };
    if (status == STATUS_OK) status = bench_spawn(data->cli, &data->master, master, data->err);
    if (status == STATUS_OK && own) {
        status = own_open(data->env, data->address, mib, tcp, "", &data->own, data->err);
    } else if (status == STATUS_OK) {
        status = bench_spawn(data->cli, &data->node, data->directory[0] != '\0' ? disk : node,
                             data->err);
    }
    if (status == STATUS_OK)
        status = client_open(data, tcp, own ? yolk_store_lend_transfer(data->own) : NULL);
    if (status == STATUS_OK) { /* which waits until the directory has settled */
        data->space = UINT32_MAX;
        status = put_one(data, 0, SMALL);
    }
    return status;
}

static void cluster_close(struct data *data)
{
    yolk_store_destroy(data->store);
    yolk_transfer_destroy(data->transfer);
    yolk_store_lend_destroy(data->own);
    if (data->node.process != NULL) env_process_kill(data->node.process, SIGKILL);
    bench_end(&data->node);
    bench_end(&data->master);
    data->store = NULL;
    data->transfer = NULL;
    data->own = NULL;
}

/* ---- rows ---- */

static uint32_t runs(const struct data *data)
{
    return data->choice->brief ? 1 : BENCH_RUNS;
}

/* Rates of ours and of the yardstick, in pairs. */
struct pairs {
    double value[BENCH_RUNS];
    double bare[BENCH_RUNS];
    double ratio[BENCH_RUNS];
    uint32_t count;
};

static void pair_add(struct pairs *pairs, double value, double bare)
{
    ASSERT(pairs->count < BENCH_RUNS);
    pairs->value[pairs->count] = value;
    pairs->bare[pairs->count] = bare;
    pairs->ratio[pairs->count++] = value / bare;
}

static void row_add(struct data *data, const char *name, const char *unit, struct pairs *pairs,
                    enum report_target kind, double target)
{
    struct report_row *row =
        report_add(data->report, name, report_median(pairs->value, pairs->count), unit);
    row->baseline = row->value / report_median(pairs->ratio, pairs->count);
    row->kind = kind;
    row->target = target;
    row->low = pairs->ratio[0];
    row->high = pairs->ratio[pairs->count - 1];
}

static double mib_per_s(uint64_t bytes, uint64_t ns)
{
    return (double)bytes / (1 << 20) / ((double)ns / 1e9);
}

static uint32_t set_count(uint64_t size)
{
    return (uint32_t)(SET_SIZE / size);
}

static enum status set_put(struct data *data, uint64_t size)
{
    enum status status = STATUS_OK;
    for (uint32_t i = 0; i < set_count(size) && status == STATUS_OK; i++)
        status = put_one(data, i, size);
    return status;
}

/* Values [from, to) of the set once, in batches. */
static enum status part_get(struct data *data, uint64_t size, uint32_t from, uint32_t to,
                            double *rate)
{
    const uint64_t started = env_now_ns(data->env);
    enum status status = STATUS_OK;
    for (uint32_t i = from; i < to && status == STATUS_OK; i += BATCH)
        status = get_some(data, i, to - i < BATCH ? to - i : BATCH, size, false);
    *rate = mib_per_s((to - from) * size, env_now_ns(data->env) - started);
    return status;
}

static double copy_rate(struct data *data, uint64_t size, uint32_t count)
{
    uint8_t *from = data->memory + SET_SIZE;
    const uint64_t started = env_now_ns(data->env);
    for (uint32_t i = 0; i < count; i++)
        memcpy(data->memory + i % BATCH * size, from + i * size % SET_SIZE, size);
    return mib_per_s(count * size, env_now_ns(data->env) - started);
}

static enum status raw_open(struct data *data, bool read, uint32_t size, uint32_t depth,
                            bool polling, struct env_bare **out)
{
    const struct env_bare_options options = { .read = read,
                                              .polling = polling,
                                              .streams = depth == 1 ? 1 : STREAMS,
                                              .depth = depth,
                                              .size = size,
                                              .here = data->memory,
                                              .there = data->memory + SET_SIZE,
                                              .memory_size = SET_SIZE };
    const enum status status = env_bare_open(&options, out);
    return status == STATUS_OK ? status : errmsg_set(data->err, status, "raw sockets failed");
}

/* One run: the set, then as much through raw sockets. */
static enum status tcp_run(struct data *data, struct env_bare *bare, uint32_t size,
                           struct pairs *pairs)
{
    double rate;
    uint64_t ns;

    enum status status = part_get(data, size, 0, set_count(size), &rate);
    if (status == STATUS_OK) status = env_bare_run(bare, set_count(size), &ns);
    if (status == STATUS_OK) pair_add(pairs, rate, mib_per_s(SET_SIZE, ns));
    return status;
}

/* Until the client knows nothing of what it has read. */
static void forget(const struct data *data)
{
    const uint64_t until = env_now_ns(data->env) + 2 * STORE_KNOWN_MS * ENV_NS_PER_MS;
    while (env_now_ns(data->env) < until)
        (void)env_poll(data->env, ENV_NS_PER_S / 10);
}

static enum status rows_tcp(struct data *data, const char *first, const char *again, uint32_t size)
{
    struct env_bare *bare = NULL;
    struct pairs pairs[2] = { { .count = 0 }, { .count = 0 } };
    uint64_t ns;

    if (!bench_store_wanted(data->choice, first) && !bench_store_wanted(data->choice, again))
        return STATUS_OK;
    data->space++;
    enum status status = set_put(data, size);
    if (status == STATUS_OK) status = raw_open(data, true, size, BATCH, false, &bare);
    if (status == STATUS_OK) status = env_bare_run(bare, set_count(size), &ns); /* warm */
    for (uint32_t i = 0; i < runs(data) && status == STATUS_OK; i++) {
        if (i > 0) forget(data);
        status = tcp_run(data, bare, size, &pairs[0]);
    }
    for (uint32_t i = 0; i < runs(data) && status == STATUS_OK; i++)
        status = tcp_run(data, bare, size, &pairs[1]);
    env_bare_close(bare);
    if (status != STATUS_OK) return status;
    row_add(data, first, "MiB/s", &pairs[0], REPORT_AT_LEAST, 0.85);
    row_add(data, again, "MiB/s", &pairs[1], REPORT_AT_LEAST, 0.85);
    return STATUS_OK;
}

/* Values [from, from + PUT_BATCH), each another part of the memory. */
static enum status put_batch(struct data *data, uint32_t from, uint64_t size)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = data };
    uint8_t bytes[PUT_BATCH][BENCH_STORE_KEY_SIZE];
    struct yolk_store_value values[PUT_BATCH];

    for (uint32_t i = 0; i < PUT_BATCH; i++) {
        values[i] = (struct yolk_store_value){ .data = data->memory + (from + i) * size % SET_SIZE,
                                               .size = size };
        key_at(data, from + i, bytes[i], &values[i].key);
    }
    data->left = PUT_BATCH;
    data->status = STATUS_OK;
    return wait(data, yolk_store_put(data->store, values, PUT_BATCH, &call), false);
}

static enum status set_remove(struct data *data, uint32_t count)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = data };
    uint8_t bytes[PUT_BATCH][BENCH_STORE_KEY_SIZE];
    struct yolk_store_key keys[PUT_BATCH];
    enum status status = STATUS_OK;

    for (uint32_t from = 0; from < count && status == STATUS_OK; from += PUT_BATCH) {
        for (uint32_t i = 0; i < PUT_BATCH; i++)
            key_at(data, from + i, bytes[i], &keys[i]);
        data->left = PUT_BATCH;
        data->status = STATUS_OK;
        status = wait(data, yolk_store_remove(data->store, keys, PUT_BATCH, &call), false);
    }
    return status;
}

/* The set in batches, then as much through raw sockets. */
static enum status put_run(struct data *data, struct env_bare *bare, uint32_t size,
                           struct pairs *pairs)
{
    const uint32_t count = set_count(size);
    const uint64_t started = env_now_ns(data->env);
    enum status status = STATUS_OK;
    uint64_t ns;

    for (uint32_t from = 0; from < count && status == STATUS_OK; from += PUT_BATCH)
        status = put_batch(data, from, size);
    const double rate = mib_per_s(SET_SIZE, env_now_ns(data->env) - started);
    if (status == STATUS_OK) status = env_bare_run(bare, count, &ns);
    if (status == STATUS_OK) pair_add(pairs, rate, mib_per_s(SET_SIZE, ns));
    return status == STATUS_OK ? set_remove(data, count) : status;
}

static enum status row_put(struct data *data, const char *name, uint32_t size)
{
    struct env_bare *bare = NULL;
    struct pairs pairs[2] = { { .count = 0 }, { .count = 0 } };

    if (!bench_store_wanted(data->choice, name)) return STATUS_OK;
    data->space++;
    enum status status = raw_open(data, false, size, PUT_BATCH, false, &bare);
    if (status == STATUS_OK) status = put_run(data, bare, size, &pairs[1]); /* warm */
    for (uint32_t i = 0; i < runs(data) && status == STATUS_OK; i++)
        status = put_run(data, bare, size, &pairs[0]);
    env_bare_close(bare);
    if (status == STATUS_OK) row_add(data, name, "MiB/s", &pairs[0], REPORT_NO_TARGET, 0);
    return status;
}

/* First reads, each run of another part of the set, and then the whole set again and again. */
static enum status rows_memory(struct data *data, const char *first, const char *again,
                               uint32_t size, double first_target, double again_target)
{
    struct pairs pairs[2] = { { .count = 0 }, { .count = 0 } };
    const uint32_t part = set_count(size) / runs(data);
    double rate;

    const bool firsts = first != NULL && bench_store_wanted(data->choice, first);
    if (!firsts && !bench_store_wanted(data->choice, again)) return STATUS_OK;
    data->space++;
    enum status status = set_put(data, size);
    (void)copy_rate(data, size, part);
    for (uint32_t i = 0; i < runs(data) && status == STATUS_OK; i++) {
        status = part_get(data, size, i * part, (i + 1) * part, &rate);
        if (status == STATUS_OK) pair_add(&pairs[0], rate, copy_rate(data, size, part));
    }
    for (uint32_t i = 0; i < runs(data) && status == STATUS_OK; i++) {
        status = part_get(data, size, 0, part * runs(data), &rate);
        if (status == STATUS_OK) {
            pair_add(&pairs[1], rate, copy_rate(data, size, part * runs(data)));
        }
    }
    if (status != STATUS_OK) return status;
    if (firsts) row_add(data, first, "MiB/s", &pairs[0], REPORT_AT_LEAST, first_target);
    row_add(data, again, "MiB/s", &pairs[1], REPORT_AT_LEAST, again_target);
    return STATUS_OK;
}

/* One run: so many gets, of one value or of as many from `from` on, then as many raw exchanges. */
static enum status small_run(struct data *data, struct env_bare *bare, uint32_t gets, uint32_t from,
                             bool one, struct pairs *pairs)
{
    const uint64_t started = env_now_ns(data->env);
    enum status status = STATUS_OK;
    uint64_t ns;

    for (uint32_t n = 0; n < gets && status == STATUS_OK; n++)
        status = get_some(data, one ? from : from + n, 1, SMALL, true);
    const double each = (double)(env_now_ns(data->env) - started) / gets / 1e3;
    if (status == STATUS_OK) status = env_bare_run(bare, gets, &ns);
    if (status == STATUS_OK) pair_add(pairs, each, (double)ns / gets / 1e3);
    return status;
}

static enum status rows_small(struct data *data, const char *first, const char *again)
{
    struct env_bare *bare = NULL;
    struct pairs pairs[2] = { { .count = 0 }, { .count = 0 } };
    const uint32_t gets = data->choice->brief ? SMALL_GETS / 10 : SMALL_GETS;
    enum status status = STATUS_OK;

    data->space++;
    for (uint32_t i = 0; i < gets * runs(data) && status == STATUS_OK; i++)
        status = put_one(data, i, SMALL);
    if (status == STATUS_OK) status = raw_open(data, true, SMALL, 1, true, &bare);
    for (uint32_t i = 0; i < runs(data) && status == STATUS_OK; i++)
        status = small_run(data, bare, gets, i * gets, false, &pairs[0]);
    for (uint32_t i = 0; i < runs(data) && status == STATUS_OK; i++)
        status = small_run(data, bare, gets, 0, true, &pairs[1]);
    env_bare_close(bare);
    if (status != STATUS_OK) return status;
    row_add(data, first, "us", &pairs[0], REPORT_AT_MOST, 2.2);
    row_add(data, again, "us", &pairs[1], REPORT_AT_MOST, 2.2);
    return STATUS_OK;
}

/* ---- full memory ---- */

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* `count` puts one after the other; *p99 of how long each took, in microseconds. */
static enum status puts_p99(struct data *data, uint32_t *next, uint32_t count, double *p99)
{
    uint64_t *took = calloc(count, sizeof(*took));
    enum status status = took == NULL ? STATUS_NO_MEMORY : STATUS_OK;

    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        const uint64_t started = env_now_ns(data->env);
        status = put_one(data, (*next)++, PUT_SIZE);
        took[i] = env_now_ns(data->env) - started;
    }
    if (status == STATUS_OK) {
        qsort(took, count, sizeof(*took), by_value);
        *p99 = (double)took[count * 99 / 100] / 1e3;
    }
    free(took);
    return status;
}

static enum status row_full(struct data *data)
{
    static const char name[] = "put_64KiB_p99_full_memory";
    const uint32_t puts = data->choice->brief ? PUTS_BRIEF : PUTS;
    struct pairs pairs = { .count = 0 };
    double roomy;
    double full;
    double waste;
    enum status status = STATUS_OK;

    if (!bench_store_wanted(data->choice, name)) return STATUS_OK;
    for (uint32_t i = 0; i < runs(data) && status == STATUS_OK; i++) {
        uint32_t next = 0;
        status = cluster_open(data, FULL_MIB, false, false);
        data->space = 0;
        if (status == STATUS_OK) status = puts_p99(data, &next, puts, &roomy);
        while (status == STATUS_OK && next < (FULL_MIB << 20) / PUT_SIZE + BATCH)
            status = puts_p99(data, &next, BATCH, &waste);
        if (status == STATUS_OK) status = puts_p99(data, &next, puts, &full);
        if (status == STATUS_OK) pair_add(&pairs, full, roomy);
        cluster_close(data);
    }
    if (status == STATUS_OK) row_add(data, name, "us", &pairs, REPORT_AT_MOST, 1.5);
    return status;
}

/* ---- more than the memory holds ---- */

static void on_name(void *ctx, const char *name)
{
    struct data *data = ctx;
    char path[CLI_PATH_SIZE + 64];

    if (snprintf(path, sizeof(path), "%s/values/%s", data->directory, name) < (int)sizeof(path)) {
        (void)!env_file_remove(data->env, path);
    }
}

static enum status beyond_directory(struct data *data)
{
    const char *given = config_text(data->cli->config, "data-dir");
    char values[CLI_PATH_SIZE + 64];

    enum status status = STATUS_OK;
    if (given[0] != '\0') {
        snprintf(data->directory, sizeof(data->directory), "%.4000s/bench-store", given);
    } else {
        status = cli_cache_path("bench-store", data->directory, data->err);
    }
    snprintf(values, sizeof(values), "%s/values", data->directory);
    if (status == STATUS_OK) status = env_make_dirs(data->env, values, data->err);
    if (status == STATUS_OK) status = env_dir_list(data->env, values, on_name, data, data->err);
    return status;
}

/* Bytes of value i: no two are the same. */
static const uint8_t *beyond_bytes(const struct data *data, uint32_t i)
{
    return data->memory + SET_SIZE + 17 * (size_t)i;
}

static enum status beyond_puts(struct data *data)
{
    enum status status = STATUS_OK;
    for (uint32_t i = 0; i < BEYOND_VALUES && status == STATUS_OK; i++)
        status = put_bytes(data, i, beyond_bytes(data, i), BEYOND_SIZE);
    return status;
}

/* How many are not there, or not what was put. */
static uint32_t beyond_lost(struct data *data)
{
    uint32_t lost = 0;
    for (uint32_t i = 0; i < BEYOND_VALUES; i++) {
        memset(data->memory, 0, BEYOND_SIZE);
        const bool there = get_some(data, i, 1, BEYOND_SIZE, false) == STATUS_OK;
        lost += !there || memcmp(data->memory, beyond_bytes(data, i), BEYOND_SIZE) != 0;
    }
    return lost;
}

static enum status row_beyond(struct data *data)
{
    static const char name[] = "values_lost_of_1GiB_in_768MiB";

    if (data->choice->brief || !bench_store_wanted(data->choice, name)) return STATUS_OK;
    enum status status = beyond_directory(data);
    if (status == STATUS_OK) status = cluster_open(data, BEYOND_MIB, false, false);
    data->space = 0;
    if (status == STATUS_OK) status = beyond_puts(data);
    if (status == STATUS_OK) {
        struct report_row *row = report_add(data->report, name, beyond_lost(data), "values");
        row->kind = REPORT_AT_MOST;
        row->target = 0;
    }
    cluster_close(data);
    (void)!beyond_directory(data); /* removes what is there */
    data->directory[0] = '\0';
    return status;
}

/* ---- all of them ---- */

static bool any_wanted(const struct data *data, const char *const names[])
{
    for (uint32_t i = 0; names[i] != NULL; i++) {
        if (bench_store_wanted(data->choice, names[i])) return true;
    }
    return false;
}

static const uint32_t sizes[] = { 64 << 10, 1 << 20, 4 << 20 };

static enum status cluster_tcp(struct data *data)
{
    static const char *const names[] = {
        "get_tcp_64KiB_first",    "get_tcp_64KiB",           "get_tcp_1MiB_first",
        "get_tcp_1MiB",           "get_tcp_4MiB_first",      "get_tcp_4MiB",
        "put_tcp_4KiB_batch_128", "put_tcp_64KiB_batch_128", NULL
    };
    if (!any_wanted(data, names)) return STATUS_OK;
    enum status status = cluster_open(data, ROOMY_MIB, true, false);
    if (status == STATUS_OK) status = row_put(data, names[6], SMALL);
    if (status == STATUS_OK) status = row_put(data, names[7], 64 << 10);
    for (uint32_t i = 0; i < 3 && status == STATUS_OK; i++)
        status = rows_tcp(data, names[2 * i], names[2 * i + 1], sizes[i]);
    cluster_close(data);
    return status;
}

/* Everybody polls, as both ends of the bare yardstick do. */
static enum status cluster_polling(struct data *data)
{
    static const char *const names[] = { "get_4KiB_one_polling_first", "get_4KiB_one_polling",
                                         NULL };
    if (!any_wanted(data, names)) return STATUS_OK;
    data->poll_us = POLL;
    env_real_set_poll(data->env,
                      ENV_NS_PER_US); /* it polls anyway: there may be two cores for three */
    enum status status = cluster_open(data, ROOMY_MIB, true, false);
    if (status == STATUS_OK) status = rows_small(data, names[0], names[1]);
    cluster_close(data);
    env_real_set_poll(data->env, 0);
    data->poll_us = NO_POLL;
    return status;
}

static enum status cluster_shm(struct data *data)
{
    static const char *const names[] = { "get_shm_64KiB_first",
                                         "get_shm_64KiB_again",
                                         "get_shm_1MiB_first",
                                         "get_shm_1MiB_again",
                                         "get_shm_4MiB_first",
                                         "get_shm_4MiB_again",
                                         NULL };
    if (!any_wanted(data, names)) return STATUS_OK;
    enum status status = cluster_open(data, ROOMY_MIB, false, false);
    for (uint32_t i = 0; i < 3 && status == STATUS_OK; i++) {
        status = rows_memory(data, names[2 * i], names[2 * i + 1], sizes[i], 0.75, 0.9);
    }
    cluster_close(data);
    return status;
}

static enum status cluster_own(struct data *data)
{
    static const char *const names[] = { "get_own_1MiB_again", NULL };
    if (!any_wanted(data, names)) return STATUS_OK;
    enum status status = cluster_open(data, ROOMY_MIB, false, true);
    if (status == STATUS_OK) status = rows_memory(data, NULL, names[0], 1 << 20, 0, 0.95);
    cluster_close(data);
    return status;
}

enum status bench_store_data(struct cli *cli, const struct bench_store_choice *choice,
                             struct report *report, struct errmsg *err)
{
    struct data data = { .cli = cli,
                         .env = cli->env,
                         .choice = choice,
                         .report = report,
                         .err = err,
                         .poll_us = NO_POLL };

    err->text[0] = '\0';
    enum status status = cluster_tcp(&data);
    if (status == STATUS_OK) status = cluster_polling(&data);
    if (status == STATUS_OK) status = cluster_shm(&data);
    if (status == STATUS_OK) status = cluster_own(&data);
    if (status == STATUS_OK) status = row_full(&data);
    if (status == STATUS_OK) status = row_beyond(&data);
    if (status != STATUS_OK && err->text[0] == '\0') {
        errmsg_set(err, status, "values could not be measured: %s", status_name(status));
    }
    return status;
}
