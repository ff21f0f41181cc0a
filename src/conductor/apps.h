/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/apps.h - which application a prompt comes from, told by how it begins.
 *
 * Applications open all their prompts with the same text, and their answers are alike in length
 * where those of different applications are not. So a first block that many prompts have in common
 * names an application. Few blocks are counted, by Misra and Gries: each prompt adds one to its
 * block's count, or, where there is no count for it and no room for one, takes one off all others.
 * No count is ever above the truth, so nothing rare is taken for an application; counts fade.
 *
 * Memory:  a value.
 * Threads: belongs to whoever owns its storage.
 * Limits:  APPS_MAX blocks are counted; see apps.c for how common one has to be. */
#ifndef CONDUCTOR_APPS_H
#define CONDUCTOR_APPS_H

#include <stdint.h>

#include "base/key.h"

enum { APPS_MAX = 32 };

struct apps {
    struct {
        uint64_t name; /* 0: free */
        double count;
    } blocks[APPS_MAX];
    double prompts; /* that the counts are of */
};

/* A prompt begins with this block. */
void apps_note(struct apps *apps, const struct block_key *first);

/* The name of its application, never 0; 0 if it is of none. */
uint64_t apps_name(const struct apps *apps, const struct block_key *first);

#endif
