/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_place.c - which node gets a value: its writer's, or one drawn by room, load and
 * health.
 *
 * Two members are drawn by chance, and the one with more room (slow start: store/master_member.c)
 * gets it, so that load follows room and nobody is stampeded. Who is busy with readers and writers
 * gives way by chance, too: nodes say with their beats how many bytes a second they move, and one
 * that moves more than LOAD_FLOOR above nine eighths of what the others do on average keeps only a
 * part of what it draws; for the rest is drawn again. What is given away grows with the excess, and
 * from none, so there is no swinging between nodes; where all are busy alike, or none is, room
 * alone decides. Squared, because what a node can move is what it says at most, however much more
 * is wanted of it.
 *
 *      keep = 1                                 load <= free = LOAD_FLOOR + 9/8 mean of the others
 *      keep = (free / load) ^ 2                 above it
 *
 * Copies go where room times keep is most, and readers of several replicas are sent to each owner
 * in proportion.
 *
 * Quarantine of a node (not that of ranges, which waits for writers: store/master_ticket.c):
 *
 *                 FAILED_BAR in a row failed, or FAULTS_BAR faults between two looks
 *     WELCOME ------------------------------------------------------------------------> BARRED
 *        ^ ^    one put there succeeds                                 bar_ms have passed  |
 *        | +------------------------------- PROBED <---------------------------------------+
 *        |                                    |
 *        +--- (life of the node ends)         +---- one more fails: BARRED for twice as long
 *
 * What fails is what a writer has given back, and a copy; of one source's in a row only the first,
 * since the cause may be there. A ticket that runs out says that its writer was silent, and one of
 * a value put layer by layer is given back by who needs it no more, too: the node starts slowly,
 * and is not barred for it.
 *
 * Who is BARRED gets nothing new, while there is anybody else who lends so much; it serves what it
 * has. Who is PROBED starts slowly, so that few puts find out. A writer that names the node gets
 * it: that is its own risk, and a probe. Where eviction at the others does not help, a value goes
 * to a barred node all the same: no put is refused for this. */
#include "store/master_int.h"

#include <string.h>

#include "base/assert.h"
#include "base/rng.h"

enum {
    LOAD_FLOOR = 64 << 20, /* bytes a second */
    DRAWS_MAX = 4,
    FAILED_BAR = 6, /* puts and copies in a row */
    FAULTS_BAR = 3,
    FAULTS_MS = 10000, /* between two looks at them */
    BAR_MS_LEAST = 10000,
    BAR_MS_MOST = 300000,
};

#define LOAD_MOST (UINT64_C(1) << 50) /* bytes a second that are believed */

/* ---- load ---- */

void store_master_load(struct store_master *master, const char *name,
                       const struct store_node_load *load)
{
    struct member *member = master_member_find(master, name);
    if (member == NULL) return;
    member->load = load->bytes < LOAD_MOST ? load->bytes : LOAD_MOST;
    member->faults = load->faults;
    if (!member->faults_told) member->faults_seen = load->faults; /* not ours to judge */
    member->faults_told = true;
    member->damaged = load->damaged;
}

static bool takes_part(const struct member *member)
{
    return master_member_lends(member, 1);
}

void master_loads_run(struct store_master *master)
{
    uint64_t total = 0;
    uint32_t count = 0;

    for (uint32_t i = 0; i < master->members_count; i++) {
        if (!takes_part(master->by_age[i])) continue;
        total += master->by_age[i]->load;
        count++;
    }
    for (uint32_t i = 0; i < master->members_count; i++) {
        struct member *member = master->by_age[i];
        member->keep = MASTER_KEEP_ALL;
        if (!takes_part(member) || count < 2) continue;
        const uint64_t others = (total - member->load) / (count - 1);
        const uint64_t free = LOAD_FLOOR + others + others / 8;
        if (member->load <= free) continue;
        const uint64_t part = free * MASTER_KEEP_ALL / member->load;
        member->keep = (uint32_t)(part * part / MASTER_KEEP_ALL);
    }
}

bool master_member_keeps(struct rng *rng, const struct member *member)
{
    return member->keep == MASTER_KEEP_ALL || rng_below(rng, MASTER_KEEP_ALL) < member->keep;
}

/* ---- quarantine ---- */

bool master_member_barred(const struct member *member, uint64_t now_ns)
{
    return now_ns < member->barred_until;
}

static void bar(struct store_master *master, struct member *member, uint64_t now_ns)
{
    const uint32_t longer = 2 * member->bar_ms;

    if (master_member_barred(member, now_ns)) return;
    member->bar_ms = longer < BAR_MS_LEAST  ? BAR_MS_LEAST
                     : longer < BAR_MS_MOST ? longer
                                            : BAR_MS_MOST;
    member->barred_until = now_ns + master_ms(member->bar_ms);
    member->slow_ns = member->barred_until;
    member->failed_puts = FAILED_BAR - 1; /* when it is over, one more is enough */
    member->failed_from = (struct store_node_id){ 0 };
    master->counts.barred_total++;
    struct store_action *action = master_action(master, STORE_ACTION_BARRED, member);
    if (action != NULL) action->bar_ms = member->bar_ms;
}

void master_member_failed(struct store_master *master, struct member *member, uint64_t now_ns)
{
    if (master_member_barred(member, now_ns)) return;
    member->failed_puts++;
    master_member_slow(member, now_ns);
    if (member->failed_puts >= FAILED_BAR) bar(master, member, now_ns);
}

void master_member_copy_failed(struct store_master *master, struct member *member,
                               struct store_node_id from, uint64_t now_ns)
{
    if (member->failed_from.index == from.index) return;
    member->failed_from = from;
    master_member_failed(master, member, now_ns);
}

void master_member_served(struct member *member, uint64_t now_ns)
{
    member->failed_puts = 0;
    member->failed_from = (struct store_node_id){ 0 };
    if (!master_member_barred(member, now_ns)) member->bar_ms = 0;
}

/* Faults that it has told of. */
void master_bars_run(struct store_master *master, uint64_t now_ns)
{
    for (uint32_t i = 0; i < master->members_count; i++) {
        struct member *member = master->by_age[i];
        if (now_ns < member->faults_look_ns) continue;
        const uint64_t before = member->faults_seen;
        member->faults_seen = member->faults;
        member->faults_look_ns = now_ns + master_ms(FAULTS_MS);
        if (member->faults >= before + FAULTS_BAR) bar(master, member, now_ns);
    }
}

bool master_member_takes(const struct store_master *master, const struct member *member,
                         uint64_t now_ns, uint64_t size)
{
    if (!master_member_lends(member, size)) return false;
    if (!master_member_barred(member, now_ns)) return true;
    for (uint32_t i = 0; i < master->members_count; i++) {
        const struct member *other = master->by_age[i];
        if (!master_member_barred(other, now_ns) && master_member_lends(other, size)) return false;
    }
    return true;
}

/* ---- placing ---- */

static bool place_at(struct member *member, uint64_t size, uint64_t *address)
{
    return master_member_lends(member, size) &&
           space_alloc(member->space, size, address) == STATUS_OK;
}

/* Where the writer wants it. NULL: it wants nothing, or there is no room there. */
static struct member *place_wished(struct store_master *master, uint64_t size,
                                   const struct store_wish *wish, uint64_t *address)
{
    struct member *member = wish->near == NULL ? NULL : master_member_at(master, *wish->near);
    if (place_at(member, size, address)) return member;
    if (wish->preferred == NULL) return NULL;
    member = master_member_find(master, wish->preferred);
    if (place_at(member, size, address)) return member;
    for (const char *at = wish->next; at != NULL && *at != '\0'; at += strlen(at) + 1) {
        member = master_member_find(master, at);
        if (place_at(member, size, address)) return member;
    }
    return NULL;
}

/* The more appealing of two, unless it is too busy. */
static struct member *draw(struct store_master *master, uint64_t now_ns,
                           struct member *const *lenders, uint32_t count)
{
    struct member *a = NULL;
    for (int i = 0; i < DRAWS_MAX; i++) {
        a = lenders[rng_below(&master->rng, count)];
        struct member *b = lenders[rng_below(&master->rng, count)];
        if (master_member_appeal(b, now_ns) > master_member_appeal(a, now_ns)) a = b;
        if (master_member_keeps(&master->rng, a)) break;
    }
    return a;
}

struct member *master_place(struct store_master *master, uint64_t now_ns, uint64_t size,
                            const struct store_wish *wish, uint64_t *address)
{
    struct member *lenders[STORE_MEMBERS_MAX];
    struct member *barred[STORE_MEMBERS_MAX];
    uint32_t count = 0;
    uint32_t barred_count = 0;

    struct member *member = place_wished(master, size, wish, address);
    if (member != NULL) return member;
    for (uint32_t i = 0; i < master->members_count; i++) {
        member = master->by_age[i];
        if (!master_member_lends(member, size)) continue;
        if (master_member_barred(member, now_ns)) {
            barred[barred_count++] = member;
        } else {
            lenders[count++] = member;
        }
    }
    struct member *const *from = count > 0 ? lenders : barred;
    if (count == 0) count = barred_count;
    if (count == 0) return NULL;
    member = draw(master, now_ns, from, count);
    if (space_alloc(member->space, size, address) == STATUS_OK) return member;
    for (uint32_t i = 0; i < count; i++) {
        if (space_alloc(from[i]->space, size, address) == STATUS_OK) return from[i];
    }
    return NULL;
}

struct member *master_place_barred(struct store_master *master, uint64_t now_ns, uint64_t size,
                                   uint64_t *address)
{
    for (uint32_t i = 0; i < master->members_count; i++) {
        struct member *member = master->by_age[i];
        if (master_member_barred(member, now_ns) && place_at(member, size, address)) return member;
    }
    return NULL;
}
