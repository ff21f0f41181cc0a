/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/tickets.c - what was decided, and what becomes of it.
 *
 * Tickets are slots of a fixed array. A ticket id carries the slot and a serial number, so that a
 * stale id is caught.
 *
 * Ticket    (free) -- place --> PREFILLING -- prefill_done --> DECODING -- finish --> (free)
 *                                   +----------------- finish ----------------------->
 *
 * Invariants are in conductor.c. */
#include "conductor/conductor_int.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"

const char *yolk_reuse_reason_name(enum yolk_reuse_reason reason)
{
    switch (reason) {
    case YOLK_REUSE_COLD: return "cold";
    case YOLK_REUSE_LOCAL: return "local";
    case YOLK_REUSE_RECOMPUTE: return "recompute";
    case YOLK_REUSE_FETCH: return "fetch";
    }
    ASSERT((int)reason < 0); /* impossible */
    return "";
}

static enum yolk_reuse_reason reason_of(const struct conductor_place_output *placed,
                                        uint32_t hit_blocks)
{
    if (placed->holder != CONDUCTOR_NO_HOLDER) return YOLK_REUSE_FETCH;
    if (placed->best_blocks == 0) return YOLK_REUSE_COLD;
    return placed->best_blocks > hit_blocks ? YOLK_REUSE_RECOMPUTE : YOLK_REUSE_LOCAL;
}

static uint64_t ticket_id(const struct yolk_conductor *c, const struct ticket *ticket)
{
    return (uint64_t)ticket->serial << 32 | (uint64_t)(ticket - c->tickets + 1);
}

struct ticket *conductor_ticket(const struct yolk_conductor *c, struct yolk_ticket id)
{
    const uint64_t index = (id.id & UINT32_MAX) - 1;
    ASSERT(id.id != 0 && index < c->options.tickets_max);
    struct ticket *ticket = &c->tickets[index];
    ASSERT(ticket->state != TICKET_FREE && ticket_id(c, ticket) == id.id);
    return ticket;
}

static struct ticket *issue_ticket(struct yolk_conductor *c,
                                   const struct yolk_place_request *request,
                                   const struct yolk_decision *decision,
                                   const struct proposed_group *group, double now_ms)
{
    const int32_t index = c->free_ticket;
    ASSERT(index != NONE);
    struct ticket *ticket = &c->tickets[index];
    ASSERT(ticket->state == TICKET_FREE);

    c->free_ticket = ticket->next;
    c->tickets_used++;
    *ticket = (struct ticket){
        .state = TICKET_PREFILLING,
        .serial = ticket->serial + 1,
        .prefill = (int32_t)(decision->inlined ? decision->decode : decision->prefill).index,
        .decode = NONE,
        .tokens = request->tokens,
        .pages = conductor_pages_reserved(c, request),
        .rank = { request->priority, decision->order_ms },
        .predicted_ms = group->stages > 1 ? decision->transfer_ms + group->busy_ms[0]
                                          : decision->transfer_ms + decision->compute_ms,
        .placed_ms = now_ms,
        .decision = c->decisions_count,
        .chained = NONE,
    };
    conductor_queue_join(c, index, now_ms);
    conductor_group_join(c, ticket, group, now_ms);
    conductor_decode_join(c, ticket, decision->decode.index);
    return ticket;
}

static void copy_name(const struct yolk_conductor *c, struct yolk_instance_id id,
                      char out[YOLK_NAME_SIZE])
{
    if (id.index == YOLK_INSTANCE_NONE.index) return;
    memcpy(out, conductor_instance(c, id)->name, YOLK_NAME_SIZE);
}

static void describe(const struct yolk_conductor *c, const struct yolk_place_request *request,
                     const struct proposal *proposal, double now_ms, struct yolk_decision *out)
{
    const struct conductor_place_output *placed = &proposal->placed;
    const struct conductor_prefill_candidate *prefill = &c->prefill[placed->prefill];
    const bool fetches = placed->holder != CONDUCTOR_NO_HOLDER;
    const uint32_t local = prefill->hit_blocks;
    const double own_ms = placed->transfer_ms + placed->compute_ms;
    /* Nobody gets ahead of a group: its members would wait for each other. */
    const bool grouped = proposal->group.stages > 1;

    ASSERT(placed->reuse_blocks >= local || fetches || prefill->slow_blocks > 0);
    *out = (struct yolk_decision){
        .prefill = { prefill->instance },
        .decode = { c->decode[placed->decode].instance },
        .holder = YOLK_INSTANCE_NONE,
        .reason = reason_of(placed, local),
        .tokens = request->tokens,
        .priority = request->priority,
        .reuse_blocks = placed->reuse_blocks,
        .own_blocks = placed->own_blocks,
        .local_blocks = local,
        .best_blocks = placed->best_blocks,
        .prefill_candidates = proposal->found.prefill,
        .decode_candidates = proposal->found.decode,
        .placed_ms = now_ms,
        .order_ms = conductor_order_ms(c, now_ms, grouped ? 0 : own_ms),
        .queue_ms = placed->queue_ms,
        .transfer_ms = placed->transfer_ms,
        .compute_ms = placed->compute_ms,
        .ttft_ms = placed->ttft_ms,
        .tbt_ms = placed->tbt_ms,
        .group_count = proposal->group.stages,
        .inlined = proposal->inlined,
        .spread_ms = conductor_cost_spread(prefill->fit, placed->compute_ms),
        .actual_ttft_ms = -1,
        .actual_total_ms = -1,
        .actual_door_ms = -1,
        .actual_cached_tokens = -1,
        .actual_output_tokens = -1,
    };
    for (uint32_t j = 0; j < proposal->group.stages; j++)
        out->group[j].index = c->prefill[proposal->group.position[j]].instance;
    if (fetches) out->holder.index = placed->holder;
    if (!fetches && placed->reuse_blocks > 0) out->holder = out->prefill;
    snprintf(out->request_id, sizeof(out->request_id), "%s",
             request->request_id ? request->request_id : "");
    copy_name(c, out->prefill, out->prefill_name);
    copy_name(c, out->decode, out->decode_name);
    copy_name(c, out->holder, out->holder_name);
}

void conductor_note_sending(struct yolk_conductor *c, uint32_t holder, uint32_t to, uint32_t blocks,
                            double now_ms)
{
    struct instance *sender = &c->instances[holder];
    const bool near = sender->host == c->instances[to].host;
    const struct conductor_fit *path =
        &c->profile.transfer[near ? YOLK_PATH_HOST : YOLK_PATH_NETWORK];
    const double bytes = (double)blocks * (double)c->options.block_size;
    const double from = sender->sending_until_ms > now_ms ? sender->sending_until_ms : now_ms;

    sender->sending_until_ms = from + conductor_cost_transfer(path, bytes);
}

void conductor_commit(struct yolk_conductor *c, const struct yolk_place_request *request,
                      const struct proposal *proposal, const struct yolk_verdict *verdict,
                      double now_ms, struct yolk_decision *out)
{
    ASSERT(verdict->refusal == YOLK_REFUSAL_NONE && c->free_ticket != NONE);
    describe(c, request, proposal, now_ms, out);
    out->verdict = *verdict;
    conductor_explain_decided(c, request, proposal, now_ms);
    out->ticket.id = ticket_id(c, issue_ticket(c, request, out, &proposal->group, now_ms));
    c->decisions[c->decisions_count % c->options.decisions_max] = *out;
    c->decisions_count++;
    c->stats.decisions++;
    c->stats.reasons[out->reason]++;
    if (proposal->placed.reuse_blocks > proposal->placed.own_blocks) {
        conductor_note_sending(c, proposal->placed.holder, out->prefill.index,
                               proposal->placed.reuse_blocks - proposal->placed.own_blocks, now_ms);
    }
    conductor_replicate(c, request, proposal, now_ms);
    if (!out->inlined) roles_arrive(&c->roles, conductor_group_work(&proposal->group, out), now_ms);
    c->stats.inlined += out->inlined;
}

enum status yolk_conductor_place(struct yolk_conductor *c, const struct yolk_place_request *request,
                                 double now_ms, struct yolk_decision *out)
{
    const struct yolk_verdict unjudged = { .gate = 1, .prefill_gate = 1 };
    struct proposal proposal;
    const enum status status = conductor_propose(c, request, now_ms, &proposal);

    if (status != STATUS_OK) return status;
    conductor_commit(c, request, &proposal, &unjudged, now_ms, out);
    conductor_fly(c, request, out, NULL, now_ms);
    return STATUS_OK;
}

struct yolk_decision *conductor_logged(struct yolk_conductor *c, const struct ticket *ticket)
{
    ASSERT(ticket->decision < c->decisions_count);
    if (c->decisions_count - ticket->decision > c->options.decisions_max) return NULL;
    return &c->decisions[ticket->decision % c->options.decisions_max];
}

void yolk_conductor_prefill_done(struct yolk_conductor *c, struct yolk_ticket id,
                                 uint32_t cached_tokens, double now_ms)
{
    struct ticket *ticket = conductor_ticket(c, id);
    ASSERT(ticket->state == TICKET_PREFILLING);
    struct yolk_decision *decision = conductor_logged(c, ticket);

    if (ticket->prefill != NONE) conductor_queue_leave(c, ticket, now_ms);
    conductor_group_dissolve(c, ticket, now_ms);
    conductor_explain_batch(c, ticket->decode, now_ms);
    ticket->state = TICKET_DECODING;
    if (ticket->decode != NONE) {
        c->instances[ticket->decode].decoding++;
        c->instances[ticket->decode].decoding_tokens += ticket->tokens;
    }
    conductor_door_wait(c, ticket, now_ms);
    conductor_explain_batch(c, ticket->decode, now_ms);
    if (!ticket->at_door) conductor_explain_decoding(c, ticket, now_ms);
    admission_join(c->admission, (uint32_t)(ticket - c->tickets), now_ms);
    conductor_look(c, now_ms);
    conductor_explain_prefilled(c, ticket, cached_tokens);
    if (decision == NULL) return;
    decision->actual_ttft_ms = now_ms - ticket->placed_ms;
    decision->actual_cached_tokens = cached_tokens;
}

/* The sequence holds what it has grown to, reserved or not: pages may then exceed pages_max, and
 * nobody is placed there until some have left. */
static void keep_room(struct yolk_conductor *c, struct ticket *ticket)
{
    const uint64_t block_tokens = c->options.block_tokens;
    const uint32_t pages = (uint32_t)((ticket->tokens + block_tokens - 1) / block_tokens);

    if (pages <= ticket->pages) return;
    c->instances[ticket->decode].pages += pages - ticket->pages;
    ticket->pages = pages;
}

void yolk_conductor_decoded(struct yolk_conductor *c, struct yolk_ticket id, uint32_t tokens)
{
    struct ticket *ticket = conductor_ticket(c, id);
    ASSERT(ticket->tokens <= UINT32_MAX - tokens);

    ticket->output_tokens += tokens;
    admission_grow(c->admission, (uint32_t)(ticket - c->tickets), tokens);
    if (ticket->decode == NONE) return;
    ticket->tokens += tokens;
    c->instances[ticket->decode].context_tokens += tokens;
    keep_room(c, ticket);
    if (ticket->state == TICKET_DECODING) {
        c->instances[ticket->decode].decoding_tokens += tokens;
    }
    if (ticket->at_door) c->instances[ticket->decode].at_door_tokens += tokens;
}

void yolk_conductor_finish(struct yolk_conductor *c, struct yolk_ticket id, enum status outcome,
                           double now_ms)
{
    struct ticket *ticket = conductor_ticket(c, id);
    struct yolk_decision *decision = conductor_logged(c, ticket);

    const int32_t decode = ticket->decode;

    conductor_explain_ended(c, ticket, outcome, now_ms);
    conductor_explain_batch(c, decode, now_ms);
    if (decision != NULL) {
        decision->actual_total_ms = now_ms - ticket->placed_ms;
        decision->actual_output_tokens = ticket->output_tokens;
        decision->outcome = outcome;
        decision->finished = true;
    }
    if (ticket->prefill != NONE) conductor_queue_leave(c, ticket, now_ms);
    conductor_group_dissolve(c, ticket, now_ms);
    if (ticket->decode != NONE) conductor_decode_lose(c, ticket);
    conductor_explain_batch(c, decode, now_ms);
    admission_land(c->admission, (uint32_t)(ticket - c->tickets), outcome == STATUS_OK, now_ms);
    conductor_look(c, now_ms);
    ASSERT(c->tickets_used > 0);
    c->tickets_used--;
    ticket->state = TICKET_FREE;
    ticket->next = c->free_ticket;
    c->free_ticket = (int32_t)(ticket - c->tickets);
}

void yolk_conductor_batch(const struct yolk_conductor *c, struct yolk_ticket id,
                          uint32_t *sequences, uint64_t *context_tokens)
{
    const struct ticket *ticket = conductor_ticket(c, id);

    *sequences = 0;
    *context_tokens = 0;
    if (ticket->decode == NONE) return;
    const struct instance *decode = &c->instances[ticket->decode];
    const bool counted = ticket->state == TICKET_DECODING && !ticket->at_door;
    *sequences = decode->decoding - decode->at_door + (counted ? 0 : 1);
    *context_tokens =
        decode->decoding_tokens - decode->at_door_tokens + (counted ? 0 : ticket->tokens);
    ASSERT(*sequences >= 1);
}
