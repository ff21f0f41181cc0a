/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/batch.c - batches of requests, as users see them: created, filled, asked, cancelled, and
 * called back. A request becomes a task here, and is given to whoever moves its bytes; how it ends
 * is told in task.c.
 *
 * Invariants
 *   I1  Callbacks run from transfer_turn(), in the order in which tasks ended, and that runs from
 *       the loop: from a timer of ours, or after a connection has been served.
 *   I2  A batch is freed only when all of its tasks have been called back: by a callback, too.
 *
 * Handles are an index and a serial that changes when the slot is freed: a stale one is known. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "transfer/transfer_int.h"

enum {
    SPARE_TASKS_MIN = 256,
    PREDICT_SIZE_MIN = 64 << 10,
};

struct batch {
    struct yolk_transfer *transfer;
    uint64_t id;
    uint32_t capacity;
    uint32_t room; /* tasks there is memory for */
    uint32_t count;
    uint32_t uncalled; /* submitted, and not ended or not called back */
    yolk_transfer_done_fn on_done;
    void *ctx;
    struct errand_list errands; /* notices that wait for its tasks */
    int event;                  /* a descriptor and 1; 0: none */
    struct task tasks[];
};

static struct batch *batch_find(const struct yolk_transfer *transfer,
                                struct yolk_transfer_batch handle)
{
    const uint32_t index = (uint32_t)handle.id, serial = (uint32_t)(handle.id >> 32);

    if (transfer == NULL || index == 0 || index > transfer->batch_high) return NULL;
    const struct batch_slot *slot = &transfer->batches[index - 1];
    return slot->serial == serial ? slot->batch : NULL;
}

/* ---- life ---- */

/* One large batch that was freed is kept: its pages are there already, and to have them made anew
 * costs as much as moving some hundred kilobytes. Its tasks are cleared as they are submitted. */
static struct batch *batch_new(struct yolk_transfer *transfer, uint32_t capacity)
{
    struct batch *batch = transfer->spare;

    if (batch != NULL && batch->room >= capacity && batch->room / 4 <= capacity) {
        const uint32_t room = batch->room;
        transfer->spare = NULL;
        memset(batch, 0, sizeof(*batch));
        batch->room = room;
        return batch;
    }
    batch = calloc(1, sizeof(*batch) + capacity * sizeof(struct task));
    if (batch != NULL) batch->room = capacity;
    return batch;
}

static void batch_drop(struct yolk_transfer *transfer, struct batch *batch)
{
    if (batch->room < SPARE_TASKS_MIN) {
        free(batch);
        return;
    }
    free(transfer->spare);
    transfer->spare = batch;
}

enum status yolk_transfer_batch_create(struct yolk_transfer *transfer, uint32_t capacity,
                                       yolk_transfer_done_fn on_done, void *ctx,
                                       struct yolk_transfer_batch *out)
{
    if (transfer == NULL || out == NULL) return STATUS_INVALID;
    if (capacity == 0 || capacity > YOLK_TRANSFER_TASKS_MAX) return STATUS_INVALID;
    if (transfer->batch_free == 0 && transfer->batch_high == YOLK_TRANSFER_BATCHES_MAX) {
        return STATUS_FULL;
    }
    struct batch *batch = batch_new(transfer, capacity);
    if (batch == NULL) return STATUS_NO_MEMORY;
    uint32_t index = transfer->batch_free;
    if (index != 0) {
        transfer->batch_free = transfer->batches[index - 1].free_next;
    } else {
        index = ++transfer->batch_high;
    }
    struct batch_slot *slot = &transfer->batches[index - 1];
    slot->batch = batch;
    batch->transfer = transfer;
    batch->id = (uint64_t)slot->serial << 32 | index;
    batch->capacity = capacity;
    batch->on_done = on_done;
    batch->ctx = ctx;
    out->id = batch->id;
    return STATUS_OK;
}

enum status yolk_transfer_batch_free(struct yolk_transfer *transfer,
                                     struct yolk_transfer_batch handle)
{
    struct batch *batch = batch_find(transfer, handle);

    if (batch == NULL) return STATUS_INVALID;
    if (batch->uncalled > 0) return STATUS_BUSY;
    transfer_batch_look(transfer, handle);
    env_event_close(batch->event - 1);
    struct batch_slot *slot = &transfer->batches[(uint32_t)handle.id - 1];
    slot->batch = NULL;
    slot->serial++;
    slot->free_next = transfer->batch_free;
    transfer->batch_free = (uint32_t)handle.id;
    batch_drop(transfer, batch);
    return STATUS_OK;
}

static void batch_destroy(struct batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        env_timer_cancel(batch->transfer->env, &batch->tasks[i].timer);
        if (task_is_final(&batch->tasks[i])) continue;
        if (batch->tasks[i].buffer != NULL) batch->tasks[i].buffer->users--;
        if (batch->tasks[i].remote != NULL) batch->tasks[i].remote->users--;
    }
    env_event_close(batch->event - 1);
    free(batch);
}

void batch_destroy_all(struct yolk_transfer *transfer)
{
    for (uint32_t i = 0; i < transfer->batch_high; i++) {
        if (transfer->batches[i].batch != NULL) batch_destroy(transfer->batches[i].batch);
    }
}

enum status yolk_transfer_batch_event(struct yolk_transfer *transfer,
                                      struct yolk_transfer_batch handle, int *fd)
{
    struct batch *batch = batch_find(transfer, handle);
    int made;

    if (batch == NULL || fd == NULL) return STATUS_INVALID;
    if (batch->event == 0) {
        const enum status status = env_event_create(transfer->env, &made);
        if (status != STATUS_OK) return status;
        batch->event = made + 1;
        if (batch->count > batch->uncalled) env_event_signal(made, batch->count - batch->uncalled);
    }
    *fd = batch->event - 1;
    return STATUS_OK;
}

/* ---- how it went ---- */

static void result_of_batch(const struct batch *batch, struct yolk_transfer_result *out)
{
    struct yolk_transfer_result result = { YOLK_TRANSFER_COMPLETED, STATUS_OK, 0 };
    bool waiting = false, pending = false;

    for (uint32_t i = 0; i < batch->count; i++) {
        const struct task *task = &batch->tasks[i];
        result.bytes += task->bytes;
        waiting = waiting || task->state == YOLK_TRANSFER_WAITING;
        pending = pending || task->state == YOLK_TRANSFER_PENDING;
        if (result.reason == STATUS_OK && task_is_final(task) && task->ending != STATUS_OK) {
            result.state = task->state;
            result.reason = task->ending;
        }
    }
    if (waiting || pending) {
        result.state = pending ? YOLK_TRANSFER_PENDING : YOLK_TRANSFER_WAITING;
        result.reason = STATUS_PENDING;
    }
    *out = result;
}

struct errand_list *transfer_batch_errands(struct yolk_transfer *transfer,
                                           struct yolk_transfer_batch handle)
{
    struct batch *batch = batch_find(transfer, handle);
    return batch != NULL ? &batch->errands : NULL;
}

void transfer_batch_look(struct yolk_transfer *transfer, struct yolk_transfer_batch handle)
{
    struct batch *batch = batch_find(transfer, handle);
    struct yolk_transfer_result whole;

    if (batch == NULL || batch->uncalled > 0 || batch->errands.head == NULL) return;
    result_of_batch(batch, &whole);
    errand_release(&batch->errands, whole.state == YOLK_TRANSFER_COMPLETED);
}

static void call_back(struct yolk_transfer *transfer, struct task *task)
{
    struct batch *batch = task->batch;
    const struct yolk_transfer_batch handle = { batch->id };
    const struct yolk_transfer_result result = { task->state, task->ending, task->bytes };

    ASSERT(!task->called_back && batch->uncalled > 0);
    task->called_back = true;
    batch->uncalled--;
    transfer->in_callback = true;
    if (batch->event != 0) env_event_signal(batch->event - 1, 1);
    if (task->req.on_done != NULL) task->req.on_done(task->req.ctx, &result);
    transfer_batch_look(transfer, handle);
    batch = batch_find(transfer, handle); /* the callback may have freed it */
    if (batch != NULL && batch->uncalled == 0 && batch->on_done != NULL) {
        struct yolk_transfer_result whole;
        result_of_batch(batch, &whole);
        batch->on_done(batch->ctx, &whole);
    }
    transfer->in_callback = false;
}

void batch_call_back_all(struct yolk_transfer *transfer)
{
    const struct task *const last = transfer->done_tail;
    bool more = last != NULL;

    while (more) { /* those that end meanwhile wait for the next turn */
        struct task *task = transfer->done_head;
        transfer->done_head = task->done_next;
        if (transfer->done_head == NULL) transfer->done_tail = NULL;
        more = task != last;
        call_back(transfer, task);
    }
}

/* ---- submitting ---- */

static bool ranges_sane(const struct yolk_transfer_request *req)
{
    const uint64_t local = (uintptr_t)req->local;

    if (req->opcode != YOLK_TRANSFER_READ && req->opcode != YOLK_TRANSFER_WRITE) return false;
    if ((unsigned)req->class >= YOLK_TRANSFER_CLASSES) return false;
    return local + req->length >= local && req->remote + req->length >= req->remote;
}

/* The local path needs no peer to refuse it. */
static enum status local_check(struct yolk_transfer *transfer, struct task *task)
{
    const struct yolk_transfer_request *req = &task->req;
    const uint64_t local = (uintptr_t)req->local;

    if (req->epoch != 0 && req->epoch != transfer->epoch) return STATUS_STALE;
    if (req->term != 0 && req->term < transfer->term) return STATUS_STALE;
    if (task->generation != transfer->generation) return STATUS_STALE;
    struct buffer *remote = buffers_find(&transfer->buffers, req->remote, req->length);
    if (remote == NULL) return STATUS_NOT_FOUND;
    if (buffer_ranges_overlap(local, req->length, req->remote, req->length)) return STATUS_INVALID;
    task->remote = remote;
    remote->users++;
    return STATUS_OK;
}

static enum status task_check(struct yolk_transfer *transfer, struct task *task)
{
    const struct yolk_transfer_request *req = &task->req;
    const struct segment *segment = transfer_segment(transfer, req->segment);

    if (segment == NULL || !ranges_sane(req)) return STATUS_INVALID;
    if (req->length == 0) return STATUS_OK;
    if (req->deadline_ns != 0 && req->deadline_ns <= transfer->now_ns) {
        return STATUS_TIMEOUT;
    }
    struct buffer *buffer = buffers_find(&transfer->buffers, (uintptr_t)req->local, req->length);
    if (buffer == NULL) return STATUS_NOT_FOUND;
    task->generation = req->generation != 0 ? req->generation : segment->generation;
    enum status status = STATUS_OK;
    if (segment->file != NULL) status = file_check(transfer, segment->file, task);
    if (segment->peer->local) status = local_check(transfer, task);
    if (status != STATUS_OK) return status;
    task->peer = segment->peer;
    task->peer->tasks++;
    task->file = segment->file;
    if (task->file != NULL) file_ref(task->file);
    task->buffer = buffer;
    buffer->users++;
    return STATUS_OK;
}

/* A large batch is walked through once, so each of its tasks would come from memory when wanted. */
static void task_prefetch(const struct task *task)
{
    enum { LINE = 64 };

    for (size_t at = 0; at < sizeof(*task); at += LINE)
        __builtin_prefetch((const char *)task + at, 1);
}

static void task_submit(struct yolk_transfer *transfer, struct batch *batch,
                        const struct yolk_transfer_request *request)
{
    struct task *task = &batch->tasks[batch->count++];

    task_init(transfer, task, batch, request);
    if (batch->count < batch->capacity) task_prefetch(task + 1);
    batch->uncalled++;
    const enum status status = task_check(transfer, task);
    if (status != STATUS_OK) {
        task_end(transfer, task, status);
    } else if (request->length == 0) {
        task_finish(transfer, task);
    } else {
        if (request->length >= PREDICT_SIZE_MIN) {
            task->predicted_us = task->file != NULL ? file_predict_us(transfer, request->length)
                                                    : peer_predict_us(task->peer, request->length);
        }
        if (!cuda_submit(transfer, task)) {
            task_queue(&task->peer->ready[task->req.class], task);
        }
        task->peer->dirty = true;
        if (request->deadline_ns != 0) {
            env_timer_set(transfer->env, &task->timer, request->deadline_ns);
        }
    }
}

enum status yolk_transfer_submit(struct yolk_transfer *transfer, struct yolk_transfer_batch handle,
                                 const struct yolk_transfer_request *requests, uint32_t count)
{
    struct batch *batch = batch_find(transfer, handle);

    if (batch == NULL || (requests == NULL && count > 0)) return STATUS_INVALID;
    if (count > batch->capacity - batch->count) return STATUS_FULL;
    const uint32_t first = batch->count;
    if (!transfer->in_callback) transfer_clock(transfer);
    for (uint32_t i = 0; i < count; i++)
        task_submit(transfer, batch, &requests[i]);
    for (uint32_t i = first; i < batch->count; i++) {
        struct peer *peer = batch->tasks[i].peer;
        if (peer == NULL || !peer->dirty) continue;
        if (!transfer->in_callback) peer_schedule(peer);
    }
    return STATUS_OK;
}

/* ---- asking and cancelling ---- */

static struct task *task_find(const struct yolk_transfer *transfer,
                              struct yolk_transfer_batch handle, uint32_t index)
{
    struct batch *batch = batch_find(transfer, handle);
    return batch != NULL && index < batch->count ? &batch->tasks[index] : NULL;
}

enum status yolk_transfer_poll(struct yolk_transfer *transfer, struct yolk_transfer_batch handle,
                               uint32_t index, struct yolk_transfer_result *out)
{
    const struct task *task = task_find(transfer, handle, index);

    if (task == NULL || out == NULL) return STATUS_INVALID;
    out->state = task->state;
    out->reason = task_is_final(task) ? task->ending : STATUS_PENDING;
    out->bytes = task->bytes;
    return STATUS_OK;
}

enum status yolk_transfer_poll_batch(struct yolk_transfer *transfer,
                                     struct yolk_transfer_batch handle,
                                     struct yolk_transfer_result *out)
{
    const struct batch *batch = batch_find(transfer, handle);

    if (batch == NULL || out == NULL) return STATUS_INVALID;
    result_of_batch(batch, out);
    return STATUS_OK;
}

enum status yolk_transfer_wait(struct yolk_transfer *transfer, struct yolk_transfer_batch handle,
                               uint64_t timeout_ns)
{
    const struct batch *batch = batch_find(transfer, handle);

    if (batch == NULL) return STATUS_INVALID;
    if (transfer->in_callback) return STATUS_BUSY;
    const uint64_t start_ns = env_now_ns(transfer->env);
    while (batch != NULL && batch->uncalled > 0) {
        const uint64_t spent_ns = env_now_ns(transfer->env) - start_ns;
        if (spent_ns >= timeout_ns) return STATUS_TIMEOUT;
        env_poll(transfer->env, timeout_ns - spent_ns);
        batch = batch_find(transfer, handle); /* a callback may have freed it */
    }
    return STATUS_OK;
}

enum status yolk_transfer_cancel(struct yolk_transfer *transfer, struct yolk_transfer_batch handle,
                                 uint32_t index)
{
    struct task *task = task_find(transfer, handle, index);

    if (task == NULL) return STATUS_INVALID;
    transfer_clock(transfer);
    task_end(transfer, task, STATUS_CANCELLED);
    return STATUS_OK;
}

enum status yolk_transfer_cancel_batch(struct yolk_transfer *transfer,
                                       struct yolk_transfer_batch handle)
{
    struct batch *batch = batch_find(transfer, handle);

    if (batch == NULL) return STATUS_INVALID;
    transfer_clock(transfer);
    for (uint32_t i = 0; i < batch->count; i++) {
        task_end(transfer, &batch->tasks[i], STATUS_CANCELLED);
    }
    return STATUS_OK;
}

/* ---- what happened ---- */

enum status yolk_transfer_explain(struct yolk_transfer *transfer, struct yolk_transfer_batch handle,
                                  uint32_t index, struct yolk_transfer_explain *out)
{
    const struct task *task = task_find(transfer, handle, index);

    if (task == NULL || out == NULL) return STATUS_INVALID;
    /* One that has ended no longer holds its file, whose name is in the history. */
    if (task->peer == &transfer->disk && task_is_final(task) &&
        yolk_transfer_explain_id(transfer, task->id, out) == STATUS_OK) {
        return STATUS_OK;
    }
    history_describe(transfer, task, out);
    return STATUS_OK;
}
