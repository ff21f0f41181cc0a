/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/inline.h"

#include "base/assert.h"
#include "sim/mooncake_int.h"

static struct decode_node *node_of(const struct sim *sim, uint32_t who)
{
    return &mooncake_of(sim)->decode[sim->requests[who].decode];
}

static uint32_t machine_of(const struct sim *sim, uint32_t who)
{
    return mooncake_of(sim)->decode_first + sim->requests[who].decode;
}

void inline_begin(struct sim *sim, uint32_t who)
{
    const struct sim_request *request = &sim->requests[who];
    const double tokens = (double)request->pinned * sim->trace->block_tokens;

    sim->result->inlined++;
    if (request->pinned == 0 || request->prefill == machine_of(sim, who)) {
        inline_ready(sim, who);
        return;
    }
    mooncake_send(sim, request->prefill, machine_of(sim, who), tokens, who, FLOW_SHARE, 0);
}

void inline_ready(struct sim *sim, uint32_t who)
{
    struct decode_node *node = node_of(sim, who);

    sim_queue_push(sim, &node->inlining, who);
    if (!node->stepping) mooncake_start_step(sim, sim->requests[who].decode);
}

/* Beside a batch, what a prefill costs before its first token is the step's. */
static double beside_s(const struct sim *sim, uint32_t who, bool alone)
{
    const struct sim_profile *cost = &sim->cluster.cost;
    const double reused = (double)sim->requests[who].reuse * sim->trace->block_tokens;
    const double tokens = sim_input(sim, who);

    if (alone) return sim_profile_prefill_s(cost, tokens, reused);
    return cost->chunk_factor * (cost->prefill_new_s * (tokens - reused) +
                                 cost->prefill_square_s * (tokens * tokens - reused * reused));
}

double inline_step(struct sim *sim, uint32_t index, double step_s)
{
    struct decode_node *node = &mooncake_of(sim)->decode[index];
    const bool alone = batch_count(node->batch) == 0;

    ASSERT(node->inlined == SIM_NONE);
    if (node->inlining.count == 0) return step_s;
    const uint32_t who = sim_queue_pop(sim, &node->inlining);
    struct sim_request *request = &sim->requests[who];
    struct sim_record *record = &sim->result->records[who];

    node->inlined = who;
    sim_set_state(sim, who, SIM_PREFILLING);
    request->reuse = request->pinned;
    const double seconds = beside_s(sim, who, alone);
    if (request->generated == 0) {
        record->queue_s = (double)(sim->events.now_ns - request->arrival_ns) / 1e9;
        record->reused_tokens = request->reuse * sim->trace->block_tokens;
        record->prefill_s = seconds;
    }
    return alone ? seconds : step_s + seconds;
}

static void store(struct sim *sim, uint32_t who)
{
    const struct sim_request *request = &sim->requests[who];
    const uint32_t blocks = sim_full_blocks(sim, who) - request->reuse;
    const double tokens = (double)blocks * sim->trace->block_tokens;

    if (blocks == 0 || request->prefill == machine_of(sim, who))
        inline_stored(sim, who);
    else
        mooncake_send(sim, machine_of(sim, who), request->prefill, tokens, who, FLOW_GATHER, 0);
}

void inline_stored(struct sim *sim, uint32_t who)
{
    mooncake_keep(sim, who);
}

void inline_step_done(struct sim *sim, uint32_t index)
{
    struct decode_node *node = &mooncake_of(sim)->decode[index];
    const uint32_t who = node->inlined;

    if (who == SIM_NONE) return;
    node->inlined = SIM_NONE;
    mooncake_report_prefill(sim, who);
    store(sim, who);
    sim_set_state(sim, who, SIM_DECODING);
    sim_first_token(sim, who);
    if (sim_output(sim, who) == 1) {
        mooncake_release(sim, who, SIM_DONE);
        return;
    }
    batch_join(node->batch, who, sim_input(sim, who) + 1, sim_output(sim, who) - 1,
               sim->events.now_ns);
}

void inline_give_up(struct sim *sim, uint32_t who)
{
    struct decode_node *node = node_of(sim, who);

    if (node->inlined == who) node->inlined = SIM_NONE; /* the step goes on without it */
    sim_queue_leave(sim, &node->inlining, who);
}
