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
 *   get  ASKING -> PINNING -> MOVING -----------------> done
 *          ^  |       |          |        |
 *          |  +-------+----------+--------+   try again: another replica, or the master again
 *          +-- WAITING <------------------+   (backoff), until the deadline
 *
 * What several items want of one owner is asked with one exchange (client_pin.h), and what then
 * moves is submitted to the transfer engine together (call_move).
 *
 * exist and remove end with the master's answer. What is tried again is what did certainly not
 * happen, or may be done twice: put_start answers the same ticket to the same writer, and a commit
 * of the same put finds what the first one made.
 *
 * Invariants
 *   I1  An item ends once, from the loop; a call is freed when its last item has ended and nothing
 *       that could call back is under way.
 *   I2  A value is reported only after each of its pieces had the owner's checksum.
 *   I3  A ticket's range is written only until put_ms after it was asked for. */
#include "yolk/store.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/map.h"
#include "base/rng.h"
#include "net/rpc.h"
#include "store/client_int.h"
#include "store/client_pin.h"
#include "store/peers.h"
#include "store/proto.h"
#include "store/reading.h"
#include "yolk/transfer.h"

enum {
    CALLS_MAX_DEFAULT = 4096,
    TIMEOUT_MS_DEFAULT = 10000,
    MASTER_TRY_MS = 2000,
    OWNER_TRY_MS = 2000,
    BACKOFF_MIN_MS = 2,
    BACKOFF_MAX_MS = 100,
    INLINE_MAX = 16 << 10,
    MOVE_SIZE =
        1 << 20, /* bytes that are submitted to the transfer engine without waiting for more */
};

_Static_assert((int)YOLK_STORE_KEY_SIZE_MAX == (int)STORE_KEY_SIZE_MAX, "one limit");
_Static_assert((int)YOLK_STORE_REPLICAS_MAX == (int)STORE_REPLICAS_MAX, "one limit");
_Static_assert((int)YOLK_STORE_PIECE_SIZE == (int)STORE_PIECE_SIZE, "one size");
_Static_assert((int)YOLK_STORE_BATCH_MAX == (int)STORE_KEYS_MAX, "one limit");

enum call_kind { CALL_PUT, CALL_GET, CALL_EXIST, CALL_REMOVE, CALL_REPLICAS };

enum item_state {
    ITEM_WAITING,    /* for the next exchange with the master */
    ITEM_ASKING,     /* in the exchange under way */
    ITEM_PINNING,    /* get: store.acquire is under way */
    ITEM_MOVING,     /* a transfer, or a reading, is under way */
    ITEM_COMMITTING, /* put: store.commit is under way, or about to be tried again */
    ITEM_DONE,
};

struct place {
    struct store_reply_node node;
    uint64_t address;
};

struct item {
    struct call *call;
    uint32_t index;
    enum item_state state;
    struct store_key key; /* in the call's copy */
    void *data;
    uint64_t size;    /* put: of the value; get: of the buffer, later of the value */
    uint64_t length;  /* get: of the value */
    enum status last; /* why the last try failed */

    struct place *places; /* get: replicas; put: the ticket's one */
    uint32_t places_count;
    uint32_t places_next;
    struct rpc_client *owner;
    struct yolk_transfer_segment segment;
    struct item *moving_next; /* in the call's list */
    bool segment_open;

    uint64_t put_id; /* put */
    struct store_attributes attributes;
    uint64_t term;
    uint64_t write_until_ns;
    uint64_t *sums; /* put: ours; get: the owner's */
    uint32_t sums_count;
    uint32_t piece_size; /* bytes under each */
    bool range;          /* get: not the whole value, but size bytes from offset */
    uint64_t offset;     /* in the value */
    uint64_t span_at;    /* get: what is read, in whole pieces */
    uint64_t span_len;
    uint8_t *bounce;         /* get: where to, if not into the buffer itself */
    struct pin_ask ask;      /* get */
    struct client_pin *pin;  /* get: of what is moving; shared with others of the owner */
    struct reading *reading; /* get: of memory of this host, under way */
    struct env_timer retry;  /* put: the next try of a commit */
};

/* Transfers of items that were submitted together. */
struct moves {
    struct moves *prev;
    struct moves *next;
    struct call *call;
    struct yolk_transfer_batch batch;
};

struct call {
    struct call *prev;
    struct call *next;
    struct yolk_store *store;
    enum call_kind kind;
    struct item *items; /* and behind them their keys: one block */
    uint32_t count;
    uint32_t left;  /* items not done */
    uint32_t inner; /* callbacks that may still come: RPCs and transfers of items */
    bool asking;    /* the exchange with the master is under way */
    uint64_t asked_ns;
    uint64_t deadline_ns;
    uint64_t writer;
    uint32_t backoff_ms;
    bool wishes;           /* put: some value has a group, cost or depth */
    struct pin_asks asks;  /* get: for the next exchanges with owners, in this turn or the next */
    struct env_timer pins; /* sends them */
    struct item *moving;   /* to be submitted before this turn ends, the last one first */
    uint32_t moving_count;
    uint64_t moving_size; /* bytes */
    struct moves *moves;
    struct env_timer again; /* the next exchange, or the deadline */
    struct yolk_store_call options;
    char preferred[STORE_NAME_SIZE];
};

/* ---- ends ---- */

/* XXH3-64 of piece i of the `size` bytes of the value, of which the item's memory has the span. */
static uint64_t item_sum(const struct item *item, uint64_t size, uint32_t i)
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
    if (moves->prev == NULL) {
        call->moves = moves->next;
    } else {
        moves->prev->next = moves->next;
    }
    if (moves->next != NULL) moves->next->prev = moves->prev;
    free(moves);
}

static void call_free(struct call *call)
{
    struct yolk_store *store = call->store;
    ASSERT(call->left == 0 && call->inner == 0 && !call->asking);

    if (call->prev == NULL) {
        ASSERT(store->calls == call);
        store->calls = call->next;
    } else {
        call->prev->next = call->next;
    }
    if (call->next != NULL) call->next->prev = call->prev;
    env_timer_cancel(store->env, &call->again);
    env_timer_cancel(store->env, &call->pins);
    ASSERT(store->items >= call->count);
    store->items -= call->count;
    while (call->moves != NULL)
        moves_free(call->moves); /* the engine ends with its batches */
    free(call->items);
    free(call);
}

/* I1: the last one out frees the call. */
static void call_settle(struct call *call)
{
    if (call->left == 0 && call->inner == 0 && !call->asking && !call->store->closing) {
        call_free(call);
    }
}

static void bounce_free(struct item *item)
{
    struct yolk_store *store = item->call->store;
    if (item->bounce == NULL) return;
    if (!store->closing) { /* else the engine frees it at its own end */
        const enum status freed = yolk_transfer_free(store->transfer, item->bounce);
        ASSERT(freed == STATUS_OK);
    }
    item->bounce = NULL;
}

static void pin_end(struct item *item)
{
    if (item->pin == NULL) return;
    if (item->call->store->closing) {
        client_pin_drop(item->pin);
    } else {
        client_pin_unref(item->pin);
    }
    item->pin = NULL;
}

static void item_reset(struct item *item)
{
    struct yolk_store *store = item->call->store;

    env_timer_cancel(store->env, &item->retry);
    pin_end(item);
    if (item->segment_open && !store->closing) {
        yolk_transfer_close(store->transfer, item->segment);
    }
    item->segment_open = false;
    bounce_free(item);
    free(item->reading); /* only at the end of the client: nobody looks at it any more */
    free(item->places);
    free(item->sums);
    item->reading = NULL;
    item->places = NULL;
    item->sums = NULL;
    item->places_count = 0;
    item->places_next = 0;
}

/* The call may be gone after call_settle(), which the outermost caller does. */
static void item_done(struct item *item, enum status status, uint64_t size)
{
    struct call *call = item->call;
    ASSERT(item->state != ITEM_DONE && call->left > 0);

    item_reset(item);
    item->state = ITEM_DONE;
    call->left--;
    call->options.on_item(call->options.ctx, item->index, status, size);
}

static bool call_late(const struct call *call)
{
    return env_now_ns(call->store->env) >= call->deadline_ns;
}

static void call_ask_in(struct call *call, uint32_t ms)
{
    struct env *env = call->store->env;
    uint64_t at = env_now_ns(env) + ms * ENV_NS_PER_MS;
    if (at > call->deadline_ns) at = call->deadline_ns;
    if (env_timer_armed(&call->again) && call->again.deadline_ns <= at) return;
    env_timer_set(env, &call->again, at);
}

/* The master is asked again for this item, after a pause, or never: `why` is its end then. */
static void item_again(struct item *item, enum status why)
{
    struct call *call = item->call;

    item->last = why;
    if (call_late(call)) {
        item_done(item, why, 0);
        return;
    }
    item_reset(item);
    item->state = ITEM_WAITING;
    if (!call->asking) call_ask_in(call, call->backoff_ms);
}

static uint64_t try_until(const struct call *call, uint32_t ms)
{
    const uint64_t until = env_now_ns(call->store->env) + ms * ENV_NS_PER_MS;
    return until < call->deadline_ns ? until : call->deadline_ns;
}

/* An RPC of an item: on_end will run, and `inner` is counted. */
static enum status item_rpc(struct item *item, struct rpc_client *client, uint16_t method,
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

static void call_out(struct call *call)
{
    ASSERT(call->inner > 0);
    call->inner--;
}

/* ---- the transfer ---- */

static void on_moved(void *ctx, const struct yolk_transfer_result *result);
static void move_failed(struct item *item, enum status why);

/* Of a put all of the value, of a get its span. */
static struct yolk_transfer_request move_request(struct item *item)
{
    const struct call *call = item->call;
    const struct place *place = &item->places[item->places_next];
    const bool write = call->kind == CALL_PUT;

    return (struct yolk_transfer_request){
        .opcode = write ? YOLK_TRANSFER_WRITE : YOLK_TRANSFER_READ,
        .class = YOLK_TRANSFER_LOAD,
        .local = item->bounce != NULL ? item->bounce : item->data,
        .segment = item->segment,
        .remote = place->address + item->span_at,
        .length = write ? item->size : item->span_len,
        .deadline_ns = write ? item->write_until_ns : call->deadline_ns,
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
    call_out(call);
    call_settle(call);
}

/* Callbacks of `count` items and of the batch will come. */
static enum status moves_start(struct call *call, const struct yolk_transfer_request *requests,
                               uint32_t count)
{
    struct yolk_transfer *transfer = call->store->transfer;
    struct moves *moves = malloc(sizeof(*moves));
    if (moves == NULL) return STATUS_FULL;

    *moves = (struct moves){ .next = call->moves, .call = call };
    if (call->moves != NULL) call->moves->prev = moves;
    call->moves = moves;
    enum status status =
        yolk_transfer_batch_create(transfer, count, on_moves_done, moves, &moves->batch);
    if (status == STATUS_OK) {
        status = yolk_transfer_submit(transfer, moves->batch, requests, count);
        if (status != STATUS_OK) {
            const enum status freed = yolk_transfer_batch_free(transfer, moves->batch);
            ASSERT(freed == STATUS_OK);
        }
    }
    if (status == STATUS_OK) {
        call->inner += count + 1;
    } else {
        moves_free(moves);
    }
    return status;
}

/* Submits what item_move() has put on the list: with one call, so that many small values leave
 * with few packets. */
static void call_move(struct call *call)
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

/* The item's bytes move once its caller has come to call_move(). */
static enum status item_move(struct item *item)
{
    struct call *call = item->call;
    const struct place *place = &item->places[item->places_next];

    const enum status status =
        yolk_transfer_open(call->store->transfer, place->node.segment, &item->segment);
    if (status != STATUS_OK) return status;
    item->segment_open = true;
    item->state = ITEM_MOVING;
    item->moving_next = call->moving;
    call->moving = item;
    call->moving_count++;
    call->moving_size += call->kind == CALL_PUT ? item->size : item->span_len;
    if (call->moving_size >= MOVE_SIZE) call_move(call);
    return STATUS_OK;
}

/* ---- put: from the ticket to the acknowledgement ---- */

static void on_told(void *ctx, const struct rpc_result *result)
{
    (void)result;
    struct item *item = ctx;
    call_out(item->call);
    call_settle(item->call);
}

/* Gives the ticket back; if that is lost, the master discards it by itself. */
static void put_revoke(struct item *item)
{
    struct yolk_store *store = item->call->store;
    const struct store_put_revoke message = { .key = item->key,
                                              .put_id = item->put_id,
                                              .writer = item->call->writer };
    const uint64_t until = env_now_ns(store->env) + OWNER_TRY_MS * ENV_NS_PER_MS;
    struct buf buf;

    if (item->put_id == 0) return;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_put_revoke(&buf, &message);
    if (status == STATUS_OK) {
        status = item_rpc(item, store->master, MASTER_METHOD_PUT_REVOKE, &buf, until, on_told);
    }
    if (status != STATUS_OK) LOG_DEBUG("store", "revoke_not_told", "");
    buf_fini(&buf);
    item->put_id = 0;
}

/* The try is certainly over without a value: from the start, if there is time. */
static void put_failed(struct item *item, enum status why)
{
    put_revoke(item);
    item_again(item, why);
}

static void put_commit(struct item *item);

static void on_committed(void *ctx, const struct rpc_result *result)
{
    struct item *item = ctx;
    struct call *call = item->call;
    const enum status status = result->status;

    call_out(call);
    if (call->store->closing) return;
    switch ((int)status) {
    case STATUS_OK: item_done(item, STATUS_OK, item->size); break;
    case STATUS_EXISTS:
        if (call->options.replace) { /* by a later writer's: then ours comes after it */
            put_failed(item, STATUS_BUSY);
            break;
        }
        put_revoke(item);
        item_done(item, STATUS_EXISTS, 0);
        break;
    case STATUS_STALE:
    case STATUS_CORRUPT:
    case STATUS_INVALID:
    case STATUS_FULL: put_failed(item, status); break;
    case STATUS_BUSY:
        if (!call->options.replace) {
            put_failed(item, status);
            break;
        }
        /* fall through */ /* somebody reads the old value: until they have done */
    default:               /* it may have happened: the same commit again tells */
        item->last = status;
        if (call_late(call)) {
            item_done(item, status, 0);
        } else {
            env_timer_set(call->store->env, &item->retry,
                          env_now_ns(call->store->env) + BACKOFF_MAX_MS * ENV_NS_PER_MS);
        }
        break;
    }
    call_settle(call);
}

static void on_commit_retry(void *ctx)
{
    struct item *item = ctx;
    struct call *call = item->call;
    ASSERT(item->state == ITEM_COMMITTING);

    if (call_late(call)) {
        item_done(item, item->last, 0);
    } else {
        put_commit(item);
    }
    call_settle(call);
}

static void put_commit(struct item *item)
{
    struct call *call = item->call;
    const struct place *place = &item->places[0];
    const struct store_commit message = { .key = item->key,
                                          .put_id = item->put_id,
                                          .term = item->term,
                                          .epoch = place->node.epoch,
                                          .address = place->address,
                                          .size = item->size,
                                          .sums_data = item->sums,
                                          .attributes = item->attributes };
    struct buf buf;

    item->state = ITEM_COMMITTING;
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_commit(&buf, &message);
    if (status == STATUS_OK) {
        status = item_rpc(item, item->owner, STORE_METHOD_COMMIT, &buf,
                          try_until(call, OWNER_TRY_MS), on_committed);
    }
    buf_fini(&buf);
    if (status != STATUS_OK) {
        item->last = status;
        env_timer_set(call->store->env, &item->retry,
                      env_now_ns(call->store->env) + BACKOFF_MAX_MS * ENV_NS_PER_MS);
    }
}

static void put_sums(struct item *item)
{
    for (uint32_t i = 0; i < item->sums_count; i++)
        item->sums[i] = item_sum(item, item->size, i);
}

static void put_ticket(struct item *item, const struct store_places *reply, uint32_t i)
{
    struct call *call = item->call;
    struct yolk_store *store = call->store;
    const uint64_t until = call->asked_ns + reply->put_ms * ENV_NS_PER_MS; /* I3 */

    item->put_id = msg_u64_at(reply->put_ids, i);
    item->attributes.version = reply->versions.count > 0 ? msg_u32_at(reply->versions, i) : 0;
    item->term = reply->term;
    item->write_until_ns = until < call->deadline_ns ? until : call->deadline_ns;
    item->places = malloc(sizeof(*item->places));
    item->piece_size = STORE_PIECE_SIZE;
    item->sums_count = (uint32_t)store_pieces(item->size, item->piece_size);
    item->sums = malloc(item->sums_count * sizeof(*item->sums));
    if (item->places == NULL || item->sums == NULL) {
        put_failed(item, STATUS_FULL);
        return;
    }
    item->places_count = 1;
    item->places[0].node = store->nodes[msg_u32_at(reply->nodes, i)];
    item->places[0].address = msg_u64_at(reply->addresses, i);
    put_sums(item);
    enum status status =
        store_peers_get(store->peers, item->places[0].node.rpc_address, &item->owner);
    if (status == STATUS_OK) {
        status = item_move(item);
    }
    if (status != STATUS_OK) put_failed(item, status);
}

/* ---- get: from the replicas to the value ---- */

static void get_next(struct item *item);
static void get_ask(struct item *item);

/* This replica did not serve. The worst reason of all is kept: wrong bytes, then absence. */
static void get_failed(struct item *item, enum status why)
{
    struct yolk_store *store = item->call->store;

    pin_end(item);
    if (item->segment_open) yolk_transfer_close(store->transfer, item->segment);
    item->segment_open = false;
    free(item->sums);
    item->sums = NULL;
    if (item->last != STATUS_CORRUPT) item->last = why;
    item->places_next++;
    get_next(item);
}

static bool get_verified(const struct item *item)
{
    const uint64_t first = item->span_at / item->piece_size;
    const uint64_t last = store_pieces(item->span_at + item->span_len, item->piece_size);
    ASSERT(last <= item->sums_count);
    for (uint64_t i = first; i < last; i++) {
        if (item_sum(item, item->length, (uint32_t)i) != item->sums[i]) return false;
    }
    return true;
}

/* What is asked for, of a value that is longer than item->offset. */
static uint64_t get_end(const struct item *item)
{
    if (!item->range) return item->length;
    const uint64_t left = item->length - item->offset;
    return item->offset + (item->size < left ? item->size : left);
}

/* Which pieces are read. */
static void get_span(struct item *item)
{
    const uint64_t end = get_end(item);
    const uint64_t whole = store_pieces(end, item->piece_size) * item->piece_size;

    item->span_at = item->offset / item->piece_size * item->piece_size;
    item->span_len = (whole < item->length ? whole : item->length) - item->span_at;
}

/* A range that does not begin and end with pieces is transferred through memory of our own, or its
 * ends could not be verified. */
static enum status get_transfer(struct item *item)
{
    void *memory = NULL;

    bounce_free(item);
    if (item->span_len == get_end(item) - item->offset) return item_move(item);
    const enum status status = yolk_transfer_alloc(item->call->store->transfer, item->span_len,
                                                   YOLK_TRANSFER_REMOTE_WRITE, &memory, NULL);
    if (status != STATUS_OK) return status;
    item->bounce = memory;
    return item_move(item);
}

static void get_deliver(const struct item *item)
{
    if (item->bounce == NULL) return;
    memcpy(item->data, item->bounce + (item->offset - item->span_at), get_end(item) - item->offset);
}

/* A value that came with the answer. */
static enum status get_inline(struct item *item, const struct pin_answer *answer)
{
    for (uint32_t i = 0; i < answer->sums.count; i++) {
        const uint64_t at = (uint64_t)i * answer->piece_size;
        const uint64_t left = answer->size - at;
        const uint64_t len = left < answer->piece_size ? left : answer->piece_size;
        if (hash_xxh3(answer->bytes + at, len) != msg_u64_at(answer->sums, i)) {
            return STATUS_CORRUPT;
        }
    }
    memcpy(item->data, answer->bytes + item->offset, get_end(item) - item->offset);
    return STATUS_OK;
}

/* Takes over what is to be moved. */
static enum status get_take(struct item *item, const struct pin_answer *answer)
{
    item->piece_size = answer->piece_size;
    item->sums_count = (uint32_t)answer->sums.count;
    item->sums = malloc(item->sums_count * sizeof(*item->sums));
    if (item->sums == NULL) return STATUS_FULL;
    for (uint32_t i = 0; i < item->sums_count; i++)
        item->sums[i] = msg_u64_at(answer->sums, i);
    item->places[item->places_next].address = answer->address;
    get_span(item);
    return STATUS_OK;
}

static void get_wrong(struct item *item)
{
    LOG_WARN("store", "value_wrong", "owner=%s", rpc_client_address(item->owner));
    get_failed(item, STATUS_CORRUPT);
}

static void on_read(void *ctx, enum status status)
{
    struct item *item = ctx;
    struct call *call = item->call;
    ASSERT(item->state == ITEM_MOVING);

    free(item->reading);
    item->reading = NULL;
    if (status == STATUS_OK) {
        item_done(item, STATUS_OK, item->length);
    } else if (status == STATUS_CORRUPT) {
        get_wrong(item);
    } else {
        get_failed(item, status);
    }
    call_settle(call);
}

/* Reads where the bytes are. STATUS_OK: on_read() will tell; else they cannot be seen from here. */
static enum status get_read(struct item *item)
{
    const struct place *place = &item->places[item->places_next];
    struct reading *reading = malloc(sizeof(*reading));
    if (reading == NULL) return STATUS_FULL;

    *reading = (struct reading){
        .owner = place->node.epoch,
        .address = place->address + item->span_at,
        .len = item->span_len,
        .piece_size = item->piece_size,
        .sums = item->sums + item->span_at / item->piece_size,
        .skip = item->offset - item->span_at,
        .want = get_end(item) - item->offset,
        .to = item->data,
        .on_end = on_read,
        .ctx = item,
    };
    const enum status status =
        reading_start(item->call->store->readings, place->node.segment, reading);
    if (status != STATUS_OK) {
        free(reading);
        return status;
    }
    item->reading = reading;
    item->state = ITEM_MOVING;
    return STATUS_OK;
}

static void get_answered(struct item *item, const struct pin_answer *answer)
{
    enum status status = answer->status;

    item->pin = answer->pin;
    if (status == STATUS_AGAIN && !item->ask.alone) {
        item->ask.alone = true;
        get_ask(item);
        return;
    }
    /* Replaced: the master knows by now. */
    if (status == STATUS_OK && answer->size != item->length) status = STATUS_STALE;
    if (status == STATUS_OK && answer->bytes != NULL) {
        status = get_inline(item, answer);
        if (status == STATUS_OK) {
            item_done(item, STATUS_OK, item->length);
        } else {
            get_wrong(item);
        }
        return;
    }
    if (status == STATUS_OK) status = get_take(item, answer);
    if (status == STATUS_OK && get_read(item) == STATUS_OK) return;
    if (status == STATUS_OK) status = get_transfer(item);
    if (status != STATUS_OK) get_failed(item, status);
}

static void on_pinned(void *ctx, const struct pin_answer *answer)
{
    struct item *item = ctx;
    struct call *call = item->call;

    call_out(call);
    if (call->store->closing) return;
    get_answered(item, answer);
    if (!answer->more) call_move(call);
    call_settle(call);
}

/* Its owner is asked with the next exchange. */
static void get_ask(struct item *item)
{
    struct call *call = item->call;
    struct env *env = call->store->env;

    item->ask.owner = item->owner;
    item->ask.id = store_key_id(item->key);
    item->ask.size = item->length;
    item->ask.on_answer = on_pinned;
    item->ask.ctx = item;
    pin_asks_add(&call->asks, &item->ask);
    if (!env_timer_armed(&call->pins)) env_timer_set(env, &call->pins, env_now_ns(env));
}

/* Asks the owners for all that is wanted of them. */
static void call_pin(struct call *call)
{
    const struct pin_terms terms = { .deadline_ns = try_until(call, OWNER_TRY_MS),
                                     .inline_max = call->store->inline_max };
    uint32_t count;
    enum status why;

    env_timer_cancel(call->store->env, &call->pins);
    while (call->asks.first != NULL) {
        struct pin_ask *ask = pin_asks_send(&call->asks, call->store->env, &terms, &count, &why);
        if (ask == NULL) call->inner += count;
        for (struct pin_ask *next; ask != NULL; ask = next) {
            next = ask->next;
            get_failed(ask->ctx, why);
        }
    }
}

static void on_pins(void *ctx)
{
    struct call *call = ctx;
    call_pin(call);
    call_settle(call);
}

static void get_next(struct item *item)
{
    while (item->places_next < item->places_count) {
        const struct place *place = &item->places[item->places_next];
        const enum status status =
            store_peers_get(item->call->store->peers, place->node.rpc_address, &item->owner);
        if (status == STATUS_OK) {
            item->state = ITEM_PINNING;
            item->ask.alone = false;
            get_ask(item);
            return;
        }
        if (item->last != STATUS_CORRUPT) item->last = status;
        item->places_next++;
    }
    if (item->last == STATUS_CORRUPT) {
        item_done(item, STATUS_CORRUPT, item->length);
    } else {
        /* The directory may be behind the owners: ask it again, until it is too late. */
        const bool absent = item->last == STATUS_NOT_FOUND;
        item_again(item, absent ? STATUS_NOT_FOUND : STATUS_UNAVAILABLE);
    }
}

static void get_places(struct item *item, const struct store_places *reply, uint32_t i,
                       uint32_t first)
{
    const uint32_t count = msg_u32_at(reply->counts, i);

    item->length = msg_u64_at(reply->sizes, i);
    if (!item->range && item->length > item->size) {
        item_done(item, STATUS_FULL, item->length);
        return;
    }
    if (item->offset >= item->length) {
        item_done(item, STATUS_INVALID, item->length);
        return;
    }
    item->places = count == 0 ? NULL : malloc(count * sizeof(*item->places));
    if (item->places == NULL) {
        item_again(item, STATUS_UNAVAILABLE);
        return;
    }
    for (uint32_t r = 0; r < count; r++) {
        item->places[r].node = item->call->store->nodes[msg_u32_at(reply->nodes, first + r)];
        item->places[r].address = msg_u64_at(reply->addresses, first + r);
    }
    item->places_count = count;
    item->places_next = 0;
    item->last = STATUS_UNAVAILABLE;
    get_next(item);
}

static void move_failed(struct item *item, enum status why)
{
    if (item->call->kind == CALL_PUT) {
        put_failed(item, why);
    } else {
        get_failed(item, STATUS_UNAVAILABLE);
    }
}

static void on_moved(void *ctx, const struct yolk_transfer_result *result)
{
    struct item *item = ctx;
    struct call *call = item->call;
    ASSERT(item->state == ITEM_MOVING);

    call_out(call);
    if (result->state != YOLK_TRANSFER_COMPLETED) {
        move_failed(item, result->reason == STATUS_OK ? STATUS_UNAVAILABLE : result->reason);
    } else if (call->kind == CALL_PUT) {
        put_commit(item);
    } else if (!get_verified(item)) {
        get_wrong(item);
    } else {
        get_deliver(item);
        item_done(item, STATUS_OK, item->length);
    }
    call_settle(call);
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
        item_again(item, status);
    } else {
        item_done(item, status, 0);
    }
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
        if (status == STATUS_OK) {
            item_done(item, STATUS_OK, 0);
        } else {
            item_refused(item, status);
        }
    }
    return STATUS_OK;
}

static enum status answer_places(struct call *call, const struct rpc_result *result)
{
    const bool put = call->kind == CALL_PUT;
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
            put_ticket(item, &reply, n);
        } else {
            get_places(item, &reply, n, first);
        }
        if (!put && n < reply.count) first += msg_u32_at(reply.counts, n);
        n++;
    }
    return STATUS_OK;
}

static void on_answer(void *ctx, const struct rpc_result *result)
{
    struct call *call = ctx;
    const bool places = call->kind == CALL_PUT || call->kind == CALL_GET;
    enum status status = result->status;

    if (call->store->closing) {
        call->asking = false;
        return;
    }
    /* `asking` holds the call while its items end. */
    if (status == STATUS_OK) {
        status = places ? answer_places(call, result) : answer_codes(call, result);
    }
    call_move(call);
    call_pin(call);
    bool again = false;
    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = &call->items[i];
        if (item->state == ITEM_ASKING) item_refused(item, status);
        again = again || item->state == ITEM_WAITING;
    }
    call->asking = false;
    if (call->backoff_ms < BACKOFF_MAX_MS) call->backoff_ms *= 2;
    if (again) call_ask_in(call, call->backoff_ms);
    call_settle(call);
}

static uint16_t method_of(enum call_kind kind)
{
    switch (kind) {
    case CALL_PUT: return MASTER_METHOD_PUT_START;
    case CALL_GET: return MASTER_METHOD_GET;
    case CALL_EXIST: return MASTER_METHOD_EXIST;
    case CALL_REMOVE: return MASTER_METHOD_REMOVE;
    case CALL_REPLICAS: return MASTER_METHOD_REPLICAS;
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
    uint32_t count;
    bool values; /* the columns beside the keys are filled: of puts */
};

static bool question_init(struct question *question, uint32_t count, bool values)
{
    const size_t key = sizeof(struct store_key);
    const size_t beside = 2 * sizeof(uint64_t) + 2 * sizeof(uint32_t);

    *question = (struct question){ .keys = malloc(count * (values ? key + beside : key)),
                                   .values = values };
    if (question->keys == NULL) return false;
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
    if (!question->values) return;
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

    if (call->kind == CALL_PUT || call->kind == CALL_REPLICAS) {
        batch.replicas = call->options.replicas;
    }
    if (call->kind == CALL_PUT) {
        batch.sizes_data = question->sizes;
        batch.replace = call->options.replace;
        batch.hard_pin = call->options.hard_pin;
        batch.soft_pin_ms = call->options.soft_pin_ms;
        if (call->wishes) {
            batch.groups_data = question->groups;
            batch.costs_data = question->costs;
            batch.depths_data = question->depths;
        }
    }
    memcpy(batch.preferred, call->preferred, sizeof(batch.preferred));
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_batch(&buf, &batch);
    const struct rpc_request request = { .method = method_of(call->kind),
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = try_until(call, MASTER_TRY_MS),
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
            item_done(item, item->last == STATUS_OK ? STATUS_TIMEOUT : item->last, 0);
        }
    }
}

/* Asks the master about every waiting item. No item ends before this has returned. */
static void call_ask(struct call *call)
{
    struct question question;
    ASSERT(!call->asking);

    const bool room = question_init(&question, call->count, call->kind == CALL_PUT);
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
    if (again) call_ask_in(call, BACKOFF_MAX_MS);
}

static void on_ask(void *ctx)
{
    struct call *call = ctx;

    if (call_late(call)) {
        call_expire(call);
        call_settle(call);
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

static bool keys_valid(const struct yolk_store *store, const struct yolk_store_key *keys,
                       size_t stride, uint32_t count, size_t *sum)
{
    *sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct yolk_store_key *key = (const void *)((const uint8_t *)keys + i * stride);
        const size_t len = client_key_len(store, key);
        if (len == 0) return false;
        *sum += len;
    }
    return true;
}

/* `keys` are those of an array whose elements are `stride` bytes apart. NULL: no memory. */
static struct call *call_new(struct yolk_store *store, enum call_kind kind,
                             const struct yolk_store_key *keys, size_t stride, uint32_t count,
                             size_t keys_len, const struct yolk_store_call *options)
{
    struct call *call = malloc(sizeof(*call));
    struct item *items = malloc(count * sizeof(*items) + keys_len); /* and their keys */
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
    if (options->preferred != NULL) {
        memcpy(call->preferred, options->preferred, strlen(options->preferred) + 1);
    }
    env_timer_init(&call->again, on_ask, call);
    env_timer_init(&call->pins, on_pins, call);
    for (uint32_t i = 0; i < count; i++) {
        const struct yolk_store_key *key = (const void *)((const uint8_t *)keys + i * stride);
        items[i] = (struct item){ .call = call, .index = i, .key = client_key(store, key, end) };
        env_timer_init(&items[i].retry, on_commit_retry, &items[i]);
        end += items[i].key.len;
    }
    call->next = store->calls;
    if (store->calls != NULL) store->calls->prev = call;
    store->calls = call;
    store->items += count;
    return call;
}

/* All but its first question, for which the items may still want more: call_ask(). */
static enum status call_start(struct yolk_store *store, enum call_kind kind,
                              const struct yolk_store_key *keys, size_t stride, uint32_t count,
                              const struct yolk_store_call *options, struct call **out)
{
    size_t keys_len;
    ASSERT(options->on_item != NULL);

    if (count == 0 || count > YOLK_STORE_BATCH_MAX) return STATUS_INVALID;
    if (!keys_valid(store, keys, stride, count, &keys_len)) return STATUS_INVALID;
    if (options->preferred != NULL && strlen(options->preferred) >= STORE_NAME_SIZE) {
        return STATUS_INVALID;
    }
    if (options->replicas > YOLK_STORE_REPLICAS_MAX) return STATUS_INVALID;
    if (count > store->items_max - store->items) return STATUS_FULL;
    *out = call_new(store, kind, keys, stride, count, keys_len, options);
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

/* Two puts of one key in one call would share a ticket. */
static bool keys_differ(const struct yolk_store_value *values, uint32_t count)
{
    const struct map_options options = { .entries_initial = count, .entries_max = count };
    struct map *map;
    bool differ = true;

    if (count == 1) return true;
    if (map_create(&options, &map) != STATUS_OK) return false;
    for (uint32_t i = 0; i < count && differ; i++) {
        const struct store_key key = { values[i].key.bytes, (uint32_t)values[i].key.len };
        const struct block_key id = store_key_id(key);
        differ = map_insert(map, &id, i) == STATUS_OK;
    }
    map_destroy(map);
    return differ;
}

enum status yolk_store_put(struct yolk_store *store, const struct yolk_store_value *values,
                           uint32_t count, const struct yolk_store_call *options)
{
    struct call *call;
    size_t len;

    if (count == 0 || count > YOLK_STORE_BATCH_MAX) return STATUS_INVALID;
    if (!keys_valid(store, &values[0].key, sizeof(values[0]), count, &len)) return STATUS_INVALID;
    for (uint32_t i = 0; i < count; i++) {
        if (values[i].size == 0 || values[i].size > STORE_OBJECT_SIZE_MAX) return STATUS_INVALID;
    }
    if (!keys_differ(values, count)) return STATUS_INVALID;
    const enum status status =
        call_start(store, CALL_PUT, &values[0].key, sizeof(values[0]), count, options, &call);
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
    }
    call_ask(call);
    return STATUS_OK;
}

enum status yolk_store_get(struct yolk_store *store, const struct yolk_store_buffer *buffers,
                           uint32_t count, const struct yolk_store_call *options)
{
    struct call *call;

    if (count == 0) return STATUS_INVALID;
    for (uint32_t i = 0; i < count && i < YOLK_STORE_BATCH_MAX; i++) {
        if (buffers[i].range && buffers[i].size == 0) return STATUS_INVALID;
    }
    const enum status status =
        call_start(store, CALL_GET, &buffers[0].key, sizeof(buffers[0]), count, options, &call);
    if (status != STATUS_OK) return status;
    for (uint32_t i = 0; i < count; i++) {
        struct item *item = &call->items[i];
        item->data = buffers[i].data;
        item->size = buffers[i].size;
        item->range = buffers[i].range;
        item->offset = buffers[i].range ? buffers[i].offset : 0;
    }
    call_ask(call);
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
    store->nodes = calloc(STORE_REPLY_NODES_MAX, sizeof(*store->nodes));
    env_random(store->env, &store->writers_seed, sizeof(store->writers_seed));
    enum status status = store->nodes == NULL ? STATUS_NO_MEMORY : STATUS_OK;
    if (status == STATUS_OK) {
        status = store_peers_create(store->env, options->secret, "client", &store->peers);
    }
    if (status == STATUS_OK) {
        status = readings_create(store->env, store->transfer, &store->readings);
    }
    if (status != STATUS_OK) errmsg_set(err, status, "out of memory");
    if (status == STATUS_OK) status = rpc_client_create(store->env, &client, &store->master, err);
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
    rpc_client_destroy(store->master); /* what is under way ends here, and is only counted */
    store_peers_destroy(store->peers);
    readings_destroy(store->readings);
    while (store->calls != NULL) {
        struct call *call = store->calls;
        for (uint32_t i = 0; i < call->count; i++) {
            if (call->items[i].state != ITEM_DONE) item_done(&call->items[i], STATUS_CANCELLED, 0);
        }
        call->inner = 0; /* transfers: the engine ends in this turn of the loop */
        call->asking = false;
        call_free(call);
    }
    free(store->nodes);
    free(store);
}
