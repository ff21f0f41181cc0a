/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto.h - the messages between clients, master and nodes of the pool.
 *
 * Bodies are msgpack maps with small integer keys (net/msg.h): unknown keys are skipped, absent
 * ones take the zero value, so fields can be added. Hot lists are columns. The tables of fields are
 * in docs/internals/store-protocol.md.
 *
 * Encoders append to a struct buf: STATUS_FULL if it does not fit. Decoders never trust: any input
 * gives STATUS_OK or STATUS_INVALID, and outputs borrow from the message (keys, columns), so they
 * are valid as long as it. Threads: none of this is shared. */
#ifndef STORE_PROTO_H
#define STORE_PROTO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/key.h"
#include "base/status.h"
#include "net/msg.h"
#include "store/events.h"
#include "store/master.h"
#include "store/member.h"

struct buf;

/* RPC method ids; the names in brackets appear in logs. */
enum store_method {
    STORE_METHOD_ACQUIRE = 0x0101, /* store.acquire: node; pins blocks or an object for reading */
    STORE_METHOD_RELEASE = 0x0102, /* store.release: node; ends a pin */
    STORE_METHOD_EVENTS = 0x0103,  /* store.events: node; streaming, snapshot then changes */
    STORE_METHOD_COMMIT =
        0x0104,                 /* store.commit: node; what a client has written becomes a value */
    STORE_METHOD_DROP = 0x0105, /* store.drop: node, from the master */

    MASTER_METHOD_REGISTER = 0x0201, /* master.register: node */
    MASTER_METHOD_BEAT = 0x0202,     /* master.beat: node */
    MASTER_METHOD_LEAVE = 0x0203,    /* master.leave: node */
    MASTER_METHOD_WATCH = 0x0204,    /* master.watch: streaming, every member then changes */
    MASTER_METHOD_EXIST = 0x0205,    /* master.exist: batch */
    MASTER_METHOD_GET = 0x0206,      /* master.get: batch */
    MASTER_METHOD_PUT_START = 0x0207,
    MASTER_METHOD_PUT_END = 0x0208, /* from the owner */
    MASTER_METHOD_PUT_REVOKE = 0x0209,
    MASTER_METHOD_REMOVE = 0x020a, /* batch */
};

#endif
