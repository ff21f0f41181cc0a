/* SPDX-License-Identifier: Apache-2.0
 *
 * store/gather.c - a stack that threads push to and the loop takes as a whole.
 *
 * Memory order: a push releases what the asker wrote, the taking of the pile acquires it; the
 * semaphore orders the answer. */
#include "store/gather.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/env.h"

struct gather {
    struct env *env;
    void (*on_pile)(void *ctx, struct gather_op *pile);
    void *ctx;
    _Atomic(struct gather_op *) pile; /* pushed to by askers, emptied by the loop */
};

enum status gather_create(struct env *env, void (*on_pile)(void *ctx, struct gather_op *),
                          void *ctx, struct gather **out)
{
    struct gather *gather = calloc(1, sizeof(*gather));
    if (gather == NULL) return STATUS_NO_MEMORY;
    gather->env = env;
    gather->on_pile = on_pile;
    gather->ctx = ctx;
    *out = gather;
    return STATUS_OK;
}

void gather_destroy(struct gather *gather)
{
    if (gather == NULL) return;
    ASSERT(atomic_load(&gather->pile) == NULL);
    free(gather);
}

static void take(void *ctx)
{
    struct gather *gather = ctx;
    struct gather_op *pile = atomic_exchange_explicit(&gather->pile, NULL, memory_order_acquire);
    if (pile != NULL) gather->on_pile(gather->ctx, pile);
}

/* Takes its own question back, if nobody else has come meanwhile. */
static bool give_up(struct gather *gather, struct gather_op *op)
{
    struct gather_op *expected = op;
    return atomic_compare_exchange_strong(&gather->pile, &expected, NULL);
}

enum status gather_ask(struct gather *gather, struct gather_op *op)
{
    const int rc = sem_init(&op->answered, 0, 0);
    ASSERT(rc == 0);

    struct gather_op *next = atomic_load_explicit(&gather->pile, memory_order_relaxed);
    do {
        op->next = next;
    } while (!atomic_compare_exchange_weak_explicit(&gather->pile, &next, op, memory_order_release,
                                                    memory_order_relaxed));
    /* From here on it is the loop's. Whoever found the pile empty wakes the loop. While posts are
     * full it must insist, unless it is alone: others count on it. */
    while (next == NULL && env_post(gather->env, take, gather) != STATUS_OK) {
        if (give_up(gather, op)) {
            sem_destroy(&op->answered);
            return STATUS_FULL;
        }
    }
    while (sem_wait(&op->answered) != 0) { /* EINTR: a signal of the program */
    }
    sem_destroy(&op->answered);
    return STATUS_OK;
}

void gather_answer(struct gather_op *op)
{
    const int rc = sem_post(&op->answered);
    ASSERT(rc == 0);
}
