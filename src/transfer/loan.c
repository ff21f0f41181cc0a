/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/loan.c - looking at a peer's memory without a copy.
 *
 * A loan holds the share it looks into, so that its mapping stays, and the session with it. Nothing
 * is told to the owner: it may withdraw the memory at any time, which the check after looking finds
 * in the identity page, as copies do.
 *
 * Invariants
 *   I1  A loan that is out counts in share->users and session->refs, or in buffer->users. */
#include <stdlib.h>

#include "base/assert.h"
#include "transfer/transfer_int.h"

static struct loan *loan_find(const struct yolk_transfer *transfer, uint64_t id)
{
    const uint32_t index = (uint32_t)id, serial = (uint32_t)(id >> 32);

    if (transfer == NULL || index == 0 || index > transfer->loan_high) return NULL;
    struct loan *loan = &transfer->loans[index - 1];
    return loan->out && loan->serial == serial ? loan : NULL;
}

static struct loan *loan_new(struct yolk_transfer *transfer, uint64_t *id)
{
    uint32_t index = transfer->loan_free;

    if (transfer->loans == NULL) {
        transfer->loans = calloc(YOLK_TRANSFER_LOANS_MAX, sizeof(struct loan));
        if (transfer->loans == NULL) return NULL;
    }
    if (index != 0) {
        transfer->loan_free = transfer->loans[index - 1].free_next;
    } else if (transfer->loan_high < YOLK_TRANSFER_LOANS_MAX) {
        index = ++transfer->loan_high;
    } else {
        return NULL;
    }
    struct loan *loan = &transfer->loans[index - 1];
    loan->out = true;
    *id = (uint64_t)loan->serial << 32 | index;
    return loan;
}

/* Gives back what the loan holds, and its place. */
static void loan_end(struct yolk_transfer *transfer, struct loan *loan)
{
    if (loan->buffer != NULL) loan->buffer->users--;
    if (loan->session != NULL) {
        ASSERT(loan->share->users > 0);
        loan->share->users--;
        session_unref(loan->session);
    }
    const uint32_t index = (uint32_t)(loan - transfer->loans);
    *loan = (struct loan){ .serial = loan->serial + 1, .free_next = transfer->loan_free };
    transfer->loan_free = index + 1;
}

static enum status borrow_own(struct yolk_transfer *transfer, uint64_t remote, uint64_t length,
                              uint64_t epoch, struct yolk_transfer_loan *out)
{
    struct buffer *buffer = buffers_find(&transfer->buffers, remote, length);

    if (buffer == NULL) return STATUS_NOT_FOUND;
    if (buffer->device != 0) return STATUS_UNSUPPORTED;
    if (epoch != 0 && epoch != transfer->epoch) return STATUS_STALE;
    struct loan *loan = loan_new(transfer, &out->id);
    if (loan == NULL) return STATUS_FULL;
    loan->buffer = buffer;
    loan->epoch = epoch;
    buffer->users++;
    out->data = (const void *)(uintptr_t)remote;
    out->length = length;
    out->generation = transfer->generation;
    return STATUS_OK;
}

static enum status borrow_share(struct yolk_transfer *transfer, struct session *session,
                                struct share *share, uint64_t remote, uint64_t length,
                                uint64_t epoch, struct yolk_transfer_loan *out)
{
    if ((share->is.flags & YOLK_TRANSFER_REMOTE_READ) == 0) return STATUS_DENIED;
    if (share->identity == NULL || share->vm || share->device) return STATUS_UNSUPPORTED;
    const enum status status = share_check(session, share, epoch, 0);
    if (status != STATUS_OK) {
        share->dead = share->dead || status == STATUS_NOT_FOUND;
        return status;
    }
    struct loan *loan = loan_new(transfer, &out->id);
    if (loan == NULL) return STATUS_FULL;
    loan->session = session;
    loan->share = share;
    loan->epoch = epoch;
    session->refs++;
    share->users++;
    out->data = share_at(share, remote);
    out->length = length;
    out->generation = session->generation;
    return STATUS_OK;
}

enum status yolk_transfer_borrow(struct yolk_transfer *transfer,
                                 struct yolk_transfer_segment segment, uint64_t remote,
                                 uint64_t length, uint64_t epoch, struct yolk_transfer_loan *out)
{
    struct session *session = NULL;
    struct share *share = NULL;
    struct segment *at = transfer_segment(transfer, segment);

    if (at == NULL || out == NULL || length == 0 || remote + length < remote) {
        return STATUS_INVALID;
    }
    if (at->file != NULL) return STATUS_UNSUPPORTED;
    if (at->peer->local) return borrow_own(transfer, remote, length, epoch, out);
    const enum status status = peer_find_share(at->peer, remote, length, &session, &share);
    if (status != STATUS_OK) return status;
    if (at->generation == 0) at->generation = session->generation;
    if (at->generation != session->generation) return STATUS_STALE;
    return borrow_share(transfer, session, share, remote, length, epoch, out);
}

enum status yolk_transfer_loan_check(struct yolk_transfer *transfer, struct yolk_transfer_loan loan)
{
    struct loan *it = loan_find(transfer, loan.id);

    if (it == NULL) return STATUS_INVALID;
    if (it->buffer != NULL) {
        return it->epoch != 0 && it->epoch != transfer->epoch ? STATUS_STALE : STATUS_OK;
    }
    if (it->share->dead) return STATUS_NOT_FOUND;
    return share_check(it->session, it->share, it->epoch, 0);
}

void yolk_transfer_loan_ahead(struct yolk_transfer *transfer, struct yolk_transfer_loan loan,
                              uint64_t skip, uint64_t more)
{
    const struct loan *it = loan_find(transfer, loan.id);

    if (it == NULL || it->share == NULL) return;
    const uint8_t *start = it->share->map.data;
    const uint64_t at = (uint64_t)((const uint8_t *)loan.data - start);
    const uint64_t room = it->share->is.length - at; /* no less than the loan */
    const uint64_t len = more < room - loan.length ? loan.length + more : room;
    if (skip < len) env_map_ahead(transfer->env, &it->share->map, at + skip, len - skip);
}

enum status yolk_transfer_return(struct yolk_transfer *transfer, struct yolk_transfer_loan loan)
{
    struct loan *it = loan_find(transfer, loan.id);

    if (it == NULL) return STATUS_INVALID;
    loan_end(transfer, it);
    return STATUS_OK;
}

void loan_destroy_all(struct yolk_transfer *transfer)
{
    for (uint32_t i = 0; i < transfer->loan_high; i++) {
        if (transfer->loans[i].out) loan_end(transfer, &transfer->loans[i]);
    }
    free(transfer->loans);
}
