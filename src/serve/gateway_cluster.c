/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_cluster.c - see the header for the life of a node.
 *
 * Forgetting a node ends its calls from inside rpc_client_destroy(), and those who hear of it look
 * for another node: so the Conductor forgets the node first. */
#include "serve/gateway_cluster.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/log.h"
#include "conductor/keys.h"
#include "net/rpc.h"
#include "store/events.h"
#include "store/layout.h"
#include "store/member.h"
#include "yolk/explain.h"

enum {
    ASK_TIMEOUT_MS = 5000,
    STATUS_INTERVAL_MS = 2000,
    ANSWER_MS = 500, /* that a node may take to say how it is */
    EVENT_KEYS_MAX = 256,
    SECRET_SIZE_MAX = 4096,
};

enum node_phase {
    NODE_FREE = 0,
    NODE_DIALING,
    NODE_ASKING,
    NODE_UP,
    NODE_REFUSED,
};

struct node {
    enum node_phase phase;
    uint32_t serial;
    struct cluster *cluster;
    struct store_member_info member;
    enum store_member_state state;
    struct proto_node_info info;
    struct proto_node_status status; /* as it said last */
    struct rpc_client *client;
    struct store_subscription *subscription;
    struct rpc_call_id ask; /* node.info or node.status under way */
    bool watched;           /* node.leaving is under way */
    bool leaving;           /* it was answered */
    bool in_conductor;
    struct yolk_instance_id id;
    uint64_t events_epoch;
    uint64_t heard_ns; /* its last answer to what it is asked */
};

struct cluster {
    struct env *env;
    struct cluster_options options;
    char secret[SECRET_SIZE_MAX];
    char *profile;
    struct store_watch *watch;
    struct env_timer status_timer;
    struct yolk_conductor *conductor;
    /* The model that the view is about; valid while conductor is not NULL. */
    uint8_t fingerprint[PROTO_FINGERPRINT_SIZE];
    char isa[PROTO_NAME_SIZE], model[PROTO_NAME_SIZE];
    uint32_t block_tokens, element;
    uint64_t page_size;
    struct block_key key_root;
    struct node nodes[STORE_MEMBERS_MAX];
};

static_assert((int)STORE_FINGERPRINT_SIZE == (int)CONDUCTOR_FINGERPRINT_SIZE, "one identity");
static_assert((int)PROTO_FINGERPRINT_SIZE == (int)CONDUCTOR_FINGERPRINT_SIZE, "one identity");

static void ask(struct node *node, enum proto_method method);

static struct cluster_ref ref_of(const struct node *node)
{
    return (struct cluster_ref){ (uint32_t)(node - node->cluster->nodes), node->serial };
}

/* ---- states ---- */

static const char *phase_name(enum node_phase phase)
{
    static const char *const NAMES[] = { "free", "dialing", "asking", "up", "refused" };
    ASSERT((size_t)phase < sizeof(NAMES) / sizeof(NAMES[0]));
    return NAMES[phase];
}

static bool edge_allowed(enum node_phase from, enum node_phase to)
{
    switch (from) {
    case NODE_FREE: return to == NODE_DIALING;
    case NODE_DIALING: return to == NODE_ASKING || to == NODE_FREE;
    case NODE_ASKING: return to != NODE_ASKING;
    case NODE_UP: return to == NODE_DIALING || to == NODE_FREE;
    case NODE_REFUSED: return to == NODE_DIALING || to == NODE_ASKING || to == NODE_FREE;
    }
    return false;
}

static bool is_there(const struct node *node)
{
    return node->phase == NODE_UP && node->state == STORE_MEMBER_ALIVE;
}

static bool may_work(const struct node *node)
{
    return is_there(node) && !node->leaving;
}

/* The one place where a phase changes, and where the Conductor hears of it (I1). */
static void set_phase(struct node *node, enum node_phase phase)
{
    ASSERT(edge_allowed(node->phase, phase));
    LOG_DEBUG("gateway", "node_phase", "node=%s from=%s to=%s", node->member.name,
              phase_name(node->phase), phase_name(phase));
    node->phase = phase;
    if (node->in_conductor) {
        yolk_conductor_suspect(node->cluster->conductor, node->id, !is_there(node));
    }
}

static void changed(struct cluster *cluster)
{
    cluster->options.on_change(cluster->options.ctx);
}

/* ---- what a node holds ---- */

static void on_reset(void *ctx, uint64_t epoch)
{
    struct node *node = ctx;
    ASSERT(node->in_conductor);
    LOG_DEBUG("gateway", "node_snapshot", "node=%s epoch=%llu", node->member.name,
              (unsigned long long)epoch);
    /* A connection that was lost leaves most of what we know true; a new life leaves nothing. */
    if (epoch != node->events_epoch) yolk_conductor_cleared(node->cluster->conductor, node->id);
    node->events_epoch = epoch;
    yolk_conductor_resync_begin(node->cluster->conductor, node->id);
}

static void apply(struct node *node, enum store_event_kind kind, enum store_tier from,
                  const struct block_key *keys, size_t count)
{
    struct yolk_conductor *conductor = node->cluster->conductor;
    const enum yolk_tier tier = from == STORE_TIER_DISK ? YOLK_TIER_SSD : YOLK_TIER_DRAM;

    if (count == 0) return;
    if (kind == STORE_EVENT_REMOVED) {
        yolk_conductor_removed(conductor, node->id, keys, count);
    } else if (yolk_conductor_stored(conductor, node->id, keys, count, tier) != STATUS_OK) {
        LOG_DEBUG("gateway", "index_full", "node=%s", node->member.name);
    }
}

/* Events of one kind and tier that follow each other go to the index together. */
static void on_events(void *ctx, const struct store_event *events, uint32_t count)
{
    struct node *node = ctx;
    struct block_key keys[EVENT_KEYS_MAX];
    enum store_event_kind kind = STORE_EVENT_STORED;
    enum store_tier tier = STORE_TIER_MEMORY;
    size_t waiting = 0;

    ASSERT(node->in_conductor);
    for (uint32_t i = 0; i < count; i++) {
        if (events[i].class != STORE_CLASS_BLOCK) continue;
        if (waiting == EVENT_KEYS_MAX || events[i].kind != kind || events[i].tier != tier) {
            apply(node, kind, tier, keys, waiting);
            waiting = 0;
        }
        kind = events[i].kind;
        tier = events[i].tier;
        keys[waiting++] = events[i].id;
    }
    apply(node, kind, tier, keys, waiting);
}

static void on_synced(void *ctx)
{
    struct node *node = ctx;
    LOG_DEBUG("gateway", "node_synced", "node=%s", node->member.name);
    yolk_conductor_resync_end(node->cluster->conductor, node->id);
}

static void subscribe(struct node *node)
{
    const struct store_subscribe_options options = {
        .env = node->cluster->env,
        .address = node->member.rpc_address,
        .secret = node->cluster->secret,
        .blocks_only = true,
        .on_reset = on_reset,
        .on_events = on_events,
        .on_synced = on_synced,
        .ctx = node,
    };
    struct errmsg err = { "" };

    if (node->subscription != NULL) return;
    if (store_subscribe(&options, &node->subscription, &err) != STATUS_OK) {
        /* It can work; what it has cached will not be found. */
        LOG_WARN("gateway", "subscribe_failed", "node=%s reason=%s", node->member.name, err.text);
    }
}

/* ---- joining the view ---- */

static uint32_t nodes_in_conductor(const struct cluster *cluster)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++)
        count += cluster->nodes[i].in_conductor;
    return count;
}

static void load_profile(struct cluster *cluster)
{
    struct errmsg err = { "" };

    if (cluster->profile == NULL) return;
    if (yolk_conductor_profile_load(cluster->conductor, cluster->profile, strlen(cluster->profile),
                                    &err) != STATUS_OK) {
        LOG_WARN("gateway", "profile_ignored", "reason=%s", err.text);
    }
}

static void limit_admission(struct cluster *cluster)
{
    struct errmsg err = { "" };

    if (yolk_conductor_set_admission(cluster->conductor, &cluster->options.admission, &err) !=
        STATUS_OK) {
        LOG_ERROR("gateway", "limits_ignored", "reason=%s", err.text);
    }
}

static void set_elastic(struct cluster *cluster)
{
    struct errmsg err = { "" };

    if (!cluster->options.elastic.on) return;
    if (yolk_conductor_set_elastic(cluster->conductor, &cluster->options.elastic, &err) !=
        STATUS_OK) {
        LOG_ERROR("gateway", "elasticity_off", "reason=%s", err.text);
    }
}

static void set_replication(struct cluster *cluster)
{
    struct errmsg err = { "" };

    if (!cluster->options.replicates) return;
    if (yolk_conductor_set_replication(cluster->conductor, &cluster->options.replication, &err) !=
        STATUS_OK) {
        LOG_ERROR("gateway", "replication_off", "reason=%s", err.text);
    }
}

/* A cluster without nodes takes the identity of the first one that comes. */
static enum status adopt(struct cluster *cluster, const struct proto_node_info *info)
{
    struct yolk_conductor_options options = cluster->options.conductor;
    struct yolk_conductor *conductor = NULL;
    struct errmsg err = { "" };
    struct conductor_key_identity identity = {
        .block_tokens = info->block_tokens,
        .element = info->element,
    };

    ASSERT(nodes_in_conductor(cluster) == 0);
    options.block_tokens = info->block_tokens;
    options.block_size = info->page_size;
    if (options.group_max > info->layers) options.group_max = info->layers; /* one each, at least */
    const enum status status = yolk_conductor_create(&options, &conductor, &err);
    if (status != STATUS_OK) {
        LOG_ERROR("gateway", "conductor_failed", "reason=%s", err.text);
        return status;
    }
    if (cluster->conductor != NULL) yolk_conductor_inherit(conductor, cluster->conductor);
    yolk_conductor_destroy(cluster->conductor);
    cluster->conductor = conductor;
    load_profile(cluster);
    limit_admission(cluster);
    set_elastic(cluster);
    set_replication(cluster);
    memcpy(cluster->fingerprint, info->fingerprint, sizeof(cluster->fingerprint));
    memcpy(identity.fingerprint, info->fingerprint, sizeof(identity.fingerprint));
    cluster->block_tokens = info->block_tokens;
    cluster->page_size = info->page_size;
    cluster->element = info->element;
    memcpy(cluster->isa, info->isa, sizeof(cluster->isa));
    memcpy(cluster->model, info->model, sizeof(cluster->model));
    cluster->key_root = conductor_key_root(&identity);
    LOG_INFO("gateway", "model_adopted", "model=%s isa=%s block_tokens=%u kv=%s", info->model,
             info->isa, info->block_tokens, conductor_element_name(info->element));
    return STATUS_OK;
}

/* True if its pages are those of the nodes that are there; otherwise says what is not the same. */
static bool has_our_pages(const struct cluster *cluster, const struct proto_node_info *info,
                          struct proto_node_refused *why)
{
    const bool same_model =
        memcmp(info->fingerprint, cluster->fingerprint, sizeof(info->fingerprint)) == 0;

    if (cluster->conductor == NULL) return false;
    if (info->block_tokens != cluster->block_tokens) {
        snprintf(why->reason, sizeof(why->reason), "its blocks have %u tokens, those here %u",
                 info->block_tokens, cluster->block_tokens);
    } else if (strcmp(info->isa, cluster->isa) != 0) {
        snprintf(why->reason, sizeof(why->reason),
                 "its instruction set is %.60s, that of the nodes here %.60s", info->isa,
                 cluster->isa);
    } else if (info->element != cluster->element) {
        snprintf(why->reason, sizeof(why->reason),
                 "its KV is of type %s, that of the nodes here %s",
                 conductor_element_name(info->element), conductor_element_name(cluster->element));
    } else if (!same_model || info->page_size != cluster->page_size) {
        snprintf(why->reason, sizeof(why->reason),
                 "its model is another (%.60s) than the nodes here have (%.60s)", info->model,
                 cluster->model);
    } else {
        return true;
    }
    return false;
}

static bool refuse_because(struct proto_node_refused *why, const char *reason)
{
    snprintf(why->reason, sizeof(why->reason), "%s", reason);
    return false;
}

/* True if this node may join; otherwise says why not. */
static bool fits(struct cluster *cluster, const struct proto_node_info *info,
                 struct proto_node_refused *why)
{
    struct yolk_conductor_stats stats = { 0 };

    if (info->role == PROTO_ROLE_STORE) return refuse_because(why, "it lends memory only");
    if (info->block_tokens < 16 || info->context_max < 2)
        return refuse_because(why, "its layout is impossible");
    if (info->vocab_count != cluster->options.vocab) {
        snprintf(why->reason, sizeof(why->reason),
                 "its vocabulary has %u tokens, the gateway's %u: its model is another (%.60s)",
                 info->vocab_count, cluster->options.vocab, info->model);
        return false;
    }
    if (has_our_pages(cluster, info, why)) return true;
    if (cluster->conductor != NULL) yolk_conductor_stats(cluster->conductor, &stats);
    if (stats.instances > 0 || stats.tickets > 0) return false;
    if (adopt(cluster, info) == STATUS_OK) return true;
    return refuse_because(why, "its layout is impossible");
}

/* "10.0.0.1:7000" and "[::1]:7000" without the port. */
static void host_of(const char *address, char host[YOLK_NAME_SIZE])
{
    const char *colon = strrchr(address, ':');
    const size_t len = colon != NULL ? (size_t)(colon - address) : strlen(address);
    snprintf(host, YOLK_NAME_SIZE, "%.*s", (int)len, len > 0 ? address : "localhost");
    if (host[0] == '\0') snprintf(host, YOLK_NAME_SIZE, "localhost");
}

static unsigned roles_of(enum proto_role role)
{
    if (role == PROTO_ROLE_BOTH) return YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE;
    return role == PROTO_ROLE_PREFILL ? YOLK_ROLE_PREFILL : YOLK_ROLE_DECODE;
}

static enum status enter_conductor(struct node *node)
{
    char host[YOLK_NAME_SIZE];
    host_of(node->member.rpc_address, host);
    const struct yolk_instance instance = {
        .name = node->member.name,
        .host = host,
        .roles = roles_of(node->info.role),
        .pages_max = node->member.layout.pages,
        .sequences_max = node->cluster->options.sequences_max,
    };

    ASSERT(!node->in_conductor);
    const enum status status = yolk_conductor_add(node->cluster->conductor, &instance, &node->id);
    if (status != STATUS_OK) return status;
    node->in_conductor = true;
    return STATUS_OK;
}

static void leave_conductor(struct node *node)
{
    if (!node->in_conductor) return;
    store_unsubscribe(node->subscription);
    node->subscription = NULL;
    node->in_conductor = false;
    yolk_conductor_remove(node->cluster->conductor, node->id);
}

static void on_told(void *ctx, const struct rpc_result *result)
{
    (void)ctx;
    (void)result; /* a node that does not know the call, or has gone, need not know */
}

/* The node learns why it gets no work, so that its own log says so too. */
static void tell_refused(const struct node *node, const char *reason)
{
    struct env *env = node->cluster->env;
    struct proto_node_refused message = { "" };
    struct rpc_call_id id;
    struct buf body;

    snprintf(message.reason, sizeof(message.reason), "%s", reason);
    buf_init(&body, sizeof(message) + 64);
    if (proto_node_refused_encode(&message, &body) == STATUS_OK) {
        const struct rpc_request request = {
            .method = PROTO_NODE_REFUSED,
            .body = buf_data(&body),
            .len = body.len,
            .deadline_ns = env_now_ns(env) + ASK_TIMEOUT_MS * ENV_NS_PER_MS,
            .on_end = on_told,
        };
        (void)!rpc_call(node->client, &request, &id);
    }
    buf_fini(&body);
}

static void refuse(struct node *node, const char *reason)
{
    LOG_WARN("gateway", "node_refused", "node=%s reason=%s", node->member.name, reason);
    tell_refused(node, reason);
    leave_conductor(node);
    set_phase(node, NODE_REFUSED);
}

/* ---- leaving ---- */

static void on_leaving(void *ctx, const struct rpc_result *result)
{
    struct node *node = ctx;
    struct cluster *cluster = node->cluster;

    node->watched = false;
    if (result->status != STATUS_OK || !node->in_conductor || node->leaving) return;
    LOG_INFO("gateway", "node_leaving", "node=%s", node->member.name);
    node->leaving = true;
    yolk_conductor_leave(cluster->conductor, node->id);
    if (cluster->options.on_leaving != NULL)
        cluster->options.on_leaving(cluster->options.ctx, ref_of(node));
    changed(cluster);
}

/* Nodes of an older version do not know the call; those are lost when they go, as ever. */
static void watch_leaving(struct node *node)
{
    const struct rpc_request request = {
        .method = PROTO_NODE_LEAVING,
        .body = "",
        .deadline_ns = ENV_NEVER,
        .on_end = on_leaving,
        .ctx = node,
    };
    struct rpc_call_id id;

    if (node->watched || node->leaving) return;
    node->watched = rpc_call(node->client, &request, &id) == STATUS_OK;
}

static void accept_info(struct node *node, const struct proto_node_info *info)
{
    struct cluster *cluster = node->cluster;

    if (node->in_conductor && info->epoch != node->info.epoch) leave_conductor(node);
    node->info = *info;
    struct proto_node_refused why = { "" };
    if (!node->in_conductor && !fits(cluster, info, &why)) {
        refuse(node, why.reason);
        return;
    }
    if (!node->in_conductor && enter_conductor(node) != STATUS_OK) {
        refuse(node, "the Conductor has no place for it");
        return;
    }
    node->heard_ns = env_now_ns(cluster->env);
    set_phase(node, NODE_UP);
    subscribe(node);
    watch_leaving(node);
    LOG_INFO("gateway", "node_up", "node=%s role=%s address=%s", node->member.name,
             proto_role_name(info->role), node->member.rpc_address);
    changed(cluster);
}

/* ---- asking ---- */

static void on_info(void *ctx, const struct rpc_result *result)
{
    struct node *node = ctx;
    struct proto_node_info info;

    node->ask = (struct rpc_call_id){ 0 };
    if (node->phase != NODE_ASKING) return;
    if (result->status != STATUS_OK) {
        LOG_DEBUG("gateway", "node_silent", "node=%s reason=%s", node->member.name,
                  status_name(result->status));
        return; /* asked again by the timer, or when the connection is back */
    }
    if (proto_node_info_decode(result->body, result->len, &info) != STATUS_OK) {
        refuse(node, "its answer cannot be understood");
    } else {
        accept_info(node, &info);
    }
}

/* Somebody else has changed its role. */
static void follow_role(struct node *node, enum proto_role role)
{
    struct cluster *cluster = node->cluster;

    if (role == 0 || role == PROTO_ROLE_STORE || role == node->info.role) return;
    if (!node->in_conductor) return;
    LOG_INFO("gateway", "role_followed", "node=%s to=%s", node->member.name, proto_role_name(role));
    node->info.role = role;
    yolk_conductor_set_roles(cluster->conductor, node->id, roles_of(role),
                             (double)env_now_ns(cluster->env) / (double)ENV_NS_PER_MS);
    changed(cluster);
}

static void on_status(void *ctx, const struct rpc_result *result)
{
    struct node *node = ctx;
    struct proto_node_status status;

    node->ask = (struct rpc_call_id){ 0 };
    if (result->status != STATUS_OK) return;
    node->heard_ns = env_now_ns(node->cluster->env);
    if (proto_node_status_decode(result->body, result->len, &status) != STATUS_OK) return;
    node->status = status;
    follow_role(node, status.role);
}

static void ask(struct node *node, enum proto_method method)
{
    struct env *env = node->cluster->env;
    const struct rpc_request request = {
        .method = (uint16_t)method,
        .body = "",
        .deadline_ns = env_now_ns(env) + ASK_TIMEOUT_MS * ENV_NS_PER_MS,
        .on_end = method == PROTO_NODE_INFO ? on_info : on_status,
        .ctx = node,
    };

    if (node->ask.value != 0) return; /* the timer asks again */
    if (rpc_call(node->client, &request, &node->ask) != STATUS_OK) {
        node->ask = (struct rpc_call_id){ 0 };
    }
}

static void tell_suspected(struct node *node)
{
    struct cluster *cluster = node->cluster;

    if (node->state != STORE_MEMBER_SUSPECT || !node->in_conductor) return;
    if (cluster->options.on_suspected == NULL) return;
    cluster->options.on_suspected(cluster->options.ctx, ref_of(node));
}

/* Nodes are asked how they are; a refused one, what it is now. */
static void on_status_timer(void *ctx)
{
    struct cluster *cluster = ctx;

    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        struct node *node = &cluster->nodes[i];
        tell_suspected(node);
        if (node->ask.value != 0) continue;
        if (node->phase == NODE_UP) ask(node, PROTO_NODE_STATUS);
        if (node->phase == NODE_REFUSED && rpc_client_is_up(node->client) &&
            nodes_in_conductor(cluster) == 0) {
            set_phase(node, NODE_ASKING);
        }
        if (node->phase == NODE_ASKING) ask(node, PROTO_NODE_INFO);
    }
    env_timer_set(cluster->env, &cluster->status_timer,
                  env_now_ns(cluster->env) + STATUS_INTERVAL_MS * ENV_NS_PER_MS);
}

static void on_state(void *ctx, bool up, enum status why)
{
    struct node *node = ctx;

    if (up) {
        if (node->phase != NODE_DIALING) return;
        set_phase(node, NODE_ASKING);
        ask(node, PROTO_NODE_INFO);
        return;
    }
    if (node->phase == NODE_DIALING) return;
    LOG_INFO("gateway", "node_down", "node=%s reason=%s", node->member.name, status_name(why));
    set_phase(node, NODE_DIALING);
    changed(node->cluster);
}

/* ---- members ---- */

static struct node *find(struct cluster *cluster, const char *name)
{
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        struct node *node = &cluster->nodes[i];
        if (node->phase != NODE_FREE && strcmp(node->member.name, name) == 0) return node;
    }
    return NULL;
}

static void forget(struct node *node)
{
    ASSERT(node->phase != NODE_FREE);
    struct rpc_client *client = node->client;
    const uint32_t serial = node->serial;
    struct cluster *cluster = node->cluster;

    leave_conductor(node);
    node->client = NULL;
    rpc_client_destroy(client); /* ends calls; their owners find no node behind their ref */
    set_phase(node, NODE_FREE);
    *node = (struct node){ .serial = serial, .cluster = cluster };
    changed(cluster);
}

static void learn(struct cluster *cluster, const struct store_member_info *info,
                  enum store_member_state state)
{
    struct errmsg err = { "" };
    struct node *node = NULL;

    for (uint32_t i = 0; i < STORE_MEMBERS_MAX && node == NULL; i++) {
        if (cluster->nodes[i].phase == NODE_FREE) node = &cluster->nodes[i];
    }
    if (node == NULL) {
        LOG_WARN("gateway", "too_many_nodes", "node=%s", info->name);
        return;
    }
    const uint32_t serial = node->serial + 1;
    *node = (struct node){ .serial = serial ? serial : 1, .cluster = cluster, .state = state };
    node->member = *info;
    const struct rpc_client_options options = {
        .address = node->member.rpc_address,
        .secret = cluster->secret,
        .name = "gateway",
        .on_state = on_state,
        .ctx = node,
    };
    if (rpc_client_create(cluster->env, &options, &node->client, &err) != STATUS_OK) {
        LOG_WARN("gateway", "node_unreachable", "node=%s reason=%s", info->name, err.text);
        return;
    }
    set_phase(node, NODE_DIALING);
}

static bool same_life(const struct node *node, const struct store_member_info *info)
{
    return node->member.epoch == info->epoch &&
           strcmp(node->member.rpc_address, info->rpc_address) == 0;
}

static void on_member(void *ctx, const struct store_member_info *info,
                      enum store_member_state state)
{
    struct cluster *cluster = ctx;
    struct node *node = find(cluster, info->name);

    if (node != NULL && !same_life(node, info)) {
        forget(node);
        node = NULL;
    }
    if (node == NULL) {
        if (state != STORE_MEMBER_DEAD) learn(cluster, info, state);
        return;
    }
    if (node->state == state) return;
    LOG_INFO("gateway", "node_state", "node=%s state=%s", node->member.name,
             store_member_state_name(state));
    node->state = state;
    if (node->in_conductor) {
        yolk_conductor_suspect(cluster->conductor, node->id, !is_there(node));
        tell_suspected(node);
    }
    changed(cluster);
}

static void on_gone(void *ctx, const char *name)
{
    struct node *node = find(ctx, name);
    if (node == NULL) return;
    LOG_INFO("gateway", "node_gone", "node=%s", name);
    forget(node);
}

/* ---- the whole ---- */

enum status cluster_create(const struct cluster_options *options, struct cluster **out,
                           struct errmsg *err)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));
    if (cluster == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "gateway: not enough memory");
    cluster->env = options->env;
    cluster->options = *options;
    snprintf(cluster->secret, sizeof(cluster->secret), "%s", options->secret);
    if (options->profile != NULL) cluster->profile = strdup(options->profile);
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++)
        cluster->nodes[i].cluster = cluster;
    env_timer_init(&cluster->status_timer, on_status_timer, cluster);
    const struct store_watch_options watch = {
        .env = options->env,
        .master = options->master,
        .secret = cluster->secret,
        .on_member = on_member,
        .on_gone = on_gone,
        .ctx = cluster,
    };
    const enum status status = store_watch(&watch, &cluster->watch, err);
    if (status != STATUS_OK) {
        free(cluster->profile);
        free(cluster);
        return status;
    }
    env_timer_set(cluster->env, &cluster->status_timer,
                  env_now_ns(cluster->env) + STATUS_INTERVAL_MS * ENV_NS_PER_MS);
    *out = cluster;
    return STATUS_OK;
}

void cluster_destroy(struct cluster *cluster)
{
    if (cluster == NULL) return;
    store_unwatch(cluster->watch);
    env_timer_cancel(cluster->env, &cluster->status_timer);
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        if (cluster->nodes[i].phase != NODE_FREE) forget(&cluster->nodes[i]);
    }
    yolk_conductor_destroy(cluster->conductor);
    free(cluster->profile);
    free(cluster);
}

struct yolk_conductor *cluster_conductor(struct cluster *cluster)
{
    return cluster->conductor;
}

uint32_t cluster_block_tokens(const struct cluster *cluster)
{
    ASSERT(cluster->conductor != NULL);
    return cluster->block_tokens;
}

uint32_t cluster_context_max(const struct cluster *cluster)
{
    uint32_t context = UINT32_MAX;

    ASSERT(cluster->conductor != NULL);
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        const struct node *node = &cluster->nodes[i];
        if (!node->in_conductor) continue;
        const uint64_t held = (uint64_t)node->member.layout.pages * cluster->block_tokens;
        if (node->info.context_max < context) context = node->info.context_max;
        if (held < context) context = (uint32_t)held;
    }
    return context;
}

const struct block_key *cluster_key_root(const struct cluster *cluster)
{
    ASSERT(cluster->conductor != NULL);
    return &cluster->key_root;
}

uint64_t cluster_page_size(const struct cluster *cluster)
{
    ASSERT(cluster->conductor != NULL);
    return cluster->page_size;
}

struct cluster_ref cluster_ref_of(const struct cluster *cluster, struct yolk_instance_id id)
{
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        const struct node *node = &cluster->nodes[i];
        if (node->in_conductor && node->id.index == id.index) {
            return ref_of(node);
        }
    }
    return (struct cluster_ref){ 0, 0 };
}

static const struct node *deref(const struct cluster *cluster, struct cluster_ref ref)
{
    if (ref.serial == 0) return NULL;
    ASSERT(ref.index < STORE_MEMBERS_MAX);
    const struct node *node = &cluster->nodes[ref.index];
    return node->serial == ref.serial && node->client != NULL ? node : NULL;
}

struct rpc_client *cluster_client(const struct cluster *cluster, struct cluster_ref ref)
{
    const struct node *node = deref(cluster, ref);
    return node != NULL ? node->client : NULL;
}

const char *cluster_name(const struct cluster *cluster, struct cluster_ref ref)
{
    const struct node *node = deref(cluster, ref);
    return node != NULL ? node->member.name : NULL;
}

const char *cluster_address(const struct cluster *cluster, struct cluster_ref ref)
{
    const struct node *node = deref(cluster, ref);
    return node != NULL ? node->member.rpc_address : NULL;
}

struct yolk_instance_id cluster_instance(const struct cluster *cluster, struct cluster_ref ref)
{
    const struct node *node = deref(cluster, ref);
    return node != NULL && node->in_conductor ? node->id : YOLK_INSTANCE_NONE;
}

void cluster_note_role(struct cluster *cluster, struct cluster_ref ref, enum proto_role role)
{
    if (deref(cluster, ref) != NULL) cluster->nodes[ref.index].info.role = role;
}

uint32_t cluster_slots(const struct cluster *cluster)
{
    (void)cluster;
    return STORE_MEMBERS_MAX;
}

bool cluster_node_at(const struct cluster *cluster, uint32_t slot, struct cluster_node *out)
{
    ASSERT(slot < STORE_MEMBERS_MAX);
    const struct node *node = &cluster->nodes[slot];

    if (node->phase == NODE_FREE) return false;
    *out = (struct cluster_node){
        .name = node->member.name,
        .address = node->member.rpc_address,
        .phase = phase_name(node->phase),
        .state = store_member_state_name(node->state),
        .role = node->info.role,
        .works = may_work(node),
        .leaving = node->leaving,
        .id = node->in_conductor ? node->id : YOLK_INSTANCE_NONE,
        .status = node->status,
    };
    return true;
}

enum yolk_path cluster_path(const struct cluster *cluster, struct cluster_ref a,
                            struct cluster_ref b)
{
    char host_a[YOLK_NAME_SIZE], host_b[YOLK_NAME_SIZE];
    const struct node *node_a = deref(cluster, a), *node_b = deref(cluster, b);

    if (node_a == NULL || node_b == NULL) return YOLK_PATH_NETWORK;
    host_of(node_a->member.rpc_address, host_a);
    host_of(node_b->member.rpc_address, host_b);
    return strcmp(host_a, host_b) == 0 ? YOLK_PATH_HOST : YOLK_PATH_NETWORK;
}

uint32_t cluster_count_up(const struct cluster *cluster, enum proto_role role)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        const struct node *node = &cluster->nodes[i];
        const bool has_it = (roles_of(node->info.role) & roles_of(role)) != 0;
        count += may_work(node) && has_it;
    }
    return count;
}

bool cluster_is_silent(const struct cluster *cluster, struct cluster_ref ref)
{
    const struct node *node = deref(cluster, ref);
    const uint64_t most_ns = (STATUS_INTERVAL_MS + ANSWER_MS) * ENV_NS_PER_MS;

    return node == NULL || env_now_ns(cluster->env) - node->heard_ns > most_ns;
}

uint32_t cluster_count_known(const struct cluster *cluster)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++)
        count += cluster->nodes[i].phase != NODE_FREE;
    return count;
}

void cluster_disk(const struct cluster *cluster, uint64_t out[PROTO_DISK_NUMBERS])
{
    memset(out, 0, PROTO_DISK_NUMBERS * sizeof(*out));
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        const struct node *node = &cluster->nodes[i];
        for (uint32_t n = 0; may_work(node) && n < PROTO_DISK_NUMBERS; n++)
            out[n] += node->status.disk[n];
    }
}

void cluster_moves(const struct cluster *cluster, uint64_t out[PROTO_MOVES])
{
    memset(out, 0, PROTO_MOVES * sizeof(*out));
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        const struct node *node = &cluster->nodes[i];
        for (uint32_t n = 0; may_work(node) && n < PROTO_MOVES; n++)
            out[n] += node->status.moves[n];
    }
}

void cluster_pages(const struct cluster *cluster, uint64_t *total, uint64_t *used)
{
    *total = 0;
    *used = 0;
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        const struct node *node = &cluster->nodes[i];
        const struct proto_node_status *status = &node->status;
        const uint64_t idle = (uint64_t)status->pages_free + status->pages_cached;
        if (!may_work(node) || idle > status->pages_total) continue;
        *total += status->pages_total;
        *used += status->pages_total - idle;
    }
}
