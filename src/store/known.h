/* SPDX-License-Identifier: Apache-2.0
 *
 * store/known.h - what a client remembers of values it has read: who has them, where, and their
 * checksums. Inside of a client.
 *
 * Who remembers a value need not ask the master for it: it asks the owner alone, who knows whether
 * that is still so, and reads the bytes at the same time; or it looks at the owner's board. A value
 * is remembered for STORE_KNOWN_MS from when the master was asked, and no longer: owners vouch on
 * that promise (store/node_trust.h).
 *
 * A table of sets: what is added displaces, of its set, what ends first. Who looks for many values
 * announces each: what is remembered has mostly left the caches since it was read.
 *
 * Memory:  of a value some 300 bytes and 8 for each checksum, not given back before the end.
 * Threads: the env's loop thread.
 * Limits:  KNOWN_VALUES_MAX values of up to KNOWN_SUMS_MAX checksums; of larger ones the exchange
 *          with the master is a small part of a get. */
#ifndef STORE_KNOWN_H
#define STORE_KNOWN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "store/proto.h"

struct known; /* opaque */

enum { KNOWN_VALUES_MAX = 8192, KNOWN_SUMS_MAX = 256 };

struct known_value {
    struct block_key id;
    struct store_reply_node node;
    uint64_t address; /* there */
    uint64_t size;    /* bytes */
    uint32_t piece_size;
    uint32_t sums_count; /* > 0 */
    uint64_t until_ns;
    bool stamped;   /* the owner's board was seen when it was asked */
    uint32_t stamp; /* what it said then (store/board.h) */
};

/* STATUS_NO_MEMORY. */
MUST_USE enum status known_create(struct known **out);
/* NULL is allowed. */
void known_destroy(struct known *known);

/* Takes copies; nothing happens if there are too many sums, or no memory. It replaces what was
 * remembered of the value. */
void known_put(struct known *known, const struct known_value *value, const uint64_t *sums);

/* NULL: nothing is remembered, or not any more. Borrowed, as *sums are, until the next known_put()
 * or known_forget(). */
const struct known_value *known_find(const struct known *known, const struct block_key *id,
                                     uint64_t now_ns, const uint64_t **sums);

/* It will be looked for soon: its place comes from memory meanwhile, and then itself. */
void known_expect(const struct known *known, const struct block_key *id);
void known_expect_value(const struct known *known, const struct block_key *id);

/* It was read once more. */
void known_read(struct known *known, const struct block_key *id);
/* How often, since it was put or this was asked; 0, too, once it is forgotten. */
uint32_t known_reads_take(struct known *known, const struct block_key *id);

void known_forget(struct known *known, const struct block_key *id);

#endif
