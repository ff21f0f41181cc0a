/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_task.h - the messages of tasks (store/master_task.h): master.task makes one,
 * master.task_query asks how far it is, and both are answered with how far it is. As store/proto.h.
 */
#ifndef STORE_PROTO_TASK_H
#define STORE_PROTO_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "store/master.h"
#include "yolk/store_task.h"

struct buf;

struct store_task_ask {
    struct store_key key; /* decoded: borrowed from the body */
    bool move;
    char from[STORE_NAME_SIZE]; /* move; "": the only node that has it */
    uint32_t to_count;          /* 1..STORE_REPLICAS_MAX; of a move 1 */
    char to[STORE_REPLICAS_MAX][STORE_NAME_SIZE];
};
MUST_USE enum status store_encode_task_ask(struct buf *buf, const struct store_task_ask *ask);
MUST_USE enum status store_decode_task_ask(const uint8_t *body, size_t len,
                                           struct store_task_ask *out);

MUST_USE enum status store_encode_task_id(struct buf *buf, struct yolk_store_task_id id);
MUST_USE enum status store_decode_task_id(const uint8_t *body, size_t len,
                                          struct yolk_store_task_id *out);

MUST_USE enum status store_encode_task(struct buf *buf, const struct yolk_store_task *task);
MUST_USE enum status store_decode_task(const uint8_t *body, size_t len,
                                       struct yolk_store_task *out);

#endif
