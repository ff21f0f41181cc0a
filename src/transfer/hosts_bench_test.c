/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/hosts_bench_test.c
 *
 * Goal:   the bench between two hosts ends with numbers; what is no server, and who asks a server
 *         for too much, is told so, and the server goes on.
 * Method: the other host is a thread with a loop of its own. One quick pair of some rows. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/env_bare.h"
#include "base/env_real.h"
#include "base/log.h"
#include "transfer/bench.h"

struct other {
    pthread_t thread;
    char address[64];
    _Atomic int state; /* 0: starting, 1: serving, 2: failed; by the thread */
    _Atomic bool stop;
};

static void nobody(void *ctx, struct env_stream *stream)
{
    (void)ctx;
    env_stream_close(stream);
}

/* A port that was free a moment ago. */
static void choose(struct other *other, struct env *env)
{
    struct env_listener *listener;

    if (env_listen(env, "127.0.0.1:0", nobody, NULL, &listener, NULL) != STATUS_OK) return;
    snprintf(other->address, sizeof(other->address), "127.0.0.1:%u",
             (unsigned)env_listener_port(listener));
    env_listener_close(listener);
}

static void *other_main(void *ctx)
{
    struct other *other = ctx;
    struct transfer_bench_server *server = NULL;
    struct env *env = NULL;

    if (env_real_create(NULL, &env, NULL) == STATUS_OK) choose(other, env);
    if (env == NULL || transfer_bench_serve(env, other->address, "", &server, NULL) != STATUS_OK) {
        atomic_store(&other->state, 2);
    } else {
        atomic_store(&other->state, 1);
        while (!atomic_load(&other->stop))
            env_poll(env, ENV_NS_PER_MS);
    }
    transfer_bench_server_close(server);
    env_real_destroy(env);
    return NULL;
}

static void asks_too_much(const struct other *other)
{
    static uint8_t here[1 << 20];
    struct env_bare_options options = {
        .streams = 1, .depth = 1, .size = 4096, .here = here, .memory_size = sizeof(here)
    };
    struct env_bare *bare;
    uint64_t ns;

    options.memory_size = (size_t)1 << 40; /* the server has less */
    assert_int_equal(env_bare_connect(&options, other->address, &bare, NULL), STATUS_OK);
    assert_int_equal(env_bare_run(bare, 1, &ns), STATUS_IO);
    env_bare_close(bare);
    options.memory_size = sizeof(here);
    assert_int_equal(env_bare_connect(&options, other->address, &bare, NULL), STATUS_OK);
    assert_int_equal(env_bare_run(bare, 10, &ns), STATUS_OK);
    env_bare_close(bare);
    options.depth = 0;
    assert_int_equal(env_bare_connect(&options, other->address, &bare, NULL), STATUS_INVALID);
}

static void two_hosts_are_measured(void **state)
{
    (void)state;
    static struct transfer_bench bench;
    static struct other other;
    char word[ENV_BARE_WORD_SIZE], name[ENV_BARE_WORD_SIZE];
    struct errmsg err = { "" };

    assert_int_equal(pthread_create(&other.thread, NULL, other_main, &other), 0);
    while (atomic_load(&other.state) == 0)
        env_real_sleep_ns(ENV_NS_PER_MS);
    assert_int_equal(atomic_load(&other.state), 1);
    asks_too_much(&other);
    bench = (struct transfer_bench){ .pairs = 1, .quick = true, .only = "_64k_" };
    if (transfer_bench_peer(&bench, other.address, "", &err) != STATUS_OK) fail_msg("%s", err.text);
    bench.only = "two_streams";
    assert_int_equal(transfer_bench_peer(&bench, other.address, "", &err), STATUS_OK);
    assert_int_equal(bench.count, 2);
    for (uint32_t i = 0; i < bench.count; i++)
        assert_true(bench.rows[i].value > 0 && bench.rows[i].baseline > 0);
    /* The engine's port is not the bench's. */
    assert_int_equal(env_bare_ask(other.address, word, &err), STATUS_OK);
    assert_int_equal(sscanf(word, "%255s", name), 1);
    assert_int_not_equal(transfer_bench_peer(&bench, name, "", &err), STATUS_OK);
    assert_true(err.text[0] != '\0');
    atomic_store(&other.stop, true);
    pthread_join(other.thread, NULL);
    assert_int_equal(transfer_bench_peer(&bench, other.address, "", &err), STATUS_UNAVAILABLE);
}

static void beyond_loopback_it_wants_a_secret(void **state)
{
    (void)state;
    struct transfer_bench_server *server = NULL;
    struct errmsg err = { "" };
    struct env *env;

    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    assert_int_equal(transfer_bench_serve(env, "0.0.0.0:0", "", &server, &err), STATUS_DENIED);
    assert_int_equal(transfer_bench_serve(env, "nonsense", "", &server, &err), STATUS_INVALID);
    assert_null(server);
    env_real_destroy(env);
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_hosts_are_measured),
        cmocka_unit_test(beyond_loopback_it_wants_a_secret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
