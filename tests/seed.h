/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/seed.h - the seed of a random test: from the environment (SEED=n) or a fixed one, printed
 * before anything else, so that a failure can be replayed; and how many from there a simulation
 * runs (YOLK_SIM_SEEDS=n), and how many faults it met. */
#ifndef TESTS_SEED_H
#define TESTS_SEED_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static inline uint64_t test_seed(void)
{
    const char *text = getenv("SEED");
    const uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 20240721;
    printf("SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

static inline unsigned test_seeds(unsigned usual)
{
    const char *text = getenv("YOLK_SIM_SEEDS");
    return text != NULL ? (unsigned)strtoul(text, NULL, 0) : usual;
}

/* For `make soak`, which adds these lines up. */
static inline void test_soaked(unsigned long long seeds, unsigned long long faults)
{
    printf("soaked: seeds=%llu faults=%llu\n", seeds, faults);
}

#endif
