/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_explain.h - what the gateway tells the Conductor so that it can explain itself (the
 * shape of a prompt beside its keys, why a predicted hit did not come), and what it shows of that:
 * regret, and the alarm about predicted hits that do not realise.
 *
 * The meaning of all of it is in yolk/explain.h.
 *
 * Threads: the env's loop thread. */
#ifndef SERVE_GATEWAY_EXPLAIN_H
#define SERVE_GATEWAY_EXPLAIN_H

#include <stdint.h>

#include "base/status.h"
#include "serve/proto.h"
#include "yolk/explain.h"

struct attempt;
struct chat;
struct gateway;
struct request;

enum { EXPLAIN_TEXTS = 16 }; /* the latest messages of a conversation that are told apart */

/* Part of a request; all zero is an empty one. */
struct gateway_shape {
    uint64_t *prefixes; /* one per key */
    uint32_t prefixes_count, block_tokens;
    uint64_t texts[EXPLAIN_TEXTS]; /* oldest first */
    uint32_t texts_count;
    uint64_t answer; /* name of the answer as far as it has been shown */
};

/* Tokens with which the template opens an answer: they are not decided by the messages. `now_s` is
 * what it is told of the time. */
uint32_t gateway_explain_opening(const struct chat *chat, int64_t now_s);

/* When a request is prepared: room for the prefixes of `keys_max` blocks, names of its messages.
 * STATUS_NO_MEMORY. */
MUST_USE enum status gateway_explain_start(struct request *request, uint32_t keys_max);
void gateway_explain_fini(struct request *request);

/* When its keys are made: the shape beside them, borrowed from the request. */
struct yolk_prompt gateway_explain_prompt(struct request *request);

/* This text of the answer is shown. */
void gateway_explain_shown(struct request *request, const void *text, size_t len);

/* The answer is complete: the next turn may bring it back as other tokens. */
void gateway_explain_answered(struct request *request);

/* Before the Conductor hears that prefill is done, or that it has failed for want of blocks. */
void gateway_explain_miss(const struct attempt *attempt, enum proto_miss miss);
/* Before it hears of the end. */
void gateway_explain_regret(const struct attempt *attempt, enum status outcome);
/* ... and after that: tells the log when the alarm is raised, every minute, and when it is over. */
void gateway_explain_hits(struct gateway *gateway);

#endif
