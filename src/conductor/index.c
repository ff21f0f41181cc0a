/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/index.c - one open-addressing table with a slot per block, and lists for the blocks
 * that many hold.
 *
 *     slot  (20 bytes)  0 key 16 bytes | 16 entry u16 | 18 entry u16
 *     chunk (16 bytes)  0 six entries u16 | 12 next chunk u32
 *     entry             bits 0-11 holder | 12-13 tier | 14-15 mark: 0 free, 1 or 2, 3 list
 *
 * A block has one or two holders in its slot: a prompt's blocks usually lie on the node that
 * computed them and on the one that decodes. With a third, both entries become the number of the
 * first chunk of a list, in 14 + 16 bits, under mark 3. Only the first chunk of a list may have
 * free entries. When two holders are left they move back into the slot.
 *
 * Removal shifts later slots back, so there are no tombstones and a walk ends at the first empty
 * slot for ever.
 *
 * Keys come from nodes that hash what clients send: uniformly random, but a client could search for
 * prompts whose keys share low bits. The home is therefore a mix of both halves of the key.
 *
 * Resync: each holder has a mark, 1 or 2, and each entry the mark of the holder when it was stored.
 * begin flips the holder's mark, end removes the entries that still carry the other one.
 *
 * Sizes: 1.3 slots and 1/3 chunk per holding are at most 26 + 5.4 bytes. A list has three entries
 * or more, so ceil(entries / 6) chunks are never more than a third of them: chunks cannot run out.
 *
 * Invariants
 *   I1  count <= holdings_max < slots_count / 1.29, so every walk ends.
 *   I2  A pair (key, holder) is in at most one entry, a key in at most one slot.
 *   I3  Between the home of a used slot and the slot itself, no slot is empty.
 *   I4  entry[0] of a used slot is not free; a list has at least three entries. */
#include "conductor/index.h"

#include <assert.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/huge.h"
#include "conductor/ghost.h"
#include "yolk/conductor.h"

enum {
    INLINE_ENTRIES = 2,
    CHUNK_ENTRIES = 6,
    HOLDER_BITS = 12,
    MARK_SHIFT = 14,
    MARK_LIST = 3,
    PREFETCH_AHEAD = 24,
};
static const uint32_t NO_CHUNK = UINT32_MAX;
static const uint16_t FREE_ENTRY = 0;

struct slot {
    struct block_key key;
    uint16_t entry[INLINE_ENTRIES];
};
struct chunk {
    uint16_t entry[CHUNK_ENTRIES];
    uint32_t next;
};
static_assert(sizeof(struct slot) == 20, "a slot is 20 bytes");
static_assert(sizeof(struct chunk) == 16, "a chunk is 16 bytes");
static_assert((int)CONDUCTOR_HOLDERS_MAX == 1 << HOLDER_BITS, "a holder fits an entry");
static_assert(CONDUCTOR_TIERS <= 4, "a tier fits an entry");

struct conductor_index {
    struct slot *slots;
    struct chunk *chunks;
    uint64_t slots_count;
    uint32_t chunks_count;
    uint32_t free_chunk;
    uint64_t count;
    uint64_t holdings_max;
    uint32_t holders_max;
    struct ghost *ghost;
    uint8_t mark[CONDUCTOR_HOLDERS_MAX];
    uint32_t held[CONDUCTOR_HOLDERS_MAX]; /* of each: a clear of nothing costs nothing */
};

/* ---- making ---- */

/* Zeroed, on huge pages if the system has them: every look-up is a cache miss, and should not be a
 * TLB miss too. */
static void *make_array(uint64_t size)
{
    if (size < HUGE_PAGE) return calloc(1, size);
    void *array = huge_alloc(HUGE_PAGE, size);
    if (array != NULL) memset(array, 0, size);
    return array;
}

enum status conductor_index_create(uint32_t holders_max, uint32_t holdings_max,
                                   struct conductor_index **out)
{
    ASSERT(holders_max > 0 && holders_max <= CONDUCTOR_HOLDERS_MAX);
    ASSERT(holdings_max > 0);
    struct conductor_index *index = calloc(1, sizeof(*index));

    if (index == NULL) return STATUS_NO_MEMORY;
    index->slots_count = (uint64_t)holdings_max * 13 / 10 + 8;
    index->chunks_count = holdings_max / 3 + 1;
    ASSERT(index->slots_count < UINT32_MAX);
    index->slots = make_array(index->slots_count * sizeof(*index->slots));
    index->chunks = make_array((uint64_t)index->chunks_count * sizeof(*index->chunks));
    if (index->slots == NULL || index->chunks == NULL) {
        conductor_index_destroy(index);
        return STATUS_NO_MEMORY;
    }
    for (uint32_t i = 0; i < index->chunks_count; i++)
        index->chunks[i].next = i + 1 < index->chunks_count ? i + 1 : NO_CHUNK;
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
    free(index->chunks);
    free(index);
}

/* ---- entries ---- */

static uint16_t entry_make(uint32_t holder, uint8_t tier, uint8_t mark)
{
    ASSERT(mark == 1 || mark == 2);
    return (uint16_t)(holder | (uint32_t)tier << HOLDER_BITS | (uint32_t)mark << MARK_SHIFT);
}

static uint32_t entry_holder(uint16_t entry)
{
    return entry & (CONDUCTOR_HOLDERS_MAX - 1);
}

static uint8_t entry_tier(uint16_t entry)
{
    return (entry >> HOLDER_BITS) & 3;
}

static uint8_t entry_mark(uint16_t entry)
{
    return (uint8_t)(entry >> MARK_SHIFT);
}

static bool is_list(const struct slot *slot)
{
    return entry_mark(slot->entry[0]) == MARK_LIST;
}

static uint32_t list_head(const struct slot *slot)
{
    return (slot->entry[0] & ((1u << MARK_SHIFT) - 1)) << 16 | slot->entry[1];
}

static void list_set_head(struct slot *slot, uint32_t chunk)
{
    ASSERT(chunk < 1u << 30);
    slot->entry[0] = (uint16_t)((uint32_t)MARK_LIST << MARK_SHIFT | chunk >> 16);
    slot->entry[1] = (uint16_t)chunk;
}

/* The holders of a slot, a run of entries at a time. */
struct span {
    uint16_t *entries;
    uint32_t count;
    uint32_t next; /* chunk of the next run, or NO_CHUNK */
};

static struct span span_of_chunk(const struct conductor_index *index, uint32_t number)
{
    struct chunk *chunk = &index->chunks[number];
    uint32_t count = CHUNK_ENTRIES;

    ASSERT(number < index->chunks_count);
    while (count > 0 && chunk->entry[count - 1] == FREE_ENTRY)
        count--;
    return (struct span){ chunk->entry, count, chunk->next };
}

static struct span span_first(const struct conductor_index *index, struct slot *slot)
{
    if (is_list(slot)) return span_of_chunk(index, list_head(slot));
    return (struct span){ slot->entry, slot->entry[1] == FREE_ENTRY ? 1 : 2, NO_CHUNK };
}

static uint16_t *find_entry(const struct conductor_index *index, struct slot *slot, uint32_t holder)
{
    for (struct span span = span_first(index, slot);; span = span_of_chunk(index, span.next)) {
        for (uint32_t i = 0; i < span.count; i++) {
            if (entry_holder(span.entries[i]) == holder) return &span.entries[i];
        }
        if (span.next == NO_CHUNK) return NULL;
    }
}

static uint32_t chunk_take(struct conductor_index *index, uint32_t next)
{
    const uint32_t number = index->free_chunk;
    ASSERT(number != NO_CHUNK); /* see Sizes */
    struct chunk *chunk = &index->chunks[number];

    index->free_chunk = chunk->next;
    *chunk = (struct chunk){ .next = next };
    return number;
}

static void chunk_give(struct conductor_index *index, uint32_t number)
{
    index->chunks[number].next = index->free_chunk;
    index->free_chunk = number;
}

static void add_entry(struct conductor_index *index, struct slot *slot, uint16_t entry)
{
    struct span span = span_first(index, slot);

    if (!is_list(slot)) {
        if (span.count < INLINE_ENTRIES) {
            slot->entry[span.count] = entry;
            return;
        }
        const uint32_t head = chunk_take(index, NO_CHUNK);
        memcpy(index->chunks[head].entry, slot->entry, sizeof(slot->entry));
        list_set_head(slot, head);
        span = span_of_chunk(index, head);
    } else if (span.count == CHUNK_ENTRIES) {
        const uint32_t head = chunk_take(index, list_head(slot));
        list_set_head(slot, head);
        span = span_of_chunk(index, head);
    }
    ASSERT(span.count < CHUNK_ENTRIES);
    span.entries[span.count] = entry;
}

/* Fills the hole with the last entry of the first run, and makes the list shorter, or none. False
 * when nothing is left. */
static bool remove_entry(struct conductor_index *index, struct slot *slot, uint16_t *hole)
{
    struct span span = span_first(index, slot);

    ASSERT(span.count > 0);
    *hole = span.entries[span.count - 1];
    span.entries[--span.count] = FREE_ENTRY;
    if (!is_list(slot)) return span.count > 0;
    const uint32_t head = list_head(slot);
    if (span.count == 0) {
        ASSERT(span.next != NO_CHUNK); /* I4 */
        list_set_head(slot, span.next);
        chunk_give(index, head);
    } else if (span.count == INLINE_ENTRIES && span.next == NO_CHUNK) {
        memcpy(slot->entry, span.entries, sizeof(slot->entry));
        chunk_give(index, head);
    }
    return true;
}

/* ---- slots ---- */

static bool is_empty(const struct slot *slot)
{
    return slot->entry[0] == FREE_ENTRY;
}

static uint64_t home_of(const struct conductor_index *index, const struct block_key *key)
{
    uint64_t low, high;

    memcpy(&low, key->bytes, sizeof(low));
    memcpy(&high, key->bytes + sizeof(low), sizeof(high));
    uint64_t mixed = (low ^ 0x9e3779b97f4a7c15u) * 0xff51afd7ed558ccdu;
    mixed ^= mixed >> 32;
    mixed = (mixed + high) * 0xc4ceb9fe1a85ec53u;
    mixed ^= mixed >> 29;
    mixed *= 0x9fb21c651e98df25u;
    return (mixed >> 32) * index->slots_count >> 32; /* slots_count is below 2^32 */
}

static uint64_t next_of(const struct conductor_index *index, uint64_t at)
{
    return at + 1 < index->slots_count ? at + 1 : 0;
}

/* Steps from one place to another, forwards. */
static uint64_t distance(const struct conductor_index *index, uint64_t from, uint64_t to)
{
    return to >= from ? to - from : to + index->slots_count - from;
}

/* The slot of the key, or the empty slot that ends its walk. */
static uint64_t find(const struct conductor_index *index, const struct block_key *key)
{
    uint64_t at = home_of(index, key);

    while (!is_empty(&index->slots[at]) && !block_key_equal(&index->slots[at].key, key))
        at = next_of(index, at);
    return at;
}

/* Empties the slot and moves later slots of the same run back over the hole (I3). */
static void erase_slot(struct conductor_index *index, uint64_t hole)
{
    for (uint64_t at = next_of(index, hole); !is_empty(&index->slots[at]);
         at = next_of(index, at)) {
        const uint64_t home = home_of(index, &index->slots[at].key);
        /* It may move unless its home lies in (hole, at], cyclically. */
        if (distance(index, home, at) < distance(index, hole, at)) continue;
        index->slots[hole] = index->slots[at];
        hole = at;
    }
    index->slots[hole].entry[0] = FREE_ENTRY;
    index->slots[hole].entry[1] = FREE_ENTRY;
}

/* True if the slot went too, and another may lie in its place. */
static bool drop(struct conductor_index *index, uint64_t at, uint16_t *entry)
{
    const uint32_t holder = entry_holder(*entry);

    ASSERT(index->count > 0 && index->held[holder] > 0);
    index->count--;
    index->held[holder]--;
    if (remove_entry(index, &index->slots[at], entry)) return false;
    if (index->ghost != NULL) ghost_add(index->ghost, block_key_hash(&index->slots[at].key));
    erase_slot(index, at);
    return true;
}

/* ---- events ---- */

void conductor_index_prefetch(const struct conductor_index *index, const struct block_key *key)
{
    __builtin_prefetch(&index->slots[home_of(index, key)]);
}

enum status conductor_index_store(struct conductor_index *index, uint32_t holder,
                                  const struct block_key *key, uint8_t tier)
{
    ASSERT(tier < CONDUCTOR_TIERS && holder < index->holders_max);
    struct slot *slot = &index->slots[find(index, key)];
    const uint16_t entry = entry_make(holder, tier, index->mark[holder]);
    uint16_t *there = is_empty(slot) ? NULL : find_entry(index, slot, holder);

    if (there != NULL) {
        *there = entry;
        return STATUS_OK;
    }
    if (index->count == index->holdings_max) return STATUS_FULL;
    if (is_empty(slot)) {
        slot->key = *key;
        slot->entry[0] = entry;
    } else {
        add_entry(index, slot, entry);
    }
    index->count++;
    index->held[holder]++;
    return STATUS_OK;
}

bool conductor_index_remove(struct conductor_index *index, uint32_t holder,
                            const struct block_key *key)
{
    ASSERT(holder < index->holders_max);
    const uint64_t at = find(index, key);
    struct slot *slot = &index->slots[at];
    uint16_t *entry = is_empty(slot) ? NULL : find_entry(index, slot, holder);

    if (entry == NULL) return false;
    (void)drop(index, at, entry);
    return true;
}

/* Removes the holder's entries whose mark is not `keep`. Erasing moves a later slot to this place,
 * so the place is looked at again; a slot of a run that wraps around the end of the table moves
 * from the part already seen to the part not yet seen, so that one round meets every slot. */
static void sweep(struct conductor_index *index, uint32_t holder, uint8_t keep)
{
    ASSERT(holder < index->holders_max);
    uint64_t at = 0;

    while (at < index->slots_count && index->held[holder] > 0) {
        struct slot *slot = &index->slots[at];
        uint16_t *entry = is_empty(slot) ? NULL : find_entry(index, slot, holder);
        if (entry == NULL || entry_mark(*entry) == keep || !drop(index, at, entry)) at++;
    }
}

void conductor_index_clear(struct conductor_index *index, uint32_t holder)
{
    sweep(index, holder, 0);
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
    ASSERT(holder < index->holders_max);
    struct slot *slot = &index->slots[find(index, key)];
    const uint16_t *entry = is_empty(slot) ? NULL : find_entry(index, slot, holder);
    return entry == NULL ? -1 : entry_tier(*entry);
}

uint32_t conductor_index_fast(const struct conductor_index *index, uint32_t holder,
                              const struct block_key *keys, uint32_t keys_count)
{
    uint32_t from = 0, to = keys_count;

    while (from < to) {
        const uint32_t middle = from + (to - from) / 2;
        if (conductor_index_tier(index, holder, &keys[middle]) == YOLK_TIER_SSD)
            to = middle;
        else
            from = middle + 1;
    }
    return from;
}

/* ---- matching ---- */

/* Raises matched[h] from `from` to `to` for the holders of this key; returns how many. */
static uint32_t raise(const struct conductor_index *index, const struct block_key *key,
                      uint32_t from, uint32_t to, uint32_t *matched)
{
    struct slot *slot = &index->slots[find(index, key)];
    uint32_t raised = 0;

    if (is_empty(slot)) return 0;
    for (struct span span = span_first(index, slot);; span = span_of_chunk(index, span.next)) {
        for (uint32_t i = 0; i < span.count; i++) {
            const uint32_t holder = entry_holder(span.entries[i]);
            if (matched[holder] != from) continue;
            matched[holder] = to;
            raised++;
        }
        if (span.next == NO_CHUNK) return raised;
    }
}

static void match_exact(const struct conductor_index *index, const struct block_key *keys,
                        uint32_t keys_count, uint32_t *matched)
{
    for (uint32_t i = 0; i < PREFETCH_AHEAD && i < keys_count; i++)
        conductor_index_prefetch(index, &keys[i]);
    for (uint32_t block = 0; block < keys_count; block++) {
        if (block + PREFETCH_AHEAD < keys_count) {
            conductor_index_prefetch(index, &keys[block + PREFETCH_AHEAD]);
        }
        if (raise(index, &keys[block], block, block + 1, matched) == 0) break;
    }
}

/* `count` holders stand at `low`, and none of them has the block that would take it to `high`:
 * finds where each ends, by halves. At most log2(high - low) deep. */
static void match_between(const struct conductor_index *index, const struct block_key *keys,
                          uint32_t low, uint32_t high, uint32_t count, uint32_t *matched)
{
    ASSERT(low < high);
    if (count == 0 || high - low == 1) return;
    const uint32_t middle = low + (high - low) / 2;
    const uint32_t further = raise(index, &keys[middle - 1], low, middle, matched);
    ASSERT(further <= count);
    match_between(index, keys, middle, high, further, matched);
    match_between(index, keys, low, middle, count - further, matched);
}

/* Strides that double while anybody keeps up. */
static void match_gallop(const struct conductor_index *index, const struct block_key *keys,
                         uint32_t keys_count, uint32_t *matched)
{
    uint32_t at = 1, stride = 1;
    uint32_t count = raise(index, &keys[0], 0, 1, matched);

    while (count > 0 && at < keys_count) {
        const uint32_t next = keys_count - at > stride ? at + stride : keys_count;
        const uint32_t further = raise(index, &keys[next - 1], at, next, matched);
        match_between(index, keys, at, next, count - further, matched);
        count = further;
        at = next;
        stride *= 2;
    }
}

void conductor_index_match(const struct conductor_index *index, const struct block_key *keys,
                           uint32_t keys_count, uint32_t *matched)
{
    memset(matched, 0, index->holders_max * sizeof(*matched));
    if (keys_count > CONDUCTOR_MATCH_EXACT) {
        match_gallop(index, keys, keys_count, matched);
    } else {
        match_exact(index, keys, keys_count, matched);
    }
}

/* Those that end with this key, which is block `length` - 1. */
static void note_ends(const struct conductor_index *index, const struct block_key *key,
                      uint32_t length, const uint32_t *matched, bool *ends_slow)
{
    struct slot *slot = &index->slots[find(index, key)];

    if (is_empty(slot)) return;
    for (struct span span = span_first(index, slot);; span = span_of_chunk(index, span.next)) {
        for (uint32_t i = 0; i < span.count; i++) {
            const uint32_t holder = entry_holder(span.entries[i]);
            if (matched[holder] != length) continue;
            ends_slow[holder] = entry_tier(span.entries[i]) == YOLK_TIER_SSD;
        }
        if (span.next == NO_CHUNK) return;
    }
}

enum { LENGTHS = 64 };

void conductor_index_ends(const struct conductor_index *index, const struct block_key *keys,
                          const uint32_t *matched, bool *ends_slow)
{
    uint32_t done[LENGTHS] = { 0 }; /* lengths, each in a place of its own: seen lately */

    for (uint32_t h = 0; h < index->holders_max; h++) {
        const uint32_t length = matched[h];
        uint32_t *place = &done[length % LENGTHS];
        if (length == 0 || *place == length) continue;
        note_ends(index, &keys[length - 1], length, matched, ends_slow);
        *place = length;
    }
}

void conductor_index_set_ghost(struct conductor_index *index, struct ghost *ghost)
{
    index->ghost = ghost;
}

uint64_t conductor_index_count(const struct conductor_index *index)
{
    ASSERT(index->count <= index->holdings_max);
    return index->count;
}

uint64_t conductor_index_bytes(const struct conductor_index *index)
{
    return sizeof(*index) + index->slots_count * sizeof(*index->slots) +
           (uint64_t)index->chunks_count * sizeof(*index->chunks);
}
