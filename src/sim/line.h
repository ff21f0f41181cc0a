/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/line.h - who waits at a node. Unlike a sim_queue, one request may stand in several lines,
 * come in anywhere, and leave from the middle.
 *
 * Memory:  grows with the longest line.
 * Threads: one. */
#ifndef SIM_LINE_H
#define SIM_LINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct line {
    uint32_t *who; /* ring */
    uint32_t head, count, cap;
};

void line_init(struct line *line);
void line_fini(struct line *line);

/* Before the one that is at `index`; index <= count. STATUS_NO_MEMORY. */
MUST_USE enum status line_insert(struct line *line, uint32_t who, uint32_t index);
uint32_t line_at(const struct line *line, uint32_t index); /* 0: the first; index < count */
uint32_t line_pop(struct line *line);                      /* not empty */
bool line_leave(struct line *line, uint32_t who); /* once, wherever it is; false: it is not there */

#endif
