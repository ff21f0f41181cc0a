/* SPDX-License-Identifier: Apache-2.0
 *
 * base/huge.h - memory on huge pages, where the system has them to give (`madvise` or `always` in
 * /sys/kernel/mm/transparent_hugepage/enabled); elsewhere it is ordinary memory, only slower: to
 * look things up in, and for a disk to read from.
 *
 * Limits: less than HUGE_PAGE is ordinary memory; more is rounded up to whole pages, which are
 *         taken from the system when they are first touched. */
#ifndef BASE_HUGE_H
#define BASE_HUGE_H

#include <stddef.h>

enum { HUGE_PAGE = 2 << 20 };

/* Aligned to `align`, a power of two up to HUGE_PAGE; not cleared. free() gives it back. NULL: no
 * memory. */
void *huge_alloc(size_t align, size_t size);

#endif
