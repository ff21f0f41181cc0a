/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_put.c - what writers ask: a range to write into, and to take a value away. The end
 * of a put is its owner's word (store/master_event.c).
 */
#include "store/master_int.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/rng.h"
#include "store/proto.h"

/* Two members drawn by chance, the roomier first: load follows room without a stampede. Then
 * anyone. */
static struct member *place(struct store_master *master, uint64_t size, const char *preferred,
                            uint64_t *address)
{
    struct member *lenders[STORE_MEMBERS_MAX];
    uint32_t count = 0;

    struct member *member = preferred == NULL ? NULL : master_member_find(master, preferred);
    if (master_member_lends(member, size) &&
        space_alloc(member->space, size, address) == STATUS_OK) {
        return member;
    }
    for (uint32_t i = 0; i < master->members_count; i++) {
        if (master_member_lends(master->by_age[i], size)) lenders[count++] = master->by_age[i];
    }
    if (count == 0) return NULL;
    struct member *a = lenders[rng_below(&master->rng, count)];
    struct member *b = lenders[rng_below(&master->rng, count)];
    if (master_member_room(b) > master_member_room(a)) a = b;
    if (space_alloc(a->space, size, address) == STATUS_OK) return a;
    for (uint32_t i = 0; i < count; i++) {
        if (space_alloc(lenders[i]->space, size, address) == STATUS_OK) return lenders[i];
    }
    return NULL;
}

/* Why there is no room: nobody lends, nobody lends so much, or it is all used. */
static enum status no_room(struct store_master *master, uint64_t now_ns, const struct entry *except,
                           uint64_t size)
{
    bool any = false;
    for (uint32_t i = 0; i < master->members_count; i++) {
        const struct member *member = master->by_age[i];
        if (master_member_lends(member, size))
            return master_make_room(master, now_ns, except, size);
        any = any || master_member_lends(member, 1);
    }
    return any ? STATUS_INVALID : STATUS_UNAVAILABLE;
}

/* The ticket that this writer asked for before and whose answer was lost, while it may still write.
 */
static const struct ticket *ticket_again(const struct store_master *master, uint64_t now_ns,
                                         const struct entry *entry, uint64_t writer, uint64_t size)
{
    const struct ticket *ticket = entry == NULL ? NULL : entry->ticket;
    if (ticket == NULL || ticket->copy) return NULL;
    if (ticket->writer != writer || ticket->size != size) return NULL;
    return now_ns < master_ticket_expires(master, ticket) ? ticket : NULL;
}

/* STATUS_OK: a put may start under this key. */
static enum status put_allowed(struct store_master *master, uint64_t now_ns,
                               const struct entry *entry, bool replace)
{
    bool going = false;
    if (entry == NULL) return master_settled(master, now_ns) ? STATUS_OK : STATUS_AGAIN;
    if (entry->ticket != NULL && !entry->ticket->copy && !replace) return STATUS_EXISTS;
    for (const struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (r->dropping && !(r->stale && replace)) going = true;
        if (r->dropping || r->stale || r->member->state == STORE_MEMBER_DEAD) continue;
        return replace ? STATUS_OK : STATUS_EXISTS;
    }
    return going ? STATUS_AGAIN : STATUS_OK; /* it will be gone; or all its owners are dead */
}

/* Above that of the value there, and of every one on its way. */
static uint32_t version_next(const struct entry *entry)
{
    if (entry == NULL) return 0;
    uint32_t version = master_entry_version(entry);
    if (entry->ticket != NULL && entry->ticket->version > version) version = entry->ticket->version;
    return entry->replicas == NULL && entry->ticket == NULL && version == 0 ? 0 : version + 1;
}

static enum status ticket_start(struct store_master *master, uint64_t now_ns, uint64_t writer,
                                struct store_key key, struct ticket *ticket)
{
    const struct block_key id = store_key_id(key);
    struct entry *entry = master_entry_find(master, &id);

    if (entry != NULL && entry->ticket != NULL) {
        master_ticket_discard(master, now_ns, entry->ticket); /* another writer, pre-empted */
        entry = master_entry_find(master, &id);
    }
    if (entry == NULL) entry = master_entry_new(master, &id, key);
    if (entry == NULL) return STATUS_FULL;
    ticket->writer = writer;
    master_ticket_open(master, now_ns, entry, ticket);
    master->counts.puts_total++;
    return STATUS_OK;
}

enum status store_master_put_start(struct store_master *master, uint64_t now_ns, uint64_t writer,
                                   struct store_key key, uint64_t size,
                                   const struct store_wish *wish, struct store_ticket *out)
{
    static const struct store_wish nothing = { 0 };
    ASSERT(key.len > 0 && key.len <= STORE_KEY_SIZE_MAX);
    const struct block_key id = store_key_id(key);
    const struct entry *entry = master_entry_find(master, &id);
    uint64_t address = 0;

    if (wish == NULL) wish = &nothing;

    if (size == 0 || size > STORE_OBJECT_SIZE_MAX) return STATUS_INVALID;
    if (entry != NULL && entry->key != NULL && !master_entry_is(entry, key)) return STATUS_INVALID;
    const struct ticket *before = ticket_again(master, now_ns, entry, writer, size);
    if (before != NULL) {
        master_ticket_describe(master, before, out);
        return STATUS_OK;
    }
    enum status status = put_allowed(master, now_ns, entry, wish->replace);
    if (status != STATUS_OK) return status;
    if (entry != NULL && entry->key == NULL) return STATUS_EXISTS; /* a block */

    struct member *member = place(master, size, wish->preferred, &address);
    if (member == NULL) {
        status = no_room(master, now_ns, entry, size);
        if (status == STATUS_FULL) master->counts.refused_full_total++;
        return status;
    }
    struct ticket *ticket = calloc(1, sizeof(*ticket));
    status = STATUS_FULL;
    if (ticket != NULL) {
        ticket->member = member;
        ticket->address = address;
        ticket->size = size;
        ticket->soft_pin_ms = wish->soft_pin_ms;
        ticket->version = version_next(entry);
        status = ticket_start(master, now_ns, writer, key, ticket);
    }
    if (status != STATUS_OK) {
        space_free(member->space, address, size);
        free(ticket);
        return status;
    }
    master_ticket_describe(master, ticket, out);
    return STATUS_OK;
}

enum status store_master_put_revoke(struct store_master *master, uint64_t now_ns, uint64_t writer,
                                    struct store_key key, uint64_t put_id)
{
    const struct entry *entry = master_entry_lookup(master, key);
    if (entry == NULL || entry->ticket == NULL || entry->ticket->put_id != put_id) {
        return STATUS_NOT_FOUND;
    }
    if (entry->ticket->copy || entry->ticket->writer != writer) return STATUS_DENIED;
    master_ticket_discard(master, now_ns, entry->ticket);
    return STATUS_OK;
}

enum status store_master_remove(struct store_master *master, uint64_t now_ns, struct store_key key,
                                bool force)
{
    ASSERT(key.len > 0 && key.len <= STORE_KEY_SIZE_MAX);
    struct entry *entry = master_entry_lookup(master, key);
    const enum status status = master_entry_state(master, now_ns, entry);

    if (status != STATUS_OK) return status;
    if (entry->ticket != NULL) return STATUS_BUSY;
    if (entry->key == NULL) return STATUS_DENIED; /* blocks are their nodes' to evict */
    if (!force && entry->lease_until > now_ns) return STATUS_BUSY;
    for (struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (!r->dropping && !master_replica_drop(master, r)) return STATUS_FULL;
    }
    entry->removing = true;
    master->counts.removes_total++;
    return STATUS_OK;
}
