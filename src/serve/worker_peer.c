/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_peer.c - connections to decode nodes, one RPC client and one open segment for each;
 * and to other stages of a group, which are only called.
 *
 * Kept after use, because the next request likely goes to the same node; when the table is full the
 * one unused for longest goes, and any that has not been used for a minute (it may be dead, and its
 * client would knock for ever). A peer goes only from inside peer_acquire(), which is called from
 * server handlers, and peer_sweep_all(), called by a timer: never from a callback of its client. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "serve/worker_int.h"

static void peer_destroy(struct worker *worker, struct peer *peer)
{
    rpc_client_destroy(peer->client);
    peer_forget_segment(worker, peer);
    free(peer);
}

void peer_forget_segment(struct worker *worker, struct peer *peer)
{
    if (!peer->segment_open) return;
    (void)yolk_transfer_close(worker->transfer, peer->segment);
    peer->segment_open = false;
}

static struct peer *find(const struct worker *worker, const char *rpc_address,
                         const char *segment_name)
{
    for (uint32_t i = 0; i < worker->peers_count; i++) {
        struct peer *peer = worker->peers[i];
        if (strcmp(peer->rpc_address, rpc_address) != 0) continue;
        if (strcmp(peer->segment_name, segment_name) == 0) return peer;
    }
    return NULL;
}

/* Makes room for one more. */
static enum status evict(struct worker *worker)
{
    uint32_t oldest = WORKER_PEERS_MAX;
    if (worker->peers_count < WORKER_PEERS_MAX) return STATUS_OK;
    for (uint32_t i = 0; i < worker->peers_count; i++) {
        const struct peer *peer = worker->peers[i];
        if (peer->refs > 0) continue;
        if (oldest < WORKER_PEERS_MAX && worker->peers[oldest]->used_ns <= peer->used_ns) continue;
        oldest = i;
    }
    if (oldest == WORKER_PEERS_MAX) return STATUS_FULL;
    peer_destroy(worker, worker->peers[oldest]);
    worker->peers[oldest] = worker->peers[--worker->peers_count];
    return STATUS_OK;
}

static enum status create(struct worker *worker, const char *rpc_address, const char *segment_name,
                          struct peer **out)
{
    struct errmsg err = { "" };
    enum status status = evict(worker);
    if (status != STATUS_OK) return status;
    struct peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL) return STATUS_FULL;
    snprintf(peer->rpc_address, sizeof(peer->rpc_address), "%s", rpc_address);
    snprintf(peer->segment_name, sizeof(peer->segment_name), "%s", segment_name);
    const struct rpc_client_options options = { .address = peer->rpc_address,
                                                .secret = worker->secret,
                                                .name = worker->name };
    status = rpc_client_create(worker->env, &options, &peer->client, &err);
    if (status != STATUS_OK) {
        LOG_WARN("worker", "peer_refused", "peer=%s reason=%s", rpc_address, err.text);
        free(peer);
        return status;
    }
    worker->peers[worker->peers_count++] = peer;
    worker_sweep_later(worker);
    *out = peer;
    return STATUS_OK;
}

enum status peer_acquire(struct worker *worker, const char *rpc_address, const char *segment_name,
                         struct peer **out)
{
    struct peer *peer = find(worker, rpc_address, segment_name);
    if (peer == NULL) {
        const enum status status = create(worker, rpc_address, segment_name, &peer);
        if (status != STATUS_OK) return status;
    }
    if (!peer->segment_open && segment_name[0] != '\0') {
        const enum status status =
            yolk_transfer_open(worker->transfer, segment_name, &peer->segment);
        if (status != STATUS_OK) return status;
        peer->segment_open = true;
    }
    peer->refs++;
    peer->used_ns = env_now_ns(worker->env);
    *out = peer;
    return STATUS_OK;
}

void peer_unref(struct peer *peer)
{
    ASSERT(peer->refs > 0);
    peer->refs--;
}

void peer_sweep_all(struct worker *worker)
{
    const uint64_t now_ns = env_now_ns(worker->env);
    for (uint32_t i = 0; i < worker->peers_count;) {
        struct peer *peer = worker->peers[i];
        const bool idle = now_ns - peer->used_ns > WORKER_PEER_IDLE_MS * ENV_NS_PER_MS;
        if (peer->refs > 0 || !idle) {
            i++;
            continue;
        }
        peer_destroy(worker, peer);
        worker->peers[i] = worker->peers[--worker->peers_count];
    }
}

void peer_destroy_all(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->peers_count; i++)
        peer_destroy(worker, worker->peers[i]);
    worker->peers_count = 0;
}
