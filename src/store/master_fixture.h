/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_fixture.h - what tests of the directory begin with: nodes that are arrays of what
 * they hold, which commit, drop, copy, die, restart and announce again, and carry out the master's
 * actions or not; and puts as their owners would tell of them. Include cmocka first, and set
 * `seed`; `hot_replicas`, where heat is to add some; `hosts`, where nodes share them;
 * `tenants_listed`. */
#ifndef STORE_MASTER_FIXTURE_H
#define STORE_MASTER_FIXTURE_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "base/rng.h"
#include "store/master.h"
#include "store/proto.h"
#include "store/scope.h"

enum {
    NODES = 3,
    KEYS = 30,
    TICKETS = 64,
    REGION_SIZE = 40 * 4096,
    KEY_TEXT = 24,
    OF_TENANT = 10, /* keys in a row that are of one tenant */
    TENANTS = KEYS / OF_TENANT,
    SETTLE_MS = 10,
};
#define REGION UINT64_C(0x100000)
#define MS ENV_NS_PER_MS

static uint64_t seed;
static uint32_t hot_replicas;
static unsigned hosts = NODES;
static bool tenants_listed;

struct held {
    bool present;
    uint64_t address;
    uint64_t size;
    uint64_t generation;
    struct store_attributes attributes;
};

struct model_node {
    struct store_node_id id;
    uint64_t epoch;
    uint64_t generation;
    struct held held[KEYS];
};

/* A promise of memory: while it lives, the writer may write. */
struct promise {
    bool live;
    unsigned node;
    uint64_t epoch;
    unsigned key;
    uint64_t address;
    uint64_t size;
    uint64_t put_id;
    uint64_t writer;
    struct store_attributes attributes;
    uint64_t until; /* no byte can land after it */
};

struct model {
    struct store_master *master;
    struct rng rng;
    uint64_t now;
    struct model_node nodes[NODES];
    struct promise promises[TICKETS];
    uint32_t acked[KEYS]; /* version of the newest acknowledged value, while anybody has the key */
    uint32_t ended[KEYS]; /* taken over, and to be acknowledged when nothing older is left; or 0 */
    unsigned puts, ends, refused, drops, restarts, replaced, copied, over_quota, waited, tasks,
        cleared;
    bool pinned[KEYS]; /* once, and a value that replaces it inherits that */
    bool calm;         /* nothing fails that the nodes are asked to do */
};

static const char *const tenant_names[TENANTS] = { "default", "a", "b" };

/* The last node is of an earlier release, which keeps no terms. */
static inline uint64_t term_kept(unsigned node, uint64_t term)
{
    return node == NODES - 1 ? 0 : term;
}

static inline struct store_key key_of(unsigned n, char text[KEY_TEXT])
{
    char own[8];
    uint8_t before[SCOPE_SIZE_MAX];
    snprintf(own, sizeof(own), "key-%u", n);
    const struct store_key key = { (const uint8_t *)own, (uint32_t)strlen(own) };
    const size_t len = scope_prefix(tenant_names[n / OF_TENANT], key, before);
    assert_true(len + key.len <= KEY_TEXT);
    memcpy(text, before, len);
    memcpy(text + len, own, key.len);
    return (struct store_key){ (const uint8_t *)text, (uint32_t)len + key.len };
}

static inline struct store_event event_of(const struct model_node *node, unsigned n,
                                          char text[KEY_TEXT], enum store_event_kind kind)
{
    const struct store_key key = key_of(n, text);
    const struct held *held = &node->held[n];
    const bool stored = kind == STORE_EVENT_STORED;
    return (struct store_event){ .kind = kind,
                                 .class = STORE_CLASS_OBJECT,
                                 .id = store_key_id(key),
                                 .key = stored ? key.bytes : NULL,
                                 .key_len = stored ? key.len : 0,
                                 .generation = held->generation,
                                 .address = held->address,
                                 .size = held->size,
                                 .digest = (n + 1) * 1000 + held->attributes.version,
                                 .attributes = held->attributes };
}

static inline void info_of(const struct model_node *node, unsigned index,
                           struct store_member_info *out)
{
    memset(out, 0, sizeof(*out));
    snprintf(out->name, sizeof(out->name), "n%u", index);
    snprintf(out->rpc_address, sizeof(out->rpc_address), "10.0.0.%u:%u", index % hosts, 1 + index);
    snprintf(out->segment, sizeof(out->segment), "10.0.0.%u:%u", index % hosts, 11 + index);
    out->role = STORE_ROLE_STORE;
    out->epoch = node->epoch;
    out->layout = (struct store_layout){
        .pages = 1, .page_size = 4096, .layers = 1, .layer_size = 4096, .block_tokens = 16
    };
}

static inline void announce(struct model *model, unsigned index)
{
    struct model_node *node = &model->nodes[index];
    const struct store_event extent = { .kind = STORE_EVENT_EXTENT,
                                        .class = STORE_CLASS_OBJECT,
                                        .generation = store_master_term(model->master),
                                        .address = REGION,
                                        .size = REGION_SIZE };
    char text[KEY_TEXT];

    store_master_reset(model->master, model->now, node->id);
    for (unsigned n = 0; n < KEYS; n++) {
        if (!node->held[n].present) continue;
        const struct store_event event = event_of(node, n, text, STORE_EVENT_STORED);
        store_master_event(model->master, model->now, node->id, &event);
    }
    store_master_event(model->master, model->now, node->id, &extent);
    store_master_synced(model->master, model->now, node->id);
}

static inline void node_register(struct model *model, unsigned index)
{
    struct model_node *node = &model->nodes[index];
    struct store_member_info info;

    info_of(node, index, &info);
    assert_int_equal(store_master_register(model->master, model->now, &info, 0, &node->id),
                     STATUS_OK);
}

static inline void node_start(struct model *model, unsigned index)
{
    struct model_node *node = &model->nodes[index];

    memset(node->held, 0, sizeof(node->held));
    node->epoch = rng_u64(&model->rng) | 1;
    node->generation = 0;
    node_register(model, index);
    announce(model, index);
    for (unsigned i = 0; i < TICKETS; i++) {
        if (model->promises[i].node == index) model->promises[i].live = false;
    }
}

static inline struct store_master *master_new_with(uint64_t now, enum order_policy policy)
{
    struct store_master *master = NULL;
    const struct store_master_options options = { .term = 5,
                                                  .seed = seed,
                                                  .lease_ms = 50,
                                                  .put_ms = 100,
                                                  .discard_ms = 300,
                                                  .settle_ms = SETTLE_MS,
                                                  .fence_ms = 40,
                                                  .suspect_ms = 1000,
                                                  .dead_ms = 2000,
                                                  .forget_ms = 3000,
                                                  .eviction = policy,
                                                  .hot_replicas = hot_replicas,
                                                  .hot_reads = 1,
                                                  .tenants_listed = tenants_listed };
    assert_int_equal(store_master_create(&options, now, &master), STATUS_OK);
    return master;
}

static inline struct store_master *master_new(uint64_t now)
{
    return master_new_with(now, ORDER_LRU);
}

static inline void model_init_with(struct model *model, enum order_policy policy)
{
    memset(model, 0, sizeof(*model));
    rng_init(&model->rng, seed);
    model->now = 1000 * MS;
    model->master = master_new_with(model->now, policy);
    for (unsigned i = 0; i < NODES; i++)
        node_start(model, i);
    model->now += SETTLE_MS * MS;
}

static inline void model_init(struct model *model)
{
    model_init_with(model, ORDER_LRU);
}

static inline void only_one_node(struct model *model)
{
    for (unsigned i = 1; i < NODES; i++) {
        char name[8];
        snprintf(name, sizeof(name), "n%u", i);
        store_master_leave(model->master, model->now, name, model->nodes[i].epoch);
    }
}

/* All nodes but one leave: one is enough, and easier to fill. */
static inline void init_one_node(struct model *model)
{
    model_init(model);
    only_one_node(model);
}

static inline uint64_t pages(uint64_t size)
{
    return (size + 4095) / 4096 * 4096;
}

static inline bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + pages(b_size) && b < a + pages(a_size);
}

static inline bool range_held(const struct model_node *node, uint64_t address, uint64_t size)
{
    for (unsigned n = 0; n < KEYS; n++) {
        const struct held *held = &node->held[n];
        if (held->present && overlaps(address, size, held->address, held->size)) return true;
    }
    return false;
}

static inline unsigned node_of(const struct model *model, struct store_node_id id)
{
    for (unsigned i = 0; i < NODES; i++) {
        if (model->nodes[i].id.index == id.index) return i;
    }
    fail_msg("a replica on a node that is not there");
    return 0;
}

static inline struct store_tenant_counts tenant_of(const struct model *model, unsigned number)
{
    struct store_tenant_counts counts = { 0 };
    for (uint32_t cursor = 0; store_master_tenant(model->master, &cursor, &counts);) {
        if (strcmp(counts.name, tenant_names[number]) == 0) return counts;
    }
    return (struct store_tenant_counts){ 0 };
}

static inline void promise_check(const struct model *model, unsigned node, uint64_t address,
                                 uint64_t size)
{
    assert_true(address >= REGION && address + size <= REGION + REGION_SIZE);
    assert_false(range_held(&model->nodes[node], address, size));
    for (unsigned i = 0; i < TICKETS; i++) {
        const struct promise *other = &model->promises[i];
        if (!other->live || other->node != node || other->until <= model->now) continue;
        assert_false(overlaps(address, size, other->address, other->size));
    }
}

static inline void tell_removed(struct model *model, unsigned index, unsigned key)
{
    const struct model_node *node = &model->nodes[index];
    char text[KEY_TEXT];
    const struct store_event event = event_of(node, key, text, STORE_EVENT_REMOVED);
    store_master_event(model->master, model->now, node->id, &event);
}

/* ---- what the master asks for ---- */

static inline void drop(struct model *model, const struct store_action *action)
{
    char text[KEY_TEXT];
    enum status status = STATUS_NOT_FOUND;

    for (unsigned i = 0; i < NODES; i++) {
        struct model_node *node = &model->nodes[i];
        if (node->id.index != action->node.index) continue;
        for (unsigned n = 0; n < KEYS; n++) {
            const struct block_key id = store_key_id(key_of(n, text));
            struct held *held = &node->held[n];
            if (!block_key_equal(&id, &action->id) || !held->present ||
                held->generation != action->generation) {
                continue;
            }
            const uint64_t dice = model->calm ? 9 : rng_below(&model->rng, 10);
            status = dice == 0 ? STATUS_BUSY : dice == 1 ? STATUS_TIMEOUT : STATUS_OK;
            if (status != STATUS_OK) break;
            const struct store_event event = event_of(node, n, text, STORE_EVENT_REMOVED);
            held->present = false;
            store_master_event(model->master, model->now, node->id, &event);
            model->drops++;
            break;
        }
    }
    store_master_dropped(model->master, model->now, action->node, &action->id, action->generation,
                         status);
}

/* The node copies what it has, whole, or fails; the bytes may land and nobody hear of it. */
static inline void copy(struct model *model, const struct store_action *action)
{
    const uint64_t dice = model->calm ? 9 : rng_below(&model->rng, 10);
    enum status status = STATUS_NOT_FOUND;
    char text[KEY_TEXT], name[8];

    for (unsigned n = 0; n < KEYS; n++) {
        const struct block_key id = store_key_id(key_of(n, text));
        if (!block_key_equal(&id, &action->id)) continue;
        struct held *source = NULL;
        for (unsigned i = 0; i < NODES; i++) {
            if (model->nodes[i].id.index != action->node.index) continue;
            if (model->nodes[i].held[n].generation == action->generation) {
                source = &model->nodes[i].held[n];
            }
        }
        unsigned to = 0;
        while (to < NODES && model->nodes[to].id.index != action->ticket.where.node.index)
            to++;
        if (to == NODES || source == NULL || !source->present || dice == 0) break;
        struct model_node *node = &model->nodes[to];
        if (action->hot) source->attributes.hot = true;
        assert_true(node->id.index != action->node.index);
        if (node->held[n].present) break; /* a late commit came first: the owner refuses */
        promise_check(model, to, action->ticket.where.address, source->size);
        assert_int_equal(source->attributes.version, action->ticket.version);
        node->held[n] = (struct held){ true, action->ticket.where.address, source->size,
                                       ++node->generation, source->attributes };
        const struct store_event event = event_of(node, n, text, STORE_EVENT_STORED);
        snprintf(name, sizeof(name), "n%u", to);
        status = store_master_put_end(model->master, model->now, name, node->epoch,
                                      action->ticket.put_id, &event);
        if (status == STATUS_AGAIN) status = STATUS_OK; /* taken, as something older is about */
        if (status == STATUS_OK) model->copied++;
        if (status != STATUS_OK) { /* the owner lets go of it, which is among its events */
            tell_removed(model, to, n);
            node->held[n].present = false;
        }
        if (dice == 1) status = STATUS_TIMEOUT;
        break;
    }
    store_master_copied(model->master, model->now, &action->id, action->ticket.put_id, status);
}

static inline void step_actions(struct model *model)
{
    struct store_action action;
    while (store_master_next_action(model->master, &action)) {
        if (action.kind == STORE_ACTION_DROP) drop(model, &action);
        if (action.kind == STORE_ACTION_COPY) copy(model, &action);
    }
}

static inline void step_time(struct model *model)
{
    char name[8];
    model->now += rng_below(&model->rng, 60) * MS;
    for (unsigned i = 0; i < NODES; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        assert_int_equal(store_master_beat(model->master, model->now, name, model->nodes[i].epoch),
                         STATUS_OK);
    }
    assert_true(store_master_tick(model->master, model->now) > model->now);
}

static inline void turns(struct model *model, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        step_time(model);
        step_actions(model);
        store_master_check(model->master);
    }
}

/* ---- puts and looks ---- */

/* Puts a value as its owner would, whole, at the first node while that has room. */
static inline void put_wish(struct model *model, unsigned key, uint64_t size,
                            struct store_wish wish)
{
    struct store_ticket ticket;
    char text[KEY_TEXT], name[8];

    if (wish.preferred == NULL) wish.preferred = "n0";
    assert_int_equal(store_master_put_start(model->master, model->now, 1, key_of(key, text), size,
                                            &wish, &ticket),
                     STATUS_OK);
    const unsigned i = node_of(model, ticket.where.node);
    wish.attributes.version = ticket.version;
    wish.attributes.term = term_kept(i, ticket.term);
    struct model_node *node = &model->nodes[i];
    snprintf(name, sizeof(name), "n%u", i);
    node->held[key] =
        (struct held){ true, ticket.where.address, size, ++node->generation, wish.attributes };
    const struct store_event stored = event_of(node, key, text, STORE_EVENT_STORED);
    assert_int_equal(
        store_master_put_end(model->master, model->now, name, node->epoch, ticket.put_id, &stored),
        STATUS_OK);
}

static inline void put_whole(struct model *model, unsigned key, uint64_t size)
{
    put_wish(model, key, size, (struct store_wish){ 0 });
}

static inline void put_keys(struct model *model, unsigned first, unsigned past, uint64_t size)
{
    for (unsigned key = first; key < past; key++)
        put_whole(model, key, size);
}

static inline enum status try_put(struct model *model, unsigned key, uint64_t size)
{
    struct store_ticket ticket;
    char text[KEY_TEXT];
    return store_master_put_start(model->master, model->now, 1, key_of(key, text), size, NULL,
                                  &ticket);
}

/* A put under `key`, which is not there: which keys are asked to go, as bits. */
static inline unsigned evicted_for(struct model *model, unsigned key, uint64_t size,
                                   enum status expected)
{
    struct store_action action;
    char text[KEY_TEXT];
    unsigned keys = 0;

    while (store_master_next_action(model->master, &action))
        continue;
    model->now += 60 * MS; /* leases are over, places in the order are not */
    assert_int_equal(try_put(model, key, size), expected);
    while (store_master_next_action(model->master, &action)) {
        assert_int_equal(action.kind, STORE_ACTION_DROP);
        for (unsigned n = 0; n < KEYS; n++) {
            const struct block_key id = store_key_id(key_of(n, text));
            if (block_key_equal(&id, &action.id)) keys |= 1u << n;
        }
    }
    store_master_check(model->master);
    return keys;
}

static inline void read_times(struct model *model, unsigned key, unsigned times)
{
    char text[KEY_TEXT];
    for (unsigned i = 0; i < times; i++) {
        assert_int_equal(store_master_exist(model->master, model->now, key_of(key, text)),
                         STATUS_OK);
    }
}

static inline uint32_t replicas_of(struct model *model, unsigned key)
{
    struct store_object object;
    char text[KEY_TEXT];
    assert_int_equal(store_master_peek(model->master, model->now, key_of(key, text), &object),
                     STATUS_OK);
    return object.replicas_count;
}

/* ---- accounts ---- */

/* When all is quiet a tenant is charged for what the nodes hold of its values, and within its quota
 * unless what it has must stay. */
static inline void accounts_are_what_is_held(struct model *model)
{
    struct store_master_counts counts;
    uint64_t charged = 0;

    for (unsigned t = 0; t < TENANTS; t++) {
        struct store_quota held = { 0 };
        bool kept = false;
        for (unsigned i = 0; i < NODES * OF_TENANT; i++) {
            const struct held *one =
                &model->nodes[i / OF_TENANT].held[t * OF_TENANT + i % OF_TENANT];
            if (!one->present) continue;
            held.bytes += pages(one->size);
            held.replicas++;
            kept = kept || model->pinned[t * OF_TENANT + i % OF_TENANT];
        }
        const struct store_tenant_counts tenant = tenant_of(model, t);
        assert_int_equal(tenant.used.bytes, held.bytes);
        assert_int_equal(tenant.used.replicas, held.replicas);
        charged += held.bytes;
        if (kept) continue;
        assert_true(tenant.quota.bytes == 0 || held.bytes <= tenant.quota.bytes);
        assert_true(tenant.quota.replicas == 0 || held.replicas <= tenant.quota.replicas);
    }
    store_master_counts(model->master, &counts);
    assert_int_equal(counts.space_used, charged);
}

#endif
