/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_sim_int.h - what the files of the simulated env share: the world, its hosts and its
 * processes. */
#ifndef BASE_ENV_SIM_INT_H
#define BASE_ENV_SIM_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env_int.h"
#include "base/env_sim.h"
#include "base/rng.h"

struct sim_end;
struct sim_listener;
struct sim_inode;
struct sim_entry;
struct sim_share;
struct sim_conn;

struct sim_host {
    char name[ENV_HOST_SIZE];
    struct sim_host *home; /* itself; or, for a further address, the host that has it */
    uint32_t index;        /* each address has its own, so that each can be cut off */
    bool on;               /* false between env_sim_power_off() and the next env_sim_add() */
    uint16_t port_next;
    struct sim_listener *listeners;
    struct sim_entry *entries; /* the disk: names of files and directories */
    struct sim_share *shares;
    struct sim_host *next;
};

struct sim_post {
    void (*fn)(void *ctx);
    void *ctx;
};

struct sim_process {
    struct env base;
    struct env_sim *sim;
    struct sim_host *host;
    uint32_t index;
    int64_t skew_ns; /* of its wall clock */
    bool alive;
    bool paused;
    bool stopping;
    uint64_t callback_count;
    struct env_timers timers;
    struct env_timer turn; /* in the world's heap: when this process runs next */
    struct sim_post *posts;
    uint32_t post_head, post_count, post_capacity; /* a circle */
    struct env_ios ios;                            /* at the disk */
    struct env_ios ios_done;                       /* callbacks wait for the next turn */
    uint32_t jobs_count;                           /* under way */
    struct sim_end *ends;                          /* streams this process has open */
    struct sim_process *next;
};

struct env_sim {
    struct env_sim_options options;
    struct rng rng;
    uint64_t now_ns;
    uint64_t trace_hash;
    uint64_t event_count;
    uint64_t fault_count;
    bool stepping; /* inside an event */
    uint32_t host_count, process_count;
    struct env_timers events;
    struct sim_host *hosts;
    struct sim_process *processes; /* newest first; the dead stay until the end */
    struct sim_conn *conns;
    struct sim_conn *conns_gone; /* freed when the event is over */
    struct sim_inode *inodes;
    uint64_t share_next;
    uint8_t *cut; /* a square of flags by host index: nothing passes between these two */
};

static inline struct sim_process *sim_process_of(struct env *env)
{
    return (struct sim_process *)(void *)env; /* `base` is the first member */
}

/* ---- env_sim.c ---- */

/* Memory, or the end of the test. */
void *env_sim_alloc(size_t size);
void *env_sim_realloc(void *old, size_t size);

/* True with a chance of ppm in a million. Draws nothing at 0. */
bool env_sim_chance(struct env_sim *sim, uint32_t ppm);

/* Something that this process waits for may have happened: it looks at the time `at_ns`. */
void env_sim_wake(struct sim_process *process, uint64_t at_ns);

/* The outcome of an event, mixed into the hash. */
void env_sim_trace(struct env_sim *sim, uint64_t what, uint64_t value);

struct sim_host *env_sim_host(struct env_sim *sim, const char *name); /* or NULL */
bool env_sim_cut(const struct env_sim *sim, const struct sim_host *a, const struct sim_host *b);

/* ---- env_sim_stream.c ---- */

enum status env_sim_listen(struct env *env, const char *address, env_accept_fn on_accept, void *ctx,
                           struct env_listener **out, struct errmsg *err);
void env_sim_listener_close(struct env_listener *listener);
enum status env_sim_connect(struct env *env, const char *local_host, const char *address,
                            struct env_stream **out, struct errmsg *err);
uint32_t env_sim_interfaces(struct env *env, struct env_interface *out, uint32_t max);
void env_sim_stream_watch(struct env_stream *stream, unsigned events, env_ready_fn on_ready,
                          void *ctx);
enum status env_sim_stream_readv(struct env_stream *stream, const struct iovec *iov, int iov_count,
                                 size_t *n);
enum status env_sim_stream_writev(struct env_stream *stream, const struct iovec *iov, int iov_count,
                                  size_t *n);
void env_sim_stream_close(struct env_stream *stream);
const char *env_sim_stream_local_host(const struct env_stream *stream);

/* Runs what is ready in the streams and listeners of the process. */
void env_sim_streams_turn(struct sim_process *process);
/* True if a callback would run now. */
bool env_sim_streams_ready(const struct sim_process *process);
/* The process is gone: with words to its peers (`loud`), or without. */
void env_sim_streams_crash(struct sim_process *process, bool loud);
void env_sim_streams_sweep(struct env_sim *sim);
void env_sim_streams_free(struct env_sim *sim);

/* ---- env_sim_file.c ---- */

enum status env_sim_file_open(struct env *env, const char *path, unsigned flags,
                              struct env_file **out, struct errmsg *err);
enum status env_sim_file_pread(struct env_file *file, void *buf, size_t len, uint64_t offset,
                               size_t *n);
enum status env_sim_file_pwrite(struct env_file *file, const void *buf, size_t len,
                                uint64_t offset);
enum status env_sim_file_sync(struct env_file *file);
enum status env_sim_file_size(struct env_file *file, uint64_t *out);
enum status env_sim_file_truncate(struct env_file *file, uint64_t size);
void env_sim_file_close(struct env_file *file);
enum status env_sim_file_remove(struct env *env, const char *path);
enum status env_sim_file_rename(struct env *env, const char *from, const char *to);
enum status env_sim_make_dirs(struct env *env, const char *path, struct errmsg *err);
enum status env_sim_dir_list(struct env *env, const char *path,
                             void (*fn)(void *ctx, const char *name), void *ctx,
                             struct errmsg *err);
enum status env_sim_file_private(struct env *env, const char *path, bool *out);
enum status env_sim_disk_free(struct env *env, const char *path, uint64_t *out);
enum status env_sim_io_start(struct env_io *io);
void env_sim_ios_turn(struct sim_process *process);
void env_sim_ios_crash(struct sim_process *process);
void env_sim_disk_power_off(struct env_sim *sim, struct sim_host *host);
void env_sim_disks_end(struct env_sim *sim);

/* ---- env_sim_job.c ---- */

enum status env_sim_job_start(struct env_job *job);
bool env_sim_job_cancel(struct env_job *job);
void env_sim_job_settle(struct env_job *job);

/* ---- env_sim_map.c ---- */

enum status env_sim_map_file(struct env *env, const char *path, struct env_map *out,
                             struct errmsg *err);
enum status env_sim_map_create(struct env *env, size_t size, struct env_map *out,
                               char name[ENV_SHARE_NAME_SIZE], struct errmsg *err);
enum status env_sim_map_open(struct env *env, const char *name, size_t size, struct env_map *out);
void env_sim_memory_name(struct env *env, char name[ENV_SHARE_NAME_SIZE]);
enum status env_sim_memory_open(struct env *env, const char *name, struct env_memory *out);
enum status env_sim_memory_readv(struct env *env, const struct env_memory *memory,
                                 const struct env_memory_part *parts, uint32_t count);
void env_sim_maps_crash(struct sim_process *process);
void env_sim_maps_free(struct env_sim *sim);

#endif
