/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_prompt.h - what a client asks of the model, checked, and its prompt in tokens.
 *
 * Every failure is STATUS_INVALID, with *error filled for the client; outputs are then undefined.
 *
 * Threads: any, but gateway_context_max(), which is the loop's: the rest reads what never changes.
 * Limits:  as the caller says. */
#ifndef SERVE_GATEWAY_PROMPT_H
#define SERVE_GATEWAY_PROMPT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct api_error;
struct api_request;
struct gateway;

/* Tokens of prompt and answer together, as the nodes that are there allow. */
uint32_t gateway_context_max(const struct gateway *gateway);

/* What is to become tokens: the messages, or one of the prompts. */
struct gateway_wording {
    const struct api_request *api;
    size_t prompt;
    int64_t now_s; /* since 1970: what templates are told */
};

/* At most max - 1 tokens: one is left for the answer. `tokens` has room for max. */
MUST_USE enum status gateway_tokenize(const struct gateway *gateway,
                                      const struct gateway_wording *wording, uint32_t *tokens,
                                      uint32_t max, size_t *count, struct api_error *error);
/* STATUS_OK: the vocabulary has it. `param` is what the error is about. */
MUST_USE enum status gateway_check_token(const struct gateway *gateway, uint32_t token,
                                         const char *param, struct api_error *error);
/* Token ids that name nothing would be wishes that come to nothing. */
MUST_USE enum status gateway_check_wishes(const struct gateway *gateway,
                                          const struct api_request *api, struct api_error *error);
/* STATUS_OK: it is the model that is served, or none is named. */
MUST_USE enum status gateway_check_model(const struct gateway *gateway,
                                         const struct api_request *api, struct api_error *error);

#endif
