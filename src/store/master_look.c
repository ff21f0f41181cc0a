/* SPDX-License-Identifier: Apache-2.0 */
#include "store/master_look.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "net/rpc.h"
#include "store/pattern.h"
#include "store/proto.h"

/* ---- look ---- */

/* A page while it is filled. */
struct walk {
    struct master_look *look;
    const struct store_look *asked;
    const struct pattern *pattern;
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
        walk->page.removed++;
    } else {
        walk->page.kept++;
    }
}

static bool on_listed(void *ctx, const struct store_listed *listed)
{
    struct walk *walk = ctx;
    const bool block = listed->class == STORE_CLASS_BLOCK;

    if (walk->page.matched == walk->asked->limit) return false;
    if (block && (!walk->asked->blocks || walk->asked->op == STORE_LOOK_REMOVE)) return true;
    if (listed->status == STATUS_NOT_FOUND) return true; /* on its way out */
    const enum status status = pattern_match(walk->pattern, listed->key);
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

    enum status status = pattern_create(asked->prefix, asked->prefix_len, asked->regex,
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
    } else {
        errmsg_set(&err, status, "master.look: malformed");
    }
    if (status == STATUS_OK) {
        rpc_reply(call, buf_data(&buf), buf.len);
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
    };
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
    strncpy(out->state, counts.draining ? "draining" : store_member_state_name(state),
            sizeof(out->state) - 1);
    memcpy(out->rpc_address, info.rpc_address, sizeof(out->rpc_address));
    out->space_total = counts.space_total;
    out->space_used = counts.space_used;
    out->values = counts.values;
    out->blocks = counts.blocks;
    out->silent_ms = counts.silent_ns / ENV_NS_PER_MS;
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

void master_look_serve(struct master_look *look, struct rpc_server *server)
{
    ASSERT(look->act != NULL);
    rpc_server_add(server, MASTER_METHOD_LOOK, "master.look", handle_look, look);
    rpc_server_add(server, MASTER_METHOD_STAT, "master.stat", handle_stat, look);
}
