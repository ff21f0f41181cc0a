/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/admission.h - overload control: which requests are accepted, judged before any work is
 * spent on them, and whether that was right, judged afterwards.
 *
 * Load, as the Mooncake papers define it: of a prefill instance, the predicted time to first token
 * over its limit; of a decode instance, the predicted time between tokens over its limit; of a
 * pool, the mean over its instances. A pool is full at 1. A limit of 0 is no limit, and its load is
 * 0.
 *
 *   none      accepts
 *   baseline  prefill load at arrival; decode load when prefill has ended (which wastes prefills)
 *   early     the larger of both at arrival. Decode load acts one prefill too late, so the two
 *             pools swing against each other
 *   predict   as early, with the decode load at the time when this prefill will end: everybody
 *             whose prefill ends by then is added, spread evenly, and everybody who by then has
 *             decoded for t_d, the mean decoding time, is gone
 *   adaptive  ours; see below
 *
 * Every policy but none also refuses a request whose own first token would be late, and checks
 * again when prefill has ended.
 *
 * adaptive differs in five points.
 *   1 Lengths. The answers of each class (tenant, route, and application: conductor/apps.h) form a
 *     histogram that forgets; classes that have said little lean on everybody's. A sequence that
 *     has g tokens is still there k steps later with probability S(g + k) / S(g), cut at what it
 *     asked for at most.
 *   2 Place. It looks at the instance that would decode the request, not at the mean of the pool.
 *   3 Uncertainty. First tokens and batches are taken at mean + z standard deviations. z starts at
 *     the 90th percentile and then follows what happened: up by a step when an accepted request
 *     broke the limit, down by a hundredth of it when it did not, so that late requests settle near
 *     one in a hundred, however wrong the models are. z is never below 0.
 *   4 Time. The load is looked at where the request joins, where it may join at the latest, and a
 *     quarter into its own decoding, with all who will have joined by then; the worst counts.
 *   5 Reservation. While requests are being refused, room is kept for those below the mean: the
 *     gate of a request that needs more than the mean, or whose tenant has had more than its share
 *     of tokens, sinks from 1 with the pressure, a slow mean of refusals. There are two gates, each
 *     with its own pressure, so that nobody is refused for what is not scarce: one before the queue
 *     of the prefill instance, for prefills above the mean, and one before the decode instance, for
 *     answers above it. So many small ones pass for few large ones, the gates move slowly, nobody
 *     is kept out while there is room for all, and an instance that is idle keeps nothing.
 *
 * With a door (options.door) the caller lets no more sequences into a decode instance than keep the
 * limit between tokens, and those whose prefill has ended wait before it. Then nobody is late
 * between tokens, 4 becomes the one question whether there will be a place at the time of the join,
 * and the margin of 3 follows how many had to wait: three in ten may.
 *
 * Limits of its own. A request may have other limits than the general ones. Its first token is
 * judged by its own; the time between tokens by the tightest of those it would decode beside, on
 * its instance under adaptive and in the pool under the others, for all of them feel it join.
 *
 * Memory:  all allocated by admission_create().
 * Threads: belongs to one thread at a time.
 * Limits:  tickets_max flights, and the classes of conductor/lengths.h.
 *          A judgement costs O(flights + decoders). */
#ifndef CONDUCTOR_ADMISSION_H
#define CONDUCTOR_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "conductor/cost.h"
#include "yolk/conductor.h"

struct admission; /* opaque */

MUST_USE enum status admission_create(uint32_t tickets_max, uint32_t instances_max,
                                      struct admission **out);
void admission_destroy(struct admission *admission); /* NULL is allowed */
uint64_t admission_bytes(const struct admission *admission);

/* Options are in range. */
void admission_set(struct admission *admission, const struct yolk_admission_options *options);
/* The general limit to the first token; INFINITY is none. */
double admission_ttft_limit(const struct admission *admission);
/* A policy is set, and at least one general limit. */
bool admission_active(const struct admission *admission);
/* A policy is set. */
bool admission_policed(const struct admission *admission);

/* The class of a tenant and a route; made when it is new. */
uint32_t admission_class(struct admission *admission, const char *tenant, const char *route,
                         uint64_t app);
/* What that share of the answers of the class do not exceed. */
uint32_t admission_answer_tokens(const struct admission *admission, uint32_t class_index,
                                 double share);

/* ---- what is under way ---- */

struct admission_flight {
    uint32_t class_index;
    uint32_t decode;        /* instance */
    uint32_t tokens;        /* prompt, and what has been generated */
    uint32_t output_tokens; /* generated */
    uint32_t output_max;
    double join_ms;         /* when its prefill is predicted to end; when it did, once joined */
    double arrived_ms;      /* what its first token is measured from */
    double ttft_ms, tbt_ms; /* limits of its own, as in a question */
    bool joined;            /* its prefill has ended */
    bool started;           /* it decodes: since it joined, or since it came in by the door */
};

/* `ticket` is below tickets_max and not flying. */
void admission_take_off(struct admission *admission, uint32_t ticket,
                        const struct admission_flight *flight);
/* These ignore tickets that do not fly. */
void admission_join(struct admission *admission, uint32_t ticket, double now_ms);
void admission_start(struct admission *admission, uint32_t ticket, double now_ms);
void admission_grow(struct admission *admission, uint32_t ticket, uint32_t tokens);
/* Its decode instance is gone: it weighs on nobody. */
void admission_detach(struct admission *admission, uint32_t ticket);
/* It has another decode instance. */
void admission_move(struct admission *admission, uint32_t ticket, uint32_t decode);
/* `complete`: the answer ended by itself, so its length and times are samples. */
void admission_land(struct admission *admission, uint32_t ticket, bool complete, double now_ms);

/* ---- judging ---- */

/* A decode instance that may be used, with what it decodes now. */
struct admission_decoder {
    uint32_t instance;
    uint32_t sequences;
    uint64_t context_tokens;
    const struct conductor_fit *fit;
};

struct admission_pools {
    const struct admission_decoder *decoders;
    uint32_t decoders_count;
    double queue_ms_mean; /* over the prefill instances */
};

struct admission_question {
    double now_ms;
    double waited_ms;
    double queue_ms;  /* on the chosen prefill instance */
    double own_ms;    /* of transfer and prefill there */
    double spread_ms; /* standard deviation of queue and own together */
    uint32_t decode;  /* chosen instance; among the decoders */
    uint32_t class_index;
    uint32_t tokens;
    uint32_t output_max;
    int priority;
    double ttft_ms, tbt_ms; /* limits of its own; 0: the general ones; INFINITY: none */
};

/* At arrival, in three steps, of which the second may be taken again with other questions about the
 * same request: what it costs is noted, it is judged, the verdict that stands is counted. */
void admission_arrived(struct admission *admission, const struct admission_question *question);
void admission_consider(struct admission *admission, const struct admission_pools *pools,
                        const struct admission_question *question, struct yolk_verdict *out);
void admission_count(struct admission *admission, const struct yolk_verdict *verdict);

/* All three. */
void admission_judge(struct admission *admission, const struct admission_pools *pools,
                     const struct admission_question *question, struct yolk_verdict *out);

/* When the prefill of this ticket has ended. False, and *out is written, when it is refused. */
bool admission_judge_join(struct admission *admission, const struct admission_pools *pools,
                          uint32_t ticket, double now_ms, struct yolk_verdict *out);

/* The decode node of this ticket refused it, with its batch at `load`. Counted; *out says it. */
void admission_refused_at_node(struct admission *admission, const struct admission_pools *pools,
                               uint32_t ticket, double load, double now_ms,
                               struct yolk_verdict *out);

/* Its policy is adaptive, and sequences wait before their decoder. */
bool admission_has_door(const struct admission *admission);
/* With a door, the most sequences that this decoder decodes at once, at least 1; UINT32_MAX without
 * one, and where nobody has a limit. */
uint32_t admission_batch_max(const struct admission *admission,
                             const struct admission_decoder *decoder);

/* Load of the decode pool now, with `more` further sequences of `tokens` spread over it. */
double admission_decode_load(const struct admission *admission, const struct admission_pools *pools,
                             double more, double tokens);

/* Everything but hindsight and the loads of now. */
void admission_stats(const struct admission *admission, struct yolk_admission_stats *out);

#endif
