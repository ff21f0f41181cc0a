/* SPDX-License-Identifier: Apache-2.0
 *
 * base/hash_wide_avx2.c - XXH3-64 with a stripe to two registers; see hash_wide.h. */
#include "base/hash_wide.h"

#include <immintrin.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define PRIME32_1 UINT64_C(0x9e3779b1)

struct lanes {
    __m256i half[2];
};

ALWAYS_INLINE void lanes_load(struct lanes *out, const uint8_t *from)
{
    for (int i = 0; i < 2; i++)
        out->half[i] = _mm256_loadu_si256((const void *)(from + 32 * i));
}

ALWAYS_INLINE void lanes_store(uint8_t *to, const struct lanes *lanes)
{
    for (int i = 0; i < 2; i++)
        _mm256_storeu_si256((void *)(to + 32 * i), lanes->half[i]);
}

ALWAYS_INLINE void lanes_store_past_cache(uint8_t *to, const struct lanes *lanes)
{
    for (int i = 0; i < 2; i++)
        _mm256_stream_si256((void *)(to + 32 * i), lanes->half[i]);
}

ALWAYS_INLINE void lanes_add(struct lanes *sums, const struct lanes *stripe, const uint8_t *with)
{
    for (int i = 0; i < 2; i++) {
        const __m256i key = _mm256_loadu_si256((const void *)(with + 32 * i));
        const __m256i mixed = _mm256_xor_si256(stripe->half[i], key);
        const __m256i product = _mm256_mul_epu32(mixed, _mm256_srli_epi64(mixed, 32));
        const __m256i swapped = _mm256_shuffle_epi32(stripe->half[i], 0x4e);
        sums->half[i] = _mm256_add_epi64(product, _mm256_add_epi64(sums->half[i], swapped));
    }
}

ALWAYS_INLINE void lanes_scramble(struct lanes *sums, const uint8_t *with)
{
    const __m256i prime = _mm256_set1_epi64x((int64_t)PRIME32_1);
    for (int i = 0; i < 2; i++) {
        const __m256i key = _mm256_loadu_si256((const void *)(with + 32 * i));
        const __m256i sum = sums->half[i];
        const __m256i folded = _mm256_xor_si256(sum, _mm256_srli_epi64(sum, 47));
        const __m256i mixed = _mm256_xor_si256(folded, key);
        const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(mixed, 32), prime);
        sums->half[i] =
            _mm256_add_epi64(_mm256_mul_epu32(mixed, prime), _mm256_slli_epi64(high, 32));
    }
}

#include "base/hash_wide_kernel.h"

const struct hash_wide hash_wide_avx2 = WIDE_KERNELS;
