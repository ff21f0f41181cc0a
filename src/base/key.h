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

/* Lower-case, NUL-terminated. */
void block_key_to_hex(const struct block_key *key, char out[BLOCK_KEY_HEX_SIZE]);

/* Takes exactly 32 hexadecimal digits of either case; STATUS_INVALID otherwise. */
MUST_USE enum status block_key_from_hex(const char *hex, size_t len, struct block_key *out);

#endif
