/* SPDX-License-Identifier: Apache-2.0 */
#include "store/commit_wait.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "net/rpc.h"
#include "store/proto.h"

struct commit_wait {
    struct rpc_call *call; /* NULL: the client has given up */
    uint64_t deadline_ns;
    bool many;
    uint32_t count;
    uint32_t left;    /* not settled */
    uint32_t codes[]; /* UNSETTLED or store_status_code() */
};

#define UNSETTLED UINT32_MAX /* no status has this code */

static void on_client_gone(void *ctx, enum status why)
{
    struct commit_wait *wait = ctx;
    rpc_fail(wait->call, why, NULL);
    wait->call = NULL; /* what was committed stays, and the master is told all the same */
}

struct commit_wait *commit_wait_create(struct rpc_call *call, uint32_t count, bool many)
{
    ASSERT(count > 0 && (many || count == 1));
    struct commit_wait *wait = malloc(sizeof(*wait) + count * sizeof(wait->codes[0]));
    if (wait == NULL) return NULL;

    *wait = (struct commit_wait){ .call = call,
                                  .deadline_ns = rpc_call_deadline_ns(call),
                                  .many = many,
                                  .count = count,
                                  .left = count };
    for (uint32_t i = 0; i < count; i++)
        wait->codes[i] = UNSETTLED;
    rpc_on_cancel(call, on_client_gone, wait);
    return wait;
}

static void reply_codes(const struct commit_wait *wait)
{
    struct buf buf;

    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status status = store_encode_statuses(&buf, wait->codes, wait->count);
    if (status == STATUS_OK) {
        rpc_reply(wait->call, buf_data(&buf), buf.len);
    } else {
        rpc_fail(wait->call, status, NULL);
    }
    buf_fini(&buf);
}

void commit_wait_settle(struct commit_wait *wait, uint32_t index, enum status status,
                        const char *message)
{
    ASSERT(index < wait->count && wait->codes[index] == UNSETTLED && wait->left > 0);

    wait->codes[index] = store_status_code(status);
    if (--wait->left > 0) return;
    if (wait->call != NULL) {
        if (wait->many) {
            reply_codes(wait);
        } else if (status == STATUS_OK) {
            rpc_reply(wait->call, NULL, 0);
        } else {
            rpc_fail(wait->call, status, message);
        }
    }
    free(wait);
}

bool commit_wait_many(const struct commit_wait *wait)
{
    return wait->many;
}

uint64_t commit_wait_deadline_ns(const struct commit_wait *wait)
{
    return wait->deadline_ns;
}
