/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_events.c - events: what a node has, and what has changed, in columns. */
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "store/proto.h"
#include "store/proto_int.h"

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
