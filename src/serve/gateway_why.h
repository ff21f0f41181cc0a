/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_why.h - an explanation of the Conductor (yolk/explain.h), written as JSON for
 * programs and as lines for people.
 *
 * JSON, members to be put into an object:
 *
 *     "candidates": {"prefill": [{"name", "holder", "reuse_blocks", "queue_ms", "transfer_ms",
 *                                 "compute_ms", "ttft_ms", "hindsight_ms", "samples"}, ...],
 *                    "decode": [{"name", "sequences", "context_tokens", "tbt_ms",
 *                                "hindsight_ms", "samples"}, ...]},
 *     "regret_ms", "regret_spread_ms", "tbt_regret_ms", "tbt_regret_spread_ms",
 *     "hits": {"reusable_blocks", "predicted_blocks", "reused_blocks", "missed": {REASON: blocks}}
 *
 * Candidates come best first, the chosen one is the first. hindsight_ms is null while the request
 * runs, and where it would not have been better: its queue had not drained by the end, or it is
 * gone. Regrets and reused_blocks are null until they are known. Reasons without blocks are left
 * out.
 *
 * Of all together:
 *
 *     "hits": {"window_requests", "window_predicted_blocks", "window_reused_blocks", "alarm",
 *              "mostly", "predicted_blocks", "reused_blocks", "missed": {REASON: blocks}},
 *     "regret": {"judged", "beyond_noise", "total_ms", "tbt_judged", "tbt_beyond_noise",
 *                "tbt_total_ms"}
 *
 * Threads: the env's loop thread. */
#ifndef SERVE_GATEWAY_WHY_H
#define SERVE_GATEWAY_WHY_H

#include "base/status.h"

struct buf;
struct yolk_explain_stats;
struct yolk_explanation;

/* Each appends to *out, a comma first where it is JSON: STATUS_FULL, STATUS_NO_MEMORY of it. */
MUST_USE enum status gateway_why_json(struct buf *out, const struct yolk_explanation *explanation);
MUST_USE enum status gateway_why_text(struct buf *out, const struct yolk_explanation *explanation);
/* In one line and without its end: ", missed 12 timeout, 1 never_seen"; nothing if none was. */
MUST_USE enum status gateway_why_missed_text(struct buf *out,
                                             const struct yolk_explanation *explanation);
MUST_USE enum status gateway_why_all_json(struct buf *out, const struct yolk_explain_stats *stats);
/* Nothing while there is no alarm. */
MUST_USE enum status gateway_why_alarm_text(struct buf *out,
                                            const struct yolk_explain_stats *stats);

#endif
