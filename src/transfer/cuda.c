/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/cuda.c - memory of devices, moved by their copy engines, mostly through pinned memory.
 *
 * The CPU cannot touch such memory, and sockets cannot reach it. So what a lane sends is copied to
 * a bounce first, and what it receives is copied on from one; a bounce is a run of units of a pool
 * of pinned memory. While one slice is on the wire, others are being copied. Both ends do that on
 * their own: nothing of that is in the wire format, and a peer does not know.
 *
 *   initiator WRITE   cuda_submit: waits for a bounce --STAGE--> retry list of peer.c, lane, ACK
 *   initiator READ    cuda_submit: waits for a bounce, retry list, lane, cuda_land --LAND--> done
 *   file              the same two, with file.c and its disk in place of the lane
 *   target READ       cuda_serve: waits for a bounce --SERVE--> READ_DATA on the lane
 *   target WRITE      cuda_landing: a bounce; lane or pull; cuda_store --STORE--> ACK
 *   local             a slice of copy.c's kind, in portions, --LOCAL--> done; no bounce
 *   IPC               cuda_fetch: a slice of a READ, or a pull, from a peer's device, as local ones
 *
 * With a peer on this host whose driver opens our memory, and ours its, peer.c takes the last way
 * (cuda_ipc.c); cuda_stage() is for what turns out not to be opened.
 *
 * Capitals are operations of a device (struct op). They run in streams of ours, one into and one
 * out of each device, and end in the order in which they began; their ends are looked for from a
 * timer, every 20 us at first and every 0.5 ms at last, while anything runs. Nothing spins.
 *
 * Three pools, because who waits for whom must not go in a circle: initiator slices wait for their
 * peers, what is served waits for the peer to read, and what lands waits for the peer to send and
 * then for the device only. What finds no room to land waits for the device, and if that was not
 * it, lands in memory that is not pinned.
 *
 * Invariants
 *   I1  A slice with a STAGE, LAND or LOCAL operation counts in its task's slices_out: the task is
 *       not final while a device may still write, or read, its memory.
 *   I2  A WRITE is acknowledged after its STORE has ended, and a lane is dead for FENCE and GOODBYE
 *       only when its STOREs have (cuda_lane_gone): see "What a final state means" in
 *       transfer-wire.md.
 *   I3  A bounce belongs to one slice, frame, lane or op; it is freed with that.
 *
 * What waits for a device in a call (cuda_lane_gone, cuda_revoke, cuda_landing, cuda_stop) waits
 * for copies of some megabytes, which depend on nothing but that device.
 *
 * Limits: POOL_UNITS units in each pool; LOCALS_MAX and SERVES_MAX operations of those kinds. A
 * class may hold only its share of the first pool, and a peer half of it, so that background never
 * keeps a decode waiting, nor one peer the others. */
#include "transfer/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "transfer/cuda_driver.h"
#include "transfer/transfer_int.h"

enum {
    UNIT_SIZE = 128 << 10,
    POOL_UNITS = 256, /* 32 MiB */
    STAGE_SIZE_MAX = 1 << 20,
    PORTION_SIZE = 8 << 20, /* of a local copy: a cancel waits for that much */
    LOCALS_MAX = 16,
    SERVES_MAX = 512, /* waiting or running */
    OPS_MAX = POOL_UNITS + LOCALS_MAX + SERVES_MAX + POOL_UNITS,
};

#define POLL_MIN_NS (20 * ENV_NS_PER_US)
#define POLL_MAX_NS (500 * ENV_NS_PER_US)

enum { POOL_INITIATOR, POOL_SERVE, POOL_LAND, POOLS };

struct bounce {
    struct pool *pool; /* NULL: not of one, but from the heap */
    uint32_t units;    /* 0: nobody's */
    uint8_t *heap;
};

struct pool {
    struct cuda *cuda;
    uint8_t *memory;
    uint32_t used;
    bool taken[POOL_UNITS];
    struct bounce bounces[POOL_UNITS]; /* [i]: of the run that begins at unit i */
};

enum op_kind { OP_STAGE, OP_LAND, OP_LOCAL, OP_SERVE, OP_STORE };

struct op {
    struct op *next;
    enum op_kind kind;
    struct slice *slice; /* STAGE, LAND, LOCAL */
    struct lane *lane;   /* SERVE, STORE; NULL: nobody waits for the answer any more */
    struct wire_header request;
    struct bounce *bounce; /* SERVE, STORE */
    struct cuda_event *event;
    uint64_t length;
    bool cancelled;
};

struct op_list {
    struct op *head, *tail;
};

/* A device that the engine has memory of. */
struct device {
    struct cuda_device *is; /* NULL: none is */
    uint32_t location;
    struct op_list in, out; /* running, oldest first */
};

struct cuda {
    struct yolk_transfer *transfer;
    struct env_timer timer;
    struct env_timer look; /* for imports that were withdrawn */
    uint64_t poll_ns;
    struct device devices[CUDA_DEVICES_MAX];
    struct cuda_device *any; /* the first that was opened: pinned memory is its */
    struct pool pools[POOLS];
    struct op ops[OPS_MAX];
    struct op_list ops_free;
    uint32_t locals, serves;
    struct task_list tasks[WIRE_CLASSES];     /* with slices to cut */
    struct slice_list waiting[WIRE_CLASSES];  /* for LOCAL */
    struct slice_list unstaged[WIRE_CLASSES]; /* cut, waiting for a bounce */
    struct op_list serving[WIRE_CLASSES];     /* SERVE, waiting for a bounce */
    bool stopped;
};

/* ---- registering ---- */

enum status cuda_find(uint64_t address, uint64_t length, uint32_t *device)
{
    uint32_t ordinal;

    *device = 0;
    if (!cuda_driver_here() || cuda_driver_load(NULL) != STATUS_OK) return STATUS_OK;
    const enum status status = cuda_device_of(address, length, &ordinal);
    if (status == STATUS_OK) *device = ordinal + 1;
    return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

/* The number behind "cuda:", CUDA_DEVICES_MAX if it is none. */
static uint32_t ordinal_of(const char *location)
{
    const char *digits = location + strlen("cuda:");
    uint32_t value = 0;

    if (*digits == '\0' || strlen(digits) > 2) return CUDA_DEVICES_MAX;
    for (; *digits != '\0'; digits++) {
        if (*digits < '0' || *digits > '9') return CUDA_DEVICES_MAX;
        value = value * 10 + (uint32_t)(*digits - '0');
    }
    return value;
}

enum status cuda_find_named(const char *location, uint64_t address, uint64_t length,
                            uint32_t *device, struct errmsg *err)
{
    struct errmsg why;
    uint32_t found = 0;

    ASSERT(strncmp(location, "cuda:", 5) == 0);
    const uint32_t named = ordinal_of(location);
    if (named >= CUDA_DEVICES_MAX) {
        return errmsg_set(err, STATUS_INVALID, "transfer: %.32s is no location", location);
    }
    enum status status = cuda_driver_load(&why);
    if (status != STATUS_OK) {
        return errmsg_set(err, status, "transfer: %s: %.200s", location, why.text);
    }
    status = cuda_device_of(address, length, &found);
    if (status != STATUS_OK || found != named) {
        return errmsg_set(err, STATUS_INVALID, "transfer: the memory is not on %s", location);
    }
    *device = named + 1;
    return STATUS_OK;
}

static void on_look(void *ctx)
{
    struct cuda *cuda = ctx;
    cuda_imports_look(cuda->transfer);
}

static void on_timer(void *ctx)
{
    struct cuda *cuda = ctx;
    transfer_turn(cuda->transfer);
}

static void op_push(struct op_list *list, struct op *op)
{
    op->next = NULL;
    if (list->tail != NULL) {
        list->tail->next = op;
    } else {
        list->head = op;
    }
    list->tail = op;
}

static struct op *op_pop(struct op_list *list)
{
    struct op *op = list->head;

    if (op == NULL) return NULL;
    list->head = op->next;
    if (list->head == NULL) list->tail = NULL;
    return op;
}

static enum status cuda_create(struct yolk_transfer *transfer)
{
    struct cuda *cuda = calloc(1, sizeof(*cuda));

    if (cuda == NULL) return STATUS_NO_MEMORY;
    cuda->transfer = transfer;
    cuda->poll_ns = POLL_MIN_NS;
    env_timer_init(&cuda->timer, on_timer, cuda);
    env_timer_init(&cuda->look, on_look, cuda);
    for (int i = 0; i < OPS_MAX; i++)
        op_push(&cuda->ops_free, &cuda->ops[i]);
    for (int i = 0; i < POOLS; i++) {
        cuda->pools[i].cuda = cuda;
        for (int j = 0; j < POOL_UNITS; j++)
            cuda->pools[i].bounces[j].pool = &cuda->pools[i];
    }
    transfer->cuda = cuda;
    return STATUS_OK;
}

static enum status pools_fill(struct cuda *cuda)
{
    for (int i = 0; i < POOLS; i++) {
        void *memory = NULL;
        if (cuda->pools[i].memory != NULL) continue;
        const enum status status =
            cuda_pinned_alloc(cuda->any, (size_t)POOL_UNITS * UNIT_SIZE, &memory);
        if (status != STATUS_OK) return status;
        cuda->pools[i].memory = memory;
    }
    return STATUS_OK;
}

static uint32_t location_of(const struct yolk_transfer *transfer, uint32_t ordinal)
{
    char name[TOPOLOGY_LOCATION_SIZE], pci[CUDA_PCI_SIZE], path[64], *text = NULL;
    size_t len;

    snprintf(name, sizeof(name), "cuda:%u", ordinal);
    const uint32_t named = topology_location(&transfer->topology, name);
    if (named != topology_location(&transfer->topology, NULL)) return named;
    if (cuda_device_pci(ordinal, pci) != STATUS_OK) return named;
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/numa_node", pci);
    if (env_file_read_all(transfer->env, path, 16, &text, &len, NULL) != STATUS_OK) return named;
    snprintf(name, sizeof(name), "cpu:%.*s", (int)strcspn(text, "\n"), text);
    free(text);
    return topology_location(&transfer->topology, name);
}

enum status cuda_add(struct yolk_transfer *transfer, uint32_t number, struct errmsg *err)
{
    ASSERT(number > 0 && number <= CUDA_DEVICES_MAX);
    if (transfer->cuda == NULL && cuda_create(transfer) != STATUS_OK) {
        return errmsg_set(err, STATUS_NO_MEMORY, "cuda: no memory");
    }
    struct device *device = &transfer->cuda->devices[number - 1];
    if (device->is != NULL) return STATUS_OK;
    enum status status = cuda_device_open(number - 1, &device->is, err);
    if (status != STATUS_OK) return status;
    if (transfer->cuda->any == NULL) transfer->cuda->any = device->is;
    status = pools_fill(transfer->cuda);
    if (status != STATUS_OK) return errmsg_set(err, status, "cuda: no pinned memory");
    device->location = location_of(transfer, number - 1);
    return STATUS_OK;
}

uint32_t cuda_location(const struct yolk_transfer *transfer, uint32_t number)
{
    return transfer->cuda->devices[number - 1].location;
}

struct cuda_device *cuda_device(struct yolk_transfer *transfer, uint32_t number)
{
    ASSERT(number > 0 && transfer->cuda->devices[number - 1].is != NULL);
    return transfer->cuda->devices[number - 1].is;
}

void cuda_look_later(struct yolk_transfer *transfer, uint64_t ns)
{
    struct cuda *cuda = transfer->cuda;

    if (cuda->stopped || env_timer_armed(&cuda->look)) return;
    env_timer_set(transfer->env, &cuda->look, env_now_ns(transfer->env) + ns);
}

/* ---- bounces ---- */

static struct bounce *bounce_take(struct pool *pool, uint64_t length)
{
    const uint32_t units = (uint32_t)((length + UNIT_SIZE - 1) / UNIT_SIZE);
    uint32_t run = 0;

    ASSERT(units > 0 && units <= POOL_UNITS);
    if (pool->used + units > POOL_UNITS) return NULL;
    for (uint32_t i = 0; i < POOL_UNITS; i++) {
        run = pool->taken[i] ? 0 : run + 1;
        if (run < units) continue;
        const uint32_t first = i + 1 - units;
        memset(&pool->taken[first], true, units);
        pool->used += units;
        pool->bounces[first].units = units;
        return &pool->bounces[first];
    }
    return NULL;
}

uint8_t *cuda_bounce_memory(struct bounce *bounce)
{
    if (bounce->pool == NULL) return bounce->heap;
    return bounce->pool->memory + (size_t)(bounce - bounce->pool->bounces) * UNIT_SIZE;
}

void cuda_bounce_free(struct bounce *bounce)
{
    if (bounce == NULL) return;
    struct pool *pool = bounce->pool;
    if (pool == NULL) {
        free(bounce->heap);
        free(bounce);
        return;
    }
    const size_t first = (size_t)(bounce - pool->bounces);
    ASSERT(bounce->units > 0 && pool->used >= bounce->units);
    memset(&pool->taken[first], false, bounce->units);
    pool->used -= bounce->units;
    bounce->units = 0;
    if (!pool->cuda->stopped) transfer_kick(pool->cuda->transfer); /* somebody may wait for it */
}

/* ---- operations ---- */

static struct op *op_new(struct cuda *cuda, enum op_kind kind)
{
    struct op *op = op_pop(&cuda->ops_free);

    ASSERT(op != NULL); /* each kind has its limit, and OPS_MAX is their sum */
    *op = (struct op){ .kind = kind };
    if (kind == OP_SERVE) cuda->serves++;
    if (kind == OP_LOCAL) cuda->locals++;
    return op;
}

static void op_free(struct cuda *cuda, struct op *op)
{
    if (op->kind == OP_SERVE) cuda->serves--;
    if (op->kind == OP_LOCAL) cuda->locals--;
    if (op->event != NULL) cuda_event_free(op->event);
    cuda_bounce_free(op->bounce);
    op_push(&cuda->ops_free, op);
}

static struct device *device_at(const struct yolk_transfer *transfer, uint64_t address)
{
    const struct buffer *buffer = buffers_find(&transfer->buffers, address, 1);

    if (buffer == NULL || buffer->device == 0) return NULL;
    return &transfer->cuda->devices[buffer->device - 1];
}

/* Looks for its end soon, and often at first, if it was begun. */
static enum status op_begun(struct cuda *cuda, struct op_list *list, struct op *op,
                            enum status status)
{
    if (status != STATUS_OK) {
        cuda->transfer->stats.device_errors++;
        return status;
    }
    op_push(list, op);
    cuda->poll_ns = POLL_MIN_NS;
    env_timer_set(cuda->transfer->env, &cuda->timer,
                  env_now_ns(cuda->transfer->env) + cuda->poll_ns);
    return STATUS_OK;
}

static enum status op_copy_in(struct cuda *cuda, struct op *op, uint64_t to, const void *from,
                              uint64_t length)
{
    struct device *device = device_at(cuda->transfer, to);

    ASSERT(device != NULL);
    op->length = length;
    const enum status status = cuda_copy_in(device->is, to, from, (size_t)length, &op->event);
    return op_begun(cuda, &device->in, op, status);
}

static enum status op_copy_out(struct cuda *cuda, struct op *op, void *to, uint64_t from,
                               uint64_t length)
{
    struct device *device = device_at(cuda->transfer, from);

    ASSERT(device != NULL);
    op->length = length;
    const enum status status = cuda_copy_out(device->is, to, from, (size_t)length, &op->event);
    return op_begun(cuda, &device->out, op, status);
}

/* ---- initiator ---- */

static uint64_t local_address(const struct slice *slice)
{
    return (uintptr_t)slice->task->req.local + slice->offset;
}

/* The slice is nowhere, and its task ends, with `status` if nothing else has ended it. */
static void slice_fail(struct yolk_transfer *transfer, struct slice *slice, enum status status)
{
    struct task *task = slice->task;

    task->slices_out--;
    slice_free(transfer, slice);
    task_end(transfer, task, status);
    task_settle(transfer, task);
}

bool cuda_submit(struct yolk_transfer *transfer, struct task *task)
{
    if (task->buffer->device == 0 || task->peer->local) return false;
    if (task->file == NULL && task->buffer->identity != NULL) return false; /* peer.c will see */
    cuda_stage_rest(transfer, task);
    return true;
}

void cuda_stage_rest(struct yolk_transfer *transfer, struct task *task)
{
    ASSERT(task->buffer->device != 0 && !task->queued);
    task_queue(&transfer->cuda->tasks[task->req.class], task);
    task->staged = true;
    transfer_kick(transfer);
}

void cuda_stage(struct yolk_transfer *transfer, struct slice *slice)
{
    ASSERT(slice->bounce == NULL && slice->share == NULL);
    slice->task->slices_waiting++;
    slice_push(&transfer->cuda->unstaged[slice->class], slice);
    transfer_kick(transfer);
}

/* To the lanes: peer.c takes it from its retry list. */
static void slice_ready(struct slice *slice)
{
    struct task *task = slice->task;

    task->slices_waiting++;
    slice_push(&task->peer->retry[task->req.class], slice);
    peer_kick(task->peer);
}

static void stage(struct cuda *cuda, struct slice *slice)
{
    struct op *op = op_new(cuda, OP_STAGE);

    op->slice = slice;
    slice->task->slices_out++;
    const enum status status = op_copy_out(cuda, op, cuda_bounce_memory(slice->bounce),
                                           local_address(slice), slice->length);
    if (status == STATUS_OK) return;
    op_free(cuda, op);
    slice_fail(cuda->transfer, slice, status);
}

static void staged(struct yolk_transfer *transfer, struct slice *slice, enum status status)
{
    struct task *task = slice->task;

    if (status != STATUS_OK || task->ending != STATUS_OK) {
        slice_fail(transfer, slice, status != STATUS_OK ? status : task->ending);
        return;
    }
    task->slices_out--;
    slice_ready(slice);
}

static uint32_t class_share(int class)
{
    static const uint32_t shares[WIRE_CLASSES] = { POOL_UNITS, POOL_UNITS * 3 / 4, POOL_UNITS / 4 };
    return shares[class];
}

/* The slice has its bounce, and counts nowhere: fills that, or can go. */
static void slice_bounce(struct cuda *cuda, struct slice *slice, struct bounce *bounce)
{
    slice->bounce = bounce;
    slice->bounce_peer = slice->task->peer;
    slice->bounce_peer->bounce_units += bounce->units;
    if (slice->task->req.opcode == YOLK_TRANSFER_WRITE) {
        stage(cuda, slice);
    } else {
        slice_ready(slice);
    }
}

/* False if one has to wait. */
static bool stage_unstaged(struct cuda *cuda)
{
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        struct slice *slice;
        while ((slice = cuda->unstaged[class].head) != NULL) {
            struct bounce *bounce = bounce_take(&cuda->pools[POOL_INITIATOR], slice->length);
            if (bounce == NULL) return false;
            slice_pop(&cuda->unstaged[class]);
            slice->task->slices_waiting--;
            slice_bounce(cuda, slice, bounce);
        }
    }
    return true;
}

/* Cuts one slice of the task; false if there is no room for it. */
static bool cut(struct cuda *cuda, struct task *task)
{
    struct yolk_transfer *transfer = cuda->transfer;
    const uint64_t left = task->req.length - task->offset;
    uint64_t size = transfer->slice_size < STAGE_SIZE_MAX ? transfer->slice_size : STAGE_SIZE_MAX;

    if (left < size) size = left;
    if (task->file != NULL) {
        const uint64_t piece = file_piece_length(transfer, task);
        if (piece < size) size = piece;
    }
    struct bounce *bounce = bounce_take(&cuda->pools[POOL_INITIATOR], size);
    if (bounce == NULL) return false;
    struct slice *slice = slice_new(transfer);
    if (slice == NULL) {
        cuda_bounce_free(bounce);
        return false;
    }
    slice->task = task;
    slice->class = (uint8_t)task->req.class;
    slice->offset = task->offset;
    slice->length = size;
    task->offset += size;
    if (task->offset == task->req.length) task_unqueue(&cuda->tasks[task->req.class], task);
    slice_bounce(cuda, slice, bounce);
    return true;
}

static bool may_have_more(const struct cuda *cuda, const struct task *task)
{
    return cuda->pools[POOL_INITIATOR].used < class_share((int)task->req.class) &&
           task->peer->bounce_units < POOL_UNITS / 2;
}

static void cut_all(struct cuda *cuda)
{
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        struct task *task = cuda->tasks[class].head;
        while (task != NULL) {
            struct task *next = task->next;
            bool room = true;
            while (task->queued && may_have_more(cuda, task) && room)
                room = cut(cuda, task);
            if (!room) return;
            task = next;
        }
    }
}

void cuda_slice_free(struct slice *slice)
{
    if (slice->bounce == NULL) return;
    if (slice->bounce_peer != NULL) {
        ASSERT(slice->bounce_peer->bounce_units >= slice->bounce->units);
        slice->bounce_peer->bounce_units -= slice->bounce->units;
    }
    cuda_bounce_free(slice->bounce);
    slice->bounce = NULL;
}

void cuda_land(struct yolk_transfer *transfer, struct slice *slice)
{
    struct cuda *cuda = transfer->cuda;
    struct op *op = op_new(cuda, OP_LAND);

    op->slice = slice;
    const enum status status = op_copy_in(cuda, op, local_address(slice),
                                          cuda_bounce_memory(slice->bounce), slice->length);
    if (status == STATUS_OK) return;
    op_free(cuda, op);
    slice_fail(transfer, slice, status);
}

/* LAND, and the last portion of LOCAL. */
static void landed(struct yolk_transfer *transfer, struct slice *slice, enum status status)
{
    if (status == STATUS_OK) {
        task_slice_done(transfer, slice);
    } else {
        slice_fail(transfer, slice, status);
    }
}

/* ---- local, and from peers' devices ---- */

bool cuda_copy(struct yolk_transfer *transfer, struct slice *slice)
{
    const struct task *task = slice->task;

    if (task->buffer->device == 0 && task->remote->device == 0) return false;
    slice_push(&transfer->cuda->waiting[slice->class], slice);
    transfer_kick(transfer);
    return true;
}

bool cuda_fetch(struct yolk_transfer *transfer, struct slice *slice, uint64_t from)
{
    const struct buffer *buffer = buffers_find(&transfer->buffers, (uintptr_t)slice->to, 1);
    struct share *share = slice->share;
    uint64_t base = 0;

    ASSERT(buffer != NULL && buffer->device != 0 && slice->bounce == NULL);
    if (cuda_import(transfer, share, buffer->device, &base) != STATUS_OK) {
        slice->share = NULL;
        slice->session = NULL;
        return false;
    }
    slice->from = (const uint8_t *)(uintptr_t)(base + (from - share->is.address));
    slice->done = 0;
    share->users++;
    slice->session->refs++;
    slice_push(&transfer->cuda->waiting[slice->class], slice);
    transfer_kick(transfer);
    return true;
}

void cuda_pulls_filter(struct yolk_transfer *transfer,
                       bool (*match)(const struct slice *, const void *), const void *what,
                       void (*fn)(struct yolk_transfer *, struct slice *))
{
    if (transfer->cuda == NULL) return;
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        slice_filter(&transfer->cuda->waiting[class], match, what, fn, transfer);
    }
}

static enum status local_portion(struct cuda *cuda, struct op *op)
{
    struct slice *slice = op->slice;
    const uint64_t to = (uintptr_t)slice->to + slice->done;
    const uint64_t from = (uintptr_t)slice->from + slice->done;
    const uint64_t left = slice->length - slice->done;
    const uint64_t length = left < PORTION_SIZE ? left : PORTION_SIZE;
    struct device *source = device_at(cuda->transfer, from);
    struct device *target = device_at(cuda->transfer, to);

    if (slice->share != NULL) source = target; /* mapped for that one */
    if (source == NULL) return op_copy_in(cuda, op, to, (const void *)(uintptr_t)from, length);
    if (target == NULL) return op_copy_out(cuda, op, (void *)(uintptr_t)to, from, length);
    op->length = length;
    const enum status status =
        cuda_copy_across(source->is, from, target->is, to, (size_t)length, &op->event);
    return op_begun(cuda, &source->out, op, status);
}

/* A slice of cuda_fetch() has ended, with all of its bytes or not. A pull without a lane is
 * nobody's any more. */
static void fetched(struct yolk_transfer *transfer, struct slice *slice, enum status status)
{
    if (status == STATUS_NOT_FOUND) slice->share->dead = true;
    copy_release(slice);
    if (slice->task != NULL) peer_kick(slice->task->peer); /* there is room for another */
    if (slice->task == NULL && slice->lane == NULL) {
        slice_free(transfer, slice);
    } else if (slice->task == NULL) {
        target_pull_done(transfer, slice, status);
    } else if (status == STATUS_NOT_FOUND) {
        task_slice_lost(transfer, slice, STATUS_STALE, true);
    } else {
        landed(transfer, slice, status);
    }
}

/* May its next portion be copied? */
static enum status local_check(const struct slice *slice)
{
    const bool pull = slice->task == NULL;

    if (!pull && slice->task->ending != STATUS_OK) return slice->task->ending;
    if (pull && slice->lane == NULL) return STATUS_CANCELLED;
    return slice->share != NULL ? copy_check(slice) : STATUS_OK;
}

/* The operation goes on, or is over: then it is freed, and the slice has its end. */
static void local_next(struct cuda *cuda, struct op *op, enum status status)
{
    struct slice *slice = op->slice;

    if (status == STATUS_OK && slice->done < slice->length) {
        status = local_check(slice);
        if (status == STATUS_OK) status = local_portion(cuda, op);
        if (status == STATUS_OK) return;
    } else if (status == STATUS_OK && slice->share != NULL) {
        status = copy_check(slice); /* were these bytes whose they should be? */
    }
    op_free(cuda, op);
    if (slice->share != NULL) {
        fetched(cuda->transfer, slice, status);
    } else {
        landed(cuda->transfer, slice, status);
    }
}

static void start_locals(struct cuda *cuda)
{
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        while (cuda->waiting[class].head != NULL && cuda->locals < LOCALS_MAX) {
            struct slice *slice = cuda->waiting[class].head;
            if (slice->lane != NULL && lane_expired(slice->lane)) {
                lane_die(slice->lane, STATUS_TIMEOUT); /* takes the slice with it */
                continue;
            }
            struct op *op = op_new(cuda, OP_LOCAL);
            op->slice = slice_pop(&cuda->waiting[class]);
            local_next(cuda, op, STATUS_OK);
        }
    }
}

static bool of_task(const struct slice *slice, const void *task)
{
    return slice->task == task;
}

static void local_drop(struct yolk_transfer *transfer, struct slice *slice)
{
    copy_release(slice);
    slice->task->slices_out--;
    slice_free(transfer, slice);
}

static void unstaged_drop(struct yolk_transfer *transfer, struct slice *slice)
{
    slice->task->slices_waiting--;
    slice_free(transfer, slice);
}

void cuda_withdraw(struct yolk_transfer *transfer, struct task *task)
{
    struct cuda *cuda = transfer->cuda;

    if (cuda == NULL) return;
    if (task->queued && task->staged) task_unqueue(&cuda->tasks[task->req.class], task);
    slice_filter(&cuda->waiting[task->req.class], of_task, task, local_drop, transfer);
    slice_filter(&cuda->unstaged[task->req.class], of_task, task, unstaged_drop, transfer);
}

/* ---- target ---- */

bool cuda_has(const struct yolk_transfer *transfer, uint64_t address)
{
    return transfer->cuda != NULL && device_at(transfer, address) != NULL;
}

enum status cuda_serve(struct lane *lane, const struct wire_header *request)
{
    struct cuda *cuda = lane->transfer->cuda;

    if (cuda->serves == SERVES_MAX) {
        return lane_answer(lane, request, STATUS_FULL) ? STATUS_OK : STATUS_PROTOCOL;
    }
    struct op *op = op_new(cuda, OP_SERVE);
    op->lane = lane;
    op->request = *request;
    op_push(&cuda->serving[request->class], op);
    transfer_kick(cuda->transfer);
    return STATUS_OK;
}

static void answer(struct lane *lane, const struct wire_header *request, enum status status)
{
    if (lane_answer(lane, request, status)) {
        lane_flush(lane);
    } else {
        lane_die(lane, STATUS_PROTOCOL);
    }
}

/* Its bytes are in the bounce. */
static void served(struct op *op, enum status status)
{
    struct lane *lane = op->lane;

    if (lane == NULL) return;
    if (op->cancelled) status = STATUS_CANCELLED;
    if (status != STATUS_OK) {
        answer(lane, &op->request, status);
        return;
    }
    struct bounce *bounce = op->bounce;
    op->bounce = NULL;
    if (target_send_data(lane, &op->request, cuda_bounce_memory(bounce), bounce)) {
        lane_flush(lane);
    } else {
        lane_die(lane, STATUS_PROTOCOL);
    }
}

static void start_serves(struct cuda *cuda)
{
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        while (cuda->serving[class].head != NULL) {
            struct op *op = cuda->serving[class].head;
            op->bounce = bounce_take(&cuda->pools[POOL_SERVE], op->request.length);
            if (op->bounce == NULL) return;
            op_pop(&cuda->serving[class]);
            const enum status status = op_copy_out(cuda, op, cuda_bounce_memory(op->bounce),
                                                   op->request.address, op->request.length);
            if (status == STATUS_OK) continue;
            answer(op->lane, &op->request, status);
            op_free(cuda, op);
        }
    }
}

/* fn() on every operation that runs. It must not end any. */
static void each_running(struct cuda *cuda, void (*fn)(struct op *, const void *), const void *ctx)
{
    for (int i = 0; i < CUDA_DEVICES_MAX; i++) {
        for (struct op *op = cuda->devices[i].in.head; op != NULL; op = op->next)
            fn(op, ctx);
        for (struct op *op = cuda->devices[i].out.head; op != NULL; op = op->next)
            fn(op, ctx);
    }
}

static void store_wait(struct op *op, const void *ctx)
{
    (void)ctx;
    if (op->kind != OP_STORE) return;
    cuda_event_wait(op->event);
    cuda_bounce_free(op->bounce);
    op->bounce = NULL;
}

/* What holds the pool now is still being received, on other connections. To stop reading this one
 * until they are done would let the slowest peer decide; there is one such payload to a connection
 * at most, and the driver copies from memory that is not pinned, too, only more slowly. */
static struct bounce *bounce_from_heap(uint64_t length)
{
    struct bounce *bounce = calloc(1, sizeof(*bounce));

    if (bounce == NULL) return NULL;
    bounce->heap = malloc((size_t)length);
    if (bounce->heap != NULL) return bounce;
    free(bounce);
    return NULL;
}

struct bounce *cuda_landing(struct yolk_transfer *transfer, uint64_t length)
{
    struct pool *pool = &transfer->cuda->pools[POOL_LAND];
    struct bounce *bounce = bounce_take(pool, length);

    if (bounce != NULL) return bounce;
    each_running(transfer->cuda, store_wait, NULL); /* some microseconds each */
    bounce = bounce_take(pool, length);
    return bounce != NULL ? bounce : bounce_from_heap(length);
}

enum status cuda_store(struct lane *lane, const struct wire_header *request, struct bounce *bounce)
{
    struct cuda *cuda = lane->transfer->cuda;
    struct op *op = op_new(cuda, OP_STORE);

    op->lane = lane;
    op->request = *request;
    op->bounce = bounce;
    const enum status status =
        op_copy_in(cuda, op, request->address, cuda_bounce_memory(bounce), request->length);
    if (status == STATUS_OK) return STATUS_OK;
    op_free(cuda, op);
    return lane_answer(lane, request, status) ? STATUS_OK : STATUS_PROTOCOL;
}

/* ---- rights taken away ---- */

/* Takes one that matches out of the waiting SERVEs. */
static struct op *serving_take(struct cuda *cuda, bool (*match)(const struct op *, const void *),
                               const void *ctx)
{
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        struct op_list kept = { NULL, NULL };
        struct op *op, *found = NULL;
        while ((op = op_pop(&cuda->serving[class])) != NULL) {
            if (found == NULL && match(op, ctx)) {
                found = op;
            } else {
                op_push(&kept, op);
            }
        }
        cuda->serving[class] = kept;
        if (found != NULL) return found;
    }
    return NULL;
}

struct attempt {
    const struct lane *lane;
    uint64_t number;
};

static bool of_attempt(const struct op *op, const void *ctx)
{
    const struct attempt *attempt = ctx;
    return op->lane == attempt->lane && op->request.attempt == attempt->number;
}

static void mark_cancelled(struct op *op, const void *ctx)
{
    if (op->kind == OP_SERVE && of_attempt(op, ctx)) op->cancelled = true;
}

void cuda_cancel(struct lane *lane, uint64_t number)
{
    struct cuda *cuda = lane->transfer->cuda;
    const struct attempt attempt = { lane, number };
    struct op *op;

    if (cuda == NULL) return;
    while ((op = serving_take(cuda, of_attempt, &attempt)) != NULL) {
        if (lane->state == LANE_READY) answer(lane, &op->request, STATUS_CANCELLED);
        op_free(cuda, op);
    }
    each_running(cuda, mark_cancelled, &attempt);
}

static bool of_lane(const struct op *op, const void *lane)
{
    return op->lane == lane;
}

static bool is_pull(const struct op *op)
{
    return op->kind == OP_LOCAL && op->slice->task == NULL;
}

/* What has been received must be in the device, or never get there, before anyone is told that the
 * lane is dead: see I2. */
static void lane_detach(struct op *op, const void *lane)
{
    if (is_pull(op) && op->slice->lane == lane) {
        cuda_event_wait(op->event);
        op->slice->lane = NULL;
    }
    if (op->lane != lane) return;
    if (op->kind == OP_STORE) cuda_event_wait(op->event);
    op->lane = NULL;
}

void cuda_lane_gone(struct lane *lane)
{
    struct cuda *cuda = lane->transfer->cuda;
    struct op *op;

    if (cuda == NULL) return;
    while ((op = serving_take(cuda, of_lane, lane)) != NULL)
        op_free(cuda, op);
    each_running(cuda, lane_detach, lane);
    cuda_bounce_free(lane->landing_bounce);
    lane->landing_bounce = NULL;
}

struct revocation {
    const struct yolk_transfer *transfer;
    const struct buffer *buffer;
};

static bool is_revoked(const struct op *op, const void *ctx)
{
    const struct revocation *what = ctx;
    const struct buffer *buffer = what->buffer;
    const struct wire_header *request = is_pull(op) ? &op->slice->pull : &op->request;

    if (buffer == NULL) return target_check_owner(what->transfer, request) != STATUS_OK;
    return buffer_ranges_overlap(request->address, request->length, buffer->address,
                                 buffer->length);
}

static void wait_if_revoked(struct op *op, const void *ctx)
{
    /* A task of ours keeps its buffer. */
    if (op->kind != OP_SERVE && op->kind != OP_STORE && !is_pull(op)) return;
    if (is_revoked(op, ctx)) cuda_event_wait(op->event);
}

void cuda_revoke(struct yolk_transfer *transfer, const struct buffer *buffer)
{
    struct cuda *cuda = transfer->cuda;
    const struct revocation what = { transfer, buffer };
    struct op *op;

    if (cuda == NULL) return;
    while ((op = serving_take(cuda, is_revoked, &what)) != NULL) {
        answer(op->lane, &op->request, buffer == NULL ? STATUS_STALE : STATUS_INVALID);
        op_free(cuda, op);
    }
    each_running(cuda, wait_if_revoked, &what);
}

/* ---- ends ---- */

static void op_ended(struct cuda *cuda, struct op *op, enum status status)
{
    struct yolk_transfer *transfer = cuda->transfer;
    struct slice *slice = op->slice;

    if (status != STATUS_OK) transfer->stats.device_errors++;
    switch (op->kind) {
    case OP_STAGE:
        op_free(cuda, op);
        staged(transfer, slice, status);
        break;
    case OP_LAND:
        op_free(cuda, op);
        landed(transfer, slice, status);
        break;
    case OP_LOCAL:
        slice->done += op->length;
        cuda_event_free(op->event);
        op->event = NULL;
        local_next(cuda, op, status);
        break;
    case OP_SERVE:
        served(op, status);
        op_free(cuda, op);
        break;
    case OP_STORE:
        if (op->lane != NULL) answer(op->lane, &op->request, status);
        op_free(cuda, op);
        break;
    }
}

/* True if something has ended. */
static bool poll_list(struct cuda *cuda, struct op_list *list)
{
    bool ended = false;

    while (list->head != NULL) {
        const enum status status = cuda_event_poll(list->head->event);
        if (status == STATUS_AGAIN) break;
        op_ended(cuda, op_pop(list), status);
        ended = true;
    }
    return ended;
}

/* True if something still runs. */
static bool poll_all(struct cuda *cuda)
{
    bool ended = false, left = false;

    for (int i = 0; i < CUDA_DEVICES_MAX; i++) {
        struct device *device = &cuda->devices[i];
        if (device->is == NULL) continue;
        ended = poll_list(cuda, &device->in) || ended;
        ended = poll_list(cuda, &device->out) || ended;
        left = left || device->in.head != NULL || device->out.head != NULL;
    }
    if (ended) cuda->poll_ns = POLL_MIN_NS;
    return left;
}

void cuda_turn(struct yolk_transfer *transfer)
{
    struct cuda *cuda = transfer->cuda;

    if (cuda == NULL || cuda->stopped) return;
    const bool left = poll_all(cuda);
    if (left && !env_timer_armed(&cuda->timer)) {
        env_timer_set(transfer->env, &cuda->timer, env_now_ns(transfer->env) + cuda->poll_ns);
        if (cuda->poll_ns < POLL_MAX_NS) cuda->poll_ns *= 2;
    }
    start_serves(cuda);
    if (stage_unstaged(cuda)) cut_all(cuda);
    start_locals(cuda);
}

/* And lets go of what peers share. */
static void just_wait(struct op *op, const void *ctx)
{
    (void)ctx;
    cuda_event_wait(op->event);
    if (op->kind == OP_LOCAL) copy_release(op->slice);
}

void cuda_stop(struct yolk_transfer *transfer)
{
    struct cuda *cuda = transfer->cuda;

    if (cuda == NULL) return;
    cuda->stopped = true;
    env_timer_cancel(transfer->env, &cuda->timer);
    env_timer_cancel(transfer->env, &cuda->look);
    each_running(cuda, just_wait, NULL);
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        struct slice *slice;
        while ((slice = slice_pop(&cuda->waiting[class])) != NULL)
            copy_release(slice);
    }
}

void cuda_destroy(struct yolk_transfer *transfer)
{
    struct cuda *cuda = transfer->cuda;
    struct op *op;

    if (cuda == NULL) return;
    for (int i = 0; i < CUDA_DEVICES_MAX; i++) {
        struct device *device = &cuda->devices[i];
        while ((op = op_pop(&device->in)) != NULL || (op = op_pop(&device->out)) != NULL)
            op_free(cuda, op);
    }
    for (int i = 0; i < POOLS; i++)
        cuda_pinned_free(cuda->any, cuda->pools[i].memory);
    for (int i = 0; i < CUDA_DEVICES_MAX; i++)
        cuda_device_close(cuda->devices[i].is);
    free(cuda);
    transfer->cuda = NULL;
}
