/* SPDX-License-Identifier: Apache-2.0
 *
 * base/futex.h - a word that threads of this process sleep on.
 *
 * futex_wait() compares and falls asleep as one step, so who changes the word first and wakes then
 * loses nobody. It may return for no reason: look again.
 *
 * Threads: any. The word may be gone when futex_wake() runs: only its address is used. */
#ifndef BASE_FUTEX_H
#define BASE_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

/* Sleeps while the word is `expected`, until it is woken or `timeout_ns` have passed (UINT64_MAX:
 * no limit). */
void futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns);

/* Wakes at most `count` that sleep on it. */
void futex_wake(_Atomic uint32_t *word, uint32_t count);

#endif
