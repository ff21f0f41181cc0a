/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench.c - see bench.h.
 *
 * The target's thread runs an engine and, beside it, a plain listener: what arrives there goes into
 * the same memory, and each message is answered by one byte. Both sides walk through MEMORY_SIZE,
 * which is larger than the caches, so no row profits from warm lines. */
#include "transfer/bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/env_real.h"
#include "yolk/transfer.h"

enum { MEMORY_SIZE = 256 << 20, DEPTH_MAX = 64, RUNS_DEFAULT = 5 };

#define LIMIT_NS (30 * ENV_NS_PER_S)

struct kind {
    const char *name;
    enum yolk_transfer_opcode opcode;
    bool shm;
    uint32_t size;
    uint32_t depth;
    double target;
};

static const struct kind kinds[TRANSFER_BENCH_ROWS] = {
    { "tcp_write_64k_depth16", YOLK_TRANSFER_WRITE, false, 64 << 10, 16, 0.90 },
    { "tcp_read_64k_depth16", YOLK_TRANSFER_READ, false, 64 << 10, 16, 0.90 },
    { "tcp_write_1m_depth4", YOLK_TRANSFER_WRITE, false, 1 << 20, 4, 0.95 },
    { "tcp_read_1m_depth4", YOLK_TRANSFER_READ, false, 1 << 20, 4, 0.95 },
    { "shm_read_64k_depth16", YOLK_TRANSFER_READ, true, 64 << 10, 16, 0.95 },
    { "shm_read_1m_depth4", YOLK_TRANSFER_READ, true, 1 << 20, 4, 0.95 },
};

/* ---- the target's thread ---- */

struct target {
    pthread_t thread;
    _Atomic int state; /* 0: starting, 1: running, 2: failed; written by the thread, read by us */
    enum status status;
    struct errmsg err;
    struct env *env;
    struct yolk_transfer *transfer;
    uint8_t *memory;
    struct env_listener *listener;
    struct env_stream *stream;
    _Atomic uint32_t
        message; /* size of those on `stream`; set by the initiator before it connects */
    uint64_t received;
    uint64_t owed; /* acknowledgements not yet sent */
    char address[64];
};

static void target_close_stream(struct target *target)
{
    env_stream_close(target->stream);
    target->stream = NULL;
}

static void on_target_ready(void *ctx, unsigned events);

static void target_acknowledge(struct target *target)
{
    static const uint8_t acks[DEPTH_MAX];
    size_t n = 0;

    ASSERT(target->owed <= DEPTH_MAX);
    if (target->owed > 0) {
        const struct iovec iov = { (void *)(uintptr_t)acks, (size_t)target->owed };
        if (env_stream_writev(target->stream, &iov, 1, &n) == STATUS_OK) target->owed -= n;
    }
    env_stream_watch(target->stream, ENV_READ | (target->owed > 0 ? ENV_WRITE : 0u),
                     on_target_ready, target);
}

static void on_target_ready(void *ctx, unsigned events)
{
    struct target *target = ctx;

    (void)events;
    for (;;) {
        const uint64_t at = target->received % MEMORY_SIZE;
        size_t n = 0, room = MEMORY_SIZE - at;
        if (room > 4 << 20) room = 4 << 20;
        const enum status status = env_stream_read(target->stream, target->memory + at, room, &n);
        if (status == STATUS_AGAIN) break;
        if (status != STATUS_OK) {
            target_close_stream(target);
            return;
        }
        const uint64_t before = target->received / target->message;
        target->received += n;
        target->owed += target->received / target->message - before;
        if (n < room) break;
    }
    target_acknowledge(target);
}

static void on_target_accept(void *ctx, struct env_stream *stream)
{
    struct target *target = ctx;

    target_close_stream(target);
    target->stream = stream;
    target->received = 0;
    target->owed = 0;
    env_stream_watch(stream, ENV_READ, on_target_ready, target);
}

static enum status target_start(struct target *target)
{
    void *memory;
    enum status status = env_real_create(NULL, &target->env, &target->err);

    if (status != STATUS_OK) return status;
    status = yolk_transfer_create(target->env, NULL, &target->transfer, &target->err);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_alloc(target->transfer, MEMORY_SIZE, YOLK_TRANSFER_REMOTE_ALL, &memory,
                                 &target->err);
    if (status != STATUS_OK) return status;
    memset(memory, 1, MEMORY_SIZE);
    target->memory = memory;
    status = env_listen(target->env, "127.0.0.1:0", on_target_accept, target, &target->listener,
                        &target->err);
    if (status != STATUS_OK) return status;
    snprintf(target->address, sizeof(target->address), "127.0.0.1:%u",
             env_listener_port(target->listener));
    return STATUS_OK;
}

static void *target_main(void *ctx)
{
    struct target *target = ctx;

    target->status = target_start(target);
    atomic_store(&target->state, target->status == STATUS_OK ? 1 : 2);
    if (target->status == STATUS_OK) env_run(target->env);
    target_close_stream(target);
    env_listener_close(target->listener);
    yolk_transfer_destroy(target->transfer);
    env_real_destroy(target->env);
    return NULL;
}

static void stop_env(void *ctx)
{
    env_stop(ctx);
}

/* ---- the initiator ---- */

struct bench {
    struct target *target;
    struct env *env;
    struct yolk_transfer *transfer[2]; /* without and with shm */
    struct yolk_transfer_segment segment[2];
    uint8_t *memory[2];
    const struct kind *kind;
    uint64_t total; /* bytes of one run */
    uint64_t begun;
    uint64_t ended;
    bool failed;
    struct env_stream *stream;
    struct yolk_transfer_batch batch;
};

static double rate(const struct bench *bench, uint64_t start_ns)
{
    return (double)bench->total / (double)(env_now_ns(bench->env) - start_ns);
}

static void turn_until_done(struct bench *bench)
{
    const uint64_t limit_ns = env_now_ns(bench->env) + LIMIT_NS;

    while (bench->ended < bench->total && !bench->failed) {
        env_poll(bench->env, ENV_NS_PER_S);
        if (env_now_ns(bench->env) > limit_ns) bench->failed = true;
    }
}

static void submit_next(struct bench *bench);

static void on_transferred(void *ctx, const struct yolk_transfer_result *result)
{
    struct bench *bench = ctx;

    if (result->state != YOLK_TRANSFER_COMPLETED) bench->failed = true;
    bench->ended += result->bytes;
    if (bench->begun < bench->total && !bench->failed) submit_next(bench);
}

static void submit_next(struct bench *bench)
{
    const struct kind *kind = bench->kind;
    const uint64_t at = bench->begun % MEMORY_SIZE;
    const struct yolk_transfer_request request = {
        .opcode = kind->opcode,
        .local = bench->memory[kind->shm] + at,
        .segment = bench->segment[kind->shm],
        .remote = (uintptr_t)bench->target->memory + at,
        .length = kind->size,
        .on_done = on_transferred,
        .ctx = bench,
    };

    bench->begun += kind->size;
    if (yolk_transfer_submit(bench->transfer[kind->shm], bench->batch, &request, 1) != STATUS_OK) {
        bench->failed = true;
    }
}

static double measure_engine(struct bench *bench)
{
    struct yolk_transfer *transfer = bench->transfer[bench->kind->shm];
    const uint32_t count = (uint32_t)(bench->total / bench->kind->size);

    if (yolk_transfer_batch_create(transfer, count, NULL, NULL, &bench->batch) != STATUS_OK) {
        bench->failed = true;
        return 0;
    }
    bench->begun = bench->ended = 0;
    const uint64_t start_ns = env_now_ns(bench->env);
    for (uint32_t i = 0; i < bench->kind->depth; i++)
        submit_next(bench);
    turn_until_done(bench);
    const double value = rate(bench, start_ns);
    if (yolk_transfer_batch_free(transfer, bench->batch) != STATUS_OK) bench->failed = true;
    return value;
}

static void on_stream_ready(void *ctx, unsigned events)
{
    struct bench *bench = ctx;
    const uint64_t window = (uint64_t)bench->kind->size * bench->kind->depth;
    uint8_t acks[DEPTH_MAX];
    size_t n = 0;

    if ((events & ENV_READ) != 0) {
        const enum status status = env_stream_read(bench->stream, acks, sizeof(acks), &n);
        if (status == STATUS_OK) bench->ended += n * bench->kind->size;
        if (status != STATUS_OK && status != STATUS_AGAIN) bench->failed = true;
    }
    while (bench->begun < bench->total && bench->begun < bench->ended + window) {
        const uint64_t at = bench->begun % MEMORY_SIZE;
        uint64_t len = bench->ended + window - bench->begun;
        if (len > bench->total - bench->begun) len = bench->total - bench->begun;
        if (len > MEMORY_SIZE - at) len = MEMORY_SIZE - at;
        const struct iovec iov = { bench->memory[0] + at, (size_t)len };
        if (env_stream_writev(bench->stream, &iov, 1, &n) != STATUS_OK) break;
        bench->begun += n;
    }
    const bool more = bench->begun < bench->total && bench->begun < bench->ended + window;
    env_stream_watch(bench->stream, ENV_READ | (more ? ENV_WRITE : 0u), on_stream_ready, bench);
}

static double measure_stream(struct bench *bench)
{
    bench->target->message = bench->kind->size; /* nobody is connected: the thread is not looking */
    if (env_connect(bench->env, bench->target->address, &bench->stream, NULL) != STATUS_OK) {
        bench->failed = true;
        return 0;
    }
    bench->begun = bench->ended = 0;
    const uint64_t start_ns = env_now_ns(bench->env);
    env_stream_watch(bench->stream, ENV_WRITE, on_stream_ready, bench);
    turn_until_done(bench);
    const double value = rate(bench, start_ns);
    env_stream_close(bench->stream);
    bench->stream = NULL;
    return value;
}

static double measure_memcpy(struct bench *bench)
{
    const uint32_t size = bench->kind->size;
    const uint64_t start_ns = env_now_ns(bench->env);

    for (uint64_t done = 0; done < bench->total; done += size) {
        const uint64_t at = done % MEMORY_SIZE;
        memcpy(bench->memory[1] + at, bench->memory[0] + at, size);
    }
    return rate(bench, start_ns);
}

static enum status initiator_start(struct bench *bench, struct errmsg *err)
{
    enum status status = env_real_create(NULL, &bench->env, err);

    for (int shm = 0; shm <= 1 && status == STATUS_OK; shm++) {
        const struct yolk_transfer_options options = { .forbid_shm = shm == 0 };
        void *memory;
        status = yolk_transfer_create(bench->env, &options, &bench->transfer[shm], err);
        if (status != STATUS_OK) return status;
        status = yolk_transfer_alloc(bench->transfer[shm], MEMORY_SIZE, 0, &memory, err);
        if (status != STATUS_OK) return status;
        memset(memory, 2, MEMORY_SIZE);
        bench->memory[shm] = memory;
        status =
            yolk_transfer_open(bench->transfer[shm], yolk_transfer_name(bench->target->transfer),
                               &bench->segment[shm]);
    }
    return status;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, uint32_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return values[count / 2];
}

static enum status measure(struct bench *bench, uint32_t runs, struct transfer_bench_row *row)
{
    double value[TRANSFER_BENCH_RUNS_MAX], baseline[TRANSFER_BENCH_RUNS_MAX];
    double ratio[TRANSFER_BENCH_RUNS_MAX];
    const struct kind *kind = bench->kind;

    ASSERT(runs >= 1 && runs <= TRANSFER_BENCH_RUNS_MAX && kind->depth <= DEPTH_MAX);
    bench->total = MEMORY_SIZE;
    measure_engine(bench); /* connects, and touches everything once */
    for (uint32_t i = 0; i < runs && !bench->failed; i++) {
        value[i] = measure_engine(bench);
        baseline[i] = kind->shm ? measure_memcpy(bench) : measure_stream(bench);
        ratio[i] = value[i] / baseline[i];
    }
    if (bench->failed) return STATUS_IO;
    *row = (struct transfer_bench_row){ .name = kind->name,
                                        .unit = "GB/s",
                                        .yardstick = kind->shm ? "memcpy" : "stream",
                                        .value = median(value, runs),
                                        .baseline = median(baseline, runs),
                                        .ratio = median(ratio, runs),
                                        .target = kind->target };
    return STATUS_OK;
}

static enum status measure_all(struct target *target, uint32_t runs,
                               struct transfer_bench_row rows[TRANSFER_BENCH_ROWS],
                               struct errmsg *err)
{
    struct bench bench = { .target = target };
    enum status status = initiator_start(&bench, err);

    for (int i = 0; i < TRANSFER_BENCH_ROWS && status == STATUS_OK; i++) {
        bench.kind = &kinds[i];
        status = measure(&bench, runs, &rows[i]);
        if (status != STATUS_OK) errmsg_set(err, status, "bench %s did not end", kinds[i].name);
    }
    for (int shm = 0; shm <= 1; shm++)
        yolk_transfer_destroy(bench.transfer[shm]);
    env_real_destroy(bench.env);
    return status;
}

enum status transfer_bench(uint32_t runs, struct transfer_bench_row rows[TRANSFER_BENCH_ROWS],
                           struct errmsg *err)
{
    struct target target = { .message = 1 };
    enum status status;

    if (runs > TRANSFER_BENCH_RUNS_MAX) return STATUS_INVALID;
    if (pthread_create(&target.thread, NULL, target_main, &target) != 0) {
        return errmsg_set(err, STATUS_NO_MEMORY, "bench: no thread");
    }
    while (atomic_load(&target.state) == 0)
        env_real_sleep_ns(ENV_NS_PER_MS);
    if (atomic_load(&target.state) == 1) {
        status = measure_all(&target, runs != 0 ? runs : RUNS_DEFAULT, rows, err);
        ASSERT(env_post(target.env, stop_env, target.env) == STATUS_OK);
    } else {
        status = target.status;
        if (err != NULL) *err = target.err;
    }
    pthread_join(target.thread, NULL);
    return status;
}
