/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_guess.c - see the header.
 *
 *   client_guess_start        answer
 *  -------------------> open --------> said --- used, or forgotten ---> freed
 *                         |  forgotten            ^
 *                         +--> without an item ---+ answer
 */
#include "store/client_guess.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "store/board.h"
#include "store/client_call.h"
#include "store/peers.h"

/* ---- whom to ask ---- */

void guesses_saw(struct guesses *guesses, const struct store_reply_node *node, bool vouched)
{
    if (!vouched) {
        guesses->streak = 0;
    } else if (guesses->streak > 0 && guesses->node.epoch == node->epoch) {
        guesses->streak += guesses->streak < GUESS_STREAK;
    } else {
        guesses->node = *node;
        guesses->streak = 1;
    }
}

void guesses_wrong(struct guesses *guesses)
{
    guesses->streak = 0;
}

/* ---- a guess ---- */

static void guess_free(struct guess *guess)
{
    free(guess->sums);
    free(guess);
}

void client_guess_forget(struct item *item)
{
    struct guess *guess = item->guess;

    item->guess = NULL;
    if (guess == NULL) return;
    guess->item = NULL;
    if (!guess->open) guess_free(guess);
}

/* Keeps what the owner says. False: it is of no use. */
static bool guess_take(struct guess *guess, const struct pin_answer *answer)
{
    if (answer->status != STATUS_OK || !answer->vouched) return false;
    guess->sums = malloc(answer->sums.count * sizeof(*guess->sums));
    if (guess->sums == NULL) return false;
    guess->sums_count = (uint32_t)answer->sums.count;
    for (uint32_t i = 0; i < guess->sums_count; i++)
        guess->sums[i] = msg_u64_at(answer->sums, i);
    guess->address = answer->address;
    guess->size = answer->size;
    guess->piece_size = answer->piece_size;
    guess->inlined = client_get_keep(guess->item, answer);
    return true;
}

static void on_guessed(void *ctx, const struct pin_answer *answer)
{
    struct guess *guess = ctx;
    struct call *call = guess->call;
    ASSERT(guess->open && answer->pin == NULL);

    client_call_out(call);
    client_get_heard(call, answer);
    guess->open = false;
    if (guess->item == NULL) {
        guess_free(guess);
    } else if (!call->store->closing) {
        guess->good = guess_take(guess, answer);
        client_get_guessed(guess->item);
    }
    if (call->store->closing) return;
    if (!answer->more) client_call_move(call);
    client_call_settle(call);
}

void client_guess_start(struct item *item)
{
    struct call *call = item->call;
    const struct guesses *guesses = &call->store->guesses;
    struct rpc_client *owner;
    ASSERT(item->guess == NULL);

    if (guesses->streak < GUESS_STREAK) return;
    if (store_peers_get(call->store->peers, guesses->node.rpc_address, &owner) != STATUS_OK) return;
    struct guess *guess = calloc(1, sizeof(*guess));
    if (guess == NULL) return;
    *guess = (struct guess){ .call = call,
                             .item = item,
                             .open = true,
                             .epoch = guesses->node.epoch,
                             .ask = { .owner = owner,
                                      .id = item->ask.id,
                                      .size = item->size,
                                      .look = true,
                                      .on_answer = on_guessed,
                                      .ctx = guess } };
    item->guess = guess;
    item->stamped = boards_look(call->store->boards, guess->epoch, &item->ask.id, &item->stamp);
    pin_asks_add(&call->asks, &guess->ask);
}
