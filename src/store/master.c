/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master.c - the directory as a whole: its life, its time, its numbers, its invariants.
 *
 * The parts, each with its contract in store/master_int.h:
 *
 *   master_member.c   the nodes: registered, heard, suspected, dead, gone
 *   master_entry.c    keys, what is kept of their wishes, their place in an order of eviction
 *   master_group.c    values that are kept, and go, together
 *   master_tenant.c   whose values they are, and how much each tenant may have
 *   master_replica.c  who has a value, and the range of the node's space that it owns
 *   master_ticket.c   puts in progress, and the ranges of those given up
 *   master_event.c    what owners say: snapshots, events, ends of puts
 *   master_read.c     what readers ask: leases, lists
 *   master_put.c      what writers ask: where to, revoked, removed
 *   master_place.c    where that is: by room, load and health
 *   master_evict.c    room is made
 *   master_copy.c     how many replicas there are, and on whom
 *   master_hot.c      more replicas of what is read much
 *   master_task.c     copies and moves to nodes that somebody names
 *   master_leave.c    what only a node has that leaves goes elsewhere, in good order
 *   master_action.c   what is asked of others, and drops until they are done
 *   tombs.c           what is remembered of keys that are gone
 *   master_check.c    the invariants, for tests
 *
 *   id -> entry -> replica -> member      every replica is on two lists: its entry's, its node's
 *            |
 *            +---> ticket -> space        a put in progress owns a range of its node's space
 *
 * A range of a node's space belongs to exactly one of: a ticket, a replica that is `placed`, or
 * limbo. Limbo keeps the range of a ticket that was given up until no writer can write into it any
 * more: its time to write (put_ms, or what it asked for) and the transfer engine's lease on a
 * silent connection (fence_ms). A commit that comes late, but before that, takes its range out of
 * limbo and is as good as any.
 *
 * Eviction happens on the allocation path. Who finds no room evicts the values without a lease that
 * go first by the policy (store/order.h), by asking their owners to drop them, and is told to ask
 * again; the space is free when the owner's REMOVED event arrives, never before.
 *
 * Invariants (store_master_check())
 *   I1  An entry has a replica or a ticket; else it is deleted.
 *   I2  The used bytes of a node's space are those of its tickets, placed replicas and limbo.
 *   I3  An entry is in an order of eviction of its tenant exactly when it is a value with a placed
 *       replica and no hard pin: in that of the soft-pinned, by deadline, or in that of all others,
 *       by policy.
 *   I4  All replicas that are not stale have the rank (store/rank.h) and the bytes that the entry
 *       says; stale ones are never read, and dropped until they are gone.
 *   I5  A replica is dropping exactly when a DROP for it is queued, under way or waiting for its
 *       next try; its bytes are counted in its node's `dropping`.
 *   I6  What has a rank below the one in `dead` or `evicted` (store/tombs.h) is stale, whoever
 *       announces or commits it; new puts get versions above those in `dead` and `issued`.
 *   I7  What a tenant is charged is what tickets, placed replicas and limbo hold of its values: the
 *       charges of all are the used bytes of all spaces (I2).
 *   I8  A put is acknowledged when no replica of a lower rank is left, but of members that have
 *       been silent for STORE_DOUBT_MS; and, where some may be with a node that this master has
 *       never heard of (elsewhere_until), when it is so old that such a node is in doubt, too. Of
 *       a key that it knew nothing of it acknowledges at once: a node that it hears after that is
 *       in doubt for the next master about all of earlier terms, until this one has had what was
 *       replaced dropped (store/node_trust.h). So what is announced to the next master without
 *       doubt was not replaced, and that may serve it at once; what is in doubt it serves when it
 *       is settled.
 */
#include "store/master.h"

#include <stdlib.h>

#include "base/map.h"
#include "base/rng.h"
#include "store/master_int.h"

enum {
    OBJECTS_MAX_DEFAULT = 1 << 24,
    REPLICAS_MAX = 1 << 30, /* of all objects together; and tickets */
};

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value == 0 ? otherwise : value;
}

void store_master_destroy(struct store_master *master)
{
    if (master == NULL) return;
    for (uint32_t i = 0;
         master->entries != NULL && (i = slab_next(master->entries, i)) != SLAB_NONE; i++) {
        free(master_entry_at(master, i)->extra);
    }
    struct map_iter iter = { 0 };
    while (master->groups != NULL && map_next(master->groups, &iter))
        free((struct group *)(uintptr_t)iter.value);
    map_destroy(master->groups);
    master_tenants_fini(master);
    master_hot_fini(master);
    master_tasks_fini(master);
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        if (master->members[i] == NULL) continue;
        space_destroy(master->members[i]->space);
        master_leave_end(master->members[i]);
        free(master->members[i]);
    }
    idmap_destroy(master->ids);
    slab_destroy(master->entries);
    slab_destroy(master->replicas);
    slab_destroy(master->tickets_slab);
    for (uint32_t i = 0; i < MASTER_KEY_CLASSES; i++)
        slab_destroy(master->keys[i]);
    tombs_fini(&master->dead);
    tombs_fini(&master->evicted);
    tombs_fini(&master->issued);
    free(master->actions.list);
    free(master->retries);
    free(master);
}

enum status store_master_create(const struct store_master_options *options, uint64_t now_ns,
                                struct store_master **out)
{
    if (options->term == 0 || options->objects_max > MAP_ENTRIES_MAX) return STATUS_INVALID;
    if (options->eviction >= ORDER_DEADLINE) return STATUS_INVALID;
    struct store_master *master = calloc(1, sizeof(*master));
    if (master == NULL) return STATUS_NO_MEMORY;

    struct store_master_options *o = &master->options;
    *o = *options;
    o->objects_max = or_default(o->objects_max, OBJECTS_MAX_DEFAULT);
    o->lease_ms = or_default(o->lease_ms, 10000);
    o->put_ms = or_default(o->put_ms, 10000);
    o->discard_ms = or_default(o->discard_ms, 30000);
    o->suspect_ms = or_default(o->suspect_ms, 2000);
    o->dead_ms = or_default(o->dead_ms, 10000);
    o->forget_ms = or_default(o->forget_ms, 60000);
    o->settle_ms = or_default(o->settle_ms, 2000);
    o->fence_ms = or_default(o->fence_ms, 10000);
    const struct map_options map = { .entries_max = o->objects_max, .seed = options->seed };
    master->entries = slab_create(sizeof(struct entry), o->objects_max);
    master->replicas = slab_create(sizeof(struct replica), REPLICAS_MAX);
    master->tickets_slab = slab_create(sizeof(struct ticket), REPLICAS_MAX);
    if (master->entries != NULL) master->ids = idmap_create(master->entries, options->seed);
    if (master->ids == NULL || master->replicas == NULL || master->tickets_slab == NULL ||
        !master_tenants_init(master) || !master_hot_init(master) || !master_tasks_init(master) ||
        map_create(&map, &master->groups) != STATUS_OK) {
        store_master_destroy(master);
        return STATUS_NO_MEMORY;
    }
    master->term = options->term;
    master->started_ns = now_ns;
    rng_init(&master->rng, options->seed ^ options->term);
    rng_init(&master->hot_rng, master->rng.state[0]);
    *out = master;
    return STATUS_OK;
}

uint64_t store_master_term(const struct store_master *master)
{
    return master->term;
}

uint64_t store_master_tick(struct store_master *master, uint64_t now_ns)
{
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        if (master->members[i] != NULL) master_member_tick(master, master->members[i], now_ns);
    }
    master_loads_run(master);
    master_bars_run(master, now_ns);
    while (master->tickets.head != NULL && master->tickets.head->due_ns <= now_ns) {
        struct ticket *ticket = master->tickets.head;
        if (!ticket->copy) master_member_put_given_up(ticket->member, now_ns);
        master_ticket_discard(master, now_ns, ticket);
        master->counts.discarded_total++;
    }
    while (master->limbo.head != NULL && master->limbo.head->due_ns <= now_ns) {
        const struct ticket *ticket = master->limbo.head;
        space_free(ticket->member->space, ticket->address, ticket->size);
        master_ticket_finish(master, master->limbo.head);
        master->counts.released_total++;
    }
    master->settled = master->settled || master_settled(master, now_ns);
    master_soft_pins_end(master, now_ns);
    master_drops_retry(master, now_ns);
    master_tenants_trim(master, now_ns);
    master_hot_run(master, now_ns);
    master_tasks_run(master, now_ns);
    master_copies_run(master, now_ns);
    return now_ns + master_ms(100);
}

static uint64_t directory_memory(const struct store_master *master)
{
    uint64_t sum = idmap_memory(master->ids) + slab_memory(master->entries) +
                   slab_memory(master->replicas) + slab_memory(master->tickets_slab);
    for (uint32_t i = 0; i < MASTER_KEY_CLASSES; i++) {
        if (master->keys[i] != NULL) sum += slab_memory(master->keys[i]);
    }
    return sum;
}

void store_master_counts(const struct store_master *master, struct store_master_counts *out)
{
    *out = master->counts;
    out->processing = master->tickets.count - master->copies;
    out->copies = master->copies;
    out->tasks = master->tasks.active;
    out->limbo_bytes = master->limbo.bytes;
    for (uint32_t i = 0; i < master->tenants_top; i++) {
        if (master->tenants[i] != NULL) out->soft_pins += order_count(master->tenants[i]->soft);
    }
    out->memory = directory_memory(master);
    master_hot_counts(master, out);
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        const struct member *member = master->members[i];
        if (member == NULL) continue;
        out->space_total += space_total(member->space);
        out->space_used += space_used(member->space);
    }
}
