/* SPDX-License-Identifier: Apache-2.0
 *
 * store/sketch.c - four rows of counters; a key has one in each, and its estimate is the least. */
#include "store/sketch.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum { ROWS = 4, WIDTH_MIN = 64 };

struct sketch {
    uint64_t seed;
    uint32_t width; /* counters of a row; a power of two */
    uint32_t window;
    uint32_t added; /* since the last halving */
    uint8_t *counters;
};

enum status sketch_create(uint32_t keys, uint32_t window, uint64_t seed, struct sketch **out)
{
    ASSERT(window > 0);
    struct sketch *sketch = calloc(1, sizeof(*sketch));
    if (sketch == NULL) return STATUS_NO_MEMORY;
    if (keys > SKETCH_KEYS_MAX) keys = SKETCH_KEYS_MAX;
    sketch->width = WIDTH_MIN;
    while (sketch->width < keys)
        sketch->width *= 2;
    sketch->window = window;
    sketch->seed = seed;
    sketch->counters = calloc((size_t)ROWS * sketch->width, 1);
    if (sketch->counters == NULL) {
        free(sketch);
        return STATUS_NO_MEMORY;
    }
    *out = sketch;
    return STATUS_OK;
}

void sketch_destroy(struct sketch *sketch)
{
    if (sketch == NULL) return;
    free(sketch->counters);
    free(sketch);
}

/* Two hashes give all rows: h + row * g. Keys are digests already. */
static uint8_t *counter_of(const struct sketch *sketch, const struct block_key *key, unsigned row)
{
    uint64_t half[2];
    memcpy(half, key->bytes, sizeof(half));
    uint64_t h = (half[0] ^ sketch->seed) * UINT64_C(0x9e3779b97f4a7c15) + half[1];
    h ^= h >> 29;
    h += row * (half[1] | 1);
    h *= UINT64_C(0xd6e8feb86659fd93);
    return &sketch->counters[(size_t)row * sketch->width + ((h >> 32) & (sketch->width - 1))];
}

void sketch_add(struct sketch *sketch, const struct block_key *key)
{
    for (unsigned row = 0; row < ROWS; row++) {
        uint8_t *counter = counter_of(sketch, key, row);
        if (*counter < SKETCH_COUNT_MAX) (*counter)++;
    }
    if (++sketch->added < sketch->window) return;
    sketch->added = 0;
    for (size_t i = 0; i < (size_t)ROWS * sketch->width; i++)
        sketch->counters[i] /= 2;
}

uint32_t sketch_estimate(const struct sketch *sketch, const struct block_key *key)
{
    uint32_t least = SKETCH_COUNT_MAX;
    for (unsigned row = 0; row < ROWS; row++) {
        const uint8_t counter = *counter_of(sketch, key, row);
        if (counter < least) least = counter;
    }
    return least;
}
