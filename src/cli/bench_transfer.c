/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench.h"
#include "cli/report.h"
#include "transfer/bench.h"

enum { PAIRS = 15 };

enum status bench_transfer(struct cli *cli, struct report *report, struct errmsg *err)
{
    struct transfer_bench_row rows[TRANSFER_BENCH_ROWS];

    (void)cli;
    const enum status status = transfer_bench(PAIRS, rows, err);
    if (status != STATUS_OK) return status;
    for (int i = 0; i < TRANSFER_BENCH_ROWS; i++) {
        struct report_row *row = report_add(report, rows[i].name, rows[i].value, rows[i].unit);
        row->baseline = rows[i].value / rows[i].ratio; /* the ratio is the median of the pairs */
        row->kind = REPORT_AT_LEAST;
        row->target = rows[i].target;
    }
    return STATUS_OK;
}
