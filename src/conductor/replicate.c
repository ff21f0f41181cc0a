/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/replicate.c - copies of hot prefixes: where there should be one more, and which have
 * gone cold.
 *
 * Every placement warms the prefixes of its prompt that somebody holds, at lengths that are powers
 * of two, so that a few counters stand for all lengths. If the longest hot one of them is held only
 * by instances whose queues are long, and another prefill instance has a shorter one, that instance
 * should have it too: the placement leaves a proposal. Fetching copies blocks as well, but only
 * once somebody already waits for them.
 *
 * A proposal that is taken holds a slot until its prefix is cold; then it is offered for removal,
 * once. So what was copied for heat goes with the heat, before the eviction of the node, which may
 * throw out something better, would get to it.
 *
 * Invariant
 *   R1  a slot's keys are those that the caller was told to copy. */
#include "conductor/conductor_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/heat.h"

enum { HEAT_ENTRIES = 8192 };

struct slot {
    bool used;
    struct yolk_instance_id to;
    struct block_key key; /* the last one */
};

struct replication {
    struct yolk_replication_options options;
    struct heat *heat;
    struct slot slots[YOLK_COPIES_MAX];
    bool proposed;
    struct yolk_copy copy; /* if proposed */
    struct block_key key;  /* its last one */
    struct yolk_replication_stats stats;
};

struct yolk_replication_options yolk_replication_defaults(void)
{
    return (struct yolk_replication_options){
        .half_life_ms = 60000, .hot = 8, .cold = 0.5, .queue_ms = 1000, .replicas_max = 8
    };
}

void conductor_replication_destroy(struct replication *replication)
{
    if (replication == NULL) return;
    heat_destroy(replication->heat);
    free(replication);
}

static bool good(const struct yolk_replication_options *o)
{
    return o->half_life_ms > 0 && o->half_life_ms <= 1e9 && o->hot >= 1 && o->hot <= 1e9 &&
           o->cold > 0 && o->cold < o->hot && o->queue_ms >= 0 && o->queue_ms <= 1e9 &&
           o->replicas_max >= 1;
}

enum status yolk_conductor_set_replication(struct yolk_conductor *c,
                                           const struct yolk_replication_options *options,
                                           struct errmsg *err)
{
    if (!good(options))
        return errmsg_set(err, STATUS_INVALID, "conductor: replication is out of range");
    struct replication *made = calloc(1, sizeof(*made));
    if (made == NULL) goto no_memory;
    made->options = *options;
    if (heat_create(HEAT_ENTRIES, options->half_life_ms, &made->heat) != STATUS_OK) goto no_memory;
    if (c->replication == NULL) c->stats.bytes += sizeof(*made) + heat_bytes(made->heat);
    conductor_replication_destroy(c->replication);
    c->replication = made;
    return STATUS_OK;

no_memory:
    conductor_replication_destroy(made);
    return errmsg_set(err, STATUS_NO_MEMORY, "conductor: not enough memory");
}

/* ---- proposing ---- */

/* Warms the prefixes up to `blocks`; the longest hot one of them, or 0. */
static uint32_t warm(struct replication *r, const struct block_key *keys, uint32_t blocks,
                     double now_ms)
{
    uint32_t hot = 0;

    for (uint32_t length = 1; length <= blocks && length > 0; length *= 2) {
        if (heat_touch(r->heat, &keys[length - 1], now_ms) >= r->options.hot) hot = length;
    }
    return hot;
}

struct survey {
    uint32_t replicas;
    uint32_t source; /* of them, the one that sends least */
    double sending_ms;
    double wait_ms; /* least queue among those that prefill; INFINITY: none does */
};

static struct survey survey_holders(const struct yolk_conductor *c, const struct proposal *proposal,
                                    uint32_t blocks, double now_ms)
{
    struct survey found = { .wait_ms = INFINITY, .sending_ms = INFINITY };

    for (uint32_t i = 0; i < proposal->found.holders; i++) {
        const struct conductor_holder *holder = &c->holders[i];
        if (holder->blocks < blocks) continue;
        const struct instance *instance = &c->instances[holder->instance];
        const double sending = fmax(0, instance->sending_until_ms - now_ms);
        found.replicas++;
        if (sending < found.sending_ms) {
            found.sending_ms = sending;
            found.source = holder->instance;
        }
        if (conductor_open(instance) && (instance->roles & YOLK_ROLE_PREFILL))
            found.wait_ms = fmin(found.wait_ms, conductor_queue_ms(instance, now_ms));
    }
    return found;
}

/* The prefill candidate with the shortest queue that lacks it, or UINT32_MAX. */
static uint32_t destination(const struct yolk_conductor *c, const struct proposal *proposal,
                            uint32_t blocks, double below_ms)
{
    uint32_t best = UINT32_MAX;

    for (uint32_t i = 0; i < proposal->found.prefill; i++) {
        const struct conductor_prefill_candidate *candidate = &c->prefill[i];
        const bool gets_it =
            i == proposal->placed.prefill; /* by this request, one way or another */
        if (candidate->hit_blocks >= blocks || gets_it || candidate->queue_ms >= below_ms) continue;
        below_ms = candidate->queue_ms;
        best = candidate->instance;
    }
    return best;
}

void conductor_replicate(struct yolk_conductor *c, const struct yolk_place_request *request,
                         const struct proposal *proposal, double now_ms)
{
    struct replication *r = c->replication;

    if (r == NULL) return;
    r->proposed = false;
    const uint32_t limit = proposal->reusable_blocks < proposal->placed.best_blocks
                               ? proposal->reusable_blocks
                               : proposal->placed.best_blocks;
    const uint32_t blocks = warm(r, request->keys, limit, now_ms);
    if (blocks == 0) return;
    const struct survey found = survey_holders(c, proposal, blocks, now_ms);
    if (found.replicas == 0 || found.replicas >= r->options.replicas_max) return;
    if (found.wait_ms < r->options.queue_ms) return;
    const uint32_t to = destination(c, proposal, blocks, found.wait_ms);
    if (to == UINT32_MAX || to == found.source) return;
    r->proposed = true;
    r->copy = (struct yolk_copy){ { found.source }, { to }, blocks, 0 };
    r->key = request->keys[blocks - 1];
}

bool yolk_conductor_copy(struct yolk_conductor *c, double now_ms, struct yolk_copy *out)
{
    struct replication *r = c->replication;

    if (r == NULL || !r->proposed) return false;
    r->proposed = false;
    for (uint32_t i = 0; i < YOLK_COPIES_MAX; i++) {
        const struct slot *slot = &r->slots[i];
        if (slot->used && slot->to.index == r->copy.to.index &&
            block_key_equal(&slot->key, &r->key))
            return false; /* it is there, or on its way */
    }
    for (uint32_t i = 0; i < YOLK_COPIES_MAX; i++) {
        if (r->slots[i].used) continue;
        r->slots[i] = (struct slot){ true, r->copy.to, r->key };
        r->copy.slot = i;
        *out = r->copy;
        r->stats.copies++;
        conductor_note_sending(c, r->copy.from.index, r->copy.to.index, r->copy.blocks, now_ms);
        return true;
    }
    return false; /* all slots are hot */
}

/* ---- removing ---- */

bool yolk_conductor_cold(struct yolk_conductor *c, double now_ms, struct yolk_copy *out)
{
    struct replication *r = c->replication;

    for (uint32_t i = 0; r != NULL && i < YOLK_COPIES_MAX; i++) {
        struct slot *slot = &r->slots[i];
        if (!slot->used || heat_of(r->heat, &slot->key, now_ms) >= r->options.cold) continue;
        slot->used = false;
        *out = (struct yolk_copy){ YOLK_INSTANCE_NONE, slot->to, 0, i };
        r->stats.removals++;
        return true;
    }
    return false;
}

uint32_t yolk_conductor_held_elsewhere(struct yolk_conductor *c, struct yolk_instance_id id,
                                       const struct block_key *keys, uint32_t keys_count)
{
    uint32_t most = 0;

    if (keys_count == 0) return 0;
    conductor_index_match(c->index, keys, keys_count, c->matched);
    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        const struct instance *instance = &c->instances[i];
        if (i == id.index || !instance->used || instance->suspected) continue;
        if (c->matched[i] > most) most = c->matched[i];
    }
    ASSERT(most <= keys_count);
    return most;
}

/* Copies on an instance that is gone are gone. */
void conductor_replication_forget(struct yolk_conductor *c, uint32_t instance)
{
    struct replication *r = c->replication;

    if (r == NULL) return;
    r->proposed = false;
    for (uint32_t i = 0; i < YOLK_COPIES_MAX; i++) {
        if (r->slots[i].to.index == instance) r->slots[i].used = false;
    }
}

void yolk_conductor_replication_stats(const struct yolk_conductor *c,
                                      struct yolk_replication_stats *out)
{
    const struct replication *r = c->replication;

    *out = (struct yolk_replication_stats){ 0 };
    if (r == NULL) return;
    *out = r->stats;
    for (uint32_t i = 0; i < YOLK_COPIES_MAX; i++)
        out->held += r->slots[i].used;
}
