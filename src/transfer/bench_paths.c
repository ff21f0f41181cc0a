/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench_paths.c - the rows that need one host: tcp and shm, several threads, registering.
 *
 * Initiator and target run in threads with a loop each. The yardstick of tcp is base/env_bare.h,
 * that of shm a memcpy; four threads are measured against one. What is read is the same memory for
 * the engine and its yardstick, a half of the target's to which nobody writes: pages of one process
 * differ in speed by a fifth, by where they came to lie. What is written is not, because nothing
 * but sockets orders the two that write: the yardstick's target has as much memory of its own, made
 * in the same way. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/env_bare.h"
#include "base/env_real.h"
#include "transfer/bench_int.h"

enum { OPS_MAX = 16384, OPS_ALONE_MAX = 1024, THREADS = 4 };

#define READ YOLK_TRANSFER_READ
#define WRITE YOLK_TRANSFER_WRITE

struct kind {
    const char *name;
    enum yolk_transfer_opcode opcode;
    bool shm; /* or vm, where the target's memory is not the engine's */
    uint32_t size;
    uint32_t depth;
    uint32_t streams;
    bool polling;
    bool at_most; /* latency, in microseconds; otherwise a rate */
    double target;
};

static const struct kind kinds[] = {
    { "tcp_write_4k_depth1", WRITE, false, 4096, 1, 1, false, true, 1.2 },
    { "tcp_read_4k_depth1", READ, false, 4096, 1, 1, false, true, 1.2 },
    { "tcp_write_4k_depth1_polling", WRITE, false, 4096, 1, 1, true, true, 1.2 },
    { "tcp_read_4k_depth1_polling", READ, false, 4096, 1, 1, true, true, 1.2 },
    { "tcp_write_4k_depth128", WRITE, false, 4096, 128, 2, false, false, 0.80 },
    { "tcp_read_4k_depth128", READ, false, 4096, 128, 2, false, false, 0.80 },
    { "tcp_write_64k_depth16", WRITE, false, 64 << 10, 16, 1, false, false, 0.90 },
    { "tcp_read_64k_depth16", READ, false, 64 << 10, 16, 1, false, false, 0.90 },
    { "tcp_write_1m_depth4", WRITE, false, 1 << 20, 4, 1, false, false, 0.95 },
    { "tcp_read_1m_depth4", READ, false, 1 << 20, 4, 1, false, false, 0.95 },
    { "tcp_write_1m_two_streams", WRITE, false, 1 << 20, 4, 2, false, false, 0.95 },
    { "tcp_read_1m_two_streams", READ, false, 1 << 20, 4, 2, false, false, 0.95 },
    { "tcp_write_4m_depth2", WRITE, false, 4 << 20, 2, 1, false, false, 0.95 },
    { "tcp_read_4m_depth2", READ, false, 4 << 20, 2, 1, false, false, 0.95 },
    { "tcp_write_4m_two_streams", WRITE, false, 4 << 20, 4, 2, false, false, 0.95 },
    { "tcp_read_4m_two_streams", READ, false, 4 << 20, 4, 2, false, false, 0.95 },
    { "shm_read_64k_depth16", READ, true, 64 << 10, 16, 1, false, false, 0.95 },
    { "shm_read_1m_depth4", READ, true, 1 << 20, 4, 1, false, false, 0.95 },
    { "vm_read_64k_depth16", READ, true, 64 << 10, 16, 1, false, false, 0.95 },
    { "vm_read_1m_depth4", READ, true, 1 << 20, 4, 1, false, false, 0.95 },
};

struct paths {
    struct transfer_bench *bench;
    struct bench_target target;
    size_t size; /* of each memory, and of the walk through it; the target's has two: see there() */
    uint8_t *here;
    struct env_map bare_there; /* what the yardstick writes instead of the target's memory */
    struct env *env;
    /* the row */
    const struct kind *kind;
    struct bench_mover mover;
    struct env_bare *bare;
    uint64_t count;
    bool vm; /* the row reads `user`, memory that is not the target engine's */
    uint8_t *user;
    struct env_memory memory; /* ours, as others read it */
};

static double value_of(const struct kind *kind, uint64_t count, uint64_t ns)
{
    if (kind->at_most) return (double)ns / 1e3 / (double)count;
    return (double)count * kind->size / (double)ns;
}

/* The target's memory for the row: its first half is written, its second half only read. */
static uint8_t *there(const struct paths *paths, enum yolk_transfer_opcode opcode)
{
    if (paths->vm) return paths->user;
    return paths->target.memory + (opcode == READ ? paths->size : 0);
}

/* By memcpy, or, for vm, by the bare call. */
static enum status copy(struct paths *paths, uint64_t *ns)
{
    const uint32_t size = paths->kind->size;
    const uint64_t start_ns = env_now_ns(paths->env);
    enum status status = STATUS_OK;

    for (uint64_t i = 0; i < paths->count && status == STATUS_OK; i++) {
        uint8_t *to = paths->here + paths->mover.at;
        const uint8_t *from = paths->mover.there + paths->mover.at;
        if (paths->vm) {
            status = env_memory_read(paths->env, &paths->memory, (uintptr_t)from, to, size);
        } else {
            memcpy(to, from, size);
        }
        paths->mover.at = (paths->mover.at + size) % paths->size;
    }
    *ns = env_now_ns(paths->env) - start_ns;
    return status;
}

static enum status path_pair(void *ctx, double *value, double *baseline)
{
    struct paths *paths = ctx;
    const struct kind *kind = paths->kind;
    uint64_t ns;

    atomic_store(&paths->target.polling, kind->polling);
    if (kind->polling) bench_target_wake(&paths->target);
    enum status status = bench_move(&paths->mover, paths->count, &ns);
    atomic_store(&paths->target.polling, false);
    if (status != STATUS_OK) return status;
    *value = value_of(kind, paths->count, ns);
    status = kind->shm ? copy(paths, &ns) : env_bare_run(paths->bare, paths->count, &ns);
    if (status == STATUS_OK) *baseline = value_of(kind, paths->count, ns);
    return status;
}

static uint64_t count_for(const struct transfer_bench *bench, const struct kind *kind)
{
    uint64_t count = BENCH_MEMORY_SIZE / kind->size;

    if (count > OPS_MAX) count = OPS_MAX;
    if (kind->depth == 1 && count > OPS_ALONE_MAX) count = OPS_ALONE_MAX;
    if (bench->quick) count = count / 32 > kind->depth ? count / 32 : kind->depth;
    return count;
}

enum status bench_mover_open(struct bench_mover *mover, const struct bench_target *target, bool shm,
                             uint32_t lanes, uint8_t *here, size_t size, struct errmsg *err)
{
    const struct yolk_transfer_options options = { .secret = target->options.secret,
                                                   .protocol = mover->protocol,
                                                   .encrypt = mover->encrypt,
                                                   .forbid_shm = !shm,
                                                   .lanes_per_peer = lanes };

    mover->there = target->memory;
    return bench_mover_join(mover, &options, yolk_transfer_name(target->transfer), here, size, err);
}

static bool is_vm(const struct kind *kind)
{
    return strncmp(kind->name, "vm_", 3) == 0;
}

static const char *yardstick_of(const struct kind *kind)
{
    if (is_vm(kind)) return "process_vm_readv";
    return kind->shm ? "memcpy" : "sockets";
}

/* One round trip after another: the two ends have cores of their own (env_bare.h). */
static void place_ends(const struct paths *paths, const struct kind *kind)
{
    const bool alone = kind->depth == 1 && !kind->shm;

    env_bare_pin(pthread_self(), alone ? ENV_BARE_FIRST : ENV_BARE_ANYWHERE);
    env_bare_pin(paths->target.thread, alone ? ENV_BARE_SECOND : ENV_BARE_ANYWHERE);
}

static enum status path_row(struct paths *paths, const struct kind *kind, struct errmsg *err)
{
    paths->kind = kind;
    paths->vm = is_vm(kind);
    paths->bare = NULL;
    paths->count = count_for(paths->bench, kind);
    const struct transfer_bench_row row = { .name = kind->name,
                                            .unit = kind->at_most ? "us" : "GB/s",
                                            .yardstick = yardstick_of(kind),
                                            .target = kind->target,
                                            .at_most = kind->at_most };
    const struct env_bare_options bare = {
        .read = kind->opcode == YOLK_TRANSFER_READ,
        .polling = kind->polling,
        .place = kind->depth == 1 ? ENV_BARE_SECOND : ENV_BARE_ANYWHERE,
        .streams = kind->streams,
        .depth = kind->depth,
        .size = kind->size,
        .here = paths->here,
        .there = kind->opcode == READ ? there(paths, READ) : paths->bare_there.data,
        .memory_size = paths->size
    };

    paths->mover = (struct bench_mover){ .env = paths->env,
                                         .opcode = kind->opcode,
                                         .size = kind->size,
                                         .depth = kind->depth,
                                         .polling = kind->polling };
    enum status status = bench_mover_open(&paths->mover, &paths->target, kind->shm, kind->streams,
                                          paths->here, paths->size, err);
    paths->mover.there = there(paths, kind->opcode);
    place_ends(paths, kind);
    if (status == STATUS_OK && !kind->shm) status = env_bare_open(&bare, &paths->bare);
    if (status == STATUS_OK) status = bench_row(paths->bench, &row, path_pair, paths, err);
    env_bare_close(paths->bare);
    yolk_transfer_destroy(paths->mover.transfer);
    return status;
}

/* ---- four initiators ---- */

struct initiator {
    pthread_t thread;
    struct paths *paths;
    uint32_t index;
    pthread_barrier_t *barrier;
    uint64_t count, start_ns, end_ns;
    enum status status;
};

static void *initiator_main(void *ctx)
{
    struct initiator *me = ctx;
    const size_t part = me->paths->size / THREADS;
    struct bench_mover mover = { .opcode = YOLK_TRANSFER_WRITE, .size = 64 << 10, .depth = 16 };
    uint64_t ns;

    me->status = env_real_create(NULL, &mover.env, NULL);
    if (me->status == STATUS_OK) {
        me->status = bench_mover_open(&mover, &me->paths->target, false, 1,
                                      me->paths->here + part * me->index, part, NULL);
        mover.there += part * me->index;
    }
    if (me->status == STATUS_OK) me->status = bench_move(&mover, 16, &ns); /* connects */
    pthread_barrier_wait(me->barrier);
    if (me->status == STATUS_OK) {
        me->start_ns = env_now_ns(mover.env);
        me->status = bench_move(&mover, me->count, &ns);
        me->end_ns = env_now_ns(mover.env);
    }
    yolk_transfer_destroy(mover.transfer);
    env_real_destroy(mover.env);
    return NULL;
}

static enum status initiators_run(struct paths *paths, uint32_t threads, double *rate)
{
    struct initiator all[THREADS];
    pthread_barrier_t barrier;
    uint64_t start_ns = UINT64_MAX, end_ns = 0;
    enum status status = STATUS_OK;

    if (pthread_barrier_init(&barrier, NULL, threads) != 0) return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < threads; i++) {
        all[i] = (struct initiator){
            .paths = paths, .index = i, .barrier = &barrier, .count = paths->count / threads
        };
        const int error = pthread_create(&all[i].thread, NULL, initiator_main, &all[i]);
        ASSERT(error == 0); /* the barrier would wait for ever */
    }
    for (uint32_t i = 0; i < threads; i++) {
        pthread_join(all[i].thread, NULL);
        if (all[i].status != STATUS_OK) status = all[i].status;
        if (all[i].start_ns < start_ns) start_ns = all[i].start_ns;
        if (all[i].end_ns > end_ns) end_ns = all[i].end_ns;
    }
    pthread_barrier_destroy(&barrier);
    *rate = (double)(paths->count / threads * threads * (64 << 10)) / (double)(end_ns - start_ns);
    return status;
}

static enum status threads_pair(void *ctx, double *value, double *baseline)
{
    struct paths *paths = ctx;
    const enum status status = initiators_run(paths, THREADS, value);
    return status == STATUS_OK ? initiators_run(paths, 1, baseline) : status;
}

static enum status threads_row(struct paths *paths, struct errmsg *err)
{
    const struct transfer_bench_row row = { .name = "tcp_write_64k_four_threads",
                                            .unit = "GB/s",
                                            .yardstick = "one thread",
                                            .target = 1.0 };

    if (!bench_wants(paths->bench, row.name)) return STATUS_OK;
    paths->count = paths->bench->quick ? 64 : 4096;
    return bench_row(paths->bench, &row, threads_pair, paths, err);
}

/* ---- all of them ---- */

/* To borrow, check and return, against copying the same range. */
static enum status borrow_pair(void *ctx, double *value, double *baseline)
{
    struct paths *paths = ctx;
    struct bench_mover *mover = &paths->mover;
    const uint64_t start_ns = env_now_ns(paths->env);
    uint64_t ns;

    for (uint64_t i = 0; i < paths->count; i++) {
        struct yolk_transfer_loan loan;
        enum status status = STATUS_AGAIN;
        while (status == STATUS_AGAIN) {
            status =
                yolk_transfer_borrow(mover->transfer, mover->segment,
                                     (uintptr_t)mover->there + mover->at, mover->size, 0, &loan);
            if (status == STATUS_AGAIN) env_poll(paths->env, ENV_NS_PER_MS);
        }
        if (status == STATUS_OK) status = yolk_transfer_loan_check(mover->transfer, loan);
        if (status != STATUS_OK) return status;
        yolk_transfer_return(mover->transfer, loan);
        mover->at = (mover->at + mover->size) % paths->size;
    }
    *value = (double)(env_now_ns(paths->env) - start_ns) / 1e3 / (double)paths->count;
    const enum status status = copy(paths, &ns);
    *baseline = (double)ns / 1e3 / (double)paths->count;
    return status;
}

static enum status borrow_row(struct paths *paths, struct errmsg *err)
{
    static const struct kind kind = { .name = "shm_borrow_1m", .shm = true, .size = 1 << 20 };
    const struct transfer_bench_row row = {
        .name = kind.name, .unit = "us", .yardstick = "memcpy", .target = 0.05, .at_most = true
    };

    if (!bench_wants(paths->bench, row.name)) return STATUS_OK;
    paths->kind = &kind;
    paths->vm = false;
    paths->count = paths->bench->quick ? 16 : 256;
    paths->mover = (struct bench_mover){ .env = paths->env, .size = kind.size };
    enum status status =
        bench_mover_open(&paths->mover, &paths->target, true, 1, paths->here, paths->size, err);
    paths->mover.there = there(paths, READ);
    if (status == STATUS_OK) status = bench_row(paths->bench, &row, borrow_pair, paths, err);
    yolk_transfer_destroy(paths->mover.transfer);
    return status;
}

/* ---- encrypted ---- */

struct sealing {
    struct bench_mover sealed, clear;
    uint64_t count;
};

static enum status sealed_pair(void *ctx, double *value, double *baseline)
{
    struct sealing *sealing = ctx;
    const double bytes = (double)sealing->count * sealing->sealed.size;
    uint64_t ns;

    enum status status = bench_move(&sealing->sealed, sealing->count, &ns);
    *value = bytes / (double)ns;
    if (status == STATUS_OK) status = bench_move(&sealing->clear, sealing->count, &ns);
    *baseline = bytes / (double)ns;
    return status;
}

/* The same transfer, encrypted and not: what the ciphers of this CPU cost. No target. */
static enum status sealed_row(struct paths *paths, struct errmsg *err)
{
    const struct transfer_bench_row row = { .name = "tcp_write_1m_encrypted",
                                            .unit = "GB/s",
                                            .yardstick = "in clear" };
    struct sealing sealing = {
        .sealed = { .env = paths->env, .opcode = WRITE, .size = 1 << 20, .depth = 4 },
        .count = paths->bench->quick ? 8 : BENCH_MEMORY_SIZE >> 20,
    };

    if (!bench_wants(paths->bench, row.name)) return STATUS_OK;
    sealing.clear = sealing.sealed;
    sealing.sealed.encrypt = true;
    enum status status =
        bench_mover_open(&sealing.clear, &paths->target, false, 1, paths->here, paths->size, err);
    if (status == STATUS_OK) {
        status = bench_mover_open(&sealing.sealed, &paths->target, false, 1, paths->here,
                                  paths->size, err);
    }
    if (status == STATUS_OK) status = bench_row(paths->bench, &row, sealed_pair, &sealing, err);
    yolk_transfer_destroy(sealing.clear.transfer);
    yolk_transfer_destroy(sealing.sealed.transfer);
    return status;
}

static enum status rows(struct paths *paths, struct errmsg *err)
{
    enum status status = STATUS_OK;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && status == STATUS_OK; i++) {
        if (bench_wants(paths->bench, kinds[i].name)) status = path_row(paths, &kinds[i], err);
    }
    env_bare_pin(pthread_self(), ENV_BARE_ANYWHERE);
    env_bare_pin(paths->target.thread, ENV_BARE_ANYWHERE);
    if (status == STATUS_OK) status = borrow_row(paths, err);
    if (status == STATUS_OK) status = threads_row(paths, err);
    if (status == STATUS_OK) status = sealed_row(paths, err);
    return status;
}

static enum status yardsticks_open(struct paths *paths, struct errmsg *err)
{
    char name[ENV_SHARE_NAME_SIZE];
    enum status status = env_real_create(NULL, &paths->env, err);

    if (status != STATUS_OK) return status;
    env_memory_name(paths->env, name);
    status = env_memory_open(paths->env, name, &paths->memory);
    if (status != STATUS_OK) return status;
    status = env_map_create(paths->env, paths->size, &paths->bare_there, name, err);
    if (status == STATUS_OK) memset(paths->bare_there.data, 3, paths->size);
    return status;
}

static void yardsticks_close(struct paths *paths)
{
    env_map_close(&paths->bare_there);
    env_real_destroy(paths->env);
}

enum status bench_paths(struct transfer_bench *bench, struct errmsg *err)
{
    const size_t size = bench->quick ? BENCH_MEMORY_QUICK : BENCH_MEMORY_SIZE;
    struct paths paths = { .bench = bench,
                           .size = size,
                           .target = { .options.secret = "bench", .memory_size = 2 * size } };

    /* The first third is the initiator's; the rest, memory that a user brings to the target. */
    paths.here = mmap(NULL, 3 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (paths.here == MAP_FAILED) return errmsg_set(err, STATUS_NO_MEMORY, "bench: no memory");
    memset(paths.here, 2, 3 * size);
    paths.user = paths.here + size;
    paths.target.user = paths.user;
    enum status status = yardsticks_open(&paths, err);
    if (status == STATUS_OK) status = bench_target_open(&paths.target, err);
    if (status == STATUS_OK) {
        status = rows(&paths, err);
        bench_target_close(&paths.target);
    }
    yardsticks_close(&paths);
    munmap(paths.here, 3 * size);
    return status;
}
