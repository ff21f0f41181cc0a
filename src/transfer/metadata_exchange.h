/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/metadata_exchange.h - one HTTP request and its whole answer, bounded: what the backends
 * that speak HTTP are made of. Storage is the caller's; used again after each answer. */
#ifndef TRANSFER_METADATA_EXCHANGE_H
#define TRANSFER_METADATA_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

struct env;
struct http_client;

enum { METADATA_TOKEN_SIZE = 2048 };

/* `status` OK: an answer with that code and body came whole; PROTOCOL also for one that is longer
 * than METADATA_ANSWER_MAX. */
typedef void (*metadata_answer_fn)(void *ctx, enum status status, int code, const char *body,
                                   size_t len);

struct metadata_exchange {
    struct env *env;
    const char *address;             /* borrowed */
    char token[METADATA_TOKEN_SIZE]; /* sent as Authorization; "": none */
    uint64_t deadline_ns;
    struct http_client *client; /* NULL: nothing is under way */
    struct buf body;
    bool overflown;
    metadata_answer_fn on_answer;
    void *ctx;
};

void metadata_exchange_init(struct metadata_exchange *exchange, struct env *env,
                            const char *address, uint64_t deadline_ns, metadata_answer_fn on_answer,
                            void *ctx);
/* Cancels what is under way. */
void metadata_exchange_fini(struct metadata_exchange *exchange);

/* OK: on_answer runs once, from the loop. `body` NULL: none; copied. */
MUST_USE enum status metadata_exchange_start(struct metadata_exchange *exchange, const char *method,
                                             const char *path, const char *body, size_t len);

#endif
