/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_drain.c - a node that leaves in good order: see worker_drain().
 *
 * Each gateway keeps one call of node.leaving open at each node. Draining answers them all, and
 * from then on answers such calls at once. Gateways then place nothing here, and move what decodes
 * here if it can go on elsewhere: it is prefilled there, from blocks that are fetched here. So the
 * node stays while anything runs or is fetched, and WORKER_LINGER_MS longer, in which what was
 * placed before the news came arrives, and who was moved comes for his blocks. Nothing is refused
 * meanwhile: what arrives late is served.
 *
 *     (serving) --worker_drain--> busy <---> quiet --WORKER_LINGER_MS--> on_drained
 *
 * Limits: WORKER_WATCHERS_MAX gateways hear of it; others see the node go. */
#include "base/assert.h"
#include "base/log.h"
#include "serve/worker_int.h"

enum { LOOK_MS = 10 };

/* No attempt, no copy, and no page that somebody reads. */
static bool is_quiet(const struct worker *worker)
{
    struct store_node_counts pages;

    for (uint32_t i = 0; i < worker->jobs_max; i++)
        if (worker->jobs[i] != NULL) return false;
    for (uint32_t i = 0; i < WORKER_COPIES_MAX; i++)
        if (worker->copies[i] != NULL) return false;
    store_node_counts(worker->node, &pages);
    return pages.free + pages.evictable == worker->totals.pages_total;
}

static void look(void *ctx)
{
    struct worker *worker = ctx;
    struct drain *drain = &worker->drain;
    const uint64_t now_ns = env_now_ns(worker->env);
    const uint64_t linger_ns = drain->placed ? WORKER_LINGER_MS * ENV_NS_PER_MS : 0;

    ASSERT(drain->begun && !worker->ending);
    if (!is_quiet(worker)) {
        drain->quiet_ns = 0;
    } else if (drain->quiet_ns == 0) {
        drain->quiet_ns = now_ns;
    }
    if (drain->quiet_ns != 0 && now_ns - drain->quiet_ns >= linger_ns) {
        LOG_INFO("worker", "drained", "name=%s", worker->name);
        drain->on_drained(drain->ctx);
        return;
    }
    env_timer_set(worker->env, &drain->timer, now_ns + LOOK_MS * ENV_NS_PER_MS);
}

void drain_init(struct worker *worker)
{
    env_timer_init(&worker->drain.timer, look, worker);
}

/* ---- who wants to hear of it ---- */

static void on_cancel(void *ctx, enum status why)
{
    struct watcher *watcher = ctx;
    struct rpc_call *call = watcher->call;

    watcher->call = NULL;
    rpc_fail(call, why, NULL);
}

void drain_watch(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct worker *worker = ctx;
    struct watcher *watcher = NULL;

    (void)body;
    (void)len;
    if (worker->drain.begun) {
        rpc_reply(call, NULL, 0);
        return;
    }
    for (uint32_t i = 0; i < WORKER_WATCHERS_MAX && watcher == NULL; i++)
        if (worker->drain.watchers[i].call == NULL) watcher = &worker->drain.watchers[i];
    if (watcher == NULL) {
        rpc_fail(call, STATUS_FULL, "too many want to hear of it");
        return;
    }
    *watcher = (struct watcher){ worker, call };
    rpc_on_cancel(call, on_cancel, watcher);
}

void worker_drain(struct worker *worker, void (*on_drained)(void *ctx), void *ctx)
{
    struct drain *drain = &worker->drain;

    ASSERT(!drain->begun && !worker->ending);
    drain->begun = true;
    drain->on_drained = on_drained;
    drain->ctx = ctx;
    for (uint32_t i = 0; i < WORKER_WATCHERS_MAX; i++) {
        struct watcher *watcher = &drain->watchers[i];
        if (watcher->call == NULL) continue;
        rpc_reply(watcher->call, NULL, 0);
        watcher->call = NULL;
        drain->placed = true;
    }
    LOG_INFO("worker", "draining", "name=%s told=%d", worker->name, drain->placed);
    env_timer_set(worker->env, &drain->timer, 0);
}

void drain_end(struct worker *worker)
{
    struct drain *drain = &worker->drain;

    env_timer_cancel(worker->env, &drain->timer);
    for (uint32_t i = 0; i < WORKER_WATCHERS_MAX; i++) {
        struct watcher *watcher = &drain->watchers[i];
        if (watcher->call != NULL) rpc_fail(watcher->call, STATUS_UNAVAILABLE, "the node ends");
        watcher->call = NULL;
    }
}
