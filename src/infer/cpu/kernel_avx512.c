/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/kernel_avx512.c - kernels for AVX-512 with VNNI. See kernels.h for what they compute.
 *
 * One tile is sixteen outputs, one to a lane. A block of it stays in eight registers (unsigned
 * bytes) while up to ROWS activation rows pass over it; four activation bytes are broadcast to all
 * lanes and vpdpbusd adds the four products to each lane's integer. */
#include "infer/cpu/kernels.h"

#include <immintrin.h>

typedef __m512 v16;
enum {
    SCORE_QUERIES = 4,
    SCORE_GROUPS = 4,
    VALUE_QUERIES = 4,
    VALUE_VECTORS = 4,
    PLAIN_ROWS = 8,
    ROWS = 8,
};

#define V_FN static inline __attribute__((always_inline))

V_FN v16 v_load(const float *x)
{
    return _mm512_loadu_ps(x);
}
V_FN void v_store(float *x, v16 v)
{
    _mm512_storeu_ps(x, v);
}
V_FN v16 v_set1(float x)
{
    return _mm512_set1_ps(x);
}
V_FN v16 v_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
V_FN v16 v_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
V_FN v16 v_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
V_FN v16 v_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
V_FN v16 v_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
V_FN v16 v_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}
V_FN v16 v_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}
V_FN v16 v_abs(v16 a)
{
    return _mm512_abs_ps(a);
}
V_FN v16 v_negate(v16 a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}
V_FN v16 v_zero_where_less(v16 p, v16 x, v16 limit)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), p);
}
/* 2^n, where n was rounded into the low bits of t: see EXP_ROUND. */
V_FN v16 v_power_of_two(v16 t)
{
    const __m512i bias = _mm512_set1_epi32((int)(127u - 0x4B400000u));
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_castps_si512(t), bias), 23));
}
V_FN v16 v_load_half(const void *from)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}
V_FN v16 v_load_bytes(const void *from)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
}
V_FN v16 v_load_bf16(const void *from)
{
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
V_FN void v_store_half(void *to, v16 v)
{
    _mm256_storeu_si256((__m256i *)to,
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
V_FN void v_store_bytes(int8_t *to, v16 t)
{
    _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(_mm512_castps_si512(t)));
}
V_FN float v_sum(v16 v)
{
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
V_FN float v_max_lane(v16 v)
{
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/* Rows to columns: pairs, then fours within 128 bits, then the 128-bit parts themselves. */
V_FN void v_transpose(v16 row[16])
{
    v16 t[16];

    for (int i = 0; i < 16; i += 4) {
        const v16 a = _mm512_unpacklo_ps(row[i], row[i + 1]);
        const v16 b = _mm512_unpackhi_ps(row[i], row[i + 1]);
        const v16 c = _mm512_unpacklo_ps(row[i + 2], row[i + 3]);
        const v16 d = _mm512_unpackhi_ps(row[i + 2], row[i + 3]);
        t[i] = _mm512_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm512_shuffle_ps(a, c, 0xEE);
        t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm512_shuffle_ps(b, d, 0xEE);
    }
    for (int i = 0; i < 4; i++) {
        const v16 a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88);
        const v16 b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xDD);
        const v16 c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88);
        const v16 d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xDD);
        row[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        row[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        row[i + 8] = _mm512_shuffle_f32x4(a, c, 0xDD);
        row[i + 12] = _mm512_shuffle_f32x4(b, d, 0xDD);
    }
}

#include "infer/cpu/kernel_simd.h"

/* Four activation bytes in every lane. */
ALWAYS_INLINE __m512i four_bytes(const int8_t *x)
{
    int32_t bytes;
    memcpy(&bytes, x, sizeof(bytes));
    return _mm512_set1_epi32(bytes);
}

/* One block of Q4 weights against one row: the integer sums of sixteen outputs. */
ALWAYS_INLINE __m512i dot_nibbles(const __m512i low[4], const __m512i high[4], const int8_t *x,
                                  __m512i sum)
{
    UNROLL
    for (int g = 0; g < 4; g++) {
        sum = _mm512_dpbusd_epi32(sum, low[g], four_bytes(x + (size_t)g * 4));
        sum = _mm512_dpbusd_epi32(sum, high[g], four_bytes(x + 16 + (size_t)g * 4));
    }
    return sum;
}

ALWAYS_INLINE void q4_rows(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                           uint32_t row0, float *const *out, const uint32_t rows, const bool mins)
{
    const uint32_t blocks = w->cols / QUANT_BLOCK;
    const size_t header = (size_t)blocks * MATRIX_TILE * 2;
    const uint8_t *quants = tile + (mins ? 2 : 1) * header;
    const __m512i mask = _mm512_set1_epi8(15);
    const int8_t *x = a->q + (size_t)row0 * a->blocks * QUANT_BLOCK;
    size_t at = (size_t)row0 * a->blocks;
    v16 acc[ROWS];

    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        acc[r] = v_set1(0.0f);
    for (uint32_t b = 0; b < blocks; b++, quants += 256, x += QUANT_BLOCK, at++) {
        __m512i low[4], high[4];
        UNROLL
        for (int g = 0; g < 4; g++) {
            const __m512i both = _mm512_loadu_si512(quants + (size_t)g * 64);
            low[g] = _mm512_and_si512(both, mask);
            high[g] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
        }
        const v16 scale = v_load_half(tile + (size_t)b * 32);
        const v16 min = mins ? v_load_half(tile + header + (size_t)b * 32) : scale;
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            const size_t i = at + (size_t)r * a->blocks;
            const __m512i offset =
                mins ? _mm512_setzero_si512() : _mm512_set1_epi32(a->sum[i] / 16);
            const __m512i sum =
                dot_nibbles(low, high, x + (size_t)r * a->blocks * QUANT_BLOCK, offset);
            acc[r] = v_fma(_mm512_cvtepi32_ps(sum), v_mul(scale, v_set1(a->d[i])), acc[r]);
            if (mins) acc[r] = v_fma(min, v_set1(a->ds[i]), acc[r]);
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        v_store(out[r], acc[r]);
}

/* One block of byte weights against one row. */
ALWAYS_INLINE __m512i dot_bytes(const __m512i weight[8], const int8_t *x, __m512i sum)
{
    UNROLL
    for (int g = 0; g < 8; g++)
        sum = _mm512_dpbusd_epi32(sum, weight[g], four_bytes(x + (size_t)g * 4));
    return sum;
}

/* Q8_0, whose bytes are 128 too large, and Q5_1, which has minima. */
ALWAYS_INLINE void q8_rows(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                           uint32_t row0, float *const *out, const uint32_t rows, const bool mins)
{
    const uint32_t blocks = w->cols / QUANT_BLOCK;
    const size_t header = (size_t)blocks * MATRIX_TILE * 2;
    const uint8_t *quants = tile + (mins ? 2 : 1) * header;
    const int8_t *x = a->q + (size_t)row0 * a->blocks * QUANT_BLOCK;
    size_t at = (size_t)row0 * a->blocks;
    v16 acc[ROWS];

    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        acc[r] = v_set1(0.0f);
    for (uint32_t b = 0; b < blocks; b++, quants += 512, x += QUANT_BLOCK, at++) {
        __m512i weight[8];
        UNROLL
        for (int g = 0; g < 8; g++)
            weight[g] = _mm512_loadu_si512(quants + (size_t)g * 64);
        const v16 scale = v_load_half(tile + (size_t)b * 32);
        const v16 min = mins ? v_load_half(tile + header + (size_t)b * 32) : scale;
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            const size_t i = at + (size_t)r * a->blocks;
            const __m512i offset = mins ? _mm512_setzero_si512() : _mm512_set1_epi32(a->sum[i]);
            const __m512i sum = dot_bytes(weight, x + (size_t)r * a->blocks * QUANT_BLOCK, offset);
            acc[r] = v_fma(_mm512_cvtepi32_ps(sum), v_mul(scale, v_set1(a->d[i])), acc[r]);
            if (mins) acc[r] = v_fma(min, v_set1(a->ds[i]), acc[r]);
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        v_store(out[r], acc[r]);
}

ALWAYS_INLINE __m128i load_part(const uint8_t *from)
{
    return _mm_loadu_si128((const __m128i *)(const void *)from);
}

ALWAYS_INLINE v16 load_part_floats(const uint8_t *from)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_part(from)));
}

/* A block as bytes in order of the row: Q5_K as it is, Q4_K from nibbles. */
ALWAYS_INLINE void load_weights(const uint8_t *quants, const bool five, __m512i weight[8])
{
    const __m512i mask = _mm512_set1_epi8(15);

    UNROLL
    for (int g = 0; g < 4; g++) {
        const __m512i both = _mm512_loadu_si512(quants + (size_t)g * 64);
        weight[g] = five ? both : _mm512_and_si512(both, mask);
        weight[g + 4] = five ? _mm512_loadu_si512(quants + 256 + (size_t)g * 64)
                             : _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    }
}

/* Q4_K and Q5_K. */
ALWAYS_INLINE void k_rows(const struct matrix *w, const uint8_t *tile, const struct activations *a,
                          uint32_t row0, float *const *out, const uint32_t rows, const bool five)
{
    const uint32_t blocks = w->cols / QUANT_BLOCK;
    const size_t header = (size_t)blocks / 8 * MATRIX_TILE * 2;
    const uint8_t *parts = tile + 2 * header;
    const uint8_t *quants = parts + (size_t)blocks * MATRIX_TILE * 2;
    const int8_t *x = a->q + (size_t)row0 * a->blocks * QUANT_BLOCK;
    size_t at = (size_t)row0 * a->blocks;
    v16 acc[ROWS];

    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        acc[r] = v_set1(0.0f);
    for (uint32_t b = 0; b < blocks; b++, quants += five ? 512 : 256, x += QUANT_BLOCK, at++) {
        const uint8_t *group = tile + (size_t)(b / 8) * 32, *part = parts + (size_t)b * 32;
        const v16 scale = v_mul(v_load_half(group), load_part_floats(part));
        const v16 min = v_mul(v_load_half(group + header), load_part_floats(part + 16));
        __m512i weight[8];
        load_weights(quants, five, weight);
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            const size_t i = at + (size_t)r * a->blocks;
            const __m512i sum =
                dot_bytes(weight, x + (size_t)r * a->blocks * QUANT_BLOCK, _mm512_setzero_si512());
            acc[r] = v_fma(_mm512_cvtepi32_ps(sum), v_mul(scale, v_set1(a->d[i])), acc[r]);
            acc[r] = v_fma(min, v_set1(a->ds[i]), acc[r]);
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        v_store(out[r], acc[r]);
}

/* -32 * the sum of sixteen bytes, in every lane: what the offset of Q6_K adds too much. */
ALWAYS_INLINE __m512i sixteen_offset(const int8_t *x)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)x);
    const __m128i above = _mm_xor_si128(bytes, _mm_set1_epi8((char)0x80)); /* + 128 */
    const __m128i sums = _mm_sad_epu8(above, _mm_setzero_si128());
    const int32_t sum = _mm_cvtsi128_si32(sums) + _mm_extract_epi32(sums, 2) - 16 * 128;
    return _mm512_set1_epi32(-32 * sum);
}

ALWAYS_INLINE __m512i dot_sixteen(const __m512i weight[4], const int8_t *x)
{
    __m512i sum = sixteen_offset(x);
    UNROLL
    for (int g = 0; g < 4; g++)
        sum = _mm512_dpbusd_epi32(sum, weight[g], four_bytes(x + (size_t)g * 4));
    return sum;
}

ALWAYS_INLINE void q6_k_rows(const struct matrix *w, const uint8_t *tile,
                             const struct activations *a, uint32_t row0, float *const *out,
                             const uint32_t rows)
{
    const uint32_t blocks = w->cols / QUANT_BLOCK;
    const uint8_t *parts = tile + (size_t)blocks / 8 * MATRIX_TILE * 2;
    const uint8_t *quants = parts + (size_t)blocks * MATRIX_TILE * 2;
    const int8_t *x = a->q + (size_t)row0 * a->blocks * QUANT_BLOCK;
    size_t at = (size_t)row0 * a->blocks;
    v16 acc[ROWS];

    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        acc[r] = v_set1(0.0f);
    for (uint32_t b = 0; b < blocks; b++, quants += 512, x += QUANT_BLOCK, at++) {
        const uint8_t *part = parts + (size_t)b * 32;
        const __m512i first = _mm512_cvtepi8_epi32(load_part(part));
        const __m512i second = _mm512_cvtepi8_epi32(load_part(part + 16));
        const v16 scale = v_load_half(tile + (size_t)(b / 8) * 32);
        __m512i weight[8];
        load_weights(quants, true, weight);
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            const size_t i = at + (size_t)r * a->blocks;
            const int8_t *bytes = x + (size_t)r * a->blocks * QUANT_BLOCK;
            const __m512i low = _mm512_mullo_epi32(dot_sixteen(weight, bytes), first);
            const __m512i high = _mm512_mullo_epi32(dot_sixteen(weight + 4, bytes + 16), second);
            const v16 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(low, high));
            acc[r] = v_fma(sum, v_mul(scale, v_set1(a->d[i])), acc[r]);
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++)
        v_store(out[r], acc[r]);
}

#include "infer/cpu/kernel_simd_table.h"

const struct kernels kernels_avx512 = SIMD_KERNELS(ENGINE_ISA_AVX512);
