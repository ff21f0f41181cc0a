/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cli/bench.h"
#include "cli/report.h"
#include "transfer/bench.h"

enum status bench_transfer(struct cli *cli, struct report *report, struct errmsg *err)
{
    static struct transfer_bench bench;

    bench = (struct transfer_bench){ .only = config_positions(cli->config) > 1
                                                 ? config_position(cli->config, 1)
                                                 : NULL };
    const enum status status = transfer_bench(&bench, err);
    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < bench.count; i++) {
        const struct transfer_bench_row *from = &bench.rows[i];
        struct report_row *row = report_add(report, from->name, from->value, from->unit);
        /* the ratio is the median of the pairs */
        if (from->yardstick != NULL) row->baseline = from->value / from->ratio;
        row->low = from->ratio_low;
        row->high = from->ratio_high;
        if (from->target > 0) row->kind = from->at_most ? REPORT_AT_MOST : REPORT_AT_LEAST;
        row->target = from->target;
        memcpy(row->skipped, from->skipped, sizeof(row->skipped));
    }
    return STATUS_OK;
}
