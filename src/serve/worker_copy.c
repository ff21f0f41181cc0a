/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_copy.c - copies of prefixes that a gateway finds hot (conductor/replicate.c), and
 * their removal.
 *
 *   node.copy   what is missing of the prefix is fetched from the holder into fresh pages, behind
 *               all other transfers (class 2); as the store commits it, the node's events tell
 *               everybody. The answer comes when that is over.
 *   node.drop   the blocks are given up, the last one first. Whoever uses one keeps its page until
 *               he is done.
 *
 * Keys need no check against tokens: bytes come from a holder of the same key, with its checksums.
 *
 * Limits: WORKER_COPIES_MAX at once, STATUS_FULL beyond, or when there are no pages. */
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "serve/worker_int.h"

struct copy {
    struct worker *worker;
    struct rpc_call *call; /* NULL: nobody waits for the answer any more */
    struct store_fetch *fetch;
    uint32_t had, count;       /* blocks that were there, and that are fetched */
    struct store_page pages[]; /* of the latter */
};

static void answer(struct worker *worker, struct rpc_call *call, uint32_t had, uint32_t copied)
{
    const struct proto_node_copied reply = { had, copied };

    buf_clear(&worker->scratch);
    const enum status status = proto_node_copied_encode(&reply, &worker->scratch);
    ASSERT(status == STATUS_OK);
    rpc_reply(call, buf_data(&worker->scratch), worker->scratch.len);
}

static void on_copied(void *ctx, const struct store_fetch_result *result)
{
    struct copy *copy = ctx;
    struct worker *worker = copy->worker;

    ASSERT(result->blocks <= copy->count);
    LOG_DEBUG("worker", "copied", "blocks=%u of=%u bytes=%llu reason=%s", result->blocks,
              copy->count, (unsigned long long)result->bytes, store_miss_name(result->reason));
    for (uint32_t i = 0; i < WORKER_COPIES_MAX; i++)
        if (worker->copies[i] == copy) worker->copies[i] = NULL;
    if (!worker->ending) {
        for (uint32_t i = 0; i < copy->count; i++)
            store_node_unref(worker->node, copy->pages[i]);
        if (copy->call != NULL) answer(worker, copy->call, copy->had, result->blocks);
    }
    free(copy);
}

static void on_cancel(void *ctx, enum status why)
{
    struct copy *copy = ctx;
    struct rpc_call *call = copy->call;

    copy->call = NULL;
    rpc_fail(call, why, NULL);
    store_fetch_cancel(copy->fetch);
}

static struct copy **free_slot(struct worker *worker)
{
    for (uint32_t i = 0; i < WORKER_COPIES_MAX; i++)
        if (worker->copies[i] == NULL) return &worker->copies[i];
    return NULL;
}

/* Takes pages and begins. On failure nothing is left. */
static enum status start(struct copy *copy, const struct proto_node_blocks *message,
                         uint64_t deadline_ns)
{
    struct worker *worker = copy->worker;
    const uint64_t limit_ns = env_now_ns(worker->env) + WORKER_COPY_MS * ENV_NS_PER_MS;
    enum status status = store_node_alloc(worker->node, copy->count, copy->pages);

    if (status != STATUS_OK) return status;
    const struct store_fetch_options options = {
        .holder = message->holder,
        .keys = message->keys + copy->had,
        .pages = copy->pages,
        .count = copy->count,
        .transfer_class = YOLK_TRANSFER_BACKGROUND,
        .deadline_ns = deadline_ns < limit_ns ? deadline_ns : limit_ns,
        .on_done = on_copied,
        .ctx = copy,
    };
    status = store_node_fetch(worker->node, &options, &copy->fetch);
    for (uint32_t i = 0; i < copy->count && status != STATUS_OK; i++)
        store_node_unref(worker->node, copy->pages[i]);
    return status;
}

void copy_make(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct copy **slot = free_slot(worker);
    struct proto_node_blocks message;

    if (proto_node_blocks_decode(body, len, &message) != STATUS_OK || message.holder[0] == '\0' ||
        message.keys_count > STORE_FETCH_BLOCKS_MAX) {
        rpc_fail(call, STATUS_INVALID, "malformed");
        return;
    }
    if (worker->ending || worker->options.no_reuse) {
        rpc_fail(call, STATUS_UNAVAILABLE, "nothing is kept here");
        return;
    }
    const uint32_t had = store_node_match(worker->node, message.keys, message.keys_count);
    const uint32_t count = message.keys_count - had;
    if (count == 0) {
        answer(worker, call, had, 0);
        return;
    }
    struct copy *copy =
        slot != NULL ? malloc(sizeof(*copy) + count * sizeof(copy->pages[0])) : NULL;
    enum status status = STATUS_FULL;
    if (copy != NULL) {
        *copy = (struct copy){ .worker = worker, .call = call, .had = had, .count = count };
        status = start(copy, &message, rpc_call_deadline_ns(call));
    }
    if (status != STATUS_OK) {
        free(copy);
        rpc_fail(call, status, "no room for a copy now");
        return;
    }
    *slot = copy;
    rpc_on_cancel(call, on_cancel, copy);
}

void copy_drop(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct proto_node_blocks message;

    if (proto_node_blocks_decode(body, len, &message) != STATUS_OK) {
        rpc_fail(call, STATUS_INVALID, "malformed");
        return;
    }
    uint32_t dropped = 0;
    for (uint32_t i = message.keys_count; i-- > 0;)
        dropped += store_node_drop(worker->node, &message.keys[i]) == STATUS_OK;
    LOG_DEBUG("worker", "dropped", "blocks=%u of=%u by=%s", dropped, message.keys_count,
              rpc_call_peer(call));
    rpc_reply(call, NULL, 0);
}

void copy_fail_all(struct worker *worker)
{
    for (uint32_t i = 0; i < WORKER_COPIES_MAX; i++) {
        struct copy *copy = worker->copies[i];
        if (copy == NULL || copy->call == NULL) continue;
        rpc_fail(copy->call, STATUS_UNAVAILABLE, "the node goes away");
        copy->call = NULL;
    }
}
