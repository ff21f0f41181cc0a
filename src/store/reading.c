/* SPDX-License-Identifier: Apache-2.0
 *
 * store/reading.c - see the header. Readings wait in a queue and are served in its order. */
#include "store/reading.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/hash.h"

/* From here on what is read in one go is more than a second-level cache holds, be it one span or
 * many: it is written past the caches. */
enum { STREAM_MIN = 1 << 20 };

/* What the kernel maps at one fault, and for how much faults are taken ahead. */
enum { TOUCH_STEP = 64 << 10, TOUCH_AHEAD = 1 << 20 };

/* What lies behind a reading, and is mapped with it: as much as was read in a row. */
enum { RUN_MAX = 8 << 20, RUN_GAP_MAX = 4096 };

/* Readings that lie one behind the other, as what was put together often does. */
struct run {
    uint64_t owner;
    uint64_t start;
    uint64_t end;   /* of the last one */
    uint64_t ahead; /* up to where memory is being mapped */
};

struct readings {
    struct env *env;
    struct yolk_transfer *transfer;
    struct reading *first;
    struct reading *last;
    struct env_timer turn;
    uint64_t bytes;
    uint64_t together; /* bytes that were asked for since the queue was empty */
    uint8_t *part;     /* where to pieces go of which only a part is wanted */
    uint64_t part_size;
    struct run run;
};

/* Whether some piece is wanted only in part: the first or the last. */
static bool has_parts(const struct reading *reading)
{
    return reading->want < reading->len;
}

static enum status part_reserve(struct readings *readings, const struct reading *reading)
{
    const uint64_t size = reading->len < reading->piece_size ? reading->len : reading->piece_size;
    if (!has_parts(reading) || size <= readings->part_size) return STATUS_OK;
    uint8_t *part = realloc(readings->part, size);
    if (part == NULL) return STATUS_FULL;
    readings->part = part;
    readings->part_size = size;
    return STATUS_OK;
}

/* Memory of another process is mapped as it is first read. Faults cost less one after the other
 * than each in the middle of a copy. */
static void touch(struct reading *reading)
{
    const volatile uint8_t *bytes = reading->loan.data;
    const uint64_t left = reading->len - reading->touched;
    const uint64_t end = reading->touched + (left < TOUCH_AHEAD ? left : TOUCH_AHEAD);

    for (uint64_t at = reading->touched; at < end; at += TOUCH_STEP)
        (void)bytes[at];
    (void)bytes[end - 1];
    reading->touched = end;
}

/* How many bytes behind this reading will be read next, as it seems. */
static uint64_t run_add(struct run *run, const struct reading *reading)
{
    const uint64_t end = reading->address + reading->len;
    const bool next = reading->owner == run->owner && reading->address >= run->end &&
                      reading->address - run->end < RUN_GAP_MAX;

    if (!next) *run = (struct run){ reading->owner, reading->address, end, end };
    run->end = end;
    if (run->ahead < end) run->ahead = end;
    const uint64_t want = end - run->start < RUN_MAX ? end - run->start : RUN_MAX;
    if (!next || run->ahead - end > want / 2) return 0; /* there is enough */
    run->ahead = end + want;
    return want;
}

/* What the loop reads next it maps itself: a thread would come too late. */
static void map_ahead(struct readings *readings, struct reading *reading)
{
    const uint64_t before = readings->together;
    const uint64_t ours = before < TOUCH_AHEAD ? TOUCH_AHEAD - before : 0;
    const uint64_t more = run_add(&readings->run, reading);

    if (reading->len < ours) touch(reading);
    if (ours < reading->len + more) {
        yolk_transfer_loan_ahead(readings->transfer, reading->loan, ours, more);
    }
}

/* The next piece. */
static enum status piece_read(struct readings *readings, struct reading *reading)
{
    const uint64_t at = reading->done;
    const uint64_t left = reading->len - at;
    const uint64_t len = left < reading->piece_size ? left : reading->piece_size;
    const uint64_t end = reading->skip + reading->want;
    const uint64_t first = at > reading->skip ? at : reading->skip; /* wanted of it: from here */
    const uint64_t last = at + len < end ? at + len : end;
    const bool whole = last - first == len;
    const uint8_t *from = (const uint8_t *)reading->loan.data + at;
    uint8_t *to = whole ? reading->to + (at - reading->skip) : readings->part;

    if (at >= reading->touched) touch(reading);
    reading->done += len;
    readings->bytes += len;
    const bool past_cache = whole && readings->together >= STREAM_MIN;
    const uint64_t sum =
        past_cache ? hash_xxh3_stream(to, from, len) : hash_xxh3_copy(to, from, len);
    if (sum != reading->sums[at / reading->piece_size]) return STATUS_CORRUPT;
    if (!whole) memcpy(reading->to + (first - reading->skip), to + (first - at), last - first);
    return STATUS_OK;
}

/* ---- the queue ---- */

static void reading_end(struct readings *readings, struct reading *reading, enum status status)
{
    struct yolk_transfer *transfer = readings->transfer;
    ASSERT(readings->first == reading);

    readings->first = reading->next;
    if (readings->first == NULL) {
        readings->last = NULL;
        readings->together = 0;
    }
    if (status == STATUS_OK && yolk_transfer_loan_check(transfer, reading->loan) != STATUS_OK) {
        status = STATUS_UNAVAILABLE;
    }
    const enum status returned = yolk_transfer_return(transfer, reading->loan);
    ASSERT(returned == STATUS_OK);
    yolk_transfer_close(transfer, reading->segment);
    reading->on_end(reading->ctx, status); /* may start others, and free this one */
}

static void turn_soon(struct readings *readings)
{
    if (env_timer_armed(&readings->turn)) return;
    env_timer_set(readings->env, &readings->turn, env_now_ns(readings->env));
}

static void on_turn(void *ctx)
{
    struct readings *readings = ctx;
    uint64_t left = READING_TURN_SIZE;

    while (readings->first != NULL && left > 0) {
        struct reading *reading = readings->first;
        const uint64_t before = reading->done;
        const enum status status = piece_read(readings, reading);
        const uint64_t len = reading->done - before;
        left -= len < left ? len : left;
        if (status != STATUS_OK || reading->done == reading->len) {
            reading_end(readings, reading, status);
        }
    }
    if (readings->first != NULL) turn_soon(readings);
}

enum status reading_start(struct readings *readings, const char *segment, struct reading *reading)
{
    struct yolk_transfer *transfer = readings->transfer;
    ASSERT(reading->len > 0 && reading->piece_size > 0 && reading->on_end != NULL);
    ASSERT(reading->want > 0 && reading->skip < reading->piece_size);
    ASSERT(reading->skip + reading->want <= reading->len);

    enum status status = part_reserve(readings, reading);
    if (status == STATUS_OK) {
        status = yolk_transfer_open(transfer, segment, &reading->segment);
    }
    if (status != STATUS_OK) return status;
    status = yolk_transfer_borrow(transfer, reading->segment, reading->address, reading->len, 0,
                                  &reading->loan);
    if (status == STATUS_OK && reading->loan.generation != reading->owner) {
        status = STATUS_STALE;
        const enum status returned = yolk_transfer_return(transfer, reading->loan);
        ASSERT(returned == STATUS_OK);
    }
    if (status != STATUS_OK) {
        yolk_transfer_close(transfer, reading->segment);
        return status;
    }
    reading->next = NULL;
    reading->done = 0;
    reading->touched = 0;
    map_ahead(readings, reading);
    if (readings->last == NULL) {
        readings->first = reading;
    } else {
        readings->last->next = reading;
    }
    readings->last = reading;
    readings->together += reading->len;
    turn_soon(readings);
    return STATUS_OK;
}

/* ---- life ---- */

enum status readings_create(struct env *env, struct yolk_transfer *transfer, struct readings **out)
{
    struct readings *readings = calloc(1, sizeof(*readings));
    if (readings == NULL) return STATUS_NO_MEMORY;
    readings->env = env;
    readings->transfer = transfer;
    env_timer_init(&readings->turn, on_turn, readings);
    *out = readings;
    return STATUS_OK;
}

void readings_destroy(struct readings *readings)
{
    if (readings == NULL) return;
    env_timer_cancel(readings->env, &readings->turn);
    free(readings->part);
    free(readings);
}

uint64_t readings_bytes(const struct readings *readings)
{
    return readings->bytes;
}
