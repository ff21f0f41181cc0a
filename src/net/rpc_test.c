/* SPDX-License-Identifier: Apache-2.0
 *
 * net/rpc_test.c
 *
 * Goal:   every call ends exactly once on each side, with the right status, whatever peer, network
 *         and secret do; nothing is accepted from those who cannot prove themselves.
 * Method: server and client on real loops over loopback, each on its own env so that either side
 * can be left asleep; raw streams for peers that speak garbage. */
#include "net/rpc.h"

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
#include "base/rng.h"
#include "net/rpc_int.h"
#include "seed.h"

enum {
    ECHO = 1,
    HOLD = 2,
    COUNT = 3,
    REFUSE = 4,
    MISSING = 99,
    HELD_MAX = 64,
    WAIT_MS = 20000,
    TURNS_MIN = 20
};

static uint64_t seed;

/* ---- the server side ---- */

struct stream_job {
    struct rpc_call *call;
    uint32_t next, count;
    size_t item_size;
    uint32_t full_count;
};

struct world {
    struct env *server_env, *client_env;
    struct rpc_server *server;
    struct rpc_client *client;
    char address[64];
    struct rpc_call *held[HELD_MAX];
    uint32_t held_count;
    uint32_t cancels;
    enum status cancel_why;
    struct stream_job job;
    size_t item_size;
    int ups, downs;
    enum status down_why;
};

static void on_echo(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    (void)ctx;
    assert_string_equal(rpc_call_peer_host(call), "127.0.0.1");
    assert_ptr_equal(strstr(rpc_call_peer(call), "tester@127.0.0.1:"), rpc_call_peer(call));
    rpc_reply(call, body, len);
}

static void on_held_cancelled(void *ctx, enum status why)
{
    struct world *world = ctx;
    world->cancels++;
    world->cancel_why = why;
}

static void on_hold(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct world *world = ctx;
    (void)body;
    (void)len;
    assert_true(world->held_count < HELD_MAX);
    world->held[world->held_count++] = call;
    rpc_on_cancel(call, on_held_cancelled, world);
}

static void push_items(void *ctx)
{
    struct stream_job *job = ctx;
    uint8_t *item = calloc(1, job->item_size);

    while (job->next < job->count) {
        memcpy(item, &job->next, sizeof(job->next));
        const enum status status = rpc_send(job->call, item, job->item_size);
        if (status == STATUS_FULL) {
            job->full_count++;
            free(item);
            return;
        }
        assert_int_equal(status, STATUS_OK);
        job->next++;
    }
    free(item);
    rpc_reply(job->call, "end", 3);
}

static void on_count(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct world *world = ctx;
    assert_int_equal(len, sizeof(world->job.count));
    world->job = (struct stream_job){ .call = call, .item_size = world->item_size };
    memcpy(&world->job.count, body, len);
    rpc_on_writable(call, push_items, &world->job);
    push_items(&world->job);
}

static void on_refuse(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    (void)ctx;
    (void)body;
    (void)len;
    rpc_fail(call, STATUS_STALE, "too old");
}

/* ---- the client side ---- */

struct outcome {
    struct world *world;
    uint32_t items, ends;
    enum status status;
    struct buf body;
    char message[RPC_MESSAGE_SIZE];
};

static void on_item(void *ctx, const uint8_t *body, size_t len)
{
    struct outcome *outcome = ctx;
    uint32_t number;
    assert_true(len >= sizeof(number));
    memcpy(&number, body, sizeof(number));
    assert_int_equal(number, outcome->items);
    assert_int_equal(outcome->ends, 0);
    outcome->items++;
}

static void on_end(void *ctx, const struct rpc_result *result)
{
    struct outcome *outcome = ctx;
    outcome->ends++;
    outcome->status = result->status;
    buf_clear(&outcome->body);
    assert_int_equal(buf_append(&outcome->body, result->body, result->len), STATUS_OK);
    snprintf(outcome->message, sizeof(outcome->message), "%s", result->message);
}

static void on_state(void *ctx, bool up, enum status why)
{
    struct world *world = ctx;
    if (up) {
        world->ups++;
    } else {
        world->downs++;
        world->down_why = why;
    }
}

/* ---- the world ---- */

static void turn(struct world *world)
{
    env_poll(world->server_env, 0);
    env_poll(world->client_env, ENV_NS_PER_MS);
}

/* Runs both sides until the condition holds; fails the test when it does not within WAIT_MS. */
#define WAIT_FOR(world, condition)                                                                 \
    do {                                                                                           \
        const uint64_t end_ns = env_now_ns((world)->client_env) + WAIT_MS * ENV_NS_PER_MS;         \
        while (!(condition)) {                                                                     \
            assert_true(env_now_ns((world)->client_env) < end_ns);                                 \
            turn(world);                                                                           \
        }                                                                                          \
    } while (0)

/* For some time, and some turns: a busy machine may give none in that time. */
static void turn_for(struct world *world, uint64_t ms)
{
    const uint64_t end_ns = env_now_ns(world->client_env) + ms * ENV_NS_PER_MS;
    for (int turns = 0; turns < TURNS_MIN || env_now_ns(world->client_env) < end_ns; turns++)
        turn(world);
}

static void server_start(struct world *world, const char *address,
                         struct rpc_server_options options)
{
    struct errmsg err = { "" };

    options.address = address;
    options.name = "server";
    if (options.secret == NULL) options.secret = "sesame";
    assert_int_equal(rpc_server_create(world->server_env, &options, &world->server, &err),
                     STATUS_OK);
    rpc_server_add(world->server, ECHO, "echo", on_echo, world);
    rpc_server_add(world->server, HOLD, "hold", on_hold, world);
    rpc_server_add(world->server, COUNT, "count", on_count, world);
    rpc_server_add(world->server, REFUSE, "refuse", on_refuse, world);
    snprintf(world->address, sizeof(world->address), "127.0.0.1:%u",
             rpc_server_port(world->server));
}

static void client_start(struct world *world, struct rpc_client_options options)
{
    struct errmsg err = { "" };

    options.address = world->address;
    options.name = "tester";
    if (options.secret == NULL) options.secret = "sesame";
    options.on_state = on_state;
    options.ctx = world;
    assert_int_equal(rpc_client_create(world->client_env, &options, &world->client, &err),
                     STATUS_OK);
}

static struct world *world_new(struct rpc_server_options server, struct rpc_client_options client)
{
    struct world *world = calloc(1, sizeof(*world));
    struct errmsg err = { "" };

    world->item_size = 4;
    assert_int_equal(env_real_create(NULL, &world->server_env, &err), STATUS_OK);
    assert_int_equal(env_real_create(NULL, &world->client_env, &err), STATUS_OK);
    server_start(world, "127.0.0.1:0", server);
    client_start(world, client);
    return world;
}

static struct world *world_plain(void)
{
    return world_new((struct rpc_server_options){ 0 }, (struct rpc_client_options){ 0 });
}

static void release_held(struct world *world)
{
    while (world->held_count > 0)
        rpc_fail(world->held[--world->held_count], STATUS_CANCELLED, NULL);
}

static void world_free(struct world *world)
{
    rpc_client_destroy(world->client);
    rpc_server_destroy(world->server);
    release_held(world);
    env_real_destroy(world->client_env);
    env_real_destroy(world->server_env);
    free(world);
}

static void outcome_init(struct outcome *outcome, struct world *world)
{
    *outcome = (struct outcome){ .world = world, .status = STATUS_PENDING };
    buf_init(&outcome->body, RPC_FRAME_SIZE_MAX);
}

static struct rpc_call_id start(struct outcome *outcome, uint16_t method, const void *body,
                                size_t len, uint64_t timeout_ms, bool wait_until_up)
{
    struct env *env = outcome->world->client_env;
    struct rpc_call_id id = { 0 };
    const struct rpc_request request = {
        .method = method,
        .body = body,
        .len = len,
        .deadline_ns = timeout_ms == 0 ? ENV_NEVER : env_now_ns(env) + timeout_ms * ENV_NS_PER_MS,
        .wait_until_up = wait_until_up,
        .on_item = on_item,
        .on_end = on_end,
        .ctx = outcome,
    };
    assert_int_equal(rpc_call(outcome->world->client, &request, &id), STATUS_OK);
    assert_int_equal(outcome->ends, 0); /* never before rpc_call() has returned */
    return id;
}

/* ---- tests: calls ---- */

static void bodies_of_every_size_are_echoed(void **state)
{
    (void)state;
    static const size_t sizes[] = { 0, 1, 65535, 1 << 20, 40 << 20 };
    struct world *world = world_plain();
    struct outcome outcome;
    struct rng rng;

    rng_init(&rng, seed);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint8_t *body = malloc(sizes[i] + 1);
        rng_fill(&rng, body, sizes[i]);
        outcome_init(&outcome, world);
        start(&outcome, ECHO, body, sizes[i], 0, false);
        WAIT_FOR(world, outcome.ends > 0);
        assert_int_equal(outcome.status, STATUS_OK);
        assert_int_equal(outcome.body.len, sizes[i]);
        assert_memory_equal(buf_data(&outcome.body), body, sizes[i]);
        buf_fini(&outcome.body);
        free(body);
    }
    assert_int_equal(world->ups, 1);
    world_free(world);
}

static void refusals_carry_status_and_words(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct outcome refused, missing;

    outcome_init(&refused, world);
    outcome_init(&missing, world);
    start(&refused, REFUSE, NULL, 0, 0, false);
    start(&missing, MISSING, NULL, 0, 0, false);
    WAIT_FOR(world, refused.ends > 0 && missing.ends > 0);
    assert_int_equal(refused.status, STATUS_STALE);
    assert_string_equal(refused.message, "too old");
    assert_int_equal(missing.status, STATUS_UNSUPPORTED);
    buf_fini(&refused.body);
    buf_fini(&missing.body);
    world_free(world);
}

static void a_stream_arrives_in_order_and_ends(void **state)
{
    (void)state;
    const uint32_t count = 1000;
    struct world *world = world_plain();
    struct outcome outcome;

    outcome_init(&outcome, world);
    start(&outcome, COUNT, &count, sizeof(count), 0, false);
    WAIT_FOR(world, outcome.ends > 0);
    assert_int_equal(outcome.status, STATUS_OK);
    assert_int_equal(outcome.items, count);
    assert_memory_equal(buf_data(&outcome.body), "end", 3);
    buf_fini(&outcome.body);
    world_free(world);
}

static void a_deadline_ends_both_sides(void **state)
{
    (void)state;
    enum { DEADLINE_MS = 500 }; /* a busy machine needs some of that to bring the call there */
    struct world *world = world_plain();
    struct outcome outcome;

    outcome_init(&outcome, world);
    WAIT_FOR(world, rpc_client_is_up(world->client));
    start(&outcome, HOLD, NULL, 0, DEADLINE_MS, false);
    WAIT_FOR(world, world->held_count == 1);
    assert_true(rpc_call_deadline_ns(world->held[0]) <
                env_now_ns(world->server_env) + (DEADLINE_MS + 10) * ENV_NS_PER_MS);
    WAIT_FOR(world, outcome.ends > 0 && world->cancels > 0);
    assert_int_equal(outcome.status, STATUS_TIMEOUT);
    assert_true(world->cancel_why == STATUS_TIMEOUT || world->cancel_why == STATUS_CANCELLED);
    assert_int_equal(rpc_send(world->held[0], "x", 1), STATUS_CANCELLED);
    rpc_reply(world->held[--world->held_count], "late", 4);
    turn_for(world, 20);
    assert_int_equal(outcome.ends, 1);
    assert_int_equal(world->cancels, 1);
    buf_fini(&outcome.body);
    world_free(world);
}

static void the_server_keeps_the_deadline_alone(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct outcome outcome;

    outcome_init(&outcome, world);
    WAIT_FOR(world, rpc_client_is_up(world->client));
    start(&outcome, HOLD, NULL, 0, 30, false);
    while (world->cancels == 0)
        env_poll(world->server_env, ENV_NS_PER_MS); /* the client sleeps */
    assert_int_equal(world->cancel_why, STATUS_TIMEOUT);
    buf_fini(&outcome.body);
    outcome_init(&outcome, world);
    world_free(world);
    buf_fini(&outcome.body);
}

static void cancel_is_told_and_ends_once_later(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct outcome outcome;

    outcome_init(&outcome, world);
    const struct rpc_call_id id = start(&outcome, HOLD, NULL, 0, 0, false);
    WAIT_FOR(world, world->held_count == 1);
    rpc_cancel(world->client, id);
    rpc_cancel(world->client, id); /* idempotent */
    assert_int_equal(outcome.ends, 0);
    WAIT_FOR(world, outcome.ends > 0 && world->cancels > 0);
    assert_int_equal(outcome.status, STATUS_CANCELLED);
    assert_int_equal(world->cancel_why, STATUS_CANCELLED);
    rpc_cancel(world->client, id);
    rpc_cancel(world->client, (struct rpc_call_id){ 0 });
    turn_for(world, 10);
    assert_int_equal(outcome.ends, 1);
    buf_fini(&outcome.body);
    world_free(world);
}

static void a_late_on_cancel_is_still_told(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct outcome outcome;

    outcome_init(&outcome, world);
    const struct rpc_call_id id = start(&outcome, HOLD, NULL, 0, 0, false);
    WAIT_FOR(world, world->held_count == 1);
    rpc_on_cancel(world->held[0], NULL, NULL);
    rpc_cancel(world->client, id);
    turn_for(world, 20);
    assert_int_equal(world->cancels, 0);
    rpc_on_cancel(world->held[0], on_held_cancelled, world);
    assert_int_equal(world->cancels, 0); /* not from inside */
    WAIT_FOR(world, world->cancels == 1);
    assert_int_equal(world->cancel_why, STATUS_CANCELLED);
    buf_fini(&outcome.body);
    world_free(world);
}

/* ---- tests: limits ---- */

static void calls_beyond_the_limit_are_refused(void **state)
{
    (void)state;
    struct world *world = world_new((struct rpc_server_options){ .calls_max = 2 },
                                    (struct rpc_client_options){ .calls_max = 3 });
    struct outcome outcomes[3];

    for (int i = 0; i < 3; i++) {
        outcome_init(&outcomes[i], world);
        start(&outcomes[i], HOLD, NULL, 0, 0, false);
    }
    const struct rpc_request request = { .method = HOLD,
                                         .deadline_ns = ENV_NEVER,
                                         .on_end = on_end };
    assert_int_equal(rpc_call(world->client, &request, NULL), STATUS_FULL);
    WAIT_FOR(world, outcomes[2].ends > 0);
    assert_int_equal(outcomes[2].status, STATUS_FULL);
    assert_int_equal(world->held_count, 2);
    release_held(world);
    WAIT_FOR(world, outcomes[0].ends > 0 && outcomes[1].ends > 0);
    for (int i = 0; i < 3; i++)
        buf_fini(&outcomes[i].body);
    world_free(world);
}

static void a_slow_reader_pushes_back_on_a_stream(void **state)
{
    (void)state;
    const uint32_t count = 3000;
    struct world *world = world_new((struct rpc_server_options){ .write_queue_max = 1 << 20 },
                                    (struct rpc_client_options){ 0 });
    struct outcome outcome;

    world->item_size = 10000;
    outcome_init(&outcome, world);
    WAIT_FOR(world, rpc_client_is_up(world->client));
    start(&outcome, COUNT, &count, sizeof(count), 0, false);
    for (int i = 0; i < 50; i++)
        env_poll(world->server_env, ENV_NS_PER_MS); /* the client sleeps */
    assert_true(world->job.full_count > 0);
    assert_true(world->job.next < count);
    WAIT_FOR(world, outcome.ends > 0);
    assert_int_equal(outcome.items, count);
    assert_int_equal(rpc_server_connections(world->server), 1);
    buf_fini(&outcome.body);
    world_free(world);
}

static void a_peer_that_reads_no_replies_is_cut_off(void **state)
{
    (void)state;
    enum { CALLS = 40, BODY_SIZE = 1 << 20 };
    struct world *world = world_new((struct rpc_server_options){ .write_queue_max = 1 << 20 },
                                    (struct rpc_client_options){ 0 });
    struct outcome outcomes[CALLS];
    uint8_t *body = calloc(1, BODY_SIZE);
    uint32_t lost = 0, ended = 0;

    WAIT_FOR(world, rpc_client_is_up(world->client));
    for (int i = 0; i < CALLS; i++) {
        outcome_init(&outcomes[i], world);
        start(&outcomes[i], HOLD, NULL, 0, 0, false);
    }
    WAIT_FOR(world, world->held_count == CALLS);
    while (world->held_count > 0)
        rpc_reply(world->held[--world->held_count], body, BODY_SIZE);
    env_poll(world->server_env, 0);
    assert_int_equal(rpc_server_connections(world->server), 0);
    turn_for(world, 200);
    for (int i = 0; i < CALLS; i++) {
        ended += outcomes[i].ends;
        lost += outcomes[i].status == STATUS_CONN_CLOSED;
        buf_fini(&outcomes[i].body);
    }
    assert_int_equal(ended, CALLS);
    assert_true(lost > 0);
    free(body);
    world_free(world);
}

static void connections_beyond_the_limit_are_closed(void **state)
{
    (void)state;
    struct world *world = world_new((struct rpc_server_options){ .connections_max = 1 },
                                    (struct rpc_client_options){ 0 });
    WAIT_FOR(world, rpc_client_is_up(world->client));
    struct rpc_client *first = world->client;

    client_start(world, (struct rpc_client_options){ 0 });
    WAIT_FOR(world, world->downs > 0);
    assert_true(rpc_client_is_up(first));
    assert_int_equal(rpc_server_connections(world->server), 1);
    rpc_client_destroy(first);
    WAIT_FOR(world, rpc_client_is_up(world->client)); /* it keeps trying */
    world_free(world);
}

/* ---- tests: connections ---- */

static void lost_connections_end_calls_and_come_back(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct outcome sent, impatient, patient;

    outcome_init(&sent, world);
    outcome_init(&impatient, world);
    outcome_init(&patient, world);
    start(&sent, HOLD, NULL, 0, 0, false);
    WAIT_FOR(world, world->held_count == 1);
    rpc_server_destroy(world->server);
    world->server = NULL;
    assert_int_equal(world->cancels, 1);
    release_held(world);
    WAIT_FOR(world, sent.ends > 0);
    assert_int_equal(sent.status, STATUS_CONN_CLOSED);
    assert_false(rpc_client_is_up(world->client));
    start(&impatient, ECHO, "a", 1, 0, false);
    start(&patient, ECHO, "b", 1, 0, true);
    WAIT_FOR(world, impatient.ends > 0);
    assert_int_equal(impatient.status, STATUS_CONN_REFUSED);
    turn_for(world, 100);
    assert_int_equal(patient.ends, 0);
    char address[64];
    snprintf(address, sizeof(address), "%s", world->address);
    server_start(world, address, (struct rpc_server_options){ 0 });
    WAIT_FOR(world, patient.ends > 0);
    assert_int_equal(patient.status, STATUS_OK);
    assert_int_equal(world->ups, 2);
    assert_int_equal(world->downs, 1);
    buf_fini(&sent.body);
    buf_fini(&impatient.body);
    buf_fini(&patient.body);
    world_free(world);
}

static void a_waiting_call_keeps_its_deadline(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct outcome outcome;

    rpc_server_destroy(world->server);
    world->server = NULL;
    outcome_init(&outcome, world);
    start(&outcome, ECHO, "b", 1, 50, true);
    WAIT_FOR(world, outcome.ends > 0);
    assert_int_equal(outcome.status, STATUS_TIMEOUT);
    buf_fini(&outcome.body);
    world_free(world);
}

static void destroying_the_client_ends_everything(void **state)
{
    (void)state;
    struct world *world = world_plain();
    struct outcome held, unsent;

    outcome_init(&held, world);
    outcome_init(&unsent, world);
    start(&held, HOLD, NULL, 0, 0, false);
    WAIT_FOR(world, world->held_count == 1);
    const struct rpc_call_id id = start(&unsent, HOLD, NULL, 0, 0, false);
    rpc_cancel(world->client, id);
    rpc_client_destroy(world->client);
    world->client = NULL;
    assert_int_equal(held.ends, 1);
    assert_int_equal(unsent.ends, 1);
    assert_int_equal(held.status, STATUS_CANCELLED);
    WAIT_FOR(world, world->cancels == 2);
    assert_int_equal(world->cancel_why, STATUS_CONN_CLOSED);
    buf_fini(&held.body);
    buf_fini(&unsent.body);
    world_free(world);
}

static void a_silent_peer_is_noticed(void **state)
{
    (void)state;
    struct world *world = world_new((struct rpc_server_options){ .keepalive_ms = 20 },
                                    (struct rpc_client_options){ 0 });
    WAIT_FOR(world, rpc_client_is_up(world->client));
    turn_for(world, 200); /* idle, but it answers pings */
    assert_int_equal(rpc_server_connections(world->server), 1);
    const uint64_t end_ns = env_now_ns(world->server_env) + WAIT_MS * ENV_NS_PER_MS;
    while (rpc_server_connections(world->server) > 0) {
        assert_true(env_now_ns(world->server_env) < end_ns);
        env_poll(world->server_env, ENV_NS_PER_MS); /* the client sleeps */
    }
    world_free(world);
}

/* ---- tests: trust ---- */

static void expect_denied(const char *server_secret, const char *client_secret)
{
    struct world *world = world_new((struct rpc_server_options){ .secret = server_secret },
                                    (struct rpc_client_options){ .secret = client_secret });
    struct outcome outcome;

    outcome_init(&outcome, world);
    start(&outcome, HOLD, NULL, 0, 0, false);
    WAIT_FOR(world, world->downs > 0 && outcome.ends > 0);
    assert_int_equal(world->down_why, STATUS_DENIED);
    assert_int_equal(outcome.status, STATUS_CONN_REFUSED);
    assert_int_equal(world->held_count, 0);
    assert_int_equal(world->ups, 0);
    buf_fini(&outcome.body);
    world_free(world);
}

static void different_secrets_are_denied(void **state)
{
    (void)state;
    expect_denied("one", "two");
    expect_denied("one", "");
    expect_denied("", "two");
}

static void an_open_server_stays_on_loopback(void **state)
{
    (void)state;
    static const char *const public[] = { ":0", "0.0.0.0:0", "[::]:0", "10.0.0.1:0" };
    struct rpc_server *server = NULL;
    struct errmsg err = { "" };
    struct env *env = NULL;

    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    for (size_t i = 0; i < 4; i++) {
        const struct rpc_server_options options = { .address = public[i] };
        assert_int_equal(rpc_server_create(env, &options, &server, &err), STATUS_DENIED);
        assert_non_null(strstr(err.text, "secret"));
    }
    const struct rpc_server_options open = { .address = "127.0.0.1:0" };
    assert_int_equal(rpc_server_create(env, &open, &server, &err), STATUS_OK);
    rpc_server_destroy(server);
    rpc_server_destroy(NULL);
    rpc_client_destroy(NULL);
    env_real_destroy(env);
}

static void on_raw_ready(void *ctx, unsigned events)
{
    (void)ctx;
    (void)events;
}

/* Sends bytes to the server and returns true if it closed the connection. */
static bool is_cut_off(struct world *world, const void *data, size_t len)
{
    struct env_stream *stream = NULL;
    uint8_t answer[4096];
    enum status status = STATUS_AGAIN;
    size_t sent = 0, n;

    assert_int_equal(env_connect(world->client_env, world->address, &stream, NULL), STATUS_OK);
    env_stream_watch(stream, ENV_READ | ENV_WRITE, on_raw_ready, NULL);
    for (int i = 0; i < 300 && (status == STATUS_AGAIN || status == STATUS_OK); i++) {
        turn(world);
        const struct iovec iov = { (uint8_t *)(uintptr_t)data + sent, len - sent };
        if (sent < len && env_stream_writev(stream, &iov, 1, &n) == STATUS_OK) sent += n;
        status = env_stream_read(stream, answer, sizeof(answer), &n);
    }
    env_stream_close(stream);
    return status != STATUS_AGAIN && status != STATUS_OK;
}

static void append_frame(struct buf *buf, const struct rpc_frame *frame)
{
    assert_int_equal(rpc_frame_write(buf, frame, 1), STATUS_OK);
}

static void garbage_is_cut_off_and_harms_nobody(void **state)
{
    (void)state;
    static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    static const uint8_t nonce[RPC_NONCE_SIZE];
    const struct rpc_frame hello = { .kind = RPC_KIND_HELLO,
                                     .version_min = 1,
                                     .version_max = 1,
                                     .nonce = { nonce, sizeof(nonce) } };
    const struct rpc_frame future = { .kind = RPC_KIND_HELLO,
                                      .version_min = 3,
                                      .version_max = 9,
                                      .nonce = { nonce, sizeof(nonce) } };
    const struct rpc_frame request = { .kind = RPC_KIND_REQUEST, .call = 1, .method = HOLD };
    const struct rpc_frame proof = { .kind = RPC_KIND_PROOF, .proof = { nonce, sizeof(nonce) } };
    struct world *world = world_plain();
    struct outcome outcome;
    struct buf buf;

    buf_init(&buf, 4096);
    assert_true(is_cut_off(world, http, sizeof(http) - 1));
    assert_true(is_cut_off(world, "\x00\x00\x00\x00", 4));
    assert_true(is_cut_off(world, "\x01\x04\x00\x00", 4)); /* longer than a handshake's */
    assert_true(is_cut_off(world, "\x01\x00\x00\x00\xc0", 5));
    append_frame(&buf, &request); /* before the handshake */
    assert_true(is_cut_off(world, buf_data(&buf), buf.len));
    buf_clear(&buf);
    append_frame(&buf, &future);
    assert_true(is_cut_off(world, buf_data(&buf), buf.len));
    buf_clear(&buf);
    append_frame(&buf, &hello);
    assert_false(is_cut_off(world, buf_data(&buf), buf.len)); /* a fair start */
    append_frame(&buf, &request);
    assert_true(is_cut_off(world, buf_data(&buf), buf.len)); /* but no proof */
    buf_clear(&buf);
    append_frame(&buf, &hello);
    append_frame(&buf, &proof); /* a false one */
    append_frame(&buf, &request);
    assert_true(is_cut_off(world, buf_data(&buf), buf.len));
    assert_int_equal(world->held_count, 0);
    buf_fini(&buf);

    outcome_init(&outcome, world);
    start(&outcome, ECHO, "ok", 2, 0, false);
    WAIT_FOR(world, outcome.ends > 0);
    assert_int_equal(outcome.status, STATUS_OK);
    buf_fini(&outcome.body);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_of_every_size_are_echoed),
        cmocka_unit_test(refusals_carry_status_and_words),
        cmocka_unit_test(a_stream_arrives_in_order_and_ends),
        cmocka_unit_test(a_deadline_ends_both_sides),
        cmocka_unit_test(the_server_keeps_the_deadline_alone),
        cmocka_unit_test(cancel_is_told_and_ends_once_later),
        cmocka_unit_test(a_late_on_cancel_is_still_told),
        cmocka_unit_test(calls_beyond_the_limit_are_refused),
        cmocka_unit_test(a_slow_reader_pushes_back_on_a_stream),
        cmocka_unit_test(a_peer_that_reads_no_replies_is_cut_off),
        cmocka_unit_test(connections_beyond_the_limit_are_closed),
        cmocka_unit_test(lost_connections_end_calls_and_come_back),
        cmocka_unit_test(a_waiting_call_keeps_its_deadline),
        cmocka_unit_test(destroying_the_client_ends_everything),
        cmocka_unit_test(a_silent_peer_is_noticed),
        cmocka_unit_test(different_secrets_are_denied),
        cmocka_unit_test(an_open_server_stays_on_loopback),
        cmocka_unit_test(garbage_is_cut_off_and_harms_nobody),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
