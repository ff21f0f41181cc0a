/* SPDX-License-Identifier: Apache-2.0
 *
 * base/map.h - a hash map from block keys to 64-bit values.
 *
 * Memory:  26 to 67 bytes an entry once grown. Grows by doubling, up to entries_max; never shrinks.
 *          A map created with entries_initial == entries_max never allocates again. Lookups and
 *          removals never allocate.
 * Threads: a map belongs to one thread, or to whoever holds its owner's lock.
 * Limits:  entries_max; reaching it is STATUS_FULL, an answer. Keys made up by a peer to collide
 * are met by the seed: give it a random one where peers choose keys. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"

enum { MAP_ENTRIES_MAX = 1 << 28 };

struct map; /* opaque */

struct map_options {
    uint32_t entries_initial; /* room reserved at once; 0: little */
    uint32_t entries_max;     /* 1..MAP_ENTRIES_MAX */
    uint64_t seed;            /* mixed into the hash */
};

/* STATUS_INVALID for options out of range, STATUS_NO_MEMORY. */
MUST_USE enum status map_create(const struct map_options *options, struct map **out);
void map_destroy(struct map *map); /* NULL is allowed */

/* Adds the key, or replaces its value. STATUS_FULL at entries_max, or when the table has to grow
 * and there is no memory; the map is then unchanged. */
MUST_USE enum status map_set(struct map *map, const struct block_key *key, uint64_t value);

/* Adds the key; STATUS_EXISTS if it is there, with the map unchanged. */
MUST_USE enum status map_insert(struct map *map, const struct block_key *key, uint64_t value);

/* *value (NULL is allowed) is written only when the answer is true. */
bool map_find(const struct map *map, const struct block_key *key, uint64_t *value);
bool map_remove(struct map *map, const struct block_key *key, uint64_t *value);

/* Says that the key will be asked about soon: its memory may be on its way by then. */
void map_prefetch(const struct map *map, const struct block_key *key);

uint32_t map_count(const struct map *map);
/* Bytes of memory the map has. */
uint64_t map_memory(const struct map *map);
void map_clear(struct map *map);

/* Visits every entry once, in no order: struct map_iter it = { 0 }; while (map_next(map, &it)) ...
 * The map must not change meanwhile. */
struct map_iter {
    uint64_t next; /* private */
    struct block_key key;
    uint64_t value;
};
bool map_next(const struct map *map, struct map_iter *iter);

#endif
