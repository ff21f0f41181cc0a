/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client.c - put, get, exist and remove through master, owners and the transfer engine.
 *
 * A call has one exchange with the master at a time, for all its items that need one; what then
 * happens at the owners goes on for each item by itself:
 *
 *            put_start            WRITE                commit
 *   put  ASKING -----> MOVING -----------> COMMITTING -------> done
 *            get, acquire         read, verify
 *   get  ASKING -> PINNING -> MOVING -----------------> done       or from KNOWN: client_get.c
 *          ^  |       |          |        |
 *          |  +-------+----------+--------+   try again: another replica, or the master again
 *          +-- WAITING <------------------+   (backoff), until the deadline
 *
 * What several items want of one owner is asked with one exchange (client_pin.h; client_commit.h,
 * where items of other calls may be in it), and what then moves is submitted to the transfer engine
 * together (client_call_move).
 *
 * An item that was asked wrongly (ITEM_REFUSED) ends by itself, whatever the others wait for.
 *
 * exist and remove end with the master's answer. What is tried again is what did certainly not
 * happen, or may be done twice: put_start answers the same ticket to the same writer, and a commit
 * of the same put finds what the first one made.
 *
 * Invariants
 *   I1  An item ends once, from the loop; a call is freed when its last item has ended and nothing
 *       that could call back is under way.
 *   I2  A value is reported only after each of its pieces had the checksum that its owner, asked in
 *       the same call, says it has; and an owner that was asked without the master vouched for it.
 *       In place of its word may be its board's, that what it said before is still so.
 *   I3  A ticket's range is written only until put_ms after it was asked for. */
#include "yolk/store.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "base/rng.h"
#include "net/rpc.h"
#include "store/board.h"
#include "store/client_call.h"
#include "store/client_commit.h"
#include "store/client_int.h"
#include "store/client_revoke.h"
#include "store/known.h"
#include "store/peers.h"
#include "store/proto.h"
#include "store/reading.h"
#include "store/session.h"
#include "yolk/transfer.h"

enum {
    CALLS_MAX_DEFAULT = 4096,
    TIMEOUT_MS_DEFAULT = 10000,
    MASTER_TRY_MS = 2000,
    BACKOFF_MIN_MS = 2,
    INLINE_MAX = 16 << 10,
};

_Static_assert((int)YOLK_STORE_KEY_SIZE_MAX == (int)STORE_KEY_SIZE_MAX, "one limit");
_Static_assert((int)YOLK_STORE_REPLICAS_MAX == (int)STORE_REPLICAS_MAX, "one limit");
_Static_assert((int)YOLK_STORE_PIECE_SIZE == (int)STORE_PIECE_SIZE, "one size");
_Static_assert((int)YOLK_STORE_BATCH_MAX == (int)STORE_KEYS_MAX, "one limit");
_Static_assert((int)YOLK_STORE_VALUE_SIZE_MAX == (int)STORE_OBJECT_SIZE_MAX, "one limit");

static bool call_puts(const struct call *call)
{
    return call->kind == CALL_PUT || call->kind == CALL_TICKET;
}

/* ---- the exchange with the master ---- */

static bool worth_asking_again(enum status status)
{
    return status == STATUS_AGAIN || status == STATUS_UNAVAILABLE || status == STATUS_TIMEOUT ||
           status == STATUS_CONN_CLOSED || status == STATUS_CONN_REFUSED;
}

static void item_refused(struct item *item, enum status status)
{
    if (worth_asking_again(status)) {
        client_item_again(item, status);
    } else {
        client_item_done(item, status, 0);
    }
}

/* What we have removed we do not look for where it was: its owner may hear of it later. */
static void forget(const struct item *item)
{
    const struct block_key id = store_key_id(item->key);
    known_forget(item->call->store->known, &id);
}

/* An answer for every item asked for; they were sent in the order of their places. */
static enum status answer_codes(struct call *call, const struct rpc_result *result)
{
    struct msg_column codes;
    enum status status = store_decode_statuses(result->body, result->len, &codes);
    uint32_t n = 0;

    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = &call->items[i];
        if (item->state != ITEM_ASKING) continue;
        status = n < codes.count ? store_status_of(msg_u32_at(codes, n)) : STATUS_PROTOCOL;
        n++;
        if (call->kind == CALL_REMOVE || call->kind == CALL_CLEAR) forget(item);
        if (status == STATUS_OK) {
            client_item_done(item, STATUS_OK, 0);
        } else {
            item_refused(item, status);
        }
    }
    return STATUS_OK;
}

static enum status answer_places(struct call *call, const struct rpc_result *result)
{
    const bool put = call_puts(call);
    struct store_places reply;
    enum status status = store_decode_places(result->body, result->len, &reply, call->store->nodes);
    uint32_t n = 0;
    uint32_t first = 0; /* replica of item n */

    if (status != STATUS_OK) return status;
    if ((reply.put_ids.count > 0) != put) return STATUS_INVALID;
    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = &call->items[i];
        if (item->state != ITEM_ASKING) continue;
        status = n < reply.count ? store_status_of(msg_u32_at(reply.codes, n)) : STATUS_PROTOCOL;
        if (status != STATUS_OK) {
            item_refused(item, status);
        } else if (put) {
            client_put_ticket(item, &reply, n);
        } else {
            client_get_places(item, &reply, n, first);
        }
        if (!put && n < reply.count) first += msg_u32_at(reply.counts, n);
        n++;
    }
    return STATUS_OK;
}

static void on_answer(void *ctx, const struct rpc_result *result)
{
    struct call *call = ctx;
    const bool places = call_puts(call) || call->kind == CALL_GET || call->kind == CALL_PLACES;
    enum status status = result->status;

    if (call->store->closing) {
        call->asking = false;
        return;
    }
    /* `asking` holds the call while its items end. */
    if (status == STATUS_OK) {
        status = places ? answer_places(call, result) : answer_codes(call, result);
    }
    client_call_move(call);
    client_call_pin(call);
    bool again = false;
    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = &call->items[i];
        if (item->state == ITEM_ASKING) item_refused(item, status);
        again = again || item->state == ITEM_WAITING;
    }
    call->asking = false;
    if (call->backoff_ms < CLIENT_BACKOFF_MAX_MS) call->backoff_ms *= 2;
    if (again) client_call_ask_in(call, call->backoff_ms);
    client_call_settle(call);
}

static uint16_t method_of(enum call_kind kind)
{
    switch (kind) {
    case CALL_TICKET:
    case CALL_PUT: return MASTER_METHOD_PUT_START;
    case CALL_PLACES:
    case CALL_GET: return MASTER_METHOD_GET;
    case CALL_EXIST: return MASTER_METHOD_EXIST;
    case CALL_REMOVE: return MASTER_METHOD_REMOVE;
    case CALL_REPLICAS: return MASTER_METHOD_REPLICAS;
    case CALL_CLEAR: return MASTER_METHOD_CLEAR;
    }
    return 0;
}

/* The columns of a question to the master: one block, which begins with the keys. */
struct question {
    struct store_key *keys;
    uint64_t *sizes;
    uint64_t *groups;
    uint32_t *costs;
    uint32_t *depths;
    uint32_t *reads; /* of gets */
    uint32_t count;
    bool read;   /* some of `reads` is not 0 */
    bool values; /* the columns beside the keys are filled: of puts */
};

static bool question_init(struct question *question, uint32_t count, bool values)
{
    const size_t key = sizeof(struct store_key);
    const size_t beside = values ? 2 * sizeof(uint64_t) + 2 * sizeof(uint32_t) : sizeof(uint32_t);

    *question = (struct question){ .keys = malloc(count * (key + beside)), .values = values };
    if (question->keys == NULL) return false;
    question->reads = (uint32_t *)(void *)(question->keys + count);
    if (!values) return true;
    question->sizes = (uint64_t *)(void *)(question->keys + count);
    question->groups = question->sizes + count;
    question->costs = (uint32_t *)(void *)(question->groups + count);
    question->depths = question->costs + count;
    return true;
}

static void question_fini(struct question *question)
{
    free(question->keys);
}

static void question_add(struct question *question, const struct item *item)
{
    const uint32_t n = question->count++;
    question->keys[n] = item->key;
    if (!question->values) {
        question->reads[n] = item->reads;
        question->read |= item->reads > 0;
        return;
    }
    question->sizes[n] = item->size;
    question->groups[n] = item->attributes.group;
    question->costs[n] = item->attributes.cost;
    question->depths[n] = item->attributes.depth;
}

static enum status call_send(struct call *call, const struct question *question)
{
    struct yolk_store *store = call->store;
    struct store_batch batch = { .count = question->count,
                                 .keys_data = question->keys,
                                 .writer = call->writer,
                                 .force = call->options.force };
    struct rpc_call_id id;
    struct buf buf;

    if (call_puts(call) || call->kind == CALL_REPLICAS) {
        batch.replicas = call->options.replicas;
    }
    if (call_puts(call)) {
        batch.sizes_data = question->sizes;
        batch.replace = call->options.replace;
        batch.hard_pin = call->options.hard_pin;
        batch.soft_pin_ms = call->options.soft_pin_ms;
        batch.soft_pin_off = call->options.soft_pin_off;
        batch.next = call->names;
        batch.next_len = call->names_len;
        batch.together = call->options.together && call->count > 1;
        if (call->kind == CALL_TICKET) batch.write_ms = UINT32_MAX; /* as long as there may be */
        if (call->wishes) {
            batch.groups_data = question->groups;
            batch.costs_data = question->costs;
            batch.depths_data = question->depths;
        }
    }
    if (question->read) batch.reads_data = question->reads;
    if (call_puts(call) || call->kind == CALL_CLEAR) {
        memcpy(batch.preferred, call->preferred, sizeof(batch.preferred));
    }
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_batch(&buf, &batch);
    const struct rpc_request request = { .method = method_of(call->kind),
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = client_try_until(call, MASTER_TRY_MS),
                                         .wait_until_up = true,
                                         .on_end = on_answer,
                                         .ctx = call };
    if (status == STATUS_OK) status = rpc_call(store->master, &request, &id);
    buf_fini(&buf);
    return status;
}

static void call_expire(struct call *call)
{
    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = &call->items[i];
        if (item->state == ITEM_WAITING) {
            client_item_done(item, item->last == STATUS_OK ? STATUS_TIMEOUT : item->last, 0);
        }
    }
}

/* Asks the master about every waiting item. No item ends before this has returned. */
static void call_ask(struct call *call)
{
    struct question question;
    ASSERT(!call->asking);

    const bool room = question_init(&question, call->count, call_puts(call));
    for (uint32_t i = 0; i < call->count && room; i++) {
        struct item *item = &call->items[i];
        if (item->state != ITEM_WAITING) continue;
        item->state = ITEM_ASKING;
        question_add(&question, item);
    }
    call->asked_ns = env_now_ns(call->store->env);
    const enum status status = question.count > 0 ? call_send(call, &question) : STATUS_FULL;
    call->asking = status == STATUS_OK;
    question_fini(&question);
    if (status == STATUS_OK) return;
    bool again = false;
    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = &call->items[i];
        if (item->state == ITEM_ASKING) item->state = ITEM_WAITING;
        again = again || item->state == ITEM_WAITING;
    }
    if (again) client_call_ask_in(call, CLIENT_BACKOFF_MAX_MS);
}

static void on_ask(void *ctx)
{
    struct call *call = ctx;

    if (client_call_late(call)) {
        call_expire(call);
        client_call_settle(call);
    } else {
        call_ask(call);
    }
}

/* ---- starting a call ---- */

size_t client_key_len(const struct yolk_store *store, const struct yolk_store_key *key)
{
    uint8_t scope[SCOPE_SIZE_MAX];
    if (key->len == 0 || key->len > STORE_KEY_SIZE_MAX || key->bytes == NULL) return 0;
    const struct store_key own = { key->bytes, (uint32_t)key->len };
    const size_t len = scope_prefix(store->tenant, own, scope) + key->len;
    return len > STORE_KEY_SIZE_MAX ? 0 : len;
}

struct store_key client_key(const struct yolk_store *store, const struct yolk_store_key *key,
                            uint8_t *out)
{
    uint8_t scope[SCOPE_SIZE_MAX];
    const struct store_key own = { key->bytes, (uint32_t)key->len };
    const size_t len = scope_prefix(store->tenant, own, scope);
    memcpy(out, scope, len);
    if (key->len > 0) memcpy(out + len, key->bytes, key->len);
    return (struct store_key){ out, (uint32_t)(len + key->len) };
}

/* Bytes of those that are in range. */
static size_t keys_sum(const struct yolk_store *store, const struct yolk_store_key *keys,
                       size_t stride, uint32_t count)
{
    size_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += client_key_len(store, (const void *)((const uint8_t *)keys + i * stride));
    return sum;
}

static void on_refuse(void *ctx)
{
    struct call *call = ctx;

    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = &call->items[i];
        if (item->state == ITEM_REFUSED) client_item_done(item, STATUS_INVALID, 0);
    }
    client_call_settle(call);
}

/* An item of a call that is being started was asked wrongly. */
static void item_refuse(struct item *item)
{
    struct call *call = item->call;
    struct env *env = call->store->env;

    item->state = ITEM_REFUSED;
    if (!env_timer_armed(&call->refuse)) env_timer_set(env, &call->refuse, env_now_ns(env));
}

/* Bytes of the names to try next, with all NULs; *len is 0 if there are none. False: a name, or
 * their number, is out of range. */
static bool next_names(const struct yolk_store_call *options, size_t *len)
{
    *len = 0;
    if (options->preferred_next_count > YOLK_STORE_REPLICAS_MAX) return false;
    for (uint32_t i = 0; i < options->preferred_next_count; i++) {
        const size_t one = strlen(options->preferred_next[i]);
        if (one == 0 || one >= STORE_NAME_SIZE) return false;
        *len += one + 1;
    }
    if (*len > 0) (*len)++;
    return *len == 0 || options->preferred != NULL;
}

static void next_copy(struct call *call, const struct yolk_store_call *options, char *out)
{
    call->names = out;
    call->names_len = 0;
    for (uint32_t i = 0; i < options->preferred_next_count; i++) {
        const size_t size = strlen(options->preferred_next[i]) + 1;
        memcpy(out + call->names_len, options->preferred_next[i], size);
        call->names_len += size;
    }
    if (call->names_len > 0) out[call->names_len++] = '\0';
}

/* `keys` are those of an array whose elements are `stride` bytes apart. NULL: no memory. */
static struct call *call_new(struct yolk_store *store, enum call_kind kind,
                             const struct yolk_store_key *keys, size_t stride, uint32_t count,
                             size_t keys_len, size_t next_len,
                             const struct yolk_store_call *options)
{
    struct call *call = malloc(sizeof(*call));
    struct item *items = malloc(count * sizeof(*items) + keys_len + next_len); /* and names */
    if (call == NULL || items == NULL) {
        free(items);
        free(call);
        return NULL;
    }
    const uint32_t timeout_ms = options->timeout_ms == 0 ? store->timeout_ms : options->timeout_ms;
    uint8_t *end = (uint8_t *)(items + count);
    *call = (struct call){
        .store = store,
        .kind = kind,
        .items = items,
        .count = count,
        .left = count,
        .options = *options,
        .backoff_ms = BACKOFF_MIN_MS,
        .deadline_ns = env_now_ns(store->env) + timeout_ms * ENV_NS_PER_MS,
        .writer = rng_counter(store->writers_seed, ++store->writers),
    };
    call->options.preferred = NULL;
    call->options.preferred_next = NULL;
    if (options->preferred != NULL) {
        memcpy(call->preferred, options->preferred, strlen(options->preferred) + 1);
    }
    env_timer_init(&call->again, on_ask, call);
    env_timer_init(&call->pins, client_get_on_pins, call);
    env_timer_init(&call->refuse, on_refuse, call);
    for (uint32_t i = 0; i < count; i++) {
        const struct yolk_store_key *key = (const void *)((const uint8_t *)keys + i * stride);
        const bool good = client_key_len(store, key) > 0;
        items[i] = (struct item){ .call = call, .index = i, .key.bytes = end };
        env_timer_init(&items[i].retry, client_put_on_retry, &items[i]);
        if (good) items[i].key = client_key(store, key, end);
        if (!good) item_refuse(&items[i]);
        end += items[i].key.len;
    }
    next_copy(call, options, (char *)end);
    LIST_PUSH(store->calls, call);
    store->items += count;
    return call;
}

/* All but its first question, for which the items may still want more: call_ask(). */
static enum status call_start(struct yolk_store *store, enum call_kind kind,
                              const struct yolk_store_key *keys, size_t stride, uint32_t count,
                              const struct yolk_store_call *options, struct call **out)
{
    size_t next_len;
    ASSERT(options->on_item != NULL);

    if (count == 0 || count > YOLK_STORE_BATCH_MAX) return STATUS_INVALID;
    if (options->preferred != NULL && strlen(options->preferred) >= STORE_NAME_SIZE) {
        return STATUS_INVALID;
    }
    if (!next_names(options, &next_len)) return STATUS_INVALID;
    if (options->replicas > YOLK_STORE_REPLICAS_MAX) return STATUS_INVALID;
    if (options->soft_pin_off && options->soft_pin_ms > 0) return STATUS_INVALID;
    if (count > store->items_max - store->items) return STATUS_FULL;
    const size_t keys_len = keys_sum(store, keys, stride, count);
    *out = call_new(store, kind, keys, stride, count, keys_len, next_len, options);
    return *out == NULL ? STATUS_FULL : STATUS_OK;
}

/* A call whose items need no more than their keys. */
static enum status call_run(struct yolk_store *store, enum call_kind kind,
                            const struct yolk_store_key *keys, uint32_t count,
                            const struct yolk_store_call *options)
{
    struct call *call;
    const enum status status =
        call_start(store, kind, keys, sizeof(keys[0]), count, options, &call);
    if (status == STATUS_OK) call_ask(call);
    return status;
}

/* Two puts of one key in one call would share a ticket: all but the first wait for its end. False:
 * no memory. */
static bool find_doubles(struct call *call)
{
    const struct map_options options = { .entries_initial = call->count,
                                         .entries_max = call->count };
    struct map *map;
    uint64_t first;

    if (call->count == 1) return true;
    if (map_create(&options, &map) != STATUS_OK) return false;
    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = &call->items[i];
        if (item->state == ITEM_REFUSED) continue;
        const struct block_key id = store_key_id(item->key);
        if (map_insert(map, &id, i) == STATUS_OK) continue;
        if (!map_find(map, &id, &first)) continue;
        item->state = ITEM_DOUBLE;
        item->first = (uint32_t)first;
        call->doubles++;
    }
    map_destroy(map);
    return true;
}

/* Of a put, or only of its ticket: all but the first question. */
static enum status puts_start(struct yolk_store *store, enum call_kind kind,
                              const struct yolk_store_value *values, uint32_t count,
                              const struct yolk_store_call *options, struct call **out)
{
    struct call *call;

    if (count == 0) return STATUS_INVALID;
    const enum status status =
        call_start(store, kind, &values[0].key, sizeof(values[0]), count, options, &call);
    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < count; i++) {
        const struct yolk_store_value *value = &values[i];
        struct item *item = &call->items[i];
        item->data = (void *)(uintptr_t)value->data; /* only ever read */
        item->size = value->size;
        item->attributes = (struct store_attributes){
            .group = value->group,
            .cost = value->cost_ms,
            .depth = (uint16_t)(value->depth < UINT16_MAX ? value->depth : UINT16_MAX),
            .replicas = (uint8_t)options->replicas,
            .hard_pin = options->hard_pin,
            .soft_pin_ms = options->soft_pin_ms,
        };
        call->wishes |= value->group != 0 || value->cost_ms != 0 || value->depth != 0;
        if (value->size == 0 || value->size > STORE_OBJECT_SIZE_MAX) item_refuse(item);
    }
    if (!find_doubles(call)) {
        call->left = 0;
        client_call_free(call);
        return STATUS_FULL;
    }
    *out = call;
    return STATUS_OK;
}

enum status yolk_store_put(struct yolk_store *store, const struct yolk_store_value *values,
                           uint32_t count, const struct yolk_store_call *options)
{
    struct call *call;
    const enum status status = puts_start(store, CALL_PUT, values, count, options, &call);
    if (status == STATUS_OK) call_ask(call);
    return status;
}

enum status client_find(struct yolk_store *store, const struct yolk_store_value *values,
                        uint32_t count, bool write, const struct yolk_store_call *options,
                        client_found_fn on_found)
{
    struct call *call;
    enum status status = STATUS_INVALID;

    if (write) {
        status = puts_start(store, CALL_TICKET, values, count, options, &call);
    } else if (count > 0) {
        status = call_start(store, CALL_PLACES, &values[0].key, sizeof(values[0]), count, options,
                            &call);
    }
    if (status != STATUS_OK) return status;
    call->on_found = on_found;
    call_ask(call);
    return STATUS_OK;
}

enum status yolk_store_describe(struct yolk_store *store, const struct yolk_store_key *keys,
                                uint32_t count, const struct yolk_store_call *options,
                                yolk_store_described_fn on_described, void *ctx)
{
    struct call *call;
    ASSERT(on_described != NULL);

    const enum status status =
        call_start(store, CALL_PLACES, keys, sizeof(keys[0]), count, options, &call);
    if (status != STATUS_OK) return status;
    call->on_described = on_described;
    call->described_ctx = ctx;
    call_ask(call);
    return STATUS_OK;
}

enum status yolk_store_get(struct yolk_store *store, const struct yolk_store_buffer *buffers,
                           uint32_t count, const struct yolk_store_call *options)
{
    struct call *call;

    if (count == 0) return STATUS_INVALID;
    const enum status status =
        call_start(store, CALL_GET, &buffers[0].key, sizeof(buffers[0]), count, options, &call);
    if (status != STATUS_OK) return status;
    boards_turn(store->boards);
    for (uint32_t i = 0; i < count; i++) {
        struct item *item = &call->items[i];
        item->data = buffers[i].data;
        item->size = buffers[i].size;
        item->range = buffers[i].range;
        item->offset = buffers[i].range ? buffers[i].offset : 0;
        if (buffers[i].range && buffers[i].size == 0) item_refuse(item);
    }
    if (client_gets_start(call)) call_ask(call);
    client_call_pin(call);
    for (uint32_t i = 0; i < count; i++)
        client_get_early(&call->items[i]);
    client_call_move(call);
    return STATUS_OK;
}

enum status yolk_store_exist(struct yolk_store *store, const struct yolk_store_key *keys,
                             uint32_t count, const struct yolk_store_call *options)
{
    return call_run(store, CALL_EXIST, keys, count, options);
}

enum status yolk_store_remove(struct yolk_store *store, const struct yolk_store_key *keys,
                              uint32_t count, const struct yolk_store_call *options)
{
    return call_run(store, CALL_REMOVE, keys, count, options);
}

enum status yolk_store_replicas(struct yolk_store *store, const struct yolk_store_key *keys,
                                uint32_t count, const struct yolk_store_call *options)
{
    if (options->replicas == 0) return STATUS_INVALID;
    return call_run(store, CALL_REPLICAS, keys, count, options);
}

enum status yolk_store_clear(struct yolk_store *store, const struct yolk_store_key *keys,
                             uint32_t count, const char *node,
                             const struct yolk_store_call *options)
{
    struct yolk_store_call at = *options;
    if (node == NULL || node[0] == '\0') return STATUS_INVALID;
    at.preferred = node;
    at.preferred_next_count = 0;
    return call_run(store, CALL_CLEAR, keys, count, &at);
}

/* ---- life ---- */

enum status yolk_store_create(const struct yolk_store_options *options, struct yolk_store **out,
                              struct errmsg *err)
{
    const struct rpc_client_options client = { .address = options->master,
                                               .secret = options->secret,
                                               .name = "client" };
    const char *tenant = options->tenant == NULL ? "" : options->tenant;
    if (!scope_name_valid(tenant)) {
        return errmsg_set(err, STATUS_INVALID,
                          "%.80s is not a tenant: up to %d letters, digits, -, _ and ., and no _ "
                          "first",
                          tenant, SCOPE_NAME_LEN_MAX);
    }
    struct yolk_store *store = calloc(1, sizeof(*store));
    if (store == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "out of memory");

    if (!scope_name_default(tenant)) memcpy(store->tenant, tenant, strlen(tenant));
    store->env = options->env;
    store->transfer = options->transfer;
    store->items_max = options->calls_max == 0 ? CALLS_MAX_DEFAULT : options->calls_max;
    store->timeout_ms = options->timeout_ms == 0 ? TIMEOUT_MS_DEFAULT : options->timeout_ms;
    store->inline_max = INLINE_MAX;
    here_init(&store->here, store->env);
    store->nodes = calloc(STORE_REPLY_NODES_MAX, sizeof(*store->nodes));
    env_random(store->env, &store->writers_seed, sizeof(store->writers_seed));
    enum status status = store->nodes == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    if (status == STATUS_OK) {
        status = store_peers_create(store->env, options->secret, "client", &store->peers);
    }
    if (status == STATUS_OK) {
        status = readings_create(store->env, store->transfer, &store->readings);
    }
    if (status == STATUS_OK) status = client_commits_create(store->env, &store->commits);
    if (status == STATUS_OK) status = sessions_create(store, &store->sessions);
    if (status == STATUS_OK) status = known_create(&store->known);
    if (status == STATUS_OK) status = boards_create(store->env, &store->boards);
    if (status != STATUS_OK) errmsg_set(err, status, "out of memory");
    if (status == STATUS_OK) status = rpc_client_create(store->env, &client, &store->master, err);
    if (status == STATUS_OK) {
        status = client_revokes_create(store->env, store->master, &store->revokes);
    }
    if (status != STATUS_OK) {
        yolk_store_destroy(store);
        return status;
    }
    *out = store;
    return STATUS_OK;
}

void yolk_store_destroy(struct yolk_store *store)
{
    if (store == NULL) return;
    store->closing = true;
    if (store->commits != NULL) client_commits_close(store->commits);
    if (store->revokes != NULL) client_revokes_close(store->revokes);
    rpc_client_destroy(store->master); /* what is under way ends here, and is only counted */
    store_peers_destroy(store->peers);
    readings_destroy(store->readings);
    while (store->calls != NULL) {
        struct call *call = store->calls;
        for (uint32_t i = 0; i < call->count; i++) {
            if (call->items[i].state != ITEM_DONE)
                client_item_done(&call->items[i], STATUS_CANCELLED, 0);
        }
        call->inner = 0; /* transfers: the engine ends in this turn of the loop */
        call->asking = false;
        client_call_free(call);
    }
    sessions_destroy(store->sessions);
    client_commits_destroy(store->commits);
    client_revokes_destroy(store->revokes);
    known_destroy(store->known);
    boards_destroy(store->boards);
    free(store->nodes);
    free(store);
}
