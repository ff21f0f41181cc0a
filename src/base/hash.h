/* SPDX-License-Identifier: Apache-2.0
 *
 * base/hash.h - the three hashes of the tree, and the one way to compare secrets.
 *
 * XXH3-64 is for checksums: it finds damage, never malice. SHA-256 is for names that a stranger
 * could try to collide (block keys, file digests). HMAC-SHA256 is for proofs of the cluster secret,
 * HKDF for keys made of it.
 *
 * Memory:  a struct hash_stream is on the heap; the rest allocates nothing per call that outlives
 *          it.
 * Threads: every function may be called from any thread; a hash_stream belongs to one at a time. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HASH_SHA256_SIZE = 32, HASH_SHA256_HEX_SIZE = 65 };

/* XXH3-64 with seed 0. `data` may be NULL when len is 0. */
uint64_t hash_xxh3(const void *data, size_t len);

/* Copies, and returns hash_xxh3() of what was written: somebody else may change `from` meanwhile,
 * the answer is still that of the bytes at `to`. The ranges do not overlap. */
uint64_t hash_xxh3_copy(void *to, const void *from, size_t len);
/* The same for more than a cache holds: what is written goes past it where that is possible (`to` a
 * multiple of 64), which is faster, and does not take the place of what others use. */
uint64_t hash_xxh3_stream(void *to, const void *from, size_t len);

void hash_sha256(const void *data, size_t len, uint8_t out[HASH_SHA256_SIZE]);

/* The digest of bytes that come in pieces: create, then update..., final, update..., final, ... */
struct hash_stream;
struct hash_stream *hash_sha256_create(void);
void hash_sha256_update(struct hash_stream *stream, const void *data, size_t len);
/* Writes the digest and starts over, so that one stream serves a chain of digests. */
void hash_sha256_final(struct hash_stream *stream, uint8_t out[HASH_SHA256_SIZE]);
void hash_sha256_destroy(struct hash_stream *stream); /* NULL is allowed */

void hash_hmac_sha256(const void *secret, size_t secret_len, const void *data, size_t len,
                      uint8_t out[HASH_SHA256_SIZE]);

/* HKDF (RFC 5869) with SHA-256: `out_len` bytes of key, at most 255 * 32, from a secret. Different
 * `info` gives keys that say nothing of each other. */
enum { HASH_INFO_SIZE_MAX = 512 };
void hash_hkdf_sha256(const void *salt, size_t salt_len, const void *secret, size_t secret_len,
                      const void *info, size_t info_len, uint8_t *out, size_t out_len);

/* Lower-case hexadecimal, NUL-terminated. */
void hash_sha256_hex(const uint8_t digest[HASH_SHA256_SIZE], char out[HASH_SHA256_HEX_SIZE]);

/* Equal? In time that depends on len only. */
bool hash_equal_secret(const void *a, const void *b, size_t len);

#endif
