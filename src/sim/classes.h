/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/classes.h - classes of requests, each with limits and a priority of its own, as the gateway
 * has them (conductor/slo.h), and which class each request of a trace is of.
 *
 * No trace names classes: each request is of one by chance, with the share of the class, by the
 * run's seed and the request's number alone, so that other settings do not move it.
 *
 * Threads: values. Limits: SLO_CLASSES_MAX classes. */
#ifndef SIM_CLASSES_H
#define SIM_CLASSES_H

#include <stdint.h>

#include "base/status.h"
#include "conductor/slo.h"

struct sim_classes {
    struct slo_classes list;       /* count 0: there are none */
    double until[SLO_CLASSES_MAX]; /* shares added up; 1 at the last */
};

/* `classes` as for slo_parse(), but blanks set the settings of a class apart as well as commas do,
 * which a list of settings on the command line cannot have. `shares` are numbers above 0 set
 * apart by blanks, one a class, in any unit; empty: equal ones. STATUS_INVALID, err says what is
 * wrong. */
MUST_USE enum status sim_classes_parse(const char *classes, const char *shares,
                                       struct sim_classes *out, struct errmsg *err);

/* Below list.count; there are classes. */
uint32_t sim_classes_draw(const struct sim_classes *classes, uint64_t seed, uint32_t who);

#endif
