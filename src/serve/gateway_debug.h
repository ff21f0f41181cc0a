/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_debug.h - the Conductor's decisions, shown: all of them as JSON, one as text.
 *
 *     {"decisions": [
 *       {"request_id", "age_ms", "accepted": true, "finished", "policy", "tokens", "prefill",
 *        "decode", "holder", "reuse", "reuse_blocks", "local_blocks", "best_blocks",
 *        "prefill_candidates", "decode_candidates", "predicted_ms": {"queue", "transfer",
 *        "compute", "spread", "ttft", "tbt"}, "load": LOAD, "actual": null or {"ttft_ms",
 *        "total_ms", "cached_tokens", "output_tokens", "outcome", and with a door "door_ms"}, and
 *        WHY; with "inlined": true where the decode node prefills, beside a step, and "stages"
 *        where so many nodes prefill it together},
 *       {"request_id", "age_ms", "accepted": false, "policy", "refusal", "tokens", "load": LOAD,
 *        "predicted_ms": {"ttft", "tbt"}, "retry_after_ms", "hindsight", "peak_load"}, ...]}
 *     LOAD = {"prefill", "decode", "predicted", "gate"}
 *
 * WHY (candidates, regret and hits) and the members about all decisions, "hits" and "regret", are
 * those of gateway_why.h. Newest first. What is not known yet is null. A request that was refused
 * when its prefill had ended is there twice: as the decision that placed it, and as the refusal.
 *
 * Limits:  DEBUG_LIST_MAX entries.
 * Threads: the env's loop thread. */
#ifndef SERVE_GATEWAY_DEBUG_H
#define SERVE_GATEWAY_DEBUG_H

#include "base/status.h"

struct buf;
struct yolk_conductor;

enum { DEBUG_LIST_DEFAULT = 100, DEBUG_LIST_MAX = 1000, DEBUG_EARLIER_MAX = 8 };

/* Appends the list. `query` may say "limit=N"; anything else in it is ignored. `conductor` may be
 * NULL: nothing has been decided. STATUS_FULL, STATUS_NO_MEMORY of *out. */
MUST_USE enum status gateway_debug_list(const struct yolk_conductor *conductor, double now_ms,
                                        const char *query, struct buf *out);

/* Appends the latest decision about this request, some lines of text, and a line for each of the
 * DEBUG_EARLIER_MAX before it. STATUS_NOT_FOUND. */
MUST_USE enum status gateway_debug_explain(const struct yolk_conductor *conductor, double now_ms,
                                           const char *request_id, struct buf *out);

#endif
