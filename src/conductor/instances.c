/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/instances.c - who is in the books, the queue of each that prefills, and the batch of
 * each that decodes.
 *
 * The head of a queue is being computed and stays; behind it, higher priorities come first, and
 * equals in the order in which they came.
 *
 * An instance that is removed is detached from its tickets first. Invariants are in conductor.c. */
#include "conductor/conductor_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"

/* Counts an instance that comes up (1) or goes (-1u). */
static void count_up(struct yolk_conductor *c, const struct instance *instance, uint32_t change)
{
    if (instance->roles & YOLK_ROLE_PREFILL) c->prefill_up += change;
    if (instance->roles & YOLK_ROLE_DECODE) c->decode_up += change;
    ASSERT(c->prefill_up <= c->options.instances_max && c->decode_up <= c->options.instances_max);
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

/* Whom one of this priority follows; NONE in an empty queue. */
static int32_t predecessor(const struct yolk_conductor *c, const struct instance *instance,
                           struct queue_rank rank)
{
    int32_t at = instance->tail;

    while (at != instance->head && conductor_goes_before(rank, c->tickets[at].rank))
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

void conductor_decode_lose(struct yolk_conductor *c, struct ticket *ticket)
{
    decode_leave(c, ticket);
    admission_detach(c->admission, (uint32_t)(ticket - c->tickets));
}

void conductor_decode_join(struct yolk_conductor *c, struct ticket *ticket, uint32_t index)
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
    conductor_decode_join(c, ticket, decode);
    admission_move(c->admission, (uint32_t)(ticket - c->tickets), decode);
}

void yolk_conductor_remove(struct yolk_conductor *c, struct yolk_instance_id id)
{
    struct instance *instance = conductor_instance(c, id);

    for (uint32_t i = 0; i < c->options.tickets_max; i++) {
        struct ticket *ticket = &c->tickets[i];
        if (ticket->state == TICKET_FREE) continue;
        if (ticket->prefill == (int32_t)id.index)
            conductor_queue_leave(c, ticket, instance->head_since_ms);
        if (ticket->decode == (int32_t)id.index) conductor_decode_lose(c, ticket);
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
    struct instance *instance = conductor_instance(c, id);

    if (instance->suspected == suspected) return;
    if (conductor_open(instance)) count_up(c, instance, -1u);
    instance->suspected = suspected;
    if (conductor_open(instance)) count_up(c, instance, 1);
    c->stats.suspected += suspected ? 1 : -1u;
    ASSERT(c->stats.suspected <= c->stats.instances);
}

void yolk_conductor_leave(struct yolk_conductor *c, struct yolk_instance_id id)
{
    struct instance *instance = conductor_instance(c, id);

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
    return conductor_instance(c, id)->name;
}
