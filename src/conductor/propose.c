/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/propose.c - a decision, which changes nothing: what Algorithm 1 is asked, gathered from
 * the books.
 *
 * Queue estimate of a prefill instance: its unfinished requests, first come first served, each with
 * its predicted time; the one at the head counts only for what is left of it. A head that has run
 * over its prediction is expected to need another tenth of the time it has run, so that a long
 * prefill nobody foresaw does not look like an idle instance. */
#include "conductor/conductor_int.h"

#include <math.h>

#include "base/assert.h"
#include "base/rng.h"

static const double OVERRUN = 0.1;
static const double ORDER_LIMIT = 0.6; /* of the limit, by which a prompt steps back at most */

double conductor_order_ms(const struct yolk_conductor *c, double now_ms, double own_ms)
{
    double later_ms = c->options.stretch * own_ms;
    const double limit_ms = admission_ttft_limit(c->admission);

    /* Nobody is kept from being in time by this alone. */
    if (later_ms > limit_ms * ORDER_LIMIT) later_ms = limit_ms * ORDER_LIMIT;
    ASSERT(later_ms >= 0);
    return now_ms + later_ms;
}

double conductor_queue_ms(const struct instance *instance, double now_ms)
{
    if (instance->head == NONE) return 0;
    const double head = instance->head_ms;
    const double ran = now_ms > instance->head_since_ms ? now_ms - instance->head_since_ms : 0;
    const double left = ran < head ? head - ran : OVERRUN * ran;
    const double behind = instance->queued_ms - head;

    return left + (behind > 0 ? behind : 0);
}

struct queue_view conductor_queue(const struct yolk_conductor *c, const struct instance *instance,
                                  struct queue_rank rank, double now_ms)
{
    struct queue_view view = { conductor_queue_ms(instance, now_ms), instance->queued };

    if (instance->head == instance->tail || !conductor_goes_before(rank, instance->tail_rank))
        return view;
    for (int32_t at = instance->tail; at != instance->head; at = c->tickets[at].previous) {
        if (!conductor_goes_before(rank, c->tickets[at].rank)) break;
        view.ms -= c->tickets[at].predicted_ms;
        view.requests--;
    }
    if (view.ms < 0) view.ms = 0; /* of rounding */
    ASSERT(view.requests <= instance->queued);
    return view;
}

int conductor_priority_below(const struct yolk_conductor *c, int priority)
{
    int below = YOLK_PRIORITY_MIN - 1;

    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        const struct instance *instance = &c->instances[i];
        if (!instance->used) continue;
        for (int32_t at = instance->tail; at != instance->head; at = c->tickets[at].previous) {
            if (c->tickets[at].rank.priority >= priority) break;
            if (c->tickets[at].rank.priority > below) below = c->tickets[at].rank.priority;
        }
    }
    return below;
}

static uint32_t pages_of(const struct yolk_conductor *c, const struct yolk_place_request *request,
                         uint32_t output_tokens)
{
    const uint64_t tokens = (uint64_t)request->tokens + output_tokens;
    const uint64_t pages = (tokens + c->options.block_tokens - 1) / c->options.block_tokens;
    return pages > UINT32_MAX ? UINT32_MAX : (uint32_t)pages;
}

static uint32_t pages_most(const struct yolk_conductor *c, const struct yolk_place_request *request)
{
    return pages_of(c, request, request->output_tokens);
}

uint32_t conductor_pages_reserved(const struct yolk_conductor *c,
                                  const struct yolk_place_request *request)
{
    const uint32_t most = request->output_tokens, some = request->reserve_tokens;
    return pages_of(c, request, some > 0 && some < most ? some : most);
}

static bool is_up(const struct yolk_conductor *c, uint32_t i, unsigned role)
{
    if (i >= c->options.instances_max) return false; /* YOLK_INSTANCE_NONE */
    const struct instance *instance = &c->instances[i];
    return conductor_open(instance) && (instance->roles & role) != 0;
}

/* The roles of all instances that could work for this request, to fall back when one is missing. */
static unsigned roles_up(const struct yolk_conductor *c, const struct yolk_place_request *request)
{
    const bool less_prefill = is_up(c, request->avoid_prefill.index, YOLK_ROLE_PREFILL);
    const bool less_decode = is_up(c, request->avoid_decode.index, YOLK_ROLE_DECODE);
    unsigned roles = 0;

    if (c->prefill_up > (less_prefill ? 1 : 0)) roles |= YOLK_ROLE_PREFILL;
    if (c->decode_up > (less_decode ? 1 : 0)) roles |= YOLK_ROLE_DECODE;
    return roles;
}

static void gather_decode(struct yolk_conductor *c, uint32_t i, uint32_t most, uint32_t reserved,
                          struct candidates *found)
{
    const struct instance *instance = &c->instances[i];

    found->decode_up = true;
    if (most > instance->pages_max) return;
    found->decode_possible = true;
    if (instance->sequences >= instance->sequences_max) return;
    if (instance->pages + reserved > instance->pages_max) return;
    c->decode[found->decode++] =
        (struct conductor_decode_candidate){ i, instance->sequences, instance->context_tokens,
                                             &instance->decode_fit };
}

/* It prefills and decodes in one process. */
static bool is_both(const struct instance *instance)
{
    return instance->roles == (YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE);
}

/* A prompt is computed beside steps there, and the one under way has to end first; so of two idle
 * queues that of the smaller batch is the shorter. */
static double step_ms(const struct instance *instance)
{
    if (!is_both(instance) || instance->decoding == 0) return 0;
    return conductor_cost_decode(&instance->decode_fit, instance->decoding,
                                 (double)instance->decoding_tokens);
}

/* How many of the leading `hit` blocks, at their end, it has on SSD. */
static uint32_t slow_blocks(const struct yolk_conductor *c,
                            const struct yolk_place_request *request, uint32_t holder, uint32_t hit)
{
    if (!c->ssd_seen || hit == 0 || !c->ends_slow[holder]) return 0;
    return hit - conductor_index_fast(c->index, holder, request->keys, hit);
}

/* Until what it sends to others is through, if it goes as predicted. */
static double sending_ms(const struct yolk_conductor *c, const struct instance *instance,
                         double now_ms)
{
    if (!c->options.congestion || instance->sending_until_ms <= now_ms) return 0;
    return instance->sending_until_ms - now_ms;
}

/* Blocks of the longest prefix that anybody holds. */
static uint32_t most_matched(const struct yolk_conductor *c)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < c->options.instances_max; i++)
        if (c->matched[i] > most) most = c->matched[i];
    return most;
}

/* The rank that the request would have there, if it reused so many blocks. */
static struct queue_rank rank_of(const struct yolk_conductor *c, const struct instance *instance,
                                 const struct yolk_place_request *request, uint32_t blocks,
                                 double now_ms)
{
    if (c->options.stretch == 0) return (struct queue_rank){ request->priority, now_ms };
    const double reused = (double)blocks * c->options.block_tokens;
    const double own_ms = conductor_cost_prefill(&instance->prefill_fit, request->tokens, reused);
    return (struct queue_rank){ request->priority, conductor_order_ms(c, now_ms, own_ms) };
}

/* Both lines that gather() reads of an instance are on their way before it is their turn. */
static void look_ahead(const struct yolk_conductor *c, uint32_t i)
{
    if (i >= c->options.instances_max) return;
    __builtin_prefetch(&c->instances[i]);
    __builtin_prefetch(&c->instances[i].pages_max);
}

enum { AHEAD = 8 };

static struct candidates gather(struct yolk_conductor *c, const struct yolk_place_request *request,
                                double now_ms)
{
    struct candidates found = { 0 };
    const uint32_t most = c->options.stretch > 0 ? most_matched(c) : 0;
    const unsigned up = roles_up(c, request);
    const uint32_t pages = pages_most(c, request), reserved = conductor_pages_reserved(c, request);

    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        const struct instance *instance = &c->instances[i];
        look_ahead(c, i + AHEAD);
        if (!instance->used || instance->suspected) continue;
        const uint32_t hit = i == request->avoid_holder.index ? 0 : c->matched[i];
        const uint32_t slow = slow_blocks(c, request, i, hit);
        if (hit > 0) {
            const double busy_ms = sending_ms(c, instance, now_ms);
            c->holders[found.holders++] = (struct conductor_holder){ .instance = i,
                                                                     .host = instance->host,
                                                                     .blocks = hit,
                                                                     .slow_blocks = slow,
                                                                     .busy_ms = busy_ms };
            found.uneven |= slow > 0 || busy_ms > 0;
        }
        if (!conductor_open(instance)) continue;
        const bool prefills = (instance->roles & YOLK_ROLE_PREFILL) || !(up & YOLK_ROLE_PREFILL);
        const bool decodes = (instance->roles & YOLK_ROLE_DECODE) || !(up & YOLK_ROLE_DECODE);
        if (prefills && i != request->avoid_prefill.index) {
            const struct queue_rank rank = rank_of(c, instance, request, most, now_ms);
            const struct queue_view queue = conductor_queue(c, instance, rank, now_ms);
            c->prefill[found.prefill++] = (struct conductor_prefill_candidate){
                .instance = i,
                .host = instance->host,
                .hit_blocks = hit,
                .queued = queue.requests,
                .queue_ms = queue.ms + step_ms(instance),
                .fit = &instance->prefill_fit,
                .slow_blocks = slow,
                .both = is_both(instance),
            };
        }
        if (decodes && i != request->avoid_decode.index)
            gather_decode(c, i, pages, reserved, &found);
    }
    return found;
}

/* Why this request cannot be placed now, or STATUS_OK. */
static enum status refuse(struct yolk_conductor *c, const struct candidates *found)
{
    if (found->prefill == 0 || !found->decode_up) {
        c->stats.refused_unavailable++;
        return STATUS_UNAVAILABLE;
    }
    if (!found->decode_possible) return STATUS_INVALID;
    if (found->decode == 0 || c->free_ticket == NONE) {
        c->stats.refused_full++;
        return STATUS_FULL;
    }
    return STATUS_OK;
}

/* Returns how many blocks were looked up. */
static uint32_t match(struct yolk_conductor *c, const struct yolk_place_request *request)
{
    const uint32_t limit = conductor_reusable_blocks(request->tokens, c->options.block_tokens);
    const uint32_t keyed = request->keys_count < limit ? request->keys_count : limit;
    const uint32_t count = c->options.reuse ? keyed : 0;

    conductor_index_match(c->index, request->keys, count, c->matched);
    if (c->ssd_seen) conductor_index_ends(c->index, request->keys, c->matched, c->ends_slow);
    return count;
}

/* Of the decision that will be the next: asked twice, the same. */
static uint64_t draw(const struct yolk_conductor *c)
{
    const bool random = c->options.placement == YOLK_PLACEMENT_RANDOM;
    return random ? rng_counter(c->options.seed, c->decisions_count) : c->decisions_count;
}

enum status conductor_propose(struct yolk_conductor *c, const struct yolk_place_request *request,
                              double now_ms, struct proposal *out)
{
    ASSERT(request->tokens > 0 && isfinite(now_ms));
    ASSERT(request->priority >= YOLK_PRIORITY_MIN && request->priority <= YOLK_PRIORITY_MAX);

    out->reusable_blocks = match(c, request);
    out->found = gather(c, request, now_ms);
    const enum status refused = refuse(c, &out->found);
    if (refused != STATUS_OK) return refused;
    const struct conductor_place_input input = {
        .prefill = c->prefill,
        .prefill_count = out->found.prefill,
        .decode = c->decode,
        .decode_count = out->found.decode,
        .holders = c->holders,
        .holders_count = out->found.holders,
        .on_host = c->on_host,
        .next = c->next_holder,
        .hosts_max = c->options.instances_max,
        .transfer = c->profile.transfer,
        .load = &c->profile.ssd,
        .uneven = out->found.uneven,
        .tokens = request->tokens,
        .block_tokens = c->options.block_tokens,
        .block_size = c->options.block_size,
        .theta = c->options.theta,
        .placement = c->options.placement,
        .draw = draw(c),
    };
    conductor_place(&input, &out->placed);
    out->inlined =
        out->placed.coupled || conductor_inline_choose(c, request, &out->found, &out->placed);
    if (out->inlined)
        out->group = (struct proposed_group){ 1, { out->placed.prefill }, { 0 } };
    else
        conductor_group_choose(c, request, &out->found, &out->placed, &out->group);
    return STATUS_OK;
}
