/* SPDX-License-Identifier: Apache-2.0
 *
 * net/rpc_frame.c - frames to and from bytes.
 *
 *     version 1, and the handshake of all    0 length u32 of the payload | 4 payload
 *     version 2    0 length u32 | 4 XXH3-64 of the payload u64
 *                 12 low half of the XXH3-64 of bytes 0..12 u32 | 16 payload
 *
 * Little-endian. The length has a checksum of its own: a wrong one must be found out before the
 * bytes that it promises have come, as they never may. The payload is one msgpack map with these
 * keys:
 *
 *     1 kind   2 version_min   3 version_max   4 name   5 nonce   6 proof
 *     7 call   8 method   9 timeout_ms   10 status   11 message   12 body   13 check
 *
 * A field that is zero or empty is left out. The body comes last, as bin; what is in it is between
 * method and caller. Keys from a later version are skipped.
 *
 * A frame of the handshake ends with the check, the XXH3-64 of the payload before that field's key:
 * version 1, which has no other, skips what it does not know. Who speaks version 2 expects it
 * (rpc_conn.c). */
#include "net/rpc_int.h"

#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/hash.h"
#include "base/le.h"

enum field {
    FIELD_KIND = 1,
    FIELD_VERSION_MIN = 2,
    FIELD_VERSION_MAX = 3,
    FIELD_NAME = 4,
    FIELD_NONCE = 5,
    FIELD_PROOF = 6,
    FIELD_CALL = 7,
    FIELD_METHOD = 8,
    FIELD_TIMEOUT_MS = 9,
    FIELD_STATUS = 10,
    FIELD_MESSAGE = 11,
    FIELD_BODY = 12,
    FIELD_CHECK = 13,
};

enum { HEAD_SUMMED = 12 }; /* bytes of a head that its own checksum covers */

_Static_assert(HEAD_SUMMED + 4 == RPC_HEAD_SIZE, "the checksum of the head ends it");

size_t rpc_head_size(uint32_t version)
{
    return version == 1 ? RPC_LENGTH_SIZE : RPC_HEAD_SIZE;
}

/* ---- writing ---- */

static void write_number(struct msg_writer *writer, uint32_t *count, enum field field,
                         uint64_t value)
{
    if (value == 0) return;
    msg_field_u64(writer, field, value);
    (*count)++;
}

static void write_bytes(struct msg_writer *writer, uint32_t *count, enum field field,
                        struct msg_bytes bytes)
{
    if (bytes.len == 0) return;
    msg_field_bin(writer, field, bytes.data, bytes.len);
    (*count)++;
}

static void write_text(struct msg_writer *writer, uint32_t *count, enum field field,
                       struct msg_bytes text)
{
    if (text.len == 0) return;
    msg_put_u64(writer, field);
    msg_put_text_len(writer, (const char *)text.data, text.len);
    (*count)++;
}

/* Fewer than 16 fields, so that the map's head is one byte and can be set when they are counted. */
static uint32_t write_fields(struct msg_writer *writer, const struct rpc_frame *frame)
{
    uint32_t count = 0;

    write_number(writer, &count, FIELD_KIND, frame->kind);
    write_number(writer, &count, FIELD_VERSION_MIN, frame->version_min);
    write_number(writer, &count, FIELD_VERSION_MAX, frame->version_max);
    write_text(writer, &count, FIELD_NAME, frame->name);
    write_bytes(writer, &count, FIELD_NONCE, frame->nonce);
    write_bytes(writer, &count, FIELD_PROOF, frame->proof);
    write_number(writer, &count, FIELD_CALL, frame->call);
    write_number(writer, &count, FIELD_METHOD, frame->method);
    write_number(writer, &count, FIELD_TIMEOUT_MS, frame->timeout_ms);
    if (frame->status != STATUS_OK) {
        msg_field_i64(writer, FIELD_STATUS, frame->status);
        count++;
    }
    write_text(writer, &count, FIELD_MESSAGE, frame->message);
    write_bytes(writer, &count, FIELD_BODY, frame->body);
    ASSERT(count > 0 && count < 16);
    return count;
}

static bool is_handshake(enum rpc_kind kind)
{
    return kind <= RPC_KIND_REFUSE;
}

/* Behind everything else, whose first byte says by now that there is one field more. */
static void write_check(struct msg_writer *writer, size_t payload_start)
{
    const struct buf *out = writer->buf;
    const uint64_t sum = hash_xxh3(buf_data(out) + payload_start, out->len - payload_start);
    msg_field_u64(writer, FIELD_CHECK, sum);
}

static void write_head(uint8_t *at, size_t payload_len, uint32_t version)
{
    ASSERT(payload_len <= RPC_FRAME_SIZE_MAX);
    le_put32(at, (uint32_t)payload_len);
    if (version == 1) return;
    le_put64(at + RPC_LENGTH_SIZE, hash_xxh3(at + RPC_HEAD_SIZE, payload_len));
    le_put32(at + HEAD_SUMMED, (uint32_t)hash_xxh3(at, HEAD_SUMMED));
}

enum status rpc_frame_write(struct buf *out, const struct rpc_frame *frame, uint32_t version)
{
    static const uint8_t head[RPC_HEAD_SIZE] = { 0 };
    const bool checked = is_handshake(frame->kind);
    const size_t head_size = rpc_head_size(version);
    const size_t start = out->len;
    struct msg_writer writer;

    ASSERT(frame->body.len <= RPC_BODY_SIZE_MAX);
    ASSERT(version == 1 || !checked);
    if (buf_append(out, head, head_size) != STATUS_OK) return STATUS_FULL;
    msg_writer_init(&writer, out);
    msg_put_map(&writer, 1);
    const uint32_t count = write_fields(&writer, frame) + checked;
    if (writer.status == STATUS_OK) {
        buf_data(out)[start + head_size] = (uint8_t)(0x80 | count);
        if (checked) write_check(&writer, start + head_size);
    }
    if (writer.status != STATUS_OK) {
        buf_truncate(out, start);
        return STATUS_FULL;
    }
    write_head(buf_data(out) + start, out->len - start - head_size, version);
    return STATUS_OK;
}

/* ---- reading ---- */

enum status rpc_head_read(const uint8_t *data, uint32_t version, struct rpc_head *out)
{
    if (version > 1 && le_get32(data + HEAD_SUMMED) != (uint32_t)hash_xxh3(data, HEAD_SUMMED))
        return STATUS_CORRUPT;
    out->len = le_get32(data);
    out->sum = version > 1 ? le_get64(data + RPC_LENGTH_SIZE) : 0;
    return STATUS_OK;
}

/* A status of a later version is a refusal that we have no word for. */
static enum status known_status(int64_t number)
{
    if (number > 0 || number < -1000) return STATUS_UNAVAILABLE;
    const enum status status = (enum status)number;
    return strcmp(status_name(status), "unknown") == 0 ? STATUS_UNAVAILABLE : status;
}

static void read_field(struct msg_reader *reader, uint64_t field, struct rpc_frame *frame)
{
    switch (field) {
    case FIELD_KIND: frame->kind = (enum rpc_kind)msg_get_u64_max(reader, RPC_KIND_MAX); break;
    case FIELD_VERSION_MIN: frame->version_min = msg_get_u32(reader); break;
    case FIELD_VERSION_MAX: frame->version_max = msg_get_u32(reader); break;
    case FIELD_NAME: frame->name = msg_get_text(reader, RPC_NAME_SIZE - 1); break;
    case FIELD_NONCE: frame->nonce = msg_get_bin(reader, RPC_NONCE_SIZE); break;
    case FIELD_PROOF: frame->proof = msg_get_bin(reader, RPC_PROOF_SIZE); break;
    case FIELD_CALL: frame->call = msg_get_u64(reader); break;
    case FIELD_METHOD: frame->method = (uint16_t)msg_get_u64_max(reader, UINT16_MAX); break;
    case FIELD_TIMEOUT_MS: frame->timeout_ms = msg_get_u64(reader); break;
    case FIELD_STATUS: frame->status = known_status(msg_get_i64(reader)); break;
    case FIELD_MESSAGE: frame->message = msg_get_text(reader, RPC_MESSAGE_SIZE - 1); break;
    case FIELD_BODY: frame->body = msg_get_bin(reader, RPC_BODY_SIZE_MAX); break;
    default: msg_skip(reader); break;
    }
}

/* Whether the frame has what its kind needs. */
static bool is_complete(const struct rpc_frame *frame)
{
    const bool has_versions = frame->version_min > 0 && frame->version_min <= frame->version_max;

    switch (frame->kind) {
    case RPC_KIND_HELLO:
    case RPC_KIND_CHALLENGE: return has_versions && frame->nonce.len == RPC_NONCE_SIZE;
    case RPC_KIND_PROOF:
    case RPC_KIND_READY: return frame->proof.len == RPC_PROOF_SIZE;
    case RPC_KIND_REFUSE: return frame->status != STATUS_OK;
    case RPC_KIND_REQUEST:
    case RPC_KIND_CANCEL:
    case RPC_KIND_ITEM:
    case RPC_KIND_REPLY: return frame->call != 0;
    case RPC_KIND_FAIL: return frame->call != 0 && frame->status != STATUS_OK;
    case RPC_KIND_PING:
    case RPC_KIND_PONG: return true;
    }
    return false; /* 0: there was no kind */
}

/* The field at `field_at`. STATUS_CORRUPT: what is before it is not what was sent. */
static enum status read_check(struct msg_reader *reader, size_t field_at)
{
    const uint64_t sum = msg_get_u64(reader);

    if (msg_end(reader) != STATUS_OK) return STATUS_INVALID;
    return sum == hash_xxh3(reader->data, field_at) ? STATUS_OK : STATUS_CORRUPT;
}

static enum status read_payload(const uint8_t *payload, size_t len, struct rpc_frame *frame)
{
    struct msg_reader reader;
    uint64_t field;

    msg_reader_init(&reader, payload, len);
    uint32_t left = msg_get_map(&reader);
    for (size_t at = reader.off; msg_next_key(&reader, &left, &field); at = reader.off) {
        if (field == FIELD_CHECK) {
            const enum status status = read_check(&reader, at);
            if (status != STATUS_OK) return status;
            frame->checked = true;
        } else {
            read_field(&reader, field, frame);
        }
    }
    return msg_end(&reader);
}

enum status rpc_frame_read(const uint8_t *payload, const struct rpc_head *head, uint32_t version,
                           struct rpc_frame *out)
{
    static const uint8_t nothing[1];
    const struct msg_bytes empty = { nothing, 0 };
    struct rpc_frame frame = {
        .name = empty, .nonce = empty, .proof = empty, .message = empty, .body = empty
    };

    if (version > 1 && head->sum != hash_xxh3(payload, head->len)) return STATUS_CORRUPT;
    const enum status status = read_payload(payload, head->len, &frame);
    if (status != STATUS_OK) return status;
    if (!is_complete(&frame)) return STATUS_INVALID;
    *out = frame;
    return STATUS_OK;
}
