/* SPDX-License-Identifier: Apache-2.0
 *
 * net/tls.c - the one file that knows libssl.
 *
 * The library is handed a BIO of ours that reads and writes the env's stream, so nothing is
 * buffered twice, and readiness of the stream is readiness of the connection, but for what
 * tls_waiting() tells. Files are read through env, and given to the library in memory.
 *
 * Certificates' times are compared with env's wall clock, so that a test can be at any time. */
#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/library.h"

enum { TLS_RECORD_HANDSHAKE = 0x16 };

struct tls_identity {
    SSL_CTX *context;
    bool judges; /* a peer's certificate, or is content with anybody */
    char *name;  /* whose certificate a server has to have; NULL: whose it is does not matter */
};

struct tls {
    struct env_stream *stream;
    SSL *ssl;
    bool is_server;
    bool done;        /* with the handshake */
    bool has_read;    /* at least a byte */
    bool is_plain;    /* and the first one was none of TLS */
    bool wants_write; /* the stream took no more */
    enum status io;   /* what ended the stream; OK: nothing has */
    enum status failure;
    char why[TLS_WHY_SIZE];
};

/* ---- the library ---- */

#define SSL_SYMBOLS(X)                                                                             \
    X(TLS_method)                                                                                  \
    X(SSL_CTX_new)                                                                                 \
    X(SSL_CTX_free)                                                                                \
    X(SSL_CTX_ctrl)                                                                                \
    X(SSL_CTX_use_certificate)                                                                     \
    X(SSL_CTX_use_PrivateKey)                                                                      \
    X(SSL_CTX_check_private_key)                                                                   \
    X(SSL_CTX_get_cert_store)                                                                      \
    X(SSL_CTX_set_verify)                                                                          \
    X(SSL_CTX_set_options)                                                                         \
    X(SSL_CTX_set_num_tickets)                                                                     \
    X(SSL_new)                                                                                     \
    X(SSL_free)                                                                                    \
    X(SSL_ctrl)                                                                                    \
    X(SSL_set_bio)                                                                                 \
    X(SSL_set_accept_state)                                                                        \
    X(SSL_set_connect_state)                                                                       \
    X(SSL_do_handshake)                                                                            \
    X(SSL_read_ex)                                                                                 \
    X(SSL_write_ex)                                                                                \
    X(SSL_shutdown)                                                                                \
    X(SSL_get_error)                                                                               \
    X(SSL_has_pending)                                                                             \
    X(SSL_get0_param)                                                                              \
    X(SSL_get_verify_result)
#define CRYPTO_SYMBOLS(X)                                                                          \
    X(BIO_new)                                                                                     \
    X(BIO_free)                                                                                    \
    X(BIO_new_mem_buf)                                                                             \
    X(BIO_meth_new)                                                                                \
    X(BIO_meth_set_read_ex)                                                                        \
    X(BIO_meth_set_write_ex)                                                                       \
    X(BIO_meth_set_ctrl)                                                                           \
    X(BIO_set_data)                                                                                \
    X(BIO_get_data)                                                                                \
    X(BIO_set_init)                                                                                \
    X(BIO_set_flags)                                                                               \
    X(BIO_clear_flags)                                                                             \
    X(PEM_read_bio_X509)                                                                           \
    X(PEM_read_bio_PrivateKey)                                                                     \
    X(X509_free)                                                                                   \
    X(X509_get0_notAfter)                                                                          \
    X(X509_cmp_time)                                                                               \
    X(EVP_PKEY_free)                                                                               \
    X(X509_STORE_add_cert)                                                                         \
    X(X509_VERIFY_PARAM_set1_host)                                                                 \
    X(X509_VERIFY_PARAM_set1_ip_asc)                                                               \
    X(X509_VERIFY_PARAM_set_time)                                                                  \
    X(X509_verify_cert_error_string)                                                               \
    X(ERR_peek_error)                                                                              \
    X(ERR_clear_error)                                                                             \
    X(ERR_reason_error_string)

#define DECLARE(name) __typeof__(name) *name;
static struct {
    SSL_SYMBOLS(DECLARE)
    CRYPTO_SYMBOLS(DECLARE)
} lib;

static pthread_once_t once = PTHREAD_ONCE_INIT;
/* As lib, written once, before any reader passes pthread_once. */
static enum status loaded;
static struct errmsg load_error;
static BIO_METHOD *stream_bio;

static int bio_read(BIO *bio, char *to, size_t len, size_t *n);
static int bio_write(BIO *bio, const char *from, size_t len, size_t *n);
static long bio_control(BIO *bio, int command, long number, void *pointer);

static void load(void)
{
#define LOOK_UP(name) { #name, &lib.name },
    const struct library_symbol ssl[] = { SSL_SYMBOLS(LOOK_UP) };
    const struct library_symbol crypto[] = { CRYPTO_SYMBOLS(LOOK_UP) };

    loaded =
        library_load("libcrypto.so.3", crypto, sizeof(crypto) / sizeof(crypto[0]), &load_error);
    if (loaded == STATUS_OK)
        loaded = library_load("libssl.so.3", ssl, sizeof(ssl) / sizeof(ssl[0]), &load_error);
    if (loaded != STATUS_OK) return;
    stream_bio = lib.BIO_meth_new(BIO_TYPE_SOURCE_SINK, "stream of env");
    ASSERT(stream_bio != NULL);
    lib.BIO_meth_set_read_ex(stream_bio, bio_read);
    lib.BIO_meth_set_write_ex(stream_bio, bio_write);
    lib.BIO_meth_set_ctrl(stream_bio, bio_control);
}

/* The reason of the oldest error in the library's queue, which is emptied. */
static const char *library_reason(void)
{
    const char *reason = lib.ERR_reason_error_string(lib.ERR_peek_error());

    lib.ERR_clear_error();
    return reason != NULL ? reason : "no reason given";
}

/* ---- identities ---- */

static bool is_given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* Keys with a passphrase are refused instead of asked for on a terminal. */
static int no_passphrase(char *buf, int size, int writing, void *ctx)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)ctx;
    return -1;
}

static enum status open_pem(struct env *env, const char *path, char **text, BIO **out,
                            struct errmsg *err)
{
    size_t len = 0;
    const enum status status = env_file_read_all(env, path, TLS_FILE_SIZE_MAX, text, &len, err);

    if (status != STATUS_OK) return status;
    *out = lib.BIO_new_mem_buf(*text, (int)len);
    if (*out != NULL) return STATUS_OK;
    free(*text);
    return STATUS_NO_MEMORY;
}

static void close_pem(char *text, BIO *bio)
{
    lib.BIO_free(bio);
    explicit_bzero(text, strlen(text));
    free(text);
    lib.ERR_clear_error(); /* the end of the file is one */
}

/* Gives every certificate of the file to `take`, which owns none of them. */
static enum status each_certificate(struct env *env, const char *path,
                                    bool (*take)(SSL_CTX *context, X509 *certificate, int nth),
                                    SSL_CTX *context, struct errmsg *err)
{
    char *text;
    BIO *bio;
    int count = 0;
    bool good = true;
    enum status status = open_pem(env, path, &text, &bio, err);

    if (status != STATUS_OK) return status;
    for (X509 *one;
         good && (one = lib.PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL;) {
        good = take(context, one, count++);
        lib.X509_free(one);
    }
    if (!good) {
        status = errmsg_set(err, STATUS_INVALID, "%s: certificate %d: %s", path, count,
                            library_reason());
    } else if (count == 0) {
        status = errmsg_set(err, STATUS_INVALID, "%s: no certificate in it", path);
    }
    close_pem(text, bio);
    return status;
}

static bool take_own(SSL_CTX *context, X509 *certificate, int nth)
{
    if (nth == 0) return lib.SSL_CTX_use_certificate(context, certificate) == 1;
    return lib.SSL_CTX_ctrl(context, SSL_CTRL_CHAIN_CERT, 1, certificate) == 1;
}

static bool take_ca(SSL_CTX *context, X509 *certificate, int nth)
{
    (void)nth;
    return lib.X509_STORE_add_cert(lib.SSL_CTX_get_cert_store(context), certificate) == 1;
}

static enum status take_key(struct env *env, const char *path, SSL_CTX *context, struct errmsg *err)
{
    char *text;
    BIO *bio;
    enum status status = open_pem(env, path, &text, &bio, err);

    if (status != STATUS_OK) return status;
    EVP_PKEY *key = lib.PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    if (key == NULL) {
        status = errmsg_set(err, STATUS_INVALID,
                            "%s: no private key in it that can be read without "
                            "a passphrase",
                            path);
    } else if (lib.SSL_CTX_use_PrivateKey(context, key) != 1 ||
               lib.SSL_CTX_check_private_key(context) != 1) {
        status =
            errmsg_set(err, STATUS_INVALID, "%s: the key is not that of the certificate", path);
    }
    lib.EVP_PKEY_free(key);
    close_pem(text, bio);
    return status;
}

static enum status take_files(struct env *env, const struct tls_files *files, SSL_CTX *context,
                              struct errmsg *err)
{
    enum status status = STATUS_OK;

    if (is_given(files->cert) != is_given(files->key))
        return errmsg_set(err, STATUS_INVALID, "a certificate and its key go together");
    if (is_given(files->cert)) {
        status = each_certificate(env, files->cert, take_own, context, err);
        if (status == STATUS_OK) status = take_key(env, files->key, context, err);
    }
    if (status == STATUS_OK && is_given(files->ca))
        status = each_certificate(env, files->ca, take_ca, context, err);
    return status;
}

enum status tls_identity_load(struct env *env, const struct tls_files *files,
                              struct tls_identity **out, struct errmsg *err)
{
    enum { FAIL_WITHOUT = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT };

    pthread_once(&once, load);
    if (loaded != STATUS_OK)
        return errmsg_set(err, STATUS_UNSUPPORTED, "TLS needs libssl 3 (Debian: libssl3): %s",
                          load_error.text);
    struct tls_identity *identity = calloc(1, sizeof(*identity));
    if (identity == NULL) return STATUS_NO_MEMORY;
    ASSERT(!is_given(files->name) || is_given(files->ca));
    identity->judges = is_given(files->ca) || files->anybody;
    if (is_given(files->name)) identity->name = strdup(files->name);
    identity->context = lib.SSL_CTX_new(lib.TLS_method());
    if (identity->context == NULL || (is_given(files->name) && identity->name == NULL)) {
        tls_identity_destroy(identity);
        return errmsg_set(err, STATUS_NO_MEMORY, "TLS: %s", library_reason());
    }
    SSL_CTX *context = identity->context;
    lib.SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, NULL);
    lib.SSL_CTX_ctrl(context, SSL_CTRL_MODE,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                         SSL_MODE_RELEASE_BUFFERS,
                     NULL);
    /* Nothing is resumed: connections live long, and each shows its certificate. */
    lib.SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF, NULL);
    lib.SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
                                         SSL_OP_IGNORE_UNEXPECTED_EOF);
    lib.SSL_CTX_set_num_tickets(context, 0);
    lib.SSL_CTX_set_verify(context, is_given(files->ca) ? FAIL_WITHOUT : SSL_VERIFY_NONE, NULL);
    const enum status status = take_files(env, files, context, err);
    if (status != STATUS_OK) {
        tls_identity_destroy(identity);
        return status;
    }
    *out = identity;
    return STATUS_OK;
}

void tls_identity_destroy(struct tls_identity *identity)
{
    if (identity == NULL) return;
    lib.SSL_CTX_free(identity->context);
    free(identity->name);
    free(identity);
}

/* ---- the stream, as the library sees it ---- */

static int bio_end(struct tls *tls, BIO *bio, enum status status, int retry)
{
    if (status == STATUS_AGAIN) {
        lib.BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
        tls->wants_write = retry == BIO_FLAGS_WRITE;
    } else if (tls->io == STATUS_OK) {
        tls->io = status; /* what comes after it says less */
    }
    return 0;
}

static int bio_read(BIO *bio, char *to, size_t len, size_t *n)
{
    struct tls *tls = lib.BIO_get_data(bio);

    lib.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    const enum status status = env_stream_read(tls->stream, to, len, n);
    if (status != STATUS_OK) return bio_end(tls, bio, status, BIO_FLAGS_READ);
    if (!tls->has_read) tls->is_plain = (unsigned char)to[0] != TLS_RECORD_HANDSHAKE;
    tls->has_read = true;
    return 1;
}

static int bio_write(BIO *bio, const char *from, size_t len, size_t *n)
{
    struct tls *tls = lib.BIO_get_data(bio);
    const struct iovec part = { (void *)(uintptr_t)from, len };

    lib.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    const enum status status = env_stream_writev(tls->stream, &part, 1, n);
    return status == STATUS_OK ? 1 : bio_end(tls, bio, status, BIO_FLAGS_WRITE);
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    const struct tls *tls = lib.BIO_get_data(bio);

    (void)number;
    (void)pointer;
    if (command == BIO_CTRL_EOF) return tls != NULL && tls->io != STATUS_OK;
    return command == BIO_CTRL_FLUSH;
}

/* ---- connections ---- */

/* The certificate has to be for this host; a name, which an address is not, is also told to the
 * server, which may have several. */
static bool expect_name(SSL *ssl, const char *name)
{
    X509_VERIFY_PARAM *param = lib.SSL_get0_param(ssl);
    char *told = (char *)(uintptr_t)name; /* the library only reads it */

    if (lib.X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1) return true;
    return lib.X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 &&
           lib.SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, told) == 1;
}

enum status tls_create(struct env *env, struct env_stream *stream,
                       const struct tls_identity *identity, bool is_server, struct tls **out)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    BIO *bio = NULL;

    ASSERT(is_server || identity->judges);
    if (tls == NULL) return STATUS_NO_MEMORY;
    tls->stream = stream;
    tls->is_server = is_server;
    tls->wants_write = !is_server; /* until it is connected */
    tls->ssl = lib.SSL_new(identity->context);
    if (tls->ssl != NULL && (identity->name == NULL || expect_name(tls->ssl, identity->name)))
        bio = lib.BIO_new(stream_bio);
    if (bio == NULL) {
        lib.SSL_free(tls->ssl);
        lib.ERR_clear_error();
        free(tls);
        return STATUS_NO_MEMORY;
    }
    lib.BIO_set_data(bio, tls);
    lib.BIO_set_init(bio, 1);
    lib.SSL_set_bio(tls->ssl, bio, bio);
    lib.X509_VERIFY_PARAM_set_time(lib.SSL_get0_param(tls->ssl),
                                   (time_t)(env_wall_ns(env) / ENV_NS_PER_S));
    if (is_server) {
        lib.SSL_set_accept_state(tls->ssl);
    } else {
        lib.SSL_set_connect_state(tls->ssl);
    }
    *out = tls;
    return STATUS_OK;
}

void tls_destroy(struct tls *tls)
{
    if (tls == NULL) return;
    if (tls->done && tls->failure == STATUS_OK) (void)lib.SSL_shutdown(tls->ssl);
    lib.SSL_free(tls->ssl); /* and the BIO */
    lib.ERR_clear_error();
    free(tls);
}

/* What the peer's alert, or our own judgement, says about who did not believe whom. */
static bool is_about_trust(const struct tls *tls, unsigned long error)
{
    if (lib.SSL_get_verify_result(tls->ssl) != X509_V_OK) return true;
    switch (ERR_GET_REASON(error)) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE: return true;
    default: return false;
    }
}

/* The peer has said it. */
static bool is_alert(unsigned long error)
{
    return ERR_GET_REASON(error) > SSL_AD_REASON_OFFSET;
}

static enum status fail(struct tls *tls)
{
    const unsigned long error = lib.ERR_peek_error();
    const long verified = lib.SSL_get_verify_result(tls->ssl);

    if (tls->io == STATUS_CONN_CLOSED) {
        tls->failure = tls->io;
        snprintf(tls->why, sizeof(tls->why), "the peer closed %s",
                 tls->done ? "the connection" : "during the handshake: does it speak TLS?");
    } else if (tls->io != STATUS_OK) {
        tls->failure = tls->io;
        snprintf(tls->why, sizeof(tls->why), "the connection failed: %s", status_name(tls->io));
    } else if (tls->is_plain) {
        tls->failure = STATUS_PROTOCOL;
        snprintf(tls->why, sizeof(tls->why), "the peer does not speak TLS");
    } else if (verified != X509_V_OK) {
        tls->failure = STATUS_DENIED;
        snprintf(tls->why, sizeof(tls->why), "the peer's certificate is refused: %s",
                 lib.X509_verify_cert_error_string(verified));
    } else {
        tls->failure = is_about_trust(tls, error) ? STATUS_DENIED : STATUS_PROTOCOL;
        snprintf(tls->why, sizeof(tls->why), "%s%s",
                 tls->failure == STATUS_DENIED && is_alert(error)
                     ? "the peer refuses this end's certificate: "
                     : "",
                 error != 0 ? lib.ERR_reason_error_string(error) : "the connection was ended");
    }
    lib.ERR_clear_error();
    return tls->failure;
}

/* What came of a call of the library that answered `ok`. */
static enum status outcome(struct tls *tls, int ok)
{
    if (ok == 1) return STATUS_OK;
    switch (lib.SSL_get_error(tls->ssl, ok)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return STATUS_AGAIN;
    case SSL_ERROR_ZERO_RETURN: tls->io = STATUS_CONN_CLOSED; return fail(tls);
    default: return fail(tls);
    }
}

/* The library's queue of errors is the thread's, and SSL_get_error() looks at it. */
static enum status begin(struct tls *tls)
{
    lib.ERR_clear_error();
    tls->wants_write = false;
    return tls->failure;
}

enum status tls_handshake(struct tls *tls)
{
    enum status status = begin(tls);

    ASSERT(!tls->done);
    if (status == STATUS_OK) status = outcome(tls, lib.SSL_do_handshake(tls->ssl));
    tls->done = status == STATUS_OK;
    return status;
}

enum status tls_read(struct tls *tls, void *buf, size_t len, size_t *n)
{
    const enum status status = begin(tls);

    ASSERT(tls->done);
    return status != STATUS_OK ? status : outcome(tls, lib.SSL_read_ex(tls->ssl, buf, len, n));
}

enum status tls_write(struct tls *tls, const void *data, size_t len, size_t *n)
{
    const enum status status = begin(tls);

    ASSERT(tls->done);
    return status != STATUS_OK ? status : outcome(tls, lib.SSL_write_ex(tls->ssl, data, len, n));
}

bool tls_waiting(const struct tls *tls)
{
    return tls->done && tls->failure == STATUS_OK && lib.SSL_has_pending(tls->ssl) == 1;
}

bool tls_wants_write(const struct tls *tls)
{
    return tls->wants_write;
}

const char *tls_why(const struct tls *tls)
{
    return tls->why;
}

bool tls_peer_is_plain(const struct tls *tls)
{
    return tls->is_plain;
}
