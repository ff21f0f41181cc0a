/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/choose.h - the placement policies that Algorithm 1 is compared with: which prefill
 * instance, seen by one thing only, and which decode instance.
 *
 * Candidates are offered one after another, in a fixed order; of equals the first is taken. The
 * live Conductor and the simulator, which has no Conductor under these policies, both choose here.
 *
 *     match        the longest cached prefix of its own; queues unseen
 *     load         the least work queued, in predicted time
 *     count        the fewest requests queued
 *     random       any
 *     round-robin  one after another
 *     decode       the fewest sequences, then the fewest tokens
 *
 * Cost: O(1) an offer. Memory: the caller's. Threads: any. */
#ifndef CONDUCTOR_CHOOSE_H
#define CONDUCTOR_CHOOSE_H

#include <stdbool.h>
#include <stdint.h>

#include "yolk/conductor.h"

#define CONDUCTOR_NOBODY UINT32_MAX

struct conductor_choice {
    uint32_t best;    /* position of the best offer so far; CONDUCTOR_NOBODY before the first */
    uint32_t offered; /* so far */
    uint32_t drawn;   /* random, round-robin: the position that will be taken */
    enum yolk_placement placement;
    double least;
    uint64_t least_tokens; /* decode */
};

/* True for the two that are Algorithm 1, with and without fetches, and not chosen here. */
bool conductor_placement_scores(enum yolk_placement placement);

/* `placement` is none of these; `count` candidates, at least one, will be offered. `draw`: random:
 * any number, all equally likely; round-robin: how many were placed before. */
struct conductor_choice conductor_choose(enum yolk_placement placement, uint32_t count,
                                         uint64_t draw);
/* What the policy does not look at may be anything. */
void conductor_offer(struct conductor_choice *choice, uint32_t hit_blocks, double queue_ms,
                     uint32_t queued);

struct conductor_choice conductor_choose_decode(void);
void conductor_offer_decode(struct conductor_choice *choice, uint32_t sequences, uint64_t tokens);

#endif
