/* SPDX-License-Identifier: Apache-2.0
 *
 * store/reading.h - the bytes of a get from memory of this host: seen where they are, copied and
 * verified on the way, a part per turn of the loop. Inside of a client.
 *
 * A value in the own segment, or in that of another process of this host, needs no transfer: the
 * engine lends a look at it (yolk_transfer_borrow()). Each piece is copied and, in the same go,
 * hashed: what is hashed is what was written, whatever the owner's memory becomes meanwhile. What
 * waits at one time, if it is more than a second-level cache holds, is written past the caches. A
 * piece of which only a part is wanted goes through memory of ours.
 *
 * Pages that this process has not read before have to be mapped: up to a MiB of what waits by the
 * loop, at once, because that is sooner done than asked for; the rest by a thread beside it, and
 * with it as much of what lies behind as has been read in a row.
 *
 *   I1  A reading ends well only if every piece, as it was written, had its checksum, and its owner
 *       still offered the memory after the last one.
 *
 * Memory:  a reading lives in its asker's; ours is as much as the largest piece that was read in
 *          part.
 * Threads: the env's loop thread.
 * Limits:  YOLK_TRANSFER_LOANS_MAX readings under way; READING_TURN_SIZE bytes a turn. */
#ifndef STORE_READING_H
#define STORE_READING_H

#include <stdint.h>

#include "base/status.h"
#include "yolk/transfer.h"

struct env;
struct readings; /* opaque: those of one client */

enum { READING_TURN_SIZE = 4 << 20 };

/* A span of whole pieces of a value; the last one of the value may be shorter. */
struct reading {
    uint64_t owner;       /* generation of the owner's engine */
    uint64_t address;     /* of the span, there */
    uint64_t len;         /* of the span, bytes, > 0 */
    uint32_t piece_size;  /* > 0 */
    const uint64_t *sums; /* of its pieces; the asker's until the end */
    uint64_t skip;        /* bytes of the span before those wanted; less than a piece */
    uint64_t want;        /* bytes, > 0; what is left of the span is less than a piece */
    uint8_t *to;          /* the asker's, `want` bytes */
    /* The end, once, from the loop. STATUS_OK: `to` has the bytes; STATUS_CORRUPT: what was there
     * is not what the sums say; STATUS_UNAVAILABLE: the owner has withdrawn the memory. */
    void (*on_end)(void *ctx, enum status status);
    void *ctx;

    struct reading *next; /* the rest is private */
    struct yolk_transfer_segment segment;
    struct yolk_transfer_loan loan;
    uint64_t done;
    uint64_t touched; /* bytes */
};

/* STATUS_NO_MEMORY. `env` and `transfer` outlive it, but see readings_destroy(). */
MUST_USE enum status readings_create(struct env *env, struct yolk_transfer *transfer,
                                     struct readings **out);
/* Those under way never end. The engine is not touched: it may be gone, or is about to be. NULL is
 * allowed. */
void readings_destroy(struct readings *readings);

/* STATUS_OK: it will end. Anything else: it cannot be seen from here, or not yet; a transfer tells
 * more. `segment` names the owner's. */
MUST_USE enum status reading_start(struct readings *readings, const char *segment,
                                   struct reading *reading);

/* How many bytes were read since it was created. */
uint64_t readings_bytes(const struct readings *readings);

#endif
