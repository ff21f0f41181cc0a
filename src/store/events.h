/* SPDX-License-Identifier: Apache-2.0
 *
 * store/events.h - what a node holds, as seen from afar: a copy that follows the node's own
 * manifest.
 *
 * A subscriber first gets a snapshot (everything held, as STORED events), then every change in
 * order. Each node numbers its events; a gap, a new life of the node or a lost connection starts
 * again with on_reset and a new snapshot, so a subscriber needs no repair logic: it forgets all it
 * knew of the node and listens. Used by the gateway (prefix index) and by the master (directory).
 *
 *   on_reset -> on_events* -> on_synced -> on_events* -> on_lost -> on_reset -> ...
 *
 * Threads: the env's loop thread.
 * Limits:  STORE_EVENTS_BATCH_MAX events a call; a subscriber too slow for the node's log
 *          (STORE_EVENT_LOG_MAX) is started again from a snapshot. */
#ifndef STORE_EVENTS_H
#define STORE_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"

struct env;
struct store_subscription; /* opaque */

enum {
    STORE_EVENTS_BATCH_MAX = 1024,
    STORE_EVENT_LOG_MAX = 65536,
};

enum store_event_kind {
    STORE_EVENT_STORED = 1,
    STORE_EVENT_REMOVED = 2,
    STORE_EVENT_EXTENT = 3, /* to the master only: [address, address + size) is lent to the term */
};

enum store_tier {
    STORE_TIER_MEMORY = 0,
    STORE_TIER_DISK = 1, /* of a block: acquiring it brings it up, which takes a moment */
};

enum store_class {
    STORE_CLASS_BLOCK = 0,  /* a KV block: the key has 16 bytes, a struct block_key */
    STORE_CLASS_OBJECT = 1, /* a value that was put by key */
};

/* What was said about a value when it was put. Its owner keeps it, and announces it with the value.
 * All zero: nothing was. */
struct store_attributes {
    uint64_t group;       /* those of a group are kept, and go, together; 0: none */
    uint64_t term;        /* of the master that granted the put; 0: not known. store/rank.h */
    uint32_t version;     /* a value of a higher one has replaced those of lower ones of its term */
    uint32_t cost;        /* of computing it again, ms */
    uint32_t soft_pin_ms; /* evicted last, for so long from now; 0: like any other */
    uint16_t depth;       /* blocks of the prompt that come before it */
    uint8_t replicas;     /* how many there should be; 0: one */
    bool hard_pin : 1;    /* never evicted */
    bool hot : 1;         /* it was copied for its heat: there may be more of them; nobody's wish */
};

struct store_event {
    enum store_event_kind kind;
    enum store_class class;
    struct block_key id;  /* of a block: its key; of an object: see store_key_id() */
    const uint8_t *key;   /* STORED object only, else NULL; borrowed during the callback */
    uint32_t key_len;     /* of key */
    uint64_t generation;  /* counts up over the node's life; a REMOVED names what it removes */
    uint64_t address;     /* STORED only: where it is, for the transfer engine */
    uint64_t size;        /* STORED only: bytes */
    enum store_tier tier; /* STORED only; a master's subscription hears of MEMORY only */
    bool doubt;           /* STORED object: it may have been replaced without its node's knowing
                   (store/node_trust.h) */
    uint64_t digest; /* STORED in MEMORY: XXH3-64 over its checksums; equal bytes, equal digest */
    struct store_attributes attributes; /* STORED object only */
};

struct store_subscribe_options {
    struct env *env;
    const char *address; /* the node's RPC address; copied */
    const char *secret;  /* of the cluster; "" for none; copied */
    bool blocks_only;    /* leave out STORE_CLASS_OBJECT */
    uint64_t term;       /* the master's; 0 for others */
    /* All required but on_lost and on_synced. May call store_unsubscribe(). */
    void (*on_reset)(void *ctx, uint64_t epoch); /* forget what was known; a snapshot follows */
    void (*on_events)(void *ctx, const struct store_event *events, uint32_t count);
    void (*on_synced)(void *ctx); /* the snapshot is complete */
    void (*on_lost)(void *ctx);   /* the node cannot be heard; it is tried again */
    void *ctx;
};

/* Starts to listen and never gives up until store_unsubscribe(). Callbacks never run inside this
 * call. STATUS_INVALID for an address that does not parse. */
MUST_USE enum status store_subscribe(const struct store_subscribe_options *options,
                                     struct store_subscription **out, struct errmsg *err);

/* No callback runs after it. NULL is allowed. */
void store_unsubscribe(struct store_subscription *subscription);

#endif
