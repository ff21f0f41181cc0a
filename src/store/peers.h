/* SPDX-License-Identifier: Apache-2.0
 *
 * store/peers.h - one RPC connection to each process that is called from here, made on first use.
 *
 * Threads: the env's loop thread.
 * Limits:  STORE_PEERS_MAX addresses, for the life of the table; a full one refuses. */
#ifndef STORE_PEERS_H
#define STORE_PEERS_H

#include "base/status.h"

struct env;
struct rpc_client;
struct store_peers; /* opaque */

enum { STORE_PEERS_MAX = 1024 };

/* `secret` and `name` are copied. STATUS_NO_MEMORY. */
MUST_USE enum status store_peers_create(struct env *env, const char *secret, const char *name,
                                        struct store_peers **out);

/* Every call in flight ends with STATUS_CANCELLED from inside. NULL is allowed. */
void store_peers_destroy(struct store_peers *peers);

/* Borrowed: valid until store_peers_destroy(). STATUS_INVALID for an address that does not
 * parse, STATUS_FULL at the limit. */
MUST_USE enum status store_peers_get(struct store_peers *peers, const char *address,
                                     struct rpc_client **out);

#endif
