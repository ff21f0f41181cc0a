/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/engine_int.h - what engine.c (life, validation, the step) and forward.c (the arithmetic of
 * a layer) share. Nothing else includes it. */
#ifndef INFER_ENGINE_INT_H
#define INFER_ENGINE_INT_H

#include "infer/cpu/kernels.h"
#include "infer/cpu/pool.h"
#include "infer/engine.h"

enum {
    /* Rows that one task carries through a layer, so that their activations stay in its cache. */
    ROW_BLOCK = 32,
    /* Beyond it the intermediate rows no longer have a block for each thread: see forward.c. */
    ROW_MODE_THREADS_MAX = ENGINE_ROWS_MAX / ROW_BLOCK,
};

/* Vectors that the model does not have are NULL. Those of q and k are in the order of their
 * matrices' rows. */
struct layer_weights {
    struct matrix q, k, v, output, gate, up, down;
    const float *attn_norm, *ffn_norm;
    const float *q_bias, *k_bias, *v_bias;
    const float *q_norm, *k_norm;      /* of each head */
    const float *attn_post, *ffn_post; /* norms of what is added to the residual stream */
    bool local;                        /* sees a window */
};

/* One new token of the step. */
struct row {
    const struct engine_item *item;
    uint32_t position;
    uint32_t token;
};

/* Consecutive rows of one item within one ROW_BLOCK of the step: they share keys and values. */
struct segment {
    uint32_t row0;
    uint32_t rows;
};

/* Rows of floats, `stride` apart. */
struct rows {
    float *data;
    uint32_t stride;
};

/* What one attention task needs: ATTEND_QUERIES_MAX queries gathered, and their results. */
struct attend_buffers {
    float *q, *out, *scratch;
    uint32_t starts[ATTEND_QUERIES_MAX], ends[ATTEND_QUERIES_MAX];
};

struct engine {
    const struct model *model;
    const struct model_params *params;
    struct engine_layout layout;
    const struct kernels *kernels;
    struct pool *pool;
    uint8_t *slab;
    uint32_t pages_count;
    uint32_t context_max;

    struct layer_weights *layers;
    struct matrix output;
    const float *output_norm;
    uint8_t *weights; /* packed matrices */
    size_t weights_size;
    float *vectors;              /* all vectors of layer_weights, and output_norm */
    double *freqs, *freqs_local; /* of layers that see all, and of local ones */

    float *scratch; /* one allocation for all rows below */
    struct rows x;  /* residual stream */
    struct rows q;
    struct rows angles, angles_local;
    struct rows k, v, h, att, gate, up, y; /* intermediate: by slot, see forward.c */
    struct activations quants;             /* of h, att or gate; by slot */
    struct attend_buffers *attend;         /* one for each thread */

    /* The step at hand. */
    struct engine_part part;
    struct row rows[ENGINE_ROWS_MAX];
    uint32_t rows_count;
    struct segment segments[ENGINE_ROWS_MAX];
    uint32_t segments_count;
};

/* Takes in or embeds the step's rows, runs its part of the layers, hooks included, and hands out
 * the rows if layers follow. False if a hook refused. */
bool forward_layers(struct engine *engine, const struct engine_hooks *hooks);

/* Logits of the step's rows that want them. */
void forward_logits(struct engine *engine);

#endif
