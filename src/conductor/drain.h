/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/drain.h - when did those leave who stood in a queue? The latest departures of each
 * prefill instance.
 *
 * A place in a queue is a number: how many departures there will have been when all who stand
 * before it have left. Who leaves from behind counts for one who stood before.
 *
 * Memory:  half a KiB an instance, all allocated by drain_create().
 * Threads: belongs to one thread at a time.
 * Limits:  of departures further back than DRAIN_KEPT only a bound is known: they were not later
 *          than the oldest that is kept. */
#ifndef CONDUCTOR_DRAIN_H
#define CONDUCTOR_DRAIN_H

#include <stdint.h>

#include "base/status.h"

enum { DRAIN_KEPT = 64 };

struct drain; /* opaque */

/* One life of an instance slot, and a place in its queue. */
struct drain_place {
    uint32_t instance;
    uint32_t life;
    uint64_t number; /* 0: nobody stood before it */
};

MUST_USE enum status drain_create(uint32_t instances_max, struct drain **out);
void drain_destroy(struct drain *drain); /* NULL is allowed */
uint64_t drain_bytes(const struct drain *drain);

/* The slot is given to another instance, or to none: places in its queue are void. */
void drain_begin(struct drain *drain, uint32_t instance);
/* One has left its queue. */
void drain_left(struct drain *drain, uint32_t instance, double now_ms);

/* The place behind `queued` who stand there now. */
struct drain_place drain_join(const struct drain *drain, uint32_t instance, uint32_t queued);

/* When all before that place had left: at least `joined_ms`, when it was taken; INFINITY while
 * somebody stands there, or when the instance is gone. */
double drain_free_ms(const struct drain *drain, const struct drain_place *place, double joined_ms);

#endif
