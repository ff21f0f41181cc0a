/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench_hosts.c - the bench between two hosts: one serves memory through an engine and
 * through a bare path, the other measures both, in turns.
 *
 * The server's address is that of the bare path; its word says where the engine is and what memory
 * it has: "NAME ADDRESS SIZE DEVICE", where DEVICE is the address of as much memory of cuda:0, or 0
 * (bench_cuda.c uses it). The network between is what is measured, so nothing else should be
 * on it; both go over as many connections as the row says. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env_bare.h"
#include "base/env_real.h"
#include "transfer/bench_int.h"
#include "transfer/cuda_driver.h"

enum { OPS_MAX = 16384, OPS_ALONE_MAX = 1024 };

struct kind {
    const char *name;
    enum yolk_transfer_opcode opcode;
    uint32_t size, depth, streams;
    bool at_most; /* latency, in microseconds; otherwise a rate */
    double target;
};

#define READ YOLK_TRANSFER_READ
#define WRITE YOLK_TRANSFER_WRITE

static const struct kind kinds[] = {
    { "host_write_4k_depth1", WRITE, 4096, 1, 1, true, 1.2 },
    { "host_read_4k_depth1", READ, 4096, 1, 1, true, 1.2 },
    { "host_write_4k_depth128", WRITE, 4096, 128, 2, false, 0.80 },
    { "host_read_4k_depth128", READ, 4096, 128, 2, false, 0.80 },
    { "host_write_64k_depth16", WRITE, 64 << 10, 16, 1, false, 0.90 },
    { "host_read_64k_depth16", READ, 64 << 10, 16, 1, false, 0.90 },
    { "host_write_1m_depth4", WRITE, 1 << 20, 4, 1, false, 0.95 },
    { "host_read_1m_depth4", READ, 1 << 20, 4, 1, false, 0.95 },
    { "host_write_1m_two_streams", WRITE, 1 << 20, 4, 2, false, 0.95 },
    { "host_read_1m_two_streams", READ, 1 << 20, 4, 2, false, 0.95 },
    { "host_write_4m_depth2", WRITE, 4 << 20, 2, 1, false, 0.95 },
    { "host_read_4m_depth2", READ, 4 << 20, 2, 1, false, 0.95 },
};

/* ---- the host that is measured against ---- */

struct transfer_bench_server {
    struct yolk_transfer *transfer;
    struct env_bare_server *bare;
    uint8_t *bare_memory;
    struct cuda_device *device; /* NULL: there is none */
    uint64_t device_memory;
};

void transfer_bench_server_close(struct transfer_bench_server *server)
{
    if (server == NULL) return;
    env_bare_server_close(server->bare);
    yolk_transfer_destroy(server->transfer);
    if (server->device_memory != 0) cuda_memory_free(server->device, server->device_memory);
    cuda_device_close(server->device);
    free(server->bare_memory);
    free(server);
}

/* Where there is a GPU, its memory, too. */
static void lend_device(struct transfer_bench_server *server)
{
    if (cuda_driver_load(NULL) != STATUS_OK) return;
    if (cuda_device_open(0, &server->device, NULL) != STATUS_OK) return;
    if (cuda_memory_alloc(server->device, BENCH_MEMORY_SIZE, &server->device_memory) != STATUS_OK) {
        server->device_memory = 0;
        return;
    }
    if (yolk_transfer_register(server->transfer, (void *)(uintptr_t)server->device_memory,
                               BENCH_MEMORY_SIZE, NULL, YOLK_TRANSFER_REMOTE_ALL) == STATUS_OK) {
        return;
    }
    cuda_memory_free(server->device, server->device_memory);
    server->device_memory = 0;
}

static enum status server_start(struct transfer_bench_server *server, struct env *env,
                                const char *address, const char *secret, struct errmsg *err)
{
    char listen[YOLK_TRANSFER_NAME_SIZE], word[ENV_BARE_WORD_SIZE];
    const char *colon = strrchr(address, ':');
    void *memory;

    if (colon == NULL || colon == address || colon - address > 100) {
        return errmsg_set(err, STATUS_INVALID, "`%.100s` is no HOST:PORT", address);
    }
    snprintf(listen, sizeof(listen), "%.*s:0", (int)(colon - address), address);
    const struct yolk_transfer_options options = { .listen = listen, .secret = secret };
    enum status status = yolk_transfer_create(env, &options, &server->transfer, err);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_alloc(server->transfer, BENCH_MEMORY_SIZE, YOLK_TRANSFER_REMOTE_ALL,
                                 &memory, err);
    if (status != STATUS_OK) return status;
    server->bare_memory = malloc(BENCH_MEMORY_SIZE);
    if (server->bare_memory == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "bench: no memory");
    memset(memory, 1, BENCH_MEMORY_SIZE);
    memset(server->bare_memory, 1, BENCH_MEMORY_SIZE);
    lend_device(server);
    snprintf(word, sizeof(word), "%s %" PRIxPTR " %d %" PRIx64,
             yolk_transfer_name(server->transfer), (uintptr_t)memory, BENCH_MEMORY_SIZE,
             server->device_memory);
    return env_bare_serve(address, server->bare_memory, BENCH_MEMORY_SIZE, word, &server->bare,
                          err);
}

enum status transfer_bench_serve(struct env *env, const char *address, const char *secret,
                                 struct transfer_bench_server **out, struct errmsg *err)
{
    struct transfer_bench_server *server = calloc(1, sizeof(*server));

    if (server == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "bench: no memory");
    const enum status status = server_start(server, env, address, secret, err);
    if (status != STATUS_OK) {
        transfer_bench_server_close(server);
        return status;
    }
    *out = server;
    return STATUS_OK;
}

/* ---- the host that measures ---- */

struct hosts {
    struct transfer_bench *bench;
    const char *address, *secret;
    struct bench_lent lent;
    size_t size;
    struct env *env;
    uint8_t *here;
    const struct kind *kind;
    struct bench_mover mover;
    struct env_bare *bare;
    uint64_t count;
};

static double value_of(const struct hosts *hosts, uint64_t ns)
{
    const double each = (double)ns / (double)hosts->count;
    return hosts->kind->at_most ? each / 1e3 : hosts->kind->size / each;
}

static enum status host_pair(void *ctx, double *value, double *baseline)
{
    struct hosts *hosts = ctx;
    uint64_t ns;

    enum status status = bench_move(&hosts->mover, hosts->count, &ns);
    if (status != STATUS_OK) return status;
    *value = value_of(hosts, ns);
    status = env_bare_run(hosts->bare, hosts->count, &ns);
    if (status == STATUS_OK) *baseline = value_of(hosts, ns);
    return status;
}

static uint64_t count_for(const struct hosts *hosts, const struct kind *kind)
{
    const uint64_t most = kind->depth == 1 ? OPS_ALONE_MAX : OPS_MAX;
    uint64_t count = hosts->size / kind->size;

    if (count > most) count = most;
    if (hosts->bench->quick) count = count / 32;
    if (count < kind->depth) count = kind->depth;
    return count / kind->streams * kind->streams;
}

static enum status engine_open(struct hosts *hosts, const struct kind *kind, struct errmsg *err)
{
    const struct yolk_transfer_options options = { .secret = hosts->secret,
                                                   .forbid_shm = true,
                                                   .lanes_per_peer = kind->streams };
    struct bench_mover *mover = &hosts->mover;

    *mover = (struct bench_mover){ .env = hosts->env,
                                   .there = (uint8_t *)(uintptr_t)hosts->lent.host,
                                   .opcode = kind->opcode,
                                   .size = kind->size,
                                   .depth = kind->depth };
    return bench_mover_join(mover, &options, hosts->lent.name, hosts->here, hosts->size, err);
}

static enum status host_row(struct hosts *hosts, const struct kind *kind, struct errmsg *err)
{
    const struct transfer_bench_row row = { .name = kind->name,
                                            .unit = kind->at_most ? "us" : "GB/s",
                                            .yardstick = "sockets",
                                            .target = kind->target,
                                            .at_most = kind->at_most };
    const struct env_bare_options bare = { .read = kind->opcode == READ,
                                           .streams = kind->streams,
                                           .depth = kind->depth,
                                           .size = kind->size,
                                           .here = hosts->here,
                                           .memory_size = hosts->size };

    hosts->kind = kind;
    hosts->count = count_for(hosts, kind);
    hosts->bare = NULL;
    enum status status = engine_open(hosts, kind, err);
    if (status == STATUS_OK) status = env_bare_connect(&bare, hosts->address, &hosts->bare, err);
    if (status == STATUS_OK) status = bench_row(hosts->bench, &row, host_pair, hosts, err);
    env_bare_close(hosts->bare);
    yolk_transfer_destroy(hosts->mover.transfer);
    return status;
}

enum status bench_lent_ask(const char *address, struct bench_lent *out, struct errmsg *err)
{
    char word[ENV_BARE_WORD_SIZE];
    struct bench_lent lent = { .device = 0 };

    const enum status status = env_bare_ask(address, word, err);
    if (status != STATUS_OK) return status;
    const int fields = sscanf(word, "%127s %" SCNx64 " %" SCNu64 " %" SCNx64, lent.name, &lent.host,
                              &lent.size, &lent.device);
    if (fields < 3 || lent.size < 64 << 20 || lent.size > BENCH_MEMORY_SIZE ||
        lent.size % (8 << 20) != 0) {
        return errmsg_set(err, STATUS_PROTOCOL, "%s: no bench of this version", address);
    }
    *out = lent;
    return STATUS_OK;
}

enum status transfer_bench_peer(struct transfer_bench *bench, const char *address,
                                const char *secret, struct errmsg *err)
{
    struct hosts hosts = { .bench = bench, .address = address, .secret = secret };
    enum status status = bench_begin(bench);

    if (status == STATUS_OK) status = bench_lent_ask(address, &hosts.lent, err);
    if (status != STATUS_OK) return status;
    hosts.size = (size_t)hosts.lent.size;
    hosts.here = malloc(hosts.size);
    if (hosts.here == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "bench: no memory");
    memset(hosts.here, 2, hosts.size);
    status = env_real_create(NULL, &hosts.env, err);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && status == STATUS_OK; i++) {
        if (bench_wants(bench, kinds[i].name)) status = host_row(&hosts, &kinds[i], err);
    }
    env_real_destroy(hosts.env);
    free(hosts.here);
    return status;
}
