/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_put.c - puts: commit, put_end, put_revoke, put_revokes. */
#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "store/proto.h"
#include "store/proto_int.h"

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

bool store_commit_sums_valid(const struct store_commit *commit)
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
    if (!store_commit_sums_valid(&got)) msg_fail(&reader);
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

/* ---- many tickets given back ---- */

enum { REVOKES_LENS = 1, REVOKES_KEYS = 2, REVOKES_PUT_IDS = 3, REVOKES_WRITERS = 4 };

enum status store_encode_put_revokes(struct buf *buf, const struct store_put_revoke *revokes,
                                     uint32_t count)
{
    const size_t each = sizeof(struct store_key) + 2 * sizeof(uint64_t);
    struct msg_writer writer;
    ASSERT(count > 0 && count <= STORE_KEYS_MAX);
    struct store_key *keys = malloc(count * each);
    if (keys == NULL) return STATUS_FULL;

    uint64_t *put_ids = (uint64_t *)(void *)(keys + count);
    uint64_t *writers = put_ids + count;
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = revokes[i].key;
        put_ids[i] = revokes[i].put_id;
        writers[i] = revokes[i].writer;
    }
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 4);
    store_put_keys(&writer, REVOKES_LENS, REVOKES_KEYS, keys, count);
    msg_field_u64s(&writer, REVOKES_PUT_IDS, put_ids, count);
    msg_field_u64s(&writer, REVOKES_WRITERS, writers, count);
    free(keys);
    return writer.status;
}

static bool revokes_valid(const struct store_put_revokes *revokes)
{
    size_t sum = 0;
    if (revokes->count == 0 || revokes->put_ids.count != revokes->count) return false;
    if (revokes->writers.count != revokes->count) return false;
    for (uint32_t i = 0; i < revokes->count; i++) {
        const uint32_t len = msg_u32_at(revokes->lens, i);
        if (len == 0 || len > STORE_KEY_SIZE_MAX) return false;
        sum += len;
    }
    return sum == revokes->keys.len;
}

enum status store_decode_put_revokes(const uint8_t *body, size_t len, struct store_put_revokes *out)
{
    const size_t max = STORE_KEYS_MAX;
    struct msg_reader reader;
    uint64_t key;
    struct store_put_revokes got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case REVOKES_LENS: got.lens = msg_get_u32s(&reader, max); break;
        case REVOKES_KEYS: got.keys = msg_get_bin(&reader, max * STORE_KEY_SIZE_MAX); break;
        case REVOKES_PUT_IDS: got.put_ids = msg_get_u64s(&reader, max); break;
        case REVOKES_WRITERS: got.writers = msg_get_u64s(&reader, max); break;
        default: msg_skip(&reader); break;
        }
    }
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    got.count = (uint32_t)got.lens.count;
    if (!revokes_valid(&got)) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

void store_put_revokes_at(const struct store_put_revokes *revokes, uint32_t i, size_t *offset,
                          struct store_put_revoke *out)
{
    *out = (struct store_put_revoke){
        .key = { revokes->keys.data + *offset, msg_u32_at(revokes->lens, i) },
        .put_id = msg_u64_at(revokes->put_ids, i),
        .writer = msg_u64_at(revokes->writers, i),
    };
    *offset += out->key.len;
}
