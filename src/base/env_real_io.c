/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_real_io.c - files in bulk: io_uring, or a few threads where the kernel refuses it (old
 * kernels, containers that forbid it).
 *
 *            env_real_io_start        taken up                result          the loop
 *     IDLE --------------------> QUEUED --------> ACTIVE --------------> DONE -------> IDLE, fn
 *                                   ^                | part of it done, or interrupted
 *                                   +----------------+ (io_uring: submitted again)
 *
 * With io_uring what is started in a turn of the loop lies in the submission ring until there are
 * FLUSH_COUNT of it, or the turn ends (env_real_io_flush), and goes to the kernel in one call; with
 * threads, THREADS of them take from the queue. The loop waits for results with all else: for the
 * ring's descriptor, which is readable while the completion ring holds something, or, with threads,
 * for an eventfd. Every turn runs the callbacks of all that is done (env_real_io_run).
 *
 *   I1  Callbacks run from the loop only. env_file_close() waits for results and takes its own out
 *       of the list; others stay for the loop.
 *   I2  The ring belongs to the loop's thread. What threads touch (queue, done, active) is under
 *       the mutex; the rest of an I/O belongs to the thread that made it ACTIVE. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real_int.h"
#include "base/log.h"

/* FLUSH_COUNT: neighbours that go to the kernel together become one request of the device, and end
 * together; if all that a reader keeps in flight did, the device would idle while he asks again. */
enum { THREADS = 4, SECTOR_SIZE = 512, FLUSH_COUNT = 4 };

struct real_io {
    struct env_source wakeup; /* the ring, or an eventfd */
    struct io_uring ring;
    bool threaded;
    bool unflushed; /* the kernel has not been told of all that is in the submission ring */
    uint32_t count; /* not IDLE */
    struct env_ios done;

    pthread_mutex_t mutex; /* of what follows, and of `done`, when threaded */
    pthread_cond_t queued_cond;
    pthread_cond_t done_cond;
    struct env_ios queued;
    bool ending;
    pthread_t threads[THREADS];
    int threads_count;
};

static const struct real_file *file_of(const struct env_io *io)
{
    return (const struct real_file *)(const void *)io->file; /* `base` is the first member */
}

/* ---- one step of an I/O, and what comes of it ---- */

static int parts_left(struct env_io *io, struct iovec **first)
{
    int skipped = 0;
    while (skipped < io->parts_count && io->left[skipped].iov_len == 0)
        skipped++;
    *first = io->left + skipped;
    return io->parts_count - skipped;
}

static void parts_advance(struct env_io *io, size_t n)
{
    io->done += n;
    for (int i = 0; i < io->parts_count && n > 0; i++) {
        const size_t step = n < io->left[i].iov_len ? n : io->left[i].iov_len;
        io->left[i].iov_base = (char *)io->left[i].iov_base + step;
        io->left[i].iov_len -= step;
        n -= step;
    }
}

/* Takes the result of a step (bytes, or -errno). True when the I/O is over. */
static bool step_take(struct env_io *io, int64_t result)
{
    struct iovec *rest;

    if (result == -EINTR || result == -EAGAIN) return false;
    if (result == -EINVAL && io->file->direct) {
        io->status = STATUS_UNSUPPORTED;
        return true;
    }
    if (result < 0) {
        const bool cannot =
            io->op == ENV_IO_RESERVE && (result == -EOPNOTSUPP || result == -ENOSYS);
        io->status = cannot ? STATUS_OK : env_real_status((int)-result);
        return true;
    }
    if (io->op == ENV_IO_SYNC || io->op == ENV_IO_RESERVE) return true;
    parts_advance(io, (size_t)result);
    if (parts_left(io, &rest) == 0) return true;
    if (io->op == ENV_IO_WRITE) {
        if (result > 0) return false;
        io->status = STATUS_IO;
        return true;
    }
    /* What is read past the page cache ends in the middle of a sector only where the file ends. */
    return result == 0 || (io->file->direct && io->done % SECTOR_SIZE != 0);
}

static int64_t errno_or(int64_t result)
{
    return result < 0 ? -errno : result;
}

static int64_t step_here(struct env_io *io)
{
    const int fd = file_of(io)->fd;
    const off_t offset = (off_t)(io->offset + io->done);
    struct iovec *rest;
    const int count = parts_left(io, &rest);

    switch (io->op) {
    case ENV_IO_READ: return errno_or(preadv(fd, rest, count, offset));
    case ENV_IO_WRITE: return errno_or(pwritev(fd, rest, count, offset));
    case ENV_IO_SYNC: return errno_or(fdatasync(fd));
    case ENV_IO_RESERVE: return errno_or(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)io->offset));
    }
    ASSERT(false);
    return -EINVAL;
}

/* ---- threads ---- */

static void tell_loop(struct real_io *all)
{
    const uint64_t one = 1;
    const ssize_t written = write(all->wakeup.fd, &one, sizeof(one));
    ASSERT(written == sizeof(one) || errno == EAGAIN);
}

static void *thread_main(void *ctx)
{
    struct real_io *all = ctx;

    pthread_mutex_lock(&all->mutex);
    for (;;) {
        while (all->queued.head == NULL && !all->ending)
            pthread_cond_wait(&all->queued_cond, &all->mutex);
        struct env_io *io = all->queued.head;
        if (io == NULL) break;
        env_ios_remove(&all->queued, io);
        io->phase = ENV_IO_ACTIVE;
        pthread_mutex_unlock(&all->mutex);
        while (!step_take(io, step_here(io))) {
        }
        pthread_mutex_lock(&all->mutex);
        io->phase = ENV_IO_DONE;
        env_ios_append(&all->done, io);
        pthread_cond_signal(&all->done_cond);
        tell_loop(all);
    }
    pthread_mutex_unlock(&all->mutex);
    return NULL;
}

static bool threads_start(struct real_io *all)
{
    pthread_mutex_init(&all->mutex, NULL);
    pthread_cond_init(&all->queued_cond, NULL);
    pthread_cond_init(&all->done_cond, NULL);
    for (int i = 0; i < THREADS; i++) {
        if (env_real_thread(&all->threads[i], thread_main, all) != 0) break;
        all->threads_count++;
    }
    return all->threads_count > 0;
}

static void threads_end(struct real_io *all)
{
    pthread_mutex_lock(&all->mutex);
    all->ending = true;
    pthread_cond_broadcast(&all->queued_cond);
    pthread_mutex_unlock(&all->mutex);
    for (int i = 0; i < all->threads_count; i++)
        pthread_join(all->threads[i], NULL);
    pthread_cond_destroy(&all->done_cond);
    pthread_cond_destroy(&all->queued_cond);
    pthread_mutex_destroy(&all->mutex);
}

/* ---- the ring ---- */

static void ring_flush(struct real_io *all)
{
    int result;

    if (!all->unflushed) return;
    do {
        result = io_uring_submit(&all->ring);
        ASSERT(result >= 0 || result == -EINTR || result == -EAGAIN); /* else our mistake */
    } while (io_uring_sq_ready(&all->ring) > 0);
    all->unflushed = false;
}

static void ring_put(struct real_io *all, struct env_io *io)
{
    const int fd = file_of(io)->fd;
    const uint64_t offset = io->offset + io->done;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&all->ring);
    struct iovec *rest;
    const unsigned count = (unsigned)parts_left(io, &rest);

    ASSERT(sqe != NULL); /* the ring has room for ENV_IOS_MAX */
    switch (io->op) {
    case ENV_IO_READ: io_uring_prep_readv(sqe, fd, rest, count, offset); break;
    case ENV_IO_WRITE: io_uring_prep_writev(sqe, fd, rest, count, offset); break;
    case ENV_IO_SYNC: io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC); break;
    case ENV_IO_RESERVE:
        io_uring_prep_fallocate(sqe, fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)io->offset);
        break;
    }
    io_uring_sqe_set_data(sqe, io);
    io->phase = ENV_IO_ACTIVE;
    all->unflushed = true;
    if (io_uring_sq_ready(&all->ring) == FLUSH_COUNT) ring_flush(all);
}

static void ring_take(struct real_io *all, struct io_uring_cqe *cqe)
{
    struct env_io *io = io_uring_cqe_get_data(cqe);
    const int result = cqe->res;

    io_uring_cqe_seen(&all->ring, cqe);
    ASSERT(io->phase == ENV_IO_ACTIVE);
    if (!step_take(io, result)) {
        ring_put(all, io);
        return;
    }
    io->phase = ENV_IO_DONE;
    env_ios_append(&all->done, io);
}

static void ring_drain(struct real_io *all)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&all->ring, &cqe) == 0)
        ring_take(all, cqe);
}

/* ---- the loop ---- */

static void lock(struct real_io *all)
{
    if (all->threaded) pthread_mutex_lock(&all->mutex);
}

static void unlock(struct real_io *all)
{
    if (all->threaded) pthread_mutex_unlock(&all->mutex);
}

static struct env_io *done_take(struct real_io *all)
{
    lock(all);
    struct env_io *io = all->done.head;
    if (io != NULL) env_ios_remove(&all->done, io);
    unlock(all);
    if (io == NULL) return NULL;
    ASSERT(io->phase == ENV_IO_DONE && io->file->ios > 0 && all->count > 0);
    io->phase = ENV_IO_IDLE;
    io->file->ios--;
    all->count--;
    return io;
}

/* Its only work is to end the wait: env_real_io_run() follows. */
static void on_wakeup(struct env_source *source, uint32_t events)
{
    struct real_io *all = (struct real_io *)(void *)source; /* `wakeup` is the first member */
    uint64_t count;

    (void)events;
    if (!all->threaded) return;
    const ssize_t got = read(source->fd, &count, sizeof(count));
    ASSERT(got == sizeof(count) || errno == EAGAIN);
}

bool env_real_io_flush(struct env_real *real)
{
    struct real_io *all = real->io;

    if (all == NULL || all->threaded) return false;
    ring_flush(all);
    return all->done.head != NULL || io_uring_cq_ready(&all->ring) > 0;
}

bool env_real_io_run(struct env_real *real)
{
    struct real_io *all = real->io;
    struct env_io *io;
    bool ran = false;

    if (all == NULL || all->count == 0) return false;
    if (!all->threaded) ring_drain(all);
    while ((io = done_take(all)) != NULL) {
        io->fn(io->ctx, io->status, io->done);
        ran = true;
    }
    return ran;
}

/* Waits until one more is done, if any is on its way. */
static void wait_done(struct real_io *all)
{
    struct io_uring_cqe *cqe;

    if (!all->threaded) {
        ring_flush(all);
        const int result = io_uring_wait_cqe(&all->ring, &cqe);
        ASSERT(result == 0 || result == -EINTR || result == -EAGAIN);
        if (result == 0) ring_take(all, cqe);
        return;
    }
    const uint32_t seen = all->done.count;
    while (all->done.count == seen)
        pthread_cond_wait(&all->done_cond, &all->mutex);
}

static struct env_io *done_of(const struct real_io *all, const struct env_file *file)
{
    for (struct env_io *io = all->done.head; io != NULL; io = io->next) {
        if (io->file == file) return io;
    }
    return NULL;
}

void env_real_io_settle(struct env_file *file)
{
    struct real_io *all = env_real_of(file->env)->io;

    if (file->ios == 0) return;
    lock(all);
    while (file->ios > 0) {
        struct env_io *io = done_of(all, file);
        if (io == NULL) {
            wait_done(all);
            continue;
        }
        env_ios_remove(&all->done, io);
        io->phase = ENV_IO_IDLE;
        file->ios--;
        all->count--;
    }
    unlock(all); /* news of others that was taken here is in the list, which every turn looks at */
}

/* ---- life ---- */

static void io_free(struct env_source *source)
{
    free(source);
}

static bool ring_start(struct real_io *all)
{
    const int result = io_uring_queue_init(ENV_IOS_MAX, &all->ring, 0);
    if (result == 0) {
        /* Of our own, because sources are closed one by one, and later. */
        all->wakeup.fd = fcntl(all->ring.ring_fd, F_DUPFD_CLOEXEC, 0);
        if (all->wakeup.fd >= 0) return true;
        io_uring_queue_exit(&all->ring);
    }
    LOG_WARN("env", "no_io_uring", "reason=%s instead=threads", strerror(-result));
    return false;
}

static struct real_io *io_create(struct env_real *real)
{
    struct real_io *all = calloc(1, sizeof(*all));

    if (all == NULL) return NULL;
    all->threaded = real->no_io_uring || !ring_start(all);
    if (all->threaded) all->wakeup.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (all->wakeup.fd < 0) {
        free(all);
        return NULL;
    }
    all->wakeup.on_event = on_wakeup;
    all->wakeup.free = io_free;
    if (all->threaded && !threads_start(all)) {
        LOG_ERROR("env", "no_io_threads", "errno=%d", errno);
        close(all->wakeup.fd);
        free(all);
        return NULL;
    }
    env_source_add(real, &all->wakeup);
    if (env_source_arm(real, &all->wakeup, EPOLLIN) == STATUS_OK) return all;
    real->io = all;
    env_real_io_destroy(real);
    return NULL;
}

void env_real_io_destroy(struct env_real *real)
{
    struct real_io *all = real->io;

    if (all == NULL) return;
    if (all->threaded) {
        threads_end(all); /* they finish what is queued */
    } else {
        while (all->done.count < all->count)
            wait_done(all); /* flushes */
        io_uring_queue_exit(&all->ring);
    }
    real->io = NULL;
    env_source_close(real, &all->wakeup);
}

enum status env_real_io_start(struct env_io *io)
{
    struct env_real *real = env_real_of(io->file->env);

    if (real->io == NULL) real->io = io_create(real);
    struct real_io *all = real->io;
    if (all == NULL || all->count == ENV_IOS_MAX) return STATUS_FULL;
    all->count++;
    io->file->ios++;
    io->phase = ENV_IO_QUEUED;
    if (!all->threaded) {
        ring_put(all, io);
        return STATUS_OK;
    }
    pthread_mutex_lock(&all->mutex);
    env_ios_append(&all->queued, io);
    pthread_cond_signal(&all->queued_cond);
    pthread_mutex_unlock(&all->mutex);
    return STATUS_OK;
}
