/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_netns.h - two network namespaces joined by wires of a given speed: two hosts for a test
 * or a bench, on a machine that allows it (root, and the programs `ip` and `tc`).
 *
 * Wire i joins 10.77.i.1 of side 0 with 10.77.i.2 of side 1, each direction shaped by tc's token
 * bucket. A thread enters a side; what it opens from then on is there.
 *
 * Threads: any; a namespace is entered by the calling thread alone. */
#ifndef BASE_ENV_NETNS_H
#define BASE_ENV_NETNS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { ENV_NETNS_WIRES_MAX = 4 };

struct env_netns; /* opaque */

/* `mbit_per_s` of each wire, 0: unshaped. STATUS_UNSUPPORTED, and err says why, where it is not
 * allowed or a program is missing. */
MUST_USE enum status env_netns_create(uint32_t wires, uint32_t mbit_per_s, struct env_netns **out,
                                      struct errmsg *err);

/* The calling thread is on that side from now on. */
MUST_USE enum status env_netns_enter(const struct env_netns *netns, int side);

/* Cuts wire `at`, silently for side 0, or joins it again. */
MUST_USE enum status env_netns_set_wire(const struct env_netns *netns, uint32_t at, bool up);

void env_netns_destroy(struct env_netns *netns); /* NULL allowed */

#endif
