/* SPDX-License-Identifier: Apache-2.0
 *
 * store/vlog_format.h - the bytes of a file of values on disk. Pure: no I/O, no clock.
 *
 *   segment | header 4096 | record | record | ... | footer k * 4096 |
 *   value   | head k * 4096 | the value's bytes, padded to 4096 |
 *   gone    | identities that are no more, k * 4096 |
 *
 * Everything lies at multiples of 4096. Integers are little endian; what is not named is zero; each
 * part ends in the XXH3-64 of what comes before it in the part.
 *
 *   header      offset  0 "YOLKVSG1"  8 version u32  16 id u64  24 nonce u64  4088 XXH3
 *   value head  offset  0 "YOLKVAL1"  8 nonce u64  16 at u32  20 head u32  24 pages u32
 *                      28 key_len u32  32 sums u32  36 low half of the term u32  40 size u64
 *                      48 put_id u64  56 group u64  64 version u32  68 cost u32  72 depth u16
 *                      74 replicas u8  75 hard_pin u8  76 high half of the term u32
 *                      80 key, padded to 8; sums u64[]; XXH3
 *   gone        offset  0 "YOLKVGN1"  8 nonce u64  16 at u32  20 pages u32  24 count u32
 *                      32 identities [16] each; XXH3
 *   footer      offset  0 gone: identities [16] each; entries: identity [16], at u32, head u32,
 *                      pages u32, key_len u32, size, put_id, digest, group u64, version, cost u32,
 *                      depth u16, replicas u8, hard_pin u8, dated u32, key padded to 8;
 *                      if entries are dated, the terms of all, u64 each, in that order;
 *                      padding;
 *                      in its last 48 bytes: "YOLKVFT1", nonce u64, at u32, pages u32,
 *                      gone u32, entries u32, bytes of the entries and terms u64, XXH3 of the
 *                      footer before
 *
 * A sealed segment (store/ssd_seal.h) has version 2. Its header says at 64 with which key and salt.
 * The head of a value and what is gone are sealed from 24 on, with the tag in their last 16 bytes;
 * a value's bytes, padding included, by themselves, with the tag in the 16 bytes before; of a
 * footer all but its last 48 bytes, with 24 bytes before them for that. In clear ones these are
 * free.
 *
 * A packed segment has version 3, a sealed one of these 4. In it the bytes of a value may take
 * fewer units than they need, and then are as store/vlog_pack.h says; so `pages` is no more than
 * these.
 *
 * A release that knows no terms reads such files, and leaves them out; term 0 is of that release.
 *
 * `at` is the record's own place, in units of 4096 bytes from the start of the file, and the nonce
 * is random and the same in all parts of a segment: what an earlier file left in the same blocks of
 * the disk is never taken for a part of this one. Files are named as in store/ssd_format.h.
 *
 * Threads: none of this is shared. Decoders take any bytes: STATUS_OK or STATUS_CORRUPT. */
#ifndef STORE_VLOG_FORMAT_H
#define STORE_VLOG_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "store/events.h"
#include "store/master.h"
#include "store/ssd_seal.h"

enum {
    VLOG_UNIT = 4096,
    VLOG_FORMAT_VERSION = 1,
    VLOG_FORMAT_SEALED = 2, /* likewise, and sealed */
    VLOG_FORMAT_PACKED = 3,
    VLOG_FORMAT_PACKED_SEALED = 4,
    VLOG_TRAILER_SIZE = 48,
    VLOG_TERM_SIZE = 8,
};

/* What is said of a value without its bytes. */
struct vlog_meta {
    struct block_key id; /* store_key_id() */
    uint32_t at;         /* its record: place, units of its head, and of all */
    uint32_t head;
    uint32_t pages;
    uint64_t size;
    uint64_t put_id;
    uint64_t digest; /* XXH3-64 of the sums */
    struct store_attributes attributes;
};

struct vlog_header {
    uint64_t id;
    uint64_t nonce;
    bool packed;
    bool sealed;               /* encoded: ssd_seal_header() follows */
    struct ssd_seal_info seal; /* decoded, and for the caller to check */
};

void vlog_header_encode(const struct vlog_header *header, uint8_t out[VLOG_UNIT]);
MUST_USE enum status vlog_header_decode(const uint8_t in[VLOG_UNIT], struct vlog_header *out);

/* ---- records ---- */

/* Units of the head, and of the bytes, of a value with such a key and so many checksums. */
uint32_t vlog_head_units(uint32_t key_len, uint32_t sums_count);
uint32_t vlog_units(uint64_t size);

/* Whether its bytes take fewer units than they need: right in packed segments only. */
bool vlog_meta_packed(const struct vlog_meta *meta);

/* Fills the head's units. `meta`: all but id and digest. */
void vlog_head_encode(const struct vlog_meta *meta, uint64_t nonce, struct store_key key,
                      const uint64_t *sums, uint32_t sums_count, uint8_t *out);

/* The same value elsewhere, and of so many units in all. `head`: our own, and not sealed. */
void vlog_head_move(uint8_t *head, uint64_t nonce, uint32_t at, uint32_t pages);

/* How many units the head has that begins with this one; 0: none does, of this nonce and place. */
uint32_t vlog_head_sniff(const uint8_t in[VLOG_UNIT], uint64_t nonce, uint32_t at);

struct vlog_head {
    struct vlog_meta meta;
    struct store_key key; /* borrowed from the input, like the sums */
    const uint8_t *sums;  /* u64, little endian */
    uint32_t sums_count;
};
/* `in`: `units` units, at a multiple of 8. */
MUST_USE enum status vlog_head_decode(const uint8_t *in, uint32_t units, uint64_t nonce,
                                      uint32_t at, struct vlog_head *out);
/* Whether these are the bytes that the head's checksums are of. */
bool vlog_bytes_right(const struct vlog_head *head, const uint8_t *data);

/* Seals a value's record, whose head and bytes follow each other, at this place. */
void vlog_value_seal(struct ssd_seal *seal, const struct vlog_meta *meta, uint8_t *record);
/* A head of so many units, and then the bytes of the value, in place. STATUS_CORRUPT: they are not
 * what was sealed there. */
MUST_USE enum status vlog_head_open(struct ssd_seal *seal, uint32_t at, uint32_t units,
                                    uint8_t *head);
MUST_USE enum status vlog_bytes_open(struct ssd_seal *seal, const struct vlog_meta *meta,
                                     const uint8_t *head, uint8_t *data);

/* What is gone, of so many units. */
void vlog_gone_seal(struct ssd_seal *seal, uint32_t at, uint32_t units, uint8_t *record);
MUST_USE enum status vlog_gone_open(struct ssd_seal *seal, uint32_t at, uint32_t units,
                                    uint8_t *record);

uint32_t vlog_gone_units(uint32_t count);
void vlog_gone_encode(uint64_t nonce, uint32_t at, const struct block_key *ids, uint32_t count,
                      uint8_t *out);
uint32_t vlog_gone_sniff(const uint8_t in[VLOG_UNIT], uint64_t nonce, uint32_t at);
MUST_USE enum status vlog_gone_decode(const uint8_t *in, uint32_t units, const uint8_t **ids,
                                      uint32_t *count);

/* ---- footer ---- */

/* Bytes of the footer that an entry takes, with its term. */
uint64_t vlog_entry_size(uint32_t key_len);
/* Of so many gone, and entries of so many bytes together. */
uint32_t vlog_footer_units(uint64_t gone, uint64_t entries_size);

/* Writes one entry without its term; returns its size. The terms follow the last one. */
uint64_t vlog_entry_encode(const struct vlog_meta *meta, struct store_key key, uint8_t *out);

struct vlog_footer {
    uint64_t nonce;
    uint32_t at;
    uint32_t pages; /* of the footer */
    uint32_t gone;
    uint32_t entries;
    uint64_t entries_size;
};
/* The gone, the entries and the terms are in `out` already, one after the other; the rest of its
 * pages is filled. */
void vlog_footer_encode(const struct vlog_footer *footer, uint8_t *out);
/* The last VLOG_TRAILER_SIZE bytes of a file, without its checksum: where to read. */
MUST_USE enum status vlog_trailer_decode(const uint8_t *in, struct vlog_footer *out);
/* A whole footer of footer->pages units, with its checksum, which says of itself what `footer`
 * does. That was read before and by itself: a bit that was wrong then would be believed. */
MUST_USE enum status vlog_footer_decode(const uint8_t *in, const struct vlog_footer *footer);
/* Entry `i` of a footer, which is at *offset; that moves on. STATUS_CORRUPT: none is there. */
MUST_USE enum status vlog_entry_decode(const uint8_t *in, const struct vlog_footer *footer,
                                       uint32_t i, uint64_t *offset, struct vlog_meta *meta,
                                       struct store_key *key);

#endif
