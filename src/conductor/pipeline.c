/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/pipeline.c - the recurrence, and which number of stages is the cheapest.
 *
 * Work of a chunk is the difference of two predictions of the whole prefill, so that all chunks
 * together are what one instance alone would take, whatever the chunks; what a prefill costs
 * before its first token lies in the first one. The reused prefix lies at the leader: a stage
 * gets its layers of it before it starts, all helpers at once over the leader's link. */
#include "conductor/pipeline.h"

#include <math.h>

#include "base/assert.h"

static uint32_t chunk_size(uint32_t tokens, uint32_t chunk_tokens)
{
    const uint32_t least = (tokens + PIPELINE_CHUNKS_MAX - 1) / PIPELINE_CHUNKS_MAX;
    ASSERT(chunk_tokens > 0);
    return chunk_tokens > least ? chunk_tokens : least;
}

uint32_t pipeline_chunks(uint32_t tokens, uint32_t chunk_tokens)
{
    if (tokens == 0) return 0;
    return (tokens - 1) / chunk_size(tokens, chunk_tokens) + 1;
}

uint32_t pipeline_begin(uint32_t tokens, uint32_t chunk_tokens, uint32_t index)
{
    const uint64_t at = (uint64_t)index * chunk_size(tokens, chunk_tokens);
    return at < tokens ? (uint32_t)at : tokens;
}

double pipeline_stage(struct pipeline_chunk *chunks, uint32_t count, uint32_t stages, double ready,
                      bool first)
{
    ASSERT(count > 0 && stages > 0);
    double begin = 0, free = ready;

    for (uint32_t i = 0; i < count; i++) {
        const double there = first ? chunks[i].at : chunks[i].at + chunks[i].hop;
        const double start = there > free ? there : free;
        if (i == 0) begin = start;
        free = start + chunks[i].work / stages;
        chunks[i].at = free;
    }
    return begin;
}

static uint32_t fill(const struct pipeline_input *in)
{
    const uint32_t fresh = in->tokens - in->reused_tokens;
    const uint32_t count = pipeline_chunks(fresh, in->chunk_tokens);
    double before = 0;

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t begin = pipeline_begin(fresh, in->chunk_tokens, i);
        const uint32_t end = pipeline_begin(fresh, in->chunk_tokens, i + 1);
        const double all =
            conductor_cost_prefill(in->prefill, in->reused_tokens + end, in->reused_tokens);
        const double bytes = (end - begin) * in->activation_bytes;
        in->chunks[i].work = all - before;
        in->chunks[i].hop = conductor_cost_transfer(in->transfer, bytes);
        before = all;
    }
    return count;
}

static void try_stages(const struct pipeline_input *in, uint32_t count, uint32_t stages,
                       struct pipeline_choice *out)
{
    const double shares = (double)in->reused_tokens * in->token_bytes * (stages - 1) / stages;
    const double moved_ms = shares > 0 ? conductor_cost_transfer(in->transfer, shares) : 0;
    double done = 0;

    *out = (struct pipeline_choice){ .stages = stages, .waste_ms = -in->compute_ms };
    for (uint32_t i = 0; i < count; i++)
        in->chunks[i].at = 0;
    for (uint32_t j = 0; j < stages; j++) {
        const double free = j == 0 ? in->queue_ms : in->helpers[j - 1].queue_ms;
        const double ready = j == 0 ? free : fmax(free, in->queue_ms + moved_ms);
        (void)pipeline_stage(in->chunks, count, stages, ready, j == 0);
        done = in->chunks[count - 1].at;
        out->busy_ms[j] = done - free;
        out->waste_ms += done - free;
    }
    out->ttft_ms = done;
    if (out->waste_ms < 0) out->waste_ms = 0; /* rounding */
}

void pipeline_choose(const struct pipeline_input *in, struct pipeline_choice *out)
{
    ASSERT(in->reused_tokens < in->tokens && in->helpers_count < PIPELINE_STAGES_MAX);
    ASSERT(in->pressure >= 0);
    const double alone_ms = in->queue_ms + in->compute_ms;
    double least = alone_ms;

    *out = (struct pipeline_choice){ 1, alone_ms, { in->compute_ms }, 0 };
    if (in->helpers_count == 0) return;
    const uint32_t count = fill(in);
    for (uint32_t stages = 2; stages <= in->helpers_count + 1 && count > 1; stages++) {
        struct pipeline_choice choice;
        ASSERT(stages < 3 || in->helpers[stages - 3].queue_ms <= in->helpers[stages - 2].queue_ms);
        try_stages(in, count, stages, &choice);
        const double price = choice.ttft_ms + in->pressure * choice.waste_ms;
        if (price >= least) continue;
        least = price;
        *out = choice;
    }
}
