/* SPDX-License-Identifier: Apache-2.0
 *
 * store/pattern_test.c
 *
 * Goal:   a pattern means what it says, over any bytes, and none can hold its caller up.
 * Method: by hand. */
#include "store/pattern.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static enum status match(const char *prefix, const char *regex, const void *key, size_t len)
{
    struct pattern *pattern = NULL;
    const struct store_key name = { key, (uint32_t)len };

    assert_int_equal(
        pattern_create(prefix, strlen(prefix), regex, regex ? strlen(regex) : 0, &pattern, NULL),
        STATUS_OK);
    const enum status status = pattern_match(pattern, name);
    pattern_destroy(pattern);
    return status;
}

static void patterns_match(void **state)
{
    (void)state;
    assert_int_equal(match("", NULL, "a", 1), STATUS_OK);
    assert_int_equal(match("ab", NULL, "abc", 3), STATUS_OK);
    assert_int_equal(match("ab", NULL, "a", 1), STATUS_NOT_FOUND);
    assert_int_equal(match("ab", NULL, "xab", 3), STATUS_NOT_FOUND);
    assert_int_equal(match("", "b+c", "abbcd", 5), STATUS_OK); /* anywhere */
    assert_int_equal(match("", "^b", "abbcd", 5), STATUS_NOT_FOUND);
    assert_int_equal(match("a", "c$", "abc", 3), STATUS_OK);
    assert_int_equal(match("", "^\\x00.\\xff$", "\0q\xff", 3), STATUS_OK);
    assert_int_equal(match("", "", "x", 1), STATUS_OK);
}

static void a_wrong_expression_is_said_to_be(void **state)
{
    struct pattern *pattern = NULL;
    struct errmsg err = { "" };
    char huge[PATTERN_SIZE_MAX + 2];
    (void)state;

    assert_int_equal(pattern_create("", 0, "a(", 2, &pattern, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "byte 2"));
    memset(huge, 'a', sizeof(huge));
    assert_int_equal(pattern_create("", 0, huge, sizeof(huge), &pattern, &err), STATUS_INVALID);
}

static void an_endless_one_is_given_up(void **state)
{
    (void)state;
    assert_int_equal(match("", "^(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", 38),
                     STATUS_FULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_match),
        cmocka_unit_test(a_wrong_expression_is_said_to_be),
        cmocka_unit_test(an_endless_one_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
