/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_format.h - the bytes of a segment file of the disk tier. Pure: no I/O, no clock.
 *
 *   segment | header 4096 | record 0 | record 1 | ... | record N-1 | footer k * 4096 |
 *   record  | record header 4096 | the block's layers, padded to 4096 |
 *
 * Everything lies at multiples of 4096, so that it can be read and written past the page cache. All
 * records of a segment have one size, so that a record is found by its number. Integers are little
 * endian; what is not named is zero; each header ends in the XXH3-64 of the rest of it.
 *
 *   header          offset  0 "YOLKSEG1"  8 version u32  12 slots u32  16 id u64  24 nonce u64
 *                          32 layout id [16]  48 page_size u32  52 layers u32  56 layer_size u32
 *                          60 block_tokens u32  4088 XXH3
 *   record header   offset  0 "YOLKREC1"  8 nonce u64  16 slot u32  20 layers u32  24 key [16]
 *                          40 synced u32  48 sums u64[layers]  4088 XXH3
 *   footer          offset  0 entries: key [16], slot u32, 0 u32; padding;
 *                   in its last 40 bytes: "YOLKFTR1", nonce u64, offset of the footer u64,
 *                   entries u32, used u32, XXH3 of the footer before
 *
 * A sealed segment (store/ssd_seal.h) has version 2. Its header says at 64 with which key and salt;
 * of a record header bytes 24 to 4071 are sealed, in them behind the sums a tag of 16 bytes for
 * each layer, each sealed by itself, and behind them the tag of the header; the entries of a footer
 * are sealed, with 24 bytes before its last 40 for that (free in a clear one).
 *
 * A packed segment (store/ssd_pack.h) has version 3, a sealed one of these 4. Its header says at
 * 128 in how many parts (u32) a block is packed, multiples of 4096. A record is as long as what is
 * in it: its header has at 44 the number of parts (u32), and behind the sums its own place u32 and
 * the length of each part u32, both in units of 4096 (the place from the start of the file), and,
 * if sealed, the tags, one a part. A part that is as long as what it is of is that; a shorter one
 * is a pack of it, padded. In the footer, with "YOLKFTR3", entries are key [16], slot u32, place
 * u32, units of the record u32, units of its first part u32.
 *
 * The nonce is random and the same in all parts of a segment: what an earlier file left in the same
 * blocks of the disk is never taken for a part of this one. `synced` says how many slots, from the
 * first, were known to be on the disk when the record was written; it does not go past one whose
 * write had failed.
 *
 * The layout is in the header, and its id is the digest of model, weights and instruction set: what
 * another model wrote is recognised and never served. A version we do not know is another model's.
 *
 * Threads: none of this is shared. Decoders take any bytes: STATUS_OK or STATUS_CORRUPT. */
#ifndef STORE_SSD_FORMAT_H
#define STORE_SSD_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "store/layout.h"
#include "store/ssd_seal.h"

enum {
    SSD_ALIGN = 4096,
    SSD_FORMAT_VERSION = 1,
    SSD_FORMAT_SEALED = 2, /* likewise, and sealed */
    SSD_FORMAT_PACKED = 3,
    SSD_FORMAT_PACKED_SEALED = 4,
    SSD_SEALED_LAYERS_MAX = 167,
    SSD_SLOTS_MAX = 1 << 22,
    SSD_ENTRY_SIZE = 24,
    SSD_PACKED_ENTRY_SIZE = 32,
    SSD_PARTS_MAX = 64,
    SSD_PACKED_SLOTS = 4, /* times as many as in a segment of the same size that is not packed */
    SSD_TRAILER_SIZE = 40,
};

struct ssd_header {
    uint64_t id;
    uint64_t nonce;
    uint32_t slots;             /* records it has room for: 1..SSD_SLOTS_MAX */
    struct store_layout layout; /* `pages` is 1 */
    uint32_t parts;             /* of a packed one: 1..SSD_PARTS_MAX; 0: it is not packed */
    bool sealed;                /* encoded: ssd_seal_header() follows */
    struct ssd_seal_info seal;  /* decoded, and for the caller to check */
};

struct ssd_record {
    struct block_key key;
    uint64_t nonce;
    uint32_t slot;
    uint32_t synced;
    uint32_t layers; /* 1..STORE_LAYERS_MAX */
    /* In a packed segment: */
    uint32_t parts; /* 1..SSD_PARTS_MAX; 0: it is not in one */
    uint32_t at;
    uint32_t units[SSD_PARTS_MAX]; /* of each part, at least 1 */
};

struct ssd_footer {
    bool packed;
    uint64_t nonce;
    uint64_t offset; /* of the footer in the file */
    uint32_t entries;
    uint32_t used; /* slots before the footer, dead ones included */
};

/* Where a record of a packed segment is: in units of SSD_ALIGN. */
struct ssd_place {
    uint32_t at;
    uint32_t units; /* with its header */
    uint32_t first; /* of its first part */
};

struct ssd_entry {
    struct block_key key;
    uint32_t slot;
    struct ssd_place place; /* in a packed segment */
};

/* ---- sizes ---- */

/* Of the bytes of a block, rounded up to SSD_ALIGN. */
uint64_t ssd_payload_size(const struct store_layout *layout);
uint64_t ssd_record_size(const struct store_layout *layout);
uint64_t ssd_record_offset(const struct store_layout *layout, uint32_t slot);
uint64_t ssd_footer_size(uint32_t entries, bool packed);
/* Of a whole segment with room for so many records as they are. */
uint64_t ssd_segment_size(const struct store_layout *layout, uint32_t slots, bool packed);

/* ---- parts; encoders fill the whole buffer ---- */

void ssd_header_encode(const struct ssd_header *header, uint8_t out[SSD_ALIGN]);
MUST_USE enum status ssd_header_decode(const uint8_t in[SSD_ALIGN], struct ssd_header *out);

void ssd_record_encode(const struct ssd_record *record, const uint64_t *sums,
                       uint8_t out[SSD_ALIGN]);
/* `sums` has room for STORE_LAYERS_MAX. */
MUST_USE enum status ssd_record_decode(const uint8_t in[SSD_ALIGN], struct ssd_record *out,
                                       uint64_t *sums);

/* The slot of the record that begins here, of a segment with this nonce, sealed or not, and before
 * anything else of it is known. False: none does. */
bool ssd_record_sniff(const uint8_t in[SSD_ALIGN], uint64_t nonce, uint32_t *slot);

/* Seals a whole record, its header and the layers behind it, of at most SSD_SEALED_LAYERS_MAX. */
void ssd_record_seal(struct ssd_seal *seal, uint32_t slot, const struct store_layout *layout,
                     uint8_t *record);
/* The same of a record of a packed segment, whose parts follow each other behind its header. */
void ssd_packed_seal(struct ssd_seal *seal, const struct ssd_record *record, uint8_t *bytes);
/* Makes of a sealed header what ssd_record_decode() takes; `tags` has room for
 * SSD_SEALED_LAYERS_MAX of SSD_SEAL_TAG_SIZE. STATUS_CORRUPT: not what was sealed there. */
MUST_USE enum status ssd_record_open(struct ssd_seal *seal, uint32_t slot, uint32_t layers,
                                     uint8_t header[SSD_ALIGN], uint8_t *tags);
/* Layer i, or part i of a packed record, in place. */
MUST_USE enum status ssd_layer_open(struct ssd_seal *seal, uint32_t slot, uint32_t i,
                                    uint8_t *layer, size_t size, const uint8_t *tags);

/* `out`: ssd_footer_size(footer->entries, footer->packed) bytes. */
void ssd_footer_encode(const struct ssd_footer *footer, const struct ssd_entry *entries,
                       uint8_t *out);
/* The last bytes of a file, SSD_TRAILER_SIZE of them, without its checksum: where to read. */
MUST_USE enum status ssd_trailer_decode(const uint8_t *in, struct ssd_footer *out);
/* A whole footer of `size` bytes. */
MUST_USE enum status ssd_footer_decode(const uint8_t *in, uint64_t size, struct ssd_footer *out);
/* Entry i of a footer that ssd_footer_decode() took. Slots ascend and are below `used`,
 * places before it. */
struct ssd_entry ssd_footer_entry(const uint8_t *in, const struct ssd_footer *footer, uint32_t i);

/* ---- names ---- */

enum { SSD_NAME_SIZE = 32 };

/* "seg-<16 hex digits>.kv" */
void ssd_name_print(uint64_t id, char out[SSD_NAME_SIZE]);
bool ssd_name_parse(const char *name, uint64_t *id);

#endif
