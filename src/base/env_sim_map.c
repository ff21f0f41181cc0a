/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_sim_map.c - shared memory of a simulated host, and files as memory.
 *
 * Memory is a memfd mapped twice, for writing and for reading only, so that an opener that writes
 * faults here as it would in the real world. It is counted: the creator and each opener hold one
 * reference. The name is found while the creator lives and has it mapped, as with a real descriptor
 * under /proc. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_sim_int.h"
#include "base/list.h"

struct sim_share {
    char name[ENV_SHARE_NAME_SIZE];
    void *data;      /* the creator's */
    void *read_only; /* the openers' */
    size_t size;
    uint32_t refs;
    bool found; /* under its name */
    const struct sim_process *creator;
    struct sim_share *prev, *next; /* of the host */
    struct sim_host *host;
};

struct map {
    struct env_map_handle handle;
    struct sim_share *share;
    bool creator;
};

static void share_free(struct sim_share *share)
{
    int result = munmap(share->data, share->size);
    ASSERT(result == 0);
    result = munmap(share->read_only, share->size);
    ASSERT(result == 0);
    LIST_REMOVE(share->host->shares, share);
    free(share);
}

static void map_close(struct env_map *map)
{
    struct map *inner = map->handle;
    struct sim_share *share = inner->share;

    if (inner->creator) share->found = false;
    ASSERT(share->refs > 0);
    if (--share->refs == 0) share_free(share);
    free(inner);
}

static bool map_alive(const struct env_map *map)
{
    const struct map *inner = map->handle;
    return inner->share->found;
}

static void map_fill(struct env_map *out, struct sim_share *share, bool creator)
{
    struct map *inner = env_sim_alloc(sizeof(*inner));

    inner->handle.close = map_close;
    inner->handle.alive = map_alive;
    inner->share = share;
    inner->creator = creator;
    share->refs++;
    void *data = creator ? share->data : share->read_only;
    *out = (struct env_map){ .data = data, .size = share->size, .handle = inner };
}

/* NULL without memory. */
static struct sim_share *share_new(struct sim_process *process, size_t size)
{
    const int flags = MAP_SHARED | MAP_NORESERVE;
    struct sim_host *host = process->host;

    const int fd = memfd_create("yolk-sim", MFD_CLOEXEC);
    if (fd < 0) return NULL;
    if (ftruncate(fd, (off_t)size) != 0) {
        close(fd);
        return NULL;
    }
    void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    void *read_only = mmap(NULL, size, PROT_READ, flags, fd, 0);
    close(fd);
    if (data == MAP_FAILED || read_only == MAP_FAILED) {
        if (data != MAP_FAILED) munmap(data, size);
        if (read_only != MAP_FAILED) munmap(read_only, size);
        return NULL;
    }
    struct sim_share *share = env_sim_alloc(sizeof(*share));
    share->data = data;
    share->read_only = read_only;
    share->size = size;
    share->creator = process;
    share->host = host;
    LIST_PUSH(host->shares, share);
    return share;
}

enum status env_sim_map_file(struct env *env, const char *path, struct env_map *out,
                             struct errmsg *err)
{
    struct env_file *file;
    uint64_t size = 0;
    size_t read = 0;

    enum status status = env_sim_file_open(env, path, ENV_FILE_READ, &file, err);
    if (status != STATUS_OK) return status;
    status = env_sim_file_size(file, &size);
    if (status == STATUS_OK && size == 0)
        status = errmsg_set(err, STATUS_INVALID, "%s: empty, or not a regular file", path);
    if (status != STATUS_OK) goto close_file;
    struct sim_share *share = share_new(sim_process_of(env), (size_t)size);
    if (share == NULL) {
        status = errmsg_set(err, STATUS_NO_MEMORY, "%s: cannot be mapped", path);
        goto close_file;
    }
    status = env_sim_file_pread(file, share->data, (size_t)size, 0, &read);
    if (status == STATUS_OK)
        map_fill(out, share, false); /* read-only, and never found by a name */
    else
        share_free(share);
close_file:
    env_sim_file_close(file);
    return status;
}

enum status env_sim_map_create(struct env *env, size_t size, struct env_map *out,
                               char name[ENV_SHARE_NAME_SIZE], struct errmsg *err)
{
    struct sim_process *process = sim_process_of(env);

    if (!process->alive) return errmsg_set(err, STATUS_UNAVAILABLE, "the process is dead");
    struct sim_share *share = share_new(process, size);
    if (share == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "%zu bytes of shared memory", size);
    snprintf(share->name, sizeof(share->name), "sim:%s:%llu", process->host->name,
             (unsigned long long)process->sim->share_next++);
    snprintf(name, ENV_SHARE_NAME_SIZE, "%s", share->name);
    share->found = true;
    map_fill(out, share, true);
    return STATUS_OK;
}

enum status env_sim_map_open(struct env *env, const char *name, size_t size, struct env_map *out)
{
    struct sim_process *process = sim_process_of(env);

    if (!process->alive) return STATUS_UNAVAILABLE;
    if (size == 0 || strncmp(name, "sim:", 4) != 0) return STATUS_INVALID;
    for (struct sim_share *share = process->host->shares; share != NULL; share = share->next) {
        if (!share->found || strcmp(share->name, name) != 0 || share->size < size) continue;
        map_fill(out, share, false);
        out->size = size;
        return STATUS_OK;
    }
    return STATUS_NOT_FOUND;
}

void env_sim_maps_crash(struct sim_process *process)
{
    for (struct sim_share *share = process->host->shares; share != NULL; share = share->next) {
        if (share->creator == process) share->found = false;
    }
}

void env_sim_maps_free(struct env_sim *sim)
{
    for (struct sim_host *host = sim->hosts; host != NULL; host = host->next) {
        while (host->shares != NULL) {
            share_free(host->shares);
        }
    }
}

/* All processes live in one, so the memory of another is ours to read as long as that one lives. */
void env_sim_memory_name(struct env *env, char name[ENV_SHARE_NAME_SIZE])
{
    const struct sim_process *process = sim_process_of(env);
    snprintf(name, ENV_SHARE_NAME_SIZE, "vm:%s:%u", process->host->name, process->index);
}

static struct sim_process *process_at(const struct sim_process *from, uint64_t index)
{
    for (struct sim_process *other = from->sim->processes; other != NULL; other = other->next) {
        if (other->index == index && other->host == from->host && other->alive) return other;
    }
    return NULL;
}

enum status env_sim_memory_open(struct env *env, const char *name, struct env_memory *out)
{
    const char *colon = strrchr(name, ':');

    if (strncmp(name, "vm:", 3) != 0 || colon == name + 2) return STATUS_INVALID;
    out->process = strtoull(colon + 1, NULL, 10);
    return process_at(sim_process_of(env), out->process) != NULL ? STATUS_OK : STATUS_NOT_FOUND;
}

enum status env_sim_memory_readv(struct env *env, const struct env_memory *memory,
                                 const struct env_memory_part *parts, uint32_t count)
{
    const struct sim_process *process = sim_process_of(env);

    if (!process->alive || process_at(process, memory->process) == NULL) return STATUS_NOT_FOUND;
    for (uint32_t i = 0; i < count; i++)
        memcpy(parts[i].to, (const void *)(uintptr_t)parts[i].from, parts[i].len);
    return STATUS_OK;
}
