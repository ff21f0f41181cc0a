/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/gateway_nodes.h"

#include <string.h>

#include "base/buf.h"
#include "serve/api_json.h"
#include "serve/gateway_cluster.h"
#include "yolk/conductor.h"

#define THEN(status, step)                                                                         \
    do {                                                                                           \
        if ((status) == STATUS_OK) (status) = (step);                                              \
    } while (0)

static const char *bool_text(bool value)
{
    return value ? "true" : "false";
}

static enum status write_node(struct buf *out, const struct cluster_node *node, bool draining)
{
    const struct proto_node_status *s = &node->status;
    enum status status = buf_append_text(out, "{\"name\":");

    THEN(status, api_json_write_string(out, node->name, strlen(node->name)));
    THEN(status, buf_append_text(out, ",\"address\":"));
    THEN(status, api_json_write_string(out, node->address, strlen(node->address)));
    THEN(status,
         buf_printf(out,
                    ",\"role\":\"%s\",\"works\":%s,\"draining\":%s,\"leaving\":%s,"
                    "\"phase\":\"%s\","
                    "\"state\":\"%s\",\"queued\":%u,\"running\":%u,\"decoding\":%u,"
                    "\"at_door\":%u",
                    node->role != 0 ? proto_role_name(node->role) : "unknown",
                    bool_text(node->works), bool_text(draining), bool_text(node->leaving),
                    node->phase, node->state, s->queued, s->running, s->decoding, s->at_door));
    THEN(status, buf_printf(out, ",\"pages_total\":%u,\"pages_free\":%u,\"pages_cached\":%u}",
                            s->pages_total, s->pages_free, s->pages_cached));
    return status;
}

static enum status write_roles(struct buf *out, const struct yolk_conductor *conductor)
{
    struct yolk_elastic_stats e;

    if (conductor == NULL) return buf_append_text(out, "null");
    yolk_conductor_elastic_stats(conductor, &e);
    enum status status = buf_printf(
        out, "{\"on\":%s,\"window_ms\":%.0f,\"dwell_ms\":%.0f,\"drain_ms\":%.0f",
        bool_text(e.options.on), e.options.window_ms, e.options.dwell_ms, e.options.drain_ms);
    THEN(status, buf_printf(out,
                            ",\"load\":{\"prefill\":%.4f,\"decode\":%.4f},"
                            "\"evidence_ms\":{\"prefill\":%.0f,\"decode\":%.0f}",
                            e.prefill_load, e.decode_load, e.more_prefill_ms, e.more_decode_ms));
    THEN(status,
         buf_printf(out, ",\"begun\":%llu,\"done\":%llu,\"cancelled\":%llu,\"draining\":%u}",
                    (unsigned long long)e.begun, (unsigned long long)e.done,
                    (unsigned long long)e.cancelled, e.draining));
    return status;
}

enum status gateway_nodes_list(struct cluster *cluster, struct buf *out)
{
    const struct yolk_conductor *conductor = cluster_conductor(cluster);
    enum status status = buf_append_text(out, "{\"nodes\":[");
    struct cluster_node node;
    bool first = true;

    for (uint32_t i = 0; i < cluster_slots(cluster); i++) {
        if (!cluster_node_at(cluster, i, &node)) continue;
        const bool known = node.id.index != YOLK_INSTANCE_NONE.index;
        if (!first) THEN(status, buf_append_text(out, ",\n"));
        first = false;
        THEN(status, write_node(out, &node, known && yolk_conductor_draining(conductor, node.id)));
    }
    THEN(status, buf_append_text(out, "],\n\"roles\":"));
    THEN(status, write_roles(out, conductor));
    THEN(status, buf_append_text(out, "}\n"));
    return status;
}
