/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_member.c - members of the pool: register, beat, leave, watch. */
#include "base/buf.h"
#include "store/proto.h"
#include "store/proto_int.h"

enum {
    LAYOUT_PAGES = 1,
    LAYOUT_PAGE_SIZE = 2,
    LAYOUT_LAYERS = 3,
    LAYOUT_LAYER_SIZE = 4,
    LAYOUT_BLOCK_TOKENS = 5,
    LAYOUT_ID = 6,
};

void store_put_layout(struct msg_writer *writer, uint32_t field, const struct store_layout *layout)
{
    msg_field_map(writer, field, 6);
    msg_field_u64(writer, LAYOUT_PAGES, layout->pages);
    msg_field_u64(writer, LAYOUT_PAGE_SIZE, layout->page_size);
    msg_field_u64(writer, LAYOUT_LAYERS, layout->layers);
    msg_field_u64(writer, LAYOUT_LAYER_SIZE, layout->layer_size);
    msg_field_u64(writer, LAYOUT_BLOCK_TOKENS, layout->block_tokens);
    msg_field_bin(writer, LAYOUT_ID, layout->id, sizeof(layout->id));
}

void store_get_layout(struct msg_reader *reader, struct store_layout *out)
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
    store_put_layout(writer, INFO_LAYOUT, &info->layout);
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
        case INFO_LAYOUT: store_get_layout(reader, &out->layout); break;
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

enum {
    BEATEN_TERM = 1,
    BEATEN_DRAINING = 2,
    BEATEN_NOTES = 3,
    BEATEN_VERSION = 4,
    BEATEN_CLOCK = 5
};

enum status store_encode_beaten(struct buf *buf, const struct store_beaten *beaten)
{
    const bool notes = beaten->notes_version > 0;
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, notes ? 5 : 3);
    msg_field_u64(&writer, BEATEN_TERM, beaten->term);
    msg_field_u64(&writer, BEATEN_CLOCK, beaten->clock_ns);
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
        case BEATEN_CLOCK: got.clock_ns = msg_get_u64(&reader); break;
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
enum {
    BEAT_NAME = 1,
    BEAT_EPOCH = 2,
    BEAT_NOTES = 3,
    BEAT_LOAD = 4,
    BEAT_FAULTS = 5,
    BEAT_DAMAGED = 6
};

enum status store_encode_beat(struct buf *buf, const struct store_beat *beat)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 4 + (uint32_t)beat->remembers + (beat->load.damaged > 0));
    msg_field_text(&writer, BEAT_NAME, beat->name);
    msg_field_u64(&writer, BEAT_EPOCH, beat->epoch);
    if (beat->remembers) msg_field_u64(&writer, BEAT_NOTES, beat->notes_version + 1);
    msg_field_u64(&writer, BEAT_LOAD, beat->load.bytes);
    msg_field_u64(&writer, BEAT_FAULTS, beat->load.faults);
    if (beat->load.damaged > 0) msg_field_u64(&writer, BEAT_DAMAGED, beat->load.damaged);
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
        case BEAT_LOAD: got.load.bytes = msg_get_u64(&reader); break;
        case BEAT_DAMAGED: got.load.damaged = msg_get_u64(&reader); break;
        case BEAT_FAULTS: got.load.faults = msg_get_u64(&reader); break;
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
