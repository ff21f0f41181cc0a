/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/backend.c - see backend.h: the table, and the builtin backend. */
#include "infer/backend.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "infer/timed.h"
#include "model/model.h"

struct backend_ops {
    const struct engine_layout *(*layout)(const void *self);
    enum status (*step)(void *self, struct backend_item *items, uint32_t items_count,
                        const struct engine_part *part, const struct engine_hooks *hooks);
    void (*destroy)(void *self);
};

struct backend {
    const struct backend_ops *ops;
    void *self;
};

/* ---- builtin ---- */

struct builtin {
    struct engine *engine;
    struct sampler *sampler;
    float *logits; /* a row for every token of a step; touched as used */
    struct engine_item items[ENGINE_ITEMS_MAX];
};

static void builtin_destroy(void *self)
{
    struct builtin *builtin = self;
    if (builtin == NULL) return;
    sampler_destroy(builtin->sampler);
    free(builtin->logits);
    engine_destroy(builtin->engine);
    free(builtin);
}

static enum status builtin_create(const struct model *model, const struct engine_options *options,
                                  void **out, struct errmsg *err)
{
    struct builtin *builtin = calloc(1, sizeof(*builtin));
    if (builtin == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for an engine");
    enum status status = engine_create(model, options, &builtin->engine, err);
    if (status != STATUS_OK) goto fail;
    const uint32_t vocab = engine_vocab_size(builtin->engine);
    builtin->logits = calloc((size_t)ENGINE_ROWS_MAX * vocab, sizeof(*builtin->logits));
    status = builtin->logits == NULL ? STATUS_NO_MEMORY : sampler_create(vocab, &builtin->sampler);
    if (status != STATUS_OK) {
        errmsg_set(err, status, "no memory for the logits");
        goto fail;
    }
    *out = builtin;
    return STATUS_OK;

fail:
    builtin_destroy(builtin);
    return status;
}

static const struct engine_layout *builtin_layout(const void *self)
{
    return engine_layout(((const struct builtin *)self)->engine);
}

/* The item's rows of logits begin at `row`; returns how many there are. */
static uint32_t take_rows(struct builtin *builtin, const struct backend_item *item,
                          struct engine_item *out, uint32_t row)
{
    const bool all = item->score.count > 0;

    ASSERT(item->score.count <= item->tokens_count);
    if (!all && !item->sample) return 0;
    ASSERT(row < ENGINE_ROWS_MAX);
    out->logits = builtin->logits + (size_t)row * engine_vocab_size(builtin->engine);
    out->logits_all = all;
    return all ? item->tokens_count : 1;
}

static void score(const struct builtin *builtin, struct backend_score *score, const float *logits)
{
    const uint32_t vocab = engine_vocab_size(builtin->engine);
    uint32_t row[LOGPROBS_WORDS_MAX];

    score->words = 0;
    for (uint32_t i = 0; i < score->count; i++) {
        const uint32_t count =
            logprobs_row(logits + (size_t)i * vocab, vocab, score->targets[i], score->top, row);
        memcpy(score->rows + score->words, row, count * sizeof(*row));
        score->words += count;
    }
}

static enum status builtin_step(void *self, struct backend_item *items, uint32_t items_count,
                                const struct engine_part *part, const struct engine_hooks *hooks)
{
    struct builtin *builtin = self;
    const uint32_t vocab = engine_vocab_size(builtin->engine);
    uint32_t rows = 0; /* of logits */

    ASSERT(items_count <= ENGINE_ITEMS_MAX);
    for (uint32_t i = 0; i < items_count; i++) {
        const struct backend_item *item = &items[i];
        builtin->items[i] = (struct engine_item){
            .pages = item->pages,
            .pages_count = item->pages_count,
            .position = item->position,
            .tokens = item->tokens,
            .tokens_count = item->tokens_count,
        };
        rows += take_rows(builtin, item, &builtin->items[i], rows);
    }
    const enum status status =
        engine_step_part(builtin->engine, builtin->items, items_count, part, hooks);
    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < items_count; i++) {
        struct backend_item *item = &items[i];
        const float *logits = builtin->items[i].logits;
        score(builtin, &item->score, logits);
        if (!item->sample) continue;
        if (item->score.count > 0) logits += (size_t)(item->tokens_count - 1) * vocab;
        item->sampled =
            sampler_next(builtin->sampler, &item->sampling, item->past, logits, item->sample_index);
        if (item->row != NULL)
            item->row_count = logprobs_row(logits, vocab, item->sampled, item->row_top, item->row);
    }
    return STATUS_OK;
}

static const struct backend_ops builtin_ops = {
    .layout = builtin_layout,
    .step = builtin_step,
    .destroy = builtin_destroy,
};

/* ---- timed ---- */

static const struct engine_layout *timed_backend_layout(const void *self)
{
    return timed_layout(self);
}

static enum status timed_backend_step(void *self, struct backend_item *items, uint32_t items_count,
                                      const struct engine_part *part,
                                      const struct engine_hooks *hooks)
{
    return timed_step_part(self, items, items_count, part, hooks);
}

static void timed_backend_destroy(void *self)
{
    timed_destroy(self);
}

static const struct backend_ops timed_ops = {
    .layout = timed_backend_layout,
    .step = timed_backend_step,
    .destroy = timed_backend_destroy,
};

/* ---- either ---- */

enum status backend_layout_query(const struct model *model, const struct backend_options *options,
                                 struct engine_layout *out, struct errmsg *err)
{
    /* The model and the CPU are looked at in any case: what is refused does not depend on it. */
    const enum status status = engine_layout_query(model, &options->engine, out, err);
    if (status != STATUS_OK || options->timed == NULL) return status;
    if (options->engine.kv != ENGINE_KV_F16)
        return errmsg_set(err, STATUS_INVALID, "a timed engine has no KV, and so no type of it");
    timed_layout_of(out->block_tokens, out);
    return STATUS_OK;
}

enum status backend_create(const struct model *model, const struct backend_options *options,
                           struct backend **out, struct errmsg *err)
{
    struct backend *backend = calloc(1, sizeof(*backend));
    struct timed *timed = NULL;
    enum status status;

    if (backend == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for an engine");
    if (options->timed == NULL) {
        backend->ops = &builtin_ops;
        status = builtin_create(model, &options->engine, &backend->self, err);
    } else {
        backend->ops = &timed_ops;
        status = timed_create(model_params(model), &options->engine, options->timed, &timed, err);
        backend->self = timed;
    }
    if (status != STATUS_OK) {
        free(backend);
        return status;
    }
    *out = backend;
    return STATUS_OK;
}

void backend_destroy(struct backend *backend)
{
    if (backend == NULL) return;
    backend->ops->destroy(backend->self);
    free(backend);
}

const struct engine_layout *backend_layout(const struct backend *backend)
{
    return backend->ops->layout(backend->self);
}

enum status backend_step(struct backend *backend, struct backend_item *items, uint32_t items_count,
                         const struct engine_hooks *hooks)
{
    const struct engine_part whole = { .last = backend_layout(backend)->n_layers };

    return backend_step_part(backend, items, items_count, &whole, hooks);
}

enum status backend_step_part(struct backend *backend, struct backend_item *items,
                              uint32_t items_count, const struct engine_part *part,
                              const struct engine_hooks *hooks)
{
    ASSERT(items_count == 0 || items != NULL);
    return backend->ops->step(backend->self, items, items_count, part, hooks);
}

uint32_t backend_hidden_size(const struct model *model, const struct timed_options *timed)
{
    return timed != NULL ? TIMED_HIDDEN_SIZE : model_params(model)->d_model;
}
