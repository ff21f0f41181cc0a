/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/metadata_etcd.c - metadata in etcd v3, over its JSON gateway: keys and values in base64,
 * 64-bit numbers as text.
 *
 * Both keys hang on one lease, whose number is made of the owner's token; so nothing has to be
 * remembered from call to call, a request that is repeated changes nothing, and to end the lease
 * removes what is ours and nothing else.
 *
 *   GET    RANGE
 *   TAKE   GRANT, PUT
 *   KEEP   ALIVE [--expired--> GRANT] PUT, which is a transaction: does the first key hang on our
 *          lease? Then nothing; else, is it absent? Then put both; else EXISTS
 *   DROP   REVOKE
 *
 * With a user and a password each of these begins with LOGIN, and what follows shows the token that
 * it gave; nothing is kept from call to call, so a token cannot be too old. A server without users
 * says so, and is asked without one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "transfer/base64.h"
#include "transfer/metadata_backend.h"
#include "transfer/metadata_exchange.h"

enum step { LOGIN, RANGE, GRANT, ALIVE, PUT, REVOKE };
enum { CODE_NOT_FOUND = 5, CODE_EXISTS = 9, CODE_DENIED = 7, CODE_UNAUTHENTICATED = 16 };
enum { LEASE_TTL_MIN_S = 1, REQUEST_SIZE_MAX = 8 * METADATA_VALUE_MAX };

struct etcd_call {
    struct metadata_call call;
    struct metadata_request request;
    const struct metadata_backend *backend;
    uint64_t lease;
    enum step step, first; /* first: after LOGIN */
    struct metadata_exchange exchange;
    metadata_done_fn on_done;
    void *ctx;
};

static void etcd_call_free(struct etcd_call *call)
{
    metadata_exchange_fini(&call->exchange);
    free(call);
}

static void etcd_call_cancel(struct metadata_call *call)
{
    etcd_call_free((struct etcd_call *)call);
}

static void finish(struct etcd_call *call, enum status status, const char *value, size_t len)
{
    const metadata_done_fn on_done = call->on_done;
    void *ctx = call->ctx;

    on_done(ctx, status, value, len);
    etcd_call_free(call);
}

/* ---- asking ---- */

static enum status write_base64(struct buf *out, const char *text)
{
    return base64_write(out, text, strlen(text));
}

static enum status write_put(struct buf *out, const struct etcd_call *call, const char *key,
                             const char *value)
{
    enum status status = buf_append_text(out, "{\"request_put\":{\"key\":\"");
    if (status == STATUS_OK) status = write_base64(out, key);
    if (status == STATUS_OK) status = buf_append_text(out, "\",\"value\":\"");
    if (status == STATUS_OK) status = write_base64(out, value);
    if (status != STATUS_OK) return status;
    return buf_printf(out, "\",\"lease\":\"%llu\"}}", (unsigned long long)call->lease);
}

static enum status write_puts(struct buf *out, const struct etcd_call *call)
{
    enum status status = write_put(out, call, call->request.ram_key, call->request.ram_value);
    if (status == STATUS_OK) status = buf_append_text(out, ",");
    if (status != STATUS_OK) return status;
    return write_put(out, call, call->request.rpc_key, call->request.rpc_value);
}

static enum status write_compare(struct buf *out, const struct etcd_call *call, const char *what)
{
    enum status status = buf_append_text(out, "\"compare\":[{\"key\":\"");
    if (status == STATUS_OK) status = write_base64(out, call->request.ram_key);
    if (status != STATUS_OK) return status;
    return buf_printf(out, "\",\"result\":\"EQUAL\",%s}]", what);
}

/* success: nothing but looking; failure: put both if the key is not there. */
static enum status write_keep(struct buf *out, const struct etcd_call *call)
{
    char lease[64];

    snprintf(lease, sizeof(lease), "\"target\":\"LEASE\",\"lease\":\"%llu\"",
             (unsigned long long)call->lease);
    enum status status = buf_append_text(out, "{");
    if (status == STATUS_OK) status = write_compare(out, call, lease);
    if (status == STATUS_OK)
        status = buf_append_text(out, ",\"success\":[],\"failure\":[{\"request_txn\":{");
    if (status == STATUS_OK)
        status = write_compare(out, call, "\"target\":\"CREATE\",\"create_revision\":\"0\"");
    if (status == STATUS_OK) status = buf_append_text(out, ",\"success\":[");
    if (status == STATUS_OK) status = write_puts(out, call);
    if (status != STATUS_OK) return status;
    return buf_append_text(out, "],\"failure\":[]}}]}");
}

static enum status write_take(struct buf *out, const struct etcd_call *call)
{
    enum status status = buf_append_text(out, "{\"compare\":[],\"success\":[");
    if (status == STATUS_OK) status = write_puts(out, call);
    if (status != STATUS_OK) return status;
    return buf_append_text(out, "],\"failure\":[]}");
}

static enum status write_range(struct buf *out, const struct etcd_call *call)
{
    enum status status = buf_append_text(out, "{\"key\":\"");
    if (status == STATUS_OK) status = write_base64(out, call->request.ram_key);
    if (status != STATUS_OK) return status;
    return buf_append_text(out, "\"}");
}

/* Printable, as they are read. */
static enum status write_quoted(struct buf *out, const char *text)
{
    enum status status = buf_append_text(out, "\"");

    for (; *text != '\0' && status == STATUS_OK; text++) {
        if (*text == '"' || *text == '\\') status = buf_append(out, "\\", 1);
        if (status == STATUS_OK) status = buf_append(out, text, 1);
    }
    return status == STATUS_OK ? buf_append_text(out, "\"") : status;
}

static enum status write_login(struct buf *out, const struct etcd_call *call)
{
    enum status status = buf_append_text(out, "{\"name\":");
    if (status == STATUS_OK) status = write_quoted(out, call->backend->user);
    if (status == STATUS_OK) status = buf_append_text(out, ",\"password\":");
    if (status == STATUS_OK) status = write_quoted(out, call->backend->password);
    return status == STATUS_OK ? buf_append_text(out, "}") : status;
}

static enum status write_request(struct buf *out, const struct etcd_call *call)
{
    const unsigned long long lease = call->lease;
    uint32_t ttl_s = (call->request.ttl_ms + 999) / 1000;

    if (ttl_s < LEASE_TTL_MIN_S) ttl_s = LEASE_TTL_MIN_S;
    switch (call->step) {
    case LOGIN: return write_login(out, call);
    case RANGE: return write_range(out, call);
    case GRANT: return buf_printf(out, "{\"TTL\":\"%u\",\"ID\":\"%llu\"}", ttl_s, lease);
    case PUT:
        return call->request.verb == METADATA_TAKE ? write_take(out, call) : write_keep(out, call);
    case ALIVE:
    case REVOKE: return buf_printf(out, "{\"ID\":\"%llu\"}", lease);
    }
    return STATUS_INVALID;
}

static enum status ask(struct etcd_call *call, enum step step)
{
    static const char *const paths[] = {
        [LOGIN] = "/v3/auth/authenticate", [RANGE] = "/v3/kv/range", [GRANT] = "/v3/lease/grant",
        [ALIVE] = "/v3/lease/keepalive",   [PUT] = "/v3/kv/txn",     [REVOKE] = "/v3/lease/revoke"
    };
    struct buf text;

    call->step = step;
    buf_init(&text, REQUEST_SIZE_MAX);
    enum status status = write_request(&text, call);
    if (status == STATUS_OK) {
        status = metadata_exchange_start(&call->exchange, "POST", paths[step],
                                         (const char *)buf_data(&text), text.len);
    }
    if (step == LOGIN) explicit_bzero(buf_data(&text), text.len);
    buf_fini(&text);
    return status;
}

static void go_on(struct etcd_call *call, enum step step)
{
    const enum status status = ask(call, step);
    if (status != STATUS_OK) finish(call, status, NULL, 0);
}

/* ---- understanding ---- */

/* A number that comes as a number or, having 64 bits, as text; 0 when it is left out. */
static int64_t number_of(const struct json_value *value)
{
    const char *text = json_value_text(value);
    int64_t number = 0;

    if (text != NULL && strspn(text, "0123456789") == strlen(text)) return strtoll(text, NULL, 10);
    return json_value_integer(value, &number) ? number : 0;
}

static enum status status_of(int code, const struct json_value *root)
{
    const int64_t error = number_of(json_value_member(root, "code"));
    const char *words = json_value_text(json_value_member(root, "message"));

    if (code >= 200 && code < 300) return STATUS_OK;
    if (error == CODE_NOT_FOUND) return STATUS_NOT_FOUND;
    if (error == CODE_EXISTS) return STATUS_EXISTS;
    if (error == CODE_DENIED || error == CODE_UNAUTHENTICATED || code == 401 || code == 403)
        return STATUS_DENIED;
    /* What it says to who has not logged in; the code alone is that of any bad request. */
    if (words != NULL && strstr(words, "user name is empty") != NULL) return STATUS_DENIED;
    return code >= 500 ? STATUS_UNAVAILABLE : STATUS_PROTOCOL;
}

/* A token that can stand in a header. */
static void logged_in(struct etcd_call *call, const struct json_value *root)
{
    const char *token = json_value_text(json_value_member(root, "token"));
    const size_t len = token != NULL ? strlen(token) : 0;
    bool good = len > 0 && len < sizeof(call->exchange.token);

    for (size_t i = 0; i < len && good; i++)
        good = token[i] > ' ' && token[i] <= '~';
    if (!good) {
        finish(call, STATUS_PROTOCOL, NULL, 0);
        return;
    }
    memcpy(call->exchange.token, token, len + 1);
    go_on(call, call->first);
}

static void ranged(struct etcd_call *call, const struct json_value *root)
{
    const struct json_value *kvs = json_value_member(root, "kvs");
    const char *coded = json_value_text(json_value_member(json_value_at(kvs, 0), "value"));
    uint8_t *value = NULL;
    size_t len = 0;
    enum status status = STATUS_NOT_FOUND;

    if (json_value_count(kvs) > 0) {
        status = coded != NULL ? STATUS_OK : STATUS_PROTOCOL;
        if (coded != NULL) value = malloc(strlen(coded) / 4 * 3 + 1);
        if (coded != NULL && value == NULL) status = STATUS_NO_MEMORY;
        if (value != NULL) status = base64_read(coded, strlen(coded), value, &len);
    }
    finish(call, status, status == STATUS_OK ? (const char *)value : NULL, len);
    free(value);
}

static bool succeeded(const struct json_value *txn)
{
    bool yes = false;
    return json_value_bool(json_value_member(txn, "succeeded"), &yes) && yes;
}

/* TAKE has no condition. KEEP: ours already, or, in the inner transaction, not there. */
static void was_put(struct etcd_call *call, const struct json_value *root)
{
    const struct json_value *first = json_value_at(json_value_member(root, "responses"), 0);
    const struct json_value *inner = json_value_member(first, "response_txn");

    finish(call, succeeded(root) || succeeded(inner) ? STATUS_OK : STATUS_EXISTS, NULL, 0);
}

static void understood(struct etcd_call *call, enum status status, const struct json_value *root)
{
    const struct json_value *result = json_value_member(root, "result");

    if (call->step == GRANT && status == STATUS_EXISTS) status = STATUS_OK; /* granted before */
    if (call->step == REVOKE && status == STATUS_NOT_FOUND) status = STATUS_OK;
    if (call->step == LOGIN && status == STATUS_EXISTS) { /* it has no users */
        go_on(call, call->first);
        return;
    }
    if (call->step == LOGIN && status == STATUS_PROTOCOL) status = STATUS_DENIED; /* wrong ones */
    if (status != STATUS_OK) {
        /* The lease ended under a PUT: the next try grants another. */
        if (status == STATUS_NOT_FOUND || status == STATUS_EXISTS) status = STATUS_UNAVAILABLE;
        finish(call, status, NULL, 0);
        return;
    }
    switch (call->step) {
    case LOGIN: logged_in(call, root); break;
    case RANGE: ranged(call, root); break;
    case GRANT: go_on(call, PUT); break;
    case ALIVE: go_on(call, number_of(json_value_member(result, "TTL")) > 0 ? PUT : GRANT); break;
    case PUT: was_put(call, root); break;
    case REVOKE: finish(call, STATUS_OK, NULL, 0); break;
    }
}

static void on_answer(void *ctx, enum status status, int code, const char *body, size_t len)
{
    struct etcd_call *call = ctx;
    struct json_value *root = NULL;

    if (status == STATUS_OK && json_document_parse(body, len, &root, NULL) != STATUS_OK)
        status = STATUS_PROTOCOL;
    if (status == STATUS_OK) {
        understood(call, status_of(code, root), root);
    } else {
        finish(call, status, NULL, 0);
    }
    json_document_destroy(root);
}

/* A positive 63-bit number out of the token's first half. */
static uint64_t lease_of(const char *owner)
{
    char half[17] = "";

    memcpy(half, owner, 16);
    return (strtoull(half, NULL, 16) & (UINT64_MAX >> 1)) | 1;
}

enum status metadata_etcd_call(struct env *env, const struct metadata_backend *backend,
                               uint32_t endpoint, const struct metadata_request *request,
                               metadata_done_fn on_done, void *ctx, struct metadata_call **out)
{
    static const enum step first[] = { [METADATA_GET] = RANGE,
                                       [METADATA_TAKE] = GRANT,
                                       [METADATA_KEEP] = ALIVE,
                                       [METADATA_DROP] = REVOKE };
    struct etcd_call *call = calloc(1, sizeof(*call));

    if (call == NULL) return STATUS_NO_MEMORY;
    call->call.cancel = etcd_call_cancel;
    call->request = *request;
    call->backend = backend;
    call->first = first[request->verb];
    call->lease = request->verb != METADATA_GET ? lease_of(request->owner) : 0;
    call->on_done = on_done;
    call->ctx = ctx;
    metadata_exchange_init(&call->exchange, env, backend->endpoints[endpoint], request->deadline_ns,
                           on_answer, call);
    const enum status status = ask(call, backend->user[0] != '\0' ? LOGIN : call->first);
    if (status != STATUS_OK) {
        etcd_call_free(call);
        return status;
    }
    *out = &call->call;
    return STATUS_OK;
}
