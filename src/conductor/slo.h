/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/slo.h - classes of requests, each with limits and a priority of its own.
 *
 *     interactive=ttft:2s,tbt:50ms,priority:2;batch=ttft:none,tbt:none,priority:-1
 *
 * Classes are set apart by `;`, their settings by `,`. A duration is a number with us, ms, s or m;
 * `none` lifts a limit; a limit that is not named is the general one, a priority that is not is 0.
 * A request names its class in a header. The class `default`, if there is one, takes the requests
 * that name none, or one that does not exist.
 *
 * Threads: plain data.
 * Limits:  SLO_CLASSES_MAX classes, names of letters, digits, `-`, `_` and `.`. */
#ifndef CONDUCTOR_SLO_H
#define CONDUCTOR_SLO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { SLO_CLASSES_MAX = 16, SLO_NAME_SIZE = 32 };

struct slo_class {
    char name[SLO_NAME_SIZE];
    double ttft_ms, tbt_ms; /* 0: the general limit; INFINITY: none */
    int priority;           /* YOLK_PRIORITY_MIN..YOLK_PRIORITY_MAX */
};

struct slo_classes {
    uint32_t count;
    struct slo_class classes[SLO_CLASSES_MAX];
};

/* `text` may be empty or NULL: no classes. STATUS_INVALID: err says what is wrong with which class,
 * and *out is as it was. */
MUST_USE enum status slo_parse(const char *text, struct slo_classes *out, struct errmsg *err);

/* The class of this name, or `default`, or NULL: the general limits. `name` may be NULL. */
const struct slo_class *slo_find(const struct slo_classes *classes, const char *name);

#endif
