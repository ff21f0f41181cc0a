/* SPDX-License-Identifier: Apache-2.0
 *
 * net/http_sim_test.c
 *
 * Goal:   whatever the network does, every request of a client is answered whole or known to have
 *         failed, exactly once; every request given to the handler is ended by it, and told of a
 *         hang-up if its client left; in the end no connection is left over.
 * Method: server and clients (net/http_client.h) in a simulated world with broken, stalling and
 *         piecemeal streams and partitions; the handler answers at once, after a while, or in a
 *         stream with back-pressure. SEED=n replays a world, ROUNDS=n runs more of them. */
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
#include "base/env_sim.h"
#include "base/log.h"
#include "base/rng.h"
#include "net/http_client.h"
#include "seed.h"

enum { CLIENTS = 3, STEPS = 200, STREAM_LINES = 300, BODY_SIZE_MAX = 50000 };

static uint64_t seed;
static int rounds = 20;

struct world {
    struct env_sim *sim;
    struct rng rng;
    struct env *server_env;
    struct http_server *server;
    struct env *client_envs[CLIENTS];
    unsigned started, done, whole, failed; /* on the client side */
    unsigned taken, ended, hangups;        /* on the server side */
};

/* ---- the server: each request becomes a job that ends it ---- */

struct job {
    struct world *world;
    struct http_request *req;
    struct env_timer timer;
    unsigned lines;
    bool has_hung_up;
};

static void job_free(struct job *job)
{
    env_timer_cancel(job->world->server_env, &job->timer);
    job->world->ended++;
    free(job);
}

static void job_echo(void *ctx)
{
    struct job *job = ctx;
    size_t len;
    const char *body = http_body(job->req, &len);

    http_respond(job->req, 200, "text/plain", body, len);
    job_free(job);
}

static void job_stream(void *ctx)
{
    struct job *job = ctx;
    char line[200];

    while (job->lines < STREAM_LINES) {
        const int len = snprintf(line, sizeof(line), "line %u %0100d\n", job->lines, 7);
        const enum status status = http_send(job->req, line, (size_t)len);
        if (status == STATUS_FULL) return;
        if (status != STATUS_OK) break;
        job->lines++;
    }
    http_end(job->req);
    job_free(job);
}

static void job_on_hangup(void *ctx)
{
    struct job *job = ctx;

    assert_false(job->has_hung_up);
    job->has_hung_up = true;
    job->world->hangups++;
    if (strcmp(http_path(job->req), "/late") == 0) return; /* its timer ends it */
    http_abort(job->req);
    job_free(job);
}

static void on_request(void *ctx, struct http_request *req)
{
    struct world *world = ctx;
    struct job *job = calloc(1, sizeof(*job));

    world->taken++;
    *job = (struct job){ .world = world, .req = req };
    env_timer_init(&job->timer, job_echo, job);
    http_on_hangup(req, job_on_hangup, job);
    if (strcmp(http_path(req), "/echo") == 0) {
        job_echo(job);
    } else if (strcmp(http_path(req), "/late") == 0) {
        const uint64_t delay = rng_below(&world->rng, 300) * ENV_NS_PER_MS;
        env_timer_set(world->server_env, &job->timer, env_now_ns(world->server_env) + delay);
    } else {
        http_on_writable(req, job_stream, job);
        http_begin(req, 200, "text/event-stream");
        job_stream(job);
    }
}

/* ---- the clients ---- */

struct get {
    struct world *world;
    struct http_client *client;
    struct buf body;
    bool is_stream;
    unsigned lines;
    size_t len; /* of the body sent */
};

static char *body_of(size_t len)
{
    char *body = malloc(len + 1);
    for (size_t i = 0; i < len; i++)
        body[i] = (char)('a' + i % 23);
    return body;
}

static void get_on_data(void *ctx, const char *data, size_t len)
{
    struct get *get = ctx;
    assert_int_equal(buf_append(&get->body, data, len), STATUS_OK);
}

static void get_on_line(void *ctx, const char *line, size_t len)
{
    struct get *get = ctx;
    char expected[32];

    const int n = snprintf(expected, sizeof(expected), "line %u ", get->lines);
    assert_true(len > (size_t)n);
    assert_memory_equal(line, expected, (size_t)n);
    get->lines++;
}

static void get_check(const struct get *get)
{
    char *body = body_of(get->len);

    if (get->is_stream) {
        assert_int_equal(get->lines, STREAM_LINES);
    } else {
        assert_int_equal(get->body.len, get->len);
        assert_memory_equal(buf_data(&get->body), body, get->len);
    }
    free(body);
}

static void get_on_done(void *ctx, const struct http_reply *reply)
{
    struct get *get = ctx;

    get->world->done++;
    if (reply->status == STATUS_OK && reply->code == 200) {
        get->world->whole++;
        get_check(get);
    } else {
        get->world->failed++;
    }
    buf_fini(&get->body);
    free(get);
}

static void start(struct world *world, struct env *env, const char *path, uint64_t timeout_ms)
{
    struct get *get = calloc(1, sizeof(*get));
    struct errmsg err = { "" };

    *get = (struct get){ .world = world, .is_stream = strcmp(path, "/stream") == 0 };
    get->len = rng_below(&world->rng, BODY_SIZE_MAX);
    buf_init(&get->body, BODY_SIZE_MAX);
    char *body = body_of(get->len);
    const struct http_client_options options = {
        .address = "10.0.0.1:80",
        .method = "POST",
        .path = path,
        .body = body,
        .len = get->len,
        .deadline_ns = env_now_ns(env) + timeout_ms * ENV_NS_PER_MS,
        .on_data = get->is_stream ? NULL : get_on_data,
        .on_line = get->is_stream ? get_on_line : NULL,
        .on_done = get_on_done,
        .ctx = get,
    };
    world->started++;
    assert_int_equal(http_client_start(env, &options, &get->client, &err), STATUS_OK);
    free(body);
}

static void random_start(struct world *world)
{
    static const char *const paths[] = { "/echo", "/late", "/stream" };
    struct env *env = world->client_envs[rng_below(&world->rng, CLIENTS)];

    start(world, env, paths[rng_below(&world->rng, 3)], rng_between(&world->rng, 1, 1000));
}

/* ---- the walk ---- */

static void random_step(struct world *world)
{
    char host[32];
    snprintf(host, sizeof(host), "10.0.1.%d", 1 + (int)rng_below(&world->rng, CLIENTS));

    switch (rng_below(&world->rng, 20)) {
    case 0: env_sim_partition(world->sim, host, "10.0.0.1"); break;
    case 1:
    case 2: env_sim_heal(world->sim, host, "10.0.0.1"); break;
    default: random_start(world); break;
    }
    env_sim_run_for(world->sim, rng_below(&world->rng, 20) * ENV_NS_PER_MS);
}

static void world_start(struct world *world, uint64_t world_seed)
{
    const struct env_sim_options options = {
        .seed = world_seed,
        .conn_loss_ppm = 3000,
        .conn_refuse_ppm = 20000,
        .slow_ppm = 10000,
        .buggify_ppm = 50000,
        .stream_buffer_size = 4096,
    };
    const struct http_server_options server_options = {
        .address = "10.0.0.1:80",
        .on_request = on_request,
        .ctx = world,
        .send_queue_max = 10000,
        .idle_timeout_ms = 2000,
        .head_timeout_ms = 1000,
        .body_timeout_ms = 1000,
        .send_timeout_ms = 1000,
        .connections_max = 20,
    };
    struct errmsg err = { "" };

    rng_init(&world->rng, world_seed);
    world->sim = env_sim_create(&options);
    world->server_env = env_sim_add(world->sim, "10.0.0.1");
    for (int i = 0; i < CLIENTS; i++) {
        char host[32];
        snprintf(host, sizeof(host), "10.0.1.%d", i + 1);
        world->client_envs[i] = env_sim_add(world->sim, host);
    }
    assert_int_equal(http_server_create(world->server_env, &server_options, &world->server, &err),
                     STATUS_OK);
}

static void check_liveness(struct world *world)
{
    env_sim_calm(world->sim);
    env_sim_run_for(world->sim, 10 * ENV_NS_PER_S);
    assert_int_equal(world->done, world->started);
    assert_int_equal(world->ended, world->taken);
    assert_int_equal(http_server_connections(world->server), 0);

    const unsigned whole = world->whole;
    for (int i = 0; i < CLIENTS; i++)
        start(world, world->client_envs[i], "/stream", 5000);
    env_sim_run_for(world->sim, 10 * ENV_NS_PER_S);
    assert_int_equal(world->whole, whole + CLIENTS);
}

static uint64_t run_world(uint64_t world_seed, unsigned totals[3])
{
    struct world *world = calloc(1, sizeof(*world));

    world_start(world, world_seed);
    for (int step = 0; step < STEPS; step++)
        random_step(world);
    check_liveness(world);
    const uint64_t hash = env_sim_trace_hash(world->sim);
    totals[0] += world->whole;
    totals[1] += world->failed;
    totals[2] += world->hangups;
    http_server_destroy(world->server);
    env_sim_destroy(world->sim);
    free(world);
    return hash;
}

static void every_request_ends_once_in_every_world(void **state)
{
    (void)state;
    unsigned totals[3] = { 0 };

    for (int round = 0; round < rounds; round++) {
        printf("world %llu\n", (unsigned long long)(seed + (uint64_t)round));
        (void)run_world(seed + (uint64_t)round, totals);
    }
    printf("whole %u, failed %u, hang-ups %u\n", totals[0], totals[1], totals[2]);
    for (int i = 0; i < 3; i++)
        assert_true(totals[i] > 0);
}

static void the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    unsigned totals[3] = { 0 };

    const uint64_t first = run_world(seed, totals);
    assert_true(first == run_world(seed, totals));
    assert_true(first != run_world(seed + 1, totals));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_ends_once_in_every_world),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
    };
    const char *text = getenv("ROUNDS");
    if (text != NULL) rounds = (int)strtol(text, NULL, 10);
    seed = test_seed();
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
