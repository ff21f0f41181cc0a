/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/gateway_world.h - a simulated world for tests of the gateway: a real gateway, a master, and
 * nodes that speak serve/proto.h and whose model is a hash: the next letter follows from the tokens
 * before it, so the right answer is known to the test. Nodes can be killed, hung and brought back;
 * time is virtual. Include cmocka first. */
#ifndef TESTS_GATEWAY_WORLD_H
#define TESTS_GATEWAY_WORLD_H

#include "serve/gateway.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/env_sim.h"
#include "base/hash.h"
#include "base/log.h"
#include "conductor/keys.h"
#include "net/http_client.h"
#include "net/rpc.h"
#include "seed.h"
#include "serve/api_json.h"
#include "serve/proto.h"
#include "store/proto.h"
#include "tiny_model.h"

enum {
    FAKES = 4,
    BLOCK = 16,
    PAGE = 4096,
    STEP_MS = 5,
    PREFILL_MS = 20,
    STREAM_TOKENS_MAX = 4096,
    EOS = 1,
    LETTER_A = 2 + 'a', /* of the tiny vocabulary */
};

static const char SECRET[] = "secret";
static const char GATEWAY_ADDRESS[] = "10.0.0.1:8000";

/* ---- the model ---- */

static inline uint32_t next_token(const uint32_t *tokens, uint32_t count)
{
    return LETTER_A + (uint32_t)(hash_xxh3(tokens, count * sizeof(*tokens)) % 26);
}

/* ---- nodes ---- */

struct fake;

/* One decode.open or prefill.run at a node. */
struct work {
    struct work *next;
    struct fake *node;
    struct rpc_call *call;
    struct env_timer timer;
    bool prefill;
    bool waits; /* at the door */
    bool over;
    uint64_t request_id;
    uint32_t attempt;
    uint32_t tokens[STREAM_TOKENS_MAX];
    uint32_t count, prompt, max_tokens, eos_after;
    uint32_t logprobs, scores; /* as asked for */
    uint32_t row[4];
};

struct fake {
    struct env *env;
    struct rpc_server *server;
    enum proto_role role;
    char name[16], address[32];
    uint64_t epoch;
    bool alive;
    struct work *works;
    uint32_t opened, cancelled; /* calls to decode.open; cancels of any call */
    uint32_t computed;          /* prompts, as a decode node */
    uint32_t runs;              /* prompts, as a prefill node */
    enum proto_cause fail_next; /* 0: none */
    uint32_t eos_after;         /* tokens after which an answer ends by itself; 0: never */
    bool keeps_role;            /* refuses node.role */
    uint32_t loses_scores;      /* of so many prompts */
    uint32_t scored;            /* prompts */
    uint32_t skips_scores;      /* of so many prompts, one of them */
    bool shut;                  /* nobody comes in by its door */
    uint64_t later_us;          /* of the latest prompt */
    uint32_t copied, dropped;   /* blocks that it was told to copy, and to give up */
    enum { FINDS_ONE, FINDS_NONE, FINDS_ALL } finds; /* blocks of a prompt, cached */
    struct rpc_call *events;                         /* who listens to what it holds */
    struct rpc_call *watcher;                        /* who wants to hear that it leaves */
    bool leaving, suspect;
    enum {
        FITS,
        ODD_ISA,
        ODD_MODEL,
        ODD_VOCAB,
        ODD_BLOCKS,
        ODD_KV
    } odd;                                            /* what it says that it is */
    char refused[PROTO_TEXT_SIZE];                    /* why it gets no work */
    struct block_key keys[STREAM_TOKENS_MAX / BLOCK]; /* of the latest prompt */
    uint32_t keys_count;
};

struct world {
    struct env_sim *sim;
    struct env *gateway_env, *master_env, *client_env;
    struct gateway *gateway;
    struct rpc_server *master;
    struct rpc_call *watch;
    struct fake fakes[FAKES];
    struct gguf_maker maker;
    uint8_t *model;
    size_t model_size;
};

static struct world world;

static inline void send_item(struct work *work, const struct proto_item *item)
{
    struct buf buf;

    buf_init(&buf, 1 << 20);
    assert_int_equal(proto_item_encode(item, &buf), STATUS_OK);
    const enum status status = rpc_send(work->call, buf_data(&buf), buf.len);
    assert_true(status == STATUS_OK || status == STATUS_CANCELLED);
    buf_fini(&buf);
}

static inline void work_end(struct work *work, enum status status)
{
    if (work->over) return;
    work->over = true;
    env_timer_cancel(work->node->env, &work->timer);
    if (status == STATUS_OK) {
        rpc_reply(work->call, "", 0);
    } else {
        rpc_fail(work->call, status, NULL);
    }
}

static inline void on_cancel(void *ctx, enum status why)
{
    struct work *work = ctx;
    (void)why;
    work->node->cancelled++;
    work_end(work, STATUS_CANCELLED);
}

static inline void finish(struct work *work, enum proto_finish_reason reason)
{
    const struct proto_item item = {
        .kind = PROTO_ITEM_FINISH,
        .finish = { .reason = reason,
                    .generated = work->count - work->prompt,
                    .steps = 1,
                    .times = { .compute_us = 5000, .total_us = 5000 } },
    };
    send_item(work, &item);
    work_end(work, STATUS_OK);
}

/* Token number `index` had the log probability -index / 8, and 'z' was likeliest, surely. */
static inline struct proto_u32s row_of(struct work *work, uint32_t index, uint32_t wanted)
{
    const float value = index == 0 ? 0 : (float)index / -8;

    memcpy(&work->row[0], &value, sizeof(value));
    work->row[1] = index + 1;
    work->row[2] = LETTER_A + 25;
    work->row[3] = 0;
    return proto_u32s_of(work->row, wanted > 1 ? 4 : 2 * wanted);
}

static inline void on_step(void *ctx)
{
    struct work *work = ctx;
    const uint32_t index = work->count - work->prompt;

    if (index == work->max_tokens) {
        finish(work, PROTO_FINISH_LENGTH);
        return;
    }
    if (work->eos_after > 0 && index >= work->eos_after) {
        finish(work, PROTO_FINISH_STOP);
        return;
    }
    const uint32_t token = next_token(work->tokens, work->count);
    const struct proto_item item = {
        .kind = PROTO_ITEM_TOKEN, .token = { index, token, row_of(work, index, work->logprobs) }
    };
    work->tokens[work->count++] = token;
    send_item(work, &item);
    env_timer_set(work->node->env, &work->timer,
                  env_now_ns(work->node->env) + STEP_MS * ENV_NS_PER_MS);
}

static inline void fail_work(struct work *work, enum proto_cause cause)
{
    struct proto_item item = { .kind = PROTO_ITEM_FAILED, .failed = { .cause = cause } };
    send_item(work, &item);
    work_end(work, STATUS_UNAVAILABLE);
}

static inline struct work *find_open(uint64_t request_id, uint32_t attempt)
{
    for (int i = 0; i < FAKES; i++) {
        if (!world.fakes[i].alive) continue;
        for (struct work *work = world.fakes[i].works; work != NULL; work = work->next) {
            if (work->over || work->prefill) continue;
            if (work->request_id == request_id && work->attempt == attempt) return work;
        }
    }
    return NULL;
}

/* Prompts have rows as answers do, token 1 that of number 1. */
static inline void send_scores(struct work *work)
{
    if (work->scores == 0) return;
    if (work->node->loses_scores > 0) {
        work->node->loses_scores--;
        return;
    }
    work->node->scored++;
    const uint32_t skipped = work->node->skips_scores > 0 ? 2 : 0;
    if (skipped > 0) work->node->skips_scores--;
    for (uint32_t i = 1; i < work->count; i++) {
        if (i == skipped) continue;
        const struct proto_item item = { .kind = PROTO_ITEM_SCORES,
                                         .scores = { i, 1, row_of(work, i, work->scores) } };
        send_item(work, &item);
    }
}

static inline void on_prefilled(void *ctx)
{
    struct work *work = ctx;
    struct work *open = find_open(work->request_id, work->attempt);
    const uint32_t index = work->count - work->prompt;
    const bool ends = work->eos_after > 0 && index >= work->eos_after;
    const uint32_t token = ends ? EOS : next_token(work->tokens, work->count);
    if (open != NULL) send_scores(work);
    const struct proto_item first = { .kind = PROTO_ITEM_FIRST_TOKEN,
                                      .token = { index, token,
                                                 row_of(work, index, work->logprobs) } };
    const uint32_t all = (work->count - 1) / BLOCK * BLOCK;
    const uint32_t found[] = { work->count > BLOCK ? BLOCK : 0, 0, all };
    const struct proto_item done = {
        .kind = PROTO_ITEM_PREFILL_DONE,
        .prefill_done = { .cached_tokens = found[work->node->finds],
                          .computed_tokens = work->count,
                          .times = { .compute_us = PREFILL_MS * 1000 } },
    };

    if (open == NULL) { /* d is gone: the push fails */
        fail_work(work, PROTO_CAUSE_PUSH);
        return;
    }
    send_item(work, &first);
    open->waits = open->node->shut;
    if (!open->waits) env_timer_set(open->node->env, &open->timer, env_now_ns(open->node->env));
    send_item(work, &done);
    work_end(work, STATUS_OK);
}

static inline void let_in(struct fake *node)
{
    node->shut = false;
    for (struct work *work = node->works; work != NULL; work = work->next) {
        if (work->over || !work->waits) continue;
        work->waits = false;
        env_timer_set(node->env, &work->timer, env_now_ns(node->env));
    }
}

static inline struct work *take(struct fake *node, struct rpc_call *call,
                                const struct proto_sequence *s)
{
    struct work *work = calloc(1, sizeof(*work));
    ASSERT(work != NULL && s->tokens.count < STREAM_TOKENS_MAX / 2);
    work->node = node;
    work->call = call;
    work->request_id = s->request_id;
    work->attempt = s->attempt;
    work->count = s->tokens.count;
    work->prompt = s->tokens.count - s->generated_before;
    work->eos_after = node->eos_after;
    work->logprobs = s->sampling.logprobs;
    work->scores = s->sampling.scores;
    proto_u32s_copy(s->tokens, work->tokens);
    assert_int_equal(s->keys_count, s->tokens.count / BLOCK);
    memcpy(node->keys, s->keys, s->keys_count * sizeof(*s->keys));
    node->keys_count = s->keys_count;
    work->next = node->works;
    node->works = work;
    rpc_on_cancel(call, on_cancel, work);
    return work;
}

/* The prompt that a decode node computes itself is done. */
static inline void on_computed(void *ctx)
{
    struct work *work = ctx;
    const struct proto_item done = {
        .kind = PROTO_ITEM_PREFILL_DONE,
        .prefill_done = { .computed_tokens = work->count,
                          .times = { .compute_us = PREFILL_MS * 1000 } },
    };
    work->node->computed++;
    send_scores(work);
    send_item(work, &done);
    env_timer_init(&work->timer, on_step, work);
    env_timer_set(work->node->env, &work->timer, env_now_ns(work->node->env));
}

static inline void on_open(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct fake *node = ctx;
    struct proto_decode_open message;
    uint64_t addresses[STREAM_TOKENS_MAX / BLOCK] = { 0 };

    assert_int_equal(proto_decode_open_decode(body, len, &message), STATUS_OK);
    struct work *work = take(node, call, &message.sequence);
    work->max_tokens = message.max_tokens;
    if (message.ignore_eos) work->eos_after = 0;
    env_timer_init(&work->timer, on_step, work);
    node->opened++;
    if (node->fail_next != 0) {
        fail_work(work, node->fail_next);
        node->fail_next = 0;
        return;
    }
    const struct proto_item item = {
        .kind = PROTO_ITEM_OPENED,
        .opened = { .epoch = node->epoch,
                    .segment = "segment",
                    .addresses = proto_u64s_of(addresses, (work->count + BLOCK - 1) / BLOCK) },
    };
    send_item(work, &item);
    if (!message.computes) return;
    env_timer_init(&work->timer, on_computed, work);
    env_timer_set(node->env, &work->timer, env_now_ns(node->env) + PREFILL_MS * ENV_NS_PER_MS);
}

static inline void on_run(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct fake *node = ctx;
    struct proto_prefill_run message;

    assert_int_equal(proto_prefill_run_decode(body, len, &message), STATUS_OK);
    node->runs++;
    struct work *work = take(node, call, &message.sequence);
    node->later_us = message.sequence.later_us;
    work->prefill = true;
    env_timer_init(&work->timer, on_prefilled, work);
    env_timer_set(node->env, &work->timer, env_now_ns(node->env) + PREFILL_MS * ENV_NS_PER_MS);
}

static inline void on_info(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    const struct fake *node = ctx;
    struct proto_node_info info = {
        .role = node->role,
        .model = "hash",
        .isa = "none",
        .block_tokens = BLOCK,
        .element = CONDUCTOR_ELEMENT_F16,
        .layers = 1,
        .layer_size = PAGE,
        .page_size = PAGE,
        .context_max = 1024,
        .vocab_count = TINY_VOCAB,
        .segment = "segment",
        .epoch = node->epoch,
    };
    struct buf buf;

    (void)body;
    (void)len;
    snprintf(info.name, sizeof(info.name), "%s", node->name);
    memset(info.fingerprint, 7, sizeof(info.fingerprint));
    switch (node->odd) {
    case FITS: break;
    case ODD_ISA: snprintf(info.isa, sizeof(info.isa), "abacus"); break;
    case ODD_MODEL:
        memset(info.fingerprint, 8, sizeof(info.fingerprint));
        snprintf(info.model, sizeof(info.model), "oracle");
        break;
    case ODD_VOCAB: info.vocab_count++; break;
    case ODD_BLOCKS: info.block_tokens *= 2; break;
    case ODD_KV: info.element = CONDUCTOR_ELEMENT_Q8_0; break;
    }
    buf_init(&buf, 4096);
    assert_int_equal(proto_node_info_encode(&info, &buf), STATUS_OK);
    rpc_reply(call, buf_data(&buf), buf.len);
    buf_fini(&buf);
}

static inline void on_role(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct fake *node = ctx;
    struct proto_node_role message;

    assert_int_equal(proto_node_role_decode(body, len, &message), STATUS_OK);
    if (node->keeps_role) {
        rpc_fail(call, STATUS_UNSUPPORTED, "no");
        return;
    }
    node->role = message.role;
    rpc_reply(call, "", 0);
}

static inline void on_node_status(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    const struct fake *node = ctx;
    const struct proto_node_status status = { .role = node->role };
    struct buf buf;

    (void)body;
    (void)len;
    buf_init(&buf, 4096);
    assert_int_equal(proto_node_status_encode(&status, &buf), STATUS_OK);
    rpc_reply(call, buf_data(&buf), buf.len);
    buf_fini(&buf);
}

static inline void on_events_cancel(void *ctx, enum status why)
{
    struct fake *node = ctx;
    rpc_fail(node->events, why, NULL);
    node->events = NULL;
}

static inline void tell_events(struct fake *node, unsigned flags, uint32_t count)
{
    struct store_event events[STREAM_TOKENS_MAX / BLOCK];
    struct buf buf;

    for (uint32_t i = 0; i < count; i++) {
        events[i] = (struct store_event){ .kind = STORE_EVENT_STORED,
                                          .class = STORE_CLASS_BLOCK,
                                          .id = node->keys[i],
                                          .generation = i + 1,
                                          .size = PAGE };
    }
    buf_init(&buf, 1 << 20);
    assert_int_equal(store_encode_events(&buf, node->epoch, flags, events, count), STATUS_OK);
    assert_int_equal(rpc_send(node->events, buf_data(&buf), buf.len), STATUS_OK);
    buf_fini(&buf);
}

static inline void on_events(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct fake *node = ctx;

    (void)body;
    (void)len;
    if (node->events != NULL) rpc_fail(node->events, STATUS_CANCELLED, NULL);
    node->events = call;
    rpc_on_cancel(call, on_events_cancel, node);
    tell_events(node, STORE_EVENTS_RESET | STORE_EVENTS_SYNCED, 0);
}

/* Makes the copy at once, and says that it has it. */
static inline void on_copy(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct fake *node = ctx;
    struct proto_node_blocks message;
    struct buf buf;

    assert_int_equal(proto_node_blocks_decode(body, len, &message), STATUS_OK);
    assert_true(message.holder[0] != '\0');
    const struct proto_node_copied reply = { 0, message.keys_count };
    memcpy(node->keys, message.keys, message.keys_count * sizeof(*message.keys));
    node->keys_count = message.keys_count;
    node->copied += message.keys_count;
    tell_events(node, 0, node->keys_count);
    buf_init(&buf, 64);
    assert_int_equal(proto_node_copied_encode(&reply, &buf), STATUS_OK);
    rpc_reply(call, buf_data(&buf), buf.len);
    buf_fini(&buf);
}

static inline void on_drop(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct fake *node = ctx;
    struct proto_node_blocks message;

    assert_int_equal(proto_node_blocks_decode(body, len, &message), STATUS_OK);
    node->dropped += message.keys_count;
    rpc_reply(call, NULL, 0);
}

static inline void on_refused(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct fake *node = ctx;
    struct proto_node_refused message;

    assert_int_equal(proto_node_refused_decode(body, len, &message), STATUS_OK);
    memcpy(node->refused, message.reason, sizeof(node->refused));
    rpc_reply(call, NULL, 0);
}

static inline void on_watcher_cancel(void *ctx, enum status why)
{
    struct fake *node = ctx;
    rpc_fail(node->watcher, why, NULL);
    node->watcher = NULL;
}

static inline void on_leaving(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct fake *node = ctx;

    (void)body;
    (void)len;
    if (node->leaving) {
        rpc_reply(call, NULL, 0);
        return;
    }
    if (node->watcher != NULL) rpc_fail(node->watcher, STATUS_CANCELLED, NULL);
    node->watcher = call;
    rpc_on_cancel(call, on_watcher_cancel, node);
}

/* It goes on with what it has, and with what comes all the same. */
static inline void leave_fake(int i)
{
    struct fake *node = &world.fakes[i];

    if (!node->alive) return;
    node->leaving = true;
    if (node->watcher != NULL) rpc_reply(node->watcher, NULL, 0);
    node->watcher = NULL;
}

/* ---- the master: says who is there ---- */

static inline void tell_member(const struct fake *node, bool gone)
{
    struct store_watch_item item = {
        .has_member = true,
        .gone = gone,
        .term = 1,
        .state = node->suspect ? STORE_MEMBER_SUSPECT : STORE_MEMBER_ALIVE,
        .info = { .role = node->role == PROTO_ROLE_PREFILL ? STORE_ROLE_PREFILL : STORE_ROLE_DECODE,
                  .segment = "segment",
                  .layout = { .pages = 256,
                              .page_size = PAGE,
                              .layers = 1,
                              .layer_size = PAGE,
                              .block_tokens = BLOCK },
                  .epoch = node->epoch },
    };
    struct buf buf;

    if (world.watch == NULL) return;
    snprintf(item.info.name, sizeof(item.info.name), "%s", node->name);
    snprintf(item.info.rpc_address, sizeof(item.info.rpc_address), "%s", node->address);
    buf_init(&buf, 4096);
    assert_int_equal(store_encode_watch(&buf, &item), STATUS_OK);
    const enum status status = rpc_send(world.watch, buf_data(&buf), buf.len);
    assert_true(status == STATUS_OK || status == STATUS_CANCELLED);
    buf_fini(&buf);
}

static inline void on_watch_cancel(void *ctx, enum status why)
{
    (void)ctx;
    rpc_fail(world.watch, why, NULL);
    world.watch = NULL;
}

static inline void on_watch(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    (void)ctx;
    (void)body;
    (void)len;
    /* After a lost connection the gateway may be back before we know that it was gone. */
    if (world.watch != NULL) rpc_fail(world.watch, STATUS_CANCELLED, NULL);
    world.watch = call;
    rpc_on_cancel(call, on_watch_cancel, NULL);
    for (int i = 0; i < FAKES; i++) {
        if (world.fakes[i].alive) tell_member(&world.fakes[i], false);
    }
}

/* ---- births and deaths ---- */

static inline void start_fake(int i, enum proto_role role)
{
    struct fake *node = &world.fakes[i];
    const uint64_t epoch = node->epoch + 1;
    char host[24];
    struct errmsg err = { "" };

    *node = (struct fake){ .role = role, .epoch = epoch, .alive = true };
    snprintf(host, sizeof(host), "10.0.1.%d", i + 1);
    snprintf(node->address, sizeof(node->address), "%s:7000", host);
    snprintf(node->name, sizeof(node->name), "%s-%d", proto_role_name(role), i);
    node->env = env_sim_add(world.sim, host);
    const struct rpc_server_options options = { .address = node->address,
                                                .secret = SECRET,
                                                .name = node->name };
    assert_int_equal(rpc_server_create(node->env, &options, &node->server, &err), STATUS_OK);
    rpc_server_add(node->server, PROTO_DECODE_OPEN, "open", on_open, node);
    rpc_server_add(node->server, PROTO_PREFILL_RUN, "run", on_run, node);
    rpc_server_add(node->server, PROTO_NODE_INFO, "info", on_info, node);
    rpc_server_add(node->server, STORE_METHOD_EVENTS, "events", on_events, node);
    rpc_server_add(node->server, PROTO_NODE_STATUS, "status", on_node_status, node);
    rpc_server_add(node->server, PROTO_NODE_ROLE, "role", on_role, node);
    rpc_server_add(node->server, PROTO_NODE_COPY, "copy", on_copy, node);
    rpc_server_add(node->server, PROTO_NODE_DROP, "drop", on_drop, node);
    rpc_server_add(node->server, PROTO_NODE_LEAVING, "leaving", on_leaving, node);
    rpc_server_add(node->server, PROTO_NODE_REFUSED, "refused", on_refused, node);
    tell_member(node, false);
}

/* What a dead process leaves behind is only memory. */
static inline void stop_fake(int i, bool kill)
{
    struct fake *node = &world.fakes[i];

    if (!node->alive) return;
    node->alive = false;
    if (kill) env_sim_kill(node->env);
    while (node->works != NULL) {
        struct work *work = node->works;
        node->works = work->next;
        work_end(work, STATUS_UNAVAILABLE);
        free(work);
    }
    rpc_server_destroy(node->server);
}

static inline void start_gateway(const struct gateway_options *changes)
{
    struct gateway_options options = *changes;
    struct errmsg err = { "" };

    options.address = GATEWAY_ADDRESS;
    options.master = "10.0.0.2:7000";
    options.secret = SECRET;
    options.model_path = "tiny.gguf";
    options.chat_template = "chatml";
    /* Bodies are read on the loop or beside it: the answers are the same. */
    if (options.beside_size == 0 && test_seed() % 2 == 0) options.beside_size = 1;
    if (options.profile_path == NULL) options.profile_path = "profile.json";
    if (gateway_create(world.gateway_env, &options, &world.gateway, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
}

static inline void start_world_with(const struct env_sim_options *sim,
                                    const struct gateway_options *changes)
{
    struct errmsg err = { "" };

    world = (struct world){ .sim = env_sim_create(sim) };
    world.gateway_env = env_sim_add(world.sim, "10.0.0.1");
    world.master_env = env_sim_add(world.sim, "10.0.0.2");
    world.client_env = env_sim_add(world.sim, "10.0.0.3");
    gguf_maker_init(&world.maker);
    tiny_model_make(&world.maker, &tiny_model_defaults);
    world.model = gguf_maker_finish(&world.maker, &world.model_size);
    assert_int_equal(
        env_file_replace(world.gateway_env, "tiny.gguf", world.model, world.model_size, &err),
        STATUS_OK);
    const struct rpc_server_options options = { .address = "10.0.0.2:7000",
                                                .secret = SECRET,
                                                .name = "master" };
    assert_int_equal(rpc_server_create(world.master_env, &options, &world.master, &err), STATUS_OK);
    rpc_server_add(world.master, MASTER_METHOD_WATCH, "watch", on_watch, NULL);
    start_gateway(changes);
}

static inline void start_world(const struct gateway_options *changes)
{
    const struct env_sim_options calm = { .seed = test_seed() };
    start_world_with(&calm, changes);
}

static inline void stop_world(void)
{
    gateway_destroy(world.gateway);
    env_sim_run_for(world.sim, ENV_NS_PER_S);
    for (int i = 0; i < FAKES; i++)
        stop_fake(i, false);
    rpc_server_destroy(world.master);
    env_sim_run_for(world.sim, ENV_NS_PER_S);
    env_sim_destroy(world.sim);
    gguf_maker_fini(&world.maker);
}

static inline void run_ms(uint64_t ms)
{
    env_sim_run_for(world.sim, ms * ENV_NS_PER_MS);
}

/* ---- clients ---- */

struct client {
    struct http_client *http;
    struct buf body;
    bool done;
    struct http_reply reply;
};

static inline void on_data(void *ctx, const char *data, size_t len)
{
    struct client *client = ctx;
    assert_int_equal(buf_append(&client->body, data, len), STATUS_OK);
}

static inline void on_done(void *ctx, const struct http_reply *reply)
{
    struct client *client = ctx;
    client->done = true;
    client->reply = *reply;
}

static inline void ask(struct client *client, const char *method, const char *path,
                       const char *body)
{
    const struct http_client_options options = {
        .address = GATEWAY_ADDRESS,
        .method = method,
        .path = path,
        .body = body,
        .len = body != NULL ? strlen(body) : 0,
        .deadline_ns = env_now_ns(world.client_env) + 1000 * ENV_NS_PER_S,
        .on_data = on_data,
        .on_done = on_done,
        .ctx = client,
    };
    struct errmsg err = { "" };

    *client = (struct client){ .done = false };
    buf_init(&client->body, 1 << 20);
    assert_int_equal(http_client_start(world.client_env, &options, &client->http, &err), STATUS_OK);
}

static inline void complete(struct client *client, const char *body)
{
    ask(client, "POST", "/v1/completions", body);
}

static inline bool is_done(void *ctx)
{
    return ((struct client *)ctx)->done;
}

/* Waits for the answer; returns its HTTP status. The body becomes a C string. */
static inline int wait_for(struct client *client)
{
    assert_true(env_sim_run_until(world.sim, is_done, client, 900 * ENV_NS_PER_S));
    assert_int_equal(client->reply.status, STATUS_OK);
    assert_int_equal(buf_append(&client->body, "", 1), STATUS_OK);
    return client->reply.code;
}

static inline void expect_body(struct client *client, int code, const char *word)
{
    assert_int_equal(wait_for(client), code);
    if (strstr((char *)buf_data(&client->body), word) == NULL) {
        fail_msg("'%s' is not in: %s", word, (char *)buf_data(&client->body));
    }
    buf_fini(&client->body);
}

/* The value of a metric of the gateway. */
static inline double metric(const char *name)
{
    struct client client;

    ask(&client, "GET", "/metrics", NULL);
    assert_int_equal(wait_for(&client), 200);
    const char *at = (char *)buf_data(&client.body);
    while ((at = strstr(at, name)) != NULL && at[-1] != '\n')
        at++;
    if (at == NULL) fail_msg("no metric %s", name);
    const double value = strtod(at + strlen(name), NULL);
    buf_fini(&client.body);
    return value;
}

/* The text that the model gives to a prompt of bytes. */
static inline void answer_to(const char *prompt, uint32_t count, char *out)
{
    uint32_t tokens[STREAM_TOKENS_MAX];
    uint32_t len = 0;

    for (const char *c = prompt; *c; c++)
        tokens[len++] = 2 + (uint8_t)*c;
    for (uint32_t i = 0; i < count; i++) {
        tokens[len] = next_token(tokens, len);
        out[i] = (char)(tokens[len++] - 2);
    }
    out[count] = '\0';
}

/* Puts the texts of all chunks together and checks that the stream ends as it must. */
static inline void join_stream(struct client *client, char *out, size_t size)
{
    char *at = (char *)buf_data(&client->body), *next = NULL;
    bool done = false;

    out[0] = '\0';
    for (; (next = strstr(at, "\n\n")) != NULL; at = next + 2) {
        struct json_doc *doc = NULL;
        assert_false(done);
        assert_memory_equal(at, "data: ", 6);
        done = strncmp(at, "data: [DONE]", 12) == 0;
        if (done) continue;
        assert_int_equal(api_json_parse(at + 6, (size_t)(next - at - 6), &doc, NULL), STATUS_OK);
        const struct json_value *choices = api_json_member(api_json_root(doc), "choices");
        assert_non_null(choices);
        if (api_json_len(choices) > 0) {
            size_t len = 0;
            const struct json_value *text = api_json_member(api_json_at(choices, 0), "text");
            const char *piece = api_json_str(text, &len);
            snprintf(out + strlen(out), size - strlen(out), "%.*s", (int)len, piece);
        }
        api_json_destroy(doc);
    }
    assert_true(done);
    assert_int_equal(*at, '\0');
}

static inline void expect_stream(struct client *client, const char *want)
{
    char text[STREAM_TOKENS_MAX];

    assert_int_equal(wait_for(client), 200);
    join_stream(client, text, sizeof(text));
    assert_string_equal(text, want);
    buf_fini(&client->body);
}

static const struct gateway_options NO_CHANGES = { .wait_ms = 0 };
static const char PROMPT[] = "a prompt of some length, 2 blocks..";
#define BODY(rest) "{\"prompt\":\"a prompt of some length, 2 blocks..\",\"temperature\":0" rest "}"

static inline void start_pair(void)
{
    start_world(&NO_CHANGES);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    run_ms(3000);
    assert_true(gateway_is_ready(world.gateway));
}

#endif
