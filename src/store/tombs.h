/* SPDX-License-Identifier: Apache-2.0
 *
 * store/tombs.h - what a directory remembers of keys that it does not know any more: below which
 * version nothing of them may come back.
 *
 * A node that was away, or a commit that is late, may bring a value that was replaced or removed
 * meanwhile. The newest TOMBS_KEYS_MAX keys or so are remembered; an older one gives way to a newer
 * one of its set. Two keys in 2^32 of one set are taken for one, which costs a value, never shows
 * an old one.
 *
 * Memory:  none until the first key; then TOMBS_KEYS_MAX * 8 bytes, touched as they are used.
 * Threads: one. */
#ifndef STORE_TOMBS_H
#define STORE_TOMBS_H

#include <stdint.h>

#include "base/key.h"

enum { TOMBS_WAYS = 8, TOMBS_KEYS_MAX = 1 << 19 };

struct tomb; /* private */

struct tombs {
    struct tomb *list; /* sets of TOMBS_WAYS, the newest first; NULL: none */
};

void tombs_fini(struct tombs *tombs);

/* From now on nothing below `version` may come back. Without memory it may. */
void tombs_raise(struct tombs *tombs, const struct block_key *id, uint32_t version);

/* 0: whatever comes is welcome. */
uint32_t tombs_floor(const struct tombs *tombs, const struct block_key *id);

#endif
