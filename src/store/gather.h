/* SPDX-License-Identifier: Apache-2.0
 *
 * store/gather.h - many threads ask, one loop answers: what threads hand in while the loop is busy
 * reaches it together, so that it can go out together.
 *
 *     thread: gather_ask() ---> pile ---> on_pile(), on the loop ---> gather_answer() ---> returns
 *
 * One wake-up of the loop serves a whole pile: whoever finds the pile empty wakes it, the others
 * only add to it.
 *
 * Memory:  none a question: it lives on its asker's stack.
 * Threads: gather_ask() from any but the loop's; everything else on the loop's.
 * Limits:  none of its own. */
#ifndef STORE_GATHER_H
#define STORE_GATHER_H

#include <semaphore.h>

#include "base/status.h"

struct env;
struct gather; /* opaque */

/* Embedded in a question. */
struct gather_op {
    struct gather_op *next; /* of the pile */
    sem_t answered;         /* private */
};

/* `on_pile` gets what was handed in, in no order, and answers each some time. STATUS_NO_MEMORY. */
MUST_USE enum status gather_create(struct env *env, void (*on_pile)(void *ctx, struct gather_op *),
                                   void *ctx, struct gather **out);

/* No question is open, and no thread is about to ask. NULL is allowed. */
void gather_destroy(struct gather *gather);

/* Blocks until it is answered. STATUS_FULL: the loop's posts are full, and nothing was handed in.
 */
MUST_USE enum status gather_ask(struct gather *gather, struct gather_op *op);

/* The asker goes on: `op` is not to be touched any more. */
void gather_answer(struct gather_op *op);

#endif
