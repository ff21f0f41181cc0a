/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/naming.c - our name on a metadata server, and the addresses of peers opened by theirs.
 *
 * Without a metadata server a segment's name is its address and nothing here does anything. With
 * one, our entry says where we listen and which start of the process does; peers dial that and
 * refuse to take another start for us. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transfer/transfer_int.h"

#define FAREWELL_NS ENV_NS_PER_S

static bool given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static void publish(struct yolk_transfer *transfer)
{
    struct metadata_entry entry = { .generation = transfer->generation,
                                    .published_s = env_wall_ns(transfer->env) / ENV_NS_PER_S };

    memcpy(entry.name, transfer->segment_name, sizeof(entry.name));
    memcpy(entry.address, transfer->name, sizeof(entry.address));
    for (uint32_t i = 0; i < transfer->topology.rail_count; i++) {
        const char *rail = transfer->topology.rails[i].listen;
        memcpy(entry.rails[entry.rail_count++], rail, strlen(rail) + 1);
    }
    metadata_publish(transfer->metadata, &entry);
}

enum status naming_start(struct yolk_transfer *transfer,
                         const struct yolk_transfer_options *options, struct errmsg *err)
{
    const char *name = given(options->segment) ? options->segment : transfer->name;
    const struct metadata_options metadata = {
        .url = options->metadata,
        .cluster = given(options->metadata_cluster) ? options->metadata_cluster
                                                    : getenv("MC_METADATA_CLUSTER_ID"),
        .ttl_ms = options->metadata_ttl_ms,
    };

    if (!given(options->metadata) || strcmp(options->metadata, "P2PHANDSHAKE") == 0)
        return STATUS_OK;
    if (!metadata_name_valid(name)) {
        return errmsg_set(err, STATUS_INVALID,
                          "transfer: a segment name is printable, without blanks, quotes and "
                          "backslashes, and shorter than %d",
                          YOLK_TRANSFER_NAME_SIZE);
    }
    const enum status status = metadata_create(transfer->env, &metadata, &transfer->metadata, err);
    if (status != STATUS_OK) return status;
    memcpy(transfer->segment_name, name, strlen(name) + 1);
    publish(transfer);
    return STATUS_OK;
}

void naming_farewell(struct yolk_transfer *transfer)
{
    if (transfer->metadata != NULL) metadata_farewell(transfer->metadata, FAREWELL_NS);
}

void naming_stop(struct yolk_transfer *transfer)
{
    metadata_destroy(transfer->metadata);
    transfer->metadata = NULL;
}

bool naming_is_ours(const struct yolk_transfer *transfer, const char *name)
{
    return strcmp(name, transfer->name) == 0 ||
           (transfer->metadata != NULL && strcmp(name, transfer->segment_name) == 0);
}

bool naming_valid(const struct yolk_transfer *transfer, const char *name)
{
    return transfer->metadata != NULL && metadata_name_valid(name);
}

/* ---- peers ---- */

bool naming_wants(const struct peer *peer)
{
    return peer->named && !peer->found;
}

static void on_found(void *ctx, enum status status, const struct metadata_entry *entry)
{
    peer_rails_found(ctx, status, entry);
}

void naming_find(struct peer *peer)
{
    metadata_lookup_start(peer->transfer->metadata, &peer->lookup, peer->name, on_found, peer);
}

void naming_forget(struct peer *peer)
{
    metadata_lookup_cancel(&peer->lookup);
}

/* ---- the public calls ---- */

enum status yolk_transfer_published(const struct yolk_transfer *transfer)
{
    if (transfer == NULL) return STATUS_INVALID;
    return transfer->metadata != NULL ? metadata_state(transfer->metadata) : STATUS_UNSUPPORTED;
}

static void on_withdrawn(void *ctx)
{
    struct yolk_transfer *transfer = ctx;
    transfer->withdrawn = true;
}

enum status yolk_transfer_withdraw(struct yolk_transfer *transfer, uint64_t timeout_ns)
{
    if (transfer == NULL) return STATUS_INVALID;
    if (transfer->in_callback) return STATUS_BUSY;
    if (transfer->metadata == NULL) return STATUS_OK;
    if (!transfer->withdrawing) metadata_withdraw(transfer->metadata, on_withdrawn, transfer);
    transfer->withdrawing = true;
    const uint64_t start_ns = env_now_ns(transfer->env);
    while (!transfer->withdrawn) {
        const uint64_t spent_ns = env_now_ns(transfer->env) - start_ns;
        if (spent_ns >= timeout_ns) return STATUS_TIMEOUT;
        env_poll(transfer->env, timeout_ns - spent_ns);
    }
    return STATUS_OK;
}
