/* SPDX-License-Identifier: Apache-2.0
 *
 * base/buf.h - a byte buffer that grows at its end, is consumed at its front, and has a maximum.
 *
 * Memory:  one heap block of at most twice size_max, at least doubled when it grows. An empty
 *          buffer holds no memory until the first append.
 * Threads: belongs to one thread at a time.
 * Limits:  size_max bytes unconsumed; past it appends answer STATUS_FULL and change nothing. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct buf {
    uint8_t *base;   /* private: start of the heap block */
    size_t start;    /* private: consumed bytes before the content */
    size_t len;      /* bytes of content; read only */
    size_t cap;      /* private: size of the heap block */
    size_t size_max; /* private */
};

void buf_init(struct buf *buf, size_t size_max);
void buf_fini(struct buf *buf); /* all zero is allowed */

/* The content; valid until the next call that appends, takes or ends. Never NULL. */
uint8_t *buf_data(const struct buf *buf);

MUST_USE enum status buf_append(struct buf *buf, const void *data, size_t len);
MUST_USE enum status buf_append_text(struct buf *buf, const char *text);
MUST_USE enum status buf_printf(struct buf *buf, const char *fmt, ...) PRINTF_LIKE(2, 3);
MUST_USE enum status buf_vprintf(struct buf *buf, const char *fmt, va_list args) PRINTF_LIKE(2, 0);

/* Makes room for len bytes behind the content, to be filled in place and then taken into it with
 * buf_commit(buf, n), n <= len. */
MUST_USE enum status buf_reserve(struct buf *buf, size_t len, uint8_t **out);
void buf_commit(struct buf *buf, size_t len);

/* Drops the first len bytes; len <= buf->len. */
void buf_consume(struct buf *buf, size_t len);

/* Drops everything and keeps the memory. */
void buf_clear(struct buf *buf);

/* Cuts the content to its first len bytes; len <= buf->len. */
void buf_truncate(struct buf *buf, size_t len);

/* Hands the content over as a malloc'd block of *len bytes with a NUL behind it, and leaves the
 * buffer empty. STATUS_FULL if there is no memory. */
MUST_USE enum status buf_take(struct buf *buf, uint8_t **out, size_t *len);

#endif
