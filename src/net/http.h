/* SPDX-License-Identifier: Apache-2.0
 *
 * net/http.h - an HTTP/1.1 server on env: bounded, in order, and aware of clients that leave.
 *
 * on_request runs when a request has arrived whole: head and body. The handler owns the struct
 * http_request until it ends it, now or later, in one of two ways:
 *   http_respond()                                whole answer, with Content-Length
 *   http_begin(), http_send()..., http_end()      stream: chunked for 1.1, until close for 1.0
 * Requests pipelined behind it wait: one request of a connection is with a handler at a time, so
 * answers are in order.
 *
 * A client that leaves is noticed at any time, also before the answer starts: on_hangup fires,
 * once, and the handler still ends the request (nothing is sent). A half-closed connection counts
 * as left.
 *
 * What never reaches a handler is answered here, with an OpenAI-style error object, and closes the
 * connection: 400 malformed, 408 head or body too slow, 413 body too large, 417 unknown
 * expectation, 431 head too large, 501 unknown transfer coding, 503 too many connections, 505 a
 * version that is not 1.x. Malformed is also what two servers may take for different requests:
 * blanks in or before a header's name, folded lines, Host twice, a transfer coding of HTTP/1.0.
 *
 * Memory:  a connection holds its input (head + body, bounded) and its output queue (bounded).
 *          Strings returned for a request are valid until it ends.
 * Threads: everything belongs to the env's thread.
 * Limits:  the options; HTTP_HEADERS_MAX headers a request; HTTP_PIPELINE_MAX bytes read ahead
 *          behind a request that is with its handler (beyond it a hang-up is noticed on writing).
 */
#ifndef NET_HTTP_H
#define NET_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct env;
struct http_server;
struct http_request;
struct tls_identity; /* net/tls.h */

enum {
    HTTP_HEADERS_MAX = 64,
    HTTP_PIPELINE_MAX = 64 << 10,
    HTTP_REPLY_HEADERS_SIZE_MAX = 4096,
    HTTP_REPLY_SIZE_MAX = 64 << 20, /* of a whole answer's body, or of one piece */
};

struct http_server_options {
    const char *address; /* "host:port" as for env_listen() */
    void (*on_request)(void *ctx, struct http_request *req);
    void *ctx;
    const struct tls_identity *identity; /* HTTPS under this one, which outlives the server or its
                                          * replacement; NULL: HTTP */
    /* 0 takes the default in brackets. */
    uint32_t connections_max; /* [1024] more get 503 and are closed */
    uint32_t head_size_max;   /* [16 KiB] request line and headers */
    size_t body_size_max;     /* [16 MiB] */
    size_t bodies_size_max;   /* [256 MiB] of all requests together; beyond it 503 */
    size_t send_queue_max;    /* [1 MiB] bytes not yet sent, beyond which http_send() pushes back */
    uint32_t head_timeout_ms; /* [10000] from the first byte of a request to its head's end */
    uint32_t body_timeout_ms; /* [30000] from there to the end of the body */
    uint32_t idle_timeout_ms; /* [60000] between requests, and before the first */
    uint32_t send_timeout_ms; /* [30000] with output waiting and the client taking none of it */
};

/* env_listen()'s statuses; err says why. */
MUST_USE enum status http_server_create(struct env *env, const struct http_server_options *options,
                                        struct http_server **out, struct errmsg *err);

/* Connections accepted from now on are under another identity; there was one before. */
void http_server_set_identity(struct http_server *server, const struct tls_identity *identity);

/* Answers say `Connection: close` from now on; everything else goes on. */
void http_server_leave(struct http_server *server);

/* Stops accepting, answers `Connection: close` from now on, and closes idle connections. */
void http_server_drain(struct http_server *server);

/* Closes every connection; requests with handlers get on_hangup from inside, and stay valid until
 * their handlers end them. NULL is allowed. */
void http_server_destroy(struct http_server *server);

uint16_t http_server_port(const struct http_server *server);
uint32_t http_server_connections(const struct http_server *server);

/* ---- the request ---- */

const char *http_method(const struct http_request *req); /* "GET", "POST", ... */
const char *http_path(const struct http_request *req);   /* "/v1/models": as sent, no query */
const char *http_query(const struct http_request *req);  /* behind the '?', or "" */
/* The first header of that name, case ignored, without blanks around it; NULL if there is none. */
const char *http_header(const struct http_request *req, const char *name);
/* Whole, with a NUL behind its *len bytes. Never NULL. */
const char *http_body(const struct http_request *req, size_t *len);
const char *http_peer(const struct http_request *req); /* "host:port" */
/* When its last byte arrived, on env's clock. */
uint64_t http_arrived_ns(const struct http_request *req);

/* ---- the answer ---- */

/* Adds a header to the answer; before http_respond() or http_begin(). A value is cut at the first
 * control character. Dropped, with a warning, beyond HTTP_REPLY_HEADERS_SIZE_MAX in all. */
void http_set_header(struct http_request *req, const char *name, const char *value);

/* Ends the request. `type` NULL sends no Content-Type. The body is copied. HEAD gets the head only.
 */
void http_respond(struct http_request *req, int status, const char *type, const void *body,
                  size_t len);

/* Starts a streamed answer. Once. */
void http_begin(struct http_request *req, int status, const char *type);

/* Queues one piece, written when the loop turns. STATUS_FULL: the client reads slowly; nothing was
 * taken, and on_writable will fire. STATUS_CONN_CLOSED: the client has left; end the request. A
 * piece is accepted whenever the queue is empty, whatever its size. len 0 does nothing. */
MUST_USE enum status http_send(struct http_request *req, const void *data, size_t len);

/* Called once, from the loop, when an http_send() that answered STATUS_FULL is worth another try.
 */
void http_on_writable(struct http_request *req, void (*fn)(void *ctx), void *ctx);

/* Called at most once, from the loop, when the client has left. Never called after the end. */
void http_on_hangup(struct http_request *req, void (*fn)(void *ctx), void *ctx);

/* Ends a streamed answer, and the request. */
void http_end(struct http_request *req);

/* Ends a streamed answer that went wrong: closes the connection without the final chunk, so that
 * the client cannot take it for whole. Before http_begin() it answers 500. */
void http_abort(struct http_request *req);

/* "Not Found" for 404; "Unknown" for a number without a name. */
const char *http_status_text(int status);

#endif
