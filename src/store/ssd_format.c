/* SPDX-License-Identifier: Apache-2.0 */
#include "store/ssd_format.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/le.h"

enum {
    SUM_OFFSET = SSD_ALIGN - 8,

    HEADER_VERSION = 8,
    HEADER_SLOTS = 12,
    HEADER_ID = 16,
    HEADER_NONCE = 24,
    HEADER_LAYOUT_ID = 32,
    HEADER_PAGE_SIZE = 48,
    HEADER_LAYERS = 52,
    HEADER_LAYER_SIZE = 56,
    HEADER_BLOCK_TOKENS = 60,
    HEADER_PARTS = 128,

    RECORD_NONCE = 8,
    RECORD_SLOT = 16,
    RECORD_LAYERS = 20,
    RECORD_KEY = 24,
    RECORD_SYNCED = 40,
    RECORD_PARTS = 44,
    RECORD_SUMS = 48,

    SEALED_FROM = 24, /* of a record header: what is before is clear */
    SEALED_TAG = SUM_OFFSET - SSD_SEAL_TAG_SIZE,

    ENTRY_SLOT = BLOCK_KEY_SIZE,
    ENTRY_AT = ENTRY_SLOT + 4,
    ENTRY_UNITS = ENTRY_SLOT + 8,
    ENTRY_FIRST = ENTRY_SLOT + 12,

    TRAILER_NONCE = 8,
    TRAILER_OFFSET = 16,
    TRAILER_ENTRIES = 24,
    TRAILER_USED = 28,
    TRAILER_SUM = 32,
};

static_assert(RECORD_SUMS + 8 * STORE_LAYERS_MAX <= SUM_OFFSET, "the sums of a block fit a header");

static_assert(RECORD_SUMS + (8 + SSD_SEAL_TAG_SIZE) * SSD_SEALED_LAYERS_MAX <= SEALED_TAG,
              "so do the tags of a sealed one");

static_assert(RECORD_SUMS + 8 * STORE_LAYERS_MAX + 4 + (4 + SSD_SEAL_TAG_SIZE) * SSD_PARTS_MAX <=
                  SEALED_TAG,
              "and what a packed one says of its parts");
static_assert((int)SSD_PARTS_MAX <= (int)SSD_SEALED_LAYERS_MAX, "there is room for their tags");

static const uint8_t SEGMENT_MAGIC[8] = "YOLKSEG1";
static const uint8_t RECORD_MAGIC[8] = "YOLKREC1";
static const uint8_t FOOTER_MAGIC[8] = "YOLKFTR1";
static const uint8_t PACKED_MAGIC[8] = "YOLKFTR3"; /* of a packed segment's footer */

/* ---- sizes ---- */

static uint64_t align_up(uint64_t size)
{
    return (size + SSD_ALIGN - 1) / SSD_ALIGN * SSD_ALIGN;
}

uint64_t ssd_payload_size(const struct store_layout *layout)
{
    return align_up((uint64_t)layout->layers * layout->layer_size);
}

uint64_t ssd_record_size(const struct store_layout *layout)
{
    return SSD_ALIGN + ssd_payload_size(layout);
}

uint64_t ssd_record_offset(const struct store_layout *layout, uint32_t slot)
{
    return SSD_ALIGN + slot * ssd_record_size(layout);
}

static size_t entry_size(bool packed)
{
    return packed ? SSD_PACKED_ENTRY_SIZE : SSD_ENTRY_SIZE;
}

uint64_t ssd_footer_size(uint32_t entries, bool packed)
{
    return align_up(entries * entry_size(packed) + SSD_SEAL_FOOTER_SIZE + SSD_TRAILER_SIZE);
}

uint64_t ssd_segment_size(const struct store_layout *layout, uint32_t slots, bool packed)
{
    return ssd_record_offset(layout, slots) +
           ssd_footer_size(packed ? SSD_PACKED_SLOTS * slots : slots, packed);
}

/* ---- header ---- */

static uint32_t version_of(const struct ssd_header *header)
{
    if (header->parts > 0) return header->sealed ? SSD_FORMAT_PACKED_SEALED : SSD_FORMAT_PACKED;
    return header->sealed ? SSD_FORMAT_SEALED : SSD_FORMAT_VERSION;
}

void ssd_header_encode(const struct ssd_header *header, uint8_t out[SSD_ALIGN])
{
    const struct store_layout *layout = &header->layout;
    ASSERT(header->slots > 0 && header->slots <= SSD_SLOTS_MAX);
    ASSERT(store_layout_valid(layout) && header->parts <= SSD_PARTS_MAX);

    memset(out, 0, SSD_ALIGN);
    memcpy(out, SEGMENT_MAGIC, sizeof(SEGMENT_MAGIC));
    le_put32(out + HEADER_VERSION, version_of(header));
    le_put32(out + HEADER_PARTS, header->parts);
    le_put32(out + HEADER_SLOTS, header->slots);
    le_put64(out + HEADER_ID, header->id);
    le_put64(out + HEADER_NONCE, header->nonce);
    memcpy(out + HEADER_LAYOUT_ID, layout->id, STORE_LAYOUT_ID_SIZE);
    le_put32(out + HEADER_PAGE_SIZE, layout->page_size);
    le_put32(out + HEADER_LAYERS, layout->layers);
    le_put32(out + HEADER_LAYER_SIZE, layout->layer_size);
    le_put32(out + HEADER_BLOCK_TOKENS, layout->block_tokens);
    le_put64(out + SUM_OFFSET, hash_xxh3(out, SUM_OFFSET));
}

enum status ssd_header_decode(const uint8_t in[SSD_ALIGN], struct ssd_header *out)
{
    if (memcmp(in, SEGMENT_MAGIC, sizeof(SEGMENT_MAGIC)) != 0) return STATUS_CORRUPT;
    if (le_get64(in + SUM_OFFSET) != hash_xxh3(in, SUM_OFFSET)) return STATUS_CORRUPT;
    const uint32_t version = le_get32(in + HEADER_VERSION);
    if (version < SSD_FORMAT_VERSION || version > SSD_FORMAT_PACKED_SEALED) return STATUS_CORRUPT;
    const bool packed = version >= SSD_FORMAT_PACKED;
    struct ssd_header got = {
        .id = le_get64(in + HEADER_ID),
        .nonce = le_get64(in + HEADER_NONCE),
        .slots = le_get32(in + HEADER_SLOTS),
        .parts = packed ? le_get32(in + HEADER_PARTS) : 0,
        .sealed = version == SSD_FORMAT_SEALED || version == SSD_FORMAT_PACKED_SEALED,
        .seal = ssd_seal_header_info(in),
        .layout = { .pages = 1,
                    .page_size = le_get32(in + HEADER_PAGE_SIZE),
                    .layers = le_get32(in + HEADER_LAYERS),
                    .layer_size = le_get32(in + HEADER_LAYER_SIZE),
                    .block_tokens = le_get32(in + HEADER_BLOCK_TOKENS) },
    };
    memcpy(got.layout.id, in + HEADER_LAYOUT_ID, STORE_LAYOUT_ID_SIZE);
    if (got.slots == 0 || got.slots > SSD_SLOTS_MAX) return STATUS_CORRUPT;
    if (!store_layout_valid(&got.layout)) return STATUS_CORRUPT;
    if (packed && (got.parts == 0 || got.parts > SSD_PARTS_MAX)) return STATUS_CORRUPT;
    *out = got;
    return STATUS_OK;
}

/* ---- record ---- */

void ssd_record_encode(const struct ssd_record *record, const uint64_t *sums,
                       uint8_t out[SSD_ALIGN])
{
    ASSERT(record->layers > 0 && record->layers <= STORE_LAYERS_MAX);
    ASSERT(record->synced <= record->slot && record->parts <= SSD_PARTS_MAX);

    memset(out, 0, SSD_ALIGN);
    memcpy(out, RECORD_MAGIC, sizeof(RECORD_MAGIC));
    le_put64(out + RECORD_NONCE, record->nonce);
    le_put32(out + RECORD_SLOT, record->slot);
    le_put32(out + RECORD_LAYERS, record->layers);
    memcpy(out + RECORD_KEY, record->key.bytes, BLOCK_KEY_SIZE);
    le_put32(out + RECORD_SYNCED, record->synced);
    for (uint32_t i = 0; i < record->layers; i++)
        le_put64(out + RECORD_SUMS + (size_t)8 * i, sums[i]);
    le_put32(out + RECORD_PARTS, record->parts);
    uint8_t *at = out + RECORD_SUMS + (size_t)8 * record->layers;
    if (record->parts > 0) le_put32(at, record->at);
    for (uint32_t i = 0; i < record->parts; i++)
        le_put32(at + 4 + (size_t)4 * i, record->units[i]);
    le_put64(out + SUM_OFFSET, hash_xxh3(out, SUM_OFFSET));
}

enum status ssd_record_decode(const uint8_t in[SSD_ALIGN], struct ssd_record *out, uint64_t *sums)
{
    if (memcmp(in, RECORD_MAGIC, sizeof(RECORD_MAGIC)) != 0) return STATUS_CORRUPT;
    if (le_get64(in + SUM_OFFSET) != hash_xxh3(in, SUM_OFFSET)) return STATUS_CORRUPT;
    struct ssd_record got = { .nonce = le_get64(in + RECORD_NONCE),
                              .slot = le_get32(in + RECORD_SLOT),
                              .synced = le_get32(in + RECORD_SYNCED),
                              .layers = le_get32(in + RECORD_LAYERS),
                              .parts = le_get32(in + RECORD_PARTS) };
    memcpy(got.key.bytes, in + RECORD_KEY, BLOCK_KEY_SIZE);
    if (got.layers == 0 || got.layers > STORE_LAYERS_MAX) return STATUS_CORRUPT;
    if (got.slot >= SSD_SLOTS_MAX || got.synced > got.slot) return STATUS_CORRUPT;
    if (got.parts > SSD_PARTS_MAX) return STATUS_CORRUPT;
    const uint8_t *at = in + RECORD_SUMS + (size_t)8 * got.layers;
    if (got.parts > 0) got.at = le_get32(at);
    for (uint32_t i = 0; i < got.parts; i++) {
        got.units[i] = le_get32(at + 4 + (size_t)4 * i);
        if (got.units[i] == 0) return STATUS_CORRUPT;
    }
    for (uint32_t i = 0; i < got.layers; i++)
        sums[i] = le_get64(in + RECORD_SUMS + (size_t)8 * i);
    *out = got;
    return STATUS_OK;
}

bool ssd_record_sniff(const uint8_t in[SSD_ALIGN], uint64_t nonce, uint32_t *slot)
{
    if (memcmp(in, RECORD_MAGIC, sizeof(RECORD_MAGIC)) != 0) return false;
    if (le_get64(in + RECORD_NONCE) != nonce) return false;
    *slot = le_get32(in + RECORD_SLOT);
    return true;
}

static struct ssd_seal_place layer_place(uint32_t slot, uint32_t i)
{
    return (struct ssd_seal_place){ SSD_SEAL_DATA, slot, i };
}

static struct ssd_seal_place head_place(uint32_t slot)
{
    return (struct ssd_seal_place){ SSD_SEAL_HEAD, slot, 0 };
}

static void head_seal(struct ssd_seal *seal, uint32_t slot, uint8_t *header)
{
    ssd_seal_part(seal, head_place(slot), header, SEALED_FROM, SEALED_TAG, header + SEALED_TAG);
    le_put64(header + SUM_OFFSET, hash_xxh3(header, SUM_OFFSET));
}

void ssd_record_seal(struct ssd_seal *seal, uint32_t slot, const struct store_layout *layout,
                     uint8_t *record)
{
    uint8_t *tags = record + RECORD_SUMS + (size_t)8 * layout->layers;
    ASSERT(layout->layers <= SSD_SEALED_LAYERS_MAX);

    for (uint32_t i = 0; i < layout->layers; i++) {
        uint8_t *layer = record + SSD_ALIGN + (size_t)i * layout->layer_size;
        ssd_seal_part(seal, layer_place(slot, i), layer, 0, layout->layer_size,
                      tags + (size_t)SSD_SEAL_TAG_SIZE * i);
    }
    head_seal(seal, slot, record);
}

/* Where the tags of a record's parts are, or layers. */
static size_t tags_at(uint32_t layers, uint32_t parts)
{
    return RECORD_SUMS + (size_t)8 * layers + (parts > 0 ? 4 + (size_t)4 * parts : 0);
}

void ssd_packed_seal(struct ssd_seal *seal, const struct ssd_record *record, uint8_t *bytes)
{
    uint8_t *tags = bytes + tags_at(record->layers, record->parts);
    uint8_t *part = bytes + SSD_ALIGN;
    ASSERT(record->parts > 0);

    for (uint32_t i = 0; i < record->parts; i++) {
        const size_t size = (size_t)record->units[i] * SSD_ALIGN;
        ssd_seal_part(seal, layer_place(record->slot, i), part, 0, size,
                      tags + (size_t)SSD_SEAL_TAG_SIZE * i);
        part += size;
    }
    head_seal(seal, record->slot, bytes);
}

enum status ssd_record_open(struct ssd_seal *seal, uint32_t slot, uint32_t layers,
                            uint8_t header[SSD_ALIGN], uint8_t *tags)
{
    ASSERT(layers <= SSD_SEALED_LAYERS_MAX);
    if (le_get64(header + SUM_OFFSET) != hash_xxh3(header, SUM_OFFSET)) return STATUS_CORRUPT;
    const enum status status =
        ssd_seal_open(seal, head_place(slot), header, SEALED_FROM, SEALED_TAG, header + SEALED_TAG);
    if (status != STATUS_OK) return status;
    const uint32_t parts = le_get32(header + RECORD_PARTS);
    if (parts > SSD_PARTS_MAX) return STATUS_CORRUPT;
    memcpy(tags, header + tags_at(layers, parts),
           (size_t)SSD_SEAL_TAG_SIZE * (parts > 0 ? parts : layers));
    le_put64(header + SUM_OFFSET, hash_xxh3(header, SUM_OFFSET));
    return STATUS_OK;
}

enum status ssd_layer_open(struct ssd_seal *seal, uint32_t slot, uint32_t i, uint8_t *layer,
                           size_t size, const uint8_t *tags)
{
    return ssd_seal_open(seal, layer_place(slot, i), layer, 0, size,
                         tags + (size_t)SSD_SEAL_TAG_SIZE * i);
}

/* ---- footer ---- */

void ssd_footer_encode(const struct ssd_footer *footer, const struct ssd_entry *entries,
                       uint8_t *out)
{
    const uint64_t size = ssd_footer_size(footer->entries, footer->packed);
    uint8_t *trailer = out + size - SSD_TRAILER_SIZE;
    ASSERT(footer->entries <= footer->used && footer->used <= SSD_SLOTS_MAX);

    memset(out, 0, size);
    for (uint32_t i = 0; i < footer->entries; i++) {
        uint8_t *at = out + entry_size(footer->packed) * i;
        ASSERT(entries[i].slot < footer->used);
        memcpy(at, entries[i].key.bytes, BLOCK_KEY_SIZE);
        le_put32(at + ENTRY_SLOT, entries[i].slot);
        if (!footer->packed) continue;
        le_put32(at + ENTRY_AT, entries[i].place.at);
        le_put32(at + ENTRY_UNITS, entries[i].place.units);
        le_put32(at + ENTRY_FIRST, entries[i].place.first);
    }
    memcpy(trailer, footer->packed ? PACKED_MAGIC : FOOTER_MAGIC, sizeof(FOOTER_MAGIC));
    le_put64(trailer + TRAILER_NONCE, footer->nonce);
    le_put64(trailer + TRAILER_OFFSET, footer->offset);
    le_put32(trailer + TRAILER_ENTRIES, footer->entries);
    le_put32(trailer + TRAILER_USED, footer->used);
    le_put64(trailer + TRAILER_SUM, hash_xxh3(out, size - 8));
}

enum status ssd_trailer_decode(const uint8_t *in, struct ssd_footer *out)
{
    const bool packed = memcmp(in, PACKED_MAGIC, sizeof(PACKED_MAGIC)) == 0;
    if (!packed && memcmp(in, FOOTER_MAGIC, sizeof(FOOTER_MAGIC)) != 0) return STATUS_CORRUPT;
    const struct ssd_footer got = { .packed = packed,
                                    .nonce = le_get64(in + TRAILER_NONCE),
                                    .offset = le_get64(in + TRAILER_OFFSET),
                                    .entries = le_get32(in + TRAILER_ENTRIES),
                                    .used = le_get32(in + TRAILER_USED) };
    if (got.used > SSD_SLOTS_MAX || got.entries > got.used) return STATUS_CORRUPT;
    *out = got;
    return STATUS_OK;
}

/* A record with a header and a part, all before the footer. */
static bool place_right(const struct ssd_place *place, const struct ssd_footer *footer)
{
    return place->at > 0 && place->first > 0 && place->first < place->units &&
           ((uint64_t)place->at + place->units) * SSD_ALIGN <= footer->offset;
}

enum status ssd_footer_decode(const uint8_t *in, uint64_t size, struct ssd_footer *out)
{
    struct ssd_footer got;
    uint32_t slot_least = 0;

    if (size < SSD_TRAILER_SIZE) return STATUS_CORRUPT;
    if (ssd_trailer_decode(in + size - SSD_TRAILER_SIZE, &got) != STATUS_OK) return STATUS_CORRUPT;
    if (ssd_footer_size(got.entries, got.packed) != size) return STATUS_CORRUPT;
    if (le_get64(in + size - 8) != hash_xxh3(in, size - 8)) return STATUS_CORRUPT;
    for (uint32_t i = 0; i < got.entries; i++) {
        const struct ssd_entry entry = ssd_footer_entry(in, &got, i);
        if (entry.slot >= got.used || entry.slot < slot_least) return STATUS_CORRUPT;
        slot_least = entry.slot + 1;
        if (got.packed && !place_right(&entry.place, &got)) return STATUS_CORRUPT;
    }
    *out = got;
    return STATUS_OK;
}

struct ssd_entry ssd_footer_entry(const uint8_t *in, const struct ssd_footer *footer, uint32_t i)
{
    const uint8_t *at = in + entry_size(footer->packed) * i;
    struct ssd_entry entry = { .slot = le_get32(at + ENTRY_SLOT) };
    memcpy(entry.key.bytes, at, BLOCK_KEY_SIZE);
    if (footer->packed) {
        entry.place = (struct ssd_place){ .at = le_get32(at + ENTRY_AT),
                                          .units = le_get32(at + ENTRY_UNITS),
                                          .first = le_get32(at + ENTRY_FIRST) };
    }
    return entry;
}

/* ---- names ---- */

void ssd_name_print(uint64_t id, char out[SSD_NAME_SIZE])
{
    snprintf(out, SSD_NAME_SIZE, "seg-%016llx.kv", (unsigned long long)id);
}

bool ssd_name_parse(const char *name, uint64_t *id)
{
    char again[SSD_NAME_SIZE];
    uint64_t got = 0;

    if (strlen(name) != strlen("seg-0123456789abcdef.kv")) return false;
    for (const char *at = name + 4; at < name + 20; at++) {
        const char *digits = "0123456789abcdef";
        const char *digit = *at != '\0' ? strchr(digits, *at) : NULL;
        if (digit == NULL) return false;
        got = got << 4 | (uint64_t)(digit - digits);
    }
    ssd_name_print(got, again);
    if (strcmp(again, name) != 0) return false;
    *id = got;
    return true;
}
