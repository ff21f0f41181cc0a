/* SPDX-License-Identifier: Apache-2.0
 *
 * store/verified.h - which pieces of values lie where with the bytes they should have: what this
 * process has hashed, in memory it shares with their owners, and found right. A re-read of such a
 * piece need not hash it again.
 *
 * A piece is known by its owner's start, the value's generation there, where it lies, how long it
 * is, and its checksum. An owner never gives a generation twice, and a value's bytes stay where and
 * what they are as long as it has it: another value in the same range, another one under the same
 * key, and an owner that was started again are other pieces, and have never been verified.
 *
 *   I1  A piece is said to be verified only if one that is equal in all five was added, less than
 *       VERIFIED_TRUST_NS ago. So what an owner's memory does to bytes by itself is found by
 *       re-reads, but late.
 *
 * What was added may be forgotten at any time, for others: a set of VERIFIED_WAYS places is found
 * by the hash of the identity, and what was asked for longest ago leaves it.
 *
 * Memory:  48 bytes a piece, at most 3 MiB, touched as it is used.
 * Threads: one.
 * Limits:  VERIFIED_PIECES; in pieces of 64 KiB, 4 GiB of values. */
#ifndef STORE_VERIFIED_H
#define STORE_VERIFIED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/status.h"

struct verified; /* opaque */

enum { VERIFIED_PIECES = 1 << 16, VERIFIED_WAYS = 4 };
#define VERIFIED_TRUST_NS (60 * ENV_NS_PER_S)

struct verified_piece {
    uint64_t owner;      /* its transfer engine's generation: another one at each start */
    uint64_t generation; /* of the value, at its owner; not 0 */
    uint64_t address;    /* at its owner */
    uint64_t sum;        /* XXH3-64 of the bytes */
    uint32_t len;        /* bytes, > 0 */
};

/* STATUS_NO_MEMORY. */
MUST_USE enum status verified_create(struct verified **out);
void verified_destroy(struct verified *verified); /* NULL is allowed */

/* The bytes of the piece have been hashed, at `now_ns`. */
void verified_add(struct verified *verified, const struct verified_piece *piece, uint64_t now_ns);

/* See I1. */
bool verified_has(struct verified *verified, const struct verified_piece *piece, uint64_t now_ns);

#endif
