/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real.c - the loop: epoll for descriptors, a heap for timers, an eventfd for posts.
 *
 * One turn: wait (until something is ready, the next timer is due, or the caller's limit), run what
 * is ready, run the posts that were there, run the timers that were due, free what was closed.
 *
 * Who polls without waiting mostly waits for one stream to answer. Then most turns ask that stream
 * (see ENV_EAGER) with a read that may find nothing, instead of epoll and then the stream; every
 * EAGER_TURNS_MAX turns, and after each that found something, the kernel is asked about all.
 *
 * A loop that may poll (env_real_set_poll) does so only while it pays: once POLL_AFTER waits in a
 * row were shorter than the time it may poll, a wait begins with polling, and it sleeps again as
 * soon as that was in vain once. In between, whoever else wants the core gets it.
 *
 *   I1  A callback sees no other callback below it on the stack: they all run from turn().
 *   I2  A source is freed only after the batch of events that may name it has been run.
 *   I3  A post made, or a timer set in the past, during a turn runs in the next one, so that no
 *       callback can keep the loop from its descriptors.
 *
 * Threads: env_post() touches `posts` (a ring), `wakeup_sent` and the eventfd, nothing else. */
#include "base/env_real.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real_int.h"
#include "base/list.h"
#include "base/log.h"

enum {
    EVENTS_PER_TURN = 256,
    FDS_PER_STREAM_MAX = 1 << 24,
    EAGER_TURNS_MAX = 8,    /* without a look at the other descriptors */
    EAGER_MISSES_MAX = 256, /* then it is like any other */
    POLL_AFTER = 3,
};

struct post {
    void (*fn)(void *ctx);
    void *ctx;
};

/* ---- time and chance ---- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    const int result = clock_gettime(clock, &now);
    ASSERT(result == 0);
    return (uint64_t)now.tv_sec * ENV_NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t env_real_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t env_real_wall_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

void env_real_sleep_ns(uint64_t duration_ns)
{
    struct timespec left = { .tv_sec = (time_t)(duration_ns / ENV_NS_PER_S),
                             .tv_nsec = (long)(duration_ns % ENV_NS_PER_S) };
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

enum status env_real_self_path(char *path, size_t size)
{
    const ssize_t len = readlink("/proc/self/exe", path, size);
    if (len < 0) return env_real_status(errno);
    if ((size_t)len >= size) return STATUS_FULL;
    path[len] = '\0';
    return STATUS_OK;
}

static uint64_t now_ns(struct env *env)
{
    (void)env;
    return env_real_now_ns();
}

static uint64_t wall_ns(struct env *env)
{
    (void)env;
    return env_real_wall_ns();
}

static void random_bytes(struct env *env, void *out, size_t len)
{
    uint8_t *at = out;
    (void)env;
    while (len > 0) {
        const ssize_t got = getrandom(at, len, 0);
        if (got < 0 && errno == EINTR) continue;
        ASSERT(got > 0); /* without flags it fails for bad arguments only */
        at += got;
        len -= (size_t)got;
    }
}

enum status env_real_status(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR: return STATUS_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS: return STATUS_DENIED;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE: return STATUS_FULL;
    case ENOMEM: return STATUS_NO_MEMORY;
    case EEXIST:
    case EADDRINUSE: return STATUS_EXISTS;
    default: return STATUS_IO;
    }
}

/* ---- sources ---- */

void env_source_add(struct env_real *real, struct env_source *source)
{
    ASSERT(source->fd >= 0 && source->on_event != NULL);
    LIST_PUSH(real->sources, source);
}

enum status env_source_arm(struct env_real *real, struct env_source *source, uint32_t events)
{
    ASSERT(!source->dead);
    if (source->armed == events) return STATUS_OK;
    const int op = source->armed == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
    struct epoll_event event = { .events = events, .data.ptr = source };
    if (epoll_ctl(real->epoll_fd, op, source->fd, &event) != 0) {
        ASSERT(errno == ENOSPC || errno == ENOMEM); /* the rest would be a mistake of ours */
        LOG_ERROR("env", "epoll_refused", "fd=%d errno=%d", source->fd, errno);
        return STATUS_FULL;
    }
    source->armed = events;
    return STATUS_OK;
}

void env_source_close(struct env_real *real, struct env_source *source)
{
    ASSERT(!source->dead);
    /* Taken out by name: a child between fork and exec may hold the file open a moment longer. */
    (void)env_source_arm(real, source, 0);
    if (close(source->fd) != 0) LOG_DEBUG("env", "close_failed", "errno=%d", errno);
    source->dead = true;
    LIST_REMOVE(real->sources, source);
    source->next = real->dead;
    real->dead = source;
}

static void free_dead(struct env_real *real)
{
    while (real->dead != NULL) {
        struct env_source *source = real->dead;
        real->dead = source->next;
        source->free(source);
    }
}

/* ---- posts ---- */

static enum status post(struct env *env, void (*fn)(void *ctx), void *ctx)
{
    struct env_real *real = env_real_of(env);
    const struct post item = { .fn = fn, .ctx = ctx };
    const uint64_t one = 1;

    const enum status status = ring_push(real->posts, &item);
    if (status != STATUS_OK) return status;
    if (!atomic_exchange_explicit(&real->asleep, false, memory_order_acq_rel)) return STATUS_OK;
    const ssize_t written = write(real->wakeup.fd, &one, sizeof(one));
    ASSERT(written == sizeof(one)); /* 2^64 are more than there will be */
    return STATUS_OK;
}

/* Edge-triggered: each write is told once, and the count is never read. */
static void on_wakeup(struct env_source *source, uint32_t events)
{
    (void)source;
    (void)events;
}

static bool run_posts(struct env_real *real)
{
    struct post item;
    bool ran = false;

    for (uint32_t left = ring_count(real->posts); left > 0; left--) { /* I3 */
        if (ring_pop(real->posts, &item) != STATUS_OK) break;
        item.fn(item.ctx);
        ran = true;
    }
    return ran;
}

/* ---- timers ---- */

static void timer_set(struct env *env, struct env_timer *timer, uint64_t deadline_ns)
{
    struct env_real *real = env_real_of(env);
    env_timers_set(&real->timers, timer, deadline_ns, real->turn_ns);
}

static void timer_cancel(struct env *env, struct env_timer *timer)
{
    env_timers_cancel(&env_real_of(env)->timers, timer);
}

static bool run_timers(struct env_real *real)
{
    const uint64_t order =
        real->timers.order; /* I3: those set from here on are for the next turn */
    struct env_timer *timer;
    bool ran = false;

    while ((timer = env_timers_take_due(&real->timers, real->turn_ns, order)) != NULL) {
        timer->fn(timer->ctx);
        ran = true;
    }
    return ran;
}

/* ---- turns ---- */

static uint64_t wait_limit(struct env_real *real, uint64_t timeout_ns)
{
    if (real->stopping) return 0;
    const struct env_timer *timer = env_timers_peek(&real->timers);
    if (timer == NULL) return timeout_ns;
    const uint64_t now = env_real_now_ns();
    const uint64_t left = timer->deadline_ns > now ? timer->deadline_ns - now : 0;
    return left < timeout_ns ? left : timeout_ns;
}

/* For kernels before 5.11: milliseconds, rounded up, so that no timer is early. */
static int wait_in_ms(struct env_real *real, struct epoll_event *events, uint64_t limit_ns)
{
    const uint64_t ms = (limit_ns / ENV_NS_PER_MS) + (limit_ns % ENV_NS_PER_MS != 0);
    const int timeout = limit_ns == ENV_NEVER ? -1 : ms > 60000 ? 60000 : (int)ms;
    return epoll_wait(real->epoll_fd, events, EVENTS_PER_TURN, timeout);
}

static int wait_events(struct env_real *real, struct epoll_event *events, uint64_t limit_ns)
{
    const struct timespec limit = { .tv_sec = (time_t)(limit_ns / ENV_NS_PER_S),
                                    .tv_nsec = (long)(limit_ns % ENV_NS_PER_S) };

    if (real->no_pwait2) return wait_in_ms(real, events, limit_ns);
    const int count = epoll_pwait2(real->epoll_fd, events, EVENTS_PER_TURN,
                                   limit_ns == ENV_NEVER ? NULL : &limit, NULL);
    if (count < 0 && (errno == ENOSYS || errno == EPERM)) {
        real->no_pwait2 = true;
        return wait_in_ms(real, events, limit_ns);
    }
    return count;
}

static bool run_events(struct epoll_event *events, int count)
{
    bool ran = false;
    for (int i = 0; i < count; i++) {
        struct env_source *source = events[i].data.ptr;
        if (source->dead) continue; /* closed by a callback earlier in this batch (I2) */
        source->on_event(source, events[i].events);
        ran = true;
    }
    return ran;
}

/* False if this turn has to ask the kernel. */
static bool ask_eager(struct env_real *real)
{
    if (real->eager == NULL || real->eager_turns == EAGER_TURNS_MAX) return false;
    real->eager_turns++;
    real->eager_heard = false;
    real->turn_ns = env_real_now_ns();
    env_real_stream_ask_eager(real);
    if (real->eager_heard) {
        real->eager_turns = EAGER_TURNS_MAX;
        real->eager_misses = 0;
    } else if (++real->eager_misses == EAGER_MISSES_MAX) {
        real->eager = NULL;
    }
    return true;
}

static bool ask_kernel(struct env_real *real, uint64_t timeout_ns)
{
    struct epoll_event events[EVENTS_PER_TURN];
    uint64_t limit_ns = wait_limit(real, timeout_ns);

    if (limit_ns > 0) (void)atomic_exchange_explicit(&real->asleep, true, memory_order_acq_rel);
    if (ring_count(real->posts) > 0) limit_ns = 0;
    const int count = wait_events(real, events, limit_ns);
    (void)atomic_exchange_explicit(&real->asleep, false, memory_order_acq_rel);
    ASSERT(count >= 0 || errno == EINTR);
    real->eager_turns = 0;
    real->turn_ns = env_real_now_ns();
    return run_events(events, count);
}

static bool turn(struct env_real *real, uint64_t timeout_ns)
{
    const bool io_done = env_real_io_flush(real);
    bool ran;

    if (timeout_ns == 0 && ask_eager(real)) {
        ran = real->eager_heard;
    } else {
        ran = ask_kernel(real, io_done ? 0 : timeout_ns);
    }
    ran |= env_real_io_run(real);
    ran |= run_posts(real);
    ran |= run_timers(real);
    free_dead(real);
    return ran;
}

bool env_real_polls(const struct env *env)
{
    const struct env_real *real = (const void *)env; /* `base` is the first member */
    return real->poll_ns > 0 && real->brief_waits == POLL_AFTER;
}

/* Turns until something ran; false: nothing has, for as long as it may poll. */
static bool poll_turns(struct env_real *real)
{
    const uint64_t end_ns = real->turn_ns + real->poll_ns;
    while (!real->stopping) {
        if (turn(real, 0)) return true;
        if (real->turn_ns >= end_ns) return false;
        sched_yield();
    }
    return true;
}

/* A turn, after sleeping or after polling. */
static void wait_turn(struct env_real *real)
{
    if (real->poll_ns == 0) {
        (void)turn(real, ENV_NEVER);
    } else if (!env_real_polls(&real->base)) {
        const uint64_t from_ns = env_real_now_ns();
        (void)turn(real, ENV_NEVER);
        real->brief_waits = real->turn_ns - from_ns < real->poll_ns ? real->brief_waits + 1 : 0;
    } else if (!poll_turns(real)) {
        real->brief_waits = 0;
    }
}

static void run(struct env *env)
{
    struct env_real *real = env_real_of(env);
    while (!real->stopping) {
        wait_turn(real);
    }
    real->stopping = false; /* so that the env may run again */
}

static void stop(struct env *env)
{
    env_real_of(env)->stopping = true;
}

static bool poll(struct env *env, uint64_t timeout_ns)
{
    struct env_real *real = env_real_of(env);
    const bool ran = turn(real, timeout_ns);
    if (!ran && timeout_ns == 0 && real->poll_ns > 0) sched_yield();
    return ran;
}

/* ---- birth and death ---- */

static enum status event_create(int *fd)
{
    *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return *fd >= 0 ? STATUS_OK : env_real_status(errno);
}

static enum status apart_create(struct env **out)
{
    return env_real_create(NULL, out, NULL);
}

static const struct env_ops real_ops = {
    .now_ns = now_ns,
    .wall_ns = wall_ns,
    .random = random_bytes,
    .run = run,
    .stop = stop,
    .poll = poll,
    .post = post,
    .event_create = event_create,
    .apart_create = apart_create,
    .apart_destroy = env_real_destroy,
    .watch_open = env_real_watch_open,
    .watch_close = env_real_watch_close,
    .timer_set = timer_set,
    .timer_cancel = timer_cancel,
    .listen = env_real_listen,
    .listener_close = env_real_listener_close,
    .connect = env_real_connect,
    .interfaces = env_real_interfaces,
    .stream_watch = env_real_stream_watch,
    .stream_readv = env_real_stream_readv,
    .stream_writev = env_real_stream_writev,
    .stream_close = env_real_stream_close,
    .stream_local_host = env_real_stream_local_host,
    .file_open = env_real_file_open,
    .file_pread = env_real_file_pread,
    .file_pwrite = env_real_file_pwrite,
    .file_sync = env_real_file_sync,
    .file_size = env_real_file_size,
    .file_truncate = env_real_file_truncate,
    .file_close = env_real_file_close,
    .file_remove = env_real_file_remove,
    .file_rename = env_real_file_rename,
    .make_dirs = env_real_make_dirs,
    .dir_list = env_real_dir_list,
    .file_private = env_real_file_private,
    .disk_free = env_real_disk_free,
    .io_start = env_real_io_start,
    .job_start = env_real_job_start,
    .job_cancel = env_real_job_cancel,
    .job_settle = env_real_job_settle,
    .map_file = env_real_map_file,
    .map_create = env_real_map_create,
    .map_open = env_real_map_open,
    .map_ahead = env_real_map_ahead,
    .populate = env_real_populate,
    .memory_name = env_real_memory_name,
    .memory_open = env_real_memory_open,
    .memory_readv = env_real_memory_readv,
};

static void free_nothing(struct env_source *source)
{
    (void)source; /* part of struct env_real */
}

enum status env_real_create(const struct env_real_options *options, struct env **out,
                            struct errmsg *err)
{
    struct env_real *real = calloc(1, sizeof(*real));

    if (real == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for an event loop");
    real->base.ops = &real_ops;
    real->signals.fd = -1;
    real->streams_max = ENV_REAL_STREAMS_MAX;
    if (options != NULL && options->streams_max != 0) real->streams_max = options->streams_max;
    real->no_io_uring = options != NULL && options->no_io_uring;
    ASSERT(real->streams_max <= FDS_PER_STREAM_MAX);
    env_timers_init(&real->timers, ENV_REAL_TIMERS_MAX);
    real->turn_ns = env_real_now_ns();
    if (ring_create(ENV_POSTS_MAX, sizeof(struct post), &real->posts) != STATUS_OK) goto free_real;
    real->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (real->epoll_fd < 0) goto free_posts;
    real->wakeup.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (real->wakeup.fd < 0) goto close_epoll;
    real->wakeup.on_event = on_wakeup;
    real->wakeup.free = free_nothing;
    env_source_add(real, &real->wakeup);
    if (env_source_arm(real, &real->wakeup, EPOLLIN | EPOLLET) != STATUS_OK) goto close_wakeup;
    signal(SIGPIPE, SIG_IGN); /* a closed peer is a status, not a signal */
    *out = &real->base;
    return STATUS_OK;

close_wakeup:
    close(real->wakeup.fd);
close_epoll:
    close(real->epoll_fd);
free_posts:
    ring_destroy(real->posts);
free_real:
    free(real);
    return errmsg_set(err, STATUS_IO, "cannot make an event loop: %s", strerror(errno));
}

void env_real_raise_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit);
}

void env_real_set_poll(struct env *env, uint64_t ns)
{
    env_real_of(env)->poll_ns = ns;
}

void env_real_destroy(struct env *env)
{
    if (env == NULL) return;
    struct env_real *real = env_real_of(env);
    ASSERT(env->ops == &real_ops);
    ASSERT(!env->running);
    env_real_jobs_destroy(real);
    env_real_ahead_end(real);
    env_real_io_destroy(real);
    while (real->sources != NULL) {
        env_source_close(real, real->sources);
    }
    free_dead(real);
    env_timers_fini(&real->timers);
    ring_destroy(real->posts);
    close(real->epoll_fd);
    free(real);
}
