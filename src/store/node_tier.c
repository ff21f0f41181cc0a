/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_tier.c - see the header: the queue of what is to be written, what the disk tells the
 * node's log, and blocks brought up for readers elsewhere. */
#include "store/node_tier.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/node_int.h"
#include "store/proto.h"
#include "store/ssd.h"

#define DRAIN_NS ENV_NS_PER_S

enum {
    WRITES_PER_TURN = 2, /* copies made before the loop may do something else */
    PROMOTE_SHARE = 4,   /* a reader elsewhere may have this part of the pages brought up */
};

/* A committed page; by now it may hold something else. */
struct queued {
    struct store_page page;
    uint64_t generation;
};

struct node_tier {
    struct store_node *node;
    struct ssd *ssd;
    struct queued *queue; /* a circle */
    uint32_t queue_max;
    uint32_t queue_head;
    uint32_t queue_count;
    bool waiting; /* for on_room */
    struct env_timer timer;
    uint64_t dropped_total;  /* left the pages, or the queue, before they were written */
    uint64_t promoted_total; /* brought up for readers elsewhere */
    uint32_t promotes;
};

struct ssd *node_tier_ssd(const struct store_node *node)
{
    return node->tier != NULL ? node->tier->ssd : NULL;
}

/* ---- writing behind ---- */

static void pump_soon(struct node_tier *tier)
{
    if (tier->queue_count == 0 || tier->waiting || env_timer_armed(&tier->timer)) return;
    env_timer_set(tier->node->env, &tier->timer, env_now_ns(tier->node->env));
}

static void queue_pop(struct node_tier *tier)
{
    ASSERT(tier->queue_count > 0);
    tier->queue_head = (tier->queue_head + 1) % tier->queue_max;
    tier->queue_count--;
}

/* Is the block still what was queued? */
static bool queued_there(const struct node_tier *tier, const struct queued *queued)
{
    const struct pool *pool = tier->node->pool;
    return pool_key(pool, queued->page) != NULL &&
           pool_generation(pool, queued->page) == queued->generation;
}

/* Does something about the head of the queue. True: a block was copied. */
static bool queue_step(struct node_tier *tier)
{
    struct store_node *node = tier->node;
    const struct queued queued = tier->queue[tier->queue_head];

    if (!queued_there(tier, &queued)) {
        tier->dropped_total++;
        queue_pop(tier);
        return false;
    }
    const enum status status =
        ssd_write(tier->ssd, pool_key(node->pool, queued.page), store_node_data(node, queued.page),
                  pool_sums(node->pool, queued.page));
    if (status == STATUS_FULL) {
        tier->waiting = true;
        return false;
    }
    queue_pop(tier);
    return status == STATUS_OK;
}

static void on_pump(void *ctx)
{
    struct node_tier *tier = ctx;
    for (int copies = 0; copies < WRITES_PER_TURN && tier->queue_count > 0 && !tier->waiting;)
        copies += queue_step(tier);
    pump_soon(tier);
}

static void on_room(void *ctx)
{
    struct node_tier *tier = ctx;
    tier->waiting = false;
    pump_soon(tier);
}

void node_tier_stored(struct store_node *node, struct store_page page)
{
    struct node_tier *tier = node->tier;

    if (tier == NULL) return;
    if (tier->queue_count == tier->queue_max) {
        tier->dropped_total++;
        queue_pop(tier);
    }
    const uint32_t tail = (tier->queue_head + tier->queue_count) % tier->queue_max;
    tier->queue[tail] = (struct queued){ page, pool_generation(node->pool, page) };
    tier->queue_count++;
    pump_soon(tier);
}

/* ---- what the disk tells ---- */

static void on_disk_stored(void *ctx, const struct block_key *key)
{
    const struct node_tier *tier = ctx;
    if (pool_match(tier->node->pool, key, 1) == 1) return; /* it is nearer than that */
    node_log(tier->node, STORE_EVENT_STORED, STORE_CLASS_BLOCK, key, ++tier->node->generation);
}

static void on_disk_removed(void *ctx, const struct block_key *key)
{
    const struct node_tier *tier = ctx;
    if (pool_match(tier->node->pool, key, 1) == 1) return;
    node_log(tier->node, STORE_EVENT_REMOVED, STORE_CLASS_BLOCK, key, ++tier->node->generation);
}

/* ---- asking ---- */

bool node_tier_has(const struct store_node *node, const struct block_key *key)
{
    return node->tier != NULL && ssd_has(node->tier->ssd, key);
}

void node_tier_touch(struct store_node *node, const struct block_key *key)
{
    if (node->tier != NULL) ssd_touch(node->tier->ssd, key);
}

void node_tier_drop(struct store_node *node, const struct block_key *key)
{
    if (node->tier == NULL) return;
    if (ssd_drop(node->tier->ssd, key) == STATUS_OK) LOG_DEBUG("store", "dropped_on_disk", "");
}

bool node_tier_next(const struct store_node *node, uint64_t *cursor, struct block_key *key)
{
    if (node->tier == NULL) return false;
    while (ssd_next(node->tier->ssd, cursor, key)) {
        if (pool_match(node->pool, key, 1) == 0) return true;
    }
    return false;
}

void node_tier_admit(struct store_node *node, struct store_page page)
{
    const struct block_key *victim = pool_victim(node->pool);
    const struct block_key *key = pool_key(node->pool, page);

    if (node->tier == NULL || victim == NULL || key == NULL) return;
    if (ssd_heat(node->tier->ssd, key) < ssd_heat(node->tier->ssd, victim)) {
        pool_chill(node->pool, page);
    }
}

void node_tier_counts(const struct store_node *node, struct store_node_counts *out)
{
    const struct node_tier *tier = node->tier;

    if (tier == NULL) return;
    out->disk = true;
    out->disk_queue = tier->queue_count;
    out->disk_dropped_total = tier->dropped_total;
    out->disk_promoted_total = tier->promoted_total;
    ssd_counts(tier->ssd, &out->ssd);
}

/* ---- for readers elsewhere ---- */

struct promote {
    struct store_node *node;
    struct rpc_call *call; /* NULL: it has gone */
    struct store_fetch *fetch;
    struct store_page *pages;
    uint32_t count;
    size_t len;
    uint8_t body[];
};

static void on_promoted(void *ctx, const struct store_fetch_result *result)
{
    struct promote *promote = ctx;
    struct store_node *node = promote->node;

    for (uint32_t i = 0; i < promote->count; i++)
        store_node_unref(node, promote->pages[i]);
    if (node->tier != NULL) {
        node->tier->promotes--;
        node->tier->promoted_total += result->blocks;
    }
    if (promote->call != NULL) {
        node_acquire_reply(node, promote->call, promote->body, promote->len);
    }
    free(promote->pages);
    free(promote);
}

static void on_reader_gone(void *ctx, enum status why)
{
    struct promote *promote = ctx;
    rpc_fail(promote->call, why, NULL);
    promote->call = NULL;
    store_fetch_cancel(promote->fetch);
}

/* What to bring up: the first run of the prefix that begins with a block in no page. */
static uint32_t promote_run(const struct store_node *node, const struct block_key *keys,
                            uint32_t count, uint32_t *first)
{
    const uint32_t most = node->layout.pages / PROMOTE_SHARE;
    *first = pool_match(node->pool, keys, count);
    const uint32_t here = store_node_match(node, keys, count);
    const uint32_t run = here - *first;
    return run < most ? run : most;
}

static struct promote *promote_new(struct store_node *node, struct rpc_call *call,
                                   const uint8_t *body, size_t len, uint32_t count)
{
    struct promote *promote = malloc(sizeof(*promote) + len);
    if (promote == NULL) return NULL;
    *promote = (struct promote){ .node = node, .call = call, .count = count, .len = len };
    memcpy(promote->body, body, len);
    promote->pages = calloc(count, sizeof(*promote->pages));
    if (promote->pages != NULL && store_node_alloc(node, count, promote->pages) == STATUS_OK) {
        return promote;
    }
    free(promote->pages);
    free(promote);
    return NULL;
}

static bool promote_start(struct store_node *node, struct rpc_call *call, const uint8_t *body,
                          size_t len, const struct block_key *keys, uint32_t count)
{
    uint32_t first;
    const uint32_t run = promote_run(node, keys, count, &first);
    struct promote *promote = run > 0 ? promote_new(node, call, body, len, run) : NULL;
    if (promote == NULL) return false;

    const struct store_fetch_options options = { .keys = keys + first,
                                                 .pages = promote->pages,
                                                 .count = run,
                                                 .deadline_ns = rpc_call_deadline_ns(call),
                                                 .on_done = on_promoted,
                                                 .ctx = promote };
    if (store_node_fetch(node, &options, &promote->fetch) != STATUS_OK) {
        for (uint32_t i = 0; i < run; i++)
            store_node_unref(node, promote->pages[i]);
        free(promote->pages);
        free(promote);
        return false;
    }
    node->tier->promotes++;
    rpc_on_cancel(call, on_reader_gone, promote);
    return true;
}

bool node_tier_promote(struct store_node *node, struct rpc_call *call, const uint8_t *body,
                       size_t len, const struct store_acquire *request)
{
    if (node->tier == NULL || node->tier->promotes == NODE_PROMOTES_MAX) return false;
    if (request->class != STORE_CLASS_BLOCK || !request->prefix) return false;
    struct block_key *keys = malloc(request->count * sizeof(*keys));
    if (keys == NULL) return false;
    memcpy(keys, request->ids, request->count * sizeof(*keys));
    const bool started = promote_start(node, call, body, len, keys, request->count);
    free(keys);
    return started;
}

/* ---- life ---- */

enum status node_tier_open(struct store_node *node, const struct store_node_options *options,
                           struct errmsg *err)
{
    struct node_tier *tier = calloc(1, sizeof(*tier));
    if (tier == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    struct ssd_options ssd = { .env = node->env,
                               .directory = options->disk_directory,
                               .size_max = options->disk_size,
                               .layout = node->layout,
                               .part_size = options->disk_part_size,
                               .keys = options->disk_keys,
                               .packing = options->disk_packing,
                               .on_stored = on_disk_stored,
                               .on_removed = on_disk_removed,
                               .on_room = on_room,
                               .ctx = tier };
    env_random(node->env, &ssd.seed, sizeof(ssd.seed));
    tier->node = node;
    tier->queue_max = node->layout.pages < NODE_QUEUE_MAX ? node->layout.pages : NODE_QUEUE_MAX;
    env_timer_init(&tier->timer, on_pump, tier);
    tier->queue = calloc(tier->queue_max, sizeof(*tier->queue));
    enum status status = STATUS_NO_MEMORY;
    if (tier->queue == NULL) {
        errmsg_set(err, status, "out of memory");
    } else {
        status = ssd_open(&ssd, &tier->ssd, err);
    }
    if (status != STATUS_OK) {
        free(tier->queue);
        free(tier);
        return status;
    }
    node->tier = tier;
    return STATUS_OK;
}

/* What still waits is written now, for as long as that is quick. */
static void queue_drain(struct node_tier *tier)
{
    struct store_node *node = tier->node;
    const uint64_t end_ns = env_now_ns(node->env) + DRAIN_NS;

    for (; tier->queue_count > 0 && env_now_ns(node->env) < end_ns; queue_pop(tier)) {
        const struct queued queued = tier->queue[tier->queue_head];
        if (!queued_there(tier, &queued)) continue;
        const enum status status =
            ssd_write_now(tier->ssd, pool_key(node->pool, queued.page),
                          store_node_data(node, queued.page), pool_sums(node->pool, queued.page));
        if (status != STATUS_OK && status != STATUS_EXISTS) return;
    }
}

void node_tier_close(struct store_node *node, bool drain)
{
    struct node_tier *tier = node->tier;

    if (tier == NULL) return;
    if (drain) queue_drain(tier);
    node->tier = NULL;
    env_timer_cancel(node->env, &tier->timer);
    if (tier->queue_count > 0) {
        LOG_INFO("store", "not_written_behind", "blocks=%u", tier->queue_count);
    }
    ssd_close(tier->ssd);
    free(tier->queue);
    free(tier);
}
