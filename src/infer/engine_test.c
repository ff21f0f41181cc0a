/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/engine_test.c
 *
 * Goal:    the KV and the logits of a token do not depend on how they were computed, down to the
 *          last bit; what callers may get wrong is refused; hooks see what their contract says.
 * Method:  models of a few kilobytes with random weights of every type, and the real model where it
 *          is there. A token-by-token run of one engine with one thread is the reference; batches,
 *          chunks, threads, ISAs and pages copied from another engine must equal it exactly. Pages
 *          start as NaN, so that a stale slot that leaks into a result shows. */
#include "infer/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env_real.h"
#include "base/rng.h"
#include "model/model.h"
#include "model_path.h"
#include "seed.h"
#include "tiny_model.h"

enum { PAGES = 96, SEQUENCE_PAGES = 40 };

/* Tokens run through a model: enough for several blocks. The kernels of every type and ISA have a
 * test of their own (kernels_test), so that here the slow ISA meets one type in three. Sanitizers
 * make each run slow: there, fewer tokens, one type in three meets one ISA, and of the real model
 * only its golden test is run, since the tiny ones walk the same code. */
#ifdef YOLK_EXPENSIVE_ASSERTS
enum { REAL_TOKENS = 0, TINY_TOKENS = 70, EVERY_TYPE = 0 };
#else
enum { REAL_TOKENS = 150, TINY_TOKENS = 200, EVERY_TYPE = 1 };
#endif

static uint64_t seed;

/* ---- an engine with its slab ---- */

struct rig {
    struct engine *engine;
    struct engine_layout layout;
    uint8_t *slab;
};

struct rig_options {
    uint32_t threads;
    uint32_t block_tokens;
    enum engine_isa isa;
    enum engine_kv kv;
};

static struct rig rig_new(const struct model *model, const struct rig_options *o)
{
    struct rig rig;
    struct errmsg err = { { 0 } };

    struct engine_options options = {
        .threads = o->threads, .block_tokens = o->block_tokens, .isa = o->isa, .kv = o->kv
    };
    if (engine_layout_query(model, &options, &rig.layout, &err) != STATUS_OK) {
        fail_msg("%s", err.text);
    }
    rig.slab = aligned_alloc(ENGINE_PAGE_ALIGN, PAGES * rig.layout.page_size);
    assert_non_null(rig.slab);
    memset(rig.slab, 0xFF, PAGES * rig.layout.page_size);
    options.pages = rig.slab;
    options.pages_count = PAGES;
    if (engine_create(model, &options, &rig.engine, &err) != STATUS_OK) fail_msg("%s", err.text);
    assert_int_equal(engine_threads(rig.engine), o->threads);
    return rig;
}

static void rig_free(struct rig *rig)
{
    engine_destroy(rig->engine);
    free(rig->slab);
}

/* A sequence: its tokens, page table, and a row of logits for each token. */
struct sequence {
    uint32_t *tokens;
    uint32_t count;
    uint32_t pages[SEQUENCE_PAGES];
    float *logits;
    uint32_t vocab;
};

static struct sequence sequence_new(uint64_t content, uint32_t count, uint32_t vocab,
                                    uint32_t first_page)
{
    struct sequence s = { .count = count, .vocab = vocab };
    struct rng rng;

    rng_init(&rng, content);
    s.tokens = calloc(count, sizeof(*s.tokens));
    s.logits = calloc((size_t)count * vocab, sizeof(*s.logits));
    assert_non_null(s.tokens);
    assert_non_null(s.logits);
    for (uint32_t i = 0; i < count; i++)
        s.tokens[i] = (uint32_t)rng_below(&rng, vocab);
    for (uint32_t i = 0; i < SEQUENCE_PAGES; i++)
        s.pages[i] = (first_page + i * 7) % PAGES; /* no order that anything could rely on */
    return s;
}

static void sequence_free(struct sequence *s)
{
    free(s->tokens);
    free(s->logits);
}

static struct engine_item item_of(struct sequence *s, uint32_t position, uint32_t count)
{
    return (struct engine_item){ .pages = s->pages,
                                 .pages_count = SEQUENCE_PAGES,
                                 .position = position,
                                 .tokens = s->tokens + position,
                                 .tokens_count = count,
                                 .logits = s->logits + (size_t)position * s->vocab,
                                 .logits_all = true };
}

static void run_chunks(struct rig *rig, struct sequence *s, uint32_t from, uint32_t to,
                       uint32_t chunk)
{
    for (uint32_t at = from; at < to; at += chunk) {
        const struct engine_item item = item_of(s, at, to - at < chunk ? to - at : chunk);
        assert_int_equal(engine_step(rig->engine, &item, 1, NULL), STATUS_OK);
    }
}

static const uint8_t *kv_of(const struct rig *rig, const struct sequence *s, uint32_t layer,
                            uint32_t head, uint32_t token)
{
    const struct engine_layout *l = &rig->layout;
    const size_t slot = (size_t)head * l->block_tokens + token % l->block_tokens;
    return rig->slab + s->pages[token / l->block_tokens] * l->page_size + layer * l->layer_size +
           slot * l->token_size;
}

/* Every byte of KV (heads: those of K, then those of V) and every logit of tokens [from, to). */
static void assert_same(const struct rig *a, const struct sequence *sa, const struct rig *b,
                        const struct sequence *sb, uint32_t from, uint32_t to)
{
    for (uint32_t t = from; t < to; t++) {
        for (uint32_t i = 0; i < a->layout.n_layers * a->layout.kv_heads * 2; i++) {
            const uint32_t layer = i / (a->layout.kv_heads * 2),
                           head = i % (a->layout.kv_heads * 2);
            assert_memory_equal(kv_of(a, sa, layer, head, t), kv_of(b, sb, layer, head, t),
                                a->layout.token_size);
        }
        assert_memory_equal(sa->logits + (size_t)t * sa->vocab, sb->logits + (size_t)t * sa->vocab,
                            sa->vocab * sizeof(float));
    }
}

/* ---- the invariance, for any model ---- */

struct subject {
    const struct model *model;
    uint32_t tokens;
    enum engine_isa isa;
    enum engine_kv kv;
};

static void check_chunks_and_threads(const struct subject *subject, struct rig *reference,
                                     struct sequence *expected)
{
    static const struct {
        uint32_t chunk, threads, block_tokens;
    } cases[] = { { 512, 1, 32 }, { 32, 2, 32 }, { 512, 3, 16 }, { 77, 2, 64 } };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct rig_options options = { cases[i].threads, cases[i].block_tokens, subject->isa,
                                             subject->kv };
        struct rig rig = rig_new(subject->model, &options);
        struct sequence s = sequence_new(seed, expected->count, expected->vocab, 3);
        run_chunks(&rig, &s, 0, s.count, cases[i].chunk);
        assert_same(&rig, &s, reference, expected, 0, s.count);
        sequence_free(&s);
        rig_free(&rig);
    }
}

/* Eight sequences, of which the last is the expected one, and one that is prefilled meanwhile. */
static void check_batch(const struct subject *subject, struct rig *reference,
                        struct sequence *expected)
{
    const struct rig_options options = { 2, 32, subject->isa, subject->kv };
    struct rig rig = rig_new(subject->model, &options);
    struct sequence s[8];
    const uint32_t half = expected->count / 2, end = half + 8;

    for (uint32_t i = 0; i < 8; i++) {
        s[i] = sequence_new(i == 7 ? seed : seed + i, expected->count, expected->vocab, 0);
        const uint32_t each = PAGES / 8;
        for (uint32_t p = 0; p < SEQUENCE_PAGES; p++)
            s[i].pages[p] = i * each + p % each;
        run_chunks(&rig, &s[i], 0, i == 7 ? half : 1 + i, 100);
    }
    for (uint32_t at = half; at < end; at++) {
        struct engine_item items[8];
        items[0] = item_of(&s[0], 1 + (at - half) * 4, 4);
        for (uint32_t i = 1; i < 8; i++)
            items[i] = item_of(&s[i], i == 7 ? at : 1 + i + at - half, 1);
        assert_int_equal(engine_step(rig.engine, items, 8, NULL), STATUS_OK);
    }
    assert_same(&rig, &s[7], reference, expected, 0, end);
    for (uint32_t i = 0; i < 8; i++)
        sequence_free(&s[i]);
    rig_free(&rig);
}

/* The first pages come from the reference engine as bytes; only the rest is computed. */
static void check_reused_prefix(const struct subject *subject, struct rig *reference,
                                struct sequence *expected)
{
    const struct rig_options options = { 2, 32, subject->isa, subject->kv };
    struct rig rig = rig_new(subject->model, &options);
    struct sequence s = sequence_new(seed, expected->count, expected->vocab, 50);
    const uint32_t reused = (expected->count - 1) / 32;

    for (uint32_t p = 0; p < reused; p++) {
        memcpy(rig.slab + s.pages[p] * rig.layout.page_size,
               reference->slab + expected->pages[p] * rig.layout.page_size, rig.layout.page_size);
    }
    run_chunks(&rig, &s, reused * 32, s.count, 512);
    assert_same(&rig, &s, reference, expected, reused * 32, s.count);
    sequence_free(&s);
    rig_free(&rig);
}

static void check_subject(const struct subject *subject)
{
    const struct rig_options options = { 1, 32, subject->isa, subject->kv };
    struct rig reference = rig_new(subject->model, &options);
    struct sequence expected =
        sequence_new(seed, subject->tokens, engine_vocab_size(reference.engine), 0);

    run_chunks(&reference, &expected, 0, expected.count, 1);
    check_chunks_and_threads(subject, &reference, &expected);
    check_batch(subject, &reference, &expected);
    check_reused_prefix(subject, &reference, &expected);
    sequence_free(&expected);
    rig_free(&reference);
}

/* ---- models ---- */

struct tiny {
    struct gguf_maker maker;
    struct model *model;
};

static void tiny_new(struct tiny *tiny, const struct tiny_model_options *options)
{
    struct errmsg err = { { 0 } };
    size_t size;

    gguf_maker_init(&tiny->maker);
    tiny_model_make(&tiny->maker, options);
    const uint8_t *data = gguf_maker_finish(&tiny->maker, &size);
    if (model_parse(data, size, &tiny->model, &err) != STATUS_OK) fail_msg("%s", err.text);
}

static void tiny_free(struct tiny *tiny)
{
    model_destroy(tiny->model);
    gguf_maker_fini(&tiny->maker);
}

/* Whether the i-th type is run with this ISA. */
static bool meets(size_t i, enum engine_isa isa)
{
    if (EVERY_TYPE) return isa != ENGINE_ISA_PORTABLE || i % 3 == 0;
    return i % 3 == 0 && (int)isa == ENGINE_ISA_PORTABLE + (int)(i / 3 % 3);
}

static void tiny_models_are_row_invariant(void **state)
{
    static const uint32_t types[] = { MODEL_F32,  MODEL_F16,  MODEL_BF16, MODEL_Q4_0,
                                      MODEL_Q4_1, MODEL_Q5_0, MODEL_Q5_1, MODEL_Q8_0,
                                      MODEL_Q4_K, MODEL_Q5_K, MODEL_Q6_K };

    (void)state;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        const bool super = model_block_elements(types[i]) == MODEL_SUPER_ELEMENTS;
        for (int isa = ENGINE_ISA_PORTABLE; isa <= ENGINE_ISA_AVX512; isa++) {
            struct tiny_model_options options = tiny_model_defaults;
            struct tiny tiny;
            if (!meets(i, (enum engine_isa)isa)) continue;
            if (!engine_isa_supported((enum engine_isa)isa)) {
                printf("SKIPPED: this CPU has no %s\n", engine_isa_name((enum engine_isa)isa));
                continue;
            }
            options.matrix_type = types[i];
            options.n_heads = super ? 16 : 6;
            options.n_kv_heads = super ? 4 : i % 2 == 0 ? 2 : 3;
            options.d_ff = super ? 256 : 96;
            options.separate_output = i % 2 == 0;
            options.seed = seed + i;
            tiny_new(&tiny, &options);
            const struct subject subject = { tiny.model, TINY_TOKENS, (enum engine_isa)isa,
                                             ENGINE_KV_F16 };
            check_subject(&subject);
            tiny_free(&tiny);
        }
    }
}

/* The logits of a tiny model with what `scaling` adds to it. */
enum scaling { SCALING_NONE, SCALING_LINEAR, SCALING_FACTORS, SCALING_FACTORS_ONE };

static struct sequence run_scaled(enum scaling scaling)
{
    const float factor = scaling == SCALING_FACTORS ? 4 : 1;
    const float factors[8] = { factor, factor, factor, factor, factor, factor, factor, factor };
    const struct rig_options options = { 1, 32, ENGINE_ISA_PORTABLE, ENGINE_KV_F16 };
    struct tiny tiny;
    struct errmsg err = { { 0 } };
    size_t size;

    gguf_maker_init(&tiny.maker);
    tiny_model_make(&tiny.maker, &tiny_model_defaults);
    if (scaling == SCALING_LINEAR) gguf_maker_f32(&tiny.maker, "llama.rope.scaling.factor", 4);
    if (scaling == SCALING_FACTORS || scaling == SCALING_FACTORS_ONE) {
        gguf_maker_tensor(&tiny.maker, "rope_freqs.weight", MODEL_F32, 8, 1, factors,
                          sizeof(factors));
    }
    const uint8_t *data = gguf_maker_finish(&tiny.maker, &size);
    if (model_parse(data, size, &tiny.model, &err) != STATUS_OK) fail_msg("%s", err.text);
    struct rig rig = rig_new(tiny.model, &options);
    struct sequence s = sequence_new(seed, 40, TINY_VOCAB, 0);
    run_chunks(&rig, &s, 0, 40, 40);
    rig_free(&rig);
    tiny_free(&tiny);
    return s;
}

static bool same_logits(const struct sequence *a, const struct sequence *b)
{
    return memcmp(a->logits, b->logits, (size_t)a->count * a->vocab * sizeof(float)) == 0;
}

/* Dividing every frequency by 4 is what linear scaling by 4 does; factors of 1 do nothing. */
static void rope_scaling_is_computed(void **state)
{
    (void)state;
    struct sequence none = run_scaled(SCALING_NONE), linear = run_scaled(SCALING_LINEAR);
    struct sequence factors = run_scaled(SCALING_FACTORS), one = run_scaled(SCALING_FACTORS_ONE);
    assert_true(same_logits(&none, &one));
    assert_true(same_logits(&linear, &factors));
    assert_false(same_logits(&none, &linear));
    sequence_free(&none);
    sequence_free(&linear);
    sequence_free(&factors);
    sequence_free(&one);
}

/* A tiny model with twice the heads, of twice the width. */
static void wide_new(struct tiny *tiny)
{
    struct tiny_model_options options = tiny_model_defaults;

    options.n_heads *= 2;
    options.n_kv_heads *= 2;
    options.head_dim *= 2;
    tiny_new(tiny, &options);
}

/* Stronger than promised: the ISA classes agree with each other. */
static void check_isa_classes(enum engine_kv kv)
{
    struct tiny tiny;
    const struct rig_options portable = { 1, 32, ENGINE_ISA_PORTABLE, kv };

    wide_new(&tiny);
    struct rig reference = rig_new(tiny.model, &portable);
    struct sequence expected = sequence_new(seed, 150, TINY_VOCAB, 0);
    run_chunks(&reference, &expected, 0, 150, 64);
    for (int isa = ENGINE_ISA_AVX2; isa <= ENGINE_ISA_AVX512; isa++) {
        if (!engine_isa_supported((enum engine_isa)isa)) {
            printf("SKIPPED: this CPU has no %s\n", engine_isa_name((enum engine_isa)isa));
            continue;
        }
        const struct rig_options options = { 2, 32, (enum engine_isa)isa, kv };
        struct rig rig = rig_new(tiny.model, &options);
        struct sequence s = sequence_new(seed, 150, TINY_VOCAB, 11);
        run_chunks(&rig, &s, 0, 150, 50);
        assert_same(&rig, &s, &reference, &expected, 0, 150);
        sequence_free(&s);
        rig_free(&rig);
    }
    sequence_free(&expected);
    rig_free(&reference);
    tiny_free(&tiny);
}

static void isa_classes_agree(void **state)
{
    (void)state;
    check_isa_classes(ENGINE_KV_F16);
    check_isa_classes(ENGINE_KV_Q8_0);
}

/* Pages of Q8_0 are as row-invariant as those of halves, in 17/32 of the bytes; what is computed
 * from them is near, and not the same. */
static void quantized_kv_is_row_invariant(void **state)
{
    struct tiny tiny;
    double most = 0, difference = 0;

    (void)state;
    wide_new(&tiny);
    const struct subject subject = { tiny.model, TINY_TOKENS, ENGINE_ISA_AUTO, ENGINE_KV_Q8_0 };
    check_subject(&subject);
    const struct rig_options halves = { 1, 32, ENGINE_ISA_AUTO, ENGINE_KV_F16 };
    const struct rig_options bytes = { 1, 32, ENGINE_ISA_AUTO, ENGINE_KV_Q8_0 };
    struct rig a = rig_new(tiny.model, &halves), b = rig_new(tiny.model, &bytes);
    struct sequence x = sequence_new(seed, TINY_TOKENS, TINY_VOCAB, 0);
    struct sequence y = sequence_new(seed, TINY_TOKENS, TINY_VOCAB, 0);
    assert_int_equal(b.layout.layer_size * 32, a.layout.layer_size * 17);
    run_chunks(&a, &x, 0, TINY_TOKENS, 64);
    run_chunks(&b, &y, 0, TINY_TOKENS, 64);
    for (size_t i = 0; i < (size_t)TINY_TOKENS * TINY_VOCAB; i++) {
        most = fmax(most, fabs((double)x.logits[i]));
        difference = fmax(difference, fabs((double)x.logits[i] - (double)y.logits[i]));
    }
    assert_true(difference > 0 && difference < 0.05 * most);
    sequence_free(&x);
    sequence_free(&y);
    rig_free(&a);
    rig_free(&b);
    tiny_free(&tiny);
}

static void real_model_is_row_invariant(void **state)
{
    struct env *env = NULL;
    struct model *model = NULL;
    struct errmsg err = { { 0 } };

    (void)state;
    if (REAL_TOKENS == 0) skip();
    if (access(model_path(), R_OK) != 0) {
        const char *ci = getenv("CI");
        if (ci != NULL && strcmp(ci, "true") == 0) fail_msg("no model at %s", model_path());
        printf("SKIPPED: no model at %s\n", model_path());
        skip();
    }
    assert_int_equal(env_real_create(NULL, &env, &err), STATUS_OK);
    if (model_open(env, model_path(), &model, &err) != STATUS_OK) fail_msg("%s", err.text);
    const struct subject subject = { model, REAL_TOKENS, ENGINE_ISA_AUTO, ENGINE_KV_F16 };
    check_subject(&subject);
    model_destroy(model);
    env_real_destroy(env);
}

/* ---- what callers may get wrong ---- */

static void bad_steps_are_refused(void **state)
{
    const struct rig_options options = { 1, 32, ENGINE_ISA_AUTO, ENGINE_KV_F16 };
    struct tiny tiny;

    (void)state;
    tiny_new(&tiny, &tiny_model_defaults);
    struct rig rig = rig_new(tiny.model, &options);
    struct sequence s = sequence_new(seed, 600, TINY_VOCAB, 0);
    uint8_t *before = malloc(PAGES * rig.layout.page_size);
    assert_non_null(before);
    memcpy(before, rig.slab, PAGES * rig.layout.page_size);
    struct engine_item bad[8];
    for (int i = 0; i < 8; i++)
        bad[i] = item_of(&s, 0, 40);
    const uint32_t outside[2] = { 0, PAGES };
    uint32_t stranger[40] = { 0 };
    stranger[39] = TINY_VOCAB;
    bad[0].tokens_count = 0;
    bad[1].tokens_count = ENGINE_ROWS_MAX + 1;
    bad[2].pages_count = 1;
    bad[3].pages = outside;
    bad[3].pages_count = 2;
    bad[4].tokens = stranger;
    bad[5].position = engine_context_max(rig.engine);
    bad[6].position = UINT32_MAX - 3;
    bad[7].position = engine_context_max(rig.engine) - 39;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(engine_step(rig.engine, &bad[i], 1, NULL), STATUS_INVALID);
    }
    const struct engine_item two[2] = { item_of(&s, 0, 300), item_of(&s, 300, 213) };
    assert_int_equal(engine_step(rig.engine, two, 2, NULL), STATUS_INVALID);
    assert_int_equal(engine_step(rig.engine, two, 0, NULL), STATUS_INVALID);
    assert_memory_equal(before, rig.slab, PAGES * rig.layout.page_size);
    free(before);
    sequence_free(&s);
    rig_free(&rig);
    tiny_free(&tiny);
}

static void bad_options_are_refused(void **state)
{
    static uint8_t _Alignas(64) page[64];
    struct tiny tiny;
    struct engine *engine = NULL;
    struct engine_layout layout = { .block_tokens = 77 };
    enum engine_isa isa = ENGINE_ISA_AVX2;
    struct errmsg err = { { 0 } };

    (void)state;
    tiny_new(&tiny, &tiny_model_defaults);
    const struct engine_options threads = { .threads = ENGINE_THREADS_MAX + 1, .pages = page };
    assert_int_equal(engine_create(tiny.model, &threads, &engine, &err), STATUS_INVALID);
    const struct engine_options block = { .threads = 1, .block_tokens = 48, .pages = page };
    assert_int_equal(engine_create(tiny.model, &block, &engine, &err), STATUS_INVALID);
    const struct engine_options context = { .threads = 1, .context_max = 4097, .pages = page };
    assert_int_equal(engine_create(tiny.model, &context, &engine, &err), STATUS_INVALID);
    assert_string_equal(err.text, "context of 4097 tokens: the model was trained for 4096");
    assert_null(engine);
    for (uint32_t bad = 8; bad <= 1024; bad *= 128) {
        const struct engine_options options = { .block_tokens = bad, .isa = isa };
        assert_int_equal(engine_layout_query(tiny.model, &options, &layout, &err), STATUS_INVALID);
    }
    const struct engine_options narrow = { .kv = ENGINE_KV_Q8_0 }; /* heads of 16 */
    assert_int_equal(engine_layout_query(tiny.model, &narrow, &layout, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "q8_0"));
    assert_int_equal(layout.block_tokens, 77);
    assert_int_equal(engine_isa_parse("sse9", &isa), STATUS_INVALID);
    assert_int_equal(isa, ENGINE_ISA_AVX2);
    for (int i = ENGINE_ISA_AUTO; i <= ENGINE_ISA_AVX512; i++) {
        assert_int_equal(engine_isa_parse(engine_isa_name((enum engine_isa)i), &isa), STATUS_OK);
        assert_int_equal(isa, i);
    }
    engine_destroy(NULL);
    tiny_free(&tiny);
}

static void layout_is_as_documented(void **state)
{
    struct tiny_model_options options = tiny_model_defaults;
    struct engine_layout layout;
    struct tiny tiny;

    (void)state;
    options.n_layers = 3;
    options.n_heads = 4;
    options.n_kv_heads = 2;
    tiny_new(&tiny, &options);
    struct engine_options query = { .block_tokens = 64, .isa = ENGINE_ISA_PORTABLE };
    assert_int_equal(engine_layout_query(tiny.model, &query, &layout, NULL), STATUS_OK);
    assert_int_equal(layout.layer_size, 2 * 2 * 64 * 16 * 2);
    assert_int_equal(layout.page_size, 24576); /* 3 * 8192, a multiple of 4096 already */
    assert_string_equal(layout.id, "lm-f16-l3-h2-d16-t64");
    assert_string_equal(layout.isa_name, "portable");
    tiny_free(&tiny);
    wide_new(&tiny);
    query.kv = ENGINE_KV_Q8_0;
    assert_int_equal(engine_layout_query(tiny.model, &query, &layout, NULL), STATUS_OK);
    assert_int_equal(layout.token_size, 34);
    assert_int_equal(layout.layer_size, 2 * 2 * 64 * 34);
    assert_string_equal(layout.id, "lm-q8_0-l2-h2-d32-t64");
    tiny_free(&tiny);
}

/* ---- hooks ---- */

struct watcher {
    struct rig *rig;
    struct sequence *s;
    uint32_t before, after;
    uint32_t refuse_at;
    uint8_t *seen; /* each layer's KV of page 0 when after_layer ran */
};

static bool watch_before(void *ctx, uint32_t layer)
{
    struct watcher *w = ctx;
    assert_int_equal(layer, w->before);
    assert_int_equal(layer, w->after);
    w->before++;
    return layer != w->refuse_at;
}

static void watch_after(void *ctx, uint32_t layer)
{
    struct watcher *w = ctx;
    const struct engine_layout *l = &w->rig->layout;
    assert_int_equal(layer, w->after);
    w->after++;
    memcpy(w->seen + layer * l->layer_size,
           w->rig->slab + w->s->pages[0] * l->page_size + layer * l->layer_size, l->layer_size);
}

static void hooks_see_finished_layers(void **state)
{
    struct tiny tiny;

    (void)state;
    tiny_new(&tiny, &tiny_model_defaults);
    for (uint32_t count = 3; count <= 200; count += 197) { /* by columns, and by rows */
        const struct rig_options options = { 2, 32, ENGINE_ISA_AUTO, ENGINE_KV_F16 };
        struct rig rig = rig_new(tiny.model, &options);
        struct sequence s = sequence_new(seed, count, TINY_VOCAB, 0);
        struct watcher w = { .rig = &rig, .s = &s, .refuse_at = UINT32_MAX };
        const struct engine_hooks hooks = { watch_before, watch_after, &w };
        w.seen = calloc(1, rig.layout.page_size);
        assert_non_null(w.seen);
        const struct engine_item item = item_of(&s, 0, count);
        assert_int_equal(engine_step(rig.engine, &item, 1, &hooks), STATUS_OK);
        assert_int_equal(w.after, rig.layout.n_layers);
        /* Nothing was written to a layer after its hook. */
        assert_memory_equal(w.seen, rig.slab + s.pages[0] * rig.layout.page_size,
                            rig.layout.n_layers * rig.layout.layer_size);
        w.before = w.after = 0;
        w.refuse_at = 1;
        assert_int_equal(engine_step(rig.engine, &item, 1, &hooks), STATUS_CANCELLED);
        assert_int_equal(w.after, 1);
        free(w.seen);
        sequence_free(&s);
        rig_free(&rig);
    }
    tiny_free(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_is_as_documented),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(bad_steps_are_refused),
        cmocka_unit_test(hooks_see_finished_layers),
        cmocka_unit_test(tiny_models_are_row_invariant),
        cmocka_unit_test(isa_classes_agree),
        cmocka_unit_test(quantized_kv_is_row_invariant),
        cmocka_unit_test(rope_scaling_is_computed),
        cmocka_unit_test(real_model_is_row_invariant),
    };

    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
