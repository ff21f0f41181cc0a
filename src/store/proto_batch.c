/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_batch.c - the hot batch calls on keys and their answers, in columns: where values
 * are, and where they may be put. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "store/proto.h"
#include "store/proto_int.h"

enum {
    BATCH_LENS = 1,
    BATCH_KEYS = 2,
    BATCH_SIZES = 3,
    BATCH_WRITER = 4,
    BATCH_PREFERRED = 5,
    BATCH_FORCE = 6,
    BATCH_PEEK = 7,
    BATCH_HARD_PIN = 8,
    BATCH_SOFT_PIN = 9,
    BATCH_REPLICAS = 10,
    BATCH_REPLACE = 11,
    BATCH_GROUPS = 12,
    BATCH_COSTS = 13,
    BATCH_DEPTHS = 14,
    BATCH_WRITE_MS = 15,
    BATCH_READS = 16,
    BATCH_NEXT = 17,
    BATCH_TOGETHER = 18,
    BATCH_SOFT_PIN_OFF = 19,
};

/* Announces a bin of all keys and writes them: too long for one array on the stack. */
void store_put_keys(struct msg_writer *writer, uint32_t lens_field, uint32_t keys_field,
                    const struct store_key *keys, uint32_t count)
{
    struct buf lens;
    struct buf bytes;
    enum status status = STATUS_OK;

    buf_init(&lens, (size_t)STORE_KEYS_MAX * sizeof(uint32_t));
    buf_init(&bytes, (size_t)STORE_KEYS_MAX * STORE_KEY_SIZE_MAX);
    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        const uint32_t len = keys[i].len;
        ASSERT(len > 0 && len <= STORE_KEY_SIZE_MAX);
        status = buf_append(&lens, &len, sizeof(len));
        if (status == STATUS_OK) status = buf_append(&bytes, keys[i].bytes, len);
    }
    if (status != STATUS_OK) writer->status = STATUS_FULL;
    msg_put_u64(writer, lens_field);
    msg_put_u32s(writer, (const uint32_t *)(const void *)buf_data(&lens), status ? 0 : count);
    msg_field_bin(writer, keys_field, buf_data(&bytes), bytes.len);
    buf_fini(&bytes);
    buf_fini(&lens);
}

/* What a put_start wishes beyond sizes, each only where it says something: N-1 never saw it. */
static void put_wishes(struct msg_writer *writer, const struct store_batch *batch)
{
    if (batch->hard_pin) msg_field_bool(writer, BATCH_HARD_PIN, true);
    if (batch->soft_pin_ms > 0) msg_field_u64(writer, BATCH_SOFT_PIN, batch->soft_pin_ms);
    if (batch->replicas > 0) msg_field_u64(writer, BATCH_REPLICAS, batch->replicas);
    if (batch->replace) msg_field_bool(writer, BATCH_REPLACE, true);
    if (batch->write_ms > 0) msg_field_u64(writer, BATCH_WRITE_MS, batch->write_ms);
    if (batch->next_len > 0) msg_field_bin(writer, BATCH_NEXT, batch->next, batch->next_len);
    if (batch->together) msg_field_bool(writer, BATCH_TOGETHER, true);
    if (batch->soft_pin_off) msg_field_bool(writer, BATCH_SOFT_PIN_OFF, true);
    if (batch->groups_data != NULL) {
        msg_field_u64s(writer, BATCH_GROUPS, batch->groups_data, batch->count);
    }
    if (batch->costs_data != NULL) {
        msg_field_u32s(writer, BATCH_COSTS, batch->costs_data, batch->count);
    }
    if (batch->depths_data != NULL) {
        msg_field_u32s(writer, BATCH_DEPTHS, batch->depths_data, batch->count);
    }
}

static uint32_t wishes_count(const struct store_batch *batch)
{
    return (batch->hard_pin ? 1u : 0u) + (batch->soft_pin_ms > 0 ? 1u : 0u) +
           (batch->replicas > 0 ? 1u : 0u) + (batch->replace ? 1u : 0u) +
           (batch->next_len > 0 ? 1u : 0u) + (batch->together ? 1u : 0u) +
           (batch->soft_pin_off ? 1u : 0u) + (batch->groups_data != NULL ? 1u : 0u) +
           (batch->costs_data != NULL ? 1u : 0u) + (batch->depths_data != NULL ? 1u : 0u) +
           (batch->write_ms > 0 ? 1u : 0u);
}

enum status store_encode_batch(struct buf *buf, const struct store_batch *batch)
{
    struct msg_writer writer;
    const bool put = batch->sizes_data != NULL;
    ASSERT(batch->count > 0 && batch->count <= STORE_KEYS_MAX);

    msg_writer_init(&writer, buf);
    const bool count = !put && batch->replicas > 0;
    const bool node = !put && batch->preferred[0] != '\0';
    msg_put_map(&writer, (put ? 6 + wishes_count(batch) : 3) + (batch->peek ? 1 : 0) + count +
                             node + (batch->reads_data != NULL));
    store_put_keys(&writer, BATCH_LENS, BATCH_KEYS, batch->keys_data, batch->count);
    if (put) {
        msg_field_u64s(&writer, BATCH_SIZES, batch->sizes_data, batch->count);
        msg_field_u64(&writer, BATCH_WRITER, batch->writer);
        msg_field_text(&writer, BATCH_PREFERRED, batch->preferred);
        put_wishes(&writer, batch);
    }
    msg_field_bool(&writer, BATCH_FORCE, batch->force);
    if (batch->peek) msg_field_bool(&writer, BATCH_PEEK, true);
    if (count) msg_field_u64(&writer, BATCH_REPLICAS, batch->replicas);
    if (node) msg_field_text(&writer, BATCH_PREFERRED, batch->preferred);
    if (batch->reads_data != NULL) {
        msg_field_u32s(&writer, BATCH_READS, batch->reads_data, batch->count);
    }
    return writer.status;
}

void store_batch_wish(const struct store_batch *batch, uint32_t i, struct store_wish *out)
{
    const uint32_t depth = batch->depths.count > 0 ? msg_u32_at(batch->depths, i) : 0;
    *out = (struct store_wish){
        .preferred = batch->preferred[0] == 0 ? NULL : batch->preferred,
        .next = batch->next,
        .soft_pin_ms = batch->soft_pin_ms,
        .soft_pin_off = batch->soft_pin_off,
        .write_ms = batch->write_ms,
        .replace = batch->replace,
        .attributes = { .group = batch->groups.count > 0 ? msg_u64_at(batch->groups, i) : 0,
                        .cost = batch->costs.count > 0 ? msg_u32_at(batch->costs, i) : 0,
                        .depth = (uint16_t)(depth < UINT16_MAX ? depth : UINT16_MAX),
                        .replicas = (uint8_t)batch->replicas,
                        .hard_pin = batch->hard_pin },
    };
}

/* A column that may be left out. */
static bool fits(struct msg_column column, uint32_t count)
{
    return column.count == 0 || column.count == count;
}

/* Names with a NUL each, and one NUL more: at most STORE_NEXT_SIZE bytes. NULL: it is not. */
static const char *names_check(struct msg_bytes names)
{
    const char *text = (const char *)names.data;
    if (names.len == 0 || text[names.len - 1] != '\0') return NULL;
    size_t at = 0;
    while (text[at] != '\0') {
        const size_t len = strlen(text + at);
        if (len >= STORE_NAME_SIZE) return NULL;
        at += len + 1;
        if (at == names.len) return NULL; /* the last NUL was a name's */
    }
    return at + 1 == names.len ? text : NULL;
}

static bool batch_keys_fit(const struct store_batch *batch, size_t bytes)
{
    size_t sum = 0;
    for (uint32_t i = 0; i < batch->count; i++) {
        const uint32_t len = msg_u32_at(batch->lens, i);
        if (len == 0 || len > STORE_KEY_SIZE_MAX) return false;
        sum += len;
    }
    return sum == bytes;
}

enum status store_decode_batch(const uint8_t *body, size_t len, struct store_batch *out)
{
    struct msg_reader reader;
    uint64_t key;
    struct msg_bytes keys = { 0 };
    struct msg_bytes next = { 0 };
    struct store_batch got = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case BATCH_LENS: got.lens = msg_get_u32s(&reader, STORE_KEYS_MAX); break;
        case BATCH_KEYS:
            keys = msg_get_bin(&reader, (size_t)STORE_KEYS_MAX * STORE_KEY_SIZE_MAX);
            break;
        case BATCH_SIZES: got.sizes = msg_get_u64s(&reader, STORE_KEYS_MAX); break;
        case BATCH_WRITER: got.writer = msg_get_u64(&reader); break;
        case BATCH_PREFERRED:
            msg_get_text_copy(&reader, got.preferred, sizeof(got.preferred));
            break;
        case BATCH_FORCE: got.force = msg_get_bool(&reader); break;
        case BATCH_PEEK: got.peek = msg_get_bool(&reader); break;
        case BATCH_HARD_PIN: got.hard_pin = msg_get_bool(&reader); break;
        case BATCH_SOFT_PIN: got.soft_pin_ms = msg_get_u32(&reader); break;
        case BATCH_REPLICAS:
            got.replicas = (uint32_t)msg_get_u64_max(&reader, STORE_REPLICAS_MAX);
            break;
        case BATCH_WRITE_MS: got.write_ms = msg_get_u32(&reader); break;
        case BATCH_REPLACE: got.replace = msg_get_bool(&reader); break;
        case BATCH_GROUPS: got.groups = msg_get_u64s(&reader, STORE_KEYS_MAX); break;
        case BATCH_COSTS: got.costs = msg_get_u32s(&reader, STORE_KEYS_MAX); break;
        case BATCH_DEPTHS: got.depths = msg_get_u32s(&reader, STORE_KEYS_MAX); break;
        case BATCH_NEXT: next = msg_get_bin(&reader, STORE_NEXT_SIZE); break;
        case BATCH_TOGETHER: got.together = msg_get_bool(&reader); break;
        case BATCH_SOFT_PIN_OFF: got.soft_pin_off = msg_get_bool(&reader); break;
        case BATCH_READS: got.reads = msg_get_u32s(&reader, STORE_KEYS_MAX); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.sizes.count != 0 && got.sizes.count != got.lens.count) msg_fail(&reader);
    if (got.lens.count == 0 || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    got.count = (uint32_t)got.lens.count;
    got.keys = keys.data;
    got.next = next.len == 0 ? NULL : names_check(next);
    if (next.len > 0 && got.next == NULL) return STATUS_INVALID;
    if (!fits(got.groups, got.count) || !fits(got.costs, got.count)) return STATUS_INVALID;
    if (!fits(got.depths, got.count) || !fits(got.reads, got.count)) return STATUS_INVALID;
    if (!batch_keys_fit(&got, keys.len)) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

bool store_batch_next(const struct store_batch *batch, struct store_batch_iter *iter)
{
    if (iter->next == batch->count) return false;
    iter->key.bytes = batch->keys + iter->offset;
    iter->key.len = msg_u32_at(batch->lens, iter->next);
    iter->offset += iter->key.len;
    iter->next++;
    return true;
}

enum {
    STATUSES_CODES = 1,
    STATUSES_EXACT = 2, /* likewise, where 1 says what N-1 expects instead */
};

enum status store_encode_statuses(struct buf *buf, const uint32_t *codes, uint32_t count)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 1);
    msg_field_u32s(&writer, STATUSES_CODES, codes, count);
    return writer.status;
}

enum status store_encode_removals(struct buf *buf, const uint32_t *codes, uint32_t count)
{
    const uint32_t exists = store_status_code(STATUS_EXISTS);
    struct msg_writer writer;
    uint32_t first = 0;

    while (first < count && codes[first] != exists)
        first++;
    if (first == count) return store_encode_statuses(buf, codes, count);
    uint32_t *older = malloc(count * sizeof(*older));
    if (older == NULL) return STATUS_FULL;
    for (uint32_t i = 0; i < count; i++)
        older[i] = codes[i] == exists ? store_status_code(STATUS_BUSY) : codes[i];
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 2);
    msg_field_u32s(&writer, STATUSES_CODES, older, count);
    msg_field_u32s(&writer, STATUSES_EXACT, codes, count);
    free(older);
    return writer.status;
}

enum status store_decode_statuses(const uint8_t *body, size_t len, struct msg_column *codes)
{
    struct msg_reader reader;
    uint64_t key;
    struct msg_column got = { 0 };
    struct msg_column exact = { 0 };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case STATUSES_CODES: got = msg_get_u32s(&reader, STORE_KEYS_MAX); break;
        case STATUSES_EXACT: exact = msg_get_u32s(&reader, STORE_KEYS_MAX); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.count == 0 || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    if (exact.count != 0 && exact.count != got.count) return STATUS_INVALID;
    *codes = exact.count != 0 ? exact : got;
    return STATUS_OK;
}

enum {
    PLACES_CODES = 1,
    PLACES_SIZES = 2,
    PLACES_PUT_IDS = 3,
    PLACES_COUNTS = 4,
    PLACES_NODES = 5,
    PLACES_ADDRESSES = 6,
    PLACES_NODE_LIST = 7,
    PLACES_TERM = 8,
    PLACES_PUT_MS = 9,
    PLACES_VERSIONS = 10,
    PLACES_DISKS = 11,
    PLACES_PINS = 12,
    PLACES_YIELDS = 13,
};

enum { NODE_RPC = 1, NODE_SEGMENT = 2, NODE_EPOCH = 3 };

enum status store_encode_places(struct buf *buf, const struct store_places_out *reply)
{
    const bool put = reply->put_ids != NULL;
    struct msg_writer writer;
    ASSERT(reply->count > 0 && reply->nodes_count <= STORE_REPLY_NODES_MAX);
    ASSERT(!put || reply->replicas_count == reply->count);

    msg_writer_init(&writer, buf);
    msg_put_map(&writer, (put ? 7 : 8) + (reply->versions != NULL ? 1 : 0) +
                             (reply->disks != NULL ? 1 : 0) + (reply->pins != NULL ? 1 : 0) +
                             (reply->yields != NULL ? 1 : 0));
    msg_field_u32s(&writer, PLACES_CODES, reply->codes, reply->count);
    if (put) {
        msg_field_u64s(&writer, PLACES_PUT_IDS, reply->put_ids, reply->count);
    } else {
        msg_field_u64s(&writer, PLACES_SIZES, reply->sizes, reply->count);
        msg_field_u32s(&writer, PLACES_COUNTS, reply->counts, reply->count);
    }
    msg_field_u32s(&writer, PLACES_NODES, reply->nodes, reply->replicas_count);
    msg_field_u64s(&writer, PLACES_ADDRESSES, reply->addresses, reply->replicas_count);
    msg_field_array(&writer, PLACES_NODE_LIST, reply->nodes_count);
    for (uint32_t i = 0; i < reply->nodes_count; i++) {
        const struct store_reply_node *node = &reply->node_list[i];
        msg_put_map(&writer, 3);
        msg_field_text(&writer, NODE_RPC, node->rpc_address);
        msg_field_text(&writer, NODE_SEGMENT, node->segment);
        msg_field_u64(&writer, NODE_EPOCH, node->epoch);
    }
    msg_field_u64(&writer, PLACES_TERM, reply->term);
    msg_field_u64(&writer, PLACES_PUT_MS, reply->put_ms);
    if (reply->versions != NULL) {
        msg_field_u32s(&writer, PLACES_VERSIONS, reply->versions, reply->count);
    }
    if (reply->disks != NULL) {
        msg_field_u32s(&writer, PLACES_DISKS, reply->disks, reply->replicas_count);
    }
    if (reply->pins != NULL) msg_field_u32s(&writer, PLACES_PINS, reply->pins, reply->count);
    if (reply->yields != NULL) {
        msg_field_u32s(&writer, PLACES_YIELDS, reply->yields, reply->replicas_count);
    }
    return writer.status;
}

static void get_reply_node(struct msg_reader *reader, struct store_reply_node *out)
{
    uint64_t key;
    uint32_t left = msg_get_map(reader);

    memset(out, 0, sizeof(*out));
    while (msg_next_key(reader, &left, &key)) {
        switch (key) {
        case NODE_RPC: msg_get_text_copy(reader, out->rpc_address, sizeof(out->rpc_address)); break;
        case NODE_SEGMENT: msg_get_text_copy(reader, out->segment, sizeof(out->segment)); break;
        case NODE_EPOCH: out->epoch = msg_get_u64(reader); break;
        default: msg_skip(reader); break;
        }
    }
}

/* What a single column cannot tell: lengths that belong together, indices in range. */
static bool places_consistent(const struct store_places *places)
{
    uint64_t replicas = places->codes.count;
    const bool get = places->put_ids.count == 0;

    if (get) {
        if (places->sizes.count != places->codes.count) return false;
        if (places->counts.count != places->codes.count) return false;
        replicas = 0;
        for (size_t i = 0; i < places->counts.count; i++) {
            replicas += msg_u32_at(places->counts, i);
        }
    } else if (places->put_ids.count != places->codes.count) {
        return false;
    }
    if (places->versions.count != 0 && places->versions.count != places->codes.count) return false;
    if (places->nodes.count != replicas || places->addresses.count != replicas) return false;
    if (places->disks.count != 0 && places->disks.count != replicas) return false;
    if (places->yields.count != 0 && places->yields.count != replicas) return false;
    if (places->pins.count != 0 && places->pins.count != places->codes.count) return false;
    for (size_t i = 0; i < places->nodes.count; i++) {
        const uint32_t node = msg_u32_at(places->nodes, i);
        const bool none = !get && store_status_of(msg_u32_at(places->codes, i)) != STATUS_OK;
        if (node >= places->nodes_count && !none) return false;
    }
    return true;
}

enum status store_decode_places(const uint8_t *body, size_t len, struct store_places *out,
                                struct store_reply_node *nodes)
{
    struct msg_reader reader;
    uint64_t key;
    struct store_places got = { 0 };
    const size_t items = STORE_KEYS_MAX;
    const size_t replicas = items * STORE_REPLICAS_MAX;

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case PLACES_CODES: got.codes = msg_get_u32s(&reader, items); break;
        case PLACES_SIZES: got.sizes = msg_get_u64s(&reader, items); break;
        case PLACES_PUT_IDS: got.put_ids = msg_get_u64s(&reader, items); break;
        case PLACES_COUNTS: got.counts = msg_get_u32s(&reader, items); break;
        case PLACES_NODES: got.nodes = msg_get_u32s(&reader, replicas); break;
        case PLACES_ADDRESSES: got.addresses = msg_get_u64s(&reader, replicas); break;
        case PLACES_NODE_LIST:
            got.nodes_count = msg_get_array(&reader);
            if (got.nodes_count > STORE_REPLY_NODES_MAX) msg_fail(&reader);
            for (uint32_t i = 0; i < got.nodes_count && reader.status == STATUS_OK; i++) {
                get_reply_node(&reader, &nodes[i]);
            }
            break;
        case PLACES_TERM: got.term = msg_get_u64(&reader); break;
        case PLACES_PUT_MS: got.put_ms = msg_get_u32(&reader); break;
        case PLACES_VERSIONS: got.versions = msg_get_u32s(&reader, items); break;
        case PLACES_PINS: got.pins = msg_get_u32s(&reader, items); break;
        case PLACES_YIELDS: got.yields = msg_get_u32s(&reader, replicas); break;
        case PLACES_DISKS: got.disks = msg_get_u32s(&reader, replicas); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.codes.count == 0 || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    if (!places_consistent(&got)) return STATUS_INVALID;
    got.count = (uint32_t)got.codes.count;
    *out = got;
    return STATUS_OK;
}

bool store_place_on_disk(const struct store_places *places, uint32_t i)
{
    return places->disks.count > 0 && msg_u32_at(places->disks, i) != 0;
}

bool store_place_yields(const struct store_places *places, uint32_t i)
{
    return places->yields.count > 0 && msg_u32_at(places->yields, i) != 0;
}
