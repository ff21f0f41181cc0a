/* SPDX-License-Identifier: Apache-2.0
 *
 * base/hash_wide.h - XXH3-64 of long inputs in registers of 32 or 64 bytes, where the CPU has them,
 * and of bytes that are copied on the way: what is hashed is what is written, each byte loaded
 * once. Private to base/hash.c, which knows another way where the CPU has none.
 *
 * It is XXH3-64 with seed 0, as xxHash's specification (doc/xxhash_spec.md there) has it for more
 * than 240 bytes. The instructions are chosen when the program runs; xxHash chooses when it is
 * compiled, which for a binary that runs anywhere means 16 bytes at a time, slower than memory.
 *
 * The input is taken in stripes of 64 bytes, eight lanes d of 64 bits. Each is added to eight sums
 * with the 64 bytes s of the secret that begin at eight times the stripe's number in its block:
 *     sums[i] += d[i ^ 1] + low32(d[i] ^ s[i]) * high32(d[i] ^ s[i])
 * After each block of 16 stripes the sums are scrambled with the last 64 bytes of the secret:
 *     sums[i] = (sums[i] ^ sums[i] >> 47 ^ s[i]) * PRIME32_1
 * A last stripe ends where the input ends, whatever came before. Then the sums are folded into one.
 *
 * Threads: any. */
#ifndef BASE_HASH_WIDE_H
#define BASE_HASH_WIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HASH_WIDE_MIN = 241 }; /* bytes; shorter inputs are hashed in another way */

struct hash_wide {
    uint64_t (*sum)(const void *data, size_t len);
    /* The ranges do not overlap. */
    uint64_t (*copy)(void *to, const void *from, size_t len);
    /* Past the cache. What is written is seen by other threads as that of copy() is. */
    uint64_t (*stream)(void *to, const void *from, size_t len);
};

extern const struct hash_wide hash_wide_avx2;
extern const struct hash_wide hash_wide_avx512;

#if defined(__x86_64__)
/* Whether this CPU has what CMakeLists.txt lets the compiler use for each. Ask once. */
static inline bool hash_wide_avx2_usable(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static inline bool hash_wide_avx512_usable(void)
{
    return hash_wide_avx2_usable() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}
#endif

#endif
