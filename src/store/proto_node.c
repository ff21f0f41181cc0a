/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_node.c - what a master tells a node about its values: drop, mark, copy. */
#include "base/buf.h"
#include "store/proto.h"
#include "store/proto_int.h"

enum { DROP_TERM = 1, DROP_ID = 2, DROP_GENERATION = 3, DROP_EVICT = 4 };

enum status store_encode_drop(struct buf *buf, const struct store_drop *drop)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, drop->evict ? 4 : 3);
    msg_field_u64(&writer, DROP_TERM, drop->term);
    msg_field_bin(&writer, DROP_ID, drop->id.bytes, sizeof(drop->id.bytes));
    msg_field_u64(&writer, DROP_GENERATION, drop->generation);
    if (drop->evict) msg_field_u64(&writer, DROP_EVICT, 1);
    return writer.status;
}

enum status store_decode_drop(const uint8_t *body, size_t len, struct store_drop *out)
{
    struct msg_reader reader;
    uint64_t key;
    bool has_id = false;
    struct store_drop got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case DROP_TERM: got.term = msg_get_u64(&reader); break;
        case DROP_ID:
            msg_get_bin_exact(&reader, got.id.bytes, sizeof(got.id.bytes));
            has_id = true;
            break;
        case DROP_GENERATION: got.generation = msg_get_u64(&reader); break;
        case DROP_EVICT: got.evict = msg_get_u64(&reader) != 0; break;
        default: msg_skip(&reader); break;
        }
    }
    if (!has_id || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

enum {
    COPY_TERM = 1,
    COPY_ID = 2,
    COPY_GENERATION = 3,
    COPY_PUT_ID = 4,
    COPY_RPC = 5,
    COPY_SEGMENT = 6,
    COPY_ADDRESS = 7,
    COPY_EPOCH = 8,
    COPY_PUT_MS = 9,
    COPY_HOT = 10,
    COPY_UNTIL = 11,
};

enum { MARK_TERM = 1, MARK_ID = 2, MARK_GENERATION = 3, MARK_REPLICAS = 4 };

enum status store_encode_mark(struct buf *buf, const struct store_mark *mark)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 4);
    msg_field_u64(&writer, MARK_TERM, mark->term);
    msg_field_bin(&writer, MARK_ID, mark->id.bytes, sizeof(mark->id.bytes));
    msg_field_u64(&writer, MARK_GENERATION, mark->generation);
    msg_field_u64(&writer, MARK_REPLICAS, mark->replicas);
    return writer.status;
}

enum status store_decode_mark(const uint8_t *body, size_t len, struct store_mark *out)
{
    struct msg_reader reader;
    uint64_t key;
    bool has_id = false;
    struct store_mark got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case MARK_TERM: got.term = msg_get_u64(&reader); break;
        case MARK_ID:
            msg_get_bin_exact(&reader, got.id.bytes, sizeof(got.id.bytes));
            has_id = true;
            break;
        case MARK_GENERATION: got.generation = msg_get_u64(&reader); break;
        case MARK_REPLICAS:
            got.replicas = (uint32_t)msg_get_u64_max(&reader, STORE_REPLICAS_MAX);
            break;
        default: msg_skip(&reader); break;
        }
    }
    if (!has_id || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

enum status store_encode_copy(struct buf *buf, const struct store_copy *copy)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, copy->hot ? 11 : 10);
    msg_field_u64(&writer, COPY_TERM, copy->term);
    msg_field_bin(&writer, COPY_ID, copy->id.bytes, sizeof(copy->id.bytes));
    msg_field_u64(&writer, COPY_GENERATION, copy->generation);
    msg_field_u64(&writer, COPY_PUT_ID, copy->put_id);
    msg_field_text(&writer, COPY_RPC, copy->rpc_address);
    msg_field_text(&writer, COPY_SEGMENT, copy->segment);
    msg_field_u64(&writer, COPY_ADDRESS, copy->address);
    msg_field_u64(&writer, COPY_EPOCH, copy->epoch);
    msg_field_u64(&writer, COPY_PUT_MS, copy->put_ms);
    msg_field_u64(&writer, COPY_UNTIL, copy->until_ns);
    if (copy->hot) msg_field_bool(&writer, COPY_HOT, true);
    return writer.status;
}

enum status store_decode_copy(const uint8_t *body, size_t len, struct store_copy *out)
{
    struct msg_reader reader;
    uint64_t key;
    bool has_id = false;
    struct store_copy got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case COPY_TERM: got.term = msg_get_u64(&reader); break;
        case COPY_ID:
            msg_get_bin_exact(&reader, got.id.bytes, sizeof(got.id.bytes));
            has_id = true;
            break;
        case COPY_GENERATION: got.generation = msg_get_u64(&reader); break;
        case COPY_PUT_ID: got.put_id = msg_get_u64(&reader); break;
        case COPY_RPC: msg_get_text_copy(&reader, got.rpc_address, sizeof(got.rpc_address)); break;
        case COPY_SEGMENT: msg_get_text_copy(&reader, got.segment, sizeof(got.segment)); break;
        case COPY_ADDRESS: got.address = msg_get_u64(&reader); break;
        case COPY_EPOCH: got.epoch = msg_get_u64(&reader); break;
        case COPY_PUT_MS: got.put_ms = msg_get_u32(&reader); break;
        case COPY_UNTIL: got.until_ns = msg_get_u64(&reader); break;
        case COPY_HOT: got.hot = msg_get_bool(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.put_id == 0 || got.epoch == 0 || got.rpc_address[0] == 0) msg_fail(&reader);
    if (!has_id || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}
