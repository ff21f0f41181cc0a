/* SPDX-License-Identifier: Apache-2.0 */
#include "store/proto_task.h"

#include "base/assert.h"
#include "base/buf.h"
#include "net/msg.h"
#include "store/proto.h"

enum { ASK_KEY = 1, ASK_MOVE = 2, ASK_FROM = 3, ASK_TO = 4 };
enum { ID_TERM = 1, ID_NUMBER = 2 };
enum {
    TASK_TERM = 1,
    TASK_NUMBER = 2,
    TASK_MOVE = 3,
    TASK_STATE = 4,
    TASK_STATUS = 5,
    TASK_TARGETS = 6,
    TASK_DONE = 7,
    TASK_SIZE = 8,
    TASK_AGE_MS = 9,
};

enum status store_encode_task_ask(struct buf *buf, const struct store_task_ask *ask)
{
    struct msg_writer writer;
    ASSERT(ask->to_count > 0 && ask->to_count <= STORE_REPLICAS_MAX);

    msg_writer_init(&writer, buf);
    msg_put_map(&writer, ask->move ? 4 : 2);
    msg_field_bin(&writer, ASK_KEY, ask->key.bytes, ask->key.len);
    if (ask->move) {
        msg_field_bool(&writer, ASK_MOVE, true);
        msg_field_text(&writer, ASK_FROM, ask->from);
    }
    msg_field_array(&writer, ASK_TO, ask->to_count);
    for (uint32_t i = 0; i < ask->to_count; i++)
        msg_put_text(&writer, ask->to[i]);
    return writer.status;
}

static void get_targets(struct msg_reader *reader, struct store_task_ask *out)
{
    const uint32_t count = msg_get_array(reader);
    if (count == 0 || count > STORE_REPLICAS_MAX) {
        msg_fail(reader);
        return;
    }
    out->to_count = count;
    for (uint32_t i = 0; i < count; i++)
        msg_get_text_copy(reader, out->to[i], sizeof(out->to[i]));
}

enum status store_decode_task_ask(const uint8_t *body, size_t len, struct store_task_ask *out)
{
    struct msg_bytes name = { NULL, 0 };
    struct store_task_ask got = { .to_count = 0 };
    struct msg_reader reader;
    uint64_t key;

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case ASK_KEY: name = msg_get_bin(&reader, STORE_KEY_SIZE_MAX); break;
        case ASK_MOVE: got.move = msg_get_bool(&reader); break;
        case ASK_FROM: msg_get_text_copy(&reader, got.from, sizeof(got.from)); break;
        case ASK_TO: get_targets(&reader, &got); break;
        default: msg_skip(&reader); break;
        }
    }
    if (name.len == 0 || got.to_count == 0 || (got.move && got.to_count != 1)) msg_fail(&reader);
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    got.key = (struct store_key){ name.data, (uint32_t)name.len };
    *out = got;
    return STATUS_OK;
}

enum status store_encode_task_id(struct buf *buf, struct yolk_store_task_id id)
{
    struct msg_writer writer;

    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 2);
    msg_field_u64(&writer, ID_TERM, id.term);
    msg_field_u64(&writer, ID_NUMBER, id.number);
    return writer.status;
}

enum status store_decode_task_id(const uint8_t *body, size_t len, struct yolk_store_task_id *out)
{
    struct yolk_store_task_id got = { 0 };
    struct msg_reader reader;
    uint64_t key;

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case ID_TERM: got.term = msg_get_u64(&reader); break;
        case ID_NUMBER: got.number = msg_get_u64(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

enum status store_encode_task(struct buf *buf, const struct yolk_store_task *task)
{
    struct msg_writer writer;

    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 9);
    msg_field_u64(&writer, TASK_TERM, task->id.term);
    msg_field_u64(&writer, TASK_NUMBER, task->id.number);
    msg_field_bool(&writer, TASK_MOVE, task->move);
    msg_field_u64(&writer, TASK_STATE, task->state);
    msg_field_u64(&writer, TASK_STATUS, store_status_code(task->status));
    msg_field_u64(&writer, TASK_TARGETS, task->targets);
    msg_field_u64(&writer, TASK_DONE, task->done);
    msg_field_u64(&writer, TASK_SIZE, task->size);
    msg_field_u64(&writer, TASK_AGE_MS, task->age_ms);
    return writer.status;
}

enum status store_decode_task(const uint8_t *body, size_t len, struct yolk_store_task *out)
{
    struct yolk_store_task got = { .status = STATUS_OK };
    struct msg_reader reader;
    uint64_t key;

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case TASK_TERM: got.id.term = msg_get_u64(&reader); break;
        case TASK_NUMBER: got.id.number = msg_get_u64(&reader); break;
        case TASK_MOVE: got.move = msg_get_bool(&reader); break;
        case TASK_STATE:
            got.state =
                (enum yolk_store_task_state)msg_get_u64_max(&reader, YOLK_STORE_TASK_SUCCESS);
            break;
        case TASK_STATUS: got.status = store_status_of(msg_get_u32(&reader)); break;
        case TASK_TARGETS: got.targets = msg_get_u32(&reader); break;
        case TASK_DONE: got.done = msg_get_u32(&reader); break;
        case TASK_SIZE: got.size = msg_get_u64(&reader); break;
        case TASK_AGE_MS: got.age_ms = msg_get_u64(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.done > got.targets) msg_fail(&reader);
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}
