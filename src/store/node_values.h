/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_values.h - the disk below the values that a node holds for the master. Inside of a
 * node, see node_int.h.
 *
 *            commit                write-behind
 *   client ----------> lent memory -------------> disk (store/vlog.h)
 *                          |  evicted by the          |
 *                          |  master: stays below     | asked for
 *                          v                          v
 *                        (range is free)        staging memory ----> readers
 *
 * Every value committed is queued and written. When the master takes its memory away to make room
 * (store.drop that evicts), the value stays on disk, and is announced as STORED there; one that is
 * not written yet is written first, and the master waits. Whoever asks for it has it read and
 * verified into the staging memory, an eighth of what the node would otherwise lend, where it stays
 * until room is wanted: what was asked for less often lately than the one it displaced goes first.
 *
 * A value removed, replaced or refused is dropped from the disk too. One whose place on the disk is
 * given up while it is in memory is written again, for at most a quarter of the bytes written.
 *
 *   I1  A value is in `objects` at most once: in lent memory, or in staging memory.
 *   I2  What is staged, or only on disk, is announced as being on disk, with the generation of its
 *       entry in the log.
 *
 * Threads: the env's loop thread.
 * Limits:  values that fit the staging memory; larger ones stay in memory only. */
#ifndef STORE_NODE_VALUES_H
#define STORE_NODE_VALUES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "store/node.h"
#include "store/objects.h"
#include "store/proto.h"

struct node_values; /* opaque */
struct rpc_call;
struct vlog;
struct vlog_entry;

enum { NODE_STAGING_SHARE = 8, NODE_VALUES_QUEUE_MAX = 65536, NODE_VALUE_PROMOTES_MAX = 1024 };

/* After the manifests. vlog_open()'s statuses. */
MUST_USE enum status node_values_open(struct store_node *node,
                                      const struct store_node_options *options, struct errmsg *err);
/* Values of up to so many bytes are on the disk when the node is back; 0: none are. */
uint64_t node_values_keeps_max(const struct store_node *node);

/* No disk is allowed. `drain`: what waits is written first, for a second at most. */
void node_values_close(struct store_node *node, bool drain);

/* All of the rest does nothing, or says no, where there is no disk. */

/* A value on disk, and not in lent memory; NULL else. */
const struct vlog_entry *node_values_find(const struct store_node *node,
                                          const struct block_key *id);
/* Values on disk, one after the other; see vlog_next(). */
const struct vlog_entry *node_values_next(const struct store_node *node, uint64_t *cursor);

bool node_values_staged(const struct store_node *node, const struct object *object);

/* What objects.c tells: true if that is all there is to say of it. */
bool node_values_stored(struct store_node *node, const struct object *object);
bool node_values_removed(struct store_node *node, const struct object *object);

void node_values_touch(struct store_node *node, const struct object *object);

/* The value on disk is this one or a newer one. */
bool node_values_newer(const struct store_node *node, const struct block_key *id,
                       const struct store_attributes *attributes);
/* It is no more: removed, replaced or refused. */
void node_values_drop(struct store_node *node, const struct block_key *id);

/* store.drop to make room. True: it is answered, now or later. */
bool node_values_evict(struct store_node *node, struct rpc_call *call,
                       const struct store_drop *drop);

/* If values that are asked for are on disk only: reads them, then answers with
 * node_acquire_reply(). False: there is nothing to read, or no room. */
bool node_values_promote(struct store_node *node, struct rpc_call *call, const uint8_t *body,
                         size_t len, const struct store_acquire *request);

/* Begins to bring it up, for somebody who will ask again. */
void node_values_prefetch(struct store_node *node, const struct block_key *id);

void node_values_counts(const struct store_node *node, struct store_node_counts *out);
void node_values_check(const struct store_node *node);

#endif
