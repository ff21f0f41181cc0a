/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/kvcache.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/map.h"

#define NONE UINT32_MAX

struct slot {
    uint32_t id;
    uint32_t next, prev; /* towards the tail, towards the head; or the free list */
    uint32_t pins;
    bool fast;
};

struct kvcache {
    uint32_t capacity, count, pinned;
    uint32_t fast_capacity, fast_count;
    uint32_t moved_down; /* id, or NONE */
    uint32_t border;     /* the last fast slot; NONE if there is none */
    uint32_t head, tail, free;
    struct slot *slots;
    uint32_t slots_cap;
    struct map *map; /* id -> slot */
};

enum status kvcache_create(uint32_t capacity, uint32_t fast, struct kvcache **out)
{
    struct kvcache *cache = calloc(1, sizeof(*cache));
    const struct map_options options = { .entries_max = capacity > 0 ? capacity : 1 };

    if (cache == NULL) return STATUS_NO_MEMORY;
    *cache = (struct kvcache){ .capacity = capacity,
                               .fast_capacity = fast,
                               .moved_down = NONE,
                               .border = NONE,
                               .head = NONE,
                               .tail = NONE,
                               .free = NONE };
    if (map_create(&options, &cache->map) != STATUS_OK) {
        free(cache);
        return STATUS_NO_MEMORY;
    }
    *out = cache;
    return STATUS_OK;
}

void kvcache_destroy(struct kvcache *cache)
{
    if (cache == NULL) return;
    map_destroy(cache->map);
    free(cache->slots);
    free(cache);
}

static struct block_key key_of(uint32_t id)
{
    struct block_key key = { { 0 } };
    memcpy(key.bytes, &id, sizeof(id));
    return key;
}

static uint32_t find(const struct kvcache *cache, uint32_t id)
{
    const struct block_key key = key_of(id);
    uint64_t slot = NONE;
    return map_find(cache->map, &key, &slot) ? (uint32_t)slot : NONE;
}

static void unlink_slot(struct kvcache *cache, uint32_t index)
{
    const struct slot *slot = &cache->slots[index];
    if (slot->fast) {
        ASSERT(cache->fast_count > 0);
        if (cache->border == index) cache->border = slot->prev;
        cache->fast_count--;
    }
    if (slot->prev == NONE)
        cache->head = slot->next;
    else
        cache->slots[slot->prev].next = slot->next;
    if (slot->next == NONE)
        cache->tail = slot->prev;
    else
        cache->slots[slot->next].prev = slot->prev;
}

static void link_first(struct kvcache *cache, uint32_t index)
{
    struct slot *slot = &cache->slots[index];
    slot->prev = NONE;
    slot->next = cache->head;
    if (cache->head != NONE)
        cache->slots[cache->head].prev = index;
    else
        cache->tail = index;
    cache->head = index;
    slot->fast = cache->fast_capacity > 0;
    cache->moved_down = NONE;
    if (!slot->fast) return;
    if (cache->border == NONE) cache->border = index;
    if (++cache->fast_count <= cache->fast_capacity) return;
    cache->slots[cache->border].fast = false;
    cache->moved_down = cache->slots[cache->border].id;
    cache->border = cache->slots[cache->border].prev;
    cache->fast_count--;
}

bool kvcache_moved_down(const struct kvcache *cache, uint32_t *id)
{
    if (cache->moved_down == NONE) return false;
    *id = cache->moved_down;
    return true;
}

bool kvcache_has(const struct kvcache *cache, uint32_t id)
{
    return find(cache, id) != NONE;
}

bool kvcache_is_fast(const struct kvcache *cache, uint32_t id)
{
    const uint32_t index = find(cache, id);
    ASSERT(index != NONE);
    return cache->slots[index].fast;
}

uint32_t kvcache_run(const struct kvcache *cache, const uint32_t *ids, uint32_t count)
{
    uint32_t run = 0;
    while (run < count && kvcache_has(cache, ids[run]))
        run++;
    return run;
}

bool kvcache_touch(struct kvcache *cache, uint32_t id)
{
    const uint32_t index = find(cache, id);
    if (index == NONE) return false;
    ASSERT(cache->slots[index].id == id);
    unlink_slot(cache, index);
    link_first(cache, index);
    return true;
}

static enum status take_slot(struct kvcache *cache, uint32_t *out)
{
    if (cache->free == NONE) {
        uint32_t cap = cache->slots_cap == 0 ? 64 : cache->slots_cap * 2;
        if (cap > cache->capacity) cap = cache->capacity;
        ASSERT(cap > cache->slots_cap);
        struct slot *slots = realloc(cache->slots, cap * sizeof(*slots));
        if (slots == NULL) return STATUS_NO_MEMORY;
        cache->slots = slots;
        for (uint32_t i = cap; i-- > cache->slots_cap;) {
            slots[i].next = cache->free;
            cache->free = i;
        }
        cache->slots_cap = cap;
    }
    *out = cache->free;
    return STATUS_OK;
}

enum status kvcache_insert(struct kvcache *cache, uint32_t id)
{
    const struct block_key key = key_of(id);
    uint32_t index = NONE;

    if (cache->count >= cache->capacity) return STATUS_FULL;
    enum status status = take_slot(cache, &index);
    if (status == STATUS_OK) status = map_insert(cache->map, &key, index);
    if (status != STATUS_OK) return STATUS_NO_MEMORY;
    cache->free = cache->slots[index].next;
    cache->slots[index] = (struct slot){ .id = id };
    link_first(cache, index);
    cache->count++;
    return STATUS_OK;
}

static void remove_slot(struct kvcache *cache, uint32_t index)
{
    const struct block_key key = key_of(cache->slots[index].id);

    ASSERT(cache->slots[index].pins == 0 && cache->count > 0);
    unlink_slot(cache, index);
    if (!map_remove(cache->map, &key, NULL)) ASSERT(index == NONE); /* impossible */
    cache->slots[index].next = cache->free;
    cache->free = index;
    cache->count--;
}

bool kvcache_evict(struct kvcache *cache, uint32_t *id)
{
    uint32_t index = cache->tail;

    while (index != NONE && cache->slots[index].pins > 0)
        index = cache->slots[index].prev;
    if (index == NONE) return false;
    *id = cache->slots[index].id;
    remove_slot(cache, index);
    return true;
}

bool kvcache_lose(struct kvcache *cache, uint32_t *id)
{
    const uint32_t index = cache->head;

    if (index == NONE || !cache->slots[index].fast) return false;
    *id = cache->slots[index].id;
    remove_slot(cache, index);
    return true;
}

bool kvcache_next(const struct kvcache *cache, uint32_t *cursor, uint32_t *id)
{
    const uint32_t index = *cursor == KVCACHE_START ? cache->head : cache->slots[*cursor].next;

    if (index == NONE) return false;
    *cursor = index;
    *id = cache->slots[index].id;
    return true;
}

void kvcache_remove(struct kvcache *cache, uint32_t id)
{
    const uint32_t index = find(cache, id);
    ASSERT(index != NONE);
    remove_slot(cache, index);
}

void kvcache_pin(struct kvcache *cache, uint32_t id)
{
    if (!kvcache_try_pin(cache, id)) ASSERT(cache == NULL); /* impossible */
}

bool kvcache_try_pin(struct kvcache *cache, uint32_t id)
{
    const uint32_t index = find(cache, id);
    if (index == NONE) return false;
    if (cache->slots[index].pins++ == 0) cache->pinned++;
    return true;
}

void kvcache_prefetch(const struct kvcache *cache, uint32_t id)
{
    const struct block_key key = key_of(id);
    map_prefetch(cache->map, &key);
}

void kvcache_unpin(struct kvcache *cache, uint32_t id)
{
    const uint32_t index = find(cache, id);
    ASSERT(index != NONE && cache->slots[index].pins > 0);
    if (--cache->slots[index].pins == 0) cache->pinned--;
}

bool kvcache_is_pinned(const struct kvcache *cache, uint32_t id)
{
    const uint32_t index = find(cache, id);
    ASSERT(index != NONE);
    return cache->slots[index].pins > 0;
}

uint32_t kvcache_count(const struct kvcache *cache)
{
    ASSERT(cache->count <= cache->capacity);
    return cache->count;
}

uint32_t kvcache_capacity(const struct kvcache *cache)
{
    return cache->capacity;
}

uint32_t kvcache_pinned(const struct kvcache *cache)
{
    ASSERT(cache->pinned <= cache->count);
    return cache->pinned;
}
