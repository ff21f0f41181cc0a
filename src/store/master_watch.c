/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_watch.c - master.watch: who wants to hear of every member. */
#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "net/rpc.h"
#include "store/master_shell_int.h"
#include "store/proto.h"

enum { WATCHERS_MAX = 1024 };

struct watcher {
    struct watcher *next;
    struct store_master_shell *shell;
    struct rpc_call *call;
};

static void watcher_end(struct watcher *watcher, enum status why)
{
    struct store_master_shell *shell = watcher->shell;
    struct watcher **link = &shell->watchers;

    while (*link != watcher)
        link = &(*link)->next;
    *link = watcher->next;
    ASSERT(shell->watchers_count > 0);
    shell->watchers_count--;
    rpc_fail(watcher->call, why, NULL);
    free(watcher);
}

static void on_watcher_gone(void *ctx, enum status why)
{
    watcher_end(ctx, why);
}

/* False: the watcher was too slow and is gone; it will ask again and get the whole state. */
static bool watcher_send(struct watcher *watcher, const struct store_watch_item *item)
{
    struct buf buf;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_watch(&buf, item);
    if (status == STATUS_OK) status = rpc_send(watcher->call, buf_data(&buf), buf.len);
    buf_fini(&buf);
    if (status == STATUS_OK || status == STATUS_CANCELLED) return true; /* cancel: told soon */
    watcher_end(watcher, STATUS_FULL);
    return false;
}

void master_watch_tell(struct store_master_shell *shell, const struct store_action *action)
{
    const struct store_watch_item item = {
        .has_member = true,
        .gone = action->kind == STORE_ACTION_GONE,
        .term = store_master_term(shell->master),
        .state = action->state,
        .info = action->info,
    };
    struct watcher *next;
    for (struct watcher *watcher = shell->watchers; watcher != NULL; watcher = next) {
        next = watcher->next;
        watcher_send(watcher, &item);
    }
}

void master_watch_handle(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_master_shell *shell = ctx;
    struct store_watch_item item = { .term = store_master_term(shell->master) };
    struct store_node_id id;
    (void)body;
    (void)len;

    struct watcher *watcher =
        shell->watchers_count < WATCHERS_MAX ? calloc(1, sizeof(*watcher)) : NULL;
    if (watcher == NULL) {
        rpc_fail(call, STATUS_FULL, "master.watch: too many watchers");
        return;
    }
    watcher->shell = shell;
    watcher->call = call;
    watcher->next = shell->watchers;
    shell->watchers = watcher;
    shell->watchers_count++;
    rpc_on_cancel(call, on_watcher_gone, watcher);
    item.has_member = true;
    for (uint32_t i = 0; store_master_member(shell->master, i, &item.info, &item.state, &id); i++) {
        if (!watcher_send(watcher, &item)) return;
    }
    item.has_member = false;
    item.synced = true;
    watcher_send(watcher, &item);
}

void master_watch_fini(struct store_master_shell *shell)
{
    while (shell->watchers != NULL)
        watcher_end(shell->watchers, STATUS_UNAVAILABLE);
}
