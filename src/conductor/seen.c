/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/seen.c - two set-associative tables, in each bucket the youngest entry first.
 *
 *     prefix entry  0 tag u32 (0: free) | 4 layout u16 | 6 salt u16       8 to a cache line
 *     text entry    0 text u64 (0: free) | 8 prefix tag u32 | 12 blocks u32   4 to a cache line
 *
 * The same prefix may be there in several shapes. */
#include "conductor/seen.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum {
    PREFIX_BUCKETS = 1 << 13, /* 512 KiB */
    PREFIX_WAYS = 8,
    TEXT_BUCKETS = 1 << 11, /* 128 KiB */
    TEXT_WAYS = 4,
};

struct prefix_entry {
    uint32_t tag;
    uint16_t layout, salt;
};
struct text_entry {
    uint64_t text;
    uint32_t prefix_tag;
    uint32_t blocks;
};
static_assert(sizeof(struct prefix_entry) * PREFIX_WAYS == 64, "a bucket is a cache line");
static_assert(sizeof(struct text_entry) * TEXT_WAYS == 64, "a bucket is a cache line");

struct seen {
    struct prefix_entry prefixes[PREFIX_BUCKETS][PREFIX_WAYS];
    struct text_entry texts[TEXT_BUCKETS][TEXT_WAYS];
};

enum status seen_create(struct seen **out)
{
    struct seen *seen = calloc(1, sizeof(*seen));

    if (seen == NULL) return STATUS_NO_MEMORY;
    *out = seen;
    return STATUS_OK;
}

void seen_destroy(struct seen *seen)
{
    free(seen);
}

uint64_t seen_bytes(const struct seen *seen)
{
    return sizeof(*seen);
}

/* ---- hashes ---- */

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= UINT64_C(0x9fb21c651e98df25);
    return h ^ h >> 29;
}

uint64_t yolk_prefix_next(uint64_t parent, const uint32_t *tokens, size_t count)
{
    uint64_t h = parent;

    for (size_t i = 0; i < count; i++)
        h = mix((h ^ tokens[i]) + UINT64_C(0x9e3779b97f4a7c15));
    return h;
}

uint64_t yolk_text_next(uint64_t parent, const void *text, size_t len)
{
    const unsigned char *bytes = text;
    uint64_t h = parent;

    for (size_t i = 0; i < len; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
    return h;
}

static uint32_t tag_of(uint64_t prefix)
{
    const uint32_t tag = (uint32_t)prefix;
    return tag != 0 ? tag : 1;
}

static uint16_t fold(uint64_t name)
{
    return (uint16_t)(mix(name) >> 48);
}

static struct prefix_entry entry_of(const struct yolk_prompt *prompt, uint32_t block)
{
    return (struct prefix_entry){ tag_of(prompt->prefixes[block]), fold(prompt->layout),
                                  fold(prompt->salt) };
}

static uint32_t prefix_bucket(uint64_t prefix)
{
    return (uint32_t)(prefix >> 32) & (PREFIX_BUCKETS - 1);
}

/* A text that is nothing is taken for another one. */
static uint64_t text_name(uint64_t text)
{
    return text != 0 ? text : 1;
}

static uint32_t text_bucket(uint64_t text)
{
    return (uint32_t)(mix(text) >> 32) & (TEXT_BUCKETS - 1);
}

/* ---- remembering ---- */

static void note_prefix(struct seen *seen, const struct yolk_prompt *prompt, uint32_t block)
{
    const struct prefix_entry mine = entry_of(prompt, block);
    struct prefix_entry *bucket = seen->prefixes[prefix_bucket(prompt->prefixes[block])];
    uint32_t at = 0;

    while (at < PREFIX_WAYS - 1 && memcmp(&bucket[at], &mine, sizeof(mine)) != 0)
        at++;
    memmove(&bucket[1], &bucket[0], at * sizeof(mine));
    bucket[0] = mine;
}

static void note_text(struct seen *seen, const struct yolk_prompt *prompt)
{
    const uint64_t text = text_name(prompt->texts[prompt->texts_count - 1]);
    struct text_entry *bucket = seen->texts[text_bucket(text)];
    uint32_t at = 0;

    while (at < TEXT_WAYS - 1 && bucket[at].text != text)
        at++;
    memmove(&bucket[1], &bucket[0], at * sizeof(bucket[0]));
    bucket[0] = (struct text_entry){ text, tag_of(prompt->prefixes[prompt->text_blocks - 1]),
                                     prompt->text_blocks };
}

/* Of n leading blocks, is the n-th one that is always remembered? */
static bool on_grid(uint32_t n)
{
    return n <= SEEN_DENSE || n % SEEN_STRIDE == 0;
}

void seen_note(struct seen *seen, const struct yolk_prompt *prompt, uint32_t blocks)
{
    if (prompt->prefixes == NULL || blocks == 0) return;
    for (uint32_t n = 1; n <= blocks; n += n < SEEN_DENSE ? 1 : SEEN_STRIDE)
        note_prefix(seen, prompt, n - 1);
    if (!on_grid(blocks)) note_prefix(seen, prompt, blocks - 1);
    if (prompt->texts_count > 0 && prompt->text_blocks > 0 && prompt->text_blocks <= blocks) {
        note_text(seen, prompt);
    }
}

/* ---- asking ---- */

enum shape { SHAPE_SAME, SHAPE_OTHER };

/* The entry that has `n` leading blocks in the shape asked for, or NULL. */
static const struct prefix_entry *lookup(const struct seen *seen, const struct yolk_prompt *prompt,
                                         uint32_t n, enum shape shape)
{
    const struct prefix_entry mine = entry_of(prompt, n - 1);
    const struct prefix_entry *bucket = seen->prefixes[prefix_bucket(prompt->prefixes[n - 1])];

    for (uint32_t i = 0; i < PREFIX_WAYS; i++) {
        const bool same = bucket[i].layout == mine.layout && bucket[i].salt == mine.salt;
        if (bucket[i].tag == mine.tag && same == (shape == SHAPE_SAME)) return &bucket[i];
    }
    return NULL;
}

/* Numbers the grid: 1..SEEN_DENSE, then one every SEEN_STRIDE. */
static uint32_t grid_at(uint32_t index)
{
    return index < SEEN_DENSE ? index + 1 : SEEN_DENSE + (index - SEEN_DENSE + 1) * SEEN_STRIDE;
}

/* Points of the grid that are at most n. */
static uint32_t grid_count(uint32_t n)
{
    return n <= SEEN_DENSE ? n : SEEN_DENSE + (n - SEEN_DENSE) / SEEN_STRIDE;
}

static uint32_t extent(const struct seen *seen, const struct yolk_prompt *prompt, uint32_t from,
                       uint32_t to, enum shape shape)
{
    /* Point low - 1 of the grid is known to be seen or below `from`; point high is not seen. */
    uint32_t low = grid_count(from), stride = 1;
    const uint32_t end = grid_count(to);
    uint32_t high = low;

    while (high < end && lookup(seen, prompt, grid_at(high), shape) != NULL) {
        low = high + 1;
        high = end - high > stride ? high + stride : end;
        stride *= 2;
    }
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (lookup(seen, prompt, grid_at(middle), shape) != NULL) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    /* Behind the last point seen some prompt may have ended, before the next point. */
    const uint32_t next = grid_at(low);
    const uint32_t known = low > 0 && grid_at(low - 1) > from ? grid_at(low - 1) : from;
    for (uint32_t n = next <= to ? next - 1 : to; n > known; n--) {
        if (lookup(seen, prompt, n, shape) != NULL) return n;
    }
    return known;
}

uint32_t seen_same(const struct seen *seen, const struct yolk_prompt *prompt, uint32_t from,
                   uint32_t to)
{
    ASSERT(from <= to);
    return prompt->prefixes != NULL ? extent(seen, prompt, from, to, SHAPE_SAME) : from;
}

uint32_t seen_other(const struct seen *seen, const struct yolk_prompt *prompt, uint32_t from,
                    uint32_t to, enum yolk_miss *why)
{
    ASSERT(from <= to);
    if (prompt->prefixes == NULL) return from;
    const uint32_t n = extent(seen, prompt, from, to, SHAPE_OTHER);
    if (n == from) return from;
    const struct prefix_entry *entry = lookup(seen, prompt, n, SHAPE_OTHER);
    ASSERT(entry != NULL);
    *why = entry->layout != fold(prompt->layout) ? YOLK_MISS_LAYOUT : YOLK_MISS_SALT;
    return n;
}

static const struct text_entry *find_text(const struct seen *seen, uint64_t text)
{
    const uint64_t name = text_name(text);
    const struct text_entry *bucket = seen->texts[text_bucket(name)];

    for (uint32_t i = 0; i < TEXT_WAYS; i++) {
        if (bucket[i].text == name) return &bucket[i];
    }
    return NULL;
}

uint32_t seen_text(const struct seen *seen, const struct yolk_prompt *prompt, uint32_t from,
                   uint32_t to)
{
    const uint32_t count = prompt->texts_count;

    ASSERT(from <= to);
    if (prompt->prefixes == NULL) return from;
    for (uint32_t i = count; i > 0 && count - i < SEEN_TEXTS_LOOKED_AT; i--) {
        const struct text_entry *entry = find_text(seen, prompt->texts[i - 1]);
        if (entry == NULL || entry->blocks <= from) continue;
        if (entry->blocks <= to &&
            entry->prefix_tag == tag_of(prompt->prefixes[entry->blocks - 1])) {
            return from; /* the longest text that is known became these very tokens */
        }
        return entry->blocks < to ? entry->blocks : to;
    }
    return from;
}
