/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_test.c
 *
 * Goal:   whatever way an answer is computed (alone; by a prefill and a decode node; with blocks
 * found here, fetched there, or neither; continued after a failure), its tokens are the same; and
 *         whatever breaks, the attempt ends with a reason and every page comes back.
 * Method: real workers with a tiny random model, real sockets, one loop, and a scripted gateway
 * that speaks serve/proto.h and places attempts again as the real one does. serve/solo.h is the
 *         yardstick. Everything is done twice: computing, and with the timed engine
 *         (infer/timed.h), whose answers hang on what the pages hold as much. SEED=n replays the
 *         random cases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/master_shell.h"
#include "store/member.h"
#include "worker_world.h"

/* ---- tests ---- */

/* Whatever a request can say about its tokens; what was said before counts in each. */
static void wish_for_much(struct sampling *sampling)
{
    static const uint32_t tokens[] = { 40, 41, 42 };
    static const float biases[] = { 1.5f, -2.0f, 0.5f };

    sampling->min_p = 0.01f;
    sampling->top_k = 50;
    sampling->repetition = 1.2f;
    sampling->frequency = 0.3f;
    sampling->presence = -0.1f;
    sampling->bias_tokens = tokens;
    sampling->biases = biases;
    sampling->biases_count = 3;
    sampling->held = tokens + 2;
    sampling->held_count = 1;
    sampling->held_until = 7;
}

static void two_nodes_answer_as_one(void **state)
{
    static const uint32_t lengths[] = { 1, 2, 15, 16, 17, 32, 63, 64, 65, 100, 300, 777 };
    static struct request request;
    struct node p, d;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ 0 });
    node_start(&d, "d", &(struct node_choice){ .role = PROTO_ROLE_DECODE });
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        request_init(&request, lengths[i], 40);
        if (i % 2 == 1)
            request.sampling =
                (struct sampling){ .temperature = 1.0f, .top_p = 0.9f, .seed = i * 1000003 };
        if (i % 4 >= 2) wish_for_much(&request.sampling);
        run(&request, &p, &d);
        expect_same_as_alone(&request);
        assert_true(request.prefill_done);
        assert_int_equal(request.done.cached_tokens, 0);
        assert_int_equal(request.done.computed_tokens, lengths[i]);
        assert_int_equal(request.push_from, 0);
    }
    node_stop(&p);
    node_stop(&d);
}

struct seen {
    uint32_t members;
    struct store_member_info last;
};

static void on_member(void *ctx, const struct store_member_info *info,
                      enum store_member_state member_state)
{
    struct seen *seen = ctx;
    if (member_state != STORE_MEMBER_ALIVE) return;
    seen->members++;
    seen->last = *info;
}

static void on_gone(void *ctx, const char *name)
{
    (void)ctx;
    (void)name;
}

static bool two_seen(void *ctx)
{
    return ((struct seen *)ctx)->members >= 2;
}

/* A worker with a master is ready when it is a member, and others hear of it what they need. */
static void workers_join_the_cluster(void **state)
{
    struct rpc_server *server;
    struct store_master_shell *shell;
    struct store_watch *watch;
    struct seen seen = { 0 };
    struct errmsg err = { "" };
    struct node p, d;
    char master[64];
    static struct request request;

    (void)state;
    const struct rpc_server_options listen = { .address = "127.0.0.1:0", .name = "master" };
    assert_int_equal(rpc_server_create(world.env, &listen, &server, &err), STATUS_OK);
    const struct store_master_shell_options options = { .env = world.env, .server = server };
    assert_int_equal(store_master_shell_create(&options, &shell, &err), STATUS_OK);
    snprintf(master, sizeof(master), "127.0.0.1:%u", rpc_server_port(server));
    node_start(&p, "p", &(struct node_choice){ .master = master });
    node_start(&d, "d", &(struct node_choice){ .master = master, .role = PROTO_ROLE_DECODE });
    const struct store_watch_options watching = {
        .env = world.env, .master = master, .on_member = on_member, .on_gone = on_gone, .ctx = &seen
    };
    assert_int_equal(store_watch(&watching, &watch, &err), STATUS_OK);
    turn_until(two_seen, &seen, 20000);
    const struct node *last = strcmp(seen.last.name, "d") == 0 ? &d : &p;
    struct proto_node_info info;
    worker_info(last->worker, &info);
    assert_string_equal(seen.last.rpc_address, last->address);
    assert_string_equal(seen.last.segment, info.segment);
    assert_memory_equal(seen.last.fingerprint, info.fingerprint, sizeof(info.fingerprint));
    assert_int_equal(seen.last.layout.block_tokens, BLOCK);
    request_init(&request, 40, 20);
    run(&request, &p, &d);
    expect_same_as_alone(&request);
    store_unwatch(watch);
    node_stop(&p);
    node_stop(&d);
    store_master_shell_destroy(shell);
    rpc_server_destroy(server);
    env_poll(world.env, 0);
}

static void same_prompt_again_is_cached(void **state)
{
    static struct request first, second;
    struct node p, d;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ 0 });
    node_start(&d, "d", &(struct node_choice){ 0 });
    for (uint32_t length = 64; length <= 66; length++) {
        request_init(&first, length, 30);
        run(&first, &p, &d);
        expect_same_as_alone(&first);
        second = first;
        second.id++;
        second.attempt = second.answer_count = 0;
        second.finished = false;
        world.next_request++;
        run(&second, &p, &d);
        expect_same_as_alone(&second);
        assert_int_equal(second.done.cached_tokens, (length - 1) / BLOCK * BLOCK);
        assert_int_equal(second.done.fetched_tokens, 0);
        assert_int_equal(second.push_from, length / BLOCK); /* d has the full ones, too */

        /* What was answered is in the pool at d: a next turn of the conversation finds it. */
        request_init(&first, 0, 10);
        memcpy(first.prompt, second.prompt, length * sizeof(uint32_t));
        memcpy(first.prompt + length, second.answer, second.answer_count * sizeof(uint32_t));
        first.prompt_count = length + second.answer_count;
        run(&first, &d, &d);
        expect_same_as_alone(&first);
        assert_true(first.done.cached_tokens >= (first.prompt_count - 1) / BLOCK * BLOCK - BLOCK);
    }
    node_stop(&p);
    node_stop(&d);
}

static void pool_off_changes_nothing_but_time(void **state)
{
    static struct request request;
    struct node p, d;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ .no_reuse = true });
    node_start(&d, "d", &(struct node_choice){ .no_reuse = true });
    request_init(&request, 100, 30);
    for (int i = 0; i < 2; i++) {
        request.id = ++world.next_request;
        request.attempt = request.answer_count = 0;
        request.finished = false;
        run(&request, &p, &d);
        expect_same_as_alone(&request);
        assert_int_equal(request.done.cached_tokens, 0);
        assert_int_equal(request.push_from, 0);
    }
    node_stop(&p);
    node_stop(&d);
}

/* The second node fetches from the first, layer by layer, and goes on from there. */
static void blocks_come_from_another_node(void **state)
{
    static struct request request;
    struct node a, b, c;

    (void)state;
    node_start(&a, "a", &(struct node_choice){ 0 });
    node_start(&b, "b", &(struct node_choice){ .forbid_shm = true });
    node_start(&c, "c", &(struct node_choice){ 0 });
    request_init(&request, 500, 20);
    run(&request, &a, &a); /* prefill and decode on one node */
    expect_same_as_alone(&request);

    request.id = ++world.next_request;
    request.attempt = request.answer_count = 0;
    request.finished = false;
    request.holder = a.address;
    request.reuse_blocks = 20;
    run(&request, &b, &c);
    expect_same_as_alone(&request);
    assert_int_equal(request.done.cached_tokens, 20 * BLOCK);
    assert_int_equal(request.done.fetched_tokens, 20 * BLOCK);
    assert_int_equal(request.push_from, 20); /* c fetched them too */
    struct proto_node_status status;
    worker_status(b.worker, &status);
    for (int i = PROTO_LOAD_MOVED_US; i <= PROTO_STORE_MOVED_US; i += 2) { /* and time was taken */
        assert_true(status.moves[i] > 0 && status.moves[i + 1] <= status.moves[i]);
    }
    assert_true(status.moves[PROTO_LOAD_MOVED_US] <= request.done.times.total_us);
    assert_true(status.moves[PROTO_STORE_MOVED_US] <= request.done.times.total_us);

    /* Now b has them all, and c too. */
    request.id = ++world.next_request;
    request.attempt = request.answer_count = 0;
    request.finished = false;
    request.reuse_blocks = 31;
    run(&request, &b, &c);
    expect_same_as_alone(&request);
    assert_int_equal(request.done.cached_tokens, 31 * BLOCK);
    assert_int_equal(request.done.fetched_tokens, 0);
    node_stop(&a);
    node_stop(&b);
    node_stop(&c);
}

/* p computes what a holder does not give; d says that it lacks it, and is asked again without. */
static void holder_without_blocks_is_a_miss(void **state)
{
    static struct request request;
    struct node p, d, h;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ 0 });
    node_start(&d, "d", &(struct node_choice){ 0 });
    node_start(&h, "h", &(struct node_choice){ 0 });
    request_init(&request, 200, 20);
    request.holder = h.address; /* has nothing */
    request.reuse_blocks = 10;
    run(&request, &p, &p); /* p is its own d: it fetches for both */
    if (request.finished) {
        assert_int_equal(request.done.miss, PROTO_MISS_GONE);
    } else {
        assert_int_equal(request.cause, PROTO_CAUSE_SOURCE);
        request.holder = NULL;
        request.reuse_blocks = 0;
        run(&request, &p, &p);
    }
    expect_same_as_alone(&request);

    request_init(&request, 200, 20);
    request.holder = "127.0.0.1:1"; /* nobody */
    request.reuse_blocks = 10;
    run(&request, &p, &d);
    assert_false(request.finished);
    assert_int_equal(request.cause, PROTO_CAUSE_SOURCE);
    request.holder = NULL;
    run(&request, &p, &d);
    expect_same_as_alone(&request);

    request_init(&request, 200, 20); /* who computes it itself goes on at once */
    request.holder = h.address;
    request.reuse_blocks = 6;
    request.computes = true;
    run(&request, NULL, &d);
    expect_same_as_alone(&request);
    assert_int_equal(request.done.miss, PROTO_MISS_GONE);
    assert_int_equal(request.done.cached_tokens, 0);
    assert_int_equal(request.done.computed_tokens, 200);
    node_stop(&p);
    node_stop(&d);
    node_stop(&h);
}

/* All of them: on a busy machine a node gives one up and comes again, and is not to be refused. */
struct kept {
    struct env_stream *streams[64];
    uint32_t count;
};

static void keep_silent(void *ctx, struct env_stream *stream)
{
    struct kept *kept = ctx;

    assert_true(kept->count < sizeof(kept->streams) / sizeof(kept->streams[0]));
    kept->streams[kept->count++] = stream;
}

/* A holder that has stopped, or is cut off, is waited for as long as it is quiet, and no longer;
 * whoever computes goes on without it, and d says why it cannot. */
static void holder_that_stands_still_is_late(void **state)
{
    static struct request request;
    struct env_listener *listener;
    struct kept kept = { .count = 0 };
    struct errmsg err = { "" };
    const struct node_choice choice = { .fetch_quiet_ms = 30 };
    struct node p, d;
    char holder[64];

    (void)state;
    assert_int_equal(env_listen(world.env, "127.0.0.1:0", keep_silent, &kept, &listener, &err),
                     STATUS_OK);
    snprintf(holder, sizeof(holder), "127.0.0.1:%u", env_listener_port(listener));
    node_start(&p, "p", &choice);
    node_start(&d, "d", &choice);
    request_init(&request, 200, 20);
    request.holder = holder;
    request.reuse_blocks = 6;
    request.computes = true;
    run(&request, NULL, &d);
    expect_same_as_alone(&request);
    assert_int_equal(request.done.miss, PROTO_MISS_TIMEOUT);
    assert_int_equal(request.done.computed_tokens, 200);

    request_init(&request, 200, 20);
    request.holder = holder;
    request.reuse_blocks = 6;
    run(&request, &p, &d);
    assert_false(request.finished);
    assert_int_equal(request.cause, PROTO_CAUSE_SOURCE);
    assert_int_equal(request.miss, PROTO_MISS_TIMEOUT);
    request.holder = NULL;
    run(&request, &p, &d);
    expect_same_as_alone(&request);
    node_stop(&p);
    node_stop(&d);
    env_listener_close(listener);
    for (uint32_t i = 0; i < kept.count; i++)
        env_stream_close(kept.streams[i]);
}

/* d dies in the middle of the answer: another one goes on, also when tokens are drawn by chance. */
static void another_decode_node_goes_on(void **state)
{
    static struct request request;
    struct node p, d, e;

    (void)state;
    for (int round = 0; round < 2; round++) {
        node_start(&p, "p", &(struct node_choice){ 0 });
        node_start(&d, "d", &(struct node_choice){ 0 });
        node_start(&e, "e", &(struct node_choice){ 0 });
        request_init(&request, 50, 200);
        if (round == 1)
            request.sampling =
                (struct sampling){ .temperature = 0.8f, .top_p = 0.95f, .seed = 4711 };
        request.p = &p;
        request.d = &d;
        attempt_start(&request);
        while (request.answer_count < 60)
            env_poll(world.env, 10 * ENV_NS_PER_MS);
        node_kill(&d);
        turn_until(request_over, &request, 20000);
        assert_false(request.finished);
        const uint32_t before = request.answer_count;
        assert_in_range(before, 60, 199);
        run(&request, &p, &e);
        assert_true(request.generated_before >= before);
        expect_same_as_alone(&request);
        node_stop(&p);
        node_stop(&d);
        node_stop(&e);
    }
}

static void note(void *ctx)
{
    *(bool *)ctx = true;
}

/* d leaves while it decodes: it says so, serves what comes, lends its blocks to who goes on, and is
 * done when nothing is left. */
static void who_leaves_is_not_missed(void **state)
{
    static struct request request;
    struct node p, d, e;
    struct reply told = { 0 };
    struct rpc_call_id id;
    bool drained = false;
    const struct rpc_request watch = { .method = PROTO_NODE_LEAVING,
                                       .body = "",
                                       .deadline_ns = ENV_NEVER,
                                       .on_end = on_reply,
                                       .ctx = &told };

    (void)state;
    node_start(&p, "p", &(struct node_choice){ 0 });
    node_start(&d, "d", &(struct node_choice){ 0 });
    node_start(&e, "e", &(struct node_choice){ 0 });
    assert_int_equal(rpc_call(d.client, &watch, &id), STATUS_OK);
    request_init(&request, 50, 200);
    request.p = &p;
    request.d = &d;
    attempt_start(&request);
    while (request.answer_count < 100)
        env_poll(world.env, ENV_NS_PER_MS);
    assert_false(told.ended);
    worker_drain(d.worker, note, &drained);
    turn_until(is_set, &told.ended, 20000);
    assert_int_equal(told.status, STATUS_OK);
    assert_false(drained);

    /* As a gateway does: away from d, with what d has. */
    rpc_cancel(d.client, request.d_call);
    turn_until(request_over, &request, 20000);
    request.reuse_blocks = (50 + request.answer_count) / BLOCK - 1;
    request.holder = d.address;
    run(&request, &p, &e);
    expect_same_as_alone(&request);
    assert_true(request.done.fetched_tokens >= 2 * BLOCK); /* of the answer: only d had them */
    turn_until(is_set, &drained, 20000);
    assert_true(node_is_quiet(&d));
    node_stop(&d);
    node_stop(&p);
    node_stop(&e);
}

/* What p used last is at q when p has gone, and nothing of it is computed again. */
static void who_leaves_hands_over(void **state)
{
    enum { PROMPTS = 2, BLOCKS = 40 }; /* more than what is told at once */
    static struct request first[PROMPTS], again;
    struct rpc_server *server;
    struct store_master_shell *shell;
    struct reply told = { 0 };
    struct rpc_call_id id;
    struct errmsg err = { "" };
    struct node p, q, d;
    bool drained = false;
    char master[64];
    const struct rpc_request watch = { .method = PROTO_NODE_LEAVING,
                                       .body = "",
                                       .deadline_ns = ENV_NEVER,
                                       .on_end = on_reply,
                                       .ctx = &told };

    (void)state;
    const struct rpc_server_options listen = { .address = "127.0.0.1:0", .name = "master" };
    assert_int_equal(rpc_server_create(world.env, &listen, &server, &err), STATUS_OK);
    const struct store_master_shell_options options = { .env = world.env, .server = server };
    assert_int_equal(store_master_shell_create(&options, &shell, &err), STATUS_OK);
    snprintf(master, sizeof(master), "127.0.0.1:%u", rpc_server_port(server));
    node_start(&p, "p", &(struct node_choice){ .master = master });
    node_start(&d, "d", &(struct node_choice){ .master = master, .role = PROTO_ROLE_DECODE });
    node_start(&q, "q", &(struct node_choice){ .master = master });
    for (int i = 0; i < PROMPTS; i++) {
        request_init(&first[i], BLOCKS * BLOCK + 3, 4);
        run(&first[i], &p, &d);
    }
    assert_int_equal(rpc_call(p.client, &watch, &id), STATUS_OK);
    turn_for(20);
    worker_drain(p.worker, note, &drained);
    turn_until(is_set, &drained, 20000);
    node_stop(&p);
    for (int i = 0; i < PROMPTS; i++) {
        again = first[i];
        again.id = ++world.next_request;
        again.attempt = again.answer_count = 0;
        again.finished = false;
        run(&again, &q, &d);
        expect_same_as_alone(&again);
        assert_int_equal(again.done.cached_tokens, BLOCKS * BLOCK);
        assert_int_equal(again.done.fetched_tokens, 0);
    }
    node_stop(&q);
    node_stop(&d);
    store_master_shell_destroy(shell);
    rpc_server_destroy(server);
    env_poll(world.env, 0);
}

/* p dies while it computes or pushes: d gives up when told, and all its pages come back. They do so
 * when p's lease and fence are over, so the rounds wait for that together, at the end. */
static void another_prefill_node_starts_over(void **state)
{
    enum { ROUNDS = 4 };
    static struct request request;
    struct node p[ROUNDS], q[ROUNDS], d[ROUNDS];

    (void)state;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        node_start(&p[i], "p", &(struct node_choice){ 0 });
        node_start(&q[i], "q", &(struct node_choice){ 0 });
        node_start(&d[i], "d", &(struct node_choice){ 0 });
        request_init(&request, 900, 10);
        request.p = &p[i];
        request.d = &d[i];
        attempt_start(&request);
        while (!request.opened)
            env_poll(world.env, 10 * ENV_NS_PER_MS);
        turn_for(i * 3);
        node_kill(&p[i]);
        turn_until(request_over, &request, 20000);
        if (!request.finished) run(&request, &q[i], &d[i]);
        expect_same_as_alone(&request);
    }
    for (uint32_t i = 0; i < ROUNDS; i++) {
        node_stop(&p[i]);
        node_stop(&q[i]);
        node_stop(&d[i]);
    }
}

static void eos_ends_the_answer(void **state)
{
    static struct request request;
    struct node p, d;
    uint32_t stops = 0;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ 0 });
    node_start(&d, "d", &(struct node_choice){ 0 });
    for (uint64_t seed = 0; seed < 12; seed++) {
        request_init(&request, 20, 1 + (uint32_t)seed * 40);
        request.ignore_eos = false;
        request.sampling = (struct sampling){ .temperature = 2.0f, .top_p = 1.0f, .seed = seed };
        run(&request, &p, &d);
        expect_same_as_alone(&request);
        if (request.reason == PROTO_FINISH_STOP) stops++;
    }
    assert_in_range(stops, 1, 11);
    node_stop(&p);
    node_stop(&d);
}

static void context_is_the_end(void **state)
{
    static struct request request;
    struct node p, d;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ 0 });
    node_start(&d, "d", &(struct node_choice){ 0 });
    for (uint32_t length = CONTEXT - 2; length <= CONTEXT; length++) {
        request_init(&request, length, 50);
        run(&request, &p, &d);
        expect_same_as_alone(&request);
        assert_int_equal(request.answer_count, CONTEXT + 1 - length);
    }
    node_stop(&p);
    node_stop(&d);
}

/* Many at once, in pools too small for all: they wait, or are placed again, and all are right. */
static void run_many(struct node *p, struct node *d, struct request *requests, uint32_t count)
{
    uint32_t left = count, failures = 0;
    for (uint32_t i = 0; i < count; i++) {
        request_init(&requests[i], 1 + (uint32_t)rng_below(&world.rng, 200),
                     1 + (uint32_t)rng_below(&world.rng, 150));
        requests[i].sampling =
            (struct sampling){ .temperature = (float)(i % 3) * 0.5f, .top_p = 0.9f, .seed = i };
        requests[i].p = p;
        requests[i].d = d;
        attempt_start(&requests[i]);
    }
    const uint64_t end_ns = env_now_ns(world.env) + 120 * ENV_NS_PER_S;
    while (left > 0) {
        assert_true(env_now_ns(world.env) < end_ns);
        env_poll(world.env, 10 * ENV_NS_PER_MS);
        for (uint32_t i = 0; i < count; i++) {
            struct request *request = &requests[i];
            if (!request->over) continue;
            request->over = false;
            if (request->finished) {
                left--;
                continue;
            }
            assert_true(request->cause == PROTO_CAUSE_PAGES);
            assert_true(++failures < TRIES_MAX * count);
            attempt_start(request);
        }
    }
    for (uint32_t i = 0; i < count; i++)
        expect_same_as_alone(&requests[i]);
    assert_true(failures > 0); /* or the pool was not too small */
}

static void many_at_once(void **state)
{
    enum { COUNT = 24 };
    static struct request requests[COUNT];
    struct node p, d;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ .pages = 40 });
    node_start(&d, "d", &(struct node_choice){ .pages = 60 });
    run_many(&p, &d, requests, COUNT);
    node_stop(&p);
    node_stop(&d);
}

/* Those who wait for KV must not take all pages from those who compute it. */
static void many_at_once_on_one_node(void **state)
{
    enum { COUNT = 24 };
    static struct request requests[COUNT];
    struct node both;

    (void)state;
    node_start(&both, "both", &(struct node_choice){ .pages = 60 });
    run_many(&both, &both, requests, COUNT);
    node_stop(&both);
}

/* Cancelled at any moment, nothing stays behind, and others are not disturbed. */
static void cancelled_at_any_time(void **state)
{
    enum { COUNT = 40 };
    static struct request requests[COUNT];
    static struct request steady;
    struct node p, d;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ .forbid_shm = true });
    node_start(&d, "d", &(struct node_choice){ .forbid_shm = true });
    request_init(&steady, 100, 400);
    steady.p = &p;
    steady.d = &d;
    attempt_start(&steady);
    for (int i = 0; i < COUNT; i++) {
        struct request *request = &requests[i];
        request_init(request, 1 + (uint32_t)rng_below(&world.rng, 400), 100);
        request->p = &p;
        request->d = &d;
        request->computes = i % 3 == 0;
        attempt_start(request);
        const uint64_t turns = rng_below(&world.rng, 40);
        for (uint64_t turn = 0; turn < turns; turn++)
            env_poll(world.env, ENV_NS_PER_MS);
        const uint64_t who = request->computes ? 1 : rng_below(&world.rng, 3);
        if (who != 0 && request->d_running) rpc_cancel(d.client, request->d_call);
        if (who != 1 && request->p_running) rpc_cancel(p.client, request->p_call);
    }
    for (int i = 0; i < COUNT; i++)
        turn_until(request_over, &requests[i], 30000);
    turn_until(request_over, &steady, 30000);
    expect_same_as_alone(&steady);
    node_stop(&p); /* checks that nothing leaked */
    node_stop(&d);
}

/* A door before the batch: two places are what the gateway gives as long as the node does not know
 * its steps, and a limit that no two can keep is one place when it does (which may be before the
 * second comes). Those who wait are right in the end, and who is cancelled while it waits leaves
 * nothing. */
static void who_waits_at_the_door_comes_in(void **state)
{
    enum { COUNT = 12, PLACES = 2, WAITING = 5 };
    static struct request requests[COUNT];
    struct proto_node_status status;
    uint32_t left = COUNT, most_decoding = 0, most_waiting = 0, cancelled = 0;
    struct node p, d;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ 0 });
    node_start(&d, "d", &(struct node_choice){ 0 });
    for (uint32_t i = 0; i < COUNT; i++) {
        request_init(&requests[i], 1 + (uint32_t)rng_below(&world.rng, 60), i == 5 ? 1 : 200);
        requests[i].limits = (struct proto_limits){ .tbt_us = 1, .door = true, .places = PLACES };
        requests[i].p = &p;
        requests[i].d = &d;
        attempt_start(&requests[i]);
    }
    const uint64_t end_ns = env_now_ns(world.env) + 60 * ENV_NS_PER_S;
    while (left > 0) {
        assert_true(env_now_ns(world.env) < end_ns);
        env_poll(world.env, ENV_NS_PER_MS);
        worker_status(d.worker, &status);
        if (status.decoding > most_decoding) most_decoding = status.decoding;
        if (status.at_door > most_waiting) most_waiting = status.at_door;
        if (status.at_door >= WAITING && cancelled == 0) {
            for (uint32_t i = 0; i < COUNT && cancelled < 3; i++) {
                if (requests[i].answer_count > 0 || requests[i].over) continue;
                rpc_cancel(d.client, requests[i].d_call);
                cancelled++;
            }
        }
        left = 0;
        for (uint32_t i = 0; i < COUNT; i++)
            left += !requests[i].over;
    }
    assert_int_equal(cancelled, 3);
    assert_in_range(most_decoding, 1, PLACES);
    assert_true(most_waiting >= WAITING);
    uint32_t finished = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        if (!requests[i].finished) continue;
        finished++;
        expect_same_as_alone(&requests[i]);
    }
    assert_int_equal(finished, COUNT - cancelled);
    node_stop(&p);
    node_stop(&d);
}

/* d computes prompts itself, beside those that it decodes: cold, with what it has, and with what
 * another node has; in any mix, behind a door or not, the answers are the same. */
static void prompts_are_computed_where_they_decode(void **state)
{
    enum { COUNT = 16 };
    static struct request requests[COUNT];
    static struct request steady, lender, again;
    struct node p, d;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ 0 });
    node_start(&d, "d", &(struct node_choice){ 0 });
    request_init(&lender, 7 * BLOCK, 2);
    run(&lender, &p, &p);
    request_init(&steady, 100, 300);
    steady.p = &p;
    steady.d = &d;
    attempt_start(&steady);
    for (uint32_t i = 0; i < COUNT; i++) {
        request_init(&requests[i], 1 + (uint32_t)rng_below(&world.rng, 200), 1 + i * 5);
        requests[i].sampling =
            (struct sampling){ .temperature = (float)(i % 3) * 0.5f, .top_p = 0.9f, .seed = i };
        requests[i].limits = (struct proto_limits){ .tbt_us = 1000, .door = i % 2 == 0 };
        requests[i].computes = i % 4 != 3;
        requests[i].p = &p;
        requests[i].d = &d;
        attempt_start(&requests[i]);
    }
    again = lender; /* whole blocks: the last one is computed for its last token */
    again.id = ++world.next_request;
    again.attempt = again.answer_count = again.generated_before = 0;
    again.finished = false;
    again.computes = true;
    again.reuse_blocks = 7;
    again.holder = p.address;
    run(&again, NULL, &d);
    expect_same_as_alone(&again);
    assert_int_equal(again.done.cached_tokens, 6 * BLOCK);
    assert_int_equal(again.done.fetched_tokens, 6 * BLOCK);
    assert_int_equal(again.done.computed_tokens, BLOCK);
    for (uint32_t i = 0; i < COUNT; i++) {
        turn_until(request_over, &requests[i], 30000);
        expect_same_as_alone(&requests[i]);
    }
    turn_until(request_over, &steady, 30000);
    expect_same_as_alone(&steady);
    again.attempt = again.answer_count = again.generated_before = 0;
    again.id = ++world.next_request;
    again.finished = false;
    run(&again, NULL, &d); /* what it computed is there for the next */
    expect_same_as_alone(&again);
    assert_int_equal(again.done.fetched_tokens, 0);
    assert_int_equal(again.done.cached_tokens, 6 * BLOCK);
    node_stop(&p);
    node_stop(&d);
}

/* Tokens of a prompt are as likely as when they were answered, whoever computes it, however many
 * chunks it takes, and although its blocks are cached: nothing is taken from there. */
static void prompts_are_scored(void **state)
{
    static struct request answered, scored[2];
    struct node p, d;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ 0 });
    node_start(&d, "d", &(struct node_choice){ 0 });
    request_init(&answered, 5 * BLOCK + 3, 40);
    answered.ignore_eos = true;
    answered.logprobs = 3;
    answered.p = &p;
    answered.d = &d;
    attempt_start(&answered);
    turn_until(request_over, &answered, 30000);
    assert_int_equal(answered.answer_count, 40);
    for (uint32_t i = 0; i < 2; i++) {
        struct request *request = &scored[i];
        request_init(request, answered.prompt_count + 40, 2);
        memcpy(request->prompt, answered.prompt, answered.prompt_count * sizeof(uint32_t));
        memcpy(request->prompt + answered.prompt_count, answered.answer, 40 * sizeof(uint32_t));
        request->ignore_eos = true;
        request->logprobs = 3;
        request->scores = 3;
        request->reuse_blocks = 5;
        request->computes = i == 1;
        request->p = &p;
        request->d = &d;
        attempt_start(request);
        turn_until(request_over, request, 30000);
        expect_same_as_alone(request);
        assert_int_equal(request->scored, request->prompt_count - 1);
        assert_int_equal(request->done.cached_tokens, 0);
        assert_memory_equal(request->scores_of[answered.prompt_count - 1], answered.rows,
                            40 * sizeof(answered.rows[0]));
    }
    assert_memory_equal(scored[0].scores_of, scored[1].scores_of, sizeof(scored[0].scores_of));
    node_stop(&p);
    node_stop(&d);
}

/* ---- a p that lies ---- */

/* As on_d_item(), but nobody is asked to prefill. */
static void on_lied_item(void *ctx, const uint8_t *body, size_t len)
{
    struct request *request = ctx;
    struct proto_item item;
    assert_int_equal(proto_item_decode(body, len, &item), STATUS_OK);
    if (item.kind == PROTO_ITEM_FAILED) request->cause = item.failed.cause;
    if (item.kind == PROTO_ITEM_TOKEN) request->answer_count++;
    if (item.kind != PROTO_ITEM_OPENED) return;
    request->opened = true;
    request->lied_epoch = item.opened.epoch;
}

static void open_alone(struct request *request)
{
    static uint32_t tokens[TOKENS_MAX];
    static struct block_key keys[TOKENS_MAX];
    request->attempt++;
    request->over = request->opened = false;
    const struct proto_decode_open open = { .sequence = sequence_of(request, tokens, keys),
                                            .max_tokens = request->max_tokens };
    send_open(request, &open, on_lied_item);
    turn_until(is_set, &request->opened, 20000);
}

static enum status ask_to_push(struct request *request, enum proto_push_kind kind, uint64_t epoch)
{
    struct buf body;
    const struct proto_push push = {
        .request_id = request->id, .attempt = request->attempt, .epoch = epoch, .kind = kind
    };
    buf_init(&body, 4096);
    assert_int_equal(proto_push_encode(&push, &body), STATUS_OK);
    const enum status status = call_and_wait(request->d, PROTO_DECODE_PUSH, &body);
    buf_fini(&body);
    return status;
}

static enum status say_kv_done(struct request *request, uint32_t sums_count)
{
    static const uint64_t sums[TOKENS_MAX];
    struct buf body;
    const struct proto_kv_done done = { .request_id = request->id,
                                        .attempt = request->attempt,
                                        .epoch = request->lied_epoch,
                                        .first_token = 7,
                                        .checksums = proto_u64s_of(sums, sums_count) };
    buf_init(&body, 1 << 20);
    assert_int_equal(proto_kv_done_encode(&done, &body), STATUS_OK);
    const enum status status = call_and_wait(request->d, PROTO_DECODE_KV_DONE, &body);
    buf_fini(&body);
    return status;
}

/* A prefix of `keys` at p; what the node says to a request for a copy of it. */
static enum status ask_for_copy(struct node *node, const char *holder, const struct block_key *keys,
                                uint32_t count, struct reply *reply)
{
    struct proto_node_blocks blocks = { .keys = keys, .keys_count = count };
    struct buf body;

    snprintf(blocks.holder, sizeof(blocks.holder), "%s", holder);
    buf_init(&body, 1 << 20);
    assert_int_equal(proto_node_blocks_encode(&blocks, &body), STATUS_OK);
    *reply = (struct reply){ 0 };
    const struct rpc_request call = { .method = holder[0] ? PROTO_NODE_COPY : PROTO_NODE_DROP,
                                      .body = buf_data(&body),
                                      .len = body.len,
                                      .deadline_ns = env_now_ns(world.env) + 60 * ENV_NS_PER_S,
                                      .on_end = on_reply,
                                      .ctx = reply };
    struct rpc_call_id id;
    assert_int_equal(rpc_call(node->client, &call, &id), STATUS_OK);
    turn_until(is_set, &reply->ended, 20000);
    buf_fini(&body);
    return reply->status;
}

/* A copy is made in the background, used like any block, and given up when it is told so; a holder
 * that has nothing, or is not there, leaves nothing behind. */
static void prefixes_are_copied_and_dropped(void **state)
{
    enum { BLOCKS = 12 };
    static struct request first, second;
    const struct block_key root = test_root();
    struct block_key keys[BLOCKS];
    struct proto_node_status before, after;
    struct reply reply;
    struct node p, d, q;

    (void)state;
    node_start(&p, "p", &(struct node_choice){ 0 });
    node_start(&d, "d", &(struct node_choice){ 0 });
    node_start(&q, "q", &(struct node_choice){ 0 });
    request_init(&first, BLOCKS * BLOCK + 3, 4);
    run(&first, &p, &d);
    assert_int_equal(conductor_keys(&root, first.prompt, BLOCKS * BLOCK, BLOCK, keys), BLOCKS);
    worker_status(q.worker, &before);
    assert_int_equal(ask_for_copy(&q, p.address, keys, BLOCKS, &reply), STATUS_OK);
    assert_true(reply.copied.had == 0 && reply.copied.copied == BLOCKS);
    assert_int_equal(ask_for_copy(&q, p.address, keys, BLOCKS, &reply), STATUS_OK);
    assert_true(reply.copied.had == BLOCKS && reply.copied.copied == 0);
    worker_status(q.worker, &after);
    assert_int_equal(after.pages_cached, before.pages_cached + BLOCKS);
    second = first;
    second.id = ++world.next_request;
    second.attempt = second.answer_count = 0;
    second.finished = false;
    run(&second, &q, &d);
    expect_same_as_alone(&second);
    assert_int_equal(second.done.cached_tokens, BLOCKS * BLOCK);
    assert_int_equal(second.done.fetched_tokens, 0);

    assert_int_equal(ask_for_copy(&q, "", keys + 4, BLOCKS - 4, &reply), STATUS_OK);
    worker_status(q.worker, &after);
    assert_int_equal(after.pages_cached, before.pages_cached + 4);
    assert_int_equal(ask_for_copy(&q, p.address, keys, BLOCKS, &reply), STATUS_OK);
    assert_true(reply.copied.had == 4 && reply.copied.copied == BLOCKS - 4);
    assert_int_equal(ask_for_copy(&q, "", keys, BLOCKS, &reply), STATUS_OK);

    assert_int_equal(ask_for_copy(&p, "", keys, BLOCKS, &reply), STATUS_OK);
    assert_int_equal(ask_for_copy(&q, p.address, keys, BLOCKS, &reply), STATUS_OK);
    assert_true(reply.copied.had == 0 && reply.copied.copied == 0); /* it has them no more */
    (void)ask_for_copy(&q, "127.0.0.1:1", keys, BLOCKS, &reply);
    assert_true(reply.status != STATUS_OK || reply.copied.copied == 0);
    node_stop(&p); /* checks that nothing leaked */
    node_stop(&d);
    node_stop(&q);
}

static void wrong_checksums_never_join(void **state)
{
    static struct request request;
    struct node d;

    (void)state;
    node_start(&d, "d", &(struct node_choice){ 0 });
    request_init(&request, 50, 10);
    request.d = &d;
    open_alone(&request);
    assert_int_equal(ask_to_push(&request, PROTO_PUSH_BEGIN, request.lied_epoch + 1), STATUS_STALE);
    assert_int_equal(ask_to_push(&request, PROTO_PUSH_BEGIN, request.lied_epoch), STATUS_OK);
    assert_int_equal(say_kv_done(&request, 3), STATUS_INVALID); /* 4 blocks of 4 layers */
    assert_int_equal(say_kv_done(&request, 16), STATUS_CORRUPT);
    turn_until(request_over, &request, 20000);
    assert_int_equal(request.cause, PROTO_CAUSE_PUSH);
    assert_int_equal(request.d_status, STATUS_CORRUPT);
    assert_int_equal(request.answer_count, 0);
    assert_int_equal(say_kv_done(&request, 16), STATUS_STALE);
    assert_int_equal(ask_to_push(&request, PROTO_PUSH_BEGIN, request.lied_epoch), STATUS_STALE);
    assert_true(node_is_quiet(&d));

    /* Lent pages stay lent until p says that it is done. */
    open_alone(&request);
    assert_int_equal(ask_to_push(&request, PROTO_PUSH_BEGIN, request.lied_epoch), STATUS_OK);
    rpc_cancel(d.client, request.d_call);
    turn_until(request_over, &request, 20000);
    turn_for(50);
    struct proto_node_status status;
    worker_status(d.worker, &status);
    assert_int_equal(status.running, 0);
    assert_int_equal(status.pages_free + status.pages_cached, status.pages_total - 4);
    assert_int_equal(ask_to_push(&request, PROTO_PUSH_END, request.lied_epoch), STATUS_OK);
    turn_until(node_is_quiet, &d, 1000);
    node_stop(&d);
}

static void expect_refused(struct request *request, struct node *d, enum proto_cause cause)
{
    run(request, d, d);
    assert_false(request->finished);
    assert_int_equal(request->cause, cause);
    assert_int_equal(request->d_status, STATUS_INVALID);
}

static void nonsense_is_refused(void **state)
{
    static struct request request;
    struct node d;
    struct buf body;

    (void)state;
    node_start(&d, "d", &(struct node_choice){ .pages = 40 });
    request_init(&request, 50, 10);
    request.prompt[3] = TINY_VOCAB;
    expect_refused(&request, &d, PROTO_CAUSE_INVALID);
    request_init(&request, 41 * BLOCK, 10);
    expect_refused(&request, &d, PROTO_CAUSE_PAGES);
    buf_init(&body, 4096);
    assert_int_equal(buf_append_text(&body, "garbage"), STATUS_OK);
    for (int method = PROTO_DECODE_OPEN; method <= PROTO_PREFILL_RUN; method++) {
        assert_int_equal(call_and_wait(&d, (enum proto_method)method, &body), STATUS_INVALID);
    }
    assert_int_equal(call_and_wait(&d, PROTO_NODE_INFO, &body), STATUS_OK);
    assert_int_equal(call_and_wait(&d, PROTO_NODE_STATUS, &body), STATUS_OK);
    buf_fini(&body);

    node_stop(&d);
}

/* A role is what others should prefer: told, kept and reported, and nothing else changes. */
static void the_role_can_change(void **state)
{
    static struct request request;
    const enum proto_role roles[] = { PROTO_ROLE_DECODE, PROTO_ROLE_PREFILL };
    const struct proto_node_role store = { PROTO_ROLE_STORE };
    struct node d;
    struct buf body;
    struct proto_node_status status;
    struct proto_node_info info;

    (void)state;
    node_start(&d, "d", &(struct node_choice){ .pages = 40 });
    buf_init(&body, 4096);
    for (int i = 0; i < 2; i++) {
        const struct proto_node_role message = { roles[i] };
        buf_clear(&body);
        assert_int_equal(proto_node_role_encode(&message, &body), STATUS_OK);
        assert_int_equal(call_and_wait(&d, PROTO_NODE_ROLE, &body), STATUS_OK);
        worker_status(d.worker, &status);
        worker_info(d.worker, &info);
        assert_int_equal(status.role, roles[i]);
        assert_int_equal(info.role, roles[i]);
        request_init(&request, 50, 10);
        run(&request, &d, &d);
        assert_true(request.finished);
    }
    buf_clear(&body);
    assert_int_equal(proto_node_role_encode(&store, &body), STATUS_OK);
    assert_int_equal(call_and_wait(&d, PROTO_NODE_ROLE, &body), STATUS_INVALID);
    worker_status(d.worker, &status);
    assert_int_equal(status.role, PROTO_ROLE_PREFILL);
    buf_fini(&body);
    node_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_nodes_answer_as_one),
        cmocka_unit_test(workers_join_the_cluster),
        cmocka_unit_test(same_prompt_again_is_cached),
        cmocka_unit_test(pool_off_changes_nothing_but_time),
        cmocka_unit_test(blocks_come_from_another_node),
        cmocka_unit_test(holder_without_blocks_is_a_miss),
        cmocka_unit_test(holder_that_stands_still_is_late),
        cmocka_unit_test(another_decode_node_goes_on),
        cmocka_unit_test(who_leaves_is_not_missed),
        cmocka_unit_test(who_leaves_hands_over),
        cmocka_unit_test(another_prefill_node_starts_over),
        cmocka_unit_test(eos_ends_the_answer),
        cmocka_unit_test(context_is_the_end),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(many_at_once_on_one_node),
        cmocka_unit_test(cancelled_at_any_time),
        cmocka_unit_test(who_waits_at_the_door_comes_in),
        cmocka_unit_test(prompts_are_computed_where_they_decode),
        cmocka_unit_test(prompts_are_scored),
        cmocka_unit_test(prefixes_are_copied_and_dropped),
        cmocka_unit_test(wrong_checksums_never_join),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(the_role_can_change),
    };
    const char *level = getenv("YOLK_LOG");
    if (log_configure(level != NULL ? level : "error", NULL) != STATUS_OK) return 1;
    const int failed = cmocka_run_group_tests_name("computing", tests, set_up, tear_down);
    return failed + cmocka_run_group_tests_name("timed", tests, set_up_timed, tear_down);
}
