/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/task.c - tasks and the slices they are cut into: their lists, and how tasks end.
 *
 * A task goes through these states; task_finish() is the only way into a final one:
 *
 *     WAITING --task_started()--> PENDING --all slices arrived--------------> COMPLETED
 *        |                           |
 *        +------ task_end(why) ------+--> (ending) --nothing can land--> CANCELED TIMEOUT
 *                                                    task_settle()       INVALID  FAILED
 *
 * Invariants
 *   I1  slices_out counts the slices that are on a lane, live or lost, in a copy queue, or with a
 *       device; slices_waiting those in a retry list, or waiting for a bounce. offset, both and
 *       bytes cover the range exactly.
 *   I2  A task is final only with slices_out == 0 and slices_waiting == 0; see F1..F4 in peer.c.
 *
 * Slices come from chunks that live as long as the engine, SLICES_MAX of them. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "transfer/transfer_int.h"

enum { GRACE_MAX_MS = 500 };

/* ---- slices ---- */

static bool slices_grow(struct yolk_transfer *transfer)
{
    if (transfer->slice_count + SLICE_CHUNK > SLICES_MAX) return false;
    struct slice_chunk *chunk = calloc(1, sizeof(*chunk));
    if (chunk == NULL) return false;
    chunk->next = transfer->slice_chunks;
    transfer->slice_chunks = chunk;
    transfer->slice_count += SLICE_CHUNK;
    for (int i = 0; i < SLICE_CHUNK; i++)
        slice_free(transfer, &chunk->slices[i]);
    return true;
}

struct slice *slice_new(struct yolk_transfer *transfer)
{
    if (transfer->slices_free == NULL && !slices_grow(transfer)) return NULL;
    struct slice *slice = transfer->slices_free;
    transfer->slices_free = slice->next;
    memset(slice, 0, sizeof(*slice));
    return slice;
}

void slice_free(struct yolk_transfer *transfer, struct slice *slice)
{
    ASSERT(slice->share == NULL);
    cuda_slice_free(slice);
    slice->next = transfer->slices_free;
    transfer->slices_free = slice;
}

void slice_push(struct slice_list *list, struct slice *slice)
{
    slice->next = NULL;
    if (list->tail != NULL) {
        list->tail->next = slice;
    } else {
        list->head = slice;
    }
    list->tail = slice;
}

struct slice *slice_pop(struct slice_list *list)
{
    struct slice *slice = list->head;

    if (slice == NULL) return NULL;
    list->head = slice->next;
    if (list->head == NULL) list->tail = NULL;
    slice->next = NULL;
    return slice;
}

void slice_filter(struct slice_list *list, bool (*match)(const struct slice *, const void *),
                  const void *what, void (*fn)(struct yolk_transfer *, struct slice *),
                  struct yolk_transfer *transfer)
{
    struct slice_list kept = { NULL, NULL }, matched = { NULL, NULL };
    struct slice *slice;

    while ((slice = slice_pop(list)) != NULL) {
        slice_push(match(slice, what) ? &matched : &kept, slice);
    }
    *list = kept;
    while ((slice = slice_pop(&matched)) != NULL)
        fn(transfer, slice);
}

/* ---- tasks ---- */

void task_queue(struct task_list *list, struct task *task)
{
    ASSERT(!task->queued);
    task->queued = true;
    task->next = NULL;
    task->prev = list->tail;
    if (list->tail != NULL) {
        list->tail->next = task;
    } else {
        list->head = task;
    }
    list->tail = task;
}

void task_unqueue(struct task_list *list, struct task *task)
{
    ASSERT(task->queued);
    task->queued = false;
    if (task->prev != NULL) {
        task->prev->next = task->next;
    } else {
        list->head = task->next;
    }
    if (task->next != NULL) {
        task->next->prev = task->prev;
    } else {
        list->tail = task->prev;
    }
    task->prev = task->next = NULL;
}

void task_started(struct yolk_transfer *transfer, struct task *task, enum yolk_transfer_path path)
{
    task->path = path;
    task->slices++;
    if (task->state != YOLK_TRANSFER_WAITING) return;
    task->state = YOLK_TRANSFER_PENDING;
    task->started_ns = transfer->now_ns;
}

static enum yolk_transfer_state state_of_ending(enum status ending)
{
    if (ending == STATUS_OK) return YOLK_TRANSFER_COMPLETED;
    if (ending == STATUS_CANCELLED) return YOLK_TRANSFER_CANCELED;
    if (ending == STATUS_TIMEOUT) return YOLK_TRANSFER_TIMEOUT;
    if (ending == STATUS_INVALID || ending == STATUS_NOT_FOUND || ending == STATUS_DENIED) {
        return YOLK_TRANSFER_INVALID;
    }
    return YOLK_TRANSFER_FAILED;
}

void task_finish(struct yolk_transfer *transfer, struct task *task)
{
    ASSERT(!task_is_final(task));
    ASSERT(task->slices_out == 0 && task->slices_waiting == 0 && !task->queued);
    ASSERT(task->ending != STATUS_OK || task->bytes == task->req.length);
    task->state = state_of_ending(task->ending);
    task->ended_ns = transfer->now_ns;
    env_timer_cancel(transfer->env, &task->timer);
    if (task->buffer != NULL) task->buffer->users--;
    if (task->remote != NULL) task->remote->users--;
    if (task->peer != NULL) task->peer->tasks--;
    transfer->stats.tasks[task->state]++;
    history_add(transfer, task);
    if (task->file != NULL) file_unref(transfer, task->file);
    task->file = NULL;
    task->done_next = NULL;
    if (transfer->done_tail != NULL) {
        transfer->done_tail->done_next = task;
    } else {
        transfer->done_head = task;
    }
    transfer->done_tail = task;
    transfer_kick(transfer);
}

void task_settle(struct yolk_transfer *transfer, struct task *task)
{
    const bool all = task->bytes == task->req.length;

    if (task_is_final(task) || task->slices_out > 0) return;
    if (!all && task->ending == STATUS_OK) return;
    if (all) task->ending = STATUS_OK;
    task_finish(transfer, task);
}

void task_end(struct yolk_transfer *transfer, struct task *task, enum status status)
{
    ASSERT(status != STATUS_OK);
    if (task_is_final(task) || task->ending != STATUS_OK) return;
    task->ending = status;
    if (task->peer != NULL) peer_withdraw(task);
    if (task->slices_out > 0) {
        uint64_t grace_ns = transfer->fence_ns / 4;
        if (grace_ns > GRACE_MAX_MS * ENV_NS_PER_MS) grace_ns = GRACE_MAX_MS * ENV_NS_PER_MS;
        env_timer_set(transfer->env, &task->timer, transfer_clock(transfer) + grace_ns);
    }
    task_settle(transfer, task);
}

static void on_task_timer(void *ctx)
{
    struct task *task = ctx;
    struct yolk_transfer *transfer = task->peer->transfer;

    transfer_clock(transfer);
    if (task->ending == STATUS_OK) {
        task_end(transfer, task, STATUS_TIMEOUT);
    } else {
        peer_cut(task);
    }
}

void task_init(struct yolk_transfer *transfer, struct task *task, struct batch *batch,
               const struct yolk_transfer_request *request)
{
    memset(task, 0, sizeof(*task));
    task->batch = batch;
    task->req = *request;
    task->id = ++transfer->task_serial;
    task->submitted_ns = transfer->now_ns;
    env_timer_init(&task->timer, on_task_timer, task);
}

void task_slice_done(struct yolk_transfer *transfer, struct slice *slice)
{
    struct task *task = slice->task;

    ASSERT(task != NULL && task->slices_out > 0);
    ASSERT(task->bytes + slice->length <= task->req.length);
    task->slices_out--;
    task->bytes += slice->length;
    if (slice->bounce != NULL) task->staged_bytes += slice->length;
    if (task->req.opcode == YOLK_TRANSFER_READ) {
        transfer->stats.bytes_read[task->path] += slice->length;
    } else {
        transfer->stats.bytes_sent[task->path] += slice->length;
    }
    slice_free(transfer, slice);
    task_settle(transfer, task);
}

void task_slice_lost(struct yolk_transfer *transfer, struct slice *slice, enum status status,
                     bool counts)
{
    struct task *task = slice->task;
    const bool exhausted = counts && ++slice->tries > transfer->retries_max;

    if (task == NULL) {
        slice_free(transfer, slice);
        return;
    }
    ASSERT(task->slices_out > 0);
    task->slices_out--;
    if (task->ending != STATUS_OK || exhausted) {
        slice_free(transfer, slice);
        task_end(transfer, task, status);
        task_settle(transfer, task);
        return;
    }
    task->retries++;
    task->slices_waiting++;
    transfer->stats.retries++;
    slice_push(&task->peer->retry[task->req.class], slice);
    peer_kick(task->peer);
}
