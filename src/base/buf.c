/* SPDX-License-Identifier: Apache-2.0
 *
 * base/buf.c - see buf.h. Content is base[start..start + len); 0 <= start + len <= cap. */
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum { CAP_MIN = 256 };

static uint8_t empty[1]; /* what buf_data() shows of a buffer without memory; nobody writes to it */

void buf_init(struct buf *buf, size_t size_max)
{
    ASSERT(size_max > 0);
    *buf = (struct buf){ .size_max = size_max };
}

void buf_fini(struct buf *buf)
{
    free(buf->base);
    *buf = (struct buf){ 0 };
}

uint8_t *buf_data(const struct buf *buf)
{
    return buf->base != NULL ? buf->base + buf->start : empty;
}

static void move_to_front(struct buf *buf)
{
    if (buf->start == 0) return;
    memmove(buf->base, buf->base + buf->start, buf->len);
    buf->start = 0;
}

/* A larger block, at least doubled, with the content at its front. */
static enum status grow(struct buf *buf, size_t need)
{
    const size_t cap_max = buf->size_max > SIZE_MAX / 2 ? SIZE_MAX : buf->size_max * 2;
    size_t cap = buf->cap < CAP_MIN ? CAP_MIN : buf->cap;
    while (cap < need || cap == buf->cap)
        cap = cap > cap_max / 2 ? cap_max : cap * 2;
    if (cap > cap_max) cap = cap_max;
    ASSERT(cap >= need);

    uint8_t *base = malloc(cap);
    if (base == NULL) return STATUS_FULL;
    if (buf->len > 0) memcpy(base, buf->base + buf->start, buf->len);
    free(buf->base);
    buf->base = base;
    buf->cap = cap;
    buf->start = 0;
    return STATUS_OK;
}

/* Moving content to the front costs its length, so it is done only when at least as much has been
 * consumed; a block of 2 * size_max always reaches that point before it is full. */
enum status buf_reserve(struct buf *buf, size_t len, uint8_t **out)
{
    ASSERT(buf->size_max > 0); /* initialised */
    ASSERT(buf->len <= buf->size_max);
    if (len > buf->size_max - buf->len) return STATUS_FULL;

    const size_t need = buf->len + len;
    if (need > buf->cap - buf->start) {
        if (need <= buf->cap && buf->start >= buf->len) {
            move_to_front(buf);
        } else {
            const enum status status = grow(buf, need);
            if (status != STATUS_OK) return status;
        }
    }
    ASSERT(need <= buf->cap - buf->start);
    *out = buf_data(buf) + buf->len;
    return STATUS_OK;
}

void buf_commit(struct buf *buf, size_t len)
{
    ASSERT(len <= buf->cap - buf->start - buf->len);
    buf->len += len;
}

enum status buf_append(struct buf *buf, const void *data, size_t len)
{
    const size_t end = buf->start + buf->len;
    uint8_t *to = buf->base != NULL ? buf->base + end : NULL;

    /* Mostly there is room: what is encoded comes a few bytes at a time. */
    if (to == NULL || len > buf->cap - end || len > buf->size_max - buf->len) {
        const enum status status = buf_reserve(buf, len, &to);
        if (status != STATUS_OK) return status;
    }
    if (len > 0) memcpy(to, data, len);
    buf_commit(buf, len);
    return STATUS_OK;
}

enum status buf_append_text(struct buf *buf, const char *text)
{
    return buf_append(buf, text, strlen(text));
}

enum status buf_vprintf(struct buf *buf, const char *fmt, va_list args)
{
    va_list again;
    char small[256];

    va_copy(again, args);
    const int len = vsnprintf(small, sizeof(small), fmt, again);
    va_end(again);
    ASSERT(len >= 0);
    if ((size_t)len < sizeof(small)) return buf_append(buf, small, (size_t)len);
    if ((size_t)len > buf->size_max - buf->len) return STATUS_FULL;

    char *text = malloc((size_t)len + 1);
    if (text == NULL) return STATUS_FULL;
    vsnprintf(text, (size_t)len + 1, fmt, args);
    const enum status status = buf_append(buf, text, (size_t)len);
    free(text);
    return status;
}

enum status buf_printf(struct buf *buf, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const enum status status = buf_vprintf(buf, fmt, args);
    va_end(args);
    return status;
}

void buf_consume(struct buf *buf, size_t len)
{
    ASSERT(len <= buf->len);
    buf->len -= len;
    buf->start = buf->len == 0 ? 0 : buf->start + len;
}

void buf_clear(struct buf *buf)
{
    buf->start = 0;
    buf->len = 0;
}

void buf_truncate(struct buf *buf, size_t len)
{
    ASSERT(len <= buf->len);
    buf->len = len;
}

enum status buf_take(struct buf *buf, uint8_t **out, size_t *len)
{
    uint8_t *base;

    move_to_front(buf);
    base = realloc(buf->base, buf->len + 1);
    if (base == NULL) return STATUS_FULL;
    base[buf->len] = '\0';
    *out = base;
    *len = buf->len;
    *buf = (struct buf){ .size_max = buf->size_max };
    return STATUS_OK;
}
