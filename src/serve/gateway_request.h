/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_request.h - an ask, its requests and their attempts, as gateway_ask.c (the client's
 * side), gateway_request.c (one answer) and gateway_attempt.c (the nodes' side) share them. The
 * states and invariants are explained in gateway_ask.c and gateway_request.c. */
#ifndef SERVE_GATEWAY_REQUEST_H
#define SERVE_GATEWAY_REQUEST_H

#include "base/buf.h"
#include "net/rpc.h"
#include "serve/gateway_calls.h"
#include "serve/gateway_explain.h"
#include "serve/gateway_int.h"
#include "serve/gateway_read.h"
#include "serve/gateway_text.h"

enum request_state {
    REQUEST_NEW = 0,
    REQUEST_WAITING,
    REQUEST_OPENING,
    REQUEST_PREFILLING,
    REQUEST_DECODING,
    REQUEST_ENDING,
    REQUEST_OVER,
};

struct attempt {
    struct attempt *next;
    struct gateway *gateway;
    struct request *request; /* NULL: it has left the request, and waits for its calls to end */
    uint32_t number;
    struct yolk_decision decision;
    struct cluster_ref prefill, decode, holder;
    struct cluster_ref stages[YOLK_GROUP_MAX]; /* who prefills it together; the first is prefill */
    uint32_t stages_count;                     /* 1: it does so alone */
    struct rpc_call_id open, run;
    bool open_live, run_live;
    bool streaming; /* d has sent a token: p is not needed any more */
    bool finished;  /* d has sent its last item */
    bool may_join;  /* the limits have been checked again */
    bool checked;   /* d checks them too: nothing is shown before d has said a token */
    bool door;      /* it waits at d's door: the first token is d's to say */
    bool counted;   /* the Conductor knows that prefill is done */
    enum proto_cause open_cause, run_cause; /* of a FAILED item; 0: none */
    enum proto_miss open_miss;              /* likewise */
    double open_load;                       /* with PROTO_CAUSE_LIMIT: of d's batch */
    uint32_t sequence_tokens;
    uint64_t heard_ns;              /* when d said something; at first, when it was placed */
    double placed_ms, prefilled_ms; /* the latter once counted */
    double batch_sum, context_sum;  /* of d, over the tokens that came since the last sample */
    uint32_t tokens;                /* that came since then; sampled: there has been one */
    bool sampled;
    uint32_t
        timed_from;  /* of `tokens`, those before timed_ms: d's first token or the last sample */
    double timed_ms; /* 0: d has not sent any */
};

enum { TRACE_ID_SIZE = 33 };

/* One HTTP request, for one answer or several: each of them is a request. */
struct ask {
    struct gateway *gateway;
    struct http_request *http; /* NULL once it has been ended */
    struct api_request api;
    uint64_t id;
    char answer_id[API_ID_SIZE];
    char request_id[API_ID_SIZE];
    char trace[TRACE_ID_SIZE];     /* of the header traceparent; "": none */
    struct tenant *payer;          /* whose API key it came with; NULL: none are asked for */
    char tenant[YOLK_NAME_SIZE];   /* "": nobody in particular */
    uint64_t tenant_id;            /* a hash of it; 0 for nobody */
    const struct slo_class *class; /* NULL: the general limits */
    bool salted;
    struct block_key salt; /* of the first block of its prompts */
    uint64_t seed;
    uint64_t created_s, arrived_ns, deadline_ns;

    struct request **choices; /* [prompt * n + which]; an entry is NULL before it is made */
    uint32_t choices_count;
    uint32_t unfinished; /* without an end to their answer */
    uint32_t refs;       /* requests that are not freed yet */

    struct buf chunks; /* streaming: events not yet taken by HTTP */
    bool began;        /* the HTTP answer has started: no other status code any more */
    bool writable_armed;
    bool final;  /* streaming: nothing will follow what is in chunks */
    bool failed; /* ... and it must not look complete */
};

struct request {
    struct gateway *gateway;
    struct ask *ask;
    uint32_t choice;                                 /* ask->choices[choice] */
    struct request *leader;                          /* NULL: the first one for its prompt */
    struct request *next, *previous;                 /* of all */
    struct request *waiting_next, *waiting_previous; /* in WAITING */
    enum request_state state;
    uint64_t id;
    char request_id[API_ID_SIZE]; /* the ask's, with a number behind it from the second choice on */
    uint64_t stamp;               /* its place among those of its priority (conductor/fair.h) */

    uint32_t *held; /* NULL, or tokens that may not come before api.min_tokens */
    uint32_t held_count;
    uint32_t *tokens;
    uint32_t prompt_tokens, tokens_count, tokens_max;
    struct block_key key_root; /* that keys[] was made with */
    struct block_key *keys;
    uint32_t keys_count;
    struct gateway_shape shape;
    uint64_t seed;

    struct attempt *attempt;
    uint32_t attempts;  /* number of the latest */
    uint32_t failures;  /* in a row, without a new token */
    uint32_t displaced; /* how often a node had no page for it */
    struct cluster_ref avoid_prefill, avoid_decode, avoid_holder;
    bool alone;                  /* a stage of a group has failed it: no group any more */
    struct yolk_verdict verdict; /* the policy's, when it has been asked */
    enum status refused;         /* why it was not placed the last time */

    struct gateway_text text;
    struct buf shown; /* the answer so far; streaming: what is not in a chunk yet */
    struct gateway_calls calls;
    struct buf called; /* calls of tools, likewise */
    bool opened;       /* streaming: its first chunk has been written */
    struct buf scores; /* rows of its prompt from the second token on, as they are noted; those of
                        * the leader are everybody's */
    struct buf rows;   /* of logprobs, likewise (serve/gateway_logprobs.h) */
    uint32_t scored;   /* tokens in `scores` */
    uint32_t lost;     /* how often some of them were, and the answer was made again */
    bool scores_echoed;
    struct buf listed; /* prompt_logprobs */
    uint32_t offset;   /* of the first token in `rows`, in characters of the choice's text */
    const char *finish_reason;
    bool cached_known;
    uint32_t cached_tokens;

    uint64_t waiting_ns, not_before_ns, first_token_ns, last_token_ns;
    uint64_t placed_ns;   /* the first time */
    double first_ttft_ms; /* predicted, at the first placement */
    struct env_timer timer;
};

/* ---- gateway_scores.c ---- */

/* As proto_sampling's `scores`. */
uint32_t request_scores_wanted(const struct request *request);
/* Are they wanted, and not all there yet? */
bool request_wants_scores(const struct request *request);
/* What a node has found. STATUS_INVALID if it does not follow what is there. */
MUST_USE enum status request_take_scores(struct request *request,
                                         const struct proto_scores *scores);
/* Refuses what is too much. */
MUST_USE enum status request_check_scores(const struct request *request, struct api_error *error);
/* Both: if they are wanted, and all there. Puts the rows of the prompt before those of the answer,
 * once. */
MUST_USE enum status request_echo_scores(struct request *request);
/* *out: `prompt_logprobs` as JSON, absent if not wanted; valid while the request is. */
MUST_USE enum status request_list_scores(struct request *request, struct api_text *out);

/* ---- gateway_ask.c ---- */

/* Streaming: puts what may be shown of a choice into a chunk. The ask may be over afterwards. */
void ask_show(struct request *choice);

/* The answer of a choice is complete, and the choice over. */
void ask_finished(struct request *choice);

/* Ends the ask with an error, before or in the middle of its answers, and all its requests. */
void ask_fail(struct ask *ask, const struct api_error *error);

/* The client has left, or does not read: everything stops. Nothing happens if it is over. */
void ask_abandon(struct ask *ask, const char *reason);

/* A request of it has been freed; the last one frees the ask. */
void ask_unref(struct ask *ask);

/* ---- gateway_request.c ---- */

/* For prompt number choice / n, prepared but not begun. What the prompt holds is taken; or it is
 * NULL, and `leader` the first choice of the same prompt. On failure *error says why. */
MUST_USE enum status request_create(struct ask *ask, uint32_t choice, struct read_prompt *prompt,
                                    struct request *leader, struct request **out,
                                    struct api_error *error);
/* Frees what has not begun. */
void request_discard(struct request *request);

/* It is one of the gateway's from now on. Leaders wait to be placed at once; those who follow, when
 * their leader has computed the prompt, so that it is computed once. */
void request_begin(struct request *request);

/* Its prompt is in the cache, or will not get there: those who follow go on. */
void request_prefilled(struct request *request);

/* Ends it without an answer; nothing happens if it is over. */
void request_stop(struct request *request, const char *reason);

void request_set_state(struct request *request, enum request_state state);

/* A token of the answer has come, maybe for the second time. Afterwards the request may be OVER.
 * STATUS_INVALID if a token before it is missing, or its row where it is wanted. */
MUST_USE enum status request_take_token(struct request *request, const struct proto_token *token);

/* Every token has come; `reason` is static. */
void request_finish(struct request *request, const char *reason);

/* Ends the ask of the request with this error. */
void request_fail(struct request *request, const struct api_error *error);

/* Ends the request with 429, because the policy has refused it. */
void request_refuse(struct request *request, const struct yolk_verdict *verdict);

/* Back to WAITING after an attempt has failed, not to be placed before `not_before_ns`. */
void request_wait(struct request *request, uint64_t not_before_ns);

/* The answer is complete as far as it will be. */
void request_complete(struct request *request);

/* Its limits in milliseconds; 0: none. */
double request_ttft_limit_ms(const struct request *request);
double request_tbt_limit_ms(const struct request *request);

/* ---- gateway_attempt.c ---- */

/* Places the request and opens the calls. STATUS_OK, and the request is OPENING; otherwise it is as
 * it was: STATUS_UNAVAILABLE, STATUS_FULL, STATUS_INVALID (it can never be placed), or
 * STATUS_BUSY: the policy refuses it, and request->verdict says why. */
MUST_USE enum status attempt_start(struct request *request);

/* The attempt leaves its request: calls are cancelled, the ticket is finished. */
void attempt_leave(struct attempt *attempt, enum status outcome);

/* Frees attempts that have left their request and whose calls have ended. */
void attempt_reap(struct gateway *gateway);

#endif
