/* SPDX-License-Identifier: Apache-2.0 */
#include "store/ssd_seal.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/le.h"

enum {
    KEY_DIGITS = 2 * AEAD_KEY_SIZE,
    HEADER_SALT = SSD_SEAL_HEADER_AT + SSD_KEY_ID_SIZE,
    HEADER_TAG = HEADER_SALT + SSD_SALT_SIZE,
};

struct ssd_seal {
    struct aead *aead;
};

/* ---- keys ---- */

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static bool key_parse(const char *text, size_t len, uint8_t out[AEAD_KEY_SIZE])
{
    if (len != KEY_DIGITS) return false;
    for (size_t i = 0; i < AEAD_KEY_SIZE; i++) {
        const int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* Without the comment and the spaces around. */
static size_t line_trim(const char **line, size_t len)
{
    const char *comment = memchr(*line, '#', len);
    if (comment != NULL) len = (size_t)(comment - *line);
    for (; len > 0 && (**line == ' ' || **line == '\t'); len--)
        ++*line;
    while (len > 0 && strchr(" \t\r", (*line)[len - 1]) != NULL)
        len--;
    return len;
}

static void key_name(const uint8_t key[AEAD_KEY_SIZE], uint8_t id[SSD_KEY_ID_SIZE])
{
    static const char what[] = "yolk disk key id";
    uint8_t digest[HASH_SHA256_SIZE];
    hash_hmac_sha256(key, AEAD_KEY_SIZE, what, sizeof(what) - 1, digest);
    memcpy(id, digest, SSD_KEY_ID_SIZE);
}

enum status ssd_keys_parse(const char *text, size_t len, struct ssd_keys *out, struct errmsg *err)
{
    struct ssd_keys got = { 0 };
    unsigned number = 1;

    for (size_t at = 0; at < len; number++) {
        const char *line = text + at;
        const char *end = memchr(line, '\n', len - at);
        size_t size = end == NULL ? len - at : (size_t)(end - line);
        at += size + 1;
        size = line_trim(&line, size);
        if (size == 0) continue;
        if (got.count == SSD_KEYS_MAX)
            return errmsg_set(err, STATUS_INVALID, "line %u: more than %d keys", number,
                              SSD_KEYS_MAX);
        if (!key_parse(line, size, got.list[got.count].bytes))
            return errmsg_set(err, STATUS_INVALID, "line %u is no key of %d hexadecimal digits",
                              number, KEY_DIGITS);
        key_name(got.list[got.count].bytes, got.list[got.count].id);
        got.count++;
    }
    if (got.count == 0) return errmsg_set(err, STATUS_INVALID, "there is no key in it");
    *out = got;
    return STATUS_OK;
}

/* ---- segments ---- */

struct ssd_seal_info ssd_seal_info_new(const struct ssd_keys *keys,
                                       const uint8_t salt[SSD_SALT_SIZE])
{
    struct ssd_seal_info info;
    ASSERT(keys->count > 0);
    memcpy(info.key_id, keys->list[0].id, SSD_KEY_ID_SIZE);
    memcpy(info.salt, salt, SSD_SALT_SIZE);
    return info;
}

enum status ssd_seal_create(const struct ssd_keys *keys, const struct ssd_seal_info *info,
                            struct ssd_seal **out)
{
    static const char what[] = "yolk disk segment";
    uint8_t key[AEAD_KEY_SIZE];
    uint32_t i = 0;

    while (keys != NULL && i < keys->count &&
           memcmp(keys->list[i].id, info->key_id, SSD_KEY_ID_SIZE) != 0)
        i++;
    if (keys == NULL || i == keys->count) return STATUS_NOT_FOUND;
    struct ssd_seal *seal = calloc(1, sizeof(*seal));
    if (seal == NULL) return STATUS_NO_MEMORY;
    hash_hkdf_sha256(info->salt, SSD_SALT_SIZE, keys->list[i].bytes, AEAD_KEY_SIZE, what,
                     sizeof(what) - 1, key, sizeof(key));
    const enum status status = aead_create(AEAD_AES_256_GCM, key, &seal->aead);
    explicit_bzero(key, sizeof(key));
    if (status != STATUS_OK) {
        free(seal);
        return status;
    }
    *out = seal;
    return STATUS_OK;
}

void ssd_seal_destroy(struct ssd_seal *seal)
{
    if (seal == NULL) return;
    aead_destroy(seal->aead);
    free(seal);
}

/* ---- parts ---- */

static void nonce_of(struct ssd_seal_place place, uint8_t out[AEAD_NONCE_SIZE])
{
    le_put32(out, (uint32_t)place.kind);
    le_put32(out + 4, place.number);
    le_put32(out + 8, place.piece);
}

void ssd_seal_part(struct ssd_seal *seal, struct ssd_seal_place place, uint8_t *bytes, size_t clear,
                   size_t len, uint8_t tag[SSD_SEAL_TAG_SIZE])
{
    const struct iovec part = { bytes + clear, len - clear };
    uint8_t nonce[AEAD_NONCE_SIZE];
    ASSERT(clear <= len);
    nonce_of(place, nonce);
    aead_seal(seal->aead, nonce, bytes, clear, &part, 1, bytes + clear, tag);
}

enum status ssd_seal_open(struct ssd_seal *seal, struct ssd_seal_place place, uint8_t *bytes,
                          size_t clear, size_t len, const uint8_t tag[SSD_SEAL_TAG_SIZE])
{
    uint8_t nonce[AEAD_NONCE_SIZE];
    ASSERT(clear <= len);
    nonce_of(place, nonce);
    return aead_open(seal->aead, nonce, bytes, clear, bytes + clear, len - clear, tag,
                     bytes + clear);
}

/* ---- footers: content | random 8 | tag 16 | trailer with its checksum ---- */

static struct ssd_seal_place footer_place(uint64_t random)
{
    return (struct ssd_seal_place){ SSD_SEAL_FOOTER, (uint32_t)random, (uint32_t)(random >> 32) };
}

static void sum_again(uint8_t *bytes, size_t size)
{
    le_put64(bytes + size - 8, hash_xxh3(bytes, size - 8));
}

/* The trailer, without its checksum, is authenticated with the content. */
void ssd_seal_footer(struct ssd_seal *seal, uint64_t random, uint8_t *bytes, size_t size,
                     size_t trailer)
{
    const size_t content = size - trailer - SSD_SEAL_FOOTER_SIZE;
    const struct iovec part = { bytes, content };
    uint8_t nonce[AEAD_NONCE_SIZE];
    ASSERT(size >= trailer + SSD_SEAL_FOOTER_SIZE && trailer >= 8);
    nonce_of(footer_place(random), nonce);
    le_put64(bytes + content, random);
    aead_seal(seal->aead, nonce, bytes + size - trailer, trailer - 8, &part, 1, bytes,
              bytes + content + 8);
    sum_again(bytes, size);
}

enum status ssd_seal_footer_open(struct ssd_seal *seal, uint8_t *bytes, size_t size, size_t trailer)
{
    uint8_t nonce[AEAD_NONCE_SIZE];
    if (size < trailer + SSD_SEAL_FOOTER_SIZE) return STATUS_CORRUPT;
    if (le_get64(bytes + size - 8) != hash_xxh3(bytes, size - 8)) return STATUS_CORRUPT;
    const size_t content = size - trailer - SSD_SEAL_FOOTER_SIZE;
    nonce_of(footer_place(le_get64(bytes + content)), nonce);
    const enum status status = aead_open(seal->aead, nonce, bytes + size - trailer, trailer - 8,
                                         bytes, content, bytes + content + 8, bytes);
    if (status != STATUS_OK) return status;
    memset(bytes + content, 0, SSD_SEAL_FOOTER_SIZE);
    sum_again(bytes, size);
    return STATUS_OK;
}

/* ---- headers ---- */

static const struct ssd_seal_place header_place = { SSD_SEAL_HEADER, 0, 0 };

void ssd_seal_header(struct ssd_seal *seal, const struct ssd_seal_info *info, uint8_t *page,
                     size_t size)
{
    memcpy(page + SSD_SEAL_HEADER_AT, info->key_id, SSD_KEY_ID_SIZE);
    memcpy(page + HEADER_SALT, info->salt, SSD_SALT_SIZE);
    ssd_seal_part(seal, header_place, page, HEADER_TAG, HEADER_TAG, page + HEADER_TAG);
    sum_again(page, size);
}

struct ssd_seal_info ssd_seal_header_info(const uint8_t *page)
{
    struct ssd_seal_info info;
    memcpy(info.key_id, page + SSD_SEAL_HEADER_AT, SSD_KEY_ID_SIZE);
    memcpy(info.salt, page + HEADER_SALT, SSD_SALT_SIZE);
    return info;
}

enum status ssd_seal_header_check(struct ssd_seal *seal, const uint8_t *page)
{
    uint8_t clear[HEADER_TAG]; /* opening nothing changes nothing, but is not said to */
    memcpy(clear, page, sizeof(clear));
    return ssd_seal_open(seal, header_place, clear, sizeof(clear), sizeof(clear),
                         page + HEADER_TAG);
}
