/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/hits.c - a ring, and its sums.
 *
 *     quiet -- kept < predicted / 2 --> alarm -- kept >= predicted * 4 / 5 --> quiet
 *
 * Invariants
 *   I1  predicted, kept and lost[] are the sums over the window; lost[] sums to the difference. */
#include "conductor/hits.h"

#include "base/assert.h"

static void forget_oldest(struct hits *hits)
{
    const struct hit *oldest = &hits->window[hits->count % YOLK_HITS_WINDOW];

    hits->predicted -= oldest->predicted;
    hits->kept -= oldest->kept;
    hits->lost[oldest->why] -= oldest->predicted - oldest->kept;
}

static void judge(struct hits *hits)
{
    if (hits->alarm) {
        hits->alarm = hits->kept * 5 < hits->predicted * 4;
    } else if (hits_requests(hits) >= HITS_FEW && hits->kept * 2 < hits->predicted) {
        hits->alarm = true;
        hits->alarms++;
    }
}

void hits_add(struct hits *hits, uint32_t predicted, uint32_t kept, enum yolk_miss why)
{
    ASSERT(predicted > 0 && kept <= predicted && (int)why < YOLK_MISSES);

    if (hits->count >= YOLK_HITS_WINDOW) forget_oldest(hits);
    hits->window[hits->count % YOLK_HITS_WINDOW] = (struct hit){ predicted, kept, why };
    hits->count++;
    hits->predicted += predicted;
    hits->kept += kept;
    hits->lost[why] += predicted - kept;
    ASSERT(hits->kept <= hits->predicted); /* I1 */
    judge(hits);
}

uint32_t hits_requests(const struct hits *hits)
{
    return hits->count < YOLK_HITS_WINDOW ? (uint32_t)hits->count : YOLK_HITS_WINDOW;
}

enum yolk_miss hits_why(const struct hits *hits)
{
    enum yolk_miss most = YOLK_MISS_EVICTED;

    for (int why = 0; why < YOLK_MISSES; why++) {
        if (hits->lost[why] > hits->lost[most]) most = (enum yolk_miss)why;
    }
    return most;
}
