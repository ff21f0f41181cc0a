/* SPDX-License-Identifier: Apache-2.0
 *
 * base/hash_wide_kernel.h - the loops of XXH3-64, over registers of 32 or of 64 bytes.
 *
 * Not self-contained: included once by hash_wide_avx2.c and once by hash_wide_avx512.c, after they
 * have defined ALWAYS_INLINE, PRIME32_1 and, with its operations (lanes_*), struct lanes: the eight
 * sums, or the 64 bytes of a stripe. */
#ifndef BASE_HASH_WIDE_KERNEL_H
#define BASE_HASH_WIDE_KERNEL_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash_wide.h"
#include "base/le.h"

enum {
    STRIPE_SIZE = 64,
    LANES = 8,
    BLOCK_STRIPES = 16,
    BLOCK_SIZE = BLOCK_STRIPES * STRIPE_SIZE,
    SECRET_SIZE = 192,
    SECRET_STEP = 8,
    SECRET_LAST = 7,   /* the last stripe's secret is so much before that of scrambling */
    SECRET_MERGE = 11, /* and this is where merge()'s begins */
};

enum wide_store { WIDE_STORE_NOT, WIDE_STORE, WIDE_STORE_PAST_CACHE };

#define PRIME32_2 UINT64_C(0x85ebca77)
#define PRIME32_3 UINT64_C(0xc2b2ae3d)
#define PRIME64_1 UINT64_C(0x9e3779b185ebca87)
#define PRIME64_2 UINT64_C(0xc2b2ae3d27d4eb4f)
#define PRIME64_3 UINT64_C(0x165667b19e3779f9)
#define PRIME64_4 UINT64_C(0x85ebca77c2b2ae63)
#define PRIME64_5 UINT64_C(0x27d4eb2f165667c5)

static const uint64_t initial[LANES] = { PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3,
                                         PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1 };

static const uint8_t secret[SECRET_SIZE] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

__extension__ typedef unsigned __int128 wide_product;

static uint64_t fold(uint64_t a, uint64_t b)
{
    const wide_product product = (wide_product)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t merge(const uint64_t sums[LANES], size_t len)
{
    uint64_t all = len * PRIME64_1;

    for (size_t i = 0; i < LANES; i += 2) {
        const uint8_t *at = secret + SECRET_MERGE + i * sizeof(uint64_t);
        all += fold(sums[i] ^ le_get64(at), sums[i + 1] ^ le_get64(at + sizeof(uint64_t)));
    }
    all ^= all >> 37;
    all *= UINT64_C(0x165667919e3779f9);
    return all ^ all >> 32;
}

/* Where a stripe goes to. The kernels are compiled once for each. */
ALWAYS_INLINE void wide_put(enum wide_store store, uint8_t *to, const struct lanes *stripe)
{
    if (store == WIDE_STORE) lanes_store(to, stripe);
    if (store == WIDE_STORE_PAST_CACHE) lanes_store_past_cache(to, stripe);
}

ALWAYS_INLINE uint64_t wide_hash(enum wide_store store, uint8_t *to, const uint8_t *from,
                                 size_t len)
{
    struct lanes sums, stripe;
    const size_t blocks = (len - 1) / BLOCK_SIZE;
    const size_t rest = len - blocks * BLOCK_SIZE;
    uint64_t out[LANES];

    lanes_load(&sums, (const uint8_t *)initial);
    for (size_t b = 0; b < blocks; b++) {
#pragma GCC unroll 16
        for (size_t i = 0; i < BLOCK_STRIPES; i++) {
            lanes_load(&stripe, from + i * STRIPE_SIZE);
            wide_put(store, to + i * STRIPE_SIZE, &stripe);
            lanes_add(&sums, &stripe, secret + i * SECRET_STEP);
        }
        lanes_scramble(&sums, secret + SECRET_SIZE - STRIPE_SIZE);
        from += BLOCK_SIZE;
        if (store != WIDE_STORE_NOT) to += BLOCK_SIZE;
    }
    const size_t before = (rest - 1) / STRIPE_SIZE * STRIPE_SIZE; /* of them, in whole stripes */
    for (size_t at = 0; at < before; at += STRIPE_SIZE) {
        lanes_load(&stripe, from + at);
        wide_put(store, to + at, &stripe);
        lanes_add(&sums, &stripe, secret + at / STRIPE_SIZE * SECRET_STEP);
    }
    /* The last 64 bytes. What of them has been hashed before comes from where it was written: it
     * may be something else in `from` by now. */
    const bool again = store != WIDE_STORE_NOT && rest - before < STRIPE_SIZE;
    if (again) memcpy(to + before, from + before, rest - before);
    lanes_load(&stripe, (again ? to : from) + rest - STRIPE_SIZE);
    if (!again) wide_put(store, to + before, &stripe);
    lanes_add(&sums, &stripe, secret + SECRET_SIZE - STRIPE_SIZE - SECRET_LAST);
    lanes_store((uint8_t *)out, &sums);
    return merge(out, len);
}

static uint64_t wide_sum(const void *data, size_t len)
{
    ASSERT(len >= HASH_WIDE_MIN);
    return wide_hash(WIDE_STORE_NOT, NULL, data, len);
}

static uint64_t wide_copy(void *to, const void *from, size_t len)
{
    ASSERT(len >= HASH_WIDE_MIN);
    return wide_hash(WIDE_STORE, to, from, len);
}

/* Stores past the cache have to be aligned; those that are are ordered before what comes next. */
static uint64_t wide_stream(void *to, const void *from, size_t len)
{
    if ((uintptr_t)to % STRIPE_SIZE != 0) return wide_copy(to, from, len);
    ASSERT(len >= HASH_WIDE_MIN);
    const uint64_t sum = wide_hash(WIDE_STORE_PAST_CACHE, to, from, len);
    _mm_sfence();
    return sum;
}

#define WIDE_KERNELS                                                                               \
    {                                                                                              \
        .sum = wide_sum, .copy = wide_copy, .stream = wide_stream                                  \
    }

#endif
