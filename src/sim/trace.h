/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/trace.h - request traces: who asked when, how much, and which blocks the prompts share.
 *
 * Formats, told apart by their first line:
 *   mooncake  JSON lines {"timestamp" ms | "delay" ms since the line before, "input_length",
 *             "output_length", "hash_ids": [...]}, optional "session_id", "block_size" (or
 *             "block_tokens"; the first line's counts for all). One id per block, the last partial.
 *   azure     CSV with TIMESTAMP,ContextTokens,GeneratedTokens; date and time with fractions.
 *   burstgpt  CSV with Timestamp (seconds),...,Request tokens,Response tokens,...
 *   vidur     CSV with arrived_at (seconds),num_prefill_tokens,num_decode_tokens
 * A trace without ids shares nothing: every block of it is its own.
 *
 * Ids are prefix-consistent: an id always stands behind the same id, so equal id means equal
 * prefix. A trace that breaks this, goes back in time, or asks for the absurd is refused with its
 * line.
 *
 * Memory:  everything belongs to the trace. Ids are renumbered densely in order of appearance.
 * Threads: none; immutable after parsing.
 * Limits:  TRACE_REQUESTS_MAX, TRACE_TOKENS_MAX a request, TRACE_BLOCKS_MAX references in all. */
#ifndef SIM_TRACE_H
#define SIM_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct buf;

enum {
    TRACE_REQUESTS_MAX = 1 << 24,
    TRACE_TOKENS_MAX = 1 << 24,
    TRACE_BLOCKS_MAX = 1 << 28,
    TRACE_BLOCK_TOKENS_DEFAULT = 512,
};
#define TRACE_SPAN_MS_MAX 1e11 /* from the first arrival to the last: three years */

enum trace_format { TRACE_MOONCAKE, TRACE_AZURE, TRACE_BURSTGPT, TRACE_VIDUR };

struct trace_request {
    double arrival_ms; /* since the first request */
    uint32_t input_tokens;
    uint32_t output_tokens;
    uint32_t first; /* ids[first .. first + blocks) */
    uint32_t blocks;
};

struct trace {
    enum trace_format format;
    uint32_t block_tokens;
    bool has_ids;
    uint32_t count;
    struct trace_request *requests; /* in order of arrival */
    uint32_t ids_count;             /* references */
    uint32_t *ids;                  /* each in 0..unique */
    uint32_t unique;
};

/* `name` is for messages. STATUS_INVALID: err has name, line, what is wrong and what was expected.
 * STATUS_FULL: beyond a limit. STATUS_NO_MEMORY. */
MUST_USE enum status trace_parse(const char *name, const char *text, size_t len, struct trace **out,
                                 struct errmsg *err);
void trace_destroy(struct trace *trace); /* NULL is allowed */

const char *trace_format_name(enum trace_format format);

/* Appends the trace as mooncake JSON lines. STATUS_FULL when the buffer is. */
MUST_USE enum status trace_write(const struct trace *trace, struct buf *out);

/* ---- statistics ---- */

struct trace_lengths {
    double mean;
    uint32_t min, p10, p25, p50, p75, p90, p95, p99, max;
};

struct trace_stat {
    uint32_t requests;
    double duration_ms;
    double rate; /* requests per second */
    struct trace_lengths input, output;
    uint64_t input_tokens, output_tokens;
    uint64_t references;         /* of blocks */
    uint32_t unique;             /* blocks */
    double token_hit, block_hit; /* with an infinite cache */
};

MUST_USE enum status trace_measure(const struct trace *trace, struct trace_stat *out);

/* One global LRU pool of `capacity` blocks, blocks of a request touched last to first, requests one
 * after another in file order. A hit is a block of the leading resident run; its tokens are
 * min(block_tokens * run, input). Exact. STATUS_NO_MEMORY. */
MUST_USE enum status trace_lru(const struct trace *trace, uint64_t capacity, double *token_hit,
                               double *block_hit);

#endif
