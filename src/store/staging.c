/* SPDX-License-Identifier: Apache-2.0
 *
 * store/staging.c - the pieces that are out, in the order of their places; the first gap that is
 * large enough is taken, so that the end of the area is touched only when it is needed. */
#include "store/staging.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/huge.h"

struct piece {
    uint64_t at; /* in the area */
    uint64_t size;
};

struct staging {
    uint64_t size;
    uint32_t align;
    uint8_t *area; /* NULL: nobody has asked yet */
    uint32_t count;
    struct piece pieces[STAGING_PIECES_MAX];
    uint8_t *large[STAGING_PIECES_MAX]; /* those with memory of their own, else NULL */
};

struct staging *staging_create(uint64_t size, uint32_t align)
{
    struct staging *staging = calloc(1, sizeof(*staging));
    ASSERT(align > 0 && (align & (align - 1)) == 0);
    if (staging == NULL) return NULL;
    staging->size = size;
    staging->align = align;
    return staging;
}

void staging_destroy(struct staging *staging)
{
    if (staging == NULL) return;
    for (uint32_t i = 0; i < STAGING_PIECES_MAX; i++)
        free(staging->large[i]);
    free(staging->area);
    free(staging);
}

static uint8_t *large_take(struct staging *staging, uint64_t size)
{
    for (uint32_t i = 0; i < STAGING_PIECES_MAX; i++) {
        if (staging->large[i] == NULL) return staging->large[i] = huge_alloc(staging->align, size);
    }
    return NULL;
}

/* The first gap of that size: which piece it lies before, and where it begins. */
static bool gap_find(const struct staging *staging, uint64_t size, uint32_t *before, uint64_t *at)
{
    *at = 0;
    for (*before = 0; *before < staging->count; (*before)++) {
        const struct piece *piece = &staging->pieces[*before];
        if (piece->at - *at >= size) return true;
        *at = piece->at + piece->size;
    }
    return staging->size - *at >= size;
}

uint8_t *staging_take(struct staging *staging, uint64_t size)
{
    uint32_t before;
    uint64_t at;

    ASSERT(size > 0);
    size = (size + staging->align - 1) / staging->align * staging->align;
    if (size > staging->size) return large_take(staging, size);
    if (staging->count == STAGING_PIECES_MAX || !gap_find(staging, size, &before, &at)) return NULL;
    if (staging->area == NULL) staging->area = huge_alloc(staging->align, staging->size);
    if (staging->area == NULL) return NULL;
    memmove(&staging->pieces[before + 1], &staging->pieces[before],
            (staging->count - before) * sizeof(staging->pieces[0]));
    staging->pieces[before] = (struct piece){ at, size };
    staging->count++;
    return staging->area + at;
}

static bool large_give(struct staging *staging, uint8_t *piece)
{
    for (uint32_t i = 0; i < STAGING_PIECES_MAX; i++) {
        if (staging->large[i] != piece) continue;
        free(piece);
        staging->large[i] = NULL;
        return true;
    }
    return false;
}

void staging_give(struct staging *staging, uint8_t *piece)
{
    ASSERT(piece != NULL);
    if (large_give(staging, piece)) return;
    uint32_t i = 0;
    while (i < staging->count && staging->area + staging->pieces[i].at != piece)
        i++;
    ASSERT(i < staging->count); /* else it was not ours */
    staging->count--;
    memmove(&staging->pieces[i], &staging->pieces[i + 1],
            (staging->count - i) * sizeof(staging->pieces[0]));
}
