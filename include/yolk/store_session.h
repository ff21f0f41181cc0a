/* SPDX-License-Identifier: Apache-2.0
 *
 * yolk/store_session.h - values of the KVCache pool (yolk/store.h) written and read in parts, layer
 * by layer, while they are computed.
 *
 *   put:  start            write, write, ...             end        readable
 *         room for all     parts straight to the owner   commit  -----------> (or revoke: nothing)
 *   get:  start            read, read, ...               end
 *         found, pinned    without the master            let go
 *
 * A session is of a key, by one client. Calls take batches of keys and end each of them by itself
 * through `on_item`, as those of yolk/store.h do; `size` is then the bytes that were moved (write,
 * read) or those of the value (start). The statuses are those of yolk/store.h, and
 *
 *   status        here                                                         python contract
 *   NOT_FOUND     start of a get: absent; end, read: in no session             -704
 *                 write, end, revoke: in no put session (any more)             -700
 *   EXISTS        start of a put: has a value, or somebody writes one          -705
 *   BUSY          end of a put while a write of its own is under way           -708
 *   INVALID       a key or, of a value, a size out of range                    -600
 *                 a part that is empty, or goes past the end of the value, or
 *                 overlaps one written before; no parts; end with holes        -600
 *   FULL          start of a put: no room; too many sessions, or too many
 *                 parts of one value                                           -200
 *   STALE         get: the owner took the pin for lapsed, or the session was
 *                 idle for too long, and no replica of the same bytes is left  -707
 *                 write, end: the owner has another master, or was started
 *                 again: the session cannot end well any more                  -700
 *   CORRUPT       get: no replica had right bytes; end of a put: what arrived
 *                 at the owner is not what was written                         -801
 *   UNAVAILABLE, CONN_CLOSED, TIMEOUT   no answer                              -800, -900, -901
 *
 * Put. Nothing is readable before an end that is STATUS_OK, and then every byte has been written
 * exactly once. An end with holes is STATUS_INVALID. After an end that is neither BUSY nor OK, and
 * after a revoke, the session is over and nothing is readable; with TIMEOUT, CONN_CLOSED or
 * UNAVAILABLE nobody knows, as of a put. A write that fails has written nothing, as far as the
 * session is concerned: the same parts may be written again. A session that is neither ended nor
 * revoked within 30 s (10 s by a master of before) is over, and its room is given back
 * to others by the master.
 *
 * Get. The value that start found is the one that is read until the end, whole or replaced
 * meanwhile: a replica whose bytes differ is not used. Starts of one key are counted; the last end
 * lets go of it, once reads under way have ended. If a replica fails, each is tried once more, in
 * turn; only when none serves does a read fail, and so do those after it until it is started again.
 * The owner's pin is renewed as long as the session lasts; what one call has started shares a pin
 * at each owner, and is let go of together, with the last of them. A session of which nothing is
 * read for five minutes is let go of.
 *
 * Never wrong. An owner has one XXH3-64 for each YOLK_STORE_PIECE_SIZE of a value, and start
 * brings them all. A part is read together with what it lacks of its first and last piece, through
 * memory of the store's own, and each piece is compared; memory of this host is read where it lies.
 * What is written has a checksum for each part, cut where pieces end, with which the owner compares
 * what lies there before it computes those of pieces: parts may be of any size, in any order.
 *
 * Memory:  keys and lists of parts are copied; what parts point to stays the caller's, must not
 *          change or be freed before its item has ended, and lies in memory registered with the
 *          transfer engine. A session costs 24 bytes a part and piece that is written, or 8 a piece
 *          that is read.
 * Threads: the env's loop thread.
 * Limits:  the constants below; calls_max items under way (yolk/store.h). From another host about
 *          1,000 reads at a time of parts that do not begin and end with pieces: FULL. */
#ifndef YOLK_STORE_SESSION_H
#define YOLK_STORE_SESSION_H

#include <stdint.h>

#include "base/status.h"
#include "yolk/store.h"

enum {
    YOLK_STORE_SESSIONS_MAX = 65536,    /* keys of a client in put sessions, and in get sessions */
    YOLK_STORE_CALL_PARTS_MAX = 65536,  /* of all items of one call */
    YOLK_STORE_VALUE_PARTS_MAX = 16384, /* of one value, beside one for each piece */
};

/* `size` bytes of the value, from `offset`. */
struct yolk_store_part {
    void *data; /* of a write only read */
    uint64_t size;
    uint64_t offset;
};

/* The item ends with all of its parts, or fails as a whole. */
struct yolk_store_parts {
    struct yolk_store_key key;
    const struct yolk_store_part *parts;
    uint32_t count; /* 0: the item ends INVALID */
};

/* Each of these: STATUS_OK, and every item will end; or none does: STATUS_INVALID (count 0 or above
 * YOLK_STORE_BATCH_MAX, too many parts, a wish of the call out of range), STATUS_FULL (calls_max
 * would be passed). */

/* As yolk_store_put(), `call` included; `data` of the values is not looked at. */
MUST_USE enum status yolk_store_put_session_start(struct yolk_store *store,
                                                  const struct yolk_store_value *values,
                                                  uint32_t count,
                                                  const struct yolk_store_call *call);
MUST_USE enum status yolk_store_put_session_write(struct yolk_store *store,
                                                  const struct yolk_store_parts *items,
                                                  uint32_t count,
                                                  const struct yolk_store_call *call);
MUST_USE enum status yolk_store_put_session_end(struct yolk_store *store,
                                                const struct yolk_store_key *keys, uint32_t count,
                                                const struct yolk_store_call *call);
/* The writes under way end as they will. OK also if only the master could not be told: it finds
 * out by itself. */
MUST_USE enum status yolk_store_put_session_revoke(struct yolk_store *store,
                                                   const struct yolk_store_key *keys,
                                                   uint32_t count,
                                                   const struct yolk_store_call *call);

MUST_USE enum status yolk_store_get_session_start(struct yolk_store *store,
                                                  const struct yolk_store_key *keys, uint32_t count,
                                                  const struct yolk_store_call *call);
MUST_USE enum status yolk_store_get_session_read(struct yolk_store *store,
                                                 const struct yolk_store_parts *items,
                                                 uint32_t count,
                                                 const struct yolk_store_call *call);
MUST_USE enum status yolk_store_get_session_end(struct yolk_store *store,
                                                const struct yolk_store_key *keys, uint32_t count,
                                                const struct yolk_store_call *call);

#endif
