/* SPDX-License-Identifier: Apache-2.0 */
#include "store/master_look.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/master_removals.h"
#include "store/master_tally.h"
#include "store/pattern.h"
#include "store/proto.h"
#include "store/scope.h"

/* ---- look ---- */

/* A page while it is filled. */
struct walk {
    struct master_look *look;
    const struct store_look *asked;
    struct scope scope;               /* of the prefix: whose keys are meant, and how they begin */
    const struct pattern *pattern;    /* of the tenant's own keys */
    struct yolk_store_entry *entries; /* list only */
    struct yolk_store_page page;
    enum status status;
};

static void walk_list(struct walk *walk, const struct store_listed *listed)
{
    walk->entries[walk->page.count++] = (struct yolk_store_entry){
        .key = { listed->key.bytes, listed->key.len },
        .status = listed->status,
        .block = listed->class == STORE_CLASS_BLOCK,
        .size = listed->size,
        .replicas = listed->replicas,
        .lease_ms = (uint32_t)(listed->lease_ns / ENV_NS_PER_MS),
        .hard_pin = listed->hard_pin,
        .soft_pin = listed->soft_pin,
    };
}

static void walk_remove(struct walk *walk, const struct store_listed *listed)
{
    struct master_look *look = walk->look;
    const enum status status =
        store_master_remove(look->master, env_now_ns(look->env), listed->key, walk->asked->force);
    if (status == STATUS_OK) {
        const struct block_key id = store_key_id(listed->key);
        master_removals_note(look->removals, &id);
        walk->page.removed++;
    } else {
        walk->page.kept++;
    }
}

/* Whether the key is the tenant's; blocks are the default one's. */
static bool is_meant(const struct walk *walk, const struct scope *scope)
{
    const uint32_t len = walk->scope.name_len;
    return scope->name_len == len && (len == 0 || memcmp(scope->name, walk->scope.name, len) == 0);
}

static bool on_listed(void *ctx, const struct store_listed *listed)
{
    struct walk *walk = ctx;
    const bool block = listed->class == STORE_CLASS_BLOCK;
    const struct scope whole = { .key = listed->key };
    const struct scope scope = block ? whole : scope_split(listed->key);

    if (walk->page.matched == walk->asked->limit) return false;
    if (block && (!walk->asked->blocks || walk->asked->op == STORE_LOOK_REMOVE)) return true;
    if (listed->status == STATUS_NOT_FOUND) return true; /* on its way out */
    if (!is_meant(walk, &scope)) return true;
    const enum status status = pattern_match(walk->pattern, scope.key);
    if (status == STATUS_NOT_FOUND) return true;
    walk->status = status;
    if (status != STATUS_OK) return false;
    walk->page.matched++;
    walk->page.bytes += listed->size;
    switch (walk->asked->op) {
    case STORE_LOOK_LIST: walk_list(walk, listed); break;
    case STORE_LOOK_COUNT: break;
    case STORE_LOOK_REMOVE: walk_remove(walk, listed); break;
    }
    return true;
}

/* Fills the page and the buffer. */
static enum status look_page(struct master_look *look, const struct store_look *asked,
                             struct buf *buf, struct errmsg *err)
{
    struct walk walk = { .look = look, .asked = asked, .status = STATUS_OK };
    struct pattern *pattern = NULL;

    walk.scope = scope_split((struct store_key){ asked->prefix, (uint32_t)asked->prefix_len });
    enum status status = pattern_create(walk.scope.key.bytes, walk.scope.key.len, asked->regex,
                                        asked->regex_len, &pattern, err);
    if (status != STATUS_OK) return status;
    walk.pattern = pattern;
    if (asked->op == STORE_LOOK_LIST) {
        walk.entries = malloc(asked->limit * sizeof(*walk.entries));
        if (walk.entries == NULL) status = errmsg_set(err, STATUS_FULL, "no memory");
    }
    if (status == STATUS_OK) {
        walk.page.next = store_master_walk(look->master, env_now_ns(look->env), asked->cursor,
                                           MASTER_LOOKS_MAX, on_listed, &walk);
        status = walk.status;
        if (status != STATUS_OK) errmsg_set(err, status, "the expression takes too long on a key");
    }
    walk.page.entries = walk.entries;
    if (status == STATUS_OK) status = store_encode_page(buf, &walk.page);
    free(walk.entries);
    pattern_destroy(pattern);
    return status;
}

/* What Mooncake has for it. Its page of keys, and its count of them, are a regex there, too. */
static enum master_op look_op(const struct store_look *asked)
{
    if (asked->op != STORE_LOOK_REMOVE) return MASTER_OP_GET_REPLICA_LIST_BY_REGEX;
    const struct store_key prefix = { asked->prefix, (uint32_t)asked->prefix_len };
    const bool all = asked->regex == NULL && scope_split(prefix).key.len == 0;
    return all ? MASTER_OP_REMOVE_ALL : MASTER_OP_REMOVE_BY_REGEX;
}

static void handle_look(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct master_look *look = ctx;
    struct store_look asked;
    struct errmsg err = { "" };
    struct buf buf;

    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_decode_look(body, len, &asked);
    if (status == STATUS_OK) {
        status = look_page(look, &asked, &buf, &err);
        master_tally_page(look->tally, look_op(&asked), asked.cursor == 0, status);
    } else {
        errmsg_set(&err, status, "master.look: malformed");
    }
    if (status == STATUS_OK) {
        master_removals_reply(look->removals, call, buf_data(&buf), buf.len);
    } else {
        rpc_fail(call, status, err.text);
    }
    buf_fini(&buf);
    look->act(look->ctx);
}

/* ---- stat ---- */

static void stats_fill(const struct master_look *look, struct yolk_store_stats *out)
{
    struct store_master_counts counts;

    store_master_counts(look->master, &counts);
    *out = (struct yolk_store_stats){
        .term = store_master_term(look->master),
        .uptime_ms = (env_now_ns(look->env) - look->started_ns) / ENV_NS_PER_MS,
        .objects = counts.objects,
        .processing = counts.processing,
        .replicas = counts.replicas,
        .space_total = counts.space_total,
        .space_used = counts.space_used,
        .evictions_total = counts.evictions_total,
        .puts_total = counts.puts_total,
        .refused_full_total = counts.refused_full_total,
        .conflicts_total = counts.conflicts_total,
        .discarded_total = counts.discarded_total,
        .memory = counts.memory,
        .reads_total = counts.reads_total,
        .hits_total = counts.hits_total,
        .removes_total = counts.removes_total,
        .values = counts.values,
        .refused_quota_total = counts.refused_quota_total,
        .hot_values = counts.hot_values,
        .hot_replicas = counts.hot_replicas,
        .hot_taken_total = counts.hot_taken_total,
        .copies = counts.copies,
        .copies_total = counts.copies_total,
    };
}

static const char *state_text(const struct store_member_counts *counts,
                              enum store_member_state state)
{
    if (counts->draining) return "draining";
    if (counts->barred && state == STORE_MEMBER_ALIVE) return "quarantined";
    return store_member_state_name(state);
}

/* False: no more members. */
static bool node_fill(const struct master_look *look, uint32_t nth, struct yolk_store_node *out)
{
    struct store_member_info info;
    struct store_member_counts counts = { 0 };
    enum store_member_state state;
    struct store_node_id id;

    if (!store_master_member(look->master, nth, &info, &state, &id)) return false;
    store_master_member_counts(look->master, env_now_ns(look->env), id, &counts);
    memset(out, 0, sizeof(*out));
    memcpy(out->name, info.name, sizeof(out->name));
    strncpy(out->role, store_role_name(info.role), sizeof(out->role) - 1);
    strncpy(out->state, state_text(&counts, state), sizeof(out->state) - 1);
    memcpy(out->rpc_address, info.rpc_address, sizeof(out->rpc_address));
    out->space_total = counts.space_total;
    out->space_used = counts.space_used;
    out->values = counts.values;
    out->blocks = counts.blocks;
    out->silent_ms = counts.silent_ns / ENV_NS_PER_MS;
    out->load = counts.load;
    return true;
}

static void handle_stat(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct master_look *look = ctx;
    const uint32_t members = store_master_members(look->master);
    struct yolk_store_node *nodes = malloc((members + 1) * sizeof(*nodes));
    struct yolk_store_stats stats;
    struct buf buf;
    uint32_t count = 0;
    (void)body;
    (void)len;

    if (nodes == NULL) {
        rpc_fail(call, STATUS_FULL, "no memory");
        return;
    }
    while (count < members && node_fill(look, count, &nodes[count]))
        count++;
    stats_fill(look, &stats);
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status status = store_encode_stats(&buf, &stats, nodes, count);
    if (status == STATUS_OK) {
        rpc_reply(call, buf_data(&buf), buf.len);
    } else {
        rpc_fail(call, status, NULL);
    }
    buf_fini(&buf);
    free(nodes);
}

/* ---- tenants ---- */

static enum status quota_set(const struct master_look *look, const struct yolk_store_tenant *set)
{
    const struct store_quota quota = { set->quota_bytes, set->quota_replicas };
    if (set->name[0] == '\0') return STATUS_OK; /* only asked */
    const enum status status = store_master_quota_set(look->master, set->name, &quota);
    if (status != STATUS_OK) return status;
    LOG_INFO("store", "quota_set", "tenant=%s bytes=%llu replicas=%llu", set->name,
             (unsigned long long)quota.bytes, (unsigned long long)quota.replicas);
    return STATUS_OK;
}

static uint32_t tenants_fill(const struct master_look *look,
                             struct yolk_store_tenant out[YOLK_STORE_TENANTS_MAX])
{
    struct store_tenant_counts counts;
    uint32_t cursor = 0;
    uint32_t n = 0;

    for (; store_master_tenant(look->master, &cursor, &counts); n++) {
        ASSERT(n < YOLK_STORE_TENANTS_MAX);
        out[n] = (struct yolk_store_tenant){ .quota_bytes = counts.quota.bytes,
                                             .quota_replicas = counts.quota.replicas,
                                             .used_bytes = counts.used.bytes,
                                             .used_replicas = counts.used.replicas,
                                             .evicted_bytes = counts.evicted.bytes,
                                             .evicted_replicas = counts.evicted.replicas,
                                             .values = counts.values,
                                             .refused_total = counts.refused_total };
        memcpy(out[n].name, counts.name, sizeof(counts.name));
    }
    return n;
}

static void handle_tenants(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct master_look *look = ctx;
    struct yolk_store_tenant *tenants = malloc(YOLK_STORE_TENANTS_MAX * sizeof(*tenants));
    struct yolk_store_tenant set;
    struct buf buf;

    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = tenants == NULL ? STATUS_FULL : store_decode_quota(body, len, &set);
    if (status == STATUS_OK) status = quota_set(look, &set);
    if (status == STATUS_OK)
        status = store_encode_tenants(&buf, tenants, tenants_fill(look, tenants));
    if (status == STATUS_OK) {
        rpc_reply(call, buf_data(&buf), buf.len);
    } else {
        rpc_fail(call, status, NULL);
    }
    buf_fini(&buf);
    free(tenants);
}

void master_look_serve(struct master_look *look, struct rpc_server *server)
{
    ASSERT(look->act != NULL);
    rpc_server_add(server, MASTER_METHOD_LOOK, "master.look", handle_look, look);
    rpc_server_add(server, MASTER_METHOD_STAT, "master.stat", handle_stat, look);
    rpc_server_add(server, MASTER_METHOD_TENANTS, "master.tenants", handle_tenants, look);
}
