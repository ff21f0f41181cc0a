/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_pin.h - values pinned at their owners, many with one exchange. Inside of a client.
 *
 * Who wants a value puts a struct pin_ask on a list, for which storage is the asker's own;
 * pin_asks_send() makes exchanges of it: each owner is asked once for as many as fit one. Every ask
 * that was sent is answered once, in the order of the list, from the loop. What is not inline in
 * the answer is pinned until all who hold the exchange's pin have let go of it: then the owner is
 * told, once. Until then the pin is renewed every third of the owner's lease.
 *
 *   I1  An owner is asked for at most PIN_VALUES_MAX values, and PIN_BYTES_MAX bytes or one value,
 *       at a time: what it pins for us is bounded. Small values may come inline only if all those
 *       of an exchange are PIN_INLINE_MAX bytes at most: RPC is slower than READs with more.
 *   I2  A value is absent only if its owner says so about it alone. One that is missing among
 *       others may be on the owner's disk, or be a block of KVCache.
 *
 * Threads: the env's loop thread. */
#ifndef STORE_CLIENT_PIN_H
#define STORE_CLIENT_PIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "net/msg.h"

struct client_pin; /* opaque */
struct env;
struct rpc_client;

enum { PIN_VALUES_MAX = 1024, PIN_BYTES_MAX = 64 << 20, PIN_INLINE_MAX = 64 << 10 };

/* What the owner says of one value. */
struct pin_answer {
    enum status status;  /* STATUS_OK: it is there; STATUS_NOT_FOUND: it is not; STATUS_AGAIN: ask
                               for it alone (I2); else why there is no answer */
    uint64_t address;    /* at the owner */
    uint64_t size;       /* bytes */
    uint32_t piece_size; /* bytes under one checksum, > 0 */
    struct msg_column sums; /* one a piece; borrowed during the callback */
    const uint8_t *bytes;   /* all of them, borrowed during the callback; NULL: not inline */
    bool vouched;           /* may be remembered: see struct store_acquired */
    uint64_t epoch;         /* of the owner */
    const char *board;      /* of it, borrowed during the callback; NULL without an answer */
    bool more;              /* answers of the same exchange follow at once */
    struct client_pin
        *pin; /* the asker's, until client_pin_unref(); NULL if inline, or looked at */
};

struct pin_ask {
    struct pin_ask *next; /* private */
    struct rpc_client *owner;
    struct block_key id;
    uint64_t size; /* as far as is known */
    bool alone;    /* shares its exchange with no other */
    bool look;     /* nothing is to be pinned: see struct store_acquire; only with its like */
    void (*on_answer)(void *ctx, const struct pin_answer *answer);
    void *ctx;
};

/* All zero: empty. */
struct pin_asks {
    struct pin_ask *first;
    struct pin_ask *last;
};

void pin_asks_add(struct pin_asks *asks, struct pin_ask *ask);

struct pin_terms {
    uint64_t deadline_ns; /* of an exchange */
    uint32_t inline_max;  /* values of no more bytes may come inline; 0: none */
};

/* Sends one exchange: to the owner of the first ask, with all others that it can have; they leave
 * the list, which is not empty. `*count` is how many. NULL: each of them will be answered, not
 * before this returns. Else they are returned, linked by `next`, because of `*why`, and will not be
 * answered. */
MUST_USE struct pin_ask *pin_asks_send(struct pin_asks *asks, struct env *env,
                                       const struct pin_terms *terms, uint32_t *count,
                                       enum status *why);

/* The last one tells the owner. */
void client_pin_unref(struct client_pin *pin);
/* The same without a word: the connection to the owner has been destroyed. */
void client_pin_drop(struct client_pin *pin);

/* The owner is to look at a value that was wrong for a reader, as store.doubt; one of before that
 * does not know that says so, and nothing follows. */
void client_pin_doubt(struct env *env, struct rpc_client *owner, const struct block_key *id);

/* The owner has not answered for so long that what was pinned may be another value's memory by
 * now; it may still answer, and prolong the pin. */
bool client_pin_lapsed(const struct client_pin *pin);

#endif
