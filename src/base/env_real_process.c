/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_process.c - children and signals, as events of the loop.
 *
 * A child is watched through a pidfd, so that no SIGCHLD handler is needed and a process number
 * that was used again can never be hit. Whether exec() worked is told over a pipe that closes on
 * exec: an errno comes through it, or nothing.
 *
 *     spawn --> RUNNING -- pidfd readable --> reaped, on_exit runs, freed
 *                  `------ env_real_destroy: killed, reaped, freed; on_exit does not run
 *
 * Between fork() and exec() the child of a process with threads may call only what is safe in a
 * signal handler: start_child() keeps to that. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real_int.h"
#include "base/log.h"

struct env_process {
    struct env_source source; /* pidfd */
    struct env_real *real;
    pid_t pid;
    bool reaped;
    env_exit_fn on_exit;
    void *ctx;
};

static struct env_process *process_of(struct env_source *source)
{
    return (struct env_process *)(void *)source; /* the first member */
}

/* ---- the child's side ---- */

static void default_signals(void)
{
    sigset_t none;

    for (int signo = 1; signo < NSIG; signo++) {
        if (signo != SIGKILL && signo != SIGSTOP) signal(signo, SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn static void start_child(const char *const argv[], pid_t parent, int error_fd)
{
    int error = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127); /* it died before the line above */
    setpgid(0, 0);
    default_signals();
    const int null_fd = open("/dev/null", O_RDONLY);
    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0) error = errno;
    if (null_fd > STDERR_FILENO) close(null_fd);
    if (error == 0) {
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        error = errno;
    }
    if (write(error_fd, &error, sizeof(error)) < 0) _exit(126);
    _exit(127);
}

/* ---- ours ---- */

static void reap(struct env_process *process, struct env_exit *how)
{
    int status = 0;
    pid_t pid;

    do {
        pid = waitpid(process->pid, &status, 0);
    } while (pid < 0 && errno == EINTR);
    ASSERT(pid == process->pid); /* nobody else waits for our children */
    process->reaped = true;
    how->signo = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    how->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void on_process_event(struct env_source *source, uint32_t epoll_events)
{
    struct env_process *process = process_of(source);
    struct env_exit how;

    (void)epoll_events;
    reap(process, &how);
    LOG_DEBUG("env", "process_exited", "pid=%d code=%d signal=%d", (int)process->pid, how.code,
              how.signo);
    process->on_exit(process->ctx, how);
    env_source_close(process->real, source);
}

static void free_process(struct env_source *source)
{
    struct env_process *process = process_of(source);
    struct env_exit how;

    if (!process->reaped) { /* the env is being destroyed */
        kill(process->pid, SIGKILL);
        reap(process, &how);
    }
    ASSERT(process->real->child_count > 0);
    process->real->child_count--;
    free(process);
}

/* What exec() said: 0, or its errno. Blocks for the milliseconds a fork and an exec take. */
static int read_exec_error(int fd)
{
    int error = 0;
    ssize_t got;

    do {
        got = read(fd, &error, sizeof(error));
    } while (got < 0 && errno == EINTR);
    return got == sizeof(error) ? error : 0;
}

/* STATUS_OK with the running child's number. */
static enum status fork_and_exec(const char *const argv[], pid_t *out, struct errmsg *err)
{
    const pid_t parent = getpid();
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) != 0) return errmsg_set(err, STATUS_IO, "pipe: %s", strerror(errno));
    const pid_t pid = fork();
    if (pid == 0) start_child(argv, parent, fds[1]);
    const int fork_error = errno;
    close(fds[1]);
    const int exec_error = pid > 0 ? read_exec_error(fds[0]) : 0;
    close(fds[0]);
    if (pid < 0) return errmsg_set(err, STATUS_IO, "fork: %s", strerror(fork_error));
    if (exec_error != 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
        return errmsg_set(err, env_real_status(exec_error), "%s: %s", argv[0],
                          strerror(exec_error));
    }
    *out = pid;
    return STATUS_OK;
}

enum status env_process_spawn(struct env *env, const char *const argv[], env_exit_fn on_exit,
                              void *ctx, struct env_process **out, struct errmsg *err)
{
    struct env_real *real = env_real_of(env);

    ASSERT(argv[0] != NULL && on_exit != NULL);
    if (real->child_count == ENV_REAL_CHILDREN_MAX)
        return errmsg_set(err, STATUS_FULL, "%u child processes are running", real->child_count);
    struct env_process *process = calloc(1, sizeof(*process));
    if (process == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for a process");
    enum status status = fork_and_exec(argv, &process->pid, err);
    if (status != STATUS_OK) goto free_process;
    process->source.fd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    if (process->source.fd < 0) {
        status = errmsg_set(err, STATUS_IO, "pidfd_open: %s", strerror(errno));
        goto kill_child;
    }
    process->real = real;
    process->on_exit = on_exit;
    process->ctx = ctx;
    process->source.on_event = on_process_event;
    process->source.free = free_process;
    env_source_add(real, &process->source);
    real->child_count++;
    status = env_source_arm(real, &process->source, EPOLLIN);
    if (status != STATUS_OK) {
        env_source_close(real, &process->source); /* kills it when the turn ends */
        return errmsg_set(err, status, "the event loop is full");
    }
    *out = process;
    return STATUS_OK;

kill_child:
    kill(process->pid, SIGKILL);
    while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR) {
    }
free_process:
    free(process);
    return status;
}

void env_process_kill(struct env_process *process, int signo)
{
    ASSERT(!process->reaped);
    /* Fails only when it has just ended: its exit is on the way. */
    (void)syscall(SYS_pidfd_send_signal, process->source.fd, signo, NULL, 0);
}

pid_t env_process_pid(const struct env_process *process)
{
    return process->pid;
}

/* ---- signals ---- */

static void on_signal_event(struct env_source *source, uint32_t epoll_events)
{
    struct env_real *real =
        (struct env_real *)(void *)((char *)source - offsetof(struct env_real, signals));
    struct signalfd_siginfo info;

    (void)epoll_events;
    if (read(source->fd, &info, sizeof(info)) != sizeof(info)) return;
    ASSERT(info.ssi_signo <= ENV_REAL_SIGNO_MAX);
    if (real->on_signal[info.ssi_signo].fn != NULL)
        real->on_signal[info.ssi_signo].fn(real->on_signal[info.ssi_signo].ctx,
                                           (int)info.ssi_signo);
}

int env_real_thread(pthread_t *out, void *(*fn)(void *ctx), void *ctx)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(out, NULL, fn, ctx);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static void free_signals(struct env_source *source)
{
    (void)source; /* part of struct env_real */
}

enum status env_on_signal(struct env *env, int signo, env_signal_fn fn, void *ctx)
{
    struct env_real *real = env_real_of(env);
    sigset_t set, only;

    ASSERT(signo >= 1 && signo <= ENV_REAL_SIGNO_MAX && fn != NULL);
    real->on_signal[signo].fn = fn;
    real->on_signal[signo].ctx = ctx;
    sigemptyset(&set);
    for (int i = 1; i <= ENV_REAL_SIGNO_MAX; i++) {
        if (real->on_signal[i].fn != NULL) sigaddset(&set, i);
    }
    sigemptyset(&only);
    sigaddset(&only, signo);
    if (pthread_sigmask(SIG_BLOCK, &only, NULL) != 0) return STATUS_IO;
    const bool first = real->signals.fd < 0;
    const int fd = signalfd(real->signals.fd, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) return STATUS_IO;
    if (!first) return STATUS_OK; /* the same descriptor, with more signals */
    real->signals.fd = fd;
    real->signals.on_event = on_signal_event;
    real->signals.free = free_signals;
    env_source_add(real, &real->signals);
    return env_source_arm(real, &real->signals, EPOLLIN);
}

/* ---- interrupts, without a loop ---- */

static sigset_t interrupts(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    return set;
}

static void on_interrupt(int signo)
{
    (void)signo; /* it has ended the wait */
}

void env_hold_interrupts(void)
{
    const struct sigaction action = { .sa_handler = on_interrupt }; /* no SA_RESTART */
    const sigset_t set = interrupts();

    sigaction(SIGINT, &action, NULL);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void env_release_interrupts(void)
{
    const sigset_t set = interrupts();

    signal(SIGINT, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

bool env_interrupted(void)
{
    const struct timespec no_time = { 0, 0 };
    const sigset_t set = interrupts();

    return sigtimedwait(&set, NULL, &no_time) == SIGINT;
}

bool env_wait_readable(int fd)
{
    struct pollfd poll = { .fd = fd, .events = POLLIN };
    sigset_t set;

    pthread_sigmask(SIG_BLOCK, NULL, &set); /* what is blocked now, but for this one */
    sigdelset(&set, SIGINT);
    return ppoll(&poll, 1, NULL, &set) >= 0 || errno != EINTR;
}
