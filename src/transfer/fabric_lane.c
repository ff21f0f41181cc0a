/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/fabric_lane.c - see fabric_lane.h. */
#include "transfer/fabric_lane.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "transfer/fabric.h"
#include "transfer/fabric_engine.h"
#include "transfer/transfer_int.h"

enum { DONE_MAX = 16, POLLS_PER_TURN = 64 };

#define AWAKE_NS (20 * ENV_NS_PER_MS) /* a target that must be polled is, after hearing something */
#define TELL_NS (5 * ENV_NS_PER_MS)   /* so it is told this often that there is work */
#define CONNECTING_NS ENV_NS_PER_MS   /* before trying again to post on a link that connects */
#define EAGER_NS (200 * ENV_NS_PER_US) /* polled in every turn for so long after something came */
#define IDLE_MAX_NS ENV_NS_PER_MS

struct fabric_lane {
    struct lane *lane;
    struct fabric_link *link;
    struct env_watch *watch; /* NULL: to be polled */
    struct env_timer timer;
    bool open;            /* both ends know each other */
    uint64_t epoch, term; /* of the target, as it said last */
    uint64_t active_ns;   /* something was posted or came */
    uint64_t told_ns;
    uint32_t posted;
    struct slice_list waiting[WIRE_CLASSES];
    struct fabric_memory *memory[YOLK_TRANSFER_BUFFERS_MAX]; /* by slot: ours; target: granted */
    struct wire_grant *grants;                               /* initiator */
    uint32_t grant_count, grant_room;
    bool asking;
    struct task *ask_task; /* NULL: nobody waits for the answer any more */
    uint64_t ask_address;
};

static struct yolk_transfer *transfer_of(const struct fabric_lane *fabric)
{
    return fabric->lane->transfer;
}

/* ---- progress ---- */

static bool has_waiting(const struct fabric_lane *fabric)
{
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        if (fabric->waiting[class].head != NULL) return true;
    }
    return false;
}

/* How long until a link without a descriptor is polled again; ENV_NEVER: when it is told to. */
static uint64_t pause_ns(const struct fabric_lane *fabric, uint64_t now)
{
    if (fabric->lane->peer == NULL) {
        return now - fabric->lane->heard_ns < AWAKE_NS ? 0 : ENV_NEVER;
    }
    if (fabric->posted == 0 && !has_waiting(fabric)) return ENV_NEVER;
    const uint64_t quiet_ns = now - fabric->active_ns;
    if (quiet_ns < EAGER_NS) return 0;
    return quiet_ns / 8 < IDLE_MAX_NS ? quiet_ns / 8 : IDLE_MAX_NS;
}

static void tell_target(struct fabric_lane *fabric, uint64_t now)
{
    const struct wire_header ping = { .opcode = WIRE_PING };
    struct lane *lane = fabric->lane;

    if (lane->peer == NULL || (fabric->posted == 0 && !has_waiting(fabric))) return;
    if (now - fabric->told_ns < TELL_NS || !lane_has_room(lane)) return;
    fabric->told_ns = now;
    if (lane_send(lane, FRAME_CONTROL, &ping, NULL, false)) peer_kick(lane->peer);
}

/* Sees to it that the link is looked at again in time. */
static void rest(struct fabric_lane *fabric)
{
    struct env *env = transfer_of(fabric)->env;
    const uint64_t now = env_now_ns(env);
    uint64_t wait_ns = ENV_NEVER;

    if (fabric->watch == NULL) {
        tell_target(fabric, now);
        wait_ns = pause_ns(fabric, now);
    } else if (!fabric_link_quiet(fabric->link)) {
        wait_ns = 0;
    } else if (has_waiting(fabric)) {
        wait_ns = CONNECTING_NS;
    }
    if (wait_ns == ENV_NEVER) {
        env_timer_cancel(env, &fabric->timer);
    } else {
        env_timer_set(env, &fabric->timer, now + wait_ns);
    }
}

/* False if the lane has died of it. */
static bool take_done(struct fabric_lane *fabric, const struct fabric_done *done, int count)
{
    struct lane *lane = fabric->lane;

    if (count > 0) fabric->active_ns = transfer_clock(lane->transfer);
    for (int i = 0; i < count; i++) {
        struct slice *slice = done[i].ctx;
        ASSERT(lane->peer != NULL && slice->lane == lane && slice->fabric == FABRIC_POSTED);
        if (done[i].status != STATUS_OK) { /* see I1 */
            LOG_WARN("transfer", "fabric_failed", "peer=%s reason=%s", lane->peer->name,
                     status_name(done[i].status));
            lane_die(lane, STATUS_CONN_CLOSED);
            return false;
        }
        ASSERT(fabric->posted > 0);
        fabric->posted--;
        peer_slice_moved(lane, slice);
    }
    if (count > 0) rail_heard(lane->rail, fabric->active_ns);
    return true;
}

static bool progress(struct fabric_lane *fabric)
{
    struct lane *lane = fabric->lane;
    struct fabric_done done[DONE_MAX];
    int n = 1;

    for (int polls = 0; polls < POLLS_PER_TURN && n > 0; polls++) {
        if (lane_expired(lane)) { /* see I4 */
            lane_die(lane, STATUS_TIMEOUT);
            return false;
        }
        n = fabric_link_poll(fabric->link, done, DONE_MAX, 0);
        if (n < 0) {
            lane_die(lane, STATUS_CONN_CLOSED);
            return false;
        }
        if (!take_done(fabric, done, n)) return false;
    }
    return true;
}

/* From the loop: the descriptor is readable, or it is time to look. */
static void on_ready(void *ctx)
{
    struct fabric_lane *fabric = ctx;
    struct lane *lane = fabric->lane;
    struct yolk_transfer *transfer = lane->transfer;

    if (!progress(fabric)) return;
    if (lane->peer == NULL) {
        rest(fabric);
    } else if (transfer->done_head != NULL) {
        lane->peer->dirty = true;
        transfer_turn(transfer); /* it flushes; and may free the lane */
    } else {
        peer_schedule(lane->peer);
    }
}

void fabric_lane_heard(struct lane *lane)
{
    if (lane->fabric != NULL && lane->fabric->watch == NULL) rest(lane->fabric);
}

/* ---- opening and closing ---- */

static enum status fabric_lane_new(struct lane *lane)
{
    struct yolk_transfer *transfer = lane->transfer;
    struct fabric *at = fabric_engine_at(transfer->fabric, env_stream_local_host(lane->stream));

    if (at == NULL) return STATUS_UNSUPPORTED;
    struct fabric_lane *fabric = calloc(1, sizeof(*fabric));
    if (fabric == NULL) return STATUS_NO_MEMORY;
    fabric->lane = lane;
    env_timer_init(&fabric->timer, on_ready, fabric);
    lane->fabric = fabric;
    enum status status = fabric_link_open(at, &fabric->link);
    const int fd = status == STATUS_OK ? fabric_link_fd(fabric->link) : -1;
    if (fd >= 0) status = env_watch_open(transfer->env, fd, on_ready, fabric, &fabric->watch);
    if (status != STATUS_OK) fabric_lane_close(lane);
    return status;
}

void fabric_lane_close(struct lane *lane)
{
    struct fabric_lane *fabric = lane->fabric;

    if (fabric == NULL) return;
    lane->fabric = NULL;
    env_timer_cancel(lane->transfer->env, &fabric->timer);
    env_watch_close(fabric->watch);
    fabric_link_close(fabric->link);
    free(fabric->grants);
    free(fabric);
}

/* Our end, for the other. */
static bool tell_address(struct lane *lane)
{
    const struct yolk_transfer *transfer = lane->transfer;
    const struct fabric_lane *fabric = lane->fabric;
    const struct wire_header header = { .opcode = WIRE_FABRIC,
                                        .epoch = lane->peer == NULL ? transfer->epoch : 0,
                                        .term = lane->peer == NULL ? transfer->term : 0,
                                        .length = WIRE_FABRIC_SIZE };
    struct wire_fabric ours = { .address_len = 0 };
    uint8_t bytes[WIRE_FABRIC_SIZE];
    const char *provider = fabric_link_provider(fabric->link);

    memcpy(ours.provider, provider, strlen(provider));
    ours.address_len = (uint32_t)fabric_link_address(fabric->link, ours.address);
    if (ours.address_len == 0) return false;
    wire_fabric_encode(&ours, bytes);
    return lane_send_control(lane, &header, bytes, sizeof(bytes));
}

static enum status refuse(struct lane *lane, enum wire_opcode opcode, enum status status)
{
    const struct wire_header header = { .opcode = opcode, .status = status };

    lane->transfer->stats.refused++;
    return lane_send(lane, FRAME_CONTROL, &header, NULL, false) ? STATUS_OK : STATUS_PROTOCOL;
}

/* Both ends: the other's provider and address. */
static enum status meet(struct lane *lane)
{
    struct wire_fabric theirs;
    enum status status = wire_fabric_decode(lane->control, lane->head.length, &theirs);

    if (status != STATUS_OK) return STATUS_PROTOCOL;
    if (strcmp(theirs.provider, fabric_link_provider(lane->fabric->link)) != 0) {
        LOG_WARN("transfer", "fabric_differs", "peer=%s ours=%s theirs=%s",
                 env_stream_peer(lane->stream), fabric_link_provider(lane->fabric->link),
                 theirs.provider);
        return STATUS_UNSUPPORTED;
    }
    return fabric_link_connect(lane->fabric->link, theirs.address, theirs.address_len);
}

/* Target: an initiator wants one. */
static enum status opened(struct lane *lane)
{
    if (lane->transfer->fabric == NULL) return refuse(lane, WIRE_FABRIC, STATUS_UNSUPPORTED);
    if (lane->fabric != NULL) return STATUS_PROTOCOL;
    enum status status = fabric_lane_new(lane);
    if (status == STATUS_OK) status = meet(lane);
    if (status == STATUS_PROTOCOL) return status;
    if (status != STATUS_OK || !tell_address(lane)) {
        fabric_lane_close(lane);
        return refuse(lane, WIRE_FABRIC, STATUS_UNSUPPORTED);
    }
    lane->fabric->open = true;
    rest(lane->fabric);
    return STATUS_OK;
}

/* Initiator: the target has one. */
static enum status met(struct lane *lane)
{
    struct fabric_lane *fabric = lane->fabric;

    if (fabric == NULL || fabric->open) return STATUS_PROTOCOL;
    const enum status status = meet(lane);
    if (status == STATUS_PROTOCOL || status == STATUS_INVALID) return STATUS_PROTOCOL;
    if (status == STATUS_OK) {
        fabric->open = true;
        fabric->epoch = lane->head.epoch;
        fabric->term = lane->head.term;
    } else {
        lane->fabric_refused = status;
        fabric_lane_close(lane);
    }
    peer_kick(lane->peer);
    return STATUS_OK;
}

static enum status refused(struct lane *lane, enum status status)
{
    if (lane->fabric == NULL || lane->fabric->open || status == STATUS_OK) return STATUS_PROTOCOL;
    lane->fabric_refused = status;
    fabric_lane_close(lane);
    peer_kick(lane->peer);
    return STATUS_OK;
}

/* ---- memory ---- */

static enum status memory_open(struct fabric_lane *fabric, const struct buffer *buffer,
                               unsigned access)
{
    struct env *env = transfer_of(fabric)->env;
    enum status status = STATUS_EXISTS;
    uint64_t key;

    if (fabric->memory[buffer->slot] != NULL) return STATUS_OK;
    for (int tries = 0; tries < 8 && status == STATUS_EXISTS; tries++) {
        env_random(env, &key, sizeof(key));
        status =
            fabric_memory_open(fabric->link, (void *)(uintptr_t)buffer->address,
                               (size_t)buffer->length, access, key, &fabric->memory[buffer->slot]);
    }
    if (status != STATUS_OK) {
        LOG_WARN("transfer", "fabric_memory", "length=%llu reason=%s",
                 (unsigned long long)buffer->length, status_name(status));
    }
    return status;
}

void fabric_lanes_forget_buffer(struct yolk_transfer *transfer, const struct buffer *buffer)
{
    for (struct lane *lane = transfer->lanes; lane != NULL; lane = lane->next) {
        if (lane->fabric == NULL || lane->fabric->memory[buffer->slot] == NULL) continue;
        ASSERT(lane->peer != NULL); /* a target's lane was killed for it */
        fabric_memory_close(lane->fabric->link, lane->fabric->memory[buffer->slot]);
        lane->fabric->memory[buffer->slot] = NULL;
    }
}

bool fabric_lane_exposes(const struct lane *lane, const struct buffer *buffer)
{
    if (lane->fabric == NULL) return false;
    return buffer == NULL || lane->fabric->memory[buffer->slot] != NULL;
}

/* Target: which memory holds that address, and by what key? */
static enum status asked(struct lane *lane, const struct wire_header *request)
{
    struct yolk_transfer *transfer = lane->transfer;
    const struct buffer *buffer = buffers_find(&transfer->buffers, request->address, 1);
    struct wire_header header = { .opcode = WIRE_FABRIC_GRANT,
                                  .epoch = transfer->epoch,
                                  .term = transfer->term,
                                  .length = WIRE_GRANT_SIZE };
    uint8_t bytes[WIRE_GRANT_SIZE];

    if (lane->fabric == NULL || !lane->fabric->open) return STATUS_PROTOCOL;
    enum status status = target_check_owner(transfer, request);
    if (status == STATUS_OK && buffer == NULL) status = STATUS_NOT_FOUND;
    if (status == STATUS_OK && (buffer->flags & YOLK_TRANSFER_REMOTE_ALL) == 0) {
        status = STATUS_DENIED;
    }
    if (status == STATUS_OK && buffer->device != 0) status = STATUS_UNSUPPORTED;
    if (status != STATUS_OK) return refuse(lane, WIRE_FABRIC_GRANT, status);
    const unsigned access =
        ((buffer->flags & YOLK_TRANSFER_REMOTE_READ) != 0 ? FABRIC_REMOTE_READ : 0u) |
        ((buffer->flags & YOLK_TRANSFER_REMOTE_WRITE) != 0 ? FABRIC_REMOTE_WRITE : 0u);
    status = memory_open(lane->fabric, buffer, access);
    if (status != STATUS_OK) return refuse(lane, WIRE_FABRIC_GRANT, status);
    const struct fabric_memory *memory = lane->fabric->memory[buffer->slot];
    const struct wire_grant grant = { .address = buffer->address,
                                      .length = buffer->length,
                                      .flags = buffer->flags,
                                      .base = fabric_memory_base(memory),
                                      .key = fabric_memory_key(memory) };
    wire_grant_encode(&grant, bytes);
    return lane_send_control(lane, &header, bytes, sizeof(bytes)) ? STATUS_OK : STATUS_PROTOCOL;
}

/* ---- grants ---- */

static const struct wire_grant *grant_at(const struct fabric_lane *fabric, uint64_t address)
{
    for (uint32_t i = 0; i < fabric->grant_count; i++) {
        const struct wire_grant *grant = &fabric->grants[i];
        if (address >= grant->address && address - grant->address < grant->length) return grant;
    }
    return NULL;
}

/* What the target takes back it takes back with the lane; so what overlaps makes no sense. */
static enum status grant_add(struct fabric_lane *fabric, const struct wire_grant *grant)
{
    if (fabric->ask_address < grant->address ||
        fabric->ask_address - grant->address >= grant->length) {
        return STATUS_PROTOCOL;
    }
    if (grant_at(fabric, fabric->ask_address) != NULL) return STATUS_OK; /* as it was */
    if (fabric->grant_count == YOLK_TRANSFER_BUFFERS_MAX) return STATUS_PROTOCOL;
    if (fabric->grant_count == fabric->grant_room) {
        const uint32_t room = fabric->grant_room == 0 ? 8 : 2 * fabric->grant_room;
        struct wire_grant *grants = realloc(fabric->grants, room * sizeof(*grants));
        if (grants == NULL) return STATUS_NO_MEMORY;
        fabric->grants = grants;
        fabric->grant_room = room;
    }
    fabric->grants[fabric->grant_count++] = *grant;
    return STATUS_OK;
}

static enum status granted(struct lane *lane)
{
    struct fabric_lane *fabric = lane->fabric;
    struct wire_grant grant;

    if (fabric == NULL || !fabric->asking) return STATUS_PROTOCOL;
    enum status status = wire_grant_decode(lane->control, lane->head.length, &grant);
    if (status == STATUS_OK) status = grant_add(fabric, &grant);
    if (status != STATUS_OK) return status;
    fabric->asking = false;
    fabric->ask_task = NULL;
    fabric->epoch = lane->head.epoch;
    fabric->term = lane->head.term;
    peer_kick(lane->peer);
    return STATUS_OK;
}

static enum status not_granted(struct lane *lane, enum status status)
{
    struct fabric_lane *fabric = lane->fabric;

    if (fabric == NULL || !fabric->asking || status == STATUS_OK) return STATUS_PROTOCOL;
    struct task *task = fabric->ask_task;
    fabric->asking = false;
    fabric->ask_task = NULL;
    if (task != NULL) task_end(lane->transfer, task, status);
    peer_kick(lane->peer);
    return STATUS_OK;
}

static void ask(struct fabric_lane *fabric, struct task *task, uint64_t address)
{
    const struct wire_header header = { .opcode = WIRE_FABRIC_ASK,
                                        .epoch = task->req.epoch,
                                        .term = task->req.term,
                                        .address = address };
    struct lane *lane = fabric->lane;

    if (fabric->asking) return;
    fabric->asking = true;
    fabric->ask_task = task;
    fabric->ask_address = address;
    if (!lane_send(lane, FRAME_CONTROL, &header, NULL, false)) lane_die(lane, STATUS_FULL);
}

static enum status begin(struct lane *lane)
{
    const enum status status = fabric_lane_new(lane);

    if (status != STATUS_OK) {
        lane->fabric_refused = status;
        return status;
    }
    if (!tell_address(lane)) lane_die(lane, STATUS_NO_MEMORY);
    return STATUS_AGAIN;
}

enum status fabric_lane_gate(struct lane *lane, struct task *task, uint64_t offset, uint64_t length)
{
    struct fabric_lane *fabric = lane->fabric;
    const struct yolk_transfer_request *req = &task->req;
    const uint64_t remote = req->remote + offset;
    const bool read = req->opcode == YOLK_TRANSFER_READ;

    if (!lane->session->fabric || task->buffer->device != 0) return STATUS_UNSUPPORTED;
    if (lane->fabric_refused != STATUS_OK) return lane->fabric_refused;
    if (fabric == NULL) return begin(lane);
    if (!fabric->open) return STATUS_AGAIN;
    const enum status status = memory_open(fabric, task->buffer, FABRIC_LOCAL);
    if (status != STATUS_OK) return status;
    const struct wire_grant *grant = grant_at(fabric, remote);
    const bool other_epoch = req->epoch != 0 && req->epoch != fabric->epoch;
    if (grant == NULL || other_epoch || (req->term != 0 && req->term < fabric->term)) {
        ask(fabric, task, remote);
        return STATUS_AGAIN;
    }
    if (length > grant->length - (remote - grant->address)) return STATUS_NOT_FOUND;
    const unsigned right = read ? YOLK_TRANSFER_REMOTE_READ : YOLK_TRANSFER_REMOTE_WRITE;
    return (grant->flags & right) != 0 ? STATUS_OK : STATUS_DENIED;
}

void fabric_lane_forget_task(struct lane *lane, const struct task *task)
{
    if (lane->fabric != NULL && lane->fabric->ask_task == task) lane->fabric->ask_task = NULL;
}

/* ---- moving ---- */

void fabric_lane_issue(struct lane *lane, struct slice *slice)
{
    ASSERT(lane->fabric != NULL && lane->fabric->open);
    slice->fabric = FABRIC_WAITING;
    slice_push(&lane->fabric->waiting[slice->class], slice);
}

static enum status post(struct fabric_lane *fabric, struct slice *slice)
{
    const struct task *task = slice->task;
    const uint64_t remote = task->req.remote + slice->offset;
    const struct wire_grant *grant = grant_at(fabric, remote);
    const bool read = task->req.opcode == YOLK_TRANSFER_READ;

    ASSERT(grant != NULL && fabric->memory[task->buffer->slot] != NULL);
    const struct fabric_request request = { .op = read ? FABRIC_READ : FABRIC_WRITE,
                                            .local = (uint8_t *)task->req.local + slice->offset,
                                            .length = (size_t)slice->length,
                                            .memory = fabric->memory[task->buffer->slot],
                                            .remote = grant->base + (remote - grant->address),
                                            .key = grant->key,
                                            .ctx = slice };
    return fabric_post(fabric->link, &request);
}

void fabric_lane_flush(struct lane *lane)
{
    struct fabric_lane *fabric = lane->fabric;
    enum status status = STATUS_OK;
    uint32_t posted = 0;

    if (fabric == NULL || !fabric->open) return;
    for (int class = 0; class < WIRE_CLASSES && status == STATUS_OK; class ++) {
        struct slice_list *list = &fabric->waiting[class];
        while (list->head != NULL && (status = post(fabric, list->head)) == STATUS_OK) {
            slice_pop(list)->fabric = FABRIC_POSTED;
            posted++;
        }
    }
    fabric->posted += posted;
    if (posted > 0) fabric->active_ns = lane->transfer->now_ns;
    if (status == STATUS_OK || status == STATUS_AGAIN) {
        rest(fabric);
    } else {
        lane_die(lane, status);
    }
}

static bool is_that(const struct slice *slice, const void *that)
{
    return slice == that;
}

static void dropped(struct yolk_transfer *transfer, struct slice *slice)
{
    (void)transfer;
    (void)slice; /* whoever asked for it has it */
}

bool fabric_lane_unsend(struct lane *lane, struct slice *slice)
{
    if (slice->fabric != FABRIC_WAITING) return false;
    if (lane->fabric != NULL) {
        slice_filter(&lane->fabric->waiting[slice->class], is_that, slice, dropped, lane->transfer);
    }
    return true;
}

/* ---- frames ---- */

enum status fabric_lane_frame(struct lane *lane, const struct wire_header *header)
{
    const bool target = lane->peer == NULL;

    if (header->opcode == WIRE_FABRIC_ASK) return target ? asked(lane, header) : STATUS_PROTOCOL;
    if (header->length == 0 && !target) {
        return header->opcode == WIRE_FABRIC ? refused(lane, header->status)
                                             : not_granted(lane, header->status);
    }
    if (header->length == 0 || (target && header->opcode != WIRE_FABRIC)) return STATUS_PROTOCOL;
    lane->landing = LANDING_CONTROL;
    lane->landing_at = lane->control;
    return STATUS_OK;
}

enum status fabric_lane_payload(struct lane *lane)
{
    lane->landing = LANDING_NONE;
    if (lane->peer == NULL) return opened(lane);
    return lane->head.opcode == WIRE_FABRIC ? met(lane) : granted(lane);
}
