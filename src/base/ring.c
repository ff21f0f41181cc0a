/* SPDX-License-Identifier: Apache-2.0
 *
 * base/ring.c - an array of cells, each with a turn that says whose it is.
 *
 * Position p (counting forever) lives in cell p % count, on lap p / count. The cell's `turn` is
 *
 *     2 * lap        free for the producer of that lap
 *     2 * lap + 1    filled by it, for the consumer
 *
 * so that zeroed memory is an empty ring, and pages are touched only as the ring fills. A producer
 * claims a position by moving `tail` on, copies, then publishes the turn (release); the consumer
 * reads the turn (acquire), copies, and hands the cell to the next lap (release).
 *
 * Sleeping. The consumer sets `sleeping`, looks once more, and waits on it as a futex; a producer
 * publishes first and clears `sleeping` after.
 *   I1  `sleeping` is only ever exchanged, acquire and release. Exchanges of one word have one
 * order: a producer whose exchange comes later finds 1 and wakes; one whose exchange came earlier
 * is acquired by the consumer's, which then sees the item. So no wake-up is lost. */
#include "base/ring.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/futex.h"

struct ring {
    uint32_t count; /* cells; a power of two */
    uint32_t item_size;
    uint32_t cell_size;
    uint8_t *cells;

    _Alignas(64) _Atomic uint64_t tail;     /* producers: next position to claim */
    _Alignas(64) _Atomic uint64_t head;     /* written by the consumer, read by ring_count() */
    _Alignas(64) _Atomic uint32_t sleeping; /* 1 while the consumer sleeps or is about to */
    _Atomic uint32_t woken;                 /* 1 from ring_wake() to the next wait */
};

struct cell {
    _Atomic uint64_t turn;
    uint8_t item[];
};

static struct cell *cell_at(const struct ring *ring, uint64_t position)
{
    const size_t index = position & (ring->count - 1);
    return (struct cell *)(void *)(ring->cells + index * ring->cell_size);
}

static uint64_t turn_free(const struct ring *ring, uint64_t position)
{
    return 2 * (position / ring->count);
}

enum status ring_create(uint32_t items_max, uint32_t item_size, struct ring **out)
{
    ASSERT(items_max >= 1 && items_max <= RING_ITEMS_MAX);
    ASSERT(item_size >= 1 && item_size <= RING_ITEM_SIZE_MAX);

    struct ring *ring = aligned_alloc(_Alignof(struct ring), sizeof(*ring));
    if (ring == NULL) return STATUS_NO_MEMORY;
    memset(ring, 0, sizeof(*ring));
    ring->count = 1;
    while (ring->count < items_max) {
        ring->count *= 2;
    }
    ring->item_size = item_size;
    ring->cell_size = (uint32_t)(sizeof(struct cell) + (item_size + 7) / 8 * 8);
    ring->cells = calloc(ring->count, ring->cell_size);
    if (ring->cells == NULL) {
        free(ring);
        return STATUS_NO_MEMORY;
    }
    *out = ring;
    return STATUS_OK;
}

void ring_destroy(struct ring *ring)
{
    if (ring == NULL) return;
    free(ring->cells);
    free(ring);
}

static void wake_sleeper(struct ring *ring)
{
    const uint32_t slept =
        atomic_exchange_explicit(&ring->sleeping, 0, memory_order_acq_rel); /* I1 */
    if (slept == 1) futex_wake(&ring->sleeping, 1);
}

enum status ring_push(struct ring *ring, const void *item)
{
    uint64_t position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    struct cell *cell;

    for (;;) {
        cell = cell_at(ring, position);
        const uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
        const uint64_t wanted = turn_free(ring, position);
        if (turn < wanted) return STATUS_FULL; /* still holds the item of the lap before */
        if (turn > wanted) {                   /* another producer was here first */
            position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
            continue;
        }
        if (atomic_compare_exchange_weak_explicit(&ring->tail, &position, position + 1,
                                                  memory_order_relaxed, memory_order_relaxed))
            break;
    }
    memcpy(cell->item, item, ring->item_size);
    atomic_store_explicit(&cell->turn, turn_free(ring, position) + 1, memory_order_release);
    wake_sleeper(ring);
    return STATUS_OK;
}

enum status ring_pop(struct ring *ring, void *item)
{
    const uint64_t position = atomic_load_explicit(&ring->head, memory_order_relaxed);
    struct cell *cell = cell_at(ring, position);
    const uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
    const uint64_t filled = turn_free(ring, position) + 1;

    ASSERT(turn <= filled);
    if (turn != filled) return STATUS_AGAIN;
    memcpy(item, cell->item, ring->item_size);
    atomic_store_explicit(&cell->turn, filled + 1, memory_order_release);
    atomic_store_explicit(&ring->head, position + 1, memory_order_relaxed);
    return STATUS_OK;
}

static bool has_item(const struct ring *ring)
{
    const uint64_t position = atomic_load_explicit(&ring->head, memory_order_relaxed);
    struct cell *cell = cell_at(ring, position);
    const uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
    return turn == turn_free(ring, position) + 1;
}

void ring_wait(struct ring *ring, uint64_t timeout_ns)
{
    (void)atomic_exchange_explicit(&ring->sleeping, 1, memory_order_acq_rel); /* I1 */
    const bool woken = atomic_exchange_explicit(&ring->woken, 0, memory_order_acquire) == 1;
    if (!woken && !has_item(ring) && timeout_ns > 0) futex_wait(&ring->sleeping, 1, timeout_ns);
    (void)atomic_exchange_explicit(&ring->sleeping, 0, memory_order_acq_rel); /* I1 */
}

void ring_wake(struct ring *ring)
{
    atomic_store_explicit(&ring->woken, 1, memory_order_release);
    wake_sleeper(ring);
}

uint32_t ring_count(const struct ring *ring)
{
    const uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    const uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    return tail > head ? (uint32_t)(tail - head) : 0;
}
