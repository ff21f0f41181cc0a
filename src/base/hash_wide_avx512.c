/* SPDX-License-Identifier: Apache-2.0
 *
 * base/hash_wide_avx512.c - XXH3-64 with a stripe to a register; see hash_wide.h. */
#include "base/hash_wide.h"

#include <immintrin.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define PRIME32_1 UINT64_C(0x9e3779b1)

struct lanes {
    __m512i all;
};

ALWAYS_INLINE void lanes_load(struct lanes *out, const uint8_t *from)
{
    out->all = _mm512_loadu_si512(from);
}

ALWAYS_INLINE void lanes_store(uint8_t *to, const struct lanes *lanes)
{
    _mm512_storeu_si512(to, lanes->all);
}

ALWAYS_INLINE void lanes_store_past_cache(uint8_t *to, const struct lanes *lanes)
{
    _mm512_stream_si512((void *)to, lanes->all);
}

ALWAYS_INLINE void lanes_add(struct lanes *sums, const struct lanes *stripe, const uint8_t *with)
{
    const __m512i mixed = _mm512_xor_si512(stripe->all, _mm512_loadu_si512(with));
    const __m512i product = _mm512_mul_epu32(mixed, _mm512_srli_epi64(mixed, 32));
    const __m512i swapped = _mm512_shuffle_epi32(stripe->all, (_MM_PERM_ENUM)0x4e);
    sums->all = _mm512_add_epi64(product, _mm512_add_epi64(sums->all, swapped));
}

ALWAYS_INLINE void lanes_scramble(struct lanes *sums, const uint8_t *with)
{
    const __m512i prime = _mm512_set1_epi64((int64_t)PRIME32_1);
    const __m512i folded = _mm512_xor_si512(sums->all, _mm512_srli_epi64(sums->all, 47));
    const __m512i mixed = _mm512_xor_si512(folded, _mm512_loadu_si512(with));
    const __m512i high = _mm512_mul_epu32(_mm512_srli_epi64(mixed, 32), prime);
    sums->all = _mm512_add_epi64(_mm512_mul_epu32(mixed, prime), _mm512_slli_epi64(high, 32));
}

#include "base/hash_wide_kernel.h"

const struct hash_wide hash_wide_avx512 = WIDE_KERNELS;
