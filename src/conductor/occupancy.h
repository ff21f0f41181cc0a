/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/occupancy.h - how many sequences a decode instance had, and how long they were, on the
 * mean between two moments: integrals over time, one pair an instance.
 *
 * The caller notes what an instance has before and after each change, at one time, so that a change
 * is a step and what grew in between, token by token, is a ramp. A mark is taken when a request
 * begins to decode, somewhere; at its end the mean since then says what it would have found there.
 *
 * Memory:  48 bytes an instance, all allocated by occupancy_create().
 * Threads: belongs to one thread at a time.
 * Limits:  times are not checked to grow: a step back counts as none. */
#ifndef CONDUCTOR_OCCUPANCY_H
#define CONDUCTOR_OCCUPANCY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct occupancy; /* opaque */

/* What an instance decodes at a moment. */
struct occupancy_now {
    double sequences, context_tokens; /* of all together */
    double ms;                        /* when */
};

/* One life of an instance slot, and a moment of it. */
struct occupancy_mark {
    uint32_t instance;
    uint32_t life;
    double ms, sequence_ms, context_ms;
};

MUST_USE enum status occupancy_create(uint32_t instances_max, struct occupancy **out);
void occupancy_destroy(struct occupancy *occupancy); /* NULL is allowed */
uint64_t occupancy_bytes(const struct occupancy *occupancy);

/* The slot is given to another instance, or to none: marks of it are void. */
void occupancy_begin(struct occupancy *occupancy, uint32_t instance);

void occupancy_note(struct occupancy *occupancy, uint32_t instance,
                    const struct occupancy_now *now);

struct occupancy_mark occupancy_mark(const struct occupancy *occupancy, uint32_t instance,
                                     const struct occupancy_now *now);
/* Is it the same life? */
bool occupancy_valid(const struct occupancy *occupancy, const struct occupancy_mark *mark);

/* The means since the mark; now->ms is not. False when the mark is void, or no time has passed. */
bool occupancy_mean(const struct occupancy *occupancy, const struct occupancy_mark *mark,
                    const struct occupancy_now *now, double *sequences, double *context_tokens);

#endif
