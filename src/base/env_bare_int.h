/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_bare_int.h - what the files of the bare path share: env_bare.c, one host, and
 * env_bare_host.c, two. */
#ifndef BASE_ENV_BARE_INT_H
#define BASE_ENV_BARE_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/env_bare.h"

/* Bytes of one direction of one stream: as many as `owed`, of which `moved` have gone. */
struct flow {
    uint64_t owed, moved;
};

struct end {
    int fds[ENV_BARE_STREAMS_MAX];
    struct flow bulk[ENV_BARE_STREAMS_MAX]; /* messages */
    struct flow word[ENV_BARE_STREAMS_MAX]; /* acknowledgements or requests */
    uint8_t *memory;
    bool sends; /* the messages */
};

struct env_bare {
    struct env_bare_options options;
    struct end ours, theirs;
    pthread_t thread;
    bool started;
    _Atomic bool running; /* a run is under way: only then does the target poll; by the initiator,
                             and for one on another host always */
};

/* With no connection yet, and no thread. STATUS_INVALID for options out of range. */
MUST_USE enum status env_bare_create(const struct env_bare_options *options, struct env_bare **out);

/* The target's thread, over `theirs`; ends when a connection does. */
void *env_bare_target(void *bare);

#endif
