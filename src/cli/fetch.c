/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/fetch.c - see fetch.h.
 *
 * One answer after the other is taken, each with a connection of its own, until the file is whole:
 * redirections are followed, and a connection that breaks or stands still is replaced by one that
 * asks for the rest (Range). What is there is of the same file if the server says so (If-Range with
 * the ETag or time of the first answer, kept beside it), or if the SHA-256 to expect is known;
 * otherwise it is fetched from the start. So is what turns out to be wrong at the end.
 *
 *   models/NAME-HASH.gguf            the model; HASH is that of the URL
 *   models/NAME-HASH.gguf.sha256     of what it is, as sha256sum writes it; there before the model
 *   models/.fetch/NAME-HASH.part     what has come so far
 *   models/.fetch/NAME-HASH.tag      of which file that is
 *   models/.fetch/NAME-HASH.lock     held while one process fetches
 *
 * Invariants
 *   I1  models/NAME-HASH.gguf is whole and verified: it is only ever renamed into place.
 *   I2  `offset` is the length of the .part file, and `high` the most it has been in this process:
 *       who does not raise it TRIES_MAX times in a row is given up. */
#include "cli/fetch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/env.h"
#include "base/env_real.h"
#include "base/hash.h"
#include "cli/fetch_place.h"
#include "cli/progress.h"
#include "model/model.h"
#include "net/http_client.h"
#include "net/tls.h"

#define STALL_NS (30 * ENV_NS_PER_S)
#define PAUSE_NS (ENV_NS_PER_S / 2)

enum {
    REDIRECTS_MAX = 5,
    TRIES_MAX = 4,
    TAG_SIZE = 256,
    HEADERS_SIZE = 2 * TAG_SIZE,
    SHA256_TEXT_MAX = 4096,
};

static const char MAGIC[] = "GGUF";
static const char AUTHORITIES[] = "/etc/ssl/certs/ca-certificates.crt";

struct fetch {
    struct env *env;
    struct fetch_place place;
    char sha256[HASH_SHA256_HEX_SIZE]; /* to be; "": not known */
    char path[CLI_PATH_SIZE], part[CLI_PATH_SIZE], tag_path[CLI_PATH_SIZE];
    char lock_path[CLI_PATH_SIZE];
    struct env_file *file; /* the .part */
    uint64_t offset, high;
    char tag[TAG_SIZE]; /* of what is there */
    struct progress progress;
};

/* One request, and what became of it. */
struct exchange {
    struct fetch *fetch;
    const struct fetch_place *place;
    struct buf *text; /* the body goes there; NULL: into the file */
    struct http_client *client;
    struct env_timer stall;
    uint64_t total; /* bytes of the whole file; 0: not said */
    int code;
    enum status status; /* OK: the body is whole */
    bool over, again;   /* again: worth another try */
    char location[FETCH_URL_SIZE];
    struct errmsg *err;
};

/* ---- SHA-256 ---- */

/* 64 hexadecimal digits, and then nothing that is one. */
static bool take_sha256(const char *text, char out[HASH_SHA256_HEX_SIZE])
{
    const size_t len = strspn(text, "0123456789abcdefABCDEF");

    if (len != HASH_SHA256_HEX_SIZE - 1) return false;
    for (size_t i = 0; i < len; i++)
        out[i] = (char)(text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 'a' : text[i]);
    out[len] = '\0';
    return true;
}

/* ---- one exchange ---- */

static void end(struct exchange *x, enum status status)
{
    x->status = status;
    x->over = true;
    x->client = NULL;
}

/* Ends it from inside a callback. */
static void stop(struct exchange *x, enum status status)
{
    http_client_cancel(x->client);
    end(x, status);
}

static void on_stall(void *ctx)
{
    struct exchange *x = ctx;

    x->again = true;
    stop(x, errmsg_set(x->err, STATUS_TIMEOUT, "%s: nothing has come for %d seconds",
                       x->place->shown, (int)(STALL_NS / ENV_NS_PER_S)));
}

static void be_patient(struct exchange *x)
{
    env_timer_set(x->fetch->env, &x->stall, env_now_ns(x->fetch->env) + STALL_NS);
}

static uint64_t number_of(const char *text)
{
    return text == NULL ? 0 : strtoull(text, NULL, 10);
}

static enum status start_over(struct fetch *fetch, struct errmsg *err)
{
    fetch->offset = 0;
    const enum status status = env_file_truncate(fetch->file, 0);
    return status == STATUS_OK ? status : errmsg_set(err, status, "%s: cannot be cut", fetch->part);
}

/* What identifies the file that the server has: a strong ETag, or its time; "" without them. */
static void keep_tag(struct fetch *fetch, const struct http_client *client)
{
    const char *tag = http_client_header(client, "ETag");

    if (tag == NULL || tag[0] != '"') tag = http_client_header(client, "Last-Modified");
    if (tag == NULL || strlen(tag) >= TAG_SIZE) tag = "";
    snprintf(fetch->tag, sizeof(fetch->tag), "%s", tag);
    /* Without it the next process starts over. */
    (void)!env_file_replace(fetch->env, fetch->tag_path, tag, strlen(tag), NULL);
}

/* The rest of the file, or all of it, is coming. */
static enum status begin_body(struct exchange *x)
{
    struct fetch *fetch = x->fetch;
    enum status status = STATUS_OK;

    if (x->code == 206) {
        const char *range = http_client_header(x->client, "Content-Range");
        const char *total = range != NULL ? strchr(range, '/') : NULL;
        if (total == NULL || strncmp(range, "bytes ", 6) != 0 ||
            number_of(range + 6) != fetch->offset)
            return errmsg_set(x->err, STATUS_PROTOCOL, "%s sends another part than asked for",
                              x->place->shown);
        x->total = number_of(total + 1);
    } else {
        status = start_over(fetch, x->err);
        x->total = number_of(http_client_header(x->client, "Content-Length"));
        if (status == STATUS_OK) keep_tag(fetch, x->client);
    }
    if (status == STATUS_OK && x->total > FETCH_SIZE_MAX)
        return errmsg_set(x->err, STATUS_FULL, "%s has %" PRIu64 " bytes; at most %" PRIu64,
                          x->place->shown, x->total, FETCH_SIZE_MAX);
    return status;
}

static void on_head(void *ctx, const struct http_client *client)
{
    struct exchange *x = ctx;
    const char *location = http_client_header(client, "Location");

    x->code = http_client_code(client);
    if (x->code >= 300 && x->code < 400 && x->code != 304 && location != NULL) {
        const int n = snprintf(x->location, sizeof(x->location), "%s", location);
        if (n >= (int)sizeof(x->location)) x->location[0] = '\0';
        stop(x, STATUS_OK);
    } else if (x->text == NULL && (x->code == 200 || x->code == 206)) {
        const enum status status = begin_body(x);
        if (status != STATUS_OK) stop(x, status);
    }
}

/* Looks at the first bytes, so that a page of a web site is not fetched for long. */
static bool is_gguf_so_far(uint64_t offset, const char *data, size_t len)
{
    for (size_t i = 0; i < len && offset + i < strlen(MAGIC); i++)
        if (data[i] != MAGIC[offset + i]) return false;
    return true;
}

static enum status write_out(struct exchange *x, const char *data, size_t len)
{
    struct fetch *fetch = x->fetch;

    if (!is_gguf_so_far(fetch->offset, data, len))
        return errmsg_set(x->err, STATUS_INVALID, "%s is no GGUF file", x->place->shown);
    if (fetch->offset + len > FETCH_SIZE_MAX)
        return errmsg_set(x->err, STATUS_FULL, "%s has more than %" PRIu64 " bytes",
                          x->place->shown, FETCH_SIZE_MAX);
    const enum status status = env_file_pwrite(fetch->file, data, len, fetch->offset);
    if (status == STATUS_FULL)
        return errmsg_set(x->err, status,
                          "%s: no space is left on its disk after %" PRIu64 " bytes", fetch->part,
                          fetch->offset);
    if (status != STATUS_OK)
        return errmsg_set(x->err, status, "%s: cannot be written", fetch->part);
    fetch->offset += len;
    if (x->total > 0)
        progress_show(&fetch->progress, (double)fetch->offset / 1e6,
                      (uint32_t)((x->total + 999999) / 1000000));
    return STATUS_OK;
}

static void on_data(void *ctx, const char *data, size_t len)
{
    struct exchange *x = ctx;
    enum status status = STATUS_OK;

    be_patient(x);
    if (x->text != NULL) {
        (void)!buf_append(x->text, data, len); /* what is too long is no SHA-256 */
    } else if (x->code == 200 || x->code == 206) {
        status = write_out(x, data, len);
    }
    if (status != STATUS_OK) stop(x, status);
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct exchange *x = ctx;
    const char *shown = x->place->shown;

    const bool coming = x->code == 200 || x->code == 206;

    end(x, coming || x->code == 0 ? reply->status : STATUS_OK); /* another code says it all */
    if (x->status == STATUS_OK) return;
    x->again = coming;
    if (coming && x->total > 0) {
        errmsg_set(x->err, reply->status, "%s: it ended after %" PRIu64 " of %" PRIu64 " bytes",
                   shown, x->fetch->offset, x->total);
    } else if (coming) {
        errmsg_set(x->err, reply->status, "%s: it has no end", shown);
    } else if (reply->why[0] != '\0') {
        errmsg_set(x->err, reply->status, "%s: %s", x->place->url.text, reply->why);
    } else {
        errmsg_set(x->err, reply->status, "nobody answers at %s (%s)", x->place->url.text,
                   status_name(reply->status));
    }
}

static enum status load_identity(const struct exchange *x, struct tls_identity **out)
{
    const char *given = getenv("SSL_CERT_FILE"); /* as OpenSSL and those who use it have it */
    const struct tls_files files = { .ca = given != NULL && given[0] != '\0' ? given : AUTHORITIES,
                                     .name = x->place->url.host };

    *out = NULL;
    if (!x->place->url.secure) return STATUS_OK;
    return tls_identity_load(x->fetch->env, &files, out, x->err);
}

/* Asks, and waits for the end. The body is whole, or there is none, if STATUS_OK. */
static enum status exchange_run(struct exchange *x, const char *headers)
{
    struct env *env = x->fetch->env;
    struct tls_identity *identity = NULL;
    char host[URL_ADDRESS_SIZE];

    fetch_place_host(x->place, host);
    enum status status = load_identity(x, &identity);
    const struct http_client_options options = {
        .address = x->place->url.address,
        .host = host,
        .method = "GET",
        .path = x->place->target,
        .headers = headers,
        .deadline_ns = ENV_NEVER,
        .identity = identity,
        .on_head = on_head,
        .on_data = on_data,
        .on_done = on_done,
        .ctx = x,
    };
    if (status == STATUS_OK) status = http_client_start(env, &options, &x->client, x->err);
    if (status == STATUS_OK) {
        env_timer_init(&x->stall, on_stall, x);
        be_patient(x);
        while (!x->over)
            env_poll(env, ENV_NS_PER_S);
        env_timer_cancel(env, &x->stall);
        status = x->status;
    }
    tls_identity_destroy(identity);
    return status;
}

/* The same, following redirections. *x is the last exchange. */
static enum status ask(struct fetch *fetch, const struct fetch_place *first, const char *headers,
                       struct buf *text, struct exchange *x, struct errmsg *err)
{
    struct fetch_place here = *first, next;

    for (int i = 0; i <= REDIRECTS_MAX; i++) {
        *x = (struct exchange){ .fetch = fetch, .place = &here, .text = text, .err = err };
        enum status status = exchange_run(x, headers);
        x->place = first; /* `here` ends with this function */
        if (status != STATUS_OK || x->code < 300 || x->code >= 400 || x->code == 304) return status;
        status = fetch_place_move(&here, x->location, &next, err);
        if (status != STATUS_OK) return status;
        here = next;
    }
    return errmsg_set(err, STATUS_PROTOCOL, "%s sends us on more than %d times", first->shown,
                      REDIRECTS_MAX);
}

/* ---- the file ---- */

/* Says what an answer without the file means. */
static enum status refused(struct exchange *x)
{
    const char *shown = x->place->shown;

    if (x->code == 404 || x->code == 410)
        return errmsg_set(x->err, STATUS_NOT_FOUND, "%s: there is nothing (%d)", shown, x->code);
    if (x->code == 401 || x->code == 403)
        return errmsg_set(x->err, STATUS_DENIED, "%s: it is not for everybody (%d)", shown,
                          x->code);
    x->again = x->code == 429 || x->code >= 500;
    return errmsg_set(x->err, STATUS_UNAVAILABLE, "%s answered %d", shown, x->code);
}

/* One try for what is not here yet. */
static enum status fetch_some(struct fetch *fetch, struct exchange *x, struct errmsg *err)
{
    char headers[HEADERS_SIZE] = "Accept-Encoding: identity\r\n";

    if (fetch->offset > 0 && fetch->tag[0] != '\0') {
        snprintf(headers, sizeof(headers),
                 "Accept-Encoding: identity\r\nRange: bytes=%" PRIu64 "-\r\nIf-Range: %s\r\n",
                 fetch->offset, fetch->tag);
    } else if (fetch->offset > 0 && fetch->sha256[0] != '\0') {
        snprintf(headers, sizeof(headers),
                 "Accept-Encoding: identity\r\nRange: bytes=%" PRIu64 "-\r\n", fetch->offset);
    }
    enum status status = ask(fetch, &fetch->place, headers, NULL, x, err);
    if (status != STATUS_OK) return status;
    if (x->code == 416) { /* it is shorter than what is here, or as long */
        x->again = true;
        status = start_over(fetch, err);
        return status != STATUS_OK
                   ? status
                   : errmsg_set(err, STATUS_AGAIN, "%s has changed", x->place->shown);
    }
    if (x->code != 200 && x->code != 206) return refused(x);
    if (x->total == 0 || x->total == fetch->offset) return STATUS_OK;
    return errmsg_set(err, STATUS_PROTOCOL, "%s: %" PRIu64 " bytes came of %" PRIu64,
                      x->place->shown, fetch->offset, x->total);
}

static void pause_a_moment(struct env *env)
{
    env_real_sleep_ns(PAUSE_NS);
    env_poll(env, 0);
}

static enum status fetch_all(struct fetch *fetch, struct errmsg *err)
{
    struct exchange x;

    for (int tries = 1;; tries++) {
        const enum status status = fetch_some(fetch, &x, err);
        if (status == STATUS_OK || !x.again) return status;
        if (fetch->offset > fetch->high) tries = 0;
        if (fetch->offset > fetch->high) fetch->high = fetch->offset;
        if (tries >= TRIES_MAX) return status;
        pause_a_moment(fetch->env);
    }
}

/* ---- what it is ---- */

/* The SHA-256 that the server has beside the file, unless the URL says it. */
static enum status learn_sha256(struct fetch *fetch, struct errmsg *err)
{
    const struct fetch_place *place = &fetch->place;
    struct fetch_place beside = { .url = place->url };
    const int path = (int)strcspn(place->target, "?");
    struct exchange x;
    struct buf text;

    if (fetch->sha256[0] != '\0') return STATUS_OK;
    if (snprintf(beside.target, sizeof(beside.target), "%.*s.sha256%s", path, place->target,
                 place->target + path) >= (int)sizeof(beside.target))
        return STATUS_OK;
    snprintf(beside.shown, sizeof(beside.shown), "%.*s.sha256", FETCH_URL_SIZE - FETCH_NAME_SIZE,
             place->shown);
    buf_init(&text, SHA256_TEXT_MAX);
    const enum status status = ask(fetch, &beside, NULL, &text, &x, err);
    if (status == STATUS_OK && x.code == 200 && buf_append(&text, "", 1) == STATUS_OK)
        (void)!take_sha256((const char *)buf_data(&text), fetch->sha256);
    buf_fini(&text);
    return status;
}

static enum status digest_file(struct env *env, const char *path, char out[HASH_SHA256_HEX_SIZE],
                               struct errmsg *err)
{
    uint8_t digest[HASH_SHA256_SIZE];
    struct env_map map = { NULL, 0, NULL };
    const enum status status = env_map_file(env, path, &map, err);

    if (status != STATUS_OK) return status;
    hash_sha256(map.data, map.size, digest);
    hash_sha256_hex(digest, out);
    env_map_close(&map);
    return STATUS_OK;
}

/* A model that we cannot run is still the file that was asked for. */
static enum status check_model(const struct fetch *fetch, struct errmsg *err)
{
    struct errmsg why = { "" };
    struct model *model = NULL;
    const enum status status = model_open(fetch->env, fetch->part, &model, &why);

    model_destroy(model);
    if (status == STATUS_OK || status == STATUS_UNSUPPORTED) return STATUS_OK;
    return errmsg_set(err, status, "%s is damaged: %s", fetch->place.shown, why.text);
}

static enum status verify(struct fetch *fetch, char digest[HASH_SHA256_HEX_SIZE],
                          struct errmsg *err)
{
    enum status status = digest_file(fetch->env, fetch->part, digest, err);

    if (status == STATUS_OK && fetch->sha256[0] != '\0' && strcmp(digest, fetch->sha256) != 0)
        status = errmsg_set(err, STATUS_CORRUPT, "%s has the SHA-256 %s, not %s",
                            fetch->place.shown, digest, fetch->sha256);
    if (status == STATUS_OK) status = check_model(fetch, err);
    if (status != STATUS_OK) (void)!env_file_remove(fetch->env, fetch->part);
    return status;
}

/* Gives the file its name, I1. */
static enum status finish(struct fetch *fetch, struct errmsg *err)
{
    char digest[HASH_SHA256_HEX_SIZE], path[CLI_PATH_SIZE + 8], line[CLI_PATH_SIZE];
    const char *name = strrchr(fetch->path, '/') + 1;

    enum status status = env_file_sync(fetch->file);
    if (status != STATUS_OK) return errmsg_set(err, status, "%s: may not be on disk", fetch->part);
    status = verify(fetch, digest, err);
    if (status != STATUS_OK) return status;
    snprintf(path, sizeof(path), "%s.sha256", fetch->path);
    const int len = snprintf(line, sizeof(line), "%s  %s\n", digest, name);
    status = env_file_replace(fetch->env, path, line, (size_t)len, err);
    if (status == STATUS_OK) status = env_file_rename(fetch->env, fetch->part, fetch->path);
    if (status != STATUS_OK) return errmsg_set(err, status, "%s: cannot be written", fetch->path);
    (void)!env_file_remove(fetch->env, fetch->tag_path);
    if (fetch->sha256[0] == '\0')
        fprintf(stderr, "yolk: compared with nothing; #sha256=%s behind it would\n", digest);
    return STATUS_OK;
}

/* ---- places in the cache ---- */

static enum status choose_paths(struct fetch *fetch, struct errmsg *err)
{
    const struct {
        const char *before, *behind;
        char *path;
    } files[] = { { "", ".gguf", fetch->path },
                  { ".fetch/", ".part", fetch->part },
                  { ".fetch/", ".tag", fetch->tag_path },
                  { ".fetch/", ".lock", fetch->lock_path } };
    char name[FETCH_NAME_SIZE], part[FETCH_NAME_SIZE + 32];
    enum status status = STATUS_OK;

    fetch_place_name(&fetch->place, name);
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]) && status == STATUS_OK; i++) {
        snprintf(part, sizeof(part), "models/%s%s%s", files[i].before, name, files[i].behind);
        status = cli_cache_path(part, files[i].path, err);
    }
    return status;
}

/* One process at a time. */
static enum status lock(struct fetch *fetch, struct env_file **out, struct errmsg *err)
{
    const unsigned flags = ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_LOCK;
    char scratch[CLI_PATH_SIZE];

    enum status status = cli_cache_path("models/.fetch", scratch, err);
    if (status == STATUS_OK) status = env_make_dirs(fetch->env, scratch, err);
    if (status != STATUS_OK) return status;
    status = env_file_open(fetch->env, fetch->lock_path, flags, out, err);
    if (status == STATUS_EXISTS)
        errmsg_set(err, status, "%s is being fetched by another process", fetch->place.shown);
    return status;
}

/* Whether the file is there, and is what the URL wants. */
static bool is_there(struct fetch *fetch)
{
    char path[CLI_PATH_SIZE + 8], digest[HASH_SHA256_HEX_SIZE] = "";
    struct env_file *file = NULL;
    char *text = NULL;
    size_t len = 0;

    if (env_file_open(fetch->env, fetch->path, ENV_FILE_READ, &file, NULL) != STATUS_OK)
        return false;
    env_file_close(file);
    snprintf(path, sizeof(path), "%s.sha256", fetch->path);
    if (env_file_read_all(fetch->env, path, SHA256_TEXT_MAX, &text, &len, NULL) == STATUS_OK)
        (void)!take_sha256(text, digest);
    free(text);
    if (fetch->sha256[0] == '\0' || strcmp(fetch->sha256, digest) == 0) return true;
    return digest_file(fetch->env, fetch->path, digest, NULL) == STATUS_OK &&
           strcmp(fetch->sha256, digest) == 0;
}

/* Opens what an earlier process has left, or begins. */
static enum status open_part(struct fetch *fetch, struct errmsg *err)
{
    const unsigned flags = ENV_FILE_READ | ENV_FILE_WRITE | ENV_FILE_CREATE;
    char *tag = NULL;
    size_t len = 0;

    enum status status = env_file_open(fetch->env, fetch->part, flags, &fetch->file, err);
    if (status == STATUS_OK) status = env_file_size(fetch->file, &fetch->offset);
    if (status != STATUS_OK) return status;
    if (env_file_read_all(fetch->env, fetch->tag_path, TAG_SIZE - 1, &tag, &len, NULL) == STATUS_OK)
        snprintf(fetch->tag, sizeof(fetch->tag), "%.*s", (int)strcspn(tag, "\r\n"), tag);
    free(tag);
    fetch->high = fetch->offset;
    return STATUS_OK;
}

static enum status fetch_file(struct fetch *fetch, struct errmsg *err)
{
    enum status status = learn_sha256(fetch, err);

    if (status == STATUS_OK) status = open_part(fetch, err);
    if (status != STATUS_OK) return status;
    fprintf(stderr, "yolk: fetching %s\n", fetch->place.shown);
    progress_begin(&fetch->progress, fetch->env, "MB");
    status = fetch_all(fetch, err);
    progress_end(&fetch->progress);
    if (status == STATUS_OK) status = finish(fetch, err);
    env_file_close(fetch->file);
    return status;
}

/* While nobody else does. */
static enum status fetch_alone(struct fetch *fetch, struct errmsg *err)
{
    struct env_file *held = NULL;
    enum status status = lock(fetch, &held, err);

    if (status == STATUS_OK && !is_there(fetch)) status = fetch_file(fetch, err);
    env_file_close(held);
    return status;
}

static enum status take_url(struct fetch *fetch, const char *url, struct errmsg *err)
{
    const char *fragment = strchr(url, '#');
    const enum status status = fetch_place_parse(url, &fetch->place, err);

    if (status != STATUS_OK || fragment == NULL) return status;
    if (strncmp(fragment, "#sha256=", 8) == 0 && take_sha256(fragment + 8, fetch->sha256) &&
        strlen(fragment) == 8 + HASH_SHA256_HEX_SIZE - 1)
        return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "%s: behind # stands sha256= and 64 hex digits",
                      fetch->place.shown);
}

bool fetch_is_url(const char *model)
{
    return strncmp(model, "http://", 7) == 0 || strncmp(model, "https://", 8) == 0;
}

enum status fetch_model(struct env *env, const char *url, char out[CLI_PATH_SIZE],
                        struct errmsg *err)
{
    struct fetch *fetch = calloc(1, sizeof(*fetch));

    if (fetch == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    fetch->env = env;
    enum status status = take_url(fetch, url, err);
    if (status == STATUS_OK) status = choose_paths(fetch, err);
    if (status == STATUS_OK && !is_there(fetch)) status = fetch_alone(fetch, err);
    if (status == STATUS_OK) memcpy(out, fetch->path, CLI_PATH_SIZE);
    free(fetch);
    return status;
}
