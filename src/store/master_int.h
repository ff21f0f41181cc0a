/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_int.h - the inside of the directory, shared by its parts, the files master_*.c; what
 * each of them is for, and the invariants, are on top of master.c. Nothing else includes it.
 */
#ifndef STORE_MASTER_INT_H
#define STORE_MASTER_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/env.h"
#include "base/key.h"
#include "base/map.h"
#include "base/rng.h"
#include "store/idmap.h"
#include "store/master.h"
#include "store/order.h"
#include "store/rank.h"
#include "store/slab.h"
#include "store/space.h"
#include "store/tombs.h"

struct entry;
struct hot;
struct leave;

enum { MASTER_FORMER_TERMS = 4 };
enum { MASTER_SLOT_BITS = 11 }; /* of a node id: its member's place + 1; the rest counts lives */

/* Links between records are the number of a record in its slab + 1; 0 is none. */

struct replica {
    uint64_t address;
    uint64_t generation;
    uint32_t entry;          /* number, not a link: there always is one */
    uint32_t next_of_entry;  /* link */
    uint32_t prev_of_member; /* link */
    uint32_t next_of_member; /* link */
    uint32_t granules : 31;  /* of the member's space, if it is placed */
    uint32_t busy : 1; /* its owner was asked to drop it, and vouches for nothing until it has */
    uint16_t round;    /* of the member's announcements that last named it; wraps */
    uint16_t member : MASTER_SLOT_BITS; /* its place in the list of members */
    uint16_t placed : 1;                /* owns its range of the member's space */
    uint16_t dropping : 1;
    uint16_t stale : 1; /* of a version that was replaced: never read, dropped until it is gone */
    uint16_t disk : 1;  /* below its node's memory: takes nothing of what was lent to us */
    uint16_t doubt : 1; /* its node may not know that it was replaced */
};

_Static_assert(sizeof(struct replica) == 40, "a million of them");
#define MASTER_GRANULES_MAX ((UINT32_C(1) << 31) - 1)
_Static_assert(STORE_MEMBERS_MAX < 1 << MASTER_SLOT_BITS, "the place of a member fits");

#define MASTER_SOFT_PIN_OFF UINT32_MAX

struct ticket {
    struct block_key id; /* of the key */
    struct entry *entry; /* NULL in limbo */
    struct member *member;
    struct ticket *prev;
    struct ticket *next;
    uint32_t index; /* in the slab of tickets */
    uint32_t version;
    uint64_t put_id;
    uint64_t writer;
    uint64_t address;
    uint64_t size;
    uint64_t due_ns;           /* to be discarded, or in limbo to be freed */
    bool copy;                 /* of a value that is there: store/master_copy.c */
    bool hard_pin;             /* what it replaces has one */
    struct store_node_id from; /* copy: of the node that has it */
    uint16_t tenant;           /* who is charged for the range */
    uint32_t soft_pin_ms;      /* or MASTER_SOFT_PIN_OFF */
    uint32_t write_ms;         /* of a writer that wants more than put_ms; or 0 */
};

struct ticket_list {
    struct ticket *head;
    struct ticket *tail;
    uint64_t count;
    uint64_t bytes; /* of their ranges */
};

/* Values that are kept, and go, together. */
struct group {
    struct block_key id;
    struct entry *members;
    uint32_t count;
    uint64_t lease_until; /* of the last time that all were leased */
};

/* What few entries have: something was wished for when they were put. */
struct extra {
    struct store_attributes attributes;
    uint64_t soft_until; /* 0: not soft-pinned */
    struct group *group;
    struct entry *group_prev;
    struct entry *group_next;
    struct entry *work_prev; /* master_copy.c: too few or too many replicas */
    struct entry *work_next;
    bool working;
    uint8_t hot;              /* replicas that heat adds to what is wished: store/master_hot.c */
    uint8_t copy_failures;    /* in a row */
    uint32_t task;            /* link, of master_task.c; 0: none */
    uint64_t copy_after;      /* not tried again before */
    uint64_t elsewhere_until; /* replicas of this or an older version may be with nodes that this
                                 master has never heard, until then */
};

/* What a question reads comes first. */
struct entry {
    struct block_key id; /* first: store/idmap.h */
    uint32_t key;        /* link into the slab of keys of this length; 0 for a block */
    uint32_t replicas;   /* link */
    uint32_t ticket;     /* link */
    uint32_t index;      /* in the slab of entries */
    uint64_t lease_until;
    uint64_t size : 38;
    uint64_t tenant : 10; /* number; 0 for a block */
    uint64_t key_len : 11;
    uint64_t replicas_count : 4;
    uint64_t removing : 1; /* asked for, not for space: its drops are repeated until they succeed */
    struct extra *extra;   /* NULL: nothing special */
    struct order_node order;
    uint64_t digest;
    uint64_t term; /* of the value; 0: not known, or there is none */
};

_Static_assert(sizeof(struct entry) == 96, "a million of them");
_Static_assert(STORE_KEY_SIZE_MAX < 1 << 11 && STORE_REPLICAS_MAX < 1 << 4, "they fit");
_Static_assert(STORE_TENANTS_MAX == 1 << 10, "a number fits");

/* Whose values they are, and what it has of memory: store/master_tenant.c. */
struct tenant {
    char name[STORE_TENANT_SIZE]; /* "": the default */
    uint32_t number;
    struct store_quota quota;
    uint64_t quota_stamp; /* 0: what the master was started with, or nothing */
    struct store_quota used;
    struct store_quota dropping; /* of `used`: what is being dropped */
    uint32_t copies;             /* of its values, under way */
    struct store_quota evicted;  /* ever */
    uint64_t values;
    uint64_t refused_total;
    struct order *order; /* of what may be evicted */
    struct order *soft;  /* of what is soft-pinned, by deadline */
};

enum { MASTER_KEY_CLASSES = STORE_KEY_SIZE_MAX / 8 }; /* keys are kept in multiples of 8 bytes */
#define MASTER_SIZE_MAX ((UINT64_C(1) << 38) - 1)

struct member {
    struct store_member_info info;
    struct store_node_id id;
    enum store_member_state state;
    uint64_t heard_ns;
    uint64_t slow_ns;                 /* from when it gets puts little by little; 0: not so */
    uint32_t failed_puts;             /* in a row, of those placed here */
    struct store_node_id failed_from; /* who was to send the last copy that failed here */
    uint32_t bar_ms;                  /* how long it was barred the last time; 0: well since */
    uint64_t barred_until;
    uint64_t load;           /* bytes a second that it moves, as it says */
    uint64_t damaged;        /* frames, ever, likewise */
    uint64_t faults;         /* ever, likewise, */
    uint64_t faults_seen;    /* at the last look at them, or when it told of them first */
    uint64_t faults_look_ns; /* the next one */
    bool faults_told;
    uint32_t keep;        /* of MASTER_KEEP_ALL: what it keeps of what is drawn for it */
    uint16_t round;       /* wraps */
    bool draining;        /* gets nothing new, and what it has goes elsewhere */
    struct leave *leave;  /* master_leave.c: it goes soon; NULL: not that we know. Draining, too */
    uint32_t copies_from; /* under way, of values it has */
    uint32_t drain_next;  /* where the walk for values that have to go on goes on */
    bool announced;       /* a snapshot of this life was complete once */
    bool synced;          /* the present snapshot is complete: what is not known is not there */
    uint64_t generation_seen; /* the highest that its events have named */
    struct space *space;
    uint64_t dropping; /* bytes of its placed replicas that are being dropped */
    uint64_t values;   /* replicas of values, and of blocks */
    uint64_t blocks;
    uint32_t replicas; /* link */
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

/* What was asked for by name: store/master_task.c. */
struct tasks {
    struct slab *slab;
    uint64_t now_ns;     /* of the last run, or task made */
    uint32_t made;       /* ever */
    uint32_t active;     /* that have not ended */
    uint32_t ended;      /* and are kept, */
    uint32_t ended_head; /* links, the oldest first */
    uint32_t ended_tail;
};

struct store_master {
    struct store_master_options options;
    uint64_t term;
    uint64_t started_ns;
    struct slab *entries; /* what lists walk */
    struct idmap *ids;    /* of the entries */
    struct slab *replicas;
    struct slab *tickets_slab;
    struct slab *keys[MASTER_KEY_CLASSES]; /* of values, by length; NULL: none yet */
    struct member *members[STORE_MEMBERS_MAX];
    uint32_t members_count;
    struct member *by_age[STORE_MEMBERS_MAX]; /* the same ones, in the order of registration */
    uint32_t lives;
    bool settled; /* everybody there was has announced what they have, once */
    struct tenant *tenants[STORE_TENANTS_MAX]; /* by number; NULL: none */
    uint32_t tenants_top;                      /* numbers from here on are not used */
    struct map *tenant_names;                  /* of all but the default one, to numbers */
    uint64_t notes_version;                    /* highest stamp of a quota, and above it; 0: none */
    struct map *groups;                        /* struct group * */
    struct entry *work_head; /* values with too few or too many replicas, looked at in turn */
    struct entry *work_tail;
    uint32_t work_count;
    uint32_t copies;            /* under way */
    struct ticket_list tickets; /* by start, so by due_ns */
    struct ticket_list limbo;
    struct tasks tasks;
    struct actions actions;
    struct retry *retries;
    uint32_t retries_count;
    uint32_t retries_capacity;
    uint64_t former[MASTER_FORMER_TERMS]; /* ours, before a node knew a later one; the last ones */
    uint32_t former_count;                /* ever */
    struct tombs dead;    /* ranks that were removed or replaced, of keys that are gone */
    struct tombs evicted; /* of keys that had no other value under us, and are gone */
    struct tombs issued;  /* behind those of puts that were given up, and may still be committed */
    struct rng rng;
    struct hot *hot;    /* NULL: heat adds no replicas */
    uint32_t hot_skip;  /* reads until one is counted; 0: none is */
    struct rng hot_rng; /* of what is counted, and of who is read */
    uint64_t puts_made;
    struct store_master_counts counts;
};

static inline uint64_t master_ms(uint32_t value)
{
    return value * ENV_NS_PER_MS;
}

static inline uint32_t master_granules(uint64_t size)
{
    return (uint32_t)((size + SPACE_GRANULE - 1) / SPACE_GRANULE);
}

/* What was granted under a term that was ours counts as granted under the present one: R2 of
 * store/rank.h. */
static inline struct rank master_rank(const struct store_master *master, struct rank rank)
{
    const uint32_t count =
        master->former_count < MASTER_FORMER_TERMS ? master->former_count : MASTER_FORMER_TERMS;
    for (uint32_t i = 0; i < count; i++) {
        if (rank.term == master->former[i]) rank.term = master->term;
    }
    return rank;
}

/* ---- records ---- */

static inline struct entry *master_entry_at(const struct store_master *master, uint32_t number)
{
    return slab_at(master->entries, number);
}

static inline struct replica *master_replica_at(const struct store_master *master, uint32_t link)
{
    return link == 0 ? NULL : slab_at(master->replicas, link - 1);
}

static inline struct replica *master_replica_first(const struct store_master *master,
                                                   const struct entry *entry)
{
    return master_replica_at(master, entry->replicas);
}

/* Of the same entry. */
static inline struct replica *master_replica_next(const struct store_master *master,
                                                  const struct replica *replica)
{
    return master_replica_at(master, replica->next_of_entry);
}

static inline struct entry *master_entry_with(const struct store_master *master,
                                              const struct replica *replica)
{
    return slab_at(master->entries, replica->entry);
}

static inline struct member *master_member_with(const struct store_master *master,
                                                const struct replica *replica)
{
    return master->members[replica->member];
}

static inline struct ticket *master_entry_ticket(const struct store_master *master,
                                                 const struct entry *entry)
{
    return entry->ticket == 0 ? NULL : slab_at(master->tickets_slab, entry->ticket - 1);
}

/* ---- master_entry.c ---- */

/* A block's identity is its key. */
static inline bool master_entry_block(const struct entry *entry)
{
    return entry->key_len == 0;
}

static inline struct entry *master_entry_of(struct order_node *node)
{
    if (node == NULL) return NULL;
    return (struct entry *)(void *)((uint8_t *)node - offsetof(struct entry, order));
}

static inline bool master_entry_hard(const struct entry *entry)
{
    return entry->extra != NULL && entry->extra->attributes.hard_pin;
}

/* NULL: not in the directory. */
struct entry *master_entry_find(const struct store_master *master, const struct block_key *id);

/* The same by the bytes of the key. A collision of identities is an absent key. */
struct entry *master_entry_lookup(const struct store_master *master, struct store_key key);

/* Whether this is the entry's key, not only its identity. */
bool master_entry_is(const struct store_master *master, const struct entry *entry,
                     struct store_key key);

/* Of a value; it is key_len bytes long. */
const uint8_t *master_entry_key(const struct store_master *master, const struct entry *entry);

/* An entry with neither replica nor ticket, which it must get at once (I1). `key` is empty for a
 * block. NULL at objects_max, or when there is no memory. */
struct entry *master_entry_new(struct store_master *master, const struct block_key *id,
                               struct store_key key);

/* Deletes the entry if nothing is left of it (I1), else puts it where it belongs in the orders. */
void master_entry_settle(struct store_master *master, struct entry *entry);

/* What few entries have, made if it is not there. NULL: no memory. */
struct extra *master_entry_extra(struct entry *entry);

/* Remembers what was wished for when the value of this version was put, as far as there is memory.
 */
void master_entry_keep(struct store_master *master, struct entry *entry,
                       const struct store_attributes *attributes);

uint32_t master_entry_version(const struct entry *entry);
struct rank master_entry_rank(const struct store_master *master, const struct entry *entry);

/* How many replicas somebody wished for; and with what heat adds to them, how many there should be.
 */
uint32_t master_entry_wished(const struct entry *entry);
uint32_t master_entry_wanted(const struct entry *entry);

/* Used just now: it goes later. */
void master_entry_used(struct store_master *master, struct entry *entry);

/* I3: into, or out of, an order of eviction. */
void master_entry_reorder(struct store_master *master, struct entry *entry);

/* A wish for a soft pin, from now. */
void master_soft_pin_from(struct store_master *master, uint64_t now_ns, struct entry *entry,
                          uint32_t for_ms);
/* Those that are over. */
void master_soft_pins_end(struct store_master *master, uint64_t now_ns);
/* That of one entry, if it has one. */
void master_soft_pin_off(struct store_master *master, struct entry *entry);

/* ---- master_group.c ---- */

/* Into the group that its attributes name. One that has no room, or no memory, does without. The
 * entry has `extra` and is in no group. */
void master_group_join(struct store_master *master, struct entry *entry);
/* Out of its group, if it has one. */
void master_group_leave(struct store_master *master, struct entry *entry);

/* ---- master_tenant.c ---- */

/* False: no memory. */
bool master_tenants_init(struct store_master *master);
void master_tenants_fini(struct store_master *master);

static inline struct tenant *master_tenant_at(const struct store_master *master, uint32_t number)
{
    return master->tenants[number];
}

/* Whose key it is. NULL: a tenant that has nothing, and no quota. */
const struct tenant *master_tenant_find(const struct store_master *master, struct store_key key);

/* The new entry is that of a value: its tenant knows of it. False: too many tenants. */
bool master_tenant_join(struct store_master *master, struct entry *entry, struct store_key key);
/* The entry goes, and is in no order any more. The tenant may be gone afterwards. */
void master_tenant_leave(struct store_master *master, const struct entry *entry);

/* A range of a node's space is the tenant's from now on, or free. */
void master_tenant_charge(struct store_master *master, uint32_t number, uint64_t bytes);
void master_tenant_credit(struct store_master *master, uint32_t number, uint64_t bytes);
/* It begins to be dropped, or that is over. */
void master_tenant_dropping(struct store_master *master, uint32_t number, uint64_t bytes,
                            bool begins);

/* Whether so many bytes more, of one value, are within the quota: now; when what is being dropped
 * is gone. 0: whether it is within it as it is. */
bool master_tenant_fits(const struct tenant *tenant, uint64_t bytes);
bool master_tenant_will_fit(const struct tenant *tenant, uint64_t bytes);

/* Whether a value of this size may be put under the name: STATUS_OK; STATUS_AGAIN, as its tenant's
 * values are being evicted for it; STATUS_QUOTA, STATUS_DENIED. */
MUST_USE enum status master_tenant_admit(struct store_master *master, uint64_t now_ns,
                                         const struct store_name *name, uint64_t size);

/* Those above their quotas come down, a bounded part of the way. */
void master_tenants_trim(struct store_master *master, uint64_t now_ns);

/* What the shares of all tenants are reckoned from. */
struct master_shares {
    uint64_t lent;   /* bytes of memory */
    uint64_t quotas; /* bytes of all together */
    uint64_t others; /* tenants that have something and no quota */
};
void master_shares_init(const struct store_master *master, struct master_shares *out);

/* Who is above its share by most, of those above it by less than `after` (NULL: of all). NULL:
 * there is none. */
struct tenant *master_shares_worst(const struct store_master *master,
                                   const struct master_shares *shares, const struct tenant *after);
bool master_shares_above(const struct master_shares *shares, const struct tenant *tenant);

/* ---- master_replica.c ---- */

/* Of its member's space, if it is placed. */
static inline uint64_t master_replica_bytes(const struct replica *replica)
{
    return (uint64_t)replica->granules * SPACE_GRANULE;
}

/* The entry's at this member, or NULL. */
struct replica *master_replica_find(const struct store_master *master, const struct entry *entry,
                                    const struct member *member);

/* There is none at this member yet. NULL: no memory. */
struct replica *master_replica_new(struct store_master *master, struct entry *entry,
                                   struct member *member);

/* The entry may be gone afterwards. */
void master_replica_remove(struct store_master *master, struct replica *replica);

/* The range, which was allocated, is the replica's now. */
void master_replica_own(struct store_master *master, struct replica *replica);

/* A drop of the replica begins, or is over; its bytes are counted. */
void master_replica_dropping(struct store_master *master, struct replica *replica, bool begins);

/* Gives back the replica's range, if it owns one, and ends a drop. */
void master_replica_unplace(struct store_master *master, struct replica *replica);

bool master_replica_readable(const struct store_master *master, const struct replica *replica);
/* Readable, and nobody can know of a newer one whom we have not heard yet. */
bool master_replica_sure(const struct store_master *master, const struct replica *replica);
void master_replica_describe(const struct member *member, uint64_t address, uint64_t generation,
                             struct store_replica *out);

/* ---- master_ticket.c ---- */

/* The range, which was allocated, is a ticket's of this entry, which has none. Writer, version and
 * wishes are the caller's to fill in. NULL: no memory. */
struct ticket *master_ticket_new(struct store_master *master, uint64_t now_ns, struct entry *entry,
                                 struct member *member, uint64_t address, uint64_t size);

/* The put is over for its entry, which may be gone afterwards; the range waits in limbo. */
void master_ticket_discard(struct store_master *master, uint64_t now_ns, struct ticket *ticket);

/* The same, but nobody has written into the range, or will: it is free. */
void master_ticket_withdraw(struct store_master *master, struct ticket *ticket);

/* Open or in limbo, the ticket is gone; its range is the caller's, its entry is left as it is. */
void master_ticket_finish(struct store_master *master, struct ticket *ticket);

/* Removes those of a member that is gone, with their entries where nothing else is left. */
void master_tickets_forget(struct store_master *master, const struct member *member);

/* Until when its writer may write. */
uint64_t master_ticket_expires(const struct store_master *master, const struct ticket *ticket);

void master_ticket_describe(const struct store_master *master, const struct ticket *ticket,
                            struct store_ticket *out);

/* ---- master_member.c ---- */

/* Out of range for the id of none. */
static inline uint32_t master_member_slot(struct store_node_id id)
{
    return (id.index & ((1u << MASTER_SLOT_BITS) - 1)) - 1;
}

/* NULL: that life is over. */
struct member *master_member_at(const struct store_master *master, struct store_node_id id);
struct member *master_member_find(const struct store_master *master, const char *name);

/* It lives now. */
void master_member_heard(struct store_master *master, struct member *member, uint64_t now_ns);

/* Suspected, dead, forgotten: by how long it was silent. The member may be gone afterwards. */
void master_member_tick(struct store_master *master, struct member *member, uint64_t now_ns);

/* Whether a value of this size could ever be placed there. NULL is allowed. */
bool master_member_lends(const struct member *member, uint64_t size);

/* Free bytes of what it lends. */
uint64_t master_member_room(const struct member *member);

/* The same as placement weighs it: next to nothing for one that has just come, or come back, or at
 * which puts fail, and all of it half a minute later. */
uint64_t master_member_appeal(const struct member *member, uint64_t now_ns);

/* Starts slowly, if enough have failed there. */
void master_member_slow(struct member *member, uint64_t now_ns);
/* A put placed there is not ended, and that may be its writer's doing. */
void master_member_put_given_up(struct member *member, uint64_t now_ns);

/* Whether a key that is not in the directory is certainly absent. */
bool master_settled(const struct store_master *master, uint64_t now_ns);

/* ---- master_place.c ---- */

enum { MASTER_KEEP_ALL = 1024 };

/* What the loads that members have told of mean for each of them; and whether their faults do. */
void master_loads_run(struct store_master *master);
void master_bars_run(struct store_master *master, uint64_t now_ns);

/* By chance: whether it takes what was drawn for it, busy as it is. */
bool master_member_keeps(struct rng *rng, const struct member *member);

/* In quarantine: gets nothing new while others lend. */
bool master_member_barred(const struct member *member, uint64_t now_ns);
/* Lends so much, and is not barred, or everybody who does is. NULL is allowed. */
bool master_member_takes(const struct store_master *master, const struct member *member,
                         uint64_t now_ns, uint64_t size);

/* A put placed there came to nothing; a copy; either came to its end. */
void master_member_failed(struct store_master *master, struct member *member, uint64_t now_ns);
void master_member_copy_failed(struct store_master *master, struct member *member,
                               struct store_node_id from, uint64_t now_ns);
void master_member_served(struct member *member, uint64_t now_ns);

/* A member and a range of it for a put. NULL: there is no room but at barred ones; which the second
 * one looks at. */
struct member *master_place(struct store_master *master, uint64_t now_ns, uint64_t size,
                            const struct store_wish *wish, uint64_t *address);
struct member *master_place_barred(struct store_master *master, uint64_t now_ns, uint64_t size,
                                   uint64_t *address);

/* ---- master_read.c ---- */

/* What exist would answer. `entry` may be NULL. */
enum status master_entry_state(const struct store_master *master, uint64_t now_ns,
                               const struct entry *entry);

/* ---- master_evict.c ---- */

/* Space for `size` bytes of this tenant's is asked for by evicting others than `except` (NULL:
 * nothing is excepted): of tenants above their share first, then of this one, then of anyone.
 * `tenant` may be NULL: one that has nothing yet. STATUS_AGAIN once enough is on its way out,
 * STATUS_FULL if nothing can go. */
MUST_USE enum status master_make_room(struct store_master *master, uint64_t now_ns,
                                      const struct tenant *tenant, const struct entry *except,
                                      uint64_t size);

/* Evicts of the tenant's own until so many bytes more will fit its quota (0: until it is within
 * it). False: it will not. */
bool master_tenant_evict(struct store_master *master, uint64_t now_ns, const struct tenant *tenant,
                         const struct entry *except, uint64_t bytes);

/* Something was placed at the member: others than `except` go before the room there is all used. */
void master_room_ahead(struct store_master *master, uint64_t now_ns, const struct member *member,
                       const struct entry *except);

/* ---- master_action.c ---- */

/* A zeroed action about the member, in the queue. NULL: none can be queued. */
struct store_action *master_action(struct store_master *master, enum store_action_kind kind,
                                   const struct member *member);

/* The same, about a value: `id` may be NULL. False: none can be queued. */
bool master_action_push(struct store_master *master, enum store_action_kind kind,
                        const struct member *member, const struct block_key *id,
                        uint64_t generation);

/* I5. Asks its owner to drop it; `evict`: only its memory is wanted, it may stay on its node's
 * disk. False if no action can be queued now: nothing changes. */
bool master_replica_drop(struct store_master *master, struct replica *replica, bool evict);

/* Its bytes were replaced: it is not read any more, and goes as soon as nobody reads it. */
void master_replica_outdate(struct store_master *master, uint64_t now_ns, struct replica *replica);

/* Drops whose next try is due. */
void master_drops_retry(struct store_master *master, uint64_t now_ns);

/* ---- master_copy.c ---- */

/* The number of replicas of the entry, or what is wished, may have changed. */
void master_copies_look(struct store_master *master, struct entry *entry);
/* The entry goes. */
void master_copies_forget(struct store_master *master, struct entry *entry);
/* A copy's ticket is over, one way or the other. */
void master_copies_ended(struct store_master *master, const struct ticket *ticket);
/* Starts what can be started. */
void master_copies_run(struct store_master *master, uint64_t now_ns);

/* Readable replicas of nodes that are heard, beyond what is wished; and which goes first, of all
 * that are readable. NULL: there are none beyond it. */
uint32_t master_copies_surplus(const struct store_master *master, const struct entry *entry);
struct replica *master_copies_least(const struct store_master *master, const struct entry *entry);

enum copy_room {
    COPY_IDLE, /* into memory that would stay idle, on another host if any lacks it: for heat */
    COPY_ROOM, /* where there is room */
    COPY_MAKE_ROOM, /* what may be evicted for it is, for the next time */
};

/* Readable replicas of nodes that do not drain. */
uint32_t master_copies_settled(const struct store_master *master, const struct entry *entry);

/* So many are wished from now on, and its owners are told. The entry has `extra`. False: not all of
 * them could be told. */
bool master_copies_wish(struct store_master *master, struct entry *entry, uint32_t count);

/* One more replica, at this member, which has none; read from `from` if that has it and is heard.
 * The entry has `extra`, and no ticket. STATUS_AGAIN: not now; STATUS_FULL: no room there;
 * STATUS_QUOTA; STATUS_UNAVAILABLE: it lends nothing so large. */
MUST_USE enum status master_copy_to(struct store_master *master, uint64_t now_ns,
                                    struct entry *entry, const struct member *from,
                                    struct member *to);

bool master_copies_may_start(const struct store_master *master);
/* One more replica of a value that is not being written, from whoever has it. False: not now. The
 * entry has `extra`, and may be gone afterwards. */
bool master_copy_start(struct store_master *master, uint64_t now_ns, struct entry *entry,
                       enum copy_room room);

/* ---- master_hot.c ---- */

/* False: no memory. */
bool master_hot_init(struct store_master *master);
void master_hot_fini(struct store_master *master);

/* It was read: so many replicas as it deserves are made. */
void master_hot_sampled(struct store_master *master, uint64_t now_ns, struct entry *entry);
static inline void master_hot_read(struct store_master *master, uint64_t now_ns,
                                   struct entry *entry)
{
    if (master->hot_skip == 0 || --master->hot_skip > 0) return;
    master_hot_sampled(master, now_ns, entry);
}

/* More replicas than wished have been announced to a young master: they are heat's. */
void master_hot_adopt(struct store_master *master, uint64_t now_ns, struct entry *entry);
/* The entry goes. */
void master_hot_forget(struct store_master *master, struct entry *entry);
/* What has cooled has fewer from now on. */
void master_hot_run(struct store_master *master, uint64_t now_ns);

/* The hot ones, in no order; *cursor is UINT32_MAX at first. NULL: no more. What is shown may
 * cease to be hot meanwhile. */
struct entry *master_hot_next(const struct store_master *master, uint32_t *cursor);
/* One that heat had added to it makes room for something else: it is being dropped. */
void master_hot_taken(struct store_master *master, uint64_t now_ns, struct entry *entry);
/* For a while after that nothing is copied for heat. */
bool master_hot_rests(const struct store_master *master, uint64_t now_ns);

void master_hot_counts(const struct store_master *master, struct store_master_counts *out);
void master_hot_check(const struct store_master *master);

/* ---- master_task.c ---- */

/* False: no memory. */
bool master_tasks_init(struct store_master *master);
void master_tasks_fini(struct store_master *master);
/* Those that ended long ago are forgotten. */
void master_tasks_run(struct store_master *master, uint64_t now_ns);
/* The next step of the task of this entry, which has one. */
void master_task_step(struct store_master *master, uint64_t now_ns, struct entry *entry);
/* How a copy of the entry's has ended. */
void master_task_copied(struct store_master *master, const struct entry *entry, enum status status);
/* The entry goes. */
void master_task_forget(struct store_master *master, struct entry *entry);
void master_tasks_check(const struct store_master *master);

/* ---- master_leave.c ---- */

void master_leaves_run(struct store_master *master, uint64_t now_ns);
/* It does not leave any more, or has left. */
void master_leave_end(struct member *member);

#endif
