/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_sim_job.c - jobs of simulated processes: begun some time after they were asked for, and
 * done some time later still, so that everything can happen before, between and after. Jobs that
 * were started together may end in any order. A process that dies takes them with it (they are
 * timers of its own). */
#include "base/assert.h"
#include "base/env_sim_int.h"

enum { JOB_DELAY_MAX_NS = 5000000 }; /* each of the two */

static void set_next(struct env_job *job)
{
    struct env_sim *sim = sim_process_of(job->env)->sim;

    env_timer_set(job->env, &job->timer, sim->now_ns + rng_below(&sim->rng, JOB_DELAY_MAX_NS));
}

static void forget(struct env_job *job)
{
    struct sim_process *process = sim_process_of(job->env);

    ASSERT(process->jobs_count > 0);
    process->jobs_count--;
    job->phase = ENV_JOB_IDLE;
}

static void on_due(void *ctx)
{
    struct env_job *job = ctx;

    if (job->phase == ENV_JOB_QUEUED) {
        job->run(job->ctx);
        job->phase = ENV_JOB_DONE;
        set_next(job);
        return;
    }
    ASSERT(job->phase == ENV_JOB_DONE);
    forget(job);
    job->done(job->ctx);
}

enum status env_sim_job_start(struct env_job *job)
{
    struct sim_process *process = sim_process_of(job->env);

    if (!process->alive) return STATUS_UNAVAILABLE;
    if (process->jobs_count == ENV_JOBS_MAX) return STATUS_FULL;
    process->jobs_count++;
    job->phase = ENV_JOB_QUEUED;
    env_timer_init(&job->timer, on_due, job);
    set_next(job);
    return STATUS_OK;
}

bool env_sim_job_cancel(struct env_job *job)
{
    const bool waiting = job->phase == ENV_JOB_QUEUED;

    ASSERT(job->phase != ENV_JOB_IDLE);
    if (waiting) env_sim_job_settle(job);
    return waiting;
}

void env_sim_job_settle(struct env_job *job)
{
    if (job->phase == ENV_JOB_IDLE) return;
    env_timer_cancel(job->env, &job->timer);
    forget(job);
}
