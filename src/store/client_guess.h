/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_guess.h - who is likely to have a value, asked while the master is asked who has it.
 * Inside of a client.
 *
 * Values that are read one after the other often lie at one owner: a prompt's blocks, or all there
 * is. So when what was read lately lay at one owner, that one is asked for the next values, too,
 * with a look (nothing is pinned) and at the same time as the master. If the master then says that
 * the value is there, at that place and of that size, its owner has been asked already, which is
 * one exchange less; a small value has come with its word. Whatever else was said is forgotten, and
 * the get goes on as if nobody had been asked.
 *
 *   I1  A guess is used only if the master, asked in the same call, names that owner and place, and
 *       the owner vouched for it (store/node_trust.h): its word may be older than the master's, and
 *       what was replaced in between must not be read after the call has begun.
 *   I2  Of wrong guesses there is at most one exchange for GUESS_STREAK values: a wrong one ends
 *       the streak, and so does an owner that does not vouch, as those of the release before.
 *
 * Threads: the env's loop thread. Memory: of a guess some 200 bytes and its checksums, until it has
 * been used or forgotten. */
#ifndef STORE_CLIENT_GUESS_H
#define STORE_CLIENT_GUESS_H

#include <stdbool.h>
#include <stdint.h>

#include "store/client_pin.h"
#include "store/proto.h"

struct call;
struct item;

enum { GUESS_STREAK = 4 };

/* What a client expects: the owner of what was read last, and how many in a row it had. */
struct guesses {
    struct store_reply_node node;
    uint32_t streak;
    uint64_t right; /* values that were read by a guess */
};

/* A value was read at this owner. */
void guesses_saw(struct guesses *guesses, const struct store_reply_node *node, bool vouched);
void guesses_wrong(struct guesses *guesses);

/* One value asked for by a guess. */
struct guess {
    struct pin_ask ask;
    struct call *call;
    struct item *item; /* NULL: forgotten */
    bool open;         /* the owner has not answered */
    bool good;         /* it has the value, and vouches for it: the rest says what it has */
    bool inlined;      /* and the bytes that are wanted are in the item's buffer, verified */
    uint64_t epoch;    /* of the owner */
    uint64_t address;
    uint64_t size;
    uint32_t piece_size;
    uint32_t sums_count;
    uint64_t *sums; /* may be taken */
};

/* If there is somebody to be asked, item->guess is; client_call_pin() sends it. When the answer is
 * there, client_get_guessed() hears of it, unless it was forgotten. */
void client_guess_start(struct item *item);
/* item->guess is NULL. */
void client_guess_forget(struct item *item);

#endif
