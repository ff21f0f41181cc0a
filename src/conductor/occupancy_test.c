/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/occupancy_test.c
 *
 * Goal:   a mean is what the values were on the mean, whatever was noted in between; a new life of
 *         the slot voids marks of the old one.
 * Method: a seeded walk on a clock of whole milliseconds, in which values step or ramp, beside a
 *         list of the value in every millisecond. SEED repeats it. */
#include "conductor/occupancy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <math.h>

#include "base/rng.h"
#include "seed.h"

enum { MS = 20000, MARKS = 12 };

struct model {
    double sequences[MS], context[MS]; /* mean within each millisecond */
};

static void check(const struct occupancy *o, const struct occupancy_mark *mark,
                  const struct model *model, const struct occupancy_now *now)
{
    double sequences = 0, context = 0, want_sequences = 0, want_context = 0;

    if (now->ms <= mark->ms) {
        assert_false(occupancy_mean(o, mark, now, &sequences, &context));
        return;
    }
    for (uint32_t ms = (uint32_t)mark->ms; ms < (uint32_t)now->ms; ms++) {
        want_sequences += model->sequences[ms];
        want_context += model->context[ms];
    }
    assert_true(occupancy_mean(o, mark, now, &sequences, &context));
    assert_true(fabs(sequences - want_sequences / (now->ms - mark->ms)) < 1e-6);
    assert_true(fabs(context - want_context / (now->ms - mark->ms)) < 1e-3);
}

static void means_are_those_of_every_moment(void **state)
{
    (void)state;
    static struct model model;
    struct occupancy_mark marks[MARKS];
    struct occupancy_now now = { 0 };
    struct occupancy *o = NULL;
    struct rng rng;
    uint32_t count = 0;

    rng_init(&rng, test_seed());
    assert_int_equal(occupancy_create(2, &o), STATUS_OK);
    occupancy_begin(o, 1);
    for (;;) {
        const uint32_t passed = (uint32_t)rng_below(&rng, 60);
        const double grown = (double)rng_below(&rng, 100);
        if (now.ms + passed >= MS) break;
        for (uint32_t i = 0; i < passed; i++) {
            model.sequences[(uint32_t)now.ms + i] = now.sequences;
            model.context[(uint32_t)now.ms + i] = now.context_tokens + grown * (i + 0.5) / passed;
        }
        now.ms += passed;
        if (passed > 0) now.context_tokens += grown;
        occupancy_note(o, 1, &now);
        now.sequences = (double)rng_below(&rng, 20);
        now.context_tokens = (double)rng_below(&rng, 50000);
        occupancy_note(o, 1, &now);
        marks[count++ % MARKS] = occupancy_mark(o, 1, &now);
        for (uint32_t i = 0; i < count && i < MARKS; i++)
            check(o, &marks[i], &model, &now);
    }
    assert_true(count > 300);
    assert_true(occupancy_valid(o, &marks[0]));
    occupancy_begin(o, 1);
    now.ms += 1;
    assert_false(occupancy_valid(o, &marks[0]));
    assert_false(occupancy_mean(o, &marks[0], &now, &now.sequences, &now.context_tokens));
    occupancy_destroy(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_are_those_of_every_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
