/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/trace_record.c - listens to GET /debug/record and writes each line when it is there.
 *
 * The file is made with the first line, so that a gateway that is not there leaves nothing behind.
 * Only whole lines are written, each in one go: whenever the recording ends, by a signal, a limit,
 * or the death of either side, what is there is a trace. */
#include "cli/trace_record.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/env.h"
#include "cli/cli.h"
#include "cli/remote.h"
#include "net/http_client.h"

enum { RECORD_LINE_MAX = 4 << 20 };

struct recording {
    struct cli *cli;
    struct remote remote;
    const char *path; /* "" for standard output */
    struct env_file *file;
    uint64_t offset, lines, lines_max; /* lines_max 0: any */
    struct http_client *client;
    bool records; /* the answer is 200: its lines are requests, and no complaint */
    struct env_timer end;
    struct buf line;
    struct errmsg err; /* why it failed; empty: it did not */
};

static void stop(struct recording *r)
{
    if (r->client != NULL) http_client_cancel(r->client);
    r->client = NULL;
    env_stop(r->cli->env);
}

static enum status write_out(struct recording *r)
{
    const unsigned flags = ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_TRUNCATE;
    enum status status = STATUS_OK;

    if (r->path[0] == '\0') {
        const bool whole = fwrite(buf_data(&r->line), 1, r->line.len, stdout) == r->line.len;
        if (whole && fflush(stdout) == 0) return STATUS_OK;
        return errmsg_set(&r->err, STATUS_IO, "standard output is closed");
    }
    if (r->file == NULL) status = env_file_open(r->cli->env, r->path, flags, &r->file, &r->err);
    if (status != STATUS_OK) return status;
    status = env_file_pwrite(r->file, buf_data(&r->line), r->line.len, r->offset);
    if (status != STATUS_OK) return errmsg_set(&r->err, status, "%s: cannot be written", r->path);
    r->offset += r->line.len;
    return STATUS_OK;
}

static void on_head(void *ctx, const struct http_client *client)
{
    struct recording *r = ctx;
    r->records = http_client_code(client) == 200;
}

static void on_line(void *ctx, const char *line, size_t len)
{
    struct recording *r = ctx;

    if (len == 0 || !r->records) return;
    buf_clear(&r->line);
    if (buf_append(&r->line, line, len) != STATUS_OK ||
        buf_append_text(&r->line, "\n") != STATUS_OK)
        return; /* longer than a line can be */
    if (write_out(r) != STATUS_OK) {
        stop(r);
        return;
    }
    r->lines++;
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%8" PRIu64 " requests ", r->lines);
    if (r->lines == r->lines_max) stop(r);
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct recording *r = ctx;

    r->client = NULL;
    if (r->err.text[0] != '\0') {
        /* it was said already */
    } else if (reply->code == 409) {
        errmsg_set(&r->err, STATUS_BUSY, "%s answered 409: somebody is recording already",
                   r->remote.url.text);
    } else if (reply->status != STATUS_OK || reply->code != 200) {
        remote_trouble(&r->remote, reply, &r->err);
    }
    env_stop(r->cli->env);
}

static void on_time(void *ctx)
{
    stop(ctx);
}

static void on_stop(void *ctx)
{
    stop(ctx);
}

static enum status start(struct recording *r, struct errmsg *err)
{
    struct env *env = r->cli->env;
    const struct config *config = r->cli->config;
    const uint64_t duration_ns = config_u64(config, "for");
    char path[64] = "/debug/record";
    const struct http_client_options options = {
        .address = r->remote.url.address,
        .method = "GET",
        .path = path,
        .headers = remote_authorization(&r->remote),
        .deadline_ns = ENV_NEVER,
        .identity = r->remote.identity,
        .on_head = on_head,
        .on_line = on_line,
        .on_done = on_done,
        .ctx = r,
    };

    if (config_is_set(config, "trace-block"))
        snprintf(path, sizeof(path), "/debug/record?block=%" PRIu64,
                 config_u64(config, "trace-block"));
    env_timer_init(&r->end, on_time, r);
    if (duration_ns > 0) env_timer_set(env, &r->end, env_now_ns(env) + duration_ns);
    return http_client_start(env, &options, &r->client, err);
}

static int finish(struct recording *r)
{
    if (r->file != NULL && env_file_sync(r->file) != STATUS_OK && r->err.text[0] == '\0')
        errmsg_set(&r->err, STATUS_IO, "%s: may not be on disk", r->path);
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r");
    if (r->lines > 0 || r->err.text[0] == '\0')
        fprintf(stderr, "%" PRIu64 " requests recorded%s%s\n", r->lines,
                r->lines > 0 && r->path[0] != '\0' ? " in " : "", r->lines > 0 ? r->path : "");
    if (r->err.text[0] == '\0') return CLI_EXIT_OK;
    fprintf(stderr, "yolk: trace record: %s\n", r->err.text);
    return CLI_EXIT_FAILED;
}

int trace_record(struct cli *cli)
{
    struct recording recording = { .cli = cli,
                                   .path = config_text(cli->config, "out"),
                                   .lines_max = config_u64(cli->config, "max-requests") };
    struct errmsg err = { "" };

    if (config_positions(cli->config) != 1)
        return cli_refuse("trace record takes no FILE; --out FILE says where to write");
    buf_init(&recording.line, RECORD_LINE_MAX);
    enum status status = remote_open(cli, &recording.remote, &err);
    if (status == STATUS_OK) status = start(&recording, &err);
    if (status != STATUS_OK) {
        remote_close(&recording.remote);
        return cli_refuse("trace record: %s", err.text);
    }
    cli_run_until_signal(cli, on_stop, &recording);
    env_timer_cancel(cli->env, &recording.end);
    const int code = finish(&recording);
    env_file_close(recording.file);
    buf_fini(&recording.line);
    remote_close(&recording.remote);
    return code;
}
