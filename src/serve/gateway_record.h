/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_record.h - the gateway's traffic as a trace, streamed to one listener while it
 * comes: GET /debug/record[?block=N].
 *
 *     {"timestamp": ms, "input_length": n, "output_length": m, "block_size": 32, "hash_ids": [...]}
 *
 * One line a request, in the order of arrival, written when it and all before it have ended; so a
 * trace that is cut short anywhere between lines is a trace. Requests that were refused, or failed
 * before their first token, are left out.
 *
 * What it tells: when, how long, and which prompts begin alike. What it does not: id i of a prompt
 * is 52 bits of SHA-256 over a salt and the chained key of its blocks up to i. The salt is drawn
 * for each recording and never leaves the process, so ids can neither be compared with those of
 * another recording nor tried against texts that somebody guesses.
 *
 * Threads: the env's loop thread.
 * Limits:  RECORD_PENDING_MAX requests and RECORD_IDS_MAX ids that wait for others to end, and
 *          RECORD_TEXT_MAX bytes that the listener has not read; beyond any of them requests are
 *          left out, counted, and logged when the recording ends. */
#ifndef SERVE_GATEWAY_RECORD_H
#define SERVE_GATEWAY_RECORD_H

#include <stdint.h>

#include "base/status.h"

struct env;
struct http_request;
struct recorder; /* opaque */

enum {
    RECORD_PENDING_MAX = 4096,
    RECORD_IDS_MAX = 1 << 20,
    RECORD_TEXT_MAX = 4 << 20,
    RECORD_BLOCK_MIN = 16,
    RECORD_BLOCK_MAX = 4096,
    RECORD_BLOCK_DEFAULT = 32,
};

struct recorder_options {
    struct env *env;
    struct http_request *http;  /* taken over, and ended */
    uint32_t block_tokens;      /* a power of two in RECORD_BLOCK_MIN..RECORD_BLOCK_MAX */
    void (*on_over)(void *ctx); /* the listener has left; from the loop, at most once */
    void *ctx;
};

/* STATUS_NO_MEMORY: the HTTP request is still the caller's. */
MUST_USE enum status recorder_create(const struct recorder_options *options, struct recorder **out);

/* Ends the answer as complete, with what is still pending left out. NULL is allowed. */
void recorder_destroy(struct recorder *recorder);

/* A request with this id, unique among those under way, and this prompt has come. */
void recorder_arrived(struct recorder *recorder, uint64_t id, const uint32_t *tokens,
                      uint32_t count);
/* It has ended, with so many tokens of an answer; 0 leaves it out. Unknown ids are ignored. */
void recorder_ended(struct recorder *recorder, uint64_t id, uint32_t output_tokens);

/* Requests that should be in the trace and are not, for lack of room. */
uint64_t recorder_left_out(const struct recorder *recorder);

#endif
