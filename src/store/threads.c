/* SPDX-License-Identifier: Apache-2.0
 *
 * store/threads.c - questions of threads, gathered into calls of the client.
 *
 * A pile (store/gather.h) is sorted by kind, and each kind becomes one call. At most FLIGHTS_MAX
 * calls of a kind are under way: what comes meanwhile waits and goes together, so that the busier
 * the threads are, the fewer packets each question costs. Two calls so that the loop and the master
 * work at the same time.
 *
 * Two puts of one key do not fit one call: the second waits for the next. */
#include "yolk/store_threads.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "store/gather.h"
#include "store/proto.h"

enum { FLIGHTS_MAX = 2, FLIGHT_ITEMS_MAX = 1024 };

enum kind { KIND_EXIST, KIND_GET, KIND_PUT, KIND_REMOVE, KINDS };

struct question {
    struct gather_op op; /* first */
    enum kind kind;
    struct yolk_store_value value; /* of a put; of the others the key */
    struct yolk_store_buffer buffer;
    enum status status;
    uint64_t size;
};

struct flight {
    struct lane *lane;
    uint32_t count;
    uint32_t left;
    struct question *questions[FLIGHT_ITEMS_MAX];
};

struct lane {
    struct yolk_store_threads *threads;
    enum kind kind;
    struct gather_op *head; /* waits for a flight, in the order of its coming */
    struct gather_op *tail;
    uint32_t flights;
};

struct yolk_store_threads {
    struct yolk_store *store;
    struct gather *gather;
    struct lane lanes[KINDS];
};

static void answer(struct question *question, enum status status, uint64_t size)
{
    question->status = status;
    question->size = size;
    gather_answer(&question->op);
}

/* ---- flights ---- */

static void lane_fly(struct lane *lane);

static void on_item(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct flight *flight = ctx;
    struct lane *lane = flight->lane;

    answer(flight->questions[index], status, size);
    if (--flight->left > 0) return;
    free(flight);
    lane->flights--;
    lane_fly(lane);
}

static bool same_key(const struct question *a, const struct question *b)
{
    const struct yolk_store_key *one = &a->value.key;
    const struct yolk_store_key *other = &b->value.key;
    return one->len == other->len && memcmp(one->bytes, other->bytes, one->len) == 0;
}

static bool has_key(const struct flight *flight, const struct question *question)
{
    for (uint32_t i = 0; i < flight->count; i++) {
        if (same_key(flight->questions[i], question)) return true;
    }
    return false;
}

/* As many as fit, in order. */
static void flight_board(struct flight *flight)
{
    struct lane *lane = flight->lane;
    while (lane->head != NULL && flight->count < FLIGHT_ITEMS_MAX) {
        struct question *question = (struct question *)(void *)lane->head;
        if (lane->kind == KIND_PUT && has_key(flight, question)) return;
        lane->head = question->op.next;
        flight->questions[flight->count++] = question;
    }
}

static enum status flight_start(struct flight *flight)
{
    struct yolk_store *store = flight->lane->threads->store;
    const struct yolk_store_call call = { .on_item = on_item, .ctx = flight };
    struct yolk_store_key keys[FLIGHT_ITEMS_MAX];
    struct yolk_store_buffer buffers[FLIGHT_ITEMS_MAX];
    struct yolk_store_value values[FLIGHT_ITEMS_MAX];

    for (uint32_t i = 0; i < flight->count; i++) {
        const struct question *question = flight->questions[i];
        switch (flight->lane->kind) {
        case KIND_GET: buffers[i] = question->buffer; break;
        case KIND_PUT: values[i] = question->value; break;
        case KIND_EXIST:
        case KIND_REMOVE:
        case KINDS: keys[i] = question->value.key; break;
        }
    }
    flight->left = flight->count;
    switch (flight->lane->kind) {
    case KIND_EXIST: return yolk_store_exist(store, keys, flight->count, &call);
    case KIND_GET: return yolk_store_get(store, buffers, flight->count, &call);
    case KIND_PUT: return yolk_store_put(store, values, flight->count, &call);
    case KIND_REMOVE: return yolk_store_remove(store, keys, flight->count, &call);
    case KINDS: break;
    }
    return STATUS_INVALID;
}

/* Sends what waits, as far as it may. */
static void lane_fly(struct lane *lane)
{
    while (lane->head != NULL && lane->flights < FLIGHTS_MAX) {
        struct flight *flight = malloc(sizeof(*flight));
        if (flight == NULL) {
            struct question *question = (struct question *)(void *)lane->head;
            lane->head = question->op.next;
            answer(question, STATUS_FULL, 0);
            continue;
        }
        flight->lane = lane;
        flight->count = 0;
        flight_board(flight);
        const enum status status = flight_start(flight);
        if (status == STATUS_OK) {
            lane->flights++;
            continue;
        }
        for (uint32_t i = 0; i < flight->count; i++)
            answer(flight->questions[i], status, 0);
        free(flight);
    }
}

/* ---- piles ---- */

static void lane_queue(struct lane *lane, struct gather_op *op)
{
    op->next = NULL;
    if (lane->head == NULL) {
        lane->head = op;
    } else {
        lane->tail->next = op;
    }
    lane->tail = op;
}

static void on_pile(void *ctx, struct gather_op *pile)
{
    struct yolk_store_threads *threads = ctx;
    struct gather_op *next;

    for (struct gather_op *op = pile; op != NULL; op = next) {
        next = op->next;
        lane_queue(&threads->lanes[((struct question *)(void *)op)->kind], op);
    }
    for (int kind = 0; kind < KINDS; kind++)
        lane_fly(&threads->lanes[kind]);
}

enum status yolk_store_threads_create(struct env *env, struct yolk_store *store,
                                      struct yolk_store_threads **out)
{
    struct yolk_store_threads *threads = calloc(1, sizeof(*threads));
    if (threads == NULL) return STATUS_NO_MEMORY;
    threads->store = store;
    for (int kind = 0; kind < KINDS; kind++) {
        threads->lanes[kind].threads = threads;
        threads->lanes[kind].kind = (enum kind)kind;
    }
    const enum status status = gather_create(env, on_pile, threads, &threads->gather);
    if (status != STATUS_OK) {
        free(threads);
        return status;
    }
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

/* An item that the client would refuse spoils the call for nobody else. */
static bool key_valid(const struct yolk_store_key *key)
{
    return key->bytes != NULL && key->len > 0 && key->len <= YOLK_STORE_KEY_SIZE_MAX;
}

static enum status ask(struct yolk_store_threads *threads, struct question *question)
{
    if (!key_valid(&question->value.key)) return STATUS_INVALID;
    const enum status status = gather_ask(threads->gather, &question->op);
    return status == STATUS_OK ? question->status : status;
}

enum status yolk_store_threads_exist(struct yolk_store_threads *threads,
                                     const struct yolk_store_key *key)
{
    struct question question = { .kind = KIND_EXIST, .value.key = *key };
    return ask(threads, &question);
}

enum status yolk_store_threads_remove(struct yolk_store_threads *threads,
                                      const struct yolk_store_key *key)
{
    struct question question = { .kind = KIND_REMOVE, .value.key = *key };
    return ask(threads, &question);
}

enum status yolk_store_threads_put(struct yolk_store_threads *threads,
                                   const struct yolk_store_value *value)
{
    struct question question = { .kind = KIND_PUT, .value = *value };
    if (value->size == 0 || value->size > STORE_OBJECT_SIZE_MAX) return STATUS_INVALID;
    return ask(threads, &question);
}

enum status yolk_store_threads_get(struct yolk_store_threads *threads,
                                   const struct yolk_store_buffer *buffer, uint64_t *size)
{
    struct question question = { .kind = KIND_GET, .value.key = buffer->key, .buffer = *buffer };
    if (buffer->range && buffer->size == 0) return STATUS_INVALID;
    const enum status status = ask(threads, &question);
    *size = question.size;
    return status;
}
