/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto.c - field numbers, and the checks that every message of the pool passes on arrival.
 *
 * One enum of field numbers per message; numbers are never used again for something else. Decoders
 * read straight through (net/msg.h keeps the first error) and then check what a single field cannot
 * tell: that columns are of equal length, that keys add up. */
#include "store/proto.h"

#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/hash.h"
#include "store/proto_int.h"

struct block_key store_key_id(struct store_key key)
{
    struct block_key id;
    uint8_t digest[HASH_SHA256_SIZE];

    if (key.len == sizeof(id.bytes)) {
        memcpy(id.bytes, key.bytes, sizeof(id.bytes));
        return id;
    }
    hash_sha256(key.bytes, key.len, digest);
    memcpy(id.bytes, digest, sizeof(id.bytes));
    return id;
}

uint64_t store_pieces(uint64_t size, uint32_t piece_size)
{
    return (size + piece_size - 1) / piece_size;
}

uint32_t store_status_code(enum status status)
{
    return (uint32_t) - (int)status;
}

enum status store_status_of(uint32_t code)
{
    if (code == 0) return STATUS_OK; /* as most are */
    if (code > 1000) return STATUS_PROTOCOL;
    const enum status status = (enum status) - (int)code;
    return strcmp(status_name(status), "unknown") == 0 ? STATUS_PROTOCOL : status;
}

/* ---- layout ---- */

enum {
    LAYOUT_PAGES = 1,
    LAYOUT_PAGE_SIZE = 2,
    LAYOUT_LAYERS = 3,
    LAYOUT_LAYER_SIZE = 4,
    LAYOUT_BLOCK_TOKENS = 5,
    LAYOUT_ID = 6,
};

static void put_layout(struct msg_writer *writer, uint32_t field, const struct store_layout *layout)
{
    msg_field_map(writer, field, 6);
    msg_field_u64(writer, LAYOUT_PAGES, layout->pages);
    msg_field_u64(writer, LAYOUT_PAGE_SIZE, layout->page_size);
    msg_field_u64(writer, LAYOUT_LAYERS, layout->layers);
    msg_field_u64(writer, LAYOUT_LAYER_SIZE, layout->layer_size);
    msg_field_u64(writer, LAYOUT_BLOCK_TOKENS, layout->block_tokens);
    msg_field_bin(writer, LAYOUT_ID, layout->id, sizeof(layout->id));
}

static void get_layout(struct msg_reader *reader, struct store_layout *out)
{
    uint64_t key;
    uint32_t left = msg_get_map(reader);

    while (msg_next_key(reader, &left, &key)) {
        switch (key) {
        case LAYOUT_PAGES: out->pages = msg_get_u32(reader); break;
        case LAYOUT_PAGE_SIZE: out->page_size = msg_get_u32(reader); break;
        case LAYOUT_LAYERS: out->layers = msg_get_u32(reader); break;
        case LAYOUT_LAYER_SIZE: out->layer_size = msg_get_u32(reader); break;
        case LAYOUT_BLOCK_TOKENS: out->block_tokens = msg_get_u32(reader); break;
        case LAYOUT_ID: msg_get_bin_exact(reader, out->id, sizeof(out->id)); break;
        default: msg_skip(reader); break;
        }
    }
    if (!store_layout_valid(out)) msg_fail(reader);
}

/* ---- members ---- */

enum {
    INFO_NAME = 1,
    INFO_ROLE = 2,
    INFO_RPC = 3,
    INFO_SEGMENT = 4,
    INFO_FINGERPRINT = 5,
    INFO_LAYOUT = 6,
    INFO_EPOCH = 7,
    INFO_DRAINING = 8,
};

void store_put_info(struct msg_writer *writer, uint32_t field, const struct store_member_info *info)
{
    msg_field_map(writer, field, info->draining ? 8 : 7);
    msg_field_text(writer, INFO_NAME, info->name);
    msg_field_u64(writer, INFO_ROLE, info->role);
    msg_field_text(writer, INFO_RPC, info->rpc_address);
    msg_field_text(writer, INFO_SEGMENT, info->segment);
    msg_field_bin(writer, INFO_FINGERPRINT, info->fingerprint, sizeof(info->fingerprint));
    put_layout(writer, INFO_LAYOUT, &info->layout);
    msg_field_u64(writer, INFO_EPOCH, info->epoch);
    if (info->draining) msg_field_bool(writer, INFO_DRAINING, true);
}

void store_get_info(struct msg_reader *reader, struct store_member_info *out)
{
    uint64_t key;
    uint64_t role = 0;
    uint32_t left = msg_get_map(reader);

    while (msg_next_key(reader, &left, &key)) {
        switch (key) {
        case INFO_NAME: msg_get_text_copy(reader, out->name, sizeof(out->name)); break;
        case INFO_ROLE: role = msg_get_u64(reader); break;
        case INFO_RPC: msg_get_text_copy(reader, out->rpc_address, sizeof(out->rpc_address)); break;
        case INFO_SEGMENT: msg_get_text_copy(reader, out->segment, sizeof(out->segment)); break;
        case INFO_FINGERPRINT:
            msg_get_bin_exact(reader, out->fingerprint, sizeof(out->fingerprint));
            break;
        case INFO_LAYOUT: get_layout(reader, &out->layout); break;
        case INFO_EPOCH: out->epoch = msg_get_u64(reader); break;
        case INFO_DRAINING: out->draining = msg_get_bool(reader); break;
        default: msg_skip(reader); break;
        }
    }
    out->role = (enum store_role)role;
    if (role < STORE_ROLE_PREFILL || role > STORE_ROLE_BOTH) msg_fail(reader);
    if (out->name[0] == 0 || out->rpc_address[0] == 0 || out->epoch == 0) msg_fail(reader);
    if (!store_layout_valid(&out->layout)) msg_fail(reader); /* also when it was not there */
}

enum { REGISTER_INFO = 1, REGISTER_TERM_SEEN = 2, REGISTER_NOTES = 3 };

enum status store_encode_register(struct buf *buf, const struct store_register *reg)
{
    const bool notes = reg->notes.len > 0;
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, notes ? 3 : 2);
    store_put_info(&writer, REGISTER_INFO, &reg->info);
    msg_field_u64(&writer, REGISTER_TERM_SEEN, reg->term_seen);
    if (notes) msg_field_bin(&writer, REGISTER_NOTES, reg->notes.data, reg->notes.len);
    return writer.status;
}

enum status store_decode_register(const uint8_t *body, size_t len, struct store_register *out)
{
    struct msg_reader reader;
    uint64_t key;
    struct store_register got = { .term_seen = 0 };
    bool has_info = false;

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case REGISTER_INFO:
            store_get_info(&reader, &got.info);
            has_info = true;
            break;
        case REGISTER_TERM_SEEN: got.term_seen = msg_get_u64(&reader); break;
        case REGISTER_NOTES: got.notes = msg_get_bin(&reader, STORE_NOTES_SIZE_MAX); break;
        default: msg_skip(&reader); break;
        }
    }
    if (!has_info || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

/* Messages that are one number: the term of a reply, a pin. */
enum { NUMBER_VALUE = 1 };

static enum status encode_number(struct buf *buf, uint64_t value)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 1);
    msg_field_u64(&writer, NUMBER_VALUE, value);
    return writer.status;
}

static enum status decode_number(const uint8_t *body, size_t len, uint64_t *value)
{
    struct msg_reader reader;
    uint64_t key;
    uint64_t got = 0;

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case NUMBER_VALUE: got = msg_get_u64(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got == 0 || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *value = got;
    return STATUS_OK;
}

enum status store_encode_term(struct buf *buf, uint64_t term)
{
    return encode_number(buf, term);
}

enum status store_decode_term(const uint8_t *body, size_t len, uint64_t *term)
{
    return decode_number(body, len, term);
}

enum status store_encode_pin(struct buf *buf, uint64_t pin)
{
    return encode_number(buf, pin);
}

enum status store_decode_pin(const uint8_t *body, size_t len, uint64_t *pin)
{
    return decode_number(body, len, pin);
}

enum { BEATEN_TERM = NUMBER_VALUE, BEATEN_DRAINING = 2, BEATEN_NOTES = 3, BEATEN_VERSION = 4 };

enum status store_encode_beaten(struct buf *buf, const struct store_beaten *beaten)
{
    const bool notes = beaten->notes_version > 0;
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, notes ? 4 : 2);
    msg_field_u64(&writer, BEATEN_TERM, beaten->term);
    msg_field_bool(&writer, BEATEN_DRAINING, beaten->draining);
    if (notes) msg_field_bin(&writer, BEATEN_NOTES, beaten->notes.data, beaten->notes.len);
    if (notes) msg_field_u64(&writer, BEATEN_VERSION, beaten->notes_version);
    return writer.status;
}

enum status store_decode_beaten(const uint8_t *body, size_t len, struct store_beaten *out)
{
    struct msg_reader reader;
    uint64_t key;
    struct store_beaten got = { .term = 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case BEATEN_TERM: got.term = msg_get_u64(&reader); break;
        case BEATEN_DRAINING: got.draining = msg_get_bool(&reader); break;
        case BEATEN_NOTES: got.notes = msg_get_bin(&reader, STORE_NOTES_SIZE_MAX); break;
        case BEATEN_VERSION: got.notes_version = msg_get_u64(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.term == 0 || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

/* The version + 1: 0 and absent are of a node that does not remember. */
enum { BEAT_NAME = 1, BEAT_EPOCH = 2, BEAT_NOTES = 3 };

enum status store_encode_beat(struct buf *buf, const struct store_beat *beat)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, beat->remembers ? 3 : 2);
    msg_field_text(&writer, BEAT_NAME, beat->name);
    msg_field_u64(&writer, BEAT_EPOCH, beat->epoch);
    if (beat->remembers) msg_field_u64(&writer, BEAT_NOTES, beat->notes_version + 1);
    return writer.status;
}

enum status store_decode_beat(const uint8_t *body, size_t len, struct store_beat *out)
{
    struct msg_reader reader;
    uint64_t key;
    uint64_t version = 0;
    struct store_beat got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case BEAT_NAME: msg_get_text_copy(&reader, got.name, sizeof(got.name)); break;
        case BEAT_EPOCH: got.epoch = msg_get_u64(&reader); break;
        case BEAT_NOTES: version = msg_get_u64(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.name[0] == 0 || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    got.remembers = version > 0;
    got.notes_version = version > 0 ? version - 1 : 0;
    *out = got;
    return STATUS_OK;
}

enum { WATCH_INFO = 1, WATCH_STATE = 2, WATCH_GONE = 3, WATCH_SYNCED = 4, WATCH_TERM = 5 };

enum status store_encode_watch(struct buf *buf, const struct store_watch_item *item)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, item->has_member ? 5 : 2);
    if (item->has_member) {
        store_put_info(&writer, WATCH_INFO, &item->info);
        msg_field_u64(&writer, WATCH_STATE, item->state);
        msg_field_bool(&writer, WATCH_GONE, item->gone);
    }
    msg_field_bool(&writer, WATCH_SYNCED, item->synced);
    msg_field_u64(&writer, WATCH_TERM, item->term);
    return writer.status;
}

enum status store_decode_watch(const uint8_t *body, size_t len, struct store_watch_item *out)
{
    struct msg_reader reader;
    uint64_t key;
    uint64_t state = STORE_MEMBER_ALIVE;
    struct store_watch_item got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case WATCH_INFO:
            store_get_info(&reader, &got.info);
            got.has_member = true;
            break;
        case WATCH_STATE: state = msg_get_u64(&reader); break;
        case WATCH_GONE: got.gone = msg_get_bool(&reader); break;
        case WATCH_SYNCED: got.synced = msg_get_bool(&reader); break;
        case WATCH_TERM: got.term = msg_get_u64(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (state < STORE_MEMBER_ALIVE || state > STORE_MEMBER_DEAD) msg_fail(&reader);
    got.state = (enum store_member_state)state;
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

/* ---- acquire ---- */

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
    if (block) put_layout(&writer, ACQUIRE_LAYOUT, &request->layout);
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
        case ACQUIRE_LAYOUT: get_layout(&reader, &got.layout); break;
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

/* ---- attributes ---- */

bool store_attributes_any(const struct store_attributes *a)
{
    return a->group != 0 || a->version != 0 || a->cost != 0 || a->depth != 0 || a->replicas != 0 ||
           a->hard_pin || a->hot || a->soft_pin_ms != 0;
}

void store_attributes_pack(const struct store_attributes *a, uint64_t out[STORE_ATTRIBUTE_NUMBERS])
{
    out[0] = a->group;
    out[1] = (uint64_t)a->cost << 32 | a->version;
    out[2] = (uint64_t)a->soft_pin_ms << 32 | (uint64_t)a->hot << 25 | (uint64_t)a->hard_pin << 24 |
             (uint64_t)a->replicas << 16 | a->depth;
}

struct store_attributes store_attributes_at(struct msg_column column, size_t first)
{
    if (first + STORE_ATTRIBUTE_NUMBERS > column.count) return (struct store_attributes){ 0 };
    const uint64_t second = msg_u64_at(column, first + 1);
    const uint64_t third = msg_u64_at(column, first + 2);
    return (struct store_attributes){ .group = msg_u64_at(column, first),
                                      .version = (uint32_t)second,
                                      .cost = (uint32_t)(second >> 32),
                                      .depth = (uint16_t)third,
                                      .replicas = (uint8_t)(third >> 16),
                                      .hard_pin = (third >> 24 & 1) != 0,
                                      .hot = (third >> 25 & 1) != 0,
                                      .soft_pin_ms = (uint32_t)(third >> 32) };
}

static void put_attributes(struct msg_writer *writer, uint32_t field,
                           const struct store_attributes *attributes)
{
    uint64_t numbers[STORE_ATTRIBUTE_NUMBERS];
    store_attributes_pack(attributes, numbers);
    msg_field_u64s(writer, field, numbers, STORE_ATTRIBUTE_NUMBERS);
}

static struct store_attributes get_attributes(struct msg_reader *reader)
{
    const struct msg_column column = msg_get_u64s(reader, STORE_ATTRIBUTE_NUMBERS);
    if (column.count != STORE_ATTRIBUTE_NUMBERS) msg_fail(reader);
    return store_attributes_at(column, 0);
}

/* ---- events ---- */

enum { EVENTS_TERM = 1, EVENTS_BLOCKS_ONLY = 2 };

enum status store_encode_events_request(struct buf *buf, const struct store_events_request *request)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 2);
    msg_field_u64(&writer, EVENTS_TERM, request->term);
    msg_field_bool(&writer, EVENTS_BLOCKS_ONLY, request->blocks_only);
    return writer.status;
}

enum status store_decode_events_request(const uint8_t *body, size_t len,
                                        struct store_events_request *out)
{
    struct msg_reader reader;
    uint64_t key;
    struct store_events_request got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case EVENTS_TERM: got.term = msg_get_u64(&reader); break;
        case EVENTS_BLOCKS_ONLY: got.blocks_only = msg_get_bool(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

enum {
    ITEM_EPOCH = 1,
    ITEM_FLAGS = 2,
    ITEM_KINDS = 3, /* one byte each: kind | class << 4 */
    ITEM_IDS = 4,
    ITEM_NUMBERS = 5, /* four each: generation, address, size, digest */
    ITEM_KEY_LENS = 6,
    ITEM_KEYS = 7,
    ITEM_TIERS = 8,      /* absent: all in memory */
    ITEM_ATTRIBUTES = 9, /* three each; absent: all zero */
    ITEM_TERMS = 10,     /* of the values, one each; absent: not known */
};

enum { EVENT_NUMBERS = 4 };
enum { EVENT_DOUBT_BIT = 25 }; /* of the third number of the attributes, which do not use it */

enum status store_encode_events(struct buf *buf, uint64_t epoch, unsigned flags,
                                const struct store_event *events, uint32_t count)
{
    uint8_t kinds[STORE_EVENTS_BATCH_MAX];
    uint8_t ids[STORE_EVENTS_BATCH_MAX * BLOCK_KEY_SIZE];
    uint64_t numbers[STORE_EVENTS_BATCH_MAX * EVENT_NUMBERS];
    uint32_t lens[STORE_EVENTS_BATCH_MAX];
    uint8_t tiers[STORE_EVENTS_BATCH_MAX];
    uint64_t attributes[STORE_EVENTS_BATCH_MAX * STORE_ATTRIBUTE_NUMBERS];
    uint64_t terms[STORE_EVENTS_BATCH_MAX];
    bool lower = false;
    bool any = false;
    bool dated = false;
    struct msg_writer writer;
    struct buf keys;
    enum status status = STATUS_OK;
    ASSERT(count <= STORE_EVENTS_BATCH_MAX);

    buf_init(&keys, (size_t)STORE_EVENTS_BATCH_MAX * STORE_KEY_SIZE_MAX);
    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        const struct store_event *event = &events[i];
        uint64_t *four = &numbers[i * EVENT_NUMBERS];
        ASSERT(event->key_len <= STORE_KEY_SIZE_MAX);
        kinds[i] = (uint8_t)((unsigned)event->kind | (unsigned)event->class << 4);
        memcpy(&ids[i * BLOCK_KEY_SIZE], event->id.bytes, BLOCK_KEY_SIZE);
        four[0] = event->generation;
        four[1] = event->address;
        four[2] = event->size;
        four[3] = event->digest;
        lens[i] = event->key_len;
        tiers[i] = (uint8_t)event->tier;
        lower |= event->tier != STORE_TIER_MEMORY;
        store_attributes_pack(&event->attributes, &attributes[i * STORE_ATTRIBUTE_NUMBERS]);
        attributes[i * STORE_ATTRIBUTE_NUMBERS + 2] |= (uint64_t)event->doubt << EVENT_DOUBT_BIT;
        any |= event->doubt || store_attributes_any(&event->attributes);
        terms[i] = event->attributes.term;
        dated |= terms[i] != 0;
        status = buf_append(&keys, event->key, event->key_len);
    }
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 7 + (lower ? 1 : 0) + (any ? 1 : 0) + (dated ? 1 : 0));
    msg_field_u64(&writer, ITEM_EPOCH, epoch);
    msg_field_u64(&writer, ITEM_FLAGS, flags);
    msg_field_bin(&writer, ITEM_KINDS, kinds, count);
    msg_field_bin(&writer, ITEM_IDS, ids, (size_t)count * BLOCK_KEY_SIZE);
    msg_field_u64s(&writer, ITEM_NUMBERS, numbers, (size_t)count * EVENT_NUMBERS);
    msg_field_u32s(&writer, ITEM_KEY_LENS, lens, count);
    msg_field_bin(&writer, ITEM_KEYS, buf_data(&keys), keys.len);
    if (lower) msg_field_bin(&writer, ITEM_TIERS, tiers, count);
    if (any) {
        msg_field_u64s(&writer, ITEM_ATTRIBUTES, attributes,
                       (size_t)count * STORE_ATTRIBUTE_NUMBERS);
    }
    if (dated) msg_field_u64s(&writer, ITEM_TERMS, terms, count);
    if (status == STATUS_OK) status = writer.status;
    buf_fini(&keys);
    return status;
}

struct events_columns {
    struct msg_bytes kinds;
    struct msg_bytes ids;
    struct msg_column numbers;
    struct msg_column lens;
    struct msg_bytes keys;
    struct msg_bytes tiers; /* empty: all in memory */
    struct msg_column attributes;
    struct msg_column terms;
};

/* Event i of the columns; false if it is none. *offset walks through the keys. */
static bool event_at(const struct events_columns *columns, uint32_t i, size_t *offset,
                     struct store_event *out)
{
    const unsigned kind = columns->kinds.data[i] & 15u;
    const unsigned class = (unsigned)columns->kinds.data[i] >> 4;
    const size_t first = (size_t)i * EVENT_NUMBERS;
    const uint32_t key_len = msg_u32_at(columns->lens, i);

    if (kind < STORE_EVENT_STORED || kind > STORE_EVENT_EXTENT) return false;
    const unsigned tier = columns->tiers.len > 0 ? columns->tiers.data[i] : STORE_TIER_MEMORY;
    if (class > STORE_CLASS_OBJECT || tier > STORE_TIER_DISK) return false;
    if (key_len > STORE_KEY_SIZE_MAX || key_len > columns->keys.len - *offset) return false;
    *out = (struct store_event){
        .kind = (enum store_event_kind)kind,
        .class = (enum store_class) class,
        .tier = (enum store_tier)tier,
        .key = key_len > 0 ? columns->keys.data + *offset : NULL,
        .key_len = key_len,
        .generation = msg_u64_at(columns->numbers, first),
        .address = msg_u64_at(columns->numbers, first + 1),
        .size = msg_u64_at(columns->numbers, first + 2),
        .digest = msg_u64_at(columns->numbers, first + 3),
        .attributes = store_attributes_at(columns->attributes, (size_t)i * STORE_ATTRIBUTE_NUMBERS),
    };
    if (columns->terms.count > 0) out->attributes.term = msg_u64_at(columns->terms, i);
    if (columns->attributes.count > 0) {
        const size_t third = (size_t)i * STORE_ATTRIBUTE_NUMBERS + 2;
        out->doubt = (msg_u64_at(columns->attributes, third) >> EVENT_DOUBT_BIT & 1) != 0;
    }
    memcpy(out->id.bytes, columns->ids.data + (size_t)i * BLOCK_KEY_SIZE, BLOCK_KEY_SIZE);
    *offset += key_len;
    const bool named = kind == STORE_EVENT_STORED && class == STORE_CLASS_OBJECT;
    if (named != (key_len > 0)) return false;
    if (!named) return true;
    const struct block_key id = store_key_id((struct store_key){ out->key, key_len });
    return block_key_equal(&id, &out->id);
}

enum status store_decode_events(const uint8_t *body, size_t len, uint64_t *epoch, unsigned *flags,
                                struct store_event *out, uint32_t *count)
{
    struct msg_reader reader;
    uint64_t key;
    uint64_t got_epoch = 0;
    unsigned got_flags = 0;
    struct events_columns columns = { 0 };
    size_t offset = 0;
    const size_t max = STORE_EVENTS_BATCH_MAX;

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case ITEM_EPOCH: got_epoch = msg_get_u64(&reader); break;
        case ITEM_FLAGS: got_flags = (unsigned)msg_get_u64_max(&reader, UINT32_MAX); break;
        case ITEM_KINDS: columns.kinds = msg_get_bin(&reader, max); break;
        case ITEM_IDS: columns.ids = msg_get_bin(&reader, max * BLOCK_KEY_SIZE); break;
        case ITEM_NUMBERS: columns.numbers = msg_get_u64s(&reader, max * EVENT_NUMBERS); break;
        case ITEM_KEY_LENS: columns.lens = msg_get_u32s(&reader, max); break;
        case ITEM_KEYS: columns.keys = msg_get_bin(&reader, max * STORE_KEY_SIZE_MAX); break;
        case ITEM_TIERS: columns.tiers = msg_get_bin(&reader, max); break;
        case ITEM_ATTRIBUTES:
            columns.attributes = msg_get_u64s(&reader, max * STORE_ATTRIBUTE_NUMBERS);
            break;
        case ITEM_TERMS: columns.terms = msg_get_u64s(&reader, max); break;
        default: msg_skip(&reader); break;
        }
    }
    const uint32_t n = (uint32_t)columns.kinds.len;
    if (columns.ids.len != (size_t)n * BLOCK_KEY_SIZE) msg_fail(&reader);
    if (columns.numbers.count != (size_t)n * EVENT_NUMBERS) msg_fail(&reader);
    if (columns.lens.count != n || got_epoch == 0) msg_fail(&reader);
    if (columns.tiers.len != n && columns.tiers.len != 0) msg_fail(&reader);
    const size_t attributes = columns.attributes.count;
    if (attributes != (size_t)n * STORE_ATTRIBUTE_NUMBERS && attributes != 0) msg_fail(&reader);
    if (columns.terms.count != n && columns.terms.count != 0) msg_fail(&reader);
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    for (uint32_t i = 0; i < n; i++) {
        if (!event_at(&columns, i, &offset, &out[i])) return STATUS_INVALID;
    }
    *epoch = got_epoch;
    *flags = got_flags;
    *count = n;
    return STATUS_OK;
}

/* ---- put ---- */

static struct store_key get_key(struct msg_reader *reader)
{
    const struct msg_bytes bytes = msg_get_bin(reader, STORE_KEY_SIZE_MAX);
    if (bytes.len == 0) msg_fail(reader);
    return (struct store_key){ bytes.data, (uint32_t)bytes.len };
}

enum {
    COMMIT_KEY = 1,
    COMMIT_PUT_ID = 2,
    COMMIT_TERM = 3,
    COMMIT_EPOCH = 4,
    COMMIT_ADDRESS = 5,
    COMMIT_SIZE = 6,
    COMMIT_SUMS = 7,
    COMMIT_ATTRIBUTES = 8,
    COMMIT_PARTS = 9,
    COMMIT_VALUE_TERM = 10, /* of a copy: that of the value; absent: COMMIT_TERM */
};

enum status store_encode_commit(struct buf *buf, const struct store_commit *commit)
{
    ASSERT(commit->size > 0 && commit->size <= STORE_OBJECT_SIZE_MAX);
    const bool parts = commit->parts_data != NULL;
    const bool attributes = store_attributes_any(&commit->attributes);
    const bool dated = commit->attributes.term != 0;
    struct msg_writer writer;
    ASSERT(!parts || (commit->parts_count > 0 && commit->parts_count <= STORE_PARTS_MAX));
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 7 + attributes + parts + dated);
    msg_field_bin(&writer, COMMIT_KEY, commit->key.bytes, commit->key.len);
    msg_field_u64(&writer, COMMIT_PUT_ID, commit->put_id);
    msg_field_u64(&writer, COMMIT_TERM, commit->term);
    msg_field_u64(&writer, COMMIT_EPOCH, commit->epoch);
    msg_field_u64(&writer, COMMIT_ADDRESS, commit->address);
    msg_field_u64(&writer, COMMIT_SIZE, commit->size);
    msg_field_u64s(&writer, COMMIT_SUMS, commit->sums_data,
                   parts ? commit->parts_count : store_pieces(commit->size, STORE_PIECE_SIZE));
    if (attributes) put_attributes(&writer, COMMIT_ATTRIBUTES, &commit->attributes);
    if (parts) msg_field_u32s(&writer, COMMIT_PARTS, commit->parts_data, commit->parts_count);
    if (dated) msg_field_u64(&writer, COMMIT_VALUE_TERM, commit->attributes.term);
    return writer.status;
}

/* As many sums as pieces, or as parts, which are the whole value. */
static bool commit_sums_valid(const struct store_commit *commit)
{
    uint64_t size = 0;

    if (commit->parts.count == 0) {
        return commit->sums.count == store_pieces(commit->size, STORE_PIECE_SIZE);
    }
    if (commit->sums.count != commit->parts.count) return false;
    for (size_t i = 0; i < commit->parts.count; i++) {
        const uint32_t len = msg_u32_at(commit->parts, i);
        if (len == 0) return false;
        size += len;
    }
    return size == commit->size;
}

enum status store_decode_commit(const uint8_t *body, size_t len, struct store_commit *out)
{
    struct msg_reader reader;
    uint64_t key;
    struct store_commit got = { 0 };
    uint64_t value_term = 0;

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case COMMIT_KEY: got.key = get_key(&reader); break;
        case COMMIT_PUT_ID: got.put_id = msg_get_u64(&reader); break;
        case COMMIT_TERM: got.term = msg_get_u64(&reader); break;
        case COMMIT_EPOCH: got.epoch = msg_get_u64(&reader); break;
        case COMMIT_ADDRESS: got.address = msg_get_u64(&reader); break;
        case COMMIT_SIZE: got.size = msg_get_u64_max(&reader, STORE_OBJECT_SIZE_MAX); break;
        case COMMIT_SUMS: got.sums = msg_get_u64s(&reader, STORE_PARTS_MAX); break;
        case COMMIT_ATTRIBUTES: got.attributes = get_attributes(&reader); break;
        case COMMIT_PARTS: got.parts = msg_get_u32s(&reader, STORE_PARTS_MAX); break;
        case COMMIT_VALUE_TERM: value_term = msg_get_u64(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.key.len == 0 || got.size == 0 || got.put_id == 0) msg_fail(&reader);
    if (!commit_sums_valid(&got)) msg_fail(&reader);
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    got.attributes.term = value_term;
    *out = got;
    return STATUS_OK;
}

enum {
    END_NAME = 1,
    END_EPOCH = 2,
    END_PUT_ID = 3,
    END_TERM = 4,
    END_KEY = 5,
    END_GENERATION = 6,
    END_ADDRESS = 7,
    END_SIZE = 8,
    END_DIGEST = 9,
    END_ATTRIBUTES = 10,
    END_VALUE_TERM = 11, /* absent: not known. A copy's is not END_TERM */
};

enum status store_encode_put_end(struct buf *buf, const struct store_put_end *end)
{
    const struct store_event *stored = &end->stored;
    ASSERT(stored->key_len > 0 && stored->key_len <= STORE_KEY_SIZE_MAX);
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    const bool any = store_attributes_any(&stored->attributes);
    const bool dated = stored->attributes.term != 0;
    msg_put_map(&writer, 9 + (any ? 1 : 0) + (dated ? 1 : 0));
    msg_field_text(&writer, END_NAME, end->name);
    msg_field_u64(&writer, END_EPOCH, end->epoch);
    msg_field_u64(&writer, END_PUT_ID, end->put_id);
    msg_field_u64(&writer, END_TERM, end->term);
    msg_field_bin(&writer, END_KEY, stored->key, stored->key_len);
    msg_field_u64(&writer, END_GENERATION, stored->generation);
    msg_field_u64(&writer, END_ADDRESS, stored->address);
    msg_field_u64(&writer, END_SIZE, stored->size);
    msg_field_u64(&writer, END_DIGEST, stored->digest);
    if (any) put_attributes(&writer, END_ATTRIBUTES, &stored->attributes);
    if (dated) msg_field_u64(&writer, END_VALUE_TERM, stored->attributes.term);
    return writer.status;
}

enum status store_decode_put_end(const uint8_t *body, size_t len, struct store_put_end *out)
{
    struct msg_reader reader;
    uint64_t key;
    struct store_key name = { 0 };
    uint64_t value_term = 0;
    struct store_put_end got = { .stored.kind = STORE_EVENT_STORED,
                                 .stored.class = STORE_CLASS_OBJECT };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case END_NAME: msg_get_text_copy(&reader, got.name, sizeof(got.name)); break;
        case END_EPOCH: got.epoch = msg_get_u64(&reader); break;
        case END_PUT_ID: got.put_id = msg_get_u64(&reader); break;
        case END_TERM: got.term = msg_get_u64(&reader); break;
        case END_KEY: name = get_key(&reader); break;
        case END_GENERATION: got.stored.generation = msg_get_u64(&reader); break;
        case END_ADDRESS: got.stored.address = msg_get_u64(&reader); break;
        case END_SIZE: got.stored.size = msg_get_u64_max(&reader, STORE_OBJECT_SIZE_MAX); break;
        case END_DIGEST: got.stored.digest = msg_get_u64(&reader); break;
        case END_ATTRIBUTES: got.stored.attributes = get_attributes(&reader); break;
        case END_VALUE_TERM: value_term = msg_get_u64(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (name.len == 0 || got.stored.size == 0) msg_fail(&reader);
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    got.stored.attributes.term = value_term;
    got.stored.key = name.bytes;
    got.stored.key_len = name.len;
    got.stored.id = store_key_id(name);
    *out = got;
    return STATUS_OK;
}

enum { REVOKE_KEY = 1, REVOKE_PUT_ID = 2, REVOKE_WRITER = 3 };

enum status store_encode_put_revoke(struct buf *buf, const struct store_put_revoke *revoke)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 3);
    msg_field_bin(&writer, REVOKE_KEY, revoke->key.bytes, revoke->key.len);
    msg_field_u64(&writer, REVOKE_PUT_ID, revoke->put_id);
    msg_field_u64(&writer, REVOKE_WRITER, revoke->writer);
    return writer.status;
}

enum status store_decode_put_revoke(const uint8_t *body, size_t len, struct store_put_revoke *out)
{
    struct msg_reader reader;
    uint64_t key;
    struct store_put_revoke got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case REVOKE_KEY: got.key = get_key(&reader); break;
        case REVOKE_PUT_ID: got.put_id = msg_get_u64(&reader); break;
        case REVOKE_WRITER: got.writer = msg_get_u64(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.key.len == 0 || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

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

/* ---- copies and drains ---- */

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
    msg_put_map(&writer, copy->hot ? 10 : 9);
    msg_field_u64(&writer, COPY_TERM, copy->term);
    msg_field_bin(&writer, COPY_ID, copy->id.bytes, sizeof(copy->id.bytes));
    msg_field_u64(&writer, COPY_GENERATION, copy->generation);
    msg_field_u64(&writer, COPY_PUT_ID, copy->put_id);
    msg_field_text(&writer, COPY_RPC, copy->rpc_address);
    msg_field_text(&writer, COPY_SEGMENT, copy->segment);
    msg_field_u64(&writer, COPY_ADDRESS, copy->address);
    msg_field_u64(&writer, COPY_EPOCH, copy->epoch);
    msg_field_u64(&writer, COPY_PUT_MS, copy->put_ms);
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
        case COPY_HOT: got.hot = msg_get_bool(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.put_id == 0 || got.epoch == 0 || got.rpc_address[0] == 0) msg_fail(&reader);
    if (!has_id || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

enum { DRAIN_NAME = 1, DRAIN_UNDO = 2, DRAIN_UNMOUNT = 3, DRAIN_KEEPS_MAX = 4 };

enum status store_encode_drain(struct buf *buf, const struct store_drain *drain)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, drain->unmount ? 4 : 2);
    msg_field_text(&writer, DRAIN_NAME, drain->name);
    msg_field_bool(&writer, DRAIN_UNDO, drain->undo);
    if (drain->unmount) {
        msg_field_bool(&writer, DRAIN_UNMOUNT, true);
        msg_field_u64(&writer, DRAIN_KEEPS_MAX, drain->keeps_max);
    }
    return writer.status;
}

enum status store_decode_drain(const uint8_t *body, size_t len, struct store_drain *out)
{
    struct msg_reader reader;
    uint64_t key;
    struct store_drain got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case DRAIN_NAME: msg_get_text_copy(&reader, got.name, sizeof(got.name)); break;
        case DRAIN_UNDO: got.undo = msg_get_bool(&reader); break;
        case DRAIN_UNMOUNT: got.unmount = msg_get_bool(&reader); break;
        case DRAIN_KEEPS_MAX: got.keeps_max = msg_get_u64(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.name[0] == 0 || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

/* One more than what is left, because no number of ours is 0. */
enum status store_encode_left(struct buf *buf, uint64_t left)
{
    return encode_number(buf, left + 1);
}

enum status store_decode_left(const uint8_t *body, size_t len, uint64_t *left)
{
    uint64_t number;
    const enum status status = decode_number(body, len, &number);
    if (status == STATUS_OK) *left = number - 1;
    return status;
}
