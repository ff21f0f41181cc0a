/* SPDX-License-Identifier: Apache-2.0
 *
 * base/arena.c - a list of chunks; allocation bumps an offset in the newest.
 *
 * A request larger than a chunk gets a chunk of its own size. The chunk made first stays at the end
 * of the list and survives a reset. */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

struct chunk {
    struct chunk *next; /* older */
    size_t size;
    size_t used;
    alignas(max_align_t) uint8_t data[];
};

struct arena {
    struct chunk *newest;
    size_t chunk_size;
    size_t size_max;
    size_t size; /* of all chunks */
    size_t used;
};

static struct chunk *chunk_push(struct arena *arena, size_t size)
{
    ASSERT(arena->size <= arena->size_max);
    if (size > arena->size_max - arena->size) return NULL;
    struct chunk *chunk = malloc(sizeof(*chunk) + size);
    if (chunk == NULL) return NULL;
    chunk->next = arena->newest;
    chunk->size = size;
    chunk->used = 0;
    arena->newest = chunk;
    arena->size += size;
    return chunk;
}

enum status arena_create(size_t chunk_size, size_t size_max, struct arena **out)
{
    if (chunk_size < ARENA_CHUNK_MIN || size_max < chunk_size) return STATUS_INVALID;
    struct arena *arena = calloc(1, sizeof(*arena));
    if (arena == NULL) return STATUS_NO_MEMORY;
    arena->chunk_size = chunk_size;
    arena->size_max = size_max;
    if (chunk_push(arena, chunk_size) == NULL) {
        free(arena);
        return STATUS_NO_MEMORY;
    }
    *out = arena;
    return STATUS_OK;
}

void arena_destroy(struct arena *arena)
{
    if (arena == NULL) return;
    arena_reset(arena);
    free(arena->newest);
    free(arena);
}

/* The padding that aligns the chunk's next byte. */
static size_t padding(const struct chunk *chunk, size_t align)
{
    const uintptr_t at = (uintptr_t)(chunk->data + chunk->used);
    return (size_t)(-at & (align - 1));
}

void *arena_alloc_aligned(struct arena *arena, size_t len, size_t align)
{
    ASSERT(align != 0 && (align & (align - 1)) == 0 && align <= ARENA_ALIGN_MAX);
    struct chunk *chunk = arena->newest;
    size_t pad = padding(chunk, align);

    if (len > arena->size_max) return NULL;
    if (chunk->size - chunk->used < len + pad) {
        const size_t need = len + align;
        chunk = chunk_push(arena, need > arena->chunk_size ? need : arena->chunk_size);
        if (chunk == NULL) chunk = chunk_push(arena, need); /* the last bit below the limit */
        if (chunk == NULL) return NULL;
        pad = padding(chunk, align);
    }
    ASSERT(len + pad <= chunk->size - chunk->used);
    void *out = chunk->data + chunk->used + pad;
    chunk->used += len + pad;
    arena->used += len + pad;
    return out;
}

void *arena_alloc(struct arena *arena, size_t len)
{
    return arena_alloc_aligned(arena, len, alignof(max_align_t));
}

void *arena_calloc(struct arena *arena, size_t count, size_t size)
{
    size_t len;
    if (__builtin_mul_overflow(count, size, &len)) return NULL;
    void *out = arena_alloc(arena, len);
    if (out != NULL) memset(out, 0, len);
    return out;
}

char *arena_text(struct arena *arena, const char *text, size_t len)
{
    if (len == SIZE_MAX) return NULL;
    char *out = arena_alloc_aligned(arena, len + 1, 1);
    if (out == NULL) return NULL;
    if (len > 0) memcpy(out, text, len);
    out[len] = '\0';
    return out;
}

void arena_reset(struct arena *arena)
{
    while (arena->newest->next != NULL) {
        struct chunk *chunk = arena->newest;
        arena->newest = chunk->next;
        arena->size -= chunk->size;
        free(chunk);
    }
    arena->newest->used = 0;
    arena->used = 0;
    ASSERT(arena->size == arena->newest->size);
}

size_t arena_used(const struct arena *arena)
{
    return arena->used;
}
