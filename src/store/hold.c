/* SPDX-License-Identifier: Apache-2.0
 *
 * store/hold.c - the get side of a client's sessions: a hold is a value that was found once and is
 * pinned at one of its owners.
 *
 *               places           pinned                    no replica is left
 *     FINDING ---------> PINNING -------> HELD     +------------------------> LOST
 *        ^                  ^  |           |       |                           |
 *        |                  |  +-----------+-------+                           |
 *        |                  |     lapsed, or a read failed: the next replica   |
 *        +------------------+--------------------------------------------------+
 *          a start, if nothing was ever read of it, or if it was lost
 *
 * What is read from is a source: one pin of one replica, kept by the hold and by every item that
 * reads from it. An item whose source fails waits for the next one, and reads there what it has not
 * read yet. Wrong bytes may have been damaged on their way only: the first ones that an item gets
 * are read once more from the same source; then its owner is to look at them itself.
 *
 *   I1  The checksums that came with the first pin say what the value is, until the last end. A
 *       replica with others is another value's, and is not read.
 *   I2  A part is copied to where it is wanted only if every piece it touches had its checksum.
 *   I3  `tries` pins were asked for since something was read last; at most one a replica.
 *   I4  A hold that nobody started, waits for or reads is freed. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "net/rpc.h"
#include "store/client_int.h"
#include "store/session.h"
#include "store/peers.h"
#include "store/reading.h"

enum { FIND_RETRY_MS = 100 };

enum hold_state { HOLD_FINDING, HOLD_PINNING, HOLD_HELD, HOLD_LOST };

struct source {
    uint32_t refs;
    struct client_pin *pin;
    struct rpc_client *owner;
    struct client_place place;
};

struct hold {
    struct hold *prev;
    struct hold *next;
    struct sessions *sessions;
    enum hold_state state;
    struct block_key id;
    struct store_key key; /* behind the hold */
    size_t own_len;
    bool named; /* in the map */
    uint32_t starts;
    uint32_t users;               /* questions under way, and items that read */
    struct session_item *waiting; /* those of starts, and of reads */
    struct client_place *places;
    uint32_t places_count;
    uint32_t places_next;
    uint32_t tries;
    uint64_t size;
    uint32_t piece_size;
    uint32_t sums_count;
    uint64_t *sums;        /* NULL: it has never been HELD */
    struct source *source; /* while HELD */
    struct pin_ask ask;
    enum status why;        /* the worst so far, since something was read last */
    struct env_timer timer; /* FINDING: the next question; else: it is idle */
    uint64_t used_ns;
};

/* Holds looked for together. */
struct finding {
    uint32_t left;
    struct hold *holds[];
};

/* One part of an item. */
struct read_part {
    struct session_item *item;
    const struct yolk_store_part *part;
    bool done;
    bool far;         /* in this pass: cannot be seen from here */
    uint64_t span_at; /* whole pieces */
    uint64_t span_len;
    uint8_t *to; /* the span, if far */
    struct reading reading;
};

/* ---- life ---- */

static void source_unref(struct sessions *sessions, struct source *source)
{
    if (source == NULL || --source->refs > 0) return;
    if (sessions->store->closing) {
        client_pin_drop(source->pin);
    } else {
        client_pin_unref(source->pin);
    }
    free(source);
}

static void on_hold_timer(void *ctx);

static struct hold *hold_new(const struct session_item *item)
{
    struct sessions *sessions = item->call->sessions;
    struct hold *hold = malloc(sizeof(*hold) + item->key.len);
    if (hold == NULL) return NULL;

    memcpy(hold + 1, item->key.bytes, item->key.len);
    *hold = (struct hold){ .sessions = sessions,
                           .id = item->id,
                           .key = { (const uint8_t *)(hold + 1), item->key.len },
                           .own_len = item->own_len,
                           .named = true };
    if (map_insert(sessions->holds, &hold->id, (uint64_t)(uintptr_t)hold) != STATUS_OK) {
        free(hold);
        return NULL;
    }
    env_timer_init(&hold->timer, on_hold_timer, hold);
    LIST_PUSH(sessions->holds_first, hold);
    return hold;
}

static void hold_free(struct hold *hold)
{
    struct sessions *sessions = hold->sessions;

    LIST_REMOVE(sessions->holds_first, hold);
    env_timer_cancel(sessions->store->env, &hold->timer);
    source_unref(sessions, hold->source);
    free(hold->places);
    free(hold->sums);
    free(hold);
}

/* I4. Nothing of the hold is touched afterwards. */
static void hold_settle(struct hold *hold)
{
    if (hold->starts > 0 || hold->waiting != NULL) return;
    if (hold->named) {
        const bool known = map_remove(hold->sessions->holds, &hold->id, NULL);
        ASSERT(known);
        hold->named = false;
    }
    if (hold->users == 0) hold_free(hold);
}

static struct hold *hold_find(const struct session_item *item)
{
    struct hold *hold = session_lookup(item->call->sessions->holds, &item->id);
    if (hold == NULL || hold->key.len != item->key.len) return NULL;
    return memcmp(hold->key.bytes, item->key.bytes, item->key.len) == 0 ? hold : NULL;
}

/* ---- waiting ---- */

static void wait_add(struct hold *hold, struct session_item *item)
{
    ASSERT(!item->waiting);
    item->waiting = true;
    item->waiting_next = hold->waiting;
    hold->waiting = item;
}

static void wait_remove(struct hold *hold, struct session_item *item)
{
    struct session_item **at = &hold->waiting;
    while (*at != item) {
        ASSERT(*at != NULL);
        at = &(*at)->waiting_next;
    }
    *at = item->waiting_next;
    item->waiting = false;
}

static void reads_free(struct session_item *item)
{
    free(item->reads);
    item->reads = NULL;
}

/* An item of this hold ends. */
static void waiter_end(struct hold *hold, struct session_item *item, enum status status,
                       uint64_t size)
{
    ASSERT(item->hold == hold && !item->waiting);
    item->hold = NULL;
    if (item->call->op == SESSION_GET_READ) {
        reads_free(item);
        ASSERT(hold->users > 0);
        hold->users--;
    } else if (status == STATUS_OK) {
        hold->starts++;
    }
    hold_settle(hold);
    session_item_end(item, status, size);
}

static void read_begin(struct hold *hold, struct session_item *item);

/* What an item of a lost hold is told: that a value is absent is news to who begins, and to who has
 * read it that it is there no more. */
static enum status lost_status(const struct hold *hold, const struct session_item *item)
{
    const bool reads = item->call->op == SESSION_GET_READ;
    return reads && hold->why == STATUS_NOT_FOUND ? STATUS_STALE : hold->why;
}

/* All that wait go on, or end. */
static void hold_wake(struct hold *hold)
{
    ASSERT(hold->state == HOLD_HELD || hold->state == HOLD_LOST);
    hold->users++; /* it stays until this returns */
    while (hold->waiting != NULL && (hold->state == HOLD_HELD || hold->state == HOLD_LOST)) {
        struct session_item *item = hold->waiting;
        wait_remove(hold, item);
        if (hold->state == HOLD_LOST) {
            waiter_end(hold, item, lost_status(hold, item), 0);
        } else if (item->call->op == SESSION_GET_START) {
            waiter_end(hold, item, STATUS_OK, hold->size);
        } else {
            read_begin(hold, item);
        }
    }
    hold->users--;
    hold_settle(hold);
}

static void hold_lost(struct hold *hold, enum status why)
{
    ASSERT(hold->state != HOLD_LOST && why != STATUS_OK);
    env_timer_cancel(hold->sessions->store->env, &hold->timer);
    source_unref(hold->sessions, hold->source);
    hold->source = NULL;
    hold->state = HOLD_LOST;
    hold->why = why;
    hold_wake(hold);
}

/* ---- finding ---- */

static void hold_pin(struct hold *hold);

static void on_found(void *ctx, uint32_t index, const struct client_found *found)
{
    const struct finding *finding = ctx;
    struct hold *hold = finding->holds[index];
    ASSERT(hold->state == HOLD_FINDING);

    free(hold->places);
    hold->places = found->places;
    hold->places_count = found->places_count;
    hold->places_next = 0;
    hold->tries = 0;
    hold->why = STATUS_OK;
    if (hold->sums == NULL) hold->size = found->size;
}

static void on_find_end(void *ctx, uint32_t index, enum status status, uint64_t size)
{
    struct finding *finding = ctx;
    struct hold *hold = finding->holds[index];
    struct sessions *sessions = hold->sessions;

    if (--finding->left == 0) free(finding);
    if (sessions->store->closing) return;
    hold->users--;
    if (hold->waiting == NULL && hold->starts == 0) {
        hold_settle(hold);
    } else if (status != STATUS_OK) {
        hold_lost(hold, status);
    } else if (size != hold->size) { /* I1 */
        hold_lost(hold, STATUS_STALE);
    } else {
        hold_pin(hold);
    }
    session_flush(sessions);
}

static enum status finding_start(struct sessions *sessions, const struct yolk_store_value *keys,
                                 struct finding *finding, uint32_t count, uint32_t timeout_ms)
{
    const struct yolk_store_call options = { .timeout_ms = timeout_ms,
                                             .on_item = on_find_end,
                                             .ctx = finding };
    finding->left = count;
    for (uint32_t i = 0; i < count; i++) {
        struct hold *hold = finding->holds[i];
        hold->state = HOLD_FINDING;
        hold->users++;
    }
    const enum status status = client_find(sessions->store, keys, count, false, &options, on_found);
    for (uint32_t i = 0; status != STATUS_OK && i < count; i++)
        finding->holds[i]->users--;
    return status;
}

static struct yolk_store_value hold_value(const struct hold *hold)
{
    const size_t scope_len = hold->key.len - hold->own_len;
    return (struct yolk_store_value){ .key = { hold->key.bytes + scope_len, hold->own_len } };
}

/* The directory may be behind the owners: it is asked again, as long as somebody waits. */
static void hold_find_again(struct hold *hold)
{
    struct sessions *sessions = hold->sessions;
    const struct yolk_store_value value = hold_value(hold);
    struct finding *finding = malloc(sizeof(*finding) + sizeof(finding->holds[0]));
    const uint64_t now = env_now_ns(sessions->store->env);
    enum status status = STATUS_FULL;
    uint64_t deadline_ns = 0;

    for (const struct session_item *item = hold->waiting; item != NULL; item = item->waiting_next) {
        if (item->call->deadline_ns > deadline_ns) deadline_ns = item->call->deadline_ns;
    }
    if (deadline_ns <= now) status = STATUS_TIMEOUT;
    if (finding != NULL && deadline_ns > now) {
        const uint32_t ms = (uint32_t)((deadline_ns - now) / ENV_NS_PER_MS) + 1;
        finding->holds[0] = hold;
        status = finding_start(sessions, &value, finding, 1, ms);
    }
    if (status == STATUS_OK) return;
    free(finding);
    hold_lost(hold, status);
}

/* The item, which the map has no hold for, or one that is lost. False: it ends as `failed` says. */
static bool hold_look_for(struct session_item *item, struct hold *hold)
{
    if (hold == NULL && session_lookup(item->call->sessions->holds, &item->id) == NULL) {
        hold = hold_new(item);
    }
    if (hold == NULL) {
        item->failed = STATUS_FULL;
        return false;
    }
    item->hold = hold;
    wait_add(hold, item);
    return true;
}

/* Which of them are to be looked for, with the keys; the others wait, or know their end. */
static uint32_t holds_collect(struct session_call *call, struct finding *finding,
                              struct yolk_store_value *keys)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < call->count; i++) {
        struct session_item *item = &call->items[i];
        struct hold *hold = hold_find(item);
        if (item->failed != STATUS_PENDING) continue;
        if (hold != NULL && hold->state == HOLD_HELD) {
            item->hold = hold;
            item->failed = STATUS_OK;
            hold->users++; /* until hold_started() */
        } else if (hold != NULL && hold->state != HOLD_LOST) {
            item->hold = hold;
            wait_add(hold, item);
        } else if (hold_look_for(item, hold)) {
            item->hold->state = HOLD_FINDING; /* no other item of this call looks for it, too */
            keys[count] = hold_value(item->hold);
            finding->holds[count++] = item->hold;
        }
    }
    return count;
}

void hold_starts(struct session_call *call)
{
    struct finding *finding = malloc(sizeof(*finding) + call->count * sizeof(finding->holds[0]));
    struct yolk_store_value *keys = malloc(call->count * sizeof(*keys));
    enum status status = STATUS_FULL;

    if (finding == NULL || keys == NULL) {
        for (uint32_t i = 0; i < call->count; i++)
            call->items[i].failed = STATUS_FULL;
        goto out;
    }
    const uint32_t count = holds_collect(call, finding, keys);
    if (count == 0) goto out;
    status = finding_start(call->sessions, keys, finding, count, call->options.timeout_ms);
    for (uint32_t i = 0; status != STATUS_OK && i < count; i++) {
        struct hold *hold = finding->holds[i];
        while (hold->waiting != NULL) { /* all of this call: nobody is called back from here */
            struct session_item *item = hold->waiting;
            ASSERT(item->call == call);
            wait_remove(hold, item);
            item->hold = NULL;
            item->failed = status;
        }
        hold->state = HOLD_LOST;
        hold->why = status;
        hold_settle(hold);
    }
out:
    if (status != STATUS_OK) free(finding);
    free(keys);
}

void hold_started(struct session_item *item)
{
    struct hold *hold = item->hold;

    if (item->failed != STATUS_OK) {
        session_item_end(item, item->failed, 0);
        return;
    }
    hold->users--;
    if (hold->state == HOLD_LOST) { /* meanwhile */
        waiter_end(hold, item, hold->why, 0);
    } else {
        hold->used_ns = env_now_ns(hold->sessions->store->env);
        waiter_end(hold, item, STATUS_OK, hold->size);
    }
}

/* ---- pinning ---- */

/* What is told in the end is the worst: wrong bytes, then a lapse. */
static void hold_blame(struct hold *hold, enum status why)
{
    if (hold->why == STATUS_CORRUPT || (hold->why == STATUS_STALE && why != STATUS_CORRUPT)) return;
    hold->why = why;
}

static void on_pinned(void *ctx, const struct pin_answer *answer);

static void pin_ask(struct hold *hold, struct rpc_client *owner, bool alone)
{
    struct sessions *sessions = hold->sessions;
    struct env *env = sessions->store->env;

    hold->ask = (struct pin_ask){ .owner = owner,
                                  .id = hold->id,
                                  .size = hold->size,
                                  .alone = alone,
                                  .on_answer = on_pinned,
                                  .ctx = hold };
    hold->users++;
    pin_asks_add(&sessions->asks, &hold->ask);
    if (!env_timer_armed(&sessions->pins)) env_timer_set(env, &sessions->pins, env_now_ns(env));
}

/* No replica is left. Where nothing was read yet, the directory may know others by now. */
static void hold_exhausted(struct hold *hold)
{
    struct env *env = hold->sessions->store->env;

    if (hold->sums != NULL || hold->waiting == NULL) {
        hold_lost(hold, hold->why == STATUS_OK ? STATUS_UNAVAILABLE : hold->why);
        return;
    }
    hold->state = HOLD_FINDING;
    env_timer_set(env, &hold->timer, env_now_ns(env) + FIND_RETRY_MS * ENV_NS_PER_MS);
}

/* Asks the next replica, if there is one that was not asked yet (I3). */
static void hold_pin(struct hold *hold)
{
    struct store_peers *peers = hold->sessions->store->peers;

    hold->state = HOLD_PINNING;
    while (hold->tries < hold->places_count) {
        const struct client_place *place = &hold->places[hold->places_next];
        struct rpc_client *owner;
        hold->tries++;
        if (store_peers_get(peers, place->node.rpc_address, &owner) == STATUS_OK) {
            pin_ask(hold, owner, false);
            return;
        }
        hold_blame(hold, STATUS_UNAVAILABLE);
        hold->places_next = (hold->places_next + 1) % hold->places_count;
    }
    hold_exhausted(hold);
}

static void pin_failed(struct hold *hold, enum status why)
{
    switch ((int)why) {
    case STATUS_NOT_FOUND:
        if (hold->sums != NULL) why = STATUS_STALE; /* it was there */
        break;
    case STATUS_STALE:
    case STATUS_FULL: break;
    default: why = STATUS_UNAVAILABLE; break;
    }
    hold_blame(hold, why);
    hold->places_next = (hold->places_next + 1) % hold->places_count;
    hold_pin(hold);
}

/* I1. The first answer says what the value is. */
static enum status sums_take(struct hold *hold, const struct pin_answer *answer)
{
    const uint32_t count = (uint32_t)answer->sums.count;

    if (answer->size != hold->size) return STATUS_STALE; /* replaced: the master knows by now */
    if (hold->sums != NULL) {
        if (answer->piece_size != hold->piece_size || count != hold->sums_count)
            return STATUS_STALE;
        for (uint32_t i = 0; i < count; i++) {
            if (hold->sums[i] != msg_u64_at(answer->sums, i)) return STATUS_STALE;
        }
        return STATUS_OK;
    }
    hold->sums = malloc(count * sizeof(*hold->sums));
    if (hold->sums == NULL) return STATUS_FULL;
    for (uint32_t i = 0; i < count; i++)
        hold->sums[i] = msg_u64_at(answer->sums, i);
    hold->sums_count = count;
    hold->piece_size = answer->piece_size;
    return STATUS_OK;
}

static enum status source_take(struct hold *hold, const struct pin_answer *answer)
{
    const bool first = hold->sums == NULL;
    struct source *source = calloc(1, sizeof(*source));
    if (source == NULL) return STATUS_FULL;

    const enum status status = sums_take(hold, answer);
    if (status != STATUS_OK) {
        free(source);
        return status;
    }
    ASSERT(answer->pin != NULL && hold->source == NULL);
    source->refs = 1;
    source->pin = answer->pin;
    source->owner = hold->ask.owner;
    source->place = hold->places[hold->places_next];
    source->place.address = answer->address;
    hold->source = source;
    if (first) { /* a later one has still to serve something */
        hold->tries = 0;
        hold->why = STATUS_OK;
    }
    return STATUS_OK;
}

static void hold_pinned(struct hold *hold, const struct pin_answer *answer)
{
    struct env *env = hold->sessions->store->env;
    enum status status = answer->status;

    if (status == STATUS_AGAIN && !hold->ask.alone) {
        pin_ask(hold, hold->ask.owner, true);
        return;
    }
    if (status == STATUS_OK) status = source_take(hold, answer);
    if (status != STATUS_OK) {
        if (answer->pin != NULL) client_pin_unref(answer->pin);
        pin_failed(hold, status);
        return;
    }
    hold->state = HOLD_HELD;
    hold->used_ns = env_now_ns(env);
    env_timer_set(env, &hold->timer, hold->used_ns + hold->sessions->idle_ns);
    hold_wake(hold);
}

static void on_pinned(void *ctx, const struct pin_answer *answer)
{
    struct hold *hold = ctx;
    struct sessions *sessions = hold->sessions;

    if (sessions->store->closing) return;
    hold->users--;
    if (hold->waiting == NULL && hold->starts == 0) {
        if (answer->pin != NULL) client_pin_unref(answer->pin);
        hold_settle(hold);
    } else {
        hold_pinned(hold, answer);
    }
    if (!answer->more) session_flush(sessions);
}

void hold_pins(void *ctx)
{
    struct sessions *sessions = ctx;
    const struct pin_terms terms = { .deadline_ns = session_try_until(sessions, ENV_NEVER) };
    uint32_t count;
    enum status why;

    env_timer_cancel(sessions->store->env, &sessions->pins);
    while (sessions->asks.first != NULL) {
        struct pin_ask *ask =
            pin_asks_send(&sessions->asks, sessions->store->env, &terms, &count, &why);
        for (struct pin_ask *next; ask != NULL; ask = next) {
            struct hold *hold = ask->ctx;
            next = ask->next;
            hold->users--;
            pin_failed(hold, why);
        }
    }
    session_flush(sessions);
}

static void on_hold_timer(void *ctx)
{
    struct hold *hold = ctx;
    struct env *env = hold->sessions->store->env;
    const uint64_t idle_at = hold->used_ns + hold->sessions->idle_ns;

    if (hold->state == HOLD_FINDING) {
        hold_find_again(hold);
    } else if (hold->state != HOLD_HELD || hold->users > 0) {
        hold->used_ns = env_now_ns(env);
        env_timer_set(env, &hold->timer, hold->used_ns + hold->sessions->idle_ns);
    } else if (env_now_ns(env) < idle_at) {
        env_timer_set(env, &hold->timer, idle_at);
    } else {
        LOG_DEBUG("store", "get_session_idle", "bytes=%llu", (unsigned long long)hold->size);
        hold_lost(hold, STATUS_STALE);
    }
}

/* ---- reading ---- */

/* The source served wrong, or not at all; whoever comes first says so. */
static void source_failed(struct hold *hold, const struct source *source, enum status why)
{
    if (hold->source != source) return;
    if (why == STATUS_CORRUPT) {
        LOG_WARN("store", "value_wrong", "owner=%s", rpc_client_address(source->owner));
        client_pin_doubt(hold->sessions->store->env, source->owner, &hold->id);
    }
    hold_blame(hold, why);
    source_unref(hold->sessions, hold->source);
    hold->source = NULL;
    hold->places_next = (hold->places_next + 1) % hold->places_count;
    hold_pin(hold);
}

static bool item_read(const struct session_item *item)
{
    for (uint32_t i = 0; i < item->parts_count; i++) {
        if (!item->reads[i].done) return false;
    }
    return true;
}

/* Everything that was begun of the item has ended. */
static void pass_end(struct hold *hold, struct session_item *item)
{
    struct yolk_store *store = hold->sessions->store;
    struct source *source = item->source;
    enum status why = item->failed;

    if (item->segment_open) yolk_transfer_close(store->transfer, item->segment);
    item->segment_open = false;
    if (item->bounce != NULL) {
        const enum status freed = yolk_transfer_free(store->transfer, item->bounce);
        ASSERT(freed == STATUS_OK);
    }
    item->bounce = NULL;
    item->source = NULL;
    if (why == STATUS_OK) {
        ASSERT(item_read(item));
        source_unref(hold->sessions, source);
        waiter_end(hold, item, STATUS_OK, item->size);
        return;
    }
    const bool late = env_now_ns(store->env) >= item->call->deadline_ns;
    if (late || why == STATUS_FULL) { /* not the owner's fault, as far as we know */
        source_unref(hold->sessions, source);
        waiter_end(hold, item, late ? STATUS_TIMEOUT : why, 0);
        return;
    }
    /* Memory that is another's by now is no fault of its owner. */
    if (why == STATUS_CORRUPT && client_pin_lapsed(source->pin)) why = STATUS_STALE;
    if (why == STATUS_CORRUPT && !item->reread && hold->source == source) {
        item->reread = true;
        source_unref(hold->sessions, source); /* the hold has it, too */
        read_begin(hold, item);
        return;
    }
    hold->users++; /* it stays until this returns */
    wait_add(hold, item);
    source_failed(hold, source, why);
    source_unref(hold->sessions, source);
    if (hold->state == HOLD_HELD) hold_wake(hold); /* others have come to the next one already */
    hold->users--;
    hold_settle(hold);
}

static void part_end(struct read_part *read, enum status status)
{
    struct session_item *item = read->item;
    struct hold *hold = item->hold;
    ASSERT(item->moving > 0);

    if (status == STATUS_OK) {
        read->done = true;
        hold->used_ns = env_now_ns(hold->sessions->store->env);
        if (hold->source == item->source) {
            hold->tries = 0;
            hold->why = STATUS_OK;
        }
    } else if (item->failed != STATUS_CORRUPT) {
        item->failed = status;
    }
    if (--item->moving == 0) pass_end(hold, item);
}

static void on_read(void *ctx, enum status status)
{
    struct read_part *read = ctx;
    struct sessions *sessions = read->item->hold->sessions;
    part_end(read, status);
    session_flush(sessions);
}

/* I2. */
static bool span_right(const struct hold *hold, const struct read_part *read)
{
    uint64_t at = 0;
    for (uint64_t i = read->span_at / hold->piece_size; at < read->span_len; i++) {
        const uint64_t left = read->span_len - at;
        const uint64_t len = left < hold->piece_size ? left : hold->piece_size;
        ASSERT(i < hold->sums_count);
        if (hash_xxh3(read->to + at, len) != hold->sums[i]) return false;
        at += len;
    }
    return true;
}

static void on_moved(void *ctx, const struct yolk_transfer_result *result)
{
    struct read_part *read = ctx;
    struct session_item *item = read->item;
    struct sessions *sessions = item->hold->sessions;
    const struct yolk_store_part *part = read->part;
    enum status status = STATUS_OK;

    if (result->state != YOLK_TRANSFER_COMPLETED) {
        status = result->reason == STATUS_FULL ? STATUS_FULL : STATUS_UNAVAILABLE;
    } else if (!span_right(item->hold, read)) {
        status = STATUS_CORRUPT;
    } else if (read->to != part->data) {
        memcpy(part->data, read->to + (part->offset - read->span_at), part->size);
    }
    part_end(read, status);
    session_flush(sessions);
}

/* Which pieces the part touches. */
static void read_span(const struct hold *hold, struct read_part *read)
{
    const struct yolk_store_part *part = read->part;
    const uint64_t end = part->offset + part->size;
    const uint64_t whole = store_pieces(end, hold->piece_size) * hold->piece_size;

    read->span_at = part->offset / hold->piece_size * hold->piece_size;
    read->span_len = (whole < hold->size ? whole : hold->size) - read->span_at;
}

/* Reads it where it lies. False: it cannot be seen from here. */
static bool read_here(struct hold *hold, struct session_item *item, struct read_part *read)
{
    const struct client_place *place = &item->source->place;

    read->reading = (struct reading){
        .owner = place->node.epoch,
        .address = place->address + read->span_at,
        .len = read->span_len,
        .piece_size = hold->piece_size,
        .sums = hold->sums + read->span_at / hold->piece_size,
        .skip = read->part->offset - read->span_at,
        .want = read->part->size,
        .to = read->part->data,
        .on_end = on_read,
        .ctx = read,
    };
    if (reading_start(hold->sessions->store->readings, place->node.segment, &read->reading) !=
        STATUS_OK) {
        return false;
    }
    item->moving++;
    return true;
}

static enum status read_move(struct hold *hold, struct session_item *item, struct read_part *read)
{
    const struct client_place *place = &item->source->place;
    const struct yolk_transfer_request request = {
        .opcode = YOLK_TRANSFER_READ,
        .class = YOLK_TRANSFER_LOAD,
        .local = read->to,
        .segment = item->segment,
        .remote = place->address + read->span_at,
        .length = read->span_len,
        .deadline_ns = item->call->deadline_ns,
        .generation = place->node.epoch,
        .on_done = on_moved,
        .ctx = read,
    };
    if (!session_move(hold->sessions, &request)) return STATUS_FULL;
    item->moving++;
    return STATUS_OK;
}

/* Transfers the parts that could not be read where they lie; those whose ends are not pieces' go
 * through one block of memory of our own. */
static enum status read_far(struct hold *hold, struct session_item *item)
{
    struct yolk_transfer *transfer = hold->sessions->store->transfer;
    uint64_t bounce = 0, used = 0;
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < item->parts_count; i++) {
        const struct read_part *read = &item->reads[i];
        if (read->far && read->span_len != read->part->size) bounce += read->span_len;
    }
    if (bounce > 0) {
        void *memory = NULL;
        status = yolk_transfer_alloc(transfer, bounce, YOLK_TRANSFER_REMOTE_WRITE, &memory, NULL);
        if (status != STATUS_OK) return STATUS_FULL;
        item->bounce = memory;
    }
    status = yolk_transfer_open(transfer, item->source->place.node.segment, &item->segment);
    item->segment_open = status == STATUS_OK;
    for (uint32_t i = 0; status == STATUS_OK && i < item->parts_count; i++) {
        struct read_part *read = &item->reads[i];
        if (!read->far) continue;
        read->to = read->part->data;
        if (read->span_len != read->part->size) {
            read->to = item->bounce + used;
            used += read->span_len;
        }
        status = read_move(hold, item, read);
    }
    return status;
}

/* Those parts that are still wanted, from the hold's source. */
static void read_begin(struct hold *hold, struct session_item *item)
{
    bool far = false;
    ASSERT(hold->state == HOLD_HELD && item->moving == 0 && item->source == NULL);

    item->source = hold->source;
    item->source->refs++;
    item->failed = client_pin_lapsed(item->source->pin) ? STATUS_STALE : STATUS_OK;
    for (uint32_t i = 0; i < item->parts_count && item->failed == STATUS_OK; i++) {
        struct read_part *read = &item->reads[i];
        read->far = !read->done && !read_here(hold, item, read);
        far = far || read->far;
    }
    if (far) {
        const enum status status = read_far(hold, item);
        if (status != STATUS_OK) item->failed = status;
    }
    if (item->moving == 0) pass_end(hold, item);
}

static enum status read_prepare(const struct hold *hold, struct session_item *item)
{
    if (item->parts_count == 0) return STATUS_INVALID;
    for (uint32_t i = 0; i < item->parts_count; i++) {
        if (!session_part_valid(&item->parts[i], hold->size)) return STATUS_INVALID;
        item->size += item->parts[i].size;
    }
    item->reads = calloc(item->parts_count, sizeof(*item->reads));
    if (item->reads == NULL) return STATUS_FULL;
    for (uint32_t i = 0; i < item->parts_count; i++) {
        struct read_part *read = &item->reads[i];
        read->item = item;
        read->part = &item->parts[i];
        read_span(hold, read);
    }
    return STATUS_OK;
}

void hold_read(struct session_item *item)
{
    struct hold *hold = hold_find(item);

    if (hold == NULL || hold->starts == 0) {
        session_item_end(item, STATUS_NOT_FOUND, 0);
        return;
    }
    ASSERT(hold->sums != NULL);
    const enum status status =
        hold->state == HOLD_LOST ? lost_status(hold, item) : read_prepare(hold, item);
    if (status != STATUS_OK) {
        session_item_end(item, status, 0);
        return;
    }
    item->hold = hold;
    hold->users++;
    hold->used_ns = env_now_ns(hold->sessions->store->env);
    if (hold->state == HOLD_HELD) {
        read_begin(hold, item);
    } else {
        wait_add(hold, item);
    }
}

void hold_end(struct session_item *item)
{
    struct hold *hold = hold_find(item);

    if (hold == NULL || hold->starts == 0) {
        session_item_end(item, STATUS_NOT_FOUND, 0);
        return;
    }
    hold->starts--;
    hold_settle(hold);
    session_item_end(item, STATUS_OK, 0);
}

void hold_late(struct session_item *item)
{
    struct hold *hold = item->hold;
    wait_remove(hold, item);
    waiter_end(hold, item, STATUS_TIMEOUT, 0);
}

/* ---- the end of the client ---- */

void hold_item_abandon(struct session_item *item)
{
    if (item->waiting) wait_remove(item->hold, item);
    source_unref(item->call->sessions, item->source);
    item->source = NULL;
    reads_free(item);
}

void hold_free_all(struct sessions *sessions)
{
    while (sessions->holds_first != NULL)
        hold_free(sessions->holds_first);
}
