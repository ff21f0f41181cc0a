/* SPDX-License-Identifier: Apache-2.0
 *
 * store/slab.c - a directory of chunks; in each a bitmap of who lives, and the records.
 *
 *   number = place of the chunk * SLAB_CHUNK + place in the chunk
 *
 * Chunks with room are on a list; records are taken from its head, so that the chunks behind it
 * can run empty.
 *
 * Invariants
 *   I1  A chunk is on the list of those with room exactly when a record of it is free.
 *   I2  At most one chunk has no living record. */
#include "store/slab.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/list.h"

enum { WORDS = SLAB_CHUNK / 64, CHUNKS_INITIAL = 16 };

struct chunk {
    struct chunk *prev; /* of those with room */
    struct chunk *next;
    uint32_t place;
    uint32_t count;
    uint64_t living[WORDS];
    uint64_t records[];
};

struct slab {
    uint32_t record_size;
    uint32_t records_max;
    uint32_t count;
    uint32_t chunks_count; /* places in use or used once */
    uint32_t chunks_capacity;
    uint32_t chunks_living;
    struct chunk **chunks; /* NULL: the place is free */
    struct chunk *roomy;
    struct chunk *empty; /* I2; NULL: none */
};

struct slab *slab_create(uint32_t record_size, uint32_t records_max)
{
    ASSERT(record_size > 0 && record_size % sizeof(uint64_t) == 0);
    ASSERT(records_max > 0 && records_max < 1u << 31);
    struct slab *slab = calloc(1, sizeof(*slab));
    if (slab == NULL) return NULL;
    slab->record_size = record_size;
    slab->records_max = records_max;
    return slab;
}

void slab_destroy(struct slab *slab)
{
    if (slab == NULL) return;
    for (uint32_t i = 0; i < slab->chunks_count; i++)
        free(slab->chunks[i]);
    free(slab->chunks);
    free(slab);
}

/* ---- chunks ---- */

static void roomy_push(struct slab *slab, struct chunk *chunk)
{
    LIST_PUSH(slab->roomy, chunk);
}

static void roomy_unlink(struct slab *slab, struct chunk *chunk)
{
    LIST_REMOVE(slab->roomy, chunk);
}

/* A free place in the directory; false: no memory. */
static bool place_find(struct slab *slab, uint32_t *out)
{
    for (uint32_t i = 0; slab->chunks_living < slab->chunks_count && i < slab->chunks_count; i++) {
        if (slab->chunks[i] != NULL) continue;
        *out = i;
        return true;
    }
    if (slab->chunks_count == slab->chunks_capacity) {
        const uint32_t capacity =
            slab->chunks_capacity == 0 ? CHUNKS_INITIAL : 2 * slab->chunks_capacity;
        struct chunk **chunks = realloc(slab->chunks, capacity * sizeof(struct chunk *));
        if (chunks == NULL) return false;
        slab->chunks = chunks;
        slab->chunks_capacity = capacity;
    }
    slab->chunks[slab->chunks_count] = NULL;
    *out = slab->chunks_count++;
    return true;
}

static size_t chunk_size(const struct slab *slab)
{
    return sizeof(struct chunk) + (size_t)slab->record_size * SLAB_CHUNK;
}

static struct chunk *chunk_new(struct slab *slab)
{
    uint32_t place;
    if (!place_find(slab, &place)) return NULL;
    struct chunk *chunk = calloc(1, chunk_size(slab));
    if (chunk == NULL) return NULL;
    chunk->place = place;
    slab->chunks[place] = chunk;
    slab->chunks_living++;
    roomy_push(slab, chunk);
    slab->empty = chunk;
    return chunk;
}

static void chunk_free(struct slab *slab, struct chunk *chunk)
{
    ASSERT(chunk->count == 0 && slab->chunks[chunk->place] == chunk);
    roomy_unlink(slab, chunk);
    slab->chunks[chunk->place] = NULL;
    slab->chunks_living--;
    free(chunk);
}

static struct chunk *chunk_of(const struct slab *slab, uint32_t index)
{
    ASSERT(index / SLAB_CHUNK < slab->chunks_count);
    struct chunk *chunk = slab->chunks[index / SLAB_CHUNK];
    ASSERT(chunk != NULL && (chunk->living[index % SLAB_CHUNK / 64] >> (index % 64) & 1) != 0);
    return chunk;
}

static void *record_of(const struct slab *slab, struct chunk *chunk, uint32_t in_chunk)
{
    return (uint8_t *)chunk->records + (size_t)in_chunk * slab->record_size;
}

/* ---- records ---- */

void *slab_alloc(struct slab *slab, uint32_t *index)
{
    uint32_t word = 0;
    if (slab->count == slab->records_max) return NULL;
    struct chunk *chunk = slab->roomy != NULL ? slab->roomy : chunk_new(slab);
    if (chunk == NULL) return NULL;

    while (chunk->living[word] == UINT64_MAX)
        word++;
    ASSERT(word < WORDS); /* I1 */
    const uint32_t in_chunk = word * 64 + (uint32_t)__builtin_ctzll(~chunk->living[word]);
    chunk->living[word] |= UINT64_C(1) << (in_chunk % 64);
    if (chunk == slab->empty) slab->empty = NULL;
    if (++chunk->count == SLAB_CHUNK) roomy_unlink(slab, chunk);
    slab->count++;
    *index = chunk->place * SLAB_CHUNK + in_chunk;
    void *record = record_of(slab, chunk, in_chunk);
    memset(record, 0, slab->record_size);
    return record;
}

void slab_free(struct slab *slab, uint32_t index)
{
    struct chunk *chunk = chunk_of(slab, index);

    chunk->living[index % SLAB_CHUNK / 64] &= ~(UINT64_C(1) << (index % 64));
    if (chunk->count == SLAB_CHUNK) roomy_push(slab, chunk);
    chunk->count--;
    slab->count--;
    if (chunk->count > 0) return;
    if (slab->empty != NULL) chunk_free(slab, slab->empty);
    slab->empty = chunk;
}

/* Does not look at who lives: that would be a second place in memory for each record. */
void *slab_at(const struct slab *slab, uint32_t index)
{
    ASSERT(index / SLAB_CHUNK < slab->chunks_count);
    struct chunk *chunk = slab->chunks[index / SLAB_CHUNK];
    ASSERT(chunk != NULL);
    return record_of(slab, chunk, index % SLAB_CHUNK);
}

uint32_t slab_next(const struct slab *slab, uint32_t index)
{
    for (uint32_t place = index / SLAB_CHUNK; place < slab->chunks_count; place++) {
        const struct chunk *chunk = slab->chunks[place];
        uint32_t from = place == index / SLAB_CHUNK ? index % SLAB_CHUNK : 0;
        while (chunk != NULL && from < SLAB_CHUNK) {
            const uint64_t rest = chunk->living[from / 64] >> (from % 64);
            if (rest != 0) return place * SLAB_CHUNK + from + (uint32_t)__builtin_ctzll(rest);
            from = (from / 64 + 1) * 64;
        }
    }
    return SLAB_NONE;
}

uint32_t slab_count(const struct slab *slab)
{
    return slab->count;
}

uint64_t slab_memory(const struct slab *slab)
{
    return sizeof(*slab) + slab->chunks_capacity * sizeof(struct chunk *) +
           slab->chunks_living * (uint64_t)chunk_size(slab);
}
