/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/coupled.c - nodes that do both: prefill and decode under one scheduler, vLLM's way.
 *
 * Plain: while somebody waits and there is memory, the next iteration is the whole prefill of all
 * who wait, up to a budget of tokens, and the running sequences stand still; otherwise it is one
 * decode step. With prefix caching, blocks of old prompts stay in device memory until it is needed.
 * Chunked: every iteration is one decode step for all, and what is left of its token budget goes to
 * prompts, first come first served; a prompt starts before the one ahead of it is through only with
 * what that one leaves.
 *
 * Memory of a request (prompt and answer) is taken when its prefill starts, for its whole length;
 * real ones grow and preempt, which only matters near the limit.
 *
 * Invariants
 *   C1  used tokens <= device memory, and of that what is not used holds all unpinned cached
 *       blocks.
 *   C2  a node has exactly one iteration event pending while it is busy. */
#include <math.h>
#include <stdlib.h>

#include "base/assert.h"
#include "sim/batch.h"
#include "sim/kvcache.h"
#include "sim/sim_int.h"

struct node {
    struct sim_queue queue;   /* waiting, and in chunked systems its head may be half done */
    struct sim_queue started; /* those whose prompt this iteration completes */
    struct batch *batch;
    struct kvcache *cache; /* NULL without prefix caching */
    double used_tokens;
    bool busy;
    bool steps;          /* this iteration ends with a token for the batch */
    uint32_t prefilling; /* this iteration is the prefill of ..., or SIM_NONE */
    bool head_active;    /* chunked: the head has its memory */
};

struct coupled {
    uint32_t count, next;
    struct node *nodes;
};

static struct coupled *coupled_of(const struct sim *sim)
{
    return sim->system;
}

static void coupled_destroy(struct sim *sim)
{
    struct coupled *coupled = coupled_of(sim);
    for (uint32_t i = 0; i < coupled->count && coupled->nodes != NULL; i++) {
        batch_destroy(coupled->nodes[i].batch);
        kvcache_destroy(coupled->nodes[i].cache);
    }
    free(coupled->nodes);
    free(coupled);
}

static enum status create_node(struct sim *sim, struct node *node)
{
    const struct sim_cluster *cluster = &sim->cluster;
    const double blocks = cluster->cost.vram_tokens / sim->trace->block_tokens;
    const uint32_t capacity = blocks < 1e9 ? (uint32_t)blocks : 1000000000;

    sim_queue_init(&node->queue);
    sim_queue_init(&node->started);
    enum status status =
        batch_create((uint32_t)cluster->batch_max, sim->output_longest, &node->batch);
    if (status == STATUS_OK && cluster->system == CLUSTER_VLLM_PREFIX)
        status = kvcache_create(capacity, capacity, &node->cache);
    return status;
}

static enum status coupled_create(struct sim *sim)
{
    struct coupled *coupled = calloc(1, sizeof(*coupled));
    enum status status = STATUS_OK;

    if (coupled == NULL) return STATUS_NO_MEMORY;
    sim->system = coupled;
    coupled->count = (uint32_t)sim->cluster.nodes;
    coupled->nodes = calloc(coupled->count, sizeof(*coupled->nodes));
    if (coupled->nodes == NULL) return STATUS_NO_MEMORY;
    for (uint32_t i = 0; status == STATUS_OK && i < coupled->count; i++)
        status = create_node(sim, &coupled->nodes[i]);
    return status;
}

/* ---- memory ---- */

static double need_of(const struct sim *sim, uint32_t who)
{
    return (double)sim->trace->requests[who].input_tokens + sim_output(sim, who);
}

static bool has_room(const struct sim *sim, const struct node *node, uint32_t who)
{
    if (batch_count(node->batch) + node->started.count >= sim->cluster.batch_max) return false;
    return node->used_tokens + need_of(sim, who) <= sim->cluster.cost.vram_tokens;
}

/* Old blocks make room for running requests (C1). */
static void shrink_cache(const struct sim *sim, struct node *node)
{
    const double room = sim->cluster.cost.vram_tokens - node->used_tokens;
    uint32_t id;

    while ((double)(kvcache_count(node->cache) - kvcache_pinned(node->cache)) *
               sim->trace->block_tokens >
           room) {
        if (!kvcache_evict(node->cache, &id)) return;
    }
}

static void take_memory(const struct sim *sim, struct node *node, uint32_t who)
{
    node->used_tokens += need_of(sim, who);
    ASSERT(node->used_tokens <= sim->cluster.cost.vram_tokens);
}

static void give_memory(const struct sim *sim, struct node *node, uint32_t who)
{
    const struct sim_request *request = &sim->requests[who];
    const uint32_t *ids = sim_ids(sim, who);

    node->used_tokens -= need_of(sim, who);
    ASSERT(node->used_tokens > -0.5);
    for (uint32_t i = 0; i < request->pinned; i++)
        kvcache_unpin(node->cache, ids[i]);
    if (node->cache != NULL) shrink_cache(sim, node);
}

/* The prompt's blocks are in the cache from now on, in use until the request ends. */
static void cache_prompt(struct sim *sim, struct node *node, uint32_t who)
{
    struct sim_request *request = &sim->requests[who];
    const uint32_t *ids = sim_ids(sim, who);
    const uint32_t blocks = sim_full_blocks(sim, who);

    for (uint32_t i = blocks; i-- > request->pinned;) {
        if (!kvcache_touch(node->cache, ids[i])) {
            const bool full = kvcache_count(node->cache) == kvcache_capacity(node->cache);
            uint32_t gone;
            const bool room = !full || kvcache_evict(node->cache, &gone);
            ASSERT(room); /* running requests fit (C1) */
            const enum status status = kvcache_insert(node->cache, ids[i]);
            if (status != STATUS_OK) sim_fail(sim, status);
            if (status != STATUS_OK) return;
        }
        kvcache_pin(node->cache, ids[i]);
    }
    request->pinned = blocks;
    shrink_cache(sim, node);
}

/* ---- iterations ---- */

static void iterate(struct sim *sim, uint32_t index);

static void start_iteration(struct sim *sim, uint32_t index, double seconds)
{
    struct node *node = &coupled_of(sim)->nodes[index];
    ASSERT(!node->busy);
    node->busy = true;
    sim_schedule(sim, seconds, SIM_EVENT_ITERATION, index);
}

static void begin_prefill(struct sim *sim, struct node *node, uint32_t who)
{
    struct sim_request *request = &sim->requests[who];

    sim_set_state(sim, who, SIM_PREFILLING);
    request->start_ns = sim->events.now_ns;
    sim->result->records[who].queue_s = (double)(request->start_ns - request->arrival_ns) / 1e9;
    take_memory(sim, node, who);
}

/* Blocks in device memory cost nothing to load. */
static double whole_prefill_s(const struct sim *sim, uint32_t who, double reused)
{
    const struct sim_profile *cost = &sim->cluster.cost;
    const double tokens = sim->trace->requests[who].input_tokens;
    return sim_profile_prefill_s(cost, tokens, reused) - cost->prefill_reused_s * reused;
}

/* Takes its memory, and what is cached of it; seconds without the fixed part. */
static double prefill_one(struct sim *sim, struct node *node, uint32_t who)
{
    struct sim_request *request = &sim->requests[who];
    const uint32_t *ids = sim_ids(sim, who);

    begin_prefill(sim, node, who);
    if (node->cache != NULL) {
        request->reuse = kvcache_run(node->cache, ids, sim_reusable(sim, who));
        for (uint32_t i = 0; i < request->reuse; i++)
            kvcache_pin(node->cache, ids[i]);
        request->pinned = request->reuse;
        shrink_cache(sim, node);
    }
    const double reused = (double)request->reuse * sim->trace->block_tokens;
    sim->result->records[who].reused_tokens = (uint32_t)reused;
    return whole_prefill_s(sim, who, reused) - sim->cluster.cost.prefill_fixed_s;
}

/* The scheduler hashes every block of the prompt from its first token on, and looks for the blocks
 * to evict, while the device waits: it is no computing, but it keeps everybody. */
static double keys_s(const struct sim *sim, const struct node *node, uint32_t who)
{
    const double tokens = sim->trace->requests[who].input_tokens;
    return node->cache == NULL ? 0 : sim->cluster.cost.keys_square_s * tokens * tokens;
}

/* All who wait and fit go together, up to a budget of tokens; the first one goes in any case. */
static void start_prefill(struct sim *sim, uint32_t index)
{
    struct node *node = &coupled_of(sim)->nodes[index];
    const double fixed = sim->cluster.cost.prefill_fixed_s;
    double seconds = fixed, tokens = 0;

    while (node->queue.count > 0 && has_room(sim, node, node->queue.head)) {
        const uint32_t who = node->queue.head;
        tokens += sim->trace->requests[who].input_tokens;
        if (node->started.count > 0 && tokens > sim->cluster.prompt_tokens_max) break;
        const double own = prefill_one(sim, node, sim_queue_pop(sim, &node->queue));
        seconds += keys_s(sim, node, who);
        sim->result->records[who].prefill_s = own;
        sim_queue_push(sim, &node->started, who);
        seconds += own;
    }
    for (uint32_t who = node->started.head; who != SIM_NONE; who = sim->requests[who].next)
        sim->result->records[who].prefill_s += fixed / node->started.count;
    start_iteration(sim, index, seconds);
}

/* The device waits while the host sends the tokens of the step before and plans this one. */
static double step_s(const struct sim *sim, const struct node *node)
{
    const struct sim_profile *cost = &sim->cluster.cost;
    const double sequences = batch_count(node->batch), context = batch_context(node->batch);
    return sim_profile_decode_s(cost, sequences, context) +
           sim_profile_host_s(cost, sequences, context, node->cache != NULL);
}

/* Gives what the budget leaves to the prompts in the queue; seconds it takes. */
static double fill_chunks(struct sim *sim, struct node *node)
{
    const struct sim_profile *cost = &sim->cluster.cost;
    double left = cost->chunk_tokens - batch_count(node->batch);
    double seconds = 0;

    while (left >= 1 && node->queue.count > 0) {
        const uint32_t who = node->queue.head;
        struct sim_request *request = &sim->requests[who];
        if (!node->head_active && !has_room(sim, node, who)) break;
        if (!node->head_active) begin_prefill(sim, node, who);
        node->head_active = true;
        const double input = sim->trace->requests[who].input_tokens;
        const double from = request->chunked;
        const double tokens = fmin(left, input - from);
        const double took =
            cost->chunk_factor * (sim_profile_prefill_s(cost, from + tokens, from) -
                                  cost->prefill_fixed_s - cost->prefill_reused_s * from);
        seconds += took;
        left -= tokens;
        sim->result->records[who].prefill_s += took;
        request->chunked += (uint32_t)tokens;
        if (request->chunked < (uint32_t)input) break;
        sim_queue_push(sim, &node->started, sim_queue_pop(sim, &node->queue));
        node->head_active = false;
    }
    return seconds;
}

static void start_chunked(struct sim *sim, uint32_t index)
{
    struct node *node = &coupled_of(sim)->nodes[index];
    const uint32_t running = batch_count(node->batch);
    const double chunks = fill_chunks(sim, node);
    const double step = step_s(sim, node);

    if (running == 0 && chunks <= 0) return;
    node->steps = running > 0;
    start_iteration(sim, index,
                    chunks > 0 ? chunks + step - sim->cluster.cost.decode_base_s : step);
}

static void iterate(struct sim *sim, uint32_t index)
{
    struct node *node = &coupled_of(sim)->nodes[index];

    if (node->busy) return;
    if (sim->cluster.system == CLUSTER_VLLM_CHUNKED) {
        start_chunked(sim, index);
        return;
    }
    if (node->queue.count > 0 && has_room(sim, node, node->queue.head)) {
        start_prefill(sim, index);
        return;
    }
    if (batch_count(node->batch) == 0) return;
    node->steps = true;
    start_iteration(sim, index, step_s(sim, node));
}

static void prompt_done(struct sim *sim, struct node *node, uint32_t who)
{
    const uint32_t output = sim_output(sim, who);

    sim_first_token(sim, who);
    if (node->cache != NULL) cache_prompt(sim, node, who);
    if (output == 1) {
        sim_end(sim, who, SIM_DONE);
        give_memory(sim, node, who);
        return;
    }
    sim_set_state(sim, who, SIM_DECODING);
    batch_join(node->batch, who, sim->trace->requests[who].input_tokens + 1, output - 1,
               sim->events.now_ns);
}

static void coupled_event(struct sim *sim, const struct event *event)
{
    struct node *node = &coupled_of(sim)->nodes[event->who];
    struct batch_member member;
    ASSERT(event->kind == SIM_EVENT_ITERATION && node->busy);

    node->busy = false;
    if (node->steps) batch_step(node->batch, event->time_ns);
    while (node->steps && batch_leave(node->batch, &member)) {
        sim_record_intervals(sim, node->batch, &member);
        sim_end(sim, member.who, SIM_DONE);
        give_memory(sim, node, member.who);
    }
    node->steps = false;
    while (node->started.count > 0)
        prompt_done(sim, node, sim_queue_pop(sim, &node->started));
    iterate(sim, event->who);
}

/* ---- arrivals ---- */

static uint32_t prompts_of(const struct node *node)
{
    return node->queue.count + node->started.count;
}

/* By number of requests, or by that of prompts that are not computed and of equals by sequences. */
static bool is_less_busy(const struct node *a, const struct node *b, bool by_prompts)
{
    const uint32_t prompts_a = prompts_of(a), prompts_b = prompts_of(b);
    const uint32_t all_a = prompts_a + batch_count(a->batch);
    const uint32_t all_b = prompts_b + batch_count(b->batch);

    if (by_prompts && prompts_a != prompts_b) return prompts_a < prompts_b;
    return all_a < all_b;
}

/* Of equals the next one in turn. */
static uint32_t least_busy(struct coupled *coupled, bool by_prompts)
{
    const uint32_t first = coupled->next++ % coupled->count;
    uint32_t best = first;

    for (uint32_t i = 1; i < coupled->count; i++) {
        const uint32_t other = (first + i) % coupled->count;
        if (is_less_busy(&coupled->nodes[other], &coupled->nodes[best], by_prompts)) best = other;
    }
    return best;
}

static void coupled_arrive(struct sim *sim, uint32_t who)
{
    struct coupled *coupled = coupled_of(sim);
    uint32_t index;

    if (need_of(sim, who) > sim->cluster.cost.vram_tokens) {
        sim_end(sim, who, SIM_NEVER_FITS);
        return;
    }
    if (sim->cluster.policy == CLUSTER_RANDOM) {
        index = (uint32_t)rng_below(&sim->rng, coupled->count);
    } else if (sim->cluster.policy == CLUSTER_ROUND_ROBIN) {
        index = coupled->next++ % coupled->count;
    } else {
        index = least_busy(coupled, sim->cluster.policy == CLUSTER_LOAD);
    }
    sim_set_state(sim, who, SIM_QUEUED);
    sim_queue_push(sim, &coupled->nodes[index].queue, who);
    iterate(sim, index);
}

static void coupled_sample(struct sim *sim, struct sim_sample *out)
{
    const struct coupled *coupled = coupled_of(sim);

    for (uint32_t i = 0; i < coupled->count; i++) {
        const struct node *node = &coupled->nodes[i];
        const uint32_t running = batch_count(node->batch);
        out->queued += node->queue.count;
        out->decoding += running;
        out->decode_load += sim_profile_decode_s(&sim->cluster.cost, running, 0) * 1e3 /
                            sim->cluster.tbt_limit_ms / coupled->count;
        if (node->cache != NULL) sim_count_replicas(sim, node->cache, out);
    }
}

static void coupled_check(const struct sim *sim)
{
    const struct coupled *coupled = coupled_of(sim);
    const bool over = sim->ended == sim->count;

    for (uint32_t i = 0; i < coupled->count; i++) {
        const struct node *node = &coupled->nodes[i];
        ASSERT(node->used_tokens <= sim->cluster.cost.vram_tokens);
        ASSERT(batch_count(node->batch) <= sim->cluster.batch_max);
        if (!over) continue;
        ASSERT(!node->busy && node->queue.count == 0 && batch_count(node->batch) == 0);
        ASSERT(fabs(node->used_tokens) < 0.5);
        ASSERT(node->cache == NULL || kvcache_pinned(node->cache) == 0);
    }
}

const struct sim_system coupled_system = { coupled_create, coupled_destroy, coupled_arrive,
                                           coupled_event,  coupled_sample,  coupled_check };
