/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/proto_stage.c - see proto_stage.h. */
#include "serve/proto_stage.h"

#include <string.h>

#include "base/assert.h"
#include "net/msg.h"
#include "serve/proto_int.h"

/* ---- stage.run ---- */

enum run_field { RUN_STAGE = 1, RUN_ADDRESSES, RUN_REUSE, RUN_RUN };

enum status proto_stage_run_encode(const struct proto_stage_run *msg, struct buf *out)
{
    struct msg_writer writer;

    ASSERT(msg->stages <= PROTO_STAGES_MAX);
    msg_writer_init(&writer, out);
    msg_put_map(&writer, RUN_RUN);
    msg_field_u64(&writer, RUN_STAGE, msg->stage);
    msg_field_array(&writer, RUN_ADDRESSES, msg->stages);
    for (uint32_t i = 0; i < msg->stages; i++)
        msg_put_text(&writer, msg->addresses[i]);
    msg_field_u64(&writer, RUN_REUSE, msg->reuse_blocks);
    msg_field_bin(&writer, RUN_RUN, msg->run, msg->run_len);
    return writer.status;
}

static void get_addresses(struct msg_reader *reader, struct proto_stage_run *out)
{
    out->stages = msg_get_array(reader);
    if (out->stages < 2 || out->stages > PROTO_STAGES_MAX) {
        msg_fail(reader);
        out->stages = 0;
    }
    for (uint32_t i = 0; i < out->stages; i++) {
        msg_get_text_copy(reader, out->addresses[i], sizeof(out->addresses[i]));
        if (out->addresses[i][0] == '\0') msg_fail(reader);
    }
}

enum status proto_stage_run_decode(const void *data, size_t len, struct proto_stage_run *out)
{
    struct msg_reader reader;
    struct msg_bytes run;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        switch (key) {
        case RUN_STAGE: out->stage = msg_get_u32(&reader); break;
        case RUN_ADDRESSES: get_addresses(&reader, out); break;
        case RUN_REUSE: out->reuse_blocks = msg_get_u32(&reader); break;
        case RUN_RUN:
            run = msg_get_bin(&reader, len);
            out->run = run.data;
            out->run_len = run.len;
            break;
        default: msg_skip(&reader); break;
        }
    }
    if (out->stage >= out->stages) msg_fail(&reader);
    return finish(&reader, seen, fields_through(RUN_RUN));
}

/* ---- stage.rows ---- */

enum rows_field { ROWS_REQUEST = 1, ROWS_ATTEMPT, ROWS_POSITION, ROWS_CHECKSUM, ROWS_ROWS };

enum status proto_stage_rows_encode(const struct proto_stage_rows *msg, struct buf *out)
{
    struct msg_writer writer;

    msg_writer_init(&writer, out);
    msg_put_map(&writer, ROWS_ROWS);
    msg_field_u64(&writer, ROWS_REQUEST, msg->request_id);
    msg_field_u64(&writer, ROWS_ATTEMPT, msg->attempt);
    msg_field_u64(&writer, ROWS_POSITION, msg->position);
    msg_field_u64(&writer, ROWS_CHECKSUM, msg->checksum);
    msg_field_bin(&writer, ROWS_ROWS, msg->rows, msg->size);
    return writer.status;
}

enum status proto_stage_rows_decode(const void *data, size_t len, struct proto_stage_rows *out)
{
    struct msg_reader reader;
    struct msg_bytes rows;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        switch (key) {
        case ROWS_REQUEST: out->request_id = msg_get_u64(&reader); break;
        case ROWS_ATTEMPT: out->attempt = msg_get_u32(&reader); break;
        case ROWS_POSITION: out->position = msg_get_u32(&reader); break;
        case ROWS_CHECKSUM: out->checksum = msg_get_u64(&reader); break;
        case ROWS_ROWS:
            rows = msg_get_bin(&reader, PROTO_ROWS_SIZE_MAX);
            out->rows = rows.data;
            out->size = rows.len;
            break;
        default: msg_skip(&reader); break;
        }
    }
    return finish(&reader, seen, fields_through(ROWS_ROWS));
}

/* ---- stage.sums ---- */

enum sums_field { SUMS_REQUEST = 1, SUMS_ATTEMPT, SUMS_LAYERS, SUMS_SUMS };

enum status proto_stage_sums_encode(const struct proto_stage_sums *msg, struct buf *out)
{
    struct msg_writer writer;

    msg_writer_init(&writer, out);
    msg_put_map(&writer, SUMS_SUMS);
    msg_field_u64(&writer, SUMS_REQUEST, msg->request_id);
    msg_field_u64(&writer, SUMS_ATTEMPT, msg->attempt);
    msg_field_u64(&writer, SUMS_LAYERS, msg->layers);
    put_u64s(&writer, SUMS_SUMS, msg->sums);
    return writer.status;
}

enum status proto_stage_sums_decode(const void *data, size_t len, struct proto_stage_sums *out)
{
    struct msg_reader reader;
    uint64_t key, seen = 0;

    memset(out, 0, sizeof(*out));
    msg_reader_init(&reader, data, len);
    uint32_t left = msg_get_map(&reader);
    while (next_field(&reader, &left, &key, &seen)) {
        switch (key) {
        case SUMS_REQUEST: out->request_id = msg_get_u64(&reader); break;
        case SUMS_ATTEMPT: out->attempt = msg_get_u32(&reader); break;
        case SUMS_LAYERS: out->layers = msg_get_u32(&reader); break;
        case SUMS_SUMS: out->sums = get_u64s(&reader, PROTO_CHECKSUMS_MAX); break;
        default: msg_skip(&reader); break;
        }
    }
    return finish(&reader, seen, fields_through(SUMS_SUMS));
}
