/* SPDX-License-Identifier: Apache-2.0 */
#include "conductor/fair.h"

#include "base/assert.h"

/* Its slot, a free one, or, when all are taken by others, one that it has to share. */
static uint32_t slot_of(const struct fair *fair, uint64_t tenant)
{
    uint32_t free_slot = FAIR_TENANTS;

    for (uint32_t i = 0; i < FAIR_TENANTS; i++) {
        if (fair->slots[i].end <= fair->now) {
            free_slot = i;
        } else if (fair->slots[i].tenant == tenant) {
            return i;
        }
    }
    return free_slot < FAIR_TENANTS ? free_slot : (uint32_t)(tenant % FAIR_TENANTS);
}

uint64_t fair_stamp(struct fair *fair, uint64_t tenant, uint32_t tokens)
{
    const uint32_t i = slot_of(fair, tenant);
    const uint64_t end = fair->slots[i].end;
    const uint64_t stamp = end > fair->now ? end : fair->now;

    ASSERT(stamp < UINT64_MAX - tokens);
    if (end <= fair->now) fair->slots[i].tenant = tenant;
    fair->slots[i].end = stamp + tokens;
    return stamp;
}

void fair_served(struct fair *fair, uint64_t stamp)
{
    if (stamp > fair->now) fair->now = stamp;
}
