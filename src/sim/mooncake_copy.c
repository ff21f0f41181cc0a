/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/mooncake_copy.c - copies of hot prefixes, as the conductor proposes them, until they are
 * cold. */
#include "sim/mooncake_int.h"

#include "base/assert.h"

void mooncake_start_copy(struct sim *sim, uint32_t who, const struct yolk_copy *proposed)
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
    sim->result->copied_bytes += mooncake_token_bytes(sim, tokens);
    mooncake_send(sim, copy->from, copy->to, tokens, proposed->slot, FLOW_COPY, 0);
}

void mooncake_on_copied(struct sim *sim, uint32_t slot)
{
    struct mooncake *m = mooncake_of(sim);
    struct copy *copy = &m->copies[slot];
    const uint32_t *ids = sim_ids(sim, copy->who);

    ASSERT(copy->moving);
    copy->moving = false;
    for (uint32_t i = 0; i < copy->blocks; i++)
        kvcache_unpin(m->prefill[copy->from].cache, ids[i]);
    mooncake_cache_range(sim, copy->to, copy->who, 0, copy->blocks);
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

void mooncake_on_cool(struct sim *sim)
{
    struct mooncake *m = mooncake_of(sim);
    struct yolk_copy cold;

    while (yolk_conductor_cold(m->conductor, (double)sim->events.now_ns / 1e6, &cold)) {
        if (m->copies[cold.slot].moving) continue; /* cold before it was there */
        remove_copy(sim, &m->copies[cold.slot]);
        sim->result->removals++;
    }
    if (sim->ended < sim->count) sim_schedule(sim, MOONCAKE_COOL_S, SIM_EVENT_COOL, 0);
}
