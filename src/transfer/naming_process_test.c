/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/naming_process_test.c
 *
 * Goal:   names work on the servers people have: etcd and Redis from Debian's packages, and our own
 *         metadata server; with a peer that starts again, one that dies, two that share a name, and
 *         a server that is killed.
 * Method: the server is a child process on a free port with a directory of its own; the engines are
 *         in this process. The same happens around all three kinds at once. A server that is not
 *         installed is left out aloud, and fails the tests where CI=true. */
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
#include "net/http_client.h"
#include "transfer/metadata_server.h"
#include "transfer/transfer_int.h"

enum { SIZE = 64 << 10, TTL_MS = 1000, ARGS_MAX = 24, TEXT_SIZE = 256 };
#define LONG_NS (30 * ENV_NS_PER_S)
#define TURN_NS (20 * ENV_NS_PER_MS)
#define PASSWORD "sesame"

enum kind { KIND_HTTP, KIND_ETCD, KIND_REDIS, KINDS };

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

/* For a server that binds it later, in a process of its own: below those that the kernel gives to
 * connections, of which another test may get one meanwhile. */
static unsigned free_port(void)
{
    enum { PORTS_FROM = 20000, PORTS = 12000 };
    static unsigned last;
    struct env_listener *listener;

    if (last == 0) last = (unsigned)getpid() * 31;
    for (;;) {
        char address[32];
        const unsigned port = PORTS_FROM + ++last % PORTS;
        snprintf(address, sizeof(address), "127.0.0.1:%u", port);
        if (env_listen(env, address, on_accept, NULL, &listener, NULL) != STATUS_OK) continue;
        env_listener_close(listener);
        return port;
    }
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
          "--log-level", "error", "--heartbeat-interval", "20", "--election-timeout", "200",
          "--bcrypt-cost", "4",
          (char *)NULL); /* alone it need not wait long to lead, and leases may be short */
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
    case KINDS: break;
    }
    _exit(5);
}

static void server_kill(struct server *server)
{
    kill(server->child, SIGKILL);
    waitpid(server->child, NULL, 0);
}

/* False if there is none. */
static bool server_start(struct server *server, enum kind kind)
{
    const bool missing =
        (kind == KIND_ETCD && etcd_path() == NULL) || (kind == KIND_REDIS && redis_path() == NULL);

    if (missing) {
        const char *ci = getenv("CI");
        const char *name = kind == KIND_ETCD ? "etcd" : "redis";
        if (ci != NULL && strcmp(ci, "true") == 0) fail_msg("%s is not here: tools/setup.sh", name);
        print_message("skipped: %s is not here: tools/setup.sh test\n", name);
        return false;
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
    return true;
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

enum { ENGINES = 5, STEPS_MAX = 4 };

/* What is going on around one server. */
struct scene {
    bool played; /* its server is installed */
    struct server server;
    struct engine engines[ENGINES]; /* zero: none */
};

typedef void step_fn(struct scene *);

/* Every step around each server in turn, so that what one waits for passes for all. */
static void play(step_fn *const steps[STEPS_MAX])
{
    static struct scene scenes[KINDS];
    int played = 0;

    for (int kind = 0; kind < KINDS; kind++) {
        scenes[kind] = (struct scene){ .played = false };
        scenes[kind].played = server_start(&scenes[kind].server, kind);
        played += scenes[kind].played;
    }
    assert_true(played >= 1); /* ours is always there */
    for (int i = 0; i < STEPS_MAX && steps[i] != NULL; i++) {
        for (int kind = 0; kind < KINDS; kind++) {
            if (scenes[kind].played) steps[i](&scenes[kind]);
        }
    }
    for (int kind = 0; kind < KINDS; kind++) {
        if (!scenes[kind].played) continue;
        for (int i = 0; i < ENGINES; i++)
            yolk_transfer_destroy(scenes[kind].engines[i].transfer);
        server_end(&scenes[kind].server);
    }
}

static struct engine *enter(struct scene *scene, int at, const char *name)
{
    scene->engines[at] = engine_start(scene->server.url, name);
    return &scene->engines[at];
}

/* It has no time to withdraw. */
static void die(struct scene *scene, int at)
{
    naming_stop(scene->engines[at].transfer);
    yolk_transfer_destroy(scene->engines[at].transfer);
    scene->engines[at].transfer = NULL;
}

#define ODD_NAME "10.0.0.1:b%2F&?"

static void two_meet(struct scene *scene)
{
    const struct engine *a = enter(scene, 0, "a"), *b = enter(scene, 1, ODD_NAME);
    wait_published(a, STATUS_OK);
    wait_published(b, STATUS_OK);
    expect_reached(&scene->engines[1], "a", a);
    expect_reached(&scene->engines[0], ODD_NAME, b);
}

static void one_starts_again(struct scene *scene)
{
    die(scene, 0);
    const struct engine *again = enter(scene, 0, "a"); /* and is back at once, on another port */
    wait_published(again, STATUS_OK);
    expect_reached(&scene->engines[1], "a", again);
    die(scene, 0);
}

static void its_name_expires(struct scene *scene)
{
    const uint64_t end_ns = env_now_ns(env) + LONG_NS;

    while (ask_afresh(scene->server.url, "a") != STATUS_NOT_FOUND)
        assert_true(env_now_ns(env) < end_ns);
    wait_published(&scene->engines[1], STATUS_OK); /* the living is still there */
}

static void peers_come_and_go(void **state)
{
    (void)state;
    static step_fn *const steps[STEPS_MAX] = { two_meet, one_starts_again, its_name_expires };
    play(steps);
}

enum { FIRST, SECOND, THIRD, B, C };

static void two_take_one_name(struct scene *scene)
{
    enter(scene, B, "b");
    wait_published(enter(scene, FIRST, "a"), STATUS_OK);
    wait_published(enter(scene, SECOND, "a"), STATUS_OK);
}

static void the_later_has_it(struct scene *scene)
{
    wait_published(&scene->engines[FIRST], STATUS_EXISTS);
    expect_reached(&scene->engines[B], "a", &scene->engines[SECOND]);
    assert_int_equal(yolk_transfer_withdraw(scene->engines[SECOND].transfer, LONG_NS), STATUS_OK);
}

static void the_earlier_has_it_again(struct scene *scene)
{
    wait_published(&scene->engines[FIRST], STATUS_OK); /* as soon as it asks again */
    wait_published(enter(scene, THIRD, "a"), STATUS_OK);
    assert_int_equal(yolk_transfer_withdraw(scene->engines[FIRST].transfer, LONG_NS), STATUS_OK);
    expect_reached(enter(scene, C, "c"), "a", &scene->engines[THIRD]); /* it took nothing away */
    yolk_transfer_destroy(scene->engines[THIRD].transfer);
    scene->engines[THIRD].transfer = NULL;
    assert_int_equal(ask_afresh(scene->server.url, "a"), STATUS_NOT_FOUND); /* this did, at once */
}

static void two_have_one_name(void **state)
{
    (void)state;
    static step_fn *const steps[STEPS_MAX] = { two_take_one_name, the_later_has_it,
                                               the_earlier_has_it_again };
    play(steps);
}

static void the_server_dies(struct scene *scene)
{
    const struct engine *a = enter(scene, FIRST, "a");
    wait_published(a, STATUS_OK);
    expect_reached(enter(scene, B, "b"), "a", a);
    server_kill(&scene->server);
}

static void its_entries_are_not_sure(struct scene *scene)
{
    wait_published(&scene->engines[FIRST], STATUS_AGAIN);
    expect_reached(&scene->engines[B], "a", &scene->engines[FIRST]);
    server_run(&scene->server);
}

static void all_is_as_before(struct scene *scene)
{
    wait_published(&scene->engines[FIRST], STATUS_OK);
    expect_reached(enter(scene, C, "c"), "a", &scene->engines[FIRST]);
}

static void the_server_is_killed(void **state)
{
    (void)state;
    static step_fn *const steps[STEPS_MAX] = { the_server_dies, its_entries_are_not_sure,
                                               all_is_as_before };
    play(steps);
}

static void redis_refuses_a_wrong_password(void **state)
{
    struct server server;
    char url[TEXT_SIZE];

    (void)state;
    if (!server_start(&server, KIND_REDIS)) skip();
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

/* ---- etcd with users ---- */

static void on_etcd_answer(void *ctx, const struct http_reply *reply)
{
    *(struct http_reply *)ctx = *reply;
}

/* As an administrator would before anybody needs a password. */
static void etcd_configure(const struct server *server, const char *path, const char *body)
{
    const uint64_t end_ns = env_now_ns(env) + LONG_NS;
    struct http_reply reply = { .code = 0 };
    char address[TEXT_SIZE];

    snprintf(address, sizeof(address), "127.0.0.1:%u", server->port);
    while (reply.code != 200) { /* it may not be there yet */
        const struct http_client_options options = { .address = address,
                                                     .method = "POST",
                                                     .path = path,
                                                     .body = body,
                                                     .len = strlen(body),
                                                     .deadline_ns = end_ns,
                                                     .on_done = on_etcd_answer,
                                                     .ctx = &reply };
        struct http_client *client;
        reply = (struct http_reply){ .status = STATUS_PENDING };
        assert_int_equal(http_client_start(env, &options, &client, NULL), STATUS_OK);
        while (reply.status == STATUS_PENDING)
            env_poll(env, TURN_NS);
        assert_true(env_now_ns(env) < end_ns);
        if (reply.code != 200) env_real_sleep_ns(TURN_NS);
    }
}

static void etcd_asks_for_a_password(void **state)
{
    struct server server;
    char url[TEXT_SIZE];

    (void)state;
    if (!server_start(&server, KIND_ETCD)) skip();
    snprintf(url, sizeof(url), "etcd://root:" PASSWORD "@127.0.0.1:%u", server.port);
    struct engine early = engine_start(url, "early"); /* it has no users yet, and asks for none */
    wait_published(&early, STATUS_OK);
    yolk_transfer_destroy(early.transfer);
    etcd_configure(&server, "/v3/auth/user/add",
                   "{\"name\":\"root\",\"password\":\"" PASSWORD "\"}");
    etcd_configure(&server, "/v3/auth/user/grant", "{\"user\":\"root\",\"role\":\"root\"}");
    etcd_configure(&server, "/v3/auth/enable", "{}");
    struct engine a = engine_start(url, "a");
    wait_published(&a, STATUS_OK);
    struct engine b = engine_start(url, "b");
    expect_reached(&b, "a", &a);
    yolk_transfer_destroy(a.transfer);
    assert_int_equal(ask_afresh(url, "a"), STATUS_NOT_FOUND);
    yolk_transfer_destroy(b.transfer);
    snprintf(url, sizeof(url), "etcd://root:wrong@127.0.0.1:%u", server.port);
    a = engine_start(url, "a");
    wait_published(&a, STATUS_DENIED);
    yolk_transfer_destroy(a.transfer);
    snprintf(url, sizeof(url), "etcd://127.0.0.1:%u", server.port);
    a = engine_start(url, "a");
    wait_published(&a, STATUS_DENIED);
    yolk_transfer_destroy(a.transfer);
    server_end(&server);
}

static void on_early(void *ctx)
{
    (void)ctx;
    fail_msg("the loop was turned by an engine's end");
}

/* The kernel takes its connections, and nobody ever answers: an engine's end waits a second for it,
 * and for nobody else of the loop. */
static void a_silent_server_does_not_hold_an_engine(void **state)
{
    struct env_listener *listener;
    struct env_timer timer;
    char url[TEXT_SIZE];

    (void)state;
    assert_int_equal(env_listen(env, "127.0.0.1:0", on_accept, NULL, &listener, NULL), STATUS_OK);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/metadata",
             (unsigned)env_listener_port(listener));
    struct engine a = engine_start(url, "a");
    env_poll(env, 0); /* it has asked */
    assert_int_equal(yolk_transfer_published(a.transfer), STATUS_AGAIN);
    env_timer_init(&timer, on_early, NULL);
    env_timer_set(env, &timer, 0);
    yolk_transfer_destroy(a.transfer);
    env_timer_cancel(env, &timer);
    env_listener_close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peers_come_and_go),
        cmocka_unit_test(two_have_one_name),
        cmocka_unit_test(the_server_is_killed),
        cmocka_unit_test(redis_refuses_a_wrong_password),
        cmocka_unit_test(etcd_asks_for_a_password),
        cmocka_unit_test(a_silent_server_does_not_hold_an_engine),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    if (env_real_create(NULL, &env, NULL) != STATUS_OK) return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    env_real_destroy(env);
    return failed;
}
