/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_job.c - jobs on a few threads beside the loop.
 *
 *         env_job_start        a thread takes it      run() returns        the loop
 *    IDLE -----------> QUEUED ---------------> ACTIVE -------------> DONE ---------> IDLE, done()
 *     ^                  | env_job_cancel        |                     |
 *     +------------------+-----------------------+---------------------+ env_job_settle
 *
 * Threads are made when jobs come and all others are busy: as many as there are cores, but two
 * where there is only one, so that a long job does not keep all others waiting, and at most
 * ENV_JOB_THREADS_MAX. They stay until the env ends. The loop hears of what is done through an
 * eventfd.
 *
 *   I1  What threads touch (the lists, phases, `ending`) is under the mutex; a job that is ACTIVE
 *       belongs to its thread.
 *   I2  `done` runs from the loop only, and without the mutex. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real_int.h"
#include "base/log.h"

struct job_list {
    struct env_job *head, *tail;
};

struct real_jobs {
    struct env_source wakeup;
    uint32_t count; /* not IDLE; the loop's */

    pthread_mutex_t mutex; /* of what follows (I1) */
    pthread_cond_t queued_cond, done_cond;
    struct job_list queued, done;
    uint32_t idle; /* threads that wait for a job */
    bool ending;
    pthread_t threads[ENV_JOB_THREADS_MAX]; /* the loop's */
    uint32_t threads_count, threads_max;
};

static void list_append(struct job_list *list, struct env_job *job)
{
    job->prev = list->tail;
    job->next = NULL;
    *(list->tail != NULL ? &list->tail->next : &list->head) = job;
    list->tail = job;
}

static void list_remove(struct job_list *list, struct env_job *job)
{
    *(job->prev != NULL ? &job->prev->next : &list->head) = job->next;
    *(job->next != NULL ? &job->next->prev : &list->tail) = job->prev;
}

/* ---- threads ---- */

static void *thread_main(void *ctx)
{
    struct real_jobs *all = ctx;

    pthread_mutex_lock(&all->mutex);
    for (;;) {
        all->idle++;
        while (all->queued.head == NULL && !all->ending)
            pthread_cond_wait(&all->queued_cond, &all->mutex);
        all->idle--;
        struct env_job *job = all->queued.head;
        if (all->ending) break;
        list_remove(&all->queued, job);
        job->phase = ENV_JOB_ACTIVE;
        pthread_mutex_unlock(&all->mutex);
        job->run(job->ctx);
        pthread_mutex_lock(&all->mutex);
        job->phase = ENV_JOB_DONE;
        list_append(&all->done, job);
        pthread_cond_signal(&all->done_cond);
        env_event_signal(all->wakeup.fd, 1);
    }
    pthread_mutex_unlock(&all->mutex);
    return NULL;
}

static uint32_t threads_max(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) != 0) return 2;
    const int cores = CPU_COUNT(&set);
    return cores < 2 ? 2 : cores > ENV_JOB_THREADS_MAX ? ENV_JOB_THREADS_MAX : (uint32_t)cores;
}

/* False if there is none at all. */
static bool have_thread(struct real_jobs *all)
{
    if (all->threads_count == all->threads_max) return true;
    pthread_t *thread = &all->threads[all->threads_count];
    const int error = env_real_thread(thread, thread_main, all);
    if (error == 0) {
        all->threads_count++;
    } else {
        LOG_WARN("env", "no_job_thread", "errno=%d threads=%u", error, all->threads_count);
    }
    return all->threads_count > 0;
}

/* ---- the loop ---- */

static void take_off(struct real_jobs *all, struct job_list *list, struct env_job *job)
{
    ASSERT(all->count > 0);
    list_remove(list, job);
    job->phase = ENV_JOB_IDLE;
    all->count--;
}

static struct env_job *take_done(struct real_jobs *all)
{
    pthread_mutex_lock(&all->mutex);
    struct env_job *job = all->done.head;
    if (job != NULL) take_off(all, &all->done, job);
    pthread_mutex_unlock(&all->mutex);
    return job;
}

static void on_wakeup(struct env_source *source, uint32_t events)
{
    struct real_jobs *all = (struct real_jobs *)(void *)source; /* `wakeup` is the first member */
    struct env_job *job;
    uint64_t count;

    (void)events;
    const ssize_t got = read(source->fd, &count, sizeof(count));
    ASSERT(got == sizeof(count) || errno == EAGAIN);
    while ((job = take_done(all)) != NULL)
        job->done(job->ctx);
}

/* ---- life ---- */

static void jobs_free(struct env_source *source)
{
    struct real_jobs *all = (struct real_jobs *)(void *)source;

    pthread_cond_destroy(&all->done_cond);
    pthread_cond_destroy(&all->queued_cond);
    pthread_mutex_destroy(&all->mutex);
    free(all);
}

static struct real_jobs *jobs_create(struct env_real *real)
{
    struct real_jobs *all = calloc(1, sizeof(*all));

    if (all == NULL) return NULL;
    all->wakeup.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (all->wakeup.fd < 0) {
        free(all);
        return NULL;
    }
    pthread_mutex_init(&all->mutex, NULL);
    pthread_cond_init(&all->queued_cond, NULL);
    pthread_cond_init(&all->done_cond, NULL);
    all->threads_max = threads_max();
    all->wakeup.on_event = on_wakeup;
    all->wakeup.free = jobs_free;
    env_source_add(real, &all->wakeup);
    if (env_source_arm(real, &all->wakeup, EPOLLIN) == STATUS_OK) return all;
    env_source_close(real, &all->wakeup);
    return NULL;
}

void env_real_jobs_destroy(struct env_real *real)
{
    struct real_jobs *all = real->jobs;

    if (all == NULL) return;
    pthread_mutex_lock(&all->mutex);
    all->ending = true;
    pthread_cond_broadcast(&all->queued_cond);
    pthread_mutex_unlock(&all->mutex);
    for (uint32_t i = 0; i < all->threads_count; i++)
        pthread_join(all->threads[i], NULL);
    real->jobs = NULL;
    env_source_close(real, &all->wakeup);
}

/* ---- jobs ---- */

static struct real_jobs *jobs_of(const struct env_job *job)
{
    return env_real_of(job->env)->jobs;
}

enum status env_real_job_start(struct env_job *job)
{
    struct env_real *real = env_real_of(job->env);

    if (real->jobs == NULL) real->jobs = jobs_create(real);
    struct real_jobs *all = real->jobs;
    if (all == NULL) return STATUS_NO_MEMORY;
    if (all->count == ENV_JOBS_MAX) return STATUS_FULL;
    pthread_mutex_lock(&all->mutex);
    const bool busy = all->idle == 0 || all->queued.head != NULL;
    pthread_mutex_unlock(&all->mutex);
    if (busy && !have_thread(all)) return STATUS_NO_MEMORY;
    all->count++;
    pthread_mutex_lock(&all->mutex);
    job->phase = ENV_JOB_QUEUED;
    list_append(&all->queued, job);
    pthread_cond_signal(&all->queued_cond);
    pthread_mutex_unlock(&all->mutex);
    return STATUS_OK;
}

bool env_real_job_cancel(struct env_job *job)
{
    struct real_jobs *all = jobs_of(job);

    pthread_mutex_lock(&all->mutex);
    const bool waiting = job->phase == ENV_JOB_QUEUED;
    ASSERT(job->phase != ENV_JOB_IDLE);
    if (waiting) take_off(all, &all->queued, job);
    pthread_mutex_unlock(&all->mutex);
    return waiting;
}

void env_real_job_settle(struct env_job *job)
{
    struct real_jobs *all = jobs_of(job);

    pthread_mutex_lock(&all->mutex);
    while (job->phase == ENV_JOB_ACTIVE)
        pthread_cond_wait(&all->done_cond, &all->mutex);
    if (job->phase == ENV_JOB_QUEUED) take_off(all, &all->queued, job);
    if (job->phase == ENV_JOB_DONE) take_off(all, &all->done, job);
    pthread_mutex_unlock(&all->mutex);
}
