/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_call.h - a call of a client and its items, between the files that take it along:
 *
 *   client.c       starting, the exchange with the master, life
 *   client_call.c  how items and calls end; transfers, submitted together
 *   client_put.c   from the ticket to the acknowledgement
 *   client_get.c   from the replicas to the value
 *   client_guess.c its owner, asked before the master has said who that is
 *
 * States and invariants: client.c. Threads: the env's loop thread. */
#ifndef STORE_CLIENT_CALL_H
#define STORE_CLIENT_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/status.h"
#include "store/client_int.h"
#include "store/client_pin.h"
#include "store/proto.h"
#include "yolk/store.h"
#include "yolk/transfer.h"

struct buf;
struct guess;
struct reading;
struct rpc_client;
struct rpc_result;

enum { CLIENT_OWNER_TRY_MS = 2000, CLIENT_BACKOFF_MAX_MS = 100 };

enum call_kind {
    CALL_PUT,
    CALL_GET,
    CALL_EXIST,
    CALL_REMOVE,
    CALL_REPLICAS,
    CALL_CLEAR,
    CALL_TICKET, /* of a put only its ticket, of a get only its places: client_find() */
    CALL_PLACES,
};

enum item_state {
    ITEM_WAITING, /* for the next exchange with the master */
    ITEM_ASKING,  /* in the exchange under way */
    ITEM_PINNING, /* get: store.acquire is under way */
    ITEM_KNOWN,   /* get: the owner is asked whether what is remembered is still so, and the bytes
                        move meanwhile */
    ITEM_MOVING,  /* a transfer, or a reading, is under way */
    ITEM_COMMITTING, /* put: store.commit is under way, or about to be tried again */
    ITEM_DOUBLE,     /* put: of the key of an earlier item, and ends after that */
    ITEM_REFUSED,    /* asked wrongly: ends when the loop turns */
    ITEM_DONE,
};

/* get, of what is remembered: the owner's word, and the bytes. */
enum item_word { WORD_ASKED, WORD_SAME, WORD_OTHER };
enum item_bytes { BYTES_NONE, BYTES_MOVING, BYTES_GOOD, BYTES_BAD };

struct item {
    struct call *call;
    uint32_t index;
    enum item_state state;
    struct store_key key; /* in the call's copy */
    void *data;
    uint64_t size;    /* put: of the value; get: of the buffer, later of the value */
    uint64_t length;  /* get: of the value */
    enum status last; /* why the last try failed; done: its end */
    uint32_t first;   /* double: the item of its key */

    struct client_place *places; /* get: replicas; put: the ticket's one */
    uint32_t places_count;
    uint32_t places_next;
    bool near;   /* get: the first place is on this host, and others are not */
    bool reread; /* get: wrong bytes came once, and were asked for again */
    struct rpc_client *owner;
    struct yolk_transfer_segment segment;
    struct item *moving_next; /* in the call's list */
    bool segment_open;

    uint64_t put_id; /* put */
    struct store_attributes attributes;
    uint64_t term;
    uint64_t write_until_ns;
    uint64_t *sums; /* put: ours; get: the owner's */
    uint32_t sums_count;
    uint32_t piece_size; /* bytes under each */
    bool range;          /* get: not the whole value, but size bytes from offset */
    uint64_t offset;     /* in the value */
    uint64_t span_at;    /* get: what is read, in whole pieces */
    uint64_t span_len;
    uint8_t *bounce;  /* get: where to, if not into the buffer itself */
    uint64_t told_ns; /* get: when the master was asked for the places */
    uint32_t reads;   /* get: without the master, which is to hear of them */
    bool vouched;     /* get: they may be remembered */
    bool stamped;     /* get: and with them what the owner's board said: */
    uint32_t stamp;
    enum item_word word;     /* KNOWN */
    enum item_bytes bytes;   /* KNOWN */
    struct pin_ask ask;      /* get */
    struct guess *guess;     /* get: what was asked beside the master, or NULL */
    bool guessed;            /* get: what moves is so, and nothing is pinned */
    struct client_pin *pin;  /* get: of what is moving; shared with others of the owner */
    struct reading *reading; /* get: of memory of this host, under way */
    struct env_timer retry;  /* put: the next try of a commit */
};

/* Transfers of items that were submitted together. */
struct moves {
    struct moves *prev;
    struct moves *next;
    struct call *call;
    struct yolk_transfer_batch batch;
};

struct call {
    struct call *prev;
    struct call *next;
    struct yolk_store *store;
    enum call_kind kind;
    struct item *items; /* and behind them their keys: one block */
    uint32_t count;
    uint32_t left;    /* items not done */
    uint32_t doubles; /* of those, ITEM_DOUBLE */
    uint32_t inner;   /* callbacks that may still come: RPCs and transfers of items */
    bool asking;      /* the exchange with the master is under way */
    uint64_t asked_ns;
    uint64_t deadline_ns;
    uint64_t writer;
    uint32_t backoff_ms;
    bool wishes;           /* put: some value has a group, cost or depth */
    struct pin_asks asks;  /* get: for the next exchanges with owners, in this turn or the next */
    struct env_timer pins; /* sends them */
    struct item *moving;   /* to be submitted before this turn ends, the last one first */
    uint32_t moving_count;
    uint64_t moving_size; /* bytes */
    struct moves *moves;
    struct env_timer again;   /* the next exchange, or the deadline */
    struct env_timer refuse;  /* ends those that are ITEM_REFUSED */
    client_found_fn on_found; /* ticket, places; or, of places: */
    yolk_store_described_fn on_described;
    void *described_ctx;
    struct yolk_store_call options;
    char preferred[STORE_NAME_SIZE];
    const char *names; /* to try after it, as of struct store_wish; behind the keys; "": none */
    size_t names_len;  /* with all NULs; 0: none */
};

/* ---- client_call.c ---- */

/* XXH3-64 of piece i of the `size` bytes of the value, of which the item's memory has the span. */
uint64_t client_item_sum(const struct item *item, uint64_t size, uint32_t i);

/* Tells the user. The call may be gone after client_call_settle(), which the outermost caller
 * does. */
void client_item_done(struct item *item, enum status status, uint64_t size);
/* Ticket, places: tells what the master said, and then the user. The places are the callee's. */
void client_item_found(struct item *item, uint64_t size);
/* The master is asked again for this item, after a pause, or never: `why` is its end then. */
void client_item_again(struct item *item, enum status why);

/* An RPC of an item: on_end will run, and `inner` is counted until client_call_out(). */
MUST_USE enum status client_item_rpc(struct item *item, struct rpc_client *client, uint16_t method,
                                     const struct buf *buf, uint64_t deadline_ns,
                                     void (*on_end)(void *ctx, const struct rpc_result *result));
void client_call_out(struct call *call);

/* The last one out frees the call (I1). */
void client_call_settle(struct call *call);
/* All of its items have ended, and nothing is under way. */
void client_call_free(struct call *call);

bool client_call_late(const struct call *call);
/* In so many milliseconds, or at the deadline, or when it was going to before. */
void client_call_ask_in(struct call *call, uint32_t ms);
/* `ms` from now, or the deadline. */
uint64_t client_try_until(const struct call *call, uint32_t ms);

/* Lets go of what the item has: all of it; memory for a span; a pin. */
void client_item_reset(struct item *item);
void client_bounce_free(struct item *item);
void client_pin_end(struct item *item);

/* The item's bytes move once its caller has come to client_call_move(). */
MUST_USE enum status client_item_move(struct item *item);
/* Submits what client_item_move() has put on the list: with one call, so that many small values
 * leave with few packets. */
void client_call_move(struct call *call);

/* ---- client_put.c ---- */

/* Item i of the reply. */
void client_put_ticket(struct item *item, const struct store_places *reply, uint32_t i);
/* The try is certainly over without a value: from the start, if there is time. */
void client_put_failed(struct item *item, enum status why);
/* The bytes are there. */
void client_put_moved(struct item *item);
/* A timer's: `ctx` is the item. */
void client_put_on_retry(void *ctx);

/* ---- client_get.c ---- */

/* Of a new call: each item is KNOWN, and its owner to be asked, or stays WAITING. False: none of
 * them waits. */
bool client_gets_start(struct call *call);
/* Once that has been sent: its bytes move. */
void client_get_early(struct item *item);

/* Item i of the reply, whose replicas begin with `first`. */
void client_get_places(struct item *item, const struct store_places *reply, uint32_t i,
                       uint32_t first);
/* The bytes are here, not verified yet. */
void client_get_moved(struct item *item);
/* They did not come. */
void client_get_unmoved(struct item *item);
/* An owner has spoken: for whom it has a board. */
void client_get_heard(struct call *call, const struct pin_answer *answer);
/* The owner that was guessed has spoken: whether the wanted bytes came with the answer, are right,
 * and now in the item's buffer; and that it has. */
bool client_get_keep(struct item *item, const struct pin_answer *answer);
void client_get_guessed(struct item *item);
/* Asks the owners for all that is wanted of them. */
void client_call_pin(struct call *call);
/* A timer's, for the same: `ctx` is the call. */
void client_get_on_pins(void *ctx);

#endif
