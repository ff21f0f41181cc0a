/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master.h - the directory of the pool: which node holds which key. A pure state machine.
 *
 * Nodes own the truth; the master only knows what they told it and forgets nothing that matters
 * when it is killed: nodes announce again. It never calls a clock, a socket or a disk. Every
 * function takes the time, changes the state and answers at once; what must happen elsewhere (drop
 * a value at its owner, tell the watchers, listen to a node) is queued as an action that the shell
 * (store/master_shell.h) fetches and carries out.
 *
 * Absent and unknown differ. Until every registered node has announced all it holds, and for
 * settle_ms after the start, a key that is not in the directory answers STATUS_AGAIN ("not yet
 * known"), never STATUS_NOT_FOUND, and nothing is placed under it. Until then the same holds for a
 * value that only nodes in doubt have (store/node_trust.h).
 *
 * A value put by key:
 *
 *                put_start                    announced by its owner
 *     (absent) -------------> PROCESSING ------------------------------> COMPLETE
 *        ^                        |                                         |
 *        |      put_revoke, or silent for discard_ms                        | remove, evicted
 *        |                        v               REMOVED from the owner    v
 *        +------------------- (space waits) <--------------------------- DROPPING
 *           no writer can write any more
 *
 * Memory:  grows with what it knows, bounded by objects_max; an empty master is small.
 * Threads: one at a time.
 * Limits:  STORE_MEMBERS_MAX members, objects_max objects, STORE_REPLICAS_MAX replicas of an object
 *          (more are true but not remembered), STORE_ACTIONS_MAX actions. */
#ifndef STORE_MASTER_H
#define STORE_MASTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "store/events.h"
#include "store/member.h"
#include "store/order.h"

struct store_master; /* opaque */

enum {
    STORE_KEY_SIZE_MAX = 1024,
    STORE_REPLICAS_MAX = 8,
    STORE_SOFT_PIN_MS_MAX = 86400000,
    STORE_GROUP_MAX = 16384,  /* keys of one group; more are not grouped */
    STORE_TENANTS_MAX = 1024, /* with the default one; a power of two */
    STORE_TENANT_SIZE = 64,   /* of a name, with its NUL */
};

struct store_key {
    const uint8_t *bytes;
    uint32_t len; /* 1..STORE_KEY_SIZE_MAX */
};

/* A key and its identity, store_key_id() of it, which takes time: computed once for all that is
 * asked under it. */
struct store_name {
    struct store_key key;
    struct block_key id;
};

struct store_master_options {
    uint64_t term; /* greater than any earlier master's: the shell takes it from the wall clock */
    uint64_t seed; /* of its hash tables and its choices */
    uint32_t objects_max;       /* 0: 16 million */
    uint32_t lease_ms;          /* 0: 10000 */
    uint32_t put_ms;            /* how long a writer may write; 0: 10000 */
    uint32_t discard_ms;        /* after which an unfinished put is taken for dead; 0: 30000 */
    uint32_t suspect_ms;        /* 0: 2000 */
    uint32_t dead_ms;           /* 0: 10000 */
    uint32_t forget_ms;         /* after death, until what a node held is erased; 0: 60000 */
    uint32_t settle_ms;         /* 0: 2000 */
    enum order_policy eviction; /* not ORDER_DEADLINE */
    bool keep_soft_pins;   /* soft pins are never evicted; else: only when nothing else is left */
    uint32_t fence_ms;     /* after which no writer whose time is over can land a byte; 0: 10000 */
    bool tenants_listed;   /* only tenants with a quota may put */
    uint32_t hot_replicas; /* beyond what is wished, for a value that is read much; 0: none */
    uint32_t hot_reads;    /* a second, that one replica should carry; 0: 500 */
    uint32_t task_ms;      /* after which a task (store/master_task.h) fails; 0: 300000 */
};

/* A node that has been silent for so long doubts what it has, and says so when it announces it
 * (store/node_trust.h): what has replaced it need not wait for its word. */
enum { STORE_DOUBT_MS = 10000 };

/* STATUS_INVALID or STATUS_NO_MEMORY. */
MUST_USE enum status store_master_create(const struct store_master_options *options,
                                         uint64_t now_ns, struct store_master **out);
void store_master_destroy(struct store_master *master); /* NULL is allowed */

uint64_t store_master_term(const struct store_master *master);

/* ---- members ---- */

/* A registered node, valid until it is gone; a new life of the same name gets a new id. */
struct store_node_id {
    uint32_t index; /* 0: none */
};

/* `term_seen`: the highest term the node has heard. Idempotent for the same name and epoch; another
 * epoch replaces the old life, whose replicas are forgotten (whoever calls makes sure that the old
 * one does not live any more). STATUS_FULL beyond STORE_MEMBERS_MAX,
 * STATUS_INVALID for malformed info. */
MUST_USE enum status store_master_register(struct store_master *master, uint64_t now_ns,
                                           const struct store_member_info *info, uint64_t term_seen,
                                           struct store_node_id *out);

/* STATUS_NOT_FOUND: not registered with this epoch; register again. */
MUST_USE enum status store_master_beat(struct store_master *master, uint64_t now_ns,
                                       const char *name, uint64_t epoch);

/* What a node says of itself with a beat. */
struct store_node_load {
    uint64_t bytes;   /* a second, moved for readers and writers lately */
    uint64_t faults;  /* of its memory and disk, ever: what was found to be wrong or failed */
    uint64_t damaged; /* frames that came to its process otherwise than they were sent, ever */
};
void store_master_load(struct store_master *master, const char *name,
                       const struct store_node_load *load);

/* The node says good-bye: gone at once. */
void store_master_leave(struct store_master *master, uint64_t now_ns, const char *name,
                        uint64_t epoch);

uint32_t store_master_members(const struct store_master *master);

/* False past the last; in the order of registration. */
bool store_master_member(const struct store_master *master, uint32_t nth,
                         struct store_member_info *info, enum store_member_state *state,
                         struct store_node_id *id);

/* ---- what nodes announce (from store/events.h) ---- */

/* A snapshot of the node starts: what it held before is unproven until it is announced again. */
void store_master_reset(struct store_master *master, uint64_t now_ns, struct store_node_id node);
void store_master_event(struct store_master *master, uint64_t now_ns, struct store_node_id node,
                        const struct store_event *event);
/* The snapshot is complete: what was not announced again is gone. */
void store_master_synced(struct store_master *master, uint64_t now_ns, struct store_node_id node);

/* ---- clients ---- */

struct store_replica {
    struct store_node_id node;
    char rpc_address[STORE_ADDRESS_SIZE];
    char segment[STORE_ADDRESS_SIZE];
    uint64_t address;
    uint64_t generation;
    uint64_t epoch; /* of the node */
    bool disk;      /* not in memory: its owner reads it first */
    bool yields;    /* of a get: readers of its host, too, had better read another */
};

struct store_object {
    uint64_t size;
    uint64_t digest;
    uint32_t replicas_count;
    struct store_replica replicas[STORE_REPLICAS_MAX]; /* alive nodes first */
};

/* STATUS_OK and a lease; STATUS_NOT_FOUND; STATUS_AGAIN (not yet known); STATUS_BUSY: being
 * written. peek is get without the lease, and is not counted. */
MUST_USE enum status store_master_exist(struct store_master *master, uint64_t now_ns,
                                        struct store_key key);
MUST_USE enum status store_master_get(struct store_master *master, uint64_t now_ns,
                                      struct store_key key, struct store_object *out);
MUST_USE enum status store_master_peek(const struct store_master *master, uint64_t now_ns,
                                       struct store_key key, struct store_object *out);

/* The same under names. Whoever asks under many, in a batch, says so before, so that their memory
 * is on its way while others are dealt with: each name when it is known; then, of at most
 * STORE_EXPECT_MAX at a time, what stands under them; and at last what that leads to. Between the
 * last two nothing of the directory is changed. Time may pass with other work after each. */
enum { STORE_EXPECT_MAX = 32 };
struct store_expected {
    const struct entry *entries[STORE_EXPECT_MAX]; /* private */
    uint32_t count;
};
void store_master_expect_name(const struct store_master *master, const struct store_name *name);
void store_master_expect_entries(const struct store_master *master, const struct store_name *names,
                                 uint32_t count, struct store_expected *out);
void store_master_expect_rest(const struct store_master *master, uint64_t now_ns,
                              const struct store_expected *expected);
MUST_USE enum status store_master_exist_name(struct store_master *master, uint64_t now_ns,
                                             const struct store_name *name);
/* It was read so many times besides, by who remembered where it is. */
void store_master_was_read(struct store_master *master, uint64_t now_ns,
                           const struct store_name *name, uint32_t times);
MUST_USE enum status store_master_get_name(struct store_master *master, uint64_t now_ns,
                                           const struct store_name *name, struct store_object *out);

/* What a writer wishes beyond room. All zero: nothing. */
struct store_wish {
    const char *preferred; /* name of the node to place at, if it has room */
    const char *next;      /* names of those to try after it, each with its NUL, and a NUL at the
                              end; NULL: none */
    const struct store_node_id *near; /* the node to try before those; NULL: none */
    uint32_t soft_pin_ms; /* from when the value is there; at most STORE_SOFT_PIN_MS_MAX count */
    bool soft_pin_off;    /* what it replaces may have one: no more */
    uint32_t write_ms;    /* time to write, from put_ms to discard_ms; 0: put_ms */
    bool replace;         /* the value of the key, if there is one, which stays until then */
    struct store_attributes attributes; /* the version is the master's */
};

struct store_ticket {
    uint64_t put_id;
    uint64_t term;
    uint32_t version;
    uint64_t expires_ns;        /* on the master's clock */
    bool hard_pin;              /* what it replaces is pinned, and what replaces it is to be */
    struct store_replica where; /* generation is 0: the owner gives it */
};

/* `writer` is any number that tells writers apart; only it may revoke, and asking again it gets its
 * own ticket again. STATUS_EXISTS: complete, or another writer is at it. STATUS_AGAIN: not yet
 * known, or space is being freed by evicting: ask again. STATUS_FULL: not even eviction could serve
 * it. STATUS_UNAVAILABLE: no node lends space. STATUS_INVALID: size 0 or larger than any extent.
 * STATUS_QUOTA: the key's tenant would pass its quota, even by evicting what is its own.
 * STATUS_DENIED: with tenants_listed, a tenant without a quota.
 * `wish` may be NULL. One that replaces pre-empts another writer, and readers see the old value
 * until its owner has the new one. */
MUST_USE enum status store_master_put_start(struct store_master *master, uint64_t now_ns,
                                            uint64_t writer, struct store_key key, uint64_t size,
                                            const struct store_wish *wish,
                                            struct store_ticket *out);

MUST_USE enum status store_master_put_start_name(struct store_master *master, uint64_t now_ns,
                                                 uint64_t writer, const struct store_name *name,
                                                 uint64_t size, const struct store_wish *wish,
                                                 struct store_ticket *out);

/* The owner has committed what `put_id` asked for. Idempotent. Also right when the put is unknown
 * (it was started under an earlier master): the owner's word counts. STATUS_NOT_FOUND: the node is
 * not registered. STATUS_AGAIN: it is taken over, and what it has replaced is not gone yet; not to
 * be acknowledged before store_master_replaced() says so, or another put_end. */
MUST_USE enum status store_master_put_end(struct store_master *master, uint64_t now_ns,
                                          const char *node_name, uint64_t node_epoch,
                                          uint64_t put_id, const struct store_event *stored);

/* STATUS_OK: no owner can bring back what was replaced under this identity, to this master or the
 * next. STATUS_AGAIN: one has neither dropped it nor been silent for STORE_DOUBT_MS. */
MUST_USE enum status store_master_replaced(const struct store_master *master, uint64_t now_ns,
                                           const struct block_key *id);

/* STATUS_OK: nobody reads what was removed under this identity any more. STATUS_AGAIN: who was told
 * lately where it is may still read it from an owner that has not heard of the removal, and has
 * been in touch lately enough to vouch for what it has (store/node_trust.h). */
MUST_USE enum status store_master_removed(const struct store_master *master, uint64_t now_ns,
                                          const struct block_key *id);

/* STATUS_NOT_FOUND: no such put in progress; STATUS_DENIED: another writer's. */
MUST_USE enum status store_master_put_revoke(struct store_master *master, uint64_t now_ns,
                                             uint64_t writer, struct store_key key,
                                             uint64_t put_id);

/* STATUS_OK: every owner is told. STATUS_BUSY: leased (not with `force`). STATUS_EXISTS: somebody
 * is writing it.
 * STATUS_NOT_FOUND, STATUS_AGAIN as for exist. */
MUST_USE enum status store_master_remove(struct store_master *master, uint64_t now_ns,
                                         struct store_key key, bool force);

/* ---- tenants ---- */

/* Of memory: what lies on disk only does not count. */
struct store_quota {
    uint64_t bytes;    /* in granules of SPACE_GRANULE; as a quota, 0: no limit */
    uint64_t replicas; /* values, each as often as it lies in memory or is being put; likewise */
};

/* What the tenant (store/scope.h) may have from now on; all zero: no quota. One that has more is
 * not refused anything but new puts, and loses in its order of eviction what is too much. This is
 * what the master is started with, for tenants of whom nothing is said later.
 * STATUS_INVALID: not a name; STATUS_FULL: STORE_TENANTS_MAX. */
MUST_USE enum status store_master_quota(struct store_master *master, const char *tenant,
                                        const struct store_quota *quota);

/* The same while it runs, in force from now on and over what any master is started with: nodes
 * remember it, as notes, and tell a new master. STATUS_BUSY: with tenants_listed, a tenant that has
 * values keeps a quota. */
MUST_USE enum status store_master_quota_set(struct store_master *master, const char *tenant,
                                            const struct store_quota *quota);

struct store_quota_note {
    char name[STORE_TENANT_SIZE]; /* as store_master_quota() takes it */
    struct store_quota quota;
    uint64_t stamp; /* of two notes about a tenant the higher one was said later */
};

/* Changes with the notes, and is never that of another master's; 0: there are none. */
uint64_t store_master_notes_version(const struct store_master *master);
/* As store_master_tenant(). */
bool store_master_note(const struct store_master *master, uint32_t *cursor,
                       struct store_quota_note *out);
/* What a node remembers: taken over if it is news. What no master of a term up to this one's can
 * have said is not. */
void store_master_note_take(struct store_master *master, const struct store_quota_note *note);

struct store_tenant_counts {
    char name[STORE_TENANT_SIZE];
    struct store_quota quota;
    struct store_quota used;    /* exactly what nodes' spaces hold of the tenant's */
    struct store_quota evicted; /* ever, while the tenant was known */
    uint64_t values;            /* keys, in memory or not */
    uint64_t refused_total;     /* puts, for its quota */
};

/* The tenants that have something, or a quota, and the default one, which comes first: *cursor is 0
 * at the start, and moves on. False past the last. */
bool store_master_tenant(const struct store_master *master, uint32_t *cursor,
                         struct store_tenant_counts *out);

/* ---- looking around ---- */

struct store_listed {
    struct store_key key; /* borrowed until something changes */
    enum store_class class;
    enum status status; /* what exist would answer */
    uint64_t size;
    uint32_t replicas;
    uint64_t lease_ns; /* left */
    bool hard_pin;
    bool soft_pin;
};

/* Shows at most `looks_max` keys to `visit`, from where `cursor` points (0: the start), until it
 * answers false. Returns where to go on, 0 behind the last. A key that is there during the whole
 * walk, page after page, is shown exactly once; others may be. `visit` may remove values. */
MUST_USE uint64_t store_master_walk(const struct store_master *master, uint64_t now_ns,
                                    uint64_t cursor, uint32_t looks_max,
                                    bool (*visit)(void *ctx, const struct store_listed *listed),
                                    void *ctx);

/* ---- actions ---- */

enum store_action_kind {
    STORE_ACTION_LISTEN = 1, /* subscribe to the node's events */
    STORE_ACTION_FORGET,     /* unsubscribe: the node is gone */
    STORE_ACTION_CHANGED,    /* tell the watchers about this member */
    STORE_ACTION_GONE,       /* tell the watchers that this member is gone */
    STORE_ACTION_DROP,       /* call store.drop at the node, then store_master_dropped() */
    STORE_ACTION_COPY,       /* call store.copy at the node, then store_master_copied() */
    STORE_ACTION_MARK,       /* call store.mark at the node */
    STORE_ACTION_BARRED,     /* tell people that the node is in quarantine, for bar_ms */
};

enum { STORE_ACTIONS_MAX = 1 << 20 };

struct store_action {
    enum store_action_kind kind;
    struct store_node_id node;
    struct store_member_info info; /* of the node */
    enum store_member_state state; /* CHANGED */
    struct block_key id;           /* DROP: store_key_id() of the key */
    uint64_t generation;           /* DROP, MARK; COPY: of the replica at the node, to be copied */
    uint32_t replicas;             /* MARK: how many there should be */
    bool hot;                      /* COPY: for heat, and to be announced so */
    bool move;                     /* COPY: the first half of a move that was asked for */
    bool evict;                    /* DROP: only its memory is wanted */
    uint32_t bar_ms;               /* BARRED */
    struct store_ticket ticket;    /* COPY: where to */
};

/* The oldest action not yet taken; false if there is none. */
bool store_master_next_action(struct store_master *master, struct store_action *out);

/* How a DROP ended: STATUS_OK or STATUS_NOT_FOUND (the REMOVED event frees the space), STATUS_BUSY
 * (the owner vetoes: someone reads it; an evicted value stays, a removed one is tried again),
 * anything else: it is tried again later. */
void store_master_dropped(struct store_master *master, uint64_t now_ns, struct store_node_id node,
                          const struct block_key *id, uint64_t generation, enum status status);

/* How a COPY ended: STATUS_OK, or it is tried again later, from whoever has the value then.
 * STATUS_NOT_FOUND: its source had nothing to copy, and has written nothing. */
void store_master_copied(struct store_master *master, uint64_t now_ns, const struct block_key *id,
                         uint64_t put_id, enum status status);

/* ---- how many replicas, and where ---- */

/* From now on the value should have so many replicas, 1..STORE_REPLICAS_MAX, on different nodes,
 * and hosts where there are such; the nodes copy, or drop, in the background, and announce the
 * number to a new master. STATUS_NOT_FOUND, STATUS_AGAIN, STATUS_BUSY as for exist;
 * STATUS_DENIED: a block; STATUS_INVALID. */
MUST_USE enum status store_master_replicas(struct store_master *master, uint64_t now_ns,
                                           struct store_key key, uint32_t count);

/* The replica at the node of this name goes, and there should be no more than the others from now
 * on; with the last one the value goes. STATUS_NOT_FOUND: it has none; STATUS_AGAIN as for exist;
 * STATUS_BUSY: leased; STATUS_EXISTS: being written or copied; STATUS_DENIED: a block. */
MUST_USE enum status store_master_clear(struct store_master *master, uint64_t now_ns,
                                        struct store_key key, const char *name);

/* The node gets no more values, and those it has go elsewhere, where there is room, evicting what
 * goes first; readers are served meanwhile. *left: values it still has; at 0 it may leave. Asked
 * again it says how far it is. `undo`: it is a node like any other again. The node is told with its
 * next beat, and tells a new master. STATUS_NOT_FOUND: no such member. */

MUST_USE enum status store_master_drain(struct store_master *master, uint64_t now_ns,
                                        const char *name, bool undo, uint64_t *left);

struct store_unmounting {
    uint64_t left;     /* about so many values are still to be copied; 0: it may go */
    uint64_t stranded; /* of those looked at: nobody has room for them */
};

/* The node will go soon, in seconds: it gets no more values, and of those it has what nobody else
 * has is copied elsewhere, where there is room, hard-pinned ones first, then those read last. It
 * keeps values of up to `keeps_max` bytes on its disk: those are left alone. Asked again it says
 * how far it is. A new life of the node is a node like any other. STATUS_NOT_FOUND: no such member;
 * STATUS_FULL: no memory. */
MUST_USE enum status store_master_unmount(struct store_master *master, uint64_t now_ns,
                                          const char *name, uint64_t keeps_max,
                                          struct store_unmounting *out);

/* False, too, if there is no such member. */
bool store_master_drains(const struct store_master *master, const char *name);

/* Suspicion, death, dead writers, ends of quarantine. Call at least every 100 ms; returns when it
 * wants to be called next. */
uint64_t store_master_tick(struct store_master *master, uint64_t now_ns);

enum { STORE_PUT_SIZES = 8 };
/* Bytes; a size counts at the first bound that is not smaller, else at the last place. */
extern const uint64_t store_put_size_bounds[STORE_PUT_SIZES - 1];

struct store_master_counts {
    uint64_t objects; /* keys known, blocks and values */
    uint64_t processing;
    uint64_t replicas;
    uint64_t space_total; /* bytes lent by nodes under this term */
    uint64_t space_used;
    uint64_t evictions_total;
    uint64_t puts_total;
    uint64_t refused_full_total;
    uint64_t conflicts_total; /* a replica announced with other bytes than the known one */
    uint64_t discarded_total; /* puts whose writer fell silent */
    uint64_t memory;          /* bytes of the directory, roughly */
    uint64_t reads_total;     /* keys asked for by exist and get */
    uint64_t hits_total;      /* of those, found */
    uint64_t removes_total;   /* by name, not by eviction */
    uint64_t values;          /* keys known that are no blocks */
    uint64_t copies;          /* under way */
    uint64_t copies_total;    /* done */
    uint64_t barred_total;    /* times that a node was put in quarantine */
    uint64_t tasks;           /* of store/master_task.h, that have not ended */
    uint64_t refused_quota_total;
    uint64_t hot_values;      /* with replicas for their heat */
    uint64_t hot_replicas;    /* those, as far as they are there */
    uint64_t hot_taken_total; /* that had to make room */
    uint64_t soft_pins;       /* values with a soft pin now */
    uint64_t evicting_total;  /* times that something had to go, */
    uint64_t evicted_total;   /* of those, when something could: evictions_total counts replicas */
    uint64_t evicted_bytes_total;
    uint64_t released_total; /* puts given up whose room is free again */
    uint64_t limbo_bytes;    /* of puts given up, while somebody could still write there */
    uint64_t put_sizes[STORE_PUT_SIZES]; /* of puts_total, by store_put_size_bounds */
    uint64_t put_bytes_total;
};

void store_master_counts(const struct store_master *master, struct store_master_counts *out);

struct store_member_counts {
    uint64_t space_total;
    uint64_t space_used;
    uint64_t values; /* replicas of values */
    uint64_t blocks;
    uint64_t silent_ns; /* since it was heard */
    bool draining;
    uint64_t barred;  /* 1: in quarantine (store/master_place.c) */
    uint64_t load;    /* bytes a second that it moves, as it says */
    uint64_t faults;  /* ever, likewise */
    uint64_t damaged; /* frames, ever, likewise */
};

/* False: not a member. */
bool store_master_member_counts(const struct store_master *master, uint64_t now_ns,
                                struct store_node_id id, struct store_member_counts *out);

/* Checks every count against what it counts; O(n). For tests. */
void store_master_check(const struct store_master *master);

#endif
