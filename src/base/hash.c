/* SPDX-License-Identifier: Apache-2.0
 *
 * base/hash.c - xxHash inlined, and SHA-256 from OpenSSL, which uses the CPU's instructions for it.
 *
 * Looking an algorithm up in OpenSSL 3 costs more than a short digest, so it is done once for the
 * process, and each thread keeps one context for one-shot digests. What fits one block does without
 * OpenSSL where the CPU allows (base/hash_short.h): a fifth of the time, for the names of values.
 *
 * XXH3 of what is longer than a few hundred bytes is computed in the CPU's widest registers
 * (base/hash_wide.h), ten times as fast as by what every x86-64 has. */
#include "base/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash_short.h"
#include "base/hash_wide.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

struct hash_stream {
    EVP_MD_CTX *md;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;           /* written once, before any reader passes pthread_once */
static pthread_key_t thread_key; /* each thread's struct hash_stream for one-shot digests */
static bool short_usable;        /* written once, as sha256 */

static pthread_once_t wide_once = PTHREAD_ONCE_INIT;
static const struct hash_wide *wide; /* NULL: the CPU has none; written once, before wide_once */

static void stream_free(void *stream)
{
    hash_sha256_destroy(stream);
}

static void find_algorithms(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    ASSERT(sha256 != NULL);
    const int rc = pthread_key_create(&thread_key, stream_free);
    ASSERT(rc == 0);
    short_usable = hash_short_usable();
}

static void find_wide(void)
{
#if defined(__x86_64__)
    if (hash_wide_avx512_usable()) {
        wide = &hash_wide_avx512;
    } else if (hash_wide_avx2_usable()) {
        wide = &hash_wide_avx2;
    }
#endif
}

/* NULL: xxHash's own way. */
static const struct hash_wide *wide_for(size_t len)
{
    if (len < HASH_WIDE_MIN) return NULL;
    pthread_once(&wide_once, find_wide);
    return wide;
}

uint64_t hash_xxh3(const void *data, size_t len)
{
    ASSERT(data != NULL || len == 0);
    const struct hash_wide *kernels = wide_for(len);
    return kernels != NULL ? kernels->sum(data, len) : XXH3_64bits(data, len);
}

uint64_t hash_xxh3_copy(void *to, const void *from, size_t len)
{
    ASSERT((to != NULL && from != NULL) || len == 0);
    const struct hash_wide *kernels = wide_for(len);
    if (kernels != NULL) return kernels->copy(to, from, len);
    if (len > 0) memcpy(to, from, len);
    return XXH3_64bits(to, len);
}

uint64_t hash_xxh3_stream(void *to, const void *from, size_t len)
{
    const struct hash_wide *kernels = wide_for(len);
    return kernels != NULL ? kernels->stream(to, from, len) : hash_xxh3_copy(to, from, len);
}

static void stream_restart(struct hash_stream *stream)
{
    const int ok = EVP_DigestInit_ex2(stream->md, sha256, NULL);
    ASSERT(ok == 1);
}

struct hash_stream *hash_sha256_create(void)
{
    pthread_once(&once, find_algorithms);
    struct hash_stream *stream = malloc(sizeof(*stream));
    ASSERT(stream != NULL);
    stream->md = EVP_MD_CTX_new();
    ASSERT(stream->md != NULL);
    stream_restart(stream);
    return stream;
}

void hash_sha256_update(struct hash_stream *stream, const void *data, size_t len)
{
    const int ok = EVP_DigestUpdate(stream->md, data, len);
    ASSERT(ok == 1);
}

void hash_sha256_final(struct hash_stream *stream, uint8_t out[HASH_SHA256_SIZE])
{
    unsigned len = 0;
    const int ok = EVP_DigestFinal_ex(stream->md, out, &len);
    ASSERT(ok == 1);
    ASSERT(len == HASH_SHA256_SIZE);
    stream_restart(stream);
}

void hash_sha256_destroy(struct hash_stream *stream)
{
    if (stream == NULL) return;
    EVP_MD_CTX_free(stream->md);
    free(stream);
}

void hash_sha256(const void *data, size_t len, uint8_t out[HASH_SHA256_SIZE])
{
    pthread_once(&once, find_algorithms);
    if (len <= HASH_SHORT_MAX && short_usable) {
        hash_short_sha256(data, len, out);
        return;
    }
    struct hash_stream *stream = pthread_getspecific(thread_key);
    if (stream == NULL) {
        stream = hash_sha256_create();
        const int rc = pthread_setspecific(thread_key, stream);
        ASSERT(rc == 0);
    }
    hash_sha256_update(stream, data, len);
    hash_sha256_final(stream, out);
}

void hash_hmac_sha256(const void *secret, size_t secret_len, const void *data, size_t len,
                      uint8_t out[HASH_SHA256_SIZE])
{
    ASSERT(secret_len <= INT32_MAX);
    const void *key = secret != NULL ? secret : "";
    const uint8_t *bytes = data != NULL ? data : (const uint8_t *)"";
    unsigned out_len = 0;

    const uint8_t *done = HMAC(EVP_sha256(), key, (int)secret_len, bytes, len, out, &out_len);
    ASSERT(done != NULL);
    ASSERT(out_len == HASH_SHA256_SIZE);
}

void hash_hkdf_sha256(const void *salt, size_t salt_len, const void *secret, size_t secret_len,
                      const void *info, size_t info_len, uint8_t *out, size_t out_len)
{
    uint8_t extracted[HASH_SHA256_SIZE], block[HASH_SHA256_SIZE];
    uint8_t text[HASH_SHA256_SIZE + HASH_INFO_SIZE_MAX + 1];
    size_t before = 0; /* of the previous block in front of info: none for the first */

    ASSERT(info_len <= HASH_INFO_SIZE_MAX && out_len <= 255 * HASH_SHA256_SIZE);
    hash_hmac_sha256(salt, salt_len, secret, secret_len, extracted);
    for (uint8_t counter = 1; out_len > 0; counter++) {
        memcpy(text, block, before);
        if (info_len > 0) memcpy(text + before, info, info_len);
        text[before + info_len] = counter;
        hash_hmac_sha256(extracted, sizeof(extracted), text, before + info_len + 1, block);
        before = sizeof(block);
        const size_t len = out_len < sizeof(block) ? out_len : sizeof(block);
        memcpy(out, block, len);
        out += len;
        out_len -= len;
    }
    explicit_bzero(extracted, sizeof(extracted));
    explicit_bzero(block, sizeof(block));
    explicit_bzero(text, sizeof(text));
}

void hash_sha256_hex(const uint8_t digest[HASH_SHA256_SIZE], char out[HASH_SHA256_HEX_SIZE])
{
    static const char digits[] = "0123456789abcdef";

    for (int i = 0; i < HASH_SHA256_SIZE; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[HASH_SHA256_HEX_SIZE - 1] = '\0';
}

bool hash_equal_secret(const void *a, const void *b, size_t len)
{
    return CRYPTO_memcmp(a, b, len) == 0;
}
