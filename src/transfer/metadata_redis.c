/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/metadata_redis.c - metadata in Redis: one connection a call, everything it has to say
 * written at once, the answers counted as they come.
 *
 * [AUTH], [SELECT], then GET or a script. A script looks at the first key and acts on both in one;
 * whose an entry is, is seen by the owner's token in its text. The two keys of a call may not live
 * on different servers, so Redis Cluster is not supported.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "transfer/metadata_backend.h"
#include "transfer/resp.h"

enum { REQUEST_SIZE_MAX = 4 * METADATA_VALUE_MAX, READ_SIZE = 16 << 10 };
enum { INPUT_SIZE_MAX = RESP_BULK_MAX + 4 * RESP_LINE_MAX };

#define PUT_BOTH                                                                                   \
    "redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[4]) "                                              \
    "redis.call('SET',KEYS[2],ARGV[3],'PX',ARGV[4]) return 1"
#define UNLESS_OTHERS                                                                              \
    "local v=redis.call('GET',KEYS[1]) "                                                           \
    "if v and not string.find(v,ARGV[1],1,true) then return 0 end "

struct redis_call {
    struct metadata_call call;
    struct env *env;
    struct env_stream *stream;
    struct env_timer timer;
    struct buf out, in;
    unsigned before; /* answers that come before the one that counts */
    bool get;
    metadata_done_fn on_done;
    void *ctx;
};

static void redis_call_free(struct redis_call *call)
{
    env_timer_cancel(call->env, &call->timer);
    env_stream_close(call->stream);
    buf_fini(&call->out);
    buf_fini(&call->in);
    free(call);
}

static void redis_call_cancel(struct metadata_call *call)
{
    redis_call_free((struct redis_call *)call);
}

static void finish(struct redis_call *call, enum status status, const char *value, size_t len)
{
    const metadata_done_fn on_done = call->on_done;
    void *ctx = call->ctx;

    on_done(ctx, status, value, len);
    redis_call_free(call);
}

static void on_deadline(void *ctx)
{
    finish(ctx, STATUS_TIMEOUT, NULL, 0);
}

/* ---- asking ---- */

static enum status write_login(struct redis_call *call, const struct metadata_backend *backend)
{
    const char *const old_words[] = { "AUTH", backend->password };
    const char *const words[] = { "AUTH", backend->user, backend->password };
    char number[16];
    const char *const select[] = { "SELECT", number };
    enum status status = STATUS_OK;

    if (backend->password[0] != '\0') {
        call->before++;
        status = backend->user[0] != '\0' ? resp_write(&call->out, words, 3)
                                          : resp_write(&call->out, old_words, 2);
    }
    if (status == STATUS_OK && backend->database != 0) {
        call->before++;
        snprintf(number, sizeof(number), "%u", backend->database);
        status = resp_write(&call->out, select, 2);
    }
    return status;
}

static enum status write_verb(struct redis_call *call, const struct metadata_request *request)
{
    static const char *const scripts[] = {
        [METADATA_GET] = NULL,
        [METADATA_TAKE] = PUT_BOTH,
        [METADATA_KEEP] = UNLESS_OTHERS PUT_BOTH,
        [METADATA_DROP] = UNLESS_OTHERS "if v then redis.call('DEL',KEYS[1],KEYS[2]) end return 1",
    };
    const char *script = scripts[request->verb];
    const bool drop = request->verb == METADATA_DROP;
    char ttl[16];

    if (script == NULL) {
        const char *const words[] = { "GET", request->ram_key };
        return resp_write(&call->out, words, 2);
    }
    snprintf(ttl, sizeof(ttl), "%u", request->ttl_ms);
    const char *const words[] = {
        "EVAL",
        script,
        "2",
        request->ram_key,
        request->rpc_key,
        request->owner,
        drop ? "" : request->ram_value,
        drop ? "" : request->rpc_value,
        ttl,
    };
    return resp_write(&call->out, words, sizeof(words) / sizeof(words[0]));
}

/* ---- understanding ---- */

static bool says(const struct resp_reply *reply, const char *word)
{
    return reply->len >= strlen(word) && memcmp(reply->text, word, strlen(word)) == 0;
}

static enum status status_of_error(const struct resp_reply *reply)
{
    static const char *const denied[] = { "NOAUTH",   "WRONGPASS",
                                          "NOPERM",   "ERR invalid password",
                                          "ERR AUTH", "ERR Client sent AUTH" };
    static const char *const later[] = { "LOADING",    "READONLY", "MASTERDOWN",
                                         "NOREPLICAS", "BUSY",     "OOM" };

    for (size_t i = 0; i < sizeof(denied) / sizeof(denied[0]); i++) {
        if (says(reply, denied[i])) return STATUS_DENIED;
    }
    for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++) {
        if (says(reply, later[i])) return STATUS_UNAVAILABLE;
    }
    return STATUS_PROTOCOL;
}

/* The answer that counts. */
static void answered(struct redis_call *call, const struct resp_reply *reply)
{
    if (call->get) {
        if (reply->kind == RESP_BULK)
            finish(call, STATUS_OK, reply->text, reply->len);
        else
            finish(call, reply->kind == RESP_NIL ? STATUS_NOT_FOUND : STATUS_PROTOCOL, NULL, 0);
    } else if (reply->kind != RESP_INTEGER) {
        finish(call, STATUS_PROTOCOL, NULL, 0);
    } else {
        finish(call, reply->integer == 1 ? STATUS_OK : STATUS_EXISTS, NULL, 0);
    }
}

/* False when the call is over. */
static bool understand(struct redis_call *call)
{
    struct resp_reply reply;
    size_t taken;

    while (true) {
        const enum status status =
            resp_read((const char *)buf_data(&call->in), call->in.len, &reply, &taken);
        if (status == STATUS_AGAIN) return true;
        if (status != STATUS_OK) {
            finish(call, status, NULL, 0);
            return false;
        }
        if (reply.kind == RESP_ERROR) {
            finish(call, status_of_error(&reply), NULL, 0);
            return false;
        }
        if (call->before == 0) {
            answered(call, &reply);
            return false;
        }
        call->before--;
        buf_consume(&call->in, taken);
    }
}

static enum status read_some(struct redis_call *call)
{
    uint8_t *to;
    size_t n;

    if (buf_reserve(&call->in, READ_SIZE, &to) != STATUS_OK) return STATUS_PROTOCOL;
    const enum status status = env_stream_read(call->stream, to, READ_SIZE, &n);
    if (status == STATUS_OK) buf_commit(&call->in, n);
    return status;
}

static enum status write_some(struct redis_call *call)
{
    while (call->out.len > 0) {
        const struct iovec part = { buf_data(&call->out), call->out.len };
        size_t n = 0;
        const enum status status = env_stream_writev(call->stream, &part, 1, &n);
        if (status != STATUS_OK) return status;
        buf_consume(&call->out, n);
    }
    return STATUS_OK;
}

static void on_ready(void *ctx, unsigned events)
{
    struct redis_call *call = ctx;

    if ((events & ENV_WRITE) != 0) {
        const enum status status = write_some(call);
        if (status == STATUS_OK) {
            env_stream_watch(call->stream, ENV_READ, on_ready, call);
        } else if (status != STATUS_AGAIN) {
            finish(call, status, NULL, 0);
            return;
        }
    }
    if ((events & ENV_READ) == 0) return;
    const enum status status = read_some(call);
    if (status == STATUS_OK) {
        understand(call);
    } else if (status != STATUS_AGAIN) {
        finish(call, status, NULL, 0);
    }
}

enum status metadata_redis_call(struct env *env, const struct metadata_backend *backend,
                                uint32_t endpoint, const struct metadata_request *request,
                                metadata_done_fn on_done, void *ctx, struct metadata_call **out)
{
    struct redis_call *call = calloc(1, sizeof(*call));

    if (call == NULL) return STATUS_NO_MEMORY;
    call->call.cancel = redis_call_cancel;
    call->env = env;
    call->get = request->verb == METADATA_GET;
    call->on_done = on_done;
    call->ctx = ctx;
    buf_init(&call->out, REQUEST_SIZE_MAX);
    buf_init(&call->in, INPUT_SIZE_MAX + READ_SIZE);
    env_timer_init(&call->timer, on_deadline, call);
    enum status status = write_login(call, backend);
    if (status == STATUS_OK) status = write_verb(call, request);
    if (status == STATUS_OK)
        status = env_connect(env, backend->endpoints[endpoint], &call->stream, NULL);
    if (status != STATUS_OK) {
        redis_call_free(call);
        return status;
    }
    env_timer_set(env, &call->timer, request->deadline_ns);
    env_stream_watch(call->stream, ENV_READ | ENV_WRITE, on_ready, call);
    *out = &call->call;
    return STATUS_OK;
}
