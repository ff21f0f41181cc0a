/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/farm.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/assert.h"

/* Everything below `mutex` is read and written under it. */
struct farm {
    const struct trace *trace;
    struct farm_job *jobs;
    uint32_t count;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t next;    /* job to take */
    uint32_t workers; /* that have not ended */
    uint32_t done;
    double *shares; /* of each job's requests that have ended */
    enum status status;
    struct errmsg err;
};

struct worker {
    struct farm *farm;
    uint32_t job;
};

static void on_progress(void *ctx, uint32_t finished, uint32_t count)
{
    const struct worker *worker = ctx;
    struct farm *farm = worker->farm;

    pthread_mutex_lock(&farm->mutex);
    farm->shares[worker->job] = (double)finished / count;
    pthread_cond_signal(&farm->changed);
    pthread_mutex_unlock(&farm->mutex);
}

static enum status run_job(struct worker *worker, struct errmsg *err)
{
    struct farm_job *job = &worker->farm->jobs[worker->job];
    const struct sim_progress progress = { on_progress, worker };
    struct sim_result *result = NULL;

    enum status status = sim_run(&job->cluster, worker->farm->trace, progress, &result, err);
    if (status == STATUS_OK) status = sim_summarize(result, &job->summary);
    if (status == STATUS_OK && job->keep) {
        job->result = result;
        return STATUS_OK;
    }
    sim_result_destroy(result);
    return status;
}

/* A job to run; false if there is none, or one has failed. */
static bool take_job(struct farm *farm, uint32_t *job)
{
    pthread_mutex_lock(&farm->mutex);
    const bool taken = farm->status == STATUS_OK && farm->next < farm->count;
    if (taken) *job = farm->next++;
    pthread_mutex_unlock(&farm->mutex);
    return taken;
}

static void end_job(struct farm *farm, uint32_t job, enum status status, const struct errmsg *err)
{
    pthread_mutex_lock(&farm->mutex);
    if (status != STATUS_OK && farm->status == STATUS_OK) {
        farm->status = status;
        farm->err = *err;
    }
    farm->shares[job] = 0;
    farm->done++;
    pthread_cond_signal(&farm->changed);
    pthread_mutex_unlock(&farm->mutex);
}

static void *work(void *ctx)
{
    struct worker worker = { ctx, 0 };
    struct farm *farm = ctx;

    while (take_job(farm, &worker.job)) {
        struct errmsg err = { "not enough memory" };
        const enum status status = run_job(&worker, &err);
        end_job(farm, worker.job, status, &err);
    }
    pthread_mutex_lock(&farm->mutex);
    farm->workers--;
    pthread_cond_signal(&farm->changed);
    pthread_mutex_unlock(&farm->mutex);
    return NULL;
}

static double sum_done(const struct farm *farm)
{
    double sum = farm->done;
    for (uint32_t i = 0; i < farm->count; i++)
        sum += farm->shares[i];
    return sum;
}

/* Until all workers have ended. The lock is not held while the caller is told. */
static void watch(struct farm *farm, struct farm_progress progress)
{
    pthread_mutex_lock(&farm->mutex);
    while (farm->workers > 0) {
        pthread_cond_wait(&farm->changed, &farm->mutex);
        if (progress.fn == NULL) continue;
        const double done = sum_done(farm);
        pthread_mutex_unlock(&farm->mutex);
        progress.fn(progress.ctx, done, farm->count);
        pthread_mutex_lock(&farm->mutex);
    }
    pthread_mutex_unlock(&farm->mutex);
}

static uint32_t count_threads(uint32_t threads, uint32_t jobs)
{
    cpu_set_t cpus;

    if (threads == 0) {
        CPU_ZERO(&cpus);
        threads = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (uint32_t)CPU_COUNT(&cpus) : 1;
    }
    if (threads > FARM_THREADS_MAX) threads = FARM_THREADS_MAX;
    return threads < jobs ? threads : jobs;
}

/* A thread that cannot be started is done without, unless it is the only one. */
static void run_workers(struct farm *farm, uint32_t threads, struct farm_progress progress)
{
    pthread_t ids[FARM_THREADS_MAX];
    uint32_t started = 0;

    farm->workers = threads;
    while (started < threads && pthread_create(&ids[started], NULL, work, farm) == 0)
        started++;
    pthread_mutex_lock(&farm->mutex);
    farm->workers -= threads - started;
    if (started == 0) farm->status = STATUS_NO_MEMORY;
    pthread_mutex_unlock(&farm->mutex);
    watch(farm, progress);
    for (uint32_t i = 0; i < started; i++)
        pthread_join(ids[i], NULL);
    if (progress.fn != NULL) progress.fn(progress.ctx, sum_done(farm), farm->count);
}

enum status farm_run(const struct trace *trace, struct farm_job *jobs, uint32_t count,
                     uint32_t threads, struct farm_progress progress, struct errmsg *err)
{
    struct farm farm = { .trace = trace,
                         .jobs = jobs,
                         .count = count,
                         .mutex = PTHREAD_MUTEX_INITIALIZER,
                         .changed = PTHREAD_COND_INITIALIZER,
                         .err = { "not enough memory" } };

    ASSERT(count > 0);
    farm.shares = calloc(count, sizeof(*farm.shares));
    if (farm.shares == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "not enough memory");
    for (uint32_t i = 0; i < count; i++)
        jobs[i].result = NULL;
    run_workers(&farm, count_threads(threads, count), progress);
    free(farm.shares);
    if (farm.status == STATUS_OK) {
        ASSERT(farm.done == count);
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < count; i++) {
        sim_result_destroy(jobs[i].result);
        jobs[i].result = NULL;
    }
    return errmsg_set(err, farm.status, "%s", farm.err.text);
}
