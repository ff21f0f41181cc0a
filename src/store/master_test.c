/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_test.c
 *
 * Goal:   no range of a node's memory is promised twice while anyone may still write or read it;
 * what a node holds and has told is found; nothing else is; the books balance after every step.
 * Method: a random walk with a model of the nodes that is an array of what they hold: it commits,
 * drops, refuses, dies, restarts and announces again, and carries out the master's actions or not.
 *         Before it: answers that depend on time and on who asks, by hand. */
#include "store/master.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/env.h"
#include "base/rng.h"
#include "seed.h"
#include "store/proto.h"
#include "store/scope.h"

enum {
    NODES = 3,
    KEYS = 30,
    TICKETS = 64,
    STEPS = 15000,
    REGION_SIZE = 40 * 4096,
    KEY_TEXT = 24,
    OF_TENANT = 10, /* keys in a row that are of one tenant */
    TENANTS = KEYS / OF_TENANT,
    SETTLE_MS = 10,
};
#define REGION UINT64_C(0x100000)
#define MS ENV_NS_PER_MS

static uint64_t seed;

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
    unsigned puts, ends, refused, drops, restarts, replaced, copied, over_quota, waited;
    bool pinned[KEYS]; /* once, and a value that replaces it inherits that */
    bool calm;         /* nothing fails that the nodes are asked to do */
};

static const char *const tenant_names[TENANTS] = { "default", "a", "b" };

static struct store_key key_of(unsigned n, char text[KEY_TEXT])
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

static struct store_event event_of(const struct model_node *node, unsigned n, char text[KEY_TEXT],
                                   enum store_event_kind kind)
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

static void info_of(const struct model_node *node, unsigned index, struct store_member_info *out)
{
    memset(out, 0, sizeof(*out));
    snprintf(out->name, sizeof(out->name), "n%u", index);
    snprintf(out->rpc_address, sizeof(out->rpc_address), "10.0.0.%u:1", index);
    snprintf(out->segment, sizeof(out->segment), "10.0.0.%u:2", index);
    out->role = STORE_ROLE_STORE;
    out->epoch = node->epoch;
    out->layout = (struct store_layout){
        .pages = 1, .page_size = 4096, .layers = 1, .layer_size = 4096, .block_tokens = 16
    };
}

static void announce(struct model *model, unsigned index)
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

static void node_register(struct model *model, unsigned index)
{
    struct model_node *node = &model->nodes[index];
    struct store_member_info info;

    info_of(node, index, &info);
    assert_int_equal(store_master_register(model->master, model->now, &info, 0, &node->id),
                     STATUS_OK);
}

static void node_start(struct model *model, unsigned index)
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

static struct store_master *master_new_with(uint64_t now, enum order_policy policy)
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
                                                  .eviction = policy };
    assert_int_equal(store_master_create(&options, now, &master), STATUS_OK);
    return master;
}

static struct store_master *master_new(uint64_t now)
{
    return master_new_with(now, ORDER_LRU);
}

static void model_init_with(struct model *model, enum order_policy policy)
{
    memset(model, 0, sizeof(*model));
    rng_init(&model->rng, seed);
    model->now = 1000 * MS;
    model->master = master_new_with(model->now, policy);
    for (unsigned i = 0; i < NODES; i++)
        node_start(model, i);
    model->now += SETTLE_MS * MS;
}

static void model_init(struct model *model)
{
    model_init_with(model, ORDER_LRU);
}

static uint64_t pages(uint64_t size)
{
    return (size + 4095) / 4096 * 4096;
}

static bool overlaps(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + pages(b_size) && b < a + pages(a_size);
}

static bool range_held(const struct model_node *node, uint64_t address, uint64_t size)
{
    for (unsigned n = 0; n < KEYS; n++) {
        const struct held *held = &node->held[n];
        if (held->present && overlaps(address, size, held->address, held->size)) return true;
    }
    return false;
}

static unsigned node_of(const struct model *model, struct store_node_id id)
{
    for (unsigned i = 0; i < NODES; i++) {
        if (model->nodes[i].id.index == id.index) return i;
    }
    fail_msg("a replica on a node that is not there");
    return 0;
}

/* ---- steps ---- */

static struct store_tenant_counts tenant_of(const struct model *model, unsigned number)
{
    struct store_tenant_counts counts = { 0 };
    for (uint32_t cursor = 0; store_master_tenant(model->master, &cursor, &counts);) {
        if (strcmp(counts.name, tenant_names[number]) == 0) return counts;
    }
    return (struct store_tenant_counts){ 0 };
}

static void promise_check(const struct model *model, unsigned node, uint64_t address, uint64_t size)
{
    assert_true(address >= REGION && address + size <= REGION + REGION_SIZE);
    assert_false(range_held(&model->nodes[node], address, size));
    for (unsigned i = 0; i < TICKETS; i++) {
        const struct promise *other = &model->promises[i];
        if (!other->live || other->node != node || other->until <= model->now) continue;
        assert_false(overlaps(address, size, other->address, other->size));
    }
}

static void step_put(struct model *model)
{
    struct promise *promise = &model->promises[rng_below(&model->rng, TICKETS)];
    const unsigned key = (unsigned)rng_below(&model->rng, KEYS);
    const uint64_t size = 1 + rng_below(&model->rng, 9 * 4096);
    const uint64_t writer = rng_below(&model->rng, 1000);
    struct store_wish wish = { .replace = rng_below(&model->rng, 3) == 0 };
    struct store_ticket ticket;
    char text[KEY_TEXT];

    if (promise->live && promise->until > model->now) return;
    if (rng_below(&model->rng, 4) == 0) {
        wish.soft_pin_ms = (uint32_t)rng_below(&model->rng, 200);
        wish.attributes.group = rng_below(&model->rng, 4);
        wish.attributes.cost = (uint32_t)rng_below(&model->rng, 100);
        wish.attributes.hard_pin = rng_below(&model->rng, 10) == 0;
    }
    const enum status status = store_master_put_start(model->master, model->now, writer,
                                                      key_of(key, text), size, &wish, &ticket);
    if (status != STATUS_OK) {
        assert_true(status == STATUS_EXISTS || status == STATUS_FULL || status == STATUS_AGAIN ||
                    status == STATUS_QUOTA);
        model->over_quota += status == STATUS_QUOTA;
        return;
    }
    const struct store_tenant_counts tenant = tenant_of(model, key / OF_TENANT);
    const unsigned node = node_of(model, ticket.where.node);
    for (unsigned i = 0; i < TICKETS; i++) { /* the same writer again: the same ticket */
        if (model->promises[i].live && model->promises[i].put_id == ticket.put_id) return;
    }
    assert_true(tenant.quota.bytes == 0 || tenant.used.bytes <= tenant.quota.bytes);
    assert_true(tenant.quota.replicas == 0 || tenant.used.replicas <= tenant.quota.replicas);
    promise_check(model, node, ticket.where.address, size);
    for (unsigned i = 0; i < NODES && !wish.replace; i++)
        assert_false(model->nodes[i].held[key].present);
    wish.attributes.version = ticket.version;
    model->pinned[key] |= wish.attributes.hard_pin;
    *promise = (struct promise){ .live = true,
                                 .node = node,
                                 .epoch = ticket.where.epoch,
                                 .key = key,
                                 .address = ticket.where.address,
                                 .size = size,
                                 .put_id = ticket.put_id,
                                 .writer = writer,
                                 .attributes = wish.attributes,
                                 .until = ticket.expires_ns + 40 * MS };
    model->puts++;
}

static void tell_removed(struct model *model, unsigned index, unsigned key)
{
    const struct model_node *node = &model->nodes[index];
    char text[KEY_TEXT];
    const struct store_event event = event_of(node, key, text, STORE_EVENT_REMOVED);
    store_master_event(model->master, model->now, node->id, &event);
}

/* The value of this version is acknowledged: nobody can bring back an older one. */
static void acknowledge(struct model *model, unsigned key, uint32_t version)
{
    struct store_member_counts counts;

    for (unsigned i = 0; i < NODES; i++) {
        const struct held *held = &model->nodes[i].held[key];
        if (!held->present || held->attributes.version >= version) continue;
        const bool member =
            store_master_member_counts(model->master, model->now, model->nodes[i].id, &counts);
        assert_true(!member || counts.silent_ns >= STORE_DOUBT_MS * MS);
    }
    if (version > model->acked[key]) model->acked[key] = version;
}

/* Puts that waited for an older value to go. */
static void acknowledge_waiting(struct model *model)
{
    char text[KEY_TEXT];
    for (unsigned key = 0; key < KEYS; key++) {
        const struct block_key id = store_key_id(key_of(key, text));
        if (model->ended[key] == 0) continue;
        if (store_master_replaced(model->master, model->now, &id) != STATUS_OK) continue;
        acknowledge(model, key, model->ended[key]);
        model->ended[key] = 0;
        model->waited++;
    }
}

/* The owner commits: late ones too, as long as their bytes are still there. A value of a higher
 * version takes the place of one that nobody reads. */
static void step_commit(struct model *model)
{
    struct promise *promise = &model->promises[rng_below(&model->rng, TICKETS)];
    struct model_node *node = &model->nodes[promise->node];
    struct held *held = &node->held[promise->key];
    const bool replaces = held->present;
    char text[KEY_TEXT], name[8];

    if (!promise->live) return;
    if (replaces && held->attributes.version >= promise->attributes.version) return;
    if (replaces && rng_below(&model->rng, 4) == 0) return;        /* pinned */
    if (range_held(node, promise->address, promise->size)) return; /* the owner refuses */
    promise->live = false;
    if (replaces && rng_below(&model->rng, 2) == 0)
        tell_removed(model, promise->node, promise->key);
    *held = (struct held){ true, promise->address, promise->size, ++node->generation,
                           promise->attributes };
    const struct store_event event = event_of(node, promise->key, text, STORE_EVENT_STORED);
    snprintf(name, sizeof(name), "n%u", promise->node);
    const enum status status =
        store_master_put_end(model->master, model->now, name, node->epoch, promise->put_id, &event);
    if (status == STATUS_OK || status == STATUS_AGAIN) {
        model->ends++;
        model->replaced += replaces;
        if (status == STATUS_OK) acknowledge(model, promise->key, held->attributes.version);
        if (status == STATUS_AGAIN) model->ended[promise->key] = held->attributes.version;
        store_master_event(model->master, model->now, node->id, &event); /* by the stream, too */
        return;
    }
    assert_true(status == STATUS_STALE || status == STATUS_EXISTS);
    tell_removed(model, promise->node, promise->key); /* it was in the owner's events, too */
    held->present = false;
    model->refused++;
}

/* What nobody has any more may begin again. */
static void forget_absent(struct model *model)
{
    for (unsigned n = 0; n < KEYS; n++) {
        bool held = false;
        for (unsigned i = 0; i < NODES; i++)
            held = held || model->nodes[i].held[n].present;
        if (!held) model->acked[n] = 0;
        if (!held) model->ended[n] = 0;
    }
}

static void step_revoke(struct model *model)
{
    struct promise *promise = &model->promises[rng_below(&model->rng, TICKETS)];
    char text[KEY_TEXT];

    if (!promise->live) return;
    const struct store_key key = key_of(promise->key, text);
    assert_int_not_equal(store_master_put_revoke(model->master, model->now, promise->writer + 1,
                                                 key, promise->put_id),
                         STATUS_OK);
    const enum status status =
        store_master_put_revoke(model->master, model->now, promise->writer, key, promise->put_id);
    assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND);
}

static void step_read(struct model *model)
{
    const unsigned key = (unsigned)rng_below(&model->rng, KEYS);
    struct store_object object;
    char text[KEY_TEXT];

    const enum status status =
        store_master_get(model->master, model->now, key_of(key, text), &object);
    if (status != STATUS_OK) {
        assert_true(status == STATUS_NOT_FOUND || status == STATUS_BUSY);
        return;
    }
    assert_true(object.replicas_count > 0);
    for (uint32_t i = 0; i < object.replicas_count; i++) {
        const struct store_replica *replica = &object.replicas[i];
        const struct held *held = &model->nodes[node_of(model, replica->node)].held[key];
        assert_true(held->present);
        assert_int_equal(held->address, replica->address);
        assert_int_equal(held->size, object.size);
        assert_int_equal(held->generation, replica->generation);
        assert_true(held->attributes.version >= model->acked[key]); /* never what was replaced */
        assert_int_equal((key + 1) * 1000 + held->attributes.version, object.digest);
    }
}

struct looking {
    struct model *model;
    unsigned seen[KEYS];
    enum status status[KEYS];
};

static bool on_listed(void *ctx, const struct store_listed *listed)
{
    struct looking *looking = ctx;
    const struct scope scope = scope_split(listed->key);
    char text[KEY_TEXT] = "";
    unsigned n = KEYS;

    assert_true(listed->class == STORE_CLASS_OBJECT && listed->key.len < sizeof(text));
    memcpy(text, scope.key.bytes, scope.key.len);
    assert_int_equal(sscanf(text, "key-%u", &n), 1);
    assert_true(scope.name_len == (n < OF_TENANT ? 0 : 1));
    assert_true(n < KEYS && listed->size > 0);
    looking->seen[n]++;
    looking->status[n] = listed->status;
    return rng_below(&looking->model->rng, 10) > 0; /* shown again when it answers false */
}

/* Page by page every key is shown, and says what peek says, which leases nothing. */
static void step_look(struct model *model)
{
    struct looking looking = { .model = model };
    struct store_object object;
    uint64_t cursor = 0;
    char text[KEY_TEXT];

    do {
        cursor = store_master_walk(model->master, model->now, cursor,
                                   1 + (uint32_t)rng_below(&model->rng, KEYS), on_listed, &looking);
    } while (cursor != 0);
    for (unsigned n = 0; n < KEYS; n++) {
        const enum status status =
            store_master_peek(model->master, model->now, key_of(n, text), &object);
        if (looking.seen[n] == 0) assert_int_equal(status, STATUS_NOT_FOUND);
        if (looking.seen[n] > 0) assert_int_equal(status, looking.status[n]);
    }
}

static void step_remove(struct model *model)
{
    const unsigned key = (unsigned)rng_below(&model->rng, KEYS);
    const bool force = rng_below(&model->rng, 2) == 0;
    char text[KEY_TEXT];

    const enum status status =
        store_master_remove(model->master, model->now, key_of(key, text), force);
    assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND || status == STATUS_BUSY);
    if (status == STATUS_OK) {
        const enum status after = store_master_exist(model->master, model->now, key_of(key, text));
        assert_int_equal(after, STATUS_NOT_FOUND);
    }
}

static void drop(struct model *model, const struct store_action *action)
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
static void copy(struct model *model, const struct store_action *action)
{
    const uint64_t dice = model->calm ? 9 : rng_below(&model->rng, 10);
    enum status status = STATUS_NOT_FOUND;
    char text[KEY_TEXT], name[8];

    for (unsigned n = 0; n < KEYS; n++) {
        const struct block_key id = store_key_id(key_of(n, text));
        if (!block_key_equal(&id, &action->id)) continue;
        const struct held *source = NULL;
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
        if (status != STATUS_OK) node->held[n].present = false;
        if (dice == 1) status = STATUS_TIMEOUT;
        break;
    }
    store_master_copied(model->master, model->now, &action->id, action->ticket.put_id, status);
}

static void step_actions(struct model *model)
{
    struct store_action action;
    while (store_master_next_action(model->master, &action)) {
        if (action.kind == STORE_ACTION_DROP) drop(model, &action);
        if (action.kind == STORE_ACTION_COPY) copy(model, &action);
    }
}

static void step_replicas(struct model *model)
{
    const unsigned key = (unsigned)rng_below(&model->rng, KEYS);
    char text[KEY_TEXT];
    const enum status status = store_master_replicas(model->master, model->now, key_of(key, text),
                                                     1 + (uint32_t)rng_below(&model->rng, NODES));
    assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND || status == STATUS_BUSY);
}

/* One node drains, or none does. */
static void step_drain(struct model *model)
{
    const unsigned which = (unsigned)rng_below(&model->rng, 3 * NODES);
    uint64_t left;
    char name[8];
    for (unsigned i = 0; i < NODES; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        assert_int_equal(store_master_drain(model->master, model->now, name, i != which, &left),
                         STATUS_OK);
    }
    if (rng_below(&model->rng, 8) == 0) { /* seconds only: what is under way goes on */
        struct store_unmounting unmounting;
        snprintf(name, sizeof(name), "n%u", which % NODES);
        assert_int_equal(store_master_unmount(model->master, model->now, name,
                                              rng_below(&model->rng, 3) * 4096, &unmounting),
                         STATUS_OK);
    }
}

static void step_time(struct model *model)
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

static void step_node(struct model *model)
{
    const unsigned i = (unsigned)rng_below(&model->rng, NODES);
    if (rng_below(&model->rng, 8) > 0) {
        /* Something went while the stream was down: the snapshot says so by silence. */
        model->nodes[i].held[rng_below(&model->rng, KEYS)].present = false;
        announce(model, i);
    } else if (rng_below(&model->rng, 4) == 0) {
        node_start(model, i);
        model->restarts++;
    }
}

static void step_quota(struct model *model)
{
    const unsigned which = (unsigned)rng_below(&model->rng, TENANTS);
    struct store_quota quota = { 0 };
    if (rng_below(&model->rng, 3) > 0) quota.bytes = 4096 * rng_below(&model->rng, 60);
    if (rng_below(&model->rng, 3) == 0) quota.replicas = rng_below(&model->rng, 10);
    assert_int_equal(store_master_quota(model->master, tenant_names[which], &quota), STATUS_OK);
}

/* When all is quiet a tenant is charged for what the nodes hold of its values, and within its quota
 * unless what it has must stay. */
static void accounts_are_what_is_held(struct model *model)
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

static void everything_held_is_found(struct model *model)
{
    char text[KEY_TEXT];
    model->calm = true;
    for (int i = 0; i < 50; i++) { /* drops that were tried again end */
        step_time(model);
        step_actions(model);
    }
    model->calm = false;
    accounts_are_what_is_held(model);
    for (unsigned n = 0; n < KEYS; n++) {
        bool held = false;
        for (unsigned i = 0; i < NODES; i++)
            held = held || model->nodes[i].held[n].present;
        const enum status status = store_master_exist(model->master, model->now, key_of(n, text));
        assert_int_equal(status, held ? STATUS_OK : STATUS_NOT_FOUND);
    }
}

static void walk_with(enum order_policy policy)
{
    static struct model model;

    model_init_with(&model, policy);
    for (int step = 0; step < STEPS; step++) {
        switch (rng_below(&model.rng, 18)) {
        case 0:
        case 1:
        case 2:
        case 3: step_put(&model); break;
        case 4:
        case 5:
        case 6:
        case 7: step_commit(&model); break;
        case 8: step_revoke(&model); break;
        case 9:
        case 10: step_read(&model); break;
        case 11: step_remove(&model); break;
        case 12: step_time(&model); break;
        case 13:
        case 14: step_actions(&model); break;
        case 15: step_node(&model); break;
        case 16: step_look(&model); break;
        case 17:
            step_replicas(&model);
            if (step % 8 == 0) step_drain(&model);
            if (step % 8 == 1) step_quota(&model);
            break;
        }
        forget_absent(&model);
        acknowledge_waiting(&model);
        if (step % 8 == 0) store_master_check(model.master);
        if (step % 2500 == 2499) everything_held_is_found(&model);
    }
    /* The walk went everywhere. */
    assert_true(model.puts > 500 && model.ends > 300 && model.drops > 200);
    assert_true(model.restarts > 10 && model.refused > 0 && model.replaced > 5);
    assert_true(model.copied > 20 && model.over_quota > 20 && model.waited > 5);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

static void directory_matches_model(void **state)
{
    (void)state;
    for (int policy = ORDER_LRU; policy < ORDER_DEADLINE; policy++)
        walk_with((enum order_policy)policy);
}

/* ---- by hand ---- */

static void unknown_is_not_absent(void **state)
{
    struct store_master *master = master_new(1000 * MS);
    struct model_node node = { .epoch = 9 };
    struct store_member_info info;
    char text[KEY_TEXT];
    (void)state;

    assert_int_equal(store_master_exist(master, 1000 * MS, key_of(1, text)), STATUS_AGAIN);
    assert_int_equal(store_master_exist(master, 1010 * MS, key_of(1, text)), STATUS_NOT_FOUND);
    info_of(&node, 0, &info);
    assert_int_equal(store_master_register(master, 1020 * MS, &info, 0, &node.id), STATUS_OK);
    assert_int_equal(store_master_exist(master, 1020 * MS, key_of(1, text)), STATUS_AGAIN);
    store_master_reset(master, 1020 * MS, node.id);
    store_master_synced(master, 1020 * MS, node.id);
    assert_int_equal(store_master_exist(master, 1020 * MS, key_of(1, text)), STATUS_NOT_FOUND);
    store_master_destroy(master);
}

static void a_later_term_is_answered_with_a_later_one(void **state)
{
    struct store_master *master = master_new(0);
    struct model_node node = { .epoch = 9 };
    struct store_member_info info;
    (void)state;

    info_of(&node, 0, &info);
    assert_int_equal(store_master_register(master, 0, &info, 5, &node.id), STATUS_OK);
    assert_int_equal(store_master_term(master), 5);
    assert_int_equal(store_master_register(master, 0, &info, 70, &node.id), STATUS_OK);
    assert_int_equal(store_master_term(master), 71);
    assert_int_equal(store_master_register(master, 0, &info, UINT64_MAX, &node.id), STATUS_INVALID);
    store_master_destroy(master);
}

static void the_silent_are_suspected_then_dead_then_forgotten(void **state)
{
    struct store_master *master = master_new(0);
    struct model_node node = { .epoch = 9 };
    struct store_member_info info;
    enum store_member_state member;
    struct store_action action;
    struct store_node_id id;
    char text[KEY_TEXT];
    (void)state;

    info_of(&node, 0, &info);
    assert_int_equal(store_master_register(master, 0, &info, 0, &node.id), STATUS_OK);
    node.held[3] = (struct held){ true, REGION, 10, 1, { 0 } };
    const struct store_event event = event_of(&node, 3, text, STORE_EVENT_STORED);
    store_master_reset(master, 0, node.id);
    store_master_event(master, 0, node.id, &event);
    store_master_synced(master, 0, node.id);
    store_master_tick(master, 999 * MS);
    assert_true(store_master_member(master, 0, &info, &member, &id));
    assert_int_equal(member, STORE_MEMBER_ALIVE);
    store_master_tick(master, 1000 * MS);
    assert_true(store_master_member(master, 0, &info, &member, &id));
    assert_int_equal(member, STORE_MEMBER_SUSPECT);
    assert_int_equal(store_master_exist(master, 1000 * MS, key_of(3, text)), STATUS_OK);
    store_master_tick(master, 2000 * MS);
    assert_int_equal(store_master_exist(master, 2000 * MS, key_of(3, text)), STATUS_UNAVAILABLE);
    assert_int_equal(store_master_beat(master, 2100 * MS, "n0", 9), STATUS_OK); /* it returns */
    assert_int_equal(store_master_exist(master, 2100 * MS, key_of(3, text)), STATUS_OK);
    assert_int_equal(store_master_beat(master, 2100 * MS, "n0", 8), STATUS_NOT_FOUND);
    store_master_tick(master, 7100 * MS);
    assert_int_equal(store_master_members(master), 0);
    assert_int_equal(store_master_beat(master, 7100 * MS, "n0", 9), STATUS_NOT_FOUND);
    assert_int_equal(store_master_exist(master, 7100 * MS, key_of(3, text)), STATUS_NOT_FOUND);
    bool gone = false;
    while (store_master_next_action(master, &action)) {
        gone = gone || action.kind == STORE_ACTION_GONE;
    }
    assert_true(gone);
    store_master_check(master);
    store_master_destroy(master);
}

static void a_made_up_collision_is_an_absent_key(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    const struct store_key key = key_of(1, text);
    const struct block_key id = store_key_id(key);
    const struct store_key forged = { id.bytes, sizeof(id.bytes) }; /* its identity is itself */
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key, 100, NULL, &ticket),
                     STATUS_OK);
    assert_int_not_equal(store_master_exist(model.master, model.now, forged), STATUS_OK);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, forged, 100, NULL, &ticket),
                     STATUS_INVALID);
    store_master_destroy(model.master);
}

static void a_put_end_overtaken_by_events_is_refused(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    char text[KEY_TEXT], name[8];
    (void)state;

    model_init(&model);
    const struct store_key key = key_of(1, text);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key, 100, NULL, &ticket),
                     STATUS_OK);
    const unsigned i = node_of(&model, ticket.where.node);
    struct model_node *node = &model.nodes[i];
    snprintf(name, sizeof(name), "n%u", i);
    node->held[1] = (struct held){ true, ticket.where.address, 100, 1, { 0 } };
    const struct store_event stored = event_of(node, 1, text, STORE_EVENT_STORED);
    const struct store_event removed = {
        .kind = STORE_EVENT_REMOVED, .class = STORE_CLASS_OBJECT, .id = stored.id, .generation = 1
    };
    store_master_event(model.master, model.now, node->id, &stored);
    assert_int_equal(store_master_exist(model.master, model.now, key), STATUS_OK);
    assert_int_equal(
        store_master_put_end(model.master, model.now, name, node->epoch, ticket.put_id, &stored),
        STATUS_OK);
    store_master_event(model.master, model.now, node->id, &removed);
    assert_int_equal(
        store_master_put_end(model.master, model.now, name, node->epoch, ticket.put_id, &stored),
        STATUS_STALE);
    assert_int_equal(store_master_exist(model.master, model.now, key), STATUS_NOT_FOUND);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* Puts a value as its owner would, whole, at the first node while that has room. */
static void put_wish(struct model *model, unsigned key, uint64_t size, struct store_wish wish)
{
    struct store_ticket ticket;
    char text[KEY_TEXT], name[8];

    wish.preferred = "n0";
    assert_int_equal(store_master_put_start(model->master, model->now, 1, key_of(key, text), size,
                                            &wish, &ticket),
                     STATUS_OK);
    wish.attributes.version = ticket.version;
    const unsigned i = node_of(model, ticket.where.node);
    struct model_node *node = &model->nodes[i];
    snprintf(name, sizeof(name), "n%u", i);
    node->held[key] =
        (struct held){ true, ticket.where.address, size, ++node->generation, wish.attributes };
    const struct store_event stored = event_of(node, key, text, STORE_EVENT_STORED);
    assert_int_equal(
        store_master_put_end(model->master, model->now, name, node->epoch, ticket.put_id, &stored),
        STATUS_OK);
}

static void put_whole(struct model *model, unsigned key, uint64_t size)
{
    put_wish(model, key, size, (struct store_wish){ 0 });
}

/* One node is enough, and easier to fill. */
static void one_node(struct model *model)
{
    for (unsigned i = 1; i < NODES; i++) {
        char name[8];
        snprintf(name, sizeof(name), "n%u", i);
        store_master_leave(model->master, model->now, name, model->nodes[i].epoch);
    }
}

/* A put of one byte more than there is: which keys are asked to go, as bits. */
static unsigned evicted(struct model *model, enum status expected)
{
    struct store_ticket ticket;
    struct store_action action;
    char text[KEY_TEXT];
    unsigned keys = 0;

    while (store_master_next_action(model->master, &action))
        continue;
    model->now += 60 * MS; /* leases are over, places in the order are not */
    assert_int_equal(
        store_master_put_start(model->master, model->now, 1, key_of(9, text), 1, NULL, &ticket),
        expected);
    while (store_master_next_action(model->master, &action)) {
        assert_int_equal(action.kind, STORE_ACTION_DROP);
        for (unsigned key = 0; key < KEYS; key++) {
            const struct block_key id = store_key_id(key_of(key, text));
            if (block_key_equal(&id, &action.id)) keys |= 1u << key;
        }
    }
    store_master_check(model->master);
    return keys;
}

static void read_times(struct model *model, unsigned key, unsigned times)
{
    char text[KEY_TEXT];
    for (unsigned i = 0; i < times; i++) {
        assert_int_equal(store_master_exist(model->master, model->now, key_of(key, text)),
                         STATUS_OK);
    }
}

static void the_least_recently_read_goes_first(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    one_node(&model);
    for (unsigned key = 0; key < 4; key++)
        put_whole(&model, key, REGION_SIZE / 4);
    read_times(&model, 0, 1);
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 1);
    store_master_destroy(model.master);
}

/* A node that lends enough keeps a little free: once it is full, every put finds room, as long as
 * its owner drops what it is asked to while a few more come. */
static void room_is_made_ahead(void **state)
{
    enum { LENT = 128 << 20, VALUE = 1 << 20, AHEAD = LENT / 64, PUTS = 500 };
    const struct model_node model_node = { .epoch = 9 };
    struct store_master *master = master_new(MS);
    const struct store_event extent = { .kind = STORE_EVENT_EXTENT,
                                        .generation = store_master_term(master),
                                        .address = REGION,
                                        .size = LENT };
    struct store_member_info info;
    struct store_master_counts counts;
    struct store_action action;
    struct store_ticket ticket;
    struct store_node_id node;
    uint64_t now = 1000 * MS;
    (void)state;

    info_of(&model_node, 0, &info);
    assert_int_equal(store_master_register(master, now, &info, 0, &node), STATUS_OK);
    store_master_reset(master, now, node);
    store_master_event(master, now, node, &extent);
    store_master_synced(master, now, node);
    for (unsigned i = 0; i < PUTS; i++, now += MS) {
        char text[KEY_TEXT];
        snprintf(text, sizeof(text), "ahead %u", i);
        const struct store_key key = { (const uint8_t *)text, (uint32_t)strlen(text) };
        assert_int_equal(store_master_put_start(master, now, 1, key, VALUE, NULL, &ticket),
                         STATUS_OK);
        const struct store_event stored = { .kind = STORE_EVENT_STORED,
                                            .class = STORE_CLASS_OBJECT,
                                            .id = store_key_id(key),
                                            .key = key.bytes,
                                            .key_len = key.len,
                                            .generation = i + 1,
                                            .address = ticket.where.address,
                                            .size = VALUE,
                                            .digest = i };
        assert_int_equal(
            store_master_put_end(master, now, info.name, info.epoch, ticket.put_id, &stored),
            STATUS_OK);
        while (store_master_next_action(master, &action)) {
            if (action.kind != STORE_ACTION_DROP) continue;
            const struct store_event removed = { .kind = STORE_EVENT_REMOVED,
                                                 .class = STORE_CLASS_OBJECT,
                                                 .id = action.id,
                                                 .generation = action.generation };
            store_master_event(master, now, node, &removed);
        }
        store_master_counts(master, &counts);
        const uint64_t all = (i + UINT64_C(1)) * VALUE;
        assert_int_equal(counts.space_used, all < LENT - AHEAD ? all : LENT - AHEAD);
    }
    assert_int_equal(counts.evictions_total, PUTS - (LENT - AHEAD) / VALUE);
    store_master_check(master);
    store_master_destroy(master);
}

/* Four values fill the node; which one goes is the policy's. */
static unsigned victim_of(enum order_policy policy)
{
    static struct model model;

    model_init_with(&model, policy);
    one_node(&model);
    put_wish(&model, 0, REGION_SIZE / 4, (struct store_wish){ .attributes = { .cost = 5 } });
    put_wish(&model, 1, REGION_SIZE / 4, (struct store_wish){ .attributes = { .cost = 900 } });
    put_wish(&model, 2, REGION_SIZE / 4,
             (struct store_wish){ .attributes = { .cost = 800, .depth = 7 } });
    put_wish(&model, 3, REGION_SIZE / 4, (struct store_wish){ .attributes = { .cost = 700 } });
    read_times(&model, 0, 3);
    read_times(&model, 1, 1);
    read_times(&model, 2, 1);
    read_times(&model, 3, 1);
    model.now += 60 * MS; /* the lease is over: the next read counts for LRU, too */
    read_times(&model, 0, 1);
    const unsigned keys = evicted(&model, STATUS_AGAIN);
    store_master_destroy(model.master);
    return keys;
}

static void the_policy_says_who_goes(void **state)
{
    (void)state;
    assert_int_equal(victim_of(ORDER_LRU), 1u << 1);    /* read longest ago */
    assert_int_equal(victim_of(ORDER_LFU), 1u << 1);    /* and as seldom as 2 and 3 */
    assert_int_equal(victim_of(ORDER_LENGTH), 1u << 2); /* of those the deepest */
    assert_int_equal(victim_of(ORDER_COST), 1u << 0);   /* read often, but soon computed */
}

static void pins_keep(void **state)
{
    static struct model model;
    struct store_object object;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    one_node(&model);
    put_wish(&model, 0, REGION_SIZE / 4, (struct store_wish){ .attributes = { .hard_pin = true } });
    put_wish(&model, 1, REGION_SIZE / 4, (struct store_wish){ .soft_pin_ms = 1000 });
    put_wish(&model, 2, REGION_SIZE / 4, (struct store_wish){ .soft_pin_ms = 150 });
    put_whole(&model, 3, REGION_SIZE / 4);
    read_times(&model, 3, 1);
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 3); /* though it was read last */
    assert_int_equal(evicted(&model, STATUS_AGAIN), 0);       /* that is under way */
    read_times(&model, 2, 1);                                 /* prolongs no pin */
    assert_int_equal(store_master_remove(model.master, model.now, key_of(3, text), true),
                     STATUS_NOT_FOUND);
    tell_removed(&model, 0, 3);
    put_wish(&model, 3, REGION_SIZE / 4, (struct store_wish){ .attributes = { .hard_pin = true } });
    assert_true(store_master_tick(model.master, model.now) > 0);
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 2); /* the earliest deadline */
    tell_removed(&model, 0, 2);
    put_wish(&model, 2, REGION_SIZE / 4, (struct store_wish){ .attributes = { .hard_pin = true } });
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 1);
    tell_removed(&model, 0, 1);
    put_wish(&model, 1, REGION_SIZE / 4, (struct store_wish){ .attributes = { .hard_pin = true } });
    assert_int_equal(evicted(&model, STATUS_FULL), 0); /* nothing but hard pins */
    assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), false),
                     STATUS_OK); /* by name it goes */
    assert_int_equal(store_master_peek(model.master, model.now, key_of(0, text), &object),
                     STATUS_NOT_FOUND);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

static void a_group_stays_and_goes_together(void **state)
{
    static struct model model;
    struct store_wish wish = { .attributes = { .group = 77 } };
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    one_node(&model);
    put_wish(&model, 0, REGION_SIZE / 4, wish);
    put_whole(&model, 1, REGION_SIZE / 4);
    put_wish(&model, 2, REGION_SIZE / 4, wish);
    wish.attributes.hard_pin = true;
    put_wish(&model, 3, REGION_SIZE / 4, wish);
    read_times(&model, 2, 1); /* the others of the group are leased, too */
    assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), false),
                     STATUS_BUSY);
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 1);
    tell_removed(&model, 0, 1);
    put_wish(&model, 1, REGION_SIZE / 4, (struct store_wish){ .attributes = { .hard_pin = true } });
    assert_int_equal(evicted(&model, STATUS_AGAIN), 1u << 0 | 1u << 2); /* but for the pinned */
    store_master_destroy(model.master);
}

/* Readers have the old value until the new one is there, and then the new one everywhere. */
static void a_value_is_replaced_whole(void **state)
{
    static struct model model;
    const struct store_wish replace = { .replace = true, .preferred = "n1" };
    struct store_ticket first, second, ignored;
    struct store_object object;
    struct store_action action;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_whole(&model, 0, 4096);
    const struct store_key key = key_of(0, text);
    assert_int_equal(store_master_put_start(model.master, model.now, 2, key, 9000, NULL, &ignored),
                     STATUS_EXISTS);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 2, key, 9000, &replace, &first), STATUS_OK);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 3, key, 5000, &replace, &second),
        STATUS_OK); /* pre-empts */
    assert_true(second.version > first.version && first.version > 0);
    assert_int_equal(store_master_put_revoke(model.master, model.now, 2, key, first.put_id),
                     STATUS_NOT_FOUND);
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_OK);
    assert_int_equal(object.size, 4096);
    while (store_master_next_action(model.master, &action))
        continue;

    struct model_node *node = &model.nodes[1];
    node->held[0] = (struct held){
        true, second.where.address, 5000, ++node->generation, { .version = second.version }
    };
    const struct store_event stored = event_of(node, 0, text, STORE_EVENT_STORED);
    assert_int_equal(
        store_master_put_end(model.master, model.now, "n1", node->epoch, second.put_id, &stored),
        STATUS_AGAIN); /* the old one is there */
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_OK);
    assert_int_equal(object.size, 5000);
    assert_int_equal(object.replicas_count, 1);
    assert_int_equal(node_of(&model, object.replicas[0].node), 1);
    assert_true(store_master_next_action(model.master, &action)); /* the old one, though leased */
    assert_int_equal(action.kind, STORE_ACTION_DROP);
    assert_int_equal(node_of(&model, action.node), 0);
    store_master_dropped(model.master, model.now, action.node, &action.id, action.generation,
                         STATUS_BUSY); /* somebody still reads it: later, until it is gone */
    model.now += 300 * MS;
    assert_true(store_master_tick(model.master, model.now) > 0);
    assert_true(store_master_next_action(model.master, &action));
    announce(&model, 0); /* it does not come back by being told again */
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_OK);
    assert_int_equal(object.size, 5000);
    assert_int_equal(store_master_replaced(model.master, model.now, &stored.id), STATUS_AGAIN);
    tell_removed(&model, 0, 0);
    assert_int_equal(store_master_replaced(model.master, model.now, &stored.id), STATUS_OK);
    assert_int_equal(
        store_master_put_end(model.master, model.now, "n1", node->epoch, second.put_id, &stored),
        STATUS_OK); /* its owner repeats itself */
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* The node gets the whole of what the ticket is for, and tells. */
static enum status commit_at(struct model *model, const struct store_ticket *ticket, unsigned index,
                             uint64_t size)
{
    struct model_node *node = &model->nodes[index];
    char name[8];
    char text[KEY_TEXT];

    node->held[0] = (struct held){
        true, ticket->where.address, size, ++node->generation, { .version = ticket->version }
    };
    const struct store_event stored = event_of(node, 0, text, STORE_EVENT_STORED);
    snprintf(name, sizeof(name), "n%u", index);
    return store_master_put_end(model->master, model->now, name, node->epoch, ticket->put_id,
                                &stored);
}

/* The old owner is cut off: the put waits until that one is in doubt about what it has, which the
 * next master is told and believes only when it has heard everybody. */
static void an_owner_out_of_touch_is_waited_for_and_then_doubted(void **state)
{
    static struct model model;
    const struct store_wish replace = { .replace = true, .preferred = "n1" };
    struct store_ticket ticket, ignored;
    struct store_object object;
    struct store_event event;
    char text[KEY_TEXT], name[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_whole(&model, 0, 4096);
    const struct store_key key = key_of(0, text);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 2, key, 9000, &replace, &ticket),
        STATUS_OK);
    const uint64_t heard = model.now;
    model.now += 4000 * MS;
    assert_int_equal(store_master_beat(model.master, model.now, "n1", model.nodes[1].epoch),
                     STATUS_OK);
    event = event_of(&model.nodes[0], 0, name, STORE_EVENT_STORED);
    assert_int_equal(commit_at(&model, &ticket, 1, 9000), STATUS_AGAIN);
    model.now = heard + STORE_DOUBT_MS * MS - 1;
    assert_int_equal(store_master_replaced(model.master, model.now, &event.id), STATUS_AGAIN);
    model.now++;
    assert_int_equal(store_master_replaced(model.master, model.now, &event.id), STATUS_OK);
    store_master_destroy(model.master);

    model.master = master_new(model.now); /* which hears the old owner first */
    model.nodes[0].held[0].present = false;
    node_register(&model, 0);
    announce(&model, 0);
    event.doubt = true;
    store_master_event(model.master, model.now, model.nodes[0].id, &event);
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_AGAIN);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 3, key, 4096, &replace, &ignored),
        STATUS_AGAIN); /* its version could be that of the one that is not known */
    assert_int_equal(store_master_remove(model.master, model.now, key, true), STATUS_AGAIN);
    model.now += SETTLE_MS * MS;
    assert_true(store_master_tick(model.master, model.now) > 0);
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_OK);
    assert_int_equal(object.size, 4096); /* nobody else has it, for all anybody knows */
    node_register(&model, 1);
    announce(&model, 1);
    assert_int_equal(store_master_get(model.master, model.now, key, &object), STATUS_OK);
    assert_int_equal(object.size, 9000);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* Of two values the one of whoever is not in doubt stays, whatever the versions, whoever is heard
 * first. */
static void doubt_gives_way(void **state)
{
    static struct model model;
    struct store_object object;
    char text[KEY_TEXT], name[KEY_TEXT];
    (void)state;

    for (int first = 0; first < 2; first++) {
        model_init(&model);
        struct model_node *node = &model.nodes[1];
        node->held[0] = (struct held){ true, REGION, 9000, ++node->generation, { .version = 3 } };
        struct store_event event = event_of(node, 0, name, STORE_EVENT_STORED);
        event.doubt = true;
        if (first) store_master_event(model.master, model.now, node->id, &event);
        model.nodes[0].held[0] =
            (struct held){ true, REGION, 4096, ++model.nodes[0].generation, { .version = 1 } };
        announce(&model, 0);
        if (!first) store_master_event(model.master, model.now, node->id, &event);
        assert_int_equal(store_master_get(model.master, model.now, key_of(0, text), &object),
                         STATUS_OK);
        assert_int_equal(object.size, 4096);
        assert_int_equal(object.replicas_count, 1);
        assert_int_equal(store_master_replaced(model.master, model.now, &event.id), STATUS_AGAIN);
        store_master_check(model.master);
        store_master_destroy(model.master);
    }
}

static void expect_absent(struct model *model)
{
    char text[KEY_TEXT];
    const struct store_key key = key_of(0, text);
    assert_int_equal(store_master_exist(model->master, model->now, key), STATUS_NOT_FOUND);
    store_master_check(model->master);
}

/* Its node is forgotten with the old value while the new one lies elsewhere, and goes. */
static void a_node_that_was_away_brings_nothing_old(void **state)
{
    static struct model model;
    const struct store_wish replace = { .replace = true, .preferred = "n1" };
    struct store_ticket ticket;
    struct store_action action;
    char text[KEY_TEXT];
    (void)state;

    for (int removed = 0; removed < 2; removed++) {
        model_init(&model);
        put_whole(&model, 0, 4096); /* at node 0 */
        const struct store_key key = key_of(0, text);
        assert_int_equal(
            store_master_put_start(model.master, model.now, 2, key, 9000, &replace, &ticket),
            STATUS_OK);
        const struct held old = model.nodes[0].held[0];
        store_master_leave(model.master, model.now, "n0", model.nodes[0].epoch);
        assert_int_equal(commit_at(&model, &ticket, 1, 9000), STATUS_OK);
        if (removed) {
            assert_int_equal(store_master_remove(model.master, model.now, key, true), STATUS_OK);
        }
        tell_removed(&model, 1, 0); /* evicted, or removed */
        model.nodes[1].held[0].present = false;
        expect_absent(&model);
        node_start(&model, 0);
        while (store_master_next_action(model.master, &action))
            continue;
        model.nodes[0].held[0] = old; /* on its disk, say */
        announce(&model, 0);
        expect_absent(&model);
        assert_true(store_master_next_action(model.master, &action));
        assert_int_equal(action.kind, STORE_ACTION_DROP);
        tell_removed(&model, 0, 0);
        assert_int_equal(
            store_master_put_start(model.master, model.now, 3, key, 4096, NULL, &ticket),
            STATUS_OK);
        assert_true(ticket.version > old.attributes.version); /* nor does it stand in the way */
        store_master_destroy(model.master);
    }
}

/* A put that replaces times out, what it was to replace is removed, and then it is committed. */
static void a_late_commit_does_not_undo_a_removal(void **state)
{
    static struct model model;
    const struct store_wish replace = { .replace = true, .preferred = "n1" };
    struct store_ticket ticket;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_whole(&model, 0, 4096);
    const struct store_key key = key_of(0, text);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 2, key, 9000, &replace, &ticket),
        STATUS_OK);
    assert_int_equal(store_master_put_revoke(model.master, model.now, 2, key, ticket.put_id),
                     STATUS_OK);
    assert_int_equal(store_master_remove(model.master, model.now, key, true), STATUS_OK);
    tell_removed(&model, 0, 0);
    model.nodes[0].held[0].present = false;
    assert_int_equal(commit_at(&model, &ticket, 1, 9000), STATUS_STALE);
    expect_absent(&model);
    store_master_destroy(model.master);
}

/* What is lent to another master is not ours to hand out. */
static void only_what_is_lent_to_this_term_is_promised(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    for (unsigned i = 0; i < NODES; i++) {
        const struct store_event extent = { .kind = STORE_EVENT_EXTENT,
                                            .class = STORE_CLASS_OBJECT,
                                            .generation = store_master_term(model.master) - 1,
                                            .address = REGION + 64 * REGION_SIZE,
                                            .size = 2 * REGION_SIZE };
        store_master_event(model.master, model.now, model.nodes[i].id, &extent);
    }
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(1, text),
                                            REGION_SIZE + 4096, NULL, &ticket),
                     STATUS_INVALID); /* larger than all that is lent */
    store_master_destroy(model.master);
}

static bool see_soft(void *ctx, const struct store_listed *listed)
{
    *(bool *)ctx = listed->soft_pin;
    return true;
}

/* What an earlier master was told comes with the nodes. */
static void nodes_remember_for_a_new_master(void **state)
{
    static struct model model;
    struct store_member_info info;
    struct store_ticket ticket;
    struct store_action action;
    struct store_node_id id;
    char text[KEY_TEXT];
    bool soft = false;
    (void)state;

    model_init(&model);
    put_whole(&model, 0, 4096);
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(0, text), 3), STATUS_OK);
    do {
        assert_true(store_master_next_action(model.master, &action));
    } while (action.kind != STORE_ACTION_MARK);
    assert_int_equal(action.replicas, 3);
    assert_int_equal(action.generation, model.nodes[0].held[0].generation);
    store_master_destroy(model.master);

    model.master = master_new_with(model.now, ORDER_LRU);
    info_of(&model.nodes[0], 0, &info);
    info.draining = true;
    assert_int_equal(store_master_register(model.master, model.now, &info, 0, &id), STATUS_OK);
    model.nodes[0].id = id;
    model.nodes[0].held[0].attributes.soft_pin_ms = 1000;
    announce(&model, 0);
    model.now += 10000 * MS;
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(1, text), 4096, NULL, &ticket),
        STATUS_UNAVAILABLE); /* the only node is to leave */
    assert_true(store_master_drains(model.master, "n0") && !store_master_drains(model.master, "x"));
    model.now -= 9500 * MS;
    assert_int_equal(store_master_walk(model.master, model.now, 0, 10, see_soft, &soft), 0);
    assert_true(soft);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

static uint32_t replicas_of(struct model *model, unsigned key)
{
    struct store_object object;
    char text[KEY_TEXT];
    assert_int_equal(store_master_peek(model->master, model->now, key_of(key, text), &object),
                     STATUS_OK);
    return object.replicas_count;
}

static void turns(struct model *model, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        step_time(model);
        step_actions(model);
        store_master_check(model->master);
    }
}

static void there_are_as_many_replicas_as_wished(void **state)
{
    static struct model model;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    put_wish(&model, 0, 9000, (struct store_wish){ .attributes = { .replicas = 2 } });
    put_whole(&model, 1, 9000);
    turns(&model, 40);
    assert_int_equal(replicas_of(&model, 0), 2);
    assert_int_equal(replicas_of(&model, 1), 1);
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(1, text), 3), STATUS_OK);
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(0, text), 9),
                     STATUS_INVALID);
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(5, text), 2),
                     STATUS_NOT_FOUND);
    turns(&model, 40);
    assert_int_equal(replicas_of(&model, 1), 3);
    assert_int_equal(store_master_replicas(model.master, model.now, key_of(1, text), 1), STATUS_OK);
    turns(&model, 40);
    assert_int_equal(replicas_of(&model, 1), 1);
    node_start(&model, 0); /* dies and comes back empty: copied again from the other */
    turns(&model, 40);
    assert_int_equal(replicas_of(&model, 0), 2);
    store_master_destroy(model.master);
}

static void what_a_node_has_goes_elsewhere_before_it_leaves(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    const struct store_wish there = { .preferred = "n0" };
    uint64_t left = 0;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    for (unsigned key = 0; key < 8; key++)
        put_whole(&model, key, 4096);
    assert_int_equal(store_master_drain(model.master, model.now, "n9", false, &left),
                     STATUS_NOT_FOUND);
    assert_int_equal(store_master_drain(model.master, model.now, "n0", false, &left), STATUS_OK);
    assert_int_equal(left, 8);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(9, text), 100, &there, &ticket),
        STATUS_OK);
    assert_int_not_equal(node_of(&model, ticket.where.node), 0); /* nothing new */
    turns(&model, 60);
    assert_int_equal(store_master_drain(model.master, model.now, "n0", false, &left), STATUS_OK);
    assert_int_equal(left, 0);
    store_master_leave(model.master, model.now, "n0", model.nodes[0].epoch);
    for (unsigned key = 0; key < 8; key++)
        assert_int_equal(replicas_of(&model, key), 1);
    store_master_destroy(model.master);
}

/* Which keys the node is asked to copy, in this order, as digits. */
static uint64_t copies_asked(struct model *model)
{
    struct store_action action;
    uint64_t digits = 0;
    char text[KEY_TEXT];
    while (store_master_next_action(model->master, &action)) {
        for (unsigned key = 0; key < 10 && action.kind == STORE_ACTION_COPY; key++) {
            const struct block_key id = store_key_id(key_of(key, text));
            if (block_key_equal(&id, &action.id)) digits = digits * 10 + key;
        }
    }
    return digits;
}

/* Only what nobody else has and the node's disk will not keep; what matters most first; nothing is
 * evicted for it, unless it is pinned. */
static void who_leaves_soon_hands_over_what_matters_first(void **state)
{
    static struct model model;
    struct store_unmounting unmounting;
    struct store_ticket ticket;
    const struct store_wish pinned = { .attributes.hard_pin = true };
    const struct store_wish at_n1 = { .preferred = "n1" };
    const struct store_wish at_n2 = { .preferred = "n2" };
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    for (unsigned key = 1; key <= 4; key++)
        put_whole(&model, key, 8192);
    put_wish(&model, 5, 8192, pinned);
    put_whole(&model, 6, 4096); /* is on its disk */
    put_whole(&model, 7, 8192);
    put_whole(&model, 8, 8192); /* another node has it, too */
    struct model_node *other = &model.nodes[1];
    other->held[8] = model.nodes[0].held[8];
    other->held[8].generation = ++other->generation;
    const struct store_event stored = event_of(other, 8, text, STORE_EVENT_STORED);
    store_master_event(model.master, model.now, other->id, &stored);
    read_times(&model, 3, 1);
    model.now += 20 * MS;
    read_times(&model, 1, 1);
    model.now += 20 * MS;
    read_times(&model, 4, 1);
    assert_int_equal(copies_asked(&model), 0);

    /* Room for four of them, around the one that is there. */
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(10, text), 25 * 4096,
                                            &at_n1, &ticket),
                     STATUS_OK);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(11, text), 5 * 4096,
                                            &at_n1, &ticket),
                     STATUS_OK);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(12, text),
                                            REGION_SIZE, &at_n2, &ticket),
                     STATUS_OK);
    assert_int_equal(store_master_unmount(model.master, model.now, "n9", 4096, &unmounting),
                     STATUS_NOT_FOUND);
    assert_int_equal(store_master_unmount(model.master, model.now, "n0", 4096, &unmounting),
                     STATUS_OK);
    assert_true(unmounting.left > 0);
    const uint64_t asked = copies_asked(&model);
    assert_int_equal(asked / 10, 541); /* then 3, and nobody has room for 2 and 7 */
    assert_int_equal(asked % 10, 3);
    assert_int_equal(unmounting.stranded, 2);
    assert_int_not_equal(
        store_master_put_start(model.master, model.now, 1, key_of(9, text), 4096, NULL, &ticket),
        STATUS_OK); /* it gets nothing new, and has room */
    store_master_check(model.master);
    store_master_destroy(model.master);
}

/* The copies are made, and the node is told when it may go. */
static void who_leaves_soon_is_told_when_it_may_go(void **state)
{
    static struct model model;
    struct store_unmounting unmounting = { .left = 1 };
    (void)state;

    model_init(&model);
    model.calm = true;
    for (unsigned key = 0; key < 8; key++)
        put_whole(&model, key, 4096);
    for (int i = 0; i < 20 && unmounting.left > 0; i++) {
        assert_int_equal(store_master_unmount(model.master, model.now, "n0", 0, &unmounting),
                         STATUS_OK);
        turns(&model, 3);
    }
    assert_int_equal(unmounting.left, 0);
    assert_int_equal(unmounting.stranded, 0);
    store_master_leave(model.master, model.now, "n0", model.nodes[0].epoch);
    for (unsigned key = 0; key < 8; key++)
        assert_int_equal(replicas_of(&model, key), 1);
    store_master_destroy(model.master);
}

static void leases_keep_and_full_is_an_answer(void **state)
{
    static struct model model;
    struct store_ticket ticket;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    one_node(&model);
    put_whole(&model, 0, REGION_SIZE);
    assert_int_equal(store_master_exist(model.master, model.now, key_of(0, text)), STATUS_OK);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(1, text), 1, NULL, &ticket),
        STATUS_FULL);
    assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), false),
                     STATUS_BUSY);
    assert_int_equal(store_master_put_start(model.master, model.now, 1, key_of(1, text),
                                            REGION_SIZE + 1, NULL, &ticket),
                     STATUS_INVALID);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(1, text), 0, NULL, &ticket),
        STATUS_INVALID);
    assert_int_equal(store_master_remove(model.master, model.now, key_of(0, text), true),
                     STATUS_OK);
    store_master_destroy(model.master);
}

struct pages {
    unsigned shown;
    unsigned limit;
};

static bool on_shown(void *ctx, const struct store_listed *listed)
{
    struct pages *pages = ctx;
    assert_int_equal(listed->status, STATUS_OK);
    assert_int_equal(listed->lease_ns, 0);
    if (pages->shown == pages->limit) return false;
    pages->shown++;
    return true;
}

static void a_walk_in_pages_shows_each_key_once_and_leases_none(void **state)
{
    static struct model model;
    struct pages pages = { 0 };
    struct store_object object;
    uint64_t cursor = 0;
    char text[KEY_TEXT];
    (void)state;

    model_init(&model);
    for (unsigned key = 0; key < 10; key++)
        put_whole(&model, key, 4096);
    for (pages.limit = 3; cursor != 0 || pages.shown == 0; pages.limit += 3) {
        cursor = store_master_walk(model.master, model.now, cursor, 1000, on_shown, &pages);
    }
    assert_int_equal(pages.shown, 10);
    assert_int_equal(store_master_peek(model.master, model.now, key_of(3, text), &object),
                     STATUS_OK);
    assert_int_equal(object.size, 4096);
    pages = (struct pages){ .limit = 20 };
    assert_int_not_equal(store_master_walk(model.master, model.now, 0, 4, on_shown, &pages), 0);
    assert_int_equal(pages.shown, 4); /* looks are bounded, too */
    assert_int_equal(store_master_walk(model.master, model.now, UINT64_MAX, 4, on_shown, &pages),
                     0);
    store_master_destroy(model.master);
}

/* ---- tenants ---- */

static enum status try_put(struct model *model, unsigned key, uint64_t size)
{
    struct store_ticket ticket;
    char text[KEY_TEXT];
    return store_master_put_start(model->master, model->now, 1, key_of(key, text), size, NULL,
                                  &ticket);
}

/* A put under `key`, which is not there: which keys are asked to go, as bits. */
static unsigned evicted_for(struct model *model, unsigned key, uint64_t size, enum status expected)
{
    struct store_action action;
    char text[KEY_TEXT];
    unsigned keys = 0;

    while (store_master_next_action(model->master, &action))
        continue;
    model->now += 60 * MS; /* leases are over */
    assert_int_equal(try_put(model, key, size), expected);
    while (store_master_next_action(model->master, &action)) {
        for (unsigned n = 0; n < KEYS && action.kind == STORE_ACTION_DROP; n++) {
            const struct block_key id = store_key_id(key_of(n, text));
            if (block_key_equal(&id, &action.id)) keys |= 1u << n;
        }
    }
    store_master_check(model->master);
    return keys;
}

static void quota(struct model *model, const char *name, uint64_t bytes, uint64_t replicas)
{
    const struct store_quota quota = { bytes, replicas };
    assert_int_equal(store_master_quota(model->master, name, &quota), STATUS_OK);
}

/* Its own values go, not those of others, though theirs were used longer ago. */
static void a_put_over_quota_evicts_its_tenants_own(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    one_node(&model);
    put_whole(&model, 0, 4096);
    put_whole(&model, 20, 4096);
    quota(&model, "a", 3 * 4096, 0);
    for (unsigned key = 10; key < 13; key++)
        put_whole(&model, key, 4096);
    assert_int_equal(evicted_for(&model, 13, 4096, STATUS_AGAIN), 1u << 10);
    assert_int_equal(evicted_for(&model, 13, 2 * 4096, STATUS_AGAIN), 1u << 11);
    assert_int_equal(evicted_for(&model, 13, 4 * 4096, STATUS_QUOTA), 0); /* never */
    assert_int_equal(try_put(&model, 21, 20 * 4096), STATUS_OK); /* there is room for others */
    assert_int_equal(tenant_of(&model, 1).refused_total, 1);
    assert_int_equal(tenant_of(&model, 1).evicted.bytes, 2 * 4096);
    store_master_destroy(model.master);
}

static void what_cannot_go_leaves_a_definite_answer(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    one_node(&model);
    quota(&model, "a", 0, 2);
    put_wish(&model, 10, 4096, (struct store_wish){ .attributes.hard_pin = true });
    put_whole(&model, 11, 4096);
    read_times(&model, 11, 1);
    assert_int_equal(try_put(&model, 12, 1), STATUS_QUOTA); /* pinned, leased */
    assert_int_equal(evicted_for(&model, 12, 1, STATUS_AGAIN), 1u << 11);
    quota(&model, "a", 0, 0);
    assert_int_equal(try_put(&model, 12, 1), STATUS_OK);
    store_master_destroy(model.master);
}

/* When memory is short, who is above its share gives first; one without is not touched. */
static void under_pressure_the_greedy_give_first(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    one_node(&model);
    put_whole(&model, 0, REGION_SIZE / 8); /* used longest ago */
    for (unsigned key = 10; key < 15; key++)
        put_whole(&model, key, REGION_SIZE / 8);
    for (unsigned key = 20; key < 22; key++)
        put_whole(&model, key, REGION_SIZE / 8);
    assert_int_equal(evicted_for(&model, 22, 4096, STATUS_AGAIN), 1u << 10);
    quota(&model, "a", REGION_SIZE, 0); /* now it has a right to all of it */
    assert_int_equal(evicted_for(&model, 22, REGION_SIZE / 4, STATUS_AGAIN), 1u << 20);
    store_master_destroy(model.master);
}

static void a_lowered_quota_is_reached(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    one_node(&model);
    for (unsigned key = 10; key < 14; key++)
        put_whole(&model, key, 4096);
    quota(&model, "a", 2 * 4096, 0);
    model.calm = true;
    (void)store_master_tick(model.master, model.now);
    step_actions(&model);
    assert_false(model.nodes[0].held[10].present || model.nodes[0].held[11].present);
    assert_int_equal(tenant_of(&model, 1).used.bytes, 2 * 4096);
    store_master_destroy(model.master);
}

/* A new master learns from the owners whose everything is. */
static void accounts_outlive_the_master(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    for (unsigned key = 5; key < 25; key++)
        put_whole(&model, key, 1 + 700 * key);
    store_master_destroy(model.master);
    model.master = master_new(model.now);
    for (unsigned i = 0; i < NODES; i++) {
        struct store_member_info info;
        info_of(&model.nodes[i], i, &info);
        assert_int_equal(
            store_master_register(model.master, model.now, &info, 0, &model.nodes[i].id),
            STATUS_OK);
        announce(&model, i);
    }
    accounts_are_what_is_held(&model);
    assert_int_equal(tenant_of(&model, 1).values, 10);
    store_master_check(model.master);
    store_master_destroy(model.master);
}

static void only_listed_tenants_put_where_that_is_asked(void **state)
{
    static struct model model;
    const struct store_master_options options = { .term = 5, .tenants_listed = true };
    const struct store_quota one = { .bytes = 4096 };
    char text[KEY_TEXT];
    struct store_ticket ticket;
    (void)state;

    assert_int_equal(store_master_create(&options, 0, &model.master), STATUS_OK);
    model.now = 5000 * MS; /* settled */
    assert_int_equal(store_master_quota(model.master, "a", &one), STATUS_OK);
    assert_int_equal(store_master_quota(model.master, "a b", &one), STATUS_INVALID);
    assert_int_equal(store_master_quota(model.master, "_a", &one), STATUS_INVALID);
    assert_int_equal(try_put(&model, 20, 1), STATUS_DENIED);
    assert_int_equal(try_put(&model, 0, 1), STATUS_DENIED);
    assert_int_equal(
        store_master_put_start(model.master, model.now, 1, key_of(10, text), 1, NULL, &ticket),
        STATUS_UNAVAILABLE); /* it may, but nobody lends */
    store_master_destroy(model.master);
}

/* As many as fit; one more is an answer, and one that has nothing left makes room. */
static void tenants_are_limited(void **state)
{
    struct store_master *master = master_new(1000 * MS);
    const struct store_quota some = { .bytes = 1 }, none = { 0 };
    char name[16];
    (void)state;

    for (unsigned i = 1; i < STORE_TENANTS_MAX; i++) {
        snprintf(name, sizeof(name), "t%u", i);
        assert_int_equal(store_master_quota(master, name, &some), STATUS_OK);
    }
    assert_int_equal(store_master_quota(master, "more", &some), STATUS_FULL);
    assert_int_equal(store_master_quota(master, "t7", &none), STATUS_OK);
    assert_int_equal(store_master_quota(master, "more", &some), STATUS_OK);
    store_master_check(master);
    store_master_destroy(master);
}

/* A group is one tenant's: the same number is another group of another's. */
static void groups_are_a_tenants_own(void **state)
{
    static struct model model;
    (void)state;

    model_init(&model);
    one_node(&model);
    const struct store_wish grouped = { .attributes.group = 7 };
    for (unsigned key = 10; key < 12; key++)
        put_wish(&model, key, 4096, grouped);
    put_wish(&model, 20, 4096, grouped);
    quota(&model, "a", 2 * 4096, 0);
    assert_int_equal(evicted_for(&model, 12, 4096, STATUS_AGAIN), 1u << 10 | 1u << 11);
    store_master_destroy(model.master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_is_not_absent),
        cmocka_unit_test(a_later_term_is_answered_with_a_later_one),
        cmocka_unit_test(the_silent_are_suspected_then_dead_then_forgotten),
        cmocka_unit_test(a_made_up_collision_is_an_absent_key),
        cmocka_unit_test(a_put_end_overtaken_by_events_is_refused),
        cmocka_unit_test(the_least_recently_read_goes_first),
        cmocka_unit_test(room_is_made_ahead),
        cmocka_unit_test(the_policy_says_who_goes),
        cmocka_unit_test(pins_keep),
        cmocka_unit_test(a_group_stays_and_goes_together),
        cmocka_unit_test(a_value_is_replaced_whole),
        cmocka_unit_test(an_owner_out_of_touch_is_waited_for_and_then_doubted),
        cmocka_unit_test(doubt_gives_way),
        cmocka_unit_test(a_node_that_was_away_brings_nothing_old),
        cmocka_unit_test(a_late_commit_does_not_undo_a_removal),
        cmocka_unit_test(only_what_is_lent_to_this_term_is_promised),
        cmocka_unit_test(nodes_remember_for_a_new_master),
        cmocka_unit_test(there_are_as_many_replicas_as_wished),
        cmocka_unit_test(what_a_node_has_goes_elsewhere_before_it_leaves),
        cmocka_unit_test(who_leaves_soon_hands_over_what_matters_first),
        cmocka_unit_test(who_leaves_soon_is_told_when_it_may_go),
        cmocka_unit_test(leases_keep_and_full_is_an_answer),
        cmocka_unit_test(a_walk_in_pages_shows_each_key_once_and_leases_none),
        cmocka_unit_test(a_put_over_quota_evicts_its_tenants_own),
        cmocka_unit_test(what_cannot_go_leaves_a_definite_answer),
        cmocka_unit_test(under_pressure_the_greedy_give_first),
        cmocka_unit_test(a_lowered_quota_is_reached),
        cmocka_unit_test(accounts_outlive_the_master),
        cmocka_unit_test(only_listed_tenants_put_where_that_is_asked),
        cmocka_unit_test(tenants_are_limited),
        cmocka_unit_test(groups_are_a_tenants_own),
        cmocka_unit_test(directory_matches_model),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
