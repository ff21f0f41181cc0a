/* SPDX-License-Identifier: Apache-2.0
 *
 * base/utf8_test.c
 *
 * Goal:   a stream gives the same valid text however its bytes were cut.
 * Method: hand-picked sequences with known answers; every 4-byte string over the interesting bytes,
 * and random ones, cut at random places, against one push. */
#include "base/utf8.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/rng.h"
#include "seed.h"

#define R "\xef\xbf\xbd"

static const struct {
    const char *in;
    const char *out;
    size_t valid; /* prefix */
} cases[] = {
    { "", "", 0 },
    { "plain", "plain", 5 },
    { "\xc3\xa9", "\xc3\xa9", 2 },
    { "\xe2\x82\xac|\xf0\x9f\x98\x80", "\xe2\x82\xac|\xf0\x9f\x98\x80", 8 },
    { "a\x80z", "a" R "z", 1 },
    { "\xc3", R, 0 },
    { "\xc3(", R "(", 0 },
    { "\xf0\x9f\x98", R, 0 }, /* one replacement for a truncated sequence */
    { "\xf0\x9f\x98z", R "z", 0 },
    { "\xf0\x9f\xe2\x82\xac", R "\xe2\x82\xac", 0 },
    { "\xed\xa0\x80", R R R, 0 }, /* a surrogate */
    { "\xc0\xaf", R R, 0 },       /* overlong */
    { "\xe0\x9f\xbf", R R R, 0 }, /* overlong */
    { "\xf0\x8f\xbf\xbf", R R R R, 0 },
    { "\xf4\x90\x80\x80", R R R R, 0 }, /* above U+10FFFF */
    { "\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf", 4 },
    { "\xee\x80\x80\xed\x9f\xbf", "\xee\x80\x80\xed\x9f\xbf", 6 },
    { "ok\xff\xfe", "ok" R R, 2 },
};

/* Pushes `in` in pieces of the sizes that rng gives; rng NULL: at once. */
static size_t stream(const void *in, size_t len, struct rng *rng, char *out)
{
    const uint8_t *bytes = in;
    struct utf8_stream s;
    size_t written = 0, at = 0;

    utf8_stream_init(&s);
    while (at < len) {
        const size_t n = rng == NULL ? len : rng_between(rng, 1, 3);
        const size_t take = n < len - at ? n : len - at;
        written += utf8_stream_push(&s, bytes + at, take, out + written);
        assert_int_equal(utf8_valid_prefix(out, written), written);
        at += take;
    }
    return written + utf8_stream_finish(&s, out + written);
}

static void known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[64];
        const size_t len = strlen(cases[i].in);
        const size_t written = stream(cases[i].in, len, NULL, out);
        assert_int_equal(written, strlen(cases[i].out));
        assert_memory_equal(out, cases[i].out, written);
        assert_int_equal(utf8_valid_prefix(cases[i].in, len), cases[i].valid);
    }
}

static void incomplete_bytes_wait(void **state)
{
    struct utf8_stream s;
    char out[32];

    (void)state;
    utf8_stream_init(&s);
    assert_int_equal(utf8_stream_push(&s, "a\xf0\x9f", 3, out), 1);
    assert_int_equal(utf8_stream_push(&s, "\x98", 1, out), 0);
    assert_int_equal(utf8_stream_push(&s, "\x80", 1, out), 4);
    assert_memory_equal(out, "\xf0\x9f\x98\x80", 4);
    assert_int_equal(utf8_stream_finish(&s, out), 0);
}

static void cuts_make_no_difference(void **state)
{
    static const uint8_t bytes[] = { 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2,
                                     0xdf, 0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff };
    enum { N = sizeof(bytes) };
    struct rng rng;

    (void)state;
    rng_init(&rng, test_seed());
    for (int i = 0; i < N * N * N * N; i++) {
        const uint8_t in[5] = { bytes[i % N], bytes[i / N % N], bytes[i / N / N % N],
                                bytes[i / N / N / N], bytes[rng_below(&rng, N)] };
        char whole[64], cut[64];
        const size_t whole_len = stream(in, 5, NULL, whole);
        const size_t cut_len = stream(in, 5, &rng, cut);
        assert_int_equal(whole_len, cut_len);
        assert_memory_equal(whole, cut, whole_len);
        if (utf8_valid_prefix(in, 5) == 5) assert_memory_equal(whole, in, 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(incomplete_bytes_wait),
        cmocka_unit_test(cuts_make_no_difference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
