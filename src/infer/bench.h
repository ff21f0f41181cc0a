/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/bench.h - how fast this engine is on this machine: the rows of `yolk bench engine`.
 *
 * Medians of several runs over pages of the bench's own, on random tokens: prefill of 512 and 2,048
 * tokens in chunks of 512, and decode at batch 1 and 8 behind a prompt of 128 tokens. */
#ifndef INFER_BENCH_H
#define INFER_BENCH_H

#include <stdint.h>

#include "base/status.h"
#include "infer/engine.h"

struct env;

enum { ENGINE_BENCH_ROWS = 4, ENGINE_BENCH_RUNS_MAX = 101 };

struct engine_bench_row {
    const char *name;         /* static: "prefill_512", "prefill_2048", "decode_1", "decode_8" */
    const char *unit;         /* static: "tokens/s" */
    double tokens_per_second; /* median */
    uint32_t runs;
};

struct engine_bench_options {
    uint32_t threads; /* as in engine_options */
    uint32_t runs;    /* 0: 5 */
    enum engine_isa isa;
    enum engine_kv kv;
};

/* Fills ENGINE_BENCH_ROWS rows. Takes tens of seconds. Statuses as of engine_create(); the model
 * must have a context of at least 2,048 tokens (STATUS_UNSUPPORTED). */
MUST_USE enum status engine_bench(struct env *env, const struct model *model,
                                  const struct engine_bench_options *options,
                                  struct engine_bench_row rows[ENGINE_BENCH_ROWS],
                                  struct errmsg *err);

#endif
