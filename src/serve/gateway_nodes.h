/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_nodes.h - the nodes as the gateway sees them, and how near a change of roles is, as
 * JSON.
 *
 *     {"nodes": [{"name", "address", "role", "works", "draining", "phase", "state", "queued",
 *                 "running", "decoding", "at_door", "pages_total", "pages_free",
 *                 "pages_cached"}, ...],
 *      "roles": null or {"on", "window_ms", "dwell_ms", "drain_ms", "load": {"prefill", "decode"},
 *                        "evidence_ms": {"prefill", "decode"}, "begun", "done", "cancelled",
 *                        "draining"}}
 *
 * `works`: it may get work. Load: instances' worth of work per instance, 1 is full. Evidence: what
 * speaks for one more instance there, see conductor/roles.h.
 *
 * Threads: the env's loop thread. */
#ifndef SERVE_GATEWAY_NODES_H
#define SERVE_GATEWAY_NODES_H

#include "base/status.h"

struct buf;
struct cluster;

/* Appends it. STATUS_FULL, STATUS_NO_MEMORY of *out. */
MUST_USE enum status gateway_nodes_list(struct cluster *cluster, struct buf *out);

#endif
