/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/sim_int.h - one run, as its parts see it: sim.c owns it, mooncake.c and coupled.c are the
 * systems that may run on it.
 *
 * A request, in one setter (sim_set_state), with the edges it asserts:
 *
 *   ARRIVING --> WAITING --> QUEUED --> PREFILLING --> SENDING --> LOADING --> JOINING
 *      |  |         |          ^            |  |          ^           |           |
 *      |  +---------|----------+            |  +----------+-----------+           v
 *      +-----> ENDED <----------------------+<----------------------------- DECODING
 *
 * A request that is placed again goes back to WAITING, from QUEUED and everything behind it.
 *
 * Not every system has every state. Every request ends once: sim_end() is the only way to ENDED.
 *
 * Trouble (no memory) is kept in sim->status, where the loop sees it after each event. */
#ifndef SIM_SIM_INT_H
#define SIM_SIM_INT_H

#include <stdint.h>

#include "base/rng.h"
#include "sim/classes.h"
#include "sim/events.h"
#include "sim/sim.h"

#define SIM_NONE UINT32_MAX

enum sim_state {
    SIM_ARRIVING = 0,
    SIM_WAITING,
    SIM_QUEUED,
    SIM_PREFILLING,
    SIM_SENDING,
    SIM_LOADING,
    SIM_JOINING,
    SIM_DECODING,
    SIM_ENDED,
};

enum sim_event {
    SIM_EVENT_ARRIVAL, /* who: place in sim->order */
    SIM_EVENT_SAMPLE,
    SIM_EVENT_PREFILL,   /* who: prefill node */
    SIM_EVENT_FLOW,      /* who: flow */
    SIM_EVENT_LOADED,    /* who: request */
    SIM_EVENT_STEP,      /* who: decode node */
    SIM_EVENT_ITERATION, /* who: coupled node */
    SIM_EVENT_STOP,      /* who: machine; version: ms it will be down */
    SIM_EVENT_RETURN,    /* who: machine */
    SIM_EVENT_FORGET,    /* who: machine */
    SIM_EVENT_RETRY,     /* who: request */
    SIM_EVENT_COOL,      /* at copies that may have gone cold */
    SIM_EVENT_LOOK,      /* at the roles of the nodes */
};

struct group;

struct sim_request {
    enum sim_state state;
    uint32_t next; /* in whatever list it is */
    uint32_t prefill, decode, holder;
    uint32_t pinned, held;   /* leading blocks pinned here; and up to which at the holder */
    uint32_t reuse, chunked; /* blocks; tokens computed so far */
    bool fetching;
    bool inlined;          /* computed beside a step of its decode node */
    int priority;          /* of its class; in the queues it may have less, as placed */
    uint32_t stages, sent; /* prefill nodes, 1 without a group; those whose KV has arrived */
    struct group *group;   /* NULL: it has none, or it is gone */
    uint32_t grown;        /* tokens of the answer that the conductor has heard of */
    uint64_t ticket;
    uint32_t generated;         /* tokens of the answer that earlier placements gave */
    uint32_t attempt, failures; /* placements given up; in a row without a token */
    bool cut, cut_gathering;    /* flows of it have been cut just now */
    uint64_t *past;             /* intervals between its tokens in earlier placements, or NULL */
    uint32_t past_count;
    uint64_t latest_ns; /* of its latest token there */
    double order_ms;    /* prefill nodes take the least first */
    uint64_t arrival_ns, start_ns, send_ns;
    uint64_t first_ns;    /* when its first token of this placement was shown */
    uint64_t estimate_ns; /* of its prefill, in its node's books */
};

/* Blocks that are used as often as the k-th hottest: which of them has that rank is chance. All of
 * them, or so many from first to last; none where the trace has no such rank. */
enum { SIM_PEERS_MAX = 32 };
struct sim_rank {
    uint32_t ids[SIM_PEERS_MAX];
    uint32_t count;
};

struct sim {
    struct sim_cluster cluster;
    const struct trace *trace;
    struct events events;
    struct rng rng;
    enum status status;
    struct errmsg *err;
    struct sim_progress progress;
    struct sim_classes classes;
    struct sim_result *result;
    struct sim_request *requests;
    uint32_t *order; /* requests by arrival */
    uint32_t count, ended;
    uint32_t output_longest;
    struct sim_rank hottest[SIM_RANKS];
    void *system;
};

static inline const uint32_t *sim_ids(const struct sim *sim, uint32_t who)
{
    return sim->trace->ids + sim->trace->requests[who].first;
}

/* Its class, or NULL: the general limits. */
const struct slo_class *sim_class(const struct sim *sim, uint32_t who);

/* Nanoseconds; at most EVENTS_NEVER_NS. */
uint64_t sim_ns(double seconds);
/* Tokens to prefill, and to give: those of the answer that it has had go from one to the other. */
uint32_t sim_input(const struct sim *sim, uint32_t who);
uint32_t sim_output(const struct sim *sim, uint32_t who);
uint32_t sim_full_blocks(const struct sim *sim, uint32_t who);
/* Leading blocks that may be reused: the last token is always computed. */
uint32_t sim_reusable(const struct sim *sim, uint32_t who);

void sim_set_state(struct sim *sim, uint32_t who, enum sim_state state);
void sim_schedule(struct sim *sim, double in_s, enum sim_event kind, uint32_t who);
void sim_schedule_version(struct sim *sim, double in_s, enum sim_event kind, uint32_t who,
                          uint32_t version);
void sim_fail(struct sim *sim, enum status status); /* the first one stays */
void sim_end(struct sim *sim, uint32_t who, enum sim_outcome outcome);
/* It has its first token of this placement. */
void sim_first_token(struct sim *sim, uint32_t who);

struct kvcache;
/* Adds what one more pool holds of the hottest blocks. */
void sim_count_replicas(const struct sim *sim, const struct kvcache *cache, struct sim_sample *out);

struct batch;
struct batch_member;
void sim_record_intervals(struct sim *sim, struct batch *batch, const struct batch_member *member);
/* It has left this batch unfinished. */
void sim_keep_intervals(struct sim *sim, const struct batch *batch,
                        const struct batch_member *member);

/* ---- a queue of requests, linked by `next` ---- */

struct sim_queue {
    uint32_t head, tail, count;
};
void sim_queue_init(struct sim_queue *queue);
void sim_queue_push(struct sim *sim, struct sim_queue *queue, uint32_t who);
/* Behind all whose priority is not below its own. */
void sim_queue_insert(struct sim *sim, struct sim_queue *queue, uint32_t who);
uint32_t sim_queue_pop(struct sim *sim, struct sim_queue *queue);             /* not empty */
void sim_queue_leave(struct sim *sim, struct sim_queue *queue, uint32_t who); /* if it is there */

/* ---- the systems ---- */

struct sim_system {
    enum status (*create)(struct sim *sim);
    void (*destroy)(struct sim *sim);
    void (*arrive)(struct sim *sim, uint32_t who);
    void (*event)(struct sim *sim, const struct event *event);
    void (*sample)(struct sim *sim, struct sim_sample *out);
    void (*check)(const struct sim *sim); /* laws that hold between events; asserts */
};
extern const struct sim_system mooncake_system;
extern const struct sim_system coupled_system;

#endif
