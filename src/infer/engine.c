/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/engine.c - creation, validation and the step; the arithmetic is in forward.c.
 *
 * Weight matrices are copied once, into the order in which the kernels read them (cpu/kernels.h):
 * that costs their size in private memory and some tens of milliseconds per 100 MB, and makes both
 * prefill and decode run on one layout with no sum across lanes. The mapped file is then read only
 * for embeddings. */
#include "infer/engine.h"

#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/huge.h"
#include "infer/engine_int.h"
#include "infer/rope.h"

static_assert(ENGINE_THREADS_MAX <= (int)POOL_THREADS_MAX, "the pool must take our threads");
static_assert(ENGINE_BLOCK_TOKENS_MIN % 16 == 0, "sixteen tokens must not straddle a page");

/* ---- ISA ---- */

static const char *const isa_names[] = { "auto", "portable", "avx2", "avx512" };
enum { ISA_COUNT = sizeof(isa_names) / sizeof(isa_names[0]) };

const char *engine_isa_name(enum engine_isa isa)
{
    return (unsigned)isa < ISA_COUNT ? isa_names[isa] : "unknown";
}

enum status engine_isa_parse(const char *text, enum engine_isa *out)
{
    for (int i = 0; i < ISA_COUNT; i++) {
        if (strcmp(text, isa_names[i]) != 0) continue;
        *out = (enum engine_isa)i;
        return STATUS_OK;
    }
    return STATUS_INVALID;
}

bool engine_isa_supported(enum engine_isa isa)
{
    return kernels_select(isa) != NULL;
}

/* ---- layout ---- */

const char *engine_kv_name(enum engine_kv kv)
{
    return kv == ENGINE_KV_Q8_0 ? "q8_0" : "f16";
}

enum status engine_layout_query(const struct model *model, const struct engine_options *options,
                                struct engine_layout *out, struct errmsg *err)
{
    const struct model_params *params = model_params(model);
    const struct kernels *kernels = kernels_select(options->isa);
    const uint32_t block_tokens =
        options->block_tokens != 0 ? options->block_tokens : ENGINE_BLOCK_TOKENS_DEFAULT;

    if (block_tokens < ENGINE_BLOCK_TOKENS_MIN || block_tokens > ENGINE_BLOCK_TOKENS_MAX ||
        (block_tokens & (block_tokens - 1)) != 0) {
        return errmsg_set(err, STATUS_INVALID,
                          "block of %u tokens: must be a power of two in %d..%d", block_tokens,
                          ENGINE_BLOCK_TOKENS_MIN, ENGINE_BLOCK_TOKENS_MAX);
    }
    if (kernels == NULL) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "this CPU does not have %s",
                          engine_isa_name(options->isa));
    }
    if (options->kv == ENGINE_KV_Q8_0 && params->head_dim % QUANT_BLOCK != 0) {
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "KV of type q8_0: head dimension %u is not a multiple of %d",
                          params->head_dim, QUANT_BLOCK);
    }
    struct engine_layout layout = {
        .block_tokens = block_tokens,
        .n_layers = params->n_layers,
        .kv_heads = params->n_kv_heads,
        .head_dim = params->head_dim,
        .kv = options->kv,
        .token_size = (uint32_t)attend_token_size(options->kv, params->head_dim),
        .isa = kernels->isa,
        .isa_name = engine_isa_name(kernels->isa),
    };
    layout.layer_size = (uint64_t)2 * layout.kv_heads * block_tokens * layout.token_size;
    layout.page_size = (layout.n_layers * layout.layer_size + ENGINE_PAGE_ALIGN - 1) /
                       ENGINE_PAGE_ALIGN * ENGINE_PAGE_ALIGN;
    (void)snprintf(layout.id, sizeof(layout.id), "lm-%s-l%u-h%u-d%u-t%u", engine_kv_name(layout.kv),
                   layout.n_layers, layout.kv_heads, layout.head_dim, block_tokens);
    *out = layout;
    return STATUS_OK;
}

/* ---- weights ---- */

/* A matrix, the tensor it comes from, and its name in messages. */
struct weight {
    struct matrix *matrix;
    const struct model_tensor *tensor;
    const char *name;
};

enum { LAYER_MATRICES = 7 };

static void layer_matrices(struct engine *engine, uint32_t layer, struct weight out[LAYER_MATRICES])
{
    const struct model_layer *from = model_layer(engine->model, layer);
    struct layer_weights *to = &engine->layers[layer];

    out[0] = (struct weight){ &to->q, &from->attn_q, "attn_q" };
    out[1] = (struct weight){ &to->k, &from->attn_k, "attn_k" };
    out[2] = (struct weight){ &to->v, &from->attn_v, "attn_v" };
    out[3] = (struct weight){ &to->output, &from->attn_output, "attn_output" };
    out[4] = (struct weight){ &to->gate, &from->ffn_gate, "ffn_gate" };
    out[5] = (struct weight){ &to->up, &from->ffn_up, "ffn_up" };
    out[6] = (struct weight){ &to->down, &from->ffn_down, "ffn_down" };
}

static enum status init_matrix(const struct weight *weight, bool exact, size_t *size,
                               struct errmsg *err)
{
    if (matrix_init(weight->matrix, weight->tensor, exact) != STATUS_OK) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "%s: type %s with rows of %u is not supported",
                          weight->name, model_type_name(weight->tensor->type),
                          weight->tensor->ne[0]);
    }
    *size += weight->matrix->tiles * weight->matrix->tile_size;
    return STATUS_OK;
}

/* The kernels rotate neighbours. */
static void pair_rows(const struct engine *engine, struct matrix *matrix)
{
    matrix->head_dim = engine->params->head_dim;
    matrix->halves = engine->params->rope_dims;
}

static enum status init_matrices(struct engine *engine, bool exact, struct errmsg *err)
{
    struct weight output = { &engine->output, model_output(engine->model), "output" };
    enum status status = init_matrix(&output, exact, &engine->weights_size, err);

    for (uint32_t layer = 0; layer < engine->params->n_layers && status == STATUS_OK; layer++) {
        struct weight weights[LAYER_MATRICES];
        layer_matrices(engine, layer, weights);
        for (int i = 0; i < LAYER_MATRICES && status == STATUS_OK; i++) {
            status = init_matrix(&weights[i], exact, &engine->weights_size, err);
        }
        if (engine->params->rope_halves) {
            pair_rows(engine, &engine->layers[layer].q);
            pair_rows(engine, &engine->layers[layer].k);
        }
    }
    return status;
}

struct pack_loop {
    const struct weight *weight;
    uint32_t tasks;
};

static void pack_task(void *ctx, uint32_t task, uint32_t thread)
{
    const struct pack_loop *loop = ctx;
    const struct matrix *matrix = loop->weight->matrix;

    (void)thread;
    matrix_pack(matrix, loop->weight->tensor,
                (uint32_t)((uint64_t)matrix->tiles * task / loop->tasks),
                (uint32_t)((uint64_t)matrix->tiles * (task + 1) / loop->tasks));
}

static void pack_matrix(struct engine *engine, const struct weight *weight, uint8_t **at)
{
    struct pack_loop loop = { weight, 4 * pool_threads(engine->pool) };

    weight->matrix->data = *at;
    *at += weight->matrix->tiles * weight->matrix->tile_size;
    ASSERT(*at <= engine->weights + engine->weights_size);
    pool_run(engine->pool, pack_task, &loop, loop.tasks);
}

static enum status pack_matrices(struct engine *engine)
{
    const struct weight output = { &engine->output, model_output(engine->model), "output" };

    engine->weights = huge_alloc(HUGE_PAGE, engine->weights_size);
    if (engine->weights == NULL) return STATUS_NO_MEMORY;
    uint8_t *at = engine->weights;
    for (uint32_t layer = 0; layer < engine->params->n_layers; layer++) {
        struct weight weights[LAYER_MATRICES];
        layer_matrices(engine, layer, weights);
        for (int i = 0; i < LAYER_MATRICES; i++)
            pack_matrix(engine, &weights[i], &at);
    }
    pack_matrix(engine, &output, &at);
    return STATUS_OK;
}

/* A vector, where it comes from, and, if its elements go with rows of a matrix, which. */
struct vector {
    const float **vector;
    const struct model_tensor *tensor;
    const struct matrix *matrix;
};

enum { LAYER_VECTORS = 9 };

static void layer_vectors(struct engine *engine, uint32_t layer, struct vector out[LAYER_VECTORS])
{
    const struct model_layer *from = model_layer(engine->model, layer);
    struct layer_weights *to = &engine->layers[layer];

    out[0] = (struct vector){ &to->attn_norm, &from->attn_norm, NULL };
    out[1] = (struct vector){ &to->ffn_norm, &from->ffn_norm, NULL };
    out[2] = (struct vector){ &to->q_bias, &from->attn_q_bias, &to->q };
    out[3] = (struct vector){ &to->k_bias, &from->attn_k_bias, &to->k };
    out[4] = (struct vector){ &to->v_bias, &from->attn_v_bias, NULL };
    out[5] = (struct vector){ &to->q_norm, &from->attn_q_norm, &to->q };
    out[6] = (struct vector){ &to->k_norm, &from->attn_k_norm, &to->k };
    out[7] = (struct vector){ &to->attn_post, &from->attn_post_norm, NULL };
    out[8] = (struct vector){ &to->ffn_post, &from->ffn_post_norm, NULL };
}

static void load_vector(const struct vector *vector, float *to)
{
    const float *from = vector->tensor->data;

    if (vector->matrix == NULL) {
        memcpy(to, from, vector->tensor->row_size);
    } else {
        for (uint32_t i = 0; i < vector->tensor->ne[0]; i++)
            to[i] = from[matrix_source_row(vector->matrix, i)];
    }
    *vector->vector = to;
}

static enum status load_vectors(struct engine *engine)
{
    const struct vector output = { &engine->output_norm, model_output_norm(engine->model), NULL };
    const uint32_t n_layers = engine->params->n_layers;
    struct vector vectors[LAYER_VECTORS];
    size_t count = output.tensor->ne[0], at = 0;

    for (uint32_t layer = 0; layer < n_layers; layer++) {
        layer_vectors(engine, layer, vectors);
        for (int i = 0; i < LAYER_VECTORS; i++)
            count += vectors[i].tensor->ne[0]; /* 0 if it is not there */
    }
    engine->vectors = calloc(count, sizeof(float));
    if (engine->vectors == NULL) return STATUS_NO_MEMORY;
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        layer_vectors(engine, layer, vectors);
        for (int i = 0; i < LAYER_VECTORS; i++) {
            if (vectors[i].tensor->data == NULL) continue;
            load_vector(&vectors[i], engine->vectors + at);
            at += vectors[i].tensor->ne[0];
        }
        engine->layers[layer].local = model_layer_is_local(engine->params, layer);
    }
    load_vector(&output, engine->vectors + at);
    ASSERT(at + output.tensor->ne[0] == count);
    return STATUS_OK;
}

/* ---- scratch ---- */

static float *aligned_floats(size_t count)
{
    const size_t size = (count * sizeof(float) + KERNEL_ALIGN - 1) / KERNEL_ALIGN * KERNEL_ALIGN;
    return aligned_alloc(KERNEL_ALIGN, size);
}

static uint32_t padded(uint32_t width)
{
    return (width + QUANT_BLOCK - 1) / QUANT_BLOCK * QUANT_BLOCK;
}

/* The next buffer: `at` counts floats from base, which is NULL while only the size is wanted. */
static void carve(struct rows *rows, uint32_t width, float *base, size_t *at)
{
    *rows = (struct rows){ .data = base != NULL ? base + *at : NULL, .stride = padded(width) };
    *at += (size_t)ENGINE_ROWS_MAX * rows->stride;
}

/* Lays out the buffers of rows; returns how many floats they take. */
static size_t carve_rows(struct engine *engine, float *base)
{
    const struct model_params *p = engine->params;
    const uint32_t heads = p->n_heads * p->head_dim, kv_heads = p->n_kv_heads * p->head_dim;
    size_t at = 0;

    carve(&engine->x, p->d_model, base, &at);
    carve(&engine->q, heads, base, &at);
    carve(&engine->angles, p->rope_dims, base, &at);
    carve(&engine->angles_local, p->window != 0 ? p->rope_dims : 0, base, &at);
    carve(&engine->k, kv_heads, base, &at);
    carve(&engine->v, kv_heads, base, &at);
    carve(&engine->h, p->d_model, base, &at);
    carve(&engine->att, heads, base, &at);
    carve(&engine->gate, p->d_ff, base, &at);
    carve(&engine->up, p->d_ff, base, &at);
    carve(&engine->y, p->d_model, base, &at);
    return at;
}

static uint32_t widest_input(const struct model_params *p)
{
    const uint32_t heads = p->n_heads * p->head_dim;
    const uint32_t widest = heads > p->d_model ? heads : p->d_model;

    return padded(widest > p->d_ff ? widest : p->d_ff);
}

static enum status create_quants(struct engine *engine)
{
    const size_t width = widest_input(engine->params);
    const size_t blocks = width / QUANT_BLOCK * ENGINE_ROWS_MAX;

    engine->quants.blocks = (uint32_t)(width / QUANT_BLOCK);
    engine->quants.q = aligned_alloc(KERNEL_ALIGN, width * ENGINE_ROWS_MAX);
    engine->quants.d = aligned_floats(blocks);
    engine->quants.ds = aligned_floats(blocks);
    engine->quants.sum = calloc(blocks, sizeof(int32_t));
    if (engine->quants.q == NULL || engine->quants.d == NULL || engine->quants.ds == NULL ||
        engine->quants.sum == NULL) {
        return STATUS_NO_MEMORY;
    }
    return STATUS_OK;
}

static enum status create_attend_buffers(struct engine *engine)
{
    const size_t queries = (size_t)ATTEND_QUERIES_MAX * engine->params->head_dim;
    const uint32_t threads = pool_threads(engine->pool);

    engine->attend = calloc(threads, sizeof(*engine->attend));
    if (engine->attend == NULL) return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < threads; i++) {
        struct attend_buffers *buffers = &engine->attend[i];
        buffers->q = aligned_floats(queries);
        buffers->out = aligned_floats(queries);
        buffers->scratch = aligned_floats(attend_scratch_floats(engine->params->head_dim));
        if (buffers->q == NULL || buffers->out == NULL || buffers->scratch == NULL) {
            return STATUS_NO_MEMORY;
        }
    }
    return STATUS_OK;
}

/* What a position is multiplied with, for each pair: the model's scaling included. */
static void fill_frequencies(struct engine *engine)
{
    const struct model_params *p = engine->params;
    const float *factors = model_rope_factors(engine->model);

    if (p->window != 0) rope_frequencies(p->rope_base_local, p->rope_dims, engine->freqs_local);
    rope_frequencies(p->rope_base, p->rope_dims, engine->freqs);
    for (uint32_t i = 0; i < p->rope_dims / 2; i++) {
        const double factor = factors != NULL ? (double)factors[i] : 1;
        engine->freqs[i] = engine->freqs[i] / factor / (double)p->rope_scale;
    }
}

static enum status create_scratch(struct engine *engine)
{
    engine->scratch = aligned_floats(carve_rows(engine, NULL));
    if (engine->scratch == NULL) return STATUS_NO_MEMORY;
    (void)carve_rows(engine, engine->scratch);
    const size_t pairs = engine->params->rope_dims / 2;
    engine->freqs = calloc(2 * pairs, sizeof(*engine->freqs));
    if (engine->freqs == NULL) return STATUS_NO_MEMORY;
    engine->freqs_local = engine->freqs + pairs;
    fill_frequencies(engine);
    const enum status status = create_quants(engine);
    return status == STATUS_OK ? create_attend_buffers(engine) : status;
}

/* ---- life ---- */

static uint32_t cpus_allowed(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
    const int count = CPU_COUNT(&set);
    return count < 1 ? 1 : count > ENGINE_THREADS_MAX ? ENGINE_THREADS_MAX : (uint32_t)count;
}

static enum status check_options(const struct model_params *params,
                                 const struct engine_options *options, struct errmsg *err)
{
    if (options->threads > ENGINE_THREADS_MAX) {
        return errmsg_set(err, STATUS_INVALID, "%u threads: at most %d", options->threads,
                          ENGINE_THREADS_MAX);
    }
    if (options->context_max > params->context) {
        return errmsg_set(err, STATUS_INVALID, "context of %u tokens: the model was trained for %u",
                          options->context_max, params->context);
    }
    if (params->head_dim % 16 != 0) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "head dimension %u is not a multiple of 16",
                          params->head_dim);
    }
    return STATUS_OK;
}

static enum status build(struct engine *engine, const struct engine_options *options,
                         struct errmsg *err)
{
    const uint32_t threads = options->threads != 0 ? options->threads : cpus_allowed();
    enum status status = cpu_pool_create(threads, &engine->pool);

    if (status != STATUS_OK) return errmsg_set(err, status, "cannot start %u threads", threads);
    engine->layers = calloc(engine->params->n_layers, sizeof(*engine->layers));
    if (engine->layers == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    status = init_matrices(engine, options->exact, err);
    if (status != STATUS_OK) return status;
    if (pack_matrices(engine) != STATUS_OK || load_vectors(engine) != STATUS_OK ||
        create_scratch(engine) != STATUS_OK) {
        return errmsg_set(err, STATUS_NO_MEMORY, "out of memory: weights take %zu bytes",
                          engine->weights_size);
    }
    return STATUS_OK;
}

enum status engine_create(const struct model *model, const struct engine_options *options,
                          struct engine **out, struct errmsg *err)
{
    const struct model_params *params = model_params(model);
    struct engine_layout layout;

    ASSERT(options->pages != NULL && (uintptr_t)options->pages % KERNEL_ALIGN == 0);
    enum status status = engine_layout_query(model, options, &layout, err);
    if (status == STATUS_OK) status = check_options(params, options, err);
    if (status != STATUS_OK) return status;
    struct engine *engine = calloc(1, sizeof(*engine));
    if (engine == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");
    engine->model = model;
    engine->params = params;
    engine->layout = layout;
    engine->kernels = kernels_select(layout.isa);
    engine->slab = options->pages;
    engine->pages_count = options->pages_count;
    engine->context_max = options->context_max != 0 ? options->context_max : params->context;
    status = build(engine, options, err);
    if (status != STATUS_OK) {
        engine_destroy(engine);
        return status;
    }
    *out = engine;
    return STATUS_OK;
}

void engine_destroy(struct engine *engine)
{
    if (engine == NULL) return;
    const uint32_t threads = engine->pool != NULL ? pool_threads(engine->pool) : 0;
    for (uint32_t i = 0; engine->attend != NULL && i < threads; i++) {
        free(engine->attend[i].q);
        free(engine->attend[i].out);
        free(engine->attend[i].scratch);
    }
    cpu_pool_destroy(engine->pool);
    free(engine->attend);
    free(engine->quants.q);
    free(engine->quants.d);
    free(engine->quants.ds);
    free(engine->quants.sum);
    free(engine->scratch);
    free(engine->freqs);
    free(engine->vectors);
    free(engine->weights);
    free(engine->layers);
    free(engine);
}

const struct engine_layout *engine_layout(const struct engine *engine)
{
    return &engine->layout;
}

uint32_t engine_context_max(const struct engine *engine)
{
    return engine->context_max;
}

uint32_t engine_vocab_size(const struct engine *engine)
{
    return engine->params->vocab;
}

uint32_t engine_hidden_size(const struct engine *engine)
{
    return engine->params->d_model;
}

uint32_t engine_threads(const struct engine *engine)
{
    return pool_threads(engine->pool);
}

/* ---- the step ---- */

/* Page tables and tokens come from other processes in the end: checked, not asserted. */
static bool item_valid(const struct engine *engine, const struct engine_item *item)
{
    const uint32_t block_tokens = engine->layout.block_tokens;

    if (item->tokens_count == 0 || item->tokens_count > ENGINE_ROWS_MAX) return false;
    if (item->position >= engine->context_max) return false;
    if (item->tokens_count > engine->context_max - item->position) return false;
    const uint32_t pages = (item->position + item->tokens_count + block_tokens - 1) / block_tokens;
    if (pages > item->pages_count) return false;
    for (uint32_t i = 0; i < pages; i++) {
        if (item->pages[i] >= engine->pages_count) return false;
    }
    for (uint32_t i = 0; i < item->tokens_count; i++) {
        if (item->tokens[i] >= engine->params->vocab) return false;
    }
    return true;
}

static void add_rows(struct engine *engine, const struct engine_item *item)
{
    const uint32_t first = engine->rows_count;

    for (uint32_t i = 0; i < item->tokens_count; i++) {
        const uint32_t r = first + i;
        engine->rows[r] = (struct row){ item, item->position + i, item->tokens[i] };
        if (i == 0 || r % ROW_BLOCK == 0) {
            engine->segments[engine->segments_count++] = (struct segment){ .row0 = r };
        }
        engine->segments[engine->segments_count - 1].rows++;
    }
    engine->rows_count += item->tokens_count;
}

static bool part_valid(const struct engine *engine, const struct engine_part *part)
{
    const uint32_t n_layers = engine->params->n_layers;

    if (part->first >= part->last || part->last > n_layers) return false;
    if (part->first > 0 && part->in == NULL) return false;
    return part->last == n_layers || part->out != NULL;
}

enum status engine_step(struct engine *engine, const struct engine_item *items,
                        uint32_t items_count, const struct engine_hooks *hooks)
{
    const struct engine_part whole = { .last = engine->params->n_layers };

    return engine_step_part(engine, items, items_count, &whole, hooks);
}

enum status engine_step_part(struct engine *engine, const struct engine_item *items,
                             uint32_t items_count, const struct engine_part *part,
                             const struct engine_hooks *hooks)
{
    uint32_t rows = 0;

    if (!part_valid(engine, part)) return STATUS_INVALID;
    if (items_count == 0 || items_count > ENGINE_ITEMS_MAX) return STATUS_INVALID;
    for (uint32_t i = 0; i < items_count; i++) {
        if (!item_valid(engine, &items[i])) return STATUS_INVALID;
        if (items[i].logits != NULL && part->last < engine->params->n_layers) return STATUS_INVALID;
        rows += items[i].tokens_count;
        if (rows > ENGINE_ROWS_MAX) return STATUS_INVALID;
    }
    engine->part = *part;
    engine->rows_count = 0;
    engine->segments_count = 0;
    for (uint32_t i = 0; i < items_count; i++)
        add_rows(engine, &items[i]);
    ASSERT(engine->rows_count == rows);
    if (!forward_layers(engine, hooks)) return STATUS_CANCELLED;
    forward_logits(engine);
    return STATUS_OK;
}
