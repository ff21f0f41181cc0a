/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_copy.c - how many replicas a value has, and on whom: copies and drops until it is as
 * wished.
 *
 *            too few, too many, or on a node that drains
 *   (fine) ------------------------------------------------> on the list of work
 *      ^                                                       |          ^
 *      |   as many as wished: off the list    COPY queued,     v          | copied, failed,
 *      +-------------------------------------- a ticket opened: copying --+ given up
 *
 * A copy is a put whose writer is a node that has the value: the same ticket, the same write, the
 * same commit and put_end, with the same version and bytes. So what holds for puts holds for
 * copies: a range is promised once, a late commit is as good as any, a restart of the master in the
 * middle leaves a replica or none. While a value is being copied it is read as ever; one that
 * replaces it pre-empts the copy, as its removal does.
 *
 * The list of work is looked at in turn, a bounded part of it at a time, with at most COPIES_MAX
 * copies under way. What cannot be done now (no room, no other node) stays on the list. A value is
 * never dropped from a node that drains before it has as many replicas elsewhere as are wished. A
 * master that has just started does not make the replicas that are missing of what others announce
 * until whoever has them had the time to be heard (elsewhere_until).
 *
 * Invariants
 *   I1  An entry is on the list exactly when extra->working.
 *   I2  master->copies counts the tickets with `copy`, of entries (not those in limbo), and a
 *       tenant's copies those of its values;
 *   I3  of these a node's copies_from those whose value it is to send. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "store/master_int.h"
#include "store/proto.h"

enum {
    COPIES_MAX = 32,
    WORK_LOOKS_MAX = 256,   /* entries looked at in one turn */
    DRAIN_LOOKS_MAX = 4096, /* entries a turn that a drain passes on its walk */
    RETRY_MS = 500,         /* behind a copy that failed; doubles up to RETRY_DOUBLINGS times, since
                               its range waits in limbo meanwhile */
    RETRY_DOUBLINGS = 7,
    IDLE_PART = 16, /* of what a member lends: its last part is not idle */
};

/* ---- the list of work ---- */

static void work_append(struct store_master *master, struct entry *entry)
{
    struct extra *extra = entry->extra;
    ASSERT(!extra->working);
    extra->work_prev = master->work_tail;
    extra->work_next = NULL;
    if (master->work_tail == NULL) {
        master->work_head = entry;
    } else {
        master->work_tail->extra->work_next = entry;
    }
    master->work_tail = entry;
    master->work_count++;
    extra->working = true;
}

static void work_unlink(struct store_master *master, struct entry *entry)
{
    struct extra *extra = entry->extra;
    ASSERT(extra->working && master->work_count > 0);
    if (extra->work_prev == NULL) {
        master->work_head = extra->work_next;
    } else {
        extra->work_prev->extra->work_next = extra->work_next;
    }
    if (extra->work_next == NULL) {
        master->work_tail = extra->work_prev;
    } else {
        extra->work_next->extra->work_prev = extra->work_prev;
    }
    master->work_count--;
    extra->working = false;
}

void master_copies_forget(struct store_master *master, struct entry *entry)
{
    if (entry->extra != NULL && entry->extra->working) work_unlink(master, entry);
}

/* ---- what is there, what is wished ---- */

/* Whether all that it has is to go elsewhere, for as long as that takes. */
static bool moves_out(const struct member *member)
{
    return member->draining && member->leave == NULL;
}

/* Those that stay; and those of nodes that leave, which store/master_leave.c looks after. */
uint32_t master_copies_settled(const struct store_master *master, const struct entry *entry)
{
    uint32_t count = 0;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (master_replica_readable(master, r) && !moves_out(master_member_with(master, r)))
            count++;
    }
    return count;
}

static bool drains(const struct store_master *master, const struct entry *entry)
{
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (moves_out(master_member_with(master, r)) && master_replica_readable(master, r))
            return true;
    }
    return false;
}

/* Nothing of it can be read: there is nothing to copy, and nothing too much. */
static bool readable(const struct store_master *master, const struct entry *entry)
{
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (master_replica_readable(master, r)) return true;
    }
    return false;
}

static bool is_fine(const struct store_master *master, const struct entry *entry)
{
    if (entry->extra != NULL && entry->extra->task != 0) return false; /* it is the task's */
    if (entry->removing || !readable(master, entry)) return true;
    return master_copies_settled(master, entry) == master_entry_wanted(entry) &&
           !drains(master, entry);
}

void master_copies_look(struct store_master *master, struct entry *entry)
{
    if (master_entry_block(entry) || is_fine(master, entry)) return;
    if (entry->extra == NULL && !drains(master, entry))
        return; /* one is wished, and more is no harm */
    if (master_entry_extra(entry) == NULL || entry->extra->working) return;
    work_append(master, entry);
}

/* ---- copying ---- */

static size_t host_len(const char *address)
{
    const char *colon = strrchr(address, ':');
    return colon == NULL ? strlen(address) : (size_t)(colon - address);
}

static bool same_host(const struct member *a, const struct member *b)
{
    const size_t len = host_len(a->info.rpc_address);
    return len == host_len(b->info.rpc_address) &&
           memcmp(a->info.rpc_address, b->info.rpc_address, len) == 0;
}

/* 0: it has the value itself; 1: its host has; 2: neither. */
static unsigned distance(const struct store_master *master, const struct entry *entry,
                         const struct member *member)
{
    unsigned least = 2;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (master_member_with(master, r) == member) return 0;
        if (!master_member_with(master, r)->draining &&
            same_host(master_member_with(master, r), member))
            least = 1;
    }
    return least;
}

static bool has_idle(const struct member *member, uint64_t size)
{
    const uint64_t room = master_member_room(member);
    return room > size && room - size >= space_total(member->space) / IDLE_PART;
}

/* The one that is not barred; else, of those busy with others less counts. */
static bool appeals_more(const struct member *a, const struct member *b, uint64_t now_ns)
{
    const bool barred = master_member_barred(a, now_ns);
    if (barred != master_member_barred(b, now_ns)) return !barred;
    return master_member_room(a) / MASTER_KEEP_ALL * a->keep >
           master_member_room(b) / MASTER_KEEP_ALL * b->keep;
}

/* The farthest from those that have it; of those the roomiest, by what they do besides. NULL:
 * nobody has room. */
static struct member *target_of(const struct store_master *master, uint64_t now_ns,
                                const struct entry *entry, enum copy_room room, uint64_t *address)
{
    for (unsigned far = 2; far > 0; far--) {
        struct member *best = NULL;
        bool any = false;
        for (uint32_t i = 0; i < master->members_count; i++) {
            struct member *member = master->by_age[i];
            if (!master_member_lends(member, entry->size)) continue;
            if (distance(master, entry, member) != far) continue;
            any = true;
            if (room == COPY_IDLE && !has_idle(member, entry->size)) continue;
            if (room == COPY_IDLE && master_member_barred(member, now_ns)) continue;
            if (best == NULL || appeals_more(member, best, now_ns)) best = member;
        }
        if (best != NULL && space_alloc(best->space, entry->size, address) == STATUS_OK) {
            return best;
        }
        if (room == COPY_IDLE && any) break; /* nothing is won by the same host */
    }
    return NULL;
}

/* Could anybody take it, if there were room? */
static bool has_candidate(const struct store_master *master, const struct entry *entry)
{
    for (uint32_t i = 0; i < master->members_count; i++) {
        const struct member *member = master->by_age[i];
        if (master_member_lends(member, entry->size) && distance(master, entry, member) > 0)
            return true;
    }
    return false;
}

/* From a node that is heard, if there is one. NULL: what is there is in doubt. */
static struct replica *source_of(const struct store_master *master, const struct entry *entry)
{
    struct replica *source = NULL;
    for (struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (!master_replica_sure(master, r)) continue;
        if (source == NULL || master_member_with(master, r)->state == STORE_MEMBER_ALIVE)
            source = r;
    }
    return source;
}

/* Whether the tenant may have one more. For a node that drains its own values go first. */
static bool copy_admitted(struct store_master *master, uint64_t now_ns, const struct entry *entry)
{
    const struct tenant *tenant = master_tenant_at(master, entry->tenant);
    const uint64_t bytes = (uint64_t)master_granules(entry->size) * SPACE_GRANULE;

    if (master_tenant_fits(tenant, bytes)) return true;
    if (drains(master, entry)) (void)master_tenant_evict(master, now_ns, tenant, entry, bytes);
    return false;
}

bool master_copies_may_start(const struct store_master *master)
{
    return master->copies < COPIES_MAX;
}

/* What is copied, and where to. */
struct plan {
    const struct replica *source;
    struct member *target;
    uint64_t address; /* the range, which was allocated */
    bool hot;
    bool move;
};

/* False: the range is free again, or waits in limbo. */
static bool copy_begin(struct store_master *master, uint64_t now_ns, struct entry *entry,
                       const struct plan *plan)
{
    struct member *target = plan->target;
    struct member *from = master_member_with(master, plan->source);
    struct ticket *ticket =
        master_ticket_new(master, now_ns, entry, target, plan->address, entry->size);
    if (ticket == NULL) {
        space_free(target->space, plan->address, entry->size);
        return false;
    }
    ticket->copy = true;
    ticket->from = from->id;
    from->copies_from++;
    ticket->version = master_entry_version(entry);
    master->copies++;
    master_tenant_at(master, ticket->tenant)->copies++;
    struct store_action *action = master_action(master, STORE_ACTION_COPY, from);
    if (action == NULL) {
        master_ticket_discard(master, now_ns, ticket);
        return false;
    }
    action->id = entry->id;
    action->generation = plan->source->generation;
    action->hot = plan->hot;
    action->move = plan->move;
    action->ticket = (struct store_ticket){
        .put_id = ticket->put_id,
        .term = master->term,
        .version = ticket->version,
        .expires_ns = now_ns + master_ms(master->options.put_ms),
    };
    master_replica_describe(target, plan->address, 0, &action->ticket.where);
    return true;
}

bool master_copy_start(struct store_master *master, uint64_t now_ns, struct entry *entry,
                       enum copy_room room)
{
    const struct replica *source = source_of(master, entry);
    const struct tenant *tenant = master_tenant_at(master, entry->tenant);
    uint64_t address = 0;

    if (source == NULL) return false;
    if (!copy_admitted(master, now_ns, entry)) return false; /* the next look asks again */
    struct member *target = target_of(master, now_ns, entry, room, &address);
    if (target == NULL) {
        if (room == COPY_MAKE_ROOM && has_candidate(master, entry)) {
            const enum status status = master_make_room(master, now_ns, tenant, entry, entry->size);
            (void)status; /* the next look sees whether it helped */
        }
        return false;
    }
    const struct plan plan = {
        .source = source, .target = target, .address = address, .hot = room == COPY_IDLE
    };
    return copy_begin(master, now_ns, entry, &plan);
}

enum status master_copy_to(struct store_master *master, uint64_t now_ns, struct entry *entry,
                           const struct member *from, struct member *to)
{
    const struct replica *source = from == NULL ? NULL : master_replica_find(master, entry, from);
    struct plan plan = { .target = to, .move = from != NULL };
    ASSERT(entry->ticket == 0);

    const bool heard = source != NULL && from->state == STORE_MEMBER_ALIVE;
    if (!heard || !master_replica_sure(master, source)) source = source_of(master, entry);
    if (source == NULL || !master_copies_may_start(master)) return STATUS_AGAIN;
    if (master_replica_find(master, entry, to) != NULL)
        return STATUS_AGAIN; /* it is being dropped */
    if (!master_member_lends(to, entry->size)) return STATUS_UNAVAILABLE;
    if (!copy_admitted(master, now_ns, entry)) return STATUS_QUOTA;
    if (space_alloc(to->space, entry->size, &plan.address) != STATUS_OK) return STATUS_FULL;
    plan.source = source;
    return copy_begin(master, now_ns, entry, &plan) ? STATUS_OK : STATUS_AGAIN;
}

void master_copies_ended(struct store_master *master, const struct ticket *ticket)
{
    struct member *from = master_member_at(master, ticket->from);
    struct tenant *tenant = master_tenant_at(master, ticket->tenant);
    ASSERT(ticket->copy && master->copies > 0 && tenant->copies > 0); /* I2 */
    master->copies--;
    tenant->copies--;
    if (from == NULL) return;
    ASSERT(from->copies_from > 0); /* I3 */
    from->copies_from--;
}

static void retry_later(struct entry *entry, uint64_t now_ns)
{
    struct extra *extra = entry->extra;
    if (extra == NULL) return;
    extra->copy_after = now_ns + ((uint64_t)RETRY_MS << extra->copy_failures) * ENV_NS_PER_MS;
    if (extra->copy_failures < RETRY_DOUBLINGS) extra->copy_failures++;
}

void store_master_copied(struct store_master *master, uint64_t now_ns, const struct block_key *id,
                         uint64_t put_id, enum status status)
{
    struct entry *entry = master_entry_find(master, id);
    if (status == STATUS_OK) {
        master->counts.copies_total++;
        if (entry != NULL && entry->extra != NULL) entry->extra->copy_failures = 0;
    } else if (entry != NULL && entry->ticket != 0 &&
               master_entry_ticket(master, entry)->put_id == put_id) {
        struct ticket *ticket = master_entry_ticket(master, entry);
        master_task_copied(master, entry, status);
        retry_later(entry, now_ns);
        if (status == STATUS_NOT_FOUND) { /* said before anything was written */
            master_ticket_withdraw(master, ticket);
        } else {
            master_member_copy_failed(master, ticket->member, ticket->from, now_ns);
            master_ticket_discard(master, now_ns, ticket);
        }
    }
    master_copies_run(master, now_ns);
}

/* ---- too many ---- */

/* Whether its host would have the value without it. */
static bool crowded(const struct store_master *master, const struct entry *entry,
                    const struct replica *replica)
{
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (r != replica && master_replica_readable(master, r) &&
            same_host(master_member_with(master, r), master_member_with(master, replica)))
            return true;
    }
    return false;
}

static bool heard(const struct store_master *master, const struct replica *replica)
{
    return master_member_with(master, replica)->state == STORE_MEMBER_ALIVE;
}

static bool goes_before(const struct store_master *master, const struct entry *entry,
                        const struct replica *a, const struct replica *b)
{
    if (heard(master, a) != heard(master, b)) return heard(master, b);
    const bool crowds = crowded(master, entry, a);
    if (crowds != crowded(master, entry, b)) return crowds;
    return master_member_room(master_member_with(master, a)) <
           master_member_room(master_member_with(master, b));
}

/* One that is too much: on a node that drains, else on one that is not heard, else on a host that
 * has another, else on the fullest node. */
static struct replica *surplus_of(const struct store_master *master, const struct entry *entry)
{
    struct replica *worst = NULL;
    for (struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (!master_replica_readable(master, r)) continue;
        if (master_member_with(master, r)->draining) return r;
        if (worst == NULL || goes_before(master, entry, r, worst)) worst = r;
    }
    return worst;
}

uint32_t master_copies_surplus(const struct store_master *master, const struct entry *entry)
{
    const uint32_t wished = master_entry_wished(entry);
    uint32_t have = 0;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        have += master_replica_readable(master, r) && heard(master, r) &&
                !moves_out(master_member_with(master, r));
    }
    return have > wished ? have - wished : 0;
}

struct replica *master_copies_least(const struct store_master *master, const struct entry *entry)
{
    return master_copies_surplus(master, entry) > 0 ? surplus_of(master, entry) : NULL;
}

/* ---- turns ---- */

/* One step towards what is wished for the entry. */
static void entry_work(struct store_master *master, uint64_t now_ns, struct entry *entry)
{
    const uint32_t have = master_copies_settled(master, entry);
    const uint32_t want = master_entry_wanted(entry);

    if (entry->extra->task != 0) {
        master_task_step(master, now_ns, entry);
        return;
    }
    if (entry->ticket != 0) return; /* a copy, or a value that replaces it, is on its way */
    if (have < want) {
        const bool may = master->copies < COPIES_MAX && now_ns >= entry->extra->copy_after &&
                         (now_ns >= entry->extra->elsewhere_until || drains(master, entry));
        const enum copy_room room = have >= master_entry_wished(entry) ? COPY_IDLE
                                    : drains(master, entry)            ? COPY_MAKE_ROOM
                                                                       : COPY_ROOM;
        if (may && (room != COPY_IDLE || !master_hot_rests(master, now_ns)))
            master_copy_start(master, now_ns, entry, room);
        return;
    }
    struct replica *surplus = surplus_of(master, entry);
    if (surplus == NULL || (have <= want && !moves_out(master_member_with(master, surplus))))
        return;
    if (!master_replica_drop(master, surplus, false)) return; /* next time */
}

/* What lies on nodes that drain and is not on the list yet. */
static void drains_walk(struct store_master *master)
{
    for (uint32_t i = 0; i < master->members_count; i++) {
        struct member *member = master->by_age[i];
        uint32_t index = member->drain_next;
        if (!moves_out(member)) continue;
        for (int looks = 0; looks < DRAIN_LOOKS_MAX; looks++, index++) {
            index = slab_next(master->entries, index);
            if (index == SLAB_NONE) break;
            master_copies_look(master, slab_at(master->entries, index));
        }
        member->drain_next = index == SLAB_NONE ? 0 : index;
    }
}

void master_copies_run(struct store_master *master, uint64_t now_ns)
{
    drains_walk(master);
    master_leaves_run(master, now_ns);
    const uint32_t looks =
        master->work_count < WORK_LOOKS_MAX ? master->work_count : WORK_LOOKS_MAX;
    for (uint32_t i = 0; i < looks && master->work_head != NULL; i++) {
        struct entry *entry = master->work_head;
        work_unlink(master, entry);
        if (is_fine(master, entry)) continue;
        work_append(master, entry); /* before the step, which may let it go */
        entry_work(master, now_ns, entry);
    }
}

/* ---- wishes ---- */

bool master_copies_wish(struct store_master *master, struct entry *entry, uint32_t count)
{
    entry->extra->attributes.replicas = (uint8_t)count;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (r->stale) continue;
        struct store_action *action =
            master_action(master, STORE_ACTION_MARK, master_member_with(master, r));
        if (action == NULL) return false;
        action->id = entry->id;
        action->generation = r->generation;
        action->replicas = count;
    }
    return true;
}

enum status store_master_replicas(struct store_master *master, uint64_t now_ns,
                                  struct store_key key, uint32_t count)
{
    struct store_object object;
    if (count == 0 || count > STORE_REPLICAS_MAX) return STATUS_INVALID;
    const enum status status = store_master_peek(master, now_ns, key, &object);
    if (status != STATUS_OK) return status;

    const struct block_key id = store_key_id(key);
    struct entry *entry = master_entry_find(master, &id);
    ASSERT(entry != NULL);
    if (master_entry_block(entry)) return STATUS_DENIED;
    if (master_entry_extra(entry) == NULL) return STATUS_FULL;
    if (!master_copies_wish(master, entry, count)) return STATUS_FULL;
    master_copies_look(master, entry);
    master_copies_run(master, now_ns);
    return STATUS_OK;
}

/* Of readers' replicas all but that one. */
static uint32_t others_count(const struct store_master *master, const struct entry *entry,
                             const struct replica *replica)
{
    uint32_t count = 0;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        count += r != replica && master_replica_sure(master, r);
    }
    return count;
}

enum status store_master_clear(struct store_master *master, uint64_t now_ns, struct store_key key,
                               const char *name)
{
    struct entry *entry = master_entry_lookup(master, key);
    const enum status status = master_entry_state(master, now_ns, entry);
    const struct member *member = master_member_find(master, name);

    if (status == STATUS_BUSY) return STATUS_EXISTS;
    if (status != STATUS_OK) return status;
    if (master_entry_block(entry)) return STATUS_DENIED;
    const bool task = entry->extra != NULL && entry->extra->task != 0;
    if (entry->ticket != 0 || task) return STATUS_EXISTS;
    if (entry->lease_until > now_ns) return STATUS_BUSY;
    struct replica *replica = member == NULL ? NULL : master_replica_find(master, entry, member);
    if (replica == NULL || replica->dropping || replica->stale) return STATUS_NOT_FOUND;
    const uint32_t others = others_count(master, entry, replica);
    if (others == 0) return store_master_remove(master, now_ns, key, false);
    master_replica_outdate(master, now_ns, replica);
    if (master_entry_wished(entry) <= others) return STATUS_OK;
    return master_copies_wish(master, entry, others) ? STATUS_OK : STATUS_FULL;
}

bool store_master_drains(const struct store_master *master, const char *name)
{
    const struct member *member = master_member_find(master, name);
    return member != NULL && member->draining;
}

enum status store_master_drain(struct store_master *master, uint64_t now_ns, const char *name,
                               bool undo, uint64_t *left)
{
    struct member *member = master_member_find(master, name);
    if (member == NULL) return STATUS_NOT_FOUND;
    member->draining = !undo;
    if (undo) master_leave_end(member);
    if (!undo) master_copies_run(master, now_ns);
    *left = member->values;
    return STATUS_OK;
}
