/* SPDX-License-Identifier: Apache-2.0
 *
 * base/heat.h - how often each key was asked for lately, in a fixed amount of memory.
 *
 * Heat is a count that halves every half-life. A table of sets of HEAT_WAYS entries: a newcomer
 * takes the place of the coldest of its set, so what is hot stays, and what is forgotten was cold.
 * The Conductor (of prefixes) and the store's master (of values) each have one of their own.
 *
 * Memory:  entries * 32 bytes, allocated by heat_create().
 * Threads: belongs to one thread at a time. */
#ifndef BASE_HEAT_H
#define BASE_HEAT_H

#include <stdint.h>

#include "base/key.h"
#include "base/status.h"

struct heat; /* opaque */

enum { HEAT_WAYS = 8 };

/* `entries` is a power of two, at least HEAT_WAYS. STATUS_NO_MEMORY. */
MUST_USE enum status heat_create(uint32_t entries, double half_life_ms, struct heat **out);
void heat_destroy(struct heat *heat); /* NULL is allowed */

uint64_t heat_bytes(const struct heat *heat);

/* Once more; its heat with this one, so at least 1. Time does not go backwards. */
double heat_touch(struct heat *heat, const struct block_key *key, double now_ms);

/* The same for something that counts more, or less, than once; amount > 0. */
double heat_add(struct heat *heat, const struct block_key *key, double amount, double now_ms);

/* 0 for what is not known (any more). */
double heat_of(const struct heat *heat, const struct block_key *key, double now_ms);

#endif
