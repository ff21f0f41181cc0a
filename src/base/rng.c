/* SPDX-License-Identifier: Apache-2.0
 *
 * base/rng.c - xoshiro256** (Blackman and Vigna, 2018), and splitmix64 to spread its seed.
 *
 * rng_counter() runs splitmix64's finaliser twice over (seed, counter): once to spread the seed, so
 * that neighbouring seeds do not give shifted copies of one sequence, and once over the sum. */
#include "base/rng.h"

#include <string.h>

#include "base/assert.h"

static const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15); /* 2^64 / golden ratio, odd */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

void rng_init(struct rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        seed += golden;
        rng->state[i] = mix(seed);
    }
    /* All zero is the one state that never leaves itself; four outputs of a bijection over distinct
     * inputs cannot all be zero. */
    ASSERT((rng->state[0] | rng->state[1]) != 0);
}

uint64_t rng_u64(struct rng *rng)
{
    uint64_t *s = rng->state;
    const uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    const uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *rng, uint64_t limit)
{
    ASSERT(limit != 0);
    /* Of 2^64 values the first 2^64 mod limit would make low results likelier: draw again. */
    const uint64_t reject_below = (UINT64_MAX - limit + 1) % limit;
    uint64_t bits = rng_u64(rng);
    while (bits < reject_below)
        bits = rng_u64(rng);
    return bits % limit;
}

uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high)
{
    ASSERT(low <= high);
    const uint64_t span = high - low + 1;
    if (span == 0) return rng_u64(rng); /* the whole range */
    return low + rng_below(rng, span);
}

double rng_unit_of(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1.0p-53;
}

double rng_unit(struct rng *rng)
{
    return rng_unit_of(rng_u64(rng));
}

void rng_fill(struct rng *rng, void *out, size_t len)
{
    struct rng local = *rng; /* in registers */
    uint8_t *at = out;

    while (len > 0) {
        const uint64_t bits = rng_u64(&local);
        if (len < sizeof(bits)) {
            memcpy(at, &bits, len);
            break;
        }
        memcpy(at, &bits, sizeof(bits)); /* of a constant size: a store */
        at += sizeof(bits);
        len -= sizeof(bits);
    }
    *rng = local;
}

uint64_t rng_counter(uint64_t seed, uint64_t counter)
{
    return mix(mix(seed + golden) + (counter + 1) * golden);
}
