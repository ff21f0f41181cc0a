/* SPDX-License-Identifier: Apache-2.0
 *
 * net/http.c - connections of the HTTP server: who may read, who may write, and for how long.
 *
 *            first byte          head read           body read: on_request
 *     IDLE ------------> HEAD ------------> BODY ----------------------------> ACTIVE
 *      ^                   |                  |                                   |
 *      |                   +--- refused: 4xx, 5xx ---+                            | http_respond,
 *      |                                             v                            | http_end
 *      +---- all sent, connection is kept ------ FLUSHING <-----------------------+
 *                                                    | all sent, connection is not kept
 *                                                    v
 *     any -- the client left, or a time limit passed --> closed
 *
 * A request and its connection can outlive each other: the handler may hold a request whose client
 * has left. Each has a pointer to the other, cleared on both sides by the one that goes first.
 *
 * Invariants
 *   I1  Handlers' callbacks run only from conn_turn() or a timer, never inside an http_* call.
 *   I2  conn_turn() is not re-entered; a call from a handler inside it only changes state, and one
 *       from outside schedules a turn.
 *   I3  The next request is not begun before the last answer has left: the output queue holds one
 *       answer at most.
 *   I4  While output waits for the client, the stream is watched for writing and send_timer runs.
 *   I5  Pieces of a streamed answer are written by the turn that follows, so that all that the loop
 *       has put in meanwhile is one write: a system call costs more than what a gateway does for a
 *       token.
 *
 * Threads: the env's.
 * Limits:  see http.h. */
#include "net/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/list.h"
#include "base/log.h"
#include "net/http_int.h"
#include "net/wire.h"

enum {
    READ_SIZE = 16 << 10,
    READS_PER_TURN = 8,
    PEER_SIZE = 80,
    OUT_SIZE_MAX = HTTP_REPLY_SIZE_MAX + (64 << 10), /* an answer with its head */
    IDLE_BUFFER_SIZE_MAX = 64 << 10,
};

enum conn_state { CONN_IDLE, CONN_HEAD, CONN_BODY, CONN_ACTIVE, CONN_FLUSHING };

struct http_server {
    struct env *env;
    struct env_listener *listener;
    struct http_server_options options;
    struct conn *conns; /* doubly linked */
    uint32_t conns_count;
    size_t bodies_size; /* the sum of the connections' body_size */
    bool is_leaving;
};

struct conn {
    struct conn *prev, *next;
    struct http_server *server;
    struct env *env;
    struct wire wire;
    enum conn_state state;
    struct http_parse *parse; /* in HEAD and BODY */
    struct http_request *req; /* in ACTIVE */
    size_t body_size;         /* of the request on its way in or with its handler */
    struct buf in, out;
    unsigned watched;
    bool in_turn;
    bool keeps_alive; /* after the answer under way */
    bool has_failed;  /* the client has left, or must be taken for it; closed at the turn's end */
    struct env_timer receive_timer; /* of IDLE, HEAD, BODY */
    struct env_timer send_timer;
    struct env_timer turn_timer;
    char peer[PEER_SIZE];
};

struct http_request {
    struct conn *conn; /* NULL: the client has left */
    struct env *env;
    struct http_parse *parse;
    uint64_t arrived_ns;
    bool has_begun; /* http_begin() was called */
    bool is_chunked;
    bool is_blocked; /* the last http_send() was answered STATUS_FULL */
    void (*on_writable)(void *ctx);
    void *on_writable_ctx;
    void (*on_hangup)(void *ctx);
    void *on_hangup_ctx;
    struct env_timer
        hangup_timer;   /* for an on_hangup that is set when the client has left already */
    struct buf headers; /* of the answer */
    char peer[PEER_SIZE];
};

static void conn_ready(void *ctx, unsigned events);
static void conn_turn(struct conn *conn);

static bool edge_exists(enum conn_state from, enum conn_state to)
{
    switch (from) {
    case CONN_IDLE: return to == CONN_HEAD;
    case CONN_HEAD: return to == CONN_BODY || to == CONN_FLUSHING;
    case CONN_BODY: return to == CONN_ACTIVE || to == CONN_FLUSHING;
    case CONN_ACTIVE: return to == CONN_FLUSHING;
    case CONN_FLUSHING: return to == CONN_IDLE;
    }
    return false;
}

static void set_state(struct conn *conn, enum conn_state state)
{
    ASSERT(edge_exists(conn->state, state));
    conn->state = state;
}

static void arm(struct conn *conn, struct env_timer *timer, uint32_t ms)
{
    env_timer_set(conn->env, timer, env_now_ns(conn->env) + ms * ENV_NS_PER_MS);
}

/* ---- output ---- */

static void give_back(struct buf *buf)
{
    if (buf->len > 0 || buf->cap <= IDLE_BUFFER_SIZE_MAX) return;
    const size_t size_max = buf->size_max;
    buf_fini(buf);
    buf_init(buf, size_max);
}

/* Gives an empty buffer back whatever its size: input is expected for little of the time that a
 * connection lives. */
static void let_go(struct buf *buf)
{
    const size_t size_max = buf->size_max;

    if (buf->len > 0) return;
    buf_fini(buf);
    buf_init(buf, size_max);
}

/* Writes what the kernel takes. */
static void flush(struct conn *conn)
{
    bool has_progress = false;

    while (conn->out.len > 0 && !conn->has_failed) {
        size_t n = 0;
        const enum status status = wire_write(&conn->wire, buf_data(&conn->out), conn->out.len, &n);
        if (status == STATUS_AGAIN) break;
        if (status != STATUS_OK) {
            conn->has_failed = true;
            return;
        }
        buf_consume(&conn->out, n);
        has_progress = true;
    }
    if (conn->out.len == 0) {
        env_timer_cancel(conn->env, &conn->send_timer);
        give_back(&conn->out);
    } else if (has_progress || !env_timer_armed(&conn->send_timer)) {
        arm(conn, &conn->send_timer, conn->server->options.send_timeout_ms);
    }
}

/* One answer at a time is in the queue (I3), and its size is checked by whoever adds to it. */
static void put(struct conn *conn, const void *data, size_t len)
{
    if (buf_append(&conn->out, data, len) == STATUS_OK) return;
    LOG_WARN("http", "no_memory", "peer=%s", conn->peer);
    conn->has_failed = true;
}

static void put_text(struct conn *conn, const char *text)
{
    put(conn, text, strlen(text));
}

static void put_head(struct conn *conn, int status, const char *type, const struct buf *headers)
{
    char line[256];

    snprintf(line, sizeof(line), "HTTP/1.1 %d %s\r\n", status, http_status_text(status));
    put_text(conn, line);
    if (type != NULL) {
        snprintf(line, sizeof(line), "Content-Type: %.200s\r\n", type);
        put_text(conn, line);
    }
    if (headers != NULL) put(conn, buf_data(headers), headers->len);
}

static void put_length(struct conn *conn, size_t len)
{
    char line[64];
    snprintf(line, sizeof(line), "Content-Length: %zu\r\n", len);
    put_text(conn, line);
}

static void put_head_end(struct conn *conn, bool is_1_1)
{
    if (!conn->keeps_alive) {
        put_text(conn, "Connection: close\r\n\r\n");
    } else if (!is_1_1) {
        put_text(conn, "Connection: keep-alive\r\n\r\n");
    } else {
        put_text(conn, "\r\n");
    }
}

/* After a change from outside conn_turn(): what follows from it runs on the next turn (I1, I2). */
static void turn_soon(struct conn *conn)
{
    if (conn->in_turn || env_timer_armed(&conn->turn_timer)) return;
    env_timer_set(conn->env, &conn->turn_timer, 0);
}

static void count_body(struct conn *conn, size_t size)
{
    struct http_server *server = conn->server;

    ASSERT(server->bodies_size >= conn->body_size);
    server->bodies_size = server->bodies_size - conn->body_size + size;
    conn->body_size = size;
}

/* ---- answers of our own ---- */

static void format_error(char *out, size_t size, int code, const char *message)
{
    const char *type = code < 500 ? "invalid_request_error" : "server_error";
    snprintf(out, size,
             "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":null}}",
             message, type);
}

/* Answers what never became a request, and closes. `message` is ours, without quotes. */
static void refuse(struct conn *conn, int code, const char *message)
{
    char body[512];

    LOG_DEBUG("http", "refused", "peer=%s code=%d reason=%s", conn->peer, code, message);
    format_error(body, sizeof(body), code, message);
    env_timer_cancel(conn->env, &conn->receive_timer);
    http_parse_destroy(conn->parse);
    conn->parse = NULL;
    count_body(conn, 0);
    buf_clear(&conn->in);
    conn->keeps_alive = false;
    put_head(conn, code, "application/json", NULL);
    put_length(conn, strlen(body));
    put_head_end(conn, true);
    put_text(conn, body);
    set_state(conn, CONN_FLUSHING);
    flush(conn);
}

/* ---- requests ---- */

static void request_free(struct http_request *req)
{
    env_timer_cancel(req->env, &req->hangup_timer);
    http_parse_destroy(req->parse);
    buf_fini(&req->headers);
    free(req);
}

static void request_on_timer(void *ctx)
{
    struct http_request *req = ctx;
    void (*on_hangup)(void *) = req->on_hangup;

    ASSERT(req->conn == NULL);
    req->on_hangup = NULL;
    if (on_hangup != NULL) on_hangup(req->on_hangup_ctx);
}

/* BODY to ACTIVE. */
static void hand_over(struct conn *conn)
{
    struct http_request *req = calloc(1, sizeof(*req));

    env_timer_cancel(conn->env, &conn->receive_timer);
    if (req == NULL) {
        refuse(conn, 503, "There is no memory for the request");
        return;
    }
    req->conn = conn;
    req->env = conn->env;
    req->parse = conn->parse;
    req->arrived_ns = env_now_ns(conn->env);
    memcpy(req->peer, conn->peer, sizeof(req->peer));
    env_timer_init(&req->hangup_timer, request_on_timer, req);
    buf_init(&req->headers, HTTP_REPLY_HEADERS_SIZE_MAX);
    conn->parse = NULL;
    conn->req = req;
    let_go(&conn->in);
    conn->keeps_alive = http_parse_keeps_alive(req->parse) && !conn->server->is_leaving;
    set_state(conn, CONN_ACTIVE);
    conn->server->options.on_request(conn->server->options.ctx, req);
}

/* ACTIVE to FLUSHING; the request is gone. */
static void request_end(struct http_request *req)
{
    struct conn *conn = req->conn;

    request_free(req);
    if (conn == NULL) return;
    conn->req = NULL;
    count_body(conn, 0);
    set_state(conn, CONN_FLUSHING);
    flush(conn);
    turn_soon(conn);
}

const char *http_method(const struct http_request *req)
{
    return http_parse_method(req->parse);
}

const char *http_path(const struct http_request *req)
{
    return http_parse_path(req->parse);
}

const char *http_query(const struct http_request *req)
{
    return http_parse_query(req->parse);
}

const char *http_header(const struct http_request *req, const char *name)
{
    return http_parse_header(req->parse, name);
}

const char *http_body(const struct http_request *req, size_t *len)
{
    return http_parse_body(req->parse, len);
}

const char *http_peer(const struct http_request *req)
{
    return req->peer;
}

uint64_t http_arrived_ns(const struct http_request *req)
{
    return req->arrived_ns;
}

/* ---- answers of handlers ---- */

void http_set_header(struct http_request *req, const char *name, const char *value)
{
    size_t len = 0;

    ASSERT(!req->has_begun);
    while ((unsigned char)value[len] >= ' ' && value[len] != 0x7f)
        len++;
    const size_t before = req->headers.len;
    enum status status = buf_printf(&req->headers, "%s: ", name);
    if (status == STATUS_OK) status = buf_append(&req->headers, value, len);
    if (status == STATUS_OK) status = buf_append_text(&req->headers, "\r\n");
    if (status == STATUS_OK) return;
    buf_truncate(&req->headers, before);
    LOG_WARN("http", "header_dropped", "name=%s", name);
}

static bool has_no_body(int status)
{
    return status < 200 || status == 204 || status == 304;
}

void http_respond(struct http_request *req, int status, const char *type, const void *body,
                  size_t len)
{
    struct conn *conn = req->conn;

    ASSERT(!req->has_begun);
    ASSERT(status >= 200 && status <= 599);
    ASSERT(len <= HTTP_REPLY_SIZE_MAX);
    if (conn != NULL) {
        put_head(conn, status, type, &req->headers);
        if (!has_no_body(status)) put_length(conn, len);
        put_head_end(conn, http_parse_is_1_1(req->parse));
        if (!has_no_body(status) && !http_parse_is_head(req->parse)) put(conn, body, len);
    }
    request_end(req);
}

void http_begin(struct http_request *req, int status, const char *type)
{
    struct conn *conn = req->conn;

    ASSERT(!req->has_begun);
    req->has_begun = true;
    if (conn == NULL) return;
    req->is_chunked = http_parse_is_1_1(req->parse);
    if (!req->is_chunked) conn->keeps_alive = false;
    put_head(conn, status, type, &req->headers);
    if (req->is_chunked) put_text(conn, "Transfer-Encoding: chunked\r\n");
    put_head_end(conn, req->is_chunked);
    turn_soon(conn);
}

static void put_piece(struct conn *conn, bool is_chunked, const void *data, size_t len)
{
    char size[24];

    if (is_chunked) {
        snprintf(size, sizeof(size), "%zx\r\n", len);
        put_text(conn, size);
    }
    put(conn, data, len);
    if (is_chunked) put_text(conn, "\r\n");
}

static bool overfills(const struct conn *conn, size_t len)
{
    return conn->out.len > 0 && conn->out.len + len > conn->server->options.send_queue_max;
}

enum status http_send(struct http_request *req, const void *data, size_t len)
{
    struct conn *conn = req->conn;

    ASSERT(req->has_begun);
    ASSERT(len <= HTTP_REPLY_SIZE_MAX);
    if (conn == NULL || conn->has_failed) return STATUS_CONN_CLOSED;
    if (len == 0 || http_parse_is_head(req->parse)) return STATUS_OK;
    if (overfills(conn, len)) flush(conn);
    if (overfills(conn, len)) {
        req->is_blocked = true;
        return STATUS_FULL;
    }
    put_piece(conn, req->is_chunked, data, len);
    turn_soon(conn);
    return conn->has_failed ? STATUS_CONN_CLOSED : STATUS_OK;
}

void http_on_writable(struct http_request *req, void (*fn)(void *ctx), void *ctx)
{
    req->on_writable = fn;
    req->on_writable_ctx = ctx;
}

void http_on_hangup(struct http_request *req, void (*fn)(void *ctx), void *ctx)
{
    req->on_hangup = fn;
    req->on_hangup_ctx = ctx;
    if (req->conn == NULL && fn != NULL) env_timer_set(req->env, &req->hangup_timer, 0);
}

void http_end(struct http_request *req)
{
    ASSERT(req->has_begun);
    if (req->conn != NULL && req->is_chunked && !http_parse_is_head(req->parse))
        put_text(req->conn, "0\r\n\r\n");
    request_end(req);
}

void http_abort(struct http_request *req)
{
    char body[512];

    if (!req->has_begun) {
        format_error(body, sizeof(body), 500, "The server failed to answer");
        http_respond(req, 500, "application/json", body, strlen(body));
        return;
    }
    if (req->conn != NULL) req->conn->keeps_alive = false;
    request_end(req);
}

/* ---- connections ---- */

/* The request's handler learns it from here (I1), and keeps the request. */
static void conn_close(struct conn *conn)
{
    struct http_server *server = conn->server;
    struct http_request *req = conn->req;

    ASSERT(server->conns_count > 0);
    server->conns_count--;
    count_body(conn, 0);
    LIST_REMOVE(server->conns, conn);
    env_timer_cancel(conn->env, &conn->receive_timer);
    env_timer_cancel(conn->env, &conn->send_timer);
    env_timer_cancel(conn->env, &conn->turn_timer);
    wire_close(&conn->wire);
    http_parse_destroy(conn->parse);
    buf_fini(&conn->in);
    buf_fini(&conn->out);
    free(conn);
    if (req == NULL) return;
    req->conn = NULL;
    request_on_timer(req);
}

static bool wants_read(const struct conn *conn)
{
    if (conn->state == CONN_FLUSHING && !conn->keeps_alive) return false;
    return conn->in.len < HTTP_PIPELINE_MAX;
}

static void watch(struct conn *conn)
{
    const unsigned events =
        (wants_read(conn) ? ENV_READ : 0u) | (conn->out.len > 0 ? ENV_WRITE : 0u);

    if (events == conn->watched) return;
    conn->watched = events;
    wire_watch(&conn->wire, events, conn_ready, conn);
}

/* To who speaks HTTP where HTTPS is spoken, in his language, as far as the kernel takes it. */
static void answer_plain(struct conn *conn)
{
    static const char body[] = "{\"error\":{\"message\":\"This port speaks HTTPS only\",\"type\":"
                               "\"invalid_request_error\",\"param\":null,\"code\":null}}";
    char answer[512];
    const int len = snprintf(answer, sizeof(answer),
                             "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
                             "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
                             sizeof(body) - 1, body);
    wire_answer_plain(&conn->wire, answer, (size_t)len);
}

static void read_some(struct conn *conn)
{
    for (int i = 0; i < READS_PER_TURN && wants_read(conn); i++) {
        uint8_t *to;
        size_t n = 0;
        enum status status = buf_reserve(&conn->in, READ_SIZE, &to);
        if (status == STATUS_OK) status = wire_read(&conn->wire, to, READ_SIZE, &n);
        if (status == STATUS_AGAIN) return;
        if (status != STATUS_OK) {
            if (wire_peer_is_plain(&conn->wire)) answer_plain(conn);
            conn->has_failed = true;
            return;
        }
        buf_commit(&conn->in, n);
    }
}

/* IDLE to HEAD. */
static void begin_request(struct conn *conn)
{
    const struct http_limits limits = { conn->server->options.head_size_max,
                                        conn->server->options.body_size_max };
    conn->parse = http_parse_create(&limits);
    if (conn->parse == NULL) {
        conn->has_failed = true;
        return;
    }
    set_state(conn, CONN_HEAD);
    arm(conn, &conn->receive_timer, conn->server->options.head_timeout_ms);
}

/* HEAD to BODY. */
static void begin_body(struct conn *conn)
{
    set_state(conn, CONN_BODY);
    arm(conn, &conn->receive_timer, conn->server->options.body_timeout_ms);
    const bool is_waiting = http_parse_state(conn->parse) == HTTP_PARSE_BODY;
    if (!is_waiting || conn->in.len > 0 || !http_parse_expects_continue(conn->parse)) return;
    put_text(conn, "HTTP/1.1 100 Continue\r\n\r\n");
    flush(conn);
}

static void parse_some(struct conn *conn)
{
    const char *message;

    const size_t n = http_parse_feed(conn->parse, (const char *)buf_data(&conn->in), conn->in.len);
    buf_consume(&conn->in, n);
    const enum http_parse_state state = http_parse_state(conn->parse);
    if (state == HTTP_PARSE_FAILED) {
        const int code = http_parse_error(conn->parse, &message);
        refuse(conn, code, message);
        return;
    }
    if (conn->state == CONN_HEAD && state != HTTP_PARSE_HEAD) begin_body(conn);
    count_body(conn, http_parse_body_size(conn->parse));
    if (conn->server->bodies_size > conn->server->options.bodies_size_max) {
        refuse(conn, 503, "Too much is being sent to this server");
        return;
    }
    if (state == HTTP_PARSE_DONE) hand_over(conn);
}

/* FLUSHING to IDLE or to the end. */
static void end_answer(struct conn *conn)
{
    if (!conn->keeps_alive) {
        conn->has_failed = true; /* all is sent: close */
        return;
    }
    set_state(conn, CONN_IDLE);
    let_go(&conn->in);
    arm(conn, &conn->receive_timer, conn->server->options.idle_timeout_ms);
}

/* One step on; false when there is nothing to do before something comes from outside. */
static bool step(struct conn *conn)
{
    switch (conn->state) {
    case CONN_IDLE:
        if (conn->in.len == 0) return false;
        begin_request(conn);
        return true;
    case CONN_HEAD:
    case CONN_BODY:
        if (conn->in.len == 0) return false;
        parse_some(conn);
        return true;
    case CONN_ACTIVE: return false;
    case CONN_FLUSHING:
        if (conn->out.len > 0) return false;
        end_answer(conn);
        return true;
    }
    return false;
}

static void tell_writable(struct conn *conn)
{
    struct http_request *req = conn->req;

    if (req == NULL || !req->is_blocked) return;
    if (conn->out.len > conn->server->options.send_queue_max / 2) return;
    req->is_blocked = false;
    if (req->on_writable != NULL) req->on_writable(req->on_writable_ctx);
}

/* Goes on as far as possible, and closes if there is nobody to go on with. */
static void conn_turn(struct conn *conn)
{
    ASSERT(!conn->in_turn);
    conn->in_turn = true;
    if (conn->state == CONN_ACTIVE) flush(conn); /* I5 */
    tell_writable(conn);
    while (!conn->has_failed && step(conn))
        continue;
    if (conn->state == CONN_ACTIVE) flush(conn); /* what its handler began in this turn */
    conn->in_turn = false;
    if (conn->has_failed) {
        conn_close(conn);
        return;
    }
    watch(conn);
}

static void conn_ready(void *ctx, unsigned events)
{
    struct conn *conn = ctx;

    if ((events & ENV_WRITE) != 0) flush(conn);
    if ((events & ENV_READ) != 0 && !conn->has_failed) read_some(conn);
    conn_turn(conn);
}

static void conn_on_turn_timer(void *ctx)
{
    conn_turn(ctx);
}

static void conn_on_receive_timer(void *ctx)
{
    struct conn *conn = ctx;

    ASSERT(conn->state == CONN_IDLE || conn->state == CONN_HEAD || conn->state == CONN_BODY);
    if (conn->state == CONN_IDLE) {
        conn->has_failed = true;
    } else {
        refuse(conn, 408, "The request did not arrive in time");
    }
    conn_turn(conn);
}

static void conn_on_send_timer(void *ctx)
{
    struct conn *conn = ctx;

    LOG_DEBUG("http", "client_stalled", "peer=%s waiting=%zu", conn->peer, conn->out.len);
    conn->has_failed = true;
    conn_turn(conn);
}

static struct conn *conn_create(struct http_server *server, struct env_stream *stream)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    if (conn == NULL) return NULL;

    conn->server = server;
    conn->env = server->env;
    snprintf(conn->peer, sizeof(conn->peer), "%s", env_stream_peer(stream));
    if (wire_open(&conn->wire, server->env, stream, server->options.identity, true) != STATUS_OK) {
        free(conn);
        return NULL;
    }
    buf_init(&conn->in, HTTP_PIPELINE_MAX + READ_SIZE);
    buf_init(&conn->out, OUT_SIZE_MAX);
    env_timer_init(&conn->receive_timer, conn_on_receive_timer, conn);
    env_timer_init(&conn->send_timer, conn_on_send_timer, conn);
    env_timer_init(&conn->turn_timer, conn_on_turn_timer, conn);
    LIST_PUSH(server->conns, conn);
    server->conns_count++;
    return conn;
}

/* Says so, as far as the kernel takes it at once, and closes. */
static void turn_away(const struct http_server *server, struct env_stream *stream)
{
    static const char body[] = "{\"error\":{\"message\":\"Too many connections\",\"type\":"
                               "\"server_error\",\"param\":null,\"code\":null}}";
    char answer[512];
    enum status status = STATUS_UNSUPPORTED; /* with TLS: it would cost a handshake */
    size_t n;

    const int len =
        snprintf(answer, sizeof(answer),
                 "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
                 "Retry-After: 1\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                 sizeof(body) - 1, body);
    const struct iovec iov = { answer, (size_t)len };
    if (server->options.identity == NULL) status = env_stream_writev(stream, &iov, 1, &n);
    LOG_WARN("http", "conn_refused", "peer=%s reason=%s sent=%s", env_stream_peer(stream),
             "too many connections", status_name(status));
    env_stream_close(stream);
}

static void server_on_accept(void *ctx, struct env_stream *stream)
{
    struct http_server *server = ctx;
    struct conn *conn = NULL;

    if (server->conns_count < server->options.connections_max) conn = conn_create(server, stream);
    if (conn == NULL) {
        turn_away(server, stream);
        return;
    }
    arm(conn, &conn->receive_timer, server->options.idle_timeout_ms);
    watch(conn);
}

/* ---- the server ---- */

static void set_default(uint32_t *option, uint32_t value)
{
    if (*option == 0) *option = value;
}

static void set_defaults(struct http_server_options *options)
{
    set_default(&options->connections_max, 1024);
    set_default(&options->head_size_max, 16 << 10);
    set_default(&options->head_timeout_ms, 10000);
    set_default(&options->body_timeout_ms, 30000);
    set_default(&options->idle_timeout_ms, 60000);
    set_default(&options->send_timeout_ms, 30000);
    if (options->body_size_max == 0) options->body_size_max = 16 << 20;
    if (options->bodies_size_max == 0) options->bodies_size_max = 256 << 20;
    if (options->send_queue_max == 0) options->send_queue_max = 1 << 20;
    ASSERT(options->send_queue_max <= HTTP_REPLY_SIZE_MAX);
}

enum status http_server_create(struct env *env, const struct http_server_options *options,
                               struct http_server **out, struct errmsg *err)
{
    ASSERT(options->on_request != NULL);
    struct http_server *server = calloc(1, sizeof(*server));
    if (server == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for an HTTP server");

    server->env = env;
    server->options = *options;
    set_defaults(&server->options);
    const enum status status =
        env_listen(env, options->address, server_on_accept, server, &server->listener, err);
    if (status != STATUS_OK) {
        free(server);
        return status;
    }
    *out = server;
    return STATUS_OK;
}

void http_server_set_identity(struct http_server *server, const struct tls_identity *identity)
{
    ASSERT(server->options.identity != NULL && identity != NULL);
    server->options.identity = identity;
}

void http_server_leave(struct http_server *server)
{
    server->is_leaving = true;
}

void http_server_drain(struct http_server *server)
{
    http_server_leave(server);
    env_listener_close(server->listener);
    server->listener = NULL;
    for (struct conn *conn = server->conns; conn != NULL; conn = conn->next) {
        /* An answer whose head has left cannot say it any more, but the connection still ends. */
        conn->keeps_alive = false;
        if (conn->state != CONN_IDLE) continue;
        conn->has_failed = true;
        turn_soon(conn);
    }
}

void http_server_destroy(struct http_server *server)
{
    if (server == NULL) return;
    env_listener_close(server->listener);
    while (server->conns != NULL)
        conn_close(server->conns);
    ASSERT(server->conns_count == 0);
    free(server);
}

uint16_t http_server_port(const struct http_server *server)
{
    ASSERT(server->listener != NULL);
    return env_listener_port(server->listener);
}

uint32_t http_server_connections(const struct http_server *server)
{
    return server->conns_count;
}

const char *http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        { 100, "Continue" },
        { 200, "OK" },
        { 202, "Accepted" },
        { 204, "No Content" },
        { 304, "Not Modified" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 413, "Content Too Large" },
        { 415, "Unsupported Media Type" },
        { 417, "Expectation Failed" },
        { 422, "Unprocessable Content" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].status == status) return texts[i].text;
    }
    return "Unknown";
}
