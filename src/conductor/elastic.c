/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/elastic.c - what conductor/roles.h has to know, from the books: what each pool has to
 * do, and how soon an instance would be free.
 *
 * Prefill needs what arrives, and its queues over the time they may take. A decode instance is full
 * by whichever is nearest: pages, sequences, or the time between tokens, counted from what it is
 * with one sequence alone, so that load is proportional to work. Only what decodes counts: room
 * kept for requests that still wait for their prefill says that prefill is short, not decode.
 * Requests outside are added to both. What a draining instance still does is its own affair, and
 * counts nowhere. */
#include "conductor/conductor_int.h"

#include <math.h>
#include <string.h>

#include "base/assert.h"

static const double TTFT_MS = 5000, TBT_MS = 100;
enum { WINDOW_MS = 30000, DWELL_MS = 60000, DRAIN_MS = 30000 };

/* ---- options ---- */

struct yolk_elastic_options yolk_elastic_defaults(void)
{
    return (struct yolk_elastic_options){
        .window_ms = WINDOW_MS, .dwell_ms = DWELL_MS, .drain_ms = DRAIN_MS, .flips_max = 0
    };
}

static void take(struct yolk_conductor *c, const struct yolk_elastic_options *options)
{
    const struct roles_options roles = { options->window_ms, options->dwell_ms,
                                         options->flips_max };
    c->elastic.options = *options;
    roles_init(&c->roles, &roles);
}

void conductor_elastic_init(struct yolk_conductor *c)
{
    const struct yolk_elastic_options options = yolk_elastic_defaults();
    take(c, &options);
}

static bool good_ms(double ms)
{
    return ms >= 0 && ms <= YOLK_ELASTIC_MS_MAX;
}

enum status yolk_conductor_set_elastic(struct yolk_conductor *c,
                                       const struct yolk_elastic_options *options,
                                       struct errmsg *err)
{
    if (!good_ms(options->ttft_ms) || !good_ms(options->tbt_ms) || !good_ms(options->window_ms) ||
        !good_ms(options->dwell_ms) || !good_ms(options->drain_ms) || options->window_ms == 0) {
        return errmsg_set(err, STATUS_INVALID, "conductor: a time of elasticity is not in 0..%d ms",
                          YOLK_ELASTIC_MS_MAX);
    }
    if (options->flips_max > YOLK_INSTANCES_MAX) {
        return errmsg_set(err, STATUS_INVALID, "conductor: flips_max is not in 0..%d",
                          YOLK_INSTANCES_MAX);
    }
    take(c, options);
    return STATUS_OK;
}

/* ---- what the pools have to do ---- */

/* What full is. */
struct targets {
    double ttft_ms, tbt_ms, decode_ms;
};

static double first_set(double a, double b, double c)
{
    if (a > 0) return a;
    return b > 0 ? b : c;
}

static struct targets targets_of(const struct yolk_conductor *c)
{
    const struct yolk_elastic_options *options = &c->elastic.options;
    struct yolk_admission_stats stats;

    admission_stats(c->admission, &stats);
    return (struct targets){
        .ttft_ms = first_set(options->ttft_ms, stats.options.ttft_ms, TTFT_MS),
        .tbt_ms = first_set(options->tbt_ms, stats.options.tbt_ms, TBT_MS),
        .decode_ms = stats.decode_ms,
    };
}

/* What a decode instance like this is full of with so much, 1 being full. */
static double fullness(const struct instance *instance, double sequences, double context,
                       double pages, double tbt_ms)
{
    const double alone = conductor_cost_decode(&instance->decode_fit, 1, 0);
    double full = fmax(pages / instance->pages_max, sequences / instance->sequences_max);

    if (sequences > 1 && tbt_ms > alone) {
        const double step = conductor_cost_decode(&instance->decode_fit, sequences, context);
        full = fmax(full, (step - alone) / (tbt_ms - alone));
    }
    return full;
}

static bool has_one_role(const struct instance *instance)
{
    return instance->roles == YOLK_ROLE_PREFILL || instance->roles == YOLK_ROLE_DECODE;
}

static enum roles_pool pool_of(const struct instance *instance)
{
    const bool prefills = instance->roles == YOLK_ROLE_PREFILL;
    return prefills != instance->draining ? ROLES_PREFILL : ROLES_DECODE;
}

/* When its work would be done, if it got none from now on. */
static double drain_ms(const struct yolk_conductor *c, const struct instance *instance,
                       double decode_ms, double now_ms)
{
    const double decodes = instance->decoding > 0 ? decode_ms : 0;
    const double left = fmax(conductor_queue_ms(instance, now_ms), decodes);
    return fmin(left, c->elastic.options.drain_ms);
}

static void add_outside(const struct yolk_conductor *c, const struct instance *decoder,
                        const struct instance *prefiller, const struct yolk_outside *outside,
                        const struct targets *targets, struct roles_view *view)
{
    const double requests = outside->requests, tokens = (double)outside->tokens;

    if (outside->requests == 0 || decoder == NULL || prefiller == NULL) return;
    const double each = tokens / requests;
    const double pages = ceil(each / c->options.block_tokens) * requests;
    view->decode_need += fullness(decoder, requests, tokens, pages, targets->tbt_ms);
    view->prefill_backlog +=
        requests * conductor_cost_prefill(&prefiller->prefill_fit, each, 0) / targets->ttft_ms;
}

static struct roles_view view_of(struct yolk_conductor *c, const struct yolk_outside *outside,
                                 double now_ms)
{
    const struct targets targets = targets_of(c);
    struct roles_view view = { .members = c->members, .now_ms = now_ms };
    const struct instance *decoder = NULL, *prefiller = NULL;

    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        const struct instance *it = &c->instances[i];
        if (!it->used || it->suspected || it->leaving || !has_one_role(it)) continue;
        c->members[view.members_count++] = (struct roles_member){
            .instance = i,
            .pool = pool_of(it),
            .draining = it->draining,
            .since_ms = it->since_ms,
            .drain_ms = drain_ms(c, it, targets.decode_ms, now_ms),
        };
        if (it->draining) continue;
        if (it->roles == YOLK_ROLE_PREFILL) {
            prefiller = it;
            view.prefill_backlog += conductor_queue_ms(it, now_ms) / targets.ttft_ms;
        } else {
            decoder = it;
            const double tokens = (double)it->decoding_tokens;
            view.decode_need += fullness(it, it->decoding, tokens, tokens / c->options.block_tokens,
                                         targets.tbt_ms);
        }
    }
    add_outside(c, decoder, prefiller, outside, &targets, &view);
    return view;
}

/* ---- flips ---- */

static struct instance *instance_at(const struct yolk_conductor *c, struct yolk_instance_id id)
{
    ASSERT(id.index < c->options.instances_max && c->instances[id.index].used);
    return &c->instances[id.index];
}

/* Others have gone since: who drains is needed where it is. */
static void call_off(struct yolk_conductor *c, double now_ms)
{
    if (c->elastic.draining == 0 || (c->prefill_up > 0 && c->decode_up > 0)) return;
    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        const struct instance *it = &c->instances[i];
        if (!it->used || !it->draining || it->suspected) continue;
        if ((it->roles == YOLK_ROLE_PREFILL ? c->prefill_up : c->decode_up) > 0) continue;
        yolk_conductor_flip_end(c, (struct yolk_instance_id){ i }, false, now_ms);
    }
}

bool yolk_conductor_elastic(struct yolk_conductor *c, const struct yolk_outside *outside,
                            double now_ms, struct yolk_flip *out)
{
    struct roles_proposal proposal;

    if (!c->elastic.options.on) return false;
    call_off(c, now_ms);
    const struct roles_view view = view_of(c, outside, now_ms);
    if (!roles_look(&c->roles, &view, &proposal)) return false;
    struct instance *instance = &c->instances[proposal.instance];
    ASSERT(conductor_open(instance) && has_one_role(instance));
    conductor_assign(c, instance, instance->roles, true);
    ASSERT(instance->roles == YOLK_ROLE_PREFILL ? c->prefill_up > 0 : c->decode_up > 0);
    c->elastic.begun++;
    *out = (struct yolk_flip){
        .id = { proposal.instance },
        .from = instance->roles,
        .to = proposal.to == ROLES_PREFILL ? YOLK_ROLE_PREFILL : YOLK_ROLE_DECODE,
        .prefill_load = proposal.load[ROLES_PREFILL],
        .decode_load = proposal.load[ROLES_DECODE],
        .cost_ms = proposal.cost_ms,
    };
    ASSERT(out->from != out->to);
    return true;
}

bool yolk_conductor_draining(const struct yolk_conductor *c, struct yolk_instance_id id)
{
    return instance_at(c, id)->draining;
}

bool yolk_conductor_drained(const struct yolk_conductor *c, struct yolk_instance_id id)
{
    const struct instance *instance = instance_at(c, id);
    return instance->draining && instance->queued == 0 && instance->sequences == 0;
}

void yolk_conductor_flip_end(struct yolk_conductor *c, struct yolk_instance_id id, bool done,
                             double now_ms)
{
    struct instance *instance = instance_at(c, id);
    const unsigned both = YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE;

    ASSERT(instance->draining && has_one_role(instance));
    if (done) {
        c->elastic.done++;
        instance->since_ms = now_ms;
    } else {
        c->elastic.cancelled++;
    }
    conductor_assign(c, instance, done ? instance->roles ^ both : instance->roles, false);
}

/* The instance with room for this ticket where tokens come soonest, or UINT32_MAX. */
static uint32_t new_home(const struct yolk_conductor *c, const struct ticket *ticket)
{
    uint32_t best = UINT32_MAX;
    double least = INFINITY;

    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        const struct instance *it = &c->instances[i];
        if (!conductor_open(it) || !(it->roles & YOLK_ROLE_DECODE)) continue;
        if (it->sequences >= it->sequences_max) continue;
        if (it->pages + ticket->pages > it->pages_max) continue;
        const double tbt = conductor_cost_decode(&it->decode_fit, it->sequences + 1.0,
                                                 (double)it->context_tokens + ticket->tokens);
        if (tbt >= least) continue;
        best = i;
        least = tbt;
    }
    return best;
}

enum status yolk_conductor_rehome(struct yolk_conductor *c, struct yolk_ticket id,
                                  struct yolk_instance_id *out)
{
    struct ticket *ticket = conductor_ticket(c, id);
    struct yolk_decision *decision = conductor_logged(c, ticket);

    ASSERT(ticket->state == TICKET_PREFILLING);
    const uint32_t home = new_home(c, ticket);
    if (home == UINT32_MAX) return STATUS_FULL;
    conductor_move(c, ticket, home);
    out->index = home;
    if (decision == NULL) return STATUS_OK;
    decision->decode = *out;
    memcpy(decision->decode_name, c->instances[home].name, YOLK_NAME_SIZE);
    return STATUS_OK;
}

unsigned yolk_conductor_roles(const struct yolk_conductor *c, struct yolk_instance_id id)
{
    return instance_at(c, id)->roles;
}

void yolk_conductor_set_roles(struct yolk_conductor *c, struct yolk_instance_id id, unsigned roles,
                              double now_ms)
{
    struct instance *instance = instance_at(c, id);

    ASSERT(roles != 0 && (roles & ~(unsigned)(YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE)) == 0);
    if (instance->draining) c->elastic.cancelled++;
    conductor_assign(c, instance, roles, false);
    instance->since_ms = now_ms;
}

void yolk_conductor_elastic_stats(const struct yolk_conductor *c, struct yolk_elastic_stats *out)
{
    *out = c->elastic;
    out->prefill_load = c->roles.load[ROLES_PREFILL];
    out->decode_load = c->roles.load[ROLES_DECODE];
    out->more_prefill_ms = c->roles.evidence[ROLES_PREFILL];
    out->more_decode_ms = c->roles.evidence[ROLES_DECODE];
}
