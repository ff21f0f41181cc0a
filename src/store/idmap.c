/* SPDX-License-Identifier: Apache-2.0
 *
 * store/idmap.c - open addressing with linear probing, removal without tombstones, as base/map.c;
 * but of 32-bit numbers, with the keys elsewhere.
 *
 * Two arrays of `slots` (a power of two): a tag a slot, 0 for an empty one and otherwise 0x80 | 7
 * bits of the hash, and the numbers. A record is read only when its tag agrees.
 *
 * Invariants
 *   I1  count <= slots * 3/4, so that every probe ends at an empty slot.
 *   I2  No empty slot lies between a number's home slot and the slot it is in.
 */
#include "store/idmap.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/assert.h"
#include "store/slab.h"

enum { SLOTS_MIN = 1024 };

struct idmap {
    const struct slab *records;
    uint64_t seed;
    uint64_t slots;
    uint32_t count;
    uint8_t *tags;
    uint32_t *numbers;
};

static uint8_t tag_of(uint64_t hash)
{
    return (uint8_t)(0x80 | (hash >> 57));
}

static const struct block_key *id_of(const struct idmap *map, uint32_t number)
{
    return slab_at(map->records, number);
}

static uint64_t hash_of(const struct idmap *map, uint32_t number)
{
    return block_key_mix(id_of(map, number), map->seed);
}

static bool tables_alloc(struct idmap *map, uint64_t slots)
{
    uint8_t *tags = calloc(slots, sizeof(*tags));
    uint32_t *numbers = malloc(slots * sizeof(*numbers));
    if (tags == NULL || numbers == NULL) {
        free(tags);
        free(numbers);
        return false;
    }
    map->tags = tags;
    map->numbers = numbers;
    map->slots = slots;
    return true;
}

struct idmap *idmap_create(const struct slab *records, uint64_t seed)
{
    struct idmap *map = calloc(1, sizeof(*map));
    if (map == NULL) return NULL;
    map->records = records;
    map->seed = seed;
    if (tables_alloc(map, SLOTS_MIN)) return map;
    free(map);
    return NULL;
}

void idmap_destroy(struct idmap *map)
{
    if (map == NULL) return;
    free(map->tags);
    free(map->numbers);
    free(map);
}

/* ---- the tables ---- */

static void put(struct idmap *map, uint64_t hash, uint32_t number)
{
    const uint64_t mask = map->slots - 1;
    uint64_t slot = hash & mask;
    while (map->tags[slot] != 0)
        slot = (slot + 1) & mask;
    map->tags[slot] = tag_of(hash);
    map->numbers[slot] = number;
}

/* The same numbers in tables of another size; the identities are fetched a stretch ahead. */
static bool resize(struct idmap *map, uint64_t slots)
{
    enum { AHEAD = 16 };
    const struct idmap old = *map;
    if (!tables_alloc(map, slots)) return false;
    for (uint64_t slot = 0; slot < old.slots; slot++) {
        const uint64_t ahead = slot + AHEAD;
        if (ahead < old.slots && old.tags[ahead] != 0)
            __builtin_prefetch(slab_at(map->records, old.numbers[ahead]));
        if (old.tags[slot] != 0) put(map, hash_of(map, old.numbers[slot]), old.numbers[slot]);
    }
    free(old.tags);
    free(old.numbers);
    return true;
}

enum status idmap_add(struct idmap *map, uint32_t number)
{
    if (map->count + 1 > map->slots / 4 * 3 && !resize(map, map->slots * 2)) return STATUS_FULL;
    put(map, hash_of(map, number), number);
    map->count++;
    return STATUS_OK;
}

/* Where the number is. */
static uint64_t slot_of(const struct idmap *map, uint32_t number)
{
    const uint64_t mask = map->slots - 1;
    uint64_t slot = hash_of(map, number) & mask;
    while (map->tags[slot] == 0 || map->numbers[slot] != number) {
        ASSERT(map->tags[slot] != 0);
        slot = (slot + 1) & mask;
    }
    return slot;
}

void idmap_remove(struct idmap *map, uint32_t number)
{
    const uint64_t mask = map->slots - 1;
    uint64_t hole = slot_of(map, number);

    for (uint64_t slot = (hole + 1) & mask; map->tags[slot] != 0; slot = (slot + 1) & mask) {
        const uint64_t home = hash_of(map, map->numbers[slot]) & mask;
        if (((slot - home) & mask) < ((slot - hole) & mask)) continue; /* home is behind the hole */
        map->tags[hole] = map->tags[slot];
        map->numbers[hole] = map->numbers[slot];
        hole = slot;
    }
    map->tags[hole] = 0;
    map->count--;
    if (map->slots > SLOTS_MIN && map->count < map->slots / 8) {
        const bool shrunk = resize(map, map->slots / 2);
        (void)shrunk; /* no memory for less memory: next time */
    }
}

/* ---- questions ---- */

uint32_t idmap_find(const struct idmap *map, const struct block_key *id)
{
    const uint64_t hash = block_key_mix(id, map->seed);
    const uint64_t mask = map->slots - 1;
    const uint8_t tag = tag_of(hash);

    for (uint64_t slot = hash & mask; map->tags[slot] != 0; slot = (slot + 1) & mask) {
        if (map->tags[slot] != tag) continue;
        if (block_key_equal(id_of(map, map->numbers[slot]), id)) return map->numbers[slot];
    }
    return SLAB_NONE;
}

void idmap_prefetch(const struct idmap *map, const struct block_key *id)
{
    const uint64_t slot = block_key_mix(id, map->seed) & (map->slots - 1);
    __builtin_prefetch(&map->tags[slot]);
    __builtin_prefetch(&map->numbers[slot]);
}

uint32_t idmap_guess(const struct idmap *map, const struct block_key *id)
{
    const uint64_t hash = block_key_mix(id, map->seed);
    const uint64_t mask = map->slots - 1;
    const uint8_t tag = tag_of(hash);

    for (uint64_t slot = hash & mask; map->tags[slot] != 0; slot = (slot + 1) & mask) {
        if (map->tags[slot] == tag) return map->numbers[slot];
    }
    return SLAB_NONE;
}

uint32_t idmap_count(const struct idmap *map)
{
    return map->count;
}

uint64_t idmap_memory(const struct idmap *map)
{
    return sizeof(*map) + map->slots * (sizeof(*map->tags) + sizeof(*map->numbers));
}

void idmap_check(const struct idmap *map)
{
    uint32_t number = 0;
    uint32_t count = 0;
    for (; (number = slab_next(map->records, number)) != SLAB_NONE; number++, count++)
        ASSERT(idmap_find(map, id_of(map, number)) == number);
    ASSERT(count == map->count);
}
