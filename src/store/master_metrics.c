/* SPDX-License-Identifier: Apache-2.0 */
#include "store/master_metrics.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/env.h"
#include "net/http.h"
#include "net/rpc.h"
#include "store/master.h"
#include "store/master_tally.h"

struct store_master_metrics {
    struct env *env;
    const struct store_master *master;
    const struct master_tally *tally;
    struct http_server *http;
};

enum { CONNECTIONS_MAX = 32, PAGE_SIZE_MAX = 4 << 20 };

/* A number of the pool, a node or a tenant, and where it is in what tells of it. */
struct number {
    const char *name;
    const char *type;
    const char *help;
    size_t offset;
    const char *labels; /* more of them, or NULL */
};

#define POOL(name, type, field, help)                                                              \
    {                                                                                              \
        name, type, help, offsetof(struct store_master_counts, field), NULL                        \
    }
#define NODE(name, field, help)                                                                    \
    {                                                                                              \
        name, "gauge", help, offsetof(struct store_member_counts, field), NULL                     \
    }
#define TENANT(name, type, field, help)                                                            \
    {                                                                                              \
        name, type, help, offsetof(struct store_tenant_counts, field), NULL                        \
    }

static const struct number pool_numbers[] = {
    POOL("master_allocated_bytes", "gauge", space_used, "Memory of nodes that values have."),
    POOL("master_total_capacity_bytes", "gauge", space_total, "Memory that nodes lend for values."),
    POOL("master_key_count", "gauge", values, "Keys of values."),
    POOL("master_put_start_discard_cnt", "counter", discarded_total,
         "Puts whose writer fell silent."),
    POOL("master_put_start_alloc_failures_total", "counter", refused_full_total,
         "Puts refused for want of room."),
    POOL("master_put_start_release_cnt", "counter", released_total,
         "Puts given up whose room is free again."),
    POOL("master_put_start_discarded_staging_size", "gauge", limbo_bytes,
         "Room of puts given up that is not free yet."),
    POOL("master_evicted_key_count", "counter", evictions_total,
         "Replicas of values that were evicted."),
    POOL("master_evicted_key_count_mem", "counter", evictions_total,
         "Of those, from memory: all of them."),
    POOL("master_evicted_size_bytes", "counter", evicted_bytes_total, "Memory that they had."),
    POOL("master_evicted_size_bytes_mem", "counter", evicted_bytes_total,
         "Of that, memory: all of it."),
    POOL("master_attempted_evictions_total", "counter", evicting_total,
         "Times that something had to go."),
    POOL("master_attempted_evictions_mem", "counter", evicting_total,
         "Of those, from memory: all of them."),
    POOL("master_successful_evictions_total", "counter", evicted_total,
         "Of the attempts, those that found something."),
    POOL("master_successful_evictions_mem", "counter", evicted_total,
         "Of those, from memory: all of them."),
    POOL("master_soft_pin_key_count", "gauge", soft_pins, "Values that a soft pin keeps."),
    POOL("yolk_store_blocks_and_values", "gauge", objects, "Keys known, blocks and values."),
    POOL("yolk_store_replicas", "gauge", replicas, "Replicas of blocks and values."),
    POOL("yolk_store_puts_under_way", "gauge", processing, "Values being written."),
    POOL("yolk_store_quarantines_total", "counter", barred_total,
         "Times that a node was put in quarantine."),
    POOL("yolk_store_tasks_under_way", "gauge", tasks, "Copies and moves by name, not ended yet."),
    POOL("yolk_store_copies_under_way", "gauge", copies, "Values being copied to another node."),
    POOL("yolk_store_copies_total", "counter", copies_total, "Values copied to another node."),
    POOL("yolk_store_hot_values", "gauge", hot_values,
         "Values with more replicas than wished, as they are read much."),
    POOL("yolk_store_hot_replicas", "gauge", hot_replicas, "Those replicas, as far as made."),
    POOL("yolk_store_hot_taken_total", "counter", hot_taken_total,
         "Such replicas that had to make room."),
    POOL("yolk_store_puts_total", "counter", puts_total, "Tickets for puts."),
    POOL("yolk_store_reads_total", "counter", reads_total, "Keys asked for by exist and get."),
    POOL("yolk_store_hits_total", "counter", hits_total, "Of those, keys that were there."),
    POOL("yolk_store_removes_total", "counter", removes_total, "Values removed by name."),
    POOL("yolk_store_conflicts_total", "counter", conflicts_total,
         "Replicas announced with other bytes than known."),
    POOL("yolk_store_directory_bytes", "gauge", memory, "Memory of the directory, roughly."),
};

static const struct number node_numbers[] = {
    NODE("segment_allocated_bytes", space_used, "Memory of a node that values have."),
    NODE("segment_total_capacity_bytes", space_total, "Memory that a node lends for values."),
    NODE("yolk_store_node_values", values, "Replicas of values at a node."),
    NODE("yolk_store_node_load_bytes", load,
         "Bytes a second that a node moves for values and blocks."),
    NODE("yolk_store_node_quarantined", barred, "1: the node is in quarantine."),
    NODE("yolk_store_node_faults", faults, "Faults of memory and disk that a node has told of."),
    NODE("yolk_store_node_blocks", blocks, "Blocks of KVCache in the memory of a node."),
};

/* The master's own without a label, and that of each node. */
static const struct number damaged = { "yolk_rpc_damaged_frames_total", "counter",
                                       "Frames that did not come as they were sent.",
                                       offsetof(struct store_member_counts, damaged), NULL };

static const struct number tenant_numbers[] = {
    { "mooncake_tenant_quota_reject_total", "counter", "Puts refused for a tenant's quota.",
      offsetof(struct store_tenant_counts, refused_total), ",reason=\"quota_exceeded\"" },
    TENANT("mooncake_tenant_evict_bytes_total", "counter", evicted.bytes,
           "Memory of a tenant's values that were evicted."),
    TENANT("yolk_store_tenant_quota_bytes", "gauge", quota.bytes,
           "Memory a tenant may have; 0: no limit."),
    TENANT("yolk_store_tenant_quota_values", "gauge", quota.replicas,
           "Replicas of values a tenant may have in memory; 0: no limit."),
    TENANT("yolk_store_tenant_used_bytes", "gauge", used.bytes, "Memory a tenant has."),
    TENANT("yolk_store_tenant_used_values", "gauge", used.replicas,
           "Replicas of values a tenant has in memory."),
    TENANT("yolk_store_tenant_keys", "gauge", values, "Keys of a tenant, on disk too."),
};

enum { COUNT_OF_POOL = sizeof(pool_numbers) / sizeof(pool_numbers[0]) };
enum { COUNT_OF_NODE = sizeof(node_numbers) / sizeof(node_numbers[0]) };
enum { COUNT_OF_TENANT = sizeof(tenant_numbers) / sizeof(tenant_numbers[0]) };

/* ---- the page ---- */

static uint64_t number_in(const struct number *number, const void *numbers)
{
    uint64_t value;
    memcpy(&value, (const uint8_t *)numbers + number->offset, sizeof(value));
    return value;
}

static enum status put_head(struct buf *out, const char *name, const char *type, const char *help)
{
    return buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static enum status put_one(struct buf *out, const char *name, const char *type, const char *help,
                           uint64_t value)
{
    const enum status status = put_head(out, name, type, help);
    if (status != STATUS_OK) return status;
    return buf_printf(out, "%s %llu\n", name, (unsigned long long)value);
}

/* A name from outside may have anything in it. */
static enum status put_labelled(struct buf *out, const struct number *number, const char *label,
                                const char *value, const void *numbers)
{
    char clean[STORE_NAME_SIZE];
    size_t len = 0;

    for (; value[len] != '\0' && len + 1 < sizeof(clean); len++) {
        const unsigned char c = (unsigned char)value[len];
        clean[len] = c < 0x20 || c >= 0x7f || c == '"' || c == '\\' ? '_' : (char)c;
    }
    clean[len] = '\0';
    return buf_printf(out, "%s{%s=\"%s\"%s} %llu\n", number->name, label, clean,
                      number->labels == NULL ? "" : number->labels,
                      (unsigned long long)number_in(number, numbers));
}

_Static_assert((int)STORE_NAME_SIZE >= (int)STORE_TENANT_SIZE, "names of tenants fit, too");

static enum status put_each_node(const struct store_master *master, uint64_t now_ns,
                                 const struct number *number, struct buf *out)
{
    struct store_member_info info;
    struct store_member_counts counts;
    enum store_member_state state;
    struct store_node_id id;
    enum status status = STATUS_OK;

    for (uint32_t i = 0; status == STATUS_OK && store_master_member(master, i, &info, &state, &id);
         i++) {
        if (!store_master_member_counts(master, now_ns, id, &counts)) continue;
        status = put_labelled(out, number, "segment", info.name, &counts);
    }
    return status;
}

static enum status put_nodes(const struct store_master *master, uint64_t now_ns,
                             const struct number *number, struct buf *out)
{
    const enum status status = put_head(out, number->name, number->type, number->help);
    return status == STATUS_OK ? put_each_node(master, now_ns, number, out) : status;
}

static enum status put_tenants(const struct store_master *master, const struct number *number,
                               struct buf *out)
{
    struct store_tenant_counts counts;
    uint32_t cursor = 0;
    enum status status = put_head(out, number->name, number->type, number->help);

    while (status == STATUS_OK && store_master_tenant(master, &cursor, &counts))
        status = put_labelled(out, number, "tenant_id", counts.name, &counts);
    return status;
}

/* Nodes that beat: those a client could be. */
static uint64_t members_alive(const struct store_master *master)
{
    struct store_member_info info;
    enum store_member_state state;
    struct store_node_id id;
    uint64_t alive = 0;

    for (uint32_t i = 0; store_master_member(master, i, &info, &state, &id); i++)
        alive += state == STORE_MEMBER_ALIVE;
    return alive;
}

/* Sizes of values, as far as puts of them were let in. */
static enum status put_sizes(const struct store_master_counts *counts, struct buf *out)
{
    static const char name[] = "master_value_size_bytes";
    uint64_t sum = 0;
    enum status status = put_head(out, name, "histogram", "Sizes of values that are put.");

    for (uint32_t i = 0; status == STATUS_OK && i < STORE_PUT_SIZES - 1; i++) {
        sum += counts->put_sizes[i];
        status = buf_printf(out, "%s_bucket{le=\"%llu\"} %llu\n", name,
                            (unsigned long long)store_put_size_bounds[i], (unsigned long long)sum);
    }
    if (status != STATUS_OK) return status;
    return buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %llu\n%s_count %llu\n", name,
                      (unsigned long long)counts->puts_total, name,
                      (unsigned long long)counts->put_bytes_total, name,
                      (unsigned long long)counts->puts_total);
}

/* ---- requests ---- */

static enum status put_counter(struct buf *out, const char *form, const char *op, const char *what,
                               uint64_t value)
{
    return buf_printf(out,
                      "# HELP master_%s%s_%s_total Requests answered: %s.\n"
                      "# TYPE master_%s%s_%s_total counter\nmaster_%s%s_%s_total %llu\n",
                      form, op, what, what, form, op, what, form, op, what,
                      (unsigned long long)value);
}

static enum status put_batch(struct buf *out, const char *op,
                             const struct master_batch_counts *counts)
{
    const struct {
        const char *what;
        uint64_t value;
    } series[] = { { "requests", counts->requests },
                   { "failures", counts->failures },
                   { "partial_successes", counts->partial_successes },
                   { "items", counts->items },
                   { "failed_items", counts->failed_items } };
    enum status status = STATUS_OK;

    for (size_t i = 0; status == STATUS_OK && i < sizeof(series) / sizeof(series[0]); i++)
        status = put_counter(out, "batch_", op, series[i].what, series[i].value);
    return status;
}

static enum status put_requests(const struct master_tally *tally, struct buf *out)
{
    enum status status = STATUS_OK;

    for (unsigned op = 0; status == STATUS_OK && op < MASTER_OPS; op++) {
        const char *name = master_op_name((enum master_op)op);
        status = put_counter(out, "", name, "requests", tally->one[op].requests);
        if (status == STATUS_OK)
            status = put_counter(out, "", name, "failures", tally->one[op].failures);
        if (status == STATUS_OK && op < MASTER_BATCH_OPS)
            status = put_batch(out, name, &tally->batch[op]);
    }
    return status;
}

enum status store_master_metrics_page(const struct store_master *master,
                                      const struct master_tally *tally, uint64_t now_ns,
                                      struct buf *out)
{
    struct store_master_counts counts;
    store_master_counts(master, &counts);
    enum status status = put_one(out, "master_active_clients", "gauge",
                                 "Nodes that are members, and heard.", members_alive(master));

    if (status == STATUS_OK)
        status = put_one(out, "yolk_store_term", "gauge", "This master's; a later one's is higher.",
                         store_master_term(master));
    if (status == STATUS_OK)
        status = put_one(out, damaged.name, damaged.type, damaged.help, rpc_damaged_total());
    if (status == STATUS_OK) status = put_each_node(master, now_ns, &damaged, out);
    for (size_t i = 0; status == STATUS_OK && i < COUNT_OF_POOL; i++) {
        const struct number *number = &pool_numbers[i];
        status = put_one(out, number->name, number->type, number->help, number_in(number, &counts));
    }
    if (status == STATUS_OK) status = put_sizes(&counts, out);
    if (status == STATUS_OK) status = put_requests(tally, out);
    for (size_t i = 0; status == STATUS_OK && i < COUNT_OF_NODE; i++)
        status = put_nodes(master, now_ns, &node_numbers[i], out);
    for (size_t i = 0; status == STATUS_OK && i < COUNT_OF_TENANT; i++)
        status = put_tenants(master, &tenant_numbers[i], out);
    return status;
}

enum status store_master_metrics_segments(const struct store_master *master, uint64_t now_ns,
                                          struct buf *out)
{
    struct store_member_info info;
    struct store_member_counts counts;
    enum store_member_state state;
    struct store_node_id id;
    enum status status = STATUS_OK;

    for (uint32_t i = 0; status == STATUS_OK && store_master_member(master, i, &info, &state, &id);
         i++) {
        if (state == STORE_MEMBER_DEAD) continue;
        if (!store_master_member_counts(master, now_ns, id, &counts) || counts.space_total == 0)
            continue;
        status = buf_printf(out, "%s\n", info.name);
    }
    return status;
}

/* ---- HTTP ---- */

static void answer(struct http_request *req, int code, const char *text)
{
    http_respond(req, code, "text/plain; charset=utf-8", text, strlen(text));
}

static void answer_metrics(const struct store_master_metrics *metrics, struct http_request *req)
{
    struct buf page;

    buf_init(&page, PAGE_SIZE_MAX);
    if (store_master_metrics_page(metrics->master, metrics->tally, env_now_ns(metrics->env),
                                  &page) == STATUS_OK) {
        http_respond(req, 200, "text/plain; version=0.0.4", buf_data(&page), page.len);
    } else {
        answer(req, 500, "no memory\n");
    }
    buf_fini(&page);
}

static void answer_segments(const struct store_master_metrics *metrics, struct http_request *req)
{
    struct buf list;

    buf_init(&list, PAGE_SIZE_MAX);
    if (store_master_metrics_segments(metrics->master, env_now_ns(metrics->env), &list) ==
        STATUS_OK) {
        http_respond(req, 200, "text/plain; charset=utf-8", buf_data(&list), list.len);
    } else {
        answer(req, 500, "no memory\n");
    }
    buf_fini(&list);
}

static void on_request(void *ctx, struct http_request *req)
{
    const struct store_master_metrics *metrics = ctx;
    const char *path = http_path(req), *method = http_method(req);

    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        answer(req, 405, "GET\n");
    } else if (strcmp(path, "/metrics") == 0) {
        answer_metrics(metrics, req);
    } else if (strcmp(path, "/health") == 0) {
        answer(req, 200, "ok\n");
    } else if (strcmp(path, "/get_all_segments") == 0) {
        answer_segments(metrics, req);
    } else {
        answer(req, 404, "no such path: /metrics, /health, /get_all_segments\n");
    }
}

enum status store_master_metrics_create(struct env *env, const struct store_master *master,
                                        const struct master_tally *tally, const char *address,
                                        struct store_master_metrics **out, struct errmsg *err)
{
    struct store_master_metrics *metrics = calloc(1, sizeof(*metrics));
    const struct http_server_options options = { .address = address,
                                                 .on_request = on_request,
                                                 .ctx = metrics,
                                                 .connections_max = CONNECTIONS_MAX,
                                                 .body_size_max = 1,
                                                 .bodies_size_max = CONNECTIONS_MAX };

    if (metrics == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    metrics->env = env;
    metrics->master = master;
    metrics->tally = tally;
    const enum status status = http_server_create(env, &options, &metrics->http, err);
    if (status != STATUS_OK) {
        free(metrics);
        return status;
    }
    *out = metrics;
    return STATUS_OK;
}

void store_master_metrics_destroy(struct store_master_metrics *metrics)
{
    if (metrics == NULL) return;
    http_server_destroy(metrics->http);
    free(metrics);
}

uint16_t store_master_metrics_port(const struct store_master_metrics *metrics)
{
    return http_server_port(metrics->http);
}
