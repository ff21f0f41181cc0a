/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/mooncake_place.c - who is asked where a request goes: the conductor, which is told what an
 * offline fit on this hardware would have found, or a router that is not its own. */
#include "sim/mooncake_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "conductor/choose.h"
#include "conductor/cost.h"
#include "conductor/profile.h"
#include "sim/elastic.h"

enum { FIT_SAMPLES = 2000 };
enum { DECISIONS = 1 << 15 }; /* remembered for regret: more than are under way at once */

/* What an offline fit on this hardware would have found: samples of the true costs. */
static enum status fit_profile(const struct sim *sim, struct conductor_profile *out)
{
    const struct sim_profile *cost = &sim->cluster.cost;
    struct rng rng;

    rng_init(&rng, 1);
    conductor_profile_init(out);
    for (int i = 0; i < FIT_SAMPLES; i++) {
        const double tokens = floor(64 * exp(7.6 * rng_unit(&rng))); /* to 128k */
        const double reused = floor(tokens * rng_unit(&rng));
        const double sequences = floor(1 + 100 * rng_unit(&rng));
        const double context = floor(sequences * 20000 * rng_unit(&rng));
        const double bytes = mooncake_token_bytes(sim, tokens);
        const double moved_s = cost->transfer_setup_s + bytes / mooncake_link_bytes_s(sim);
        enum status status = conductor_fit_prefill(
            &out->prefill, tokens, reused, sim_profile_prefill_s(cost, tokens, reused) * 1e3);
        if (status == STATUS_OK)
            status = conductor_fit_decode(&out->decode, sequences, context,
                                          sim_profile_decode_s(cost, sequences, context) * 1e3);
        for (int path = 0; status == STATUS_OK && path < CONDUCTOR_PATHS; path++)
            status = conductor_fit_transfer(&out->transfer[path], bytes, moved_s * 1e3);
        if (status == STATUS_OK)
            status = conductor_fit_transfer(&out->ssd, bytes, bytes / cost->ssd_bytes_s * 1e3);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

static enum status load_profile(struct sim *sim, struct yolk_conductor *conductor)
{
    struct conductor_profile profile;
    char *text = NULL;
    size_t len = 0;

    enum status status = fit_profile(sim, &profile);
    if (status == STATUS_OK) status = conductor_profile_format(&profile, &text, &len);
    if (status == STATUS_OK) status = yolk_conductor_profile_load(conductor, text, len, sim->err);
    free(text);
    return status;
}

enum status mooncake_add_machine(struct sim *sim, uint32_t machine)
{
    struct mooncake *m = mooncake_of(sim);
    const struct sim_cluster *cluster = &sim->cluster;
    const uint32_t prefill = (uint32_t)cluster->prefill;
    const bool prefills = machine < prefill;
    char name[YOLK_NAME_SIZE];
    struct yolk_instance_id id;
    const struct yolk_instance instance = {
        .name = name,
        .host = name,
        .roles = prefills ? YOLK_ROLE_PREFILL : YOLK_ROLE_DECODE,
        .pages_max = (uint32_t)fmin(1 + cluster->cost.vram_tokens / sim->trace->block_tokens, 1e9),
        .sequences_max = (uint32_t)cluster->batch_max,
    };

    snprintf(name, sizeof(name), "%c%u", prefills ? 'p' : 'd',
             prefills ? machine : machine - prefill);
    const enum status status = yolk_conductor_add(m->conductor, &instance, &id);
    if (status != STATUS_OK) return status;
    ASSERT(id.index < m->machines);
    m->machine_of[id.index] = machine;
    if (machine < m->prefill_count) m->prefill[machine].id = id;
    if (machine >= m->decode_first) m->decode[machine - m->decode_first].id = id;
    return STATUS_OK;
}

enum status mooncake_create_conductor(struct sim *sim)
{
    struct mooncake *m = mooncake_of(sim);
    struct yolk_conductor_options options = yolk_conductor_defaults();
    const double blocks =
        (sim->cluster.dram_tokens + sim->cluster.ssd_tokens) / sim->trace->block_tokens;
    const double holdings = fmin(blocks, sim->trace->unique) * m->prefill_count + 1;

    options.instances_max = m->machines;
    options.holdings_max = (uint32_t)fmin(holdings, YOLK_HOLDINGS_MAX);
    options.tickets_max = (uint32_t)fmin(sim->count * sim->cluster.group_max, YOLK_TICKETS_MAX);
    options.decisions_max = sim->cluster.regret ? (uint32_t)fmin(sim->count, DECISIONS) : 1;
    options.block_tokens = sim->trace->block_tokens;
    options.block_size = (uint64_t)mooncake_token_bytes(sim, sim->trace->block_tokens);
    options.theta = sim->cluster.theta;
    options.congestion = sim->cluster.congestion;
    options.stretch = sim->cluster.stretch;
    options.placement = (enum yolk_placement)sim->cluster.policy;
    options.group_max = (uint32_t)sim->cluster.group_max;
    options.chunk_tokens = (uint32_t)sim->cluster.cost.chunk_tokens;
    options.activation_bytes = (uint32_t)sim->cluster.cost.activation_token_bytes;
    options.inline_tbt_ms = sim->cluster.inline_tbt_ms;
    options.inline_factor = fmax(1, sim->cluster.cost.chunk_factor);
    enum status status = yolk_conductor_create(&options, &m->conductor, sim->err);
    const struct yolk_admission_options admission = {
        (enum yolk_policy)sim->cluster.overload, sim->cluster.admit_ttft_s * 1e3,
        sim->cluster.admit_tbt_ms, sim->cluster.decode_time_s * 1e3, sim->cluster.door
    };
    if (status == STATUS_OK)
        status = yolk_conductor_set_admission(m->conductor, &admission, sim->err);
    if (status == STATUS_OK) status = load_profile(sim, m->conductor);
    const struct yolk_replication_options replication = yolk_replication_defaults();
    if (status == STATUS_OK && sim->cluster.replicate)
        status = yolk_conductor_set_replication(m->conductor, &replication, sim->err);
    if (status == STATUS_OK && sim->cluster.elastic)
        status = elastic_set(m->conductor, &sim->cluster, sim->err);
    for (uint32_t i = 0; status == STATUS_OK && i < m->machines; i++)
        status = mooncake_add_machine(sim, i);
    return status;
}

/* Of a decode node's memory, from the beginning to the end. */
double mooncake_need(const struct sim *sim, uint32_t who)
{
    const uint32_t block = sim->trace->block_tokens;
    const double tokens = (double)sim_input(sim, who) + sim_output(sim, who);
    return ceil(tokens / block) * block;
}

static bool decode_has_room(const struct sim *sim, const struct decode_node *node, uint32_t who)
{
    if (node->sequences >= sim->cluster.batch_max) return false;
    return node->promised_tokens + mooncake_need(sim, who) <=
           sim->cluster.cost.vram_tokens + sim->trace->block_tokens;
}

/* SIM_NONE if none has room. */
static uint32_t choose_decode(const struct sim *sim, uint32_t who)
{
    const struct mooncake *m = mooncake_of(sim);
    struct conductor_choice choice = conductor_choose_decode();
    uint32_t best = SIM_NONE;

    for (uint32_t i = 0; i < m->decode_count; i++) {
        const struct decode_node *node = &m->decode[i];
        if (!decode_has_room(sim, node, who)) continue;
        const uint32_t position = choice.offered;
        conductor_offer_decode(&choice, node->sequences, (uint64_t)node->promised_tokens);
        if (choice.best == position) best = i;
    }
    return best;
}

double mooncake_queue_s(const struct sim *sim, const struct prefill_node *node)
{
    const uint64_t now = sim->events.now_ns;
    const uint64_t left =
        node->running != SIM_NONE && node->until_ns > now ? node->until_ns - now : 0;
    return (double)(left + node->queued_ns) / 1e9;
}

static uint32_t choose_prefill(struct sim *sim, uint32_t who)
{
    struct mooncake *m = mooncake_of(sim);
    const enum yolk_placement placement = (enum yolk_placement)sim->cluster.policy;
    const bool matches = placement == YOLK_PLACEMENT_MATCH;
    const uint64_t draw =
        placement == YOLK_PLACEMENT_RANDOM ? rng_below(&sim->rng, m->prefill_count) : m->next++;
    struct conductor_choice choice = conductor_choose(placement, m->prefill_count, draw);

    for (uint32_t i = 0; i < m->prefill_count; i++) {
        const struct prefill_node *node = &m->prefill[i];
        const uint32_t run =
            matches ? kvcache_run(node->cache, sim_ids(sim, who), sim_reusable(sim, who)) : 0;
        conductor_offer(&choice, run, mooncake_queue_s(sim, node) * 1e3,
                        node->queue.count + (node->running != SIM_NONE ? 1 : 0));
    }
    return choice.best;
}

/* Into m->up; how many. Where nodes change their roles. */
uint32_t mooncake_list_up(const struct mooncake *m)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < m->machines; i++) {
        if (!m->machine[i].down) m->up[count++] = m->prefill[i].id;
    }
    ASSERT(count == m->prefill_up);
    return count;
}

struct elastic_nodes mooncake_elastic_nodes(const struct sim *sim)
{
    const struct mooncake *m = mooncake_of(sim);
    const uint32_t count = mooncake_list_up(m);
    return elastic_count(m->conductor, m->up, count);
}

/* A role is a preference to the conductor: without this check one machine would be both. */
static bool has_both_roles(const struct sim *sim)
{
    const struct mooncake *m = mooncake_of(sim);

    if (!sim->cluster.elastic) return m->prefill_up > 0 && m->decode_up > 0;
    const struct elastic_nodes nodes = mooncake_elastic_nodes(sim);
    return nodes.prefill > 0 && nodes.decode > 0;
}

static enum status place_by_conductor(struct sim *sim, uint32_t who, struct mooncake_placement *out)
{
    struct mooncake *m = mooncake_of(sim);
    const uint32_t count = sim_full_blocks(sim, who);
    const uint32_t *ids = sim_ids(sim, who);
    const double now_ms = (double)sim->events.now_ns / 1e6;
    const double arrival_ms = (double)sim->requests[who].arrival_ns / 1e6;
    const bool limited = sim->cluster.overload != CLUSTER_OVERLOAD_NONE;
    const bool judged = limited && sim->requests[who].attempt == 0; /* once */
    const struct slo_class *class = sim_class(sim, who);
    const struct yolk_asker asker = { .waited_ms = now_ms - arrival_ms,
                                      .ttft_ms = class != NULL ? class->ttft_ms : 0,
                                      .tbt_ms = class != NULL ? class->tbt_ms : 0 };
    struct yolk_verdict verdict;
    struct yolk_decision decision;
    const struct yolk_place_request request = {
        .request_id = "",
        .tokens = sim_input(sim, who),
        /* Who judges loads must not know how long an answer will be; a service has one limit. */
        .output_tokens = limited && !sim->cluster.lengths_known
                             ? sim->output_longest - sim->requests[who].generated
                             : sim_output(sim, who),
        .keys = m->keys,
        .keys_count = count,
        .priority = class != NULL ? class->priority : 0,
        .avoid_prefill = YOLK_INSTANCE_NONE,
        .avoid_decode = YOLK_INSTANCE_NONE,
        .avoid_holder = YOLK_INSTANCE_NONE,
    };

    if (!has_both_roles(sim)) return STATUS_FULL; /* until it has */
    for (uint32_t i = 0; i < count; i++)
        m->keys[i] = m->names[ids[i]];
    const enum status status =
        judged ? yolk_conductor_admit(m->conductor, &request, &asker, now_ms, &decision, &verdict)
               : yolk_conductor_place(m->conductor, &request, now_ms, &decision);
    if (status != STATUS_OK) return status;
    const uint32_t prefill = m->machine_of[decision.prefill.index];
    const uint32_t decode = m->machine_of[decision.decode.index];
    ASSERT(prefill < m->prefill_count && decode >= m->decode_first && prefill != decode);
    *out = (struct mooncake_placement){ .prefill = prefill,
                                        .decode = decode - m->decode_first,
                                        .holder = SIM_NONE,
                                        .own = decision.own_blocks,
                                        .reuse = decision.reuse_blocks,
                                        .stages = decision.group_count };
    for (uint32_t j = 0; j < decision.group_count; j++)
        out->group[j] = m->machine_of[decision.group[j].index];
    if (decision.reason == YOLK_REUSE_FETCH) out->holder = m->machine_of[decision.holder.index];
    out->inlined = decision.inlined;
    if (decision.inlined && out->holder != SIM_NONE) out->prefill = out->holder;
    sim->requests[who].ticket = decision.ticket.id;
    sim->requests[who].order_ms = decision.order_ms;
    sim->requests[who].priority = decision.priority;
    sim->result->placements[decision.reason]++;
    return STATUS_OK;
}

enum status mooncake_place(struct sim *sim, uint32_t who, struct mooncake_placement *out)
{
    if (mooncake_of(sim)->conductor != NULL) return place_by_conductor(sim, who, out);
    const uint32_t decode = choose_decode(sim, who);
    if (decode == SIM_NONE) return STATUS_FULL;
    const uint32_t prefill = choose_prefill(sim, who);
    const uint32_t run = kvcache_run(mooncake_of(sim)->prefill[prefill].cache, sim_ids(sim, who),
                                     sim_reusable(sim, who));
    *out =
        (struct mooncake_placement){ prefill, decode, SIM_NONE, run, run, false, 1, { prefill } };
    return STATUS_OK;
}
