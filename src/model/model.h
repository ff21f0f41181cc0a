/* SPDX-License-Identifier: Apache-2.0
 *
 * model/model.h - a language model as the engine sees it: hyper-parameters and tensors, checked.
 *
 * The file is mapped, not read: opening takes milliseconds and touches no weight. Whatever this
 * module hands out has been checked: shapes agree with the hyper-parameters, every tensor lies
 * inside the file, nothing in the file would be silently ignored by a computation (an unknown
 * tensor, RoPE scaling other than linear, experts, logits that are capped are refused by name).
 *
 * Memory:  the model owns the mapping; tensors and strings are borrowed from it.
 * Threads: immutable after opening; any thread may read. model_open() and model_destroy() belong to
 *          the env's thread.
 * The file must not shrink while it is mapped: replace a model by renaming a new file over it.
 * Limits:  MODEL_LAYERS_MAX and the like below; beyond them STATUS_UNSUPPORTED. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct env;
struct gguf;

enum {
    MODEL_LAYERS_MAX = 256,
    MODEL_WIDTH_MAX = 65536, /* d_model, d_ff */
    MODEL_HEADS_MAX = 1024,  /* n_heads */
    MODEL_HEAD_DIM_MAX = 512,
    MODEL_VOCAB_MAX = 1 << 20,
    MODEL_CONTEXT_MAX = 1 << 20,
    MODEL_FINGERPRINT_SIZE = 32,
};

/* Element types, numbered as in GGUF. A quantized row is a sequence of blocks; element i of a
 * block, in memory order of the row. Scales d and m are IEEE half, little-endian. Blocks are
 * packed and 2-byte aligned only; the number before a field is its offset. BF16 is the high half of
 * an F32.
 *
 * Blocks of MODEL_BLOCK_ELEMENTS elements, 18, 20, 22, 24 or 34 bytes:
 *   Q8_0  0 d | 2 q i8[32]                       x[i] = d * q[i]
 *   Q4_0  0 d | 2 q u8[16]                       x[i] = d * (nibble(i) - 8)
 *   Q4_1  0 d | 2 m | 4 q u8[16]                 x[i] = d * nibble(i) + m
 *   Q5_0  0 d | 2 h u8[4] | 6 q u8[16]           x[i] = d * (five(i) - 16)
 *   Q5_1  0 d | 2 m | 4 h u8[4] | 8 q u8[16]     x[i] = d * five(i) + m
 *   nibble(i) = i < 16 ? q[i] & 15 : q[i - 16] >> 4;  five(i) = nibble(i) + 16 * (bit i of h)
 *
 * Blocks of MODEL_SUPER_ELEMENTS elements in 8 parts p of 32, i in 0..31, 144, 176 or 210 bytes:
 *   Q4_K  0 d | 2 m | 4 s u8[12] | 16 q u8[128]
 *   Q5_K  0 d | 2 m | 4 s u8[12] | 16 h u8[32] | 48 q u8[128]
 *         x[32p + i] = (d * scale(p)) * v - (m * min(p))
 *         v = 4 bits of q[32 * (p / 2) + i], the low ones if p is even;
 *         Q5_K: + 16 * (bit p of h[i])
 *         p < 4:  scale(p) = s[p] & 63, min(p) = s[p + 4] & 63;  otherwise
 *         scale(p) = (s[p + 4] & 15) + 16 * (s[p - 4] >> 6), min(p) = (s[p + 4] >> 4) + 16 * (s[p]
 *         >> 6)
 *   Q6_K  0 q u8[128] | 128 h u8[64] | 192 s i8[16] | 208 d
 *         x[32p + i] = (d * s[2p + i / 16]) * (v - 32);  with half n = p / 4 and r = p % 4
 *         v = 4 bits of q[64n + 32 * (r % 2) + i], the low ones if r < 2
 *             + 16 * (bits 2r and 2r + 1 of h[32n + i]) */
enum model_type {
    MODEL_F32 = 0,
    MODEL_F16 = 1,
    MODEL_Q4_0 = 2,
    MODEL_Q4_1 = 3,
    MODEL_Q5_0 = 6,
    MODEL_Q5_1 = 7,
    MODEL_Q8_0 = 8,
    MODEL_Q4_K = 12,
    MODEL_Q5_K = 13,
    MODEL_Q6_K = 14,
    MODEL_BF16 = 30,
};

enum { MODEL_BLOCK_ELEMENTS = 32, MODEL_SUPER_ELEMENTS = 256 };

struct model_block_q4_0 {
    uint16_t d;
    uint8_t q[16];
};

struct model_block_q4_1 {
    uint16_t d;
    uint16_t m;
    uint8_t q[16];
};

struct model_block_q5_0 {
    uint16_t d;
    uint8_t h[4];
    uint8_t q[16];
};

struct model_block_q5_1 {
    uint16_t d;
    uint16_t m;
    uint8_t h[4];
    uint8_t q[16];
};

struct model_block_q8_0 {
    uint16_t d;
    int8_t q[32];
};

struct model_block_q4_k {
    uint16_t d;
    uint16_t m;
    uint8_t s[12];
    uint8_t q[128];
};

struct model_block_q5_k {
    uint16_t d;
    uint16_t m;
    uint8_t s[12];
    uint8_t h[32];
    uint8_t q[128];
};

struct model_block_q6_k {
    uint8_t q[128];
    uint8_t h[64];
    int8_t s[16];
    uint16_t d;
};

/* A matrix of ne[1] rows of ne[0] elements; a vector has ne[1] == 1. Row r starts at
 * data + r * row_size. y = W x: x has ne[0] elements, y has ne[1]. `data` is aligned to the file's
 * alignment (32 bytes usually; at least 4 for F32, 2 for others). */
struct model_tensor {
    enum model_type type;
    uint32_t ne[2];
    size_t row_size;
    const void *data;
};

enum model_arch { MODEL_LLAMA, MODEL_QWEN2, MODEL_QWEN3, MODEL_GEMMA3 };
enum { MODEL_ARCHS = MODEL_GEMMA3 + 1 };

struct model_params {
    enum model_arch arch;
    uint32_t n_layers;
    uint32_t n_heads;
    uint32_t n_kv_heads; /* divides n_heads */
    uint32_t head_dim;   /* even; of K and of V */
    uint32_t d_model;
    uint32_t d_ff;
    uint32_t vocab;
    uint32_t context;   /* tokens the model was trained for */
    uint32_t rope_dims; /* leading dimensions of each head that rotate; even, <= head_dim */
    float rope_base;
    float rope_scale; /* positions are divided by it: 1, or linear scaling's factor, above 1 */
    bool rope_halves; /* which dimensions are pairs, see struct model_layer */
    float rms_eps;
    float attention_scale; /* of the product of query and key */
    float embedding_scale; /* of a token's embedding */
    bool gelu;             /* of ffn_gate, by tanh's approximation; otherwise SiLU */
    bool tied_output;      /* output is token_embd */

    /* A local layer sees the last `window` tokens, its own included, and rotates by
     * rope_base_local and rope_scale 1. 0: there is none. */
    uint32_t window;
    uint32_t window_period; /* each so many layers, the last one is not local */
    float rope_base_local;
};

/* A layer is
 *     h = norm(x, attn_norm);  q, k, v = h * attn_q + attn_q_bias, ...
 *     q, k = norm of each head by attn_q_norm, attn_k_norm;  rotated;  a = attention
 *     x = x + norm(a * attn_output, attn_post_norm)
 *     h = norm(x, ffn_norm);  f = (gelu or silu(h * ffn_gate) . (h * ffn_up)) * ffn_down
 *     x = x + norm(f, ffn_post_norm)
 * where a step whose tensor is not there (data is NULL) is left out.
 *
 * Rows of attn_q and attn_k are in the file's order: pair i of a head is (2i, 2i + 1), or with
 * rope_halves (i, i + rope_dims / 2), and turns by the angle pos / rope_scale * rope_base^(-2i /
 * rope_dims) / factor i, where the factors are those of model_rope_factors(), if there are any.
 * Vectors are F32. */
struct model_layer {
    struct model_tensor attn_norm;      /* d_model */
    struct model_tensor attn_q;         /* d_model -> n_heads * head_dim */
    struct model_tensor attn_k;         /* d_model -> n_kv_heads * head_dim */
    struct model_tensor attn_v;         /* d_model -> n_kv_heads * head_dim */
    struct model_tensor attn_q_bias;    /* n_heads * head_dim; qwen2 */
    struct model_tensor attn_k_bias;    /* n_kv_heads * head_dim; qwen2 */
    struct model_tensor attn_v_bias;    /* n_kv_heads * head_dim; qwen2 */
    struct model_tensor attn_q_norm;    /* head_dim; qwen3, gemma3 */
    struct model_tensor attn_k_norm;    /* head_dim; qwen3, gemma3 */
    struct model_tensor attn_output;    /* n_heads * head_dim -> d_model */
    struct model_tensor attn_post_norm; /* d_model; gemma3 */
    struct model_tensor ffn_norm;       /* d_model */
    struct model_tensor ffn_gate;       /* d_model -> d_ff */
    struct model_tensor ffn_up;         /* d_model -> d_ff */
    struct model_tensor ffn_down;       /* d_ff -> d_model */
    struct model_tensor ffn_post_norm;  /* d_model; gemma3 */
};

/* True if the layer sees only a window. */
bool model_layer_is_local(const struct model_params *params, uint32_t layer);

struct model; /* opaque */

/* Maps and checks the file. STATUS_NOT_FOUND, STATUS_DENIED or STATUS_IO from the file;
 * STATUS_INVALID if damaged or inconsistent; STATUS_UNSUPPORTED for another architecture, element
 * type or feature; err says which, and what is supported. */
MUST_USE enum status model_open(struct env *env, const char *path, struct model **out,
                                struct errmsg *err);

/* The same from bytes that the caller keeps until model_destroy(). `data` must be 32-byte aligned.
 */
MUST_USE enum status model_parse(const void *data, size_t size, struct model **out,
                                 struct errmsg *err);
void model_destroy(struct model *model); /* NULL is allowed */

const char *model_arch_name(enum model_arch arch); /* "llama" */
const struct model_params *model_params(const struct model *model);
const struct model_tensor *model_token_embd(const struct model *model);
const struct model_tensor *model_output_norm(const struct model *model);
const struct model_tensor *model_output(const struct model *model); /* token_embd when tied */
/* rope_dims / 2 factors (tensor rope_freqs.weight), 1 or more; NULL if it has none. */
const float *model_rope_factors(const struct model *model);
const struct model_layer *model_layer(const struct model *model, uint32_t layer);

/* For the tokenizer and the chat template, which live in the same file. */
const struct gguf *model_gguf(const struct model *model);

/* The model's name from the file, or "" if it has none. */
const char *model_name(const struct model *model);

/* Identity of everything that decides the model's numbers and tokens: SHA-256 over the text
 * "yolk-model-1", the head of the file (keys and tensor table, byte for byte) and, for each tensor
 * in file order, XXH3-64 of its bytes as u64 little-endian. Two files with one fingerprint may
 * share KVCache. XXH3 is no defence against somebody who forges weights on purpose; whoever can
 * replace the model file can answer anything anyway. Reads every weight once: about 10 ms per 100
 * MB in the page cache. */
void model_fingerprint(const struct model *model, uint8_t out[MODEL_FINGERPRINT_SIZE]);

/* "q4_1"; "unknown" for a number that is no type. */
const char *model_type_name(uint32_t type);

/* Elements of one block, 1 for types without blocks; 0 if the type is not supported. */
uint32_t model_block_elements(uint32_t type);

/* Bytes of one row of `elements`; 0 if the type is not supported, or the count does not fit blocks.
 */
size_t model_row_size(uint32_t type, uint64_t elements);

/* Weights by type, for `yolk model info`. */
struct model_summary {
    uint64_t parameters;   /* elements of all tensors */
    uint64_t weights_size; /* bytes of all tensors */
    char types[160];       /* "q4_1 210, f32 61, q8_0 1" */
};
void model_summarize(const struct model *model, struct model_summary *out);

#endif
