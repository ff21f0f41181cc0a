/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_commit.h - commits of written values at their owners, many with one message. Inside
 * of a client.
 *
 * What is wanted in one turn of the loop, by whichever calls, is sent in the next: of each owner's
 * values as many together as fit one store.commits, and what is left alone as store.commit. Every
 * commit that was added ends once, from the loop, with its own status.
 *
 *   I1  A message commits at most COMMIT_VALUES_MAX values, and COMMIT_BYTES_MAX bytes or one
 *       value: how long it keeps the owner busy, which reads all of them, is bounded.
 *   I2  Values of one message are of one life of the owner and one term, and are waited for about
 *       as long: who has little time does not end the wait of others.
 *   I3  An owner that does not know store.commits is sent them one by one, and so is, at once,
 *       what an owner leaves out of its answer to the others (STATUS_AGAIN).
 *
 * A commit that may have happened may be made again: the owner finds what the first one made.
 *
 * Limits:  one for each item of the client's calls and sessions. Threads: the env's loop thread. */
#ifndef STORE_CLIENT_COMMIT_H
#define STORE_CLIENT_COMMIT_H

#include <stdint.h>

#include "base/status.h"

struct client_commits; /* opaque */
struct env;
struct rpc_client;
struct store_commit;

enum { COMMIT_VALUES_MAX = 512, COMMIT_BYTES_MAX = 16 << 20 };

MUST_USE enum status client_commits_create(struct env *env, struct client_commits **out);
/* At most so many values with one message, 1..COMMIT_VALUES_MAX; with 1 it is a client of before.
 */
void client_commits_limit(struct client_commits *commits, uint32_t values_max);
/* Values that were sent with others, ever. */
uint64_t client_commits_together(const struct client_commits *commits);
/* The connections are gone, or go before the loop turns. Nobody is called back any more. NULL is
 * allowed. */
void client_commits_destroy(struct client_commits *commits);
/* From now on nobody is called back: their connections are about to end. */
void client_commits_close(struct client_commits *commits);

/* All of `commit`, which is to be encoded, is copied. STATUS_FULL: no memory, and on_end is not
 * called. */
MUST_USE enum status client_commits_add(struct client_commits *commits, struct rpc_client *owner,
                                        const struct store_commit *commit, uint64_t until_ns,
                                        void (*on_end)(void *ctx, enum status status), void *ctx);

#endif
