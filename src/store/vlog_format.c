/* SPDX-License-Identifier: Apache-2.0 */
#include "store/vlog_format.h"

#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/le.h"
#include "store/proto.h"

enum {
    HEADER_VERSION = 8,
    HEADER_ID = 16,
    HEADER_NONCE = 24,
    HEADER_SUM = VLOG_UNIT - 8,

    RECORD_NONCE = 8,
    RECORD_AT = 16,

    HEAD_UNITS = 20,
    HEAD_PAGES = 24,
    HEAD_KEY_LEN = 28,
    HEAD_SUMS = 32,
    HEAD_TERM_LOW = 36,
    HEAD_SIZE = 40,
    HEAD_PUT_ID = 48,
    HEAD_ATTRIBUTES = 56,
    HEAD_TERM_HIGH = 76,
    HEAD_KEY = 80,

    SEALED_FROM = 24,                         /* of a record: what is before is clear */
    SEALED_HEAD_SIZE = 2 * SSD_SEAL_TAG_SIZE, /* of the head, and of the bytes */

    GONE_PAGES = 20,
    GONE_COUNT = 24,
    GONE_IDS = 32,

    ENTRY_AT = 16,
    ENTRY_HEAD = 20,
    ENTRY_PAGES = 24,
    ENTRY_KEY_LEN = 28,
    ENTRY_SIZE = 32,
    ENTRY_PUT_ID = 40,
    ENTRY_DIGEST = 48,
    ENTRY_ATTRIBUTES = 56,
    ENTRY_DATED = 76, /* its term follows the entries */
    ENTRY_KEY = 80,

    TRAILER_NONCE = 8,
    TRAILER_AT = 16,
    TRAILER_PAGES = 20,
    TRAILER_GONE = 24,
    TRAILER_ENTRIES = 28,
    TRAILER_ENTRIES_SIZE = 32,
    TRAILER_SUM = 40,
};

static const uint8_t SEGMENT_MAGIC[8] = "YOLKVSG1";
static const uint8_t VALUE_MAGIC[8] = "YOLKVAL1";
static const uint8_t GONE_MAGIC[8] = "YOLKVGN1";
static const uint8_t FOOTER_MAGIC[8] = "YOLKVFT1";

static uint64_t align8(uint64_t size)
{
    return (size + 7) / 8 * 8;
}

uint32_t vlog_units(uint64_t size)
{
    return (uint32_t)((size + VLOG_UNIT - 1) / VLOG_UNIT);
}

/* Group u64, version u32, cost u32, depth u16, replicas u8, hard_pin u8. */
static void attributes_encode(const struct store_attributes *attributes, uint8_t *at)
{
    le_put64(at, attributes->group);
    le_put32(at + 8, attributes->version);
    le_put32(at + 12, attributes->cost);
    le_put16(at + 16, attributes->depth);
    at[18] = attributes->replicas;
    at[19] = attributes->hard_pin;
}

static struct store_attributes attributes_decode(const uint8_t *at)
{
    return (struct store_attributes){ .group = le_get64(at),
                                      .version = le_get32(at + 8),
                                      .cost = le_get32(at + 12),
                                      .depth = le_get16(at + 16),
                                      .replicas = at[18],
                                      .hard_pin = at[19] != 0 };
}

/* ---- header ---- */

static uint32_t version_of(const struct vlog_header *header)
{
    if (header->packed) return header->sealed ? VLOG_FORMAT_PACKED_SEALED : VLOG_FORMAT_PACKED;
    return header->sealed ? VLOG_FORMAT_SEALED : VLOG_FORMAT_VERSION;
}

void vlog_header_encode(const struct vlog_header *header, uint8_t out[VLOG_UNIT])
{
    memset(out, 0, VLOG_UNIT);
    memcpy(out, SEGMENT_MAGIC, sizeof(SEGMENT_MAGIC));
    le_put32(out + HEADER_VERSION, version_of(header));
    le_put64(out + HEADER_ID, header->id);
    le_put64(out + HEADER_NONCE, header->nonce);
    le_put64(out + HEADER_SUM, hash_xxh3(out, HEADER_SUM));
}

enum status vlog_header_decode(const uint8_t in[VLOG_UNIT], struct vlog_header *out)
{
    if (memcmp(in, SEGMENT_MAGIC, sizeof(SEGMENT_MAGIC)) != 0) return STATUS_CORRUPT;
    if (le_get64(in + HEADER_SUM) != hash_xxh3(in, HEADER_SUM)) return STATUS_CORRUPT;
    const uint32_t version = le_get32(in + HEADER_VERSION);
    if (version < VLOG_FORMAT_VERSION || version > VLOG_FORMAT_PACKED_SEALED) return STATUS_CORRUPT;
    *out = (struct vlog_header){ .id = le_get64(in + HEADER_ID),
                                 .nonce = le_get64(in + HEADER_NONCE),
                                 .packed = version >= VLOG_FORMAT_PACKED,
                                 .sealed = version == VLOG_FORMAT_SEALED ||
                                           version == VLOG_FORMAT_PACKED_SEALED,
                                 .seal = ssd_seal_header_info(in) };
    return STATUS_OK;
}

/* ---- values ---- */

/* Up to its checksum. */
static uint64_t head_size(uint32_t key_len, uint32_t sums_count)
{
    return HEAD_KEY + align8(key_len) + (uint64_t)8 * sums_count;
}

uint32_t vlog_head_units(uint32_t key_len, uint32_t sums_count)
{
    return vlog_units(head_size(key_len, sums_count) + 8 + SEALED_HEAD_SIZE);
}

/* Of a record that has a head and something behind it. */
static bool pages_right(const struct vlog_meta *meta)
{
    return meta->head > 0 && meta->pages > meta->head &&
           meta->pages - meta->head <= vlog_units(meta->size);
}

bool vlog_meta_packed(const struct vlog_meta *meta)
{
    return meta->pages - meta->head < vlog_units(meta->size);
}

void vlog_head_move(uint8_t *head, uint64_t nonce, uint32_t at, uint32_t pages)
{
    const uint64_t covered = head_size(le_get32(head + HEAD_KEY_LEN), le_get32(head + HEAD_SUMS));
    le_put64(head + RECORD_NONCE, nonce);
    le_put32(head + RECORD_AT, at);
    le_put32(head + HEAD_PAGES, pages);
    le_put64(head + covered, hash_xxh3(head, covered));
}

void vlog_head_encode(const struct vlog_meta *meta, uint64_t nonce, struct store_key key,
                      const uint64_t *sums, uint32_t sums_count, uint8_t *out)
{
    uint8_t *at = out + HEAD_KEY + align8(key.len);
    ASSERT(meta->head == vlog_head_units(key.len, sums_count));
    ASSERT(meta->pages == meta->head + vlog_units(meta->size));

    memset(out, 0, (size_t)meta->head * VLOG_UNIT);
    memcpy(out, VALUE_MAGIC, sizeof(VALUE_MAGIC));
    le_put64(out + RECORD_NONCE, nonce);
    le_put32(out + RECORD_AT, meta->at);
    le_put32(out + HEAD_UNITS, meta->head);
    le_put32(out + HEAD_PAGES, meta->pages);
    le_put32(out + HEAD_KEY_LEN, key.len);
    le_put32(out + HEAD_SUMS, sums_count);
    le_put64(out + HEAD_SIZE, meta->size);
    le_put64(out + HEAD_PUT_ID, meta->put_id);
    attributes_encode(&meta->attributes, out + HEAD_ATTRIBUTES);
    le_put32(out + HEAD_TERM_LOW, (uint32_t)meta->attributes.term);
    le_put32(out + HEAD_TERM_HIGH, (uint32_t)(meta->attributes.term >> 32));
    memcpy(out + HEAD_KEY, key.bytes, key.len);
    for (uint32_t i = 0; i < sums_count; i++, at += 8)
        le_put64(at, sums[i]);
    le_put64(at, hash_xxh3(out, (size_t)(at - out)));
}

static bool record_is(const uint8_t *in, const uint8_t magic[8], uint64_t nonce, uint32_t at)
{
    return memcmp(in, magic, 8) == 0 && le_get64(in + RECORD_NONCE) == nonce &&
           le_get32(in + RECORD_AT) == at;
}

uint32_t vlog_head_sniff(const uint8_t in[VLOG_UNIT], uint64_t nonce, uint32_t at)
{
    const uint32_t most = vlog_head_units(STORE_KEY_SIZE_MAX, STORE_PIECES_MAX);
    const uint32_t units = le_get32(in + HEAD_UNITS);
    return record_is(in, VALUE_MAGIC, nonce, at) && units <= most ? units : 0;
}

enum status vlog_head_decode(const uint8_t *in, uint32_t units, uint64_t nonce, uint32_t at,
                             struct vlog_head *out)
{
    if (units == 0 || vlog_head_sniff(in, nonce, at) != units) return STATUS_CORRUPT;
    const uint32_t key_len = le_get32(in + HEAD_KEY_LEN);
    const uint32_t sums = le_get32(in + HEAD_SUMS);
    const uint64_t size = le_get64(in + HEAD_SIZE);

    if (key_len == 0 || key_len > STORE_KEY_SIZE_MAX) return STATUS_CORRUPT;
    if (size == 0 || size > STORE_OBJECT_SIZE_MAX) return STATUS_CORRUPT;
    if (sums != (size + STORE_PIECE_SIZE - 1) / STORE_PIECE_SIZE) return STATUS_CORRUPT;
    const uint64_t covered = head_size(key_len, sums);
    /* Earlier releases kept no room for the tags. */
    if (units != vlog_head_units(key_len, sums) && units != vlog_units(covered + 8))
        return STATUS_CORRUPT;
    if (le_get64(in + covered) != hash_xxh3(in, covered)) return STATUS_CORRUPT;
    *out = (struct vlog_head){
        .meta = { .at = at,
                  .head = units,
                  .pages = le_get32(in + HEAD_PAGES),
                  .size = size,
                  .put_id = le_get64(in + HEAD_PUT_ID),
                  .attributes = attributes_decode(in + HEAD_ATTRIBUTES) },
        .key = { in + HEAD_KEY, key_len },
        .sums = in + covered - (uint64_t)8 * sums,
        .sums_count = sums,
    };
    if (!pages_right(&out->meta)) return STATUS_CORRUPT;
    out->meta.attributes.term =
        (uint64_t)le_get32(in + HEAD_TERM_HIGH) << 32 | le_get32(in + HEAD_TERM_LOW);
    out->meta.id = store_key_id(out->key);
    out->meta.digest = hash_xxh3(out->sums, (size_t)8 * sums);
    return STATUS_OK;
}

bool vlog_bytes_right(const struct vlog_head *head, const uint8_t *data)
{
    for (uint32_t i = 0; i < head->sums_count; i++) {
        const uint64_t offset = (uint64_t)i * STORE_PIECE_SIZE;
        const uint64_t left = head->meta.size - offset;
        const size_t piece = left < STORE_PIECE_SIZE ? left : STORE_PIECE_SIZE;
        if (hash_xxh3(data + offset, piece) != le_get64(head->sums + (size_t)8 * i)) return false;
    }
    return true;
}

static struct ssd_seal_place sealed_place(enum ssd_seal_kind kind, uint32_t at)
{
    return (struct ssd_seal_place){ kind, at, 0 };
}

void vlog_value_seal(struct ssd_seal *seal, const struct vlog_meta *meta, uint8_t *record)
{
    const size_t head = (size_t)meta->head * VLOG_UNIT;
    const size_t size = (size_t)(meta->pages - meta->head) * VLOG_UNIT;
    uint8_t *tags = record + head - SEALED_HEAD_SIZE;

    ssd_seal_part(seal, sealed_place(SSD_SEAL_DATA, meta->at), record + head, 0, size, tags);
    ssd_seal_part(seal, sealed_place(SSD_SEAL_HEAD, meta->at), record, SEALED_FROM,
                  head - SSD_SEAL_TAG_SIZE, tags + SSD_SEAL_TAG_SIZE);
}

enum status vlog_head_open(struct ssd_seal *seal, uint32_t at, uint32_t units, uint8_t *head)
{
    const size_t size = (size_t)units * VLOG_UNIT - SSD_SEAL_TAG_SIZE;
    ASSERT(units > 0);
    return ssd_seal_open(seal, sealed_place(SSD_SEAL_HEAD, at), head, SEALED_FROM, size,
                         head + size);
}

enum status vlog_bytes_open(struct ssd_seal *seal, const struct vlog_meta *meta,
                            const uint8_t *head, uint8_t *data)
{
    return ssd_seal_open(seal, sealed_place(SSD_SEAL_DATA, meta->at), data, 0,
                         (size_t)(meta->pages - meta->head) * VLOG_UNIT,
                         head + (size_t)meta->head * VLOG_UNIT - SEALED_HEAD_SIZE);
}

/* ---- gone ---- */

static uint64_t gone_size(uint32_t count)
{
    return GONE_IDS + (uint64_t)BLOCK_KEY_SIZE * count;
}

uint32_t vlog_gone_units(uint32_t count)
{
    return vlog_units(gone_size(count) + 8 + SSD_SEAL_TAG_SIZE);
}

void vlog_gone_encode(uint64_t nonce, uint32_t at, const struct block_key *ids, uint32_t count,
                      uint8_t *out)
{
    const uint32_t units = vlog_gone_units(count);
    const uint64_t size = gone_size(count);

    memset(out, 0, (size_t)units * VLOG_UNIT);
    memcpy(out, GONE_MAGIC, sizeof(GONE_MAGIC));
    le_put64(out + RECORD_NONCE, nonce);
    le_put32(out + RECORD_AT, at);
    le_put32(out + GONE_PAGES, units);
    le_put32(out + GONE_COUNT, count);
    memcpy(out + GONE_IDS, ids, (size_t)BLOCK_KEY_SIZE * count);
    le_put64(out + size, hash_xxh3(out, size));
}

uint32_t vlog_gone_sniff(const uint8_t in[VLOG_UNIT], uint64_t nonce, uint32_t at)
{
    const uint32_t units = le_get32(in + GONE_PAGES);
    return record_is(in, GONE_MAGIC, nonce, at) && units <= 1u << 16 ? units : 0;
}

enum status vlog_gone_decode(const uint8_t *in, uint32_t units, const uint8_t **ids,
                             uint32_t *count)
{
    const uint32_t got = le_get32(in + GONE_COUNT);
    if (got > 1u << 24) return STATUS_CORRUPT;
    const uint64_t size = gone_size(got);
    if (vlog_gone_units(got) != units && vlog_units(size + 8) != units) return STATUS_CORRUPT;
    if (le_get64(in + size) != hash_xxh3(in, size)) return STATUS_CORRUPT;
    *ids = in + GONE_IDS;
    *count = got;
    return STATUS_OK;
}

void vlog_gone_seal(struct ssd_seal *seal, uint32_t at, uint32_t units, uint8_t *record)
{
    const size_t size = (size_t)units * VLOG_UNIT - SSD_SEAL_TAG_SIZE;
    ssd_seal_part(seal, sealed_place(SSD_SEAL_GONE, at), record, SEALED_FROM, size, record + size);
}

enum status vlog_gone_open(struct ssd_seal *seal, uint32_t at, uint32_t units, uint8_t *record)
{
    const size_t size = (size_t)units * VLOG_UNIT - SSD_SEAL_TAG_SIZE;
    ASSERT(units > 0);
    return ssd_seal_open(seal, sealed_place(SSD_SEAL_GONE, at), record, SEALED_FROM, size,
                         record + size);
}

/* ---- footer ---- */

static uint64_t bare_entry_size(uint32_t key_len)
{
    return ENTRY_KEY + align8(key_len);
}

uint64_t vlog_entry_size(uint32_t key_len)
{
    return bare_entry_size(key_len) + VLOG_TERM_SIZE;
}

static uint64_t footer_content(uint64_t gone, uint64_t entries_size)
{
    return BLOCK_KEY_SIZE * gone + entries_size;
}

uint32_t vlog_footer_units(uint64_t gone, uint64_t entries_size)
{
    return vlog_units(footer_content(gone, entries_size) + SSD_SEAL_FOOTER_SIZE +
                      VLOG_TRAILER_SIZE);
}

uint64_t vlog_entry_encode(const struct vlog_meta *meta, struct store_key key, uint8_t *out)
{
    const uint64_t size = bare_entry_size(key.len);
    memset(out, 0, size);
    memcpy(out, meta->id.bytes, BLOCK_KEY_SIZE);
    le_put32(out + ENTRY_AT, meta->at);
    le_put32(out + ENTRY_HEAD, meta->head);
    le_put32(out + ENTRY_PAGES, meta->pages);
    le_put32(out + ENTRY_KEY_LEN, key.len);
    le_put64(out + ENTRY_SIZE, meta->size);
    le_put64(out + ENTRY_PUT_ID, meta->put_id);
    le_put64(out + ENTRY_DIGEST, meta->digest);
    attributes_encode(&meta->attributes, out + ENTRY_ATTRIBUTES);
    le_put32(out + ENTRY_DATED, 1);
    memcpy(out + ENTRY_KEY, key.bytes, key.len);
    return size;
}

void vlog_footer_encode(const struct vlog_footer *footer, uint8_t *out)
{
    const uint64_t content = footer_content(footer->gone, footer->entries_size);
    const uint64_t size = (uint64_t)footer->pages * VLOG_UNIT;
    uint8_t *trailer = out + size - VLOG_TRAILER_SIZE;
    ASSERT(footer->pages == vlog_footer_units(footer->gone, footer->entries_size));

    memset(out + content, 0, size - content);
    memcpy(trailer, FOOTER_MAGIC, sizeof(FOOTER_MAGIC));
    le_put64(trailer + TRAILER_NONCE, footer->nonce);
    le_put32(trailer + TRAILER_AT, footer->at);
    le_put32(trailer + TRAILER_PAGES, footer->pages);
    le_put32(trailer + TRAILER_GONE, footer->gone);
    le_put32(trailer + TRAILER_ENTRIES, footer->entries);
    le_put64(trailer + TRAILER_ENTRIES_SIZE, footer->entries_size);
    le_put64(trailer + TRAILER_SUM, hash_xxh3(out, size - 8));
}

enum status vlog_trailer_decode(const uint8_t *in, struct vlog_footer *out)
{
    if (memcmp(in, FOOTER_MAGIC, sizeof(FOOTER_MAGIC)) != 0) return STATUS_CORRUPT;
    *out = (struct vlog_footer){ .nonce = le_get64(in + TRAILER_NONCE),
                                 .at = le_get32(in + TRAILER_AT),
                                 .pages = le_get32(in + TRAILER_PAGES),
                                 .gone = le_get32(in + TRAILER_GONE),
                                 .entries = le_get32(in + TRAILER_ENTRIES),
                                 .entries_size = le_get64(in + TRAILER_ENTRIES_SIZE) };
    if (out->entries_size > UINT32_MAX) return STATUS_CORRUPT;
    /* Earlier releases kept no room for a tag. */
    const uint32_t before =
        vlog_units(footer_content(out->gone, out->entries_size) + VLOG_TRAILER_SIZE);
    const uint32_t units = vlog_footer_units(out->gone, out->entries_size);
    return out->pages == units || out->pages == before ? STATUS_OK : STATUS_CORRUPT;
}

enum status vlog_footer_decode(const uint8_t *in, const struct vlog_footer *footer)
{
    const uint64_t size = (uint64_t)footer->pages * VLOG_UNIT;
    struct vlog_footer said;

    if (le_get64(in + size - 8) != hash_xxh3(in, size - 8)) return STATUS_CORRUPT;
    const enum status status = vlog_trailer_decode(in + size - VLOG_TRAILER_SIZE, &said);
    if (status != STATUS_OK) return status;
    const bool same = said.nonce == footer->nonce && said.at == footer->at &&
                      said.pages == footer->pages && said.gone == footer->gone &&
                      said.entries == footer->entries && said.entries_size == footer->entries_size;
    return same ? STATUS_OK : STATUS_CORRUPT;
}

/* Of entry `i`, which is dated; 0: there is no room for the terms of all. */
static uint64_t term_decode(const uint8_t *in, const struct vlog_footer *footer, uint32_t i)
{
    const uint64_t terms = (uint64_t)footer->entries * VLOG_TERM_SIZE;
    if (i >= footer->entries || footer->entries_size < terms) return 0;
    const uint64_t first = footer_content(footer->gone, footer->entries_size) - terms;
    return le_get64(in + first + (uint64_t)i * VLOG_TERM_SIZE);
}

enum status vlog_entry_decode(const uint8_t *in, const struct vlog_footer *footer, uint32_t i,
                              uint64_t *offset, struct vlog_meta *meta, struct store_key *key)
{
    const uint64_t end = footer_content(footer->gone, footer->entries_size);
    const uint8_t *at = in + *offset;

    if (*offset > end || end - *offset < ENTRY_KEY) return STATUS_CORRUPT;
    const uint32_t key_len = le_get32(at + ENTRY_KEY_LEN);
    if (key_len == 0 || key_len > STORE_KEY_SIZE_MAX) return STATUS_CORRUPT;
    if (end - *offset < bare_entry_size(key_len)) return STATUS_CORRUPT;
    *meta = (struct vlog_meta){ .at = le_get32(at + ENTRY_AT),
                                .head = le_get32(at + ENTRY_HEAD),
                                .pages = le_get32(at + ENTRY_PAGES),
                                .size = le_get64(at + ENTRY_SIZE),
                                .put_id = le_get64(at + ENTRY_PUT_ID),
                                .digest = le_get64(at + ENTRY_DIGEST),
                                .attributes = attributes_decode(at + ENTRY_ATTRIBUTES) };
    if (le_get32(at + ENTRY_DATED) != 0) meta->attributes.term = term_decode(in, footer, i);
    memcpy(meta->id.bytes, at, BLOCK_KEY_SIZE);
    *key = (struct store_key){ at + ENTRY_KEY, key_len };
    if (meta->size == 0 || meta->size > STORE_OBJECT_SIZE_MAX) return STATUS_CORRUPT;
    if (!pages_right(meta)) return STATUS_CORRUPT;
    if (meta->at == 0 || meta->at > footer->at || footer->at - meta->at < meta->pages) {
        return STATUS_CORRUPT;
    }
    *offset += bare_entry_size(key_len);
    return STATUS_OK;
}
