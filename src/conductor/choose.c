/* SPDX-License-Identifier: Apache-2.0 */
#include "conductor/choose.h"

#include <math.h>
#include <string.h>

#include "base/assert.h"

const char *yolk_placement_name(enum yolk_placement placement)
{
    static const char *const NAMES[YOLK_PLACEMENTS] = { "global", "local",  "match",      "load",
                                                        "count",  "random", "round-robin" };
    ASSERT((int)placement >= 0 && (int)placement < YOLK_PLACEMENTS);
    return NAMES[placement];
}

enum status yolk_placement_of(const char *name, enum yolk_placement *out)
{
    for (int i = 0; i < YOLK_PLACEMENTS; i++) {
        if (strcmp(name, yolk_placement_name((enum yolk_placement)i)) != 0) continue;
        *out = (enum yolk_placement)i;
        return STATUS_OK;
    }
    return STATUS_NOT_FOUND;
}

bool conductor_placement_scores(enum yolk_placement placement)
{
    return placement == YOLK_PLACEMENT_GLOBAL || placement == YOLK_PLACEMENT_LOCAL;
}

struct conductor_choice conductor_choose(enum yolk_placement placement, uint32_t count,
                                         uint64_t draw)
{
    ASSERT(!conductor_placement_scores(placement) && count > 0);
    return (struct conductor_choice){
        .best = CONDUCTOR_NOBODY,
        .drawn = (uint32_t)(draw % count),
        .placement = placement,
        .least = INFINITY,
    };
}

/* How bad an offer is; least is best. */
static double badness(const struct conductor_choice *choice, uint32_t hit_blocks, double queue_ms,
                      uint32_t queued)
{
    switch (choice->placement) {
    case YOLK_PLACEMENT_MATCH: return -(double)hit_blocks;
    case YOLK_PLACEMENT_LOAD: return queue_ms;
    case YOLK_PLACEMENT_COUNT: return queued;
    case YOLK_PLACEMENT_RANDOM:
    case YOLK_PLACEMENT_ROUND_ROBIN: return choice->offered == choice->drawn ? 0 : 1;
    case YOLK_PLACEMENT_GLOBAL:
    case YOLK_PLACEMENT_LOCAL: break;
    }
    ASSERT(false); /* conductor_choose() */
    return 0;
}

void conductor_offer(struct conductor_choice *choice, uint32_t hit_blocks, double queue_ms,
                     uint32_t queued)
{
    const double bad = badness(choice, hit_blocks, queue_ms, queued);

    ASSERT(!isnan(bad) && choice->offered < CONDUCTOR_NOBODY);
    if (bad < choice->least) {
        choice->least = bad;
        choice->best = choice->offered;
    }
    choice->offered++;
}

struct conductor_choice conductor_choose_decode(void)
{
    return (struct conductor_choice){ .best = CONDUCTOR_NOBODY, .least = INFINITY };
}

void conductor_offer_decode(struct conductor_choice *choice, uint32_t sequences, uint64_t tokens)
{
    const bool fewer = sequences < choice->least;
    const bool shorter = sequences == choice->least && tokens < choice->least_tokens;

    if (fewer || shorter) {
        choice->least = sequences;
        choice->least_tokens = tokens;
        choice->best = choice->offered;
    }
    choice->offered++;
}
