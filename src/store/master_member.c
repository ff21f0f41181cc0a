/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_member.c - the nodes of the pool: registered, heard, suspected, dead, forgotten. The
 * states and their edges are in store/member.h.
 *
 * Slow start: who has just come, is heard again after a silence, or at whom one put after the other
 * is given up, gets puts little by little, for SLOW_MS. It is asked last where another will do, and
 * still where none will: placement weighs, and never refuses.
 */
#include "store/master_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "store/rank.h"

enum {
    SLOW_MS = 30000,
    FAILED_PUTS = 3, /* in a row: one may be its writer's fault */
};

struct member *master_member_at(const struct store_master *master, struct store_node_id id)
{
    const uint32_t slot = master_member_slot(id);
    if (slot >= STORE_MEMBERS_MAX) return NULL;
    struct member *member = master->members[slot];
    return member != NULL && member->id.index == id.index ? member : NULL;
}

struct member *master_member_find(const struct store_master *master, const char *name)
{
    for (uint32_t i = 0; i < master->members_count; i++) {
        struct member *member = master->by_age[i];
        if (strcmp(member->info.name, name) == 0) return member;
    }
    return NULL;
}

bool master_member_lends(const struct member *member, uint64_t size)
{
    return member != NULL && member->announced && member->state == STORE_MEMBER_ALIVE &&
           !member->draining && space_extent_max(member->space) >= size;
}

uint64_t master_member_room(const struct member *member)
{
    return space_total(member->space) - space_used(member->space);
}

/* A master that is young itself knows nobody for longer: there all begin alike. */
static uint64_t slow_from(const struct store_master *master, uint64_t now_ns)
{
    return now_ns < master->started_ns + master_ms(SLOW_MS) ? 0 : now_ns;
}

uint64_t master_member_appeal(const struct member *member, uint64_t now_ns)
{
    const uint64_t room = master_member_room(member);
    if (now_ns < member->slow_ns) return 0; /* barred until then */
    const uint64_t ms = (now_ns - member->slow_ns) / ENV_NS_PER_MS;
    if (member->slow_ns == 0 || ms >= SLOW_MS) return room;
    return room * ms / SLOW_MS; /* MASTER_GRANULES_MAX: it fits */
}

void master_member_slow(struct member *member, uint64_t now_ns)
{
    if (member->failed_puts >= FAILED_PUTS) member->slow_ns = now_ns;
}

void master_member_put_given_up(struct member *member, uint64_t now_ns)
{
    if (master_member_barred(member, now_ns)) return;
    if (member->failed_puts < FAILED_PUTS) member->failed_puts++;
    master_member_slow(member, now_ns);
}

bool master_settled(const struct store_master *master, uint64_t now_ns)
{
    if (now_ns < master->started_ns + master_ms(master->options.settle_ms)) return false;
    for (uint32_t i = 0; i < master->members_count; i++) {
        const struct member *member = master->by_age[i];
        if (!member->announced && member->state != STORE_MEMBER_DEAD) {
            return false;
        }
    }
    return true;
}

/* Edges as in store/member.h; the watchers are told of each. */
static void member_set_state(struct store_master *master, struct member *member,
                             enum store_member_state state)
{
    if (member->state == state) return;
    ASSERT(state != STORE_MEMBER_SUSPECT || member->state == STORE_MEMBER_ALIVE);
    member->state = state;
    const bool told = master_action_push(master, STORE_ACTION_CHANGED, member, NULL, 0);
    ASSERT(told || master->actions.count == STORE_ACTIONS_MAX);
}

static void by_age_remove(struct store_master *master, const struct member *member)
{
    uint32_t at = 0;
    while (master->by_age[at] != member)
        at++;
    master->members_count--;
    memmove(&master->by_age[at], &master->by_age[at + 1],
            (master->members_count - at) * sizeof(struct member *));
}

static void member_forget(struct store_master *master, struct member *member)
{
    const uint32_t slot = master_member_slot(member->id);
    ASSERT(master->members[slot] == member);

    while (member->replicas != 0)
        master_replica_remove(master, master_replica_at(master, member->replicas));
    master_tickets_forget(master, member);
    master_action_push(master, STORE_ACTION_FORGET, member, NULL, 0);
    master_action_push(master, STORE_ACTION_GONE, member, NULL, 0);
    master->members[slot] = NULL;
    by_age_remove(master, member);
    master_leave_end(member);
    space_destroy(member->space);
    free(member);
}

void master_member_heard(struct store_master *master, struct member *member, uint64_t now_ns)
{
    member->heard_ns = now_ns;
    if (member->state != STORE_MEMBER_ALIVE) member->slow_ns = slow_from(master, now_ns);
    member_set_state(master, member, STORE_MEMBER_ALIVE);
}

static bool info_valid(const struct store_member_info *info)
{
    if (info->name[0] == 0 || strnlen(info->name, STORE_NAME_SIZE) == STORE_NAME_SIZE) return false;
    if (strnlen(info->rpc_address, STORE_ADDRESS_SIZE) == STORE_ADDRESS_SIZE) return false;
    if (strnlen(info->segment, STORE_ADDRESS_SIZE) == STORE_ADDRESS_SIZE) return false;
    return info->rpc_address[0] != 0 && info->epoch != 0 && store_layout_valid(&info->layout);
}

static enum status member_add(struct store_master *master, uint64_t now_ns,
                              const struct store_member_info *info, struct store_node_id *out)
{
    uint32_t slot = 0;
    while (slot < STORE_MEMBERS_MAX && master->members[slot] != NULL)
        slot++;
    if (slot == STORE_MEMBERS_MAX) return STATUS_FULL;
    struct member *member = calloc(1, sizeof(*member));
    if (member == NULL) return STATUS_FULL;
    member->space = space_create();
    if (member->space == NULL) {
        free(member);
        return STATUS_FULL;
    }
    const uint32_t life = ++master->lives & (UINT32_MAX >> MASTER_SLOT_BITS);
    member->info = *info;
    member->draining = info->draining;
    member->id.index = life << MASTER_SLOT_BITS | (slot + 1);
    member->state = STORE_MEMBER_ALIVE;
    member->heard_ns = now_ns;
    member->slow_ns = slow_from(master, now_ns);
    member->keep = MASTER_KEEP_ALL;
    master->members[slot] = member;
    master->by_age[master->members_count++] = member;
    master_action_push(master, STORE_ACTION_CHANGED, member, NULL, 0);
    master_action_push(master, STORE_ACTION_LISTEN, member, NULL, 0);
    *out = member->id;
    return STATUS_OK;
}

/* A node has heard of a later master than us: ours is the later term from now on. Nodes fence what
 * was under way for the term before, so its tickets are worth nothing; what is placed stays placed.
 */
static void term_raise(struct store_master *master, uint64_t now_ns, uint64_t term)
{
    master->former[master->former_count++ % MASTER_FORMER_TERMS] = master->term;
    master->term = term;
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        struct member *member = master->members[i];
        if (member == NULL) continue;
        master_action_push(master, STORE_ACTION_FORGET, member, NULL, 0);
        master_action_push(master, STORE_ACTION_LISTEN, member, NULL, 0);
    }
    while (master->tickets.head != NULL)
        master_ticket_discard(master, now_ns, master->tickets.head);
}

enum status store_master_register(struct store_master *master, uint64_t now_ns,
                                  const struct store_member_info *info, uint64_t term_seen,
                                  struct store_node_id *out)
{
    if (!info_valid(info) || term_seen >= STORE_TERM_END - 1) return STATUS_INVALID;
    if (term_seen > master->term) term_raise(master, now_ns, term_seen + 1);
    struct member *member = master_member_find(master, info->name);
    if (member != NULL && member->info.epoch == info->epoch) {
        master_member_heard(master, member, now_ns);
        *out = member->id;
        return STATUS_OK;
    }
    if (member != NULL) member_forget(master, member);
    return member_add(master, now_ns, info, out);
}

enum status store_master_beat(struct store_master *master, uint64_t now_ns, const char *name,
                              uint64_t epoch)
{
    struct member *member = master_member_find(master, name);
    if (member == NULL || member->info.epoch != epoch) return STATUS_NOT_FOUND;
    master_member_heard(master, member, now_ns);
    return STATUS_OK;
}

void store_master_leave(struct store_master *master, uint64_t now_ns, const char *name,
                        uint64_t epoch)
{
    struct member *member = master_member_find(master, name);
    (void)now_ns;
    if (member != NULL && member->info.epoch == epoch) member_forget(master, member);
}

uint32_t store_master_members(const struct store_master *master)
{
    return master->members_count;
}

bool store_master_member(const struct store_master *master, uint32_t nth,
                         struct store_member_info *info, enum store_member_state *state,
                         struct store_node_id *id)
{
    if (nth >= master->members_count) return false;
    const struct member *member = master->by_age[nth];
    *info = member->info;
    *state = member->state;
    *id = member->id;
    return true;
}

bool store_master_member_counts(const struct store_master *master, uint64_t now_ns,
                                struct store_node_id id, struct store_member_counts *out)
{
    const struct member *member = master_member_at(master, id);
    if (member == NULL) return false;
    *out = (struct store_member_counts){ .space_total = space_total(member->space),
                                         .space_used = space_used(member->space),
                                         .values = member->values,
                                         .blocks = member->blocks,
                                         .draining = member->draining,
                                         .barred = master_member_barred(member, now_ns),
                                         .load = member->load,
                                         .faults = member->faults,
                                         .damaged = member->damaged,
                                         .silent_ns = now_ns - member->heard_ns };
    return true;
}

void master_member_tick(struct store_master *master, struct member *member, uint64_t now_ns)
{
    const struct store_master_options *o = &master->options;
    const uint64_t silent = now_ns - member->heard_ns;

    if (silent >= master_ms(o->dead_ms) + master_ms(o->forget_ms)) {
        member_forget(master, member);
    } else if (silent >= master_ms(o->dead_ms)) {
        member_set_state(master, member, STORE_MEMBER_DEAD);
    } else if (silent >= master_ms(o->suspect_ms) && member->state == STORE_MEMBER_ALIVE) {
        member_set_state(master, member, STORE_MEMBER_SUSPECT);
    }
}
