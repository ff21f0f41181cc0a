/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench_int.h - what the files of the bench share.
 *
 *   bench.c           rows and their statistics
 *   bench_paths.c     one host: tcp, shm, threads
 *   bench_fabric.c    one host: tcp beside libfabric's
 *   bench_file.c      one host: files, beside fio and beside bare io_uring
 *   bench_cuda.c      one host: memory of devices
 *   bench_register.c  registering memory
 *   bench_rails.c     two network namespaces: rails, classes
 *   bench_hosts.c     two hosts */
#ifndef TRANSFER_BENCH_INT_H
#define TRANSFER_BENCH_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/env.h"
#include "transfer/bench.h"
#include "yolk/transfer.h"

enum { BENCH_MEMORY_SIZE = 256 << 20, BENCH_MEMORY_QUICK = 32 << 20 };

/* ---- rows (bench.c) ---- */

/* No rows yet, and how many pairs. STATUS_INVALID for too many. */
MUST_USE enum status bench_begin(struct transfer_bench *bench);
bool bench_wants(const struct transfer_bench *bench, const char *name);

/* Called for pair after pair: fills what the engine did and, where there is one, the yardstick. */
typedef enum status (*bench_pair_fn)(void *ctx, double *value, double *baseline);

/* Measures a row, after one pair that does not count (none when quick), and adds it. `row` gives
 * name, unit, yardstick, target and at_most. */
MUST_USE enum status bench_row(struct transfer_bench *bench, const struct transfer_bench_row *row,
                               bench_pair_fn pair, void *ctx, struct errmsg *err);

void bench_skip(struct transfer_bench *bench, const struct transfer_bench_row *row,
                const char *reason);

/* ---- a thread with an engine that others use (bench.c) ---- */

struct bench_target {
    pthread_t thread;
    _Atomic int state; /* 0: starting, 1: running, 2: failed; written by the thread, read by us */
    _Atomic bool polling, stop;
    _Atomic bool let_go; /* whoever stops it is done with its env */
    enum status status;
    struct errmsg err;
    const struct env_netns *netns; /* side 1 of it; NULL: here */
    struct yolk_transfer_options options;
    size_t memory_size;
    void *user; /* as much memory again, which it registers; NULL: none */
    struct env *env;
    struct yolk_transfer *transfer;
    uint8_t *memory;
};

MUST_USE enum status bench_target_open(struct bench_target *target, struct errmsg *err);
/* It looks at `polling` and `stop` again. */
void bench_target_wake(struct bench_target *target);
void bench_target_close(struct bench_target *target);

/* ---- moving (bench.c) ---- */

struct bench_mover {
    struct env *env;
    struct yolk_transfer *transfer;
    struct yolk_transfer_segment segment;
    const char *protocol; /* NULL: tcp */
    uint8_t *here, *there;
    size_t memory_size;
    size_t here_size; /* of it `here` is walked through, again and again; 0: all */
    uint64_t at;      /* in the walk */
    enum yolk_transfer_opcode opcode;
    enum yolk_transfer_class class;
    uint32_t size, depth;
    bool polling;
    bool encrypt;             /* looked at when it is opened; the target has a secret */
    uint64_t left, under_way; /* messages */
    bool failed;
    struct yolk_transfer_batch batch;
};

/* Its engine, over memory `here` that is there already, and the target's segment. `env` is set, and
 * what it is to go over. */
MUST_USE enum status bench_mover_open(struct bench_mover *mover, const struct bench_target *target,
                                      bool shm, uint32_t lanes, uint8_t *here, size_t size,
                                      struct errmsg *err);

/* The same to an engine by its name, NULL for itself: `env` is set, and `there`, if it is not. */
MUST_USE enum status bench_mover_join(struct bench_mover *mover,
                                      const struct yolk_transfer_options *options, const char *name,
                                      uint8_t *here, size_t size, struct errmsg *err);

/* Moves `count` messages, `depth` at a time. STATUS_IO if one did not complete. */
MUST_USE enum status bench_move(struct bench_mover *mover, uint64_t count, uint64_t *ns);

/* ---- another process or host that lends memory (bench_hosts.c) ---- */

struct bench_lent {
    char name[YOLK_TRANSFER_NAME_SIZE]; /* of the engine there */
    uint64_t host, device;              /* memory there; device: 0 if it has none */
    uint64_t size;                      /* of each */
};

/* STATUS_UNAVAILABLE if nobody is there, STATUS_PROTOCOL if that is something else. Blocks. */
MUST_USE enum status bench_lent_ask(const char *address, struct bench_lent *out,
                                    struct errmsg *err);

/* ---- the rows of each file ---- */

MUST_USE enum status bench_paths(struct transfer_bench *bench, struct errmsg *err);
MUST_USE enum status bench_fabric(struct transfer_bench *bench, struct errmsg *err);
MUST_USE enum status bench_file(struct transfer_bench *bench, struct errmsg *err);
MUST_USE enum status bench_cuda(struct transfer_bench *bench, struct errmsg *err);
MUST_USE enum status bench_register(struct transfer_bench *bench, struct errmsg *err);
MUST_USE enum status bench_rails(struct transfer_bench *bench, struct errmsg *err);

#endif
