/* SPDX-License-Identifier: Apache-2.0
 *
 * base/arena.h - memory with one lifetime: many allocations, freed whole.
 *
 * Memory:  chunks of at least chunk_size bytes, together at most size_max. arena_reset() keeps the
 *          first chunk, so that an arena reused for request after request stops allocating.
 * Threads: belongs to one thread at a time.
 * Limits:  size_max; past it an allocation is NULL, which callers turn into STATUS_FULL. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

#include "base/status.h"

struct arena; /* opaque */

enum { ARENA_CHUNK_MIN = 256, ARENA_ALIGN_MAX = 4096 };

/* STATUS_INVALID if chunk_size < ARENA_CHUNK_MIN or size_max < chunk_size; STATUS_NO_MEMORY. */
MUST_USE enum status arena_create(size_t chunk_size, size_t size_max, struct arena **out);
void arena_destroy(struct arena *arena); /* NULL is allowed */

/* Uninitialised memory, aligned for any type; NULL at the limit. len 0 gives a valid pointer. */
void *arena_alloc(struct arena *arena, size_t len);
/* `align` is a power of two, at most ARENA_ALIGN_MAX. */
void *arena_alloc_aligned(struct arena *arena, size_t len, size_t align);
/* count * size bytes of zero; NULL at the limit or if the product overflows. */
void *arena_calloc(struct arena *arena, size_t count, size_t size);
/* A copy of text[0..len) with a NUL behind it. */
char *arena_text(struct arena *arena, const char *text, size_t len);

/* Frees every allocation at once. */
void arena_reset(struct arena *arena);

/* Bytes handed out since creation or reset, padding included. */
size_t arena_used(const struct arena *arena);

#endif
