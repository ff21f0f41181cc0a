/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_tier.h - the disk below a node's pages: what is committed is written behind, what was
 * evicted is loaded again. Inside of a node, see node_int.h.
 *
 * Every committed block is queued, and written when the disk has a buffer free; a page that is
 * evicted before its turn is dropped from the queue and counted. Nothing waits for the disk: a
 * queue that is full drops its oldest.
 *
 * Loading fills private pages with blocks of this node, from the disk or from other pages, layer by
 * layer in order, so that computing can begin; fetch.c makes it look like any other fetch.
 *
 * Threads: the env's loop thread. */
#ifndef STORE_NODE_TIER_H
#define STORE_NODE_TIER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "store/node.h"

struct node_load; /* opaque */
struct node_tier; /* opaque */
struct rpc_call;
struct ssd;
struct store_acquire;
struct store_node;

enum { NODE_QUEUE_MAX = 65536, NODE_LOAD_WINDOW = 16, NODE_PROMOTES_MAX = 16 };

/* Takes the disk over. ssd_open()'s statuses. */
MUST_USE enum status node_tier_open(struct store_node *node,
                                    const struct store_node_options *options, struct errmsg *err);
/* No tier is allowed. `drain`: pages are still there, and what waits is written first, for a second
 * at most. Loads under way are left to node_fetch_fini(). */
void node_tier_close(struct store_node *node, bool drain);

struct ssd *node_tier_ssd(const struct store_node *node); /* NULL: no disk */

/* False, or nothing, where there is no disk. */
bool node_tier_has(const struct store_node *node, const struct block_key *key);
void node_tier_touch(struct store_node *node, const struct block_key *key);
void node_tier_drop(struct store_node *node, const struct block_key *key);
/* A page got its identity: it is written when its turn comes. */
void node_tier_stored(struct store_node *node, struct store_page page);
/* Blocks on disk that are in no page, one after the other; see ssd_next(). */
bool node_tier_next(const struct store_node *node, uint64_t *cursor, struct block_key *key);
void node_tier_counts(const struct store_node *node, struct store_node_counts *out);
/* Was it loaded for somebody who will not come again soon? Then it goes first. */
void node_tier_admit(struct store_node *node, struct store_page page);

/* If blocks of a prefix lie on disk that a reader elsewhere asks for: brings them up, then answers
 * with node_acquire_reply(). False: there is nothing to bring up, or no room. */
bool node_tier_promote(struct store_node *node, struct rpc_call *call, const uint8_t *body,
                       size_t len, const struct store_acquire *request);

/* ---- loads ---- */

struct node_load_options {
    const struct block_key *keys;   /* borrowed until the end, like all here */
    const struct store_page *pages; /* private, referenced by the caller */
    uint64_t *sums;                 /* layers of block i to i * layers */
    uint32_t count;
    /* Layers [0, layers) of blocks [0, blocks) are there and right; like store_fetch_layer_fn.
     * `reason`: why it is not all blocks, if it is not. */
    void (*on_layers)(void *ctx, uint32_t layers, uint32_t blocks, enum store_miss reason);
    /* Once, from the loop, when nothing is on its way. Blocks [0, blocks) are complete. */
    void (*on_done)(void *ctx, uint32_t blocks, enum store_miss reason, uint64_t bytes);
    void *ctx;
};

/* STATUS_NOT_FOUND: not even the first block is here. STATUS_FULL. */
MUST_USE enum status node_load_start(struct store_node *node,
                                     const struct node_load_options *options,
                                     struct node_load **out);
/* on_done comes, without blocks, when nothing can land any more. */
void node_load_cancel(struct node_load *load);
/* The disk is closed: frees, calls nobody. */
void node_load_abandon(struct node_load *load);

#endif
