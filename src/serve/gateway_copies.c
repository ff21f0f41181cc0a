/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_copies.c - see the header for the states.
 *
 * Slots are those of the Conductor. It gives a slot again only when the copy in it is cold; ours
 * may then still wait for a node's answer, and a copy that comes meanwhile is not made: it will be
 * hot again if it matters.
 *
 * Invariant
 *   I1  `keys` are owned exactly while the slot is not FREE, and a call is under way exactly in
 *       COPYING and DROPPING. */
#include "serve/gateway_copies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/log.h"
#include "net/rpc.h"
#include "serve/gateway_metrics.h"

enum { LOOK_MS = 1000, COPY_MS = 60000, DROP_MS = 5000, MESSAGE_SIZE_MAX = 1 << 20 };

enum slot_state { SLOT_FREE = 0, SLOT_COPYING, SLOT_HELD, SLOT_DROPPING };

struct slot {
    struct copies *copies;
    enum slot_state state;
    bool cold; /* while COPYING: it goes as soon as it is there */
    struct cluster_ref to;
    struct rpc_call_id call;
    struct block_key *keys;
    uint32_t keys_count;
    uint32_t had, copied; /* as the node said */
};

struct copies {
    struct copies_options options;
    struct env_timer timer;
    bool stopped;
    struct slot slots[YOLK_COPIES_MAX];
};

static void set_state(struct slot *slot, enum slot_state state)
{
    switch (state) {
    case SLOT_FREE: ASSERT(slot->state != SLOT_FREE); break;
    case SLOT_COPYING: ASSERT(slot->state == SLOT_FREE); break;
    case SLOT_HELD: ASSERT(slot->state == SLOT_COPYING); break;
    case SLOT_DROPPING: ASSERT(slot->state == SLOT_HELD); break;
    }
    slot->state = state;
    if (state != SLOT_FREE) return;
    free(slot->keys);
    slot->keys = NULL;
}

static const char *name_of(const struct slot *slot)
{
    const char *name = cluster_name(slot->copies->options.cluster, slot->to);
    return name != NULL ? name : "gone";
}

/* False: the node is gone, or takes no more calls. */
static bool tell(struct slot *slot, enum proto_method method,
                 const struct proto_node_blocks *message, uint64_t within_ms,
                 void (*on_end)(void *, const struct rpc_result *))
{
    const struct copies_options *options = &slot->copies->options;
    struct rpc_client *client = cluster_client(options->cluster, slot->to);
    bool sent = false;
    struct buf body;

    buf_init(&body, MESSAGE_SIZE_MAX);
    if (client != NULL && proto_node_blocks_encode(message, &body) == STATUS_OK) {
        const struct rpc_request request = {
            .method = (uint16_t)method,
            .body = buf_data(&body),
            .len = body.len,
            .deadline_ns = env_now_ns(options->env) + within_ms * ENV_NS_PER_MS,
            .on_end = on_end,
            .ctx = slot,
        };
        sent = rpc_call(client, &request, &slot->call) == STATUS_OK;
    }
    buf_fini(&body);
    return sent;
}

/* ---- removing ---- */

static void on_dropped(void *ctx, const struct rpc_result *result)
{
    struct slot *slot = ctx;

    LOG_DEBUG("gateway", "copy_dropped", "node=%s blocks=%u result=%s", name_of(slot), slot->copied,
              status_name(result->status));
    set_state(slot, SLOT_FREE);
}

static void drop(struct slot *slot)
{
    struct cluster *cluster = slot->copies->options.cluster;
    const struct yolk_instance_id id = cluster_instance(cluster, slot->to);

    ASSERT(slot->state == SLOT_HELD);
    if (id.index == YOLK_INSTANCE_NONE.index) {
        set_state(slot, SLOT_FREE);
        return;
    }
    const uint32_t elsewhere = yolk_conductor_held_elsewhere(cluster_conductor(cluster), id,
                                                             slot->keys, slot->had + slot->copied);
    const struct proto_node_blocks message = {
        .keys = slot->keys + slot->had,
        .keys_count = elsewhere > slot->had ? elsewhere - slot->had : 0,
    };
    if (message.keys_count > 0 && tell(slot, PROTO_NODE_DROP, &message, DROP_MS, on_dropped)) {
        set_state(slot, SLOT_DROPPING);
        gateway_metrics_copies_removed(slot->copies->options.metrics, message.keys_count);
    } else {
        set_state(slot, SLOT_FREE);
    }
}

/* ---- copying ---- */

static void on_copied(void *ctx, const struct rpc_result *result)
{
    struct slot *slot = ctx;
    struct proto_node_copied copied;
    enum status status = result->status;

    if (status == STATUS_OK) status = proto_node_copied_decode(result->body, result->len, &copied);
    if (status == STATUS_OK && (uint64_t)copied.had + copied.copied > slot->keys_count) {
        status = STATUS_PROTOCOL;
    }
    LOG_INFO("gateway", "copy", "to=%s blocks=%u copied=%u result=%s", name_of(slot),
             slot->keys_count, status == STATUS_OK ? copied.copied : 0, status_name(status));
    if (status != STATUS_OK) {
        set_state(slot, SLOT_FREE);
        return;
    }
    slot->had = copied.had;
    slot->copied = copied.copied;
    set_state(slot, SLOT_HELD);
    gateway_metrics_copied(slot->copies->options.metrics, copied.copied);
    if (slot->cold && !slot->copies->stopped) drop(slot);
}

static void copy(struct slot *slot, const struct yolk_copy *proposed, const struct block_key *keys)
{
    const struct cluster *cluster = slot->copies->options.cluster;
    const char *holder = cluster_address(cluster, cluster_ref_of(cluster, proposed->from));
    const uint32_t count =
        proposed->blocks < COPIES_BLOCKS_MAX ? proposed->blocks : COPIES_BLOCKS_MAX;
    struct proto_node_blocks message = { .keys = keys, .keys_count = count };

    if (holder == NULL) return;
    snprintf(message.holder, sizeof(message.holder), "%s", holder);
    struct block_key *own = malloc(count * sizeof(*own));
    if (own == NULL) return;
    memcpy(own, keys, count * sizeof(*own));
    slot->to = cluster_ref_of(cluster, proposed->to);
    slot->keys = own;
    slot->keys_count = count;
    slot->had = slot->copied = 0;
    slot->cold = false;
    set_state(slot, SLOT_COPYING);
    if (!tell(slot, PROTO_NODE_COPY, &message, COPY_MS, on_copied)) set_state(slot, SLOT_FREE);
}

static double now_ms(const struct copies *copies)
{
    return (double)env_now_ns(copies->options.env) / (double)ENV_NS_PER_MS;
}

void copies_placed(struct copies *copies, const struct block_key *keys, uint32_t keys_count)
{
    struct yolk_copy proposed;

    if (copies == NULL || copies->stopped) return;
    struct yolk_conductor *conductor = cluster_conductor(copies->options.cluster);
    if (!yolk_conductor_copy(conductor, now_ms(copies), &proposed)) return;
    ASSERT(proposed.blocks >= 1 && proposed.blocks <= keys_count);
    struct slot *slot = &copies->slots[proposed.slot];
    if (slot->state == SLOT_HELD) set_state(slot, SLOT_FREE); /* of a Conductor that is gone */
    if (slot->state == SLOT_FREE) copy(slot, &proposed, keys);
}

/* ---- looking ---- */

static void on_timer(void *ctx)
{
    struct copies *copies = ctx;
    struct yolk_conductor *conductor = cluster_conductor(copies->options.cluster);
    struct yolk_copy cold;

    while (conductor != NULL && yolk_conductor_cold(conductor, now_ms(copies), &cold)) {
        struct slot *slot = &copies->slots[cold.slot];
        slot->cold = true;
        if (slot->state == SLOT_HELD) drop(slot);
    }
    env_timer_set(copies->options.env, &copies->timer,
                  env_now_ns(copies->options.env) + LOOK_MS * ENV_NS_PER_MS);
}

/* ---- the whole ---- */

enum status copies_create(const struct copies_options *options, struct copies **out)
{
    struct copies *copies = calloc(1, sizeof(*copies));

    if (copies == NULL) return STATUS_NO_MEMORY;
    copies->options = *options;
    for (uint32_t i = 0; i < YOLK_COPIES_MAX; i++)
        copies->slots[i].copies = copies;
    env_timer_init(&copies->timer, on_timer, copies);
    on_timer(copies);
    *out = copies;
    return STATUS_OK;
}

void copies_stop(struct copies *copies)
{
    if (copies == NULL) return;
    copies->stopped = true;
    env_timer_cancel(copies->options.env, &copies->timer);
}

void copies_destroy(struct copies *copies)
{
    if (copies == NULL) return;
    for (uint32_t i = 0; i < YOLK_COPIES_MAX; i++) {
        struct slot *slot = &copies->slots[i];
        ASSERT(slot->state == SLOT_FREE || slot->state == SLOT_HELD);
        if (slot->state == SLOT_HELD) set_state(slot, SLOT_FREE);
    }
    free(copies);
}
