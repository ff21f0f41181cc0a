/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_sim_file.c - the disk of a simulated host.
 *
 * A file is an inode with two faces: `data`, what every process reads, and `synced`, what was there
 * at the last sync, with a journal of the writes since. When the power goes, each write of the
 * journal, in order, is kept, lost, or torn (a part of it is kept), and the result is the file. A
 * name is durable once its file was synced or it was renamed to (the real body syncs the directory
 * then); a name that is not may be lost with its file.
 *
 * An I/O of env_io_start() happens some time after it was asked for, in no order among others, all
 * at once; its callback runs in the process's next turn. One that is on its way when the process
 * dies has happened or not.
 *
 *   I1  `synced` and the journal exist only between a write and the next sync.
 *   I2  An inode is freed when no name and no open file needs it: links + opens is 0. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env_sim_int.h"
#include "base/list.h"

enum { FILE_SIZE_MAX = 1 << 30 };

struct bytes {
    uint8_t *data;
    size_t len, capacity;
};

struct write_record {
    uint64_t offset;
    bool truncation; /* to `offset` bytes */
    struct bytes bytes;
    struct write_record *next;
};

struct sim_inode {
    struct bytes data;
    struct bytes synced;
    bool dirty; /* `synced` and the journal are valid */
    bool name_durable;
    struct write_record *journal, *journal_last;
    uint32_t links, opens;
    uint64_t reserved;             /* bytes of disk taken, if more than data has */
    struct sim_process *locked_by; /* a lock of a dead process is none */
    struct sim_inode *prev, *next; /* of the world */
};

struct sim_entry {
    char *path;
    struct sim_inode *inode; /* NULL: a directory */
    struct sim_entry *next;
};

struct file {
    struct env_file base;
    struct sim_inode *inode;
    unsigned flags;
};

enum { IO_DELAY_MIN_NS = 20000, IO_DELAY_MAX_NS = 2000000 };

static struct file *file_of(struct env_file *base)
{
    return (struct file *)(void *)base; /* `base` is the first member */
}

/* ---- bytes ---- */

static void bytes_write(struct bytes *bytes, const void *data, size_t len, uint64_t offset)
{
    const size_t end = (size_t)offset + len;

    ASSERT(end <= FILE_SIZE_MAX);
    if (end > bytes->capacity) {
        const size_t capacity = end > 2 * bytes->capacity ? end : 2 * bytes->capacity;
        bytes->data = env_sim_realloc(bytes->data, capacity);
        bytes->capacity = capacity;
    }
    if (offset > bytes->len) memset(bytes->data + bytes->len, 0, (size_t)offset - bytes->len);
    if (len > 0) memcpy(bytes->data + offset, data, len);
    if (end > bytes->len) bytes->len = end;
}

static void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){ 0 };
}

/* ---- inodes ---- */

static void journal_free(struct sim_inode *inode)
{
    while (inode->journal != NULL) {
        struct write_record *record = inode->journal;
        inode->journal = record->next;
        bytes_free(&record->bytes);
        free(record);
    }
    inode->journal_last = NULL;
    bytes_free(&inode->synced);
    inode->dirty = false;
}

static void inode_free(struct env_sim *sim, struct sim_inode *inode)
{
    journal_free(inode);
    bytes_free(&inode->data);
    LIST_REMOVE(sim->inodes, inode);
    free(inode);
}

static void inode_maybe_free(struct env_sim *sim, struct sim_inode *inode)
{
    if (inode->links == 0 && inode->opens == 0) inode_free(sim, inode);
}

static struct write_record *journal_add(struct sim_inode *inode)
{
    struct write_record *record = env_sim_alloc(sizeof(*record));

    if (!inode->dirty) {
        bytes_write(&inode->synced, inode->data.data, inode->data.len, 0);
        inode->dirty = true;
    }
    if (inode->journal_last != NULL)
        inode->journal_last->next = record;
    else
        inode->journal = record;
    inode->journal_last = record;
    return record;
}

static void inode_write(struct sim_inode *inode, const void *data, size_t len, uint64_t offset)
{
    struct write_record *record = journal_add(inode);

    record->offset = offset;
    bytes_write(&record->bytes, data, len, 0);
    bytes_write(&inode->data, data, len, offset);
}

static void inode_truncate(struct sim_inode *inode, uint64_t size)
{
    struct write_record *record = journal_add(inode);

    record->truncation = true;
    record->offset = size;
    inode->data.len = (size_t)size;
    inode->reserved = 0;
}

static void replay_after_power_off(struct env_sim *sim, struct sim_inode *inode)
{
    if (!inode->dirty) return;
    struct bytes result = inode->synced;
    inode->synced = (struct bytes){ 0 };
    for (const struct write_record *record = inode->journal; record != NULL;
         record = record->next) {
        const uint64_t fate = rng_below(&sim->rng, 3); /* kept, lost, torn */
        size_t len = record->bytes.len;
        if (fate == 1) continue;
        if (fate == 2 && len > 0) len = (size_t)rng_below(&sim->rng, len);
        if (record->truncation)
            result.len = record->offset < result.len ? (size_t)record->offset : result.len;
        else
            bytes_write(&result, record->bytes.data, len, record->offset);
    }
    bytes_free(&inode->data);
    inode->data = result;
    journal_free(inode);
}

/* ---- names ---- */

static struct sim_entry **entry_at(struct sim_host *host, const char *path)
{
    struct sim_entry **at = &host->entries;

    while (*at != NULL && strcmp((*at)->path, path) != 0) {
        at = &(*at)->next;
    }
    return at;
}

static struct sim_entry *entry_add(struct sim_host *host, const char *path, struct sim_inode *inode)
{
    struct sim_entry *entry = env_sim_alloc(sizeof(*entry));
    const size_t size = strlen(path) + 1;

    entry->path = env_sim_alloc(size);
    memcpy(entry->path, path, size);
    entry->inode = inode;
    if (inode != NULL) inode->links++;
    entry->next = host->entries;
    host->entries = entry;
    return entry;
}

static void entry_remove(struct env_sim *sim, struct sim_entry **at)
{
    struct sim_entry *entry = *at;

    *at = entry->next;
    if (entry->inode != NULL) {
        entry->inode->links--;
        inode_maybe_free(sim, entry->inode);
    }
    free(entry->path);
    free(entry);
}

/* The root, the working directory and their first level are always there. */
static bool directory_exists(struct sim_host *host, const char *path, size_t len)
{
    char directory[ENV_PATH_MAX];

    if (len == 0 || len >= sizeof(directory)) return len == 0;
    memcpy(directory, path, len);
    directory[len] = '\0';
    if (strcmp(directory, "/tmp") == 0) return true;
    const struct sim_entry *entry = *entry_at(host, directory);
    return entry != NULL && entry->inode == NULL;
}

static bool parent_exists(struct sim_host *host, const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL || directory_exists(host, path, (size_t)(slash - path));
}

static uint64_t inode_used(const struct sim_inode *inode)
{
    return inode->data.len > inode->reserved ? inode->data.len : inode->reserved;
}

static uint64_t disk_used(const struct sim_host *host)
{
    uint64_t used = 0;
    for (const struct sim_entry *entry = host->entries; entry != NULL; entry = entry->next) {
        if (entry->inode != NULL) used += inode_used(entry->inode);
    }
    return used;
}

/* True if the file may become so large. */
static bool disk_has_room(const struct sim_process *process, const struct sim_inode *inode,
                          uint64_t size)
{
    const uint64_t size_max = process->sim->options.disk_size_max;
    const uint64_t used = inode_used(inode);

    if (size > FILE_SIZE_MAX) return false;
    return size <= used || size_max == 0 || disk_used(process->host) + (size - used) <= size_max;
}

/* ---- the operations ---- */

static enum status disk_check(struct env *env)
{
    struct sim_process *process = sim_process_of(env);

    if (!process->alive) return STATUS_UNAVAILABLE;
    if (env_sim_chance(process->sim, process->sim->options.disk_error_ppm)) return STATUS_IO;
    return STATUS_OK;
}

static struct sim_inode *inode_create(struct env_sim *sim)
{
    struct sim_inode *inode = env_sim_alloc(sizeof(*inode));

    LIST_PUSH(sim->inodes, inode);
    return inode;
}

enum status env_sim_file_open(struct env *env, const char *path, unsigned flags,
                              struct env_file **out, struct errmsg *err)
{
    struct sim_process *process = sim_process_of(env);
    struct sim_entry *entry = *entry_at(process->host, path);

    const enum status status = disk_check(env);
    if (status != STATUS_OK) return errmsg_set(err, status, "%s: %s", path, status_name(status));
    if (entry != NULL && entry->inode == NULL && (flags & ENV_FILE_WRITE) != 0)
        return errmsg_set(err, STATUS_IO, "%s: is a directory", path);
    if (entry == NULL) {
        if ((flags & ENV_FILE_CREATE) == 0 || !parent_exists(process->host, path))
            return errmsg_set(err, STATUS_NOT_FOUND, "%s: no such file", path);
        entry = entry_add(process->host, path, inode_create(process->sim));
    }
    if (entry->inode == NULL) return errmsg_set(err, STATUS_IO, "%s: is a directory", path);
    if ((flags & ENV_FILE_LOCK) != 0) {
        const struct sim_process *locked_by = entry->inode->locked_by;
        if (locked_by != NULL && locked_by->alive)
            return errmsg_set(err, STATUS_EXISTS, "%s: another process uses it", path);
        entry->inode->locked_by = process;
    }
    if ((flags & ENV_FILE_TRUNCATE) != 0 && entry->inode->data.len > 0)
        inode_truncate(entry->inode, 0);
    struct file *file = env_sim_alloc(sizeof(*file));
    file->base.env = env;
    file->inode = entry->inode;
    file->base.direct = (flags & ENV_FILE_DIRECT) != 0;
    file->flags = flags;
    entry->inode->opens++;
    *out = &file->base;
    return STATUS_OK;
}

enum status env_sim_file_pread(struct env_file *base, void *buf, size_t len, uint64_t offset,
                               size_t *n)
{
    struct file *file = file_of(base);
    struct env_sim *sim = sim_process_of(base->env)->sim;
    const struct bytes *data = &file->inode->data;

    const enum status status = disk_check(base->env);
    if (status != STATUS_OK) return status;
    if ((file->flags & ENV_FILE_READ) == 0) return STATUS_IO;
    const size_t there = offset < data->len ? data->len - (size_t)offset : 0;
    const size_t got = len < there ? len : there;
    if (got > 0) memcpy(buf, data->data + offset, got);
    if (got > 0 && env_sim_chance(sim, sim->options.disk_corrupt_ppm))
        ((uint8_t *)buf)[rng_below(&sim->rng, got)] ^= (uint8_t)(1U << rng_below(&sim->rng, 8));
    *n = got;
    return STATUS_OK;
}

/* A write that fails has written any part of it, from its beginning. */
static void write_fails(struct file *file, const void *buf, size_t len, uint64_t offset)
{
    struct sim_process *process = sim_process_of(file->base.env);

    if (len == 0 || offset > FILE_SIZE_MAX || len > FILE_SIZE_MAX) return;
    const size_t part = (size_t)rng_below(&process->sim->rng, len);
    if (part == 0 || !disk_has_room(process, file->inode, offset + part)) return;
    inode_write(file->inode, buf, part, offset);
}

enum status env_sim_file_pwrite(struct env_file *base, const void *buf, size_t len, uint64_t offset)
{
    struct file *file = file_of(base);

    const enum status status = disk_check(base->env);
    if ((file->flags & ENV_FILE_WRITE) == 0) return STATUS_IO;
    if (status == STATUS_IO) write_fails(file, buf, len, offset);
    if (status != STATUS_OK) return status;
    if (offset > FILE_SIZE_MAX || len > FILE_SIZE_MAX) return STATUS_FULL;
    if (!disk_has_room(sim_process_of(base->env), file->inode, offset + len)) return STATUS_FULL;
    inode_write(file->inode, buf, len, offset);
    return STATUS_OK;
}

enum status env_sim_file_sync(struct env_file *base)
{
    struct file *file = file_of(base);

    const enum status status = disk_check(base->env);
    if (status != STATUS_OK) return status;
    journal_free(file->inode);
    file->inode->name_durable = true;
    return STATUS_OK;
}

enum status env_sim_file_size(struct env_file *base, uint64_t *out)
{
    if (!sim_process_of(base->env)->alive) return STATUS_UNAVAILABLE;
    *out = file_of(base)->inode->data.len;
    return STATUS_OK;
}

enum status env_sim_file_truncate(struct env_file *base, uint64_t size)
{
    struct sim_inode *inode = file_of(base)->inode;

    const enum status status = disk_check(base->env);
    if (status != STATUS_OK) return status;
    if (size > inode->data.len) return STATUS_INVALID;
    inode_truncate(inode, size);
    return STATUS_OK;
}

/* ---- in bulk ---- */

static enum status io_read(struct env_io *io)
{
    for (int i = 0; i < io->parts_count; i++) {
        size_t n = 0;
        const enum status status = env_sim_file_pread(
            io->file, io->parts[i].iov_base, io->parts[i].iov_len, io->offset + io->done, &n);
        if (status != STATUS_OK) return status;
        io->done += n;
        if (n < io->parts[i].iov_len) break;
    }
    return STATUS_OK;
}

/* One write, though it has parts: torn or lost as one. */
static enum status io_write(struct env_io *io)
{
    struct bytes all = { 0 };

    for (int i = 0; i < io->parts_count; i++)
        bytes_write(&all, io->parts[i].iov_base, io->parts[i].iov_len, all.len);
    const enum status status = env_sim_file_pwrite(io->file, all.data, all.len, io->offset);
    if (status == STATUS_OK) io->done = all.len;
    bytes_free(&all);
    return status;
}

static enum status io_reserve(struct env_io *io)
{
    struct sim_inode *inode = file_of(io->file)->inode;

    const enum status status = disk_check(io->file->env);
    if (status != STATUS_OK) return status;
    if (!disk_has_room(sim_process_of(io->file->env), inode, io->offset)) return STATUS_FULL;
    if (io->offset > inode->reserved) inode->reserved = io->offset;
    return STATUS_OK;
}

/* A direct file takes only what is aligned, and none at all on some disks. */
static bool io_refused(const struct env_io *io)
{
    const struct env_sim *sim = sim_process_of(io->file->env)->sim;
    uint64_t all = io->offset;

    if (!io->file->direct || io->parts_count == 0) return false;
    for (int i = 0; i < io->parts_count; i++)
        all |= (uintptr_t)io->parts[i].iov_base | io->parts[i].iov_len;
    return all % ENV_DIRECT_ALIGN != 0 || sim->options.disk_no_direct;
}

static enum status io_perform(struct env_io *io)
{
    if (io_refused(io)) return STATUS_UNSUPPORTED;
    switch (io->op) {
    case ENV_IO_READ: return io_read(io);
    case ENV_IO_WRITE: return io_write(io);
    case ENV_IO_SYNC: return env_sim_file_sync(io->file);
    case ENV_IO_RESERVE: return io_reserve(io);
    }
    ASSERT(false);
    return STATUS_IO;
}

static void on_io_due(void *ctx)
{
    struct env_io *io = ctx;
    struct sim_process *process = sim_process_of(io->file->env);

    ASSERT(io->phase == ENV_IO_ACTIVE);
    io->status = io_perform(io);
    env_ios_remove(&process->ios, io);
    env_ios_append(&process->ios_done, io);
    io->phase = ENV_IO_DONE;
    env_sim_wake(process, process->sim->now_ns);
}

enum status env_sim_io_start(struct env_io *io)
{
    struct sim_process *process = sim_process_of(io->file->env);
    struct env_sim *sim = process->sim;

    if (!process->alive) return STATUS_UNAVAILABLE;
    if (process->ios.count + process->ios_done.count >= ENV_IOS_MAX) return STATUS_FULL;
    const uint64_t delay =
        IO_DELAY_MIN_NS + rng_below(&sim->rng, IO_DELAY_MAX_NS - IO_DELAY_MIN_NS);
    io->phase = ENV_IO_ACTIVE;
    io->file->ios++;
    env_ios_append(&process->ios, io);
    env_timer_init(&io->timer, on_io_due, io);
    env_timers_set(&sim->events, &io->timer, sim->now_ns + delay, sim->now_ns);
    return STATUS_OK;
}

void env_sim_ios_turn(struct sim_process *process)
{
    for (uint32_t left = process->ios_done.count; left > 0 && process->alive; left--) {
        struct env_io *io = process->ios_done.head;
        if (io == NULL) return; /* a callback closed the file of the rest */
        env_ios_remove(&process->ios_done, io);
        io->phase = ENV_IO_IDLE;
        io->file->ios--;
        process->callback_count++;
        io->fn(io->ctx, io->status, io->done);
    }
}

static void ios_forget(struct sim_process *process, struct env_ios *list,
                       const struct env_file *file)
{
    struct env_io *next;
    for (struct env_io *io = list->head; io != NULL; io = next) {
        next = io->next;
        if (file != NULL && io->file != file) continue;
        if (env_timer_armed(&io->timer)) env_timers_cancel(&process->sim->events, &io->timer);
        env_ios_remove(list, io);
        io->phase = ENV_IO_IDLE;
        io->file->ios--;
    }
}

/* The caller waits: what is on its way happens now, and nobody is told. */
static void ios_settle(struct sim_process *process, const struct env_file *file)
{
    for (struct env_io *io = process->ios.head; io != NULL; io = io->next) {
        if (io->file == file) io->status = io_perform(io);
    }
    ios_forget(process, &process->ios, file);
    ios_forget(process, &process->ios_done, file);
}

/* Called while the process still lives: the disk finishes some of what it was told. */
void env_sim_ios_crash(struct sim_process *process)
{
    struct env_sim *sim = process->sim;

    for (struct env_io *io = process->ios.head; io != NULL; io = io->next) {
        if (io->op != ENV_IO_READ && rng_below(&sim->rng, 2) == 0) io->status = io_perform(io);
    }
    ios_forget(process, &process->ios, NULL);
    ios_forget(process, &process->ios_done, NULL);
}

void env_sim_file_close(struct env_file *base)
{
    struct file *file = file_of(base);
    struct sim_process *process = sim_process_of(base->env);

    ASSERT(file->inode->opens > 0);
    ios_settle(process, base);
    if ((file->flags & ENV_FILE_LOCK) != 0 && file->inode->locked_by == process) {
        file->inode->locked_by = NULL;
    }
    file->inode->opens--;
    inode_maybe_free(sim_process_of(base->env)->sim, file->inode);
    free(file);
}

enum status env_sim_file_remove(struct env *env, const char *path)
{
    struct sim_process *process = sim_process_of(env);
    struct sim_entry **at = entry_at(process->host, path);

    const enum status status = disk_check(env);
    if (status != STATUS_OK) return status;
    if (*at == NULL) return STATUS_NOT_FOUND;
    if ((*at)->inode == NULL) return STATUS_IO;
    entry_remove(process->sim, at);
    return STATUS_OK;
}

enum status env_sim_file_rename(struct env *env, const char *from, const char *to)
{
    struct sim_process *process = sim_process_of(env);
    struct sim_entry **at = entry_at(process->host, from);

    const enum status status = disk_check(env);
    if (status != STATUS_OK) return status;
    if (*at == NULL || (*at)->inode == NULL || !parent_exists(process->host, to))
        return STATUS_NOT_FOUND;
    struct sim_inode *inode = (*at)->inode;
    inode->opens++; /* held while it has no name */
    entry_remove(process->sim, at);
    struct sim_entry **old = entry_at(process->host, to);
    if (*old != NULL) entry_remove(process->sim, old);
    (void)entry_add(process->host, to, inode);
    inode->opens--;
    inode->name_durable = true;
    return STATUS_OK;
}

enum status env_sim_make_dirs(struct env *env, const char *path, struct errmsg *err)
{
    struct sim_process *process = sim_process_of(env);
    char partial[ENV_PATH_MAX];
    const size_t len = strlen(path);

    const enum status status = disk_check(env);
    if (status != STATUS_OK) return errmsg_set(err, status, "%s: %s", path, status_name(status));
    if (len == 0 || len >= sizeof(partial))
        return errmsg_set(err, STATUS_INVALID, "a path of %zu bytes", len);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        if (directory_exists(process->host, path, i)) continue;
        memcpy(partial, path, i);
        partial[i] = '\0';
        if (*entry_at(process->host, partial) != NULL)
            return errmsg_set(err, STATUS_EXISTS, "%s: is a file", partial);
        (void)entry_add(process->host, partial, NULL);
    }
    return STATUS_OK;
}

enum status env_sim_dir_list(struct env *env, const char *path,
                             void (*fn)(void *ctx, const char *name), void *ctx, struct errmsg *err)
{
    struct sim_host *host = sim_process_of(env)->host;
    const size_t len = strlen(path);

    const enum status status = disk_check(env);
    if (status != STATUS_OK) return errmsg_set(err, status, "%s: %s", path, status_name(status));
    if (!directory_exists(host, path, len))
        return errmsg_set(err, STATUS_NOT_FOUND, "%s: no such directory", path);
    for (const struct sim_entry *entry = host->entries; entry != NULL; entry = entry->next) {
        if (strncmp(entry->path, path, len) != 0 || entry->path[len] != '/') continue;
        const char *name = entry->path + len + 1;
        if (name[0] != '\0' && strchr(name, '/') == NULL) fn(ctx, name);
    }
    return STATUS_OK;
}

/* Simulated files have no owners. */
enum status env_sim_file_private(struct env *env, const char *path, bool *out)
{
    (void)env;
    (void)path;
    *out = true;
    return STATUS_OK;
}

enum status env_sim_disk_free(struct env *env, const char *path, uint64_t *out)
{
    const struct sim_process *process = sim_process_of(env);
    const uint64_t size_max = process->sim->options.disk_size_max;
    const uint64_t used = disk_used(process->host);

    (void)path;
    if (!process->alive) return STATUS_UNAVAILABLE;
    *out = size_max == 0 ? FILE_SIZE_MAX : used < size_max ? size_max - used : 0;
    return STATUS_OK;
}

bool env_sim_disk_damage(struct env_sim *sim, const char *name)
{
    const struct sim_host *host = env_sim_host(sim, name);
    uint64_t files = 0;

    ASSERT(host != NULL);
    for (const struct sim_entry *entry = host->entries; entry != NULL; entry = entry->next)
        files += entry->inode != NULL && entry->inode->data.len > 0;
    if (files == 0) return false;
    uint64_t nth = rng_below(&sim->rng, files);
    for (const struct sim_entry *entry = host->entries; entry != NULL; entry = entry->next) {
        if (entry->inode == NULL || entry->inode->data.len == 0 || nth-- > 0) continue;
        struct bytes *data = &entry->inode->data;
        data->data[rng_below(&sim->rng, data->len)] ^= (uint8_t)(1U << rng_below(&sim->rng, 8));
        return true;
    }
    return false;
}

/* ---- the power goes, the world ends ---- */

void env_sim_disk_power_off(struct env_sim *sim, struct sim_host *host)
{
    struct sim_entry **at = &host->entries;

    while (*at != NULL) {
        struct sim_inode *inode = (*at)->inode;
        if (inode != NULL && !inode->name_durable && rng_below(&sim->rng, 2) == 0) {
            entry_remove(sim, at);
            continue;
        }
        if (inode != NULL) {
            replay_after_power_off(sim, inode);
            inode->name_durable = true; /* what is found on the disk is on the disk */
        }
        at = &(*at)->next;
    }
}

void env_sim_disks_end(struct env_sim *sim)
{
    for (struct sim_host *host = sim->hosts; host != NULL; host = host->next) {
        while (host->entries != NULL) {
            struct sim_entry *entry = host->entries;
            host->entries = entry->next;
            free(entry->path);
            free(entry);
        }
    }
    while (sim->inodes != NULL) {
        inode_free(sim, sim->inodes);
    }
}
