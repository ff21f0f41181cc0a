/* SPDX-License-Identifier: Apache-2.0
 *
 * transfer/metadata.h - a name for an engine: published while it lives, found by its peers.
 *
 * A publisher keeps one entry on a metadata server. It takes the name, whoever had it, since a
 * process that starts again must not wait for the entry of its last life to expire; from then on it
 * only keeps it, every third of the entry's life. Whoever finds another owner there has lost the
 * name to somebody who started later: it says so, leaves the entry alone, and goes on asking, so
 * that it has the name again when the other has gone.
 *
 *            _publish()            taken                        EXISTS
 *     IDLE ------------> TAKING ----------> HELD (kept again) <--------> LOST
 *                        |    ^              |                 kept        |
 *                 no answer: again           `----- _withdraw() -----------'--> DROPPING --> GONE
 *
 * Invariants
 *   M1  After the first TAKE that was answered, the name is never taken again, only kept: an engine
 *       cannot win a name back from one that started after it.
 *   M2  An entry is dropped only by its owner's token. metadata_destroy() alone leaves the entry to
 *       expire; metadata_withdraw() and metadata_farewell() do not.
 *   M3  A server that does not answer changes nothing: the entry stands until its life is over, and
 *       is put back when the server can be asked again, or has lost it.
 *
 * Memory:  one allocation, and one a call under way. Threads: the env's.
 * Limits:  one call of the publisher at a time; one per lookup. */
#ifndef TRANSFER_METADATA_H
#define TRANSFER_METADATA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/env.h"
#include "base/status.h"
#include "transfer/metadata_backend.h"
#include "transfer/metadata_entry.h"

struct metadata; /* opaque */

struct metadata_options {
    const char *url;     /* see metadata_backend_parse() */
    const char *cluster; /* part of the keys; NULL or "": none */
    uint32_t ttl_ms;     /* of what is published; 0: 30000; 1000..86400000 */
};

/* Reaches for nothing yet. STATUS_INVALID for bad options. */
MUST_USE enum status metadata_create(struct env *env, const struct metadata_options *options,
                                     struct metadata **out, struct errmsg *err);
/* Cancels what is under way; no callback runs after it. NULL is allowed. Lookups must be over. */
void metadata_destroy(struct metadata *metadata);

/* The server, as it may be printed. */
const char *metadata_label(const struct metadata *metadata);

/* Fills owner and ttl_ms, and keeps the entry published from now on. Once. */
void metadata_publish(struct metadata *metadata, const struct metadata_entry *entry);

/* OK: the server has our entry, as far as we know. AGAIN: it has not answered, or not for a whole
 * life of the entry. EXISTS: an engine that started later has the name. CANCELLED: withdrawn.
 * DENIED: the server refuses our password. INVALID: nothing was published. */
enum status metadata_state(const struct metadata *metadata);

/* Removes the entry, if it is still ours, and publishes no more. `on_done` runs once, from the
 * loop, however that went: at worst the entry expires. */
void metadata_withdraw(struct metadata *metadata, void (*on_done)(void *ctx), void *ctx);

/* The same before it returns, without turning the loop, in at most `timeout_ns`; afterwards there
 * is metadata_destroy() only. Does nothing where the server cannot have an entry of ours, and in a
 * simulated env (env_apart_create()). */
void metadata_farewell(struct metadata *metadata, uint64_t timeout_ns);

/* ---- finding others ---- */

/* `entry`: only with OK. NOT_FOUND: nobody has the name; UNSUPPORTED: another kind of engine has;
 * PROTOCOL: the server, or the entry, makes no sense; otherwise why nobody could be asked. */
typedef void (*metadata_found_fn)(void *ctx, enum status status,
                                  const struct metadata_entry *entry);

/* Storage is the caller's; all zero: idle. */
struct metadata_lookup {
    struct metadata *metadata; /* NULL: idle */
    struct env_timer timer;
    struct metadata_call *call;
    uint32_t tries;
    enum status last;
    char name[YOLK_TRANSFER_NAME_SIZE];
    char ram_key[METADATA_KEY_SIZE], rpc_key[METADATA_KEY_SIZE];
    metadata_found_fn on_found;
    void *ctx;
};

/* on_found runs once, from the loop; every endpoint is asked before a failure is reported. The name
 * must be valid, the lookup idle. */
void metadata_lookup_start(struct metadata *metadata, struct metadata_lookup *lookup,
                           const char *name, metadata_found_fn on_found, void *ctx);
void metadata_lookup_cancel(struct metadata_lookup *lookup); /* idle is allowed */

struct metadata_counts {
    uint64_t lookups, lookup_failures; /* NOT_FOUND is no failure */
    uint64_t renewals, renewal_failures;
    uint64_t names_lost;
};
const struct metadata_counts *metadata_counts(const struct metadata *metadata);

#endif
