/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/kernel_ref.c - the kernels in plain C: the definition that the others are tested
 * against, bit for bit, and what runs on a CPU without AVX2. See kernels.h for the orders. */
#include "infer/cpu/kernels.h"

#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "infer/cpu/half.h"
#include "infer/cpu/scalar.h"

static float half_at(const uint8_t *from, size_t index)
{
    uint16_t bits;
    memcpy(&bits, from + index * 2, sizeof(bits));
    return half_to_float(bits);
}

static float sum16(float lane[16])
{
    for (int width = 8; width > 0; width /= 2) {
        for (int i = 0; i < width; i++)
            lane[i] = lane[i] + lane[i + width];
    }
    return lane[0];
}

static float max_of(float a, float b)
{
    return a > b ? a : b;
}

/* To nearest even for |x| < 2^22; bytes of other values are meaningless but defined. */
static int8_t round_to_byte(float x)
{
    return (int8_t)(uint8_t)((float_bits(x + EXP_ROUND) - EXP_ROUND_BITS) & 0xFFu);
}

static void ref_quantize(const float *x, uint32_t n, int8_t *q, float *d, float *ds, int32_t *sum)
{
    ASSERT(n % QUANT_BLOCK == 0);
    for (uint32_t b = 0; b < n / QUANT_BLOCK; b++, x += QUANT_BLOCK, q += QUANT_BLOCK) {
        float most = 0.0f;
        for (int i = 0; i < QUANT_BLOCK; i++)
            most = max_of(fabsf(x[i]), most);
        const float inverse = most > 0.0f ? 127.0f / most : 0.0f;
        int32_t total = 0;
        for (int i = 0; i < QUANT_BLOCK; i++) {
            q[i] = round_to_byte(x[i] * inverse);
            total += q[i];
        }
        d[b] = most / 127.0f;
        ds[b] = d[b] * (float)total;
        sum[b] = -128 * total;
    }
}

/* The integer sum of one block for one lane: exact, so its order does not matter. */
static int32_t dot_q4(const uint8_t *quants, uint32_t lane, const int8_t *x)
{
    int32_t total = 0;

    for (uint32_t i = 0; i < 16; i++) {
        const uint8_t byte = quants[(i / 4) * MATRIX_TILE * 4 + lane * 4 + i % 4];
        total += (byte & 15) * x[i] + (byte >> 4) * x[i + 16];
    }
    return total;
}

static int32_t dot_q8(const uint8_t *quants, uint32_t lane, const int8_t *x)
{
    int32_t total = 0;

    for (uint32_t i = 0; i < QUANT_BLOCK; i++) {
        total += quants[(i / 4) * MATRIX_TILE * 4 + lane * 4 + i % 4] * x[i];
    }
    return total;
}

/* What the packed weights of one lane and the row's block are multiplied with. */
struct block_scales {
    float scale, min;
    int32_t part[2]; /* Q6_K: of each sixteen */
};

static struct block_scales scales_at(const struct matrix *w, const struct tile_sections *at,
                                     const uint8_t *tile, uint32_t b, uint32_t lane)
{
    const bool super = at->quants != at->parts, mins = at->parts != at->mins;
    const size_t group = (size_t)(super ? b / 8 : b) * MATRIX_TILE + lane;
    struct block_scales s = { .scale = half_at(tile, group) };

    if (mins) s.min = half_at(tile + at->mins, group);
    if (!super) return s;
    const uint8_t *parts = tile + at->parts + (size_t)b * 2 * MATRIX_TILE + lane;
    if (w->type == MODEL_Q6_K) {
        s.part[0] = (int8_t)parts[0];
        s.part[1] = (int8_t)parts[MATRIX_TILE];
    } else {
        s.scale = s.scale * (float)parts[0];
        s.min = s.min * (float)parts[MATRIX_TILE];
    }
    return s;
}

/* Q6_K: both sixteens, each times its scale; below 2^24, so exact as a float. */
static int32_t dot_parts(const uint8_t *quants, uint32_t lane, const int8_t *x,
                         const int32_t part[2])
{
    int32_t total = 0;

    for (uint32_t i = 0; i < QUANT_BLOCK; i++) {
        const int32_t q = quants[(i / 4) * MATRIX_TILE * 4 + lane * 4 + i % 4] - 32;
        total += part[i / 16] * q * x[i];
    }
    return total;
}

/* The integer of a block, `sum` being the activations' sum times -128. */
static int32_t dot_block(enum model_type type, const uint8_t *quants, uint32_t lane,
                         const int8_t *x, int32_t sum, const int32_t part[2])
{
    if (type == MODEL_Q8_0) return dot_q8(quants, lane, x) + sum;
    if (type == MODEL_Q5_1 || type == MODEL_Q5_K) return dot_q8(quants, lane, x);
    if (type == MODEL_Q6_K) return dot_parts(quants, lane, x, part);
    return dot_q4(quants, lane, x) + (type == MODEL_Q4_0 ? sum / 16 : 0);
}

static float output_quantized(const struct matrix *w, const uint8_t *tile, uint32_t lane,
                              const struct activations *a, uint32_t row)
{
    const uint32_t blocks = w->cols / QUANT_BLOCK;
    const struct tile_sections sections = tile_sections(w->type, blocks);
    const bool mins = sections.parts != sections.mins;
    const uint8_t *quants = tile + sections.quants;
    float acc = 0.0f;

    for (uint32_t b = 0; b < blocks; b++, quants += sections.quants_size) {
        const int8_t *x = a->q + (size_t)row * a->blocks * QUANT_BLOCK + (size_t)b * QUANT_BLOCK;
        const size_t at = (size_t)row * a->blocks + b;
        const struct block_scales s = scales_at(w, &sections, tile, b, lane);
        const int32_t dot = dot_block(w->type, quants, lane, x, a->sum[at], s.part);
        acc = fmaf((float)dot, s.scale * a->d[at], acc);
        if (mins) acc = fmaf(s.min, a->ds[at], acc);
    }
    return acc;
}

static float plain_at(const struct matrix *w, const uint8_t *tile, size_t index)
{
    float weight;
    uint16_t bits;

    if (w->type == MODEL_F16) return half_at(tile, index);
    if (w->type == MODEL_BF16) {
        memcpy(&bits, tile + index * 2, sizeof(bits));
        return float_of_bits((uint32_t)bits << 16);
    }
    memcpy(&weight, tile + index * 4, sizeof(weight));
    return weight;
}

static float output_plain(const struct matrix *w, const uint8_t *tile, uint32_t lane,
                          const float *x)
{
    float acc = 0.0f;

    for (uint32_t k = 0; k < w->cols; k++) {
        acc = fmaf(plain_at(w, tile, (size_t)k * MATRIX_TILE + lane), x[k], acc);
    }
    return acc;
}

static void ref_matmul(const struct matrix *w, uint32_t tile_index, const struct activations *a,
                       uint32_t row0, uint32_t rows, float *const *out)
{
    const uint8_t *tile = w->data + tile_index * w->tile_size;
    const bool quantized = matrix_is_quantized(w);

    ASSERT(tile_index < w->tiles);
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t lane = 0; lane < MATRIX_TILE; lane++) {
            const float *x = a->x + (size_t)(row0 + r) * a->stride;
            out[r][lane] = quantized ? output_quantized(w, tile, lane, a, row0 + r)
                                     : output_plain(w, tile, lane, x);
        }
    }
}

static void ref_rmsnorm(const float *x, const float *w, uint32_t n, float eps, float *out)
{
    float lane[16] = { 0 };

    for (uint32_t i = 0; i < n; i++)
        lane[i % 16] = fmaf(x[i], x[i], lane[i % 16]);
    const float scale = 1.0f / sqrtf(sum16(lane) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] * scale * w[i];
}

static void ref_add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] = x[i] + y[i];
}

static void ref_silu_mul(float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        gate[i] = gate[i] / (1.0f + scalar_exp(-gate[i])) * up[i];
    }
}

static void ref_gelu_mul(float *gate, const float *up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const float t = gate[i] * fmaf(gate[i] * gate[i], GELU_CUBE, GELU_LINE);
        gate[i] = gate[i] / (1.0f + scalar_exp(-t)) * up[i];
    }
}

static void ref_rope(float *x, const float *cs, uint32_t dims)
{
    for (uint32_t i = 0; i < dims; i += 2) {
        const float a = x[i], b = x[i + 1];
        x[i] = a * cs[i] - b * cs[i + 1];
        x[i + 1] = b * cs[i] + a * cs[i + 1];
    }
}

static void ref_to_half(const float *x, uint16_t *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = half_from_float(x[i]);
}

static const uint8_t *kv_at(const struct attend *job, size_t offset, uint32_t token)
{
    const size_t page = job->pages[token / job->block_tokens];
    const size_t slot = token % job->block_tokens;

    return job->slab + page * job->page_size + offset + slot * job->token_size;
}

static float kv_value(const struct attend *job, const uint8_t *token, uint32_t i)
{
    const uint8_t *block = token + (size_t)(i / QUANT_BLOCK) * KV_BLOCK_SIZE;

    if (job->kv == ENGINE_KV_F16) return half_at(token, i);
    return half_at(block, 0) * (float)(int8_t)block[2 + i % QUANT_BLOCK];
}

/* Tokens [first, last) of one span, for one query: the partial sums of l and o; returns the
 * maximum. */
static float attend_span(const struct attend *job, const float *q, uint32_t first, uint32_t last,
                         float *l, float *o)
{
    float score[ATTEND_SPAN];
    float lane[16] = { 0 };
    float most = -INFINITY;

    ASSERT(first < last && last - first <= ATTEND_SPAN);
    for (uint32_t t = first; t < last; t++) {
        const uint8_t *k = kv_at(job, job->k_offset, t);
        float s = 0.0f;
        for (uint32_t i = 0; i < job->head_dim; i++)
            s = fmaf(q[i], kv_value(job, k, i), s);
        score[t - first] = s;
        most = max_of(s, most);
    }
    memset(o, 0, job->head_dim * sizeof(*o));
    for (uint32_t t = first; t < last; t++) {
        const uint8_t *v = kv_at(job, job->v_offset, t);
        const float p = scalar_exp(score[t - first] - most);
        lane[t % 16] = lane[t % 16] + p;
        for (uint32_t i = 0; i < job->head_dim; i++)
            o[i] = fmaf(p, kv_value(job, v, i), o[i]);
    }
    *l = sum16(lane);
    return most;
}

static void ref_attend(const struct attend *job)
{
    float *span_o = job->scratch;

    for (uint32_t i = 0; i < job->queries; i++) {
        const uint32_t start = job->starts[i], end = job->ends[i];
        float *o = job->out + (size_t)i * job->head_dim;
        float m = -INFINITY, l = 0.0f;
        memset(o, 0, job->head_dim * sizeof(*o));
        for (uint32_t t = start; t < end; t += ATTEND_SPAN - t % ATTEND_SPAN) {
            const uint32_t rest = ATTEND_SPAN - t % ATTEND_SPAN;
            const uint32_t last = end - t < rest ? end : t + rest;
            float span_l;
            const float span_m =
                attend_span(job, job->q + (size_t)i * job->head_dim, t, last, &span_l, span_o);
            const float m_new = max_of(m, span_m);
            const float a = scalar_exp(m - m_new), b = scalar_exp(span_m - m_new);
            l = fmaf(span_l, b, l * a);
            for (uint32_t j = 0; j < job->head_dim; j++)
                o[j] = fmaf(span_o[j], b, o[j] * a);
            m = m_new;
        }
        const float inverse = 1.0f / l;
        for (uint32_t j = 0; j < job->head_dim; j++)
            o[j] = o[j] * inverse;
    }
}

const struct kernels kernels_portable = {
    .isa = ENGINE_ISA_PORTABLE,
    .quantize = ref_quantize,
    .matmul = ref_matmul,
    .rmsnorm = ref_rmsnorm,
    .add = ref_add,
    .silu_mul = ref_silu_mul,
    .gelu_mul = ref_gelu_mul,
    .rope = ref_rope,
    .to_half = ref_to_half,
    .attend = ref_attend,
};
