/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master.c - the directory: members, keys and replicas, tickets, orders of eviction, drops.
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
 * Eviction happens on the allocation path. Who finds no room evicts the values without a lease that
 * go first by the policy (store/order.h), by asking their owners to drop them, and is told to ask
 * again; the space is free when the owner's REMOVED event arrives, never before.
 *
 * Invariants (store_master_check())
 *   I1  An entry has a replica or a ticket; else it is deleted.
 *   I2  The used bytes of a node's space are those of its tickets, placed replicas and limbo.
 *   I3  An entry is in an order of eviction exactly when it is a value with a placed replica and no
 *       hard pin: in that of the soft-pinned, by deadline, or in that of all others, by policy.
 *   I4  All replicas that are not stale have the version and the bytes that the entry says; stale
 *       ones are never read, and dropped until they are gone.
 *   I5  A replica is dropping exactly when a DROP for it is queued, under way or waiting for its
 * next try; its bytes are counted in its node's `dropping`. */
#include "store/master.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/map.h"
#include "base/rng.h"
#include "store/master_int.h"
#include "store/proto.h"

enum {
    OBJECTS_MAX_DEFAULT = 1 << 24,
    EVICT_LOOKS_MAX = 4096, /* entries looked at for one put */
    DROP_RETRY_MS = 200,
    NODE_SLOT_BITS = 11, /* of a node id: slot + 1; the rest counts lives */
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
    free(entry->extra);
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
    for (uint32_t i = 0;
         master->entries != NULL && (i = slab_next(master->entries, i)) != SLAB_NONE; i++) {
        entry_free(master, slab_at(master->entries, i));
    }
    struct map_iter iter = { 0 };
    while (master->groups != NULL && map_next(master->groups, &iter))
        free((struct group *)(uintptr_t)iter.value);
    map_destroy(master->groups);
    order_destroy(master->order);
    order_destroy(master->soft);
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

enum status store_master_create(const struct store_master_options *options, uint64_t now_ns,
                                struct store_master **out)
{
    if (options->term == 0 || options->objects_max > MAP_ENTRIES_MAX) return STATUS_INVALID;
    if (options->eviction >= ORDER_DEADLINE) return STATUS_INVALID;
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
    master->order = order_create(o->eviction);
    master->soft = order_create(ORDER_DEADLINE);
    if (master->entries == NULL || master->order == NULL || master->soft == NULL ||
        map_create(&map, &master->directory) != STATUS_OK ||
        map_create(&map, &master->groups) != STATUS_OK) {
        store_master_destroy(master);
        return STATUS_NO_MEMORY;
    }
    master->term = options->term;
    master->started_ns = now_ns;
    rng_init(&master->rng, options->seed ^ options->term);
    *out = master;
    return STATUS_OK;
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

static bool action_push(struct store_master *master, enum store_action_kind kind,
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

/* ---- the order of eviction ---- */

static struct order *entry_order(const struct store_master *master, const struct entry *entry)
{
    const bool soft = entry->extra != NULL && entry->extra->soft_until != 0;
    return soft ? master->soft : master->order;
}

static struct order_weight entry_weight(const struct entry *entry)
{
    struct order_weight weight = { .size = entry->size };
    if (entry->extra == NULL) return weight;
    weight.cost = entry->extra->attributes.cost;
    weight.depth = entry->extra->attributes.depth;
    weight.deadline = entry->extra->soft_until;
    return weight;
}

static bool entry_hard(const struct entry *entry)
{
    return entry->extra != NULL && entry->extra->attributes.hard_pin;
}

static struct entry *entry_of(struct order_node *node)
{
    if (node == NULL) return NULL;
    return (struct entry *)(void *)((uint8_t *)node - offsetof(struct entry, order));
}

static void order_used(struct store_master *master, struct entry *entry)
{
    const struct order_weight weight = entry_weight(entry);
    if (order_has(&entry->order)) order_use(entry_order(master, entry), &entry->order, &weight);
}

static void order_leave(struct store_master *master, struct entry *entry)
{
    if (order_has(&entry->order)) order_remove(entry_order(master, entry), &entry->order);
}

/* I3: in an order exactly when there is a placed replica and no hard pin. */
static void order_settle(struct store_master *master, struct entry *entry)
{
    const struct order_weight weight = entry_weight(entry);
    bool placed = false;
    for (const struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        placed = placed || r->placed;
    }
    if (!placed || entry_hard(entry)) {
        order_leave(master, entry);
    } else if (!order_has(&entry->order)) {
        const enum status status = order_add(entry_order(master, entry), &entry->order, &weight);
        if (status != STATUS_OK) return; /* no memory: it is just not evicted */
    }
}

static void soft_pin(struct store_master *master, struct entry *entry, uint64_t until)
{
    order_leave(master, entry);
    entry->extra->soft_until = until;
    order_settle(master, entry);
}

/* ---- groups ---- */

static struct block_key group_key(uint64_t id)
{
    struct block_key key = { { 0 } };
    memcpy(key.bytes, &id, sizeof(id));
    return key;
}

static void group_leave(struct store_master *master, struct entry *entry)
{
    struct extra *extra = entry->extra;
    if (extra == NULL || extra->group == NULL) return;
    struct group *group = extra->group;

    if (extra->group_prev == NULL) {
        ASSERT(group->members == entry);
        group->members = extra->group_next;
    } else {
        extra->group_prev->extra->group_next = extra->group_next;
    }
    if (extra->group_next != NULL) extra->group_next->extra->group_prev = extra->group_prev;
    extra->group = NULL;
    if (--group->count > 0) return;
    const bool was_there = map_remove(master->groups, &group->id, NULL);
    ASSERT(was_there);
    free(group);
}

static struct group *group_find(struct store_master *master, uint64_t id)
{
    const struct block_key key = group_key(id);
    uint64_t value;

    if (map_find(master->groups, &key, &value)) return (struct group *)(uintptr_t)value;
    struct group *group = calloc(1, sizeof(*group));
    if (group == NULL) return NULL;
    group->id = key;
    if (map_insert(master->groups, &key, (uint64_t)(uintptr_t)group) == STATUS_OK) return group;
    free(group);
    return NULL;
}

/* Into the group that its attributes name. One that has no room, or no memory, does without. */
static void group_join(struct store_master *master, struct entry *entry)
{
    struct extra *extra = entry->extra;
    ASSERT(extra->group == NULL);
    if (extra->attributes.group == 0) return;
    struct group *group = group_find(master, extra->attributes.group);
    if (group == NULL || group->count == STORE_GROUP_MAX) return;

    extra->group = group;
    extra->group_prev = NULL;
    extra->group_next = group->members;
    if (group->members != NULL) group->members->extra->group_prev = entry;
    group->members = entry;
    group->count++;
}

/* ---- entries and replicas ---- */

struct entry *master_entry_find(const struct store_master *master, const struct block_key *id)
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
    struct entry *entry = master_entry_find(master, &id);
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

struct extra *master_entry_extra(struct entry *entry)
{
    if (entry->extra == NULL) entry->extra = calloc(1, sizeof(*entry->extra));
    return entry->extra;
}

static bool attributes_any(const struct store_attributes *a)
{
    return a->group != 0 || a->version != 0 || a->cost != 0 || a->depth != 0 || a->replicas != 0 ||
           a->hard_pin;
}

/* What was wished for when the value of this version was put. */
static void entry_keep(struct store_master *master, struct entry *entry,
                       const struct store_attributes *attributes)
{
    if (entry->extra == NULL && !attributes_any(attributes)) return;
    if (master_entry_extra(entry) == NULL) return; /* it is kept like any other */
    if (entry->extra->group != NULL && entry->extra->attributes.group != attributes->group) {
        group_leave(master, entry);
    }
    entry->extra->attributes = *attributes;
    if (entry->extra->group == NULL) group_join(master, entry);
    order_settle(master, entry);
}

/* A wish for a soft pin, from now. */
static void soft_pin_from(struct store_master *master, uint64_t now_ns, struct entry *entry,
                          uint32_t for_ms)
{
    if (for_ms > STORE_SOFT_PIN_MS_MAX) for_ms = STORE_SOFT_PIN_MS_MAX;
    if (master_entry_extra(entry) != NULL) soft_pin(master, entry, now_ns + ms(for_ms));
}

uint32_t master_entry_version(const struct entry *entry)
{
    return entry->extra == NULL ? 0 : entry->extra->attributes.version;
}

/* Deletes the entry if nothing is left of it (I1). */
static void entry_settle(struct store_master *master, struct entry *entry)
{
    order_settle(master, entry);
    if (entry->replicas != NULL || entry->ticket != NULL) return;
    group_leave(master, entry);
    master_copies_forget(master, entry);
    const bool was_there = map_remove(master->directory, &entry->id, NULL);
    ASSERT(was_there && master->counts.objects > 0);
    master->counts.objects--;
    entry_free(master, entry);
}

static uint32_t granules_of(uint64_t size)
{
    return (uint32_t)((size + SPACE_GRANULE - 1) / SPACE_GRANULE);
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

/* Of its member's space, if it is placed. */
static uint64_t replica_bytes(const struct replica *replica)
{
    return (uint64_t)replica->granules * SPACE_GRANULE;
}

/* The range is the replica's now. */
static void replica_own(struct replica *replica)
{
    ASSERT(!replica->placed);
    replica->placed = true;
    if (replica->dropping) replica->member->dropping += replica_bytes(replica);
}

/* Gives back the replica's range and its share of `dropping`. */
static void replica_unplace(struct replica *replica)
{
    struct member *member = replica->member;
    const uint64_t size = replica_bytes(replica);

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
    master_copies_look(master, entry);
    entry_settle(master, entry);
}

/* ---- tickets ---- */

/* The put is over for its entry; the range stays the ticket's, now in limbo. */
void master_ticket_discard(struct store_master *master, uint64_t now_ns, struct ticket *ticket)
{
    struct entry *entry = ticket->entry;
    ASSERT(entry->ticket == ticket);

    if (ticket->copy) master_copies_ended(master, ticket);
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
        if (ticket->copy) master_copies_ended(master, ticket);
        ticket_unlink(&master->tickets, ticket);
    } else {
        ticket_unlink(&master->limbo, ticket);
    }
    free(ticket);
}

/* From now on the ticket is the entry's. */
static void ticket_open(struct store_master *master, uint64_t now_ns, struct entry *entry,
                        struct ticket *ticket)
{
    ASSERT(entry->ticket == NULL);
    ticket->id = entry->id;
    ticket->entry = entry;
    ticket->put_id = rng_counter(master->options.seed ^ master->term, ++master->puts_made) | 1;
    ticket->due_ns = now_ns + ms(master->options.discard_ms);
    entry->ticket = ticket;
    ticket_append(&master->tickets, ticket);
}

struct ticket *master_ticket_new(struct store_master *master, uint64_t now_ns, struct entry *entry,
                                 struct member *member, uint64_t address, uint64_t size)
{
    struct ticket *ticket = calloc(1, sizeof(*ticket));
    if (ticket == NULL) return NULL;
    ticket->member = member;
    ticket->address = address;
    ticket->size = size;
    ticket_open(master, now_ns, entry, ticket);
    return ticket;
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

struct member *master_member_find(const struct store_master *master, const char *name)
{
    for (uint32_t i = 0; i < master->members_count; i++) {
        struct member *member = master->by_age[i];
        if (strcmp(member->info.name, name) == 0) return member;
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
        master_ticket_discard(master, now_ns, master->tickets.head);
}

enum status store_master_register(struct store_master *master, uint64_t now_ns,
                                  const struct store_member_info *info, uint64_t term_seen,
                                  struct store_node_id *out)
{
    if (!info_valid(info) || term_seen == UINT64_MAX) return STATUS_INVALID;
    if (term_seen > master->term) term_raise(master, now_ns, term_seen + 1);
    struct member *member = master_member_find(master, info->name);
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
    struct member *member = master_member_find(master, name);
    if (member == NULL || member->info.epoch != epoch) return STATUS_NOT_FOUND;
    member_heard(master, member, now_ns);
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

/* Whether a key that is not in the directory is certainly absent. */
static bool settled(const struct store_master *master, uint64_t now_ns)
{
    if (now_ns < master->started_ns + ms(master->options.settle_ms)) return false;
    for (uint32_t i = 0; i < master->members_count; i++) {
        const struct member *member = master->by_age[i];
        if (!member->announced && member->state != STORE_MEMBER_DEAD) {
            return false;
        }
    }
    return true;
}

/* ---- drops ---- */

/* I5. False if no action can be queued now: nothing changes. */
bool master_replica_drop(struct store_master *master, struct replica *replica)
{
    ASSERT(!replica->dropping);
    if (!action_push(master, STORE_ACTION_DROP, replica->member, &replica->entry->id,
                     replica->generation)) {
        return false;
    }
    replica->dropping = true;
    if (replica->placed) replica->member->dropping += replica_bytes(replica);
    return true;
}

static void replica_undrop(struct replica *replica)
{
    ASSERT(replica->dropping);
    if (replica->placed) replica->member->dropping -= replica_bytes(replica);
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
    struct entry *entry = master_entry_find(master, id);
    struct replica *replica = member != NULL && entry != NULL ? replica_find(entry, member) : NULL;

    if (replica == NULL || replica->generation != generation || !replica->dropping) return;
    if (status == STATUS_OK || status == STATUS_NOT_FOUND) return; /* REMOVED comes or has come */
    if (status == STATUS_BUSY && !entry->removing && !replica->stale) {
        replica_undrop(replica);
        order_used(master, entry);
        return;
    }
    const struct retry retry = { node, *id, generation, now_ns + ms(DROP_RETRY_MS) };
    if (!drop_later(master, &retry)) replica_undrop(replica);
}

static void retries_run(struct store_master *master, uint64_t now_ns)
{
    uint32_t i = 0;
    while (i < master->retries_count && master->actions.count < STORE_ACTIONS_MAX) {
        const struct retry retry = master->retries[i];
        if (retry.due_ns > now_ns) {
            i++;
            continue;
        }
        master->retries[i] = master->retries[--master->retries_count];
        const struct member *member = member_at(master, retry.node);
        const struct entry *entry = master_entry_find(master, &retry.id);
        struct replica *replica =
            member != NULL && entry != NULL ? replica_find(entry, member) : NULL;
        if (replica == NULL || replica->generation != retry.generation || !replica->dropping) {
            continue;
        }
        replica_undrop(replica);
        if (!master_replica_drop(master, replica)) return;
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
static struct ticket *ticket_of(const struct store_master *master, const struct replica *replica,
                                uint64_t size)
{
    const struct entry *entry = replica->entry;
    struct ticket *ticket = entry->ticket;

    if (ticket != NULL && ticket->member == replica->member &&
        ticket->address == replica->address) {
        return ticket->size == size ? ticket : NULL;
    }
    for (ticket = master->limbo.head; ticket != NULL; ticket = ticket->next) {
        if (ticket->member == replica->member && ticket->address == replica->address &&
            ticket->size == size && block_key_equal(&ticket->id, &entry->id)) {
            return ticket;
        }
    }
    return NULL;
}

/* Makes the range the replica's, whose value has `size` bytes (0: it was not put just now). False:
 * it is somebody else's. *soft_pin_ms: what its writer wished for. */
static bool replica_place(struct store_master *master, struct replica *replica, uint64_t size,
                          uint32_t *soft_pin_ms)
{
    struct member *member = replica->member;
    ASSERT(!replica->placed && replica->granules > 0);

    *soft_pin_ms = 0;
    struct ticket *ticket = ticket_of(master, replica, size);
    if (ticket != NULL) {
        *soft_pin_ms = ticket->soft_pin_ms;
        ticket_finish(master, ticket);
        replica_own(replica);
        return true;
    }
    switch ((int)space_reserve(member->space, replica->address, replica_bytes(replica))) {
    case STATUS_OK: replica_own(replica); return true;
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
    const struct entry *entry = master_entry_find(master, &event->id);
    const struct replica *replica = entry == NULL ? NULL : replica_find(entry, member);
    return replica == NULL || replica->generation != event->generation;
}

/* Its bytes were replaced: it is not read any more, and goes as soon as nobody reads it. */
static void replica_outdate(struct store_master *master, uint64_t now_ns, struct replica *replica)
{
    replica->stale = true;
    if (replica->dropping || master_replica_drop(master, replica)) return;
    const struct retry retry = { replica->member->id, replica->entry->id, replica->generation,
                                 now_ns };
    if (!drop_later(master, &retry)) return; /* no memory: its node's next announcement drops it */
    replica->dropping = true;
    if (replica->placed) replica->member->dropping += replica_bytes(replica);
}

/* The replica has the newest version: what the entry says from now on. */
static void entry_renew(struct store_master *master, uint64_t now_ns, const struct replica *replica,
                        const struct store_event *event)
{
    struct entry *entry = replica->entry;
    const uint32_t before = master_entry_version(entry);
    struct store_attributes attributes = event->attributes;

    attributes.hard_pin |= event->attributes.version > before && entry_hard(entry);
    entry->size = event->size;
    entry->digest = event->digest;
    const bool first = entry->replicas_count == 1; /* a copy changes no wish */
    if (event->class == STORE_CLASS_OBJECT && (first || event->attributes.version > before)) {
        entry_keep(master, entry, &attributes);
    }
    if (event->attributes.version == before) return;
    for (struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (r != replica) replica_outdate(master, now_ns, r);
    }
}

/* The replica that the event is about, with what it says. NULL: one too many, or no memory. */
static struct replica *replica_take(struct store_master *master, struct entry *entry,
                                    struct member *member, const struct store_event *event,
                                    uint32_t round)
{
    struct replica *replica = replica_find(entry, member);
    if (replica != NULL) {
        replica_unplace(replica);
    } else if (entry->replicas_count < STORE_REPLICAS_MAX) {
        replica = replica_new(master, entry, member);
    }
    if (replica == NULL) return NULL;
    replica->address = event->address;
    replica->generation = event->generation;
    replica->granules = granules_of(event->size);
    replica->round = round;
    replica->stale = false;
    return replica;
}

/* What the event says is taken over. STATUS_EXISTS: the key has other bytes; STATUS_STALE: older
 * than what is known, or its range is somebody else's; STATUS_INVALID: the identity is another
 * key's. */
static enum status stored(struct store_master *master, uint64_t now_ns, struct member *member,
                          const struct store_event *event, uint32_t round)
{
    const bool object = event->class == STORE_CLASS_OBJECT;
    const struct store_key key = { event->key, event->key_len };
    struct entry *entry = master_entry_find(master, &event->id);
    uint32_t soft_pin_ms = 0;

    if (entry == NULL) {
        entry = entry_new(master, &event->id, key);
        if (entry == NULL) return STATUS_OK; /* the directory is full: true, but not remembered */
    } else if (object ? !entry_is(entry, key) : entry->key != NULL) {
        return STATUS_INVALID;
    }
    const bool known = entry->replicas != NULL;
    const bool old = object && event->attributes.version < master_entry_version(entry);
    const bool same = event->attributes.version == master_entry_version(entry);
    const bool differs = entry->size != event->size || entry->digest != event->digest;
    if (known && same && differs && entry_has_other(entry, member)) {
        master->counts.conflicts_total++;
        if (object) return STATUS_EXISTS;
    }
    struct replica *replica = replica_find(entry, member);
    if (replica != NULL && replica->generation > event->generation) return STATUS_STALE;
    if (replica != NULL && replica->generation == event->generation) {
        if (round == member->round) replica->round = round;
        return STATUS_OK;
    }
    replica = replica_take(master, entry, member, event, round);
    if (replica == NULL) {
        entry_settle(master, entry);
        return STATUS_OK;
    }
    if (object && !replica_place(master, replica, event->size, &soft_pin_ms)) {
        master->counts.conflicts_total++;
        replica_remove(master, replica);
        return STATUS_STALE;
    }
    if (!known) entry->removing = false;
    if (old) {
        replica_outdate(master, now_ns, replica);
    } else {
        entry_renew(master, now_ns, replica, event);
    }
    order_settle(master, entry);
    if (soft_pin_ms > 0) soft_pin_from(master, now_ns, entry, soft_pin_ms);
    master_copies_look(master, entry);
    return STATUS_OK;
}

static void removed(struct store_master *master, struct member *member,
                    const struct store_event *event)
{
    struct entry *entry = master_entry_find(master, &event->id);
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
    uint32_t soft_pin_ms;
    for (struct replica *replica = member->replicas; replica != NULL; replica = next) {
        next = replica->next_of_member;
        struct entry *entry = replica->entry;
        if (entry->key == NULL || replica->placed) continue;
        if (replica_place(master, replica, 0, &soft_pin_ms)) {
            order_settle(master, entry);
        } else {
            master->counts.conflicts_total++;
            if (!replica->dropping) master_replica_drop(master, replica);
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
        status = stored(master, now_ns, member, event, member->round);
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

bool master_replica_readable(const struct replica *replica)
{
    return !replica->dropping && !replica->stale && replica->member->state != STORE_MEMBER_DEAD;
}

static enum status entry_state(const struct store_master *master, uint64_t now_ns,
                               const struct entry *entry)
{
    bool dead = false;
    if (entry == NULL) return settled(master, now_ns) ? STATUS_NOT_FOUND : STATUS_AGAIN;
    for (const struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (master_replica_readable(r)) return STATUS_OK;
        if (!r->dropping && !r->stale) dead = true;
    }
    if (entry->ticket != NULL) return STATUS_BUSY;
    return dead ? STATUS_UNAVAILABLE : STATUS_NOT_FOUND;
}

static void lease_until(struct store_master *master, struct entry *entry, uint64_t until)
{
    if (until > entry->lease_until) entry->lease_until = until;
    order_used(master, entry);
}

/* Who reads one of a group is about to read the others: they are leased with it, all of them at
 * most twice in the time of a lease. */
static void lease_grant(struct store_master *master, uint64_t now_ns, struct entry *entry)
{
    const uint64_t lease = ms(master->options.lease_ms);
    struct group *group = entry->extra == NULL ? NULL : entry->extra->group;

    lease_until(master, entry, now_ns + lease);
    if (group == NULL || group->lease_until > now_ns + lease / 2) return;
    group->lease_until = now_ns + lease;
    for (struct entry *e = group->members; e != NULL; e = e->extra->group_next) {
        if (e != entry) lease_until(master, e, now_ns + lease);
    }
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

static void entry_describe(const struct entry *entry, struct store_object *out)
{
    out->size = entry->size;
    out->digest = entry->digest;
    out->replicas_count = 0;
    for (int suspects = 0; suspects < 2; suspects++) { /* the alive ones first */
        for (const struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
            const bool suspect = r->member->state == STORE_MEMBER_SUSPECT;
            if (!master_replica_readable(r) || suspect != (suspects == 1)) continue;
            ASSERT(out->replicas_count < STORE_REPLICAS_MAX);
            master_replica_describe(r->member, r->address, r->generation,
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
            .hard_pin = entry_hard(entry),
            .soft_pin = entry->extra != NULL && entry->extra->soft_until > now_ns,
        };
        if (looks++ == looks_max || !visit(ctx, &listed)) return (uint64_t)index + 1;
    }
    return 0;
}

/* ---- writing ---- */

bool master_member_lends(const struct member *member, uint64_t size)
{
    return member != NULL && member->announced && member->state == STORE_MEMBER_ALIVE &&
           !member->draining && space_extent_max(member->space) >= size;
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
    out->version = ticket->version;
    out->term = master->term;
    out->expires_ns = ticket_expires(master, ticket);
    master_replica_describe(ticket->member, ticket->address, 0, &out->where);
}

/* Two members drawn by chance, the roomier first: load follows room without a stampede. Then
 * anyone. */
static struct member *place(struct store_master *master, uint64_t size, const char *preferred,
                            uint64_t *address)
{
    struct member *lenders[STORE_MEMBERS_MAX];
    uint32_t count = 0;

    struct member *member = preferred == NULL ? NULL : master_member_find(master, preferred);
    if (master_member_lends(member, size) &&
        space_alloc(member->space, size, address) == STATUS_OK) {
        return member;
    }
    for (uint32_t i = 0; i < master->members_count; i++) {
        if (master_member_lends(master->by_age[i], size)) lenders[count++] = master->by_age[i];
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
    for (uint32_t i = 0; i < master->members_count; i++) {
        const struct member *member = master->by_age[i];
        if (master_member_lends(member, size) && member->dropping > most) most = member->dropping;
    }
    return most;
}

/* Whether it helps a value of this size that this replica goes. */
static bool replica_evictable(const struct replica *replica, uint64_t size)
{
    return replica->placed && !replica->dropping && master_member_lends(replica->member, size);
}

/* False: nothing of it was there to go. */
static bool entry_evict(struct store_master *master, const struct entry *entry, uint64_t size)
{
    bool any = false;
    for (struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (!replica_evictable(r, size) || !master_replica_drop(master, r)) continue;
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
        if (!entry_hard(e) && e->extra->soft_until == 0) entry_evict(master, e, size);
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
        const struct entry *entry = entry_of(node);
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

/* No room: STATUS_AGAIN once enough is on its way out, STATUS_FULL if nothing can go. */
enum status master_make_room(struct store_master *master, uint64_t now_ns,
                             const struct entry *except, uint64_t size)
{
    if (evict_from(master, master->order, now_ns, except, size)) return STATUS_AGAIN;
    if (!master->options.keep_soft_pins && evict_from(master, master->soft, now_ns, except, size)) {
        return STATUS_AGAIN;
    }
    return dropping_max(master, size) > 0 ? STATUS_AGAIN : STATUS_FULL;
}

/* Why there is no room: nobody lends, nobody lends so much, or it is all used. */
static enum status no_room(struct store_master *master, uint64_t now_ns, const struct entry *except,
                           uint64_t size)
{
    bool any = false;
    for (uint32_t i = 0; i < master->members_count; i++) {
        const struct member *member = master->by_age[i];
        if (master_member_lends(member, size))
            return master_make_room(master, now_ns, except, size);
        any = any || master_member_lends(member, 1);
    }
    return any ? STATUS_INVALID : STATUS_UNAVAILABLE;
}

/* The ticket that this writer asked for before and whose answer was lost, while it may still write.
 */
static const struct ticket *ticket_again(const struct store_master *master, uint64_t now_ns,
                                         const struct entry *entry, uint64_t writer, uint64_t size)
{
    const struct ticket *ticket = entry == NULL ? NULL : entry->ticket;
    if (ticket == NULL || ticket->copy) return NULL;
    if (ticket->writer != writer || ticket->size != size) return NULL;
    return now_ns < ticket_expires(master, ticket) ? ticket : NULL;
}

/* STATUS_OK: a put may start under this key. */
static enum status put_allowed(struct store_master *master, uint64_t now_ns,
                               const struct entry *entry, bool replace)
{
    bool going = false;
    if (entry == NULL) return settled(master, now_ns) ? STATUS_OK : STATUS_AGAIN;
    if (entry->ticket != NULL && !entry->ticket->copy && !replace) return STATUS_EXISTS;
    for (const struct replica *r = entry->replicas; r != NULL; r = r->next_of_entry) {
        if (r->dropping && !(r->stale && replace)) going = true;
        if (r->dropping || r->stale || r->member->state == STORE_MEMBER_DEAD) continue;
        return replace ? STATUS_OK : STATUS_EXISTS;
    }
    return going ? STATUS_AGAIN : STATUS_OK; /* it will be gone; or all its owners are dead */
}

/* Above that of the value there, and of every one on its way. */
static uint32_t version_next(const struct entry *entry)
{
    if (entry == NULL) return 0;
    uint32_t version = master_entry_version(entry);
    if (entry->ticket != NULL && entry->ticket->version > version) version = entry->ticket->version;
    return entry->replicas == NULL && entry->ticket == NULL && version == 0 ? 0 : version + 1;
}

static enum status ticket_start(struct store_master *master, uint64_t now_ns, uint64_t writer,
                                struct store_key key, struct ticket *ticket)
{
    const struct block_key id = store_key_id(key);
    struct entry *entry = master_entry_find(master, &id);

    if (entry != NULL && entry->ticket != NULL) {
        master_ticket_discard(master, now_ns, entry->ticket); /* another writer, pre-empted */
        entry = master_entry_find(master, &id);
    }
    if (entry == NULL) entry = entry_new(master, &id, key);
    if (entry == NULL) return STATUS_FULL;
    ticket->writer = writer;
    ticket_open(master, now_ns, entry, ticket);
    master->counts.puts_total++;
    return STATUS_OK;
}

enum status store_master_put_start(struct store_master *master, uint64_t now_ns, uint64_t writer,
                                   struct store_key key, uint64_t size,
                                   const struct store_wish *wish, struct store_ticket *out)
{
    static const struct store_wish nothing = { 0 };
    ASSERT(key.len > 0 && key.len <= STORE_KEY_SIZE_MAX);
    const struct block_key id = store_key_id(key);
    const struct entry *entry = master_entry_find(master, &id);
    uint64_t address = 0;

    if (wish == NULL) wish = &nothing;

    if (size == 0 || size > STORE_OBJECT_SIZE_MAX) return STATUS_INVALID;
    if (entry != NULL && entry->key != NULL && !entry_is(entry, key)) return STATUS_INVALID;
    const struct ticket *before = ticket_again(master, now_ns, entry, writer, size);
    if (before != NULL) {
        ticket_describe(master, before, out);
        return STATUS_OK;
    }
    enum status status = put_allowed(master, now_ns, entry, wish->replace);
    if (status != STATUS_OK) return status;
    if (entry != NULL && entry->key == NULL) return STATUS_EXISTS; /* a block */

    struct member *member = place(master, size, wish->preferred, &address);
    if (member == NULL) {
        status = no_room(master, now_ns, entry, size);
        if (status == STATUS_FULL) master->counts.refused_full_total++;
        return status;
    }
    struct ticket *ticket = calloc(1, sizeof(*ticket));
    status = STATUS_FULL;
    if (ticket != NULL) {
        ticket->member = member;
        ticket->address = address;
        ticket->size = size;
        ticket->soft_pin_ms = wish->soft_pin_ms;
        ticket->version = version_next(entry);
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
    struct member *member = master_member_find(master, node_name);
    (void)put_id; /* the range says which put it was */
    if (member == NULL || member->info.epoch != node_epoch) return STATUS_NOT_FOUND;
    if (event->kind != STORE_EVENT_STORED || event->class != STORE_CLASS_OBJECT) {
        return STATUS_INVALID;
    }
    member_heard(master, member, now_ns);
    if (put_end_overtaken(master, member, event)) return STATUS_STALE;
    return stored(master, now_ns, member, event,
                  member->synced ? member->round : member->round - 1);
}

enum status store_master_put_revoke(struct store_master *master, uint64_t now_ns, uint64_t writer,
                                    struct store_key key, uint64_t put_id)
{
    const struct entry *entry = entry_lookup(master, key);
    if (entry == NULL || entry->ticket == NULL || entry->ticket->put_id != put_id) {
        return STATUS_NOT_FOUND;
    }
    if (entry->ticket->copy || entry->ticket->writer != writer) return STATUS_DENIED;
    master_ticket_discard(master, now_ns, entry->ticket);
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
        if (!r->dropping && !master_replica_drop(master, r)) return STATUS_FULL;
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

static void soft_pins_end(struct store_master *master, uint64_t now_ns)
{
    struct entry *entry = entry_of(order_first(master->soft));
    while (entry != NULL && entry->extra->soft_until <= now_ns) {
        soft_pin(master, entry, 0);
        entry = entry_of(order_first(master->soft));
    }
}

uint64_t store_master_tick(struct store_master *master, uint64_t now_ns)
{
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        if (master->members[i] != NULL) member_tick(master, master->members[i], now_ns);
    }
    while (master->tickets.head != NULL && master->tickets.head->due_ns <= now_ns) {
        master_ticket_discard(master, now_ns, master->tickets.head);
        master->counts.discarded_total++;
    }
    while (master->limbo.head != NULL && master->limbo.head->due_ns <= now_ns) {
        const struct ticket *ticket = master->limbo.head;
        space_free(ticket->member->space, ticket->address, ticket->size);
        ticket_finish(master, master->limbo.head);
    }
    soft_pins_end(master, now_ns);
    retries_run(master, now_ns);
    master_copies_run(master, now_ns);
    return now_ns + ms(100);
}

/* ---- numbers ---- */

void store_master_counts(const struct store_master *master, struct store_master_counts *out)
{
    *out = master->counts;
    out->processing = master->tickets.count - master->copies;
    out->copies = master->copies;
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
                                         .draining = member->draining,
                                         .silent_ns = now_ns - member->heard_ns };
    return true;
}

static uint64_t tickets_bytes(const struct ticket_list *list, const struct member *member)
{
    uint64_t sum = 0;
    for (const struct ticket *ticket = list->head; ticket != NULL; ticket = ticket->next) {
        if (ticket->member == member) sum += (uint64_t)granules_of(ticket->size) * SPACE_GRANULE;
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
        if (r->placed) placed += replica_bytes(r);
        if (r->placed && r->dropping) dropping += replica_bytes(r);
        ASSERT(r->stale || r->granules == granules_of(r->entry->size) || r->entry->key == NULL);
        count++;
    }
    ASSERT(member->values + member->blocks == count);
    placed += tickets_bytes(&master->tickets, member) + tickets_bytes(&master->limbo, member);
    ASSERT(space_used(member->space) == placed); /* I2 */
    ASSERT(member->dropping == dropping);        /* I5 */
    space_check(member->space);
    return count;
}

void store_master_check(const struct store_master *master)
{
    uint64_t replicas = 0;
    uint64_t by_member = 0;
    uint64_t values = 0;
    uint32_t copies = 0;
    uint32_t working = 0;
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
        ASSERT(order_has(&entry->order) == (placed && !entry_hard(entry))); /* I3 */
        ASSERT(slab_at(master->entries, entry->index) == entry);
        values += entry->key != NULL;
        working += entry->extra != NULL && entry->extra->working;
    }
    for (const struct ticket *t = master->tickets.head; t != NULL; t = t->next)
        copies += t->copy;
    ASSERT(copies == master->copies);
    order_check(master->order);
    order_check(master->soft);
    for (uint32_t i = 0; i < STORE_MEMBERS_MAX; i++) {
        if (master->members[i] != NULL) by_member += member_check(master, master->members[i]);
    }
    ASSERT(replicas == by_member && replicas == master->counts.replicas);
    ASSERT(map_count(master->directory) == master->counts.objects);
    ASSERT(slab_count(master->entries) == master->counts.objects);
    ASSERT(values == master->counts.values && working == master->work_count);
}
