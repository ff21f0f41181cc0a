/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer/metadata_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "transfer/transfer_int.h"

static const char *const scheme_names[] = {
    [METADATA_HTTP] = "http", [METADATA_ETCD] = "etcd", [METADATA_REDIS] = "redis"
};
static const char *const default_ports[] = {
    [METADATA_HTTP] = "80", [METADATA_ETCD] = "2379", [METADATA_REDIS] = "6379"
};

static enum status refuse(struct errmsg *err, const char *why)
{
    return errmsg_set(err, STATUS_INVALID,
                      "metadata: %s; expected P2PHANDSHAKE, http://host:port/path, "
                      "etcd://host:port or redis://host:port",
                      why);
}

/* Copies `len` bytes of printable text; false if they are not, or do not fit. */
static bool copy_text(const char *from, size_t len, char *out, size_t size)
{
    if (len >= size) return false;
    for (size_t i = 0; i < len; i++) {
        if (from[i] <= ' ' || from[i] > '~') return false;
    }
    memcpy(out, from, len);
    out[len] = '\0';
    return true;
}

/* ---- the parts of a connection string ---- */

static bool take_scheme(const char **url, struct metadata_backend *out)
{
    const char *end = strstr(*url, "://");

    if (end == NULL) {
        out->kind = METADATA_ETCD;
        return true;
    }
    for (unsigned kind = METADATA_HTTP; kind <= METADATA_REDIS; kind++) {
        const size_t len = strlen(scheme_names[kind]);
        if ((size_t)(end - *url) != len || strncmp(*url, scheme_names[kind], len) != 0) continue;
        out->kind = (enum metadata_kind)kind;
        *url = end + 3;
        return true;
    }
    return false;
}

static bool has_port(const char *host, size_t len)
{
    const char *colon = memrchr(host, ':', len);
    const char *bracket = memrchr(host, ']', len);

    return colon != NULL && (bracket == NULL || colon > bracket);
}

static bool take_endpoint(const char *text, size_t len, struct metadata_backend *out)
{
    char *to;

    if (len == 0 || out->endpoint_count == METADATA_ENDPOINTS_MAX) return false;
    to = out->endpoints[out->endpoint_count];
    if (!copy_text(text, len, to, METADATA_ADDRESS_SIZE - 8)) return false;
    if (!has_port(text, len)) {
        to[len] = ':';
        memcpy(to + len + 1, default_ports[out->kind], strlen(default_ports[out->kind]) + 1);
    }
    if (transfer_host_length(to) == 0) return false;
    out->endpoint_count++;
    return true;
}

static bool take_endpoints(const char *text, size_t len, struct metadata_backend *out)
{
    while (true) {
        const char *comma = memchr(text, ',', len);
        const size_t part = comma != NULL ? (size_t)(comma - text) : len;
        if (!take_endpoint(text, part, out)) return false;
        if (comma == NULL) return true;
        text += part + 1;
        len -= part + 1;
    }
}

static bool take_database(const char *text, struct metadata_backend *out)
{
    char *end;

    if (text[0] == '\0') return true;
    if (strlen(text) > 5 || strspn(text, "0123456789") != strlen(text)) return false;
    out->database = (uint32_t)strtoul(text, &end, 10);
    return *end == '\0';
}

/* "user:password@", ":password@" or "password@"; what users of other engines put into the
 * environment counts where the string says nothing. */
static bool take_login(const char *text, size_t len, struct metadata_backend *out)
{
    const char *colon = memchr(text, ':', len);
    const size_t user_len = colon != NULL ? (size_t)(colon - text) : 0;
    const char *password = colon != NULL ? colon + 1 : text;

    return copy_text(text, user_len, out->user, sizeof(out->user)) &&
           copy_text(password, (size_t)(text + len - password), out->password,
                     sizeof(out->password));
}

static bool login_of_environment(struct metadata_backend *out)
{
    const char *user = getenv("MC_REDIS_USERNAME"), *password = getenv("MC_REDIS_PASSWORD");
    const char *database = getenv("MC_REDIS_DB_INDEX");
    bool sane = true;

    if (out->password[0] == '\0' && password != NULL) {
        sane = copy_text(password, strlen(password), out->password, sizeof(out->password));
        if (user != NULL) {
            sane = sane && copy_text(user, strlen(user), out->user, sizeof(out->user));
        }
    }
    if (out->database == 0 && database != NULL) sane = sane && take_database(database, out);
    return sane;
}

static void label(struct metadata_backend *out)
{
    char database[16] = "";

    if (out->database != 0) snprintf(database, sizeof(database), "/%u", out->database);
    snprintf(out->label, sizeof(out->label), "%s://%s%s%.40s%s", scheme_names[out->kind],
             out->endpoints[0], out->endpoint_count > 1 ? ",..." : "",
             out->kind == METADATA_HTTP ? out->path : "", database);
}

enum status metadata_backend_parse(const char *url, struct metadata_backend *out,
                                   struct errmsg *err)
{
    struct metadata_backend backend = { .path = "/metadata" };

    if (!take_scheme(&url, &backend)) return refuse(err, "no such kind of server");
    const char *at = strrchr(url, '@');
    if (at != NULL) {
        if (backend.kind == METADATA_HTTP) return refuse(err, "http takes no password");
        if (!take_login(url, (size_t)(at - url), &backend))
            return refuse(err, "bad user, password");
        if (backend.kind == METADATA_ETCD &&
            (backend.user[0] == '\0' || backend.password[0] == '\0'))
            return refuse(err, "etcd takes a user and a password");
        url = at + 1;
    }
    const size_t hosts_len = strcspn(url, "/");
    if (!take_endpoints(url, hosts_len, &backend)) return refuse(err, "bad host or port");
    const char *rest = url + hosts_len;
    if (backend.kind == METADATA_HTTP && strlen(rest) > 1) {
        if (strpbrk(rest, "?#") != NULL ||
            !copy_text(rest, strlen(rest), backend.path, sizeof(backend.path)))
            return refuse(err, "bad path");
    } else if (backend.kind == METADATA_REDIS && rest[0] == '/') {
        if (!take_database(rest + 1, &backend)) return refuse(err, "bad database");
    } else if (strlen(rest) > 1) {
        return refuse(err, "no path expected");
    }
    if (backend.kind == METADATA_REDIS && !login_of_environment(&backend))
        return refuse(err, "bad MC_REDIS_USERNAME, MC_REDIS_PASSWORD or MC_REDIS_DB_INDEX");
    label(&backend);
    *out = backend;
    return STATUS_OK;
}

/* ---- calls ---- */

enum status metadata_call_start(struct env *env, const struct metadata_backend *backend,
                                uint32_t endpoint, const struct metadata_request *request,
                                metadata_done_fn on_done, void *ctx, struct metadata_call **out)
{
    ASSERT(endpoint < backend->endpoint_count && request->deadline_ns != 0);
    ASSERT(request->verb == METADATA_GET || request->owner != NULL);
    switch (backend->kind) {
    case METADATA_HTTP:
        return metadata_http_call(env, backend, endpoint, request, on_done, ctx, out);
    case METADATA_ETCD:
        return metadata_etcd_call(env, backend, endpoint, request, on_done, ctx, out);
    case METADATA_REDIS:
        return metadata_redis_call(env, backend, endpoint, request, on_done, ctx, out);
    }
    return STATUS_INVALID;
}

void metadata_call_cancel(struct metadata_call *call)
{
    if (call != NULL) call->cancel(call);
}
