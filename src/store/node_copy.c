/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_copy.c - copies a value of ours to another node, when the master asks (store.copy).
 *
 *   master                      here                          target
 *     | store.copy{ticket} ----> | pins the value               |
 *     |                          | WRITE (background) --------> |
 *     |                          | store.commit --------------> | checksums, manifest
 *     | <---------------------------------------- put_end ----- |
 *     | <----------------- reply | <-------------------- reply  |
 *
 * It is a put with our value: the same commit, with the version and the attributes that it has
 * here. The pin keeps the bytes; if it runs out, the target finds wrong checksums and refuses.
 *
 * The range is ours until the master's clock says until_ns. The message may have been on its way,
 * or we may have been stopped, for any time: so until when we write is told from what the master's
 * clock was when it answered a question of ours, which was after we had asked. What comes too late
 * is refused before a byte is written, as not begun. A master of before says no time: then put_ms
 * count from when the message is read.
 *
 * Limits: COPIES_MAX at a time; more are refused. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/node_int.h"
#include "store/node_values.h"
#include "store/proto.h"
#include "yolk/transfer.h"

enum { COPIES_MAX = 64, COMMIT_MS = 10000 };

struct node_copy {
    struct node_copy *prev;
    struct node_copy *next;
    struct store_node *node;
    struct rpc_call *call; /* the master's */
    struct rpc_client *target;
    struct yolk_transfer_segment segment;
    bool segment_open;
    struct yolk_transfer_batch batch;
    struct block_key id;
    uint64_t pin;
    struct buf commit; /* what follows the bytes */
};

static void copy_free(struct node_copy *copy)
{
    struct store_node *node = copy->node;

    LIST_REMOVE(node->copies, copy);
    node->copies_count--;
    if (!node->closing) {
        const enum status unpinned = objects_unpin(node->objects, copy->pin);
        if (unpinned != STATUS_OK) LOG_DEBUG("store", "copy_outlived_its_pin", "");
        if (copy->segment_open) yolk_transfer_close(node->transfer, copy->segment);
    }
    buf_fini(&copy->commit);
    free(copy);
}

static void copy_end(struct node_copy *copy, enum status status)
{
    if (status == STATUS_OK) {
        rpc_reply(copy->call, NULL, 0);
    } else {
        rpc_fail(copy->call, status, "store.copy: not done");
    }
    copy_free(copy);
}

void node_copy_fini(struct store_node *node)
{
    ASSERT(node->closing);
    while (node->copies != NULL)
        copy_end(node->copies, STATUS_UNAVAILABLE);
}

static void on_committed(void *ctx, const struct rpc_result *result)
{
    struct node_copy *copy = ctx;
    if (copy->node->closing) return; /* node_copy_fini() ends it */
    if (result->status == STATUS_CORRUPT) node_doubt(copy->node, &copy->id);
    copy_end(copy, result->status);
}

static void on_moved(void *ctx, const struct yolk_transfer_result *result)
{
    struct node_copy *copy = ctx;
    struct store_node *node = copy->node;
    struct rpc_call_id id;

    if (node->closing) return;
    const bool moved = result->state == YOLK_TRANSFER_COMPLETED;
    const enum status freed = yolk_transfer_batch_free(node->transfer, copy->batch);
    ASSERT(freed == STATUS_OK);
    const struct rpc_request request = { .method = STORE_METHOD_COMMIT,
                                         .body = buf_data(&copy->commit),
                                         .len = copy->commit.len,
                                         .deadline_ns =
                                             env_now_ns(node->env) + COMMIT_MS * ENV_NS_PER_MS,
                                         .on_end = on_committed,
                                         .ctx = copy };
    enum status status = moved ? rpc_call(copy->target, &request, &id) : STATUS_UNAVAILABLE;
    if (status != STATUS_OK) copy_end(copy, status);
}

static enum status copy_write(struct node_copy *copy, const struct store_copy *asked,
                              const struct object *object, uint64_t deadline_ns)
{
    struct store_node *node = copy->node;

    enum status status = yolk_transfer_open(node->transfer, asked->segment, &copy->segment);
    if (status != STATUS_OK) return status;
    copy->segment_open = true;
    const struct yolk_transfer_request request = {
        .opcode = YOLK_TRANSFER_WRITE,
        .class = YOLK_TRANSFER_BACKGROUND,
        .local = (void *)(uintptr_t)object->address,
        .segment = copy->segment,
        .remote = asked->address,
        .length = object->size,
        .deadline_ns = deadline_ns,
        .attempt = asked->put_id,
        .generation = asked->epoch,
        .term = asked->term,
    };
    status = yolk_transfer_batch_create(node->transfer, 1, on_moved, copy, &copy->batch);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_submit(node->transfer, copy->batch, &request, 1);
    if (status == STATUS_OK) return STATUS_OK;
    const enum status freed = yolk_transfer_batch_free(node->transfer, copy->batch);
    ASSERT(freed == STATUS_OK);
    return status;
}

/* Until when the range may be written, on our clock; not later than now: it may not be. */
static uint64_t copy_until(const struct store_node *node, const struct store_copy *asked)
{
    const struct node_master_clock *clock = &node->master_clock;
    const uint64_t longest = env_now_ns(node->env) + asked->put_ms * ENV_NS_PER_MS;

    if (asked->until_ns == 0) return longest;
    if (clock->term != asked->term || asked->until_ns <= clock->clock_ns) return 0;
    const uint64_t left = asked->until_ns - clock->clock_ns;
    if (left >= longest) return longest; /* of no sense, and more than there can be */
    return clock->asked_ns + left < longest ? clock->asked_ns + left : longest;
}

static enum status copy_start(struct node_copy *copy, const struct store_copy *asked,
                              const struct object *object)
{
    struct store_node *node = copy->node;
    const uint64_t deadline_ns = copy_until(node, asked);
    const struct store_commit commit = { .key = object->key,
                                         .put_id = asked->put_id,
                                         .term = asked->term,
                                         .epoch = asked->epoch,
                                         .address = asked->address,
                                         .size = object->size,
                                         .sums_data = object->sums,
                                         .attributes = node_attributes(node, object) };

    if (deadline_ns <= env_now_ns(node->env)) return STATUS_NOT_FOUND;
    enum status status = store_encode_commit(&copy->commit, &commit);
    if (status == STATUS_OK)
        status = store_peers_get(node->peers, asked->rpc_address, &copy->target);
    if (status == STATUS_OK) {
        status = objects_pin(node->objects, &object, 1, deadline_ns, &copy->pin);
    }
    if (status != STATUS_OK) return status;
    node_expire_by(node, deadline_ns);
    traffic_add(&node->traffic, env_now_ns(node->env), object->size);
    return copy_write(copy, asked, object, deadline_ns);
}

static void on_cancel(void *ctx, enum status why)
{
    (void)ctx;
    (void)why; /* what was begun goes on: its range is ours until then */
}

void node_handle_copy(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_node *node = ctx;
    const struct object *object = NULL;
    struct store_copy asked;

    enum status status = store_decode_copy(body, len, &asked);
    if (status == STATUS_OK) status = store_node_see_term(node, asked.term);
    if (status == STATUS_OK) {
        object = objects_find(node->objects, &asked.id);
        if (object == NULL || object->generation != asked.generation) status = STATUS_NOT_FOUND;
        if (object == NULL) node_values_prefetch(node, &asked.id); /* the master asks again */
    }
    if (status == STATUS_OK && node->copies_count >= COPIES_MAX) status = STATUS_FULL;
    if (status == STATUS_OK && asked.hot) objects_mark_hot(node->objects, object);
    struct node_copy *copy = status == STATUS_OK ? calloc(1, sizeof(*copy)) : NULL;
    if (copy == NULL) {
        rpc_fail(call, status == STATUS_OK ? STATUS_FULL : status, "store.copy: refused");
        return;
    }
    copy->node = node;
    copy->call = call;
    copy->id = asked.id;
    LIST_PUSH(node->copies, copy);
    node->copies_count++;
    buf_init(&copy->commit, RPC_BODY_SIZE_MAX);
    rpc_on_cancel(call, on_cancel, copy);
    status = copy_start(copy, &asked, object);
    if (status != STATUS_OK) copy_end(copy, status);
}
