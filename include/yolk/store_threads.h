/* SPDX-License-Identifier: Apache-2.0
 *
 * yolk/store_threads.h - the client of the KVCache pool (yolk/store.h) for threads: each asks
 * about one key, or makes a whole call, and waits. Questions that meet on their way to the loop
 * share one exchange with the master, so that many small calls from many threads cost few packets.
 * While answers take less than 200 us, a thread that waits does not sleep but looks, and offers its
 * core to others in between; where they take longer, or others want the core, it sleeps.
 *
 * Threads: yolk_store_threads_create() and _destroy() on the loop's; everything else from any
 *          other, while the loop turns.
 * Limits:  those of the client: its calls_max bounds how many are served together. */
#ifndef YOLK_STORE_THREADS_H
#define YOLK_STORE_THREADS_H

#include "base/status.h"
#include "yolk/store.h"

struct yolk_store_threads; /* opaque */

/* The client stays the caller's, and outlives this. STATUS_NO_MEMORY. */
MUST_USE enum status yolk_store_threads_create(struct env *env, struct yolk_store *store,
                                               struct yolk_store_threads **out);

/* Nobody asks any more. NULL is allowed. */
void yolk_store_threads_destroy(struct yolk_store_threads *threads);

/* As an item of yolk_store_exist(), with the client's timeout; and STATUS_FULL when too many wait.
 */
MUST_USE enum status yolk_store_threads_exist(struct yolk_store_threads *threads,
                                              const struct yolk_store_key *key);

/* As an item of yolk_store_get(). *size: of the value, where it is known. */
MUST_USE enum status yolk_store_threads_get(struct yolk_store_threads *threads,
                                            const struct yolk_store_buffer *buffer, uint64_t *size);

/* As an item of yolk_store_put(), without wishes for the whole call. */
MUST_USE enum status yolk_store_threads_put(struct yolk_store_threads *threads,
                                            const struct yolk_store_value *value);

/* As an item of yolk_store_remove(). */
MUST_USE enum status yolk_store_threads_remove(struct yolk_store_threads *threads,
                                               const struct yolk_store_key *key);

/* ---- whole calls ---- */

/* What item i of a call ended with. */
struct yolk_store_answer {
    enum status status;
    uint64_t size;
};

/* Begins one call of the client with `call`, on the loop's thread, and returns what that said:
 * return yolk_store_get(store, mine->buffers, mine->count, call);  Whoever asks what has no items
 * (list, stat) says that it has one, and ends that by call->on_item(call->ctx, 0, ...) itself. */
typedef enum status (*yolk_store_threads_fn)(void *ctx, struct yolk_store *store,
                                             const struct yolk_store_call *call);

/* Begins a call of `count` items with the wishes of `wishes` (NULL: none; on_item and ctx are not
 * looked at), and blocks until all of them have ended: answers[count] says how. Not STATUS_OK: it
 * was not begun, for what `begin` returned, or STATUS_FULL as above, and `answers` is untouched.
 * STATUS_INVALID: count 0 or above YOLK_STORE_BATCH_MAX. */
MUST_USE enum status yolk_store_threads_call(struct yolk_store_threads *threads, uint32_t count,
                                             const struct yolk_store_call *wishes,
                                             yolk_store_threads_fn begin, void *ctx,
                                             struct yolk_store_answer *answers);

#endif
