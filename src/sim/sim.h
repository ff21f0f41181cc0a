/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/sim.h - replays a trace on a simulated cluster, and measures what its users would have seen.
 *
 * Discrete events in virtual nanoseconds. Mooncake's placement is the library that the gateway uses
 * (yolk/conductor.h), told about blocks and work by the simulated nodes as by real ones. All chance
 * comes from the cluster's seed: the same inputs give the same bytes, whatever compiler built it.
 *
 * What is measured of a request
 *   ttft   from its arrival until its first token is passed on: when its KV is at the decode node
 *          and it joins the batch there; for an answer of one token, and for coupled systems, when
 *          its prefill ends
 *   tbt    the mean of the longest tenth of the times between its tokens
 *   good   both within the cluster's limits
 *
 * Memory:  the result belongs to the caller.
 * Threads: none.
 * Limits:  those of trace and cluster. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "conductor/slo.h"
#include "sim/cluster.h"
#include "sim/spread.h"
#include "sim/trace.h"

struct buf;

enum { SIM_RANKS = 4, SIM_SAMPLES_MAX = 200000 };

enum sim_outcome {
    SIM_UNFINISHED = 0,
    SIM_DONE,
    SIM_REFUSED_EARLY, /* at its arrival */
    SIM_REFUSED_LATE,  /* after its prefill, which is wasted */
    SIM_NEVER_FITS,
    SIM_FAILED, /* so many placements in a row have failed */
};

struct sim_record {
    enum sim_outcome outcome;
    uint32_t input_tokens, output_tokens;
    uint32_t reused_tokens;  /* of the prompt: not computed */
    uint32_t fetched_tokens; /* of those: moved from another node */
    uint32_t class;          /* of result.classes, where there are any */
    double arrival_s;
    double ttft_ms, tbt_ms, tbt_mean_ms; /* valid when done */
    double queue_s, prefill_s, transfer_s, total_s;
};

struct sim_sample {
    double time_s;
    double prefill_load, decode_load; /* means over the nodes; 1 is the limit */
    uint32_t queued, decoding, waiting;
    uint32_t prefill_nodes, decode_nodes, draining_nodes; /* of mooncake */
    /* Of the 10th, 100th, 1,000th and 10,000th hottest block: means over up to 32 blocks that are
     * used as often. */
    double replicas[SIM_RANKS];
};

struct sim_failures {
    uint64_t stopped[2];               /* prefill nodes, decode nodes */
    uint64_t placed_again;             /* placements of requests that lost theirs */
    uint64_t lost_blocks, kept_blocks; /* of the pool, on machines that stopped */
    double cut_bytes;                  /* moved by transfers that were cut */
};

/* Of placements, in milliseconds of time to first token: yolk/explain.h. */
struct sim_regret {
    uint64_t judged, wrong; /* wrong: beyond what the cost model is sure of */
    double ms;              /* of all judged */
};

struct sim_result {
    struct sim_cluster cluster;
    struct slo_classes classes;
    uint32_t count;
    struct sim_record *records; /* by number in the trace */
    uint32_t samples_count;
    struct sim_sample *samples;
    double duration_s; /* of virtual time, until the last answer */
    uint64_t events;
    double fetched_bytes, sent_bytes;
    uint64_t placements[4];    /* by yolk_reuse_reason, where the conductor places */
    uint64_t copies, removals; /* of hot prefixes; of copies gone cold */
    double copied_bytes;
    uint64_t flips; /* changes of role */
    struct sim_failures failures;
    struct sim_regret regret;      /* zero without the setting */
    uint64_t inlined;              /* prefills beside a decode step */
    uint64_t groups, group_stages; /* prefills on several nodes; those nodes together */
};

struct sim_progress {
    void (*fn)(void *ctx, uint32_t finished, uint32_t count); /* NULL: none */
    void *ctx;
};

extern const uint32_t sim_ranks[SIM_RANKS];

/* STATUS_INVALID for a cluster that contradicts itself or cannot serve the trace, err says why;
 * STATUS_NO_MEMORY. */
MUST_USE enum status sim_run(const struct sim_cluster *cluster, const struct trace *trace,
                             struct sim_progress progress, struct sim_result **out,
                             struct errmsg *err);
void sim_result_destroy(struct sim_result *result); /* NULL is allowed */

/* ---- what it amounts to ---- */

enum { SIM_TBT_POINTS = 16, SIM_TTFT_POINTS = 12 };

/* Of the requests of one class; good is within its own limits. */
struct sim_class {
    uint32_t requests, done, refused;
    double good; /* share of its requests */
    struct sim_spread ttft_ms, tbt_ms;
};

struct sim_summary {
    uint32_t requests, done, refused_early, refused_late, never_fit, failed;
    struct sim_spread ttft_ms, tbt_ms, tbt_mean_ms, prefill_s, queue_s, transfer_s;
    double good;                      /* share of all requests that are within both limits */
    double good_mean;                 /* the same by the mean time between tokens of each answer */
    double effective[SIM_TBT_POINTS]; /* share within the TTFT limit and sim_tbt_points[i] ms */
    double ttft[SIM_TTFT_POINTS];     /* share within sim_ttft_points[i] seconds */
    double token_hit, local_hit;      /* reused tokens, and those not fetched, by input tokens */
    double wasted_prefill_s;          /* of refused requests, together */
    double load_correlation;          /* of prefill and decode load; NaN: they do not vary */
    struct sim_class classes[SLO_CLASSES_MAX]; /* of result.classes */
    uint64_t digest; /* of all records: equal means bit for bit the same run */
};

extern const double sim_tbt_points[SIM_TBT_POINTS];
extern const double sim_ttft_points[SIM_TTFT_POINTS];

MUST_USE enum status sim_summarize(const struct sim_result *result, struct sim_summary *out);

/* One JSON object, and a page of text. `series` adds the samples. */
MUST_USE enum status sim_write_json(const struct sim_result *result,
                                    const struct sim_summary *summary, bool series,
                                    struct buf *out);
MUST_USE enum status sim_write_text(const struct sim_result *result,
                                    const struct sim_summary *summary, struct buf *out);

#endif
