/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/gateway_beside.h - what is to be made of the body of an HTTP request: made on the loop when
 * the body is short, and on a thread beside it when it is longer than options.beside_size, because
 * a megabyte takes some 100 ms to parse and tokenise, and the streams of all clients would stand
 * still.
 *
 *     beside_start -- short --------------------------------------> work, done(WORKED), at once
 *          | long                      the job has run
 *          +------------> UNDER WAY ------------------------------> done(WORKED)
 *                             | the client leaves, before or after  done(LEFT), as soon as the work
 *                             |                                     does not run
 *                             | beside_end_all                      done(SHUTDOWN)
 *
 * Order: requests of different connections need none, and a short one goes past long ones. Long
 * ones are begun in the order in which they came.
 *
 * The body belongs to the HTTP request, which therefore is not ended before `done`.
 *
 * Threads: the env's, but for `work`: it must be the only one to touch what it writes, and read
 * nothing of the gateway but what never changes (model, tokenizer, template, key of salts).
 * Limits:  BESIDE_MAX under way. */
#ifndef SERVE_GATEWAY_BESIDE_H
#define SERVE_GATEWAY_BESIDE_H

#include "base/env.h"
#include "base/status.h"

struct api_error;
struct gateway;
struct http_request;

enum { BESIDE_MAX = 256 };

enum beside_end {
    BESIDE_WORKED,
    BESIDE_LEFT,     /* the client has; the work may not have been done */
    BESIDE_SHUTDOWN, /* nor here */
};

/* All zero but for the first three, which are the caller's. */
struct beside {
    void (*work)(void *ctx);
    void (*done)(void *ctx, enum beside_end end); /* may free this, and ends the HTTP request */
    void *ctx;

    struct gateway *gateway; /* private, from here on */
    struct beside *previous, *next;
    struct env_job job;
    bool left;
};

/* STATUS_OK: `done` runs exactly once, maybe before this returns; until then the HTTP request's
 * hang-up is ours. STATUS_FULL, STATUS_NO_MEMORY: neither function will run. */
MUST_USE enum status beside_start(struct gateway *gateway, struct http_request *http,
                                  struct beside *beside);

/* What to answer when it could not be started; returns STATUS_INVALID, as api_refuse(). */
enum status beside_refuse(enum status status, struct api_error *error);

/* Waits for the work that runs. */
void beside_end_all(struct gateway *gateway);

#endif
