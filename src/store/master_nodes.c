/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_nodes.c - what the directory wants of nodes: to be told what they have, and drops,
 * copies and marks of their values.
 *
 * A listener that hears another epoch than the registered one hears another life of the node: it
 * keeps silent until that life registers, which replaces it. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/master_shell_int.h"
#include "store/master_ends.h"
#include "store/master_removals.h"
#include "store/peers.h"
#include "store/proto.h"

enum {
    DROP_MS = 2000,
    COPY_SLACK_MS = 10000, /* for the commit, behind the time to write */
};

struct listener {
    struct listener *next;
    struct store_master_shell *shell;
    struct store_node_id node;
    uint64_t epoch;
    bool mute;  /* another life than the registered one is speaking */
    bool heard; /* the connection is there, and it is the registered life that speaks */
    struct store_subscription *subscription;
};

struct drop {
    struct store_master_shell *shell;
    struct store_node_id node;
    struct block_key id;
    uint64_t generation;
    bool evict;
};

/* ---- listening ---- */

static void on_reset(void *ctx, uint64_t epoch)
{
    struct listener *listener = ctx;
    struct store_master_shell *shell = listener->shell;
    listener->mute = epoch != listener->epoch;
    listener->heard = !listener->mute;
    if (listener->mute) return;
    store_master_reset(shell->master, master_shell_now(shell), listener->node);
    master_shell_act(shell);
}

static void on_events(void *ctx, const struct store_event *events, uint32_t count)
{
    const struct listener *listener = ctx;
    struct store_master_shell *shell = listener->shell;
    bool removed = false;
    if (listener->mute) return;
    for (uint32_t i = 0; i < count; i++) {
        store_master_event(shell->master, master_shell_now(shell), listener->node, &events[i]);
        if (events[i].kind != STORE_EVENT_REMOVED) continue;
        master_ends_removed(shell->ends, &events[i].id);
        removed = true;
    }
    if (removed) master_removals_heard(shell->removals);
    master_shell_act(shell);
}

static void on_synced(void *ctx)
{
    const struct listener *listener = ctx;
    struct store_master_shell *shell = listener->shell;
    if (listener->mute) return;
    store_master_synced(shell->master, master_shell_now(shell), listener->node);
    master_shell_act(shell);
}

static void on_lost(void *ctx)
{
    struct listener *listener = ctx;
    listener->heard = false;
}

void master_nodes_listen(struct store_master_shell *shell, const struct store_action *action)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    const struct store_subscribe_options options = {
        .env = shell->env,
        .address = action->info.rpc_address,
        .secret = shell->secret,
        .term = store_master_term(shell->master),
        .on_reset = on_reset,
        .on_events = on_events,
        .on_synced = on_synced,
        .on_lost = on_lost,
        .ctx = listener,
    };
    struct errmsg err = { "" };

    if (listener == NULL) return;
    listener->shell = shell;
    listener->node = action->node;
    listener->epoch = action->info.epoch;
    if (store_subscribe(&options, &listener->subscription, &err) != STATUS_OK) {
        LOG_WARN("master", "cannot_listen", "node=%s message=%s", action->info.name, err.text);
        free(listener);
        return;
    }
    listener->next = shell->listeners;
    shell->listeners = listener;
}

/* The struct is freed by the subscription's end only when nothing can call it: at once. */
void master_nodes_forget(struct store_master_shell *shell, struct store_node_id node)
{
    struct listener **link = &shell->listeners;
    while (*link != NULL) {
        struct listener *listener = *link;
        if (listener->node.index != node.index) {
            link = &listener->next;
            continue;
        }
        *link = listener->next;
        store_unsubscribe(listener->subscription);
        free(listener);
    }
}

bool master_nodes_heard(const struct store_master_shell *shell, struct store_node_id node)
{
    const struct listener *listener = shell->listeners;
    while (listener != NULL && listener->node.index != node.index)
        listener = listener->next;
    return listener != NULL && listener->heard;
}

void master_nodes_fini(struct store_master_shell *shell)
{
    while (shell->listeners != NULL) {
        struct listener *listener = shell->listeners;
        shell->listeners = listener->next;
        store_unsubscribe(listener->subscription);
        free(listener);
    }
}

/* ---- drops ---- */

static void on_dropped(void *ctx, const struct rpc_result *result)
{
    struct drop *drop = ctx;
    struct store_master_shell *shell = drop->shell;
    if (!shell->closing) {
        store_master_dropped(shell->master, master_shell_now(shell), drop->node, &drop->id,
                             drop->generation, result->status);
        if (result->status == STATUS_BUSY) master_removals_heard(shell->removals);
    }
    free(drop);
    if (!shell->closing) master_shell_act(shell);
}

static enum status drop_send(struct store_master_shell *shell, const char *address,
                             struct drop *drop)
{
    const struct store_drop message = { .term = store_master_term(shell->master),
                                        .id = drop->id,
                                        .generation = drop->generation,
                                        .evict = drop->evict };
    struct rpc_client *client;
    struct rpc_call_id id;
    struct buf buf;

    enum status status = store_peers_get(shell->peers, address, &client);
    if (status != STATUS_OK) return status;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    status = store_encode_drop(&buf, &message);
    const struct rpc_request request = { .method = STORE_METHOD_DROP,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns =
                                             master_shell_now(shell) + DROP_MS * ENV_NS_PER_MS,
                                         .on_end = on_dropped,
                                         .ctx = drop };
    if (status == STATUS_OK) status = rpc_call(client, &request, &id);
    buf_fini(&buf);
    return status;
}

void master_nodes_drop(struct store_master_shell *shell, const struct store_action *action)
{
    struct drop *drop = calloc(1, sizeof(*drop));
    enum status status = STATUS_FULL;

    if (drop != NULL) {
        *drop = (struct drop){ .shell = shell,
                               .node = action->node,
                               .id = action->id,
                               .generation = action->generation,
                               .evict = action->evict };
        status = drop_send(shell, action->info.rpc_address, drop);
    }
    if (status == STATUS_OK) return;
    store_master_dropped(shell->master, master_shell_now(shell), action->node, &action->id,
                         action->generation, status);
    free(drop);
}

/* ---- copies ---- */

struct copy {
    struct store_master_shell *shell;
    struct block_key id;
    uint64_t put_id;
    bool move;
};

/* How it has gone so far. */
static void copy_count(const struct copy *copy, enum master_op copied, enum master_op moved,
                       enum status status)
{
    master_tally_one(&copy->shell->tally, copy->move ? moved : copied, status);
}

static void on_copied(void *ctx, const struct rpc_result *result)
{
    struct copy *copy = ctx;
    struct store_master_shell *shell = copy->shell;
    if (!shell->closing) {
        if (result->status == STATUS_OK) {
            copy_count(copy, MASTER_OP_COPY_END, MASTER_OP_MOVE_END, STATUS_OK);
        } else {
            copy_count(copy, MASTER_OP_COPY_REVOKE, MASTER_OP_MOVE_REVOKE, STATUS_OK);
        }
        store_master_copied(shell->master, master_shell_now(shell), &copy->id, copy->put_id,
                            result->status);
    }
    free(copy);
    if (!shell->closing) master_shell_act(shell);
}

static enum status copy_send(struct store_master_shell *shell, const struct store_action *action,
                             struct copy *copy)
{
    const struct store_ticket *ticket = &action->ticket;
    const uint64_t time = master_shell_now(shell);
    struct store_copy message = {
        .term = ticket->term,
        .id = action->id,
        .generation = action->generation,
        .put_id = ticket->put_id,
        .address = ticket->where.address,
        .epoch = ticket->where.epoch,
        .put_ms =
            ticket->expires_ns > time ? (uint32_t)((ticket->expires_ns - time) / ENV_NS_PER_MS) : 0,
        .until_ns = ticket->expires_ns,
        .hot = action->hot,
    };
    struct rpc_client *client;
    struct rpc_call_id id;
    struct buf buf;

    memcpy(message.rpc_address, ticket->where.rpc_address, sizeof(message.rpc_address));
    memcpy(message.segment, ticket->where.segment, sizeof(message.segment));
    enum status status = store_peers_get(shell->peers, action->info.rpc_address, &client);
    if (status != STATUS_OK) return status;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    status = store_encode_copy(&buf, &message);
    const struct rpc_request request = { .method = STORE_METHOD_COPY,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns =
                                             ticket->expires_ns + COPY_SLACK_MS * ENV_NS_PER_MS,
                                         .on_end = on_copied,
                                         .ctx = copy };
    if (status == STATUS_OK) status = rpc_call(client, &request, &id);
    buf_fini(&buf);
    return status;
}

void master_nodes_copy(struct store_master_shell *shell, const struct store_action *action)
{
    struct copy *copy = calloc(1, sizeof(*copy));
    enum status status = STATUS_FULL;

    if (copy != NULL) {
        *copy = (struct copy){ shell, action->id, action->ticket.put_id, action->move };
        status = copy_send(shell, action, copy);
        copy_count(copy, MASTER_OP_COPY_START, MASTER_OP_MOVE_START, status);
    }
    if (status == STATUS_OK) return;
    store_master_copied(shell->master, master_shell_now(shell), &action->id, action->ticket.put_id,
                        status);
    free(copy);
}

/* ---- marks ---- */

static void on_marked(void *ctx, const struct rpc_result *result)
{
    (void)ctx;
    (void)result; /* whoever has it says what it knows when it is asked next */
}

void master_nodes_mark(struct store_master_shell *shell, const struct store_action *action)
{
    const struct store_mark message = { .term = store_master_term(shell->master),
                                        .id = action->id,
                                        .generation = action->generation,
                                        .replicas = action->replicas };
    struct rpc_client *client;
    struct rpc_call_id id;
    struct buf buf;

    if (store_peers_get(shell->peers, action->info.rpc_address, &client) != STATUS_OK) return;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status encoded = store_encode_mark(&buf, &message);
    const struct rpc_request request = { .method = STORE_METHOD_MARK,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns =
                                             master_shell_now(shell) + DROP_MS * ENV_NS_PER_MS,
                                         .on_end = on_marked,
                                         .ctx = shell };
    if (encoded != STATUS_OK || rpc_call(client, &request, &id) != STATUS_OK) {
        LOG_DEBUG("store", "mark_not_sent", "node=%s", action->info.name);
    }
    buf_fini(&buf);
}
