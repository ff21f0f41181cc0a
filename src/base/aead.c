/* SPDX-License-Identifier: Apache-2.0
 *
 * base/aead.c - AEAD by OpenSSL's libcrypto, loaded at run time.
 *
 * The headers are there when we are built (base/hash.c needs them too) and give the functions their
 * types; the functions themselves are looked up, so that a process that never seals anything does
 * not pay for, or depend on, the ciphers. A cipher is fetched once for the process: looking one up
 * costs more than sealing a small record. Calls that can fail only by a mistake of ours are
 * asserted, as in base/hash.c. */
#include "base/aead.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "base/assert.h"
#include "base/library.h"

struct aead {
    EVP_CIPHER_CTX *context;
    const EVP_CIPHER *cipher;
};

static struct {
    __typeof__(EVP_CIPHER_fetch) *fetch;
    __typeof__(EVP_CIPHER_CTX_new) *context_new;
    __typeof__(EVP_CIPHER_CTX_free) *context_free;
    __typeof__(EVP_CIPHER_CTX_ctrl) *control;
    __typeof__(EVP_EncryptInit_ex2) *encrypt_init;
    __typeof__(EVP_EncryptUpdate) *encrypt_update;
    __typeof__(EVP_EncryptFinal_ex) *encrypt_final;
    __typeof__(EVP_DecryptInit_ex2) *decrypt_init;
    __typeof__(EVP_DecryptUpdate) *decrypt_update;
    __typeof__(EVP_DecryptFinal_ex) *decrypt_final;
} crypto;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_CIPHER *ciphers[2]; /* as crypto, written once, before any reader passes pthread_once;
                                  NULL: there is none */

static void load(void)
{
    const struct library_symbol symbols[] = {
        { "EVP_CIPHER_fetch", &crypto.fetch },
        { "EVP_CIPHER_CTX_new", &crypto.context_new },
        { "EVP_CIPHER_CTX_free", &crypto.context_free },
        { "EVP_CIPHER_CTX_ctrl", &crypto.control },
        { "EVP_EncryptInit_ex2", &crypto.encrypt_init },
        { "EVP_EncryptUpdate", &crypto.encrypt_update },
        { "EVP_EncryptFinal_ex", &crypto.encrypt_final },
        { "EVP_DecryptInit_ex2", &crypto.decrypt_init },
        { "EVP_DecryptUpdate", &crypto.decrypt_update },
        { "EVP_DecryptFinal_ex", &crypto.decrypt_final },
    };
    const size_t count = sizeof(symbols) / sizeof(symbols[0]);

    if (library_load("libcrypto.so.3", symbols, count, NULL) != STATUS_OK) return;
    ciphers[AEAD_AES_256_GCM] = crypto.fetch(NULL, "AES-256-GCM", NULL);
    ciphers[AEAD_CHACHA20_POLY1305] = crypto.fetch(NULL, "ChaCha20-Poly1305", NULL);
}

bool aead_available(void)
{
    pthread_once(&once, load);
    return ciphers[AEAD_AES_256_GCM] != NULL && ciphers[AEAD_CHACHA20_POLY1305] != NULL;
}

bool aead_aes_is_fast(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
    return (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
#else
    return false;
#endif
}

void aead_set_key(struct aead *aead, const uint8_t key[AEAD_KEY_SIZE])
{
    const int ok = crypto.encrypt_init(aead->context, aead->cipher, key, NULL, NULL);
    ASSERT(ok == 1);
}

enum status aead_create(enum aead_cipher cipher, const uint8_t key[AEAD_KEY_SIZE],
                        struct aead **out)
{
    if (!aead_available()) return STATUS_UNSUPPORTED;
    struct aead *aead = malloc(sizeof(*aead));
    if (aead == NULL) return STATUS_NO_MEMORY;
    aead->cipher = ciphers[cipher];
    aead->context = crypto.context_new();
    if (aead->context == NULL) {
        free(aead);
        return STATUS_NO_MEMORY;
    }
    aead_set_key(aead, key);
    *out = aead;
    return STATUS_OK;
}

void aead_destroy(struct aead *aead)
{
    if (aead == NULL) return;
    crypto.context_free(aead->context); /* which clears the key */
    free(aead);
}

void aead_seal(struct aead *aead, const uint8_t nonce[AEAD_NONCE_SIZE], const void *aad,
               size_t aad_len, const struct iovec *parts, int count, uint8_t *out,
               uint8_t tag[AEAD_TAG_SIZE])
{
    EVP_CIPHER_CTX *context = aead->context;
    int n = 0;

    ASSERT(aad_len <= INT32_MAX);
    int ok = crypto.encrypt_init(context, NULL, NULL, nonce, NULL) &&
             crypto.encrypt_update(context, NULL, &n, aad, (int)aad_len);
    for (int i = 0; i < count && ok == 1; i++) {
        ASSERT(parts[i].iov_len <= INT32_MAX);
        ok = crypto.encrypt_update(context, out, &n, parts[i].iov_base, (int)parts[i].iov_len);
        out += n;
    }
    ok = ok && crypto.encrypt_final(context, out, &n) &&
         crypto.control(context, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_SIZE, tag);
    ASSERT(ok == 1);
}

enum status aead_open(struct aead *aead, const uint8_t nonce[AEAD_NONCE_SIZE], const void *aad,
                      size_t aad_len, const uint8_t *in, size_t len,
                      const uint8_t tag[AEAD_TAG_SIZE], uint8_t *out)
{
    EVP_CIPHER_CTX *context = aead->context;
    uint8_t expected[AEAD_TAG_SIZE]; /* the library wants one that it may write to */
    int n = 0;

    ASSERT(aad_len <= INT32_MAX && len <= INT32_MAX);
    memcpy(expected, tag, sizeof(expected));
    const int ok = crypto.decrypt_init(context, NULL, NULL, nonce, NULL) &&
                   crypto.decrypt_update(context, NULL, &n, aad, (int)aad_len) &&
                   crypto.decrypt_update(context, out, &n, in, (int)len) &&
                   crypto.control(context, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_SIZE, expected);
    ASSERT(ok == 1);
    if (crypto.decrypt_final(context, out + n, &n) == 1) return STATUS_OK;
    memset(out, 0, len);
    return STATUS_CORRUPT;
}
