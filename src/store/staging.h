/* SPDX-License-Identifier: Apache-2.0
 *
 * store/staging.h - memory in which records lie while they are written to a disk: pieces of one
 * area, on huge pages.
 *
 * A disk that reads 1 MiB from where the system put its pages, one by one, is told of 256 places,
 * which is two requests; of a huge page it is told once. And memory that was written from before is
 * not cleared by the kernel again, as what malloc() gives back and takes is.
 *
 * A piece larger than the area has memory of its own, for as long as it is out.
 *
 * Memory:  the area, from the first piece on: as much of it as was ever out at once, rounded up to
 *          huge pages.
 * Threads: one.
 * Limits:  STAGING_PIECES_MAX pieces out at once. Pieces of different sizes come back in any order,
 *          so one may not fit although its size is free; when none is out any fits. */
#ifndef STORE_STAGING_H
#define STORE_STAGING_H

#include <stdint.h>

enum { STAGING_PIECES_MAX = 32 };

struct staging; /* opaque */

/* Pieces are aligned to `align` (a power of two) and together at most `size` bytes. NULL: no
 * memory. */
struct staging *staging_create(uint64_t size, uint32_t align);

/* With all that is out. NULL is allowed. */
void staging_destroy(struct staging *staging);

/* Not cleared. NULL: not now, or no memory. */
uint8_t *staging_take(struct staging *staging, uint64_t size);

void staging_give(struct staging *staging, uint8_t *piece);

#endif
