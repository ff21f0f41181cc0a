/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/keys.h - names of KVCache blocks: equal names mean equal KV, whoever computed it.
 *
 * A prompt is cut in blocks of block_tokens tokens; only full blocks have a key. Each key covers
 * its block and everything before it, so a match is found by walking keys from the front:
 *
 *     root  = SHA-256("yolk-kv-1" | model fingerprint | block_tokens u32 | element u32 | shard u32)
 *     key_0 = SHA-256(root    | salt_0 if any | tokens of block 0 as u32)
 *     key_i = SHA-256(key_i-1 | salt_i if any | tokens of block i as u32)
 *
 * All integers are little-endian; each key is cut to 128 bits.
 *
 * The root stands for everything besides the tokens that the KV depends on. Gateway and nodes must
 * use the same identity, or they would never find each other's blocks.
 *
 * Threads: every function may be called from any thread. */
#ifndef CONDUCTOR_KEYS_H
#define CONDUCTOR_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "base/key.h"

enum { CONDUCTOR_FINGERPRINT_SIZE = 32, CONDUCTOR_BLOCK_TOKENS_MAX = 4096 };

/* What the KV depends on besides tokens. */
struct conductor_key_identity {
    uint8_t fingerprint[CONDUCTOR_FINGERPRINT_SIZE]; /* weights, RoPE parameters, ISA class */
    uint32_t block_tokens;                           /* 1..CONDUCTOR_BLOCK_TOKENS_MAX */
    uint32_t element;                                /* CONDUCTOR_ELEMENT_*, of the KV */
    uint32_t shard;                                  /* tensor-parallel rank; 0 when there is one */
};
enum { CONDUCTOR_ELEMENT_F16 = 1, CONDUCTOR_ELEMENT_Q8_0 = 2 };
const char *conductor_element_name(uint32_t element); /* "f16", "q8_0", "unknown" */

struct block_key conductor_key_root(const struct conductor_key_identity *identity);

/* The key of the block after `parent` (the root for block 0). `salt` may be NULL. */
struct block_key conductor_key_next(const struct block_key *parent, const struct block_key *salt,
                                    const uint32_t *tokens, uint32_t block_tokens);

/* Keys of all full blocks of the prompt; returns their number, tokens_count / block_tokens. `out`
 * has room for that many. No salt. */
size_t conductor_keys(const struct block_key *root, const uint32_t *tokens, size_t tokens_count,
                      uint32_t block_tokens, struct block_key *out);

#endif
