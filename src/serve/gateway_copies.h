/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_copies.h - the live side of replication by heat: the Conductor says which prefix
 * should have one more holder and which copy has gone cold (yolk/conductor.h); here nodes are told.
 *
 *              a placement shows it hot          the node answers             cold
 *     (free) ------------------------> COPYING ------------------> HELD --------------> DROPPING
 *        ^                               | refused, failed, gone                            |
 *        +-------------------------------+--------------------------------------------------+
 *
 * A node copies in the background, behind all other transfers, and everybody hears of it by the
 * node's events. Removed is only what came by the copy and another node has too. A node that goes
 * away takes its copies with it.
 *
 * One gateway of a cluster should do this: each counts the heat of its own requests.
 *
 * Threads: the env's loop thread.
 * Limits:  YOLK_COPIES_MAX copies; a prefix of COPIES_BLOCKS_MAX blocks, or its beginning. */
#ifndef SERVE_GATEWAY_COPIES_H
#define SERVE_GATEWAY_COPIES_H

#include <stdint.h>

#include "base/status.h"
#include "serve/gateway_cluster.h"

struct copies; /* opaque */
struct env;
struct gateway_metrics;

enum { COPIES_BLOCKS_MAX = 8192 };

struct copies_options {
    struct env *env;
    struct cluster *cluster;
    struct gateway_metrics *metrics;
};

/* STATUS_NO_MEMORY. */
MUST_USE enum status copies_create(const struct copies_options *options, struct copies **out);
/* No more calls; before the cluster is destroyed, which ends those under way. NULL is allowed. */
void copies_stop(struct copies *copies);
/* After the cluster. NULL is allowed. */
void copies_destroy(struct copies *copies);

/* A request with these keys has just been placed. NULL is allowed: nothing is copied. */
void copies_placed(struct copies *copies, const struct block_key *keys, uint32_t keys_count);

#endif
