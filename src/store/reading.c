/* SPDX-License-Identifier: Apache-2.0
 *
 * store/reading.c - see the header. Readings wait in a queue and are served in its order. */
#include "store/reading.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/env.h"
#include "base/hash.h"
#include "store/verified.h"

/* A span from here on is more than a second-level cache holds: it is written past the caches. */
enum { STREAM_MIN = 1 << 20 };

struct readings {
    struct env *env;
    struct yolk_transfer *transfer;
    struct verified *verified;
    struct reading *first;
    struct reading *last;
    struct env_timer turn;
    struct reading_counts counts;
};

/* ---- pieces ---- */

static struct verified_piece piece_at(const struct reading *reading, uint64_t offset)
{
    const uint64_t left = reading->len - offset;
    return (struct verified_piece){
        .owner = reading->owner,
        .generation = reading->generation,
        .address = reading->address + offset,
        .sum = reading->sums[offset / reading->piece_size],
        .len = left < reading->piece_size ? (uint32_t)left : reading->piece_size,
    };
}

static enum status piece_read(struct readings *readings, struct reading *reading, uint64_t now_ns)
{
    const struct verified_piece piece = piece_at(reading, reading->done);
    const uint8_t *from = (const uint8_t *)reading->loan.data + reading->done;
    uint8_t *to = reading->to + reading->done;

    reading->done += piece.len;
    if (reading->generation != 0 && verified_has(readings->verified, &piece, now_ns)) {
        memcpy(to, from, piece.len);
        reading->believed = true;
        readings->counts.believed++;
        return STATUS_OK;
    }
    const uint64_t sum = reading->len >= STREAM_MIN ? hash_xxh3_stream(to, from, piece.len)
                                                    : hash_xxh3_copy(to, from, piece.len);
    readings->counts.hashed++;
    if (sum != piece.sum) return STATUS_CORRUPT;
    if (reading->generation != 0) verified_add(readings->verified, &piece, now_ns);
    return STATUS_OK;
}

/* What was copied, by its sums. */
static enum status hash_again(const struct reading *reading)
{
    for (uint64_t offset = 0; offset < reading->len; offset += reading->piece_size) {
        const struct verified_piece piece = piece_at(reading, offset);
        if (hash_xxh3(reading->to + offset, piece.len) != piece.sum) return STATUS_CORRUPT;
    }
    return STATUS_OK;
}

/* ---- the queue ---- */

static void reading_end(struct readings *readings, struct reading *reading, enum status status)
{
    struct yolk_transfer *transfer = readings->transfer;
    ASSERT(readings->first == reading);

    readings->first = reading->next;
    if (readings->first == NULL) readings->last = NULL;
    if (status == STATUS_OK && yolk_transfer_loan_check(transfer, reading->loan) != STATUS_OK) {
        status = STATUS_UNAVAILABLE;
    }
    if (status == STATUS_OK && reading->believed &&
        env_now_ns(readings->env) >= reading->pinned_ns) { /* I1 */
        status = hash_again(reading);
    }
    const enum status returned = yolk_transfer_return(transfer, reading->loan);
    ASSERT(returned == STATUS_OK);
    yolk_transfer_close(transfer, reading->segment);
    reading->on_end(reading->ctx, status); /* may start others, and free this one */
}

static void on_turn(void *ctx)
{
    struct readings *readings = ctx;
    const uint64_t now_ns = env_now_ns(readings->env);
    uint64_t left = READING_TURN_SIZE;

    while (readings->first != NULL && left > 0) {
        struct reading *reading = readings->first;
        const uint64_t before = reading->done;
        const enum status status = piece_read(readings, reading, now_ns);
        const uint64_t len = reading->done - before;
        left -= len < left ? len : left;
        if (status != STATUS_OK || reading->done == reading->len) {
            reading_end(readings, reading, status);
        }
    }
    if (readings->first != NULL) env_timer_set(readings->env, &readings->turn, now_ns);
}

enum status reading_start(struct readings *readings, const char *segment, struct reading *reading)
{
    struct yolk_transfer *transfer = readings->transfer;
    ASSERT(reading->len > 0 && reading->piece_size > 0 && reading->on_end != NULL);

    enum status status = yolk_transfer_open(transfer, segment, &reading->segment);
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
    reading->believed = false;
    if (readings->last == NULL) {
        readings->first = reading;
    } else {
        readings->last->next = reading;
    }
    readings->last = reading;
    if (!env_timer_armed(&readings->turn)) {
        env_timer_set(readings->env, &readings->turn, env_now_ns(readings->env));
    }
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
    const enum status status = verified_create(&readings->verified);
    if (status != STATUS_OK) {
        free(readings);
        return status;
    }
    *out = readings;
    return STATUS_OK;
}

void readings_destroy(struct readings *readings)
{
    if (readings == NULL) return;
    env_timer_cancel(readings->env, &readings->turn);
    verified_destroy(readings->verified);
    free(readings);
}

void readings_counts(const struct readings *readings, struct reading_counts *out)
{
    *out = readings->counts;
}
