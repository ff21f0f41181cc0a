/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/solo.c - see solo.h. */
#include "serve/solo.h"

#include <stdlib.h>

#include "base/assert.h"
#include "infer/backend.h"
#include "model/model.h"

struct solo {
    struct backend *backend;
    uint8_t *pages;
    uint32_t *table; /* the page table: page i of the sequence is page i of the slab */
    uint32_t table_count;
    uint32_t *tokens;  /* of the sequence: the prompt, then the answer */
    uint32_t computed; /* tokens whose KV is in the pages */
    uint32_t context_max;
};

static enum status allocate(struct solo *solo, const struct engine_layout *layout,
                            uint32_t context_max)
{
    solo->context_max = context_max;
    solo->table_count = (context_max + layout->block_tokens - 1) / layout->block_tokens;
    const size_t size = (size_t)solo->table_count * layout->page_size;
    solo->pages = aligned_alloc(ENGINE_PAGE_ALIGN, size);
    solo->table = calloc(solo->table_count, sizeof(*solo->table));
    solo->tokens = calloc((size_t)context_max + 1, sizeof(*solo->tokens));
    if (solo->pages == NULL || solo->table == NULL || solo->tokens == NULL) return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < solo->table_count; i++)
        solo->table[i] = i;
    return STATUS_OK;
}

enum status solo_create(const struct model *model, const struct solo_options *options,
                        struct solo **out, struct errmsg *err)
{
    struct backend_options backend_options = {
        .engine = { .threads = options->threads,
                    .block_tokens = options->block_tokens,
                    .isa = options->isa,
                    .kv = options->kv,
                    .context_max = options->context_max },
        .timed = options->timed,
    };
    struct engine_layout layout;
    enum status status = backend_layout_query(model, &backend_options, &layout, err);
    if (status != STATUS_OK) return status;
    struct solo *solo = calloc(1, sizeof(*solo));
    if (solo == NULL) return STATUS_NO_MEMORY;
    const uint32_t context = model_params(model)->context;
    status = allocate(solo, &layout, options->context_max != 0 ? options->context_max : context);
    if (status != STATUS_OK) goto fail;
    backend_options.engine.pages = solo->pages;
    backend_options.engine.pages_count = solo->table_count;
    status = backend_create(model, &backend_options, &solo->backend, err);
    if (status != STATUS_OK) goto fail;
    *out = solo;
    return STATUS_OK;

fail:
    solo_destroy(solo);
    return status;
}

void solo_destroy(struct solo *solo)
{
    if (solo == NULL) return;
    backend_destroy(solo->backend);
    free(solo->pages);
    free(solo->table);
    free(solo->tokens);
    free(solo);
}

uint32_t solo_context_max(const struct solo *solo)
{
    return solo->context_max;
}

/* Computes tokens [from, to) in chunks; *next is the one behind them, the answer's `index`-th. */
static enum status compute(struct solo *solo, uint32_t from, uint32_t to,
                           const struct sampling *sampling, uint32_t index, uint32_t *next)
{
    ASSERT(from < to);
    while (from < to) {
        const uint32_t rest = to - from;
        const uint32_t rows = rest < ENGINE_ROWS_MAX ? rest : ENGINE_ROWS_MAX;
        struct backend_item item = {
            .pages = solo->table,
            .pages_count = solo->table_count,
            .position = from,
            .tokens = solo->tokens + from,
            .tokens_count = rows,
            .prefill = index == 0,
            .prefill_first = from == 0,
            .sample = rows == rest,
            .sampling = *sampling,
            .past = { solo->tokens, from + rows },
            .sample_index = index,
        };
        const enum status status = backend_step(solo->backend, &item, 1, NULL);
        if (status != STATUS_OK) return status;
        *next = item.sampled;
        from += rows;
    }
    return STATUS_OK;
}

/* How many tokens of the prompt are in the pages already: its last one is always computed. */
static uint32_t common_prefix(const struct solo *solo, const struct solo_request *request)
{
    uint32_t n = 0;

    while (n < solo->computed && n + 1 < request->tokens_count &&
           solo->tokens[n] == request->tokens[n])
        n++;
    return n;
}

enum status solo_generate(struct solo *solo, const struct solo_request *request, enum solo_end *end)
{
    uint32_t count = request->tokens_count;

    if (count == 0 || count > solo->context_max || request->max_tokens == 0) return STATUS_INVALID;
    solo->computed = request->keep ? common_prefix(solo, request) : 0;
    for (uint32_t i = 0; i < count; i++)
        solo->tokens[i] = request->tokens[i];
    for (uint32_t index = 0; index < request->max_tokens; index++) {
        uint32_t token = 0;
        const enum status status =
            compute(solo, solo->computed, count, &request->sampling, index, &token);
        if (status != STATUS_OK) return status;
        solo->computed = count;
        if (request->is_end != NULL && request->is_end(request->is_end_ctx, token)) {
            *end = SOLO_STOP;
            return STATUS_OK;
        }
        solo->tokens[count++] = token;
        if (!request->on_token(request->ctx, token)) {
            *end = SOLO_ENOUGH;
            return STATUS_OK;
        }
        if (count > solo->context_max) break; /* its KV would have no place */
    }
    *end = SOLO_LENGTH;
    return STATUS_OK;
}
