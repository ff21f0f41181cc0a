/* SPDX-License-Identifier: Apache-2.0
 *
 * base/hash_short.c - one block of SHA-256 (FIPS 180-4) with the SHA extensions of x86.
 *
 * Sixteen steps of four rounds. The eight words of the state lie in two registers, as the
 * instructions want them: {a, b, e, f} and {c, d, g, h}, from the high lane down. The schedule is a
 * ring of four registers of four words. */
#include "base/hash_short.h"

#include <string.h>

#include "base/assert.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

enum { BLOCK_SIZE = 64, STEPS = 16 };

static const uint32_t rounds[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

bool hash_short_usable(void)
{
    unsigned eax, ebx, ecx, edx;

    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return false;
    if ((ecx & bit_SSSE3) == 0 || (ecx & bit_SSE4_1) == 0) return false;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
    return (ebx & bit_SHA) != 0;
}

__attribute__((target("sha,sse4.1,ssse3"))) static void
block_digest(const uint8_t block[BLOCK_SIZE], uint8_t out[32])
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const __m128i abef_first =
        _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c);
    const __m128i cdgh_first = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19);
    __m128i abef = abef_first;
    __m128i cdgh = cdgh_first;
    __m128i words[4];

    for (int i = 0; i < 4; i++) {
        words[i] = _mm_loadu_si128((const __m128i *)(const void *)(block + (size_t)i * 16));
        words[i] = _mm_shuffle_epi8(words[i], swap);
    }
#pragma GCC unroll 16
    for (int step = 0; step < STEPS; step++) {
        const __m128i *k = (const __m128i *)(const void *)(rounds + (size_t)step * 4);
        if (step >= 4) {
            const __m128i last = words[(step + 3) % 4];
            __m128i next = _mm_sha256msg1_epu32(words[step % 4], words[(step + 1) % 4]);
            next = _mm_add_epi32(next, _mm_alignr_epi8(last, words[(step + 2) % 4], 4));
            words[step % 4] = _mm_sha256msg2_epu32(next, last);
        }
        const __m128i sum = _mm_add_epi32(words[step % 4], _mm_load_si128(k));
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
    }
    abef = _mm_add_epi32(abef, abef_first);
    cdgh = _mm_add_epi32(cdgh, cdgh_first);
    /* {a, b, e, f} and {c, d, g, h} to a, b, c, d and e, f, g, h in the order of memory */
    const __m128i abcd = _mm_unpackhi_epi64(cdgh, abef);
    const __m128i efgh = _mm_unpacklo_epi64(cdgh, abef);
    const __m128i turn = _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f);
    _mm_storeu_si128((__m128i *)(void *)out, _mm_shuffle_epi8(abcd, turn));
    _mm_storeu_si128((__m128i *)(void *)(out + 16), _mm_shuffle_epi8(efgh, turn));
}

void hash_short_sha256(const void *data, size_t len, uint8_t out[32])
{
    uint8_t block[BLOCK_SIZE] = { 0 };
    ASSERT(len <= HASH_SHORT_MAX);

    if (len > 0) memcpy(block, data, len);
    block[len] = 0x80;
    block[BLOCK_SIZE - 2] = (uint8_t)(len * 8 >> 8);
    block[BLOCK_SIZE - 1] = (uint8_t)(len * 8);
    block_digest(block, out);
}

#else

bool hash_short_usable(void)
{
    return false;
}

void hash_short_sha256(const void *data, size_t len, uint8_t out[32])
{
    (void)data;
    (void)len;
    (void)out;
    ASSERT(!"there is no such CPU");
}

#endif
