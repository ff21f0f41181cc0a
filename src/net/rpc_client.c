/* SPDX-License-Identifier: Apache-2.0
 *
 * net/rpc_client.c - one address, one connection that comes back, and the calls that go over it.
 *
 *            env_connect                on_ready
 *   RESTING ------------> DIALING ------------------> UP
 *      ^  backoff over       |                         |
 *      +---------------------+-------------------------+
 *                         on_closed
 *
 * A call is in one of three lists: waiting (no byte of it has left), sent, ended (its end is known
 * and on_end runs on the next turn, because it must not run inside rpc_call() or rpc_cancel()).
 *
 * Invariants
 *   I1  A call is in the map exactly while it is waiting or sent.
 *   I2  on_end runs once, after the call is out of the map and of every list, and then it is freed.
 *   I3  A waiting call has a copy of its body; a sent one has none.
 *
 * Threads: the env's.
 * Limits:  calls_max calls in all lists; bodies of waiting calls together at most write_queue_max.
 */
#include "net/rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/key.h"
#include "base/log.h"
#include "base/map.h"
#include "net/rpc_int.h"

enum {
    CALLS_DEFAULT = 4096,
    WRITE_QUEUE_DEFAULT = 64 << 20,
    KEEPALIVE_MS_DEFAULT = 5000,
    CONNECT_TIMEOUT_MS_DEFAULT = 5000,
    BACKOFF_MS_MIN = 50,
    BACKOFF_MS_MAX = 1000,
    ADDRESS_SIZE = 256,
};

enum client_state { CLIENT_RESTING, CLIENT_DIALING, CLIENT_UP };

struct rpc_client {
    struct env *env;
    struct rpc_client_options options;
    char address[ADDRESS_SIZE];
    char name[RPC_NAME_SIZE];
    char *secret;
    enum client_state state;
    struct rpc_conn *conn; /* in DIALING and UP */
    uint32_t backoff_ms;
    struct env_timer backoff_timer;
    struct env_timer ended_timer;
    bool has_told_down; /* on_state(false) was the last word */
    bool is_ending;     /* inside rpc_client_destroy() */
    unsigned depth;     /* of callbacks running */
    uint64_t last_id;
    uint32_t calls_count;
    size_t waiting_size; /* bytes of bodies */
    struct map *calls;
    struct rpc_link waiting, sent, ended;
};

struct call {
    struct rpc_link link;
    struct rpc_client *client;
    uint64_t id;
    uint16_t method;
    bool wait_until_up;
    uint64_t deadline_ns;
    struct env_timer timer;
    void (*on_item)(void *ctx, const uint8_t *body, size_t len);
    void (*on_end)(void *ctx, const struct rpc_result *result);
    void *ctx;
    uint8_t *body; /* while waiting */
    size_t body_len;
    enum status end; /* while ended */
};

static void dial(struct rpc_client *client);

static struct call *call_of(struct rpc_link *link)
{
    return (struct call *)(void *)link; /* its first member */
}

static struct block_key key_of(uint64_t id)
{
    struct block_key key = { { 0 } };
    memcpy(key.bytes, &id, sizeof(id));
    return key;
}

static bool edge_exists(enum client_state from, enum client_state to)
{
    switch (from) {
    case CLIENT_RESTING: return to == CLIENT_DIALING;
    case CLIENT_DIALING: return to == CLIENT_UP || to == CLIENT_RESTING;
    case CLIENT_UP: return to == CLIENT_RESTING;
    }
    return false;
}

static void set_state(struct rpc_client *client, enum client_state state)
{
    ASSERT(edge_exists(client->state, state));
    client->state = state;
}

/* ---- the end of calls ---- */

static struct call *find_call(const struct rpc_client *client, uint64_t id)
{
    const struct block_key key = key_of(id);
    uint64_t value;
    return map_find(client->calls, &key, &value) ? (struct call *)(uintptr_t)value : NULL;
}

static void drop_body(struct call *call)
{
    call->client->waiting_size -= call->body_len;
    free(call->body);
    call->body = NULL;
    call->body_len = 0;
}

/* Out of the map, its list and its timer (I1). */
static void call_detach(struct call *call)
{
    const struct block_key key = key_of(call->id);

    const bool was_there = map_remove(call->client->calls, &key, NULL);
    ASSERT(was_there);
    rpc_list_remove(&call->link);
    env_timer_cancel(call->client->env, &call->timer);
    drop_body(call);
}

/* Runs on_end and frees. From the loop, or from rpc_client_destroy(). */
static void call_finish(struct call *call, const struct rpc_result *result)
{
    struct rpc_client *client = call->client;

    ASSERT(client->calls_count > 0);
    client->calls_count--;
    client->depth++;
    call->on_end(call->ctx, result);
    client->depth--;
    free(call);
}

static void call_finish_with(struct call *call, enum status status)
{
    static const uint8_t nothing[1];
    const struct rpc_result result = { status, nothing, 0, "" };

    ASSERT(status != STATUS_OK);
    call_finish(call, &result);
}

static void end_soon(struct call *call, enum status why)
{
    struct rpc_client *client = call->client;

    call_detach(call);
    call->end = why;
    rpc_list_append(&client->ended, &call->link);
    env_timer_set(client->env, &client->ended_timer, 0);
}

static void client_on_ended(void *ctx)
{
    struct rpc_client *client = ctx;
    struct rpc_link now; /* calls that end while these are told are told on the next turn */

    rpc_list_init(&now);
    rpc_list_move(&client->ended, &now);
    while (!rpc_list_is_empty(&now)) {
        struct call *call = call_of(now.next);
        rpc_list_remove(&call->link);
        call_finish_with(call, call->end);
    }
}

/* Ends every call of a list, also those that callbacks add to it meanwhile. */
static void end_all(struct rpc_link *list, enum status why)
{
    while (!rpc_list_is_empty(list)) {
        struct call *call = call_of(list->next);
        call_detach(call);
        call_finish_with(call, why);
    }
}

static void tell_server_cancelled(struct rpc_client *client, const struct call *call)
{
    const struct rpc_frame frame = { .kind = RPC_KIND_CANCEL, .call = call->id };

    if (client->state != CLIENT_UP || call->body != NULL) return;
    const enum status status = rpc_conn_send(client->conn, &frame);
    /* A full queue means that the server reads nothing. It has the deadline, and a lost cancel
     * costs work, not correctness; but a connection that takes no 20 bytes is better replaced. */
    if (status == STATUS_FULL) rpc_conn_fail(client->conn, STATUS_FULL, "the peer does not read");
}

static void call_on_deadline(void *ctx)
{
    struct call *call = ctx;

    tell_server_cancelled(call->client, call);
    call_detach(call);
    call_finish_with(call, STATUS_TIMEOUT);
}

/* ---- sending ---- */

/* Rounded up, and at least 1: a deadline that is near must not become none. */
static uint64_t timeout_ms_of(const struct rpc_client *client, uint64_t deadline_ns)
{
    if (deadline_ns == ENV_NEVER) return 0;
    const uint64_t now = env_now_ns(client->env);
    if (deadline_ns <= now) return 1;
    return (deadline_ns - now + ENV_NS_PER_MS - 1) / ENV_NS_PER_MS;
}

static enum status send_request(struct rpc_client *client, const struct call *call,
                                struct msg_bytes body)
{
    const struct rpc_frame frame = {
        .kind = RPC_KIND_REQUEST,
        .call = call->id,
        .method = call->method,
        .timeout_ms = timeout_ms_of(client, call->deadline_ns),
        .body = body,
    };
    ASSERT(client->state == CLIENT_UP);
    return rpc_conn_send(client->conn, &frame);
}

static void send_waiting(struct rpc_client *client)
{
    while (client->state == CLIENT_UP && !rpc_list_is_empty(&client->waiting)) {
        struct call *call = call_of(client->waiting.next);
        const struct msg_bytes body = { call->body, call->body_len };
        if (send_request(client, call, body) != STATUS_OK)
            return; /* later, or when it is up again */
        drop_body(call);
        rpc_list_remove(&call->link);
        rpc_list_append(&client->sent, &call->link);
    }
}

/* Keeps a copy of the body. */
static enum status keep_waiting(struct rpc_client *client, struct call *call,
                                const struct rpc_request *request)
{
    if (request->len > client->options.write_queue_max - client->waiting_size) return STATUS_FULL;
    call->body = malloc(request->len + 1); /* never NULL, so that it says that the call waits */
    if (call->body == NULL) return STATUS_FULL;
    if (request->len > 0) memcpy(call->body, request->body, request->len);
    call->body_len = request->len;
    client->waiting_size += request->len;
    rpc_list_append(&client->waiting, &call->link);
    return STATUS_OK;
}

static enum status send_or_wait(struct rpc_client *client, struct call *call,
                                const struct rpc_request *request)
{
    if (client->state != CLIENT_UP || !rpc_list_is_empty(&client->waiting))
        return keep_waiting(client, call, request);
    const struct msg_bytes body = { request->body, request->len };
    const enum status status = send_request(client, call, body);
    if (status == STATUS_FULL) return STATUS_FULL;
    if (status != STATUS_OK) return keep_waiting(client, call, request);
    rpc_list_append(&client->sent, &call->link);
    return STATUS_OK;
}

static struct call *call_create(struct rpc_client *client, const struct rpc_request *request)
{
    struct call *call = malloc(sizeof(*call));

    if (call == NULL) return NULL;
    *call = (struct call){
        .client = client,
        .id = ++client->last_id,
        .method = request->method,
        .wait_until_up = request->wait_until_up,
        .deadline_ns = request->deadline_ns,
        .on_item = request->on_item,
        .on_end = request->on_end,
        .ctx = request->ctx,
    };
    rpc_list_init(&call->link);
    env_timer_init(&call->timer, call_on_deadline, call);
    return call;
}

enum status rpc_call(struct rpc_client *client, const struct rpc_request *request,
                     struct rpc_call_id *out)
{
    ASSERT(request->on_end != NULL && request->deadline_ns != 0);
    ASSERT(request->len <= RPC_BODY_SIZE_MAX);
    if (client->is_ending) return STATUS_CANCELLED;
    if (client->calls_count >= client->options.calls_max) return STATUS_FULL;

    struct call *call = call_create(client, request);
    if (call == NULL) return STATUS_FULL;
    const struct block_key key = key_of(call->id);
    if (map_insert(client->calls, &key, (uint64_t)(uintptr_t)call) != STATUS_OK) {
        free(call);
        return STATUS_FULL;
    }
    client->calls_count++;
    const enum status status = send_or_wait(client, call, request);
    if (status != STATUS_OK) {
        call_detach(call);
        client->calls_count--;
        free(call);
        return status;
    }
    if (request->deadline_ns != ENV_NEVER)
        env_timer_set(client->env, &call->timer, request->deadline_ns);
    if (out != NULL) *out = (struct rpc_call_id){ call->id };
    if (client->state == CLIENT_RESTING && !request->wait_until_up)
        end_soon(call, STATUS_CONN_REFUSED);
    return STATUS_OK;
}

void rpc_cancel(struct rpc_client *client, struct rpc_call_id id)
{
    struct call *call = find_call(client, id.value);

    if (call == NULL) return;
    tell_server_cancelled(client, call);
    end_soon(call, STATUS_CANCELLED);
}

/* ---- what the server says ---- */

static void take_item(struct rpc_client *client, struct call *call, const struct rpc_frame *frame)
{
    if (call->on_item == NULL) return;
    client->depth++;
    call->on_item(call->ctx, frame->body.data, frame->body.len);
    client->depth--;
}

static void take_end(struct call *call, const struct rpc_frame *frame)
{
    char message[RPC_MESSAGE_SIZE];

    ASSERT(frame->message.len < sizeof(message));
    memcpy(message, frame->message.data, frame->message.len);
    message[frame->message.len] = '\0';
    const enum status status = frame->kind == RPC_KIND_REPLY ? STATUS_OK : frame->status;
    const struct rpc_result result = { status, frame->body.data, frame->body.len, message };
    call_detach(call);
    call_finish(call, &result);
}

static void client_on_frame(void *ctx, const struct rpc_frame *frame)
{
    struct rpc_client *client = ctx;
    struct call *call = find_call(client, frame->call);

    if (call == NULL) return; /* cancelled or timed out; the server did not know yet */
    if (call->body != NULL) {
        rpc_conn_fail(client->conn, STATUS_PROTOCOL, "an answer to what was not asked");
    } else if (frame->kind == RPC_KIND_ITEM) {
        take_item(client, call, frame);
    } else {
        take_end(call, frame);
    }
}

/* ---- the connection ---- */

static void tell_state(struct rpc_client *client, bool up, enum status why)
{
    if (!up && client->has_told_down) return;
    client->has_told_down = !up;
    if (client->options.on_state == NULL) return;
    client->depth++;
    client->options.on_state(client->options.ctx, up, why);
    client->depth--;
}

static void client_on_ready(void *ctx)
{
    struct rpc_client *client = ctx;

    set_state(client, CLIENT_UP);
    client->backoff_ms = BACKOFF_MS_MIN;
    LOG_DEBUG("rpc", "up", "peer=%s", rpc_conn_peer(client->conn));
    send_waiting(client);
    tell_state(client, true, STATUS_OK);
}

static void client_on_drained(void *ctx)
{
    send_waiting(ctx);
}

/* Between three quarters and all of the backoff, which then doubles. */
static void rest(struct rpc_client *client)
{
    uint32_t dice;

    env_random(client->env, &dice, sizeof(dice));
    const uint64_t full_ns = client->backoff_ms * ENV_NS_PER_MS;
    const uint64_t rest_ns = full_ns - full_ns / 4 * (dice % 1024) / 1024;
    client->backoff_ms *= 2;
    if (client->backoff_ms > BACKOFF_MS_MAX) client->backoff_ms = BACKOFF_MS_MAX;
    env_timer_set(client->env, &client->backoff_timer, env_now_ns(client->env) + rest_ns);
}

/* Of the waiting calls, those that do not wait for the next connection. */
static void end_impatient(struct rpc_client *client)
{
    struct rpc_link all;

    rpc_list_init(&all);
    rpc_list_move(&client->waiting, &all);
    while (!rpc_list_is_empty(&all)) {
        struct call *call = call_of(all.next);
        rpc_list_remove(&call->link);
        rpc_list_append(&client->waiting, &call->link);
        if (!call->wait_until_up) end_soon(call, STATUS_CONN_REFUSED);
    }
}

static void client_on_closed(void *ctx, enum status why)
{
    struct rpc_client *client = ctx;
    struct rpc_link lost;

    rpc_conn_destroy(client->conn);
    client->conn = NULL;
    set_state(client, CLIENT_RESTING);
    rest(client);
    rpc_list_init(&lost);
    rpc_list_move(&client->sent, &lost);
    end_impatient(client);
    tell_state(client, false, why);
    end_all(&lost, STATUS_CONN_CLOSED);
}

static enum status try_dial(struct rpc_client *client, struct errmsg *err)
{
    static const struct rpc_conn_events events = { client_on_ready, client_on_frame,
                                                   client_on_drained, client_on_closed };
    const struct rpc_conn_options options = {
        .secret = client->secret,
        .name = client->name,
        .write_queue_max = client->options.write_queue_max,
        .keepalive_ns = client->options.keepalive_ms * ENV_NS_PER_MS,
        .handshake_ns = client->options.connect_timeout_ms * ENV_NS_PER_MS,
    };
    struct env_stream *stream = NULL;

    const enum status status = env_connect(client->env, client->address, &stream, err);
    if (status != STATUS_OK) return status;
    client->conn = rpc_conn_create(client->env, stream, &options, &events, client);
    if (client->conn == NULL) {
        env_stream_close(stream);
        return STATUS_FULL;
    }
    set_state(client, CLIENT_DIALING);
    return STATUS_OK;
}

static void dial(struct rpc_client *client)
{
    struct errmsg err = { "" };

    ASSERT(client->conn == NULL);
    const enum status status = try_dial(client, &err);
    if (status == STATUS_OK) return;
    LOG_DEBUG("rpc", "dial_failed", "peer=%s reason=%s", client->address, err.text);
    rest(client);
    end_impatient(client);
    tell_state(client, false, status);
}

static void client_on_backoff(void *ctx)
{
    dial(ctx);
}

/* ---- the client ---- */

static void set_defaults(struct rpc_client_options *options)
{
    if (options->calls_max == 0) options->calls_max = CALLS_DEFAULT;
    if (options->write_queue_max == 0) options->write_queue_max = WRITE_QUEUE_DEFAULT;
    if (options->keepalive_ms == 0) options->keepalive_ms = KEEPALIVE_MS_DEFAULT;
    if (options->connect_timeout_ms == 0) options->connect_timeout_ms = CONNECT_TIMEOUT_MS_DEFAULT;
}

static void client_free(struct rpc_client *client)
{
    if (client->secret != NULL) explicit_bzero(client->secret, strlen(client->secret));
    free(client->secret);
    map_destroy(client->calls);
    free(client);
}

enum status rpc_client_create(struct env *env, const struct rpc_client_options *options,
                              struct rpc_client **out, struct errmsg *err)
{
    if (strlen(options->address) >= ADDRESS_SIZE)
        return errmsg_set(err, STATUS_INVALID, "the address %.64s... is too long",
                          options->address);
    struct rpc_client *client = calloc(1, sizeof(*client));
    if (client == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for an RPC client");

    client->env = env;
    client->options = *options;
    set_defaults(&client->options);
    snprintf(client->address, sizeof(client->address), "%s", options->address);
    snprintf(client->name, sizeof(client->name), "%s", options->name != NULL ? options->name : "");
    client->secret = strdup(options->secret != NULL ? options->secret : "");
    client->backoff_ms = BACKOFF_MS_MIN;
    rpc_list_init(&client->waiting);
    rpc_list_init(&client->sent);
    rpc_list_init(&client->ended);
    env_timer_init(&client->backoff_timer, client_on_backoff, client);
    env_timer_init(&client->ended_timer, client_on_ended, client);

    const struct map_options map_options = { .entries_max = client->options.calls_max };
    enum status status = map_create(&map_options, &client->calls);
    if (status == STATUS_OK && client->secret == NULL) status = STATUS_NO_MEMORY;
    if (status == STATUS_OK) status = try_dial(client, err);
    if (status != STATUS_OK && status != STATUS_NO_MEMORY && status != STATUS_INVALID) {
        rest(client); /* a name that does not resolve now may later */
        status = STATUS_OK;
    }
    if (status != STATUS_OK) {
        client_free(client);
        return status;
    }
    *out = client;
    return STATUS_OK;
}

void rpc_client_destroy(struct rpc_client *client)
{
    if (client == NULL) return;
    ASSERT(client->depth == 0);
    client->is_ending = true;
    env_timer_cancel(client->env, &client->backoff_timer);
    env_timer_cancel(client->env, &client->ended_timer);
    rpc_conn_destroy(client->conn);
    client->conn = NULL;
    client->state = CLIENT_RESTING;
    end_all(&client->sent, STATUS_CANCELLED);
    end_all(&client->waiting, STATUS_CANCELLED);
    client_on_ended(client);
    env_timer_cancel(client->env, &client->ended_timer);
    ASSERT(client->calls_count == 0);
    client_free(client);
}

bool rpc_client_is_up(const struct rpc_client *client)
{
    return client->state == CLIENT_UP;
}

const char *rpc_client_address(const struct rpc_client *client)
{
    return client->address;
}
