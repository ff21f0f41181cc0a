/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/keys.c - see the header for the format. Tokens are serialised by hand in little-endian,
 * so that the same prompt has the same keys on every machine. */
#include "conductor/keys.h"

#include <assert.h>

#include "base/assert.h"
#include "base/hash.h"

static const char KEY_DOMAIN[] = "yolk-kv-1";

static_assert((int)BLOCK_KEY_SIZE <= (int)HASH_SHA256_SIZE, "a key is a cut digest");

static void put_u32(uint8_t *out, uint32_t value)
{
    out[0] = (uint8_t)value;
    out[1] = (uint8_t)(value >> 8);
    out[2] = (uint8_t)(value >> 16);
    out[3] = (uint8_t)(value >> 24);
}

static struct block_key cut(const uint8_t digest[HASH_SHA256_SIZE])
{
    struct block_key key;
    memcpy(key.bytes, digest, sizeof(key.bytes));
    return key;
}

const char *conductor_element_name(uint32_t element)
{
    if (element == CONDUCTOR_ELEMENT_F16) return "f16";
    return element == CONDUCTOR_ELEMENT_Q8_0 ? "q8_0" : "unknown";
}

struct block_key conductor_key_root(const struct conductor_key_identity *identity)
{
    uint8_t text[sizeof(KEY_DOMAIN) - 1 + CONDUCTOR_FINGERPRINT_SIZE + 3 * 4];
    uint8_t digest[HASH_SHA256_SIZE];
    uint8_t *at = text;

    ASSERT(identity->block_tokens > 0 && identity->block_tokens <= CONDUCTOR_BLOCK_TOKENS_MAX);
    memcpy(at, KEY_DOMAIN, sizeof(KEY_DOMAIN) - 1);
    at += sizeof(KEY_DOMAIN) - 1;
    memcpy(at, identity->fingerprint, CONDUCTOR_FINGERPRINT_SIZE);
    at += CONDUCTOR_FINGERPRINT_SIZE;
    put_u32(at, identity->block_tokens);
    put_u32(at + 4, identity->element);
    put_u32(at + 8, identity->shard);
    ASSERT(at + 12 == text + sizeof(text));
    hash_sha256(text, sizeof(text), digest);
    return cut(digest);
}

struct block_key conductor_key_next(const struct block_key *parent, const struct block_key *salt,
                                    const uint32_t *tokens, uint32_t block_tokens)
{
    uint8_t text[2 * BLOCK_KEY_SIZE + CONDUCTOR_BLOCK_TOKENS_MAX * 4];
    uint8_t digest[HASH_SHA256_SIZE];
    size_t len = BLOCK_KEY_SIZE;

    ASSERT(block_tokens > 0 && block_tokens <= CONDUCTOR_BLOCK_TOKENS_MAX);
    memcpy(text, parent->bytes, BLOCK_KEY_SIZE);
    if (salt != NULL) {
        memcpy(text + len, salt->bytes, BLOCK_KEY_SIZE);
        len += BLOCK_KEY_SIZE;
    }
    for (uint32_t i = 0; i < block_tokens; i++)
        put_u32(text + len + 4 * (size_t)i, tokens[i]);
    len += 4 * (size_t)block_tokens;
    ASSERT(len <= sizeof(text));
    hash_sha256(text, len, digest);
    return cut(digest);
}

size_t conductor_keys(const struct block_key *root, const uint32_t *tokens, size_t tokens_count,
                      uint32_t block_tokens, struct block_key *out)
{
    ASSERT(block_tokens > 0);
    const size_t blocks = tokens_count / block_tokens;
    const struct block_key *parent = root;

    for (size_t i = 0; i < blocks; i++) {
        out[i] = conductor_key_next(parent, NULL, tokens + i * block_tokens, block_tokens);
        parent = &out[i];
    }
    return blocks;
}
