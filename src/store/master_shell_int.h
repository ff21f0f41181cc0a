/* SPDX-License-Identifier: Apache-2.0
 *
 * store/master_shell_int.h - the inside of a master's shell, between the files that answer for it:
 *
 *   master_shell.c  members, single calls, carrying out what the directory wants, life
 *   master_batch.c  the hot calls, which name many keys
 *   master_nodes.c  what the directory wants of nodes
 *   master_watch.c  who wants to hear of every member
 *   master_task_serve.c  copies and moves that are asked for (store/master_task.h)
 *
 * A handler ends with master_shell_act(), after which what it has in hand may be gone. Threads: the
 * env's loop thread. */
#ifndef STORE_MASTER_SHELL_INT_H
#define STORE_MASTER_SHELL_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/env.h"
#include "store/master.h"
#include "store/master_look.h"
#include "store/master_shell.h"
#include "store/master_tally.h"
#include "store/proto.h"

struct listener; /* master_nodes.c */
struct master_ends;
struct master_removals;
struct rpc_call;
struct rpc_server;
struct store_peers;
struct watcher; /* master_watch.c */

/* A get's or put_start's reply while it is put together. Kept from call to call, unless a large one
 * has made it large. */
struct places {
    uint32_t count;        /* items there is room for */
    uint32_t replicas_max; /* replicas there is room for */
    uint32_t *codes;
    uint64_t *numbers; /* get: sizes; put_start: put ids */
    uint32_t *counts;  /* get: replicas of each item; put_start: versions */
    bool versions;     /* one of them is not 0 */
    uint32_t *nodes;   /* of each replica: place in the list */
    uint64_t *addresses;
    uint32_t *yields; /* get: whether readers near by are to go elsewhere, too */
    bool yielding;    /* some are */
    uint32_t *flags;  /* get: whether it is on disk; put_start: what it replaces is pinned */
    bool flagged;     /* one of them is */
    uint32_t replicas_count;
    struct store_reply_node *node_list;
    struct store_node_id node_ids[STORE_REPLY_NODES_MAX];
    uint32_t nodes_count;
};

struct store_master_shell {
    struct env *env;
    struct store_master *master;
    struct store_peers *peers;
    char *secret;
    struct listener *listeners;
    struct watcher *watchers;
    uint32_t watchers_count;
    struct env_timer tick;
    struct master_look look;
    struct master_ends *ends;
    struct master_removals *removals;
    struct master_tally tally;
    uint64_t memory_most; /* the directory had, since some was given back */
    struct places places;
    struct buf answer; /* of a batch, while it is put together; kept as `places` is */
    uint32_t *codes;   /* likewise; CODES_KEPT of them */
    bool closing;
};

static inline uint64_t master_shell_now(const struct store_master_shell *shell)
{
    return env_now_ns(shell->env);
}

/* Carries out all that the directory wants done. */
void master_shell_act(struct store_master_shell *shell);

/* ---- master_batch.c ---- */

MUST_USE enum status master_batch_init(struct store_master_shell *shell);
void master_batch_fini(struct store_master_shell *shell);
void master_batch_serve(struct store_master_shell *shell, struct rpc_server *server);

/* ---- master_task_serve.c ---- */

void master_task_serve(struct store_master_shell *shell, struct rpc_server *server);

/* ---- master_nodes.c: each carries out one action ---- */

void master_nodes_listen(struct store_master_shell *shell, const struct store_action *action);
void master_nodes_forget(struct store_master_shell *shell, struct store_node_id node);
void master_nodes_drop(struct store_master_shell *shell, const struct store_action *action);
void master_nodes_copy(struct store_master_shell *shell, const struct store_action *action);
void master_nodes_mark(struct store_master_shell *shell, const struct store_action *action);
/* The registered life of the node is connected. */
bool master_nodes_heard(const struct store_master_shell *shell, struct store_node_id node);
void master_nodes_fini(struct store_master_shell *shell);

/* ---- master_watch.c ---- */

void master_watch_handle(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
void master_watch_tell(struct store_master_shell *shell, const struct store_action *action);
/* Ends the calls of all of them. */
void master_watch_fini(struct store_master_shell *shell);

#endif
