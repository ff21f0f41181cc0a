/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/session.c - what we know of one start of another engine, whoever connected to whom.
 *
 * A session lives as long as a lane, a copy or a loan refers to it. It holds the other's shares:
 * ranges of its memory that it offered by name, mapped read-only if they are on this host; or, for
 * memory that a user brought, read out of the other process where the system allows it; or, memory
 * of a device, opened by the driver (cuda_ipc.c), of which only the identity is mapped here. A name
 * could be a stranger's, so the page behind the range must carry the token that came through the
 * authenticated connection; and it is read again after every copy, because an owner who withdraws
 * the memory, or starts a new epoch, says so there first (struct identity). */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "transfer/transfer_int.h"

struct session *session_ref(struct yolk_transfer *transfer, const struct wire_hello *hello)
{
    struct session *session = transfer->sessions;

    while (session != NULL && session->generation != hello->generation)
        session = session->next;
    if (session == NULL) {
        session = calloc(1, sizeof(*session));
        if (session == NULL) return NULL;
        session->transfer = transfer;
        session->generation = hello->generation;
        memcpy(session->name, hello->name, sizeof(session->name));
        session->shm = !transfer->forbid_shm && (hello->capabilities & WIRE_CAP_SHM) != 0 &&
                       hello->host == transfer->host;
        session->vm = session->shm && (hello->capabilities & WIRE_CAP_VM) != 0;
        session->ipc = session->shm && (hello->capabilities & WIRE_CAP_IPC) != 0;
        session->notify = (hello->capabilities & WIRE_CAP_NOTIFY) != 0;
        session->acks = (hello->capabilities & WIRE_CAP_ACKS) != 0;
        session->fabric = transfer->fabric != NULL && (hello->capabilities & WIRE_CAP_FABRIC) != 0;
        session->rails = (hello->capabilities & WIRE_CAP_RAILS) != 0;
        session->next = transfer->sessions;
        transfer->sessions = session;
    }
    session->refs++;
    return session;
}

static void share_close(struct yolk_transfer *transfer, struct share *share)
{
    ASSERT(share->users == 0);
    if (share->imports != NULL) cuda_import_close(transfer, share);
    env_map_close(&share->map);
    memset(share, 0, sizeof(*share));
}

void session_unref(struct session *session)
{
    if (session == NULL) return;
    ASSERT(session->refs > 0);
    if (--session->refs > 0) return;
    struct session **link = &session->transfer->sessions;
    while (*link != session)
        link = &(*link)->next;
    *link = session->next;
    for (uint32_t i = 0; i < session->share_count; i++)
        share_close(session->transfer, &session->shares[i]);
    free(session);
}

struct share *session_find(struct session *session, uint64_t address, uint64_t length)
{
    for (uint32_t i = 0; i < session->share_count; i++) {
        struct share *share = &session->shares[i];
        if (share->dead || address < share->is.address) continue;
        const uint64_t offset = address - share->is.address;
        if (offset <= share->is.length && length <= share->is.length - offset) return share;
    }
    return NULL;
}

/* "name@address": memory of the process `name`, whose identity lies at `address`. */
static bool share_reach(struct session *session, struct share *share)
{
    struct yolk_transfer *transfer = session->transfer;
    char name[WIRE_SHARE_NAME_SIZE];
    char *at;

    memcpy(name, share->is.name, sizeof(name));
    at = strchr(name, '@');
    if (at == NULL || !session->vm) return false;
    *at = '\0';
    if (env_memory_open(transfer->env, name, &share->memory) != STATUS_OK) return false;
    share->identity_at = strtoull(at + 1, NULL, 16);
    share->identity = &share->seen;
    share->vm = true;
    return true;
}

static bool share_mmap(struct session *session, struct share *share)
{
    struct yolk_transfer *transfer = session->transfer;
    const uint64_t length = share->is.device ? 0 : share->is.length;
    const uint64_t size = length + YOLK_TRANSFER_IDENTITY_SIZE;

    if (size < length) return false;
    if (env_map_open(transfer->env, share->is.name, (size_t)size, &share->map) != STATUS_OK) {
        return false;
    }
    share->identity = (void *)((uint8_t *)share->map.data + length);
    share->device = share->is.device;
    return true;
}

static void share_map(struct session *session, struct share *share)
{
    const bool vm = !share->is.device && strncmp(share->is.name, "vm:", 3) == 0;

    if (!session->shm || share->is.name[0] == '\0') return;
    if (share->is.device && (!session->ipc || !share->is.has_handle)) return;
    if (!(vm ? share_reach(session, share) : share_mmap(session, share))) return;
    const enum status status = share_check(session, share, 0, 0);
    if (status == STATUS_OK) return;
    /* Not to be allowed is common; to find a stranger is not. */
    if (status != STATUS_DENIED) {
        LOG_WARN("transfer", "share_foreign", "name=%s generation=%llx", share->is.name,
                 (unsigned long long)session->generation);
    }
    env_map_close(&share->map);
    memset(&share->map, 0, sizeof(share->map));
    share->identity = NULL;
}

void session_describe(const struct buffer *buffer, struct wire_share *out)
{
    ASSERT(buffer->identity != NULL);
    memcpy(out->token, buffer->identity->token, sizeof(out->token));
    memcpy(out->name, buffer->share_name, sizeof(out->name));
    if (buffer->device == 0) return;
    out->device = out->has_handle = true;
    memcpy(out->handle, buffer->handle, sizeof(out->handle));
    out->handle_offset = buffer->handle_offset;
}

/* Each connection announces what it wants pulled: the same again is no news. */
static bool share_known(const struct share *share, const struct wire_share *is)
{
    return !share->dead && share->identity != NULL && share->is.address == is->address &&
           share->is.length == is->length && share->is.flags == is->flags &&
           memcmp(share->is.token, is->token, WIRE_TOKEN_SIZE) == 0 &&
           strcmp(share->is.name, is->name) == 0;
}

enum status session_add(struct session *session, const struct wire_share *is)
{
    struct share *share = NULL;

    for (uint32_t i = 0; i < session->share_count; i++) {
        struct share *old = &session->shares[i];
        if (share_known(old, is)) return STATUS_OK;
        if (buffer_ranges_overlap(is->address, is->length, old->is.address, old->is.length)) {
            old->dead = true;
        }
        if (old->dead && old->users == 0) share = old;
    }
    if (share != NULL) {
        share_close(session->transfer, share);
    } else {
        if (session->share_count == SHARES_MAX) return STATUS_FULL;
        share = &session->shares[session->share_count++];
    }
    share->is = *is;
    share_map(session, share);
    return STATUS_OK;
}

enum status share_judge(const struct session *session, const struct share *share, uint64_t epoch,
                        uint64_t term)
{
    const struct identity *identity = share->identity;

    ASSERT(identity != NULL);
    if (atomic_load(&identity->live) != session->generation) return STATUS_NOT_FOUND;
    if (memcmp(identity->token, share->is.token, WIRE_TOKEN_SIZE) != 0) return STATUS_NOT_FOUND;
    if (epoch != 0 && atomic_load(&identity->epoch) != epoch) return STATUS_STALE;
    if (term != 0 && atomic_load(&identity->term) > term) return STATUS_STALE;
    return STATUS_OK;
}

enum status share_check(const struct session *session, struct share *share, uint64_t epoch,
                        uint64_t term)
{
    ASSERT(share->identity != NULL);
    /* Only reads are ordered here, those of the bytes before those of the identity: whoever
     * withdrew the bytes before we read them did so in `live` first. A full fence would wait for
     * the copy to reach memory, which costs as much as the rest of a slice of 64 KiB. */
    atomic_thread_fence(memory_order_acquire);
    if (share->vm) {
        const enum status status =
            env_memory_read(session->transfer->env, &share->memory, share->identity_at,
                            share->identity, sizeof(*share->identity));
        if (status != STATUS_OK) return status;
    }
    return share_judge(session, share, epoch, term);
}

/* The identity comes last in the same call, which copies in order. */
static enum status copy_vm(const struct session *session, struct share *share,
                           const struct env_memory_part *parts, uint32_t count)
{
    struct env_memory_part all[SHARE_PARTS_MAX + 1];

    _Static_assert(SHARE_PARTS_MAX + 1 <= ENV_MEMORY_PARTS_MAX, "they fit in one call");
    memcpy(all, parts, count * sizeof(parts[0]));
    all[count] = (struct env_memory_part){ .from = share->identity_at,
                                           .to = share->identity,
                                           .len = sizeof(*share->identity) };
    const enum status status =
        env_memory_readv(session->transfer->env, &share->memory, all, count + 1);
    return status == STATUS_OK ? share_judge(session, share, 0, 0) : status;
}

enum status share_copy(const struct session *session, struct share *share,
                       const struct env_memory_part *parts, uint32_t count)
{
    ASSERT(count >= 1 && count <= SHARE_PARTS_MAX);
    if (share->vm) return copy_vm(session, share, parts, count);
    for (uint32_t i = 0; i < count; i++)
        memcpy(parts[i].to, (const void *)(uintptr_t)parts[i].from, parts[i].len);
    return share_check(session, share, 0, 0);
}

const uint8_t *share_at(const struct share *share, uint64_t address)
{
    ASSERT(!share->device);
    if (share->vm) return (const uint8_t *)(uintptr_t)address;
    return (const uint8_t *)share->map.data + (address - share->is.address);
}

enum yolk_transfer_path share_path(const struct share *share)
{
    if (share->device) return YOLK_TRANSFER_PATH_CUDA;
    return share->vm ? YOLK_TRANSFER_PATH_VM : YOLK_TRANSFER_PATH_SHM;
}
