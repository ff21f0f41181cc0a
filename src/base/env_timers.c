/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_timers.c - a binary heap of pointers to timers that live in what they time.
 *
 *   I1  heap[i]->heap_index == i for every i in 1..count; every other timer's is 0.
 *   I2  a parent is due before its children: by deadline, then by the order of setting. */
#include <stdlib.h>

#include "base/assert.h"
#include "base/env_int.h"

enum { CAPACITY_FIRST = 64 };

void env_timers_init(struct env_timers *timers, uint32_t timers_max)
{
    *timers = (struct env_timers){ .timers_max = timers_max };
}

void env_timers_fini(struct env_timers *timers)
{
    free(timers->heap); /* timers still armed are not touched: their owners may be gone */
    *timers = (struct env_timers){ 0 };
}

static bool before(const struct env_timer *a, const struct env_timer *b)
{
    if (a->deadline_ns != b->deadline_ns) return a->deadline_ns < b->deadline_ns;
    return a->order < b->order;
}

static void place(struct env_timers *timers, struct env_timer *timer, uint32_t index)
{
    timers->heap[index] = timer;
    timer->heap_index = index;
}

static void sift_up(struct env_timers *timers, struct env_timer *timer, uint32_t index)
{
    while (index > 1 && before(timer, timers->heap[index / 2])) {
        place(timers, timers->heap[index / 2], index);
        index /= 2;
    }
    place(timers, timer, index);
}

static void sift_down(struct env_timers *timers, struct env_timer *timer, uint32_t index)
{
    for (;;) {
        uint32_t child = index * 2;
        if (child > timers->count) break;
        if (child < timers->count && before(timers->heap[child + 1], timers->heap[child])) child++;
        if (!before(timers->heap[child], timer)) break;
        place(timers, timers->heap[child], index);
        index = child;
    }
    place(timers, timer, index);
}

/* Arming returns nothing, so there is no one to tell: a heap this large is a leak of timers. */
static void grow(struct env_timers *timers)
{
    ASSERT(timers->count < timers->timers_max);
    if (timers->count + 1 < timers->capacity) return;
    const uint32_t capacity = timers->capacity == 0 ? CAPACITY_FIRST : timers->capacity * 2;
    struct env_timer **heap = realloc(timers->heap, capacity * sizeof(struct env_timer *));
    ASSERT(heap != NULL);
    timers->heap = heap;
    timers->capacity = capacity;
}

void env_timers_set(struct env_timers *timers, struct env_timer *timer, uint64_t deadline_ns,
                    uint64_t floor_ns)
{
    if (timer->heap_index != 0) env_timers_cancel(timers, timer);
    grow(timers);
    timer->deadline_ns = deadline_ns < floor_ns ? floor_ns : deadline_ns;
    timer->order = timers->order++;
    sift_up(timers, timer, ++timers->count);
}

void env_timers_cancel(struct env_timers *timers, struct env_timer *timer)
{
    const uint32_t index = timer->heap_index;

    ASSERT(index >= 1 && index <= timers->count);
    ASSERT(timers->heap[index] == timer); /* I1; also catches a timer of another env */
    struct env_timer *last = timers->heap[timers->count--];
    timer->heap_index = 0;
    if (last == timer) return;
    if (index > 1 && before(last, timers->heap[index / 2]))
        sift_up(timers, last, index);
    else
        sift_down(timers, last, index);
}

struct env_timer *env_timers_peek(const struct env_timers *timers)
{
    return timers->count > 0 ? timers->heap[1] : NULL;
}

struct env_timer *env_timers_take_due(struct env_timers *timers, uint64_t now_ns, uint64_t order)
{
    struct env_timer *timer = env_timers_peek(timers);

    if (timer == NULL || timer->deadline_ns > now_ns || timer->order >= order) return NULL;
    env_timers_cancel(timers, timer);
    return timer;
}
