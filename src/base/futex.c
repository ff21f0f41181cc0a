/* SPDX-License-Identifier: Apache-2.0
 *
 * base/futex.c - the system call. Its failures (the word had changed, a signal, the time is up) are
 * all reasons to look again, which the caller does in any case. */
#include "base/futex.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    const uint64_t second = UINT64_C(1000000000);
    const struct timespec timeout = { .tv_sec = (time_t)(timeout_ns / second),
                                      .tv_nsec = (long)(timeout_ns % second) };

    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, expected,
            timeout_ns == UINT64_MAX ? NULL : &timeout, NULL, 0);
}

void futex_wake(_Atomic uint32_t *word, uint32_t count)
{
    const int limit = count < INT_MAX ? (int)count : INT_MAX;
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, limit, NULL, NULL, 0);
}
