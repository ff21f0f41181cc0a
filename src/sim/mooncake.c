/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/mooncake.c - prefill nodes, decode nodes, and the pool of KV in the prefill nodes' DRAM.
 *
 * A request is placed when it arrives: on a prefill node, a decode node, and perhaps a node to
 * fetch blocks from. It waits in the prefill node's queue, first come first served, one at a time,
 * while what it fetches is on its way. Its prefill starts when it is its turn and all that has
 * arrived; what the node itself has by then counts, planned or not. Its blocks stay in the node's
 * cache. Its KV goes to the decode node, after the prefill or while it runs (layerwise), is loaded
 * into device memory, and the request joins the batch at the next step.
 *
 * While no decode node has room, requests wait outside, in order.
 *
 * Device memory of a decode node is promised to a request for its whole length when it is placed.
 *
 * Invariants
 *   M1  the conductor's index has exactly the blocks of the caches, of machines that are up.
 *   M2  promised tokens of a decode node <= its device memory.
 *   M3  a busy prefill node has one event pending, or waits for its stage in a group; a stepping
 *       decode node has one too.
 *   M4  blocks of a plan are pinned, at the prefill node and at the holder, until they are used.
 *       Routers without the conductor plan none: what they counted on may be gone when the prefill
 *       begins. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "conductor/choose.h"
#include "conductor/cost.h"
#include "conductor/profile.h"
#include "sim/elastic.h"
#include "sim/failure.h"
#include "sim/group.h"
#include "sim/inline.h"
#include "sim/mooncake_int.h"
#include "yolk/explain.h"

static_assert((int)CLUSTER_OVERLOADS == (int)YOLK_POLICIES, "overload settings are policies");
static_assert((int)CLUSTER_LOCAL == (int)YOLK_PLACEMENT_LOCAL &&
                  (int)CLUSTER_ROUND_ROBIN == (int)YOLK_PLACEMENT_ROUND_ROBIN &&
                  (int)CLUSTER_ROUND_ROBIN + 1 == (int)YOLK_PLACEMENTS,
              "policies are placements, by number");

enum { FIT_SAMPLES = 2000, GROWTH_STEPS = 32, PREFETCH_AHEAD = 4, COOL_S = 10 };
enum { DECISIONS = 1 << 15 }; /* remembered for regret: more than are under way at once */

struct mooncake *mooncake_of(const struct sim *sim)
{
    return sim->system;
}

static double token_bytes(const struct sim *sim, double tokens)
{
    return tokens * sim->cluster.cost.kv_token_bytes;
}

double mooncake_link_bytes_s(const struct sim *sim)
{
    const double gbps = sim->cluster.nic_gbps;
    return gbps > 0 ? gbps * 1e9 / 8 : sim->cluster.cost.nic_bytes_s;
}

/* ---- the conductor ---- */

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
        const double bytes = token_bytes(sim, tokens);
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

static enum status create_conductor(struct sim *sim)
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
    options.block_size = (uint64_t)token_bytes(sim, sim->trace->block_tokens);
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

/* ---- making ---- */

static void mooncake_destroy(struct sim *sim)
{
    struct mooncake *m = mooncake_of(sim);

    for (uint32_t i = 0; i < sim->count; i++)
        group_destroy(sim, i); /* of a run that has failed */
    for (uint32_t i = 0; i < m->prefill_count && m->prefill != NULL; i++) {
        kvcache_destroy(m->prefill[i].cache);
        line_fini(&m->prefill[i].queue);
    }
    for (uint32_t i = 0; i < m->decode_count && m->decode != NULL; i++)
        batch_destroy(m->decode[i].batch);
    yolk_conductor_destroy(m->conductor);
    links_destroy(m->links);
    free(m->prefill);
    free(m->decode);
    free(m->keys);
    free(m->names);
    free(m->machine);
    free(m->machine_of);
    free(m->up);
    free(m);
}

static uint32_t blocks_of(const struct sim *sim, double tokens)
{
    return (uint32_t)fmin(tokens / sim->trace->block_tokens, 1e9);
}

static enum status create_nodes(struct sim *sim)
{
    struct mooncake *m = mooncake_of(sim);
    const struct sim_cluster *cluster = &sim->cluster;
    const uint32_t fast = blocks_of(sim, cluster->dram_tokens);
    const uint32_t all = blocks_of(sim, cluster->dram_tokens + cluster->ssd_tokens);
    enum status status = STATUS_OK;

    for (uint32_t i = 0; status == STATUS_OK && i < m->prefill_count; i++) {
        line_init(&m->prefill[i].queue);
        m->prefill[i].running = SIM_NONE;
        status = kvcache_create(all, fast, &m->prefill[i].cache);
    }
    for (uint32_t i = 0; status == STATUS_OK && i < m->decode_count; i++) {
        sim_queue_init(&m->decode[i].joining);
        sim_queue_init(&m->decode[i].inlining);
        m->decode[i].inlined = SIM_NONE;
        status =
            batch_create((uint32_t)cluster->batch_max, sim->output_longest, &m->decode[i].batch);
    }
    return status;
}

static void name_blocks(struct sim *sim)
{
    struct mooncake *m = mooncake_of(sim);
    for (uint32_t i = 0; i < sim->trace->unique; i++) {
        const uint64_t halves[2] = { rng_counter(1, i), rng_counter(2, i) };
        static_assert(sizeof(halves) == BLOCK_KEY_SIZE, "a key is two halves");
        memcpy(m->names[i].bytes, halves, sizeof(halves));
    }
}

static enum status mooncake_create(struct sim *sim)
{
    struct mooncake *m = calloc(1, sizeof(*m));
    uint32_t most = 0;

    if (m == NULL) return STATUS_NO_MEMORY;
    sim->system = m;
    m->machines = (uint32_t)(sim->cluster.prefill + sim->cluster.decode);
    m->prefill_count = sim->cluster.elastic ? m->machines : (uint32_t)sim->cluster.prefill;
    m->decode_count = sim->cluster.elastic ? m->machines : (uint32_t)sim->cluster.decode;
    m->decode_first = m->machines - m->decode_count;
    sim_queue_init(&m->waiting);
    for (uint32_t i = 0; i < sim->count; i++) {
        if (sim->trace->requests[i].blocks > most) most = sim->trace->requests[i].blocks;
    }
    m->prefill = calloc(m->prefill_count, sizeof(*m->prefill));
    m->decode = calloc(m->decode_count, sizeof(*m->decode));
    m->machine = calloc(m->machines, sizeof(*m->machine));
    m->machine_of = calloc(m->machines, sizeof(*m->machine_of));
    m->up = calloc(m->machines, sizeof(*m->up));
    m->keys = calloc((size_t)most + 1, sizeof(*m->keys));
    m->names = calloc((size_t)sim->trace->unique + 1, sizeof(*m->names));
    if (m->prefill == NULL || m->decode == NULL || m->keys == NULL || m->names == NULL ||
        m->machine == NULL || m->machine_of == NULL || m->up == NULL)
        return STATUS_NO_MEMORY;
    m->prefill_up = m->prefill_count;
    m->decode_up = m->decode_count;
    name_blocks(sim);
    const struct links_options links = { m->machines, mooncake_link_bytes_s(sim), SIM_EVENT_FLOW };
    enum status status = links_create(&links, &sim->events, &m->links);
    if (status == STATUS_OK) status = create_nodes(sim);
    if (status == STATUS_OK && sim->cluster.policy <= CLUSTER_LOCAL) status = create_conductor(sim);
    if (sim->cluster.replicate) sim_schedule(sim, COOL_S, SIM_EVENT_COOL, 0);
    if (sim->cluster.elastic) sim_schedule(sim, elastic_look_s(&sim->cluster), SIM_EVENT_LOOK, 0);
    if (status == STATUS_OK) failure_begin(sim);
    return status;
}

/* ---- caches ---- */

/* The conductor hears where the block is, and which one had to make room in DRAM for it. */
static void tell_stored(struct sim *sim, const struct prefill_node *node, uint32_t id)
{
    struct mooncake *m = mooncake_of(sim);
    const bool slow = sim->cluster.tiers && !kvcache_is_fast(node->cache, id);
    const enum yolk_tier tier = slow ? YOLK_TIER_SSD : YOLK_TIER_DRAM;
    uint32_t down;

    if (m->conductor == NULL) return;
    enum status status = yolk_conductor_stored(m->conductor, node->id, &m->names[id], 1, tier);
    if (status == STATUS_OK && sim->cluster.tiers && kvcache_moved_down(node->cache, &down))
        status = yolk_conductor_stored(m->conductor, node->id, &m->names[down], 1, YOLK_TIER_SSD);
    if (status != STATUS_OK) sim_fail(sim, STATUS_FULL);
}

static void cache_block(struct sim *sim, uint32_t index, uint32_t id)
{
    struct mooncake *m = mooncake_of(sim);
    struct prefill_node *node = &m->prefill[index];
    uint32_t gone;

    if (kvcache_capacity(node->cache) == 0) return;
    if (kvcache_touch(node->cache, id)) {
        if (sim->cluster.tiers) tell_stored(sim, node, id);
        return;
    }
    if (kvcache_count(node->cache) == kvcache_capacity(node->cache)) {
        if (!kvcache_evict(node->cache, &gone)) return; /* all in use: it is not kept */
        if (m->conductor != NULL)
            yolk_conductor_removed(m->conductor, node->id, &m->names[gone], 1);
    }
    const enum status status = kvcache_insert(node->cache, id);
    if (status != STATUS_OK) sim_fail(sim, status);
    if (status == STATUS_OK) tell_stored(sim, node, id);
}

/* Blocks [from, to) of the request, last to first, so that a head outlives its tail. */
static void cache_range(struct sim *sim, uint32_t index, uint32_t who, uint32_t from, uint32_t to)
{
    const struct kvcache *cache = mooncake_of(sim)->prefill[index].cache;
    const uint32_t *ids = sim_ids(sim, who);

    for (uint32_t i = to; i-- > from;) {
        if (i >= from + PREFETCH_AHEAD) kvcache_prefetch(cache, ids[i - PREFETCH_AHEAD]);
        cache_block(sim, index, ids[i]);
    }
}

/* Pins what follows on what is pinned, as far as it is there and below `to`. */
static void pin_up_to(struct sim *sim, uint32_t who, uint32_t to)
{
    struct sim_request *request = &sim->requests[who];
    struct kvcache *cache = mooncake_of(sim)->prefill[request->prefill].cache;
    const uint32_t *ids = sim_ids(sim, who);

    while (request->pinned < to && kvcache_try_pin(cache, ids[request->pinned]))
        request->pinned++;
}

void mooncake_unpin(struct sim *sim, uint32_t who)
{
    struct sim_request *request = &sim->requests[who];
    struct kvcache *cache = mooncake_of(sim)->prefill[request->prefill].cache;
    const uint32_t *ids = sim_ids(sim, who);

    while (request->pinned > 0)
        kvcache_unpin(cache, ids[--request->pinned]);
}

/* ---- placement ---- */

struct placement {
    uint32_t prefill, decode, holder; /* holder SIM_NONE: nothing is fetched */
    uint32_t own, reuse;              /* own: not fetched */
    bool inlined;                     /* prefill: its home */
    uint32_t stages;                  /* 1: no group */
    uint32_t group[YOLK_GROUP_MAX];
};

/* Of a decode node's memory, from the beginning to the end. */
static double need_of(const struct sim *sim, uint32_t who)
{
    const uint32_t block = sim->trace->block_tokens;
    const double tokens = (double)sim_input(sim, who) + sim_output(sim, who);
    return ceil(tokens / block) * block;
}

static bool decode_has_room(const struct sim *sim, const struct decode_node *node, uint32_t who)
{
    if (node->sequences >= sim->cluster.batch_max) return false;
    return node->promised_tokens + need_of(sim, who) <=
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

static double queue_s(const struct sim *sim, const struct prefill_node *node)
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
        conductor_offer(&choice, run, queue_s(sim, node) * 1e3,
                        node->queue.count + (node->running != SIM_NONE ? 1 : 0));
    }
    return choice.best;
}

/* Into m->up; how many. Where nodes change their roles. */
static uint32_t list_up(const struct mooncake *m)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < m->machines; i++) {
        if (!m->machine[i].down) m->up[count++] = m->prefill[i].id;
    }
    ASSERT(count == m->prefill_up);
    return count;
}

static struct elastic_nodes elastic_nodes(const struct sim *sim)
{
    const struct mooncake *m = mooncake_of(sim);
    const uint32_t count = list_up(m);
    return elastic_count(m->conductor, m->up, count);
}

/* A role is a preference to the conductor: without this check one machine would be both. */
static bool has_both_roles(const struct sim *sim)
{
    const struct mooncake *m = mooncake_of(sim);

    if (!sim->cluster.elastic) return m->prefill_up > 0 && m->decode_up > 0;
    const struct elastic_nodes nodes = elastic_nodes(sim);
    return nodes.prefill > 0 && nodes.decode > 0;
}

static enum status place_by_conductor(struct sim *sim, uint32_t who, struct placement *out)
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
    *out = (struct placement){ .prefill = prefill,
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

static enum status place(struct sim *sim, uint32_t who, struct placement *out)
{
    if (mooncake_of(sim)->conductor != NULL) return place_by_conductor(sim, who, out);
    const uint32_t decode = choose_decode(sim, who);
    if (decode == SIM_NONE) return STATUS_FULL;
    const uint32_t prefill = choose_prefill(sim, who);
    const uint32_t run = kvcache_run(mooncake_of(sim)->prefill[prefill].cache, sim_ids(sim, who),
                                     sim_reusable(sim, who));
    *out = (struct placement){ prefill, decode, SIM_NONE, run, run, false, 1, { prefill } };
    return STATUS_OK;
}

/* ---- prefill ---- */

static uint64_t flow_tag(uint32_t who, enum flow_kind kind, uint32_t stage)
{
    static_assert(YOLK_GROUP_MAX <= 16, "a stage has four bits");
    return (uint64_t)who << 8 | stage << 4 | (uint64_t)kind;
}

void mooncake_send(struct sim *sim, uint32_t from, uint32_t to, double tokens, uint32_t who,
                   enum flow_kind kind, uint32_t stage)
{
    const double setup = sim->cluster.cost.transfer_setup_s * mooncake_link_bytes_s(sim);
    const double bytes = token_bytes(sim, tokens) + setup;
    const enum status status =
        links_start(mooncake_of(sim)->links, from, to, bytes, flow_tag(who, kind, stage));
    if (status != STATUS_OK) sim_fail(sim, status);
}

void mooncake_send_kv(struct sim *sim, uint32_t who, uint32_t from, uint32_t stage)
{
    const struct mooncake *m = mooncake_of(sim);
    struct sim_request *request = &sim->requests[who];
    const double tokens = sim_input(sim, who);

    request->send_ns = sim->events.now_ns;
    mooncake_send(sim, from, m->decode_first + request->decode, tokens / request->stages, who,
                  FLOW_KV, stage);
}

double mooncake_ssd_s(const struct sim *sim, uint32_t who)
{
    const struct sim_request *request = &sim->requests[who];
    const struct kvcache *cache = mooncake_of(sim)->prefill[request->prefill].cache;
    const uint32_t *ids = sim_ids(sim, who);
    uint32_t slow = 0;

    for (uint32_t i = 0; i < request->reuse; i++) {
        if (!kvcache_is_fast(cache, ids[i])) slow++;
    }
    return token_bytes(sim, (double)slow * sim->trace->block_tokens) /
           sim->cluster.cost.ssd_bytes_s;
}

double mooncake_store_s(const struct sim *sim, uint32_t who, double compute_s)
{
    const uint32_t reused = sim->requests[who].reuse * sim->trace->block_tokens;
    return layers_store_s(&sim->cluster.cost, (enum layers_store)sim->cluster.store,
                          sim_input(sim, who) - reused, compute_s);
}

/* Loading from SSD goes beside the computation; what is longer counts. */
static double prefill_s(const struct sim *sim, uint32_t who)
{
    const double reused = (double)sim->requests[who].reuse * sim->trace->block_tokens;
    const double compute_s = sim_profile_prefill_s(&sim->cluster.cost, sim_input(sim, who), reused);
    return fmax(compute_s + mooncake_store_s(sim, who, compute_s), mooncake_ssd_s(sim, who));
}

/* How many of the blocks that are there are sooner loaded than computed, to the end of it all. */
static uint32_t worth_loading(const struct sim *sim, uint32_t who)
{
    const struct sim_request *request = &sim->requests[who];
    const struct kvcache *cache = mooncake_of(sim)->prefill[request->prefill].cache;
    const uint32_t *ids = sim_ids(sim, who);
    const double block = sim->trace->block_tokens;
    double least_s = INFINITY, load_s = 0;
    uint32_t best = 0;

    for (uint32_t reuse = 0; reuse <= request->pinned; reuse++) {
        if (reuse > 0 && !kvcache_is_fast(cache, ids[reuse - 1]))
            load_s += token_bytes(sim, block) / sim->cluster.cost.ssd_bytes_s;
        const double compute_s =
            sim_profile_prefill_s(&sim->cluster.cost, sim_input(sim, who), reuse * block);
        if (fmax(compute_s, load_s) > least_s) continue;
        least_s = fmax(compute_s, load_s);
        best = reuse;
    }
    return best;
}

void mooncake_begin(struct sim *sim, uint32_t who)
{
    struct sim_request *request = &sim->requests[who];
    struct sim_record *record = &sim->result->records[who];

    sim_set_state(sim, who, SIM_PREFILLING);
    pin_up_to(sim, who, sim_reusable(sim, who));
    request->reuse = sim->cluster.tiers ? worth_loading(sim, who) : request->pinned;
    request->start_ns = sim->events.now_ns;
    if (request->generated > 0) return; /* the record is of how it got its first token */
    record->queue_s = (double)(request->start_ns - request->arrival_ns) / 1e9;
    record->reused_tokens = request->reuse * sim->trace->block_tokens;
}

void mooncake_keep(struct sim *sim, uint32_t who)
{
    cache_range(sim, sim->requests[who].prefill, who, 0, sim_full_blocks(sim, who));
    mooncake_unpin(sim, who);
}

void mooncake_start_prefill(struct sim *sim, uint32_t index)
{
    struct prefill_node *node = &mooncake_of(sim)->prefill[index];

    if (node->running != SIM_NONE || node->queue.count == 0) return;
    const uint32_t who = line_at(&node->queue, 0);
    const struct sim_request *request = &sim->requests[who];
    if (request->fetching && request->prefill == index) return;
    (void)line_pop(&node->queue);
    node->queued_ns -= request->estimate_ns;
    node->running = who;
    if (request->group != NULL) {
        group_turn(sim, who, index);
        return;
    }
    mooncake_begin(sim, who);
    const double seconds = prefill_s(sim, who);
    node->until_ns = sim->events.now_ns + sim_ns(seconds);
    sim_schedule_version(sim, seconds, SIM_EVENT_PREFILL, index, node->epoch);
    if (request->generated == 0) sim->result->records[who].prefill_s = seconds;
    if (sim->cluster.layerwise && sim_output(sim, who) > 1) mooncake_send_kv(sim, who, index, 0);
}

/* The prefill node is free of it: its KV has left. */
void mooncake_report_prefill(struct sim *sim, uint32_t who)
{
    struct yolk_conductor *conductor = mooncake_of(sim)->conductor;

    if (conductor == NULL) return;
    yolk_conductor_prefill_done(conductor, (struct yolk_ticket){ sim->requests[who].ticket },
                                sim->result->records[who].reused_tokens,
                                (double)sim->events.now_ns / 1e6);
}

/* All KV is at the decode node: into device memory. */
static void load(struct sim *sim, uint32_t who)
{
    const double bytes = token_bytes(sim, sim_input(sim, who));
    const uint64_t took = sim->events.now_ns - sim->requests[who].send_ns;

    mooncake_report_prefill(sim, who);
    if (sim->requests[who].generated == 0)
        sim->result->records[who].transfer_s = (double)took / 1e9;
    sim_set_state(sim, who, SIM_LOADING);
    sim_schedule_version(sim, bytes / sim->cluster.cost.load_bytes_s, SIM_EVENT_LOADED, who,
                         sim->requests[who].attempt);
}

/* Tells the conductor how long its prefill took. May it join its decode node? */
static bool judge_join(struct sim *sim, const struct prefill_node *node, uint32_t who)
{
    struct yolk_conductor *conductor = mooncake_of(sim)->conductor;
    const struct sim_record *record = &sim->result->records[who];
    const struct yolk_ticket ticket = { sim->requests[who].ticket };
    const double now_ms = (double)sim->events.now_ns / 1e6;
    const bool judged =
        sim->cluster.overload != CLUSTER_OVERLOAD_NONE && sim->requests[who].attempt == 0;
    struct yolk_verdict verdict;

    if (conductor == NULL) return true;
    if (sim->cluster.learn && sim->requests[who].stages == 1 && sim->requests[who].generated == 0 &&
        yolk_conductor_learn_prefill(conductor, node->id, record->input_tokens,
                                     record->reused_tokens, record->prefill_s * 1e3) != STATUS_OK)
        sim_fail(sim, STATUS_INVALID);
    return !judged || yolk_conductor_admit_join(conductor, ticket, now_ms, &verdict) == STATUS_OK;
}

static void show_first(struct sim *sim, uint32_t who)
{
    sim_first_token(sim, who);
    sim->requests[who].first_ns = sim->events.now_ns;
}

/* Its KV goes to the decode node, if it has not gone there by now. */
static void leave_prefill(struct sim *sim, uint32_t who, uint32_t index)
{
    const struct sim_request *request = &sim->requests[who];

    if (request->sent == request->stages) {
        load(sim, who);
        return;
    }
    sim_set_state(sim, who, SIM_SENDING);
    if (!sim->cluster.layerwise && request->stages == 1) mooncake_send_kv(sim, who, index, 0);
}

static void on_prefill_done(struct sim *sim, uint32_t index)
{
    struct prefill_node *node = &mooncake_of(sim)->prefill[index];
    const uint32_t who = node->running;
    struct sim_request *request = &sim->requests[who];

    ASSERT(who != SIM_NONE);
    node->running = SIM_NONE;
    if (request->group != NULL) {
        if (!group_stage_done(sim, who, index)) {
            mooncake_start_prefill(sim, index);
            return;
        }
        const uint64_t took = sim->events.now_ns - request->start_ns;
        if (request->generated == 0) sim->result->records[who].prefill_s = (double)took / 1e9;
    } else {
        mooncake_keep(sim, who);
    }
    if (!judge_join(sim, node, who)) {
        mooncake_report_prefill(sim, who);
        mooncake_release(sim, who, SIM_REFUSED_LATE);
    } else if (sim_output(sim, who) == 1) {
        mooncake_report_prefill(sim, who);
        sim_first_token(sim, who);
        mooncake_release(sim, who, SIM_DONE);
    } else {
        if (sim->cluster.first_at_prefill) show_first(sim, who);
        leave_prefill(sim, who, index);
    }
    mooncake_start_prefill(sim, index);
}

static void on_fetched(struct sim *sim, uint32_t who)
{
    struct mooncake *m = mooncake_of(sim);
    struct sim_request *request = &sim->requests[who];
    struct kvcache *holder = m->prefill[request->holder].cache;
    const uint32_t *ids = sim_ids(sim, who);
    const uint32_t local = request->pinned;

    for (uint32_t i = local; i < request->held; i++)
        kvcache_unpin(holder, ids[i]);
    cache_range(sim, request->prefill, who, local, request->held);
    pin_up_to(sim, who, request->held);
    if (request->generated == 0)
        sim->result->records[who].fetched_tokens =
            (request->pinned - local) * sim->trace->block_tokens;
    request->fetching = false;
    mooncake_start_prefill(sim, request->prefill);
}

/* ---- decode ---- */

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
        if (!sim->cluster.first_at_prefill) show_first(sim, who);
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

static void on_step(struct sim *sim, uint32_t index)
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

static void on_loaded(struct sim *sim, uint32_t who)
{
    struct mooncake *m = mooncake_of(sim);
    const uint32_t index = sim->requests[who].decode;

    if (node_refuses(sim, &m->decode[index], who)) return;
    sim_set_state(sim, who, SIM_JOINING);
    sim_queue_insert(sim, &m->decode[index].joining, who);
    if (!m->decode[index].stepping) mooncake_start_step(sim, index);
}

/* ---- arrivals and ends ---- */

/* By priority, then by the conductor's order. */
static bool goes_before(const struct sim_request *a, const struct sim_request *b)
{
    if (a->priority != b->priority) return a->priority > b->priority;
    return a->order_ms < b->order_ms;
}

/* In front of all that it goes before. */
static uint32_t place_in(const struct sim *sim, const struct line *line, uint32_t who)
{
    uint32_t at = line->count;

    while (at > 0 && goes_before(&sim->requests[who], &sim->requests[line_at(line, at - 1)]))
        at--;
    return at;
}

/* Into the queues of all who prefill it. */
static void enqueue(struct sim *sim, uint32_t who, const struct placement *placed)
{
    struct mooncake *m = mooncake_of(sim);
    enum status status = STATUS_OK;

    for (uint32_t j = 0; status == STATUS_OK && j < placed->stages; j++) {
        struct prefill_node *node = &m->prefill[placed->group[j]];
        node->queued_ns += sim->requests[who].estimate_ns;
        status = line_insert(&node->queue, who, place_in(sim, &node->queue, who));
    }
    if (status == STATUS_OK && placed->stages > 1)
        status = group_create(sim, who, placed->group, placed->stages);
    if (status != STATUS_OK) sim_fail(sim, status);
}

/* It has a place and memory at this decode node from now on. */
static void enter_decode(struct sim *sim, uint32_t who, uint32_t index)
{
    struct decode_node *node = &mooncake_of(sim)->decode[index];

    sim->requests[who].decode = index;
    node->sequences++;
    node->promised_tokens += need_of(sim, who);
}

void mooncake_leave_decode(struct sim *sim, uint32_t who)
{
    struct decode_node *node = &mooncake_of(sim)->decode[sim->requests[who].decode];

    ASSERT(node->sequences > 0);
    node->sequences--;
    node->promised_tokens -= need_of(sim, who);
}

static void accept(struct sim *sim, uint32_t who, const struct placement *placed)
{
    struct mooncake *m = mooncake_of(sim);
    struct sim_request *request = &sim->requests[who];
    const double reused = (double)placed->reuse * sim->trace->block_tokens;

    request->prefill = placed->prefill;
    request->holder = placed->holder;
    enter_decode(sim, who, placed->decode);
    request->stages = placed->stages;
    request->inlined = placed->inlined;
    request->estimate_ns = sim_ns(
        sim_profile_prefill_s(&sim->cluster.cost, sim_input(sim, who), reused) / placed->stages);
    const bool fetches = placed->holder != SIM_NONE && !placed->inlined;
    if (m->conductor != NULL) pin_up_to(sim, who, fetches ? placed->own : placed->reuse);
    sim_set_state(sim, who, SIM_QUEUED);
    if (placed->inlined) {
        ASSERT(request->pinned == placed->reuse); /* M1 */
        inline_begin(sim, who);
        return;
    }
    enqueue(sim, who, placed);
    if (placed->holder != SIM_NONE) {
        const uint32_t *ids = sim_ids(sim, who);
        request->fetching = true;
        request->held = placed->reuse;
        for (uint32_t i = request->pinned; i < request->held; i++)
            kvcache_pin(m->prefill[placed->holder].cache, ids[i]); /* M1: it is there */
        const double tokens = (double)(request->held - request->pinned) * sim->trace->block_tokens;
        sim->result->fetched_bytes += token_bytes(sim, tokens);
        mooncake_send(sim, placed->holder, placed->prefill, tokens, who, FLOW_FETCH, 0);
    } else {
        ASSERT(m->conductor == NULL || request->pinned == placed->reuse); /* M1 */
    }
    for (uint32_t j = 0; j < placed->stages; j++)
        mooncake_start_prefill(sim, placed->group[j]);
}

/* ---- copies of hot prefixes ---- */

static void start_copy(struct sim *sim, uint32_t who, const struct yolk_copy *proposed)
{
    struct mooncake *m = mooncake_of(sim);
    struct copy *copy = &m->copies[proposed->slot];
    const uint32_t *ids = sim_ids(sim, who);
    uint32_t missing = 0;

    if (copy->moving) return; /* cold before it was there, and hot again */
    *copy = (struct copy){ who, m->machine_of[proposed->from.index],
                           m->machine_of[proposed->to.index], proposed->blocks, true };
    for (uint32_t i = 0; i < copy->blocks; i++) {
        kvcache_pin(m->prefill[copy->from].cache, ids[i]); /* M1: it is there */
        missing += !kvcache_has(m->prefill[copy->to].cache, ids[i]);
    }
    const double tokens = (double)missing * sim->trace->block_tokens;
    sim->result->copies++;
    sim->result->copied_bytes += token_bytes(sim, tokens);
    mooncake_send(sim, copy->from, copy->to, tokens, proposed->slot, FLOW_COPY, 0);
}

static void on_copied(struct sim *sim, uint32_t slot)
{
    struct mooncake *m = mooncake_of(sim);
    struct copy *copy = &m->copies[slot];
    const uint32_t *ids = sim_ids(sim, copy->who);

    ASSERT(copy->moving);
    copy->moving = false;
    for (uint32_t i = 0; i < copy->blocks; i++)
        kvcache_unpin(m->prefill[copy->from].cache, ids[i]);
    cache_range(sim, copy->to, copy->who, 0, copy->blocks);
}

static bool is_elsewhere(const struct mooncake *m, uint32_t not_here, uint32_t id)
{
    for (uint32_t i = 0; i < m->prefill_count; i++) {
        if (i != not_here && kvcache_has(m->prefill[i].cache, id)) return true;
    }
    return false;
}

/* What nobody uses and somebody else has too is removed, the last block first. */
static void remove_copy(struct sim *sim, const struct copy *copy)
{
    struct mooncake *m = mooncake_of(sim);
    struct prefill_node *node = &m->prefill[copy->to];
    const uint32_t *ids = sim_ids(sim, copy->who);

    for (uint32_t i = copy->blocks; i-- > 0;) {
        if (!kvcache_has(node->cache, ids[i]) || kvcache_is_pinned(node->cache, ids[i])) continue;
        if (!is_elsewhere(m, copy->to, ids[i])) continue;
        kvcache_remove(node->cache, ids[i]);
        yolk_conductor_removed(m->conductor, node->id, &m->names[ids[i]], 1);
    }
}

static void on_cool(struct sim *sim)
{
    struct mooncake *m = mooncake_of(sim);
    struct yolk_copy cold;

    while (yolk_conductor_cold(m->conductor, (double)sim->events.now_ns / 1e6, &cold)) {
        if (m->copies[cold.slot].moving) continue; /* cold before it was there */
        remove_copy(sim, &m->copies[cold.slot]);
        sim->result->removals++;
    }
    if (sim->ended < sim->count) sim_schedule(sim, COOL_S, SIM_EVENT_COOL, 0);
}

static void settle(struct sim *sim, uint32_t who, enum status status,
                   const struct placement *placed)
{
    const double now_ms = (double)sim->events.now_ns / 1e6;
    struct yolk_copy copy;

    ASSERT(status != STATUS_FULL);
    if (status == STATUS_OK) {
        accept(sim, who, placed);
        if (sim->cluster.replicate &&
            yolk_conductor_copy(mooncake_of(sim)->conductor, now_ms, &copy))
            start_copy(sim, who, &copy);
    } else if (status == STATUS_INVALID)
        sim_end(sim, who, SIM_NEVER_FITS);
    else if (status == STATUS_BUSY)
        sim_end(sim, who, SIM_REFUSED_EARLY);
    else
        sim_fail(sim, status);
}

static void mooncake_arrive(struct sim *sim, uint32_t who)
{
    struct mooncake *m = mooncake_of(sim);
    struct placement placed = { 0 };
    enum status status = STATUS_FULL;

    if (need_of(sim, who) > sim->cluster.cost.vram_tokens) {
        sim_end(sim, who, SIM_NEVER_FITS);
        return;
    }
    if (m->waiting.count == 0 ||
        sim->requests[m->waiting.head].priority < sim->requests[who].priority)
        status = place(sim, who, &placed);
    if (status != STATUS_FULL) {
        settle(sim, who, status, &placed);
        return;
    }
    sim_set_state(sim, who, SIM_WAITING);
    sim_queue_insert(sim, &m->waiting, who);
}

/* By priority, then first come, first served: the one in front waits until there is room for it. */
void mooncake_place_waiting(struct sim *sim)
{
    struct mooncake *m = mooncake_of(sim);

    while (m->waiting.count > 0) {
        struct placement placed = { 0 };
        const enum status status = place(sim, m->waiting.head, &placed);
        if (status == STATUS_FULL) return;
        settle(sim, sim_queue_pop(sim, &m->waiting), status, &placed);
    }
}

/* Its decode node is rid of it; whoever waits may have the room. */
void mooncake_release(struct sim *sim, uint32_t who, enum sim_outcome outcome)
{
    struct mooncake *m = mooncake_of(sim);
    const struct sim_request *request = &sim->requests[who];

    mooncake_leave_decode(sim, who);
    if (m->conductor != NULL) {
        const struct yolk_ticket ticket = { request->ticket };
        yolk_conductor_finish(m->conductor, ticket,
                              outcome == SIM_DONE ? STATUS_OK : STATUS_CANCELLED,
                              (double)sim->events.now_ns / 1e6);
    }
    sim_end(sim, who, outcome);
    mooncake_place_waiting(sim);
}

static void on_flow(struct sim *sim, const struct event *event)
{
    struct mooncake *m = mooncake_of(sim);
    bool ended = false;
    uint64_t tag = 0;

    const enum status status = links_event(m->links, event, &ended, &tag);
    if (status != STATUS_OK) sim_fail(sim, status);
    if (status != STATUS_OK || !ended) return;
    const uint32_t who = mooncake_flow_who(tag), stage = mooncake_flow_stage(tag);
    switch (mooncake_flow_kind(tag)) {
    case FLOW_FETCH: on_fetched(sim, who); break;
    case FLOW_COPY: on_copied(sim, who); break;
    case FLOW_SHARE:
        if (sim->requests[who].inlined)
            inline_ready(sim, who);
        else
            group_shared(sim, who, stage);
        break;
    case FLOW_GATHER:
        if (sim->requests[who].inlined)
            inline_stored(sim, who);
        else
            group_gathered(sim, who, stage);
        break;
    case FLOW_KV:
        sim->requests[who].sent++;
        if (sim->requests[who].state == SIM_SENDING &&
            sim->requests[who].sent == sim->requests[who].stages)
            load(sim, who);
        break;
    }
}

/* ---- roles ---- */

static struct yolk_outside outside(const struct sim *sim)
{
    const struct mooncake *m = mooncake_of(sim);
    struct yolk_outside found = { m->waiting.count, 0 };

    for (uint32_t who = m->waiting.head; who != SIM_NONE; who = sim->requests[who].next)
        found.tokens += sim_input(sim, who);
    return found;
}

/* The decode node that this request waits for drains: another one. */
static void rehome(struct sim *sim, uint32_t who)
{
    struct mooncake *m = mooncake_of(sim);
    const struct yolk_ticket ticket = { sim->requests[who].ticket };
    struct yolk_instance_id id;

    if (yolk_conductor_rehome(m->conductor, ticket, &id) != STATUS_OK)
        return; /* at the next look */
    mooncake_leave_decode(sim, who);
    enter_decode(sim, who, m->machine_of[id.index] - m->decode_first);
}

static void rehome_all(struct sim *sim)
{
    const struct mooncake *m = mooncake_of(sim);

    for (uint32_t i = 0; i < m->prefill_count; i++) {
        const struct line *queue = &m->prefill[i].queue;
        for (uint32_t q = 0; q < queue->count; q++) {
            const uint32_t who = line_at(queue, q);
            const struct sim_request *request = &sim->requests[who];
            if (request->prefill != i || request->state != SIM_QUEUED) continue; /* in a group */
            if (yolk_conductor_draining(m->conductor, m->decode[request->decode].id))
                rehome(sim, who);
        }
    }
}

static void on_look(struct sim *sim)
{
    struct mooncake *m = mooncake_of(sim);
    const struct yolk_outside waiting = outside(sim);
    struct yolk_elastic_stats stats;

    const uint32_t up = list_up(m);
    if (elastic_look(m->conductor, m->up, up, &waiting, (double)sim->events.now_ns / 1e6))
        mooncake_place_waiting(sim);
    yolk_conductor_elastic_stats(m->conductor, &stats);
    if (stats.draining > 0) rehome_all(sim);
    sim->result->flips = stats.done;
    if (sim->ended < sim->count)
        sim_schedule(sim, elastic_look_s(&sim->cluster), SIM_EVENT_LOOK, 0);
}

/* Of an attempt, or of a node's life, that has ended meanwhile. */
static bool is_out_of_date(const struct sim *sim, const struct event *event)
{
    const struct mooncake *m = mooncake_of(sim);

    switch ((enum sim_event)event->kind) {
    case SIM_EVENT_PREFILL: return event->version != m->prefill[event->who].epoch;
    case SIM_EVENT_STEP: return event->version != m->decode[event->who].epoch;
    case SIM_EVENT_LOADED: return event->version != sim->requests[event->who].attempt;
    case SIM_EVENT_FLOW:
    case SIM_EVENT_COOL:
    case SIM_EVENT_LOOK:
    case SIM_EVENT_ARRIVAL:
    case SIM_EVENT_SAMPLE:
    case SIM_EVENT_ITERATION:
    case SIM_EVENT_STOP:
    case SIM_EVENT_RETURN:
    case SIM_EVENT_FORGET:
    case SIM_EVENT_RETRY: return false;
    }
    return false;
}

static void mooncake_event(struct sim *sim, const struct event *event)
{
    if (is_out_of_date(sim, event)) return;
    switch ((enum sim_event)event->kind) {
    case SIM_EVENT_PREFILL: on_prefill_done(sim, event->who); break;
    case SIM_EVENT_FLOW: on_flow(sim, event); break;
    case SIM_EVENT_LOADED: on_loaded(sim, event->who); break;
    case SIM_EVENT_STEP: on_step(sim, event->who); break;
    case SIM_EVENT_LOOK: on_look(sim); break;
    case SIM_EVENT_COOL: on_cool(sim); break;
    case SIM_EVENT_STOP: failure_stop(sim, event); break;
    case SIM_EVENT_RETURN: failure_return(sim, event->who); break;
    case SIM_EVENT_FORGET: failure_forget(sim, event->who); break;
    case SIM_EVENT_RETRY: failure_retry(sim, event->who); break;
    case SIM_EVENT_ARRIVAL:
    case SIM_EVENT_SAMPLE:
    case SIM_EVENT_ITERATION: ASSERT(event->kind == SIM_EVENT_FLOW); /* impossible */
    }
}

/* ---- looking ---- */

static struct elastic_nodes nodes_of(const struct sim *sim)
{
    const struct mooncake *m = mooncake_of(sim);

    if (sim->cluster.elastic) return elastic_nodes(sim);
    return (struct elastic_nodes){ m->prefill_count, m->decode_count, 0 };
}

static void mooncake_sample(struct sim *sim, struct sim_sample *out)
{
    const struct mooncake *m = mooncake_of(sim);
    const struct sim_cluster *cluster = &sim->cluster;
    const struct elastic_nodes nodes = nodes_of(sim);

    const double prefills = fmax(1, nodes.prefill), decodes = fmax(1, nodes.decode);

    out->prefill_nodes = nodes.prefill;
    out->decode_nodes = nodes.decode;
    out->draining_nodes = nodes.draining;
    for (uint32_t i = 0; i < m->prefill_count; i++) {
        const struct prefill_node *node = &m->prefill[i];
        out->queued += node->queue.count;
        out->prefill_load += queue_s(sim, node) / cluster->ttft_limit_s / prefills;
        sim_count_replicas(sim, node->cache, out);
    }
    for (uint32_t i = 0; i < m->decode_count; i++) {
        const struct batch *batch = m->decode[i].batch;
        if (cluster->elastic && batch_count(batch) == 0) continue; /* it may be no decode node */
        const double step_s =
            sim_profile_decode_s(&cluster->cost, batch_count(batch), batch_context(batch));
        out->decoding += batch_count(batch);
        out->decode_load += step_s * 1e3 / cluster->tbt_limit_ms / decodes;
    }
    out->waiting = m->waiting.count;
}

static void check_bytes(const struct sim *sim)
{
    const struct mooncake *m = mooncake_of(sim);
    double sent = 0, received = 0;

    for (uint32_t i = 0; i < m->machines; i++) {
        sent += links_bytes_sent(m->links, i);
        received += links_bytes_received(m->links, i);
        ASSERT(links_rate_out(m->links, i) <= mooncake_link_bytes_s(sim) * (1 + 1e-9));
        ASSERT(links_rate_in(m->links, i) <= mooncake_link_bytes_s(sim) * (1 + 1e-9));
    }
    ASSERT(fabs(sent - received) <= 1e-9 * (sent + 1));
    sim->result->sent_bytes = sent;
}

static void note_regret(const struct sim *sim)
{
    const struct mooncake *m = mooncake_of(sim);
    struct yolk_explain_stats stats;

    if (!sim->cluster.regret) return;
    yolk_conductor_explain_stats(m->conductor, &stats);
    sim->result->regret = (struct sim_regret){ stats.judged, stats.wrong, stats.regret_ms };
}

static void mooncake_check(const struct sim *sim)
{
    const struct mooncake *m = mooncake_of(sim);
    const bool over = sim->ended == sim->count && sim->events.count == 0;

    check_bytes(sim);
    for (uint32_t i = 0; i < m->prefill_count; i++) {
        const struct prefill_node *node = &m->prefill[i];
        ASSERT(kvcache_count(node->cache) <= kvcache_capacity(node->cache));
        if (!over) continue;
        ASSERT(node->running == SIM_NONE && node->queue.count == 0 && node->queued_ns == 0);
        ASSERT(kvcache_pinned(node->cache) == 0);
    }
    for (uint32_t i = 0; i < m->decode_count; i++) {
        const struct decode_node *node = &m->decode[i];
        ASSERT(node->promised_tokens <=
               sim->cluster.cost.vram_tokens + sim->trace->block_tokens + 0.5); /* M2 */
        ASSERT(batch_count(node->batch) <= sim->cluster.batch_max);
        if (!over) continue;
        ASSERT(node->sequences == 0 && !node->stepping && node->joining.count == 0);
        ASSERT(node->inlining.count == 0 && node->inlined == SIM_NONE);
    }
    if (over) note_regret(sim);
    if (over) ASSERT(m->groups == 0 && m->waiting.count == 0 && links_flows(m->links) == 0);
}

const struct sim_system mooncake_system = { mooncake_create, mooncake_destroy, mooncake_arrive,
                                            mooncake_event,  mooncake_sample,  mooncake_check };
