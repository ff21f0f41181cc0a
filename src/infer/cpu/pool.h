/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/pool.h - compute threads that share the tasks of one loop at a time.
 *
 * Tasks are claimed one by one, so a thread that the system has put aside delays at most the task
 * it holds; the caller alone can finish everything. Which thread runs a task must not matter to its
 * result: that is the contract of the task function.
 *
 * Memory:  fixed at creation.
 * Threads: pool_run() belongs to one thread at a time; it works too. Idle threads spin for a few
 *          microseconds, because the next loop of a step usually follows at once, then sleep. */
#ifndef INFER_CPU_POOL_H
#define INFER_CPU_POOL_H

#include <stdint.h>

#include "base/status.h"

struct pool;

enum { POOL_THREADS_MAX = 256, POOL_TASKS_MAX = 65535 };

/* `thread` is 0..threads-1 and is held by one running task at a time: an index for scratch. */
typedef void (*pool_fn)(void *ctx, uint32_t task, uint32_t thread);

/* `threads` counts the caller: 1 starts none. */
MUST_USE enum status cpu_pool_create(uint32_t threads, struct pool **out);
void cpu_pool_destroy(struct pool *pool); /* NULL is allowed */

/* Runs fn(ctx, 0..tasks-1), in any order, on all threads; returns when all have returned. What they
 * wrote is visible to the caller, and to the tasks of the next pool_run(). */
void pool_run(struct pool *pool, pool_fn fn, void *ctx, uint32_t tasks);

uint32_t pool_threads(const struct pool *pool);

#endif
