/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/audit.h - refusals, remembered, and judged by what happened afterwards.
 *
 * A refusal is open until the time its own decoding would have ended. It was a mistake (`servable`)
 * when the queue it would have joined drained early enough for its first token, and the decode
 * pool, with one sequence more, stayed at or below its limit from the time it would have joined.
 * Each is judged alone: not that all that were servable could have been served together.
 *
 * Memory:  all allocated by audit_create().
 * Threads: belongs to one thread at a time.
 * Limits:  AUDIT_MAX refusals; the oldest is overwritten, judged or not. The pool is looked at in
 *          steps of AUDIT_LOOK_MS. */
#ifndef CONDUCTOR_AUDIT_H
#define CONDUCTOR_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "yolk/conductor.h"

enum { AUDIT_MAX = 1024, AUDIT_LOOK_MS = 100 };

struct audit; /* opaque */

MUST_USE enum status audit_create(struct audit **out);
void audit_destroy(struct audit *audit); /* NULL is allowed */
uint64_t audit_bytes(void);

struct audit_case {
    const char *request_id; /* cut, copied */
    uint32_t tokens;
    uint32_t prefill;     /* the instance it would have waited at */
    uint64_t ahead;       /* audit_drained() reaches this there when all before it are gone, or as
                           * many: one behind it that gives up counts for one before it */
    double waited_ms;     /* before it was judged */
    double own_ms;        /* of its transfer and prefill */
    double decode_ms;     /* that it would have decoded */
    double ttft_limit_ms; /* 0: none */
    double now_ms;
};
void audit_refuse(struct audit *audit, const struct audit_case *refused,
                  const struct yolk_verdict *verdict);

/* Requests that have left the queue of that instance, ever; its removal counts as UINT64_MAX. */
void audit_drained(struct audit *audit, uint32_t prefill, uint64_t left, double now_ms);

/* Something is open, and it is AUDIT_LOOK_MS since the last look. */
bool audit_wants_look(const struct audit *audit, double now_ms);
/* The load of the decode pool with one sequence more, now. */
void audit_look(struct audit *audit, double load, double now_ms);

bool audit_get(const struct audit *audit, uint32_t age, struct yolk_refused *out);
void audit_counts(const struct audit *audit, uint64_t *audited, uint64_t *servable);

#endif
