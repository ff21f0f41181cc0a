/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/ghost.h - names of things that are gone, as many as fit: tells "was here" from "never
 * was".
 *
 * A set of 64-bit names in which the longest untouched make room. It answers from 32 bits of each
 * name inside a bucket of 16, so that a stranger is taken for somebody known once in about 2^28
 * questions, and somebody known is forgotten when 16 younger names have come to his bucket. Both
 * only colour an explanation: nothing is decided by a ghost.
 *
 * Memory:  4 bytes a name, all allocated by ghost_create().
 * Threads: belongs to one thread at a time. */
#ifndef CONDUCTOR_GHOST_H
#define CONDUCTOR_GHOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { GHOST_NAMES_MAX = 1 << 24 };

struct ghost; /* opaque */

/* Room for at least so many names (1..GHOST_NAMES_MAX), rounded up to a power of two. */
MUST_USE enum status ghost_create(uint32_t names, struct ghost **out);
void ghost_destroy(struct ghost *ghost); /* NULL is allowed */
uint64_t ghost_bytes(const struct ghost *ghost);

/* Names are taken as they are: they should be hashes. */
void ghost_add(struct ghost *ghost, uint64_t name);
bool ghost_has(const struct ghost *ghost, uint64_t name);

#endif
