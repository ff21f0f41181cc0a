/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/elastic.h - nodes that change between prefill and decode, as the conductor proposes.
 *
 * A node that drains finishes what it decodes, however long that takes: handing sequences over to
 * another node, as the live gateway does past a bound, is not modelled. Requests that have not
 * prefilled yet go to another decode node. It keeps its blocks, which
 * others may fetch, and goes on with them if it prefills again.
 *
 * A node that stops while it drains keeps its role; it comes back in the role it had, or in the one
 * it began with if the conductor has forgotten it. While no node of a role is up, requests wait
 * until one has come back or has changed to it.
 *
 * Threads: none. Memory: a value. */
#ifndef SIM_ELASTIC_H
#define SIM_ELASTIC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "sim/cluster.h"
#include "yolk/conductor.h"

struct elastic_nodes {
    uint32_t prefill, decode; /* working in this role, not draining */
    uint32_t draining;
};

/* Sets the conductor's options from the cluster's. STATUS_INVALID. */
MUST_USE enum status elastic_set(struct yolk_conductor *conductor,
                                 const struct sim_cluster *cluster, struct errmsg *err);

/* How often to look. */
double elastic_look_s(const struct sim_cluster *cluster);

/* Looks, and ends the drains that are over of the `count` instances that are up. True: there may be
 * room that was not there before. */
bool elastic_look(struct yolk_conductor *conductor, const struct yolk_instance_id *up,
                  uint32_t count, const struct yolk_outside *outside, double now_ms);

/* Of those that are up. */
struct elastic_nodes elastic_count(const struct yolk_conductor *conductor,
                                   const struct yolk_instance_id *up, uint32_t count);

#endif
