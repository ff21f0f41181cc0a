/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_ticket.c - puts in progress. A ticket owns a range of a node's space until its
 * owner has committed (then the range is the replica's), or until it is given up and waits in limbo
 * for as long as somebody could still write there:
 *
 *               committed
 *     open ---------------------> (the replica's)
 *      |  discarded                     ^
 *      v                 committed late |
 *    limbo -----------------------------+---> (free) fence_ms after the writer's time, which is
 *                                               put_ms, or up to discard_ms if it asked for more
 *
 * A copy that its source did not begin has no writer, and needs no limbo. Both lists are in the
 * order of due_ns.
 */
#include "store/master_int.h"

#include "base/assert.h"
#include "base/rng.h"

static uint64_t ticket_bytes(const struct ticket *ticket)
{
    return (uint64_t)master_granules(ticket->size) * SPACE_GRANULE;
}

static void ticket_append(struct ticket_list *list, struct ticket *ticket)
{
    ticket->prev = list->tail;
    ticket->next = NULL;
    if (list->tail == NULL) {
        list->head = ticket;
    } else {
        list->tail->next = ticket;
    }
    list->tail = ticket;
    list->count++;
    list->bytes += ticket_bytes(ticket);
}

/* Where its due_ns belongs: nearly always at the end. */
static void ticket_insert(struct ticket_list *list, struct ticket *ticket)
{
    struct ticket *before = list->tail;
    while (before != NULL && before->due_ns > ticket->due_ns)
        before = before->prev;
    struct ticket *after = before == NULL ? list->head : before->next;
    ticket->prev = before;
    ticket->next = after;
    if (before == NULL) {
        list->head = ticket;
    } else {
        before->next = ticket;
    }
    if (after == NULL) {
        list->tail = ticket;
    } else {
        after->prev = ticket;
    }
    list->count++;
    list->bytes += ticket_bytes(ticket);
}

static void ticket_unlink(struct ticket_list *list, struct ticket *ticket)
{
    ASSERT(list->count > 0);
    if (ticket->prev == NULL) {
        list->head = ticket->next;
    } else {
        ticket->prev->next = ticket->next;
    }
    if (ticket->next == NULL) {
        list->tail = ticket->prev;
    } else {
        ticket->next->prev = ticket->prev;
    }
    list->count--;
    list->bytes -= ticket_bytes(ticket);
}

void master_ticket_discard(struct store_master *master, uint64_t now_ns, struct ticket *ticket)
{
    struct entry *entry = ticket->entry;
    ASSERT(master_entry_ticket(master, entry) == ticket);

    if (ticket->copy) {
        master_copies_ended(master, ticket);
    } else {
        tombs_raise(&master->issued, &entry->id,
                    (struct rank){ master->term, ticket->version + 1 });
    }
    const uint64_t expires = master_ticket_expires(master, ticket);
    const uint64_t least = now_ns + master_ms(master->options.put_ms);
    ticket_unlink(&master->tickets, ticket);
    entry->ticket = 0;
    ticket->entry = NULL;
    ticket->due_ns = (expires > least ? expires : least) + master_ms(master->options.fence_ms);
    ticket_insert(&master->limbo, ticket);
    master_entry_settle(master, entry);
}

/* The put has come to its end: its range is the replica's now. */
void master_ticket_finish(struct store_master *master, struct ticket *ticket)
{
    master_tenant_credit(master, ticket->tenant, ticket_bytes(ticket));
    if (ticket->entry != NULL) {
        ASSERT(master_entry_ticket(master, ticket->entry) == ticket);
        ticket->entry->ticket = 0;
        if (ticket->copy) master_copies_ended(master, ticket);
        ticket_unlink(&master->tickets, ticket);
    } else {
        ticket_unlink(&master->limbo, ticket);
    }
    slab_free(master->tickets_slab, ticket->index);
}

void master_ticket_withdraw(struct store_master *master, struct ticket *ticket)
{
    struct entry *entry = ticket->entry;
    space_free(ticket->member->space, ticket->address, ticket->size);
    master_ticket_finish(master, ticket);
    master_entry_settle(master, entry);
}

/* From now on the ticket is the entry's. */
struct ticket *master_ticket_new(struct store_master *master, uint64_t now_ns, struct entry *entry,
                                 struct member *member, uint64_t address, uint64_t size)
{
    uint32_t number;
    struct ticket *ticket = slab_alloc(master->tickets_slab, &number);
    if (ticket == NULL) return NULL;
    ASSERT(entry->ticket == 0);
    ticket->index = number;
    ticket->id = entry->id;
    ticket->entry = entry;
    ticket->member = member;
    ticket->address = address;
    ticket->size = size;
    ticket->put_id = rng_counter(master->options.seed ^ master->term, ++master->puts_made) | 1;
    ticket->due_ns = now_ns + master_ms(master->options.discard_ms);
    ticket->tenant = entry->tenant;
    entry->ticket = number + 1;
    ticket_append(&master->tickets, ticket);
    master_tenant_charge(master, ticket->tenant, ticket_bytes(ticket));
    return ticket;
}

void master_tickets_forget(struct store_master *master, const struct member *member)
{
    struct ticket *next;
    for (struct ticket *ticket = master->tickets.head; ticket != NULL; ticket = next) {
        next = ticket->next;
        if (ticket->member != member) continue;
        struct entry *entry = ticket->entry;
        master_ticket_finish(master, ticket);
        master_entry_settle(master, entry);
    }
    for (struct ticket *ticket = master->limbo.head; ticket != NULL; ticket = next) {
        next = ticket->next;
        if (ticket->member == member) master_ticket_finish(master, ticket);
    }
}

uint64_t master_ticket_expires(const struct store_master *master, const struct ticket *ticket)
{
    const uint32_t most = master->options.discard_ms;
    const uint32_t least = master->options.put_ms;
    const uint32_t wished = ticket->write_ms < most ? ticket->write_ms : most;
    return ticket->due_ns - master_ms(most) + master_ms(wished > least ? wished : least);
}

void master_ticket_describe(const struct store_master *master, const struct ticket *ticket,
                            struct store_ticket *out)
{
    out->put_id = ticket->put_id;
    out->version = ticket->version;
    out->term = master->term;
    out->expires_ns = master_ticket_expires(master, ticket);
    out->hard_pin = ticket->hard_pin;
    master_replica_describe(ticket->member, ticket->address, 0, &out->where);
}
