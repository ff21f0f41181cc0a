/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench_rails.c - the rows that need two hosts: two network namespaces with wires of
 * 1 Gbit/s between them. Two rails against one; one of two cut in the middle of it; an urgent
 * transfer beside a flood of background, against the same transfer alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env_netns.h"
#include "base/env_real.h"
#include "transfer/bench_int.h"

enum {
    MEMORY_SIZE = 64 << 20,
    MBIT = 1000,
    CUT_ROUNDS = 3,
    SAMPLES = 100,
    URGENT_SIZE = 1 << 20,
    FLOOD_SIZE = 4 << 20,
    FLOOD_DEPTH = 8,
};

struct wires {
    struct transfer_bench *bench;
    struct env_netns *netns;
    struct bench_target target;
    struct env *env;
    uint8_t *here;
    struct bench_mover one, two; /* over one rail, and over two */
    /* what a round of cutting showed */
    double stall_ms, back_ms;
    enum yolk_transfer_opcode opcode;
};

/* ---- two against one ---- */

static enum status two_pair(void *ctx, double *value, double *baseline)
{
    struct wires *wires = ctx;
    const uint64_t count = wires->bench->quick ? 4 : 32;
    uint64_t ns;

    enum status status = bench_move(&wires->two, count, &ns);
    if (status != STATUS_OK) return status;
    *value = (double)(count * wires->two.size) / (double)ns;
    status = bench_move(&wires->one, count, &ns);
    *baseline = (double)(count * wires->one.size) / (double)ns;
    return status;
}

static enum status two_rows(struct wires *wires, struct errmsg *err)
{
    static const char *const names[] = { "rails_read_two_of_1gbit", "rails_write_two_of_1gbit" };
    enum status status = STATUS_OK;

    for (int op = 0; op < 2 && status == STATUS_OK; op++) {
        const struct transfer_bench_row row = {
            .name = names[op], .unit = "GB/s", .yardstick = "one rail", .target = 1.9
        };
        if (!bench_wants(wires->bench, row.name)) continue;
        wires->one.opcode = wires->two.opcode = (enum yolk_transfer_opcode)op;
        status = bench_row(wires->bench, &row, two_pair, wires, err);
    }
    return status;
}

/* ---- one of two cut ---- */

/* Bytes acknowledged on the rail that ends at `remote`, or on all. */
static uint64_t bytes_on(const struct wires *wires, const char *remote)
{
    struct yolk_transfer_rail rails[YOLK_TRANSFER_RAILS_MAX + 1];
    uint32_t count = yolk_transfer_rails(wires->two.transfer, rails, YOLK_TRANSFER_RAILS_MAX + 1);
    uint64_t bytes = 0;

    if (count > YOLK_TRANSFER_RAILS_MAX + 1) count = YOLK_TRANSFER_RAILS_MAX + 1;
    for (uint32_t i = 0; i < count; i++) {
        if (strncmp(rails[i].remote, remote, strlen(remote)) == 0) bytes += rails[i].bytes;
    }
    return bytes;
}

struct progress {
    uint64_t bytes, at_ns, stall_ns; /* stall: the longest time without an acknowledged byte */
    const char *remote;              /* a rail that is waited for, or NULL */
    uint64_t before, back_ns;        /* its bytes then; when there were more, 0: not yet */
};

static void progress_look(const struct wires *wires, struct progress *progress)
{
    const uint64_t bytes = bytes_on(wires, ""), now = env_now_ns(wires->env);

    if (progress->remote != NULL && progress->back_ns == 0 &&
        bytes_on(wires, progress->remote) != progress->before) {
        progress->back_ns = now;
    }
    if (bytes == progress->bytes) return;
    if (now - progress->at_ns > progress->stall_ns) progress->stall_ns = now - progress->at_ns;
    progress->bytes = bytes;
    progress->at_ns = now;
}

static enum status move_all(struct wires *wires, struct progress *progress)
{
    const struct yolk_transfer_request request = { .opcode = wires->opcode,
                                                   .local = wires->here,
                                                   .segment = wires->two.segment,
                                                   .remote = (uintptr_t)wires->target.memory,
                                                   .length = MEMORY_SIZE };
    struct yolk_transfer *transfer = wires->two.transfer;
    struct yolk_transfer_result result = { .state = YOLK_TRANSFER_WAITING };
    struct yolk_transfer_batch batch;

    enum status status = yolk_transfer_batch_create(transfer, 1, NULL, NULL, &batch);
    if (status == STATUS_OK) status = yolk_transfer_submit(transfer, batch, &request, 1);
    while (status == STATUS_OK && result.state <= YOLK_TRANSFER_PENDING) {
        env_poll(wires->env, ENV_NS_PER_MS);
        progress_look(wires, progress);
        status = yolk_transfer_poll_batch(transfer, batch, &result);
    }
    while (status == STATUS_OK && yolk_transfer_batch_free(transfer, batch) == STATUS_BUSY)
        env_poll(wires->env, ENV_NS_PER_MS); /* it is being called back */
    return status == STATUS_OK && result.state != YOLK_TRANSFER_COMPLETED ? STATUS_IO : status;
}

/* One transfer after the other until `until_ns` or until the rail that is waited for is back. */
static enum status keep_moving(struct wires *wires, uint64_t until_ns, struct progress *progress)
{
    enum status status = STATUS_OK;

    progress->bytes = bytes_on(wires, "");
    progress->at_ns = env_now_ns(wires->env);
    if (progress->remote != NULL) progress->before = bytes_on(wires, progress->remote);
    while (status == STATUS_OK && env_now_ns(wires->env) < until_ns && progress->back_ns == 0) {
        status = move_all(wires, progress);
    }
    return status;
}

static enum status cut_round(struct wires *wires, double *stall_ms, double *back_ms)
{
    struct progress before = { 0 }, cut = { 0 }, joined = { .remote = "10.77.1." };
    struct env *env = wires->env;
    const uint64_t part_ns = wires->bench->quick ? ENV_NS_PER_S / 5 : ENV_NS_PER_S;

    enum status status = keep_moving(wires, env_now_ns(env) + part_ns * 7 / 10, &before);
    if (status == STATUS_OK) status = env_netns_set_wire(wires->netns, 1, false);
    if (status == STATUS_OK) status = keep_moving(wires, env_now_ns(env) + part_ns, &cut);
    if (status == STATUS_OK) status = env_netns_set_wire(wires->netns, 1, true);
    const uint64_t joined_ns = env_now_ns(env);
    if (status == STATUS_OK) status = keep_moving(wires, joined_ns + 5 * ENV_NS_PER_S, &joined);
    const uint64_t back_ns = joined.back_ns != 0 ? joined.back_ns : env_now_ns(env);
    *stall_ms = (double)cut.stall_ns / 1e6;
    *back_ms = (double)(back_ns - joined_ns) / 1e6;
    return status;
}

static enum status stall_pair(void *ctx, double *value, double *baseline)
{
    struct wires *wires = ctx;
    (void)baseline;
    const enum status status = cut_round(wires, value, &wires->back_ms);
    if (wires->back_ms > wires->stall_ms) wires->stall_ms = wires->back_ms; /* the worst return */
    return status;
}

static enum status cut_rows(struct wires *wires, struct errmsg *err)
{
    static const char *const names[] = { "rails_read_cut_stall", "rails_write_cut_stall" };
    static const char *const backs[] = { "rails_read_cut_used_again",
                                         "rails_write_cut_used_again" };
    const uint32_t pairs = wires->bench->pairs;
    enum status status = STATUS_OK;

    if (wires->bench->pairs > CUT_ROUNDS) wires->bench->pairs = CUT_ROUNDS;
    for (int op = 0; op < 2 && status == STATUS_OK; op++) {
        const struct transfer_bench_row row = {
            .name = names[op], .unit = "ms", .target = 50, .at_most = true
        };
        if (!bench_wants(wires->bench, row.name)) continue;
        wires->opcode = (enum yolk_transfer_opcode)op;
        wires->stall_ms = 0;
        status = bench_row(wires->bench, &row, stall_pair, wires, err);
        if (status != STATUS_OK) break;
        wires->bench->rows[wires->bench->count++] =
            (struct transfer_bench_row){ .name = backs[op],
                                         .unit = "ms",
                                         .value = wires->stall_ms,
                                         .ratio = wires->stall_ms,
                                         .ratio_low = wires->stall_ms,
                                         .ratio_high = wires->stall_ms,
                                         .target = 2000,
                                         .at_most = true };
    }
    wires->bench->pairs = pairs;
    return status;
}

/* ---- urgent beside background ---- */

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static enum status urgent_p99(struct wires *wires, double *ms)
{
    struct bench_mover *mover = &wires->one;
    const uint32_t samples = wires->bench->quick ? 4 : SAMPLES;
    uint64_t took[SAMPLES];

    mover->opcode = wires->opcode;
    mover->class = YOLK_TRANSFER_DECODE;
    mover->size = URGENT_SIZE;
    mover->depth = 1;
    for (uint32_t i = 0; i < samples; i++) {
        const enum status status = bench_move(mover, 1, &took[i]);
        if (status != STATUS_OK) return status;
    }
    qsort(took, samples, sizeof(took[0]), by_value);
    *ms = (double)took[(samples * 99 - 1) / 100] / 1e6;
    return STATUS_OK;
}

struct flood {
    struct wires *wires;
    struct yolk_transfer_batch batch;
    uint32_t left, under_way;
};

static void flood_next(struct flood *flood);

static void on_flooded(void *ctx, const struct yolk_transfer_result *result)
{
    struct flood *flood = ctx;
    (void)result;
    flood->under_way--;
    flood_next(flood);
}

static void flood_next(struct flood *flood)
{
    struct wires *wires = flood->wires;
    const uint32_t at = flood->left % (MEMORY_SIZE / 2 / FLOOD_SIZE) * FLOOD_SIZE;
    const struct yolk_transfer_request request = {
        .opcode = wires->opcode,
        .class = YOLK_TRANSFER_BACKGROUND,
        .local = wires->here + MEMORY_SIZE / 2 + at,
        .segment = wires->one.segment,
        .remote = (uintptr_t)wires->target.memory + MEMORY_SIZE / 2 + at,
        .length = FLOOD_SIZE,
        .on_done = on_flooded,
        .ctx = flood,
    };

    if (flood->left == 0) return;
    flood->left--;
    if (yolk_transfer_submit(wires->one.transfer, flood->batch, &request, 1) == STATUS_OK) {
        flood->under_way++;
    }
}

static enum status urgent_pair(void *ctx, double *value, double *baseline)
{
    struct wires *wires = ctx;
    struct flood flood = { .wires = wires, .left = YOLK_TRANSFER_TASKS_MAX };
    uint64_t ns;

    enum status status = urgent_p99(wires, baseline);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_batch_create(wires->one.transfer, flood.left, NULL, NULL, &flood.batch);
    if (status != STATUS_OK) return status;
    for (int i = 0; i < FLOOD_DEPTH; i++)
        flood_next(&flood);
    status = bench_move(&wires->one, 4, &ns); /* until it flows */
    if (status == STATUS_OK) status = urgent_p99(wires, value);
    flood.left = 0;
    (void)yolk_transfer_cancel_batch(wires->one.transfer, flood.batch);
    while (yolk_transfer_batch_free(wires->one.transfer, flood.batch) == STATUS_BUSY)
        env_poll(wires->env, ENV_NS_PER_S);
    return status;
}

static enum status urgent_rows(struct wires *wires, struct errmsg *err)
{
    static const char *const names[] = { "qos_read_decode_p99_flooded",
                                         "qos_write_decode_p99_flooded" };
    enum status status = STATUS_OK;

    wires->one.memory_size = MEMORY_SIZE / 2;
    wires->one.at = 0;
    for (int op = 0; op < 2 && status == STATUS_OK; op++) {
        const struct transfer_bench_row row = {
            .name = names[op], .unit = "ms", .yardstick = "idle", .target = 1.5, .at_most = true
        };
        if (!bench_wants(wires->bench, row.name)) continue;
        wires->opcode = (enum yolk_transfer_opcode)op;
        status = bench_row(wires->bench, &row, urgent_pair, wires, err);
    }
    return status;
}

/* ---- all of them ---- */

static enum status mover_open(struct wires *wires, struct bench_mover *mover, const char *rails,
                              struct errmsg *err)
{
    const struct yolk_transfer_options options = {
        .listen = "10.77.0.1:0", .rails = rails, .allow_open = true, .forbid_shm = true
    };

    *mover = (struct bench_mover){ .env = wires->env,
                                   .here = wires->here,
                                   .there = wires->target.memory,
                                   .memory_size = MEMORY_SIZE,
                                   .size = 4 << 20,
                                   .depth = 4 };
    enum status status = yolk_transfer_create(wires->env, &options, &mover->transfer, err);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_register(mover->transfer, wires->here, MEMORY_SIZE, NULL, 0);
    if (status != STATUS_OK) return status;
    return yolk_transfer_open(mover->transfer, yolk_transfer_name(wires->target.transfer),
                              &mover->segment);
}

static enum status rows(struct wires *wires, struct errmsg *err)
{
    enum status status = env_netns_enter(wires->netns, 0);

    if (status == STATUS_OK) status = env_real_create(NULL, &wires->env, err);
    if (status == STATUS_OK) status = mover_open(wires, &wires->one, "10.77.0.1", err);
    if (status == STATUS_OK) status = mover_open(wires, &wires->two, "10.77.0.1,10.77.1.1", err);
    if (status == STATUS_OK) status = two_rows(wires, err);
    if (status == STATUS_OK) status = cut_rows(wires, err);
    if (status == STATUS_OK) status = urgent_rows(wires, err);
    yolk_transfer_destroy(wires->one.transfer);
    yolk_transfer_destroy(wires->two.transfer);
    env_real_destroy(wires->env);
    return status;
}

struct job {
    struct wires *wires;
    struct errmsg *err;
    enum status status;
};

/* A thread of its own: whoever enters a namespace does not come back. */
static void *rows_main(void *ctx)
{
    struct job *job = ctx;

    job->status = rows(job->wires, job->err);
    return NULL;
}

static void skip_all(struct transfer_bench *bench, const char *reason)
{
    static const struct transfer_bench_row skipped[] = {
        { .name = "rails_read_two_of_1gbit", .unit = "GB/s", .target = 1.9 },
        { .name = "rails_write_two_of_1gbit", .unit = "GB/s", .target = 1.9 },
        { .name = "rails_read_cut_stall", .unit = "ms", .target = 50, .at_most = true },
        { .name = "rails_read_cut_used_again", .unit = "ms", .target = 2000, .at_most = true },
        { .name = "rails_write_cut_stall", .unit = "ms", .target = 50, .at_most = true },
        { .name = "rails_write_cut_used_again", .unit = "ms", .target = 2000, .at_most = true },
        { .name = "qos_read_decode_p99_flooded", .unit = "ms", .target = 1.5, .at_most = true },
        { .name = "qos_write_decode_p99_flooded", .unit = "ms", .target = 1.5, .at_most = true },
    };

    for (size_t i = 0; i < sizeof(skipped) / sizeof(skipped[0]); i++) {
        if (bench_wants(bench, skipped[i].name)) bench_skip(bench, &skipped[i], reason);
    }
}

static bool any_wanted(const struct transfer_bench *bench)
{
    struct transfer_bench probe = { .only = bench->only };

    skip_all(&probe, "");
    return probe.count > 0;
}

enum status bench_rails(struct transfer_bench *bench, struct errmsg *err)
{
    struct wires wires = { .bench = bench,
                           .target = { .memory_size = MEMORY_SIZE,
                                       .options = { .listen = "10.77.0.2:0",
                                                    .rails = "10.77.0.2,10.77.1.2",
                                                    .allow_open = true,
                                                    .forbid_shm = true } } };
    struct job job = { .wires = &wires, .err = err };
    struct errmsg why = { "" };

    if (!any_wanted(bench)) return STATUS_OK;
    if (env_netns_create(2, MBIT, &wires.netns, &why) != STATUS_OK) {
        skip_all(bench, why.text);
        return STATUS_OK;
    }
    wires.here = malloc(MEMORY_SIZE);
    wires.target.netns = wires.netns;
    enum status status = wires.here != NULL ? bench_target_open(&wires.target, err)
                                            : errmsg_set(err, STATUS_NO_MEMORY, "bench: no memory");
    if (status == STATUS_OK) {
        pthread_t thread;
        memset(wires.here, 3, MEMORY_SIZE);
        const int error = pthread_create(&thread, NULL, rows_main, &job);
        if (error == 0) pthread_join(thread, NULL);
        status = error == 0 ? job.status : STATUS_NO_MEMORY;
        bench_target_close(&wires.target);
    }
    free(wires.here);
    env_netns_destroy(wires.netns);
    return status;
}
