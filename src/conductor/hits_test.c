/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/hits_test.c
 *
 * Goal:   the alarm follows the window: raised below a half, lowered at four fifths, never on a
 *         handful of prefills.
 * Method: a random walk against a model that keeps every prefill and sums the last ones each time.
 *         SEED repeats it. */
#include "conductor/hits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"

enum { STEPS = 5000 };

static void test_matches_model(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 23;
    static struct hit all[STEPS];
    struct hits hits = { .alarm = false };
    struct rng rng;
    bool alarm = false;
    uint32_t raised = 0, share = 10;

    printf("SEED=%llu\n", (unsigned long long)seed);
    rng_init(&rng, seed);
    for (uint32_t i = 0; i < STEPS; i++) {
        if (i % 100 == 0) share = (uint32_t)rng_below(&rng, 11); /* tenths that are kept */
        const uint32_t predicted = 1 + (uint32_t)rng_below(&rng, 50);
        const uint32_t kept = rng_below(&rng, 10) < share ? predicted : 0;
        const enum yolk_miss why = (enum yolk_miss)rng_below(&rng, YOLK_MISSES);
        all[i] = (struct hit){ predicted, kept, why };
        hits_add(&hits, predicted, kept, why);

        uint64_t p = 0, k = 0, lost[YOLK_MISSES] = { 0 };
        for (uint32_t j = i + 1 > YOLK_HITS_WINDOW ? i + 1 - YOLK_HITS_WINDOW : 0; j <= i; j++) {
            p += all[j].predicted;
            k += all[j].kept;
            lost[all[j].why] += all[j].predicted - all[j].kept;
        }
        const double ratio = (double)k / (double)p;
        const bool before = alarm;
        alarm = before ? ratio < 0.8 : i + 1 >= HITS_FEW && ratio < 0.5;
        raised += alarm && !before;
        assert_int_equal(hits.alarm, alarm);
        assert_int_equal(hits.alarms, raised);
        assert_int_equal(hits.predicted, p);
        assert_int_equal(hits.kept, k);
        for (int j = 0; j < YOLK_MISSES; j++)
            assert_true(lost[hits_why(&hits)] >= lost[j]);
    }
    assert_true(raised > 5); /* the walk went both ways */
}

static void test_few_prove_nothing(void **state)
{
    (void)state;
    struct hits hits = { .alarm = false };

    for (uint32_t i = 1; i <= HITS_FEW; i++) {
        assert_false(hits.alarm);
        hits_add(&hits, 10, 0, YOLK_MISS_TIMEOUT);
        assert_int_equal(hits_requests(&hits), i);
    }
    assert_true(hits.alarm);
    assert_int_equal(hits_why(&hits), YOLK_MISS_TIMEOUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_model),
        cmocka_unit_test(test_few_prove_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
