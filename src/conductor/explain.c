/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/explain.c - what is kept of each decision, to say later what else there was, what it
 * would have cost, and why blocks were missed. The definitions are in yolk/explain.h.
 *
 * Records lie in a ring beside the decisions: record n at n % decisions_max. Nothing here changes a
 * decision.
 *
 * A prompt's blocks are told apart from the front: held and used, held and declined, and behind
 * these the runs that each memory knows, nearest to a hit first. The runs are stored as counts in
 * that order (the order of enum yolk_miss), so that blocks that turn out to be there after all are
 * taken from the front. */
#include "conductor/conductor_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "conductor/drain.h"
#include "conductor/ghost.h"
#include "conductor/hits.h"
#include "conductor/occupancy.h"
#include "conductor/seen.h"
#include "yolk/explain.h"

enum { GHOSTS_MIN = 1 << 10, GHOSTS_MAX = 1 << 20 };
static_assert((int)YOLK_CANDIDATES == (int)CONDUCTOR_RANKED, "what is ranked is kept");

struct record {
    struct yolk_explanation shown;
    /* Of shown.prefill[i]. */
    struct drain_place place[YOLK_CANDIDATES];
    uint32_t moved_blocks[YOLK_CANDIDATES];
    bool near[YOLK_CANDIDATES];
    double load_ms[YOLK_CANDIDATES]; /* predicted beside the moving */
    /* Of shown.decode[i], since the decision; once it decodes, since then. */
    struct occupancy_mark mark[YOLK_CANDIDATES];
    double decoding_ms; /* when it began; negative: it has not */
    uint32_t tokens;
    double placed_ms;
    enum yolk_miss shortfall;
    bool told; /* of a shortfall */
};

struct explain {
    uint32_t records_max;
    struct record *records;
    struct ghost *ghost;
    struct seen *seen;
    struct drain *drain;
    struct occupancy *occupancy;
    struct hits hits;
    struct yolk_explain_stats stats;
};

const char *yolk_miss_name(enum yolk_miss miss)
{
    static const char *const NAMES[YOLK_MISSES] = { "declined",   "evicted", "pending",
                                                    "layout",     "salt",    "template",
                                                    "never_seen", "timeout", "failed" };
    ASSERT((int)miss >= 0 && (int)miss < YOLK_MISSES);
    return NAMES[miss];
}

/* ---- making ---- */

static uint32_t ghosts_for(uint32_t holdings_max)
{
    const uint32_t names = holdings_max / 4;
    if (names < GHOSTS_MIN) return GHOSTS_MIN;
    return names < GHOSTS_MAX ? names : GHOSTS_MAX;
}

enum status conductor_explain_create(const struct yolk_conductor_options *options,
                                     struct explain **out)
{
    struct explain *e = calloc(1, sizeof(*e));

    if (e == NULL) return STATUS_NO_MEMORY;
    e->records_max = options->decisions_max;
    e->records = calloc(e->records_max, sizeof(*e->records));
    if (e->records == NULL ||
        ghost_create(ghosts_for(options->holdings_max), &e->ghost) != STATUS_OK ||
        seen_create(&e->seen) != STATUS_OK ||
        drain_create(options->instances_max, &e->drain) != STATUS_OK ||
        occupancy_create(options->instances_max, &e->occupancy) != STATUS_OK) {
        conductor_explain_destroy(e);
        return STATUS_NO_MEMORY;
    }
    e->stats.bytes = sizeof(*e) + e->records_max * sizeof(*e->records) + ghost_bytes(e->ghost) +
                     seen_bytes(e->seen) + drain_bytes(e->drain) + occupancy_bytes(e->occupancy);
    *out = e;
    return STATUS_OK;
}

void conductor_explain_destroy(struct explain *e)
{
    if (e == NULL) return;
    occupancy_destroy(e->occupancy);
    drain_destroy(e->drain);
    seen_destroy(e->seen);
    ghost_destroy(e->ghost);
    free(e->records);
    free(e);
}

uint64_t conductor_explain_bytes(const struct explain *e)
{
    return e->stats.bytes;
}

struct ghost *conductor_explain_ghost(struct explain *e)
{
    return e->ghost;
}

void conductor_explain_instance(struct yolk_conductor *c, uint32_t instance)
{
    drain_begin(c->explain->drain, instance);
    occupancy_begin(c->explain->occupancy, instance);
}

void conductor_explain_left(struct yolk_conductor *c, uint32_t instance, double now_ms)
{
    drain_left(c->explain->drain, instance, now_ms);
}

/* The record of a ticket, while the ring has it; NULL when it does not. */
static struct record *record_of(const struct yolk_conductor *c, const struct ticket *ticket)
{
    ASSERT(ticket->decision < c->decisions_count);
    if (c->decisions_count - ticket->decision > c->explain->records_max) return NULL;
    return &c->explain->records[ticket->decision % c->explain->records_max];
}

/* ---- misses ---- */

/* Of the keys from `from` to `to`, the end of those that somebody once held: by doubling and
 * halving, for chains are evicted from their ends. */
static uint32_t evicted_to(const struct ghost *ghost, const struct block_key *keys, uint32_t from,
                           uint32_t to)
{
    uint32_t low = from, high = from, stride = 1;

    while (high < to && ghost_has(ghost, block_key_hash(&keys[high]))) {
        low = high + 1;
        high = to - high > stride ? high + stride : to;
        stride *= 2;
    }
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (ghost_has(ghost, block_key_hash(&keys[middle]))) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Why blocks [from, to) are nobody's. */
static void tell_apart(const struct explain *e, const struct yolk_place_request *request,
                       uint32_t from, uint32_t to, uint32_t missed[YOLK_MISSES])
{
    const struct yolk_prompt *prompt = request->prompt;
    uint32_t end = evicted_to(e->ghost, request->keys, from, to);

    missed[YOLK_MISS_EVICTED] = end - from;
    if (prompt != NULL && end < to) {
        enum yolk_miss other = YOLK_MISS_SALT;
        const uint32_t same_to = seen_same(e->seen, prompt, end, to);
        const uint32_t other_to = seen_other(e->seen, prompt, same_to, to, &other);
        const uint32_t text_to = seen_text(e->seen, prompt, other_to, to);
        missed[YOLK_MISS_PENDING] = same_to - end;
        missed[other] = other_to - same_to;
        missed[YOLK_MISS_TEMPLATE] = text_to - other_to;
        end = text_to;
    }
    missed[YOLK_MISS_NEVER_SEEN] = to - end;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void explain_blocks(struct explain *e, const struct yolk_place_request *request,
                           const struct proposal *proposal, struct yolk_explanation *out)
{
    const uint32_t to = proposal->reusable_blocks;
    const uint32_t predicted = smaller(proposal->placed.reuse_blocks, to);
    const uint32_t best = smaller(proposal->placed.best_blocks, to);

    out->reusable_blocks = to;
    out->predicted_blocks = predicted;
    out->realised_blocks = -1;
    if (to == 0) return;
    ASSERT(predicted <= best);
    out->missed[YOLK_MISS_DECLINED] = best - predicted;
    tell_apart(e, request, best, to, out->missed);
    if (request->prompt != NULL) seen_note(e->seen, request->prompt, request->keys_count);
}

/* `more` blocks were there after all. */
static void take_back(uint32_t missed[YOLK_MISSES], uint32_t more)
{
    for (int i = 0; i < YOLK_MISSES && more > 0; i++) {
        const uint32_t taken = smaller(more, missed[i]);
        missed[i] -= taken;
        more -= taken;
    }
    ASSERT(more == 0);
}

static void count_blocks(struct explain *e, const struct yolk_explanation *shown, uint32_t kept)
{
    e->stats.reusable_blocks += shown->reusable_blocks;
    e->stats.predicted_blocks += shown->predicted_blocks;
    e->stats.kept_blocks += kept;
    e->stats.realised_blocks += (uint64_t)shown->realised_blocks;
    for (int i = 0; i < YOLK_MISSES; i++)
        e->stats.missed[i] += shown->missed[i];
}

static void settle_hits(struct explain *e, struct record *record, uint32_t cached_blocks)
{
    struct yolk_explanation *shown = &record->shown;
    const uint32_t realised = smaller(cached_blocks, shown->reusable_blocks);
    const uint32_t kept = smaller(realised, shown->predicted_blocks);

    ASSERT(shown->realised_blocks < 0);
    shown->realised_blocks = realised;
    shown->missed[record->shortfall] += shown->predicted_blocks - kept;
    take_back(shown->missed, realised - kept);
    count_blocks(e, shown, kept);
    if (shown->predicted_blocks > 0) {
        hits_add(&e->hits, shown->predicted_blocks, kept, record->shortfall);
    }
}

void conductor_explain_prefilled(struct yolk_conductor *c, const struct ticket *ticket,
                                 uint32_t cached_tokens)
{
    struct record *record = record_of(c, ticket);

    if (record == NULL) return;
    settle_hits(c->explain, record, cached_tokens / c->options.block_tokens);
}

void yolk_conductor_missed(struct yolk_conductor *c, struct yolk_ticket id, enum yolk_miss why)
{
    const struct ticket *ticket = conductor_ticket(c, id);
    struct record *record = record_of(c, ticket);

    ASSERT(ticket->state == TICKET_PREFILLING);
    ASSERT(why == YOLK_MISS_EVICTED || why == YOLK_MISS_TIMEOUT || why == YOLK_MISS_FAILED);
    if (record == NULL) return;
    record->shortfall = why;
    record->told = true;
}

void yolk_conductor_note_prompt(struct yolk_conductor *c, const struct yolk_prompt *prompt,
                                uint32_t blocks)
{
    seen_note(c->explain->seen, prompt, blocks);
}

void yolk_conductor_inherit(struct yolk_conductor *c, struct yolk_conductor *old)
{
    struct seen *seen = c->explain->seen;

    ASSERT(c != old);
    c->explain->seen = old->explain->seen;
    old->explain->seen = seen;
}

/* ---- candidates ---- */

/* What the fetch of candidate i takes on its path, by the model as it is. */
static double moving_ms(const struct yolk_conductor *c, const struct record *record, uint32_t i)
{
    const double bytes = (double)record->moved_blocks[i] * (double)c->options.block_size;
    const enum yolk_path path = record->near[i] ? YOLK_PATH_HOST : YOLK_PATH_NETWORK;

    return bytes > 0 ? conductor_cost_transfer(&c->profile.transfer[path], bytes) : 0;
}

static void keep_prefill(struct yolk_conductor *c, const struct conductor_place_output *placed,
                         struct record *record, uint32_t i)
{
    const struct conductor_ranked_prefill *way = &placed->ranked_prefill[i];
    const struct conductor_prefill_candidate *candidate = &c->prefill[way->position];
    const struct instance *instance = &c->instances[candidate->instance];
    struct yolk_prefill_candidate *shown = &record->shown.prefill[i];
    const bool fetches = way->holder != CONDUCTOR_NO_HOLDER;

    *shown = (struct yolk_prefill_candidate){ .reuse_blocks = way->reuse_blocks,
                                              .queue_ms = way->queue_ms,
                                              .transfer_ms = way->transfer_ms,
                                              .compute_ms = way->compute_ms,
                                              .ttft_ms = way->ttft_ms,
                                              .samples = candidate->fit->samples,
                                              .hindsight_ms = -1 };
    memcpy(shown->name, instance->name, sizeof(shown->name));
    if (fetches) memcpy(shown->holder_name, c->instances[way->holder].name, YOLK_NAME_SIZE);
    record->place[i] = drain_join(c->explain->drain, candidate->instance, candidate->queued);
    record->moved_blocks[i] = fetches && way->reuse_blocks > candidate->hit_blocks
                                  ? way->reuse_blocks - candidate->hit_blocks
                                  : 0;
    record->near[i] = way->near;
    record->load_ms[i] = way->transfer_ms - moving_ms(c, record, i);
}

/* What it decodes, who waits at its door left out. */
static struct occupancy_now batch_of(const struct instance *instance, double now_ms)
{
    return (struct occupancy_now){
        .sequences = (double)(instance->decoding - instance->at_door),
        .context_tokens = (double)(instance->decoding_tokens - instance->at_door_tokens),
        .ms = now_ms,
    };
}

static void keep_decode(struct yolk_conductor *c, const struct conductor_place_output *placed,
                        struct record *record, uint32_t i)
{
    const struct conductor_decode_candidate *candidate =
        &c->decode[placed->ranked_decode[i].position];
    struct yolk_decode_candidate *shown = &record->shown.decode[i];

    *shown = (struct yolk_decode_candidate){ .sequences = candidate->sequences,
                                             .context_tokens = candidate->context_tokens,
                                             .samples = candidate->fit->samples,
                                             .tbt_ms = placed->ranked_decode[i].tbt_ms,
                                             .hindsight_ms = -1 };
    const struct occupancy_now now =
        batch_of(&c->instances[candidate->instance], record->placed_ms);
    record->mark[i] = occupancy_mark(c->explain->occupancy, candidate->instance, &now);
    memcpy(shown->name, c->instances[candidate->instance].name, sizeof(shown->name));
}

void conductor_explain_decided(struct yolk_conductor *c, const struct yolk_place_request *request,
                               const struct proposal *proposal, double now_ms)
{
    struct explain *e = c->explain;
    struct record *record = &e->records[c->decisions_count % e->records_max];
    const struct conductor_place_output *placed = &proposal->placed;

    *record = (struct record){
        .shown = { .prefill_count = placed->ranked_prefill_count,
                   .decode_count = placed->ranked_decode_count,
                   .regret_ms = -1,
                   .tbt_regret_ms = -1 },
        .decoding_ms = -1,
        .tokens = request->tokens,
        .placed_ms = now_ms,
        .shortfall = YOLK_MISS_EVICTED,
    };
    for (uint32_t i = 0; i < placed->ranked_prefill_count; i++)
        keep_prefill(c, placed, record, i);
    for (uint32_t i = 0; i < placed->ranked_decode_count; i++)
        keep_decode(c, placed, record, i);
    explain_blocks(e, request, proposal, &record->shown);
}

/* ---- regret ---- */

struct judgement {
    double hindsight_ms[YOLK_CANDIDATES];
    double regret_ms, spread_ms;
};

/* Transfer and prefill at candidate i, as the model sees them now; the instance is there. */
static double own_ms(const struct yolk_conductor *c, const struct record *record, uint32_t i,
                     double *spread_ms)
{
    const struct conductor_fit *fit = &c->instances[record->place[i].instance].prefill_fit;
    const double reused = (double)record->shown.prefill[i].reuse_blocks * c->options.block_tokens;
    const double compute = conductor_cost_prefill(fit, record->tokens, reused);

    *spread_ms = conductor_cost_spread(fit, compute);
    return compute + fmax(0, moving_ms(c, record, i) + record->load_ms[i]);
}

static struct judgement judge(const struct yolk_conductor *c, const struct record *record,
                              double actual_ms)
{
    struct judgement judged = { .hindsight_ms = { actual_ms } };
    double best = INFINITY;

    for (uint32_t i = 1; i < record->shown.prefill_count; i++) {
        const double free_ms =
            drain_free_ms(c->explain->drain, &record->place[i], record->placed_ms);
        double spread = 0;
        judged.hindsight_ms[i] = isfinite(free_ms)
                                     ? free_ms - record->placed_ms + own_ms(c, record, i, &spread)
                                     : INFINITY;
        if (judged.hindsight_ms[i] >= best) continue;
        best = judged.hindsight_ms[i];
        judged.spread_ms = spread;
    }
    judged.regret_ms = best < actual_ms ? actual_ms - best : 0;
    return judged;
}

/* Negative when prefill has not ended. */
static double actual_of(const struct yolk_conductor *c, const struct ticket *ticket)
{
    ASSERT(record_of(c, ticket) != NULL); /* the rings are of one length */
    return c->decisions[ticket->decision % c->options.decisions_max].actual_ttft_ms;
}

double yolk_conductor_regret(const struct yolk_conductor *c, struct yolk_ticket id)
{
    const struct ticket *ticket = conductor_ticket(c, id);
    const struct record *record = record_of(c, ticket);

    if (record == NULL || actual_of(c, ticket) < 0) return -1;
    return judge(c, record, actual_of(c, ticket)).regret_ms;
}

/* ---- regret of the time between tokens ---- */

void conductor_explain_batch(struct yolk_conductor *c, int32_t instance, double now_ms)
{
    if (instance == NONE) return;
    const struct occupancy_now now = batch_of(&c->instances[instance], now_ms);
    occupancy_note(c->explain->occupancy, (uint32_t)instance, &now);
}

void conductor_explain_decoding(struct yolk_conductor *c, const struct ticket *ticket,
                                double now_ms)
{
    struct record *record = record_of(c, ticket);

    if (record == NULL) return;
    ASSERT(record->decoding_ms < 0);
    record->decoding_ms = now_ms;
    for (uint32_t i = 0; i < record->shown.decode_count; i++) {
        struct occupancy_mark *mark = &record->mark[i];
        const struct occupancy_now now = batch_of(&c->instances[mark->instance], now_ms);
        if (!occupancy_valid(c->explain->occupancy, mark)) continue;
        *mark = occupancy_mark(c->explain->occupancy, mark->instance, &now);
    }
}

/* A step at candidate i with this sequence, as it was there on the mean; INFINITY: it has left. */
static double step_ms(const struct yolk_conductor *c, const struct record *record, uint32_t i,
                      double own_tokens, double now_ms, double *spread_ms)
{
    const struct occupancy_mark *mark = &record->mark[i];
    const struct instance *instance = &c->instances[mark->instance];
    const struct occupancy_now now = batch_of(instance, now_ms);
    double sequences, context;

    if (!occupancy_mean(c->explain->occupancy, mark, &now, &sequences, &context)) return INFINITY;
    const double ms =
        conductor_cost_decode(&instance->decode_fit, sequences + 1, context + own_tokens);
    *spread_ms = conductor_cost_spread(&instance->decode_fit, ms);
    return ms;
}

/* False when there is nothing to judge. */
static bool judge_decode(const struct yolk_conductor *c, const struct record *record,
                         const struct ticket *ticket, double now_ms, struct judgement *out)
{
    double best = INFINITY;

    if (record->decoding_ms < 0 || ticket->output_tokens < 2 || now_ms <= record->decoding_ms) {
        return false;
    }
    const double actual_ms = (now_ms - record->decoding_ms) / (ticket->output_tokens - 1);
    *out = (struct judgement){ .hindsight_ms = { actual_ms } };
    for (uint32_t i = 1; i < record->shown.decode_count; i++) {
        const double own_tokens = record->tokens + ticket->output_tokens / 2.0;
        double spread = 0;
        out->hindsight_ms[i] = step_ms(c, record, i, own_tokens, now_ms, &spread);
        if (out->hindsight_ms[i] >= best) continue;
        best = out->hindsight_ms[i];
        out->spread_ms = spread;
    }
    out->regret_ms = best < actual_ms ? actual_ms - best : 0;
    return true;
}

double yolk_conductor_tbt_regret(const struct yolk_conductor *c, struct yolk_ticket id,
                                 double now_ms)
{
    const struct ticket *ticket = conductor_ticket(c, id);
    const struct record *record = record_of(c, ticket);
    struct judgement judged;

    if (record == NULL || !judge_decode(c, record, ticket, now_ms, &judged)) return -1;
    return judged.regret_ms;
}

static void settle_decode(struct yolk_conductor *c, struct record *record,
                          const struct ticket *ticket, double now_ms)
{
    struct yolk_explain_stats *stats = &c->explain->stats;
    struct judgement judged;

    if (!judge_decode(c, record, ticket, now_ms, &judged)) return;
    for (uint32_t i = 0; i < record->shown.decode_count; i++)
        record->shown.decode[i].hindsight_ms = judged.hindsight_ms[i];
    record->shown.tbt_regret_ms = judged.regret_ms;
    record->shown.tbt_regret_spread_ms = judged.spread_ms;
    stats->tbt_judged++;
    stats->tbt_wrong += judged.regret_ms > judged.spread_ms;
    stats->tbt_regret_ms += judged.regret_ms;
}

void conductor_explain_ended(struct yolk_conductor *c, const struct ticket *ticket,
                             enum status outcome, double now_ms)
{
    struct explain *e = c->explain;
    struct record *record = record_of(c, ticket);

    if (record == NULL) return;
    if (outcome == STATUS_OK) settle_decode(c, record, ticket, now_ms);
    if (record->told && record->shown.realised_blocks < 0) settle_hits(e, record, 0);
    if (actual_of(c, ticket) < 0) return;
    const struct judgement judged = judge(c, record, actual_of(c, ticket));
    for (uint32_t i = 0; i < record->shown.prefill_count; i++)
        record->shown.prefill[i].hindsight_ms = judged.hindsight_ms[i];
    record->shown.regret_ms = judged.regret_ms;
    record->shown.regret_spread_ms = judged.spread_ms;
    e->stats.judged++;
    e->stats.wrong += judged.regret_ms > judged.spread_ms;
    e->stats.regret_ms += judged.regret_ms;
}

/* ---- asking ---- */

bool yolk_conductor_explanation(const struct yolk_conductor *c, uint32_t age,
                                struct yolk_explanation *out)
{
    if (age >= c->decisions_count || age >= c->explain->records_max) return false;
    *out = c->explain->records[(c->decisions_count - 1 - age) % c->explain->records_max].shown;
    return true;
}

void yolk_conductor_explain_stats(const struct yolk_conductor *c, struct yolk_explain_stats *out)
{
    const struct hits *hits = &c->explain->hits;

    *out = c->explain->stats;
    out->window_requests = hits_requests(hits);
    out->window_predicted = hits->predicted;
    out->window_kept = hits->kept;
    out->window_why = hits_why(hits);
    out->alarm = hits->alarm;
    out->alarms = hits->alarms;
}
