/* SPDX-License-Identifier: Apache-2.0
 *
 * store/order.h - in which order values are evicted.
 *
 *   ORDER_LRU     what was used longest ago goes first. A list; every operation is O(1).
 *   ORDER_LFU     what was used least often; of those, the one used longest ago.
 *   ORDER_LENGTH  like LFU, but of those used equally often the one that stands deepest in its
 *                 prompt: nobody can use it without all that comes before it.
 *   ORDER_COST    what saves the least computation for its bytes: uses * cost / size (GreedyDual).
 *   ORDER_DEADLINE  what has the earliest deadline; uses change nothing.
 *
 * All but LRU are a heap, O(log n) a use. Frequencies age: a value starts, and goes on, from the
 * score of the last one that was taken, so that what was popular long ago does not stay for ever.
 *
 * Memory:  the nodes are the caller's; a heap has 8 bytes a node.
 * Threads: one. Limits: 2^31 - 1 nodes. */
#ifndef STORE_ORDER_H
#define STORE_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct order; /* opaque */

enum order_policy { ORDER_LRU, ORDER_LFU, ORDER_LENGTH, ORDER_COST, ORDER_DEADLINE };

/* Inside what is ordered. All of it is private; all zero is a node in no order. */
struct order_node {
    union {
        struct order_node *prev; /* LRU */
        uint64_t score;          /* the others */
    };
    union {
        struct order_node *next;
        uint64_t tie;
    };
    uint32_t uses;
    uint32_t place : 31; /* in the heap + 1; LRU: 1; 0: in no order, or set aside */
    uint32_t aside : 1;
};

/* What the policies look at. */
struct order_weight {
    uint64_t size;     /* bytes, not 0 */
    uint64_t cost;     /* of computing it again, in any unit */
    uint64_t deadline; /* ORDER_DEADLINE */
    uint32_t depth;    /* how much of the prompt comes before it, in any unit */
};

struct order *order_create(enum order_policy policy); /* NULL: no memory */
void order_destroy(struct order *order);              /* NULL is allowed; nodes are left alone */

/* The node is in no order; it counts as used once. STATUS_NO_MEMORY: it stays outside. */
MUST_USE enum status order_add(struct order *order, struct order_node *node,
                               const struct order_weight *weight);
void order_remove(struct order *order, struct order_node *node);
bool order_has(const struct order_node *node);   /* in some order */
uint32_t order_count(const struct order *order); /* not during a walk */

/* The node, in this order, was used. */
void order_use(struct order *order, struct order_node *node, const struct order_weight *weight);

/* The node, in an order, this one or another, will be used soon: memory is on its way. */
void order_prefetch(const struct order *order, const struct order_node *node);

/* Walks from the first to go: order_first(), then order_next() for each that is passed over, then
 * order_rewind(). In between nothing else may be called. NULL: there is none left. */
struct order_node *order_first(struct order *order);
struct order_node *order_next(struct order *order, struct order_node *node);
void order_rewind(struct order *order);

/* The node was chosen: what comes later is measured against it. Allowed during a walk. */
void order_take(struct order *order, const struct order_node *node);

/* Checks the heap; O(n). For tests. */
void order_check(const struct order *order);

#endif
