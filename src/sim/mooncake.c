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
 *       begins.
 *
 * Here: making, arrivals and ends, events, roles. Where a request goes is mooncake_place.c, the
 * nodes are mooncake_prefill.c and mooncake_decode.c, copies of what is hot mooncake_copy.c. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
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

struct mooncake *mooncake_of(const struct sim *sim)
{
    return sim->system;
}

double mooncake_link_bytes_s(const struct sim *sim)
{
    const double gbps = sim->cluster.nic_gbps;
    return gbps > 0 ? gbps * 1e9 / 8 : sim->cluster.cost.nic_bytes_s;
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
    if (status == STATUS_OK && sim->cluster.policy <= CLUSTER_LOCAL)
        status = mooncake_create_conductor(sim);
    if (sim->cluster.replicate) sim_schedule(sim, MOONCAKE_COOL_S, SIM_EVENT_COOL, 0);
    if (sim->cluster.elastic) sim_schedule(sim, elastic_look_s(&sim->cluster), SIM_EVENT_LOOK, 0);
    if (status == STATUS_OK) failure_begin(sim);
    return status;
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
static void enqueue(struct sim *sim, uint32_t who, const struct mooncake_placement *placed)
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

static void accept(struct sim *sim, uint32_t who, const struct mooncake_placement *placed)
{
    struct mooncake *m = mooncake_of(sim);
    struct sim_request *request = &sim->requests[who];
    const double reused = (double)placed->reuse * sim->trace->block_tokens;

    request->prefill = placed->prefill;
    request->holder = placed->holder;
    mooncake_enter_decode(sim, who, placed->decode);
    request->stages = placed->stages;
    request->inlined = placed->inlined;
    request->estimate_ns = sim_ns(
        sim_profile_prefill_s(&sim->cluster.cost, sim_input(sim, who), reused) / placed->stages);
    const bool fetches = placed->holder != SIM_NONE && !placed->inlined;
    if (m->conductor != NULL) mooncake_pin(sim, who, fetches ? placed->own : placed->reuse);
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
        sim->result->fetched_bytes += mooncake_token_bytes(sim, tokens);
        mooncake_send(sim, placed->holder, placed->prefill, tokens, who, FLOW_FETCH, 0);
    } else {
        ASSERT(m->conductor == NULL || request->pinned == placed->reuse); /* M1 */
    }
    for (uint32_t j = 0; j < placed->stages; j++)
        mooncake_start_prefill(sim, placed->group[j]);
}

static void settle(struct sim *sim, uint32_t who, enum status status,
                   const struct mooncake_placement *placed)
{
    const double now_ms = (double)sim->events.now_ns / 1e6;
    struct yolk_copy copy;

    ASSERT(status != STATUS_FULL);
    if (status == STATUS_OK) {
        accept(sim, who, placed);
        if (sim->cluster.replicate &&
            yolk_conductor_copy(mooncake_of(sim)->conductor, now_ms, &copy))
            mooncake_start_copy(sim, who, &copy);
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
    struct mooncake_placement placed = { 0 };
    enum status status = STATUS_FULL;

    if (mooncake_need(sim, who) > sim->cluster.cost.vram_tokens) {
        sim_end(sim, who, SIM_NEVER_FITS);
        return;
    }
    if (m->waiting.count == 0 ||
        sim->requests[m->waiting.head].priority < sim->requests[who].priority)
        status = mooncake_place(sim, who, &placed);
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
        struct mooncake_placement placed = { 0 };
        const enum status status = mooncake_place(sim, m->waiting.head, &placed);
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
    case FLOW_FETCH: mooncake_on_fetched(sim, who); break;
    case FLOW_COPY: mooncake_on_copied(sim, who); break;
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
            mooncake_load(sim, who);
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
    mooncake_enter_decode(sim, who, m->machine_of[id.index] - m->decode_first);
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

    const uint32_t up = mooncake_list_up(m);
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
    case SIM_EVENT_PREFILL: mooncake_on_prefill_done(sim, event->who); break;
    case SIM_EVENT_FLOW: on_flow(sim, event); break;
    case SIM_EVENT_LOADED: mooncake_on_loaded(sim, event->who); break;
    case SIM_EVENT_STEP: mooncake_on_step(sim, event->who); break;
    case SIM_EVENT_LOOK: on_look(sim); break;
    case SIM_EVENT_COOL: mooncake_on_cool(sim); break;
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

    if (sim->cluster.elastic) return mooncake_elastic_nodes(sim);
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
        out->prefill_load += mooncake_queue_s(sim, node) / cluster->ttft_limit_s / prefills;
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
