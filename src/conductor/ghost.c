/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/ghost.c - buckets of one cache line, each a list of tags, the youngest first.
 *
 *     name   bits 0-31 tag, with 1 for 0 | bits 32-63 choose the bucket
 *     bucket 16 tags u32; 0 is free, and only free ones follow a free one
 *
 * Invariants
 *   I1  a tag is in a bucket at most once. */
#include "conductor/ghost.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum { WAYS = 16, LINE = 64 };

struct bucket {
    uint32_t tags[WAYS];
};
static_assert(sizeof(struct bucket) == LINE, "a bucket is a cache line");

struct ghost {
    uint32_t buckets_mask;
    struct bucket *buckets;
};

enum status ghost_create(uint32_t names, struct ghost **out)
{
    ASSERT(names > 0 && names <= GHOST_NAMES_MAX);
    uint32_t buckets = 1;
    struct ghost *ghost = calloc(1, sizeof(*ghost));

    if (ghost == NULL) return STATUS_NO_MEMORY;
    while (buckets * WAYS < names)
        buckets *= 2;
    ghost->buckets_mask = buckets - 1;
    ghost->buckets = aligned_alloc(LINE, buckets * sizeof(*ghost->buckets));
    if (ghost->buckets == NULL) {
        free(ghost);
        return STATUS_NO_MEMORY;
    }
    memset(ghost->buckets, 0, buckets * sizeof(*ghost->buckets));
    *out = ghost;
    return STATUS_OK;
}

void ghost_destroy(struct ghost *ghost)
{
    if (ghost == NULL) return;
    free(ghost->buckets);
    free(ghost);
}

uint64_t ghost_bytes(const struct ghost *ghost)
{
    return sizeof(*ghost) + (ghost->buckets_mask + UINT64_C(1)) * sizeof(*ghost->buckets);
}

static uint32_t tag_of(uint64_t name)
{
    const uint32_t tag = (uint32_t)name;
    return tag != 0 ? tag : 1;
}

static struct bucket *bucket_of(const struct ghost *ghost, uint64_t name)
{
    return &ghost->buckets[(uint32_t)(name >> 32) & ghost->buckets_mask];
}

/* Where the tag is, or WAYS. */
static uint32_t find(const struct bucket *bucket, uint32_t tag)
{
    uint32_t at = 0;

    while (at < WAYS && bucket->tags[at] != tag)
        at++;
    return at;
}

void ghost_add(struct ghost *ghost, uint64_t name)
{
    struct bucket *bucket = bucket_of(ghost, name);
    const uint32_t tag = tag_of(name);
    const uint32_t at = find(bucket, tag);
    const uint32_t older = at < WAYS ? at : WAYS - 1; /* tags that move back by one */

    memmove(&bucket->tags[1], &bucket->tags[0], older * sizeof(bucket->tags[0]));
    bucket->tags[0] = tag;
}

bool ghost_has(const struct ghost *ghost, uint64_t name)
{
    return find(bucket_of(ghost, name), tag_of(name)) < WAYS;
}
