/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/worker_world.h - a world for tests of workers: a tiny random model, real workers on real
 * sockets in one loop, a scripted gateway that speaks serve/proto.h, and serve/solo.h as the
 * yardstick of what the answers have to be. With world.timed set, everything is done with the timed
 * engine. Include cmocka first. */
#ifndef TESTS_WORKER_WORLD_H
#define TESTS_WORKER_WORLD_H

#include "serve/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"
#include "base/rng.h"
#include "conductor/keys.h"
#include "infer/backend.h"
#include "infer/timed.h"
#include "model/model.h"
#include "net/rpc.h"
#include "seed.h"
#include "serve/proto_stage.h"
#include "serve/solo.h"
#include "tiny_model.h"

enum {
    TOKENS_MAX = 1024,
    WORLD_ROW_MAX = 6, /* two pairs */
    BLOCK = 16,
    CONTEXT = 1024,
    STOP_TOKEN = 77,
    TRIES_MAX = 50,
};

/* ---- the world: a model, a loop, the yardstick ---- */

struct world {
    struct gguf_maker maker;
    struct model *model;
    struct env *env;
    struct solo *solo;
    struct rng rng;
    uint64_t next_request;
    const struct timed_options *timed; /* NULL: compute */
};

static struct world world;

/* Slow enough to be killed in the middle of an answer. */
static const struct timed_options timed = {
    .profile = { .prefill_new_s = 1e-5, .decode_base_s = 5e-4, .speed = 1 },
};

/* The yardstick has the same content and takes no time. */
static const struct timed_options timed_at_once = { .profile.speed = 1 };

static inline bool is_stop(const void *ctx, uint32_t token)
{
    (void)ctx;
    return token == STOP_TOKEN;
}

static inline int set_up(void **state)
{
    (void)state;
    struct errmsg err = { "" };
    struct tiny_model_options options = tiny_model_defaults;
    options.n_layers = 4;
    options.matrix_type = MODEL_Q8_0;
    options.seed = 5;
    gguf_maker_init(&world.maker);
    tiny_model_make(&world.maker, &options);
    size_t size;
    const void *bytes = gguf_maker_finish(&world.maker, &size);
    assert_int_equal(model_parse(bytes, size, &world.model, &err), STATUS_OK);
    assert_int_equal(env_real_create(NULL, &world.env, &err), STATUS_OK);
    const struct solo_options solo = { .threads = 1,
                                       .block_tokens = BLOCK,
                                       .context_max = CONTEXT,
                                       .timed = world.timed != NULL ? &timed_at_once : NULL };
    assert_int_equal(solo_create(world.model, &solo, &world.solo, &err), STATUS_OK);
    rng_init(&world.rng, test_seed());
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    solo_destroy(world.solo);
    env_real_destroy(world.env);
    model_destroy(world.model);
    gguf_maker_fini(&world.maker);
    return 0;
}

static inline int set_up_timed(void **state)
{
    world.timed = &timed;
    return set_up(state);
}

static inline void turn_until(bool (*done)(void *ctx), void *ctx, uint64_t limit_ms)
{
    const uint64_t end_ns = env_now_ns(world.env) + limit_ms * ENV_NS_PER_MS;
    while (!done(ctx)) {
        assert_true(env_now_ns(world.env) < end_ns);
        env_poll(world.env, 10 * ENV_NS_PER_MS);
    }
}

static inline bool is_set(void *ctx)
{
    return *(bool *)ctx;
}

/* For some time, and some turns: a busy machine may give none in that time. */
static inline void turn_for(uint64_t ms)
{
    const uint64_t end_ns = env_now_ns(world.env) + ms * ENV_NS_PER_MS;
    for (int turns = 0; turns < 20 || env_now_ns(world.env) < end_ns; turns++)
        env_poll(world.env, ENV_NS_PER_MS);
}

/* ---- a node, and the scripted gateway's connection to it ---- */

struct node {
    struct worker *worker;
    struct rpc_client *client;
    char address[PROTO_ADDRESS_SIZE];
    bool ready;
};

static inline void on_ready(void *ctx, enum status status, const char *error)
{
    struct node *node = ctx;
    if (status != STATUS_OK) fail_msg("%s", error);
    node->ready = true;
}

struct node_choice {
    uint32_t pages; /* 0: 512 */
    bool no_reuse;
    bool forbid_shm;
    enum proto_role role; /* 0: prefill */
    const char *master;   /* NULL: none */
    uint32_t fetch_quiet_ms;
};

static inline void node_start(struct node *node, const char *name, const struct node_choice *choice)
{
    struct errmsg err = { "" };
    const struct worker_options options = {
        .name = name,
        .role = choice->role == 0 ? PROTO_ROLE_PREFILL : choice->role,
        .master = choice->master,
        .model = world.model,
        .pool_size = (choice->pages == 0 ? 512 : choice->pages) * UINT64_C(4096),
        .threads = 1,
        .block_tokens = BLOCK,
        .context_max = CONTEXT,
        .timed = world.timed,
        .sequences_max = 64,
        .decode_max = 16,
        .rows_max = 64,
        .lease_ms = 1000, /* no slow machine overruns it */
        .fetch_quiet_ms = choice->fetch_quiet_ms,
        .no_reuse = choice->no_reuse,
        .forbid_shm = choice->forbid_shm,
        .is_end = is_stop,
        .on_ready = on_ready,
        .ctx = node,
    };
    *node = (struct node){ 0 };
    if (worker_create(world.env, &options, &node->worker, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    snprintf(node->address, sizeof(node->address), "%s", worker_address(node->worker));
    const struct rpc_client_options client = { .address = node->address, .name = "gateway" };
    assert_int_equal(rpc_client_create(world.env, &client, &node->client, &err), STATUS_OK);
    turn_until(is_set, &node->ready, 20000);
}

/* Nothing is running, and every page is free or cached: nothing leaked. */
static inline bool node_is_quiet(void *ctx)
{
    const struct node *node = ctx;
    struct proto_node_status status;
    worker_status(node->worker, &status);
    return status.running == 0 && status.queued == 0 &&
           status.pages_free + status.pages_cached == status.pages_total;
}

static inline void node_stop(struct node *node)
{
    if (node->worker != NULL) {
        turn_until(node_is_quiet, node, 60000);
        worker_destroy(node->worker);
    }
    rpc_client_destroy(node->client);
    env_poll(world.env, 0);
    *node = (struct node){ 0 };
}

/* As a killed process looks to the others: gone. */
static inline void node_kill(struct node *node)
{
    worker_destroy(node->worker);
    node->worker = NULL;
    env_poll(world.env, 0);
}

/* ---- an answer to a call ---- */

struct reply {
    enum status status;
    bool ended;
    struct proto_node_copied copied; /* of a copy that was answered */
};

static inline void on_reply(void *ctx, const struct rpc_result *result)
{
    struct reply *reply = ctx;
    reply->status = result->status;
    if (result->status == STATUS_OK && result->len > 0) {
        (void)!proto_node_copied_decode(result->body, result->len, &reply->copied);
    }
    reply->ended = true;
}

/* ---- one request, as the gateway drives it ---- */

struct request {
    uint64_t id;
    uint32_t attempt;
    uint32_t prompt[TOKENS_MAX];
    uint32_t prompt_count;
    uint32_t max_tokens;
    struct sampling sampling;
    uint32_t logprobs; /* as in proto_sampling */
    uint32_t scores;   /* likewise */
    bool ignore_eos;
    uint32_t reuse_blocks;
    const char *holder;
    struct proto_limits limits;
    bool computes; /* d does, and there is no p */
    struct node *p;
    struct node *helpers[PROTO_STAGES_MAX]; /* with p, the first, a group */
    uint32_t helpers_count;
    struct node *d;

    /* What came. */
    uint32_t answer[TOKENS_MAX];
    uint32_t rows[TOKENS_MAX][WORLD_ROW_MAX]; /* of probabilities, where they are wanted */
    uint32_t answer_count;
    uint32_t scores_of[TOKENS_MAX][WORLD_ROW_MAX]; /* rows of the prompt from its second token on */
    uint32_t scored;
    bool p_said; /* the first token of the present attempt, or of one before */
    uint32_t p_index, p_token, p_row[WORLD_ROW_MAX];
    uint32_t generated_before; /* of the present attempt */
    bool opened;
    uint32_t push_from;
    bool p_running, d_running;
    struct rpc_call_id p_call, d_call;
    enum status p_status, d_status;
    bool finished;
    enum proto_finish_reason reason;
    uint32_t generated;
    bool prefill_done;
    struct proto_prefill_done done;
    enum proto_cause cause; /* of the last failure; 0 for none */
    enum proto_miss miss;   /* likewise */
    uint32_t failures;
    uint64_t lied_epoch;
    bool over; /* finished, or both calls have ended */
};

static inline struct block_key test_root(void)
{
    const struct backend_options options = { .engine = { .block_tokens = BLOCK },
                                             .timed = world.timed };
    struct engine_layout layout;
    struct conductor_key_identity identity = { .block_tokens = BLOCK,
                                               .element = CONDUCTOR_ELEMENT_F16 };
    assert_int_equal(backend_layout_query(world.model, &options, &layout, NULL), STATUS_OK);
    worker_fingerprint(world.model, &layout, identity.fingerprint);
    return conductor_key_root(&identity);
}

/* tokens and keys are the caller's and must be as large as TOKENS_MAX allows. */
static inline struct proto_sequence sequence_of(const struct request *request, uint32_t *tokens,
                                                struct block_key *keys)
{
    const struct block_key root = test_root();
    const uint32_t count = request->prompt_count + request->generated_before;
    memcpy(tokens, request->prompt, request->prompt_count * sizeof(*tokens));
    memcpy(tokens + request->prompt_count, request->answer,
           request->generated_before * sizeof(*tokens));
    struct proto_sequence sequence = {
        .request_id = request->id,
        .attempt = request->attempt,
        .tokens = proto_u32s_of(tokens, count),
        .keys = keys,
        .keys_count = (uint32_t)conductor_keys(&root, tokens, count, BLOCK, keys),
        .sampling = { .temperature = (double)request->sampling.temperature,
                      .top_p = (double)request->sampling.top_p,
                      .seed = request->sampling.seed,
                      .min_p = (double)request->sampling.min_p,
                      .repetition = (double)request->sampling.repetition,
                      .frequency = (double)request->sampling.frequency,
                      .presence = (double)request->sampling.presence,
                      .top_k = request->sampling.top_k,
                      .bias_tokens = proto_u32s_of(request->sampling.bias_tokens,
                                                   request->sampling.biases_count),
                      .biases =
                          proto_u32s_of((const uint32_t *)(const void *)request->sampling.biases,
                                        request->sampling.biases_count),
                      .held = proto_u32s_of(request->sampling.held, request->sampling.held_count),
                      .held_until = (uint32_t)request->sampling.held_until,
                      .logprobs = request->logprobs,
                      .scores = request->scores },
        .generated_before = request->generated_before,
        .plan.reuse_blocks = request->reuse_blocks,
    };
    if (sequence.plan.reuse_blocks > sequence.keys_count) {
        sequence.plan.reuse_blocks = sequence.keys_count;
    }
    if (request->holder != NULL) {
        snprintf(sequence.plan.holder, sizeof(sequence.plan.holder), "%s", request->holder);
    }
    return sequence;
}

/* As many pairs as were asked for, of certain tokens at most one. */
static inline void check_row(const struct request *request, const struct proto_token *token)
{
    const uint32_t most = 2 * request->logprobs;

    assert_true(most <= WORLD_ROW_MAX);
    if (request->logprobs < 2) {
        assert_int_equal(token->row.count, most);
        return;
    }
    assert_true(token->row.count == most || token->row.count == 4);
}

/* What arrives twice must be equal, to the last bit; nothing may be left out. */
static inline void take_token(struct request *request, const struct proto_token *token)
{
    uint32_t row[WORLD_ROW_MAX] = { 0 };

    assert_true(token->index <= request->answer_count);
    check_row(request, token);
    proto_u32s_copy(token->row, row);
    if (request->p_said && token->index == request->p_index) {
        assert_int_equal(token->token, request->p_token);
        assert_memory_equal(request->p_row, row, sizeof(row));
    }
    if (token->index < request->answer_count) {
        assert_int_equal(request->answer[token->index], token->token);
        assert_memory_equal(request->rows[token->index], row, sizeof(row));
        return;
    }
    memcpy(request->rows[request->answer_count], row, sizeof(row));
    request->answer[request->answer_count++] = token->token;
}

/* One behind the other, before a token is said. */
static inline void take_scores(struct request *request, const struct proto_scores *scores)
{
    const uint32_t length = scores->rows.count / scores->count;

    assert_true(request->scores > 0 && request->answer_count == 0);
    assert_int_equal(scores->first, request->scored + 1);
    assert_true(length == 2 * request->scores || length == 4); /* as check_row() */
    assert_true(request->scored + scores->count < request->prompt_count);
    for (uint32_t i = 0; i < scores->count; i++) {
        for (uint32_t k = 0; k < length; k++)
            request->scores_of[request->scored][k] = proto_u32_at(scores->rows, i * length + k);
        request->scored++;
    }
}

/* d will say the same. */
static inline void note_first(struct request *request, const struct proto_token *token)
{
    check_row(request, token);
    request->p_said = true;
    request->p_index = token->index;
    request->p_token = token->token;
    memset(request->p_row, 0, sizeof(request->p_row));
    proto_u32s_copy(token->row, request->p_row);
}

static inline void note_failed(struct request *request, const struct proto_failed *failed)
{
    request->cause = failed->cause;
    request->miss = failed->miss;
}

static inline void on_p_item(void *ctx, const uint8_t *body, size_t len)
{
    struct request *request = ctx;
    struct proto_item item;
    assert_int_equal(proto_item_decode(body, len, &item), STATUS_OK);
    if (item.kind == PROTO_ITEM_FAILED) note_failed(request, &item.failed);
    if (item.kind == PROTO_ITEM_SCORES) take_scores(request, &item.scores);
    if (item.kind == PROTO_ITEM_FIRST_TOKEN) note_first(request, &item.token);
    if (item.kind != PROTO_ITEM_PREFILL_DONE) return;
    request->prefill_done = true;
    request->done = item.prefill_done;
}

static inline void check_over(struct request *request)
{
    if (!request->p_running && !request->d_running) request->over = true;
}

static inline void on_p_end(void *ctx, const struct rpc_result *result)
{
    struct request *request = ctx;
    request->p_running = false;
    request->p_status = result->status;
    if (result->status != STATUS_OK && request->d_running) {
        rpc_cancel(request->d->client, request->d_call);
    }
    check_over(request);
}

/* Puts what the whole group is to do into what its first stage is to do. */
static inline void wrap_for_group(const struct request *request, struct buf *body)
{
    struct proto_stage_run run = { .stages = 1 + request->helpers_count };
    struct buf inner = *body;

    snprintf(run.addresses[0], sizeof(run.addresses[0]), "%s", request->p->address);
    for (uint32_t i = 0; i < request->helpers_count; i++) {
        snprintf(run.addresses[1 + i], sizeof(run.addresses[0]), "%s",
                 request->helpers[i]->address);
    }
    run.run = buf_data(&inner);
    run.run_len = inner.len;
    buf_init(body, 1 << 20);
    assert_int_equal(proto_stage_run_encode(&run, body), STATUS_OK);
    buf_fini(&inner);
}

static inline void start_prefill(struct request *request, const struct proto_opened *opened)
{
    static uint32_t tokens[TOKENS_MAX];
    static struct block_key keys[TOKENS_MAX];
    struct buf body;
    struct proto_prefill_run run = { .sequence = sequence_of(request, tokens, keys) };
    snprintf(run.target.rpc_address, sizeof(run.target.rpc_address), "%s", request->d->address);
    snprintf(run.target.segment, sizeof(run.target.segment), "%s", opened->segment);
    run.target.addresses = opened->addresses;
    run.target.epoch = opened->epoch;
    run.target.push_from = opened->push_from;
    buf_init(&body, 1 << 20);
    assert_int_equal(proto_prefill_run_encode(&run, &body), STATUS_OK);
    const bool group = request->helpers_count > 0;
    if (group) wrap_for_group(request, &body);
    const struct rpc_request call = { .method = group ? PROTO_STAGE_RUN : PROTO_PREFILL_RUN,
                                      .body = buf_data(&body),
                                      .len = body.len,
                                      .deadline_ns = ENV_NEVER,
                                      .on_item = on_p_item,
                                      .on_end = on_p_end,
                                      .ctx = request };
    request->p_running = true;
    assert_int_equal(rpc_call(request->p->client, &call, &request->p_call), STATUS_OK);
    buf_fini(&body);
}

static inline void on_d_item(void *ctx, const uint8_t *body, size_t len)
{
    struct request *request = ctx;
    struct proto_item item;
    assert_int_equal(proto_item_decode(body, len, &item), STATUS_OK);
    switch (item.kind) {
    case PROTO_ITEM_OPENED:
        assert_false(request->opened);
        request->opened = true;
        request->push_from = item.opened.push_from;
        if (!request->computes) start_prefill(request, &item.opened);
        return;
    case PROTO_ITEM_TOKEN: take_token(request, &item.token); return;
    case PROTO_ITEM_FINISH:
        request->finished = true;
        request->reason = item.finish.reason;
        request->generated = item.finish.generated;
        return;
    case PROTO_ITEM_FAILED: note_failed(request, &item.failed); return;
    case PROTO_ITEM_PREFILL_DONE:
        assert_true(request->computes && request->answer_count == request->generated_before);
        request->prefill_done = true;
        request->done = item.prefill_done;
        return;
    case PROTO_ITEM_SCORES:
        assert_true(request->computes);
        take_scores(request, &item.scores);
        return;
    case PROTO_ITEM_FIRST_TOKEN: fail();
    }
}

static inline void on_d_end(void *ctx, const struct rpc_result *result)
{
    struct request *request = ctx;
    request->d_running = false;
    request->d_status = result->status;
    if (result->status != STATUS_OK && request->p_running) {
        rpc_cancel(request->p->client, request->p_call);
    }
    check_over(request);
}

static inline void send_open(struct request *request, const struct proto_decode_open *open,
                             void (*on_item)(void *ctx, const uint8_t *body, size_t len))
{
    struct buf body;

    buf_init(&body, 1 << 20);
    assert_int_equal(proto_decode_open_encode(open, &body), STATUS_OK);
    const struct rpc_request call = { .method = PROTO_DECODE_OPEN,
                                      .body = buf_data(&body),
                                      .len = body.len,
                                      .deadline_ns = ENV_NEVER,
                                      .on_item = on_item,
                                      .on_end = on_d_end,
                                      .ctx = request };
    request->d_running = true;
    assert_int_equal(rpc_call(request->d->client, &call, &request->d_call), STATUS_OK);
    buf_fini(&body);
}

static inline void attempt_start(struct request *request)
{
    static uint32_t tokens[TOKENS_MAX];
    static struct block_key keys[TOKENS_MAX];
    request->attempt++;
    request->generated_before = request->answer_count;
    request->opened = request->prefill_done = request->over = false;
    request->cause = 0;
    request->miss = PROTO_MISS_NONE;
    const struct proto_decode_open open = { .sequence = sequence_of(request, tokens, keys),
                                            .max_tokens = request->max_tokens,
                                            .ignore_eos = request->ignore_eos,
                                            .limits = request->limits,
                                            .computes = request->computes };
    send_open(request, &open, on_d_item);
}

static inline void request_init(struct request *request, uint32_t prompt_count, uint32_t max_tokens)
{
    memset(request, 0, sizeof(*request));
    request->id = ++world.next_request;
    request->prompt_count = prompt_count;
    request->max_tokens = max_tokens;
    request->ignore_eos = true;
    request->sampling = (struct sampling){ .temperature = 0, .top_p = 1 };
    for (uint32_t i = 0; i < prompt_count; i++) {
        request->prompt[i] = (uint32_t)rng_below(&world.rng, TINY_VOCAB);
    }
}

static inline bool request_over(void *ctx)
{
    return ((struct request *)ctx)->over;
}

static inline void run(struct request *request, struct node *p, struct node *d)
{
    request->p = p;
    request->d = d;
    request->p_said = false;
    request->logprobs = (uint32_t)request->id % 4;
    attempt_start(request);
    turn_until(request_over, request, 60000);
}

/* ---- the yardstick ---- */

struct alone {
    uint32_t tokens[TOKENS_MAX];
    uint32_t count;
    enum solo_end end;
};

static inline bool on_alone_token(void *ctx, uint32_t token)
{
    struct alone *alone = ctx;
    alone->tokens[alone->count++] = token;
    return true;
}

static inline void expect_same_as_alone(const struct request *request)
{
    static struct alone alone;
    const struct solo_request solo = { .tokens = request->prompt,
                                       .tokens_count = request->prompt_count,
                                       .max_tokens = request->max_tokens,
                                       .sampling = request->sampling,
                                       .on_token = on_alone_token,
                                       .is_end = request->ignore_eos ? NULL : is_stop,
                                       .ctx = &alone };
    alone.count = 0;
    assert_int_equal(solo_generate(world.solo, &solo, &alone.end), STATUS_OK);
    if (!request->finished) fail_msg("not finished: cause %d", (int)request->cause);
    assert_int_equal(request->answer_count, alone.count);
    assert_int_equal(request->generated, alone.count);
    assert_memory_equal(request->answer, alone.tokens, alone.count * sizeof(uint32_t));
    assert_int_equal(request->reason == PROTO_FINISH_STOP, alone.end == SOLO_STOP);
}

static inline enum status call_and_wait(struct node *node, enum proto_method method,
                                        const struct buf *body)
{
    struct reply reply = { 0 };
    struct rpc_call_id id;
    const struct rpc_request call = { .method = (uint16_t)method,
                                      .body = buf_data(body),
                                      .len = body->len,
                                      .deadline_ns = ENV_NEVER,
                                      .on_end = on_reply,
                                      .ctx = &reply };
    assert_int_equal(rpc_call(node->client, &call, &id), STATUS_OK);
    turn_until(is_set, &reply.ended, 20000);
    return reply.status;
}

#endif
