/* SPDX-License-Identifier: Apache-2.0
 *
 * store/traffic.h - bytes a second that somebody has moved lately: what was counted fades with a
 * half-life of TRAFFIC_HALF_LIFE_MS, so that a beat that is lost takes nothing from the next one.
 * Threads: one. */
#ifndef STORE_TRAFFIC_H
#define STORE_TRAFFIC_H

#include <stdint.h>

enum { TRAFFIC_HALF_LIFE_MS = 4000 };

struct traffic {  /* all zero at first */
    double bytes; /* what is left of them at at_ns */
    uint64_t at_ns;
};

void traffic_add(struct traffic *traffic, uint64_t now_ns, uint64_t bytes);
uint64_t traffic_rate(const struct traffic *traffic, uint64_t now_ns); /* bytes a second */

#endif
