/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/events.h"

#include <stdlib.h>

#include "base/assert.h"

void events_init(struct events *events)
{
    *events = (struct events){ .heap = NULL };
}

void events_fini(struct events *events)
{
    free(events->heap);
    events->heap = NULL;
}

static bool before(const struct event *a, const struct event *b)
{
    if (a->time_ns != b->time_ns) return a->time_ns < b->time_ns;
    return a->order < b->order;
}

static enum status grow(struct events *events)
{
    if (events->count < events->cap) return STATUS_OK;
    if (events->cap >= EVENTS_MAX) return STATUS_NO_MEMORY;
    const uint32_t cap = events->cap == 0 ? 1024 : events->cap * 2;
    struct event *heap = realloc(events->heap, cap * sizeof(*heap));
    if (heap == NULL) return STATUS_NO_MEMORY;
    events->heap = heap;
    events->cap = cap;
    return STATUS_OK;
}

enum status events_push(struct events *events, struct event event)
{
    ASSERT(event.time_ns >= events->now_ns);
    const enum status status = grow(events);
    if (status != STATUS_OK) return status;
    uint32_t at = events->count++;

    event.order = events->pushed++;
    while (at > 0 && before(&event, &events->heap[(at - 1) / 2])) {
        events->heap[at] = events->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    events->heap[at] = event;
    return STATUS_OK;
}

bool events_pop(struct events *events, struct event *out)
{
    if (events->count == 0) return false;
    struct event *heap = events->heap;
    *out = heap[0];
    const struct event last = heap[--events->count];
    uint32_t at = 0;

    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= events->count) break;
        if (child + 1 < events->count && before(&heap[child + 1], &heap[child])) child++;
        if (!before(&heap[child], &last)) break;
        heap[at] = heap[child];
        at = child;
    }
    if (events->count > 0) heap[at] = last;
    ASSERT(out->time_ns >= events->now_ns);
    events->now_ns = out->time_ns;
    events->popped++;
    return true;
}
