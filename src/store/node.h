/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node.h - one node of the KVCache pool: the pages it owns, the manifest of what they hold,
 * and the moving of blocks from other nodes into them.
 *
 * A page is free, private or committed. A private page belongs to whoever holds references to it
 * and has no identity; store_node_commit() gives it a key, a generation and one checksum per layer,
 * and from then on others may find it, here and on other nodes. A committed page stays after its
 * last reference is gone and is evicted, least recently used first, when pages run out. A page that
 * is referenced, or pinned by a remote reader, is never evicted or reused: KV can be missing, never
 * wrong.
 *
 *            store_node_alloc            store_node_commit
 *     FREE -------------------> PRIVATE -------------------> COMMITTED
 *      ^                           |                             |
 *      +---------------------------+-----------------------------+
 *        last store_node_unref         eviction, store_node_drop
 *
 * Memory:  one slab of pages * page_size + object_size bytes, shared-memory backed, untouched until
 *          used, and registered with the transfer engine; bookkeeping is allocated at creation.
 * Threads: everything here belongs to the env's loop thread, and callbacks run there. Only the
 *          bytes of a page (store_node_data()) may be used by another thread, while the loop thread
 *          holds a reference for it.
 * Limits:  STORE_PAGES_MAX pages; STORE_FETCH_BLOCKS_MAX blocks a fetch; `fetches_max` fetches at a
 *          time (STATUS_FULL beyond); `pins_max` remote pins. A full pool is an answer. */
#ifndef STORE_NODE_H
#define STORE_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "store/layout.h"
#include "store/master.h"
#include "store/ssd.h"
#include "store/ssd_pack.h"
#include "store/vlog.h"

struct env;
struct rpc_server;
struct yolk_transfer;
struct store_node; /* opaque */

enum {
    STORE_FETCH_BLOCKS_MAX = 8192,
    STORE_LEASE_MS_DEFAULT = 10000,
};

/* A struct, so that a page is never passed where a block index or a count is meant. */
struct store_page {
    uint32_t index;
};

struct store_node_options {
    struct env *env;
    struct yolk_transfer *transfer; /* see store_node_destroy() */
    struct rpc_server *server;      /* gets the `store.*` methods */
    const char *name;               /* told to other nodes, for their logs */
    const char *secret;             /* of the cluster, for calls to other nodes; "" for none */
    struct store_layout layout;
    uint32_t lease_ms;          /* how long a remote pin lives; 0: STORE_LEASE_MS_DEFAULT */
    uint32_t fetches_max;       /* 0: 64 */
    uint32_t pins_max;          /* 0: 4096 */
    const char *disk_directory; /* of the tier below the pages; "" or NULL: none */
    uint64_t disk_size;         /* bytes it may use */
    uint32_t disk_part_size;    /* see struct ssd_options; 0: its default */
    uint64_t object_size; /* bytes lent to the master for values put by key; 0: none. In addition to
                             the pages, in the same slab, a multiple of STORE_PAGE_ALIGN */
    uint64_t values_disk_size; /* bytes of disk below them, under disk_directory; 0: none. Part of
                                  object_size is not lent then; see store/node_values.h */
    const struct ssd_keys *disk_keys; /* outlive it; NULL: what is written to disk is clear */
    struct ssd_packing disk_packing;  /* of it; all 0: not at all. `unit` is of the pages */
    bool populate;                    /* the slab's memory is there when it is made, which blocks */
};

/* STATUS_INVALID for options out of range, STATUS_NO_MEMORY or the env's status if the slab cannot
 * be reserved, ssd_open()'s if the disk cannot be used (too little of it is a warning, and none);
 * err says which. On success the caller owns *out. */
MUST_USE enum status store_node_create(const struct store_node_options *options,
                                       struct store_node **out, struct errmsg *err);

/* Finishes with the disk, blocking, and goes on without it: what waits is written, for a second at
 * most. Needed before the slab goes, because the disk may be writing into it. No disk: nothing. */
void store_node_close_disk(struct store_node *node);

/* After store_leave(), and with no turn of the loop between this and the end of the RPC server and
 * of the transfer engine: those refer to the node, and the slab is the engine's. Fetches still
 * running end with STORE_MISS_CANCELLED from inside. NULL is allowed. */
void store_node_destroy(struct store_node *node);

/* ---- where things are ---- */

const struct store_layout *store_node_layout(const struct store_node *node);
uint8_t *store_node_base(const struct store_node *node); /* page i is at base + i * page_size */
uint8_t *store_node_data(const struct store_node *node, struct store_page page);

/* The address a peer gives to the transfer engine to read or write the page, and the segment. */
uint64_t store_node_address(const struct store_node *node, struct store_page page);
const char *store_node_segment(const struct store_node *node);

/* Tells this life of the process from the next: the generation of its transfer engine. */
uint64_t store_node_epoch(const struct store_node *node);

/* ---- pages ---- */

/* Takes `count` pages, each private with one reference, evicting as needed. All or nothing:
 * STATUS_FULL if not enough pages are free or evictable, and then nothing is evicted. */
MUST_USE enum status store_node_alloc(struct store_node *node, uint32_t count,
                                      struct store_page *out);

/* Adds / drops one reference. The last unref of a private page frees it; of a committed page makes
 * it evictable, most recently used. */
void store_node_ref(struct store_node *node, struct store_page page);
void store_node_unref(struct store_node *node, struct store_page page);

/* Drops the caller's reference, but keeps the page from reuse until `until_ns` (env clock): for a
 * page that a peer may still be writing into. Never shortens an earlier such promise. */
void store_node_unref_after(struct store_node *node, struct store_page page, uint64_t until_ns);

struct store_node_counts {
    uint32_t pages;
    uint32_t free;
    uint32_t evictable; /* committed, neither referenced nor pinned */
    uint32_t committed;
    uint32_t referenced;
    uint32_t pins; /* live remote pins */
    uint64_t evicted_total;
    uint64_t commits_total;
    uint64_t duplicates_total; /* commits that found the key present */
    uint64_t fetched_blocks_total;
    uint64_t fetched_bytes_total;
    uint64_t fetch_missed_blocks_total;
    uint64_t corrupt_total;       /* checksum mismatches found while fetching */
    uint64_t wrong_total;         /* values of its own memory that it found to be wrong */
    bool disk;                    /* there is one; the rest is zero otherwise */
    uint32_t disk_queue;          /* blocks that wait to be written */
    uint64_t disk_dropped_total;  /* gone before they were written: the disk was slower */
    uint64_t disk_promoted_total; /* brought up for readers elsewhere */
    uint64_t disk_misses_total;   /* blocks that were on the disk and could not be had */
    struct ssd_counts ssd;
    bool values_disk; /* there is a disk below values; the rest is zero otherwise */
    uint32_t values_queue;
    uint64_t values_dropped_total;  /* gone before they were written */
    uint64_t values_promoted_total; /* read for readers */
    uint64_t values_evicted_total;  /* kept on disk when their memory was wanted */
    uint64_t values_lost_total;     /* not kept then: too large, or the disk failed */
    struct vlog_counts vlog;
};

void store_node_counts(const struct store_node *node, struct store_node_counts *out);

/* What it tells the master of itself. */
struct store_node_load store_node_load(const struct store_node *node);

/* ---- manifest ---- */

/* How many leading keys of keys[0..count) are here, in pages or on the disk. Takes nothing, touches
 * nothing. */
uint32_t store_node_match(const struct store_node *node, const struct block_key *keys,
                          uint32_t count);

/* How many leading keys are in pages; takes one reference on each page found (written to
 * out[0..result)) and marks it recently used. The caller unrefs each. */
uint32_t store_node_acquire(struct store_node *node, const struct block_key *keys, uint32_t count,
                            struct store_page *out);

/* Gives the private page `page` the identity `key`. `sums`: the XXH3-64 of each layer's bytes,
 * layers of them; NULL lets the node compute them (about 0.1 ms a MiB on the loop thread). The
 * bytes must not change afterwards. References are not affected. STATUS_OK: committed.
 * STATUS_EXISTS: the key is committed in another page, which is marked recently used; `page` stays
 * private to the caller. STATUS_INVALID: `page` itself is committed already under another key
 * (EXISTS if the same key). */
MUST_USE enum status store_node_commit(struct store_node *node, const struct block_key *key,
                                       struct store_page page, const uint64_t *sums);

/* The keys used last among the pages that nobody uses now, at most max, the latest at the end. The
 * blocks of one prompt are in their order. */
uint32_t store_node_hottest(const struct store_node *node, uint32_t max, struct block_key *out);

/* Takes the key out of the manifest and off the disk (its bytes were found to be wrong, or a test
 * wants a miss). The page is freed when nobody references or pins it. STATUS_NOT_FOUND. */
MUST_USE enum status store_node_drop(struct store_node *node, const struct block_key *key);

/* XXH3-64 of one layer of a page: what store_node_commit() computes and receivers verify. May be
 * called from any thread that may read the bytes. */
uint64_t store_layer_sum(const struct store_node *node, struct store_page page, uint32_t layer);

/* ---- fetch: blocks of another node, or of the own disk, into pages of this one ---- */

/* Why blocks that were asked for did not arrive: counted, and said in the decision log. */
enum store_miss {
    STORE_MISS_NONE = 0,
    STORE_MISS_ABSENT,    /* the holder no longer has the key */
    STORE_MISS_HOLDER,    /* the holder cannot be reached, or went away */
    STORE_MISS_REFUSED,   /* other layout, no pin left, protocol error */
    STORE_MISS_TRANSFER,  /* a read failed */
    STORE_MISS_CHECKSUM,  /* bytes arrived and were wrong */
    STORE_MISS_DEADLINE,  /* the time given was over */
    STORE_MISS_CANCELLED, /* the caller gave up */
    STORE_MISS_COUNT,
};

const char *store_miss_name(enum store_miss miss);

struct store_fetch; /* opaque */

struct store_fetch_result {
    uint32_t blocks;        /* blocks [0, blocks) are complete, verified, and committed here */
    enum store_miss reason; /* why it is not all of them; STORE_MISS_NONE if it is */
    uint64_t bytes;
    uint64_t started_ns;
    uint64_t finished_ns;
};

/* Layers come in order 0..layers-1: layer `layer` of the blocks [0, blocks) is in the pages and
 * verified. `blocks` never grows from one call to the next; when it is smaller than was asked for,
 * the rest will not come. Not called once it is 0. */
typedef void (*store_fetch_layer_fn)(void *ctx, uint32_t layer, uint32_t blocks);

/* Exactly once, last; `fetch` is invalid afterwards. No later byte can land in the pages. */
typedef void (*store_fetch_done_fn)(void *ctx, const struct store_fetch_result *result);

struct store_fetch_options {
    const char *holder; /* RPC address of the node that has the blocks, copied; NULL: this one */
    const struct block_key *keys;   /* copied */
    const struct store_page *pages; /* private pages to fill, the caller's references; copied, and
                                       referenced by the fetch until on_done */
    uint32_t count;                 /* 1..STORE_FETCH_BLOCKS_MAX */
    unsigned transfer_class;        /* 0 decode-critical, 1 prefill load, 2 background */
    uint64_t deadline_ns;           /* env clock; ENV_NEVER is not allowed */
    store_fetch_layer_fn on_layer;  /* NULL is allowed */
    store_fetch_done_fn on_done;
    void *ctx;
};

/* STATUS_OK: on_done will run, never before this returns. STATUS_FULL: fetches_max are running.
 * STATUS_INVALID: count or deadline out of range. STATUS_NOT_FOUND: without a holder, and not even
 * the first block is here. */
MUST_USE enum status store_node_fetch(struct store_node *node,
                                      const struct store_fetch_options *options,
                                      struct store_fetch **out);

/* Gives up: on_done comes soon with STORE_MISS_CANCELLED, once no byte can land any more. What was
 * complete by then is kept. */
void store_fetch_cancel(struct store_fetch *fetch);

#endif
