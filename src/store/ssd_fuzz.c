/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_fuzz.c - every decoder of segment files over foreign bytes.
 *
 * The first byte picks the part, the rest is its bytes (padded with zeros to the size of a part).
 * A checksum stands before everything else, so an input is tried as it is, and again with its
 * checksum made right. What a decoder accepts is encoded again and must decode to the same. What
 * opens what is sealed must refuse it all, of both formats. */
#include "store/ssd_format.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "store/vlog_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { FOOTER_SIZE_MAX = 16 * SSD_ALIGN };

static void seal(uint8_t *part, size_t size)
{
    const uint64_t sum = hash_xxh3(part, size - 8);
    memcpy(part + size - 8, &sum, sizeof(sum));
}

static void fuzz_header(const uint8_t *part)
{
    struct ssd_header header, again;
    uint8_t bytes[SSD_ALIGN];

    if (ssd_header_decode(part, &header) != STATUS_OK) return;
    ASSERT(store_layout_valid(&header.layout) && header.slots > 0);
    ASSERT(ssd_segment_size(&header.layout, header.slots, header.parts > 0) >
           ssd_record_size(&header.layout));
    ssd_header_encode(&header, bytes);
    ASSERT(ssd_header_decode(bytes, &again) == STATUS_OK);
    ASSERT(again.id == header.id && again.parts == header.parts);
    ASSERT(store_layout_matches(&again.layout, &header.layout));
}

static void fuzz_record(const uint8_t *part)
{
    struct ssd_record record, again;
    uint64_t sums[STORE_LAYERS_MAX], sums_again[STORE_LAYERS_MAX];
    uint8_t bytes[SSD_ALIGN];

    if (ssd_record_decode(part, &record, sums) != STATUS_OK) return;
    ssd_record_encode(&record, sums, bytes);
    ASSERT(ssd_record_decode(bytes, &again, sums_again) == STATUS_OK);
    ASSERT(block_key_equal(&again.key, &record.key) && again.slot == record.slot);
    ASSERT(memcmp(sums, sums_again, record.layers * sizeof(*sums)) == 0);
    ASSERT(again.parts == record.parts && again.at == record.at);
    ASSERT(memcmp(again.units, record.units, sizeof(again.units)) == 0);
}

static void fuzz_footer(const uint8_t *part, size_t size)
{
    struct ssd_footer footer, again;

    if (ssd_footer_decode(part, size, &footer) != STATUS_OK) return;
    struct ssd_entry *entries = calloc(footer.entries + 1, sizeof(*entries));
    uint8_t *bytes = malloc(size);
    ASSERT(entries != NULL && bytes != NULL);
    for (uint32_t i = 0; i < footer.entries; i++)
        entries[i] = ssd_footer_entry(part, &footer, i);
    ssd_footer_encode(&footer, entries, bytes);
    ASSERT(ssd_footer_decode(bytes, size, &again) == STATUS_OK);
    ASSERT(again.used == footer.used && again.offset == footer.offset);
    free(entries);
    free(bytes);
}

static void fuzz_name(const uint8_t *data, size_t len)
{
    char name[64] = "", again[SSD_NAME_SIZE];
    uint64_t id;

    memcpy(name, data, len < sizeof(name) - 1 ? len : sizeof(name) - 1);
    if (!ssd_name_parse(name, &id)) return;
    ssd_name_print(id, again);
    ASSERT(strcmp(name, again) == 0);
}

static void fuzz_keys(const uint8_t *data, size_t len)
{
    struct ssd_keys keys;
    if (ssd_keys_parse((const char *)data, len, &keys, NULL) != STATUS_OK) return;
    ASSERT(keys.count > 0 && keys.count <= SSD_KEYS_MAX);
}

static void fuzz_sealed(uint8_t *part, size_t size)
{
    static const struct ssd_keys keys = { .count = 1 };
    const struct ssd_seal_info info = { { 0 }, { 0 } };
    const struct vlog_meta meta = { .at = 1, .head = 1, .pages = 2 };
    uint8_t tags[SSD_SEALED_LAYERS_MAX * SSD_SEAL_TAG_SIZE];
    uint8_t *copy = calloc(2, size);
    struct ssd_seal *opener;

    ASSERT(copy != NULL);
    if (ssd_seal_create(&keys, &info, &opener) == STATUS_OK) {
        memcpy(copy, part, size);
        ASSERT(ssd_record_open(opener, 0, SSD_SEALED_LAYERS_MAX, copy, tags) != STATUS_OK);
        memcpy(copy, part, size);
        ASSERT(ssd_seal_footer_open(opener, copy, size, SSD_TRAILER_SIZE) != STATUS_OK);
        memcpy(copy, part, size);
        ASSERT(vlog_head_open(opener, 1, 1, copy) != STATUS_OK);
        ASSERT(vlog_bytes_open(opener, &meta, part, copy + VLOG_UNIT) != STATUS_OK);
        ASSERT(vlog_gone_open(opener, 1, 1, copy) != STATUS_OK);
        ASSERT(ssd_seal_header_check(opener, part) != STATUS_OK);
        ssd_seal_destroy(opener);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0) return 0;
    const unsigned which = data[0] % 6;
    size_t size = SSD_ALIGN;
    while (which == 2 && size < len - 1 && size < FOOTER_SIZE_MAX)
        size += SSD_ALIGN;
    if (which == 3) {
        fuzz_name(data + 1, len - 1);
        return 0;
    }
    if (which == 4) {
        fuzz_keys(data + 1, len - 1);
        return 0;
    }
    uint8_t *part = calloc(1, size);
    ASSERT(part != NULL);
    memcpy(part, data + 1, len - 1 < size ? len - 1 : size);
    for (int sealed = 0; sealed < 2; sealed++) {
        if (sealed != 0) seal(part, size);
        if (which == 0) fuzz_header(part);
        if (which == 1) fuzz_record(part);
        if (which == 2) fuzz_footer(part, size);
        if (which == 5) fuzz_sealed(part, size);
    }
    free(part);
    return 0;
}
