/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_doubt.h - values of this node that somebody found to be wrong, and its own look at
 * them. Inside of a node.
 *
 * A reader that gets wrong bytes twice from one owner says so to it (store.doubt), and so does a
 * copy that its target refuses. Nothing follows from the word alone, which may be a liar's, or of
 * one whose own memory fails: the owner compares its memory with the checksums that the value was
 * committed with, and judges itself.
 *
 *      store.doubt         right, or gone
 *     ------------> LOOKED AT -----------> forgotten
 *                     | wrong: counted as a fault
 *                     v
 *                   WRONG ---------------> dropped, and announced so
 *             absent to readers    its pins have ended
 *
 * What is on the disk below is not touched: it is verified when it is read.
 *
 *   I1  A value is dropped here only if its own checksums say that its bytes are wrong.
 *   I2  However many doubts come, LOOK_SIZE bytes are hashed in LOOK_MS: a liar costs the owner a
 *       few hundredths of a core.
 *
 * Memory:  DOUBTS_MAX times 40 bytes, in the node. One more is forgotten: it will be told again.
 * Threads: the env's loop thread. */
#ifndef STORE_NODE_DOUBT_H
#define STORE_NODE_DOUBT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/env.h"
#include "base/key.h"

struct object;
struct rpc_call;
struct store_node;

enum { DOUBTS_MAX = 64 };

struct doubt {
    struct block_key id;
    uint64_t generation;
    uint32_t piece; /* the next to be looked at */
    bool wrong;
};

struct node_doubts {
    struct doubt list[DOUBTS_MAX];
    uint32_t count;
    struct env_timer timer;
    uint64_t looked_ns; /* when something was hashed last */
    uint64_t wrong_total;
};

void node_doubts_init(struct store_node *node);
void node_doubts_fini(struct store_node *node);

/* The value, if it is in memory, is looked at soon. */
void node_doubt(struct store_node *node, const struct block_key *id);

/* Known to be wrong, and not to be read any more. */
bool node_doubts_wrong(const struct store_node *node, const struct object *object);

/* store.doubt */
void node_handle_doubt(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);

#endif
