/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_logprobs.h - the probabilities that come with tokens, as a client sees them.
 *
 * Rows are noted as they come (infer/logprobs.h), and rendered as JSON when the text of their
 * tokens is shown: a chunk's, or a whole answer's.
 *
 *     chat         {"content":[{"token","logprob","bytes":[...],"top_logprobs":[{same}...]}...]}
 *     completion   {"tokens":[...],"token_logprobs":[...],"top_logprobs":[{token: logprob}...],
 *                   "text_offset":[...]}
 *
 *     prompt       [null,{"ID":{"logprob","rank","decoded_token"}...}...]
 *
 * A token that is no text by itself, being part of a character, has U+FFFD in its place in a chat,
 * where its bytes are beside it, and is named by its bytes in a completion: bytes:\xe2\x82.
 *
 * Memory:  rows are the caller's buffer. Threads: any, one at a time. */
#ifndef SERVE_GATEWAY_LOGPROBS_H
#define SERVE_GATEWAY_LOGPROBS_H

#include <stdint.h>

#include "base/status.h"
#include "serve/api.h"

struct buf;
struct proto_token;
struct tokenizer;

/* Appends the token and its row, which is not empty. STATUS_FULL as buf_append(). */
MUST_USE enum status gateway_logprobs_note(struct buf *rows, const struct proto_token *token);

/* A token before which there was nothing: it has no probability, and null in its places. */
MUST_USE enum status gateway_logprobs_note_first(struct buf *rows, uint32_t token);

/* Appends what has been noted in `from`, with at most `top` pairs to each row. */
MUST_USE enum status gateway_logprobs_copy(struct buf *rows, const struct buf *from, uint32_t top);

/* Appends JSON of what has been noted, a prompt's: an object for each token, with the token itself
 * and at most `top` others, likeliest first; null for one that has no probability. */
MUST_USE enum status gateway_logprobs_render_prompt(const struct tokenizer *tokenizer,
                                                    const struct buf *rows, uint32_t top,
                                                    struct buf *out);

/* Puts JSON in the place of the rows that have been noted. *offset is that of the first of their
 * tokens in the text, in characters, and is moved on. STATUS_FULL, and *rows is of no use. */
MUST_USE enum status gateway_logprobs_render(const struct tokenizer *tokenizer, enum api_kind kind,
                                             struct buf *rows, uint32_t *offset);

#endif
