/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/study.h - a run and what belongs beside it: the same trace on other systems, on pools of
 * other sizes, and on other splits of the nodes.
 *
 *   systems   the cluster as asked for first, then the other systems on as many nodes, with their
 *             usual placement, without refusals, failures and changes of role
 *   lru       an exact LRU over one pool, by its capacity: what placement cannot beat
 *   pools     the cluster with its pool made smaller and larger (mooncake only); DRAM and SSD keep
 *             their proportion
 *   splits    as many nodes, split in every way, at STUDY_LOADS loads (mooncake only); failures of
 *             named nodes are left out
 *
 * Memory:  the study owns all of it; the trace is borrowed.
 * Threads: those of farm_run().
 * Limits:  STUDY_SYSTEMS, STUDY_POOLS_MAX, STUDY_SPLITS_MAX. */
#ifndef SIM_STUDY_H
#define SIM_STUDY_H

#include <stdint.h>

#include "base/status.h"
#include "sim/farm.h"

struct buf;

enum { STUDY_SYSTEMS = 4, STUDY_LOADS = 3, STUDY_POOLS_MAX = 24, STUDY_SPLITS_MAX = 16 };

/* The trace's load is multiplied by these; the load as it is stands at STUDY_LOAD_AS_IS. */
enum { STUDY_LOAD_AS_IS = 1 };
extern const double study_loads[STUDY_LOADS];

struct study_run {
    double at; /* tokens of the pools together; prefill nodes */
    struct sim_cluster cluster;
    struct sim_summary summary;
};

struct study_lru {
    double capacity_tokens, token_hit, block_hit;
};

struct study {
    const struct trace *trace;
    struct trace_stat stat;
    uint32_t systems_count;
    struct sim_result *systems[STUDY_SYSTEMS];
    struct sim_summary summaries[STUDY_SYSTEMS];
    uint32_t lru_count;
    struct study_lru lru[STUDY_POOLS_MAX];
    uint32_t pools_count;
    struct study_run pools[STUDY_POOLS_MAX];
    uint32_t splits_count;
    struct study_run splits[STUDY_LOADS][STUDY_SPLITS_MAX];
};

/* As farm_run(). */
MUST_USE enum status study_run(const struct sim_cluster *cluster, const struct trace *trace,
                               uint32_t threads, struct farm_progress progress, struct study **out,
                               struct errmsg *err);
void study_destroy(struct study *study); /* NULL is allowed */

double study_nodes(const struct sim_cluster *cluster);

/* One JSON object with every number of the study. */
MUST_USE enum status study_write_json(const struct study *study, struct buf *out);

#endif
