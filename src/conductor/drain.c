/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/drain.c - a ring of times per instance: departure number n lies at n % DRAIN_KEPT. */
#include "conductor/drain.h"

#include <math.h>
#include <stdlib.h>

#include "base/assert.h"

struct queue {
    uint64_t left; /* departures, ever; they are numbered from 1 */
    uint32_t life;
    double times[DRAIN_KEPT];
};

struct drain {
    uint32_t instances_max;
    struct queue *queues;
};

enum status drain_create(uint32_t instances_max, struct drain **out)
{
    struct drain *drain = calloc(1, sizeof(*drain));

    if (drain == NULL) return STATUS_NO_MEMORY;
    drain->instances_max = instances_max;
    drain->queues = calloc(instances_max, sizeof(*drain->queues));
    if (drain->queues == NULL) {
        free(drain);
        return STATUS_NO_MEMORY;
    }
    *out = drain;
    return STATUS_OK;
}

void drain_destroy(struct drain *drain)
{
    if (drain == NULL) return;
    free(drain->queues);
    free(drain);
}

uint64_t drain_bytes(const struct drain *drain)
{
    return sizeof(*drain) + (uint64_t)drain->instances_max * sizeof(*drain->queues);
}

void drain_begin(struct drain *drain, uint32_t instance)
{
    ASSERT(instance < drain->instances_max);
    struct queue *queue = &drain->queues[instance];

    *queue = (struct queue){ .life = queue->life + 1 };
}

void drain_left(struct drain *drain, uint32_t instance, double now_ms)
{
    ASSERT(instance < drain->instances_max);
    struct queue *queue = &drain->queues[instance];

    queue->left++;
    queue->times[queue->left % DRAIN_KEPT] = now_ms;
}

struct drain_place drain_join(const struct drain *drain, uint32_t instance, uint32_t queued)
{
    ASSERT(instance < drain->instances_max);
    const struct queue *queue = &drain->queues[instance];

    return (struct drain_place){ instance, queue->life, queued > 0 ? queue->left + queued : 0 };
}

double drain_free_ms(const struct drain *drain, const struct drain_place *place, double joined_ms)
{
    ASSERT(place->instance < drain->instances_max);
    const struct queue *queue = &drain->queues[place->instance];

    if (queue->life != place->life || queue->left < place->number) return INFINITY;
    if (place->number == 0) return joined_ms;
    const uint64_t oldest = queue->left >= DRAIN_KEPT ? queue->left - DRAIN_KEPT + 1 : 1;
    const uint64_t number = place->number > oldest ? place->number : oldest;
    const double at = queue->times[number % DRAIN_KEPT];
    return at > joined_ms ? at : joined_ms;
}
