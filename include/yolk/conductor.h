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
};

struct yolk_conductor; /* opaque */

struct yolk_conductor_options {
    uint32_t instances_max; /* 1..YOLK_INSTANCES_MAX */
    uint32_t holdings_max;  /* (block, holder) pairs indexed at once: 1..YOLK_HOLDINGS_MAX */
    uint32_t tickets_max;   /* requests placed and not finished: 1..YOLK_TICKETS_MAX */
    uint32_t decisions_max; /* decisions remembered: 1..YOLK_DECISIONS_MAX */
    uint32_t block_tokens;  /* tokens of one block: a power of two in 1..4096 */
    uint64_t block_size;    /* bytes of one block, what a fetch moves */
    double theta;           /* fetch only if the holder has more than theta times as much; >= 1 */
    bool reuse;             /* false: every prompt is computed whole (the pool is off) */
};

/* theta 1.25, reuse on, and room for a mid-sized cluster. block_tokens and block_size are zero: the
 * model decides them. */
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
 */
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
const char *yolk_conductor_name(const struct yolk_conductor *conductor, struct yolk_instance_id id);

/* ---- what each instance holds ---- */

enum yolk_tier { YOLK_TIER_DEVICE = 0, YOLK_TIER_DRAM = 1, YOLK_TIER_SSD = 2 };

/* Idempotent, so that a replayed event does no harm. STATUS_FULL when some keys were forgotten for
 * lack of room. */
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

struct yolk_place_request {
    const char *request_id;       /* for the log; cut at YOLK_REQUEST_ID_SIZE - 1 */
    uint32_t tokens;              /* of the prompt: at least 1 */
    uint32_t output_tokens;       /* room to keep for the answer */
    const struct block_key *keys; /* one per full block of the prompt, in order */
    uint32_t keys_count;
    /* Do not use these (they have just failed this request); YOLK_INSTANCE_NONE for none. */
    struct yolk_instance_id avoid_prefill;
    struct yolk_instance_id avoid_decode;
    struct yolk_instance_id avoid_holder;
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
    uint32_t reuse_blocks; /* leading blocks not computed */
    uint32_t local_blocks; /* leading blocks the prefill instance has itself */
    uint32_t best_blocks;  /* leading blocks the best holder has */
    uint32_t prefill_candidates;
    uint32_t decode_candidates;
    double placed_ms; /* now_ms of the decision */
    double queue_ms, transfer_ms, compute_ms;
    double ttft_ms; /* the sum of the three */
    double tbt_ms;
    double spread_ms; /* standard deviation of compute_ms: how sure the model is */
    /* Outcome, by prefill_done and finish; negative while unknown. */
    double actual_ttft_ms, actual_total_ms;
    int64_t actual_cached_tokens, actual_output_tokens;
    enum status outcome;
    bool finished;
};

/* STATUS_UNAVAILABLE: no instance is up that may be used. STATUS_FULL: no decode instance has room
 * now, or there are no tickets left: try again when something has finished. STATUS_INVALID: the
 * request can never fit, not even on an empty instance. On success *out holds a ticket that must
 * be finished, whatever happens. */
MUST_USE enum status yolk_conductor_place(struct yolk_conductor *conductor,
                                          const struct yolk_place_request *request, double now_ms,
                                          struct yolk_decision *out);

/* The first token is out: the prefill instance is free of this request. `cached_tokens` is what was
 * really reused. Called at most once per ticket. */
void yolk_conductor_prefill_done(struct yolk_conductor *conductor, struct yolk_ticket ticket,
                                 uint32_t cached_tokens, double now_ms);
/* The sequence has grown by this many tokens. */
void yolk_conductor_decoded(struct yolk_conductor *conductor, struct yolk_ticket ticket,
                            uint32_t tokens);
/* Ends the ticket, in every case, exactly once. */
void yolk_conductor_finish(struct yolk_conductor *conductor, struct yolk_ticket ticket,
                           enum status outcome, double now_ms);

/* What the decode instance of this ticket is decoding now: sequences, and their tokens together. */
void yolk_conductor_batch(const struct yolk_conductor *conductor, struct yolk_ticket ticket,
                          uint32_t *sequences, uint64_t *context_tokens);

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
    uint64_t refused_unavailable, refused_full;
    uint64_t events_stored, events_removed, events_forgotten;
    uint64_t holdings; /* (block, holder) pairs now */
    uint64_t bytes;    /* all memory of the conductor */
    uint64_t samples_prefill, samples_decode, samples_transfer, samples_refused;
    uint32_t instances, suspected, tickets;
};
void yolk_conductor_stats(const struct yolk_conductor *conductor, struct yolk_conductor_stats *out);

/* The `age`-th latest decision, 0 the latest; false if it is no longer, or not yet, there. */
bool yolk_conductor_decision(const struct yolk_conductor *conductor, uint32_t age,
                             struct yolk_decision *out);

#endif
