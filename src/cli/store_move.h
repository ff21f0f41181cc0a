/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/store_move.h - `yolk store copy|move|task`: values go to nodes that are named
 * (yolk/store_task.h). Threads: one. */
#ifndef CLI_STORE_MOVE_H
#define CLI_STORE_MOVE_H

struct cli;

/* What the process exits with: of copy and move, unless they are not to wait, that of the task. */
int store_copy(struct cli *cli);
int store_move(struct cli *cli);
int store_task(struct cli *cli);

#endif
