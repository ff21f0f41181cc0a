/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/plan_sim.h - the oracle of plan.h that simulates: does a cluster keep the limits on a trace?
 *
 * A cluster of the grid is the base cluster (its hardware, placement, limits and replay) with
 * nodes, pool and network replaced. GB of DRAM and SSD become tokens by the hardware's bytes of KV
 * a token; Gbit/s are of each node, each way.
 *
 * Threads: those of farm_run(). */
#ifndef SIM_PLAN_SIM_H
#define SIM_PLAN_SIM_H

#include <stdint.h>

#include "base/status.h"
#include "sim/plan.h"
#include "sim/sim.h"

struct plan_sim {
    const struct plan_space *space;
    const struct trace *trace;
    struct sim_cluster base; /* of the system mooncake */
    double good;             /* the share of requests that must be within both limits */
    uint32_t threads;        /* as farm_run() */
};

struct sim_cluster plan_sim_cluster(const struct plan_sim *plan, const struct plan_config *config);

/* plan_oracle.ask of a struct plan_sim. */
MUST_USE enum status plan_sim_ask(void *ctx, const struct plan_config *configs, uint32_t count,
                                  struct plan_score *out, struct errmsg *err);

/* The fewest prefill nodes and decode nodes that could do the work at all, however it is placed:
 *   prefill  the requests that are cheapest to prefill, as many as must be good, with every block
 *            reused that the trace has twice, between the first arrival and the last deadline
 *   decode   the fewest tokens of as many answers, made at the rate at which a step takes as long
 *            as the limit allows: no other mix of steps makes more within it
 * STATUS_NO_MEMORY. */
MUST_USE enum status plan_sim_floors(const struct plan_sim *plan, double floors[2]);

#endif
