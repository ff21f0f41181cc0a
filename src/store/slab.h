/* SPDX-License-Identifier: Apache-2.0
 *
 * store/slab.h - records of one size, each with a number that does not change while it lives.
 *
 * Numbers are small and are used again, so a table of records can be walked in pages, by number,
 * while records come and go: one that lives through the whole walk is seen exactly once.
 *
 * Memory:  chunks of SLAB_CHUNK records; a chunk in which no record lives goes back to the system,
 *          but for one that is kept against flutter. Less than a bit and a half a record on top.
 * Threads: one.
 * Limits:  records_max records. */
#ifndef STORE_SLAB_H
#define STORE_SLAB_H

#include <stdint.h>

struct slab; /* opaque */

enum { SLAB_CHUNK = 2048 };
#define SLAB_NONE UINT32_MAX

/* `record_size` is a multiple of 8; records_max is below 2^31. NULL: no memory. */
struct slab *slab_create(uint32_t record_size, uint32_t records_max);
void slab_destroy(struct slab *slab); /* NULL is allowed; with every record */

/* A record of zeroes and its number. NULL at records_max, or when there is no memory. */
void *slab_alloc(struct slab *slab, uint32_t *index);

/* The record lives; anything else is a bug, which slab_free() notices and slab_at() may not. */
void slab_free(struct slab *slab, uint32_t index);
void *slab_at(const struct slab *slab, uint32_t index);

/* The first living record at or after `index`, which may be any number; SLAB_NONE behind the last.
 */
uint32_t slab_next(const struct slab *slab, uint32_t index);

uint32_t slab_count(const struct slab *slab);
uint64_t slab_memory(const struct slab *slab); /* bytes */

#endif
