/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/api_int.h - what the files that read request bodies share. Visible to them only.
 *
 * A field function takes the value of one field, never null, into parse->request; `name` is what an
 * error calls it. STATUS_INVALID, and *parse->error says what is wrong with it. */
#ifndef SERVE_API_INT_H
#define SERVE_API_INT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "serve/api.h"
#include "serve/api_json.h"

struct parse {
    struct api_request *request;
    struct api_error *error;
    uint32_t max_tokens, max_completion_tokens; /* the second wins */
    uint32_t best_of;                           /* 0: not given */
    bool logprobs;                              /* of a chat */
    uint32_t top_logprobs;                      /* 0: not given; else 1 + their number */
    bool has_stream_options;
    enum status status;
};

typedef enum status api_field_fn(struct parse *parse, const char *name,
                                 const struct json_value *value);

/* ---- api_want.c: values of a type, and of no consequence ---- */

/* Both: STATUS_INVALID, as api_refuse(). */
enum status api_wrong_type(struct parse *parse, const char *name, const char *want,
                           const struct json_value *value);
enum status api_no_memory(struct parse *parse);

/* STATUS_INVALID leaves *out as it is. */
MUST_USE enum status api_want_bool(struct parse *parse, const char *name,
                                   const struct json_value *value, bool *out);
MUST_USE enum status api_want_int(struct parse *parse, const char *name,
                                  const struct json_value *value, int64_t min, int64_t max,
                                  int64_t *out);
MUST_USE enum status api_want_number(struct parse *parse, const char *name,
                                     const struct json_value *value, double min, double max,
                                     double *out);
MUST_USE enum status api_want_text(struct parse *parse, const char *name,
                                   const struct json_value *value, struct api_text *out);

/* Fields that are supported at their neutral value only. */
api_field_fn api_only_zero, api_only_one, api_only_false, api_only_true, api_only_none;
api_field_fn api_only_empty;  /* string or array */
api_field_fn api_only_absent; /* or null */
api_field_fn api_ignored;     /* says nothing about the answer; any value will do */

/* ---- api_sampling.c: which tokens are taken, and when it is enough ---- */

api_field_fn api_field_ignore_eos, api_field_max_tokens, api_field_min_tokens, api_field_min_p;
api_field_fn api_field_top_k, api_field_penalty, api_field_repetition_penalty, api_field_top_p;
api_field_fn api_field_logit_bias, api_field_stop_token_ids, api_field_temperature, api_field_seed;
api_field_fn api_field_stop;

/* ---- api_messages.c ---- */

api_field_fn api_field_messages;

/* ---- api_prompt.c: prompts, and what /tokenize and /detokenize take ---- */

api_field_fn api_field_prompt, api_field_one_prompt, api_field_tokens;
api_field_fn api_field_add_special_tokens, api_field_add_generation_prompt;
void api_free_prompts(struct api_request *request);

#endif
