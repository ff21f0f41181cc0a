/* SPDX-License-Identifier: Apache-2.0
 *
 * base/aead.h - authenticated encryption: what is opened is what was sealed, or nothing.
 *
 * The ciphers are OpenSSL's, loaded when they are first asked for; base/aead.c is the only file
 * that knows. A key must never meet the same nonce twice, or both secrecy and integrity are gone:
 * that is the caller's duty (net/seal.h counts).
 *
 * Memory:  a struct aead is on the heap; sealing and opening allocate nothing.
 * Threads: a struct aead belongs to one thread at a time.
 * Limits:  parts and texts below 2 GiB. With AEAD_AES_256_GCM one key is good for some 2^24 records
 *          of net/seal.h's size. */
#ifndef BASE_AEAD_H
#define BASE_AEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/status.h"

enum { AEAD_KEY_SIZE = 32, AEAD_NONCE_SIZE = 12, AEAD_TAG_SIZE = 16 };

enum aead_cipher {
    AEAD_AES_256_GCM,       /* NIST SP 800-38D; fast where the CPU has instructions for it */
    AEAD_CHACHA20_POLY1305, /* RFC 8439; fast everywhere else */
};

/* False where the library is not installed. */
bool aead_available(void);

/* True if this CPU has instructions for AEAD_AES_256_GCM. */
bool aead_aes_is_fast(void);

struct aead; /* a cipher and a key */

/* STATUS_UNSUPPORTED without the library, STATUS_NO_MEMORY. */
MUST_USE enum status aead_create(enum aead_cipher cipher, const uint8_t key[AEAD_KEY_SIZE],
                                 struct aead **out);
void aead_destroy(struct aead *aead); /* NULL is allowed */

/* From now on this key. */
void aead_set_key(struct aead *aead, const uint8_t key[AEAD_KEY_SIZE]);

/* Encrypts parts[0..count), one after the other, to out[], which has room for all of them and
 * overlaps none, or is the one part, and writes the tag over that and `aad`, which is authenticated
 * and not encrypted. */
void aead_seal(struct aead *aead, const uint8_t nonce[AEAD_NONCE_SIZE], const void *aad,
               size_t aad_len, const struct iovec *parts, int count, uint8_t *out,
               uint8_t tag[AEAD_TAG_SIZE]);

/* The reverse. STATUS_CORRUPT if anything differs from what was sealed; then out[] is zeroed.
 * `out` is `in`, or does not overlap it. */
MUST_USE enum status aead_open(struct aead *aead, const uint8_t nonce[AEAD_NONCE_SIZE],
                               const void *aad, size_t aad_len, const uint8_t *in, size_t len,
                               const uint8_t tag[AEAD_TAG_SIZE], uint8_t *out);

#endif
