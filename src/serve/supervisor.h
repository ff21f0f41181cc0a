/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/supervisor.h - keeps a set of child processes running, and ends them together.
 *
 * Each child is a command line. One that ends is started again after a pause that doubles with each
 * short life (SUPERVISOR_PAUSE_MS_MIN to _MAX) and is forgotten after a long one. A child that
 * exits with SUPERVISOR_EXIT_USER has said itself what its user must fix; starting it again cannot
 * help, so that ends the whole set.
 *
 *             supervisor_start          ended                   pause over
 *     IDLE -------------------> RUNNING ------> PAUSED ---------------------> RUNNING
 *                                  |               |
 *                                  +---------------+--- supervisor_stop ---> STOPPING --> DONE
 *
 * Children are started in stages and stopped in the reverse order: a stage is asked with SIGTERM
 * when those above it have ended, and killed after grace_ms; a second stop kills all at once.
 *
 * Threads: the env's loop thread.
 * Limits:  SUPERVISOR_CHILDREN_MAX children. */
#ifndef SERVE_SUPERVISOR_H
#define SERVE_SUPERVISOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct env;
struct supervisor; /* opaque */

enum {
    SUPERVISOR_CHILDREN_MAX = 128,
    SUPERVISOR_NAME_SIZE = 64,
    SUPERVISOR_PAUSE_MS_MIN = 50,
    SUPERVISOR_PAUSE_MS_MAX = 2000,
    SUPERVISOR_LONG_LIFE_MS = 10000,
    SUPERVISOR_GRACE_MS = 10000,
    SUPERVISOR_EXIT_USER = 2,
};

struct supervisor_options {
    struct env *env;
    /* All children have ended, after supervisor_stop() or because one exited with
     * SUPERVISOR_EXIT_USER (`user_error`). The supervisor may be destroyed from inside. */
    void (*on_done)(void *ctx, bool user_error);
    void *ctx;
    uint32_t grace_ms; /* that a stage has to end; 0: SUPERVISOR_GRACE_MS */
};

MUST_USE enum status supervisor_create(const struct supervisor_options *options,
                                       struct supervisor **out);

/* Children still running are killed when the env is destroyed. NULL is allowed. */
void supervisor_destroy(struct supervisor *supervisor);

/* Adds a child and starts it. `argv` ends in NULL and is copied. `name` is for logs. STATUS_FULL at
 * SUPERVISOR_CHILDREN_MAX; env_process_spawn()'s statuses. */
MUST_USE enum status supervisor_start(struct supervisor *supervisor, const char *name,
                                      const char *const argv[], struct errmsg *err);

/* What is started from here on needs what was started so far, and is stopped before it. */
void supervisor_next_stage(struct supervisor *supervisor);

void supervisor_stop(struct supervisor *supervisor);

/* How often children were started again. */
uint64_t supervisor_restarts(const struct supervisor *supervisor);

#endif
