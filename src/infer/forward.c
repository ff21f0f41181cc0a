/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/forward.c - one step through the layers.
 *
 * A layer has two halves, cut where the KV of the step's own tokens is complete:
 *     A  norm, Q K V, RoPE, store K and V in the pages
 *     B  attention, output, residual; norm, gate and up, SiLU or GELU, down, residual
 * with biases and norms in between where the model has them (model/model.h).
 *
 * Two ways to spread them over threads give the same bits, because every kernel call computes its
 * outputs alone (see cpu/kernels.h):
 *   rows     Prefill. A task takes ROW_BLOCK rows through B of a layer and A of the next, all in
 *            its cache: one loop of the pool for each layer.
 *   columns  Decode and short chunks. All rows together; each product is cut by its outputs, so
 *            that every weight is read once: about six loops of the pool for each layer.
 *
 * Intermediate rows are addressed by slot. By columns, slot = row. By rows, a thread has slots
 * thread * ROW_BLOCK.. to itself and uses the same memory for each of its tasks. The residual
 * stream x, q and the angles live from one half to the next and are always addressed by row. */
#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "infer/engine_int.h"
#include "infer/rope.h"

/* Rows [row0, row0 + rows) of the step, whose intermediate rows start at `slot`. */
struct part {
    struct engine *engine;
    uint32_t row0;
    uint32_t rows;
    uint32_t slot;
};

static float *row_at(const struct rows *rows, uint32_t index)
{
    return rows->data + (size_t)index * rows->stride;
}

/* ---- inputs of products ---- */

/* The engine's activation buffers as the input rows in `x`, of which `width` elements are used. */
static struct activations input_view(const struct engine *engine, const struct rows *x)
{
    struct activations a = engine->quants;

    a.x = x->data;
    a.stride = x->stride;
    return a;
}

/* Quantizes the row in `slot` of `x` if the matrix that follows wants it. */
static void prepare_input(const struct engine *engine, const struct matrix *w, const struct rows *x,
                          uint32_t slot)
{
    const struct activations a = input_view(engine, x);
    const size_t block = (size_t)slot * a.blocks;

    if (!matrix_is_quantized(w)) return;
    engine->kernels->quantize(row_at(x, slot), w->cols, a.q + block * QUANT_BLOCK, a.d + block,
                              a.ds + block, a.sum + block);
}

/* ---- products ---- */

/* out[i] = tiles [first, last) of w times input row slot + i, for each i < rows. */
static void multiply(const struct engine *engine, const struct matrix *w,
                     const struct activations *a, uint32_t slot, uint32_t rows, float *const *out,
                     uint32_t first, uint32_t last)
{
    float *at[ROW_BLOCK];
    float edge[ROW_BLOCK][MATRIX_TILE];

    ASSERT(last <= w->tiles);
    for (uint32_t t = first; t < last; t++) {
        const uint32_t column = t * MATRIX_TILE;
        const bool whole = column + MATRIX_TILE <= w->rows;
        for (uint32_t done = 0; done < rows; done += ROW_BLOCK) {
            const uint32_t count = rows - done < ROW_BLOCK ? rows - done : ROW_BLOCK;
            for (uint32_t i = 0; i < count; i++)
                at[i] = whole ? out[done + i] + column : edge[i];
            engine->kernels->matmul(w, t, a, slot + done, count, at);
            for (uint32_t i = 0; !whole && i < count; i++) {
                memcpy(out[done + i] + column, edge[i], (w->rows - column) * sizeof(float));
            }
        }
    }
}

/* One of the products that share an input; `out` is addressed from row `out0`. */
struct product {
    const struct matrix *w;
    const struct rows *out;
    uint32_t out0;
};

/* Tiles [first, last) of the products, numbered one after the other. */
static void multiply_range(const struct part *part, const struct rows *input,
                           const struct product *products, uint32_t count, uint32_t first,
                           uint32_t last)
{
    const struct activations a = input_view(part->engine, input);
    float *out[ENGINE_ROWS_MAX];

    for (uint32_t i = 0; i < count; i++) {
        const struct product *product = &products[i];
        const uint32_t tiles = product->w->tiles;
        if (first < tiles && last > 0) {
            for (uint32_t r = 0; r < part->rows; r++) {
                out[r] = row_at(product->out, product->out0 + r);
            }
            multiply(part->engine, product->w, &a, part->slot, part->rows, out, first,
                     last < tiles ? last : tiles);
        }
        first = first > tiles ? first - tiles : 0;
        last = last > tiles ? last - tiles : 0;
        if (last == 0) break;
    }
}

/* ---- stages: each takes rows of a part from one buffer to the next ---- */

static void embed_row(const struct engine *engine, uint32_t token, float *x)
{
    const struct model_params *params = engine->params;

    matrix_unpack_row(model_token_embd(engine->model), token, x);
    for (uint32_t j = 0; params->embedding_scale != 1 && j < params->d_model; j++)
        x[j] *= params->embedding_scale;
}

/* What a row of the step is before its first layer, and the angles of its position. */
static void begin_row(const struct part *part, uint32_t i)
{
    struct engine *engine = part->engine;
    const struct model_params *params = engine->params;
    const struct row *row = &engine->rows[part->row0 + i];
    float *x = row_at(&engine->x, part->row0 + i);

    if (engine->part.first == 0) {
        embed_row(engine, row->token, x);
    } else {
        const size_t size = params->d_model;
        memcpy(x, engine->part.in + (part->row0 + i) * size, size * sizeof(float));
    }
    rope_angles(engine->freqs, params->rope_dims, row->position,
                row_at(&engine->angles, part->row0 + i));
    if (params->window == 0) return;
    rope_angles(engine->freqs_local, params->rope_dims, row->position,
                row_at(&engine->angles_local, part->row0 + i));
}

static void norm_row(const struct part *part, uint32_t i, const float *norm, const struct matrix *w)
{
    const struct engine *engine = part->engine;

    engine->kernels->rmsnorm(row_at(&engine->x, part->row0 + i), norm, engine->params->d_model,
                             engine->params->rms_eps, row_at(&engine->h, part->slot + i));
    prepare_input(engine, w, &engine->h, part->slot + i);
}

static uint8_t *kv_slot(const struct engine *engine, const struct row *row, uint32_t layer,
                        uint32_t head, bool value)
{
    const struct engine_layout *layout = &engine->layout;
    const uint32_t page = row->item->pages[row->position / layout->block_tokens];
    const size_t head_index = (value ? layout->kv_heads : 0) + (size_t)head;
    const size_t token = row->position % layout->block_tokens;

    ASSERT(page < engine->pages_count);
    return engine->slab + page * layout->page_size + layer * layout->layer_size +
           (head_index * layout->block_tokens + token) * layout->token_size;
}

/* Bias, norm of each head, rotation: from a product to what attention compares. */
static void finish_heads(const struct engine *engine, float *x, uint32_t heads, const float *bias,
                         const float *norm, const float *cs)
{
    const struct model_params *params = engine->params;
    const uint32_t dim = params->head_dim;

    if (bias != NULL) engine->kernels->add(x, bias, heads * dim);
    for (uint32_t head = 0; head < heads; head++, x += dim) {
        if (norm != NULL) engine->kernels->rmsnorm(x, norm, dim, params->rms_eps, x);
        engine->kernels->rope(x, cs, params->rope_dims);
    }
}

static void store_row(const struct part *part, uint32_t i, uint32_t layer)
{
    const struct engine *engine = part->engine;
    const struct kernels *kernels = engine->kernels;
    const struct model_params *params = engine->params;
    const struct layer_weights *w = &engine->layers[layer];
    const struct row *row = &engine->rows[part->row0 + i];
    const float *cs = row_at(w->local ? &engine->angles_local : &engine->angles, part->row0 + i);
    const uint32_t dim = params->head_dim;
    float *q = row_at(&engine->q, part->row0 + i);
    float *k = row_at(&engine->k, part->slot + i);
    float *v = row_at(&engine->v, part->slot + i);

    finish_heads(engine, q, params->n_heads, w->q_bias, w->q_norm, cs);
    for (uint32_t j = 0; j < params->n_heads * dim; j++)
        q[j] *= params->attention_scale;
    finish_heads(engine, k, params->n_kv_heads, w->k_bias, w->k_norm, cs);
    if (w->v_bias != NULL) kernels->add(v, w->v_bias, params->n_kv_heads * dim);
    for (uint32_t head = 0; head < params->n_kv_heads; head++) {
        attend_pack_kv(kernels, engine->layout.kv, k + (size_t)head * dim, dim,
                       kv_slot(engine, row, layer, head, false));
        attend_pack_kv(kernels, engine->layout.kv, v + (size_t)head * dim, dim,
                       kv_slot(engine, row, layer, head, true));
    }
}

/* Queries [first, first + count) of a segment, numbered row by row, then head by head within the
 * group of the kv head. */
static void attend_queries(const struct part *part, const struct segment *segment, uint32_t layer,
                           uint32_t kv_head, uint32_t first, uint32_t count, uint32_t thread)
{
    struct engine *engine = part->engine;
    const struct engine_layout *layout = &engine->layout;
    struct attend_buffers *buffers = &engine->attend[thread];
    const uint32_t group = engine->params->n_heads / engine->params->n_kv_heads;
    const size_t dim = layout->head_dim;
    const struct engine_item *item = engine->rows[segment->row0].item;
    const size_t head_size = (size_t)layout->block_tokens * layout->token_size;
    const size_t offset = layer * layout->layer_size + kv_head * head_size;
    const uint32_t window = engine->layers[layer].local ? engine->params->window : UINT32_MAX;
    const struct attend job = {
        .q = buffers->q,
        .starts = buffers->starts,
        .ends = buffers->ends,
        .queries = count,
        .head_dim = layout->head_dim,
        .kv = layout->kv,
        .token_size = layout->token_size,
        .slab = engine->slab,
        .page_size = layout->page_size,
        .k_offset = offset,
        .v_offset = offset + layout->kv_heads * head_size,
        .pages = item->pages,
        .block_tokens = layout->block_tokens,
        .scratch = buffers->scratch,
        .out = buffers->out,
    };

    ASSERT(count <= ATTEND_QUERIES_MAX);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t row = segment->row0 + (first + i) / group;
        const size_t column = (kv_head * group + (first + i) % group) * dim;
        memcpy(buffers->q + i * dim, row_at(&engine->q, row) + column, dim * sizeof(float));
        const uint32_t end = engine->rows[row].position + 1;
        buffers->starts[i] = end > window ? end - window : 0;
        buffers->ends[i] = end;
    }
    engine->kernels->attend(&job);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t slot = part->slot + segment->row0 - part->row0 + (first + i) / group;
        const size_t column = (kv_head * group + (first + i) % group) * dim;
        memcpy(row_at(&engine->att, slot) + column, buffers->out + i * dim, dim * sizeof(float));
    }
}

static void attend_segment(const struct part *part, const struct segment *segment, uint32_t layer,
                           uint32_t kv_head, uint32_t thread)
{
    const struct model_params *params = part->engine->params;
    const uint32_t queries = segment->rows * (params->n_heads / params->n_kv_heads);

    for (uint32_t first = 0; first < queries; first += ATTEND_QUERIES_MAX) {
        const uint32_t left = queries - first;
        attend_queries(part, segment, layer, kv_head, first,
                       left < ATTEND_QUERIES_MAX ? left : ATTEND_QUERIES_MAX, thread);
    }
}

/* Adds what a half of the layer has computed to the residual stream; `norm` may be NULL. */
static void add_row(const struct part *part, uint32_t i, const float *norm)
{
    const struct engine *engine = part->engine;
    const uint32_t width = engine->params->d_model;
    float *y = row_at(&engine->y, part->slot + i);

    if (norm != NULL) engine->kernels->rmsnorm(y, norm, width, engine->params->rms_eps, y);
    engine->kernels->add(row_at(&engine->x, part->row0 + i), y, width);
}

static void activate_row(const struct part *part, uint32_t i, const struct matrix *down)
{
    const struct engine *engine = part->engine;
    const struct kernels *kernels = engine->kernels;
    void (*const mul)(float *, const float *, uint32_t) =
        engine->params->gelu ? kernels->gelu_mul : kernels->silu_mul;

    mul(row_at(&engine->gate, part->slot + i), row_at(&engine->up, part->slot + i),
        engine->params->d_ff);
    prepare_input(engine, down, &engine->gate, part->slot + i);
}

/* The products of each stage, for a part. */
static void qkv_products(const struct part *part, uint32_t layer, struct product out[3])
{
    const struct layer_weights *w = &part->engine->layers[layer];

    out[0] = (struct product){ &w->q, &part->engine->q, part->row0 };
    out[1] = (struct product){ &w->k, &part->engine->k, part->slot };
    out[2] = (struct product){ &w->v, &part->engine->v, part->slot };
}

static void ffn_products(const struct part *part, uint32_t layer, struct product out[2])
{
    const struct layer_weights *w = &part->engine->layers[layer];

    out[0] = (struct product){ &w->gate, &part->engine->gate, part->slot };
    out[1] = (struct product){ &w->up, &part->engine->up, part->slot };
}

/* ---- by rows ---- */

static void rows_first_half(const struct part *part, uint32_t layer)
{
    struct engine *engine = part->engine;
    const struct layer_weights *w = &engine->layers[layer];
    struct product products[3];

    for (uint32_t i = 0; i < part->rows; i++)
        norm_row(part, i, w->attn_norm, &w->q);
    qkv_products(part, layer, products);
    multiply_range(part, &engine->h, products, 3, 0, w->q.tiles + w->k.tiles + w->v.tiles);
    for (uint32_t i = 0; i < part->rows; i++)
        store_row(part, i, layer);
}

static void rows_attention(const struct part *part, uint32_t layer, uint32_t thread)
{
    struct engine *engine = part->engine;

    for (uint32_t s = 0; s < engine->segments_count; s++) {
        const struct segment *segment = &engine->segments[s];
        if (segment->row0 < part->row0 || segment->row0 >= part->row0 + part->rows) continue;
        for (uint32_t head = 0; head < engine->params->n_kv_heads; head++) {
            attend_segment(part, segment, layer, head, thread);
        }
    }
}

static void rows_second_half(const struct part *part, uint32_t layer, uint32_t thread)
{
    struct engine *engine = part->engine;
    const struct layer_weights *w = &engine->layers[layer];
    const struct product output = { &w->output, &engine->y, part->slot };
    const struct product down = { &w->down, &engine->y, part->slot };
    struct product products[2];

    rows_attention(part, layer, thread);
    for (uint32_t i = 0; i < part->rows; i++) {
        prepare_input(engine, &w->output, &engine->att, part->slot + i);
    }
    multiply_range(part, &engine->att, &output, 1, 0, w->output.tiles);
    for (uint32_t i = 0; i < part->rows; i++) {
        add_row(part, i, w->attn_post);
        norm_row(part, i, w->ffn_norm, &w->gate);
    }
    ffn_products(part, layer, products);
    multiply_range(part, &engine->h, products, 2, 0, w->gate.tiles + w->up.tiles);
    for (uint32_t i = 0; i < part->rows; i++)
        activate_row(part, i, &w->down);
    multiply_range(part, &engine->gate, &down, 1, 0, w->down.tiles);
    for (uint32_t i = 0; i < part->rows; i++)
        add_row(part, i, w->ffn_post);
}

/* What tasks of one loop do: B of layer - 1 (or the beginning), then A of layer (unless past the
 * last one). */
struct rows_loop {
    struct engine *engine;
    uint32_t layer;
    uint32_t blocks;
};

static void rows_task(void *ctx, uint32_t task, uint32_t thread)
{
    const struct rows_loop *loop = ctx;
    struct engine *engine = loop->engine;
    /* The last rows first: they attend to most, and long tasks should not start last. */
    const uint32_t row0 = (loop->blocks - 1 - task) * ROW_BLOCK;
    const uint32_t left = engine->rows_count - row0;
    const struct part part = { .engine = engine,
                               .row0 = row0,
                               .rows = left < ROW_BLOCK ? left : ROW_BLOCK,
                               .slot = thread * ROW_BLOCK };

    if (loop->layer > engine->part.first) {
        rows_second_half(&part, loop->layer - 1, thread);
    } else {
        for (uint32_t i = 0; i < part.rows; i++)
            begin_row(&part, i);
    }
    if (loop->layer < engine->part.last) rows_first_half(&part, loop->layer);
}

static void rows_step(struct engine *engine, uint32_t layer)
{
    struct rows_loop loop = {
        .engine = engine,
        .layer = layer,
        .blocks = (engine->rows_count + ROW_BLOCK - 1) / ROW_BLOCK,
    };
    pool_run(engine->pool, rows_task, &loop, loop.blocks);
}

/* ---- by columns ---- */

struct columns_loop {
    struct part part;
    uint32_t layer;
    uint32_t tasks;
    const struct rows *input;
    const struct product *products;
    uint32_t products_count;
    uint32_t tiles;
};

static void columns_multiply_task(void *ctx, uint32_t task, uint32_t thread)
{
    const struct columns_loop *loop = ctx;
    const uint32_t first = (uint32_t)((uint64_t)loop->tiles * task / loop->tasks);
    const uint32_t last = (uint32_t)((uint64_t)loop->tiles * (task + 1) / loop->tasks);

    (void)thread;
    multiply_range(&loop->part, loop->input, loop->products, loop->products_count, first, last);
}

/* A few tasks for each thread: so many that a slow thread does not hold up the others, so few that
 * each streams weights for microseconds. */
static void columns_multiply(const struct part *part, const struct rows *input,
                             const struct product *products, uint32_t count)
{
    struct columns_loop loop = {
        .part = *part, .input = input, .products = products, .products_count = count
    };
    const uint32_t share = 6 * pool_threads(part->engine->pool);

    for (uint32_t i = 0; i < count; i++)
        loop.tiles += products[i].w->tiles;
    loop.tasks = loop.tiles < share ? loop.tiles : share;
    pool_run(part->engine->pool, columns_multiply_task, &loop, loop.tasks);
}

static void columns_attend_task(void *ctx, uint32_t task, uint32_t thread)
{
    const struct columns_loop *loop = ctx;
    const struct engine *engine = loop->part.engine;
    const uint32_t heads = engine->params->n_kv_heads;

    attend_segment(&loop->part, &engine->segments[task / heads], loop->layer, task % heads, thread);
}

static void columns_first_half(const struct part *part, uint32_t layer)
{
    struct engine *engine = part->engine;
    const struct layer_weights *w = &engine->layers[layer];
    struct product products[3];

    for (uint32_t i = 0; i < part->rows; i++)
        norm_row(part, i, w->attn_norm, &w->q);
    qkv_products(part, layer, products);
    columns_multiply(part, &engine->h, products, 3);
    for (uint32_t i = 0; i < part->rows; i++)
        store_row(part, i, layer);
}

static void columns_second_half(const struct part *part, uint32_t layer)
{
    struct engine *engine = part->engine;
    const struct layer_weights *w = &engine->layers[layer];
    const struct product output = { &w->output, &engine->y, part->slot };
    const struct product down = { &w->down, &engine->y, part->slot };
    struct columns_loop attend = { .part = *part, .layer = layer };
    struct product products[2];

    pool_run(engine->pool, columns_attend_task, &attend,
             engine->segments_count * engine->params->n_kv_heads);
    for (uint32_t i = 0; i < part->rows; i++) {
        prepare_input(engine, &w->output, &engine->att, part->slot + i);
    }
    columns_multiply(part, &engine->att, &output, 1);
    for (uint32_t i = 0; i < part->rows; i++) {
        add_row(part, i, w->attn_post);
        norm_row(part, i, w->ffn_norm, &w->gate);
    }
    ffn_products(part, layer, products);
    columns_multiply(part, &engine->h, products, 2);
    for (uint32_t i = 0; i < part->rows; i++)
        activate_row(part, i, &w->down);
    columns_multiply(part, &engine->gate, &down, 1);
    for (uint32_t i = 0; i < part->rows; i++)
        add_row(part, i, w->ffn_post);
}

static void columns_step(struct engine *engine, uint32_t layer)
{
    const struct part part = { .engine = engine, .rows = engine->rows_count };

    if (layer > engine->part.first) {
        columns_second_half(&part, layer - 1);
    } else {
        for (uint32_t i = 0; i < part.rows; i++)
            begin_row(&part, i);
    }
    if (layer < engine->part.last) columns_first_half(&part, layer);
}

/* ---- the step ---- */

static bool by_rows(const struct engine *engine)
{
    const uint32_t threads = pool_threads(engine->pool);
    const uint32_t blocks = (engine->rows_count + ROW_BLOCK - 1) / ROW_BLOCK;

    if (threads > ROW_MODE_THREADS_MAX) return false;
    return threads == 1 ? blocks > 1 : blocks >= 2 * threads;
}

static void hand_out(const struct engine *engine)
{
    const size_t size = engine->params->d_model;

    for (uint32_t r = 0; r < engine->rows_count; r++)
        memcpy(engine->part.out + r * size, row_at(&engine->x, r), size * sizeof(float));
}

bool forward_layers(struct engine *engine, const struct engine_hooks *hooks)
{
    void (*const step)(struct engine *, uint32_t) = by_rows(engine) ? rows_step : columns_step;
    const struct engine_part *own = &engine->part;

    for (uint32_t layer = own->first; layer <= own->last; layer++) {
        const bool hooked = hooks != NULL && layer < own->last;
        if (hooked && hooks->before_layer != NULL && !hooks->before_layer(hooks->ctx, layer)) {
            return false;
        }
        step(engine, layer);
        if (hooked && hooks->after_layer != NULL) hooks->after_layer(hooks->ctx, layer);
    }
    if (own->last < engine->params->n_layers) hand_out(engine);
    return true;
}

/* Rows of an item that want logits are its last one, or all. */
static float *logits_of(const struct row *row)
{
    const struct engine_item *item = row->item;
    const uint32_t index = row->position - item->position;
    const uint32_t last = item->tokens_count - 1;

    if (item->logits == NULL || (!item->logits_all && index != last)) return NULL;
    return item->logits;
}

struct logits_loop {
    struct part part;
    uint32_t tasks;
    float *out[ENGINE_ROWS_MAX];
};

static void logits_task(void *ctx, uint32_t task, uint32_t thread)
{
    const struct logits_loop *loop = ctx;
    const struct engine *engine = loop->part.engine;
    const struct matrix *w = &engine->output;
    const struct activations a = input_view(engine, &engine->h);
    const uint32_t first = (uint32_t)((uint64_t)w->tiles * task / loop->tasks);
    const uint32_t last = (uint32_t)((uint64_t)w->tiles * (task + 1) / loop->tasks);

    (void)thread;
    multiply(engine, w, &a, 0, loop->part.rows, loop->out, first, last);
}

void forward_logits(struct engine *engine)
{
    struct logits_loop loop = { .part = { .engine = engine } };
    const size_t vocab = engine->params->vocab;

    for (uint32_t r = 0; r < engine->rows_count; r++) {
        const struct row *row = &engine->rows[r];
        float *logits = logits_of(row);
        if (logits == NULL) continue;
        const size_t index = row->item->logits_all ? row->position - row->item->position : 0;
        const struct part one = { .engine = engine, .row0 = r, .rows = 1, .slot = loop.part.rows };
        norm_row(&one, 0, engine->output_norm, &engine->output);
        loop.out[loop.part.rows++] = logits + index * vocab;
    }
    if (loop.part.rows == 0) return;
    loop.tasks = 16 * pool_threads(engine->pool);
    if (loop.tasks > engine->output.tiles) loop.tasks = engine->output.tiles;
    pool_run(engine->pool, logits_task, &loop, loop.tasks);
}
