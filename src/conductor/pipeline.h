/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/pipeline.h - a long prompt on several prefill instances at once: chunked-pipeline
 * groups, as the Mooncake papers name and do not measure them.
 *
 * The prompt is cut in chunks. Each of X instances, the stages, has an equal share of the layers,
 * and the KV of those layers; chunk c passes from stage to stage, so that different chunks of one
 * prompt are at different stages at the same time. A stage takes the chunks in order, because a
 * chunk reads the KV of those before it:
 *
 *     start(c, j) = max(end(c, j-1) + hop(c), end(c-1, j))        end(-1, j) = ready(j)
 *     end(c, j)   = start(c, j) + work(c) / X
 *
 * hop is the time that the activations of a chunk take to the next stage. With X = 1 it is plain
 * chunked prefill, and takes the sum of all work.
 *
 * Whether a group is formed is decided by price: the predicted time to the first token, plus the
 * time that stages would stand still or wait, times the pressure: how many requests are queued at
 * an instance on the mean. On idle instances wasted time is free; where requests queue, each of
 * them would wait for it. Nobody who is queued is overtaken, and only a prompt that would start at
 * once leads a group: behind a queue, which empties later or sooner than predicted, the others
 * stand still and wait for the leader (measured: at high load that costs more than groups gain).
 *
 * Memory: the caller's. Threads: any. Cost: O(stages^2 * chunks). */
#ifndef CONDUCTOR_PIPELINE_H
#define CONDUCTOR_PIPELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "conductor/cost.h"

enum { PIPELINE_STAGES_MAX = 8, PIPELINE_CHUNKS_MAX = 1024 };

/* In any one unit of time. */
struct pipeline_chunk {
    double work; /* of all layers */
    double hop;  /* to the next stage */
    double at;   /* when the stage looked at last is done with it; before the first: when it may
                  * start there */
};

/* Chunks of `tokens` tokens: of chunk_tokens each, or of more where they would be too many. 0 for
 * no tokens. */
uint32_t pipeline_chunks(uint32_t tokens, uint32_t chunk_tokens);
/* Where chunk `index` begins, 0..tokens, in tokens; index == count is the end. */
uint32_t pipeline_begin(uint32_t tokens, uint32_t chunk_tokens, uint32_t index);

/* Moves all chunks through one stage that is free from `ready` on; `first` stages have no hop
 * before them. Returns when the stage starts its first chunk. */
double pipeline_stage(struct pipeline_chunk *chunks, uint32_t count, uint32_t stages, double ready,
                      bool first);

/* ---- the choice ---- */

struct pipeline_helper {
    uint32_t position; /* the caller's */
    double queue_ms;
};

struct pipeline_input {
    const struct conductor_fit *prefill;  /* of the leader; taken for all */
    const struct conductor_fit *transfer; /* between instances */
    uint32_t tokens, reused_tokens;       /* of the prompt; reused < tokens */
    uint32_t chunk_tokens;
    double token_bytes;      /* of KV */
    double activation_bytes; /* of a token, between stages */
    double queue_ms;         /* of the leader, until it starts: queue and transfer */
    double compute_ms;       /* of the leader alone */
    double pressure;
    const struct pipeline_helper *helpers; /* by queue_ms, rising */
    uint32_t helpers_count;                /* at most PIPELINE_STAGES_MAX - 1 */
    struct pipeline_chunk *chunks;         /* scratch: PIPELINE_CHUNKS_MAX */
};

struct pipeline_choice {
    uint32_t stages;                     /* 1: no group. The leader, then helpers[0..stages - 1) */
    double ttft_ms;                      /* until the last stage is done */
    double busy_ms[PIPELINE_STAGES_MAX]; /* from when a stage is free until it is done */
    double waste_ms;                     /* of all stages together, against the leader alone */
};

void pipeline_choose(const struct pipeline_input *input, struct pipeline_choice *out);

#endif
