/* SPDX-License-Identifier: Apache-2.0
 *
 * base/huge.c - aligned memory, and a wish to the kernel. */
#include "base/huge.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/assert.h"

static size_t round_up(size_t size, size_t step)
{
    return (size + step - 1) / step * step;
}

void *huge_alloc(size_t align, size_t size)
{
    ASSERT(align > 0 && align <= HUGE_PAGE && (align & (align - 1)) == 0);
    if (size > SIZE_MAX - HUGE_PAGE) return NULL;
    if (size < HUGE_PAGE) return aligned_alloc(align, round_up(size, align));
    const size_t rounded = round_up(size, HUGE_PAGE);
    void *memory = aligned_alloc(HUGE_PAGE, rounded);
    if (memory != NULL) (void)madvise(memory, rounded, MADV_HUGEPAGE); /* without, it is slower */
    return memory;
}
