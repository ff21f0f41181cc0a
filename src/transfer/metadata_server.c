/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer/metadata_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/log.h"
#include "net/http.h"
#include "transfer/metadata_table.h"

enum {
    DEFAULT_ENTRIES = 65536,
    DEFAULT_SIZE = 64 << 20,
    CONNECTIONS_MAX = 4096,
    HEAD_SIZE_MAX = 16 << 10,
    PATH_SIZE = 4096,
    ENTRY_OVERHEAD = 32, /* of an entry in the image, at most */
    TTL_TEXT_SIZE = 12,
};

#define EXPIRE_NS ENV_NS_PER_S
#define SAVE_RETRY_NS ENV_NS_PER_S

/* A request that is answered when the state is on the disk. */
struct waiting {
    struct waiting *next;
    struct http_request *req;
    const char *text;
};

struct metadata_server {
    struct env *env;
    struct http_server *http;
    struct metadata_table *table;
    char path[PATH_SIZE]; /* "": no file */
    size_t image_size_max;
    bool dirty;       /* the file says something else than the table */
    uint64_t rest_ns; /* no file is written before: not more than half of the time goes there */
    struct waiting *waiting;
    struct env_timer save, expire;
    uint64_t gets, puts, deletes, refused, saves, save_failures;
};

/* ---- answers ---- */

static void answer(struct http_request *req, int code, const char *text)
{
    http_respond(req, code, "text/plain; charset=utf-8", text, strlen(text));
}

static void refuse(struct metadata_server *server, struct http_request *req, enum status status)
{
    server->refused++;
    if (status == STATUS_NOT_FOUND)
        answer(req, 404, "metadata not found");
    else if (status == STATUS_EXISTS)
        answer(req, 409, "another owner has this key");
    else if (status == STATUS_FULL)
        answer(req, 507, "the server is full");
    else
        answer(req, 400, "bad key, owner or ttl_ms");
}

/* ---- the query ---- */

static int hex_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool unescape(const char *text, size_t len, char *out, size_t size)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        char c = text[i] == '+' ? ' ' : text[i];
        if (text[i] == '%') {
            const int high = i + 1 < len ? hex_of(text[i + 1]) : -1;
            const int low = i + 2 < len ? hex_of(text[i + 2]) : -1;
            if (high < 0 || low < 0 || high + low == 0) return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (n + 1 >= size) return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return true;
}

bool metadata_server_query(const char *query, const char *name, char *out, size_t size)
{
    const size_t name_len = strlen(name);

    ASSERT(size > 0);
    while (*query != '\0') {
        const size_t len = strcspn(query, "&");
        if (len > name_len && query[name_len] == '=' && memcmp(query, name, name_len) == 0)
            return unescape(query + name_len + 1, len - name_len - 1, out, size);
        query += len;
        if (*query == '&') query++;
    }
    out[0] = '\0';
    return true;
}

static bool number_of(const char *text, uint32_t *out)
{
    if (strlen(text) > 9 || strspn(text, "0123456789") != strlen(text)) return false;
    *out = (uint32_t)strtoul(text, NULL, 10);
    return true;
}

/* ---- the file ---- */

static enum status save_image(struct metadata_server *server)
{
    struct buf image;
    struct errmsg err = { "" };

    buf_init(&image, server->image_size_max);
    enum status status = metadata_table_write(server->table, &image);
    ASSERT(status == STATUS_OK || status == STATUS_FULL); /* FULL: there is no memory */
    if (status == STATUS_OK)
        status = env_file_replace(server->env, server->path, buf_data(&image), image.len, &err);
    buf_fini(&image);
    if (status == STATUS_OK) {
        server->saves++;
        return STATUS_OK;
    }
    server->save_failures++;
    LOG_ERROR("metadata", "save_failed", "path=%s reason=%s detail=%s", server->path,
              status_name(status), err.text);
    return status;
}

static void answer_waiting(struct metadata_server *server, enum status status)
{
    while (server->waiting != NULL) {
        struct waiting *waiting = server->waiting;
        server->waiting = waiting->next;
        if (status == STATUS_OK)
            answer(waiting->req, 200, waiting->text);
        else
            answer(waiting->req, 500, "done, but not saved");
        free(waiting);
    }
}

static void save(struct metadata_server *server)
{
    const uint64_t start_ns = env_now_ns(server->env);
    enum status status = STATUS_OK;

    if (server->dirty && server->path[0] != '\0') status = save_image(server);
    const uint64_t end_ns = env_now_ns(server->env);
    server->rest_ns = end_ns + (end_ns - start_ns);
    server->dirty = status != STATUS_OK;
    answer_waiting(server, status);
    if (server->dirty) env_timer_set(server->env, &server->save, end_ns + SAVE_RETRY_NS);
}

static void on_save(void *ctx)
{
    save(ctx);
}

/* Answers `text` when what has changed is in the file. */
static void answer_saved(struct metadata_server *server, struct http_request *req, const char *text)
{
    struct waiting *waiting = server->path[0] != '\0' ? malloc(sizeof(*waiting)) : NULL;

    server->dirty = true;
    if (waiting == NULL) {
        answer(req, 200, text);
        return;
    }
    *waiting = (struct waiting){ server->waiting, req, text };
    server->waiting = waiting;
    env_timer_set(server->env, &server->save, server->rest_ns);
}

static void on_expire(void *ctx)
{
    struct metadata_server *server = ctx;
    const uint64_t now = env_now_ns(server->env);
    const uint32_t count = metadata_table_expire(server->table, now);

    if (count > 0) {
        LOG_INFO("metadata", "expired", "entries=%u left=%u", count,
                 metadata_table_count(server->table));
        server->dirty = true;
        env_timer_set(server->env, &server->save, server->rest_ns);
    }
    env_timer_set(server->env, &server->expire, now + EXPIRE_NS);
}

/* ---- requests ---- */

static void on_get(struct metadata_server *server, struct http_request *req, const char *key)
{
    const char *value;
    size_t len;
    const enum status status =
        metadata_table_get(server->table, key, env_now_ns(server->env), &value, &len);

    server->gets++;
    if (status != STATUS_OK)
        refuse(server, req, status);
    else
        http_respond(req, 200, "application/json", value, len);
}

static void on_put(struct metadata_server *server, struct http_request *req, const char *key)
{
    const char *query = http_query(req);
    char owner[METADATA_TABLE_OWNER_MAX + 1], ttl[TTL_TEXT_SIZE], keep[8];
    struct metadata_put put = { .key = key, .owner = owner };
    bool changed = false;

    server->puts++;
    put.value = http_body(req, &put.len);
    if (!metadata_server_query(query, "owner", owner, sizeof(owner)) ||
        !metadata_server_query(query, "ttl_ms", ttl, sizeof(ttl)) ||
        !metadata_server_query(query, "keep", keep, sizeof(keep)) || !number_of(ttl, &put.ttl_ms)) {
        refuse(server, req, STATUS_INVALID);
        return;
    }
    put.keep = strcmp(keep, "1") == 0;
    const enum status status =
        metadata_table_put(server->table, &put, env_now_ns(server->env), &changed);
    if (status != STATUS_OK)
        refuse(server, req, status);
    else if (changed)
        answer_saved(server, req, "metadata updated");
    else
        answer(req, 200, "metadata updated");
}

static void on_delete(struct metadata_server *server, struct http_request *req, const char *key)
{
    char owner[METADATA_TABLE_OWNER_MAX + 1];
    enum status status = STATUS_INVALID;

    server->deletes++;
    if (metadata_server_query(http_query(req), "owner", owner, sizeof(owner)))
        status = metadata_table_remove(server->table, key, owner, env_now_ns(server->env));
    if (status != STATUS_OK)
        refuse(server, req, status);
    else
        answer_saved(server, req, "metadata deleted");
}

static void on_metrics(const struct metadata_server *server, struct http_request *req)
{
    char text[2048];
    const int len = snprintf(
        text, sizeof(text),
        "# HELP yolk_metadata_entries Entries held.\n# TYPE yolk_metadata_entries gauge\n"
        "yolk_metadata_entries %u\n"
        "# HELP yolk_metadata_bytes Bytes of keys, owners and values.\n"
        "# TYPE yolk_metadata_bytes gauge\nyolk_metadata_bytes %llu\n"
        "# HELP yolk_metadata_requests_total Requests, by method.\n"
        "# TYPE yolk_metadata_requests_total counter\n"
        "yolk_metadata_requests_total{method=\"get\"} %llu\n"
        "yolk_metadata_requests_total{method=\"put\"} %llu\n"
        "yolk_metadata_requests_total{method=\"delete\"} %llu\n"
        "# HELP yolk_metadata_refused_total Of them, answered with an error.\n"
        "# TYPE yolk_metadata_refused_total counter\nyolk_metadata_refused_total %llu\n"
        "# HELP yolk_metadata_saves_total State files written.\n"
        "# TYPE yolk_metadata_saves_total counter\nyolk_metadata_saves_total %llu\n"
        "# HELP yolk_metadata_save_failures_total State files that could not be.\n"
        "# TYPE yolk_metadata_save_failures_total counter\n"
        "yolk_metadata_save_failures_total %llu\n",
        metadata_table_count(server->table), (unsigned long long)metadata_table_size(server->table),
        (unsigned long long)server->gets, (unsigned long long)server->puts,
        (unsigned long long)server->deletes, (unsigned long long)server->refused,
        (unsigned long long)server->saves, (unsigned long long)server->save_failures);

    ASSERT(len > 0 && len < (int)sizeof(text));
    http_respond(req, 200, "text/plain; version=0.0.4", text, (size_t)len);
}

static void on_metadata(struct metadata_server *server, struct http_request *req)
{
    const char *method = http_method(req);
    char key[METADATA_TABLE_KEY_MAX + 1];

    if (!metadata_server_query(http_query(req), "key", key, sizeof(key)) || key[0] == '\0') {
        refuse(server, req, STATUS_INVALID);
    } else if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0) {
        on_get(server, req, key);
    } else if (strcmp(method, "PUT") == 0) {
        on_put(server, req, key);
    } else if (strcmp(method, "DELETE") == 0) {
        on_delete(server, req, key);
    } else {
        answer(req, 405, "GET, PUT or DELETE");
    }
}

static void on_request(void *ctx, struct http_request *req)
{
    struct metadata_server *server = ctx;
    const char *path = http_path(req);

    if (strcmp(path, "/metadata") == 0) {
        on_metadata(server, req);
    } else if (strcmp(path, "/health") == 0) {
        answer(req, 200, "ok\n");
    } else if (strcmp(path, "/metrics") == 0) {
        on_metrics(server, req);
    } else {
        answer(req, 404, "no such path");
    }
}

/* ---- create and destroy ---- */

/* What is no image is put aside, so that somebody can look at it. */
static enum status put_aside(struct metadata_server *server, struct errmsg *err)
{
    char aside[PATH_SIZE + 16];

    snprintf(aside, sizeof(aside), "%s.corrupt", server->path);
    const enum status status = env_file_rename(server->env, server->path, aside);
    if (status != STATUS_OK) return errmsg_set(err, status, "%s: not a state file", server->path);
    LOG_ERROR("metadata", "state_corrupt", "path=%s aside=%s", server->path, aside);
    return STATUS_OK;
}

static enum status load(struct metadata_server *server,
                        const struct metadata_server_options *options, uint32_t entries_max,
                        uint64_t size_max, struct errmsg *err)
{
    char *image;
    size_t len;
    uint64_t seed;

    if (options->state_file == NULL || options->state_file[0] == '\0') return STATUS_OK;
    if (strlen(options->state_file) >= sizeof(server->path))
        return errmsg_set(err, STATUS_INVALID, "the path of the state file is too long");
    memcpy(server->path, options->state_file, strlen(options->state_file) + 1);
    enum status status =
        env_file_read_all(server->env, server->path, server->image_size_max, &image, &len, err);
    if (status == STATUS_NOT_FOUND) return STATUS_OK;
    if (status != STATUS_OK) return status;
    status = metadata_table_read(server->table, image, len, env_now_ns(server->env));
    free(image);
    if (status == STATUS_FULL)
        return errmsg_set(err, status, "%s holds more than the limits allow", server->path);
    if (status == STATUS_OK) {
        LOG_INFO("metadata", "state_read", "path=%s entries=%u", server->path,
                 metadata_table_count(server->table));
        return STATUS_OK;
    }
    env_random(server->env, &seed, sizeof(seed));
    metadata_table_destroy(server->table);
    server->table = metadata_table_create(entries_max, size_max, seed);
    return server->table != NULL ? put_aside(server, err) : STATUS_NO_MEMORY;
}

enum status metadata_server_create(struct env *env, const struct metadata_server_options *options,
                                   struct metadata_server **out, struct errmsg *err)
{
    const uint32_t entries_max = options->entries_max != 0 ? options->entries_max : DEFAULT_ENTRIES;
    const uint64_t size_max = options->size_max != 0 ? options->size_max : DEFAULT_SIZE;
    struct metadata_server *server = calloc(1, sizeof(*server));
    const struct http_server_options http = {
        .address = options->listen,
        .on_request = on_request,
        .ctx = server,
        .connections_max = CONNECTIONS_MAX,
        .head_size_max = HEAD_SIZE_MAX,
        .body_size_max = METADATA_TABLE_VALUE_MAX,
        .bodies_size_max = size_max,
    };
    uint64_t seed;

    if (server == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "metadata: no memory");
    ASSERT(entries_max <= METADATA_TABLE_ENTRIES_MAX);
    server->env = env;
    server->image_size_max = size_max + (size_t)entries_max * ENTRY_OVERHEAD + 64;
    env_timer_init(&server->save, on_save, server);
    env_timer_init(&server->expire, on_expire, server);
    env_random(env, &seed, sizeof(seed));
    server->table = metadata_table_create(entries_max, size_max, seed);
    enum status status = server->table != NULL
                             ? STATUS_OK
                             : errmsg_set(err, STATUS_NO_MEMORY, "metadata: no memory");
    if (status == STATUS_OK) status = load(server, options, entries_max, size_max, err);
    if (status == STATUS_OK) status = http_server_create(env, &http, &server->http, err);
    if (status != STATUS_OK) {
        metadata_server_destroy(server);
        return status;
    }
    env_timer_set(env, &server->expire, env_now_ns(env) + EXPIRE_NS);
    *out = server;
    return STATUS_OK;
}

void metadata_server_destroy(struct metadata_server *server)
{
    if (server == NULL) return;
    if (server->waiting != NULL) save(server);
    env_timer_cancel(server->env, &server->save);
    env_timer_cancel(server->env, &server->expire);
    http_server_destroy(server->http);
    metadata_table_destroy(server->table);
    free(server);
}

uint16_t metadata_server_port(const struct metadata_server *server)
{
    return http_server_port(server->http);
}

uint32_t metadata_server_entries(const struct metadata_server *server)
{
    return metadata_table_count(server->table);
}
