/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/replay.h - sends the requests of a trace to a live gateway, when the trace says, and measures
 * what a user would have seen.
 *
 * Prompts are token ids: block i of a prompt is a function of the trace's id of that block, so that
 * prompts share exactly the prefixes that the trace says, on any server with this vocabulary. A
 * shorter model sees the trace at a scale: an id then stands for as much less tokens as the whole
 * prompt has. Answers stream, greedily, to their full length.
 *
 * TTFT is from the moment the request was due until its first token; TBT is each gap between tokens
 * that arrived apart. A request is good if it was answered whole, its TTFT is within its limit, and
 * so is its mean TBT; all tokens of other requests are waste (the papers' goodput).
 *
 * Memory:  grows with the trace: a few bytes for each request and each token; a prompt while it is
 *          under way.
 * Threads: the env's.
 * Limits:  REPLAY_PROMPT_MAX tokens a prompt, REPLAY_GAPS_MAX gaps are kept, REPLAY_REQUEST_S
 *          seconds a request. */
#ifndef CLI_REPLAY_H
#define CLI_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct buf;
struct env;
struct http_reply;   /* net/http_client.h */
struct replay;       /* opaque */
struct tls_identity; /* net/tls.h */
struct trace;

enum {
    REPLAY_PROMPT_MAX = 1 << 18,
    REPLAY_GAPS_MAX = 1 << 26,
    REPLAY_REQUEST_S = 600,
    REPLAY_VOCAB_FIRST = 1000, /* token ids of prompts: in every common vocabulary, never special */
    REPLAY_VOCAB = 24000,
};

struct replay_options {
    const char *address;                 /* "host:port" */
    const struct tls_identity *identity; /* HTTPS; NULL: HTTP. Outlives the replay */
    const char *headers;                 /* of requests with JSON; NULL: that alone. Likewise */
    const char *model;                   /* as the server calls it */
    const struct trace *trace;           /* outlives the replay */
    double speed;                        /* the trace's time runs so much faster */
    double scale;                        /* of prompt lengths */
    double output_scale;                 /* of answer lengths */
    uint32_t requests_max;               /* 0: all */
    uint32_t input_max;                  /* longer prompts are cut there; 0: REPLAY_PROMPT_MAX */
    double ttft_limit_ms, tbt_limit_ms;  /* 0: none */
    uint64_t salt; /* mixed into the ids, so that another run finds no old blocks */
    void (*on_end)(void *ctx);
    void *ctx;
};

/* Counts so far. */
struct replay_counts {
    uint32_t due;      /* sent, or being sent */
    uint32_t running;  /* of them, without an end */
    uint32_t finished; /* answered whole */
    uint32_t good;     /* of them, within the limits */
    uint32_t rejected; /* HTTP 429 */
    uint32_t failed;   /* anything else */
    uint64_t tokens;   /* generated */
    uint64_t good_tokens;
    uint64_t prompt_tokens, cached_tokens; /* as the server tells them */
    uint64_t started_ns, ended_ns;         /* by the env's clock; 0: not yet */
};

struct replay_quantiles {
    uint32_t count;
    double mean, p50, p90, p99, max; /* milliseconds; 0 where there are none */
};

struct replay_result {
    struct replay_counts counts;
    struct replay_quantiles ttft, tbt; /* of every gap */
    struct replay_quantiles pace;      /* mean gap of a request */
    double seconds;
};

/* Starts; on_end runs once, when every request has ended. STATUS_INVALID for options out of range
 * or an address that does not parse, STATUS_NO_MEMORY. */
MUST_USE enum status replay_start(struct env *env, const struct replay_options *options,
                                  struct replay **out, struct errmsg *err);

/* Sends nothing more; what is under way goes on to its end. */
void replay_stop_sending(struct replay *replay);

const struct replay_counts *replay_counts(const struct replay *replay);

/* What came to the first request that failed; NULL: none has. */
const struct http_reply *replay_first_failure(const struct replay *replay);

/* Sorts what was measured. */
void replay_result(struct replay *replay, struct replay_result *out);

/* Hangs up what is under way. NULL is allowed; not from inside on_end. */
void replay_destroy(struct replay *replay);

/* ---- for tests and callers that make requests of their own ---- */

/* The body of request `index`. STATUS_NO_MEMORY. */
MUST_USE enum status replay_body(const struct replay_options *options, uint32_t index,
                                 struct buf *out);

#endif
