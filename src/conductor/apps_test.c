/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/apps_test.c
 *
 * Goal:   a beginning that many prompts share is found, one that few share is never taken for it.
 * Method: seeded prompts of a known mix, beside exact counts that fade alike. */
#include "conductor/apps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { NAMES = 1000, PROMPTS = 20000 };

static struct block_key key_of(uint64_t number)
{
    const uint64_t halves[2] = { rng_counter(7, number), number };
    struct block_key key;
    memcpy(key.bytes, halves, sizeof(key.bytes));
    return key;
}

/* Number 0 opens 30% of prompts, 1 opens 12%, the rest is spread over a thousand. */
static uint64_t draw(struct rng *rng)
{
    const uint64_t dice = rng_below(rng, 100);
    if (dice < 30) return 0;
    if (dice < 42) return 1;
    return 2 + rng_below(rng, NAMES - 2);
}

static void common_beginnings_are_found(void **state)
{
    (void)state;
    static struct apps apps;
    static double exact[NAMES];
    double total = 0;
    struct rng rng;

    memset(&apps, 0, sizeof(apps));
    rng_init(&rng, test_seed());
    for (int i = 0; i < PROMPTS; i++) {
        const uint64_t number = draw(&rng);
        const struct block_key key = key_of(number);
        for (int j = 0; j < NAMES; j++)
            exact[j] *= 0.999;
        exact[number] += 1;
        total = total * 0.999 + 1;
        apps_note(&apps, &key);
        const uint64_t name = apps_name(&apps, &key);
        if (name != 0) assert_true(exact[number] >= 0.05 * total - 1e-6);
        if (i > 1000 && number <= 1) assert_true(name != 0);
    }
    const struct block_key first = key_of(0), second = key_of(1);
    assert_true(apps_name(&apps, &first) != apps_name(&apps, &second));
}

static void nothing_is_common_among_few(void **state)
{
    (void)state;
    struct apps apps = { .prompts = 0 };
    const struct block_key key = key_of(1);

    assert_int_equal(apps_name(&apps, &key), 0);
    for (int i = 0; i < 50; i++)
        apps_note(&apps, &key);
    assert_int_equal(apps_name(&apps, &key), 0);
    for (int i = 0; i < 100; i++)
        apps_note(&apps, &key);
    assert_int_not_equal(apps_name(&apps, &key), 0);
    /* And is forgotten when it comes no more. */
    for (uint64_t i = 0; i < 5000; i++) {
        const struct block_key other = key_of(10 + i);
        apps_note(&apps, &other);
    }
    assert_int_equal(apps_name(&apps, &key), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(common_beginnings_are_found),
        cmocka_unit_test(nothing_is_common_among_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
