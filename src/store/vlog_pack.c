/* SPDX-License-Identifier: Apache-2.0 */
#include "store/vlog_pack.h"

#include <string.h>

#include "base/assert.h"
#include "base/le.h"
#include "store/vlog_format.h"

static uint64_t table_size(uint64_t size)
{
    const uint64_t parts = (size + VLOG_PART_SIZE - 1) / VLOG_PART_SIZE;
    return (parts * 4 + 7) / 8 * 8;
}

static size_t part_len(uint64_t size, uint64_t offset)
{
    return size - offset < VLOG_PART_SIZE ? size - offset : VLOG_PART_SIZE;
}

/* Bytes of `out` taken; 0: more than `room`. */
static uint64_t parts_pack(struct ssd_packer *packer, const struct ssd_packing *how,
                           const uint8_t *value, uint64_t size, uint8_t *out, uint64_t room)
{
    uint64_t at = table_size(size);
    uint8_t *table = out;

    if (at > room) return 0;
    memset(table, 0, at);
    for (uint64_t offset = 0; offset < size; offset += VLOG_PART_SIZE, table += 4) {
        const size_t len = part_len(size, offset);
        const uint64_t left = room - at;
        size_t n = ssd_pack(packer, how, value + offset, len, out + at, left < len ? left : len);
        if (n == 0) {
            if (len > left) return 0;
            memcpy(out + at, value + offset, len);
            n = len;
        }
        le_put32(table, (uint32_t)n);
        at += n;
    }
    return at;
}

uint32_t vlog_pack(struct ssd_packer *packer, const struct ssd_packing *how, const uint8_t *value,
                   uint64_t size, uint8_t *out)
{
    const uint32_t units = vlog_units(size);
    uint64_t taken = 0;
    ASSERT(size > 0);

    if (units > 1)
        taken = parts_pack(packer, how, value, size, out, (uint64_t)(units - 1) * VLOG_UNIT);
    if (taken == 0) {
        memcpy(out, value, size);
        taken = size;
    }
    memset(out + taken, 0, (uint64_t)vlog_units(taken) * VLOG_UNIT - taken);
    return vlog_units(taken);
}

enum status vlog_unpack(struct ssd_packer *packer, const uint8_t *in, uint32_t units, uint8_t *out,
                        uint64_t size)
{
    const uint64_t end = (uint64_t)units * VLOG_UNIT;
    const uint8_t *table = in;
    uint64_t at = table_size(size);

    if (at > end) return STATUS_CORRUPT;
    for (uint64_t offset = 0; offset < size; offset += VLOG_PART_SIZE, table += 4) {
        const size_t len = part_len(size, offset);
        const uint32_t n = le_get32(table);
        if (n == 0 || n > len || n > end - at) return STATUS_CORRUPT;
        if (n == len) {
            memcpy(out + offset, in + at, len);
        } else if (ssd_unpack(packer, in + at, n, out + offset, len) != STATUS_OK) {
            return STATUS_CORRUPT;
        }
        at += n;
    }
    return STATUS_OK;
}
