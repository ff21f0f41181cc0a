/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_int.h - what the bodies of env share: the table of functions, the first members of their
 * objects, addresses, and the timer heap. Visible to src/base/env*.c only. */
#ifndef BASE_ENV_INT_H
#define BASE_ENV_INT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/status.h"

enum { ENV_HOST_SIZE = 64, ENV_PEER_SIZE = 80, ENV_PATH_MAX = 4096 };

/* One function per operation of env.h that the bodies do differently. env.c checks arguments and
 * ownership before it calls them. */
struct env_ops {
    uint64_t (*now_ns)(struct env *env);
    uint64_t (*wall_ns)(struct env *env);
    void (*random)(struct env *env, void *out, size_t len);
    void (*run)(struct env *env);
    void (*stop)(struct env *env);
    bool (*poll)(struct env *env, uint64_t timeout_ns);
    enum status (*post)(struct env *env, void (*fn)(void *ctx), void *ctx);
    enum status (*event_create)(int *fd);
    enum status (*apart_create)(struct env **out); /* NULL: there is one loop only */
    void (*apart_destroy)(struct env *apart);
    enum status (*watch_open)(struct env *env, int fd, void (*fn)(void *ctx), void *ctx,
                              struct env_watch **out);
    void (*watch_close)(struct env_watch *watch);
    void (*timer_set)(struct env *env, struct env_timer *timer, uint64_t deadline_ns);
    void (*timer_cancel)(struct env *env, struct env_timer *timer);

    enum status (*listen)(struct env *env, const char *address, env_accept_fn on_accept, void *ctx,
                          struct env_listener **out, struct errmsg *err);
    void (*listener_close)(struct env_listener *listener);
    enum status (*connect)(struct env *env, const char *local_host, const char *address,
                           struct env_stream **out, struct errmsg *err);
    uint32_t (*interfaces)(struct env *env, struct env_interface *out, uint32_t max);
    void (*stream_watch)(struct env_stream *stream, unsigned events, env_ready_fn on_ready,
                         void *ctx);
    enum status (*stream_readv)(struct env_stream *stream, const struct iovec *iov, int iov_count,
                                size_t *n);
    enum status (*stream_writev)(struct env_stream *stream, const struct iovec *iov, int iov_count,
                                 size_t *n);
    void (*stream_close)(struct env_stream *stream);
    const char *(*stream_local_host)(const struct env_stream *stream);

    enum status (*file_open)(struct env *env, const char *path, unsigned flags,
                             struct env_file **out, struct errmsg *err);
    enum status (*file_pread)(struct env_file *file, void *buf, size_t len, uint64_t offset,
                              size_t *n);
    enum status (*file_pwrite)(struct env_file *file, const void *buf, size_t len, uint64_t offset);
    enum status (*file_sync)(struct env_file *file);
    enum status (*file_size)(struct env_file *file, uint64_t *out);
    enum status (*file_truncate)(struct env_file *file, uint64_t size);
    void (*file_close)(struct env_file *file);
    enum status (*file_remove)(struct env *env, const char *path);
    enum status (*file_rename)(struct env *env, const char *from, const char *to);
    enum status (*make_dirs)(struct env *env, const char *path, struct errmsg *err);
    enum status (*dir_list)(struct env *env, const char *path,
                            void (*fn)(void *ctx, const char *name), void *ctx, struct errmsg *err);
    enum status (*file_private)(struct env *env, const char *path, bool *out);
    enum status (*disk_free)(struct env *env, const char *path, uint64_t *out);
    enum status (*io_start)(struct env_io *io);
    enum status (*job_start)(struct env_job *job);
    bool (*job_cancel)(struct env_job *job);
    void (*job_settle)(struct env_job *job);

    enum status (*map_file)(struct env *env, const char *path, struct env_map *out,
                            struct errmsg *err);
    enum status (*map_create)(struct env *env, size_t size, struct env_map *out,
                              char name[ENV_SHARE_NAME_SIZE], struct errmsg *err);
    enum status (*map_open)(struct env *env, const char *name, size_t size, struct env_map *out);
    /* NULL: pages need not be mapped */
    void (*map_ahead)(struct env *env, const struct env_map *map, size_t offset, size_t len);
    enum status (*populate)(void *address, size_t len); /* NULL: pages need not be made */
    void (*memory_name)(struct env *env, char name[ENV_SHARE_NAME_SIZE]);
    enum status (*memory_open)(struct env *env, const char *name, struct env_memory *out);
    enum status (*memory_readv)(struct env *env, const struct env_memory *memory,
                                const struct env_memory_part *parts, uint32_t count);
};

/* Each body's objects begin with these. */
struct env {
    const struct env_ops *ops;
    pthread_t owner; /* while running */
    bool running;    /* a thread is inside env_run() or env_poll() */
    void *user;      /* env_set_user() */
};

struct env_watch {
    struct env *env;
};

struct env_listener {
    struct env *env;
    uint16_t port;
};

struct env_stream {
    struct env *env;
    char peer[ENV_PEER_SIZE];
};

struct env_file {
    struct env *env;
    uint32_t ios; /* on their way, callbacks not yet run */
    bool direct;  /* past the page cache */
};

/* Where an I/O is; both bodies keep it here. */
enum env_io_phase {
    ENV_IO_IDLE = 0, /* the caller's */
    ENV_IO_QUEUED,   /* nobody works at it yet */
    ENV_IO_ACTIVE,   /* the kernel, a thread or the simulated disk does */
    ENV_IO_DONE,     /* status is known, fn has not run */
};

/* A list of I/Os in the order they came. */
struct env_ios {
    struct env_io *head;
    struct env_io *tail;
    uint32_t count;
};

void env_ios_append(struct env_ios *list, struct env_io *io);
void env_ios_remove(struct env_ios *list, struct env_io *io);

/* Where a job is; both bodies keep it here. */
enum env_job_phase {
    ENV_JOB_IDLE = 0, /* the caller's */
    ENV_JOB_QUEUED,   /* has not begun */
    ENV_JOB_ACTIVE,   /* `run` does */
    ENV_JOB_DONE,     /* `run` has returned, `done` has not run */
};

/* env_map.handle points to one of these: a map is closed without knowing its env. */
struct env_map_handle {
    void (*close)(struct env_map *map);
    bool (*alive)(const struct env_map *map); /* of what was opened by its name */
};

/* "host:port", "[host]:port" or ":port" (host becomes ""). STATUS_INVALID, with err. */
MUST_USE enum status env_address_parse(const char *address, char host[ENV_HOST_SIZE],
                                       uint16_t *port, struct errmsg *err);

/* A heap of armed timers, soonest first, in order of setting among equals. */
struct env_timers {
    struct env_timer **heap; /* 1-based: heap_index 0 means not armed */
    uint32_t count;
    uint32_t capacity;
    uint32_t timers_max;
    uint64_t order; /* of the next one set */
};

void env_timers_init(struct env_timers *timers, uint32_t timers_max);
void env_timers_fini(struct env_timers *timers);

/* Arms or moves. `floor_ns` is the time of the turn: an earlier deadline is raised to it, so that a
 * timer set again and again in the past cannot starve those that were due before. */
void env_timers_set(struct env_timers *timers, struct env_timer *timer, uint64_t deadline_ns,
                    uint64_t floor_ns);
void env_timers_cancel(struct env_timers *timers, struct env_timer *timer);

/* The soonest, or NULL. Borrowed until the next call. */
struct env_timer *env_timers_peek(const struct env_timers *timers);

/* Takes out the soonest if it is due at `now_ns` and was set before `order`; else NULL. */
struct env_timer *env_timers_take_due(struct env_timers *timers, uint64_t now_ns, uint64_t order);

#endif
