/* SPDX-License-Identifier: Apache-2.0
 *
 * store/vlog_fuzz.c - every decoder of files of values over foreign bytes.
 *
 * The first byte picks the part, the rest is its bytes, padded with zeros to whole units. A
 * checksum stands before everything else, so an input is tried as it is, and again with its
 * checksum made right, as far as the part says itself where that is. */
#include "store/vlog_format.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/le.h"
#include "store/vlog_pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { UNITS_MAX = 8, NONCE = 7, AT = 1 };

static void seal(uint8_t *part, uint64_t covered, size_t size)
{
    if (covered <= size - 8) le_put64(part + covered, hash_xxh3(part, covered));
}

static void fuzz_header(uint8_t *part)
{
    struct vlog_header header, again;
    uint8_t bytes[VLOG_UNIT];

    seal(part, VLOG_UNIT - 8, VLOG_UNIT);
    if (vlog_header_decode(part, &header) != STATUS_OK) return;
    vlog_header_encode(&header, bytes);
    ASSERT(vlog_header_decode(bytes, &again) == STATUS_OK);
    ASSERT(again.id == header.id && again.nonce == header.nonce);
    ASSERT(again.packed == header.packed && again.sealed == header.sealed);
}

static void fuzz_head(uint8_t *part, uint32_t units)
{
    struct vlog_head head;
    const uint64_t key_len = le_get32(part + 28);
    const uint64_t sums = le_get32(part + 32);

    if (vlog_head_sniff(part, NONCE, AT) != units) return;
    seal(part, 80 + (key_len + 7) / 8 * 8 + 8 * sums, (size_t)units * VLOG_UNIT);
    if (vlog_head_decode(part, units, NONCE, AT, &head) != STATUS_OK) return;
    ASSERT(head.meta.pages > units && head.meta.pages <= units + vlog_units(head.meta.size));
    ASSERT(vlog_meta_packed(&head.meta) == (head.meta.pages < units + vlog_units(head.meta.size)));
    ASSERT(head.sums + (size_t)8 * head.sums_count < part + (size_t)units * VLOG_UNIT);
    if (head.meta.size <= (uint64_t)units * VLOG_UNIT) (void)vlog_bytes_right(&head, part);
}

static void fuzz_gone(uint8_t *part, uint32_t units)
{
    const uint8_t *ids;
    uint32_t count;

    if (vlog_gone_sniff(part, NONCE, AT) != units) return;
    seal(part, 32 + (uint64_t)BLOCK_KEY_SIZE * le_get32(part + 24), (size_t)units * VLOG_UNIT);
    if (vlog_gone_decode(part, units, &ids, &count) != STATUS_OK) return;
    ASSERT(ids + (size_t)count * BLOCK_KEY_SIZE <= part + (size_t)units * VLOG_UNIT - 8);
}

static void fuzz_footer(uint8_t *part, uint32_t units)
{
    const size_t size = (size_t)units * VLOG_UNIT;
    struct vlog_footer footer;
    struct vlog_meta meta;
    struct store_key key;

    seal(part, size - 8, size);
    if (vlog_trailer_decode(part + size - VLOG_TRAILER_SIZE, &footer) != STATUS_OK) return;
    if (footer.pages != units || vlog_footer_decode(part, &footer) != STATUS_OK) return;
    uint64_t offset = (uint64_t)BLOCK_KEY_SIZE * footer.gone;
    for (uint32_t i = 0; i < footer.entries; i++) {
        if (vlog_entry_decode(part, &footer, i, &offset, &meta, &key) != STATUS_OK) break;
        ASSERT(key.bytes + key.len <= part + size && meta.at + meta.pages <= footer.at);
    }
}

/* A value of the size that its last bytes say; packs with the right checksum are
 * store/ssd_pack_fuzz.c's. */
static void fuzz_packed(const uint8_t *part, uint32_t units)
{
    static struct ssd_packer *packer;
    const uint64_t size = 1 + le_get32(part + (size_t)units * VLOG_UNIT - 4) % (3 * VLOG_PART_SIZE);

    if (packer == NULL && ssd_packer_create(VLOG_PART_SIZE, &packer) != STATUS_OK) return;
    uint8_t *out = malloc(size);
    ASSERT(out != NULL);
    (void)!vlog_unpack(packer, part, units, out, size);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0) return 0;
    uint32_t units = vlog_units(len - 1);
    if (units == 0) units = 1;
    if (units > UNITS_MAX) units = UNITS_MAX;
    const size_t size = (size_t)units * VLOG_UNIT;
    uint8_t *part = aligned_alloc(VLOG_UNIT, size);
    ASSERT(part != NULL);
    memset(part, 0, size);
    memcpy(part, data + 1, len - 1 < size ? len - 1 : size);
    switch (data[0] % 5) {
    case 0: fuzz_header(part); break;
    case 1: fuzz_head(part, units); break;
    case 2: fuzz_gone(part, units); break;
    case 3: fuzz_footer(part, units); break;
    case 4: fuzz_packed(part, units); break;
    }
    free(part);
    return 0;
}
