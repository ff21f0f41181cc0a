/* SPDX-License-Identifier: Apache-2.0
 *
 * base/assert.h - checks for our own bugs, on in every build.
 *
 * ASSERT is for what only a bug can make false; input from a peer, a disk, a user or a config file
 * is checked with a status instead. ASSERT_EXPENSIVE is for checks that cost O(n): on in sanitizer,
 * fuzz and simulation builds. ASSERT_OWNER says that the calling thread owns the object. */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

#include <pthread.h>

/* Prints the condition and the last log events, then aborts. */
_Noreturn void assert_failed(const char *condition, const char *file, int line);

#define ASSERT(condition)                                                                          \
    (__builtin_expect(!(condition), 0) ? assert_failed(#condition, __FILE__, __LINE__) : (void)0)

#ifdef YOLK_EXPENSIVE_ASSERTS
#define ASSERT_EXPENSIVE(condition) ASSERT(condition)
#else
#define ASSERT_EXPENSIVE(condition) ((void)sizeof(!(condition)))
#endif

#define ASSERT_OWNER(thread) ASSERT(pthread_equal((thread), pthread_self()))

#endif
