/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/transfer.c - engines: made, ended, turned; and segments, which name other engines.
 *
 * transfer_turn() is what an engine does with the time of its loop: copies, devices, callbacks,
 * then work for the lanes. It runs from a timer of ours, or after a connection has been served.
 *
 * Segments' handles are an index and a serial that changes when the slot is freed, so a stale one
 * is known. Several of one name share a peer; peers nobody uses make room for others. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "transfer/transfer_int.h"

enum {
    DEFAULT_LANES = 2,
    DEFAULT_SLICE = 256 << 10,
    DEFAULT_PEERS = 256,
    DEFAULT_RETRIES = 3,
    DEFAULT_CONNECT_MS = 3000,
    DEFAULT_FENCE_MS = 10000,
    DEFAULT_LANES_MAX = 1024,
    SLICE_SIZE_MIN = 4096,
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

/* ---- the turn of the engine ---- */

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
    batch_call_back_all(transfer);
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
    batch_destroy_all(transfer);
    register_destroy_all(transfer);
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
