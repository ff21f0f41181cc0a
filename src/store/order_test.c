/* SPDX-License-Identifier: Apache-2.0
 *
 * store/order_test.c
 *
 * Goal:   whoever is said to go first is the one the policy means, whatever came and went.
 * Method: a random walk of uses, removals and walks beside a plain array that is searched for the
 *         smallest by each policy's own words. */
#include "store/order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { ITEMS = 200, STEPS = 20000 };

struct item {
    struct order_node node;
    bool in;
    double base; /* the model's floor when it was used last */
    uint64_t uses;
    uint64_t used; /* when */
    struct order_weight weight;
};

struct model {
    enum order_policy policy;
    struct item items[ITEMS];
    double floor;
    uint64_t clock;
};

static uint64_t seed;

static double worth(const struct model *model, const struct item *item)
{
    switch (model->policy) {
    case ORDER_LRU: return 0;
    case ORDER_LFU:
    case ORDER_LENGTH: return item->base + (double)item->uses;
    case ORDER_COST:
        return item->base + (double)(uint64_t)((double)item->uses * (double)item->weight.cost /
                                               (double)item->weight.size * (double)(1 << 20));
    case ORDER_DEADLINE: return (double)item->weight.deadline;
    }
    return 0;
}

static bool goes_before(const struct model *model, const struct item *a, const struct item *b)
{
    if (worth(model, a) != worth(model, b)) return worth(model, a) < worth(model, b);
    if (model->policy == ORDER_LENGTH && a->weight.depth != b->weight.depth) {
        return a->weight.depth > b->weight.depth;
    }
    return a->used < b->used;
}

/* The first of those that are in and not yet passed. */
static struct item *model_first(struct model *model, const bool *passed)
{
    struct item *first = NULL;
    for (unsigned i = 0; i < ITEMS; i++) {
        struct item *item = &model->items[i];
        if (!item->in || passed[i]) continue;
        if (first == NULL || goes_before(model, item, first)) first = item;
    }
    return first;
}

static struct item *item_of(struct order_node *node)
{
    return node == NULL ? NULL : (struct item *)(void *)node; /* its first member */
}

static void walk(struct model *model, struct order *order, struct rng *rng)
{
    bool passed[ITEMS] = { false };
    struct order_node *node = order_first(order);

    for (uint64_t steps = rng_below(rng, 20);; steps--) {
        struct item *want = model_first(model, passed);
        assert_ptr_equal(item_of(node), want);
        if (want == NULL || steps == 0) break;
        passed[want - model->items] = true;
        node = order_next(order, node);
    }
    order_rewind(order);
    if (node == NULL) return;
    order_take(order, node);
    struct item *taken = item_of(node);
    if (model->policy != ORDER_DEADLINE && worth(model, taken) > model->floor) {
        model->floor = worth(model, taken);
    }
    order_remove(order, node);
    taken->in = false;
}

static void use(struct model *model, struct order *order, struct item *item, struct rng *rng)
{
    if (!item->in) {
        item->weight = (struct order_weight){ .size = 1 + rng_below(rng, 1000),
                                              .cost = rng_below(rng, 1000),
                                              .deadline = rng_below(rng, 50),
                                              .depth = (uint32_t)rng_below(rng, 5) };
        item->uses = 1;
        item->in = true;
    } else {
        item->uses++;
    }
    item->base = model->floor;
    item->used = ++model->clock;
    if (order_has(&item->node)) {
        order_use(order, &item->node, &item->weight);
    } else {
        assert_int_equal(order_add(order, &item->node, &item->weight), STATUS_OK);
    }
}

static void policy_matches_model(enum order_policy policy)
{
    static struct model model;
    struct order *order = order_create(policy);
    struct rng rng;

    memset(&model, 0, sizeof(model));
    model.policy = policy;
    rng_init(&rng, seed + policy);
    for (int step = 0; step < STEPS; step++) {
        struct item *item = &model.items[rng_below(&rng, ITEMS)];
        const uint64_t dice = rng_below(&rng, 10);
        if (dice < 7) {
            use(&model, order, item, &rng);
        } else if (dice < 8 && item->in) {
            order_remove(order, &item->node);
            item->in = false;
        } else if (dice == 9 && step % 4 == 0) {
            walk(&model, order, &rng);
        }
        if (step % 500 == 0) order_check(order);
    }
    order_destroy(order);
}

static void every_policy_means_what_it_says(void **state)
{
    (void)state;
    for (int policy = ORDER_LRU; policy <= ORDER_DEADLINE; policy++)
        policy_matches_model((enum order_policy)policy);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_policy_means_what_it_says) };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
