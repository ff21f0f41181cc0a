/* SPDX-License-Identifier: Apache-2.0
 *
 * net/tls.h - TLS 1.2 and 1.3 on a stream of env, by OpenSSL's libssl, loaded when first used.
 *
 * An identity is what a process shows and whom it believes: a certificate with its key, and
 * certificates of authorities (CAs). A tls is one end of one connection. It reads and writes the
 * stream itself, and never waits: net/wire.h makes readiness of it.
 *
 * Whom an end believes:
 *   with CAs     the peer has to show a certificate that one of them has signed; its name is looked
 *                at only where `name` is given, so a CA of a cluster must sign for nobody else
 *   without      a server asks nobody for a certificate; a client needs `anybody` (asserted)
 * Times of certificates are compared with env_wall_ns().
 *
 * Memory:  what the library needs, some 20 KiB a connection that talks, less while it is idle.
 * Threads: those of the env; identities may be shared between connections of one thread.
 * Limits:  files of TLS_FILE_SIZE_MAX. */
#ifndef NET_TLS_H
#define NET_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

struct env;
struct env_stream;
struct tls;          /* opaque */
struct tls_identity; /* opaque */

enum { TLS_FILE_SIZE_MAX = 1 << 20, TLS_WHY_SIZE = 200 };

/* PEM files; NULL and "" for none. */
struct tls_files {
    const char *cert; /* the own certificate first, then those between it and the CA */
    const char *key;  /* without a passphrase */
    const char *ca;   /* whom to believe */
    bool anybody;     /* a client believes everybody: for what it reaches on its own machine */
    const char *name; /* of the server that a client calls, a host name or an address: its
                         certificate must be for it; needs `ca` (asserted) */
};

/* STATUS_UNSUPPORTED where there is no libssl; STATUS_NOT_FOUND and the like for files,
 * STATUS_INVALID for what is in them; err says which, and what is wrong. */
MUST_USE enum status tls_identity_load(struct env *env, const struct tls_files *files,
                                       struct tls_identity **out, struct errmsg *err);
/* Connections that have it go on. NULL is allowed. */
void tls_identity_destroy(struct tls_identity *identity);

/* One end on `stream`, which stays the caller's and outlives it. STATUS_NO_MEMORY. */
MUST_USE enum status tls_create(struct env *env, struct env_stream *stream,
                                const struct tls_identity *identity, bool is_server,
                                struct tls **out);
/* Says goodbye, as far as the stream takes it at once. NULL is allowed. */
void tls_destroy(struct tls *tls);

/* Goes on with the handshake. STATUS_OK: it is over, and the peer is believed. STATUS_AGAIN: the
 * stream has to become ready. Otherwise it has failed for good: STATUS_DENIED (one end does not
 * believe the other), STATUS_PROTOCOL (no TLS, or none in common), or the stream's own. */
MUST_USE enum status tls_handshake(struct tls *tls);

/* After the handshake, as env_stream_read() and env_stream_writev(). A write that was answered
 * STATUS_AGAIN has to be repeated with the same bytes, or more, at its front. */
MUST_USE enum status tls_read(struct tls *tls, void *buf, size_t len, size_t *n);
MUST_USE enum status tls_write(struct tls *tls, const void *data, size_t len, size_t *n);

/* Bytes are here that the stream's readiness does not tell of. */
bool tls_waiting(const struct tls *tls);
/* The last call stopped because the stream took no more. */
bool tls_wants_write(const struct tls *tls);

/* Why it failed, for people; "" if it has not. */
const char *tls_why(const struct tls *tls);
/* The first byte that came was none of TLS. */
bool tls_peer_is_plain(const struct tls *tls);

#endif
