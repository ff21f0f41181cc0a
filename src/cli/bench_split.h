/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/bench_split.h - what a user has of separate prefill and decode nodes: the same requests to
 * two processes, each with a CPU of its own, and to one coupled process with both CPUs. */
#ifndef CLI_BENCH_SPLIT_H
#define CLI_BENCH_SPLIT_H

#include "base/status.h"

struct cli;
struct report;

/* Takes two minutes. Skips its rows, and says why, without two CPUs or the trace: in $YOLK_TRACES
 * or ../shared/traces. */
MUST_USE enum status bench_split(struct cli *cli, struct report *report, struct errmsg *err);

#endif
