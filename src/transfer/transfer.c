/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer.c - the public calls: engines, memory, segments, batches, and how tasks end.
 *
 * A task goes through these states; task_finish() is the only way into a final one:
 *
 *     WAITING --task_started()--> PENDING --all slices arrived--------------> COMPLETED
 *        |                           |
 *        +------ task_end(why) ------+--> (ending) --nothing can land--> CANCELED TIMEOUT
 *                                                    task_settle()       INVALID  FAILED
 *
 * Invariants
 *   I1  slices_out counts the slices that are on a lane, live or lost, or in a copy queue;
 *       slices_waiting those in a retry list. offset, both and bytes cover the range exactly.
 *   I2  A task is final only with slices_out == 0 and slices_waiting == 0; see F1..F4 in peer.c.
 *   I3  Callbacks run from transfer_turn(), in the order in which tasks ended; and that runs from
 * the loop: from a timer of ours, or after a connection has been served.
 *
 * Handles are an index and a serial that changes when the slot is freed, so a stale one is known.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "transfer/transfer_int.h"

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

enum {
    DEFAULT_LANES = 2,
    DEFAULT_SLICE = 256 << 10,
    DEFAULT_PEERS = 256,
    DEFAULT_RETRIES = 3,
    DEFAULT_CONNECT_MS = 3000,
    DEFAULT_FENCE_MS = 10000,
    DEFAULT_LANES_MAX = 1024,
    SLICE_SIZE_MIN = 4096,
    GRACE_MAX_MS = 500,
    SPARE_TASKS_MIN = 256,
    PREDICT_SIZE_MIN = 64 << 10,
};

static void transfer_work(void *ctx);

uint64_t transfer_clock(struct yolk_transfer *transfer)
{
    transfer->now_ns = env_now_ns(transfer->env);
    return transfer->now_ns;
}

void transfer_kick(struct yolk_transfer *transfer)
{
    if (!env_timer_armed(&transfer->work)) env_timer_set(transfer->env, &transfer->work, 0);
}

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

static bool state_final(enum yolk_transfer_state state)
{
    return state >= YOLK_TRANSFER_INVALID;
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

static void task_finish(struct yolk_transfer *transfer, struct task *task)
{
    ASSERT(!state_final(task->state));
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

    if (state_final(task->state) || task->slices_out > 0) return;
    if (!all && task->ending == STATUS_OK) return;
    if (all) task->ending = STATUS_OK;
    task_finish(transfer, task);
}

void task_end(struct yolk_transfer *transfer, struct task *task, enum status status)
{
    ASSERT(status != STATUS_OK);
    if (state_final(task->state) || task->ending != STATUS_OK) return;
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

    transfer_clock(task->batch->transfer);
    if (task->ending == STATUS_OK) {
        task_end(task->batch->transfer, task, STATUS_TIMEOUT);
    } else {
        peer_cut(task);
    }
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

/* ---- the turn of the engine ---- */

static struct batch *batch_find(const struct yolk_transfer *transfer,
                                struct yolk_transfer_batch handle)
{
    const uint32_t index = (uint32_t)handle.id, serial = (uint32_t)(handle.id >> 32);

    if (transfer == NULL || index == 0 || index > transfer->batch_high) return NULL;
    const struct batch_slot *slot = &transfer->batches[index - 1];
    return slot->serial == serial ? slot->batch : NULL;
}

static void result_of_batch(const struct batch *batch, struct yolk_transfer_result *out)
{
    struct yolk_transfer_result result = { YOLK_TRANSFER_COMPLETED, STATUS_OK, 0 };
    bool waiting = false, pending = false;

    for (uint32_t i = 0; i < batch->count; i++) {
        const struct task *task = &batch->tasks[i];
        result.bytes += task->bytes;
        waiting = waiting || task->state == YOLK_TRANSFER_WAITING;
        pending = pending || task->state == YOLK_TRANSFER_PENDING;
        if (result.reason == STATUS_OK && state_final(task->state) && task->ending != STATUS_OK) {
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

static void call_back_all(struct yolk_transfer *transfer)
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

static void bury(struct yolk_transfer *transfer)
{
    while (transfer->graveyard != NULL) {
        struct lane *lane = transfer->graveyard;
        transfer->graveyard = lane->next;
        lane_free(lane);
    }
}

static void schedule_dirty(struct yolk_transfer *transfer)
{
    if (transfer->local.dirty) peer_schedule(&transfer->local);
    if (transfer->disk.dirty) peer_schedule(&transfer->disk);
    for (uint32_t i = 0; i < transfer->peer_count; i++) {
        if (transfer->peers[i]->dirty) peer_schedule(transfer->peers[i]);
    }
}

void transfer_turn(struct yolk_transfer *transfer)
{
    ASSERT(!transfer->in_callback);
    env_timer_cancel(transfer->env, &transfer->work);
    transfer_clock(transfer);
    const bool left = copy_run(transfer);
    cuda_turn(transfer);
    call_back_all(transfer);
    schedule_dirty(transfer); /* what the callbacks submitted goes out together */
    bury(transfer);
    if (left || transfer->done_head != NULL) transfer_kick(transfer);
}

static void transfer_work(void *ctx)
{
    transfer_turn(ctx);
}

/* ---- create and destroy ---- */

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value != 0 ? value : fallback;
}

/* What users of other engines know as the way to rule out shared memory. */
static bool tcp_forced(void)
{
    const char *text = getenv("MC_FORCE_TCP");
    return text != NULL && text[0] != '\0' && strcmp(text, "0") != 0;
}

static enum status limits_set(struct yolk_transfer *transfer,
                              const struct yolk_transfer_options *options, struct errmsg *err)
{
    transfer->lanes_per_peer = or_default(options->lanes_per_peer, DEFAULT_LANES);
    transfer->slice_size = or_default(options->slice_size, DEFAULT_SLICE);
    transfer->peers_max = or_default(options->peers_max, DEFAULT_PEERS);
    transfer->lanes_max = or_default(options->lanes_max, DEFAULT_LANES_MAX);
    transfer->retries_max = or_default(options->retries_max, DEFAULT_RETRIES);
    transfer->connect_ns = or_default(options->connect_ms, DEFAULT_CONNECT_MS) * ENV_NS_PER_MS;
    transfer->fence_ns = or_default(options->fence_ms, DEFAULT_FENCE_MS) * ENV_NS_PER_MS;
    transfer->epoch = options->epoch != 0 ? options->epoch : 1;
    transfer->allow_open = options->allow_open;
    transfer->encrypt = options->encrypt;
    transfer->forbid_shm = options->forbid_shm || tcp_forced();
    if (transfer->lanes_per_peer > YOLK_TRANSFER_LANES_MAX) {
        return errmsg_set(err, STATUS_INVALID, "transfer: at most %d lanes to a peer",
                          YOLK_TRANSFER_LANES_MAX);
    }
    if (transfer->slice_size < SLICE_SIZE_MIN || transfer->slice_size > WIRE_SLICE_MAX) {
        return errmsg_set(err, STATUS_INVALID, "transfer: slices of %d to %d bytes", SLICE_SIZE_MIN,
                          WIRE_SLICE_MAX);
    }
    if (transfer->peers_max > 65536) {
        return errmsg_set(err, STATUS_INVALID, "transfer: at most 65536 peers");
    }
    return STATUS_OK;
}

static bool address_valid(const char *name)
{
    if (name == NULL || strnlen(name, YOLK_TRANSFER_NAME_SIZE) == YOLK_TRANSFER_NAME_SIZE) {
        return false;
    }
    for (const char *c = name; *c != '\0'; c++) {
        if (*c <= ' ' || *c > '~') return false;
    }
    return transfer_host_length(name) > 0;
}

static bool is_loopback(const char *address)
{
    return strncmp(address, "127.", 4) == 0 || strncmp(address, "[::1]", 5) == 0 ||
           strncmp(address, "localhost:", 10) == 0;
}

static enum status name_set(struct yolk_transfer *transfer, const char *listen, const char *host)
{
    const unsigned port = env_listener_port(transfer->listener);
    const int host_len = host != NULL ? (int)strnlen(host, YOLK_TRANSFER_NAME_SIZE)
                                      : (int)transfer_host_length(listen);
    if (host == NULL) host = listen;
    const int n = snprintf(transfer->name, sizeof(transfer->name), "%.*s:%u", host_len, host, port);
    return n < (int)sizeof(transfer->name) && address_valid(transfer->name) ? STATUS_OK
                                                                            : STATUS_INVALID;
}

/* Equal for processes of one boot of one machine; 0 where that cannot be told. */
static uint64_t host_identity(struct env *env)
{
    char *text;
    size_t len;
    const char *path = "/proc/sys/kernel/random/boot_id";

    if (env_file_read_all(env, path, 256, &text, &len, NULL) != STATUS_OK) return 0;
    const uint64_t host = len > 0 ? hash_xxh3(text, len) : 0;
    free(text);
    return host;
}

static enum status identify(struct yolk_transfer *transfer,
                            const struct yolk_transfer_options *options)
{
    transfer->generation = options->generation;
    while (transfer->generation == 0) {
        env_random(transfer->env, &transfer->generation, sizeof(transfer->generation));
    }
    transfer->host = host_identity(transfer->env);
    transfer->secret = strdup(options->secret != NULL ? options->secret : "");
    transfer->peers = calloc(transfer->peers_max, sizeof(struct peer *));
    transfer->batches = calloc(YOLK_TRANSFER_BATCHES_MAX, sizeof(struct batch_slot));
    transfer->segments = calloc(YOLK_TRANSFER_SEGMENTS_MAX, sizeof(struct segment));
    if (transfer->secret == NULL || transfer->peers == NULL || transfer->batches == NULL ||
        transfer->segments == NULL) {
        return STATUS_NO_MEMORY;
    }
    return STATUS_OK;
}

static enum status start(struct yolk_transfer *transfer,
                         const struct yolk_transfer_options *options, struct errmsg *err)
{
    const char *listen = options->listen != NULL ? options->listen : "127.0.0.1:0";
    enum status status = limits_set(transfer, options, err);

    if (status != STATUS_OK) return status;
    if (transfer->peers_max == 0) return STATUS_INVALID;
    status = fabric_engine_start(transfer, options->protocol, err);
    if (status != STATUS_OK) return status;
    if (transfer->fabric != NULL && tcp_forced()) {
        return errmsg_set(err, STATUS_INVALID, "transfer: MC_FORCE_TCP=1 rules out protocol `%s`",
                          options->protocol);
    }
    status = identify(transfer, options);
    if (status != STATUS_OK) return errmsg_set(err, status, "transfer: no memory");
    if (transfer->secret[0] == '\0' && !options->allow_open && !is_loopback(listen)) {
        return errmsg_set(err, STATUS_DENIED, "transfer: listening on %s needs a cluster secret",
                          listen);
    }
    if (transfer->encrypt && transfer->fabric != NULL) {
        return errmsg_set(err, STATUS_INVALID,
                          "transfer: data through protocol `%s` would not be "
                          "encrypted",
                          options->protocol);
    }
    if (transfer->encrypt && sealing_capabilities(transfer) == 0) {
        return errmsg_set(err, STATUS_INVALID, "transfer: encrypting needs %s",
                          transfer->secret[0] == '\0' ? "a cluster secret" : "libcrypto.so.3");
    }
    status = env_listen(transfer->env, listen, lane_accept, transfer, &transfer->listener, err);
    if (status != STATUS_OK) return status;
    status = name_set(transfer, listen, options->advertise_host);
    if (status != STATUS_OK) {
        return errmsg_set(err, status, "transfer: no host that peers could reach in %s", listen);
    }
    status = transfer_rails_start(transfer, options, listen, err);
    if (status == STATUS_OK) status = naming_start(transfer, options, err);
    if (status != STATUS_OK) return status;
    peer_init(&transfer->local, transfer, "local", true);
    transfer->local.generation = transfer->generation;
    peer_init(&transfer->disk, transfer, "file", false);
    LOG_INFO("transfer", "listening", "name=%s generation=%llx", transfer->name,
             (unsigned long long)transfer->generation);
    return STATUS_OK;
}

enum status yolk_transfer_create(struct env *env, const struct yolk_transfer_options *options,
                                 struct yolk_transfer **out, struct errmsg *err)
{
    static const struct yolk_transfer_options defaults;

    if (env == NULL || out == NULL) return STATUS_INVALID;
    struct yolk_transfer *transfer = calloc(1, sizeof(*transfer));
    if (transfer == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "transfer: no memory");
    transfer->env = env;
    env_timer_init(&transfer->work, transfer_work, transfer);
    const enum status status = start(transfer, options != NULL ? options : &defaults, err);
    if (status != STATUS_OK) {
        yolk_transfer_destroy(transfer);
        return status;
    }
    *out = transfer;
    return STATUS_OK;
}

static void identity_withdraw(struct buffer *buffer)
{
    if (buffer->identity == NULL) return;
    atomic_store(&buffer->identity->live, 0);
    atomic_thread_fence(memory_order_seq_cst); /* before whatever is written there from now on */
    if (!buffer->vm) return;
    /* Who reads it from now on must not recognise it, whatever comes to lie there. */
    memset(buffer->identity->token, 0, sizeof(buffer->identity->token));
    free(buffer->identity);
    buffer->identity = NULL;
}

static void batch_destroy(struct batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        env_timer_cancel(batch->transfer->env, &batch->tasks[i].timer);
        if (state_final(batch->tasks[i].state)) continue;
        if (batch->tasks[i].buffer != NULL) batch->tasks[i].buffer->users--;
        if (batch->tasks[i].remote != NULL) batch->tasks[i].remote->users--;
    }
    env_event_close(batch->event - 1);
    free(batch);
}

static void buffers_destroy(struct yolk_transfer *transfer)
{
    while (transfer->buffers.count > 0) {
        struct buffer *buffer = transfer->buffers.sorted[transfer->buffers.count - 1];
        struct env_map map = buffer->map;
        identity_withdraw(buffer);
        buffers_remove(&transfer->buffers, buffer);
        env_map_close(&map);
    }
}

static void lanes_destroy(struct yolk_transfer *transfer)
{
    while (transfer->lanes != NULL) {
        struct lane *lane = transfer->lanes;
        if (lane->peer == NULL && lane->state == LANE_READY) lane_farewell(lane, STATUS_OK);
        if (transfer->lanes != lane) continue; /* it died of it */
        transfer->lanes = lane->next;
        if (lane->next != NULL) lane->next->prev = NULL;
        lane_free(lane);
    }
    bury(transfer);
    env_timer_cancel(transfer->env, &transfer->work);
}

void yolk_transfer_destroy(struct yolk_transfer *transfer)
{
    if (transfer == NULL) return;
    ASSERT(!transfer->in_callback);
    naming_farewell(transfer); /* so that nobody comes who would find us gone */
    env_listener_close(transfer->listener);
    transfer_rails_stop(transfer);
    env_timer_cancel(transfer->env, &transfer->work);
    file_destroy_all(transfer);
    cuda_stop(transfer);
    for (int class = 0; class < WIRE_CLASSES; class ++) {
        struct slice *slice;
        while ((slice = slice_pop(&transfer->copies[class])) != NULL) {
            copy_release(slice);
            cuda_slice_free(slice);
        }
    }
    lanes_destroy(transfer);
    loan_destroy_all(transfer);
    cuda_destroy(transfer);
    errand_destroy_all(transfer);
    for (uint32_t i = 0; i < transfer->peer_count; i++) {
        env_timer_cancel(transfer->env, &transfer->peers[i]->timer);
        env_timer_cancel(transfer->env, &transfer->peers[i]->watch);
        naming_forget(transfer->peers[i]);
        free(transfer->peers[i]);
    }
    naming_stop(transfer);
    for (uint32_t i = 0; i < transfer->batch_high; i++) {
        if (transfer->batches[i].batch != NULL) batch_destroy(transfer->batches[i].batch);
    }
    buffers_destroy(transfer);
    while (transfer->slice_chunks != NULL) {
        struct slice_chunk *chunk = transfer->slice_chunks;
        transfer->slice_chunks = chunk->next;
        free(chunk);
    }
    ASSERT(transfer->sessions == NULL);
    fabric_engine_stop(transfer);
    free(transfer->peers);
    free(transfer->batches);
    free(transfer->spare);
    free(transfer->history);
    free(transfer->segments);
    free(transfer->secret);
    free(transfer);
}

const char *yolk_transfer_name(const struct yolk_transfer *transfer)
{
    return transfer != NULL ? transfer->name : "";
}

uint64_t yolk_transfer_generation(const struct yolk_transfer *transfer)
{
    return transfer != NULL ? transfer->generation : 0;
}

uint64_t yolk_transfer_epoch(const struct yolk_transfer *transfer)
{
    return transfer != NULL ? transfer->epoch : 0;
}

/* ---- fences of the owner ---- */

static void identities_refresh(struct yolk_transfer *transfer)
{
    for (uint32_t i = 0; i < transfer->buffers.count; i++) {
        struct identity *identity = transfer->buffers.sorted[i]->identity;
        if (identity == NULL) continue;
        atomic_store(&identity->epoch, transfer->epoch);
        atomic_store(&identity->term, transfer->term);
    }
    atomic_thread_fence(memory_order_seq_cst); /* as in identity_withdraw() */
}

enum status yolk_transfer_set_epoch(struct yolk_transfer *transfer, uint64_t epoch)
{
    if (transfer == NULL) return STATUS_INVALID;
    if (epoch < transfer->epoch) return STATUS_STALE;
    transfer->epoch = epoch;
    identities_refresh(transfer);
    target_revoke(transfer, NULL);
    return STATUS_OK;
}

enum status yolk_transfer_set_term(struct yolk_transfer *transfer, uint64_t term)
{
    if (transfer == NULL) return STATUS_INVALID;
    if (term < transfer->term) return STATUS_STALE;
    transfer->term = term;
    identities_refresh(transfer);
    target_revoke(transfer, NULL);
    return STATUS_OK;
}

/* ---- memory ---- */

static void identity_start(struct yolk_transfer *transfer, struct buffer *buffer,
                           struct identity *identity)
{
    env_random(transfer->env, identity->token, sizeof(identity->token));
    atomic_store(&identity->epoch, transfer->epoch);
    atomic_store(&identity->term, transfer->term);
    atomic_store(&identity->live, transfer->generation);
    buffer->identity = identity;
}

static void identity_publish(struct yolk_transfer *transfer, struct buffer *buffer,
                             const char *share_name)
{
    struct identity *identity = (void *)(uintptr_t)(buffer->address + buffer->length);

    memcpy(buffer->share_name, share_name, strlen(share_name) + 1);
    identity_start(transfer, buffer, identity);
}

/* Memory that a user brought: its identity lies elsewhere, and the name says where. Without one
 * peers get it over tcp. */
static void identity_publish_vm(struct yolk_transfer *transfer, struct buffer *buffer)
{
    char name[ENV_SHARE_NAME_SIZE];

    if (transfer->forbid_shm) return;
    env_memory_name(transfer->env, name);
    struct identity *identity = calloc(1, sizeof(*identity));
    if (identity == NULL || name[0] == '\0') {
        free(identity);
        return;
    }
    snprintf(buffer->share_name, sizeof(buffer->share_name), "%.60s@%llx", name,
             (unsigned long long)(uintptr_t)identity);
    buffer->vm = true;
    identity_start(transfer, buffer, identity);
}

static enum status register_host(struct yolk_transfer *transfer, void *address, size_t length,
                                 const char *share_name, unsigned flags)
{
    const bool populate = (flags & YOLK_TRANSFER_POPULATE) != 0;
    const uint64_t start_at = (uintptr_t)address;
    struct buffer *buffer;
    uint64_t size = length;

    flags &= ~(unsigned)YOLK_TRANSFER_POPULATE;
    if (share_name != NULL) {
        if (share_name[0] == '\0' || strlen(share_name) >= WIRE_SHARE_NAME_SIZE) {
            return STATUS_INVALID;
        }
        size =
            (size + YOLK_TRANSFER_IDENTITY_SIZE - 1) & ~(uint64_t)(YOLK_TRANSFER_IDENTITY_SIZE - 1);
        if (start_at % YOLK_TRANSFER_IDENTITY_SIZE != 0) return STATUS_INVALID;
    }
    if (size < length || size > UINT64_MAX - YOLK_TRANSFER_IDENTITY_SIZE - start_at) {
        return STATUS_INVALID;
    }
    enum status status = populate ? env_populate(transfer->env, address, length) : STATUS_OK;
    if (status == STATUS_OK) {
        status = buffers_add(&transfer->buffers, start_at, size, flags, &buffer);
    }
    if (status != STATUS_OK) return status;
    if (share_name != NULL) {
        identity_publish(transfer, buffer, share_name);
    } else {
        identity_publish_vm(transfer, buffer);
    }
    return STATUS_OK;
}

/* Memory of a device: peers of this host cannot map it, but their drivers may open it. */
static enum status register_device(struct yolk_transfer *transfer, void *address, size_t length,
                                   uint32_t device, unsigned flags, struct errmsg *err)
{
    struct buffer *buffer;
    enum status status = cuda_add(transfer, device, err);

    if (status != STATUS_OK) return status;
    flags &= YOLK_TRANSFER_REMOTE_ALL; /* its pages are there */
    status = buffers_add(&transfer->buffers, (uintptr_t)address, length, flags, &buffer);
    if (status != STATUS_OK) return errmsg_set(err, status, "transfer: cannot register memory");
    buffer->device = device;
    buffer->location = cuda_location(transfer, device);
    cuda_export(transfer, buffer);
    if (buffer->identity != NULL) identity_start(transfer, buffer, buffer->identity);
    return STATUS_OK;
}

static bool range_sane(const struct yolk_transfer *transfer, const void *address, size_t length,
                       unsigned flags)
{
    if (transfer == NULL || address == NULL || length == 0) return false;
    if ((flags & ~(unsigned)(YOLK_TRANSFER_REMOTE_ALL | YOLK_TRANSFER_POPULATE)) != 0) return false;
    return (uintptr_t)address + length > (uintptr_t)address;
}

enum status yolk_transfer_register(struct yolk_transfer *transfer, void *address, size_t length,
                                   const char *share_name, unsigned flags)
{
    uint32_t device;

    if (!range_sane(transfer, address, length, flags)) return STATUS_INVALID;
    const enum status status = cuda_find((uintptr_t)address, length, &device);
    if (status != STATUS_OK) return status;
    if (device == 0) return register_host(transfer, address, length, share_name, flags);
    if (share_name != NULL) return STATUS_INVALID;
    return register_device(transfer, address, length, device, flags, NULL);
}

enum status yolk_transfer_register_at(struct yolk_transfer *transfer, void *address, size_t length,
                                      const char *location, unsigned flags, struct errmsg *err)
{
    uint32_t device = 0;

    if (!range_sane(transfer, address, length, flags)) {
        return errmsg_set(err, STATUS_INVALID, "transfer: no range of memory");
    }
    if (location != NULL && strncmp(location, "cuda:", 5) == 0) {
        const enum status status =
            cuda_find_named(location, (uintptr_t)address, length, &device, err);
        if (status != STATUS_OK) return status;
        return register_device(transfer, address, length, device, flags, err);
    }
    const enum status status = yolk_transfer_register(transfer, address, length, NULL, flags);
    if (status != STATUS_OK) return errmsg_set(err, status, "transfer: cannot register memory");
    struct buffer *buffer = buffers_at(&transfer->buffers, (uintptr_t)address);
    if (buffer->device == 0 && location != NULL) {
        buffer->location = topology_location(&transfer->topology, location);
    }
    return STATUS_OK;
}

enum status yolk_transfer_set_location(struct yolk_transfer *transfer, void *address,
                                       const char *location)
{
    if (transfer == NULL) return STATUS_INVALID;
    struct buffer *buffer = buffers_at(&transfer->buffers, (uintptr_t)address);
    if (buffer == NULL) return STATUS_NOT_FOUND;
    buffer->location = topology_location(&transfer->topology, location);
    return STATUS_OK;
}

enum status yolk_transfer_unregister(struct yolk_transfer *transfer, void *address)
{
    if (transfer == NULL) return STATUS_INVALID;
    struct buffer *buffer = buffers_at(&transfer->buffers, (uintptr_t)address);
    if (buffer == NULL) return STATUS_NOT_FOUND;
    if (buffer->users > 0) return STATUS_BUSY;
    identity_withdraw(buffer);
    target_revoke(transfer, buffer);
    fabric_lanes_forget_buffer(transfer, buffer);
    for (struct lane *lane = transfer->lanes; lane != NULL; lane = lane->next) {
        lane->announced[buffer->slot / 64] &= ~(UINT64_C(1) << (buffer->slot % 64));
    }
    struct env_map identity = { .data = NULL };
    if (buffer->device != 0) identity = buffer->map;
    buffers_remove(&transfer->buffers, buffer);
    env_map_close(&identity);
    return STATUS_OK;
}

enum status yolk_transfer_alloc(struct yolk_transfer *transfer, size_t size, unsigned flags,
                                void **out, struct errmsg *err)
{
    char name[ENV_SHARE_NAME_SIZE];
    struct env_map map;
    const size_t page = YOLK_TRANSFER_IDENTITY_SIZE;

    if (transfer == NULL || out == NULL || size == 0 || size > SIZE_MAX - 2 * page) {
        return errmsg_set(err, STATUS_INVALID, "transfer: bad size of memory");
    }
    const size_t rounded = (size + page - 1) & ~(page - 1);
    enum status status = env_map_create(transfer->env, rounded + page, &map, name, err);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_register(transfer, map.data, rounded, name, flags);
    if (status != STATUS_OK) {
        env_map_close(&map);
        return errmsg_set(err, status, "transfer: cannot register memory: %s", status_name(status));
    }
    buffers_at(&transfer->buffers, (uintptr_t)map.data)->map = map;
    *out = map.data;
    return STATUS_OK;
}

enum status yolk_transfer_free(struct yolk_transfer *transfer, void *address)
{
    if (transfer == NULL) return STATUS_INVALID;
    const struct buffer *buffer = buffers_at(&transfer->buffers, (uintptr_t)address);
    if (buffer == NULL || buffer->device != 0 || buffer->map.data == NULL) {
        return STATUS_NOT_FOUND;
    }
    struct env_map map = buffer->map;
    const enum status status = yolk_transfer_unregister(transfer, address);
    if (status == STATUS_OK) env_map_close(&map);
    return status;
}

/* ---- segments ---- */

struct segment *transfer_segment(struct yolk_transfer *transfer,
                                 struct yolk_transfer_segment handle)
{
    const uint32_t index = (uint32_t)handle.id, serial = (uint32_t)(handle.id >> 32);

    if (transfer == NULL || index == 0 || index > transfer->segment_high) return NULL;
    struct segment *segment = &transfer->segments[index - 1];
    return segment->serial == serial && segment->peer != NULL ? segment : NULL;
}

static bool peer_idle(const struct peer *peer)
{
    if (peer->segments > 0 || peer->tasks > 0 || peer->lost_count > 0) return false;
    for (int i = 0; i < YOLK_TRANSFER_LANES_MAX; i++) {
        if (peer->lanes[i] != NULL && peer->lanes[i]->inflight_count > 0) return false;
    }
    return true;
}

/* Makes room in the table; its connections go with it. */
static struct peer *peer_evict(struct yolk_transfer *transfer)
{
    for (uint32_t i = 0; i < transfer->peer_count; i++) {
        struct peer *peer = transfer->peers[i];
        if (!peer_idle(peer)) continue;
        for (int j = 0; j < YOLK_TRANSFER_LANES_MAX; j++) {
            if (peer->lanes[j] != NULL) lane_die(peer->lanes[j], STATUS_CANCELLED);
        }
        env_timer_cancel(transfer->env, &peer->timer);
        env_timer_cancel(transfer->env, &peer->watch);
        naming_forget(peer);
        return peer;
    }
    return NULL;
}

static struct peer *peer_get(struct yolk_transfer *transfer, const char *name)
{
    struct peer *peer;

    if (naming_is_ours(transfer, name)) return &transfer->local;
    for (uint32_t i = 0; i < transfer->peer_count; i++) {
        if (strcmp(transfer->peers[i]->name, name) == 0) return transfer->peers[i];
    }
    if (transfer->peer_count < transfer->peers_max) {
        peer = malloc(sizeof(*peer));
        if (peer == NULL) return NULL;
        transfer->peers[transfer->peer_count++] = peer;
    } else {
        peer = peer_evict(transfer);
        if (peer == NULL) return NULL;
        bury(transfer);
    }
    peer_init(peer, transfer, name, false);
    return peer;
}

static bool segments_full(const struct yolk_transfer *transfer)
{
    return transfer->segment_free == 0 && transfer->segment_high == YOLK_TRANSFER_SEGMENTS_MAX;
}

enum status transfer_segment_add(struct yolk_transfer *transfer, struct peer *peer,
                                 struct file_segment *file, struct yolk_transfer_segment *out)
{
    if (segments_full(transfer)) return STATUS_FULL;
    uint32_t index = transfer->segment_free;
    if (index != 0) {
        transfer->segment_free = transfer->segments[index - 1].free_next;
    } else {
        index = ++transfer->segment_high;
    }
    struct segment *segment = &transfer->segments[index - 1];
    segment->peer = peer;
    segment->file = file;
    segment->generation = peer->local || file != NULL ? transfer->generation : 0;
    peer->segments++;
    out->id = (uint64_t)segment->serial << 32 | index;
    return STATUS_OK;
}

enum status yolk_transfer_open(struct yolk_transfer *transfer, const char *name,
                               struct yolk_transfer_segment *out)
{
    if (transfer == NULL || out == NULL) return STATUS_INVALID;
    if (!address_valid(name) && !naming_valid(transfer, name)) return STATUS_INVALID;
    if (segments_full(transfer)) return STATUS_FULL;
    struct peer *peer = peer_get(transfer, name);
    if (peer == NULL) return STATUS_FULL;
    return transfer_segment_add(transfer, peer, NULL, out);
}

enum status yolk_transfer_close(struct yolk_transfer *transfer, struct yolk_transfer_segment handle)
{
    struct segment *segment = transfer_segment(transfer, handle);

    if (segment == NULL) return STATUS_INVALID;
    ASSERT(segment->peer->segments > 0);
    segment->peer->segments--;
    segment->peer = NULL;
    if (segment->file != NULL) file_unref(transfer, segment->file);
    segment->file = NULL;
    segment->serial++;
    segment->free_next = transfer->segment_free;
    transfer->segment_free = (uint32_t)handle.id;
    return STATUS_OK;
}

bool transfer_bind(struct yolk_transfer *transfer, struct task *task, uint64_t generation)
{
    ASSERT(generation != 0);
    struct segment *segment = transfer_segment(transfer, task->req.segment);
    if (task->generation == 0 && segment != NULL) task->generation = segment->generation;
    if (task->generation == 0) task->generation = generation;
    if (segment != NULL && segment->generation == 0 && task->generation == generation) {
        segment->generation = generation;
    }
    return task->generation == generation;
}

/* ---- batches ---- */

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

    memset(task, 0, sizeof(*task));
    if (batch->count < batch->capacity) task_prefetch(task + 1);
    batch->uncalled++;
    task->batch = batch;
    task->req = *request;
    task->id = ++transfer->task_serial;
    task->submitted_ns = transfer->now_ns;
    env_timer_init(&task->timer, on_task_timer, task);
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
    out->reason = state_final(task->state) ? task->ending : STATUS_PENDING;
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
    if (task->peer == &transfer->disk && state_final(task->state) &&
        yolk_transfer_explain_id(transfer, task->id, out) == STATUS_OK) {
        return STATUS_OK;
    }
    history_describe(transfer, task, out);
    return STATUS_OK;
}

const char *yolk_transfer_path_name(enum yolk_transfer_path path)
{
    static const char *const names[] = { "none", "local", "shm",    "tcp",
                                         "vm",   "file",  "fabric", "cuda" };
    return (unsigned)path < YOLK_TRANSFER_PATHS ? names[path] : "unknown";
}

const char *yolk_transfer_state_name(enum yolk_transfer_state state)
{
    static const char *const names[] = { "waiting",   "pending", "invalid", "canceled",
                                         "completed", "timeout", "failed" };
    return (unsigned)state <= YOLK_TRANSFER_FAILED ? names[state] : "unknown";
}

void yolk_transfer_stats(const struct yolk_transfer *transfer, struct yolk_transfer_stats *out)
{
    if (transfer != NULL && out != NULL) *out = transfer->stats;
}
