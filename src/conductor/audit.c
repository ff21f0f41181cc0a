/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/audit.c - a ring of refusals, of which a stretch is open.
 *
 *     audit_refuse -> QUEUED -- audit_drained --> JOINED -- audit_look past until_ms --> judged
 *                       +------- audit_look, the first token is late by now -------------^
 *
 * Invariants
 *   I1  open refusals lie in [first_open, count); none lies before first_open.
 *   I2  a refusal is judged at most once, and counted when it is. */
#include "conductor/audit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"

enum audit_state { AUDIT_QUEUED, AUDIT_JOINED, AUDIT_JUDGED };

struct record {
    enum audit_state state;
    struct yolk_refused refused;
    uint32_t prefill;
    uint64_t ahead;
    double waited_ms, own_ms, decode_ms, ttft_limit_ms;
    double join_ms, until_ms;
};

struct audit {
    struct record records[AUDIT_MAX];
    uint64_t count;      /* ever */
    uint64_t first_open; /* number of the oldest that may be open */
    double looked_ms;
    uint64_t audited, servable;
};

enum status audit_create(struct audit **out)
{
    struct audit *audit = calloc(1, sizeof(*audit));

    if (audit == NULL) return STATUS_NO_MEMORY;
    audit->looked_ms = -INFINITY;
    *out = audit;
    return STATUS_OK;
}

void audit_destroy(struct audit *audit)
{
    free(audit);
}

uint64_t audit_bytes(void)
{
    return sizeof(struct audit);
}

static struct record *record_at(struct audit *audit, uint64_t number)
{
    ASSERT(number < audit->count && audit->count - number <= AUDIT_MAX);
    return &audit->records[number % AUDIT_MAX];
}

static void judge(struct audit *audit, struct record *record)
{
    ASSERT(record->state != AUDIT_JUDGED); /* I2 */
    const struct yolk_refused *refused = &record->refused;
    const bool late = record->ttft_limit_ms > 0 && refused->ttft_ms > record->ttft_limit_ms;
    const bool servable = record->state == AUDIT_JOINED && !late && refused->peak_load <= 1;

    record->state = AUDIT_JUDGED;
    record->refused.hindsight = servable ? YOLK_HINDSIGHT_SERVABLE : YOLK_HINDSIGHT_RIGHT;
    audit->audited++;
    audit->servable += servable;
}

/* All who were before it are gone: now it would have started. */
static void start(struct record *record, double now_ms)
{
    ASSERT(record->state == AUDIT_QUEUED);
    record->state = AUDIT_JOINED;
    record->refused.ttft_ms =
        record->waited_ms + now_ms - record->refused.refused_ms + record->own_ms;
    record->join_ms = now_ms + record->own_ms;
    record->until_ms = record->join_ms + record->decode_ms;
}

static void skip_judged(struct audit *audit)
{
    if (audit->count - audit->first_open > AUDIT_MAX) audit->first_open = audit->count - AUDIT_MAX;
    while (audit->first_open < audit->count &&
           record_at(audit, audit->first_open)->state == AUDIT_JUDGED) {
        audit->first_open++;
    }
}

void audit_refuse(struct audit *audit, const struct audit_case *refused,
                  const struct yolk_verdict *verdict)
{
    ASSERT(verdict->refusal != YOLK_REFUSAL_NONE);
    ASSERT(refused->own_ms >= 0 && refused->decode_ms >= 0);
    struct record *record = &audit->records[audit->count % AUDIT_MAX];

    *record = (struct record){
        .state = AUDIT_QUEUED,
        .refused = { .verdict = *verdict,
                     .tokens = refused->tokens,
                     .refused_ms = refused->now_ms,
                     .ttft_ms = -1,
                     .hindsight = YOLK_HINDSIGHT_OPEN },
        .prefill = refused->prefill,
        .ahead = refused->ahead,
        .waited_ms = refused->waited_ms,
        .own_ms = refused->own_ms,
        .decode_ms = refused->decode_ms,
        .ttft_limit_ms = refused->ttft_limit_ms,
    };
    snprintf(record->refused.request_id, sizeof(record->refused.request_id), "%s",
             refused->request_id != NULL ? refused->request_id : "");
    audit->count++;
    skip_judged(audit);
}

void audit_drained(struct audit *audit, uint32_t prefill, uint64_t left, double now_ms)
{
    for (uint64_t i = audit->first_open; i < audit->count; i++) {
        struct record *record = record_at(audit, i);
        if (record->state != AUDIT_QUEUED || record->prefill != prefill) continue;
        if (left >= record->ahead) start(record, now_ms);
    }
}

bool audit_wants_look(const struct audit *audit, double now_ms)
{
    return audit->first_open < audit->count && now_ms >= audit->looked_ms + AUDIT_LOOK_MS;
}

/* Still in the queue, and so late that it could not be in time any more. */
static bool hopeless(const struct record *record, double now_ms)
{
    const double least = record->waited_ms + now_ms - record->refused.refused_ms + record->own_ms;
    return record->ttft_limit_ms > 0 && least > record->ttft_limit_ms;
}

void audit_look(struct audit *audit, double load, double now_ms)
{
    ASSERT(load >= 0 && isfinite(now_ms));
    audit->looked_ms = now_ms;
    for (uint64_t i = audit->first_open; i < audit->count; i++) {
        struct record *record = record_at(audit, i);
        if (record->state == AUDIT_QUEUED && hopeless(record, now_ms)) {
            judge(audit, record);
        } else if (record->state == AUDIT_JOINED && now_ms > record->until_ms) {
            judge(audit, record);
        } else if (record->state == AUDIT_JOINED && now_ms >= record->join_ms &&
                   load > record->refused.peak_load) {
            record->refused.peak_load = load;
        }
    }
    skip_judged(audit);
}

bool audit_get(const struct audit *audit, uint32_t age, struct yolk_refused *out)
{
    if (age >= audit->count || age >= AUDIT_MAX) return false;
    *out = audit->records[(audit->count - 1 - age) % AUDIT_MAX].refused;
    return true;
}

void audit_counts(const struct audit *audit, uint64_t *audited, uint64_t *servable)
{
    ASSERT(audit->servable <= audit->audited);
    *audited = audit->audited;
    *servable = audit->servable;
}
