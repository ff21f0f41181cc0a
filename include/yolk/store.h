/* SPDX-License-Identifier: Apache-2.0
 *
 * yolk/store.h - values by key in the memory of the cluster: the client of the KVCache pool.
 *
 * A put writes the value straight into the memory of the node the master chose, the node verifies
 * and commits it, the master learns of it, and only then is it acknowledged. An acknowledged value
 * survives the death of the writer and of the master, and is lost only with its owner or by
 * eviction. A get pins the value at its owner, reads it, and verifies every piece: a value can be
 * missing, never wrong. Values are immutable; a put may replace one by another, as a whole.
 *
 * Every call takes a batch and ends each item exactly once through `on_item`, in any order, never
 * before the call has returned. Answers an item can end with:
 *   STATUS_OK           done; for exist: it is there; for get: `size` bytes are in the buffer
 *   STATUS_NOT_FOUND    absent
 *   STATUS_AGAIN        the master has restarted and does not know yet (after retrying until the
 *                       deadline); it may or may not be there
 *   STATUS_EXISTS       put: the key has a value already, which stays (unless `replace`); remove:
 *                       somebody is writing it, and `force` does not help
 *   STATUS_BUSY         remove: leased by a reader, for some seconds more, but not with `force` (of
 *                       a master of the release before: or being written); put, get: being written
 *   STATUS_FULL         put: no room, even by evicting; get: the buffer is smaller than `size`
 *   STATUS_QUOTA        put: the tenant would pass its quota, even by evicting what is its own
 *   STATUS_DENIED       put: the master takes values of listed tenants only, and ours is not
 *   STATUS_CORRUPT      get: every replica's bytes were wrong
 *   STATUS_INVALID      the key is empty, too long or NULL; put: the size is out of range; get: the
 *                       range is empty, or past the end. The other items of the call are served
 *   STATUS_TIMEOUT, STATUS_CANCELLED, STATUS_UNAVAILABLE (no master or no owner)
 * A put that ends with TIMEOUT, CANCELLED, CONN_CLOSED or UNAVAILABLE may or may not have happened.
 *
 * Keys are a tenant's: two tenants' values under one key are two, and none of these calls sees, or
 * touches, another tenant's. That keeps tenants out of each other's way; it is no wall between
 * them, since whoever has the cluster's secret may say to be any (docs/store.md).
 *
 * Memory:  keys are copied; values and buffers stay the caller's, must not change or be freed
 *          before their item has ended, and must lie in memory registered with the transfer engine.
 * Threads: the env's loop thread.
 * Limits:  the constants below; `calls_max` items at a time. */
#ifndef YOLK_STORE_H
#define YOLK_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct env;
struct yolk_transfer;
struct yolk_store; /* opaque */

enum {
    YOLK_STORE_KEY_SIZE_MAX = 1024,
    YOLK_STORE_BATCH_MAX = 65536,
    YOLK_STORE_REPLICAS_MAX = 8,
    YOLK_STORE_VALUE_SIZE_MAX = 1 << 30,
    YOLK_STORE_PIECE_SIZE = 64 << 10, /* bytes of a value under one checksum */
    YOLK_STORE_PAGE_MAX = 4096,
    YOLK_STORE_NAME_SIZE = 64, /* of a node, with its NUL */
    YOLK_STORE_ADDRESS_SIZE = 128,
    YOLK_STORE_NODES_MAX = 1024,
    YOLK_STORE_TENANTS_MAX = 1024,
    YOLK_STORE_TENANT_SIZE = 64, /* of a name, with its NUL */
};

struct yolk_store_options {
    struct env *env;
    struct yolk_transfer *transfer; /* see yolk_store_destroy() */
    const char *master;             /* RPC address, "host:port"; copied */
    const char *secret;             /* of the cluster; NULL or "" for none; copied */
    uint32_t calls_max;             /* items under way at a time; 0: 4096 */
    uint32_t timeout_ms;            /* of a call without its own; 0: 10000 */
    const char *tenant;             /* letters, digits, '-', '_', '.', not '_' first; NULL, "" and
                                       "default": the default one; copied */
};

/* STATUS_INVALID: what is wrong with the tenant or the address. */
MUST_USE enum status yolk_store_create(const struct yolk_store_options *options,
                                       struct yolk_store **out, struct errmsg *err);

/* Items under way end with STATUS_CANCELLED from inside. While some are being read or written, the
 * transfer engine has to be destroyed too before the env's loop turns again. NULL is allowed. */
void yolk_store_destroy(struct yolk_store *store);

struct yolk_store_key {
    const void *bytes;
    size_t len; /* 1..YOLK_STORE_KEY_SIZE_MAX; 5 and the length of its name less for a tenant */
};

/* `index` counts the items of the call from 0; `size` is that of the value, where it is known. */
typedef void (*yolk_store_item_fn)(void *ctx, uint32_t index, enum status status, uint64_t size);

struct yolk_store_call {
    uint32_t timeout_ms;   /* 0: the store's */
    const char *preferred; /* put: name of the node to place at if it has room; NULL: any */
    const char *const *preferred_next; /* put: the nodes to try after that, in order; copied */
    uint32_t preferred_next_count;     /* up to YOLK_STORE_REPLICAS_MAX */
    bool together;                     /* put: all values of the call at one node, as far as it has
                                          room for them; at a preferred one that has */
    bool force;                        /* remove: even if leased */
    bool replace;         /* put: a value that is there; readers see the old one or the new one */
    bool hard_pin;        /* put: never evicted, only removed; what replaces the value is
                              pinned, too */
    uint32_t replicas;    /* put, replicas: how many there should be, on different nodes, up to
                              YOLK_STORE_REPLICAS_MAX; 0: one. The put is acknowledged with the
                              first; the nodes make the others, and make them again when one dies */
    uint32_t soft_pin_ms; /* put: so long, evicted only when nothing else is left; reads do not
                              prolong it; at most a day counts. 0: one that the value has that is
                              replaced stays for its time */
    bool soft_pin_off;    /* put: and this ends it (a master of the release before lets it be) */
    yolk_store_item_fn on_item;
    void *ctx;
};

struct yolk_store_value {
    struct yolk_store_key key;
    const void *data; /* registered with the transfer engine */
    uint64_t size;    /* 1..YOLK_STORE_VALUE_SIZE_MAX */
    uint64_t group;   /* those of one group are leased and evicted together; 0: none */
    uint32_t cost_ms; /* of computing it again, for the eviction policy `cost` */
    uint32_t depth;   /* blocks of the prompt before it, for the eviction policy `length` */
};

struct yolk_store_buffer {
    struct yolk_store_key key;
    void *data; /* registered with the transfer engine */
    uint64_t size;
    bool range;      /* not the whole value: what of it is in [offset, offset + size) */
    uint64_t offset; /* STATUS_INVALID if nothing of the value is there */
};

/* STATUS_OK: every item will end. Otherwise no item does: STATUS_INVALID (count 0 or above
 * YOLK_STORE_BATCH_MAX; a wish of the call out of range), STATUS_FULL (calls_max would
 * be passed). A key that is put twice with one call is put once, the first time: the others end
 * when that has, as it has, but where it is STATUS_OK as EXISTS, or BUSY with `replace`. */
MUST_USE enum status yolk_store_put(struct yolk_store *store, const struct yolk_store_value *values,
                                    uint32_t count, const struct yolk_store_call *call);
/* A range is verified as a whole value is: the pieces that it touches are read whole, through
 * memory of the store's own where the range does not begin and end with them, which costs a copy
 * and at most two pieces more (YOLK_STORE_PIECE_SIZE each; of a block of KVCache: two layers). From
 * another host, at most about 1,000 of those at a time. */
MUST_USE enum status yolk_store_get(struct yolk_store *store,
                                    const struct yolk_store_buffer *buffers, uint32_t count,
                                    const struct yolk_store_call *call);
MUST_USE enum status yolk_store_exist(struct yolk_store *store, const struct yolk_store_key *keys,
                                      uint32_t count, const struct yolk_store_call *call);
MUST_USE enum status yolk_store_remove(struct yolk_store *store, const struct yolk_store_key *keys,
                                       uint32_t count, const struct yolk_store_call *call);

/* From now on the values should have call->replicas replicas. An item ends when the master knows;
 * the nodes copy or drop in the background, and tell a new master. */
MUST_USE enum status yolk_store_replicas(struct yolk_store *store,
                                         const struct yolk_store_key *keys, uint32_t count,
                                         const struct yolk_store_call *call);

/* Mooncake's batch_replica_clear() of one segment: the replicas that the node of this name has go,
 * and of each value there should be no more than the others from now on; with the last one the
 * value goes. BUSY: leased; EXISTS: being written or copied; NOT_FOUND: the node has none;
 * UNSUPPORTED: the master is of the release before. */
MUST_USE enum status yolk_store_clear(struct yolk_store *store, const struct yolk_store_key *keys,
                                      uint32_t count, const char *node,
                                      const struct yolk_store_call *call);

/* ---- looking around ---- */

/* Which keys: those that begin with `prefix` and in which `regex` (PCRE2, over bytes, anywhere in
 * the key unless anchored) is found. All zero: every value. */
struct yolk_store_query {
    const void *prefix; /* may be NULL */
    size_t prefix_len;
    const char *regex; /* NULL: any */
    uint64_t cursor;   /* 0: from the start; else the `next` of the page before */
    uint32_t limit;    /* keys of a page; 0: YOLK_STORE_PAGE_MAX, which is also the most */
    bool blocks;       /* list, count: the blocks of KVCache, too; their keys are 16 bytes */
    bool force;        /* remove: even if leased */
};

struct yolk_store_entry {
    struct yolk_store_key key; /* borrowed during the callback */
    enum status status;        /* what exist would answer */
    bool block;
    uint64_t size;
    uint32_t replicas;
    uint32_t lease_ms; /* how long readers still have it */
    bool hard_pin;
    bool soft_pin;
};

struct yolk_store_page {
    uint64_t next;                          /* the cursor of the next page; 0: this was the last */
    const struct yolk_store_entry *entries; /* list only */
    uint32_t count;                         /* of entries */
    uint64_t matched;                       /* keys of this page that were meant */
    uint64_t bytes;                         /* their sizes together */
    uint64_t removed;                       /* remove: how many go */
    uint64_t kept;                          /* remove: leased, being written, or not yet known */
};

/* `page` is NULL unless the status is STATUS_OK; `message` says why for people, or is "".
 * STATUS_INVALID: a wrong expression; STATUS_FULL: one that takes too long on some key. */
typedef void (*yolk_store_page_fn)(void *ctx, enum status status,
                                   const struct yolk_store_page *page, const char *message);

/* One page. The master looks at a bounded number of keys for each, so a page may be empty and not
 * the last. A key that is there from the first page to the last is seen exactly once; others may be
 * seen. Nothing is leased. `timeout_ms` 0: the store's. Fails at once with STATUS_INVALID (limits)
 * or STATUS_FULL; otherwise the callback comes exactly once. */
MUST_USE enum status yolk_store_list(struct yolk_store *store, const struct yolk_store_query *query,
                                     uint32_t timeout_ms, yolk_store_page_fn on_page, void *ctx);
MUST_USE enum status yolk_store_count(struct yolk_store *store,
                                      const struct yolk_store_query *query, uint32_t timeout_ms,
                                      yolk_store_page_fn on_page, void *ctx);
MUST_USE enum status yolk_store_remove_matching(struct yolk_store *store,
                                                const struct yolk_store_query *query,
                                                uint32_t timeout_ms, yolk_store_page_fn on_page,
                                                void *ctx);

/* Numbers of the pool, as the master knows them. Totals count from the start of the master. */
struct yolk_store_stats {
    uint64_t term;
    uint64_t uptime_ms;
    uint64_t objects; /* keys, of values and blocks */
    uint64_t processing;
    uint64_t replicas;
    uint64_t space_total; /* bytes lent for values */
    uint64_t space_used;
    uint64_t evictions_total;
    uint64_t puts_total;
    uint64_t refused_full_total;
    uint64_t conflicts_total;
    uint64_t discarded_total;
    uint64_t memory;        /* bytes the master has for its directory */
    uint64_t reads_total;   /* keys asked for by exist and get */
    uint64_t hits_total;    /* of those, found */
    uint64_t removes_total; /* values removed by key or expression */
    uint64_t values;        /* keys of values */
    uint64_t refused_quota_total;
    uint64_t hot_values;      /* that have further replicas, as they are read much */
    uint64_t hot_replicas;    /* those, as far as they are there */
    uint64_t hot_taken_total; /* that had to make room */
    uint64_t copies;          /* of values to other nodes, under way */
    uint64_t copies_total;    /* done */
};

struct yolk_store_node {
    char name[YOLK_STORE_NAME_SIZE];
    char role[16];
    char state[16];
    char rpc_address[YOLK_STORE_ADDRESS_SIZE];
    uint64_t space_total;
    uint64_t space_used;
    uint64_t values;
    uint64_t blocks;
    uint64_t silent_ms; /* since it was heard */
    uint64_t load;      /* bytes a second that it moves for readers and writers */
};

typedef void (*yolk_store_stats_fn)(void *ctx, enum status status,
                                    const struct yolk_store_stats *stats,
                                    const struct yolk_store_node *nodes, uint32_t nodes_count);

MUST_USE enum status yolk_store_stat(struct yolk_store *store, uint32_t timeout_ms,
                                     yolk_store_stats_fn on_stats, void *ctx);

/* What the tenants have of memory, each replica counted, and what they may have (0: no limit). */
struct yolk_store_tenant {
    char name[YOLK_STORE_TENANT_SIZE];
    uint64_t quota_bytes;
    uint64_t quota_replicas;
    uint64_t used_bytes;
    uint64_t used_replicas;
    uint64_t evicted_bytes; /* ever */
    uint64_t evicted_replicas;
    uint64_t values;        /* keys, on disk too */
    uint64_t refused_total; /* puts, for the quota */
};

typedef void (*yolk_store_tenants_fn)(void *ctx, enum status status,
                                      const struct yolk_store_tenant *tenants, uint32_t count);

/* Those that have something or a quota; the default one is the first. `set` not NULL: what the
 * tenant of that name may have, from now on, under the next master too (0, 0: no limit); only name
 * and quota_* are looked at. STATUS_INVALID: not a name. STATUS_BUSY: it may not be without a quota
 * while it has values. */
MUST_USE enum status yolk_store_tenants(struct yolk_store *store,
                                        const struct yolk_store_tenant *set, uint32_t timeout_ms,
                                        yolk_store_tenants_fn on_tenants, void *ctx);

/* The node gets no more values, and those it has go elsewhere; `undo`: it is like any other again.
 * Asked again it says how far it is: `left` values are still there. STATUS_NOT_FOUND: no such node.
 */
typedef void (*yolk_store_drain_fn)(void *ctx, enum status status, uint64_t left);
MUST_USE enum status yolk_store_drain(struct yolk_store *store, const char *node, bool undo,
                                      uint32_t timeout_ms, yolk_store_drain_fn on_left, void *ctx);

/* Where the replicas of one value are, in the order in which they are read; borrowed during the
 * callback. All of them are complete. */
struct yolk_store_replica {
    const char *rpc_address; /* of its owner */
    const char *segment;     /* name of that in the transfer engine */
    uint64_t address;        /* there; on disk: of nothing that can be read */
    bool disk;               /* on its owner's disk only, which reads it for readers */
};

struct yolk_store_where {
    uint64_t size;
    uint32_t count;
    const struct yolk_store_replica *replicas;
};

/* Right before on_item() of item `index`, if that is STATUS_OK. */
typedef void (*yolk_store_described_fn)(void *ctx, uint32_t index,
                                        const struct yolk_store_where *where);

/* As exist, which leases what is there; besides, on_described() tells where that is, and the item's
 * `size` is that of the value. */
MUST_USE enum status yolk_store_describe(struct yolk_store *store,
                                         const struct yolk_store_key *keys, uint32_t count,
                                         const struct yolk_store_call *call,
                                         yolk_store_described_fn on_described, void *ctx);

/* The same of one value, without leasing it. */
typedef void (*yolk_store_where_fn)(void *ctx, enum status status,
                                    const struct yolk_store_where *where);

MUST_USE enum status yolk_store_locate(struct yolk_store *store, const struct yolk_store_key *key,
                                       uint32_t timeout_ms, yolk_store_where_fn on_where,
                                       void *ctx);

#endif
