/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/env_real.h"
#include "net/http_client.h"

enum { WORDS_MAX = 48, PROC_SIZE_MAX = 64 << 10, POLL_MS = 2 };

bool bench_asked(const struct cli *cli, const char *name)
{
    return config_positions(cli->config) < 2 ||
           strstr(name, config_position(cli->config, 1)) != NULL;
}

/* ---- children ---- */

static void on_child_exit(void *ctx, struct env_exit how)
{
    struct bench_child *child = ctx;
    (void)how;
    child->process = NULL;
    env_stop(child->env);
}

enum status bench_spawn(struct cli *cli, struct bench_child *child, const char *const args[],
                        struct errmsg *err)
{
    char program[CLI_PATH_SIZE];
    const char *argv[WORDS_MAX] = { program };

    *child = (struct bench_child){ cli->env, NULL };
    const enum status status = env_real_self_path(program, sizeof(program));
    if (status != STATUS_OK) return errmsg_set(err, status, "the path of this binary is unknown");
    for (size_t i = 0; args[i] != NULL; i++) {
        ASSERT(i + 2 < WORDS_MAX);
        argv[i + 1] = args[i];
    }
    return env_process_spawn(cli->env, argv, on_child_exit, child, &child->process, err);
}

void bench_end(struct bench_child *child)
{
    if (child->process != NULL) env_process_kill(child->process, SIGTERM);
    while (child->process != NULL)
        env_run(child->env);
}

static char *read_proc(struct cli *cli, const char *path)
{
    char *text = NULL;
    size_t len = 0;
    if (env_file_read_all(cli->env, path, PROC_SIZE_MAX, &text, &len, NULL) != STATUS_OK)
        return NULL;
    return text;
}

uint32_t bench_children(struct cli *cli, pid_t parent, pid_t *out, uint32_t count_max)
{
    char path[96];
    uint32_t count = 0;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
    char *text = read_proc(cli, path);
    for (char *at = text; at != NULL && count < count_max;) {
        char *end = NULL;
        const long pid = strtol(at, &end, 10);
        if (end == at) break;
        out[count++] = (pid_t)pid;
        at = end;
    }
    free(text);
    return count;
}

uint64_t bench_memory(struct cli *cli, pid_t pid, const char *field)
{
    char path[64];
    uint64_t size = 0;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    char *text = read_proc(cli, path);
    const char *found = text != NULL ? strstr(text, field) : NULL;
    if (found != NULL) size = strtoull(found + strlen(field) + 1, NULL, 10) * 1024;
    free(text);
    return size;
}

/* ---- requests ---- */

struct waiting {
    struct env *env;
    struct bench_answer *answer;
    uint64_t started_ns;
    bool done;
};

static void on_data(void *ctx, const char *data, size_t len)
{
    struct waiting *waiting = ctx;
    struct bench_answer *answer = waiting->answer;
    const size_t room = sizeof(answer->body) - 1;

    if (answer->first_ns == 0) answer->first_ns = env_now_ns(waiting->env) - waiting->started_ns;
    if (answer->len < room) {
        const size_t part = len < room - answer->len ? len : room - answer->len;
        memcpy(answer->body + answer->len, data, part);
        answer->body[answer->len + part] = '\0';
    }
    answer->len += len;
}

static void on_done(void *ctx, const struct http_reply *reply)
{
    struct waiting *waiting = ctx;
    waiting->answer->status = reply->status;
    waiting->answer->code = reply->code;
    waiting->answer->total_ns = env_now_ns(waiting->env) - waiting->started_ns;
    waiting->done = true;
    env_stop(waiting->env);
}

void bench_request(struct cli *cli, const char *address, const char *path, const char *body,
                   struct bench_answer *out)
{
    struct waiting waiting = { cli->env, out, env_now_ns(cli->env), false };
    struct http_client *client = NULL;
    const struct http_client_options options = {
        .address = address,
        .method = body == NULL ? "GET" : "POST",
        .path = path,
        .headers = body == NULL ? NULL : "Content-Type: application/json\r\n",
        .body = body,
        .len = body == NULL ? 0 : strlen(body),
        .deadline_ns = waiting.started_ns + 600 * ENV_NS_PER_S,
        .on_data = on_data,
        .on_done = on_done,
        .ctx = &waiting,
    };

    memset(out, 0, sizeof(*out));
    out->status = http_client_start(cli->env, &options, &client, NULL);
    if (out->status != STATUS_OK) return;
    while (!waiting.done)
        env_run(cli->env);
}

enum status bench_wait_ok(struct cli *cli, const char *address, const char *path,
                          uint64_t timeout_ns)
{
    const uint64_t end = env_now_ns(cli->env) + timeout_ns;
    struct bench_answer answer;

    while (env_now_ns(cli->env) < end) {
        bench_request(cli, address, path, NULL, &answer);
        if (answer.status == STATUS_OK && answer.code == 200) return STATUS_OK;
        env_real_sleep_ns(POLL_MS * ENV_NS_PER_MS);
    }
    return STATUS_TIMEOUT;
}

static void on_nobody(void *ctx, struct env_stream *stream)
{
    (void)ctx;
    env_stream_close(stream);
}

enum status bench_free_port(struct cli *cli, uint16_t *out)
{
    struct env_listener *listener = NULL;
    const enum status status =
        env_listen(cli->env, "127.0.0.1:0", on_nobody, NULL, &listener, NULL);
    if (status != STATUS_OK) return status;
    *out = env_listener_port(listener);
    env_listener_close(listener);
    return STATUS_OK;
}
