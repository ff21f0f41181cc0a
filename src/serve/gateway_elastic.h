/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_elastic.h - the live side of elasticity: the Conductor says that a node should
 * change its role (yolk/conductor.h), and here it does.
 *
 *                 the Conductor proposes              nothing left there          the node agrees
 *     (steady) --------------------------> DRAINING -----------------> TELLING -----------------+
 *        ^                                  |    | longer than drain_ms: hand over what is left  |
 *        +-- the node is gone, refuses, ----+----+--- or is needed where it was -----------------+
 *
 * While a node drains nobody is placed there, and what it has goes on. What it still has after
 * drain_ms is handed over: placed again with all that has been generated, on other nodes, which
 * fetch its blocks from the one that drains. The streams go on and say what they would have said.
 *
 * One gateway of a cluster should do this. The others see the change in what the node says of
 * itself, and follow.
 *
 * Threads: the env's loop thread.
 * Limits:  ELASTIC_FLIPS_MAX nodes change at once. */
#ifndef SERVE_GATEWAY_ELASTIC_H
#define SERVE_GATEWAY_ELASTIC_H

#include <stdint.h>

#include "base/status.h"
#include "serve/gateway_cluster.h"

struct elastic; /* opaque */
struct env;
struct gateway_metrics;

enum { ELASTIC_FLIPS_MAX = 32 };

struct elastic_options {
    struct env *env;
    struct cluster *cluster;
    struct gateway_metrics *metrics;
    double window_ms, drain_ms; /* as the Conductor has been told */
    /* What waits for a place. */
    void (*outside)(void *ctx, struct yolk_outside *out);
    /* Places again whatever this node still has; how many those were. */
    uint32_t (*hand_over)(void *ctx, struct cluster_ref node);
    /* A node has changed: there may be room. */
    void (*on_change)(void *ctx);
    void *ctx;
};

/* STATUS_NO_MEMORY. */
MUST_USE enum status elastic_create(const struct elastic_options *options, struct elastic **out);
/* No more looks; before the cluster is destroyed, which ends the calls under way. NULL is allowed.
 */
void elastic_stop(struct elastic *elastic);
/* After the cluster. NULL is allowed. */
void elastic_destroy(struct elastic *elastic);

#endif
