/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_task.h - tasks: a value is copied, or moved, to nodes that somebody names.
 *
 *             first copy begins, or a target has it      every target has it, and of a move the
 *   PENDING ------------------------------------> PROCESSING ----------> SUCCESS    source not
 *      |                                              |
 *      +----------------------------------------------+----------------> FAILED, with a status
 *
 * A task is about the value that is there when it is made. Its copies are those of
 * store/master_copy.c, one at a time, read from the source of a move while that is heard. The
 * source of a move is dropped when the target has committed, has told us so, and is heard: until
 * then, and while a reader has it, it is read as ever. So at every moment, whoever dies, the value
 * is at the source, at the target or at both. A copy raises the number of replicas that is wished
 * where it makes more of them than that; a move leaves it as it is.
 *
 * A task fails with
 *   STATUS_NOT_FOUND    the value was removed, or lost
 *   STATUS_STALE        it was replaced
 *   STATUS_FULL         the target has no room: nothing is evicted for a task
 *   STATUS_QUOTA        the tenant may not have one more
 *   STATUS_UNAVAILABLE  the target is gone, drains or lends nothing
 *   STATUS_TIMEOUT      task_ms have passed
 *   else                what the last copy came to, STORE_TASK_TRIES of them
 *
 * Tasks are the master's: the next one knows none of them, and what was copied stays.
 *
 * Memory:  some 150 bytes a task.
 * Threads: those of store/master.h.
 * Limits:  one task a value, STORE_TASKS_MAX under way, STORE_TASKS_KEPT that have ended, for
 *          STORE_TASK_KEPT_MS each. */
#ifndef STORE_MASTER_TASK_H
#define STORE_MASTER_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "store/master.h"
#include "yolk/store_task.h"

enum {
    STORE_TASKS_MAX = 10000,
    STORE_TASKS_KEPT = 10000,
    STORE_TASK_KEPT_MS = 600000,
    STORE_TASK_TRIES = 11, /* of one copy */
};

struct store_task_wish {
    bool move;
    const char *from;      /* move: node; "": the only one that has the value */
    uint32_t to_count;     /* 1..STORE_REPLICAS_MAX; of a move 1 */
    const char *const *to; /* nodes */
};

/* *why, for people, is set on failure. STATUS_NOT_FOUND, STATUS_AGAIN, STATUS_BUSY as for exist;
 * STATUS_BUSY, too: the value has a task. STATUS_INVALID: no such node, one twice, the source among
 * the targets, or no value at the source; or several have it and `from` names none. STATUS_EXISTS:
 * the target of a move has it. STATUS_DENIED: a block. STATUS_FULL: STORE_TASKS_MAX. A target of a
 * copy that has the value is done. */
MUST_USE enum status store_master_task_create(struct store_master *master, uint64_t now_ns,
                                              struct store_key key,
                                              const struct store_task_wish *wish,
                                              struct yolk_store_task *out, const char **why);

/* STATUS_NOT_FOUND: another master's, or ended long ago. */
MUST_USE enum status store_master_task(const struct store_master *master, uint64_t now_ns,
                                       struct yolk_store_task_id id, struct yolk_store_task *out);

#endif
