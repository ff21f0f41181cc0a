/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_int.h - the inside of a client, shared by its files: those of client_call.h,
 * client_look.c, and sessions (store/session.h). */
#ifndef STORE_CLIENT_INT_H
#define STORE_CLIENT_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "store/client_guess.h"
#include "store/here.h"
#include "store/proto.h"
#include "store/scope.h"
#include "yolk/store.h"
#include "yolk/transfer.h"

struct boards;
struct call;
struct client_commits;
struct client_revokes;
struct env;
struct known;
struct readings;
struct rpc_client;
struct sessions;
struct store_peers;
struct yolk_transfer;

struct yolk_store {
    struct env *env;
    struct yolk_transfer *transfer;
    struct rpc_client *master;
    struct store_peers *peers;
    struct readings *readings;
    struct known *known; /* of values that were read */
    uint64_t known_gets; /* values that were read without the master */
    struct guesses guesses;
    struct here here; /* which owners are on this host */
    struct client_commits *commits;
    struct client_revokes *revokes;
    struct boards *boards; /* of owners on this host */
    uint64_t board_gets;   /* of known_gets: values that were read without their owners, too */
    struct call *calls;
    struct sessions *sessions;
    uint32_t items; /* under way */
    uint32_t items_max;
    uint32_t timeout_ms;
    uint64_t writers_seed; /* of the names under which this client's calls write */
    uint64_t writers;      /* so many were given out */
    uint32_t inline_max;   /* bytes of values that may come with the answer of their owner */
    struct store_reply_node *nodes; /* scratch for the master's replies */
    bool closing;
    char tenant[STORE_TENANT_SIZE]; /* "": the default one */
};

/* Bytes of the key as the master, nodes and disks have it (store/scope.h), or 0: too many. */
size_t client_key_len(const struct yolk_store *store, const struct yolk_store_key *key);
/* Writes them; `out` has room for so many. */
struct store_key client_key(const struct yolk_store *store, const struct yolk_store_key *key,
                            uint8_t *out);

/* Where a replica is, or is to be. */
struct client_place {
    struct store_reply_node node;
    uint64_t address;
    bool disk;   /* not in memory: its owner reads it first */
    bool yields; /* another one is to be preferred, even by readers of its host */
};

/* What the master said of a key. */
struct client_found {
    struct client_place *places; /* the callee's to free; to be written: the ticket's one */
    uint32_t places_count;       /* > 0 */
    uint64_t size;               /* of the value; to be written: as asked for */
    uint64_t put_id;             /* this and the rest: to be written */
    uint64_t writer;
    uint64_t term;
    uint64_t write_until_ns;
    struct store_attributes attributes; /* of the value, with its version */
};
typedef void (*client_found_fn)(void *ctx, uint32_t index, const struct client_found *found);

/* Asks the master where the values are, which leases them, or, to write, for a ticket for each of
 * them; as often as it takes, until the deadline. Nothing is moved. Of an item that ends with
 * STATUS_OK on_found() tells right before, with options->ctx. Fails as yolk_store_put() does. */
MUST_USE enum status client_find(struct yolk_store *store, const struct yolk_store_value *values,
                                 uint32_t count, bool write, const struct yolk_store_call *options,
                                 client_found_fn on_found);

/* A batch of its own for these requests; `on_done` comes once all of them have ended. An error:
 * nothing has begun, and *out is no batch. yolk_transfer_submit()'s statuses. */
MUST_USE enum status client_submit(struct yolk_transfer *transfer,
                                   const struct yolk_transfer_request *requests, uint32_t count,
                                   yolk_transfer_done_fn on_done, void *ctx,
                                   struct yolk_transfer_batch *out);

#endif
