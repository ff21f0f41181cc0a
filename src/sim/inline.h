/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/inline.h - short prefills beside a step of a decode batch, as the conductor decides.
 *
 * The request has a home among the prefill nodes: who has its prefix, or would have prefilled it.
 * The prefix comes from there; when it is here the request waits for a step. It is computed beside
 * that step, which takes longer by it, has its first token when the step ends, and is a member of
 * the batch from then on. Its new blocks go home, into the pool.
 *
 * The blocks of the prefix are pinned at home until the new ones have come. */
#ifndef SIM_INLINE_H
#define SIM_INLINE_H

#include <stdint.h>

#include "sim/sim_int.h"

/* It has been placed; request->prefill is its home, where `reuse` blocks are pinned. */
void inline_begin(struct sim *sim, uint32_t who);
/* Its prefix is here. */
void inline_ready(struct sim *sim, uint32_t who);
/* Its new blocks are at home. */
void inline_stored(struct sim *sim, uint32_t who);

/* A step of this decode node begins, its batch being what it is: who is computed beside it.
 * Returns the seconds that the step takes, longer or not. There is room for one more member. */
double inline_step(struct sim *sim, uint32_t index, double step_s);
/* The step has ended. */
void inline_step_done(struct sim *sim, uint32_t index);

/* Its placement is given up. */
void inline_give_up(struct sim *sim, uint32_t who);

#endif
