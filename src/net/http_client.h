/* SPDX-License-Identifier: Apache-2.0
 *
 * net/http_client.h - one HTTP/1.1 request on env: for probes, tools, benches and fetches.
 *
 * Each request has a connection of its own. The body of the answer comes in pieces, as it arrives;
 * with on_line set it comes as lines instead, which is what server-sent events are made of; the
 * last one of a whole answer may lack its end.
 *
 * Memory:  the request is copied; pieces are borrowed for the duration of the callback.
 * Threads: the env's thread.
 * Limits:  HTTP_CLIENT_BODY_MAX bytes of request, HTTP_CLIENT_LINE_MAX bytes a line, the deadline.
 */
#ifndef NET_HTTP_CLIENT_H
#define NET_HTTP_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct env;
struct tls_identity; /* net/tls.h */
struct http_client;  /* one request under way */

enum {
    HTTP_CLIENT_BODY_MAX = 64 << 20,
    HTTP_CLIENT_LINE_MAX = 1 << 20,
    HTTP_CLIENT_WHY_SIZE = 200,
};

struct http_reply {
    enum status status;             /* STATUS_OK: the answer came whole; otherwise why not */
    int code;                       /* 200; 0 if no head came */
    char why[HTTP_CLIENT_WHY_SIZE]; /* what is wrong with TLS, for people; "": nothing */
};

struct http_client_options {
    const char *address; /* "host:port" */
    const char *host;    /* as the header Host has it; NULL: the address */
    const char *method;
    const char *path;
    const char *headers; /* whole lines, each ended by \r\n; NULL: none */
    const void *body;    /* NULL: none */
    size_t len;
    uint64_t deadline_ns;
    const struct tls_identity *identity; /* HTTPS, believing whom this one says; NULL: HTTP */
    /* Told of the head before the body comes; http_client_code() and _header() know it. */
    void (*on_head)(void *ctx, const struct http_client *client); /* NULL is allowed */
    void (*on_data)(void *ctx, const char *data, size_t len);     /* NULL: the body is dropped */
    void (*on_line)(void *ctx, const char *line, size_t len); /* instead of on_data; without \n */
    void (*on_done)(void *ctx, const struct http_reply *reply);
    void *ctx;
};

/* STATUS_OK: on_done runs exactly once, never from inside this call; the client is freed when it
 * returns. STATUS_INVALID: the address does not parse. */
MUST_USE enum status http_client_start(struct env *env, const struct http_client_options *options,
                                       struct http_client **out, struct errmsg *err);

/* Inside on_head. NULL: there is no such header. */
int http_client_code(const struct http_client *client);
const char *http_client_header(const struct http_client *client, const char *name);

/* Hangs up at once. on_done does not run. Allowed inside on_head, on_data and on_line. */
void http_client_cancel(struct http_client *client);

#endif
