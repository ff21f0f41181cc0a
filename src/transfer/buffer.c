/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/buffer.c - the registered ranges, disjoint and in order of address.
 *
 * Invariants
 *   I1  sorted[i].address + sorted[i].length <= sorted[i+1].address, without wrapping.
 *   I2  A slot is taken exactly while its buffer is in `sorted`. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "transfer/transfer_int.h"

bool buffer_ranges_overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a < b + b_length && b < a + a_length;
}

/* Index of the first buffer that starts beyond `address`. */
static uint32_t upper_bound(const struct buffers *buffers, uint64_t address)
{
    uint32_t low = 0, high = buffers->count;

    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (buffers->sorted[middle]->address > address) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static uint32_t slot_take(struct buffers *buffers)
{
    uint32_t word = 0;

    ASSERT(buffers->count < YOLK_TRANSFER_BUFFERS_MAX); /* so a slot is free, see I2 */
    while (buffers->slots[word] == UINT64_MAX)
        word++;
    const uint32_t bit = (uint32_t)__builtin_ctzll(~buffers->slots[word]);
    buffers->slots[word] |= UINT64_C(1) << bit;
    return word * 64 + bit;
}

enum status buffers_add(struct buffers *buffers, uint64_t address, uint64_t length, unsigned flags,
                        struct buffer **out)
{
    ASSERT(length > 0 && address + length > address);
    if (buffers->count == YOLK_TRANSFER_BUFFERS_MAX) return STATUS_FULL;
    const uint32_t at = upper_bound(buffers, address);
    for (uint32_t i = at > 0 ? at - 1 : 0; i < buffers->count && i <= at; i++) {
        const struct buffer *near = buffers->sorted[i];
        if (buffer_ranges_overlap(address, length, near->address, near->length))
            return STATUS_EXISTS;
    }
    struct buffer *buffer = calloc(1, sizeof(*buffer));
    if (buffer == NULL) return STATUS_NO_MEMORY;
    buffer->address = address;
    buffer->length = length;
    buffer->flags = flags;
    buffer->slot = slot_take(buffers);
    memmove(&buffers->sorted[at + 1], &buffers->sorted[at],
            (buffers->count - at) * sizeof(struct buffer *));
    buffers->sorted[at] = buffer;
    buffers->count++;
    *out = buffer;
    return STATUS_OK;
}

void buffers_remove(struct buffers *buffers, struct buffer *buffer)
{
    const uint32_t at = upper_bound(buffers, buffer->address) - 1;

    ASSERT(at < buffers->count && buffers->sorted[at] == buffer);
    ASSERT(buffer->users == 0);
    buffers->count--;
    memmove(&buffers->sorted[at], &buffers->sorted[at + 1],
            (buffers->count - at) * sizeof(struct buffer *));
    buffers->slots[buffer->slot / 64] &= ~(UINT64_C(1) << (buffer->slot % 64));
    free(buffer);
}

struct buffer *buffers_at(const struct buffers *buffers, uint64_t address)
{
    const uint32_t at = upper_bound(buffers, address);

    if (at == 0 || buffers->sorted[at - 1]->address != address) return NULL;
    return buffers->sorted[at - 1];
}

struct buffer *buffers_find(const struct buffers *buffers, uint64_t address, uint64_t length)
{
    const uint32_t at = upper_bound(buffers, address);

    if (at == 0) return NULL;
    struct buffer *buffer = buffers->sorted[at - 1];
    const uint64_t offset = address - buffer->address;
    if (offset > buffer->length || length > buffer->length - offset) return NULL;
    return buffer;
}
