/* SPDX-License-Identifier: Apache-2.0
 *
 * store/threads.c - questions of threads, gathered into calls of the client.
 *
 * A flight (store/gather.h) becomes one call. It has landed with its first answer: the master has
 * answered then, and what it still waits for is the business of single items.
 *
 * Values take their time: of puts and gets two flights are under way in any case.
 *
 * Whole calls go as they are, each by itself, and never wait for another. */
#include "yolk/store_threads.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "store/gather.h"

enum { FLIGHT_ITEMS_MAX = 1024 };

enum kind { KIND_EXIST, KIND_GET, KIND_PUT, KIND_REMOVE, KIND_CALL, KINDS };

struct question {
    struct gather_op op;           /* first */
    struct yolk_store_value value; /* of a put; of the others the key */
    struct yolk_store_buffer buffer;
    enum status status;
    uint64_t size;
};

struct flight {
    struct yolk_store_threads *threads;
    enum kind kind;
    uint32_t count;
    uint32_t left;
    bool landed;
    struct question *questions[FLIGHT_ITEMS_MAX];
};

struct yolk_store_threads {
    struct yolk_store *store;
    struct gather *gather;
};

static void answer(struct yolk_store_threads *threads, struct question *question,
                   enum status status, uint64_t size)
{
    question->status = status;
    question->size = size;
    gather_answer(threads->gather, &question->op);
}

/* ---- flights ---- */

static void flight_land(struct flight *flight)
{
    if (!flight->landed) gather_landed(flight->threads->gather, flight->kind);
    flight->landed = true;
}

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct flight *flight = ctx;

    flight_land(flight);
    answer(flight->threads, flight->questions[index], status, size);
    if (--flight->left == 0) free(flight);
}

/* As many as fit, in order; the rest. */
static struct gather_op *flight_board(struct flight *flight, struct gather_op *ops)
{
    while (ops != NULL && flight->count < FLIGHT_ITEMS_MAX) {
        struct question *question = (struct question *)(void *)ops;
        ops = ops->next;
        flight->questions[flight->count++] = question;
    }
    return ops;
}

static enum status flight_start(struct flight *flight)
{
    struct yolk_store *store = flight->threads->store;
    const struct yolk_store_call call = { .on_item = on_item, .ctx = flight };
    struct yolk_store_key keys[FLIGHT_ITEMS_MAX];
    struct yolk_store_buffer buffers[FLIGHT_ITEMS_MAX];
    struct yolk_store_value values[FLIGHT_ITEMS_MAX];

    for (uint32_t i = 0; i < flight->count; i++) {
        const struct question *question = flight->questions[i];
        switch (flight->kind) {
        case KIND_GET: buffers[i] = question->buffer; break;
        case KIND_PUT: values[i] = question->value; break;
        case KIND_EXIST:
        case KIND_REMOVE:
        case KIND_CALL:
        case KINDS: keys[i] = question->value.key; break;
        }
    }
    flight->left = flight->count;
    switch (flight->kind) {
    case KIND_EXIST: return yolk_store_exist(store, keys, flight->count, &call);
    case KIND_GET: return yolk_store_get(store, buffers, flight->count, &call);
    case KIND_PUT: return yolk_store_put(store, values, flight->count, &call);
    case KIND_REMOVE: return yolk_store_remove(store, keys, flight->count, &call);
    case KIND_CALL:
    case KINDS: break;
    }
    return STATUS_INVALID;
}

/* ---- whole calls ---- */

struct whole {
    struct gather_op op; /* first */
    struct yolk_store_threads *threads;
    struct yolk_store_call call;
    yolk_store_threads_fn begin;
    void *ctx;
    struct yolk_store_answer *answers;
    uint32_t left;
    enum status status; /* of its beginning */
};

static void on_whole_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct whole *whole = ctx;

    whole->answers[index] = (struct yolk_store_answer){ status, size };
    if (--whole->left == 0) gather_answer(whole->threads->gather, &whole->op);
}

static void wholes_start(struct yolk_store_threads *threads, struct gather_op *ops)
{
    while (ops != NULL) {
        struct whole *whole = (struct whole *)(void *)ops;
        ops = ops->next; /* it is gone with its answer */
        const enum status status = whole->begin(whole->ctx, threads->store, &whole->call);
        if (status == STATUS_OK) continue;
        whole->status = status;
        gather_answer(threads->gather, &whole->op);
    }
}

static struct gather_op *on_go(void *ctx, uint32_t kind, struct gather_op *ops)
{
    struct yolk_store_threads *threads = ctx;
    if (kind == KIND_CALL) {
        wholes_start(threads, ops);
        gather_landed(threads->gather, kind);
        return NULL;
    }
    struct flight *flight = malloc(sizeof(*flight));
    struct gather_op *rest = ops->next;

    if (flight == NULL) {
        answer(threads, (struct question *)(void *)ops, STATUS_FULL, 0);
        gather_landed(threads->gather, kind);
        return rest;
    }
    flight->threads = threads;
    flight->kind = (enum kind)kind;
    flight->count = 0;
    flight->landed = false;
    rest = flight_board(flight, ops);
    const enum status status = flight_start(flight);
    if (status == STATUS_OK) return rest;
    flight_land(flight);
    for (uint32_t i = 0; i < flight->count; i++)
        answer(threads, flight->questions[i], status, 0);
    free(flight);
    return rest;
}

/* ---- life ---- */

enum status yolk_store_threads_create(struct env *env, struct yolk_store *store,
                                      struct yolk_store_threads **out)
{
    struct yolk_store_threads *threads = calloc(1, sizeof(*threads));
    if (threads == NULL) return STATUS_NO_MEMORY;
    const struct gather_options options = {
        .env = env,
        .kinds = KINDS,
        .flights = { [KIND_EXIST] = 1,
                     [KIND_GET] = 2,
                     [KIND_PUT] = 2,
                     [KIND_REMOVE] = 1,
                     [KIND_CALL] = 1 },
        .on_go = on_go,
        .ctx = threads,
    };
    const enum status status = gather_create(&options, &threads->gather);
    if (status != STATUS_OK) {
        free(threads);
        return status;
    }
    threads->store = store;
    *out = threads;
    return STATUS_OK;
}

void yolk_store_threads_destroy(struct yolk_store_threads *threads)
{
    if (threads == NULL) return;
    gather_destroy(threads->gather);
    free(threads);
}

/* ---- from threads ---- */

static enum status ask(struct yolk_store_threads *threads, struct question *question)
{
    const enum status status = gather_ask(threads->gather, &question->op);
    return status == STATUS_OK ? question->status : status;
}

enum status yolk_store_threads_exist(struct yolk_store_threads *threads,
                                     const struct yolk_store_key *key)
{
    struct question question = { .op.kind = KIND_EXIST, .value.key = *key };
    return ask(threads, &question);
}

enum status yolk_store_threads_remove(struct yolk_store_threads *threads,
                                      const struct yolk_store_key *key)
{
    struct question question = { .op.kind = KIND_REMOVE, .value.key = *key };
    return ask(threads, &question);
}

enum status yolk_store_threads_put(struct yolk_store_threads *threads,
                                   const struct yolk_store_value *value)
{
    struct question question = { .op.kind = KIND_PUT, .value = *value };
    return ask(threads, &question);
}

enum status yolk_store_threads_get(struct yolk_store_threads *threads,
                                   const struct yolk_store_buffer *buffer, uint64_t *size)
{
    struct question question = { .op.kind = KIND_GET, .value.key = buffer->key, .buffer = *buffer };
    const enum status status = ask(threads, &question);
    *size = question.size;
    return status;
}

enum status yolk_store_threads_call(struct yolk_store_threads *threads, uint32_t count,
                                    const struct yolk_store_call *wishes,
                                    yolk_store_threads_fn begin, void *ctx,
                                    struct yolk_store_answer *answers)
{
    struct whole whole = { .op.kind = KIND_CALL,
                           .threads = threads,
                           .begin = begin,
                           .ctx = ctx,
                           .answers = answers,
                           .left = count,
                           .status = STATUS_OK };

    if (count == 0 || count > YOLK_STORE_BATCH_MAX) return STATUS_INVALID;
    if (wishes != NULL) whole.call = *wishes;
    whole.call.on_item = on_whole_item;
    whole.call.ctx = &whole;
    const enum status status = gather_ask(threads->gather, &whole.op);
    return status == STATUS_OK ? whole.status : status;
}
