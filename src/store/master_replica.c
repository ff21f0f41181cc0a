/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_replica.c - who has a value. Every replica is on two lists: its entry's, its
 * node's. A placed one owns its range of the node's space.
 */
#include "store/master_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

struct replica *master_replica_find(const struct entry *entry, const struct member *member)
{
    for (struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (r->member == member) return r;
    }
    return NULL;
}

static uint64_t *replicas_of_class(const struct entry *entry, struct member *member)
{
    return entry->key == NULL ? &member->blocks : &member->values;
}

struct replica *master_replica_new(struct store_master *master, struct entry *entry,
                                   struct member *member)
{
    struct replica *replica = calloc(1, sizeof(*replica));
    if (replica == NULL) return NULL;
    replica->entry = entry;
    replica->member = member;
    replica->next_of_entry = entry->replicas;
    entry->replicas = replica;
    entry->replicas_count++;
    replica->next_of_member = member->replicas;
    if (member->replicas != NULL) member->replicas->prev_of_member = replica;
    member->replicas = replica;
    *replicas_of_class(entry, member) += 1;
    master->counts.replicas++;
    return replica;
}

void master_replica_own(struct replica *replica)
{
    ASSERT(!replica->placed);
    replica->placed = true;
    if (replica->dropping) replica->member->dropping += master_replica_bytes(replica);
}

void master_replica_unplace(struct replica *replica)
{
    struct member *member = replica->member;
    const uint64_t size = master_replica_bytes(replica);

    if (replica->placed && replica->dropping) {
        ASSERT(member->dropping >= size);
        member->dropping -= size;
    }
    replica->dropping = false;
    if (replica->placed) space_free(member->space, replica->address, size);
    replica->placed = false;
}

void master_replica_remove(struct store_master *master, struct replica *replica)
{
    struct entry *entry = replica->entry;
    struct member *member = replica->member;
    struct replica **link = &entry->replicas;

    master_replica_unplace(replica);
    while (*link != replica)
        link = &(*link)->next_of_entry;
    *link = replica->next_of_entry;
    entry->replicas_count--;
    if (replica->prev_of_member == NULL) {
        ASSERT(member->replicas == replica);
        member->replicas = replica->next_of_member;
    } else {
        replica->prev_of_member->next_of_member = replica->next_of_member;
    }
    if (replica->next_of_member != NULL) {
        replica->next_of_member->prev_of_member = replica->prev_of_member;
    }
    *replicas_of_class(entry, member) -= 1;
    free(replica);
    ASSERT(master->counts.replicas > 0);
    master->counts.replicas--;
    master_copies_look(master, entry);
    master_entry_settle(master, entry);
}

bool master_replica_readable(const struct replica *replica)
{
    return !replica->dropping && !replica->stale && replica->member->state != STORE_MEMBER_DEAD;
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
}
