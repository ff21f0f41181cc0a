/* SPDX-License-Identifier: Apache-2.0
 *
 * store/proto_task_test.c
 *
 * Goal:   what is said about tasks arrives as it was said, and what could not have been is refused.
 * Method: encode, decode, compare; every prefix of a message is refused. */
#include "store/proto_task.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"

static struct buf buf;

static int setup(void **state)
{
    (void)state;
    buf_init(&buf, 1 << 16);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_fini(&buf);
    return 0;
}

static void wishes_arrive(void **state)
{
    const struct store_key key = { (const uint8_t *)"a\0b", 3 };
    const struct store_task_ask copies = { .key = key, .to_count = 2, .to = { "n1", "n2" } };
    const struct store_task_ask move = {
        .key = key, .move = true, .from = "n0", .to_count = 1, .to = { "n3" }
    };
    struct store_task_ask got;
    (void)state;

    assert_int_equal(store_encode_task_ask(&buf, &copies), STATUS_OK);
    assert_int_equal(store_decode_task_ask(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_true(!got.move && got.to_count == 2 && got.key.len == 3);
    assert_memory_equal(got.key.bytes, key.bytes, 3);
    assert_memory_equal(got.to, copies.to, sizeof(got.to));
    for (size_t len = 0; len < buf.len; len++)
        assert_int_equal(store_decode_task_ask(buf_data(&buf), len, &got), STATUS_INVALID);
    buf_clear(&buf);
    assert_int_equal(store_encode_task_ask(&buf, &move), STATUS_OK);
    assert_int_equal(store_decode_task_ask(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_true(got.move && got.to_count == 1);
    assert_string_equal(got.from, "n0");
    assert_string_equal(got.to[0], "n3");
}

static void a_move_has_one_target(void **state)
{
    const struct store_key key = { (const uint8_t *)"k", 1 };
    struct store_task_ask ask = { .key = key, .move = true, .to_count = 2, .to = { "a", "b" } };
    struct store_task_ask got;
    (void)state;

    assert_int_equal(store_encode_task_ask(&buf, &ask), STATUS_OK);
    assert_int_equal(store_decode_task_ask(buf_data(&buf), buf.len, &got), STATUS_INVALID);
    buf_clear(&buf);
    ask = (struct store_task_ask){ .key = { key.bytes, 0 }, .to_count = 1, .to = { "a" } };
    assert_int_equal(store_encode_task_ask(&buf, &ask), STATUS_OK);
    assert_int_equal(store_decode_task_ask(buf_data(&buf), buf.len, &got), STATUS_INVALID);
}

static void answers_arrive(void **state)
{
    const struct yolk_store_task task = { .id = { UINT64_C(1) << 61, UINT64_MAX },
                                          .move = true,
                                          .state = YOLK_STORE_TASK_FAILED,
                                          .status = STATUS_STALE,
                                          .targets = 3,
                                          .done = 2,
                                          .size = UINT64_C(1) << 30,
                                          .age_ms = 12 };
    struct yolk_store_task_id id;
    struct yolk_store_task got;
    (void)state;

    assert_int_equal(store_encode_task(&buf, &task), STATUS_OK);
    assert_int_equal(store_decode_task(buf_data(&buf), buf.len, &got), STATUS_OK);
    assert_true(got.id.term == task.id.term && got.id.number == task.id.number && got.move);
    assert_true(got.state == task.state && got.status == task.status && got.size == task.size);
    assert_true(got.targets == 3 && got.done == 2 && got.age_ms == 12);
    buf_clear(&buf);
    assert_int_equal(store_encode_task_id(&buf, task.id), STATUS_OK);
    assert_int_equal(store_decode_task_id(buf_data(&buf), buf.len, &id), STATUS_OK);
    assert_true(id.term == task.id.term && id.number == task.id.number);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(wishes_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(a_move_has_one_target, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_arrive, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
