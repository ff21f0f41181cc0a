/* SPDX-License-Identifier: Apache-2.0
 *
 * base/map.c - open addressing with linear probing, and removal that leaves no tombstones.
 *
 * Two arrays of `slots` entries (a power of two): one tag byte a slot, 0 for an empty one and
 * otherwise 0x80 | 7 bits of the hash, and the entries. A probe reads tags, 64 to a cache line, and
 * touches an entry only when the tag agrees, so a miss mostly costs one cache line.
 *
 * Invariants
 *   I1  count <= slots * 3/4, so that every probe ends at an empty slot.
 *   I2  No empty slot lies between an entry's home slot and the slot it is in. Removal restores
 * this by moving later entries of the run back into the hole.
 *
 * Threads: the caller's.
 * Limits:  entries_max. */
#include "base/map.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum { SLOTS_MIN = 16 };

struct entry {
    struct block_key key;
    uint64_t value;
};

struct map {
    uint64_t seed;
    uint64_t slots;
    uint32_t count;
    uint32_t entries_max;
    uint8_t *tags;
    struct entry *entries;
};

static uint64_t hash_of(const struct map *map, const struct block_key *key)
{
    return block_key_mix(key, map->seed);
}

static uint8_t tag_of(uint64_t hash)
{
    return (uint8_t)(0x80 | (hash >> 57));
}

static uint64_t slots_for(uint32_t entries)
{
    uint64_t slots = SLOTS_MIN;
    while (slots / 4 * 3 < entries)
        slots *= 2;
    return slots;
}

static bool tables_alloc(uint64_t slots, uint8_t **tags, struct entry **entries)
{
    *tags = calloc(slots, sizeof(**tags));
    *entries = malloc(slots * sizeof(**entries));
    if (*tags != NULL && *entries != NULL) return true;
    free(*tags);
    free(*entries);
    return false;
}

enum status map_create(const struct map_options *options, struct map **out)
{
    if (options->entries_max == 0 || options->entries_max > MAP_ENTRIES_MAX) return STATUS_INVALID;
    if (options->entries_initial > options->entries_max) return STATUS_INVALID;

    struct map *map = calloc(1, sizeof(*map));
    if (map == NULL) return STATUS_NO_MEMORY;
    map->seed = options->seed;
    map->entries_max = options->entries_max;
    map->slots = slots_for(options->entries_initial);
    if (!tables_alloc(map->slots, &map->tags, &map->entries)) {
        free(map);
        return STATUS_NO_MEMORY;
    }
    *out = map;
    return STATUS_OK;
}

void map_destroy(struct map *map)
{
    if (map == NULL) return;
    free(map->tags);
    free(map->entries);
    free(map);
}

/* The slot the key is in, or the empty slot where it belongs. */
static uint64_t probe(const struct map *map, const struct block_key *key, uint64_t hash)
{
    const uint64_t mask = map->slots - 1;
    const uint8_t tag = tag_of(hash);

    for (uint64_t slot = hash & mask;; slot = (slot + 1) & mask) {
        if (map->tags[slot] == 0) return slot;
        if (map->tags[slot] == tag && block_key_equal(&map->entries[slot].key, key)) return slot;
    }
}

static void put_at(struct map *map, uint64_t slot, uint64_t hash, const struct block_key *key,
                   uint64_t value)
{
    ASSERT(map->tags[slot] == 0);
    map->tags[slot] = tag_of(hash);
    map->entries[slot] = (struct entry){ *key, value };
    map->count++;
}

static void place(struct map *map, const struct block_key *key, uint64_t value)
{
    const uint64_t hash = hash_of(map, key);
    put_at(map, probe(map, key, hash), hash, key, value);
}

/* Makes sure that one more entry fits (I1). */
static bool grow(struct map *map)
{
    if (map->count + 1 <= map->slots / 4 * 3) return true;

    struct map bigger = *map;
    bigger.slots = map->slots * 2;
    bigger.count = 0;
    if (!tables_alloc(bigger.slots, &bigger.tags, &bigger.entries)) return false;
    for (uint64_t slot = 0; slot < map->slots; slot++) {
        if (map->tags[slot] == 0) continue;
        place(&bigger, &map->entries[slot].key, map->entries[slot].value);
    }
    ASSERT(bigger.count == map->count);
    free(map->tags);
    free(map->entries);
    *map = bigger;
    return true;
}

/* `slot` is the empty one where the key belongs. */
static enum status add(struct map *map, uint64_t slot, uint64_t hash, const struct block_key *key,
                       uint64_t value)
{
    const uint64_t slots = map->slots;

    if (map->count == map->entries_max) return STATUS_FULL;
    if (!grow(map)) return STATUS_FULL;
    if (map->slots != slots) slot = probe(map, key, hash);
    put_at(map, slot, hash, key, value);
    return STATUS_OK;
}

enum status map_set(struct map *map, const struct block_key *key, uint64_t value)
{
    const uint64_t hash = hash_of(map, key);
    const uint64_t slot = probe(map, key, hash);
    if (map->tags[slot] == 0) return add(map, slot, hash, key, value);
    map->entries[slot].value = value;
    return STATUS_OK;
}

enum status map_insert(struct map *map, const struct block_key *key, uint64_t value)
{
    const uint64_t hash = hash_of(map, key);
    const uint64_t slot = probe(map, key, hash);
    if (map->tags[slot] != 0) return STATUS_EXISTS;
    return add(map, slot, hash, key, value);
}

void map_prefetch(const struct map *map, const struct block_key *key)
{
    const uint64_t slot = hash_of(map, key) & (map->slots - 1);
    __builtin_prefetch(&map->tags[slot]);
    __builtin_prefetch(&map->entries[slot]);
}

bool map_find(const struct map *map, const struct block_key *key, uint64_t *value)
{
    const uint64_t slot = probe(map, key, hash_of(map, key));
    if (map->tags[slot] == 0) return false;
    if (value != NULL) *value = map->entries[slot].value;
    return true;
}

/* Whether the entry in `slot` may move back to `hole`: its home does not lie in (hole, slot]. */
static bool may_fill(const struct map *map, uint64_t hole, uint64_t slot)
{
    const uint64_t mask = map->slots - 1;
    const uint64_t home = hash_of(map, &map->entries[slot].key) & mask;
    return ((slot - home) & mask) >= ((slot - hole) & mask);
}

bool map_remove(struct map *map, const struct block_key *key, uint64_t *value)
{
    const uint64_t mask = map->slots - 1;
    uint64_t hole = probe(map, key, hash_of(map, key));

    if (map->tags[hole] == 0) return false;
    ASSERT(map->count > 0);
    if (value != NULL) *value = map->entries[hole].value;
    for (uint64_t slot = (hole + 1) & mask; map->tags[slot] != 0; slot = (slot + 1) & mask) {
        if (!may_fill(map, hole, slot)) continue;
        map->tags[hole] = map->tags[slot];
        map->entries[hole] = map->entries[slot];
        hole = slot;
    }
    map->tags[hole] = 0;
    map->count--;
    return true;
}

uint64_t map_memory(const struct map *map)
{
    return sizeof(*map) + map->slots * (sizeof(*map->tags) + sizeof(*map->entries));
}

uint32_t map_count(const struct map *map)
{
    return map->count;
}

void map_clear(struct map *map)
{
    memset(map->tags, 0, map->slots);
    map->count = 0;
}

bool map_next(const struct map *map, struct map_iter *iter)
{
    while (iter->next < map->slots && map->tags[iter->next] == 0)
        iter->next++;
    if (iter->next >= map->slots) return false;
    iter->key = map->entries[iter->next].key;
    iter->value = map->entries[iter->next].value;
    iter->next++;
    return true;
}
