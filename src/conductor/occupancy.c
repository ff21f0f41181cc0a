/* SPDX-License-Identifier: Apache-2.0 */
#include "conductor/occupancy.h"

#include <stdlib.h>

#include "base/assert.h"

struct integral {
    uint32_t life;
    struct occupancy_now last;
    double sequence_ms, context_ms; /* up to last.ms */
};

struct occupancy {
    uint32_t instances_max;
    struct integral *integrals;
};

enum status occupancy_create(uint32_t instances_max, struct occupancy **out)
{
    struct occupancy *o = calloc(1, sizeof(*o));

    if (o == NULL) return STATUS_NO_MEMORY;
    o->instances_max = instances_max;
    o->integrals = calloc(instances_max, sizeof(*o->integrals));
    if (o->integrals == NULL) {
        free(o);
        return STATUS_NO_MEMORY;
    }
    *out = o;
    return STATUS_OK;
}

void occupancy_destroy(struct occupancy *o)
{
    if (o == NULL) return;
    free(o->integrals);
    free(o);
}

uint64_t occupancy_bytes(const struct occupancy *o)
{
    return sizeof(*o) + o->instances_max * sizeof(*o->integrals);
}

void occupancy_begin(struct occupancy *o, uint32_t instance)
{
    ASSERT(instance < o->instances_max);
    o->integrals[instance] = (struct integral){ .life = o->integrals[instance].life + 1 };
}

/* As it is at `now`: straight lines from what was noted last. */
static struct integral advanced(const struct occupancy *o, uint32_t instance,
                                const struct occupancy_now *now)
{
    ASSERT(instance < o->instances_max);
    ASSERT(now->sequences >= 0 && now->context_tokens >= 0);
    struct integral at = o->integrals[instance];
    const double passed = now->ms > at.last.ms ? now->ms - at.last.ms : 0;

    at.sequence_ms += passed * (at.last.sequences + now->sequences) / 2;
    at.context_ms += passed * (at.last.context_tokens + now->context_tokens) / 2;
    at.last = *now;
    return at;
}

void occupancy_note(struct occupancy *o, uint32_t instance, const struct occupancy_now *now)
{
    o->integrals[instance] = advanced(o, instance, now);
}

struct occupancy_mark occupancy_mark(const struct occupancy *o, uint32_t instance,
                                     const struct occupancy_now *now)
{
    const struct integral at = advanced(o, instance, now);
    return (struct occupancy_mark){ instance, at.life, now->ms, at.sequence_ms, at.context_ms };
}

bool occupancy_valid(const struct occupancy *o, const struct occupancy_mark *mark)
{
    ASSERT(mark->instance < o->instances_max);
    return o->integrals[mark->instance].life == mark->life;
}

bool occupancy_mean(const struct occupancy *o, const struct occupancy_mark *mark,
                    const struct occupancy_now *now, double *sequences, double *context_tokens)
{
    if (!occupancy_valid(o, mark) || now->ms <= mark->ms) return false;
    const struct integral at = advanced(o, mark->instance, now);
    const double passed = now->ms - mark->ms;

    *sequences = (at.sequence_ms - mark->sequence_ms) / passed;
    *context_tokens = (at.context_ms - mark->context_ms) / passed;
    return true;
}
