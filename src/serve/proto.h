/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/proto.h - what gateway, prefill node and decode node say to each other.
 *
 * One attempt to answer a request is three calls (see ARCHITECTURE.md, life of a request):
 *
 *   gateway ---- decode.open ----> d   streaming. Items: `opened` once, then `token`..., and as the
 *      |                               last item `finish`; or `failed`, and the call ends in error.
 *      |                               If d computes the prompt, `prefill_done` before the tokens.
 *      +-------- prefill.run ----> p   streaming. Items: `first_token`, then `prefill_done` as the
 *                                      last; or `failed`, and the call ends in error.
 *   p ---------- decode.push ----> d   unary: may I write into your pages? For lease_ms, renewed.
 *   p ---------- decode.kv_done -> d   unary: the first token and a checksum of every piece pushed.
 *
 * An attempt is named by (request id, attempt): a gateway that places a request again raises the
 * attempt, and a node that still works on a lower one drops it. Token positions count from the
 * start of the prompt; token *indices* count generated tokens of the whole answer, so index
 * `generated_before` is the first token of this attempt. d streams every index from there on,
 * including the one p announces with first_token: they are equal, and a gateway keeps whichever
 * arrives first. The first token is written into the KVCache only when d computes the next one.
 *
 * Blocks: a sequence of n tokens has ceil(n / block_tokens) blocks; only the floor(n /
 * block_tokens) full ones have keys. d answers `opened` with the address of every block's page and
 * `push_from`: blocks below it are d's own business (local, or fetched from the plan's holder), p
 * pushes the rest with transfer WRITEs of class 0, attempt `attempt`, epoch `epoch`. A piece is one
 * layer of one block; of a partial block only the pages of the tokens there are matter, but the
 * whole piece travels. Checksums are XXH3-64 of a whole piece, ordered by block, then layer.
 *
 * Who may write into d's pages: only p (each stage, where p is a group: serve/proto_stage.h), only
 * under a lease that d gave it in answer to decode.push. p counts the lease from before it asked, d
 * from when it answered, so p's ends first, whatever the clocks say; p's WRITEs carry its end as
 * their deadline. d reuses a page of an attempt that is over once p, or each stage, has said that
 * it is done (kv_done, or push with PROTO_PUSH_END), or, if it never does, once the lease and the
 * transfer engine's fence are over. A lease that was never given needs no wait.
 *
 * Encoding: msgpack maps with small integer keys (net/msg.h); unknown keys are skipped. Tokens are
 * one blob of little-endian u32, keys one blob of 16 bytes each, addresses and checksums one blob
 * of little-endian u64 each: no per-element cost, and a length that is no multiple is
 * STATUS_INVALID.
 *
 * Memory:  a decoded message borrows every array from the frame it was decoded from. Strings are
 *          copied into the message. Nothing allocates.
 * Limits:  below; beyond them STATUS_INVALID.
 * Threads: plain data, any thread. */
#ifndef SERVE_PROTO_H
#define SERVE_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "net/msg.h"

struct buf; /* base/buf.h */

/* RPC method ids (net/rpc.h); names are "decode.open" and so on, see proto_method_name(). */
enum proto_method {
    PROTO_DECODE_OPEN = 0x0301,    /* streaming; request proto_decode_open, items proto_item */
    PROTO_DECODE_KV_DONE = 0x0302, /* unary; request proto_kv_done, empty reply */
    PROTO_PREFILL_RUN = 0x0303,    /* streaming; request proto_prefill_run, items proto_item */
    PROTO_NODE_INFO = 0x0304,      /* unary; empty request, reply proto_node_info */
    PROTO_NODE_STATUS = 0x0305,    /* unary; empty request, reply proto_node_status */
    PROTO_DECODE_PUSH = 0x0306,    /* unary; request proto_push, reply proto_push_lease */
    PROTO_NODE_ROLE = 0x0307,      /* unary; request proto_node_role, empty reply */
    PROTO_NODE_REFUSED = 0x0308,   /* unary; request proto_node_refused, empty reply */
    PROTO_NODE_TRANSFERS = 0x0309, /* unary; request proto_node_transfers, the reply is text */
    PROTO_NODE_COPY = 0x030a,      /* unary; request proto_node_blocks, reply proto_node_copied */
    PROTO_NODE_DROP = 0x030b,      /* unary; request proto_node_blocks, empty reply */
    PROTO_NODE_LEAVING = 0x0310,   /* unary; both empty: the reply comes when the node begins to
                                    * leave, to all who have asked. From then on it wants no new
                                    * work; its blocks may be fetched until it is gone */
    PROTO_STAGE_RUN = 0x0320,      /* streaming; as PROTO_PREFILL_RUN: proto_stage.h */
    PROTO_STAGE_ROWS = 0x0321,     /* unary; request proto_stage_rows, empty reply */
    PROTO_STAGE_SUMS = 0x0322,     /* unary; request proto_stage_sums, empty reply */
};
const char *proto_method_name(enum proto_method method);

enum {
    PROTO_TOKENS_MAX = 1 << 18,    /* prompt and answer of one sequence */
    PROTO_BLOCKS_MAX = 1 << 14,    /* blocks of one sequence: 2^18 tokens of 16-token blocks */
    PROTO_CHECKSUMS_MAX = 1 << 21, /* pieces of one sequence */
    PROTO_ADDRESS_SIZE = 96,       /* "host:port", with its NUL */
    PROTO_NAME_SIZE = 64,          /* node and model names, with their NUL */
    PROTO_TEXT_SIZE = 256,         /* one line for people, with its NUL */
    PROTO_FINGERPRINT_SIZE = 32,   /* SHA-256 */
    PROTO_PRIORITY_MAX = 8,
    PROTO_BIASES_MAX = 1024, /* of one request */
    PROTO_HELD_MAX = 128,
    PROTO_GRAMMAR_MAX = 1 << 16,
    PROTO_TOP_MAX = 20, /* likeliest tokens named beside one */
    PROTO_ROW_MAX = 2 + 2 * PROTO_TOP_MAX,
    PROTO_SCORES_MAX = 512, /* tokens of a step */
    PROTO_WRITERS_MAX = 32, /* nodes that push into the pages of one attempt */
};
#define PROTO_LATER_US_MAX UINT64_C(86400000000) /* a day */

/* ---- views of the columns of a message ---- */

/* `count` little-endian words at any alignment. */
struct proto_u32s {
    const uint8_t *bytes;
    uint32_t count;
};
struct proto_u64s {
    const uint8_t *bytes;
    uint32_t count;
};
uint32_t proto_u32_at(struct proto_u32s view, uint32_t index);
uint64_t proto_u64_at(struct proto_u64s view, uint32_t index);
/* Views of native arrays, for encoding (the hosts we run on are little-endian: asserted). */
struct proto_u32s proto_u32s_of(const uint32_t *values, uint32_t count);
struct proto_u64s proto_u64s_of(const uint64_t *values, uint32_t count);
/* Copies view.count words out. */
void proto_u32s_copy(struct proto_u32s view, uint32_t *out);
void proto_u64s_copy(struct proto_u64s view, uint64_t *out);

/* ---- requests ---- */

/* As struct sampling (infer/sampler.h). A node that does not know a field computes without it, so
 * all nodes of a cluster are to be of one version before clients use it. */
struct proto_sampling {
    double temperature; /* 0: greedy; at most 10 */
    double top_p;       /* (0, 1] */
    uint64_t seed;
    double min_p;                  /* [0, 1] */
    double repetition;             /* [0, 10]; 0: off */
    double frequency, presence;    /* [-10, 10] */
    uint32_t top_k;                /* 0: off */
    struct proto_u32s bias_tokens; /* at most PROTO_BIASES_MAX */
    struct proto_u32s biases;      /* as many: floats, by their bits, in [-1000, 1000] */
    struct proto_u32s held;        /* at most PROTO_HELD_MAX */
    uint32_t held_until;
    struct msg_bytes grammar; /* infer/grammar.h, at most PROTO_GRAMMAR_MAX; len 0: none */
    uint32_t logprobs; /* 0: not wanted; else 1 + the pairs of each row, at most PROTO_TOP_MAX */
    uint32_t scores;   /* likewise, of the prompt: who computes it says how likely its tokens were,
                        * and so computes all of it */
};

float proto_bias_at(const struct proto_sampling *sampling, uint32_t index);

/* What the Conductor decided about blocks that exist already. */
struct proto_plan {
    uint32_t reuse_blocks;           /* leading full blocks not to be computed */
    char holder[PROTO_ADDRESS_SIZE]; /* RPC address of a node that has them; "": only if local */
};

/* The part that p and d must see alike. */
struct proto_sequence {
    uint64_t request_id;
    uint32_t attempt;
    struct proto_u32s tokens;     /* prompt, then what was generated before; 1..PROTO_TOKENS_MAX */
    const struct block_key *keys; /* of the full blocks of `tokens` */
    uint32_t keys_count;
    const struct block_key *salt; /* of the first key (conductor/keys.h); NULL: none */
    struct proto_sampling sampling;
    uint32_t generated_before; /* how many of `tokens`, at the end, are answer; < tokens.count */
    struct proto_plan plan;
    int priority;      /* in -PROTO_PRIORITY_MAX..PROTO_PRIORITY_MAX: higher is served first */
    uint64_t tenant;   /* a number that tells tenants apart; 0: nobody in particular */
    uint64_t later_us; /* of what its tenant has waiting with this priority, p computes first what
                        * arrived first, this one as if it had arrived so much later */
};

/* What d checks by itself when the KV is there and before it says the first token. */
struct proto_limits {
    uint32_t tbt_us; /* mean time between tokens that this sequence is to have; 0: no limit */
    bool may_refuse; /* nothing has been shown yet: it may be refused (PROTO_CAUSE_LIMIT) when its
                      * joining would break the limit of anybody in the batch, its own included */
    bool door;       /* it waits before the batch instead, and its first token is d's to say */
    uint32_t places; /* with a door: how many may decode at once, for as long as d has not seen
                      * enough of its own steps to know; 0: the sender does not know either */
};

struct proto_decode_open {
    struct proto_sequence sequence;
    uint32_t max_tokens; /* of the whole answer; > generated_before, the rest is this attempt's */
    bool ignore_eos;
    struct proto_limits limits;
    bool computes; /* d computes the prompt itself, beside steps of its batch: there is no p, and
                    * `prefill_done` comes on this call when it has */
};

struct proto_target {
    char rpc_address[PROTO_ADDRESS_SIZE]; /* of d, for decode.kv_done */
    char segment[PROTO_ADDRESS_SIZE];     /* of d, for transfer */
    struct proto_u64s addresses;          /* of the page of every block, at d */
    uint64_t epoch;
    uint32_t push_from; /* the first block that p pushes */
};

struct proto_prefill_run {
    struct proto_sequence sequence;
    struct proto_target target;
};

enum proto_push_kind {
    PROTO_PUSH_BEGIN = 1, /* also: renew. STATUS_STALE: the attempt is over, write nothing */
    PROTO_PUSH_END = 2,   /* no byte of this attempt will land any more */
};

struct proto_push {
    uint64_t request_id;
    uint32_t attempt;
    uint64_t epoch;
    enum proto_push_kind kind;
    uint32_t writer; /* which stage of a group asks; 0 for a p alone, or from one that knows none */
};

struct proto_push_lease {
    uint32_t lease_ms; /* 0 in answer to PROTO_PUSH_END */
};

struct proto_kv_done {
    uint64_t request_id;
    uint32_t attempt;
    uint64_t epoch;
    uint32_t first_token;
    struct proto_u32s first_row; /* as in proto_token */
    uint32_t push_from;          /* as in `opened` */
    struct proto_u64s checksums; /* of blocks [push_from, blocks), each layer by layer */
};

/* ---- streamed items ---- */

enum proto_item_kind {
    PROTO_ITEM_OPENED = 1,
    PROTO_ITEM_TOKEN = 2,
    PROTO_ITEM_FINISH = 3,
    PROTO_ITEM_FIRST_TOKEN = 4,
    PROTO_ITEM_PREFILL_DONE = 5,
    PROTO_ITEM_FAILED = 6,
    PROTO_ITEM_SCORES = 7,
};

struct proto_opened {
    uint64_t epoch;
    char segment[PROTO_ADDRESS_SIZE];
    struct proto_u64s addresses; /* one per block */
    uint32_t push_from;
    uint32_t blocks_local; /* of those below push_from, how many d had already */
};

struct proto_token {
    uint32_t index;
    uint32_t token;
    struct proto_u32s row; /* of infer/logprobs.h, at most PROTO_ROW_MAX; empty if not wanted */
};

/* Of the prompt, before its first token is said; in the order of the prompt. */
struct proto_scores {
    uint32_t first; /* in `tokens` of the sequence: the token that the first row is of, > 0 */
    uint32_t count; /* of rows, 1..PROTO_SCORES_MAX */
    struct proto_u32s rows; /* of infer/logprobs.h, `count` of them, all of one length */
};

enum proto_finish_reason {
    PROTO_FINISH_STOP = 1,   /* end of text; the eos token was not streamed */
    PROTO_FINISH_LENGTH = 2, /* max_tokens or the model's context */
};

/* Where the time went, in microseconds; what is predicted is compared with these. */
struct proto_times {
    uint64_t queue_us;   /* from arrival to the first thing done for it */
    uint64_t load_us;    /* fetching reused blocks */
    uint64_t compute_us; /* p: of its engine's steps, what fell to its rows; d: decode */
    uint64_t push_us; /* p: from the end of compute until d has acknowledged; d: waiting for KV */
    uint64_t total_us;
};

struct proto_finish {
    enum proto_finish_reason reason;
    uint32_t generated; /* tokens of the whole answer, generated_before included, eos not */
    uint32_t steps;
    struct proto_times times;
};

/* Why fewer blocks were fetched than the plan said. */
enum proto_miss {
    PROTO_MISS_NONE = 0,    /* nothing is missing, or p did not try */
    PROTO_MISS_GONE = 1,    /* the holder no longer has them */
    PROTO_MISS_TIMEOUT = 2, /* they did not come in time */
    PROTO_MISS_FAILED = 3,  /* they came wrong, or the holder could not be asked */
};
enum { PROTO_MISSES = 4 };

struct proto_prefill_done {
    uint32_t cached_tokens;  /* not computed at p: found there or fetched */
    uint32_t fetched_tokens; /* of those, fetched from the holder */
    uint32_t computed_tokens;
    enum proto_miss miss; /* left out of the message while it is NONE */
    struct proto_times times;
};

/* Why an attempt failed, as far as it helps to place it again. */
enum proto_cause {
    PROTO_CAUSE_INTERNAL = 1,
    PROTO_CAUSE_SOURCE = 2,   /* reused blocks could not be had: place again without that holder */
    PROTO_CAUSE_PUSH = 3,     /* KV did not get from p to d, or did not verify there */
    PROTO_CAUSE_PAGES = 4,    /* no pages: another node, or later */
    PROTO_CAUSE_QUEUE = 5,    /* too many requests here already: another node, or later */
    PROTO_CAUSE_CONTEXT = 6,  /* longer than the model's context: nowhere */
    PROTO_CAUSE_INVALID = 7,  /* the request makes no sense: nowhere */
    PROTO_CAUSE_STALE = 8,    /* a newer attempt took over, or a deadline passed */
    PROTO_CAUSE_SHUTDOWN = 9, /* the node goes away: another node */
    PROTO_CAUSE_LIMIT = 10,   /* its joining would break a limit: tell the client */
    PROTO_CAUSE_STAGE = 11,   /* another stage of its group failed: place again without a group */
};

struct proto_failed {
    enum proto_cause cause;
    uint32_t load_permille; /* PROTO_CAUSE_LIMIT: predicted time between tokens over the limit */
    enum proto_miss miss;   /* PROTO_CAUSE_SOURCE: why; left out of the message while it is NONE */
    char text[PROTO_TEXT_SIZE];
};

struct proto_item {
    enum proto_item_kind kind;
    union {
        struct proto_opened opened;
        struct proto_token token; /* TOKEN and FIRST_TOKEN */
        struct proto_finish finish;
        struct proto_prefill_done prefill_done;
        struct proto_failed failed;
        struct proto_scores scores;
    };
};

/* ---- what a node is, and how it is ---- */

enum proto_role {
    PROTO_ROLE_PREFILL = 1,
    PROTO_ROLE_DECODE = 2,
    PROTO_ROLE_STORE = 3,
    PROTO_ROLE_BOTH = 4, /* computes prompts beside the steps of its batch */
};

struct proto_node_info {
    char name[PROTO_NAME_SIZE];
    enum proto_role role;
    char model[PROTO_NAME_SIZE];
    uint8_t fingerprint[PROTO_FINGERPRINT_SIZE]; /* of weights, RoPE and ISA class */
    char isa[PROTO_NAME_SIZE];
    uint32_t block_tokens;
    uint32_t element; /* of its KV: CONDUCTOR_ELEMENT_* */
    uint32_t layers;
    uint64_t layer_size; /* bytes of one piece */
    uint64_t page_size;
    uint32_t context_max; /* tokens */
    uint32_t vocab_count;
    char segment[PROTO_ADDRESS_SIZE];
    uint64_t epoch;
};

/* From now on the node is preferred for this. What it has under way goes on; it takes every call in
 * either role. */
struct proto_node_role {
    enum proto_role role; /* PREFILL or DECODE */
};

/* A gateway will give this node no work, and says why. */
struct proto_node_refused {
    char reason[PROTO_TEXT_SIZE];
};

/* A prefix. COPY: the node fetches what it lacks of it from the holder, in the background, and
 * answers when that is over. DROP: it gives these blocks up, memory and disk; `holder` is "". */
struct proto_node_blocks {
    char holder[PROTO_ADDRESS_SIZE]; /* RPC address */
    const struct block_key *keys;
    uint32_t keys_count;
};

struct proto_node_copied {
    uint32_t had;    /* leading blocks that were there before */
    uint32_t copied; /* of those behind them, that came */
};

/* The disk tier of a node, in node.status. Sizes are bytes; all but the first four count up. */
enum proto_disk {
    PROTO_DISK_BLOCKS,
    PROTO_DISK_SIZE,
    PROTO_DISK_SIZE_MAX, /* 0: there is no disk */
    PROTO_DISK_QUEUE,    /* blocks waiting to be written */
    PROTO_DISK_BYTES_ACCEPTED,
    PROTO_DISK_BYTES_WRITTEN,
    PROTO_DISK_BYTES_READ,
    PROTO_DISK_BLOCKS_WRITTEN,
    PROTO_DISK_BLOCKS_READ,
    PROTO_DISK_CORRUPT, /* blocks whose bytes were not what was written */
    PROTO_DISK_ERRORS,  /* the disk said no */
    PROTO_DISK_DROPPED, /* blocks gone before they were written */
    PROTO_DISK_PROMOTED,
    PROTO_DISK_RECLAIMED, /* blocks given up for newer ones */
    PROTO_DISK_VALUES,    /* on disk; like all up to ERRORS, of values put by key */
    PROTO_DISK_VALUES_SIZE,
    PROTO_DISK_VALUES_QUEUE,
    PROTO_DISK_VALUES_ACCEPTED, /* bytes of values */
    PROTO_DISK_VALUES_WRITTEN,  /* bytes */
    PROTO_DISK_VALUES_READ,     /* values */
    PROTO_DISK_VALUES_KEPT,     /* when their memory was wanted */
    PROTO_DISK_VALUES_LOST,     /* then: too large, or the disk failed */
    PROTO_DISK_VALUES_CORRUPT,
    PROTO_DISK_VALUES_ERRORS,
    PROTO_DISK_PACKED_FROM, /* bytes that packing was tried on */
    PROTO_DISK_PACKED_TO,   /* what became of them */
    PROTO_DISK_NUMBERS,
};

/* How long KV was on its way from and to prefills of a node, in microseconds, and how much of that
 * its engine computed the same prompt meanwhile: nobody waited. All count up. */
enum proto_moves {
    PROTO_LOAD_MOVED_US,
    PROTO_LOAD_HIDDEN_US,
    PROTO_STORE_MOVED_US,
    PROTO_STORE_HIDDEN_US,
    PROTO_MOVES,
};

enum proto_transfers {
    PROTO_TRANSFERS_ONE = 0,     /* that with the id */
    PROTO_TRANSFERS_LAST = 1,    /* those that ended last */
    PROTO_TRANSFERS_METRICS = 2, /* what is counted, for Prometheus */
};

struct proto_node_transfers {
    enum proto_transfers what;
    uint64_t id;
};

struct proto_node_status {
    uint32_t queued;  /* sequences admitted, not yet running */
    uint32_t running; /* sequences in prefill or decode */
    uint32_t decoding;
    uint64_t queued_tokens; /* prompt tokens still to compute */
    uint32_t pages_total;
    uint32_t pages_free;   /* free now */
    uint32_t pages_cached; /* evictable: committed and not in use */
    uint64_t requests;     /* since the start */
    uint64_t failed;
    uint64_t tokens_computed; /* prefill rows */
    uint64_t tokens_reused;
    uint64_t tokens_generated;
    uint64_t step_us;            /* of the last step */
    enum proto_role role;        /* 0: it does not say */
    uint64_t refused;            /* at the join, for a limit; 0 from a node that does not say */
    uint32_t at_door;            /* sequences whose KV is here and that wait to decode; likewise */
    uint64_t moves[PROTO_MOVES]; /* 0 from a node that does not say */
    uint64_t disk[PROTO_DISK_NUMBERS];
};

/* ---- codecs ----
 * Encoders append to *out: STATUS_FULL if it would exceed its maximum (then *out holds a part and
 * is of no use). Decoders: STATUS_INVALID for anything malformed, missing or out of range; *out is
 * then undefined. */

MUST_USE enum status proto_decode_open_encode(const struct proto_decode_open *msg, struct buf *out);
MUST_USE enum status proto_decode_open_decode(const void *data, size_t len,
                                              struct proto_decode_open *out);
MUST_USE enum status proto_prefill_run_encode(const struct proto_prefill_run *msg, struct buf *out);
MUST_USE enum status proto_prefill_run_decode(const void *data, size_t len,
                                              struct proto_prefill_run *out);
MUST_USE enum status proto_push_encode(const struct proto_push *msg, struct buf *out);
MUST_USE enum status proto_push_decode(const void *data, size_t len, struct proto_push *out);
MUST_USE enum status proto_push_lease_encode(const struct proto_push_lease *msg, struct buf *out);
MUST_USE enum status proto_push_lease_decode(const void *data, size_t len,
                                             struct proto_push_lease *out);
MUST_USE enum status proto_kv_done_encode(const struct proto_kv_done *msg, struct buf *out);
MUST_USE enum status proto_kv_done_decode(const void *data, size_t len, struct proto_kv_done *out);
MUST_USE enum status proto_item_encode(const struct proto_item *msg, struct buf *out);
MUST_USE enum status proto_item_decode(const void *data, size_t len, struct proto_item *out);
MUST_USE enum status proto_node_info_encode(const struct proto_node_info *msg, struct buf *out);
MUST_USE enum status proto_node_info_decode(const void *data, size_t len,
                                            struct proto_node_info *out);
MUST_USE enum status proto_node_status_encode(const struct proto_node_status *msg, struct buf *out);
MUST_USE enum status proto_node_status_decode(const void *data, size_t len,
                                              struct proto_node_status *out);

MUST_USE enum status proto_node_role_encode(const struct proto_node_role *msg, struct buf *out);
MUST_USE enum status proto_node_role_decode(const void *data, size_t len,
                                            struct proto_node_role *out);
MUST_USE enum status proto_node_transfers_encode(const struct proto_node_transfers *msg,
                                                 struct buf *out);
MUST_USE enum status proto_node_transfers_decode(const void *data, size_t len,
                                                 struct proto_node_transfers *out);

MUST_USE enum status proto_node_blocks_encode(const struct proto_node_blocks *msg, struct buf *out);
MUST_USE enum status proto_node_blocks_decode(const void *data, size_t len,
                                              struct proto_node_blocks *out);
MUST_USE enum status proto_node_copied_encode(const struct proto_node_copied *msg, struct buf *out);
MUST_USE enum status proto_node_copied_decode(const void *data, size_t len,
                                              struct proto_node_copied *out);

MUST_USE enum status proto_node_refused_encode(const struct proto_node_refused *msg,
                                               struct buf *out);
MUST_USE enum status proto_node_refused_decode(const void *data, size_t len,
                                               struct proto_node_refused *out);

/* "prefill", "decode", "store"; STATUS_INVALID for another word. */
const char *proto_role_name(enum proto_role role);
MUST_USE enum status proto_role_parse(const char *text, enum proto_role *out);
const char *proto_cause_name(enum proto_cause cause);

#endif
