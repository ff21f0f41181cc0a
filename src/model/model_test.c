/* SPDX-License-Identifier: Apache-2.0
 *
 * model/model_test.c
 *
 * Goal:   a model that is handed out can be computed; any other is refused by a message that names
 *         what is wrong.
 * Method: small models made in memory, one fault at a time; the real model where it is there. */
#include "model/model.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env_real.h"
#include "gguf_maker.h"
#include "model/gguf.h"
#include "model_path.h"
#include "tiny_model.h"

static void row_sizes(void **state)
{
    (void)state;
    assert_int_equal(model_row_size(MODEL_F32, 576), 2304);
    assert_int_equal(model_row_size(MODEL_F16, 3), 6);
    assert_int_equal(model_row_size(MODEL_Q4_0, 64), 36);
    assert_int_equal(model_row_size(MODEL_Q4_1, 64), 40);
    assert_int_equal(model_row_size(MODEL_Q8_0, 64), 68);
    assert_int_equal(model_row_size(MODEL_Q4_1, 33), 0);
    assert_int_equal(model_row_size(MODEL_Q5_0, 64), 44);
    assert_int_equal(model_row_size(MODEL_Q5_1, 64), 48);
    assert_int_equal(model_row_size(MODEL_BF16, 5), 10);
    assert_int_equal(model_row_size(MODEL_Q4_K, 512), 288);
    assert_int_equal(model_row_size(MODEL_Q5_K, 512), 352);
    assert_int_equal(model_row_size(MODEL_Q6_K, 512), 420);
    assert_int_equal(model_row_size(MODEL_Q6_K, 128), 0);
    assert_int_equal(model_row_size(10, 256), 0);
    assert_int_equal(model_block_elements(10), 0);
    assert_int_equal(model_block_elements(MODEL_Q4_K), 256);
    assert_int_equal(model_block_elements(MODEL_BF16), 1);
    assert_int_equal(model_row_size(MODEL_F32, UINT64_MAX), 0);
    assert_string_equal(model_type_name(12), "q4_k");
    assert_string_equal(model_type_name(4), "unknown");
    assert_string_equal(model_type_name(4000000000), "unknown");
}

static void every_type_opens(void **state)
{
    static const uint32_t types[] = { MODEL_F32,  MODEL_F16,  MODEL_BF16, MODEL_Q4_0,
                                      MODEL_Q4_1, MODEL_Q5_0, MODEL_Q5_1, MODEL_Q8_0,
                                      MODEL_Q4_K, MODEL_Q5_K, MODEL_Q6_K };
    const size_t count = sizeof(types) / sizeof(types[0]);

    (void)state;
    for (size_t i = 0; i < 2 * count; i++) {
        struct tiny_model_options options = tiny_model_defaults;
        struct gguf_maker maker;
        struct model *model;
        struct errmsg err = { { 0 } };
        size_t size;
        options.matrix_type = types[i % count];
        options.separate_output = i >= count;
        const bool super = model_block_elements(options.matrix_type) == MODEL_SUPER_ELEMENTS;
        const uint32_t width = super ? 256 : 32;
        options.n_heads = width / 16;
        if (super) options.d_ff = 512;
        gguf_maker_init(&maker);
        tiny_model_make(&maker, &options);
        const uint8_t *data = gguf_maker_finish(&maker, &size);
        if (model_parse(data, size, &model, &err) != STATUS_OK) fail_msg("%s", err.text);

        const struct model_params *p = model_params(model);
        assert_int_equal(p->n_layers, 2);
        assert_int_equal(p->d_model, width);
        assert_int_equal(p->head_dim, 16);
        assert_int_equal(p->rope_dims, 16);
        assert_int_equal(p->vocab, TINY_VOCAB);
        assert_true(p->rope_base == 10000);
        assert_true(p->tied_output == !options.separate_output);
        assert_true((model_output(model)->data == model_token_embd(model)->data) == p->tied_output);
        const struct model_layer *layer = model_layer(model, 1);
        assert_int_equal(layer->ffn_down.type, options.matrix_type);
        assert_int_equal(layer->ffn_down.ne[0], options.d_ff);
        assert_int_equal(layer->ffn_down.ne[1], width);
        assert_int_equal(layer->attn_k.ne[1], 16);
        const uint8_t *end =
            (const uint8_t *)layer->ffn_down.data + layer->ffn_down.row_size * width;
        assert_true(end <= data + size);
        assert_string_equal(model_name(model), "tiny");
        model_destroy(model);
        gguf_maker_fini(&maker);
    }
}

/* ---- one fault at a time ---- */

static void expect_refusal(struct gguf_maker *maker, enum status expected, const char *words)
{
    struct model *model = NULL;
    struct errmsg err = { { 0 } };
    size_t size;

    const void *data = gguf_maker_finish(maker, &size);
    const enum status status = model_parse(data, size, &model, &err);
    if (status != expected || strstr(err.text, words) == NULL) {
        fail_msg("%s: \"%s\", expected %s: \"%s\"", status_name(status), err.text,
                 status_name(expected), words);
    }
    assert_null(model);
    gguf_maker_fini(maker);
}

/* Keys that a whole model refuses when added. */
static void features_that_are_not_computed(void **state)
{
    struct gguf_maker maker;

    (void)state;
    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    gguf_maker_u32(&maker, "llama.expert_count", 8);
    expect_refusal(&maker, STATUS_UNSUPPORTED, "llama.expert_count is 8");

    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    gguf_maker_string(&maker, "llama.rope.scaling.type", "yarn");
    expect_refusal(&maker, STATUS_UNSUPPORTED, "llama.rope.scaling.type is \"yarn\"");

    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    gguf_maker_string(&maker, "llama.rope.scaling.type", "none");
    gguf_maker_f32(&maker, "llama.rope.scaling.factor", 2);
    expect_refusal(&maker, STATUS_INVALID, "llama.rope.scaling.factor is 2");

    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    static const float factors[8] = { 1, 1, 1, 1, 1, 1, 1, 0 };
    gguf_maker_tensor(&maker, "rope_freqs.weight", MODEL_F32, 8, 1, factors, sizeof(factors));
    expect_refusal(&maker, STATUS_INVALID, "rope_freqs.weight: factor 7 is 0");

    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    gguf_maker_tensor(&maker, "rope_freqs.weight", MODEL_F32, 6, 1, factors, 24);
    expect_refusal(&maker, STATUS_INVALID, "tensor rope_freqs.weight is 6 x 1");

    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    gguf_maker_tensor(&maker, "blk.0.attn_q.bias", MODEL_F32, 32, 1, NULL, 128);
    expect_refusal(&maker, STATUS_UNSUPPORTED, "blk.0.attn_q.bias");

    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    gguf_maker_tensor(&maker, "blk.2.attn_norm.weight", MODEL_F32, 32, 1, NULL, 128);
    expect_refusal(&maker, STATUS_UNSUPPORTED, "blk.2.attn_norm.weight");

    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    gguf_maker_u32(&maker, "llama.attention.value_length", 8);
    expect_refusal(&maker, STATUS_UNSUPPORTED, "keys of 16 and values of 8");
}

static void hyper_parameters_out_of_range(void **state)
{
    static const struct {
        const char *key;
        uint32_t value;
        enum status status;
        const char *words;
    } cases[] = {
        { "llama.block_count", 0, STATUS_INVALID, "llama.block_count is 0" },
        { "llama.block_count", 257, STATUS_UNSUPPORTED, "at most 256" },
        { "llama.attention.head_count", 0, STATUS_INVALID, "llama.attention.head_count is 0" },
        { "llama.attention.head_count", 3, STATUS_INVALID, "not a multiple of 3 heads" },
        { "llama.attention.head_count_kv", 3, STATUS_UNSUPPORTED, "head_count_kv is 3, at most 2" },
        { "llama.embedding_length", 1u << 31, STATUS_UNSUPPORTED, "llama.embedding_length" },
        { "llama.embedding_length", 6, STATUS_UNSUPPORTED, "head dimension 3 is odd" },
        { "llama.embedding_length", 1, STATUS_INVALID, "width 1 is not a multiple of 2" },
        { "llama.embedding_length", 64, STATUS_INVALID, "token_embd.weight is 32 x 263" },
        { "llama.feed_forward_length", 32, STATUS_INVALID, "ffn_gate.weight is 32 x 64" },
        { "llama.vocab_size", 262, STATUS_INVALID, "llama.vocab_size is 262" },
        { "llama.block_count", 3, STATUS_INVALID, "no tensor blk.2.attn_norm.weight" },
        { "llama.block_count", 1, STATUS_UNSUPPORTED, "tensor blk.1." },
        { "llama.context_length", 0, STATUS_INVALID, "llama.context_length is 0" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gguf_maker maker;
        gguf_maker_init(&maker);
        tiny_model_make(&maker, &tiny_model_defaults);
        /* The key's name occurs once; its value stands behind the four bytes of the type. */
        const size_t len = strlen(cases[i].key);
        uint8_t *at = memmem(maker.keys.data, maker.keys.len, cases[i].key, len);
        assert_non_null(at);
        while (at[len] != 4 || at[len + 1] != 0) { /* head_count is the start of head_count_kv */
            at = memmem(at + 1, maker.keys.len, cases[i].key, len);
            assert_non_null(at);
        }
        for (int k = 0; k < 4; k++)
            at[len + 4 + k] = (uint8_t)(cases[i].value >> (8 * k));
        expect_refusal(&maker, cases[i].status, cases[i].words);
    }
}

static void keys_and_tensors_missing_or_wrong(void **state)
{
    struct gguf_maker maker;

    (void)state;
    gguf_maker_init(&maker);
    expect_refusal(&maker, STATUS_INVALID, "no key general.architecture");

    gguf_maker_init(&maker);
    gguf_maker_string(&maker, "general.architecture", "qwen2\x1b[31m");
    expect_refusal(
        &maker, STATUS_UNSUPPORTED,
        "architecture \"qwen2?[31m\" is not supported, supported are llama qwen2 qwen3 gemma3");

    gguf_maker_init(&maker);
    gguf_maker_u32(&maker, "general.architecture", 1);
    expect_refusal(&maker, STATUS_INVALID, "is of type u32, expected string");

    gguf_maker_init(&maker);
    gguf_maker_string(&maker, "general.architecture", "llama");
    expect_refusal(&maker, STATUS_INVALID, "no key llama.block_count");

    gguf_maker_init(&maker);
    tiny_params_keys(&maker, &tiny_model_defaults);
    expect_refusal(&maker, STATUS_INVALID, "no key tokenizer.ggml.tokens");

    gguf_maker_init(&maker);
    tiny_params_keys(&maker, &tiny_model_defaults);
    tiny_tokenizer_keys(&maker, "smollm");
    expect_refusal(&maker, STATUS_INVALID, "no tensor token_embd.weight");

    gguf_maker_init(&maker);
    tiny_params_keys(&maker, &tiny_model_defaults);
    tiny_tokenizer_keys(&maker, "smollm");
    gguf_maker_tensor(&maker, "token_embd.weight", 10, 32, TINY_VOCAB, NULL, 1);
    expect_refusal(&maker, STATUS_UNSUPPORTED,
                   "token_embd.weight is of type q2_k (10), supported are f32");

    gguf_maker_init(&maker);
    tiny_params_keys(&maker, &tiny_model_defaults);
    tiny_tokenizer_keys(&maker, "smollm");
    gguf_maker_tensor(&maker, "token_embd.weight", MODEL_F32, 32, TINY_VOCAB, NULL, 1000);
    expect_refusal(&maker, STATUS_INVALID, "token_embd.weight runs past the end of the file");

    gguf_maker_init(&maker);
    tiny_params_keys(&maker, &tiny_model_defaults);
    tiny_tokenizer_keys(&maker, "smollm");
    gguf_maker_tensor(&maker, "token_embd.weight", MODEL_F16, 32, TINY_VOCAB, NULL,
                      64 * TINY_VOCAB);
    gguf_maker_tensor(&maker, "output_norm.weight", MODEL_F16, 32, 1, NULL, 64);
    expect_refusal(&maker, STATUS_UNSUPPORTED, "output_norm.weight is of type f16, expected f32");

    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    gguf_maker_f32(&maker, "llama.rope.freq_base", __builtin_nanf(""));
    expect_refusal(&maker, STATUS_INVALID, "llama.rope.freq_base is nan");
}

/* ---- identity ---- */

static void fingerprint_of(struct gguf_maker *maker, size_t flip, uint8_t out[32])
{
    struct model *model;
    size_t size;

    uint8_t *data = gguf_maker_finish(maker, &size);
    if (flip > 0) data[size - flip] ^= 1;
    assert_int_equal(model_parse(data, size, &model, NULL), STATUS_OK);
    model_fingerprint(model, out);
    model_destroy(model);
    gguf_maker_fini(maker);
}

static void fingerprints_tell_models_apart(void **state)
{
    uint8_t first[32], again[32], other_name[32], other_weight[32];
    struct gguf_maker maker;

    (void)state;
    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    fingerprint_of(&maker, 0, first);
    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    fingerprint_of(&maker, 0, again);
    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    gguf_maker_f32(&maker, "llama.rope.freq_base", 20000);
    fingerprint_of(&maker, 0, other_name);
    gguf_maker_init(&maker);
    tiny_model_make(&maker, &tiny_model_defaults);
    fingerprint_of(&maker, 40, other_weight); /* the last tensor has 1280 bytes, no padding */

    assert_memory_equal(first, again, 32);
    assert_memory_not_equal(first, other_name, 32);
    assert_memory_not_equal(first, other_weight, 32);
}

/* ---- files ---- */

static void files_that_are_not_models(void **state)
{
    char path[] = "/tmp/yolk-model-test-XXXXXX";
    struct model *model = NULL;
    struct errmsg err;
    struct env *env;

    (void)state;
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "this is not a model, it is text.", 32), 32);
    close(fd);
    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    assert_int_equal(model_open(env, path, &model, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "not a GGUF file"));
    assert_int_equal(truncate(path, 0), 0);
    assert_int_not_equal(model_open(env, path, &model, &err), STATUS_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(model_open(env, path, &model, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, path));
    assert_null(model);
    env_real_destroy(env);
}

static void the_real_model(void **state)
{
    uint8_t fingerprint[32];
    struct model_summary summary;
    struct errmsg err = { { 0 } };
    struct model *model;
    struct env *env;

    (void)state;
    if (access(model_path(), R_OK) != 0) skip();
    assert_int_equal(env_real_create(NULL, &env, NULL), STATUS_OK);
    const uint64_t start = env_real_now_ns();
    if (model_open(env, model_path(), &model, &err) != STATUS_OK) fail_msg("%s", err.text);
    const uint64_t opened = env_real_now_ns();
    model_fingerprint(model, fingerprint);
    printf("opened in %.1f ms, fingerprint in %.1f ms\n", (double)(opened - start) / 1e6,
           (double)(env_real_now_ns() - opened) / 1e6);

    const struct model_params *p = model_params(model);
    assert_int_equal(p->n_layers, 30);
    assert_int_equal(p->n_heads, 9);
    assert_int_equal(p->n_kv_heads, 3);
    assert_int_equal(p->head_dim, 64);
    assert_int_equal(p->d_model, 576);
    assert_int_equal(p->d_ff, 1536);
    assert_int_equal(p->vocab, 49152);
    assert_int_equal(p->context, 8192);
    assert_true(p->rope_base == 100000 && p->rope_dims == 64 && p->tied_output);
    model_summarize(model, &summary);
    assert_string_equal(summary.types, "q4_1 210, q8_0 1, f32 61");
    assert_int_equal(summary.parameters, 134515008);
    model_destroy(model);
    env_real_destroy(env);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_sizes),
        cmocka_unit_test(every_type_opens),
        cmocka_unit_test(features_that_are_not_computed),
        cmocka_unit_test(hyper_parameters_out_of_range),
        cmocka_unit_test(keys_and_tensors_missing_or_wrong),
        cmocka_unit_test(fingerprints_tell_models_apart),
        cmocka_unit_test(files_that_are_not_models),
        cmocka_unit_test(the_real_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
