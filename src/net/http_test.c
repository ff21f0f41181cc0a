/* SPDX-License-Identifier: Apache-2.0
 *
 * net/http_test.c
 *
 * Goal:   well-formed requests are answered, in order, whatever way the bytes arrive; the rest is
 *         refused with the right code; slow, greedy and vanishing clients cost only themselves.
 * Method: the server on a real loop, against raw streams that send exactly the bytes of the case,
 * and a handler that answers by path: at once, later, in pieces, or never. */
#include "net/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/env_real.h"

enum { RAWS_MAX = 8, WAIT_MS = 20000, TURNS_MIN = 20, BIG = 24 << 20 };

/* A client that sends and receives bytes, and sleeps when told to. */
struct raw {
    struct env_stream *stream;
    struct buf out, in;
    bool closed, asleep;
};

struct world {
    struct env *env;
    struct http_server *server;
    char address[64];
    struct raw raws[RAWS_MAX];
    int raws_count;
    struct http_request *held;
    unsigned requests, hangups, fulls;
    size_t pushed; /* bytes of the big stream */
};

/* ---- the handler ---- */

static void on_hangup(void *ctx)
{
    ((struct world *)ctx)->hangups++;
}

static void push_big(void *ctx)
{
    struct world *world = ctx;
    static char piece[10000];

    while (world->pushed < BIG) {
        memset(piece, (int)('a' + world->pushed / sizeof(piece) % 26), sizeof(piece));
        const enum status status = http_send(world->held, piece, sizeof(piece));
        if (status == STATUS_FULL) {
            world->fulls++;
            return;
        }
        if (status != STATUS_OK) return;
        world->pushed += sizeof(piece);
    }
    http_end(world->held);
    world->held = NULL;
}

static void respond_echo(struct http_request *req)
{
    size_t len;
    char text[1024];
    const char *body = http_body(req, &len);
    const char *header = http_header(req, "x-TEST");

    assert_int_equal(body[len], '\0');
    const int n =
        snprintf(text, sizeof(text), "%s %s?%s [%s] %.*s", http_method(req), http_path(req),
                 http_query(req), header != NULL ? header : "-", (int)len, body);
    http_respond(req, 200, "text/plain", text, (size_t)n);
}

static void respond_stream(struct http_request *req)
{
    http_set_header(req, "X-Evil", "a\r\nSet-Cookie: b");
    http_begin(req, 200, "text/event-stream");
    assert_int_equal(http_send(req, "data: one\n\n", 11), STATUS_OK);
    assert_int_equal(http_send(req, NULL, 0), STATUS_OK);
    assert_int_equal(http_send(req, "data: two\n\n", 11), STATUS_OK);
    http_end(req);
}

static void on_request(void *ctx, struct http_request *req)
{
    struct world *world = ctx;
    const char *path = http_path(req);

    world->requests++;
    if (strcmp(path, "/stream") == 0) {
        respond_stream(req);
    } else if (strcmp(path, "/hold") == 0) {
        world->held = req;
        http_on_hangup(req, on_hangup, world);
    } else if (strcmp(path, "/big") == 0) {
        world->held = req;
        world->pushed = 0;
        http_on_hangup(req, on_hangup, world);
        http_on_writable(req, push_big, world);
        http_begin(req, 200, NULL);
        push_big(world);
    } else if (strcmp(path, "/abort") == 0) {
        http_begin(req, 200, NULL);
        assert_int_equal(http_send(req, "half", 4), STATUS_OK);
        http_abort(req);
    } else if (strcmp(path, "/fail") == 0) {
        http_abort(req);
    } else if (strcmp(path, "/none") == 0) {
        http_respond(req, 204, NULL, NULL, 0);
    } else {
        respond_echo(req);
    }
}

/* ---- raw clients ---- */

static void raw_on_ready(void *ctx, unsigned events)
{
    struct raw *raw = ctx;
    uint8_t *to;
    size_t n = 0;

    if ((events & ENV_WRITE) != 0 && raw->out.len > 0) {
        const struct iovec iov = { buf_data(&raw->out), raw->out.len };
        const enum status status = env_stream_writev(raw->stream, &iov, 1, &n);
        if (status == STATUS_OK) buf_consume(&raw->out, n);
        if (status != STATUS_OK && status != STATUS_AGAIN) raw->closed = true;
    }
    if ((events & ENV_READ) != 0) {
        assert_int_equal(buf_reserve(&raw->in, 65536, &to), STATUS_OK);
        const enum status status = env_stream_read(raw->stream, to, 65536, &n);
        if (status == STATUS_OK) buf_commit(&raw->in, n);
        if (status != STATUS_OK && status != STATUS_AGAIN) raw->closed = true;
    }
}

static void turn(struct world *world)
{
    for (int i = 0; i < world->raws_count; i++) {
        struct raw *raw = &world->raws[i];
        if (raw->stream == NULL) continue;
        const unsigned events = raw->asleep || raw->closed ? 0 : ENV_READ;
        const unsigned writes = raw->out.len > 0 && !raw->closed ? ENV_WRITE : 0;
        env_stream_watch(raw->stream, events | writes, raw_on_ready, raw);
    }
    env_poll(world->env, ENV_NS_PER_MS);
}

#define WAIT_FOR(world, condition)                                                                 \
    do {                                                                                           \
        const uint64_t wait_end_ns = env_now_ns((world)->env) + WAIT_MS * ENV_NS_PER_MS;           \
        while (!(condition)) {                                                                     \
            assert_true(env_now_ns((world)->env) < wait_end_ns);                                   \
            turn(world);                                                                           \
        }                                                                                          \
    } while (0)

/* For some time, and some turns: a busy machine may give none in that time. */
static void turn_for(struct world *world, uint64_t ms)
{
    const uint64_t end_ns = env_now_ns(world->env) + ms * ENV_NS_PER_MS;
    for (int turns = 0; turns < TURNS_MIN || env_now_ns(world->env) < end_ns; turns++)
        turn(world);
}

static struct raw *raw_new(struct world *world)
{
    assert_true(world->raws_count < RAWS_MAX);
    struct raw *raw = &world->raws[world->raws_count++];
    buf_init(&raw->in, 32 << 20);
    buf_init(&raw->out, 16 << 20);
    assert_int_equal(env_connect(world->env, world->address, &raw->stream, NULL), STATUS_OK);
    return raw;
}

static void raw_send(struct raw *raw, const char *text)
{
    assert_int_equal(buf_append_text(&raw->out, text), STATUS_OK);
}

static void raw_hang_up(struct raw *raw)
{
    env_stream_close(raw->stream);
    raw->stream = NULL;
}

/* What came so far, as text. */
static const char *raw_text(struct raw *raw)
{
    uint8_t *to;
    assert_int_equal(buf_reserve(&raw->in, 1, &to), STATUS_OK);
    *to = '\0';
    return (const char *)buf_data(&raw->in);
}

static bool raw_has(struct raw *raw, const char *text)
{
    return strstr(raw_text(raw), text) != NULL;
}

static unsigned raw_count(struct raw *raw, const char *text)
{
    unsigned count = 0;
    for (const char *at = raw_text(raw); (at = strstr(at, text)) != NULL; at++)
        count++;
    return count;
}

/* ---- the world ---- */

static struct world *world_new(struct http_server_options options)
{
    struct world *world = calloc(1, sizeof(*world));
    struct errmsg err = { "" };

    assert_int_equal(env_real_create(NULL, &world->env, &err), STATUS_OK);
    options.address = "127.0.0.1:0";
    options.on_request = on_request;
    options.ctx = world;
    assert_int_equal(http_server_create(world->env, &options, &world->server, &err), STATUS_OK);
    snprintf(world->address, sizeof(world->address), "127.0.0.1:%u",
             http_server_port(world->server));
    return world;
}

static struct world *world_plain(void)
{
    return world_new((struct http_server_options){ 0 });
}

static void world_free(struct world *world)
{
    for (int i = 0; i < world->raws_count; i++) {
        env_stream_close(world->raws[i].stream);
        buf_fini(&world->raws[i].in);
        buf_fini(&world->raws[i].out);
    }
    http_server_destroy(world->server);
    if (world->held != NULL) http_abort(world->held);
    env_real_destroy(world->env);
    free(world);
}

/* One connection, these bytes, and then the answer has this text. */
static void expect(const char *request, const char *answer)
{
    struct world *world = world_plain();
    struct raw *raw = raw_new(world);
    raw_send(raw, request);
    WAIT_FOR(world, raw_has(raw, answer));
    world_free(world);
}

/* As above, and the server closes, and no handler saw it. */
static void expect_refused(const char *request, const char *status_line)
{
    struct world *world = world_plain();
    struct raw *raw = raw_new(world);
    raw_send(raw, request);
    WAIT_FOR(world, raw->closed);
    if (!raw_has(raw, status_line)) fail_msg("%s instead of %s", raw_text(raw), status_line);
    assert_true(raw_has(raw, "Connection: close\r\n"));
    assert_true(raw_has(raw, "{\"error\":{\"message\":\""));
    assert_int_equal(world->requests, 0);
    world_free(world);
}

/* ---- tests: requests ---- */

static void simple_requests(void **state)
{
    (void)state;
    expect("GET /a/b?c=d&e HTTP/1.1\r\nHost: x\r\nX-Test:  v w \t\r\n\r\n",
           "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n\r\n"
           "GET /a/b?c=d&e [v w] ");
    expect("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "POST /? [-] hello");
    expect("GET http://x:1/p?q HTTP/1.1\r\nHost: x\r\n\r\n", "GET /p?q [-] ");
    expect("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /? [-] ");
    expect("GET /none HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n");
    expect("GET /fail HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 500 Internal Server Error\r\n");
    expect("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
           "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Test: forged\r\n\r\n",
           "POST /? [-] abcde");
    expect("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
           "GET /? [-] ");
    expect("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n\t b", "POST /? [-] \t b");
    expect("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
           "2\r\n\n \r\n0\r\n\r\n",
           "POST /? [-] \n ");
}

static void bytes_one_at_a_time(void **state)
{
    (void)state;
    static const char request[] =
        "POST /p?q HTTP/1.1\r\nHost: x\r\nx-test: v\r\nContent-Length: 5\r\n\r\nhello";
    struct world *world = world_plain();
    struct raw *raw = raw_new(world);

    for (size_t i = 0; i < sizeof(request) - 1; i++) {
        assert_int_equal(buf_append(&raw->out, request + i, 1), STATUS_OK);
        WAIT_FOR(world, raw->out.len == 0);
        turn(world);
    }
    WAIT_FOR(world, raw_has(raw, "POST /p?q [v] hello"));
    world_free(world);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct raw *raw = raw_new(world);

    raw_send(raw, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /hold HTTP/1.1\r\nHost: x\r\n\r\n"
                  "GET /stream HTTP/1.1\r\nHost: x\r\n\r\nGET /3 HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, world->held != NULL);
    turn_for(world, 20);
    assert_int_equal(world->requests, 2); /* the others wait */
    http_respond(world->held, 200, NULL, "held", 4);
    world->held = NULL;
    WAIT_FOR(world, raw_has(raw, "GET /3?"));
    const char *text = raw_text(raw);
    assert_true(strstr(text, "GET /1?") < strstr(text, "held"));
    assert_true(strstr(text, "held") < strstr(text, "data: one"));
    assert_true(strstr(text, "data: one") < strstr(text, "GET /3?"));
    assert_int_equal(raw_count(raw, "HTTP/1.1 200 OK"), 4);
    assert_false(raw->closed);
    world_free(world);
}

static void versions_and_connections(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        bool closes;
        const char *header;
    } cases[] = {
        { "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false, "200 OK" },
        { "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", true, "Connection: close\r\n" },
        { "GET / HTTP/1.0\r\n\r\n", true, "Connection: close\r\n" },
        { "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false, "Connection: keep-alive\r\n" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world *world = world_plain();
        struct raw *raw = raw_new(world);
        raw_send(raw, cases[i].request);
        WAIT_FOR(world, raw_has(raw, "GET /? [-]") && raw_has(raw, cases[i].header));
        turn_for(world, 10);
        assert_int_equal(raw->closed, cases[i].closes);
        world_free(world);
    }
}

static void head_gets_no_body(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct raw *raw = raw_new(world);

    raw_send(raw, "HEAD /x HTTP/1.1\r\nHost: x\r\n\r\nHEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n"
                  "GET /end HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, raw_has(raw, "GET /end"));
    assert_true(raw_has(raw, "Content-Length: 13\r\n"));
    assert_false(raw_has(raw, "HEAD /x"));
    assert_false(raw_has(raw, "data: one"));
    world_free(world);
}

static void expect_continue(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct raw *raw = raw_new(world);

    raw_send(raw,
             "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    WAIT_FOR(world, raw_has(raw, "HTTP/1.1 100 Continue\r\n\r\n"));
    raw_send(raw, "ok");
    WAIT_FOR(world, raw_has(raw, "POST /? [-] ok"));
    assert_int_equal(raw_count(raw, "100 Continue"), 1);
    world_free(world);
}

/* ---- tests: refusals ---- */

static void malformed_is_400(void **state)
{
    (void)state;
    static const char line[] = "HTTP/1.1 400 Bad Request\r\n";
    expect_refused("nonsense\r\n\r\n", line);
    expect_refused("GET / HTTP/1.1\r\n\r\n", line); /* no Host */
    expect_refused("GET / HTTP/1.1\r\nHost x\r\n\r\n", line);
    expect_refused("GET / HTTP/1.1\r\nHost: x\r\nBad\x01: y\r\n\r\n", line);
    expect_refused("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", line);
    expect_refused("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
                   line);
    expect_refused(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n"
        "\r\n0\r\n\r\n",
        line);
    expect_refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", line);
    expect_refused("\x16\x03\x01\x02", line); /* TLS */
}

/* What one server takes for one request and the next one for two: whoever stands in front of us may
 * have read it the other way. */
static void ambiguous_framing_is_refused(void **state)
{
    (void)state;
    static const char line[] = "HTTP/1.1 400 Bad Request\r\n", no_coding[] = "HTTP/1.1 501 ";
    expect_refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
                   line);
    expect_refused("POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 1\r\n\r\na", line);
    expect_refused("GET / HTTP/1.1\r\nHost: x\r\nX Y: z\r\n\r\n", line);
    expect_refused("GET / HTTP/1.1\r\n Host: x\r\n\r\n", line);
    expect_refused("GET / HTTP/1.1\r\nHost: x\r\nX-Test: a\r\n b\r\n\r\n", line);
    expect_refused("GET / HTTP/1.1\nHost: x\nX-Test: a\n\tb\n\n", line);
    expect_refused("GET / HTTP/1.1\r\nHost: x\r\n\rGET / HTTP/1.1\r\nHost: x\r\n\r\n", line);
    expect_refused("GET / HTTP/1.1\r\nHost: x\r\nX-Test: a\rHost: y\r\n\r\n", line);
    expect_refused("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", line);
    expect_refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", line);
    expect_refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
                   "0\r\n\r\n",
                   no_coding);
    expect_refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                   no_coding);
    expect_refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                   no_coding);
}

static void other_refusals(void **state)
{
    (void)state;
    expect_refused("GET / HTTP/2.0\r\nHost: x\r\n\r\n", "HTTP/1.1 505 ");
    expect_refused("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
                   "HTTP/1.1 501 ");
    expect_refused("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: magic\r\n\r\n",
                   "HTTP/1.1 417 ");
    expect_refused("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
                   "HTTP/1.1 413 ");
    expect_refused("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                   "HTTP/1.1 400 ");
}

static void large_heads_and_bodies_are_refused(void **state)
{
    (void)state;
    struct buf request;

    buf_init(&request, 1 << 20);
    assert_int_equal(buf_append_text(&request, "GET / HTTP/1.1\r\nHost: x\r\nX: "), STATUS_OK);
    for (int i = 0; i < 20000; i++)
        assert_int_equal(buf_append_text(&request, "y"), STATUS_OK);
    assert_int_equal(buf_append(&request, "\r\n\r\n", 5), STATUS_OK);
    expect_refused((const char *)buf_data(&request), "HTTP/1.1 431 ");

    buf_clear(&request);
    assert_int_equal(buf_append_text(&request, "GET / HTTP/1.1\r\nHost: x\r\n"), STATUS_OK);
    for (int i = 0; i < HTTP_HEADERS_MAX; i++)
        assert_int_equal(buf_printf(&request, "X%d: y\r\n", i), STATUS_OK);
    assert_int_equal(buf_append(&request, "\r\n", 3), STATUS_OK);
    expect_refused((const char *)buf_data(&request), "HTTP/1.1 431 ");
    buf_fini(&request);

    struct world *world = world_new((struct http_server_options){ .body_size_max = 10 });
    struct raw *fits = raw_new(world), *chunked = raw_new(world);
    raw_send(fits, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789");
    raw_send(chunked, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                      "6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n");
    WAIT_FOR(world, raw_has(fits, "0123456789") && chunked->closed);
    assert_true(raw_has(chunked, "HTTP/1.1 413 "));
    world_free(world);
}

static void bodies_share_a_limit(void **state)
{
    (void)state;
    struct world *world = world_new((struct http_server_options){ .bodies_size_max = 1500 });
    struct raw *first = raw_new(world), *second = raw_new(world), *third = raw_new(world);
    char piece[1001];

    memset(piece, 'x', sizeof(piece));
    piece[1000] = '\0';
    raw_send(first, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
    raw_send(first, piece);
    turn_for(world, 10);
    raw_send(second, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
    raw_send(second, piece);
    WAIT_FOR(world, second->closed);
    assert_true(raw_has(second, "HTTP/1.1 503 "));
    raw_send(first, "y");
    WAIT_FOR(world, raw_has(first, "200 OK"));
    raw_send(third, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
    raw_send(third, piece);
    WAIT_FOR(world, raw_has(third, "200 OK")); /* what is answered does not count */
    world_free(world);
}

static void a_head_of_exactly_the_limit_passes(void **state)
{
    (void)state;
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    for (uint32_t less = 0; less < 2; less++) {
        const uint32_t head_size_max = (uint32_t)sizeof(request) - 1 - less;
        struct world *world =
            world_new((struct http_server_options){ .head_size_max = head_size_max });
        struct raw *raw = raw_new(world);
        raw_send(raw, request);
        WAIT_FOR(world, raw_has(raw, less == 0 ? "200 OK" : "431 "));
        world_free(world);
    }
}

static void connections_beyond_the_limit_get_503(void **state)
{
    (void)state;
    struct world *world = world_new((struct http_server_options){ .connections_max = 1 });
    struct raw *first = raw_new(world);

    raw_send(first, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, raw_has(first, "200 OK"));
    struct raw *second = raw_new(world);
    raw_send(second, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, second->closed);
    assert_true(raw_has(second, "HTTP/1.1 503 "));
    raw_hang_up(first);
    WAIT_FOR(world, http_server_connections(world->server) == 0);
    struct raw *third = raw_new(world);
    raw_send(third, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, raw_has(third, "200 OK"));
    world_free(world);
}

/* ---- tests: time ---- */

static void slow_clients_are_timed_out(void **state)
{
    (void)state;
    struct world *world = world_new((struct http_server_options){
        .head_timeout_ms = 60, .body_timeout_ms = 60, .idle_timeout_ms = 60 });
    struct raw *loris = raw_new(world), *body = raw_new(world), *idle = raw_new(world);
    const uint64_t end_ns = env_now_ns(world->env) + WAIT_MS * ENV_NS_PER_MS;

    raw_send(loris, "GET / HTTP/1.1\r\n");
    raw_send(body, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n");
    while (env_now_ns(world->env) < end_ns && !(loris->closed && body->closed)) {
        turn_for(world, 10);
        raw_send(loris, "X: y\r\n"); /* always something, never an end */
        raw_send(body, "x");
    }
    assert_true(loris->closed && body->closed);
    assert_true(raw_has(loris, "HTTP/1.1 408 "));
    assert_true(raw_has(body, "HTTP/1.1 408 "));
    WAIT_FOR(world, idle->closed);
    assert_int_equal(idle->in.len, 0);
    assert_int_equal(world->requests, 0);
    world_free(world);
}

static void a_client_that_reads_nothing_is_cut_off(void **state)
{
    (void)state;
    struct world *world = world_new((struct http_server_options){ .send_timeout_ms = 50 });
    struct raw *raw = raw_new(world);

    raw->asleep = true;
    raw_send(raw, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, world->hangups > 0);
    assert_true(world->pushed < BIG);
    assert_int_equal(http_send(world->held, "x", 1), STATUS_CONN_CLOSED);
    http_end(world->held);
    world->held = NULL;
    world_free(world);
}

/* ---- tests: streams and hang-ups ---- */

static void streams_are_chunked_and_keep_the_connection(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct raw *raw = raw_new(world), *old = raw_new(world);

    raw_send(raw, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, raw_has(raw, "0\r\n\r\n"));
    assert_true(raw_has(raw, "Content-Type: text/event-stream\r\n"));
    assert_true(raw_has(raw, "X-Evil: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                             "b\r\ndata: one\n\n\r\nb\r\ndata: two\n\n\r\n0\r\n\r\n"));
    raw_send(raw, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, raw_has(raw, "GET /next"));

    raw_send(old, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    WAIT_FOR(world, old->closed);
    assert_true(raw_has(old, "Connection: close\r\n\r\ndata: one\n\ndata: two\n\n"));
    assert_false(raw_has(old, "chunked"));
    world_free(world);
}

static void a_slow_reader_pushes_back(void **state)
{
    (void)state;
    struct world *world = world_new((struct http_server_options){ .send_queue_max = 100000 });
    struct raw *raw = raw_new(world);

    raw->asleep = true;
    raw_send(raw, "GET /big HTTP/1.0\r\n\r\n");
    WAIT_FOR(world, world->fulls > 0);
    turn_for(world, 20);
    assert_true(world->pushed < BIG);
    raw->asleep = false;
    WAIT_FOR(world, raw->closed);
    const size_t head = (size_t)(strstr(raw_text(raw), "\r\n\r\n") + 4 - raw_text(raw));
    assert_int_equal(raw->in.len - head, (BIG + 9999) / 10000 * 10000);
    assert_int_equal(world->hangups, 0);
    world_free(world);
}

static void a_hang_up_is_told_before_and_during_the_answer(void **state)
{
    (void)state;
    struct world *world = world_plain();

    for (int begun = 0; begun < 2; begun++) {
        struct raw *raw = raw_new(world);
        raw_send(raw, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
        WAIT_FOR(world, world->held != NULL);
        if (begun == 1) http_begin(world->held, 200, NULL);
        turn_for(world, 5);
        raw_hang_up(raw);
        WAIT_FOR(world, world->hangups == (unsigned)begun + 1);
        assert_int_equal(http_server_connections(world->server), 0);
        assert_string_equal(http_path(world->held), "/hold"); /* still the handler's */
        if (begun == 1) {
            assert_int_equal(http_send(world->held, "x", 1), STATUS_CONN_CLOSED);
            http_end(world->held);
        } else {
            http_respond(world->held, 200, NULL, "x", 1);
        }
        world->held = NULL;
    }
    world_free(world);
}

static void a_late_on_hangup_is_still_told(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct raw *raw = raw_new(world);

    raw_send(raw, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, world->held != NULL);
    http_on_hangup(world->held, NULL, NULL);
    raw_hang_up(raw);
    WAIT_FOR(world, http_server_connections(world->server) == 0);
    assert_int_equal(world->hangups, 0);
    http_on_hangup(world->held, on_hangup, world);
    assert_int_equal(world->hangups, 0); /* not from inside */
    WAIT_FOR(world, world->hangups == 1);
    world_free(world);
}

static void an_aborted_stream_has_no_end(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct raw *raw = raw_new(world);

    raw_send(raw, "GET /abort HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, raw->closed);
    assert_true(raw_has(raw, "4\r\nhalf\r\n"));
    assert_false(raw_has(raw, "0\r\n\r\n"));
    world_free(world);
}

static void half_sent_requests_leave_nothing(void **state)
{
    (void)state;
    static const char *const halves[] = {
        "GET / HT", "POST / HTTP/1.1\r\nContent-Le",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", ""
    };
    struct world *world = world_plain();

    for (size_t i = 0; i < 4; i++) {
        struct raw *raw = raw_new(world);
        raw_send(raw, halves[i]);
        WAIT_FOR(world, http_server_connections(world->server) == 1 && raw->out.len == 0);
        turn_for(world, 5);
        raw_hang_up(raw);
        WAIT_FOR(world, http_server_connections(world->server) == 0);
    }
    assert_int_equal(world->requests, 0);
    world_free(world);
}

/* ---- tests: the server's end ---- */

static void drain_finishes_what_is_under_way(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct raw *busy = raw_new(world), *idle = raw_new(world);

    raw_send(busy, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, world->held != NULL && http_server_connections(world->server) == 2);
    http_server_drain(world->server);
    WAIT_FOR(world, idle->closed);
    http_respond(world->held, 200, NULL, "done", 4);
    world->held = NULL;
    WAIT_FOR(world, busy->closed);
    assert_true(raw_has(busy, "Connection: close\r\n\r\ndone"));
    world_free(world);
}

static void destroy_tells_handlers(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct raw *raw = raw_new(world);

    raw_send(raw, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(world, world->held != NULL);
    http_server_destroy(world->server);
    world->server = NULL;
    assert_int_equal(world->hangups, 1);
    http_respond(world->held, 200, NULL, "x", 1);
    world->held = NULL;
    world_free(world);
}

static void a_taken_port_is_said(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct http_server *second = NULL;
    struct errmsg err = { "" };
    const struct http_server_options options = { .address = world->address,
                                                 .on_request = on_request };
    assert_int_equal(http_server_create(world->env, &options, &second, &err), STATUS_EXISTS);
    assert_true(strlen(err.text) > 0);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simple_requests),
        cmocka_unit_test(bytes_one_at_a_time),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(versions_and_connections),
        cmocka_unit_test(head_gets_no_body),
        cmocka_unit_test(expect_continue),
        cmocka_unit_test(malformed_is_400),
        cmocka_unit_test(ambiguous_framing_is_refused),
        cmocka_unit_test(other_refusals),
        cmocka_unit_test(large_heads_and_bodies_are_refused),
        cmocka_unit_test(bodies_share_a_limit),
        cmocka_unit_test(a_head_of_exactly_the_limit_passes),
        cmocka_unit_test(connections_beyond_the_limit_get_503),
        cmocka_unit_test(slow_clients_are_timed_out),
        cmocka_unit_test(a_client_that_reads_nothing_is_cut_off),
        cmocka_unit_test(streams_are_chunked_and_keep_the_connection),
        cmocka_unit_test(a_slow_reader_pushes_back),
        cmocka_unit_test(a_hang_up_is_told_before_and_during_the_answer),
        cmocka_unit_test(a_late_on_hangup_is_still_told),
        cmocka_unit_test(an_aborted_stream_has_no_end),
        cmocka_unit_test(half_sent_requests_leave_nothing),
        cmocka_unit_test(drain_finishes_what_is_under_way),
        cmocka_unit_test(destroy_tells_handlers),
        cmocka_unit_test(a_taken_port_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
