/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_action.c - what the directory asks of others: a ring of actions that the shell
 * takes, and the drops among them, which are repeated until their owner has done them.
 *
 *             master_replica_drop()          REMOVED from the owner
 *   (is there) --------------------> dropping ---------------------> (gone)
 *        ^   BUSY, and asked for space only |   ^
 *        +----------------------------------+   | after DROP_RETRY_MS
 *                       anything else, or BUSY  v
 *                                          waiting for its next try
 */
#include "store/master_int.h"

#include <stdlib.h>

#include "base/assert.h"

enum {
    DROP_RETRY_MS = 200,
    RETRIES_AHEAD = 4096, /* drops that are queued again at once */
    KEPT = 1024,          /* of an empty list: a larger one is given back */
};

/* Room for one more; false at the limit. */
static bool actions_reserve(struct actions *actions)
{
    if (actions->count < actions->capacity) return true;
    if (actions->capacity >= STORE_ACTIONS_MAX) return false;
    const uint32_t capacity = actions->capacity == 0 ? 16 : 2 * actions->capacity;
    struct store_action *list = malloc(capacity * sizeof(*list));
    if (list == NULL) return false;
    for (uint32_t i = 0; i < actions->count; i++) {
        list[i] = actions->list[(actions->first + i) % actions->capacity];
    }
    free(actions->list);
    actions->list = list;
    actions->capacity = capacity;
    actions->first = 0;
    return true;
}

struct store_action *master_action(struct store_master *master, enum store_action_kind kind,
                                   const struct member *member)
{
    struct actions *actions = &master->actions;
    if (!actions_reserve(actions)) return NULL;
    struct store_action *action =
        &actions->list[(actions->first + actions->count) % actions->capacity];
    *action = (struct store_action){
        .kind = kind, .node = member->id, .info = member->info, .state = member->state
    };
    actions->count++;
    return action;
}

bool master_action_push(struct store_master *master, enum store_action_kind kind,
                        const struct member *member, const struct block_key *id,
                        uint64_t generation)
{
    struct store_action *action = master_action(master, kind, member);
    if (action == NULL) return false;
    if (id != NULL) action->id = *id;
    action->generation = generation;
    return true;
}

bool store_master_next_action(struct store_master *master, struct store_action *out)
{
    struct actions *actions = &master->actions;
    if (actions->count == 0) return false;
    *out = actions->list[actions->first];
    actions->first = (actions->first + 1) % actions->capacity;
    actions->count--;
    if (actions->count == 0 && actions->capacity > KEPT) {
        free(actions->list);
        *actions = (struct actions){ 0 };
    }
    return true;
}

bool master_replica_drop(struct store_master *master, struct replica *replica, bool evict)
{
    ASSERT(!replica->dropping);
    struct store_action *action =
        master_action(master, STORE_ACTION_DROP, master_member_with(master, replica));
    if (action == NULL) return false;
    action->id = master_entry_with(master, replica)->id;
    action->generation = replica->generation;
    action->evict = evict;
    master_replica_dropping(master, replica, true);
    return true;
}

static bool drop_later(struct store_master *master, const struct retry *retry)
{
    if (master->retries_count == master->retries_capacity) {
        const uint32_t capacity = master->retries_capacity == 0 ? 16 : 2 * master->retries_capacity;
        struct retry *list = realloc(master->retries, capacity * sizeof(*list));
        if (list == NULL) return false;
        master->retries = list;
        master->retries_capacity = capacity;
    }
    master->retries[master->retries_count++] = *retry;
    return true;
}

void master_replica_outdate(struct store_master *master, uint64_t now_ns, struct replica *replica)
{
    replica->stale = true;
    if (replica->dropping || master_replica_drop(master, replica, false)) return;
    const struct retry retry = { master_member_with(master, replica)->id,
                                 master_entry_with(master, replica)->id, replica->generation,
                                 now_ns };
    if (!drop_later(master, &retry)) return; /* no memory: its node's next announcement drops it */
    master_replica_dropping(master, replica, true);
}

void store_master_dropped(struct store_master *master, uint64_t now_ns, struct store_node_id node,
                          const struct block_key *id, uint64_t generation, enum status status)
{
    const struct member *member = master_member_at(master, node);
    struct entry *entry = master_entry_find(master, id);
    struct replica *replica =
        member != NULL && entry != NULL ? master_replica_find(master, entry, member) : NULL;

    if (replica == NULL || replica->generation != generation || !replica->dropping) return;
    if (status == STATUS_OK || status == STATUS_NOT_FOUND) return; /* REMOVED comes or has come */
    if (status == STATUS_BUSY) replica->busy = true;
    if (status == STATUS_BUSY && !entry->removing && !replica->stale) {
        master_replica_dropping(master, replica, false);
        master_entry_used(master, entry);
        return;
    }
    const struct retry retry = { node, *id, generation, now_ns + master_ms(DROP_RETRY_MS) };
    if (!drop_later(master, &retry)) master_replica_dropping(master, replica, false);
}

void master_drops_retry(struct store_master *master, uint64_t now_ns)
{
    uint32_t i = 0;
    while (i < master->retries_count && master->actions.count < RETRIES_AHEAD) {
        const struct retry retry = master->retries[i];
        if (retry.due_ns > now_ns) {
            i++;
            continue;
        }
        master->retries[i] = master->retries[--master->retries_count];
        const struct member *member = master_member_at(master, retry.node);
        const struct entry *entry = master_entry_find(master, &retry.id);
        struct replica *replica =
            member != NULL && entry != NULL ? master_replica_find(master, entry, member) : NULL;
        if (replica == NULL || replica->generation != retry.generation || !replica->dropping) {
            continue;
        }
        master_replica_dropping(master, replica, false);
        const bool evict = !entry->removing && !replica->stale && replica->placed;
        if (!master_replica_drop(master, replica, evict)) return;
    }
    if (master->retries_count == 0 && master->retries_capacity > KEPT) {
        free(master->retries);
        master->retries = NULL;
        master->retries_capacity = 0;
    }
}
