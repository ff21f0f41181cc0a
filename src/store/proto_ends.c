/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_ends.c - master.put_ends, the batch of put_end: columns, as every hot batch call. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "store/proto.h"
#include "store/proto_int.h"

enum {
    ENDS_NAME = 1,
    ENDS_EPOCH = 2,
    ENDS_LENS = 3,
    ENDS_KEYS = 4,
    ENDS_NUMBERS = 5,    /* five each: put id, generation, address, size, digest */
    ENDS_ATTRIBUTES = 6, /* three each; absent: all zero */
    ENDS_TERMS = 7,      /* of the values, one each; absent: not known */
};

enum { NUMBERS = 5 };

/* The columns that are put together before they are written. */
struct columns {
    struct store_key *keys;
    uint64_t *numbers;
    uint64_t *attributes;
    uint64_t *terms;
    bool any;   /* of the attributes is not zero */
    bool dated; /* any of the terms is known */
};

static bool columns_fill(struct columns *columns, const struct store_ended *ends, uint32_t count)
{
    columns->keys = malloc(count * sizeof(*columns->keys));
    columns->numbers = malloc((size_t)count * NUMBERS * sizeof(uint64_t));
    columns->attributes = malloc((size_t)count * STORE_ATTRIBUTE_NUMBERS * sizeof(uint64_t));
    columns->terms = malloc(count * sizeof(uint64_t));
    if (columns->keys == NULL || columns->numbers == NULL || columns->attributes == NULL ||
        columns->terms == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct store_event *stored = &ends[i].stored;
        uint64_t *five = &columns->numbers[(size_t)i * NUMBERS];
        columns->keys[i] = (struct store_key){ stored->key, stored->key_len };
        five[0] = ends[i].put_id;
        five[1] = stored->generation;
        five[2] = stored->address;
        five[3] = stored->size;
        five[4] = stored->digest;
        store_attributes_pack(&stored->attributes,
                              &columns->attributes[(size_t)i * STORE_ATTRIBUTE_NUMBERS]);
        columns->any |= store_attributes_any(&stored->attributes);
        columns->terms[i] = stored->attributes.term;
        columns->dated |= stored->attributes.term != 0;
    }
    return true;
}

enum status store_encode_put_ends(struct buf *buf, const char *name, uint64_t epoch,
                                  const struct store_ended *ends, uint32_t count)
{
    struct columns columns = { 0 };
    struct msg_writer writer;
    ASSERT(count > 0 && count <= STORE_KEYS_MAX);

    msg_writer_init(&writer, buf);
    if (columns_fill(&columns, ends, count)) {
        msg_put_map(&writer, 5 + (columns.any ? 1 : 0) + (columns.dated ? 1 : 0));
        msg_field_text(&writer, ENDS_NAME, name);
        msg_field_u64(&writer, ENDS_EPOCH, epoch);
        store_put_keys(&writer, ENDS_LENS, ENDS_KEYS, columns.keys, count);
        msg_field_u64s(&writer, ENDS_NUMBERS, columns.numbers, (size_t)count * NUMBERS);
        if (columns.any) {
            msg_field_u64s(&writer, ENDS_ATTRIBUTES, columns.attributes,
                           (size_t)count * STORE_ATTRIBUTE_NUMBERS);
        }
        if (columns.dated) msg_field_u64s(&writer, ENDS_TERMS, columns.terms, count);
    } else {
        writer.status = STATUS_FULL;
    }
    free(columns.keys);
    free(columns.numbers);
    free(columns.attributes);
    free(columns.terms);
    return writer.status;
}

/* Every key and every size is in range, and the columns are of one length. */
static bool ends_valid(const struct store_put_ends *ends, size_t keys_len)
{
    size_t sum = 0;
    if (ends->count == 0 || ends->numbers.count != (size_t)ends->count * NUMBERS) return false;
    if (ends->attributes.count != 0 &&
        ends->attributes.count != (size_t)ends->count * STORE_ATTRIBUTE_NUMBERS) {
        return false;
    }
    if (ends->terms.count != 0 && ends->terms.count != ends->count) return false;
    for (uint32_t i = 0; i < ends->count; i++) {
        const uint32_t len = msg_u32_at(ends->lens, i);
        const uint64_t size = msg_u64_at(ends->numbers, (size_t)i * NUMBERS + 3);
        if (len == 0 || len > STORE_KEY_SIZE_MAX) return false;
        if (size == 0 || size > STORE_OBJECT_SIZE_MAX) return false;
        sum += len;
    }
    return sum == keys_len;
}

enum status store_decode_put_ends(const uint8_t *body, size_t len, struct store_put_ends *out)
{
    const size_t max = STORE_KEYS_MAX;
    struct msg_reader reader;
    uint64_t key;
    struct msg_bytes keys = { 0 };
    struct store_put_ends got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case ENDS_NAME: msg_get_text_copy(&reader, got.name, sizeof(got.name)); break;
        case ENDS_EPOCH: got.epoch = msg_get_u64(&reader); break;
        case ENDS_LENS: got.lens = msg_get_u32s(&reader, max); break;
        case ENDS_KEYS: keys = msg_get_bin(&reader, max * STORE_KEY_SIZE_MAX); break;
        case ENDS_NUMBERS: got.numbers = msg_get_u64s(&reader, max * NUMBERS); break;
        case ENDS_ATTRIBUTES:
            got.attributes = msg_get_u64s(&reader, max * STORE_ATTRIBUTE_NUMBERS);
            break;
        case ENDS_TERMS: got.terms = msg_get_u64s(&reader, max); break;
        default: msg_skip(&reader); break;
        }
    }
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    got.count = (uint32_t)got.lens.count;
    got.keys = keys.data;
    if (!ends_valid(&got, keys.len)) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

void store_put_ends_at(const struct store_put_ends *ends, uint32_t i, size_t *offset,
                       struct store_ended *out)
{
    const size_t first = (size_t)i * NUMBERS;
    const struct store_key key = { ends->keys + *offset, msg_u32_at(ends->lens, i) };

    *out = (struct store_ended){
        .put_id = msg_u64_at(ends->numbers, first),
        .stored = { .kind = STORE_EVENT_STORED,
                    .class = STORE_CLASS_OBJECT,
                    .id = store_key_id(key),
                    .key = key.bytes,
                    .key_len = key.len,
                    .generation = msg_u64_at(ends->numbers, first + 1),
                    .address = msg_u64_at(ends->numbers, first + 2),
                    .size = msg_u64_at(ends->numbers, first + 3),
                    .digest = msg_u64_at(ends->numbers, first + 4),
                    .attributes = store_attributes_at(ends->attributes,
                                                      (size_t)i * STORE_ATTRIBUTE_NUMBERS) },
    };
    if (ends->terms.count > 0) out->stored.attributes.term = msg_u64_at(ends->terms, i);
    *offset += key.len;
}
