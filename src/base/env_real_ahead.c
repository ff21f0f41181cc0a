/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_ahead.c - pages of another process's memory mapped ahead of their use.
 *
 * What another process made is mapped here page by page, as it is first read: sixteen pages a
 * fault, which takes half as long as copying them. So jobs do that for what will be read soon,
 * while the loop does something else, or reads what comes before it:
 *
 *     loop:    env_map_ahead() ---> range ---+                       +--> forgets the range
 *     thread:                                +--> looks, maps, ... --+
 *
 * What the creator has not written yet is left alone, or it would be made by us: a look at the
 * page cache tells. So each step has a mark that it was asked for, which is taken back if there was
 * nothing; who asks again for what is marked starts no job.
 *
 *   I1  A range holds a reference to its map: no thread looks at what was unmapped.
 *
 * Threads: those of jobs. Marks are atomic, and only advice: any order will do.
 * Memory:  a bit for 64 KiB of each map.
 * Limits:  RANGES_MAX at one time; what is more is read without. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real_int.h"
#include "base/list.h"

enum { RANGES_MAX = 64, STEP_SIZE = 64 << 10, BITS = 64 };

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* Steps [first, last) of a map. */
struct range {
    struct env_job job;
    struct env_real *real;
    struct env_real_seen *seen;
    size_t first;
    size_t last;
    struct range *prev, *next; /* of the env's */
};

/* ---- what of a map was asked for ---- */

struct env_real_seen {
    _Atomic uint32_t refs; /* the map's, and those of its ranges: the last one unmaps */
    char *data;
    size_t size;
    _Atomic uint64_t marks[]; /* a bit for each step */
};

static size_t steps_of(size_t size)
{
    return (size + STEP_SIZE - 1) / STEP_SIZE;
}

struct env_real_seen *env_real_seen_new(void *data, size_t size)
{
    const size_t words = (steps_of(size) + BITS - 1) / BITS;
    struct env_real_seen *seen = calloc(1, sizeof(*seen) + words * sizeof(seen->marks[0]));

    if (seen == NULL) return NULL;
    atomic_init(&seen->refs, 1);
    seen->data = data;
    seen->size = size;
    return seen;
}

void env_real_seen_unref(struct env_real_seen *seen)
{
    /* Release: the threads' looks come before; acquire: the unmapping after. */
    if (atomic_fetch_sub_explicit(&seen->refs, 1, memory_order_acq_rel) > 1) return;
    const int result = munmap(seen->data, seen->size);
    ASSERT(result == 0);
    free(seen);
}

/* True if it was marked already. */
static bool mark(struct env_real_seen *seen, size_t step)
{
    const uint64_t bit = UINT64_C(1) << step % BITS;
    _Atomic uint64_t *word = &seen->marks[step / BITS];

    if ((atomic_load_explicit(word, memory_order_relaxed) & bit) != 0) return true;
    atomic_fetch_or_explicit(word, bit, memory_order_relaxed);
    return false;
}

static void unmark(struct env_real_seen *seen, size_t step)
{
    atomic_fetch_and_explicit(&seen->marks[step / BITS], ~(UINT64_C(1) << step % BITS),
                              memory_order_relaxed);
}

/* ---- a range ---- */

/* The first page of a step, and with it those around. */
static void step_map(struct env_real_seen *seen, size_t step, size_t page_size)
{
    char *at = seen->data + step * STEP_SIZE;
    unsigned char there = 0;

    if (mincore(at, page_size, &there) == 0 && (there & 1) != 0) {
        (void)madvise(at, page_size, MADV_POPULATE_READ); /* else whoever reads maps it */
    } else {
        unmark(seen, step);
    }
}

static void range_run(void *ctx)
{
    const struct range *range = ctx;
    const size_t page_size = (size_t)sysconf(_SC_PAGESIZE);

    for (size_t step = range->first; step < range->last; step++)
        step_map(range->seen, step, page_size);
}

static void range_free(void *ctx)
{
    struct range *range = ctx;
    struct env_real *real = range->real;

    LIST_REMOVE(real->ahead, range);
    real->ahead_count--;
    env_real_seen_unref(range->seen);
    free(range);
}

/* False: too many wait, or there is no memory, or no thread. */
static bool range_start(struct env_real *real, struct env_real_seen *seen, size_t first,
                        size_t last)
{
    struct range *range = real->ahead_count < RANGES_MAX ? malloc(sizeof(*range)) : NULL;

    if (range == NULL) return false;
    *range = (struct range){ .real = real, .seen = seen, .first = first, .last = last };
    range->job.run = range_run;
    range->job.done = range_free;
    range->job.ctx = range;
    atomic_fetch_add_explicit(&seen->refs, 1, memory_order_relaxed);
    LIST_PUSH(real->ahead, range);
    real->ahead_count++;
    if (env_job_start(&real->base, &range->job) == STATUS_OK) return true;
    range_free(range);
    return false;
}

void env_real_map_ahead(struct env *env, const struct env_map *map, size_t offset, size_t len)
{
    struct env_real_seen *seen = env_real_map_seen(map);
    size_t first = 0;
    size_t last = 0; /* 0: all was asked for */

    if (seen == NULL) return;
    for (size_t step = offset / STEP_SIZE; step < steps_of(offset + len); step++) {
        if (mark(seen, step)) continue;
        if (last == 0) first = step;
        last = step + 1;
    }
    if (last == 0 || range_start(env_real_of(env), seen, first, last)) return;
    for (size_t step = first; step < last; step++)
        unmark(seen, step);
}

void env_real_ahead_end(struct env_real *real)
{
    while (real->ahead != NULL)
        range_free(real->ahead);
}
