/* SPDX-License-Identifier: Apache-2.0 */
#include "store/master_tally.h"

#include "base/assert.h"
#include "store/proto.h"

static const char *const names[MASTER_OPS] = {
    [MASTER_OP_EXIST_KEY] = "exist_key",
    [MASTER_OP_GET_REPLICA_LIST] = "get_replica_list",
    [MASTER_OP_PUT_START] = "put_start",
    [MASTER_OP_PUT_END] = "put_end",
    [MASTER_OP_PUT_REVOKE] = "put_revoke",
    [MASTER_OP_REPLICA_CLEAR] = "replica_clear",
    [MASTER_OP_GET_REPLICA_LIST_BY_REGEX] = "get_replica_list_by_regex",
    [MASTER_OP_REMOVE] = "remove",
    [MASTER_OP_REMOVE_BY_REGEX] = "remove_by_regex",
    [MASTER_OP_REMOVE_ALL] = "remove_all",
    [MASTER_OP_MOUNT_SEGMENT] = "mount_segment",
    [MASTER_OP_REMOUNT_SEGMENT] = "remount_segment",
    [MASTER_OP_UNMOUNT_SEGMENT] = "unmount_segment",
    [MASTER_OP_PING] = "ping",
    [MASTER_OP_COPY_START] = "copy_start",
    [MASTER_OP_COPY_END] = "copy_end",
    [MASTER_OP_COPY_REVOKE] = "copy_revoke",
    [MASTER_OP_CREATE_COPY_TASK] = "create_copy_task",
    [MASTER_OP_MOVE_START] = "move_start",
    [MASTER_OP_MOVE_END] = "move_end",
    [MASTER_OP_MOVE_REVOKE] = "move_revoke",
    [MASTER_OP_CREATE_MOVE_TASK] = "create_move_task",
    [MASTER_OP_QUERY_TASK] = "query_task",
};

const char *master_op_name(enum master_op op)
{
    ASSERT((unsigned)op < MASTER_OPS);
    return names[op];
}

static void tally_add(struct master_tally *tally, enum master_op op, uint64_t requests,
                      uint64_t failures)
{
    ASSERT((unsigned)op < MASTER_OPS);
    tally->one[op].requests += requests;
    tally->one[op].failures += failures;
}

void master_tally_one(struct master_tally *tally, enum master_op op, enum status status)
{
    tally_add(tally, op, 1, status != STATUS_OK);
}

void master_tally_page(struct master_tally *tally, enum master_op op, bool first,
                       enum status status)
{
    tally_add(tally, op, first, status != STATUS_OK);
}

/* Of so many keys so many failed. */
static void tally_settled(struct master_tally *tally, enum master_op op, uint32_t count,
                          uint32_t failed)
{
    if (count == 1 || (unsigned)op >= MASTER_BATCH_OPS) {
        tally_add(tally, op, count, failed);
        return;
    }
    struct master_batch_counts *batch = &tally->batch[op];
    batch->requests++;
    batch->items += count;
    batch->failed_items += failed;
    batch->failures += failed == count;
    batch->partial_successes += failed > 0 && failed < count;
}

/* Without a branch: the compiler takes several at a time. */
static uint32_t count_code(const uint32_t *codes, uint32_t count, enum status status)
{
    const uint32_t code = store_status_code(status);
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        n += codes[i] == code;
    return n;
}

void master_tally_codes(struct master_tally *tally, enum master_op op, const uint32_t *codes,
                        uint32_t count)
{
    uint32_t fine = count_code(codes, count, STATUS_OK);
    ASSERT(count > 0);

    if (op == MASTER_OP_EXIST_KEY) fine += count_code(codes, count, STATUS_NOT_FOUND);
    if (op == MASTER_OP_PUT_END) count -= count_code(codes, count, STATUS_AGAIN);
    if (count > 0) tally_settled(tally, op, count, count - fine);
}
