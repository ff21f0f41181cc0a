/* SPDX-License-Identifier: Apache-2.0
 *
 * base/rng.h - random numbers that a seed repeats exactly, on every machine.
 *
 * Two kinds. `struct rng` is a stream (xoshiro256**, seeded through splitmix64) for tests, the
 * simulator and jitter. rng_counter() is a function of (seed, counter) without state: the sampler
 * draws number i of an answer with it, so that another node can go on at i + 1.
 * Neither is fit for secrets: env_random() is. A struct rng belongs to one thread. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t state[4];
};

void rng_init(struct rng *rng, uint64_t seed);
uint64_t rng_u64(struct rng *rng);

/* 0 <= result < limit, without bias. limit must not be 0. */
uint64_t rng_below(struct rng *rng, uint64_t limit);

/* low <= result <= high. */
uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high);

/* 0 <= result < 1, in steps of 2^-53. */
double rng_unit(struct rng *rng);

void rng_fill(struct rng *rng, void *out, size_t len);

/* The same 64 bits for the same (seed, counter), unrelated ones for any other pair. */
uint64_t rng_counter(uint64_t seed, uint64_t counter);

/* Turns 64 random bits into 0 <= result < 1, in steps of 2^-53. */
double rng_unit_of(uint64_t bits);

#endif
