/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/peer.c - the initiator: which slice goes when, over which path, on which lane; and what
 * happens to slices whose lane is lost.
 *
 * Tasks with bytes to schedule wait in `ready`, slices to repeat in `retry`, each by class. Slices
 * are cut when a lane has room for them, so an urgent task overtakes everything not yet on a lane,
 * and no queue is deeper than the windows. Connections are opened while there is work and none has
 * room, up to lanes_per_peer on each rail (peer_rails.c).
 *
 * Paths. A READ of memory that the target shares on this host is a copy from its mapping (the
 * target is asked once per range, ASK/SHARE). A WRITE of memory that we share is a PULL: the target
 * copies, so it needs no write access of ours and can fence. From device to device it is the same
 * (cuda_ipc.c), but who writes asks, too, whether there is a device at the other end. Everything
 * else is sent.
 *
 * A final state means that no later byte can land. READs: only lane.c and copy.c of this engine
 * write local memory, and peer_withdraw() takes their destination away. WRITEs: a slice is over
 * when
 *   F1  its lane has brought the target's ACK, whatever it says; or
 *   F2  its lane is LOST and the target has confirmed FENCE (it has closed its end, or had), asked
 *       for on any other lane to the same start of the target; or
 *   F3  a greeting, or REFUSALS_GONE refused connects in a row, showed that this start of the
 *       target is no more: where it was, if the peer has a name that may have moved; or
 *   F4  the target's lease on the lane has run out: it closes a connection that was silent that
 *       long before it reads from it again (I2 of lane.c).
 * Only
 * then is the slice repeated, or its task's end made final. A task that was cancelled or is late
 * waits for F1 only so long, then its lanes are closed (peer_cut) and F2 decides.
 *
 * Limits: WIRE_REQUESTS_MAX slices and WINDOW_SIZE bytes per lane. Nothing is refused here: what
 * has no room waits in its batch, whose capacity is the bound. */
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "transfer/transfer_int.h"

enum route {
    ROUTE_SEND,
    ROUTE_FABRIC,
    ROUTE_PULL,
    ROUTE_COPY,
    ROUTE_DEVICE, /* copied by our device from the peer's */
    ROUTE_STAGE,  /* through pinned memory first: cuda.c gives it back with a bounce */
    ROUTE_ASK
};

static uint8_t *task_local(const struct task *task, uint64_t offset)
{
    ASSERT(offset < task->req.length);
    return (uint8_t *)task->req.local + offset;
}

/* Where lanes and copies find, or put, the bytes of the slice. */
static uint8_t *slice_memory(const struct slice *slice)
{
    if (slice->bounce != NULL) return cuda_bounce_memory(slice->bounce);
    ASSERT(slice->task->buffer->device == 0);
    return task_local(slice->task, slice->offset);
}

static bool is_read(const struct task *task)
{
    return task->req.opcode == YOLK_TRANSFER_READ;
}

static void on_peer_timer(void *ctx)
{
    struct peer *peer = ctx;

    transfer_clock(peer->transfer);
    peer_schedule(peer);
}

void peer_init(struct peer *peer, struct yolk_transfer *transfer, const char *name, bool local)
{
    ASSERT(strlen(name) < sizeof(peer->name));
    memset(peer, 0, sizeof(*peer));
    peer->transfer = transfer;
    peer->local = local;
    memcpy(peer->name, name, strlen(name));
    peer->named = !local && transfer_host_length(name) == 0;
    env_timer_init(&peer->timer, on_peer_timer, peer);
    peer_rails_init(peer);
}

void peer_kick(struct peer *peer)
{
    peer->dirty = true;
    transfer_kick(peer->transfer);
}

/* ---- slots of a lane ---- */

static unsigned slot_of(uint64_t request)
{
    return (unsigned)(request % WIRE_REQUESTS_MAX);
}

static struct slice *slot_find(const struct lane *lane, uint64_t request)
{
    struct slice *slice = lane->slots[slot_of(request)];
    return slice != NULL && slice->request == request ? slice : NULL;
}

static void slot_put(struct lane *lane, struct slice *slice)
{
    _Static_assert(WIRE_REQUESTS_MAX == 64, "a bit of slots_used for each");
    ASSERT(lane->slots_used != UINT64_MAX);
    const unsigned slot = (unsigned)__builtin_ctzll(~lane->slots_used);

    slice->request = ++lane->serial * WIRE_REQUESTS_MAX + slot;
    slice->lane = lane;
    slice->sent_ns = lane->transfer->now_ns;
    lane->slots[slot] = slice;
    lane->slots_used |= UINT64_C(1) << slot;
    lane->inflight_count++;
    lane->inflight_size += slice->length;
    lane->visited = true;
    rail_sent(lane->rail, slice->length, slice->sent_ns);
}

static void slot_empty(struct lane *lane, struct slice *slice)
{
    const unsigned slot = slot_of(slice->request);

    ASSERT(lane->slots[slot] == slice);
    ASSERT(lane->inflight_count > 0 && lane->inflight_size >= slice->length);
    lane->slots[slot] = NULL;
    lane->slots_used &= ~(UINT64_C(1) << slot);
    lane->inflight_count--;
    lane->inflight_size -= slice->length;
    slice->lane = NULL;
    slice->fabric = FABRIC_NONE;
}

static void slot_clear(struct lane *lane, struct slice *slice)
{
    slot_empty(lane, slice);
    if (lane->rail != NULL) rail_taken(lane->rail, slice->length);
}

/* As slot_clear(), when its bytes have arrived: the rail is that fast. */
static void slot_done(struct lane *lane, struct slice *slice)
{
    const uint64_t now = lane->transfer->now_ns;
    const bool sent = slice->task == NULL || slice->task->path == YOLK_TRANSFER_PATH_TCP ||
                      slice->task->path == YOLK_TRANSFER_PATH_FABRIC;

    slot_empty(lane, slice);
    if (slice->task != NULL) {
        slice->task->rail_bytes[lane->rail - lane->peer->rails] += slice->length;
    }
    rail_done(lane->rail, slice->length, now - slice->sent_ns, sent, now);
}

/* ---- choosing ---- */

static enum route route_between_hosts(const struct lane *lane)
{
    return lane->transfer->fabric != NULL ? ROUTE_FABRIC : ROUTE_SEND;
}

/* Memory of a device here, no byte of which is in a bounce. */
static enum route route_of_device(struct session *session, const struct task *task, uint64_t offset,
                                  uint64_t length)
{
    if (!session->ipc || session->ipc_refused) return ROUTE_STAGE;
    const struct share *share = session_find(session, task->req.remote + offset, length);
    if (share == NULL) return task->no_share ? ROUTE_STAGE : ROUTE_ASK;
    if (!share->is.device) return ROUTE_STAGE;
    if (!is_read(task)) return task->buffer->identity != NULL ? ROUTE_PULL : ROUTE_STAGE;
    const bool readable = (share->is.flags & YOLK_TRANSFER_REMOTE_READ) != 0;
    return share->identity != NULL && readable ? ROUTE_DEVICE : ROUTE_STAGE;
}

static enum route route_of(const struct lane *lane, const struct task *task,
                           const struct slice *slice, uint64_t offset, uint64_t length)
{
    struct session *session = lane->session;
    const bool bounces = task->buffer->device != 0;

    if (bounces && (slice == NULL || slice->bounce == NULL)) {
        return route_of_device(session, task, offset, length);
    }
    if (!session->shm) return route_between_hosts(lane);
    if (!is_read(task)) {
        const bool refused =
            task->buffer->vm ? !session->vm || session->vm_pull_refused : session->pull_refused;
        const bool pull =
            task->buffer->identity != NULL && !bounces && !refused && length >= PULL_SIZE_MIN;
        return pull ? ROUTE_PULL : route_between_hosts(lane);
    }
    const struct share *share = session_find(session, task->req.remote + offset, length);
    if (share == NULL) return task->no_share ? route_between_hosts(lane) : ROUTE_ASK;
    if (share->identity == NULL || share->device ||
        (share->is.flags & YOLK_TRANSFER_REMOTE_READ) == 0) {
        return route_between_hosts(lane);
    }
    return ROUTE_COPY;
}

/* ---- sending ---- */

static bool announce(struct lane *lane, const struct buffer *buffer)
{
    const uint64_t bit = UINT64_C(1) << (buffer->slot % 64);
    struct wire_header header = { .opcode = WIRE_SHARE };
    struct wire_share share = { .address = buffer->address,
                                .length = buffer->length,
                                .flags = YOLK_TRANSFER_REMOTE_READ };
    uint8_t bytes[WIRE_SHARE_DEVICE_SIZE];

    if ((lane->announced[buffer->slot / 64] & bit) != 0) return true;
    session_describe(buffer, &share);
    header.length = wire_share_encode(&share, bytes);
    if (!lane_send_control(lane, &header, bytes, (size_t)header.length)) return false;
    lane->announced[buffer->slot / 64] |= bit;
    return true;
}

static void request_fill(const struct task *task, const struct slice *slice, enum route route,
                         struct wire_header *header)
{
    *header = (struct wire_header){ .opcode = WIRE_READ,
                                    .flags = task->req.checksum ? WIRE_CHECKSUM : 0,
                                    .class = slice->class,
                                    .attempt = task->id,
                                    .request = slice->request,
                                    .epoch = task->req.epoch,
                                    .term = task->req.term,
                                    .address = task->req.remote + slice->offset,
                                    .length = slice->length };
    if (is_read(task)) return;
    header->opcode = route == ROUTE_PULL ? WIRE_PULL : WIRE_WRITE;
    if (route == ROUTE_PULL) {
        header->source = (uintptr_t)task_local(task, slice->offset);
        header->flags = 0;
    } else if (task->req.checksum) {
        header->checksum = hash_xxh3(slice_memory(slice), (size_t)slice->length);
    }
}

static void issue(struct lane *lane, struct slice *slice, enum route route)
{
    struct task *task = slice->task;
    struct wire_header header;
    bool queued;

    ASSERT(slice->length <= WIRE_SLICE_MAX && slice->offset + slice->length <= task->req.length);
    slot_put(lane, slice);
    task->slices_out++;
    if (route == ROUTE_FABRIC) {
        task_started(lane->transfer, task, YOLK_TRANSFER_PATH_FABRIC);
        fabric_lane_issue(lane, slice);
        return;
    }
    task_started(lane->transfer, task,
                 route != ROUTE_PULL         ? YOLK_TRANSFER_PATH_TCP
                 : task->buffer->device != 0 ? YOLK_TRANSFER_PATH_CUDA
                 : task->buffer->vm          ? YOLK_TRANSFER_PATH_VM
                                             : YOLK_TRANSFER_PATH_SHM);
    request_fill(task, slice, route, &header);
    queued = route != ROUTE_PULL || announce(lane, task->buffer);
    queued = queued && lane_send(lane, slice->class, &header,
                                 header.opcode == WIRE_WRITE ? slice_memory(slice) : NULL, false);
    if (!queued) lane_die(lane, STATUS_NO_MEMORY);
}

static void issue_copy(struct lane *lane, struct slice *slice)
{
    struct task *task = slice->task;
    const uint64_t remote = task->req.remote + slice->offset;

    slice->session = lane->session;
    slice->share = session_find(lane->session, remote, slice->length);
    ASSERT(slice->share != NULL && slice->share->identity != NULL);
    slice->from = share_at(slice->share, remote);
    slice->to = slice_memory(slice);
    slice->done = 0;
    task->slices_out++;
    task_started(lane->transfer, task, share_path(slice->share));
    copy_queue(lane->transfer, slice);
}

/* False if the driver does not open it: then it has to be staged. */
static bool issue_device(struct lane *lane, struct slice *slice)
{
    struct task *task = slice->task;
    const uint64_t remote = task->req.remote + slice->offset;

    slice->session = lane->session;
    slice->share = session_find(lane->session, remote, slice->length);
    ASSERT(slice->share != NULL && slice->share->device);
    slice->to = task_local(task, slice->offset);
    if (!cuda_fetch(lane->transfer, slice, remote)) return false;
    task->slices_out++;
    task_started(lane->transfer, task, YOLK_TRANSFER_PATH_CUDA);
    return true;
}

enum status peer_find_share(struct peer *peer, uint64_t address, uint64_t length,
                            struct session **session, struct share **share)
{
    const struct wire_header header = { .opcode = WIRE_ASK, .address = address };
    struct lane *lane = NULL;

    for (int i = 0; i < YOLK_TRANSFER_LANES_MAX && lane == NULL; i++) {
        if (peer->lanes[i] != NULL && peer->lanes[i]->state == LANE_READY) lane = peer->lanes[i];
    }
    if (lane == NULL) {
        peer_connect_more(peer);
        return STATUS_AGAIN;
    }
    if (!lane->session->shm) return STATUS_UNSUPPORTED;
    *session = lane->session;
    *share = session_find(lane->session, address, length);
    if (*share != NULL) return STATUS_OK;
    if (peer->ask_denied && peer->ask_address == address) {
        peer->ask_denied = false;
        peer->ask_address = 0;
        return STATUS_NOT_FOUND;
    }
    if (session_find(lane->session, address, 1) != NULL) return STATUS_NOT_FOUND; /* too long */
    if (peer->ask_lane != NULL || !lane_has_room(lane)) return STATUS_AGAIN;
    if (!lane_send(lane, FRAME_CONTROL, &header, NULL, false)) return STATUS_AGAIN;
    peer->ask_lane = lane;
    peer->ask_task = NULL;
    peer->ask_address = address;
    peer->ask_denied = false;
    lane_flush(lane);
    return STATUS_AGAIN;
}

static void ask(struct peer *peer, struct lane *lane, struct task *task, uint64_t offset)
{
    const struct wire_header header = { .opcode = WIRE_ASK, .address = task->req.remote + offset };

    if (peer->ask_lane != NULL) return;
    peer->ask_lane = lane;
    peer->ask_task = task;
    peer->ask_address = 0;
    if (!lane_send(lane, FRAME_CONTROL, &header, NULL, false)) lane_die(lane, STATUS_FULL);
}

/* False if the slice has to wait for an answer. */
static bool place(struct peer *peer, struct lane *lane, struct slice *slice)
{
    const enum route route = route_of(lane, slice->task, slice, slice->offset, slice->length);

    switch (route) {
    case ROUTE_DEVICE:
        if (issue_device(lane, slice)) return true;
        lane->session->ipc_refused = true;
        cuda_stage(lane->transfer, slice);
        return true;
    case ROUTE_STAGE: cuda_stage(lane->transfer, slice); return true;
    case ROUTE_ASK: ask(peer, lane, slice->task, slice->offset); return false;
    case ROUTE_COPY: issue_copy(lane, slice); return true;
    case ROUTE_SEND:
    case ROUTE_FABRIC:
    case ROUTE_PULL: issue(lane, slice, route); return true;
    }
    return false;
}

/* Four times as long as others', however slow the rail is: to post one and to hear of its end costs
 * a provider over sockets several system calls and wake-ups at both ends, as much as hundreds of
 * kilobytes do. Background is overtaken sooner with short ones. */
static uint64_t fabric_slice_size(const struct lane *lane, int class)
{
    const uint64_t size = lane->transfer->slice_size;

    if (class == YOLK_TRANSFER_BACKGROUND) return size;
    return 4 * size < WIRE_SLICE_MAX ? 4 * size : WIRE_SLICE_MAX;
}

static uint64_t slice_length(const struct lane *lane, const struct task *task, enum route route)
{
    const uint64_t left = task->req.length - task->offset;

    if (left <= RAIL_SLICE_SIZE_MIN && left <= lane->transfer->slice_size) return left;
    uint64_t size = rail_slice_size(lane->rail, lane->transfer->slice_size);

    if (route == ROUTE_FABRIC) size = fabric_slice_size(lane, (int)task->req.class);
    if (route == ROUTE_COPY || route == ROUTE_DEVICE) size = WIRE_SLICE_MAX;
    if (route == ROUTE_PULL) {
        size = task->buffer->device != 0 ? WIRE_SLICE_MAX : PULL_SLICE_SIZE;
    }
    /* A short tail rides with the slice before it. */
    if (left <= size || (left <= size + size / 4 && left <= WIRE_SLICE_MAX)) return left;
    return size;
}

/* False if the task has to wait for an answer. */
static bool cut_and_place(struct peer *peer, struct lane *lane, struct task *task)
{
    struct yolk_transfer *transfer = peer->transfer;
    const uint64_t size = task->req.length - task->offset;
    const enum route route = route_of(lane, task, NULL, task->offset, size);

    if (route == ROUTE_ASK) {
        ask(peer, lane, task, task->offset);
        return false;
    }
    if (route == ROUTE_STAGE) {
        task_unqueue(&peer->ready[task->req.class], task);
        cuda_stage_rest(transfer, task);
        return true;
    }
    struct slice *slice = slice_new(transfer);
    if (slice == NULL) return false;
    slice->task = task;
    slice->class = (uint8_t)task->req.class;
    slice->offset = task->offset;
    slice->length = slice_length(lane, task, route);
    task->offset += slice->length;
    if (task->offset == task->req.length) task_unqueue(&peer->ready[task->req.class], task);
    const bool placed = place(peer, lane, slice);
    ASSERT(placed);
    return true;
}

/* Bound to another start of the peer? Then it is over. */
static bool meant_for(struct peer *peer, struct task *task)
{
    if (transfer_bind(peer->transfer, task, peer->generation)) return true;
    task_end(peer->transfer, task, STATUS_STALE);
    return false;
}

/* May it go on the lane now? OK also for what does not go through its fabric. */
static enum status may_go(struct lane *lane, struct task *task, const struct slice *slice)
{
    const uint64_t offset = slice != NULL ? slice->offset : task->offset;
    const uint64_t length = slice != NULL ? slice->length : task->req.length - offset;

    if (lane->transfer->fabric == NULL) return STATUS_OK;
    if (route_of(lane, task, slice, offset, length) != ROUTE_FABRIC) return STATUS_OK;
    return fabric_lane_gate(lane, task, offset, length);
}

/* Puts one slice of this class on its way; false if there is none that can. */
static bool schedule_one(struct peer *peer, int class)
{
    struct slice *slice = peer->retry[class].head;
    struct task *task = slice != NULL ? slice->task : peer->ready[class].head;

    if (task == NULL) return false;
    struct lane *lane = peer_pick_lane(peer, class, task->buffer);
    if (lane == NULL) return false;
    if (!meant_for(peer, task)) return true;
    const enum status status = may_go(lane, task, slice);
    if (status == STATUS_AGAIN) return false;
    if (status != STATUS_OK) {
        task_end(peer->transfer, task, status);
        return true;
    }
    if (slice == NULL) return cut_and_place(peer, lane, task);
    slice_pop(&peer->retry[class]);
    task->slices_waiting--;
    if (place(peer, lane, slice)) return true;
    task->slices_waiting++;
    slice->next = peer->retry[class].head;
    peer->retry[class].head = slice;
    if (slice->next == NULL) peer->retry[class].tail = slice;
    return false;
}

static void schedule_local(struct peer *peer)
{
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        struct task *task;
        while ((task = peer->ready[class].head) != NULL) {
            struct slice *slice = slice_new(peer->transfer);
            if (slice == NULL) return;
            task_unqueue(&peer->ready[class], task);
            task->offset = task->req.length;
            slice->task = task;
            slice->class = (uint8_t) class;
            slice->length = task->req.length;
            uint8_t *remote = (uint8_t *)(uintptr_t)task->req.remote;
            slice->from = is_read(task) ? remote : task->req.local;
            slice->to = is_read(task) ? task->req.local : remote;
            task->slices_out++;
            task_started(peer->transfer, task, YOLK_TRANSFER_PATH_LOCAL);
            if (!cuda_copy(peer->transfer, slice)) copy_queue(peer->transfer, slice);
        }
    }
}

bool peer_has_work(const struct peer *peer)
{
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        if (peer->ready[class].head != NULL || peer->retry[class].head != NULL) return true;
    }
    return false;
}

void peer_fail_all(struct peer *peer, enum status status)
{
    errand_fail_waiting(peer, status);
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        while (peer->ready[class].head != NULL) {
            task_end(peer->transfer, peer->ready[class].head, status);
        }
        while (peer->retry[class].head != NULL) {
            task_end(peer->transfer, peer->retry[class].head->task, status);
        }
    }
}

bool peer_any_ready(const struct peer *peer)
{
    for (uint32_t i = 0; i < peer->lanes_high; i++) {
        if (peer->lanes[i] != NULL && peer->lanes[i]->state == LANE_READY) return true;
    }
    return false;
}

void peer_schedule(struct peer *peer)
{
    peer->dirty = false;
    if (peer->local) {
        schedule_local(peer);
        return;
    }
    if (peer == &peer->transfer->disk) {
        file_schedule(peer->transfer);
        return;
    }
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        while (schedule_one(peer, class)) {
        }
    }
    if (peer->errands.head != NULL) errand_schedule(peer);
    for (uint32_t i = 0; i < peer->lanes_high; i++) {
        struct lane *lane = peer->lanes[i];
        if (lane == NULL || lane->state != LANE_READY) continue;
        fabric_lane_flush(lane);
        lane_flush(lane);
    }
    const bool full = peer_has_work(peer) && peer->ask_lane == NULL;
    const bool lonely = (peer->lost_count > 0 || errand_waiting(peer)) && !peer_any_ready(peer);
    if (full || lonely || peer_rails_lacking(peer)) peer_connect_more(peer);
    peer_rails_watch(peer);
}

/* ---- lanes lost ---- */

/* What was in flight on a lost lane is nowhere now. */
static void lost_resolve(struct lane *lane, enum status status, bool retry)
{
    struct yolk_transfer *transfer = lane->transfer;

    ASSERT(lane->state == LANE_LOST && lane->peer->lost_count > 0);
    env_timer_cancel(transfer->env, &lane->timer);
    for (int i = 0; i < WIRE_REQUESTS_MAX; i++) {
        struct slice *slice = lane->slots[i];
        if (slice == NULL) continue;
        struct task *task = slice->task;
        slot_clear(lane, slice);
        if (retry) {
            task_slice_lost(transfer, slice, status, true);
        } else {
            task->slices_out--;
            slice_free(transfer, slice);
            task_end(transfer, task, status);
            task_settle(transfer, task);
        }
    }
    lane->peer->lost_count--;
    lane_die(lane, status);
}

/* fn() on every lost lane of the peer; it may resolve them. */
static void each_lost(struct peer *peer, void (*fn)(struct lane *, void *), void *ctx)
{
    struct lane *next;

    for (struct lane *lane = peer->transfer->lanes; lane != NULL; lane = next) {
        next = lane->next;
        if (lane->peer == peer && lane->state == LANE_LOST) fn(lane, ctx);
    }
}

static void lost_ask_fence(struct lane *lost, void *ctx)
{
    struct lane *lane = ctx;
    const uint64_t bit = UINT64_C(1) << lane->index;
    const struct wire_header fence = { .opcode = WIRE_FENCE, .address = lost->id };

    if ((lost->asked & bit) != 0 || lane->state != LANE_READY) return;
    if (lost->session != lane->session) return; /* that one cannot know */
    if (!lane_send(lane, FRAME_CONTROL, &fence, NULL, false)) {
        lane_die(lane, STATUS_FULL);
        return;
    }
    lost->asked |= bit;
    lane->fences++;
    rail_fence(lane->rail, env_now_ns(lane->transfer->env));
}

static void lost_forget_asked(struct lane *lost, void *ctx)
{
    const struct lane *lane = ctx;
    lost->asked &= ~(UINT64_C(1) << lane->index);
}

/* A name may lead elsewhere than it did, which says nothing about who was there before. */
static bool lost_was_at(const struct lane *lost, const char *address)
{
    return !lost->peer->named || strcmp(lost->session->name, address) == 0;
}

static void lost_is_gone(struct lane *lost, void *ctx)
{
    (void)ctx;
    if (lost_was_at(lost, lost->peer->rails[0].remote))
        lost_resolve(lost, STATUS_CONN_REFUSED, false);
}

static void lost_if_other_start(struct lane *lost, void *ctx)
{
    const struct lane *lane = ctx;
    if (lost->session != lane->session && lost_was_at(lost, lane->session->name))
        lost_resolve(lost, STATUS_STALE, false);
}

/* Over one lane of each rail: the way that works is not always the one that looks so. */
static void lost_ask_all(struct peer *peer)
{
    uint32_t asked = 0;

    for (int i = 0; i < YOLK_TRANSFER_LANES_MAX; i++) {
        struct lane *lane = peer->lanes[i];
        if (lane == NULL || lane->state != LANE_READY) continue;
        const uint32_t bit = 1u << (lane->rail - peer->rails);
        if ((asked & bit) != 0) continue;
        asked |= bit;
        each_lost(peer, lost_ask_fence, lane);
        if (lane->state == LANE_READY) lane_flush(lane);
    }
}

void peer_lost_are_gone(struct peer *peer)
{
    each_lost(peer, lost_is_gone, NULL);
}

/* True if it has not begun to leave, and now never will. */
static bool take_back(struct lane *lane, struct slice *slice)
{
    if (slice->fabric != FABRIC_NONE) return fabric_lane_unsend(lane, slice);
    return lane_unsend(lane, slice->request, slice->class);
}

/* Returns true if the target may still be writing something that was on it. */
static bool lane_release(struct lane *lane)
{
    bool may_land = false;

    for (int i = 0; i < WIRE_REQUESTS_MAX; i++) {
        struct slice *slice = lane->slots[i];
        if (slice == NULL) continue;
        const bool landing = slice->task != NULL && !lane->farewell &&
                             (!is_read(slice->task) || slice->fabric != FABRIC_NONE);
        if (landing && !take_back(lane, slice)) {
            may_land = true;
            continue;
        }
        slot_clear(lane, slice);
        task_slice_lost(lane->transfer, slice, STATUS_CONN_CLOSED, true);
    }
    return may_land;
}

static void lane_lose(struct lane *lane)
{
    struct env *env = lane->transfer->env;

    lane_set_state(lane, LANE_LOST);
    lane->peer->lost_count++;
    env_timer_set(env, &lane->timer, env_now_ns(env) + lane->lease_ns + lane->lease_ns / 4);
    lost_ask_all(lane->peer);
}

void peer_lane_gone(struct lane *lane, enum status status)
{
    struct peer *peer = lane->peer;
    struct rail *rail = lane->rail;
    const bool was_ready = lane->state == LANE_READY;

    ASSERT(peer->lanes[lane->index] == lane);
    peer->lanes[lane->index] = NULL;
    while (peer->lanes_high > 0 && peer->lanes[peer->lanes_high - 1] == NULL)
        peer->lanes_high--;
    if (peer->ask_lane == lane) {
        peer->ask_lane = NULL;
        peer->ask_task = NULL;
    }
    each_lost(peer, lost_forget_asked, lane);
    errand_lane_gone(lane);
    lane->landing_slice = NULL;
    const bool may_land = lane_release(lane);
    rail_taken(rail, lane->inflight_size);
    rail_fenced(rail, lane->fences);
    rail->lanes--;
    lane->rail = NULL;
    if (may_land) {
        lane_lose(lane);
    } else {
        lane_set_state(lane, LANE_DEAD);
    }
    lane->transfer->connected_count--;
    if (!peer_any_ready(peer)) peer->found = false;
    if (!was_ready) peer_connect_failed(peer, rail, status);
    if (peer->lost_count > 0) lost_ask_all(peer);
    peer_kick(peer);
}

static void arm_ping(struct lane *lane)
{
    struct env *env = lane->transfer->env;

    env_timer_set(env, &lane->timer, env_now_ns(env) + lane->lease_ns / 4);
}

static void name_met(const struct lane *lane)
{
    struct wire_hello hello;

    if (wire_hello_decode(lane->hello_theirs, WIRE_HELLO_SIZE, &hello) != STATUS_OK) return;
    memcpy(lane->peer->met_name, hello.name, sizeof(hello.name));
}

void peer_lane_ready(struct lane *lane)
{
    struct peer *peer = lane->peer;

    if (!peer_lane_is_ours(lane)) return;
    rail_connected(lane->rail, env_now_ns(lane->transfer->env));
    peer->failures = 0;
    peer->refusals = 0;
    if (peer->generation != lane->session->generation) {
        LOG_INFO("transfer", "peer_met", "peer=%s generation=%llx", peer->name,
                 (unsigned long long)lane->session->generation);
    }
    peer->generation = lane->session->generation;
    name_met(lane);
    for (int i = 0; i < YOLK_TRANSFER_LANES_MAX; i++) {
        struct lane *other = peer->lanes[i];
        if (other != NULL && other->state == LANE_READY && other->session != lane->session) {
            lane_die(other, STATUS_STALE);
        }
    }
    each_lost(peer, lost_if_other_start, lane);
    each_lost(peer, lost_ask_fence, lane);
    if (lane->state == LANE_READY) peer_rails_ask(lane);
    if (lane->state != LANE_READY) return;
    arm_ping(lane);
    peer_kick(peer);
}

void peer_lane_timer(struct lane *lane)
{
    const struct wire_header ping = { .opcode = WIRE_PING };
    const uint64_t now = env_now_ns(lane->transfer->env);

    if (lane->state == LANE_LOST) { /* F4 */
        lost_resolve(lane, STATUS_UNAVAILABLE, false);
    } else if (now - lane->heard_ns > lane->lease_ns ||
               !lane_send(lane, FRAME_CONTROL, &ping, NULL, false)) {
        lane_die(lane, STATUS_TIMEOUT);
    } else {
        arm_ping(lane);
        lane_flush(lane);
    }
}

/* ---- answers ---- */

static void ask_answered(struct peer *peer, bool shared)
{
    if (!shared && peer->ask_task != NULL) peer->ask_task->no_share = true;
    if (!shared && peer->ask_task == NULL && peer->ask_address != 0) peer->ask_denied = true;
    peer->ask_lane = NULL;
    peer->ask_task = NULL;
}

/* The slice is off its lane, and the target has said something else than OK. */
static void refused(struct lane *lane, struct slice *slice, enum status status)
{
    struct yolk_transfer *transfer = lane->transfer;
    struct task *task = slice->task;

    if (task == NULL || status == STATUS_CORRUPT) {
        task_slice_lost(transfer, slice, status, true);
        return;
    }
    if (status == STATUS_UNSUPPORTED && !is_read(task)) {
        *(task->buffer->device != 0 ? &lane->session->ipc_refused
          : task->buffer->vm        ? &lane->session->vm_pull_refused
                                    : &lane->session->pull_refused) = true;
        task_slice_lost(transfer, slice, status, false);
        return;
    }
    task->slices_out--;
    slice_free(transfer, slice);
    task_end(transfer, task, status);
    task_settle(transfer, task);
}

static enum status got_ack(struct lane *lane, const struct wire_header *header)
{
    struct slice *slice = slot_find(lane, header->request);

    if (header->request == 0 && lane->peer->ask_lane == lane) {
        ask_answered(lane->peer, false);
        return STATUS_OK;
    }
    if (slice == NULL) return STATUS_PROTOCOL;
    if (header->status == STATUS_OK && (slice->task == NULL || is_read(slice->task))) {
        return STATUS_PROTOCOL;
    }
    if (header->status == STATUS_OK) {
        slot_done(lane, slice);
        task_slice_done(lane->transfer, slice);
    } else {
        slot_clear(lane, slice);
        refused(lane, slice, header->status);
    }
    return STATUS_OK;
}

static enum status got_acks(struct lane *lane)
{
    struct wire_header one = { .opcode = WIRE_ACK, .status = STATUS_OK };
    enum status status = STATUS_OK;

    for (uint64_t at = 0; at < lane->head.length && status == STATUS_OK; at += WIRE_ACK_SIZE) {
        one.request = wire_ack_decode(lane->control + at);
        if (one.request == 0) return STATUS_PROTOCOL;
        status = got_ack(lane, &one);
    }
    return status;
}

static enum status got_read_data(struct lane *lane, const struct wire_header *header)
{
    struct slice *slice = slot_find(lane, header->request);

    if (slice == NULL || slice->length != header->length) return STATUS_PROTOCOL;
    if (slice->task != NULL && !is_read(slice->task)) return STATUS_PROTOCOL;
    lane->landing_slice = slice;
    if (slice->task == NULL) {
        lane->landing = LANDING_SINK;
    } else {
        lane->landing = LANDING_MEMORY;
        lane->landing_at = slice_memory(slice);
    }
    return STATUS_OK;
}

struct fenced {
    const struct lane *by;
    uint64_t id;
};

static void lost_fenced(struct lane *lost, void *ctx)
{
    const struct fenced *fenced = ctx;

    if ((lost->asked & UINT64_C(1) << fenced->by->index) == 0 || lost->id != fenced->id) return;
    lost->transfer->stats.fences++;
    lost_resolve(lost, STATUS_CONN_CLOSED, true);
}

enum status peer_frame(struct lane *lane, const struct wire_header *header)
{
    struct fenced fenced = { .by = lane, .id = header->address };

    switch (header->opcode) {
    case WIRE_READ_DATA: return got_read_data(lane, header);
    case WIRE_ACK: return got_ack(lane, header);
    case WIRE_ACKS:
        if (header->length == 0 || header->length % WIRE_ACK_SIZE != 0) return STATUS_PROTOCOL;
        if (header->flags != WIRE_CHECKSUM) return STATUS_PROTOCOL;
        lane->landing = LANDING_CONTROL;
        lane->landing_at = lane->control;
        return STATUS_OK;
    case WIRE_FENCE_ACK:
        if (lane->fences == 0) return STATUS_PROTOCOL;
        lane->fences--;
        rail_fenced(lane->rail, 1);
        each_lost(lane->peer, lost_fenced, &fenced);
        return STATUS_OK;
    case WIRE_NOTIFY_ACK: /* of one that was given up by now, perhaps */
        (void)errand_answered(lane, header->request, false, header->status);
        return STATUS_OK;
    case WIRE_RAILS:
        if (header->length == 0) return STATUS_PROTOCOL;
        lane->landing = LANDING_CONTROL;
        lane->landing_at = lane->control;
        return STATUS_OK;
    case WIRE_SHARE:
        if (lane->peer->ask_lane != lane || header->length == 0) return STATUS_PROTOCOL;
        lane->landing = LANDING_CONTROL;
        lane->landing_at = lane->control;
        return STATUS_OK;
    case WIRE_FABRIC:
    case WIRE_FABRIC_ASK:
    case WIRE_FABRIC_GRANT: return fabric_lane_frame(lane, header);
    case WIRE_HELLO:
    case WIRE_AUTH:
    case WIRE_READ:
    case WIRE_WRITE:
    case WIRE_PULL:
    case WIRE_CANCEL:
    case WIRE_FENCE:
    case WIRE_ASK:
    case WIRE_PING:
    case WIRE_PONG:
    case WIRE_NOTIFY:
    case WIRE_GOODBYE: break;
    }
    return STATUS_PROTOCOL;
}

void peer_slice_moved(struct lane *lane, struct slice *slice)
{
    slot_done(lane, slice);
    task_slice_done(lane->transfer, slice);
}

static enum status read_complete(struct lane *lane)
{
    struct yolk_transfer *transfer = lane->transfer;
    struct slice *slice = lane->landing_slice;

    ASSERT(slice != NULL);
    lane->landing_slice = NULL;
    slot_done(lane, slice);
    const struct task *task = slice->task;
    if (task == NULL) {
        slice_free(transfer, slice);
    } else if ((lane->head.flags & WIRE_CHECKSUM) != 0 &&
               hash_xxh3(slice_memory(slice), (size_t)slice->length) != lane->head.checksum) {
        task_slice_lost(transfer, slice, STATUS_CORRUPT, true);
    } else if (slice->bounce != NULL) {
        cuda_land(transfer, slice);
    } else {
        task_slice_done(transfer, slice);
    }
    return STATUS_OK;
}

static enum status rails_complete(struct lane *lane)
{
    struct wire_rails rails;
    const enum status status = wire_rails_decode(lane->control, lane->head.length, &rails);

    return status == STATUS_OK ? peer_rails_learn(lane, &rails) : status;
}

enum status peer_payload(struct lane *lane)
{
    struct wire_share share;

    lane->landing = LANDING_NONE;
    if (lane->head.opcode == WIRE_READ_DATA) return read_complete(lane);
    if (lane->head.opcode == WIRE_RAILS) return rails_complete(lane);
    if (lane->head.opcode == WIRE_ACKS) return got_acks(lane);
    if (lane->head.opcode == WIRE_FABRIC || lane->head.opcode == WIRE_FABRIC_GRANT) {
        return fabric_lane_payload(lane);
    }
    ASSERT(lane->head.opcode == WIRE_SHARE);
    enum status status = wire_share_decode(lane->control, lane->head.length, &share);
    if (status != STATUS_OK) return status;
    status = session_add(lane->session, &share);
    const struct task *task = lane->peer->ask_task;
    const uint64_t address = task != NULL ? task->req.remote : lane->peer->ask_address;
    const uint64_t length = task != NULL ? task->req.length : 1;
    /* A range that runs out of the buffer is not covered: the target will say so when asked for it.
     */
    const bool covered =
        status == STATUS_OK && session_find(lane->session, address, length) != NULL;
    ask_answered(lane->peer, covered);
    return STATUS_OK;
}

/* ---- taking tasks back ---- */

static bool slice_of_task(const struct slice *slice, const void *task)
{
    return slice->task == task;
}

static void waiting_drop(struct yolk_transfer *transfer, struct slice *slice)
{
    ASSERT(slice->task->slices_waiting > 0);
    slice->task->slices_waiting--;
    slice_free(transfer, slice);
}

/* Takes the slice back if it has not begun to leave; a READ over tcp that has is left to nobody. */
static bool slice_withdraw(struct lane *lane, struct slice *slice)
{
    struct task *task = slice->task;

    if (take_back(lane, slice)) {
        slot_clear(lane, slice);
        slice_free(lane->transfer, slice);
        task->slices_out--;
        return true;
    }
    if (!is_read(task) || slice->fabric != FABRIC_NONE) return false;
    if (lane->landing_slice == slice) lane_stop_landing(lane, STATUS_CANCELLED);
    slice->task = NULL;
    task->slices_out--;
    return false;
}

static void lane_withdraw(struct lane *lane, const struct task *task)
{
    const struct wire_header cancel = { .opcode = WIRE_CANCEL, .attempt = task->id };
    bool left = false;

    for (int i = 0; i < WIRE_REQUESTS_MAX; i++) {
        struct slice *slice = lane->slots[i];
        if (slice != NULL && slice->task == task && !slice_withdraw(lane, slice)) left = true;
    }
    /* Only a favour to the target, so no matter if there is no room for it. */
    if (left && lane_has_room(lane) && lane_send(lane, FRAME_CONTROL, &cancel, NULL, false)) {
        peer_kick(lane->peer);
    }
}

void peer_withdraw(struct task *task)
{
    struct peer *peer = task->peer;
    struct yolk_transfer *transfer = peer->transfer;

    cuda_withdraw(transfer, task);
    if (task->queued) task_unqueue(&peer->ready[task->req.class], task);
    slice_filter(&peer->retry[task->req.class], slice_of_task, task, waiting_drop, transfer);
    copy_drop_task(transfer, task);
    if (peer->ask_task == task) peer->ask_task = NULL;
    for (int i = 0; i < YOLK_TRANSFER_LANES_MAX; i++) {
        struct lane *lane = peer->lanes[i];
        if (lane == NULL || lane->state != LANE_READY) continue;
        fabric_lane_forget_task(lane, task);
        lane_withdraw(lane, task);
    }
    ASSERT(task->slices_waiting == 0 && !task->queued);
}

static bool lane_has(const struct lane *lane, const struct task *task)
{
    for (int i = 0; i < WIRE_REQUESTS_MAX; i++) {
        if (lane->slots[i] != NULL && lane->slots[i]->task == task) return true;
    }
    return false;
}

void peer_cut(struct task *task)
{
    struct peer *peer = task->peer;

    for (int i = 0; i < YOLK_TRANSFER_LANES_MAX; i++) {
        struct lane *lane = peer->lanes[i];
        if (lane != NULL && lane->state == LANE_READY && lane_has(lane, task)) {
            lane_die(lane, STATUS_TIMEOUT);
        }
    }
}
