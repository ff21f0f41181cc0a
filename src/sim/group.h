/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/group.h - one prompt on several prefill nodes at once: a chunked-pipeline group.
 *
 * The conductor names the nodes; the first is the leader, whose cache and queue it is as without a
 * group. The request stands in the queues of all. A node whose turn it is waits for its stage, and
 * a stage can be planned once the stage before it is: the recurrence of conductor/pipeline.h then
 * says when each chunk passes. Layers of a reused prefix come from the leader before a stage
 * begins; layers of the new blocks go to the leader when a stage is done, or while it computes
 * (layerwise), and the blocks are in the pool when all have come. The group is gone then.
 *
 *     (created) -- turns of all nodes, stage by stage --> computed -- gathered --> (gone)
 *
 * Nobody waits in a circle: groups enter all their queues at one time, so any two groups stand in
 * the same order everywhere.
 *
 * What passes between stages is timed as if it had the link alone, and is no traffic: it is a
 * twentieth of the KV.
 *
 * Memory:  one allocation a group. Threads: one. */
#ifndef SIM_GROUP_H
#define SIM_GROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/sim_int.h"

/* For a request that is placed; nodes[0] leads. `stages` >= 2. STATUS_NO_MEMORY. */
MUST_USE enum status group_create(struct sim *sim, uint32_t who, const uint32_t *nodes,
                                  uint32_t stages);
/* Forgets a group, wherever it is. */
void group_destroy(struct sim *sim, uint32_t who);

/* Is the node one of its stages? */
bool group_has(const struct group *group, uint32_t node);

/* It is the request's turn at this node, which has taken it. */
void group_turn(struct sim *sim, uint32_t who, uint32_t node);

/* A stage's event. True when it was the last: the prefill is done. */
bool group_stage_done(struct sim *sim, uint32_t who, uint32_t node);

/* Ends of flows. */
void group_shared(struct sim *sim, uint32_t who, uint32_t stage);
void group_gathered(struct sim *sim, uint32_t who, uint32_t stage);

#endif
