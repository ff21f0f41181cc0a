/* SPDX-License-Identifier: Apache-2.0
 *
 * store/verified.c - see the header. A set is kept in the order of use, so what leaves it is in its
 * last place. A place that is all zero is empty: no piece has no bytes. */
#include "store/verified.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"

struct place {
    struct verified_piece piece;
    uint64_t hashed_ns;
};
_Static_assert(sizeof(struct place) == 48, "as the header says");

enum { SETS = VERIFIED_PIECES / VERIFIED_WAYS };
_Static_assert((SETS & (SETS - 1)) == 0, "a power of two");

struct verified {
    struct place sets[SETS][VERIFIED_WAYS];
};

enum status verified_create(struct verified **out)
{
    struct verified *verified = calloc(1, sizeof(*verified));
    if (verified == NULL) return STATUS_NO_MEMORY;
    *out = verified;
    return STATUS_OK;
}

void verified_destroy(struct verified *verified)
{
    free(verified);
}

static bool piece_equal(const struct verified_piece *a, const struct verified_piece *b)
{
    return a->owner == b->owner && a->generation == b->generation && a->address == b->address &&
           a->sum == b->sum && a->len == b->len;
}

static struct place *set_of(struct verified *verified, const struct verified_piece *piece)
{
    const uint64_t words[] = { piece->owner, piece->generation, piece->address };
    ASSERT(piece->generation != 0 && piece->len > 0);
    return verified->sets[hash_xxh3(words, sizeof(words)) & (SETS - 1)];
}

/* The place in the set of the piece, or the last one. */
static uint32_t place_of(const struct place *set, const struct verified_piece *piece)
{
    uint32_t way = 0;
    while (way < VERIFIED_WAYS - 1 && !piece_equal(&set[way].piece, piece))
        way++;
    return way;
}

static void to_front(struct place *set, uint32_t way, const struct place *place)
{
    const struct place kept = *place; /* it may be in the set */
    memmove(set + 1, set, way * sizeof(*set));
    set[0] = kept;
}

void verified_add(struct verified *verified, const struct verified_piece *piece, uint64_t now_ns)
{
    struct place *set = set_of(verified, piece);
    const struct place place = { *piece, now_ns };
    to_front(set, place_of(set, piece), &place);
}

bool verified_has(struct verified *verified, const struct verified_piece *piece, uint64_t now_ns)
{
    struct place *set = set_of(verified, piece);
    const uint32_t way = place_of(set, piece);
    const struct place *place = &set[way];

    if (!piece_equal(&place->piece, piece)) return false;
    ASSERT(now_ns >= place->hashed_ns);
    if (now_ns - place->hashed_ns >= VERIFIED_TRUST_NS) return false;
    to_front(set, way, place);
    return true;
}
