/* SPDX-License-Identifier: Apache-2.0
 *
 * model/model.c - from keys and tensors to what an engine can compute with.
 *
 * Architectures differ in which tensors a layer has (layer_parts[]) and in a few parameters
 * (read_family()); the computation is one, see struct model_layer.
 *
 * Policy: nothing in the file that would change the numbers is ignored. A tensor that no layer
 * asked for, RoPE scaled in a way we do not know, a window where the architecture has none,
 * experts: each is refused by name, because an answer computed without it would be wrong and look
 * right. Keys that do not touch the numbers are free.
 *
 * Invariants after model_parse()
 *   I1  Every tensor of the file is in the table exactly once, or is an accepted spare.
 *   I2  Every tensor's shape is the one the hyper-parameters ask for and its bytes are in the file.
 *   I3  1 <= rope_dims <= head_dim, both even; n_kv_heads divides n_heads. */
#include "model/model.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/hash.h"
#include "model/gguf.h"

static_assert(sizeof(struct model_block_q4_0) == 18, "Q4_0 blocks are packed");
static_assert(sizeof(struct model_block_q4_1) == 20, "Q4_1 blocks are packed");
static_assert(sizeof(struct model_block_q5_0) == 22, "Q5_0 blocks are packed");
static_assert(sizeof(struct model_block_q5_1) == 24, "Q5_1 blocks are packed");
static_assert(sizeof(struct model_block_q8_0) == 34, "Q8_0 blocks are packed");
static_assert(sizeof(struct model_block_q4_k) == 144, "Q4_K blocks are packed");
static_assert(sizeof(struct model_block_q5_k) == 176, "Q5_K blocks are packed");
static_assert(sizeof(struct model_block_q6_k) == 210, "Q6_K blocks are packed");

enum { NAME_SIZE = 128 };

struct model {
    struct env_map map; /* all zero when the bytes are the caller's */
    struct gguf *gguf;
    struct model_params params;
    struct model_tensor token_embd;
    struct model_tensor output_norm;
    struct model_tensor output;
    struct model_tensor rope_freqs; /* data is NULL if there is none */
    struct model_layer *layers;
    uint32_t tensors_used; /* I1 */
    char name[NAME_SIZE];
};

/* ---- element types ---- */

/* GGUF's numbers for types, so that an error can name one we do not support. */
static const char *const type_names[] = {
    [0] = "f32",     [1] = "f16",      [2] = "q4_0",   [3] = "q4_1",    [6] = "q5_0",
    [7] = "q5_1",    [8] = "q8_0",     [9] = "q8_1",   [10] = "q2_k",   [11] = "q3_k",
    [12] = "q4_k",   [13] = "q5_k",    [14] = "q6_k",  [15] = "q8_k",   [16] = "iq2_xxs",
    [17] = "iq2_xs", [18] = "iq3_xxs", [19] = "iq1_s", [20] = "iq4_nl", [21] = "iq3_s",
    [22] = "iq2_s",  [23] = "iq4_xs",  [24] = "i8",    [25] = "i16",    [26] = "i32",
    [27] = "i64",    [28] = "f64",     [29] = "iq1_m", [30] = "bf16",   [34] = "tq1_0",
    [35] = "tq2_0",  [39] = "mxfp4",
};
enum { TYPE_NAMES = sizeof(type_names) / sizeof(type_names[0]) };

const char *model_type_name(uint32_t type)
{
    if (type >= TYPE_NAMES || type_names[type] == NULL) return "unknown";
    return type_names[type];
}

/* What we understand, most telling first in a summary. */
static const struct {
    enum model_type type;
    uint16_t block_elements;
    uint16_t block_size;
} types[] = {
    { MODEL_Q4_K, MODEL_SUPER_ELEMENTS, sizeof(struct model_block_q4_k) },
    { MODEL_Q5_K, MODEL_SUPER_ELEMENTS, sizeof(struct model_block_q5_k) },
    { MODEL_Q6_K, MODEL_SUPER_ELEMENTS, sizeof(struct model_block_q6_k) },
    { MODEL_Q4_1, MODEL_BLOCK_ELEMENTS, sizeof(struct model_block_q4_1) },
    { MODEL_Q4_0, MODEL_BLOCK_ELEMENTS, sizeof(struct model_block_q4_0) },
    { MODEL_Q5_1, MODEL_BLOCK_ELEMENTS, sizeof(struct model_block_q5_1) },
    { MODEL_Q5_0, MODEL_BLOCK_ELEMENTS, sizeof(struct model_block_q5_0) },
    { MODEL_Q8_0, MODEL_BLOCK_ELEMENTS, sizeof(struct model_block_q8_0) },
    { MODEL_BF16, 1, 2 },
    { MODEL_F16, 1, 2 },
    { MODEL_F32, 1, 4 },
};
enum { TYPES = sizeof(types) / sizeof(types[0]) };

uint32_t model_block_elements(uint32_t type)
{
    for (size_t i = 0; i < TYPES; i++) {
        if ((uint32_t)types[i].type == type) return types[i].block_elements;
    }
    return 0;
}

size_t model_row_size(uint32_t type, uint64_t elements)
{
    if (elements > SIZE_MAX / 8) return 0;
    for (size_t i = 0; i < TYPES; i++) {
        if ((uint32_t)types[i].type != type) continue;
        if (elements % types[i].block_elements != 0) return 0;
        return (size_t)elements / types[i].block_elements * types[i].block_size;
    }
    return 0;
}

/* ---- architectures ---- */

static const char *const arch_names[MODEL_ARCHS] = {
    [MODEL_LLAMA] = "llama",
    [MODEL_QWEN2] = "qwen2",
    [MODEL_QWEN3] = "qwen3",
    [MODEL_GEMMA3] = "gemma3",
};

const char *model_arch_name(enum model_arch arch)
{
    return (unsigned)arch < MODEL_ARCHS ? arch_names[arch] : "unknown";
}

bool model_layer_is_local(const struct model_params *params, uint32_t layer)
{
    return params->window != 0 && (layer + 1) % params->window_period != 0;
}

static bool string_is(struct gguf_string string, const char *text)
{
    return string.len == strlen(text) && memcmp(string.data, text, string.len) == 0;
}

static enum status read_arch(const struct gguf *gguf, enum model_arch *out, struct errmsg *err)
{
    struct gguf_string name;
    char list[64] = "";
    size_t len = 0;

    enum status status = gguf_get_string(gguf, "general.architecture", &name, err);
    if (status == STATUS_NOT_FOUND) {
        return errmsg_set(err, STATUS_INVALID, "the model has no key general.architecture");
    }
    if (status != STATUS_OK) return status;
    for (int i = 0; i < MODEL_ARCHS; i++) {
        if (string_is(name, arch_names[i])) {
            *out = (enum model_arch)i;
            return STATUS_OK;
        }
        len += (size_t)snprintf(list + len, sizeof(list) - len, " %s", arch_names[i]);
        ASSERT(len < sizeof(list));
    }
    return errmsg_set(err, STATUS_UNSUPPORTED,
                      "architecture \"%s\" is not supported, supported are%s", gguf_show(name).text,
                      list);
}

/* A key of the architecture: "llama." and the rest. */
struct key {
    char text[64];
};

static struct key key_of(enum model_arch arch, const char *rest)
{
    struct key key;
    const int len = snprintf(key.text, sizeof(key.text), "%s.%s", arch_names[arch], rest);

    ASSERT(len > 0 && (size_t)len < sizeof(key.text));
    return key;
}

/* ---- hyper-parameters ---- */

static enum status get_count(const struct gguf *gguf, const char *key, uint32_t max, uint32_t *out,
                             struct errmsg *err)
{
    uint32_t value = 0;

    enum status status = gguf_get_u32(gguf, key, &value, err);
    if (status == STATUS_NOT_FOUND) {
        return errmsg_set(err, STATUS_INVALID, "the model has no key %s", key);
    }
    if (status != STATUS_OK) return status;
    if (value == 0) return errmsg_set(err, STATUS_INVALID, "key %s is 0", key);
    if (value > max) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "key %s is %u, at most %u is supported", key,
                          value, max);
    }
    *out = value;
    return STATUS_OK;
}

/* As get_count(), but an absent key means `fallback`. */
static enum status get_count_or(const struct gguf *gguf, const char *key, uint32_t max,
                                uint32_t fallback, uint32_t *out, struct errmsg *err)
{
    if (!gguf_has(gguf, key)) {
        *out = fallback;
        return STATUS_OK;
    }
    return get_count(gguf, key, max, out, err);
}

static enum status get_real(const struct gguf *gguf, const char *key, float low, float high,
                            float *out, struct errmsg *err)
{
    float value = 0;

    enum status status = gguf_get_f32(gguf, key, &value, err);
    if (status == STATUS_NOT_FOUND) {
        return errmsg_set(err, STATUS_INVALID, "the model has no key %s", key);
    }
    if (status != STATUS_OK) return status;
    if (!(value >= low && value <= high)) { /* also refuses NaN */
        return errmsg_set(err, STATUS_INVALID, "key %s is %g, expected %g to %g", key,
                          (double)value, (double)low, (double)high);
    }
    *out = value;
    return STATUS_OK;
}

/* Features that would change the numbers and that no kernel of ours computes. */
static enum status check_features(const struct gguf *gguf, enum model_arch arch, struct errmsg *err)
{
    static const struct {
        const char *key;
        bool one_is_none; /* a factor; the others are counts and caps */
    } features[] = {
        { "expert_count", false },           { "attention.max_alibi_bias", false },
        { "attn_logit_softcapping", false }, { "final_logit_softcapping", false },
        { "rope.scale_linear", true },       { "logit_scale", true },
        { "residual_scale", true },          { "embedding_scale", true },
        { "attention.scale", true },
    };

    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        const struct key key = key_of(arch, features[i].key);
        uint32_t count = 0;
        float factor = 0;
        if (gguf_get_u32(gguf, key.text, &count, NULL) == STATUS_OK) {
            factor = (float)count;
        } else {
            enum status status = gguf_get_f32(gguf, key.text, &factor, err);
            if (status == STATUS_INVALID) return status;
        }
        if (!(factor == 0) && !(factor == 1 && features[i].one_is_none)) {
            return errmsg_set(err, STATUS_UNSUPPORTED, "key %s is %g: not supported", key.text,
                              (double)factor);
        }
    }
    return STATUS_OK;
}

/* Linear scaling, which a factor without a type means too; a factor of 0 or 1 is none. */
static enum status read_rope_scaling(const struct gguf *gguf, struct model_params *p,
                                     struct errmsg *err)
{
    const struct key type_key = key_of(p->arch, "rope.scaling.type");
    const struct key factor_key = key_of(p->arch, "rope.scaling.factor");
    struct gguf_string type = { "linear", 6 };
    float factor = 1;

    enum status status = gguf_get_string(gguf, type_key.text, &type, err);
    if (status == STATUS_INVALID) return status;
    if (!string_is(type, "none") && !string_is(type, "linear")) {
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "key %s is \"%s\", supported are none and linear", type_key.text,
                          gguf_show(type).text);
    }
    if (gguf_has(gguf, factor_key.text)) {
        status = get_real(gguf, factor_key.text, 0, 1024, &factor, err);
        if (status != STATUS_OK) return status;
    }
    if (factor > 0 && factor < 1) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "key %s is %g, below 1: not supported",
                          factor_key.text, (double)factor);
    }
    p->rope_scale = factor == 0 ? 1 : factor;
    if (p->rope_scale == 1 || string_is(type, "linear")) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "key %s is %g, but the type is \"none\"",
                      factor_key.text, (double)factor);
}

static enum status read_rope(const struct gguf *gguf, struct model_params *p, struct errmsg *err)
{
    const struct key dims = key_of(p->arch, "rope.dimension_count");
    const struct key base = key_of(p->arch, "rope.freq_base");

    enum status status =
        get_count_or(gguf, dims.text, MODEL_HEAD_DIM_MAX, p->head_dim, &p->rope_dims, err);
    if (status != STATUS_OK) return status;
    if (p->rope_dims % 2 != 0 || p->rope_dims > p->head_dim) {
        return errmsg_set(err, STATUS_INVALID, "key %s is %u, expected even and at most %u",
                          dims.text, p->rope_dims, p->head_dim);
    }
    p->rope_base = 10000;
    if (gguf_has(gguf, base.text)) {
        status = get_real(gguf, base.text, 1, 1e12f, &p->rope_base, err);
        if (status != STATUS_OK) return status;
    }
    return read_rope_scaling(gguf, p, err);
}

static enum status read_heads(const struct gguf *gguf, struct model_params *p, struct errmsg *err)
{
    const struct key key_length = key_of(p->arch, "attention.key_length");
    uint32_t value_dim;

    enum status status = get_count_or(gguf, key_of(p->arch, "attention.head_count_kv").text,
                                      p->n_heads, p->n_heads, &p->n_kv_heads, err);
    if (status != STATUS_OK) return status;
    if (p->n_heads % p->n_kv_heads != 0) {
        return errmsg_set(err, STATUS_INVALID, "%u heads are not a multiple of %u KV heads",
                          p->n_heads, p->n_kv_heads);
    }
    if (!gguf_has(gguf, key_length.text) && p->d_model % p->n_heads != 0) {
        return errmsg_set(err, STATUS_INVALID, "width %u is not a multiple of %u heads", p->d_model,
                          p->n_heads);
    }
    status = get_count_or(gguf, key_length.text, MODEL_HEAD_DIM_MAX, p->d_model / p->n_heads,
                          &p->head_dim, err);
    if (status != STATUS_OK) return status;
    if (p->head_dim == 0 || p->head_dim > MODEL_HEAD_DIM_MAX) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "the head dimension is %u, expected 2 to %d",
                          p->head_dim, MODEL_HEAD_DIM_MAX);
    }
    if (p->head_dim % 2 != 0) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "the head dimension %u is odd", p->head_dim);
    }
    status = get_count_or(gguf, key_of(p->arch, "attention.value_length").text, MODEL_HEAD_DIM_MAX,
                          p->head_dim, &value_dim, err);
    if (status != STATUS_OK) return status;
    if (value_dim != p->head_dim) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "keys of %u and values of %u dimensions differ",
                          p->head_dim, value_dim);
    }
    return STATUS_OK;
}

static enum status read_sizes(const struct gguf *gguf, struct model_params *p, struct errmsg *err)
{
    static const struct {
        const char *key;
        uint32_t max;
        size_t at;
    } table[] = {
        { "block_count", MODEL_LAYERS_MAX, offsetof(struct model_params, n_layers) },
        { "attention.head_count", MODEL_HEADS_MAX, offsetof(struct model_params, n_heads) },
        { "embedding_length", MODEL_WIDTH_MAX, offsetof(struct model_params, d_model) },
        { "feed_forward_length", MODEL_WIDTH_MAX, offsetof(struct model_params, d_ff) },
        { "context_length", MODEL_CONTEXT_MAX, offsetof(struct model_params, context) },
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        uint32_t value = 0;
        enum status status =
            get_count(gguf, key_of(p->arch, table[i].key).text, table[i].max, &value, err);
        if (status != STATUS_OK) return status;
        memcpy((char *)p + table[i].at, &value, sizeof(value));
    }
    return STATUS_OK;
}

/* What is not in the file, because the architecture implies it. Gemma 3 is described in Google's
 * technical report (2025): five layers with a window to one without. Only its largest model scales
 * attention otherwise, and the file does not say so. */
enum { GEMMA3_27B_LAYERS = 62 };

static enum status read_family(const struct gguf *gguf, struct model_params *p, struct errmsg *err)
{
    const struct key key = key_of(p->arch, "attention.sliding_window");
    uint32_t window = 0;

    p->rope_halves = p->arch != MODEL_LLAMA;
    p->embedding_scale = 1;
    p->attention_scale = 1 / sqrtf((float)p->head_dim);
    if (p->arch != MODEL_GEMMA3) {
        enum status status = gguf_get_u32(gguf, key.text, &window, err);
        if (status == STATUS_INVALID) return status;
        if (window == 0) return STATUS_OK;
        return errmsg_set(err, STATUS_UNSUPPORTED, "key %s is %u: not supported", key.text, window);
    }
    p->embedding_scale = sqrtf((float)p->d_model);
    if (p->n_layers == GEMMA3_27B_LAYERS) {
        p->attention_scale = 1 / sqrtf((float)p->d_model / (float)p->n_heads);
    }
    p->gelu = true;
    p->window_period = 6;
    p->rope_base_local = 10000;
    return get_count(gguf, key.text, MODEL_CONTEXT_MAX, &p->window, err);
}

static enum status read_params(const struct gguf *gguf, struct model_params *p, struct errmsg *err)
{
    enum status status = read_arch(gguf, &p->arch, err);
    if (status != STATUS_OK) return status;
    status = check_features(gguf, p->arch, err);
    if (status != STATUS_OK) return status;
    status = read_sizes(gguf, p, err);
    if (status != STATUS_OK) return status;
    status = read_heads(gguf, p, err);
    if (status != STATUS_OK) return status;
    status = read_rope(gguf, p, err);
    if (status != STATUS_OK) return status;
    status = get_real(gguf, key_of(p->arch, "attention.layer_norm_rms_epsilon").text, 0, 1,
                      &p->rms_eps, err);
    if (status != STATUS_OK) return status;
    return read_family(gguf, p, err);
}

/* The vocabulary is as large as the tokenizer's list; a vocab_size, if there, must agree. */
static enum status read_vocab(const struct gguf *gguf, struct model_params *p, struct errmsg *err)
{
    const struct key key = key_of(p->arch, "vocab_size");
    struct gguf_array tokens;
    uint32_t declared = 0;

    enum status status = gguf_get_array(gguf, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, err);
    if (status == STATUS_NOT_FOUND) {
        return errmsg_set(err, STATUS_INVALID, "the model has no key tokenizer.ggml.tokens");
    }
    if (status != STATUS_OK) return status;
    if (tokens.count == 0 || tokens.count > MODEL_VOCAB_MAX) {
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "%llu tokens in the vocabulary, expected 1 to %d",
                          (unsigned long long)tokens.count, MODEL_VOCAB_MAX);
    }
    status = get_count_or(gguf, key.text, MODEL_VOCAB_MAX, (uint32_t)tokens.count, &declared, err);
    if (status != STATUS_OK) return status;
    if (declared != tokens.count) {
        return errmsg_set(err, STATUS_INVALID, "key %s is %u, but there are %llu tokens", key.text,
                          declared, (unsigned long long)tokens.count);
    }
    p->vocab = declared;
    return STATUS_OK;
}

/* ---- tensors ---- */

/* What a layer consists of. */
enum width { WIDTH_MODEL, WIDTH_FF, WIDTH_Q, WIDTH_KV, WIDTH_HEAD, WIDTH_ONE };
enum { BIASED = 1 << MODEL_QWEN2, HEAD_NORMS = 1 << MODEL_QWEN3 | 1 << MODEL_GEMMA3 };
enum { POST_NORMS = 1 << MODEL_GEMMA3, ALL = (1 << MODEL_ARCHS) - 1 };

struct layer_part {
    const char *name; /* after "blk.N." */
    size_t at;        /* in struct model_layer */
    enum width cols, rows;
    unsigned archs; /* that have it */
};

#define PART(field) offsetof(struct model_layer, field)
static const struct layer_part layer_parts[] = {
    { "attn_norm.weight", PART(attn_norm), WIDTH_MODEL, WIDTH_ONE, ALL },
    { "attn_q.weight", PART(attn_q), WIDTH_MODEL, WIDTH_Q, ALL },
    { "attn_k.weight", PART(attn_k), WIDTH_MODEL, WIDTH_KV, ALL },
    { "attn_v.weight", PART(attn_v), WIDTH_MODEL, WIDTH_KV, ALL },
    { "attn_q.bias", PART(attn_q_bias), WIDTH_Q, WIDTH_ONE, BIASED },
    { "attn_k.bias", PART(attn_k_bias), WIDTH_KV, WIDTH_ONE, BIASED },
    { "attn_v.bias", PART(attn_v_bias), WIDTH_KV, WIDTH_ONE, BIASED },
    { "attn_q_norm.weight", PART(attn_q_norm), WIDTH_HEAD, WIDTH_ONE, HEAD_NORMS },
    { "attn_k_norm.weight", PART(attn_k_norm), WIDTH_HEAD, WIDTH_ONE, HEAD_NORMS },
    { "attn_output.weight", PART(attn_output), WIDTH_Q, WIDTH_MODEL, ALL },
    { "post_attention_norm.weight", PART(attn_post_norm), WIDTH_MODEL, WIDTH_ONE, POST_NORMS },
    { "ffn_norm.weight", PART(ffn_norm), WIDTH_MODEL, WIDTH_ONE, ALL },
    { "ffn_gate.weight", PART(ffn_gate), WIDTH_MODEL, WIDTH_FF, ALL },
    { "ffn_up.weight", PART(ffn_up), WIDTH_MODEL, WIDTH_FF, ALL },
    { "ffn_down.weight", PART(ffn_down), WIDTH_FF, WIDTH_MODEL, ALL },
    { "post_ffw_norm.weight", PART(ffn_post_norm), WIDTH_MODEL, WIDTH_ONE, POST_NORMS },
};
#undef PART
enum { LAYER_PARTS = sizeof(layer_parts) / sizeof(layer_parts[0]) };

static uint32_t width_of(const struct model_params *p, enum width width)
{
    switch (width) {
    case WIDTH_MODEL: return p->d_model;
    case WIDTH_FF: return p->d_ff;
    case WIDTH_Q: return p->n_heads * p->head_dim;
    case WIDTH_KV: return p->n_kv_heads * p->head_dim;
    case WIDTH_HEAD: return p->head_dim;
    case WIDTH_ONE: break;
    }
    return 1;
}

static bool part_is_in(const struct layer_part *part, enum model_arch arch)
{
    return (part->archs >> arch & 1) != 0;
}

static enum status wrong_shape(const char *name, const struct gguf_tensor *found, uint32_t ne0,
                               uint32_t ne1, struct errmsg *err)
{
    return errmsg_set(
        err, STATUS_INVALID, "tensor %s is %llu x %llu x %llu x %llu, expected %u x %u", name,
        (unsigned long long)found->dims[0], (unsigned long long)found->dims[1],
        (unsigned long long)found->dims[2], (unsigned long long)found->dims[3], ne0, ne1);
}

/* Finds the tensor, checks type, shape and range. */
static enum status load_tensor(struct model *model, const char *name, uint32_t ne0, uint32_t ne1,
                               struct model_tensor *out, struct errmsg *err)
{
    const struct gguf_tensor *found = gguf_tensor_find(model->gguf, name);

    ASSERT(ne0 > 0 && ne1 > 0);
    if (found == NULL) {
        return errmsg_set(err, STATUS_INVALID, "the model has no tensor %s", name);
    }
    if (found->dims[0] != ne0 || found->dims[1] != ne1 || found->dims[2] != 1 ||
        found->dims[3] != 1) {
        return wrong_shape(name, found, ne0, ne1, err);
    }
    const uint32_t block_elements = model_block_elements(found->type);
    if (block_elements == 0) {
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "tensor %s is of type %s (%u), supported are f32 f16 bf16 q8_0 q4_0 q4_1 "
                          "q5_0 q5_1 q4_k q5_k q6_k",
                          name, model_type_name(found->type), found->type);
    }
    const size_t row_size = model_row_size(found->type, ne0);
    if (row_size == 0) {
        return errmsg_set(err, STATUS_INVALID, "tensor %s: rows of %u do not fit blocks of %u",
                          name, ne0, block_elements);
    }
    ASSERT(row_size <= SIZE_MAX / ne1); /* by MODEL_WIDTH_MAX and MODEL_VOCAB_MAX */
    const void *data = gguf_tensor_data(model->gguf, found, row_size * ne1);
    if (data == NULL) {
        return errmsg_set(err, STATUS_INVALID, "tensor %s runs past the end of the file", name);
    }
    ASSERT((uintptr_t)data % 8 == 0); /* offsets and the file's start are */
    *out = (struct model_tensor){ (enum model_type)found->type, { ne0, ne1 }, row_size, data };
    model->tensors_used++;
    return STATUS_OK;
}

/* A vector that is used as it is. */
static enum status load_vector(struct model *model, const char *name, uint32_t width,
                               struct model_tensor *out, struct errmsg *err)
{
    enum status status = load_tensor(model, name, width, 1, out, err);

    if (status != STATUS_OK) return status;
    if (out->type == MODEL_F32) return STATUS_OK;
    return errmsg_set(err, STATUS_UNSUPPORTED, "tensor %s is of type %s, expected f32", name,
                      model_type_name(out->type));
}

/* The tensor is there or not; a factor divides a frequency, and below 1 it would take
 * angles out of the range in which they are exact. */
static enum status load_rope_freqs(struct model *model, struct errmsg *err)
{
    static const char name[] = "rope_freqs.weight";
    struct model_tensor *out = &model->rope_freqs;

    if (gguf_tensor_find(model->gguf, name) == NULL) return STATUS_OK;
    enum status status = load_vector(model, name, model->params.rope_dims / 2, out, err);
    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < out->ne[0]; i++) {
        float factor;
        memcpy(&factor, (const uint8_t *)out->data + (size_t)i * 4, sizeof(factor));
        if (factor >= 1 && factor <= 1e6f) continue; /* also refuses NaN */
        return errmsg_set(err, STATUS_INVALID, "tensor %s: factor %u is %g, expected 1 to 1e6",
                          name, i, (double)factor);
    }
    return STATUS_OK;
}

static enum status load_layer(struct model *model, uint32_t index, struct model_layer *layer,
                              struct errmsg *err)
{
    const struct model_params *p = &model->params;
    char name[64];

    for (size_t i = 0; i < LAYER_PARTS; i++) {
        const struct layer_part *part = &layer_parts[i];
        const uint32_t cols = width_of(p, part->cols), rows = width_of(p, part->rows);
        struct model_tensor *out = (struct model_tensor *)(void *)((char *)layer + part->at);
        if (!part_is_in(part, p->arch)) continue;
        snprintf(name, sizeof(name), "blk.%u.%s", index, part->name);
        enum status status = part->rows == WIDTH_ONE
                                 ? load_vector(model, name, cols, out, err)
                                 : load_tensor(model, name, cols, rows, out, err);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

static bool is_layer_part(const struct model_params *p, const char *name)
{
    uint32_t layer;
    char rest[65], whole[64];

    if (sscanf(name, "blk.%u.%64s", &layer, rest) != 2 || layer >= p->n_layers) return false;
    for (size_t i = 0; i < LAYER_PARTS; i++) {
        if (!part_is_in(&layer_parts[i], p->arch)) continue;
        snprintf(whole, sizeof(whole), "blk.%u.%s", layer, layer_parts[i].name);
        if (strcmp(name, whole) == 0) return true;
    }
    return false;
}

/* I1: names the first tensor that nothing asked for. */
static enum status refuse_spare(const struct model *model, struct errmsg *err)
{
    static const char *const whole_model[] = { "token_embd.weight", "output_norm.weight",
                                               "output.weight", "rope_freqs.weight" };

    for (uint32_t i = 0; i < gguf_tensor_count(model->gguf); i++) {
        const struct gguf_string name = gguf_tensor_at(model->gguf, i)->name;
        char text[GGUF_NAME_SIZE_MAX + 1];
        bool known = false;

        snprintf(text, sizeof(text), "%.*s", (int)name.len, name.data);
        for (size_t k = 0; k < sizeof(whole_model) / sizeof(whole_model[0]); k++)
            known |= strcmp(text, whole_model[k]) == 0;
        if (known || is_layer_part(&model->params, text)) continue;
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "tensor %s is not part of a plain %s model: not supported",
                          gguf_show(name).text, arch_names[model->params.arch]);
    }
    return errmsg_set(err, STATUS_INVALID, "the tensor table has entries that are not used");
}

static enum status load_tensors(struct model *model, struct errmsg *err)
{
    struct model_params *p = &model->params;

    enum status status =
        load_tensor(model, "token_embd.weight", p->d_model, p->vocab, &model->token_embd, err);
    if (status != STATUS_OK) return status;
    status = load_vector(model, "output_norm.weight", p->d_model, &model->output_norm, err);
    if (status != STATUS_OK) return status;
    p->tied_output = gguf_tensor_find(model->gguf, "output.weight") == NULL;
    if (p->tied_output) {
        model->output = model->token_embd;
    } else {
        status = load_tensor(model, "output.weight", p->d_model, p->vocab, &model->output, err);
        if (status != STATUS_OK) return status;
    }
    status = load_rope_freqs(model, err);
    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < p->n_layers; i++) {
        status = load_layer(model, i, &model->layers[i], err);
        if (status != STATUS_OK) return status;
    }
    if (model->tensors_used != gguf_tensor_count(model->gguf)) return refuse_spare(model, err);
    return STATUS_OK;
}

/* ---- opening ---- */

static void read_name(struct model *model)
{
    struct gguf_string name;

    if (gguf_get_string(model->gguf, "general.name", &name, NULL) != STATUS_OK) return;
    snprintf(model->name, sizeof(model->name), "%.*s",
             name.len < NAME_SIZE ? (int)name.len : NAME_SIZE - 1, name.data);
    for (char *c = model->name; *c != 0; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    }
}

static enum status parse_into(struct model *model, const void *data, size_t size,
                              struct errmsg *err)
{
    enum status status = gguf_parse(data, size, &model->gguf, err);
    if (status != STATUS_OK) return status;
    status = read_params(model->gguf, &model->params, err);
    if (status != STATUS_OK) return status;
    status = read_vocab(model->gguf, &model->params, err);
    if (status != STATUS_OK) return status;
    model->layers = calloc(model->params.n_layers, sizeof(*model->layers));
    if (model->layers == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for the layers");
    read_name(model);
    return load_tensors(model, err);
}

enum status model_parse(const void *data, size_t size, struct model **out, struct errmsg *err)
{
    ASSERT((uintptr_t)data % 32 == 0);
    struct model *model = calloc(1, sizeof(*model));
    if (model == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for the model");
    enum status status = parse_into(model, data, size, err);
    if (status != STATUS_OK) {
        model_destroy(model);
        return status;
    }
    *out = model;
    return STATUS_OK;
}

/* Puts the path before what was wrong with the file. */
static enum status with_path(struct errmsg *err, enum status status, const char *path,
                             const struct errmsg *inner)
{
    return errmsg_set(err, status, "%.100s: %.150s", path, inner->text);
}

enum status model_open(struct env *env, const char *path, struct model **out, struct errmsg *err)
{
    struct env_map map = { 0 };
    struct errmsg inner = { { 0 } };
    struct model *model;

    enum status status = env_map_file(env, path, &map, err);
    if (status != STATUS_OK) return status;
    status = model_parse(map.data, map.size, &model, &inner);
    if (status != STATUS_OK) {
        env_map_close(&map);
        return with_path(err, status, path, &inner);
    }
    model->map = map;
    *out = model;
    return STATUS_OK;
}

void model_destroy(struct model *model)
{
    if (model == NULL) return;
    gguf_destroy(model->gguf);
    free(model->layers);
    env_map_close(&model->map);
    free(model);
}

/* ---- answers ---- */

const struct model_params *model_params(const struct model *model)
{
    return &model->params;
}

const struct model_tensor *model_token_embd(const struct model *model)
{
    return &model->token_embd;
}

const struct model_tensor *model_output_norm(const struct model *model)
{
    return &model->output_norm;
}

const struct model_tensor *model_output(const struct model *model)
{
    return &model->output;
}

const float *model_rope_factors(const struct model *model)
{
    return model->rope_freqs.data;
}

const struct model_layer *model_layer(const struct model *model, uint32_t layer)
{
    ASSERT(layer < model->params.n_layers);
    return &model->layers[layer];
}

const struct gguf *model_gguf(const struct model *model)
{
    return model->gguf;
}

const char *model_name(const struct model *model)
{
    return model->name;
}

static size_t tensor_elements(const struct gguf_tensor *tensor)
{
    return (size_t)(tensor->dims[0] * tensor->dims[1]);
}

static size_t tensor_size(const struct gguf_tensor *tensor)
{
    return model_row_size(tensor->type, tensor->dims[0]) * (size_t)tensor->dims[1];
}

void model_fingerprint(const struct model *model, uint8_t out[MODEL_FINGERPRINT_SIZE])
{
    struct hash_stream *stream = hash_sha256_create();
    size_t head_size;

    static_assert((int)MODEL_FINGERPRINT_SIZE == (int)HASH_SHA256_SIZE, "a SHA-256");
    const void *head = gguf_head(model->gguf, &head_size);
    hash_sha256_update(stream, "yolk-model-1", 12);
    hash_sha256_update(stream, head, head_size);
    for (uint32_t i = 0; i < gguf_tensor_count(model->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(model->gguf, i);
        const void *data = gguf_tensor_data(model->gguf, tensor, tensor_size(tensor));
        ASSERT(data != NULL); /* I2 */
        const uint64_t sum = hash_xxh3(data, tensor_size(tensor));
        uint8_t bytes[8];
        for (int k = 0; k < 8; k++)
            bytes[k] = (uint8_t)(sum >> (8 * k));
        hash_sha256_update(stream, bytes, sizeof(bytes));
    }
    hash_sha256_final(stream, out);
    hash_sha256_destroy(stream);
}

void model_summarize(const struct model *model, struct model_summary *out)
{
    uint32_t counts[MODEL_BF16 + 1] = { 0 };
    size_t len = 0;

    *out = (struct model_summary){ 0 };
    for (uint32_t i = 0; i < gguf_tensor_count(model->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(model->gguf, i);
        ASSERT(tensor->type <= MODEL_BF16);
        out->parameters += tensor_elements(tensor);
        out->weights_size += tensor_size(tensor);
        counts[tensor->type]++;
    }
    for (size_t i = 0; i < TYPES; i++) {
        const uint32_t count = counts[types[i].type];
        if (count == 0) continue;
        len += (size_t)snprintf(out->types + len, sizeof(out->types) - len, "%s%s %u",
                                len > 0 ? ", " : "", model_type_name(types[i].type), count);
        ASSERT(len < sizeof(out->types));
    }
}
