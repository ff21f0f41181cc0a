/* SPDX-License-Identifier: Apache-2.0
 *
 * store/client_int.h - the inside of a client, shared by its files: those of client_call.h, and
 * client_look.c. */
#ifndef STORE_CLIENT_INT_H
#define STORE_CLIENT_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "store/proto.h"
#include "store/scope.h"

struct call;
struct env;
struct readings;
struct rpc_client;
struct store_peers;
struct yolk_transfer;

struct yolk_store {
    struct env *env;
    struct yolk_transfer *transfer;
    struct rpc_client *master;
    struct store_peers *peers;
    struct readings *readings;
    struct call *calls;
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

#endif
