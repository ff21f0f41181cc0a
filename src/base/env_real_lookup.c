/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_lookup.c - host names looked up beside the loop.
 *
 * The C library's resolver blocks, for many seconds when a name server is silent. So each lookup
 * has a thread that ends with it; there are few, because addresses are mostly numbers. Nobody can
 * stop a lookup: whoever does not want it any more abandons it, and its thread frees it at the end.
 *
 *   RUNNING --- the thread is done ---> DONE --- env_lookup_take(), _abandon() ---> freed
 *      `------- env_lookup_abandon() -> ABANDONED --- the thread is done ---------> freed
 *
 * Threads: `state` is changed by exchange, by the thread and by the loop; whoever finds the other's
 * mark there frees. What was found is written before the mark and read after it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real_int.h"

enum lookup_state { LOOKUP_RUNNING, LOOKUP_DONE, LOOKUP_ABANDONED };

struct env_lookup {
    _Atomic enum lookup_state state;
    int event_fd; /* the thread's own */
    char address[ENV_HOST_SIZE + 16];
    struct env_found found;
};

static _Atomic unsigned running; /* lookups; by everybody, and only a count */

static void *lookup_main(void *ctx)
{
    struct env_lookup *lookup = ctx;
    const int event_fd = lookup->event_fd;

    lookup->found.status = env_real_resolve(lookup->address, false, &lookup->found.addr,
                                            &lookup->found.addr_len, &lookup->found.err);
    /* Before the end can be seen: whoever saw all of them end may start as many. */
    atomic_fetch_sub_explicit(&running, 1, memory_order_relaxed);
    /* Release: what was found. Acquire: nobody looks at it any more, if it was abandoned. */
    const enum lookup_state before =
        atomic_exchange_explicit(&lookup->state, LOOKUP_DONE, memory_order_acq_rel);
    ASSERT(before != LOOKUP_DONE);
    if (before == LOOKUP_ABANDONED) free(lookup);
    env_event_signal(event_fd, 1);
    close(event_fd);
    return NULL;
}

static bool thread_start(struct env_lookup *lookup)
{
    pthread_t thread;

    if (env_real_thread(&thread, lookup_main, lookup) != 0) return false;
    pthread_detach(thread);
    return true;
}

enum status env_lookup_start(const char *address, int event_fd, struct env_lookup **out)
{
    enum status status = STATUS_NO_MEMORY;

    if (strlen(address) >= sizeof((*out)->address)) return STATUS_INVALID;
    if (atomic_fetch_add_explicit(&running, 1, memory_order_relaxed) >= ENV_LOOKUPS_MAX) {
        status = STATUS_FULL;
        goto uncount;
    }
    struct env_lookup *lookup = calloc(1, sizeof(*lookup));
    if (lookup == NULL) goto uncount;
    memcpy(lookup->address, address, strlen(address) + 1);
    lookup->event_fd = dup(event_fd);
    if (lookup->event_fd < 0) goto free_lookup;
    if (!thread_start(lookup)) goto close_event;
    *out = lookup;
    return STATUS_OK;

close_event:
    close(lookup->event_fd);
free_lookup:
    free(lookup);
uncount:
    atomic_fetch_sub_explicit(&running, 1, memory_order_relaxed);
    return status;
}

bool env_lookup_take(struct env_lookup *lookup, struct env_found *out)
{
    if (atomic_load_explicit(&lookup->state, memory_order_acquire) != LOOKUP_DONE) return false;
    *out = lookup->found;
    free(lookup);
    return true;
}

void env_lookup_abandon(struct env_lookup *lookup)
{
    if (lookup == NULL) return;
    const enum lookup_state before =
        atomic_exchange_explicit(&lookup->state, LOOKUP_ABANDONED, memory_order_acq_rel);
    ASSERT(before != LOOKUP_ABANDONED);
    if (before == LOOKUP_DONE) free(lookup);
}
