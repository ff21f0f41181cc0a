/* SPDX-License-Identifier: Apache-2.0
 *
 * store/store_proto_fuzz.c - every decoder of the pool's messages over foreign bytes.
 *
 * The first byte picks the decoder, the rest is the message. What a decoder accepts is then read
 * the way its handler reads it, to the last byte, and messages that are plain structs are encoded
 * and decoded again: a message we accept must be one that we can send. */
#include "store/proto.h"
#include "store/proto_task.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"

static void fuzz_tenants(const uint8_t *data, size_t len, struct buf *buf)
{
    static struct yolk_store_tenant tenants[YOLK_STORE_TENANTS_MAX], again[YOLK_STORE_TENANTS_MAX];
    struct yolk_store_tenant quota;
    uint32_t count, count_again;
    if (store_decode_quota(data, len, &quota) == STATUS_OK)
        ASSERT(store_encode_quota(buf, &quota) == STATUS_OK);
    buf_clear(buf);
    if (store_decode_tenants(data, len, tenants, &count) != STATUS_OK) return;
    ASSERT(store_encode_tenants(buf, tenants, count) == STATUS_OK);
    ASSERT(store_decode_tenants(buf_data(buf), buf->len, again, &count_again) == STATUS_OK);
    ASSERT(count == count_again && memcmp(tenants, again, count * sizeof(again[0])) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static uint64_t touched; /* so that reads are not optimised away */

static void touch_bytes(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        touched += bytes[i];
}

static void touch_column(struct msg_column column)
{
    for (size_t i = 0; i < column.count; i++)
        touched += msg_u64_at(column, i);
}

static void fuzz_register(const uint8_t *data, size_t len, struct buf *buf)
{
    static struct store_quota_note notes[STORE_TENANTS_MAX];
    struct store_register reg, again;
    uint32_t count = 0;
    if (store_decode_register(data, len, &reg) != STATUS_OK) return;
    ASSERT(store_layout_valid(&reg.info.layout) && reg.info.name[0] != 0);
    ASSERT(store_encode_register(buf, &reg) == STATUS_OK);
    ASSERT(store_decode_register(buf_data(buf), buf->len, &again) == STATUS_OK);
    ASSERT(reg.term_seen == again.term_seen && strcmp(reg.info.name, again.info.name) == 0);
    ASSERT(store_layout_matches(&reg.info.layout, &again.info.layout));
    ASSERT(reg.notes.len == again.notes.len);
    if (store_decode_notes(reg.notes, notes, &count) == STATUS_OK) touched += count;
}

static void fuzz_watch(const uint8_t *data, size_t len, struct buf *buf)
{
    struct store_watch_item item, again;
    if (store_decode_watch(data, len, &item) != STATUS_OK) return;
    ASSERT(store_encode_watch(buf, &item) == STATUS_OK);
    ASSERT(store_decode_watch(buf_data(buf), buf->len, &again) == STATUS_OK);
    ASSERT(item.has_member == again.has_member && item.synced == again.synced);
}

static void fuzz_acquire(const uint8_t *data, size_t len, struct buf *buf)
{
    struct store_acquire request, again;
    if (store_decode_acquire(data, len, &request) != STATUS_OK) return;
    touch_bytes(request.ids, (size_t)request.count * BLOCK_KEY_SIZE);
    ASSERT(store_encode_acquire(buf, &request) == STATUS_OK);
    ASSERT(store_decode_acquire(buf_data(buf), buf->len, &again) == STATUS_OK);
    ASSERT(request.count == again.count && request.prefix == again.prefix);
    ASSERT(request.inline_max == again.inline_max);
}

static void fuzz_acquired(const uint8_t *data, size_t len)
{
    struct store_acquired reply;
    if (store_decode_acquired(data, len, &reply) != STATUS_OK) return;
    ASSERT(reply.addresses.count == reply.sizes.count);
    touch_column(reply.addresses);
    touch_column(reply.generations);
    touch_column(reply.sizes);
    touch_column(reply.sums);
    touch_column(reply.inlines);
    touch_bytes(reply.bytes.data, reply.bytes.len);
}

static void fuzz_events(const uint8_t *data, size_t len, struct buf *buf)
{
    static struct store_event events[STORE_EVENTS_BATCH_MAX], again[STORE_EVENTS_BATCH_MAX];
    uint64_t epoch;
    unsigned flags;
    uint32_t count, count_again;
    if (store_decode_events(data, len, &epoch, &flags, events, &count) != STATUS_OK) return;
    for (uint32_t i = 0; i < count; i++)
        touch_bytes(events[i].key, events[i].key_len);
    ASSERT(store_encode_events(buf, epoch, flags, events, count) == STATUS_OK);
    ASSERT(store_decode_events(buf_data(buf), buf->len, &epoch, &flags, again, &count_again) ==
           STATUS_OK);
    ASSERT(count == count_again);
}

static void fuzz_commit(const uint8_t *data, size_t len)
{
    struct store_commit commit;
    if (store_decode_commit(data, len, &commit) != STATUS_OK) return;
    touch_bytes(commit.key.bytes, commit.key.len);
    touch_column(commit.sums);
    for (size_t i = 0; i < commit.parts.count; i++)
        ASSERT(msg_u32_at(commit.parts, i) > 0);
    if (commit.parts.count > 0) {
        ASSERT(commit.sums.count == commit.parts.count && commit.parts.count <= commit.size);
    } else {
        ASSERT(commit.sums.count == (commit.size + STORE_PIECE_SIZE - 1) / STORE_PIECE_SIZE);
    }
}

static void fuzz_put_end(const uint8_t *data, size_t len, struct buf *buf)
{
    struct store_put_end end, again;
    if (store_decode_put_end(data, len, &end) != STATUS_OK) return;
    ASSERT(store_encode_put_end(buf, &end) == STATUS_OK);
    ASSERT(store_decode_put_end(buf_data(buf), buf->len, &again) == STATUS_OK);
    ASSERT(block_key_equal(&end.stored.id, &again.stored.id));
}

static void fuzz_put_ends(const uint8_t *data, size_t len, struct buf *buf)
{
    struct store_put_ends ends, again;
    struct store_ended *list;
    size_t offset = 0;

    if (store_decode_put_ends(data, len, &ends) != STATUS_OK) return;
    list = calloc(ends.count, sizeof(*list));
    ASSERT(list != NULL);
    for (uint32_t i = 0; i < ends.count; i++)
        store_put_ends_at(&ends, i, &offset, &list[i]);
    ASSERT(store_encode_put_ends(buf, ends.name, ends.epoch, list, ends.count) == STATUS_OK);
    ASSERT(store_decode_put_ends(buf_data(buf), buf->len, &again) == STATUS_OK);
    ASSERT(again.count == ends.count);
    free(list);
}

/* Each of them could have come alone. */
static void fuzz_commits(const uint8_t *data, size_t len, struct buf *buf)
{
    struct store_commits commits;
    struct store_commits_iter iter = { 0 };
    struct store_commit commit;
    uint64_t size = 0;
    uint32_t count = 0;

    if (store_decode_commits(data, len, &commits) != STATUS_OK) return;
    for (; store_commits_next(&commits, &iter, &commit); count++) {
        uint64_t *sums = calloc(commit.sums.count, sizeof(*sums));
        uint32_t *parts = calloc(commit.parts.count + 1, sizeof(*parts));
        ASSERT(sums != NULL && parts != NULL);
        for (size_t i = 0; i < commit.sums.count; i++)
            sums[i] = msg_u64_at(commit.sums, i);
        for (size_t i = 0; i < commit.parts.count; i++)
            parts[i] = msg_u32_at(commit.parts, i);
        commit.sums_data = sums;
        commit.parts_data = commit.parts.count > 0 ? parts : NULL;
        commit.parts_count = (uint32_t)commit.parts.count;
        buf_clear(buf);
        ASSERT(store_encode_commit(buf, &commit) == STATUS_OK);
        struct store_commit again;
        ASSERT(store_decode_commit(buf_data(buf), buf->len, &again) == STATUS_OK);
        ASSERT(again.put_id == commit.put_id && again.sums.count == commit.sums.count);
        size += commit.size;
        free(sums);
        free(parts);
    }
    ASSERT(count == commits.count && count <= STORE_COMMITS_MAX && size <= STORE_OBJECT_SIZE_MAX);
}

static void fuzz_put_revokes(const uint8_t *data, size_t len, struct buf *buf)
{
    struct store_put_revokes revokes, again;
    size_t offset = 0;

    if (store_decode_put_revokes(data, len, &revokes) != STATUS_OK) return;
    struct store_put_revoke *list = calloc(revokes.count, sizeof(*list));
    ASSERT(list != NULL);
    for (uint32_t i = 0; i < revokes.count; i++)
        store_put_revokes_at(&revokes, i, &offset, &list[i]);
    ASSERT(store_encode_put_revokes(buf, list, revokes.count) == STATUS_OK);
    ASSERT(store_decode_put_revokes(buf_data(buf), buf->len, &again) == STATUS_OK);
    ASSERT(again.count == revokes.count);
    free(list);
}

static void fuzz_small(const uint8_t *data, size_t len)
{
    struct store_beat beat;
    struct store_put_revoke revoke;
    struct store_drop drop;
    struct store_copy copy;
    struct store_drain drain;
    struct store_events_request request;
    uint64_t number;
    if (store_decode_beat(data, len, &beat) == STATUS_OK) touched += beat.epoch;
    if (store_decode_term(data, len, &number) == STATUS_OK) touched += number;
    if (store_decode_pin(data, len, &number) == STATUS_OK) touched += number;
    if (store_decode_copy(data, len, &copy) == STATUS_OK) touched += copy.id.bytes[15];
    if (store_decode_drain(data, len, &drain) == STATUS_OK) touched += strlen(drain.name);
    if (store_decode_left(data, len, &number) == STATUS_OK) touched += number;
    if (store_decode_drop(data, len, &drop) == STATUS_OK) touched += drop.id.bytes[15];
    if (store_decode_events_request(data, len, &request) == STATUS_OK) touched += request.term;
    if (store_decode_put_revoke(data, len, &revoke) == STATUS_OK) {
        touch_bytes(revoke.key.bytes, revoke.key.len);
    }
}

static void fuzz_batch(const uint8_t *data, size_t len)
{
    struct store_batch batch;
    struct store_batch_iter iter = { 0 };
    uint32_t count = 0;
    if (store_decode_batch(data, len, &batch) != STATUS_OK) return;
    while (store_batch_next(&batch, &iter)) {
        ASSERT(iter.key.len > 0 && iter.key.len <= STORE_KEY_SIZE_MAX);
        touch_bytes(iter.key.bytes, iter.key.len);
        count++;
    }
    ASSERT(count == batch.count);
    struct store_wish wish;
    for (uint32_t i = 0; i < count; i++) {
        store_batch_wish(&batch, i, &wish);
        touched += wish.attributes.group;
    }
    for (const char *at = batch.next; at != NULL && *at != '\0'; at += strlen(at) + 1)
        ASSERT(strlen(at) < STORE_NAME_SIZE);
    touch_column(batch.sizes);
}

static void fuzz_places(const uint8_t *data, size_t len)
{
    static struct store_reply_node nodes[STORE_REPLY_NODES_MAX];
    struct store_places places;
    struct msg_column codes;
    if (store_decode_statuses(data, len, &codes) == STATUS_OK) {
        for (size_t i = 0; i < codes.count; i++) {
            touched += (uint64_t)(int)store_status_of(msg_u32_at(codes, i));
        }
    }
    if (store_decode_places(data, len, &places, nodes) != STATUS_OK) return;
    for (size_t i = 0; i < places.nodes.count; i++) {
        const uint32_t node = msg_u32_at(places.nodes, i);
        if (node < places.nodes_count) touched += (uint8_t)nodes[node].rpc_address[0];
    }
    touch_column(places.addresses);
    for (uint32_t i = 0; i < places.nodes.count; i++)
        touched += store_place_on_disk(&places, i);
    touch_column(places.put_ids);
    touch_column(places.sizes);
}

static void fuzz_look(const uint8_t *data, size_t len, struct buf *buf)
{
    struct store_look look, again;
    if (store_decode_look(data, len, &look) != STATUS_OK) return;
    touch_bytes(look.prefix, look.prefix_len);
    touch_bytes((const uint8_t *)look.regex, look.regex_len);
    ASSERT(store_encode_look(buf, &look) == STATUS_OK);
    ASSERT(store_decode_look(buf_data(buf), buf->len, &again) == STATUS_OK);
    ASSERT(again.op == look.op && again.limit == look.limit && again.cursor == look.cursor);
}

static void fuzz_page(const uint8_t *data, size_t len, struct buf *buf)
{
    static struct yolk_store_entry entries[YOLK_STORE_PAGE_MAX], entries_again[YOLK_STORE_PAGE_MAX];
    struct yolk_store_page page, again;
    if (store_decode_page(data, len, entries, &page) != STATUS_OK) return;
    for (uint32_t i = 0; i < page.count; i++)
        touch_bytes(entries[i].key.bytes, entries[i].key.len);
    ASSERT(store_encode_page(buf, &page) == STATUS_OK);
    ASSERT(store_decode_page(buf_data(buf), buf->len, entries_again, &again) == STATUS_OK);
    ASSERT(again.count == page.count && again.next == page.next);
}

static void fuzz_stats(const uint8_t *data, size_t len, struct buf *buf)
{
    static struct yolk_store_node nodes[YOLK_STORE_NODES_MAX], nodes_again[YOLK_STORE_NODES_MAX];
    struct yolk_store_stats stats, again;
    uint32_t count, count_again;
    if (store_decode_stats(data, len, &stats, nodes, &count) != STATUS_OK) return;
    ASSERT(store_encode_stats(buf, &stats, nodes, count) == STATUS_OK);
    ASSERT(store_decode_stats(buf_data(buf), buf->len, &again, nodes_again, &count_again) ==
           STATUS_OK);
    ASSERT(count == count_again && memcmp(&stats, &again, sizeof(stats)) == 0);
}

static void fuzz_tasks(const uint8_t *data, size_t len, struct buf *buf)
{
    struct store_task_ask ask, ask_again;
    struct yolk_store_task task, again;
    struct yolk_store_task_id id;

    if (store_decode_task_ask(data, len, &ask) == STATUS_OK) {
        touch_bytes(ask.key.bytes, ask.key.len);
        ASSERT(store_encode_task_ask(buf, &ask) == STATUS_OK);
        ASSERT(store_decode_task_ask(buf_data(buf), buf->len, &ask_again) == STATUS_OK);
        ASSERT(ask_again.to_count == ask.to_count && ask_again.move == ask.move);
    }
    buf_clear(buf);
    if (store_decode_task_id(data, len, &id) == STATUS_OK) touched += id.number;
    if (store_decode_task(data, len, &task) != STATUS_OK) return;
    ASSERT(store_encode_task(buf, &task) == STATUS_OK);
    ASSERT(store_decode_task(buf_data(buf), buf->len, &again) == STATUS_OK);
    ASSERT(again.state == task.state && again.done == task.done && again.size == task.size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct buf buf;
    if (len == 0) return 0;
    buf_init(&buf, 64 << 20);
    switch (data[0] % 18) {
    case 0: fuzz_register(data + 1, len - 1, &buf); break;
    case 1: fuzz_watch(data + 1, len - 1, &buf); break;
    case 2: fuzz_acquire(data + 1, len - 1, &buf); break;
    case 3: fuzz_acquired(data + 1, len - 1); break;
    case 4: fuzz_events(data + 1, len - 1, &buf); break;
    case 5: fuzz_commit(data + 1, len - 1); break;
    case 6: fuzz_put_end(data + 1, len - 1, &buf); break;
    case 7: fuzz_small(data + 1, len - 1); break;
    case 8: fuzz_batch(data + 1, len - 1); break;
    case 9: fuzz_places(data + 1, len - 1); break;
    case 10: fuzz_look(data + 1, len - 1, &buf); break;
    case 11: fuzz_page(data + 1, len - 1, &buf); break;
    case 12: fuzz_stats(data + 1, len - 1, &buf); break;
    case 13: fuzz_put_ends(data + 1, len - 1, &buf); break;
    case 14: fuzz_tenants(data + 1, len - 1, &buf); break;
    case 15: fuzz_tasks(data + 1, len - 1, &buf); break;
    case 16: fuzz_commits(data + 1, len - 1, &buf); break;
    case 17: fuzz_put_revokes(data + 1, len - 1, &buf); break;
    }
    buf_fini(&buf);
    return 0;
}
