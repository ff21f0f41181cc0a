/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/kvcache.h - the blocks one node holds, least recently used first out, never one in use.
 *
 * Blocks are the trace's dense ids. Full is an answer: the caller evicts, one at a time, and so
 * learns what is gone.
 *
 * Two tiers of one order: the most recently used `fast` blocks are in DRAM, those behind on SSD. A
 * block that is used moves up, and pushes another down: what a DRAM tier that evicts to an SSD
 * tier, whose hits are promoted, comes to.
 *
 * Memory:  grows up to the capacity.
 * Threads: one. */
#ifndef SIM_KVCACHE_H
#define SIM_KVCACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct kvcache; /* opaque */

/* `capacity` blocks in all, the first `fast` of them in DRAM. */
MUST_USE enum status kvcache_create(uint32_t capacity, uint32_t fast, struct kvcache **out);
void kvcache_destroy(struct kvcache *cache); /* NULL is allowed */

bool kvcache_has(const struct kvcache *cache, uint32_t id);
bool kvcache_is_fast(const struct kvcache *cache, uint32_t id); /* it is there */
/* How many of the leading ids it holds. */
uint32_t kvcache_run(const struct kvcache *cache, const uint32_t *ids, uint32_t count);

/* Makes the block the most recently used; true if it is there. */
bool kvcache_touch(struct kvcache *cache, uint32_t id);
/* The block that the latest touch or insert has moved down to SSD; false if it has moved none. */
bool kvcache_moved_down(const struct kvcache *cache, uint32_t *id);
/* Adds a block that is not there. STATUS_FULL at the capacity, STATUS_NO_MEMORY. */
MUST_USE enum status kvcache_insert(struct kvcache *cache, uint32_t id);
/* Removes the least recently used block that is not pinned; false if there is none. */
bool kvcache_evict(struct kvcache *cache, uint32_t *id);
/* Removes the most recently used block if it is in DRAM; false if none is. It is not pinned. */
bool kvcache_lose(struct kvcache *cache, uint32_t *id);
void kvcache_remove(struct kvcache *cache, uint32_t id); /* it is there, and not pinned */

/* The blocks, the most recently used first; *cursor is KVCACHE_START at first. False: no more.
 * Nothing else is called meanwhile. */
#define KVCACHE_START UINT32_MAX
bool kvcache_next(const struct kvcache *cache, uint32_t *cursor, uint32_t *id);

void kvcache_pin(struct kvcache *cache, uint32_t id);     /* it is there; counted */
bool kvcache_try_pin(struct kvcache *cache, uint32_t id); /* false if it is not there */
void kvcache_unpin(struct kvcache *cache, uint32_t id);

/* Says that the block will be asked about soon. */
void kvcache_prefetch(const struct kvcache *cache, uint32_t id);
bool kvcache_is_pinned(const struct kvcache *cache, uint32_t id); /* it is there */

uint32_t kvcache_count(const struct kvcache *cache);
uint32_t kvcache_pinned(const struct kvcache *cache); /* blocks, however often */
uint32_t kvcache_capacity(const struct kvcache *cache);

#endif
