/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/group.c - the books of chunked-pipeline groups (conductor/pipeline.h decides).
 *
 * A group exists only as tickets: that of the request stands in the queue of the leader, and a
 * ticket of its own in the queue of each helper, chained to the first. So helpers are busy in
 * everybody's queue estimates exactly while their stage is not done, and a group is dissolved by
 * its request's own end, whatever that is. Helpers' tickets have no decode instance.
 *
 * Invariant
 *   G1  a chained ticket is PREFILLING, and lives no longer than the one it is chained to. */
#include "conductor/conductor_int.h"

#include "base/assert.h"

/* The least queued candidates but the leader, at most `most`; returns how many. */
static uint32_t find_helpers(const struct yolk_conductor *c, const struct candidates *found,
                             uint32_t leader, uint32_t most, struct pipeline_helper *out)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < found->prefill && most > 0; i++) {
        const double queue_ms = c->prefill[i].queue_ms;
        if (i == leader || (count == most && queue_ms >= out[count - 1].queue_ms)) continue;
        uint32_t at = count < most ? count++ : count - 1;
        for (; at > 0 && out[at - 1].queue_ms > queue_ms; at--)
            out[at] = out[at - 1];
        out[at] = (struct pipeline_helper){ i, queue_ms };
    }
    return count;
}

static double pressure_of(const struct yolk_conductor *c, const struct candidates *found)
{
    double queued = 0;

    for (uint32_t i = 0; i < found->prefill; i++)
        queued += c->instances[c->prefill[i].instance].queued;
    return queued / found->prefill;
}

/* Each helper takes a ticket; one is for the request itself. */
static uint32_t helpers_most(const struct yolk_conductor *c)
{
    const uint32_t by_option = c->options.group_max - 1;
    int32_t at = c->free_ticket;
    uint32_t most = 0;

    while (at != NONE && c->tickets[at].next != NONE && most < by_option) {
        at = c->tickets[at].next;
        most++;
    }
    return most;
}

void conductor_group_choose(struct yolk_conductor *c, const struct yolk_place_request *request,
                            const struct candidates *found, struct conductor_place_output *placed,
                            struct proposed_group *out)
{
    struct pipeline_helper helpers[PIPELINE_STAGES_MAX];
    struct pipeline_choice choice;

    *out = (struct proposed_group){ 1, { placed->prefill }, { 0 } };
    if (c->options.group_max == 1 || request->alone || placed->queue_ms > 0) return;
    const double token_bytes = (double)c->options.block_size / c->options.block_tokens;
    const struct pipeline_input input = {
        .prefill = c->prefill[placed->prefill].fit,
        .transfer = &c->profile.transfer[YOLK_PATH_NETWORK],
        .tokens = request->tokens,
        .reused_tokens = placed->reuse_blocks * c->options.block_tokens,
        .chunk_tokens = c->options.chunk_tokens,
        .token_bytes = token_bytes,
        .activation_bytes = c->options.activation_bytes,
        .queue_ms = placed->queue_ms + placed->transfer_ms,
        .compute_ms = placed->compute_ms,
        .pressure = pressure_of(c, found),
        .helpers = helpers,
        .helpers_count = find_helpers(c, found, placed->prefill, helpers_most(c), helpers),
        .chunks = c->chunks,
    };
    pipeline_choose(&input, &choice);
    out->stages = choice.stages;
    for (uint32_t j = 0; j < choice.stages; j++) {
        out->busy_ms[j] = choice.busy_ms[j];
        if (j > 0) out->position[j] = helpers[j - 1].position;
    }
    if (choice.stages == 1) return;
    placed->ttft_ms = choice.ttft_ms;
    placed->compute_ms = choice.ttft_ms - input.queue_ms;
}

double conductor_group_work(const struct proposed_group *group,
                            const struct yolk_decision *decision)
{
    double work_ms = decision->transfer_ms;

    if (group->stages == 1) return work_ms + decision->compute_ms;
    for (uint32_t j = 0; j < group->stages; j++)
        work_ms += group->busy_ms[j];
    return work_ms;
}

void conductor_group_join(struct yolk_conductor *c, struct ticket *leader,
                          const struct proposed_group *group, double now_ms)
{
    for (uint32_t j = 1; j < group->stages; j++) {
        const int32_t index = c->free_ticket;
        ASSERT(index != NONE);
        struct ticket *helper = &c->tickets[index];
        ASSERT(helper->state == TICKET_FREE);
        c->free_ticket = helper->next;
        *helper = (struct ticket){
            .state = TICKET_PREFILLING,
            .serial = helper->serial + 1,
            .prefill = (int32_t)c->prefill[group->position[j]].instance,
            .decode = NONE,
            .rank = leader->rank,
            .chained = leader->chained,
            .predicted_ms = group->busy_ms[j],
            .placed_ms = now_ms,
            .decision = leader->decision,
        };
        conductor_queue_join(c, index, now_ms);
        leader->chained = index;
    }
    if (group->stages == 1) return;
    c->stats.groups++;
    c->stats.group_stages += group->stages;
}

void conductor_group_dissolve(struct yolk_conductor *c, struct ticket *leader, double now_ms)
{
    while (leader->chained != NONE) {
        const int32_t index = leader->chained;
        struct ticket *helper = &c->tickets[index];
        ASSERT(helper->state == TICKET_PREFILLING); /* G1 */
        leader->chained = helper->chained;
        if (helper->prefill != NONE) conductor_queue_leave(c, helper, now_ms);
        helper->state = TICKET_FREE;
        helper->next = c->free_ticket;
        c->free_ticket = index;
    }
}

void yolk_conductor_stage_done(struct yolk_conductor *c, struct yolk_ticket id,
                               struct yolk_instance_id instance, double now_ms)
{
    struct ticket *ticket = conductor_ticket(c, id);

    for (;;) {
        if (ticket->state == TICKET_PREFILLING && ticket->prefill == (int32_t)instance.index) {
            conductor_queue_leave(c, ticket, now_ms);
            return;
        }
        if (ticket->chained == NONE) return; /* its instance was removed */
        ticket = &c->tickets[ticket->chained];
    }
}
