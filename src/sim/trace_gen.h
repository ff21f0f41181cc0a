/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/trace_gen.h - makes traces: who comes when, how long, and what prompts share.
 *
 * Arrivals: gaps with a gamma distribution of the given mean and coefficient of variation (1 is
 * Poisson, more is burstier), while the rate swings by `drift` around its mean once per drift_s.
 *
 * Prompts: a request opens a conversation or, with probability `follow`, goes on with an open one.
 * A new one begins with a shared root (a system prompt; popularity by rank as 1/rank, and the ranks
 * move on by one every drift_s) and continues with text of its own. A follow-up's prompt is the
 * prompt before, its answer, and new text. So prompts form a forest of prefixes, as real ones do.
 *
 * Lengths are log-normal around their means. Everything follows from the seed.
 *
 * Memory:  the trace's.
 * Threads: none.
 * Limits:  those of sim/trace.h. */
#ifndef SIM_TRACE_GEN_H
#define SIM_TRACE_GEN_H

#include <stdint.h>

#include "base/status.h"

struct trace;

enum { TRACE_GEN_SESSIONS_MAX = 65536, TRACE_GEN_ROOTS_MAX = 65536 };

struct trace_gen_options {
    uint64_t seed;
    uint32_t requests;
    double rate;       /* requests per second */
    double cv;         /* of the gaps: 0 is a metronome, 1 Poisson */
    double drift;      /* share by which the rate swings: 0 to below 1 */
    double drift_s;    /* period of a swing */
    double follow;     /* probability that a request goes on with a conversation: 0 to below 1 */
    uint32_t sessions; /* conversations that may be gone on with */
    uint32_t roots;    /* shared beginnings; 0: none */
    double root_tokens, input_tokens, output_tokens; /* means; input is the new text of a request */
    double spread;                                   /* standard deviation of the log of lengths */
    uint32_t input_max; /* prompts are cut there, and the conversation ends */
    uint32_t block_tokens;
};

/* A day's chat: 1,000 requests at 4 a second. */
struct trace_gen_options trace_gen_defaults(void);

/* STATUS_INVALID for an option out of range (err says which), STATUS_FULL beyond the limits of a
 * trace, STATUS_NO_MEMORY. */
MUST_USE enum status trace_gen(const struct trace_gen_options *options, struct trace **out,
                               struct errmsg *err);

#endif
