/* SPDX-License-Identifier: Apache-2.0
 *
 * net/wire.h - a stream that may be encrypted: what HTTP and RPC read, write and watch.
 *
 * Without an identity a wire is its stream, and costs a branch. With one it is TLS on the stream:
 * the handshake happens by itself, reads and writes answer STATUS_AGAIN until it is over, and a
 * failure of it is what they answer from then on. Why is logged here, once, unless the owner tells.
 *
 * Memory:  a wire lives in its owner; TLS is on the heap.
 * Threads: the env's. */
#ifndef NET_WIRE_H
#define NET_WIRE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/env.h"
#include "base/status.h"

struct tls_identity;
struct wire_tls;

struct wire {
    struct env_stream *stream;
    struct wire_tls *tls; /* NULL: plain */
};

/* Takes the stream. `identity` NULL: plain. STATUS_NO_MEMORY: the stream is still the caller's. */
MUST_USE enum status wire_open(struct wire *wire, struct env *env, struct env_stream *stream,
                               const struct tls_identity *identity, bool is_server);
/* All zero is allowed. Safe inside its own callback, which will not run again. */
void wire_close(struct wire *wire);

/* As env_stream_watch(), _read() and _writev(); of a write that was answered STATUS_AGAIN the same
 * bytes come first in the next. */
void wire_watch(struct wire *wire, unsigned events, env_ready_fn on_ready, void *ctx);
MUST_USE enum status wire_read(struct wire *wire, void *buf, size_t len, size_t *n);
MUST_USE enum status wire_write(struct wire *wire, const void *data, size_t len, size_t *n);

/* The owner says what went wrong, by wire_why(): nothing is logged. */
void wire_be_quiet(struct wire *wire);
/* Why TLS failed, for people, until the wire is closed; "" if it has not. */
const char *wire_why(const struct wire *wire);

/* After a wire_read() of `n` bytes where `asked` would have had room: certainly nothing is left, so
 * that another read is not worth its system call. What comes later makes the stream ready again. */
bool wire_is_drained(const struct wire *wire, size_t asked, size_t n);

/* The peer does not speak TLS and we do: nothing can be read any more. */
bool wire_peer_is_plain(const struct wire *wire);
/* Tells such a peer so, in the clear and as far as the kernel takes it at once. */
void wire_answer_plain(struct wire *wire, const void *data, size_t len);

#endif
