/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/resp.h - Redis's protocol, RESP2, as far as single answers go: status, error, integer,
 * bulk. Pure functions over bytes; arrays are refused, since nothing here asks for one.
 *
 * Memory: none. Threads: any. Limits: RESP_LINE_MAX bytes of a line, RESP_BULK_MAX of a bulk. */
#ifndef TRANSFER_RESP_H
#define TRANSFER_RESP_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct buf;

enum { RESP_LINE_MAX = 1024, RESP_BULK_MAX = 64 << 10 };

enum resp_kind { RESP_STATUS, RESP_ERROR, RESP_INTEGER, RESP_BULK, RESP_NIL };

struct resp_reply {
    enum resp_kind kind;
    const char *text; /* into the bytes given: status, error, bulk */
    size_t len;
    int64_t integer;
};

/* One command: its words, as an array of bulks. Appends. */
MUST_USE enum status resp_write(struct buf *out, const char *const words[], size_t count);

/* The first answer in [data, data+len), and how many bytes it took. AGAIN: it is not whole yet;
 * PROTOCOL: it never will be an answer. */
MUST_USE enum status resp_read(const char *data, size_t len, struct resp_reply *out, size_t *taken);

#endif
