/* SPDX-License-Identifier: Apache-2.0
 *
 * store/fetch.c - blocks of another node into our pages, layer by layer.
 *
 *   store_node_fetch       reply            last layer verified, or nothing left
 *     ACQUIRING ---------> READING ------------------------------------------> done
 *   without a holder: LOADING, by node_load.c, until that is done ------------> done
 *         |                   | cancel, deadline, a prefix of nothing            ^
 *         |                   v                                                  |
 *         |                DRAINING ---------------------------------------------+
 *         +-- cancel, deadline, refusal: done           no read is under way any more
 *
 * The holder pins what it has of the keys (a prefix) and says where it lies. Layers are read in
 * order, LAYERS_AHEAD at a time, so that layer l + 1 moves while layer l is computed with. Each
 * layer of each block is hashed when it is here; the first block that fails cuts the prefix, and
 * everything from it on is a miss. The pin is renewed while the fetch lasts and released at its
 * end.
 *
 * Invariants
 *   I1  `blocks` never grows: on_layer's promise.
 *   I2  A page is referenced until no read into it is under way.
 *   I3  done runs once, from the loop, after the last transfer callback. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/node_int.h"
#include "store/node_tier.h"
#include "store/proto.h"
#include "yolk/transfer.h"

enum { LAYERS_AHEAD = 4 };

enum fetch_state { FETCH_ACQUIRING, FETCH_READING, FETCH_LOADING, FETCH_DRAINING };

/* One layer on its way. */
struct layer_read {
    struct store_fetch *fetch;
    struct yolk_transfer_batch batch;
    uint32_t layer;
    uint32_t blocks; /* of them read: tasks 0..blocks-1 */
    bool active;
};

struct store_fetch {
    struct store_fetch *prev;
    struct store_fetch *next;
    struct store_node *node;
    enum fetch_state state;
    struct rpc_client *holder; /* NULL: this node */
    struct node_load *load;    /* LOADING, and DRAINING after it */
    struct rpc_call_id acquire;
    struct yolk_transfer_segment segment;
    bool segment_open;
    uint64_t pin;
    uint64_t lease_ns;
    uint64_t holder_generation; /* of its transfer engine */

    struct block_key *keys;
    struct store_page *pages;
    uint64_t *addresses; /* at the holder */
    uint64_t *sums;      /* layers of block i from i * layers */
    uint32_t count;      /* asked for */
    uint32_t blocks;     /* still good: [0, blocks) */
    enum store_miss reason;
    unsigned transfer_class;

    struct layer_read reads[LAYERS_AHEAD]; /* layer l in slot l % LAYERS_AHEAD */
    uint32_t layers_started;
    uint32_t layers_done; /* verified and reported, in order */
    bool arrived[STORE_LAYERS_MAX];
    uint32_t reads_active;

    struct env_timer deadline;
    struct env_timer renew;
    struct yolk_transfer_request *requests; /* scratch for one layer */
    store_fetch_layer_fn on_layer;
    store_fetch_done_fn on_done;
    void *ctx;
    uint64_t deadline_ns;
    uint64_t started_ns;
    uint64_t bytes;
};

/* ---- the end ---- */

static void fetch_free(struct store_fetch *fetch)
{
    free(fetch->keys);
    free(fetch->pages);
    free(fetch->addresses);
    free(fetch->sums);
    free(fetch->requests);
    free(fetch);
}

static void fetch_unlink(struct store_fetch *fetch)
{
    struct store_node *node = fetch->node;

    LIST_REMOVE(node->fetches, fetch);
    ASSERT(node->fetches_count > 0);
    node->fetches_count--;
}

static void fetch_miss(struct store_fetch *fetch, enum store_miss reason)
{
    if (fetch->reason == STORE_MISS_NONE || fetch->reason == STORE_MISS_ABSENT) {
        fetch->reason = reason;
    }
}

/* How a renewal or a release ended: if it was lost, the lease ends the pin. */
static void on_pin_told(void *ctx, const struct rpc_result *result)
{
    (void)ctx;
    if (result->status != STATUS_OK) {
        LOG_DEBUG("store", "pin_not_told", "reason=%s", status_name(result->status));
    }
}

static void fetch_release(struct store_fetch *fetch)
{
    struct store_node *node = fetch->node;
    struct rpc_call_id id;
    struct buf buf;

    if (fetch->pin == 0) return;
    buf_init(&buf, 64);
    enum status status = store_encode_pin(&buf, fetch->pin);
    const struct rpc_request request = {
        .method = STORE_METHOD_RELEASE,
        .body = buf_data(&buf),
        .len = buf.len,
        .deadline_ns = env_now_ns(node->env) + node->lease_ms * ENV_NS_PER_MS,
        .on_end = on_pin_told,
    };
    if (status == STATUS_OK) status = rpc_call(fetch->holder, &request, &id);
    if (status != STATUS_OK) LOG_DEBUG("store", "release_lost", "pin=%lu", fetch->pin);
    buf_fini(&buf);
    fetch->pin = 0;
}

static void fetch_commit(struct store_fetch *fetch)
{
    struct store_node *node = fetch->node;
    const uint32_t layers = node->layout.layers;

    for (uint32_t i = 0; i < fetch->blocks; i++) {
        const enum status status = store_node_commit(node, &fetch->keys[i], fetch->pages[i],
                                                     &fetch->sums[(size_t)i * layers]);
        ASSERT(status == STATUS_OK || status == STATUS_EXISTS || status == STATUS_INVALID);
        if (status == STATUS_INVALID) LOG_WARN("store", "fetched_into_committed_page", "");
        if (status == STATUS_OK && fetch->holder == NULL) node_tier_admit(node, fetch->pages[i]);
    }
}

static void fetch_done(struct store_fetch *fetch)
{
    struct store_node *node = fetch->node;
    ASSERT(fetch->reads_active == 0);
    const bool complete = fetch->layers_done == node->layout.layers;

    if (!complete) fetch->blocks = 0;
    env_timer_cancel(node->env, &fetch->deadline);
    env_timer_cancel(node->env, &fetch->renew);
    if (!node->closing) {
        if (complete) fetch_commit(fetch);
        fetch_release(fetch);
        if (fetch->segment_open) yolk_transfer_close(node->transfer, fetch->segment);
    }
    const struct store_fetch_result result = {
        .blocks = fetch->blocks,
        .reason = fetch->blocks == fetch->count ? STORE_MISS_NONE : fetch->reason,
        .bytes = fetch->bytes,
        .started_ns = fetch->started_ns,
        .finished_ns = env_now_ns(node->env),
    };
    ASSERT(fetch->blocks == fetch->count || fetch->reason != STORE_MISS_NONE);
    if (fetch->holder != NULL) {
        node->fetched_blocks_total += fetch->blocks;
        node->fetched_bytes_total += fetch->bytes;
        node->fetch_missed_blocks_total += fetch->count - fetch->blocks;
    }
    for (uint32_t i = 0; i < fetch->count; i++)
        pool_unref(node->pool, fetch->pages[i]);
    fetch_unlink(fetch);
    fetch->on_done(fetch->ctx, &result);
    fetch_free(fetch);
}

/* Nothing more is wanted: ends what is under way, and finishes when it has ended. */
static void fetch_drain(struct store_fetch *fetch)
{
    struct store_node *node = fetch->node;

    fetch->state = FETCH_DRAINING;
    if (fetch->reads_active == 0) {
        fetch_done(fetch);
        return;
    }
    for (uint32_t i = 0; i < LAYERS_AHEAD; i++) {
        if (!fetch->reads[i].active) continue;
        const enum status status =
            yolk_transfer_cancel_batch(node->transfer, fetch->reads[i].batch);
        ASSERT(status == STATUS_OK);
    }
}

/* ---- reading ---- */

static void fetch_cut(struct store_fetch *fetch, uint32_t blocks, enum store_miss reason)
{
    ASSERT(blocks < fetch->blocks); /* I1 */
    fetch->blocks = blocks;
    fetch_miss(fetch, reason);
}

/* How many leading blocks of the layer arrived in full. */
static uint32_t read_arrived(const struct layer_read *read)
{
    const struct store_fetch *fetch = read->fetch;
    struct yolk_transfer_result result;

    for (uint32_t i = 0; i < read->blocks; i++) {
        const enum status status =
            yolk_transfer_poll(fetch->node->transfer, read->batch, i, &result);
        if (status != STATUS_OK || result.state != YOLK_TRANSFER_COMPLETED) return i;
    }
    return read->blocks;
}

static void read_verify(struct store_fetch *fetch, uint32_t layer)
{
    struct store_node *node = fetch->node;
    const uint32_t layers = node->layout.layers;

    for (uint32_t i = 0; i < fetch->blocks; i++) {
        const uint64_t want = fetch->sums[(size_t)i * layers + layer];
        if (store_layer_sum(node, fetch->pages[i], layer) == want) continue;
        node->corrupt_total++;
        LOG_WARN("store", "fetched_block_wrong", "holder=%s block=%u layer=%u",
                 rpc_client_address(fetch->holder), i, layer);
        fetch_cut(fetch, i, STORE_MISS_CHECKSUM);
        return;
    }
}

static void fetch_read(struct store_fetch *fetch);

/* Reports what has arrived, in the order of layers. The callback may cancel the fetch. */
static void fetch_deliver(struct store_fetch *fetch)
{
    const uint32_t layers = fetch->node->layout.layers;

    while (fetch->layers_done < layers && fetch->arrived[fetch->layers_done]) {
        const uint32_t layer = fetch->layers_done++;
        if (fetch->on_layer != NULL) fetch->on_layer(fetch->ctx, layer, fetch->blocks);
        if (fetch->state == FETCH_DRAINING) return;
    }
}

static void on_layer_read(void *ctx, const struct yolk_transfer_result *result)
{
    struct layer_read *read = ctx;
    struct store_fetch *fetch = read->fetch;
    struct store_node *node = fetch->node;
    const uint32_t arrived =
        result->state == YOLK_TRANSFER_COMPLETED ? read->blocks : read_arrived(read);
    ASSERT(read->active && fetch->reads_active > 0);

    const enum status freed = yolk_transfer_batch_free(node->transfer, read->batch);
    ASSERT(freed == STATUS_OK);
    read->active = false;
    fetch->reads_active--;
    fetch->bytes += result->bytes;
    if (fetch->state == FETCH_DRAINING) {
        if (fetch->reads_active == 0) fetch_done(fetch);
        return;
    }
    if (arrived < fetch->blocks) {
        const bool late = result->state == YOLK_TRANSFER_TIMEOUT;
        fetch_cut(fetch, arrived, late ? STORE_MISS_DEADLINE : STORE_MISS_TRANSFER);
    }
    read_verify(fetch, read->layer);
    fetch->arrived[read->layer] = true;
    if (fetch->blocks > 0) fetch_deliver(fetch);
    if (fetch->state == FETCH_DRAINING) {
        if (fetch->reads_active == 0) fetch_done(fetch);
    } else if (fetch->blocks == 0) {
        fetch_drain(fetch);
    } else if (fetch->layers_done == node->layout.layers) {
        fetch_done(fetch);
    } else {
        fetch_read(fetch);
    }
}

static enum status layer_submit(struct store_fetch *fetch, struct layer_read *read)
{
    struct store_node *node = fetch->node;
    const uint64_t offset = (uint64_t)read->layer * node->layout.layer_size;

    for (uint32_t i = 0; i < read->blocks; i++) {
        fetch->requests[i] = (struct yolk_transfer_request){
            .opcode = YOLK_TRANSFER_READ,
            .class = (enum yolk_transfer_class)fetch->transfer_class,
            .local = store_node_data(node, fetch->pages[i]) + offset,
            .segment = fetch->segment,
            .remote = fetch->addresses[i] + offset,
            .length = node->layout.layer_size,
            .deadline_ns = fetch->deadline_ns,
            .attempt = fetch->pin,
            .generation = fetch->holder_generation,
        };
    }
    enum status status =
        yolk_transfer_batch_create(node->transfer, read->blocks, on_layer_read, read, &read->batch);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_submit(node->transfer, read->batch, fetch->requests, read->blocks);
    if (status == STATUS_OK) return STATUS_OK;
    const enum status freed = yolk_transfer_batch_free(node->transfer, read->batch);
    ASSERT(freed == STATUS_OK);
    return status;
}

/* Keeps LAYERS_AHEAD layers on their way. A full transfer engine is asked again when one is done.
 */
static void fetch_read(struct store_fetch *fetch)
{
    const uint32_t layers = fetch->node->layout.layers;
    ASSERT(fetch->state == FETCH_READING && fetch->blocks > 0);

    while (fetch->layers_started < layers &&
           fetch->layers_started < fetch->layers_done + LAYERS_AHEAD) {
        struct layer_read *read = &fetch->reads[fetch->layers_started % LAYERS_AHEAD];
        if (read->active) break;
        read->fetch = fetch;
        read->layer = fetch->layers_started;
        read->blocks = fetch->blocks;
        if (layer_submit(fetch, read) != STATUS_OK) break;
        read->active = true;
        fetch->reads_active++;
        fetch->layers_started++;
    }
    if (fetch->reads_active > 0) return;
    fetch_cut(fetch, 0, STORE_MISS_TRANSFER);
    fetch_drain(fetch);
}

/* ---- the pin ---- */

static void on_renew(void *ctx)
{
    struct store_fetch *fetch = ctx;
    struct store_node *node = fetch->node;
    const uint64_t next = env_now_ns(node->env) + fetch->lease_ns / 3;
    struct rpc_call_id id;
    struct buf buf;

    buf_init(&buf, 64);
    enum status status = store_encode_pin(&buf, fetch->pin);
    const struct rpc_request request = { .method = STORE_METHOD_RENEW,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = next,
                                         .on_end = on_pin_told };
    if (status == STATUS_OK) status = rpc_call(fetch->holder, &request, &id);
    if (status != STATUS_OK) LOG_DEBUG("store", "renew_failed", "reason=%s", status_name(status));
    buf_fini(&buf);
    env_timer_set(node->env, &fetch->renew, next);
}

/* Takes the holder's answer over. False if it makes no sense. */
static bool acquired_take(struct store_fetch *fetch, const struct store_acquired *acquired)
{
    const uint32_t layers = fetch->node->layout.layers;
    const size_t count = acquired->addresses.count;

    if (count > fetch->count) return false;
    if (acquired->sums.count != count * layers) return false;
    if ((count > 0) != (acquired->pin != 0)) return false;
    fetch->addresses = malloc((count + 1) * sizeof(*fetch->addresses));
    fetch->sums = malloc((count * layers + 1) * sizeof(*fetch->sums));
    fetch->requests = malloc((count + 1) * sizeof(*fetch->requests));
    if (fetch->addresses == NULL || fetch->sums == NULL || fetch->requests == NULL) return false;
    for (size_t i = 0; i < count; i++) {
        fetch->addresses[i] = msg_u64_at(acquired->addresses, i);
        if (fetch->addresses[i] == 0) return false;
    }
    for (size_t i = 0; i < count * layers; i++)
        fetch->sums[i] = msg_u64_at(acquired->sums, i);
    fetch->pin = acquired->pin;
    fetch->lease_ns = acquired->lease_ms * ENV_NS_PER_MS;
    fetch->holder_generation = acquired->transfer_generation;
    if (count < fetch->count) fetch_cut(fetch, (uint32_t)count, STORE_MISS_ABSENT);
    return true;
}

static enum store_miss miss_of(enum status status)
{
    switch ((int)status) {
    case STATUS_TIMEOUT: return STORE_MISS_DEADLINE;
    case STATUS_CANCELLED: return STORE_MISS_CANCELLED;
    case STATUS_CONN_CLOSED:
    case STATUS_CONN_REFUSED:
    case STATUS_UNAVAILABLE: return STORE_MISS_HOLDER;
    default: return STORE_MISS_REFUSED;
    }
}

static void on_acquired(void *ctx, const struct rpc_result *result)
{
    struct store_fetch *fetch = ctx;
    struct store_node *node = fetch->node;
    struct store_acquired acquired;
    enum store_miss miss = STORE_MISS_NONE;

    fetch->acquire.value = 0;
    if (node->closing) return; /* node_fetch_fini() ends it */
    if (result->status != STATUS_OK) {
        miss = miss_of(result->status);
    } else if (store_decode_acquired(result->body, result->len, &acquired) != STATUS_OK ||
               !acquired_take(fetch, &acquired)) {
        miss = STORE_MISS_REFUSED;
    } else if (fetch->blocks > 0 && fetch->state == FETCH_ACQUIRING) {
        const enum status status =
            yolk_transfer_open(node->transfer, acquired.segment, &fetch->segment);
        fetch->segment_open = status == STATUS_OK;
        if (status != STATUS_OK) miss = STORE_MISS_TRANSFER;
    }
    if (miss != STORE_MISS_NONE) fetch_miss(fetch, miss);
    if (!fetch->segment_open) {
        fetch_done(fetch);
        return;
    }
    fetch->state = FETCH_READING;
    if (fetch->lease_ns > 0) {
        env_timer_set(node->env, &fetch->renew, env_now_ns(node->env) + fetch->lease_ns / 3);
    }
    fetch_read(fetch);
}

static enum status fetch_acquire(struct store_fetch *fetch)
{
    struct store_node *node = fetch->node;
    const struct store_acquire message = { .class = STORE_CLASS_BLOCK,
                                           .prefix = true,
                                           .layout = node->layout,
                                           .ids = fetch->keys[0].bytes,
                                           .count = fetch->count };
    struct buf buf;

    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_acquire(&buf, &message);
    const struct rpc_request request = { .method = STORE_METHOD_ACQUIRE,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = fetch->deadline_ns,
                                         .on_end = on_acquired,
                                         .ctx = fetch };
    if (status == STATUS_OK) status = rpc_call(fetch->holder, &request, &fetch->acquire);
    buf_fini(&buf);
    return status;
}

/* ---- from this node's disk ---- */

static void on_loaded_layers(void *ctx, uint32_t layers, uint32_t blocks, enum store_miss reason)
{
    struct store_fetch *fetch = ctx;

    if (blocks < fetch->blocks) fetch_cut(fetch, blocks, reason);
    while (fetch->layers_done < layers && fetch->state == FETCH_LOADING) {
        const uint32_t layer = fetch->layers_done++;
        if (fetch->on_layer != NULL) fetch->on_layer(fetch->ctx, layer, fetch->blocks);
    }
}

static void on_loaded(void *ctx, uint32_t blocks, enum store_miss reason, uint64_t bytes)
{
    struct store_fetch *fetch = ctx;

    fetch->load = NULL;
    fetch->bytes = bytes;
    if (blocks < fetch->blocks) fetch_cut(fetch, blocks, reason);
    if (blocks > 0) fetch->layers_done = fetch->node->layout.layers;
    fetch_done(fetch);
}

static enum status fetch_load(struct store_fetch *fetch)
{
    fetch->state = FETCH_LOADING;
    fetch->sums = malloc((size_t)fetch->count * fetch->node->layout.layers * sizeof(*fetch->sums));
    if (fetch->sums == NULL) return STATUS_FULL;
    const struct node_load_options options = { .keys = fetch->keys,
                                               .pages = fetch->pages,
                                               .sums = fetch->sums,
                                               .count = fetch->count,
                                               .on_layers = on_loaded_layers,
                                               .on_done = on_loaded,
                                               .ctx = fetch };
    return node_load_start(fetch->node, &options, &fetch->load);
}

/* ---- the interface ---- */

static void fetch_stop(struct store_fetch *fetch, enum store_miss reason)
{
    fetch_miss(fetch, reason);
    switch (fetch->state) {
    case FETCH_ACQUIRING:
        fetch->state = FETCH_DRAINING;
        rpc_cancel(fetch->holder, fetch->acquire); /* its on_end finishes the fetch */
        break;
    case FETCH_READING: {
        /* Done comes from the loop: cancelled reads always call back later. */
        ASSERT(fetch->reads_active > 0 || fetch->layers_done > 0);
        if (fetch->reads_active > 0) {
            fetch_drain(fetch);
        } else {
            fetch->state = FETCH_DRAINING; /* inside on_layer: on_layer_read() finishes */
        }
        break;
    }
    case FETCH_LOADING:
        fetch->state = FETCH_DRAINING;
        node_load_cancel(fetch->load); /* its on_done finishes the fetch */
        break;
    case FETCH_DRAINING: break;
    }
}

static void on_deadline(void *ctx)
{
    fetch_stop(ctx, STORE_MISS_DEADLINE);
}

void store_fetch_cancel(struct store_fetch *fetch)
{
    fetch_stop(fetch, STORE_MISS_CANCELLED);
}

static struct store_fetch *fetch_new(struct store_node *node,
                                     const struct store_fetch_options *options)
{
    struct store_fetch *fetch = calloc(1, sizeof(*fetch));
    if (fetch == NULL) return NULL;
    fetch->keys = malloc(options->count * sizeof(*fetch->keys));
    fetch->pages = malloc(options->count * sizeof(*fetch->pages));
    if (fetch->keys == NULL || fetch->pages == NULL) {
        fetch_free(fetch);
        return NULL;
    }
    memcpy(fetch->keys, options->keys, options->count * sizeof(*fetch->keys));
    memcpy(fetch->pages, options->pages, options->count * sizeof(*fetch->pages));
    fetch->node = node;
    fetch->count = options->count;
    fetch->blocks = options->count;
    fetch->transfer_class = options->transfer_class;
    fetch->deadline_ns = options->deadline_ns;
    fetch->on_layer = options->on_layer;
    fetch->on_done = options->on_done;
    fetch->ctx = options->ctx;
    fetch->started_ns = env_now_ns(node->env);
    env_timer_init(&fetch->deadline, on_deadline, fetch);
    env_timer_init(&fetch->renew, on_renew, fetch);
    return fetch;
}

enum status store_node_fetch(struct store_node *node, const struct store_fetch_options *options,
                             struct store_fetch **out)
{
    ASSERT(options->on_done != NULL);
    ASSERT(options->transfer_class < YOLK_TRANSFER_CLASSES);
    if (options->count == 0 || options->count > STORE_FETCH_BLOCKS_MAX) return STATUS_INVALID;
    if (options->deadline_ns == ENV_NEVER || options->deadline_ns == 0) return STATUS_INVALID;
    if (node->fetches_count >= node->fetches_max) return STATUS_FULL;

    struct store_fetch *fetch = fetch_new(node, options);
    if (fetch == NULL) return STATUS_FULL;
    enum status status = STATUS_OK;
    if (options->holder == NULL) {
        status = fetch_load(fetch);
    } else {
        status = store_peers_get(node->peers, options->holder, &fetch->holder);
        if (status == STATUS_OK) status = fetch_acquire(fetch);
    }
    if (status != STATUS_OK) {
        fetch_free(fetch);
        return status;
    }
    for (uint32_t i = 0; i < fetch->count; i++)
        pool_ref(node->pool, fetch->pages[i]);
    LIST_PUSH(node->fetches, fetch);
    node->fetches_count++;
    env_timer_set(node->env, &fetch->deadline, fetch->deadline_ns);
    *out = fetch;
    return STATUS_OK;
}

void node_fetch_fini(struct store_node *node)
{
    ASSERT(node->closing);
    while (node->fetches != NULL) {
        struct store_fetch *fetch = node->fetches;
        fetch_miss(fetch, STORE_MISS_CANCELLED);
        fetch->reads_active = 0; /* the transfer engine is gone and calls back no more */
        fetch->layers_done = 0;
        if (fetch->load != NULL) node_load_abandon(fetch->load);
        fetch_done(fetch);
    }
}
