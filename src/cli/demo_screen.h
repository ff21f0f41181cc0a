/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/demo_screen.h - the live table of `yolk demo`: one row a run, redrawn in place on a terminal,
 * plain lines now and then where stdout is something else.
 *
 * Threads: one.
 * Memory:  the caller's.
 * Limits:  DEMO_RUNS_MAX rows, DEMO_SECONDS_MAX seconds each. */
#ifndef CLI_DEMO_SCREEN_H
#define CLI_DEMO_SCREEN_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/replay.h"

enum { DEMO_RUNS_MAX = 5, DEMO_SECONDS_MAX = 300, DEMO_NAME_SIZE = 16, DEMO_HEADER_SIZE = 512 };

enum demo_state { DEMO_WAITING, DEMO_WARMING, DEMO_RUNNING, DEMO_ENDED };

struct demo_run {
    char name[DEMO_NAME_SIZE];
    enum demo_state state;
    double seconds; /* since it began */
    struct replay_counts counts;
    uint32_t good_by_second[DEMO_SECONDS_MAX]; /* answers that were good, by when they ended */
    struct replay_result result;               /* once ended */
};

struct demo_screen {
    char header[DEMO_HEADER_SIZE]; /* lines above the table, each ended by \n */
    double rate;                   /* of requests, a second: the full height of the chart */
    double send_seconds;           /* how long requests are sent */
    uint32_t runs_count;
    struct demo_run runs[DEMO_RUNS_MAX];
    bool silent; /* draw nothing */
    bool terminal, colour;
    bool drawn;          /* a table is there, to be drawn over */
    double said_seconds; /* of the last plain line */
};

/* Finds out what stdout is. */
void demo_screen_init(struct demo_screen *screen);

/* Draws the state of things; `run` is the one under way. Call it a few times a second. */
void demo_screen_draw(struct demo_screen *screen, const struct demo_run *run);

/* The table of what came out, below. */
void demo_screen_finish(struct demo_screen *screen);

/* Good answers a second while requests were sent; share of all requests that were. */
double demo_goodput(const struct demo_screen *screen, const struct demo_run *run);
double demo_good_share(const struct demo_run *run);

#endif
