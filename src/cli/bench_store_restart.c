/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_store_restart.c - the master is killed and started again: how long until it knows
 * every value that four nodes have, counted from the start of the new process. Nothing is on a
 * disk; the nodes announce. All of them are asked for, some are read and compared afterwards. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/le.h"
#include "cli/bench.h"
#include "cli/bench_store.h"
#include "cli/report.h"
#include "yolk/store.h"
#include "yolk/transfer.h"

enum {
    NODES = 4,
    VALUES = 1000000,
    VALUES_BRIEF = 20000,
    VALUE_SIZE = 64,
    BATCH = 4096,
    GRANULE = 4096, /* what a small value takes of what a node lends */
    LENT_MIN = 128, /* MiB */
    READS = 1000,
    PATIENCE_S = 120,
    KEYS_OF = 77, /* space */
};

struct restart {
    struct cli *cli;
    struct env *env;
    struct errmsg *err;
    char address[32];
    struct bench_child master;
    struct bench_child nodes[NODES];
    struct yolk_transfer *transfer;
    struct yolk_store *store;
    uint8_t *memory; /* of a batch of values, registered */
    uint8_t *keys;   /* of a batch */
    uint32_t count;
    uint32_t left;
    enum status status;
};

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct restart *restart = ctx;
    (void)index;
    (void)size;
    if (status != STATUS_OK) restart->status = status;
    restart->left--;
}

static enum status wait(struct restart *restart, enum status started)
{
    if (started != STATUS_OK) return started;
    while (restart->left > 0)
        (void)env_poll(restart->env, ENV_NS_PER_S);
    return restart->status;
}

static struct yolk_store_key key_of(struct restart *restart, uint32_t place, uint32_t number)
{
    uint8_t *bytes = restart->keys + (size_t)place * BENCH_STORE_KEY_SIZE;
    bench_store_key(bytes, KEYS_OF, number);
    return (struct yolk_store_key){ bytes, BENCH_STORE_KEY_SIZE };
}

static enum status put_batch(struct restart *restart, uint32_t first, uint32_t count)
{
    static struct yolk_store_value values[BATCH];
    const struct yolk_store_call call = { .on_item = on_item, .ctx = restart };

    for (uint32_t i = 0; i < count; i++) {
        uint8_t *bytes = restart->memory + (size_t)i * VALUE_SIZE;
        memset(bytes, 0, VALUE_SIZE);
        le_put64(bytes, first + i);
        values[i] = (struct yolk_store_value){ .key = key_of(restart, i, first + i),
                                               .data = bytes,
                                               .size = VALUE_SIZE };
    }
    restart->left = count;
    restart->status = STATUS_OK;
    return wait(restart, yolk_store_put(restart->store, values, count, &call));
}

static enum status exist_batch(struct restart *restart, uint32_t first, uint32_t count)
{
    static struct yolk_store_key keys[BATCH];
    const struct yolk_store_call call = { .on_item = on_item, .ctx = restart };

    for (uint32_t i = 0; i < count; i++)
        keys[i] = key_of(restart, i, first + i);
    restart->left = count;
    restart->status = STATUS_OK;
    return wait(restart, yolk_store_exist(restart->store, keys, count, &call));
}

/* STATUS_CORRUPT: it is not what was put. */
static enum status get_one(struct restart *restart, uint32_t number)
{
    const struct yolk_store_call call = { .on_item = on_item, .ctx = restart };
    const struct yolk_store_buffer buffer = { .key = key_of(restart, 0, number),
                                              .data = restart->memory,
                                              .size = VALUE_SIZE };
    memset(restart->memory, 0xff, VALUE_SIZE);
    restart->left = 1;
    restart->status = STATUS_OK;
    const enum status status = wait(restart, yolk_store_get(restart->store, &buffer, 1, &call));
    if (status != STATUS_OK) return status;
    return le_get64(restart->memory) == number ? STATUS_OK : STATUS_CORRUPT;
}

static enum status each_batch(struct restart *restart,
                              enum status (*batch)(struct restart *restart, uint32_t first,
                                                   uint32_t count))
{
    enum status status = STATUS_OK;
    for (uint32_t first = 0; first < restart->count && status == STATUS_OK; first += BATCH) {
        const uint32_t left = restart->count - first;
        status = batch(restart, first, left < BATCH ? left : BATCH);
    }
    return status;
}

/* ---- the cluster ---- */

static enum status master_start(struct restart *restart)
{
    const char *const args[] = { "master", "--listen", restart->address, "--log", "error", NULL };
    return bench_spawn(restart->cli, &restart->master, args, restart->err);
}

static enum status nodes_start(struct restart *restart)
{
    char lends[16];
    /* Where a value goes is drawn by chance: half as much again is room enough for each. */
    const uint64_t share = (uint64_t)restart->count / NODES * GRANULE;
    const uint64_t mib = (share + share / 2) >> 20;
    snprintf(lends, sizeof(lends), "%lu", (unsigned long)(mib < LENT_MIN ? LENT_MIN : mib));
    const char *const args[] = { "bench",          "store",  "load", "own", "--master",
                                 restart->address, "--keys", lends,  NULL };
    enum status status = STATUS_OK;
    for (uint32_t i = 0; i < NODES && status == STATUS_OK; i++)
        status = bench_spawn(restart->cli, &restart->nodes[i], args, restart->err);
    return status;
}

static enum status client_open(struct restart *restart)
{
    const struct yolk_transfer_options transfer = { .listen = NULL };
    void *memory = NULL;

    enum status status =
        yolk_transfer_create(restart->env, &transfer, &restart->transfer, restart->err);
    if (status == STATUS_OK) {
        status = yolk_transfer_alloc(restart->transfer, (size_t)BATCH * VALUE_SIZE,
                                     YOLK_TRANSFER_REMOTE_ALL, &memory, restart->err);
    }
    if (status != STATUS_OK) return status;
    restart->memory = memory;
    const struct yolk_store_options options = { .env = restart->env,
                                                .transfer = restart->transfer,
                                                .master = restart->address,
                                                .timeout_ms = PATIENCE_S * 1000 };
    return yolk_store_create(&options, &restart->store, restart->err);
}

static void cluster_close(struct restart *restart)
{
    yolk_store_destroy(restart->store);
    yolk_transfer_destroy(restart->transfer);
    for (uint32_t i = 0; i < NODES; i++) {
        if (restart->nodes[i].process != NULL) env_process_kill(restart->nodes[i].process, SIGKILL);
        bench_end(&restart->nodes[i]);
    }
    bench_end(&restart->master);
    free(restart->keys);
}

/* Seconds from the start of the new master until it has answered for every value. */
static enum status kill_and_count(struct restart *restart, double *seconds)
{
    env_process_kill(restart->master.process, SIGKILL);
    bench_end(&restart->master);
    const uint64_t start_ns = env_now_ns(restart->env);
    enum status status = master_start(restart);
    if (status == STATUS_OK) status = each_batch(restart, exist_batch);
    *seconds = (double)(env_now_ns(restart->env) - start_ns) / (double)ENV_NS_PER_S;
    for (uint32_t i = 0; i < READS && status == STATUS_OK; i++)
        status = get_one(restart, (uint32_t)((uint64_t)i * restart->count / READS));
    return status;
}

enum status bench_store_restart(struct cli *cli, const struct bench_store_choice *choice,
                                struct report *report, struct errmsg *err)
{
    static const char name[] = "master_killed_all_readable";
    struct restart restart = { .cli = cli, .env = cli->env, .err = err };
    uint16_t port = 0;
    double seconds = 0;

    if (!bench_store_wanted(choice, name) || (choice->brief && choice->only == NULL)) {
        return STATUS_OK;
    }
    err->text[0] = '\0';
    restart.count = choice->brief ? VALUES_BRIEF : VALUES;
    restart.keys = malloc((size_t)BATCH * BENCH_STORE_KEY_SIZE);
    enum status status = restart.keys == NULL ? STATUS_NO_MEMORY : bench_free_port(cli, &port);
    snprintf(restart.address, sizeof(restart.address), "127.0.0.1:%u", (unsigned)port);
    if (status == STATUS_OK) status = master_start(&restart);
    if (status == STATUS_OK) status = nodes_start(&restart);
    if (status == STATUS_OK) status = client_open(&restart);
    if (status == STATUS_OK) status = each_batch(&restart, put_batch);
    if (status == STATUS_OK) status = kill_and_count(&restart, &seconds);
    cluster_close(&restart);
    if (status != STATUS_OK) {
        if (err->text[0] == '\0') {
            status = errmsg_set(err, status, "%s: %s", name, status_name(status));
        }
        return status;
    }
    struct report_row *row = report_add(report, name, seconds, "s");
    row->kind = REPORT_AT_MOST;
    row->target = 3;
    return STATUS_OK;
}
