/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api.h - the OpenAI API as text: request bodies to checked structs, answers to JSON.
 *
 * Pure: no sockets, no clock, no model. Every field of a request is one of four kinds (the table is
 * in api_request.c): understood; harmless and ignored (`user`, `metadata`, ...); allowed only at
 * its neutral value (`suffix`: "", `tools`: [], ...); or refused with 400 and its name in
 * `param`, because an answer that silently lacks what was asked for is worse than none. Unknown
 * fields are refused too.
 *
 * Memory:  a parsed request owns its JSON tree; its texts point into it, until api_request_fini().
 * Threads: values; any thread, one at a time.
 * Limits:  those below; body size and depth are bounded before. */
#ifndef SERVE_API_H
#define SERVE_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct buf;
struct chat_message;
struct json_doc;
struct json_value;

enum {
    API_STOPS_MAX = 16,
    API_STOP_SIZE_MAX = 256,
    API_STOP_TOKENS_MAX = 64,
    API_BIASES_MAX = 1024,
    API_MAX_TOKENS_MAX = 1 << 24,
    API_LOGPROBS_MAX = 20,
    API_SALT_SIZE_MAX = 256,
    API_MESSAGES_MAX = 4096,
    API_CHOICES_MAX = 128, /* prompts times `n` */
    API_PARAM_SIZE = 96,
    API_ID_SIZE = 64,
};

/* The last two are not answered by a model: text or messages to tokens, and tokens to text. */
enum api_kind { API_CHAT, API_COMPLETION, API_TOKENIZE, API_DETOKENIZE };
enum { API_KINDS = API_DETOKENIZE + 1 };

enum api_tool_choice { API_TOOL_AUTO, API_TOOL_NONE, API_TOOL_REQUIRED };

struct api_text {
    const char *data; /* NULL: absent */
    size_t len;
};

/* A prompt of a completion: text, or tokens. */
struct api_prompt {
    struct api_text text; /* data NULL: tokens */
    uint32_t *tokens;
    size_t tokens_count;
};

struct api_request {
    enum api_kind kind;
    struct api_text model; /* absent: whatever is served */
    bool stream;
    bool include_usage;
    bool continuous_usage;                      /* with include_usage: in every chunk */
    uint32_t max_tokens;                        /* 0: not given */
    double temperature;                         /* 0..2 */
    double top_p;                               /* (0, 1] */
    double min_p;                               /* [0, 1]; 0: off */
    uint32_t top_k;                             /* 0: off */
    double frequency_penalty, presence_penalty; /* [-2, 2] */
    double repetition_penalty;                  /* (0, 10]; 1: off */
    uint32_t *bias_tokens;                      /* logit_bias: token ids, not checked, and */
    float *biases;                              /* what is added to their logits, [-100, 100] */
    uint32_t biases_count;
    uint32_t min_tokens; /* before it the answer does not end by itself */
    uint32_t stop_tokens[API_STOP_TOKENS_MAX];
    uint32_t stop_tokens_count;
    uint32_t logprobs;        /* 0: not wanted; else 1 + the likeliest tokens beside each one */
    uint32_t prompt_logprobs; /* likewise, of the prompt's tokens */
    bool has_seed;
    uint64_t seed;
    bool ignore_eos;
    struct api_text cache_salt;           /* absent, or 1..API_SALT_SIZE_MAX bytes */
    struct api_text stops[API_STOPS_MAX]; /* none is empty */
    uint32_t stops_count;
    struct chat_message *messages; /* API_CHAT: at least one */
    size_t messages_count;
    struct api_prompt *prompts; /* API_COMPLETION: at least one; API_TOKENIZE: one, or messages; */
    size_t prompts_count;       /* API_DETOKENIZE: one, of tokens, maybe none */
    uint32_t n;                 /* answers to each prompt; prompts times n <= API_CHOICES_MAX */
    bool echo;                  /* API_COMPLETION: each answer begins with its prompt, */
    bool prompt_only;           /* and is nothing else: `max_tokens` 0 */
    bool bare;                  /* API_TOKENIZE: a text without BOS */
    bool unasking;              /* API_TOKENIZE: messages without the opening of an answer */
    const struct json_value *tools;     /* NULL: none that may be called */
    size_t tools_size;                  /* bytes of their text */
    enum api_tool_choice tool_choice;   /* NONE without tools */
    const char *tool_name;              /* the one to call; NULL: any */
    bool one_call;                      /* not several */
    const struct json_value *variables; /* of the template, an object; or NULL */
    struct json_value **calls; /* private: tool_calls of messages, one per message or NULL */
    char *grammar;             /* NULL, or the form that answers must have (infer/grammar.h) */
    bool calls_grammar;        /* it is about calls of tools */
    struct json_doc *doc;      /* private */
    char **joined; /* private: contents put together from parts, one per message or NULL */
};

/* What an error object says. */
struct api_error {
    int http_status;
    const char *type;       /* static */
    const char *code;       /* static; NULL: null */
    uint32_t retry_after_s; /* of 429 and 503; 0: a second */
    char message[320];
    char param[API_PARAM_SIZE]; /* "": null */
};

/* STATUS_OK: the caller ends *out with api_request_fini(). STATUS_INVALID: *error is what to
 * answer, and *out needs no fini. */
MUST_USE enum status api_parse(enum api_kind kind, const char *body, size_t len,
                               struct api_request *out, struct api_error *error);
void api_request_fini(struct api_request *request);

/* Fills *error; always returns STATUS_INVALID, so that a refusal is one line. `param` NULL: none.
 */
enum status api_refuse(struct api_error *error, int http_status, const char *code,
                       const char *param, const char *fmt, ...) PRINTF_LIKE(5, 6);

/* ---- answers: each appends to *out; STATUS_FULL as buf_append() ---- */

struct api_usage {
    uint32_t prompt_tokens;
    uint32_t completion_tokens;
    uint32_t cached_tokens; /* of the prompt */
};

/* What all chunks of one answer share. Strings are valid UTF-8. */
struct api_answer {
    enum api_kind kind;
    const char *id;
    const char *model;
    const char *fingerprint; /* of the system; NULL: left out */
    uint64_t created_s;
    bool include_usage;             /* streaming: "usage": null in every chunk but the last */
    const struct api_usage *so_far; /* ... or this; NULL: null */
};

MUST_USE enum status api_write_error(struct buf *out, const struct api_error *error);

/* One of the choices of an answer, or what a chunk adds to it. */
struct api_choice {
    uint32_t index;
    const char *text;
    size_t len;
    const char *finish_reason;       /* of the whole choice; not looked at in a chunk of text */
    struct api_text logprobs;        /* JSON; absent: null */
    struct api_text calls;           /* elements of `tool_calls`, JSON; absent: none */
    struct api_text prompt_logprobs; /* JSON, of a whole answer; absent: left out */
};

/* The whole answer. */
MUST_USE enum status api_write_answer(struct buf *out, const struct api_answer *answer,
                                      const struct api_choice *choices, uint32_t count,
                                      const struct api_usage *usage);

/* Server-sent events: "data: {...}\n\n". The first chunk of each choice of a chat names the role,
 * its last one says why it has ended, and has no text. */
MUST_USE enum status api_write_chunk_role(struct buf *out, const struct api_answer *answer,
                                          uint32_t index);
MUST_USE enum status api_write_chunk_text(struct buf *out, const struct api_answer *answer,
                                          const struct api_choice *choice);
MUST_USE enum status api_write_chunk_finish(struct buf *out, const struct api_answer *answer,
                                            const struct api_choice *choice);
MUST_USE enum status api_write_chunk_usage(struct buf *out, const struct api_answer *answer,
                                           const struct api_usage *usage);
MUST_USE enum status api_write_chunk_error(struct buf *out, const struct api_error *error);
MUST_USE enum status api_write_chunk_done(struct buf *out);

/* /tokenize, and /detokenize, where the text may be any bytes. */
MUST_USE enum status api_write_tokens(struct buf *out, const uint32_t *tokens, size_t count,
                                      uint32_t context_max);
MUST_USE enum status api_write_prompt(struct buf *out, const char *text, size_t len);

struct api_model {
    const char *id;
    uint64_t created_s;
    uint32_t context_max;
};
MUST_USE enum status api_write_model(struct buf *out, const struct api_model *model);
MUST_USE enum status api_write_models(struct buf *out, const struct api_model *model);

#endif
