/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_file.c - files by path: blocking, for start-up, caches and manifests.
 *
 * A rename is made durable here: the directory is synced after it, so that env_file_replace() is
 * either the old file or the new one after a power cut, too. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real_int.h"
#include "base/log.h"

enum { LOCK_PAUSE_MS = 10 };

static int fd_of(const struct env_file *base)
{
    return ((const struct real_file *)(const void *)base)->fd;
}

static int open_flags(unsigned flags)
{
    int result = O_CLOEXEC;

    if ((flags & ENV_FILE_WRITE) == 0)
        result |= O_RDONLY;
    else if ((flags & ENV_FILE_READ) == 0)
        result |= O_WRONLY;
    else
        result |= O_RDWR;
    if ((flags & ENV_FILE_CREATE) != 0) result |= O_CREAT;
    if ((flags & ENV_FILE_TRUNCATE) != 0) result |= O_TRUNC;
    return result;
}

/* Some file systems (tmpfs, before Linux 6.6) have nothing below their page cache. */
static int open_direct(const char *path, unsigned flags, bool *direct)
{
    *direct = (flags & ENV_FILE_DIRECT) != 0;
    int fd = open(path, open_flags(flags) | (*direct ? O_DIRECT : 0), 0644);
    if (fd < 0 && errno == EINVAL && *direct) {
        *direct = false;
        fd = open(path, open_flags(flags), 0644);
    }
    return fd;
}

static bool lock_within(int fd, unsigned wait_ms)
{
    for (unsigned waited = 0;; waited += LOCK_PAUSE_MS) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
        if (errno != EWOULDBLOCK && errno != EINTR) return false;
        if (waited >= wait_ms) return false;
        env_real_sleep_ns(LOCK_PAUSE_MS * ENV_NS_PER_MS);
    }
}

enum status env_real_file_open(struct env *env, const char *path, unsigned flags,
                               struct env_file **out, struct errmsg *err)
{
    bool direct;
    const int fd = open_direct(path, flags, &direct);
    if (fd < 0) return errmsg_set(err, env_real_status(errno), "%s: %s", path, strerror(errno));
    if ((flags & ENV_FILE_LOCK) != 0 && !lock_within(fd, ENV_FILE_LOCK_WAIT_MS)) {
        const bool taken = errno == EWOULDBLOCK;
        errmsg_set(err, STATUS_EXISTS, "%s: %s", path,
                   taken ? "another process uses it" : strerror(errno));
        close(fd);
        return taken ? STATUS_EXISTS : STATUS_IO;
    }
    struct real_file *file = calloc(1, sizeof(*file));
    if (file == NULL) {
        close(fd);
        return errmsg_set(err, STATUS_NO_MEMORY, "%s: no memory", path);
    }
    file->base.env = env;
    file->fd = fd;
    file->base.direct = direct;
    *out = &file->base;
    return STATUS_OK;
}

enum status env_real_file_pread(struct env_file *file, void *buf, size_t len, uint64_t offset,
                                size_t *n)
{
    size_t done = 0;

    while (done < len) {
        const ssize_t got =
            pread(fd_of(file), (char *)buf + done, len - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            LOG_WARN("env", "file_read_failed", "offset=%lu reason=%s",
                     (unsigned long)(offset + done), strerror(errno));
            return env_real_status(errno);
        }
        if (got == 0) break;
        done += (size_t)got;
    }
    *n = done;
    return STATUS_OK;
}

enum status env_real_file_pwrite(struct env_file *file, const void *buf, size_t len,
                                 uint64_t offset)
{
    size_t done = 0;

    while (done < len) {
        const ssize_t put =
            pwrite(fd_of(file), (const char *)buf + done, len - done, (off_t)(offset + done));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) {
            LOG_WARN("env", "file_write_failed", "offset=%lu reason=%s",
                     (unsigned long)(offset + done), strerror(errno));
            return env_real_status(errno);
        }
        done += (size_t)put;
    }
    return STATUS_OK;
}

enum status env_real_file_sync(struct env_file *file)
{
    return fdatasync(fd_of(file)) == 0 ? STATUS_OK : env_real_status(errno);
}

enum status env_real_file_size(struct env_file *file, uint64_t *out)
{
    struct stat info;

    if (fstat(fd_of(file), &info) != 0) return env_real_status(errno);
    if (!S_ISREG(info.st_mode)) return STATUS_UNSUPPORTED; /* a directory or a pipe has no size */
    *out = (uint64_t)info.st_size;
    return STATUS_OK;
}

enum status env_real_file_truncate(struct env_file *file, uint64_t size)
{
    struct stat info;

    if (fstat(fd_of(file), &info) != 0) return env_real_status(errno);
    if ((uint64_t)info.st_size < size) return STATUS_INVALID;
    return ftruncate(fd_of(file), (off_t)size) == 0 ? STATUS_OK : env_real_status(errno);
}

void env_real_file_close(struct env_file *file)
{
    env_real_io_settle(file);
    close(fd_of(file));
    free(file);
}

enum status env_real_file_remove(struct env *env, const char *path)
{
    (void)env;
    return unlink(path) == 0 ? STATUS_OK : env_real_status(errno);
}

static enum status sync_directory_of(const char *path)
{
    char directory[ENV_PATH_MAX];
    const char *slash = strrchr(path, '/');
    const size_t len = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);

    if (len >= sizeof(directory)) return STATUS_INVALID;
    memcpy(directory, path, len);
    directory[len] = '\0';
    const int fd = open(len == 0 ? "." : directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return env_real_status(errno);
    /* Some filesystems cannot sync a directory; then this is as durable as it gets. */
    const int result = fsync(fd);
    const int error = errno;
    close(fd);
    return result == 0 || error == EINVAL ? STATUS_OK : env_real_status(error);
}

enum status env_real_file_rename(struct env *env, const char *from, const char *to)
{
    (void)env;
    if (rename(from, to) != 0) return env_real_status(errno);
    return sync_directory_of(to);
}

static bool is_directory(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

enum status env_real_make_dirs(struct env *env, const char *path, struct errmsg *err)
{
    char partial[ENV_PATH_MAX];
    const size_t len = strlen(path);

    (void)env;
    if (len == 0 || len >= sizeof(partial))
        return errmsg_set(err, STATUS_INVALID, "a path of %zu bytes", len);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(partial, path, i);
        partial[i] = '\0';
        if (mkdir(partial, 0755) == 0 || is_directory(partial)) continue;
        return errmsg_set(err, env_real_status(errno), "%s: %s", partial, strerror(errno));
    }
    return STATUS_OK;
}

enum status env_real_dir_list(struct env *env, const char *path,
                              void (*fn)(void *ctx, const char *name), void *ctx,
                              struct errmsg *err)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;

    (void)env;
    if (directory == NULL)
        return errmsg_set(err, env_real_status(errno), "%s: %s", path, strerror(errno));
    while ((errno = 0, entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        fn(ctx, entry->d_name);
    }
    const int error = errno;
    closedir(directory);
    if (error == 0) return STATUS_OK;
    return errmsg_set(err, env_real_status(error), "%s: %s", path, strerror(error));
}

enum status env_real_file_private(struct env *env, const char *path, bool *out)
{
    struct stat info;
    (void)env;
    if (stat(path, &info) != 0) return env_real_status(errno);
    *out = (info.st_mode & (S_IRWXG | S_IRWXO)) == 0;
    return STATUS_OK;
}

enum status env_real_disk_free(struct env *env, const char *path, uint64_t *out)
{
    struct statvfs info;

    (void)env;
    if (statvfs(path, &info) != 0) return env_real_status(errno);
    *out = (uint64_t)info.f_bavail * info.f_frsize;
    return STATUS_OK;
}
