/* SPDX-License-Identifier: Apache-2.0
 *
 * store/commit_wait.h - a client's call that commits one value or many, until each is settled.
 *
 * The call is answered with the last of them: store.commit with its status, store.commits with a
 * code for each. Each is settled once, in any order, also when the client has given up meanwhile;
 * with the last one the wait is gone.
 *
 * Memory:  4 bytes a value. Threads: the env's loop thread. */
#ifndef STORE_COMMIT_WAIT_H
#define STORE_COMMIT_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct commit_wait; /* opaque */
struct rpc_call;

/* Of `count` > 0 values; `many`: the call is store.commits. The call is the wait's from now on.
 * NULL: no memory, and the call is still the caller's. */
struct commit_wait *commit_wait_create(struct rpc_call *call, uint32_t count, bool many);

/* `message` is for people, and only told by store.commit; NULL: none. */
void commit_wait_settle(struct commit_wait *wait, uint32_t index, enum status status,
                        const char *message);

/* Others are in the same call. */
bool commit_wait_many(const struct commit_wait *wait);
/* ENV_NEVER: the client set none. */
uint64_t commit_wait_deadline_ns(const struct commit_wait *wait);

#endif
