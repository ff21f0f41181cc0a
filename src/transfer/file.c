/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/file.c - segments that are files of this host.
 *
 * A file segment is one file or several, end to end; an address in it is an offset. Its tasks wait
 * in the queues of one peer without lanes, transfer->disk, by class, whatever file they are for,
 * because it is one kernel that serves them. Slices are cut when there is room for one more in the
 * kernel, so an urgent task overtakes all that has not started:
 *
 *     ready[class] --cut--> slice --env_io_start()--> in the kernel --on_io()--> done, or why not
 *                             ^                            |
 *                   retry[class] <--no room in the env; or past the cache after all not possible
 *
 * Memory of a device goes through cuda.c's bounces: that cuts the slices, as file_piece_length()
 * says, and gives them to retry[] when they may go; what was read it has back (cuda_land()).
 *
 * Each file is open twice. What is aligned in memory and in the file goes past the page cache
 * (O_DIRECT); the rest through it. A long range that begins and ends anywhere, but at the same
 * place in its page in memory and in the file, is cut so that all but its ends is aligned. The
 * kernel keeps both ways coherent for ranges that do not overlap; tasks that do have no order
 * anyway.
 *
 * Invariants
 *   I1  A slice in the kernel is counted in its task's slices_out until on_io(), so a task that was
 *       cancelled or is late becomes final when the kernel has let go of its memory, not before.
 *   I2  A task completes only if every slice moved all of its bytes: less, at the end of a file
 *       that has become shorter, is STATUS_IO.
 *   I3  A file is closed when its handle, tasks and syncs are gone; env_file_close() waits for I/O,
 *       so what is destroyed early lands nowhere afterwards, either.
 *   I4  Nothing here acts on what a peer says: files are opened by yolk_transfer_open_files() only.
 *
 * Limits: FILE_IOS_MAX slices in the kernel, of which urgent classes find some free (ios_max);
 * FILE_SYNCS_MAX syncs; YOLK_TRANSFER_FILES_MAX segments. No task is refused for lack of room: it
 * waits in its batch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "transfer/transfer_int.h"

enum {
    FILE_IOS_MAX = 64,
    FILE_SYNCS_MAX = 64,
    DIRECT_SIZE_MIN = 64 << 10, /* shorter ranges are not cut up for the sake of alignment */
    PAGE = ENV_DIRECT_ALIGN,
};

/* Slices in the kernel: of a class and those below it, and, while a more urgent one has been at
 * work in the last URGENT_NS, of the class itself: what is there cannot be overtaken. */
static const uint32_t ios_max[WIRE_CLASSES] = { FILE_IOS_MAX, 48, 32 };
static const uint32_t ios_max_beside[WIRE_CLASSES] = { FILE_IOS_MAX, 16, 4 };
#define URGENT_NS (100 * ENV_NS_PER_MS)
#define AGAIN_NS ENV_NS_PER_MS /* when others have all the I/Os of the env */

struct file_part {
    struct env_file *cached;
    struct env_file *direct; /* NULL: the file system has no such way */
    bool no_direct;          /* it has, but the device refused: no longer used, not yet closed */
    uint64_t at;             /* in the segment */
    uint64_t offset;         /* in the file */
    uint64_t length;
};

struct file_segment {
    struct file_segment *next;
    char name[YOLK_TRANSFER_NAME_SIZE];
    unsigned flags;
    uint32_t refs; /* the handle, syncs, and tasks that are not final */
    uint64_t length;
    uint32_t part_count;
    struct file_part parts[YOLK_TRANSFER_FILE_PARTS_MAX];
};

struct file_io {
    struct file_io *next; /* in the free list */
    struct env_io io;
    struct yolk_transfer *transfer;
    struct slice *slice;
    struct file_part *part;
    bool direct;
};

struct file_sync {
    struct file_sync *next; /* free, or waiting for an I/O of the env */
    struct env_io io;
    struct yolk_transfer *transfer;
    struct file_segment *file; /* counted */
    uint32_t part;             /* the one that is synced now */
    uint64_t start_ns;
    yolk_transfer_told_fn on_told;
    void *ctx;
};

struct files {
    struct file_segment *all;
    uint32_t count;
    struct file_io ios[FILE_IOS_MAX];
    struct file_io *ios_free;
    uint32_t busy[WIRE_CLASSES];    /* in the kernel */
    uint64_t used_ns[WIRE_CLASSES]; /* when one of that class last started; 0: never */
    struct file_sync syncs[FILE_SYNCS_MAX];
    struct file_sync *syncs_free, *syncs_waiting;
    struct env_timer again;
};

static bool may_be_direct(const struct file_part *part)
{
    return part->direct != NULL && !part->no_direct;
}

/* ---- into the kernel ---- */

static struct file_part *part_of(struct file_segment *file, uint64_t position)
{
    uint32_t i = 0;

    while (position - file->parts[i].at >= file->parts[i].length)
        i++;
    ASSERT(i < file->part_count);
    return &file->parts[i];
}

static uint64_t offset_of(const struct file_part *part, uint64_t position)
{
    return position - part->at + part->offset;
}

static bool has_room(const struct yolk_transfer *transfer, int class)
{
    const struct files *files = transfer->files;
    const uint64_t now = env_now_ns(transfer->env);
    uint32_t below = 0;

    if (files->ios_free == NULL) return false;
    for (int other = class; other < WIRE_CLASSES; other++)
        below += files->busy[other];
    if (below >= ios_max[class]) return false;
    for (int above = 0; above < class; above++) {
        const uint64_t used_ns = files->used_ns[above];
        if (used_ns == 0 || now - used_ns >= URGENT_NS) continue;
        if (files->busy[class] >= ios_max_beside[class]) return false;
    }
    return true;
}

uint64_t file_piece_length(const struct yolk_transfer *transfer, const struct task *task)
{
    const uint64_t position = task->req.remote + task->offset;
    const struct file_part *part = part_of(task->file, position);
    const uint64_t in_file = offset_of(part, position);
    /* A bounce begins at a page, so from the first page of the file on all of it is aligned. */
    const uint64_t local = task->staged ? in_file : (uintptr_t)task->req.local + task->offset;
    const uint64_t size = transfer->slice_size & ~(uint64_t)(PAGE - 1);
    uint64_t left = task->req.length - task->offset;

    if (left > part->at + part->length - position) left = part->at + part->length - position;
    const uint64_t head = -in_file & (PAGE - 1);
    const bool whole = head == 0 && left % PAGE == 0;
    if (may_be_direct(part) && (local - in_file) % PAGE == 0 &&
        (whole || task->req.length >= DIRECT_SIZE_MIN)) {
        if (head > 0) return head < left ? head : left;
        if (left >= PAGE) left &= ~(uint64_t)(PAGE - 1);
    }
    return left < size ? left : size;
}

static struct slice *cut(struct yolk_transfer *transfer, struct task *task)
{
    struct slice *slice = slice_new(transfer);

    if (slice == NULL) return NULL;
    slice->task = task;
    slice->class = (uint8_t)task->req.class;
    slice->offset = task->offset;
    slice->length = file_piece_length(transfer, task);
    task->offset += slice->length;
    if (task->offset == task->req.length) {
        task_unqueue(&transfer->disk.ready[task->req.class], task);
    }
    return slice;
}

static void on_io(void *ctx, enum status status, size_t n);

static void io_fill(struct file_io *file_io, struct slice *slice)
{
    struct task *task = slice->task;
    const uint64_t position = task->req.remote + slice->offset;
    uint8_t *local = slice->bounce != NULL ? cuda_bounce_memory(slice->bounce)
                                           : (uint8_t *)task->req.local + slice->offset;
    struct file_part *part = part_of(task->file, position);
    const uint64_t offset = offset_of(part, position);

    ASSERT(position + slice->length <= part->at + part->length);
    file_io->slice = slice;
    file_io->part = part;
    file_io->direct =
        may_be_direct(part) && ((uintptr_t)local | offset | slice->length) % PAGE == 0;
    file_io->io =
        (struct env_io){ .op = task->req.opcode == YOLK_TRANSFER_READ ? ENV_IO_READ : ENV_IO_WRITE,
                         .file = file_io->direct ? part->direct : part->cached,
                         .parts = { { local, (size_t)slice->length } },
                         .parts_count = 1,
                         .offset = offset,
                         .fn = on_io,
                         .ctx = file_io };
}

/* False if the env has no room: then the slice waits. */
static bool start(struct yolk_transfer *transfer, struct slice *slice)
{
    struct files *files = transfer->files;
    struct file_io *file_io = files->ios_free;
    struct task *task = slice->task;
    const uint64_t now = transfer_clock(transfer);

    io_fill(file_io, slice);
    if (env_io_start(&file_io->io) != STATUS_OK) {
        task->slices_waiting++;
        slice_push(&transfer->disk.retry[slice->class], slice);
        env_timer_set(transfer->env, &files->again, now + AGAIN_NS);
        return false;
    }
    files->ios_free = file_io->next;
    files->busy[slice->class]++;
    files->used_ns[slice->class] = now;
    slice->sent_ns = now;
    rail_sent(&transfer->disk.rails[0], slice->length, now);
    task->slices_out++;
    task_started(transfer, task, YOLK_TRANSFER_PATH_FILE);
    return true;
}

static bool schedule_one(struct yolk_transfer *transfer, int class)
{
    struct peer *disk = &transfer->disk;
    struct slice *slice = disk->retry[class].head;

    if (slice == NULL && disk->ready[class].head == NULL) return false;
    if (!has_room(transfer, class)) return false;
    if (slice != NULL) {
        slice_pop(&disk->retry[class]);
        slice->task->slices_waiting--;
        return start(transfer, slice);
    }
    slice = cut(transfer, disk->ready[class].head);
    if (slice != NULL) return start(transfer, slice);
    env_timer_set(transfer->env, &transfer->files->again, env_now_ns(transfer->env) + AGAIN_NS);
    return false;
}

void file_schedule(struct yolk_transfer *transfer)
{
    if (transfer->files == NULL) return;
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        while (schedule_one(transfer, class)) {
        }
    }
}

static void sync_start(struct file_sync *sync);

static void on_again(void *ctx)
{
    struct yolk_transfer *transfer = ctx;
    struct file_sync *waiting = transfer->files->syncs_waiting;

    transfer->files->syncs_waiting = NULL;
    while (waiting != NULL) {
        struct file_sync *sync = waiting;
        waiting = sync->next;
        sync_start(sync);
    }
    file_schedule(transfer);
}

/* ---- out of the kernel ---- */

static void slice_failed(struct yolk_transfer *transfer, struct slice *slice, enum status status)
{
    struct task *task = slice->task;

    LOG_WARN("transfer", "file_failed", "file=%s op=%s offset=%llu len=%llu reason=%s",
             task->file->name, task->req.opcode == YOLK_TRANSFER_READ ? "read" : "write",
             (unsigned long long)(task->req.remote + slice->offset),
             (unsigned long long)slice->length, status_name(status));
    ASSERT(task->slices_out > 0);
    task->slices_out--;
    slice_free(transfer, slice);
    task_end(transfer, task, status);
    task_settle(transfer, task);
}

/* The device wants another alignment than ours, which shows only now: from here on the cache. */
static void direct_refused(struct file_io *file_io)
{
    struct file_part *part = file_io->part;

    LOG_WARN("transfer", "file_not_direct", "file=%s instead=cached",
             file_io->slice->task->file->name);
    part->no_direct = true;
    task_slice_lost(file_io->transfer, file_io->slice, STATUS_UNSUPPORTED, false);
}

/* All of its bytes have moved: into the bounce, if they are for a device, and from there on. */
static void slice_moved(struct yolk_transfer *transfer, struct slice *slice, bool direct)
{
    struct task *task = slice->task;

    if (direct) task->direct_bytes += slice->length;
    if (slice->bounce == NULL || task->req.opcode == YOLK_TRANSFER_WRITE) {
        task_slice_done(transfer, slice);
    } else if (task->ending != STATUS_OK) {
        task_slice_lost(transfer, slice, task->ending, false);
    } else {
        cuda_land(transfer, slice);
    }
}

static void on_io(void *ctx, enum status status, size_t n)
{
    struct file_io *file_io = ctx;
    struct yolk_transfer *transfer = file_io->transfer;
    struct files *files = transfer->files;
    struct slice *slice = file_io->slice;
    struct rail *rail = &transfer->disk.rails[0];
    const uint64_t now = transfer_clock(transfer);

    ASSERT(n <= slice->length && files->busy[slice->class] > 0);
    files->busy[slice->class]--;
    file_io->next = files->ios_free;
    files->ios_free = file_io;
    peer_kick(&transfer->disk);
    if (status == STATUS_OK && n < slice->length) status = STATUS_IO; /* I2 */
    if (status == STATUS_OK) {
        rail_done(rail, slice->length, now - slice->sent_ns, true, now);
        slice_moved(transfer, slice, file_io->direct);
        return;
    }
    rail_taken(rail, slice->length);
    if (status == STATUS_UNSUPPORTED && file_io->direct) {
        direct_refused(file_io);
    } else {
        slice_failed(transfer, slice, status);
    }
}

/* ---- syncs: one file of the segment after the other ---- */

static void sync_end(struct file_sync *sync, enum status status)
{
    struct yolk_transfer *transfer = sync->transfer;
    const yolk_transfer_told_fn on_told = sync->on_told;
    const uint64_t took_us = (env_now_ns(transfer->env) - sync->start_ns) / ENV_NS_PER_US;
    void *told_ctx = sync->ctx;

    if (status != STATUS_OK) {
        LOG_WARN("transfer", "file_sync_failed", "file=%s reason=%s", sync->file->name,
                 status_name(status));
    }
    file_unref(transfer, sync->file);
    sync->next = transfer->files->syncs_free;
    transfer->files->syncs_free = sync;
    transfer->in_callback = true;
    on_told(told_ctx, status, took_us);
    transfer->in_callback = false;
    transfer_kick(transfer);
}

static void on_synced(void *ctx, enum status status, size_t n)
{
    struct file_sync *sync = ctx;

    (void)n;
    if (status == STATUS_OK && ++sync->part < sync->file->part_count) {
        sync_start(sync);
    } else {
        sync_end(sync, status);
    }
}

static void sync_start(struct file_sync *sync)
{
    struct yolk_transfer *transfer = sync->transfer;
    struct files *files = transfer->files;

    sync->io = (struct env_io){ .op = ENV_IO_SYNC,
                                .file = sync->file->parts[sync->part].cached,
                                .fn = on_synced,
                                .ctx = sync };
    if (env_io_start(&sync->io) == STATUS_OK) return;
    sync->next = files->syncs_waiting;
    files->syncs_waiting = sync;
    env_timer_set(transfer->env, &files->again, env_now_ns(transfer->env) + AGAIN_NS);
}

enum status yolk_transfer_sync(struct yolk_transfer *transfer, struct yolk_transfer_segment handle,
                               yolk_transfer_told_fn on_told, void *ctx)
{
    const struct segment *segment = transfer_segment(transfer, handle);

    if (segment == NULL || on_told == NULL) return STATUS_INVALID;
    if (segment->file == NULL) return STATUS_UNSUPPORTED;
    struct file_sync *sync = transfer->files->syncs_free;
    if (sync == NULL) return STATUS_FULL;
    transfer->files->syncs_free = sync->next;
    sync->file = segment->file;
    sync->part = 0;
    sync->start_ns = env_now_ns(transfer->env);
    sync->on_told = on_told;
    sync->ctx = ctx;
    file_ref(sync->file);
    sync_start(sync);
    return STATUS_OK;
}

/* ---- what tasks need ---- */

enum status file_check(const struct yolk_transfer *transfer, const struct file_segment *file,
                       const struct task *task)
{
    const struct yolk_transfer_request *req = &task->req;

    if (req->epoch != 0 && req->epoch != transfer->epoch) return STATUS_STALE;
    if (req->term != 0 && req->term < transfer->term) return STATUS_STALE;
    if (task->generation != transfer->generation) return STATUS_STALE;
    if (req->remote > file->length || req->length > file->length - req->remote) {
        return STATUS_NOT_FOUND;
    }
    const bool writes = req->opcode == YOLK_TRANSFER_WRITE;
    return writes && (file->flags & YOLK_TRANSFER_FILE_WRITE) == 0 ? STATUS_DENIED : STATUS_OK;
}

uint64_t file_predict_us(const struct yolk_transfer *transfer, uint64_t length)
{
    const struct rail *rail = &transfer->disk.rails[0];

    if (!rail->measured) return 0;
    return (uint64_t)((double)(length + rail->inflight) * 1e6 / (double)rail->rate) +
           rail->latency_min_ns / ENV_NS_PER_US;
}

const char *file_name(const struct file_segment *file)
{
    return file->name;
}

/* ---- opening and closing ---- */

static void file_close(struct yolk_transfer *transfer, struct file_segment *file)
{
    struct file_segment **at = &transfer->files->all;

    while (*at != file)
        at = &(*at)->next;
    *at = file->next;
    transfer->files->count--;
    for (uint32_t i = 0; i < file->part_count; i++) {
        env_file_close(file->parts[i].direct);
        env_file_close(file->parts[i].cached);
    }
    free(file);
}

void file_ref(struct file_segment *file)
{
    file->refs++;
}

void file_unref(struct yolk_transfer *transfer, struct file_segment *file)
{
    ASSERT(file->refs > 0);
    if (--file->refs == 0) file_close(transfer, file);
}

void file_destroy_all(struct yolk_transfer *transfer)
{
    struct files *files = transfer->files;

    if (files == NULL) return;
    while (files->all != NULL)
        file_close(transfer, files->all);
    env_timer_cancel(transfer->env, &files->again);
    free(files);
    transfer->files = NULL;
}

static enum status files_start(struct yolk_transfer *transfer)
{
    if (transfer->files != NULL) return STATUS_OK;
    struct files *files = calloc(1, sizeof(*files));
    if (files == NULL) return STATUS_NO_MEMORY;
    for (int i = 0; i < FILE_IOS_MAX; i++) {
        files->ios[i].transfer = transfer;
        files->ios[i].next = files->ios_free;
        files->ios_free = &files->ios[i];
    }
    for (int i = 0; i < FILE_SYNCS_MAX; i++) {
        files->syncs[i].transfer = transfer;
        files->syncs[i].next = files->syncs_free;
        files->syncs_free = &files->syncs[i];
    }
    env_timer_init(&files->again, on_again, transfer);
    transfer->files = files;
    return STATUS_OK;
}

/* Long enough, or made so. */
static enum status part_fit(struct file_part *part, const struct yolk_transfer_file *is,
                            unsigned flags, struct errmsg *err)
{
    uint64_t size;
    enum status status = env_file_size(part->cached, &size);

    if (status != STATUS_OK) return errmsg_set(err, status, "%s: not a regular file", is->path);
    part->offset = is->offset;
    part->length = is->length;
    if (is->length == 0 && size > is->offset) part->length = size - is->offset;
    if (part->length == 0 || part->offset + part->length < part->offset) {
        return errmsg_set(err, STATUS_INVALID, "%s: no bytes from offset %llu on", is->path,
                          (unsigned long long)is->offset);
    }
    if (part->offset + part->length <= size) return STATUS_OK;
    if ((flags & YOLK_TRANSFER_FILE_CREATE) == 0) {
        return errmsg_set(err, STATUS_INVALID, "%s: has %llu bytes, too few", is->path,
                          (unsigned long long)size);
    }
    status = env_file_pwrite(part->cached, "", 1, part->offset + part->length - 1);
    return status == STATUS_OK ? STATUS_OK
                               : errmsg_set(err, status, "%s: cannot be made longer", is->path);
}

static enum status part_open(struct yolk_transfer *transfer, const struct yolk_transfer_file *is,
                             unsigned flags, struct file_part *part, struct errmsg *err)
{
    unsigned how = ENV_FILE_READ;

    if (is->path == NULL) return errmsg_set(err, STATUS_INVALID, "transfer: a file needs a path");
    if ((flags & YOLK_TRANSFER_FILE_WRITE) != 0) how |= ENV_FILE_WRITE;
    const unsigned create = (flags & YOLK_TRANSFER_FILE_CREATE) != 0 ? ENV_FILE_CREATE : 0;
    const unsigned lock = (flags & YOLK_TRANSFER_FILE_LOCK) != 0 ? ENV_FILE_LOCK : 0;
    enum status status =
        env_file_open(transfer->env, is->path, how | create | lock, &part->cached, err);
    if (status == STATUS_OK) status = part_fit(part, is, flags, err);
    if (status != STATUS_OK || (flags & YOLK_TRANSFER_FILE_CACHED) != 0) return status;
    status = env_file_open(transfer->env, is->path, how | ENV_FILE_DIRECT, &part->direct, err);
    if (status != STATUS_OK || env_file_direct(part->direct)) return status;
    LOG_INFO("transfer", "file_not_direct", "file=%s instead=cached", is->path);
    env_file_close(part->direct);
    part->direct = NULL;
    return STATUS_OK;
}

/* The end of a long path says more than its beginning. */
static void name_set(struct file_segment *file, const char *path, uint32_t count)
{
    char more[16] = "";
    const char *cut = "";

    if (count > 1) snprintf(more, sizeof(more), "+%u", count - 1);
    const size_t room = sizeof(file->name) - sizeof("file:...") - strlen(more);
    if (strlen(path) > room) {
        cut = "...";
        path += strlen(path) - room;
    }
    snprintf(file->name, sizeof(file->name), "file:%s%s%s", cut, path, more);
}

static enum status parts_open(struct yolk_transfer *transfer, struct file_segment *file,
                              const struct yolk_transfer_file *list, uint32_t count,
                              struct errmsg *err)
{
    for (uint32_t i = 0; i < count; i++) {
        struct file_part *part = &file->parts[file->part_count++];
        const enum status status = part_open(transfer, &list[i], file->flags, part, err);
        if (status != STATUS_OK) return status;
        part->at = file->length;
        file->length += part->length;
        if (file->length < part->length) {
            return errmsg_set(err, STATUS_INVALID, "transfer: too many bytes in files");
        }
    }
    name_set(file, list[0].path, count);
    return STATUS_OK;
}

enum status yolk_transfer_open_files(struct yolk_transfer *transfer,
                                     const struct yolk_transfer_file *list, uint32_t count,
                                     unsigned flags, struct yolk_transfer_segment *out,
                                     struct errmsg *err)
{
    if (transfer == NULL || list == NULL || out == NULL || count == 0 ||
        count > YOLK_TRANSFER_FILE_PARTS_MAX || (flags & ~(unsigned)YOLK_TRANSFER_FILE_ALL) != 0) {
        return errmsg_set(err, STATUS_INVALID, "transfer: 1 to %d files, known flags",
                          YOLK_TRANSFER_FILE_PARTS_MAX);
    }
    if ((flags & YOLK_TRANSFER_FILE_CREATE) != 0) flags |= YOLK_TRANSFER_FILE_WRITE;
    enum status status = files_start(transfer);
    if (status != STATUS_OK) return errmsg_set(err, status, "transfer: no memory");
    if (transfer->files->count == YOLK_TRANSFER_FILES_MAX) {
        return errmsg_set(err, STATUS_FULL, "transfer: at most %d segments of files",
                          YOLK_TRANSFER_FILES_MAX);
    }
    struct file_segment *file = calloc(1, sizeof(*file));
    if (file == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "transfer: no memory");
    file->flags = flags;
    file->refs = 1;
    file->next = transfer->files->all;
    transfer->files->all = file;
    transfer->files->count++;
    status = parts_open(transfer, file, list, count, err);
    if (status == STATUS_OK) status = transfer_segment_add(transfer, &transfer->disk, file, out);
    if (status != STATUS_OK) file_close(transfer, file);
    return status;
}
