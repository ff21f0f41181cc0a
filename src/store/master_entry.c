/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_entry.c - the keys of the directory, what is kept of the wishes they were put with,
 * and their place in an order of eviction. The entries lie in a slab, so that they can be walked in
 * pages; the map finds them by identity.
 */
#include "store/master_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "store/proto.h"

static struct order *entry_order(const struct store_master *master, const struct entry *entry)
{
    const bool soft = entry->extra != NULL && entry->extra->soft_until != 0;
    const struct tenant *tenant = master_tenant_at(master, entry->tenant);
    return soft ? tenant->soft : tenant->order;
}

static struct order_weight entry_weight(const struct entry *entry)
{
    struct order_weight weight = { .size = entry->size };
    if (entry->extra == NULL) return weight;
    weight.cost = entry->extra->attributes.cost;
    weight.depth = entry->extra->attributes.depth;
    weight.deadline = entry->extra->soft_until;
    return weight;
}

void master_entry_used(struct store_master *master, struct entry *entry)
{
    const struct order_weight weight = entry_weight(entry);
    if (order_has(&entry->order)) order_use(entry_order(master, entry), &entry->order, &weight);
}

static void order_leave(struct store_master *master, struct entry *entry)
{
    if (order_has(&entry->order)) order_remove(entry_order(master, entry), &entry->order);
}

/* I3: in an order exactly when there is a placed replica and no hard pin. */
void master_entry_reorder(struct store_master *master, struct entry *entry)
{
    const struct order_weight weight = entry_weight(entry);
    bool placed = false;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        placed = placed || r->placed;
    }
    if (!placed || master_entry_hard(entry)) {
        order_leave(master, entry);
    } else if (!order_has(&entry->order)) {
        const enum status status = order_add(entry_order(master, entry), &entry->order, &weight);
        if (status != STATUS_OK) return; /* no memory: it is just not evicted */
    }
}

static void soft_pin(struct store_master *master, struct entry *entry, uint64_t until)
{
    order_leave(master, entry);
    entry->extra->soft_until = until;
    master_entry_reorder(master, entry);
}

void master_soft_pin_from(struct store_master *master, uint64_t now_ns, struct entry *entry,
                          uint32_t for_ms)
{
    if (for_ms > STORE_SOFT_PIN_MS_MAX) for_ms = STORE_SOFT_PIN_MS_MAX;
    if (master_entry_extra(entry) != NULL) soft_pin(master, entry, now_ns + master_ms(for_ms));
}

void master_soft_pin_off(struct store_master *master, struct entry *entry)
{
    if (entry->extra != NULL && entry->extra->soft_until != 0) soft_pin(master, entry, 0);
}

static void soft_pins_end(struct store_master *master, uint64_t now_ns, const struct tenant *tenant)
{
    struct entry *entry = master_entry_of(order_first(tenant->soft));
    while (entry != NULL && entry->extra->soft_until <= now_ns) {
        soft_pin(master, entry, 0);
        entry = master_entry_of(order_first(tenant->soft));
    }
}

void master_soft_pins_end(struct store_master *master, uint64_t now_ns)
{
    for (uint32_t i = 0; i < master->tenants_top; i++) {
        if (master->tenants[i] != NULL) soft_pins_end(master, now_ns, master->tenants[i]);
    }
}

struct entry *master_entry_find(const struct store_master *master, const struct block_key *id)
{
    const uint32_t number = idmap_find(master->ids, id);
    return number == SLAB_NONE ? NULL : master_entry_at(master, number);
}

/* ---- keys ---- */

/* Keys whose lengths round up to the same multiple of 8 share a slab. */
static uint32_t key_class(uint32_t len)
{
    ASSERT(len > 0 && len <= STORE_KEY_SIZE_MAX);
    return (len - 1) / 8;
}

const uint8_t *master_entry_key(const struct store_master *master, const struct entry *entry)
{
    ASSERT(entry->key > 0);
    return slab_at(master->keys[key_class(entry->key_len)], entry->key - 1);
}

/* False: no memory. */
static bool key_keep(struct store_master *master, struct entry *entry, struct store_key key)
{
    struct slab **slab = &master->keys[key_class(key.len)];
    uint32_t number;
    if (*slab == NULL) {
        *slab = slab_create(8 * (key_class(key.len) + 1), master->options.objects_max);
    }
    uint8_t *bytes = *slab == NULL ? NULL : slab_alloc(*slab, &number);
    if (bytes == NULL) return false;
    if (!master_tenant_join(master, entry, key)) {
        slab_free(*slab, number);
        return false;
    }
    memcpy(bytes, key.bytes, key.len);
    entry->key = number + 1;
    entry->key_len = key.len & (2 * STORE_KEY_SIZE_MAX - 1);
    master->counts.values++;
    return true;
}

static void key_drop(struct store_master *master, struct entry *entry)
{
    if (master_entry_block(entry)) return;
    ASSERT(master->counts.values > 0);
    master->counts.values--;
    slab_free(master->keys[key_class(entry->key_len)], entry->key - 1);
    entry->key = 0;
    master_tenant_leave(master, entry);
}

bool master_entry_is(const struct store_master *master, const struct entry *entry,
                     struct store_key key)
{
    if (master_entry_block(entry)) return key.len == BLOCK_KEY_SIZE; /* its id is the key */
    return entry->key_len == key.len &&
           memcmp(master_entry_key(master, entry), key.bytes, key.len) == 0;
}

struct entry *master_entry_lookup(const struct store_master *master, struct store_key key)
{
    const struct block_key id = store_key_id(key);
    struct entry *entry = master_entry_find(master, &id);
    return entry != NULL && master_entry_is(master, entry, key) ? entry : NULL;
}

/* ---- entries ---- */

static void entry_free(struct store_master *master, struct entry *entry)
{
    key_drop(master, entry);
    free(entry->extra);
    slab_free(master->entries, entry->index);
}

struct entry *master_entry_new(struct store_master *master, const struct block_key *id,
                               struct store_key key)
{
    uint32_t index;
    struct entry *entry = slab_alloc(master->entries, &index);
    if (entry == NULL) return NULL;
    entry->id = *id;
    entry->index = index;
    const bool kept = key.len == 0 || key_keep(master, entry, key);
    if (!kept || idmap_add(master->ids, index) != STATUS_OK) {
        entry_free(master, entry);
        return NULL;
    }
    master->counts.objects++;
    return entry;
}

struct extra *master_entry_extra(struct entry *entry)
{
    if (entry->extra == NULL) entry->extra = calloc(1, sizeof(*entry->extra));
    return entry->extra;
}

static bool attributes_any(const struct store_attributes *a)
{
    return a->group != 0 || a->version != 0 || a->cost != 0 || a->depth != 0 || a->replicas != 0 ||
           a->hard_pin || a->hot;
}

void master_entry_keep(struct store_master *master, struct entry *entry,
                       const struct store_attributes *attributes)
{
    if (entry->extra == NULL && !attributes_any(attributes)) return;
    if (master_entry_extra(entry) == NULL) return; /* it is kept like any other */
    if (entry->extra->group != NULL && entry->extra->attributes.group != attributes->group) {
        master_group_leave(master, entry);
    }
    entry->extra->attributes = *attributes;
    if (entry->extra->group == NULL) master_group_join(master, entry);
    master_entry_reorder(master, entry);
}

uint32_t master_entry_version(const struct entry *entry)
{
    return entry->extra == NULL ? 0 : entry->extra->attributes.version;
}

struct rank master_entry_rank(const struct store_master *master, const struct entry *entry)
{
    return master_rank(master, (struct rank){ entry->term, master_entry_version(entry) });
}

uint32_t master_entry_wished(const struct entry *entry)
{
    const uint32_t count = entry->extra == NULL ? 0 : entry->extra->attributes.replicas;
    return count == 0 ? 1 : count < STORE_REPLICAS_MAX ? count : STORE_REPLICAS_MAX;
}

uint32_t master_entry_wanted(const struct entry *entry)
{
    const uint32_t count =
        master_entry_wished(entry) + (entry->extra == NULL ? 0u : entry->extra->hot);
    return count < STORE_REPLICAS_MAX ? count : STORE_REPLICAS_MAX;
}

/* I6. A value that replaced none that we knew takes no place of one that did, or was removed. */
static void entry_bury(struct store_master *master, const struct entry *entry)
{
    const struct rank rank = master_entry_rank(master, entry);
    if (rank.version > 0) {
        tombs_raise(&master->dead, &entry->id, rank);
    } else if (rank.term == master->term && !entry->removing) { /* else `dead` has it */
        tombs_raise(&master->evicted, &entry->id, rank);
    }
}

void master_entry_settle(struct store_master *master, struct entry *entry)
{
    master_entry_reorder(master, entry);
    if (entry->replicas != 0 || entry->ticket != 0) return;
    master_group_leave(master, entry);
    master_task_forget(master, entry);
    master_copies_forget(master, entry);
    master_hot_forget(master, entry);
    ASSERT(master->counts.objects > 0);
    entry_bury(master, entry);
    idmap_remove(master->ids, entry->index);
    master->counts.objects--;
    entry_free(master, entry);
}
