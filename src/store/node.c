/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node.c - a node of the pool: the slab, the two halves of its manifest, and reading by
 * others.
 *
 *   slab | page 0 | page 1 | ... | page N-1 | object region (lent to the master) | staging |
 *
 * The pool (pool.c) and the values (objects.c) decide; this file gives them time, generations and
 * bytes, and answers store.acquire, store.renew and store.release.
 *
 * A reader elsewhere pins what it wants by store.acquire and gets addresses, generations and
 * checksums; it then reads through the transfer engine without us, verifies, and releases. Small
 * values go with the answer if the reader likes, and need no pin. Who asks for many values at once
 * gets those that are in memory, so that it does not wait for the disk; for the others it comes
 * again, one by one. A pin
 * that is neither renewed nor released ends after lease_ms: a reader that died costs memory for so
 * long, and one that was only slow finds bytes whose checksums do not match, never wrong ones. */
#include "store/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/hash.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/board.h"
#include "store/node_int.h"
#include "store/node_tier.h"
#include "store/node_values.h"
#include "store/proto.h"
#include "store/rank.h"
#include "yolk/transfer.h"

enum { FETCHES_MAX_DEFAULT = 64, PINS_MAX_DEFAULT = 4096 };

static uint64_t pages_size(const struct store_layout *layout)
{
    return (uint64_t)layout->pages * layout->page_size;
}

uint64_t node_region_address(const struct store_node *node)
{
    return (uint64_t)(uintptr_t)node->slab + pages_size(&node->layout);
}

/* ---- the manifest tells the log ---- */

static void on_page_stored(void *ctx, struct store_page page)
{
    struct store_node *node = ctx;
    node_log(node, STORE_EVENT_STORED, STORE_CLASS_BLOCK, pool_key(node->pool, page),
             pool_generation(node->pool, page));
    node_tier_stored(node, page);
}

static void on_page_removed(void *ctx, struct store_page page, const struct block_key *key,
                            uint64_t generation)
{
    struct store_node *node = ctx;
    (void)page;
    if (node_tier_has(node, key)) { /* it has gone down, not away */
        node_log(node, STORE_EVENT_STORED, STORE_CLASS_BLOCK, key, ++node->generation);
    } else {
        node_log(node, STORE_EVENT_REMOVED, STORE_CLASS_BLOCK, key, generation);
    }
}

static void on_object_stored(void *ctx, const struct object *object)
{
    struct store_node *node = ctx;
    board_changed(node->board, &object->id);
    if (node_values_stored(ctx, object)) return;
    node_log(ctx, STORE_EVENT_STORED, STORE_CLASS_OBJECT, &object->id, object->generation);
}

static void on_object_removed(void *ctx, const struct object *object)
{
    struct store_node *node = ctx;
    board_changed(node->board, &object->id);
    if (node_values_removed(ctx, object)) return;
    node_log(ctx, STORE_EVENT_REMOVED, STORE_CLASS_OBJECT, &object->id, object->generation);
}

void node_trust_changed(struct store_node *node)
{
    board_post(node->board, node_trust_vouches_until(&node->trust, env_now_ns(node->env)));
}

struct store_attributes node_attributes(const struct store_node *node, const struct object *object)
{
    const uint64_t now = env_now_ns(node->env);
    const uint64_t left = object->soft_until_ns > now ? object->soft_until_ns - now : 0;
    struct store_attributes attributes = object->attributes;

    attributes.soft_pin_ms = (uint32_t)(left / ENV_NS_PER_MS);
    return attributes;
}

/* ---- pins end ---- */

void node_expire_by(struct store_node *node, uint64_t deadline_ns)
{
    if (deadline_ns == ENV_NEVER) return;
    if (env_timer_armed(&node->expire_timer) && node->expire_timer.deadline_ns <= deadline_ns) {
        return;
    }
    env_timer_set(node->env, &node->expire_timer, deadline_ns);
}

static void on_expire(void *ctx)
{
    struct store_node *node = ctx;
    const uint64_t now = env_now_ns(node->env);
    node_expire_by(node, pool_expire(node->pool, now));
    node_expire_by(node, objects_expire(node->objects, now));
}

/* ---- serving readers ---- */

/* The answer to one acquire while it is put together. */
struct acquired {
    uint32_t room;   /* items asked for */
    uint32_t count;  /* items answered */
    uint32_t pinned; /* of them, present and not inline */
    uint32_t sums_count;
    size_t inline_len;
    uint64_t *numbers; /* addresses, generations, sizes: each `room` apart */
    uint64_t *sums;
    uint32_t *inlines; /* bytes of each item that are in the answer */
    struct store_page *pages;
    const struct object **objects;
};

static uint64_t *acquired_addresses(const struct acquired *acquired)
{
    return acquired->numbers;
}

static uint64_t *acquired_generations(const struct acquired *acquired)
{
    return acquired->numbers + acquired->room;
}

static uint64_t *acquired_sizes(const struct acquired *acquired)
{
    return acquired->numbers + 2 * (size_t)acquired->room;
}

static void acquired_free(struct acquired *acquired)
{
    free(acquired->numbers);
    free(acquired->sums);
    free(acquired->inlines);
    free(acquired->pages);
    free(acquired->objects);
}

static bool acquired_init(struct acquired *acquired, uint32_t room, uint32_t sums_room)
{
    *acquired = (struct acquired){
        .room = room,
        .numbers = malloc(3 * (size_t)room * sizeof(*acquired->numbers)),
        .sums = malloc((sums_room + (size_t)1) * sizeof(*acquired->sums)),
        .inlines = calloc(room, sizeof(*acquired->inlines)),
        .pages = malloc(room * sizeof(*acquired->pages)),
        .objects = malloc(room * sizeof(const struct object *)),
    };
    return acquired->numbers != NULL && acquired->sums != NULL && acquired->inlines != NULL &&
           acquired->pages != NULL && acquired->objects != NULL;
}

static void acquired_item(struct acquired *acquired, uint64_t address, uint64_t generation,
                          uint64_t size, const uint64_t *sums, uint32_t sums_count)
{
    ASSERT(acquired->count < acquired->room);
    acquired_addresses(acquired)[acquired->count] = address;
    acquired_generations(acquired)[acquired->count] = generation;
    acquired_sizes(acquired)[acquired->count] = size;
    acquired->count++;
    if (sums_count == 0) return;
    memcpy(acquired->sums + acquired->sums_count, sums, sums_count * sizeof(*sums));
    acquired->sums_count += sums_count;
}

static struct block_key acquire_id(const struct store_acquire *request, uint32_t i)
{
    struct block_key id;
    memcpy(id.bytes, request->ids + (size_t)i * BLOCK_KEY_SIZE, BLOCK_KEY_SIZE);
    return id;
}

static void acquire_blocks(struct store_node *node, const struct store_acquire *request,
                           struct acquired *out)
{
    const struct store_layout *layout = &node->layout;
    const uint64_t size = (uint64_t)layout->layers * layout->layer_size;

    for (uint32_t i = 0; i < request->count; i++) {
        const struct block_key id = acquire_id(request, i);
        struct store_page page;
        if (pool_find(node->pool, &id, &page)) {
            pool_touch(node->pool, page);
            node_tier_touch(node, &id);
            out->pages[out->pinned++] = page;
            acquired_item(out, store_node_address(node, page), pool_generation(node->pool, page),
                          size, pool_sums(node->pool, page), layout->layers);
        } else if (request->prefix) {
            break;
        } else {
            acquired_item(out, 0, 0, 0, NULL, 0);
        }
    }
}

/* A value in memory that may be read. */
static const struct object *acquire_find(const struct store_node *node, const struct block_key *id)
{
    const struct object *object = objects_find(node->objects, id);
    return object != NULL && node_doubts_wrong(node, object) ? NULL : object;
}

/* Whether the value goes with the answer. Then nobody will come for it, and it needs no pin. */
static bool acquire_inline(const struct store_acquire *request, const struct object *object,
                           struct acquired *out)
{
    if (object->size > request->inline_max) return false;
    if (object->size > STORE_INLINE_MAX - out->inline_len) return false;
    out->inlines[out->count] = (uint32_t)object->size;
    out->inline_len += object->size;
    return true;
}

static void acquire_objects(struct store_node *node, const struct store_acquire *request,
                            uint32_t sums_room, struct acquired *out)
{
    for (uint32_t i = 0; i < request->count; i++) {
        const struct block_key id = acquire_id(request, i);
        const struct object *object = acquire_find(node, &id);
        if (object != NULL && object->sums_count <= sums_room - out->sums_count) {
            node_values_touch(node, object);
            if (!acquire_inline(request, object, out) && !request->look) {
                out->objects[out->pinned++] = object;
            }
            acquired_item(out, object->address, object->generation, object->size, object->sums,
                          object->sums_count);
        } else {
            acquired_item(out, 0, 0, 0, NULL, 0);
        }
    }
}

/* Room for checksums: of blocks exactly; of objects as many as the largest one has, at least. */
static uint32_t acquire_sums_room(const struct store_node *node,
                                  const struct store_acquire *request)
{
    if (request->class == STORE_CLASS_BLOCK) return request->count * node->layout.layers;
    uint64_t room = 0;
    for (uint32_t i = 0; i < request->count; i++) {
        const struct block_key id = acquire_id(request, i);
        const struct object *object = objects_find(node->objects, &id);
        if (object != NULL) room += object->sums_count;
    }
    return room > STORE_SUMS_MAX ? STORE_SUMS_MAX : (uint32_t)room;
}

static enum status acquire_pin(struct store_node *node, enum store_class class,
                               const struct acquired *acquired, uint64_t *pin)
{
    const uint64_t expires = env_now_ns(node->env) + node->lease_ms * ENV_NS_PER_MS;
    enum status status;

    *pin = 0;
    if (acquired->pinned == 0) return STATUS_OK;
    if (class == STORE_CLASS_BLOCK) {
        struct pool_pin page_pin = { 0 };
        status = pool_pin(node->pool, acquired->pages, acquired->pinned, expires, &page_pin);
        *pin = page_pin.id;
    } else {
        status = objects_pin(node->objects, acquired->objects, acquired->pinned, expires, pin);
    }
    if (status == STATUS_OK) node_expire_by(node, expires);
    return status;
}

void node_reply(struct rpc_call *call, struct buf *buf, enum status status)
{
    if (status == STATUS_OK) {
        rpc_reply(call, buf_data(buf), buf->len);
    } else {
        rpc_fail(call, status, NULL);
    }
    buf_fini(buf);
}

static void acquire_reply(struct store_node *node, struct rpc_call *call, uint64_t pin,
                          enum store_class class, const struct acquired *acquired)
{
    struct buf buf;
    struct store_acquired_out reply = {
        .head.pin = pin,
        .head.epoch = node->epoch,
        .head.transfer_generation = yolk_transfer_generation(node->transfer),
        .head.lease_ms = node->lease_ms,
        .head.vouched =
            class == STORE_CLASS_OBJECT && node_trust_vouches(&node->trust, env_now_ns(node->env)),
        .head.piece_size = class == STORE_CLASS_BLOCK ? node->layout.layer_size : STORE_PIECE_SIZE,
        .count = acquired->count,
        .addresses = acquired_addresses(acquired),
        .generations = acquired_generations(acquired),
        .sizes = acquired_sizes(acquired),
        .sums = acquired->sums,
        .sums_count = acquired->sums_count,
        .inlines = acquired->inlines,
        .inline_len = acquired->inline_len,
    };
    const char *segment = store_node_segment(node);
    ASSERT(strlen(segment) < sizeof(reply.head.segment));
    memcpy(reply.head.segment, segment, strlen(segment) + 1);
    if (class == STORE_CLASS_OBJECT) {
        snprintf(reply.head.board, sizeof(reply.head.board), "%s", board_name(node->board));
    }
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    const enum status status = store_encode_acquired(&buf, &reply);
    node_reply(call, &buf, status);
}

/* A client that reads one key by its bytes cannot know whether it is a value or a block. */
static bool acquire_is_block(const struct store_node *node, const struct store_acquire *request)
{
    const struct block_key id = acquire_id(request, 0);
    return request->count == 1 && objects_find(node->objects, &id) == NULL &&
           pool_match(node->pool, &id, 1) == 1;
}

/* That are about to be read. */
static uint64_t acquired_bytes(const struct acquired *acquired)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < acquired->count; i++)
        sum += acquired_sizes(acquired)[i];
    return sum;
}

static void acquire_answer(struct store_node *node, struct rpc_call *call,
                           struct store_acquire *request)
{
    struct acquired acquired;
    uint64_t pin;

    if (!request->look && acquire_is_block(node, request)) request->class = STORE_CLASS_BLOCK;
    const uint32_t sums_room = acquire_sums_room(node, request);
    if (!acquired_init(&acquired, request->count, sums_room)) {
        acquired_free(&acquired);
        rpc_fail(call, STATUS_FULL, "store.acquire: no memory");
        return;
    }
    if (request->class == STORE_CLASS_BLOCK) {
        acquire_blocks(node, request, &acquired);
    } else {
        acquire_objects(node, request, sums_room, &acquired);
    }
    const enum status status = acquire_pin(node, request->class, &acquired, &pin);
    if (status == STATUS_OK) {
        traffic_add(&node->traffic, env_now_ns(node->env), acquired_bytes(&acquired));
        acquire_reply(node, call, pin, request->class, &acquired);
    } else {
        rpc_fail(call, status, "store.acquire: too many pins");
    }
    acquired_free(&acquired);
}

void node_acquire_reply(struct store_node *node, struct rpc_call *call, const uint8_t *body,
                        size_t len)
{
    struct store_acquire request;
    if (store_decode_acquire(body, len, &request) == STATUS_OK) {
        acquire_answer(node, call, &request);
    } else {
        rpc_fail(call, STATUS_INVALID, "store.acquire: malformed");
    }
}

static void handle_acquire(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_node *node = ctx;
    struct store_acquire request;

    if (store_decode_acquire(body, len, &request) != STATUS_OK) {
        rpc_fail(call, STATUS_INVALID, "store.acquire: malformed");
        return;
    }
    if (request.class == STORE_CLASS_BLOCK &&
        !store_layout_matches(&request.layout, &node->layout)) {
        rpc_fail(call, STATUS_UNSUPPORTED, "store.acquire: another KV layout");
        return;
    }
    if (node_tier_promote(node, call, body, len, &request)) return;
    if (request.count == 1 && !request.look && node_values_promote(node, call, body, len, &request))
        return;
    acquire_answer(node, call, &request);
}

static void reply_done(struct rpc_call *call, enum status status)
{
    if (status == STATUS_OK) {
        rpc_reply(call, NULL, 0);
    } else {
        rpc_fail(call, status, NULL);
    }
}

static void handle_release(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_node *node = ctx;
    uint64_t pin = 0;
    enum status status = store_decode_pin(body, len, &pin);

    if (status == STATUS_OK) {
        status = pool_unpin(node->pool, (struct pool_pin){ pin });
        if (status == STATUS_NOT_FOUND) status = objects_unpin(node->objects, pin);
    }
    reply_done(call, status);
}

static void handle_renew(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_node *node = ctx;
    const uint64_t expires = env_now_ns(node->env) + node->lease_ms * ENV_NS_PER_MS;
    uint64_t pin = 0;
    enum status status = store_decode_pin(body, len, &pin);

    if (status == STATUS_OK) {
        status = pool_repin(node->pool, (struct pool_pin){ pin }, expires);
        if (status == STATUS_NOT_FOUND) status = objects_repin(node->objects, pin, expires);
    }
    reply_done(call, status);
}

/* ---- life ---- */

static void node_serve(struct store_node *node, struct rpc_server *server)
{
    rpc_server_add(server, STORE_METHOD_ACQUIRE, "store.acquire", handle_acquire, node);
    rpc_server_add(server, STORE_METHOD_RELEASE, "store.release", handle_release, node);
    rpc_server_add(server, STORE_METHOD_RENEW, "store.renew", handle_renew, node);
    rpc_server_add(server, STORE_METHOD_EVENTS, "store.events", node_handle_events, node);
    rpc_server_add(server, STORE_METHOD_COMMIT, "store.commit", node_handle_commit, node);
    rpc_server_add(server, STORE_METHOD_COMMITS, "store.commits", node_handle_commits, node);
    rpc_server_add(server, STORE_METHOD_DROP, "store.drop", node_handle_drop, node);
    rpc_server_add(server, STORE_METHOD_COPY, "store.copy", node_handle_copy, node);
    rpc_server_add(server, STORE_METHOD_MARK, "store.mark", node_handle_mark, node);
    rpc_server_add(server, STORE_METHOD_DOUBT, "store.doubt", node_handle_doubt, node);
}

static enum status options_check(const struct store_node_options *options, struct errmsg *err)
{
    if (!store_layout_valid(&options->layout)) {
        return errmsg_set(err, STATUS_INVALID, "the KV layout is out of range");
    }
    if (options->object_size % STORE_PAGE_ALIGN != 0) {
        return errmsg_set(err, STATUS_INVALID, "the object region is not a multiple of %d bytes",
                          STORE_PAGE_ALIGN);
    }
    return STATUS_OK;
}

/* Memory of the slab is the transfer engine's, so that others on this host can map it. */
static enum status node_reserve(struct store_node *node, bool populate, struct errmsg *err)
{
    const unsigned flags = YOLK_TRANSFER_REMOTE_ALL | (populate ? YOLK_TRANSFER_POPULATE : 0);
    void *slab = NULL;
    const uint64_t size = pages_size(&node->layout) + node->object_size + node->staging_size;
    const enum status status = yolk_transfer_alloc(node->transfer, size, flags, &slab, err);
    if (status != STATUS_OK) return status;
    node->slab = slab;
    return STATUS_OK;
}

static enum status node_manifests(struct store_node *node)
{
    uint64_t seed;
    env_random(node->env, &seed, sizeof(seed));
    const struct pool_options pool = {
        .pages = node->layout.pages,
        .layers = node->layout.layers,
        .pins_max = node->pins_max,
        .seed = seed,
        .on_stored = on_page_stored,
        .on_removed = on_page_removed,
        .ctx = node,
    };
    const struct objects_options objects = {
        .address = node_region_address(node),
        .size = node->object_size + node->staging_size,
        .pins_max = node->pins_max,
        .seed = seed,
        .on_stored = on_object_stored,
        .on_removed = on_object_removed,
        .ctx = node,
    };
    enum status status = pool_create(&pool, &node->pool);
    if (status == STATUS_OK) status = objects_create(&objects, &node->objects);
    if (status == STATUS_OK) status = node_events_init(node);
    return status;
}

/* Too little disk is a node without one: it serves all the same. */
static enum status node_disk(struct store_node *node, const struct store_node_options *options,
                             struct errmsg *err)
{
    struct errmsg why = { "" };
    enum status status = options->disk_size == 0 ? STATUS_OK : node_tier_open(node, options, &why);

    if (status == STATUS_INVALID) {
        LOG_WARN("store", "no_disk", "reason=%s", why.text);
        status = STATUS_OK;
    }
    if (status != STATUS_OK) return errmsg_set(err, status, "the KVCache on disk: %s", why.text);
    if (node->staging_size == 0) return STATUS_OK;
    status = node_values_open(node, options, &why);
    if (status == STATUS_INVALID) {
        LOG_WARN("store", "no_disk_of_values", "reason=%s", why.text);
        status = STATUS_OK;
    }
    if (status == STATUS_OK) return STATUS_OK;
    return errmsg_set(err, status, "the values on disk: %s", why.text);
}

static bool wants_disk(const struct store_node_options *options)
{
    return options->disk_directory != NULL && options->disk_directory[0] != '\0';
}

/* What of the memory for values is kept back for those that come from the disk. */
static uint64_t staging_size(const struct store_node_options *options)
{
    if (!wants_disk(options) || options->values_disk_size == 0) return 0;
    return options->object_size / NODE_STAGING_SHARE / STORE_PAGE_ALIGN * STORE_PAGE_ALIGN;
}

enum status store_node_create(const struct store_node_options *options, struct store_node **out,
                              struct errmsg *err)
{
    enum status status = options_check(options, err);
    if (status != STATUS_OK) return status;
    struct store_node *node = calloc(1, sizeof(*node));
    if (node == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");

    node->env = options->env;
    node->transfer = options->transfer;
    node->layout = options->layout;
    node->staging_size = staging_size(options);
    node->object_size = options->object_size - node->staging_size;
    node->epoch = yolk_transfer_generation(options->transfer);
    node->lease_ms = options->lease_ms == 0 ? STORE_LEASE_MS_DEFAULT : options->lease_ms;
    node->pins_max = options->pins_max == 0 ? PINS_MAX_DEFAULT : options->pins_max;
    node->fetches_max = options->fetches_max == 0 ? FETCHES_MAX_DEFAULT : options->fetches_max;
    env_timer_init(&node->expire_timer, on_expire, node);
    node_ends_init(node);
    node_doubts_init(node);
    status = store_peers_create(node->env, options->secret, options->name, &node->peers);
    if (status != STATUS_OK) goto out_of_memory;
    status = node_reserve(node, options->populate, err);
    if (status != STATUS_OK) goto free_node;
    status = node_manifests(node);
    if (status != STATUS_OK) goto out_of_memory;
    if (wants_disk(options)) {
        status = node_disk(node, options, err);
        if (status != STATUS_OK) goto free_slab;
    }
    if (board_create(node->env, node->epoch, &node->board) != STATUS_OK) {
        LOG_DEBUG("store", "no_board", "");
    }
    if (options->server != NULL) node_serve(node, options->server);
    *out = node;
    return STATUS_OK;

out_of_memory:
    errmsg_set(err, status, "out of memory for the books of %u pages", node->layout.pages);
free_slab:
    if (node->slab != NULL && yolk_transfer_free(node->transfer, node->slab) != STATUS_OK) {
        LOG_ERROR("store", "slab_leaked", "");
    }
free_node:
    store_node_destroy(node);
    return status;
}

void store_node_close_disk(struct store_node *node)
{
    node_values_close(node, true);
    node_tier_close(node, true);
}

void store_node_destroy(struct store_node *node)
{
    if (node == NULL) return;
    node->closing = true;
    node_values_close(node, false);
    node_tier_close(node, false);
    env_timer_cancel(node->env, &node->expire_timer);
    node_doubts_fini(node);
    node_ends_fini(node);
    store_peers_destroy(node->peers);
    node_copy_fini(node);
    node_fetch_fini(node);
    node_events_fini(node);
    board_destroy(node->board);
    objects_destroy(node->objects);
    pool_destroy(node->pool);
    free(node);
}

enum status store_node_see_term(struct store_node *node, uint64_t term)
{
    if (term >= STORE_TERM_END) return STATUS_INVALID;
    if (term < node->term) return STATUS_STALE;
    if (term == node->term) return STATUS_OK;
    /* From here no byte of a writer of an older term can land, so the region may be lent again. */
    const enum status status = yolk_transfer_set_term(node->transfer, term);
    if (status != STATUS_OK) return status;
    node->term = term;
    node_put_fence(node);
    node_events_fence(node);
    if (node->object_size > 0) {
        const struct block_key none = { { 0 } };
        node_log(node, STORE_EVENT_EXTENT, STORE_CLASS_OBJECT, &none, term);
    }
    return STATUS_OK;
}

void store_node_set_master(struct store_node *node, struct rpc_client *master, const char *name)
{
    const size_t len = strnlen(name, sizeof(node->name) - 1);
    node->master = master;
    memcpy(node->name, name, len);
    node->name[len] = 0;
}

/* ---- where things are ---- */

const struct store_layout *store_node_layout(const struct store_node *node)
{
    return &node->layout;
}

uint8_t *store_node_base(const struct store_node *node)
{
    return node->slab;
}

uint8_t *store_node_data(const struct store_node *node, struct store_page page)
{
    ASSERT(page.index < node->layout.pages);
    return node->slab + (size_t)page.index * node->layout.page_size;
}

uint64_t store_node_address(const struct store_node *node, struct store_page page)
{
    return (uint64_t)(uintptr_t)store_node_data(node, page);
}

const char *store_node_segment(const struct store_node *node)
{
    return yolk_transfer_name(node->transfer);
}

uint64_t store_node_epoch(const struct store_node *node)
{
    return node->epoch;
}

/* ---- pages and manifest ---- */

enum status store_node_alloc(struct store_node *node, uint32_t count, struct store_page *out)
{
    return pool_alloc(node->pool, env_now_ns(node->env), count, out);
}

void store_node_ref(struct store_node *node, struct store_page page)
{
    pool_ref(node->pool, page);
}

void store_node_unref(struct store_node *node, struct store_page page)
{
    pool_unref(node->pool, page);
}

void store_node_unref_after(struct store_node *node, struct store_page page, uint64_t until_ns)
{
    pool_unref_after(node->pool, page, until_ns);
    node_expire_by(node, until_ns);
}

void store_node_counts(const struct store_node *node, struct store_node_counts *out)
{
    memset(out, 0, sizeof(*out));
    pool_counts(node->pool, out);
    out->fetched_blocks_total = node->fetched_blocks_total;
    out->fetched_bytes_total = node->fetched_bytes_total;
    out->fetch_missed_blocks_total = node->fetch_missed_blocks_total;
    out->corrupt_total = node->corrupt_total;
    out->wrong_total = node->doubts.wrong_total;
    out->disk_misses_total = node->disk_misses_total;
    node_tier_counts(node, out);
    node_values_counts(node, out);
}

struct store_node_load store_node_load(const struct store_node *node)
{
    struct store_node_counts counts;

    store_node_counts(node, &counts);
    return (struct store_node_load){
        .bytes = traffic_rate(&node->traffic, env_now_ns(node->env)),
        .faults = counts.wrong_total + counts.ssd.corrupt_total + counts.ssd.read_errors_total +
                  counts.ssd.write_errors_total + counts.vlog.corrupt_total +
                  counts.vlog.read_errors_total + counts.vlog.write_errors_total,
        .damaged = rpc_damaged_total(),
    };
}

uint32_t store_node_match(const struct store_node *node, const struct block_key *keys,
                          uint32_t count)
{
    uint32_t found = 0;
    while (found < count &&
           (pool_match(node->pool, &keys[found], 1) == 1 || node_tier_has(node, &keys[found])))
        found++;
    return found;
}

uint32_t store_node_hottest(const struct store_node *node, uint32_t max, struct block_key *out)
{
    return pool_hottest(node->pool, max, out);
}

uint32_t store_node_acquire(struct store_node *node, const struct block_key *keys, uint32_t count,
                            struct store_page *out)
{
    uint32_t found = 0;
    while (found < count && pool_find(node->pool, &keys[found], &out[found])) {
        pool_touch(node->pool, out[found]);
        pool_ref(node->pool, out[found]);
        node_tier_touch(node, &keys[found]);
        found++;
    }
    return found;
}

uint64_t store_layer_sum(const struct store_node *node, struct store_page page, uint32_t layer)
{
    ASSERT(layer < node->layout.layers);
    const size_t size = node->layout.layer_size;
    return hash_xxh3(store_node_data(node, page) + layer * size, size);
}

enum status store_node_commit(struct store_node *node, const struct block_key *key,
                              struct store_page page, const uint64_t *sums)
{
    uint64_t own[STORE_LAYERS_MAX];

    if (sums == NULL) {
        /* Not worth hashing what will not be kept. */
        if (pool_match(node->pool, key, 1) == 0) {
            for (uint32_t i = 0; i < node->layout.layers; i++) {
                own[i] = store_layer_sum(node, page, i);
            }
        }
        sums = own;
    }
    const enum status status = pool_commit(node->pool, key, page, node->generation + 1, sums);
    if (status == STATUS_OK) node->generation++;
    return status;
}

enum status store_node_drop(struct store_node *node, const struct block_key *key)
{
    const bool below = node_tier_has(node, key);
    node_tier_drop(node, key);
    const enum status status = pool_drop(node->pool, key);
    return below ? STATUS_OK : status;
}

uint64_t node_page_digest(const struct store_node *node, struct store_page page)
{
    const uint64_t *sums = pool_sums(node->pool, page);
    ASSERT(sums != NULL);
    return hash_xxh3(sums, node->layout.layers * sizeof(*sums));
}

const char *store_miss_name(enum store_miss miss)
{
    switch (miss) {
    case STORE_MISS_NONE: return "none";
    case STORE_MISS_ABSENT: return "absent";
    case STORE_MISS_HOLDER: return "holder";
    case STORE_MISS_REFUSED: return "refused";
    case STORE_MISS_TRANSFER: return "transfer";
    case STORE_MISS_CHECKSUM: return "checksum";
    case STORE_MISS_DEADLINE: return "deadline";
    case STORE_MISS_CANCELLED: return "cancelled";
    case STORE_MISS_COUNT: break;
    }
    return "unknown";
}
