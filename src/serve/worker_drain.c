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
 *     (serving) --worker_drain--> busy <---> quiet --WORKER_LINGER_MS--> hand over
 *                                              ^                             |
 *                                              +-----------------------------+
 *                                            quiet again --WORKER_LINGER_MS--> on_drained
 *
 * Hand over: blocks that are only in memory would be gone. The ones used last are offered to one
 * other node of the cluster, of the same role if there is one, which copies them as for
 * replication (node.copy), part by part. With a disk they are found again when the node is back,
 * and nothing is handed over; nor when no gateway is there who would ask for them.
 *
 * Values by key that only this node has, and not on its disk, are copied to others meanwhile
 * (store_unmount()), for handover_ms at most. At the end the master is told that we leave, so that
 * readers go to the copies at once.
 *
 * Limits: WORKER_WATCHERS_MAX gateways hear of it; others see the node go. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "serve/worker_int.h"

enum {
    LOOK_MS = 10,
    PART_BLOCKS = 64, /* told at once */
    PART_MS = 10000,
    MESSAGE_SIZE_MAX = 64 << 10,
};

static void look(void *ctx);

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

/* ---- handing over ---- */

static void on_member(void *ctx, const struct store_member_info *info,
                      enum store_member_state state)
{
    struct worker *worker = ctx;
    struct drain *drain = &worker->drain;
    const bool like_us = (int)info->role == (int)worker->options.role;

    if (state != STORE_MEMBER_ALIVE || info->role == STORE_ROLE_STORE) return;
    if (strcmp(info->name, worker->name) == 0 || drain->handing || drain->handed) return;
    if (memcmp(info->fingerprint, worker->fingerprint, sizeof(worker->fingerprint)) != 0) return;
    if (drain->heir[0] != '\0' && (drain->heir_is_like_us || !like_us)) return;
    const size_t len = strlen(info->rpc_address);
    if (len >= sizeof(drain->heir)) return; /* nobody's that computes */
    memcpy(drain->heir, info->rpc_address, len + 1);
    drain->heir_is_like_us = like_us;
}

static void on_gone(void *ctx, const char *name)
{
    (void)ctx;
    (void)name; /* the call will say so */
}

static void look_for_heir(struct worker *worker)
{
    struct drain *drain = &worker->drain;
    const bool keeps = worker->options.data_dir != NULL && worker->options.data_dir[0] != '\0';
    const struct store_watch_options watch = {
        .env = worker->env,
        .master = worker->options.master,
        .secret = worker->secret,
        .on_member = on_member,
        .on_gone = on_gone,
        .ctx = worker,
    };
    struct errmsg err = { "" };

    if (keeps || worker->options.no_reuse || worker->options.master == NULL) return;
    if (store_watch(&watch, &drain->watch, &err) != STATUS_OK)
        LOG_WARN("worker", "no_heir", "name=%s reason=%s", worker->name, err.text);
}

static void hand_part(struct worker *worker);

static void end_handing(struct worker *worker)
{
    struct drain *drain = &worker->drain;

    ASSERT(drain->handing);
    LOG_INFO("worker", "handed_over", "name=%s to=%s blocks=%u of=%u", worker->name, drain->heir,
             drain->blocks_taken, drain->blocks_count);
    drain->handing = false;
    drain->handed = true;
    if (drain->peer != NULL) peer_unref(drain->peer);
    drain->peer = NULL;
    free(drain->blocks);
    drain->blocks = NULL;
}

static void on_part(void *ctx, const struct rpc_result *result)
{
    struct worker *worker = ctx;
    struct drain *drain = &worker->drain;
    struct proto_node_copied copied;

    if (!drain->handing) return; /* the end of the worker */
    if (result->status != STATUS_OK ||
        proto_node_copied_decode(result->body, result->len, &copied) != STATUS_OK) {
        end_handing(worker);
        return;
    }
    drain->blocks_taken += copied.had + copied.copied;
    hand_part(worker);
}

static void hand_part(struct worker *worker)
{
    struct drain *drain = &worker->drain;
    const uint32_t left = drain->blocks_count - drain->blocks_told;
    struct proto_node_blocks message = { .keys = drain->blocks + drain->blocks_told,
                                         .keys_count = left < PART_BLOCKS ? left : PART_BLOCKS };
    enum status status = STATUS_NOT_FOUND;
    struct rpc_call_id id;
    struct buf body;

    buf_init(&body, MESSAGE_SIZE_MAX);
    snprintf(message.holder, sizeof(message.holder), "%s", worker->address);
    if (left > 0) status = proto_node_blocks_encode(&message, &body);
    if (status == STATUS_OK) {
        const struct rpc_request request = {
            .method = PROTO_NODE_COPY,
            .body = buf_data(&body),
            .len = body.len,
            .deadline_ns = env_now_ns(worker->env) + PART_MS * ENV_NS_PER_MS,
            .wait_until_up = true,
            .on_end = on_part,
            .ctx = worker,
        };
        status = rpc_call(drain->peer->client, &request, &id);
    }
    buf_fini(&body);
    drain->blocks_told += message.keys_count;
    if (status != STATUS_OK) end_handing(worker);
}

/* A quarter of our pages at most: the heir has some of its own. */
static void hand_over(struct worker *worker)
{
    struct drain *drain = &worker->drain;
    const uint32_t quarter = worker->totals.pages_total / 4;
    const uint32_t most = quarter < WORKER_HEIRLOOMS_MAX ? quarter : WORKER_HEIRLOOMS_MAX;

    drain->handing = true;
    drain->blocks = malloc(((size_t)most + 1) * sizeof(*drain->blocks));
    if (drain->blocks == NULL || peer_acquire(worker, drain->heir, "", &drain->peer) != STATUS_OK) {
        end_handing(worker);
        return;
    }
    drain->blocks_count = store_node_hottest(worker->node, most, drain->blocks);
    hand_part(worker);
}

/* ---- values ---- */

static void on_unmounted(void *ctx, enum status status)
{
    struct worker *worker = ctx;
    worker->drain.values_until_ns = 0;
    LOG_INFO("worker", "values_handed_over", "name=%s status=%s", worker->name,
             status_name(status));
}

static void hand_over_values(struct worker *worker)
{
    const uint64_t now_ns = env_now_ns(worker->env);
    if (worker->options.handover_ms == 0 || worker->options.object_size == 0) return;
    if (worker->member == NULL) return;
    worker->drain.values_until_ns = now_ns + worker->options.handover_ms * ENV_NS_PER_MS;
    store_unmount(worker->member, on_unmounted, worker);
}

/* ---- until nothing is left ---- */

static void look(void *ctx)
{
    struct worker *worker = ctx;
    struct drain *drain = &worker->drain;
    const uint64_t now_ns = env_now_ns(worker->env);
    const uint64_t linger_ns = drain->placed ? WORKER_LINGER_MS * ENV_NS_PER_MS : 0;

    ASSERT(drain->begun && !worker->ending);
    if (drain->handing || !is_quiet(worker)) {
        drain->quiet_ns = 0;
    } else if (drain->quiet_ns == 0) {
        drain->quiet_ns = now_ns;
    }
    if (drain->quiet_ns != 0 && now_ns - drain->quiet_ns >= linger_ns) {
        const bool handed = drain->handed || drain->heir[0] == '\0';
        if (handed && now_ns >= drain->values_until_ns) {
            LOG_INFO("worker", "drained", "name=%s", worker->name);
            drain->on_drained(drain->ctx);
            return;
        }
        if (!handed) hand_over(worker);
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
    if (drain->placed) look_for_heir(worker);
    hand_over_values(worker);
    LOG_INFO("worker", "draining", "name=%s told=%d", worker->name, drain->placed);
    env_timer_set(worker->env, &drain->timer, 0);
}

void drain_end(struct worker *worker)
{
    struct drain *drain = &worker->drain;

    env_timer_cancel(worker->env, &drain->timer);
    store_unwatch(drain->watch);
    drain->watch = NULL;
    if (drain->handing) end_handing(worker);
    for (uint32_t i = 0; i < WORKER_WATCHERS_MAX; i++) {
        struct watcher *watcher = &drain->watchers[i];
        if (watcher->call != NULL) rpc_fail(watcher->call, STATUS_UNAVAILABLE, "the node ends");
        watcher->call = NULL;
    }
}
