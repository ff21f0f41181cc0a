/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/spread.h"

#include <stdlib.h>

#include "base/assert.h"

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

void sim_spread_sort(double *values, uint32_t count)
{
    if (count > 0) qsort(values, count, sizeof(*values), compare);
}

double sim_spread_percentile(const double *sorted, uint32_t count, double share)
{
    ASSERT(count > 0 && share >= 0 && share <= 1);
    const uint32_t index = (uint32_t)(share * count);
    return sorted[index < count ? index : count - 1];
}

struct sim_spread sim_spread_of(double *values, uint32_t count)
{
    double sum = 0;

    if (count == 0) return (struct sim_spread){ 0 };
    sim_spread_sort(values, count);
    for (uint32_t i = 0; i < count; i++)
        sum += values[i];
    return (struct sim_spread){
        .mean = sum / count,
        .min = values[0],
        .p10 = sim_spread_percentile(values, count, 0.10),
        .p25 = sim_spread_percentile(values, count, 0.25),
        .p50 = sim_spread_percentile(values, count, 0.50),
        .p75 = sim_spread_percentile(values, count, 0.75),
        .p90 = sim_spread_percentile(values, count, 0.90),
        .p95 = sim_spread_percentile(values, count, 0.95),
        .p99 = sim_spread_percentile(values, count, 0.99),
        .max = values[count - 1],
    };
}
