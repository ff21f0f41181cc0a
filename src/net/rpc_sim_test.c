/* SPDX-License-Identifier: Apache-2.0
 *
 * net/rpc_sim_test.c
 *
 * Goal:   whatever the network does, every call ends exactly once on the client, every request
 *         given to a handler can be ended and has the bytes that were asked with, stream items come
 *         in order and without gaps, and once the faults stop everything works again.
 * Method: a simulated world with loss, refusals, flipped bits, short reads and writes, partitions
 *         and kills of the server; clients make random calls and cancel some. `SEED=n` replays a
 *         world, ROUNDS=n runs more of them. The same seed must give the same trace. */
#include "net/rpc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/env_sim.h"
#include "base/log.h"
#include "base/rng.h"
#include "seed.h"

enum {
    CLIENTS = 3,
    ENDS = 5,
    CALLS_MAX = 400,
    HELD_MAX = 4096,
    ECHO = 1,
    HOLD = 2,
    COUNT = 3,
    ITEMS = 20,
    STEPS = 300,
    BODY_SIZE_MAX = 20000,
};

static uint64_t seed;
static int rounds = 20;

struct world;

struct call {
    struct world *world;
    uint16_t method;
    uint32_t body_len;
    uint32_t items;
    uint32_t ends;
    bool has_deadline;
    enum status status;
    int client;
    struct rpc_call_id id;
};

struct world {
    struct env_sim *sim;
    struct rng rng;
    struct env *server_env;
    struct rpc_server *server;
    struct env *client_envs[CLIENTS];
    struct rpc_client *clients[CLIENTS];
    struct call calls[CALLS_MAX];
    uint32_t calls_count;
    struct rpc_call *held[HELD_MAX];
    uint32_t held_count;
    uint32_t ended;
    uint32_t statuses[ENDS]; /* ok, timeout, cancelled, closed, refused */
};

/* ---- the server ---- */

static void check_bytes(const uint8_t *body, size_t len)
{
    for (size_t i = 0; i < len; i++)
        assert_int_equal(body[i], (uint8_t)(i * 7));
}

static void on_echo(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    (void)ctx;
    check_bytes(body, len);
    rpc_reply(call, body, len);
}

static void on_hold(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct world *world = ctx;
    check_bytes(body, len);
    assert_true(world->held_count < HELD_MAX);
    world->held[world->held_count++] = call;
}

static void on_count(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    (void)ctx;
    check_bytes(body, len);
    for (uint32_t i = 0; i < ITEMS; i++) {
        const enum status status = rpc_send(call, &i, sizeof(i));
        if (status == STATUS_OK) continue;
        rpc_fail(call, status, "the stream broke");
        return;
    }
    rpc_reply(call, NULL, 0);
}

static void server_start(struct world *world)
{
    const struct rpc_server_options options = {
        .address = "10.0.0.1:7000", .secret = "sesame", .name = "server", .keepalive_ms = 500
    };
    struct errmsg err = { "" };

    world->server_env = env_sim_add(world->sim, "10.0.0.1");
    assert_int_equal(rpc_server_create(world->server_env, &options, &world->server, &err),
                     STATUS_OK);
    rpc_server_add(world->server, ECHO, "echo", on_echo, world);
    rpc_server_add(world->server, HOLD, "hold", on_hold, world);
    rpc_server_add(world->server, COUNT, "count", on_count, world);
}

static void release_held(struct world *world)
{
    while (world->held_count > 0)
        rpc_reply(world->held[--world->held_count], "held", 4);
}

static void server_crash(struct world *world)
{
    env_sim_kill(world->server_env);
    rpc_server_destroy(world->server);
    release_held(world);
    world->server = NULL;
}

/* ---- the clients ---- */

static void on_item(void *ctx, const uint8_t *body, size_t len)
{
    struct call *call = ctx;
    uint32_t number;

    assert_int_equal(len, sizeof(number));
    memcpy(&number, body, sizeof(number));
    assert_int_equal(number, call->items);
    assert_int_equal(call->ends, 0);
    call->items++;
}

static void check_reply(const struct call *call, const struct rpc_result *result)
{
    if (call->method == COUNT) assert_int_equal(call->items, ITEMS);
    if (call->method != ECHO) return;
    assert_int_equal(result->len, call->body_len);
    check_bytes(result->body, result->len);
}

static void on_end(void *ctx, const struct rpc_result *result)
{
    struct call *call = ctx;

    call->ends++;
    assert_int_equal(call->ends, 1);
    call->status = result->status;
    call->world->ended++;
    switch ((int)result->status) {
    case STATUS_OK:
        check_reply(call, result);
        call->world->statuses[0]++;
        break;
    case STATUS_TIMEOUT:
        assert_true(call->has_deadline);
        call->world->statuses[1]++;
        break;
    case STATUS_CANCELLED: call->world->statuses[2]++; break;
    case STATUS_CONN_CLOSED: call->world->statuses[3]++; break;
    case STATUS_CONN_REFUSED: call->world->statuses[4]++; break;
    default: fail_msg("a call ended with %s", status_name(result->status));
    }
}

static void clients_start(struct world *world)
{
    for (int i = 0; i < CLIENTS; i++) {
        char host[32], name[32];
        struct errmsg err = { "" };
        snprintf(host, sizeof(host), "10.0.1.%d", i + 1);
        snprintf(name, sizeof(name), "client%d", i);
        const struct rpc_client_options options = {
            .address = "10.0.0.1:7000", .secret = "sesame", .name = name, .keepalive_ms = 500
        };
        world->client_envs[i] = env_sim_add(world->sim, host);
        assert_int_equal(
            rpc_client_create(world->client_envs[i], &options, &world->clients[i], &err),
            STATUS_OK);
    }
}

static void start_call(struct world *world, int client, uint16_t method, uint64_t timeout_ms,
                       bool wait_until_up)
{
    static uint8_t body[BODY_SIZE_MAX];
    struct env *env = world->client_envs[client];

    assert_true(world->calls_count < CALLS_MAX); /* more than there are steps */
    struct call *call = &world->calls[world->calls_count++];
    for (size_t i = 0; i < sizeof(body); i++)
        body[i] = (uint8_t)(i * 7);
    *call = (struct call){ .world = world, .method = method, .client = client };
    call->has_deadline = timeout_ms != 0;
    call->body_len = (uint32_t)rng_below(&world->rng, BODY_SIZE_MAX);
    const struct rpc_request request = {
        .method = method,
        .body = body,
        .len = call->body_len,
        .deadline_ns = timeout_ms != 0 ? env_now_ns(env) + timeout_ms * ENV_NS_PER_MS : ENV_NEVER,
        .wait_until_up = wait_until_up,
        .on_item = on_item,
        .on_end = on_end,
        .ctx = call,
    };
    assert_int_equal(rpc_call(world->clients[client], &request, &call->id), STATUS_OK);
    assert_int_equal(call->ends, 0);
}

/* ---- the walk ---- */

static void random_call(struct world *world)
{
    const uint16_t method = (uint16_t)rng_between(&world->rng, ECHO, COUNT);
    /* Nobody but the deadline may end a call that is held for ever behind a partition. */
    const uint64_t timeout_ms = rng_between(&world->rng, 1, 2000);
    start_call(world, (int)rng_below(&world->rng, CLIENTS), method, timeout_ms,
               rng_below(&world->rng, 2) == 0);
}

static void random_cancel(struct world *world)
{
    if (world->calls_count == 0) return;
    const struct call *call = &world->calls[rng_below(&world->rng, world->calls_count)];
    rpc_cancel(world->clients[call->client], call->id);
}

static void random_step(struct world *world)
{
    char host[32];
    snprintf(host, sizeof(host), "10.0.1.%d", 1 + (int)rng_below(&world->rng, CLIENTS));

    switch (rng_below(&world->rng, 20)) {
    case 0:
        server_crash(world);
        env_sim_run_for(world->sim, rng_below(&world->rng, 200) * ENV_NS_PER_MS);
        server_start(world);
        break;
    case 1: env_sim_partition(world->sim, host, "10.0.0.1"); break;
    case 2:
    case 3: env_sim_heal(world->sim, host, "10.0.0.1"); break;
    case 4:
    case 5: random_cancel(world); break;
    case 6: release_held(world); break;
    default: random_call(world); break;
    }
    env_sim_run_for(world->sim, rng_below(&world->rng, 20) * ENV_NS_PER_MS);
}

static bool all_ended(void *ctx)
{
    const struct world *world = ctx;
    return world->ended == world->calls_count;
}

static bool all_up(const struct world *world)
{
    for (int i = 0; i < CLIENTS; i++) {
        if (!rpc_client_is_up(world->clients[i])) return false;
    }
    return true;
}

static void check_liveness(struct world *world)
{
    env_sim_calm(world->sim);
    release_held(world);
    assert_true(env_sim_run_until(world->sim, all_ended, world, 10 * ENV_NS_PER_S));
    /* A connection that died behind a partition is noticed by its silence, only then replaced. */
    env_sim_run_for(world->sim, 5 * ENV_NS_PER_S);
    assert_true(all_up(world));
    const uint32_t ok = world->statuses[0];
    for (int i = 0; i < CLIENTS; i++) {
        start_call(world, i, COUNT, 0, false);
        const struct call *call = &world->calls[world->calls_count - 1];
        env_sim_run_for(world->sim, ENV_NS_PER_S);
        assert_int_equal(call->ends, 1);
        assert_int_equal(call->status, STATUS_OK);
    }
    assert_int_equal(world->statuses[0], ok + CLIENTS);
}

/* Returns the hash of all that happened. */
static uint64_t run_world(uint64_t world_seed, uint32_t statuses[ENDS])
{
    struct world *world = calloc(1, sizeof(*world));
    const struct env_sim_options options = {
        .seed = world_seed,
        .conn_loss_ppm = 2000,
        .conn_refuse_ppm = 50000,
        .slow_ppm = 10000,
        .flip_ppm = 5000,
        .buggify_ppm = 50000,
        .stream_buffer_size = 8192,
    };

    rng_init(&world->rng, world_seed);
    world->sim = env_sim_create(&options);
    server_start(world);
    clients_start(world);
    for (int step = 0; step < STEPS; step++)
        random_step(world);
    check_liveness(world);
    const uint64_t hash = env_sim_trace_hash(world->sim);
    for (int i = 0; i < ENDS; i++)
        statuses[i] += world->statuses[i];
    for (int i = 0; i < CLIENTS; i++)
        rpc_client_destroy(world->clients[i]);
    rpc_server_destroy(world->server);
    release_held(world);
    env_sim_destroy(world->sim);
    free(world);
    return hash;
}

static void every_call_ends_once_in_every_world(void **state)
{
    (void)state;
    uint32_t statuses[ENDS] = { 0 };

    for (int round = 0; round < rounds; round++) {
        printf("world %llu\n", (unsigned long long)(seed + (uint64_t)round));
        (void)run_world(seed + (uint64_t)round, statuses);
    }
    printf("ok %u, timeout %u, cancelled %u, closed %u, refused %u\n", statuses[0], statuses[1],
           statuses[2], statuses[3], statuses[4]);
    for (int i = 0; i < ENDS; i++)
        assert_true(statuses[i] > 0); /* the walk reaches every end */
    assert_true(rpc_damaged_total() > 0);
}

static void the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    uint32_t statuses[ENDS] = { 0 };

    const uint64_t first = run_world(seed, statuses);
    assert_true(first == run_world(seed, statuses));
    assert_true(first != run_world(seed + 1, statuses));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_ends_once_in_every_world),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
    };
    const char *text = getenv("ROUNDS");
    if (text != NULL) rounds = (int)strtol(text, NULL, 10);
    seed = test_seed();
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
