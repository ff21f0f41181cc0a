/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_put.c - what writers ask: a range to write into, and to take a value away. The end
 * of a put is its owner's word (store/master_event.c).
 */
#include "store/master_int.h"

#include "base/assert.h"
#include "store/node_trust.h"
#include "store/proto.h"

/* Why there is no room: nobody lends, nobody lends so much, or it is all used. */
static enum status no_room(struct store_master *master, uint64_t now_ns,
                           const struct store_name *name, uint64_t size)
{
    const struct entry *except = master_entry_find(master, &name->id);
    const struct tenant *tenant = master_tenant_find(master, name->key);
    bool any = false;
    for (uint32_t i = 0; i < master->members_count; i++) {
        const struct member *member = master->by_age[i];
        if (master_member_lends(member, size))
            return master_make_room(master, now_ns, tenant, except, size);
        any = any || master_member_lends(member, 1);
    }
    return any ? STATUS_INVALID : STATUS_UNAVAILABLE;
}

/* The ticket that this writer asked for before and whose answer was lost, while it may still write.
 */
static const struct ticket *ticket_again(const struct store_master *master, uint64_t now_ns,
                                         const struct entry *entry, uint64_t writer, uint64_t size)
{
    const struct ticket *ticket = entry == NULL ? NULL : master_entry_ticket(master, entry);
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
    if (entry->ticket != 0 && !master_entry_ticket(master, entry)->copy && !replace)
        return STATUS_EXISTS;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (r->dropping && !(r->stale && replace)) going = true;
        if (r->dropping || r->stale || master_member_with(master, r)->state == STORE_MEMBER_DEAD)
            continue;
        if (!master_replica_sure(master, r)) return STATUS_AGAIN;
        return replace ? STATUS_OK : STATUS_EXISTS;
    }
    return going ? STATUS_AGAIN : STATUS_OK; /* it will be gone; or all its owners are dead */
}

/* Above that of the value there, of every one on its way, and of all that are remembered. */
static uint32_t version_next(const struct store_master *master, const struct block_key *id,
                             const struct entry *entry)
{
    const uint32_t dead = tombs_floor(&master->dead, id).version;
    const uint32_t issued = tombs_floor(&master->issued, id).version;
    const uint32_t least = dead > issued ? dead : issued;

    if (entry == NULL) return least;
    uint32_t version = master_entry_version(entry);
    if (entry->ticket != 0 && master_entry_ticket(master, entry)->version > version)
        version = master_entry_ticket(master, entry)->version;
    if (entry->replicas == 0 && entry->ticket == 0 && version == 0) return least;
    return version + 1 > least ? version + 1 : least;
}

/* The range becomes a ticket of the key. NULL: no memory, or too many objects. */
static struct ticket *ticket_start(struct store_master *master, uint64_t now_ns,
                                   const struct store_name *name, struct member *member,
                                   uint64_t address, uint64_t size)
{
    struct entry *entry = master_entry_find(master, &name->id);
    const uint32_t version = version_next(master, &name->id, entry);

    if (entry != NULL && entry->ticket != 0) { /* another writer, pre-empted */
        master_ticket_discard(master, now_ns, master_entry_ticket(master, entry));
        entry = master_entry_find(master, &name->id);
    }
    if (entry == NULL) entry = master_entry_new(master, &name->id, name->key);
    if (entry == NULL) return NULL;
    struct ticket *ticket = master_ticket_new(master, now_ns, entry, member, address, size);
    if (ticket == NULL) {
        master_entry_settle(master, entry);
        return NULL;
    }
    ticket->version = version;
    return ticket;
}

/* STATUS_OK: the key may be put under. *again: the ticket that the writer has already, or NULL. */
static enum status put_check(struct store_master *master, uint64_t now_ns, uint64_t writer,
                             const struct store_name *name, uint64_t size, bool replace,
                             const struct ticket **again)
{
    const struct entry *entry = master_entry_find(master, &name->id);
    const bool block = entry != NULL && master_entry_block(entry);

    *again = NULL;
    if (size == 0 || size > STORE_OBJECT_SIZE_MAX) return STATUS_INVALID;
    if (entry != NULL && !block && !master_entry_is(master, entry, name->key)) {
        return STATUS_INVALID;
    }
    *again = ticket_again(master, now_ns, entry, writer, size);
    if (*again != NULL) return STATUS_OK;
    const enum status status = put_allowed(master, now_ns, entry, replace);
    return status == STATUS_OK && block ? STATUS_EXISTS : status;
}

const uint64_t store_put_size_bounds[STORE_PUT_SIZES - 1] = {
    4 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20,
};

static void put_counted(struct store_master_counts *counts, uint64_t size)
{
    uint32_t place = 0;
    while (place < STORE_PUT_SIZES - 1 && size > store_put_size_bounds[place])
        place++;
    counts->put_sizes[place]++;
    counts->put_bytes_total += size;
    counts->puts_total++;
}

enum status store_master_put_start_name(struct store_master *master, uint64_t now_ns,
                                        uint64_t writer, const struct store_name *name,
                                        uint64_t size, const struct store_wish *wish,
                                        struct store_ticket *out)
{
    static const struct store_wish nothing = { 0 };
    const struct ticket *again;
    uint64_t address = 0;
    ASSERT(name->key.len > 0 && name->key.len <= STORE_KEY_SIZE_MAX);

    if (wish == NULL) wish = &nothing;
    enum status status = put_check(master, now_ns, writer, name, size, wish->replace, &again);
    if (status != STATUS_OK) return status;
    if (again != NULL) {
        master_ticket_describe(master, again, out);
        return STATUS_OK;
    }
    status = master_tenant_admit(master, now_ns, name, size);
    if (status != STATUS_OK) return status;
    struct member *member = master_place(master, now_ns, size, wish, &address);
    if (member == NULL) {
        status = no_room(master, now_ns, name, size);
        if (status == STATUS_FULL) member = master_place_barred(master, now_ns, size, &address);
    }
    if (member == NULL) {
        if (status == STATUS_FULL) master->counts.refused_full_total++;
        return status;
    }
    struct ticket *ticket = ticket_start(master, now_ns, name, member, address, size);
    if (ticket == NULL) {
        space_free(member->space, address, size);
        return STATUS_FULL;
    }
    ticket->writer = writer;
    ticket->hard_pin = master_entry_hard(ticket->entry); /* of a new one there is none */
    ticket->soft_pin_ms =
        wish->soft_pin_ms < STORE_SOFT_PIN_MS_MAX ? wish->soft_pin_ms : STORE_SOFT_PIN_MS_MAX;
    if (wish->soft_pin_off) ticket->soft_pin_ms = MASTER_SOFT_PIN_OFF;
    ticket->write_ms = wish->write_ms;
    put_counted(&master->counts, size);
    master_room_ahead(master, now_ns, member, ticket->entry);
    master_ticket_describe(master, ticket, out);
    return STATUS_OK;
}

enum status store_master_put_start(struct store_master *master, uint64_t now_ns, uint64_t writer,
                                   struct store_key key, uint64_t size,
                                   const struct store_wish *wish, struct store_ticket *out)
{
    const struct store_name name = { key, store_key_id(key) };
    return store_master_put_start_name(master, now_ns, writer, &name, size, wish, out);
}

enum status store_master_put_revoke(struct store_master *master, uint64_t now_ns, uint64_t writer,
                                    struct store_key key, uint64_t put_id)
{
    const struct entry *entry = master_entry_lookup(master, key);
    struct ticket *ticket = entry == NULL ? NULL : master_entry_ticket(master, entry);

    if (ticket == NULL || ticket->put_id != put_id) return STATUS_NOT_FOUND;
    if (ticket->copy || ticket->writer != writer) return STATUS_DENIED;
    if (ticket->write_ms > 0) { /* layer by layer: whoever computes them may have stopped */
        master_member_put_given_up(ticket->member, now_ns);
    } else {
        master_member_failed(master, ticket->member, now_ns);
    }
    master_ticket_discard(master, now_ns, ticket);
    return STATUS_OK;
}

enum status store_master_remove(struct store_master *master, uint64_t now_ns, struct store_key key,
                                bool force)
{
    ASSERT(key.len > 0 && key.len <= STORE_KEY_SIZE_MAX);
    struct entry *entry = master_entry_lookup(master, key);
    const enum status status = master_entry_state(master, now_ns, entry);

    if (status == STATUS_BUSY) return STATUS_EXISTS; /* BUSY is what readers have */
    if (status != STATUS_OK) return status;
    struct ticket *ticket = entry->ticket != 0 ? master_entry_ticket(master, entry) : NULL;
    if (ticket != NULL && !ticket->copy) return STATUS_EXISTS;
    if (master_entry_block(entry)) return STATUS_DENIED; /* blocks are their nodes' to evict */
    if (!force && entry->lease_until > now_ns) return STATUS_BUSY;
    /* What it lands all the same is no newer than what is removed. */
    if (ticket != NULL) master_ticket_discard(master, now_ns, ticket);
    for (struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (!r->dropping && !master_replica_drop(master, r, false)) return STATUS_FULL;
    }
    const uint32_t issued = tombs_floor(&master->issued, &entry->id).version;
    const uint32_t version = master_entry_version(entry) + 1;
    tombs_raise(&master->dead, &entry->id,
                (struct rank){ master->term, version > issued ? version : issued });
    entry->removing = true;
    master->counts.removes_total++;
    return STATUS_OK;
}

enum status store_master_removed(const struct store_master *master, uint64_t now_ns,
                                 const struct block_key *id)
{
    const struct entry *entry = master_entry_find(master, id);
    if (entry == NULL || !entry->removing) return STATUS_OK;
    const uint64_t lease = master_ms(master->options.lease_ms);
    if (now_ns + lease >= entry->lease_until + master_ms(STORE_KNOWN_MS)) return STATUS_OK;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (!r->dropping || r->busy) continue;
        const struct member *owner = master_member_with(master, r);
        if (now_ns < owner->heard_ns + master_ms(NODE_VOUCH_MS)) return STATUS_AGAIN;
    }
    return STATUS_OK;
}
