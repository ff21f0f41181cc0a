/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_evict.c - room is made by asking the owners of what goes first to drop it.
 *
 * That takes a round trip and what the owner takes to say that it is done; so that a put seldom
 * waits for it, a little room is kept ahead of the puts at every member that lends enough for a
 * little to be of use.
 *
 * Who gives: replicas that are there for heat (store/master_hot.c), with which nobody's value goes;
 * then tenants above their share, the one that is above it by most first; then the tenant that
 * asks; then anyone. Within a tenant its order of eviction decides, soft pins last of all.
 */
#include "store/master_int.h"

enum {
    EVICT_LOOKS_MAX = 4096,    /* entries looked at, of who is asked, for one put */
    GREEDY_MAX = 8,            /* tenants above their share that are asked in turn */
    AHEAD_LOOKS_MAX = 16,      /* and to keep room ahead, when it has found room itself */
    AHEAD_PART = 64,           /* of what a member lends is kept free, */
    AHEAD_MAX = 16 << 20,      /* at most so many bytes, */
    AHEAD_LENT_MIN = 64 << 20, /* where it lends so many */
};

/* The most that is being freed at one member where the value would fit. */
static uint64_t dropping_max(const struct store_master *master, uint64_t now_ns, uint64_t size)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < master->members_count; i++) {
        const struct member *member = master->by_age[i];
        if (member->dropping <= most) continue;
        if (master_member_takes(master, member, now_ns, size)) most = member->dropping;
    }
    return most;
}

/* What is evicted for. */
struct need {
    uint64_t now_ns;
    const struct entry *except; /* stays; NULL: none */
    uint64_t size;              /* room for so many bytes at one member */
    const struct tenant *quota; /* not NULL: instead, that so many bytes more fit its quota */
    const struct member *ahead; /* not NULL: instead, that there is room ahead of the puts */
};

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

static bool need_met(const struct store_master *master, const struct need *need)
{
    if (need->quota != NULL) return master_tenant_will_fit(need->quota, need->size);
    if (need->ahead != NULL) return room_is_ahead(need->ahead);
    return dropping_max(master, need->now_ns, need->size) >= need->size;
}

/* Whether it helps that this replica goes. */
static bool replica_evictable(const struct store_master *master, const struct replica *replica,
                              const struct need *need)
{
    const struct member *member = master_member_with(master, replica);
    if (!replica->placed || replica->dropping) return false;
    if (need->ahead != NULL) return member == need->ahead;
    return need->quota != NULL ? member->state != STORE_MEMBER_DEAD
                               : master_member_takes(master, member, need->now_ns, need->size);
}

/* False: nothing of it was there to go. */
static bool entry_evict(struct store_master *master, const struct entry *entry,
                        const struct need *need)
{
    struct tenant *tenant = master_tenant_at(master, entry->tenant);
    bool any = false;
    for (struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (!replica_evictable(master, r, need) || !master_replica_drop(master, r, true)) continue;
        master->counts.evictions_total++;
        master->counts.evicted_bytes_total += master_replica_bytes(r);
        tenant->evicted.replicas++;
        tenant->evicted.bytes += master_replica_bytes(r);
        any = true;
    }
    return any;
}

/* Those of its group go with it, but for the leased, the pinned and the excepted. */
static void group_evict(struct store_master *master, const struct entry *entry,
                        const struct need *need)
{
    const struct group *group = entry->extra == NULL ? NULL : entry->extra->group;
    if (group == NULL) return;
    for (const struct entry *e = group->members; e != NULL; e = e->extra->group_next) {
        if (e == entry || e == need->except || e->lease_until > need->now_ns) continue;
        if (!master_entry_hard(e) && e->extra->soft_until == 0) entry_evict(master, e, need);
    }
}

static void evict_one(struct store_master *master, struct order *order, struct order_node *node,
                      const struct need *need)
{
    const struct entry *entry = master_entry_of(node);
    if (entry == need->except || entry->lease_until > need->now_ns) return;
    if (!entry_evict(master, entry, need)) return;
    order_take(order, node);
    group_evict(master, entry, need);
}

/* What heat has added to the values of one tenant, or (NULL) of all, goes as long as it helps.
 * True: the need is met. */
static bool evict_hot(struct store_master *master, const struct tenant *tenant,
                      const struct need *need)
{
    uint32_t cursor = UINT32_MAX;
    struct entry *entry = master_hot_next(master, &cursor);
    bool met = need_met(master, need);

    for (; entry != NULL && !met; entry = master_hot_next(master, &cursor)) {
        if (tenant != NULL && entry->tenant != tenant->number) continue;
        struct replica *r = master_copies_least(master, entry);
        for (; r != NULL && !met; r = master_copies_least(master, entry)) {
            if (entry == need->except || !replica_evictable(master, r, need)) break;
            if (!master_replica_drop(master, r, false)) break;
            master->counts.hot_taken_total++;
            master_hot_taken(master, need->now_ns, entry);
            met = need_met(master, need);
        }
    }
    return met;
}

/* Evicts from the front of the order, at most *looks entries, as long as the tenant is above its
 * share (`shares` NULL: whatever it has). What is to be replaced stays until it is. True: the need
 * is met. */
static bool evict_from(struct store_master *master, const struct tenant *tenant, bool soft,
                       const struct need *need, const struct master_shares *shares, int *looks)
{
    struct order *order = soft ? tenant->soft : tenant->order;
    struct order_node *node = order_first(order);
    bool met = need_met(master, need);

    for (; *looks > 0 && node != NULL && !met; --*looks) {
        if (shares != NULL && !master_shares_above(shares, tenant)) break;
        evict_one(master, order, node, need);
        met = need_met(master, need);
        if (!met) node = order_next(order, node);
    }
    order_rewind(order);
    return met;
}

/* From one kind of order of all tenants, in turn. */
static bool evict_in_turn(struct store_master *master, const struct tenant *asks, bool soft,
                          const struct need *need)
{
    struct master_shares shares;
    int looks = EVICT_LOOKS_MAX;

    if (master->tenants_top > 1) {
        const struct tenant *worst = NULL;
        master_shares_init(master, &shares);
        for (int i = 0; i < GREEDY_MAX; i++) {
            worst = master_shares_worst(master, &shares, worst);
            if (worst == NULL) break;
            if (evict_from(master, worst, soft, need, &shares, &looks)) return true;
        }
    }
    looks = EVICT_LOOKS_MAX;
    if (asks != NULL && evict_from(master, asks, soft, need, NULL, &looks)) return true;
    looks = EVICT_LOOKS_MAX;
    for (uint32_t i = 0; i < master->tenants_top; i++) {
        const struct tenant *tenant = master->tenants[i];
        if (tenant == NULL || tenant == asks) continue;
        if (evict_from(master, tenant, soft, need, NULL, &looks)) return true;
    }
    return false;
}

/* What has gone so far, to tell afterwards whether anything has. */
static uint64_t gone_total(const struct store_master *master)
{
    return master->counts.evictions_total + master->counts.hot_taken_total;
}

/* Room was asked for when so much had gone. Where enough is on its way already nothing had to. */
static void eviction_counted(struct store_master *master, uint64_t gone_before, bool met)
{
    const bool any = gone_total(master) > gone_before;
    master->counts.evicting_total += any || !met;
    master->counts.evicted_total += any;
}

static bool evict_for(struct store_master *master, const struct tenant *tenant,
                      const struct need *need)
{
    if (evict_hot(master, NULL, need)) return true;
    if (evict_in_turn(master, tenant, false, need)) return true;
    return !master->options.keep_soft_pins && evict_in_turn(master, tenant, true, need);
}

enum status master_make_room(struct store_master *master, uint64_t now_ns,
                             const struct tenant *tenant, const struct entry *except, uint64_t size)
{
    const struct need need = { .now_ns = now_ns, .except = except, .size = size };
    const uint64_t before = gone_total(master);
    const bool met = evict_for(master, tenant, &need);
    eviction_counted(master, before, met);
    return met || dropping_max(master, now_ns, size) > 0 ? STATUS_AGAIN : STATUS_FULL;
}

static bool evict_own(struct store_master *master, const struct tenant *tenant,
                      const struct need *need)
{
    int looks = EVICT_LOOKS_MAX;
    if (evict_hot(master, tenant, need)) return true;
    if (evict_from(master, tenant, false, need, NULL, &looks)) return true;
    if (master->options.keep_soft_pins) return false;
    looks = EVICT_LOOKS_MAX;
    return evict_from(master, tenant, true, need, NULL, &looks);
}

bool master_tenant_evict(struct store_master *master, uint64_t now_ns, const struct tenant *tenant,
                         const struct entry *except, uint64_t bytes)
{
    const struct need need = { .now_ns = now_ns, .except = except, .size = bytes, .quota = tenant };
    const uint64_t before = gone_total(master);
    const bool met = evict_own(master, tenant, &need);
    eviction_counted(master, before, met);
    return met;
}

/* Whose values go ahead of need, where `asks` has just put: who is above its share by most. */
static const struct tenant *ahead_from(const struct store_master *master, const struct tenant *asks)
{
    struct master_shares shares;
    if (master->tenants_top == 1) return asks;
    master_shares_init(master, &shares);
    const struct tenant *worst = master_shares_worst(master, &shares, NULL);
    return worst == NULL ? asks : worst;
}

/* What goes first of one tenant's, while there is too little room at the member. */
static void evict_ahead(struct store_master *master, const struct member *member,
                        const struct entry *except, const struct need *need)
{
    struct order *order = ahead_from(master, master_tenant_at(master, except->tenant))->order;
    struct order_node *node = order_first(order);
    for (int i = 0; i < AHEAD_LOOKS_MAX && node != NULL && !room_is_ahead(member); i++) {
        evict_one(master, order, node, need);
        node = order_next(order, node);
    }
    order_rewind(order);
}

void master_room_ahead(struct store_master *master, uint64_t now_ns, const struct member *member,
                       const struct entry *except)
{
    const struct need need = { .now_ns = now_ns, .except = except, .size = 1 };
    const struct need ahead = { .now_ns = now_ns, .except = except, .ahead = member };
    const uint64_t before = gone_total(master);
    if (room_is_ahead(member)) return;
    if (!evict_hot(master, NULL, &ahead)) evict_ahead(master, member, except, &need);
    eviction_counted(master, before, room_is_ahead(member));
}
