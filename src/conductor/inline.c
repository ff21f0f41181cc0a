/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/inline.c - short prefills inside a decode batch, where that costs no limit.
 *
 * What is not cached of the prompt has to be one chunk at most, or what inline_tokens says. The
 * decode instance that would get the request computes it beside one step of its batch: everybody in
 * the batch waits that much longer for one token, and the request has no queue, and none of its KV
 * is sent. It is done when
 *
 *     step with it in the batch + compute beside it  <=  inline_tbt_ms
 *
 * and when its first token is predicted to come sooner than on a prefill instance. Computing beside
 * a step costs inline_factor times the prefill model, without what a prefill costs before its first
 * token: the step pays that. The reused prefix comes from whoever has most of it, as it would have
 * to anyway. One at a time and instance, so that no step is stretched twice.
 *
 * In the books it is a ticket that prefills at its decode instance. So are requests at instances of
 * both roles (conductor/place.h), whatever their length: there it is no choice, and no limit. */
#include "conductor/conductor_int.h"

#include "base/assert.h"

struct source {
    uint32_t holder; /* or CONDUCTOR_NO_HOLDER */
    uint32_t blocks;
};

static struct source best_source(const struct yolk_conductor *c, const struct candidates *found,
                                 uint32_t limit)
{
    struct source best = { CONDUCTOR_NO_HOLDER, 0 };

    for (uint32_t i = 0; i < found->holders; i++) {
        const uint32_t blocks = c->holders[i].blocks < limit ? c->holders[i].blocks : limit;
        if (blocks > best.blocks) best = (struct source){ c->holders[i].instance, blocks };
    }
    return best;
}

bool conductor_inline_choose(struct yolk_conductor *c, const struct yolk_place_request *request,
                             const struct candidates *found, struct conductor_place_output *placed)
{
    const struct conductor_decode_candidate *decode = &c->decode[placed->decode];
    const struct conductor_fit *fit = c->prefill[placed->prefill].fit;
    const double limit_ms = c->options.inline_tbt_ms;

    if (limit_ms == 0 || c->instances[decode->instance].queued > 0) return false;
    const uint32_t block = c->options.block_tokens;
    const struct source from =
        best_source(c, found, conductor_reusable_blocks(request->tokens, block));
    const uint32_t reused = from.blocks * block;
    const uint32_t most = c->options.inline_tokens;
    if (request->tokens - reused > (most > 0 ? most : c->options.chunk_tokens)) return false;
    const double beside_ms =
        c->options.inline_factor *
        (conductor_cost_prefill(fit, request->tokens, reused) - conductor_cost_prefill(fit, 0, 0));
    if (placed->tbt_ms + beside_ms > limit_ms) return false;
    const bool moves = from.blocks > 0 && from.holder != decode->instance;
    const double bytes = (double)from.blocks * (double)c->options.block_size;
    const double moved_ms =
        moves ? conductor_cost_transfer(&c->profile.transfer[YOLK_PATH_NETWORK], bytes) : 0;
    /* The running step has to end first; it may have just begun. */
    const double ttft_ms = moved_ms + placed->tbt_ms + placed->tbt_ms + beside_ms;
    if (ttft_ms >= placed->ttft_ms) return false;
    placed->holder = from.holder;
    placed->own_blocks = moves ? 0 : from.blocks;
    placed->reuse_blocks = from.blocks;
    placed->queue_ms = placed->tbt_ms;
    placed->transfer_ms = moved_ms;
    placed->compute_ms = placed->tbt_ms + beside_ms;
    placed->ttft_ms = ttft_ms;
    return true;
}
