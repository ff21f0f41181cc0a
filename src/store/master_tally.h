/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_tally.h - how many requests the master has answered, by kind, and how: the counters
 * that Mooncake's master has under these names.
 *
 * One place counts a request: the one that answers it. A request about keys names any number of
 * them on our wire, where Mooncake has a call for one and a call for many, so:
 *
 *   one key      requests and failures of the operation
 *   more keys    requests of its batch form, with the keys as items. All of them failed: a failure;
 *                some: a partial success
 *
 * What Mooncake has no batch form of counts each of its keys as a request. Failed is what was not
 * done or not answered: also a request that cannot be read (master.look's apart, which may have
 * been for anything), and one that is told to ask again. That a key does not exist is an answer to
 * "exists", and a failure of all else. An end of a put that waits for the old value to go is left
 * out of its batch: its owner asks about it alone, and that counts when it is answered.
 *
 * Cost: some additions a request, and a pass over the codes of a batch, which lie in the cache.
 * Threads: the env's loop thread. Counters begin at 0 with the master and never wrap. */
#ifndef STORE_MASTER_TALLY_H
#define STORE_MASTER_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* The ones with a batch form come first. */
enum master_op {
    MASTER_OP_EXIST_KEY,
    MASTER_OP_GET_REPLICA_LIST,
    MASTER_OP_PUT_START,
    MASTER_OP_PUT_END,
    MASTER_OP_PUT_REVOKE,
    MASTER_OP_REPLICA_CLEAR,
    MASTER_OP_GET_REPLICA_LIST_BY_REGEX, /* lists and counts by pattern, however many pages */
    MASTER_OP_REMOVE,
    MASTER_OP_REMOVE_BY_REGEX,
    MASTER_OP_REMOVE_ALL,
    MASTER_OP_MOUNT_SEGMENT,   /* a node registers */
    MASTER_OP_REMOUNT_SEGMENT, /* likewise, after it was with an earlier master */
    MASTER_OP_UNMOUNT_SEGMENT, /* a node leaves */
    MASTER_OP_PING,
    MASTER_OP_COPY_START,       /* a node was asked to copy a value to another */
    MASTER_OP_COPY_END,         /* it has */
    MASTER_OP_COPY_REVOKE,      /* it has not */
    MASTER_OP_CREATE_COPY_TASK, /* copies to nodes, or another number of replicas, were asked for */
    MASTER_OP_MOVE_START,       /* as COPY_START, for a move; */
    MASTER_OP_MOVE_END,         /* its target has it */
    MASTER_OP_MOVE_REVOKE,
    MASTER_OP_CREATE_MOVE_TASK,
    MASTER_OP_QUERY_TASK,
};

enum {
    MASTER_BATCH_OPS = MASTER_OP_REPLICA_CLEAR + 1,
    MASTER_OPS = MASTER_OP_QUERY_TASK + 1,
};

struct master_op_counts {
    uint64_t requests;
    uint64_t failures;
};

struct master_batch_counts {
    uint64_t requests;
    uint64_t failures;
    uint64_t partial_successes;
    uint64_t items;
    uint64_t failed_items;
};

struct master_tally { /* all zero at first */
    struct master_op_counts one[MASTER_OPS];
    struct master_batch_counts batch[MASTER_BATCH_OPS];
};

/* Lower case, as in the names of the metrics. */
const char *master_op_name(enum master_op op);

/* A request was answered so. */
void master_tally_one(struct master_tally *tally, enum master_op op, enum status status);

/* One about `count` > 0 keys, with one code (store_status_code()) for each. */
void master_tally_codes(struct master_tally *tally, enum master_op op, const uint32_t *codes,
                        uint32_t count);

/* A page of a request that comes page by page: the first one counts as the request. */
void master_tally_page(struct master_tally *tally, enum master_op op, bool first,
                       enum status status);

#endif
