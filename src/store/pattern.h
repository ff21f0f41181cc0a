/* SPDX-License-Identifier: Apache-2.0
 *
 * store/pattern.h - which keys are meant: those with a prefix, and in which an expression is found.
 *
 * Expressions are Perl's (PCRE2), over bytes, found anywhere in the key unless anchored. The only
 * file that includes PCRE2's header in this layer is pattern.c.
 *
 * Threads: one. Limits: expressions of PATTERN_SIZE_MAX bytes; PATTERN_STEPS_MAX steps on one key,
 * so that no expression can hold the master up. */
#ifndef STORE_PATTERN_H
#define STORE_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "store/master.h"

enum { PATTERN_SIZE_MAX = 1024, PATTERN_STEPS_MAX = 2000 };

struct pattern; /* opaque */

/* `regex` may be NULL: any key. STATUS_INVALID with what is wrong with it, STATUS_NO_MEMORY. The
 * prefix is borrowed. */
MUST_USE enum status pattern_create(const void *prefix, size_t prefix_len, const char *regex,
                                    size_t regex_len, struct pattern **out, struct errmsg *err);
void pattern_destroy(struct pattern *pattern); /* NULL is allowed */

/* STATUS_OK, STATUS_NOT_FOUND, or STATUS_FULL: nobody knows, it took too many steps. */
MUST_USE enum status pattern_match(const struct pattern *pattern, struct store_key key);

#endif
