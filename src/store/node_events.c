/* SPDX-License-Identifier: Apache-2.0
 *
 * store/node_events.c - the node's event log, and the listeners that follow it (store.events).
 *
 * The log is a ring of what changed, by identity and generation. A listener is a cursor: first it
 * walks the pages and the values (the snapshot), then it follows the log from where it stood when
 * the walk began. Entries are compared with the present state when they are sent:
 *
 *   STORED of something that is no longer there   left out; its REMOVED follows, or did
 *   REMOVED of a key that is there again          left out; its STORED follows
 *
 * so replaying the log over a snapshot that already shows its effects ends in the present state,
 * and a listener needs neither generations nor an undo.
 *
 *     PAGES -> DISK -> OBJECTS -> VALUES -> EXTENT -> LOG <-+
 *       ^                                              |    |
 *       +----------------------------------------------+----+
 *         the ring has overtaken the cursor: PAGES again, with a reset
 *
 * A block that has left the pages and lies on the disk is STORED there. Masters know of memory
 * only: they hear REMOVED instead. A value that only the disk has is STORED there, to everyone.
 *
 * Sending stops when the listener reads slowly and goes on when its connection has room: the ring,
 * not memory, is what bounds a slow listener. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/node_int.h"
#include "store/node_tier.h"
#include "store/node_values.h"
#include "store/proto.h"

enum {
    STREAMS_MAX = 1024,
    PUMP_BATCHES_MAX = 8,                   /* of one stream in one turn */
    PUMP_DELAY_NS = 1000000,                /* changes gather for so long */
    LOOKS_MAX = 4 * STORE_EVENTS_BATCH_MAX, /* pages or entries looked at for one batch */
};

enum stream_phase { PHASE_PAGES, PHASE_DISK, PHASE_OBJECTS, PHASE_VALUES, PHASE_EXTENT, PHASE_LOG };

struct cursor {
    enum stream_phase phase;
    bool reset_sent;
    bool synced_sent;
    uint32_t index; /* next page or slot */
    uint64_t disk;  /* next block, or value, of the disk */
    uint64_t next;  /* next event of the log */
};

struct event_stream {
    struct event_stream *prev;
    struct event_stream *next;
    struct store_node *node;
    struct rpc_call *call;
    uint64_t term;
    bool blocks_only;
    bool blocked; /* waits for on_writable */
    struct cursor cursor;
};

static void on_pump(void *ctx);

enum status node_events_init(struct store_node *node)
{
    env_timer_init(&node->pump_timer, on_pump, node);
    node->log = calloc(NODE_LOG_SIZE, sizeof(*node->log));
    node->log_next = 1;
    return node->log == NULL ? STATUS_NO_MEMORY : STATUS_OK;
}

static void pump_soon(struct store_node *node, uint64_t delay_ns)
{
    if (node->streams == NULL || env_timer_armed(&node->pump_timer)) return;
    env_timer_set(node->env, &node->pump_timer, env_now_ns(node->env) + delay_ns);
}

void node_log(struct store_node *node, enum store_event_kind kind, enum store_class class,
              const struct block_key *id, uint64_t generation)
{
    ASSERT(node->log != NULL);
    node->log[node->log_next % NODE_LOG_SIZE] = (struct log_entry){ .id = *id,
                                                                    .generation = generation,
                                                                    .kind = (uint8_t)kind,
                                                                    .class = (uint8_t) class };
    node->log_next++;
    pump_soon(node, PUMP_DELAY_NS);
}

/* ---- streams ---- */

static void stream_end(struct event_stream *stream, enum status why)
{
    struct store_node *node = stream->node;

    LIST_REMOVE(node->streams, stream);
    rpc_fail(stream->call, why, NULL);
    free(stream);
}

void node_events_fini(struct store_node *node)
{
    env_timer_cancel(node->env, &node->pump_timer);
    while (node->streams != NULL)
        stream_end(node->streams, STATUS_UNAVAILABLE);
    free(node->log);
}

void node_events_fence(struct store_node *node)
{
    struct event_stream *next;
    for (struct event_stream *stream = node->streams; stream != NULL; stream = next) {
        next = stream->next;
        if (stream->term != 0 && stream->term < node->term) stream_end(stream, STATUS_STALE);
    }
}

static void stream_restart(struct event_stream *stream)
{
    stream->cursor = (struct cursor){ .phase = PHASE_PAGES, .next = stream->node->log_next };
}

/* ---- events from the present state ---- */

static bool event_of_page(const struct store_node *node, struct store_page page,
                          struct store_event *out)
{
    const struct block_key *key = pool_key(node->pool, page);
    if (key == NULL) return false;
    *out = (struct store_event){
        .kind = STORE_EVENT_STORED,
        .class = STORE_CLASS_BLOCK,
        .id = *key,
        .generation = pool_generation(node->pool, page),
        .address = store_node_address(node, page),
        .size = (uint64_t)node->layout.layers * node->layout.layer_size,
        .digest = node_page_digest(node, page),
    };
    return true;
}

/* What is staged is announced as being on disk (I2 of store/node_values.h), whether or not the disk
 * has given it up since: its range is none of the master's. */
static void event_of_object(const struct store_node *node, const struct object *object,
                            struct store_event *out)
{
    const bool staged = node_values_staged(node, object);
    *out = (struct store_event){
        .kind = STORE_EVENT_STORED,
        .class = STORE_CLASS_OBJECT,
        .tier = staged ? STORE_TIER_DISK : STORE_TIER_MEMORY,
        .id = object->id,
        .key = object->key.bytes,
        .key_len = object->key.len,
        .generation = object->generation,
        .address = staged ? 0 : object->address,
        .size = object->size,
        .digest = object->digest,
        .attributes = node_attributes(node, object),
    };
}

static void event_of_value(const struct vlog_entry *entry, struct store_event *out)
{
    *out = (struct store_event){
        .kind = STORE_EVENT_STORED,
        .class = STORE_CLASS_OBJECT,
        .tier = STORE_TIER_DISK,
        .id = entry->meta.id,
        .key = entry->key,
        .key_len = entry->key_len,
        .generation = entry->generation,
        .size = entry->meta.size,
        .digest = entry->meta.digest,
        .attributes = entry->meta.attributes,
    };
}

static bool event_of_extent(const struct event_stream *stream, struct store_event *out)
{
    const struct store_node *node = stream->node;
    if (node->object_size == 0 || stream->term == 0 || stream->term != node->term) return false;
    *out = (struct store_event){
        .kind = STORE_EVENT_EXTENT,
        .class = STORE_CLASS_OBJECT,
        .generation = node->term,
        .address = node_region_address(node),
        .size = node->object_size,
    };
    return true;
}

static void event_of_disk(const struct store_node *node, const struct block_key *key,
                          uint64_t generation, struct store_event *out)
{
    *out = (struct store_event){
        .kind = STORE_EVENT_STORED,
        .class = STORE_CLASS_BLOCK,
        .tier = STORE_TIER_DISK,
        .id = *key,
        .generation = generation,
        .size = (uint64_t)node->layout.layers * node->layout.layer_size,
    };
}

static void event_of_removal(const struct log_entry *entry, struct store_event *out)
{
    *out = (struct store_event){ .kind = STORE_EVENT_REMOVED,
                                 .class = (enum store_class)entry->class,
                                 .id = entry->id,
                                 .generation = entry->generation };
}

/* The event of a block that is in no page. */
static bool event_of_lower(const struct event_stream *stream, const struct log_entry *entry,
                           struct store_event *out)
{
    const bool on_disk = node_tier_has(stream->node, &entry->id);

    if (entry->kind == STORE_EVENT_REMOVED && on_disk && stream->term == 0) return false;
    if (entry->kind == STORE_EVENT_STORED && !on_disk) return false;
    if (entry->kind == STORE_EVENT_STORED && stream->term == 0) {
        event_of_disk(stream->node, &entry->id, entry->generation, out);
    } else {
        event_of_removal(entry, out);
    }
    return true;
}

/* The event of a value as things are now. */
static bool event_of_object_entry(const struct event_stream *stream, const struct log_entry *entry,
                                  struct store_event *out)
{
    const struct store_node *node = stream->node;
    const struct object *object = objects_find(node->objects, &entry->id);
    const struct vlog_entry *below = node_values_find(node, &entry->id);

    if (stream->blocks_only) return false;
    if (below != NULL) object = NULL; /* staged: the disk names it */
    if (entry->kind == STORE_EVENT_REMOVED) {
        event_of_removal(entry, out);
        return object == NULL && below == NULL;
    }
    if (object != NULL) {
        event_of_object(node, object, out);
    } else if (below != NULL) {
        event_of_value(below, out);
    } else {
        return false;
    }
    return out->generation == entry->generation;
}

/* The event of a log entry as things are now; false if there is nothing to say. */
static bool event_of_entry(const struct event_stream *stream, const struct log_entry *entry,
                           struct store_event *out)
{
    const struct store_node *node = stream->node;
    struct store_page page = { 0 };

    if (entry->kind == STORE_EVENT_EXTENT) return event_of_extent(stream, out);
    if (entry->class == STORE_CLASS_OBJECT) return event_of_object_entry(stream, entry, out);
    if (!pool_find(node->pool, &entry->id, &page)) return event_of_lower(stream, entry, out);
    if (entry->kind == STORE_EVENT_REMOVED) return false; /* it is there again */
    event_of_page(node, page, out);
    return out->generation == entry->generation;
}

/* ---- batches ---- */

/* Puts the next event into *out and moves the cursor. False: no event here, look again. */
static bool cursor_step(const struct event_stream *stream, struct cursor *cursor,
                        struct store_event *out)
{
    const struct store_node *node = stream->node;
    const struct vlog_entry *value;
    const struct object *object;
    struct block_key key;

    switch (cursor->phase) {
    case PHASE_PAGES:
        if (cursor->index < node->layout.pages) {
            return event_of_page(node, (struct store_page){ cursor->index++ }, out);
        }
        cursor->index = 0;
        cursor->phase = PHASE_DISK;
        return false;
    case PHASE_DISK:
        if (stream->term == 0 && node_tier_next(node, &cursor->disk, &key)) {
            event_of_disk(node, &key, 0, out);
            return true;
        }
        cursor->phase = stream->blocks_only ? PHASE_EXTENT : PHASE_OBJECTS;
        return false;
    case PHASE_OBJECTS:
        object = objects_next(node->objects, &cursor->index);
        if (object == NULL) {
            cursor->disk = 0;
            cursor->phase = PHASE_VALUES;
            return false;
        }
        if (node_values_find(node, &object->id) != NULL) return false; /* the disk names it */
        event_of_object(node, object, out);
        return true;
    case PHASE_VALUES:
        value = node_values_next(node, &cursor->disk);
        if (value == NULL) {
            cursor->phase = PHASE_EXTENT;
            return false;
        }
        if (node_values_find(node, &value->meta.id) == NULL) return false; /* in memory too */
        event_of_value(value, out);
        return true;
    case PHASE_EXTENT: cursor->phase = PHASE_LOG; return event_of_extent(stream, out);
    case PHASE_LOG:
        ASSERT(cursor->next < node->log_next);
        return event_of_entry(stream, &node->log[cursor->next++ % NODE_LOG_SIZE], out);
    }
    return false;
}

static bool cursor_at_end(const struct store_node *node, const struct cursor *cursor)
{
    return cursor->phase == PHASE_LOG && cursor->next == node->log_next;
}

static bool cursor_overtaken(const struct store_node *node, const struct cursor *cursor)
{
    return node->log_next - cursor->next > NODE_LOG_SIZE;
}

/* Sends one batch. True if there is more to send and room for it. */
static bool stream_send(struct event_stream *stream)
{
    struct store_node *node = stream->node;
    struct store_event events[STORE_EVENTS_BATCH_MAX];
    struct cursor cursor = stream->cursor;
    struct buf buf;
    uint32_t count = 0;
    uint32_t looks = 0;
    unsigned flags = 0;
    const uint64_t now = env_now_ns(node->env);

    if (!cursor.reset_sent) flags |= STORE_EVENTS_RESET;
    cursor.reset_sent = true;
    while (count < STORE_EVENTS_BATCH_MAX && looks++ < LOOKS_MAX && !cursor_at_end(node, &cursor)) {
        if (!cursor_step(stream, &cursor, &events[count])) continue;
        events[count].doubt = events[count].class == STORE_CLASS_OBJECT &&
                              events[count].kind == STORE_EVENT_STORED &&
                              node_trust_doubts(&node->trust, events[count].attributes.term, now);
        count++;
    }
    if (!cursor.synced_sent && cursor_at_end(node, &cursor)) {
        flags |= STORE_EVENTS_SYNCED;
        cursor.synced_sent = true;
    }
    enum status status = STATUS_OK;
    if (count > 0 || flags != 0) {
        buf_init(&buf, RPC_BODY_SIZE_MAX);
        status = store_encode_events(&buf, node->epoch, flags, events, count);
        if (status == STATUS_OK) status = rpc_send(stream->call, buf_data(&buf), buf.len);
        buf_fini(&buf);
    }
    if (status == STATUS_OK) stream->cursor = cursor;
    if (status == STATUS_FULL) stream->blocked = true;
    return status == STATUS_OK && !cursor_at_end(node, &cursor);
}

static void on_writable(void *ctx)
{
    struct event_stream *stream = ctx;
    stream->blocked = false;
    pump_soon(stream->node, 0);
}

static bool stream_pump(struct event_stream *stream)
{
    bool more = true;

    if (cursor_overtaken(stream->node, &stream->cursor)) {
        LOG_INFO("store", "listener_restarted", "peer=%s", rpc_call_peer(stream->call));
        stream_restart(stream);
    }
    for (int i = 0; i < PUMP_BATCHES_MAX && more && !stream->blocked; i++) {
        more = stream_send(stream);
        if (stream->blocked) rpc_on_writable(stream->call, on_writable, stream);
    }
    return more && !stream->blocked;
}

static void on_pump(void *ctx)
{
    struct store_node *node = ctx;
    bool more = false;

    for (struct event_stream *stream = node->streams; stream != NULL; stream = stream->next) {
        if (!stream->blocked && stream_pump(stream)) more = true;
    }
    if (more) pump_soon(node, 0);
}

/* ---- RPC ---- */

static void on_cancel(void *ctx, enum status why)
{
    stream_end(ctx, why);
}

static uint32_t streams_count(const struct store_node *node)
{
    uint32_t count = 0;
    for (const struct event_stream *s = node->streams; s != NULL; s = s->next)
        count++;
    return count;
}

void node_handle_events(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len)
{
    struct store_node *node = ctx;
    struct store_events_request request;

    if (store_decode_events_request(body, len, &request) != STATUS_OK) {
        rpc_fail(call, STATUS_INVALID, "store.events: malformed");
        return;
    }
    if (request.term != 0 && store_node_see_term(node, request.term) != STATUS_OK) {
        rpc_fail(call, STATUS_STALE, "store.events: a newer master is known here");
        return;
    }
    struct event_stream *stream =
        streams_count(node) < STREAMS_MAX ? calloc(1, sizeof(*stream)) : NULL;
    if (stream == NULL) {
        rpc_fail(call, STATUS_FULL, "store.events: too many listeners");
        return;
    }
    stream->node = node;
    stream->call = call;
    stream->term = request.term;
    stream->blocks_only = request.blocks_only;
    LIST_PUSH(node->streams, stream);
    stream_restart(stream);
    rpc_on_cancel(call, on_cancel, stream);
    pump_soon(node, 0);
}
