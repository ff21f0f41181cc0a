/* SPDX-License-Identifier: Apache-2.0
 *
 * store/scope_test.c
 *
 * Goal:   two tenants' keys are never the same bytes, whatever the keys are; what was put together
 *         is taken apart; what was not is the default tenant's.
 * Method: all pairs of names and nasty keys, among them such as look like another tenant's. */
#include "store/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { NAMES = 5, KEYS = 9, WHOLE_MAX = 256 };

static const char *const names[NAMES] = {
    "", "a", "ab", "A.b-c_9", "a23456789-123456789-123456789-123456789-123456789-123456789-123",
};
static const struct {
    const char *bytes;
    uint32_t len;
} keys[KEYS] = {
    { "k", 1 },
    { "bk", 2 },
    { "\0\xf5tn", 4 },
    { "\0\xf5tn\0", 5 },
    { "\0\xf5tn\1ak", 7 },
    { "\0\xf5tn\1a", 6 },
    { "\0\xf5t", 3 },
    { "\0\xf5tn\7default", 12 },
    { "\0\xf5tn\0\0\xf5tn\1ak", 12 },
};

static struct store_key whole_of(unsigned name, unsigned key, uint8_t out[WHOLE_MAX])
{
    const struct store_key own = { (const uint8_t *)keys[key].bytes, keys[key].len };
    const size_t len = scope_prefix(names[name], own, out);
    assert_true(len <= SCOPE_SIZE_MAX);
    memcpy(out + len, own.bytes, own.len);
    return (struct store_key){ out, (uint32_t)len + own.len };
}

static void no_two_are_the_same(void **state)
{
    uint8_t a[WHOLE_MAX], b[WHOLE_MAX];
    (void)state;
    for (unsigned i = 0; i < NAMES * KEYS; i++) {
        const struct store_key one = whole_of(i / KEYS, i % KEYS, a);
        for (unsigned j = 0; j < i; j++) {
            const struct store_key other = whole_of(j / KEYS, j % KEYS, b);
            assert_false(one.len == other.len && memcmp(a, b, one.len) == 0);
        }
    }
}

static void what_was_put_together_is_taken_apart(void **state)
{
    uint8_t whole[WHOLE_MAX];
    (void)state;
    for (unsigned i = 0; i < NAMES * KEYS; i++) {
        const struct scope scope = scope_split(whole_of(i / KEYS, i % KEYS, whole));
        assert_int_equal(scope.name_len, strlen(names[i / KEYS]));
        assert_memory_equal(scope.name == NULL ? (const void *)"" : scope.name, names[i / KEYS],
                            scope.name_len);
        assert_int_equal(scope.key.len, keys[i % KEYS].len);
        assert_memory_equal(scope.key.bytes, keys[i % KEYS].bytes, scope.key.len);
    }
}

static void what_is_no_scope_is_the_default_tenants(void **state)
{
    static const struct {
        const char *bytes;
        uint32_t len;
    } plain[] = { { "\0\xf5tn", 4 },           { "\0\xf5tn\5ab", 7 },       { "\0\xf5tn\1_k", 7 },
                  { "\0\xf5tn\1 k", 7 },       { "\0\xf5tn\377aaaaa", 10 }, { "\0\xf5tm\1ak", 7 },
                  { "\0\xf5tn\7defaultk", 13 } };
    (void)state;
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
        const struct store_key key = { (const uint8_t *)plain[i].bytes, plain[i].len };
        const struct scope scope = scope_split(key);
        assert_int_equal(scope.name_len, 0);
        assert_true(scope.key.bytes == key.bytes && scope.key.len == key.len);
    }
}

static void names_are_checked(void **state)
{
    char name[80];
    (void)state;
    for (unsigned i = 0; i < NAMES; i++)
        assert_true(scope_name_valid(names[i]));
    assert_true(scope_name_default("default") && scope_name_default(""));
    assert_false(scope_name_default("defaults"));
    assert_false(scope_name_valid("_a") || scope_name_valid("a/b") || scope_name_valid("a b"));
    memset(name, 'a', sizeof(name));
    name[SCOPE_NAME_LEN_MAX + 1] = 0;
    assert_false(scope_name_valid(name));
    name[SCOPE_NAME_LEN_MAX] = 0;
    assert_true(scope_name_valid(name));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_two_are_the_same),
        cmocka_unit_test(what_was_put_together_is_taken_apart),
        cmocka_unit_test(what_is_no_scope_is_the_default_tenants),
        cmocka_unit_test(names_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
