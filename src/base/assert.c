/* SPDX-License-Identifier: Apache-2.0 */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

/* The failed condition goes last, where a person looks first. Nothing here allocates or locks. */
void assert_failed(const char *condition, const char *file, int line)
{
    static _Atomic int failures; /* a second failure, in the dump or in another thread, skips it */

    if (failures++ == 0) log_dump(STDERR_FILENO);
    char text[512];
    snprintf(text, sizeof(text),
             "level=error mod=base ev=assert_failed at=%s:%d condition=\"%s\"\n", file, line,
             condition);
    if (write(STDERR_FILENO, text, strlen(text)) < 0) abort();
    abort();
}
