/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/bench.h - how near the engine is to the bare path: the rows of `yolk bench transfer`.
 *
 * Every row is measured in pairs, the engine and then its yardstick, in the same run over the same
 * sizes, depth, number of streams and way of waiting, walking through memory that no cache holds.
 * The ratio of a row is the median of the pairs' ratios, with the 95% confidence interval of that
 * median from the order of the pairs; a row is met when the interval reaches the target.
 *
 * Rows that need what this machine does not have (network namespaces, libfabric) are skipped, with
 * the reason in the row. */
#ifndef TRANSFER_BENCH_H
#define TRANSFER_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { TRANSFER_BENCH_ROWS_MAX = 96, TRANSFER_BENCH_PAIRS_MAX = 101 };

struct transfer_bench_row {
    const char *name;      /* static */
    const char *unit;      /* static: "GB/s", "us", "ms" */
    const char *yardstick; /* static: "sockets", "memcpy", ...; NULL: the value is judged itself */
    double value;          /* medians */
    double baseline;
    double ratio; /* median of the ratios of the pairs, and its 95% interval; or of the values */
    double ratio_low, ratio_high;
    double target;     /* 0: none */
    bool at_most;      /* the ratio, or the value, should be below the target */
    char skipped[128]; /* why; "" if it was measured */
};

struct transfer_bench {
    uint32_t pairs;   /* per row; 0: 15 */
    const char *only; /* rows whose name contains it; NULL or "": all */
    bool quick;       /* a hundredth of the work, nothing twice: to see that it works */
    uint32_t count;   /* out */
    struct transfer_bench_row rows[TRANSFER_BENCH_ROWS_MAX];
};

/* Some seconds per row. Statuses of creating envs and engines; STATUS_IO when a transfer did not
 * complete; STATUS_INVALID for too many pairs. */
MUST_USE enum status transfer_bench(struct transfer_bench *bench, struct errmsg *err);

/* ---- between two hosts ---- */

struct env;
struct transfer_bench_server; /* opaque */

/* Lends 256 MiB to transfer_bench_peer() of another host, until closed: over bare sockets at
 * `address`, "host:port", to anyone who can reach it; over an engine at another port of `host`,
 * which beyond loopback needs the `secret`. Needs the env's loop to run. */
MUST_USE enum status transfer_bench_serve(struct env *env, const char *address, const char *secret,
                                          struct transfer_bench_server **out, struct errmsg *err);
void transfer_bench_server_close(struct transfer_bench_server *server); /* NULL allowed */

/* The rows between here and a host that serves at `address`; one such at a time. As
 * transfer_bench(); STATUS_UNAVAILABLE if nobody serves there. */
MUST_USE enum status transfer_bench_peer(struct transfer_bench *bench, const char *address,
                                         const char *secret, struct errmsg *err);

#endif
