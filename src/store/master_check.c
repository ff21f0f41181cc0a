/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_check.c - checks every count of the directory against what it counts. The
 * invariants are on top of store/master.c.
 */
#include "store/master_int.h"

#include <string.h>

#include "base/assert.h"

static uint64_t tickets_bytes(const struct ticket_list *list, const struct member *member)
{
    uint64_t sum = 0;
    for (const struct ticket *ticket = list->head; ticket != NULL; ticket = ticket->next) {
        if (ticket->member == member)
            sum += (uint64_t)master_granules(ticket->size) * SPACE_GRANULE;
    }
    return sum;
}

static uint64_t member_check(const struct store_master *master, const struct member *member)
{
    uint64_t placed = 0;
    uint64_t dropping = 0;
    uint64_t count = 0;

    for (uint32_t link = member->replicas; link != 0;) {
        const struct replica *r = master_replica_at(master, link);
        const struct entry *entry = master_entry_with(master, r);
        ASSERT(master_member_with(master, r) == member);
        ASSERT(master_replica_find(master, entry, member) == r);
        if (r->placed) placed += master_replica_bytes(r);
        if (r->placed && r->dropping) dropping += master_replica_bytes(r);
        ASSERT(r->stale || r->granules == master_granules(entry->size) ||
               master_entry_block(entry));
        count++;
        link = r->next_of_member;
    }
    ASSERT(member->values + member->blocks == count);
    placed += tickets_bytes(&master->tickets, member) + tickets_bytes(&master->limbo, member);
    ASSERT(space_used(member->space) == placed); /* I2 */
    ASSERT(member->dropping == dropping);        /* I5 */
    space_check(member->space);
    return count;
}

static void list_charge(struct store_quota *charged, const struct ticket_list *list)
{
    uint64_t sum = 0;
    for (const struct ticket *t = list->head; t != NULL; t = t->next) {
        const uint64_t bytes = (uint64_t)master_granules(t->size) * SPACE_GRANULE;
        charged[t->tenant].bytes += bytes;
        charged[t->tenant].replicas++;
        sum += bytes;
    }
    ASSERT(list->bytes == sum);
}

/* I7, counted from what there is; and what stands in the tenants' orders. */
static void tenants_check(const struct store_master *master)
{
    static struct store_quota charged[STORE_TENANTS_MAX], dropping[STORE_TENANTS_MAX];
    static uint64_t values[STORE_TENANTS_MAX];
    memset(charged, 0, sizeof(charged));
    memset(dropping, 0, sizeof(dropping));
    memset(values, 0, sizeof(values));

    for (uint32_t i = 0; (i = slab_next(master->entries, i)) != SLAB_NONE; i++) {
        const struct entry *entry = master_entry_at(master, i);
        values[entry->tenant] += !master_entry_block(entry);
        for (const struct replica *r = master_replica_first(master, entry); r != NULL;
             r = master_replica_next(master, r)) {
            if (!r->placed) continue;
            charged[entry->tenant].bytes += master_replica_bytes(r);
            charged[entry->tenant].replicas++;
            if (!r->dropping) continue;
            dropping[entry->tenant].bytes += master_replica_bytes(r);
            dropping[entry->tenant].replicas++;
        }
    }
    list_charge(charged, &master->tickets);
    list_charge(charged, &master->limbo);
    for (uint32_t i = 0; i < STORE_TENANTS_MAX; i++) {
        const struct tenant *tenant = master->tenants[i];
        ASSERT(tenant != NULL || (charged[i].replicas == 0 && values[i] == 0));
        if (tenant == NULL) continue;
        ASSERT(memcmp(&tenant->used, &charged[i], sizeof(charged[i])) == 0);
        ASSERT(memcmp(&tenant->dropping, &dropping[i], sizeof(dropping[i])) == 0);
        ASSERT(tenant->values == values[i] && i < master->tenants_top);
        order_check(tenant->order);
        order_check(tenant->soft);
    }
}

void store_master_check(const struct store_master *master)
{
    uint64_t replicas = 0;
    uint64_t by_member = 0;
    uint64_t values = 0;
    uint32_t copies = 0;
    uint32_t working = 0;

    for (uint32_t i = 0; (i = slab_next(master->entries, i)) != SLAB_NONE; i++) {
        const struct entry *entry = master_entry_at(master, i);
        bool placed = false;
        ASSERT(entry->replicas != 0 || entry->ticket != 0); /* I1 */
        ASSERT(entry->ticket == 0 || master_entry_ticket(master, entry)->entry == entry);
        for (const struct replica *r = master_replica_first(master, entry); r != NULL;
             r = master_replica_next(master, r)) {
            replicas++;
            placed = placed || r->placed;
        }
        ASSERT(order_has(&entry->order) == (placed && !master_entry_hard(entry))); /* I3 */
        ASSERT(slab_at(master->entries, entry->index) == entry);
        values += !master_entry_block(entry);
        working += entry->extra != NULL && entry->extra->working;
    }
    uint32_t copies_of_members = 0;
    for (const struct ticket *t = master->tickets.head; t != NULL; t = t->next) {
        copies += t->copy;
        copies_of_members += t->copy && master_member_at(master, t->from) != NULL;
    }
    for (uint32_t i = 0; i < master->members_count; i++)
        copies_of_members -= master->by_age[i]->copies_from;
    ASSERT(copies_of_members == 0);
    ASSERT(copies == master->copies);
    for (uint32_t i = 0; i < master->tenants_top; i++)
        if (master->tenants[i] != NULL) copies -= master->tenants[i]->copies;
    ASSERT(copies == 0);
    tenants_check(master);
    master_hot_check(master);
    master_tasks_check(master);
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        if (master->members[i] != NULL) by_member += member_check(master, master->members[i]);
    }
    ASSERT(replicas == by_member && replicas == master->counts.replicas);
    ASSERT(idmap_count(master->ids) == master->counts.objects);
    idmap_check(master->ids);
    ASSERT(slab_count(master->entries) == master->counts.objects);
    ASSERT(values == master->counts.values && working == master->work_count);
}
