/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/register.c - our memory: registered, allocated, offered to peers, and taken back.
 *
 * What peers of this host may reach directly has an identity (struct identity), where they look
 * whose it is and whether it still is: on the page behind memory that the engine allocated, on the
 * heap for memory that a user brought (vm), on a page of its own for memory of a device
 * (cuda_ipc.c). Taking rights back, by unregistering or by a new epoch or term, is first said
 * there, and then to what is under way (target_revoke()): when the call returns, neither lands nor
 * leaves a byte that the new state of things forbids. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transfer/transfer_int.h"

/* ---- identities ---- */

static void identity_start(struct yolk_transfer *transfer, struct buffer *buffer,
                           struct identity *identity)
{
    env_random(transfer->env, identity->token, sizeof(identity->token));
    atomic_store(&identity->epoch, transfer->epoch);
    atomic_store(&identity->term, transfer->term);
    atomic_store(&identity->live, transfer->generation);
    buffer->identity = identity;
}

static void identity_publish(struct yolk_transfer *transfer, struct buffer *buffer,
                             const char *share_name)
{
    struct identity *identity = (void *)(uintptr_t)(buffer->address + buffer->length);

    memcpy(buffer->share_name, share_name, strlen(share_name) + 1);
    identity_start(transfer, buffer, identity);
}

/* Memory that a user brought: its identity lies elsewhere, and the name says where. Without one
 * peers get it over tcp. */
static void identity_publish_vm(struct yolk_transfer *transfer, struct buffer *buffer)
{
    char name[ENV_SHARE_NAME_SIZE];

    if (transfer->forbid_shm) return;
    env_memory_name(transfer->env, name);
    struct identity *identity = calloc(1, sizeof(*identity));
    if (identity == NULL || name[0] == '\0') {
        free(identity);
        return;
    }
    snprintf(buffer->share_name, sizeof(buffer->share_name), "%.60s@%llx", name,
             (unsigned long long)(uintptr_t)identity);
    buffer->vm = true;
    identity_start(transfer, buffer, identity);
}

static void identity_withdraw(struct buffer *buffer)
{
    if (buffer->identity == NULL) return;
    atomic_store(&buffer->identity->live, 0);
    atomic_thread_fence(memory_order_seq_cst); /* before whatever is written there from now on */
    if (!buffer->vm) return;
    /* Who reads it from now on must not recognise it, whatever comes to lie there. */
    memset(buffer->identity->token, 0, sizeof(buffer->identity->token));
    free(buffer->identity);
    buffer->identity = NULL;
}

static void identities_refresh(struct yolk_transfer *transfer)
{
    for (uint32_t i = 0; i < transfer->buffers.count; i++) {
        struct identity *identity = transfer->buffers.sorted[i]->identity;
        if (identity == NULL) continue;
        atomic_store(&identity->epoch, transfer->epoch);
        atomic_store(&identity->term, transfer->term);
    }
    atomic_thread_fence(memory_order_seq_cst); /* as in identity_withdraw() */
}

/* ---- fences of the owner ---- */

enum status yolk_transfer_set_epoch(struct yolk_transfer *transfer, uint64_t epoch)
{
    if (transfer == NULL) return STATUS_INVALID;
    if (epoch < transfer->epoch) return STATUS_STALE;
    transfer->epoch = epoch;
    identities_refresh(transfer);
    target_revoke(transfer, NULL);
    return STATUS_OK;
}

enum status yolk_transfer_set_term(struct yolk_transfer *transfer, uint64_t term)
{
    if (transfer == NULL) return STATUS_INVALID;
    if (term < transfer->term) return STATUS_STALE;
    transfer->term = term;
    identities_refresh(transfer);
    target_revoke(transfer, NULL);
    return STATUS_OK;
}

/* ---- memory ---- */

static enum status register_host(struct yolk_transfer *transfer, void *address, size_t length,
                                 const char *share_name, unsigned flags)
{
    const bool populate = (flags & YOLK_TRANSFER_POPULATE) != 0;
    const uint64_t start_at = (uintptr_t)address;
    struct buffer *buffer;
    uint64_t size = length;

    flags &= ~(unsigned)YOLK_TRANSFER_POPULATE;
    if (share_name != NULL) {
        if (share_name[0] == '\0' || strlen(share_name) >= WIRE_SHARE_NAME_SIZE) {
            return STATUS_INVALID;
        }
        size =
            (size + YOLK_TRANSFER_IDENTITY_SIZE - 1) & ~(uint64_t)(YOLK_TRANSFER_IDENTITY_SIZE - 1);
        if (start_at % YOLK_TRANSFER_IDENTITY_SIZE != 0) return STATUS_INVALID;
    }
    if (size < length || size > UINT64_MAX - YOLK_TRANSFER_IDENTITY_SIZE - start_at) {
        return STATUS_INVALID;
    }
    enum status status = populate ? env_populate(transfer->env, address, length) : STATUS_OK;
    if (status == STATUS_OK) {
        status = buffers_add(&transfer->buffers, start_at, size, flags, &buffer);
    }
    if (status != STATUS_OK) return status;
    if (share_name != NULL) {
        identity_publish(transfer, buffer, share_name);
    } else {
        identity_publish_vm(transfer, buffer);
    }
    return STATUS_OK;
}

/* Memory of a device: peers of this host cannot map it, but their drivers may open it. */
static enum status register_device(struct yolk_transfer *transfer, void *address, size_t length,
                                   uint32_t device, unsigned flags, struct errmsg *err)
{
    struct buffer *buffer;
    enum status status = cuda_add(transfer, device, err);

    if (status != STATUS_OK) return status;
    flags &= YOLK_TRANSFER_REMOTE_ALL; /* its pages are there */
    status = buffers_add(&transfer->buffers, (uintptr_t)address, length, flags, &buffer);
    if (status != STATUS_OK) return errmsg_set(err, status, "transfer: cannot register memory");
    buffer->device = device;
    buffer->location = cuda_location(transfer, device);
    cuda_export(transfer, buffer);
    if (buffer->identity != NULL) identity_start(transfer, buffer, buffer->identity);
    return STATUS_OK;
}

static bool range_sane(const struct yolk_transfer *transfer, const void *address, size_t length,
                       unsigned flags)
{
    if (transfer == NULL || address == NULL || length == 0) return false;
    if ((flags & ~(unsigned)(YOLK_TRANSFER_REMOTE_ALL | YOLK_TRANSFER_POPULATE)) != 0) return false;
    return (uintptr_t)address + length > (uintptr_t)address;
}

enum status yolk_transfer_register(struct yolk_transfer *transfer, void *address, size_t length,
                                   const char *share_name, unsigned flags)
{
    uint32_t device;

    if (!range_sane(transfer, address, length, flags)) return STATUS_INVALID;
    const enum status status = cuda_find((uintptr_t)address, length, &device);
    if (status != STATUS_OK) return status;
    if (device == 0) return register_host(transfer, address, length, share_name, flags);
    if (share_name != NULL) return STATUS_INVALID;
    return register_device(transfer, address, length, device, flags, NULL);
}

enum status yolk_transfer_register_at(struct yolk_transfer *transfer, void *address, size_t length,
                                      const char *location, unsigned flags, struct errmsg *err)
{
    uint32_t device = 0;

    if (!range_sane(transfer, address, length, flags)) {
        return errmsg_set(err, STATUS_INVALID, "transfer: no range of memory");
    }
    if (location != NULL && strncmp(location, "cuda:", 5) == 0) {
        const enum status status =
            cuda_find_named(location, (uintptr_t)address, length, &device, err);
        if (status != STATUS_OK) return status;
        return register_device(transfer, address, length, device, flags, err);
    }
    const enum status status = yolk_transfer_register(transfer, address, length, NULL, flags);
    if (status != STATUS_OK) return errmsg_set(err, status, "transfer: cannot register memory");
    struct buffer *buffer = buffers_at(&transfer->buffers, (uintptr_t)address);
    if (buffer->device == 0 && location != NULL) {
        buffer->location = topology_location(&transfer->topology, location);
    }
    return STATUS_OK;
}

enum status yolk_transfer_set_location(struct yolk_transfer *transfer, void *address,
                                       const char *location)
{
    if (transfer == NULL) return STATUS_INVALID;
    struct buffer *buffer = buffers_at(&transfer->buffers, (uintptr_t)address);
    if (buffer == NULL) return STATUS_NOT_FOUND;
    buffer->location = topology_location(&transfer->topology, location);
    return STATUS_OK;
}

enum status yolk_transfer_unregister(struct yolk_transfer *transfer, void *address)
{
    if (transfer == NULL) return STATUS_INVALID;
    struct buffer *buffer = buffers_at(&transfer->buffers, (uintptr_t)address);
    if (buffer == NULL) return STATUS_NOT_FOUND;
    if (buffer->users > 0) return STATUS_BUSY;
    identity_withdraw(buffer);
    target_revoke(transfer, buffer);
    fabric_lanes_forget_buffer(transfer, buffer);
    for (struct lane *lane = transfer->lanes; lane != NULL; lane = lane->next) {
        lane->announced[buffer->slot / 64] &= ~(UINT64_C(1) << (buffer->slot % 64));
    }
    struct env_map identity = { .data = NULL };
    if (buffer->device != 0) identity = buffer->map;
    buffers_remove(&transfer->buffers, buffer);
    env_map_close(&identity);
    return STATUS_OK;
}

enum status yolk_transfer_alloc(struct yolk_transfer *transfer, size_t size, unsigned flags,
                                void **out, struct errmsg *err)
{
    char name[ENV_SHARE_NAME_SIZE];
    struct env_map map;
    const size_t page = YOLK_TRANSFER_IDENTITY_SIZE;

    if (transfer == NULL || out == NULL || size == 0 || size > SIZE_MAX - 2 * page) {
        return errmsg_set(err, STATUS_INVALID, "transfer: bad size of memory");
    }
    const size_t rounded = (size + page - 1) & ~(page - 1);
    enum status status = env_map_create(transfer->env, rounded + page, &map, name, err);
    if (status != STATUS_OK) return status;
    status = yolk_transfer_register(transfer, map.data, rounded, name, flags);
    if (status != STATUS_OK) {
        env_map_close(&map);
        return errmsg_set(err, status, "transfer: cannot register memory: %s", status_name(status));
    }
    buffers_at(&transfer->buffers, (uintptr_t)map.data)->map = map;
    *out = map.data;
    return STATUS_OK;
}

enum status yolk_transfer_free(struct yolk_transfer *transfer, void *address)
{
    if (transfer == NULL) return STATUS_INVALID;
    const struct buffer *buffer = buffers_at(&transfer->buffers, (uintptr_t)address);
    if (buffer == NULL || buffer->device != 0 || buffer->map.data == NULL) {
        return STATUS_NOT_FOUND;
    }
    struct env_map map = buffer->map;
    const enum status status = yolk_transfer_unregister(transfer, address);
    if (status == STATUS_OK) env_map_close(&map);
    return status;
}

void register_destroy_all(struct yolk_transfer *transfer)
{
    while (transfer->buffers.count > 0) {
        struct buffer *buffer = transfer->buffers.sorted[transfer->buffers.count - 1];
        struct env_map map = buffer->map;
        identity_withdraw(buffer);
        buffers_remove(&transfer->buffers, buffer);
        env_map_close(&map);
    }
}
