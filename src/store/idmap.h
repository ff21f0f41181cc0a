/* SPDX-License-Identifier: Apache-2.0
 *
 * store/idmap.h - finds records of a slab by the identity they begin with.
 *
 * The map keeps only numbers: the identities stay in the records. So it is small, and growing it is
 * a walk through the slab. Questions that come by the hundred are asked in steps, so that memory
 * comes while others are dealt with: idmap_prefetch() for all, then idmap_guess() for all, whose
 * records the caller prefetches, then idmap_find() for each.
 *
 * Memory:  7 to 14 bytes a record, 40 while records go. Grows by doubling, shrinks by halves when
 *          seven eighths of it are empty.
 * Threads: one.
 * Limits:  those of the slab. Identities made up by a peer to collide are met by the seed. */
#ifndef STORE_IDMAP_H
#define STORE_IDMAP_H

#include <stdint.h>

#include "base/key.h"
#include "base/status.h"

struct idmap; /* opaque */
struct slab;

/* `records` begin with their struct block_key, and outlive the map. NULL: no memory. */
struct idmap *idmap_create(const struct slab *records, uint64_t seed);
void idmap_destroy(struct idmap *map); /* NULL is allowed */

/* The record, which lives and has an identity that is not in the map, is found from now on.
 * STATUS_FULL: no memory, nothing has changed. */
MUST_USE enum status idmap_add(struct idmap *map, uint32_t number);

/* The record, which is in the map, is found no more. To be called before it is freed. */
void idmap_remove(struct idmap *map, uint32_t number);

/* Its number, or SLAB_NONE. */
uint32_t idmap_find(const struct idmap *map, const struct block_key *id);

/* The memory of the map that idmap_find() reads is on its way. */
void idmap_prefetch(const struct idmap *map, const struct block_key *id);

/* Most likely what idmap_find() will say, without looking at the record; SLAB_NONE: it is certain
 * that there is none. */
uint32_t idmap_guess(const struct idmap *map, const struct block_key *id);

uint32_t idmap_count(const struct idmap *map);
uint64_t idmap_memory(const struct idmap *map); /* bytes */

/* Finds every record of the slab, and nothing else; O(n). For tests. */
void idmap_check(const struct idmap *map);

#endif
