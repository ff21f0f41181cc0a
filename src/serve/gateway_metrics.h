/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_metrics.h - what /metrics shows: names that dashboards know from vLLM where they
 * exist, with its label model_name, and our own.
 *
 * Threads: the env's loop thread. */
#ifndef SERVE_GATEWAY_METRICS_H
#define SERVE_GATEWAY_METRICS_H

#include <stdint.h>

#include "base/status.h"
#include "serve/proto.h"
#include "yolk/explain.h"

struct buf;
struct gateway_metrics; /* opaque */

/* STATUS_NO_MEMORY. `model_name` is copied. */
MUST_USE enum status gateway_metrics_create(const char *model_name, struct gateway_metrics **out);
void gateway_metrics_destroy(struct gateway_metrics *metrics); /* NULL is allowed */

/* What the policies are called. Once. */
void gateway_metrics_policies(struct gateway_metrics *metrics, const char *placement,
                              const char *policy);

/* Things that happen. Times in seconds. */
void gateway_metrics_http(struct gateway_metrics *metrics, int status);
void gateway_metrics_prompt(struct gateway_metrics *metrics, uint32_t tokens);
void gateway_metrics_first_token(struct gateway_metrics *metrics, double since_arrival_s);
void gateway_metrics_next_token(struct gateway_metrics *metrics, double since_last_s);
/* Tokens looked up in the prefix cache, and found. */
void gateway_metrics_cached(struct gateway_metrics *metrics, uint32_t queried, uint32_t hit);
/* Where a prefill node had the tokens of a prompt from that it did not compute. */
enum { GATEWAY_TIER_LOCAL, GATEWAY_TIER_REMOTE, GATEWAY_TIER_DISK, GATEWAY_TIERS };
void gateway_metrics_prefilled(struct gateway_metrics *metrics, uint32_t tokens, uint32_t local,
                               uint32_t fetched, bool from_disk);
/* What an HTTP request asks for; `max_tokens` 0: not said. */
void gateway_metrics_asked(struct gateway_metrics *metrics, uint32_t n, uint32_t max_tokens);
/* A node had no page for a request. */
void gateway_metrics_displaced(struct gateway_metrics *metrics);
void gateway_metrics_placed(struct gateway_metrics *metrics, enum yolk_reuse_reason reason,
                            double waited_s);
void gateway_metrics_predicted(struct gateway_metrics *metrics, double predicted_s,
                               double actual_s);
/* Time to first token beyond the best choice in hindsight. */
void gateway_metrics_regret(struct gateway_metrics *metrics, double seconds);
/* The same of the mean time between tokens. */
void gateway_metrics_tbt_regret(struct gateway_metrics *metrics, double seconds);
/* Between the end of a prefill and a place in the batch of its decode node. */
void gateway_metrics_door(struct gateway_metrics *metrics, double waited_s);
void gateway_metrics_refused(struct gateway_metrics *metrics, enum yolk_refusal refusal);
void gateway_metrics_attempt_failed(struct gateway_metrics *metrics, const char *cause);

/* A node has taken this role; so many requests had to leave a node for that. */
void gateway_metrics_role_changed(struct gateway_metrics *metrics, const char *role);
void gateway_metrics_handed_over(struct gateway_metrics *metrics, uint32_t requests);

/* Blocks of a hot prefix have been copied; copied ones that have gone cold are removed. */
void gateway_metrics_copied(struct gateway_metrics *metrics, uint32_t blocks);
void gateway_metrics_copies_removed(struct gateway_metrics *metrics, uint32_t blocks);

/* A tenant's tokens, `kind` "prompt" or "answer"; and a request it was refused for a limit. */
void gateway_metrics_tenant(struct gateway_metrics *metrics, const char *tenant, const char *kind,
                            uint32_t tokens);
void gateway_metrics_limited(struct gateway_metrics *metrics, const char *tenant,
                             const char *limit);
void gateway_metrics_unauthorized(struct gateway_metrics *metrics);

struct gateway_outcome {
    const char *reason; /* "stop", "length", "abort", "error" */
    uint32_t prompt_tokens, output_tokens;
    double total_s, prefill_s, decode_s, inference_s; /* negative: unknown */
};
/* `class_name` "none" for requests of no class. */
void gateway_metrics_class(struct gateway_metrics *metrics, const char *class_name,
                           const char *outcome);
void gateway_metrics_finished(struct gateway_metrics *metrics,
                              const struct gateway_outcome *outcome);

/* How things are, read when the page is made. */
struct gateway_gauges {
    uint32_t running, waiting, reading;
    uint32_t prefill_up, decode_up, known;
    uint64_t pages_total, pages_used;
    uint64_t disk[PROTO_DISK_NUMBERS]; /* of all nodes */
    uint64_t moves[PROTO_MOVES];       /* likewise */
    uint32_t block_tokens;
    const struct yolk_conductor_stats *conductor; /* NULL: none yet */
    const struct yolk_admission_stats *admission; /* likewise */
    const struct yolk_explain_stats *explain;     /* likewise */
    const struct yolk_elastic_stats *elastic;     /* likewise */
    const struct yolk_replication_stats *copies;  /* likewise */
};
MUST_USE enum status gateway_metrics_render(struct gateway_metrics *metrics,
                                            const struct gateway_gauges *gauges, struct buf *out);

#endif
