/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_map.c - shared memory by memfd, named by where its descriptor is to be found.
 *
 *     name = HOST:PID:FD:INODE     HOST    16 hex digits over the boot id and the pid namespace
 *                                  INODE   of the memfd: a descriptor number that was used again
 *                                          for something else does not match
 *
 * A reader opens /proc/PID/fd/FD read-only, which the kernel allows to processes of the same user.
 * So nothing is left behind when a process dies, however it dies, and a name from another host, or
 * from a container with other process numbers, is simply not found. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real_int.h"

struct map {
    struct env_map_handle handle;
    int fd; /* -1: not kept open */
    /* Of what was opened by its name: */
    int descriptors; /* the directory of its creator's; -1 until somebody asks */
    int pid;
    char number[16]; /* of the creator's descriptor, and its inode */
    ino_t inode;
    struct env_real_seen *seen; /* has the mapping; NULL: nothing but this has it */
};

static void map_close(struct env_map *map)
{
    struct map *inner = map->handle;
    if (inner->seen != NULL) {
        env_real_seen_unref(inner->seen);
    } else {
        const int result = munmap(map->data, map->size);
        ASSERT(result == 0);
    }
    if (inner->fd >= 0) close(inner->fd);
    if (inner->descriptors >= 0) close(inner->descriptors);
    free(inner);
}

/* Maps the descriptor, which it takes over or closes. */
static enum status map_fd(int fd, size_t size, int protection, bool keep_fd, struct env_map *out)
{
    struct map *inner = calloc(1, sizeof(*inner));

    if (inner == NULL) {
        close(fd);
        return STATUS_NO_MEMORY;
    }
    void *data = mmap(NULL, size, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
    const int error = errno;
    if (data == MAP_FAILED || !keep_fd) close(fd);
    if (data == MAP_FAILED) {
        free(inner);
        return env_real_status(error);
    }
    inner->handle.close = map_close;
    inner->fd = keep_fd ? fd : -1;
    inner->descriptors = -1;
    *out = (struct env_map){ .data = data, .size = size, .handle = inner };
    return STATUS_OK;
}

enum status env_real_map_file(struct env *env, const char *path, struct env_map *out,
                              struct errmsg *err)
{
    struct stat info;

    (void)env;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errmsg_set(err, env_real_status(errno), "%s: %s", path, strerror(errno));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0) {
        close(fd);
        return errmsg_set(err, STATUS_INVALID, "%s: empty, or not a regular file", path);
    }
    const enum status status = map_fd(fd, (size_t)info.st_size, PROT_READ, false, out);
    if (status != STATUS_OK) return errmsg_set(err, status, "%s: cannot be mapped", path);
    return STATUS_OK;
}

static uint64_t fnv1a(uint64_t hash, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* Equal only where a process number means the same process. */
static uint64_t host_identity(void)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    char text[128];

    const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        const ssize_t got = read(fd, text, sizeof(text));
        if (got > 0) hash = fnv1a(hash, text, (size_t)got);
        close(fd);
    }
    const ssize_t len = readlink("/proc/self/ns/pid", text, sizeof(text));
    if (len > 0) hash = fnv1a(hash, text, (size_t)len);
    return hash;
}

enum status env_real_map_create(struct env *env, size_t size, struct env_map *out,
                                char name[ENV_SHARE_NAME_SIZE], struct errmsg *err)
{
    struct stat info;

    (void)env;
    const int fd = memfd_create("yolk", MFD_CLOEXEC);
    if (fd < 0) return errmsg_set(err, STATUS_IO, "shared memory: %s", strerror(errno));
    if (ftruncate(fd, (off_t)size) != 0 || fstat(fd, &info) != 0) {
        const int error = errno;
        close(fd);
        return errmsg_set(err, env_real_status(error), "%zu bytes of shared memory: %s", size,
                          strerror(error));
    }
    const enum status status = map_fd(fd, size, PROT_READ | PROT_WRITE, true, out);
    if (status != STATUS_OK)
        return errmsg_set(err, status, "%zu bytes of shared memory cannot be mapped", size);
    snprintf(name, ENV_SHARE_NAME_SIZE, "%016" PRIx64 ":%d:%d:%" PRIu64, host_identity(),
             (int)getpid(), fd, (uint64_t)info.st_ino);
    return STATUS_OK;
}

struct env_real_seen *env_real_map_seen(const struct env_map *map)
{
    const struct map *inner = map->handle;
    return inner->seen;
}

/* The creator's descriptors. Once open they stay those of the same process, whatever its number
 * means later, and a look at one of them is half as long as a whole path. */
static bool descriptors_open(struct map *inner)
{
    char path[64];
    struct stat info;

    snprintf(path, sizeof(path), "/proc/%d/fd", inner->pid);
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    if (fstatat(fd, inner->number, &info, 0) != 0 || info.st_ino != inner->inode) {
        close(fd);
        return false;
    }
    inner->descriptors = fd;
    return true;
}

/* A process that ends gives up its descriptors, as a whole, before any of them is closed. */
static bool map_alive(const struct env_map *map)
{
    struct map *inner = map->handle;
    struct stat info;

    if (inner->descriptors < 0) return descriptors_open(inner);
    return fstatat(inner->descriptors, inner->number, &info, AT_SYMLINK_NOFOLLOW) == 0;
}

enum status env_real_map_open(struct env *env, const char *name, size_t size, struct env_map *out)
{
    uint64_t host, inode;
    int pid, owner_fd;
    char path[64];
    struct stat info;

    (void)env;
    if (size == 0) return STATUS_INVALID;
    if (sscanf(name, "%16" SCNx64 ":%9d:%9d:%20" SCNu64, &host, &pid, &owner_fd, &inode) != 4)
        return STATUS_INVALID; /* the name came from a peer */
    if (host != host_identity()) return STATUS_NOT_FOUND;
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, owner_fd);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return STATUS_NOT_FOUND;
    if (fstat(fd, &info) != 0 || info.st_ino != inode || !S_ISREG(info.st_mode) ||
        (uint64_t)info.st_size < size) {
        close(fd);
        return STATUS_NOT_FOUND;
    }
    const enum status status = map_fd(fd, size, PROT_READ, false, out);
    if (status != STATUS_OK) return status;
    struct map *inner = out->handle;
    inner->handle.alive = map_alive;
    inner->inode = info.st_ino;
    inner->pid = pid;
    inner->seen = env_real_seen_new(out->data, size); /* without it nothing is mapped ahead */
    snprintf(inner->number, sizeof(inner->number), "%d", owner_fd);
    return STATUS_OK;
}

void env_real_memory_name(struct env *env, char name[ENV_SHARE_NAME_SIZE])
{
    (void)env;
    snprintf(name, ENV_SHARE_NAME_SIZE, "vm:%016" PRIx64 ":%d", host_identity(), (int)getpid());
}

enum status env_real_memory_open(struct env *env, const char *name, struct env_memory *out)
{
    uint64_t host;
    int pid;

    (void)env;
    if (sscanf(name, "vm:%16" SCNx64 ":%9d", &host, &pid) != 2 || pid <= 0) return STATUS_INVALID;
    if (host != host_identity()) return STATUS_NOT_FOUND;
    out->process = (uint64_t)pid;
    return STATUS_OK;
}

enum status env_real_memory_readv(struct env *env, const struct env_memory *memory,
                                  const struct env_memory_part *parts, uint32_t count)
{
    struct iovec here[ENV_MEMORY_PARTS_MAX], there[ENV_MEMORY_PARTS_MAX];
    size_t size = 0;

    (void)env;
    for (uint32_t i = 0; i < count; i++) {
        const struct env_memory_part *part = &parts[i];
        here[i] = (struct iovec){ .iov_base = part->to, .iov_len = part->len };
        there[i] =
            (struct iovec){ .iov_base = (void *)(uintptr_t)part->from, .iov_len = part->len };
        size += part->len;
    }
    const ssize_t got = process_vm_readv((pid_t)memory->process, here, count, there, count, 0);
    if (got == (ssize_t)size) return STATUS_OK;
    return got < 0 && (errno == EPERM || errno == ENOSYS) ? STATUS_DENIED : STATUS_NOT_FOUND;
}
