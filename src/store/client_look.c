/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_look.c - list, count, remove_matching, stat, locate and tasks: one question to the
 * master each, one answer, no retries. A question under way when the store is destroyed is answered
 * STATUS_CANCELLED from inside, by the end of its RPC. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "net/rpc.h"
#include "store/client_int.h"
#include "store/proto_task.h"
#include "yolk/store.h"
#include "yolk/store_task.h"

struct look {
    struct yolk_store *store;
    yolk_store_page_fn on_page; /* one of them */
    yolk_store_stats_fn on_stats;
    yolk_store_where_fn on_where;
    yolk_store_drain_fn on_left;
    yolk_store_tenants_fn on_tenants;
    yolk_store_task_fn on_task;
    void *ctx;
};

/* Takes `buf` and `look`: frees both when the call could not be started. */
static enum status ask(struct look *look, enum status status, uint16_t method, struct buf *buf,
                       uint32_t timeout_ms, void (*on_end)(void *, const struct rpc_result *))
{
    struct yolk_store *store = look->store;
    const uint64_t patience = timeout_ms == 0 ? store->timeout_ms : timeout_ms;
    struct rpc_call_id id;
    const struct rpc_request request = { .method = method,
                                         .body = buf_data(buf),
                                         .len = buf->len,
                                         .deadline_ns =
                                             env_now_ns(store->env) + patience * ENV_NS_PER_MS,
                                         .wait_until_up = true,
                                         .on_end = on_end,
                                         .ctx = look };
    if (status == STATUS_OK) status = rpc_call(store->master, &request, &id);
    buf_fini(buf);
    if (status != STATUS_OK) free(look);
    return status;
}

static struct look *look_new(struct yolk_store *store, void *ctx)
{
    struct look *look = calloc(1, sizeof(*look));
    if (look == NULL) return NULL;
    look->store = store;
    look->ctx = ctx;
    return look;
}

/* ---- pages ---- */

/* Keys as the tenant knows them. A master that knows no tenants also shows others': they are left
 * out. */
static void page_own(const struct yolk_store *store, struct yolk_store_entry *entries,
                     struct yolk_store_page *page)
{
    uint32_t own = 0;
    for (uint32_t i = 0; i < page->count; i++) {
        struct yolk_store_entry entry = entries[i];
        const struct store_key whole = { entry.key.bytes, (uint32_t)entry.key.len };
        const struct scope scope = scope_split(whole);
        if (!entry.block) {
            if (scope.name_len != strlen(store->tenant)) continue;
            if (scope.name_len > 0 && memcmp(scope.name, store->tenant, scope.name_len) != 0)
                continue;
            entry.key = (struct yolk_store_key){ scope.key.bytes, scope.key.len };
        }
        entries[own++] = entry;
    }
    page->count = own;
}

static void on_page_end(void *ctx, const struct rpc_result *result)
{
    struct look *look = ctx;
    struct yolk_store_entry *entries = NULL;
    struct yolk_store_page page;
    enum status status = result->status;

    if (status == STATUS_OK) {
        entries = malloc(YOLK_STORE_PAGE_MAX * sizeof(*entries));
        status = entries == NULL ? STATUS_FULL
                                 : store_decode_page(result->body, result->len, entries, &page);
    }
    if (status == STATUS_OK) page_own(look->store, entries, &page);
    look->on_page(look->ctx, status, status == STATUS_OK ? &page : NULL,
                  result->status == STATUS_OK ? "" : result->message);
    free(entries);
    free(look);
}

static enum status look_start(struct yolk_store *store, enum store_look_op op,
                              const struct yolk_store_query *query, uint32_t timeout_ms,
                              yolk_store_page_fn on_page, void *ctx)
{
    uint8_t prefix[SCOPE_SIZE_MAX + YOLK_STORE_KEY_SIZE_MAX];
    struct store_look message = {
        .op = op,
        .cursor = query->cursor,
        .prefix = prefix,
        .regex = query->regex,
        .regex_len = query->regex == NULL ? 0 : strlen(query->regex),
        .limit = query->limit == 0 ? YOLK_STORE_PAGE_MAX : query->limit,
        .blocks = query->blocks,
        .force = query->force,
    };
    struct buf buf;
    ASSERT(on_page != NULL);

    if (query->prefix_len > YOLK_STORE_KEY_SIZE_MAX || message.limit > YOLK_STORE_PAGE_MAX) {
        return STATUS_INVALID;
    }
    const struct yolk_store_key own = { query->prefix, query->prefix_len };
    message.prefix_len = client_key(store, &own, prefix).len;
    if (message.prefix_len > YOLK_STORE_KEY_SIZE_MAX) return STATUS_INVALID;
    struct look *look = look_new(store, ctx);
    if (look == NULL) return STATUS_FULL;
    look->on_page = on_page;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status status = store_encode_look(&buf, &message);
    return ask(look, status, MASTER_METHOD_LOOK, &buf, timeout_ms, on_page_end);
}

enum status yolk_store_list(struct yolk_store *store, const struct yolk_store_query *query,
                            uint32_t timeout_ms, yolk_store_page_fn on_page, void *ctx)
{
    return look_start(store, STORE_LOOK_LIST, query, timeout_ms, on_page, ctx);
}

enum status yolk_store_count(struct yolk_store *store, const struct yolk_store_query *query,
                             uint32_t timeout_ms, yolk_store_page_fn on_page, void *ctx)
{
    return look_start(store, STORE_LOOK_COUNT, query, timeout_ms, on_page, ctx);
}

enum status yolk_store_remove_matching(struct yolk_store *store,
                                       const struct yolk_store_query *query, uint32_t timeout_ms,
                                       yolk_store_page_fn on_page, void *ctx)
{
    return look_start(store, STORE_LOOK_REMOVE, query, timeout_ms, on_page, ctx);
}

/* ---- numbers ---- */

static void on_stats_end(void *ctx, const struct rpc_result *result)
{
    struct look *look = ctx;
    struct yolk_store_node *nodes = NULL;
    struct yolk_store_stats stats;
    uint32_t count = 0;
    enum status status = result->status;

    if (status == STATUS_OK) {
        nodes = malloc(YOLK_STORE_NODES_MAX * sizeof(*nodes));
        status = nodes == NULL
                     ? STATUS_FULL
                     : store_decode_stats(result->body, result->len, &stats, nodes, &count);
    }
    look->on_stats(look->ctx, status, status == STATUS_OK ? &stats : NULL, nodes, count);
    free(nodes);
    free(look);
}

enum status yolk_store_stat(struct yolk_store *store, uint32_t timeout_ms,
                            yolk_store_stats_fn on_stats, void *ctx)
{
    struct look *look = look_new(store, ctx);
    struct buf buf;
    ASSERT(on_stats != NULL);

    if (look == NULL) return STATUS_FULL;
    look->on_stats = on_stats;
    buf_init(&buf, 64); /* an empty question */
    return ask(look, STATUS_OK, MASTER_METHOD_STAT, &buf, timeout_ms, on_stats_end);
}

/* ---- tenants ---- */

static void on_tenants_end(void *ctx, const struct rpc_result *result)
{
    struct look *look = ctx;
    struct yolk_store_tenant *tenants = NULL;
    uint32_t count = 0;
    enum status status = result->status;

    if (status == STATUS_OK) {
        tenants = malloc(YOLK_STORE_TENANTS_MAX * sizeof(*tenants));
        status = tenants == NULL ? STATUS_FULL
                                 : store_decode_tenants(result->body, result->len, tenants, &count);
    }
    look->on_tenants(look->ctx, status, status == STATUS_OK ? tenants : NULL, count);
    free(tenants);
    free(look);
}

enum status yolk_store_tenants(struct yolk_store *store, const struct yolk_store_tenant *set,
                               uint32_t timeout_ms, yolk_store_tenants_fn on_tenants, void *ctx)
{
    struct buf buf;
    ASSERT(on_tenants != NULL);

    if (set != NULL && (set->name[0] == '\0' || !scope_name_valid(set->name)))
        return STATUS_INVALID;
    struct look *look = look_new(store, ctx);
    if (look == NULL) return STATUS_FULL;
    look->on_tenants = on_tenants;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status status = store_encode_quota(&buf, set);
    return ask(look, status, MASTER_METHOD_TENANTS, &buf, timeout_ms, on_tenants_end);
}

/* ---- drains ---- */

static void on_left_end(void *ctx, const struct rpc_result *result)
{
    struct look *look = ctx;
    uint64_t left = 0;
    enum status status = result->status;

    if (status == STATUS_OK) status = store_decode_left(result->body, result->len, &left);
    look->on_left(look->ctx, status, left);
    free(look);
}

enum status yolk_store_drain(struct yolk_store *store, const char *node, bool undo,
                             uint32_t timeout_ms, yolk_store_drain_fn on_left, void *ctx)
{
    struct store_drain message = { .undo = undo };
    struct buf buf;
    ASSERT(on_left != NULL);

    if (node[0] == '\0' || strlen(node) >= sizeof(message.name)) return STATUS_INVALID;
    memcpy(message.name, node, strlen(node));
    struct look *look = look_new(store, ctx);
    if (look == NULL) return STATUS_FULL;
    look->on_left = on_left;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status status = store_encode_drain(&buf, &message);
    return ask(look, status, MASTER_METHOD_DRAIN, &buf, timeout_ms, on_left_end);
}

/* ---- where a value is ---- */

/* The one item's status; STATUS_INVALID for an answer that is not about one. */
static enum status where_take(struct look *look, const struct rpc_result *result,
                              struct yolk_store_replica replicas[STORE_REPLICAS_MAX],
                              struct yolk_store_where *out)
{
    struct store_reply_node *nodes = look->store->nodes;
    struct store_places places;

    const enum status status = store_decode_places(result->body, result->len, &places, nodes);
    if (status != STATUS_OK) return status;
    if (places.count != 1 || places.counts.count != 1) return STATUS_INVALID;
    if (places.nodes.count > STORE_REPLICAS_MAX) return STATUS_INVALID;
    out->size = msg_u64_at(places.sizes, 0);
    out->count = (uint32_t)places.nodes.count;
    for (uint32_t i = 0; i < out->count; i++) {
        const struct store_reply_node *node = &nodes[msg_u32_at(places.nodes, i)];
        replicas[i] = (struct yolk_store_replica){ .rpc_address = node->rpc_address,
                                                   .segment = node->segment,
                                                   .address = msg_u64_at(places.addresses, i),
                                                   .disk = store_place_on_disk(&places, i) };
    }
    out->replicas = replicas;
    return store_status_of(msg_u32_at(places.codes, 0));
}

static void on_where_end(void *ctx, const struct rpc_result *result)
{
    struct look *look = ctx;
    struct yolk_store_replica replicas[STORE_REPLICAS_MAX];
    struct yolk_store_where where;
    enum status status = result->status;

    if (status == STATUS_OK) status = where_take(look, result, replicas, &where);
    look->on_where(look->ctx, status, status == STATUS_OK ? &where : NULL);
    free(look);
}

enum status yolk_store_locate(struct yolk_store *store, const struct yolk_store_key *key,
                              uint32_t timeout_ms, yolk_store_where_fn on_where, void *ctx)
{
    uint8_t bytes[YOLK_STORE_KEY_SIZE_MAX];
    struct buf buf;
    ASSERT(on_where != NULL);

    if (client_key_len(store, key) == 0) return STATUS_INVALID;
    const struct store_key name = client_key(store, key, bytes);
    const struct store_batch batch = { .count = 1, .keys_data = &name, .peek = true };
    struct look *look = look_new(store, ctx);
    if (look == NULL) return STATUS_FULL;
    look->on_where = on_where;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status status = store_encode_batch(&buf, &batch);
    return ask(look, status, MASTER_METHOD_GET, &buf, timeout_ms, on_where_end);
}

/* ---- tasks ---- */

static void on_task_end(void *ctx, const struct rpc_result *result)
{
    struct look *look = ctx;
    struct yolk_store_task task;
    enum status status = result->status;

    if (status == STATUS_OK) status = store_decode_task(result->body, result->len, &task);
    look->on_task(look->ctx, status, status == STATUS_OK ? &task : NULL,
                  result->status == STATUS_OK ? "" : result->message);
    free(look);
}

/* False: empty, or too long. */
static bool task_name(char out[STORE_NAME_SIZE], const char *name)
{
    const size_t len = strlen(name);
    if (len == 0 || len >= STORE_NAME_SIZE) return false;
    memcpy(out, name, len + 1);
    return true;
}

/* Of the message all but the key is there. */
static enum status task_start(struct look *look, const struct yolk_store_key *key,
                              struct store_task_ask *message, uint32_t timeout_ms)
{
    uint8_t bytes[YOLK_STORE_KEY_SIZE_MAX];
    struct buf buf;

    message->key = client_key(look->store, key, bytes);
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status status = store_encode_task_ask(&buf, message);
    return ask(look, status, MASTER_METHOD_TASK, &buf, timeout_ms, on_task_end);
}

enum status yolk_store_copy(struct yolk_store *store, const struct yolk_store_key *key,
                            const char *const *targets, uint32_t targets_count, uint32_t timeout_ms,
                            yolk_store_task_fn on_task, void *ctx)
{
    struct store_task_ask message = { .to_count = targets_count };
    ASSERT(on_task != NULL);

    if (client_key_len(store, key) == 0) return STATUS_INVALID;
    if (targets_count == 0 || targets_count > STORE_REPLICAS_MAX) return STATUS_INVALID;
    for (uint32_t i = 0; i < targets_count; i++)
        if (!task_name(message.to[i], targets[i])) return STATUS_INVALID;
    struct look *look = look_new(store, ctx);
    if (look == NULL) return STATUS_FULL;
    look->on_task = on_task;
    return task_start(look, key, &message, timeout_ms);
}

enum status yolk_store_move(struct yolk_store *store, const struct yolk_store_key *key,
                            const char *source, const char *target, uint32_t timeout_ms,
                            yolk_store_task_fn on_task, void *ctx)
{
    struct store_task_ask message = { .move = true, .to_count = 1 };
    ASSERT(on_task != NULL);

    if (client_key_len(store, key) == 0) return STATUS_INVALID;
    if (source != NULL && !task_name(message.from, source)) return STATUS_INVALID;
    if (!task_name(message.to[0], target)) return STATUS_INVALID;
    struct look *look = look_new(store, ctx);
    if (look == NULL) return STATUS_FULL;
    look->on_task = on_task;
    return task_start(look, key, &message, timeout_ms);
}

enum status yolk_store_task(struct yolk_store *store, struct yolk_store_task_id id,
                            uint32_t timeout_ms, yolk_store_task_fn on_task, void *ctx)
{
    struct buf buf;
    ASSERT(on_task != NULL);

    struct look *look = look_new(store, ctx);
    if (look == NULL) return STATUS_FULL;
    look->on_task = on_task;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status status = store_encode_task_id(&buf, id);
    return ask(look, status, MASTER_METHOD_TASK_QUERY, &buf, timeout_ms, on_task_end);
}
