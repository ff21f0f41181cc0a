/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_elastic.c - see the header for the states.
 *
 * A flip names its node by a cluster_ref: one life of it. If that life is over, or the Conductor
 * has called the flip off, there is nothing left to do.
 *
 * Invariants
 *   I1  `calling` is set exactly while node.role is under way to the node.
 *   I2  a flip is in the table exactly while the Conductor says that its instance drains, as of the
 *       last look. */
#include "serve/gateway_elastic.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/log.h"
#include "net/rpc.h"
#include "serve/gateway_metrics.h"

enum { LOOKS = 30, LOOK_MS_MIN = 100, LOOK_MS_MAX = 1000, TELL_MS = 5000, MESSAGE_SIZE_MAX = 256 };

struct flip {
    bool used;
    bool calling;
    struct elastic *elastic;
    struct cluster_ref node;
    enum proto_role to;
    uint64_t since_ns;
    struct rpc_call_id call;
};

struct elastic {
    struct elastic_options options;
    struct env_timer timer;
    struct flip flips[ELASTIC_FLIPS_MAX];
};

static double now_ms(const struct elastic *elastic)
{
    return (double)env_now_ns(elastic->options.env) / (double)ENV_NS_PER_MS;
}

static enum proto_role role_of(unsigned roles)
{
    return roles == YOLK_ROLE_PREFILL ? PROTO_ROLE_PREFILL : PROTO_ROLE_DECODE;
}

static const char *name_of(const struct flip *flip)
{
    const struct cluster *cluster = flip->elastic->options.cluster;
    const char *name = cluster_name(cluster, flip->node);
    return name != NULL ? name : "gone";
}

/* Does the Conductor still want it, and is the node that was meant still there? */
static bool is_wanted(const struct flip *flip, struct yolk_instance_id *id)
{
    struct cluster *cluster = flip->elastic->options.cluster;

    *id = cluster_instance(cluster, flip->node);
    return id->index != YOLK_INSTANCE_NONE.index &&
           yolk_conductor_draining(cluster_conductor(cluster), *id);
}

static void drop(struct flip *flip, const char *reason)
{
    struct rpc_client *client = cluster_client(flip->elastic->options.cluster, flip->node);

    LOG_INFO("gateway", "role_kept", "node=%s to=%s reason=%s", name_of(flip),
             proto_role_name(flip->to), reason);
    flip->used = false;
    if (flip->calling && client != NULL) rpc_cancel(client, flip->call);
}

/* ---- telling the node ---- */

static void on_told(void *ctx, const struct rpc_result *result)
{
    struct flip *flip = ctx;
    struct elastic *elastic = flip->elastic;
    struct yolk_conductor *conductor = cluster_conductor(elastic->options.cluster);
    const bool done = result->status == STATUS_OK;
    struct yolk_instance_id id;

    flip->calling = false;
    if (!flip->used) return;
    if (!is_wanted(flip, &id)) {
        drop(flip, "called off");
        return;
    }
    yolk_conductor_flip_end(conductor, id, done, now_ms(elastic));
    if (!done) {
        drop(flip, status_name(result->status));
        return;
    }
    flip->used = false;
    cluster_note_role(elastic->options.cluster, flip->node, flip->to);
    gateway_metrics_role_changed(elastic->options.metrics, proto_role_name(flip->to));
    LOG_INFO("gateway", "role_changed", "node=%s to=%s took_ms=%.0f", name_of(flip),
             proto_role_name(flip->to),
             now_ms(elastic) - (double)flip->since_ns / (double)ENV_NS_PER_MS);
    elastic->options.on_change(elastic->options.ctx);
}

static void tell(struct flip *flip)
{
    struct elastic *elastic = flip->elastic;
    struct rpc_client *client = cluster_client(elastic->options.cluster, flip->node);
    const struct proto_node_role message = { flip->to };
    struct buf body;

    if (client == NULL) return;
    buf_init(&body, MESSAGE_SIZE_MAX);
    if (proto_node_role_encode(&message, &body) == STATUS_OK) {
        const struct rpc_request request = {
            .method = PROTO_NODE_ROLE,
            .body = buf_data(&body),
            .len = body.len,
            .deadline_ns = env_now_ns(elastic->options.env) + TELL_MS * ENV_NS_PER_MS,
            .on_end = on_told,
            .ctx = flip,
        };
        flip->calling = rpc_call(client, &request, &flip->call) == STATUS_OK;
    }
    buf_fini(&body); /* not sent: at the next look */
}

/* ---- looking ---- */

static void go_on(struct flip *flip)
{
    struct elastic *elastic = flip->elastic;
    struct yolk_instance_id id;
    const uint64_t now = env_now_ns(elastic->options.env);
    const uint64_t drain_ns = (uint64_t)(elastic->options.drain_ms * (double)ENV_NS_PER_MS);

    if (!is_wanted(flip, &id)) {
        drop(flip, "called off");
        return;
    }
    if (flip->calling) return;
    if (yolk_conductor_drained(cluster_conductor(elastic->options.cluster), id)) {
        tell(flip);
    } else if (now - flip->since_ns >= drain_ns) {
        const uint32_t moved = elastic->options.hand_over(elastic->options.ctx, flip->node);
        if (moved == 0) return;
        gateway_metrics_handed_over(elastic->options.metrics, moved);
        LOG_INFO("gateway", "handed_over", "node=%s requests=%u", name_of(flip), moved);
    }
}

static struct flip *free_flip(struct elastic *elastic)
{
    for (uint32_t i = 0; i < ELASTIC_FLIPS_MAX; i++) {
        struct flip *flip = &elastic->flips[i];
        if (!flip->used && !flip->calling) return flip;
    }
    return NULL;
}

static void begin(struct elastic *elastic, struct flip *flip, const struct yolk_flip *proposed)
{
    flip->used = true;
    flip->elastic = elastic;
    flip->node = cluster_ref_of(elastic->options.cluster, proposed->id);
    flip->to = role_of(proposed->to);
    flip->since_ns = env_now_ns(elastic->options.env);
    LOG_INFO("gateway", "role_draining",
             "node=%s to=%s prefill_load=%.2f decode_load=%.2f cost_ms=%.0f", name_of(flip),
             proto_role_name(flip->to), proposed->prefill_load, proposed->decode_load,
             proposed->cost_ms);
}

static void look(struct elastic *elastic)
{
    struct yolk_conductor *conductor = cluster_conductor(elastic->options.cluster);
    struct yolk_outside outside = { 0, 0 };
    struct yolk_flip proposed;

    for (uint32_t i = 0; i < ELASTIC_FLIPS_MAX; i++) {
        if (elastic->flips[i].used) go_on(&elastic->flips[i]);
    }
    struct flip *flip = free_flip(elastic);
    if (conductor == NULL || flip == NULL) return;
    elastic->options.outside(elastic->options.ctx, &outside);
    if (yolk_conductor_elastic(conductor, &outside, now_ms(elastic), &proposed)) {
        begin(elastic, flip, &proposed);
    }
}

static void arm(struct elastic *elastic)
{
    double every_ms = elastic->options.window_ms / LOOKS;

    if (every_ms < LOOK_MS_MIN) every_ms = LOOK_MS_MIN;
    if (every_ms > LOOK_MS_MAX) every_ms = LOOK_MS_MAX;
    env_timer_set(elastic->options.env, &elastic->timer,
                  env_now_ns(elastic->options.env) + (uint64_t)every_ms * ENV_NS_PER_MS);
}

static void on_timer(void *ctx)
{
    struct elastic *elastic = ctx;

    look(elastic);
    arm(elastic);
}

/* ---- the whole ---- */

enum status elastic_create(const struct elastic_options *options, struct elastic **out)
{
    struct elastic *elastic = calloc(1, sizeof(*elastic));

    if (elastic == NULL) return STATUS_NO_MEMORY;
    ASSERT(options->window_ms > 0 && options->drain_ms >= 0);
    elastic->options = *options;
    env_timer_init(&elastic->timer, on_timer, elastic);
    arm(elastic);
    *out = elastic;
    return STATUS_OK;
}

void elastic_stop(struct elastic *elastic)
{
    if (elastic == NULL) return;
    env_timer_cancel(elastic->options.env, &elastic->timer);
    for (uint32_t i = 0; i < ELASTIC_FLIPS_MAX; i++)
        elastic->flips[i].used = false;
}

void elastic_destroy(struct elastic *elastic)
{
    if (elastic == NULL) return;
    for (uint32_t i = 0; i < ELASTIC_FLIPS_MAX; i++)
        ASSERT(!elastic->flips[i].calling);
    free(elastic);
}
