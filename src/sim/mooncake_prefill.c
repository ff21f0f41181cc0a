/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/mooncake_prefill.c - a prefill node: its cache, its turn after turn, and what it sends. */
#include "sim/mooncake_int.h"

#include <assert.h>
#include <math.h>

#include "base/assert.h"
#include "sim/group.h"

enum { PREFETCH_AHEAD = 4 };

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
void mooncake_cache_range(struct sim *sim, uint32_t index, uint32_t who, uint32_t from, uint32_t to)
{
    const struct kvcache *cache = mooncake_of(sim)->prefill[index].cache;
    const uint32_t *ids = sim_ids(sim, who);

    for (uint32_t i = to; i-- > from;) {
        if (i >= from + PREFETCH_AHEAD) kvcache_prefetch(cache, ids[i - PREFETCH_AHEAD]);
        cache_block(sim, index, ids[i]);
    }
}

/* Pins what follows on what is pinned, as far as it is there and below `to`. */
void mooncake_pin(struct sim *sim, uint32_t who, uint32_t to)
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
    const double bytes = mooncake_token_bytes(sim, tokens) + setup;
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
    return mooncake_token_bytes(sim, (double)slow * sim->trace->block_tokens) /
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
            load_s += mooncake_token_bytes(sim, block) / sim->cluster.cost.ssd_bytes_s;
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
    mooncake_pin(sim, who, sim_reusable(sim, who));
    request->reuse = sim->cluster.tiers ? worth_loading(sim, who) : request->pinned;
    request->start_ns = sim->events.now_ns;
    if (request->generated > 0) return; /* the record is of how it got its first token */
    record->queue_s = (double)(request->start_ns - request->arrival_ns) / 1e9;
    record->reused_tokens = request->reuse * sim->trace->block_tokens;
}

void mooncake_keep(struct sim *sim, uint32_t who)
{
    mooncake_cache_range(sim, sim->requests[who].prefill, who, 0, sim_full_blocks(sim, who));
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
void mooncake_load(struct sim *sim, uint32_t who)
{
    const double bytes = mooncake_token_bytes(sim, sim_input(sim, who));
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

void mooncake_show_first(struct sim *sim, uint32_t who)
{
    sim_first_token(sim, who);
    sim->requests[who].first_ns = sim->events.now_ns;
}

/* Its KV goes to the decode node, if it has not gone there by now. */
static void leave_prefill(struct sim *sim, uint32_t who, uint32_t index)
{
    const struct sim_request *request = &sim->requests[who];

    if (request->sent == request->stages) {
        mooncake_load(sim, who);
        return;
    }
    sim_set_state(sim, who, SIM_SENDING);
    if (!sim->cluster.layerwise && request->stages == 1) mooncake_send_kv(sim, who, index, 0);
}

void mooncake_on_prefill_done(struct sim *sim, uint32_t index)
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
        if (sim->cluster.first_at_prefill) mooncake_show_first(sim, who);
        leave_prefill(sim, who, index);
    }
    mooncake_start_prefill(sim, index);
}

void mooncake_on_fetched(struct sim *sim, uint32_t who)
{
    struct mooncake *m = mooncake_of(sim);
    struct sim_request *request = &sim->requests[who];
    struct kvcache *holder = m->prefill[request->holder].cache;
    const uint32_t *ids = sim_ids(sim, who);
    const uint32_t local = request->pinned;

    for (uint32_t i = local; i < request->held; i++)
        kvcache_unpin(holder, ids[i]);
    mooncake_cache_range(sim, request->prefill, who, local, request->held);
    mooncake_pin(sim, who, request->held);
    if (request->generated == 0)
        sim->result->records[who].fetched_tokens =
            (request->pinned - local) * sim->trace->block_tokens;
    request->fetching = false;
    mooncake_start_prefill(sim, request->prefill);
}
