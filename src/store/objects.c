/* SPDX-License-Identifier: Apache-2.0
 *
 * store/objects.c - slots of values, a map from identity to slot, a bitmap of used granules, pins.
 *
 * Invariants
 *   I1  A granule's bit is set exactly when a value covers it: two values never overlap.
 *   I2  A slot is in the map exactly when it holds a value.
 *   I3  A pinned value stays: its bytes are not reused under a reader.
 *   I4  `unsettled` counts the values that are not `settled`. */
#include "store/objects.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/hash.h"
#include "base/map.h"
#include "store/proto.h"
#include "store/rank.h"

#define OBJECT_PIN_BIT                                                                             \
    (UINT64_C(1)                                                                                   \
     << 63) /* pool pins never have it: their rounds are counters                      \
                         */

struct object_pin {
    uint64_t id; /* 0: free */
    uint64_t expires;
    struct object **list;
    uint32_t count;
};

struct objects {
    struct objects_options options;
    struct map *map;
    struct object **slots; /* NULL: free */
    uint32_t *slots_free;
    uint32_t slots_free_count;
    uint32_t slots_count; /* used at least once */
    uint32_t slots_capacity;
    uint32_t unsettled; /* values */
    uint64_t *used;     /* bit per granule */
    struct object_pin *pins;
    uint32_t pins_count;
    uint64_t pins_next;
};

enum status objects_create(const struct objects_options *options, struct objects **out)
{
    ASSERT(options->address % OBJECT_GRANULE == 0 && options->size % OBJECT_GRANULE == 0);
    ASSERT(options->pins_max > 0);
    const size_t words = options->size / OBJECT_GRANULE / 64 + 1;
    const struct map_options map = { .entries_max = OBJECTS_MAX, .seed = options->seed };

    struct objects *objects = calloc(1, sizeof(*objects));
    if (objects == NULL) return STATUS_NO_MEMORY;
    objects->options = *options;
    objects->used = calloc(words, sizeof(*objects->used));
    objects->pins = calloc(options->pins_max, sizeof(*objects->pins));
    if (objects->used == NULL || objects->pins == NULL ||
        map_create(&map, &objects->map) != STATUS_OK) {
        objects_destroy(objects);
        return STATUS_NO_MEMORY;
    }
    *out = objects;
    return STATUS_OK;
}

static void object_free(struct object *object)
{
    if (object == NULL) return;
    free((void *)(uintptr_t)object->key.bytes);
    free(object->sums);
    free(object);
}

void objects_destroy(struct objects *objects)
{
    if (objects == NULL) return;
    for (uint32_t i = 0; i < objects->slots_count; i++)
        object_free(objects->slots[i]);
    for (uint32_t i = 0; objects->pins != NULL && i < objects->options.pins_max; i++) {
        free(objects->pins[i].list);
    }
    map_destroy(objects->map);
    free(objects->pins);
    free(objects->used);
    free(objects->slots_free);
    free(objects->slots);
    free(objects);
}

/* ---- the region ---- */

static uint64_t granules_of(uint64_t size)
{
    return (size + OBJECT_GRANULE - 1) / OBJECT_GRANULE;
}

static bool range_inside(const struct objects *objects, uint64_t address, uint64_t size)
{
    const struct objects_options *region = &objects->options;
    if (size == 0 || size > region->size || address % OBJECT_GRANULE != 0) return false;
    return address >= region->address && address - region->address <= region->size - size;
}

static bool range_used(const struct objects *objects, uint64_t address, uint64_t size)
{
    const uint64_t first = (address - objects->options.address) / OBJECT_GRANULE;
    for (uint64_t i = first; i < first + granules_of(size); i++) {
        if (objects->used[i / 64] >> (i % 64) & 1) return true;
    }
    return false;
}

static void range_mark(struct objects *objects, uint64_t address, uint64_t size, bool used)
{
    const uint64_t first = (address - objects->options.address) / OBJECT_GRANULE;
    for (uint64_t i = first; i < first + granules_of(size); i++) {
        const uint64_t bit = UINT64_C(1) << (i % 64);
        ASSERT(((objects->used[i / 64] & bit) != 0) != used); /* I1 */
        objects->used[i / 64] ^= bit;
    }
}

/* ---- values ---- */

const struct object *objects_find(const struct objects *objects, const struct block_key *id)
{
    uint64_t slot;
    if (!map_find(objects->map, id, &slot)) return NULL;
    ASSERT(slot < objects->slots_count);
    ASSERT(objects->slots[slot] != NULL); /* I2 */
    return objects->slots[slot];
}

static enum status slot_take(struct objects *objects, uint32_t *out)
{
    if (objects->slots_free_count > 0) {
        *out = objects->slots_free[--objects->slots_free_count];
        return STATUS_OK;
    }
    if (objects->slots_count == objects->slots_capacity) {
        if (objects->slots_capacity == OBJECTS_MAX) return STATUS_FULL;
        const uint32_t capacity = objects->slots_capacity == 0 ? 64 : 2 * objects->slots_capacity;
        struct object **slots = realloc(objects->slots, capacity * sizeof(struct object *));
        if (slots == NULL) return STATUS_FULL;
        objects->slots = slots;
        uint32_t *slots_free = realloc(objects->slots_free, capacity * sizeof(*slots_free));
        if (slots_free == NULL) return STATUS_FULL;
        objects->slots_free = slots_free;
        objects->slots_capacity = capacity;
    }
    *out = objects->slots_count;
    objects->slots[objects->slots_count++] = NULL;
    return STATUS_OK;
}

static struct object *object_new(const struct object *wanted, const uint64_t *sums,
                                 uint32_t sums_count)
{
    struct object *object = calloc(1, sizeof(*object));
    if (object == NULL) return NULL;
    *object = *wanted;
    uint8_t *key = malloc(wanted->key.len);
    object->key.bytes = key;
    object->sums = malloc(sums_count * sizeof(*sums));
    if (key == NULL || object->sums == NULL) {
        object_free(object);
        return NULL;
    }
    memcpy(key, wanted->key.bytes, wanted->key.len);
    memcpy(object->sums, sums, sums_count * sizeof(*sums));
    object->id = store_key_id(wanted->key);
    object->digest = hash_xxh3(sums, sums_count * sizeof(*sums));
    object->sums_count = sums_count;
    object->pins = 0;
    return object;
}

enum status objects_drop(struct objects *objects, const struct block_key *id, uint64_t generation)
{
    const struct object *present = objects_find(objects, id);
    if (present == NULL || present->generation != generation) return STATUS_NOT_FOUND;
    if (present->pins > 0) return STATUS_BUSY; /* I3 */

    struct object *object = objects->slots[present->slot];
    const bool was_there = map_remove(objects->map, id, NULL);
    ASSERT(was_there);
    range_mark(objects, object->address, object->size, false);
    objects->unsettled -= !object->settled;
    objects->slots[object->slot] = NULL;
    objects->slots_free[objects->slots_free_count++] = object->slot;
    objects->options.on_removed(objects->options.ctx, object);
    object_free(object);
    return STATUS_OK;
}

enum status objects_mark(struct objects *objects, const struct block_key *id, uint64_t generation,
                         uint32_t replicas)
{
    const struct object *present = objects_find(objects, id);
    if (present == NULL || present->generation != generation) return STATUS_NOT_FOUND;
    objects->slots[present->slot]->attributes.replicas = (uint8_t)replicas;
    return STATUS_OK;
}

bool object_piece_right(const struct object *object, uint32_t piece)
{
    const uint8_t *bytes = (const uint8_t *)(uintptr_t)object->address;
    const uint64_t offset = (uint64_t)piece * STORE_PIECE_SIZE;
    ASSERT(piece < object->sums_count && offset < object->size);
    const uint64_t left = object->size - offset;
    const uint64_t len = left < STORE_PIECE_SIZE ? left : STORE_PIECE_SIZE;
    return hash_xxh3(bytes + offset, len) == object->sums[piece];
}

void objects_settle(struct objects *objects, const struct block_key *id, uint64_t generation)
{
    const struct object *present = objects_find(objects, id);
    if (present == NULL || present->generation != generation || present->settled) return;
    ASSERT(objects->unsettled > 0);
    objects->unsettled--;
    objects->slots[present->slot]->settled = true;
}

uint32_t objects_unsettled(const struct objects *objects)
{
    return objects->unsettled;
}

void objects_mark_hot(struct objects *objects, const struct object *object)
{
    objects->slots[object->slot]->attributes.hot = true;
}

enum status objects_put(struct objects *objects, const struct object *wanted, const uint64_t *sums,
                        uint32_t sums_count, const struct object **out)
{
    ASSERT(wanted->key.len > 0 && sums_count > 0);
    const struct block_key id = store_key_id(wanted->key);
    const struct object *present = objects_find(objects, &id);
    uint32_t slot;

    if (!range_inside(objects, wanted->address, wanted->size)) return STATUS_INVALID;
    if (present != NULL &&
        rank_compare(rank_of(&wanted->attributes), rank_of(&present->attributes)) <= 0) {
        *out = present;
        return STATUS_EXISTS;
    }
    if (range_used(objects, wanted->address, wanted->size)) return STATUS_BUSY;
    if (present != NULL && present->pins > 0) return STATUS_BUSY; /* I3 */
    struct object *object = object_new(wanted, sums, sums_count);
    if (object == NULL) return STATUS_FULL;
    if (present != NULL) {
        const enum status dropped = objects_drop(objects, &id, present->generation);
        ASSERT(dropped == STATUS_OK);
    }
    if (slot_take(objects, &slot) != STATUS_OK) {
        object_free(object);
        return STATUS_FULL;
    }
    if (map_insert(objects->map, &id, slot) != STATUS_OK) {
        objects->slots_free[objects->slots_free_count++] = slot;
        object_free(object);
        return STATUS_FULL;
    }
    range_mark(objects, object->address, object->size, true);
    object->slot = slot;
    objects->slots[slot] = object;
    objects->unsettled += !object->settled;
    objects->options.on_stored(objects->options.ctx, object);
    *out = object;
    return STATUS_OK;
}

const struct object *objects_next(const struct objects *objects, uint32_t *next)
{
    while (*next < objects->slots_count) {
        const struct object *object = objects->slots[(*next)++];
        if (object != NULL) return object;
    }
    return NULL;
}

uint32_t objects_count(const struct objects *objects)
{
    return map_count(objects->map);
}

/* ---- pins ---- */

enum status objects_pin(struct objects *objects, const struct object *const *list, uint32_t count,
                        uint64_t expires_ns, uint64_t *out)
{
    ASSERT(count > 0);
    uint32_t slot = 0;
    if (objects->pins_count == objects->options.pins_max) return STATUS_FULL;
    while (objects->pins[slot].id != 0)
        slot++;
    struct object **copy = malloc(count * sizeof(struct object *));
    if (copy == NULL) return STATUS_FULL;

    for (uint32_t i = 0; i < count; i++) {
        copy[i] = objects->slots[list[i]->slot];
        ASSERT(copy[i] == list[i]);
        copy[i]->pins++;
    }
    const uint64_t id = ++objects->pins_next | OBJECT_PIN_BIT;
    objects->pins[slot] = (struct object_pin){ id, expires_ns, copy, count };
    objects->pins_count++;
    *out = id;
    return STATUS_OK;
}

static struct object_pin *pin_find(struct objects *objects, uint64_t id)
{
    if ((id & OBJECT_PIN_BIT) == 0) return NULL;
    for (uint32_t i = 0; i < objects->options.pins_max; i++) {
        if (objects->pins[i].id == id) return &objects->pins[i];
    }
    return NULL;
}

static void pin_end(struct objects *objects, struct object_pin *pin)
{
    ASSERT(pin->id != 0 && objects->pins_count > 0);
    for (uint32_t i = 0; i < pin->count; i++) {
        ASSERT(pin->list[i]->pins > 0);
        pin->list[i]->pins--;
    }
    free(pin->list);
    *pin = (struct object_pin){ 0 };
    objects->pins_count--;
}

enum status objects_repin(struct objects *objects, uint64_t id, uint64_t expires_ns)
{
    struct object_pin *pin = pin_find(objects, id);
    if (pin == NULL) return STATUS_NOT_FOUND;
    if (expires_ns > pin->expires) pin->expires = expires_ns;
    return STATUS_OK;
}

enum status objects_unpin(struct objects *objects, uint64_t id)
{
    struct object_pin *pin = pin_find(objects, id);
    if (pin == NULL) return STATUS_NOT_FOUND;
    pin_end(objects, pin);
    return STATUS_OK;
}

uint64_t objects_expire(struct objects *objects, uint64_t now_ns)
{
    uint64_t next = ENV_NEVER;
    for (uint32_t i = 0; objects->pins_count > 0 && i < objects->options.pins_max; i++) {
        struct object_pin *pin = &objects->pins[i];
        if (pin->id == 0) continue;
        if (pin->expires <= now_ns) {
            pin_end(objects, pin);
        } else if (pin->expires < next) {
            next = pin->expires;
        }
    }
    return next;
}
