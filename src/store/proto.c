/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto.c - what messages of several kinds have in common: identities, statuses, numbers,
 * attributes. The kinds have files of their own: proto_member.c, proto_events.c, proto_acquire.c,
 * proto_put.c, proto_commits.c, proto_ends.c, proto_node.c, proto_batch.c, proto_look.c.
 *
 * One enum of field numbers per message; numbers are never used again for something else. Decoders
 * read straight through (net/msg.h keeps the first error) and then check what a single field cannot
 * tell: that columns are of equal length, that keys add up. */
#include "store/proto.h"

#include <string.h>

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

/* ---- drain ---- */

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
