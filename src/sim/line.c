/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/line.h"

#include <stdlib.h>

#include "base/assert.h"

void line_init(struct line *line)
{
    *line = (struct line){ NULL, 0, 0, 0 };
}

void line_fini(struct line *line)
{
    free(line->who);
    line_init(line);
}

static uint32_t *place(const struct line *line, uint32_t index)
{
    return &line->who[(line->head + index) & (line->cap - 1)];
}

static enum status grow(struct line *line)
{
    const uint32_t cap = line->cap == 0 ? 16 : line->cap * 2;
    uint32_t *who = calloc(cap, sizeof(*who));

    if (who == NULL) return STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < line->count; i++)
        who[i] = *place(line, i);
    free(line->who);
    *line = (struct line){ who, 0, line->count, cap };
    return STATUS_OK;
}

enum status line_insert(struct line *line, uint32_t who, uint32_t index)
{
    ASSERT(index <= line->count);
    if (line->count == line->cap && grow(line) != STATUS_OK) return STATUS_NO_MEMORY;
    for (uint32_t i = line->count++; i > index; i--)
        *place(line, i) = *place(line, i - 1);
    *place(line, index) = who;
    return STATUS_OK;
}

uint32_t line_at(const struct line *line, uint32_t index)
{
    ASSERT(index < line->count);
    return *place(line, index);
}

uint32_t line_pop(struct line *line)
{
    const uint32_t who = line_at(line, 0);
    line->head = (line->head + 1) & (line->cap - 1);
    line->count--;
    return who;
}

bool line_leave(struct line *line, uint32_t who)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < line->count; i++) {
        const uint32_t other = *place(line, i);
        if (other == who && kept == i) continue; /* the first one */
        *place(line, kept++) = other;
    }
    const bool left = kept < line->count;
    line->count = kept;
    return left;
}
