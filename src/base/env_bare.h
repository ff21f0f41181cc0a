/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_bare.h - the bare path: what sockets give a program that does nothing else. A yardstick
 * for benches; no part of Yolk runs on it.
 *
 * A target thread owns `there`. Moving a message to it (write) is its bytes on a socket and one
 * byte back; fetching one (read) is 16 bytes there and its bytes back. As many messages as `depth`
 * are under way, spread over `streams` connections, walking through the memory from where the last
 * run ended. Waiting is done by the kernel (blocking: recv, or poll() with several streams) or not
 * at all (polling: both ends try again and again).
 *
 * Threads: a bare path belongs to the thread that opened it. */
#ifndef BASE_ENV_BARE_H
#define BASE_ENV_BARE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { ENV_BARE_STREAMS_MAX = 8, ENV_BARE_DEPTH_MAX = 1024 };

/* Where the two ends of a round trip run decides how long it takes: on one core a wake-up is a
 * switch, on two it is an interrupt to a core that sleeps, three times as long on a virtual
 * machine; and the scheduler likes now the one, now the other. So both are placed. */
enum env_bare_place {
    ENV_BARE_ANYWHERE,
    ENV_BARE_FIRST, /* of the cores that this process may use */
    ENV_BARE_SECOND,
};

struct env_bare_options {
    bool read;
    bool polling;
    enum env_bare_place place; /* of the target */
    uint32_t streams;          /* 1..ENV_BARE_STREAMS_MAX */
    uint32_t depth;            /* of all streams together; a multiple of streams */
    uint32_t size;             /* of a message; memory_size is a multiple of streams * size */
    uint8_t *here, *there;
    size_t memory_size; /* of each */
};

struct env_bare; /* opaque */

/* Both ends here, over 127.0.0.1. STATUS_INVALID, STATUS_NO_MEMORY or STATUS_IO. */
MUST_USE enum status env_bare_open(const struct env_bare_options *options, struct env_bare **out);

/* Moves `count` messages, a multiple of streams; *ns: how long it took. STATUS_IO if a connection
 * broke. */
MUST_USE enum status env_bare_run(struct env_bare *bare, uint64_t count, uint64_t *ns);

void env_bare_close(struct env_bare *bare); /* NULL allowed */

/* Nothing happens where there is one core. From one thread only. */
void env_bare_pin(pthread_t thread, enum env_bare_place place);

/* ---- between two hosts ---- */

enum { ENV_BARE_WORD_SIZE = 256 };

struct env_bare_server; /* opaque */

/* A target for bare paths of another host, one at a time, over `memory`, which anyone who can reach
 * `address` may then read and write: for benches on networks of one's own. `word`, shorter than
 * ENV_BARE_WORD_SIZE, is told to whoever asks. STATUS_EXISTS for a taken port; STATUS_INVALID,
 * STATUS_NO_MEMORY, STATUS_IO. */
MUST_USE enum status env_bare_serve(const char *address, uint8_t *memory, size_t memory_size,
                                    const char *word, struct env_bare_server **out,
                                    struct errmsg *err);
void env_bare_server_close(struct env_bare_server *server); /* NULL allowed */

/* The word of the server there. STATUS_UNAVAILABLE if nobody answers, STATUS_PROTOCOL for
 * something else than a server. */
MUST_USE enum status env_bare_ask(const char *address, char word[ENV_BARE_WORD_SIZE],
                                  struct errmsg *err);

/* As env_bare_open(), to a server; `there` is not used, and memory_size at most the server's. A
 * server that refuses shows as STATUS_IO of the first run. */
MUST_USE enum status env_bare_connect(const struct env_bare_options *options, const char *address,
                                      struct env_bare **out, struct errmsg *err);

#endif
