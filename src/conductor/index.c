/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/index.c - one open-addressing table with a slot per (block, holder).
 *
 * The slots of one key need no list of their own: they lie in the probe sequence of that key. A
 * walk from the key's home to the first empty slot meets all of them, among strangers. Removal
 * shifts later slots back, so there are no tombstones and a walk ends at the first empty slot for
 * ever.
 *
 * Slot (20 bytes)   0 key 16 bytes | 16 holder u16 | 18 tier u8 | 19 state u8
 *
 * Keys come from nodes that hash what clients send: uniformly random, but a client could search for
 * prompts whose keys share low bits. The home is therefore a salted mix of both halves of the key.
 *
 * Resync: each holder has a mark, 1 or 2, and each slot the mark of the holder when it was stored.
 * begin flips the holder's mark, end removes the slots that still carry the other one.
 *
 * Invariants
 *   I1  count <= holdings_max <= 3/4 of the slots, so every walk ends.
 *   I2  A pair (key, holder) is in at most one slot.
 *   I3  Between the home of a used slot and the slot itself, no slot is empty. */
#include "conductor/index.h"

#include <assert.h>
#include <stdlib.h>

#include "base/assert.h"

enum { SLOT_EMPTY = 0 };

struct slot {
    struct block_key key;
    uint16_t holder;
    uint8_t tier;
    uint8_t mark; /* SLOT_EMPTY, or the mark of its holder when stored */
};
static_assert(sizeof(struct slot) == 20, "a slot is 20 bytes");

struct conductor_index {
    struct slot *slots;
    uint64_t mask;
    uint64_t count;
    uint64_t holdings_max;
    uint32_t holders_max;
    uint8_t mark[CONDUCTOR_HOLDERS_MAX];
    uint32_t
        held[CONDUCTOR_HOLDERS_MAX]; /* slots of each holder: a clear of nothing costs nothing */
};

enum status conductor_index_create(uint32_t holders_max, uint32_t holdings_max,
                                   struct conductor_index **out)
{
    ASSERT(holders_max > 0 && holders_max <= CONDUCTOR_HOLDERS_MAX);
    ASSERT(holdings_max > 0);
    uint64_t slots = 16;

    while (slots * 3 / 4 < holdings_max)
        slots *= 2;
    struct conductor_index *index = calloc(1, sizeof(*index));
    if (index == NULL) return STATUS_NO_MEMORY;
    index->slots = calloc(slots, sizeof(*index->slots));
    if (index->slots == NULL) {
        free(index);
        return STATUS_NO_MEMORY;
    }
    index->mask = slots - 1;
    index->holdings_max = holdings_max;
    index->holders_max = holders_max;
    memset(index->mark, 1, sizeof(index->mark));
    *out = index;
    return STATUS_OK;
}

void conductor_index_destroy(struct conductor_index *index)
{
    if (index == NULL) return;
    free(index->slots);
    free(index);
}

static uint64_t home_of(const struct conductor_index *index, const struct block_key *key)
{
    uint64_t low, high;

    memcpy(&low, key->bytes, sizeof(low));
    memcpy(&high, key->bytes + sizeof(low), sizeof(high));
    uint64_t mixed = (low ^ 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;
    mixed ^= mixed >> 32;
    mixed = (mixed + high) * 0xc4ceb9fe1a85ec53u;
    return (mixed ^ (mixed >> 29)) & index->mask;
}

static uint64_t next_of(const struct conductor_index *index, uint64_t at)
{
    return (at + 1) & index->mask;
}

/* The slot of the pair, or the empty slot that ends its walk. */
static uint64_t find(const struct conductor_index *index, uint32_t holder,
                     const struct block_key *key)
{
    ASSERT(holder < index->holders_max);
    uint64_t at = home_of(index, key);

    while (index->slots[at].mark != SLOT_EMPTY) {
        const struct slot *slot = &index->slots[at];
        if (slot->holder == holder && block_key_equal(&slot->key, key)) return at;
        at = next_of(index, at);
    }
    return at;
}

enum status conductor_index_store(struct conductor_index *index, uint32_t holder,
                                  const struct block_key *key, uint8_t tier)
{
    ASSERT(tier < CONDUCTOR_TIERS);
    struct slot *slot = &index->slots[find(index, holder, key)];

    if (slot->mark == SLOT_EMPTY) {
        if (index->count == index->holdings_max) return STATUS_FULL;
        slot->key = *key;
        slot->holder = (uint16_t)holder;
        index->count++;
        index->held[holder]++;
    }
    slot->tier = tier;
    slot->mark = index->mark[holder];
    ASSERT(slot->mark != SLOT_EMPTY);
    return STATUS_OK;
}

/* Empties the slot and moves later slots of the same run back over the hole (I3). */
static void erase_at(struct conductor_index *index, uint64_t hole)
{
    ASSERT(index->slots[hole].mark != SLOT_EMPTY);
    ASSERT(index->count > 0 && index->held[index->slots[hole].holder] > 0);
    index->count--;
    index->held[index->slots[hole].holder]--;
    for (uint64_t at = next_of(index, hole); index->slots[at].mark != SLOT_EMPTY;
         at = next_of(index, at)) {
        const uint64_t home = home_of(index, &index->slots[at].key);
        /* It may move unless its home lies in (hole, at], cyclically. */
        if (((at - home) & index->mask) < ((at - hole) & index->mask)) continue;
        index->slots[hole] = index->slots[at];
        hole = at;
    }
    index->slots[hole].mark = SLOT_EMPTY;
}

bool conductor_index_remove(struct conductor_index *index, uint32_t holder,
                            const struct block_key *key)
{
    const uint64_t at = find(index, holder, key);

    if (index->slots[at].mark == SLOT_EMPTY) return false;
    erase_at(index, at);
    return true;
}

/* Removes the holder's slots whose mark is not `keep`. Erasing moves a later slot to this place, so
 * the place is looked at again; a slot of a run that wraps around the end of the table moves from
 * the part already seen to the part not yet seen, so that one round meets every slot. */
static void sweep(struct conductor_index *index, uint32_t holder, uint8_t keep)
{
    ASSERT(holder < index->holders_max);
    uint64_t at = 0;

    while (at <= index->mask && index->held[holder] > 0) {
        const struct slot *slot = &index->slots[at];
        if (slot->mark != SLOT_EMPTY && slot->holder == holder && slot->mark != keep) {
            erase_at(index, at);
        } else {
            at++;
        }
    }
}

void conductor_index_clear(struct conductor_index *index, uint32_t holder)
{
    sweep(index, holder, SLOT_EMPTY);
    ASSERT(index->held[holder] == 0);
}

void conductor_index_resync_begin(struct conductor_index *index, uint32_t holder)
{
    ASSERT(holder < index->holders_max);
    /* What an unfinished resync left behind would carry the mark that is about to be current. */
    sweep(index, holder, index->mark[holder]);
    index->mark[holder] = (uint8_t)(3 - index->mark[holder]);
    ASSERT(index->mark[holder] == 1 || index->mark[holder] == 2);
}

void conductor_index_resync_end(struct conductor_index *index, uint32_t holder)
{
    sweep(index, holder, index->mark[holder]);
}

int conductor_index_tier(const struct conductor_index *index, uint32_t holder,
                         const struct block_key *key)
{
    const struct slot *slot = &index->slots[find(index, holder, key)];
    return slot->mark == SLOT_EMPTY ? -1 : slot->tier;
}

/* Raises matched[h] for the holders of block `block` that have all blocks before it. */
static bool match_block(const struct conductor_index *index, const struct block_key *key,
                        uint32_t block, uint32_t *matched)
{
    bool any = false;

    for (uint64_t at = home_of(index, key); index->slots[at].mark != SLOT_EMPTY;
         at = next_of(index, at)) {
        const struct slot *slot = &index->slots[at];
        if (matched[slot->holder] != block || !block_key_equal(&slot->key, key)) continue;
        matched[slot->holder] = block + 1;
        any = true;
    }
    return any;
}

void conductor_index_match(const struct conductor_index *index, const struct block_key *keys,
                           uint32_t keys_count, uint32_t *matched)
{
    memset(matched, 0, index->holders_max * sizeof(*matched));
    for (uint32_t block = 0; block < keys_count; block++) {
        if (!match_block(index, &keys[block], block, matched)) break;
    }
}

uint64_t conductor_index_count(const struct conductor_index *index)
{
    ASSERT(index->count <= index->holdings_max);
    return index->count;
}

uint64_t conductor_index_bytes(const struct conductor_index *index)
{
    return sizeof(*index) + (index->mask + 1) * sizeof(*index->slots);
}
