/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/store_move.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "cli/cli.h"
#include "cli/store_ask.h"
#include "yolk/store_task.h"

struct moving {
    struct store_ask ask;
    struct yolk_store_task task; /* as it was heard of last */
};

static void on_task(void *ctx, enum status status, const struct yolk_store_task *task,
                    const char *message)
{
    struct moving *moving = ctx;
    moving->ask.left--;
    moving->ask.status = status;
    snprintf(moving->ask.message, sizeof(moving->ask.message), "%s", message);
    if (task != NULL) moving->task = *task;
}

/* ---- what is printed ---- */

static const char *const state_names[] = {
    [YOLK_STORE_TASK_PENDING] = "pending",
    [YOLK_STORE_TASK_PROCESSING] = "processing",
    [YOLK_STORE_TASK_FAILED] = "failed",
    [YOLK_STORE_TASK_SUCCESS] = "success",
};

static void print_task(const struct yolk_store_task *task, bool json)
{
    const char *what = task->move ? "move" : "copy";
    const char *state = state_names[task->state];

    if (json) {
        printf("{\"task\": \"%" PRIx64 "-%" PRIx64 "\", \"what\": \"%s\", \"state\": \"%s\", "
               "\"reason\": \"%s\", \"targets\": %u, \"done\": %u, \"size\": %" PRIu64
               ", \"ms\": %" PRIu64 "}\n",
               task->id.term, task->id.number, what, state,
               task->status == STATUS_OK ? "" : status_name(task->status), task->targets,
               task->done, task->size, task->age_ms);
        return;
    }
    printf("%s %" PRIx64 "-%" PRIx64 ": %s, %u of %u nodes, %" PRIu64 " bytes, %" PRIu64 " ms\n",
           what, task->id.term, task->id.number, state, task->done, task->targets, task->size,
           task->age_ms);
}

static const char *reason_of(enum status status)
{
    switch ((int)status) {
    case STATUS_NOT_FOUND: return "the value was removed, or lost with its nodes";
    case STATUS_STALE: return "the value was replaced meanwhile";
    case STATUS_FULL: return "no room at the target, and nothing is evicted for it";
    case STATUS_QUOTA: return "the quota of its tenant has no room for one more while it lasts";
    case STATUS_UNAVAILABLE: return "a node is gone, drains, or lends no memory for values";
    case STATUS_TIMEOUT: return "it took too long";
    default: return status_name(status);
    }
}

/* ---- waiting ---- */

static bool is_over(const struct yolk_store_task *task)
{
    return task->state == YOLK_STORE_TASK_FAILED || task->state == YOLK_STORE_TASK_SUCCESS;
}

/* Asks again and again, until the task has ended. */
static int task_wait(struct moving *moving, const char *name)
{
    struct store_ask *ask = &moving->ask;

    for (uint64_t pause_ms = 5; !is_over(&moving->task);
         pause_ms = pause_ms < 200 ? 2 * pause_ms : pause_ms) {
        store_ask_pause(ask, pause_ms * ENV_NS_PER_MS);
        ask->left = 1;
        const enum status status = store_ask_wait(
            ask, yolk_store_task(ask->store, moving->task.id, STORE_ASK_MS, on_task, moving));
        if (status == STATUS_NOT_FOUND)
            return cli_refuse("%s: the master does not know the task any more, it has restarted "
                              "(store stat KEY says where the value is)",
                              name);
        if (status != STATUS_OK) return store_ask_refuse(ask, name, status);
    }
    return CLI_EXIT_OK;
}

/* How the question about the task has ended; and the task, if it is waited for. */
static int task_follow(struct moving *moving, const char *name, enum status status)
{
    const struct config *config = moving->ask.cli->config;
    int code = CLI_EXIT_OK;

    if (status == STATUS_EXISTS) return cli_refuse("%s: %s", name, moving->ask.message);
    if (status == STATUS_BUSY && moving->ask.message[0] == '\0')
        return cli_refuse("%s: it is being written", name);
    if (status != STATUS_OK) return store_ask_refuse(&moving->ask, name, status);
    if (!config_bool(config, "no-wait")) code = task_wait(moving, name);
    if (code != CLI_EXIT_OK) return code;
    print_task(&moving->task, config_bool(config, "json"));
    if (moving->task.state != YOLK_STORE_TASK_FAILED) return CLI_EXIT_OK;
    return cli_refuse("%s: %s", name, reason_of(moving->task.status));
}

/* ---- copy, move ---- */

/* "a,b" in `text`, which is cut into names. False: too many, or one is empty. */
static bool names_split(char *text, const char *names[YOLK_STORE_REPLICAS_MAX], uint32_t *count)
{
    char *rest = text;
    for (*count = 0; rest != NULL; (*count)++) {
        char *name = strsep(&rest, ",");
        if (*count == YOLK_STORE_REPLICAS_MAX || name[0] == '\0') return false;
        if (strlen(name) >= YOLK_STORE_NAME_SIZE) return false;
        names[*count] = name;
    }
    return true;
}

static int task_make(struct cli *cli, bool move, const struct yolk_store_key *key,
                     const char *const *names, uint32_t count)
{
    const char *key_text = config_position(cli->config, 1);
    const char *from = config_text(cli->config, "from");
    struct moving moving = { .task = { .targets = 0 } };
    struct errmsg err = { "" };
    int code;

    if (store_ask_open(&moving.ask, cli, false, &err) != STATUS_OK) {
        code = cli_refuse("%s", err.text);
    } else {
        struct store_ask *ask = &moving.ask;
        ask->left = 1;
        const enum status asked =
            move ? yolk_store_move(ask->store, key, from[0] == '\0' ? NULL : from, names[0],
                                   STORE_ASK_MS, on_task, &moving)
                 : yolk_store_copy(ask->store, key, names, count, STORE_ASK_MS, on_task, &moving);
        code = task_follow(&moving, key_text, store_ask_wait(ask, asked));
    }
    store_ask_close(&moving.ask);
    return code;
}

static int copy_or_move(struct cli *cli, bool move)
{
    const char *const usage =
        move ? "store move: KEY [--from NODE] --to NODE" : "store copy: KEY --to NODE[,NODE...]";
    const char *names[YOLK_STORE_REPLICAS_MAX];
    struct yolk_store_key key = { NULL, 0 };
    struct errmsg err = { "" };
    uint32_t count = 0;
    int code;

    if (config_positions(cli->config) != 2) return cli_refuse("%s", usage);
    char *to = strdup(config_text(cli->config, "to"));
    if (to == NULL) return cli_refuse("out of memory");
    if (!names_split(to, names, &count) || (move && count != 1)) {
        code = cli_refuse("%s", usage);
    } else if (store_ask_key(config_position(cli->config, 1), &key, &err) != STATUS_OK) {
        code = cli_refuse("%s", err.text);
    } else {
        code = task_make(cli, move, &key, names, count);
        store_ask_key_free(&key);
    }
    free(to);
    return code;
}

int store_copy(struct cli *cli)
{
    return copy_or_move(cli, false);
}

int store_move(struct cli *cli)
{
    return copy_or_move(cli, true);
}

/* ---- task ---- */

/* TERM-NUMBER, as it is printed. */
static bool id_parse(const char *text, struct yolk_store_task_id *out)
{
    char *end;
    out->term = strtoull(text, &end, 16);
    if (end == text || *end != '-') return false;
    const char *number = end + 1;
    out->number = strtoull(number, &end, 16);
    return end != number && *end == '\0';
}

int store_task(struct cli *cli)
{
    const char *name = config_positions(cli->config) == 2 ? config_position(cli->config, 1) : "";
    struct moving moving = { .task = { .targets = 0 } };
    struct yolk_store_task_id id;
    struct errmsg err = { "" };
    int code;

    if (!id_parse(name, &id)) return cli_refuse("store task: TASK, as copy and move print it");
    if (store_ask_open(&moving.ask, cli, false, &err) != STATUS_OK) {
        code = cli_refuse("%s", err.text);
    } else {
        struct store_ask *ask = &moving.ask;
        ask->left = 1;
        const enum status status =
            store_ask_wait(ask, yolk_store_task(ask->store, id, STORE_ASK_MS, on_task, &moving));
        code = task_follow(&moving, name, status);
    }
    store_ask_close(&moving.ask);
    return code;
}
