/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/admit.c - placement behind a policy: asks propose.c for a decision, admission.c
 * whether to accept it, and tells audit.c what was refused.
 *
 * With no policy or no limit a request is placed exactly as by yolk_conductor_place(). */
#include "conductor/conductor_int.h"

#include <math.h>
#include <string.h>

#include "base/assert.h"

/* ---- names ---- */

const char *yolk_policy_name(enum yolk_policy policy)
{
    static const char *const NAMES[YOLK_POLICIES] = { "none", "baseline", "early", "predict",
                                                      "adaptive" };
    ASSERT((int)policy >= 0 && (int)policy < YOLK_POLICIES);
    return NAMES[policy];
}

enum status yolk_policy_of(const char *name, enum yolk_policy *out)
{
    for (int i = 0; i < YOLK_POLICIES; i++) {
        if (strcmp(name, yolk_policy_name((enum yolk_policy)i)) != 0) continue;
        *out = (enum yolk_policy)i;
        return STATUS_OK;
    }
    return STATUS_NOT_FOUND;
}

const char *yolk_refusal_name(enum yolk_refusal refusal)
{
    static const char *const NAMES[YOLK_REFUSALS] = { "none",          "ttft",        "tbt",
                                                      "tbt_predicted", "tbt_at_join", "reserved",
                                                      "tbt_at_node" };
    ASSERT((int)refusal >= 0 && (int)refusal < YOLK_REFUSALS);
    return NAMES[refusal];
}

const char *yolk_hindsight_name(enum yolk_hindsight hindsight)
{
    switch (hindsight) {
    case YOLK_HINDSIGHT_OPEN: return "open";
    case YOLK_HINDSIGHT_RIGHT: return "right";
    case YOLK_HINDSIGHT_SERVABLE: return "servable";
    }
    ASSERT((int)hindsight < 0); /* impossible */
    return "";
}

/* ---- options ---- */

static bool good_limit(double ms)
{
    return ms >= 0 && ms <= YOLK_LIMIT_MS_MAX;
}

enum status yolk_conductor_set_admission(struct yolk_conductor *c,
                                         const struct yolk_admission_options *options,
                                         struct errmsg *err)
{
    if ((int)options->policy < 0 || (int)options->policy >= YOLK_POLICIES) {
        return errmsg_set(err, STATUS_INVALID, "conductor: no such policy");
    }
    if (!good_limit(options->ttft_ms) || !good_limit(options->tbt_ms) ||
        !good_limit(options->decode_ms)) {
        return errmsg_set(err, STATUS_INVALID, "conductor: a limit is not in 0..%d ms",
                          YOLK_LIMIT_MS_MAX);
    }
    admission_set(c->admission, options);
    return STATUS_OK;
}

/* ---- the pools ---- */

static unsigned roles_up(const struct yolk_conductor *c)
{
    return (c->prefill_up > 0 ? YOLK_ROLE_PREFILL : 0u) |
           (c->decode_up > 0 ? YOLK_ROLE_DECODE : 0u);
}

static bool works_as(const struct instance *instance, unsigned role, unsigned up)
{
    return conductor_open(instance) && ((instance->roles & role) || !(up & role));
}

/* With the queues as one of this priority would find them. */
static struct admission_pools pools_of(struct yolk_conductor *c, int priority, double now_ms)
{
    const unsigned up = roles_up(c);
    struct admission_pools pools = { .decoders = c->decoders };
    const struct queue_rank last = { priority, INFINITY };
    uint32_t prefillers = 0;

    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        const struct instance *instance = &c->instances[i];
        if (works_as(instance, YOLK_ROLE_PREFILL, up)) {
            pools.queue_ms_mean += conductor_queue(c, instance, last, now_ms).ms;
            prefillers++;
        }
        if (works_as(instance, YOLK_ROLE_DECODE, up)) {
            c->decoders[pools.decoders_count++] =
                (struct admission_decoder){ i, instance->decoding, instance->decoding_tokens,
                                            &instance->decode_fit };
        }
    }
    if (prefillers > 0) pools.queue_ms_mean /= prefillers;
    ASSERT(pools.queue_ms_mean >= 0 && pools.decoders_count <= c->options.instances_max);
    return pools;
}

void conductor_look(struct yolk_conductor *c, double now_ms)
{
    if (!audit_wants_look(c->audit, now_ms)) return;
    const struct admission_pools pools = pools_of(c, YOLK_PRIORITY_MIN, now_ms);
    audit_look(c->audit, admission_decode_load(c->admission, &pools, 1, 0), now_ms);
}

/* ---- judging ---- */

/* Errors of the prefills in the queue are taken as independent. A model that has seen nothing does
 * not know how far off it is. */
static double spread_of(const struct instance *prefill, double own_ms)
{
    if (prefill->prefill_fit.samples == 0) return 0;
    return conductor_cost_spread(&prefill->prefill_fit, own_ms) * sqrt(1.0 + prefill->queued);
}

/* Whose answers say how long this one will be. */
static uint32_t class_of(struct yolk_conductor *c, const struct yolk_place_request *request,
                         const struct yolk_asker *asker)
{
    const uint64_t app = request->keys_count > 0 ? apps_name(&c->apps, &request->keys[0]) : 0;
    return admission_class(c->admission, asker->tenant, asker->route, app);
}

static struct admission_question question_of(struct yolk_conductor *c,
                                             const struct yolk_place_request *request,
                                             const struct proposal *proposal,
                                             const struct yolk_asker *asker, double now_ms)
{
    const struct conductor_place_output *placed = &proposal->placed;
    const struct instance *prefill = &c->instances[c->prefill[placed->prefill].instance];
    const double own_ms = placed->transfer_ms + placed->compute_ms;

    ASSERT(prefill->used);
    return (struct admission_question){
        .now_ms = now_ms,
        .waited_ms = asker->waited_ms > 0 ? asker->waited_ms : 0,
        .queue_ms = placed->queue_ms,
        .own_ms = own_ms,
        .spread_ms = spread_of(prefill, own_ms),
        .decode = c->decode[placed->decode].instance,
        .class_index = class_of(c, request, asker),
        .tokens = request->tokens,
        .output_max = request->output_tokens,
        .priority = request->priority,
        .ttft_ms = asker->ttft_ms,
        .tbt_ms = asker->tbt_ms,
    };
}

/* The audit's: 0 is none. */
static double finite_limit(double own, double general)
{
    const double limit = own > 0 ? own : general;
    return isfinite(limit) ? limit : 0;
}

static void remember(struct yolk_conductor *c, const struct yolk_place_request *request,
                     const struct proposal *proposal, const struct admission_question *question,
                     const struct yolk_verdict *verdict)
{
    const uint32_t prefill = c->prefill[proposal->placed.prefill].instance;
    const struct instance *instance = &c->instances[prefill];
    const struct queue_rank rank = { request->priority,
                                     conductor_order_ms(c, question->now_ms, question->own_ms) };
    struct yolk_admission_stats stats;

    admission_stats(c->admission, &stats);
    const struct audit_case refused = {
        .request_id = request->request_id,
        .tokens = request->tokens,
        .prefill = prefill,
        .ahead = instance->left + conductor_queue(c, instance, rank, question->now_ms).requests,
        .waited_ms = question->waited_ms,
        .own_ms = question->own_ms,
        .decode_ms = stats.decode_ms,
        .ttft_limit_ms = finite_limit(question->ttft_ms, stats.options.ttft_ms),
        .now_ms = question->now_ms,
    };
    audit_refuse(c->audit, &refused, verdict);
    audit_drained(c->audit, prefill, instance->left, question->now_ms); /* nobody before it? */
}

void conductor_fly(struct yolk_conductor *c, const struct yolk_place_request *request,
                   const struct yolk_decision *decision, const struct yolk_asker *asker,
                   double now_ms)
{
    const uint32_t ticket = (uint32_t)(conductor_ticket(c, decision->ticket) - c->tickets);
    const bool known = asker != NULL;
    const struct admission_flight flight = {
        .class_index = known ? class_of(c, request, asker) : 0,
        .decode = decision->decode.index,
        .tokens = request->tokens,
        .output_max = request->output_tokens,
        .join_ms = now_ms + decision->ttft_ms,
        .arrived_ms = now_ms - (known && asker->waited_ms > 0 ? asker->waited_ms : 0),
        .ttft_ms = known ? asker->ttft_ms : 0,
        .tbt_ms = known ? asker->tbt_ms : 0,
    };
    admission_take_off(c->admission, ticket, &flight);
}

static bool is_judged(const struct yolk_conductor *c, const struct yolk_asker *asker)
{
    const bool own = (asker->ttft_ms > 0 && isfinite(asker->ttft_ms)) ||
                     (asker->tbt_ms > 0 && isfinite(asker->tbt_ms));
    return admission_active(c->admission) || (own && admission_policed(c->admission));
}

/* One request before the policy, at one place in the queue. */
struct trial {
    struct yolk_place_request request; /* its priority is that place */
    const struct yolk_asker *asker;
    int priority; /* that it has */
    double now_ms;
    struct proposal proposal;
    struct admission_question question;
    struct yolk_verdict verdict;
};

/* Proposes a place and judges it. STATUS_OK also with a refusal in the verdict. */
static enum status try_place(struct yolk_conductor *c, struct trial *trial)
{
    const enum status status =
        conductor_propose(c, &trial->request, trial->now_ms, &trial->proposal);
    if (status != STATUS_OK) return status;
    const struct admission_pools pools = pools_of(c, trial->request.priority, trial->now_ms);
    trial->question =
        question_of(c, &trial->request, &trial->proposal, trial->asker, trial->now_ms);
    if (trial->request.priority == trial->priority) {
        admission_arrived(c->admission, &trial->question);
    }
    trial->question.priority = trial->priority;
    admission_consider(c->admission, &pools, &trial->question, &trial->verdict);
    return STATUS_OK;
}

/* A place further back may suit the decode pool better: what a request of less priority would be
 * granted is granted to this one. False, and *trial is as it was, if there is no such place. */
static bool demote(struct yolk_conductor *c, struct trial *trial)
{
    int below = conductor_priority_below(c, trial->priority);

    for (; below >= YOLK_PRIORITY_MIN; below = conductor_priority_below(c, below)) {
        struct trial lower = *trial;
        lower.request.priority = below;
        if (try_place(c, &lower) != STATUS_OK) return false;
        if (lower.verdict.refusal != YOLK_REFUSAL_NONE) continue;
        *trial = lower;
        return true;
    }
    return false;
}

static enum status admit_judged(struct yolk_conductor *c, struct trial *trial)
{
    const enum status status = try_place(c, trial);

    if (status != STATUS_OK) return status;
    const bool granted = trial->verdict.refusal == YOLK_REFUSAL_NONE || demote(c, trial);
    admission_count(c->admission, &trial->verdict);
    if (!granted) {
        remember(c, &trial->request, &trial->proposal, &trial->question, &trial->verdict);
    }
    return STATUS_OK;
}

enum status yolk_conductor_admit(struct yolk_conductor *c, const struct yolk_place_request *request,
                                 const struct yolk_asker *asker, double now_ms,
                                 struct yolk_decision *out, struct yolk_verdict *verdict)
{
    static const struct yolk_asker nobody = { 0 };
    struct trial trial = { .request = *request,
                           .asker = asker != NULL ? asker : &nobody,
                           .priority = request->priority,
                           .now_ms = now_ms,
                           .verdict = { .gate = 1, .prefill_gate = 1 } };

    ASSERT(trial.asker->ttft_ms >= 0 && trial.asker->tbt_ms >= 0);
    if (request->keys_count > 0) apps_note(&c->apps, &request->keys[0]);
    const enum status status = is_judged(c, trial.asker)
                                   ? admit_judged(c, &trial)
                                   : conductor_propose(c, request, now_ms, &trial.proposal);
    if (status != STATUS_OK) return status;
    conductor_look(c, now_ms);
    *verdict = trial.verdict;
    if (verdict->refusal != YOLK_REFUSAL_NONE) return STATUS_BUSY;
    conductor_commit(c, &trial.request, &trial.proposal, verdict, now_ms, out);
    conductor_fly(c, &trial.request, out, trial.asker, now_ms);
    return STATUS_OK;
}

/* ---- at the join ---- */

/* Its prefill has ended: it waits for nobody, and what is open is whether the decode pool would
 * have carried it. */
static void remember_join(struct yolk_conductor *c, const struct ticket *ticket,
                          const struct yolk_verdict *verdict, double now_ms)
{
    struct yolk_decision *decision = conductor_logged(c, ticket);
    const bool queued = ticket->prefill != NONE;
    const uint32_t prefill = queued ? (uint32_t)ticket->prefill : UINT32_MAX;
    struct yolk_admission_stats stats;

    admission_stats(c->admission, &stats);
    const struct audit_case refused = {
        .request_id = decision != NULL ? decision->request_id : NULL,
        .tokens = ticket->tokens,
        .prefill = prefill,
        .waited_ms = verdict->ttft_ms,
        .decode_ms = stats.decode_ms,
        .now_ms = now_ms,
    };
    audit_refuse(c->audit, &refused, verdict);
    audit_drained(c->audit, prefill, queued ? c->instances[prefill].left : 0, now_ms);
    conductor_look(c, now_ms);
    if (decision != NULL) decision->verdict = *verdict;
}

enum status yolk_conductor_admit_join(struct yolk_conductor *c, struct yolk_ticket id,
                                      double now_ms, struct yolk_verdict *verdict)
{
    const struct ticket *ticket = conductor_ticket(c, id);
    ASSERT(ticket->state == TICKET_PREFILLING);

    if (!admission_policed(c->admission)) return STATUS_OK;
    const struct admission_pools pools = pools_of(c, ticket->rank.priority, now_ms);
    if (admission_judge_join(c->admission, &pools, (uint32_t)(ticket - c->tickets), now_ms,
                             verdict)) {
        return STATUS_OK;
    }
    ASSERT(verdict->refusal == YOLK_REFUSAL_TBT_AT_JOIN);
    remember_join(c, ticket, verdict, now_ms);
    return STATUS_BUSY;
}

void yolk_conductor_refused_at_node(struct yolk_conductor *c, struct yolk_ticket id, double load,
                                    double now_ms, struct yolk_verdict *verdict)
{
    const struct ticket *ticket = conductor_ticket(c, id);
    const struct admission_pools pools = pools_of(c, ticket->rank.priority, now_ms);

    admission_refused_at_node(c->admission, &pools, (uint32_t)(ticket - c->tickets), load, now_ms,
                              verdict);
    ASSERT(verdict->refusal == YOLK_REFUSAL_TBT_AT_NODE);
    remember_join(c, ticket, verdict, now_ms);
}

uint32_t yolk_conductor_answer_tokens(struct yolk_conductor *c, const struct yolk_asker *asker,
                                      double share)
{
    ASSERT(share >= 0 && share < 1);
    const uint32_t class_index =
        asker != NULL ? admission_class(c->admission, asker->tenant, asker->route, 0) : 0;

    return admission_answer_tokens(c->admission, class_index, share);
}

/* ---- the door ---- */

void conductor_door_wait(struct yolk_conductor *c, struct ticket *ticket, double now_ms)
{
    ASSERT(!ticket->at_door);
    if (!admission_has_door(c->admission) || ticket->decode == NONE) return;
    struct instance *instance = &c->instances[ticket->decode];
    ticket->at_door = true;
    ticket->door_since_ms = now_ms;
    instance->at_door++;
    instance->at_door_tokens += ticket->tokens;
    c->stats.at_door++;
    ASSERT(instance->at_door <= instance->decoding);
}

void conductor_door_leave(struct yolk_conductor *c, struct ticket *ticket)
{
    if (!ticket->at_door) return;
    struct instance *instance = &c->instances[ticket->decode];
    ASSERT(instance->at_door > 0 && instance->at_door_tokens >= ticket->tokens);
    ASSERT(c->stats.at_door > 0);
    ticket->at_door = false;
    instance->at_door--;
    instance->at_door_tokens -= ticket->tokens;
    c->stats.at_door--;
}

void yolk_conductor_joined(struct yolk_conductor *c, struct yolk_ticket id, double now_ms)
{
    struct ticket *ticket = conductor_ticket(c, id);
    struct yolk_decision *decision = conductor_logged(c, ticket);

    ASSERT(ticket->state == TICKET_DECODING);
    if (ticket->at_door) {
        if (decision != NULL) decision->actual_door_ms = now_ms - ticket->door_since_ms;
        conductor_explain_batch(c, ticket->decode, now_ms);
        conductor_door_leave(c, ticket);
        conductor_explain_batch(c, ticket->decode, now_ms);
        conductor_explain_decoding(c, ticket, now_ms);
    }
    admission_start(c->admission, (uint32_t)(ticket - c->tickets), now_ms);
}

uint32_t yolk_conductor_batch_max(const struct yolk_conductor *c, struct yolk_instance_id id)
{
    ASSERT(id.index < c->options.instances_max && c->instances[id.index].used);
    const struct instance *instance = &c->instances[id.index];
    const struct admission_decoder decoder = { id.index, instance->decoding,
                                               instance->decoding_tokens, &instance->decode_fit };
    const uint32_t most = admission_batch_max(c->admission, &decoder);
    return most < instance->sequences_max ? most : instance->sequences_max;
}

/* ---- explaining ---- */

bool yolk_conductor_refused(const struct yolk_conductor *c, uint32_t age, struct yolk_refused *out)
{
    return audit_get(c->audit, age, out);
}

void yolk_conductor_admission_stats(struct yolk_conductor *c, double now_ms,
                                    struct yolk_admission_stats *out)
{
    const struct admission_pools pools = pools_of(c, YOLK_PRIORITY_MIN, now_ms);

    admission_stats(c->admission, out);
    audit_counts(c->audit, &out->audited, &out->servable);
    out->decode_load = admission_decode_load(c->admission, &pools, 0, 0);
    if (out->options.ttft_ms > 0) out->prefill_load = pools.queue_ms_mean / out->options.ttft_ms;
}
