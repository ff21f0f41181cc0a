/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/proto_stage.h - what the stages of a chunked-pipeline group say to each other.
 *
 * A group computes one long prompt: stage j of X has layers [j L / X, (j + 1) L / X), and chunk
 * after chunk passes from stage to stage (conductor/pipeline.h). The gateway knows the first stage
 * only; each stage starts the next one, so that a cancel and a failure run along the chain, and
 * what the last stage says to the gateway runs back along it.
 *
 *   gateway ---- stage.run ----> stage 0 ---- stage.run ----> stage 1 ...    items as prefill.run
 *                                stage 0 ---- stage.rows ---> stage 1        once for each chunk
 *                                stage 0 ---- stage.sums ---> stage 1        once
 *   each stage -- decode.push --> d   a lease of its own; WRITEs of its layers
 *   last stage -- decode.kv_done -> d
 *
 * stage.rows carries the residual stream of a chunk behind the last layer of the sender: rows of
 * F32, little-endian. It is answered when the receiver has computed the chunk, so that the number
 * of unanswered calls (PROTO_STAGE_WINDOW) bounds what waits anywhere. stage.sums carries the
 * checksums of all layers before the receiver's; its sender says by it that its own WRITEs, and
 * those of all before it, are final. So d hears kv_done when all are, as from a single p.
 *
 * Blocks: only d has a block whole, so d alone publishes what a group has computed (it does with
 * what any p pushes); the stages' pages go back when the chain has ended. What is reused must be in
 * every stage: `reuse_blocks` of the first stage binds the others, which fetch from it.
 *
 * Encoding, memory and threads: as serve/proto.h. */
#ifndef SERVE_PROTO_STAGE_H
#define SERVE_PROTO_STAGE_H

#include "serve/proto.h"

enum {
    PROTO_STAGES_MAX = 8,
    PROTO_STAGE_WINDOW = 3, /* calls of stage.rows without an answer */
    PROTO_ROWS_SIZE_MAX = 48 << 20,
};

struct proto_stage_run {
    uint32_t stage;                                       /* of the receiver; < stages */
    uint32_t stages;                                      /* 2..PROTO_STAGES_MAX */
    char addresses[PROTO_STAGES_MAX][PROTO_ADDRESS_SIZE]; /* RPC, of each stage */
    uint32_t reuse_blocks; /* leading blocks that are not computed; of no meaning to stage 0 */
    const uint8_t *run;    /* a struct proto_prefill_run, encoded; the same for all */
    size_t run_len;
};

struct proto_stage_rows {
    uint64_t request_id;
    uint32_t attempt;
    uint32_t position; /* of the first row */
    uint64_t checksum; /* XXH3-64 of the rows */
    const uint8_t *rows;
    size_t size; /* of the rows together */
};

struct proto_stage_sums {
    uint64_t request_id;
    uint32_t attempt;
    uint32_t layers;        /* checksums are of layers [0, layers) */
    struct proto_u64s sums; /* by pushed block, then layer */
};

MUST_USE enum status proto_stage_run_encode(const struct proto_stage_run *msg, struct buf *out);
MUST_USE enum status proto_stage_run_decode(const void *data, size_t len,
                                            struct proto_stage_run *out);
MUST_USE enum status proto_stage_rows_encode(const struct proto_stage_rows *msg, struct buf *out);
MUST_USE enum status proto_stage_rows_decode(const void *data, size_t len,
                                             struct proto_stage_rows *out);
MUST_USE enum status proto_stage_sums_encode(const struct proto_stage_sums *msg, struct buf *out);
MUST_USE enum status proto_stage_sums_decode(const void *data, size_t len,
                                             struct proto_stage_sums *out);

#endif
