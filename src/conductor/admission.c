/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/admission.c - see the header for the policies; here is their arithmetic.
 *
 * A flight is a request that was accepted and has not ended. Flights lie densely in an array, so
 * that a forecast is one pass over it.
 *
 *     take_off --> FLYING, not joined -- join --> joined -- land --> (gone)
 *                        +------------------------- land ------------->
 *
 * Invariants
 *   I1  position[ticket] is the index of its flight in flights[0..count), or NONE.
 *   I2  a verdict that accepts has no load above its gate, and no gate is above 1.
 *   I3  margins stay within 0..MARGIN_MAX, pressure within 0..1. */
#include "conductor/admission.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "conductor/lengths.h"

static const uint32_t NONE = UINT32_MAX;
enum { BATCH_MAX = 1 << 16 };

static const double MARGIN_START = 1.2816; /* the 90th percentile of a normal distribution */
static const double MARGIN_MAX = 4;
static const double MARGIN_STEP = 0.1;
static const double LATE_TARGET = 0.01;   /* share of accepted requests that may be late */
static const double PRESSURE_STEP = 0.02; /* of a mean over about 50 judgements */
static const double DOOR_TARGET = 0.3;    /* share that may wait at the door */
static const double COST_STEP = 0.02;     /* of the mean cost of requests */
static const double COST_SPAN = 1;        /* 1 + this times the mean cost is the costliest kind */
/* Of the room, and from which pressure on it is all kept. A prefill keeps everybody behind it
 * waiting, an answer only takes a place: so more is kept, and earlier, of the queues. */
static const struct reserve {
    double room, pressure_full;
} RESERVE_PREFILL = { 0.75, 0.05 }, RESERVE_DECODE = { 0.25, 0.2 };
static const double DECODE_MS_GUESS = 10000; /* t_d before anybody has decoded */
static const double DECODE_MS_WINDOW = 1000; /* t_d is the mean over about so many */
static const double RETRY_MS_MIN = 100;      /* forecasts for retries start here and double */
static const double RETRY_MS_MAX = 60000;
static const double LATER_SHARE = 0.25; /* adaptive: so far into its own decoding it looks */

struct flight {
    struct admission_flight is;
    uint32_t ticket;
};

struct admission {
    struct yolk_admission_options options;
    struct lengths *lengths;
    struct flight *flights;
    uint32_t count;
    uint32_t *position; /* by ticket */
    uint32_t tickets_max, instances_max;
    /* Scratch of a forecast, by instance. */
    double *leaving;         /* sequences that will be gone */
    double *leaving_context; /* and their tokens */
    /* What was learned. */
    double decode_ms;
    uint64_t decode_samples;
    double margin_ttft, margin_tbt;
    double pressure;                    /* share of refusals of late */
    double pressure_ttft, pressure_tbt; /* the same, by what they were for */
    double mean_own_ms, mean_output;
    struct yolk_admission_stats counts;
};

/* ---- making ---- */

enum status admission_create(uint32_t tickets_max, uint32_t instances_max, struct admission **out)
{
    ASSERT(tickets_max > 0 && instances_max > 0);
    struct admission *a = calloc(1, sizeof(*a));

    if (a == NULL) return STATUS_NO_MEMORY;
    a->tickets_max = tickets_max;
    a->instances_max = instances_max;
    a->flights = calloc(tickets_max, sizeof(*a->flights));
    a->position = malloc(tickets_max * sizeof(*a->position));
    a->leaving = calloc(instances_max, sizeof(*a->leaving));
    a->leaving_context = calloc(instances_max, sizeof(*a->leaving_context));
    if (!a->flights || !a->position || !a->leaving || !a->leaving_context ||
        lengths_create(&a->lengths) != STATUS_OK) {
        admission_destroy(a);
        return STATUS_NO_MEMORY;
    }
    memset(a->position, 0xff, tickets_max * sizeof(*a->position));
    a->decode_ms = DECODE_MS_GUESS;
    a->margin_ttft = MARGIN_START;
    a->margin_tbt = MARGIN_START;
    *out = a;
    return STATUS_OK;
}

void admission_destroy(struct admission *a)
{
    if (a == NULL) return;
    lengths_destroy(a->lengths);
    free(a->flights);
    free(a->position);
    free(a->leaving);
    free(a->leaving_context);
    free(a);
}

uint64_t admission_bytes(const struct admission *a)
{
    const uint64_t per_ticket = sizeof(*a->flights) + sizeof(*a->position);
    const uint64_t per_instance = sizeof(*a->leaving) + sizeof(*a->leaving_context);
    return sizeof(*a) + lengths_bytes() + per_ticket * a->tickets_max +
           per_instance * a->instances_max;
}

void admission_set(struct admission *a, const struct yolk_admission_options *options)
{
    ASSERT((int)options->policy >= 0 && (int)options->policy < YOLK_POLICIES);
    ASSERT(options->ttft_ms >= 0 && options->tbt_ms >= 0);
    a->options = *options;
}

bool admission_active(const struct admission *a)
{
    return admission_policed(a) && (a->options.ttft_ms > 0 || a->options.tbt_ms > 0);
}

bool admission_policed(const struct admission *a)
{
    return a->options.policy != YOLK_POLICY_NONE;
}

uint32_t admission_class(struct admission *a, const char *tenant, const char *route, uint64_t app)
{
    return lengths_class(a->lengths, tenant, route, app);
}

uint32_t admission_answer_tokens(const struct admission *a, uint32_t class_index, double share)
{
    return lengths_quantile(a->lengths, class_index, share);
}

/* ---- limits: INFINITY is none ---- */

static double limit_of(double own, double general)
{
    if (own > 0) return own;
    return general > 0 ? general : INFINITY;
}

double admission_ttft_limit(const struct admission *a)
{
    return limit_of(0, a->options.ttft_ms);
}

static double ttft_limit(const struct admission *a, const struct admission_flight *flight)
{
    return limit_of(flight->ttft_ms, a->options.ttft_ms);
}

static double tbt_limit(const struct admission *a, const struct admission_flight *flight)
{
    return limit_of(flight->tbt_ms, a->options.tbt_ms);
}

/* The tightest limit between tokens of those under way, on one instance or, with NONE, on any. One
 * who joins slows all of them down. */
static double tightest(const struct admission *a, uint32_t decode)
{
    double limit = INFINITY;

    for (uint32_t i = 0; i < a->count; i++) {
        const struct admission_flight *flight = &a->flights[i].is;
        if (flight->decode == NONE || (decode != NONE && flight->decode != decode)) continue;
        limit = fmin(limit, tbt_limit(a, flight));
    }
    return limit;
}

/* The question with the limits that hold for it: its own, and between tokens also those of whom it
 * would join. */
static struct admission_question resolve(const struct admission *a,
                                         const struct admission_question *given)
{
    const bool adaptive = a->options.policy == YOLK_POLICY_ADAPTIVE;
    struct admission_question q = *given;

    q.ttft_ms = limit_of(given->ttft_ms, a->options.ttft_ms);
    q.tbt_ms = limit_of(given->tbt_ms, a->options.tbt_ms);
    q.tbt_ms = fmin(q.tbt_ms, tightest(a, adaptive ? given->decode : NONE));
    ASSERT(q.ttft_ms > 0 && q.tbt_ms > 0);
    return q;
}

/* ---- flights ---- */

static struct flight *flight_of(struct admission *a, uint32_t ticket)
{
    ASSERT(ticket < a->tickets_max);
    const uint32_t at = a->position[ticket];

    if (at == NONE) return NULL;
    ASSERT(at < a->count && a->flights[at].ticket == ticket); /* I1 */
    return &a->flights[at];
}

void admission_take_off(struct admission *a, uint32_t ticket, const struct admission_flight *flight)
{
    ASSERT(flight_of(a, ticket) == NULL && a->count < a->tickets_max);
    ASSERT(flight->decode < a->instances_max && isfinite(flight->join_ms));
    a->flights[a->count] = (struct flight){ *flight, ticket };
    a->position[ticket] = a->count++;
    lengths_charge(a->lengths, flight->class_index, flight->tokens);
}

/* Settles where a share `target` is late. */
static void adjust_margin(double *margin, bool late, double target)
{
    *margin += late ? MARGIN_STEP : -MARGIN_STEP * target / (1 - target);
    if (*margin < 0) *margin = 0;
    if (*margin > MARGIN_MAX) *margin = MARGIN_MAX;
}

bool admission_has_door(const struct admission *a)
{
    return a->options.door && a->options.policy == YOLK_POLICY_ADAPTIVE;
}

/* Its first token goes out. */
static void start(struct admission *a, struct flight *flight, double now_ms)
{
    const double limit = ttft_limit(a, &flight->is);

    ASSERT(flight->is.joined && !flight->is.started);
    flight->is.started = true;
    flight->is.join_ms = now_ms;
    if (isinf(limit)) return;
    const bool late = now_ms - flight->is.arrived_ms > limit;
    a->counts.late_ttft += late;
    adjust_margin(&a->margin_ttft, late, LATE_TARGET);
}

void admission_join(struct admission *a, uint32_t ticket, double now_ms)
{
    struct flight *flight = flight_of(a, ticket);

    if (flight == NULL) return;
    ASSERT(!flight->is.joined);
    flight->is.joined = true;
    flight->is.join_ms = now_ms;
    if (!admission_has_door(a)) start(a, flight, now_ms);
}

void admission_start(struct admission *a, uint32_t ticket, double now_ms)
{
    struct flight *flight = flight_of(a, ticket);

    if (flight == NULL || flight->is.started) return;
    const double step_ms = tbt_limit(a, &flight->is); /* one may be under way */
    if (admission_has_door(a) && isfinite(step_ms)) {
        adjust_margin(&a->margin_tbt, now_ms - flight->is.join_ms > step_ms, DOOR_TARGET);
    }
    start(a, flight, now_ms);
}

void admission_grow(struct admission *a, uint32_t ticket, uint32_t tokens)
{
    struct flight *flight = flight_of(a, ticket);

    if (flight == NULL) return;
    flight->is.tokens += tokens;
    flight->is.output_tokens += tokens;
}

void admission_detach(struct admission *a, uint32_t ticket)
{
    struct flight *flight = flight_of(a, ticket);
    if (flight != NULL) flight->is.decode = NONE;
}

void admission_move(struct admission *a, uint32_t ticket, uint32_t decode)
{
    struct flight *flight = flight_of(a, ticket);
    ASSERT(decode < a->instances_max);
    if (flight != NULL) flight->is.decode = decode;
}

/* A sequence that joined has ended by itself. */
static void learn(struct admission *a, const struct admission_flight *flight, double now_ms)
{
    const double decoded_ms = now_ms > flight->join_ms ? now_ms - flight->join_ms : 0;
    const double limit = tbt_limit(a, flight);

    a->decode_samples++;
    const double window =
        (double)a->decode_samples < DECODE_MS_WINDOW ? (double)a->decode_samples : DECODE_MS_WINDOW;
    a->decode_ms += (decoded_ms - a->decode_ms) / window;
    ASSERT(a->decode_ms >= 0);
    lengths_learn(a->lengths, flight->class_index, flight->output_tokens);
    a->counts.ended++;
    if (isinf(limit) || flight->output_tokens < 2) return;
    const bool late = decoded_ms / (flight->output_tokens - 1) > limit;
    a->counts.late_tbt += late;
    if (!admission_has_door(a)) adjust_margin(&a->margin_tbt, late, LATE_TARGET);
}

void admission_land(struct admission *a, uint32_t ticket, bool complete, double now_ms)
{
    const struct flight *flight = flight_of(a, ticket);

    if (flight == NULL) return;
    if (complete && flight->is.joined) learn(a, &flight->is, now_ms);
    lengths_charge(a->lengths, flight->is.class_index, flight->is.output_tokens);
    const uint32_t at = a->position[ticket];
    a->flights[at] = a->flights[--a->count];
    a->position[a->flights[at].ticket] = at;
    a->position[ticket] = NONE;
}

/* ---- load of the decode pool, as the papers see it ---- */

/* The mean over the decoders of tbt / limit, each with `more` and `context` added to it. */
static double pool_load(const struct admission *a, const struct admission_pools *pools,
                        double limit_ms, double more, double context, bool without_leavers)
{
    double sum = 0;

    if (isinf(limit_ms) || pools->decoders_count == 0) return 0;
    for (uint32_t i = 0; i < pools->decoders_count; i++) {
        const struct admission_decoder *decoder = &pools->decoders[i];
        ASSERT(decoder->instance < a->instances_max);
        double sequences = decoder->sequences + more;
        double tokens = (double)decoder->context_tokens + context;
        if (without_leavers) {
            sequences -= a->leaving[decoder->instance];
            tokens -= a->leaving_context[decoder->instance];
        }
        if (sequences < 0) sequences = 0;
        if (tokens < 0) tokens = 0;
        sum += conductor_cost_decode(decoder->fit, sequences, tokens);
    }
    return sum / pools->decoders_count / limit_ms;
}

static double load_now(const struct admission *a, const struct admission_pools *pools,
                       double limit_ms, double more, double tokens)
{
    const double each = pools->decoders_count > 0 ? 1.0 / pools->decoders_count : 0;
    return pool_load(a, pools, limit_ms, more * each, tokens * each, false);
}

double admission_decode_load(const struct admission *a, const struct admission_pools *pools,
                             double more, double tokens)
{
    const double limit_ms = fmin(limit_of(0, a->options.tbt_ms), tightest(a, NONE));
    return load_now(a, pools, limit_ms, more, tokens);
}

/* At time `at`: who will have joined is added, evenly; who will have decoded for t_d is gone. */
static double forecast_pool(const struct admission *a, const struct admission_pools *pools,
                            const struct admission_question *q, double at_ms)
{
    double more = 1, tokens = q->tokens;
    const double each = pools->decoders_count > 0 ? 1.0 / pools->decoders_count : 0;
    const double decode_ms = a->options.decode_ms > 0 ? a->options.decode_ms : a->decode_ms;

    memset(a->leaving, 0, a->instances_max * sizeof(*a->leaving));
    memset(a->leaving_context, 0, a->instances_max * sizeof(*a->leaving_context));
    for (uint32_t i = 0; i < a->count; i++) {
        const struct admission_flight *flight = &a->flights[i].is;
        const bool gone = flight->join_ms + decode_ms <= at_ms;
        if (flight->decode == NONE) continue;
        if (flight->joined && gone) {
            a->leaving[flight->decode] += 1;
            a->leaving_context[flight->decode] += flight->tokens;
        } else if (!flight->joined && !gone && flight->join_ms <= at_ms) {
            more += 1;
            tokens += flight->tokens;
        }
    }
    return pool_load(a, pools, q->tbt_ms, more * each, tokens * each, true);
}

/* ---- adaptive: one instance, sequence by sequence ---- */

struct forecast {
    double sequences, variance, context;
};

/* Adds what is left of a flight at time `at`, at one token every step_ms. */
static void add_flight(const struct admission *a, const struct admission_flight *flight,
                       double now_ms, double at_ms, double step_ms, struct forecast *sum)
{
    const double start = flight->joined || flight->join_ms < now_ms ? now_ms : flight->join_ms;

    if (start > at_ms) return; /* not there yet */
    const double steps = (at_ms - start) / step_ms;
    const double length = flight->output_tokens + steps;
    if (length >= flight->output_max) return;
    const double now = lengths_survival(a->lengths, flight->class_index, flight->output_tokens);
    const double then = lengths_survival(a->lengths, flight->class_index, (uint32_t)length);
    /* Longer than anything heard of: it may go on. */
    const double stays = now > 1e-9 ? then / now : 1;
    ASSERT(stays >= 0 && stays <= 1 + 1e-9);
    sum->sequences += stays;
    sum->variance += stays * (1 - stays);
    sum->context += stays * (flight->tokens + steps);
}

/* Time between tokens at `at` on the decoder that would take the question, with the margin. */
static double forecast_tbt(const struct admission *a, const struct admission_decoder *decoder,
                           const struct admission_question *q, double at_ms)
{
    const double now_tbt = conductor_cost_decode(decoder->fit, decoder->sequences + 1,
                                                 (double)decoder->context_tokens + q->tokens);
    const double step_ms = now_tbt > 0.01 ? now_tbt : 0.01;
    struct forecast sum = { 1, 0, q->tokens };

    for (uint32_t i = 0; i < a->count; i++) {
        if (a->flights[i].is.decode != decoder->instance) continue;
        add_flight(a, &a->flights[i].is, q->now_ms, at_ms, step_ms, &sum);
    }
    const double sequences = sum.sequences + a->margin_tbt * sqrt(sum.variance);
    const double context = sum.context * sequences / sum.sequences;
    const double tbt = conductor_cost_decode(decoder->fit, sequences, context);
    /* A model that has seen nothing does not know how far off it is. */
    if (decoder->fit->samples == 0) return tbt;
    return tbt + a->margin_tbt * conductor_cost_spread(decoder->fit, tbt);
}

static const struct admission_decoder *decoder_of(const struct admission_pools *pools,
                                                  uint32_t instance)
{
    for (uint32_t i = 0; i < pools->decoders_count; i++) {
        if (pools->decoders[i].instance == instance) return &pools->decoders[i];
    }
    return NULL;
}

static double worst_of(double a, double b)
{
    return a > b ? a : b;
}

/* The worst of the moments that the header names. */
static double forecast_worst(const struct admission *a, const struct admission_pools *pools,
                             const struct admission_question *q, double output, double delay_ms)
{
    const struct admission_decoder *decoder = decoder_of(pools, q->decode);
    const double join_ms = q->now_ms + delay_ms + q->queue_ms + q->own_ms;
    const double latest_ms = join_ms + a->margin_ttft * q->spread_ms;

    if (isinf(q->tbt_ms) || decoder == NULL) return 0;
    const double at_join = forecast_tbt(a, decoder, q, join_ms);
    const double at_latest = forecast_tbt(a, decoder, q, latest_ms);
    const double later = forecast_tbt(a, decoder, q, join_ms + LATER_SHARE * output * at_join);
    return worst_of(worst_of(at_join, at_latest), later);
}

/* ---- adaptive, with a door ---- */

uint32_t admission_batch_max(const struct admission *a, const struct admission_decoder *decoder)
{
    const double n = decoder->sequences > 0 ? decoder->sequences : 1;
    const double each = (double)decoder->context_tokens / n;
    uint32_t low = 1, high = BATCH_MAX;

    if (!admission_has_door(a)) return UINT32_MAX;
    const double limit_ms = fmin(limit_of(0, a->options.tbt_ms), tightest(a, decoder->instance));
    if (isinf(limit_ms)) return UINT32_MAX;
    while (low < high) {
        const uint32_t middle = low + (high - low + 1) / 2;
        if (conductor_cost_decode(decoder->fit, middle, middle * each) <= limit_ms) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/* Sequences that will want to decode there when the question joins, with it and the margin, over
 * those that may. */
static double forecast_door(const struct admission *a, const struct admission_pools *pools,
                            const struct admission_question *q, double delay_ms)
{
    const struct admission_decoder *decoder = decoder_of(pools, q->decode);
    const double join_ms = q->now_ms + delay_ms + q->queue_ms + q->own_ms;
    struct forecast sum = { 1, 0, q->tokens };

    if (decoder == NULL || isinf(q->tbt_ms)) return 0;
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->flights[i].is.decode != decoder->instance) continue;
        add_flight(a, &a->flights[i].is, q->now_ms, join_ms, q->tbt_ms, &sum);
    }
    return (sum.sequences + a->margin_tbt * sqrt(sum.variance)) / admission_batch_max(a, decoder);
}

/* What adaptive compares with the gate, if the request came `delay_ms` later. */
static double adaptive_load(const struct admission *a, const struct admission_pools *pools,
                            const struct admission_question *q, double output, double delay_ms)
{
    if (admission_has_door(a)) return forecast_door(a, pools, q, delay_ms);
    return forecast_worst(a, pools, q, output, delay_ms) / q->tbt_ms;
}

/* 0 for a request at or below the mean, 1 for one that costs COST_SPAN times more than that. */
static double excess(double value, double mean)
{
    if (!(mean > 0)) return 0;
    const double over = (value / mean - 1) / COST_SPAN;
    return over < 0 ? 0 : over > 1 ? 1 : over;
}

/* `weight`: how much dearer than the mean it is for what the gate is before, 0..1. */
static double gate_of(const struct admission *a, const struct admission_question *q, double weight,
                      const struct reserve *reserve, double pressure)
{
    double held_against = worst_of(weight, excess(lengths_share(a->lengths, q->class_index), 1));

    if (q->priority > 0) held_against = 0;
    if (q->priority < 0) held_against = 1;
    const double part = pressure / reserve->pressure_full;
    const double full = part < 1 ? part : 1;
    ASSERT(held_against >= 0 && held_against <= 1 && full >= 0 && full <= 1);
    return 1 - reserve->room * full * held_against;
}

/* ---- when to try again ---- */

/* Queues drain a millisecond in a millisecond. */
static double drain_ms(const struct admission_question *q, double load)
{
    return load > 1 ? (load - 1) * q->ttft_ms : 0;
}

/* Until the decode load that the policy sees is below the gate, with nobody else accepted. */
static double ease_ms(const struct admission *a, const struct admission_pools *pools,
                      const struct admission_question *q, const struct yolk_verdict *verdict)
{
    const bool adaptive = a->options.policy == YOLK_POLICY_ADAPTIVE;

    for (double delay = RETRY_MS_MIN; delay < RETRY_MS_MAX; delay *= 2) {
        const double join_ms = q->now_ms + delay + q->queue_ms + q->own_ms;
        const double load = adaptive ? adaptive_load(a, pools, q, verdict->output_tokens, delay)
                                     : forecast_pool(a, pools, q, join_ms);
        if (load <= verdict->gate) return delay;
    }
    return RETRY_MS_MAX;
}

static double retry_after(const struct admission *a, const struct admission_pools *pools,
                          const struct admission_question *q, const struct yolk_verdict *verdict)
{
    double wait = RETRY_MS_MIN;

    if (isfinite(q->ttft_ms)) {
        const double load = worst_of(verdict->prefill_load, verdict->ttft_ms / q->ttft_ms);
        wait = worst_of(wait, drain_ms(q, load + 1 - verdict->prefill_gate));
    }
    if (isfinite(q->tbt_ms) && verdict->predicted_load > verdict->gate) {
        wait = worst_of(wait, ease_ms(a, pools, q, verdict));
    }
    return wait < RETRY_MS_MAX ? wait : RETRY_MS_MAX;
}

/* ---- judging ---- */

static enum yolk_refusal judge_ttft(const struct admission_question *q,
                                    const struct yolk_verdict *verdict, double pool)
{
    const double load = worst_of(pool, verdict->ttft_ms / q->ttft_ms);
    if (load > 1) return YOLK_REFUSAL_TTFT;
    const double queue = (q->waited_ms + q->queue_ms) / q->ttft_ms;
    return queue > verdict->prefill_gate ? YOLK_REFUSAL_RESERVED : YOLK_REFUSAL_NONE;
}

static enum yolk_refusal judge_early(const struct admission *a, const struct admission_pools *pools,
                                     const struct admission_question *q, bool predict,
                                     struct yolk_verdict *verdict)
{
    const double join_ms = q->now_ms + q->queue_ms + q->own_ms;
    const enum yolk_refusal refusal = judge_ttft(q, verdict, verdict->prefill_load);

    verdict->predicted_load = predict ? forecast_pool(a, pools, q, join_ms) : verdict->decode_load;
    if (refusal != YOLK_REFUSAL_NONE) return refusal;
    if (verdict->predicted_load <= 1) return YOLK_REFUSAL_NONE;
    return predict ? YOLK_REFUSAL_TBT_PREDICTED : YOLK_REFUSAL_TBT;
}

static enum yolk_refusal judge_adaptive(const struct admission *a,
                                        const struct admission_pools *pools,
                                        const struct admission_question *q,
                                        struct yolk_verdict *verdict)
{
    const struct admission_decoder *decoder = decoder_of(pools, q->decode);

    verdict->ttft_ms += a->margin_ttft * q->spread_ms;
    verdict->predicted_load = adaptive_load(a, pools, q, verdict->output_tokens, 0);
    if (isfinite(q->tbt_ms)) verdict->tbt_ms = verdict->predicted_load * q->tbt_ms;
    verdict->prefill_gate =
        gate_of(a, q, excess(q->own_ms, a->mean_own_ms), &RESERVE_PREFILL, a->pressure_ttft);
    if (decoder != NULL && decoder->sequences > 0) { /* who is idle keeps nothing */
        verdict->gate = gate_of(a, q, excess(verdict->output_tokens, a->mean_output),
                                &RESERVE_DECODE, a->pressure_tbt);
    }
    const enum yolk_refusal refusal = judge_ttft(q, verdict, 0);
    if (refusal == YOLK_REFUSAL_TTFT) return refusal;
    if (verdict->predicted_load > 1) return YOLK_REFUSAL_TBT_PREDICTED;
    return verdict->predicted_load > verdict->gate ? YOLK_REFUSAL_RESERVED : refusal;
}

void admission_arrived(struct admission *a, const struct admission_question *q)
{
    if (a->options.policy != YOLK_POLICY_ADAPTIVE) return;
    const double output = lengths_mean(a->lengths, q->class_index, q->output_max);
    if (a->mean_output == 0) {
        a->mean_own_ms = q->own_ms;
        a->mean_output = output;
    }
    a->mean_own_ms += COST_STEP * (q->own_ms - a->mean_own_ms);
    a->mean_output += COST_STEP * (output - a->mean_output);
}

static void note_pressure(double *pressure, bool refused)
{
    *pressure += PRESSURE_STEP * ((refused ? 1 : 0) - *pressure);
    ASSERT(*pressure >= 0 && *pressure <= 1); /* I3 */
}

void admission_count(struct admission *a, const struct yolk_verdict *verdict)
{
    const bool refused = verdict->refusal != YOLK_REFUSAL_NONE;

    const bool for_tbt =
        refused && verdict->refusal != YOLK_REFUSAL_TTFT && verdict->predicted_load > verdict->gate;
    ASSERT((int)verdict->refusal >= 0 && (int)verdict->refusal < YOLK_REFUSALS);
    ASSERT(refused || verdict->predicted_load <= verdict->gate ||
           verdict->policy == YOLK_POLICY_NONE || verdict->policy == YOLK_POLICY_BASELINE); /* I2 */
    a->counts.accepted += !refused;
    a->counts.refused[verdict->refusal] += refused;
    note_pressure(&a->pressure, refused);
    note_pressure(&a->pressure_tbt, for_tbt);
    note_pressure(&a->pressure_ttft, refused && !for_tbt);
}

static enum yolk_refusal judge(struct admission *a, const struct admission_pools *pools,
                               const struct admission_question *q, struct yolk_verdict *verdict)
{
    switch (a->options.policy) {
    case YOLK_POLICY_NONE: return YOLK_REFUSAL_NONE;
    case YOLK_POLICY_BASELINE: return judge_ttft(q, verdict, verdict->prefill_load);
    case YOLK_POLICY_EARLY: return judge_early(a, pools, q, false, verdict);
    case YOLK_POLICY_PREDICT: return judge_early(a, pools, q, true, verdict);
    case YOLK_POLICY_ADAPTIVE: return judge_adaptive(a, pools, q, verdict);
    }
    return YOLK_REFUSAL_NONE;
}

void admission_consider(struct admission *a, const struct admission_pools *pools,
                        const struct admission_question *given, struct yolk_verdict *out)
{
    const struct admission_question resolved = resolve(a, given), *q = &resolved;
    ASSERT(isfinite(q->now_ms) && q->queue_ms >= 0 && q->own_ms >= 0 && q->spread_ms >= 0);
    const bool adaptive = a->options.policy == YOLK_POLICY_ADAPTIVE;
    const double output = adaptive ? lengths_mean(a->lengths, q->class_index, q->output_max) : 0;
    const struct admission_decoder *decoder = decoder_of(pools, q->decode);

    *out = (struct yolk_verdict){
        .policy = a->options.policy,
        .gate = 1,
        .prefill_gate = 1,
        .ttft_ms = q->waited_ms + q->queue_ms + q->own_ms,
        .prefill_load = (q->waited_ms + pools->queue_ms_mean + q->own_ms) / q->ttft_ms,
        .decode_load = load_now(a, pools, q->tbt_ms, 1, q->tokens),
        .output_tokens = output,
    };
    if (decoder != NULL) {
        out->tbt_ms = conductor_cost_decode(decoder->fit, decoder->sequences + 1,
                                            (double)decoder->context_tokens + q->tokens);
    }
    out->refusal = judge(a, pools, q, out);
    if (out->refusal != YOLK_REFUSAL_NONE) out->retry_after_ms = retry_after(a, pools, q, out);
}

void admission_judge(struct admission *a, const struct admission_pools *pools,
                     const struct admission_question *question, struct yolk_verdict *out)
{
    admission_arrived(a, question);
    admission_consider(a, pools, question, out);
    admission_count(a, out);
}

/* ---- at the join ---- */

static struct admission_question ask_again(const struct admission *a,
                                           const struct admission_flight *flight, double now_ms)
{
    const struct admission_question asked = { .now_ms = now_ms,
                                              .decode = flight->decode,
                                              .class_index = flight->class_index,
                                              .tokens = flight->tokens,
                                              .output_max = flight->output_max,
                                              .ttft_ms = flight->ttft_ms,
                                              .tbt_ms = flight->tbt_ms };
    return resolve(a, &asked);
}

/* Fills in the verdict that refuses, and counts it. */
static void refuse_join(struct admission *a, const struct admission_pools *pools,
                        const struct admission_question *q, const struct admission_flight *flight,
                        struct yolk_verdict *out)
{
    out->policy = a->options.policy;
    out->gate = 1;
    out->prefill_gate = 1;
    out->decode_load = load_now(a, pools, q->tbt_ms, 1, q->tokens);
    out->ttft_ms = q->now_ms - flight->arrived_ms;
    out->retry_after_ms = retry_after(a, pools, q, out);
    a->counts.refused[out->refusal]++;
}

bool admission_judge_join(struct admission *a, const struct admission_pools *pools, uint32_t ticket,
                          double now_ms, struct yolk_verdict *out)
{
    const struct flight *flight = flight_of(a, ticket);

    if (flight == NULL || !admission_policed(a) || admission_has_door(a)) return true;
    ASSERT(!flight->is.joined);
    const struct admission_question q = ask_again(a, &flight->is, now_ms);
    const struct admission_decoder *decoder = decoder_of(pools, flight->is.decode);
    if (isinf(q.tbt_ms) || decoder == NULL) return true;
    const double own = conductor_cost_decode(decoder->fit, decoder->sequences + 1,
                                             (double)decoder->context_tokens + q.tokens);
    const bool adaptive = a->options.policy == YOLK_POLICY_ADAPTIVE;
    const double load = adaptive ? own / q.tbt_ms : load_now(a, pools, q.tbt_ms, 1, q.tokens);
    if (load <= 1) return true;
    *out = (struct yolk_verdict){ .refusal = YOLK_REFUSAL_TBT_AT_JOIN,
                                  .predicted_load = load,
                                  .tbt_ms = own };
    refuse_join(a, pools, &q, &flight->is, out);
    return false;
}

void admission_refused_at_node(struct admission *a, const struct admission_pools *pools,
                               uint32_t ticket, double load, double now_ms,
                               struct yolk_verdict *out)
{
    static const struct admission_flight nobody = { .decode = UINT32_MAX };
    const struct flight *flight = flight_of(a, ticket);
    const struct admission_flight *is = flight != NULL ? &flight->is : &nobody;
    const struct admission_question q = ask_again(a, is, now_ms);

    ASSERT(load > 0);
    *out = (struct yolk_verdict){ .refusal = YOLK_REFUSAL_TBT_AT_NODE,
                                  .predicted_load = load,
                                  .tbt_ms = isfinite(q.tbt_ms) ? load * q.tbt_ms : 0 };
    refuse_join(a, pools, &q, is, out);
}

void admission_stats(const struct admission *a, struct yolk_admission_stats *out)
{
    ASSERT(a->margin_ttft >= 0 && a->margin_ttft <= MARGIN_MAX); /* I3 */
    *out = a->counts;
    out->options = a->options;
    out->decode_ms = a->decode_ms;
    out->margin_ttft = a->margin_ttft;
    out->margin_tbt = a->margin_tbt;
    out->pressure = a->pressure;
}
