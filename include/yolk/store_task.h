/* SPDX-License-Identifier: Apache-2.0
 *
 * yolk/store_task.h - values of the pool are copied or moved to nodes that the caller names
 * (yolk/store.h has the pool, and a number of replicas wherever there is room).
 *
 * A task is made at the master and worked off by the node that has the value, while readers read it
 * as ever: of a move, too, there is no moment in which it could not be read, and a value that was
 * acknowledged survives whoever dies in the middle, but for its only owner. Whoever made the task
 * asks how far it is. Tasks are the master's own: after a restart it knows none of them
 * (STATUS_NOT_FOUND), and the value is where it was, at its target, or at both.
 *
 * Mooncake's create_copy_task, create_move_task and query_task: states have its numbers, and for a
 * key that is not there, a node that is not there, or a target that is the source, statuses are
 * those of its codes -704 and -600 (STATUS_NOT_FOUND, STATUS_INVALID).
 *
 * Threads: the env's loop thread.
 * Limits:  one task a value; 10,000 under way; those that have ended are known for 10 minutes, the
 *          last 10,000. A task fails after 5 minutes. */
#ifndef YOLK_STORE_TASK_H
#define YOLK_STORE_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "yolk/store.h"

enum yolk_store_task_state {
    YOLK_STORE_TASK_PENDING = 0,    /* nothing has been copied yet */
    YOLK_STORE_TASK_PROCESSING = 1, /* some is, or the source of a move has not let go yet */
    YOLK_STORE_TASK_FAILED = 2,
    YOLK_STORE_TASK_SUCCESS = 3,
};

struct yolk_store_task_id {
    uint64_t term; /* of the master */
    uint64_t number;
};

struct yolk_store_task {
    struct yolk_store_task_id id;
    bool move;
    enum yolk_store_task_state state;
    enum status status; /* FAILED: why: NOT_FOUND (removed or lost), STALE (replaced), FULL (no room
                           at the target), QUOTA, UNAVAILABLE (the target is gone, or lends
                           nothing), TIMEOUT, or what the last try came to */
    uint32_t targets;
    uint32_t done;   /* targets that have the value */
    uint64_t size;   /* bytes of the value */
    uint64_t age_ms; /* since it was made; of one that has ended: how long it took */
};

/* `task` is NULL unless the status is STATUS_OK; `message` says why for people, or is "". */
typedef void (*yolk_store_task_fn)(void *ctx, enum status status,
                                   const struct yolk_store_task *task, const char *message);

/* The value of the key is copied to each of the nodes that are named and have it not; where that
 * makes more replicas than it should have, it should have so many from now on
 * (yolk_store_replicas()). The callback comes when the task is made: STATUS_NOT_FOUND, STATUS_AGAIN
 * (not yet known), STATUS_BUSY (being written, or there is a task), STATUS_INVALID (no such node,
 * or one twice), STATUS_DENIED (a block of KVCache), STATUS_FULL (too many tasks). Fails at once
 * with STATUS_INVALID (a key or name out of range, no target or more than YOLK_STORE_REPLICAS_MAX)
 * or STATUS_FULL; otherwise the callback comes exactly once. `timeout_ms` of the question, not of
 * the task; 0: the store's. */
MUST_USE enum status yolk_store_copy(struct yolk_store *store, const struct yolk_store_key *key,
                                     const char *const *targets, uint32_t targets_count,
                                     uint32_t timeout_ms, yolk_store_task_fn on_task, void *ctx);

/* Likewise, and then the source lets go of it. `source` NULL: the only node that has it.
 * STATUS_INVALID: also if that has it not, or is the target; STATUS_EXISTS: the target has it. */
MUST_USE enum status yolk_store_move(struct yolk_store *store, const struct yolk_store_key *key,
                                     const char *source, const char *target, uint32_t timeout_ms,
                                     yolk_store_task_fn on_task, void *ctx);

/* How far it is. STATUS_NOT_FOUND: another master's, or ended long ago. */
MUST_USE enum status yolk_store_task(struct yolk_store *store, struct yolk_store_task_id id,
                                     uint32_t timeout_ms, yolk_store_task_fn on_task, void *ctx);

#endif
