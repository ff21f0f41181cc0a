/* SPDX-License-Identifier: Apache-2.0
 *
 * model/model.c - architecture llama: from keys and tensors to what an engine can compute with.
 *
 * Policy: nothing in the file that would change the numbers is ignored. A tensor that no layer
 * asked for, a bias, RoPE scaled in a way we do not know, a sliding window, experts: each is
 * refused by name, because an answer computed without it would be wrong and look right. Keys that
 * do not touch the numbers are free.
 *
 * Invariants after model_parse()
 *   I1  Every tensor of the file is in the table exactly once, or is an accepted spare.
 *   I2  Every tensor's shape is the one the hyper-parameters ask for and its bytes are in the file.
 *   I3  1 <= rope_dims <= head_dim, both even; n_kv_heads divides n_heads. */
#include "model/model.h"

#include <assert.h>
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

static enum status check_architecture(const struct gguf *gguf, struct errmsg *err)
{
    struct gguf_string name;

    enum status status = gguf_get_string(gguf, "general.architecture", &name, err);
    if (status == STATUS_NOT_FOUND) {
        return errmsg_set(err, STATUS_INVALID, "the model has no key general.architecture");
    }
    if (status != STATUS_OK) return status;
    if (name.len != 5 || memcmp(name.data, "llama", 5) != 0) {
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "architecture \"%s\" is not supported, only \"llama\"",
                          gguf_show(name).text);
    }
    return STATUS_OK;
}

/* Features that would change the numbers and that no kernel of ours computes. */
static enum status check_features(const struct gguf *gguf, struct errmsg *err)
{
    static const char *const counts[] = { "llama.expert_count", "llama.attention.sliding_window" };
    static const char *const factors[] = { "llama.rope.scale_linear", "llama.logit_scale",
                                           "llama.residual_scale", "llama.embedding_scale",
                                           "llama.attention.scale" };
    enum status status;

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        uint32_t count = 0;
        status = gguf_get_u32(gguf, counts[i], &count, err);
        if (status == STATUS_INVALID) return status;
        if (count != 0) {
            return errmsg_set(err, STATUS_UNSUPPORTED, "key %s is %u: not supported", counts[i],
                              count);
        }
    }
    for (size_t i = 0; i < sizeof(factors) / sizeof(factors[0]); i++) {
        float factor = 1;
        status = gguf_get_f32(gguf, factors[i], &factor, err);
        if (status == STATUS_INVALID) return status;
        if (!(factor == 1) && !(factor == 0)) {
            return errmsg_set(err, STATUS_UNSUPPORTED, "key %s is %g: not supported", factors[i],
                              (double)factor);
        }
    }
    return STATUS_OK;
}

static bool string_is(struct gguf_string string, const char *text)
{
    return string.len == strlen(text) && memcmp(string.data, text, string.len) == 0;
}

/* Linear scaling, which a factor without a type means too; a factor of 0 or 1 is none. */
static enum status read_rope_scaling(const struct gguf *gguf, float *scale, struct errmsg *err)
{
    struct gguf_string type = { "linear", 6 };
    float factor = 1;

    enum status status = gguf_get_string(gguf, "llama.rope.scaling.type", &type, err);
    if (status == STATUS_INVALID) return status;
    if (!string_is(type, "none") && !string_is(type, "linear")) {
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "key llama.rope.scaling.type is \"%s\", supported are none and linear",
                          gguf_show(type).text);
    }
    if (gguf_has(gguf, "llama.rope.scaling.factor")) {
        status = get_real(gguf, "llama.rope.scaling.factor", 0, 1024, &factor, err);
        if (status != STATUS_OK) return status;
    }
    if (factor > 0 && factor < 1) {
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "key llama.rope.scaling.factor is %g, below 1: not supported",
                          (double)factor);
    }
    *scale = factor == 0 ? 1 : factor;
    if (*scale == 1 || string_is(type, "linear")) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID,
                      "key llama.rope.scaling.factor is %g, but the type is \"none\"",
                      (double)factor);
}

static enum status check_heads(const struct model_params *p, const struct gguf *gguf,
                               struct errmsg *err)
{
    uint32_t value_dim = p->head_dim;

    if (p->n_heads % p->n_kv_heads != 0) {
        return errmsg_set(err, STATUS_INVALID, "%u heads are not a multiple of %u KV heads",
                          p->n_heads, p->n_kv_heads);
    }
    if (p->head_dim % 2 != 0) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "the head dimension %u is odd", p->head_dim);
    }
    if (p->rope_dims % 2 != 0 || p->rope_dims > p->head_dim) {
        return errmsg_set(err, STATUS_INVALID,
                          "key llama.rope.dimension_count is %u, expected even and at most %u",
                          p->rope_dims, p->head_dim);
    }
    enum status status = get_count_or(gguf, "llama.attention.value_length", MODEL_HEAD_DIM_MAX,
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
        { "llama.block_count", MODEL_LAYERS_MAX, offsetof(struct model_params, n_layers) },
        { "llama.attention.head_count", MODEL_HEADS_MAX, offsetof(struct model_params, n_heads) },
        { "llama.embedding_length", MODEL_WIDTH_MAX, offsetof(struct model_params, d_model) },
        { "llama.feed_forward_length", MODEL_WIDTH_MAX, offsetof(struct model_params, d_ff) },
        { "llama.context_length", MODEL_CONTEXT_MAX, offsetof(struct model_params, context) },
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        uint32_t value = 0;
        enum status status = get_count(gguf, table[i].key, table[i].max, &value, err);
        if (status != STATUS_OK) return status;
        memcpy((char *)p + table[i].at, &value, sizeof(value));
    }
    return STATUS_OK;
}

static enum status read_params(const struct gguf *gguf, struct model_params *p, struct errmsg *err)
{
    enum status status = read_sizes(gguf, p, err);
    if (status != STATUS_OK) return status;
    status = get_count_or(gguf, "llama.attention.head_count_kv", p->n_heads, p->n_heads,
                          &p->n_kv_heads, err);
    if (status != STATUS_OK) return status;
    if (!gguf_has(gguf, "llama.attention.key_length") && p->d_model % p->n_heads != 0) {
        return errmsg_set(err, STATUS_INVALID, "width %u is not a multiple of %u heads", p->d_model,
                          p->n_heads);
    }
    status = get_count_or(gguf, "llama.attention.key_length", MODEL_HEAD_DIM_MAX,
                          p->d_model / p->n_heads, &p->head_dim, err);
    if (status != STATUS_OK) return status;
    if (p->head_dim == 0 || p->head_dim > MODEL_HEAD_DIM_MAX) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "the head dimension is %u, expected 2 to %d",
                          p->head_dim, MODEL_HEAD_DIM_MAX);
    }
    status = get_count_or(gguf, "llama.rope.dimension_count", MODEL_HEAD_DIM_MAX, p->head_dim,
                          &p->rope_dims, err);
    if (status != STATUS_OK) return status;
    p->rope_base = 10000;
    if (gguf_has(gguf, "llama.rope.freq_base")) {
        status = get_real(gguf, "llama.rope.freq_base", 1, 1e12f, &p->rope_base, err);
        if (status != STATUS_OK) return status;
    }
    status = read_rope_scaling(gguf, &p->rope_scale, err);
    if (status != STATUS_OK) return status;
    status = get_real(gguf, "llama.attention.layer_norm_rms_epsilon", 0, 1, &p->rms_eps, err);
    if (status != STATUS_OK) return status;
    return check_heads(p, gguf, err);
}

/* The vocabulary is as large as the tokenizer's list; llama.vocab_size, if there, must agree. */
static enum status read_vocab(const struct gguf *gguf, struct model_params *p, struct errmsg *err)
{
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
    status = get_count_or(gguf, "llama.vocab_size", MODEL_VOCAB_MAX, (uint32_t)tokens.count,
                          &declared, err);
    if (status != STATUS_OK) return status;
    if (declared != tokens.count) {
        return errmsg_set(err, STATUS_INVALID,
                          "key llama.vocab_size is %u, but there are %llu tokens", declared,
                          (unsigned long long)tokens.count);
    }
    p->vocab = declared;
    return STATUS_OK;
}

/* ---- tensors ---- */

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

static enum status load_norm(struct model *model, const char *name, struct model_tensor *out,
                             struct errmsg *err)
{
    enum status status = load_tensor(model, name, model->params.d_model, 1, out, err);

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
    enum status status = load_tensor(model, name, model->params.rope_dims / 2, 1, out, err);
    if (status != STATUS_OK) return status;
    if (out->type != MODEL_F32) {
        return errmsg_set(err, STATUS_UNSUPPORTED, "tensor %s is of type %s, expected f32", name,
                          model_type_name(out->type));
    }
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
    const uint32_t q = p->n_heads * p->head_dim, kv = p->n_kv_heads * p->head_dim;
    const struct {
        const char *name;
        uint32_t ne0, ne1;
        struct model_tensor *out;
    } matrices[] = {
        { "attn_q", p->d_model, q, &layer->attn_q },
        { "attn_k", p->d_model, kv, &layer->attn_k },
        { "attn_v", p->d_model, kv, &layer->attn_v },
        { "attn_output", q, p->d_model, &layer->attn_output },
        { "ffn_gate", p->d_model, p->d_ff, &layer->ffn_gate },
        { "ffn_up", p->d_model, p->d_ff, &layer->ffn_up },
        { "ffn_down", p->d_ff, p->d_model, &layer->ffn_down },
    };
    char name[64];

    snprintf(name, sizeof(name), "blk.%u.attn_norm.weight", index);
    enum status status = load_norm(model, name, &layer->attn_norm, err);
    if (status != STATUS_OK) return status;
    snprintf(name, sizeof(name), "blk.%u.ffn_norm.weight", index);
    status = load_norm(model, name, &layer->ffn_norm, err);
    if (status != STATUS_OK) return status;

    for (size_t i = 0; i < sizeof(matrices) / sizeof(matrices[0]); i++) {
        snprintf(name, sizeof(name), "blk.%u.%s.weight", index, matrices[i].name);
        status = load_tensor(model, name, matrices[i].ne0, matrices[i].ne1, matrices[i].out, err);
        if (status != STATUS_OK) return status;
    }
    return STATUS_OK;
}

/* I1: names the first tensor that nothing asked for. */
static enum status refuse_spare(const struct model *model, struct errmsg *err)
{
    static const char *const parts[] = { "attn_norm", "attn_q",      "attn_k",
                                         "attn_v",    "attn_output", "ffn_norm",
                                         "ffn_gate",  "ffn_up",      "ffn_down" };

    for (uint32_t i = 0; i < gguf_tensor_count(model->gguf); i++) {
        const struct gguf_string name = gguf_tensor_at(model->gguf, i)->name;
        char text[GGUF_NAME_SIZE_MAX + 1], part[32];
        uint32_t layer;
        bool known = false;

        snprintf(text, sizeof(text), "%.*s", (int)name.len, name.data);
        if (strcmp(text, "token_embd.weight") == 0) continue;
        if (strcmp(text, "output_norm.weight") == 0) continue;
        if (strcmp(text, "output.weight") == 0) continue;
        if (strcmp(text, "rope_freqs.weight") == 0) continue;
        if (sscanf(text, "blk.%u.%31[a-z_].weight", &layer, part) == 2) {
            for (size_t k = 0; k < sizeof(parts) / sizeof(parts[0]); k++) {
                char whole[64];
                snprintf(whole, sizeof(whole), "blk.%u.%s.weight", layer, parts[k]);
                if (layer < model->params.n_layers && strcmp(text, whole) == 0) known = true;
            }
        }
        if (known) continue;
        return errmsg_set(err, STATUS_UNSUPPORTED,
                          "tensor %s is not part of a plain llama model: not supported",
                          gguf_show(name).text);
    }
    return errmsg_set(err, STATUS_INVALID, "the tensor table has entries that are not used");
}

static enum status load_tensors(struct model *model, struct errmsg *err)
{
    struct model_params *p = &model->params;

    enum status status =
        load_tensor(model, "token_embd.weight", p->d_model, p->vocab, &model->token_embd, err);
    if (status != STATUS_OK) return status;
    status = load_norm(model, "output_norm.weight", &model->output_norm, err);
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
    status = check_architecture(model->gguf, err);
    if (status != STATUS_OK) return status;
    status = check_features(model->gguf, err);
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
