/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master.c - the directory: members, keys and replicas, tickets, the LRU list, drops.
 *
 *   id -> entry -> replica -> member      every replica is on two lists: its entry's, its node's
 *            |
 *            +---> ticket -> space        a put in progress owns a range of its node's space
 *
 * A range of a node's space belongs to exactly one of: a ticket, a replica that is `placed`, or
 * limbo. Limbo keeps the range of a ticket that was given up until no writer can write into it any
 * more: its time to write (put_ms) and the transfer engine's lease on a silent connection
 * (fence_ms). A commit that comes late, but before that, takes its range out of limbo and is as
 * good as any.
 *
 * Eviction happens on the allocation path. Who finds no room evicts the least recently used values
 * without a lease, by asking their owners to drop them, and is told to ask again; the space is free
 * when the owner's REMOVED event arrives, never before.
 *
 * Invariants (store_master_check())
 *   I1  An entry has a replica or a ticket; else it is deleted.
 *   I2  The used bytes of a node's space are those of its tickets, placed replicas and limbo.
 *   I3  An entry is on the LRU list exactly when it is a value with a placed replica.
 *   I4  A replica is dropping exactly when a DROP for it is queued, under way or waiting for its
 * next try; its bytes are counted in its node's `dropping`. */
#include "store/master.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/map.h"
#include "base/rng.h"
#include "store/proto.h"
#include "store/slab.h"
#include "store/space.h"

enum {
    OBJECTS_MAX_DEFAULT = 1 << 24,
    EVICT_LOOKS_MAX = 1024, /* entries looked at for one put */
    DROP_RETRY_MS = 200,
    NODE_SLOT_BITS = 11, /* of a node id: slot + 1; the rest counts lives */
};

struct entry;

struct replica {
    struct entry *entry;
    struct member *member;
    struct replica *next_of_entry;
    struct replica *prev_of_member;
    struct replica *next_of_member;
    uint64_t address;
    uint64_t generation;
    uint32_t round; /* of the member's announcements that last named it */
    bool placed;    /* owns its range of the member's space */
    bool dropping;
};

struct ticket {
    struct entry *entry; /* NULL in limbo */
    struct member *member;
    struct ticket *prev;
    struct ticket *next;
    uint64_t put_id;
    uint64_t writer;
    uint64_t address;
    uint64_t size;
    uint64_t due_ns; /* to be discarded, or in limbo to be freed */
};

struct ticket_list {
    struct ticket *head;
    struct ticket *tail;
    uint64_t count;
};

struct entry {
    struct block_key id;
    uint8_t *key; /* NULL for a block: the id is the key */
    uint32_t key_len;
    uint32_t replicas_count;
    uint32_t index; /* in the slab of entries */
    uint64_t size;
    uint64_t digest;
    uint64_t lease_until;
    struct replica *replicas;
    struct ticket *ticket;
    struct entry *lru_prev;
    struct entry *lru_next;
    bool on_lru;
    bool removing; /* asked for, not for space: its drops are repeated until they succeed */
};

struct member {
    struct store_member_info info;
    struct store_node_id id;
    enum store_member_state state;
    uint64_t heard_ns;
    uint32_t round;
    bool announced;           /* a snapshot of this life was complete once */
    bool synced;              /* the present snapshot is complete: what is not known is not there */
    uint64_t generation_seen; /* the highest that its events have named */
    struct space *space;
    uint64_t dropping; /* bytes of its placed replicas that are being dropped */
    uint64_t values;   /* replicas of values, and of blocks */
    uint64_t blocks;
    struct replica *replicas;
};

struct retry {
    struct store_node_id node;
    struct block_key id;
    uint64_t generation;
    uint64_t due_ns;
};

struct actions {
    struct store_action *list; /* a ring */
    uint32_t capacity;
    uint32_t first;
    uint32_t count;
};

struct store_master {
    struct store_master_options options;
    uint64_t term;
    uint64_t started_ns;
    struct map *directory; /* id -> struct entry * */
    struct slab *entries;  /* what lists walk */
    struct member *members[STORE_MEMBERS_MAX];
    uint32_t members_count;
    struct member *by_age[STORE_MEMBERS_MAX]; /* the same ones, in the order of registration */
    uint32_t lives;
    struct entry *lru_head; /* least recently used */
    struct entry *lru_tail;
    struct ticket_list tickets; /* by start, so by due_ns */
    struct ticket_list limbo;
    struct actions actions;
    struct retry *retries;
    uint32_t retries_count;
    uint32_t retries_capacity;
    struct rng rng;
    uint64_t puts_made;
    uint64_t key_bytes; /* of the keys of values */
    struct store_master_counts counts;
};

/* ---- life ---- */

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value == 0 ? otherwise : value;
}

static uint64_t ms(uint32_t value)
{
    return value * ENV_NS_PER_MS;
}

enum status store_master_create(const struct store_master_options *options, uint64_t now_ns,
                                struct store_master **out)
{
    if (options->term == 0 || options->objects_max > MAP_ENTRIES_MAX) return STATUS_INVALID;
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
    if (master->entries == NULL || map_create(&map, &master->directory) != STATUS_OK) {
        slab_destroy(master->entries);
        free(master);
        return STATUS_NO_MEMORY;
    }
    master->term = options->term;
    master->started_ns = now_ns;
    rng_init(&master->rng, options->seed ^ options->term);
    *out = master;
    return STATUS_OK;
}

static void entry_free(struct store_master *master, struct entry *entry)
{
    struct replica *next;
    for (struct replica *replica = entry->replicas; replica != NULL; replica = next) {
        next = replica->next_of_entry;
        free(replica);
    }
    if (entry->key != NULL) {
        ASSERT(master->counts.values > 0 && master->key_bytes >= entry->key_len);
        master->counts.values--;
        master->key_bytes -= entry->key_len;
    }
    free(entry->key);
    slab_free(master->entries, entry->index);
}

static void ticket_list_free(struct ticket_list *list)
{
    struct ticket *next;
    for (struct ticket *ticket = list->head; ticket != NULL; ticket = next) {
        next = ticket->next;
        free(ticket);
    }
}

void store_master_destroy(struct store_master *master)
{
    if (master == NULL) return;
    for (uint32_t i = 0; (i = slab_next(master->entries, i)) != SLAB_NONE; i++)
        entry_free(master, slab_at(master->entries, i));
    ticket_list_free(&master->tickets);
    ticket_list_free(&master->limbo);
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        if (master->members[i] == NULL) continue;
        space_destroy(master->members[i]->space);
        free(master->members[i]);
    }
    map_destroy(master->directory);
    slab_destroy(master->entries);
    free(master->actions.list);
    free(master->retries);
    free(master);
}

uint64_t store_master_term(const struct store_master *master)
{
    return master->term;
}

/* ---- actions ---- */

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

static bool action_push(struct store_master *master, enum store_action_kind kind,
                        const struct member *member, const struct block_key *id,
                        uint64_t generation)
{
    struct actions *actions = &master->actions;
    if (!actions_reserve(actions)) return false;
    struct store_action *action =
        &actions->list[(actions->first + actions->count) % actions->capacity];
    *action = (struct store_action){ .kind = kind,
                                     .node = member->id,
                                     .info = member->info,
                                     .state = member->state,
                                     .generation = generation };
    if (id != NULL) action->id = *id;
    actions->count++;
    return true;
}

bool store_master_next_action(struct store_master *master, struct store_action *out)
{
    struct actions *actions = &master->actions;
    if (actions->count == 0) return false;
    *out = actions->list[actions->first];
    actions->first = (actions->first + 1) % actions->capacity;
    actions->count--;
    return true;
}

/* ---- lists ---- */

static void ticket_append(struct ticket_list *list, struct ticket *ticket)
{
    ticket->prev = list->tail;
    ticket->next = NULL;
    if (list->tail == NULL) {
        list->head = ticket;
    } else {
        list->tail->next = ticket;
    }
    list->tail = ticket;
    list->count++;
}

static void ticket_unlink(struct ticket_list *list, struct ticket *ticket)
{
    ASSERT(list->count > 0);
    if (ticket->prev == NULL) {
        list->head = ticket->next;
    } else {
        ticket->prev->next = ticket->next;
    }
    if (ticket->next == NULL) {
        list->tail = ticket->prev;
    } else {
        ticket->next->prev = ticket->prev;
    }
    list->count--;
}

static void lru_unlink(struct store_master *master, struct entry *entry)
{
    ASSERT(entry->on_lru);
    if (entry->lru_prev == NULL) {
        master->lru_head = entry->lru_next;
    } else {
        entry->lru_prev->lru_next = entry->lru_next;
    }
    if (entry->lru_next == NULL) {
        master->lru_tail = entry->lru_prev;
    } else {
        entry->lru_next->lru_prev = entry->lru_prev;
    }
    entry->on_lru = false;
}

static void lru_append(struct store_master *master, struct entry *entry)
{
    ASSERT(!entry->on_lru);
    entry->lru_prev = master->lru_tail;
    entry->lru_next = NULL;
    if (master->lru_tail == NULL) {
        master->lru_head = entry;
    } else {
        master->lru_tail->lru_next = entry;
    }
    master->lru_tail = entry;
    entry->on_lru = true;
}

static void lru_touch(struct store_master *master, struct entry *entry)
{
    if (!entry->on_lru) return;
    lru_unlink(master, entry);
    lru_append(master, entry);
}

/* I3: on the list exactly when there is a placed replica. */
static void lru_settle(struct store_master *master, struct entry *entry)
{
    bool placed = false;
    for (const struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        placed = placed || r->placed;
    }
    if (placed && !entry->on_lru) lru_append(master, entry);
    if (!placed && entry->on_lru) lru_unlink(master, entry);
}

/* ---- entries and replicas ---- */

static struct entry *entry_find(const struct store_master *master, const struct block_key *id)
{
    uint64_t value;
    if (!map_find(master->directory, id, &value)) return NULL;
    return (struct entry *)(uintptr_t)value;
}

static bool entry_is(const struct entry *entry, struct store_key key)
{
    if (entry->key == NULL) return key.len == BLOCK_KEY_SIZE; /* its id is the key */
    return entry->key_len == key.len && memcmp(entry->key, key.bytes, key.len) == 0;
}

/* A key by its bytes. A collision of identities is an absent key. */
static struct entry *entry_lookup(const struct store_master *master, struct store_key key)
{
    const struct block_key id = store_key_id(key);
    struct entry *entry = entry_find(master, &id);
    return entry != NULL && entry_is(entry, key) ? entry : NULL;
}

/* `key` is empty for a block. NULL at objects_max. */
static struct entry *entry_new(struct store_master *master, const struct block_key *id,
                               struct store_key key)
{
    uint32_t index;
    struct entry *entry = slab_alloc(master->entries, &index);
    if (entry == NULL) return NULL;
    entry->id = *id;
    entry->index = index;
    if (key.len > 0) {
        entry->key = malloc(key.len);
        if (entry->key == NULL) {
            slab_free(master->entries, index);
            return NULL;
        }
        memcpy(entry->key, key.bytes, key.len);
        entry->key_len = key.len;
        master->key_bytes += key.len;
        master->counts.values++;
    }
    if (map_insert(master->directory, id, (uint64_t)(uintptr_t)entry) != STATUS_OK) {
        entry_free(master, entry);
        return NULL;
    }
    master->counts.objects++;
    return entry;
}

/* Deletes the entry if nothing is left of it (I1). */
static void entry_settle(struct store_master *master, struct entry *entry)
{
    lru_settle(master, entry);
    if (entry->replicas != NULL || entry->ticket != NULL) return;
    const bool was_there = map_remove(master->directory, &entry->id, NULL);
    ASSERT(was_there && master->counts.objects > 0);
    master->counts.objects--;
    entry_free(master, entry);
}

static struct replica *replica_find(const struct entry *entry, const struct member *member)
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

static struct replica *replica_new(struct store_master *master, struct entry *entry,
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

/* Gives back the replica's range and its share of `dropping`. */
static void replica_unplace(struct replica *replica)
{
    struct member *member = replica->member;
    const uint64_t size = replica->entry->size;

    if (replica->placed && replica->dropping) {
        ASSERT(member->dropping >= size);
        member->dropping -= size;
    }
    replica->dropping = false;
    if (replica->placed) space_free(member->space, replica->address, size);
    replica->placed = false;
}

/* The entry may be gone afterwards. */
static void replica_remove(struct store_master *master, struct replica *replica)
{
    struct entry *entry = replica->entry;
    struct member *member = replica->member;
    struct replica **link = &entry->replicas;

    replica_unplace(replica);
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
    entry_settle(master, entry);
}

/* ---- tickets ---- */

/* The put is over for its entry; the range stays the ticket's, now in limbo. */
static void ticket_discard(struct store_master *master, uint64_t now_ns, struct ticket *ticket)
{
    struct entry *entry = ticket->entry;
    ASSERT(entry->ticket == ticket);

    ticket_unlink(&master->tickets, ticket);
    entry->ticket = NULL;
    ticket->entry = NULL;
    ticket->due_ns = now_ns + ms(master->options.put_ms) + ms(master->options.fence_ms);
    ticket_append(&master->limbo, ticket);
    entry_settle(master, entry);
}

/* The put has come to its end: its range is the replica's now. */
static void ticket_finish(struct store_master *master, struct ticket *ticket)
{
    if (ticket->entry != NULL) {
        ASSERT(ticket->entry->ticket == ticket);
        ticket->entry->ticket = NULL;
        ticket_unlink(&master->tickets, ticket);
    } else {
        ticket_unlink(&master->limbo, ticket);
    }
    free(ticket);
}

/* Removes those of a member that is gone, with their entries where nothing else is left. */
static void tickets_forget(struct store_master *master, const struct member *member)
{
    struct ticket *next;
    for (struct ticket *ticket = master->tickets.head; ticket != NULL; ticket = next) {
        next = ticket->next;
        if (ticket->member != member) continue;
        struct entry *entry = ticket->entry;
        ticket_finish(master, ticket);
        entry_settle(master, entry);
    }
    for (struct ticket *ticket = master->limbo.head; ticket != NULL; ticket = next) {
        next = ticket->next;
        if (ticket->member == member) ticket_finish(master, ticket);
    }
}

/* ---- members ---- */

static struct member *member_at(const struct store_master *master, struct store_node_id id)
{
    const uint32_t slot = (id.index & ((1u << NODE_SLOT_BITS) - 1)) - 1;
    if (slot >= STORE_MEMBERS_MAX) return NULL;
    struct member *member = master->members[slot];
    return member != NULL && member->id.index == id.index ? member : NULL;
}

static struct member *member_find(const struct store_master *master, const char *name)
{
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        struct member *member = master->members[i];
        if (member != NULL && strcmp(member->info.name, name) == 0) return member;
    }
    return NULL;
}

/* Edges as in store/member.h; the watchers are told of each. */
static void member_set_state(struct store_master *master, struct member *member,
                             enum store_member_state state)
{
    if (member->state == state) return;
    ASSERT(state != STORE_MEMBER_SUSPECT || member->state == STORE_MEMBER_ALIVE);
    member->state = state;
    const bool told = action_push(master, STORE_ACTION_CHANGED, member, NULL, 0);
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
    const uint32_t slot = (member->id.index & ((1u << NODE_SLOT_BITS) - 1)) - 1;
    ASSERT(master->members[slot] == member);

    while (member->replicas != NULL)
        replica_remove(master, member->replicas);
    tickets_forget(master, member);
    action_push(master, STORE_ACTION_FORGET, member, NULL, 0);
    action_push(master, STORE_ACTION_GONE, member, NULL, 0);
    master->members[slot] = NULL;
    by_age_remove(master, member);
    space_destroy(member->space);
    free(member);
}

static void member_heard(struct store_master *master, struct member *member, uint64_t now_ns)
{
    member->heard_ns = now_ns;
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
    const uint32_t life = ++master->lives & (UINT32_MAX >> NODE_SLOT_BITS);
    member->info = *info;
    member->id.index = life << NODE_SLOT_BITS | (slot + 1);
    member->state = STORE_MEMBER_ALIVE;
    member->heard_ns = now_ns;
    master->members[slot] = member;
    master->by_age[master->members_count++] = member;
    action_push(master, STORE_ACTION_CHANGED, member, NULL, 0);
    action_push(master, STORE_ACTION_LISTEN, member, NULL, 0);
    *out = member->id;
    return STATUS_OK;
}

/* A node has heard of a later master than us: ours is the later term from now on. Nodes fence what
 * was under way for the term before, so its tickets are worth nothing; what is placed stays placed.
 */
static void term_raise(struct store_master *master, uint64_t now_ns, uint64_t term)
{
    master->term = term;
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        struct member *member = master->members[i];
        if (member == NULL) continue;
        action_push(master, STORE_ACTION_FORGET, member, NULL, 0);
        action_push(master, STORE_ACTION_LISTEN, member, NULL, 0);
    }
    while (master->tickets.head != NULL)
        ticket_discard(master, now_ns, master->tickets.head);
}

enum status store_master_register(struct store_master *master, uint64_t now_ns,
                                  const struct store_member_info *info, uint64_t term_seen,
                                  struct store_node_id *out)
{
    if (!info_valid(info) || term_seen == UINT64_MAX) return STATUS_INVALID;
    if (term_seen > master->term) term_raise(master, now_ns, term_seen + 1);
    struct member *member = member_find(master, info->name);
    if (member != NULL && member->info.epoch == info->epoch) {
        member_heard(master, member, now_ns);
        *out = member->id;
        return STATUS_OK;
    }
    if (member != NULL) member_forget(master, member);
    return member_add(master, now_ns, info, out);
}

enum status store_master_beat(struct store_master *master, uint64_t now_ns, const char *name,
                              uint64_t epoch)
{
    struct member *member = member_find(master, name);
    if (member == NULL || member->info.epoch != epoch) return STATUS_NOT_FOUND;
    member_heard(master, member, now_ns);
    return STATUS_OK;
}

void store_master_leave(struct store_master *master, uint64_t now_ns, const char *name,
                        uint64_t epoch)
{
    struct member *member = member_find(master, name);
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

/* Whether a key that is not in the directory is certainly absent. */
static bool settled(const struct store_master *master, uint64_t now_ns)
{
    if (now_ns < master->started_ns + ms(master->options.settle_ms)) return false;
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        const struct member *member = master->members[i];
        if (member != NULL && !member->announced && member->state != STORE_MEMBER_DEAD) {
            return false;
        }
    }
    return true;
}

/* ---- drops ---- */

/* I4. False if no action can be queued now: nothing changes. */
static bool replica_drop(struct store_master *master, struct replica *replica)
{
    ASSERT(!replica->dropping);
    if (!action_push(master, STORE_ACTION_DROP, replica->member, &replica->entry->id,
                     replica->generation)) {
        return false;
    }
    replica->dropping = true;
    if (replica->placed) replica->member->dropping += replica->entry->size;
    return true;
}

static void replica_undrop(struct replica *replica)
{
    ASSERT(replica->dropping);
    if (replica->placed) replica->member->dropping -= replica->entry->size;
    replica->dropping = false;
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

void store_master_dropped(struct store_master *master, uint64_t now_ns, struct store_node_id node,
                          const struct block_key *id, uint64_t generation, enum status status)
{
    const struct member *member = member_at(master, node);
    struct entry *entry = entry_find(master, id);
    struct replica *replica = member != NULL && entry != NULL ? replica_find(entry, member) : NULL;

    if (replica == NULL || replica->generation != generation || !replica->dropping) return;
    if (status == STATUS_OK || status == STATUS_NOT_FOUND) return; /* REMOVED comes or has come */
    if (status == STATUS_BUSY && !entry->removing) {
        replica_undrop(replica);
        lru_touch(master, entry);
        return;
    }
    const struct retry retry = { node, *id, generation, now_ns + ms(DROP_RETRY_MS) };
    if (!drop_later(master, &retry)) replica_undrop(replica);
}

static void retries_run(struct store_master *master, uint64_t now_ns)
{
    uint32_t i = 0;
    while (i < master->retries_count) {
        const struct retry retry = master->retries[i];
        if (retry.due_ns > now_ns) {
            i++;
            continue;
        }
        master->retries[i] = master->retries[--master->retries_count];
        const struct member *member = member_at(master, retry.node);
        const struct entry *entry = entry_find(master, &retry.id);
        struct replica *replica =
            member != NULL && entry != NULL ? replica_find(entry, member) : NULL;
        if (replica == NULL || replica->generation != retry.generation || !replica->dropping) {
            continue;
        }
        replica_undrop(replica);
        if (!replica_drop(master, replica)) return;
    }
}

/* ---- announcements ---- */

void store_master_reset(struct store_master *master, uint64_t now_ns, struct store_node_id node)
{
    struct member *member = member_at(master, node);
    if (member == NULL) return;
    member_heard(master, member, now_ns);
    member->round++;
    member->synced = false;
}

/* The range of a put in progress, or one in limbo, if this is what it has become. */
static struct ticket *ticket_of(const struct store_master *master, const struct entry *entry,
                                const struct member *member, uint64_t address, uint64_t size)
{
    struct ticket *ticket = entry->ticket;
    if (ticket != NULL && ticket->member == member && ticket->address == address) {
        return ticket->size == size ? ticket : NULL;
    }
    for (ticket = master->limbo.head; ticket != NULL; ticket = ticket->next) {
        if (ticket->member == member && ticket->address == address && ticket->size == size) {
            return ticket;
        }
    }
    return NULL;
}

/* Makes the range the replica's. False: it is somebody else's. */
static bool replica_place(struct store_master *master, struct replica *replica)
{
    struct entry *entry = replica->entry;
    struct member *member = replica->member;
    ASSERT(!replica->placed);

    struct ticket *ticket = ticket_of(master, entry, member, replica->address, entry->size);
    if (ticket != NULL) {
        ticket_finish(master, ticket);
        replica->placed = true;
        return true;
    }
    switch ((int)space_reserve(member->space, replica->address, entry->size)) {
    case STATUS_OK: replica->placed = true; return true;
    case STATUS_NOT_FOUND: return true; /* not in what was lent to us: placed when it is */
    default: return false;
    }
}

static bool entry_has_other(const struct entry *entry, const struct member *member)
{
    for (const struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (r->member != member) return true;
    }
    return false;
}

/* A put_end travels beside the events and can be overtaken by them: what they have passed and do
 * not know any more has been removed. While a snapshot is under way nobody can tell; the value then
 * counts as of the round before, so that it stays only if the snapshot names it. */
static bool put_end_overtaken(const struct store_master *master, const struct member *member,
                              const struct store_event *event)
{
    if (!member->synced || event->generation > member->generation_seen) return false;
    const struct entry *entry = entry_find(master, &event->id);
    const struct replica *replica = entry == NULL ? NULL : replica_find(entry, member);
    return replica == NULL || replica->generation != event->generation;
}

/* What the event says is taken over. STATUS_EXISTS: the key has other bytes; STATUS_STALE: older
 * than what is known, or its range is somebody else's; STATUS_INVALID: the identity is another
 * key's. */
static enum status stored(struct store_master *master, struct member *member,
                          const struct store_event *event, uint32_t round)
{
    const bool object = event->class == STORE_CLASS_OBJECT;
    const struct store_key key = { event->key, event->key_len };
    struct entry *entry = entry_find(master, &event->id);

    if (entry == NULL) {
        entry = entry_new(master, &event->id, key);
        if (entry == NULL) return STATUS_OK; /* the directory is full: true, but not remembered */
    } else if (object ? !entry_is(entry, key) : entry->key != NULL) {
        return STATUS_INVALID;
    }
    const bool known = entry->replicas != NULL;
    const bool differs = entry->size != event->size || entry->digest != event->digest;
    if (known && differs && entry_has_other(entry, member)) {
        master->counts.conflicts_total++;
        if (object) return STATUS_EXISTS;
    }
    struct replica *replica = replica_find(entry, member);
    if (replica != NULL && replica->generation > event->generation) return STATUS_STALE;
    if (replica != NULL && replica->generation == event->generation) {
        if (round == member->round) replica->round = round;
        return STATUS_OK;
    }
    if (replica != NULL) {
        replica_unplace(replica); /* while the entry still has the old size */
    } else if (entry->replicas_count < STORE_REPLICAS_MAX) {
        replica = replica_new(master, entry, member);
    }
    if (replica == NULL) {
        entry_settle(master, entry);
        return STATUS_OK;
    }
    entry->size = event->size;
    entry->digest = event->digest;
    replica->address = event->address;
    replica->generation = event->generation;
    replica->round = round;
    if (object && !replica_place(master, replica)) {
        master->counts.conflicts_total++;
        replica_remove(master, replica);
        return STATUS_STALE;
    }
    if (!known) entry->removing = false;
    lru_settle(master, entry);
    return STATUS_OK;
}

static void removed(struct store_master *master, struct member *member,
                    const struct store_event *event)
{
    struct entry *entry = entry_find(master, &event->id);
    if (entry == NULL) return;
    struct replica *replica = replica_find(entry, member);
    if (replica == NULL || replica->generation > event->generation) return;
    replica_remove(master, replica);
}

/* The node lends a range to this term: what lies there already is marked. */
static void extent(struct store_master *master, struct member *member,
                   const struct store_event *event)
{
    if (event->generation != master->term) return;
    if (space_add(member->space, event->address, event->size) != STATUS_OK) return;
    struct replica *next;
    for (struct replica *replica = member->replicas; replica != NULL; replica = next) {
        next = replica->next_of_member;
        struct entry *entry = replica->entry;
        if (entry->key == NULL || replica->placed) continue;
        if (replica_place(master, replica)) {
            lru_settle(master, entry);
        } else {
            master->counts.conflicts_total++;
            if (!replica->dropping) replica_drop(master, replica);
        }
    }
}

void store_master_event(struct store_master *master, uint64_t now_ns, struct store_node_id node,
                        const struct store_event *event)
{
    struct member *member = member_at(master, node);
    enum status status;
    if (member == NULL) return;
    member_heard(master, member, now_ns);
    if (event->kind != STORE_EVENT_EXTENT && event->generation > member->generation_seen) {
        member->generation_seen = event->generation;
    }
    switch (event->kind) {
    case STORE_EVENT_STORED:
        status = stored(master, member, event, member->round);
        if (status != STATUS_OK && event->class == STORE_CLASS_OBJECT) {
            action_push(master, STORE_ACTION_DROP, member, &event->id, event->generation);
        }
        break;
    case STORE_EVENT_REMOVED: removed(master, member, event); break;
    case STORE_EVENT_EXTENT: extent(master, member, event); break;
    }
}

void store_master_synced(struct store_master *master, uint64_t now_ns, struct store_node_id node)
{
    struct member *member = member_at(master, node);
    struct replica *next;
    if (member == NULL) return;
    member_heard(master, member, now_ns);
    for (struct replica *replica = member->replicas; replica != NULL; replica = next) {
        next = replica->next_of_member;
        if (replica->round != member->round) replica_remove(master, replica);
    }
    member->announced = true;
    member->synced = true;
}

/* ---- reading ---- */

static bool replica_readable(const struct replica *replica)
{
    return !replica->dropping && replica->member->state != STORE_MEMBER_DEAD;
}

static enum status entry_state(const struct store_master *master, uint64_t now_ns,
                               const struct entry *entry)
{
    bool dead = false;
    if (entry == NULL) return settled(master, now_ns) ? STATUS_NOT_FOUND : STATUS_AGAIN;
    for (const struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (replica_readable(r)) return STATUS_OK;
        if (!r->dropping) dead = true;
    }
    if (entry->ticket != NULL) return STATUS_BUSY;
    return dead ? STATUS_UNAVAILABLE : STATUS_NOT_FOUND;
}

static void lease_grant(struct store_master *master, uint64_t now_ns, struct entry *entry)
{
    const uint64_t until = now_ns + ms(master->options.lease_ms);
    if (until > entry->lease_until) entry->lease_until = until;
    lru_touch(master, entry);
}

/* Counts the question, and leases what is there. */
static enum status entry_read(struct store_master *master, uint64_t now_ns, struct store_key key,
                              struct entry **out)
{
    ASSERT(key.len > 0 && key.len <= STORE_KEY_SIZE_MAX);
    *out = entry_lookup(master, key);
    const enum status status = entry_state(master, now_ns, *out);
    master->counts.reads_total++;
    if (status != STATUS_OK) return status;
    master->counts.hits_total++;
    lease_grant(master, now_ns, *out);
    return STATUS_OK;
}

enum status store_master_exist(struct store_master *master, uint64_t now_ns, struct store_key key)
{
    struct entry *entry;
    return entry_read(master, now_ns, key, &entry);
}

static void replica_describe(const struct member *member, uint64_t address, uint64_t generation,
                             struct store_replica *out)
{
    out->node = member->id;
    memcpy(out->rpc_address, member->info.rpc_address, sizeof(out->rpc_address));
    memcpy(out->segment, member->info.segment, sizeof(out->segment));
    out->address = address;
    out->generation = generation;
    out->epoch = member->info.epoch;
}

static void entry_describe(const struct entry *entry, struct store_object *out)
{
    out->size = entry->size;
    out->digest = entry->digest;
    out->replicas_count = 0;
    for (int suspects = 0; suspects < 2; suspects++) { /* the alive ones first */
        for (const struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
            const bool suspect = r->member->state == STORE_MEMBER_SUSPECT;
            if (!replica_readable(r) || suspect != (suspects == 1)) continue;
            ASSERT(out->replicas_count < STORE_REPLICAS_MAX);
            replica_describe(r->member, r->address, r->generation,
                             &out->replicas[out->replicas_count++]);
        }
    }
}

enum status store_master_get(struct store_master *master, uint64_t now_ns, struct store_key key,
                             struct store_object *out)
{
    struct entry *entry;
    const enum status status = entry_read(master, now_ns, key, &entry);
    if (status == STATUS_OK) entry_describe(entry, out);
    return status;
}

enum status store_master_peek(const struct store_master *master, uint64_t now_ns,
                              struct store_key key, struct store_object *out)
{
    ASSERT(key.len > 0 && key.len <= STORE_KEY_SIZE_MAX);
    const struct entry *entry = entry_lookup(master, key);
    const enum status status = entry_state(master, now_ns, entry);
    if (status == STATUS_OK) entry_describe(entry, out);
    return status;
}

uint64_t store_master_walk(const struct store_master *master, uint64_t now_ns, uint64_t cursor,
                           uint32_t looks_max,
                           bool (*visit)(void *ctx, const struct store_listed *listed), void *ctx)
{
    uint32_t index = cursor > SLAB_NONE ? SLAB_NONE : cursor == 0 ? 0 : (uint32_t)cursor - 1;
    ASSERT(looks_max > 0);

    for (uint32_t looks = 0; (index = slab_next(master->entries, index)) != SLAB_NONE; index++) {
        const struct entry *entry = slab_at(master->entries, index);
        const bool block = entry->key == NULL;
        const uint64_t lease = entry->lease_until;
        const struct store_listed listed = {
            .key = { block ? entry->id.bytes : entry->key,
                     block ? BLOCK_KEY_SIZE : entry->key_len },
            .class = block ? STORE_CLASS_BLOCK : STORE_CLASS_OBJECT,
            .status = entry_state(master, now_ns, entry),
            .size = entry->replicas == NULL ? entry->ticket->size : entry->size,
            .replicas = entry->replicas_count,
            .lease_ns = lease > now_ns ? lease - now_ns : 0,
        };
        if (looks++ == looks_max || !visit(ctx, &listed)) return (uint64_t)index + 1;
    }
    return 0;
}

/* ---- writing ---- */

static bool member_lends(const struct member *member, uint64_t size)
{
    return member != NULL && member->announced && member->state == STORE_MEMBER_ALIVE &&
           space_extent_max(member->space) >= size;
}

static uint64_t member_room(const struct member *member)
{
    return space_total(member->space) - space_used(member->space);
}

static uint64_t ticket_expires(const struct store_master *master, const struct ticket *ticket)
{
    return ticket->due_ns - ms(master->options.discard_ms) + ms(master->options.put_ms);
}

static void ticket_describe(const struct store_master *master, const struct ticket *ticket,
                            struct store_ticket *out)
{
    out->put_id = ticket->put_id;
    out->term = master->term;
    out->expires_ns = ticket_expires(master, ticket);
    replica_describe(ticket->member, ticket->address, 0, &out->where);
}

/* Two members drawn by chance, the roomier first: load follows room without a stampede. Then
 * anyone. */
static struct member *place(struct store_master *master, uint64_t size, const char *preferred,
                            uint64_t *address)
{
    struct member *lenders[STORE_MEMBERS_MAX];
    uint32_t count = 0;

    struct member *member = preferred == NULL ? NULL : member_find(master, preferred);
    if (member_lends(member, size) && space_alloc(member->space, size, address) == STATUS_OK) {
        return member;
    }
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        if (member_lends(master->members[i], size)) lenders[count++] = master->members[i];
    }
    if (count == 0) return NULL;
    struct member *a = lenders[rng_below(&master->rng, count)];
    struct member *b = lenders[rng_below(&master->rng, count)];
    if (member_room(b) > member_room(a)) a = b;
    if (space_alloc(a->space, size, address) == STATUS_OK) return a;
    for (uint32_t i = 0; i < count; i++) {
        if (space_alloc(lenders[i]->space, size, address) == STATUS_OK) return lenders[i];
    }
    return NULL;
}

/* The most that is being freed at one member where the value would fit. */
static uint64_t dropping_max(const struct store_master *master, uint64_t size)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        const struct member *member = master->members[i];
        if (member_lends(member, size) && member->dropping > most) most = member->dropping;
    }
    return most;
}

static void entry_evict(struct store_master *master, const struct entry *entry, uint64_t size)
{
    for (struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (!r->placed || r->dropping || !member_lends(r->member, size)) continue;
        if (replica_drop(master, r)) master->counts.evictions_total++;
    }
}

/* No room: STATUS_AGAIN once enough is on its way out, STATUS_FULL if nothing can go. */
static enum status make_room(struct store_master *master, uint64_t now_ns, uint64_t size)
{
    const struct entry *entry = master->lru_head;

    for (int i = 0; i < EVICT_LOOKS_MAX && entry != NULL; i++) {
        if (dropping_max(master, size) >= size) return STATUS_AGAIN;
        if (entry->lease_until <= now_ns) entry_evict(master, entry, size);
        entry = entry->lru_next;
    }
    return dropping_max(master, size) > 0 ? STATUS_AGAIN : STATUS_FULL;
}

/* Why there is no room: nobody lends, nobody lends so much, or it is all used. */
static enum status no_room(struct store_master *master, uint64_t now_ns, uint64_t size)
{
    bool any = false;
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        const struct member *member = master->members[i];
        if (member_lends(member, size)) return make_room(master, now_ns, size);
        any = any || member_lends(member, 1);
    }
    return any ? STATUS_INVALID : STATUS_UNAVAILABLE;
}

/* The ticket that this writer asked for before and whose answer was lost, while it may still write.
 */
static const struct ticket *ticket_again(const struct store_master *master, uint64_t now_ns,
                                         const struct entry *entry, uint64_t writer, uint64_t size)
{
    const struct ticket *ticket = entry == NULL ? NULL : entry->ticket;
    if (ticket == NULL || ticket->writer != writer || ticket->size != size) return NULL;
    return now_ns < ticket_expires(master, ticket) ? ticket : NULL;
}

/* STATUS_OK: a put may start under this key. */
static enum status put_allowed(struct store_master *master, uint64_t now_ns,
                               const struct entry *entry)
{
    if (entry == NULL) return settled(master, now_ns) ? STATUS_OK : STATUS_AGAIN;
    if (entry->ticket != NULL) return STATUS_EXISTS;
    for (const struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (r->dropping) return STATUS_AGAIN; /* it will be gone */
        if (r->member->state != STORE_MEMBER_DEAD) return STATUS_EXISTS;
    }
    return STATUS_OK; /* all its owners are dead */
}

static enum status ticket_start(struct store_master *master, uint64_t now_ns, uint64_t writer,
                                struct store_key key, struct ticket *ticket)
{
    const struct block_key id = store_key_id(key);
    struct entry *entry = entry_find(master, &id);

    if (entry == NULL) entry = entry_new(master, &id, key);
    if (entry == NULL) return STATUS_FULL;
    ticket->entry = entry;
    ticket->writer = writer;
    ticket->put_id = rng_counter(master->options.seed ^ master->term, ++master->puts_made) | 1;
    ticket->due_ns = now_ns + ms(master->options.discard_ms);
    entry->ticket = ticket;
    ticket_append(&master->tickets, ticket);
    master->counts.puts_total++;
    return STATUS_OK;
}

enum status store_master_put_start(struct store_master *master, uint64_t now_ns, uint64_t writer,
                                   struct store_key key, uint64_t size, const char *preferred,
                                   struct store_ticket *out)
{
    ASSERT(key.len > 0 && key.len <= STORE_KEY_SIZE_MAX);
    const struct block_key id = store_key_id(key);
    const struct entry *entry = entry_find(master, &id);
    uint64_t address = 0;

    if (size == 0 || size > STORE_OBJECT_SIZE_MAX) return STATUS_INVALID;
    if (entry != NULL && entry->key != NULL && !entry_is(entry, key)) return STATUS_INVALID;
    const struct ticket *before = ticket_again(master, now_ns, entry, writer, size);
    if (before != NULL) {
        ticket_describe(master, before, out);
        return STATUS_OK;
    }
    enum status status = put_allowed(master, now_ns, entry);
    if (status != STATUS_OK) return status;
    if (entry != NULL && entry->key == NULL) return STATUS_EXISTS; /* a block of dead owners */

    struct member *member = place(master, size, preferred, &address);
    if (member == NULL) {
        status = no_room(master, now_ns, size);
        if (status == STATUS_FULL) master->counts.refused_full_total++;
        return status;
    }
    struct ticket *ticket = calloc(1, sizeof(*ticket));
    status = STATUS_FULL;
    if (ticket != NULL) {
        ticket->member = member;
        ticket->address = address;
        ticket->size = size;
        status = ticket_start(master, now_ns, writer, key, ticket);
    }
    if (status != STATUS_OK) {
        space_free(member->space, address, size);
        free(ticket);
        return status;
    }
    ticket_describe(master, ticket, out);
    return STATUS_OK;
}

enum status store_master_put_end(struct store_master *master, uint64_t now_ns,
                                 const char *node_name, uint64_t node_epoch, uint64_t put_id,
                                 const struct store_event *event)
{
    struct member *member = member_find(master, node_name);
    (void)put_id; /* the range says which put it was */
    if (member == NULL || member->info.epoch != node_epoch) return STATUS_NOT_FOUND;
    if (event->kind != STORE_EVENT_STORED || event->class != STORE_CLASS_OBJECT) {
        return STATUS_INVALID;
    }
    member_heard(master, member, now_ns);
    if (put_end_overtaken(master, member, event)) return STATUS_STALE;
    return stored(master, member, event, member->synced ? member->round : member->round - 1);
}

enum status store_master_put_revoke(struct store_master *master, uint64_t now_ns, uint64_t writer,
                                    struct store_key key, uint64_t put_id)
{
    const struct entry *entry = entry_lookup(master, key);
    if (entry == NULL || entry->ticket == NULL || entry->ticket->put_id != put_id) {
        return STATUS_NOT_FOUND;
    }
    if (entry->ticket->writer != writer) return STATUS_DENIED;
    ticket_discard(master, now_ns, entry->ticket);
    return STATUS_OK;
}

enum status store_master_remove(struct store_master *master, uint64_t now_ns, struct store_key key,
                                bool force)
{
    ASSERT(key.len > 0 && key.len <= STORE_KEY_SIZE_MAX);
    struct entry *entry = entry_lookup(master, key);
    const enum status status = entry_state(master, now_ns, entry);

    if (status != STATUS_OK) return status;
    if (entry->ticket != NULL) return STATUS_BUSY;
    if (entry->key == NULL) return STATUS_DENIED; /* blocks are their nodes' to evict */
    if (!force && entry->lease_until > now_ns) return STATUS_BUSY;
    for (struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (!r->dropping && !replica_drop(master, r)) return STATUS_FULL;
    }
    entry->removing = true;
    master->counts.removes_total++;
    return STATUS_OK;
}

/* ---- time ---- */

static void member_tick(struct store_master *master, struct member *member, uint64_t now_ns)
{
    const struct store_master_options *o = &master->options;
    const uint64_t silent = now_ns - member->heard_ns;

    if (silent >= ms(o->dead_ms) + ms(o->forget_ms)) {
        member_forget(master, member);
    } else if (silent >= ms(o->dead_ms)) {
        member_set_state(master, member, STORE_MEMBER_DEAD);
    } else if (silent >= ms(o->suspect_ms) && member->state == STORE_MEMBER_ALIVE) {
        member_set_state(master, member, STORE_MEMBER_SUSPECT);
    }
}

uint64_t store_master_tick(struct store_master *master, uint64_t now_ns)
{
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        if (master->members[i] != NULL) member_tick(master, master->members[i], now_ns);
    }
    while (master->tickets.head != NULL && master->tickets.head->due_ns <= now_ns) {
        ticket_discard(master, now_ns, master->tickets.head);
        master->counts.discarded_total++;
    }
    while (master->limbo.head != NULL && master->limbo.head->due_ns <= now_ns) {
        const struct ticket *ticket = master->limbo.head;
        space_free(ticket->member->space, ticket->address, ticket->size);
        ticket_finish(master, master->limbo.head);
    }
    retries_run(master, now_ns);
    return now_ns + ms(100);
}

/* ---- numbers ---- */

void store_master_counts(const struct store_master *master, struct store_master_counts *out)
{
    *out = master->counts;
    out->processing = master->tickets.count;
    out->memory = map_memory(master->directory) + slab_memory(master->entries) + master->key_bytes +
                  out->replicas * sizeof(struct replica);
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        const struct member *member = master->members[i];
        if (member == NULL) continue;
        out->space_total += space_total(member->space);
        out->space_used += space_used(member->space);
    }
}

bool store_master_member_counts(const struct store_master *master, uint64_t now_ns,
                                struct store_node_id id, struct store_member_counts *out)
{
    const struct member *member = member_at(master, id);
    if (member == NULL) return false;
    *out = (struct store_member_counts){ .space_total = space_total(member->space),
                                         .space_used = space_used(member->space),
                                         .values = member->values,
                                         .blocks = member->blocks,
                                         .silent_ns = now_ns - member->heard_ns };
    return true;
}

static uint64_t rounded(uint64_t size)
{
    return (size + SPACE_GRANULE - 1) / SPACE_GRANULE * SPACE_GRANULE;
}

static uint64_t tickets_bytes(const struct ticket_list *list, const struct member *member)
{
    uint64_t sum = 0;
    for (const struct ticket *ticket = list->head; ticket != NULL; ticket = ticket->next) {
        if (ticket->member == member) sum += rounded(ticket->size);
    }
    return sum;
}

static uint64_t member_check(const struct store_master *master, const struct member *member)
{
    uint64_t placed = 0;
    uint64_t dropping = 0;
    uint64_t count = 0;

    for (const struct replica *r = member->replicas; r != NULL; r = r->next_of_member) {
        ASSERT(r->member == member && replica_find(r->entry, member) == r);
        if (r->placed) placed += rounded(r->entry->size);
        if (r->placed && r->dropping) dropping += r->entry->size;
        count++;
    }
    ASSERT(member->values + member->blocks == count);
    placed += tickets_bytes(&master->tickets, member) + tickets_bytes(&master->limbo, member);
    ASSERT(space_used(member->space) == placed); /* I2 */
    ASSERT(member->dropping == dropping);        /* I4 */
    space_check(member->space);
    return count;
}

void store_master_check(const struct store_master *master)
{
    uint64_t replicas = 0;
    uint64_t by_member = 0;
    uint64_t lru = 0;
    uint64_t values = 0;
    struct map_iter iter = { 0 };

    while (map_next(master->directory, &iter)) {
        const struct entry *entry = (const struct entry *)(uintptr_t)iter.value;
        bool placed = false;
        ASSERT(entry->replicas != NULL || entry->ticket != NULL); /* I1 */
        ASSERT(entry->ticket == NULL || entry->ticket->entry == entry);
        for (const struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
            replicas++;
            placed = placed || r->placed;
        }
        ASSERT(placed == entry->on_lru); /* I3 */
        ASSERT(slab_at(master->entries, entry->index) == entry);
        values += entry->key != NULL;
        lru += entry->on_lru;
    }
    for (const struct entry *e = master->lru_head; e != NULL; e = e->lru_next) {
        ASSERT(lru > 0);
        lru--;
    }
    ASSERT(lru == 0);
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        if (master->members[i] != NULL) by_member += member_check(master, master->members[i]);
    }
    ASSERT(replicas == by_member && replicas == master->counts.replicas);
    ASSERT(map_count(master->directory) == master->counts.objects);
    ASSERT(slab_count(master->entries) == master->counts.objects);
    ASSERT(values == master->counts.values);
}
