/* SPDX-License-Identifier: Apache-2.0
 *
 * store/gather.h - many threads ask, one loop answers: what threads hand in while the loop is busy,
 * or while others of its kind are under way, goes out together; and those who are answered
 * together are woken together.
 *
 *     thread:  gather_ask() --------> pile                              gather_ask() returns
 *     loop:                            +--> on_go() ... gather_landed() ... gather_answer()
 *
 * One wake-up of the loop serves a whole pile: whoever finds the pile empty wakes it, the others
 * only add to it. What on_go() takes is a flight; it is under way until it has landed. What comes
 * meanwhile waits, so that the busier the threads are, the fewer exchanges each question costs.
 * While answers are brief nobody sleeps: askers look for theirs and offer the core to others in
 * between (store/pace.h).
 *
 * Another flight of the kind leaves when so many wait that the loop and who answers it had better
 * work at the same time, or when somebody has waited for GATHER_LATE_MS: an answer that takes its
 * time holds up nobody else for longer.
 *
 * Memory:  none a question: it lives on its asker's stack.
 * Threads: gather_ask() from any but the loop's; everything else on the loop's.
 * Limits:  GATHER_FLIGHTS_MAX flights of a kind under way. */
#ifndef STORE_GATHER_H
#define STORE_GATHER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct env;
struct gather; /* opaque */

enum {
    GATHER_KINDS_MAX = 5,
    GATHER_FLIGHTS_MAX = 64,
    GATHER_CROWD = 64, /* questions of a kind that wait: worth another flight */
    GATHER_LATE_MS = 2,
};

/* Embedded in a question. */
struct gather_op {
    struct gather_op *next; /* of those that are passed on together */
    uint32_t kind;          /* of the question: set by the asker, below `kinds` */
    uint32_t gate;          /* private: where the asker sleeps */
    _Atomic bool answered;  /* private: set by the loop, and then it is the asker's again */
};

struct gather_options {
    struct env *env;
    uint32_t kinds;                     /* 1 to GATHER_KINDS_MAX */
    uint32_t flights[GATHER_KINDS_MAX]; /* of a kind, under way without a reason; 1 or more */
    /* Takes one or more questions of the kind, from the front of the list, and returns the rest of
     * it. It answers each of them some time, also before it returns, and once gather_landed(). */
    struct gather_op *(*on_go)(void *ctx, uint32_t kind, struct gather_op *ops);
    void *ctx;
};

/* STATUS_NO_MEMORY. */
MUST_USE enum status gather_create(const struct gather_options *options, struct gather **out);

/* Every gather_ask() has returned. NULL is allowed. */
void gather_destroy(struct gather *gather);

/* Blocks until it is answered. STATUS_FULL: the loop's posts are full, and nothing was handed in.
 */
MUST_USE enum status gather_ask(struct gather *gather, struct gather_op *op);

/* A flight of this kind is not under way any more. */
void gather_landed(struct gather *gather, uint32_t kind);

/* The asker goes on, in this turn of the loop or the next: `op` is not to be touched any more. */
void gather_answer(struct gather *gather, struct gather_op *op);

#endif
