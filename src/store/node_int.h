/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_int.h - the inside of a node, shared by node.c (pages, pins), node_events.c (the log
 * and its listeners), node_put.c (values put by key), node_copy.c (their copies), node_doubt.c (a
 * look at those that were wrong for a reader) and fetch.c. */
#ifndef STORE_NODE_INT_H
#define STORE_NODE_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "store/events.h"
#include "store/node.h"
#include "store/node_doubt.h"
#include "store/node_trust.h"
#include "store/objects.h"
#include "store/peers.h"
#include "store/pool.h"
#include "store/traffic.h"

struct board;
struct commit_wait;
struct rpc_call;
struct store_commit;
struct rpc_client;
struct buf;

enum { NODE_LOG_SIZE = 16384 }; /* events remembered for listeners: half a MiB */

/* What a log entry says; the rest is looked up when it is sent. */
struct log_entry {
    struct block_key id;
    uint64_t generation;
    uint8_t kind;
    uint8_t class;
};

struct event_stream; /* node_events.c */
struct node_copy;    /* node_copy.c */
struct put_end;      /* node_ends.c */
struct node_tier;    /* node_tier.c */
struct node_values;  /* node_values.c */

struct store_node {
    struct env *env;
    struct traffic traffic; /* bytes for readers, writers and other nodes */
    struct yolk_transfer *transfer;
    struct store_peers *peers;
    struct store_layout layout;
    struct pool *pool;
    struct objects *objects;
    uint8_t *slab;         /* pages, then the object region */
    uint64_t object_size;  /* of the region that is lent */
    uint64_t staging_size; /* behind it: for values from the disk */
    uint64_t epoch;
    uint64_t generation; /* of the last commit, of pages and objects alike */
    uint64_t term;       /* the highest heard; 0: none */
    uint64_t term_found; /* the highest of the values that were on its disk; 0: none */
    struct node_trust trust;
    struct board *board; /* NULL: readers of this host ask, as all others do */
    uint32_t lease_ms;
    uint32_t pins_max;
    struct env_timer expire_timer;

    struct log_entry *log; /* entry of event s at s % NODE_LOG_SIZE */
    uint64_t log_next;     /* sequence of the next event, from 1 */
    struct event_stream *streams;
    struct env_timer pump_timer;

    struct rpc_client *master; /* NULL: not joined */
    char name[STORE_NAME_SIZE];
    struct node_tier *tier;     /* NULL: no disk */
    struct node_values *values; /* NULL: none below values */
    uint64_t disk_misses_total;

    struct put_end *put_ends;  /* all commits that the master has not answered (node_ends.c) */
    struct put_end *put_ready; /* of these, the next batch: its first and its last */
    struct put_end *put_ready_last;
    uint32_t put_ends_count;
    bool put_ends_asked; /* a batch is under way */
    struct env_timer put_timer;

    /* What the master's clock was, at most, when it was asked; of the term heard last. */
    struct node_master_clock {
        uint64_t term; /* 0: it has not said */
        uint64_t asked_ns;
        uint64_t clock_ns;
    } master_clock;
    struct node_copy *copies; /* of values of ours, to other nodes */
    uint32_t copies_count;

    struct node_doubts doubts; /* of values of ours (node_doubt.c) */

    struct store_fetch *fetches;
    uint32_t fetches_count;
    uint32_t fetches_max;
    uint64_t fetched_blocks_total;
    uint64_t fetched_bytes_total;
    uint64_t fetch_missed_blocks_total;
    uint64_t corrupt_total;
    bool closing;
};

uint64_t node_region_address(const struct store_node *node);

/* STATUS_INVALID for one that is none, STATUS_STALE for one lower than one heard before. A higher
 * one fences what writers of older terms still send, ends what older masters listen to, and lends
 * the region anew. 0 is no term. */
MUST_USE enum status store_node_see_term(struct store_node *node, uint64_t term);

/* The connection over which commits are told to the master; NULL when it is going away. */
void store_node_set_master(struct store_node *node, struct rpc_client *master, const char *name);

/* What is to be announced of the value now. */
struct store_attributes node_attributes(const struct store_node *node, const struct object *object);

/* To be called when the trust has changed, before anybody hears of that: for the board. */
void node_trust_changed(struct store_node *node);

/* Makes sure that the timer that ends pins runs by then. */
void node_expire_by(struct store_node *node, uint64_t deadline_ns);

/* ---- node_events.c ---- */

MUST_USE enum status node_events_init(struct store_node *node);
void node_events_fini(struct store_node *node);
void node_log(struct store_node *node, enum store_event_kind kind, enum store_class class,
              const struct block_key *id, uint64_t generation);
void node_handle_events(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
/* Ends the streams of masters of lower terms. */
void node_events_fence(struct store_node *node);

/* ---- node_put.c ---- */

void node_handle_commit(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
void node_handle_commits(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
void node_handle_mark(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
void node_handle_drop(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
/* No byte of a writer of the last term can land any more: drops what one of them has written over.
 * That can be only what no master has answered for: it was committed again, or so late that the
 * range was another's. The master would have refused it, but may have died before. */
void node_put_fence(struct store_node *node);

/* ---- node_ends.c ---- */

void node_ends_init(struct store_node *node);
/* Ends the calls of clients that still wait. */
void node_ends_fini(struct store_node *node);

/* The master is to hear of what was committed; then value `index` of the wait is settled. It is
 * asked by node_ends_ask(), once for all that were added. STATUS_FULL: too many wait. */
MUST_USE enum status node_ends_add(struct store_node *node, struct commit_wait *wait,
                                   uint32_t index, const struct store_commit *commit,
                                   const struct object *object);
void node_ends_ask(struct store_node *node);

/* The master knew this put, and had it moved down; its range may be another's by now. Only of puts
 * of this life: of what was found on the disk nobody may know. */
bool node_ends_moved_down(const struct store_node *node, const struct block_key *id,
                          uint64_t put_id);

/* ---- node_copy.c ---- */

/* After the peers' connections have ended. */
void node_copy_fini(struct store_node *node);
void node_handle_copy(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);

/* ---- fetch.c ---- */

void node_fetch_fini(struct store_node *node);

/* The digest of a committed page: what its events carry. */
uint64_t node_page_digest(const struct store_node *node, struct store_page page);

/* Answers store.acquire with what is in the pages. */
void node_acquire_reply(struct store_node *node, struct rpc_call *call, const uint8_t *body,
                        size_t len);

/* Ends the call with what the buffer holds, or with the failure that filling it met. Ends the
 * buffer. */
void node_reply(struct rpc_call *call, struct buf *buf, enum status status);

#endif
