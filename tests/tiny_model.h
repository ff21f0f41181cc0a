/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/tiny_model.h - a model of a few kilobytes, of any architecture, made in memory: for tests
 * of everything that takes a model and does not need one that makes sense.
 *
 * Weights are small numbers from the seed. The vocabulary has two special tokens (0 is
 * <|im_start|>, 1 is <|im_end|>), the 256 bytes (token 2 + byte), and the merges " t", "he", "
 * the", "in", "er". */
#ifndef TESTS_TINY_MODEL_H
#define TESTS_TINY_MODEL_H

#include <stdbool.h>

#include "base/rng.h"
#include "gguf_maker.h"
#include "model/model.h"

struct tiny_model_options {
    enum model_arch arch;
    uint32_t n_layers, n_heads, n_kv_heads, head_dim, d_ff; /* multiples of 32 where rows are */
    uint32_t matrix_type;                                   /* of all matrices: enum model_type */
    bool separate_output;                                   /* has output.weight */
    uint32_t window;                                        /* gemma3 */
    uint64_t seed;
};

enum { TINY_VOCAB = 2 + 256 + 5 };

static const struct tiny_model_options tiny_model_defaults = {
    .n_layers = 2,
    .n_heads = 2,
    .n_kv_heads = 1,
    .head_dim = 16,
    .d_ff = 64,
    .matrix_type = MODEL_Q4_1,
};

/* UTF-8 of the character that stands for `byte` in a byte-level vocabulary. */
static inline void tiny_byte_text(int byte, char out[4])
{
    int code = byte, next = 256;

    for (int i = 0; i <= byte; i++) {
        const bool itself = (i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i != 0xad);
        code = itself ? i : next++;
    }
    snprintf(out, 4, "%c", code);
    if (code >= 0x80) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        out[2] = 0;
    }
}

static inline void tiny_tokenizer_keys(struct gguf_maker *maker, const char *pre)
{
    static const char *const merges[] = { "\xc4\xa0 t", "h e", "\xc4\xa0t he", "i n", "e r" };
    static const char *const merged[] = { "\xc4\xa0t", "he", "\xc4\xa0the", "in", "er" };
    const char *tokens[TINY_VOCAB] = { "<|im_start|>", "<|im_end|>" };
    int32_t kinds[TINY_VOCAB] = { 3, 3 };
    char bytes[256][4];

    for (int i = 0; i < 256; i++) {
        tiny_byte_text(i, bytes[i]);
        tokens[2 + i] = bytes[i];
    }
    for (int i = 0; i < 5; i++)
        tokens[258 + i] = merged[i];
    for (int i = 2; i < TINY_VOCAB; i++)
        kinds[i] = 1;
    gguf_maker_string(maker, "tokenizer.ggml.model", "gpt2");
    gguf_maker_string(maker, "tokenizer.ggml.pre", pre);
    gguf_maker_strings(maker, "tokenizer.ggml.tokens", tokens, TINY_VOCAB);
    gguf_maker_i32s(maker, "tokenizer.ggml.token_type", kinds, TINY_VOCAB);
    gguf_maker_strings(maker, "tokenizer.ggml.merges", merges, 5);
    gguf_maker_u32(maker, "tokenizer.ggml.bos_token_id", 0);
    gguf_maker_u32(maker, "tokenizer.ggml.eos_token_id", 1);
}

static inline void tiny_u32(struct gguf_maker *maker, enum model_arch arch, const char *key,
                            uint32_t value)
{
    char whole[64];

    snprintf(whole, sizeof(whole), "%s.%s", model_arch_name(arch), key);
    gguf_maker_u32(maker, whole, value);
}

static inline void tiny_params_keys(struct gguf_maker *maker, const struct tiny_model_options *o)
{
    char epsilon[64];

    gguf_maker_string(maker, "general.architecture", model_arch_name(o->arch));
    gguf_maker_string(maker, "general.name", "tiny");
    tiny_u32(maker, o->arch, "block_count", o->n_layers);
    tiny_u32(maker, o->arch, "context_length", 4096);
    tiny_u32(maker, o->arch, "embedding_length", o->n_heads * o->head_dim);
    tiny_u32(maker, o->arch, "feed_forward_length", o->d_ff);
    tiny_u32(maker, o->arch, "attention.head_count", o->n_heads);
    tiny_u32(maker, o->arch, "attention.head_count_kv", o->n_kv_heads);
    snprintf(epsilon, sizeof(epsilon), "%s.attention.layer_norm_rms_epsilon",
             model_arch_name(o->arch));
    gguf_maker_f32(maker, epsilon, 1e-5f);
    tiny_u32(maker, o->arch, "vocab_size", TINY_VOCAB);
    if (o->window != 0) tiny_u32(maker, o->arch, "attention.sliding_window", o->window);
}

/* Scales (half precision) of about 1/64, less where parts of a block have scales of their own, and
 * a minimum, where the type has one, that centres the weights. */
static inline void tiny_scales(uint32_t type, uint8_t *block)
{
    switch (type) {
    case MODEL_Q8_0: block[1] = 0x14; break;
    case MODEL_Q4_1:
        block[3] = 0xb0;
        block[1] = 0x24;
        break;
    case MODEL_Q5_1:
        block[3] = 0xb0;
        block[1] = 0x20;
        break;
    case MODEL_Q5_0: block[1] = 0x20; break;
    case MODEL_Q4_K:
        block[1] = 0x10;
        block[3] = 0x1c;
        break;
    case MODEL_Q5_K:
        block[1] = 0x0c;
        block[3] = 0x1c;
        break;
    case MODEL_Q6_K: block[209] = 0x04; break;
    default: block[1] = 0x24; break;
    }
}

/* Random quants. */
static inline void tiny_matrix(struct gguf_maker *maker, struct rng *rng, const char *name,
                               uint32_t type, uint32_t ne0, uint32_t ne1)
{
    const size_t row_size = model_row_size(type, ne0), size = row_size * ne1;
    uint8_t *data = malloc(size);

    if (data == NULL || row_size == 0) abort();
    rng_fill(rng, data, size);
    const size_t block = model_row_size(type, model_block_elements(type));
    for (size_t at = 0; at < size; at += block) {
        if (type == MODEL_F32) {
            const float value = ((float)rng_unit(rng) - 0.5f) / 4;
            memcpy(data + at, &value, 4);
        } else if (type == MODEL_F16) {
            data[at + 1] = (data[at + 1] & 0x80) | 0x2c;
        } else if (type == MODEL_BF16) {
            data[at + 1] = (data[at + 1] & 0x80) | 0x3d;
        } else {
            tiny_scales(type, data + at);
        }
    }
    gguf_maker_tensor(maker, name, type, ne0, ne1, data, size);
    free(data);
}

/* `rng` NULL: ones; otherwise numbers around `middle`. */
static inline void tiny_vector(struct gguf_maker *maker, struct rng *rng, const char *name,
                               uint32_t width, float middle)
{
    float *values = malloc(width * sizeof(*values));

    if (values == NULL) abort();
    for (uint32_t i = 0; i < width; i++)
        values[i] = rng == NULL ? 1 : middle + (float)rng_unit(rng) - 0.5f;
    gguf_maker_tensor(maker, name, MODEL_F32, width, 1, values, width * sizeof(*values));
    free(values);
}

/* What other architectures have besides. */
static inline void tiny_extras(struct gguf_maker *maker, struct rng *rng,
                               const struct tiny_model_options *o, uint32_t index)
{
    const uint32_t width = o->n_heads * o->head_dim, kv = o->n_kv_heads * o->head_dim;
    const unsigned biased = 1 << MODEL_QWEN2, gemma = 1 << MODEL_GEMMA3;
    const unsigned head_norms = 1 << MODEL_QWEN3 | gemma;
    const struct {
        const char *name;
        uint32_t width;
        float middle;
        unsigned archs;
    } vectors[] = {
        { "attn_q.bias", width, 0, biased },
        { "attn_k.bias", kv, 0, biased },
        { "attn_v.bias", kv, 0, biased },
        { "attn_q_norm.weight", o->head_dim, 1, head_norms },
        { "attn_k_norm.weight", o->head_dim, 1, head_norms },
        { "post_attention_norm.weight", width, 1, gemma },
        { "post_ffw_norm.weight", width, 1, gemma },
    };
    char name[64];

    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        if ((vectors[i].archs >> o->arch & 1) == 0) continue;
        snprintf(name, sizeof(name), "blk.%u.%s", index, vectors[i].name);
        tiny_vector(maker, rng, name, vectors[i].width, vectors[i].middle);
    }
}

static inline void tiny_layer(struct gguf_maker *maker, struct rng *rng,
                              const struct tiny_model_options *o, uint32_t index)
{
    const uint32_t width = o->n_heads * o->head_dim, kv = o->n_kv_heads * o->head_dim;
    const struct {
        const char *name;
        uint32_t ne0, ne1;
    } matrices[] = {
        { "attn_q", width, width },     { "attn_k", width, kv },
        { "attn_v", width, kv },        { "attn_output", width, width },
        { "ffn_gate", width, o->d_ff }, { "ffn_up", width, o->d_ff },
        { "ffn_down", o->d_ff, width },
    };
    char name[64];

    snprintf(name, sizeof(name), "blk.%u.attn_norm.weight", index);
    tiny_vector(maker, NULL, name, width, 1);
    snprintf(name, sizeof(name), "blk.%u.ffn_norm.weight", index);
    tiny_vector(maker, NULL, name, width, 1);
    for (size_t i = 0; i < sizeof(matrices) / sizeof(matrices[0]); i++) {
        snprintf(name, sizeof(name), "blk.%u.%s.weight", index, matrices[i].name);
        tiny_matrix(maker, rng, name, o->matrix_type, matrices[i].ne0, matrices[i].ne1);
    }
    tiny_extras(maker, rng, o, index);
}

/* Adds a whole model to an empty maker; more keys and tensors may follow. */
static inline void tiny_model_make(struct gguf_maker *maker, const struct tiny_model_options *o)
{
    const uint32_t width = o->n_heads * o->head_dim;
    struct rng rng;

    rng_init(&rng, o->seed);
    tiny_params_keys(maker, o);
    tiny_tokenizer_keys(maker, "smollm");
    tiny_matrix(maker, &rng, "token_embd.weight", o->matrix_type, width, TINY_VOCAB);
    tiny_vector(maker, NULL, "output_norm.weight", width, 1);
    if (o->separate_output) {
        tiny_matrix(maker, &rng, "output.weight", o->matrix_type, width, TINY_VOCAB);
    }
    for (uint32_t i = 0; i < o->n_layers; i++)
        tiny_layer(maker, &rng, o, i);
}

#endif
