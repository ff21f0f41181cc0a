/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_values.c - see the header: the queue of what is to be written, evictions that wait for
 * it, the staging memory, and values brought up for readers. */
#include "store/node_values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/le.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "net/rpc.h"
#include "store/node_int.h"
#include "store/rank.h"
#include "store/space.h"
#include "store/vlog.h"

#define DRAIN_NS ENV_NS_PER_S
#define ROOM_RETRY_NS (2 * ENV_NS_PER_MS)

enum {
    BYTES_PER_TURN = 4 << 20, /* copied before the loop may do something else */
    CARRY_SHARE = 4,
    HELD_MAX = 4096,
    PATH_SIZE = 4096,
};

/* A committed value; by now it may be another. */
struct queued {
    struct block_key id;
    uint64_t generation;
};

/* An eviction that waits for the disk. */
struct held {
    struct held *prev;
    struct held *next;
    struct node_values *values;
    struct rpc_call *call;
    struct block_key id;
    uint64_t generation;
};

/* A value in staging memory; the list is in the order of use, what goes first in front. */
struct staged {
    struct staged *prev;
    struct staged *next;
    struct block_key id;
};

/* A value on its way up. */
struct load {
    struct load *prev;
    struct load *next;
    struct node_values *values;
    struct block_key id;
    uint64_t generation;
    uint64_t address;
    uint64_t size;
    bool displaced; /* another one, which had been staged */
    struct block_key victim;
    struct vlog_read read;
};

/* A reader that waits for values. */
struct promote {
    struct promote *prev;
    struct promote *next;
    struct node_values *values;
    struct rpc_call *call;
    const uint8_t *ids; /* in body */
    uint32_t count;
    bool *tried;
    size_t len;
    uint8_t body[];
};

struct node_values {
    struct store_node *node;
    struct vlog *vlog;
    uint64_t value_max;
    struct queued *queue; /* a circle */
    uint32_t queue_head;
    uint32_t queue_count;
    bool waiting; /* for on_room */
    bool resting; /* the disk fails, until on_room */
    struct env_timer pump_timer;
    struct env_timer room_timer;
    uint64_t carry_budget; /* bytes that may be written again */
    struct held *held;
    uint32_t held_count;
    struct space *space; /* of the staging memory */
    struct map *staged;  /* id -> struct staged * */
    struct staged *first;
    struct staged *last;
    struct load *loads;
    struct promote *promotes;
    uint32_t promotes_count;
    uint64_t dropped_total;
    uint64_t promoted_total;
    uint64_t evicted_total; /* kept on disk when the master wanted their memory */
    uint64_t lost_total;    /* not kept */
};

/* ---- asking ---- */

bool node_values_staged(const struct store_node *node, const struct object *object)
{
    return object->address >= node_region_address(node) + node->object_size;
}

static const struct object *in_memory(const struct store_node *node, const struct block_key *id)
{
    const struct object *object = objects_find(node->objects, id);
    return object != NULL && !node_values_staged(node, object) ? object : NULL;
}

const struct vlog_entry *node_values_find(const struct store_node *node, const struct block_key *id)
{
    if (node->values == NULL || in_memory(node, id) != NULL) return NULL;
    return vlog_find(node->values->vlog, id);
}

const struct vlog_entry *node_values_next(const struct store_node *node, uint64_t *cursor)
{
    return node->values == NULL ? NULL : vlog_next(node->values->vlog, cursor);
}

bool node_values_newer(const struct store_node *node, const struct block_key *id,
                       const struct store_attributes *attributes)
{
    const struct vlog_entry *entry =
        node->values == NULL ? NULL : vlog_find(node->values->vlog, id);
    return entry != NULL &&
           rank_compare(rank_of(&entry->meta.attributes), rank_of(attributes)) >= 0;
}

void node_values_drop(struct store_node *node, const struct block_key *id)
{
    if (node->values == NULL) return;
    if (vlog_drop(node->values->vlog, id)) LOG_DEBUG("store", "value_dropped_on_disk", "");
}

/* ---- evictions that wait ---- */

static void held_end(struct held *held, enum status status)
{
    struct node_values *values = held->values;
    LIST_REMOVE(values->held, held);
    values->held_count--;
    if (status == STATUS_OK) {
        rpc_reply(held->call, NULL, 0);
    } else {
        rpc_fail(held->call, status, "store.drop: not done");
    }
    free(held);
}

static void on_master_gone(void *ctx, enum status why)
{
    held_end(ctx, why);
}

static enum status evict_now(struct node_values *values, const struct block_key *id,
                             uint64_t generation)
{
    const bool kept = vlog_find(values->vlog, id) != NULL;
    const enum status status = objects_drop(values->node->objects, id, generation);
    if (status == STATUS_OK && kept) values->evicted_total++;
    if (status == STATUS_OK && !kept) values->lost_total++;
    return status;
}

/* The disk has the value, or will not have it. NULL: any of them. */
static void held_resolve(struct node_values *values, const struct block_key *id)
{
    struct held *next;
    for (struct held *held = values->held; held != NULL; held = next) {
        next = held->next;
        if (id != NULL && !block_key_equal(&held->id, id)) continue;
        held_end(held, evict_now(values, &held->id, held->generation));
    }
}

static bool hold(struct node_values *values, struct rpc_call *call, const struct store_drop *drop)
{
    struct held *held = values->held_count < HELD_MAX ? calloc(1, sizeof(*held)) : NULL;
    if (held == NULL) return false;
    held->values = values;
    held->call = call;
    held->id = drop->id;
    held->generation = drop->generation;
    LIST_PUSH(values->held, held);
    values->held_count++;
    rpc_on_cancel(call, on_master_gone, held);
    return true;
}

/* ---- writing behind ---- */

static void pump_soon(struct node_values *values)
{
    if (values->queue_count == 0 || values->waiting || env_timer_armed(&values->pump_timer)) return;
    env_timer_set(values->node->env, &values->pump_timer, env_now_ns(values->node->env));
}

static void queue_pop(struct node_values *values)
{
    ASSERT(values->queue_count > 0);
    values->queue_head = (values->queue_head + 1) % NODE_VALUES_QUEUE_MAX;
    values->queue_count--;
}

static void queue_push(struct node_values *values, const struct object *object)
{
    if (values->queue_count == NODE_VALUES_QUEUE_MAX) {
        const struct block_key oldest = values->queue[values->queue_head].id;
        values->dropped_total++;
        queue_pop(values);
        held_resolve(values, &oldest);
    }
    const uint32_t tail = (values->queue_head + values->queue_count) % NODE_VALUES_QUEUE_MAX;
    values->queue[tail] = (struct queued){ object->id, object->generation };
    values->queue_count++;
    pump_soon(values);
}

/* The head of the queue, if it is still what was queued. */
static const struct object *queue_first(const struct node_values *values)
{
    const struct queued *queued = &values->queue[values->queue_head];
    const struct object *object = objects_find(values->node->objects, &queued->id);
    return object != NULL && object->generation == queued->generation ? object : NULL;
}

static const uint8_t *object_data(const struct object *object)
{
    return (const uint8_t *)(uintptr_t)object->address;
}

/* Does something about the head of the queue; how many bytes were copied. */
static uint64_t queue_step(struct node_values *values)
{
    const struct block_key id = values->queue[values->queue_head].id;
    const struct object *object = queue_first(values);

    if (object == NULL) {
        values->dropped_total++;
        queue_pop(values);
        return 0;
    }
    const uint64_t size = object->size;
    const enum status status = vlog_write(values->vlog, object, object_data(object));
    if (status == STATUS_FULL || status == STATUS_UNAVAILABLE) {
        values->waiting = true;
        values->resting = status == STATUS_UNAVAILABLE;
        if (values->resting) held_resolve(values, NULL); /* memory goes on without */
        return 0;
    }
    queue_pop(values);
    if (status != STATUS_OK) {
        held_resolve(values, &id);
        return 0;
    }
    values->carry_budget += size / CARRY_SHARE;
    return size;
}

static void on_pump(void *ctx)
{
    struct node_values *values = ctx;
    uint64_t copied = 0;
    while (copied < BYTES_PER_TURN && values->queue_count > 0 && !values->waiting)
        copied += queue_step(values) + 1;
    pump_soon(values);
}

static void on_room(void *ctx)
{
    struct node_values *values = ctx;
    values->waiting = false;
    values->resting = false;
    pump_soon(values);
}

bool node_values_stored(struct store_node *node, const struct object *object)
{
    struct node_values *values = node->values;
    if (values == NULL) return false;
    if (node_values_staged(node, object)) return true;
    if (object->size <= values->value_max) queue_push(values, object);
    return false;
}

bool node_values_evict(struct store_node *node, struct rpc_call *call,
                       const struct store_drop *drop)
{
    struct node_values *values = node->values;
    const struct object *object = in_memory(node, &drop->id);

    if (values == NULL || object == NULL || object->generation != drop->generation) return false;
    if (object->pins > 0 || object->size > values->value_max) return false;
    if (node_values_newer(node, &drop->id, &object->attributes)) {
        const enum status status = evict_now(values, &drop->id, drop->generation);
        ASSERT(status == STATUS_OK);
        rpc_reply(call, NULL, 0);
        return true;
    }
    if (values->resting || !hold(values, call, drop)) return false;
    queue_push(values, object); /* it may have left the queue; a second time is quickly seen */
    return true;
}

/* ---- staging memory ---- */

static void staged_append(struct node_values *values, struct staged *staged)
{
    staged->next = NULL;
    staged->prev = values->last;
    if (values->last == NULL) {
        values->first = staged;
    } else {
        values->last->next = staged;
    }
    values->last = staged;
}

static void staged_prepend(struct node_values *values, struct staged *staged)
{
    LIST_PUSH(values->first, staged);
    if (values->last == NULL) values->last = staged;
}

static void staged_unlink(struct node_values *values, struct staged *staged)
{
    if (values->last == staged) values->last = staged->prev;
    LIST_REMOVE(values->first, staged);
}

static struct staged *staged_find(const struct node_values *values, const struct block_key *id)
{
    uint64_t value;
    if (!map_find(values->staged, id, &value)) return NULL;
    return (struct staged *)(uintptr_t)value;
}

void node_values_touch(struct store_node *node, const struct object *object)
{
    struct node_values *values = node->values;

    if (values == NULL || !node_values_staged(node, object)) return;
    struct staged *staged = staged_find(values, &object->id);
    ASSERT(staged != NULL);
    vlog_touch(values->vlog, &object->id);
    staged_unlink(values, staged);
    staged_append(values, staged);
}

static uint64_t staged_size(uint64_t size)
{
    return (uint64_t)vlog_units(size) * VLOG_UNIT;
}

/* It has left `objects`. */
static void unstage(struct node_values *values, const struct object *object)
{
    struct staged *staged = staged_find(values, &object->id);
    const bool there = map_remove(values->staged, &object->id, NULL);
    ASSERT(there && staged != NULL);
    staged_unlink(values, staged);
    free(staged);
    space_free(values->space, object->address, staged_size(object->size));
}

bool node_values_removed(struct store_node *node, const struct object *object)
{
    struct node_values *values = node->values;
    if (values == NULL) return false;
    struct vlog_entry *entry = vlog_find(values->vlog, &object->id);

    if (node_values_staged(node, object)) {
        unstage(values, object);
        return entry != NULL; /* I2: it is still what was announced */
    }
    if (entry == NULL) return false;
    entry->generation = ++node->generation;
    node_log(node, STORE_EVENT_STORED, STORE_CLASS_OBJECT, &object->id, entry->generation);
    return true;
}

/* Room for what is to be loaded, at the cost of what was asked for longest ago. */
static enum status stage_room(struct load *load)
{
    struct node_values *values = load->values;
    struct store_node *node = values->node;
    const uint64_t size = staged_size(load->size);
    struct staged *next;

    for (struct staged *staged = values->first;; staged = next) {
        if (space_alloc(values->space, size, &load->address) == STATUS_OK) return STATUS_OK;
        while (staged != NULL && objects_find(node->objects, &staged->id)->pins > 0)
            staged = staged->next;
        if (staged == NULL) return STATUS_FULL;
        next = staged->next;
        if (!load->displaced) load->victim = staged->id;
        load->displaced = true;
        const struct object *object = objects_find(node->objects, &staged->id);
        const enum status dropped = objects_drop(node->objects, &object->id, object->generation);
        ASSERT(dropped == STATUS_OK);
    }
}

/* ---- on the way up ---- */

static void promotes_step(struct node_values *values);

static struct load *load_find(const struct node_values *values, const struct block_key *id)
{
    struct load *load = values->loads;
    while (load != NULL && !block_key_equal(&load->id, id))
        load = load->next;
    return load;
}

static enum status load_store(struct load *load, const struct vlog_head *head)
{
    struct node_values *values = load->values;
    const struct object wanted = { .key = head->key,
                                   .address = load->address,
                                   .size = head->meta.size,
                                   .generation = load->generation,
                                   .put_id = head->meta.put_id,
                                   .attributes = head->meta.attributes,
                                   .settled = true };
    const struct object *object;
    uint64_t *sums = malloc((size_t)head->sums_count * sizeof(*sums));
    struct staged *staged = calloc(1, sizeof(*staged));
    enum status status = STATUS_NO_MEMORY;

    if (sums != NULL && staged != NULL) {
        staged->id = load->id;
        status = map_insert(values->staged, &load->id, (uint64_t)(uintptr_t)staged);
    }
    if (status == STATUS_OK) {
        if (load->displaced &&
            vlog_heat(values->vlog, &load->id) < vlog_heat(values->vlog, &load->victim)) {
            staged_prepend(values, staged);
        } else {
            staged_append(values, staged);
        }
        for (uint32_t i = 0; i < head->sums_count; i++)
            sums[i] = le_get64(head->sums + (size_t)8 * i);
        status = objects_put(values->node->objects, &wanted, sums, head->sums_count, &object);
        if (status != STATUS_OK) {
            const bool there = map_remove(values->staged, &load->id, NULL);
            ASSERT(there);
            staged_unlink(values, staged);
        }
    }
    if (status != STATUS_OK) free(staged);
    free(sums);
    return status;
}

static void on_loaded(void *ctx, enum status status, const struct vlog_head *head)
{
    struct load *load = ctx;
    struct node_values *values = load->values;

    /* Somebody may have put another value meanwhile. */
    if (status == STATUS_OK && objects_find(values->node->objects, &load->id) != NULL) {
        status = STATUS_STALE;
    }
    if (status == STATUS_OK) status = load_store(load, head);
    if (status == STATUS_OK) {
        values->promoted_total++;
    } else {
        space_free(values->space, load->address, staged_size(load->size));
    }
    LIST_REMOVE(values->loads, load);
    free(load);
    promotes_step(values);
}

/* STATUS_FULL: not now. */
static enum status load_start(struct node_values *values, const struct vlog_entry *entry)
{
    struct load *load = calloc(1, sizeof(*load));
    if (load == NULL) return STATUS_FULL;

    load->values = values;
    load->id = entry->meta.id;
    load->generation = entry->generation;
    load->size = entry->meta.size;
    enum status status = load->size <= values->value_max ? STATUS_OK : STATUS_INVALID;
    if (status == STATUS_OK) {
        status = stage_room(load);
    }
    if (status != STATUS_OK) {
        free(load);
        return status;
    }
    load->read = (struct vlog_read){ .data = (uint8_t *)(uintptr_t)load->address,
                                     .fn = on_loaded,
                                     .ctx = load };
    status = vlog_read(values->vlog, &load->id, &load->read);
    if (status != STATUS_OK) {
        space_free(values->space, load->address, staged_size(load->size));
        free(load);
        return status;
    }
    vlog_touch(values->vlog, &load->id);
    LIST_PUSH(values->loads, load);
    return STATUS_OK;
}

void node_values_prefetch(struct store_node *node, const struct block_key *id)
{
    const struct vlog_entry *entry = node_values_find(node, id);
    if (entry == NULL || objects_find(node->objects, id) != NULL) return;
    if (load_find(node->values, id) != NULL) return;
    if (load_start(node->values, entry) != STATUS_OK) LOG_DEBUG("store", "not_prefetched", "");
}

/* ---- readers ---- */

static void promote_free(struct promote *promote)
{
    struct node_values *values = promote->values;
    LIST_REMOVE(values->promotes, promote);
    values->promotes_count--;
    free(promote->tried);
    free(promote);
}

static void on_reader_gone(void *ctx, enum status why)
{
    struct promote *promote = ctx;
    rpc_fail(promote->call, why, NULL);
    promote_free(promote);
}

/* Begins what is to be read. True: all that can be there is. */
static bool promote_ready(struct promote *promote)
{
    struct node_values *values = promote->values;
    bool ready = true;

    for (uint32_t i = 0; i < promote->count; i++) {
        struct block_key id;
        memcpy(id.bytes, promote->ids + (size_t)i * BLOCK_KEY_SIZE, BLOCK_KEY_SIZE);
        if (objects_find(values->node->objects, &id) != NULL) continue;
        const struct vlog_entry *entry = vlog_find(values->vlog, &id);
        if (entry == NULL) continue;
        if (load_find(values, &id) == NULL) {
            if (promote->tried[i]) continue;
            const enum status status = load_start(values, entry);
            promote->tried[i] = status != STATUS_FULL;
            if (promote->tried[i] && status != STATUS_OK) continue;
        }
        ready = false;
    }
    return ready;
}

static void promotes_step(struct node_values *values)
{
    struct store_node *node = values->node;
    struct promote *next;

    for (struct promote *promote = values->promotes; promote != NULL; promote = next) {
        next = promote->next;
        if (!promote_ready(promote)) continue;
        node_acquire_reply(node, promote->call, promote->body, promote->len);
        promote_free(promote);
    }
    if (values->promotes != NULL && !env_timer_armed(&values->room_timer)) {
        env_timer_set(node->env, &values->room_timer, env_now_ns(node->env) + ROOM_RETRY_NS);
    }
}

static void on_room_retry(void *ctx)
{
    promotes_step(ctx);
}

static bool wants_disk(const struct store_node *node, const struct store_acquire *request)
{
    for (uint32_t i = 0; i < request->count; i++) {
        struct block_key id;
        memcpy(id.bytes, request->ids + (size_t)i * BLOCK_KEY_SIZE, BLOCK_KEY_SIZE);
        if (objects_find(node->objects, &id) == NULL && node_values_find(node, &id) != NULL) {
            return true;
        }
    }
    return false;
}

bool node_values_promote(struct store_node *node, struct rpc_call *call, const uint8_t *body,
                         size_t len, const struct store_acquire *request)
{
    struct node_values *values = node->values;
    if (values == NULL || request->class != STORE_CLASS_OBJECT) return false;
    if (values->promotes_count == NODE_VALUE_PROMOTES_MAX || !wants_disk(node, request)) {
        return false;
    }
    struct promote *promote = malloc(sizeof(*promote) + len);
    bool *tried = calloc(request->count, sizeof(*tried));
    if (promote == NULL || tried == NULL) {
        free(promote);
        free(tried);
        return false;
    }
    *promote = (struct promote){
        .values = values, .call = call, .count = request->count, .tried = tried, .len = len
    };
    memcpy(promote->body, body, len);
    promote->ids = promote->body + (request->ids - body);
    LIST_PUSH(values->promotes, promote);
    values->promotes_count++;
    rpc_on_cancel(call, on_reader_gone, promote);
    promotes_step(values);
    return true;
}

/* ---- what the disk tells ---- */

static void on_written(void *ctx, const struct block_key *id, enum status status)
{
    struct node_values *values = ctx;
    struct store_node *node = values->node;
    const struct object *object = objects_find(node->objects, id);
    struct vlog_entry *entry = vlog_find(values->vlog, id);

    if (status == STATUS_OK && object == NULL) { /* evicted meanwhile, for want of the disk */
        entry->generation = ++node->generation;
        node_log(node, STORE_EVENT_STORED, STORE_CLASS_OBJECT, id, entry->generation);
    } else if (status == STATUS_OK && node_values_staged(node, object)) {
        entry->generation = object->generation;
        node_log(node, STORE_EVENT_STORED, STORE_CLASS_OBJECT, id, entry->generation);
    }
    held_resolve(values, id);
}

static void on_given_up(void *ctx, const struct vlog_entry *entry)
{
    struct node_values *values = ctx;
    struct store_node *node = values->node;
    const struct object *object = objects_find(node->objects, &entry->meta.id);

    const bool room = values->queue_count < NODE_VALUES_QUEUE_MAX; /* nobody else is to go for it */

    if (object != NULL && room && values->carry_budget >= object->size) {
        values->carry_budget -= object->size;
        queue_push(values, object);
    }
    if (object == NULL) {
        node_log(node, STORE_EVENT_REMOVED, STORE_CLASS_OBJECT, &entry->meta.id, entry->generation);
    }
}

/* ---- life ---- */

static enum status books_open(struct node_values *values, uint64_t seed)
{
    const struct store_node *node = values->node;
    const struct map_options map = { .entries_max = OBJECTS_MAX, .seed = seed };

    values->queue = calloc(NODE_VALUES_QUEUE_MAX, sizeof(*values->queue));
    values->space = space_create();
    if (values->queue == NULL || values->space == NULL) return STATUS_NO_MEMORY;
    enum status status = map_create(&map, &values->staged);
    if (status != STATUS_OK) return status;
    return space_add(values->space, node_region_address(node) + node->object_size,
                     node->staging_size);
}

static void values_free(struct node_values *values)
{
    vlog_close(values->vlog);
    map_destroy(values->staged);
    space_destroy(values->space);
    free(values->queue);
    free(values);
}

enum status node_values_open(struct store_node *node, const struct store_node_options *options,
                             struct errmsg *err)
{
    char directory[PATH_SIZE];
    struct node_values *values = calloc(1, sizeof(*values));
    if (values == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");

    snprintf(directory, sizeof(directory), "%s/values", options->disk_directory);
    struct vlog_options vlog = { .env = node->env,
                                 .directory = directory,
                                 .size_max = options->values_disk_size,
                                 .keys = options->disk_keys,
                                 .packing = { .level = options->disk_packing.level },
                                 .on_written = on_written,
                                 .on_removed = on_given_up,
                                 .on_room = on_room,
                                 .ctx = values };
    env_random(node->env, &vlog.seed, sizeof(vlog.seed));
    values->node = node;
    env_timer_init(&values->pump_timer, on_pump, values);
    env_timer_init(&values->room_timer, on_room_retry, values);
    enum status status = books_open(values, vlog.seed);
    if (status != STATUS_OK) {
        errmsg_set(err, status, "out of memory");
    } else {
        status = vlog_open(&vlog, &values->vlog, err);
    }
    if (status != STATUS_OK) {
        values_free(values);
        return status;
    }
    values->value_max = node->staging_size;
    if (values->value_max > vlog_value_max(values->vlog)) {
        values->value_max = vlog_value_max(values->vlog);
    }
    uint64_t cursor = 0;
    for (struct vlog_entry *e; (e = vlog_next(values->vlog, &cursor)) != NULL;) {
        e->generation = ++node->generation;
        node_trust_found(&node->trust); /* there is no board yet */
        const uint64_t term = e->meta.attributes.term;
        if (term > node->term_found && term < STORE_TERM_END) node->term_found = term;
    }
    node->values = values;
    return STATUS_OK;
}

static void queue_drain(struct node_values *values)
{
    struct store_node *node = values->node;
    const uint64_t end_ns = env_now_ns(node->env) + DRAIN_NS;

    for (; values->queue_count > 0 && env_now_ns(node->env) < end_ns; queue_pop(values)) {
        const struct object *object = queue_first(values);
        if (object == NULL) continue;
        const enum status status = vlog_write_now(values->vlog, object, object_data(object));
        if (status != STATUS_OK && status != STATUS_EXISTS) return;
    }
}

void node_values_close(struct store_node *node, bool drain)
{
    struct node_values *values = node->values;

    if (values == NULL) return;
    if (drain) queue_drain(values);
    node->values = NULL;
    env_timer_cancel(node->env, &values->pump_timer);
    env_timer_cancel(node->env, &values->room_timer);
    if (values->queue_count > 0) {
        LOG_INFO("store", "values_not_written_behind", "values=%u", values->queue_count);
    }
    while (values->held != NULL)
        held_end(values->held, STATUS_UNAVAILABLE);
    while (values->promotes != NULL)
        on_reader_gone(values->promotes, STATUS_UNAVAILABLE);
    struct load *loads = values->loads;
    struct staged *staged = values->first;
    values_free(values); /* waits for the disk; only then is what it reads into ours again */
    for (struct load *next; loads != NULL; loads = next) {
        next = loads->next;
        vlog_read_abandon(&loads->read);
        free(loads);
    }
    for (struct staged *after; staged != NULL; staged = after) {
        after = staged->next;
        free(staged);
    }
}

uint64_t node_values_keeps_max(const struct store_node *node)
{
    const struct node_values *values = node->values;
    return values == NULL || values->resting ? 0 : values->value_max;
}

/* ---- numbers ---- */

void node_values_counts(const struct store_node *node, struct store_node_counts *out)
{
    const struct node_values *values = node->values;

    if (values == NULL) return;
    out->values_disk = true;
    out->values_queue = values->queue_count;
    out->values_dropped_total = values->dropped_total;
    out->values_promoted_total = values->promoted_total;
    out->values_evicted_total = values->evicted_total;
    out->values_lost_total = values->lost_total;
    vlog_counts(values->vlog, &out->vlog);
}

void node_values_check(const struct store_node *node)
{
    const struct node_values *values = node->values;
    uint64_t bytes = 0;

    if (values == NULL) return;
    vlog_check(values->vlog);
    for (const struct staged *staged = values->first; staged != NULL; staged = staged->next) {
        const struct object *object = objects_find(node->objects, &staged->id);
        ASSERT(object != NULL && node_values_staged(node, object)); /* I1 */
        bytes += staged_size(object->size);
    }
    for (const struct load *load = values->loads; load != NULL; load = load->next)
        bytes += staged_size(load->size);
    ASSERT(bytes == space_used(values->space));
}
