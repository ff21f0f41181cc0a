/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_populate.c - pages made ahead of their use, by as many threads as there are cores.
 *
 * Most of the time goes into clearing pages, which several cores do at once. Threads take one chunk
 * after the other, so that a core that has other work does not hold up the rest; the caller is one
 * of them, and if no thread can be made, the only one. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real_int.h"
#include "base/log.h"

enum { THREADS_MAX = 16, CHUNK_SIZE = 32 << 20 };

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

struct populate {
    char *start;
    size_t len;
    _Atomic size_t taken; /* bytes that somebody works at, or has; by whoever comes, any order */
    _Atomic int error;    /* the first errno; 0: none */
};

static void *populate_main(void *ctx)
{
    struct populate *all = ctx;

    while (atomic_load_explicit(&all->error, memory_order_relaxed) == 0) {
        const size_t at = atomic_fetch_add_explicit(&all->taken, CHUNK_SIZE, memory_order_relaxed);
        if (at >= all->len) break;
        const size_t step = all->len - at < CHUNK_SIZE ? all->len - at : CHUNK_SIZE;
        int result;
        do {
            result = madvise(all->start + at, step, MADV_POPULATE_WRITE);
        } while (result != 0 && (errno == EINTR || errno == EAGAIN));
        if (result != 0) atomic_store_explicit(&all->error, errno, memory_order_relaxed);
    }
    return NULL;
}

static size_t cores(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
    const int count = CPU_COUNT(&set);
    return count > THREADS_MAX ? THREADS_MAX : (size_t)count;
}

enum status env_real_populate(void *address, size_t len)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t start = (uintptr_t)address & ~(page - 1);
    const uintptr_t end = ((uintptr_t)address + len + page - 1) & ~(page - 1);
    struct populate all = { .start = (char *)start, .len = end - start };
    pthread_t threads[THREADS_MAX];
    size_t want = (all.len + CHUNK_SIZE - 1) / CHUNK_SIZE, count = 0;

    ASSERT(end > start);
    if (want > cores()) want = cores();
    while (count + 1 < want && env_real_thread(&threads[count], populate_main, &all) == 0)
        count++;
    populate_main(&all);
    for (size_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    const int error = atomic_load_explicit(&all.error, memory_order_relaxed);
    if (error == 0) return STATUS_OK;
    LOG_WARN("env", "populate_failed", "len=%zu errno=%d", all.len, error);
    return error == EINVAL ? STATUS_UNSUPPORTED : STATUS_NO_MEMORY;
}
