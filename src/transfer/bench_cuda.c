/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench_cuda.c - the rows of memory of devices, 256 MiB of cuda:0 at each end.
 *
 *   cuda_local_*  within one engine, beside bare copies of the driver's, as many at once
 *   cuda_ipc_*    from another process of this host, or to it, by its memory opened here: the same
 *   cuda_tcp_*    the same two processes by sockets, as between hosts, through pinned memory;
 *                 beside memory of the host at both ends over the same sockets
 *
 * The other process is this binary again, `bench transfer --listen`, because a driver opens no
 * memory of its own process. Without a GPU, the rows are skipped and say so. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env_bare.h"
#include "base/env_real.h"
#include "transfer/bench_int.h"
#include "transfer/cuda_driver.h"

enum { PATH_SIZE = 256, START_MS = 20000 };

struct kind {
    const char *name;
    enum { LOCAL, IPC, TCP } way;
    enum yolk_transfer_opcode opcode;
    uint32_t size, depth;
    double target;
};

#define READ YOLK_TRANSFER_READ
#define WRITE YOLK_TRANSFER_WRITE

static const struct kind kinds[] = {
    { "cuda_local_4m_depth4", LOCAL, WRITE, 4 << 20, 4, 0.90 },
    { "cuda_ipc_read_4m_depth4", IPC, READ, 4 << 20, 4, 0.90 },
    { "cuda_ipc_write_4m_depth4", IPC, WRITE, 4 << 20, 4, 0.90 },
    { "cuda_tcp_read_1m_depth8", TCP, READ, 1 << 20, 8, 0.80 },
    { "cuda_tcp_write_1m_depth8", TCP, WRITE, 1 << 20, 8, 0.80 },
};

struct cuda_bench {
    struct transfer_bench *bench;
    struct env *env;
    struct cuda_device *device;
    uint64_t memory; /* of it, twice BENCH_MEMORY_SIZE */
    uint8_t *host;   /* as much as one of them, for the yardstick over tcp */
    const char *missing;
    char why[128];

    struct env_process *process;
    bool ended;
    char address[64];
    struct bench_lent lent;

    const struct kind *kind;
    struct bench_mover mover, yardstick;
    uint64_t count;
};

/* ---- bare copies of the driver's ---- */

static enum status bare_run(struct cuda_bench *cuda, uint64_t *ns)
{
    const struct kind *kind = cuda->kind;
    struct cuda_event *events[8];
    const uint64_t start_ns = env_now_ns(cuda->env);
    enum status status = STATUS_OK;
    uint64_t begun = 0, ended = 0;

    ASSERT(kind->depth <= 8);
    while (ended < cuda->count && status == STATUS_OK) {
        if (begun < cuda->count && begun - ended < kind->depth) {
            const uint64_t at = begun * kind->size % BENCH_MEMORY_SIZE;
            status = cuda_copy_across(cuda->device, cuda->memory + at, cuda->device,
                                      cuda->memory + BENCH_MEMORY_SIZE + at, kind->size,
                                      &events[begun % kind->depth]);
            if (status == STATUS_OK) begun++;
            continue;
        }
        status = cuda_event_wait(events[ended % kind->depth]);
        cuda_event_free(events[ended++ % kind->depth]);
    }
    for (; ended < begun; ended++) {
        (void)cuda_event_wait(events[ended % kind->depth]);
        cuda_event_free(events[ended % kind->depth]);
    }
    *ns = env_now_ns(cuda->env) - start_ns;
    return status;
}

/* ---- the other process ---- */

static void on_exit_of_other(void *ctx, struct env_exit how)
{
    struct cuda_bench *cuda = ctx;
    (void)how;
    cuda->ended = true;
}

static void nobody(void *ctx, struct env_stream *stream)
{
    (void)ctx;
    env_stream_close(stream);
}

/* A port that was free a moment ago. */
static enum status choose_port(struct cuda_bench *cuda)
{
    struct env_listener *listener;
    const enum status status = env_listen(cuda->env, "127.0.0.1:0", nobody, NULL, &listener, NULL);

    if (status != STATUS_OK) return status;
    snprintf(cuda->address, sizeof(cuda->address), "127.0.0.1:%u",
             (unsigned)env_listener_port(listener));
    env_listener_close(listener);
    return STATUS_OK;
}

static enum status other_start(struct cuda_bench *cuda)
{
    char program[PATH_SIZE];
    const char *const argv[] = { program,       "bench", "transfer", "--listen",
                                 cuda->address, "--log", "error",    NULL };

    enum status status = env_real_self_path(program, sizeof(program));
    if (status == STATUS_OK) status = choose_port(cuda);
    if (status != STATUS_OK) return status;
    status = env_process_spawn(cuda->env, argv, on_exit_of_other, cuda, &cuda->process, NULL);
    if (status != STATUS_OK) return status;
    for (int i = 0; i < START_MS / 10 && !cuda->ended; i++) {
        env_poll(cuda->env, 10 * ENV_NS_PER_MS);
        status = bench_lent_ask(cuda->address, &cuda->lent, NULL);
        if (status == STATUS_OK && cuda->lent.device == 0) return STATUS_UNSUPPORTED;
        if (status == STATUS_OK) return STATUS_OK;
    }
    return STATUS_UNAVAILABLE;
}

static void other_stop(struct cuda_bench *cuda)
{
    if (cuda->process == NULL) return;
    if (!cuda->ended) env_process_kill(cuda->process, SIGKILL);
    while (!cuda->ended)
        env_poll(cuda->env, ENV_NS_PER_S);
}

/* ---- rows ---- */

static double rate(const struct cuda_bench *cuda, uint64_t ns)
{
    return (double)(cuda->count * cuda->kind->size) / (double)ns;
}

static enum status cuda_pair(void *ctx, double *value, double *baseline)
{
    struct cuda_bench *cuda = ctx;
    uint64_t ns;

    enum status status = bench_move(&cuda->mover, cuda->count, &ns);
    if (status != STATUS_OK) return status;
    *value = rate(cuda, ns);
    status = cuda->kind->way == TCP ? bench_move(&cuda->yardstick, cuda->count, &ns)
                                    : bare_run(cuda, &ns);
    *baseline = rate(cuda, ns);
    return status;
}

static enum status mover_open(struct cuda_bench *cuda, struct bench_mover *mover, bool device,
                              struct errmsg *err)
{
    const struct yolk_transfer_options options = { .forbid_shm = cuda->kind->way == TCP };
    uint8_t *memory = (uint8_t *)(uintptr_t)cuda->memory;
    const uint64_t there = device ? cuda->lent.device : cuda->lent.host;

    *mover = (struct bench_mover){ .env = cuda->env,
                                   .opcode = cuda->kind->opcode,
                                   .size = cuda->kind->size,
                                   .depth = cuda->kind->depth };
    if (cuda->kind->way == LOCAL) {
        const enum status status =
            bench_mover_join(mover, &options, NULL, memory, 2 * (size_t)BENCH_MEMORY_SIZE, err);
        mover->there = memory + BENCH_MEMORY_SIZE;
        mover->memory_size = BENCH_MEMORY_SIZE;
        return status;
    }
    mover->there = (uint8_t *)(uintptr_t)there;
    return bench_mover_join(mover, &options, cuda->lent.name, device ? memory : cuda->host,
                            BENCH_MEMORY_SIZE, err);
}

/* One message, to see which way they go: NULL, or why the row means nothing. */
static const char *look(struct cuda_bench *cuda, enum status *status)
{
    struct yolk_transfer_stats stats = { .retries = 0 };
    uint64_t ns;

    *status = bench_move(&cuda->mover, 1, &ns);
    if (*status != STATUS_OK || cuda->kind->way != IPC) return NULL;
    yolk_transfer_stats(cuda->mover.transfer, &stats);
    const int path = YOLK_TRANSFER_PATH_CUDA;
    if (stats.bytes_sent[path] + stats.bytes_read[path] > 0) return NULL;
    return "the CUDA driver does not open memory of another process here";
}

static enum status cuda_row(struct cuda_bench *cuda, const struct kind *kind, struct errmsg *err)
{
    const struct transfer_bench_row row = { .name = kind->name,
                                            .unit = "GB/s",
                                            .yardstick =
                                                kind->way == TCP ? "host memory" : "cuMemcpy",
                                            .target = kind->target };
    const char *missing = cuda->missing;
    enum status status = STATUS_OK;

    if (missing == NULL && kind->way != LOCAL && cuda->lent.device == 0) missing = cuda->why;
    if (missing != NULL) {
        bench_skip(cuda->bench, &row, missing);
        return STATUS_OK;
    }
    cuda->kind = kind;
    cuda->count = cuda->bench->quick ? kind->depth : BENCH_MEMORY_SIZE / kind->size;
    cuda->yardstick.transfer = NULL;
    status = mover_open(cuda, &cuda->mover, true, err);
    if (status == STATUS_OK && kind->way == TCP) {
        status = mover_open(cuda, &cuda->yardstick, false, err);
    }
    if (status == STATUS_OK) missing = look(cuda, &status);
    if (missing != NULL) {
        bench_skip(cuda->bench, &row, missing);
    } else if (status == STATUS_OK) {
        status = bench_row(cuda->bench, &row, cuda_pair, cuda, err);
    }
    yolk_transfer_destroy(cuda->mover.transfer);
    yolk_transfer_destroy(cuda->yardstick.transfer);
    return status;
}

/* ---- all of them ---- */

static bool any_wanted(const struct transfer_bench *bench, bool others)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (others && kinds[i].way == LOCAL) continue;
        if (bench_wants(bench, kinds[i].name)) return true;
    }
    return false;
}

/* What is not there is said in `missing`, or, of the other process only, in `why`. */
static void cuda_find_all(struct cuda_bench *cuda)
{
    struct errmsg err = { "" };

    if (cuda_driver_load(&err) != STATUS_OK ||
        cuda_device_open(0, &cuda->device, &err) != STATUS_OK) {
        snprintf(cuda->why, sizeof(cuda->why), "no GPU: %.100s", err.text);
        cuda->missing = cuda->why;
        return;
    }
    if (cuda_memory_alloc(cuda->device, 2 * (size_t)BENCH_MEMORY_SIZE, &cuda->memory) !=
        STATUS_OK) {
        cuda->memory = 0;
        cuda->missing = "cuda:0 has no 512 MiB to spare";
        return;
    }
    if (!any_wanted(cuda->bench, true)) return;
    const enum status status = other_start(cuda);
    if (status == STATUS_OK) return;
    cuda->lent.device = 0;
    snprintf(cuda->why, sizeof(cuda->why), "no other process with memory of cuda:0: %s",
             status_name(status));
}

enum status bench_cuda(struct transfer_bench *bench, struct errmsg *err)
{
    struct cuda_bench cuda = { .bench = bench };

    if (!any_wanted(bench, false)) return STATUS_OK;
    enum status status = env_real_create(NULL, &cuda.env, err);
    if (status != STATUS_OK) return status;
    cuda_find_all(&cuda);
    cuda.host = calloc(1, BENCH_MEMORY_SIZE);
    if (cuda.host == NULL) status = errmsg_set(err, STATUS_NO_MEMORY, "bench: no memory");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && status == STATUS_OK; i++) {
        if (bench_wants(bench, kinds[i].name)) status = cuda_row(&cuda, &kinds[i], err);
    }
    other_stop(&cuda);
    if (cuda.memory != 0) cuda_memory_free(cuda.device, cuda.memory);
    cuda_device_close(cuda.device);
    free(cuda.host);
    env_real_destroy(cuda.env);
    return status;
}
