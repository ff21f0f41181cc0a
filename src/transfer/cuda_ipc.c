/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/cuda_ipc.c - memory of devices between processes of one host, opened by the driver.
 *
 * Such memory is shared as memory of the host is (session.c), with two differences. What opens it
 * is a handle of the driver's, which travels in the share; and since the CPU cannot look at it, its
 * identity lies on a page of its own, by whose name a reader maps that and nothing else. The rules
 * are the same: whoever reads looks at the identity before and after, and nobody writes memory of
 * another process: a WRITE is a PULL.
 *
 * An import is the mapping of one share for one device. It is opened when a copy first needs it,
 * and closed when its owner has withdrawn the memory, which is looked for once a second while there
 * are any, or with the share, when the peer's last connection has gone. Nothing is copied then: I1.
 *
 * Invariants
 *   I1  An import is closed only while its share has no users; every copy from it counts as one.
 *   I2  A handle is a stranger's bytes: the driver judges it, and what it opens must hold the range
 *       that the share names. A refusal means that bytes go through pinned memory (cuda.c).
 *
 * Limits: one import per share and device; SHARES_MAX shares per peer. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "transfer/cuda.h"
#include "transfer/cuda_driver.h"
#include "transfer/transfer_int.h"

#define LOOK_NS ENV_NS_PER_S

struct cuda_import {
    struct cuda_import *next; /* of the share */
    uint32_t device;          /* as buffer->device */
    uint64_t base;
};

_Static_assert((int)CUDA_IPC_SIZE == (int)WIRE_IPC_SIZE, "handles fit");

void cuda_export(struct yolk_transfer *transfer, struct buffer *buffer)
{
    char name[ENV_SHARE_NAME_SIZE];
    struct env_map map;

    ASSERT(buffer->device != 0 && buffer->identity == NULL);
    if (transfer->forbid_shm) return;
    if (cuda_ipc_export(cuda_device(transfer, buffer->device), buffer->address, buffer->length,
                        buffer->handle, &buffer->handle_offset) != STATUS_OK) {
        LOG_DEBUG("transfer", "cuda_not_shared", "address=%llx",
                  (unsigned long long)buffer->address);
        return;
    }
    const size_t size = YOLK_TRANSFER_IDENTITY_SIZE;
    if (env_map_create(transfer->env, size, &map, name, NULL) != STATUS_OK) return;
    buffer->map = map;
    memcpy(buffer->share_name, name, sizeof(buffer->share_name));
    buffer->identity = map.data;
}

enum status cuda_import(struct yolk_transfer *transfer, struct share *share, uint32_t device,
                        uint64_t *base)
{
    struct cuda_import *import = share->imports;

    ASSERT(share->device && share->is.has_handle);
    while (import != NULL && import->device != device)
        import = import->next;
    if (import == NULL) {
        import = calloc(1, sizeof(*import));
        if (import == NULL) return STATUS_UNSUPPORTED;
        const enum status status =
            cuda_ipc_open(cuda_device(transfer, device), share->is.handle, share->is.handle_offset,
                          share->is.length, &import->base);
        if (status != STATUS_OK) {
            LOG_INFO("transfer", "cuda_not_opened", "device=%u reason=%s", device - 1,
                     status_name(status));
            free(import);
            return status;
        }
        import->device = device;
        import->next = share->imports;
        share->imports = import;
        cuda_look_later(transfer, LOOK_NS);
    }
    *base = import->base + share->is.handle_offset;
    return STATUS_OK;
}

void cuda_import_close(struct yolk_transfer *transfer, struct share *share)
{
    struct cuda_import *import;

    ASSERT(share->users == 0); /* I1 */
    while ((import = share->imports) != NULL) {
        share->imports = import->next;
        cuda_ipc_close(cuda_device(transfer, import->device), import->base);
        free(import);
    }
}

void cuda_imports_look(struct yolk_transfer *transfer)
{
    bool left = false;

    for (struct session *session = transfer->sessions; session != NULL; session = session->next) {
        for (uint32_t i = 0; i < session->share_count; i++) {
            struct share *share = &session->shares[i];
            if (share->imports == NULL) continue;
            if (share_check(session, share, 0, 0) != STATUS_OK) share->dead = true;
            if (share->dead && share->users == 0) cuda_import_close(transfer, share);
            left = left || share->imports != NULL;
        }
    }
    if (left) cuda_look_later(transfer, LOOK_NS);
}
