/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_event.c - what owners say is true: their snapshots, their events, and the ends of
 * puts. The versions and ranges in what they say decide what a replica is worth (I2, I4 of
 * store/master.c).
 */
#include "store/master_int.h"

#include "base/assert.h"

void store_master_reset(struct store_master *master, uint64_t now_ns, struct store_node_id node)
{
    struct member *member = master_member_at(master, node);
    if (member == NULL) return;
    master_member_heard(master, member, now_ns);
    member->round++;
    member->synced = false;
}

/* The range of a put in progress, or one in limbo, if this is what it has become. */
static struct ticket *ticket_of(const struct store_master *master, const struct replica *replica,
                                uint64_t size)
{
    const struct entry *entry = master_entry_with(master, replica);
    struct ticket *ticket = master_entry_ticket(master, entry);

    if (ticket != NULL && ticket->member == master_member_with(master, replica) &&
        ticket->address == replica->address) {
        return ticket->size == size ? ticket : NULL;
    }
    for (ticket = master->limbo.head; ticket != NULL; ticket = ticket->next) {
        if (ticket->member == master_member_with(master, replica) &&
            ticket->address == replica->address && ticket->size == size &&
            block_key_equal(&ticket->id, &entry->id)) {
            return ticket;
        }
    }
    return NULL;
}

/* Makes the range the replica's, whose value has `size` bytes (0: it was not put just now). False:
 * it is somebody else's. *soft_pin_ms: as its ticket's, or 0. */
static bool replica_place(struct store_master *master, uint64_t now_ns, struct replica *replica,
                          uint64_t size, uint32_t *soft_pin_ms)
{
    struct member *member = master_member_with(master, replica);
    ASSERT(!replica->placed && replica->granules > 0);

    *soft_pin_ms = 0;
    struct ticket *ticket = ticket_of(master, replica, size);
    if (ticket != NULL) {
        *soft_pin_ms = ticket->soft_pin_ms;
        master_member_served(member, now_ns);
        master_ticket_finish(master, ticket);
        master_replica_own(master, replica);
        return true;
    }
    switch ((int)space_reserve(member->space, replica->address, master_replica_bytes(replica))) {
    case STATUS_OK: master_replica_own(master, replica); return true;
    case STATUS_NOT_FOUND: return true; /* not in what was lent to us: placed when it is */
    default: return false;
    }
}

/* Whether anybody else has it, and it is not to go. */
static bool entry_has_other(const struct store_master *master, const struct entry *entry,
                            const struct member *member)
{
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (!r->stale && master_member_with(master, r) != member) return true;
    }
    return false;
}

/* Of two values with other bytes where just one is in doubt, and not of both the term is known,
 * versions say nothing: that one was put under an earlier master, and the other since, by one that
 * may not have known of it. */
enum belief { BY_RANK, BELIEVE_ENTRY, BELIEVE_EVENT };

static enum belief whom_to_believe(const struct store_master *master, const struct entry *entry,
                                   const struct store_event *event)
{
    bool trusted = false;
    bool doubted = false;
    if (entry->term != 0 && event->attributes.term != 0) return BY_RANK;
    if (entry->size == event->size && entry->digest == event->digest) return BY_RANK;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        trusted = trusted || (!r->stale && !r->doubt);
        doubted = doubted || (!r->stale && r->doubt);
    }
    if (event->doubt && trusted) return BELIEVE_ENTRY;
    return !event->doubt && doubted && !trusted ? BELIEVE_EVENT : BY_RANK;
}

static uint32_t current_count(const struct store_master *master, const struct entry *entry)
{
    uint32_t count = 0;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        count += !r->stale;
    }
    return count;
}

static bool was_hot(const struct entry *entry)
{
    return entry->extra != NULL && entry->extra->attributes.hot;
}

/* The replica has the highest rank, as all others have or (`newer`) none has: what the entry says
 * from now on. */
static void entry_renew(struct store_master *master, uint64_t now_ns, const struct replica *replica,
                        const struct store_event *event, bool newer)
{
    struct entry *entry = master_entry_with(master, replica);
    struct store_attributes attributes = event->attributes;

    attributes.hard_pin |= newer && master_entry_hard(entry);
    entry->size = event->size & MASTER_SIZE_MAX;
    entry->digest = event->digest;
    const bool first = current_count(master, entry) == 1; /* a copy changes no wish */
    if (event->class == STORE_CLASS_OBJECT && (first || newer)) {
        master_entry_keep(master, entry, &attributes);
    } else if (attributes.hot && entry->extra != NULL) {
        entry->extra->attributes.hot = true;
    }
    if (newer || attributes.term != 0) entry->term = attributes.term;
    if (!newer) return;
    for (struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        if (r != replica) master_replica_outdate(master, now_ns, r);
    }
}

/* The value of the entry is new to this young master. If a ticket of ours has made it, what it
 * replaced is known, and `complete` says whether all of that was; else only its owner knows whether
 * there are others, and older ones. */
static void entry_elsewhere(struct store_master *master, struct entry *entry, bool ours,
                            bool complete)
{
    const bool alone = ours ? complete
                            : master_entry_version(entry) == 0 && master_entry_wished(entry) == 1 &&
                                  !was_hot(entry);
    if (alone && entry->extra != NULL) entry->extra->elsewhere_until = 0;
    if (alone || ours || master_entry_extra(entry) == NULL) return;
    entry->extra->elsewhere_until = master->started_ns + master_ms(STORE_DOUBT_MS);
}

/* The replica that the event is about, with what it says. NULL: one too many, or no memory. */
static struct replica *replica_take(struct store_master *master, struct entry *entry,
                                    struct member *member, const struct store_event *event,
                                    uint16_t round)
{
    struct replica *replica = master_replica_find(master, entry, member);
    if (replica != NULL) {
        master_replica_unplace(master, replica);
    } else if (entry->replicas_count < STORE_REPLICAS_MAX) {
        replica = master_replica_new(master, entry, member);
    }
    if (replica == NULL) return NULL;
    replica->address = event->address;
    replica->generation = event->generation;
    replica->granules = master_granules(event->size) & MASTER_GRANULES_MAX;
    replica->busy = false;
    replica->round = round;
    replica->stale = false;
    replica->disk = event->tier == STORE_TIER_DISK;
    replica->doubt = event->doubt;
    return replica;
}

/* Below 0: the value of the event is older than one of this rank; 0: it is that; above 0: newer. */
static int compare(const struct store_master *master, const struct store_event *event,
                   struct rank rank)
{
    return rank_compare(master_rank(master, rank_of(&event->attributes)), rank);
}

/* I6 */
static bool is_dead(const struct store_master *master, const struct store_event *event)
{
    const struct rank floor = master_rank(master, tombs_floor(&master->dead, &event->id));
    if (compare(master, event, floor) < 0) return true;
    if (event->attributes.term == 0 || event->attributes.term == master->term) return false;
    return compare(master, event, master_rank(master, tombs_floor(&master->evicted, &event->id))) <
           0;
}

/* What the event says is taken over; what is old, or stands against other bytes that were known
 * first, as a replica that is dropped until it is gone. STATUS_EXISTS: the key has other bytes;
 * STATUS_STALE: below what is remembered of the key, or its range is somebody else's;
 * STATUS_INVALID: the identity is another key's. */
static enum status stored(struct store_master *master, uint64_t now_ns, struct member *member,
                          const struct store_event *event, uint16_t round)
{
    const bool object = event->class == STORE_CLASS_OBJECT;
    const struct store_key key = { event->key, event->key_len };
    struct entry *entry = master_entry_find(master, &event->id);
    uint32_t soft_pin_ms = 0;

    if (entry == NULL) {
        entry = master_entry_new(master, &event->id, key);
        if (entry == NULL) return STATUS_OK; /* the directory is full: true, but not remembered */
    } else if (object ? !master_entry_is(master, entry, key) : !master_entry_block(entry)) {
        return STATUS_INVALID;
    }
    const bool known = entry->replicas != 0;
    const bool dead = object && is_dead(master, event);
    const int rank = compare(master, event, master_entry_rank(master, entry));
    const bool same = rank == 0;
    const bool differs = entry->size != event->size || entry->digest != event->digest;
    const enum belief belief = object ? whom_to_believe(master, entry, event) : BY_RANK;
    const bool other = known && differs && entry_has_other(master, entry, member) &&
                       (belief == BELIEVE_ENTRY || (belief == BY_RANK && same));
    const bool older = belief == BY_RANK && rank < 0;
    const bool old = dead || (object && (other || older));
    const bool young = now_ns < master->started_ns + master_ms(STORE_DOUBT_MS);
    const bool fresh = object && young && !old && (!known || !same);
    const bool complete =
        fresh &&
        (!known || (!was_hot(entry) && current_count(master, entry) >= master_entry_wished(entry)));
    if (other) master->counts.conflicts_total++;
    struct replica *replica = master_replica_find(master, entry, member);
    if (replica != NULL && replica->generation > event->generation) return STATUS_STALE;
    if (replica != NULL && replica->generation == event->generation) {
        if (round == member->round) replica->round = round;
        return STATUS_OK;
    }
    replica = replica_take(master, entry, member, event, round);
    if (replica == NULL) {
        master_entry_settle(master, entry);
        return STATUS_OK;
    }
    const bool ours = fresh && ticket_of(master, replica, event->size) != NULL;
    if (object && !replica->disk &&
        !replica_place(master, now_ns, replica, event->size, &soft_pin_ms)) {
        master->counts.conflicts_total++;
        master_replica_remove(master, replica);
        return STATUS_STALE;
    }
    if (old && !known) { /* nothing else is known of it */
        entry->size = event->size & MASTER_SIZE_MAX;
        entry->digest = event->digest;
    }
    if (!known || (!old && rank > 0)) entry->removing = false; /* not what was removed */
    if (old) {
        master_replica_outdate(master, now_ns, replica);
    } else {
        entry_renew(master, now_ns, replica, event, belief == BELIEVE_EVENT || rank > 0);
    }
    if (fresh) entry_elsewhere(master, entry, ours, complete);
    master_entry_reorder(master, entry);
    if (soft_pin_ms == 0 && object && !old &&
        (entry->extra == NULL || entry->extra->soft_until == 0)) {
        soft_pin_ms = event->attributes.soft_pin_ms; /* wished for under an earlier master */
    }
    if (soft_pin_ms == MASTER_SOFT_PIN_OFF) {
        if (!old) master_soft_pin_off(master, entry);
    } else if (soft_pin_ms > 0) {
        master_soft_pin_from(master, now_ns, entry, soft_pin_ms);
    }
    if (object && young && was_hot(entry)) master_hot_adopt(master, now_ns, entry);
    master_copies_look(master, entry);
    if (dead) return STATUS_STALE;
    return other && object ? STATUS_EXISTS : STATUS_OK;
}

static void removed(struct store_master *master, struct member *member,
                    const struct store_event *event)
{
    struct entry *entry = master_entry_find(master, &event->id);
    if (entry == NULL) return;
    struct replica *replica = master_replica_find(master, entry, member);
    if (replica == NULL || replica->generation > event->generation) return;
    master_replica_remove(master, replica);
}

/* The node lends a range to this term: what lies there already is marked. */
static void extent(struct store_master *master, uint64_t now_ns, struct member *member,
                   const struct store_event *event)
{
    if (event->generation != master->term) return;
    if (space_add(member->space, event->address, event->size) != STATUS_OK) return;
    struct replica *next;
    uint32_t soft_pin_ms;
    for (struct replica *replica = master_replica_at(master, member->replicas); replica != NULL;
         replica = next) {
        next = master_replica_at(master, replica->next_of_member);
        struct entry *entry = master_entry_with(master, replica);
        if (master_entry_block(entry) || replica->placed || replica->disk) continue;
        if (replica_place(master, now_ns, replica, 0, &soft_pin_ms)) {
            master_entry_reorder(master, entry);
        } else {
            master->counts.conflicts_total++;
            if (!replica->dropping) master_replica_drop(master, replica, false);
        }
    }
}

void store_master_event(struct store_master *master, uint64_t now_ns, struct store_node_id node,
                        const struct store_event *event)
{
    struct member *member = master_member_at(master, node);
    enum status status;
    if (member == NULL) return;
    master_member_heard(master, member, now_ns);
    if (event->kind != STORE_EVENT_EXTENT && event->generation > member->generation_seen) {
        member->generation_seen = event->generation;
    }
    switch (event->kind) {
    case STORE_EVENT_STORED:
        status = stored(master, now_ns, member, event, member->round);
        if (status != STATUS_OK && status != STATUS_EXISTS && event->class == STORE_CLASS_OBJECT) {
            master_action_push(master, STORE_ACTION_DROP, member, &event->id, event->generation);
        }
        break;
    case STORE_EVENT_REMOVED: removed(master, member, event); break;
    case STORE_EVENT_EXTENT: extent(master, now_ns, member, event); break;
    }
}

/* A put_end travels beside the events and can be overtaken by them: what they have passed and do
 * not know any more has been removed. While a snapshot is under way nobody can tell; the value then
 * counts as of the round before, so that it stays only if the snapshot names it. */
static bool put_end_overtaken(const struct store_master *master, const struct member *member,
                              const struct store_event *event)
{
    if (!member->synced || event->generation > member->generation_seen) return false;
    const struct entry *entry = master_entry_find(master, &event->id);
    const struct replica *replica =
        entry == NULL ? NULL : master_replica_find(master, entry, member);
    return replica == NULL || replica->generation != event->generation;
}

/* As store_master_replaced(), but for what the member itself has. NULL: but for nothing. */
static enum status replaced_by(const struct store_master *master, uint64_t now_ns,
                               const struct block_key *id, const struct member *member)
{
    const struct entry *entry = master_entry_find(master, id);
    if (entry == NULL) return STATUS_OK;
    const uint64_t until = entry->extra == NULL ? 0 : entry->extra->elsewhere_until;
    if (now_ns < until && master_entry_version(entry) > 0) return STATUS_AGAIN;
    for (const struct replica *r = master_replica_first(master, entry); r != NULL;
         r = master_replica_next(master, r)) {
        const struct member *owner = master_member_with(master, r);
        if (!r->stale || owner == member) continue;
        if (now_ns < owner->heard_ns + master_ms(STORE_DOUBT_MS)) return STATUS_AGAIN; /* I8 */
    }
    return STATUS_OK;
}

enum status store_master_replaced(const struct store_master *master, uint64_t now_ns,
                                  const struct block_key *id)
{
    return replaced_by(master, now_ns, id, NULL);
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
    master_member_heard(master, member, now_ns);
    if (put_end_overtaken(master, member, event)) return STATUS_STALE;
    const enum status status =
        stored(master, now_ns, member, event,
               member->synced ? member->round : (uint16_t)(member->round - 1));
    if (status != STATUS_OK) return status;
    return replaced_by(master, now_ns, &event->id, member); /* its own may be replaced by now */
}

void store_master_synced(struct store_master *master, uint64_t now_ns, struct store_node_id node)
{
    struct member *member = master_member_at(master, node);
    struct replica *next;
    if (member == NULL) return;
    master_member_heard(master, member, now_ns);
    for (struct replica *replica = master_replica_at(master, member->replicas); replica != NULL;
         replica = next) {
        next = master_replica_at(master, replica->next_of_member);
        if (replica->round != member->round) master_replica_remove(master, replica);
    }
    member->announced = true;
    member->synced = true;
}
