/* SPDX-License-Identifier: Apache-2.0
 *
 * sim/mooncake_int.h - the nodes of mooncake, as mooncake*.c and what is built on them share them.
 * Invariants are in mooncake.c. */
#ifndef SIM_MOONCAKE_INT_H
#define SIM_MOONCAKE_INT_H

#include "sim/batch.h"
#include "sim/elastic.h"
#include "sim/kvcache.h"
#include "sim/line.h"
#include "sim/links.h"
#include "sim/sim_int.h"
#include "yolk/conductor.h"

/* What a flow on a link carries. */
enum flow_kind {
    FLOW_FETCH, /* blocks of a prefix, to the prefill node */
    FLOW_KV,    /* to the decode node */
    FLOW_SHARE, /* of the prefix: to a stage of a group, or to who computes it beside a step */
    FLOW_COPY,  /* a hot prefix, from one prefill node to another */
    FLOW_GATHER /* of the new blocks: from there, to the node whose cache gets them */
};

struct prefill_node {
    struct yolk_instance_id id;
    struct line queue;
    struct kvcache *cache;
    uint32_t running; /* or SIM_NONE */
    uint32_t epoch;   /* version of its event */
    uint64_t until_ns;
    uint64_t queued_ns; /* estimates of all in the queue */
};

struct decode_node {
    struct yolk_instance_id id;
    struct sim_queue joining;
    struct batch *batch;
    bool stepping;
    struct sim_queue inlining; /* to be computed beside a step */
    uint32_t inlined;          /* beside this one, or SIM_NONE */
    uint32_t epoch;            /* version of its event */
    uint32_t sequences;        /* placed and not ended */
    double promised_tokens;
};

/* A copy of the first blocks of a request, by slot of the conductor. */
struct copy {
    uint32_t who, from, to, blocks;
    bool moving;
};

/* Where a request goes. */
struct mooncake_placement {
    uint32_t prefill, decode, holder; /* holder SIM_NONE: nothing is fetched */
    uint32_t own, reuse;              /* own: not fetched */
    bool inlined;                     /* prefill: its home */
    uint32_t stages;                  /* 1: no group */
    uint32_t group[YOLK_GROUP_MAX];
};

enum { MOONCAKE_COOL_S = 10 }; /* what is cold is looked for so often */

struct machine {
    bool down, forgotten; /* forgotten: the conductor has removed it */
};

/* A machine is in both arrays if nodes may change their roles, in one of them if they may not. */
struct mooncake {
    uint32_t machines, prefill_count, decode_count, next;
    uint32_t decode_first; /* machine of decode[0] */
    struct prefill_node *prefill;
    struct decode_node *decode;
    struct links *links; /* of the machines */
    struct sim_queue waiting;
    struct yolk_conductor *conductor; /* NULL for the policies that are not its own */
    struct block_key *keys;           /* scratch: of one request */
    struct block_key *names;          /* of every block */
    uint32_t groups;                  /* not dissolved */
    struct machine *machine;
    uint32_t *machine_of;           /* by instance of the conductor */
    struct yolk_instance_id *up;    /* scratch: of the machines that are up */
    uint32_t prefill_up, decode_up; /* machines that are not down; all in the first if both */
    struct copy copies[YOLK_COPIES_MAX];
    struct rng chance; /* of failures */
};

/* What a flow's tag says. */
static inline uint32_t mooncake_flow_who(uint64_t tag)
{
    return (uint32_t)(tag >> 8);
}
static inline uint32_t mooncake_flow_stage(uint64_t tag)
{
    return tag >> 4 & 15;
}
static inline enum flow_kind mooncake_flow_kind(uint64_t tag)
{
    return (enum flow_kind)(tag & 15);
}

struct mooncake *mooncake_of(const struct sim *sim);

static inline double mooncake_token_bytes(const struct sim *sim, double tokens)
{
    return tokens * sim->cluster.cost.kv_token_bytes;
}

double mooncake_link_bytes_s(const struct sim *sim);

/* It ends; its decode node is rid of it, and whoever waits may have the room. */
void mooncake_release(struct sim *sim, uint32_t who, enum sim_outcome outcome);

/* Those who wait outside, as far as there is room. */
void mooncake_place_waiting(struct sim *sim);

/* ---- mooncake_place.c ---- */

/* m->conductor, which knows all machines and what they cost. */
MUST_USE enum status mooncake_create_conductor(struct sim *sim);

/* The conductor hears of a machine. */
MUST_USE enum status mooncake_add_machine(struct sim *sim, uint32_t machine);

/* Tokens of a decode node's memory that it needs, from the beginning to the end. */
double mooncake_need(const struct sim *sim, uint32_t who);

/* Where it goes. STATUS_FULL: it has to wait; BUSY: it is refused; INVALID: it never fits. */
MUST_USE enum status mooncake_place(struct sim *sim, uint32_t who, struct mooncake_placement *out);

/* Until a prefill node has done all that is there, by estimates. */
double mooncake_queue_s(const struct sim *sim, const struct prefill_node *node);

/* Into m->up; how many. Where nodes change their roles. */
uint32_t mooncake_list_up(const struct mooncake *m);
struct elastic_nodes mooncake_elastic_nodes(const struct sim *sim);

/* ---- mooncake_prefill.c ---- */

/* Ends as an event on this request, of this kind; `stage` of a group, or 0. */
void mooncake_send(struct sim *sim, uint32_t from, uint32_t to, double tokens, uint32_t who,
                   enum flow_kind kind, uint32_t stage);

/* Its share of the request's KV goes from this prefill node to the decode node. */
void mooncake_send_kv(struct sim *sim, uint32_t who, uint32_t from, uint32_t stage);

/* Its turn at the node where its cache is: what is there is pinned and will be reused. */
void mooncake_begin(struct sim *sim, uint32_t who);

/* That reading what it reuses from SSD takes. */
double mooncake_ssd_s(const struct sim *sim, uint32_t who);

/* That storing what it computes adds to compute_s. */
double mooncake_store_s(const struct sim *sim, uint32_t who, double compute_s);

/* The blocks of a prefill that has ended stay in the cache of its node; none is pinned any more. */
void mooncake_keep(struct sim *sim, uint32_t who);

/* Blocks [from, to) of the request are in the cache of this prefill node from now on. */
void mooncake_cache_range(struct sim *sim, uint32_t index, uint32_t who, uint32_t from,
                          uint32_t to);

/* Its blocks at its prefill node are pinned, up to `to` or the first that is not there; none is. */
void mooncake_pin(struct sim *sim, uint32_t who, uint32_t to);
void mooncake_unpin(struct sim *sim, uint32_t who);

/* The next one at a prefill node, if it is free. */
void mooncake_start_prefill(struct sim *sim, uint32_t index);

/* The prefill is over, for the conductor. */
void mooncake_report_prefill(struct sim *sim, uint32_t who);

/* The user has the first token. */
void mooncake_show_first(struct sim *sim, uint32_t who);

/* All of its KV is at the decode node, and goes into device memory. */
void mooncake_load(struct sim *sim, uint32_t who);

/* Events: what runs there has been computed; what was to be fetched for the request has come. */
void mooncake_on_prefill_done(struct sim *sim, uint32_t index);
void mooncake_on_fetched(struct sim *sim, uint32_t who);

/* ---- mooncake_decode.c ---- */

/* It has a place and memory at this decode node from now on; they are free again. */
void mooncake_enter_decode(struct sim *sim, uint32_t who, uint32_t index);
void mooncake_leave_decode(struct sim *sim, uint32_t who);

/* The next step of a decode node that takes none. */
void mooncake_start_step(struct sim *sim, uint32_t index);

/* Events: the step is over; the request's KV is in device memory. */
void mooncake_on_step(struct sim *sim, uint32_t index);
void mooncake_on_loaded(struct sim *sim, uint32_t who);

/* ---- mooncake_copy.c ---- */

/* The conductor proposes a copy of the first blocks of this request. */
void mooncake_start_copy(struct sim *sim, uint32_t who, const struct yolk_copy *proposed);

/* Events: the copy of this slot is there; time to look for what is cold. */
void mooncake_on_copied(struct sim *sim, uint32_t slot);
void mooncake_on_cool(struct sim *sim);

#endif
