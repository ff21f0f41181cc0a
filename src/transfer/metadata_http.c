/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/metadata_http.c - metadata over HTTP: GET, PUT and DELETE of PATH?key=KEY.
 *
 * `yolk metadata` also understands `owner`, `ttl_ms` and `keep` in the query, and then looks and
 * acts in one; other servers of this protocol ignore them. For their sake KEEP and DROP look first,
 * and TAKE clears an rpc_meta entry that they refuse to replace.
 *
 *   GET    LOOK
 *   TAKE   RPC_PUT [--refused--> RPC_CLEAR, RPC_AGAIN] RAM_PUT
 *   KEEP   LOOK, RPC_PUT, RAM_PUT
 *   DROP   LOOK, RAM_DELETE, RPC_DELETE */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "transfer/metadata_backend.h"
#include "transfer/metadata_exchange.h"

enum step { LOOK, RPC_PUT, RPC_CLEAR, RPC_AGAIN, RAM_PUT, RAM_DELETE, RPC_DELETE };
enum { TARGET_SIZE = METADATA_PATH_SIZE + 3 * METADATA_KEY_SIZE + 128 };

struct http_call {
    struct metadata_call call;
    struct metadata_request request;
    const char *path;
    enum step step;
    struct metadata_exchange exchange;
    metadata_done_fn on_done;
    void *ctx;
};

static void http_call_free(struct http_call *call)
{
    metadata_exchange_fini(&call->exchange);
    free(call);
}

static void http_call_cancel(struct metadata_call *call)
{
    http_call_free((struct http_call *)call);
}

static void finish(struct http_call *call, enum status status, const char *value, size_t len)
{
    const metadata_done_fn on_done = call->on_done;
    void *ctx = call->ctx;

    on_done(ctx, status, value, len);
    http_call_free(call);
}

/* ---- asking ---- */

static size_t escape(const char *text, char *out)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;

    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
                           (c >= 'a' && c <= 'z') || strchr("-._~/:", c) != NULL;
        if (plain) {
            out[n++] = (char)c;
            continue;
        }
        out[n++] = '%';
        out[n++] = digits[c >> 4];
        out[n++] = digits[c & 15];
    }
    out[n] = '\0';
    return n;
}

static enum status ask(struct http_call *call, enum step step)
{
    const struct metadata_request *request = &call->request;
    const bool ram = step == LOOK || step == RAM_PUT || step == RAM_DELETE;
    const bool put = step == RPC_PUT || step == RPC_AGAIN || step == RAM_PUT;
    const char *value = ram ? request->ram_value : request->rpc_value;
    const char *method = step == LOOK ? "GET" : put ? "PUT" : "DELETE";
    char key[3 * METADATA_KEY_SIZE], target[TARGET_SIZE], more[128] = "";

    call->step = step;
    escape(ram ? request->ram_key : request->rpc_key, key);
    if (put) {
        snprintf(more, sizeof(more), "&owner=%s&ttl_ms=%u%s", request->owner, request->ttl_ms,
                 request->verb == METADATA_KEEP ? "&keep=1" : "");
    } else if (step == RAM_DELETE || step == RPC_DELETE) {
        snprintf(more, sizeof(more), "&owner=%s", request->owner);
    }
    snprintf(target, sizeof(target), "%s?key=%s%s", call->path, key, more);
    return metadata_exchange_start(&call->exchange, method, target, put ? value : NULL,
                                   put ? strlen(value) : 0);
}

static void go_on(struct http_call *call, enum step step)
{
    const enum status status = ask(call, step);
    if (status != STATUS_OK) finish(call, status, NULL, 0);
}

/* ---- understanding ---- */

static enum status status_of(int code)
{
    if (code >= 200 && code < 300) return STATUS_OK;
    if (code == 404) return STATUS_NOT_FOUND;
    if (code == 409) return STATUS_EXISTS;
    if (code == 400) return STATUS_INVALID;
    if (code == 401 || code == 403) return STATUS_DENIED;
    if (code == 413 || code == 507) return STATUS_FULL;
    return code >= 500 ? STATUS_UNAVAILABLE : STATUS_PROTOCOL;
}

static void looked(struct http_call *call, enum status status, const char *value, size_t len)
{
    const bool drop = call->request.verb == METADATA_DROP;
    struct metadata_entry entry;

    if (call->request.verb == METADATA_GET) {
        finish(call, status, status == STATUS_OK ? value : NULL, status == STATUS_OK ? len : 0);
    } else if (status == STATUS_NOT_FOUND) {
        if (drop)
            finish(call, STATUS_OK, NULL, 0);
        else
            go_on(call, RPC_PUT);
    } else if (status != STATUS_OK) {
        finish(call, status, NULL, 0);
    } else if (metadata_entry_read(value, len, &entry) != STATUS_OK ||
               strcmp(entry.owner, call->request.owner) != 0) {
        finish(call, STATUS_EXISTS, NULL, 0);
    } else {
        go_on(call, drop ? RAM_DELETE : RPC_PUT);
    }
}

/* Servers that keep the first rpc_meta of a name refuse the next; if we have it already that is no
 * harm, and if we take the name it has to make room. */
static void rpc_put(struct http_call *call, enum status status)
{
    const bool refused = status == STATUS_INVALID || status == STATUS_EXISTS;

    if (status == STATUS_OK || (status == STATUS_INVALID && call->request.verb == METADATA_KEEP)) {
        go_on(call, RAM_PUT);
    } else if (refused && call->request.verb == METADATA_TAKE && call->step == RPC_PUT) {
        go_on(call, RPC_CLEAR);
    } else {
        finish(call, status == STATUS_NOT_FOUND ? STATUS_PROTOCOL : status, NULL, 0);
    }
}

static void on_answer(void *ctx, enum status status, int code, const char *body, size_t len)
{
    struct http_call *call = ctx;
    const enum status said = status == STATUS_OK ? status_of(code) : status;
    const bool gone = said == STATUS_OK || said == STATUS_NOT_FOUND;

    if (status != STATUS_OK) {
        finish(call, status, NULL, 0);
        return;
    }
    switch (call->step) {
    case LOOK: looked(call, said, body, len); break;
    case RPC_PUT:
    case RPC_AGAIN: rpc_put(call, said); break;
    case RPC_CLEAR: go_on(call, RPC_AGAIN); break;
    case RAM_DELETE:
        if (gone)
            go_on(call, RPC_DELETE);
        else
            finish(call, said, NULL, 0);
        break;
    case RAM_PUT: finish(call, said == STATUS_NOT_FOUND ? STATUS_PROTOCOL : said, NULL, 0); break;
    case RPC_DELETE: finish(call, gone ? STATUS_OK : said, NULL, 0); break;
    }
}

enum status metadata_http_call(struct env *env, const struct metadata_backend *backend,
                               uint32_t endpoint, const struct metadata_request *request,
                               metadata_done_fn on_done, void *ctx, struct metadata_call **out)
{
    struct http_call *call = calloc(1, sizeof(*call));

    if (call == NULL) return STATUS_NO_MEMORY;
    call->call.cancel = http_call_cancel;
    call->request = *request;
    call->path = backend->path;
    call->on_done = on_done;
    call->ctx = ctx;
    metadata_exchange_init(&call->exchange, env, backend->endpoints[endpoint], request->deadline_ns,
                           on_answer, call);
    const enum status status = ask(call, request->verb == METADATA_TAKE ? RPC_PUT : LOOK);
    if (status != STATUS_OK) {
        http_call_free(call);
        return status;
    }
    *out = &call->call;
    return STATUS_OK;
}
