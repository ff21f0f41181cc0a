/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_removals.h - answers to removals wait until nobody reads what was removed.
 *
 * A client that was told lately where a value is may ask its owner again without the master
 * (store/known.h), so a removal is over when the owners have heard of it, or vouch for nothing any
 * more (store_master_removed()). That is usually a round trip; and values that nobody was told
 * about for STORE_KNOWN_MS are not waited for, which are all those that are removed without force,
 * where leases are longer than that.
 *
 *   master.remove, master.look: noted ----------------------------------> answered
 *                                 |  some are waited for                     ^
 *                                 +--> waiting --- all are gone, or heard ---+
 *
 * Threads: the env's loop thread. Limits: without memory to wait, the answer is STATUS_FULL, though
 * the values are removed. */
#ifndef STORE_MASTER_REMOVALS_H
#define STORE_MASTER_REMOVALS_H

#include <stddef.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"

struct env;
struct master_removals; /* opaque */
struct rpc_call;
struct store_master;

/* `master` outlives it. STATUS_NO_MEMORY. */
MUST_USE enum status master_removals_create(struct env *env, struct store_master *master,
                                            struct master_removals **out);
/* Whoever waits is told STATUS_UNAVAILABLE. NULL is allowed. */
void master_removals_destroy(struct master_removals *removals);

/* The present call has removed it, or has found that it is: it is waited for, if need be. */
void master_removals_note(struct master_removals *removals, const struct block_key *id);

/* Ends the present call with these bytes: now, or once nothing noted is waited for any more. */
void master_removals_reply(struct master_removals *removals, struct rpc_call *call,
                           const uint8_t *bytes, size_t len);

/* Owners have dropped something, or have said that they cannot yet. */
void master_removals_heard(struct master_removals *removals);

#endif
