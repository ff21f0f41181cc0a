/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/farm.h - many simulations of one trace, on several threads.
 *
 * Why: a sweep (pool sizes, splits, a search) is dozens of runs that know nothing of each other.
 * How: the jobs are taken in order; a worker thread runs one at a time; the caller sleeps until
 * something is to be told, so `progress` is called on its own thread only. Since each run depends
 * on its cluster and the trace alone, what comes out does not depend on the number of threads.
 *
 * Memory:  every running job has a simulation's; what is kept belongs to the caller.
 * Threads: farm_run() starts and joins its own. The trace is shared and not changed.
 * Limits:  FARM_THREADS_MAX. */
#ifndef SIM_FARM_H
#define SIM_FARM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "sim/sim.h"

enum { FARM_THREADS_MAX = 256 };

struct farm_job {
    struct sim_cluster cluster;
    bool keep;                  /* `result` is wanted, not only the summary */
    struct sim_result *result;  /* out: the caller's, if kept */
    struct sim_summary summary; /* out */
};

struct farm_progress {
    /* `done` of `count` jobs, those that run counted by the share of their requests; NULL: none */
    void (*fn)(void *ctx, double done, uint32_t count);
    void *ctx;
};

/* Threads: 0 is one a CPU that this process may use. On failure err has the words of the first job
 * that failed, and nothing is kept: STATUS_INVALID, STATUS_NO_MEMORY. */
MUST_USE enum status farm_run(const struct trace *trace, struct farm_job *jobs, uint32_t count,
                              uint32_t threads, struct farm_progress progress, struct errmsg *err);

#endif
