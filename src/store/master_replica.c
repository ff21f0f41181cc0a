/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_replica.c - who has a value. Every replica is on two lists: its entry's, its
 * node's. A placed one owns its range of the node's space.
 */
#include "store/master_int.h"

#include <string.h>

#include "base/assert.h"

struct replica *master_replica_find(const struct store_master *master, const struct entry *entry,
                                    const struct member *member)
{
    for (struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (master_member_with(master, r) == member) return r;
    }
    return NULL;
}

static uint64_t *replicas_of_class(const struct entry *entry, struct member *member)
{
    return master_entry_block(entry) ? &member->blocks : &member->values;
}

/* ---- the member's list ---- */

static void member_push(struct store_master *master, struct member *member, uint32_t link)
{
    struct replica *replica = master_replica_at(master, link);
    struct replica *next = master_replica_at(master, member->replicas);

    replica->next_of_member = member->replicas;
    if (next != NULL) next->prev_of_member = link;
    member->replicas = link;
}

static void member_unlink(struct store_master *master, struct member *member, uint32_t link)
{
    const struct replica *replica = master_replica_at(master, link);
    struct replica *prev = master_replica_at(master, replica->prev_of_member);
    struct replica *next = master_replica_at(master, replica->next_of_member);

    if (prev == NULL) {
        ASSERT(member->replicas == link);
        member->replicas = replica->next_of_member;
    } else {
        prev->next_of_member = replica->next_of_member;
    }
    if (next != NULL) next->prev_of_member = replica->prev_of_member;
}

/* ---- life ---- */

struct replica *master_replica_new(struct store_master *master, struct entry *entry,
                                   struct member *member)
{
    uint32_t number;
    struct replica *replica = slab_alloc(master->replicas, &number);
    if (replica == NULL) return NULL;
    replica->entry = entry->index;
    replica->member = master_member_slot(member->id) & ((1u << MASTER_SLOT_BITS) - 1);
    replica->next_of_entry = entry->replicas;
    entry->replicas = number + 1;
    entry->replicas_count++;
    member_push(master, member, number + 1);
    *replicas_of_class(entry, member) += 1;
    master->counts.replicas++;
    return replica;
}

/* Takes it out of its entry's list. */
static uint32_t entry_unlink(struct store_master *master, struct entry *entry,
                             const struct replica *replica)
{
    uint32_t *link = &entry->replicas;
    while (master_replica_at(master, *link) != replica)
        link = &master_replica_at(master, *link)->next_of_entry;
    const uint32_t found = *link;
    *link = replica->next_of_entry;
    entry->replicas_count--;
    return found;
}

void master_replica_remove(struct store_master *master, struct replica *replica)
{
    struct entry *entry = master_entry_with(master, replica);
    struct member *member = master_member_with(master, replica);

    master_replica_unplace(master, replica);
    const uint32_t link = entry_unlink(master, entry, replica);
    member_unlink(master, member, link);
    *replicas_of_class(entry, member) -= 1;
    slab_free(master->replicas, link - 1);
    ASSERT(master->counts.replicas > 0);
    master->counts.replicas--;
    master_copies_look(master, entry);
    master_entry_settle(master, entry);
}

/* ---- its range ---- */

static uint32_t tenant_of(const struct store_master *master, const struct replica *replica)
{
    return master_entry_with(master, replica)->tenant;
}

/* A placed one's bytes are being dropped, or are not any more. */
static void dropping_count(struct store_master *master, const struct replica *replica, bool begins)
{
    struct member *member = master_member_with(master, replica);
    const uint64_t size = master_replica_bytes(replica);

    ASSERT(begins || member->dropping >= size);
    member->dropping = begins ? member->dropping + size : member->dropping - size;
    master_tenant_dropping(master, tenant_of(master, replica), size, begins);
}

void master_replica_dropping(struct store_master *master, struct replica *replica, bool begins)
{
    ASSERT(replica->dropping != begins);
    replica->dropping = begins;
    if (replica->placed) dropping_count(master, replica, begins);
}

void master_replica_own(struct store_master *master, struct replica *replica)
{
    ASSERT(!replica->placed);
    replica->placed = true;
    master_tenant_charge(master, tenant_of(master, replica), master_replica_bytes(replica));
    if (replica->dropping) dropping_count(master, replica, true);
}

void master_replica_unplace(struct store_master *master, struct replica *replica)
{
    const struct member *member = master_member_with(master, replica);
    const uint64_t size = master_replica_bytes(replica);

    if (replica->dropping) master_replica_dropping(master, replica, false);
    if (!replica->placed) return;
    space_free(member->space, replica->address, size);
    replica->placed = false;
    master_tenant_credit(master, tenant_of(master, replica), size);
}

/* ---- what it says ---- */

bool master_replica_readable(const struct store_master *master, const struct replica *replica)
{
    return !replica->dropping && !replica->stale &&
           master_member_with(master, replica)->state != STORE_MEMBER_DEAD;
}

bool master_replica_sure(const struct store_master *master, const struct replica *replica)
{
    return master_replica_readable(master, replica) && (!replica->doubt || master->settled);
}

void master_replica_describe(const struct member *member, uint64_t address, uint64_t generation,
                             struct store_replica *out)
{
    out->node = member->id;
    memcpy(out->rpc_address, member->info.rpc_address, sizeof(out->rpc_address));
    memcpy(out->segment, member->info.segment, sizeof(out->segment));
    out->address = address;
    out->generation = generation;
    out->epoch = member->info.epoch;
    out->disk = false;
    out->yields = false;
}
