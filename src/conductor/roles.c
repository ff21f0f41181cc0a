/* SPDX-License-Identifier: Apache-2.0 */
#include "conductor/roles.h"

#include <math.h>

#include "base/assert.h"

/* Of the gain: what is below is noise. */
static const double MARGIN = 0.1;
static const double GAIN_MAX = 2;
/* Below this load of the fuller pool nobody waits, and nothing is worth a flip. */
static const double BUSY = 0.7;
/* How fast evidence goes while nobody is busy. */
static const double IDLE = 0.5;
/* What a flip costs besides its drain, as a share of the window. */
static const double COST = 1.0 / 6;
/* A look counts for at most this share of the window: who has not looked does not know. */
static const double LOOK = 0.25;

struct counts {
    uint32_t in[ROLES_POOLS];    /* with those on their way there */
    uint32_t ready[ROLES_POOLS]; /* without */
    uint32_t draining;
};

void roles_init(struct roles *roles, const struct roles_options *options)
{
    ASSERT(options->window_ms > 0 && options->dwell_ms >= 0);
    *roles = (struct roles){ .options = *options, .looked_ms = -INFINITY, .began_ms = INFINITY };
}

static void age_rate(struct roles *roles, double now_ms)
{
    if (now_ms <= roles->rate_ms) return;
    roles->rate *= exp((roles->rate_ms - now_ms) / roles->options.window_ms);
    roles->rate_ms = now_ms;
}

void roles_arrive(struct roles *roles, double work_ms, double now_ms)
{
    ASSERT(work_ms >= 0 && isfinite(now_ms));
    age_rate(roles, now_ms);
    roles->rate += work_ms / roles->options.window_ms;
}

static struct counts count(const struct roles_view *view)
{
    struct counts counts = { 0 };

    for (uint32_t i = 0; i < view->members_count; i++) {
        const struct roles_member *member = &view->members[i];
        counts.in[member->pool]++;
        counts.ready[member->pool] += !member->draining;
        counts.draining += member->draining;
    }
    return counts;
}

static double larger_load(const double need[ROLES_POOLS], double prefill, double decode)
{
    return fmax(need[ROLES_PREFILL] / prefill, need[ROLES_DECODE] / decode);
}

static enum roles_pool other(enum roles_pool pool)
{
    return pool == ROLES_PREFILL ? ROLES_DECODE : ROLES_PREFILL;
}

/* What one instance more in `to` gains, in -1..GAIN_MAX; negative while there is none to give. */
static double gain_of(const struct counts *counts, const double need[ROLES_POOLS],
                      enum roles_pool to)
{
    const double prefill = counts->in[ROLES_PREFILL], decode = counts->in[ROLES_DECODE];
    const double more = to == ROLES_PREFILL ? 1 : -1;

    if (counts->ready[other(to)] < 2) return -1; /* G1 */
    const double now = larger_load(need, prefill, decode);
    const double after = larger_load(need, prefill + more, decode - more);
    if (now < BUSY) return -IDLE;
    return fmin(fmax(now - after, -1), GAIN_MAX);
}

/* The member of this pool that is free soonest of those that have been there for `dwell_ms`, or
 * NULL. */
static const struct roles_member *giver_of(const struct roles_view *view, enum roles_pool from,
                                           double dwell_ms)
{
    const struct roles_member *best = NULL;

    for (uint32_t i = 0; i < view->members_count; i++) {
        const struct roles_member *member = &view->members[i];
        if (member->pool != from || member->draining) continue;
        if (view->now_ms - member->since_ms < dwell_ms) continue; /* G2 */
        if (best == NULL || member->drain_ms < best->drain_ms) best = member;
    }
    return best;
}

/* How long it is since the last look, as far as that counts. */
static double elapsed_ms(struct roles *roles, double now_ms)
{
    const double most = LOOK * roles->options.window_ms;
    const double elapsed = now_ms - roles->looked_ms;

    roles->looked_ms = now_ms;
    if (!isfinite(elapsed) || elapsed <= 0) return 0;
    return elapsed < most ? elapsed : most;
}

static void weigh(struct roles *roles, const struct counts *counts, const double need[ROLES_POOLS],
                  double elapsed)
{
    for (int pool = 0; pool < ROLES_POOLS; pool++) {
        const double gain = gain_of(counts, need, (enum roles_pool)pool) - MARGIN;
        const double evidence = fmax(0, roles->evidence[pool] + gain * elapsed);
        roles->evidence[pool] = fmin(evidence, roles->options.window_ms);
    }
}

static struct roles_proposal proposal_of(const struct roles *roles,
                                         const struct roles_member *giver, enum roles_pool to,
                                         double cost_ms)
{
    return (struct roles_proposal){
        .instance = giver->instance,
        .to = to,
        .load = { roles->load[ROLES_PREFILL], roles->load[ROLES_DECODE] },
        .cost_ms = cost_ms,
    };
}

/* Nobody is in this pool, nor on the way: one of two or more goes there. Where nobody has ever been
 * somebody may be starting still. */
static bool fill(const struct roles *roles, const struct roles_view *view,
                 const struct counts *counts, struct roles_proposal *out)
{
    const enum roles_pool to = counts->in[ROLES_PREFILL] == 0 ? ROLES_PREFILL : ROLES_DECODE;

    if (counts->ready[other(to)] < 2) return false; /* G1 */
    if (!roles->known[to] && view->now_ms - roles->began_ms < roles->options.dwell_ms) return false;
    const struct roles_member *giver = giver_of(view, other(to), 0);
    *out = proposal_of(roles, giver, to, giver->drain_ms);
    return true;
}

/* Is there somebody to move to this pool, and does that pay by now? Evidence may be of a time when
 * the other pool was larger. */
static bool propose(struct roles *roles, const struct roles_view *view, const struct counts *counts,
                    enum roles_pool to, struct roles_proposal *out)
{
    if (counts->ready[other(to)] < 2) return false; /* G1 */
    const struct roles_member *giver = giver_of(view, other(to), roles->options.dwell_ms);

    if (giver == NULL) return false;
    const double cost = giver->drain_ms / 2 + COST * roles->options.window_ms;
    if (roles->evidence[to] < cost) return false;
    *out = proposal_of(roles, giver, to, cost);
    roles->evidence[to] -= cost; /* what is left over speaks for a second one */
    roles->evidence[other(to)] = 0;
    return true;
}

static uint32_t flips_max(const struct roles *roles, const struct roles_view *view)
{
    const uint32_t some = view->members_count / 4;

    if (roles->options.flips_max > 0) return roles->options.flips_max;
    return some > 0 ? some : 1;
}

bool roles_look(struct roles *roles, const struct roles_view *view, struct roles_proposal *out)
{
    const struct counts counts = count(view);
    const double elapsed = elapsed_ms(roles, view->now_ms);

    ASSERT(view->prefill_backlog >= 0 && view->decode_need >= 0);
    age_rate(roles, view->now_ms);
    if (view->members_count > 0) roles->began_ms = fmin(roles->began_ms, view->now_ms);
    const double need[ROLES_POOLS] = { roles->rate + view->prefill_backlog, view->decode_need };
    for (int pool = 0; pool < ROLES_POOLS; pool++) {
        roles->known[pool] |= counts.in[pool] > 0;
        roles->load[pool] = counts.in[pool] > 0 ? need[pool] / counts.in[pool] : 0;
    }
    if (counts.in[ROLES_PREFILL] == 0 || counts.in[ROLES_DECODE] == 0)
        return fill(roles, view, &counts, out);
    weigh(roles, &counts, need, elapsed);
    if (counts.draining >= flips_max(roles, view)) return false; /* G3 */
    return propose(roles, view, &counts, ROLES_PREFILL, out) ||
           propose(roles, view, &counts, ROLES_DECODE, out);
}
