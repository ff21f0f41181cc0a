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
 * The head of a queue is being computed and stays; behind it, higher priorities come first, and
 * equals in the order in which they came.
 *
 * Invariants
 *   I1  a ticket is in the queue of its prefill instance exactly while PREFILLING and attached.
 *   I2  an instance's sequences, tokens and pages are the sums over the tickets attached to it; its
 *       decoding and decoding_tokens over those of them that are DECODING.
 *   I3  fits of instances that are free are not used; fits of used ones hold finite numbers.
 *   I4  a host slot is used exactly while an instance lies on it.
 *   I5  prefill_up and decode_up count the instances that conductor_open(). */
#include "conductor/conductor_int.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/rng.h"

static_assert((int)YOLK_INSTANCES_MAX == (int)CONDUCTOR_HOLDERS_MAX, "an instance is a holder");
static_assert((int)YOLK_GROUP_MAX == (int)PIPELINE_STAGES_MAX, "an instance is a stage");
static_assert((int)YOLK_PATHS == (int)CONDUCTOR_PATHS, "paths have the same numbers");

enum { PREFETCH_AHEAD = 12 }; /* keys of a batch of events */
static const double OVERRUN = 0.1;
static const double ORDER_LIMIT = 0.6; /* of the limit, by which a prompt steps back at most */

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
        .group_max = 1,
        .chunk_tokens = 2048,
        .activation_bytes = 16384,
        .inline_factor = 1.25,
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
        { "group_max", o->group_max, YOLK_GROUP_MAX },
        { "chunk_tokens", o->chunk_tokens, UINT32_MAX },
        { "activation_bytes", o->activation_bytes, UINT32_MAX },
    };

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        const enum status status = check_range(ranges[i].what, ranges[i].value, ranges[i].max, err);
        if (status != STATUS_OK) return status;
    }
    if ((o->block_tokens & (o->block_tokens - 1)) != 0) {
        return errmsg_set(err, STATUS_INVALID, "conductor: block_tokens is no power of two");
    }
    if ((int)o->placement < 0 || (int)o->placement >= YOLK_PLACEMENTS) {
        return errmsg_set(err, STATUS_INVALID, "conductor: no such placement");
    }
    if (!(o->inline_tbt_ms >= 0 && o->inline_tbt_ms <= YOLK_LIMIT_MS_MAX)) {
        return errmsg_set(err, STATUS_INVALID, "conductor: inline_tbt_ms is not in 0..%d",
                          YOLK_LIMIT_MS_MAX);
    }
    if (!(o->inline_factor >= 1 && o->inline_factor <= 100)) {
        return errmsg_set(err, STATUS_INVALID, "conductor: inline_factor is not in 1..100");
    }
    if (!(o->stretch >= 0 && o->stretch <= 1000)) {
        return errmsg_set(err, STATUS_INVALID, "conductor: stretch is not in 0..1000");
    }
    if (!(o->theta >= 1 && o->theta <= 1e6)) {
        return errmsg_set(err, STATUS_INVALID, "conductor: theta is not in 1..1000000");
    }
    return STATUS_OK;
}

static bool allocate(struct yolk_conductor *c)
{
    const struct yolk_conductor_options *o = &c->options;

    c->instances =
        aligned_alloc(alignof(struct instance), o->instances_max * sizeof(*c->instances));
    if (c->instances != NULL) memset(c->instances, 0, o->instances_max * sizeof(*c->instances));
    c->hosts = calloc(o->instances_max, sizeof(*c->hosts));
    c->tickets = calloc(o->tickets_max, sizeof(*c->tickets));
    c->decisions = calloc(o->decisions_max, sizeof(*c->decisions));
    c->matched = calloc(o->instances_max, sizeof(*c->matched));
    c->ends_slow = calloc(o->instances_max, sizeof(*c->ends_slow));
    c->prefill = calloc(o->instances_max, sizeof(*c->prefill));
    c->decode = calloc(o->instances_max, sizeof(*c->decode));
    c->holders = calloc(o->instances_max, sizeof(*c->holders));
    c->on_host = calloc(o->instances_max, sizeof(*c->on_host));
    c->next_holder = calloc(o->instances_max, sizeof(*c->next_holder));
    c->decoders = calloc(o->instances_max, sizeof(*c->decoders));
    c->members = calloc(o->instances_max, sizeof(*c->members));
    if (o->group_max > 1) {
        c->chunks = calloc(PIPELINE_CHUNKS_MAX, sizeof(*c->chunks));
        if (c->chunks == NULL) return false;
    }
    return c->instances && c->hosts && c->tickets && c->decisions && c->matched && c->ends_slow &&
           c->prefill && c->decode && c->holders && c->on_host && c->next_holder && c->decoders &&
           c->members;
}

static uint64_t bytes_of(const struct yolk_conductor *c)
{
    const struct yolk_conductor_options *o = &c->options;
    const uint64_t per_instance =
        sizeof(*c->instances) + sizeof(*c->hosts) + sizeof(*c->matched) + sizeof(*c->ends_slow) +
        sizeof(*c->prefill) + sizeof(*c->decode) + sizeof(*c->holders) + sizeof(*c->on_host) +
        sizeof(*c->next_holder) + sizeof(*c->decoders) + sizeof(*c->members);
    return sizeof(*c) + per_instance * o->instances_max + sizeof(*c->tickets) * o->tickets_max +
           sizeof(*c->decisions) * o->decisions_max + conductor_index_bytes(c->index) +
           admission_bytes(c->admission) + audit_bytes() + conductor_explain_bytes(c->explain) +
           (c->chunks == NULL ? 0 : PIPELINE_CHUNKS_MAX * sizeof(*c->chunks));
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
    if (admission_create(options->tickets_max, options->instances_max, &c->admission) !=
        STATUS_OK) {
        goto no_memory;
    }
    if (audit_create(&c->audit) != STATUS_OK) goto no_memory;
    if (conductor_explain_create(options, &c->explain) != STATUS_OK) goto no_memory;
    conductor_index_set_ghost(c->index, conductor_explain_ghost(c->explain));
    conductor_profile_init(&c->profile);
    conductor_elastic_init(c);
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
    admission_destroy(c->admission);
    audit_destroy(c->audit);
    conductor_replication_destroy(c->replication);
    conductor_explain_destroy(c->explain);
    free(c->decoders);
    free(c->members);
    free(c->chunks);
    free(c->instances);
    free(c->hosts);
    free(c->tickets);
    free(c->decisions);
    free(c->matched);
    free(c->ends_slow);
    free(c->prefill);
    free(c->decode);
    free(c->holders);
    free(c->on_host);
    free(c->next_holder);
    free(c);
}

/* ---- instances ---- */

/* Counts an instance that comes up (1) or goes (-1u). */
static void count_up(struct yolk_conductor *c, const struct instance *instance, uint32_t change)
{
    if (instance->roles & YOLK_ROLE_PREFILL) c->prefill_up += change;
    if (instance->roles & YOLK_ROLE_DECODE) c->decode_up += change;
    ASSERT(c->prefill_up <= c->options.instances_max && c->decode_up <= c->options.instances_max);
}

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
    *added = (struct instance){ .used = true,
                                .head = NONE,
                                .tail = NONE,
                                .since_ms = -INFINITY,
                                .sending_until_ms = -INFINITY };
    snprintf(added->name, sizeof(added->name), "%s", instance->name);
    added->host = host_ref(c, instance->host);
    added->roles = instance->roles;
    added->pages_max = instance->pages_max;
    added->sequences_max = instance->sequences_max;
    conductor_fit_init_from(&added->prefill_fit, &c->profile.prefill);
    conductor_fit_init_from(&added->decode_fit, &c->profile.decode);
    c->stats.instances++;
    count_up(c, added, 1);
    conductor_explain_instance(c, slot);
    *out = (struct yolk_instance_id){ slot };
    return STATUS_OK;
}

/* Keeps the copies true, so that looking at a queue reads no tickets. */
static void note_ends(const struct yolk_conductor *c, struct instance *instance)
{
    if (instance->head == NONE) return;
    instance->head_ms = c->tickets[instance->head].predicted_ms;
    instance->tail_rank = c->tickets[instance->tail].rank;
}

/* Takes the ticket out of the queue of its prefill instance; the next one starts now. */
void conductor_queue_leave(struct yolk_conductor *c, struct ticket *ticket, double now_ms)
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
    ASSERT(instance->queued > 0);
    instance->queued--;
    instance->left++;
    instance->queued_ms -= ticket->predicted_ms;
    if (instance->head == NONE || instance->queued_ms < 0) instance->queued_ms = 0;
    note_ends(c, instance);
    audit_drained(c->audit, (uint32_t)ticket->prefill, instance->left, now_ms);
    conductor_explain_left(c, (uint32_t)ticket->prefill, now_ms);
    ticket->prefill = NONE;
}

static bool goes_before(struct queue_rank a, struct queue_rank b)
{
    return a.priority > b.priority || (a.priority == b.priority && a.order_ms < b.order_ms);
}

double conductor_order_ms(const struct yolk_conductor *c, double now_ms, double own_ms)
{
    double later_ms = c->options.stretch * own_ms;
    const double limit_ms = admission_ttft_limit(c->admission);

    /* Nobody is kept from being in time by this alone. */
    if (later_ms > limit_ms * ORDER_LIMIT) later_ms = limit_ms * ORDER_LIMIT;
    ASSERT(later_ms >= 0);
    return now_ms + later_ms;
}

/* Whom one of this priority follows; NONE in an empty queue. */
static int32_t predecessor(const struct yolk_conductor *c, const struct instance *instance,
                           struct queue_rank rank)
{
    int32_t at = instance->tail;

    while (at != instance->head && goes_before(rank, c->tickets[at].rank))
        at = c->tickets[at].previous;
    return at;
}

void conductor_queue_join(struct yolk_conductor *c, int32_t index, double now_ms)
{
    struct ticket *ticket = &c->tickets[index];
    ASSERT(ticket->state == TICKET_PREFILLING && ticket->prefill != NONE);
    struct instance *instance = &c->instances[ticket->prefill];
    const int32_t before = predecessor(c, instance, ticket->rank);

    ticket->previous = before;
    ticket->next = before == NONE ? NONE : c->tickets[before].next;
    if (before == NONE) {
        instance->head = index;
        instance->head_since_ms = now_ms;
    } else {
        c->tickets[before].next = index;
    }
    if (ticket->next == NONE) {
        instance->tail = index;
    } else {
        c->tickets[ticket->next].previous = index;
    }
    instance->queued++;
    instance->queued_ms += ticket->predicted_ms;
    note_ends(c, instance);
}

static void decode_leave(struct yolk_conductor *c, struct ticket *ticket)
{
    ASSERT(ticket->state != TICKET_FREE && ticket->decode != NONE);
    struct instance *instance = &c->instances[ticket->decode];

    ASSERT(instance->sequences > 0 && instance->context_tokens >= ticket->tokens);
    ASSERT(instance->pages >= ticket->pages);
    conductor_door_leave(c, ticket);
    instance->sequences--;
    instance->context_tokens -= ticket->tokens;
    instance->pages -= ticket->pages;
    if (ticket->state == TICKET_DECODING) {
        ASSERT(instance->decoding > 0 && instance->decoding_tokens >= ticket->tokens);
        instance->decoding--;
        instance->decoding_tokens -= ticket->tokens;
    }
    ticket->decode = NONE;
}

static void decode_lose(struct yolk_conductor *c, struct ticket *ticket)
{
    decode_leave(c, ticket);
    admission_detach(c->admission, (uint32_t)(ticket - c->tickets));
}

static void decode_join(struct yolk_conductor *c, struct ticket *ticket, uint32_t index)
{
    struct instance *decode = &c->instances[index];

    ASSERT(ticket->state == TICKET_PREFILLING);
    ticket->decode = (int32_t)index;
    decode->sequences++;
    decode->context_tokens += ticket->tokens;
    decode->pages += ticket->pages;
    ASSERT(decode->pages <= decode->pages_max && decode->sequences <= decode->sequences_max);
}

void conductor_move(struct yolk_conductor *c, struct ticket *ticket, uint32_t decode)
{
    if (ticket->decode != NONE) decode_leave(c, ticket);
    decode_join(c, ticket, decode);
    admission_move(c->admission, (uint32_t)(ticket - c->tickets), decode);
}

void yolk_conductor_remove(struct yolk_conductor *c, struct yolk_instance_id id)
{
    struct instance *instance = instance_of(c, id);

    for (uint32_t i = 0; i < c->options.tickets_max; i++) {
        struct ticket *ticket = &c->tickets[i];
        if (ticket->state == TICKET_FREE) continue;
        if (ticket->prefill == (int32_t)id.index)
            conductor_queue_leave(c, ticket, instance->head_since_ms);
        if (ticket->decode == (int32_t)id.index) decode_lose(c, ticket);
    }
    ASSERT(instance->head == NONE && instance->sequences == 0 && instance->pages == 0);
    ASSERT(instance->queued == 0 && instance->decoding == 0);
    audit_drained(c->audit, id.index, UINT64_MAX, instance->head_since_ms);
    conductor_index_clear(c->index, id.index);
    conductor_replication_forget(c, id.index);
    host_unref(c, instance->host);
    if (conductor_open(instance)) count_up(c, instance, -1u);
    if (instance->suspected) c->stats.suspected--;
    if (instance->draining) c->elastic.draining--;
    c->stats.instances--;
    instance->used = false;
    conductor_explain_instance(c, id.index);
}

void yolk_conductor_suspect(struct yolk_conductor *c, struct yolk_instance_id id, bool suspected)
{
    struct instance *instance = instance_of(c, id);

    if (instance->suspected == suspected) return;
    if (conductor_open(instance)) count_up(c, instance, -1u);
    instance->suspected = suspected;
    if (conductor_open(instance)) count_up(c, instance, 1);
    c->stats.suspected += suspected ? 1 : -1u;
    ASSERT(c->stats.suspected <= c->stats.instances);
}

void yolk_conductor_leave(struct yolk_conductor *c, struct yolk_instance_id id)
{
    struct instance *instance = instance_of(c, id);

    if (instance->leaving) return;
    if (instance->draining) {
        c->elastic.cancelled++;
        conductor_assign(c, instance, instance->roles, false);
    }
    if (conductor_open(instance)) count_up(c, instance, -1u);
    instance->leaving = true;
}

void conductor_assign(struct yolk_conductor *c, struct instance *instance, unsigned roles,
                      bool draining)
{
    if (conductor_open(instance)) count_up(c, instance, -1u);
    c->elastic.draining += (draining ? 1u : 0u) - (instance->draining ? 1u : 0u);
    instance->roles = roles;
    instance->draining = draining;
    if (conductor_open(instance)) count_up(c, instance, 1);
    ASSERT(c->elastic.draining <= c->stats.instances);
}

const char *yolk_conductor_name(const struct yolk_conductor *c, struct yolk_instance_id id)
{
    return instance_of(c, id)->name;
}

/* ---- what each instance holds ---- */

/* Ids of events come from wherever the caller has them: a wrong one is counted, not trusted. */
static bool known(struct yolk_conductor *c, struct yolk_instance_id id)
{
    if (id.index < c->options.instances_max && c->instances[id.index].used) return true;
    c->stats.events_unknown++;
    return false;
}

enum status yolk_conductor_stored(struct yolk_conductor *c, struct yolk_instance_id id,
                                  const struct block_key *keys, size_t count, enum yolk_tier tier)
{
    if (!known(c, id)) return STATUS_NOT_FOUND;
    ASSERT((int)tier >= 0 && (int)tier < CONDUCTOR_TIERS);
    if (tier == YOLK_TIER_SSD) c->ssd_seen = true;
    enum status result = STATUS_OK;

    for (size_t i = 0; i < count; i++) {
        if (i + PREFETCH_AHEAD < count) {
            conductor_index_prefetch(c->index, &keys[i + PREFETCH_AHEAD]);
        }
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
    if (!known(c, id)) return;
    for (size_t i = 0; i < count; i++) {
        if (i + PREFETCH_AHEAD < count) {
            conductor_index_prefetch(c->index, &keys[i + PREFETCH_AHEAD]);
        }
        (void)conductor_index_remove(c->index, id.index, &keys[i]);
    }
    c->stats.events_removed += count;
}

void yolk_conductor_cleared(struct yolk_conductor *c, struct yolk_instance_id id)
{
    if (!known(c, id)) return;
    conductor_index_clear(c->index, id.index);
}

void yolk_conductor_resync_begin(struct yolk_conductor *c, struct yolk_instance_id id)
{
    if (!known(c, id)) return;
    conductor_index_resync_begin(c->index, id.index);
}

void yolk_conductor_resync_end(struct yolk_conductor *c, struct yolk_instance_id id)
{
    if (!known(c, id)) return;
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

double conductor_queue_ms(const struct instance *instance, double now_ms)
{
    if (instance->head == NONE) return 0;
    const double head = instance->head_ms;
    const double ran = now_ms > instance->head_since_ms ? now_ms - instance->head_since_ms : 0;
    const double left = ran < head ? head - ran : OVERRUN * ran;
    const double behind = instance->queued_ms - head;

    return left + (behind > 0 ? behind : 0);
}

struct queue_view conductor_queue(const struct yolk_conductor *c, const struct instance *instance,
                                  struct queue_rank rank, double now_ms)
{
    struct queue_view view = { conductor_queue_ms(instance, now_ms), instance->queued };

    if (instance->head == instance->tail || !goes_before(rank, instance->tail_rank)) return view;
    for (int32_t at = instance->tail; at != instance->head; at = c->tickets[at].previous) {
        if (!goes_before(rank, c->tickets[at].rank)) break;
        view.ms -= c->tickets[at].predicted_ms;
        view.requests--;
    }
    if (view.ms < 0) view.ms = 0; /* of rounding */
    ASSERT(view.requests <= instance->queued);
    return view;
}

int conductor_priority_below(const struct yolk_conductor *c, int priority)
{
    int below = YOLK_PRIORITY_MIN - 1;

    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        const struct instance *instance = &c->instances[i];
        if (!instance->used) continue;
        for (int32_t at = instance->tail; at != instance->head; at = c->tickets[at].previous) {
            if (c->tickets[at].rank.priority >= priority) break;
            if (c->tickets[at].rank.priority > below) below = c->tickets[at].rank.priority;
        }
    }
    return below;
}

static uint32_t pages_of(const struct yolk_conductor *c, const struct yolk_place_request *request,
                         uint32_t output_tokens)
{
    const uint64_t tokens = (uint64_t)request->tokens + output_tokens;
    const uint64_t pages = (tokens + c->options.block_tokens - 1) / c->options.block_tokens;
    return pages > UINT32_MAX ? UINT32_MAX : (uint32_t)pages;
}

static uint32_t pages_most(const struct yolk_conductor *c, const struct yolk_place_request *request)
{
    return pages_of(c, request, request->output_tokens);
}

static uint32_t pages_reserved(const struct yolk_conductor *c,
                               const struct yolk_place_request *request)
{
    const uint32_t most = request->output_tokens, some = request->reserve_tokens;
    return pages_of(c, request, some > 0 && some < most ? some : most);
}

static bool is_up(const struct yolk_conductor *c, uint32_t i, unsigned role)
{
    if (i >= c->options.instances_max) return false; /* YOLK_INSTANCE_NONE */
    const struct instance *instance = &c->instances[i];
    return conductor_open(instance) && (instance->roles & role) != 0;
}

/* The roles of all instances that could work for this request, to fall back when one is missing. */
static unsigned roles_up(const struct yolk_conductor *c, const struct yolk_place_request *request)
{
    const bool less_prefill = is_up(c, request->avoid_prefill.index, YOLK_ROLE_PREFILL);
    const bool less_decode = is_up(c, request->avoid_decode.index, YOLK_ROLE_DECODE);
    unsigned roles = 0;

    if (c->prefill_up > (less_prefill ? 1 : 0)) roles |= YOLK_ROLE_PREFILL;
    if (c->decode_up > (less_decode ? 1 : 0)) roles |= YOLK_ROLE_DECODE;
    return roles;
}

static void gather_decode(struct yolk_conductor *c, uint32_t i, uint32_t most, uint32_t reserved,
                          struct candidates *found)
{
    const struct instance *instance = &c->instances[i];

    found->decode_up = true;
    if (most > instance->pages_max) return;
    found->decode_possible = true;
    if (instance->sequences >= instance->sequences_max) return;
    if (instance->pages + reserved > instance->pages_max) return;
    c->decode[found->decode++] =
        (struct conductor_decode_candidate){ i, instance->sequences, instance->context_tokens,
                                             &instance->decode_fit };
}

/* It prefills and decodes in one process. */
static bool is_both(const struct instance *instance)
{
    return instance->roles == (YOLK_ROLE_PREFILL | YOLK_ROLE_DECODE);
}

/* A prompt is computed beside steps there, and the one under way has to end first; so of two idle
 * queues that of the smaller batch is the shorter. */
static double step_ms(const struct instance *instance)
{
    if (!is_both(instance) || instance->decoding == 0) return 0;
    return conductor_cost_decode(&instance->decode_fit, instance->decoding,
                                 (double)instance->decoding_tokens);
}

/* How many of the leading `hit` blocks, at their end, it has on SSD. */
static uint32_t slow_blocks(const struct yolk_conductor *c,
                            const struct yolk_place_request *request, uint32_t holder, uint32_t hit)
{
    if (!c->ssd_seen || hit == 0 || !c->ends_slow[holder]) return 0;
    return hit - conductor_index_fast(c->index, holder, request->keys, hit);
}

/* Until what it sends to others is through, if it goes as predicted. */
static double sending_ms(const struct yolk_conductor *c, const struct instance *instance,
                         double now_ms)
{
    if (!c->options.congestion || instance->sending_until_ms <= now_ms) return 0;
    return instance->sending_until_ms - now_ms;
}

/* Blocks of the longest prefix that anybody holds. */
static uint32_t most_matched(const struct yolk_conductor *c)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < c->options.instances_max; i++)
        if (c->matched[i] > most) most = c->matched[i];
    return most;
}

/* The rank that the request would have there, if it reused so many blocks. */
static struct queue_rank rank_of(const struct yolk_conductor *c, const struct instance *instance,
                                 const struct yolk_place_request *request, uint32_t blocks,
                                 double now_ms)
{
    if (c->options.stretch == 0) return (struct queue_rank){ request->priority, now_ms };
    const double reused = (double)blocks * c->options.block_tokens;
    const double own_ms = conductor_cost_prefill(&instance->prefill_fit, request->tokens, reused);
    return (struct queue_rank){ request->priority, conductor_order_ms(c, now_ms, own_ms) };
}

/* Both lines that gather() reads of an instance are on their way before it is their turn. */
static void look_ahead(const struct yolk_conductor *c, uint32_t i)
{
    if (i >= c->options.instances_max) return;
    __builtin_prefetch(&c->instances[i]);
    __builtin_prefetch(&c->instances[i].pages_max);
}

enum { AHEAD = 8 };

static struct candidates gather(struct yolk_conductor *c, const struct yolk_place_request *request,
                                double now_ms)
{
    struct candidates found = { 0 };
    const uint32_t most = c->options.stretch > 0 ? most_matched(c) : 0;
    const unsigned up = roles_up(c, request);
    const uint32_t pages = pages_most(c, request), reserved = pages_reserved(c, request);

    for (uint32_t i = 0; i < c->options.instances_max; i++) {
        const struct instance *instance = &c->instances[i];
        look_ahead(c, i + AHEAD);
        if (!instance->used || instance->suspected) continue;
        const uint32_t hit = i == request->avoid_holder.index ? 0 : c->matched[i];
        const uint32_t slow = slow_blocks(c, request, i, hit);
        if (hit > 0) {
            const double busy_ms = sending_ms(c, instance, now_ms);
            c->holders[found.holders++] = (struct conductor_holder){ .instance = i,
                                                                     .host = instance->host,
                                                                     .blocks = hit,
                                                                     .slow_blocks = slow,
                                                                     .busy_ms = busy_ms };
            found.uneven |= slow > 0 || busy_ms > 0;
        }
        if (!conductor_open(instance)) continue;
        const bool prefills = (instance->roles & YOLK_ROLE_PREFILL) || !(up & YOLK_ROLE_PREFILL);
        const bool decodes = (instance->roles & YOLK_ROLE_DECODE) || !(up & YOLK_ROLE_DECODE);
        if (prefills && i != request->avoid_prefill.index) {
            const struct queue_rank rank = rank_of(c, instance, request, most, now_ms);
            const struct queue_view queue = conductor_queue(c, instance, rank, now_ms);
            c->prefill[found.prefill++] = (struct conductor_prefill_candidate){
                .instance = i,
                .host = instance->host,
                .hit_blocks = hit,
                .queued = queue.requests,
                .queue_ms = queue.ms + step_ms(instance),
                .fit = &instance->prefill_fit,
                .slow_blocks = slow,
                .both = is_both(instance),
            };
        }
        if (decodes && i != request->avoid_decode.index)
            gather_decode(c, i, pages, reserved, &found);
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

/* Returns how many blocks were looked up. */
static uint32_t match(struct yolk_conductor *c, const struct yolk_place_request *request)
{
    const uint32_t limit = conductor_reusable_blocks(request->tokens, c->options.block_tokens);
    const uint32_t keyed = request->keys_count < limit ? request->keys_count : limit;
    const uint32_t count = c->options.reuse ? keyed : 0;

    conductor_index_match(c->index, request->keys, count, c->matched);
    if (c->ssd_seen) conductor_index_ends(c->index, request->keys, c->matched, c->ends_slow);
    return count;
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
        .pages = pages_reserved(c, request),
        .rank = { request->priority, decision->order_ms },
        .predicted_ms = group->stages > 1 ? decision->transfer_ms + group->busy_ms[0]
                                          : decision->transfer_ms + decision->compute_ms,
        .placed_ms = now_ms,
        .decision = c->decisions_count,
        .chained = NONE,
    };
    conductor_queue_join(c, index, now_ms);
    conductor_group_join(c, ticket, group, now_ms);
    decode_join(c, ticket, decision->decode.index);
    return ticket;
}

static void copy_name(const struct yolk_conductor *c, struct yolk_instance_id id,
                      char out[YOLK_NAME_SIZE])
{
    if (id.index == YOLK_INSTANCE_NONE.index) return;
    memcpy(out, instance_of(c, id)->name, YOLK_NAME_SIZE);
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

/* Of the decision that will be the next: asked twice, the same. */
static uint64_t draw(const struct yolk_conductor *c)
{
    const bool random = c->options.placement == YOLK_PLACEMENT_RANDOM;
    return random ? rng_counter(c->options.seed, c->decisions_count) : c->decisions_count;
}

enum status conductor_propose(struct yolk_conductor *c, const struct yolk_place_request *request,
                              double now_ms, struct proposal *out)
{
    ASSERT(request->tokens > 0 && isfinite(now_ms));
    ASSERT(request->priority >= YOLK_PRIORITY_MIN && request->priority <= YOLK_PRIORITY_MAX);

    out->reusable_blocks = match(c, request);
    out->found = gather(c, request, now_ms);
    const enum status refused = refuse(c, &out->found);
    if (refused != STATUS_OK) return refused;
    const struct conductor_place_input input = {
        .prefill = c->prefill,
        .prefill_count = out->found.prefill,
        .decode = c->decode,
        .decode_count = out->found.decode,
        .holders = c->holders,
        .holders_count = out->found.holders,
        .on_host = c->on_host,
        .next = c->next_holder,
        .hosts_max = c->options.instances_max,
        .transfer = c->profile.transfer,
        .load = &c->profile.ssd,
        .uneven = out->found.uneven,
        .tokens = request->tokens,
        .block_tokens = c->options.block_tokens,
        .block_size = c->options.block_size,
        .theta = c->options.theta,
        .placement = c->options.placement,
        .draw = draw(c),
    };
    conductor_place(&input, &out->placed);
    out->inlined =
        out->placed.coupled || conductor_inline_choose(c, request, &out->found, &out->placed);
    if (out->inlined)
        out->group = (struct proposed_group){ 1, { out->placed.prefill }, { 0 } };
    else
        conductor_group_choose(c, request, &out->found, &out->placed, &out->group);
    return STATUS_OK;
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
    if (ticket->decode != NONE) decode_lose(c, ticket);
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

enum status yolk_conductor_learn_load(struct yolk_conductor *c, uint64_t bytes, double ms)
{
    return counted(c, conductor_fit_transfer(&c->profile.ssd, (double)bytes, ms),
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
    out->holdings_max = c->options.holdings_max;
    out->index_bytes = conductor_index_bytes(c->index);
    out->tickets = c->tickets_used;
}

bool yolk_conductor_decision(const struct yolk_conductor *c, uint32_t age,
                             struct yolk_decision *out)
{
    if (age >= c->decisions_count || age >= c->options.decisions_max) return false;
    *out = c->decisions[(c->decisions_count - 1 - age) % c->options.decisions_max];
    return true;
}
