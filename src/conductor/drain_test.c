/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/drain_test.c
 *
 * Goal:   a place in a queue is free when as many have left as stood before it, and not before; a
 *         new life of the slot voids it; times too old to know are never said too early.
 * Method: a random walk of joining and leaving, against a list of all departures of each life.
 *         SEED repeats it. */
#include "conductor/drain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <math.h>

#include "base/rng.h"

enum { INSTANCES = 3, STEPS = 6000, PLACES = 40 };

struct history {
    double left[STEPS];
    uint32_t count, queued, life;
};

struct asked {
    struct drain_place place;
    uint32_t ahead, life;
    double joined_ms;
};

static void check(const struct drain *drain, const struct asked *asked, const struct history *h)
{
    const double got = drain_free_ms(drain, &asked->place, asked->joined_ms);

    if (h->life != asked->life) {
        assert_true(isinf(got));
    } else if (asked->place.number == 0) {
        assert_true(got == asked->joined_ms);
    } else if (h->count < asked->ahead) {
        assert_true(isinf(got));
    } else if (h->count - asked->ahead < DRAIN_KEPT) {
        assert_true(got == h->left[asked->ahead - 1]);
    } else {
        assert_true(got >= h->left[asked->ahead - 1]); /* a bound */
        assert_true(got <= h->left[h->count - 1]);
    }
}

static void test_matches_model(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    const uint64_t seed = text ? strtoull(text, NULL, 10) : 5;
    static struct history histories[INSTANCES];
    static struct asked asked[PLACES];
    struct drain *drain = NULL;
    struct rng rng;
    uint32_t places = 0;

    printf("SEED=%llu\n", (unsigned long long)seed);
    rng_init(&rng, seed);
    assert_int_equal(drain_create(INSTANCES, &drain), STATUS_OK);
    for (uint32_t step = 0; step < STEPS; step++) {
        const uint32_t i = (uint32_t)rng_below(&rng, INSTANCES);
        struct history *h = &histories[i];
        const uint64_t dice = rng_below(&rng, 1000);
        if (dice < 2) {
            drain_begin(drain, i);
            h->count = h->queued = 0;
            h->life++;
        } else if (dice < 400 && h->queued > 0) {
            drain_left(drain, i, step);
            h->left[h->count++] = step;
            h->queued--;
        } else {
            asked[places++ % PLACES] = (struct asked){ drain_join(drain, i, h->queued),
                                                       h->count + h->queued, h->life, step };
            if (h->queued < 100) h->queued++;
        }
        for (uint32_t j = 0; j < PLACES && j < places; j++)
            check(drain, &asked[j], &histories[asked[j].place.instance]);
    }
    drain_destroy(drain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
