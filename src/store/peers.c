/* SPDX-License-Identifier: Apache-2.0
 *
 * store/peers.c - a table of connections, searched by address.
 *
 * A few dozen peers are normal, so a scan of short strings is cheaper than anything clever. A
 * connection lives as long as the table: it may be inside its own callback whenever somebody asks
 * for another. */
#include "store/peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "net/rpc.h"
#include "store/member.h"

struct peer {
    char address[STORE_ADDRESS_SIZE];
    struct rpc_client *client;
};

struct store_peers {
    struct env *env;
    char *secret;
    char name[RPC_NAME_SIZE];
    struct peer *list;
    uint32_t count;
    uint32_t capacity;
};

enum status store_peers_create(struct env *env, const char *secret, const char *name,
                               struct store_peers **out)
{
    struct store_peers *peers = calloc(1, sizeof(*peers));
    if (peers == NULL) return STATUS_NO_MEMORY;
    peers->env = env;
    peers->secret = strdup(secret == NULL ? "" : secret);
    if (peers->secret == NULL) {
        free(peers);
        return STATUS_NO_MEMORY;
    }
    snprintf(peers->name, sizeof(peers->name), "%s", name == NULL ? "" : name);
    *out = peers;
    return STATUS_OK;
}

void store_peers_destroy(struct store_peers *peers)
{
    if (peers == NULL) return;
    for (uint32_t i = 0; i < peers->count; i++)
        rpc_client_destroy(peers->list[i].client);
    free(peers->list);
    free(peers->secret);
    free(peers);
}

static enum status list_reserve(struct store_peers *peers)
{
    if (peers->count < peers->capacity) return STATUS_OK;
    if (peers->count == STORE_PEERS_MAX) return STATUS_FULL;
    const uint32_t capacity = peers->capacity == 0 ? 8 : 2 * peers->capacity;
    struct peer *list = realloc(peers->list, capacity * sizeof(*list));
    if (list == NULL) return STATUS_FULL;
    peers->list = list;
    peers->capacity = capacity;
    return STATUS_OK;
}

enum status store_peers_get(struct store_peers *peers, const char *address, struct rpc_client **out)
{
    if (strlen(address) >= STORE_ADDRESS_SIZE) return STATUS_INVALID;
    for (uint32_t i = 0; i < peers->count; i++) {
        if (strcmp(peers->list[i].address, address) != 0) continue;
        *out = peers->list[i].client;
        return STATUS_OK;
    }
    enum status status = list_reserve(peers);
    if (status != STATUS_OK) return status;

    struct peer *peer = &peers->list[peers->count];
    const struct rpc_client_options options = { .address = address,
                                                .secret = peers->secret,
                                                .name = peers->name };
    status = rpc_client_create(peers->env, &options, &peer->client, NULL);
    if (status != STATUS_OK) return status;
    ASSERT(peer->client != NULL);
    snprintf(peer->address, sizeof(peer->address), "%s", address);
    peers->count++;
    *out = peer->client;
    return STATUS_OK;
}
