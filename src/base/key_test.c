/* SPDX-License-Identifier: Apache-2.0
 *
 * base/key_test.c
 *
 * Goal:   a key survives its text form, and text that is no key is refused.
 * Method: by hand; every malformed length and digit class once. */
#include "base/key.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char text[] = "000102030405060708090a0b0c0d0eff";

static void hex_round_trip(void **state)
{
    (void)state;
    struct block_key key;
    char out[BLOCK_KEY_HEX_SIZE];

    assert_int_equal(block_key_from_hex(text, 32, &key), STATUS_OK);
    assert_int_equal(key.bytes[0], 0);
    assert_int_equal(key.bytes[15], 0xff);
    block_key_to_hex(&key, out);
    assert_string_equal(out, text);
    struct block_key upper;
    assert_int_equal(block_key_from_hex("000102030405060708090A0B0C0D0EFF", 32, &upper), STATUS_OK);
    assert_true(block_key_equal(&key, &upper));
}

static void malformed_is_refused_and_writes_nothing(void **state)
{
    (void)state;
    struct block_key key, before;
    char bad[33];

    memset(&key, 7, sizeof(key));
    before = key;
    for (size_t len = 0; len < 40; len++) {
        if (len != 32) assert_int_equal(block_key_from_hex(text, len, &key), STATUS_INVALID);
    }
    for (size_t i = 0; i < 32; i++) {
        for (const char *c = "gG/:@`\0 "; *c != '\0'; c++) {
            memcpy(bad, text, sizeof(bad));
            bad[i] = *c;
            assert_int_equal(block_key_from_hex(bad, 32, &key), STATUS_INVALID);
        }
    }
    assert_true(block_key_equal(&key, &before));
}

static void every_byte_matters(void **state)
{
    (void)state;
    struct block_key a = { { 0 } };

    for (int i = 0; i < BLOCK_KEY_SIZE; i++) {
        struct block_key b = a;
        b.bytes[i] = 1;
        assert_false(block_key_equal(&a, &b));
        if (i < 8) assert_true(block_key_hash(&a) != block_key_hash(&b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hex_round_trip),
        cmocka_unit_test(malformed_is_refused_and_writes_nothing),
        cmocka_unit_test(every_byte_matters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
