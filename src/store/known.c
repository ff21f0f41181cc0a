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

struct known {
    struct slot *slots[SETS][WAYS]; /* NULL: never used; sums_count 0: forgotten */
};

static struct slot *const *set_of(const struct known *known, const struct block_key *id)
{
    return known->slots[block_key_hash(id) & (SETS - 1)];
}

static struct slot *find(const struct known *known, const struct block_key *id)
{
    struct slot *const *set = set_of(known, id);
    for (unsigned i = 0; i < WAYS; i++) {
        struct slot *slot = set[i];
        if (slot == NULL || slot->value.sums_count == 0) continue;
        if (block_key_equal(&slot->value.id, id)) return slot;
    }
    return NULL;
}

/* The place for a value: that of itself, or a free one, or of what ends first. */
static struct slot **place_of(struct known *known, const struct block_key *id)
{
    struct slot **set = known->slots[block_key_hash(id) & (SETS - 1)];
    struct slot **best = &set[0];
    for (unsigned i = 0; i < WAYS; i++) {
        const struct slot *slot = set[i];
        if (slot != NULL && block_key_equal(&slot->value.id, id)) return &set[i];
        const uint64_t until = slot == NULL ? 0 : slot->value.until_ns;
        if (*best != NULL && until < (*best)->value.until_ns) best = &set[i];
    }
    return best;
}

void known_put(struct known *known, const struct known_value *value, const uint64_t *sums)
{
    struct slot **place = place_of(known, &value->id);
    struct slot *slot = *place;
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
        free(*place);
        *place = slot;
    }
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
    *out = calloc(1, sizeof(**out));
    return *out == NULL ? STATUS_NO_MEMORY : STATUS_OK;
}

void known_destroy(struct known *known)
{
    if (known == NULL) return;
    for (unsigned set = 0; set < SETS; set++) {
        for (unsigned way = 0; way < WAYS; way++)
            free(known->slots[set][way]);
    }
    free(known);
}
