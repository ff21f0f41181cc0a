/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_int.h - what the files of the real env share. */
#ifndef BASE_ENV_REAL_INT_H
#define BASE_ENV_REAL_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/env_int.h"
#include "base/env_real.h"
#include "base/ring.h"

/* A descriptor the loop looks at. Closing marks it; its memory goes when the turn ends, because the
 * turn's batch of events may still hold a pointer to it. */
struct env_source {
    int fd;
    uint32_t armed; /* EPOLL* bits the kernel has now; 0: not in the epoll set */
    bool dead;
    void (*on_event)(struct env_source *source, uint32_t epoll_events);
    void (*free)(struct env_source *source);
    struct env_source *prev, *next; /* all living ones of the env; then `next` of the dead */
};

enum { ENV_REAL_SIGNO_MAX = 64 };

struct real_io;   /* env_real_io.c */
struct real_jobs; /* env_real_job.c */
struct stream;    /* env_real_stream.c */
struct range;     /* env_real_ahead.c */
struct env_real_seen;

/* A file by path; env_real_file.c and env_real_io.c. */
struct real_file {
    struct env_file base;
    int fd;
};

struct env_real {
    struct env base;
    int epoll_fd;
    bool stopping;
    bool no_pwait2; /* the kernel is too old for nanosecond timeouts */
    uint64_t turn_ns;
    uint64_t poll_ns;     /* see env_real_set_poll() */
    uint32_t brief_waits; /* in a row, up to POLL_AFTER */
    uint32_t streams_max;
    uint32_t stream_count; /* streams and listeners */
    uint32_t child_count;
    struct stream *eager;  /* the one watched so that spoke last; NULL: none, or long ago */
    uint32_t eager_turns;  /* since the kernel was asked about all of them */
    uint32_t eager_misses; /* in a row */
    bool eager_heard;      /* it was read from in this turn */
    struct env_source *sources;
    struct env_source *dead;
    struct env_timers timers;

    struct env_source wakeup; /* eventfd */
    struct ring *posts;
    /* Set by the loop before it looks at the posts for the last time and waits, cleared by a poster
     * that will write the eventfd: both with an exchange, so that either the loop sees the post or
     * the poster wakes it; and who posts to a loop that is awake makes no system call. */
    _Atomic bool asleep;

    struct real_io *io; /* NULL until the first env_io_start() */
    bool no_io_uring;
    struct real_jobs *jobs; /* NULL until the first env_job_start() */
    struct range *ahead;    /* what is being mapped */
    uint32_t ahead_count;

    struct env_source signals; /* signalfd; fd is -1 until the first env_on_signal() */
    struct {
        env_signal_fn fn;
        void *ctx;
    } on_signal[ENV_REAL_SIGNO_MAX + 1];
};

static inline struct env_real *env_real_of(struct env *env)
{
    return (struct env_real *)(void *)env; /* `base` is the first member */
}

/* Puts the source in the env's list. Its fd, on_event and free are set. */
void env_source_add(struct env_real *real, struct env_source *source);

/* Changes what the kernel reports; 0 takes it out. STATUS_FULL when the kernel refuses to add. */
enum status env_source_arm(struct env_real *real, struct env_source *source, uint32_t events);

/* Closes the descriptor; free(source) runs when the turn ends. */
void env_source_close(struct env_real *real, struct env_source *source);

/* errno to status for a file or a descriptor. */
enum status env_real_status(int error);

/* Where to connect, or, `passive`, to listen. A number is parsed; a name is looked up, which may
 * block: prefer numbers where loops are busy. STATUS_INVALID, with err. */
enum status env_real_resolve(const char *address, bool passive, struct sockaddr_storage *out,
                             socklen_t *out_len, struct errmsg *err);

/* ---- threads ---- */

/* One that takes no signals: they are for those that wait for them, also where we are a library of
 * another program. As pthread_create(), an errno. */
int env_real_thread(pthread_t *out, void *(*fn)(void *ctx), void *ctx);

/* ---- host names, looked up by a thread (env_real_lookup.c) ---- */

enum { ENV_LOOKUPS_MAX = 16 }; /* threads of the process at once */

struct env_lookup;

struct env_found {
    enum status status; /* as env_real_resolve() */
    struct sockaddr_storage addr;
    socklen_t addr_len;
    struct errmsg err;
};

/* Adds to the eventfd, of which the lookup makes a copy, when it is over. STATUS_FULL,
 * STATUS_INVALID for an address that is too long, STATUS_NO_MEMORY. */
MUST_USE enum status env_lookup_start(const char *address, int event_fd, struct env_lookup **out);
/* False while it is not over; if it is, the lookup is freed. */
bool env_lookup_take(struct env_lookup *lookup, struct env_found *out);
void env_lookup_abandon(struct env_lookup *lookup); /* NULL allowed */

/* The operations, by file. env_real.c puts them in one table. */
enum status env_real_listen(struct env *env, const char *address, env_accept_fn on_accept,
                            void *ctx, struct env_listener **out, struct errmsg *err);
void env_real_listener_close(struct env_listener *listener);
enum status env_real_connect(struct env *env, const char *local_host, const char *address,
                             struct env_stream **out, struct errmsg *err);
uint32_t env_real_interfaces(struct env *env, struct env_interface *out, uint32_t max);
void env_real_stream_watch(struct env_stream *stream, unsigned events, env_ready_fn on_ready,
                           void *ctx);
enum status env_real_stream_readv(struct env_stream *stream, const struct iovec *iov, int iov_count,
                                  size_t *n);
enum status env_real_stream_writev(struct env_stream *stream, const struct iovec *iov,
                                   int iov_count, size_t *n);
void env_real_stream_close(struct env_stream *stream);
/* Lets `eager` look whether something has come. */
void env_real_stream_ask_eager(struct env_real *real);
const char *env_real_stream_local_host(const struct env_stream *stream);

enum status env_real_watch_open(struct env *env, int fd, void (*fn)(void *ctx), void *ctx,
                                struct env_watch **out);
void env_real_watch_close(struct env_watch *watch);

enum status env_real_file_open(struct env *env, const char *path, unsigned flags,
                               struct env_file **out, struct errmsg *err);
enum status env_real_file_pread(struct env_file *file, void *buf, size_t len, uint64_t offset,
                                size_t *n);
enum status env_real_file_pwrite(struct env_file *file, const void *buf, size_t len,
                                 uint64_t offset);
enum status env_real_file_sync(struct env_file *file);
enum status env_real_file_size(struct env_file *file, uint64_t *out);
enum status env_real_file_truncate(struct env_file *file, uint64_t size);
void env_real_file_close(struct env_file *file);
enum status env_real_file_remove(struct env *env, const char *path);
enum status env_real_file_rename(struct env *env, const char *from, const char *to);
enum status env_real_make_dirs(struct env *env, const char *path, struct errmsg *err);
enum status env_real_dir_list(struct env *env, const char *path,
                              void (*fn)(void *ctx, const char *name), void *ctx,
                              struct errmsg *err);
enum status env_real_file_private(struct env *env, const char *path, bool *out);
enum status env_real_disk_free(struct env *env, const char *path, uint64_t *out);

enum status env_real_io_start(struct env_io *io);
/* Before the loop waits: gives the kernel what was started. True if something is done already. */
bool env_real_io_flush(struct env_real *real);
/* Calls back what is done; true if anything was. */
bool env_real_io_run(struct env_real *real);
/* Waits until nothing is on its way in the file, and forgets it. */
void env_real_io_settle(struct env_file *file);
/* Waits until nothing is on its way at all. */
void env_real_io_destroy(struct env_real *real);

enum status env_real_job_start(struct env_job *job);
bool env_real_job_cancel(struct env_job *job);
void env_real_job_settle(struct env_job *job);
/* Waits for what has begun; the rest never will. */
void env_real_jobs_destroy(struct env_real *real);

enum status env_real_map_file(struct env *env, const char *path, struct env_map *out,
                              struct errmsg *err);
enum status env_real_map_create(struct env *env, size_t size, struct env_map *out,
                                char name[ENV_SHARE_NAME_SIZE], struct errmsg *err);
enum status env_real_map_open(struct env *env, const char *name, size_t size, struct env_map *out);
enum status env_real_populate(void *address, size_t len);

/* ---- memory of others, mapped ahead (env_real_ahead.c) ---- */

void env_real_map_ahead(struct env *env, const struct env_map *map, size_t offset, size_t len);
/* After the threads of jobs have ended. */
void env_real_ahead_end(struct env_real *real);
/* Takes over the mapping, which ends with the last reference. NULL: no memory. */
struct env_real_seen *env_real_seen_new(void *data, size_t size);
void env_real_seen_unref(struct env_real_seen *seen);
/* NULL: not by name. */
struct env_real_seen *env_real_map_seen(const struct env_map *map);

void env_real_memory_name(struct env *env, char name[ENV_SHARE_NAME_SIZE]);
enum status env_real_memory_open(struct env *env, const char *name, struct env_memory *out);
enum status env_real_memory_readv(struct env *env, const struct env_memory *memory,
                                  const struct env_memory_part *parts, uint32_t count);

#endif
