/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer_bench_test.c
 *
 * Goal:   the bench ends and its numbers are numbers; how good they are is not for a test to say.
 *         What it says of rails is: over two wires, a transfer goes on when one is cut, and the
 *         wire is used again.
 * Method: one quick pair of every row, in network namespaces where they are allowed. */
#include "transfer/bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"

static void rows_are_filled(void **state)
{
    (void)state;
    static struct transfer_bench bench;
    struct errmsg err = { "" };

    bench = (struct transfer_bench){ .pairs = TRANSFER_BENCH_PAIRS_MAX + 1 };
    assert_int_equal(transfer_bench(&bench, &err), STATUS_INVALID);
    bench = (struct transfer_bench){ .pairs = 1, .quick = true };
    const enum status status = transfer_bench(&bench, &err);
    if (status != STATUS_OK) fail_msg("%s", err.text);
    assert_true(bench.count >= 20);
    for (uint32_t i = 0; i < bench.count; i++) {
        const struct transfer_bench_row *row = &bench.rows[i];
        assert_true(row->target > 0 || strstr(row->name, "encrypted") != NULL);
        if (row->skipped[0] != '\0') {
            printf("%s SKIPPED: %s\n", row->name, row->skipped);
            continue;
        }
        printf("%s %.2f %s, ratio %.2f\n", row->name, row->value, row->unit, row->ratio);
        assert_true(row->value >= 0 && row->ratio >= 0);
        assert_true(row->ratio_low <= row->ratio && row->ratio <= row->ratio_high);
        if (row->yardstick != NULL) assert_true(row->baseline > 0);
    }
}

static void rows_can_be_chosen(void **state)
{
    (void)state;
    static struct transfer_bench bench;

    bench = (struct transfer_bench){ .pairs = 1, .quick = true, .only = "shm_read_1m" };
    assert_int_equal(transfer_bench(&bench, NULL), STATUS_OK);
    assert_int_equal(bench.count, 1);
    assert_string_equal(bench.rows[0].name, "shm_read_1m_depth4");
}

int main(void)
{
    if (log_configure("error", NULL) != STATUS_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_filled),
        cmocka_unit_test(rows_can_be_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
