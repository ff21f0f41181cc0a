/* SPDX-License-Identifier: Apache-2.0
 *
 * net/rpc_server.c - methods, and the calls that peers have made and not yet got an end to.
 *
 *   request --> OPEN -- rpc_reply, rpc_fail --> freed, the end is sent
 *                |
 *                | cancel, deadline, connection lost, server destroyed: on_cancel
 *                v
 *              POINTLESS -- rpc_reply, rpc_fail --> freed, nothing is sent
 *
 * Invariants
 *   I1  A call is in its peer's map and list exactly while it is OPEN; then `peer` is set.
 *   I2  A call is freed by rpc_reply() or rpc_fail() and nowhere else: its handler owns it.
 *   I3  A peer's request id is unique among its open calls; a second one is a protocol error.
 *
 * Threads: the env's.
 * Limits:  see rpc.h. */
#include "net/rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/key.h"
#include "base/log.h"
#include "base/map.h"
#include "net/rpc_int.h"

enum {
    CONNECTIONS_DEFAULT = 256,
    CALLS_DEFAULT = 4096,
    WRITE_QUEUE_DEFAULT = 64 << 20,
    KEEPALIVE_MS_DEFAULT = 5000,
    HANDSHAKE_MS = 5000,
};

struct method {
    uint16_t id;
    const char *name;
    rpc_handler_fn handler;
    void *ctx;
};

struct rpc_server {
    struct env *env;
    struct env_listener *listener;
    struct rpc_server_options options;
    char *secret;
    char name[RPC_NAME_SIZE];
    struct method methods[RPC_METHODS_MAX];
    uint32_t methods_count;
    struct rpc_link peers;
    uint32_t peers_count;
};

/* One connection. */
struct peer {
    struct rpc_link link;
    struct rpc_server *server;
    struct rpc_conn *conn;
    struct map *calls;             /* by id */
    char name[RPC_NAME_SIZE + 64]; /* told to its calls; "" until the first */
    char host[RPC_NAME_SIZE];
    struct rpc_link open;    /* calls */
    struct rpc_link blocked; /* calls whose rpc_send() was answered STATUS_FULL: all are open */
};

struct rpc_call {
    struct rpc_link link; /* in peer->open or peer->blocked */
    struct peer *peer;    /* NULL: pointless, for the reason in `why` */
    enum status why;
    struct env *env;
    uint64_t id;
    uint64_t deadline_ns;
    struct env_timer timer; /* the deadline; when pointless, a late rpc_on_cancel() */
    void (*on_cancel)(void *ctx, enum status why);
    void *on_cancel_ctx;
    void (*on_writable)(void *ctx);
    void *on_writable_ctx;
    char peer_name[RPC_NAME_SIZE + 64];
    char peer_host[RPC_NAME_SIZE];
};

static struct rpc_call *call_of(struct rpc_link *link)
{
    return (struct rpc_call *)(void *)link; /* its first member */
}

static struct block_key key_of(uint64_t id)
{
    struct block_key key = { { 0 } };
    memcpy(key.bytes, &id, sizeof(id));
    return key;
}

/* ---- the end of calls ---- */

/* OPEN to nowhere: after it the call belongs to its handler alone. */
static void call_detach(struct rpc_call *call)
{
    const struct block_key key = key_of(call->id);

    ASSERT(call->peer != NULL);
    const bool was_there = map_remove(call->peer->calls, &key, NULL);
    ASSERT(was_there);
    rpc_list_remove(&call->link);
    env_timer_cancel(call->env, &call->timer);
    call->peer = NULL;
}

static void call_free(struct rpc_call *call)
{
    env_timer_cancel(call->env, &call->timer);
    free(call);
}

/* OPEN to POINTLESS. */
static void call_cancel(struct rpc_call *call, enum status why)
{
    ASSERT(why != STATUS_OK);
    call_detach(call);
    call->why = why;
    if (call->on_cancel == NULL) return;
    void (*on_cancel)(void *, enum status) = call->on_cancel;
    call->on_cancel = NULL;
    on_cancel(call->on_cancel_ctx, why); /* may end and thereby free the call */
}

static void call_on_timer(void *ctx)
{
    struct rpc_call *call = ctx;

    if (call->peer != NULL) {
        call_cancel(call, STATUS_TIMEOUT);
    } else if (call->on_cancel != NULL) {
        void (*on_cancel)(void *, enum status) = call->on_cancel;
        call->on_cancel = NULL;
        on_cancel(call->on_cancel_ctx, call->why);
    }
}

/* The end must not depend on what else waits: a peer whose queue is full of items and ends that it
 * does not read is cut off. */
static void call_end(struct rpc_call *call, const struct rpc_frame *frame)
{
    struct peer *peer = call->peer;

    if (peer != NULL) {
        call_detach(call);
        const enum status status = rpc_conn_send(peer->conn, frame);
        if (status == STATUS_FULL) rpc_conn_fail(peer->conn, STATUS_FULL, "the peer does not read");
    }
    call_free(call);
}

void rpc_reply(struct rpc_call *call, const void *body, size_t len)
{
    const struct rpc_frame frame = { .kind = RPC_KIND_REPLY,
                                     .call = call->id,
                                     .body = { body, len } };
    ASSERT(len <= RPC_BODY_SIZE_MAX);
    call_end(call, &frame);
}

void rpc_fail(struct rpc_call *call, enum status status, const char *message)
{
    const char *text = message != NULL ? message : "";
    const struct rpc_frame frame = {
        .kind = RPC_KIND_FAIL,
        .call = call->id,
        .status = status,
        .message = { (const uint8_t *)text, strnlen(text, RPC_MESSAGE_SIZE - 1) },
    };
    ASSERT(status != STATUS_OK && status != STATUS_PENDING);
    call_end(call, &frame);
}

/* ---- streams ---- */

enum status rpc_send(struct rpc_call *call, const void *body, size_t len)
{
    const struct rpc_frame frame = { .kind = RPC_KIND_ITEM,
                                     .call = call->id,
                                     .body = { body, len } };
    ASSERT(len <= RPC_BODY_SIZE_MAX);
    if (call->peer == NULL) return STATUS_CANCELLED;

    /* Half of the queue is left to replies. */
    struct peer *peer = call->peer;
    enum status status = STATUS_FULL;
    if (rpc_conn_queued(peer->conn) <= peer->server->options.write_queue_max / 2)
        status = rpc_conn_send(peer->conn, &frame);
    if (status == STATUS_CONN_CLOSED) return STATUS_CANCELLED; /* on_cancel follows */
    if (status == STATUS_FULL) {
        rpc_list_remove(&call->link);
        rpc_list_append(&peer->blocked, &call->link);
    }
    return status;
}

void rpc_on_writable(struct rpc_call *call, void (*fn)(void *ctx), void *ctx)
{
    call->on_writable = fn;
    call->on_writable_ctx = ctx;
}

void rpc_on_cancel(struct rpc_call *call, void (*fn)(void *ctx, enum status why), void *ctx)
{
    call->on_cancel = fn;
    call->on_cancel_ctx = ctx;
    if (call->peer == NULL && fn != NULL) env_timer_set(call->env, &call->timer, 0);
}

static void peer_on_drained(void *ctx)
{
    struct peer *peer = ctx;
    struct rpc_link waiting;

    rpc_list_init(&waiting);
    rpc_list_move(&peer->blocked, &waiting);
    while (!rpc_list_is_empty(&waiting)) {
        struct rpc_call *call = call_of(waiting.next);
        rpc_list_remove(&call->link);
        rpc_list_append(&peer->open, &call->link);
        if (call->on_writable != NULL) call->on_writable(call->on_writable_ctx);
    }
}

uint64_t rpc_call_deadline_ns(const struct rpc_call *call)
{
    return call->deadline_ns;
}

const char *rpc_call_peer(const struct rpc_call *call)
{
    return call->peer_name;
}

const char *rpc_call_peer_host(const struct rpc_call *call)
{
    return call->peer_host;
}

/* ---- requests ---- */

static const struct method *find_method(const struct rpc_server *server, uint16_t id)
{
    for (uint32_t i = 0; i < server->methods_count; i++) {
        if (server->methods[i].id == id) return &server->methods[i];
    }
    return NULL;
}

static void refuse_request(struct peer *peer, uint64_t id, enum status why, const char *message)
{
    const struct rpc_frame frame = {
        .kind = RPC_KIND_FAIL,
        .call = id,
        .status = why,
        .message = { (const uint8_t *)message, strlen(message) },
    };
    LOG_DEBUG("rpc", "request_refused", "peer=%s status=%s message=%s", rpc_conn_peer(peer->conn),
              status_name(why), message);
    const enum status status = rpc_conn_send(peer->conn, &frame);
    if (status == STATUS_FULL) rpc_conn_fail(peer->conn, STATUS_FULL, "the peer does not read");
}

static uint64_t deadline_of(struct env *env, uint64_t timeout_ms)
{
    const uint64_t timeout_ms_max = UINT64_C(1000) * 86400 * 365;

    if (timeout_ms == 0) return ENV_NEVER;
    if (timeout_ms > timeout_ms_max) timeout_ms = timeout_ms_max;
    return env_now_ns(env) + timeout_ms * ENV_NS_PER_MS;
}

/* The host in "name@host:port"; a name has no '@'. */
static void name_learn(struct peer *peer)
{
    const char *name = rpc_conn_peer(peer->conn);
    const char *at = strchr(name, '@');
    const char *host = at != NULL ? at + 1 : name;
    const char *colon = strrchr(host, ':');
    const int len = colon != NULL ? (int)(colon - host) : (int)strlen(host);

    snprintf(peer->name, sizeof(peer->name), "%s", name);
    snprintf(peer->host, sizeof(peer->host), "%.*s", len, host);
}

/* A call may outlive its connection, so it has names of its own. */
static void name_call(struct rpc_call *call, struct peer *peer)
{
    if (peer->name[0] == '\0') name_learn(peer);
    memcpy(call->peer_name, peer->name, sizeof(call->peer_name));
    memcpy(call->peer_host, peer->host, sizeof(call->peer_host));
}

/* NULL if there is no memory or no room. */
static struct rpc_call *call_open(struct peer *peer, const struct rpc_frame *request)
{
    const struct block_key key = key_of(request->call);
    struct env *env = peer->server->env;
    struct rpc_call *call = malloc(sizeof(*call));

    if (call == NULL) return NULL;
    if (map_insert(peer->calls, &key, (uint64_t)(uintptr_t)call) != STATUS_OK) {
        free(call);
        return NULL;
    }
    *call = (struct rpc_call){
        .peer = peer,
        .env = env,
        .id = request->call,
        .deadline_ns = deadline_of(env, request->timeout_ms),
    };
    name_call(call, peer);
    env_timer_init(&call->timer, call_on_timer, call);
    if (call->deadline_ns != ENV_NEVER) env_timer_set(env, &call->timer, call->deadline_ns);
    rpc_list_append(&peer->open, &call->link);
    return call;
}

static void take_request(struct peer *peer, const struct rpc_frame *request)
{
    const struct block_key key = key_of(request->call);
    const struct method *method = find_method(peer->server, request->method);

    if (map_find(peer->calls, &key, NULL)) {
        rpc_conn_fail(peer->conn, STATUS_PROTOCOL, "two open calls with one id");
        return;
    }
    if (method == NULL) {
        refuse_request(peer, request->call, STATUS_UNSUPPORTED, "no such method");
        return;
    }
    struct rpc_call *call = call_open(peer, request);
    if (call == NULL) {
        refuse_request(peer, request->call, STATUS_FULL, "too many calls in flight");
        return;
    }
    LOG_TRACE("rpc", "request", "peer=%s method=%s call=%llu", call->peer_name, method->name,
              (unsigned long long)call->id);
    method->handler(method->ctx, call, request->body.data, request->body.len);
}

static void take_cancel(struct peer *peer, uint64_t id)
{
    const struct block_key key = key_of(id);
    uint64_t value;

    if (!map_find(peer->calls, &key, &value)) return; /* it has ended meanwhile */
    call_cancel((struct rpc_call *)(uintptr_t)value, STATUS_CANCELLED);
}

/* ---- connections ---- */

static void peer_on_ready(void *ctx)
{
    const struct peer *peer = ctx;
    LOG_DEBUG("rpc", "peer_accepted", "peer=%s", rpc_conn_peer(peer->conn));
}

static void peer_on_frame(void *ctx, const struct rpc_frame *frame)
{
    struct peer *peer = ctx;

    ASSERT(frame->kind == RPC_KIND_REQUEST || frame->kind == RPC_KIND_CANCEL);
    if (frame->kind == RPC_KIND_REQUEST) {
        take_request(peer, frame);
    } else {
        take_cancel(peer, frame->call);
    }
}

static void peer_destroy(struct peer *peer, enum status why)
{
    rpc_list_remove(&peer->link);
    peer->server->peers_count--;
    rpc_list_move(&peer->blocked, &peer->open);
    while (!rpc_list_is_empty(&peer->open))
        call_cancel(call_of(peer->open.next), why);
    ASSERT(map_count(peer->calls) == 0);
    map_destroy(peer->calls);
    rpc_conn_destroy(peer->conn);
    free(peer);
}

static void peer_on_closed(void *ctx, enum status why)
{
    (void)why;
    peer_destroy(ctx, STATUS_CONN_CLOSED);
}

static struct peer *peer_create(struct rpc_server *server, struct env_stream *stream)
{
    static const struct rpc_conn_events events = { peer_on_ready, peer_on_frame, peer_on_drained,
                                                   peer_on_closed };
    const struct rpc_conn_options options = {
        .is_server = true,
        .secret = server->secret,
        .name = server->name,
        .write_queue_max = server->options.write_queue_max,
        .keepalive_ns = server->options.keepalive_ms * ENV_NS_PER_MS,
        .handshake_ns = HANDSHAKE_MS * ENV_NS_PER_MS,
    };
    struct map_options map_options = { .entries_max = server->options.calls_max };
    struct peer *peer = calloc(1, sizeof(*peer));

    if (peer == NULL) return NULL;
    env_random(server->env, &map_options.seed, sizeof(map_options.seed));
    if (map_create(&map_options, &peer->calls) != STATUS_OK) goto free_peer;
    peer->server = server;
    rpc_list_init(&peer->open);
    rpc_list_init(&peer->blocked);
    peer->conn = rpc_conn_create(server->env, stream, &options, &events, peer);
    if (peer->conn == NULL) goto destroy_map;
    return peer;

destroy_map:
    map_destroy(peer->calls);
free_peer:
    free(peer);
    return NULL;
}

static void server_on_accept(void *ctx, struct env_stream *stream)
{
    struct rpc_server *server = ctx;
    struct peer *peer = NULL;

    if (server->peers_count < server->options.connections_max) peer = peer_create(server, stream);
    if (peer == NULL) {
        LOG_WARN("rpc", "conn_refused", "peer=%s reason=%s connections=%u", env_stream_peer(stream),
                 "too many connections", server->peers_count);
        env_stream_close(stream);
        return;
    }
    rpc_list_append(&server->peers, &peer->link);
    server->peers_count++;
}

/* ---- the server ---- */

static bool is_loopback(const char *address)
{
    static const char *const hosts[] = { "127.", "localhost:", "[::1]:" };

    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        if (strncmp(address, hosts[i], strlen(hosts[i])) == 0) return true;
    }
    return false;
}

static void set_defaults(struct rpc_server_options *options)
{
    if (options->connections_max == 0) options->connections_max = CONNECTIONS_DEFAULT;
    if (options->calls_max == 0) options->calls_max = CALLS_DEFAULT;
    if (options->write_queue_max == 0) options->write_queue_max = WRITE_QUEUE_DEFAULT;
    if (options->keepalive_ms == 0) options->keepalive_ms = KEEPALIVE_MS_DEFAULT;
}

enum status rpc_server_create(struct env *env, const struct rpc_server_options *options,
                              struct rpc_server **out, struct errmsg *err)
{
    const char *secret = options->secret != NULL ? options->secret : "";

    if (secret[0] == '\0' && !is_loopback(options->address))
        return errmsg_set(err, STATUS_DENIED,
                          "%s can be reached from outside: set a cluster secret, or listen on "
                          "127.0.0.1",
                          options->address);
    struct rpc_server *server = calloc(1, sizeof(*server));
    if (server == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for an RPC server");
    server->env = env;
    server->options = *options;
    set_defaults(&server->options);
    snprintf(server->name, sizeof(server->name), "%s", options->name != NULL ? options->name : "");
    rpc_list_init(&server->peers);
    server->secret = strdup(secret);
    enum status status = STATUS_NO_MEMORY;
    if (server->secret != NULL)
        status =
            env_listen(env, options->address, server_on_accept, server, &server->listener, err);
    if (status != STATUS_OK) {
        free(server->secret);
        free(server);
        return status;
    }
    *out = server;
    return STATUS_OK;
}

void rpc_server_destroy(struct rpc_server *server)
{
    if (server == NULL) return;
    env_listener_close(server->listener);
    while (!rpc_list_is_empty(&server->peers))
        peer_destroy((struct peer *)(void *)server->peers.next, STATUS_CANCELLED);
    ASSERT(server->peers_count == 0);
    explicit_bzero(server->secret, strlen(server->secret));
    free(server->secret);
    free(server);
}

uint16_t rpc_server_port(const struct rpc_server *server)
{
    return env_listener_port(server->listener);
}

uint32_t rpc_server_connections(const struct rpc_server *server)
{
    return server->peers_count;
}

void rpc_server_add(struct rpc_server *server, uint16_t id, const char *name,
                    rpc_handler_fn handler, void *ctx)
{
    ASSERT(server->methods_count < RPC_METHODS_MAX);
    ASSERT(find_method(server, id) == NULL);
    ASSERT(handler != NULL && name != NULL);
    server->methods[server->methods_count++] = (struct method){ id, name, handler, ctx };
}
