/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_stage_test.c
 *
 * Goal:   a group of prefill nodes answers exactly as one does, whatever its size, the prompt, and
 *         what is reused; when a stage dies, is cancelled, is slow or lies, the attempt ends with a
 *         reason, the request can be placed again, and every page comes back.
 * Method: tests/worker_world.h, with the scripted gateway asking the first stage for the others.
 *         Node `d` of a group commits the blocks, so that the next prompt finds them. A peer that
 *         lies is the test itself, which speaks serve/proto_stage.h. Everything is done twice:
 *         computing, and with the timed engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "worker_world.h"

enum { NODES = 4 }; /* three stages at most, and d */

static struct node nodes[NODES];

static void nodes_start(void)
{
    static const char *const names[NODES] = { "a", "b", "c", "d" };

    for (int i = 0; i < NODES; i++) {
        node_start(&nodes[i], names[i], &(struct node_choice){ .forbid_shm = i == 2 });
    }
}

static void nodes_stop(void)
{
    for (int i = 0; i < NODES; i++)
        node_stop(&nodes[i]);
}

/* Nodes 0..count - 1 are the stages, the last node decodes. */
static void choose(struct request *request, uint32_t count)
{
    request->p = &nodes[0];
    request->d = &nodes[NODES - 1];
    request->helpers_count = count - 1;
    for (uint32_t i = 1; i < count; i++)
        request->helpers[i - 1] = &nodes[i];
}

static void run_group(struct request *request, uint32_t count)
{
    choose(request, count);
    attempt_start(request);
    turn_until(request_over, request, 60000);
}

static void again(struct request *request)
{
    request->id = ++world.next_request;
    request->attempt = request->answer_count = request->generated_before = 0;
    request->finished = false;
}

static void groups_answer_as_one(void **state)
{
    static const uint32_t lengths[] = { 1, 16, 63, 64, 65, 200, 777 };
    static struct request request;

    (void)state;
    nodes_start();
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        for (uint32_t count = 1; count <= 3; count++) {
            request_init(&request, lengths[i], 12);
            if (i % 2 == 1)
                request.sampling =
                    (struct sampling){ .temperature = 1.0f, .top_p = 0.9f, .seed = i + count };
            run_group(&request, count);
            expect_same_as_alone(&request);
            assert_true(request.prefill_done);
            assert_int_equal(request.done.cached_tokens, 0);
            assert_int_equal(request.done.computed_tokens, lengths[i]);
        }
    }
    nodes_stop();
}

/* The stages keep nothing; d has published whole blocks, and who comes next reuses them, alone or
 * as a group, whose other stages get them from the first. */
static void what_a_group_computed_is_reused(void **state)
{
    static struct request request;
    struct proto_node_status status;

    (void)state;
    nodes_start();
    request_init(&request, 300, 8);
    run_group(&request, 3);
    expect_same_as_alone(&request);
    for (int i = 0; i < 3; i++) {
        turn_until(node_is_quiet, &nodes[i], 20000);
        worker_status(nodes[i].worker, &status);
        assert_int_equal(status.pages_cached, 0);
    }
    worker_status(nodes[3].worker, &status);
    assert_true(status.pages_cached >= 300 / BLOCK);

    again(&request);
    request.holder = nodes[3].address;
    request.reuse_blocks = 10;
    run_group(&request, 3);
    expect_same_as_alone(&request);
    assert_int_equal(request.done.cached_tokens, 10 * BLOCK);
    assert_int_equal(request.done.fetched_tokens, 10 * BLOCK);
    worker_status(nodes[2].worker, &status);
    assert_int_equal(status.pages_cached, 10); /* from the first stage, whole */
    nodes_stop();
}

/* The holder has nothing: d, which counts on it too, ends the attempt; nothing is left behind. */
static void a_holder_without_blocks_costs_one_attempt(void **state)
{
    static struct request request;

    (void)state;
    nodes_start();
    request_init(&request, 200, 8);
    request.holder = nodes[2].address;
    request.reuse_blocks = 8;
    run_group(&request, 2);
    assert_int_equal(request.cause, PROTO_CAUSE_SOURCE);
    request.holder = NULL;
    request.reuse_blocks = 0;
    run_group(&request, 2);
    expect_same_as_alone(&request);
    nodes_stop();
}

static void groups_and_others_at_once(void **state)
{
    enum { COUNT = 12 };
    static struct request requests[COUNT];

    (void)state;
    nodes_start();
    for (uint32_t i = 0; i < COUNT; i++) {
        request_init(&requests[i], 1 + (uint32_t)rng_below(&world.rng, 400), 10);
        choose(&requests[i], 1 + i % 3);
        if (i % 4 == 3) { /* the same nodes the other way round */
            requests[i].p = &nodes[1];
            requests[i].helpers[0] = &nodes[0];
            requests[i].helpers_count = 1;
        }
        attempt_start(&requests[i]);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        turn_until(request_over, &requests[i], 60000);
        expect_same_as_alone(&requests[i]);
    }
    nodes_stop();
}

/* A stage dies: the attempt ends, and the next one, alone, gives the answer. One round, because
 * what the dead one was lent is kept until its lease is over; the other engine loses another stage.
 */
static void a_dead_stage_ends_the_attempt(void **state)
{
    static struct request request;
    const uint32_t victim = world.timed != NULL ? 1 : 2;

    (void)state;
    nodes_start();
    request_init(&request, 900, 10);
    choose(&request, 3);
    attempt_start(&request);
    turn_until(is_set, &request.opened, 20000);
    node_kill(&nodes[victim]);
    turn_until(request_over, &request, 60000);
    assert_false(request.finished);
    assert_int_equal(request.cause, PROTO_CAUSE_STAGE);
    request.helpers_count = 0;
    attempt_start(&request);
    turn_until(request_over, &request, 60000);
    expect_same_as_alone(&request);
    nodes_stop();
}

/* ---- a stage that is slow, or says nonsense: the test is stage 1 ---- */

struct follower {
    struct rpc_server *server;
    struct node node; /* its address */
    struct rpc_call *run, *rows[PROTO_STAGE_WINDOW + 1];
    uint32_t rows_count, tokens;
};

static void on_follower_run(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct follower *follower = ctx;
    struct proto_stage_run message;

    assert_int_equal(proto_stage_run_decode(body, len, &message), STATUS_OK);
    assert_int_equal(message.stage, 1);
    follower->run = call;
}

static void on_follower_rows(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct follower *follower = ctx;
    struct proto_stage_rows message;
    const size_t row = backend_hidden_size(world.model, world.timed) * sizeof(float);

    assert_int_equal(proto_stage_rows_decode(body, len, &message), STATUS_OK);
    assert_true(follower->rows_count < PROTO_STAGE_WINDOW);
    assert_int_equal(message.position, follower->tokens);
    assert_int_equal(message.checksum, hash_xxh3(message.rows, message.size));
    follower->tokens += (uint32_t)(message.size / row);
    follower->rows[follower->rows_count++] = call;
}

static bool window_full(void *ctx)
{
    return ((struct follower *)ctx)->rows_count == PROTO_STAGE_WINDOW;
}

static void follower_start(struct follower *follower)
{
    struct errmsg err = { "" };
    const struct rpc_server_options options = { .address = "127.0.0.1:0", .name = "follower" };

    *follower = (struct follower){ 0 };
    assert_int_equal(rpc_server_create(world.env, &options, &follower->server, &err), STATUS_OK);
    rpc_server_add(follower->server, PROTO_STAGE_RUN, "run", on_follower_run, follower);
    rpc_server_add(follower->server, PROTO_STAGE_ROWS, "rows", on_follower_rows, follower);
    snprintf(follower->node.address, sizeof(follower->node.address), "127.0.0.1:%u",
             rpc_server_port(follower->server));
}

/* Stage 0 computes no further than the window, so nothing piles up; an answer lets it go on; and
 * what makes no sense ends the attempt. */
static void a_slow_stage_is_waited_for(void **state)
{
    static struct request request;
    static struct follower follower;
    const struct proto_item nonsense = { .kind = PROTO_ITEM_FIRST_TOKEN,
                                         .token = { .index = 5, .token = 1 } };
    struct buf body;

    (void)state;
    nodes_start();
    follower_start(&follower);
    request_init(&request, 900, 4);
    choose(&request, 2);
    request.helpers[0] = &follower.node;
    attempt_start(&request);
    turn_until(window_full, &follower, 20000);
    turn_for(50);
    assert_true(follower.tokens < 900 / 2); /* on_follower_rows() would not take more */
    follower.rows_count = 0;
    const uint32_t before = follower.tokens;
    for (int i = 0; i < PROTO_STAGE_WINDOW; i++)
        rpc_reply(follower.rows[i], NULL, 0);
    turn_until(window_full, &follower, 20000);
    assert_true(follower.tokens > before);
    assert_false(request.over);
    buf_init(&body, 4096);
    assert_int_equal(proto_item_encode(&nonsense, &body), STATUS_OK);
    assert_int_equal(rpc_send(follower.run, buf_data(&body), body.len), STATUS_OK);
    turn_until(request_over, &request, 20000);
    assert_int_equal(request.cause, PROTO_CAUSE_STAGE);
    for (uint32_t i = 0; i < follower.rows_count; i++)
        rpc_fail(follower.rows[i], STATUS_CANCELLED, NULL);
    rpc_fail(follower.run, STATUS_CANCELLED, NULL);
    buf_fini(&body);
    nodes_stop();
    rpc_server_destroy(follower.server);
    env_poll(world.env, 0);
}

static void groups_are_cancelled_at_any_time(void **state)
{
    enum { COUNT = 24 };
    static struct request request;

    (void)state;
    nodes_start();
    for (uint32_t i = 0; i < COUNT; i++) {
        request_init(&request, 600, 4);
        choose(&request, 2 + i % 2);
        attempt_start(&request);
        turn_for(rng_below(&world.rng, 20));
        if (request.p_running) rpc_cancel(request.p->client, request.p_call);
        if (request.d_running && i % 3 == 0) rpc_cancel(request.d->client, request.d_call);
        turn_until(request_over, &request, 20000);
    }
    nodes_stop(); /* every page came back */
}

/* ---- a stage that lies: the test is stage 0 ---- */

/* Node 1 is the other stage. */
static void start_follower(struct request *request, const struct proto_opened *opened)
{
    static uint32_t tokens[TOKENS_MAX];
    static struct block_key keys[TOKENS_MAX];
    struct buf inner, body;
    struct proto_prefill_run run = { .sequence = sequence_of(request, tokens, keys) };
    struct proto_stage_run stage = { .stage = 1, .stages = 2 };

    snprintf(run.target.rpc_address, sizeof(run.target.rpc_address), "%s", request->d->address);
    snprintf(run.target.segment, sizeof(run.target.segment), "%s", opened->segment);
    run.target.addresses = opened->addresses;
    run.target.epoch = opened->epoch;
    snprintf(stage.addresses[0], sizeof(stage.addresses[0]), "127.0.0.1:1");
    snprintf(stage.addresses[1], sizeof(stage.addresses[1]), "%s", nodes[1].address);
    buf_init(&inner, 1 << 20);
    buf_init(&body, 1 << 20);
    assert_int_equal(proto_prefill_run_encode(&run, &inner), STATUS_OK);
    stage.run = buf_data(&inner);
    stage.run_len = inner.len;
    assert_int_equal(proto_stage_run_encode(&stage, &body), STATUS_OK);
    const struct rpc_request call = { .method = PROTO_STAGE_RUN,
                                      .body = buf_data(&body),
                                      .len = body.len,
                                      .deadline_ns = ENV_NEVER,
                                      .on_item = on_p_item,
                                      .on_end = on_p_end,
                                      .ctx = request };
    request->p = &nodes[1];
    request->p_running = true;
    assert_int_equal(rpc_call(nodes[1].client, &call, &request->p_call), STATUS_OK);
    buf_fini(&inner);
    buf_fini(&body);
}

static void on_opened_item(void *ctx, const uint8_t *body, size_t len)
{
    struct request *request = ctx;
    struct proto_item item;

    assert_int_equal(proto_item_decode(body, len, &item), STATUS_OK);
    if (item.kind == PROTO_ITEM_FAILED) request->cause = item.failed.cause;
    if (item.kind != PROTO_ITEM_OPENED) return;
    request->opened = true;
    start_follower(request, &item.opened);
}

static void open_at_d(struct request *request)
{
    static uint32_t tokens[TOKENS_MAX];
    static struct block_key keys[TOKENS_MAX];
    const struct proto_decode_open open = { .sequence = sequence_of(request, tokens, keys),
                                            .max_tokens = request->max_tokens };

    request->d = &nodes[NODES - 1];
    send_open(request, &open, on_opened_item);
    turn_until(is_set, &request->opened, 20000);
}

struct lie {
    uint32_t position, rows;
    uint32_t attempt;
    size_t extra; /* bytes */
    bool wrong_sum;
};

/* What the follower says to rows; STATUS_PENDING if it takes them and has not computed them. */
static enum status pass(const struct request *request, const struct lie *lie)
{
    static float rows[600 * 64];
    const uint32_t width = backend_hidden_size(world.model, world.timed);
    const size_t size = lie->rows * width * sizeof(float) + lie->extra;
    const struct proto_stage_rows message = { .request_id = request->id,
                                              .attempt = lie->attempt,
                                              .position = lie->position,
                                              .checksum = hash_xxh3(rows, size) + lie->wrong_sum,
                                              .rows = (const uint8_t *)rows,
                                              .size = size };
    struct buf body;

    assert_true(size <= sizeof(rows));
    buf_init(&body, 1 << 20);
    assert_int_equal(proto_stage_rows_encode(&message, &body), STATUS_OK);
    const enum status status = call_and_wait(&nodes[1], PROTO_STAGE_ROWS, &body);
    buf_fini(&body);
    return status;
}

static enum status send_sums(const struct request *request, uint32_t layers, uint32_t count)
{
    static const uint64_t sums[TOKENS_MAX];
    const struct proto_stage_sums message = { .request_id = request->id,
                                              .attempt = request->attempt,
                                              .layers = layers,
                                              .sums = proto_u64s_of(sums, count) };
    struct buf body;

    buf_init(&body, 1 << 20);
    assert_int_equal(proto_stage_sums_encode(&message, &body), STATUS_OK);
    const enum status status = call_and_wait(&nodes[1], PROTO_STAGE_SUMS, &body);
    buf_fini(&body);
    return status;
}

/* Each lie is refused and changes nothing; and what fits, but is not what a model computed, never
 * becomes an answer: d looks at the checksums. */
static void lies_are_refused(void **state)
{
    static struct request request;

    (void)state;
    nodes_start();
    request_init(&request, 80, 4);
    request.attempt = 1;
    open_at_d(&request);
    turn_for(20); /* the follower has been started */
    const struct lie lies[] = {
        { 16, 32, 1, 0, false }, /* not the next */
        { 0, 0, 1, 0, false },   /* none */
        { 0, 31, 1, 0, false },  /* no boundary */
        { 0, 96, 1, 0, false },  /* beyond the prompt */
        { 0, 32, 1, 2, false },  /* half a number more */
        { 0, 32, 1, 0, true },   /* not what was sent */
        { 0, 600, 1, 0, false }, /* more than a step has */
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++)
        assert_int_equal(pass(&request, &lies[i]), STATUS_INVALID);
    assert_int_equal(pass(&request, &(struct lie){ 0, 32, 2, 0, false }), STATUS_STALE);
    assert_int_equal(send_sums(&request, 1, 5), STATUS_INVALID);
    assert_int_equal(send_sums(&request, 2, 9), STATUS_INVALID);
    assert_int_equal(pass(&request, &(struct lie){ 0, 64, 1, 0, false }), STATUS_OK);
    assert_int_equal(pass(&request, &(struct lie){ 0, 64, 1, 0, false }), STATUS_INVALID);
    assert_int_equal(pass(&request, &(struct lie){ 64, 16, 1, 0, false }), STATUS_OK);
    assert_int_equal(send_sums(&request, 2, 10), STATUS_OK); /* of layers that nobody wrote */
    turn_until(request_over, &request, 20000);
    assert_int_equal(request.cause, PROTO_CAUSE_PUSH);
    assert_int_equal(request.answer_count, 0);
    assert_int_equal(send_sums(&request, 2, 10), STATUS_STALE);
    nodes_stop();
}

static void nonsense_is_refused(void **state)
{
    static struct request request;
    struct buf body;

    (void)state;
    nodes_start();
    buf_init(&body, 4096);
    assert_int_equal(buf_append_text(&body, "garbage"), STATUS_OK);
    for (int method = PROTO_STAGE_RUN; method <= PROTO_STAGE_SUMS; method++) {
        assert_int_equal(call_and_wait(&nodes[0], (enum proto_method)method, &body),
                         STATUS_INVALID);
    }
    buf_fini(&body);
    request_init(&request, 100, 4);
    choose(&request, 2);
    request.helpers[0] = &nodes[0]; /* the same node twice */
    attempt_start(&request);
    turn_until(request_over, &request, 20000);
    assert_int_equal(request.cause, PROTO_CAUSE_INVALID);

    /* More stages than layers is no nonsense of the request's: one node can do it. */
    static struct node strangers[4] = {
        { .address = "h:1" }, { .address = "h:2" }, { .address = "h:3" }, { .address = "h:4" }
    };
    request_init(&request, 100, 4);
    choose(&request, 1);
    for (uint32_t i = 0; i < 4; i++)
        request.helpers[i] = &strangers[i];
    request.helpers_count = 4;
    attempt_start(&request);
    turn_until(request_over, &request, 20000);
    assert_int_equal(request.cause, PROTO_CAUSE_STAGE);
    request.helpers_count = 0;
    attempt_start(&request);
    turn_until(request_over, &request, 20000);
    expect_same_as_alone(&request);
    nodes_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_answer_as_one),
        cmocka_unit_test(what_a_group_computed_is_reused),
        cmocka_unit_test(a_holder_without_blocks_costs_one_attempt),
        cmocka_unit_test(groups_and_others_at_once),
        cmocka_unit_test(a_dead_stage_ends_the_attempt),
        cmocka_unit_test(a_slow_stage_is_waited_for),
        cmocka_unit_test(groups_are_cancelled_at_any_time),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(nonsense_is_refused),
    };
    const char *level = getenv("YOLK_LOG");
    if (log_configure(level != NULL ? level : "error", NULL) != STATUS_OK) return 1;
    const int failed = cmocka_run_group_tests_name("computing", tests, set_up, tear_down);
    return failed + cmocka_run_group_tests_name("timed", tests, set_up_timed, tear_down);
}
