/* SPDX-License-Identifier: Apache-2.0
 *
 * store/member.h - being a member of the cluster, and watching who else is.
 *
 * A node joins by registering at the master and then beats. The master suspects a member that is
 * silent for `suspect_ms` and calls it dead after `dead_ms`; a member that comes back under the
 * same epoch is alive again with all it had, a new epoch is a new life. A master that has restarted
 * knows nobody and answers so; the node registers again by itself.
 *
 *             registered                silent                silent
 *     (none) -----------> ALIVE <--------------> SUSPECT --------------> DEAD -> forgotten
 *                           ^        heard                                |
 *                           +---------------------------------------------+ heard, or registered
 *
 * Threads: the env's loop thread.
 * Limits:  STORE_MEMBERS_MAX members. */
#ifndef STORE_MEMBER_H
#define STORE_MEMBER_H

#include <stdint.h>

#include "base/status.h"
#include "store/layout.h"

struct env;
struct store_node;
struct store_member; /* opaque */
struct store_watch;  /* opaque */

enum {
    STORE_MEMBERS_MAX = 1024,
    STORE_NAME_SIZE = 64,     /* with the NUL */
    STORE_ADDRESS_SIZE = 128, /* with the NUL */
    STORE_FINGERPRINT_SIZE = 32,
};

enum store_role {
    STORE_ROLE_PREFILL = 1,
    STORE_ROLE_DECODE = 2,
    STORE_ROLE_STORE = 3, /* lends memory only */
    STORE_ROLE_BOTH = 4,  /* prefills and decodes */
};

enum store_member_state {
    STORE_MEMBER_ALIVE = 1,
    STORE_MEMBER_SUSPECT = 2,
    STORE_MEMBER_DEAD = 3,
};

struct store_member_info {
    char name[STORE_NAME_SIZE]; /* unique in the cluster: a second one of the same name replaces it
                                 */
    enum store_role role;
    char rpc_address[STORE_ADDRESS_SIZE];
    char segment[STORE_ADDRESS_SIZE];            /* transfer segment name */
    uint8_t fingerprint[STORE_FINGERPRINT_SIZE]; /* of the model; zero for STORE_ROLE_STORE */
    struct store_layout layout;
    uint64_t epoch; /* store_node_epoch() */
    bool draining;  /* an earlier master was told that it is to leave */
};

const char *store_role_name(enum store_role role);
const char *store_member_state_name(enum store_member_state state);

/* ---- joining ---- */

struct store_join_options {
    struct env *env;
    const char *master; /* RPC address; copied */
    const char *secret; /* copied */
    struct store_member_info info;
    struct store_node
        *node;        /* whose extents are lent and whose terms are kept; outlives the member */
    uint32_t beat_ms; /* 0: 500 */
    /* Optional. Registered (again): the master knows us, under this term. */
    void (*on_joined)(void *ctx, uint64_t term);
    void *ctx;
};

/* Starts registering; retries for ever with backoff. STATUS_INVALID: an address or name that does
 * not parse. */
MUST_USE enum status store_join(const struct store_join_options *options, struct store_member **out,
                                struct errmsg *err);

/* STATUS_OK: a master knows us; STATUS_AGAIN: not yet; else why the last that was asked refused us
 * (STATUS_EXISTS: the name is taken). Registering goes on in any case. */
enum status store_joined(const struct store_member *member);

/* The node is about to leave: values that only it has, and not on its disk, are copied to others.
 * on_end runs once, from the loop: when none is left that has a place to go, or the master cannot
 * say. The caller limits the time: store_leave() ends it, and on_end does not run then. Once. */
void store_unmount(struct store_member *member, void (*on_end)(void *ctx, enum status status),
                   void *ctx);

/* Tells the master (best effort) and stops. NULL is allowed. */
void store_leave(struct store_member *member);

/* ---- watching ---- */

struct store_watch_options {
    struct env *env;
    const char *master; /* RPC address; copied */
    const char *secret; /* copied */
    /* A member is new, or something of it has changed: state, epoch, addresses. */
    void (*on_member)(void *ctx, const struct store_member_info *info,
                      enum store_member_state state);
    /* The member is gone for good: forget it. */
    void (*on_gone)(void *ctx, const char *name);
    void *ctx;
};

/* Every known member comes through on_member first, then changes. When the master is away nothing
 * is reported: the last view stays. After its return members it does not know yet are reported gone
 * only when they have not registered within STORE_WATCH_GRACE_MS. */
enum { STORE_WATCH_GRACE_MS = 10000 };
MUST_USE enum status store_watch(const struct store_watch_options *options,
                                 struct store_watch **out, struct errmsg *err);

/* No callback runs after it. NULL is allowed. */
void store_unwatch(struct store_watch *watch);

#endif
