/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/page.h - a study as one HTML page: figures, tables, settings; nothing outside it is needed.
 *
 * The page has no script, follows the reader's choice of light or dark, and is the same bytes for
 * the same study.
 *
 * Threads: none of its own.
 * Limits:  PAGE_SIZE_MAX bytes. */
#ifndef SIM_PAGE_H
#define SIM_PAGE_H

#include "base/status.h"

struct buf;
struct study;

enum { PAGE_SIZE_MAX = 64 << 20 };

struct page {
    const struct study *study;
    const char *trace_name; /* as the reader knows it */
    const char *version;    /* of the program */
};

/* STATUS_NO_MEMORY, STATUS_FULL. */
MUST_USE enum status page_write(const struct page *page, struct buf *out);

#endif
