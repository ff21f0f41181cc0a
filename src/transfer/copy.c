/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/copy.c - memcpy, a portion per turn of the loop, so that everything else on it goes on.
 *
 * Three kinds of slices come here: of local tasks, of READs from a peer's shared memory, and pulls,
 * by which a WRITE on one host reaches us. The most urgent class goes first, and is looked at again
 * after every step. */
#include <string.h>

#include "base/assert.h"
#include "transfer/transfer_int.h"

void copy_queue(struct yolk_transfer *transfer, struct slice *slice)
{
    ASSERT(slice->class < WIRE_CLASSES && slice->done == 0);
    if (slice->share != NULL) {
        slice->share->users++;
        slice->session->refs++;
    }
    slice_push(&transfer->copies[slice->class], slice);
    transfer_kick(transfer);
}

void copy_release(struct slice *slice)
{
    if (slice->share == NULL) return;
    ASSERT(slice->share->users > 0);
    slice->share->users--;
    slice->share = NULL;
    session_unref(slice->session);
    slice->session = NULL;
}

static void epoch_and_term(const struct slice *slice, uint64_t *epoch, uint64_t *term)
{
    /* A pull reads the initiator's memory: the epoch in its header is ours, not theirs. */
    *epoch = slice->task != NULL ? slice->task->req.epoch : 0;
    *term = slice->task != NULL ? slice->task->req.term : 0;
}

static enum status copy_step(struct slice *slice, size_t len)
{
    uint64_t epoch, term;

    if (slice->share == NULL) {
        memcpy(slice->to + slice->done, slice->from + slice->done, len);
        return STATUS_OK;
    }
    epoch_and_term(slice, &epoch, &term);
    return share_copy(slice->session, slice->share, epoch, term, slice->from + slice->done,
                      slice->to + slice->done, len);
}

enum { RATE_SIZE_MIN = 64 << 10 };

/* How fast copies of some size go, for predictions. */
static void rate_add(struct yolk_transfer *transfer, uint64_t size, uint64_t ns)
{
    if (size < RATE_SIZE_MIN || ns == 0) return;
    const uint64_t rate = (uint64_t)((double)size * 1e9 / (double)ns);
    transfer->copy_rate = transfer->copy_rate == 0 ? rate : (7 * transfer->copy_rate + rate) / 8;
}

static void copy_finish(struct yolk_transfer *transfer, struct slice *slice, enum status status)
{
    if (status == STATUS_NOT_FOUND) slice->share->dead = true;
    copy_release(slice);
    if (slice->lane != NULL) {
        target_pull_done(transfer, slice, status);
        return;
    }
    peer_kick(slice->task->peer); /* there is room for another slice */
    if (status == STATUS_OK) {
        task_slice_done(transfer, slice);
    } else if (status == STATUS_NOT_FOUND) {
        task_slice_lost(transfer, slice, STATUS_STALE, true);
    } else {
        struct task *task = slice->task;
        task->slices_out--;
        slice_free(transfer, slice);
        task_end(transfer, task, status);
    }
}

static struct slice_list *first_queue(struct yolk_transfer *transfer)
{
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        if (transfer->copies[class].head != NULL) return &transfer->copies[class];
    }
    return NULL;
}

bool copy_run(struct yolk_transfer *transfer)
{
    struct slice_list *queue = first_queue(transfer);
    const uint64_t start_ns = transfer->now_ns;
    uint64_t spent = 0;

    for (; queue != NULL && spent < COPY_TURN_SIZE; queue = first_queue(transfer)) {
        struct slice *slice = queue->head;
        if (slice->lane != NULL && lane_expired(slice->lane)) {
            lane_die(slice->lane, STATUS_TIMEOUT); /* takes the slice with it */
            continue;
        }
        uint64_t len = slice->length - slice->done;
        if (len > COPY_STEP_SIZE) len = COPY_STEP_SIZE;
        const enum status status = copy_step(slice, (size_t)len);
        slice->done += len;
        spent += len;
        if (status != STATUS_OK || slice->done == slice->length) {
            transfer_clock(transfer);
            slice_pop(queue);
            copy_finish(transfer, slice, status);
        }
    }
    if (spent > 0) rate_add(transfer, spent, transfer_clock(transfer) - start_ns);
    return queue != NULL;
}

static bool of_task(const struct slice *slice, const void *task)
{
    return slice->task == task;
}

static bool of_lane(const struct slice *slice, const void *lane)
{
    return slice->lane == lane;
}

static void drop(struct yolk_transfer *transfer, struct slice *slice)
{
    copy_release(slice);
    if (slice->task != NULL) slice->task->slices_out--;
    slice_free(transfer, slice);
}

void copy_drop_task(struct yolk_transfer *transfer, const struct task *task)
{
    slice_filter(&transfer->copies[task->req.class], of_task, task, drop, transfer);
}

void copy_drop_lane(struct yolk_transfer *transfer, const struct lane *lane)
{
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        slice_filter(&transfer->copies[class], of_lane, lane, drop, transfer);
    }
}
