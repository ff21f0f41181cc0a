/* SPDX-License-Identifier: Apache-2.0
 *
 * store/ssd_seal.h - encryption at rest: what the disk tiers write can be read, and changed
 * unnoticed, only by who has the key. Used by both formats (store/ssd_format.h,
 * store/vlog_format.h); AES-256-GCM of base/aead.h.
 *
 * Every segment file has a key of its own, derived (HKDF-SHA-256) from the operator's key and a
 * random salt in the file's header. Under it each part is sealed once: its nonce is
 *
 *     kind u32, number u32 (slot, or place in the file), piece u32 (layer)     counted parts
 *     kind u32, random u64                                                     footers
 *
 * and no slot or place of a segment is ever written twice. What is clear in a part (what recovery
 * looks for: magic, nonce of the segment, place) is authenticated with it; the header of a segment
 * is all clear, and authenticated. So a part cannot be changed, moved, or taken from another file.
 *
 * In clear stay: that it is a cache of Yolk, which key it was written with (8 bytes, from which the
 * key cannot be told), the model's digest and block geometry, how many records there are, how large
 * they are, and when they were written. Keys, tenants, tokens and bytes are not.
 *
 * The operator's keys are a text, one a line, 64 hexadecimal digits; '#' begins a comment. The
 * first is used to write, all are used to read: a key is replaced by putting a new one in front.
 *
 * Threads: one. Limits: SSD_KEYS_MAX keys. Secrets: no key is logged or in a message. */
#ifndef STORE_SSD_SEAL_H
#define STORE_SSD_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/aead.h"
#include "base/status.h"

enum {
    SSD_KEYS_MAX = 8,
    SSD_KEY_ID_SIZE = 8,
    SSD_SALT_SIZE = 16,
    SSD_SEAL_TAG_SIZE = AEAD_TAG_SIZE,
    SSD_SEAL_FOOTER_SIZE =
        8 + SSD_SEAL_TAG_SIZE, /* what a sealed footer needs before its trailer */
    SSD_SEAL_HEADER_AT = 64,   /* where a segment's header says how it is sealed */
};

struct ssd_keys {
    uint32_t count;
    struct {
        uint8_t bytes[AEAD_KEY_SIZE];
        uint8_t id[SSD_KEY_ID_SIZE];
    } list[SSD_KEYS_MAX];
};

/* STATUS_INVALID with the number of the line. */
MUST_USE enum status ssd_keys_parse(const char *text, size_t len, struct ssd_keys *out,
                                    struct errmsg *err);

/* What the header of a sealed segment says. */
struct ssd_seal_info {
    uint8_t key_id[SSD_KEY_ID_SIZE];
    uint8_t salt[SSD_SALT_SIZE];
};

/* Of a new segment, written with the first key. */
struct ssd_seal_info ssd_seal_info_new(const struct ssd_keys *keys,
                                       const uint8_t salt[SSD_SALT_SIZE]);

struct ssd_seal; /* of one segment; opaque */

/* STATUS_NOT_FOUND: none of the keys (NULL: none at all) is meant; STATUS_UNSUPPORTED: no library;
 * STATUS_NO_MEMORY. */
MUST_USE enum status ssd_seal_create(const struct ssd_keys *keys, const struct ssd_seal_info *info,
                                     struct ssd_seal **out);
void ssd_seal_destroy(struct ssd_seal *seal); /* NULL is allowed */

enum ssd_seal_kind {
    SSD_SEAL_HEADER = 1,
    SSD_SEAL_HEAD,
    SSD_SEAL_DATA,
    SSD_SEAL_GONE,
    SSD_SEAL_FOOTER,
};

/* Which part of the segment. */
struct ssd_seal_place {
    enum ssd_seal_kind kind;
    uint32_t number;
    uint32_t piece;
};

/* Seals bytes[clear, len) in place; bytes[0, clear) is authenticated with them. */
void ssd_seal_part(struct ssd_seal *seal, struct ssd_seal_place place, uint8_t *bytes, size_t clear,
                   size_t len, uint8_t tag[SSD_SEAL_TAG_SIZE]);
/* The reverse. STATUS_CORRUPT: it is not what was sealed, there; bytes[clear, len) is zeroed. */
MUST_USE enum status ssd_seal_open(struct ssd_seal *seal, struct ssd_seal_place place,
                                   uint8_t *bytes, size_t clear, size_t len,
                                   const uint8_t tag[SSD_SEAL_TAG_SIZE]);

/* A footer of `size` bytes, whose last `trailer` are clear and end in the XXH3-64 of all before;
 * the SSD_SEAL_FOOTER_SIZE bytes in front of them are free. `random` is new each time. */
void ssd_seal_footer(struct ssd_seal *seal, uint64_t random, uint8_t *bytes, size_t size,
                     size_t trailer);
MUST_USE enum status ssd_seal_footer_open(struct ssd_seal *seal, uint8_t *bytes, size_t size,
                                          size_t trailer);

/* The header of a segment, a page that ends in its XXH3-64: says how it is sealed, and cannot be
 * changed. */
void ssd_seal_header(struct ssd_seal *seal, const struct ssd_seal_info *info, uint8_t *page,
                     size_t size);
struct ssd_seal_info ssd_seal_header_info(const uint8_t *page);
/* STATUS_CORRUPT: it was changed. */
MUST_USE enum status ssd_seal_header_check(struct ssd_seal *seal, const uint8_t *page);

#endif
