/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/failure.h - machines of mooncake that stop, and come back.
 *
 * When a machine stops, everybody it worked for, or was about to, is placed again at once, as the
 * live gateway does: with its prompt and all tokens it has had, not judged by overload policies a
 * second time; from the second failure in a row on after a pause that doubles from 50 ms to a
 * second, and after 16 in a row it is given up. A token ends the row. A prefill node is no longer
 * needed once all KV has arrived. What moved until then has moved: a cut flow counts on both
 * sides.
 *
 * Device memory and DRAM are lost, what lies on SSD is kept. The conductor suspects the machine at
 * once, removes it after fail_forget_s, and when it is back takes it in again: with a snapshot of
 * what it holds if it still knew it, as a new instance otherwise.
 *
 *     up -- stop --> suspected -- fail_forget_s --> removed
 *      ^                 | resync                      | add
 *      +-----------------+-----------------------------+
 *
 * Which machines stop, and when: a schedule, "p0@100+30 d2@15.5+60", where prefill node 0 stops
 * 100 s into the run for 30 s; and chance, by seed, a machine stopping after an exponential time of
 * mean mtbf_s, for mttr_s. A machine that is down is not stopped again.
 *
 * Memory: none. Threads: one. Limits: FAILURES_MAX in a schedule, each for
 * FAILURE_DOWN_S_MAX at most. */
#ifndef SIM_FAILURE_H
#define SIM_FAILURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { FAILURES_MAX = 64, FAILURE_DOWN_S_MAX = 4000000 };

struct failure {
    bool decode; /* a decode node; a prefill node otherwise */
    uint32_t node;
    double at_s, down_s;
};

/* STATUS_INVALID with the item in err. */
MUST_USE enum status failure_parse(const char *text, struct failure out[FAILURES_MAX],
                                   uint32_t *count, struct errmsg *err);

struct sim;
struct event;

void failure_begin(struct sim *sim);
void failure_stop(struct sim *sim, const struct event *event); /* who: machine; version: ms down */
void failure_return(struct sim *sim, uint32_t machine);
void failure_forget(struct sim *sim, uint32_t machine);
void failure_retry(struct sim *sim, uint32_t who);

#endif
