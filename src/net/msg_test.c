/* SPDX-License-Identifier: Apache-2.0
 *
 * net/msg_test.c
 *
 * Goal:   what is written is read back; what is malformed is refused without a byte read too far.
 * Method: boundary values by hand, then random bytes and random trees, whole, cut and damaged,
 * where our cursor must agree with msgpack-c's own reader about what is a value and where it ends.
 *         Inputs are in blocks of their exact size, so that a sanitizer sees one byte too far. */
#include "net/msg.h"

#include <math.h>
#include <msgpack/unpack.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/rng.h"
#include "seed.h"

enum { ROUNDS = 20000 };

static uint64_t seed;

static void integers_round_trip(void **state)
{
    (void)state;
    static const uint64_t values[] = {
        0, 1, 127, 128, 255, 256, 65535, 65536, UINT32_MAX, 4294967296u, INT64_MAX, UINT64_MAX
    };
    static const int64_t negatives[] = {
        -1, -32, -33, -128, -129, -32768, -32769, INT32_MIN, INT32_MIN - 1ll, INT64_MIN
    };
    struct msg_writer writer;
    struct msg_reader reader;
    struct buf buf;

    buf_init(&buf, 4096);
    msg_writer_init(&writer, &buf);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        msg_put_u64(&writer, values[i]);
    for (size_t i = 0; i < sizeof(negatives) / sizeof(negatives[0]); i++)
        msg_put_i64(&writer, negatives[i]);
    msg_put_i64(&writer, 5);
    assert_int_equal(writer.status, STATUS_OK);
    msg_reader_init(&reader, buf_data(&buf), buf.len);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        assert_true(msg_get_u64(&reader) == values[i]);
    for (size_t i = 0; i < sizeof(negatives) / sizeof(negatives[0]); i++)
        assert_true(msg_get_i64(&reader) == negatives[i]);
    assert_int_equal(msg_get_i64(&reader), 5);
    assert_int_equal(msg_end(&reader), STATUS_OK);
    buf_fini(&buf);
}

static void write_message(struct msg_writer *writer, uint32_t fields)
{
    static const uint32_t tokens[] = { 1, 2, 0xffffffff };
    static const uint64_t pages[] = { UINT64_MAX };

    msg_put_map(writer, fields);
    msg_field_u64(writer, 1, 42);
    msg_field_i64(writer, 2, -7);
    msg_field_f64(writer, 3, 0.25);
    msg_field_bool(writer, 4, true);
    msg_field_bin(writer, 5, "\x00\x01", 2);
    msg_field_text(writer, 6, "name");
    msg_field_u32s(writer, 7, tokens, 3);
    msg_field_u64s(writer, 8, pages, 1);
    msg_field_array(writer, 9, 2);
    msg_put_nil(writer);
    msg_put_bool(writer, false);
    msg_field_map(writer, 10, 1); /* unknown to the reader */
    msg_field_text(writer, 1, NULL);
}

static void read_known_fields(struct msg_reader *reader)
{
    uint64_t key;
    uint32_t left = msg_get_map(reader);
    uint32_t seen = 0;
    char name[8];
    uint8_t blob[2] = { 9, 9 };

    while (msg_next_key(reader, &left, &key)) {
        seen |= 1u << key;
        switch (key) {
        case 1: assert_int_equal(msg_get_u32(reader), 42); break;
        case 2: assert_int_equal(msg_get_i64(reader), -7); break;
        case 3: assert_true(msg_get_f64(reader) == 0.25); break;
        case 4: assert_true(msg_get_bool(reader)); break;
        case 5:
            msg_get_bin_exact(reader, blob, 2);
            assert_int_equal(blob[1], 1);
            break;
        case 6:
            msg_get_text_copy(reader, name, sizeof(name));
            assert_string_equal(name, "name");
            break;
        case 7: {
            const struct msg_column column = msg_get_u32s(reader, 3);
            assert_int_equal(column.count, 3);
            assert_true(msg_u32_at(column, 2) == 0xffffffff);
            break;
        }
        case 8: assert_true(msg_u64_at(msg_get_u64s(reader, 1), 0) == UINT64_MAX); break;
        default: msg_skip(reader); break;
        }
    }
    assert_int_equal(seen, 0x7fe);
    assert_int_equal(msg_end(reader), STATUS_OK);
}

static void a_message_is_read_and_unknown_fields_are_skipped(void **state)
{
    (void)state;
    struct msg_writer writer;
    struct msg_reader reader;
    struct buf buf;

    buf_init(&buf, 4096);
    msg_writer_init(&writer, &buf);
    write_message(&writer, 10);
    assert_int_equal(writer.status, STATUS_OK);
    msg_reader_init(&reader, buf_data(&buf), buf.len);
    read_known_fields(&reader);
    buf_fini(&buf);
}

static void a_full_buffer_is_sticky(void **state)
{
    (void)state;
    struct msg_writer writer;
    struct buf buf;

    for (size_t size_max = 1; size_max < 60; size_max++) {
        buf_init(&buf, size_max);
        msg_writer_init(&writer, &buf);
        write_message(&writer, 10);
        assert_int_equal(writer.status, STATUS_FULL);
        assert_true(buf.len <= size_max);
        buf_fini(&buf);
    }
}

static void wrong_types_and_limits_are_sticky_errors(void **state)
{
    (void)state;
    static const uint8_t text[] = { 0xa3, 'a', 0, 'c' };
    static const uint8_t big[] = { 0xce, 1, 0, 0, 0 };
    struct msg_reader reader;
    char copy[8];
    uint8_t two[2] = { 7, 7 };

    msg_reader_init(&reader, text, sizeof(text));
    assert_int_equal(msg_get_u64(&reader), 0);
    assert_int_equal(reader.status, STATUS_INVALID);
    assert_int_equal(msg_peek(&reader), MSG_NONE);
    assert_int_equal(msg_get_text(&reader, 8).len, 0); /* sticky */
    assert_int_equal(msg_end(&reader), STATUS_INVALID);

    msg_reader_init(&reader, text, sizeof(text));
    msg_get_text_copy(&reader, copy, sizeof(copy)); /* a NUL inside */
    assert_string_equal(copy, "");
    assert_int_equal(msg_end(&reader), STATUS_INVALID);

    msg_reader_init(&reader, text, sizeof(text));
    assert_int_equal(msg_get_text(&reader, 2).len, 0); /* too long */
    assert_int_equal(msg_end(&reader), STATUS_INVALID);

    msg_reader_init(&reader, big, sizeof(big));
    assert_int_equal(msg_get_u64_max(&reader, (1 << 24) - 1), 0);
    assert_int_equal(msg_end(&reader), STATUS_INVALID);

    msg_reader_init(&reader, "\xc4\x01x", 3);
    msg_get_bin_exact(&reader, two, 2);
    assert_int_equal(two[0], 7);
    assert_int_equal(msg_end(&reader), STATUS_INVALID);

    msg_reader_init(&reader, "\xc4\x03xyz", 5);
    assert_int_equal(msg_get_u32s(&reader, 10).count, 0); /* not a multiple */
    assert_int_equal(msg_end(&reader), STATUS_INVALID);

    msg_reader_init(&reader, "\x01\x02", 2);
    (void)msg_get_u64(&reader);
    assert_int_equal(msg_end(&reader), STATUS_INVALID); /* something left */
}

static void floats_of_both_sizes_and_integers(void **state)
{
    (void)state;
    static const uint8_t bytes[] = { 0xca, 0x3f, 0x80, 0, 0, 0xff, 0x05, 0xca, 0x7f, 0x80, 0, 0 };
    struct msg_reader reader;

    msg_reader_init(&reader, bytes, sizeof(bytes));
    assert_true(msg_get_f64(&reader) == 1.0);
    assert_true(msg_get_f64(&reader) == -1.0);
    assert_true(msg_get_f64(&reader) == 5.0);
    assert_true(isinf(msg_get_f64(&reader)));
    assert_int_equal(msg_end(&reader), STATUS_OK);
}

static void nesting_bombs_cost_nothing(void **state)
{
    (void)state;
    enum { DEPTH = 1 << 20 };
    struct msg_reader reader;
    uint8_t *bomb = malloc(DEPTH);

    memset(bomb, 0x91, DEPTH); /* arrays of one array of one array ... of nothing */
    msg_reader_init(&reader, bomb, DEPTH);
    msg_skip(&reader);
    assert_int_equal(msg_end(&reader), STATUS_INVALID);
    bomb[DEPTH - 1] = 0xc0;
    msg_reader_init(&reader, bomb, DEPTH);
    msg_skip(&reader);
    assert_int_equal(msg_end(&reader), STATUS_OK);
    memcpy(bomb, "\xdd\xff\xff\xff\xff", 5); /* an array of 2^32 - 1 items that are not there */
    msg_reader_init(&reader, bomb, 5);
    assert_int_equal(msg_get_array(&reader), 0);
    assert_int_equal(msg_end(&reader), STATUS_INVALID);
    free(bomb);
}

static void write_random_value(struct msg_writer *writer, struct rng *rng, int depth)
{
    static const char bytes[300];
    const uint32_t count = (uint32_t)rng_below(rng, 4);

    switch (rng_below(rng, depth > 0 ? 9 : 7)) {
    case 0: msg_put_u64(writer, rng_u64(rng) >> rng_below(rng, 64)); break;
    case 1: msg_put_i64(writer, (int64_t)rng_u64(rng) >> rng_below(rng, 64)); break;
    case 2: msg_put_f64(writer, rng_unit(rng)); break;
    case 3: msg_put_bool(writer, count > 1); break;
    case 4: msg_put_nil(writer); break;
    case 5: msg_put_bin(writer, bytes, rng_below(rng, sizeof(bytes))); break;
    case 6: msg_put_text_len(writer, bytes, rng_below(rng, sizeof(bytes))); break;
    case 7:
        msg_put_array(writer, count);
        for (uint32_t i = 0; i < count; i++)
            write_random_value(writer, rng, depth - 1);
        break;
    default:
        msg_put_map(writer, count);
        for (uint32_t i = 0; i < 2 * count; i++)
            write_random_value(writer, rng, depth - 1);
        break;
    }
}

/* msgpack-c allocates for the count that an array or a map announces before it looks for the items:
 * 64 GiB for five bytes. Such inputs are left to ours alone. */
static bool announces_millions(const uint8_t *data, size_t len)
{
    for (size_t i = 0; i + 5 <= len; i++) {
        if (data[i] == 0xdd && (data[i + 1] | data[i + 2]) != 0) return true;
        if (data[i] == 0xdf && (data[i + 1] | data[i + 2]) != 0) return true;
    }
    return false;
}

/* Both readers, over the same bytes: the same answer, and the same end if there is a value. */
static void expect_agreement(const uint8_t *data, size_t len)
{
    uint8_t *exact = malloc(len + (len == 0));
    struct msg_reader reader;
    msgpack_unpacked result;
    size_t off = 0;

    memcpy(exact, data, len);
    msg_reader_init(&reader, exact, len);
    msg_skip(&reader);
    if (announces_millions(exact, len)) {
        free(exact);
        return;
    }
    msgpack_unpacked_init(&result);
    const msgpack_unpack_return rc = msgpack_unpack_next(&result, (char *)exact, len, &off);
    const bool theirs = rc == MSGPACK_UNPACK_SUCCESS || rc == MSGPACK_UNPACK_EXTRA_BYTES;
    if (rc != MSGPACK_UNPACK_NOMEM_ERROR) {
        assert_int_equal(reader.status == STATUS_OK, theirs);
        if (theirs) assert_int_equal(reader.off, off);
    }
    msgpack_unpacked_destroy(&result);
    free(exact);
}

static void the_cursor_agrees_with_msgpack_c(void **state)
{
    (void)state;
    struct msg_writer writer;
    struct rng rng;
    struct buf buf;
    uint8_t noise[24];

    rng_init(&rng, seed);
    buf_init(&buf, 1 << 16);
    for (int round = 0; round < ROUNDS; round++) {
        buf_clear(&buf);
        msg_writer_init(&writer, &buf);
        write_random_value(&writer, &rng, 4);
        assert_int_equal(writer.status, STATUS_OK);
        expect_agreement(buf_data(&buf), buf.len);
        expect_agreement(buf_data(&buf), rng_below(&rng, buf.len + 1));
        buf_data(&buf)[rng_below(&rng, buf.len)] = (uint8_t)rng_u64(&rng);
        expect_agreement(buf_data(&buf), buf.len);
        rng_fill(&rng, noise, sizeof(noise));
        expect_agreement(noise, rng_below(&rng, sizeof(noise) + 1));
    }
    buf_fini(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_round_trip),
        cmocka_unit_test(a_message_is_read_and_unknown_fields_are_skipped),
        cmocka_unit_test(a_full_buffer_is_sticky),
        cmocka_unit_test(wrong_types_and_limits_are_sticky_errors),
        cmocka_unit_test(floats_of_both_sizes_and_integers),
        cmocka_unit_test(nesting_bombs_cost_nothing),
        cmocka_unit_test(the_cursor_agrees_with_msgpack_c),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
