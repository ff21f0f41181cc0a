/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/naming_process_test.c
 *
 * Goal:   names work on the servers people have: etcd and Redis from Debian's packages, and our own
 *         metadata server; with a peer that starts again, one that dies, two that share a name, and
 *         a server that is killed.
 * Method: the server is a child process on a free port with a directory of its own; the engines are
 *         in this process. An engine that is destroyed without being withdrawn is one that died. A
 *         server that is not installed skips its tests, and fails them where CI=true. */
#include "yolk/transfer.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "transfer/metadata_server.h"

enum { SIZE = 64 << 10, TTL_MS = 1500, ARGS_MAX = 24, TEXT_SIZE = 256 };
#define LONG_NS (30 * ENV_NS_PER_S)
#define TURN_NS (20 * ENV_NS_PER_MS)
#define PASSWORD "sesame"

enum kind { KIND_HTTP, KIND_ETCD, KIND_REDIS };

struct server {
    enum kind kind;
    pid_t child;
    unsigned port, peer_port;
    char directory[64];
    char url[TEXT_SIZE];
};

struct engine {
    struct yolk_transfer *transfer;
    uint8_t *memory;
};

static struct env *env;

/* ---- servers ---- */

static void on_accept(void *ctx, struct env_stream *stream)
{
    (void)ctx;
    env_stream_close(stream);
}

static unsigned free_port(void)
{
    struct env_listener *listener;

    assert_int_equal(env_listen(env, "127.0.0.1:0", on_accept, NULL, &listener, NULL), STATUS_OK);
    const unsigned port = env_listener_port(listener);
    env_listener_close(listener);
    return port;
}

/* The first of the paths that can be run; NULL if none. */
static const char *find_program(const char *const paths[])
{
    while (*paths != NULL && access(*paths, X_OK) != 0)
        paths++;
    return *paths;
}

static const char *etcd_path(void)
{
    static const char *const paths[] = { "/usr/bin/etcd", ".venv/servers/usr/bin/etcd", NULL };
    return find_program(paths);
}

/* Debian's redis-tools has the server too: one binary that looks at its name. */
static const char *redis_path(void)
{
    static const char *const paths[] = { "/usr/bin/redis-server", "/usr/bin/redis-check-rdb",
                                         NULL };
    return find_program(paths);
}

static _Noreturn void http_main(const struct server *server)
{
    char listen[TEXT_SIZE], state[TEXT_SIZE];
    const struct metadata_server_options options = { .listen = listen, .state_file = state };
    struct metadata_server *made;
    struct env *own;

    snprintf(listen, sizeof(listen), "127.0.0.1:%u", server->port);
    snprintf(state, sizeof(state), "%s/state", server->directory);
    if (env_real_create(NULL, &own, NULL) != STATUS_OK) _exit(1);
    if (metadata_server_create(own, &options, &made, NULL) != STATUS_OK) _exit(2);
    env_run(own);
    _exit(0);
}

static _Noreturn void etcd_main(const struct server *server)
{
    char client[TEXT_SIZE], peer[TEXT_SIZE], cluster[TEXT_SIZE + 16];

    snprintf(client, sizeof(client), "http://127.0.0.1:%u", server->port);
    snprintf(peer, sizeof(peer), "http://127.0.0.1:%u", server->peer_port);
    snprintf(cluster, sizeof(cluster), "default=%s", peer);
    execl(etcd_path(), "etcd", "--data-dir", server->directory, "--listen-client-urls", client,
          "--advertise-client-urls", client, "--listen-peer-urls", peer,
          "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster, "--logger", "zap",
          "--log-level", "error", (char *)NULL);
    _exit(3);
}

static _Noreturn void redis_main(const struct server *server)
{
    char port[16];

    snprintf(port, sizeof(port), "%u", server->port);
    execl(redis_path(), "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir",
          server->directory, "--save", "", "--requirepass", PASSWORD, "--loglevel", "warning",
          (char *)NULL);
    _exit(3);
}

static void server_run(struct server *server)
{
    server->child = fork();
    assert_true(server->child >= 0);
    if (server->child > 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(120); /* never outlives a test that went wrong */
    if (freopen("/dev/null", "w", stdout) == NULL) _exit(4);
    switch (server->kind) {
    case KIND_HTTP: http_main(server);
    case KIND_ETCD: etcd_main(server);
    case KIND_REDIS: redis_main(server);
    }
    _exit(5);
}

static void server_kill(struct server *server)
{
    kill(server->child, SIGKILL);
    waitpid(server->child, NULL, 0);
}

static void server_start(struct server *server, enum kind kind)
{
    const bool missing =
        (kind == KIND_ETCD && etcd_path() == NULL) || (kind == KIND_REDIS && redis_path() == NULL);

    if (missing) {
        const char *ci = getenv("CI");
        const char *name = kind == KIND_ETCD ? "etcd" : "redis";
        if (ci != NULL && strcmp(ci, "true") == 0) fail_msg("%s is not here: tools/setup.sh", name);
        print_message("skipped: %s is not here: tools/setup.sh test\n", name);
        skip();
    }
    *server = (struct server){ .kind = kind, .port = free_port(), .peer_port = free_port() };
    snprintf(server->directory, sizeof(server->directory), "/tmp/yolk-naming-XXXXXX");
    assert_non_null(mkdtemp(server->directory));
    if (kind == KIND_HTTP) {
        snprintf(server->url, TEXT_SIZE, "http://127.0.0.1:%u/metadata", server->port);
    } else if (kind == KIND_ETCD) { /* the first address is that of a member that is down */
        snprintf(server->url, TEXT_SIZE, "etcd://127.0.0.1:%u,127.0.0.1:%u", free_port(),
                 server->port);
    } else {
        snprintf(server->url, TEXT_SIZE, "redis://:" PASSWORD "@127.0.0.1:%u/2", server->port);
    }
    server_run(server);
}

static void server_end(struct server *server)
{
    char command[TEXT_SIZE];

    server_kill(server);
    snprintf(command, sizeof(command), "rm -rf %s", server->directory);
    assert_int_equal(system(command), 0);
}

/* ---- engines ---- */

static struct engine engine_start(const char *url, const char *name)
{
    const struct yolk_transfer_options options = {
        .forbid_shm = true, .metadata = url, .segment = name, .metadata_ttl_ms = TTL_MS
    };
    struct engine engine;
    void *memory;

    assert_int_equal(yolk_transfer_create(env, &options, &engine.transfer, NULL), STATUS_OK);
    assert_int_equal(
        yolk_transfer_alloc(engine.transfer, SIZE, YOLK_TRANSFER_REMOTE_ALL, &memory, NULL),
        STATUS_OK);
    engine.memory = memory;
    return engine;
}

static void wait_published(const struct engine *engine, enum status wanted)
{
    const uint64_t end_ns = env_now_ns(env) + LONG_NS;

    while (yolk_transfer_published(engine->transfer) != wanted) {
        assert_true(env_now_ns(env) < end_ns);
        env_poll(env, TURN_NS);
    }
}

static struct yolk_transfer_result write_under(struct engine *from, const char *name,
                                               const struct engine *to)
{
    struct yolk_transfer_request request = { .opcode = YOLK_TRANSFER_WRITE,
                                             .local = from->memory,
                                             .remote = (uintptr_t)to->memory,
                                             .length = SIZE };
    struct yolk_transfer_result result;
    struct yolk_transfer_batch batch;

    assert_int_equal(yolk_transfer_open(from->transfer, name, &request.segment), STATUS_OK);
    assert_int_equal(yolk_transfer_batch_create(from->transfer, 1, NULL, NULL, &batch), STATUS_OK);
    assert_int_equal(yolk_transfer_submit(from->transfer, batch, &request, 1), STATUS_OK);
    assert_int_equal(yolk_transfer_wait(from->transfer, batch, LONG_NS), STATUS_OK);
    assert_int_equal(yolk_transfer_poll(from->transfer, batch, 0, &result), STATUS_OK);
    assert_int_equal(yolk_transfer_batch_free(from->transfer, batch), STATUS_OK);
    assert_int_equal(yolk_transfer_close(from->transfer, request.segment), STATUS_OK);
    return result;
}

static void expect_reached(struct engine *from, const char *name, const struct engine *to)
{
    static uint8_t pattern;

    memset(from->memory, ++pattern, SIZE);
    assert_int_equal(write_under(from, name, to).state, YOLK_TRANSFER_COMPLETED);
    assert_memory_equal(to->memory, from->memory, SIZE);
}

/* One that has met nobody yet asks the server. */
static enum status ask_afresh(const char *url, const char *name)
{
    struct engine engine = engine_start(url, "visitor");
    const struct yolk_transfer_result result = write_under(&engine, name, &engine);

    assert_int_not_equal(result.state, YOLK_TRANSFER_COMPLETED); /* it is not there, at most here */
    wait_published(&engine, STATUS_OK);
    assert_int_equal(yolk_transfer_withdraw(engine.transfer, LONG_NS), STATUS_OK);
    yolk_transfer_destroy(engine.transfer);
    return result.reason;
}

/* ---- what happens ---- */

static void peers_come_and_go(enum kind kind)
{
    struct server server;

    server_start(&server, kind);
    struct engine a = engine_start(server.url, "a");
    struct engine b = engine_start(server.url, "10.0.0.1:b%2F&?");
    wait_published(&a, STATUS_OK);
    wait_published(&b, STATUS_OK);
    expect_reached(&b, "a", &a);
    expect_reached(&a, "10.0.0.1:b%2F&?", &b);

    yolk_transfer_destroy(a.transfer); /* it dies, */
    a = engine_start(server.url, "a"); /* and starts again at once, on another port */
    wait_published(&a, STATUS_OK);
    expect_reached(&b, "a", &a);

    const uint64_t end_ns = env_now_ns(env) + LONG_NS;
    yolk_transfer_destroy(a.transfer);
    while (ask_afresh(server.url, "a") != STATUS_NOT_FOUND)
        assert_true(env_now_ns(env) < end_ns);
    wait_published(&b, STATUS_OK); /* the living is still there */
    yolk_transfer_destroy(b.transfer);
    server_end(&server);
}

static void two_have_one_name(enum kind kind)
{
    struct server server;

    server_start(&server, kind);
    struct engine b = engine_start(server.url, "b");
    struct engine first = engine_start(server.url, "a");
    wait_published(&first, STATUS_OK);
    struct engine second = engine_start(server.url, "a");
    wait_published(&second, STATUS_OK);
    wait_published(&first, STATUS_EXISTS);
    expect_reached(&b, "a", &second);
    assert_int_equal(yolk_transfer_withdraw(second.transfer, LONG_NS), STATUS_OK);
    wait_published(&first, STATUS_OK); /* as soon as it asks again */
    struct engine third = engine_start(server.url, "a");
    wait_published(&third, STATUS_OK);
    assert_int_equal(yolk_transfer_withdraw(first.transfer, LONG_NS), STATUS_OK);
    struct engine c = engine_start(server.url, "c");
    expect_reached(&c, "a", &third); /* it took nothing away */
    assert_int_equal(yolk_transfer_withdraw(third.transfer, LONG_NS), STATUS_OK);
    assert_int_equal(ask_afresh(server.url, "a"), STATUS_NOT_FOUND); /* and this did, at once */
    struct engine *const all[] = { &b, &first, &second, &third, &c };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        yolk_transfer_destroy(all[i]->transfer);
    server_end(&server);
}

static void the_server_is_killed(enum kind kind)
{
    struct server server;

    server_start(&server, kind);
    struct engine a = engine_start(server.url, "a"), b = engine_start(server.url, "b");
    wait_published(&a, STATUS_OK);
    expect_reached(&b, "a", &a);
    server_kill(&server);
    wait_published(&a, STATUS_AGAIN);
    expect_reached(&b, "a", &a);
    server_run(&server);
    wait_published(&a, STATUS_OK);
    struct engine c = engine_start(server.url, "c");
    expect_reached(&c, "a", &a);
    yolk_transfer_destroy(a.transfer);
    yolk_transfer_destroy(b.transfer);
    yolk_transfer_destroy(c.transfer);
    server_end(&server);
}

static void test_http_peers_come_and_go(void **state)
{
    (void)state;
    peers_come_and_go(KIND_HTTP);
}

static void test_etcd_peers_come_and_go(void **state)
{
    (void)state;
    peers_come_and_go(KIND_ETCD);
}

static void test_redis_peers_come_and_go(void **state)
{
    (void)state;
    peers_come_and_go(KIND_REDIS);
}

static void test_http_two_have_one_name(void **state)
{
    (void)state;
    two_have_one_name(KIND_HTTP);
}

static void test_etcd_two_have_one_name(void **state)
{
    (void)state;
    two_have_one_name(KIND_ETCD);
}

static void test_redis_two_have_one_name(void **state)
{
    (void)state;
    two_have_one_name(KIND_REDIS);
}

static void test_http_the_server_is_killed(void **state)
{
    (void)state;
    the_server_is_killed(KIND_HTTP);
}

static void test_etcd_the_server_is_killed(void **state)
{
    (void)state;
    the_server_is_killed(KIND_ETCD);
}

static void test_redis_the_server_is_killed(void **state)
{
    (void)state;
    the_server_is_killed(KIND_REDIS);
}

static void test_redis_refuses_a_wrong_password(void **state)
{
    struct server server;
    char url[TEXT_SIZE];

    (void)state;
    server_start(&server, KIND_REDIS);
    snprintf(url, sizeof(url), "redis://:wrong@127.0.0.1:%u", server.port);
    struct engine a = engine_start(url, "a");
    wait_published(&a, STATUS_DENIED);
    yolk_transfer_destroy(a.transfer);
    snprintf(url, sizeof(url), "redis://127.0.0.1:%u", server.port);
    a = engine_start(url, "a");
    wait_published(&a, STATUS_DENIED);
    yolk_transfer_destroy(a.transfer);
    server_end(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http_peers_come_and_go),
        cmocka_unit_test(test_etcd_peers_come_and_go),
        cmocka_unit_test(test_redis_peers_come_and_go),
        cmocka_unit_test(test_http_two_have_one_name),
        cmocka_unit_test(test_etcd_two_have_one_name),
        cmocka_unit_test(test_redis_two_have_one_name),
        cmocka_unit_test(test_http_the_server_is_killed),
        cmocka_unit_test(test_etcd_the_server_is_killed),
        cmocka_unit_test(test_redis_the_server_is_killed),
        cmocka_unit_test(test_redis_refuses_a_wrong_password),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    if (env_real_create(NULL, &env, NULL) != STATUS_OK) return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    env_real_destroy(env);
    return failed;
}
