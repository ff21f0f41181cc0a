/* SPDX-License-Identifier: Apache-2.0
 *
 * store/rank.h - which of two values of a key replaces the other, whoever is heard first.
 *
 * A value has the term of the master that granted its put, and a version, which that master counts
 * up. Both are given once, with the ticket; the owner keeps them with the value, in memory, on
 * disk and in copies, and announces them. The later term wins, then the higher version:
 *
 *   master 7 grants K  -> (7, 0)  node a          a is cut off, and master 7 dies
 *   master 8 settles, and does not know of it
 *   master 8 grants K  -> (8, 0)  node b          acknowledged
 *   a returns with (7, 3), say: K was replaced there more often, and is older all the same
 *
 * Invariants
 *   R1  A master grants only ranks above all it knows of the key: its own term, and a version above
 *       those it has granted, or was told of, in that term (store/tombs.h for keys that are gone).
 *   R2  No node that has heard of a term takes a commit of an older one, and no master keeps a term
 *       that a node knows to be old: it takes a later one. So terms are in the order of time.
 *   R3  By both, a value that was put when another was acknowledged has the higher rank, although
 *       its master never heard of that one; so of two that are announced the higher is the newer,
 *       and the lower is dropped. A removal has a rank, too: all below it stay away.
 *
 * R2 has one hole: a master whose clock was set back grants under a term below one that only a node
 * it has not heard knows. When it hears that node, and takes a later term, what it granted before
 * counts as granted under that (master_rank()); the node's older values are dropped. The next
 * master does not know of this, if that one dies before they are.
 *
 * Term 0 is not known: the owner is of an earlier release, or the value was on its disk. Then both
 * are compared by version alone, as that release does, and by who is in doubt (store/node_trust.h).
 *
 * A rank says who wins when both are known. That nobody reads the lower one before the higher one's
 * owner is heard is I8 of store/master.c. */
#ifndef STORE_RANK_H
#define STORE_RANK_H

#include <stdint.h>

#include "store/events.h"

/* Terms are below this. A term is the millisecond in which a master started, or one more than what
 * a node knew, and whoever hears one takes it over, with its disk: one that was damaged on its way
 * must leave room for later ones, or there could be no master any more. */
#define STORE_TERM_END (UINT64_C(1) << 62)

struct rank {
    uint64_t term; /* 0: not known */
    uint32_t version;
};

static inline struct rank rank_of(const struct store_attributes *attributes)
{
    return (struct rank){ attributes->term, attributes->version };
}

/* Below 0: `a` is older than `b`; 0: they are one value's; above 0: `a` is newer. */
static inline int rank_compare(struct rank a, struct rank b)
{
    if (a.term != b.term && a.term != 0 && b.term != 0) return a.term < b.term ? -1 : 1;
    return a.version < b.version ? -1 : a.version > b.version;
}

#endif
