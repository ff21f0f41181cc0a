/* SPDX-License-Identifier: Apache-2.0
 *
 * store/session.c - see the header, and yolk/store_session.h: how the calls begin and end. */
#include "store/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/list.h"
#include "base/map.h"
#include "store/client_int.h"

enum {
    TRY_MS = 2000,
    IDLE_MS = 300000,
    REQUESTS_MIN = 64,
};

_Static_assert((int)YOLK_STORE_VALUE_PARTS_MAX + (int)STORE_PIECES_MAX == (int)STORE_PARTS_MAX,
               "one limit");

void *session_lookup(const struct map *map, const struct block_key *id)
{
    uint64_t value;
    return map_find(map, id, &value) ? (void *)(uintptr_t)value : NULL;
}

uint64_t session_try_until(const struct sessions *sessions, uint64_t deadline_ns)
{
    const uint64_t until = env_now_ns(sessions->store->env) + TRY_MS * ENV_NS_PER_MS;
    return until < deadline_ns ? until : deadline_ns;
}

bool session_part_valid(const struct yolk_store_part *part, uint64_t value_size)
{
    if (part->data == NULL || part->size == 0) return false;
    return part->offset <= value_size && part->size <= value_size - part->offset;
}

/* ---- calls ---- */

static void call_free(struct session_call *call)
{
    struct sessions *sessions = call->sessions;
    struct yolk_store *store = sessions->store;
    ASSERT(call->left == 0 && !call->walking);

    LIST_REMOVE(sessions->calls, call);
    env_timer_cancel(store->env, &call->begin);
    env_timer_cancel(store->env, &call->late);
    ASSERT(store->items >= call->counted);
    store->items -= call->counted;
    free(call);
}

void session_item_end(struct session_item *item, enum status status, uint64_t size)
{
    struct session_call *call = item->call;
    ASSERT(!item->ended && !item->waiting && item->moving == 0 && call->left > 0);

    item->ended = true;
    call->left--;
    call->options.on_item(call->options.ctx, item->index, status, size);
    if (call->left == 0 && !call->walking) call_free(call);
}

static void item_begin(struct session_item *item)
{
    if (item->failed == STATUS_INVALID) { /* asked wrongly */
        session_item_end(item, STATUS_INVALID, 0);
        return;
    }
    switch (item->call->op) {
    case SESSION_PUT_START:
        if (item->failed != STATUS_PENDING) session_item_end(item, item->failed, 0);
        break;
    case SESSION_PUT_WRITE: draft_write(item); break;
    case SESSION_PUT_END: draft_end(item); break;
    case SESSION_PUT_REVOKE: draft_revoke(item); break;
    case SESSION_GET_START:
        if (item->failed != STATUS_PENDING) hold_started(item);
        break;
    case SESSION_GET_READ: hold_read(item); break;
    case SESSION_GET_END: hold_end(item); break;
    }
}

static void on_begin(void *ctx)
{
    struct session_call *call = ctx;
    struct sessions *sessions = call->sessions;

    call->walking = true;
    for (uint32_t i = 0; i < call->count; i++)
        item_begin(&call->items[i]);
    session_flush(sessions);
    call->walking = false;
    if (call->left == 0) call_free(call);
}

static void on_late(void *ctx)
{
    struct session_call *call = ctx;
    struct sessions *sessions = call->sessions;

    call->walking = true;
    for (uint32_t i = 0; i < call->count; i++) {
        if (call->items[i].waiting) hold_late(&call->items[i]);
    }
    session_flush(sessions);
    call->walking = false;
    if (call->left == 0) call_free(call);
}

/* What a call was given: one of values, parts and keys, and from the first of them on the keys,
 * `stride` bytes apart. */
struct given {
    const struct yolk_store_key *keys;
    size_t stride;
    const struct yolk_store_parts *parts; /* NULL: none */
    uint32_t count;
    uint32_t parts_count; /* in all */
    size_t keys_len;      /* bytes of all keys as the master has them */
};

static const struct yolk_store_key *given_key(const struct given *given, uint32_t i)
{
    return (const void *)((const uint8_t *)given->keys + i * given->stride);
}

static enum status given_check(const struct yolk_store *store, struct given *given)
{
    if (given->count == 0 || given->count > YOLK_STORE_BATCH_MAX) return STATUS_INVALID;
    for (uint32_t i = 0; i < given->count; i++) {
        given->keys_len += client_key_len(store, given_key(given, i));
        if (given->parts == NULL) continue;
        if (given->parts[i].count > YOLK_STORE_CALL_PARTS_MAX - given->parts_count) {
            return STATUS_INVALID;
        }
        given->parts_count += given->parts[i].count;
    }
    return given->count > store->items_max - store->items ? STATUS_FULL : STATUS_OK;
}

/* Items, then their parts, then their keys: one block. */
static void items_fill(struct session_call *call, const struct given *given)
{
    const struct yolk_store *store = call->sessions->store;
    struct yolk_store_part *parts = (struct yolk_store_part *)(void *)&call->items[given->count];
    uint8_t *keys = (uint8_t *)(parts + given->parts_count);

    for (uint32_t i = 0; i < given->count; i++) {
        const struct yolk_store_key *key = given_key(given, i);
        struct session_item *item = &call->items[i];
        const bool good = client_key_len(store, key) > 0;
        *item = (struct session_item){ .call = call,
                                       .index = i,
                                       .failed = good ? STATUS_PENDING : STATUS_INVALID,
                                       .key.bytes = keys };
        if (good) item->key = client_key(store, key, keys);
        if (good) item->own_len = key->len;
        item->id = store_key_id(item->key);
        keys += item->key.len;
        if (given->parts == NULL || given->parts[i].count == 0) continue;
        item->parts = parts;
        item->parts_count = given->parts[i].count;
        memcpy(parts, given->parts[i].parts, item->parts_count * sizeof(*parts));
        parts += item->parts_count;
    }
}

static enum status call_new(struct yolk_store *store, enum session_op op, struct given *given,
                            const struct yolk_store_call *options, struct session_call **out)
{
    struct sessions *sessions = store->sessions;
    const uint32_t timeout_ms = options->timeout_ms == 0 ? store->timeout_ms : options->timeout_ms;
    const bool starts = op == SESSION_PUT_START || op == SESSION_GET_START;
    ASSERT(options->on_item != NULL);

    const enum status status = given_check(store, given);
    if (status != STATUS_OK) return status;
    struct session_call *call =
        malloc(sizeof(*call) + given->count * sizeof(call->items[0]) +
               given->parts_count * sizeof(struct yolk_store_part) + given->keys_len);
    if (call == NULL) return STATUS_FULL;
    *call =
        (struct session_call){ .sessions = sessions,
                               .op = op,
                               .count = given->count,
                               .left = given->count,
                               .counted = starts ? 0 : given->count,
                               .deadline_ns = env_now_ns(store->env) + timeout_ms * ENV_NS_PER_MS,
                               .options = *options };
    items_fill(call, given);
    env_timer_init(&call->begin, on_begin, call);
    env_timer_init(&call->late, on_late, call);
    LIST_PUSH(sessions->calls, call);
    store->items += call->counted;
    env_timer_set(store->env, &call->begin, env_now_ns(store->env));
    *out = call;
    return STATUS_OK;
}

static enum status keys_call(struct yolk_store *store, enum session_op op,
                             const struct yolk_store_key *keys, uint32_t count,
                             const struct yolk_store_call *options, struct session_call **out)
{
    struct given given = { .keys = keys, .stride = sizeof(*keys), .count = count };
    return call_new(store, op, &given, options, out);
}

static enum status parts_call(struct yolk_store *store, enum session_op op,
                              const struct yolk_store_parts *items, uint32_t count,
                              const struct yolk_store_call *options, struct session_call **out)
{
    struct given given = {
        .keys = &items->key, .stride = sizeof(*items), .parts = items, .count = count
    };
    return call_new(store, op, &given, options, out);
}

/* ---- transfers ---- */

bool session_move(struct sessions *sessions, const struct yolk_transfer_request *request)
{
    if (sessions->requests_count == sessions->requests_max) {
        const uint32_t max =
            sessions->requests_max == 0 ? REQUESTS_MIN : 2 * sessions->requests_max;
        void *more = realloc(sessions->requests, max * sizeof(*request));
        if (more == NULL) return false;
        sessions->requests = more;
        sessions->requests_max = max;
    }
    sessions->requests[sessions->requests_count++] = *request;
    return true;
}

static void moves_free(struct session_moves *moves)
{
    LIST_REMOVE(moves->sessions->moves, moves);
    free(moves);
}

static void on_moves_done(void *ctx, const struct yolk_transfer_result *result)
{
    struct session_moves *moves = ctx;
    const enum status freed =
        yolk_transfer_batch_free(moves->sessions->store->transfer, moves->batch);
    (void)result;
    ASSERT(freed == STATUS_OK);
    moves_free(moves);
}

static enum status moves_start(struct sessions *sessions,
                               const struct yolk_transfer_request *requests, uint32_t count)
{
    struct session_moves *moves = calloc(1, sizeof(*moves));
    if (moves == NULL) return STATUS_FULL;

    moves->sessions = sessions;
    const enum status status = client_submit(sessions->store->transfer, requests, count,
                                             on_moves_done, moves, &moves->batch);
    if (status != STATUS_OK) {
        free(moves);
        return status;
    }
    LIST_PUSH(sessions->moves, moves);
    return STATUS_OK;
}

void session_flush(struct sessions *sessions)
{
    while (sessions->requests_count > 0) {
        struct yolk_transfer_request *requests = sessions->requests;
        const uint32_t count = sessions->requests_count;
        enum status status = STATUS_OK;

        sessions->requests = NULL; /* those who are called back may want to move more */
        sessions->requests_count = 0;
        sessions->requests_max = 0;
        for (uint32_t i = 0; i < count;) {
            uint32_t n = count - i;
            if (n > YOLK_TRANSFER_TASKS_MAX) n = YOLK_TRANSFER_TASKS_MAX;
            if (status == STATUS_OK) status = moves_start(sessions, requests + i, n);
            for (uint32_t k = i; status != STATUS_OK && k < i + n; k++) {
                const struct yolk_transfer_result result = { YOLK_TRANSFER_FAILED, status, 0 };
                requests[k].on_done(requests[k].ctx, &result);
            }
            i += n;
        }
        free(requests);
    }
}

/* ---- the interface ---- */

enum status yolk_store_put_session_start(struct yolk_store *store,
                                         const struct yolk_store_value *values, uint32_t count,
                                         const struct yolk_store_call *options)
{
    struct given given = { .keys = &values->key, .stride = sizeof(*values), .count = count };
    struct session_call *call;

    if (options->preferred != NULL && strlen(options->preferred) >= STORE_NAME_SIZE) {
        return STATUS_INVALID;
    }
    if (options->replicas > YOLK_STORE_REPLICAS_MAX) return STATUS_INVALID;
    if (options->soft_pin_off && options->soft_pin_ms > 0) return STATUS_INVALID;
    const enum status status = call_new(store, SESSION_PUT_START, &given, options, &call);
    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < count; i++) {
        const bool good = values[i].size > 0 && values[i].size <= STORE_OBJECT_SIZE_MAX;
        if (!good) call->items[i].failed = STATUS_INVALID;
    }
    draft_starts(call, values);
    return STATUS_OK;
}

enum status yolk_store_put_session_write(struct yolk_store *store,
                                         const struct yolk_store_parts *items, uint32_t count,
                                         const struct yolk_store_call *options)
{
    struct session_call *call;
    return parts_call(store, SESSION_PUT_WRITE, items, count, options, &call);
}

enum status yolk_store_put_session_end(struct yolk_store *store, const struct yolk_store_key *keys,
                                       uint32_t count, const struct yolk_store_call *options)
{
    struct session_call *call;
    return keys_call(store, SESSION_PUT_END, keys, count, options, &call);
}

enum status yolk_store_put_session_revoke(struct yolk_store *store,
                                          const struct yolk_store_key *keys, uint32_t count,
                                          const struct yolk_store_call *options)
{
    struct session_call *call;
    return keys_call(store, SESSION_PUT_REVOKE, keys, count, options, &call);
}

enum status yolk_store_get_session_start(struct yolk_store *store,
                                         const struct yolk_store_key *keys, uint32_t count,
                                         const struct yolk_store_call *options)
{
    struct session_call *call;
    const enum status status = keys_call(store, SESSION_GET_START, keys, count, options, &call);
    if (status != STATUS_OK) return status;
    env_timer_set(store->env, &call->late, call->deadline_ns);
    hold_starts(call);
    return STATUS_OK;
}

enum status yolk_store_get_session_read(struct yolk_store *store,
                                        const struct yolk_store_parts *items, uint32_t count,
                                        const struct yolk_store_call *options)
{
    struct session_call *call;
    const enum status status = parts_call(store, SESSION_GET_READ, items, count, options, &call);
    if (status == STATUS_OK) env_timer_set(store->env, &call->late, call->deadline_ns);
    return status;
}

enum status yolk_store_get_session_end(struct yolk_store *store, const struct yolk_store_key *keys,
                                       uint32_t count, const struct yolk_store_call *options)
{
    struct session_call *call;
    return keys_call(store, SESSION_GET_END, keys, count, options, &call);
}

/* ---- life ---- */

enum status sessions_create(struct yolk_store *store, struct sessions **out)
{
    struct map_options map = { .entries_max = YOLK_STORE_SESSIONS_MAX };
    struct sessions *sessions = calloc(1, sizeof(*sessions));
    if (sessions == NULL) return STATUS_NO_MEMORY;

    env_random(store->env, &map.seed, sizeof(map.seed));
    sessions->store = store;
    sessions->idle_ns = IDLE_MS * ENV_NS_PER_MS;
    env_timer_init(&sessions->pins, hold_pins, sessions);
    enum status status = map_create(&map, &sessions->drafts);
    if (status == STATUS_OK) status = map_create(&map, &sessions->holds);
    if (status != STATUS_OK) {
        sessions_destroy(sessions);
        return status;
    }
    *out = sessions;
    return STATUS_OK;
}

void sessions_destroy(struct sessions *sessions)
{
    if (sessions == NULL) return;
    env_timer_cancel(sessions->store->env, &sessions->pins);
    while (sessions->calls != NULL) {
        struct session_call *call = sessions->calls;
        call->walking = true;
        for (uint32_t i = 0; i < call->count; i++) {
            struct session_item *item = &call->items[i];
            if (item->ended) continue;
            hold_item_abandon(item);
            item->moving = 0; /* the engine calls back no more */
            session_item_end(item, STATUS_CANCELLED, 0);
        }
        call->walking = false;
        call_free(call);
    }
    while (sessions->moves != NULL)
        moves_free(sessions->moves); /* the engine ends with its batches */
    draft_free_all(sessions);
    hold_free_all(sessions);
    map_destroy(sessions->drafts);
    map_destroy(sessions->holds);
    free(sessions->requests);
    free(sessions);
}
