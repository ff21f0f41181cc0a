/* SPDX-License-Identifier: Apache-2.0
 *
 * store/order.c - a list for LRU, a binary heap for the others.
 *
 * A heap is walked by taking its head out and setting it aside; order_rewind() puts back what was
 * set aside. A score is (what policies compare, tie), the smaller goes first.
 *
 * Invariants
 *   I1  heap[i] is not smaller than its parent heap[(i - 1) / 2], and knows its place.
 *   I2  Outside of a walk nothing is aside. */
#include "store/order.h"

#include <stdlib.h>

#include "base/assert.h"

/* Scores are whole numbers; a cost per byte is counted in this fraction. */
enum { COST_SCALE_BITS = 20, STAMP_BITS = 40 };

struct order {
    enum order_policy policy;
    struct order_node *head; /* LRU: used longest ago */
    struct order_node *tail;
    struct order_node **heap;
    uint32_t count;
    uint32_t capacity;
    struct order_node **aside;
    uint32_t aside_count;
    uint32_t aside_capacity;
    uint64_t floor; /* score of the last one that was taken */
    uint64_t stamp; /* counts uses */
};

struct order *order_create(enum order_policy policy)
{
    struct order *order = calloc(1, sizeof(*order));
    if (order == NULL) return NULL;
    order->policy = policy;
    return order;
}

void order_destroy(struct order *order)
{
    if (order == NULL) return;
    free(order->heap);
    free(order->aside);
    free(order);
}

bool order_has(const struct order_node *node)
{
    return node->place != 0;
}

/* ---- the list ---- */

static void list_append(struct order *order, struct order_node *node)
{
    node->prev = order->tail;
    node->next = NULL;
    if (order->tail == NULL) {
        order->head = node;
    } else {
        order->tail->next = node;
    }
    order->tail = node;
    node->place = 1;
}

static void list_unlink(struct order *order, struct order_node *node)
{
    if (node->prev == NULL) {
        ASSERT(order->head == node);
        order->head = node->next;
    } else {
        node->prev->next = node->next;
    }
    if (node->next == NULL) {
        order->tail = node->prev;
    } else {
        node->next->prev = node->prev;
    }
    node->place = 0;
}

/* ---- the heap ---- */

static bool before(const struct order_node *a, const struct order_node *b)
{
    return a->score != b->score ? a->score < b->score : a->tie < b->tie;
}

static void heap_set(struct order *order, uint32_t i, struct order_node *node)
{
    order->heap[i] = node;
    node->place = (i + 1) & INT32_MAX;
}

static void heap_up(struct order *order, uint32_t i, struct order_node *node)
{
    while (i > 0 && before(node, order->heap[(i - 1) / 2])) {
        heap_set(order, i, order->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_set(order, i, node);
}

static void heap_down(struct order *order, uint32_t i, struct order_node *node)
{
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= order->count) break;
        if (child + 1 < order->count && before(order->heap[child + 1], order->heap[child])) child++;
        if (!before(order->heap[child], node)) break;
        heap_set(order, i, order->heap[child]);
        i = child;
    }
    heap_set(order, i, node);
}

/* Puts it where it belongs, starting from place i. */
static void heap_settle(struct order *order, uint32_t i, struct order_node *node)
{
    if (i > 0 && before(node, order->heap[(i - 1) / 2])) {
        heap_up(order, i, node);
    } else {
        heap_down(order, i, node);
    }
}

static bool grow(struct order_node ***list, uint32_t *capacity)
{
    const uint32_t more = *capacity == 0 ? 64 : 2 * *capacity;
    struct order_node **grown = realloc(*list, more * sizeof(struct order_node *));
    if (grown == NULL) return false;
    *list = grown;
    *capacity = more;
    return true;
}

static void heap_remove(struct order *order, struct order_node *node)
{
    const uint32_t i = node->place - 1;
    ASSERT(i < order->count && order->heap[i] == node);
    struct order_node *last = order->heap[--order->count];
    if (last != node) heap_settle(order, i, last);
    node->place = 0;
}

/* Room was made when it was added first: a node that leaves for a moment finds it again. */
static void heap_insert(struct order *order, struct order_node *node)
{
    ASSERT(order->count < order->capacity);
    heap_up(order, order->count++, node);
}

/* ---- scores ---- */

static void score(struct order *order, struct order_node *node, const struct order_weight *weight)
{
    const uint64_t stamp = ++order->stamp & ((UINT64_C(1) << STAMP_BITS) - 1);
    const uint64_t depth = weight->depth < 0xffffff ? weight->depth : 0xffffff;
    ASSERT(weight->size > 0);

    node->tie = stamp;
    switch (order->policy) {
    case ORDER_LRU: break;
    case ORDER_LFU: node->score = order->floor + node->uses; break;
    case ORDER_LENGTH:
        node->score = order->floor + node->uses;
        node->tie = (0xffffff - depth) << STAMP_BITS | stamp;
        break;
    case ORDER_COST: {
        const double worth = (double)node->uses * (double)weight->cost / (double)weight->size;
        const double scaled = worth * (double)(1u << COST_SCALE_BITS);
        node->score = order->floor + (scaled < 1e15 ? (uint64_t)scaled : (uint64_t)1e15);
        break;
    }
    case ORDER_DEADLINE: node->score = weight->deadline; break;
    }
}

/* ---- in, out, used ---- */

enum status order_add(struct order *order, struct order_node *node,
                      const struct order_weight *weight)
{
    ASSERT(node->place == 0 && !node->aside && order->aside_count == 0); /* I2 */
    node->uses = 1;
    if (order->policy == ORDER_LRU) {
        list_append(order, node);
        order->count++;
        return STATUS_OK;
    }
    if (order->count == order->capacity && !grow(&order->heap, &order->capacity)) {
        return STATUS_NO_MEMORY;
    }
    score(order, node, weight);
    heap_insert(order, node);
    return STATUS_OK;
}

void order_remove(struct order *order, struct order_node *node)
{
    ASSERT(node->place != 0 && order->aside_count == 0);
    if (order->policy == ORDER_LRU) {
        list_unlink(order, node);
        order->count--;
    } else {
        heap_remove(order, node);
    }
}

void order_use(struct order *order, struct order_node *node, const struct order_weight *weight)
{
    ASSERT(node->place != 0 && order->aside_count == 0);
    if (node->uses < UINT32_MAX) node->uses++;
    if (order->policy == ORDER_LRU) {
        list_unlink(order, node);
        list_append(order, node);
        return;
    }
    score(order, node, weight);
    heap_settle(order, node->place - 1, node);
}

void order_prefetch(const struct order *order, const struct order_node *node)
{
    if (order->policy != ORDER_LRU) return;
    __builtin_prefetch(node->prev);
    __builtin_prefetch(node->next);
}

/* ---- who goes ---- */

struct order_node *order_first(struct order *order)
{
    ASSERT(order->aside_count == 0); /* I2 */
    if (order->policy == ORDER_LRU) return order->head;
    return order->count > 0 ? order->heap[0] : NULL;
}

struct order_node *order_next(struct order *order, struct order_node *node)
{
    if (order->policy == ORDER_LRU) return node->next;
    if (order->aside_count == order->aside_capacity &&
        !grow(&order->aside, &order->aside_capacity)) {
        return NULL;
    }
    heap_remove(order, node);
    node->aside = true;
    order->aside[order->aside_count++] = node;
    return order->count > 0 ? order->heap[0] : NULL;
}

void order_rewind(struct order *order)
{
    while (order->aside_count > 0) {
        struct order_node *node = order->aside[--order->aside_count];
        node->aside = false;
        heap_insert(order, node);
    }
}

void order_take(struct order *order, const struct order_node *node)
{
    if (order->policy == ORDER_LRU || order->policy == ORDER_DEADLINE) return;
    if (node->score > order->floor) order->floor = node->score;
}

uint32_t order_count(const struct order *order)
{
    ASSERT(order->aside_count == 0);
    return order->count;
}

static void list_check(const struct order *order)
{
    uint32_t count = 0;
    for (const struct order_node *node = order->head; node != NULL; node = node->next)
        count++;
    ASSERT(count == order->count);
}

void order_check(const struct order *order)
{
    ASSERT(order->aside_count == 0);
    if (order->policy == ORDER_LRU) {
        list_check(order);
        return;
    }
    for (uint32_t i = 0; i < order->count; i++) {
        ASSERT(order->heap[i]->place == i + 1u);
        ASSERT(i == 0 || !before(order->heap[i], order->heap[(i - 1) / 2])); /* I1 */
    }
}
