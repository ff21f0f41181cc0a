/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env.c - the part of env that both bodies share: checks, dispatch, and what is made of other
 * calls (whole files). */
#include "base/env.h"

#include <unistd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env_int.h"

/* While a thread runs the env it is the only one that may touch it. While none does (set-up,
 * tear-down, between polls), whoever holds it may. */
static void assert_owned(const struct env *env)
{
    ASSERT(!env->running || pthread_equal(env->owner, pthread_self()));
}

uint64_t env_now_ns(struct env *env)
{
    assert_owned(env);
    return env->ops->now_ns(env);
}

uint64_t env_wall_ns(struct env *env)
{
    assert_owned(env);
    return env->ops->wall_ns(env);
}

void env_random(struct env *env, void *out, size_t len)
{
    assert_owned(env);
    env->ops->random(env, out, len);
}

/* ---- the loop ---- */

static void enter(struct env *env)
{
    ASSERT(!env->running); /* not from a callback, and not from two threads */
    env->owner = pthread_self();
    env->running = true;
}

void env_run(struct env *env)
{
    enter(env);
    env->ops->run(env);
    env->running = false;
}

void env_stop(struct env *env)
{
    assert_owned(env);
    env->ops->stop(env);
}

bool env_poll(struct env *env, uint64_t timeout_ns)
{
    enter(env);
    const bool ran = env->ops->poll(env, timeout_ns);
    env->running = false;
    return ran;
}

enum status env_post(struct env *env, void (*fn)(void *ctx), void *ctx)
{
    ASSERT(fn != NULL);
    return env->ops->post(env, fn, ctx);
}

void env_timer_init(struct env_timer *timer, void (*fn)(void *ctx), void *ctx)
{
    ASSERT(fn != NULL);
    *timer = (struct env_timer){ .fn = fn, .ctx = ctx };
}

void env_timer_set(struct env *env, struct env_timer *timer, uint64_t deadline_ns)
{
    assert_owned(env);
    ASSERT(timer->fn != NULL);
    env->ops->timer_set(env, timer, deadline_ns);
}

void env_timer_cancel(struct env *env, struct env_timer *timer)
{
    assert_owned(env);
    if (timer->heap_index != 0) env->ops->timer_cancel(env, timer);
    ASSERT(timer->heap_index == 0);
}

bool env_timer_armed(const struct env_timer *timer)
{
    return timer->heap_index != 0;
}

/* ---- events for other threads ---- */

enum status env_apart_create(struct env *env, struct env **out)
{
    ASSERT(env != NULL && out != NULL);
    return env->ops->apart_create != NULL ? env->ops->apart_create(out) : STATUS_UNSUPPORTED;
}

void env_apart_destroy(struct env *apart)
{
    if (apart != NULL) apart->ops->apart_destroy(apart);
}

enum status env_event_create(struct env *env, int *fd)
{
    return env->ops->event_create(fd);
}

void env_event_signal(int fd, uint64_t count)
{
    ASSERT(fd >= 0 && count > 0);
    const ssize_t written = write(fd, &count, sizeof(count));
    ASSERT(written == sizeof(count)); /* the counter holds more than anybody can count */
}

void env_event_close(int fd)
{
    if (fd >= 0) close(fd);
}

enum status env_watch_open(struct env *env, int fd, void (*fn)(void *ctx), void *ctx,
                           struct env_watch **out)
{
    assert_owned(env);
    ASSERT(fd >= 0 && fn != NULL);
    return env->ops->watch_open(env, fd, fn, ctx, out);
}

void env_watch_close(struct env_watch *watch)
{
    if (watch == NULL) return;
    assert_owned(watch->env);
    watch->env->ops->watch_close(watch);
}

/* ---- streams ---- */

enum status env_listen(struct env *env, const char *address, env_accept_fn on_accept, void *ctx,
                       struct env_listener **out, struct errmsg *err)
{
    assert_owned(env);
    ASSERT(on_accept != NULL);
    return env->ops->listen(env, address, on_accept, ctx, out, err);
}

uint16_t env_listener_port(const struct env_listener *listener)
{
    return listener->port;
}

void env_listener_close(struct env_listener *listener)
{
    if (listener == NULL) return;
    assert_owned(listener->env);
    listener->env->ops->listener_close(listener);
}

enum status env_connect(struct env *env, const char *address, struct env_stream **out,
                        struct errmsg *err)
{
    assert_owned(env);
    return env->ops->connect(env, "", address, out, err);
}

enum status env_connect_from(struct env *env, const char *local_host, const char *address,
                             struct env_stream **out, struct errmsg *err)
{
    assert_owned(env);
    return env->ops->connect(env, local_host != NULL ? local_host : "", address, out, err);
}

uint32_t env_interfaces(struct env *env, struct env_interface *out, uint32_t max)
{
    assert_owned(env);
    return env->ops->interfaces(env, out, max);
}

void env_stream_watch(struct env_stream *stream, unsigned events, env_ready_fn on_ready, void *ctx)
{
    assert_owned(stream->env);
    ASSERT((events & ~(unsigned)(ENV_READ | ENV_WRITE | ENV_EAGER)) == 0);
    ASSERT(events == 0 || on_ready != NULL);
    stream->env->ops->stream_watch(stream, events, on_ready, ctx);
}

void env_set_user(struct env *env, void *user)
{
    assert_owned(env);
    env->user = user;
}

void *env_user(struct env *env)
{
    assert_owned(env);
    return env->user;
}

enum status env_stream_read(struct env_stream *stream, void *buf, size_t len, size_t *n)
{
    const struct iovec iov = { .iov_base = buf, .iov_len = len };
    return env_stream_readv(stream, &iov, 1, n);
}

static size_t iov_size(const struct iovec *iov, int iov_count)
{
    size_t size = 0;
    for (int i = 0; i < iov_count; i++) {
        size += iov[i].iov_len;
    }
    return size;
}

enum status env_stream_readv(struct env_stream *stream, const struct iovec *iov, int iov_count,
                             size_t *n)
{
    assert_owned(stream->env);
    ASSERT(iov_count >= 1 && iov_count <= ENV_IOV_MAX);
    ASSERT(iov_size(iov, iov_count) > 0); /* 0 bytes would look like the end of the stream */
    return stream->env->ops->stream_readv(stream, iov, iov_count, n);
}

enum status env_stream_writev(struct env_stream *stream, const struct iovec *iov, int iov_count,
                              size_t *n)
{
    assert_owned(stream->env);
    ASSERT(iov_count >= 1 && iov_count <= ENV_IOV_MAX);
    ASSERT(iov_size(iov, iov_count) > 0);
    return stream->env->ops->stream_writev(stream, iov, iov_count, n);
}

void env_stream_close(struct env_stream *stream)
{
    if (stream == NULL) return;
    assert_owned(stream->env);
    stream->env->ops->stream_close(stream);
}

const char *env_stream_peer(const struct env_stream *stream)
{
    return stream->peer;
}

const char *env_stream_local_host(const struct env_stream *stream)
{
    assert_owned(stream->env);
    return stream->env->ops->stream_local_host(stream);
}

/* ---- files ---- */

enum status env_file_open(struct env *env, const char *path, unsigned flags, struct env_file **out,
                          struct errmsg *err)
{
    assert_owned(env);
    ASSERT((flags & (ENV_FILE_READ | ENV_FILE_WRITE)) != 0);
    ASSERT((flags & ENV_FILE_WRITE) != 0 || (flags & (ENV_FILE_CREATE | ENV_FILE_TRUNCATE)) == 0);
    return env->ops->file_open(env, path, flags, out, err);
}

enum status env_file_pread(struct env_file *file, void *buf, size_t len, uint64_t offset, size_t *n)
{
    assert_owned(file->env);
    return file->env->ops->file_pread(file, buf, len, offset, n);
}

enum status env_file_pwrite(struct env_file *file, const void *buf, size_t len, uint64_t offset)
{
    assert_owned(file->env);
    return file->env->ops->file_pwrite(file, buf, len, offset);
}

enum status env_file_sync(struct env_file *file)
{
    assert_owned(file->env);
    return file->env->ops->file_sync(file);
}

enum status env_file_size(struct env_file *file, uint64_t *out)
{
    assert_owned(file->env);
    return file->env->ops->file_size(file, out);
}

enum status env_file_truncate(struct env_file *file, uint64_t size)
{
    assert_owned(file->env);
    return file->env->ops->file_truncate(file, size);
}

bool env_file_direct(const struct env_file *file)
{
    return file->direct;
}

void env_file_close(struct env_file *file)
{
    if (file == NULL) return;
    assert_owned(file->env);
    file->env->ops->file_close(file);
}

enum { READ_SIZE_MIN = 4096 };

/* Reads to the end, whatever the size said: files of /proc say 0, and others may grow. The buffer
 * has room for one byte more than len_max, which tells a file that is too large. */
static enum status read_to_end(struct env_file *file, size_t size, size_t len_max, char **out,
                               size_t *len)
{
    size_t cap = (size < READ_SIZE_MIN ? READ_SIZE_MIN : size) + 1;
    size_t read = 0, n = 0;
    char *data = NULL;
    enum status status;

    do {
        if (cap > len_max + 1) cap = len_max + 1;
        char *moved = realloc(data, cap + 1);
        if (moved == NULL) {
            free(data);
            return STATUS_NO_MEMORY;
        }
        data = moved;
        status = env_file_pread(file, data + read, cap - read, read, &n);
        if (status == STATUS_OK) read += n;
        if (status == STATUS_OK && read > len_max) status = STATUS_FULL;
        const bool full = read == cap;
        cap *= 2;
        if (!full) break;
    } while (status == STATUS_OK);
    if (status != STATUS_OK) {
        free(data);
        return status;
    }
    data[read] = '\0';
    *out = data;
    *len = read;
    return STATUS_OK;
}

enum status env_file_read_all(struct env *env, const char *path, size_t len_max, char **out,
                              size_t *len, struct errmsg *err)
{
    struct env_file *file;
    uint64_t size = 0;

    ASSERT(len_max < SIZE_MAX / 4);
    enum status status = env_file_open(env, path, ENV_FILE_READ, &file, err);
    if (status != STATUS_OK) return status;
    status = env_file_size(file, &size);
    if (status == STATUS_OK && size > len_max) status = STATUS_FULL;
    if (status == STATUS_OK) status = read_to_end(file, (size_t)size, len_max, out, len);
    if (status == STATUS_FULL)
        errmsg_set(err, status, "%s: larger than %zu bytes", path, len_max);
    else if (status != STATUS_OK)
        errmsg_set(err, status, "%s: cannot be read", path);
    env_file_close(file);
    return status;
}

static enum status write_new_file(struct env *env, const char *path, const void *data, size_t len,
                                  struct errmsg *err)
{
    const unsigned flags = ENV_FILE_WRITE | ENV_FILE_CREATE | ENV_FILE_TRUNCATE;
    struct env_file *file;

    enum status status = env_file_open(env, path, flags, &file, err);
    if (status != STATUS_OK) return status;
    status = env_file_pwrite(file, data, len, 0);
    if (status == STATUS_OK) status = env_file_sync(file);
    env_file_close(file);
    if (status != STATUS_OK) {
        (void)!env_file_remove(env, path);
        return errmsg_set(err, status, "%s: cannot be written (%s)", path, status_name(status));
    }
    return STATUS_OK;
}

enum status env_file_replace(struct env *env, const char *path, const void *data, size_t len,
                             struct errmsg *err)
{
    char temporary[ENV_PATH_MAX];
    uint64_t nonce;

    env_random(env, &nonce, sizeof(nonce)); /* two writers of one path must not share it */
    const int printed =
        snprintf(temporary, sizeof(temporary), "%s.%08x.tmp", path, (unsigned)(nonce & 0xffffffff));
    if (printed < 0 || (size_t)printed >= sizeof(temporary))
        return errmsg_set(err, STATUS_INVALID, "path is too long");
    enum status status = write_new_file(env, temporary, data, len, err);
    if (status == STATUS_NOT_FOUND)
        return errmsg_set(err, status, "%s: its directory does not exist", path);
    if (status != STATUS_OK) return status;
    status = env_file_rename(env, temporary, path);
    if (status != STATUS_OK) {
        (void)!env_file_remove(env, temporary);
        return errmsg_set(err, status, "%s: cannot be replaced (%s)", path, status_name(status));
    }
    return STATUS_OK;
}

enum status env_file_remove(struct env *env, const char *path)
{
    assert_owned(env);
    return env->ops->file_remove(env, path);
}

enum status env_file_rename(struct env *env, const char *from, const char *to)
{
    assert_owned(env);
    return env->ops->file_rename(env, from, to);
}

enum status env_make_dirs(struct env *env, const char *path, struct errmsg *err)
{
    assert_owned(env);
    return env->ops->make_dirs(env, path, err);
}

enum status env_dir_list(struct env *env, const char *path, void (*fn)(void *ctx, const char *name),
                         void *ctx, struct errmsg *err)
{
    assert_owned(env);
    return env->ops->dir_list(env, path, fn, ctx, err);
}

enum status env_file_private(struct env *env, const char *path, bool *out)
{
    assert_owned(env);
    return env->ops->file_private(env, path, out);
}

enum status env_disk_free(struct env *env, const char *path, uint64_t *out)
{
    assert_owned(env);
    return env->ops->disk_free(env, path, out);
}

/* ---- files in bulk ---- */

void env_ios_append(struct env_ios *list, struct env_io *io)
{
    io->prev = list->tail;
    io->next = NULL;
    if (list->tail != NULL)
        list->tail->next = io;
    else
        list->head = io;
    list->tail = io;
    list->count++;
}

void env_ios_remove(struct env_ios *list, struct env_io *io)
{
    ASSERT(list->count > 0);
    if (io->prev != NULL)
        io->prev->next = io->next;
    else
        list->head = io->next;
    if (io->next != NULL)
        io->next->prev = io->prev;
    else
        list->tail = io->prev;
    list->count--;
}

enum status env_io_start(struct env_io *io)
{
    const bool moves = io->op == ENV_IO_READ || io->op == ENV_IO_WRITE;

    assert_owned(io->file->env);
    ASSERT(io->fn != NULL && io->phase == ENV_IO_IDLE);
    ASSERT(moves ? io->parts_count > 0 && io->parts_count <= ENV_IO_PARTS_MAX
                 : io->parts_count == 0);
    memcpy(io->left, io->parts, sizeof(io->left));
    io->done = 0;
    io->status = STATUS_OK;
    return io->file->env->ops->io_start(io);
}

/* ---- jobs ---- */

enum status env_job_start(struct env *env, struct env_job *job)
{
    assert_owned(env);
    ASSERT(job->run != NULL && job->done != NULL && job->phase == ENV_JOB_IDLE);
    job->env = env;
    const enum status status = env->ops->job_start(job);
    if (status != STATUS_OK) job->env = NULL; /* there is nothing to settle */
    return status;
}

bool env_job_cancel(struct env_job *job)
{
    ASSERT(job->env != NULL);
    assert_owned(job->env);
    return job->env->ops->job_cancel(job);
}

void env_job_settle(struct env_job *job)
{
    if (job->env == NULL) return;
    assert_owned(job->env);
    job->env->ops->job_settle(job);
}

/* ---- maps ---- */

enum status env_map_file(struct env *env, const char *path, struct env_map *out, struct errmsg *err)
{
    assert_owned(env);
    return env->ops->map_file(env, path, out, err);
}

enum status env_map_create(struct env *env, size_t size, struct env_map *out,
                           char name[ENV_SHARE_NAME_SIZE], struct errmsg *err)
{
    assert_owned(env);
    ASSERT(size > 0);
    return env->ops->map_create(env, size, out, name, err);
}

enum status env_map_open(struct env *env, const char *name, size_t size, struct env_map *out)
{
    assert_owned(env);
    return env->ops->map_open(env, name, size, out);
}

enum status env_populate(struct env *env, void *address, size_t len)
{
    assert_owned(env);
    ASSERT(len > 0);
    return env->ops->populate != NULL ? env->ops->populate(address, len) : STATUS_OK;
}

void env_map_ahead(struct env *env, const struct env_map *map, size_t offset, size_t len)
{
    assert_owned(env);
    ASSERT(len > 0 && offset <= map->size && len <= map->size - offset);
    if (env->ops->map_ahead != NULL) env->ops->map_ahead(env, map, offset, len);
}

void env_map_close(struct env_map *map)
{
    if (map->handle == NULL) return;
    const struct env_map_handle *handle = map->handle;
    handle->close(map);
    *map = (struct env_map){ 0 };
}

bool env_map_alive(const struct env_map *map)
{
    const struct env_map_handle *handle = map->handle;
    ASSERT(handle != NULL && handle->alive != NULL);
    return handle->alive(map);
}

void env_memory_name(struct env *env, char name[ENV_SHARE_NAME_SIZE])
{
    assert_owned(env);
    env->ops->memory_name(env, name);
}

enum status env_memory_open(struct env *env, const char *name, struct env_memory *out)
{
    assert_owned(env);
    return env->ops->memory_open(env, name, out);
}

enum status env_memory_readv(struct env *env, const struct env_memory *memory,
                             const struct env_memory_part *parts, uint32_t count)
{
    assert_owned(env);
    ASSERT(count >= 1 && count <= ENV_MEMORY_PARTS_MAX);
    return env->ops->memory_readv(env, memory, parts, count);
}

enum status env_memory_read(struct env *env, const struct env_memory *memory, uint64_t address,
                            void *to, size_t len)
{
    const struct env_memory_part part = { .from = address, .to = to, .len = len };
    return env_memory_readv(env, memory, &part, 1);
}
