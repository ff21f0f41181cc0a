/* SPDX-License-Identifier: Apache-2.0
 *
 * store/vlog_pack.h - the bytes of a value, compressed (store/ssd_pack.h), as they follow the head
 * of a record in a packed segment (store/vlog_format.h).
 *
 *   length of each part u32, padded to 8 | part | part | ... | padding to 4096 |
 *
 * A part is VLOG_PART_SIZE bytes of the value, the last one what is left. One that is as long as
 * what it is of is that; a shorter one is a pack of it. So what is needed to open a value besides
 * its own memory is that of a part.
 *
 * Threads: as a packer. */
#ifndef STORE_VLOG_PACK_H
#define STORE_VLOG_PACK_H

#include <stdint.h>

#include "base/status.h"
#include "store/ssd_pack.h"

enum { VLOG_PART_SIZE = 256 << 10 };

/* Packs the value to `out`, apart from it and vlog_units(size) units long. How many of them are
 * taken, filled up with zeros; vlog_units(size): nothing is saved, and `out` is the value. */
uint32_t vlog_pack(struct ssd_packer *packer, const struct ssd_packing *how, const uint8_t *value,
                   uint64_t size, uint8_t *out);

/* The reverse, of fewer units. STATUS_CORRUPT: it is not of `size` bytes; `out` may be anything. */
MUST_USE enum status vlog_unpack(struct ssd_packer *packer, const uint8_t *in, uint32_t units,
                                 uint8_t *out, uint64_t size);

#endif
