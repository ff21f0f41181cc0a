/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_ends.c - see the header.
 */
#include "store/master_ends.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/map.h"
#include "net/rpc.h"
#include "store/master.h"
#include "store/master_tally.h"
#include "store/proto.h"

struct waiting {
    struct master_ends *ends;
    struct rpc_call *call;
    struct block_key id;
};

struct master_ends {
    struct env *env;
    struct store_master *master;
    struct master_tally *tally;
    struct map *waiting; /* id -> struct waiting * */
};

static void waiting_end(struct waiting *waiting, enum status status)
{
    struct master_ends *ends = waiting->ends;
    struct buf buf;

    const bool there = map_remove(ends->waiting, &waiting->id, NULL);
    ASSERT(there);
    master_tally_one(ends->tally, MASTER_OP_PUT_END, status);
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    if (status == STATUS_OK) status = store_encode_term(&buf, store_master_term(ends->master));
    if (status == STATUS_OK) {
        rpc_reply(waiting->call, buf_data(&buf), buf.len);
    } else {
        rpc_fail(waiting->call, status, NULL);
    }
    buf_fini(&buf);
    free(waiting);
}

static void on_asker_gone(void *ctx, enum status why)
{
    waiting_end(ctx, why);
}

bool master_ends_wait(struct master_ends *ends, struct rpc_call *call, const struct block_key *id)
{
    struct waiting *waiting = calloc(1, sizeof(*waiting));
    if (waiting == NULL) return false;
    if (map_insert(ends->waiting, id, (uint64_t)(uintptr_t)waiting) != STATUS_OK) {
        free(waiting);
        return false;
    }
    *waiting = (struct waiting){ .ends = ends, .call = call, .id = *id };
    rpc_on_cancel(call, on_asker_gone, waiting);
    return true;
}

void master_ends_removed(struct master_ends *ends, const struct block_key *id)
{
    uint64_t value;
    if (map_count(ends->waiting) == 0 || !map_find(ends->waiting, id, &value)) return;
    if (store_master_replaced(ends->master, env_now_ns(ends->env), id) != STATUS_OK) return;
    waiting_end((struct waiting *)(uintptr_t)value, STATUS_OK);
}

enum status master_ends_create(struct env *env, struct store_master *master,
                               struct master_tally *tally, uint64_t seed, struct master_ends **out)
{
    const struct map_options map = { .entries_max = MASTER_ENDS_MAX, .seed = seed };
    struct master_ends *ends = calloc(1, sizeof(*ends));
    if (ends == NULL) return STATUS_NO_MEMORY;
    ends->env = env;
    ends->master = master;
    ends->tally = tally;
    if (map_create(&map, &ends->waiting) != STATUS_OK) {
        free(ends);
        return STATUS_NO_MEMORY;
    }
    *out = ends;
    return STATUS_OK;
}

void master_ends_destroy(struct master_ends *ends)
{
    struct map_iter iter = { 0 };
    if (ends == NULL) return;
    while (map_next(ends->waiting, &iter)) {
        struct waiting *waiting = (struct waiting *)(uintptr_t)iter.value;
        rpc_fail(waiting->call, STATUS_UNAVAILABLE, NULL);
        free(waiting);
    }
    map_destroy(ends->waiting);
    free(ends);
}
