/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/links.h - the network: one full-duplex link a node, its rate shared by the flows on it.
 *
 * A flow from a to b moves at the lesser of its share of a's sending side and its share of b's
 * receiving side; a side is shared equally by all flows on it. So no side ever carries more than
 * its rate, and what a flow cannot use because its other end is slower stays unused (real max-min
 * sharing would give it to the others; the difference is small while flows are few).
 *
 * When a flow begins or ends, those that share a side with it get new rates, and an event for the
 * new end of each is pushed, of kind `event_kind`, `who` the flow, with a new version.
 *
 * Memory:  grows with the flows at one time.
 * Threads: one. */
#ifndef SIM_LINKS_H
#define SIM_LINKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "sim/events.h"

struct links; /* opaque */

struct links_options {
    uint32_t nodes;
    double bytes_s; /* of each side of each node */
    uint32_t event_kind;
};

MUST_USE enum status links_create(const struct links_options *options, struct events *events,
                                  struct links **out);
void links_destroy(struct links *links); /* NULL is allowed */

/* `tag` comes back when it is done. STATUS_NO_MEMORY. */
MUST_USE enum status links_start(struct links *links, uint32_t from, uint32_t to, double bytes,
                                 uint64_t tag);

/* Takes an event of this kind. True when a flow has ended, with its tag; false for an event out of
 * date. */
MUST_USE enum status links_event(struct links *links, const struct event *event, bool *ended,
                                 uint64_t *tag);

/* Cuts flows; what they have moved counts, on both sides, and is added to *bytes.
 * STATUS_NO_MEMORY. */
typedef bool links_which_fn(void *ctx, uint32_t from, uint32_t to, uint64_t tag);
MUST_USE enum status links_cancel(struct links *links, links_which_fn *which, void *ctx,
                                  double *bytes);

uint32_t links_flows(const struct links *links); /* now */
uint32_t links_sending(const struct links *links, uint32_t node);
double links_rate_out(const struct links *links, uint32_t node); /* bytes a second now */
double links_rate_in(const struct links *links, uint32_t node);
double links_bytes_sent(const struct links *links, uint32_t node); /* of ended flows */
double links_bytes_received(const struct links *links, uint32_t node);

#endif
