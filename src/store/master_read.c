/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_read.c - what readers ask: is it there, who has it, what is there at all. Whoever
 * is told that a value is there has a lease on it.
 */
#include "store/master_int.h"

#include "base/assert.h"
#include "store/proto.h"

enum { WAS_READ_MAX = 1 << 16 }; /* that one question may tell of a value */

enum status master_entry_state(const struct store_master *master, uint64_t now_ns,
                               const struct entry *entry)
{
    bool dead = false;
    bool doubt = false;
    if (entry == NULL) return master_settled(master, now_ns) ? STATUS_NOT_FOUND : STATUS_AGAIN;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (master_replica_sure(master, r)) return STATUS_OK;
        if (master_replica_readable(master, r)) doubt = true;
        if (!r->dropping && !r->stale) dead = true;
    }
    if (doubt) return STATUS_AGAIN;
    if (entry->ticket != 0) return STATUS_BUSY;
    return dead ? STATUS_UNAVAILABLE : STATUS_NOT_FOUND;
}

/* Whether a read at this time changes the order of eviction. Where only the last read counts, one
 * that follows another within half a lease does not: the value cannot go before the lease is over,
 * and its neighbours in the order need not be brought from memory. */
static bool read_counts(const struct store_master *master, uint64_t now_ns,
                        const struct entry *entry)
{
    const uint64_t half = master_ms(master->options.lease_ms) / 2;
    return master->options.eviction != ORDER_LRU || entry->lease_until <= now_ns + half;
}

static void lease_renew(struct store_master *master, uint64_t now_ns, struct entry *entry)
{
    const uint64_t until = now_ns + master_ms(master->options.lease_ms);
    if (read_counts(master, now_ns, entry)) master_entry_used(master, entry);
    if (until > entry->lease_until) entry->lease_until = until;
}

/* Who reads one of a group is about to read the others: they are leased with it, all of them at
 * most twice in the time of a lease. */
static void lease_grant(struct store_master *master, uint64_t now_ns, struct entry *entry)
{
    const uint64_t lease = master_ms(master->options.lease_ms);
    struct group *group = entry->extra == NULL ? NULL : entry->extra->group;

    lease_renew(master, now_ns, entry);
    if (group == NULL || group->lease_until > now_ns + lease / 2) return;
    group->lease_until = now_ns + lease;
    for (struct entry *e = group->members; e != NULL; e = e->extra->group_next) {
        if (e != entry) lease_renew(master, now_ns, e);
    }
}

/* A collision of identities is an absent key. */
static struct entry *entry_named(const struct store_master *master, const struct store_name *name)
{
    struct entry *entry = master_entry_find(master, &name->id);
    return entry != NULL && master_entry_is(master, entry, name->key) ? entry : NULL;
}

/* Counts the question, and leases what is there. */
static enum status entry_read(struct store_master *master, uint64_t now_ns,
                              const struct store_name *name, struct entry **out)
{
    ASSERT(name->key.len > 0 && name->key.len <= STORE_KEY_SIZE_MAX);
    *out = entry_named(master, name);
    const enum status status = master_entry_state(master, now_ns, *out);
    master->counts.reads_total++;
    if (status != STATUS_OK) return status;
    master->counts.hits_total++;
    lease_grant(master, now_ns, *out);
    return STATUS_OK;
}

/* ---- what is about to be read ---- */

/* A record may lie across two lines of the cache. */
static void prefetch(const void *record, size_t size)
{
    __builtin_prefetch(record);
    __builtin_prefetch((const uint8_t *)record + size - 1);
}

void store_master_expect_name(const struct store_master *master, const struct store_name *name)
{
    idmap_prefetch(master->ids, &name->id);
}

void store_master_expect_entries(const struct store_master *master, const struct store_name *names,
                                 uint32_t count, struct store_expected *out)
{
    ASSERT(count <= STORE_EXPECT_MAX);
    out->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t number = idmap_guess(master->ids, &names[i].id);
        if (number == SLAB_NONE) continue;
        const struct entry *entry = master_entry_at(master, number);
        prefetch(entry, sizeof(*entry));
        out->entries[out->count++] = entry;
    }
}

/* The order of eviction is a list, in which whatever is read moves. */
void store_master_expect_rest(const struct store_master *master, uint64_t now_ns,
                              const struct store_expected *expected)
{
    for (uint32_t i = 0; i < expected->count; i++) {
        const struct entry *entry = expected->entries[i];
        if (read_counts(master, now_ns, entry))
            order_prefetch(master->tenants[0]->order, &entry->order);
        if (entry->replicas != 0)
            prefetch(master_replica_first(master, entry), sizeof(struct replica));
        if (!master_entry_block(entry)) prefetch(master_entry_key(master, entry), entry->key_len);
    }
}

/* ---- questions ---- */

enum status store_master_exist_name(struct store_master *master, uint64_t now_ns,
                                    const struct store_name *name)
{
    struct entry *entry;
    return entry_read(master, now_ns, name, &entry);
}

enum status store_master_exist(struct store_master *master, uint64_t now_ns, struct store_key key)
{
    const struct store_name name = { key, store_key_id(key) };
    return store_master_exist_name(master, now_ns, &name);
}

/* How many are as good as the first. */
static uint32_t entry_describe(const struct store_master *master, uint64_t now_ns,
                               const struct entry *entry, struct store_object *out)
{
    uint32_t alike = 0;
    out->size = entry->size;
    out->digest = entry->digest;
    out->replicas_count = 0;
    for (int rank = 0; rank < 4; rank++) { /* the alive ones first, in memory before on disk */
        for (const struct replica *r = master_replica_first(master, entry); r != NULL;
             r = master_replica_next(master, r)) {
            const struct member *member = master_member_with(master, r);
            const int suspect = member->state == STORE_MEMBER_SUSPECT;
            if (!master_replica_readable(master, r) || 2 * suspect + r->disk != rank) continue;
            ASSERT(out->replicas_count < STORE_REPLICAS_MAX);
            struct store_replica *replica = &out->replicas[out->replicas_count++];
            master_replica_describe(member, r->address, r->generation, replica);
            replica->disk = r->disk;
            replica->yields = suspect || master_member_barred(member, now_ns);
        }
        if (alike == 0) alike = out->replicas_count;
    }
    return alike;
}

/* Readers take the first that serves, or one on their host that does not yield: any of those that
 * are as good is the first, and those that are busy less often; they yield as often. */
static void readers_spread(struct store_master *master, struct store_object *out, uint32_t alike)
{
    if (alike < 2) return;
    for (uint32_t i = 0; i < alike; i++) {
        const struct member *one = master_member_at(master, out->replicas[i].node);
        if (!master_member_keeps(&master->hot_rng, one)) out->replicas[i].yields = true;
    }
    uint64_t which = rng_below(&master->hot_rng, alike);
    const struct member *member = master_member_at(master, out->replicas[which].node);
    if (!master_member_keeps(&master->hot_rng, member)) which = rng_below(&master->hot_rng, alike);
    const struct store_replica first = out->replicas[0];
    out->replicas[0] = out->replicas[which];
    out->replicas[which] = first;
}

void store_master_was_read(struct store_master *master, uint64_t now_ns,
                           const struct store_name *name, uint32_t times)
{
    if (times > WAS_READ_MAX) times = WAS_READ_MAX;
    while (master->hot_skip != 0 && times >= master->hot_skip) {
        struct entry *entry = entry_named(master, name);
        if (entry == NULL) return;
        times -= master->hot_skip;
        master_hot_sampled(master, now_ns, entry);
    }
    if (master->hot_skip != 0) master->hot_skip -= times;
}

enum status store_master_get_name(struct store_master *master, uint64_t now_ns,
                                  const struct store_name *name, struct store_object *out)
{
    struct entry *entry;
    const enum status status = entry_read(master, now_ns, name, &entry);
    if (status != STATUS_OK) return status;
    readers_spread(master, out, entry_describe(master, now_ns, entry, out));
    master_hot_read(master, now_ns, entry);
    return STATUS_OK;
}

enum status store_master_get(struct store_master *master, uint64_t now_ns, struct store_key key,
                             struct store_object *out)
{
    const struct store_name name = { key, store_key_id(key) };
    return store_master_get_name(master, now_ns, &name, out);
}

enum status store_master_peek(const struct store_master *master, uint64_t now_ns,
                              struct store_key key, struct store_object *out)
{
    ASSERT(key.len > 0 && key.len <= STORE_KEY_SIZE_MAX);
    const struct entry *entry = master_entry_lookup(master, key);
    const enum status status = master_entry_state(master, now_ns, entry);
    if (status == STATUS_OK) (void)entry_describe(master, now_ns, entry, out);
    return status;
}

uint64_t store_master_walk(const struct store_master *master, uint64_t now_ns, uint64_t cursor,
                           uint32_t looks_max,
                           bool (*visit)(void *ctx, const struct store_listed *listed), void *ctx)
{
    uint32_t index = cursor > SLAB_NONE ? SLAB_NONE : cursor == 0 ? 0 : (uint32_t)cursor - 1;
    ASSERT(looks_max > 0);

    for (uint32_t looks = 0; (index = slab_next(master->entries, index)) != SLAB_NONE; index++) {
        const struct entry *entry = slab_at(master->entries, index);
        const bool block = master_entry_block(entry);
        const uint64_t lease = entry->lease_until;
        const struct store_listed listed = {
            .key = { block ? entry->id.bytes : master_entry_key(master, entry),
                     block ? BLOCK_KEY_SIZE : (uint32_t)entry->key_len },
            .class = block ? STORE_CLASS_BLOCK : STORE_CLASS_OBJECT,
            .status = master_entry_state(master, now_ns, entry),
            .size = entry->replicas == 0 ? master_entry_ticket(master, entry)->size : entry->size,
            .replicas = entry->replicas_count,
            .lease_ns = lease > now_ns ? lease - now_ns : 0,
            .hard_pin = master_entry_hard(entry),
            .soft_pin = entry->extra != NULL && entry->extra->soft_until > now_ns,
        };
        if (looks++ == looks_max || !visit(ctx, &listed)) return (uint64_t)index + 1;
    }
    return 0;
}
