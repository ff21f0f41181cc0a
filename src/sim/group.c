/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariants
 *   G1  stages are planned in order; a planned stage has one event pending until it is done.
 *   G2  a group is gone when its stages are done and gathered; nothing names it afterwards. */
#include "sim/group.h"

#include <math.h>
#include <stdlib.h>

#include "base/assert.h"
#include "conductor/pipeline.h"
#include "sim/mooncake_int.h"

struct group {
    uint32_t stages, count; /* of nodes; of chunks, once the leader has begun */
    uint32_t node[PIPELINE_STAGES_MAX];
    bool waiting[PIPELINE_STAGES_MAX]; /* its node has come to it */
    bool shared[PIPELINE_STAGES_MAX];  /* the layers of the prefix are there */
    uint32_t planned, done;            /* stages */
    uint32_t gathering;                /* stages whose new layers the leader lacks */
    struct pipeline_chunk chunks[PIPELINE_CHUNKS_MAX]; /* at: ns */
};

enum status group_create(struct sim *sim, uint32_t who, const uint32_t *nodes, uint32_t stages)
{
    ASSERT(stages >= 2 && stages <= PIPELINE_STAGES_MAX && sim->requests[who].group == NULL);
    struct group *group = calloc(1, sizeof(*group));

    if (group == NULL) return STATUS_NO_MEMORY;
    group->stages = stages;
    group->gathering = stages - 1;
    for (uint32_t j = 0; j < stages; j++)
        group->node[j] = nodes[j];
    sim->requests[who].group = group;
    sim->result->groups++;
    sim->result->group_stages += stages;
    mooncake_of(sim)->groups++;
    return STATUS_OK;
}

void group_destroy(struct sim *sim, uint32_t who)
{
    if (sim->requests[who].group == NULL) return;
    free(sim->requests[who].group);
    sim->requests[who].group = NULL;
    ASSERT(mooncake_of(sim)->groups > 0);
    mooncake_of(sim)->groups--;
}

bool group_has(const struct group *group, uint32_t node)
{
    for (uint32_t j = 0; j < group->stages; j++) {
        if (group->node[j] == node) return true;
    }
    return false;
}

static uint32_t stage_of(const struct group *group, uint32_t node)
{
    uint32_t stage = 0;
    while (group->node[stage] != node) {
        stage++;
        ASSERT(stage < group->stages);
    }
    return stage;
}

/* What it takes in truth; the differences add up to the whole prefill on one node. */
static void cut(struct sim *sim, uint32_t who)
{
    const struct sim_profile *cost = &sim->cluster.cost;
    struct group *group = sim->requests[who].group;
    const uint32_t reused = sim->requests[who].reuse * sim->trace->block_tokens;
    const uint32_t fresh = sim_input(sim, who) - reused;
    const uint32_t chunk_tokens = (uint32_t)cost->chunk_tokens;
    const double whole = sim_profile_prefill_s(cost, reused + fresh, reused);
    double before = -mooncake_store_s(sim, who, whole); /* each stage stores its own layers */

    group->count = pipeline_chunks(fresh, chunk_tokens);
    for (uint32_t i = 0; i < group->count; i++) {
        const uint32_t begin = pipeline_begin(fresh, chunk_tokens, i);
        const uint32_t end = pipeline_begin(fresh, chunk_tokens, i + 1);
        const double all = sim_profile_prefill_s(cost, reused + end, reused);
        const double bytes = (end - begin) * cost->activation_token_bytes;
        const double hop = cost->transfer_setup_s + bytes / mooncake_link_bytes_s(sim);
        group->chunks[i] =
            (struct pipeline_chunk){ 1e9 * (all - before), 1e9 * hop, (double)sim->events.now_ns };
        before = all;
    }
    group->chunks[group->count - 1].at += 1e9 * mooncake_ssd_s(sim, who); /* all of it is needed */
}

static void share_prefix(struct sim *sim, uint32_t who)
{
    struct group *group = sim->requests[who].group;
    const double tokens = (double)sim->requests[who].reuse * sim->trace->block_tokens;

    for (uint32_t j = 1; j < group->stages; j++) {
        group->shared[j] = tokens == 0;
        if (tokens > 0)
            mooncake_send(sim, group->node[0], group->node[j], tokens / group->stages, who,
                          FLOW_SHARE, j);
    }
}

/* Its layers are on their way, to the decode node and to the pool. */
static void send_layers(struct sim *sim, uint32_t who, uint32_t stage)
{
    const struct group *group = sim->requests[who].group;
    const uint32_t blocks = sim_full_blocks(sim, who) - sim->requests[who].reuse;
    const double tokens = (double)blocks * sim->trace->block_tokens;

    if (sim_output(sim, who) > 1) mooncake_send_kv(sim, who, group->node[stage], stage);
    if (stage > 0)
        mooncake_send(sim, group->node[stage], group->node[0], tokens / group->stages, who,
                      FLOW_GATHER, stage);
}

/* Plans the stages that can be: their node waits, their layers of the prefix are there. */
static void plan(struct sim *sim, uint32_t who)
{
    struct mooncake *m = mooncake_of(sim);
    struct group *group = sim->requests[who].group;
    const double now = (double)sim->events.now_ns;

    while (group->planned < group->stages) {
        const uint32_t j = group->planned;
        if (!group->waiting[j] || !group->shared[j]) return;
        (void)pipeline_stage(group->chunks, group->count, group->stages, now, j == 0);
        const double end = group->chunks[group->count - 1].at;
        m->prefill[group->node[j]].until_ns = (uint64_t)llround(end);
        sim_schedule_version(sim, (end - now) / 1e9, SIM_EVENT_PREFILL, group->node[j],
                             m->prefill[group->node[j]].epoch);
        group->planned++;
        if (sim->cluster.layerwise) send_layers(sim, who, j);
    }
}

void group_turn(struct sim *sim, uint32_t who, uint32_t node)
{
    struct group *group = sim->requests[who].group;
    const uint32_t stage = stage_of(group, node);

    ASSERT(!group->waiting[stage]);
    group->waiting[stage] = true;
    if (stage == 0) {
        group->shared[0] = true;
        mooncake_begin(sim, who);
        cut(sim, who);
        share_prefix(sim, who);
    }
    plan(sim, who);
}

static void dissolve_if_over(struct sim *sim, uint32_t who)
{
    const struct group *group = sim->requests[who].group;

    if (group->done < group->stages || group->gathering > 0) return;
    mooncake_keep(sim, who);
    group_destroy(sim, who);
}

bool group_stage_done(struct sim *sim, uint32_t who, uint32_t node)
{
    struct mooncake *m = mooncake_of(sim);
    const struct sim_request *request = &sim->requests[who];
    struct group *group = request->group;
    const uint32_t stage = stage_of(group, node);

    ASSERT(stage == group->done && stage < group->planned); /* G1 */
    group->done++;
    const bool last = group->done == group->stages;
    yolk_conductor_stage_done(m->conductor, (struct yolk_ticket){ request->ticket },
                              m->prefill[node].id, (double)sim->events.now_ns / 1e6);
    if (!sim->cluster.layerwise) send_layers(sim, who, stage);
    dissolve_if_over(sim, who);
    return last;
}

void group_shared(struct sim *sim, uint32_t who, uint32_t stage)
{
    sim->requests[who].group->shared[stage] = true;
    plan(sim, who);
}

void group_gathered(struct sim *sim, uint32_t who, uint32_t stage)
{
    struct group *group = sim->requests[who].group;

    ASSERT(stage > 0 && group->gathering > 0);
    group->gathering--;
    dissolve_if_over(sim, who);
}
