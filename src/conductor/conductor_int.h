/* SPDX-License-Identifier: Apache-2.0
 *
 * conductor/conductor_int.h - the books, as those who keep them share them: instances.c, tickets.c,
 * propose.c (placement), admit.c (overload), elastic.c (roles). Invariants are in conductor.c. */
#ifndef CONDUCTOR_CONDUCTOR_INT_H
#define CONDUCTOR_CONDUCTOR_INT_H

#include <assert.h>
#include <stdalign.h>
#include <stddef.h>

#include "base/assert.h"
#include "conductor/admission.h"
#include "conductor/apps.h"
#include "conductor/audit.h"
#include "conductor/cost.h"
#include "conductor/index.h"
#include "conductor/pipeline.h"
#include "conductor/place.h"
#include "conductor/profile.h"
#include "conductor/roles.h"
#include "yolk/conductor.h"

enum { NONE = -1 };
enum ticket_state { TICKET_FREE = 0, TICKET_PREFILLING, TICKET_DECODING };

/* Where a prompt stands in the queue of its prefill instance, behind the one that is computed: by
 * priority, then by order, then as it came. */
struct queue_rank {
    int priority;
    double order_ms;
};

struct ticket {
    enum ticket_state state;
    uint32_t serial;
    int32_t next, previous;  /* in the queue of the prefill instance, or the free list */
    int32_t prefill, decode; /* instances, or NONE once removed */
    uint32_t tokens;         /* in the decode instance's books */
    uint32_t pages;
    struct queue_rank rank;
    double predicted_ms; /* of transfer and compute */
    double placed_ms;
    uint64_t decision; /* number of its decision; in the ring if recent */
    uint32_t output_tokens;
    int32_t chained; /* tickets of the others in its group, or NONE */
    bool at_door;    /* DECODING in the books, and its decode instance has not let it in yet */
    double door_since_ms;
};

/* What placing reads of each prefill instance is its first cache line, of each decode instance the
 * second. */
struct instance {
    alignas(64) bool used;
    bool suspected;
    bool draining; /* changes its role: no new work, the old one goes on */
    bool leaving;  /* the same for good */
    unsigned roles;
    uint32_t host;
    int32_t head, tail; /* tickets that prefill here */
    uint32_t queued;    /* tickets between head and tail, the head first, then by priority */
    double queued_ms;   /* of all queued tickets */
    double head_since_ms;
    double head_ms; /* predicted_ms of the head, rank of the tail: copies, if there are any */
    struct queue_rank tail_rank;

    alignas(64) uint32_t pages_max;
    uint32_t sequences_max;
    uint32_t sequences;
    uint32_t decoding; /* of them, those not prefilling any more */
    uint64_t context_tokens;
    uint64_t decoding_tokens; /* of them, as above */
    uint64_t pages;
    uint64_t left;           /* tickets that have left the queue, ever */
    double since_ms;         /* in its role since */
    double sending_until_ms; /* to those who fetch from it, as predicted */
    alignas(64) struct conductor_fit prefill_fit;
    alignas(64) struct conductor_fit decode_fit;
    uint32_t at_door; /* of `decoding`, those that wait to be let in; with their tokens */
    uint64_t at_door_tokens;
    char name[YOLK_NAME_SIZE];
};
static_assert(offsetof(struct conductor_fit, coef) + sizeof(((struct conductor_fit *)0)->coef) <=
                  64,
              "a prediction reads one cache line of a fit");

struct host {
    char name[YOLK_NAME_SIZE];
    uint32_t instances; /* 0: free */
};

struct replication;

struct yolk_conductor {
    struct yolk_conductor_options options;
    struct conductor_index *index;
    bool ssd_seen; /* somebody has had a block on SSD */
    struct conductor_profile profile;
    struct instance *instances;
    uint32_t prefill_up, decode_up; /* instances of each role that are not suspected */
    struct host *hosts;
    struct ticket *tickets;
    int32_t free_ticket;
    uint32_t tickets_used;
    struct yolk_decision *decisions; /* ring */
    uint64_t decisions_count;
    struct yolk_conductor_stats stats;
    struct admission *admission;
    struct apps apps;
    struct audit *audit;
    struct roles roles;
    struct replication *replication; /* NULL: off */
    struct yolk_elastic_stats elastic;
    struct explain *explain;
    /* Scratch of yolk_conductor_place. */
    uint32_t *matched;
    bool *ends_slow; /* of those matched, once somebody has had a block on SSD */
    struct conductor_prefill_candidate *prefill;
    struct conductor_decode_candidate *decode;
    struct conductor_holder *holders;
    uint32_t *on_host, *next_holder;
    struct admission_decoder *decoders;
    struct roles_member *members;
    struct pipeline_chunk *chunks; /* NULL where groups are off */
};

/* What is counted while candidates are gathered, to say later why there were none. */
struct candidates {
    uint32_t prefill, decode, holders;
    bool uneven;          /* of holders: some are busy, or have blocks on SSD */
    bool decode_up;       /* some decode instance may be used, full or not */
    bool decode_possible; /* some would have room if it were empty */
};

/* Who would prefill together: positions in the prefill candidates, the leader first. */
struct proposed_group {
    uint32_t stages; /* 1: the leader alone */
    uint32_t position[PIPELINE_STAGES_MAX];
    double busy_ms[PIPELINE_STAGES_MAX];
};

/* A placement that is not in the books yet; good until anything else is called. */
struct proposal {
    struct candidates found;
    struct conductor_place_output placed;
    uint32_t reusable_blocks; /* that were looked up */
    struct proposed_group group;
    bool inlined;
};

/* ---- instances.c ---- */

/* The instance must be in the books. */
static inline struct instance *conductor_instance(const struct yolk_conductor *conductor,
                                                  struct yolk_instance_id id)
{
    ASSERT(id.index < conductor->options.instances_max);
    ASSERT(conductor->instances[id.index].used);
    return &conductor->instances[id.index];
}

/* It may get new work. */
static inline bool conductor_open(const struct instance *instance)
{
    return instance->used && !instance->suspected && !instance->draining && !instance->leaving;
}

/* Changes what instance->draining and instance->roles say, and the counts that follow from it. */
void conductor_assign(struct yolk_conductor *conductor, struct instance *instance, unsigned roles,
                      bool draining);

/* One of rank `a` goes before one of rank `b` that is not computed yet. */
static inline bool conductor_goes_before(struct queue_rank a, struct queue_rank b)
{
    return a.priority > b.priority || (a.priority == b.priority && a.order_ms < b.order_ms);
}

/* Into and out of the queue of its prefill instance. */
void conductor_queue_join(struct yolk_conductor *conductor, int32_t index, double now_ms);
void conductor_queue_leave(struct yolk_conductor *conductor, struct ticket *ticket, double now_ms);

/* Into the batch of an instance, where there is room, and out of the one it is in, for good. */
void conductor_decode_join(struct yolk_conductor *conductor, struct ticket *ticket, uint32_t index);
void conductor_decode_lose(struct yolk_conductor *conductor, struct ticket *ticket);
/* The ticket, which prefills, decodes there instead; there is room. */
void conductor_move(struct yolk_conductor *conductor, struct ticket *ticket, uint32_t decode);

/* ---- propose.c ---- */

MUST_USE enum status conductor_propose(struct yolk_conductor *conductor,
                                       const struct yolk_place_request *request, double now_ms,
                                       struct proposal *out);

/* Until a request that comes now would start there, whoever it is. */
double conductor_queue_ms(const struct instance *instance, double now_ms);

/* The same for a request of this rank: behind the one that is computed, and all that go first. */
struct queue_view {
    double ms;
    uint32_t requests; /* before it */
};
struct queue_view conductor_queue(const struct yolk_conductor *conductor,
                                  const struct instance *instance, struct queue_rank rank,
                                  double now_ms);

/* The order of a prompt that comes now and takes so long by itself. */
double conductor_order_ms(const struct yolk_conductor *conductor, double now_ms, double own_ms);

/* The highest priority below `priority` that waits in any queue; YOLK_PRIORITY_MIN - 1: none. */
int conductor_priority_below(const struct yolk_conductor *conductor, int priority);

/* Of the decode instance, from the start: for the prompt, and what of the answer is reserved. */
uint32_t conductor_pages_reserved(const struct yolk_conductor *conductor,
                                  const struct yolk_place_request *request);

/* ---- tickets.c ---- */

/* Puts it in the books; *out is the decision with its ticket. */
void conductor_commit(struct yolk_conductor *conductor, const struct yolk_place_request *request,
                      const struct proposal *proposal, const struct yolk_verdict *verdict,
                      double now_ms, struct yolk_decision *out);

/* The ticket must be live. */
struct ticket *conductor_ticket(const struct yolk_conductor *conductor, struct yolk_ticket id);

/* The decision of a ticket, while the ring still has it; NULL when it does not. */
struct yolk_decision *conductor_logged(struct yolk_conductor *conductor,
                                       const struct ticket *ticket);

/* The holder has one transfer more to serve, behind those that it serves. */
void conductor_note_sending(struct yolk_conductor *conductor, uint32_t holder, uint32_t to,
                            uint32_t blocks, double now_ms);

/* ---- replicate.c ---- */

/* After a placement, before it is in the books: may leave a proposal. */
void conductor_replicate(struct yolk_conductor *conductor, const struct yolk_place_request *request,
                         const struct proposal *proposal, double now_ms);
void conductor_replication_forget(struct yolk_conductor *conductor, uint32_t instance);
void conductor_replication_destroy(struct replication *replication); /* NULL is allowed */

/* ---- elastic.c ---- */

void conductor_elastic_init(struct yolk_conductor *conductor);

/* ---- group.c ---- */

/* Is the placement better on several instances? If so, *placed has the times of the group. */
void conductor_group_choose(struct yolk_conductor *conductor,
                            const struct yolk_place_request *request,
                            const struct candidates *found, struct conductor_place_output *placed,
                            struct proposed_group *out);
/* What the placement takes of all who prefill it together, ms. */
double conductor_group_work(const struct proposed_group *group,
                            const struct yolk_decision *decision);
/* The helpers of a placement that has just got its ticket. */
void conductor_group_join(struct yolk_conductor *conductor, struct ticket *leader,
                          const struct proposed_group *group, double now_ms);
void conductor_group_dissolve(struct yolk_conductor *conductor, struct ticket *leader,
                              double now_ms);

/* ---- explain.c: what is kept of each decision, for yolk/explain.h ---- */

MUST_USE enum status conductor_explain_create(const struct yolk_conductor_options *options,
                                              struct explain **out);
void conductor_explain_destroy(struct explain *explain); /* NULL is allowed */
uint64_t conductor_explain_bytes(const struct explain *explain);
struct ghost *conductor_explain_ghost(struct explain *explain);

/* The slot has a new tenant, or none any more. */
void conductor_explain_instance(struct yolk_conductor *conductor, uint32_t instance);
/* Somebody has left its queue. */
void conductor_explain_left(struct yolk_conductor *conductor, uint32_t instance, double now_ms);
/* Before the request is in any queue; its decision will have the number decisions_count. */
void conductor_explain_decided(struct yolk_conductor *conductor,
                               const struct yolk_place_request *request,
                               const struct proposal *proposal, double now_ms);
void conductor_explain_prefilled(struct yolk_conductor *conductor, const struct ticket *ticket,
                                 uint32_t cached_tokens);
/* What this instance decodes, before and after any change of it; NONE: nothing happens. */
void conductor_explain_batch(struct yolk_conductor *conductor, int32_t instance, double now_ms);
/* The ticket begins to decode. */
void conductor_explain_decoding(struct yolk_conductor *conductor, const struct ticket *ticket,
                                double now_ms);
void conductor_explain_ended(struct yolk_conductor *conductor, const struct ticket *ticket,
                             enum status outcome, double now_ms);

/* ---- inline.c ---- */

/* Is the placement better beside a step of its decode instance? If so, *placed says when, and what
 * is reused. */
bool conductor_inline_choose(struct yolk_conductor *conductor,
                             const struct yolk_place_request *request,
                             const struct candidates *found, struct conductor_place_output *placed);

/* ---- admit.c ---- */

/* The ticket, DECODING, waits at the door if there is one; it does not any more. */
void conductor_door_wait(struct yolk_conductor *conductor, struct ticket *ticket, double now_ms);
void conductor_door_leave(struct yolk_conductor *conductor, struct ticket *ticket);

/* The request is under way: the forecasts count it. `asker` may be NULL. */
void conductor_fly(struct yolk_conductor *conductor, const struct yolk_place_request *request,
                   const struct yolk_decision *decision, const struct yolk_asker *asker,
                   double now_ms);

/* Called after anything that changes the pools: shows the audit what it waits for. */
void conductor_look(struct yolk_conductor *conductor, double now_ms);

#endif
