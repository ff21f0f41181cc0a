/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real.h - the real world behind base/env.h: Linux, one epoll loop, TCP, files; and what
 * only a real process has: children and signals.
 *
 * An env is owned by the thread that created it until another thread runs it (env_run, env_poll);
 * that thread then owns it. After env_run() has returned, any thread may destroy it. */
#ifndef BASE_ENV_REAL_H
#define BASE_ENV_REAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/env.h"
#include "base/status.h"

struct env_real_options {
    uint32_t streams_max; /* streams and listeners together; 0: ENV_REAL_STREAMS_MAX */
    bool no_io_uring;     /* env_io goes through threads, as where the kernel refuses io_uring */
};

enum { ENV_REAL_STREAMS_MAX = 65536, ENV_REAL_TIMERS_MAX = 1 << 20, ENV_REAL_CHILDREN_MAX = 256 };

/* `options` NULL: the defaults. Ignores SIGPIPE in the whole process. STATUS_IO when the kernel has
 * no descriptors left. */
MUST_USE enum status env_real_create(const struct env_real_options *options, struct env **out,
                                     struct errmsg *err);

/* This process may have as many files open as its hard limit says: one for each of thousands of
 * connections. Nothing happens where that is refused. */
void env_real_raise_files(void);

/* env_run() may poll for up to `ns` before it sleeps, where what it waited for has lately come that
 * soon: it answers without being woken, and takes a core for it that nobody else wants. env_poll()
 * without waiting, which polls anyway, also leaves the core to others then. 0, as at first: neither
 * is so. */
void env_real_set_poll(struct env *env, uint64_t ns);
/* Whether the next wait begins with polling. */
bool env_real_polls(const struct env *env);

/* Closes what is still open; kills (SIGKILL) and reaps children still running; posts that have not
 * run never will. NULL is allowed. */
void env_real_destroy(struct env *env);

/* The clocks without a loop: for log stamps and for timing inside compute threads. */
uint64_t env_real_now_ns(void);
uint64_t env_real_wall_ns(void);

/* Sleeps: for threads without a loop (tests, benches). */
void env_real_sleep_ns(uint64_t duration_ns);

/* The path of the running binary, to start it again as a child. */
MUST_USE enum status env_real_self_path(char *path, size_t size);

/* ---- children ---- */

struct env_process;

/* `code` is what exit() was given, or -1 if `signo` (not 0) ended it. */
struct env_exit {
    int code;
    int signo;
};
typedef void (*env_exit_fn)(void *ctx, struct env_exit how);

/* Starts argv[0] (a path, or a name looked up in PATH) with our environment, stdout and stderr, an
 * empty stdin, default signals and a process group of its own, so that a Ctrl-C reaches us only. It
 * is killed when the calling thread ends: spawn from a thread that lives as long as the process.
 *
 * on_exit runs exactly once, when it has ended and has been reaped; *out is valid until on_exit
 * returns. STATUS_NOT_FOUND, STATUS_DENIED when it cannot be executed; STATUS_FULL at
 * ENV_REAL_CHILDREN_MAX; STATUS_IO. */
MUST_USE enum status env_process_spawn(struct env *env, const char *const argv[],
                                       env_exit_fn on_exit, void *ctx, struct env_process **out,
                                       struct errmsg *err);
void env_process_kill(struct env_process *process, int signo);
pid_t env_process_pid(const struct env_process *process);

/* ---- signals ---- */

typedef void (*env_signal_fn)(void *ctx, int signo);

/* Runs fn on the loop whenever the process gets `signo`, instead of the default action. Blocks the
 * signal in the calling thread: call it before other threads start, so that they inherit the mask.
 * Replaces what was set before. One env per process. */
MUST_USE enum status env_on_signal(struct env *env, int signo, env_signal_fn fn, void *ctx);

/* For a program that talks to a person without a loop: Ctrl-C (SIGINT) waits to be asked for,
 * instead of ending the process. Held before other threads start, so that none of them takes it. */
void env_hold_interrupts(void);
void env_release_interrupts(void); /* it ends the process again */

/* Has there been one since it was held, or since the last call? */
bool env_interrupted(void);

/* Waits until there is something to read; false: there was an interrupt, now or before. */
bool env_wait_readable(int fd);

#endif
