/* SPDX-License-Identifier: Apache-2.0
 *
 * base/key.h - the name of one KVCache block: the first 128 bits of a SHA-256 (design: block keys).
 *
 * A value, compared by content, never by pointer. Its bytes are uniformly random unless a peer made
 * them up, so its first eight serve as a hash where strangers cannot choose keys (base/map.h
 * mixes). */
#ifndef BASE_KEY_H
#define BASE_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/status.h"

enum { BLOCK_KEY_SIZE = 16, BLOCK_KEY_HEX_SIZE = 33 };

struct block_key {
    uint8_t bytes[BLOCK_KEY_SIZE];
};

static inline bool block_key_equal(const struct block_key *a, const struct block_key *b)
{
    return memcmp(a->bytes, b->bytes, BLOCK_KEY_SIZE) == 0;
}

static inline uint64_t block_key_hash(const struct block_key *key)
{
    uint64_t hash;
    memcpy(&hash, key->bytes, sizeof(hash));
    return hash;
}

/* For tables: all bits depend on all of the key and on the seed, which strangers do not know. */
static inline uint64_t block_key_mix(const struct block_key *key, uint64_t seed)
{
    uint64_t half[2];
    memcpy(half, key->bytes, sizeof(half));
    uint64_t h = (half[0] ^ seed) * UINT64_C(0x9e3779b97f4a7c15);
    h ^= (h >> 32) ^ half[1];
    h *= UINT64_C(0xd6e8feb86659fd93);
    return h ^ (h >> 32);
}

/* Lower-case, NUL-terminated. */
void block_key_to_hex(const struct block_key *key, char out[BLOCK_KEY_HEX_SIZE]);

/* Takes exactly 32 hexadecimal digits of either case; STATUS_INVALID otherwise. */
MUST_USE enum status block_key_from_hex(const char *hex, size_t len, struct block_key *out);

#endif
