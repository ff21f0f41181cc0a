/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/spread.h - how values are spread: mean, extremes and percentiles.
 *
 * A percentile is a value that was there: that of rank floor(share * count), counted from 0, and
 * the largest for a share of 1.
 *
 * Threads: none of its own. */
#ifndef SIM_SPREAD_H
#define SIM_SPREAD_H

#include <stdint.h>

struct sim_spread {
    double mean, min, p10, p25, p50, p75, p90, p95, p99, max;
};

/* Sorts the values. All zero when there are none. */
struct sim_spread sim_spread_of(double *values, uint32_t count);

/* Ascending; no value is NaN. */
void sim_spread_sort(double *values, uint32_t count);

/* Of sorted values, at least one; share in 0..1. */
double sim_spread_percentile(const double *sorted, uint32_t count, double share);

#endif
