/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/kernel_avx2.c - kernels for AVX2 with FMA and F16C. See kernels.h for what they
 * compute.
 *
 * A vector of sixteen is two registers. There is no dot product of bytes here: vpmaddubsw adds
 * pairs of (unsigned * signed) into 16 bits, which holds the whole block for nibbles (8 * 2 * 15 *
 * 127 < 2^15), half of it for five bits (4 * 2 * 31 * 127 < 2^15), and two bytes at most for Q8_0
 * after the weight's sign has moved to the activation (2 * 128 * 127 < 2^15); so moved, it holds
 * sixteen elements of Q6_K too (4 * 2 * 32 * 127 < 2^15). */
#include "infer/cpu/kernels.h"

#include <immintrin.h>

typedef struct {
    __m256 a, b;
} v16;

enum {
    SCORE_QUERIES = 2,
    SCORE_GROUPS = 2,
    VALUE_QUERIES = 2,
    VALUE_VECTORS = 2,
    PLAIN_ROWS = 4,
    ROWS = 8,
};

#define V_FN static inline __attribute__((always_inline))

V_FN v16 v_load(const float *x)
{
    return (v16){ _mm256_loadu_ps(x), _mm256_loadu_ps(x + 8) };
}
V_FN void v_store(float *x, v16 v)
{
    _mm256_storeu_ps(x, v.a);
    _mm256_storeu_ps(x + 8, v.b);
}
V_FN v16 v_set1(float x)
{
    return (v16){ _mm256_set1_ps(x), _mm256_set1_ps(x) };
}
V_FN v16 v_add(v16 a, v16 b)
{
    return (v16){ _mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b) };
}
V_FN v16 v_sub(v16 a, v16 b)
{
    return (v16){ _mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b) };
}
V_FN v16 v_mul(v16 a, v16 b)
{
    return (v16){ _mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b) };
}
V_FN v16 v_div(v16 a, v16 b)
{
    return (v16){ _mm256_div_ps(a.a, b.a), _mm256_div_ps(a.b, b.b) };
}
V_FN v16 v_fma(v16 a, v16 b, v16 c)
{
    return (v16){ _mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b) };
}
V_FN v16 v_max(v16 a, v16 b)
{
    return (v16){ _mm256_max_ps(a.a, b.a), _mm256_max_ps(a.b, b.b) };
}
V_FN v16 v_min(v16 a, v16 b)
{
    return (v16){ _mm256_min_ps(a.a, b.a), _mm256_min_ps(a.b, b.b) };
}
V_FN v16 v_abs(v16 v)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){ _mm256_andnot_ps(sign, v.a), _mm256_andnot_ps(sign, v.b) };
}
V_FN v16 v_negate(v16 v)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){ _mm256_xor_ps(v.a, sign), _mm256_xor_ps(v.b, sign) };
}
V_FN v16 v_zero_where_less(v16 p, v16 x, v16 limit)
{
    return (v16){ _mm256_and_ps(_mm256_cmp_ps(x.a, limit.a, _CMP_NLT_UQ), p.a),
                  _mm256_and_ps(_mm256_cmp_ps(x.b, limit.b, _CMP_NLT_UQ), p.b) };
}
/* 2^n, where n was rounded into the low bits of t: see EXP_ROUND. */
V_FN __m256 power_of_two_half(__m256 t)
{
    const __m256i bias = _mm256_set1_epi32((int)(127u - 0x4B400000u));
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(t), bias), 23));
}
V_FN v16 v_power_of_two(v16 t)
{
    return (v16){ power_of_two_half(t.a), power_of_two_half(t.b) };
}
V_FN v16 v_load_half(const void *from)
{
    const __m128i *half = (const __m128i *)from;
    return (v16){ _mm256_cvtph_ps(_mm_loadu_si128(half)),
                  _mm256_cvtph_ps(_mm_loadu_si128(half + 1)) };
}
V_FN v16 v_load_bytes(const void *from)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)from);
    return (v16){ _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                  _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))) };
}
V_FN __m256 bf16_half(const __m128i *from)
{
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
V_FN v16 v_load_bf16(const void *from)
{
    const __m128i *half = (const __m128i *)from;
    return (v16){ bf16_half(half), bf16_half(half + 1) };
}
V_FN void v_store_half(void *to, v16 v)
{
    __m128i *half = (__m128i *)to;
    _mm_storeu_si128(half, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(half + 1, _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}
/* The low byte of each 32-bit lane. */
V_FN void v_store_bytes(int8_t *to, v16 t)
{
    const __m256i mask = _mm256_set1_epi32(0xFF);
    const __m256i words = _mm256_packus_epi32(_mm256_and_si256(_mm256_castps_si256(t.a), mask),
                                              _mm256_and_si256(_mm256_castps_si256(t.b), mask));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storeu_si128((__m128i *)(void *)to, bytes);
}
V_FN float v_sum(v16 v)
{
    const __m256 eight = _mm256_add_ps(v.a, v.b);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
V_FN float v_max_lane(v16 v)
{
    const __m256 eight = _mm256_max_ps(v.a, v.b);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/* Eight rows of eight to columns. */
V_FN void transpose_eight(__m256 row[8])
{
    __m256 t[8];

    for (int i = 0; i < 8; i += 4) {
        const __m256 a = _mm256_unpacklo_ps(row[i], row[i + 1]);
        const __m256 b = _mm256_unpackhi_ps(row[i], row[i + 1]);
        const __m256 c = _mm256_unpacklo_ps(row[i + 2], row[i + 3]);
        const __m256 d = _mm256_unpackhi_ps(row[i + 2], row[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm256_shuffle_ps(a, c, 0xEE);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm256_shuffle_ps(b, d, 0xEE);
    }
    for (int i = 0; i < 4; i++) {
        row[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        row[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}

V_FN void v_transpose(v16 row[16])
{
    __m256 quarter[4][8]; /* [row half * 2 + column half] */

    for (int i = 0; i < 8; i++) {
        quarter[0][i] = row[i].a;
        quarter[1][i] = row[i].b;
        quarter[2][i] = row[i + 8].a;
        quarter[3][i] = row[i + 8].b;
    }
    for (int i = 0; i < 4; i++)
        transpose_eight(quarter[i]);
    for (int i = 0; i < 8; i++) {
        row[i] = (v16){ quarter[0][i], quarter[2][i] };
        row[i + 8] = (v16){ quarter[1][i], quarter[3][i] };
    }
}

#include "infer/cpu/kernel_simd.h"

ALWAYS_INLINE __m256i four_bytes(const int8_t *x)
{
    int32_t bytes;
    memcpy(&bytes, x, sizeof(bytes));
    return _mm256_set1_epi32(bytes);
}

ALWAYS_INLINE __m256i load_bytes(const uint8_t *from)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)from);
}

/* Adds pairs of 16-bit sums into eight 32-bit ones. */
ALWAYS_INLINE __m256i widen(__m256i words)
{
    return _mm256_madd_epi16(words, _mm256_set1_epi16(1));
}

/* Integer sums of eight outputs over one block: `quants` points at their half of each group. */
ALWAYS_INLINE void dot_nibbles(const uint8_t *quants, const int8_t *x, size_t stride,
                               const uint32_t rows, __m256i sum[ROWS])
{
    const __m256i mask = _mm256_set1_epi8(15);

    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        sum[r] = _mm256_setzero_si256();
    UNROLL
    for (size_t g = 0; g < 4; g++) {
        const __m256i both = load_bytes(quants + g * 64);
        const __m256i low = _mm256_and_si256(both, mask);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            const int8_t *at = x + r * stride + g * 4;
            sum[r] = _mm256_add_epi16(sum[r], _mm256_maddubs_epi16(low, four_bytes(at)));
            sum[r] = _mm256_add_epi16(sum[r], _mm256_maddubs_epi16(high, four_bytes(at + 16)));
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        sum[r] = widen(sum[r]);
}

ALWAYS_INLINE void dot_signed(const uint8_t *quants, const int8_t *x, size_t stride,
                              const uint32_t rows, __m256i sum[ROWS])
{
    const __m256i flip = _mm256_set1_epi8((char)0x80);

    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        sum[r] = _mm256_setzero_si256();
    for (size_t g = 0; g < 8; g++) {
        const __m256i weight = _mm256_xor_si256(load_bytes(quants + g * 64), flip);
        const __m256i magnitude = _mm256_abs_epi8(weight);
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            const __m256i bytes = _mm256_sign_epi8(four_bytes(x + r * stride + g * 4), weight);
            sum[r] = _mm256_add_epi32(sum[r], widen(_mm256_maddubs_epi16(magnitude, bytes)));
        }
    }
}

/* Weights of five bits. */
ALWAYS_INLINE void dot_five(const uint8_t *quants, const int8_t *x, size_t stride,
                            const uint32_t rows, __m256i sum[ROWS])
{
    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        sum[r] = _mm256_setzero_si256();
    for (size_t half = 0; half < 2; half++, quants += 256, x += 16) {
        __m256i weight[4];
        UNROLL
        for (size_t g = 0; g < 4; g++)
            weight[g] = load_bytes(quants + g * 64);
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            __m256i words = _mm256_setzero_si256();
            UNROLL
            for (size_t g = 0; g < 4; g++) {
                const __m256i bytes = four_bytes(x + r * stride + g * 4);
                words = _mm256_add_epi16(words, _mm256_maddubs_epi16(weight[g], bytes));
            }
            sum[r] = _mm256_add_epi32(sum[r], widen(words));
        }
    }
}

/* Q6_K: each sixteen elements times their scale. `parts` has that of eight outputs, and 16 bytes
 * further that for the second sixteen. */
ALWAYS_INLINE void dot_parts(const uint8_t *quants, const uint8_t *parts, const int8_t *x,
                             size_t stride, const uint32_t rows, __m256i sum[ROWS])
{
    const __m256i offset = _mm256_set1_epi8(32);

    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        sum[r] = _mm256_setzero_si256();
    for (size_t half = 0; half < 2; half++, quants += 256, parts += 16, x += 16) {
        const __m256i part =
            _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)parts));
        /* The scale in both words of each output's 32 bits. */
        const __m256i scale = _mm256_or_si256(_mm256_slli_epi32(part, 16),
                                              _mm256_and_si256(part, _mm256_set1_epi32(0xFFFF)));
        __m256i words[ROWS];
        UNROLL
        for (uint32_t r = 0; r < rows; r++)
            words[r] = _mm256_setzero_si256();
        UNROLL
        for (size_t g = 0; g < 4; g++) {
            const __m256i weight = _mm256_sub_epi8(load_bytes(quants + g * 64), offset);
            const __m256i magnitude = _mm256_abs_epi8(weight);
            UNROLL
            for (uint32_t r = 0; r < rows; r++) {
                const __m256i bytes = _mm256_sign_epi8(four_bytes(x + r * stride + g * 4), weight);
                words[r] = _mm256_add_epi16(words[r], _mm256_maddubs_epi16(magnitude, bytes));
            }
        }
        UNROLL
        for (uint32_t r = 0; r < rows; r++)
            sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(words[r], scale));
    }
}

/* acc += float(sum) * (d_w * d_x), and the minimum's part, for eight outputs. */
ALWAYS_INLINE __m256 scale_block(__m256i sum, __m256 scale, float d, __m256 acc)
{
    const __m256 both = _mm256_mul_ps(scale, _mm256_set1_ps(d));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), both, acc);
}

ALWAYS_INLINE __m256 load_eight_halves(const uint8_t *from)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)from));
}

ALWAYS_INLINE __m256 load_eight_parts(const uint8_t *from)
{
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)from);
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}

/* Where one block of eight outputs lies, and what multiplies it. */
struct block_at {
    const uint8_t *quants, *parts;
    __m256 scale, min;
};

/* The types that the code below knows: all constant where it is inlined. */
ALWAYS_INLINE bool is_super(const enum model_type type)
{
    return type == MODEL_Q4_K || type == MODEL_Q5_K || type == MODEL_Q6_K;
}
ALWAYS_INLINE bool has_mins(const enum model_type type)
{
    return type == MODEL_Q4_1 || type == MODEL_Q5_1 || type == MODEL_Q4_K || type == MODEL_Q5_K;
}
ALWAYS_INLINE bool has_nibbles(const enum model_type type)
{
    return type == MODEL_Q4_0 || type == MODEL_Q4_1 || type == MODEL_Q4_K;
}

ALWAYS_INLINE void load_scales(const uint8_t *scales, size_t header, const enum model_type type,
                               struct block_at *at)
{
    at->scale = load_eight_halves(scales);
    at->min = has_mins(type) ? load_eight_halves(scales + header) : at->scale;
    if (type == MODEL_Q4_K || type == MODEL_Q5_K) {
        at->scale = _mm256_mul_ps(at->scale, load_eight_parts(at->parts));
        at->min = _mm256_mul_ps(at->min, load_eight_parts(at->parts + 16));
    }
}

ALWAYS_INLINE void dot_block(const struct block_at *at, const int8_t *x, size_t stride,
                             const uint32_t rows, const enum model_type type, __m256i sum[ROWS])
{
    if (has_nibbles(type)) {
        dot_nibbles(at->quants, x, stride, rows, sum);
    } else if (type == MODEL_Q6_K) {
        dot_parts(at->quants, at->parts, x, stride, rows, sum);
    } else if (type == MODEL_Q8_0) {
        dot_signed(at->quants, x, stride, rows, sum);
    } else {
        dot_five(at->quants, x, stride, rows, sum);
    }
}

/* Eight outputs (half 0 or 1 of the tile) of `rows` rows. */
ALWAYS_INLINE void quantized_half(const struct matrix *w, const uint8_t *tile,
                                  const struct activations *a, uint32_t row0, float *const *out,
                                  const uint32_t rows, const size_t half,
                                  const enum model_type type)
{
    const uint32_t blocks = w->cols / QUANT_BLOCK, group = is_super(type) ? 8 : 1;
    const size_t header = (size_t)(blocks / group) * MATRIX_TILE * 2;
    const uint8_t *parts = tile + (has_mins(type) ? 2 : 1) * header;
    const uint8_t *quants = parts + (is_super(type) ? (size_t)blocks * MATRIX_TILE * 2 : 0);
    const size_t size = has_nibbles(type) ? 256 : 512;
    const int8_t *x = a->q + (size_t)row0 * a->blocks * QUANT_BLOCK;
    size_t at = (size_t)row0 * a->blocks;
    __m256 acc[ROWS];

    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        acc[r] = _mm256_setzero_ps();
    for (uint32_t b = 0; b < blocks; b++, x += QUANT_BLOCK, at++) {
        struct block_at block = { .quants = quants + b * size + half * 32,
                                  .parts = parts + (size_t)b * 32 + half * 8 };
        __m256i sum[ROWS];
        load_scales(tile + (size_t)(b / group) * 32 + half * 16, header, type, &block);
        dot_block(&block, x, (size_t)a->blocks * QUANT_BLOCK, rows, type, sum);
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            const size_t i = at + (size_t)r * a->blocks;
            if (type == MODEL_Q4_0) {
                sum[r] = _mm256_add_epi32(sum[r], _mm256_set1_epi32(a->sum[i] / 16));
            }
            acc[r] = scale_block(sum[r], block.scale, a->d[i], acc[r]);
            if (has_mins(type)) {
                acc[r] = _mm256_fmadd_ps(block.min, _mm256_set1_ps(a->ds[i]), acc[r]);
            }
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        _mm256_storeu_ps(out[r] + half * 8, acc[r]);
}

/* Sixteen registers hold four rows; eight at once would spill. */
ALWAYS_INLINE void quantized_rows(const struct matrix *w, const uint8_t *tile,
                                  const struct activations *a, uint32_t row0, float *const *out,
                                  const uint32_t rows, const enum model_type type)
{
    const uint32_t first = rows > 4 ? 4 : rows;

    for (size_t half = 0; half < 2; half++) {
        quantized_half(w, tile, a, row0, out, first, half, type);
        if (rows > 4) {
            quantized_half(w, tile, a, row0 + 4, out + 4, rows - 4, half, type);
        }
    }
}

ALWAYS_INLINE void q4_rows(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                           uint32_t row0, float *const *out, const uint32_t rows, const bool mins)
{
    quantized_rows(w, tile, a, row0, out, rows, mins ? MODEL_Q4_1 : MODEL_Q4_0);
}

ALWAYS_INLINE void q8_rows(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                           uint32_t row0, float *const *out, const uint32_t rows, const bool mins)
{
    quantized_rows(w, tile, a, row0, out, rows, mins ? MODEL_Q5_1 : MODEL_Q8_0);
}

ALWAYS_INLINE void k_rows(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                          uint32_t row0, float *const *out, const uint32_t rows, const bool five)
{
    quantized_rows(w, tile, a, row0, out, rows, five ? MODEL_Q5_K : MODEL_Q4_K);
}

ALWAYS_INLINE void q6_k_rows(const struct matrix *w, const uint8_t *tile,
                             const struct activations *a, uint32_t row0, float *const *out,
                             const uint32_t rows)
{
    quantized_rows(w, tile, a, row0, out, rows, MODEL_Q6_K);
}

#include "infer/cpu/kernel_simd_table.h"

const struct kernels kernels_avx2 = SIMD_KERNELS(ENGINE_ISA_AVX2);
