/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/conductor.c - the books around Algorithm 1: instances, their work, and what was
 * decided.
 *
 * Queue estimate of a prefill instance: its unfinished requests, first come first served, each with
 * its predicted time; the one at the head counts only for what is left of it. A head that has run
 * over its prediction is expected to need another tenth of the time it has run, so that a long
 * prefill nobody foresaw does not look like an idle instance.
 *
 * Tickets and instances are slots of fixed arrays. A ticket id carries the slot and a serial
 * number, so that a stale id is caught. An instance that is removed is detached from its tickets
 * first.
 *
 * Ticket    (free) -- place --> PREFILLING -- prefill_done --> DECODING -- finish --> (free)
 *                                   +----------------- finish ----------------------->
 *
 * Invariants
 *   I1  a ticket is in the queue of its prefill instance exactly while PREFILLING and attached.
 *   I2  an instance's sequences, tokens and pages are the sums over the tickets attached to it.
 *   I3  fits of instances that are free are not used; fits of used ones hold finite numbers.
 *   I4  a host slot is used exactly while an instance lies on it. */
#include "yolk/conductor.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "conductor/cost.h"
#include "conductor/index.h"
#include "conductor/place.h"
#include "conductor/profile.h"

static_assert((int)YOLK_INSTANCES_MAX == (int)CONDUCTOR_HOLDERS_MAX, "an instance is a holder");
static_assert((int)YOLK_PATHS == (int)CONDUCTOR_PATHS, "paths have the same numbers");

enum { NONE = -1 };
static const double OVERRUN = 0.1;

enum ticket_state { TICKET_FREE = 0, TICKET_PREFILLING, TICKET_DECODING };

struct ticket {
    enum ticket_state state;
    uint32_t serial;
    int32_t next, previous;  /* in the queue of the prefill instance, or the free list */
    int32_t prefill, decode; /* instances, or NONE once removed */
    uint32_t tokens;         /* in the decode instance's books */
    uint32_t pages;
    double predicted_ms; /* of transfer and compute */
    double placed_ms;
    uint64_t decision; /* number of its decision; in the ring if recent */
    uint32_t output_tokens;
};

struct instance {
    bool used;
    bool suspected;
    char name[YOLK_NAME_SIZE];
    uint32_t host;
    unsigned roles;
    uint32_t pages_max, sequences_max;
    struct conductor_fit prefill_fit, decode_fit;
    int32_t head, tail; /* tickets that prefill here */
    double queued_ms;   /* of all of them */
    double head_since_ms;
    uint32_t sequences;
    uint64_t context_tokens;
    uint64_t pages;
};

struct host {
    char name[YOLK_NAME_SIZE];
    uint32_t instances; /* 0: free */
};

struct yolk_conductor {
    struct yolk_conductor_options options;
    struct conductor_index *index;
    struct conductor_profile profile;
    struct instance *instances;
    struct host *hosts;
    struct ticket *tickets;
    int32_t free_ticket;
    uint32_t tickets_used;
    struct yolk_decision *decisions; /* ring */
    uint64_t decisions_count;
    struct yolk_conductor_stats stats;
    /* Scratch of yolk_conductor_place. */
    uint32_t *matched;
    struct conductor_prefill_candidate *prefill;
    struct conductor_decode_candidate *decode;
    struct conductor_holder *holders;
    struct conductor_holder *best_on_host;
};

/* ---- making ---- */

struct yolk_conductor_options yolk_conductor_defaults(void)
{
    return (struct yolk_conductor_options){
        .instances_max = 1024,
        .holdings_max = 1 << 20,
        .tickets_max = 16384,
        .decisions_max = 1024,
        .theta = 1.25,
        .reuse = true,
    };
}

static enum status check_range(const char *what, uint64_t value, uint64_t max, struct errmsg *err)
{
    if (value >= 1 && value <= max) return STATUS_OK;
    return errmsg_set(err, STATUS_INVALID, "conductor: %s is %llu, not in 1..%llu", what,
                      (unsigned long long)value, (unsigned long long)max);
}

static enum status check_options(const struct yolk_conductor_options *o, struct errmsg *err)
{
    const struct {
        const char *what;
        uint64_t value, max;
    } ranges[] = {
        { "instances_max", o->instances_max, YOLK_INSTANCES_MAX },
        { "holdings_max", o->holdings_max, YOLK_HOLDINGS_MAX },
        { "tickets_max", o->tickets_max, YOLK_TICKETS_MAX },
        { "decisions_max", o->decisions_max, YOLK_DECISIONS_MAX },
        { "block_tokens", o->block_tokens, 4096 },
        { "block_size", o->block_size, UINT64_C(1) << 40 },
    };

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        const enum status status = check_range(ranges[i].what, ranges[i].value, ranges[i].max, err);
        if (status != STATUS_OK) return status;
    }
    if ((o->block_tokens & (o->block_tokens - 1)) != 0) {
        return errmsg_set(err, STATUS_INVALID, "conductor: block_tokens is no power of two");
    }
    if (!(o->theta >= 1 && o->theta <= 1e6)) {
        return errmsg_set(err, STATUS_INVALID, "conductor: theta is not in 1..1000000");
    }
    return STATUS_OK;
}

static bool allocate(struct yolk_conductor *c)
{
    const struct yolk_conductor_options *o = &c->options;

    c->instances = calloc(o->instances_max, sizeof(*c->instances));
    c->hosts = calloc(o->instances_max, sizeof(*c->hosts));
    c->tickets = calloc(o->tickets_max, sizeof(*c->tickets));
    c->decisions = calloc(o->decisions_max, sizeof(*c->decisions));
    c->matched = calloc(o->instances_max, sizeof(*c->matched));
    c->prefill = calloc(o->instances_max, sizeof(*c->prefill));
    c->decode = calloc(o->instances_max, sizeof(*c->decode));
    c->holders = calloc(o->instances_max, sizeof(*c->holders));
    c->best_on_host = calloc(o->instances_max, sizeof(*c->best_on_host));
    return c->instances && c->hosts && c->tickets && c->decisions && c->matched && c->prefill &&
           c->decode && c->holders && c->best_on_host;
}

static uint64_t bytes_of(const struct yolk_conductor *c)
{
    const struct yolk_conductor_options *o = &c->options;
    const uint64_t per_instance = sizeof(*c->instances) + sizeof(*c->hosts) + sizeof(*c->matched) +
                                  sizeof(*c->prefill) + sizeof(*c->decode) + sizeof(*c->holders) +
                                  sizeof(*c->best_on_host);
    return sizeof(*c) + per_instance * o->instances_max + sizeof(*c->tickets) * o->tickets_max +
           sizeof(*c->decisions) * o->decisions_max + conductor_index_bytes(c->index);
}

enum status yolk_conductor_create(const struct yolk_conductor_options *options,
                                  struct yolk_conductor **out, struct errmsg *err)
{
    const enum status valid = check_options(options, err);
    if (valid != STATUS_OK) return valid;
    struct yolk_conductor *c = calloc(1, sizeof(*c));
    if (c == NULL) goto no_memory;
    c->options = *options;
    if (!allocate(c)) goto no_memory;
    if (conductor_index_create(options->instances_max, options->holdings_max, &c->index) !=
        STATUS_OK) {
        goto no_memory;
    }
    conductor_profile_init(&c->profile);
    c->free_ticket = 0;
    for (uint32_t i = 0; i < options->tickets_max; i++) {
        c->tickets[i].next = i + 1 < options->tickets_max ? (int32_t)i + 1 : NONE;
    }
    c->stats.bytes = bytes_of(c);
    *out = c;
    return STATUS_OK;

no_memory:
    yolk_conductor_destroy(c);
    return errmsg_set(err, STATUS_NO_MEMORY, "conductor: not enough memory");
}

void yolk_conductor_destroy(struct yolk_conductor *c)
{
    if (c == NULL) return;
    conductor_index_destroy(c->index);
    free(c->instances);
    free(c->hosts);
    free(c->tickets);
    free(c->decisions);
    free(c->matched);
    free(c->prefill);
    free(c->decode);
    free(c->holders);
    free(c->best_on_host);
    free(c);
}

/* ---- instances ---- */

static struct instance *instance_of(const struct yolk_conductor *c, struct yolk_instance_id id)
{
    ASSERT(id.index < c->options.instances_max);
    ASSERT(c->instances[id.index].used);
    return &c->instances[id.index];
}

static bool good_name(const char *name)
{
    return name != NULL && name[0] != '\0' && strlen(name) < YOLK_NAME_SIZE;
}

/* There is always room: there are as many host slots as instance slots (I4). */
static uint32_t host_ref(struct yolk_conductor *c, const char *name)
{
    uint32_t free_slot = UINT32_MAX;

    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        if (c->hosts[i].instances == 0) {
            if (free_slot == UINT32_MAX) free_slot = i;
        } else if (strcmp(c->hosts[i].name, name) == 0) {
            c->hosts[i].instances++;
            return i;
        }
    }
    ASSERT(free_slot != UINT32_MAX);
    snprintf(c->hosts[free_slot].name, YOLK_NAME_SIZE, "%s", name);
    c->hosts[free_slot].instances = 1;
    return free_slot;
}

static void host_unref(struct yolk_conductor *c, uint32_t host)
{
    ASSERT(host < c->options.instances_max);
    ASSERT(c->hosts[host].instances > 0);
    c->hosts[host].instances--;
}

enum status yolk_conductor_add(struct yolk_conductor *c, const struct yolk_instance *instance,
                               struct yolk_instance_id *out)
{
    const unsigned all_roles = YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE;
    uint32_t slot = UINT32_MAX;

    if (!good_name(instance->name) || !good_name(instance->host)) return STATUS_INVALID;
    if ((instance->roles & all_roles) == 0 || (instance->roles & ~all_roles) != 0) {
        return STATUS_INVALID;
    }
    if (instance->pages_max == 0 || instance->sequences_max == 0) return STATUS_INVALID;
    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        if (!c->instances[i].used) {
            if (slot == UINT32_MAX) slot = i;
        } else if (strcmp(c->instances[i].name, instance->name) == 0) {
            return STATUS_EXISTS;
        }
    }
    if (slot == UINT32_MAX) return STATUS_FULL;

    struct instance *added = &c->instances[slot];
    *added = (struct instance){ .used = true, .head = NONE, .tail = NONE };
    snprintf(added->name, sizeof(added->name), "%s", instance->name);
    added->host = host_ref(c, instance->host);
    added->roles = instance->roles;
    added->pages_max = instance->pages_max;
    added->sequences_max = instance->sequences_max;
    conductor_fit_init_from(&added->prefill_fit, &c->profile.prefill);
    conductor_fit_init_from(&added->decode_fit, &c->profile.decode);
    c->stats.instances++;
    *out = (struct yolk_instance_id){ slot };
    return STATUS_OK;
}

/* Takes the ticket out of the queue of its prefill instance; the next one starts now. */
static void queue_leave(struct yolk_conductor *c, struct ticket *ticket, double now_ms)
{
    ASSERT(ticket->state == TICKET_PREFILLING && ticket->prefill != NONE);
    struct instance *instance = &c->instances[ticket->prefill];

    if (ticket->previous == NONE) {
        ASSERT(&c->tickets[instance->head] == ticket);
        instance->head = ticket->next;
        instance->head_since_ms = now_ms;
    } else {
        c->tickets[ticket->previous].next = ticket->next;
    }
    if (ticket->next == NONE) {
        instance->tail = ticket->previous;
    } else {
        c->tickets[ticket->next].previous = ticket->previous;
    }
    instance->queued_ms -= ticket->predicted_ms;
    if (instance->head == NONE || instance->queued_ms < 0) instance->queued_ms = 0;
    ticket->prefill = NONE;
}

static void queue_join(struct yolk_conductor *c, int32_t index, double now_ms)
{
    struct ticket *ticket = &c->tickets[index];
    ASSERT(ticket->state == TICKET_PREFILLING && ticket->prefill != NONE);
    struct instance *instance = &c->instances[ticket->prefill];

    ticket->next = NONE;
    ticket->previous = instance->tail;
    if (instance->tail == NONE) {
        instance->head = index;
        instance->head_since_ms = now_ms;
    } else {
        c->tickets[instance->tail].next = index;
    }
    instance->tail = index;
    instance->queued_ms += ticket->predicted_ms;
}

static void decode_leave(struct yolk_conductor *c, struct ticket *ticket)
{
    ASSERT(ticket->state != TICKET_FREE && ticket->decode != NONE);
    struct instance *instance = &c->instances[ticket->decode];

    ASSERT(instance->sequences > 0 && instance->context_tokens >= ticket->tokens);
    ASSERT(instance->pages >= ticket->pages);
    instance->sequences--;
    instance->context_tokens -= ticket->tokens;
    instance->pages -= ticket->pages;
    ticket->decode = NONE;
}

void yolk_conductor_remove(struct yolk_conductor *c, struct yolk_instance_id id)
{
    struct instance *instance = instance_of(c, id);

    for (uint32_t i = 0; i < c->options.tickets_max; i++) {
        struct ticket *ticket = &c->tickets[i];
        if (ticket->state == TICKET_FREE) continue;
        if (ticket->prefill == (int32_t)id.index) queue_leave(c, ticket, instance->head_since_ms);
        if (ticket->decode == (int32_t)id.index) decode_leave(c, ticket);
    }
    ASSERT(instance->head == NONE && instance->sequences == 0 && instance->pages == 0);
    conductor_index_clear(c->index, id.index);
    host_unref(c, instance->host);
    if (instance->suspected) c->stats.suspected--;
    c->stats.instances--;
    instance->used = false;
}

void yolk_conductor_suspect(struct yolk_conductor *c, struct yolk_instance_id id, bool suspected)
{
    struct instance *instance = instance_of(c, id);

    if (instance->suspected == suspected) return;
    instance->suspected = suspected;
    c->stats.suspected += suspected ? 1 : -1u;
    ASSERT(c->stats.suspected <= c->stats.instances);
}

const char *yolk_conductor_name(const struct yolk_conductor *c, struct yolk_instance_id id)
{
    return instance_of(c, id)->name;
}

/* ---- what each instance holds ---- */

enum status yolk_conductor_stored(struct yolk_conductor *c, struct yolk_instance_id id,
                                  const struct block_key *keys, size_t count, enum yolk_tier tier)
{
    ASSERT(instance_of(c, id)->used);
    ASSERT((int)tier >= 0 && (int)tier < CONDUCTOR_TIERS);
    enum status result = STATUS_OK;

    for (size_t i = 0; i < count; i++) {
        const enum status status =
            conductor_index_store(c->index, id.index, &keys[i], (uint8_t)tier);
        if (status == STATUS_OK) continue;
        ASSERT(status == STATUS_FULL);
        c->stats.events_forgotten++;
        result = STATUS_FULL;
    }
    c->stats.events_stored += count;
    return result;
}

void yolk_conductor_removed(struct yolk_conductor *c, struct yolk_instance_id id,
                            const struct block_key *keys, size_t count)
{
    ASSERT(instance_of(c, id)->used);
    for (size_t i = 0; i < count; i++) {
        (void)conductor_index_remove(c->index, id.index, &keys[i]);
    }
    c->stats.events_removed += count;
}

void yolk_conductor_cleared(struct yolk_conductor *c, struct yolk_instance_id id)
{
    ASSERT(instance_of(c, id)->used);
    conductor_index_clear(c->index, id.index);
}

void yolk_conductor_resync_begin(struct yolk_conductor *c, struct yolk_instance_id id)
{
    ASSERT(instance_of(c, id)->used);
    conductor_index_resync_begin(c->index, id.index);
}

void yolk_conductor_resync_end(struct yolk_conductor *c, struct yolk_instance_id id)
{
    ASSERT(instance_of(c, id)->used);
    conductor_index_resync_end(c->index, id.index);
}

/* ---- placement ---- */

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

static double queue_ms(const struct instance *instance, const struct ticket *tickets, double now_ms)
{
    if (instance->head == NONE) return 0;
    const double head = tickets[instance->head].predicted_ms;
    const double ran = now_ms > instance->head_since_ms ? now_ms - instance->head_since_ms : 0;
    const double left = ran < head ? head - ran : OVERRUN * ran;
    const double behind = instance->queued_ms - head;

    return left + (behind > 0 ? behind : 0);
}

/* What is counted while candidates are gathered, to say later why there were none. */
struct candidates {
    uint32_t prefill, decode, holders;
    bool decode_up;       /* some decode instance may be used, full or not */
    bool decode_possible; /* some would have room if it were empty */
};

static uint32_t pages_of(const struct yolk_conductor *c, const struct yolk_place_request *request)
{
    const uint64_t tokens = (uint64_t)request->tokens + request->output_tokens;
    const uint64_t pages = (tokens + c->options.block_tokens - 1) / c->options.block_tokens;
    return pages > UINT32_MAX ? UINT32_MAX : (uint32_t)pages;
}

/* The roles of all instances that could work for this request, to fall back when one is missing. */
static unsigned roles_up(const struct yolk_conductor *c, const struct yolk_place_request *request)
{
    unsigned roles = 0;

    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        const struct instance *instance = &c->instances[i];
        if (!instance->used || instance->suspected) continue;
        if (i != request->avoid_prefill.index) roles |= instance->roles & YOLK_ROLE_PREFILL;
        if (i != request->avoid_decode.index) roles |= instance->roles & YOLK_ROLE_DECODE;
    }
    return roles;
}

static void gather_decode(struct yolk_conductor *c, uint32_t i, uint32_t pages,
                          struct candidates *found)
{
    const struct instance *instance = &c->instances[i];

    found->decode_up = true;
    if (pages > instance->pages_max) return;
    found->decode_possible = true;
    if (instance->sequences >= instance->sequences_max) return;
    if (instance->pages + pages > instance->pages_max) return;
    c->decode[found->decode++] =
        (struct conductor_decode_candidate){ i, instance->sequences, instance->context_tokens,
                                             &instance->decode_fit };
}

static struct candidates gather(struct yolk_conductor *c, const struct yolk_place_request *request,
                                double now_ms)
{
    struct candidates found = { 0 };
    const uint32_t pages = pages_of(c, request);
    const unsigned up = roles_up(c, request);

    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        const struct instance *instance = &c->instances[i];
        if (!instance->used || instance->suspected) continue;
        const bool prefills = (instance->roles & YOLK_ROLE_PREFILL) || !(up & YOLK_ROLE_PREFILL);
        const bool decodes = (instance->roles & YOLK_ROLE_DECODE) || !(up & YOLK_ROLE_DECODE);
        const uint32_t hit = i == request->avoid_holder.index ? 0 : c->matched[i];
        if (hit > 0) {
            c->holders[found.holders++] = (struct conductor_holder){ i, instance->host, hit };
        }
        if (prefills && i != request->avoid_prefill.index) {
            c->prefill[found.prefill++] =
                (struct conductor_prefill_candidate){ i, instance->host, hit,
                                                      queue_ms(instance, c->tickets, now_ms),
                                                      &instance->prefill_fit };
        }
        if (decodes && i != request->avoid_decode.index) gather_decode(c, i, pages, &found);
    }
    return found;
}

/* Why this request cannot be placed now, or STATUS_OK. */
static enum status refuse(struct yolk_conductor *c, const struct candidates *found)
{
    if (found->prefill == 0 || !found->decode_up) {
        c->stats.refused_unavailable++;
        return STATUS_UNAVAILABLE;
    }
    if (!found->decode_possible) return STATUS_INVALID;
    if (found->decode == 0 || c->free_ticket == NONE) {
        c->stats.refused_full++;
        return STATUS_FULL;
    }
    return STATUS_OK;
}

static void match(struct yolk_conductor *c, const struct yolk_place_request *request)
{
    const uint32_t limit = conductor_reusable_blocks(request->tokens, c->options.block_tokens);
    const uint32_t count = request->keys_count < limit ? request->keys_count : limit;

    conductor_index_match(c->index, request->keys, c->options.reuse ? count : 0, c->matched);
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

static struct ticket *ticket_of(const struct yolk_conductor *c, struct yolk_ticket id)
{
    const uint64_t index = (id.id & UINT32_MAX) - 1;
    ASSERT(id.id != 0 && index < c->options.tickets_max);
    struct ticket *ticket = &c->tickets[index];
    ASSERT(ticket->state != TICKET_FREE && ticket_id(c, ticket) == id.id);
    return ticket;
}

static struct ticket *issue_ticket(struct yolk_conductor *c,
                                   const struct yolk_place_request *request,
                                   const struct yolk_decision *decision, double now_ms)
{
    const int32_t index = c->free_ticket;
    ASSERT(index != NONE);
    struct ticket *ticket = &c->tickets[index];
    ASSERT(ticket->state == TICKET_FREE);
    struct instance *decode = instance_of(c, decision->decode);

    c->free_ticket = ticket->next;
    c->tickets_used++;
    *ticket = (struct ticket){
        .state = TICKET_PREFILLING,
        .serial = ticket->serial + 1,
        .prefill = (int32_t)decision->prefill.index,
        .decode = (int32_t)decision->decode.index,
        .tokens = request->tokens,
        .pages = pages_of(c, request),
        .predicted_ms = decision->transfer_ms + decision->compute_ms,
        .placed_ms = now_ms,
        .decision = c->decisions_count,
    };
    queue_join(c, index, now_ms);
    decode->sequences++;
    decode->context_tokens += ticket->tokens;
    decode->pages += ticket->pages;
    ASSERT(decode->pages <= decode->pages_max && decode->sequences <= decode->sequences_max);
    return ticket;
}

static void copy_name(const struct yolk_conductor *c, struct yolk_instance_id id,
                      char out[YOLK_NAME_SIZE])
{
    if (id.index == YOLK_INSTANCE_NONE.index) return;
    memcpy(out, instance_of(c, id)->name, YOLK_NAME_SIZE);
}

static void describe(const struct yolk_conductor *c, const struct yolk_place_request *request,
                     const struct candidates *found, const struct conductor_place_output *placed,
                     double now_ms, struct yolk_decision *out)
{
    const struct conductor_prefill_candidate *prefill = &c->prefill[placed->prefill];
    const bool fetches = placed->holder != CONDUCTOR_NO_HOLDER;
    const uint32_t local = prefill->hit_blocks;

    ASSERT(placed->reuse_blocks >= local || fetches);
    *out = (struct yolk_decision){
        .prefill = { prefill->instance },
        .decode = { c->decode[placed->decode].instance },
        .holder = YOLK_INSTANCE_NONE,
        .reason = reason_of(placed, local),
        .tokens = request->tokens,
        .reuse_blocks = placed->reuse_blocks,
        .local_blocks = local,
        .best_blocks = placed->best_blocks,
        .prefill_candidates = found->prefill,
        .decode_candidates = found->decode,
        .placed_ms = now_ms,
        .queue_ms = placed->queue_ms,
        .transfer_ms = placed->transfer_ms,
        .compute_ms = placed->compute_ms,
        .ttft_ms = placed->ttft_ms,
        .tbt_ms = placed->tbt_ms,
        .spread_ms = conductor_cost_spread(prefill->fit, placed->compute_ms),
        .actual_ttft_ms = -1,
        .actual_total_ms = -1,
        .actual_cached_tokens = -1,
        .actual_output_tokens = -1,
    };
    if (fetches) out->holder.index = placed->holder;
    if (!fetches && placed->reuse_blocks > 0) out->holder = out->prefill;
    snprintf(out->request_id, sizeof(out->request_id), "%s",
             request->request_id ? request->request_id : "");
    copy_name(c, out->prefill, out->prefill_name);
    copy_name(c, out->decode, out->decode_name);
    copy_name(c, out->holder, out->holder_name);
}

enum status yolk_conductor_place(struct yolk_conductor *c, const struct yolk_place_request *request,
                                 double now_ms, struct yolk_decision *out)
{
    ASSERT(request->tokens > 0 && isfinite(now_ms));
    struct conductor_place_output placed;

    match(c, request);
    const struct candidates found = gather(c, request, now_ms);
    const enum status refused = refuse(c, &found);
    if (refused != STATUS_OK) return refused;
    const struct conductor_place_input input = {
        .prefill = c->prefill,
        .prefill_count = found.prefill,
        .decode = c->decode,
        .decode_count = found.decode,
        .holders = c->holders,
        .holders_count = found.holders,
        .best_on_host = c->best_on_host,
        .hosts_max = c->options.instances_max,
        .transfer = c->profile.transfer,
        .tokens = request->tokens,
        .block_tokens = c->options.block_tokens,
        .block_size = c->options.block_size,
        .theta = c->options.theta,
    };
    conductor_place(&input, &placed);
    describe(c, request, &found, &placed, now_ms, out);
    out->ticket.id = ticket_id(c, issue_ticket(c, request, out, now_ms));
    c->decisions[c->decisions_count % c->options.decisions_max] = *out;
    c->decisions_count++;
    c->stats.decisions++;
    c->stats.reasons[out->reason]++;
    return STATUS_OK;
}

/* The decision of a ticket, while the ring still has it. */
static struct yolk_decision *logged(struct yolk_conductor *c, const struct ticket *ticket)
{
    ASSERT(ticket->decision < c->decisions_count);
    if (c->decisions_count - ticket->decision > c->options.decisions_max) return NULL;
    return &c->decisions[ticket->decision % c->options.decisions_max];
}

void yolk_conductor_prefill_done(struct yolk_conductor *c, struct yolk_ticket id,
                                 uint32_t cached_tokens, double now_ms)
{
    struct ticket *ticket = ticket_of(c, id);
    ASSERT(ticket->state == TICKET_PREFILLING);
    struct yolk_decision *decision = logged(c, ticket);

    if (ticket->prefill != NONE) queue_leave(c, ticket, now_ms);
    ticket->state = TICKET_DECODING;
    if (decision == NULL) return;
    decision->actual_ttft_ms = now_ms - ticket->placed_ms;
    decision->actual_cached_tokens = cached_tokens;
}

void yolk_conductor_decoded(struct yolk_conductor *c, struct yolk_ticket id, uint32_t tokens)
{
    struct ticket *ticket = ticket_of(c, id);
    ASSERT(ticket->tokens <= UINT32_MAX - tokens);

    ticket->output_tokens += tokens;
    if (ticket->decode == NONE) return;
    ticket->tokens += tokens;
    c->instances[ticket->decode].context_tokens += tokens;
}

void yolk_conductor_finish(struct yolk_conductor *c, struct yolk_ticket id, enum status outcome,
                           double now_ms)
{
    struct ticket *ticket = ticket_of(c, id);
    struct yolk_decision *decision = logged(c, ticket);

    if (decision != NULL) {
        decision->actual_total_ms = now_ms - ticket->placed_ms;
        decision->actual_output_tokens = ticket->output_tokens;
        decision->outcome = outcome;
        decision->finished = true;
    }
    if (ticket->prefill != NONE) queue_leave(c, ticket, now_ms);
    if (ticket->decode != NONE) decode_leave(c, ticket);
    ASSERT(c->tickets_used > 0);
    c->tickets_used--;
    ticket->state = TICKET_FREE;
    ticket->next = c->free_ticket;
    c->free_ticket = (int32_t)(ticket - c->tickets);
}

void yolk_conductor_batch(const struct yolk_conductor *c, struct yolk_ticket id,
                          uint32_t *sequences, uint64_t *context_tokens)
{
    const struct ticket *ticket = ticket_of(c, id);

    *sequences = ticket->decode == NONE ? 0 : c->instances[ticket->decode].sequences;
    *context_tokens = ticket->decode == NONE ? 0 : c->instances[ticket->decode].context_tokens;
}

/* ---- learning: each sample goes to its instance and to the profile that new ones start from ----
 */

static enum status counted(struct yolk_conductor *c, enum status status, uint64_t *samples)
{
    if (status == STATUS_OK) {
        (*samples)++;
    } else {
        c->stats.samples_refused++;
    }
    return status;
}

enum status yolk_conductor_learn_prefill(struct yolk_conductor *c, struct yolk_instance_id id,
                                         uint32_t tokens, uint32_t reused_tokens, double ms)
{
    struct instance *instance = instance_of(c, id);
    enum status status = conductor_fit_prefill(&instance->prefill_fit, tokens, reused_tokens, ms);

    if (status == STATUS_OK) {
        status = conductor_fit_prefill(&c->profile.prefill, tokens, reused_tokens, ms);
        ASSERT(status == STATUS_OK);
    }
    return counted(c, status, &c->stats.samples_prefill);
}

enum status yolk_conductor_learn_decode(struct yolk_conductor *c, struct yolk_instance_id id,
                                        double sequences, double context_tokens, double ms)
{
    struct instance *instance = instance_of(c, id);
    enum status status = conductor_fit_decode(&instance->decode_fit, sequences, context_tokens, ms);

    if (status == STATUS_OK) {
        status = conductor_fit_decode(&c->profile.decode, sequences, context_tokens, ms);
        ASSERT(status == STATUS_OK);
    }
    return counted(c, status, &c->stats.samples_decode);
}

enum status yolk_conductor_learn_transfer(struct yolk_conductor *c, enum yolk_path path,
                                          uint64_t bytes, double ms)
{
    ASSERT((int)path >= 0 && (int)path < CONDUCTOR_PATHS);
    return counted(c, conductor_fit_transfer(&c->profile.transfer[path], (double)bytes, ms),
                   &c->stats.samples_transfer);
}

enum status yolk_conductor_profile_save(const struct yolk_conductor *c, char **out, size_t *len)
{
    return conductor_profile_format(&c->profile, out, len);
}

enum status yolk_conductor_profile_load(struct yolk_conductor *c, const char *text, size_t len,
                                        struct errmsg *err)
{
    return conductor_profile_parse(text, len, &c->profile, err);
}

/* ---- explaining ---- */

void yolk_conductor_stats(const struct yolk_conductor *c, struct yolk_conductor_stats *out)
{
    *out = c->stats;
    out->holdings = conductor_index_count(c->index);
    out->tickets = c->tickets_used;
}

bool yolk_conductor_decision(const struct yolk_conductor *c, uint32_t age,
                             struct yolk_decision *out)
{
    if (age >= c->decisions_count || age >= c->options.decisions_max) return false;
    *out = c->decisions[(c->decisions_count - 1 - age) % c->options.decisions_max];
    return true;
}
