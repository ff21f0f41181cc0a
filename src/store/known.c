/* SPDX-License-Identifier: Apache-2.0
 *
 * store/known.c - see the header.
 */
#include "store/known.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum { WAYS = 4, SETS = KNOWN_VALUES_MAX / WAYS };

_Static_assert((SETS & (SETS - 1)) == 0, "a set is found by bits of the identity");

struct slot {
    struct known_value value;
    uint32_t room;  /* for sums */
    uint32_t reads; /* not told yet */
    uint64_t sums[];
};

/* A cache line: slots that cannot be it are not looked at. */
struct set {
    _Alignas(64) struct slot *slots[WAYS]; /* NULL: never used; sums_count 0: forgotten */
    uint32_t tags[WAYS];                   /* of the identities there */
};

struct known {
    struct set sets[SETS];
};

static uint32_t set_of(const struct block_key *id)
{
    return (uint32_t)block_key_hash(id) & (SETS - 1);
}

static uint32_t tag_of(const struct block_key *id)
{
    return (uint32_t)(block_key_hash(id) >> 32);
}

static bool way_has(const struct set *set, unsigned way, const struct block_key *id)
{
    return set->slots[way] != NULL && set->tags[way] == tag_of(id) &&
           block_key_equal(&set->slots[way]->value.id, id);
}

static struct slot *find(const struct known *known, const struct block_key *id)
{
    const struct set *set = &known->sets[set_of(id)];
    for (unsigned way = 0; way < WAYS; way++) {
        if (way_has(set, way, id) && set->slots[way]->value.sums_count > 0) return set->slots[way];
    }
    return NULL;
}

void known_expect(const struct known *known, const struct block_key *id)
{
    __builtin_prefetch(&known->sets[set_of(id)]);
}

void known_expect_value(const struct known *known, const struct block_key *id)
{
    const struct set *set = &known->sets[set_of(id)];
    for (unsigned way = 0; way < WAYS; way++) {
        const char *slot = (const char *)set->slots[way];
        if (slot == NULL || set->tags[way] != tag_of(id)) continue;
        for (size_t at = 0; at <= sizeof(struct slot); at += 64) /* and the first sums */
            __builtin_prefetch(slot + at);
    }
}

/* The place for a value: that of itself, or a free one, or of what ends first. */
static unsigned way_for(const struct set *set, const struct block_key *id)
{
    unsigned best = 0;
    for (unsigned way = 0; way < WAYS; way++) {
        if (way_has(set, way, id)) return way;
        const struct slot *slot = set->slots[way];
        const uint64_t until = slot == NULL ? 0 : slot->value.until_ns;
        if (set->slots[best] != NULL && until < set->slots[best]->value.until_ns) best = way;
    }
    return best;
}

void known_put(struct known *known, const struct known_value *value, const uint64_t *sums)
{
    struct set *set = &known->sets[set_of(&value->id)];
    const unsigned way = way_for(set, &value->id);
    struct slot *slot = set->slots[way];
    ASSERT(value->sums_count > 0);

    if (value->sums_count > KNOWN_SUMS_MAX) {
        known_forget(known, &value->id);
        return;
    }
    if (slot == NULL || slot->room < value->sums_count) {
        slot = malloc(sizeof(*slot) + value->sums_count * sizeof(*sums));
        if (slot == NULL) {
            known_forget(known, &value->id);
            return;
        }
        slot->room = value->sums_count;
        free(set->slots[way]);
        set->slots[way] = slot;
    }
    set->tags[way] = tag_of(&value->id);
    slot->value = *value;
    slot->reads = 0;
    memcpy(slot->sums, sums, value->sums_count * sizeof(*sums));
}

const struct known_value *known_find(const struct known *known, const struct block_key *id,
                                     uint64_t now_ns, const uint64_t **sums)
{
    const struct slot *slot = find(known, id);
    if (slot == NULL || now_ns >= slot->value.until_ns) return NULL;
    *sums = slot->sums;
    return &slot->value;
}

void known_read(struct known *known, const struct block_key *id)
{
    struct slot *slot = find(known, id);
    if (slot != NULL && slot->reads < UINT32_MAX) slot->reads++;
}

uint32_t known_reads_take(struct known *known, const struct block_key *id)
{
    struct slot *slot = find(known, id);
    const uint32_t reads = slot == NULL ? 0 : slot->reads;
    if (slot != NULL) slot->reads = 0;
    return reads;
}

void known_forget(struct known *known, const struct block_key *id)
{
    struct slot *slot = find(known, id);
    if (slot == NULL) return;
    slot->value.sums_count = 0;
    slot->value.until_ns = 0;
}

enum status known_create(struct known **out)
{
    struct known *known = aligned_alloc(_Alignof(struct known), sizeof(*known));
    if (known == NULL) return STATUS_NO_MEMORY;
    memset(known, 0, sizeof(*known));
    *out = known;
    return STATUS_OK;
}

void known_destroy(struct known *known)
{
    if (known == NULL) return;
    for (unsigned set = 0; set < SETS; set++) {
        for (unsigned way = 0; way < WAYS; way++)
            free(known->sets[set].slots[way]);
    }
    free(known);
}
