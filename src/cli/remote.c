/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/remote.c - see the header. */
#include "cli/remote.h"

#include "base/buf.h"
#include "base/env.h"
#include "cli/cli.h"
#include "net/http_client.h"
#include "net/tls.h"

#define TIMEOUT_NS (10 * ENV_NS_PER_S)

enum status remote_open(struct cli *cli, struct remote *out, struct errmsg *err)
{
    struct remote remote = { .env = cli->env };
    enum status status = url_parse(config_text(cli->config, "url"), &remote.url, err);
    const struct tls_files files = { .ca = config_text(cli->config, "tls-ca"),
                                     .name = remote.url.host };

    if (status != STATUS_OK) return status;
    if (remote.url.secure && files.ca[0] == '\0')
        return errmsg_set(err, STATUS_INVALID, "%s: --tls-ca FILE says whom to believe",
                          remote.url.text);
    if (remote.url.secure) status = tls_identity_load(cli->env, &files, &remote.identity, err);
    if (status == STATUS_OK) *out = remote;
    return status;
}

void remote_close(struct remote *remote)
{
    tls_identity_destroy(remote->identity);
    remote->identity = NULL;
}

/* ---- what is wrong ---- */

enum status remote_trouble(const struct remote *remote, const struct http_reply *reply,
                           struct errmsg *err)
{
    const char *text = remote->url.text;
    /* So answer our gateways who speaks HTTP where they speak HTTPS, and others do not answer. */
    const bool closed = reply->status == STATUS_PROTOCOL || reply->status == STATUS_CONN_CLOSED;
    const bool maybe_secure =
        !remote->url.secure && (reply->code == 400 || (reply->code == 0 && closed));
    const char *hint = maybe_secure ? "; if it speaks HTTPS only, say https://" : "";

    if (reply->why[0] != '\0' && reply->status != STATUS_CONN_REFUSED)
        return errmsg_set(err, reply->status, "%s: %s", text, reply->why);
    if (reply->code == 0)
        return errmsg_set(err, reply->status, "no gateway answers at %s (%s)%s", text,
                          status_name(reply->status), hint);
    if (reply->code != 200)
        return errmsg_set(err, reply->code == 404 ? STATUS_NOT_FOUND : STATUS_UNAVAILABLE,
                          "%s answered %d%s", text, reply->code, hint);
    if (reply->status != STATUS_OK)
        return errmsg_set(err, reply->status, "%s: the gateway has gone: %s", text,
                          status_name(reply->status));
    return errmsg_set(err, STATUS_UNAVAILABLE, "%s: an answer lacks its end", text);
}

/* ---- one answer ---- */

struct waiting {
    struct buf *body;
    struct http_reply reply;
    bool over;
};

static void on_data(void *ctx, const char *data, size_t len)
{
    struct waiting *waiting = ctx;
    (void)!buf_append(waiting->body, data, len); /* a page that is too long does not parse */
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct waiting *waiting = ctx;
    waiting->reply = *reply;
    waiting->over = true;
}

enum status remote_get(const struct remote *remote, const char *path, struct buf *body,
                       struct errmsg *err)
{
    struct waiting waiting = { .body = body };
    const struct http_client_options options = {
        .address = remote->url.address,
        .method = "GET",
        .path = path,
        .deadline_ns = env_now_ns(remote->env) + TIMEOUT_NS,
        .identity = remote->identity,
        .on_data = on_data,
        .on_done = on_done,
        .ctx = &waiting,
    };
    struct http_client *client = NULL;
    const enum status status = http_client_start(remote->env, &options, &client, err);

    if (status != STATUS_OK) return status;
    while (!waiting.over)
        env_poll(remote->env, ENV_NS_PER_S);
    if (waiting.reply.status == STATUS_OK && waiting.reply.code == 200) return STATUS_OK;
    return remote_trouble(remote, &waiting.reply, err);
}
