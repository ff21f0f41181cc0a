/* SPDX-License-Identifier: Apache-2.0 */
#include "conductor/ways.h"

#include <math.h>

#include "base/assert.h"

#define NONE UINT32_MAX

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* ---- which holders to look at ---- */

static uint32_t fast_of(uint32_t blocks, uint32_t slow)
{
    ASSERT(slow <= blocks);
    return blocks - slow;
}

/* On the same path nothing is better with b than with a. */
static bool covers(const struct conductor_holder *a, const struct conductor_holder *b)
{
    return a->blocks >= b->blocks && a->busy_ms <= b->busy_ms &&
           fast_of(a->blocks, a->slow_blocks) >= fast_of(b->blocks, b->slow_blocks);
}

/* A candidate may share its host with one that covers this holder: two on different hosts are
 * needed to leave it out. */
static bool is_covered(const struct ways *ways, const struct conductor_holder *holder)
{
    const struct conductor_holder *holders = ways->input->holders;
    uint32_t host = NONE;

    for (uint32_t i = 0; i < ways->far_count; i++) {
        const struct conductor_holder *other = &holders[ways->far[i]];
        if (!covers(other, holder) || other->host == host) continue;
        if (other->host == holder->host || host != NONE) return true;
        host = other->host;
    }
    return false;
}

/* Takes out those that the newcomer makes superfluous: of its own host, that is enough. */
static void prune(struct ways *ways, const struct conductor_holder *newcomer)
{
    const struct conductor_holder *holders = ways->input->holders;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < ways->far_count; i++) {
        const struct conductor_holder *other = &holders[ways->far[i]];
        if (other->host == newcomer->host && covers(newcomer, other)) continue;
        ways->far[kept++] = ways->far[i];
    }
    ways->far_count = kept;
}

/* When all places are taken, the shortest goes. */
static void keep(struct ways *ways, uint32_t position)
{
    const struct conductor_holder *holders = ways->input->holders;
    uint32_t least = 0;

    if (ways->far_count < WAYS_FAR_MAX) {
        ways->far[ways->far_count++] = position;
        return;
    }
    for (uint32_t i = 1; i < ways->far_count; i++) {
        if (holders[ways->far[i]].blocks < holders[ways->far[least]].blocks) least = i;
    }
    if (holders[position].blocks > holders[ways->far[least]].blocks) ways->far[least] = position;
}

void ways_prepare(const struct conductor_place_input *input, struct ways *out)
{
    *out = (struct ways){ .input = input,
                          .limit = conductor_reusable_blocks(input->tokens, input->block_tokens) };
    for (uint32_t i = 0; i < input->hosts_max; i++)
        input->on_host[i] = NONE;
    for (uint32_t i = 0; i < input->holders_count; i++) {
        struct conductor_holder *holder = &input->holders[i];
        ASSERT(holder->host < input->hosts_max && holder->busy_ms >= 0);
        input->next[i] = input->on_host[holder->host];
        input->on_host[holder->host] = i;
        out->best_blocks = max_u32(out->best_blocks, holder->blocks);
        if (holder->blocks == 0 || is_covered(out, holder)) continue;
        prune(out, holder);
        keep(out, i);
    }
}

/* ---- what a way takes ---- */

/* One candidate, and one holder; or the candidate itself, where holder is NULL. */
struct pair {
    const struct ways *ways;
    const struct conductor_prefill_candidate *candidate;
    const struct conductor_holder *holder;
    const struct conductor_fit *path;
    uint32_t own;        /* blocks the candidate has in memory */
    uint32_t have, fast; /* of the other: in all, and in memory */
};

static double compute_ms(const struct pair *pair, uint32_t reuse)
{
    const struct conductor_place_input *input = pair->ways->input;
    const double reused = (double)reuse * input->block_tokens;
    const struct conductor_features features = conductor_features_prefill(input->tokens, reused);
    return conductor_predict(pair->candidate->fit, &features);
}

static double move_ms(const struct pair *pair, const struct conductor_fit *fit, uint32_t blocks)
{
    if (blocks == 0) return 0;
    ASSERT(fit != NULL);
    return conductor_cost_transfer(fit, (double)blocks * (double)pair->ways->input->block_size);
}

/* Reading from SSD, there or here. */
static double source_ms(const struct pair *pair, uint32_t reuse)
{
    const uint32_t from = max_u32(pair->fast, pair->own);
    return move_ms(pair, pair->ways->input->load, reuse > from ? reuse - from : 0);
}

static double path_ms(const struct pair *pair, uint32_t reuse)
{
    return move_ms(pair, pair->path, reuse - pair->own);
}

static double transfer_ms(const struct pair *pair, uint32_t reuse, double compute)
{
    if (pair->holder != NULL)
        return pair->holder->busy_ms + fmax(path_ms(pair, reuse), source_ms(pair, reuse));
    return fmax(0, source_ms(pair, reuse) - compute);
}

static void try_way(const struct pair *pair, uint32_t reuse, struct way *best)
{
    const bool fetches = pair->holder != NULL;
    const double compute = compute_ms(pair, reuse);
    const double transfer = transfer_ms(pair, reuse, compute);

    if (transfer + compute >= best->transfer_ms + best->compute_ms) return;
    *best = (struct way){
        .holder = fetches ? pair->holder->instance : CONDUCTOR_NO_HOLDER,
        .own_blocks = fetches ? pair->own : reuse,
        .reuse_blocks = reuse,
        .transfer_ms = transfer,
        .compute_ms = compute,
        .near = fetches && pair->holder->host == pair->candidate->host,
    };
}

/* ---- where ranges end ---- */

static bool loads_longer(const struct pair *pair, uint32_t reuse)
{
    return source_ms(pair, reuse) >= compute_ms(pair, reuse);
}

static bool source_is_longer(const struct pair *pair, uint32_t reuse)
{
    return source_ms(pair, reuse) >= path_ms(pair, reuse);
}

/* Tries the first reuse in (low, have] where `more` holds, given that it stays so, and the one
 * before. */
static void try_where(const struct pair *pair, uint32_t low,
                      bool (*more)(const struct pair *pair, uint32_t reuse), struct way *best)
{
    uint32_t from = low + 1, to = pair->have + 1;

    while (from < to) {
        const uint32_t middle = from + (to - from) / 2;
        if (more(pair, middle))
            to = middle;
        else
            from = middle + 1;
    }
    if (from <= pair->have) try_way(pair, from, best);
    if (from - 1 > pair->own) try_way(pair, from - 1, best);
}

/* ---- the ways ---- */

static void consider_own(struct pair *pair, struct way *best)
{
    pair->have = min_u32(pair->candidate->hit_blocks, pair->ways->limit);
    pair->fast = pair->own;
    try_way(pair, pair->own, best);
    if (pair->have == pair->own) return;
    try_where(pair, pair->own, loads_longer, best);
    try_way(pair, pair->have, best);
}

static void consider(struct pair *pair, const struct conductor_holder *holder, struct way *best)
{
    const struct conductor_place_input *input = pair->ways->input;
    const uint32_t fast = fast_of(holder->blocks, holder->slow_blocks);

    pair->holder = holder;
    pair->path = &input->transfer[holder->host == pair->candidate->host ? 0 : 1];
    pair->have = min_u32(holder->blocks, pair->ways->limit);
    pair->fast = min_u32(fast, pair->have);
    if (holder->instance == pair->candidate->instance) return;
    if (pair->have <= pair->own || (double)pair->have <= input->theta * pair->own) return;
    try_way(pair, pair->have, best);
    if (pair->fast == pair->have) return;
    const uint32_t from = max_u32(pair->fast, pair->own);
    /* Where it is the path that becomes the longer one, stopping there is worse than no fetch: the
     * blocks before cost as much on the path, and less to compute. */
    try_where(pair, from, source_is_longer, best);
}

struct way ways_best(const struct ways *ways, const struct conductor_prefill_candidate *candidate)
{
    const struct conductor_place_input *input = ways->input;
    const uint32_t fast = fast_of(candidate->hit_blocks, candidate->slow_blocks);
    struct pair pair = { .ways = ways, .candidate = candidate, .own = min_u32(fast, ways->limit) };
    struct way best = { .holder = CONDUCTOR_NO_HOLDER, .transfer_ms = INFINITY };

    consider_own(&pair, &best);
    ASSERT(isfinite(best.transfer_ms));
    if (input->placement == YOLK_PLACEMENT_LOCAL) return best;
    for (uint32_t i = input->on_host[candidate->host]; i != NONE; i = input->next[i])
        consider(&pair, &input->holders[i], &best);
    for (uint32_t i = 0; i < ways->far_count; i++) {
        const struct conductor_holder *holder = &input->holders[ways->far[i]];
        if (holder->host != candidate->host) consider(&pair, holder, &best);
    }
    return best;
}
