/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_test.c
 *
 * Goal:   whatever nodes do, each client gets exactly the answer that no failure would have given
 *         it, or one precise error, once; and work stops when nobody waits for it.
 * Method: a real gateway in a simulated world, with nodes that speak serve/proto.h and whose model
 *         is a hash: the next letter follows from the tokens before it, so the right answer is
 * known to the test. Nodes are killed, hung and brought back; time is virtual. SEED=n replays. */
#include "serve/gateway.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/env_sim.h"
#include "base/hash.h"
#include "base/log.h"
#include "net/http_client.h"
#include "net/rpc.h"
#include "seed.h"
#include "serve/api_json.h"
#include "serve/proto.h"
#include "store/proto.h"
#include "tiny_model.h"
#include "yolk/explain.h"

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

static uint32_t next_token(const uint32_t *tokens, uint32_t count)
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
    enum proto_cause fail_next; /* 0: none */
    uint32_t eos_after;         /* tokens after which an answer ends by itself; 0: never */
    bool keeps_role;            /* refuses node.role */
    bool shut;                  /* nobody comes in by its door */
    uint64_t later_us;          /* of the latest prompt */
    uint32_t copied, dropped;   /* blocks that it was told to copy, and to give up */
    enum { FINDS_ONE, FINDS_NONE, FINDS_ALL } finds; /* blocks of a prompt, cached */
    struct rpc_call *events;                         /* who listens to what it holds */
    struct rpc_call *watcher;                        /* who wants to hear that it leaves */
    bool leaving;
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

static void send_item(struct work *work, const struct proto_item *item)
{
    struct buf buf;

    buf_init(&buf, 1 << 20);
    assert_int_equal(proto_item_encode(item, &buf), STATUS_OK);
    const enum status status = rpc_send(work->call, buf_data(&buf), buf.len);
    assert_true(status == STATUS_OK || status == STATUS_CANCELLED);
    buf_fini(&buf);
}

static void work_end(struct work *work, enum status status)
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

static void on_cancel(void *ctx, enum status why)
{
    struct work *work = ctx;
    (void)why;
    work->node->cancelled++;
    work_end(work, STATUS_CANCELLED);
}

static void finish(struct work *work, enum proto_finish_reason reason)
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

static void on_step(void *ctx)
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
    const struct proto_item item = { .kind = PROTO_ITEM_TOKEN, .token = { index, token } };
    work->tokens[work->count++] = token;
    send_item(work, &item);
    env_timer_set(work->node->env, &work->timer,
                  env_now_ns(work->node->env) + STEP_MS * ENV_NS_PER_MS);
}

static void fail_work(struct work *work, enum proto_cause cause)
{
    struct proto_item item = { .kind = PROTO_ITEM_FAILED, .failed = { .cause = cause } };
    send_item(work, &item);
    work_end(work, STATUS_UNAVAILABLE);
}

static struct work *find_open(uint64_t request_id, uint32_t attempt)
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

static void on_prefilled(void *ctx)
{
    struct work *work = ctx;
    struct work *open = find_open(work->request_id, work->attempt);
    const uint32_t index = work->count - work->prompt;
    const bool ends = work->eos_after > 0 && index >= work->eos_after;
    const uint32_t token = ends ? EOS : next_token(work->tokens, work->count);
    const struct proto_item first = { .kind = PROTO_ITEM_FIRST_TOKEN, .token = { index, token } };
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

static void let_in(struct fake *node)
{
    node->shut = false;
    for (struct work *work = node->works; work != NULL; work = work->next) {
        if (work->over || !work->waits) continue;
        work->waits = false;
        env_timer_set(node->env, &work->timer, env_now_ns(node->env));
    }
}

static struct work *take(struct fake *node, struct rpc_call *call, const struct proto_sequence *s)
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
static void on_computed(void *ctx)
{
    struct work *work = ctx;
    const struct proto_item done = {
        .kind = PROTO_ITEM_PREFILL_DONE,
        .prefill_done = { .computed_tokens = work->count,
                          .times = { .compute_us = PREFILL_MS * 1000 } },
    };
    work->node->computed++;
    send_item(work, &done);
    env_timer_init(&work->timer, on_step, work);
    env_timer_set(work->node->env, &work->timer, env_now_ns(work->node->env));
}

static void on_open(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
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

static void on_run(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct fake *node = ctx;
    struct proto_prefill_run message;

    assert_int_equal(proto_prefill_run_decode(body, len, &message), STATUS_OK);
    struct work *work = take(node, call, &message.sequence);
    node->later_us = message.sequence.later_us;
    work->prefill = true;
    env_timer_init(&work->timer, on_prefilled, work);
    env_timer_set(node->env, &work->timer, env_now_ns(node->env) + PREFILL_MS * ENV_NS_PER_MS);
}

static void on_info(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    const struct fake *node = ctx;
    struct proto_node_info info = {
        .role = node->role,
        .model = "hash",
        .isa = "none",
        .block_tokens = BLOCK,
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
    buf_init(&buf, 4096);
    assert_int_equal(proto_node_info_encode(&info, &buf), STATUS_OK);
    rpc_reply(call, buf_data(&buf), buf.len);
    buf_fini(&buf);
}

static void on_role(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct fake *node = ctx;
    struct proto_node_role message;

    assert_int_equal(proto_node_role_decode(body, len, &message), STATUS_OK);
    if (node->keeps_role) {
        rpc_fail(call, STATUS_UNSUPPORTED, "no");
        return;
    }
    assert_int_not_equal(message.role, node->role);
    node->role = message.role;
    rpc_reply(call, "", 0);
}

static void on_node_status(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
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

static void on_events_cancel(void *ctx, enum status why)
{
    struct fake *node = ctx;
    rpc_fail(node->events, why, NULL);
    node->events = NULL;
}

static void tell_events(struct fake *node, unsigned flags, uint32_t count)
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

static void on_events(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
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
static void on_copy(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
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

static void on_drop(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct fake *node = ctx;
    struct proto_node_blocks message;

    assert_int_equal(proto_node_blocks_decode(body, len, &message), STATUS_OK);
    node->dropped += message.keys_count;
    rpc_reply(call, NULL, 0);
}

static void on_watcher_cancel(void *ctx, enum status why)
{
    struct fake *node = ctx;
    rpc_fail(node->watcher, why, NULL);
    node->watcher = NULL;
}

static void on_leaving(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
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
static void leave_fake(int i)
{
    struct fake *node = &world.fakes[i];

    if (!node->alive) return;
    node->leaving = true;
    if (node->watcher != NULL) rpc_reply(node->watcher, NULL, 0);
    node->watcher = NULL;
}

/* ---- the master: says who is there ---- */

static void tell_member(const struct fake *node, bool gone)
{
    struct store_watch_item item = {
        .has_member = true,
        .gone = gone,
        .term = 1,
        .state = STORE_MEMBER_ALIVE,
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

static void on_watch_cancel(void *ctx, enum status why)
{
    (void)ctx;
    rpc_fail(world.watch, why, NULL);
    world.watch = NULL;
}

static void on_watch(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
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

static void start_fake(int i, enum proto_role role)
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
    tell_member(node, false);
}

/* What a dead process leaves behind is only memory. */
static void stop_fake(int i, bool kill)
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

static void start_gateway(const struct gateway_options *changes)
{
    struct gateway_options options = *changes;
    struct errmsg err = { "" };

    options.address = GATEWAY_ADDRESS;
    options.master = "10.0.0.2:7000";
    options.secret = SECRET;
    options.model_path = "tiny.gguf";
    options.chat_template = "chatml";
    if (options.profile_path == NULL) options.profile_path = "profile.json";
    if (gateway_create(world.gateway_env, &options, &world.gateway, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
}

static void start_world_with(const struct env_sim_options *sim,
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

static void start_world(const struct gateway_options *changes)
{
    const struct env_sim_options calm = { .seed = test_seed() };
    start_world_with(&calm, changes);
}

static void stop_world(void)
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

static void run_ms(uint64_t ms)
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

static void on_data(void *ctx, const char *data, size_t len)
{
    struct client *client = ctx;
    assert_int_equal(buf_append(&client->body, data, len), STATUS_OK);
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct client *client = ctx;
    client->done = true;
    client->reply = *reply;
}

static void ask(struct client *client, const char *method, const char *path, const char *body)
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

static void complete(struct client *client, const char *body)
{
    ask(client, "POST", "/v1/completions", body);
}

static bool is_done(void *ctx)
{
    return ((struct client *)ctx)->done;
}

/* Waits for the answer; returns its HTTP status. The body becomes a C string. */
static int wait_for(struct client *client)
{
    assert_true(env_sim_run_until(world.sim, is_done, client, 900 * ENV_NS_PER_S));
    assert_int_equal(client->reply.status, STATUS_OK);
    assert_int_equal(buf_append(&client->body, "", 1), STATUS_OK);
    return client->reply.code;
}

static void expect_body(struct client *client, int code, const char *word)
{
    assert_int_equal(wait_for(client), code);
    if (strstr((char *)buf_data(&client->body), word) == NULL) {
        fail_msg("'%s' is not in: %s", word, (char *)buf_data(&client->body));
    }
    buf_fini(&client->body);
}

/* The value of a metric of the gateway. */
static double metric(const char *name)
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
static void answer_to(const char *prompt, uint32_t count, char *out)
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
static void join_stream(struct client *client, char *out, size_t size)
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

static void expect_stream(struct client *client, const char *want)
{
    char text[STREAM_TOKENS_MAX];

    assert_int_equal(wait_for(client), 200);
    join_stream(client, text, sizeof(text));
    assert_string_equal(text, want);
    buf_fini(&client->body);
}

/* ---- tests ---- */

static const struct gateway_options NO_CHANGES = { .wait_ms = 0 };
static const char PROMPT[] = "a prompt of some length, 2 blocks..";
#define BODY(rest) "{\"prompt\":\"a prompt of some length, 2 blocks..\",\"temperature\":0" rest "}"

static void start_pair(void)
{
    start_world(&NO_CHANGES);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    run_ms(3000);
    assert_true(gateway_is_ready(world.gateway));
}

static void test_answers(void **state)
{
    (void)state;
    struct client client;
    char want[64];

    start_pair();
    answer_to(PROMPT, 20, want);
    complete(&client, BODY(",\"max_tokens\":20"));
    expect_body(&client, 200, want);
    complete(&client, BODY(",\"max_tokens\":20,\"stream\":true"));
    expect_stream(&client, want);
    /* The end is the model's own. */
    world.fakes[0].eos_after = 7;
    world.fakes[1].eos_after = 7;
    answer_to(PROMPT, 7, want);
    complete(&client, BODY(",\"max_tokens\":20,\"stream\":true"));
    expect_stream(&client, want);
    complete(&client, BODY(",\"max_tokens\":20"));
    expect_body(&client, 200, "\"finish_reason\":\"stop\"");
    complete(&client, BODY(",\"max_tokens\":20"));
    expect_body(&client, 200,
                "\"usage\":{\"prompt_tokens\":35,\"completion_tokens\":7,\"total_tokens\":42,"
                "\"prompt_tokens_details\":{\"cached_tokens\":16}}");
    stop_world();
}

static void test_stop_string_cancels(void **state)
{
    (void)state;
    struct client client;
    char want[64], body[256], stop[4];

    start_pair();
    answer_to(PROMPT, 40, want);
    snprintf(stop, sizeof(stop), "%.3s", want + 20);
    char *first = strstr(want, stop);
    snprintf(
        body, sizeof(body),
        "{\"prompt\":\"%s\",\"temperature\":0,\"max_tokens\":500,\"stop\":\"%s\",\"stream\":true}",
        PROMPT, stop);
    complete(&client, body);
    *first = '\0';
    expect_stream(&client, want);
    run_ms(100);
    assert_int_equal(world.fakes[1].cancelled, 1);
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

static void test_hangup_cancels(void **state)
{
    (void)state;
    struct client client;

    start_pair();
    for (uint64_t after = 1; after < 200; after += 33) {
        const uint32_t before = world.fakes[1].cancelled, opened = world.fakes[1].opened;
        complete(&client, BODY(",\"max_tokens\":900,\"stream\":true"));
        run_ms(after);
        http_client_cancel(client.http);
        buf_fini(&client.body);
        run_ms(100);
        assert_int_equal(world.fakes[1].cancelled - before, world.fakes[1].opened - opened);
        assert_true(gateway_idle(world.gateway));
    }
    stop_world();
}

/* Nodes die at every moment; the stream goes on where it was. */
static void test_node_lost(void **state)
{
    (void)state;
    struct client client;
    char want[128];

    answer_to(PROMPT, 60, want);
    for (int victim = 0; victim < 2; victim++) {
        for (uint64_t after = 1; after < 350; after += 23) {
            start_pair();
            complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
            run_ms(after);
            stop_fake(victim, true);
            run_ms(1000);
            start_fake(victim, victim == 0 ? PROTO_ROLE_PREFILL : PROTO_ROLE_DECODE);
            expect_stream(&client, want);
            run_ms(3000);
            assert_true(gateway_is_ready(world.gateway));
            assert_true(gateway_idle(world.gateway));
            stop_world();
        }
    }
}

/* A decode node leaves at every moment: its streams go on at the other one, nobody is placed at it
 * again, and it is not needed any more. A prefill node that leaves finishes what it has. */
static void test_node_leaves(void **state)
{
    (void)state;
    struct client client, late;
    char want[128];

    answer_to(PROMPT, 60, want);
    for (uint64_t after = 1; after < 350; after += 31) {
        start_pair();
        start_fake(2, PROTO_ROLE_DECODE);
        run_ms(3000);
        complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
        run_ms(after);
        const int from = world.fakes[1].opened > 0 ? 1 : 2, to = 3 - from;
        const uint32_t opened = world.fakes[from].opened;
        const bool decodes = opened > 0 && !client.done;
        leave_fake(from);
        leave_fake(0);
        run_ms(50);
        assert_true(!decodes || world.fakes[to].opened > 0);
        assert_false(gateway_is_ready(world.gateway)); /* nobody prefills */
        assert_int_equal(world.fakes[from].opened, opened);
        for (const struct work *w = world.fakes[from].works; w != NULL; w = w->next)
            assert_true(w->over);
        stop_fake(from, true);
        start_fake(3, PROTO_ROLE_PREFILL);
        expect_stream(&client, want);
        complete(&late, BODY(",\"max_tokens\":60,\"stream\":true"));
        expect_stream(&late, want);
        assert_true(!decodes || metric("yolk_gateway_handed_over_total ") > 0);
        assert_true(gateway_is_ready(world.gateway));
        stop_world();
    }
}

/* The only decode node: what it has ends there, what is new goes to who is left. */
static void test_only_decode_node_leaves(void **state)
{
    (void)state;
    struct client client, late;
    char want[128];

    answer_to(PROMPT, 60, want);
    start_pair();
    complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
    run_ms(150);
    leave_fake(1);
    run_ms(20);
    complete(&late, BODY(",\"max_tokens\":60,\"stream\":true"));
    expect_stream(&client, want);
    expect_stream(&late, want);
    assert_int_equal(world.fakes[1].opened, 1);
    assert_int_equal(world.fakes[0].opened, 1);
    assert_true(metric("yolk_gateway_handed_over_total ") == 0);
    stop_world();
}

/* Everything dies, and comes back: the client only waits. */
static void test_all_lost_and_back(void **state)
{
    (void)state;
    struct client client;
    char want[128];

    start_pair();
    answer_to(PROMPT, 60, want);
    complete(&client, BODY(",\"max_tokens\":60,\"stream\":true"));
    run_ms(150);
    stop_fake(0, true);
    stop_fake(1, true);
    run_ms(20000);
    assert_false(gateway_is_ready(world.gateway));
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    expect_stream(&client, want);
    stop_world();
}

static void test_nobody_there(void **state)
{
    (void)state;
    struct client client;

    start_world(&NO_CHANGES);
    const uint64_t start_ns = env_now_ns(world.client_env);
    complete(&client, BODY(",\"max_tokens\":5"));
    expect_body(&client, 503, "no_nodes");
    const uint64_t took_ns = env_now_ns(world.client_env) - start_ns;
    assert_true(took_ns >= 30 * ENV_NS_PER_S && took_ns < 31 * ENV_NS_PER_S);
    ask(&client, "GET", "/ready", NULL);
    expect_body(&client, 503, "\"ready\":false");
    ask(&client, "GET", "/health", NULL);
    expect_body(&client, 200, "");
    stop_world();
}

/* Each way an attempt can fail by itself: another placement answers, or a precise error. */
static void test_failures(void **state)
{
    (void)state;
    static const enum proto_cause AGAIN[] = { PROTO_CAUSE_INTERNAL, PROTO_CAUSE_SOURCE,
                                              PROTO_CAUSE_PUSH,     PROTO_CAUSE_PAGES,
                                              PROTO_CAUSE_QUEUE,    PROTO_CAUSE_STALE,
                                              PROTO_CAUSE_SHUTDOWN };
    struct client client;
    char want[32];

    start_pair();
    answer_to(PROMPT, 10, want);
    for (size_t i = 0; i < sizeof(AGAIN) / sizeof(AGAIN[0]); i++) {
        world.fakes[1].fail_next = AGAIN[i];
        complete(&client, BODY(",\"max_tokens\":10"));
        expect_body(&client, 200, want);
    }
    world.fakes[1].fail_next = PROTO_CAUSE_CONTEXT;
    complete(&client, BODY(",\"max_tokens\":10"));
    expect_body(&client, 400, "context_length_exceeded");
    world.fakes[1].fail_next = PROTO_CAUSE_INVALID;
    complete(&client, BODY(",\"max_tokens\":10"));
    expect_body(&client, 500, "internal_error");
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* More than the decode node holds: the rest waits its turn, and all are right. Who waits for room
 * does not wait for a node: wait_ms is nothing to him, wherever he stands in the queue. */
static void test_queue(void **state)
{
    (void)state;
    enum { CLIENTS = 30 };
    static struct client clients[CLIENTS];
    const struct gateway_options few = { .sequences_max = 4,
                                         .requests_max = CLIENTS,
                                         .wait_ms = 300 };
    char want[64];
    struct client extra;

    start_world(&few);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    run_ms(1000);
    answer_to(PROMPT, 50, want);
    for (int i = 0; i < CLIENTS; i++)
        complete(&clients[i], BODY(",\"max_tokens\":50"));
    run_ms(100);
    complete(&extra, BODY(",\"max_tokens\":50"));
    expect_body(&extra, 429, "overloaded");
    for (int i = 0; i < CLIENTS; i++)
        expect_body(&clients[i], 200, want);
    ask(&extra, "GET", "/metrics", NULL);
    expect_body(&extra, 200, "vllm:num_requests_running{model_name=\"tiny\"} 0");
    stop_world();
}

/* The limits on waiting are on waiting only: an answer may take longer. */
static void test_waiting_limits_end_with_waiting(void **state)
{
    (void)state;
    const struct gateway_options impatient = { .wait_ms = 200, .queue_ms = 200 };
    struct client client;
    char want[128];

    start_world(&impatient);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    run_ms(1000);
    answer_to(PROMPT, 100, want);
    complete(&client, BODY(",\"max_tokens\":100,\"stream\":true"));
    expect_stream(&client, want);
    stop_world();
}

static void test_routes(void **state)
{
    (void)state;
    static const struct {
        const char *method, *path, *body;
        int code;
        const char *word;
    } CASES[] = {
        { "GET", "/ready", NULL, 200, "true" },
        { "GET", "/v1/models", NULL, 200, "\"id\":\"tiny\"" },
        { "GET", "/v1/models/tiny", NULL, 200, "\"id\":\"tiny\"" },
        { "GET", "/v1/models/other", NULL, 404, "model_not_found" },
        { "DELETE", "/v1/models/tiny", NULL, 405, "method_not_allowed" },
        { "GET", "/v1/completions", NULL, 405, "POST" },
        { "GET", "/nothing", NULL, 404, "not_found" },
        { "POST", "/v1/completions", "{", 400, "invalid_json" },
        { "POST", "/v1/completions", "{\"prompt\":\"x\",\"model\":\"y\"}", 404, "model_not_found" },
        { "POST", "/v1/completions", "{\"prompt\":[500000]}", 400, "vocabulary" },
        { "POST", "/v1/chat/completions", "{\"messages\":[]}", 400, "messages" },
        { "POST", "/v1/chat/completions",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":2}", 200,
          "chat.completion" },
    };
    struct client client;
    char body[5000];

    start_pair();
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        ask(&client, CASES[i].method, CASES[i].path, CASES[i].body);
        expect_body(&client, CASES[i].code, CASES[i].word);
    }
    /* The nodes take 1,024 tokens; one has to be left. */
    for (int len = 1022; len < 1026; len++) {
        memset(body, 'x', sizeof(body));
        memcpy(body, "{\"prompt\":\"", 11);
        snprintf(body + 11 + len, sizeof(body) - 11 - (size_t)len, "\"}");
        complete(&client, body);
        expect_body(&client, len < 1024 ? 200 : 400,
                    len < 1024 ? "length" : "context_length_exceeded");
    }
    stop_world();
}

/* What was learned is there after a restart; a broken file is no obstacle. */
/* The directory of a profile is made; where it cannot be, the gateway works without. */
static void test_profile_directory(void **state)
{
    (void)state;
    static const char *const PATHS[] = { "x/y/z/profile.json", "tiny.gguf/y/profile.json" };
    char *text = NULL;
    size_t len = 0;

    for (int i = 0; i < 2; i++) {
        const struct gateway_options options = { .profile_path = PATHS[i] };
        struct client client;
        start_world(&options);
        start_fake(0, PROTO_ROLE_PREFILL);
        start_fake(1, PROTO_ROLE_DECODE);
        run_ms(1000);
        complete(&client, BODY(",\"max_tokens\":5"));
        expect_body(&client, 200, "text_completion");
        gateway_destroy(world.gateway);
        world.gateway = NULL;
        const enum status status =
            env_file_read_all(world.gateway_env, PATHS[i], 65536, &text, &len, NULL);
        assert_true((status == STATUS_OK) == (i == 0));
        free(text);
        text = NULL;
        stop_world();
    }
}

/* Room is kept for as many tokens as answers have been seen to take: answers of ten tokens leave
 * room for many more requests at once than the guess that was made before there was any. */
static void test_room_follows_answers(void **state)
{
    (void)state;
    enum { CLIENTS = 40, LESSONS = 60 };
    static const char CHAT[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    static struct client clients[CLIENTS];
    struct client lesson;

    start_pair();
    world.fakes[1].eos_after = 10;
    for (int i = 0; i < LESSONS; i++) {
        ask(&lesson, "POST", "/v1/chat/completions", CHAT);
        expect_body(&lesson, 200, "stop");
    }
    const uint32_t before = world.fakes[1].opened;
    for (int i = 0; i < CLIENTS; i++)
        ask(&clients[i], "POST", "/v1/chat/completions", CHAT);
    run_ms(15);
    assert_int_equal(world.fakes[1].opened - before, CLIENTS); /* nobody waits for room */
    for (int i = 0; i < CLIENTS; i++)
        expect_body(&clients[i], 200, "stop");
    stop_world();
}

/* Lines of the log that name this event. */
struct lines {
    const char *event;
    uint32_t count;
};

static void count_lines(void *ctx, const char *line, size_t len)
{
    struct lines *lines = ctx;
    char text[LOG_LINE_MAX + 1];

    snprintf(text, sizeof(text), "%.*s", (int)len, line);
    lines->count += strstr(text, lines->event) != NULL;
}

/* A node that has nothing of what it said: the log says so once, and once a minute, /metrics while
 * it lasts; then the log that it is over. */
static void test_hits_that_do_not_realise(void **state)
{
    (void)state;
    struct client client;
    struct lines missing = { "ev=predicted_hits_missing", 0 };
    struct lines back = { "ev=predicted_hits_back", 0 };

    start_pair();
    complete(&client, BODY(",\"max_tokens\":2"));
    expect_body(&client, 200, "text_completion");
    tell_events(&world.fakes[0], 0, world.fakes[0].keys_count);
    world.fakes[0].finds = FINDS_NONE;
    assert_int_equal(log_configure("error,gateway=info", NULL), STATUS_OK);
    log_set_sink(count_lines, &missing);
    for (int i = 0; i < 40; i++) {
        if (i == 30) run_ms(61000);
        complete(&client, BODY(",\"max_tokens\":2"));
        expect_body(&client, 200, "text_completion");
    }
    assert_int_equal(missing.count, 2);
    ask(&client, "GET", "/metrics", NULL);
    expect_body(&client, 200, "yolk_conductor_hits_alarm 1");
    ask(&client, "GET", "/debug/decisions", NULL);
    expect_body(&client, 200, "\"alarm\":true,\"mostly\":\"evicted\"");
    world.fakes[0].finds = FINDS_ALL;
    log_set_sink(count_lines, &back);
    for (int i = 0; i < YOLK_HITS_WINDOW; i++) {
        complete(&client, BODY(",\"max_tokens\":2"));
        expect_body(&client, 200, "text_completion");
    }
    assert_int_equal(back.count, 1);
    log_set_sink(NULL, NULL);
    assert_int_equal(log_configure("error", NULL), STATUS_OK);
    ask(&client, "GET", "/metrics", NULL);
    expect_body(&client, 200, "yolk_conductor_hits_alarm 0");
    stop_world();
}

static void test_profile(void **state)
{
    (void)state;
    struct client client;
    struct errmsg err = { "" };
    char *text = NULL;
    size_t len = 0;

    start_pair();
    complete(&client, BODY(",\"max_tokens\":5"));
    expect_body(&client, 200, "text_completion");
    gateway_destroy(world.gateway);
    run_ms(1000);
    assert_int_equal(env_file_read_all(world.gateway_env, "profile.json", 65536, &text, &len, &err),
                     STATUS_OK);
    assert_non_null(strstr(text, "prefill"));
    free(text);
    assert_int_equal(env_file_replace(world.gateway_env, "profile.json", "{", 1, &err), STATUS_OK);
    start_gateway(&NO_CHANGES);
    run_ms(3000);
    complete(&client, BODY(",\"max_tokens\":5"));
    expect_body(&client, 200, "text_completion");
    stop_world();
}

/* ---- everything at once ---- */

enum { CHAOS_CLIENTS = 12, CHAOS_STEPS = 40, CHAOS_WORLDS = 25 };

static enum proto_role role_of(int i)
{
    return i % 2 == 0 ? PROTO_ROLE_PREFILL : PROTO_ROLE_DECODE;
}

/* Kills somebody, or brings somebody back, or asks, or says that somebody leaves. */
static void chaos_step(struct client *clients, int *asked)
{
    const int i = (int)env_sim_random(world.sim, FAKES);

    switch (env_sim_random(world.sim, 5)) {
    case 0: stop_fake(i, true); break;
    case 4: leave_fake(i); break;
    case 1:
    case 2:
        if (!world.fakes[i].alive) start_fake(i, role_of(i));
        break;
    default:
        if (*asked == CHAOS_CLIENTS) break;
        complete(&clients[(*asked)++], BODY(",\"max_tokens\":60,\"stream\":true"));
        break;
    }
    run_ms(1 + env_sim_random(world.sim, 150));
}

/* The client's own connection may break; but a whole answer is the right one. True if it was. */
static bool chaos_check(struct client *client, const char *want)
{
    assert_true(env_sim_run_until(world.sim, is_done, client, 900 * ENV_NS_PER_S));
    const bool whole = client->reply.status == STATUS_OK && client->reply.code == 200;

    if (whole) {
        expect_stream(client, want);
    } else {
        buf_fini(&client->body);
    }
    return whole;
}

/* Roles change at the least occasion, in half of the worlds. */
static struct gateway_options chaos_options(uint64_t round)
{
    struct gateway_options options = NO_CHANGES;

    if (round % 2 == 0) return options;
    options.sequences_max = 3;
    options.elastic = (struct yolk_elastic_options){
        .on = true, .ttft_ms = 20, .window_ms = 200, .dwell_ms = 300, .drain_ms = 50
    };
    return options;
}

static void test_chaos(void **state)
{
    (void)state;
    const uint64_t seed = test_seed();
    char want[128];
    int whole = 0, asked_in_all = 0;

    answer_to(PROMPT, 60, want);
    for (uint64_t round = 0; round < CHAOS_WORLDS; round++) {
        const struct env_sim_options faults = { .seed = seed + round,
                                                .conn_loss_ppm = 200,
                                                .conn_refuse_ppm = 20000,
                                                .slow_ppm = 5000,
                                                .buggify_ppm = 20000 };
        struct client clients[CHAOS_CLIENTS];
        int asked = 0;

        const struct gateway_options options = chaos_options(round);
        start_world_with(&faults, &options);
        for (int i = 0; i < FAKES; i++)
            start_fake(i, role_of(i));
        run_ms(1000);
        for (int step = 0; step < CHAOS_STEPS; step++)
            chaos_step(clients, &asked);
        env_sim_calm(world.sim);
        for (int i = 0; i < FAKES; i++) {
            if (world.fakes[i].leaving) stop_fake(i, true);
            if (!world.fakes[i].alive) start_fake(i, role_of(i));
        }
        for (int i = 0; i < asked; i++)
            whole += chaos_check(&clients[i], want);
        asked_in_all += asked;
        run_ms(5000);
        assert_true(gateway_idle(world.gateway));
        assert_true(gateway_is_ready(world.gateway));
        for (int i = 0; i < FAKES; i++) {
            for (const struct work *w = world.fakes[i].works; w != NULL; w = w->next) {
                assert_true(w->over);
            }
        }
        stop_world();
    }
    printf("%d of %d answers were whole\n", whole, asked_in_all);
    assert_true(whole > asked_in_all / 2);
}

static uint32_t count_role(enum proto_role role)
{
    uint32_t count = 0;
    for (int i = 0; i < FAKES; i++)
        count += world.fakes[i].alive && world.fakes[i].role == role;
    return count;
}

static void start_elastic(const struct yolk_elastic_options *elastic)
{
    struct gateway_options options = NO_CHANGES;

    options.sequences_max = 4;
    options.elastic = *elastic;
    start_world(&options);
    for (int i = 0; i < 3; i++)
        start_fake(i, PROTO_ROLE_PREFILL);
    start_fake(3, PROTO_ROLE_DECODE);
    run_ms(3000);
    assert_true(gateway_is_ready(world.gateway));
}

enum { LONG = 800, LONGS = 10, SHORTS = 200, SHORT_GAP_MS = 10 };

/* More long answers than one node decodes at once: prefill nodes come to its help, and go back when
 * many first tokens are wanted. Long answers that are under way then are handed over, and nobody
 * can tell. */
static void test_roles_follow_demand(void **state)
{
    (void)state;
    const struct yolk_elastic_options elastic = {
        .on = true, .ttft_ms = 1000, .window_ms = 900, .dwell_ms = 1000, .drain_ms = 500
    };
    static struct client longs[LONGS], shorts[SHORTS];
    struct client page;
    char want[LONG + 1], first[2];

    start_elastic(&elastic);
    answer_to(PROMPT, LONG, want);
    answer_to(PROMPT, 1, first);
    for (int i = 0; i < LONGS; i++)
        complete(&longs[i], BODY(",\"max_tokens\":800,\"stream\":true"));
    run_ms(2500);
    assert_int_equal(count_role(PROTO_ROLE_DECODE), 3);
    assert_int_equal(count_role(PROTO_ROLE_PREFILL), 1); /* never none */
    ask(&page, "GET", "/debug/nodes", NULL);
    expect_body(&page, 200, "\"role\":\"decode\",\"works\":true,\"draining\":false");
    for (int i = 0; i < LONGS; i++)
        expect_stream(&longs[i], want);
    for (int i = 0; i < 3; i++)
        complete(&longs[i], BODY(",\"max_tokens\":800,\"stream\":true"));
    for (int i = 0; i < SHORTS; i++) {
        complete(&shorts[i], BODY(",\"max_tokens\":1"));
        run_ms(SHORT_GAP_MS);
    }
    for (int i = 0; i < SHORTS; i++)
        expect_body(&shorts[i], 200, first);
    for (int i = 0; i < 3; i++)
        expect_stream(&longs[i], want);
    assert_true(metric("yolk_conductor_role_changes_total{role=\"decode\"}") >= 2);
    assert_true(metric("yolk_conductor_role_changes_total{role=\"prefill\"}") >= 1);
    assert_true(metric("yolk_gateway_handed_over_total") >= 1);
    run_ms(3000);
    assert_int_equal((int)metric("yolk_conductor_draining"), 0);
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* A node that will not change stays what it is; a node that somebody else has changed is believed.
 */
static void test_roles_are_the_nodes(void **state)
{
    (void)state;
    const struct yolk_elastic_options elastic = {
        .on = true, .window_ms = 900, .dwell_ms = 1000, .drain_ms = 500
    };
    struct client longs[LONGS], page;
    char want[LONG + 1];

    start_elastic(&elastic);
    answer_to(PROMPT, LONG, want);
    for (int i = 0; i < FAKES; i++)
        world.fakes[i].keeps_role = true;
    for (int i = 0; i < LONGS; i++)
        complete(&longs[i], BODY(",\"max_tokens\":800,\"stream\":true"));
    for (int i = 0; i < LONGS; i++)
        expect_stream(&longs[i], want);
    assert_int_equal(count_role(PROTO_ROLE_PREFILL), 3);
    assert_int_equal((int)metric("yolk_gateway_nodes_up{role=\"prefill\"}"), 3);
    ask(&page, "GET", "/debug/nodes", NULL);
    expect_body(&page, 200, "\"done\":0,");
    world.fakes[0].role = PROTO_ROLE_DECODE;
    run_ms(5000);
    assert_int_equal((int)metric("yolk_gateway_nodes_up{role=\"prefill\"}"), 2);
    assert_int_equal((int)metric("yolk_gateway_nodes_up{role=\"decode\"}"), 2);
    stop_world();
}

/* A gateway that goes away tells its clients. */
/* What adaptive has besides. Prompts step back in the queue by what they take; and a door: what
 * the prefill node says is not shown, the wait is told, and who hangs up while it waits, or whose
 * decode node dies, leaves nothing there. */
static void test_door(void **state)
{
    (void)state;
    const struct gateway_options options = { .policy = YOLK_POLICY_ADAPTIVE,
                                             .ttft_slo_ms = 30000,
                                             .tbt_slo_ms = 50,
                                             .door = true,
                                             .stretch = 5 };
    struct client client, gone;
    char want[64];

    start_world(&options);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    run_ms(3000);
    answer_to(PROMPT, 20, want);
    world.fakes[1].shut = true;
    complete(&client, BODY(",\"max_tokens\":20,\"stream\":true"));
    complete(&gone, BODY(",\"max_tokens\":20,\"stream\":true"));
    run_ms(500);
    assert_int_equal(client.body.len, 0);
    assert_in_range(world.fakes[0].later_us, 1, 18000000); /* 0.6 of the limit */
    assert_true(metric("yolk_conductor_at_door ") == 2);
    http_client_cancel(gone.http);
    buf_fini(&gone.body);
    run_ms(100);
    assert_int_equal(world.fakes[1].cancelled, 1);
    assert_true(metric("yolk_conductor_at_door ") == 1);
    let_in(&world.fakes[1]);
    expect_stream(&client, want);
    assert_true(metric("yolk_conductor_at_door ") == 0);
    assert_true(metric("yolk_conductor_door_wait_seconds_count ") == 1);
    assert_true(metric("yolk_conductor_door_wait_seconds_sum ") > 0.4);
    ask(&client, "GET", "/debug/decisions", NULL);
    expect_body(&client, 200, "\"door_ms\":5");

    world.fakes[1].shut = true;
    complete(&client, BODY(",\"max_tokens\":20,\"stream\":true"));
    run_ms(500);
    stop_fake(1, true);
    run_ms(1000);
    start_fake(2, PROTO_ROLE_DECODE);
    expect_stream(&client, want);
    assert_true(metric("yolk_conductor_at_door ") == 0);
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* While the prefill node has a queue, short prompts are computed by their decode node: the answers
 * are the same, and what happened is told. */
static void test_inlined(void **state)
{
    (void)state;
    enum { CLIENTS = 8 };
    const struct gateway_options options = { .inline_tbt_ms = 1000 };
    struct client clients[CLIENTS], client;
    char want[64];

    start_world(&options);
    start_fake(0, PROTO_ROLE_PREFILL);
    start_fake(1, PROTO_ROLE_DECODE);
    start_fake(2, PROTO_ROLE_DECODE);
    run_ms(3000);
    answer_to(PROMPT, 20, want);
    for (int i = 0; i < CLIENTS; i++)
        complete(&clients[i], BODY(",\"max_tokens\":20,\"stream\":true"));
    run_ms(15);
    stop_fake(2, true); /* whoever it computes for is placed again */
    for (int i = 0; i < CLIENTS; i++)
        expect_stream(&clients[i], want);
    const uint32_t computed = world.fakes[1].computed;
    assert_true(computed > 0 && computed < CLIENTS);
    assert_true(metric("yolk_conductor_inlined_total ") >= computed);
    ask(&client, "GET", "/debug/decisions", NULL);
    expect_body(&client, 200, "\"inlined\":true");
    assert_true(gateway_idle(world.gateway));
    stop_world();
}

/* Everybody goes where the prefix is, so its node has a queue: the other one gets a copy, and loses
 * it when nobody asks any more, but not while it is the only one that has it. */
static void copy_and_cool(bool keep_first)
{
    enum { CLIENTS = 60 };
    static struct client clients[CLIENTS];
    const struct gateway_options options = { .placement = YOLK_PLACEMENT_MATCH,
                                             .replicate = true,
                                             .replicate_hot = 3 };
    char body[512];

    /* Two blocks are known; of what is behind them some tens are a queue of seconds. */
    snprintf(body, sizeof(body), "{\"prompt\":\"%s%0120d\",\"max_tokens\":2}", PROMPT, 0);
    start_world(&options);
    for (int i = 0; i < FAKES; i++)
        start_fake(i, i < 2 ? PROTO_ROLE_PREFILL : PROTO_ROLE_DECODE);
    run_ms(3000);
    complete(&clients[0], body);
    expect_body(&clients[0], 200, "text_completion");
    const int first = world.fakes[0].keys_count > 0 ? 0 : 1, other = 1 - first;
    assert_int_equal(world.fakes[other].keys_count, 0);
    tell_events(&world.fakes[first], 0, 2);
    run_ms(100);
    for (int i = 0; i < CLIENTS; i++)
        complete(&clients[i], body);
    for (int i = 0; i < CLIENTS; i++)
        expect_body(&clients[i], 200, "text_completion");
    assert_int_equal(world.fakes[other].copied, 2);
    assert_int_equal(world.fakes[first].copied, 0);
    assert_true(metric("yolk_conductor_copies_total ") == 1);
    assert_true(metric("yolk_conductor_copies_held ") == 1);
    assert_true(metric("yolk_gateway_copied_blocks_total ") == 2);
    if (!keep_first) stop_fake(first, true);
    run_ms(600000);
    assert_int_equal(world.fakes[other].dropped, keep_first ? 2 : 0);
    assert_true(metric("yolk_conductor_copies_held ") == 0);
    stop_world();
}

static void test_copies(void **state)
{
    (void)state;
    copy_and_cool(true);
    copy_and_cool(false);
}

static void test_shutdown(void **state)
{
    (void)state;
    struct client client, late;

    start_pair();
    complete(&client, BODY(",\"max_tokens\":900"));
    run_ms(200);
    gateway_leave(world.gateway);
    assert_false(gateway_is_ready(world.gateway));
    ask(&late, "GET", "/ready", NULL);
    expect_body(&late, 503, "\"ready\":false");
    complete(&late, BODY(",\"max_tokens\":5"));
    expect_body(&late, 200, "text_completion"); /* whoever comes in the grace is served */
    gateway_drain(world.gateway);
    assert_false(gateway_is_ready(world.gateway));
    assert_false(gateway_idle(world.gateway));
    gateway_destroy(world.gateway);
    world.gateway = NULL;
    run_ms(200);
    assert_true(client.done);
    assert_true(client.reply.status != STATUS_OK || client.reply.code == 503);
    buf_fini(&client.body);
    assert_true(world.fakes[1].cancelled > 0);
    stop_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_stop_string_cancels),
        cmocka_unit_test(test_hangup_cancels),
        cmocka_unit_test(test_node_lost),
        cmocka_unit_test(test_node_leaves),
        cmocka_unit_test(test_only_decode_node_leaves),
        cmocka_unit_test(test_all_lost_and_back),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_waiting_limits_end_with_waiting),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_profile_directory),
        cmocka_unit_test(test_room_follows_answers),
        cmocka_unit_test(test_hits_that_do_not_realise),
        cmocka_unit_test(test_roles_follow_demand),
        cmocka_unit_test(test_roles_are_the_nodes),
        cmocka_unit_test(test_door),
        cmocka_unit_test(test_inlined),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_shutdown),
        cmocka_unit_test(test_chaos),
    };
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
