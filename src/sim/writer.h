/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/writer.h - appends text to a buffer and keeps the first failure, so that whoever writes a
 * page looks once, at its end.
 *
 * Memory:  the buffer is the caller's.
 * Threads: none of its own. */
#ifndef SIM_WRITER_H
#define SIM_WRITER_H

#include "base/status.h"

struct buf;

struct writer {
    struct buf *out;
    enum status status; /* STATUS_OK to begin with */
};

void writer_put(struct writer *writer, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* `text` as HTML or SVG shows it: <, >, &, " and ' are escaped, control characters become spaces.
 */
void writer_put_escaped(struct writer *writer, const char *text);

/* A number as people read it: four digits, and k, M, G or T for thousands. */
void writer_put_short(struct writer *writer, double value);

#endif
