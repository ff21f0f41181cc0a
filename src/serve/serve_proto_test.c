/* SPDX-License-Identifier: Apache-2.0
 *
 * serve/serve_proto_test.c
 *
 * Goal:   what is encoded is what is decoded; what a peer must not send is refused; a message of a
 *         later version, with fields that we do not know, is understood.
 * Method: one full message of each kind, cut at every length, with fields left out, doubled or out
 * of range. YOLK_CORPUS=dir writes the messages as a start for the fuzzer. */
#include "serve/proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "conductor/keys.h"
#include "net/msg.h"

static const uint32_t tokens[] = { 1, 2, 0xffffffff, 7, 5 };
static const struct block_key keys[] = { { { 1, 2, 3 } }, { { 255, 4 } } };
static const uint64_t addresses[] = { 4096, UINT64_MAX, 12 };

static void save(const char *name, uint8_t which, const struct buf *message)
{
    char path[512];
    const char *directory = getenv("YOLK_CORPUS");
    if (directory == NULL) return;
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputc(which, file);
    fwrite(buf_data(message), 1, message->len, file);
    fclose(file);
}

static const uint32_t bias_tokens[] = { 7, 49151 };
static const float biases[] = { -100, 0.5f };

/* -1.5, in the third place, and token 49151 with -0.25: see infer/logprobs.h. */
static const uint32_t row[] = { 0xbfc00000, 3, 49151, 0xbe800000 };

static struct proto_sequence some_sequence(void)
{
    return (struct proto_sequence){
        .request_id = 0x1122334455667788,
        .attempt = 3,
        .tokens = proto_u32s_of(tokens, 5),
        .keys = keys,
        .keys_count = 2,
        .salt = &keys[1],
        .sampling = { .temperature = 0.7,
                      .top_p = 0.9,
                      .seed = UINT64_MAX,
                      .min_p = 0.05,
                      .repetition = 1.1,
                      .frequency = -2,
                      .presence = 2,
                      .top_k = 40,
                      .bias_tokens = proto_u32s_of(bias_tokens, 2),
                      .biases = proto_u32s_of((const uint32_t *)(const void *)biases, 2),
                      .held = proto_u32s_of(bias_tokens, 1),
                      .held_until = 5,
                      .grammar = { (const uint8_t *)"{\"object\":true}", 15 },
                      .logprobs = 1 + PROTO_TOP_MAX,
                      .scores = 3 },
        .generated_before = 4,
        .plan = { .reuse_blocks = 2, .holder = "10.0.0.1:7000" },
        .priority = -8,
        .tenant = UINT64_MAX - 1,
        .later_us = PROTO_LATER_US_MAX,
    };
}

static void expect_sequence(const struct proto_sequence *got)
{
    const struct proto_sequence want = some_sequence();
    uint32_t copy[5];
    assert_int_equal(got->request_id, want.request_id);
    assert_int_equal(got->attempt, want.attempt);
    assert_int_equal(got->tokens.count, 5);
    proto_u32s_copy(got->tokens, copy);
    assert_memory_equal(copy, tokens, sizeof(tokens));
    assert_int_equal(proto_u32_at(got->tokens, 2), 0xffffffff);
    assert_int_equal(got->keys_count, 2);
    assert_memory_equal(got->keys, keys, sizeof(keys));
    assert_true(block_key_equal(got->salt, &keys[1]));
    assert_true(got->sampling.temperature == 0.7 && got->sampling.top_p == 0.9);
    assert_int_equal(got->sampling.seed, UINT64_MAX);
    assert_true(got->sampling.min_p == 0.05 && got->sampling.repetition == 1.1);
    assert_true(got->sampling.frequency == -2 && got->sampling.presence == 2);
    assert_int_equal(got->sampling.top_k, 40);
    assert_int_equal(got->sampling.bias_tokens.count, 2);
    assert_int_equal(proto_u32_at(got->sampling.bias_tokens, 1), bias_tokens[1]);
    assert_true(proto_bias_at(&got->sampling, 1) == biases[1]);
    assert_int_equal(proto_u32_at(got->sampling.held, 0), bias_tokens[0]);
    assert_int_equal(got->sampling.held_until, 5);
    assert_int_equal(got->sampling.grammar.len, 15);
    assert_memory_equal(got->sampling.grammar.data, "{\"object\":true}", 15);
    assert_int_equal(got->sampling.logprobs, 1 + PROTO_TOP_MAX);
    assert_int_equal(got->sampling.scores, 3);
    assert_int_equal(got->generated_before, 4);
    assert_int_equal(got->plan.reuse_blocks, 2);
    assert_string_equal(got->plan.holder, "10.0.0.1:7000");
    assert_int_equal(got->priority, -8);
    assert_true(got->tenant == UINT64_MAX - 1);
    assert_true(got->later_us == PROTO_LATER_US_MAX);
}

static void buf_new(struct buf *buf)
{
    buf_init(buf, 1 << 20);
}

static void decode_open_round_trip(void **state)
{
    (void)state;
    struct buf buf;
    struct proto_decode_open got;
    const struct proto_decode_open want = { .sequence = some_sequence(),
                                            .max_tokens = 100,
                                            .ignore_eos = true,
                                            .limits = { 70000, true, true, 12 },
                                            .computes = true };
    buf_new(&buf);
    assert_int_equal(proto_decode_open_encode(&want, &buf), STATUS_OK);
    save("decode_open", 0, &buf);
    assert_int_equal(proto_decode_open_decode(buf_data(&buf), buf.len, &got), STATUS_OK);
    expect_sequence(&got.sequence);
    assert_int_equal(got.max_tokens, 100);
    assert_true(got.ignore_eos);
    assert_int_equal(got.limits.tbt_us, 70000);
    assert_true(got.limits.may_refuse && got.limits.door && got.computes);
    assert_int_equal(got.limits.places, 12);
    for (size_t len = 0; len < buf.len; len++) {
        assert_int_equal(proto_decode_open_decode(buf_data(&buf), len, &got), STATUS_INVALID);
    }
    assert_int_equal(buf_append(&buf, "", 1), STATUS_OK);
    assert_int_equal(proto_decode_open_decode(buf_data(&buf), buf.len, &got), STATUS_INVALID);
    buf_fini(&buf);
}

static void prefill_run_round_trip(void **state)
{
    (void)state;
    struct buf buf;
    struct proto_prefill_run got;
    const struct proto_prefill_run want = {
        .sequence = some_sequence(),
        .target = { .rpc_address = "d:1",
                    .segment = "d:2",
                    .epoch = 9,
                    .push_from = 3,
                    .addresses = proto_u64s_of(addresses, 3) },
    };
    buf_new(&buf);
    assert_int_equal(proto_prefill_run_encode(&want, &buf), STATUS_OK);
    save("prefill_run", 1, &buf);
    assert_int_equal(proto_prefill_run_decode(buf_data(&buf), buf.len, &got), STATUS_OK);
    expect_sequence(&got.sequence);
    assert_string_equal(got.target.rpc_address, "d:1");
    assert_string_equal(got.target.segment, "d:2");
    assert_int_equal(got.target.epoch, 9);
    assert_int_equal(got.target.push_from, 3);
    assert_int_equal(proto_u64_at(got.target.addresses, 1), UINT64_MAX);
    for (size_t len = 0; len < buf.len; len++) {
        assert_int_equal(proto_prefill_run_decode(buf_data(&buf), len, &got), STATUS_INVALID);
    }
    buf_fini(&buf);
}

static void small_messages_round_trip(void **state)
{
    (void)state;
    struct buf buf;
    const struct proto_push push = {
        .request_id = 5, .attempt = 6, .epoch = 7, .kind = PROTO_PUSH_END
    };
    struct proto_push push_got;
    buf_new(&buf);
    assert_int_equal(proto_push_encode(&push, &buf), STATUS_OK);
    save("push", 6, &buf);
    assert_int_equal(proto_push_decode(buf_data(&buf), buf.len, &push_got), STATUS_OK);
    assert_int_equal(push_got.request_id, 5);
    assert_int_equal(push_got.attempt, 6);
    assert_int_equal(push_got.epoch, 7);
    assert_int_equal(push_got.kind, PROTO_PUSH_END);

    const struct proto_push_lease lease = { .lease_ms = 1234 };
    struct proto_push_lease lease_got;
    buf_clear(&buf);
    assert_int_equal(proto_push_lease_encode(&lease, &buf), STATUS_OK);
    save("push_lease", 7, &buf);
    assert_int_equal(proto_push_lease_decode(buf_data(&buf), buf.len, &lease_got), STATUS_OK);
    assert_int_equal(lease_got.lease_ms, 1234);

    const struct proto_kv_done done = { .request_id = 1,
                                        .attempt = 2,
                                        .epoch = 3,
                                        .first_token = 4,
                                        .push_from = 5,
                                        .checksums = proto_u64s_of(addresses, 3) };
    struct proto_kv_done done_got;
    buf_clear(&buf);
    assert_int_equal(proto_kv_done_encode(&done, &buf), STATUS_OK);
    save("kv_done", 2, &buf);
    assert_int_equal(proto_kv_done_decode(buf_data(&buf), buf.len, &done_got), STATUS_OK);
    assert_int_equal(done_got.push_from, 5);
    assert_int_equal(done_got.first_token, 4);
    assert_int_equal(done_got.checksums.count, 3);
    assert_int_equal(proto_u64_at(done_got.checksums, 2), 12);
    assert_int_equal(done_got.first_row.count, 0);
    struct proto_kv_done with_row = done;
    with_row.first_row = proto_u32s_of(row, 4);
    buf_clear(&buf);
    assert_int_equal(proto_kv_done_encode(&with_row, &buf), STATUS_OK);
    assert_int_equal(proto_kv_done_decode(buf_data(&buf), buf.len, &done_got), STATUS_OK);
    assert_int_equal(done_got.first_row.count, 4);
    assert_int_equal(proto_u32_at(done_got.first_row, 2), 49151);
    buf_fini(&buf);
}

static void items_round_trip(void **state)
{
    (void)state;
    static const char *const names[] = { "",       "opened",      "token",
                                         "finish", "first_token", "prefill_done",
                                         "failed", "scores" };
    const struct proto_times times = { 1, 2, 3, 4, UINT64_MAX };
    const struct proto_item items[] = {
        { .kind = PROTO_ITEM_OPENED,
          .opened = { .epoch = 8,
                      .segment = "s:1",
                      .addresses = proto_u64s_of(addresses, 3),
                      .push_from = 2,
                      .blocks_local = 1 } },
        { .kind = PROTO_ITEM_TOKEN, .token = { .index = 17, .token = 49151 } },
        { .kind = PROTO_ITEM_FIRST_TOKEN, .token = { .token = 2 } },
        { .kind = PROTO_ITEM_FIRST_TOKEN, .token = { 5, 2, proto_u32s_of(row, 4) } },
        { .kind = PROTO_ITEM_FINISH,
          .finish = { .reason = PROTO_FINISH_LENGTH, .generated = 9, .steps = 8, .times = times } },
        { .kind = PROTO_ITEM_PREFILL_DONE,
          .prefill_done = { .cached_tokens = 64,
                            .fetched_tokens = 32,
                            .computed_tokens = 5,
                            .times = times } },
        { .kind = PROTO_ITEM_FAILED,
          .failed = { .cause = PROTO_CAUSE_LIMIT, .load_permille = 1500, .text = "why" } },
        { .kind = PROTO_ITEM_SCORES,
          .scores = { .first = 16, .count = 1, .rows = proto_u32s_of(row, 4) } },
        { .kind = PROTO_ITEM_PREFILL_DONE,
          .prefill_done = { .computed_tokens = 9, .miss = PROTO_MISS_TIMEOUT, .times = times } },
        { .kind = PROTO_ITEM_FAILED,
          .failed = { .cause = PROTO_CAUSE_SOURCE, .miss = PROTO_MISS_GONE, .text = "why" } },
    };
    for (size_t i = 0; i < sizeof(items) / sizeof(items[0]); i++) {
        struct buf one, two;
        struct proto_item got;
        buf_new(&one);
        buf_new(&two);
        assert_int_equal(proto_item_encode(&items[i], &one), STATUS_OK);
        save(names[items[i].kind], 3, &one);
        assert_int_equal(proto_item_decode(buf_data(&one), one.len, &got), STATUS_OK);
        assert_int_equal(got.kind, items[i].kind);
        if (got.kind == PROTO_ITEM_TOKEN) assert_int_equal(got.token.token, 49151);
        if (got.kind == PROTO_ITEM_FINISH) assert_int_equal(got.finish.times.total_us, UINT64_MAX);
        if (got.kind == PROTO_ITEM_FAILED) assert_string_equal(got.failed.text, "why");
        assert_int_equal(proto_item_encode(&got, &two), STATUS_OK);
        assert_int_equal(one.len, two.len);
        assert_memory_equal(buf_data(&one), buf_data(&two), one.len);
        for (size_t len = 0; len < one.len; len++) {
            assert_int_equal(proto_item_decode(buf_data(&one), len, &got), STATUS_INVALID);
        }
        buf_fini(&one);
        buf_fini(&two);
    }
}

static void item_is_refused(const struct proto_item *item)
{
    struct proto_item got;
    struct buf buf;

    buf_new(&buf);
    assert_int_equal(proto_item_encode(item, &buf), STATUS_OK);
    assert_int_equal(proto_item_decode(buf_data(&buf), buf.len, &got), STATUS_INVALID);
    buf_fini(&buf);
}

/* Probabilities above one or that are no numbers, no rank, and rows of half a pair. */
static void bad_rows_are_refused(void **state)
{
    (void)state;
    static const uint32_t BAD[][4] = { { 0x3f800000, 1 },
                                       { 0x7fc00000, 1 },
                                       { 0xff800000, 1 },
                                       { 0xbfc00000, 0 },
                                       { 0xbfc00000 },
                                       { 0xbfc00000, 1, 7 },
                                       { 0xbfc00000, 1, 7, 0x3f800000 } };
    static const uint32_t COUNTS[] = { 2, 2, 2, 2, 1, 3, 4 };

    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        const struct proto_item item = { .kind = PROTO_ITEM_TOKEN,
                                         .token = { 1, 2, proto_u32s_of(BAD[i], COUNTS[i]) } };
        item_is_refused(&item);
    }
}

/* Rows that do not part evenly, half pairs, none, no probabilities, and no rank. */
static void bad_scores_are_refused(void **state)
{
    (void)state;
    static const uint32_t WORDS[] = { 0xbfc00000, 1, 7, 0xbfc00000, 0x3f800000, 1, 0xbfc00000, 0 };
    static const struct proto_scores BAD[] = {
        { 1, 3, { (const uint8_t *)WORDS, 4 } },
        { 1, 1, { (const uint8_t *)WORDS, 3 } },
        { 1, 1, { (const uint8_t *)WORDS, 0 } },
        { 0, 1, { (const uint8_t *)WORDS, 4 } },
        { 1, 0, { (const uint8_t *)WORDS, 4 } },
        { 1, 1, { (const uint8_t *)(WORDS + 4), 2 } },
        { 1, 1, { (const uint8_t *)(WORDS + 6), 2 } },
        { 1, 4, { (const uint8_t *)WORDS, 4 } },
    };

    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++) {
        const struct proto_item item = { .kind = PROTO_ITEM_SCORES, .scores = BAD[i] };
        item_is_refused(&item);
    }
}

static void node_messages_round_trip(void **state)
{
    (void)state;
    struct buf buf;
    const struct proto_node_info info = {
        .name = "p1",
        .role = PROTO_ROLE_DECODE,
        .model = "m",
        .fingerprint = { 1, 2 },
        .isa = "avx2",
        .block_tokens = 32,
        .element = CONDUCTOR_ELEMENT_Q8_0,
        .layers = 30,
        .layer_size = 24576,
        .page_size = 737280,
        .context_max = 8192,
        .vocab_count = 49152,
        .segment = "h:1",
        .epoch = UINT64_MAX,
    };
    struct proto_node_info info_got;
    struct buf again;
    buf_new(&buf);
    buf_new(&again);
    assert_int_equal(proto_node_info_encode(&info, &buf), STATUS_OK);
    save("node_info", 4, &buf);
    assert_int_equal(proto_node_info_decode(buf_data(&buf), buf.len, &info_got), STATUS_OK);
    assert_string_equal(info_got.name, "p1");
    assert_int_equal(info_got.role, PROTO_ROLE_DECODE);
    assert_int_equal(info_got.layer_size, 24576);
    assert_int_equal(info_got.epoch, UINT64_MAX);
    assert_memory_equal(info_got.fingerprint, info.fingerprint, sizeof(info.fingerprint));
    assert_int_equal(proto_node_info_encode(&info_got, &again), STATUS_OK);
    assert_int_equal(again.len, buf.len);
    assert_memory_equal(buf_data(&again), buf_data(&buf), buf.len);

    const struct proto_node_status status = { 1,
                                              2,
                                              3,
                                              4,
                                              5,
                                              6,
                                              7,
                                              8,
                                              9,
                                              10,
                                              11,
                                              12,
                                              13,
                                              PROTO_ROLE_PREFILL,
                                              15,
                                              16,
                                              { 17, 18, 19, 20 },
                                              { 21, 22, 23 } };
    const struct proto_node_role role = { PROTO_ROLE_DECODE };
    struct proto_node_role role_got;
    struct proto_node_status status_got;
    buf_clear(&buf);
    assert_int_equal(proto_node_status_encode(&status, &buf), STATUS_OK);
    save("node_status", 5, &buf);
    assert_int_equal(proto_node_status_decode(buf_data(&buf), buf.len, &status_got), STATUS_OK);
    assert_int_equal(status_got.queued, 1);
    assert_int_equal(status_got.step_us, 13);
    assert_int_equal(status_got.role, PROTO_ROLE_PREFILL);
    assert_memory_equal(status_got.moves, status.moves, sizeof(status.moves));
    assert_memory_equal(status_got.disk, status.disk, sizeof(status.disk));
    buf_clear(&again);
    assert_int_equal(proto_node_status_encode(&status_got, &again), STATUS_OK);
    assert_memory_equal(buf_data(&again), buf_data(&buf), buf.len);
    buf_clear(&buf);
    const struct proto_node_refused refused = { "its model is another" };
    struct proto_node_refused refused_got;
    buf_clear(&buf);
    assert_int_equal(proto_node_refused_encode(&refused, &buf), STATUS_OK);
    save("node_refused", 9, &buf);
    assert_int_equal(proto_node_refused_decode(buf_data(&buf), buf.len, &refused_got), STATUS_OK);
    assert_string_equal(refused_got.reason, "its model is another");
    buf_clear(&buf);
    assert_int_equal(proto_node_role_encode(&role, &buf), STATUS_OK);
    save("node_role", 8, &buf);
    assert_int_equal(proto_node_role_decode(buf_data(&buf), buf.len, &role_got), STATUS_OK);
    assert_int_equal(role_got.role, PROTO_ROLE_DECODE);
    buf_fini(&buf);
    buf_fini(&again);
}

static void questions_about_transfers_round_trip(void **state)
{
    (void)state;
    struct proto_node_transfers question = { PROTO_TRANSFERS_METRICS, UINT64_MAX }, got;
    struct buf buf;

    buf_new(&buf);
    assert_int_equal(proto_node_transfers_encode(&question, &buf), STATUS_OK);
    assert_int_equal(proto_node_transfers_decode(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_true(got.what == PROTO_TRANSFERS_METRICS && got.id == UINT64_MAX);
    buf_clear(&buf);
    question.what = (enum proto_transfers)(PROTO_TRANSFERS_METRICS + 1);
    assert_int_equal(proto_node_transfers_encode(&question, &buf), STATUS_OK);
    assert_int_equal(proto_node_transfers_decode(buf_data(&buf), buf.len, &got), STATUS_INVALID);
    assert_int_equal(proto_node_transfers_decode("", 0, &got), STATUS_INVALID);
    buf_fini(&buf);
}

static void copies_round_trip(void **state)
{
    (void)state;
    const struct proto_node_blocks blocks = { "10.0.0.1:7000", keys, 2 };
    const struct proto_node_copied copied = { 3, PROTO_BLOCKS_MAX };
    struct proto_node_blocks blocks_got;
    struct proto_node_copied copied_got;
    struct buf buf;

    buf_new(&buf);
    assert_int_equal(proto_node_blocks_encode(&blocks, &buf), STATUS_OK);
    save("node_blocks", 10, &buf);
    assert_int_equal(proto_node_blocks_decode(buf_data(&buf), buf.len, &blocks_got), STATUS_OK);
    assert_string_equal(blocks_got.holder, blocks.holder);
    assert_int_equal(blocks_got.keys_count, 2);
    assert_memory_equal(blocks_got.keys, keys, sizeof(keys));
    for (size_t len = 0; len < buf.len; len++)
        assert_int_equal(proto_node_blocks_decode(buf_data(&buf), len, &blocks_got),
                         STATUS_INVALID);
    buf_clear(&buf);
    assert_int_equal(proto_node_copied_encode(&copied, &buf), STATUS_OK);
    save("node_copied", 11, &buf);
    assert_int_equal(proto_node_copied_decode(buf_data(&buf), buf.len, &copied_got), STATUS_OK);
    assert_true(copied_got.had == 3 && copied_got.copied == PROTO_BLOCKS_MAX);
    buf_fini(&buf);
}

/* What a node said before it had a role to tell, and a role that is none. */
static void roles_are_optional_and_checked(void **state)
{
    (void)state;
    const uint64_t numbers[14] = { [13] = PROTO_ROLE_BOTH + 1 };
    const struct proto_node_role store = { PROTO_ROLE_STORE };
    struct proto_node_status status;
    struct proto_node_role role;
    struct msg_writer writer;
    struct buf buf;

    buf_new(&buf);
    for (uint32_t count = 12; count <= 14; count++) {
        buf_clear(&buf);
        msg_writer_init(&writer, &buf);
        msg_put_map(&writer, 1);
        msg_field_u64s(&writer, 1, numbers, count);
        assert_int_equal(proto_node_status_decode(buf_data(&buf), buf.len, &status),
                         count == 13 ? STATUS_OK : STATUS_INVALID);
        if (count == 13) assert_int_equal(status.role, 0);
    }
    buf_clear(&buf);
    assert_int_equal(proto_node_role_encode(&store, &buf), STATUS_OK);
    assert_int_equal(proto_node_role_decode(buf_data(&buf), buf.len, &role), STATUS_INVALID);
    buf_fini(&buf);
}

/* A field that we do not know, before and behind those that we do. */
static void later_versions_are_understood(void **state)
{
    (void)state;
    struct buf buf;
    struct msg_writer writer;
    struct proto_push_lease lease;
    buf_new(&buf);
    msg_writer_init(&writer, &buf);
    msg_put_map(&writer, 3);
    msg_field_map(&writer, 500, 1);
    msg_field_text(&writer, 1, "new");
    msg_field_u64(&writer, 1, 77);
    msg_field_bool(&writer, 40, true);
    assert_int_equal(proto_push_lease_decode(buf_data(&buf), buf.len, &lease), STATUS_OK);
    assert_int_equal(lease.lease_ms, 77);
    buf_fini(&buf);
}

static enum status decode_kv(const struct buf *buf)
{
    struct proto_kv_done done;
    return proto_kv_done_decode(buf_data(buf), buf->len, &done);
}

static void put_kv(struct buf *buf, uint32_t twice, uint32_t without, size_t checksums_size)
{
    static const uint8_t zeros[64];
    struct msg_writer writer;
    buf_clear(buf);
    msg_writer_init(&writer, buf);
    msg_put_map(&writer, 6 + (twice != 0) - (without != 0));
    for (uint32_t key = 1; key <= 5; key++) {
        if (key == without) continue;
        msg_field_u64(&writer, key, key);
        if (key == twice) msg_field_u64(&writer, key, key);
    }
    msg_field_bin(&writer, 6, zeros, checksums_size);
}

static void what_is_malformed_is_refused(void **state)
{
    (void)state;
    struct buf buf;
    buf_new(&buf);
    put_kv(&buf, 0, 0, 64);
    assert_int_equal(decode_kv(&buf), STATUS_OK);
    put_kv(&buf, 0, 0, 63); /* not a whole number of checksums */
    assert_int_equal(decode_kv(&buf), STATUS_INVALID);
    for (uint32_t key = 1; key <= 5; key++) {
        put_kv(&buf, 0, key, 64);
        assert_int_equal(decode_kv(&buf), STATUS_INVALID);
        put_kv(&buf, key, 0, 64);
        assert_int_equal(decode_kv(&buf), STATUS_INVALID);
    }
    buf_fini(&buf);
}

static enum status with_sequence(struct proto_sequence sequence)
{
    struct buf buf;
    struct proto_decode_open got;
    const struct proto_decode_open open = { .sequence = sequence, .max_tokens = 100 };
    buf_new(&buf);
    assert_int_equal(proto_decode_open_encode(&open, &buf), STATUS_OK);
    const enum status status = proto_decode_open_decode(buf_data(&buf), buf.len, &got);
    buf_fini(&buf);
    return status;
}

static void numbers_out_of_range_are_refused(void **state)
{
    (void)state;
    struct proto_sequence sequence = some_sequence();
    assert_int_equal(with_sequence(sequence), STATUS_OK);
    const double nan = 0.0 / (sequence.sampling.seed == 0 ? 1.0 : 0.0);
    static const double temperatures[] = { -0.1, 10.1, 1e300 };
    for (int i = 0; i < 3; i++) {
        sequence.sampling.temperature = temperatures[i];
        assert_int_equal(with_sequence(sequence), STATUS_INVALID);
    }
    sequence = some_sequence();
    sequence.sampling.biases.count = 1; /* not one for each token */
    assert_int_equal(with_sequence(sequence), STATUS_INVALID);
    const uint32_t infinite[] = { 0x7f800000, 0x7fc00000 };
    sequence.sampling.biases = proto_u32s_of(infinite, 2);
    assert_int_equal(with_sequence(sequence), STATUS_INVALID);
    sequence = some_sequence();
    sequence.sampling.min_p = 1.5;
    assert_int_equal(with_sequence(sequence), STATUS_INVALID);
    sequence = some_sequence();
    sequence.sampling.frequency = nan;
    assert_int_equal(with_sequence(sequence), STATUS_INVALID);
    sequence = some_sequence();
    sequence.sampling.temperature = nan;
    assert_int_equal(with_sequence(sequence), STATUS_INVALID);
    sequence = some_sequence();
    sequence.sampling.top_p = 0;
    assert_int_equal(with_sequence(sequence), STATUS_INVALID);
    sequence.sampling.top_p = 1.01;
    assert_int_equal(with_sequence(sequence), STATUS_INVALID);
    sequence = some_sequence();
    sequence.plan.reuse_blocks = 3; /* more than there are keys */
    assert_int_equal(with_sequence(sequence), STATUS_INVALID);
    sequence = some_sequence();
    sequence.plan.holder[3] = '\0'; /* just shorter */
    assert_int_equal(with_sequence(sequence), STATUS_OK);
}

static void a_full_buffer_is_said(void **state)
{
    (void)state;
    struct buf buf;
    const struct proto_decode_open open = { .sequence = some_sequence(), .max_tokens = 100 };
    buf_init(&buf, 64);
    assert_int_equal(proto_decode_open_encode(&open, &buf), STATUS_FULL);
    buf_fini(&buf);
}

static void names(void **state)
{
    (void)state;
    enum proto_role role;
    assert_int_equal(proto_role_parse("decode", &role), STATUS_OK);
    assert_int_equal(role, PROTO_ROLE_DECODE);
    assert_int_equal(proto_role_parse("Decode", &role), STATUS_INVALID);
    assert_string_equal(proto_method_name(PROTO_PREFILL_RUN), "prefill.run");
    assert_string_equal(proto_cause_name(PROTO_CAUSE_PUSH), "push");
    assert_string_equal(proto_cause_name((enum proto_cause)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_open_round_trip),
        cmocka_unit_test(prefill_run_round_trip),
        cmocka_unit_test(small_messages_round_trip),
        cmocka_unit_test(items_round_trip),
        cmocka_unit_test(bad_rows_are_refused),
        cmocka_unit_test(bad_scores_are_refused),
        cmocka_unit_test(node_messages_round_trip),
        cmocka_unit_test(questions_about_transfers_round_trip),
        cmocka_unit_test(copies_round_trip),
        cmocka_unit_test(roles_are_optional_and_checked),
        cmocka_unit_test(later_versions_are_understood),
        cmocka_unit_test(what_is_malformed_is_refused),
        cmocka_unit_test(numbers_out_of_range_are_refused),
        cmocka_unit_test(a_full_buffer_is_said),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
