/* SPDX-License-Identifier: Apache-2.0
 *
 * net/seal.h - what two ends of a stream say to each other, encrypted and authenticated.
 *
 * Both ends know a secret and have exchanged, in the clear, random bytes and whatever else their
 * greeting says. From then on each byte goes through seal_writev() and seal_read() instead of
 * env_stream_writev() and env_stream_read(): the stream carries records, and a record that was
 * changed, dropped, repeated, moved, or made by somebody else ends everything with STATUS_CORRUPT.
 * Not one byte of it, or of what follows, is handed out. Who and when may talk is the protocol's
 * affair above; that somebody cut the stream shows there as well, as a lost connection.
 *
 * There is no forward secrecy: who learns the secret later can read what was recorded.
 *
 * Memory:  a seal is on the heap, some 270 KiB; nothing is allocated after seal_create().
 * Threads: those of the stream's env.
 * Limits:  texts below are cut in records of SEAL_RECORD_SIZE; keys are changed after
 *          SEAL_REKEY_RECORDS of them. */
#ifndef NET_SEAL_H
#define NET_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/aead.h"
#include "base/status.h"

struct env_stream;

enum {
    SEAL_RECORD_SIZE = 32 << 10, /* of what a record says, at most */
    SEAL_HEAD_SIZE = 4,
    SEAL_OVERHEAD = SEAL_HEAD_SIZE + AEAD_TAG_SIZE, /* bytes that a record adds */
    SEAL_BATCH = 4,                                 /* records of one call to the kernel */
    SEAL_BUFFER_SIZE = SEAL_BATCH * (SEAL_RECORD_SIZE + SEAL_OVERHEAD),
    SEAL_REKEY_RECORDS = 1 << 22,
    SEAL_CONTEXT_SIZE_MAX = 480,
};

/* Everything is borrowed until seal_create() returns. */
struct seal_options {
    enum aead_cipher cipher;
    bool initiator;     /* the two ends differ in this, and in nothing else */
    const char *secret; /* not empty */
    const void *salt;   /* random bytes of both ends: fresh for every connection */
    size_t salt_len;
    const void *context;    /* what the keys are bound to: the greetings of both ends */
    size_t context_len;     /* SEAL_CONTEXT_SIZE_MAX at most */
    uint32_t rekey_records; /* 0: SEAL_REKEY_RECORDS */
};

struct seal; /* one end */

/* STATUS_UNSUPPORTED where there is no library to do it, STATUS_NO_MEMORY. */
MUST_USE enum status seal_create(const struct seal_options *options, struct seal **out);
void seal_destroy(struct seal *seal); /* NULL is allowed */

/* ---- out ---- */

/* As env_stream_writev(): STATUS_OK with *n bytes taken, and then their memory is free again; they
 * may still wait here for the stream. STATUS_AGAIN if nothing was taken. At most ENV_IOV_MAX parts.
 */
MUST_USE enum status seal_writev(struct seal *seal, struct env_stream *stream,
                                 const struct iovec *iov, int iov_count, size_t *n);

/* Sends what waits: STATUS_OK when nothing is left, STATUS_AGAIN when the stream is full. */
MUST_USE enum status seal_flush(struct seal *seal, struct env_stream *stream);

/* ---- in ---- */

/* Bytes of records that were read together with the end of the greeting; at most
 * SEAL_BUFFER_SIZE in all, before the first seal_read(). STATUS_PROTOCOL if there are more. */
MUST_USE enum status seal_feed(struct seal *seal, const uint8_t *data, size_t len);

/* As env_stream_read(), for one record: `buf` has SEAL_RECORD_SIZE bytes. STATUS_CORRUPT: see
 * above; STATUS_PROTOCOL: the length of the record makes no sense. Both are final. */
MUST_USE enum status seal_read(struct seal *seal, struct env_stream *stream, uint8_t *buf,
                               size_t *n);

/* True if a whole record waits in memory: seal_read() will not touch the stream, and the stream's
 * readiness will not say that there is something. */
bool seal_waiting(const struct seal *seal);

#endif
