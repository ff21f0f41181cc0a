/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/index.h - who holds which KV block, and in which tier: the prefix index.
 *
 * Fed by events from the nodes, and only a hint: a block it does not know is recomputed, a block
 * that is gone is a miss at the node. So a full index may forget, and a lost event costs time,
 * never correctness.
 *
 * Memory:  two arrays, made at creation, on huge pages where there are any; nothing allocates
 *          afterwards. At most 32 bytes for each of holdings_max.
 * Threads: an index belongs to one thread at a time.
 * Limits:  holdings_max (block, holder) pairs; holders are numbers below holders_max. */
#ifndef CONDUCTOR_INDEX_H
#define CONDUCTOR_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"

struct ghost;

enum { CONDUCTOR_HOLDERS_MAX = 4096, CONDUCTOR_TIERS = 3 };

struct conductor_index; /* opaque */

MUST_USE enum status conductor_index_create(uint32_t holders_max, uint32_t holdings_max,
                                            struct conductor_index **out);
void conductor_index_destroy(struct conductor_index *index); /* NULL is allowed */

/* The holder has the block in this tier, and in no other. STATUS_FULL if there is no room. */
MUST_USE enum status conductor_index_store(struct conductor_index *index, uint32_t holder,
                                           const struct block_key *key, uint8_t tier);
/* False if it was not there. */
bool conductor_index_remove(struct conductor_index *index, uint32_t holder,
                            const struct block_key *key);
void conductor_index_clear(struct conductor_index *index, uint32_t holder);

/* Between begin and end, everything of this holder that is not stored (again) is removed at the
 * end. A second begin starts over. */
void conductor_index_resync_begin(struct conductor_index *index, uint32_t holder);
void conductor_index_resync_end(struct conductor_index *index, uint32_t holder);

/* Does the holder have it? Its tier, or -1. */
int conductor_index_tier(const struct conductor_index *index, uint32_t holder,
                         const struct block_key *key);

/* Of the leading keys_count keys, which the holder has, how many at the beginning are not on SSD;
 * the later ones are: found by halves. */
uint32_t conductor_index_fast(const struct conductor_index *index, uint32_t holder,
                              const struct block_key *keys, uint32_t keys_count);

/* ends_slow[h] for every holder with matched[h] > 0, which conductor_index_match() has found: is
 * block matched[h] - 1 on SSD there? Where it is not, nothing before it is. A walk over the holders
 * of a block for each length that somebody has, not one for each holder. */
void conductor_index_ends(const struct conductor_index *index, const struct block_key *keys,
                          const uint32_t *matched, bool *ends_slow);

/* Starts to load what the next call with this key needs. */
void conductor_index_prefetch(const struct conductor_index *index, const struct block_key *key);

/* For every holder, the number of leading keys it has: matched[0..holders_max). Exact for up to
 * CONDUCTOR_MATCH_EXACT keys. Of longer prompts not every key is looked at: a holder that lacks a
 * block in the middle (nodes evict from the end, so only a lost event does that) may be credited
 * with what it has behind the gap. It is always so that the holder has block matched - 1 and lacks
 * block matched. */
enum { CONDUCTOR_MATCH_EXACT = 128 };
void conductor_index_match(const struct conductor_index *index, const struct block_key *keys,
                           uint32_t keys_count, uint32_t *matched);

/* Blocks that lose their last holder are added there from now on, by block_key_hash(). NULL: nobody
 * wants to know. */
void conductor_index_set_ghost(struct conductor_index *index, struct ghost *ghost);

uint64_t conductor_index_count(const struct conductor_index *index);
uint64_t conductor_index_bytes(const struct conductor_index *index);

#endif
