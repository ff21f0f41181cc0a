/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/metadata_backend.h - one request to a metadata server, whatever it speaks.
 *
 * A backend is what a connection string names. A call is one request to one of its endpoints, on
 * connections of its own, with a deadline; what it asks is one of four verbs, which every backend
 * does as atomically as its server can:
 *
 *   GET    the value of the first key
 *   TAKE   both keys become ours, whoever had them: the newest start of a name owns it
 *   KEEP   both keys are ours for another ttl, if the first was ours or was not there; EXISTS if it
 *          is somebody else's, and then nothing has changed
 *   DROP   both keys are gone if the first was ours; OK too if it was not there; EXISTS as above
 *
 *   server   how an entry dies with its owner              how KEEP and DROP look and act in one
 *   http     `yolk metadata`: ttl in the query; others:    `yolk metadata`: owner in the query;
 *            it does not                                   others: look first, then act
 *   etcd     a lease, whose number comes from the owner    a transaction; DROP ends the lease
 *   redis    PX                                            a script
 *
 * Memory:  a call is on the heap until it is done or cancelled. Threads: the env's.
 * Limits:  METADATA_ENDPOINTS_MAX; an answer of METADATA_ANSWER_MAX bytes. */
#ifndef TRANSFER_METADATA_BACKEND_H
#define TRANSFER_METADATA_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "transfer/metadata_entry.h"

struct env;

enum {
    METADATA_ENDPOINTS_MAX = 4,
    METADATA_ADDRESS_SIZE = 128,
    METADATA_PATH_SIZE = 128,
    METADATA_USER_SIZE = 128,
    METADATA_PASSWORD_SIZE = 256,
    METADATA_LABEL_SIZE = 192,
    METADATA_ANSWER_MAX = 4 * METADATA_VALUE_MAX,
};

enum metadata_kind { METADATA_HTTP, METADATA_ETCD, METADATA_REDIS };

struct metadata_backend {
    enum metadata_kind kind;
    uint32_t endpoint_count;
    char endpoints[METADATA_ENDPOINTS_MAX][METADATA_ADDRESS_SIZE]; /* "host:port" */
    char path[METADATA_PATH_SIZE];                                 /* http */
    char user[METADATA_USER_SIZE];                                 /* etcd, redis; "": none */
    char password[METADATA_PASSWORD_SIZE];                         /* never printed */
    uint32_t database;                                             /* redis */
    char label[METADATA_LABEL_SIZE]; /* the connection string as it may be printed */
};

/* "http://host:port/path", "etcd://[user:password@]host:port,host:port" or a bare "host:port", and
 * "redis://[[user:]password@]host:port[/database]". A port that is missing is 80, 2379, 6379; a
 * path, "/metadata". STATUS_INVALID, with an err that has no password in it. */
MUST_USE enum status metadata_backend_parse(const char *url, struct metadata_backend *out,
                                            struct errmsg *err);

enum metadata_verb { METADATA_GET, METADATA_TAKE, METADATA_KEEP, METADATA_DROP };

/* Texts are borrowed until the call is done. */
struct metadata_request {
    enum metadata_verb verb;
    const char *ram_key, *rpc_key;
    const char *ram_value, *rpc_value; /* TAKE and KEEP */
    const char *owner;                 /* not for GET */
    uint32_t ttl_ms;                   /* TAKE and KEEP */
    uint64_t deadline_ns;
};

struct metadata_call {
    void (*cancel)(struct metadata_call *call);
};

/* `value` is borrowed for the duration; NULL except for a GET that is OK. NOT_FOUND: no such key;
 * EXISTS: see above; DENIED: the server wants another password; UNAVAILABLE, TIMEOUT and what
 * streams say: another endpoint, or a later try, may do better; PROTOCOL: the answer is none. */
typedef void (*metadata_done_fn)(void *ctx, enum status status, const char *value, size_t len);

/* OK: on_done runs once, from the loop, unless cancelled before. */
MUST_USE enum status metadata_call_start(struct env *env, const struct metadata_backend *backend,
                                         uint32_t endpoint, const struct metadata_request *request,
                                         metadata_done_fn on_done, void *ctx,
                                         struct metadata_call **out);
void metadata_call_cancel(struct metadata_call *call); /* NULL is allowed */

/* ---- what each server speaks; each as metadata_call_start() ---- */

MUST_USE enum status metadata_http_call(struct env *env, const struct metadata_backend *backend,
                                        uint32_t endpoint, const struct metadata_request *request,
                                        metadata_done_fn on_done, void *ctx,
                                        struct metadata_call **out);
MUST_USE enum status metadata_etcd_call(struct env *env, const struct metadata_backend *backend,
                                        uint32_t endpoint, const struct metadata_request *request,
                                        metadata_done_fn on_done, void *ctx,
                                        struct metadata_call **out);
MUST_USE enum status metadata_redis_call(struct env *env, const struct metadata_backend *backend,
                                         uint32_t endpoint, const struct metadata_request *request,
                                         metadata_done_fn on_done, void *ctx,
                                         struct metadata_call **out);

#endif
