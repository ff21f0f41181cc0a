/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/copy.c - memcpy, a portion per turn of the loop, so that everything else on it goes on.
 *
 * Three kinds of slices come here: of local tasks, of READs from a peer's shared memory, and pulls,
 * by which a WRITE on one host reaches us. The most urgent class goes first, and is looked at again
 * after every portion: up to COPY_STEP_SIZE of slices that read from one share. Its identity is
 * looked at before the portion and after it, and each slice is judged by what the last look showed;
 * a portion that went wrong is done again slice by slice, to see which of them it was. */
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

/* Whether the bytes of the slice are, by the last look, whose they should be. */
static enum status slice_judge(const struct slice *slice)
{
    uint64_t epoch, term;

    if (slice->share == NULL) return STATUS_OK;
    epoch_and_term(slice, &epoch, &term);
    return share_judge(slice->session, slice->share, epoch, term);
}

enum status copy_check(const struct slice *slice)
{
    uint64_t epoch, term;

    if (slice->share == NULL) return STATUS_OK;
    epoch_and_term(slice, &epoch, &term);
    return share_check(slice->session, slice->share, epoch, term);
}

/* A pull into memory of a device goes to a bounce, which is taken when its turn has come. */
static enum status copy_aim(struct slice *slice)
{
    if (slice->lane == NULL || slice->bounce != NULL) return STATUS_OK;
    if (!cuda_has(slice->lane->transfer, (uintptr_t)slice->to)) return STATUS_OK;
    slice->bounce = cuda_landing(slice->lane->transfer, slice->length);
    if (slice->bounce == NULL) return STATUS_FULL;
    slice->to = cuda_bounce_memory(slice->bounce);
    return STATUS_OK;
}

/* What is copied in one go: slices of the queue from its head on, as far as they read from one
 * share, so that one look at its identity is enough, and, over vm, one system call. */
struct portion {
    uint32_t count;
    uint64_t size;
    struct env_memory_part parts[SHARE_PARTS_MAX];
};

static void portion_take(struct portion *portion, struct slice *slice, uint32_t count_max)
{
    const struct share *share = slice->share;

    portion->count = 0;
    portion->size = 0;
    while (slice != NULL && slice->share == share && portion->count < count_max &&
           portion->size < COPY_STEP_SIZE) {
        const bool expired = slice->lane != NULL && lane_expired(slice->lane);
        if (portion->count > 0 && (expired || slice_judge(slice) != STATUS_OK)) break;
        if (copy_aim(slice) != STATUS_OK) break; /* not the head's: that has been done */
        uint64_t len = slice->length - slice->done;
        if (len > COPY_STEP_SIZE - portion->size) len = COPY_STEP_SIZE - portion->size;
        portion->parts[portion->count++] =
            (struct env_memory_part){ .from = (uintptr_t)(slice->from + slice->done),
                                      .to = slice->to + slice->done,
                                      .len = (size_t)len };
        portion->size += len;
        slice = slice->next;
    }
}

static enum status portion_copy(const struct portion *portion, const struct slice *head)
{
    const struct env_memory_part *part = &portion->parts[0];

    if (head->share != NULL) {
        return share_copy(head->session, head->share, portion->parts, portion->count);
    }
    memcpy(part->to, (const void *)(uintptr_t)part->from, part->len);
    return STATUS_OK;
}

/* Copies something of the head, and of what follows it if there is no more to say about it than
 * that it is well. */
static enum status copy_step(struct slice *head, struct portion *portion)
{
    enum status status = copy_aim(head);

    portion->size = 0;
    if (status != STATUS_OK) return status;
    status = copy_check(head);
    if (status == STATUS_OK) {
        portion_take(portion, head, head->share != NULL ? SHARE_PARTS_MAX : 1);
        status = portion_copy(portion, head);
    }
    if (status != STATUS_OK) { /* whose fault is it? */
        portion_take(portion, head, 1);
        status = copy_check(head);
        if (status == STATUS_OK) status = portion_copy(portion, head);
    }
    return status == STATUS_DENIED ? STATUS_NOT_FOUND : status; /* it was not a moment ago */
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
    if (status == STATUS_OK && slice->bounce != NULL) {
        cuda_land(transfer, slice);
    } else if (status == STATUS_OK) {
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

/* The portion has been copied: what is whole is over. */
static void portion_done(struct yolk_transfer *transfer, struct slice_list *queue,
                         const struct portion *portion)
{
    struct slice *slice = queue->head;

    for (uint32_t i = 0; i < portion->count; i++) {
        slice->done += portion->parts[i].len;
        slice = slice->next;
    }
    transfer_clock(transfer);
    /* Finishing one may take others from the queue; those that are whole are always at its head. */
    while ((slice = queue->head) != NULL && slice->done == slice->length) {
        slice_pop(queue);
        copy_finish(transfer, slice, slice_judge(slice));
    }
}

bool copy_run(struct yolk_transfer *transfer)
{
    struct slice_list *queue = first_queue(transfer);
    const uint64_t start_ns = transfer->now_ns;
    struct portion portion;
    uint64_t spent = 0;

    for (; queue != NULL && spent < COPY_TURN_SIZE; queue = first_queue(transfer)) {
        struct slice *slice = queue->head;
        if (slice->lane != NULL && lane_expired(slice->lane)) {
            lane_die(slice->lane, STATUS_TIMEOUT); /* takes the slice with it */
            continue;
        }
        const enum status status = copy_step(slice, &portion);
        spent += portion.size;
        if (status == STATUS_OK) {
            portion_done(transfer, queue, &portion);
        } else {
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
    cuda_pulls_filter(transfer, of_lane, lane, drop);
}
