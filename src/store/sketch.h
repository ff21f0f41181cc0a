/* SPDX-License-Identifier: Apache-2.0
 *
 * store/sketch.h - how often a key was asked for lately, roughly, in a fixed number of bytes.
 *
 * A count-min sketch of small saturating counters. After `window` additions all are halved, so that
 * what was popular long ago is forgotten. An estimate is never below the truth since then (up to
 * SKETCH_COUNT_MAX), and rarely far above it.
 *
 * Memory:  4 bytes for each expected key, allocated at creation.
 * Threads: one. */
#ifndef STORE_SKETCH_H
#define STORE_SKETCH_H

#include <stdint.h>

#include "base/key.h"
#include "base/status.h"

enum { SKETCH_COUNT_MAX = 255, SKETCH_KEYS_MAX = 1 << 24 };

struct sketch; /* opaque */

/* `keys`: how many different ones are expected; more make it less exact. `window` additions are
 * remembered in full. STATUS_NO_MEMORY. */
MUST_USE enum status sketch_create(uint32_t keys, uint32_t window, uint64_t seed,
                                   struct sketch **out);
void sketch_destroy(struct sketch *sketch); /* NULL is allowed */

void sketch_add(struct sketch *sketch, const struct block_key *key);
uint32_t sketch_estimate(const struct sketch *sketch, const struct block_key *key);

#endif
