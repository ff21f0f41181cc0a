/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench.h - how near the engine is to the bare path: the rows of `yolk bench transfer`.
 *
 * Initiator and target run in two threads with a loop each. Every row is measured in turns with its
 * yardstick, in the same run over the same sizes: for tcp a stream of env with the same depth and
 * nothing but payload and one byte of acknowledgement; for shm a memcpy of the same range. */
#ifndef TRANSFER_BENCH_H
#define TRANSFER_BENCH_H

#include <stdint.h>

#include "base/status.h"

enum { TRANSFER_BENCH_ROWS = 6, TRANSFER_BENCH_RUNS_MAX = 101 };

struct transfer_bench_row {
    const char *name;      /* static */
    const char *unit;      /* static: "GB/s" */
    const char *yardstick; /* static: "stream" or "memcpy" */
    double value;          /* medians */
    double baseline;
    double ratio; /* median of the ratios of the pairs */
    double target;
};

/* `runs` pairs per row (0: 5). Takes a second per row and run at most. Statuses of creating envs
 * and engines; STATUS_IO when a transfer did not complete. */
MUST_USE enum status transfer_bench(uint32_t runs,
                                    struct transfer_bench_row rows[TRANSFER_BENCH_ROWS],
                                    struct errmsg *err);

#endif
