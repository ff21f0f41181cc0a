/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_pin.c - see the header. One struct client_pin is an exchange from its question to
 * the end of its pin:
 *
 *     pin_asks_send           answer             last client_pin_unref
 *    --------------> ASKED -----------> HELD ----------------------------> released, freed
 *                      | no answer, or nothing pinned: freed
 */
#include "store/client_pin.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/proto.h"

#define RELEASE_NS (2 * ENV_NS_PER_S)
#define DOUBT_NS (2 * ENV_NS_PER_S)

struct client_pin {
    struct env *env;
    struct rpc_client *owner;
    struct pin_asks asks; /* while ASKED */
    uint32_t count;       /* of them */
    bool look;            /* they only look: what an older owner pins all the same is released */
    uint32_t refs;
    uint64_t id; /* while HELD; 0: nothing is pinned */
    uint64_t lease_ns;
    uint64_t asked_ns; /* when the exchange, or the renewal, under way was begun */
    uint64_t until_ns; /* the owner has promised */
    bool renewing;     /* which has a reference */
    struct env_timer renew;
};

void pin_asks_add(struct pin_asks *asks, struct pin_ask *ask)
{
    ASSERT(ask->owner != NULL && ask->on_answer != NULL);
    ask->next = NULL;
    if (asks->last == NULL) {
        ASSERT(asks->first == NULL);
        asks->first = ask;
    } else {
        asks->last->next = ask;
    }
    asks->last = ask;
}

/* ---- the pin ---- */

static void on_told(void *ctx, const struct rpc_result *result)
{
    (void)ctx;                         /* a pin that is gone */
    if (result->status != STATUS_OK) { /* the lease ends it */
        LOG_DEBUG("store", "pin_not_told", "reason=%s", status_name(result->status));
    }
}

static enum status pin_tell(struct client_pin *pin, uint16_t method, uint64_t deadline_ns,
                            void (*on_end)(void *ctx, const struct rpc_result *result))
{
    struct rpc_call_id id;
    struct buf buf;

    buf_init(&buf, 64);
    enum status status = store_encode_pin(&buf, pin->id);
    const struct rpc_request request = { .method = method,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = deadline_ns,
                                         .on_end = on_end,
                                         .ctx = pin };
    if (status == STATUS_OK) status = rpc_call(pin->owner, &request, &id);
    if (status != STATUS_OK) LOG_DEBUG("store", "pin_not_told", "reason=%s", status_name(status));
    buf_fini(&buf);
    return status;
}

static void on_renewed(void *ctx, const struct rpc_result *result)
{
    struct client_pin *pin = ctx;

    pin->renewing = false;
    if (result->status == STATUS_OK) pin->until_ns = pin->asked_ns + pin->lease_ns;
    if (result->status == STATUS_NOT_FOUND) pin->until_ns = 0; /* it has lapsed there */
    if (result->status == STATUS_CANCELLED) { /* the connection is being destroyed */
        client_pin_drop(pin);
    } else {
        client_pin_unref(pin);
    }
}

static void on_renew(void *ctx)
{
    struct client_pin *pin = ctx;
    const uint64_t now = env_now_ns(pin->env);
    const uint64_t next = now + pin->lease_ns / 3;

    env_timer_set(pin->env, &pin->renew, next);
    if (pin->renewing) return;
    pin->asked_ns = now;
    pin->renewing = pin_tell(pin, STORE_METHOD_RENEW, next, on_renewed) == STATUS_OK;
    pin->refs += pin->renewing;
}

bool client_pin_lapsed(const struct client_pin *pin)
{
    return env_now_ns(pin->env) >= pin->until_ns;
}

static void pin_free(struct client_pin *pin)
{
    ASSERT(pin->refs == 0 && pin->asks.first == NULL);
    env_timer_cancel(pin->env, &pin->renew);
    free(pin);
}

void client_pin_unref(struct client_pin *pin)
{
    ASSERT(pin->refs > 0);
    if (--pin->refs > 0) return;
    if (pin->id != 0) {
        const enum status told =
            pin_tell(pin, STORE_METHOD_RELEASE, env_now_ns(pin->env) + RELEASE_NS, on_told);
        (void)told; /* the lease ends it */
    }
    pin_free(pin);
}

void client_pin_drop(struct client_pin *pin)
{
    ASSERT(pin->refs > 0);
    if (--pin->refs == 0) pin_free(pin);
}

/* ---- doubts ---- */

static void on_doubted(void *ctx, const struct rpc_result *result)
{
    (void)ctx;
    if (result->status != STATUS_OK) {
        LOG_DEBUG("store", "doubt_not_told", "reason=%s", status_name(result->status));
    }
}

void client_pin_doubt(struct env *env, struct rpc_client *owner, const struct block_key *id)
{
    const struct store_acquire message = { .class = STORE_CLASS_OBJECT,
                                           .ids = id->bytes,
                                           .count = 1 };
    struct rpc_call_id call;
    struct buf buf;

    buf_init(&buf, 256);
    enum status status = store_encode_acquire(&buf, &message);
    const struct rpc_request request = { .method = STORE_METHOD_DOUBT,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = env_now_ns(env) + DOUBT_NS,
                                         .on_end = on_doubted };
    if (status == STATUS_OK) status = rpc_call(owner, &request, &call);
    if (status != STATUS_OK) LOG_DEBUG("store", "doubt_not_told", "reason=%s", status_name(status));
    buf_fini(&buf);
}

/* ---- the answer ---- */

/* Walks the items of an answer. */
struct cursor {
    uint32_t item;
    size_t sum;
    size_t byte;
};

/* The next value of an answer that answer_check() has seen. */
static void answer_next(const struct store_acquired *acquired, struct client_pin *pin,
                        struct cursor *at, struct pin_answer *out)
{
    const uint32_t i = at->item++;
    const uint32_t inlined = acquired->inlines.count > 0 ? msg_u32_at(acquired->inlines, i) : 0;

    *out = (struct pin_answer){ .status = pin->count > 1 ? STATUS_AGAIN : STATUS_NOT_FOUND };
    out->epoch = acquired->epoch;
    out->board = acquired->board;
    if (msg_u64_at(acquired->addresses, i) == 0) return;
    out->status = STATUS_OK;
    out->address = msg_u64_at(acquired->addresses, i);
    out->size = msg_u64_at(acquired->sizes, i);
    out->piece_size = acquired->piece_size;
    out->vouched = acquired->vouched;
    out->sums.data = acquired->sums.data + 8 * at->sum;
    out->sums.count = store_pieces(out->size, out->piece_size);
    at->sum += out->sums.count;
    if (inlined > 0) {
        out->bytes = acquired->bytes.data + at->byte;
        at->byte += inlined;
    } else if (!pin->look) {
        out->pin = pin;
        pin->refs++;
    }
}

/* As many items as were asked for, the sums of those that are there, and a pin for what is not
 * inline. */
static enum status answer_check(const struct store_acquired *acquired, const struct client_pin *pin)
{
    uint64_t sums = 0;
    bool pinned = false;

    if (acquired->addresses.count != pin->count) return STATUS_INVALID;
    for (uint32_t i = 0; i < pin->count; i++) {
        if (msg_u64_at(acquired->addresses, i) == 0) continue;
        if (acquired->piece_size == 0) return STATUS_INVALID;
        const uint64_t pieces = store_pieces(msg_u64_at(acquired->sizes, i), acquired->piece_size);
        if (pieces == 0 || pieces > acquired->sums.count) return STATUS_INVALID;
        sums += pieces;
        pinned |= acquired->inlines.count == 0 || msg_u32_at(acquired->inlines, i) == 0;
    }
    if (sums != acquired->sums.count) return STATUS_INVALID;
    return pinned && acquired->pin == 0 && !pin->look ? STATUS_INVALID : STATUS_OK;
}

static void on_acquired(void *ctx, const struct rpc_result *result)
{
    struct client_pin *pin = ctx;
    struct store_acquired acquired;
    struct pin_ask *ask = pin->asks.first;
    struct cursor at = { 0 };
    struct pin_answer answer;

    enum status status = result->status;
    if (status == STATUS_OK) status = store_decode_acquired(result->body, result->len, &acquired);
    if (status == STATUS_OK) {
        pin->id = acquired.pin;
        pin->lease_ns = acquired.lease_ms * ENV_NS_PER_MS;
        pin->until_ns = pin->asked_ns + pin->lease_ns;
        status = answer_check(&acquired, pin);
    }
    if (pin->id != 0 && pin->lease_ns > 0) {
        env_timer_set(pin->env, &pin->renew, env_now_ns(pin->env) + pin->lease_ns / 3);
    }
    pin->asks = (struct pin_asks){ NULL, NULL };
    for (struct pin_ask *next; ask != NULL; ask = next) {
        next = ask->next; /* the ask may be on another list afterwards, or gone */
        if (status == STATUS_OK) {
            answer_next(&acquired, pin, &at, &answer);
        } else {
            answer = (struct pin_answer){ .status = status };
        }
        answer.more = next != NULL;
        ask->on_answer(ask->ctx, &answer);
    }
    client_pin_unref(pin); /* our own */
}

/* ---- the question ---- */

/* Whether the exchange, of `bytes` so far, has room for it (I1). */
static bool fits(const struct pin_ask *ask, const struct client_pin *pin, uint64_t bytes)
{
    if (pin->count == 0) return true;
    if (ask->owner != pin->owner || ask->alone || pin->asks.first->alone) return false;
    if (ask->look != pin->look) return false;
    return pin->count < PIN_VALUES_MAX && ask->size <= PIN_BYTES_MAX - bytes;
}

/* Moves what one exchange can have from the list. */
static void take(struct pin_asks *asks, struct client_pin *pin)
{
    struct pin_ask *ask = asks->first;
    uint64_t bytes = 0;

    pin->owner = ask->owner;
    pin->look = ask->look;
    *asks = (struct pin_asks){ NULL, NULL };
    for (struct pin_ask *next; ask != NULL; ask = next) {
        next = ask->next;
        if (!fits(ask, pin, bytes)) {
            pin_asks_add(asks, ask);
            continue;
        }
        pin_asks_add(&pin->asks, ask);
        pin->count++;
        bytes = ask->size < PIN_BYTES_MAX - bytes ? bytes + ask->size : PIN_BYTES_MAX;
    }
}

/* `inline_max`, or 0 if too much would be inline (I1). */
static uint32_t inline_max_for(const struct client_pin *pin, uint32_t inline_max)
{
    uint64_t inlined = 0;
    for (const struct pin_ask *ask = pin->asks.first; ask != NULL; ask = ask->next) {
        if (ask->size <= inline_max) inlined += ask->size;
    }
    return inlined <= PIN_INLINE_MAX ? inline_max : 0;
}

static enum status acquire(struct client_pin *pin, const struct pin_terms *terms)
{
    uint8_t *ids = malloc((size_t)pin->count * BLOCK_KEY_SIZE);
    uint8_t *end = ids;
    struct rpc_call_id id;
    struct buf buf;

    if (ids == NULL) return STATUS_FULL;
    for (const struct pin_ask *ask = pin->asks.first; ask != NULL; ask = ask->next) {
        memcpy(end, ask->id.bytes, BLOCK_KEY_SIZE);
        end += BLOCK_KEY_SIZE;
    }
    const struct store_acquire message = { .class = STORE_CLASS_OBJECT,
                                           .ids = ids,
                                           .count = pin->count,
                                           .look = pin->look,
                                           .inline_max = inline_max_for(pin, terms->inline_max) };
    buf_init(&buf, RPC_BODY_SIZE_MAX);
    enum status status = store_encode_acquire(&buf, &message);
    const struct rpc_request request = { .method = STORE_METHOD_ACQUIRE,
                                         .body = buf_data(&buf),
                                         .len = buf.len,
                                         .deadline_ns = terms->deadline_ns,
                                         .on_end = on_acquired,
                                         .ctx = pin };
    if (status == STATUS_OK) status = rpc_call(pin->owner, &request, &id);
    buf_fini(&buf);
    free(ids);
    return status;
}

struct pin_ask *pin_asks_send(struct pin_asks *asks, struct env *env, const struct pin_terms *terms,
                              uint32_t *count, enum status *why)
{
    struct pin_ask *first = asks->first;
    struct client_pin *pin = calloc(1, sizeof(*pin));
    ASSERT(first != NULL);

    if (pin == NULL) {
        *asks = (struct pin_asks){ NULL, NULL };
        *count = 0;
        for (const struct pin_ask *ask = first; ask != NULL; ask = ask->next)
            ++*count;
        *why = STATUS_FULL;
        return first;
    }
    pin->env = env;
    pin->refs = 1;
    pin->asked_ns = env_now_ns(env);
    env_timer_init(&pin->renew, on_renew, pin);
    take(asks, pin);
    *count = pin->count;
    *why = acquire(pin, terms);
    if (*why == STATUS_OK) return NULL;
    first = pin->asks.first;
    pin->asks = (struct pin_asks){ NULL, NULL };
    pin->refs = 0;
    pin_free(pin);
    return first;
}
