/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/kernel_simd.h - the kernels that AVX2 and AVX-512 share, over a vector of 16 floats.
 *
 * Not self-contained: included once by kernel_avx2.c and once by kernel_avx512.c, after they have
 * defined v16, its operations (v_*), and how many queries and vectors their registers hold:
 *     SCORE_QUERIES x SCORE_GROUPS accumulators of 16 tokens;  VALUE_QUERIES x VALUE_VECTORS of 16
 *     dims.
 * Each lane does what kernel_ref.c does for one element, in the same order: see kernels.h. */
#ifndef INFER_CPU_KERNEL_SIMD_H
#define INFER_CPU_KERNEL_SIMD_H

#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "infer/cpu/half.h"
#include "infer/cpu/scalar.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

ALWAYS_INLINE v16 v_exp(v16 x)
{
    const v16 high = v_min(v_set1(EXP_HIGH), x);
    const v16 t = v_fma(high, v_set1(EXP_LOG2E), v_set1(EXP_ROUND));
    const v16 n = v_sub(t, v_set1(EXP_ROUND));
    const v16 r = v_fma(n, v_set1(-EXP_LN2_LOW), v_fma(n, v_set1(-EXP_LN2_HIGH), high));
    v16 p = v_set1(EXP_C7);
    p = v_fma(p, r, v_set1(EXP_C6));
    p = v_fma(p, r, v_set1(EXP_C5));
    p = v_fma(p, r, v_set1(EXP_C4));
    p = v_fma(p, r, v_set1(EXP_C3));
    p = v_fma(p, r, v_set1(EXP_C2));
    p = v_fma(p, r, v_set1(1.0f));
    p = v_fma(p, r, v_set1(1.0f));
    return v_zero_where_less(v_mul(p, v_power_of_two(t)), x, v_set1(EXP_LOW));
}

/* The first n < 16 floats, zero in the other lanes. */
ALWAYS_INLINE v16 v_load_first(const float *x, uint32_t n)
{
    float lane[16] = { 0 };
    memcpy(lane, x, n * sizeof(float));
    return v_load(lane);
}

ALWAYS_INLINE void v_store_first(float *out, v16 v, uint32_t n)
{
    float lane[16];
    v_store(lane, v);
    memcpy(out, lane, n * sizeof(float));
}

/* ---- rows ---- */

ALWAYS_INLINE int32_t sum_of_bytes(const int8_t *q)
{
    const __m256i bytes = _mm256_loadu_si256((const __m256i *)q);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    const __m256i quads = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(quads), _mm256_extracti128_si256(quads, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    return _mm_cvtsi128_si32(sum);
}

static void simd_quantize(const float *x, uint32_t n, int8_t *q, float *d, float *ds, int32_t *sum)
{
    ASSERT(n % QUANT_BLOCK == 0);
    for (uint32_t b = 0; b < n / QUANT_BLOCK; b++, x += QUANT_BLOCK, q += QUANT_BLOCK) {
        const v16 low = v_load(x), high = v_load(x + 16);
        const float most = v_max_lane(v_max(v_abs(low), v_max(v_abs(high), v_set1(0.0f))));
        const v16 inverse = v_set1(most > 0.0f ? 127.0f / most : 0.0f);
        v_store_bytes(q, v_add(v_mul(low, inverse), v_set1(EXP_ROUND)));
        v_store_bytes(q + 16, v_add(v_mul(high, inverse), v_set1(EXP_ROUND)));
        const int32_t total = sum_of_bytes(q);
        d[b] = most / 127.0f;
        ds[b] = d[b] * (float)total;
        sum[b] = -128 * total;
    }
}

static void simd_rmsnorm(const float *x, const float *w, uint32_t n, float eps, float *out)
{
    const uint32_t whole = n / 16 * 16, rest = n % 16;
    v16 acc = v_set1(0.0f);

    for (uint32_t i = 0; i < whole; i += 16)
        acc = v_fma(v_load(x + i), v_load(x + i), acc);
    if (rest > 0) {
        const v16 last = v_load_first(x + whole, rest);
        acc = v_fma(last, last, acc);
    }
    const v16 scale = v_set1(1.0f / sqrtf(v_sum(acc) / (float)n + eps));
    for (uint32_t i = 0; i < whole; i += 16) {
        v_store(out + i, v_mul(v_mul(v_load(x + i), scale), v_load(w + i)));
    }
    if (rest > 0) {
        const v16 last = v_mul(v_load_first(x + whole, rest), scale);
        v_store_first(out + whole, v_mul(last, v_load_first(w + whole, rest)), rest);
    }
}

static void simd_add(float *x, const float *y, uint32_t n)
{
    const uint32_t whole = n / 16 * 16;

    for (uint32_t i = 0; i < whole; i += 16)
        v_store(x + i, v_add(v_load(x + i), v_load(y + i)));
    for (uint32_t i = whole; i < n; i++)
        x[i] = x[i] + y[i];
}

ALWAYS_INLINE v16 v_gate_mul(v16 gate, v16 up, const bool gelu)
{
    const v16 one = v_set1(1.0f);
    v16 t = gate;

    if (gelu) {
        t = v_mul(gate, v_fma(v_mul(gate, gate), v_set1(GELU_CUBE), v_set1(GELU_LINE)));
    }
    return v_mul(v_div(gate, v_add(one, v_exp(v_negate(t)))), up);
}

ALWAYS_INLINE void gate_mul(float *gate, const float *up, uint32_t n, const bool gelu)
{
    const uint32_t whole = n / 16 * 16, rest = n % 16;

    for (uint32_t i = 0; i < whole; i += 16) {
        v_store(gate + i, v_gate_mul(v_load(gate + i), v_load(up + i), gelu));
    }
    if (rest > 0) {
        const v16 last =
            v_gate_mul(v_load_first(gate + whole, rest), v_load_first(up + whole, rest), gelu);
        v_store_first(gate + whole, last, rest);
    }
}

static void simd_silu_mul(float *gate, const float *up, uint32_t n)
{
    gate_mul(gate, up, n, false);
}

static void simd_gelu_mul(float *gate, const float *up, uint32_t n)
{
    gate_mul(gate, up, n, true);
}

static void simd_rope(float *x, const float *cs, uint32_t dims)
{
    const uint32_t whole = dims / 8 * 8;

    for (uint32_t i = 0; i < whole; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i), both = _mm256_loadu_ps(cs + i);
        const __m256 straight = _mm256_mul_ps(v, _mm256_moveldup_ps(both));
        const __m256 crossed = _mm256_mul_ps(_mm256_permute_ps(v, 0xB1), _mm256_movehdup_ps(both));
        _mm256_storeu_ps(x + i, _mm256_addsub_ps(straight, crossed));
    }
    for (uint32_t i = whole; i < dims; i += 2) {
        const float a = x[i], b = x[i + 1];
        x[i] = a * cs[i] - b * cs[i + 1];
        x[i + 1] = b * cs[i] + a * cs[i + 1];
    }
}

static void simd_to_half(const float *x, uint16_t *out, uint32_t n)
{
    const uint32_t whole = n / 16 * 16;

    for (uint32_t i = 0; i < whole; i += 16)
        v_store_half(out + i, v_load(x + i));
    for (uint32_t i = whole; i < n; i++)
        out[i] = half_from_float(x[i]);
}

/* ---- attention ---- */

/* One span at work. Scratch, in floats: kt [head_dim][ATTEND_SPAN], v [ATTEND_SPAN][head_dim],
 * p [queries][ATTEND_SPAN] (scores, then probabilities), o [VALUE_QUERIES][head_dim], m and l. */
struct span {
    uint32_t first;  /* token */
    uint32_t tokens; /* 1..ATTEND_SPAN: what the last query sees */
    float *kt, *v, *p, *o, *m, *l;
};

static const uint8_t *kv_at(const struct attend *job, size_t offset, uint32_t token)
{
    const size_t page = job->pages[token / job->block_tokens];
    const size_t slot = token % job->block_tokens;

    return job->slab + page * job->page_size + offset + slot * job->token_size;
}

/* Sixteen values from the i-th on of K, or V, of a token. */
ALWAYS_INLINE v16 load_kv(const uint8_t *token, uint32_t i, const enum engine_kv kv)
{
    const uint8_t *block = token + (size_t)(i / QUANT_BLOCK) * KV_BLOCK_SIZE;
    uint16_t half;

    if (kv == ENGINE_KV_F16) return v_load_half(token + (size_t)i * 2);
    memcpy(&half, block, sizeof(half));
    return v_mul(v_set1(_cvtsh_ss(half)), v_load_bytes(block + sizeof(half) + i % QUANT_BLOCK));
}

/* K by dims, so that a lane is a token. Sixteen tokens never straddle a page. Lanes beyond the last
 * token hold whatever the page holds; their scores are overwritten. */
ALWAYS_INLINE void load_keys(const struct attend *job, const struct span *span,
                             const enum engine_kv kv)
{
    const uint32_t dim = job->head_dim;

    for (uint32_t t = 0; t < span->tokens; t += 16) {
        const uint8_t *k = kv_at(job, job->k_offset, span->first + t);
        for (uint32_t i = 0; i < dim; i += 16) {
            v16 row[16];
            UNROLL
            for (uint32_t j = 0; j < 16; j++) {
                row[j] = load_kv(k + (size_t)j * job->token_size, i, kv);
            }
            v_transpose(row);
            UNROLL
            for (uint32_t j = 0; j < 16; j++) {
                v_store(span->kt + (size_t)(i + j) * ATTEND_SPAN + t, row[j]);
            }
        }
    }
}

ALWAYS_INLINE void load_values(const struct attend *job, const struct span *span,
                               const enum engine_kv kv)
{
    const uint32_t dim = job->head_dim;

    for (uint32_t t = 0; t < span->tokens; t++) {
        const uint8_t *v = kv_at(job, job->v_offset, span->first + t);
        for (uint32_t i = 0; i < dim; i += 16) {
            v_store(span->v + (size_t)t * dim + i, load_kv(v, i, kv));
        }
    }
}

static void load_span(const struct attend *job, const struct span *span)
{
    if (job->kv == ENGINE_KV_F16) {
        load_keys(job, span, ENGINE_KV_F16);
        load_values(job, span, ENGINE_KV_F16);
    } else {
        load_keys(job, span, ENGINE_KV_Q8_0);
        load_values(job, span, ENGINE_KV_Q8_0);
    }
}

ALWAYS_INLINE void score_block(const struct attend *job, const struct span *span, uint32_t query,
                               uint32_t group, const uint32_t queries)
{
    const float *q = job->q + (size_t)query * job->head_dim;
    v16 acc[SCORE_QUERIES][SCORE_GROUPS];

    UNROLL
    for (uint32_t r = 0; r < queries; r++) {
        UNROLL
        for (uint32_t g = 0; g < SCORE_GROUPS; g++)
            acc[r][g] = v_set1(0.0f);
    }
    for (uint32_t i = 0; i < job->head_dim; i++) {
        const float *kt = span->kt + (size_t)i * ATTEND_SPAN + (size_t)group * 16;
        UNROLL
        for (uint32_t r = 0; r < queries; r++) {
            const v16 x = v_set1(q[(size_t)r * job->head_dim + i]);
            UNROLL
            for (uint32_t g = 0; g < SCORE_GROUPS; g++) {
                acc[r][g] = v_fma(x, v_load(kt + (size_t)g * 16), acc[r][g]);
            }
        }
    }
    UNROLL
    for (uint32_t r = 0; r < queries; r++) {
        float *p = span->p + (size_t)(query + r) * ATTEND_SPAN + (size_t)group * 16;
        UNROLL
        for (uint32_t g = 0; g < SCORE_GROUPS; g++)
            v_store(p + (size_t)g * 16, acc[r][g]);
    }
}

/* Queries [first, last). */
static void scores(const struct attend *job, const struct span *span, uint32_t first, uint32_t last)
{
    for (uint32_t g = 0; g * 16 < span->tokens; g += SCORE_GROUPS) {
        uint32_t i = first;
        for (; i + SCORE_QUERIES <= last; i += SCORE_QUERIES) {
            score_block(job, span, i, g, SCORE_QUERIES);
        }
        /* One row of a model with three heads in a group: the usual decode. */
        if (SCORE_QUERIES > 3 && last - i == 3) {
            score_block(job, span, i, g, SCORE_QUERIES > 3 ? 3 : 1);
            continue;
        }
        for (; i < last; i++)
            score_block(job, span, i, g, 1);
    }
}

/* Scores of tokens [from, tokens) to probabilities in place; returns the maximum, and their sum in
 * *l. */
static float softmax(float *p, uint32_t from, uint32_t tokens, float *l)
{
    v16 most = v_set1(-INFINITY), sum = v_set1(0.0f);

    for (uint32_t t = 0; t < from; t++)
        p[t] = -INFINITY;
    for (uint32_t t = tokens; t < ATTEND_SPAN; t++)
        p[t] = -INFINITY;
    for (uint32_t t = 0; t < tokens; t += 16)
        most = v_max(v_load(p + t), most);
    const float m = v_max_lane(most);
    for (uint32_t t = 0; t < tokens; t += 16) {
        const v16 e = v_exp(v_sub(v_load(p + t), v_set1(m)));
        v_store(p + t, e);
        sum = v_add(sum, e);
    }
    *l = v_sum(sum);
    return m;
}

/* o += p v over tokens [from, to), for `queries` queries and `vectors` * 16 dims from `dim`. */
ALWAYS_INLINE void value_block(const struct attend *job, const struct span *span, uint32_t query,
                               uint32_t slot, uint32_t from, uint32_t to, uint32_t dim,
                               const uint32_t queries, const uint32_t vectors)
{
    const uint32_t width = job->head_dim;
    float *o = span->o + (size_t)slot * width + dim;
    const float *p = span->p + (size_t)query * ATTEND_SPAN;
    v16 acc[VALUE_QUERIES][VALUE_VECTORS];

    UNROLL
    for (uint32_t r = 0; r < queries; r++) {
        UNROLL
        for (uint32_t j = 0; j < vectors; j++) {
            acc[r][j] = v_load(o + (size_t)r * width + (size_t)j * 16);
        }
    }
    for (uint32_t t = from; t < to; t++) {
        const float *v = span->v + (size_t)t * width + dim;
        UNROLL
        for (uint32_t r = 0; r < queries; r++) {
            const v16 x = v_set1(p[(size_t)r * ATTEND_SPAN + t]);
            UNROLL
            for (uint32_t j = 0; j < vectors; j++) {
                acc[r][j] = v_fma(x, v_load(v + (size_t)j * 16), acc[r][j]);
            }
        }
    }
    UNROLL
    for (uint32_t r = 0; r < queries; r++) {
        UNROLL
        for (uint32_t j = 0; j < vectors; j++) {
            v_store(o + (size_t)r * width + (size_t)j * 16, acc[r][j]);
        }
    }
}

ALWAYS_INLINE void values(const struct attend *job, const struct span *span, uint32_t query,
                          uint32_t slot, uint32_t from, uint32_t to, const uint32_t queries)
{
    uint32_t dim = 0;

    if (from >= to) return;
    for (; dim + VALUE_VECTORS * 16 <= job->head_dim; dim += VALUE_VECTORS * 16) {
        value_block(job, span, query, slot, from, to, dim, queries, VALUE_VECTORS);
    }
    for (; dim < job->head_dim; dim += 16) {
        value_block(job, span, query, slot, from, to, dim, queries, 1);
    }
}

/* The same for one query. A function of its own, so that it is compiled once. */
static void values_alone(const struct attend *job, const struct span *span, uint32_t query,
                         uint32_t slot, uint32_t from, uint32_t to)
{
    values(job, span, query, slot, from, to, 1);
}

static void merge_span(const struct attend *job, const struct span *span, uint32_t query,
                       uint32_t slot, float span_m, float span_l)
{
    float *o = job->out + (size_t)query * job->head_dim;
    const float *add = span->o + (size_t)slot * job->head_dim;
    const float m = span->m[query] > span_m ? span->m[query] : span_m;
    const float a = scalar_exp(span->m[query] - m), b = scalar_exp(span_m - m);

    span->l[query] = fmaf(span_l, b, span->l[query] * a);
    span->m[query] = m;
    for (uint32_t i = 0; i < job->head_dim; i += 16) {
        v_store(o + i, v_fma(v_load(add + i), v_set1(b), v_mul(v_load(o + i), v_set1(a))));
    }
}

/* Query i sees tokens [span_from(), span_tokens()) of this span. */
ALWAYS_INLINE uint32_t span_from(const struct attend *job, const struct span *span, uint32_t i)
{
    return job->starts[i] > span->first ? job->starts[i] - span->first : 0;
}

ALWAYS_INLINE uint32_t span_tokens(const struct attend *job, const struct span *span, uint32_t i)
{
    const uint32_t end = job->ends[i] - span->first;
    return end < span->tokens ? end : span->tokens;
}

/* Softmax, values and merge of `queries` neighbours: together where all of them see, before and
 * after it each alone, so that no query ever meets a token that it does not see. */
ALWAYS_INLINE void finish_queries(const struct attend *job, const struct span *span, uint32_t query,
                                  const uint32_t queries)
{
    const uint32_t to = span_tokens(job, span, query);
    const uint32_t last_from = span_from(job, span, query + queries - 1);
    const uint32_t from = last_from < to ? last_from : to;
    float m[VALUE_QUERIES], l[VALUE_QUERIES];

    memset(span->o, 0, (size_t)queries * job->head_dim * sizeof(float));
    for (uint32_t r = 0; r < queries; r++) {
        float *p = span->p + (size_t)(query + r) * ATTEND_SPAN;
        const uint32_t own_from = span_from(job, span, query + r);
        m[r] = softmax(p, own_from, span_tokens(job, span, query + r), &l[r]);
        values_alone(job, span, query + r, r, own_from, from);
    }
    values(job, span, query, 0, from, to, queries);
    for (uint32_t r = 0; r < queries; r++) {
        const uint32_t own_from = span_from(job, span, query + r);
        values_alone(job, span, query + r, r, own_from > to ? own_from : to,
                     span_tokens(job, span, query + r));
        merge_span(job, span, query + r, r, m[r], l[r]);
    }
}

static void attend_one_span(const struct attend *job, const struct span *span)
{
    uint32_t i = 0, last = job->queries;

    while (i < last && job->ends[i] <= span->first)
        i++; /* queries that end before this span */
    while (last > i && job->starts[last - 1] >= span->first + ATTEND_SPAN)
        last--; /* queries that start after it */
    if (i == last) return;
    load_span(job, span);
    scores(job, span, i, last);
    for (; i + VALUE_QUERIES <= last; i += VALUE_QUERIES) {
        finish_queries(job, span, i, VALUE_QUERIES);
    }
    if (VALUE_QUERIES > 3 && last - i == 3) {
        finish_queries(job, span, i, VALUE_QUERIES > 3 ? 3 : 1);
        return;
    }
    for (; i < last; i++)
        finish_queries(job, span, i, 1);
}

static void simd_attend(const struct attend *job)
{
    const size_t width = job->head_dim;
    const uint32_t end = job->ends[job->queries - 1];
    struct span span = { .first = job->starts[0] / ATTEND_SPAN * ATTEND_SPAN, .kt = job->scratch };

    ASSERT(job->queries >= 1 && job->queries <= ATTEND_QUERIES_MAX);
    ASSERT(job->head_dim % 16 == 0 && job->block_tokens % 16 == 0);
    span.v = span.kt + width * ATTEND_SPAN;
    span.p = span.v + width * ATTEND_SPAN;
    span.o = span.p + (size_t)ATTEND_QUERIES_MAX * ATTEND_SPAN;
    span.m = span.o + width * VALUE_QUERIES;
    span.l = span.m + ATTEND_QUERIES_MAX;
    for (uint32_t i = 0; i < job->queries; i++) {
        span.m[i] = -INFINITY;
        span.l[i] = 0.0f;
    }
    memset(job->out, 0, job->queries * width * sizeof(float));
    for (; span.first < end; span.first += ATTEND_SPAN) {
        span.tokens = end - span.first < ATTEND_SPAN ? end - span.first : ATTEND_SPAN;
        attend_one_span(job, &span);
    }
    for (uint32_t i = 0; i < job->queries; i++) {
        const v16 inverse = v_set1(1.0f / span.l[i]);
        float *o = job->out + i * width;
        for (uint32_t j = 0; j < width; j += 16)
            v_store(o + j, v_mul(v_load(o + j), inverse));
    }
}

/* ---- weights as floats ---- */

/* The plain types: `type` is constant where this is inlined. */
ALWAYS_INLINE v16 load_plain(const uint8_t *from, const enum model_type type)
{
    if (type == MODEL_F16) return v_load_half(from);
    if (type == MODEL_BF16) return v_load_bf16(from);
    return v_load((const float *)(const void *)from);
}

ALWAYS_INLINE void plain_rows(const struct matrix *w, const uint8_t *tile,
                              const struct activations *a, uint32_t row0, float *const *out,
                              const uint32_t rows, const enum model_type type)
{
    const float *x = a->x + (size_t)row0 * a->stride;
    v16 acc[PLAIN_ROWS];

    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        acc[r] = v_set1(0.0f);
    for (uint32_t k = 0; k < w->cols; k++) {
        const size_t size = type == MODEL_F32 ? 4 : 2;
        const v16 weight = load_plain(tile + (size_t)k * MATRIX_TILE * size, type);
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            acc[r] = v_fma(weight, v_set1(x[(size_t)r * a->stride + k]), acc[r]);
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        v_store(out[r], acc[r]);
}

ALWAYS_INLINE void plain_matmul(const struct matrix *w, const uint8_t *tile,
                                const struct activations *a, uint32_t row0, uint32_t rows,
                                float *const *out, const enum model_type type)
{
    uint32_t r = 0;

    for (; r + PLAIN_ROWS <= rows; r += PLAIN_ROWS) {
        plain_rows(w, tile, a, row0 + r, out + r, PLAIN_ROWS, type);
    }
    for (; r < rows; r++)
        plain_rows(w, tile, a, row0 + r, out + r, 1, type);
}

#endif
