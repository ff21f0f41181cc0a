/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/remote.c - see the header. */
#include "cli/remote.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/env.h"
#include "cli/cli.h"
#include "net/http_client.h"
#include "net/tls.h"

static const char JSON[] = "Content-Type: application/json\r\n";

#define TIMEOUT_NS (10 * ENV_NS_PER_S)

/* It goes into a header as it is. No message quotes it. */
static enum status take_key(struct remote *remote, const char *key, struct errmsg *err)
{
    size_t len = 0;

    while (key[len] > ' ' && key[len] <= '~')
        len++;
    if (key[len] != '\0')
        return errmsg_set(err, STATUS_INVALID,
                          "the API key has a blank, or a character that is not ASCII");
    if (len > REMOTE_KEY_LEN_MAX)
        return errmsg_set(err, STATUS_INVALID, "the API key is longer than %d characters",
                          REMOTE_KEY_LEN_MAX);
    snprintf(remote->headers, sizeof(remote->headers), "%s%s%s%s", JSON,
             len > 0 ? "Authorization: Bearer " : "", key, len > 0 ? "\r\n" : "");
    return STATUS_OK;
}

static enum status take_identity(struct cli *cli, struct remote *remote, struct errmsg *err)
{
    struct tls_files files;
    const enum status status = cli_http_tls_files(cli, &files, err);

    if (status != STATUS_OK) return status;
    files.ca = config_text(cli->config, "tls-ca");
    files.name = remote->url.host;
    remote->has_certificate = files.cert[0] != '\0';
    if (!remote->url.secure && remote->has_certificate)
        return errmsg_set(err, STATUS_INVALID, "%s: a certificate is shown only to https://",
                          remote->url.text);
    if (!remote->url.secure) return STATUS_OK;
    if (files.ca[0] == '\0')
        return errmsg_set(err, STATUS_INVALID, "%s: --tls-ca FILE says whom to believe",
                          remote->url.text);
    return tls_identity_load(cli->env, &files, &remote->identity, err);
}

enum status remote_open(struct cli *cli, struct remote *out, struct errmsg *err)
{
    *out = (struct remote){ .env = cli->env };
    enum status status = url_parse(config_text(cli->config, "url"), &out->url, err);

    if (status == STATUS_OK) status = take_key(out, config_text(cli->config, "api-key"), err);
    if (status == STATUS_OK) status = take_identity(cli, out, err);
    if (status != STATUS_OK) remote_close(out);
    return status;
}

void remote_close(struct remote *remote)
{
    explicit_bzero(remote->headers, sizeof(remote->headers));
    tls_identity_destroy(remote->identity);
    remote->identity = NULL;
}

const char *remote_authorization(const struct remote *remote)
{
    return remote->headers + strlen(JSON);
}

/* ---- what is wrong ---- */

/* The keys of the gateway are meant, or what stands in front of it. */
static enum status denied(const struct remote *remote, int code, struct errmsg *err)
{
    const char *text = remote->url.text;
    const bool has_key = remote_authorization(remote)[0] != '\0';

    if (code == 403)
        return errmsg_set(err, STATUS_DENIED, "%s allows this to somebody else only (403)%s", text,
                          has_key ? "" : "; an API key comes from YOLK_API_KEY or --api-key-file");
    if (has_key)
        return errmsg_set(err, STATUS_DENIED,
                          "%s does not know the API key of YOLK_API_KEY or --api-key-file (401)",
                          text);
    return errmsg_set(err, STATUS_DENIED,
                      "%s wants an API key (401): YOLK_API_KEY or --api-key-file FILE", text);
}

enum status remote_trouble(const struct remote *remote, const struct http_reply *reply,
                           struct errmsg *err)
{
    const char *text = remote->url.text;
    /* So answer our gateways who speaks HTTP where they speak HTTPS, and others do not answer. */
    const bool closed = reply->status == STATUS_PROTOCOL || reply->status == STATUS_CONN_CLOSED;
    const bool maybe_secure =
        !remote->url.secure && (reply->code == 400 || (reply->code == 0 && closed));
    const char *certificate = reply->status == STATUS_DENIED && !remote->has_certificate
                                  ? "; --tls-cert FILE and --tls-key FILE are one of yours"
                                  : "";
    const char *hint = maybe_secure ? "; if it speaks HTTPS only, say https://" : "";

    if (reply->why[0] != '\0' && reply->status != STATUS_CONN_REFUSED)
        return errmsg_set(err, reply->status, "%s: %s%s", text, reply->why, certificate);
    if (reply->code == 0)
        return errmsg_set(err, reply->status, "no gateway answers at %s (%s)%s", text,
                          status_name(reply->status), hint);
    if (reply->code == 401 || reply->code == 403) return denied(remote, reply->code, err);
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
        .headers = remote_authorization(remote),
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
