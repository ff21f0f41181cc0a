/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_evict.c - room is made by asking the owners of what goes first to drop it.
 *
 * That takes a round trip and what the owner takes to say that it is done; so that a put seldom
 * waits for it, a little room is kept ahead of the puts at every member that lends enough for a
 * little to be of use.
 */
#include "store/master_int.h"

enum {
    EVICT_LOOKS_MAX = 4096,    /* entries looked at for one put */
    AHEAD_LOOKS_MAX = 16,      /* and to keep room ahead, when it has found room itself */
    AHEAD_PART = 64,           /* of what a member lends is kept free, */
    AHEAD_MAX = 16 << 20,      /* at most so many bytes, */
    AHEAD_LENT_MIN = 64 << 20, /* where it lends so many */
};

/* The most that is being freed at one member where the value would fit. */
static uint64_t dropping_max(const struct store_master *master, uint64_t size)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < master->members_count; i++) {
        const struct member *member = master->by_age[i];
        if (master_member_lends(member, size) && member->dropping > most) most = member->dropping;
    }
    return most;
}

/* Whether it helps a value of this size that this replica goes. */
static bool replica_evictable(const struct store_master *master, const struct replica *replica,
                              uint64_t size)
{
    return replica->placed && !replica->dropping &&
           master_member_lends(master_member_with(master, replica), size);
}

/* False: nothing of it was there to go. */
static bool entry_evict(struct store_master *master, const struct entry *entry, uint64_t size)
{
    bool any = false;
    for (struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (!replica_evictable(master, r, size) || !master_replica_drop(master, r, true)) continue;
        master->counts.evictions_total++;
        any = true;
    }
    return any;
}

/* Those of its group go with it, but for the leased, the pinned and `except`. */
static void group_evict(struct store_master *master, uint64_t now_ns, const struct entry *entry,
                        const struct entry *except, uint64_t size)
{
    const struct group *group = entry->extra == NULL ? NULL : entry->extra->group;
    if (group == NULL) return;
    for (const struct entry *e = group->members; e != NULL; e = e->extra->group_next) {
        if (e == entry || e == except || e->lease_until > now_ns) continue;
        if (!master_entry_hard(e) && e->extra->soft_until == 0) entry_evict(master, e, size);
    }
}

/* Evicts from the front of the order; true once enough is on its way out at one member. What is to
 * be replaced stays until it is. */
static bool evict_from(struct store_master *master, struct order *order, uint64_t now_ns,
                       const struct entry *except, uint64_t size)
{
    struct order_node *node = order_first(order);
    bool enough = dropping_max(master, size) >= size;

    for (int i = 0; i < EVICT_LOOKS_MAX && node != NULL && !enough; i++) {
        const struct entry *entry = master_entry_of(node);
        const bool may = entry != except && entry->lease_until <= now_ns;
        if (may && entry_evict(master, entry, size)) {
            order_take(order, node);
            group_evict(master, now_ns, entry, except, size);
            enough = dropping_max(master, size) >= size;
        }
        if (!enough) node = order_next(order, node);
    }
    order_rewind(order);
    return enough;
}

enum status master_make_room(struct store_master *master, uint64_t now_ns,
                             const struct entry *except, uint64_t size)
{
    if (evict_from(master, master->order, now_ns, except, size)) return STATUS_AGAIN;
    if (!master->options.keep_soft_pins && evict_from(master, master->soft, now_ns, except, size)) {
        return STATUS_AGAIN;
    }
    return dropping_max(master, size) > 0 ? STATUS_AGAIN : STATUS_FULL;
}

static uint64_t ahead_of(const struct member *member)
{
    const uint64_t lent = space_total(member->space);
    if (lent < AHEAD_LENT_MIN) return 0;
    return lent / AHEAD_PART < AHEAD_MAX ? lent / AHEAD_PART : AHEAD_MAX;
}

/* Free, or about to be. */
static bool room_is_ahead(const struct member *member)
{
    return master_member_room(member) + member->dropping >= ahead_of(member);
}

void master_room_ahead(struct store_master *master, uint64_t now_ns, const struct member *member,
                       const struct entry *except)
{
    if (room_is_ahead(member)) return;
    struct order_node *node = order_first(master->order);
    for (int i = 0; i < AHEAD_LOOKS_MAX && node != NULL && !room_is_ahead(member); i++) {
        const struct entry *entry = master_entry_of(node);
        const bool may = entry != except && entry->lease_until <= now_ns;
        if (may && entry_evict(master, entry, 1)) {
            order_take(master->order, node);
            group_evict(master, now_ns, entry, except, 1);
        }
        node = order_next(master->order, node);
    }
    order_rewind(master->order);
}
