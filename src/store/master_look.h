/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_look.h - the calls of those who look around at the master: master.look, master.stat,
 * master.tenants.
 *
 * A look shows, counts or removes one page of what a pattern means, and looks at a bounded number
 * of keys for it, so that nobody waits long behind it; who wants all of it asks again with the
 * cursor. Threads: the env's loop thread. */
#ifndef STORE_MASTER_LOOK_H
#define STORE_MASTER_LOOK_H

#include <stdint.h>

struct env;
struct master_removals;
struct master_tally;
struct rpc_server;
struct store_master;

enum { MASTER_LOOKS_MAX = 8192 }; /* keys looked at for one page */

struct master_look {
    struct env *env;
    struct store_master *master;
    struct master_removals *removals;
    struct master_tally *tally; /* where answers are counted */
    uint64_t started_ns;
    void (*act)(void *ctx); /* carries out what the directory wants done */
    void *ctx;
};

/* Adds the methods; `look` outlives the server's loop. */
void master_look_serve(struct master_look *look, struct rpc_server *server);

#endif
