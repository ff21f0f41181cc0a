/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/hits.h - do predicted hits realise? A window over the latest prefills, and an alarm
 * with hysteresis.
 *
 * Threads: a value; belongs to whoever owns its storage. All zero is a new one. */
#ifndef CONDUCTOR_HITS_H
#define CONDUCTOR_HITS_H

#include <stdbool.h>
#include <stdint.h>

#include "yolk/explain.h"

enum { HITS_FEW = 16 }; /* below so many prefills in the window nothing is concluded */

struct hit {
    uint32_t predicted, kept; /* kept <= predicted */
    enum yolk_miss why;       /* of the difference */
};

struct hits {
    struct hit window[YOLK_HITS_WINDOW];
    uint64_t count;           /* ever */
    uint64_t predicted, kept; /* sums over the window */
    uint64_t lost[YOLK_MISSES];
    bool alarm;
    uint64_t alarms;
};

/* A prefill has ended that `predicted` blocks (more than 0) were counted on for. */
void hits_add(struct hits *hits, uint32_t predicted, uint32_t kept, enum yolk_miss why);

uint32_t hits_requests(const struct hits *hits); /* in the window */
enum yolk_miss hits_why(const struct hits *hits);

#endif
