/* SPDX-License-Identifier: Apache-2.0
 *
 * net/http_client_test.c
 *
 * Goal:    the client reports what really came: the code, the body in pieces or lines, and an
 *          answer cut short, malformed, late or refused as what it is; on_done runs once or, after
 *          a cancel, not at all.
 * Method:  a simulated server that answers with exactly the bytes of the case, and may close. */
#include "net/http_client.h"

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
#include "base/env_sim.h"

struct world {
    struct env_sim *sim;
    struct env *server_env, *client_env;
    struct env_listener *listener;
    struct env_stream *stream; /* the server's end */
    const char *answer;
    bool closes;
    struct buf request;
    struct buf body;
    struct http_client *client;
    unsigned lines, cancel_at; /* 0: never */
    bool cancels_at_head;
    unsigned heads;
    int head_code;
    char location[64];
    unsigned done;
    struct http_reply reply;
};

/* ---- a server of bytes ---- */

static void on_server_ready(void *ctx, unsigned events)
{
    struct world *world = ctx;
    uint8_t *to;
    size_t n;

    (void)events;
    assert_int_equal(buf_reserve(&world->request, 4096, &to), STATUS_OK);
    const enum status status = env_stream_read(world->stream, to, 4096, &n);
    if (status == STATUS_AGAIN) return;
    if (status == STATUS_OK) buf_commit(&world->request, n);
    if (status == STATUS_OK && world->answer != NULL) {
        const struct iovec iov = { (char *)(uintptr_t)world->answer, strlen(world->answer) };
        assert_int_equal(env_stream_writev(world->stream, &iov, 1, &n), STATUS_OK);
        assert_int_equal(n, iov.iov_len);
        world->answer = NULL;
    }
    if (status == STATUS_OK && !world->closes) return;
    env_stream_close(world->stream);
    world->stream = NULL;
}

static void on_accept(void *ctx, struct env_stream *stream)
{
    struct world *world = ctx;
    assert_null(world->stream);
    world->stream = stream;
    env_stream_watch(stream, ENV_READ, on_server_ready, world);
}

/* ---- the client ---- */

static void on_head(void *ctx, const struct http_client *client)
{
    struct world *world = ctx;
    const char *location = http_client_header(client, "LOCATION");

    assert_int_equal(world->body.len, 0);
    assert_null(http_client_header(client, "X-Trailer"));
    assert_null(http_client_header(client, "Loc"));
    world->heads++;
    world->head_code = http_client_code(client);
    snprintf(world->location, sizeof(world->location), "%s", location != NULL ? location : "none");
    if (world->cancels_at_head) http_client_cancel(world->client);
}

static void on_data(void *ctx, const char *data, size_t len)
{
    struct world *world = ctx;
    assert_int_equal(buf_append(&world->body, data, len), STATUS_OK);
}

static void on_line(void *ctx, const char *line, size_t len)
{
    struct world *world = ctx;
    on_data(ctx, "<", 1);
    on_data(ctx, line, len);
    on_data(ctx, ">", 1);
    if (++world->lines == world->cancel_at) http_client_cancel(world->client);
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct world *world = ctx;
    world->done++;
    world->reply = *reply;
}

static struct world *world_new(const char *answer, bool closes)
{
    struct world *world = calloc(1, sizeof(*world));

    world->sim = env_sim_create(&(struct env_sim_options){ .seed = 1, .buggify_ppm = 200000 });
    world->server_env = env_sim_add(world->sim, "10.0.0.1");
    world->client_env = env_sim_add(world->sim, "10.0.0.2");
    world->answer = answer;
    world->closes = closes;
    buf_init(&world->request, 1 << 20);
    buf_init(&world->body, 1 << 20);
    assert_int_equal(
        env_listen(world->server_env, "10.0.0.1:80", on_accept, world, &world->listener, NULL),
        STATUS_OK);
    return world;
}

static void world_free(struct world *world)
{
    env_stream_close(world->stream);
    env_listener_close(world->listener);
    buf_fini(&world->request);
    buf_fini(&world->body);
    env_sim_destroy(world->sim);
    free(world);
}

static void run(struct world *world, const char *address, const char *method, bool lines)
{
    const struct http_client_options options = {
        .address = address,
        .method = method,
        .path = "/p",
        .headers = "X-A: b\r\n",
        .body = "hi",
        .len = 2,
        .deadline_ns = env_now_ns(world->client_env) + 5 * ENV_NS_PER_S,
        .on_head = on_head,
        .on_data = lines ? NULL : on_data,
        .on_line = lines ? on_line : NULL,
        .on_done = on_done,
        .ctx = world,
    };
    assert_int_equal(http_client_start(world->client_env, &options, &world->client, NULL),
                     STATUS_OK);
    assert_int_equal(world->done, 0);
    env_sim_run_for(world->sim, 10 * ENV_NS_PER_S);
}

static void expect(const char *method, bool lines, const char *answer, bool closes,
                   enum status status, int code, const char *body)
{
    struct world *world = world_new(answer, closes);

    run(world, "10.0.0.1:80", method, lines);
    assert_int_equal(world->done, 1);
    assert_int_equal(world->reply.status, status);
    assert_int_equal(world->reply.code, code);
    assert_int_equal(buf_append(&world->body, "", 1), STATUS_OK);
    assert_string_equal((const char *)buf_data(&world->body), body);
    world_free(world);
}

/* ---- tests ---- */

static void answers_of_every_framing(void **state)
{
    (void)state;
    expect("GET", false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, STATUS_OK, 200,
           "hello");
    expect("GET", false, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", false, STATUS_OK, 503, "");
    expect("GET", false,
           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
           false, STATUS_OK, 200, "hello");
    expect("GET", false, "HTTP/1.0 200 OK\r\n\r\nhello", true, STATUS_OK, 200, "hello");
    expect("HEAD", false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, STATUS_OK, 200,
           "");
}

/* A server may say that it is at it, and links that will be needed; nobody has to ask for that. */
static void what_comes_before_the_answer_is_none(void **state)
{
    (void)state;
    static const char soon[] = "HTTP/1.1 102 Processing\r\n\r\n";
    char endless[64 * sizeof(soon)] = "";

    expect("GET", false,
           "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLocation: x\r\n\r\n"
           "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
           false, STATUS_OK, 200, "hello");
    expect("HEAD", false,
           "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false,
           STATUS_OK, 200, "");
    expect("GET", false, "HTTP/1.1 100 Continue\r\n\r\n", true, STATUS_CONN_CLOSED, 0, "");
    expect("GET", false, "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", true, STATUS_OK, 101, "");
    for (int i = 0; i < 63; i++)
        memcpy(endless + (size_t)i * (sizeof(soon) - 1), soon, sizeof(soon));
    expect("GET", false, endless, false, STATUS_PROTOCOL, 0, "");
}

static void lines_come_whole(void **state)
{
    (void)state;
    expect("GET", true,
           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
           "3\r\nda\n\r\n5\r\n\ntwo \r\n6\r\nthree\n\r\n0\r\n\r\n",
           false, STATUS_OK, 200, "<da><><two three>");
    expect("GET", true, "HTTP/1.1 400 No\r\nContent-Length: 7\r\n\r\none\ntwo", false, STATUS_OK,
           400, "<one><two>");
    expect("GET", true, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\none\ntwo", true,
           STATUS_PROTOCOL, 200, "<one>");
}

static void broken_answers_are_said_to_be(void **state)
{
    (void)state;
    expect("GET", false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", true, STATUS_PROTOCOL,
           200, "hel");
    expect("GET", false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", true,
           STATUS_PROTOCOL, 200, "hel");
    expect("GET", false, "SSH-2.0-x\r\n", true, STATUS_PROTOCOL, 0, "");
    expect("GET", false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", false, STATUS_TIMEOUT,
           200, "hel");
    expect("GET", false, NULL, false, STATUS_TIMEOUT, 0, "");
}

static void nobody_there_is_said(void **state)
{
    (void)state;
    struct world *world = world_new(NULL, false);

    run(world, "10.0.0.1:81", "GET", false);
    assert_int_equal(world->done, 1);
    assert_int_equal(world->reply.status, STATUS_CONN_REFUSED);
    assert_int_equal(world->reply.code, 0);
    world_free(world);
}

static void the_request_is_as_told(void **state)
{
    (void)state;
    struct world *world = world_new("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true);

    run(world, "10.0.0.1:80", "POST", false);
    assert_int_equal(buf_append(&world->request, "", 1), STATUS_OK);
    const char *text = (const char *)buf_data(&world->request);
    assert_ptr_equal(strstr(text, "POST /p HTTP/1.1\r\nHost: 10.0.0.1:80\r\n"), text);
    assert_non_null(strstr(text, "X-A: b\r\n"));
    assert_non_null(strstr(text, "Content-Length: 2\r\n"));
    world_free(world);
}

static void expect_head(const char *answer, bool cancels, const char *location)
{
    struct world *world = world_new(answer, true);

    world->cancels_at_head = cancels;
    run(world, "10.0.0.1:80", "GET", false);
    assert_int_equal(world->heads, 1);
    assert_int_equal(world->head_code, 302);
    assert_string_equal(world->location, location);
    assert_int_equal(world->done, cancels ? 0 : 1);
    if (cancels) assert_int_equal(world->body.len, 0);
    world_free(world);
}

static void the_head_comes_before_the_body(void **state)
{
    static const char CHUNKS[] = "HTTP/1.1 302 F\r\nLocation: /a b\r\n"
                                 "Transfer-Encoding: chunked\r\n\r\n"
                                 "1\r\nh\r\n1\r\ni\r\n0\r\nX-Trailer: t\r\n\r\n";
    static const char *const ANSWERS[] = {
        "HTTP/1.1 302 F\r\nA: x\r\nLocation:  /a b \r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 302 F\r\nLocation: /a b\r\nContent-Length: 0\r\n\r\n",
        CHUNKS,
        "HTTP/1.1 302 F\r\nLocation: /a b\r\n\r\nhi",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(ANSWERS) / sizeof(ANSWERS[0]); i++) {
        expect_head(ANSWERS[i], false, "/a b");
        expect_head(ANSWERS[i], true, "/a b");
    }
    expect_head("HTTP/1.1 302 F\r\nContent-Length: 2\r\n\r\nhi", false, "none");
}

static void too_large_a_head_is_no_answer(void **state)
{
    enum { LINE = 1000, LINES = 70 };
    static const char STATUS_LINE[] = "HTTP/1.1 200 OK\r\n";
    char *text = calloc(1, LINE * LINES + 64);
    size_t n = strlen(STATUS_LINE);

    (void)state;
    memcpy(text, STATUS_LINE, n);
    for (int i = 0; i < LINES; i++) {
        memset(text + n, 'x', LINE - 2);
        memcpy(text + n, "A: ", 3);
        memcpy(text + n + LINE - 2, "\r\n", 2);
        n += LINE;
    }
    memcpy(text + n, "\r\n", 2);
    expect("GET", false, text, true, STATUS_PROTOCOL, 200, "");
    free(text);
}

static void a_cancel_is_silent(void **state)
{
    (void)state;
    struct world *world =
        world_new("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\none\ntwo\nthr\n", false);

    world->cancel_at = 2; /* from inside on_line */
    run(world, "10.0.0.1:80", "GET", true);
    assert_int_equal(world->lines, 2);
    assert_int_equal(world->done, 0);
    assert_null(world->stream); /* the server saw it hang up */
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_of_every_framing),
        cmocka_unit_test(what_comes_before_the_answer_is_none),
        cmocka_unit_test(lines_come_whole),
        cmocka_unit_test(broken_answers_are_said_to_be),
        cmocka_unit_test(nobody_there_is_said),
        cmocka_unit_test(the_request_is_as_told),
        cmocka_unit_test(a_cancel_is_silent),
        cmocka_unit_test(the_head_comes_before_the_body),
        cmocka_unit_test(too_large_a_head_is_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
