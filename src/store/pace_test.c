/* SPDX-License-Identifier: Apache-2.0
 *
 * Goal: who waits looks where answers are brief, sleeps where they are not, and where looking does
 * not pay it is tried ever more seldom, and at once again when it does. */
#include "store/pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* Waits until the pace is another one, at most `most`. */
static uint32_t waits_until(struct pace *pace, bool looks, bool brief, uint32_t most)
{
    uint32_t waits = 0;
    for (; waits < most && pace_looks(pace) != looks; waits++)
        pace_note(pace, brief);
    return waits;
}

static void note_many(struct pace *pace, uint32_t count, bool brief)
{
    for (uint32_t i = 0; i < count; i++)
        pace_note(pace, brief);
}

static void brief_answers_are_looked_for(void **state)
{
    struct pace pace;
    (void)state;

    pace_init(&pace);
    assert_false(pace_looks(&pace));
    assert_int_equal(waits_until(&pace, true, true, 1000), PACE_BAR_LEAST);
    note_many(&pace, 1000, true);
    assert_true(pace_looks(&pace));
}

static void long_answers_are_slept_for(void **state)
{
    struct pace pace;
    (void)state;

    pace_init(&pace);
    for (uint32_t i = 0; i < 10000; i++) {
        pace_note(&pace, i % 4 != 0); /* a quarter is too much */
        assert_false(pace_looks(&pace));
    }
    note_many(&pace, 10000, false);
    assert_false(pace_looks(&pace));
}

static void some_long_ones_do_not_matter(void **state)
{
    struct pace pace;
    (void)state;

    pace_init(&pace);
    for (uint32_t i = 0; i < 1000; i++)
        pace_note(&pace, i % 10 != 0);
    assert_true(pace_looks(&pace));
    for (uint32_t i = 0; i < 10000; i++) {
        pace_note(&pace, i % 10 != 0);
        assert_true(pace_looks(&pace));
    }
}

static void in_vain_is_tried_seldom(void **state)
{
    struct pace pace;
    uint32_t bar = PACE_BAR_LEAST;
    (void)state;

    pace_init(&pace);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(waits_until(&pace, true, true, 2 * PACE_BAR_MOST), bar);
        assert_in_range(waits_until(&pace, false, false, 100), 1, PACE_PATIENCE / 8);
        if (bar < PACE_BAR_MOST) bar *= 2;
    }
    assert_int_equal(bar, PACE_BAR_MOST);
    /* When it pays, the bar comes down while it does. */
    note_many(&pace, 20 * PACE_BAR_MOST, true);
    note_many(&pace, PACE_PATIENCE / 8, false);
    assert_false(pace_looks(&pace));
    assert_in_range(waits_until(&pace, true, true, 2 * PACE_BAR_MOST), PACE_BAR_LEAST,
                    2 * PACE_BAR_LEAST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brief_answers_are_looked_for),
        cmocka_unit_test(long_answers_are_slept_for),
        cmocka_unit_test(some_long_ones_do_not_matter),
        cmocka_unit_test(in_vain_is_tried_seldom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
