/* SPDX-License-Identifier: Apache-2.0 */
#include "store/traffic.h"

#include <math.h>

#include "base/env.h"

#define LN2 0.69314718055994531

static double left_of(const struct traffic *traffic, uint64_t now_ns)
{
    if (now_ns <= traffic->at_ns) return traffic->bytes;
    const double ms = (double)(now_ns - traffic->at_ns) / ENV_NS_PER_MS;
    return traffic->bytes * exp2(-ms / TRAFFIC_HALF_LIFE_MS);
}

void traffic_add(struct traffic *traffic, uint64_t now_ns, uint64_t bytes)
{
    traffic->bytes = left_of(traffic, now_ns) + (double)bytes;
    traffic->at_ns = now_ns;
}

uint64_t traffic_rate(const struct traffic *traffic, uint64_t now_ns)
{
    return (uint64_t)(left_of(traffic, now_ns) * LN2 * 1000 / TRAFFIC_HALF_LIFE_MS);
}
