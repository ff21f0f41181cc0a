/* SPDX-License-Identifier: Apache-2.0
 *
 * base/buf_test.c
 *
 * Goal:   bytes come out as they went in, whatever the order of appends and consumption, and never
 *         more than the maximum is held.
 * Method: a seeded random walk against a flat array with a start and an end; limits by hand. */
#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "seed.h"

enum { SIZE_MAX_TEST = 1000, STEPS = 20000 };

static uint64_t seed;

static uint8_t byte_at(uint64_t position)
{
    return (uint8_t)(position * 31 + position / 256);
}

static void check_content(const struct buf *buf, uint64_t start, uint64_t end)
{
    assert_int_equal(buf->len, end - start);
    for (uint64_t i = start; i < end; i++)
        assert_int_equal(buf_data(buf)[i - start], byte_at(i));
}

static uint64_t walk_append(struct buf *buf, uint64_t end, struct rng *rng)
{
    uint8_t bytes[600];
    uint8_t *to;
    const size_t len = rng_below(rng, sizeof(bytes));
    const enum status expected = buf->len + len > SIZE_MAX_TEST ? STATUS_FULL : STATUS_OK;

    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_at(end + i);
    if (rng_below(rng, 2) == 0) {
        assert_int_equal(buf_append(buf, bytes, len), expected);
    } else {
        assert_int_equal(buf_reserve(buf, len, &to), expected);
        if (expected == STATUS_OK) {
            memcpy(to, bytes, len);
            buf_commit(buf, len);
        }
    }
    return expected == STATUS_OK ? end + len : end;
}

static void random_walk_matches_array(void **state)
{
    (void)state;
    struct buf buf;
    struct rng rng;
    uint64_t start = 0, end = 0;

    rng_init(&rng, seed);
    buf_init(&buf, SIZE_MAX_TEST);
    for (int step = 0; step < STEPS; step++) {
        if (rng_below(&rng, 2) == 0) {
            end = walk_append(&buf, end, &rng);
        } else {
            const size_t n = rng_below(&rng, buf.len + 1);
            buf_consume(&buf, n);
            start += n;
        }
        if (rng_below(&rng, 50) == 0) {
            const size_t keep = rng_below(&rng, buf.len + 1);
            buf_truncate(&buf, keep);
            end = start + keep;
        }
        check_content(&buf, start, end);
        assert_true(buf.cap <= 2 * SIZE_MAX_TEST);
    }
    buf_fini(&buf);
}

static void full_changes_nothing(void **state)
{
    (void)state;
    struct buf buf;

    buf_init(&buf, 4);
    assert_int_equal(buf.len, 0);
    assert_non_null(buf_data(&buf));
    assert_int_equal(buf_append(&buf, "abcd", 4), STATUS_OK);
    assert_int_equal(buf_append(&buf, "e", 1), STATUS_FULL);
    assert_int_equal(buf_append(&buf, NULL, 0), STATUS_OK);
    assert_memory_equal(buf_data(&buf), "abcd", 4);
    buf_consume(&buf, 2);
    assert_int_equal(buf_append_text(&buf, "ef"), STATUS_OK);
    assert_memory_equal(buf_data(&buf), "cdef", 4);
    buf_fini(&buf);
}

static void printf_appends_short_and_long(void **state)
{
    (void)state;
    struct buf buf;
    char big[1000];

    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    buf_init(&buf, 1010);
    assert_int_equal(buf_printf(&buf, "%d-%s", 42, "a"), STATUS_OK);
    assert_int_equal(buf_printf(&buf, "%s", big), STATUS_OK);
    assert_int_equal(buf.len, 4 + 999);
    assert_memory_equal(buf_data(&buf), "42-axxx", 7);
    assert_int_equal(buf_printf(&buf, "%s", big), STATUS_FULL);
    assert_int_equal(buf_printf(&buf, "%08d", 1), STATUS_FULL);
    assert_int_equal(buf.len, 4 + 999);
    buf_fini(&buf);
}

static void take_hands_over_with_a_nul(void **state)
{
    (void)state;
    struct buf buf;
    uint8_t *out;
    size_t len;

    buf_init(&buf, 100);
    assert_int_equal(buf_append_text(&buf, "xhello"), STATUS_OK);
    buf_consume(&buf, 1);
    assert_int_equal(buf_take(&buf, &out, &len), STATUS_OK);
    assert_int_equal(len, 5);
    assert_string_equal((char *)out, "hello");
    free(out);
    assert_int_equal(buf.len, 0);
    assert_int_equal(buf_take(&buf, &out, &len), STATUS_OK); /* empty gives "" */
    assert_int_equal(len, 0);
    assert_string_equal((char *)out, "");
    free(out);
    buf_fini(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_walk_matches_array),
        cmocka_unit_test(full_changes_nothing),
        cmocka_unit_test(printf_appends_short_and_long),
        cmocka_unit_test(take_hands_over_with_a_nul),
    };
    seed = test_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
