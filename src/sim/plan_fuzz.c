/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/plan_fuzz.c - a plan file from anywhere: refused with a reason and nothing changed, or a grid
 * of which values ascend and no step up costs less. Too large a grid is the search's to refuse. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sim/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_choice(const struct plan_space *space, enum plan_choice choice)
{
    const uint32_t count = space->counts[choice];

    ASSERT(count >= 1 && count <= PLAN_VALUES_MAX);
    for (uint32_t i = 0; i < count; i++) {
        const double value = space->values[choice][i];
        ASSERT(isfinite(value) && value >= 0);
        ASSERT(i == 0 || value > space->values[choice][i - 1]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct plan_space space, before;
    struct errmsg err = { "" };

    plan_space_init(&space);
    before = space;
    if (plan_space_parse("fuzz", (const char *)data, len, &space, &err) != STATUS_OK) {
        ASSERT(err.text[0] != '\0');
        ASSERT(memcmp(&space, &before, sizeof(space)) == 0);
        return 0;
    }
    struct plan_config least = { 0 }, most = { 0 };
    for (int choice = 0; choice < PLAN_CHOICES; choice++) {
        check_choice(&space, (enum plan_choice)choice);
        most.steps[choice] = space.counts[choice] - 1;
    }
    const double cost = plan_cost(&space, &least);
    ASSERT(isfinite(cost) && cost >= 0 && plan_cost(&space, &most) >= cost);
    return 0;
}
