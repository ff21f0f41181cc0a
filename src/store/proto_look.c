/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_look.c - messages of those who look around: pages of keys, numbers of the pool. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "store/pattern.h"
#include "store/proto.h"
#include "store/proto_int.h"

/* ---- look ---- */

enum {
    LOOK_OP = 1,
    LOOK_CURSOR = 2,
    LOOK_PREFIX = 3,
    LOOK_REGEX = 4,
    LOOK_LIMIT = 5,
    LOOK_BLOCKS = 6,
    LOOK_FORCE = 7,
};

enum status store_encode_look(struct buf *buf, const struct store_look *look)
{
    struct msg_writer writer;
    ASSERT(look->limit > 0 && look->limit <= YOLK_STORE_PAGE_MAX);

    msg_writer_init(&writer, buf);
    msg_put_map(&writer, look->regex != NULL ? 7 : 6);
    msg_field_u64(&writer, LOOK_OP, look->op);
    msg_field_u64(&writer, LOOK_CURSOR, look->cursor);
    msg_field_bin(&writer, LOOK_PREFIX, look->prefix, look->prefix_len);
    if (look->regex != NULL) msg_field_bin(&writer, LOOK_REGEX, look->regex, look->regex_len);
    msg_field_u64(&writer, LOOK_LIMIT, look->limit);
    msg_field_bool(&writer, LOOK_BLOCKS, look->blocks);
    msg_field_bool(&writer, LOOK_FORCE, look->force);
    return writer.status;
}

enum status store_decode_look(const uint8_t *body, size_t len, struct store_look *out)
{
    struct msg_reader reader;
    uint64_t key;
    struct msg_bytes prefix = { 0 };
    struct msg_bytes regex = { 0 };
    struct store_look got = { .limit = YOLK_STORE_PAGE_MAX };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case LOOK_OP:
            got.op = (enum store_look_op)msg_get_u64_max(&reader, STORE_LOOK_REMOVE);
            break;
        case LOOK_CURSOR: got.cursor = msg_get_u64(&reader); break;
        case LOOK_PREFIX: prefix = msg_get_bin(&reader, STORE_KEY_SIZE_MAX); break;
        case LOOK_REGEX: regex = msg_get_bin(&reader, PATTERN_SIZE_MAX); break;
        case LOOK_LIMIT: got.limit = msg_get_u32(&reader); break;
        case LOOK_BLOCKS: got.blocks = msg_get_bool(&reader); break;
        case LOOK_FORCE: got.force = msg_get_bool(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (got.limit == 0 || got.limit > YOLK_STORE_PAGE_MAX) msg_fail(&reader);
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    got.prefix = prefix.data;
    got.prefix_len = prefix.len;
    got.regex = (const char *)regex.data; /* NULL if it was not there */
    got.regex_len = regex.len;
    *out = got;
    return STATUS_OK;
}

/* ---- page ---- */

enum {
    PAGE_NEXT = 1,
    PAGE_LENS = 2,
    PAGE_KEYS = 3,
    PAGE_SIZES = 4,
    PAGE_REPLICAS = 5,
    PAGE_CODES = 6,
    PAGE_BLOCKS = 7, /* 1: a block */
    PAGE_LEASES = 8,
    PAGE_MATCHED = 9,
    PAGE_BYTES = 10,
    PAGE_REMOVED = 11,
    PAGE_KEPT = 12,
    PAGE_PINS = 13, /* 1: soft, 2: hard, 3: both */
};

/* The columns of a page while it is written. */
struct page_scratch {
    struct store_key keys[YOLK_STORE_PAGE_MAX];
    uint64_t sizes[YOLK_STORE_PAGE_MAX];
    uint32_t replicas[YOLK_STORE_PAGE_MAX];
    uint32_t codes[YOLK_STORE_PAGE_MAX];
    uint32_t blocks[YOLK_STORE_PAGE_MAX];
    uint32_t leases[YOLK_STORE_PAGE_MAX];
    uint32_t pins[YOLK_STORE_PAGE_MAX];
};

static void put_entries(struct msg_writer *writer, const struct yolk_store_page *page)
{
    struct page_scratch *to = malloc(sizeof(*to));
    const uint32_t count = page->count;
    ASSERT(count <= YOLK_STORE_PAGE_MAX);

    if (to == NULL) {
        writer->status = STATUS_FULL;
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct yolk_store_entry *entry = &page->entries[i];
        to->keys[i] = (struct store_key){ entry->key.bytes, (uint32_t)entry->key.len };
        to->sizes[i] = entry->size;
        to->replicas[i] = entry->replicas;
        to->codes[i] = store_status_code(entry->status);
        to->blocks[i] = entry->block;
        to->leases[i] = entry->lease_ms;
        to->pins[i] = (entry->soft_pin ? 1u : 0u) | (entry->hard_pin ? 2u : 0u);
    }
    store_put_keys(writer, PAGE_LENS, PAGE_KEYS, to->keys, count);
    msg_field_u64s(writer, PAGE_SIZES, to->sizes, count);
    msg_field_u32s(writer, PAGE_REPLICAS, to->replicas, count);
    msg_field_u32s(writer, PAGE_CODES, to->codes, count);
    msg_field_u32s(writer, PAGE_BLOCKS, to->blocks, count);
    msg_field_u32s(writer, PAGE_LEASES, to->leases, count);
    msg_field_u32s(writer, PAGE_PINS, to->pins, count);
    free(to);
}

enum status store_encode_page(struct buf *buf, const struct yolk_store_page *page)
{
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, page->count > 0 ? 13 : 5);
    msg_field_u64(&writer, PAGE_NEXT, page->next);
    if (page->count > 0) put_entries(&writer, page);
    msg_field_u64(&writer, PAGE_MATCHED, page->matched);
    msg_field_u64(&writer, PAGE_BYTES, page->bytes);
    msg_field_u64(&writer, PAGE_REMOVED, page->removed);
    msg_field_u64(&writer, PAGE_KEPT, page->kept);
    return writer.status;
}

/* The columns of a page while it is read. */
struct page_columns {
    struct msg_column lens, sizes, replicas, codes, blocks, leases, pins;
    struct msg_bytes keys;
};

/* Columns of equal length, keys that add up. */
static bool page_entries(const struct page_columns *from, struct yolk_store_entry *entries)
{
    const size_t count = from->lens.count;
    const size_t others[] = { from->sizes.count, from->replicas.count, from->codes.count,
                              from->blocks.count, from->leases.count };
    size_t offset = 0;

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (others[i] != count) return false;
    }
    if (from->pins.count != count && from->pins.count != 0) return false; /* N-1 has none */
    for (size_t i = 0; i < count; i++) {
        const uint32_t len = msg_u32_at(from->lens, i);
        const uint32_t pins = from->pins.count > 0 ? msg_u32_at(from->pins, i) : 0;
        if (len == 0 || len > STORE_KEY_SIZE_MAX || len > from->keys.len - offset) return false;
        entries[i] = (struct yolk_store_entry){
            .key = { from->keys.data + offset, len },
            .status = store_status_of(msg_u32_at(from->codes, i)),
            .block = msg_u32_at(from->blocks, i) != 0,
            .size = msg_u64_at(from->sizes, i),
            .replicas = msg_u32_at(from->replicas, i),
            .lease_ms = msg_u32_at(from->leases, i),
            .hard_pin = (pins & 2) != 0,
            .soft_pin = (pins & 1) != 0,
        };
        offset += len;
    }
    return offset == from->keys.len;
}

enum status store_decode_page(const uint8_t *body, size_t len, struct yolk_store_entry *entries,
                              struct yolk_store_page *out)
{
    const size_t most = YOLK_STORE_PAGE_MAX;
    struct msg_reader reader;
    uint64_t key;
    struct page_columns columns = { 0 };
    struct yolk_store_page got = { .entries = entries };

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case PAGE_NEXT: got.next = msg_get_u64(&reader); break;
        case PAGE_LENS: columns.lens = msg_get_u32s(&reader, most); break;
        case PAGE_KEYS: columns.keys = msg_get_bin(&reader, most * STORE_KEY_SIZE_MAX); break;
        case PAGE_SIZES: columns.sizes = msg_get_u64s(&reader, most); break;
        case PAGE_REPLICAS: columns.replicas = msg_get_u32s(&reader, most); break;
        case PAGE_CODES: columns.codes = msg_get_u32s(&reader, most); break;
        case PAGE_BLOCKS: columns.blocks = msg_get_u32s(&reader, most); break;
        case PAGE_LEASES: columns.leases = msg_get_u32s(&reader, most); break;
        case PAGE_PINS: columns.pins = msg_get_u32s(&reader, most); break;
        case PAGE_MATCHED: got.matched = msg_get_u64(&reader); break;
        case PAGE_BYTES: got.bytes = msg_get_u64(&reader); break;
        case PAGE_REMOVED: got.removed = msg_get_u64(&reader); break;
        case PAGE_KEPT: got.kept = msg_get_u64(&reader); break;
        default: msg_skip(&reader); break;
        }
    }
    if (msg_end(&reader) != STATUS_OK || !page_entries(&columns, entries)) return STATUS_INVALID;
    got.count = (uint32_t)columns.lens.count;
    *out = got;
    return STATUS_OK;
}

/* ---- stat ---- */

/* The numbers of the pool are a column in the order of struct yolk_store_stats, which is only ever
 * appended to: a shorter one leaves the rest zero, a longer one is cut. */
enum { STATS_NUMBERS = 1, STATS_NODES = 2 };
enum { STATS_COUNT = sizeof(struct yolk_store_stats) / sizeof(uint64_t), STATS_COUNT_MAX = 256 };

enum { NODE_NAME = 1, NODE_ROLE = 2, NODE_STATE = 3, NODE_RPC = 4, NODE_NUMBERS = 5 };
enum { NODE_NUMBERS_COUNT = 6 };

static void put_node(struct msg_writer *writer, const struct yolk_store_node *node)
{
    const uint64_t numbers[NODE_NUMBERS_COUNT] = { node->space_total, node->space_used,
                                                   node->values,      node->blocks,
                                                   node->silent_ms,   node->load };
    msg_put_map(writer, 5);
    msg_field_text(writer, NODE_NAME, node->name);
    msg_field_text(writer, NODE_ROLE, node->role);
    msg_field_text(writer, NODE_STATE, node->state);
    msg_field_text(writer, NODE_RPC, node->rpc_address);
    msg_field_u64s(writer, NODE_NUMBERS, numbers, NODE_NUMBERS_COUNT);
}

enum status store_encode_stats(struct buf *buf, const struct yolk_store_stats *stats,
                               const struct yolk_store_node *nodes, uint32_t count)
{
    uint64_t numbers[STATS_COUNT];
    struct msg_writer writer;
    ASSERT(count <= YOLK_STORE_NODES_MAX);

    memcpy(numbers, stats, sizeof(numbers));
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 2);
    msg_field_u64s(&writer, STATS_NUMBERS, numbers, STATS_COUNT);
    msg_field_array(&writer, STATS_NODES, count);
    for (uint32_t i = 0; i < count; i++)
        put_node(&writer, &nodes[i]);
    return writer.status;
}

static uint64_t number_at(struct msg_column column, size_t i)
{
    return i < column.count ? msg_u64_at(column, i) : 0;
}

static void get_node(struct msg_reader *reader, struct yolk_store_node *out)
{
    struct msg_column numbers = { 0 };
    uint64_t key;
    uint32_t left = msg_get_map(reader);

    memset(out, 0, sizeof(*out));
    while (msg_next_key(reader, &left, &key)) {
        switch (key) {
        case NODE_NAME: msg_get_text_copy(reader, out->name, sizeof(out->name)); break;
        case NODE_ROLE: msg_get_text_copy(reader, out->role, sizeof(out->role)); break;
        case NODE_STATE: msg_get_text_copy(reader, out->state, sizeof(out->state)); break;
        case NODE_RPC: msg_get_text_copy(reader, out->rpc_address, sizeof(out->rpc_address)); break;
        case NODE_NUMBERS: numbers = msg_get_u64s(reader, STATS_COUNT_MAX); break;
        default: msg_skip(reader); break;
        }
    }
    out->space_total = number_at(numbers, 0);
    out->space_used = number_at(numbers, 1);
    out->values = number_at(numbers, 2);
    out->blocks = number_at(numbers, 3);
    out->silent_ms = number_at(numbers, 4);
    out->load = number_at(numbers, 5);
}

enum status store_decode_stats(const uint8_t *body, size_t len, struct yolk_store_stats *stats,
                               struct yolk_store_node *nodes, uint32_t *count)
{
    struct msg_reader reader;
    struct msg_column column = { 0 };
    uint64_t numbers[STATS_COUNT];
    uint64_t key;
    uint32_t nodes_count = 0;

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        switch (key) {
        case STATS_NUMBERS: column = msg_get_u64s(&reader, STATS_COUNT_MAX); break;
        case STATS_NODES:
            nodes_count = msg_get_array(&reader);
            if (nodes_count > YOLK_STORE_NODES_MAX) msg_fail(&reader);
            for (uint32_t i = 0; i < nodes_count && reader.status == STATUS_OK; i++)
                get_node(&reader, &nodes[i]);
            break;
        default: msg_skip(&reader); break;
        }
    }
    if (column.count == 0 || msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    for (size_t i = 0; i < STATS_COUNT; i++)
        numbers[i] = number_at(column, i);
    memcpy(stats, numbers, sizeof(numbers));
    *count = nodes_count;
    return STATUS_OK;
}

/* ---- names with numbers ---- */

enum { NAMED_LIST = 1 };
enum { NAMED_NAME = 1, NAMED_NUMBERS = 2 };

static void put_named(struct msg_writer *writer, const char *name, const uint64_t *numbers,
                      uint32_t count)
{
    msg_put_map(writer, 2);
    msg_field_text(writer, NAMED_NAME, name);
    msg_field_u64s(writer, NAMED_NUMBERS, numbers, count);
}

/* Numbers that were not sent are 0. */
static void get_named(struct msg_reader *reader, char *name, size_t name_size, uint64_t *numbers,
                      uint32_t count)
{
    struct msg_column column = { 0 };
    uint64_t key;
    uint32_t left = msg_get_map(reader);

    name[0] = '\0';
    while (msg_next_key(reader, &left, &key)) {
        switch (key) {
        case NAMED_NAME: msg_get_text_copy(reader, name, name_size); break;
        case NAMED_NUMBERS: column = msg_get_u64s(reader, STATS_COUNT_MAX); break;
        default: msg_skip(reader); break;
        }
    }
    for (uint32_t i = 0; i < count; i++)
        numbers[i] = number_at(column, i);
}

static void put_list(struct msg_writer *writer, struct buf *buf, uint32_t count)
{
    msg_writer_init(writer, buf);
    msg_put_map(writer, 1);
    msg_field_array(writer, NAMED_LIST, count);
}

/* A message that is one list; `get` reads item i. */
static enum status get_list(const uint8_t *body, size_t len, uint32_t max,
                            void (*get)(struct msg_reader *reader, void *items, uint32_t i),
                            void *items, uint32_t *count)
{
    struct msg_reader reader;
    uint64_t key;
    uint32_t got = 0;

    msg_reader_init(&reader, body, len);
    uint32_t left = msg_get_map(&reader);
    while (msg_next_key(&reader, &left, &key)) {
        if (key != NAMED_LIST) {
            msg_skip(&reader);
            continue;
        }
        got = msg_get_array(&reader);
        if (got > max) msg_fail(&reader);
        for (uint32_t i = 0; i < got && reader.status == STATUS_OK; i++)
            get(&reader, items, i);
    }
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *count = got;
    return STATUS_OK;
}

/* ---- tenants ---- */

enum { TENANT_NUMBERS_COUNT = 8 }; /* in the order of struct yolk_store_tenant */

_Static_assert((int)YOLK_STORE_TENANT_SIZE == (int)STORE_TENANT_SIZE, "one limit");
_Static_assert((int)YOLK_STORE_TENANTS_MAX == (int)STORE_TENANTS_MAX, "one limit");
_Static_assert(sizeof(struct yolk_store_tenant) ==
                   STORE_TENANT_SIZE + TENANT_NUMBERS_COUNT * sizeof(uint64_t),
               "a name and the numbers");

static void put_tenant(struct msg_writer *writer, const struct yolk_store_tenant *tenant)
{
    uint64_t numbers[TENANT_NUMBERS_COUNT];
    memcpy(numbers, &tenant->quota_bytes, sizeof(numbers));
    put_named(writer, tenant->name, numbers, TENANT_NUMBERS_COUNT);
}

static void get_tenant(struct msg_reader *reader, void *items, uint32_t i)
{
    struct yolk_store_tenant *out = (struct yolk_store_tenant *)items + i;
    uint64_t numbers[TENANT_NUMBERS_COUNT];

    memset(out, 0, sizeof(*out));
    get_named(reader, out->name, sizeof(out->name), numbers, TENANT_NUMBERS_COUNT);
    memcpy(&out->quota_bytes, numbers, sizeof(numbers));
}

enum status store_encode_quota(struct buf *buf, const struct yolk_store_tenant *set)
{
    static const struct yolk_store_tenant none = { "", 0, 0, 0, 0, 0, 0, 0, 0 };
    struct msg_writer writer;
    msg_writer_init(&writer, buf);
    put_tenant(&writer, set == NULL ? &none : set);
    return writer.status;
}

enum status store_decode_quota(const uint8_t *body, size_t len, struct yolk_store_tenant *out)
{
    struct yolk_store_tenant got;
    struct msg_reader reader;

    msg_reader_init(&reader, body, len);
    get_tenant(&reader, &got, 0);
    if (msg_end(&reader) != STATUS_OK) return STATUS_INVALID;
    *out = got;
    return STATUS_OK;
}

enum status store_encode_tenants(struct buf *buf, const struct yolk_store_tenant *tenants,
                                 uint32_t count)
{
    struct msg_writer writer;
    ASSERT(count <= YOLK_STORE_TENANTS_MAX);

    put_list(&writer, buf, count);
    for (uint32_t i = 0; i < count; i++)
        put_tenant(&writer, &tenants[i]);
    return writer.status;
}

enum status store_decode_tenants(const uint8_t *body, size_t len, struct yolk_store_tenant *tenants,
                                 uint32_t *count)
{
    return get_list(body, len, YOLK_STORE_TENANTS_MAX, get_tenant, tenants, count);
}

/* ---- notes ---- */

enum { NOTE_NUMBERS_COUNT = 3 }; /* stamp, bytes, replicas */

enum status store_encode_notes(struct buf *buf, const struct store_quota_note *notes,
                               uint32_t count)
{
    struct msg_writer writer;
    ASSERT(count <= STORE_TENANTS_MAX);

    put_list(&writer, buf, count);
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t numbers[NOTE_NUMBERS_COUNT] = { notes[i].stamp, notes[i].quota.bytes,
                                                       notes[i].quota.replicas };
        put_named(&writer, notes[i].name, numbers, NOTE_NUMBERS_COUNT);
    }
    return writer.status;
}

static void get_note(struct msg_reader *reader, void *items, uint32_t i)
{
    struct store_quota_note *out = (struct store_quota_note *)items + i;
    uint64_t numbers[NOTE_NUMBERS_COUNT];

    memset(out, 0, sizeof(*out));
    get_named(reader, out->name, sizeof(out->name), numbers, NOTE_NUMBERS_COUNT);
    out->stamp = numbers[0];
    out->quota.bytes = numbers[1];
    out->quota.replicas = numbers[2];
}

enum status store_decode_notes(struct msg_bytes bytes, struct store_quota_note *notes,
                               uint32_t *count)
{
    return get_list(bytes.data, bytes.len, STORE_TENANTS_MAX, get_note, notes, count);
}
