/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_revoke.h - tickets given back to the master, many with one message. Inside of a
 * client.
 *
 * What is given back in one turn of the loop, by whichever calls, is sent in the next, as one
 * master.put_revokes; one alone, and all where the master does not know that, as master.put_revoke.
 * Nothing depends on the answer: what the master is not told of it discards by itself, later.
 *
 * Limits:  REVOKES_MAX in a message. Threads: the env's loop thread. */
#ifndef STORE_CLIENT_REVOKE_H
#define STORE_CLIENT_REVOKE_H

#include <stdint.h>

#include "base/status.h"

struct client_revokes; /* opaque */
struct env;
struct rpc_client;
struct store_put_revoke;

enum { REVOKES_MAX = 1024 };

/* `master` is borrowed. */
MUST_USE enum status client_revokes_create(struct env *env, struct rpc_client *master,
                                           struct client_revokes **out);
/* From now on nobody is called back: the connection is about to end. */
void client_revokes_close(struct client_revokes *revokes);
/* The connection is gone. NULL is allowed. */
void client_revokes_destroy(struct client_revokes *revokes);

/* `revoke` is copied. on_end, if not NULL, comes once the master has heard it, or will not any
 * more, at the latest at until_ns and 2 s from now. STATUS_FULL: no memory, and it does not come.
 */
MUST_USE enum status client_revokes_add(struct client_revokes *revokes,
                                        const struct store_put_revoke *revoke, uint64_t until_ns,
                                        void (*on_end)(void *ctx), void *ctx);

#endif
