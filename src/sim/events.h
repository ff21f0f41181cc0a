/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/events.h - what will happen, in order of time.
 *
 * A binary heap. Of events at one time the one pushed first comes first, so that a run is the same
 * every time. Nothing is cancelled: an event may carry a version, and its owner drops those that
 * are out of date.
 *
 * Memory:  grows by doubling up to EVENTS_MAX.
 * Threads: one. */
#ifndef SIM_EVENTS_H
#define SIM_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { EVENTS_MAX = 1 << 27 };
#define EVENTS_END_NS UINT64_C(1000000000000000000) /* 1e9 s: no run goes on longer */
#define EVENTS_NEVER_NS (2 * EVENTS_END_NS)         /* a time from now that is beyond */

struct event {
    uint64_t time_ns;
    uint64_t order; /* private */
    uint32_t kind;  /* the owner's */
    uint32_t who;
    uint32_t version;
};

struct events {
    struct event *heap;
    uint32_t count, cap;
    uint64_t pushed, popped;
    uint64_t now_ns; /* time of the latest popped */
};

void events_init(struct events *events);
void events_fini(struct events *events);

/* Not before now_ns. STATUS_NO_MEMORY. */
MUST_USE enum status events_push(struct events *events, struct event event);

/* The earliest; false if there is none. */
bool events_pop(struct events *events, struct event *out);

#endif
