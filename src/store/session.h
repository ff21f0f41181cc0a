/* SPDX-License-Identifier: Apache-2.0
 *
 * store/session.h - what the two sides of a client's sessions share: calls and their items,
 * and transfers that leave together. Inside of a client; the interface is yolk/store_session.h.
 *
 * An API call only copies what it was given; its items are begun by session_begin() in the next
 * turn of the loop, so that all of what follows, up to the end of an item, happens in the loop.
 *
 *   I1  An item ends once, by session_item_end(), which may free its call: nothing of either is
 *       touched afterwards.
 *   I2  An item under way is known to one place at a time: a draft, a list of waiters, or as many
 *       transfers and readings as item->moving says.
 *
 * Threads: the env's loop thread. */
#ifndef STORE_SESSION_H
#define STORE_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/key.h"
#include "base/status.h"
#include "store/client_pin.h"
#include "store/proto.h"
#include "yolk/store_session.h"
#include "yolk/transfer.h"

struct draft; /* a value that is being written */
struct hold;  /* a value that is being read */
struct map;
struct read_part;
struct session_call;
struct source;
struct yolk_store;

enum session_op {
    SESSION_PUT_START,
    SESSION_PUT_WRITE,
    SESSION_PUT_END,
    SESSION_PUT_REVOKE,
    SESSION_GET_START,
    SESSION_GET_READ,
    SESSION_GET_END,
};

struct session_item {
    struct session_call *call;
    uint32_t index;
    struct block_key id;
    struct store_key key; /* as the master has it; in the call's block */
    size_t own_len;       /* bytes at its end that are the tenant's own key */
    const struct yolk_store_part *parts;
    uint32_t parts_count;
    uint64_t size; /* of all parts */
    bool ended;
    uint32_t moving; /* transfers and readings under way */
    enum status failed;
    struct yolk_transfer_segment segment;
    bool segment_open;

    struct draft *draft; /* put */
    struct hold *hold;   /* get: while it waits or reads */
    struct session_item *waiting_next;
    bool waiting;            /* on the hold's list */
    struct read_part *reads; /* one a part */
    struct source *source;   /* that it reads from */
    bool reread;             /* wrong bytes came once, and were asked for again */
    uint8_t *bounce;
};

struct session_call {
    struct session_call *prev;
    struct session_call *next;
    struct sessions *sessions;
    enum session_op op;
    uint32_t count;
    uint32_t left;    /* items not ended */
    uint32_t counted; /* of the client's limit; of a start client_find() counts them */
    bool walking;     /* in session_begin(), which frees it */
    uint64_t deadline_ns;
    struct env_timer begin;
    struct env_timer late;
    struct yolk_store_call options;
    struct session_item items[];
};

/* A batch of transfers. */
struct session_moves {
    struct session_moves *prev;
    struct session_moves *next;
    struct sessions *sessions;
    struct yolk_transfer_batch batch;
};

struct sessions {
    struct yolk_store *store;
    struct map *drafts;         /* id -> struct draft *, those that can be named */
    struct map *holds;          /* id -> struct hold *, likewise */
    struct draft *drafts_first; /* all */
    struct hold *holds_first;   /* all */
    struct session_call *calls;
    struct session_moves *moves;
    struct yolk_transfer_request *requests; /* not submitted yet */
    uint32_t requests_count;
    uint32_t requests_max;
    struct pin_asks asks;  /* to be sent in this turn or the next */
    struct env_timer pins; /* sends them */
    uint64_t idle_ns;
};

MUST_USE enum status sessions_create(struct yolk_store *store, struct sessions **out);
/* Ends every item with STATUS_CANCELLED. The client is closing: its connections are gone, the
 * engine is gone or goes before the loop turns. NULL is allowed. */
void sessions_destroy(struct sessions *sessions);

/* ---- for the two sides ---- */

void session_item_end(struct session_item *item, enum status status, uint64_t size);

/* `size` bytes from `offset` are in a value of `value_size`, and there is somewhere to have them.
 */
bool session_part_valid(const struct yolk_store_part *part, uint64_t value_size);

/* Will be submitted by session_flush(). False: no memory. */
bool session_move(struct sessions *sessions, const struct yolk_transfer_request *request);
/* Submits them together. What cannot be submitted is called back from inside. Whoever is called
 * from the loop, and may have moved something, ends with this. */
void session_flush(struct sessions *sessions);

void *session_lookup(const struct map *map, const struct block_key *id);
/* When a try with an owner or a master ends, at the latest at `deadline_ns`. */
uint64_t session_try_until(const struct sessions *sessions, uint64_t deadline_ns);

/* ---- the put side (draft.c) ---- */

/* Asks for tickets; never calls back. Items whose end is known already have it in `failed`. */
void draft_starts(struct session_call *call, const struct yolk_store_value *values);
void draft_write(struct session_item *item);
void draft_end(struct session_item *item);
void draft_revoke(struct session_item *item);
void draft_free_all(struct sessions *sessions);

/* ---- the get side (hold.c) ---- */

/* As draft_starts(). */
void hold_starts(struct session_call *call);
/* One whose `failed` is not STATUS_PENDING. */
void hold_started(struct session_item *item);
void hold_read(struct session_item *item);
void hold_end(struct session_item *item);
/* The item's time is over, while it waits. */
void hold_late(struct session_item *item);
/* The engine and the connections are gone. */
void hold_item_abandon(struct session_item *item);
void hold_free_all(struct sessions *sessions);
void hold_pins(void *sessions);

#endif
