/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer_bench_test.c
 *
 * Goal:   the bench ends and its numbers are numbers; how good they are is not for a test to say.
 * Method: one run. */
#include "transfer/bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/log.h"

static void rows_are_filled(void **state)
{
    (void)state;
    struct transfer_bench_row rows[TRANSFER_BENCH_ROWS];
    struct errmsg err = { "" };

    assert_int_equal(transfer_bench(TRANSFER_BENCH_RUNS_MAX + 1, rows, &err), STATUS_INVALID);
    assert_int_equal(transfer_bench(1, rows, &err), STATUS_OK);
    for (int i = 0; i < TRANSFER_BENCH_ROWS; i++) {
        printf("%s %.2f %s, %s %.2f, ratio %.2f\n", rows[i].name, rows[i].value, rows[i].unit,
               rows[i].yardstick, rows[i].baseline, rows[i].ratio);
        assert_true(rows[i].value > 0 && rows[i].baseline > 0);
        assert_true(rows[i].ratio > 0 && rows[i].target > 0 && rows[i].target <= 1);
    }
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test(rows_are_filled) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
