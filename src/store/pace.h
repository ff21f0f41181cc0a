/* SPDX-License-Identifier: Apache-2.0
 *
 * store/pace.h - whether threads that wait for short answers had better look for them, and offer
 * the core to others in between, than sleep until they are woken.
 *
 * A thread that sleeps is woken through another CPU, which on a virtual machine takes 20 us when
 * that one is idle; a thread that looks is there when its answer is. It only pays while answers
 * are brief, and while nobody else wants the core: who has given it away to one who computes gets
 * it back milliseconds later, where a sleeper would have gone before him.
 *
 *               `bar` brief waits more than 4 times the long ones
 *      SLEEP -----------------------------------------------------> LOOK
 *        ^                                                            |
 *        +------------------------------------------------------------+
 *         some PACE_PATIENCE / 8 long ones close together: and the bar is twice as high
 *
 * The bar comes down again while looking pays. So whatever makes it not pay, it is tried seldom.
 *
 * Threads: any. They count without a lock: a count that is lost does not matter.
 * Limits:  bar between PACE_BAR_LEAST and PACE_BAR_MOST. */
#ifndef STORE_PACE_H
#define STORE_PACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { PACE_BRIEF_US = 200, PACE_BAR_LEAST = 32, PACE_BAR_MOST = 16384, PACE_PATIENCE = 32 };

/* Private, but for where it lives. */
struct pace {
    _Atomic bool looks;
    _Atomic uint32_t bar;
    _Atomic uint32_t credit; /* SLEEP: on the way to the bar; LOOK: what long waits use up */
    _Atomic uint32_t good;   /* brief waits since the bar changed, or looking began */
};

/* Sleeping. */
void pace_init(struct pace *pace);

bool pace_looks(const struct pace *pace);

/* A wait is over; brief: it was shorter than PACE_BRIEF_US. */
void pace_note(struct pace *pace, bool brief);

#endif
