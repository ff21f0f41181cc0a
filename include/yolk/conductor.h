/* SPDX-License-Identifier: Apache-2.0
 *
 * yolk/conductor.h - the Conductor: which prefill node, which decode node, and which cached blocks,
 * for each request, in predicted milliseconds.
 *
 * It knows the instances that are up, which KV blocks each of them holds (told by events), what
 * work it has given to each, and how long work takes there (learned from what really happened).
 * From that it places a request by Algorithm 1 of the Mooncake papers: the prefill instance with
 * the least
 *
 *     ttft = queue + transfer of the blocks fetched from a better holder + prefill of the rest
 *
 * where a better holder is used only if it holds more than theta times as much, and only if
 * fetching is predicted to be cheaper than computing; and the decode instance with the least
 * predicted time between tokens among those with room.
 *
 * It is pure: no clock, no I/O, no threads. Time comes in as `now_ms`, any monotonic milliseconds.
 * The gateway and the simulator run this same code.
 *
 * Life of a request here
 *
 *     place --> PREFILLING -- prefill_done --> DECODING -- finish --> (gone)
 *                   |                                        ^
 *                   +------------- finish (failed) ----------+
 *
 * Memory:  everything is allocated by yolk_conductor_create(), from the limits in the options.
 * Threads: a conductor belongs to one thread at a time.
 * Limits:  those of the options. A full index forgets (and counts) the event: the block is then
 *          recomputed, never wrong. Full tickets or decode pools are an answer: STATUS_FULL. */
#ifndef YOLK_CONDUCTOR_H
#define YOLK_CONDUCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"

enum {
    YOLK_INSTANCES_MAX = 4096,
    YOLK_HOLDINGS_MAX = 1 << 28,
    YOLK_TICKETS_MAX = 1 << 20,
    YOLK_DECISIONS_MAX = 1 << 20,
    YOLK_NAME_SIZE = 64,
    YOLK_REQUEST_ID_SIZE = 64,
    YOLK_GROUP_MAX = 8,
};

struct yolk_conductor; /* opaque */

/* Which prefill instance a request goes to. The first is Algorithm 1; the others are what it is
 * compared with: all but the first two reuse only what the chosen instance has itself, and take the
 * decode instance with the fewest sequences. */
enum yolk_placement {
    YOLK_PLACEMENT_GLOBAL,
    YOLK_PLACEMENT_LOCAL, /* Algorithm 1, nothing fetched */
    YOLK_PLACEMENT_MATCH, /* the longest prefix of its own; queue unseen */
    YOLK_PLACEMENT_LOAD,  /* the least work queued, in predicted time */
    YOLK_PLACEMENT_COUNT, /* the fewest requests queued */
    YOLK_PLACEMENT_RANDOM,
    YOLK_PLACEMENT_ROUND_ROBIN,
};
enum { YOLK_PLACEMENTS = 7 };
/* "global", ..., "round-robin". */
const char *yolk_placement_name(enum yolk_placement placement);
/* STATUS_NOT_FOUND for a name that is none. */
MUST_USE enum status yolk_placement_of(const char *name, enum yolk_placement *out);

struct yolk_conductor_options {
    uint32_t instances_max; /* 1..YOLK_INSTANCES_MAX */
    uint32_t holdings_max;  /* (block, holder) pairs indexed at once: 1..YOLK_HOLDINGS_MAX */
    uint32_t tickets_max;   /* requests placed and not finished: 1..YOLK_TICKETS_MAX */
    uint32_t decisions_max; /* decisions remembered: 1..YOLK_DECISIONS_MAX */
    uint32_t block_tokens;  /* tokens of one block: a power of two in 1..4096 */
    uint64_t block_size;    /* bytes of one block, what a fetch moves */
    double theta;           /* fetch only if the holder has more than theta times as much; >= 1 */
    bool reuse;             /* false: every prompt is computed whole (the pool is off) */
    bool congestion;        /* a fetch waits for those that its sender serves already */
    /* Of two prompts in a queue the one with the lesser arrival + stretch * own time goes first; 0:
     * first come, first served. 0..1000 */
    double stretch;
    enum yolk_placement placement;
    uint64_t seed; /* of YOLK_PLACEMENT_RANDOM */
    /* Chunked-pipeline groups; conductor/pipeline.h says how they are chosen. */
    uint32_t group_max;        /* prefill instances that may share one prompt: 1..YOLK_GROUP_MAX */
    uint32_t chunk_tokens;     /* that a long prompt is cut in: at least 1 */
    uint32_t activation_bytes; /* of a token, from one instance of a group to the next */
    /* Prefills of a chunk at most beside a decode step: conductor/inline.c. */
    double inline_tbt_ms;   /* a step may take so long with one; 0: there are none */
    uint32_t inline_tokens; /* not cached, that one may have at most; 0: chunk_tokens */
    double inline_factor;   /* computing beside a step takes so much more; 1..100 */
};

/* theta 1.25, reuse on, global placement, no groups, and room for a mid-sized cluster. block_tokens
 * and block_size are zero: the model decides them. */
struct yolk_conductor_options yolk_conductor_defaults(void);

/* STATUS_INVALID for options out of range (err says which), STATUS_NO_MEMORY. */
MUST_USE enum status yolk_conductor_create(const struct yolk_conductor_options *options,
                                           struct yolk_conductor **out, struct errmsg *err);
void yolk_conductor_destroy(struct yolk_conductor *conductor); /* NULL is allowed */

/* ---- instances ---- */

/* Valid from add to remove; the index may be given again to another instance afterwards. */
struct yolk_instance_id {
    uint32_t index;
};
#define YOLK_INSTANCE_NONE ((struct yolk_instance_id){ UINT32_MAX })

enum { YOLK_ROLE_PREFILL = 1, YOLK_ROLE_DECODE = 2 };

/* A role is a preference: while no instance of a role is up, any instance that is takes the work.
 * An instance of both roles decodes what it prefills, without moving it, while it has room. */
struct yolk_instance {
    const char *name;       /* unique; at most YOLK_NAME_SIZE - 1 bytes */
    const char *host;       /* same text = same host = the fast path between them */
    unsigned roles;         /* a set of YOLK_ROLE_* */
    uint32_t pages_max;     /* KV pages that sequences here may hold together */
    uint32_t sequences_max; /* sequences decoded at once */
};

/* STATUS_EXISTS if the name is there, STATUS_FULL, STATUS_INVALID for a bad name or no room. */
MUST_USE enum status yolk_conductor_add(struct yolk_conductor *conductor,
                                        const struct yolk_instance *instance,
                                        struct yolk_instance_id *out);
/* Forgets its blocks and its work; tickets on it stay valid until they are finished. */
void yolk_conductor_remove(struct yolk_conductor *conductor, struct yolk_instance_id id);
/* A suspected instance keeps its blocks and gets no work, nor is anything fetched from it. */
void yolk_conductor_suspect(struct yolk_conductor *conductor, struct yolk_instance_id id,
                            bool suspected);
/* The instance is about to go: it gets no new work, its blocks may be fetched until it is removed,
 * and what it does goes on. A change of its role that is under way is called off. */
void yolk_conductor_leave(struct yolk_conductor *conductor, struct yolk_instance_id id);
const char *yolk_conductor_name(const struct yolk_conductor *conductor, struct yolk_instance_id id);

/* ---- what each instance holds ---- */

enum yolk_tier { YOLK_TIER_DEVICE = 0, YOLK_TIER_DRAM = 1, YOLK_TIER_SSD = 2 };

/* Idempotent, so that a replayed event does no harm. STATUS_FULL when some keys were forgotten for
 * lack of room; STATUS_NOT_FOUND for an instance that is not there. That one may be a stranger's
 * fault: each of these calls then changes nothing, and is counted in events_unknown. */
MUST_USE enum status yolk_conductor_stored(struct yolk_conductor *conductor,
                                           struct yolk_instance_id id, const struct block_key *keys,
                                           size_t count, enum yolk_tier tier);
void yolk_conductor_removed(struct yolk_conductor *conductor, struct yolk_instance_id id,
                            const struct block_key *keys, size_t count);
void yolk_conductor_cleared(struct yolk_conductor *conductor, struct yolk_instance_id id);

/* A snapshot: what is not stored again between begin and end is gone. */
void yolk_conductor_resync_begin(struct yolk_conductor *conductor, struct yolk_instance_id id);
void yolk_conductor_resync_end(struct yolk_conductor *conductor, struct yolk_instance_id id);

/* ---- placement ---- */

struct yolk_prompt;

enum { YOLK_PRIORITY_MIN = -8, YOLK_PRIORITY_MAX = 8 };

struct yolk_place_request {
    const char *request_id;       /* for the log; cut at YOLK_REQUEST_ID_SIZE - 1 */
    uint32_t tokens;              /* of the prompt: at least 1 */
    uint32_t output_tokens;       /* longest answer: with it the request has to fit an instance */
    uint32_t reserve_tokens;      /* of it, what room is kept for from the start; more is kept as
                                   * tokens come (yolk_conductor_decoded()). 0: all */
    const struct block_key *keys; /* one per full block of the prompt, in order */
    uint32_t keys_count;
    int priority; /* in YOLK_PRIORITY_MIN..YOLK_PRIORITY_MAX: higher is served first in the queue of
                   * a prefill instance. adaptive reserves nothing against who is above 0, and
                   * refuses those below 0 first */
    /* Do not use these (they have just failed this request); YOLK_INSTANCE_NONE for none. */
    struct yolk_instance_id avoid_prefill;
    struct yolk_instance_id avoid_decode;
    struct yolk_instance_id avoid_holder;
    bool alone;                       /* one instance prefills it, whatever group_max is */
    const struct yolk_prompt *prompt; /* explain.h: tells misses apart; NULL is allowed */
};

/* ---- overload: what is accepted, and what is refused ---- */

/* How it is decided. docs/conductor.md explains each to an operator, conductor/admission.h to a
 * programmer. Without limits every policy accepts everything. */
enum yolk_policy {
    YOLK_POLICY_NONE,     /* accept */
    YOLK_POLICY_BASELINE, /* prefill load at arrival, decode load when prefill has ended */
    YOLK_POLICY_EARLY,    /* both at arrival, as they are now */
    YOLK_POLICY_PREDICT,  /* both at arrival, decode load as it will be when prefill ends */
    YOLK_POLICY_ADAPTIVE, /* ours: learned lengths, margins that follow what happened */
};
enum { YOLK_POLICIES = 5 };
const char *yolk_policy_name(enum yolk_policy policy);
/* STATUS_NOT_FOUND for a name that is none. */
MUST_USE enum status yolk_policy_of(const char *name, enum yolk_policy *out);

enum yolk_refusal {
    YOLK_REFUSAL_NONE,          /* accepted */
    YOLK_REFUSAL_TTFT,          /* the first token would come too late */
    YOLK_REFUSAL_TBT,           /* the decode pool is full now */
    YOLK_REFUSAL_TBT_PREDICTED, /* the decode pool will be full when this prefill ends */
    YOLK_REFUSAL_TBT_AT_JOIN,   /* the decode pool is full now that this prefill has ended */
    YOLK_REFUSAL_RESERVED,      /* it would fit, but the room left is kept for smaller requests */
    YOLK_REFUSAL_TBT_AT_NODE,   /* the decode node itself found that it would break a limit */
};
enum { YOLK_REFUSALS = 7 };
const char *yolk_refusal_name(enum yolk_refusal refusal);

struct yolk_admission_options {
    enum yolk_policy policy;
    double ttft_ms;   /* the first token is due within this time of arrival; 0: no limit */
    double tbt_ms;    /* mean time between tokens; 0: no limit */
    double decode_ms; /* predict: how long it takes a decode to last; 0: the mean of late */
    bool door; /* adaptive: a sequence whose prefill has ended waits until its decode instance
                       * decodes fewer than yolk_conductor_batch_max(); the caller sees to that */
};

/* Who asks, for the policies that tell requests apart. */
struct yolk_asker {
    const char *tenant;     /* NULL: nobody in particular */
    const char *route;      /* what lengths depend on: an endpoint, an application; NULL: none */
    double waited_ms;       /* since arrival */
    double ttft_ms, tbt_ms; /* limits of its own; 0: the general ones; INFINITY: none */
};

struct yolk_verdict {
    enum yolk_policy policy;
    enum yolk_refusal refusal;
    double prefill_load;    /* of the pool, with this request: 1 is the limit; 0 without a limit */
    double decode_load;     /* of the pool, now */
    double predicted_load;  /* what the policy compared for decode */
    double gate;            /* ... with this; 1 but where room is reserved */
    double prefill_gate;    /* the same for the part of the limit that passes before its turn */
    double ttft_ms, tbt_ms; /* predicted as the policy sees them: mean, or with its margin */
    double output_tokens;   /* expected length of the answer; 0 where the policy needs none */
    double retry_after_ms;  /* predicted time until it would be accepted; 0 if it is */
};

enum yolk_reuse_reason {
    YOLK_REUSE_COLD,      /* nobody holds the first block, or reuse is off */
    YOLK_REUSE_LOCAL,     /* nobody holds more than the prefill instance itself */
    YOLK_REUSE_RECOMPUTE, /* somebody holds more, but fetching it is not worth it */
    YOLK_REUSE_FETCH,     /* somebody holds more, and it is fetched */
};
enum { YOLK_REUSE_REASONS = 4 };
const char *yolk_reuse_reason_name(enum yolk_reuse_reason reason);

struct yolk_ticket {
    uint64_t id; /* 0: none */
};

struct yolk_decision {
    struct yolk_ticket ticket;
    char request_id[YOLK_REQUEST_ID_SIZE];
    struct yolk_instance_id prefill;
    struct yolk_instance_id decode;
    struct yolk_instance_id holder; /* who has all reused blocks; NONE when none is reused */
    char prefill_name[YOLK_NAME_SIZE];
    char decode_name[YOLK_NAME_SIZE];
    char holder_name[YOLK_NAME_SIZE];
    enum yolk_reuse_reason reason;
    uint32_t tokens;
    int priority;          /* that it has in the queue: what was asked for, or less (see admit) */
    uint32_t reuse_blocks; /* leading blocks not computed */
    uint32_t own_blocks;   /* of those, not fetched */
    uint32_t local_blocks; /* leading blocks the prefill instance has itself */
    uint32_t best_blocks;  /* leading blocks the best holder has */
    uint32_t prefill_candidates;
    uint32_t decode_candidates;
    double order_ms;  /* prefill instances compute those of one priority by this, the least first */
    double placed_ms; /* now_ms of the decision */
    double queue_ms, transfer_ms, compute_ms;
    double ttft_ms; /* the sum of the three */
    double tbt_ms;
    /* Who prefills it together, in the order of the layers; group[0] is `prefill`. 1: nobody else,
     * and compute_ms is of all of them otherwise. */
    uint32_t group_count;
    struct yolk_instance_id group[YOLK_GROUP_MAX];
    bool inlined; /* `decode` prefills it, beside a step; `prefill` is who would have, or, of both
                   * roles, the same */
    double spread_ms; /* standard deviation of compute_ms: how sure the model is */
    /* Outcome, by prefill_done and finish; negative while unknown. */
    double actual_ttft_ms, actual_total_ms;
    double actual_door_ms; /* waited between the end of its prefill and its decode instance */
    int64_t actual_cached_tokens, actual_output_tokens;
    enum status outcome;
    bool finished;
    /* Of yolk_conductor_admit(), or of yolk_conductor_admit_join() if that refused; policy none for
     * what was placed without them. */
    struct yolk_verdict verdict;
};

/* STATUS_UNAVAILABLE: no instance is up that may be used. STATUS_FULL: no decode instance has room
 * now, or there are no tickets left: try again when something has finished. STATUS_INVALID: the
 * request can never fit, not even on an empty instance. On success *out holds a ticket that must
 * be finished, whatever happens. */
MUST_USE enum status yolk_conductor_place(struct yolk_conductor *conductor,
                                          const struct yolk_place_request *request, double now_ms,
                                          struct yolk_decision *out);

/* Sets policy and limits, at any time. STATUS_INVALID, and nothing changes, for a limit that is
 * negative, not finite or above YOLK_LIMIT_MS_MAX. */
enum { YOLK_LIMIT_MS_MAX = 3600000 };
MUST_USE enum status yolk_conductor_set_admission(struct yolk_conductor *conductor,
                                                  const struct yolk_admission_options *options,
                                                  struct errmsg *err);

/* yolk_conductor_place() behind the policy. STATUS_BUSY: the policy refuses; *verdict says why and
 * when to try again, and the refusal is audited later. *verdict is written with STATUS_OK and
 * STATUS_BUSY, *out with STATUS_OK only. A request that would be refused where its priority puts it
 * in the queue is judged again behind those of less: so of two equal requests the one of higher
 * priority is never refused while the other would be accepted. `asker` may be NULL. A request that
 * is placed again after a failure is not judged again: use yolk_conductor_place() for it. */
MUST_USE enum status yolk_conductor_admit(struct yolk_conductor *conductor,
                                          const struct yolk_place_request *request,
                                          const struct yolk_asker *asker, double now_ms,
                                          struct yolk_decision *out, struct yolk_verdict *verdict);

/* The second check, when prefill has ended and before yolk_conductor_prefill_done(): may the
 * sequence join its decode instance? STATUS_BUSY: no, *verdict says why, the prefill was wasted,
 * and the ticket still has to be finished. STATUS_OK for tickets that were not admitted under a
 * policy. The refusal is audited like one at arrival. */
MUST_USE enum status yolk_conductor_admit_join(struct yolk_conductor *conductor,
                                               struct yolk_ticket ticket, double now_ms,
                                               struct yolk_verdict *verdict);

/* The decode node has checked by itself and refused: its batch would be at `load` times the
 * tightest limit in it. *verdict says so to the client; the refusal is audited, and the ticket
 * still has to be finished. */
void yolk_conductor_refused_at_node(struct yolk_conductor *conductor, struct yolk_ticket ticket,
                                    double load, double now_ms, struct yolk_verdict *verdict);

/* What so large a share (0 <= share < 1) of the answers to requests of this asker do not exceed, in
 * tokens, as far as has been learned from those that ended by themselves or at their limit; before
 * there were any, a guess. For yolk_place_request.reserve_tokens. `asker` may be NULL. */
uint32_t yolk_conductor_answer_tokens(struct yolk_conductor *conductor,
                                      const struct yolk_asker *asker, double share);

/* A refusal, and what is known about it by now. Servable: judged by what really happened to the
 * requests that were accepted, could this one have been served within the limits beside them? */
enum yolk_hindsight { YOLK_HINDSIGHT_OPEN, YOLK_HINDSIGHT_RIGHT, YOLK_HINDSIGHT_SERVABLE };
const char *yolk_hindsight_name(enum yolk_hindsight hindsight);

struct yolk_refused {
    char request_id[YOLK_REQUEST_ID_SIZE];
    struct yolk_verdict verdict;
    uint32_t tokens;
    double refused_ms; /* now_ms of the refusal */
    double ttft_ms;    /* that it would have had; negative while unknown */
    double peak_load;  /* of the decode pool with it, over the time it would have decoded */
    enum yolk_hindsight hindsight;
};

/* The `age`-th latest refusal, 0 the latest; false if it is no longer, or not yet, there. */
bool yolk_conductor_refused(const struct yolk_conductor *conductor, uint32_t age,
                            struct yolk_refused *out);

struct yolk_admission_stats {
    struct yolk_admission_options options;
    uint64_t accepted;
    uint64_t refused[YOLK_REFUSALS];
    uint64_t audited,
        servable;   /* refusals judged in hindsight; of them, those that were mistakes */
    uint64_t ended; /* accepted and complete */
    uint64_t late_ttft, late_tbt;     /* of them, those that broke a limit */
    double decode_ms;                 /* mean time of decoding */
    double margin_ttft, margin_tbt;   /* adaptive: standard deviations kept as distance */
    double pressure;                  /* adaptive: share of late refusals, 0..1 */
    double prefill_load, decode_load; /* of the pools, now */
};
/* Reads the pools as of now_ms. */
void yolk_conductor_admission_stats(struct yolk_conductor *conductor, double now_ms,
                                    struct yolk_admission_stats *out);

/* The first token is out: the prefill instance is free of this request. `cached_tokens` is what was
 * really reused. Called at most once per ticket. */
void yolk_conductor_prefill_done(struct yolk_conductor *conductor, struct yolk_ticket ticket,
                                 uint32_t cached_tokens, double now_ms);
/* An instance of the ticket's group has done its layers and is free; prefill_done() says it for all
 * that have not been named before. Nothing happens for an instance that is not in the group. */
void yolk_conductor_stage_done(struct yolk_conductor *conductor, struct yolk_ticket ticket,
                               struct yolk_instance_id id, double now_ms);
/* With a door, after yolk_conductor_prefill_done(), at most once: the sequence has come in, its
 * first token goes out. Without one, nothing. */
void yolk_conductor_joined(struct yolk_conductor *conductor, struct yolk_ticket ticket,
                           double now_ms);
/* With a door, the most sequences that this instance may decode at once: as many as keep the limit
 * between tokens, at the mean context of those it has, and at least one. sequences_max without. */
uint32_t yolk_conductor_batch_max(const struct yolk_conductor *conductor,
                                  struct yolk_instance_id id);
/* The sequence has grown by this many tokens. */
void yolk_conductor_decoded(struct yolk_conductor *conductor, struct yolk_ticket ticket,
                            uint32_t tokens);
/* Ends the ticket, in every case, exactly once. */
void yolk_conductor_finish(struct yolk_conductor *conductor, struct yolk_ticket ticket,
                           enum status outcome, double now_ms);

/* What the decode instance of this ticket is decoding now: sequences, and their tokens together;
 * this one counts even if it does not decode yet, those at the door do not. */
void yolk_conductor_batch(const struct yolk_conductor *conductor, struct yolk_ticket ticket,
                          uint32_t *sequences, uint64_t *context_tokens);

/* ---- elasticity: instances change their role when the imbalance is worth it ----
 *
 * yolk_conductor_elastic() says which: it is draining, and nobody is placed there. When it is
 * drained, the caller makes the change real and calls yolk_conductor_flip_end(). Its blocks may be
 * fetched all the while. conductor/roles.h says when a flip is worth it. */

struct yolk_elastic_options {
    bool on;
    double ttft_ms, tbt_ms; /* what full is; 0: the limits of admission, without them 5,000, 100 */
    double window_ms;       /* demand is averaged over about so long; above 0 */
    double dwell_ms;        /* a role lasts at least so long */
    double drain_ms;        /* who drains is emptied by the caller after so long */
    uint32_t flips_max;     /* draining at once; 0: a quarter of the instances, at least one */
};
/* Off; 30 s, 60 s, 30 s, 0. */
struct yolk_elastic_options yolk_elastic_defaults(void);

/* Off until this is called. STATUS_INVALID for numbers out of range (err says which). */
enum { YOLK_ELASTIC_MS_MAX = 86400000 };
MUST_USE enum status yolk_conductor_set_elastic(struct yolk_conductor *conductor,
                                                const struct yolk_elastic_options *options,
                                                struct errmsg *err);

/* Requests that have not been placed for lack of room. */
struct yolk_outside {
    uint32_t requests;
    uint64_t tokens;
};

struct yolk_flip {
    struct yolk_instance_id id;
    unsigned from, to; /* YOLK_ROLE_* */
    double prefill_load, decode_load;
    double cost_ms; /* of the flip, as predicted */
};

/* Looks at the pools; call it several times per window. True: *out begins. A flip that would leave
 * a pool empty, because others have gone, is called off: yolk_conductor_draining() tells. */
bool yolk_conductor_elastic(struct yolk_conductor *conductor, const struct yolk_outside *outside,
                            double now_ms, struct yolk_flip *out);
bool yolk_conductor_draining(const struct yolk_conductor *conductor, struct yolk_instance_id id);
/* It drains, and has no ticket left. */
bool yolk_conductor_drained(const struct yolk_conductor *conductor, struct yolk_instance_id id);
/* Of an instance that drains: it has its new role (done), or keeps the old one. */
void yolk_conductor_flip_end(struct yolk_conductor *conductor, struct yolk_instance_id id,
                             bool done, double now_ms);

/* Another decode instance for a request that has not prefilled yet, because its own drains. The
 * same STATUS_FULL as for a placement; on success *out is where it will decode. */
MUST_USE enum status yolk_conductor_rehome(struct yolk_conductor *conductor,
                                           struct yolk_ticket ticket, struct yolk_instance_id *out);

unsigned yolk_conductor_roles(const struct yolk_conductor *conductor, struct yolk_instance_id id);
/* Somebody else has changed them. Ends a flip that is under way here. */
void yolk_conductor_set_roles(struct yolk_conductor *conductor, struct yolk_instance_id id,
                              unsigned roles, double now_ms);

struct yolk_elastic_stats {
    struct yolk_elastic_options options;
    uint64_t begun, done, cancelled;        /* flips */
    uint32_t draining;                      /* now */
    double prefill_load, decode_load;       /* of the latest look; 1 is full */
    double more_prefill_ms, more_decode_ms; /* evidence for one instance more there */
};
void yolk_conductor_elastic_stats(const struct yolk_conductor *conductor,
                                  struct yolk_elastic_stats *out);

/* ---- copies of hot prefixes ----
 *
 * Off until options are set. Each placement may leave a proposal; the caller who can copy asks for
 * it with yolk_conductor_copy(), and now and then what may go with yolk_conductor_cold(). */

enum { YOLK_COPIES_MAX = 256 }; /* made for heat, and not cold yet */

struct yolk_replication_options {
    double half_life_ms;   /* of heat, a count of requests */
    double hot, cold;      /* copied from `hot` on, removed below `cold`; 0 < cold < hot */
    double queue_ms;       /* its holders are congested when all their queues are longer */
    uint32_t replicas_max; /* holders of a prefix, copies or not */
};
/* 60 s, 8, 0.5, 1 s, 8. */
struct yolk_replication_options yolk_replication_defaults(void);
/* Starts over. STATUS_INVALID, STATUS_NO_MEMORY. */
MUST_USE enum status yolk_conductor_set_replication(struct yolk_conductor *conductor,
                                                    const struct yolk_replication_options *options,
                                                    struct errmsg *err);

struct yolk_copy {
    struct yolk_instance_id from, to;
    uint32_t blocks; /* the first so many keys of the request that was placed */
    uint32_t slot;   /* below YOLK_COPIES_MAX: names this copy until it is cold */
};

/* True: the latest placement has shown that these blocks should be copied. Once. */
bool yolk_conductor_copy(struct yolk_conductor *conductor, double now_ms, struct yolk_copy *out);
/* True: the copy out->slot on out->to is not hot any more: its blocks may go. Once; ask again. */
bool yolk_conductor_cold(struct yolk_conductor *conductor, double now_ms, struct yolk_copy *out);

/* Of the leading keys, how many another instance that may be fetched from has too: what may be
 * removed here without being lost. */
uint32_t yolk_conductor_held_elsewhere(struct yolk_conductor *conductor, struct yolk_instance_id id,
                                       const struct block_key *keys, uint32_t keys_count);

struct yolk_replication_stats {
    uint64_t copies, removals;
    uint32_t held; /* copies now */
};
void yolk_conductor_replication_stats(const struct yolk_conductor *conductor,
                                      struct yolk_replication_stats *out);

/* ---- learning ---- */

enum yolk_path { YOLK_PATH_HOST = 0, YOLK_PATH_NETWORK = 1 };
enum { YOLK_PATHS = 2 };

/* What really happened. STATUS_INVALID, and nothing learned, for a sample that is not finite, is
 * negative, or contradicts itself (more reused than there was). */
MUST_USE enum status yolk_conductor_learn_prefill(struct yolk_conductor *conductor,
                                                  struct yolk_instance_id id, uint32_t tokens,
                                                  uint32_t reused_tokens, double ms);
MUST_USE enum status yolk_conductor_learn_decode(struct yolk_conductor *conductor,
                                                 struct yolk_instance_id id, double sequences,
                                                 double context_tokens, double ms);
MUST_USE enum status yolk_conductor_learn_transfer(struct yolk_conductor *conductor,
                                                   enum yolk_path path, uint64_t bytes, double ms);

/* Loading from SSD, whoever did it. */
MUST_USE enum status yolk_conductor_learn_load(struct yolk_conductor *conductor, uint64_t bytes,
                                               double ms);

/* The profile: what has been learned, as a JSON text for a cache file. The caller frees it. Loading
 * replaces what instances added later start from; STATUS_INVALID leaves everything as it was. */
MUST_USE enum status yolk_conductor_profile_save(const struct yolk_conductor *conductor, char **out,
                                                 size_t *len);
MUST_USE enum status yolk_conductor_profile_load(struct yolk_conductor *conductor, const char *text,
                                                 size_t len, struct errmsg *err);

/* ---- explaining ---- */

struct yolk_conductor_stats {
    uint64_t decisions;
    uint64_t reasons[YOLK_REUSE_REASONS];
    uint64_t inlined;              /* prefills beside a decode step */
    uint64_t groups, group_stages; /* placements on several prefill instances; those together */
    uint64_t refused_unavailable, refused_full;
    uint64_t events_stored, events_removed, events_forgotten;
    uint64_t events_unknown; /* calls about what nobody holds: no such instance */
    uint64_t holdings;       /* (block, holder) pairs now */
    uint64_t holdings_max;   /* ... that there is room for */
    uint64_t bytes;          /* all memory of the conductor */
    uint64_t index_bytes; /* of it, for what instances hold: at most 32 for each of holdings_max */
    uint64_t samples_prefill, samples_decode, samples_transfer, samples_refused;
    uint32_t instances, suspected, tickets;
    uint32_t at_door; /* sequences whose prefill has ended and that wait for their instance */
};
void yolk_conductor_stats(const struct yolk_conductor *conductor, struct yolk_conductor_stats *out);

/* The `age`-th latest decision, 0 the latest; false if it is no longer, or not yet, there. */
bool yolk_conductor_decision(const struct yolk_conductor *conductor, uint32_t age,
                             struct yolk_decision *out);

#endif
