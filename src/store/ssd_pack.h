/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_pack.h - compression at rest: what the disk tiers write, smaller. Used by both formats
 * (store/ssd_format.h, store/vlog_format.h); zstd, of the library that is installed.
 *
 * KVCache is numbers, of which the bytes that hold sign and exponent repeat and the others are
 * noise. So bytes are separated before they are compressed, into planes: of elements of `unit`
 * bytes all first ones, all second ones, and so on (F16: 2; Q8_0: 34, a scale and 32 numbers). Each
 * plane is a frame, because zstd has one code for what it sees as one block. Unit 1 leaves the
 * bytes in their order.
 *
 *   pack | XXH3-64 of the rest u64 | length of what it is of u32 | unit u32 | size of the rest u32,
 *        | 0 u32 | zstd frames, one a plane |
 *
 * Bytes that do not become smaller by at least 1/SSD_PACK_GAIN are no pack: who calls writes them
 * as they are. A sample of SSD_PACK_SAMPLE bytes says so first, so that the attempt is cheap.
 *
 * A pack is foreign bytes: nothing of it is believed. Its checksum is compared before zstd sees it,
 * each frame must be one and say the length that is expected, and nothing is ever written, or
 * allocated, beyond that. What comes out is compared with the checksums of what went in by who
 * calls, as if it had been read as it is.
 *
 * Threads: a packer is used by one at a time. Memory: about 2 MiB and what it is made for. */
#ifndef STORE_SSD_PACK_H
#define STORE_SSD_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    SSD_PACK_HEADER_SIZE = 24,
    SSD_PACK_UNIT_MAX = 64,
    SSD_PACK_LEVEL_MAX = 19,
    SSD_PACK_GAIN = 32,
    SSD_PACK_SAMPLE = 12 << 10,
    SSD_PACK_LEN_MAX = 1 << 28,
};

/* How what is written is packed. */
struct ssd_packing {
    uint32_t level; /* 0: not at all; 1..SSD_PACK_LEVEL_MAX of zstd */
    uint32_t unit;  /* of the elements, 1..SSD_PACK_UNIT_MAX; 0: not known, the sample says */
};

/* Whether the library is there. */
bool ssd_pack_available(void);

/* What was given to --ssd-compress: "off", "zstd" (level 1) or "zstd:N". STATUS_INVALID: none. */
MUST_USE enum status ssd_packing_parse(const char *text, struct ssd_packing *out,
                                       struct errmsg *err);

struct ssd_packer; /* opaque */

/* For pieces of up to len_max bytes, 1..SSD_PACK_LEN_MAX. STATUS_UNSUPPORTED: no library;
 * STATUS_NO_MEMORY. */
MUST_USE enum status ssd_packer_create(size_t len_max, struct ssd_packer **out);
void ssd_packer_destroy(struct ssd_packer *packer); /* NULL is allowed */

/* Packs in[0, len) to `out`, which is in[0, out_max) or apart from it. The size of the pack; 0: it
 * would be larger than out_max or not worth it, and `out` is as it was. */
size_t ssd_pack(struct ssd_packer *packer, const struct ssd_packing *how, const uint8_t *in,
                size_t len, uint8_t *out, size_t out_max);

/* The size of the pack that begins at `in`; 0: there is none that ends within `max` bytes. */
size_t ssd_pack_size(const uint8_t *in, size_t max);

/* The reverse, of a pack of `size` bytes, to `out`, which may overlap it. STATUS_CORRUPT: it is not
 * one of `len` bytes, and `out` is as it was. */
MUST_USE enum status ssd_unpack(struct ssd_packer *packer, const uint8_t *in, size_t size,
                                uint8_t *out, size_t len);

#endif
