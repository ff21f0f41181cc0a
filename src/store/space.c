/* SPDX-License-Identifier: Apache-2.0
 *
 * store/space.c - a treap of free ranges, by address, where each node knows the largest range below
 * it.
 *
 * Invariants
 *   I1  Free ranges do not overlap or touch, except across the border of two extents.
 *   I2  `largest` of a node is the maximum of its own size and of its children's.
 *   I3  total == used + the sum of free ranges. */
#include "store/space.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/rng.h"

struct range {
    struct range *left;
    struct range *right;
    uint64_t address;
    uint64_t size;
    uint64_t largest;
    uint64_t priority; /* of the heap order: a function of a counter, so runs repeat */
};

struct extent {
    uint64_t address;
    uint64_t size;
};

struct space {
    struct range *root;
    struct extent extents[SPACE_EXTENTS_MAX];
    uint32_t extents_count;
    uint64_t total;
    uint64_t used;
    uint64_t counter;
};

struct space *space_create(void)
{
    return calloc(1, sizeof(struct space));
}

/* Depth is logarithmic with overwhelming probability: priorities are not a peer's to choose. */
static void range_free_all(struct range *range)
{
    if (range == NULL) return;
    range_free_all(range->left);
    range_free_all(range->right);
    free(range);
}

void space_destroy(struct space *space)
{
    if (space == NULL) return;
    range_free_all(space->root);
    free(space);
}

/* ---- treap ---- */

static uint64_t round_up(uint64_t size)
{
    return (size + SPACE_GRANULE - 1) / SPACE_GRANULE * SPACE_GRANULE;
}

static void range_update(struct range *range)
{
    range->largest = range->size;
    if (range->left != NULL && range->left->largest > range->largest) {
        range->largest = range->left->largest;
    }
    if (range->right != NULL && range->right->largest > range->largest) {
        range->largest = range->right->largest;
    }
}

/* Splits by address: *low gets those below. */
static void range_split(struct range *range, uint64_t address, struct range **low,
                        struct range **high)
{
    if (range == NULL) {
        *low = NULL;
        *high = NULL;
    } else if (range->address < address) {
        range_split(range->right, address, &range->right, high);
        range_update(range);
        *low = range;
    } else {
        range_split(range->left, address, low, &range->left);
        range_update(range);
        *high = range;
    }
}

/* Every address in `low` is below every one in `high`. */
static struct range *range_merge(struct range *low, struct range *high)
{
    if (low == NULL) return high;
    if (high == NULL) return low;
    if (low->priority >= high->priority) {
        low->right = range_merge(low->right, high);
        range_update(low);
        return low;
    }
    high->left = range_merge(low, high->left);
    range_update(high);
    return high;
}

static struct range *range_last(struct range *range)
{
    while (range != NULL && range->right != NULL)
        range = range->right;
    return range;
}

static struct range *range_first(struct range *range)
{
    while (range != NULL && range->left != NULL)
        range = range->left;
    return range;
}

/* Takes the range at `address` out; the caller owns it. NULL if there is none. */
static struct range *range_take(struct space *space, uint64_t address)
{
    struct range *low;
    struct range *middle;
    struct range *high;
    range_split(space->root, address, &low, &high);
    range_split(high, address + 1, &middle, &high);
    ASSERT(middle == NULL || (middle->left == NULL && middle->right == NULL));
    space->root = range_merge(low, high);
    return middle;
}

static void range_put(struct space *space, struct range *range)
{
    struct range *low;
    struct range *high;
    range->left = NULL;
    range->right = NULL;
    range_update(range);
    range_split(space->root, range->address, &low, &high);
    space->root = range_merge(range_merge(low, range), high);
}

static struct range *range_new(struct space *space, uint64_t address, uint64_t size)
{
    struct range *range = calloc(1, sizeof(*range));
    if (range == NULL) return NULL;
    range->address = address;
    range->size = size;
    range->priority = rng_counter(1, space->counter++);
    return range;
}

/* ---- extents ---- */

static const struct extent *extent_of(const struct space *space, uint64_t address)
{
    for (uint32_t i = 0; i < space->extents_count; i++) {
        const struct extent *extent = &space->extents[i];
        if (address >= extent->address && address - extent->address < extent->size) return extent;
    }
    return NULL;
}

enum status space_add(struct space *space, uint64_t address, uint64_t size)
{
    if (size == 0 || size % SPACE_GRANULE != 0 || address % SPACE_GRANULE != 0) {
        return STATUS_INVALID;
    }
    if (address > UINT64_MAX - size) return STATUS_INVALID;
    for (uint32_t i = 0; i < space->extents_count; i++) {
        const struct extent *extent = &space->extents[i];
        if (extent->address == address && extent->size == size) return STATUS_EXISTS;
        if (address < extent->address + extent->size && extent->address < address + size) {
            return STATUS_INVALID;
        }
    }
    if (space->extents_count == SPACE_EXTENTS_MAX) return STATUS_FULL;
    struct range *range = range_new(space, address, size);
    if (range == NULL) return STATUS_FULL;
    space->extents[space->extents_count++] = (struct extent){ address, size };
    space->total += size;
    range_put(space, range);
    return STATUS_OK;
}

/* ---- ranges ---- */

/* Cuts `need` bytes off the front of the leftmost range that has them; there is one. What is left
 * of it keeps its place in the tree, since it ends where it did. NULL if nothing is left: the
 * caller takes it out. */
static struct range *range_carve(struct range *range, uint64_t need, uint64_t *address)
{
    struct range *carved;
    ASSERT(range != NULL && range->largest >= need); /* I2 says on which side it is */
    if (range->left != NULL && range->left->largest >= need) {
        carved = range_carve(range->left, need, address);
    } else if (range->size < need) {
        carved = range_carve(range->right, need, address);
    } else {
        *address = range->address;
        carved = range->size == need ? NULL : range;
        if (carved != NULL) {
            range->address += need;
            range->size -= need;
        }
    }
    if (carved != NULL) range_update(range);
    return carved;
}

enum status space_alloc(struct space *space, uint64_t size, uint64_t *address)
{
    ASSERT(size > 0);
    const uint64_t need = round_up(size);

    if (space->root == NULL || need < size || space->root->largest < need) return STATUS_FULL;
    if (range_carve(space->root, need, address) == NULL) free(range_take(space, *address));
    space->used += need;
    return STATUS_OK;
}

enum status space_reserve(struct space *space, uint64_t address, uint64_t size)
{
    ASSERT(size > 0);
    const uint64_t need = round_up(size);
    const struct extent *extent = extent_of(space, address);
    struct range *low;
    struct range *high;

    if (extent == NULL || address % SPACE_GRANULE != 0) return STATUS_NOT_FOUND;
    if (need < size || need > extent->size - (address - extent->address)) return STATUS_NOT_FOUND;
    range_split(space->root, address + 1, &low, &high);
    struct range *range = range_last(low);
    const bool fits = range != NULL && range->address + range->size >= address + need;
    space->root = range_merge(low, high);
    if (!fits) return STATUS_BUSY;

    const uint64_t before = address - range->address;
    const uint64_t after = range->size - before - need;
    struct range *tail = NULL;
    if (before > 0 && after > 0) {
        tail = range_new(space, address + need, after);
        if (tail == NULL) return STATUS_BUSY; /* out of memory: it stays free, and is not used */
    }
    range = range_take(space, range->address);
    ASSERT(range != NULL);
    if (before > 0) {
        range->size = before;
        range_put(space, range);
        if (tail != NULL) range_put(space, tail);
    } else if (after > 0) {
        range->address = address + need;
        range->size = after;
        range_put(space, range);
    } else {
        free(range);
    }
    space->used += need;
    return STATUS_OK;
}

void space_free(struct space *space, uint64_t address, uint64_t size)
{
    const uint64_t need = round_up(size);
    const struct extent *extent = extent_of(space, address);
    struct range *low;
    struct range *high;
    ASSERT(extent != NULL && need <= extent->size - (address - extent->address));
    ASSERT(space->used >= need);

    range_split(space->root, address, &low, &high);
    struct range *before = range_last(low);
    struct range *after = range_first(high);
    ASSERT(before == NULL || before->address + before->size <= address); /* I1: was not free */
    ASSERT(after == NULL || address + need <= after->address);
    const bool joins_before = before != NULL && before->address + before->size == address &&
                              before->address >= extent->address;
    const bool joins_after = after != NULL && address + need == after->address &&
                             after->address - extent->address < extent->size;
    const uint64_t first = joins_before ? before->address : address;
    const uint64_t last = joins_after ? after->address + after->size : address + need;
    const uint64_t after_address = joins_after ? after->address : 0;
    space->root = range_merge(low, high);
    space->used -= need;

    struct range *range = joins_before ? range_take(space, first) : NULL;
    if (joins_after) {
        struct range *joined = range_take(space, after_address);
        if (range == NULL) {
            range = joined;
        } else {
            free(joined);
        }
    }
    if (range == NULL) range = range_new(space, first, last - first);
    if (range == NULL) { /* no memory to remember it: it stays used */
        space->used += need;
        return;
    }
    range->address = first;
    range->size = last - first;
    range_put(space, range);
}

uint64_t space_total(const struct space *space)
{
    return space->total;
}

uint64_t space_used(const struct space *space)
{
    return space->used;
}

uint64_t space_extent_max(const struct space *space)
{
    uint64_t max = 0;
    for (uint32_t i = 0; i < space->extents_count; i++) {
        if (space->extents[i].size > max) max = space->extents[i].size;
    }
    return max;
}

static uint64_t range_check(const struct range *range, uint64_t *end)
{
    if (range == NULL) return 0;
    uint64_t sum = range_check(range->left, end);
    ASSERT(range->size > 0 && range->address >= *end); /* I1 */
    *end = range->address + range->size;
    sum += range->size;
    sum += range_check(range->right, end);
    ASSERT(range->largest >= range->size && range->largest <= sum); /* I2 */
    return sum;
}

void space_check(const struct space *space)
{
    uint64_t end = 0;
    const uint64_t free_sum = range_check(space->root, &end);
    ASSERT(free_sum + space->used == space->total); /* I3 */
}
