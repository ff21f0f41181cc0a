/* SPDX-License-Identifier: Apache-2.0
 *
 * model/gguf_test.c
 *
 * Goal:   what a good file says comes out; every way to be damaged gets a message and no crash.
 * Method: files made in memory: read back, then truncated at every byte, then changed one field at
 *         a time. Copies have the exact size, so that a sanitizer sees one byte too far. */
#include "model/gguf.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf_maker.h"

static void make(struct gguf_maker *maker)
{
    static const char *const strings[] = { "", "one", "two" };
    static const int32_t ints[] = { 1, -2, 3 };
    const uint64_t wide = 7, too_wide = UINT64_C(1) << 40;
    const int8_t minus = -1;

    gguf_maker_init(maker);
    gguf_maker_u32(maker, "count", 42);
    gguf_maker_raw(maker, "wide", GGUF_U64, &wide, 8);
    gguf_maker_raw(maker, "too.wide", GGUF_U64, &too_wide, 8);
    gguf_maker_raw(maker, "minus", GGUF_I8, &minus, 1);
    gguf_maker_f32(maker, "real", 0.5f);
    gguf_maker_bool(maker, "yes", 1);
    gguf_maker_string(maker, "text", "hello");
    gguf_maker_strings(maker, "strings", strings, 3);
    gguf_maker_i32s(maker, "ints", ints, 3);
    gguf_maker_tensor(maker, "first", 0, 4, 2, "0123456789abcdef0123456789abcdef", 32);
    gguf_maker_tensor(maker, "second", 0, 8, 1, NULL, 32);
}

static void what_was_written_is_read(void **state)
{
    struct gguf_maker maker;
    struct gguf *gguf;
    struct errmsg err;
    struct gguf_string text;
    struct gguf_array array;
    enum gguf_kind kind;
    uint32_t number = 5;
    float real;
    bool flag;
    size_t size, cursor = 0, head;

    (void)state;
    make(&maker);
    const uint8_t *data = gguf_maker_finish(&maker, &size);
    assert_int_equal(gguf_parse(data, size, &gguf, NULL), STATUS_OK);
    assert_int_equal(gguf_version(gguf), 3);
    assert_int_equal(gguf_key_count(gguf), 9);
    assert_int_equal(gguf_key_at(gguf, 4, &kind).len, 4);
    assert_int_equal(kind, GGUF_F32);

    assert_int_equal(gguf_get_u32(gguf, "absent", &number, &err), STATUS_NOT_FOUND);
    assert_int_equal(gguf_get_u32(gguf, "too.wide", &number, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "too.wide is too large"));
    assert_int_equal(gguf_get_u32(gguf, "minus", &number, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "minus is negative"));
    assert_int_equal(gguf_get_u32(gguf, "text", &number, &err), STATUS_INVALID);
    assert_string_equal(err.text, "key text is of type string, expected an integer");
    assert_int_equal(number, 5);
    assert_int_equal(gguf_get_u32(gguf, "count", &number, &err), STATUS_OK);
    assert_int_equal(number, 42);
    assert_int_equal(gguf_get_u32(gguf, "wide", &number, &err), STATUS_OK);
    assert_int_equal(number, 7);
    assert_int_equal(gguf_get_f32(gguf, "real", &real, &err), STATUS_OK);
    assert_true(real == 0.5f);
    assert_int_equal(gguf_get_f32(gguf, "count", &real, &err), STATUS_INVALID);
    assert_int_equal(gguf_get_bool(gguf, "yes", &flag, &err), STATUS_OK);
    assert_true(flag);
    assert_int_equal(gguf_get_bool(gguf, "real", &flag, &err), STATUS_INVALID);
    assert_int_equal(gguf_get_string(gguf, "text", &text, &err), STATUS_OK);
    assert_int_equal(text.len, 5);
    assert_memory_equal(text.data, "hello", 5);
    assert_int_equal(gguf_get_string(gguf, "strings", &text, &err), STATUS_INVALID);
    assert_int_equal(gguf_get_array(gguf, "ints", GGUF_STRING, &array, &err), STATUS_INVALID);
    assert_string_equal(err.text, "key ints is an array of i32, expected string");
    assert_int_equal(gguf_get_array(gguf, "text", GGUF_I32, &array, &err), STATUS_INVALID);
    assert_int_equal(gguf_get_array(gguf, "ints", GGUF_I32, &array, &err), STATUS_OK);
    assert_int_equal((int32_t)gguf_array_u32(&array, 1), -2);
    assert_int_equal(gguf_get_array(gguf, "strings", GGUF_STRING, &array, &err), STATUS_OK);
    assert_int_equal(array.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(gguf_array_next_string(&array, &cursor, &text));
    assert_memory_equal(text.data, "two", 3);
    assert_false(gguf_array_next_string(&array, &cursor, &text));

    const struct gguf_tensor *tensor = gguf_tensor_find(gguf, "first");
    assert_non_null(tensor);
    assert_null(gguf_tensor_find(gguf, "firs"));
    assert_null(gguf_tensor_find(gguf, "third"));
    assert_int_equal(gguf_tensor_count(gguf), 2);
    assert_int_equal(tensor->dims[0], 4);
    assert_int_equal(tensor->dims[1], 2);
    assert_int_equal(tensor->dims[3], 1);
    assert_memory_equal(gguf_tensor_data(gguf, tensor, 32), "0123456789abcdef", 16);
    assert_non_null(gguf_tensor_data(gguf, gguf_tensor_find(gguf, "second"), 32));
    assert_null(gguf_tensor_data(gguf, gguf_tensor_find(gguf, "second"), 33));
    assert_ptr_equal(gguf_head(gguf, &head), data);
    assert_int_equal(head, size - 64);
    gguf_destroy(gguf);
    gguf_maker_fini(&maker);
}

/* Parses a copy of exactly `size` bytes. */
static enum status parse_copy(const uint8_t *data, size_t size, struct errmsg *err)
{
    struct gguf *gguf = NULL;
    uint8_t *copy = malloc(size > 0 ? size : 1);

    assert_non_null(copy);
    memcpy(copy, data, size);
    const enum status status = gguf_parse(copy, size, &gguf, err);
    assert_true((status == STATUS_OK) == (gguf != NULL));
    gguf_destroy(gguf);
    free(copy);
    return status;
}

static void cut_anywhere(void **state)
{
    struct gguf_maker maker;
    size_t size;

    (void)state;
    make(&maker);
    const uint8_t *data = gguf_maker_finish(&maker, &size);
    for (size_t cut = 0; cut < size - 32; cut++) { /* behind: "second" starts at the end */
        struct errmsg err = { { 0 } };
        assert_int_equal(parse_copy(data, cut, &err), STATUS_INVALID);
        assert_true(strlen(err.text) > 0);
    }
    gguf_maker_fini(&maker);
}

static void changed_anywhere(void **state)
{
    static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
    struct gguf_maker maker;
    size_t size;

    (void)state;
    make(&maker);
    uint8_t *data = gguf_maker_finish(&maker, &size);
    for (size_t at = 0; at < size; at++) {
        const uint8_t saved = data[at];
        for (size_t i = 0; i < sizeof(values); i++) {
            data[at] = values[i];
            (void)parse_copy(data, size, NULL);
        }
        data[at] = saved;
    }
    assert_int_equal(parse_copy(data, size, NULL), STATUS_OK);
    gguf_maker_fini(&maker);
}

/* ---- one field at a time ---- */

static void put_at(uint8_t *data, size_t at, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++)
        data[at + i] = (uint8_t)(value >> (8 * i));
}

static void expect(const char *words, enum status expected, const uint8_t *data, size_t size)
{
    struct errmsg err = { { 0 } };
    const enum status status = parse_copy(data, size, &err);

    if (status == expected && strstr(err.text, words) != NULL) return;
    fail_msg("%s: \"%s\", expected %s: \"%s\"", status_name(status), err.text,
             status_name(expected), words);
}

static void header_fields(void **state)
{
    static const struct {
        size_t at, width;
        uint64_t value;
        enum status status;
        const char *words;
    } cases[] = {
        { 0, 4, 0x46554746, STATUS_INVALID, "not a GGUF file: it starts with 46 47 55 46" },
        { 4, 4, 1, STATUS_UNSUPPORTED, "GGUF version 1 is not supported" },
        { 4, 4, 4, STATUS_UNSUPPORTED, "GGUF version 4 is not supported" },
        { 4, 4, 0x03000000, STATUS_UNSUPPORTED, "version 3 in big-endian byte order" },
        { 8, 8, 65537, STATUS_FULL, "65537 tensors" },
        { 8, 8, UINT64_MAX, STATUS_FULL, "tensors" },
        { 8, 8, 1000, STATUS_INVALID, "do not fit in" },
        { 8, 8, 3, STATUS_INVALID, "a name of 0 bytes" },
        { 16, 8, UINT64_MAX, STATUS_FULL, "keys" },
        { 16, 8, 60000, STATUS_INVALID, "do not fit in" },
        { 24, 8, 0, STATUS_INVALID, "key 0: a name of 0 bytes" },
        { 24, 8, 300, STATUS_INVALID, "key 0: a name of 300 bytes, expected 1 to 256" },
        { 24, 8, UINT64_MAX, STATUS_INVALID, "the file ends inside its name" },
        { 24 + 8 + 5, 4, 13, STATUS_INVALID, "key count: unknown value type 13" },
        { 24 + 8 + 5, 4, 8, STATUS_INVALID, "key count: the value runs past the end" },
        { 24 + 8 + 5, 4, 9, STATUS_INVALID, "key count: array of unknown type" },
    };
    struct gguf_maker maker;
    size_t size;

    (void)state;
    make(&maker);
    uint8_t *good = gguf_maker_finish(&maker, &size);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *data = malloc(size);
        assert_non_null(data);
        memcpy(data, good, size);
        put_at(data, cases[i].at, cases[i].value, cases[i].width);
        expect(cases[i].words, cases[i].status, data, size);
        free(data);
    }
    gguf_maker_fini(&maker);
}

static void finish_and_expect(struct gguf_maker *maker, enum status status, const char *words)
{
    size_t size;

    const uint8_t *data = gguf_maker_finish(maker, &size);
    expect(words, status, data, size);
    gguf_maker_fini(maker);
}

static void names_twice(void **state)
{
    struct gguf_maker maker;

    (void)state;
    make(&maker);
    gguf_maker_u32(&maker, "text", 1);
    finish_and_expect(&maker, STATUS_INVALID, "key text appears twice");
    make(&maker);
    gguf_maker_tensor(&maker, "first", 0, 1, 1, NULL, 4);
    finish_and_expect(&maker, STATUS_INVALID, "tensor first appears twice");
}

static void values_that_lie(void **state)
{
    static const uint8_t nested[] = { 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0 };
    static const uint8_t huge[] = { 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20 }; /* 2^61 u64s */
    static const uint8_t many[] = { 8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0 };
    struct gguf_maker maker;

    (void)state;
    gguf_maker_init(&maker);
    gguf_maker_raw(&maker, "nested", GGUF_ARRAY, nested, sizeof(nested));
    finish_and_expect(&maker, STATUS_UNSUPPORTED, "key nested: nested arrays are not supported");
    gguf_maker_init(&maker);
    gguf_maker_raw(&maker, "huge", GGUF_ARRAY, huge, sizeof(huge));
    finish_and_expect(&maker, STATUS_INVALID, "key huge: the array runs past the end of the file");
    gguf_maker_init(&maker);
    gguf_maker_raw(&maker, "many", GGUF_ARRAY, many, sizeof(many));
    finish_and_expect(&maker, STATUS_INVALID, "key many: the array runs past the end of the file");
    gguf_maker_init(&maker);
    gguf_maker_bool(&maker, "maybe", 2);
    finish_and_expect(&maker, STATUS_INVALID, "key maybe: a bool is 2");
    gguf_maker_init(&maker);
    gguf_maker_u32(&maker, "general.alignment", 24);
    finish_and_expect(&maker, STATUS_INVALID, "general.alignment is 24");
    gguf_maker_init(&maker);
    gguf_maker_u32(&maker, "general.alignment", 0);
    finish_and_expect(&maker, STATUS_INVALID, "general.alignment is 0");
    gguf_maker_init(&maker);
    gguf_maker_string(&maker, "general.alignment", "32");
    finish_and_expect(&maker, STATUS_INVALID, "general.alignment is of type string");
}

static void tensors_that_lie(void **state)
{
    static const struct {
        size_t at, width; /* from the end of the name */
        uint64_t value;
        const char *words;
    } cases[] = {
        { 0, 4, 5, "tensor t: 5 dimensions, at most 4" },
        { 4, 8, 0, "tensor t: dimension 0 is 0" },
        { 4, 8, UINT64_MAX, "tensor t: dimension 0 is 18446744073709551615" },
        { 16, 8, 4, "tensor t: offset 4 is not a multiple of 32" },
        { 16, 8, 64, "tensor t: offset 64, but the file has 32 bytes of tensor data" },
        { 16, 8, UINT64_MAX - 31, "tensor t: offset 18446744073709551584" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gguf_maker maker;
        gguf_maker_init(&maker);
        gguf_maker_tensor(&maker, "t", 0, 8, 1, NULL, 32);
        put_at(maker.table.data, 8 + 1 + cases[i].at, cases[i].value, cases[i].width);
        finish_and_expect(&maker, STATUS_INVALID, cases[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(changed_anywhere),
        cmocka_unit_test(header_fields),
        cmocka_unit_test(names_twice),
        cmocka_unit_test(values_that_lie),
        cmocka_unit_test(tensors_that_lie),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
