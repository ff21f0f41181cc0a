/* SPDX-License-Identifier: Apache-2.0
 *
 * base/ring.h - a bounded queue of small messages between threads: many producers, one consumer.
 *
 * Items are copied in and out. Nothing blocks a producer: a full ring is an answer. The consumer
 * may sleep in ring_wait(); a loop thread instead gets an env_post() from the producer.
 *
 * Memory:   allocated by ring_create(); nothing allocates afterwards. Pages are touched as used.
 * Threads:  ring_push() and ring_wake() from any thread; ring_pop() and ring_wait() from one thread
 *           at a time. What a producer wrote before ring_push() is visible after ring_pop().
 * Order:    items of one producer keep their order.
 * Limits:   1..RING_ITEMS_MAX items of 1..RING_ITEM_SIZE_MAX bytes. */
#ifndef BASE_RING_H
#define BASE_RING_H

#include <stdint.h>

#include "base/status.h"

enum { RING_ITEMS_MAX = 1 << 20, RING_ITEM_SIZE_MAX = 4096 };

struct ring; /* opaque */

/* `items_max` is rounded up to a power of two. STATUS_NO_MEMORY on failure, *out untouched. */
MUST_USE enum status ring_create(uint32_t items_max, uint32_t item_size, struct ring **out);

/* Items still inside are dropped. NULL is allowed. */
void ring_destroy(struct ring *ring);

/* Copies item_size bytes in. STATUS_FULL if there is no room. */
MUST_USE enum status ring_push(struct ring *ring, const void *item);

/* Copies the oldest item out. STATUS_AGAIN if there is none. */
MUST_USE enum status ring_pop(struct ring *ring, void *item);

/* Sleeps until an item is there, ring_wake() was called since the last wait, or `timeout_ns` have
 * passed (UINT64_MAX: no limit). May return early: pop and look. */
void ring_wait(struct ring *ring, uint64_t timeout_ns);
void ring_wake(struct ring *ring);

/* How many items are inside; exact only when nobody pushes or pops. */
uint32_t ring_count(const struct ring *ring);

#endif
