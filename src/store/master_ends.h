/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_ends.h - ends of puts that are not answered yet: the new value is known, and what it
 * has replaced is being dropped by its owner.
 *
 *   put_end --STATUS_AGAIN--> waiting --nothing old is left--> answered STATUS_OK
 *                                |
 *                                +-- the asker's time is over: it asks again, with the same words
 *
 * Usually the old owner has dropped the value within a round trip, so waiting here is what keeps a
 * replacing put at two round trips.
 *
 * Threads: the env's loop thread. Limits: MASTER_ENDS_MAX wait, one of a key; others are to be
 * answered STATUS_AGAIN, and ask again. */
#ifndef STORE_MASTER_ENDS_H
#define STORE_MASTER_ENDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"

struct env;
struct rpc_call;
struct store_master;
struct master_ends; /* opaque */
struct master_tally;

enum { MASTER_ENDS_MAX = 4096 };

/* `master` and `tally`, where answers are counted, outlive it. STATUS_NO_MEMORY. */
MUST_USE enum status master_ends_create(struct env *env, struct store_master *master,
                                        struct master_tally *tally, uint64_t seed,
                                        struct master_ends **out);
/* Whoever waits is told STATUS_UNAVAILABLE. NULL is allowed. */
void master_ends_destroy(struct master_ends *ends);

/* The call, a put_end that the directory answered STATUS_AGAIN, is answered later. False: the
 * caller answers it. */
bool master_ends_wait(struct master_ends *ends, struct rpc_call *call, const struct block_key *id);

/* An owner of the value has dropped it, and the directory knows. */
void master_ends_removed(struct master_ends *ends, const struct block_key *id);

#endif
