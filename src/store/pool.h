/* SPDX-License-Identifier: Apache-2.0
 *
 * store/pool.h - the pages of a node: who uses them, what they hold, which goes next. No I/O, no
 * clock, no page bytes: node.c adds those.
 *
 * See store/node.h for the meaning of references and commits. Here in addition: pins, which are
 * references that a remote reader holds by lease, and holds, which keep an unreferenced page from
 * reuse until a time.
 *
 * Memory:  everything is allocated by pool_create(), except the page list of a living pin.
 * Threads: one.
 * Limits:  pages and pins_max as created. */
#ifndef STORE_POOL_H
#define STORE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "store/node.h"

struct pool; /* opaque */

struct pool_options {
    uint32_t pages;
    uint32_t layers;
    uint32_t pins_max;
    uint64_t seed;
    /* A page got its identity, or lost it. Must not change the pool. NULL is allowed. */
    void (*on_stored)(void *ctx, struct store_page page);
    void (*on_removed)(void *ctx, struct store_page page, const struct block_key *key,
                       uint64_t generation);
    void *ctx;
};

MUST_USE enum status pool_create(const struct pool_options *options, struct pool **out);
void pool_destroy(struct pool *pool); /* NULL is allowed */

/* ---- pages ---- */

MUST_USE enum status pool_alloc(struct pool *pool, uint64_t now_ns, uint32_t count,
                                struct store_page *out);
void pool_ref(struct pool *pool, struct store_page page);
void pool_unref(struct pool *pool, struct store_page page);
void pool_unref_after(struct pool *pool, struct store_page page, uint64_t until_ns);

/* ---- manifest ---- */

/* `sums`: layers of them. `generation` is the caller's number for this commit. */
MUST_USE enum status pool_commit(struct pool *pool, const struct block_key *key,
                                 struct store_page page, uint64_t generation, const uint64_t *sums);
MUST_USE enum status pool_drop(struct pool *pool, const struct block_key *key);
bool pool_find(const struct pool *pool, const struct block_key *key, struct store_page *out);
uint32_t pool_match(const struct pool *pool, const struct block_key *keys, uint32_t count);
/* Marks recently used. */
void pool_touch(struct pool *pool, struct store_page page);

/* When the committed page is used no more it goes before all others, unless it is touched or
 * acquired again. */
void pool_chill(struct pool *pool, struct store_page page);
/* The key of the page that goes next; NULL: none would have to. */
const struct block_key *pool_victim(const struct pool *pool);

/* Keys of the pages that would go last, at most max, those that go later behind the others; how
 * many. Pages in use are not among them. */
uint32_t pool_hottest(const struct pool *pool, uint32_t max, struct block_key *out);

/* Of a committed page; NULL for any other. */
const struct block_key *pool_key(const struct pool *pool, struct store_page page);
uint64_t pool_generation(const struct pool *pool, struct store_page page);
const uint64_t *pool_sums(const struct pool *pool, struct store_page page);
uint32_t pool_refs(const struct pool *pool, struct store_page page);

/* ---- pins ---- */

struct pool_pin {
    uint64_t id; /* 0: none */
};

/* Pins committed pages until `expires_ns`. STATUS_FULL at pins_max. */
MUST_USE enum status pool_pin(struct pool *pool, const struct store_page *pages, uint32_t count,
                              uint64_t expires_ns, struct pool_pin *out);
/* Prolongs, never shortens. STATUS_NOT_FOUND: unpinned or expired. */
MUST_USE enum status pool_repin(struct pool *pool, struct pool_pin pin, uint64_t expires_ns);
MUST_USE enum status pool_unpin(struct pool *pool, struct pool_pin pin);

/* Ends pins and holds that are over. Returns when the next will be; ENV_NEVER if none. O(pins). */
uint64_t pool_expire(struct pool *pool, uint64_t now_ns);

/* ---- numbers ---- */

/* Fills pages, free, evictable, committed, referenced, pins, and the totals of commits. */
void pool_counts(const struct pool *pool, struct store_node_counts *out);

/* Checks every list and count against the pages; O(pages). For tests. */
void pool_check(const struct pool *pool);

#endif
