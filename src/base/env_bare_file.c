/* SPDX-License-Identifier: Apache-2.0
 *
 * base/env_bare_file.c - see env_bare_file.h. On the system calls themselves: what is measured is
 * the kernel and the disk, and one thread that keeps a counter. */
#include "base/env_bare_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/env_real.h"

enum { DEPTH_MAX = 64, ALIGN = 4096 };

/* The rings are one mapping (IORING_FEAT_SINGLE_MMAP, since Linux 5.4). */
struct ring {
    int fd;
    void *map;
    size_t map_size;
    struct io_uring_sqe *sqes;
    size_t sqes_size;
    struct io_uring_params params;
};

static _Atomic uint32_t *word(const struct ring *ring, uint32_t offset)
{
    return (_Atomic uint32_t *)(void *)((uint8_t *)ring->map + offset);
}

static void ring_close(struct ring *ring)
{
    if (ring->sqes != NULL) munmap(ring->sqes, ring->sqes_size);
    if (ring->map != NULL) munmap(ring->map, ring->map_size);
    close(ring->fd);
}

static void *ring_map(const struct ring *ring, size_t size, uint64_t what)
{
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, (off_t)what);
    return map != MAP_FAILED ? map : NULL;
}

static enum status ring_open(struct ring *ring)
{
    *ring = (struct ring){ .fd = -1 };
    ring->fd = (int)syscall(SYS_io_uring_setup, DEPTH_MAX, &ring->params);
    if (ring->fd < 0) return STATUS_UNSUPPORTED;
    const struct io_sqring_offsets *sq = &ring->params.sq_off;
    const struct io_cqring_offsets *cq = &ring->params.cq_off;
    const size_t sq_size = sq->array + ring->params.sq_entries * sizeof(uint32_t);
    const size_t cq_size = cq->cqes + ring->params.cq_entries * sizeof(struct io_uring_cqe);
    ring->map_size = sq_size > cq_size ? sq_size : cq_size;
    ring->sqes_size = ring->params.sq_entries * sizeof(struct io_uring_sqe);
    if ((ring->params.features & IORING_FEAT_SINGLE_MMAP) != 0) {
        ring->map = ring_map(ring, ring->map_size, IORING_OFF_SQ_RING);
        ring->sqes = ring_map(ring, ring->sqes_size, IORING_OFF_SQES);
    }
    if (ring->map != NULL && ring->sqes != NULL) return STATUS_OK;
    ring_close(ring);
    return STATUS_UNSUPPORTED;
}

/* Gives the kernel `submit` entries, and waits for `wait` of all there are. */
static enum status ring_enter(const struct ring *ring, uint32_t submit, uint32_t wait)
{
    const unsigned flags = wait > 0 ? IORING_ENTER_GETEVENTS : 0;
    long got;

    do {
        got = syscall(SYS_io_uring_enter, ring->fd, submit, wait, flags, NULL, 0);
    } while (got < 0 && (errno == EINTR || errno == EAGAIN));
    return got == (long)submit ? STATUS_OK : STATUS_IO;
}

/* Request `number` of all. */
static enum status submit(const struct env_bare_file *bare, const struct ring *ring, int fd,
                          uint64_t number)
{
    const struct io_sqring_offsets *sq = &ring->params.sq_off;
    const uint32_t tail = atomic_load_explicit(word(ring, sq->tail), memory_order_relaxed);
    const uint32_t slot = tail & (ring->params.sq_entries - 1);
    const uint64_t offset = number * bare->size;

    ring->sqes[slot] = (struct io_uring_sqe){
        .opcode = bare->read ? IORING_OP_READ : IORING_OP_WRITE,
        .fd = fd,
        .off = offset,
        .addr = (uintptr_t)bare->memory + offset % bare->memory_size,
        .len = bare->size,
    };
    atomic_store_explicit(word(ring, sq->array) + slot, slot, memory_order_relaxed);
    /* The kernel reads the entry after the tail that covers it. */
    atomic_store_explicit(word(ring, sq->tail), tail + 1, memory_order_release);
    return ring_enter(ring, 1, 0);
}

/* Takes one completion, waiting for it if none is there. */
static enum status take(const struct env_bare_file *bare, const struct ring *ring)
{
    const struct io_cqring_offsets *cq = &ring->params.cq_off;
    const uint32_t head = atomic_load_explicit(word(ring, cq->head), memory_order_relaxed);
    const struct io_uring_cqe *cqes = (const void *)((const uint8_t *)ring->map + cq->cqes);

    /* The kernel has written an entry before the tail that covers it. */
    while (atomic_load_explicit(word(ring, cq->tail), memory_order_acquire) == head) {
        if (ring_enter(ring, 0, 1) != STATUS_OK) return STATUS_IO;
    }
    const int32_t moved = cqes[head & (ring->params.cq_entries - 1)].res;
    atomic_store_explicit(word(ring, cq->head), head + 1, memory_order_release);
    if (moved == -EINVAL) return STATUS_UNSUPPORTED;
    return moved == (int32_t)bare->size ? STATUS_OK : STATUS_IO;
}

static enum status move(const struct env_bare_file *bare, const struct ring *ring, int fd,
                        uint64_t count)
{
    enum status status = STATUS_OK;
    uint64_t begun = 0;

    while (begun < count && begun < bare->depth && status == STATUS_OK)
        status = submit(bare, ring, fd, begun++);
    for (uint64_t ended = 0; ended < count && status == STATUS_OK; ended++) {
        status = take(bare, ring);
        if (status == STATUS_OK && begun < count) status = submit(bare, ring, fd, begun++);
    }
    return status;
}

enum status env_bare_file_run(const struct env_bare_file *bare, uint64_t count, uint64_t *ns)
{
    struct ring ring;

    if (bare->depth == 0 || bare->depth > DEPTH_MAX || bare->size == 0 || bare->size % ALIGN != 0 ||
        bare->memory_size == 0 || bare->memory_size % bare->size != 0) {
        return STATUS_INVALID;
    }
    const int fd = open(bare->path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd < 0) return errno == EINVAL ? STATUS_UNSUPPORTED : STATUS_IO;
    enum status status = ring_open(&ring);
    if (status == STATUS_OK) {
        const uint64_t start_ns = env_real_now_ns();
        status = move(bare, &ring, fd, count);
        *ns = env_real_now_ns() - start_ns;
        ring_close(&ring);
    }
    close(fd);
    return status;
}
