/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_shell.h - the master as a process: the directory (store/master.h) behind RPC.
 *
 * Carries requests to the state machine and its actions to the nodes; decides nothing itself. A put
 * that has to wait for an eviction is answered STATUS_AGAIN, and its client asks again; the end of
 * one that waits for what it has replaced to go is answered when that has gone
 * (store/master_ends.h).
 * Threads: the env's loop thread. Limits: 1,024 watchers; a watcher that reads slowly is ended and
 * starts over. */
#ifndef STORE_MASTER_SHELL_H
#define STORE_MASTER_SHELL_H

#include <stdint.h>

#include "base/status.h"
#include "store/master.h"

struct env;
struct rpc_server;
struct store_master_shell; /* opaque */
struct master_tally;

struct store_master_shell_options {
    struct env *env;
    struct rpc_server *server;          /* `master.*` methods are added to it; outlives the shell */
    const char *secret;                 /* of the cluster, for calls to nodes; "" for none */
    struct store_master_options master; /* term and seed 0: from the clock and from chance */
};

MUST_USE enum status store_master_shell_create(const struct store_master_shell_options *options,
                                               struct store_master_shell **out, struct errmsg *err);
void store_master_shell_destroy(struct store_master_shell *shell); /* NULL is allowed */

/* The directory, for metrics and tests. */
struct store_master *store_master_shell_directory(struct store_master_shell *shell);

/* The requests answered so far; lives as long as the shell. */
const struct master_tally *store_master_shell_tally(const struct store_master_shell *shell);

#endif
