/* SPDX-License-Identifier: Apache-2.0
 *
 * store/space.h - which parts of the extents that one node has lent are free.
 *
 * Ranges are handed out first fit by address, in multiples of SPACE_GRANULE; freed neighbours
 * merge. A range can also be reserved where it already is: that is how a new master learns what an
 * extent holds. Every operation is O(log free ranges).
 *
 * Memory:  one allocation per free range.
 * Threads: one.
 * Limits:  SPACE_EXTENTS_MAX extents. */
#ifndef STORE_SPACE_H
#define STORE_SPACE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct space; /* opaque */

enum { SPACE_GRANULE = 4096, SPACE_EXTENTS_MAX = 64 };

struct space *space_create(void);        /* NULL: no memory */
void space_destroy(struct space *space); /* NULL is allowed */

/* All of it becomes free. STATUS_EXISTS if it is known; STATUS_INVALID if it is empty, misaligned
 * or overlaps another; STATUS_FULL. */
MUST_USE enum status space_add(struct space *space, uint64_t address, uint64_t size);

/* STATUS_FULL: no free range is large enough. */
MUST_USE enum status space_alloc(struct space *space, uint64_t size, uint64_t *address);

/* STATUS_NOT_FOUND: outside every extent. STATUS_BUSY: not all of it is free. */
MUST_USE enum status space_reserve(struct space *space, uint64_t address, uint64_t size);

/* The range was allocated or reserved as it is; anything else is a bug. */
void space_free(struct space *space, uint64_t address, uint64_t size);

uint64_t space_total(const struct space *space);
uint64_t space_used(const struct space *space);
uint64_t space_extent_max(const struct space *space); /* size of the largest extent */

/* Counts the free ranges against the used bytes; O(n). For tests. */
void space_check(const struct space *space);

#endif
