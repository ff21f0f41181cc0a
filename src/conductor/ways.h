/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/ways.h - how one candidate could prefill a prompt, where holders are not alike: some
 * have a part of it on SSD, some are busy sending to others.
 *
 * The blocks of a prompt fall into ranges: those that the candidate reuses from its own memory, up
 * to `own`; those that it loads from its own SSD or fetches from a holder, up to `reuse`; and those
 * that it computes. The time of a way, with C(r) the prefill behind r reused blocks:
 *
 *     its own    max(C(reuse), load of its own blocks on SSD), reuse = own
 *     fetched    backlog of the sender + max(path, SSD of the sender) over [own, reuse) + C(reuse)
 *
 * Loading from SSD goes on beside the computation, and what is longer counts; a fetch comes first.
 * Of its own the first blocks are in memory and the later ones on SSD, since nodes move the last
 * ones down first; the same of a holder. Who fetches does so behind what it has in memory: using
 * its SSD as well would seldom be better, and more blocks on an SSD could then make a way longer.
 * `reuse` is where the two sides of a max meet, or where a range ends: between those C is concave
 * and all else linear, so nothing in between is better.
 *
 * A holder that is nowhere better than another one on the same path (fewer blocks, fewer of them in
 * memory, a longer backlog) is left out. At most WAYS_FAR_MAX of the rest are looked at across the
 * network: only beyond that may something be missed.
 *
 * Without busy holders and without SSD all this comes to what conductor/place.c does at once.
 *
 * Threads: any. Memory: the caller's. */
#ifndef CONDUCTOR_WAYS_H
#define CONDUCTOR_WAYS_H

#include <stdbool.h>
#include <stdint.h>

#include "conductor/place.h"

enum { WAYS_FAR_MAX = 16 };

struct way {
    uint32_t holder; /* instance to fetch from, or CONDUCTOR_NO_HOLDER */
    uint32_t own_blocks, reuse_blocks;
    double transfer_ms; /* or what loading takes beyond computing */
    double compute_ms;
    bool near; /* the holder is on the same host */
};

struct ways {
    const struct conductor_place_input *input;
    uint32_t limit; /* blocks that may be reused */
    uint32_t best_blocks;
    uint32_t far[WAYS_FAR_MAX]; /* positions in input->holders */
    uint32_t far_count;
};

/* Uses input->on_host and input->next as scratch. */
void ways_prepare(const struct conductor_place_input *input, struct ways *out);

struct way ways_best(const struct ways *ways, const struct conductor_prefill_candidate *candidate);

#endif
