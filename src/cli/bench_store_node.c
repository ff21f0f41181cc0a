/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_store_node.c - the owner's side of the metadata protocol and nothing behind it: it
 * registers and beats, announces one extent, and answers a drop with "removed". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/env.h"
#include "cli/bench_store.h"
#include "net/rpc.h"
#include "store/proto.h"

enum { BEAT_MS = 300, LENT_AT = 1 << 20 };

struct bench_store_node {
    struct env *env;
    struct rpc_server *server;
    struct rpc_client *master;
    struct rpc_call *listener; /* the master's; NULL: it does not listen yet */
    uint64_t size;
    uint64_t term;
    bool registered;
    struct env_timer beat;
    struct env_timer flush;
    struct store_event removed[STORE_EVENTS_BATCH_MAX]; /* to be announced */
    uint32_t removed_count;
};

static struct store_member_info info_of(const struct bench_store_node *node)
{
    struct store_member_info info = {
        .name = BENCH_STORE_NODE_NAME,
        .role = STORE_ROLE_STORE,
        .segment = "nowhere",
        .layout = { .pages = 1,
                    .page_size = STORE_PAGE_ALIGN,
                    .layers = 1,
                    .layer_size = STORE_PAGE_ALIGN,
                    .block_tokens = 32 },
        .epoch = BENCH_STORE_NODE_EPOCH,
    };
    snprintf(info.rpc_address, sizeof(info.rpc_address), "127.0.0.1:%u",
             (unsigned)rpc_server_port(node->server));
    return info;
}

/* ---- registering ---- */

static void on_told(void *ctx, const struct rpc_result *result)
{
    struct bench_store_node *node = ctx;
    node->registered = result->status == STATUS_OK;
}

static void on_beat(void *ctx)
{
    struct bench_store_node *node = ctx;
    const struct store_register reg = { .info = info_of(node) };
    const struct store_beat beat = { .name = BENCH_STORE_NODE_NAME,
                                     .epoch = BENCH_STORE_NODE_EPOCH };
    const uint64_t now_ns = env_now_ns(node->env);
    struct rpc_call_id id;
    struct buf buf;

    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status =
        node->registered ? store_encode_beat(&buf, &beat) : store_encode_register(&buf, &reg);
    const struct rpc_request request = {
        .method = node->registered ? MASTER_METHOD_BEAT : MASTER_METHOD_REGISTER,
        .body = buf_data(&buf),
        .len = buf.len,
        .deadline_ns = now_ns + 2 * ENV_NS_PER_S,
        .wait_until_up = true,
        .on_end = on_told,
        .ctx = node,
    };
    if (status == STATUS_OK) status = rpc_call(node->master, &request, &id);
    buf_fini(&buf);
    env_timer_set(node->env, &node->beat, now_ns + BEAT_MS * ENV_NS_PER_MS);
}

/* ---- announcing ---- */

static enum status announce(struct bench_store_node *node, unsigned flags,
                            const struct store_event *events, uint32_t count)
{
    struct buf buf;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_events(&buf, BENCH_STORE_NODE_EPOCH, flags, events, count);
    if (status == STATUS_OK) status = rpc_send(node->listener, buf_data(&buf), buf.len);
    buf_fini(&buf);
    return status;
}

static void on_flush(void *ctx)
{
    struct bench_store_node *node = ctx;
    if (node->listener == NULL || node->removed_count == 0) return;
    if (announce(node, 0, node->removed, node->removed_count) == STATUS_OK) {
        node->removed_count = 0;
    } else {
        env_timer_set(node->env, &node->flush, env_now_ns(node->env) + ENV_NS_PER_MS);
    }
}

static void on_listener_gone(void *ctx, enum status why)
{
    struct bench_store_node *node = ctx;
    rpc_fail(node->listener, why, NULL);
    node->listener = NULL;
}

static void handle_events(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct bench_store_node *node = ctx;
    struct store_events_request request;

    const enum status status = store_decode_events_request(body, len, &request);
    if (status != STATUS_OK || node->listener != NULL) {
        rpc_fail(call, STATUS_INVALID, NULL);
        return;
    }
    const struct store_event extent = { .kind = STORE_EVENT_EXTENT,
                                        .generation = request.term,
                                        .address = LENT_AT,
                                        .size = node->size };
    node->listener = call;
    rpc_on_cancel(call, on_listener_gone, node);
    (void)announce(node, STORE_EVENTS_RESET | STORE_EVENTS_SYNCED, &extent, 1);
}

static void handle_drop(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct bench_store_node *node = ctx;
    struct store_drop drop;

    enum status status = store_decode_drop(body, len, &drop);
    if (status == STATUS_OK && node->removed_count == STORE_EVENTS_BATCH_MAX) on_flush(node);
    if (node->removed_count == STORE_EVENTS_BATCH_MAX) status = STATUS_AGAIN;
    if (status != STATUS_OK) {
        rpc_fail(call, status, NULL);
        return;
    }
    node->removed[node->removed_count++] = (struct store_event){ .kind = STORE_EVENT_REMOVED,
                                                                 .class = STORE_CLASS_OBJECT,
                                                                 .id = drop.id,
                                                                 .generation = drop.generation };
    rpc_reply(call, NULL, 0);
    env_timer_set(node->env, &node->flush, 0);
}

/* ---- life ---- */

enum status bench_store_node_open(struct env *env, const char *master, uint64_t size,
                                  struct bench_store_node **out, struct errmsg *err)
{
    const struct rpc_server_options server = { .address = "127.0.0.1:0", .name = "bench" };
    const struct rpc_client_options client = { .address = master, .name = "bench" };
    struct bench_store_node *node = calloc(1, sizeof(*node));
    if (node == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");

    node->env = env;
    node->size = size;
    env_timer_init(&node->beat, on_beat, node);
    env_timer_init(&node->flush, on_flush, node);
    enum status status = rpc_server_create(env, &server, &node->server, err);
    if (status == STATUS_OK) status = rpc_client_create(env, &client, &node->master, err);
    if (status != STATUS_OK) {
        bench_store_node_close(node);
        return status;
    }
    rpc_server_add(node->server, STORE_METHOD_EVENTS, "store.events", handle_events, node);
    rpc_server_add(node->server, STORE_METHOD_DROP, "store.drop", handle_drop, node);
    env_timer_set(env, &node->beat, 0);
    *out = node;
    return STATUS_OK;
}

bool bench_store_node_ready(const struct bench_store_node *node)
{
    return node->listener != NULL;
}

void bench_store_node_close(struct bench_store_node *node)
{
    if (node == NULL) return;
    env_timer_cancel(node->env, &node->beat);
    env_timer_cancel(node->env, &node->flush);
    rpc_client_destroy(node->master);
    rpc_server_destroy(node->server);
    free(node);
}
