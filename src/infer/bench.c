/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/bench.c - times engine_step() on pages and random tokens of its own. */
#include "infer/bench.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/rng.h"
#include "model/model.h"

enum {
    RUNS_DEFAULT = 5,
    PROMPT_MAX = 2048,
    DECODE_PROMPT = 128,
    DECODE_STEPS = 64,
    BATCH_MAX = 8,
    SEED = 1,
};

struct bench {
    struct env *env;
    struct engine *engine;
    struct engine_layout layout;
    uint32_t runs;
    uint8_t *slab;
    uint32_t *pages; /* page tables of BATCH_MAX sequences, sequence_pages entries each */
    uint32_t sequence_pages;
    uint32_t *tokens; /* PROMPT_MAX random ones */
    float *logits;    /* BATCH_MAX rows */
};

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, uint32_t count)
{
    qsort(values, count, sizeof(*values), compare_doubles);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static struct engine_item item_of(const struct bench *bench, uint32_t sequence, uint32_t position,
                                  uint32_t count)
{
    return (struct engine_item){
        .pages = bench->pages + (size_t)sequence * bench->sequence_pages,
        .pages_count = bench->sequence_pages,
        .position = position,
        .tokens = bench->tokens + position,
        .tokens_count = count,
    };
}

static enum status prefill(const struct bench *bench, uint32_t sequence, uint32_t tokens)
{
    for (uint32_t at = 0; at < tokens; at += ENGINE_ROWS_MAX) {
        const uint32_t left = tokens - at;
        const uint32_t count = left < ENGINE_ROWS_MAX ? left : ENGINE_ROWS_MAX;
        struct engine_item item = item_of(bench, sequence, at, count);
        if (count == left) item.logits = bench->logits; /* as a request does: the last token's */
        const enum status status = engine_step(bench->engine, &item, 1, NULL);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

static enum status decode(const struct bench *bench, uint32_t batch)
{
    const size_t vocab = engine_vocab_size(bench->engine);

    for (uint32_t step = 0; step < DECODE_STEPS; step++) {
        struct engine_item items[BATCH_MAX];
        for (uint32_t i = 0; i < batch; i++) {
            items[i] = item_of(bench, i, DECODE_PROMPT + step, 1);
            items[i].logits = bench->logits + i * vocab;
        }
        const enum status status = engine_step(bench->engine, items, batch, NULL);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

/* Runs once to warm up, then `runs` times; fills row with the median rate. `batch` 0: prefill. */
static enum status measure(const struct bench *bench, uint32_t tokens, uint32_t batch,
                           struct engine_bench_row *row)
{
    double rates[ENGINE_BENCH_RUNS_MAX];

    ASSERT(bench->runs <= ENGINE_BENCH_RUNS_MAX);
    for (uint32_t i = 0; i < batch; i++) {
        const enum status status = prefill(bench, i, DECODE_PROMPT);
        if (status != STATUS_OK) return status;
    }
    for (uint32_t run = 0; run <= bench->runs; run++) {
        const uint64_t start_ns = env_now_ns(bench->env);
        const enum status status = batch == 0 ? prefill(bench, 0, tokens) : decode(bench, batch);
        if (status != STATUS_OK) return status;
        const uint64_t took_ns = env_now_ns(bench->env) - start_ns;
        const double count = batch == 0 ? tokens : (double)batch * DECODE_STEPS;
        if (run > 0) rates[run - 1] = count * 1e9 / (double)(took_ns > 0 ? took_ns : 1);
    }
    row->tokens_per_second = median(rates, bench->runs);
    row->runs = bench->runs;
    row->unit = "tokens/s";
    return STATUS_OK;
}

static enum status measure_all(const struct bench *bench,
                               struct engine_bench_row rows[ENGINE_BENCH_ROWS])
{
    static const struct {
        const char *name;
        uint32_t tokens, batch;
    } what[ENGINE_BENCH_ROWS] = {
        { "prefill_512", 512, 0 },
        { "prefill_2048", 2048, 0 },
        { "decode_1", 0, 1 },
        { "decode_8", 0, 8 },
    };
    struct engine_bench_row result[ENGINE_BENCH_ROWS];

    for (int i = 0; i < ENGINE_BENCH_ROWS; i++) {
        result[i].name = what[i].name;
        const enum status status = measure(bench, what[i].tokens, what[i].batch, &result[i]);
        if (status != STATUS_OK) return status;
    }
    for (int i = 0; i < ENGINE_BENCH_ROWS; i++)
        rows[i] = result[i];
    return STATUS_OK;
}

static void fini(struct bench *bench)
{
    engine_destroy(bench->engine);
    free(bench->slab);
    free(bench->pages);
    free(bench->tokens);
    free(bench->logits);
}

/* Sequence 0 has pages for the longest prompt, the others share none with it. */
static enum status allocate(struct bench *bench, uint32_t vocab, uint32_t *pages_count)
{
    const uint32_t decode_pages = (DECODE_PROMPT + DECODE_STEPS + bench->layout.block_tokens - 1) /
                                  bench->layout.block_tokens;
    uint32_t next = 0;

    bench->sequence_pages = PROMPT_MAX / bench->layout.block_tokens;
    *pages_count = bench->sequence_pages + (BATCH_MAX - 1) * decode_pages;
    bench->pages = calloc((size_t)BATCH_MAX * bench->sequence_pages, sizeof(uint32_t));
    bench->slab = aligned_alloc(ENGINE_PAGE_ALIGN, *pages_count * bench->layout.page_size);
    bench->tokens = calloc(PROMPT_MAX, sizeof(uint32_t));
    bench->logits = calloc((size_t)BATCH_MAX * vocab, sizeof(float));
    if (bench->pages == NULL || bench->slab == NULL || bench->tokens == NULL ||
        bench->logits == NULL) {
        return STATUS_NO_MEMORY;
    }
    for (uint32_t i = 0; i < BATCH_MAX; i++) {
        const uint32_t count = i == 0 ? bench->sequence_pages : decode_pages;
        for (uint32_t p = 0; p < count; p++)
            bench->pages[i * bench->sequence_pages + p] = next++;
    }
    return STATUS_OK;
}

static enum status init(struct bench *bench, const struct model *model,
                        const struct engine_bench_options *options, struct errmsg *err)
{
    const uint32_t vocab = model_params(model)->vocab;
    uint32_t pages_count = 0;
    struct rng rng;

    struct engine_options engine_options = { .threads = options->threads,
                                             .isa = options->isa,
                                             .kv = options->kv };
    enum status status = engine_layout_query(model, &engine_options, &bench->layout, err);
    if (status != STATUS_OK) return status;
    status = allocate(bench, vocab, &pages_count);
    if (status != STATUS_OK) return errmsg_set(err, status, "out of memory");
    rng_init(&rng, SEED);
    for (uint32_t i = 0; i < PROMPT_MAX; i++)
        bench->tokens[i] = (uint32_t)rng_below(&rng, vocab);
    engine_options.pages = bench->slab;
    engine_options.pages_count = pages_count;
    return engine_create(model, &engine_options, &bench->engine, err);
}

enum status engine_bench(struct env *env, const struct model *model,
                         const struct engine_bench_options *options,
                         struct engine_bench_row rows[ENGINE_BENCH_ROWS], struct errmsg *err)
{
    struct bench bench = { .env = env, .runs = options->runs != 0 ? options->runs : RUNS_DEFAULT };

    if (bench.runs > ENGINE_BENCH_RUNS_MAX) {
        return errmsg_set(err, STATUS_INVALID, "%u runs: at most %d", bench.runs,
                          ENGINE_BENCH_RUNS_MAX);
    }
    if (model_params(model)->context < PROMPT_MAX) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "the model's context of %u is below %d tokens",
                          model_params(model)->context, PROMPT_MAX);
    }
    enum status status = init(&bench, model, options, err);
    if (status == STATUS_OK) status = measure_all(&bench, rows);
    fini(&bench);
    return status;
}
