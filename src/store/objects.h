/* SPDX-License-Identifier: Apache-2.0
 *
 * store/objects.h - the values that clients put at this node: where they lie in the lent region,
 * their checksums, and who reads them. The second half of the manifest, beside store/pool.h. No
 * I/O.
 *
 * The master hands out ranges of the region; the node only checks that a value lies inside,
 * overlaps no other, and comes with the right number of checksums. A value that is pinned is not
 * dropped.
 *
 * Memory:  a value costs its key, its checksums and about 100 bytes; freed when it is dropped.
 * Threads: one.
 * Limits:  OBJECTS_MAX values, pins_max pins. */
#ifndef STORE_OBJECTS_H
#define STORE_OBJECTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "store/master.h"

struct objects; /* opaque */

enum {
    OBJECTS_MAX = 1 << 24,
    OBJECT_GRANULE = 4096, /* values start at multiples of it */
};

struct object {
    struct block_key id; /* store_key_id() */
    struct store_key key;
    uint64_t address;
    uint64_t size;
    uint64_t generation;
    uint64_t put_id;
    struct store_attributes attributes; /* soft_pin_ms as it was at first */
    uint64_t soft_until_ns;             /* 0: no soft pin */
    uint64_t digest;                    /* XXH3-64 of the sums */
    uint64_t *sums;                     /* one a piece of STORE_PIECE_SIZE */
    uint32_t sums_count;
    uint32_t pins;
    uint32_t slot; /* private */
    bool settled;  /* a master has said that the range is its own */
};

struct objects_options {
    uint64_t address; /* of the region; a multiple of OBJECT_GRANULE */
    uint64_t size;    /* 0: nothing can be put */
    uint32_t pins_max;
    uint64_t seed;
    void (*on_stored)(void *ctx, const struct object *object);
    void (*on_removed)(void *ctx, const struct object *object);
    void *ctx;
};

MUST_USE enum status objects_create(const struct objects_options *options, struct objects **out);
void objects_destroy(struct objects *objects); /* NULL is allowed */

/* `wanted`: key, address, size, generation, put_id, attributes, soft_until_ns, settled; the key is
 * copied. `sums` are copied.
 * STATUS_INVALID: outside the region or misaligned; STATUS_EXISTS: the key has a value of no
 * lower rank (*out is it; store/rank.h); one of a lower rank is dropped first. STATUS_BUSY: that
 * one is pinned, or the range overlaps another value; STATUS_FULL. */
MUST_USE enum status objects_put(struct objects *objects, const struct object *wanted,
                                 const uint64_t *sums, uint32_t sums_count,
                                 const struct object **out);

/* NULL if there is none; borrowed until it is dropped. */
const struct object *objects_find(const struct objects *objects, const struct block_key *id);

/* Whether this piece of it, 0 to sums_count - 1, still has the bytes it was put with. */
bool object_piece_right(const struct object *object, uint32_t piece);

/* What is wished changed. STATUS_NOT_FOUND: no value, or of another generation. */
MUST_USE enum status objects_mark(struct objects *objects, const struct block_key *id,
                                  uint64_t generation, uint32_t replicas);

/* A master knows of it, and has given its range to nobody else. Nothing if there is no such value,
 * or of another generation. */
void objects_settle(struct objects *objects, const struct block_key *id, uint64_t generation);
uint32_t objects_unsettled(const struct objects *objects);

/* It is being copied for its heat, and announced so from now on. It is a value that is there. */
void objects_mark_hot(struct objects *objects, const struct object *object);

/* STATUS_BUSY: pinned. STATUS_NOT_FOUND: no value, or of another generation. */
MUST_USE enum status objects_drop(struct objects *objects, const struct block_key *id,
                                  uint64_t generation);

/* The first value at or after slot *next, which moves on; NULL at the end. Values put while walking
 * may be missed, those dropped are not returned. */
const struct object *objects_next(const struct objects *objects, uint32_t *next);

uint32_t objects_count(const struct objects *objects);

/* Pins for reading, until `expires_ns`. Ids never collide with those of a pool. */
MUST_USE enum status objects_pin(struct objects *objects, const struct object *const *list,
                                 uint32_t count, uint64_t expires_ns, uint64_t *out);
MUST_USE enum status objects_repin(struct objects *objects, uint64_t pin, uint64_t expires_ns);
MUST_USE enum status objects_unpin(struct objects *objects, uint64_t pin);
/* Ends what is over; returns when the next will be, ENV_NEVER if none. */
uint64_t objects_expire(struct objects *objects, uint64_t now_ns);

#endif
