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
 *    limbo -----------------------------+---> (free) after put_ms + fence_ms
 *
 * Both lists are in the order of due_ns.
 */
#include "store/master_int.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/rng.h"

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
}

void master_ticket_list_free(struct ticket_list *list)
{
    struct ticket *next;
    for (struct ticket *ticket = list->head; ticket != NULL; ticket = next) {
        next = ticket->next;
        free(ticket);
    }
}

void master_ticket_discard(struct store_master *master, uint64_t now_ns, struct ticket *ticket)
{
    struct entry *entry = ticket->entry;
    ASSERT(entry->ticket == ticket);

    if (ticket->copy) master_copies_ended(master, ticket);
    ticket_unlink(&master->tickets, ticket);
    entry->ticket = NULL;
    ticket->entry = NULL;
    ticket->due_ns =
        now_ns + master_ms(master->options.put_ms) + master_ms(master->options.fence_ms);
    ticket_append(&master->limbo, ticket);
    master_entry_settle(master, entry);
}

/* The put has come to its end: its range is the replica's now. */
void master_ticket_finish(struct store_master *master, struct ticket *ticket)
{
    if (ticket->entry != NULL) {
        ASSERT(ticket->entry->ticket == ticket);
        ticket->entry->ticket = NULL;
        if (ticket->copy) master_copies_ended(master, ticket);
        ticket_unlink(&master->tickets, ticket);
    } else {
        ticket_unlink(&master->limbo, ticket);
    }
    free(ticket);
}

/* From now on the ticket is the entry's. */
void master_ticket_open(struct store_master *master, uint64_t now_ns, struct entry *entry,
                        struct ticket *ticket)
{
    ASSERT(entry->ticket == NULL);
    ticket->id = entry->id;
    ticket->entry = entry;
    ticket->put_id = rng_counter(master->options.seed ^ master->term, ++master->puts_made) | 1;
    ticket->due_ns = now_ns + master_ms(master->options.discard_ms);
    entry->ticket = ticket;
    ticket_append(&master->tickets, ticket);
}

struct ticket *master_ticket_new(struct store_master *master, uint64_t now_ns, struct entry *entry,
                                 struct member *member, uint64_t address, uint64_t size)
{
    struct ticket *ticket = calloc(1, sizeof(*ticket));
    if (ticket == NULL) return NULL;
    ticket->member = member;
    ticket->address = address;
    ticket->size = size;
    master_ticket_open(master, now_ns, entry, ticket);
    return ticket;
}

/* Removes those of a member that is gone, with their entries where nothing else is left. */
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
    return ticket->due_ns - master_ms(master->options.discard_ms) +
           master_ms(master->options.put_ms);
}

void master_ticket_describe(const struct store_master *master, const struct ticket *ticket,
                            struct store_ticket *out)
{
    out->put_id = ticket->put_id;
    out->version = ticket->version;
    out->term = master->term;
    out->expires_ns = master_ticket_expires(master, ticket);
    master_replica_describe(ticket->member, ticket->address, 0, &out->where);
}
