/* SPDX-License-Identifier: Apache-2.0
 *
 * store/tombs.h - what a directory remembers of keys that it does not know any more: below which
 * rank (store/rank.h) nothing of them may come back.
 *
 * A node that was away, or a commit that is late, may bring a value that was replaced or removed
 * meanwhile. The newest TOMBS_KEYS_MAX keys or so are remembered; an older one gives way to a newer
 * one of its set. Two keys in 2^24 of one set are taken for one, which costs a value, never shows
 * an old one. Of ranks of more than TOMBS_TERMS_MAX terms the later ones keep their versions only.
 *
 * Memory:  none until the first key; then TOMBS_KEYS_MAX * 8 bytes, touched as they are used.
 * Threads: one. */
#ifndef STORE_TOMBS_H
#define STORE_TOMBS_H

#include <stdint.h>

#include "base/key.h"
#include "store/rank.h"

enum { TOMBS_WAYS = 8, TOMBS_KEYS_MAX = 1 << 19, TOMBS_TERMS_MAX = 255 };

struct tomb; /* private */

struct tombs {
    struct tomb *list;               /* sets of TOMBS_WAYS, the newest first; NULL: none */
    uint64_t terms[TOMBS_TERMS_MAX]; /* as they came */
    uint32_t terms_count;
};

void tombs_fini(struct tombs *tombs);

/* From now on nothing below `rank` may come back; never lowered. Without memory it may. */
void tombs_raise(struct tombs *tombs, const struct block_key *id, struct rank rank);

/* All zero: whatever comes is welcome. */
struct rank tombs_floor(const struct tombs *tombs, const struct block_key *id);

#endif
