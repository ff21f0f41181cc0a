/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/engine_arch_test.c
 *
 * Goal:   every architecture is computed as an independent implementation computes it, and keeps
 *         the engine's promise: the same bits whatever the batch, the chunks, the threads, and how
 *         many engines share the layers.
 * Method: small models with random weights in F32 (tests/tiny_model.h) against the logits that
 *         llama.cpp computed for them (tests/golden/arch.txt; `engine_arch_test --write DIR` writes
 *         the files that tools/golden/make_arch.py gave it). Windows are shorter than the prompt.
 *         Then each prompt again in other cuts, bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "infer/engine.h"
#include "tiny_model.h"

enum { PROMPT = 90, BLOCK = 16, PAGES = (PROMPT + BLOCK - 1) / BLOCK, SEED = 7 };

static const struct tiny_model_options shapes[] = {
    { MODEL_LLAMA, 2, 4, 2, 16, 96, MODEL_F32, true, 0, SEED },
    { MODEL_QWEN2, 2, 4, 2, 16, 96, MODEL_F32, true, 0, SEED },
    { MODEL_QWEN3, 2, 4, 2, 16, 96, MODEL_F32, false, 0, SEED },
    { MODEL_GEMMA3, 7, 2, 1, 32, 64, MODEL_F32, false, 24, SEED },
};
enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

struct bench {
    struct gguf_maker maker;
    struct model *model;
    struct engine *engine;
    uint8_t *slab;
    uint32_t pages[PAGES];
    uint32_t tokens[PROMPT];
    float logits[PROMPT][TINY_VOCAB];
};

/* A layer that nothing was written to. */
static uint8_t untouched[4096];

/* Any ids will do. */
static uint32_t token_at(uint32_t i)
{
    return (i * i * 31 + i * 7 + 3) % TINY_VOCAB;
}

static void bench_open(struct bench *bench, const struct tiny_model_options *shape,
                       uint32_t threads)
{
    struct engine_layout layout;
    struct errmsg err = { "" };
    size_t size;

    *bench = (struct bench){ 0 };
    gguf_maker_init(&bench->maker);
    tiny_model_make(&bench->maker, shape);
    const uint8_t *file = gguf_maker_finish(&bench->maker, &size);
    if (model_parse(file, size, &bench->model, &err) != STATUS_OK) fail_msg("%s", err.text);
    struct engine_options options = { .threads = threads, .block_tokens = BLOCK };
    assert_int_equal(engine_layout_query(bench->model, &options, &layout, &err), STATUS_OK);
    bench->slab = aligned_alloc(ENGINE_PAGE_ALIGN, PAGES * layout.page_size);
    assert_non_null(bench->slab);
    memset(bench->slab, 0xff, PAGES * layout.page_size); /* NaN: what is not written is not read */
    options.pages = bench->slab;
    options.pages_count = PAGES;
    if (engine_create(bench->model, &options, &bench->engine, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    for (uint32_t i = 0; i < PAGES; i++)
        bench->pages[i] = PAGES - 1 - i;
    for (uint32_t i = 0; i < PROMPT; i++)
        bench->tokens[i] = token_at(i);
}

static void bench_close(struct bench *bench)
{
    engine_destroy(bench->engine);
    model_destroy(bench->model);
    gguf_maker_fini(&bench->maker);
    free(bench->slab);
}

/* Computes the prompt in steps of `chunk` tokens; logits of every position. */
static void prefill(struct bench *bench, uint32_t chunk)
{
    for (uint32_t at = 0; at < PROMPT; at += chunk) {
        const struct engine_item item = { .pages = bench->pages,
                                          .pages_count = PAGES,
                                          .position = at,
                                          .tokens = bench->tokens + at,
                                          .tokens_count = PROMPT - at < chunk ? PROMPT - at : chunk,
                                          .logits = bench->logits[at],
                                          .logits_all = true };
        assert_int_equal(engine_step(bench->engine, &item, 1, NULL), STATUS_OK);
    }
}

/* ---- against llama.cpp ---- */

/* The largest difference to the next line of the file: "logits NAME POSITION value...". */
static float difference(FILE *file, const struct bench *bench, const char *name)
{
    char found[16];
    unsigned position;
    float most = 0;

    if (fscanf(file, " logits %15s %u", found, &position) != 2) fail_msg("not a line of logits");
    assert_string_equal(found, name);
    assert_in_range(position, 0, PROMPT - 1);
    for (int i = 0; i < TINY_VOCAB; i++) {
        float expected;
        assert_int_equal(fscanf(file, "%f", &expected), 1);
        most = fmaxf(most, fabsf(bench->logits[position][i] - expected));
    }
    return most;
}

static void every_architecture_agrees(void **state)
{
    static struct bench bench;
    FILE *file = fopen("tests/golden/arch.txt", "r");

    (void)state;
    assert_non_null(file);
    for (size_t s = 0; s < SHAPES; s++) {
        const char *name = model_arch_name(shapes[s].arch);
        /* llama.cpp takes GELU from a table of halves. */
        const float tolerance = shapes[s].arch == MODEL_GEMMA3 ? 5e-3f : 1e-3f;
        float most = 0;
        bench_open(&bench, &shapes[s], 1);
        prefill(&bench, 32);
        for (int i = 0; i < 3; i++)
            most = fmaxf(most, difference(file, &bench, name));
        printf("%s: logits differ by %.2g at most\n", name, (double)most);
        assert_true(most < tolerance);
        bench_close(&bench);
    }
    fclose(file);
}

/* ---- against itself ---- */

static void cuts_make_no_difference(void **state)
{
    static struct bench whole, cut;
    static const uint32_t chunks[] = { 1, 7, 64 };

    (void)state;
    for (size_t s = 0; s < SHAPES; s++) {
        bench_open(&whole, &shapes[s], 1);
        prefill(&whole, PROMPT);
        for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
            bench_open(&cut, &shapes[s], 1 + (uint32_t)i % 2);
            prefill(&cut, chunks[i]);
            assert_memory_equal(cut.logits, whole.logits, sizeof(whole.logits));
            bench_close(&cut);
        }
        bench_close(&whole);
    }
}

/* A chunk goes through engines that have some of the layers each, as through the stages of a group;
 * every stage has its own pages, with the KV of its own layers. */
static void prefill_staged(struct bench *stages, uint32_t count, uint32_t chunk)
{
    static float hidden[PROMPT * 256];
    const uint32_t layers = engine_layout(stages[0].engine)->n_layers;
    struct bench *last = &stages[count - 1];

    assert_true(engine_hidden_size(stages[0].engine) <= 256);
    for (uint32_t at = 0; at < PROMPT; at += chunk) {
        for (uint32_t j = 0; j < count; j++) {
            const struct engine_part part = { j * layers / count, (j + 1) * layers / count, hidden,
                                              hidden };
            const struct engine_item item = { .pages = stages[j].pages,
                                              .pages_count = PAGES,
                                              .position = at,
                                              .tokens = stages[j].tokens + at,
                                              .tokens_count =
                                                  PROMPT - at < chunk ? PROMPT - at : chunk,
                                              .logits =
                                                  &stages[j] == last ? last->logits[at] : NULL,
                                              .logits_all = true };
            assert_int_equal(engine_step_part(stages[j].engine, &item, 1, &part, NULL), STATUS_OK);
        }
    }
}

/* Layers [first, last) of every page are those of the whole; the others were never written. */
static void assert_layers(const struct bench *part, const struct bench *whole, uint32_t first,
                          uint32_t last)
{
    const struct engine_layout *layout = engine_layout(whole->engine);

    for (uint32_t page = 0; page < PAGES; page++) {
        for (uint32_t layer = 0; layer < layout->n_layers; layer++) {
            const size_t at = page * layout->page_size + layer * layout->layer_size;
            const bool own = layer >= first && layer < last;
            const uint8_t *expected = own ? whole->slab + at : untouched;
            assert_memory_equal(part->slab + at, expected, layout->layer_size);
        }
    }
}

static void stages_make_no_difference(void **state)
{
    static struct bench whole, stages[3];
    static const uint32_t chunks[] = { 32, PROMPT };

    (void)state;
    memset(untouched, 0xff, sizeof(untouched));
    for (size_t s = 0; s < SHAPES; s++) {
        const uint32_t layers = shapes[s].n_layers;
        bench_open(&whole, &shapes[s], 1);
        prefill(&whole, PROMPT);
        assert_true(engine_layout(whole.engine)->layer_size <= sizeof(untouched));
        for (uint32_t count = 1; count <= 3 && count <= layers; count++) {
            for (uint32_t j = 0; j < count; j++)
                bench_open(&stages[j], &shapes[s], 1 + j % 2);
            prefill_staged(stages, count, chunks[count % 2]);
            assert_memory_equal(stages[count - 1].logits, whole.logits, sizeof(whole.logits));
            for (uint32_t j = 0; j < count; j++) {
                assert_layers(&stages[j], &whole, j * layers / count, (j + 1) * layers / count);
                bench_close(&stages[j]);
            }
        }
        bench_close(&whole);
    }
}

static void bad_parts_are_refused(void **state)
{
    static struct bench bench;
    float hidden[256];
    const struct engine_part bad[] = { { 0, 0, NULL, hidden },   { 1, 1, hidden, hidden },
                                       { 0, 1, NULL, NULL },     { 1, 2, NULL, NULL },
                                       { 0, 3, hidden, hidden }, { 2, 1, hidden, hidden } };
    const struct engine_part first = { 0, 1, NULL, hidden };

    (void)state;
    bench_open(&bench, &shapes[0], 1);
    struct engine_item item = {
        .pages = bench.pages, .pages_count = PAGES, .tokens = bench.tokens, .tokens_count = 1
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(engine_step_part(bench.engine, &item, 1, &bad[i], NULL), STATUS_INVALID);
    }
    item.logits = bench.logits[0]; /* there are none yet after layer 0 of two */
    assert_int_equal(engine_step_part(bench.engine, &item, 1, &first, NULL), STATUS_INVALID);
    bench_close(&bench);
}

/* ---- for the oracle ---- */

static int write_models(const char *folder)
{
    for (size_t s = 0; s < SHAPES; s++) {
        struct gguf_maker maker;
        char path[256];
        size_t size;
        gguf_maker_init(&maker);
        tiny_model_make(&maker, &shapes[s]);
        const uint8_t *data = gguf_maker_finish(&maker, &size);
        snprintf(path, sizeof(path), "%s/%s.gguf", folder, model_arch_name(shapes[s].arch));
        FILE *file = fopen(path, "wb");
        if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0) return 1;
        gguf_maker_fini(&maker);
    }
    for (uint32_t i = 0; i < PROMPT; i++)
        printf("%u\n", token_at(i));
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_architecture_agrees),
        cmocka_unit_test(cuts_make_no_difference),
        cmocka_unit_test(stages_make_no_difference),
        cmocka_unit_test(bad_parts_are_refused),
    };

    if (argc == 3 && strcmp(argv[1], "--write") == 0) return write_models(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
