/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_get.c - get: from the replicas to the value (client.c has the states).
 *
 * What has been read lately is remembered (store/known.h). Then the master is not asked, the bytes
 * are read at once, from where they were, and the owner is asked at the same time whether they are
 * still what is there:
 *
 *                 owner: the same, vouched                 bytes have the checksums
 *   KNOWN: ASKED ------------------------> SAME      NONE -> MOVING ------------> GOOD
 *             |  anything else                                |  or not
 *             +------------------------> OTHER                +-----------------> BAD
 *
 * SAME and GOOD, in whatever order they come, are the value; small values come with the owner's
 * word. Anything else is forgotten, and the master asked. Nothing is pinned for that: if the owner
 * drops the value meanwhile, the checksums say so (I2 of client.c).
 *
 * On the owner's host the owner's board may say that all is as it was (store/board.h): then the
 * word is SAME from the start, nobody is asked, and the bytes are read at once.
 *
 * Of other values the owner is guessed, and asked while the master is (store/client_guess.h). If
 * both say the same, the item goes on as if it had been PINNING, with nothing pinned; what then
 * fails is tried again with a pin. */
#include "store/client_call.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "net/rpc.h"
#include "store/board.h"
#include "store/client_int.h"
#include "store/known.h"
#include "store/peers.h"
#include "store/reading.h"

enum { EXPECT_AHEAD = 4 }; /* items */

static void get_next(struct item *item);
static bool get_guess(struct item *item);
static void get_ask(struct item *item);
static void known_moved(struct item *item, bool good);

/* This replica did not serve. The worst reason of all is kept: wrong bytes, then absence. Bytes may
 * have been damaged on their way only, so the first wrong ones are read once more; then their owner
 * is to look at them itself. */
static void get_failed(struct item *item, enum status why)
{
    struct yolk_store *store = item->call->store;

    client_pin_end(item);
    if (item->segment_open) yolk_transfer_close(store->transfer, item->segment);
    item->segment_open = false;
    free(item->sums);
    item->sums = NULL;
    if (item->guessed) { /* nothing was pinned: the bytes may be another value's by now */
        item->guessed = false;
        get_next(item);
        return;
    }
    if (why == STATUS_CORRUPT && !item->reread) {
        item->reread = true;
        get_next(item);
        return;
    }
    if (why == STATUS_CORRUPT) client_pin_doubt(store->env, item->owner, &item->ask.id);
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
        if (client_item_sum(item, item->length, (uint32_t)i) != item->sums[i]) return false;
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

    client_bounce_free(item);
    if (item->span_len == get_end(item) - item->offset) return client_item_move(item);
    const enum status status = yolk_transfer_alloc(item->call->store->transfer, item->span_len,
                                                   YOLK_TRANSFER_REMOTE_WRITE, &memory, NULL);
    if (status != STATUS_OK) return status;
    item->bounce = memory;
    return client_item_move(item);
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

/* Whoever vouches may be asked again without the master. */
static void get_learn(const struct item *item)
{
    struct yolk_store *store = item->call->store;
    const struct client_place *place = &item->places[item->places_next];
    const struct known_value value = { .id = item->ask.id,
                                       .node = place->node,
                                       .address = place->address,
                                       .size = item->length,
                                       .piece_size = item->piece_size,
                                       .sums_count = item->sums_count,
                                       .until_ns = item->told_ns + STORE_KNOWN_MS * ENV_NS_PER_MS,
                                       .stamped = item->stamped,
                                       .stamp = item->stamp };
    if (item->vouched) known_put(store->known, &value, item->sums);
}

static void get_done(struct item *item)
{
    struct guesses *guesses = &item->call->store->guesses;

    get_learn(item);
    guesses_saw(guesses, &item->places[item->places_next].node, item->vouched);
    guesses->right += item->guessed;
    client_item_done(item, STATUS_OK, item->length);
}

static void get_wrong(struct item *item)
{
    if (!item->guessed)
        LOG_WARN("store", "value_wrong", "owner=%s", rpc_client_address(item->owner));
    get_failed(item, STATUS_CORRUPT);
}

static void on_read(void *ctx, enum status status)
{
    struct item *item = ctx;
    struct call *call = item->call;
    ASSERT(item->state == ITEM_MOVING || item->state == ITEM_KNOWN);

    free(item->reading);
    item->reading = NULL;
    if (item->state == ITEM_KNOWN) {
        known_moved(item, status == STATUS_OK);
    } else if (status == STATUS_OK) {
        get_done(item);
    } else if (status == STATUS_CORRUPT) {
        get_wrong(item);
    } else {
        get_failed(item, status);
    }
    client_call_settle(call);
}

/* Reads where the bytes are. STATUS_OK: on_read() will tell; else they cannot be seen from here. */
static enum status get_read(struct item *item)
{
    const struct client_place *place = &item->places[item->places_next];
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
    return STATUS_OK;
}

/* Here if the bytes can be seen, else by a transfer. */
static enum status get_move(struct item *item)
{
    return get_read(item) == STATUS_OK ? STATUS_OK : get_transfer(item);
}

/* ---- what is remembered ---- */

static void known_step(struct item *item)
{
    struct call *call = item->call;
    ASSERT(item->state == ITEM_KNOWN);

    if (item->word == WORD_SAME && item->bytes == BYTES_NONE) { /* it was meant to come inline */
        item->bytes = BYTES_MOVING;
        if (get_move(item) != STATUS_OK) item->bytes = BYTES_BAD;
    }
    if (item->word == WORD_ASKED || item->bytes == BYTES_MOVING) return;
    if (item->word == WORD_SAME && item->bytes == BYTES_GOOD) {
        call->store->known_gets++;
        known_read(call->store->known, &item->ask.id);
        client_item_done(item, STATUS_OK, item->length);
        return;
    }
    item->reads = known_reads_take(call->store->known, &item->ask.id);
    known_forget(call->store->known, &item->ask.id);
    client_item_again(item, STATUS_UNAVAILABLE);
    if (item->state == ITEM_WAITING && !call->asking) client_call_ask_in(call, 0);
}

static void known_moved(struct item *item, bool good)
{
    ASSERT(item->bytes == BYTES_MOVING);
    item->bytes = good ? BYTES_GOOD : BYTES_BAD;
    known_step(item);
}

static bool known_same(const struct item *item, const struct pin_answer *answer)
{
    if (answer->status != STATUS_OK || !answer->vouched) return false;
    if (answer->address != item->places[0].address || answer->size != item->length) return false;
    if (answer->piece_size != item->piece_size) return false;
    if (answer->sums.count != item->sums_count) return false;
    for (uint32_t i = 0; i < item->sums_count; i++) {
        if (msg_u64_at(answer->sums, i) != item->sums[i]) return false;
    }
    return true;
}

static void known_answered(struct item *item, const struct pin_answer *answer)
{
    ASSERT(item->word == WORD_ASKED && answer->pin == NULL);
    item->word = known_same(item, answer) ? WORD_SAME : WORD_OTHER;
    if (item->word == WORD_SAME && item->bytes == BYTES_NONE && answer->bytes != NULL) {
        item->bytes = get_inline(item, answer) == STATUS_OK ? BYTES_GOOD : BYTES_BAD;
    }
    known_step(item);
}

/* False: it does not fit what is asked for, or there is no memory. */
static bool known_take(struct item *item, const struct known_value *value, const uint64_t *sums)
{
    const size_t size = value->sums_count * sizeof(*sums);

    item->length = value->size;
    if (!item->range && item->length > item->size) return false;
    if (item->offset >= item->length) return false;
    item->places = malloc(sizeof(*item->places));
    item->sums = malloc(size);
    if (item->places == NULL || item->sums == NULL) return false;
    item->places[0] = (struct client_place){ .node = value->node, .address = value->address };
    item->places_count = 1;
    item->piece_size = value->piece_size;
    item->sums_count = value->sums_count;
    memcpy(item->sums, sums, size);
    get_span(item);
    return store_peers_get(item->call->store->peers, value->node.rpc_address, &item->owner) ==
           STATUS_OK;
}

/* The owner's board says that all is as it was, and its memory is read. */
static bool known_posted(struct item *item, const struct known_value *value)
{
    if (!value->stamped) return false;
    if (!boards_same(item->call->store->boards, value->node.epoch, &value->id, value->stamp))
        return false;
    return get_read(item) == STATUS_OK;
}

static void get_start(struct item *item)
{
    struct yolk_store *store = item->call->store;
    const uint64_t *sums;

    const struct known_value *value =
        known_find(store->known, &item->ask.id, env_now_ns(store->env), &sums);
    if (value == NULL) {
        item->reads = known_reads_take(store->known, &item->ask.id);
        client_guess_start(item);
        return;
    }
    if (!known_take(item, value, sums)) {
        client_item_reset(item);
        client_guess_start(item);
        return;
    }
    item->state = ITEM_KNOWN;
    item->word = WORD_ASKED;
    item->bytes = BYTES_NONE;
    item->ask.look = true;
    if (known_posted(item, value)) {
        item->word = WORD_SAME;
        item->bytes = BYTES_MOVING;
        store->board_gets++;
        return;
    }
    get_ask(item);
}

/* What is known of a value has mostly left the caches since it was read. So each look is announced
 * some items ahead, and the memory of many comes at one time. */
bool client_gets_start(struct call *call)
{
    const struct yolk_store *store = call->store;
    bool waiting = false;

    for (uint32_t i = 0; i < call->count; i++) {
        struct item *item = &call->items[i];
        item->ask.id = store_key_id(item->key);
        known_expect(store->known, &item->ask.id);
        boards_expect(store->boards, &item->ask.id);
    }
    for (uint32_t i = 0; i < call->count && i < EXPECT_AHEAD; i++)
        known_expect_value(store->known, &call->items[i].ask.id);
    for (uint32_t i = 0; i < call->count; i++) {
        if (i + EXPECT_AHEAD < call->count) {
            known_expect_value(store->known, &call->items[i + EXPECT_AHEAD].ask.id);
        }
        if (call->items[i].state != ITEM_REFUSED) get_start(&call->items[i]);
        waiting = waiting || call->items[i].state == ITEM_WAITING;
    }
    return waiting;
}

void client_get_early(struct item *item)
{
    if (item->state != ITEM_KNOWN || item->bytes == BYTES_MOVING) return;
    if (item->length <= item->call->store->inline_max) return;
    item->bytes = BYTES_MOVING;
    if (get_move(item) != STATUS_OK) item->bytes = BYTES_BAD;
}

/* ---- guesses ---- */

bool client_get_keep(struct item *item, const struct pin_answer *answer)
{
    const bool asked = item->state == ITEM_WAITING || item->state == ITEM_ASKING;
    ASSERT(asked || item->state == ITEM_PINNING);

    if (answer->bytes == NULL || (!asked && answer->size != item->length)) return false;
    if (item->offset >= answer->size || (!item->range && answer->size > item->size)) return false;
    item->length = answer->size; /* or what the master says */
    return get_inline(item, answer) == STATUS_OK;
}

/* Which of the places the guess is about; they are of the item's first replicas. */
static bool guess_place(struct item *item)
{
    for (uint32_t i = 0; i < item->places_count; i++) {
        if (item->places[i].node.epoch != item->guess->epoch) continue;
        const struct client_place place = item->places[i];
        item->places[i] = item->places[0];
        item->places[0] = place;
        return true;
    }
    return false;
}

/* The owner's word and the master's, which has just said or is known to have said the place. */
static bool guess_fits(const struct item *item)
{
    const struct guess *guess = item->guess;
    return guess->good && guess->address == item->places[0].address && guess->size == item->length;
}

/* As get_take(), of what was said before. */
static void guess_use(struct item *item)
{
    struct guess *guess = item->guess;
    const bool inlined = guess->inlined;

    item->owner = guess->ask.owner;
    item->piece_size = guess->piece_size;
    item->sums_count = guess->sums_count;
    item->sums = guess->sums;
    guess->sums = NULL;
    item->vouched = true;
    item->guessed = true;
    get_span(item);
    client_guess_forget(item);
    if (inlined) {
        get_done(item);
        return;
    }
    item->state = ITEM_MOVING;
    const enum status status = get_move(item);
    if (status != STATUS_OK) get_failed(item, status);
}

/* Of a larger value: to read it there costs more than the guess has won. There is a replica on this
 * host, or one that is not so busy. */
static bool guess_unwanted(const struct item *item)
{
    if (item->places_count < 2 || item->length <= item->call->store->inline_max) return false;
    for (uint32_t i = 0; i < item->places_count; i++) {
        const struct client_place *place = &item->places[i];
        if (place->node.epoch == item->guess->epoch) return place->yields || (item->near && i > 0);
    }
    return false;
}

/* The master has said where the value is. False: the guess does not help. */
static bool get_guess(struct item *item)
{
    if (item->guess == NULL) return false;
    const bool named = !guess_unwanted(item) && guess_place(item);
    if (named && item->guess->open) { /* its answer is the one to wait for */
        item->state = ITEM_PINNING;
        return true;
    }
    if (named && guess_fits(item)) {
        guess_use(item);
        return true;
    }
    guesses_wrong(&item->call->store->guesses);
    client_guess_forget(item);
    return false;
}

void client_get_guessed(struct item *item)
{
    if (item->state != ITEM_PINNING) return; /* the master has not spoken yet */
    if (!get_guess(item)) get_next(item);
}

/* ---- answers of owners ---- */

static void get_answered(struct item *item, const struct pin_answer *answer)
{
    enum status status = answer->status;

    item->pin = answer->pin;
    item->vouched = answer->vouched;
    if (status == STATUS_AGAIN && !item->ask.alone) {
        item->ask.alone = true;
        get_ask(item);
        return;
    }
    /* Replaced: the master knows by now. */
    if (status == STATUS_OK && answer->size != item->length) status = STATUS_STALE;
    if (status == STATUS_OK) status = get_take(item, answer);
    if (status == STATUS_OK && answer->bytes != NULL) {
        if (get_inline(item, answer) == STATUS_OK) {
            get_done(item);
        } else {
            get_wrong(item);
        }
        return;
    }
    if (status == STATUS_OK) {
        item->state = ITEM_MOVING;
        status = get_move(item);
    }
    if (status != STATUS_OK) get_failed(item, status);
}

void client_get_heard(struct call *call, const struct pin_answer *answer)
{
    if (answer->board == NULL || answer->more) return;
    boards_heard(call->store->boards, answer->epoch, answer->board);
}

static void on_pinned(void *ctx, const struct pin_answer *answer)
{
    struct item *item = ctx;
    struct call *call = item->call;

    client_call_out(call);
    client_get_heard(call, answer);
    if (call->store->closing) return;
    if (item->state == ITEM_KNOWN) {
        known_answered(item, answer);
    } else {
        get_answered(item, answer);
    }
    if (!answer->more) client_call_move(call);
    client_call_settle(call);
}

/* Its owner is asked with the next exchange. */
static void get_ask(struct item *item)
{
    struct call *call = item->call;
    struct env *env = call->store->env;

    item->ask.owner = item->owner;
    item->ask.size = item->length;
    item->ask.on_answer = on_pinned;
    item->ask.ctx = item;
    pin_asks_add(&call->asks, &item->ask);
    if (!env_timer_armed(&call->pins)) env_timer_set(env, &call->pins, env_now_ns(env));
}

void client_call_pin(struct call *call)
{
    const struct pin_terms terms = { .deadline_ns = client_try_until(call, CLIENT_OWNER_TRY_MS),
                                     .inline_max = call->store->inline_max };
    uint32_t count;
    enum status why;

    env_timer_cancel(call->store->env, &call->pins);
    call->inner++; /* the call stays while we look at it */
    while (call->asks.first != NULL) {
        struct pin_ask *ask = pin_asks_send(&call->asks, call->store->env, &terms, &count, &why);
        call->inner += count; /* they are answered, here or later */
        for (struct pin_ask *next; ask != NULL; ask = next) {
            const struct pin_answer failed = { .status = why, .more = true };
            next = ask->next;
            ask->on_answer(ask->ctx, &failed);
        }
    }
    client_call_out(call);
}

void client_get_on_pins(void *ctx)
{
    struct call *call = ctx;
    client_call_pin(call);
    client_call_settle(call);
}

static void get_next(struct item *item)
{
    while (item->places_next < item->places_count) {
        const struct client_place *place = &item->places[item->places_next];
        const enum status status =
            store_peers_get(item->call->store->peers, place->node.rpc_address, &item->owner);
        if (status == STATUS_OK) {
            item->state = ITEM_PINNING;
            item->stamped = boards_look(item->call->store->boards, place->node.epoch, &item->ask.id,
                                        &item->stamp);
            item->ask.alone = false;
            item->ask.look = false;
            get_ask(item);
            return;
        }
        if (item->last != STATUS_CORRUPT) item->last = status;
        item->places_next++;
    }
    if (item->last == STATUS_CORRUPT) {
        client_item_done(item, STATUS_CORRUPT, item->length);
    } else {
        /* The directory may be behind the owners: ask it again, until it is too late. */
        const bool absent = item->last == STATUS_NOT_FOUND;
        client_item_again(item, absent ? STATUS_NOT_FOUND : STATUS_UNAVAILABLE);
    }
}

/* Of replicas that are as fast to serve, one on this host is read first, unless the master would
 * have even those of its host read elsewhere. */
static void places_prefer(struct item *item)
{
    const struct here *here = &item->call->store->here;
    struct client_place *places = item->places;

    item->near = false;
    for (uint32_t r = 0; r < item->places_count && item->places_count > 1; r++) {
        if (places[r].disk != places[0].disk || places[r].yields) continue;
        if (!here_is(here, places[r].node.rpc_address)) continue;
        const struct client_place near = places[r];
        places[r] = places[0];
        places[0] = near;
        item->near = true;
        return;
    }
}

void client_get_places(struct item *item, const struct store_places *reply, uint32_t i,
                       uint32_t first)
{
    const uint32_t count = msg_u32_at(reply->counts, i);

    item->told_ns = item->call->asked_ns;
    item->reads = 0;
    item->length = msg_u64_at(reply->sizes, i);
    const bool whole = item->call->kind == CALL_GET && !item->range;
    if (whole && item->length > item->size) {
        client_item_done(item, STATUS_FULL, item->length);
        return;
    }
    if (item->offset >= item->length) {
        client_item_done(item, STATUS_INVALID, item->length);
        return;
    }
    item->places = count == 0 ? NULL : malloc(count * sizeof(*item->places));
    if (item->places == NULL) {
        client_item_again(item, STATUS_UNAVAILABLE);
        return;
    }
    for (uint32_t r = 0; r < count; r++) {
        item->places[r].node = item->call->store->nodes[msg_u32_at(reply->nodes, first + r)];
        item->places[r].address = msg_u64_at(reply->addresses, first + r);
        item->places[r].disk = store_place_on_disk(reply, first + r);
        item->places[r].yields = store_place_yields(reply, first + r);
    }
    item->places_count = count;
    item->places_next = 0;
    places_prefer(item);
    item->last = STATUS_UNAVAILABLE;
    if (item->call->kind == CALL_PLACES) {
        client_item_found(item, item->length);
        return;
    }
    if (!get_guess(item)) get_next(item);
}

void client_get_moved(struct item *item)
{
    const bool good = get_verified(item);

    if (good) get_deliver(item);
    if (item->state == ITEM_KNOWN) {
        known_moved(item, good);
    } else if (good) {
        get_done(item);
    } else {
        get_wrong(item);
    }
}

void client_get_unmoved(struct item *item)
{
    if (item->state == ITEM_KNOWN) {
        known_moved(item, false);
    } else {
        get_failed(item, STATUS_UNAVAILABLE);
    }
}
