/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench_fabric.c - our tcp beside libfabric's, and the engine with libfabric under it
 * beside libfabric alone: the same operation, size, depth and way of waiting, over the same memory,
 * in turns.
 *
 * The yardstick is what a program gets that calls libfabric and does nothing else: one endpoint an
 * end, in a thread each, remote reads and writes of registered memory, a write being over when it
 * is in the memory of the target. It waits in fi_cq_sread(), or not at all. Where our row uses two
 * connections, libfabric's has the one that its endpoint makes. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/env_bare.h"
#include "base/env_real.h"
#include "transfer/bench_int.h"
#include "transfer/fabric.h"

enum { OPS_MAX = 8192, OPS_ALONE_MAX = 1024, DONE_MAX = 16, WAIT_MS = 50 };

#define READ YOLK_TRANSFER_READ
#define WRITE YOLK_TRANSFER_WRITE
#define LIMIT_NS (30 * ENV_NS_PER_S)

static const char provider[] = "tcp;ofi_rxm", protocol[] = "fabric:tcp;ofi_rxm";

struct kind {
    const char *name;
    enum yolk_transfer_opcode opcode;
    uint32_t size;
    uint32_t depth;
    uint32_t streams; /* of ours */
    bool polling;
    bool fabric; /* ours goes through libfabric, too */
};

static const struct kind kinds[] = {
    { "vs_libfabric_write_4k_depth1", WRITE, 4096, 1, 1, false, false },
    { "vs_libfabric_read_4k_depth1", READ, 4096, 1, 1, false, false },
    { "vs_libfabric_write_4k_depth1_polling", WRITE, 4096, 1, 1, true, false },
    { "vs_libfabric_read_4k_depth1_polling", READ, 4096, 1, 1, true, false },
    { "vs_libfabric_write_4k_depth128", WRITE, 4096, 128, 2, false, false },
    { "vs_libfabric_read_4k_depth128", READ, 4096, 128, 2, false, false },
    { "vs_libfabric_write_64k_depth16", WRITE, 64 << 10, 16, 1, false, false },
    { "vs_libfabric_read_64k_depth16", READ, 64 << 10, 16, 1, false, false },
    { "vs_libfabric_write_1m_depth4", WRITE, 1 << 20, 4, 1, false, false },
    { "vs_libfabric_read_1m_depth4", READ, 1 << 20, 4, 1, false, false },
    { "vs_libfabric_write_4m_depth2", WRITE, 4 << 20, 2, 1, false, false },
    { "vs_libfabric_read_4m_depth2", READ, 4 << 20, 2, 1, false, false },
    { "through_fabric_write_64k_depth16", WRITE, 64 << 10, 16, 1, false, true },
    { "through_fabric_read_64k_depth16", READ, 64 << 10, 16, 1, false, true },
    { "through_fabric_write_1m_depth4", WRITE, 1 << 20, 4, 1, false, true },
    { "through_fabric_read_1m_depth4", READ, 1 << 20, 4, 1, false, true },
};

/* One end of libfabric's path. */
struct end {
    struct fabric *fabric;
    struct fabric_link *link;
    struct fabric_memory *memory;
    uint8_t address[FABRIC_ADDRESS_SIZE];
    size_t address_len;
};

struct bare {
    struct end here, there;
    uint8_t *memory; /* of the target */
    size_t size;     /* of memory at each end */
    pthread_t thread;
    _Atomic int state; /* 0: starting, 1: running, 2: failed; written by the thread, read by us */
    _Atomic bool polling, stop;
    struct errmsg err;
};

struct rows {
    struct transfer_bench *bench;
    struct bench_target target;
    uint8_t *here;
    size_t size; /* of each memory */
    struct env *env;
    struct bare bare;
    /* the row */
    const struct kind *kind;
    struct bench_mover mover;
    uint64_t count;
    uint64_t at; /* libfabric's walk */
};

/* ---- libfabric alone ---- */

static enum status end_open(struct end *end, uint8_t *memory, size_t size, unsigned access,
                            struct errmsg *err)
{
    enum status status = fabric_open(provider, "127.0.0.1", &end->fabric, err);

    if (status == STATUS_OK) status = fabric_link_open(end->fabric, &end->link);
    if (status == STATUS_OK) {
        status = fabric_memory_open(end->link, memory, size, access, 1, &end->memory);
    }
    if (status != STATUS_OK) return status;
    end->address_len = fabric_link_address(end->link, end->address);
    return end->address_len > 0 ? STATUS_OK : STATUS_UNAVAILABLE;
}

static void end_close(struct end *end)
{
    fabric_link_close(end->link);
    fabric_close(end->fabric);
}

static void *bare_main(void *ctx)
{
    struct bare *bare = ctx;
    struct fabric_done done[DONE_MAX];
    enum status status = end_open(&bare->there, bare->memory, bare->size,
                                  FABRIC_REMOTE_READ | FABRIC_REMOTE_WRITE, &bare->err);

    if (status == STATUS_OK) {
        status = fabric_link_connect(bare->there.link, bare->here.address, bare->here.address_len);
    }
    atomic_store(&bare->state, status == STATUS_OK ? 1 : 2);
    while (status == STATUS_OK && !atomic_load(&bare->stop)) {
        const int wait_ms = atomic_load(&bare->polling) ? 0 : WAIT_MS;
        if (fabric_link_poll(bare->there.link, done, DONE_MAX, wait_ms) < 0) break;
    }
    end_close(&bare->there);
    return NULL;
}

/* STATUS_UNSUPPORTED, with the reason, where libfabric cannot do it. */
static enum status bare_open(struct bare *bare, uint8_t *here, uint8_t *there, struct errmsg *err)
{
    bare->memory = there;
    enum status status = end_open(&bare->here, here, bare->size, FABRIC_LOCAL, err);
    if (status != STATUS_OK) {
        end_close(&bare->here);
        return status;
    }
    const int error = pthread_create(&bare->thread, NULL, bare_main, bare);
    ASSERT(error == 0);
    while (atomic_load(&bare->state) == 0)
        env_real_sleep_ns(ENV_NS_PER_MS);
    status =
        atomic_load(&bare->state) == 1
            ? fabric_link_connect(bare->here.link, bare->there.address, bare->there.address_len)
            : errmsg_set(err, STATUS_UNAVAILABLE, "%s", bare->err.text);
    if (status == STATUS_OK) return STATUS_OK;
    atomic_store(&bare->stop, true);
    pthread_join(bare->thread, NULL);
    end_close(&bare->here);
    return status;
}

static void bare_close(struct bare *bare)
{
    atomic_store(&bare->stop, true);
    pthread_join(bare->thread, NULL);
    end_close(&bare->here);
}

static enum status bare_post(struct rows *rows)
{
    const struct end *there = &rows->bare.there;
    const uint64_t base = fabric_memory_base(there->memory);
    const struct fabric_request request = {
        .op = rows->kind->opcode == READ ? FABRIC_READ : FABRIC_WRITE,
        .local = rows->here + rows->at,
        .length = rows->kind->size,
        .memory = rows->bare.here.memory,
        .remote = base + rows->at,
        .key = fabric_memory_key(there->memory),
        .ctx = rows,
    };
    const enum status status = fabric_post(rows->bare.here.link, &request);

    if (status == STATUS_OK) rows->at = (rows->at + rows->kind->size) % rows->size;
    return status;
}

static enum status bare_run(struct rows *rows, uint64_t *ns)
{
    const uint64_t start_ns = env_now_ns(rows->env);
    struct fabric_done done[DONE_MAX];
    uint64_t posted = 0, ended = 0;

    while (ended < rows->count) {
        enum status status = STATUS_OK;
        while (posted < rows->count && posted - ended < rows->kind->depth) {
            status = bare_post(rows);
            if (status != STATUS_OK) break;
            posted++;
        }
        if (status != STATUS_OK && status != STATUS_AGAIN) return STATUS_IO;
        /* While it connects there is nothing yet to wait for. */
        const bool wait = !rows->kind->polling && status == STATUS_OK;
        const int n = fabric_link_poll(rows->bare.here.link, done, DONE_MAX, wait ? WAIT_MS : 0);
        for (int i = 0; i < n; i++) {
            if (done[i].status != STATUS_OK) return STATUS_IO;
        }
        if (n < 0 || env_now_ns(rows->env) - start_ns > LIMIT_NS) return STATUS_IO;
        ended += (uint64_t)n;
    }
    *ns = env_now_ns(rows->env) - start_ns;
    return STATUS_OK;
}

/* ---- rows ---- */

static double value_of(const struct rows *rows, uint64_t ns)
{
    const struct kind *kind = rows->kind;

    if (kind->depth == 1) return (double)ns / 1e3 / (double)rows->count;
    return (double)rows->count * kind->size / (double)ns;
}

static enum status pair(void *ctx, double *value, double *baseline)
{
    struct rows *rows = ctx;
    const bool polling = rows->kind->polling;
    uint64_t ns;

    atomic_store(&rows->target.polling, polling);
    if (polling) bench_target_wake(&rows->target);
    enum status status = bench_move(&rows->mover, rows->count, &ns);
    atomic_store(&rows->target.polling, false);
    if (status != STATUS_OK) return status;
    *value = value_of(rows, ns);
    atomic_store(&rows->bare.polling, polling);
    status = bare_run(rows, &ns);
    atomic_store(&rows->bare.polling, false);
    if (status == STATUS_OK) *baseline = value_of(rows, ns);
    return status;
}

static struct transfer_bench_row row_of(const struct kind *kind)
{
    return (struct transfer_bench_row){ .name = kind->name,
                                        .unit = kind->depth == 1 ? "us" : "GB/s",
                                        .yardstick = "libfabric tcp",
                                        .target = kind->fabric ? 0.9 : 1.0,
                                        .at_most = kind->depth == 1 };
}

static uint64_t count_for(const struct transfer_bench *bench, const struct kind *kind)
{
    const uint64_t max = kind->depth == 1 ? OPS_ALONE_MAX : OPS_MAX;
    uint64_t count = BENCH_MEMORY_SIZE / kind->size;

    if (count > max) count = max;
    if (bench->quick) count = count / 32 > kind->depth ? count / 32 : kind->depth;
    return count;
}

/* One round trip after another: the two ends, of ours and of libfabric's, have cores of their own
 * (env_bare.h). */
static void pin(const struct rows *rows, bool alone)
{
    const enum env_bare_place there = alone ? ENV_BARE_SECOND : ENV_BARE_ANYWHERE;

    env_bare_pin(pthread_self(), alone ? ENV_BARE_FIRST : ENV_BARE_ANYWHERE);
    env_bare_pin(rows->target.thread, there);
    env_bare_pin(rows->bare.thread, there);
}

static enum status row(struct rows *rows, const struct kind *kind, struct errmsg *err)
{
    const struct transfer_bench_row out = row_of(kind);

    rows->kind = kind;
    rows->at = 0; /* or a message of this size might go beyond the end */
    rows->count = count_for(rows->bench, kind);
    rows->mover = (struct bench_mover){ .env = rows->env,
                                        .protocol = kind->fabric ? protocol : NULL,
                                        .opcode = kind->opcode,
                                        .size = kind->size,
                                        .depth = kind->depth,
                                        .polling = kind->polling };
    enum status status = bench_mover_open(&rows->mover, &rows->target, false, kind->streams,
                                          rows->here, rows->size, err);
    pin(rows, kind->depth == 1);
    if (status == STATUS_OK) status = bench_row(rows->bench, &out, pair, rows, err);
    pin(rows, false);
    yolk_transfer_destroy(rows->mover.transfer);
    return status;
}

static enum status all(struct rows *rows, struct errmsg *err)
{
    struct errmsg why = { "" };
    char name[ENV_SHARE_NAME_SIZE];
    struct env_map memory = { 0 }; /* libfabric's target has its own, made like the engine's */
    enum status status = env_real_create(NULL, &rows->env, err);

    if (status != STATUS_OK) return status;
    status = env_map_create(rows->env, rows->size, &memory, name, err);
    if (status == STATUS_OK) memset(memory.data, 3, rows->size);
    rows->bare.size = rows->size;
    const bool there =
        status == STATUS_OK && bare_open(&rows->bare, rows->here, memory.data, &why) == STATUS_OK;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && status == STATUS_OK; i++) {
        const struct transfer_bench_row out = row_of(&kinds[i]);
        if (!bench_wants(rows->bench, kinds[i].name)) continue;
        if (there) {
            status = row(rows, &kinds[i], err);
        } else {
            bench_skip(rows->bench, &out, why.text);
        }
    }
    if (there) bare_close(&rows->bare);
    env_map_close(&memory);
    env_real_destroy(rows->env);
    return status;
}

static bool wants_any(const struct transfer_bench *bench)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (bench_wants(bench, kinds[i].name)) return true;
    }
    return false;
}

enum status bench_fabric(struct transfer_bench *bench, struct errmsg *err)
{
    const size_t size = bench->quick ? BENCH_MEMORY_QUICK : BENCH_MEMORY_SIZE;
    struct rows rows = { .bench = bench, .size = size, .target = { .memory_size = size } };

    if (!wants_any(bench)) return STATUS_OK;
    rows.here = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (rows.here == MAP_FAILED) return errmsg_set(err, STATUS_NO_MEMORY, "bench: no memory");
    memset(rows.here, 2, size);
    rows.target.options.forbid_shm = true;
    struct fabric *fabric; /* a target that has a fabric serves tcp, too */
    if (fabric_open(provider, NULL, &fabric, NULL) == STATUS_OK) {
        rows.target.options.protocol = protocol;
        fabric_close(fabric);
    }
    enum status status = bench_target_open(&rows.target, err);
    if (status == STATUS_OK) {
        status = all(&rows, err);
        bench_target_close(&rows.target);
    }
    munmap(rows.here, size);
    return status;
}
