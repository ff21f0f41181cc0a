/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/mooncake_decode.c - a decode node: who has its memory, its batch, step after step. */
#include "sim/mooncake_int.h"

#include <math.h>

#include "base/assert.h"
#include "sim/inline.h"

enum { GROWTH_STEPS = 32 };

/* Sequences that may decode at once; the others wait at the door. */
static double batch_most(const struct sim *sim, const struct decode_node *node)
{
    const struct yolk_conductor *conductor = mooncake_of(sim)->conductor;

    if (conductor == NULL || !sim->cluster.door) return sim->cluster.batch_max;
    return fmin(sim->cluster.batch_max, yolk_conductor_batch_max(conductor, node->id));
}

/* How much longer a step takes that begins now, for what its machine prefills meanwhile. */
static double beside(const struct sim *sim)
{
    const struct mooncake *m = mooncake_of(sim);
    const struct sim_profile *cost = &sim->cluster.cost;
    uint32_t computing = 0;

    if (cost->decode_beside == 1) return 1; /* a thousand nodes take turns */
    for (uint32_t i = 0; i < m->prefill_count; i++)
        computing += m->prefill[i].running != SIM_NONE;
    return sim_profile_beside(cost, (double)computing / m->prefill_count);
}

void mooncake_start_step(struct sim *sim, uint32_t index)
{
    struct mooncake *m = mooncake_of(sim);
    struct decode_node *node = &m->decode[index];
    const double most = batch_most(sim, node);

    ASSERT(!node->stepping);
    while (node->joining.count > 0 && batch_count(node->batch) < most) {
        const uint32_t who = sim_queue_pop(sim, &node->joining);
        const struct yolk_ticket ticket = { sim->requests[who].ticket };
        if (m->conductor != NULL)
            yolk_conductor_joined(m->conductor, ticket, (double)sim->events.now_ns / 1e6);
        sim_set_state(sim, who, SIM_DECODING);
        if (!sim->cluster.first_at_prefill) mooncake_show_first(sim, who);
        batch_join(node->batch, who, sim_input(sim, who) + 1, sim_output(sim, who) - 1,
                   sim->requests[who].first_ns);
    }
    if (batch_count(node->batch) == 0 && node->inlining.count == 0) return;
    node->stepping = true;
    double step_s = beside(sim) * sim_profile_decode_s(&sim->cluster.cost, batch_count(node->batch),
                                                       batch_context(node->batch));
    if (batch_count(node->batch) < sim->cluster.batch_max) step_s = inline_step(sim, index, step_s);
    sim_schedule_version(sim, step_s, SIM_EVENT_STEP, index, node->epoch);
}

/* The conductor hears of every token where it judges loads, and now and then where it only places:
 * a million requests have hundreds of millions of tokens. */
static void report_growth(struct sim *sim, const struct batch *batch)
{
    const bool judged = sim->cluster.overload != CLUSTER_OVERLOAD_NONE;

    if (!judged && batch_steps(batch) % GROWTH_STEPS != 0) return;
    for (uint32_t i = 0; i < batch_count(batch); i++) {
        struct sim_request *request = &sim->requests[batch_who(batch, i)];
        const uint32_t had = batch_had(batch, i);
        ASSERT(had >= request->grown);
        yolk_conductor_decoded(mooncake_of(sim)->conductor, (struct yolk_ticket){ request->ticket },
                               had - request->grown);
        request->grown = had;
    }
}

void mooncake_on_step(struct sim *sim, uint32_t index)
{
    const struct mooncake *m = mooncake_of(sim);
    struct decode_node *node = &m->decode[index];
    struct batch_member member;

    ASSERT(node->stepping);
    node->stepping = false;
    batch_step(node->batch, sim->events.now_ns);
    if (m->conductor != NULL) report_growth(sim, node->batch);
    inline_step_done(sim, index);
    while (batch_leave(node->batch, &member)) {
        sim_record_intervals(sim, node->batch, &member);
        mooncake_release(sim, member.who, SIM_DONE);
    }
    if (!node->stepping) mooncake_start_step(sim, index);
}

/* How slow its node would be with it, as a share of the limit; never with it alone. */
static double load_with(const struct sim *sim, const struct decode_node *node, uint32_t who)
{
    const struct sim_cluster *cluster = &sim->cluster;
    const uint32_t before = batch_count(node->batch) + node->joining.count;
    const double context = batch_context(node->batch) + sim_input(sim, who);

    if (before == 0) return 0;
    return sim_profile_decode_s(&cluster->cost, before + 1, context) * 1e3 / cluster->admit_tbt_ms;
}

static bool node_refuses(struct sim *sim, const struct decode_node *node, uint32_t who)
{
    const struct yolk_ticket ticket = { sim->requests[who].ticket };
    const double now_ms = (double)sim->events.now_ns / 1e6;
    struct yolk_verdict verdict;

    if (!sim->cluster.node_checks || sim->cluster.admit_tbt_ms <= 0) return false;
    if (sim->cluster.overload == CLUSTER_OVERLOAD_NONE || sim->requests[who].attempt > 0)
        return false;
    const double load = load_with(sim, node, who);
    if (load <= 1) return false;
    yolk_conductor_refused_at_node(mooncake_of(sim)->conductor, ticket, load, now_ms, &verdict);
    mooncake_release(sim, who, SIM_REFUSED_LATE);
    return true;
}

void mooncake_on_loaded(struct sim *sim, uint32_t who)
{
    struct mooncake *m = mooncake_of(sim);
    const uint32_t index = sim->requests[who].decode;

    if (node_refuses(sim, &m->decode[index], who)) return;
    sim_set_state(sim, who, SIM_JOINING);
    sim_queue_insert(sim, &m->decode[index].joining, who);
    if (!m->decode[index].stepping) mooncake_start_step(sim, index);
}

/* It has a place and memory at this decode node from now on. */
void mooncake_enter_decode(struct sim *sim, uint32_t who, uint32_t index)
{
    struct decode_node *node = &mooncake_of(sim)->decode[index];

    sim->requests[who].decode = index;
    node->sequences++;
    node->promised_tokens += mooncake_need(sim, who);
}

void mooncake_leave_decode(struct sim *sim, uint32_t who)
{
    struct decode_node *node = &mooncake_of(sim)->decode[sim->requests[who].decode];

    ASSERT(node->sequences > 0);
    node->sequences--;
    node->promised_tokens -= mooncake_need(sim, who);
}
