/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_lookup_test.c
 *
 * Goal:   a host that is a name is looked up while the loop turns: a name server that is silent
 *         holds up nobody but who asked; a stream may be closed, and its env destroyed, meanwhile.
 * Method: a resolver of our own in front of the C library's, which waits until it may answer. */
#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"

enum { MANY = 16 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool silent; /* the name server; under the mutex, as `asked` */
static unsigned asked, answered;

static void set_silent(bool now)
{
    pthread_mutex_lock(&mutex);
    silent = now;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

/* The other one of this name is the C library's. */
int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    struct addrinfo number = *hints;
    const bool known = host != NULL && strcmp(host, "here.test") == 0;
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    number.ai_flags |= AI_NUMERICHOST;
    if ((hints->ai_flags & AI_NUMERICHOST) != 0 || host == NULL ||
        (host[0] >= '0' && host[0] <= '9'))
        return real(host, service, &number, out);
    pthread_mutex_lock(&mutex);
    asked++;
    while (silent)
        pthread_cond_wait(&changed, &mutex);
    answered++;
    pthread_mutex_unlock(&mutex);
    return known ? real("127.0.0.1", service, &number, out) : EAI_NONAME;
}

struct world {
    struct env *env;
    struct env_listener *listener;
    struct env_stream *accepted, *stream;
    char known[64], unknown[64];
    unsigned ready; /* events of `stream` */
    bool ticked;
};

static void on_accept(void *ctx, struct env_stream *stream)
{
    struct world *world = ctx;
    world->accepted = stream;
}

static void on_ready(void *ctx, unsigned events)
{
    struct world *world = ctx;
    world->ready |= events;
    env_stream_watch(world->stream, 0, on_ready, world);
}

static void on_tick(void *ctx)
{
    struct world *world = ctx;
    world->ticked = true;
}

static void world_open(struct world *world)
{
    *world = (struct world){ .env = NULL };
    set_silent(false);
    assert_int_equal(env_real_create(NULL, &world->env, NULL), STATUS_OK);
    assert_int_equal(
        env_listen(world->env, "127.0.0.1:0", on_accept, world, &world->listener, NULL), STATUS_OK);
    const unsigned port = env_listener_port(world->listener);
    snprintf(world->known, sizeof(world->known), "here.test:%u", port);
    snprintf(world->unknown, sizeof(world->unknown), "nowhere.test:%u", port);
}

static void world_close(struct world *world)
{
    env_stream_close(world->accepted);
    env_stream_close(world->stream);
    env_listener_close(world->listener);
    env_real_destroy(world->env);
}

static void turn_for(struct world *world, uint64_t ns)
{
    struct env_timer timer;

    world->ticked = false;
    env_timer_init(&timer, on_tick, world);
    env_timer_set(world->env, &timer, env_now_ns(world->env) + ns);
    while (!world->ticked)
        env_poll(world->env, ENV_NS_PER_S);
}

static void until_ready(struct world *world)
{
    while (world->ready == 0)
        env_poll(world->env, ENV_NS_PER_S);
}

static void connect_to(struct world *world, const char *address)
{
    assert_int_equal(env_connect(world->env, address, &world->stream, NULL), STATUS_OK);
    env_stream_watch(world->stream, ENV_WRITE, on_ready, world);
}

static void names_are_found_beside_the_loop(void **state)
{
    (void)state;
    struct iovec iov = { (void *)(uintptr_t) "hello", 5 };
    struct world world;
    uint8_t text[8];
    size_t n = 0;

    world_open(&world);
    set_silent(true);
    connect_to(&world, world.known);
    assert_string_equal(env_stream_peer(world.stream), world.known);
    assert_int_equal(env_stream_writev(world.stream, &iov, 1, &n), STATUS_AGAIN);
    assert_int_equal(env_stream_read(world.stream, text, sizeof(text), &n), STATUS_AGAIN);
    turn_for(&world, 20 * ENV_NS_PER_MS); /* nobody waits for the name server */
    assert_int_equal(world.ready, 0);
    set_silent(false);
    until_ready(&world);
    assert_int_equal(env_stream_writev(world.stream, &iov, 1, &n), STATUS_OK);
    assert_string_equal(env_stream_local_host(world.stream), "127.0.0.1");
    assert_memory_equal(env_stream_peer(world.stream), "127.0.0.1:", 10);
    while (world.accepted == NULL || env_stream_read(world.accepted, text, 8, &n) == STATUS_AGAIN)
        env_poll(world.env, ENV_NS_PER_MS);
    assert_memory_equal(text, "hello", 5);
    world_close(&world);
}

static void what_fails_is_told_by_the_first_read(void **state)
{
    (void)state;
    struct world world;
    uint8_t byte;
    size_t n;

    world_open(&world);
    connect_to(&world, world.unknown);
    until_ready(&world);
    assert_int_equal(env_stream_read(world.stream, &byte, 1, &n), STATUS_UNAVAILABLE);
    env_stream_close(world.stream);
    world.ready = 0;
    env_listener_close(world.listener); /* found, but nobody listens there */
    world.listener = NULL;
    connect_to(&world, world.known);
    until_ready(&world);
    assert_int_equal(env_stream_read(world.stream, &byte, 1, &n), STATUS_CONN_REFUSED);
    env_stream_close(world.stream);
    assert_int_equal(env_connect_from(world.env, "203.0.113.9", world.known, &world.stream, NULL),
                     STATUS_OK);
    world.ready = 0;
    env_stream_watch(world.stream, ENV_WRITE, on_ready, &world); /* not from an address of ours */
    until_ready(&world);
    assert_int_equal(env_stream_read(world.stream, &byte, 1, &n), STATUS_UNAVAILABLE);
    world_close(&world);
}

/* Whoever leaves does not wait; there are so many threads and no more. */
static void a_silent_server_holds_nobody(void **state)
{
    (void)state;
    struct env_stream *streams[MANY], *more;
    struct errmsg err;
    struct world world;

    world_open(&world);
    set_silent(true);
    pthread_mutex_lock(&mutex);
    asked = answered = 0;
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(env_connect(world.env, world.unknown, &streams[i], NULL), STATUS_OK);
    assert_int_equal(env_connect(world.env, world.known, &more, &err), STATUS_FULL);
    for (int i = 0; i < MANY / 2; i++)
        env_stream_close(streams[i]);
    turn_for(&world, ENV_NS_PER_MS);
    world_close(&world); /* the other half with it */
    set_silent(false);
    for (unsigned count = 0; count < MANY;) {
        env_real_sleep_ns(ENV_NS_PER_MS);
        pthread_mutex_lock(&mutex);
        count = answered;
        assert_true(asked <= MANY);
        pthread_mutex_unlock(&mutex);
    }
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found_beside_the_loop),
        cmocka_unit_test(what_fails_is_told_by_the_first_read),
        cmocka_unit_test(a_silent_server_holds_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
