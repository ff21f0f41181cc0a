/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/plan.h - the cheapest cluster that keeps its limits, by a search that asks an oracle about as
 * few clusters as it can.
 *
 * A space is a grid: for each choice an ascending list of values, and prices that make every step
 * up cost something or nothing, never less. The oracle says of a cluster whether it keeps the
 * limits; plan_sim.h has the one that simulates.
 *
 * What the search rests on: more of anything lowers the share of good requests by no more than
 * PLAN_SLACK. (Not by nothing: another size shifts who is queued behind whom.) A cluster is decided
 * when
 *   simulated  the oracle was asked about it;
 *   weaker     it has at most as much of everything as one that missed by more than the slack, so
 *              it misses too;
 *   dearer     it costs as much as the best one found, or more;
 *   short      arithmetic says that it cannot do the work (the caller's floors).
 * The search ends when every cluster of the grid is decided. Then the best found is the cheapest of
 * all, if the assumption holds; what is seen of the opposite is counted (`surprises`).
 *
 * How: the largest cluster first: if it misses clearly, nothing keeps the limits. Then, sizes at
 * their largest, the fewest prefill nodes and the fewest decode nodes by bisection; node counts by
 * ascending cost until one keeps the limits; sizes one by one as low as they go, by bisection; and
 * what is still undecided from the largest down, which decides most at once. Questions are asked in
 * batches of PLAN_BATCH, whatever the number of threads, so that the answer does not depend on it.
 *
 * Memory:  fixed by the grid and by what is asked; the result is a value.
 * Threads: none of its own; an oracle may have some.
 * Limits:  PLAN_VALUES_MAX values a choice, PLAN_GRID_MAX clusters. */
#ifndef SIM_PLAN_H
#define SIM_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    PLAN_VALUES_MAX = 256,
    PLAN_GRID_MAX = 1 << 21,
    PLAN_BATCH = 8,
    PLAN_RUNNERS_MAX = 5,
    PLAN_FILE_SIZE_MAX = 1 << 20,
};

#define PLAN_SLACK 0.02

/* DRAM and SSD are of each prefill node, the NIC is of every node. */
enum plan_choice { PLAN_PREFILL, PLAN_DECODE, PLAN_DRAM, PLAN_SSD, PLAN_NIC, PLAN_CHOICES };

/* "prefill", "decode", "dram_gb", "ssd_gb", "nic_gbps" */
extern const char *const plan_choices[PLAN_CHOICES];

/* For an hour; currency is whatever the user thinks in. Not negative. */
struct plan_prices {
    double prefill_node, decode_node; /* without what follows */
    double dram_gb, ssd_gb, nic_gbps; /* of one node */
};

struct plan_space {
    struct plan_prices prices;
    uint32_t counts[PLAN_CHOICES]; /* at least 1 each */
    double values[PLAN_CHOICES][PLAN_VALUES_MAX];
};

/* Prices and ranges to begin with; docs/plan.md says where they come from. */
void plan_space_init(struct plan_space *space);

/* A plan file: {"prices": {...}, "choices": {"prefill": {"min", "max", "step"} | [...], ...}}. What
 * it does not name stays. STATUS_INVALID with file, name and reason in err; `space` is then
 * unchanged. */
MUST_USE enum status plan_space_parse(const char *name, const char *text, size_t len,
                                      struct plan_space *space, struct errmsg *err);

struct plan_config {
    uint32_t steps[PLAN_CHOICES]; /* into values */
};

double plan_value(const struct plan_space *space, const struct plan_config *config,
                  enum plan_choice choice);
double plan_cost(const struct plan_space *space, const struct plan_config *config);

struct plan_score {
    bool meets;
    bool nearly; /* it misses, by no more than PLAN_SLACK */
    double good, ttft_p50_s, ttft_p90_s, tbt_p90_ms, token_hit;
};

struct plan_row {
    struct plan_config config;
    double cost;
    struct plan_score score;
};

struct plan_oracle {
    /* Fills out[0..count); STATUS_INVALID with err. */
    enum status (*ask)(void *ctx, const struct plan_config *configs, uint32_t count,
                       struct plan_score *out, struct errmsg *err);
    /* `decided` of `count` clusters; may be NULL. */
    void (*progress)(void *ctx, uint32_t decided, uint32_t count);
    void *ctx;
};

struct plan_counts {
    uint32_t configs; /* of the grid: the sum of the following four */
    uint32_t simulated, weaker, dearer, shorter;
    uint32_t extra;     /* simulated although decided, for the sensitivity */
    uint32_t surprises; /* more of something made a cluster miss, nearly or not */
};

struct plan_result {
    bool found;
    struct plan_row best; /* if not found: the one that came nearest */
    uint32_t runners_count;
    struct plan_row runners[PLAN_RUNNERS_MAX]; /* the next cheapest that keep the limits */
    /* One step down [0] and up [1] in each choice, where there is one. */
    bool has_step[PLAN_CHOICES][2];
    struct plan_row step[PLAN_CHOICES][2];
    struct plan_counts counts;
};

/* floors: the least values of prefill and decode nodes that arithmetic leaves, or 0. STATUS_INVALID
 * for a grid over the limit, STATUS_NO_MEMORY, and what the oracle says. */
MUST_USE enum status plan_search(const struct plan_space *space, const double floors[2],
                                 const struct plan_oracle *oracle, struct plan_result *out,
                                 struct errmsg *err);

#endif
