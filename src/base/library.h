/* SPDX-License-Identifier: Apache-2.0
 *
 * base/library.h - shared libraries that are loaded when they are needed, not when we start.
 *
 * The transfer engine lives inside other people's processes and must start where an optional
 * library (a GPU driver, a crypto library) is not installed. Whoever wraps such a library lists the
 * functions it uses, with the places to put them, and asks once.
 *
 * Memory:  a library stays loaded until the process ends.
 * Threads: any; the caller sees to it that one table is filled by one thread at a time. */
#ifndef BASE_LIBRARY_H
#define BASE_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

struct library_symbol {
    const char *name;
    void *to; /* the address of a pointer to a function of the right type */
};

/* Loads `file` ("libcrypto.so.3", or a path) and fills all of symbols[0..count). STATUS_NOT_FOUND
 * when it is not installed, STATUS_UNSUPPORTED when it lacks one of them; err says which, and the
 * places keep whatever they held or got, so none of them may be called. */
MUST_USE enum status library_load(const char *file, const struct library_symbol *symbols,
                                  size_t count, struct errmsg *err);

/* True if this process has it already, whoever loaded it. */
bool library_here(const char *file);

#endif
