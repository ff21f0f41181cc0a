/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/cert_maker.h - certificates for tests, good and bad: authorities and what they sign, as
 * files of an env. */
#ifndef TESTS_CERT_MAKER_H
#define TESTS_CERT_MAKER_H

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/env.h"

enum { CERT_DAY_S = 86400 };

struct cert {
    X509 *x509;
    EVP_PKEY *key;
};

/* Valid from `from_days` to `to_days` from the env's wall clock; signed by `ca`, NULL: by itself,
 * and then an authority. */
static inline struct cert cert_make(struct env *env, const char *name, const struct cert *ca,
                                    int from_days, int to_days)
{
    static int64_t serial = 1;
    const time_t now = (time_t)(env_wall_ns(env) / ENV_NS_PER_S);
    struct cert cert = { X509_new(), EVP_EC_gen("P-256") };
    X509_NAME *subject = X509_get_subject_name(cert.x509);
    const struct cert *signer = ca != NULL ? ca : &cert;

    ASSERT(cert.x509 != NULL && cert.key != NULL);
    ASSERT(X509_set_version(cert.x509, 2) == 1);
    ASSERT(ASN1_INTEGER_set_int64(X509_get_serialNumber(cert.x509), serial++) == 1);
    ASSERT(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                                      -1, 0) == 1);
    ASSERT(ASN1_TIME_set(X509_getm_notBefore(cert.x509), now + (time_t)from_days * CERT_DAY_S) !=
           NULL);
    ASSERT(ASN1_TIME_set(X509_getm_notAfter(cert.x509), now + (time_t)to_days * CERT_DAY_S) !=
           NULL);
    ASSERT(X509_set_pubkey(cert.x509, cert.key) == 1);
    ASSERT(X509_set_issuer_name(cert.x509, X509_get_subject_name(signer->x509)) == 1);
    if (ca == NULL) {
        X509_EXTENSION *extension =
            X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
        ASSERT(extension != NULL && X509_add_ext(cert.x509, extension, -1) == 1);
        X509_EXTENSION_free(extension);
    }
    ASSERT(X509_sign(cert.x509, signer->key, EVP_sha256()) > 0);
    return cert;
}

static inline void cert_free(struct cert *cert)
{
    X509_free(cert->x509);
    EVP_PKEY_free(cert->key);
}

/* `bio` is what the file is to hold; it is freed. */
static inline void cert_save(struct env *env, const char *path, BIO *bio)
{
    char *text = NULL;
    const long len = BIO_get_mem_data(bio, &text);

    ASSERT(env_file_replace(env, path, text, (size_t)len, NULL) == STATUS_OK);
    BIO_free(bio);
}

static inline void cert_write(struct env *env, const struct cert *cert, const char *cert_path,
                              const char *key_path)
{
    BIO *bio = BIO_new(BIO_s_mem());

    ASSERT(PEM_write_bio_X509(bio, cert->x509) == 1);
    cert_save(env, cert_path, bio);
    if (key_path == NULL) return;
    bio = BIO_new(BIO_s_mem());
    ASSERT(PEM_write_bio_PrivateKey(bio, cert->key, NULL, NULL, 0, NULL, NULL) == 1);
    cert_save(env, key_path, bio);
}

#endif
