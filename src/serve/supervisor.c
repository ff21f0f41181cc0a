/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/supervisor.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/env_real.h"
#include "base/log.h"

enum child_state { CHILD_IDLE, CHILD_RUNNING, CHILD_PAUSED, CHILD_DONE };

struct child {
    struct supervisor *supervisor;
    char name[SUPERVISOR_NAME_SIZE];
    char **argv;
    enum child_state state;
    struct env_process *process; /* RUNNING only */
    struct env_timer timer;      /* PAUSED: when to start again */
    uint64_t started_ns;
    uint32_t pause_ms;
    uint32_t stage; /* the highest is stopped first */
};

struct supervisor {
    struct supervisor_options options;
    struct child *children[SUPERVISOR_CHILDREN_MAX];
    uint32_t count;
    struct env_timer grace;
    uint64_t restarts;
    uint32_t stage; /* of children that are added; stopping: of those that are to end now */
    bool stopping;
    bool user_error;
};

static void child_start_again(void *ctx);

/* The one setter of a child's state. */
static void child_set(struct child *child, enum child_state state)
{
    const enum child_state from = child->state;

    switch (state) {
    case CHILD_IDLE: ASSERT(from == CHILD_IDLE); break; /* a child is never reused */
    case CHILD_RUNNING: ASSERT(from == CHILD_IDLE || from == CHILD_PAUSED); break;
    case CHILD_PAUSED: ASSERT(from == CHILD_RUNNING); break;
    case CHILD_DONE: ASSERT(from == CHILD_RUNNING || from == CHILD_PAUSED); break;
    }
    child->state = state;
    if (state != CHILD_RUNNING) child->process = NULL;
}

static char **argv_copy(const char *const argv[])
{
    size_t count = 0;
    while (argv[count] != NULL)
        count++;
    char **copy = calloc(count + 1, sizeof(*copy));
    for (size_t i = 0; copy != NULL && i < count; i++) {
        copy[i] = strdup(argv[i]);
        ASSERT(copy[i] != NULL);
    }
    return copy;
}

static void child_free(struct child *child)
{
    for (char **word = child->argv; word != NULL && *word != NULL; word++)
        free(*word);
    free(child->argv);
    free(child);
}

enum status supervisor_create(const struct supervisor_options *options, struct supervisor **out)
{
    ASSERT(options->env != NULL && options->on_done != NULL);
    struct supervisor *supervisor = calloc(1, sizeof(*supervisor));
    if (supervisor == NULL) return STATUS_NO_MEMORY;
    supervisor->options = *options;
    if (options->grace_ms == 0) supervisor->options.grace_ms = SUPERVISOR_GRACE_MS;
    *out = supervisor;
    return STATUS_OK;
}

void supervisor_destroy(struct supervisor *supervisor)
{
    if (supervisor == NULL) return;
    env_timer_cancel(supervisor->options.env, &supervisor->grace);
    for (uint32_t i = 0; i < supervisor->count; i++) {
        struct child *child = supervisor->children[i];
        ASSERT(child->state != CHILD_RUNNING);
        env_timer_cancel(supervisor->options.env, &child->timer);
        child_free(child);
    }
    free(supervisor);
}

static void signal_stage(struct supervisor *supervisor, int signo)
{
    for (uint32_t i = 0; i < supervisor->count; i++) {
        struct child *child = supervisor->children[i];
        if (child->state != CHILD_RUNNING || child->stage < supervisor->stage) continue;
        env_process_kill(child->process, signo);
    }
}

static void insist(void *ctx)
{
    struct supervisor *supervisor = ctx;
    LOG_WARN("serve", "children_killed", "stage=%u", supervisor->stage);
    signal_stage(supervisor, SIGKILL);
}

/* Runs on_done if nobody is left. Last in its callers: on_done may destroy the supervisor. */
static void finish_if_done(struct supervisor *supervisor)
{
    for (uint32_t i = 0; i < supervisor->count; i++) {
        if (supervisor->children[i]->state != CHILD_DONE) return;
    }
    env_timer_cancel(supervisor->options.env, &supervisor->grace);
    supervisor->options.on_done(supervisor->options.ctx, supervisor->user_error);
}

/* Asks the highest stage that still runs to end, unless it has been asked. Last in its callers, as
 * above. */
static void stop_stages(struct supervisor *supervisor)
{
    struct env *env = supervisor->options.env;
    uint32_t highest = 0;
    bool any = false;

    for (uint32_t i = 0; i < supervisor->count; i++) {
        const struct child *child = supervisor->children[i];
        if (child->state != CHILD_RUNNING) continue;
        any = true;
        if (child->stage > highest) highest = child->stage;
    }
    if (!any) {
        finish_if_done(supervisor);
        return;
    }
    if (highest >= supervisor->stage) return;
    supervisor->stage = highest;
    signal_stage(supervisor, SIGTERM);
    env_timer_set(env, &supervisor->grace,
                  env_now_ns(env) + supervisor->options.grace_ms * ENV_NS_PER_MS);
}

static void pause_child(struct child *child, uint64_t now)
{
    const uint64_t lived_ms = (now - child->started_ns) / ENV_NS_PER_MS;

    if (lived_ms >= SUPERVISOR_LONG_LIFE_MS) child->pause_ms = 0;
    child->pause_ms = child->pause_ms == 0 ? SUPERVISOR_PAUSE_MS_MIN : child->pause_ms * 2;
    if (child->pause_ms > SUPERVISOR_PAUSE_MS_MAX) child->pause_ms = SUPERVISOR_PAUSE_MS_MAX;
    child_set(child, CHILD_PAUSED);
    env_timer_set(child->supervisor->options.env, &child->timer,
                  now + child->pause_ms * ENV_NS_PER_MS);
}

static void on_child_exit(void *ctx, struct env_exit how)
{
    struct child *child = ctx;
    struct supervisor *supervisor = child->supervisor;

    ASSERT(child->state == CHILD_RUNNING);
    if (how.signo == 0 && how.code == SUPERVISOR_EXIT_USER && !supervisor->stopping) {
        supervisor->user_error = true;
        child_set(child, CHILD_DONE);
        supervisor_stop(supervisor);
        return;
    }
    if (supervisor->stopping) {
        child_set(child, CHILD_DONE);
        stop_stages(supervisor);
        return;
    }
    LOG_WARN("serve", "child_ended", "name=%s code=%d signal=%d", child->name, how.code, how.signo);
    pause_child(child, env_now_ns(supervisor->options.env));
}

static enum status child_run(struct child *child, struct errmsg *err)
{
    struct env *env = child->supervisor->options.env;
    struct env_process *process = NULL;

    enum status status = env_process_spawn(env, (const char *const *)child->argv, on_child_exit,
                                           child, &process, err);
    if (status != STATUS_OK) return status;
    child_set(child, CHILD_RUNNING);
    child->process = process;
    child->started_ns = env_now_ns(env);
    LOG_INFO("serve", "child_started", "name=%s pid=%d", child->name,
             (int)env_process_pid(process));
    return STATUS_OK;
}

static void child_start_again(void *ctx)
{
    struct child *child = ctx;
    struct errmsg err = { "" };

    ASSERT(child->state == CHILD_PAUSED);
    child->supervisor->restarts++;
    if (child_run(child, &err) == STATUS_OK) return;
    LOG_ERROR("serve", "child_start_failed", "name=%s reason=%s", child->name, err.text);
    env_timer_set(child->supervisor->options.env, &child->timer,
                  env_now_ns(child->supervisor->options.env) +
                      SUPERVISOR_PAUSE_MS_MAX * ENV_NS_PER_MS);
}

enum status supervisor_start(struct supervisor *supervisor, const char *name,
                             const char *const argv[], struct errmsg *err)
{
    ASSERT(!supervisor->stopping && argv[0] != NULL);
    if (supervisor->count == SUPERVISOR_CHILDREN_MAX)
        return errmsg_set(err, STATUS_FULL, "at most %d processes", SUPERVISOR_CHILDREN_MAX);
    struct child *child = calloc(1, sizeof(*child));
    if (child == NULL) return STATUS_NO_MEMORY;
    child->supervisor = supervisor;
    child->stage = supervisor->stage;
    strncpy(child->name, name, sizeof(child->name) - 1);
    env_timer_init(&child->timer, child_start_again, child);
    child->argv = argv_copy(argv);
    enum status status = child->argv == NULL ? STATUS_NO_MEMORY : child_run(child, err);
    if (status != STATUS_OK) {
        child_free(child);
        return status;
    }
    supervisor->children[supervisor->count++] = child;
    return STATUS_OK;
}

void supervisor_stop(struct supervisor *supervisor)
{
    struct env *env = supervisor->options.env;

    if (supervisor->stopping) {
        supervisor->stage = 0;
        signal_stage(supervisor, SIGKILL);
        return;
    }
    supervisor->stopping = true;
    env_timer_init(&supervisor->grace, insist, supervisor);
    supervisor->stage = UINT32_MAX; /* nobody has been asked */
    for (uint32_t i = 0; i < supervisor->count; i++) {
        struct child *child = supervisor->children[i];
        if (child->state != CHILD_PAUSED) continue;
        env_timer_cancel(env, &child->timer);
        child_set(child, CHILD_DONE);
    }
    stop_stages(supervisor);
}

void supervisor_next_stage(struct supervisor *supervisor)
{
    ASSERT(!supervisor->stopping);
    supervisor->stage++;
}

uint64_t supervisor_restarts(const struct supervisor *supervisor)
{
    return supervisor->restarts;
}
