/* SPDX-License-Identifier: Apache-2.0
 *
 * yolk/store_lend.h - memory of this process lent to the KVCache pool (yolk/store.h), as an engine
 * does that is a client and an owner at once: what it calls mounting a segment. Any process may
 * lend several times, and take each back, while its clients go on.
 *
 *             create             on_joined         withdraw, on_end           destroy
 *   (nothing) ------> JOINING -------------> LENT ------------------> EMPTY ---------> (nothing)
 *
 * JOINING retries for ever; yolk_store_lend_joined() says why it is not over. LENT: the master may
 * place values here, and a master that starts anew is told what is here. Withdrawing: nothing new
 * comes; values that only this memory has are copied to others that have room, and are read here
 * meanwhile. Destroyed at any time: what nobody else has is gone, as if the process had been
 * killed, but at once.
 *
 * What is lent has a listener and a transfer engine of its own, which end with it; a client of the
 * same process with an engine of its own reads and writes it through shared memory.
 *
 * Memory:  `size` bytes, untouched until used, and about 100 bytes for each value.
 * Threads: the env's loop thread, which has to turn for others to be served.
 * Limits:  YOLK_STORE_NODES_MAX in a cluster; sizes from YOLK_STORE_LEND_SIZE_MIN to _MAX, and what
 *          the system can map. */
#ifndef YOLK_STORE_LEND_H
#define YOLK_STORE_LEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct env;
struct yolk_store_lend; /* opaque */
struct yolk_transfer;
struct yolk_transfer_options;

enum { YOLK_STORE_LEND_SIZE_MIN = 4096 };
#define YOLK_STORE_LEND_SIZE_MAX (UINT64_C(1) << 40)

typedef void (*yolk_store_lend_fn)(void *ctx, enum status status);

struct yolk_store_lend_options {
    struct env *env;
    const char *master;         /* RPC address, "host:port"; copied */
    const char *secret;         /* of the cluster; NULL or "" for none; copied */
    const char *name;           /* of this memory, one of its own in the cluster: `preferred` of
                                   puts; up to YOLK_STORE_NAME_SIZE - 1 bytes; NULL or "": the
                                   address that others ask it at; copied */
    const char *listen;         /* "host:port" of that, port 0 for any; NULL: "127.0.0.1:0" */
    const char *advertise_host; /* the host that others are told; NULL: that of `listen` */
    const struct yolk_transfer_options *transfer; /* of the engine that others read with, but for
                                   `secret` and, if it is NULL, `listen`, which is any port of the
                                   host above; NULL: all as they are by themselves */
    uint64_t size;                                /* bytes; of each 4096 all or nothing */
    const char *directory;        /* of a disk below it, where values go that have no room; NULL or
                                   "": none. An eighth of `size` is not lent then; less than eight
                                   times 4096 bytes have no disk */
    uint64_t disk_size;           /* bytes it may use there */
    bool populate;                /* its pages are made at once, which blocks */
    yolk_store_lend_fn on_joined; /* with STATUS_OK, whenever a master takes it in; may be NULL */
    void *ctx;
};

/* STATUS_INVALID: a size, name or address out of range; what listening, mapping memory or opening
 * the directory said. */
MUST_USE enum status yolk_store_lend_create(const struct yolk_store_lend_options *options,
                                            struct yolk_store_lend **out, struct errmsg *err);

/* Valid as long as it is. */
const char *yolk_store_lend_name(const struct yolk_store_lend *lend);

/* The engine that others read it with. A client that uses it reads what is lent here as its own
 * memory; yolk_store_destroy() is then called right before yolk_store_lend_destroy(), which is the
 * end of the engine, and of all memory registered with it. */
struct yolk_transfer *yolk_store_lend_transfer(const struct yolk_store_lend *lend);

/* STATUS_OK: a master has taken it in. STATUS_AGAIN: none has answered yet. STATUS_EXISTS: another
 * node of this name is alive; STATUS_DENIED or STATUS_INVALID: refused, see the log. The last three
 * may change by themselves: it goes on asking. */
enum status yolk_store_lend_joined(const struct yolk_store_lend *lend);

/* on_end, from the loop, once: STATUS_OK when nothing is left here that only this memory has and
 * others have room for; else why the master could not say. It does not come after destroy. Asked
 * for a second time: STATUS_BUSY. */
MUST_USE enum status yolk_store_lend_withdraw(struct yolk_store_lend *lend,
                                              yolk_store_lend_fn on_end, void *ctx);

/* Readers and writers under way fail, or go on with other replicas. Not from inside a callback of
 * this or of a client. NULL is allowed. */
void yolk_store_lend_destroy(struct yolk_store_lend *lend);

#endif
