/* SPDX-License-Identifier: Apache-2.0
 *
 * store/board.h - what an owner posts for readers of its host, in memory that they share.
 *
 * Who remembers a value (store/known.h) asks its owner whether that is still so. On one host the
 * question, a wake-up and the answer take longer than copying the value. So each owner has a board:
 *
 *     identity: epoch of the owner | vouched until (ns) | a counter for each of BOARD_SLOTS
 *
 * A value's counter, which it shares with those whose identities end alike, goes up whenever the
 * owner gets a value, or has one no more. A reader looks at the counter before it asks the owner
 * for the value. As long as the board says the same afterwards, the owner would answer the same,
 * and vouch for it, so it need not be asked. That what was said then is still so is all that a
 * board says; what has changed only the owner knows.
 *
 *   I1  The owner counts a change before anybody hears of it: before it answers who told it to drop
 *       or to commit, and before other bytes lie where the value lay.
 *   I2  The board vouches only while the owner does (store/node_trust.h): for as long as it would
 *       without hearing of its master again, and no longer than until it learns otherwise, which
 *       is posted before that is answered.
 *   I3  A reader that finds, in this order, that the owner's process lives, that it vouches, that
 *       the counter is what it was, and that the time is not over, has seen all of these hold at
 *       one moment since it began to look. A dead owner posts nothing; its successor has a board
 *       of its own.
 *
 * Clocks: both ends read the monotonic clock of the host. Where a reader's is set apart (time
 * namespaces), a promise that is longer than promises are is not believed.
 *
 * Threads: the env's loop thread of each; the atomics are written by the owner alone, with release,
 * and read with acquire by other processes.
 * Memory:  BOARD_SIZE at the owner, and mapped by each reader of BOARDS_MAX owners. */
#ifndef STORE_BOARD_H
#define STORE_BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/key.h"
#include "base/status.h"

enum {
    BOARD_SLOTS = 1 << 16,
    BOARD_SIZE = 64 + 4 * BOARD_SLOTS, /* bytes */
    BOARDS_MAX = 16,                   /* owners whose boards a reader looks at */
    BOARD_RETRY_MS = 1000,             /* one that cannot be seen is looked for so often */
};

/* ---- the owner's side ---- */

struct board; /* opaque */

/* `name` is for readers; `epoch` is the owner's, not 0. STATUS_NO_MEMORY, or no memory can be
 * shared: then nobody posts anything. */
MUST_USE enum status board_create(struct env *env, uint64_t epoch, struct board **out);
void board_destroy(struct board *board); /* NULL is allowed */

/* All of these take NULL: there is no board. "" then. */
const char *board_name(const struct board *board);
/* The owner vouches until then; 0: it does not. */
void board_post(struct board *board, uint64_t until_ns);
/* What the owner has under this identity is another value, or none. */
void board_changed(struct board *board, const struct block_key *id);

/* ---- the readers' side ---- */

struct boards; /* opaque: those that one client looks at */

/* STATUS_NO_MEMORY. */
MUST_USE enum status boards_create(struct env *env, struct boards **out);
void boards_destroy(struct boards *boards); /* NULL is allowed */

/* The owner of this epoch says that it has a board of this name; it may be on another host. */
void boards_heard(struct boards *boards, uint64_t epoch, const char *name);

/* The value's counter at the owner of this epoch. False: its board is not seen from here. */
bool boards_look(struct boards *boards, uint64_t epoch, const struct block_key *id,
                 uint32_t *stamp);

/* The value's counters will be looked at soon: they come from memory meanwhile. */
void boards_expect(const struct boards *boards, const struct block_key *id);

/* From here on owners have to be found alive anew: a call begins. */
void boards_turn(struct boards *boards);
/* At some moment since boards_turn() the owner lived, vouched, and the value's counter was `stamp`;
 * false: it may be so, but its owner must be asked. */
bool boards_same(struct boards *boards, uint64_t epoch, const struct block_key *id, uint32_t stamp);

#endif
