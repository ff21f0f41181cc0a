/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/place.c - see the header for the argument; here is its arithmetic.
 *
 * Invariants
 *   I1  reuse never covers the last token of the prompt.
 *   I2  a holder is named only when it has all the blocks that are reused.
 *   I3  more cached blocks at a candidate never raise its predicted time.
 *   I4  ranked[0] is the choice; behind it, ranked[] is ascending, earlier candidates first among
 *       equals. Where costs choose, all of it is ascending. */
#include "conductor/place.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/assert.h"
#include "conductor/choose.h"
#include "conductor/ways.h"

enum { PATH_HOST = 0, PATH_NETWORK = 1 };
#define NO_POSITION UINT32_MAX

/* The longest prefix overall, and the longest on any other host than that. */
struct best_two {
    struct conductor_holder first;
    struct conductor_holder second;
};

static const struct conductor_holder NO_HOLDER = { .instance = CONDUCTOR_NO_HOLDER,
                                                   .host = UINT32_MAX };

uint32_t conductor_reusable_blocks(uint32_t tokens, uint32_t block_tokens)
{
    ASSERT(tokens > 0 && block_tokens > 0);
    return (tokens - 1) / block_tokens;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The best of a host; hosts without holders have one without blocks. */
static const struct conductor_holder *best_on(const struct conductor_place_input *input,
                                              uint32_t host)
{
    const uint32_t position = input->on_host[host];
    return position == NO_POSITION ? &NO_HOLDER : &input->holders[position];
}

static void offer_best(struct best_two *best, const struct conductor_holder *holder)
{
    if (holder->blocks > best->first.blocks) {
        if (holder->host != best->first.host) best->second = best->first;
        best->first = *holder;
    } else if (holder->blocks > best->second.blocks && holder->host != best->first.host) {
        best->second = *holder;
    }
}

static struct best_two find_best(const struct conductor_place_input *input)
{
    struct best_two best = { NO_HOLDER, NO_HOLDER };

    memset(input->on_host, 0xff, input->hosts_max * sizeof(*input->on_host)); /* NO_POSITION */
    for (uint32_t i = 0; i < input->holders_count; i++) {
        const struct conductor_holder *holder = &input->holders[i];
        ASSERT(holder->host < input->hosts_max);
        if (holder->blocks <= best_on(input, holder->host)->blocks) continue;
        input->on_host[holder->host] = i;
        offer_best(&best, holder);
    }
    ASSERT(best.first.blocks >= best.second.blocks);
    return best;
}

/* What candidates ask for again and again: most have the same hits, or fetch the same blocks. */
struct memo {
    uint32_t limit;                                    /* blocks that may be reused */
    uint32_t own_blocks, fetched_blocks, moved_blocks; /* that the values are for */
    int path;
    struct conductor_features own, fetched;
    double transfer_ms;
};

static struct conductor_features features_of(const struct conductor_place_input *input,
                                             uint32_t reuse_blocks)
{
    const double reused = (double)reuse_blocks * input->block_tokens;
    ASSERT(reused < input->tokens); /* I1 */
    return conductor_features_prefill(input->tokens, reused);
}

static struct memo memo_make(const struct conductor_place_input *input)
{
    return (struct memo){ .limit = conductor_reusable_blocks(input->tokens, input->block_tokens),
                          .own = features_of(input, 0),
                          .fetched = features_of(input, 0),
                          .moved_blocks = UINT32_MAX };
}

static double own_ms(const struct conductor_place_input *input,
                     const struct conductor_prefill_candidate *candidate, uint32_t hit_blocks,
                     struct memo *memo)
{
    if (memo->own_blocks != hit_blocks) {
        memo->own = features_of(input, hit_blocks);
        memo->own_blocks = hit_blocks;
    }
    return conductor_predict(candidate->fit, &memo->own);
}

static double fetched_ms(const struct conductor_place_input *input,
                         const struct conductor_prefill_candidate *candidate, uint32_t blocks,
                         struct memo *memo)
{
    if (memo->fetched_blocks != blocks) {
        memo->fetched = features_of(input, blocks);
        memo->fetched_blocks = blocks;
    }
    return conductor_predict(candidate->fit, &memo->fetched);
}

static double transfer_ms(const struct conductor_place_input *input, int path, uint32_t blocks,
                          struct memo *memo)
{
    if (memo->moved_blocks != blocks || memo->path != path) {
        const double bytes = (double)blocks * (double)input->block_size;
        memo->transfer_ms = conductor_cost_transfer(&input->transfer[path], bytes);
        memo->moved_blocks = blocks;
        memo->path = path;
    }
    return memo->transfer_ms;
}

/* The theta test, before any prediction: is what the holder has so much more that a fetch is worth
 * thinking about? */
static bool may_fetch(const struct conductor_place_input *input,
                      const struct conductor_prefill_candidate *candidate, uint32_t hit_blocks,
                      const struct conductor_holder *holder, const struct memo *memo)
{
    const uint32_t blocks = min_u32(holder->blocks, memo->limit);

    if (blocks <= hit_blocks || holder->instance == candidate->instance) return false;
    return (double)blocks > input->theta * (double)hit_blocks;
}

/* Replaces *way by fetching from `holder` over `path` if that is cheaper. */
static void consider_fetch(const struct conductor_place_input *input,
                           const struct conductor_prefill_candidate *candidate, uint32_t hit_blocks,
                           const struct conductor_holder *holder, int path, struct memo *memo,
                           struct way *way)
{
    const uint32_t blocks = min_u32(holder->blocks, memo->limit);

    ASSERT(blocks > hit_blocks);
    const double transfer = transfer_ms(input, path, blocks - hit_blocks, memo);
    const double compute = fetched_ms(input, candidate, blocks, memo);
    if (transfer + compute >= way->transfer_ms + way->compute_ms) return;
    *way =
        (struct way){ holder->instance, hit_blocks, blocks, transfer, compute, path == PATH_HOST };
}

static struct way best_way(const struct conductor_place_input *input, const struct best_two *best,
                           const struct conductor_prefill_candidate *candidate, struct memo *memo)
{
    const uint32_t hit_blocks = min_u32(candidate->hit_blocks, memo->limit);
    const struct conductor_holder *near = best_on(input, candidate->host);
    const bool first_is_far = best->first.host != candidate->host;
    const struct conductor_holder *far = first_is_far ? &best->first : &best->second;
    struct way way = { CONDUCTOR_NO_HOLDER,
                       hit_blocks,
                       hit_blocks,
                       0,
                       own_ms(input, candidate, hit_blocks, memo),
                       false };

    if (input->placement == YOLK_PLACEMENT_LOCAL) return way;
    if (may_fetch(input, candidate, hit_blocks, near, memo))
        consider_fetch(input, candidate, hit_blocks, near, PATH_HOST, memo, &way);
    if (may_fetch(input, candidate, hit_blocks, far, memo))
        consider_fetch(input, candidate, hit_blocks, far, PATH_NETWORK, memo, &way);
    ASSERT(way.reuse_blocks >= hit_blocks);
    return way;
}

/* What the next candidate has to beat to be among the best few. */
static double worst_prefill(const struct conductor_place_output *out)
{
    if (out->ranked_prefill_count < CONDUCTOR_RANKED) return INFINITY;
    return out->ranked_prefill[CONDUCTOR_RANKED - 1].ttft_ms;
}

static void rank_prefill(struct conductor_place_output *out,
                         const struct conductor_ranked_prefill *way)
{
    uint32_t at = out->ranked_prefill_count;

    if (at < CONDUCTOR_RANKED) {
        out->ranked_prefill_count++;
    } else {
        at--; /* the last one makes room */
    }
    for (; at > 0 && way->ttft_ms < out->ranked_prefill[at - 1].ttft_ms; at--)
        out->ranked_prefill[at] = out->ranked_prefill[at - 1];
    out->ranked_prefill[at] = *way;
}

/* How the holders stand to each other is found once; either half of this is used. */
struct outlook {
    struct best_two best;
    struct memo memo;
    struct ways ways;
};

static void look_out(const struct conductor_place_input *input, struct outlook *out)
{
    if (input->uneven) {
        ways_prepare(input, &out->ways);
    } else {
        out->best = find_best(input);
        out->memo = memo_make(input);
    }
}

static void take_first(struct conductor_place_output *out)
{
    const struct conductor_ranked_prefill *chosen = &out->ranked_prefill[0];

    ASSERT(out->ranked_prefill_count > 0 && isfinite(chosen->ttft_ms));
    out->prefill = chosen->position;
    out->holder = chosen->holder;
    out->own_blocks = chosen->own_blocks;
    out->reuse_blocks = chosen->reuse_blocks;
    out->queue_ms = chosen->queue_ms;
    out->transfer_ms = chosen->transfer_ms;
    out->compute_ms = chosen->compute_ms;
    out->ttft_ms = chosen->ttft_ms;
}

static void choose_prefill(const struct conductor_place_input *input,
                           struct conductor_place_output *out)
{
    struct outlook outlook;

    look_out(input, &outlook);
    out->best_blocks = input->uneven ? outlook.ways.best_blocks : outlook.best.first.blocks;
    for (uint32_t i = 0; i < input->prefill_count; i++) {
        const struct conductor_prefill_candidate *candidate = &input->prefill[i];
        ASSERT(candidate->host < input->hosts_max && candidate->queue_ms >= 0);
        if (candidate->hit_blocks > out->best_blocks) out->best_blocks = candidate->hit_blocks;
        if (candidate->queue_ms >= worst_prefill(out)) continue; /* whatever it has cached */
        const struct way way = input->uneven
                                   ? ways_best(&outlook.ways, candidate)
                                   : best_way(input, &outlook.best, candidate, &outlook.memo);
        const double ttft = candidate->queue_ms + way.transfer_ms + way.compute_ms;
        if (ttft >= worst_prefill(out)) continue;
        rank_prefill(out, &(struct conductor_ranked_prefill){
                              i, way.holder, way.own_blocks, way.reuse_blocks, way.near,
                              candidate->queue_ms, way.transfer_ms, way.compute_ms, ttft });
    }
    take_first(out);
}

static double tbt_ms(const struct conductor_place_input *input, uint32_t position)
{
    const struct conductor_decode_candidate *candidate = &input->decode[position];
    const double context = (double)candidate->context_tokens + input->tokens;

    return conductor_cost_decode(candidate->fit, (double)candidate->sequences + 1, context);
}

/* Least predicted time between tokens, then fewest tokens, then the first. */
static bool decodes_better(const struct conductor_place_input *input,
                           const struct conductor_ranked_decode *a,
                           const struct conductor_ranked_decode *b)
{
    if (a->tbt_ms != b->tbt_ms) return a->tbt_ms < b->tbt_ms;
    return input->decode[a->position].context_tokens < input->decode[b->position].context_tokens;
}

/* The best of all but `without`. */
static void rank_decode(const struct conductor_place_input *input, uint32_t without,
                        struct conductor_place_output *out)
{
    struct conductor_ranked_decode *ranked = out->ranked_decode;

    for (uint32_t i = 0; i < input->decode_count; i++) {
        const struct conductor_ranked_decode mine = { i, tbt_ms(input, i) };
        uint32_t at = out->ranked_decode_count;
        if (i == without) continue;
        if (at == CONDUCTOR_RANKED) {
            if (!decodes_better(input, &mine, &ranked[at - 1])) continue;
            at--;
        } else {
            out->ranked_decode_count++;
        }
        for (; at > 0 && decodes_better(input, &mine, &ranked[at - 1]); at--)
            ranked[at] = ranked[at - 1];
        ranked[at] = mine;
    }
}

static void choose_decode(const struct conductor_place_input *input,
                          struct conductor_place_output *out)
{
    rank_decode(input, UINT32_MAX, out);
    ASSERT(out->ranked_decode_count > 0 && isfinite(out->ranked_decode[0].tbt_ms));
    out->decode = out->ranked_decode[0].position;
    out->tbt_ms = out->ranked_decode[0].tbt_ms;
}

/* ---- the policies of choose.h: chosen without looking at costs, which are then filled in ---- */

/* What `position` costs without a fetch: these policies have none. */
static struct conductor_ranked_prefill unfetched(const struct conductor_place_input *input,
                                                 uint32_t position, struct memo *memo)
{
    const struct conductor_prefill_candidate *candidate = &input->prefill[position];
    const uint32_t reuse = min_u32(candidate->hit_blocks, memo->limit);
    const double compute = own_ms(input, candidate, reuse, memo);

    return (struct conductor_ranked_prefill){ .position = position,
                                              .holder = CONDUCTOR_NO_HOLDER,
                                              .own_blocks = reuse,
                                              .reuse_blocks = reuse,
                                              .queue_ms = candidate->queue_ms,
                                              .compute_ms = compute,
                                              .ttft_ms = candidate->queue_ms + compute };
}

/* The choice, whatever it costs, and behind it the best of the others. */
static void rank_others(const struct conductor_place_input *input, struct memo *memo,
                        struct conductor_place_output *out)
{
    struct conductor_ranked_prefill *ranked = out->ranked_prefill;
    uint32_t others;

    for (uint32_t i = 0; i < input->prefill_count; i++) {
        if (i == out->prefill || input->prefill[i].queue_ms >= worst_prefill(out)) continue;
        const struct conductor_ranked_prefill way = unfetched(input, i, memo);
        if (way.ttft_ms < worst_prefill(out)) rank_prefill(out, &way);
    }
    others = min_u32(out->ranked_prefill_count, CONDUCTOR_RANKED - 1);
    memmove(&ranked[1], &ranked[0], others * sizeof(ranked[0]));
    ranked[0] = unfetched(input, out->prefill, memo);
    out->ranked_prefill_count = others + 1;
}

static void take_prefill(const struct conductor_place_input *input,
                         struct conductor_place_output *out)
{
    struct conductor_choice choice =
        conductor_choose(input->placement, input->prefill_count, input->draw);
    struct memo memo = memo_make(input);

    for (uint32_t i = 0; i < input->prefill_count; i++) {
        const struct conductor_prefill_candidate *candidate = &input->prefill[i];
        conductor_offer(&choice, candidate->hit_blocks, candidate->queue_ms, candidate->queued);
        if (candidate->hit_blocks > out->best_blocks) out->best_blocks = candidate->hit_blocks;
    }
    for (uint32_t i = 0; i < input->holders_count; i++) {
        if (input->holders[i].blocks > out->best_blocks)
            out->best_blocks = input->holders[i].blocks;
    }
    ASSERT(choice.best < input->prefill_count);
    const struct conductor_prefill_candidate *taken = &input->prefill[choice.best];
    out->prefill = choice.best;
    out->reuse_blocks = min_u32(taken->hit_blocks, memo.limit);
    out->own_blocks = out->reuse_blocks;
    out->queue_ms = taken->queue_ms;
    out->compute_ms = own_ms(input, taken, out->reuse_blocks, &memo);
    out->ttft_ms = out->queue_ms + out->compute_ms;
    rank_others(input, &memo, out);
}

static void take_decode(const struct conductor_place_input *input,
                        struct conductor_place_output *out)
{
    struct conductor_choice choice = conductor_choose_decode();

    for (uint32_t i = 0; i < input->decode_count; i++)
        conductor_offer_decode(&choice, input->decode[i].sequences,
                               input->decode[i].context_tokens);
    ASSERT(choice.best < input->decode_count);
    out->decode = choice.best;
    out->tbt_ms = tbt_ms(input, choice.best);
    rank_decode(input, choice.best, out);
    const uint32_t others = min_u32(out->ranked_decode_count, CONDUCTOR_RANKED - 1);
    memmove(&out->ranked_decode[1], &out->ranked_decode[0], others * sizeof(out->ranked_decode[0]));
    out->ranked_decode[0] = (struct conductor_ranked_decode){ choice.best, out->tbt_ms };
    out->ranked_decode_count = others + 1;
}

/* Who has both roles keeps what it prefills: nothing is sent, and there is nobody to compare it
 * with. Only without room its KV goes to another one, as from any other. */
static void couple(const struct conductor_place_input *input, struct conductor_place_output *out)
{
    const struct conductor_prefill_candidate *prefill = &input->prefill[out->prefill];

    for (uint32_t i = 0; prefill->both && i < input->decode_count; i++) {
        if (input->decode[i].instance != prefill->instance) continue;
        out->coupled = true;
        out->decode = i;
        out->tbt_ms = tbt_ms(input, i);
        out->ranked_decode[0] = (struct conductor_ranked_decode){ i, out->tbt_ms };
        out->ranked_decode_count = 1;
    }
}

void conductor_place(const struct conductor_place_input *input, struct conductor_place_output *out)
{
    ASSERT(input->prefill_count > 0 && input->decode_count > 0);
    ASSERT(input->tokens > 0 && input->block_tokens > 0);
    *out = (struct conductor_place_output){ .holder = CONDUCTOR_NO_HOLDER };
    if (conductor_placement_scores(input->placement)) {
        choose_prefill(input, out);
        choose_decode(input, out);
    } else {
        take_prefill(input, out);
        take_decode(input, out);
    }
    couple(input, out);
}
