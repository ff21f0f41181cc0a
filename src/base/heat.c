/* SPDX-License-Identifier: Apache-2.0 */
#include "base/heat.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

struct entry {
    struct block_key key;
    double heat; /* at `at_ms`; 0: the entry is free */
    double at_ms;
};

struct heat {
    struct entry *entries;
    uint32_t sets;
    double half_life_ms;
};

enum status heat_create(uint32_t entries, double half_life_ms, struct heat **out)
{
    ASSERT(entries >= HEAT_WAYS && (entries & (entries - 1)) == 0 && half_life_ms > 0);
    struct heat *heat = calloc(1, sizeof(*heat));

    if (heat == NULL) return STATUS_NO_MEMORY;
    *heat = (struct heat){ .sets = entries / HEAT_WAYS, .half_life_ms = half_life_ms };
    heat->entries = calloc(entries, sizeof(*heat->entries));
    if (heat->entries == NULL) {
        free(heat);
        return STATUS_NO_MEMORY;
    }
    *out = heat;
    return STATUS_OK;
}

void heat_destroy(struct heat *heat)
{
    if (heat == NULL) return;
    free(heat->entries);
    free(heat);
}

uint64_t heat_bytes(const struct heat *heat)
{
    return sizeof(*heat) + (uint64_t)heat->sets * HEAT_WAYS * sizeof(*heat->entries);
}

/* Keys are digests: any bits of them are as good as a hash. */
static struct entry *set_of(const struct heat *heat, const struct block_key *key)
{
    uint32_t bits;
    memcpy(&bits, key->bytes + 4, sizeof(bits));
    return heat->entries + (size_t)(bits & (heat->sets - 1)) * HEAT_WAYS;
}

static double heat_now(const struct heat *heat, const struct entry *entry, double now_ms)
{
    if (entry->heat == 0 || now_ms <= entry->at_ms) return entry->heat;
    return entry->heat * exp2((entry->at_ms - now_ms) / heat->half_life_ms);
}

double heat_add(struct heat *heat, const struct block_key *key, double amount, double now_ms)
{
    ASSERT(amount > 0);
    struct entry *set = set_of(heat, key), *coldest = set;
    double least = 0;

    for (int i = 0; i < HEAT_WAYS; i++) {
        struct entry *entry = &set[i];
        const double now = heat_now(heat, entry, now_ms);
        if (entry->heat > 0 && block_key_equal(&entry->key, key)) {
            entry->heat = now + amount;
            entry->at_ms = now_ms;
            return entry->heat;
        }
        if (i == 0 || now < least) {
            coldest = entry;
            least = now;
        }
    }
    *coldest = (struct entry){ *key, amount, now_ms };
    return amount;
}

double heat_touch(struct heat *heat, const struct block_key *key, double now_ms)
{
    return heat_add(heat, key, 1, now_ms);
}

double heat_of(const struct heat *heat, const struct block_key *key, double now_ms)
{
    const struct entry *set = set_of(heat, key);

    for (int i = 0; i < HEAT_WAYS; i++) {
        if (set[i].heat > 0 && block_key_equal(&set[i].key, key))
            return heat_now(heat, &set[i], now_ms);
    }
    return 0;
}
