/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/target.c - the side that owns the memory: checks every request, lands or serves it,
 * answers once.
 *
 * A request is checked when its header arrives: range registered, permission, epoch, term. A WRITE
 * that fails the check still has its payload on the stream; it goes to the sink and the answer
 * follows. What passed the check may lose its right before it is over: target_revoke() then takes
 * the destination away before its caller goes on.
 *
 * FENCE closes other connections of the same initiator. It is answered after they are closed, so
 * the initiator knows that nothing it sent on them can land any more.
 *
 * Limits: WIRE_REQUESTS_MAX answers owed per connection; who asks for more is dropped. */
#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "transfer/transfer_int.h"

enum status target_check_owner(const struct yolk_transfer *transfer,
                               const struct wire_header *header)
{
    if (header->epoch != 0 && header->epoch != transfer->epoch) return STATUS_STALE;
    if (header->term != 0 && header->term < transfer->term) return STATUS_STALE;
    return STATUS_OK;
}

static enum status range_check(const struct yolk_transfer *transfer,
                               const struct wire_header *header, unsigned permission)
{
    const enum status status = target_check_owner(transfer, header);

    if (status != STATUS_OK) return status;
    if (header->length == 0 || header->length > WIRE_SLICE_MAX) return STATUS_INVALID;
    const struct buffer *buffer = buffers_find(&transfer->buffers, header->address, header->length);
    if (buffer == NULL) return STATUS_NOT_FOUND;
    return (buffer->flags & permission) != 0 ? STATUS_OK : STATUS_DENIED;
}

static enum status answer(struct lane *lane, const struct wire_header *request, enum status status)
{
    return lane_answer(lane, request, status) ? STATUS_OK : STATUS_PROTOCOL;
}

bool target_send_data(struct lane *lane, const struct wire_header *request, const uint8_t *data,
                      struct bounce *bounce)
{
    struct wire_header header = { .opcode = WIRE_READ_DATA,
                                  .flags = request->flags,
                                  .class = request->class,
                                  .attempt = request->attempt,
                                  .request = request->request,
                                  .length = request->length };

    if ((request->flags & WIRE_CHECKSUM) != 0) {
        header.checksum = hash_xxh3(data, (size_t)request->length);
    }
    lane->transfer->stats.bytes_served += request->length;
    if (bounce != NULL) return lane_send_bounce(lane, &header, bounce);
    return lane_send(lane, request->class, &header, data, true);
}

static enum status serve_read(struct lane *lane, const struct wire_header *request)
{
    const enum status status = range_check(lane->transfer, request, YOLK_TRANSFER_REMOTE_READ);
    const uint8_t *data = (const uint8_t *)(uintptr_t)request->address;

    if (status != STATUS_OK) return answer(lane, request, status);
    if (cuda_has(lane->transfer, request->address)) return cuda_serve(lane, request);
    return target_send_data(lane, request, data, NULL) ? STATUS_OK : STATUS_PROTOCOL;
}

static enum status begin_write(struct lane *lane, const struct wire_header *request)
{
    enum status status = range_check(lane->transfer, request, YOLK_TRANSFER_REMOTE_WRITE);

    ASSERT(lane->landing_bounce == NULL);
    lane->landing_at = (uint8_t *)(uintptr_t)request->address;
    if (status == STATUS_OK && cuda_has(lane->transfer, request->address)) {
        lane->landing_bounce = cuda_landing(lane->transfer, request->length);
        if (lane->landing_bounce != NULL) {
            lane->landing_at = cuda_bounce_memory(lane->landing_bounce);
        } else {
            status = STATUS_FULL;
        }
    }
    lane->landing_status = status;
    lane->landing = status == STATUS_OK ? LANDING_MEMORY : LANDING_SINK;
    return STATUS_OK;
}

static enum status end_write(struct lane *lane)
{
    const struct wire_header *request = &lane->head;
    struct bounce *bounce = lane->landing_bounce;
    const uint8_t *data =
        bounce != NULL ? cuda_bounce_memory(bounce) : (const uint8_t *)(uintptr_t)request->address;
    enum status status = lane->landing_status;

    if (lane->landing == LANDING_MEMORY) {
        ASSERT(status == STATUS_OK);
        ASSERT(buffers_find(&lane->transfer->buffers, request->address, request->length) != NULL);
        if ((request->flags & WIRE_CHECKSUM) != 0 &&
            hash_xxh3(data, (size_t)request->length) != request->checksum) {
            status = STATUS_CORRUPT;
        }
        lane->transfer->stats.bytes_served += request->length;
    }
    lane->landing = LANDING_NONE;
    lane->landing_bounce = NULL;
    if (bounce != NULL && status == STATUS_OK) return cuda_store(lane, request, bounce);
    cuda_bounce_free(bounce);
    if (status == STATUS_OK) return lane_ack(lane, request) ? STATUS_OK : STATUS_PROTOCOL;
    return answer(lane, request, status);
}

static enum status begin_pull(struct lane *lane, const struct wire_header *request)
{
    struct yolk_transfer *transfer = lane->transfer;
    const enum status status = range_check(transfer, request, YOLK_TRANSFER_REMOTE_WRITE);

    if (status != STATUS_OK) return answer(lane, request, status);
    struct share *share = session_find(lane->session, request->source, request->length);
    if (share == NULL || share->identity == NULL ||
        (share->device && !cuda_has(transfer, request->address))) {
        return answer(lane, request, STATUS_UNSUPPORTED);
    }
    struct slice *slice = slice_new(transfer);
    if (slice == NULL) return answer(lane, request, STATUS_FULL);
    slice->lane = lane;
    slice->class = request->class;
    slice->length = request->length;
    slice->pull = *request;
    slice->session = lane->session;
    slice->share = share;
    slice->to = (uint8_t *)(uintptr_t)request->address;
    if (share->device) {
        if (cuda_fetch(transfer, slice, request->source)) return STATUS_OK;
        slice_free(transfer, slice);
        return answer(lane, request, STATUS_UNSUPPORTED);
    }
    slice->from = share_at(share, request->source);
    copy_queue(transfer, slice);
    return STATUS_OK;
}

void target_pull_done(struct yolk_transfer *transfer, struct slice *slice, enum status status)
{
    struct lane *lane = slice->lane;

    ASSERT(lane != NULL && lane->state == LANE_READY);
    if (status == STATUS_OK) transfer->stats.bytes_served += slice->length;
    if (status == STATUS_NOT_FOUND) status = STATUS_UNSUPPORTED; /* no longer shared: send it */
    struct bounce *bounce = slice->bounce;
    if (status == STATUS_OK) slice->bounce = NULL; /* it goes on */
    if (status == STATUS_OK && bounce != NULL) {
        if (cuda_store(lane, &slice->pull, bounce) != STATUS_OK) lane_die(lane, STATUS_PROTOCOL);
    } else if (lane_answer(lane, &slice->pull, status)) {
        lane_flush(lane);
    } else {
        lane_die(lane, STATUS_PROTOCOL);
    }
    slice_free(transfer, slice);
}

/* ---- control ---- */

/* Those that have not begun, or, of the host's memory, not ended. */
static void pulls_filter(struct yolk_transfer *transfer,
                         bool (*match)(const struct slice *, const void *), const void *what,
                         void (*fn)(struct yolk_transfer *, struct slice *))
{
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        slice_filter(&transfer->copies[class], match, what, fn, transfer);
    }
    cuda_pulls_filter(transfer, match, what, fn);
}

static bool pull_of_attempt(const struct slice *slice, const void *ctx)
{
    const struct lane *lane = ctx;
    return slice->lane == lane && slice->pull.attempt == lane->head.attempt;
}

static void pull_cancelled(struct yolk_transfer *transfer, struct slice *slice)
{
    copy_release(slice);
    target_pull_done(transfer, slice, STATUS_CANCELLED);
}

static void cancel(struct lane *lane)
{
    struct yolk_transfer *transfer = lane->transfer;

    lane_cancel_answers(lane, lane->head.attempt);
    cuda_cancel(lane, lane->head.attempt);
    pulls_filter(transfer, pull_of_attempt, lane, pull_cancelled);
}

static enum status fence(struct lane *lane, const struct wire_header *request)
{
    const struct wire_header done = { .opcode = WIRE_FENCE_ACK, .address = request->address };
    struct lane *next;

    for (struct lane *other = lane->transfer->lanes; other != NULL; other = next) {
        next = other->next;
        if (other == lane || other->peer != NULL || other->session != lane->session) continue;
        if (other->id == request->address) lane_die(other, STATUS_STALE);
    }
    return lane_send(lane, FRAME_CONTROL, &done, NULL, false) ? STATUS_OK : STATUS_PROTOCOL;
}

static enum status asked(struct lane *lane, const struct wire_header *request)
{
    struct wire_header header = { .opcode = WIRE_SHARE };
    const struct wire_header no = { .opcode = WIRE_ACK, .status = STATUS_NOT_FOUND };
    const struct buffer *buffer = buffers_find(&lane->transfer->buffers, request->address, 1);
    uint8_t bytes[WIRE_SHARE_DEVICE_SIZE];
    const bool device = buffer != NULL && buffer->device != 0;

    /* Who writes to memory of a device asks, too, because it matters what it is. */
    if (buffer == NULL || ((buffer->flags & YOLK_TRANSFER_REMOTE_READ) == 0 && !device)) {
        return lane_send(lane, FRAME_CONTROL, &no, NULL, false) ? STATUS_OK : STATUS_PROTOCOL;
    }
    struct wire_share share = { .address = buffer->address,
                                .length = buffer->length,
                                .flags = buffer->flags };
    const bool offered =
        device       ? lane->session->ipc && (buffer->flags & YOLK_TRANSFER_REMOTE_READ) != 0
        : buffer->vm ? lane->session->vm
                     : true;
    share.device = device && lane->session->ipc;
    if (buffer->identity != NULL && offered) session_describe(buffer, &share);
    header.length = wire_share_encode(&share, bytes);
    return lane_send_control(lane, &header, bytes, (size_t)header.length) ? STATUS_OK
                                                                          : STATUS_PROTOCOL;
}

enum status target_frame(struct lane *lane, const struct wire_header *header)
{
    switch (header->opcode) {
    case WIRE_READ:
        if (++lane->serving > WIRE_REQUESTS_MAX) return STATUS_PROTOCOL;
        return serve_read(lane, header);
    case WIRE_WRITE:
        if (++lane->serving > WIRE_REQUESTS_MAX) return STATUS_PROTOCOL;
        return begin_write(lane, header);
    case WIRE_PULL:
        if (++lane->serving > WIRE_REQUESTS_MAX) return STATUS_PROTOCOL;
        return begin_pull(lane, header);
    case WIRE_CANCEL: cancel(lane); return STATUS_OK;
    case WIRE_FENCE: return fence(lane, header);
    case WIRE_ASK: return asked(lane, header);
    case WIRE_SHARE:
    case WIRE_RAILS:
    case WIRE_NOTIFY:
        if (header->length == 0) return STATUS_PROTOCOL;
        lane->landing = LANDING_CONTROL;
        lane->landing_at = lane->control;
        return STATUS_OK;
    case WIRE_FABRIC:
    case WIRE_FABRIC_ASK:
    case WIRE_FABRIC_GRANT: return fabric_lane_frame(lane, header);
    case WIRE_HELLO:
    case WIRE_AUTH:
    case WIRE_READ_DATA:
    case WIRE_ACK:
    case WIRE_FENCE_ACK:
    case WIRE_PING:
    case WIRE_PONG:
    case WIRE_NOTIFY_ACK:
    case WIRE_ACKS:
    case WIRE_GOODBYE: break;
    }
    return STATUS_PROTOCOL;
}

/* Its own rails are for it to pair with ours: here they are only checked. */
static enum status tell_rails(struct lane *lane)
{
    struct wire_rails theirs;

    lane->landing = LANDING_NONE;
    const enum status status = wire_rails_decode(lane->control, lane->head.length, &theirs);
    if (status != STATUS_OK) return status;
    return lane_send_rails(lane) ? STATUS_OK : STATUS_PROTOCOL;
}

enum status target_payload(struct lane *lane)
{
    struct wire_share share;

    if (lane->head.opcode == WIRE_WRITE) return end_write(lane);
    if (lane->head.opcode == WIRE_RAILS) return tell_rails(lane);
    if (lane->head.opcode == WIRE_NOTIFY) {
        lane->landing = LANDING_NONE;
        return errand_take(lane);
    }
    if (lane->head.opcode == WIRE_FABRIC) return fabric_lane_payload(lane);
    ASSERT(lane->head.opcode == WIRE_SHARE);
    lane->landing = LANDING_NONE;
    const enum status status = wire_share_decode(lane->control, lane->head.length, &share);
    if (status != STATUS_OK) return status;
    if (session_add(lane->session, &share) != STATUS_OK) {
        LOG_WARN("transfer", "shares_full", "peer=%s", env_stream_peer(lane->stream));
    }
    return STATUS_OK;
}

void target_lane_gone(struct lane *lane)
{
    copy_drop_lane(lane->transfer, lane);
    cuda_lane_gone(lane);
}

/* ---- rights taken away ---- */

static enum status revoked(const struct yolk_transfer *transfer, const struct wire_header *header,
                           const struct buffer *buffer)
{
    if (buffer == NULL) return target_check_owner(transfer, header);
    const bool hit =
        buffer_ranges_overlap(header->address, header->length, buffer->address, buffer->length);
    return hit ? STATUS_NOT_FOUND : STATUS_OK;
}

struct revocation {
    const struct yolk_transfer *transfer;
    const struct buffer *buffer;
};

static bool pull_revoked(const struct slice *slice, const void *ctx)
{
    const struct revocation *what = ctx;
    if (slice->lane == NULL) return false;
    return revoked(what->transfer, &slice->pull, what->buffer) != STATUS_OK;
}

static void pull_refuse(struct yolk_transfer *transfer, struct slice *slice)
{
    const bool stale = target_check_owner(transfer, &slice->pull) != STATUS_OK;

    copy_release(slice);
    target_pull_done(transfer, slice, stale ? STATUS_STALE : STATUS_INVALID);
}

static void lane_revoke(struct lane *lane, const struct buffer *buffer)
{
    if (fabric_lane_exposes(lane, buffer)) { /* see I5 there */
        lane_farewell(lane, STATUS_STALE);
        lane_die(lane, STATUS_CANCELLED);
        return;
    }
    if (lane->landing == LANDING_MEMORY) {
        ASSERT(lane->head.opcode == WIRE_WRITE);
        const enum status status = revoked(lane->transfer, &lane->head, buffer);
        if (status != STATUS_OK) lane_stop_landing(lane, status);
    }
    /* An answer that has begun cannot be taken back, and its bytes may go at once. */
    if (buffer != NULL && lane_sends_from(lane, buffer->address, buffer->length)) {
        lane_die(lane, STATUS_CANCELLED);
    }
}

void target_revoke(struct yolk_transfer *transfer, const struct buffer *buffer)
{
    const struct revocation what = { transfer, buffer };
    struct lane *next;

    pulls_filter(transfer, pull_revoked, &what, pull_refuse);
    for (struct lane *lane = transfer->lanes; lane != NULL; lane = next) {
        next = lane->next;
        if (lane->peer == NULL && lane->state == LANE_READY) lane_revoke(lane, buffer);
    }
    cuda_revoke(transfer, buffer);
}
