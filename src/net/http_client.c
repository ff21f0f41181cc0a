/* SPDX-License-Identifier: Apache-2.0
 *
 * net/http_client.c - one connection, one request, one answer.
 *
 * The request is written, then the answer read until the parser has all of it, the peer closes, or
 * the deadline passes; each of these ends in finish(), which frees the client before it calls
 * on_done. Cancelled inside a callback, the client is freed when the parser has returned.
 *
 * Threads: the env's.
 * Limits:  see http_client.h. */
#include "net/http_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "net/http_int.h"
#include "net/wire.h"

enum { READ_SIZE = 64 << 10 };

struct http_client {
    struct env *env;
    struct wire wire;
    struct env_timer timer;
    struct http_client_options options; /* its texts are not used after the start */
    struct buf out;
    struct buf line;
    struct http_answer *answer;
    bool head_told;
    bool in_callback; /* which may cancel from inside */
    bool cancelled;
};

static void client_free(struct http_client *client)
{
    env_timer_cancel(client->env, &client->timer);
    wire_close(&client->wire);
    http_answer_destroy(client->answer);
    buf_fini(&client->out);
    buf_fini(&client->line);
    free(client);
}

/* Once, when there is one. False: it was cancelled meanwhile. */
static bool tell_head(struct http_client *client)
{
    if (client->head_told || client->options.on_head == NULL) return true;
    client->head_told = true;
    client->options.on_head(client->options.ctx, client);
    return !client->cancelled;
}

static void finish(struct http_client *client, enum status status)
{
    struct http_reply reply = { .status = status, .code = http_answer_code(client->answer) };
    void (*on_done)(void *, const struct http_reply *) = client->options.on_done;
    void *ctx = client->options.ctx;

    if (status != STATUS_OK) snprintf(reply.why, sizeof(reply.why), "%s", wire_why(&client->wire));
    client_free(client);
    on_done(ctx, &reply);
}

static void on_deadline(void *ctx)
{
    finish(ctx, STATUS_TIMEOUT);
}

/* ---- parsing ---- */

static int on_line_bytes(struct http_client *client, const char *data, size_t len)
{
    while (len > 0 && !client->cancelled) {
        const char *end = memchr(data, '\n', len);
        const size_t part = end != NULL ? (size_t)(end - data) : len;
        if (buf_append(&client->line, data, part) != STATUS_OK) return 1;
        if (end == NULL) return 0;
        client->options.on_line(client->options.ctx, (const char *)buf_data(&client->line),
                                client->line.len);
        buf_clear(&client->line);
        data += part + 1;
        len -= part + 1;
    }
    return 0;
}

/* What came behind the last newline of a whole answer. */
static void end_lines(struct http_client *client)
{
    if (client->cancelled || client->options.on_line == NULL || client->line.len == 0) return;
    client->options.on_line(client->options.ctx, (const char *)buf_data(&client->line),
                            client->line.len);
}

static int on_body(void *ctx, const char *data, size_t len)
{
    struct http_client *client = ctx;
    if (client->cancelled || !tell_head(client)) return 1;
    if (client->options.on_line != NULL) return on_line_bytes(client, data, len);
    if (client->options.on_data != NULL) client->options.on_data(client->options.ctx, data, len);
    return 0;
}

/* Feeds bytes (len 0: the end of the stream). Returns false when the client is finished. */
static bool feed(struct http_client *client, const char *data, size_t len)
{
    client->in_callback = true;
    const enum http_parse_state state = http_answer_feed(client->answer, data, len);
    if (state == HTTP_PARSE_BODY || state == HTTP_PARSE_DONE) tell_head(client);
    if (state == HTTP_PARSE_DONE) end_lines(client);
    client->in_callback = false;
    if (client->cancelled) {
        client_free(client);
    } else if (state == HTTP_PARSE_DONE) {
        finish(client, STATUS_OK);
    } else if (state == HTTP_PARSE_FAILED) {
        finish(client, STATUS_PROTOCOL);
    } else {
        return true;
    }
    return false;
}

/* ---- the stream ---- */

static enum status send_some(struct http_client *client)
{
    while (client->out.len > 0) {
        size_t n = 0;
        const enum status status =
            wire_write(&client->wire, buf_data(&client->out), client->out.len, &n);
        if (status != STATUS_OK) return status;
        buf_consume(&client->out, n);
    }
    return STATUS_OK;
}

static void on_ready(void *ctx, unsigned events)
{
    struct http_client *client = ctx;
    char data[READ_SIZE];
    size_t n = 0;

    if ((events & ENV_WRITE) != 0) {
        const enum status status = send_some(client);
        if (status != STATUS_OK && status != STATUS_AGAIN) {
            finish(client, status);
            return;
        }
        if (status == STATUS_OK) wire_watch(&client->wire, ENV_READ, on_ready, client);
    }
    if ((events & ENV_READ) == 0) return;
    const enum status status = wire_read(&client->wire, data, sizeof(data), &n);
    if (status == STATUS_OK) {
        feed(client, data, n);
    } else if (status == STATUS_CONN_CLOSED && client->out.len == 0) {
        if (feed(client, NULL, 0)) finish(client, STATUS_CONN_CLOSED);
    } else if (status != STATUS_AGAIN) {
        finish(client, status);
    }
}

static enum status write_request(struct http_client *client,
                                 const struct http_client_options *options)
{
    enum status status = buf_printf(
        &client->out,
        "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n",
        options->method, options->path, options->host != NULL ? options->host : options->address,
        options->headers != NULL ? options->headers : "", options->len);
    if (status == STATUS_OK && options->len > 0)
        status = buf_append(&client->out, options->body, options->len);
    return status;
}

enum status http_client_start(struct env *env, const struct http_client_options *options,
                              struct http_client **out, struct errmsg *err)
{
    ASSERT(options->on_done != NULL && options->deadline_ns != 0);
    if (options->len > HTTP_CLIENT_BODY_MAX)
        return errmsg_set(err, STATUS_INVALID, "the request has %zu bytes", options->len);
    struct http_client *client = calloc(1, sizeof(*client));
    struct env_stream *stream = NULL;
    if (client == NULL) return STATUS_NO_MEMORY;
    client->env = env;
    client->options = *options;
    client->answer = http_answer_create(strcmp(options->method, "HEAD") == 0, on_body, client);
    buf_init(&client->out, HTTP_CLIENT_BODY_MAX + (64 << 10));
    buf_init(&client->line, HTTP_CLIENT_LINE_MAX);
    env_timer_init(&client->timer, on_deadline, client);

    enum status status = client->answer != NULL ? STATUS_OK : STATUS_NO_MEMORY;
    if (status == STATUS_OK) status = write_request(client, options);
    if (status == STATUS_OK) status = env_connect(env, options->address, &stream, err);
    if (status == STATUS_OK)
        status = wire_open(&client->wire, env, stream, options->identity, false);
    if (status == STATUS_NO_MEMORY) env_stream_close(stream);
    if (status != STATUS_OK) {
        client_free(client);
        return status;
    }
    env_timer_set(env, &client->timer, options->deadline_ns);
    wire_be_quiet(&client->wire);
    wire_watch(&client->wire, ENV_READ | ENV_WRITE, on_ready, client);
    *out = client;
    return STATUS_OK;
}

int http_client_code(const struct http_client *client)
{
    return http_answer_code(client->answer);
}

const char *http_client_header(const struct http_client *client, const char *name)
{
    return http_answer_header(client->answer, name);
}

void http_client_cancel(struct http_client *client)
{
    client->cancelled = true;
    if (!client->in_callback) client_free(client);
}
