/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_ends.c - the master is told of what was committed, and then the client.
 *
 *   commit --> READY --put_ends--> ASKED --ok, refused--> the client is told
 *                ^                 |  |
 *                +-----------------+  +--AGAIN--> ALONE --put_end: ok, refused--> likewise
 *              no answer: in 100 ms                ^  |
 *                                                  +--+ in 100 ms
 *
 * One batch is under way at a time: what is committed meanwhile is the next one, so that a put of
 * many values costs a few exchanges with the master, and a put of one waits for nobody. Whatever
 * the batch does not settle is asked alone: the master answers a put_end that waits for an owner
 * (STATUS_AGAIN: the replaced value is not dropped yet) when that has dropped it, where a batch
 * would make all others wait for it; and a master that knows no batches answers none. A client that
 * has committed many values at once is told the same way: with what the others have come to, and
 * STATUS_AGAIN for this one, which it then commits alone.
 *
 * Until the client's deadline a commit is asked about again; then the value stays and the client is
 * told that nobody knows. When the master refuses (the ticket was given up, somebody else's value
 * came first), the value goes again: it was never acknowledged.
 *
 * Limits: ENDS_MAX commits wait for the master, more are refused; ENDS_ASKED_MAX in one batch. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/commit_wait.h"
#include "store/node_int.h"
#include "store/node_values.h"
#include "store/proto.h"

enum {
    ENDS_MAX = 65536,
    ENDS_ASKED_MAX = 512,
    RETRY_MS = 100,
    TRY_MS = 2000,
    DEADLINE_MS_MAX = 30000, /* for a client that set no deadline */
};

/* A commit that the master has not answered yet. */
struct put_end {
    struct put_end *prev;
    struct put_end *next;
    struct put_end *next_ready;
    struct store_node *node;
    struct commit_wait *wait; /* the client's; NULL: it is not waited for in its call any more */
    uint32_t index;           /* in that */
    struct block_key id;
    uint64_t generation;
    uint64_t put_id;
    uint64_t term;
    uint64_t deadline_ns;
    bool busy;  /* ready, or a call about it is under way */
    bool alone; /* the batch has not settled it */
};

/* A batch under way. */
struct asked {
    struct store_node *node;
    uint32_t count;
    struct put_end *ends[];
};

static void end_free(struct put_end *end)
{
    LIST_REMOVE(end->node->put_ends, end);
    end->node->put_ends_count--;
    free(end);
}

/* The master knows of it. */
static void end_known(struct put_end *end)
{
    objects_settle(end->node->objects, &end->id, end->generation);
}

/* Tells the client. */
static void end_settle(struct put_end *end, enum status status, const char *message)
{
    if (end->wait != NULL) commit_wait_settle(end->wait, end->index, status, message);
    end->wait = NULL;
}

static void end_finish(struct put_end *end, enum status status, const char *message)
{
    end_settle(end, status, message);
    end_free(end);
}

static void retry_later(struct store_node *node)
{
    if (env_timer_armed(&node->put_timer)) return;
    env_timer_set(node->env, &node->put_timer, env_now_ns(node->env) + RETRY_MS * ENV_NS_PER_MS);
}

/* The master's no: what it does not want to know of must not stay, or a restart would announce it.
 */
static void end_refused(struct put_end *end, enum status status)
{
    struct store_node *node = end->node;
    const struct object *object = objects_find(node->objects, &end->id);
    if (object != NULL && object->generation == end->generation) {
        node_values_drop(node, &end->id);
    }
    const enum status dropped = objects_drop(node->objects, &end->id, end->generation);
    if (dropped == STATUS_BUSY) LOG_WARN("store", "refused_value_read", "put=%lu", end->put_id);
    end_finish(end, status, "store.commit: the master refused");
}

static bool is_refusal(enum status status)
{
    return status == STATUS_STALE || status == STATUS_EXISTS || status == STATUS_DENIED ||
           status == STATUS_INVALID;
}

bool node_ends_moved_down(const struct store_node *node, const struct block_key *id,
                          uint64_t put_id)
{
    const struct vlog_entry *below = node_values_find(node, id);

    return below != NULL && below->meta.put_id == put_id;
}

/* The value the master is to hear of. NULL: the commit has ended without it. */
static const struct object *end_object(struct put_end *end)
{
    struct store_node *node = end->node;
    const struct object *object = objects_find(node->objects, &end->id);

    if (node_ends_moved_down(node, &end->id, end->put_id)) {
        end_finish(end, STATUS_OK, NULL);
    } else if (object == NULL || object->generation != end->generation) {
        end_finish(end, STATUS_STALE, "store.commit: the value was dropped meanwhile");
    } else if (env_now_ns(node->env) >= end->deadline_ns) {
        end_finish(
            end, STATUS_TIMEOUT,
            "store.commit: not known to the master in time, or what it replaces is not gone");
    } else {
        return object;
    }
    return NULL;
}

static struct store_event stored_event(const struct store_node *node, const struct object *object)
{
    return (struct store_event){ .kind = STORE_EVENT_STORED,
                                 .class = STORE_CLASS_OBJECT,
                                 .id = object->id,
                                 .key = object->key.bytes,
                                 .key_len = object->key.len,
                                 .generation = object->generation,
                                 .address = object->address,
                                 .size = object->size,
                                 .digest = object->digest,
                                 .attributes = node_attributes(node, object) };
}

static uint64_t try_until(const struct store_node *node)
{
    return env_now_ns(node->env) + TRY_MS * ENV_NS_PER_MS;
}

/* ---- alone ---- */

static void on_put_end(void *ctx, const struct rpc_result *result)
{
    struct put_end *end = ctx;
    struct store_node *node = end->node;

    end->busy = false;
    if (node->closing) return; /* node_ends_fini() ends it */
    if (result->status == STATUS_OK) {
        end_known(end);
        end_finish(end, STATUS_OK, NULL);
    } else if (is_refusal(result->status)) {
        end_refused(end, result->status);
    } else {
        retry_later(node);
    }
}

static enum status put_end_send(struct put_end *end, const struct object *object)
{
    struct store_node *node = end->node;
    const uint64_t until_ns = try_until(node);
    struct store_put_end message = { .epoch = node->epoch,
                                     .put_id = end->put_id,
                                     .term = end->term,
                                     .stored = stored_event(node, object) };
    struct rpc_call_id id;
    struct buf buf;

    if (node->master == NULL) return STATUS_UNAVAILABLE;
    memcpy(message.name, node->name, sizeof(message.name));
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_put_end(&buf, &message);
    const struct rpc_request request = {
        .method = MASTER_METHOD_PUT_END,
        .body = buf_data(&buf),
        .len = buf.len,
        .deadline_ns = until_ns < end->deadline_ns ? until_ns : end->deadline_ns,
        .on_end = on_put_end,
        .ctx = end,
    };
    if (status == STATUS_OK) status = rpc_call(node->master, &request, &id);
    buf_fini(&buf);
    return status;
}

static void ask_alone(struct put_end *end)
{
    const struct object *object = end_object(end);

    if (object == NULL) return;
    end->busy = put_end_send(end, object) == STATUS_OK;
    if (!end->busy) retry_later(end->node);
}

/* ---- together ---- */

static void ask_ready(struct store_node *node);

/* What the batch says of one. Where the master has answered it is asked alone at once. */
static void end_answered(struct put_end *end, enum status status, bool heard)
{
    end->busy = false;
    if (status == STATUS_OK) {
        end_known(end);
        end_finish(end, STATUS_OK, NULL);
    } else if (is_refusal(status) && heard) {
        end_refused(end, status);
    } else if (heard) {
        const bool many = end->wait != NULL && commit_wait_many(end->wait);
        if (many && status == STATUS_AGAIN) end_settle(end, STATUS_AGAIN, NULL);
        end->alone = true;
        ask_alone(end);
    } else {
        retry_later(end->node);
    }
}

static void on_put_ends(void *ctx, const struct rpc_result *result)
{
    struct asked *asked = ctx;
    struct store_node *node = asked->node;
    struct msg_column codes;

    node->put_ends_asked = false;
    if (node->closing) { /* node_ends_fini() ends them */
        free(asked);
        return;
    }
    enum status status = result->status;
    if (status == STATUS_OK) status = store_decode_statuses(result->body, result->len, &codes);
    if (status == STATUS_OK && codes.count != asked->count) status = STATUS_PROTOCOL;
    for (uint32_t i = 0; i < asked->count; i++) {
        end_answered(asked->ends[i],
                     status == STATUS_OK ? store_status_of(msg_u32_at(codes, i)) : status,
                     status == STATUS_OK || status == STATUS_UNSUPPORTED);
    }
    free(asked);
    ask_ready(node);
}

/* How many a batch can have: most have one. */
static uint32_t ready_count(const struct store_node *node)
{
    uint32_t count = 0;
    for (const struct put_end *end = node->put_ready; end != NULL && count < ENDS_ASKED_MAX;
         end = end->next_ready)
        count++;
    return count;
}

/* Takes those that the master is to hear of from the front of the queue, `most` of them. */
static uint32_t ready_take(struct store_node *node, struct asked *asked, struct store_ended *ended,
                           uint32_t most)
{
    uint32_t count = 0;
    while (node->put_ready != NULL && count < most) {
        struct put_end *end = node->put_ready;
        node->put_ready = end->next_ready;
        const struct object *object = end_object(end);
        if (object == NULL) continue;
        ended[count] = (struct store_ended){ end->put_id, stored_event(node, object) };
        asked->ends[count++] = end;
    }
    return count;
}

static enum status put_ends_send(struct asked *asked, const struct store_ended *ended)
{
    struct store_node *node = asked->node;
    struct rpc_call_id id;
    struct buf buf;

    if (node->master == NULL) return STATUS_UNAVAILABLE;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_put_ends(&buf, node->name, node->epoch, ended, asked->count);
    const struct rpc_request request = {
        .method = MASTER_METHOD_PUT_ENDS,
        .body = buf_data(&buf),
        .len = buf.len,
        .deadline_ns = try_until(node),
        .on_end = on_put_ends,
        .ctx = asked,
    };
    if (status == STATUS_OK) status = rpc_call(node->master, &request, &id);
    buf_fini(&buf);
    return status;
}

/* Asks about all that are ready, unless a batch is under way. */
static void ask_ready(struct store_node *node)
{
    if (node->put_ends_asked || node->put_ready == NULL) return;
    const uint32_t most = ready_count(node);
    struct asked *asked = malloc(sizeof(*asked) + most * sizeof(asked->ends[0]));
    struct store_ended *ended = malloc(most * sizeof(*ended));
    enum status status = asked != NULL && ended != NULL ? STATUS_OK : STATUS_FULL;

    if (status == STATUS_OK) {
        asked->node = node;
        asked->count = ready_take(node, asked, ended, most);
        if (asked->count > 0) {
            status = put_ends_send(asked, ended);
            node->put_ends_asked = status == STATUS_OK;
        }
        for (uint32_t i = 0; status != STATUS_OK && i < asked->count; i++)
            asked->ends[i]->busy = false;
    }
    if (status != STATUS_OK) retry_later(node);
    free(ended);
    if (!node->put_ends_asked) free(asked);
}

/* Alone at once, else with the next batch. */
static void ask(struct put_end *end)
{
    struct store_node *node = end->node;
    ASSERT(!end->busy);

    if (end->alone) {
        ask_alone(end);
        return;
    }
    end->busy = true;
    end->next_ready = NULL;
    if (node->put_ready == NULL) {
        node->put_ready = end;
    } else {
        node->put_ready_last->next_ready = end;
    }
    node->put_ready_last = end;
}

static void on_put_timer(void *ctx)
{
    struct store_node *node = ctx;
    struct put_end *next;
    for (struct put_end *end = node->put_ends; end != NULL; end = next) {
        next = end->next;
        if (!end->busy) ask(end);
    }
    ask_ready(node); /* there was no memory */
}

/* ---- life ---- */

void node_ends_init(struct store_node *node)
{
    env_timer_init(&node->put_timer, on_put_timer, node);
}

void node_ends_fini(struct store_node *node)
{
    env_timer_cancel(node->env, &node->put_timer);
    node->put_ready = NULL;
    while (node->put_ends != NULL) {
        end_finish(node->put_ends, STATUS_UNAVAILABLE, "store.commit: the node stops");
    }
}

enum status node_ends_add(struct store_node *node, struct commit_wait *wait, uint32_t index,
                          const struct store_commit *commit, const struct object *object)
{
    const uint64_t limit = env_now_ns(node->env) + DEADLINE_MS_MAX * ENV_NS_PER_MS;
    struct put_end *end = node->put_ends_count < ENDS_MAX ? calloc(1, sizeof(*end)) : NULL;
    if (end == NULL) return STATUS_FULL;

    end->node = node;
    end->wait = wait;
    end->index = index;
    end->id = object->id;
    end->generation = object->generation;
    end->put_id = commit->put_id;
    end->term = commit->term;
    end->deadline_ns = commit_wait_deadline_ns(wait);
    if (end->deadline_ns > limit) end->deadline_ns = limit;
    LIST_PUSH(node->put_ends, end);
    node->put_ends_count++;
    ask(end);
    return STATUS_OK;
}

void node_ends_ask(struct store_node *node)
{
    ask_ready(node);
}
