/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/cpu/pool.c - a loop is one 64-bit word: generation (32) | tasks (16) | claimed (16).
 *
 * To publish a loop the owner writes fn and ctx, then stores the word with the next generation and
 * zero claims. To claim a task a thread reads the word, sees that a task is unclaimed, reads fn and
 * ctx, and swaps in claimed + 1. If that succeeds the word did not change in between, so that task
 * was unclaimed all the while, so the owner was still in this loop, so fn and ctx belong to it
 * (I1).
 *
 * Invariants
 *   I1  fn and ctx change only while every task of the loop before is claimed and done.
 *   I2  done <= claimed <= tasks; the owner returns when done == tasks.
 *   I3  The generation never returns within the life of a pool (32 bits; a step runs a few hundred
 *       loops, and a thread would have to sleep through four billion of them between two
 *       instructions).
 *
 * Sleep. A thread that finds nothing spins SPINS times, then waits on a condition variable for the
 * word to change; the owner takes the lock only when somebody sleeps. `sleepers` and `word` are a
 * Dekker pair: each side writes its own and then reads the other's, sequentially consistent. The
 * owner, at the end of a loop, waits for `done` in the same two stages. */
#include "infer/cpu/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/assert.h"

/* About 20 us on current CPUs: longer than the owner takes between two loops of a decode step,
 * shorter than anybody would notice on a shared core. */
enum { SPINS = 600 };

struct worker {
    struct pool *pool;
    pthread_t thread;
    uint32_t index;
};

struct pool {
    uint32_t threads;
    struct worker *workers; /* threads - 1 of them */
    uint32_t started;       /* workers that run; differs only if creation failed half way */

    _Alignas(64) _Atomic uint64_t word; /* owner publishes, all claim */
    _Atomic(pool_fn) fn;                /* owner writes, workers read: see I1 */
    _Atomic(void *) ctx;
    _Alignas(64) _Atomic uint32_t done; /* all add, owner reads and clears */

    pthread_mutex_t lock; /* innermost: nothing is called with it held */
    pthread_cond_t wake;  /* workers: the word changed */
    pthread_cond_t idle;  /* owner: all tasks done */
    _Atomic uint32_t sleepers;
    _Atomic bool owner_sleeps;
    _Atomic bool stop;
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static uint32_t claimed_of(uint64_t word)
{
    return (uint32_t)(word & 0xFFFF);
}

static uint32_t tasks_of(uint64_t word)
{
    return (uint32_t)(word >> 16) & 0xFFFF;
}

/* The last task done wakes the owner. */
static void finish_task(struct pool *pool, uint32_t tasks)
{
    const uint32_t done = atomic_fetch_add(&pool->done, 1) + 1;

    ASSERT(done <= tasks);
    if (done < tasks || !atomic_load(&pool->owner_sleeps)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->idle);
    pthread_mutex_unlock(&pool->lock);
}

/* Runs tasks while there are unclaimed ones; returns the word that had none. */
static uint64_t work(struct pool *pool, uint32_t thread)
{
    uint64_t word = atomic_load(&pool->word);

    while (claimed_of(word) < tasks_of(word)) {
        const pool_fn fn = atomic_load_explicit(&pool->fn, memory_order_relaxed);
        void *ctx = atomic_load_explicit(&pool->ctx, memory_order_relaxed);
        if (!atomic_compare_exchange_weak(&pool->word, &word, word + 1)) continue;
        fn(ctx, claimed_of(word), thread);
        finish_task(pool, tasks_of(word));
        word = atomic_load(&pool->word);
    }
    return word;
}

static void wait_for_word(struct pool *pool, uint64_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->word, memory_order_relaxed) != seen) return;
        pause_cpu();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->word) == seen && !atomic_load(&pool->stop)) {
        pthread_cond_wait(&pool->wake, &pool->lock);
    }
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct pool *pool = worker->pool;

    while (!atomic_load(&pool->stop))
        wait_for_word(pool, work(pool, worker->index));
    return NULL;
}

static void wait_for_done(struct pool *pool, uint32_t tasks)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&pool->done) == tasks) return;
        pause_cpu();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->owner_sleeps, true);
    while (atomic_load(&pool->done) != tasks)
        pthread_cond_wait(&pool->idle, &pool->lock);
    atomic_store(&pool->owner_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

static void publish(struct pool *pool, pool_fn fn, void *ctx, uint32_t tasks)
{
    const uint64_t word = atomic_load(&pool->word);

    ASSERT(claimed_of(word) == tasks_of(word));
    atomic_store(&pool->done, 0);
    atomic_store_explicit(&pool->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&pool->ctx, ctx, memory_order_relaxed);
    atomic_store(&pool->word, ((word >> 32) + 1) << 32 | (uint64_t)tasks << 16);
    if (atomic_load(&pool->sleepers) == 0) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

void pool_run(struct pool *pool, pool_fn fn, void *ctx, uint32_t tasks)
{
    ASSERT(tasks <= POOL_TASKS_MAX);
    if (tasks <= 1 || pool->threads == 1) {
        for (uint32_t i = 0; i < tasks; i++)
            fn(ctx, i, 0);
        return;
    }
    publish(pool, fn, ctx, tasks);
    (void)work(pool, 0);
    wait_for_done(pool, tasks);
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->threads;
}

enum status cpu_pool_create(uint32_t threads, struct pool **out)
{
    ASSERT(threads >= 1 && threads <= POOL_THREADS_MAX);
    struct pool *pool = aligned_alloc(_Alignof(struct pool), sizeof(*pool));
    if (pool == NULL) return STATUS_NO_MEMORY;
    *pool = (struct pool){ .threads = threads };
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->idle, NULL);
    pool->workers = calloc(threads, sizeof(*pool->workers));
    if (pool->workers == NULL) goto fail;
    for (uint32_t i = 0; i + 1 < threads; i++) {
        struct worker *worker = &pool->workers[i];
        *worker = (struct worker){ .pool = pool, .index = i + 1 };
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) goto fail;
        pool->started++;
    }
    *out = pool;
    return STATUS_OK;

fail:
    cpu_pool_destroy(pool);
    return STATUS_NO_MEMORY;
}

void cpu_pool_destroy(struct pool *pool)
{
    if (pool == NULL) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->idle);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool->workers);
    free(pool);
}
