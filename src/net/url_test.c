/* SPDX-License-Identifier: Apache-2.0
 *
 * net/url_test.c
 *
 * Goal:   what people write is understood, and what nobody could reach is refused.
 * Method: tables of both. */
#include "net/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static void good_ones_are_taken_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool secure;
        const char *host, *address, *whole;
    } cases[] = {
        { "http://10.0.0.1:8000", false, "10.0.0.1", "10.0.0.1:8000", "http://10.0.0.1:8000" },
        { "https://front:8443/", true, "front", "front:8443", "https://front:8443" },
        { "front:1/v1/models?a=b:2", false, "front", "front:1", "http://front:1" },
        { "https://gateway.example", true, "gateway.example", "gateway.example:443",
          "https://gateway.example:443" },
        { "http://gateway.example#x", false, "gateway.example", "gateway.example:80",
          "http://gateway.example:80" },
        { "https://[::1]:65535", true, "::1", "[::1]:65535", "https://[::1]:65535" },
        { "https://[fe80::2]/x", true, "fe80::2", "[fe80::2]:443", "https://[fe80::2]:443" },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct errmsg err = { "" };
        struct url url;
        if (url_parse(cases[i].text, &url, &err) != STATUS_OK) fail_msg("%s", err.text);
        assert_int_equal(url.secure, cases[i].secure);
        assert_string_equal(url.host, cases[i].host);
        assert_string_equal(url.address, cases[i].address);
        assert_string_equal(url.text, cases[i].whole);
    }
}

static void bad_ones_are_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "host",
        "http://",
        "https://",
        "https:///path",
        "https://:443",
        "ftp://host:1",
        "HTTPS://host:1",
        "host:",
        "host:0",
        "host:65536",
        "host:1x",
        "host:-1",
        "host:000080",
        "http://user@host:1",
        "http://user:word@host:1",
        "::1:80",
        "https://::1:80",
        "[::1]",
        "[::1",
        "[::1]80",
        "[]:80",
        "http://[::1]:",
        "ho st:1",
        "host\r\nX: y:1",
        "ho\"st:1",
        "https://http://host:1",
    };
    char longest[URL_HOST_SIZE + 8];
    struct url url = { .host = "as it was" };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct errmsg err = { "" };
        if (url_parse(cases[i], &url, &err) != STATUS_INVALID) fail_msg("`%s`", cases[i]);
        assert_non_null(strstr(err.text, "https://HOST:PORT"));
    }
    assert_string_equal(url.host, "as it was");
    memset(longest, 'h', sizeof(longest));
    snprintf(longest + URL_HOST_SIZE, 8, ":65535");
    assert_int_equal(url_parse(longest, &url, NULL), STATUS_INVALID);
    assert_int_equal(url_parse(longest + 1, &url, NULL), STATUS_OK);
    assert_string_equal(url.address, longest + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_ones_are_taken_apart),
        cmocka_unit_test(bad_ones_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
