/* SPDX-License-Identifier: Apache-2.0
 *
 * store/store_proto_test.c
 *
 * Goal:    what is sent arrives as it was; what does not fit together is refused; a field from a
 *          later version is skipped. Foreign bytes are store_proto_fuzz.c's.
 * Method:  each message by hand through its encoder and decoder. With YOLK_CORPUS=dir every message
 *          is also written there, as the fuzz target reads it. */
#include "store/proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "store/proto_int.h"

static struct buf buf;

static int setup(void **state)
{
    (void)state;
    buf_init(&buf, 1 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_fini(&buf);
    return 0;
}

static void keep(unsigned decoder, const char *name)
{
    const char *dir = getenv("YOLK_CORPUS");
    char path[512];
    if (dir == NULL) return;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputc((int)decoder, file);
    assert_int_equal(fwrite(buf_data(&buf), 1, buf.len, file), buf.len);
    fclose(file);
}

static struct store_member_info info_new(void)
{
    struct store_member_info info = {
        .name = "n1",
        .role = STORE_ROLE_DECODE,
        .rpc_address = "10.0.0.1:1",
        .segment = "10.0.0.1:2",
        .epoch = UINT64_MAX,
        .layout = { .pages = 9,
                    .page_size = 8192,
                    .layers = 2,
                    .layer_size = 4000,
                    .block_tokens = 32 },
    };
    memset(info.fingerprint, 7, sizeof(info.fingerprint));
    memset(info.layout.id, 8, sizeof(info.layout.id));
    return info;
}

static void members_arrive(void **state)
{
    const struct store_member_info info = info_new();
    struct store_register reg = { .info = info, .term_seen = 44 };
    struct store_register got;
    struct store_watch_item item = {
        .has_member = true, .gone = true, .term = 3, .state = STORE_MEMBER_SUSPECT, .info = info
    };
    struct store_watch_item item_got;
    const struct store_beat beat = { .name = "n1",
                                     .epoch = 5,
                                     .load = { .bytes = 1 << 30, .faults = 3, .damaged = 2 } };
    struct store_beat beat_got;
    (void)state;

    assert_int_equal(store_encode_register(&buf, &reg), STATUS_OK);
    keep(0, "register");
    assert_int_equal(store_decode_register(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_int_equal(got.term_seen, 44);
    assert_int_equal(got.notes.len, 0);
    assert_memory_equal(&got.info, &info, sizeof(info));

    buf_clear(&buf);
    assert_int_equal(store_encode_watch(&buf, &item), STATUS_OK);
    keep(1, "watch");
    assert_int_equal(store_decode_watch(buf_data(&buf), buf.len, &item_got), STATUS_OK);
    assert_memory_equal(&item_got.info, &item.info, sizeof(item.info));
    assert_true(item_got.has_member && item_got.gone && !item_got.synced);
    assert_int_equal(item_got.term, 3);
    assert_int_equal(item_got.state, STORE_MEMBER_SUSPECT);

    buf_clear(&buf);
    assert_int_equal(store_encode_beat(&buf, &beat), STATUS_OK);
    keep(7, "beat");
    assert_int_equal(store_decode_beat(buf_data(&buf), buf.len, &beat_got), STATUS_OK);
    assert_memory_equal(&beat_got, &beat, sizeof(beat));
}

static void a_member_without_a_layout_is_refused(void **state)
{
    struct store_register reg = { .info = info_new(), .term_seen = 77 };
    struct store_register got = { .term_seen = 1 };
    (void)state;

    reg.info.layout.layer_size = 5000; /* two of them do not fit the page */
    assert_int_equal(store_encode_register(&buf, &reg), STATUS_OK);
    assert_int_equal(store_decode_register(buf_data(&buf), buf.len, &got), STATUS_INVALID);
    assert_int_equal(got.term_seen, 1);
}

/* What the master asks its nodes to remember, there and back; and peers that know nothing of it. */
static void notes_arrive(void **state)
{
    const struct store_quota_note notes[] = { { "red", { 4096, 0 }, 7 },
                                              { "default", { 0, 3 }, 8 } };
    static struct store_quota_note notes_got[STORE_TENANTS_MAX];
    struct store_register reg = { .info = info_new() }, reg_got;
    struct store_beat beat = { .name = "n1", .epoch = 5 }, beat_got;
    struct store_beaten beaten = { .term = 9, .draining = true, .clock_ns = 8 }, beaten_got;
    struct buf bytes;
    uint32_t count = 0;
    (void)state;

    buf_init(&bytes, STORE_NOTES_SIZE_MAX);
    assert_int_equal(store_encode_notes(&bytes, notes, 2), STATUS_OK);
    reg.notes = (struct msg_bytes){ buf_data(&bytes), bytes.len };
    assert_int_equal(store_encode_register(&buf, &reg), STATUS_OK);
    keep(0, "register_with_notes");
    assert_int_equal(store_decode_register(buf_data(&buf), buf.len, &reg_got), STATUS_OK);
    assert_int_equal(store_decode_notes(reg_got.notes, notes_got, &count), STATUS_OK);
    assert_int_equal(count, 2);
    assert_memory_equal(notes_got, notes, sizeof(notes));
    for (size_t len = 0; len < bytes.len; len++) {
        const struct msg_bytes part = { buf_data(&bytes), len };
        assert_int_equal(store_decode_notes(part, notes_got, &count), STATUS_INVALID);
    }

    for (uint64_t version = 0; version < 2; version++) {
        beat.remembers = true;
        beat.notes_version = version;
        buf_clear(&buf);
        assert_int_equal(store_encode_beat(&buf, &beat), STATUS_OK);
        assert_int_equal(store_decode_beat(buf_data(&buf), buf.len, &beat_got), STATUS_OK);
        assert_true(beat_got.remembers && beat_got.notes_version == version);
        beaten.notes_version = version;
        beaten.notes = reg.notes;
        buf_clear(&buf);
        assert_int_equal(store_encode_beaten(&buf, &beaten), STATUS_OK);
        assert_int_equal(store_decode_beaten(buf_data(&buf), buf.len, &beaten_got), STATUS_OK);
        assert_true(beaten_got.draining && beaten_got.term == 9 && beaten_got.clock_ns == 8);
        assert_int_equal(beaten_got.notes_version, version);
        assert_int_equal(beaten_got.notes.len, version == 0 ? 0 : bytes.len);
    }
    buf_fini(&bytes);
}

static void acquire_arrives(void **state)
{
    uint8_t ids[3 * BLOCK_KEY_SIZE];
    const struct store_member_info info = info_new();
    const struct store_acquire request = {
        .prefix = true, .layout = info.layout, .ids = ids, .count = 3
    };
    struct store_acquire got;
    const uint64_t numbers[] = { 1, 0, UINT64_MAX, 4 };
    const struct store_acquired_out reply = {
        .head = { .pin = 9, .epoch = 8, .lease_ms = 7, .segment = "s:1" },
        .count = 3,
        .addresses = numbers,
        .generations = numbers,
        .sizes = numbers,
        .sums = numbers,
        .sums_count = 4,
    };
    struct store_acquired acquired;
    uint64_t pin = 0;
    (void)state;

    for (size_t i = 0; i < sizeof(ids); i++)
        ids[i] = (uint8_t)i;
    assert_int_equal(store_encode_acquire(&buf, &request), STATUS_OK);
    keep(2, "acquire");
    assert_int_equal(store_decode_acquire(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_int_equal(got.count, 3);
    assert_true(got.prefix && store_layout_matches(&got.layout, &info.layout));
    assert_memory_equal(got.ids, ids, sizeof(ids));
    assert_false(got.look);

    buf_clear(&buf);
    const struct store_acquire looking = {
        .class = STORE_CLASS_OBJECT, .ids = ids, .count = 3, .inline_max = 5, .look = true
    };
    assert_int_equal(store_encode_acquire(&buf, &looking), STATUS_OK);
    keep(2, "acquire_look");
    assert_int_equal(store_decode_acquire(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_true(got.look && got.count == 3 && got.inline_max == 5);

    buf_clear(&buf);
    assert_int_equal(store_encode_acquired(&buf, &reply), STATUS_OK);
    keep(3, "acquired");
    assert_int_equal(store_decode_acquired(buf_data(&buf), buf.len, &acquired), STATUS_OK);
    assert_int_equal(acquired.pin, 9);
    assert_int_equal(acquired.addresses.count, 3);
    assert_int_equal(msg_u64_at(acquired.sums, 3), 4);
    assert_string_equal(acquired.segment, "s:1");
    assert_false(acquired.vouched);
    assert_string_equal(acquired.board, "");

    buf_clear(&buf);
    struct store_acquired_out vouched = reply;
    vouched.head.vouched = true;
    snprintf(vouched.head.board, sizeof(vouched.head.board), "b:2");
    assert_int_equal(store_encode_acquired(&buf, &vouched), STATUS_OK);
    assert_int_equal(store_decode_acquired(buf_data(&buf), buf.len, &acquired), STATUS_OK);
    assert_true(acquired.vouched);
    assert_string_equal(acquired.board, "b:2");

    buf_clear(&buf);
    assert_int_equal(store_encode_pin(&buf, 123), STATUS_OK);
    assert_int_equal(store_decode_pin(buf_data(&buf), buf.len, &pin), STATUS_OK);
    assert_int_equal(pin, 123);
}

/* Values inside an answer: whole ones, together exactly the bytes; anything else is refused. */
static void inline_values_arrive(void **state)
{
    static const uint8_t first[] = "one", third[] = "three";
    const uint8_t ids[BLOCK_KEY_SIZE] = { 1 };
    const struct store_acquire request = {
        .class = STORE_CLASS_OBJECT, .ids = ids, .count = 1, .inline_max = 4096
    };
    struct store_acquire got = { 0 };
    const uint64_t addresses[] = { (uintptr_t)first, 5, (uintptr_t)third };
    uint64_t sizes[] = { 4, 77, 6 };
    uint32_t inlines[] = { 4, 0, 6 };
    const struct store_acquired_out reply = { .head = { .pin = 9 },
                                              .count = 3,
                                              .addresses = addresses,
                                              .generations = addresses,
                                              .sizes = sizes,
                                              .sums = addresses,
                                              .sums_count = 3,
                                              .inlines = inlines,
                                              .inline_len = 10 };
    struct store_acquired acquired = { 0 };
    (void)state;

    assert_int_equal(store_encode_acquire(&buf, &request), STATUS_OK);
    keep(2, "acquire_inline");
    assert_int_equal(store_decode_acquire(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_int_equal(got.inline_max, 4096);
    buf_clear(&buf);
    assert_int_equal(store_encode_acquired(&buf, &reply), STATUS_OK);
    keep(3, "acquired_inline");
    assert_int_equal(store_decode_acquired(buf_data(&buf), buf.len, &acquired), STATUS_OK);
    assert_int_equal(acquired.inlines.count, 3);
    assert_int_equal(msg_u32_at(acquired.inlines, 2), 6);
    assert_int_equal(acquired.bytes.len, 10);
    assert_memory_equal(acquired.bytes.data, "one\0three", 10);

    sizes[2] = 7; /* not the whole value */
    buf_clear(&buf);
    assert_int_equal(store_encode_acquired(&buf, &reply), STATUS_OK);
    assert_int_equal(store_decode_acquired(buf_data(&buf), buf.len, &acquired), STATUS_INVALID);
    sizes[2] = 6;
    struct store_acquired_out torn = reply;
    torn.inline_len = 11; /* more is announced than there is */
    buf_clear(&buf);
    assert_int_equal(store_encode_acquired(&buf, &torn), STATUS_OK);
    assert_int_equal(store_decode_acquired(buf_data(&buf), buf.len, &acquired), STATUS_INVALID);
}

static void events_arrive(void **state)
{
    static struct store_event got[STORE_EVENTS_BATCH_MAX];
    const struct store_key key = { (const uint8_t *)"a long key of an object", 23 };
    const struct store_event events[] = {
        { .kind = STORE_EVENT_STORED, .id = { "0123456789abcdef" }, .generation = 1, .size = 5 },
        { .kind = STORE_EVENT_STORED,
          .class = STORE_CLASS_OBJECT,
          .id = store_key_id(key),
          .key = key.bytes,
          .key_len = key.len,
          .address = 77,
          .doubt = true,
          .digest = 88,
          .attributes = { .term = 99 } },
        { .kind = STORE_EVENT_REMOVED, .class = STORE_CLASS_OBJECT, .id = store_key_id(key) },
        { .kind = STORE_EVENT_EXTENT, .class = STORE_CLASS_OBJECT, .address = 4096 },
    };
    uint64_t epoch;
    unsigned flags;
    uint32_t count;
    (void)state;

    assert_int_equal(store_encode_events(&buf, 3, STORE_EVENTS_RESET, events, 4), STATUS_OK);
    keep(4, "events");
    assert_int_equal(store_decode_events(buf_data(&buf), buf.len, &epoch, &flags, got, &count),
                     STATUS_OK);
    assert_int_equal(count, 4);
    assert_int_equal(flags, STORE_EVENTS_RESET);
    assert_true(block_key_equal(&got[0].id, &events[0].id));
    assert_null(got[0].key);
    assert_int_equal(got[1].key_len, key.len);
    assert_memory_equal(got[1].key, key.bytes, key.len);
    assert_int_equal(got[1].digest, 88);
    assert_int_equal(got[1].attributes.term, 99);
    assert_int_equal(got[0].attributes.term, 0);
    assert_true(got[1].doubt && !got[0].doubt && !got[2].doubt && !got[3].doubt);
    assert_int_equal(got[2].kind, STORE_EVENT_REMOVED);

    /* An identity that is not that of the key it comes with is nobody's. */
    struct store_event forged = events[1];
    forged.id.bytes[0] ^= 1;
    buf_clear(&buf);
    assert_int_equal(store_encode_events(&buf, 3, 0, &forged, 1), STATUS_OK);
    assert_int_equal(store_decode_events(buf_data(&buf), buf.len, &epoch, &flags, got, &count),
                     STATUS_INVALID);
}

/* Of a value that was written in parts; which must be the whole of it, none of them empty. */
static void commit_in_parts_arrives(const struct store_commit *whole)
{
    const uint64_t sums[] = { 7, 8, 9 };
    const uint32_t right[] = { 1, STORE_PIECE_SIZE - 1, 1 };
    const uint32_t wrong[][3] = { { 1, STORE_PIECE_SIZE, 1 },
                                  { 1, STORE_PIECE_SIZE, 0 },
                                  { 1, 1, 1 } };
    struct store_commit commit = *whole, got;

    commit.sums_data = sums;
    commit.parts_data = right;
    commit.parts_count = 3;
    commit.attributes.group = 5;
    buf_clear(&buf);
    assert_int_equal(store_encode_commit(&buf, &commit), STATUS_OK);
    keep(5, "commit_in_parts");
    assert_int_equal(store_decode_commit(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_int_equal(got.sums.count, 3);
    assert_int_equal(msg_u64_at(got.sums, 2), 9);
    assert_int_equal(got.parts.count, 3);
    assert_int_equal(msg_u32_at(got.parts, 1), STORE_PIECE_SIZE - 1);
    assert_int_equal(got.attributes.group, 5);
    for (size_t i = 0; i < 3; i++) {
        commit.parts_data = wrong[i];
        buf_clear(&buf);
        assert_int_equal(store_encode_commit(&buf, &commit), STATUS_OK);
        assert_int_equal(store_decode_commit(buf_data(&buf), buf.len, &got), STATUS_INVALID);
    }
}

static void puts_arrive(void **state)
{
    const uint64_t sums[] = { 5, 6 };
    const struct store_key key = { (const uint8_t *)"k\0y", 3 };
    struct store_commit commit = { .key = key,
                                   .put_id = 1,
                                   .term = 2,
                                   .epoch = 3,
                                   .address = 4,
                                   .size = STORE_PIECE_SIZE + 1,
                                   .sums_data = sums };
    struct store_commit commit_got;
    struct store_put_end end = { .name = "n1",
                                 .stored = { .key = key.bytes, .key_len = 3, .size = 9 } };
    struct store_put_end end_got;
    const struct store_put_revoke revoke = { .key = key, .put_id = 4, .writer = 5 };
    struct store_put_revoke revoke_got;
    const struct store_drop drop = { .term = 6, .id = { "fedcba9876543210" }, .generation = 7 };
    struct store_drop drop_got;
    (void)state;

    assert_int_equal(store_encode_commit(&buf, &commit), STATUS_OK);
    keep(5, "commit");
    assert_int_equal(store_decode_commit(buf_data(&buf), buf.len, &commit_got), STATUS_OK);
    assert_int_equal(commit_got.sums.count, 2);
    assert_int_equal(msg_u64_at(commit_got.sums, 1), 6);
    assert_memory_equal(commit_got.key.bytes, key.bytes, 3);
    assert_int_equal(commit_got.attributes.term, 0);
    assert_int_equal(commit_got.parts.count, 0);
    commit_in_parts_arrives(&commit);

    buf_clear(&buf);
    assert_int_equal(store_encode_put_end(&buf, &end), STATUS_OK);
    keep(6, "put_end");
    assert_int_equal(store_decode_put_end(buf_data(&buf), buf.len, &end_got), STATUS_OK);
    const struct block_key id = store_key_id(key);
    assert_true(block_key_equal(&end_got.stored.id, &id));
    assert_int_equal(end_got.stored.attributes.term, 0);

    /* Of a copy, which is of another term than its ticket; with or without other attributes. */
    for (uint32_t version = 0; version < 2; version++) {
        commit.attributes = end.stored.attributes =
            (struct store_attributes){ .term = 1, .version = version };
        buf_clear(&buf);
        assert_int_equal(store_encode_commit(&buf, &commit), STATUS_OK);
        keep(5, "commit_dated");
        assert_int_equal(store_decode_commit(buf_data(&buf), buf.len, &commit_got), STATUS_OK);
        assert_int_equal(commit_got.attributes.term, 1);
        assert_int_equal(commit_got.attributes.version, version);
        buf_clear(&buf);
        assert_int_equal(store_encode_put_end(&buf, &end), STATUS_OK);
        keep(6, "put_end_dated");
        assert_int_equal(store_decode_put_end(buf_data(&buf), buf.len, &end_got), STATUS_OK);
        assert_int_equal(end_got.stored.attributes.term, 1);
        assert_int_equal(end_got.stored.attributes.version, version);
    }

    buf_clear(&buf);
    assert_int_equal(store_encode_put_revoke(&buf, &revoke), STATUS_OK);
    keep(7, "revoke");
    assert_int_equal(store_decode_put_revoke(buf_data(&buf), buf.len, &revoke_got), STATUS_OK);
    assert_int_equal(revoke_got.writer, 5);

    buf_clear(&buf);
    assert_int_equal(store_encode_drop(&buf, &drop), STATUS_OK);
    keep(7, "drop");
    assert_int_equal(store_decode_drop(buf_data(&buf), buf.len, &drop_got), STATUS_OK);
    assert_memory_equal(&drop_got, &drop, sizeof(drop));
}

static void ends_arrive_together(void **state)
{
    const struct store_ended ends[] = {
        { 7, { .key = (const uint8_t *)"one", .key_len = 3, .generation = 4, .size = 9 } },
        { 8,
          { .key = (const uint8_t *)"2", .key_len = 1, .address = 4096, .size = 1, .digest = 5 } },
    };
    struct store_ended with = ends[0];
    struct store_put_ends got;
    struct store_ended ended;
    size_t offset = 0;
    (void)state;

    assert_int_equal(store_encode_put_ends(&buf, "n1", 3, ends, 2), STATUS_OK);
    keep(13, "put_ends");
    assert_int_equal(store_decode_put_ends(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_int_equal(got.count, 2);
    assert_int_equal(got.epoch, 3);
    assert_string_equal(got.name, "n1");
    store_put_ends_at(&got, 0, &offset, &ended);
    assert_int_equal(ended.put_id, 7);
    assert_int_equal(ended.stored.generation, 4);
    store_put_ends_at(&got, 1, &offset, &ended);
    assert_memory_equal(ended.stored.key, "2", 1);
    assert_int_equal(ended.stored.address, 4096);
    assert_int_equal(ended.stored.digest, 5);
    const struct block_key id = store_key_id((struct store_key){ (const uint8_t *)"2", 1 });
    assert_true(block_key_equal(&ended.stored.id, &id));

    buf_clear(&buf);
    with.stored.attributes = (struct store_attributes){ .cost = 6, .term = 12 };
    assert_int_equal(store_encode_put_ends(&buf, "n1", 3, &with, 1), STATUS_OK);
    assert_int_equal(store_decode_put_ends(buf_data(&buf), buf.len, &got), STATUS_OK);
    offset = 0;
    store_put_ends_at(&got, 0, &offset, &ended);
    assert_int_equal(ended.stored.attributes.cost, 6);
    assert_int_equal(ended.stored.attributes.term, 12);

    buf_clear(&buf);
    with.stored.size = 0; /* no value */
    assert_int_equal(store_encode_put_ends(&buf, "n1", 3, &with, 1), STATUS_OK);
    assert_int_equal(store_decode_put_ends(buf_data(&buf), buf.len, &got), STATUS_INVALID);
}

/* One in pieces and one in parts, of a column each. */
static void commits_arrive_together(void **state)
{
    const uint64_t sums[] = { 5, 6, 7, 8 };
    const uint32_t parts[] = { STORE_PIECE_SIZE - 1, 1, 1 };
    struct store_commit both[] = {
        { .key = { (const uint8_t *)"one", 3 },
          .put_id = 7,
          .term = 2,
          .epoch = 3,
          .address = 4096,
          .size = STORE_PIECE_SIZE + 1,
          .sums_data = sums },
        { .key = { (const uint8_t *)"2", 1 },
          .put_id = 8,
          .term = 2,
          .epoch = 3,
          .address = 8192,
          .size = STORE_PIECE_SIZE + 1,
          .sums_data = sums + 1,
          .parts_data = parts,
          .parts_count = 3,
          .attributes = { .cost = 6 } },
    };
    struct store_commits got;
    struct store_commits_iter iter = { 0 };
    struct store_commit one;
    (void)state;

    assert_int_equal(store_encode_commits(&buf, both, 2), STATUS_OK);
    keep(16, "commits");
    assert_int_equal(store_decode_commits(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_int_equal(got.count, 2);
    assert_true(store_commits_next(&got, &iter, &one));
    assert_int_equal(one.put_id, 7);
    assert_int_equal(one.term, 2);
    assert_int_equal(one.epoch, 3);
    assert_int_equal(one.sums.count, 2);
    assert_int_equal(msg_u64_at(one.sums, 1), 6);
    assert_int_equal(one.parts.count, 0);
    assert_int_equal(one.attributes.cost, 0);
    assert_true(store_commits_next(&got, &iter, &one));
    assert_int_equal(one.key.len, 1);
    assert_memory_equal(one.key.bytes, "2", 1);
    assert_int_equal(one.address, 8192);
    assert_int_equal(one.sums.count, 3);
    assert_int_equal(msg_u64_at(one.sums, 0), 6);
    assert_int_equal(one.parts.count, 3);
    assert_int_equal(msg_u32_at(one.parts, 0), STORE_PIECE_SIZE - 1);
    assert_int_equal(one.attributes.cost, 6);
    assert_false(store_commits_next(&got, &iter, &one));

    both[1].parts_count = 2; /* less than the value */
    buf_clear(&buf);
    assert_int_equal(store_encode_commits(&buf, both, 2), STATUS_OK);
    assert_int_equal(store_decode_commits(buf_data(&buf), buf.len, &got), STATUS_INVALID);
    const uint64_t *many = calloc(STORE_PIECES_MAX, sizeof(*many)); /* more than an owner reads */
    both[0].size = STORE_OBJECT_SIZE_MAX;
    both[0].sums_data = many;
    both[1].parts_count = 3;
    buf_clear(&buf);
    assert_int_equal(store_encode_commits(&buf, both, 2), STATUS_OK);
    assert_int_equal(store_decode_commits(buf_data(&buf), buf.len, &got), STATUS_INVALID);
    buf_clear(&buf);
    assert_int_equal(store_encode_commits(&buf, both, 1), STATUS_OK);
    assert_int_equal(store_decode_commits(buf_data(&buf), buf.len, &got), STATUS_OK);
    free((void *)(uintptr_t)many);
}

static void revokes_arrive_together(void **state)
{
    const struct store_put_revoke revokes[] = {
        { .key = { (const uint8_t *)"one", 3 }, .put_id = 7, .writer = 8 },
        { .key = { (const uint8_t *)"2", 1 }, .put_id = 9, .writer = UINT64_MAX },
    };
    struct store_put_revokes got;
    struct store_put_revoke one;
    size_t offset = 0;
    (void)state;

    assert_int_equal(store_encode_put_revokes(&buf, revokes, 2), STATUS_OK);
    keep(17, "put_revokes");
    assert_int_equal(store_decode_put_revokes(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_int_equal(got.count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        store_put_revokes_at(&got, i, &offset, &one);
        assert_int_equal(one.key.len, revokes[i].key.len);
        assert_memory_equal(one.key.bytes, revokes[i].key.bytes, one.key.len);
        assert_int_equal(one.put_id, revokes[i].put_id);
        assert_true(one.writer == revokes[i].writer);
    }
    assert_int_equal(store_decode_put_revokes(buf_data(&buf), buf.len - 1, &got), STATUS_INVALID);
}

static void batches_arrive(void **state)
{
    const struct store_key keys[] = { { (const uint8_t *)"one", 3 }, { (const uint8_t *)"2", 1 } };
    const uint64_t sizes[] = { 10, 20 };
    struct store_batch batch = { .count = 2, .keys_data = keys, .force = true };
    struct store_batch got;
    struct store_batch_iter iter = { 0 };
    (void)state;

    assert_int_equal(store_encode_batch(&buf, &batch), STATUS_OK);
    keep(8, "batch");
    assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &got), STATUS_OK);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(store_batch_next(&got, &iter));
        assert_int_equal(iter.key.len, keys[i].len);
        assert_memory_equal(iter.key.bytes, keys[i].bytes, keys[i].len);
    }
    assert_false(store_batch_next(&got, &iter));
    assert_true(got.force && got.sizes.count == 0);

    buf_clear(&buf);
    batch.sizes_data = sizes;
    batch.writer = 9;
    snprintf(batch.preferred, sizeof(batch.preferred), "n2");
    assert_int_equal(store_encode_batch(&buf, &batch), STATUS_OK);
    keep(8, "batch_put");
    assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_int_equal(msg_u64_at(got.sizes, 1), 20);
    assert_string_equal(got.preferred, "n2");
    assert_true(got.next == NULL && !got.together && !got.soft_pin_off);

    buf_clear(&buf);
    batch.next = "n3\0n4\0";
    batch.next_len = sizeof("n3\0n4\0");
    batch.together = true;
    batch.soft_pin_off = true;
    assert_int_equal(store_encode_batch(&buf, &batch), STATUS_OK);
    keep(8, "batch_put_wishes");
    assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_memory_equal(got.next, batch.next, batch.next_len);
    assert_true(got.together && got.soft_pin_off);
}

static void names_that_do_not_end_are_refused(void **state)
{
    char long_name[STORE_NAME_SIZE + 2] = { 0 };
    const struct {
        const char *names;
        size_t len;
        enum status status;
    } cases[] = {
        { "a\0b\0", 5, STATUS_OK },
        { "", 1, STATUS_OK },
        { "a\0b\0", 4, STATUS_INVALID },
        { "a", 1, STATUS_INVALID },
        { "a\0\0b\0", 6, STATUS_INVALID },
        { "ab", 2, STATUS_INVALID },
        { long_name, sizeof(long_name), STATUS_INVALID },
    };
    const struct store_key keys[] = { { (const uint8_t *)"k", 1 } };
    const uint64_t sizes[] = { 1 };
    struct store_batch batch = { .count = 1, .keys_data = keys, .sizes_data = sizes };
    struct store_batch got;
    (void)state;

    memset(long_name, 'x', STORE_NAME_SIZE);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        buf_clear(&buf);
        batch.next = cases[i].names;
        batch.next_len = cases[i].len;
        assert_int_equal(store_encode_batch(&buf, &batch), STATUS_OK);
        assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &got), cases[i].status);
    }
}

/* A batch whose lengths and keys do not agree, with a field that we do not know. */
static void batch_by_hand(uint32_t second_len, const char *keys)
{
    const uint32_t lens[] = { 3, second_len };
    struct msg_writer writer;
    buf_clear(&buf);
    msg_writer_init(&writer, &buf);
    msg_put_map(&writer, 3);
    msg_field_text(&writer, 999, "from a later version");
    msg_field_u32s(&writer, 1, lens, 2);
    msg_field_bin(&writer, 2, keys, strlen(keys));
    assert_int_equal(writer.status, STATUS_OK);
}

static void what_does_not_fit_together_is_refused(void **state)
{
    struct store_batch got;
    (void)state;

    batch_by_hand(2, "onetw");
    assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &got), STATUS_OK);
    batch_by_hand(2, "onetwo");
    assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &got), STATUS_INVALID);
    batch_by_hand(3, "onetw");
    assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &got), STATUS_INVALID);
    batch_by_hand(0, "one");
    assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &got), STATUS_INVALID);
    batch_by_hand(UINT32_MAX, "on");
    assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &got), STATUS_INVALID);
}

static void places_arrive(void **state)
{
    static struct store_reply_node nodes[STORE_REPLY_NODES_MAX];
    const uint32_t codes[] = { 0, store_status_code(STATUS_NOT_FOUND) };
    const uint64_t sizes[] = { 100, 0 };
    const uint32_t counts[] = { 2, 0 };
    uint32_t places[] = { 0, 1 };
    const uint64_t addresses[] = { 11, 22 };
    const struct store_reply_node list[] = { { "a:1", "a:2", 1 }, { "b:1", "b:2", 2 } };
    const struct store_places_out reply = { .count = 2,
                                            .replicas_count = 2,
                                            .term = 3,
                                            .codes = codes,
                                            .sizes = sizes,
                                            .counts = counts,
                                            .nodes = places,
                                            .addresses = addresses,
                                            .node_list = list,
                                            .nodes_count = 2 };
    const uint32_t disks[] = { 0, 1 };
    struct store_places_out below = reply;
    struct store_places got;
    (void)state;

    assert_int_equal(store_encode_places(&buf, &reply), STATUS_OK);
    keep(9, "places");
    assert_int_equal(store_decode_places(buf_data(&buf), buf.len, &got, nodes), STATUS_OK);
    assert_int_equal(got.count, 2);
    assert_int_equal(store_status_of(msg_u32_at(got.codes, 1)), STATUS_NOT_FOUND);
    assert_string_equal(nodes[1].segment, "b:2");
    assert_int_equal(msg_u64_at(got.addresses, 1), 22);
    assert_false(store_place_on_disk(&got, 1));

    below.disks = disks;
    buf_clear(&buf);
    assert_int_equal(store_encode_places(&buf, &below), STATUS_OK);
    keep(9, "places_disk");
    assert_int_equal(store_decode_places(buf_data(&buf), buf.len, &got, nodes), STATUS_OK);
    assert_false(store_place_on_disk(&got, 0));
    assert_true(store_place_on_disk(&got, 1));
    assert_false(store_place_yields(&got, 1));

    below.yields = disks;
    below.disks = NULL;
    buf_clear(&buf);
    assert_int_equal(store_encode_places(&buf, &below), STATUS_OK);
    keep(9, "places_yields");
    assert_int_equal(store_decode_places(buf_data(&buf), buf.len, &got, nodes), STATUS_OK);
    assert_false(store_place_yields(&got, 0));
    assert_true(store_place_yields(&got, 1));
    assert_false(store_place_on_disk(&got, 1));

    places[1] = 2; /* a node that is not in the list */
    buf_clear(&buf);
    assert_int_equal(store_encode_places(&buf, &reply), STATUS_OK);
    assert_int_equal(store_decode_places(buf_data(&buf), buf.len, &got, nodes), STATUS_INVALID);
}

static void pages_arrive(void **state)
{
    static struct yolk_store_entry entries_got[YOLK_STORE_PAGE_MAX];
    const struct yolk_store_entry entries[] = {
        { { "one", 3 }, STATUS_OK, false, 77, 2, 500, true, false },
        { { "\0\xff", 2 }, STATUS_BUSY, true, 1u << 30, 0, 0, false, true },
    };
    const struct yolk_store_page page = { .next = 99,
                                          .entries = entries,
                                          .count = 2,
                                          .matched = 3,
                                          .bytes = 4,
                                          .removed = 5,
                                          .kept = 6 };
    const struct yolk_store_page none = { .matched = 8 };
    struct yolk_store_page got;
    (void)state;

    assert_int_equal(store_encode_page(&buf, &page), STATUS_OK);
    keep(11, "page");
    assert_int_equal(store_decode_page(buf_data(&buf), buf.len, entries_got, &got), STATUS_OK);
    assert_true(got.next == 99 && got.count == 2 && got.matched == 3 && got.bytes == 4);
    assert_true(got.removed == 5 && got.kept == 6);
    assert_memory_equal(got.entries[0].key.bytes, "one", 3);
    assert_memory_equal(got.entries[1].key.bytes, "\0\xff", 2);
    assert_true(got.entries[0].lease_ms == 500 && got.entries[0].replicas == 2);
    assert_true(got.entries[0].hard_pin && !got.entries[0].soft_pin && got.entries[1].soft_pin);
    assert_true(got.entries[1].block && got.entries[1].status == STATUS_BUSY);
    assert_int_equal(got.entries[1].size, 1u << 30);

    buf_clear(&buf);
    assert_int_equal(store_encode_page(&buf, &none), STATUS_OK);
    assert_int_equal(store_decode_page(buf_data(&buf), buf.len, entries_got, &got), STATUS_OK);
    assert_true(got.next == 0 && got.count == 0 && got.matched == 8);
}

static void questions_arrive(void **state)
{
    const struct store_look look = { .op = STORE_LOOK_REMOVE,
                                     .cursor = UINT64_MAX,
                                     .prefix = (const uint8_t *)"pre",
                                     .prefix_len = 3,
                                     .regex = "x+",
                                     .regex_len = 2,
                                     .limit = 10,
                                     .blocks = true,
                                     .force = true };
    const struct store_key key = { (const uint8_t *)"k", 1 };
    const struct store_batch batch = { .count = 1, .keys_data = &key, .peek = true };
    struct store_batch batch_got;
    struct store_look got;
    (void)state;

    assert_int_equal(store_encode_look(&buf, &look), STATUS_OK);
    keep(10, "look");
    assert_int_equal(store_decode_look(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_true(got.op == STORE_LOOK_REMOVE && got.cursor == UINT64_MAX && got.limit == 10);
    assert_true(got.blocks && got.force && got.prefix_len == 3 && got.regex_len == 2);
    assert_memory_equal(got.regex, "x+", 2);

    buf_clear(&buf);
    assert_int_equal(buf_append(&buf, "\x80", 1), STATUS_OK); /* an empty map: a first page */
    assert_int_equal(store_decode_look(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_true(got.op == STORE_LOOK_LIST && got.regex == NULL && got.limit > 0);

    buf_clear(&buf);
    assert_int_equal(store_encode_batch(&buf, &batch), STATUS_OK);
    assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &batch_got), STATUS_OK);
    assert_true(batch_got.peek && !batch_got.force);
}

static void copies_and_drains_arrive(void **state)
{
    const struct store_copy copy = { .term = 1,
                                     .id = { { 2 } },
                                     .generation = 3,
                                     .put_id = 4,
                                     .rpc_address = "a:1",
                                     .segment = "a:2",
                                     .address = 5,
                                     .epoch = 6,
                                     .put_ms = 7,
                                     .until_ns = 8 };
    const struct store_drain drain = { .name = "n1", .undo = true };
    struct store_copy copy_got;
    struct store_drain drain_got;
    uint64_t left = 9;
    (void)state;

    assert_int_equal(store_encode_copy(&buf, &copy), STATUS_OK);
    keep(7, "copy");
    assert_int_equal(store_decode_copy(buf_data(&buf), buf.len, &copy_got), STATUS_OK);
    assert_memory_equal(&copy_got, &copy, sizeof(copy));
    struct store_copy hot = copy;
    hot.hot = true;
    buf_clear(&buf);
    assert_int_equal(store_encode_copy(&buf, &hot), STATUS_OK);
    assert_int_equal(store_decode_copy(buf_data(&buf), buf.len, &copy_got), STATUS_OK);
    assert_memory_equal(&copy_got, &hot, sizeof(hot));
    buf_clear(&buf);
    assert_int_equal(store_encode_drain(&buf, &drain), STATUS_OK);
    keep(7, "drain");
    assert_int_equal(store_decode_drain(buf_data(&buf), buf.len, &drain_got), STATUS_OK);
    assert_string_equal(drain_got.name, "n1");
    assert_true(drain_got.undo && !drain_got.unmount);
    const struct store_drain unmount = { .name = "n2", .unmount = true, .keeps_max = 1 << 20 };
    buf_clear(&buf);
    assert_int_equal(store_encode_drain(&buf, &unmount), STATUS_OK);
    assert_int_equal(store_decode_drain(buf_data(&buf), buf.len, &drain_got), STATUS_OK);
    assert_true(drain_got.unmount && !drain_got.undo && drain_got.keeps_max == 1 << 20);
    buf_clear(&buf);
    assert_int_equal(store_encode_left(&buf, 0), STATUS_OK);
    assert_int_equal(store_decode_left(buf_data(&buf), buf.len, &left), STATUS_OK);
    assert_int_equal(left, 0);
}

/* Each attribute has bits of its own. */
static void attributes_are_apart(void **state)
{
    const struct store_attributes each[] = {
        { .group = UINT64_MAX }, { .version = UINT32_MAX },     { .cost = UINT32_MAX },
        { .depth = UINT16_MAX }, { .replicas = UINT8_MAX },     { .hard_pin = true },
        { .hot = true },         { .soft_pin_ms = UINT32_MAX },
    };
    uint64_t numbers[STORE_ATTRIBUTE_NUMBERS], all[STORE_ATTRIBUTE_NUMBERS] = { 0 };
    (void)state;

    for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
        assert_true(store_attributes_any(&each[i]));
        store_attributes_pack(&each[i], numbers);
        for (size_t n = 0; n < STORE_ATTRIBUTE_NUMBERS; n++) {
            assert_int_equal(all[n] & numbers[n], 0);
            all[n] |= numbers[n];
        }
    }
}

/* What was wished for at the put, and an old reader or writer that knows nothing of it. */
static void wishes_arrive(void **state)
{
    const struct store_key keys[] = { { (const uint8_t *)"a", 1 }, { (const uint8_t *)"b", 1 } };
    const uint64_t sizes[] = { 1, 2 }, groups[] = { 0, 7 };
    const uint32_t costs[] = { 5, 0 }, depths[] = { 0, 100000 };
    struct store_batch batch = { .count = 2,
                                 .keys_data = keys,
                                 .sizes_data = sizes,
                                 .writer = 3,
                                 .hard_pin = true,
                                 .replace = true,
                                 .soft_pin_ms = 44,
                                 .write_ms = 45,
                                 .replicas = 2,
                                 .groups_data = groups,
                                 .costs_data = costs,
                                 .depths_data = depths };
    struct store_batch got;
    struct store_wish wish;
    (void)state;

    assert_int_equal(store_encode_batch(&buf, &batch), STATUS_OK);
    keep(8, "wishes");
    assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &got), STATUS_OK);
    store_batch_wish(&got, 1, &wish);
    assert_true(wish.replace && wish.attributes.hard_pin && wish.soft_pin_ms == 44);
    assert_int_equal(wish.write_ms, 45);
    assert_true(wish.attributes.replicas == 2 && wish.attributes.group == 7);
    assert_true(wish.attributes.cost == 0 && wish.attributes.depth == UINT16_MAX);
    buf_clear(&buf);
    batch = (struct store_batch){ .count = 2, .keys_data = keys, .sizes_data = sizes };
    assert_int_equal(store_encode_batch(&buf, &batch), STATUS_OK);
    assert_int_equal(store_decode_batch(buf_data(&buf), buf.len, &got), STATUS_OK);
    store_batch_wish(&got, 0, &wish);
    assert_true(!wish.replace && wish.attributes.replicas == 0 && wish.preferred == NULL);
}

static void numbers_arrive(void **state)
{
    static struct yolk_store_node nodes_got[YOLK_STORE_NODES_MAX];
    const struct yolk_store_node node = {
        "n1", "store", "alive", "10.0.0.1:1", 100, 50, 7, 8, 9, 10
    };
    const struct yolk_store_stats stats = { .term = 1, .objects = 2, .values = 3 };
    struct yolk_store_stats got;
    uint32_t count = 0;
    (void)state;

    assert_int_equal(store_encode_stats(&buf, &stats, &node, 1), STATUS_OK);
    keep(12, "stats");
    assert_int_equal(store_decode_stats(buf_data(&buf), buf.len, &got, nodes_got, &count),
                     STATUS_OK);
    assert_memory_equal(&got, &stats, sizeof(stats));
    assert_int_equal(count, 1);
    assert_memory_equal(&nodes_got[0], &node, sizeof(node));
}

static void tenants_arrive(void **state)
{
    static struct yolk_store_tenant got[YOLK_STORE_TENANTS_MAX];
    const struct yolk_store_tenant tenants[2] = { { "default", 0, 0, 1, 2, 3, 4, 5, 6 },
                                                  { "red", 1u << 30, 9, 8, 7, 6, 5, 4, 3 } };
    uint32_t count = 0;
    (void)state;

    assert_int_equal(store_encode_tenants(&buf, tenants, 2), STATUS_OK);
    keep(14, "tenants");
    assert_int_equal(store_decode_tenants(buf_data(&buf), buf.len, got, &count), STATUS_OK);
    assert_int_equal(count, 2);
    assert_memory_equal(got, tenants, sizeof(tenants));
    buf_clear(&buf);
    assert_int_equal(store_encode_quota(&buf, &tenants[1]), STATUS_OK);
    assert_int_equal(store_decode_quota(buf_data(&buf), buf.len, &got[0]), STATUS_OK);
    assert_memory_equal(&got[0], &tenants[1], sizeof(got[0]));
    buf_clear(&buf);
    assert_int_equal(store_encode_quota(&buf, NULL), STATUS_OK);
    assert_int_equal(store_decode_quota(buf_data(&buf), buf.len, &got[0]), STATUS_OK);
    assert_int_equal(got[0].name[0], 0);
}

/* To the release before, which knows only the first column, what is being written is busy. */
static void removals_arrive(void **state)
{
    const uint32_t codes[] = { 0, 7, 6, 3 }, busy[] = { 0, 7 };
    static const uint8_t older[] = { 0, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0 };
    struct msg_column got;
    struct msg_reader reader;
    struct msg_writer writer;
    uint64_t key;
    (void)state;

    assert_int_equal(store_encode_removals(&buf, codes, 4), STATUS_OK);
    msg_reader_init(&reader, buf_data(&buf), buf.len);
    uint32_t left = msg_get_map(&reader);
    assert_true(msg_next_key(&reader, &left, &key));
    assert_int_equal(key, 1);
    const struct msg_bytes bytes = msg_get_bin(&reader, sizeof(older));
    assert_int_equal(bytes.len, sizeof(older));
    assert_memory_equal(bytes.data, older, sizeof(older));
    assert_int_equal(store_decode_statuses(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_int_equal(got.count, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(msg_u32_at(got, i), codes[i]);

    buf_clear(&buf);
    assert_int_equal(store_encode_removals(&buf, busy, 2), STATUS_OK); /* one column says it all */
    assert_int_equal(store_decode_statuses(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_int_equal(msg_u32_at(got, 1), 7);
    buf_clear(&buf);
    msg_writer_init(&writer, &buf);
    msg_put_map(&writer, 2);
    msg_field_u32s(&writer, 1, codes, 4);
    msg_field_u32s(&writer, 2, busy, 2);
    assert_int_equal(store_decode_statuses(buf_data(&buf), buf.len, &got), STATUS_INVALID);
}

static void statuses_have_codes(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++) {
        const enum status status = (enum status) - i;
        const bool known = strcmp(status_name(status), "unknown") != 0;
        assert_int_equal(store_status_of(store_status_code(status)),
                         known ? status : STATUS_PROTOCOL);
    }
    assert_int_equal(store_status_of(UINT32_MAX), STATUS_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(members_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(a_member_without_a_layout_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(acquire_arrives, setup, teardown),
        cmocka_unit_test_setup_teardown(inline_values_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(events_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(puts_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(ends_arrive_together, setup, teardown),
        cmocka_unit_test_setup_teardown(commits_arrive_together, setup, teardown),
        cmocka_unit_test_setup_teardown(revokes_arrive_together, setup, teardown),
        cmocka_unit_test_setup_teardown(batches_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(what_does_not_fit_together_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(names_that_do_not_end_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(places_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(pages_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(questions_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(copies_and_drains_arrive, setup, teardown),
        cmocka_unit_test(attributes_are_apart),
        cmocka_unit_test_setup_teardown(notes_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(wishes_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(numbers_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(tenants_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(removals_arrive, setup, teardown),
        cmocka_unit_test(statuses_have_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
