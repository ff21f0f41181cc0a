/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/worker_int.h - what the files of the worker share.
 *
 *   worker.c          creation, RPC methods, the turn (admit, verify, join, step)
 *   worker_job.c      the life of one attempt: arrival, end, release
 *   worker_fetch.c    blocks from elsewhere
 *   worker_prefill.c  p's side: load, compute, push, kv_done
 *   worker_stage.c    p's side, where p is one of a group
 *   worker_decode.c   d's side: open, lease, kv_done, tokens
 *   worker_peer.c     connections to other nodes
 *   worker_copy.c     copies of prefixes that a gateway finds hot
 *   worker_drain.c    leaving in good order
 *
 * A job is one attempt on this node, a sequence of the scheduler plus what it needs of the world.
 * Whatever may still call back or touch its pages counts in `inflight`: the step under way, a
 * fetch, each batch of writes, each call to a peer.
 *
 *     arrived --> live --> over --(inflight == 0 and the call has ended)--> released, freed
 *
 * Invariants
 *   I1  job->over is set exactly when the scheduler's state is final.
 *   I2  Pages are released only at inflight == 0: nobody here reads or writes them any more.
 *   I3  Pages at d that p may write into are kept from reuse until p cannot any more (proto.h).
 *   I4  A job is freed from job_settle() only; after job_settle(), job_fail() or job_end() the
 *       caller touches it no more.
 *   I5  All work is started from worker_turn(), on a turn of the loop of its own: handlers and
 *       callbacks note what happened and call worker_kick(). */
#ifndef SERVE_WORKER_INT_H
#define SERVE_WORKER_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/env.h"
#include "base/key.h"
#include "conductor/cost.h"
#include "infer/engine.h"
#include "net/rpc.h"
#include "serve/proto.h"
#include "serve/runner.h"
#include "serve/worker.h"
#include "serve/worker_sched.h"
#include "store/member.h"
#include "store/node.h"
#include "yolk/transfer.h"

enum {
    WORKER_PEERS_MAX = 256,
    WORKER_FENCE_SLACK_MS = 1000,
    WORKER_FETCH_MS = 30000,
    WORKER_FETCH_RATE_MIN = 32 << 20, /* bytes a second; slower is as good as quiet */
    WORKER_CALL_MS = 30000,  /* of calls to peers, when the request has no deadline of its own */
    WORKER_QUEUE_MS = 60000, /* how long a sequence waits for pages */
    WORKER_SWEEP_MS = 1000,  /* how often what has waited too long is looked for */
    WORKER_PEER_IDLE_MS = 60000,  /* after that an unused connection is closed */
    WORKER_VERIFY_SIZE = 4 << 20, /* bytes checked per turn of the loop */
    WORKER_STAGE_MS = 30000,      /* until the next stage of a group has computed a chunk */
    WORKER_COPIES_MAX = 4,        /* made at once; what is more is refused */
    WORKER_COPY_MS = 60000,       /* each, at most */
    WORKER_WATCHERS_MAX = 64,     /* gateways that want to hear when it leaves */
    WORKER_LINGER_MS = 300,       /* without work before it leaves those who place work */
    WORKER_HEIRLOOMS_MAX = 1024,  /* blocks that it hands over */
    WORKER_JOB_SIZE_MAX = 256 << 20,
    WORKER_JOIN_SAMPLES = 16, /* steps seen before a sequence is refused for what they would cost */
    WORKER_BATCH_STEPS = 4,   /* of a larger batch seen before it grows further, with a door */
};

/* ---- worker_peer.c ---- */

struct peer {
    char rpc_address[PROTO_ADDRESS_SIZE];
    char segment_name[PROTO_ADDRESS_SIZE];
    struct rpc_client *client;
    struct yolk_transfer_segment segment;
    bool segment_open;
    uint32_t refs;
    uint64_t used_ns;
};

/* Finds or makes the peer and adds a reference. STATUS_FULL when all WORKER_PEERS_MAX are in use.
 */
/* `segment_name` "": it is only called, never written to. */
MUST_USE enum status peer_acquire(struct worker *worker, const char *rpc_address,
                                  const char *segment_name, struct peer **out);
void peer_unref(struct peer *peer);
/* Closes what has not been used for long. Not from inside a callback of a client. */
void peer_sweep_all(struct worker *worker);
/* The peer has restarted: the next peer_acquire() binds to its new life. */
void peer_forget_segment(struct worker *worker, struct peer *peer);
void peer_destroy_all(struct worker *worker);

/* ---- worker_copy.c ---- */

struct copy;

void copy_make(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
void copy_drop(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
/* At the end of the worker: nobody is answered any more. */
void copy_fail_all(struct worker *worker);

/* ---- worker_drain.c ---- */

/* A gateway that wants to hear when we leave. */
struct watcher {
    struct worker *worker;
    struct rpc_call *call; /* NULL: nobody */
};

struct drain {
    struct watcher watchers[WORKER_WATCHERS_MAX];
    bool begun;
    bool placed;       /* somebody may still send work that was placed before he heard */
    uint64_t quiet_ns; /* since then nothing is under way; 0: something is */
    struct env_timer timer;
    /* Handing blocks over. */
    struct store_watch *watch;     /* to find an heir; NULL: none is looked for */
    char heir[PROTO_ADDRESS_SIZE]; /* RPC address; "": nobody yet */
    bool heir_is_like_us;          /* has our role */
    bool handing, handed;          /* it is under way; it has been */
    struct peer *peer;
    struct block_key *blocks; /* what is handed over: blocks_count, of them blocks_told were told */
    uint32_t blocks_count, blocks_told, blocks_taken;
    uint64_t values_until_ns; /* values by key may be on their way until then; 0: none are */
    void (*on_drained)(void *ctx);
    void *ctx;
};

void drain_init(struct worker *worker);
void drain_watch(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
/* At the end of the worker: nobody is answered any more. */
void drain_end(struct worker *worker);

/* ---- jobs ---- */

struct job;

/* A batch of writes: one layer of the blocks of one chunk. */
struct push {
    struct job *job;
    struct yolk_transfer_batch batch;
    struct push *next; /* in job->prefill.pushes, or in pushes_free */
    struct push *previous;
};

struct stage;

struct prefill {
    struct stage *stage;        /* NULL: it computes all layers */
    struct proto_target target; /* target.addresses is `addresses` */
    uint64_t *addresses;
    struct peer *peer;
    /* What p may do at d. */
    bool lease_wanted; /* something has to be pushed */
    bool lease_held;   /* was ever given: it has to be given back */
    bool lease_calling;
    struct rpc_call_id lease_call;
    uint64_t lease_sent_ns;
    uint64_t lease_until_ns;
    struct env_timer lease_timer;
    /* Loading. */
    uint32_t local_blocks;  /* found here */
    uint32_t reuse_blocks;  /* not computed, once loading is over */
    uint32_t wanted_blocks; /* local and fetched, as planned */
    struct runner_gate gate;
    bool gate_broken;
    uint32_t layers_loaded; /* how far the gate is open */
    uint64_t computing_ns;  /* since then it need not wait for the load as a whole */
    uint64_t waited_ns;     /* but for layers of it, so long */
    /* Pushing. */
    struct push *pushes; /* under way */
    struct push *pushes_free;
    uint64_t pushing_ns;  /* since then there are some */
    uint64_t computed_ns; /* the last row; 0: not yet */
    uint64_t *sums;       /* [block * layers + layer] */
    bool computed;        /* every row is */
    bool calling;         /* kv_done is under way */
    bool done;            /* kv_done was acknowledged */
    struct rpc_call_id done_call;
    uint32_t first_token;
};

struct decode {
    uint32_t max_tokens;
    bool ignore_eos;
    struct proto_limits limits;
    bool computes;          /* the prompt is computed here, not by a p */
    uint32_t load_permille; /* why it was refused at the join */
    uint64_t door_ns;       /* since then its KV is here and it waits at the door; 0: it does not */
    uint32_t blocks_local;
    uint32_t push_from;
    uint32_t fetch_blocks; /* wanted by the fetch */
    bool fetched;          /* the fetch, if any, is over, and what it did not bring is computed */
    /* Permission to push. */
    bool lease_given;
    uint32_t writers_begun, writers_ended; /* bits: who asked for it, and who gave it back */
    uint64_t lease_until_ns;
    bool push_ended;
    bool lending; /* over, but p may still write: until it says no, or the timer */
    struct env_timer lease_timer;
    /* kv_done. */
    struct rpc_call *kv_call;
    bool kv_here;
    uint64_t *sums; /* of blocks [push_from, ...), as p says */
    uint32_t sums_count;
    uint32_t sums_checked;
    uint32_t first_token;
    /* Tokens. */
    uint32_t *rows; /* of the tokens taken, each in the words
                     * of the longest and one more: its length first; or NULL */
    uint32_t sent;  /* how many of tokens[prompt_count..] have been streamed */
    bool writable_armed;
    enum proto_finish_reason reason; /* 0 while it goes on */
    uint32_t steps;
};

/* What is brought from elsewhere. */
struct fetching {
    struct store_fetch *fetch; /* NULL when none is under way */
    bool from_disk;            /* what it brings comes from our own disk */
    enum proto_miss miss;      /* why it brought less than was wanted */
    uint64_t quiet_ns;         /* how long nothing may come; from our own disk 0: any time */
    bool late;                 /* nothing came for longer, and it was given up */
    struct env_timer timer;    /* when that is so */
    store_fetch_layer_fn on_layer;
    store_fetch_done_fn on_done;
};

struct job {
    struct worker *worker;
    struct arena *arena;
    struct sched_id id;
    enum sched_kind kind;
    uint64_t request_id;
    uint32_t attempt;
    struct rpc_call *call; /* NULL once ended */
    uint64_t deadline_ns;  /* of the call; ENV_NEVER for none */
    bool over;
    uint32_t inflight;

    uint32_t *tokens;
    uint32_t tokens_count;
    uint32_t tokens_max;   /* room */
    uint32_t prompt_count; /* tokens on arrival */
    struct block_key *keys;
    uint32_t keys_count;
    bool salted;
    struct block_key salt; /* of the first block */
    struct store_page *pages;
    uint32_t pages_count;
    uint32_t prompt_blocks; /* ceil(prompt_count / block_tokens) */
    struct sampling sampling;
    struct grammar *grammar;          /* of sampling.matcher; NULL: any text */
    uint32_t scores;                  /* as in proto_sampling; */
    uint32_t *score_rows;             /* then room for those of a step */
    uint32_t logprobs;                /* as in proto_sampling */
    uint32_t row[LOGPROBS_WORDS_MAX]; /* of the token sampled last, if wanted */
    uint32_t row_count;
    uint32_t generated_before;
    int priority;
    uint64_t tenant;
    struct proto_plan plan;
    struct fetching fetching;

    uint64_t arrived_ns;
    uint64_t admitted_ns;
    uint64_t loaded_ns;
    uint64_t engine_ns; /* of the engine's time */
    uint64_t step_first_ns;
    uint64_t step_last_ns;
    union {
        struct prefill prefill;
        struct decode decode;
    };
};

struct worker {
    struct env *env;
    struct worker_options options;
    char name[PROTO_NAME_SIZE];
    char model_name[PROTO_NAME_SIZE];
    char address[PROTO_ADDRESS_SIZE];
    char *secret;
    struct engine_layout layout;
    uint8_t fingerprint[PROTO_FINGERPRINT_SIZE];
    struct block_key root;
    uint32_t context_max;
    struct grammar_words *words; /* NULL: not needed yet */

    struct yolk_transfer *transfer;
    struct rpc_server *server;
    struct store_node *node;
    struct store_member *member;
    struct runner *runner;
    struct sched *sched;
    struct peer *peers[WORKER_PEERS_MAX];
    uint32_t peers_count;

    struct copy *copies[WORKER_COPIES_MAX]; /* under way, or NULL */
    struct drain drain;

    struct job **jobs; /* by scheduler slot */
    uint32_t jobs_max;
    struct env_timer turn;
    struct env_timer sweep;
    bool engine_ready;
    bool ready_told;
    bool joined;
    bool ending;

    bool step_under_way;
    struct sched_step step;
    struct runner_step run;
    struct job *run_jobs[ENGINE_ITEMS_MAX]; /* whose each item of `step` is */
    uint32_t run_items[ENGINE_ITEMS_MAX];   /* which item of `step` each one of `run` is */
    uint64_t step_started_ns;

    struct conductor_fit decode_fit; /* milliseconds of its own steps */
    uint32_t batch_seen;             /* a size of batch that decode_fit knows, and all below */
    uint32_t batch_steps;            /* decoded with more than that */

    struct buf scratch; /* of encoders */
    struct proto_node_status totals;
};

/* ---- worker.c ---- */

void worker_kick(struct worker *worker);
/* There is something that may grow old. */
void worker_sweep_later(struct worker *worker);

static inline uint32_t worker_blocks(const struct worker *worker, uint32_t tokens)
{
    return (tokens + worker->layout.block_tokens - 1) / worker->layout.block_tokens;
}

/* The deadline of a call to a peer on behalf of the job. */
uint64_t worker_call_deadline_ns(const struct job *job);

/* ---- worker_job.c ---- */

struct job_room {
    uint32_t tokens_max; /* at least the prompt's */
    uint32_t sums;       /* checksums to keep */
    uint32_t addresses;
    uint32_t rows; /* words */
};

/* Checks the sequence, drops older attempts of the request, and makes the job, queued. On failure
 * the call has been ended and NULL is returned. */
struct job *job_create(struct worker *worker, enum sched_kind kind, struct rpc_call *call,
                       const struct proto_sequence *sequence, const struct job_room *room);
struct job *job_find(const struct worker *worker, enum sched_kind kind, uint64_t request_id,
                     uint32_t attempt);

/* The name of a full block, which is one of tokens[], by the one before it. */
struct block_key job_key(const struct job *job, uint32_t block, const struct block_key *parent);

/* Says why to the gateway, ends the call and the job (I4). */
void job_fail(struct job *job, enum proto_cause cause, enum status status, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* Ends the job: `end` is FINISHED or CANCELLED. The call is the caller's business (I4). */
void job_end(struct job *job, enum sched_state end);
/* Releases and frees what can be (I4). */
void job_settle(struct job *job);
/* At the end of the worker: frees without looking back. */
void job_abandon(struct job *job);

/* ---- worker_fetch.c ---- */

/* How many blocks, `local` of them in our pages, shall be there without being computed or pushed,
 * at most `reusable`: the others from our own disk, looked at for blocks before `below`, or
 * from the holder, whichever reaches further. */
uint32_t job_wanted_blocks(struct job *job, uint32_t local, uint32_t reusable, uint32_t below);
/* Fetches blocks [local, wanted). False: it does not, also where there are none. each() may be
 * NULL, and gets the job, as done() does: not called when the job is over by then. If nothing comes
 * for long, it ends with STORE_MISS_DEADLINE. */
bool job_fetch(struct job *job, uint32_t local, uint32_t wanted, store_fetch_layer_fn each,
               store_fetch_done_fn done);
/* It has brought less than that, for gateways and the log. */
void job_fetch_short(struct job *job, uint32_t wanted, const struct store_fetch_result *result);
/* It is not needed any more; the job is settled when it has ended. Nothing if none is under way. */
void job_fetch_cancel(struct job *job);

/* ---- worker_grammar.c ---- */

/* NULL, or why it cannot be done. job_drop_grammar() ends it in any case. */
const char *job_take_grammar(struct job *job, const struct proto_sampling *from);
void job_drop_grammar(struct job *job);

/* The most words that a row has where `wanted` is the proto_sampling's logprobs or scores. */
uint32_t job_row_words(uint32_t wanted);

/* The scores that a part of the prompt is to find, once the rest of the item is there; and what has
 * been found to the gateway: false if the job has failed. */
void job_fill_score(struct job *job, struct runner_item *item);
bool job_send_score(struct job *job, const struct runner_item *from);

/* What the next token is sampled with, in an item that is filled otherwise. */
void job_fill_sample(struct job *job, uint32_t past, uint64_t index, struct runner_item *item);

/* Refuses a call that never became a job. */
void job_refuse(struct worker *worker, struct rpc_call *call, enum proto_cause cause,
                enum status status, const char *text);

/* STATUS_FULL: the gateway reads slowly. STATUS_CANCELLED: nobody reads. */
MUST_USE enum status job_send(struct job *job, const struct proto_item *item);

/* Takes pages for the prompt beyond the first `have`. STATUS_FULL: not now. */
MUST_USE enum status job_alloc(struct job *job, uint32_t have);

/* ---- worker_prefill.c ---- */

void prefill_run(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
/* What stage.run has in common with it. The job, queued, or NULL and the call has ended; then
 * prefill_connect() is to follow. */
struct job *prefill_accept(struct worker *worker, struct rpc_call *call, const uint8_t *body,
                           size_t len);
void prefill_connect(struct job *job);
/* All computed and all written? Then it is told (I4). */
void prefill_check_pushed(struct job *job);
void prefill_describe_done(const struct job *job, struct proto_prefill_done *out);
/* Its call and the job end well (I4). */
void prefill_finish(struct job *job);
/* False: no pages now, ask again later. */
bool prefill_admit(struct job *job);
bool prefill_waits_for_lease(const struct job *job);
void prefill_fill_item(struct job *job, const struct sched_item *from, struct runner_item *item);
void prefill_layer_done(struct job *job, const struct runner_item *item, uint32_t layer);
void prefill_step_done(struct job *job, const struct runner_item *item, bool computed);
void prefill_stop(struct job *job);
void prefill_release(struct job *job);

/* ---- worker_stage.c: of a job whose prefill.stage is set, unless it says otherwise ---- */

void stage_run(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
void stage_rows(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
void stage_sums(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
/* Any job: is it a stage, and not the first? */
bool stage_follows(const struct job *job);
/* Any job: who asks d for the lease. */
uint32_t stage_writer(const struct job *job);
/* Any job: have its checksums been passed on? d may have heard all it has to. */
bool stage_told(const struct job *job);
bool stage_is_last(const struct job *job);
/* What it has to have before it computes, if it follows. */
uint32_t stage_reuse_blocks(const struct job *job);
/* prefill.reuse_blocks are there: starts the next stage. False: the job has failed. */
bool stage_begin(struct job *job);
void stage_fill_part(const struct job *job, const struct sched_item *from, struct engine_part *out);
/* False: the job has failed. */
bool stage_step_done(struct job *job, const struct runner_item *item);
/* Have the checksums of the layers before come? */
bool stage_gathered(const struct job *job);
void stage_pass_sums(struct job *job);
void stage_stop(struct job *job);
void stage_release(struct job *job);

/* ---- worker_decode.c ---- */

void decode_open(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
void decode_push(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
void decode_kv_done(void *ctx, struct rpc_call *call, const uint8_t *body, size_t len);
bool decode_admit(struct job *job);
/* Checks up to WORKER_VERIFY_SIZE bytes of what p pushed and joins when all is there. True: there
 * is more to check now. */
bool decode_advance(struct job *job);
/* Between steps: those at the door come in, as many as the limits allow. */
void decode_let_in(struct worker *worker);
/* False: no page; the job has failed. */
bool decode_fill_item(struct job *job, const struct sched_item *from, struct runner_item *item);
void decode_step_done(struct job *job, const struct runner_item *item);
/* The same for rows of a prompt that is computed here. */
void decode_fill_prompt(struct job *job, const struct sched_item *from, struct runner_item *item);
void decode_prompt_done(struct job *job, const struct runner_item *item);
void decode_stop(struct job *job);
void decode_release(struct job *job);

#endif
