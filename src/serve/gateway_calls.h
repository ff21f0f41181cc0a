/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_calls.h - the calls of tools in an answer, taken out of its text as it comes.
 *
 *   hermes    text <tool_call> {...} </tool_call> text ...
 *   llama3    {...} alone, or text
 *   mistral   text [TOOL_CALLS] [{...}, ...]      (the mark is a special token)
 *
 * What is not a call is content, and goes on at once but for an end that could be the beginning of
 * a mark. What looks like a call and does not parse as one is content, too: nothing is lost.
 * Calls are written as elements of `tool_calls`: each when it is complete, or in pieces, as clients
 * of streams put them together by their `index`: its name once that is known, then its arguments
 * as they come. Pieces are for answers whose calls are constrained (infer/grammar.h), because what
 * has been sent cannot become content any more.
 *
 *   OUTSIDE --mark--> HEAD --"arguments": --> ARGUMENTS --last brace--> TAIL --end mark--> OUTSIDE
 *                       ^------------------ "," of the "mistral" style ----'
 *   HEAD --something else--> the rest is taken whole, as without pieces
 *
 * Memory:  holds the text of a call, or of its part, that is not complete.
 * Threads: a value; belongs to its owner. */
#ifndef SERVE_GATEWAY_CALLS_H
#define SERVE_GATEWAY_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "model/chat.h"

enum gateway_calls_part { CALLS_HEAD, CALLS_ARGUMENTS, CALLS_TAIL };

struct gateway_calls {
    enum chat_tools style; /* NONE: everything is content */
    bool inside;           /* a call has begun */
    bool pieces;
    enum gateway_calls_part part; /* with pieces, inside */
    uint32_t depth;               /* of braces and brackets in the arguments */
    bool quoted, escaped;         /* in a text in them, behind a backslash in it */
    uint32_t count;
    uint64_t id; /* of the answer: calls are named after it */
    struct buf held;
};

/* `forced`: the opening mark is in the prompt, so the answer begins inside a call. */
void gateway_calls_init(struct gateway_calls *calls, enum chat_tools style, bool forced,
                        bool pieces, uint64_t id);
void gateway_calls_fini(struct gateway_calls *calls); /* all zero is allowed */

/* The mark of the "mistral" style has come. */
void gateway_calls_mark(struct gateway_calls *calls);

/* Takes text, and appends what is content and what is calls ("{...},{...}"). Statuses as
 * buf_append(). */
MUST_USE enum status gateway_calls_push(struct gateway_calls *calls, const char *text, size_t len,
                                        struct buf *content, struct buf *out);

/* The answer is over. */
MUST_USE enum status gateway_calls_finish(struct gateway_calls *calls, struct buf *content,
                                          struct buf *out);

#endif
