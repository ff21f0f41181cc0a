/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_revoke_test.c
 *
 * Goal:   tickets that are given back together reach the master together, each once; a master of
 *         before hears of them one by one; and who waits for that is told, whatever happens.
 * Method: the client's part alone, in a simulated world, against a master of this test, which
 *         counts what it is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/env_sim.h"
#include "net/rpc.h"
#include "seed.h"
#include "store/client_revoke.h"
#include "store/proto.h"

enum { TICKETS = REVOKES_MAX + 10, TOLD_MAX = TICKETS + 4 };

#define MASTER "10.0.0.1:7000"

static struct env_sim *sim;
static struct env *master_env, *env;
static struct rpc_server *server;
static struct rpc_client *client;
static struct client_revokes *revokes;
static uint32_t told[TICKETS]; /* how often of each */
static uint32_t batches, singles, ended;

static void hear(const struct store_put_revoke *revoke)
{
    char text[16];
    const uint32_t ticket = (uint32_t)revoke->put_id - 1;
    assert_true(ticket < TICKETS);
    snprintf(text, sizeof(text), "v%u", ticket);
    assert_int_equal(revoke->key.len, strlen(text));
    assert_memory_equal(revoke->key.bytes, text, revoke->key.len);
    assert_int_equal(revoke->writer, 7 * ticket);
    told[ticket]++;
}

static void on_one(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_put_revoke revoke;
    (void)ctx;
    assert_int_equal(store_decode_put_revoke(body, len, &revoke), STATUS_OK);
    hear(&revoke);
    singles++;
    rpc_reply(call, NULL, 0);
}

static void on_many(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_put_revokes many;
    struct store_put_revoke revoke;
    size_t offset = 0;
    (void)ctx;

    assert_int_equal(store_decode_put_revokes(body, len, &many), STATUS_OK);
    for (uint32_t i = 0; i < many.count; i++) {
        store_put_revokes_at(&many, i, &offset, &revoke);
        hear(&revoke);
    }
    batches++;
    rpc_reply(call, NULL, 0); /* what it says is not looked at */
}

static void start(bool knows_batches)
{
    const struct env_sim_options calm = { .seed = test_seed() };
    const struct rpc_server_options here = { .address = MASTER, .secret = "s", .name = "master" };
    const struct rpc_client_options there = { .address = MASTER, .secret = "s", .name = "client" };

    sim = env_sim_create(&calm);
    assert_non_null(sim);
    master_env = env_sim_add(sim, "10.0.0.1");
    env = env_sim_add(sim, "10.0.2.1");
    assert_int_equal(rpc_server_create(master_env, &here, &server, NULL), STATUS_OK);
    rpc_server_add(server, MASTER_METHOD_PUT_REVOKE, "master.put_revoke", on_one, NULL);
    if (knows_batches) {
        rpc_server_add(server, MASTER_METHOD_PUT_REVOKES, "master.put_revokes", on_many, NULL);
    }
    assert_int_equal(rpc_client_create(env, &there, &client, NULL), STATUS_OK);
    assert_int_equal(client_revokes_create(env, client, &revokes), STATUS_OK);
    memset(told, 0, sizeof(told));
    batches = singles = ended = 0;
    env_sim_run_for(sim, ENV_NS_PER_S);
}

static void stop(void)
{
    client_revokes_close(revokes);
    rpc_client_destroy(client);
    client_revokes_destroy(revokes);
    if (server != NULL) rpc_server_destroy(server);
    env_sim_destroy(sim);
}

static void on_end(void *ctx)
{
    (void)ctx;
    ended++;
}

static void give_back(uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        char text[16];
        const int len = snprintf(text, sizeof(text), "v%u", i);
        const struct store_put_revoke revoke = { .key = { (const uint8_t *)text, (uint32_t)len },
                                                 .put_id = i + 1,
                                                 .writer = 7 * i };
        assert_int_equal(
            client_revokes_add(revokes, &revoke, ENV_NEVER, i % 2 == 0 ? on_end : NULL, NULL),
            STATUS_OK);
    }
}

static void expect(uint32_t count)
{
    for (uint32_t i = 0; i < TICKETS; i++)
        assert_int_equal(told[i], i < count);
    assert_int_equal(ended, (count + 1) / 2);
}

static void many_leave_together(void **state)
{
    (void)state;
    start(true);
    give_back(0, TICKETS);
    assert_int_equal(ended, 0); /* never from inside */
    env_sim_run_for(sim, ENV_NS_PER_S);
    expect(TICKETS);
    assert_int_equal(batches, 2);
    assert_int_equal(singles, 0);
    stop();
}

static void one_is_told_as_ever(void **state)
{
    (void)state;
    start(true);
    give_back(0, 1);
    env_sim_run_for(sim, ENV_NS_PER_S);
    expect(1);
    assert_int_equal(singles, 1);
    assert_int_equal(batches, 0);
    stop();
}

static void a_master_of_before_is_told_one_by_one(void **state)
{
    (void)state;
    start(false);
    give_back(0, 10);
    env_sim_run_for(sim, ENV_NS_PER_S);
    expect(10);
    assert_int_equal(singles, 10);
    stop();
}

/* Nobody waits longer than for a master that does not answer. */
static void who_waits_for_a_master_that_is_gone_is_told(void **state)
{
    (void)state;
    start(true);
    rpc_server_destroy(server);
    server = NULL;
    env_sim_kill(master_env);
    give_back(0, 3);
    env_sim_run_for(sim, 3 * ENV_NS_PER_S);
    assert_int_equal(ended, 2);
    give_back(3, 6); /* and what is left at the end is nobody's */
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_leave_together),
        cmocka_unit_test(one_is_told_as_ever),
        cmocka_unit_test(a_master_of_before_is_told_one_by_one),
        cmocka_unit_test(who_waits_for_a_master_that_is_gone_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
