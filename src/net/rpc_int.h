/* SPDX-License-Identifier: Apache-2.0
 *
 * net/rpc_int.h - what the parts of rpc share: frames (rpc_frame.c), a connection with its
 * handshake (rpc_conn.c), and a list. On top of them stand rpc_server.c and rpc_client.c. */
#ifndef NET_RPC_INT_H
#define NET_RPC_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "net/msg.h"
#include "net/rpc.h"

struct buf;
struct env;
struct env_stream;

/* ---- frames ---- */

enum {
    RPC_NONCE_SIZE = 32,
    RPC_PROOF_SIZE = 32,
    RPC_LENGTH_SIZE =
        4,              /* u32, little-endian, before each payload of version 1 and the handshake */
    RPC_HEAD_SIZE = 16, /* before each payload of version 2: see rpc_frame.c */
    RPC_HANDSHAKE_FRAME_SIZE_MAX = 1024, /* until the peer has proved itself */
};

enum rpc_kind {
    RPC_KIND_HELLO = 1, /* handshake: see rpc_conn.c */
    RPC_KIND_CHALLENGE = 2,
    RPC_KIND_PROOF = 3,
    RPC_KIND_READY = 4,
    RPC_KIND_REFUSE = 5,
    RPC_KIND_REQUEST = 6, /* client to server: call, method, timeout, body */
    RPC_KIND_CANCEL = 7,  /* client to server: call */
    RPC_KIND_ITEM = 8,    /* server to client: call, body */
    RPC_KIND_REPLY = 9,   /* server to client: call, body; the end */
    RPC_KIND_FAIL = 10,   /* server to client: call, status, message; the end */
    RPC_KIND_PING = 11,   /* either way; answered with a pong */
    RPC_KIND_PONG = 12,
};

#define RPC_KIND_MIN RPC_KIND_HELLO
#define RPC_KIND_MAX RPC_KIND_PONG

/* Fields that a kind does not have are zero or empty. Bytes are borrowed from the payload. */
struct rpc_frame {
    enum rpc_kind kind;
    bool checked;                      /* read, of the handshake: it had its checksum */
    uint32_t version_min, version_max; /* HELLO: what the client speaks; CHALLENGE: chosen, twice */
    struct msg_bytes name;             /* HELLO, CHALLENGE */
    struct msg_bytes nonce;            /* HELLO, CHALLENGE: RPC_NONCE_SIZE bytes */
    struct msg_bytes proof;            /* PROOF, READY: RPC_PROOF_SIZE bytes */
    uint64_t call;
    uint16_t method;
    uint64_t timeout_ms;      /* REQUEST: time left; 0: no deadline */
    enum status status;       /* REFUSE, FAIL: never OK or PENDING */
    struct msg_bytes message; /* REFUSE, FAIL: shorter than RPC_MESSAGE_SIZE */
    struct msg_bytes body;
};

/* What stands before a payload. */
struct rpc_head {
    size_t len;   /* of the payload */
    uint64_t sum; /* version 2: XXH3-64 of the payload */
};

/* Its size in frames of that version; those of the handshake are of version 1, whatever is agreed
 * in it. */
size_t rpc_head_size(uint32_t version);

/* `data` has rpc_head_size() bytes. STATUS_CORRUPT: they are not what was sent. */
MUST_USE enum status rpc_head_read(const uint8_t *data, uint32_t version, struct rpc_head *out);

/* Appends head and payload. STATUS_FULL leaves the buffer as it was. */
MUST_USE enum status rpc_frame_write(struct buf *out, const struct rpc_frame *frame,
                                     uint32_t version);

/* Reads the payload that came behind the head of such a version. STATUS_CORRUPT: it is not what was
 * sent; STATUS_INVALID for anything that is not a frame with what its kind needs. */
MUST_USE enum status rpc_frame_read(const uint8_t *payload, const struct rpc_head *head,
                                    uint32_t version, struct rpc_frame *out);

/* ---- connections ---- */

struct rpc_conn; /* opaque */

struct rpc_conn_options {
    bool is_server;
    const char *secret; /* borrowed, as is name */
    const char *name;
    size_t write_queue_max;
    uint64_t keepalive_ns;
    uint64_t handshake_ns; /* connect and handshake together */
};

/* All run from the loop. on_closed is the last; the owner destroys the connection in it. */
struct rpc_conn_events {
    void (*on_ready)(void *ctx);
    void (*on_frame)(void *ctx,
                     const struct rpc_frame *frame); /* after on_ready; no handshake, ping */
    void (*on_drained)(void *ctx); /* the queue has fallen below a quarter of its limit */
    void (*on_closed)(void *ctx, enum status why);
};

/* Takes the stream: accepted for a server, connecting for a client. NULL if there is no memory. */
struct rpc_conn *rpc_conn_create(struct env *env, struct env_stream *stream,
                                 const struct rpc_conn_options *options,
                                 const struct rpc_conn_events *events, void *ctx);

/* Closes without an event. NULL is allowed. Not from inside an event other than on_closed. */
void rpc_conn_destroy(struct rpc_conn *conn);

/* Queues a frame and writes what the kernel takes. Always accepted while fewer than write_queue_max
 * bytes wait; STATUS_FULL otherwise. STATUS_CONN_CLOSED when the connection is about to close. */
MUST_USE enum status rpc_conn_send(struct rpc_conn *conn, const struct rpc_frame *frame);

/* Bytes waiting to be written. */
size_t rpc_conn_queued(const struct rpc_conn *conn);

/* Closes soon, from the loop. The first reason (a literal) wins. */
void rpc_conn_fail(struct rpc_conn *conn, enum status why, const char *reason);

const char *rpc_conn_peer(const struct rpc_conn *conn); /* "name@host:port" once ready */

/* ---- lists: circular, with a head that is no element ---- */

struct rpc_link {
    struct rpc_link *prev, *next;
};

static inline void rpc_list_init(struct rpc_link *head)
{
    head->prev = head;
    head->next = head;
}

static inline bool rpc_list_is_empty(const struct rpc_link *head)
{
    return head->next == head;
}

static inline void rpc_list_append(struct rpc_link *head, struct rpc_link *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

/* Idempotent: a removed link is a list of its own. */
static inline void rpc_list_remove(struct rpc_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    rpc_list_init(link);
}

/* Moves every element of `from` behind those of `to`. */
static inline void rpc_list_move(struct rpc_link *from, struct rpc_link *to)
{
    while (!rpc_list_is_empty(from)) {
        struct rpc_link *link = from->next;
        rpc_list_remove(link);
        rpc_list_append(to, link);
    }
}

#endif
