/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/progress.h - a bar on standard error for whoever waits at a terminal; nothing at all where
 * standard error is not one, and nothing for what is over in half a second.
 *
 * Threads: one. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct env;

struct progress {
    struct env *env;
    const char *unit; /* what is counted */
    bool terminal, drawn;
    bool uneven; /* set by the caller: what is left does not take as what is done; no estimate */
    uint64_t started_ns, drawn_ns;
};

/* `unit` is borrowed. */
void progress_begin(struct progress *progress, struct env *env, const char *unit);

/* `done` of `count`, at most ten times a second drawn. */
void progress_show(struct progress *progress, double done, uint32_t count);

/* Takes the bar away. */
void progress_end(struct progress *progress);

#endif
