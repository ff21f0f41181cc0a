/* SPDX-License-Identifier: Apache-2.0
 *
 * net/rpc.h - calls between our processes: unary and server-streaming, on env, never blocking.
 *
 * A server has methods, numbered, with a name for logs. A client keeps one connection to one
 * address, connects again when it is lost (50 ms doubling to 1 s, with jitter), and says when it
 * goes up and down. Bodies are opaque bytes here; by convention they are one msgpack map
 * (net/msg.h).
 *
 * A call ends exactly once on each side:
 *   client: on_end() with the reply, the server's refusal, STATUS_TIMEOUT, STATUS_CANCELLED,
 *           STATUS_CONN_CLOSED (it was up: the server may have acted) or STATUS_CONN_REFUSED (it
 * never left: the server has not acted). server: the handler owns the struct rpc_call until it ends
 * it with rpc_reply() or rpc_fail(), also after on_cancel() has told it that nobody waits any more.
 *
 * Both ends prove that they know the cluster secret before a call is accepted (docs in rpc.c). An
 * empty secret means an open cluster, which a server accepts on loopback addresses only.
 *
 * Memory:  frames are copied into a connection's write queue; bodies handed to callbacks are
 *          borrowed for the duration of the callback.
 * Threads: everything belongs to the env's thread.
 * Limits:  frames up to RPC_FRAME_SIZE_MAX; connections, calls and queued bytes as in the options.
 *          A peer that does not read is disconnected when its queue is full of replies; stream
 *          items push back instead. A peer from which nothing comes for 3 * keepalive_ms, though it
 *          is asked, is disconnected. Garbage disconnects, with a logged reason, and so does a
 *          frame that is not what was sent: nothing of it is acted upon. */
#ifndef NET_RPC_H
#define NET_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct env;

enum {
    RPC_VERSION_MIN = 1, /* of the protocol, that we speak */
    RPC_VERSION_MAX = 2, /* every frame has a checksum; see docs/internals/rpc-wire.md */
    RPC_FRAME_SIZE_MAX = 64 << 20,
    RPC_BODY_SIZE_MAX = RPC_FRAME_SIZE_MAX - 4096,
    RPC_NAME_SIZE = 64,     /* of a process, with its NUL */
    RPC_MESSAGE_SIZE = 256, /* of a refusal, with its NUL */
    RPC_METHODS_MAX = 256,
};

/* Frames, of all connections of this process, that were not what their checksums say. Each has
 * cost its connection. Any thread. */
uint64_t rpc_damaged_total(void);

/* ---- TLS ---- */

struct env;
struct tls_identity; /* net/tls.h */

/* All RPC connections of this env that begin from now on, both ways, are TLS under this identity,
 * which has a certificate and knows the cluster's CA, so that both ends judge each other. It
 * may be replaced, and destroyed then: connections keep what they need of it. NULL, as at first: in
 * the clear. The secret is proved in any case. */
void rpc_set_identity(struct env *env, struct tls_identity *identity);
struct tls_identity *rpc_identity(struct env *env);

/* ---- server ---- */

struct rpc_server;
struct rpc_call;

struct rpc_server_options {
    const char *address; /* "host:port" as for env_listen() */
    const char *secret;  /* NULL or "": open, loopback only */
    const char *name;    /* told to peers, for their logs */
    /* 0 takes the default in brackets. */
    uint32_t connections_max; /* [256] */
    uint32_t calls_max;       /* [4096] in flight per connection; more are refused: STATUS_FULL */
    size_t write_queue_max;   /* [64 MiB] bytes per connection */
    uint32_t keepalive_ms;    /* [5000] silence after which the peer is asked for a sign of life */
};

/* STATUS_DENIED for an open server on a public address; env_listen()'s statuses otherwise; err says
 * why. On success the server listens, and connections wait until env runs. */
MUST_USE enum status rpc_server_create(struct env *env, const struct rpc_server_options *options,
                                       struct rpc_server **out, struct errmsg *err);

/* Stops listening and closes every connection. Handlers' calls get their on_cancel(CANCELLED) from
 * inside; calls not ended by then stay valid until their handlers end them. NULL is allowed. Not
 * from inside a handler or a callback of this server. */
void rpc_server_destroy(struct rpc_server *server);

uint16_t rpc_server_port(const struct rpc_server *server);
uint32_t rpc_server_connections(const struct rpc_server *server);

/* Runs for each request. `body` is borrowed for the duration; `call` is the handler's until it ends
 * it, now or later. */
typedef void (*rpc_handler_fn)(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);

/* `name` must be static. At most RPC_METHODS_MAX; an id twice is a bug. */
void rpc_server_add(struct rpc_server *server, uint16_t id, const char *name,
                    rpc_handler_fn handler, void *ctx);

/* Ends the call with its result. If the caller is gone, drops it. A body over RPC_BODY_SIZE_MAX is
 * a bug. */
void rpc_reply(struct rpc_call *call, const void *body, size_t len);

/* Ends the call with a refusal: any status but OK and PENDING, and one line for people (NULL:
 * none). */
void rpc_fail(struct rpc_call *call, enum status status, const char *message);

/* Sends one item of a stream, before the end. STATUS_FULL: the caller reads slowly; nothing was
 * taken, and on_writable will fire. STATUS_CANCELLED: nobody waits any more; end the call. */
MUST_USE enum status rpc_send(struct rpc_call *call, const void *body, size_t len);

/* Called once, when an rpc_send() that answered STATUS_FULL is worth another try. */
void rpc_on_writable(struct rpc_call *call, void (*fn)(void *ctx), void *ctx);

/* Called at most once, from the loop, when the call is pointless: STATUS_CANCELLED (the client said
 * so), STATUS_TIMEOUT (its deadline passed) or STATUS_CONN_CLOSED. The handler still has to end the
 * call, there or later. Never called after the call has ended. */
void rpc_on_cancel(struct rpc_call *call, void (*fn)(void *ctx, enum status why), void *ctx);

/* ENV_NEVER if the client set none. On our clock. */
uint64_t rpc_call_deadline_ns(const struct rpc_call *call);
const char *rpc_call_peer(const struct rpc_call *call);      /* "name@host:port", for logs */
const char *rpc_call_peer_host(const struct rpc_call *call); /* "host" */

/* ---- client ---- */

struct rpc_client;

struct rpc_client_options {
    const char *address;
    const char *secret;
    const char *name;
    uint32_t calls_max;          /* [4096] in flight or waiting; more are refused: STATUS_FULL */
    size_t write_queue_max;      /* [64 MiB] */
    uint32_t keepalive_ms;       /* [5000] */
    uint32_t connect_timeout_ms; /* [5000] for connection and handshake together */
    /* Called from the loop on every change: up, or down with the reason. NULL is allowed. The
     * client goes on trying in any case. */
    void (*on_state)(void *ctx, bool up, enum status why);
    void *ctx;
};

/* Starts to connect. STATUS_INVALID if the address does not parse. */
MUST_USE enum status rpc_client_create(struct env *env, const struct rpc_client_options *options,
                                       struct rpc_client **out, struct errmsg *err);

/* Every call in flight ends with on_end(STATUS_CANCELLED) from inside. NULL is allowed. Not from
 * inside on_item, on_end or on_state of this client. */
void rpc_client_destroy(struct rpc_client *client);

bool rpc_client_is_up(const struct rpc_client *client);
const char *rpc_client_address(const struct rpc_client *client);

struct rpc_call_id {
    uint64_t value; /* 0 is no call */
};

struct rpc_result {
    enum status status;  /* STATUS_OK: the reply; otherwise why there is none */
    const uint8_t *body; /* of the reply; never NULL */
    size_t len;
    const char *message; /* of a refusal; "" if it has none */
};

struct rpc_request {
    uint16_t method;
    const void *body; /* copied */
    size_t len;
    uint64_t deadline_ns; /* on env's clock; ENV_NEVER for none; 0 is a bug */
    /* While the connection is down: true waits for it until the deadline; false ends the call with
     * STATUS_CONN_REFUSED as soon as the attempt under way has failed. */
    bool wait_until_up;
    void (*on_item)(void *ctx, const uint8_t *body, size_t len); /* NULL: items are dropped */
    void (*on_end)(void *ctx, const struct rpc_result *result);
    void *ctx;
};

/* STATUS_OK: on_end will run exactly once, not before this returns. STATUS_FULL: calls_max or the
 * write queue is full; no callback runs. */
MUST_USE enum status rpc_call(struct rpc_client *client, const struct rpc_request *request,
                              struct rpc_call_id *out);

/* Gives up: tells the server, drops further items, and runs on_end(STATUS_CANCELLED) on a later
 * turn. A call that has ended already is left alone. */
void rpc_cancel(struct rpc_client *client, struct rpc_call_id id);

#endif
