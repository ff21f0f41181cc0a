/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_acquire.c - acquire: blocks and values that a reader wants of their owner. */
#include "base/assert.h"
#include "base/buf.h"
#include "store/proto.h"
#include "store/proto_int.h"

enum {
    ACQUIRE_CLASS = 1,
    ACQUIRE_PREFIX = 2,
    ACQUIRE_LAYOUT = 3,
    ACQUIRE_IDS = 4,
    ACQUIRE_INLINE_MAX = 5,
    ACQUIRE_LOOK = 6,
};

enum status store_encode_acquire(struct buf *buf, const struct store_acquire *request)
{
    ASSERT(request->count > 0 && request->count <= STORE_FETCH_BLOCKS_MAX);
    const bool block = request->class == STORE_CLASS_BLOCK;
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 3 + (uint32_t)block + (request->inline_max > 0) + request->look);
    msg_field_u64(&writer, ACQUIRE_CLASS, request->class);
    msg_field_bool(&writer, ACQUIRE_PREFIX, request->prefix);
    if (block) store_put_layout(&writer, ACQUIRE_LAYOUT, &request->layout);
    msg_field_bin(&writer, ACQUIRE_IDS, request->ids, (size_t)request->count * BLOCK_KEY_SIZE);
    if (request->inline_max > 0) {
        msg_field_u64(&writer, ACQUIRE_INLINE_MAX, request->inline_max);
    }
    if (request->look) msg_field_bool(&writer, ACQUIRE_LOOK, true);
    return writer.status;
}

enum status store_decode_acquire(const uint8_t *body, size_t len, struct store_acquire *out)
{
    struct msg_reader reader;
    uint64_t key;
    struct msg_bytes ids = { 0 };
    struct store_acquire got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case ACQUIRE_CLASS:
            got.class = (enum store_class)msg_get_u64_max(&reader, STORE_CLASS_OBJECT);
            break;
        case ACQUIRE_PREFIX: got.prefix = msg_get_bool(&reader); break;
        case ACQUIRE_LAYOUT: store_get_layout(&reader, &got.layout); break;
        case ACQUIRE_IDS:
            ids = msg_get_bin(&reader, (size_t)STORE_FETCH_BLOCKS_MAX * BLOCK_KEY_SIZE);
            break;
        case ACQUIRE_INLINE_MAX: got.inline_max = msg_get_u32(&reader); break;
        case ACQUIRE_LOOK: got.look = msg_get_bool(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (ids.len == 0 || ids.len % BLOCK_KEY_SIZE != 0) msg_fail(&reader);
    if (got.class == STORE_CLASS_BLOCK && !store_layout_valid(&got.layout)) msg_fail(&reader);
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    got.ids = ids.data;
    got.count = (uint32_t)(ids.len / BLOCK_KEY_SIZE);
    *out = got;
    return STATUS_OK;
}

enum {
    ACQUIRED_PIN = 1,
    ACQUIRED_EPOCH = 2,
    ACQUIRED_TRANSFER_GENERATION = 3,
    ACQUIRED_LEASE_MS = 4,
    ACQUIRED_SEGMENT = 5,
    ACQUIRED_ADDRESSES = 6,
    ACQUIRED_GENERATIONS = 7,
    ACQUIRED_SIZES = 8,
    ACQUIRED_SUMS = 9,
    ACQUIRED_PIECE_SIZE = 10,
    ACQUIRED_INLINES = 11,
    ACQUIRED_BYTES = 12,
    ACQUIRED_VOUCHED = 13,
    ACQUIRED_BOARD = 14,
};

static void put_inlines(struct msg_writer *writer, const struct store_acquired_out *reply)
{
    msg_field_u32s(writer, ACQUIRED_INLINES, reply->inlines, reply->count);
    msg_put_u64(writer, ACQUIRED_BYTES);
    msg_put_bin_head(writer, reply->inline_len);
    for (uint32_t i = 0; i < reply->count; i++) {
        msg_put_bin_part(writer, (const void *)(uintptr_t)reply->addresses[i], reply->inlines[i]);
    }
}

enum status store_encode_acquired(struct buf *buf, const struct store_acquired_out *reply)
{
    ASSERT(reply->count <= STORE_FETCH_BLOCKS_MAX);
    ASSERT(reply->sums_count <= STORE_SUMS_MAX && reply->inline_len <= STORE_INLINE_MAX);
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    const bool board = reply->head.board[0] != '\0';
    msg_put_map(&writer, (reply->inline_len > 0 ? 12 : 10) + (uint32_t)reply->head.vouched +
                             (uint32_t)board);
    msg_field_u64(&writer, ACQUIRED_PIN, reply->head.pin);
    msg_field_u64(&writer, ACQUIRED_EPOCH, reply->head.epoch);
    msg_field_u64(&writer, ACQUIRED_TRANSFER_GENERATION, reply->head.transfer_generation);
    msg_field_u64(&writer, ACQUIRED_LEASE_MS, reply->head.lease_ms);
    msg_field_text(&writer, ACQUIRED_SEGMENT, reply->head.segment);
    msg_field_u64s(&writer, ACQUIRED_ADDRESSES, reply->addresses, reply->count);
    msg_field_u64s(&writer, ACQUIRED_GENERATIONS, reply->generations, reply->count);
    msg_field_u64s(&writer, ACQUIRED_SIZES, reply->sizes, reply->count);
    msg_field_u64s(&writer, ACQUIRED_SUMS, reply->sums, reply->sums_count);
    msg_field_u64(&writer, ACQUIRED_PIECE_SIZE, reply->head.piece_size);
    if (reply->inline_len > 0) put_inlines(&writer, reply);
    if (reply->head.vouched) msg_field_bool(&writer, ACQUIRED_VOUCHED, true);
    if (board) msg_field_text(&writer, ACQUIRED_BOARD, reply->head.board);
    return writer.status;
}

/* Each is a whole value or nothing, and together they are the bytes. */
static bool inlines_fit(const struct store_acquired *acquired)
{
    size_t left = acquired->bytes.len;

    if (acquired->inlines.count == 0) return left == 0;
    if (acquired->inlines.count != acquired->sizes.count) return false;
    for (size_t i = 0; i < acquired->inlines.count; i++) {
        const uint32_t len = msg_u32_at(acquired->inlines, i);
        if (len > left || (len > 0 && len != msg_u64_at(acquired->sizes, i))) return false;
        left -= len;
    }
    return left == 0;
}

enum status store_decode_acquired(const uint8_t *body, size_t len, struct store_acquired *out)
{
    struct msg_reader reader;
    uint64_t key;
    struct store_acquired got = { 0 };
    const size_t items = STORE_FETCH_BLOCKS_MAX;

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case ACQUIRED_PIN: got.pin = msg_get_u64(&reader); break;
        case ACQUIRED_EPOCH: got.epoch = msg_get_u64(&reader); break;
        case ACQUIRED_TRANSFER_GENERATION: got.transfer_generation = msg_get_u64(&reader); break;
        case ACQUIRED_LEASE_MS: got.lease_ms = msg_get_u32(&reader); break;
        case ACQUIRED_SEGMENT: msg_get_text_copy(&reader, got.segment, sizeof(got.segment)); break;
        case ACQUIRED_ADDRESSES: got.addresses = msg_get_u64s(&reader, items); break;
        case ACQUIRED_GENERATIONS: got.generations = msg_get_u64s(&reader, items); break;
        case ACQUIRED_SIZES: got.sizes = msg_get_u64s(&reader, items); break;
        case ACQUIRED_SUMS: got.sums = msg_get_u64s(&reader, STORE_SUMS_MAX); break;
        case ACQUIRED_PIECE_SIZE: got.piece_size = msg_get_u32(&reader); break;
        case ACQUIRED_INLINES: got.inlines = msg_get_u32s(&reader, items); break;
        case ACQUIRED_BYTES: got.bytes = msg_get_bin(&reader, STORE_INLINE_MAX); break;
        case ACQUIRED_VOUCHED: got.vouched = msg_get_bool(&reader); break;
        case ACQUIRED_BOARD: msg_get_text_copy(&reader, got.board, sizeof(got.board)); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.generations.count != got.addresses.count) msg_fail(&reader);
    if (got.sizes.count != got.addresses.count || !inlines_fit(&got)) msg_fail(&reader);
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}
