/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_call.c - how items and calls end, and the transfers of items.
 *
 * Transfers of a call are submitted together: an item that wants to move is put on a list of its
 * call, which is submitted when it has MOVE_SIZE bytes, and at the end of the turn in any case. */
#include "store/client_call.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/hash.h"
#include "base/list.h"
#include "net/rpc.h"
#include "store/client_int.h"
#include "store/reading.h"

enum { MOVE_SIZE = 1 << 20 }; /* bytes */

/* ---- ends ---- */

uint64_t client_item_sum(const struct item *item, uint64_t size, uint32_t i)
{
    const uint8_t *span = item->bounce != NULL ? item->bounce : item->data;
    const uint64_t offset = (uint64_t)i * item->piece_size;
    const uint64_t left = size - offset;
    ASSERT(offset < size && offset >= item->span_at);
    return hash_xxh3(span + (offset - item->span_at),
                     left < item->piece_size ? left : item->piece_size);
}

static void moves_free(struct moves *moves)
{
    struct call *call = moves->call;
    LIST_REMOVE(call->moves, moves);
    free(moves);
}

void client_call_free(struct call *call)
{
    struct yolk_store *store = call->store;
    ASSERT(call->left == 0 && call->inner == 0 && !call->asking);

    LIST_REMOVE(store->calls, call);
    env_timer_cancel(store->env, &call->again);
    env_timer_cancel(store->env, &call->pins);
    env_timer_cancel(store->env, &call->refuse);
    ASSERT(store->items >= call->count);
    store->items -= call->count;
    while (call->moves != NULL)
        moves_free(call->moves); /* the engine ends with its batches */
    free(call->items);
    free(call);
}

/* Their keys have been put, or not. */
static void doubles_end(struct call *call)
{
    const enum status taken = call->options.replace ? STATUS_BUSY : STATUS_EXISTS;

    call->doubles = 0;
    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = &call->items[i];
        if (item->state != ITEM_DOUBLE) continue;
        const enum status status = call->items[item->first].last;
        client_item_done(item, status == STATUS_OK ? taken : status, 0);
    }
}

void client_call_settle(struct call *call)
{
    if (call->doubles > 0 && call->left == call->doubles && !call->store->closing) {
        doubles_end(call);
    }
    if (call->left == 0 && call->inner == 0 && !call->asking && !call->store->closing) {
        client_call_free(call);
    }
}

void client_bounce_free(struct item *item)
{
    struct yolk_store *store = item->call->store;
    if (item->bounce == NULL) return;
    if (!store->closing) { /* else the engine frees it at its own end */
        const enum status freed = yolk_transfer_free(store->transfer, item->bounce);
        ASSERT(freed == STATUS_OK);
    }
    item->bounce = NULL;
}

void client_pin_end(struct item *item)
{
    if (item->pin == NULL) return;
    if (item->call->store->closing) {
        client_pin_drop(item->pin);
    } else {
        client_pin_unref(item->pin);
    }
    item->pin = NULL;
}

void client_item_reset(struct item *item)
{
    struct yolk_store *store = item->call->store;

    env_timer_cancel(store->env, &item->retry);
    client_pin_end(item);
    if (item->segment_open && !store->closing) {
        yolk_transfer_close(store->transfer, item->segment);
    }
    item->segment_open = false;
    client_bounce_free(item);
    free(item->reading); /* only at the end of the client: nobody looks at it any more */
    free(item->places);
    free(item->sums);
    client_guess_forget(item);
    item->guessed = false;
    item->reading = NULL;
    item->places = NULL;
    item->sums = NULL;
    item->places_count = 0;
    item->places_next = 0;
}

void client_item_done(struct item *item, enum status status, uint64_t size)
{
    struct call *call = item->call;
    ASSERT(item->state != ITEM_DONE && call->left > 0);

    client_item_reset(item);
    item->state = ITEM_DONE;
    item->last = status;
    call->left--;
    call->options.on_item(call->options.ctx, item->index, status, size);
}

bool client_call_late(const struct call *call)
{
    return env_now_ns(call->store->env) >= call->deadline_ns;
}

void client_call_ask_in(struct call *call, uint32_t ms)
{
    struct env *env = call->store->env;
    uint64_t at = env_now_ns(env) + ms * ENV_NS_PER_MS;
    if (at > call->deadline_ns) at = call->deadline_ns;
    if (env_timer_armed(&call->again) && call->again.deadline_ns <= at) return;
    env_timer_set(env, &call->again, at);
}

/* Lends the places to the user. */
static void item_described(struct item *item, uint64_t size)
{
    struct yolk_store_replica replicas[STORE_REPLICAS_MAX];
    struct yolk_store_where where = { .size = size, .replicas = replicas };

    for (uint32_t i = 0; i < item->places_count && i < STORE_REPLICAS_MAX; i++) {
        const struct client_place *place = &item->places[i];
        replicas[where.count++] = (struct yolk_store_replica){
            .rpc_address = place->node.rpc_address,
            .segment = place->node.segment,
            .address = place->address,
            .disk = place->disk,
        };
    }
    item->call->on_described(item->call->described_ctx, item->index, &where);
    client_item_done(item, STATUS_OK, size);
}

void client_item_found(struct item *item, uint64_t size)
{
    struct call *call = item->call;
    if (call->on_described != NULL) {
        item_described(item, size);
        return;
    }
    const struct client_found found = { .places = item->places,
                                        .places_count = item->places_count,
                                        .size = size,
                                        .put_id = item->put_id,
                                        .writer = call->writer,
                                        .term = item->term,
                                        .write_until_ns = item->write_until_ns,
                                        .attributes = item->attributes };
    item->places = NULL;
    call->on_found(call->options.ctx, item->index, &found);
    client_item_done(item, STATUS_OK, size);
}

void client_item_again(struct item *item, enum status why)
{
    struct call *call = item->call;

    item->last = why;
    if (client_call_late(call)) {
        client_item_done(item, why, 0);
        return;
    }
    client_item_reset(item);
    item->state = ITEM_WAITING;
    if (!call->asking) client_call_ask_in(call, call->backoff_ms);
}

uint64_t client_try_until(const struct call *call, uint32_t ms)
{
    const uint64_t until = env_now_ns(call->store->env) + ms * ENV_NS_PER_MS;
    return until < call->deadline_ns ? until : call->deadline_ns;
}

enum status client_item_rpc(struct item *item, struct rpc_client *client, uint16_t method,
                            const struct buf *buf, uint64_t deadline_ns,
                            void (*on_end)(void *ctx, const struct rpc_result *result))
{
    struct rpc_call_id id;
    const struct rpc_request request = { .method = method,
                                         .body = buf_data(buf),
                                         .len = buf->len,
                                         .deadline_ns = deadline_ns,
                                         .on_end = on_end,
                                         .ctx = item };
    const enum status status = rpc_call(client, &request, &id);
    if (status == STATUS_OK) item->call->inner++;
    return status;
}

void client_call_out(struct call *call)
{
    ASSERT(call->inner > 0);
    call->inner--;
}

/* ---- the transfer ---- */

static void move_failed(struct item *item, enum status why)
{
    if (item->call->kind == CALL_PUT) {
        client_put_failed(item, why);
    } else {
        client_get_unmoved(item);
    }
}

static void on_moved(void *ctx, const struct yolk_transfer_result *result)
{
    struct item *item = ctx;
    struct call *call = item->call;
    ASSERT(item->state == ITEM_MOVING || item->state == ITEM_KNOWN);

    client_call_out(call);
    if (result->state != YOLK_TRANSFER_COMPLETED) {
        move_failed(item, result->reason == STATUS_OK ? STATUS_UNAVAILABLE : result->reason);
    } else if (call->kind == CALL_PUT) {
        client_put_moved(item);
    } else {
        client_get_moved(item);
    }
    client_call_settle(call);
}

/* Of a put all of the value, of a get its span. */
static struct yolk_transfer_request move_request(struct item *item)
{
    const struct call *call = item->call;
    const struct client_place *place = &item->places[item->places_next];
    const bool write = call->kind == CALL_PUT;
    const uint64_t read_until =
        item->state == ITEM_KNOWN ? client_try_until(call, CLIENT_OWNER_TRY_MS) : call->deadline_ns;

    return (struct yolk_transfer_request){
        .opcode = write ? YOLK_TRANSFER_WRITE : YOLK_TRANSFER_READ,
        .class = YOLK_TRANSFER_LOAD,
        .local = item->bounce != NULL ? item->bounce : item->data,
        .segment = item->segment,
        .remote = place->address + item->span_at,
        .length = write ? item->size : item->span_len,
        .deadline_ns = write ? item->write_until_ns : read_until,
        .attempt = item->put_id,
        .generation = place->node.epoch,
        .term = write ? item->term : 0,
        .on_done = on_moved,
        .ctx = item,
    };
}

/* After on_moved() of every one of them. */
static void on_moves_done(void *ctx, const struct yolk_transfer_result *result)
{
    struct moves *moves = ctx;
    struct call *call = moves->call;
    const enum status freed = yolk_transfer_batch_free(call->store->transfer, moves->batch);
    (void)result;
    ASSERT(freed == STATUS_OK);
    moves_free(moves);
    client_call_out(call);
    client_call_settle(call);
}

enum status client_submit(struct yolk_transfer *transfer,
                          const struct yolk_transfer_request *requests, uint32_t count,
                          yolk_transfer_done_fn on_done, void *ctx, struct yolk_transfer_batch *out)
{
    enum status status = yolk_transfer_batch_create(transfer, count, on_done, ctx, out);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_submit(transfer, *out, requests, count);
    if (status != STATUS_OK) {
        const enum status freed = yolk_transfer_batch_free(transfer, *out);
        ASSERT(freed == STATUS_OK);
    }
    return status;
}

/* Callbacks of `count` items and of the batch will come. */
static enum status moves_start(struct call *call, const struct yolk_transfer_request *requests,
                               uint32_t count)
{
    struct moves *moves = malloc(sizeof(*moves));
    if (moves == NULL) return STATUS_FULL;

    *moves = (struct moves){ .call = call };
    LIST_PUSH(call->moves, moves);
    const enum status status =
        client_submit(call->store->transfer, requests, count, on_moves_done, moves, &moves->batch);
    if (status == STATUS_OK) {
        call->inner += count + 1;
    } else {
        moves_free(moves);
    }
    return status;
}

void client_call_move(struct call *call)
{
    const uint32_t count = call->moving_count;
    struct item *item = call->moving;
    struct yolk_transfer_request *requests = NULL;
    enum status status = STATUS_FULL;

    if (count == 0) return;
    requests = malloc(count * sizeof(*requests));
    if (requests != NULL) {
        uint32_t left = count;
        for (struct item *i = item; i != NULL; i = i->moving_next)
            requests[--left] = move_request(i);
        ASSERT(left == 0);
        status = moves_start(call, requests, count);
        free(requests);
    }
    call->moving = NULL;
    call->moving_count = 0;
    call->moving_size = 0;
    for (struct item *next; status != STATUS_OK && item != NULL; item = next) {
        next = item->moving_next;
        move_failed(item, status);
    }
}

enum status client_item_move(struct item *item)
{
    struct call *call = item->call;
    const struct client_place *place = &item->places[item->places_next];

    const enum status status =
        yolk_transfer_open(call->store->transfer, place->node.segment, &item->segment);
    if (status != STATUS_OK) return status;
    item->segment_open = true;
    item->moving_next = call->moving;
    call->moving = item;
    call->moving_count++;
    call->moving_size += call->kind == CALL_PUT ? item->size : item->span_len;
    if (call->moving_size >= MOVE_SIZE) client_call_move(call);
    return STATUS_OK;
}
