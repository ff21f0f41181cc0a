/* SPDX-License-Identifier: Apache-2.0
 *
 * Members are a heap by the step they are done with; ties by who, so that they leave in an order
 * that does not depend on the heap's past. */
#include "sim/batch.h"

#include <stdlib.h>

#include "base/assert.h"

enum { CACHE_LINE = 64 };

/* What a step touches comes first, and is in one cache line: a thousand nodes take turns. */
struct batch {
    uint32_t count, members_max;
    uint64_t steps;     /* done */
    uint64_t next_done; /* of the first member; UINT64_MAX when there is none */
    double context;
    uint64_t *ends_ns; /* of step s at s & mask */
    uint64_t mask;
    struct batch_member *members; /* a heap */
    uint64_t *scratch;            /* steps_max intervals */
    uint32_t steps_max;
};

enum status batch_create(uint32_t members_max, uint32_t steps_max, struct batch **out)
{
    ASSERT(members_max > 0 && steps_max > 0);
    const size_t size = (sizeof(struct batch) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    struct batch *batch = aligned_alloc(CACHE_LINE, size);
    uint64_t ring = 2;

    if (batch == NULL) return STATUS_NO_MEMORY;
    *batch = (struct batch){ .next_done = UINT64_MAX };
    while (ring < (uint64_t)steps_max + 1)
        ring *= 2;
    batch->members_max = members_max;
    batch->steps_max = steps_max;
    batch->mask = ring - 1;
    batch->members = calloc(members_max, sizeof(*batch->members));
    batch->ends_ns = calloc(ring, sizeof(*batch->ends_ns));
    batch->scratch = calloc(steps_max, sizeof(*batch->scratch));
    if (batch->members == NULL || batch->ends_ns == NULL || batch->scratch == NULL) {
        batch_destroy(batch);
        return STATUS_NO_MEMORY;
    }
    *out = batch;
    return STATUS_OK;
}

void batch_destroy(struct batch *batch)
{
    if (batch == NULL) return;
    free(batch->members);
    free(batch->ends_ns);
    free(batch->scratch);
    free(batch);
}

uint32_t batch_count(const struct batch *batch)
{
    ASSERT(batch->count <= batch->members_max);
    return batch->count;
}

double batch_context(const struct batch *batch)
{
    return batch->context;
}

uint32_t batch_who(const struct batch *batch, uint32_t index)
{
    ASSERT(index < batch->count);
    return batch->members[index].who;
}

uint32_t batch_had(const struct batch *batch, uint32_t index)
{
    ASSERT(index < batch->count);
    return (uint32_t)(batch->steps - batch->members[index].joined);
}

uint64_t batch_steps(const struct batch *batch)
{
    return batch->steps;
}

static bool before(const struct batch_member *a, const struct batch_member *b)
{
    if (a->done != b->done) return a->done < b->done;
    return a->who < b->who;
}

void batch_join(struct batch *batch, uint32_t who, uint32_t context, uint32_t steps,
                uint64_t first_ns)
{
    ASSERT(batch->count < batch->members_max);
    ASSERT(steps > 0 && steps <= batch->steps_max);
    const struct batch_member member = { who, context, first_ns, batch->steps,
                                         batch->steps + steps };
    uint32_t at = batch->count++;

    while (at > 0 && before(&member, &batch->members[(at - 1) / 2])) {
        batch->members[at] = batch->members[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    batch->members[at] = member;
    batch->next_done = batch->members[0].done;
    batch->context += context;
}

void batch_step(struct batch *batch, uint64_t now_ns)
{
    ASSERT(batch->next_done > batch->steps);
    batch->steps++;
    batch->ends_ns[batch->steps & batch->mask] = now_ns;
    batch->context += batch->count;
}

bool batch_leave(struct batch *batch, struct batch_member *out)
{
    struct batch_member *heap = batch->members;

    if (batch->next_done > batch->steps) return false;
    ASSERT(batch->count > 0 && heap[0].done == batch->next_done);
    *out = heap[0];
    ASSERT(out->done == batch->steps);
    const struct batch_member last = heap[--batch->count];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= batch->count) break;
        if (child + 1 < batch->count && before(&heap[child + 1], &heap[child])) child++;
        if (!before(&heap[child], &last)) break;
        heap[at] = heap[child];
        at = child;
    }
    if (batch->count > 0) heap[at] = last;
    batch->next_done = batch->count > 0 ? heap[0].done : UINT64_MAX;
    batch->context -= (double)out->context + (double)(out->done - out->joined);
    return true;
}

/* Moves the `most` largest values to the front, in no order. */
static void select_largest(uint64_t *values, uint32_t count, uint32_t most)
{
    uint32_t low = 0, high = count;

    ASSERT(most > 0 && most <= count);
    while (high - low > 1) {
        const uint64_t pivot = values[low + (high - low) / 2];
        uint32_t above = low, equal = low; /* [low,above) > pivot, [above,equal) == pivot */
        for (uint32_t i = low; i < high; i++) {
            const uint64_t value = values[i];
            if (value < pivot) continue;
            values[i] = values[equal];
            values[equal] = value;
            if (value > pivot) {
                values[equal] = values[above];
                values[above++] = value;
            }
            equal++;
        }
        if (most < above)
            high = above;
        else if (most > equal)
            low = equal;
        else
            return;
    }
}

bool batch_drop(struct batch *batch, struct batch_member *out)
{
    if (batch->count == 0) return false;
    *out = batch->members[--batch->count]; /* a leaf: the rest is still a heap */
    ASSERT(out->done > batch->steps);
    out->done = batch->steps;
    batch->context -= (double)out->context + (double)(out->done - out->joined);
    return true;
}

uint32_t batch_read(const struct batch *batch, const struct batch_member *member, uint64_t *out)
{
    const uint32_t count = (uint32_t)(member->done - member->joined);
    uint64_t before_ns = member->first_ns;
    ASSERT(member->done == batch->steps && count <= batch->steps_max);

    for (uint32_t i = 0; i < count; i++) {
        const uint64_t end_ns = batch->ends_ns[(member->joined + 1 + i) & batch->mask];
        ASSERT(end_ns >= before_ns);
        out[i] = end_ns - before_ns;
        before_ns = end_ns;
    }
    return count;
}

uint64_t batch_latest_ns(const struct batch *batch, const struct batch_member *member)
{
    ASSERT(member->done == batch->steps);
    if (member->done == member->joined) return member->first_ns;
    return batch->ends_ns[member->done & batch->mask];
}

struct batch_intervals batch_summary(uint64_t *intervals, uint32_t count)
{
    ASSERT(count > 0);
    const uint32_t most = (count + 9) / 10;
    uint64_t sum = 0, longest = 0;

    for (uint32_t i = 0; i < count; i++)
        sum += intervals[i];
    select_largest(intervals, count, most);
    for (uint32_t i = 0; i < most; i++)
        longest += intervals[i];
    return (struct batch_intervals){ (double)sum / count / 1e6, (double)longest / most / 1e6 };
}

struct batch_intervals batch_measure(struct batch *batch, const struct batch_member *member)
{
    return batch_summary(batch->scratch, batch_read(batch, member, batch->scratch));
}
