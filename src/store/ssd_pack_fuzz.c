/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_pack_fuzz.c - foreign packs.
 *
 * The first two bytes are the length that is expected, the rest is a pack: as it is, and again with
 * its size, its length and its checksum made right, so that zstd sees its frame. Nothing is written
 * beyond that length, and what the bytes themselves become when they are packed comes back. */
#include "store/ssd_pack.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/le.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { LEN_MAX = 1 << 16 };

static void unpack(struct ssd_packer *packer, const uint8_t *pack, size_t size, size_t want)
{
    uint8_t *out = malloc(want); /* of its own, so that a byte too far is seen */
    ASSERT(out != NULL);
    (void)!ssd_unpack(packer, pack, size, out, want);
    free(out);
}

static void pack(struct ssd_packer *packer, const uint8_t *data, size_t len)
{
    uint8_t *out = malloc(len), *back = malloc(len);
    const struct ssd_packing how = { .level = 1, .unit = data[0] % (SSD_PACK_UNIT_MAX + 1) };
    ASSERT(out != NULL && back != NULL);
    const size_t size = ssd_pack(packer, &how, data, len, out, len);
    if (size > 0) {
        ASSERT(ssd_unpack(packer, out, size, back, len) == STATUS_OK);
        ASSERT(memcmp(back, data, len) == 0);
    }
    free(out);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct ssd_packer *packer;

    if (packer == NULL && ssd_packer_create(LEN_MAX, &packer) != STATUS_OK) return 0;
    if (len < 3 || len > LEN_MAX) return 0;
    const size_t want = 1 + le_get16(data);
    const size_t size = len - 2;
    uint8_t *bytes = malloc(size);
    ASSERT(bytes != NULL);
    memcpy(bytes, data + 2, size);
    unpack(packer, bytes, size, want);
    pack(packer, bytes, size);
    if (size > SSD_PACK_HEADER_SIZE) {
        le_put32(bytes + 8, (uint32_t)want);
        le_put32(bytes + 16, (uint32_t)(size - SSD_PACK_HEADER_SIZE));
        le_put32(bytes + 20, 0);
        le_put64(bytes, hash_xxh3(bytes + 8, size - 8));
        unpack(packer, bytes, size, want);
    }
    free(bytes);
    return 0;
}
